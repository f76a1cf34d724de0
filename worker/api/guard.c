/*
 * guard.c: triggers on a stream table, and on the row that tells of it.
 *
 * A stream table is changed by its refreshes only.
 *
 * A statement trigger BEFORE INSERT, UPDATE, DELETE and TRUNCATE, enabled
 * always, refuses everything that comes through the executor as a statement.
 * Refreshes write rows without a statement, so it costs them nothing, and no
 * setting opens it.
 *
 * The apply worker of logical replication writes rows without a statement, too.
 * A second trigger of the same function refuses those: for each row, enabled for
 * replica roles. Refreshes take it out of what they execute (refresh/apply.c), so
 * that it costs them nothing and does not stop one in a session of such a role.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "pgt_refresh.h"
#include "pgt_wake.h"

#include "api_internal.h"

PG_FUNCTION_INFO_V1(pgt_guard_stream_table);
PG_FUNCTION_INFO_V1(pgt_definition_inserted);

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

static Datum
get_value(TriggerData *trigger, const char *column)
{
	bool isnull;

	return heap_getattr(trigger->tg_trigtuple,
						get_attnum(RelationGetRelid(trigger->tg_relation), column),
						RelationGetDescr(trigger->tg_relation), &isnull);
}

/*
 * AFTER INSERT on pgt_definitions, which pg_restore fills when tables and views
 * are there, but nothing that says that they are parts of one another.
 */
Datum
pgt_definition_inserted(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	PgtStreamTable st = {0};

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("not called by trigger manager")));
	st.pgt_id = DatumGetInt64(get_value(trigger, "pgt_id"));
	st.relid = DatumGetObjectId(get_value(trigger, "pgt_relid"));
	st.view_relid = DatumGetObjectId(get_value(trigger, "view_relid"));
	if (get_rel_relkind(st.relid) == RELKIND_RELATION &&
		get_rel_relkind(st.view_relid) == RELKIND_VIEW)
		pgt_refresh_adopt(&st);
	pgt_wake_catalog();
	return PointerGetDatum(NULL);
}
