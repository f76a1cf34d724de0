/*
 * publication_fn.c: functions of SQL about the publication of a stream table.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "api_internal.h"

PG_FUNCTION_INFO_V1(pgt_stream_table_to_publication);
PG_FUNCTION_INFO_V1(pgt_drop_stream_table_publication);

/* Locked against refreshes; the caller has the owner's rights. */
static PgtStreamTable *
open_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("argument \"%s\" must not be null", "name")));
	return pgt_lifecycle_open(text_to_cstring(PG_GETARG_TEXT_PP(0)));
}

/*
 * stream_table_to_publication(name text, publication text) returns text: its name.
 * Errors: insufficient_privilege (caller is not the owner, who needs CREATE on the
 * database), object_not_in_prerequisite_state (wal_level, replica identity),
 * duplicate_object (the name is in use, or it has a publication of another name),
 * invalid_name.
 */
Datum
pgt_stream_table_to_publication(PG_FUNCTION_ARGS)
{
	PgtStreamTable *st = open_argument(fcinfo);
	char *name = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));

	PG_RETURN_TEXT_P(cstring_to_text(pgt_publication_create(st, name)));
}

/* drop_stream_table_publication(name text); errors: insufficient_privilege, undefined_object. */
Datum
pgt_drop_stream_table_publication(PG_FUNCTION_ARGS)
{
	pgt_publication_drop(open_argument(fcinfo));
	PG_RETURN_VOID();
}
