/*
 * drop.c: dropping a stream table, and cleaning up after one that is gone.
 *
 * The table is dropped like any other; the event trigger sees that, however it
 * happens (DROP TABLE, DROP SCHEMA, DROP of a source with CASCADE), and calls
 * pgt_lifecycle_forget.
 */
#include "postgres.h"

#include "utils/lsyscache.h"

#include "pgt_capture.h"
#include "pgt_delta.h"
#include "pgt_dependency.h"
#include "pgt_history.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

/* Names of the stream tables that read it, or NULL. */
static char *
list_consumers(Oid relid)
{
	StringInfoData names;
	ListCell *lc;

	initStringInfo(&names);
	foreach (lc, pgt_dependency_consumers(relid))
	{
		PgtStreamTable *consumer = pgt_stream_table_find_id(*(int64 *) lfirst(lc));

		if (consumer != NULL && get_rel_name(consumer->relid) != NULL)
			appendStringInfo(&names, "%sstream table %s", names.len > 0 ? ", " : "",
							 pgt_sqltext_relation(consumer->relid));
	}
	return names.len > 0 ? names.data : NULL;
}

void
pgt_lifecycle_drop(PgtStreamTable *st, bool cascade)
{
	char *consumers = list_consumers(st->relid);

	if (consumers != NULL && !cascade)
		ereport(
			ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("cannot drop stream table \"%s\" because others read it",
					get_rel_name(st->relid)),
			 errdetail("It is read by %s.", consumers),
			 errhint(
				 "Drop them first, or use pgtrickle.drop_stream_table(name, cascade => true).")));
	pgt_spi_execute(psprintf("DROP TABLE %s %s", pgt_sqltext_relation(st->relid),
							 cascade ? "CASCADE" : "RESTRICT"));
}

void
pgt_lifecycle_forget(PgtStreamTable *st)
{
	List *sources = pgt_dependency_list(st->pgt_id);

	pgt_delta_forget(st->pgt_id);
	pgt_history_delete(st->pgt_id);
	pgt_stream_table_delete(st->pgt_id); /* with frontier and dependencies */
	pgt_define_release_sources(sources);
	pgt_capture_release(st->relid); /* who read it is gone too */
	pgt_publication_forget(st);
}
