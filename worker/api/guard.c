/*
 * guard.c: a stream table is changed by its refreshes only.
 *
 * A statement trigger BEFORE INSERT, UPDATE, DELETE and TRUNCATE, enabled
 * always, refuses everything that comes through the executor as a statement.
 * Refreshes write rows without a statement, so it costs them nothing, and no
 * setting opens it.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/rel.h"

#include "api_internal.h"

PG_FUNCTION_INFO_V1(pgt_guard_stream_table);

Datum
pgt_guard_stream_table(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("not called by trigger manager")));
	if (pgt_ddl_is_internal())
		return PointerGetDatum(NULL);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot change stream table \"%s\" directly",
					RelationGetRelationName(trigger->tg_relation)),
			 errdetail("Its rows are the result of its defining query."),
			 errhint("Change the tables it reads, then use pgtrickle.refresh_stream_table().")));
	return PointerGetDatum(NULL); /* not reached */
}
