/*
 * see_source_fn.c: SQL functions about sources, buffers and due times.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "pgt_capture.h"
#include "pgt_clock.h"
#include "pgt_dependency.h"
#include "pgt_frontier.h"
#include "pgt_schedule.h"
#include "pgt_sla.h"
#include "pgt_security.h"
#include "pgt_source.h"
#include "pgt_sqltext.h"
#include "pgt_stream_table.h"

#include "api_internal.h"

PG_FUNCTION_INFO_V1(pgt_is_captured);
PG_FUNCTION_INFO_V1(pgt_pending_changes);
PG_FUNCTION_INFO_V1(pgt_is_behind);
PG_FUNCTION_INFO_V1(pgt_change_buffer_sizes);
PG_FUNCTION_INFO_V1(pgt_next_due);

Datum
pgt_is_captured(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(pgt_source_find(PG_GETARG_OID(0)) != NULL);
}

/* ---- Pending changes ---- */

/* Images of one source that a frontier does not have yet. */
static int64
count_pending(Oid relid, const PgtFrontier *frontier, Snapshot snapshot)
{
	PgtFrontier now = pgt_frontier_of_snapshot(snapshot);
	PgtChangeSet *changes;
	int64 nrows;

	LockRelationOid(relid, AccessShareLock);
	changes = pgt_capture_read(relid, NULL, frontier, &now, snapshot);
	nrows = changes->nrows;
	tuplestore_end(changes->rows);
	return nrows;
}

/* Sources of a stream table that are captured. */
static List *
captured_sources(int64 pgt_id)
{
	List *relids = NIL;
	ListCell *lc;

	foreach (lc, pgt_dependency_list(pgt_id))
	{
		PgtDependency *dependency = lfirst(lc);

		if (pgt_source_find(dependency->relid) != NULL)
			relids = lappend_oid(relids, dependency->relid);
	}
	return relids;
}

static int64
pending_changes(int64 pgt_id)
{
	PgtFrontierRow row;
	Snapshot snapshot;
	int64 pending = 0;
	ListCell *lc;

	pgt_frontier_get(pgt_id, &row);
	if (!row.frontier.valid)
		return 0;
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	foreach (lc, captured_sources(pgt_id))
		pending += count_pending(lfirst_oid(lc), &row.frontier, snapshot);
	UnregisterSnapshot(snapshot);
	return pending;
}

Datum
pgt_pending_changes(PG_FUNCTION_ARGS)
{
	PgtStreamTable *st = pgt_stream_table_find_id(PG_GETARG_INT64(0));

	if (st == NULL || !pgt_security_may_read(st->relid))
		PG_RETURN_NULL();
	PG_RETURN_INT64(pending_changes(st->pgt_id));
}

/* Is a change pending anywhere on the way to it? */
Datum
pgt_is_behind(PG_FUNCTION_ARGS)
{
	PgtStreamTable *st = pgt_stream_table_find_id(PG_GETARG_INT64(0));
	List *relids;

	if (st == NULL || !pgt_security_may_read(st->relid))
		PG_RETURN_NULL();
	relids = list_make1_oid(st->relid);
	/* The list grows while it is gone through. */
	for (int i = 0; i < list_length(relids); i++)
	{
		ListCell *lc;

		st = pgt_stream_table_find(list_nth_oid(relids, i));
		if (st == NULL)
			continue;
		if (pending_changes(st->pgt_id) > 0)
			PG_RETURN_BOOL(true);
		foreach (lc, pgt_dependency_list(st->pgt_id))
			relids = list_append_unique_oid(relids, ((PgtDependency *) lfirst(lc))->relid);
	}
	PG_RETURN_BOOL(false);
}

static void
put_buffer(ReturnSetInfo *rsinfo, PgtStreamTable *st, Oid source, const PgtFrontierRow *row,
		   Snapshot snapshot)
{
	int64 rows;
	int64 bytes;
	Datum values[6];
	bool nulls[6] = {false};

	pgt_capture_buffer_size(source, -1, &rows, &bytes);
	values[0] = CStringGetTextDatum(pgt_sqltext_relation(st->relid));
	values[1] = CStringGetTextDatum(pgt_sqltext_relation(source));
	values[2] = ObjectIdGetDatum(source);
	nulls[3] = !row->frontier.valid;
	values[3] = nulls[3] ? (Datum) 0
						 : Int64GetDatum(count_pending(source, &row->frontier, snapshot));
	values[4] = Int64GetDatum(rows);
	values[5] = Int64GetDatum(bytes);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
pgt_change_buffer_sizes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Snapshot snapshot = RegisterSnapshot(GetTransactionSnapshot());
	ListCell *lc;
	ListCell *ls;

	InitMaterializedSRF(fcinfo, 0);
	foreach (lc, pgt_stream_table_list())
	{
		PgtStreamTable *st = lfirst(lc);
		PgtFrontierRow row;

		if (!pgt_security_may_read(st->relid))
			continue;
		pgt_frontier_get(st->pgt_id, &row);
		foreach (ls, captured_sources(st->pgt_id))
			put_buffer(rsinfo, st, lfirst_oid(ls), &row, snapshot);
	}
	UnregisterSnapshot(snapshot);
	return (Datum) 0;
}

/* ---- Due times ---- */

Datum
pgt_next_due(PG_FUNCTION_ARGS)
{
	int64 pgt_id = PG_GETARG_INT64(0);
	PgtStreamTable *st = pgt_stream_table_find_id(pgt_id);
	PgtFrontierRow row;
	PgtSchedule schedule;
	PgtParseError error;
	PgtTier tier;
	int64 due;

	if (st == NULL || !pgt_security_may_read(st->relid) || st->paused || st->schedule == NULL)
		PG_RETURN_NULL();
	pgt_frontier_get(pgt_id, &row);
	if (row.suspended_reason != NULL ||
		pgt_schedule_parse(st->schedule, &schedule, &error) != PGT_SCHEDULE_PARSED)
		PG_RETURN_NULL();
	if (row.next_retry_at != 0)
		PG_RETURN_TIMESTAMPTZ(row.next_retry_at);
	if (st->tier != NULL && pgt_tier_parse(st->tier, &tier))
	{
		if (tier == PGT_TIER_FROZEN)
			PG_RETURN_NULL();
		if (schedule.kind == PGT_SCHEDULE_INTERVAL && st->sla_ms == 0)
			schedule.interval = pgt_tier_interval(tier, schedule.interval);
	}
	due = pgt_schedule_next_due(
		&schedule, row.last_refresh_at != 0 ? row.last_refresh_at : PGT_SCHEDULE_NO_TIME,
		pgt_clock_now(), pgt_clock_zone_offset, pgt_clock_schedule_zone());
	if (due == PGT_SCHEDULE_NEVER || due == PGT_SCHEDULE_NO_TIME)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(due);
}
