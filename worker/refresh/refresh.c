/*
 * refresh.c: one refresh, from lock to history; reads like README.md.
 *
 * Runs in the caller's transaction. Everything is allocated in one memory
 * context, deleted at the end. Locks, until the end of the transaction and in
 * this order: the refresh lock of the stream table, AccessShare on what it
 * reads (by oid), RowExclusive on what it writes.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "pgt_clock.h"
#include "pgt_dependency.h"
#include "pgt_guc.h"
#include "pgt_history.h"
#include "pgt_point.h"
#include "pgt_security.h"
#include "pgt_source.h"
#include "pgt_wake.h"

#include "refresh_internal.h"

/* Advisory locks of users have 1 or 2 here; see pg_locks.objsubid. */
#define LOCK_FIELD4 3

/* Without a scheduler, each so many refreshes at most as many old rows of the history go. */
#define HISTORY_EVERY 1000

/* Refreshes of this session that have begun: one may be inside another, through a trigger. */
typedef struct Running
{
	int64 pgt_id;
	struct Running *outer;
} Running;

static Running *running = NULL;

void (*pgt_refresh_make_anew)(int64 pgt_id) = NULL;

bool
pgt_refresh_lock(int64 pgt_id, bool wait)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (pgt_id >> 32), (uint32) pgt_id, LOCK_FIELD4);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

static void
check_transaction(void)
{
	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("cannot refresh a stream table during recovery"),
						errhint("Refresh it on the primary.")));
	PreventCommandIfReadOnly("refresh of a stream table");
	PreventCommandIfParallelMode("refresh of a stream table");
}

/* ---- What is read and written ---- */

static int
compare_sources(const ListCell *a, const ListCell *b)
{
	Oid left = ((PgtSourceUse *) lfirst(a))->relid;
	Oid right = ((PgtSourceUse *) lfirst(b))->relid;

	return left < right ? -1 : left > right ? 1 : 0;
}

/*
 * Locks what the definition reads and writes. Waiting for a lock lets other
 * changes in, so the definition is opened again until it stays the same.
 */
static void
open_definition(Refresh *refresh)
{
	PgtStreamTable *st = refresh->st;
	const PgtDefinition *before;
	ListCell *lc;

	do
	{
		List *sources;

		refresh->delta = pgt_delta_open(st->pgt_id, st->relid, st->view_relid);
		before = pgt_delta_definition(refresh->delta);
		sources = list_copy(before->sources);
		list_sort(sources, compare_sources);
		foreach (lc, sources)
			LockRelationOid(((PgtSourceUse *) lfirst(lc))->relid, AccessShareLock);
		foreach (lc, before->stages)
			LockRelationOid(((PgtStage *) lfirst(lc))->relid, RowExclusiveLock);
		refresh->delta = pgt_delta_open(st->pgt_id, st->relid, st->view_relid);
		refresh->definition = pgt_delta_definition(refresh->delta);
	} while (refresh->definition != before);
}

/* Makes capture complete again; changes since it broke are lost. */
static void
repair_capture(Refresh *refresh, PgtSourceUse *source, const char *reason)
{
	bool is_stream_table = pgt_stream_table_find(source->relid) != NULL;
	PgtSecurity saved;

	LockRelationOid(source->relid, ShareRowExclusiveLock);
	saved = pgt_security_become_extension_owner();
	pgt_capture_install(source->relid, source->columns, is_stream_table);
	pgt_security_restore(&saved);
	refresh->broken = psprintf("changes of %s may be missing: %s", get_rel_name(source->relid),
							   reason);
}

/*
 * Which sources are captured. One that cannot be, or (where the query is
 * always computed whole) was not meant to be, may change unnoticed.
 */
static void
check_capture(Refresh *refresh)
{
	bool is_full = refresh->definition->full_reason != NULL;
	ListCell *lc;

	refresh->sees_all = !is_full || !contain_mutable_functions((Node *) refresh->definition->query);
	foreach (lc, refresh->definition->sources)
	{
		PgtSourceUse *source = lfirst(lc);
		const char *reason;

		if (source->is_view)
			continue;
		reason = pgt_capture_broken(source->relid);
		if (reason != NULL && (pgt_capture_reason(source->relid) != NULL ||
							   (is_full && pgt_source_find(source->relid) == NULL)))
		{
			refresh->sees_all = false;
			continue;
		}
		if (reason != NULL)
			repair_capture(refresh, source, reason);
		refresh->captured = lappend(refresh->captured, source);
	}
}

/*
 * An index that somebody dropped, or that a better key of the sources asks for,
 * is made (again), and everything computed: first that, since what is stored
 * need not fit it.
 */
static void
check_storage(Refresh *refresh)
{
	ListCell *lc;

	foreach (lc, refresh->definition->stages)
	{
		const PgtStage *stage = lfirst(lc);
		bool is_last = lnext(refresh->definition->stages, lc) == NULL;

		if (is_last && refresh->request->redefined)
			refresh->unindexed = bms_add_member(refresh->unindexed, stage->number);
		if (stage->technique == PGT_TECHNIQUE_FULL || pgt_storage_is_complete(stage))
			continue;
		pgt_refresh_create_states(refresh->st, stage);
		CacheInvalidateRelcacheByRelid(stage->relid);
		refresh->unindexed = bms_add_member(refresh->unindexed, stage->number);
		refresh->broken = stage->is_missing ? "a stage that was not stored has to be"
											: "the index that identifies its rows was missing";
	}
	if (refresh->broken == NULL)
		return;
	CommandCounterIncrement();
	open_definition(refresh); /* it may have a state table now */
}

/* ---- The snapshot and what came since the last ---- */

static void
mark_sources(Refresh *refresh)
{
	ListCell *lc;

	foreach (lc, refresh->captured)
		pgt_capture_mark(((PgtSourceUse *) lfirst(lc))->relid);
}

/* The caller's snapshot, with what this transaction did since. */
static Snapshot
copy_snapshot(Snapshot snapshot)
{
	Snapshot copy;

	PushCopiedSnapshot(snapshot);
	UpdateActiveSnapshotCommandId();
	copy = RegisterSnapshot(GetActiveSnapshot());
	PopActiveSnapshot();
	return copy;
}

static void
take_snapshot(Refresh *refresh)
{
	const PgtRefreshRequest *request = refresh->request;

	mark_sources(refresh);
	/* Own changes so far are part of the state, and of the frontier. */
	CommandCounterIncrement();
	if (request->snapshot != NULL)
	{
		refresh->snapshot = copy_snapshot(request->snapshot);
		refresh->data_timestamp = request->snapshot_at;
	}
	else
	{
		refresh->snapshot = RegisterSnapshot(GetTransactionSnapshot());
		refresh->data_timestamp = pgt_clock_now();
	}
	refresh->frontier = pgt_frontier_of_snapshot(refresh->snapshot);
	PGT_POINT("refresh-after-snapshot");
}

/*
 * Who set the mark, by replacing a function, say, has committed, but what other backends know of
 * functions changes only a moment later, before its locks go.
 */
static void
wait_for_mark(const Refresh *refresh)
{
	TransactionId xid = refresh->row.xmin;

	if (refresh->row.rebuild_reason == NULL)
		return;
	if (TransactionIdIsNormal(xid) && !TransactionIdIsCurrentTransactionId(xid))
		XactLockTableWait(xid, NULL, NULL, XLTW_None);
	AcceptInvalidationMessages();
}

static void
read_frontier(Refresh *refresh)
{
	pgt_frontier_get(refresh->st->pgt_id, &refresh->row);
	/* The first one, or the first in this cluster. */
	if (!refresh->row.frontier.valid)
		pgt_refresh_adopt(refresh->st);
	wait_for_mark(refresh);
	if (!refresh->row.frontier.valid ||
		pgt_frontier_is_behind(&refresh->row.frontier, &refresh->frontier))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("stream table \"%s\" is refreshed beyond the snapshot of this transaction",
					get_rel_name(refresh->st->relid)),
			 errdetail("A refresh may only move it forwards."),
			 errhint("Refresh it in a transaction of isolation level READ COMMITTED.")));
}

static void
read_changes(Refresh *refresh)
{
	ListCell *lc;

	if (!refresh->row.frontier.valid || refresh->row.rebuild_reason != NULL ||
		refresh->broken != NULL)
		return;
	foreach (lc, refresh->captured)
	{
		PgtSourceUse *source = lfirst(lc);
		PgtChangeSet *changes = pgt_capture_read(source->relid, source->columns,
												 &refresh->row.frontier, &refresh->frontier,
												 refresh->snapshot);

		refresh->result.rows_in += changes->nrows;
		refresh->truncated = refresh->truncated || changes->truncated;
		refresh->changes = lappend(refresh->changes, changes);
	}
}

/* ---- The work ---- */

static bool
is_full(const Refresh *refresh)
{
	return strcmp(refresh->result.action, "DIFFERENTIAL") != 0;
}

void
pgt_refresh_count(Refresh *refresh, Apply *apply)
{
	refresh->result.rows_inserted += apply->inserted;
	refresh->result.rows_updated += apply->updated;
	refresh->result.rows_deleted += apply->deleted;
}

/* What was stored before was wrong, so what was told about it downstream is, too. */
static void
mark_consumers(const Refresh *refresh)
{
	const char *reason = psprintf("stream table %s was repaired", get_rel_name(refresh->st->relid));
	ListCell *lc;

	foreach (lc, pgt_dependency_consumers(refresh->st->relid))
		pgt_frontier_mark_rebuild(*(int64 *) lfirst(lc), reason);
}

static void
run_full(Refresh *refresh)
{
	TimestampTz start = pgt_clock_now();

	pgt_full_run(refresh);
	refresh->full_ms = pgt_clock_ms_between(start, pgt_clock_now());
}

/*
 * A delta did not fit what is stored. Test builds stop here, so that the cause
 * is found; others compute everything under the same snapshot. Own commands up
 * to now are then seen by the statements, so the frontier has to say so.
 */
static void
repair(Refresh *refresh, const char *misfit)
{
#ifdef PGT_TEST_POINTS
	if (pgt_guc_verify)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("a delta does not fit stream table \"%s\"",
							   get_rel_name(refresh->st->relid)),
						errdetail("Reason: %s.", misfit)));
#endif
	ereport(WARNING, (errcode(ERRCODE_DATA_CORRUPTED),
					  errmsg("a delta does not fit stream table \"%s\", computing it anew",
							 get_rel_name(refresh->st->relid)),
					  errdetail("Reason: %s.", misfit)));
	refresh->result.action = "REINITIALIZE";
	refresh->result.reason = psprintf("delta_misfit: %s", misfit);
	CommandCounterIncrement();
	refresh->frontier.own_xid = GetTopFullTransactionIdIfAny();
	refresh->frontier.own_cmd = (int64) GetCurrentCommandId(false) - 1;
	run_full(refresh);
	mark_consumers(refresh);
}

/* Nothing of the delta is left; locks that it took are gone with it. */
static void
compute_instead(Refresh *refresh, const char *error)
{
	if (refresh->abandoned)
	{
		refresh->result.action = "FULL";
		refresh->result.reason = "differential_slower_than_full";
		open_definition(refresh);
		run_full(refresh);
		return;
	}
	ereport(WARNING,
			(errmsg("could not compute the changes of stream table \"%s\", computing it anew",
					get_rel_name(refresh->st->relid)),
			 errdetail("Reason: %s.", error)));
	refresh->result.action = "REINITIALIZE";
	refresh->result.reason = psprintf(PGT_REFRESH_DELTA_ERROR "%s", error);
	open_definition(refresh);
	run_full(refresh);
}

/* May a delta be given up? */
static bool
may_be_abandoned(const Refresh *refresh)
{
	ListCell *lc;

	foreach (lc, refresh->definition->stages)
		if (((PgtStage *) lfirst(lc))->recursion != NULL)
			return true;
	return refresh->forecast.limit_ms > 0;
}

static void
run_differential(Refresh *refresh)
{
	const char *error = NULL;
	const char *misfit = NULL;
	bool fits = true;

	pgt_differential_prepare(refresh);
	if (refresh->request->recompute_on_error || may_be_abandoned(refresh))
		error = pgt_differential_try(refresh, &fits, &misfit);
	else
		fits = pgt_differential_run(refresh, &misfit);
	if (error != NULL)
		compute_instead(refresh, error);
	else if (!fits)
		repair(refresh, misfit);
}

/* Deltas and apply, with the rights of the owner and the safest settings. */
static void
run_work(Refresh *refresh)
{
	PgtSecurity saved = pgt_security_become(refresh->owner);

	(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	PushActiveSnapshot(refresh->snapshot);
	if (is_full(refresh))
		run_full(refresh);
	else
		run_differential(refresh);
	PopActiveSnapshot();
	pgt_security_restore(&saved);
	pgt_announce_close(refresh);
	CommandCounterIncrement();
}

/*
 * Is what was done before the mark was set part of the snapshot? The row was read later, and
 * not every statement that sets a mark has a lock that keeps refreshes out.
 */
static bool
sees_mark(const Refresh *refresh)
{
	return TransactionIdIsCurrentTransactionId(refresh->row.xmin) ||
		   !XidInMVCCSnapshot(refresh->row.xmin, refresh->snapshot);
}

/* What the next forecast knows of this refresh. */
static void
learn(Refresh *refresh)
{
	PgtForecastModel *model = pgt_refresh_model(refresh);
	double rows = refresh->result.rows_in;

	if (refresh->abandoned)
		pgt_forecast_note_abandoned(model, rows, refresh->forecast.limit_ms);
	if (refresh->full_ms > 0)
		pgt_forecast_note_full(model, pgt_decide_source_rows(refresh), refresh->full_ms);
	else
		pgt_forecast_note_differential(model, rows, refresh->result.duration_ms);
}

static void
write_frontier(Refresh *refresh)
{
	PgtFrontierUpdate update = {0};

	update.frontier = refresh->frontier;
	update.base = refresh->base;
	update.data_timestamp = refresh->data_timestamp;
	update.refresh_id = refresh->refresh_id;
	update.mode = refresh->result.action;
	update.new_epoch = refresh->stale_states;
	update.rebuilt = is_full(refresh) && sees_mark(refresh) ? &refresh->row : NULL;
	update.duration_ms = refresh->result.duration_ms;
	update.full_ms = refresh->full_ms;
	learn(refresh);
	update.cost_model = refresh->row.cost_model;
	update.rows_in = refresh->result.rows_in;
	update.rows_inserted = refresh->result.rows_inserted;
	update.rows_updated = refresh->result.rows_updated;
	update.rows_deleted = refresh->result.rows_deleted;
	pgt_frontier_update(refresh->st->pgt_id, &update);
}

static void
write_history(Refresh *refresh, TimestampTz start, TimestampTz end, double snapshot_ms)
{
	PgtHistoryRow row = {0};

	row.refresh_id = refresh->refresh_id;
	row.pgt_id = refresh->st->pgt_id;
	row.start_time = start;
	row.end_time = end;
	row.data_timestamp = refresh->data_timestamp;
	row.action = refresh->result.action;
	row.refresh_reason = refresh->result.reason;
	row.status = "COMPLETED";
	row.rows_in = refresh->result.rows_in;
	row.rows_inserted = refresh->result.rows_inserted;
	row.rows_updated = refresh->result.rows_updated;
	row.rows_deleted = refresh->result.rows_deleted;
	row.phases = psprintf("{\"snapshot\": %.3f, \"delta\": %.3f, \"apply\": %.3f}", snapshot_ms,
						  refresh->delta_ms, refresh->apply_ms);
	row.forecast_ms = refresh->forecast.differential_ms;
	row.forecast_full_ms = refresh->forecast.full_ms;
	row.initiated_by = refresh->request->initiated_by;
	row.attempt = refresh->request->attempt;
	pgt_history_insert(&row);
	if (pgt_guc_log_refreshes)
		ereport(LOG, (errmsg("refreshed stream table \"%s\" in %.3f ms: %s%s%s, " INT64_FORMAT
							 " in, " INT64_FORMAT " inserted, " INT64_FORMAT
							 " updated, " INT64_FORMAT " deleted",
							 get_rel_name(refresh->st->relid), refresh->result.duration_ms,
							 row.action, row.refresh_reason != NULL ? ", " : "",
							 row.refresh_reason != NULL ? row.refresh_reason : "", row.rows_in,
							 row.rows_inserted, row.rows_updated, row.rows_deleted)));
}

/* ---- The order of things ---- */

static void
check_not_running(const PgtStreamTable *st)
{
	/* The innermost is this one. */
	for (Running *outer = running->outer; outer != NULL; outer = outer->outer)
		if (outer->pgt_id == st->pgt_id)
			ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
							errmsg("stream table \"%s\" is being refreshed by this session",
								   get_rel_name(st->relid)),
							errdetail("A function or trigger that its refresh runs asked for "
									  "another refresh of it.")));
}

/*
 * False if another session refreshes it and the caller does not want to wait, if it was paused
 * meanwhile, or if it is outdated.
 */
static bool
lock_and_open(Refresh *refresh)
{
	const PgtRefreshRequest *request = refresh->request;

	if (!pgt_refresh_lock(request->pgt_id, !request->skip_locked))
		return false;
	refresh->st = pgt_stream_table_find_id(request->pgt_id);
	if (refresh->st == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("stream table " INT64_FORMAT " does not exist", request->pgt_id)));
	check_not_running(refresh->st);
	/* Since the scheduler chose it. A user who alters a paused one has it computed anew. */
	if (request->skip_locked && refresh->st->paused)
	{
		refresh->result.reason = "it was paused";
		return false;
	}
	refresh->owner = pgt_stream_table_owner(refresh->st);
	refresh->is_outdated = pgt_stream_table_is_outdated(refresh->st) &&
						   pgt_refresh_make_anew != NULL;
	if (refresh->is_outdated)
		return false;
	open_definition(refresh);
	if (refresh->definition->is_outdated && pgt_refresh_make_anew != NULL)
	{
		refresh->is_outdated = true;
		return false;
	}
	pgt_rights_check(refresh->st, refresh->owner);
	pgt_owner_check(refresh->st, refresh->definition, refresh->owner);
	check_storage(refresh); /* may open the definition again */
	check_capture(refresh);
	return true;
}

/* Taken when it is needed first, so that a refresh with nothing to do takes none. */
int64
pgt_refresh_get_id(Refresh *refresh)
{
	if (refresh->refresh_id == 0)
		refresh->refresh_id = pgt_history_next_id();
	return refresh->refresh_id;
}

/*
 * Nothing to do, or a query that might have given something else (because of
 * now(), or of sources that are not captured) gave the same again.
 */
static bool
nothing_happened(const Refresh *refresh)
{
	const PgtRefreshResult *result = &refresh->result;

	if (strcmp(result->action, "NO_DATA") == 0)
		return true;
	return !refresh->sees_all && refresh->request->mode == NULL && refresh->row.frontier.valid &&
		   refresh->row.rebuild_reason == NULL && refresh->broken == NULL &&
		   strcmp(result->action, "FULL") == 0 && !refresh->truncated && result->rows_in == 0 &&
		   result->rows_inserted + result->rows_updated + result->rows_deleted == 0;
}

/*
 * Rights, sources and functions change, and with them whether the query can be maintained.
 * Written down with the refresh that is the first to compute less, or more, than before.
 */
static void
note_full_reason(Refresh *refresh)
{
	const char *before = refresh->st->full_reason;
	char *now = refresh->definition->full_reason;

	if ((before == NULL) == (now == NULL) && (now == NULL || strcmp(before, now) == 0))
		return;
	refresh->st->full_reason = now;
	pgt_stream_table_update(refresh->st);
}

static void
run_locked(Refresh *refresh)
{
	TimestampTz start = pgt_clock_now();
	TimestampTz begin_work;
	TimestampTz end;
	Decision decision;

	refresh->result.action = "SKIP";
	refresh->result.reason = "another refresh is running";
	if (!lock_and_open(refresh))
		return;
	take_snapshot(refresh);
	read_frontier(refresh);
	if (!pgt_base_find(refresh) && refresh->request->aligned)
	{
		refresh->result.action = "APART";
		refresh->result.reason = "what it reads shows different snapshots";
		UnregisterSnapshot(refresh->snapshot);
		return;
	}
	read_changes(refresh);
	decision = pgt_decide_action(refresh);
	refresh->result.action = decision.action;
	refresh->result.reason = decision.reason;
	begin_work = pgt_clock_now();
	if (strcmp(decision.action, "NO_DATA") != 0)
	{
		run_work(refresh);
		note_full_reason(refresh);
	}
	PGT_POINT("refresh-after-apply");
	end = pgt_clock_now();
	refresh->result.duration_ms = pgt_clock_ms_between(start, end);
	if (nothing_happened(refresh))
	{
		refresh->result.action = "NO_DATA";
		refresh->result.reason = NULL;
		/* What made the last one fail is overcome all the same. */
		if (refresh->row.failed)
			pgt_frontier_clear_error(refresh->st->pgt_id);
	}
	else
	{
		(void) pgt_refresh_get_id(refresh);
		write_frontier(refresh);
		write_history(refresh, start, end, pgt_clock_ms_between(start, begin_work));
		PGT_POINT("refresh-before-commit");
	}
	UnregisterSnapshot(refresh->snapshot);
}

/*
 * What the coordinator of a database does, if there is none: buffers and history would grow for
 * ever. Not inside of another refresh, which may have a snapshot that is no frontier yet.
 */
static void
keep_house(Refresh *refresh)
{
	ListCell *lc;

	if (running != NULL || refresh->refresh_id == 0 || refresh->request->snapshot != NULL ||
		strcmp(refresh->request->initiated_by, "MANUAL") != 0 || pgt_wake_has_coordinator())
		return;
	foreach (lc, refresh->captured)
		if (pgt_capture_is_large(((PgtSourceUse *) lfirst(lc))->relid))
			(void) pgt_capture_prune(((PgtSourceUse *) lfirst(lc))->relid);
	if (refresh->refresh_id % HISTORY_EVERY == 0)
		(void) pgt_history_prune(pgt_guc_history_days, HISTORY_EVERY);
}

static Refresh
run_once(const PgtRefreshRequest *request)
{
	Refresh refresh = {.request = request};
	Running frame = {request->pgt_id, running};

	running = &frame;
	PG_TRY();
	{
		run_locked(&refresh);
	}
	PG_FINALLY();
	{
		running = frame.outer;
	}
	PG_END_TRY();
	return refresh;
}

PgtRefreshResult
pgt_refresh_run(const PgtRefreshRequest *request)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle refresh",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Refresh refresh;
	ListCell *lc;

	check_transaction();
	refresh = run_once(request);
	if (refresh.is_outdated)
	{
		pgt_refresh_make_anew(request->pgt_id);
		refresh = run_once(request);
	}
	keep_house(&refresh);
	/* Their files are not the context's. */
	foreach (lc, refresh.changes)
		tuplestore_end(((PgtChangeSet *) lfirst(lc))->rows);
	MemoryContextSwitchTo(old);
	if (refresh.result.reason != NULL)
		refresh.result.reason = pstrdup(refresh.result.reason);
	MemoryContextDelete(context);
	return refresh.result;
}

static bool
prepare_once(Refresh *refresh)
{
	Running frame = {refresh->request->pgt_id, running};
	volatile bool is_ours = false;

	running = &frame;
	PG_TRY();
	{
		is_ours = lock_and_open(refresh);
	}
	PG_FINALLY();
	{
		running = frame.outer;
	}
	PG_END_TRY();
	return is_ours;
}

bool
pgt_refresh_prepare(int64 pgt_id)
{
	PgtRefreshRequest request = {.pgt_id = pgt_id, .skip_locked = true};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle refresh",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Refresh refresh = {.request = &request};
	bool is_ours;

	check_transaction();
	is_ours = prepare_once(&refresh);
	if (refresh.is_outdated)
	{
		pgt_refresh_make_anew(pgt_id);
		memset(&refresh, 0, sizeof(refresh));
		refresh.request = &request;
		is_ours = prepare_once(&refresh);
	}
	if (is_ours)
	{
		mark_sources(&refresh);
		/* What was repaired looks sound when the refresh comes by again. */
		if (refresh.broken != NULL)
			pgt_frontier_mark_rebuild(pgt_id, refresh.broken);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return is_ours;
}
