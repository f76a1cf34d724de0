/*
 * item.c: one scheduled refresh, or several to one snapshot, and what follows
 * from a failure.
 *
 * A refresh is a transaction of its own, committed asynchronously: data and
 * frontier commit together, and what a crash loses is redone from the buffer.
 * A failure is recorded in a second transaction, with the wait that its SQLSTATE
 * asks for.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "pgt_clock.h"
#include "pgt_frontier.h"
#include "pgt_guc.h"
#include "pgt_history.h"
#include "pgt_refresh.h"

#include "sched_internal.h"

#define BUSY_MS 50
#define LONGEST_LOCK_WAIT_MS 500

/*
 * What comes out of a transaction. at: the table that it was at, to know whose
 * an error is.
 */
typedef struct Attempt
{
	SchedTable **items;
	PgtRefreshResult *results;
	int count;
	volatile int at;
	TimestampTz started;
	int locked_out; /* tables of the database that wait for a lock */
} Attempt;

/*
 * Others have to wait while this process waits for a lock, so it does for a
 * moment only, and comes back later; until pg_trickle.lock_timeout is over in
 * all. The moments grow, for a lock that is only had by queueing for it, and
 * are shared among all tables that are locked out.
 */
static int
lock_wait_ms(const Attempt *attempt)
{
	double waited = 0;
	double longest = (double) LONGEST_LOCK_WAIT_MS / Max(attempt->locked_out, 1);

	for (int i = 0; i < attempt->count; i++)
		if (attempt->items[i]->lock_since != 0)
			waited = Max(waited,
						 pgt_clock_ms_between(attempt->items[i]->lock_since, attempt->started));
	longest = Max(Min(waited / 2, longest), SHORT_LOCK_WAIT_MS);
	if (pgt_guc_lock_timeout > 0)
		longest = Min(longest, pgt_guc_lock_timeout);
	return (int) longest;
}

/* False if another session refreshes one of them. */
static bool
prepare_all(Attempt *attempt)
{
	for (attempt->at = 0; attempt->at < attempt->count; attempt->at++)
	{
		if (!pgt_refresh_prepare(attempt->items[attempt->at]->st.pgt_id))
		{
			attempt->results[attempt->at].action = "SKIP";
			return false;
		}
	}
	return true;
}

static void
refresh_one(Attempt *attempt, Snapshot snapshot, TimestampTz snapshot_at)
{
	SchedTable *table = attempt->items[attempt->at];
	PgtRefreshRequest request = {0};

	request.pgt_id = table->st.pgt_id;
	request.initiated_by = "SCHEDULER";
	request.skip_locked = true;
	request.attempt = table->attempts + 1;
	request.snapshot = snapshot;
	request.snapshot_at = snapshot_at;
	/* A background worker has to arm it by itself. */
	if (pgt_guc_max_refresh_runtime > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, pgt_guc_max_refresh_runtime);
	attempt->results[attempt->at] = pgt_refresh_run(&request);
	if (pgt_guc_max_refresh_runtime > 0)
		disable_timeout(STATEMENT_TIMEOUT, false);
}

/* Results stay without action where nothing was done. */
static void
refresh_in_transaction(Attempt *attempt)
{
	Snapshot snapshot = NULL;
	TimestampTz snapshot_at = 0;

	attempt->at = 0;
	pgt_coordinator_begin(lock_wait_ms(attempt));
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	/* As a session has it: repairs run commands that want one around them. */
	PushActiveSnapshot(GetTransactionSnapshot());
	if (attempt->count == 1 || prepare_all(attempt))
	{
		if (attempt->count > 1)
		{
			snapshot = RegisterSnapshot(GetTransactionSnapshot());
			snapshot_at = pgt_clock_now();
		}
		for (attempt->at = 0; attempt->at < attempt->count; attempt->at++)
			refresh_one(attempt, snapshot, snapshot_at);
		attempt->at = attempt->count - 1;
		if (snapshot != NULL)
			UnregisterSnapshot(snapshot);
	}
	PopActiveSnapshot();
	pgt_coordinator_end();
}

static void
tell_if_behind(SchedTable *table, TimestampTz now)
{
	double interval = table->schedule.kind == PGT_SCHEDULE_INTERVAL
						  ? table->schedule.interval / 1000.0
						  : 0;
	bool behind = interval > 0 && table->last_ms > interval;

	if (behind && !table->behind)
	{
		pgt_coordinator_begin(LOCK_WAIT_MS);
		pgt_alert_send(
			"falling_behind", table,
			psprintf("\"duration_ms\":%.3f,\"schedule_ms\":%.3f", table->last_ms, interval));
		pgt_coordinator_end();
	}
	table->behind = behind;
}

static void
succeed(SchedTable *table, const PgtRefreshResult *result, TimestampTz started)
{
	table->attempts = table->errors = 0;
	table->retry_at = 0;
	table->retry_now = false;
	table->pending = false;
	table->must_rebuild = false;
	table->lock_since = 0;
	table->done = true;
	table->last_start = started;
	if (strcmp(result->action, "NO_DATA") != 0)
		table->last_ms = result->duration_ms;
	tell_if_behind(table, pgt_clock_now());
}

/* Somebody else refreshes it. It may miss what came meanwhile, so look again soon. */
static void
put_off(SchedTable *table)
{
	table->busy_until = pgt_clock_now() + BUSY_MS * INT64CONST(1000);
}

/* True if it is to be tried again soon, and this was no failure yet. */
static bool
is_locked_out(SchedTable *table, const Attempt *attempt, const ErrorData *error)
{
	TimestampTz now = pgt_clock_now();
	double waited;
	double pause;

	if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		return false;
	if (table->lock_since == 0)
		table->lock_since = attempt->started;
	waited = pgt_clock_ms_between(table->lock_since, now);
	if (pgt_guc_lock_timeout > 0 && waited >= pgt_guc_lock_timeout)
		return false;
	/* At least as long as all of them take to try. */
	pause = Max(waited / 2, BUSY_MS * (attempt->locked_out + 1));
	pause = Min(pause, PGT_SCHED_LONGEST_PUT_OFF_MS);
	table->busy_until = now + (int64) pause * INT64CONST(1000);
	table->done = true;
	return true;
}

static const char *
status_of(PgtFailureClass failure_class)
{
	return failure_class == PGT_FAILURE_CANCELLED ? "CANCELLED" : "FAILED";
}

/* Would the refresh that failed have been incremental? */
static bool
was_differential(const SchedTable *table)
{
	return !table->must_rebuild && table->st.full_reason == NULL && table->st.mode != PGT_MODE_FULL;
}

/*
 * It may be an error of the delta alone (worker/refresh/differential.c). So
 * everything is computed, at once; what fails then is counted. In the next
 * transaction, so that refreshes need no subtransaction, whose id each would
 * cost.
 */
static void
retry_in_full(PgtRetry *retry)
{
	retry->counted = false;
	retry->suspend = false;
	retry->delay_ms = 0;
	retry->event = PGT_RETRY_ON_TIME;
}

static void
record_failure(SchedTable *table, const ErrorData *error, const char *sqlstate,
			   const PgtRetry *retry, TimestampTz started, bool in_full_next)
{
	const char *suspended = NULL;
	PgtHistoryRow row = {0};

	if (retry->suspend)
		suspended = psprintf("%d refreshes failed in a row; the last one: %s", table->errors,
							 error->message);
	row.pgt_id = table->st.pgt_id;
	row.start_time = started;
	row.end_time = pgt_clock_now();
	row.action = table->must_rebuild ? "REINITIALIZE"
				 : table->st.full_reason != NULL || table->st.mode == PGT_MODE_FULL
					 ? "FULL"
					 : "DIFFERENTIAL";
	row.status = status_of(retry->failure_class);
	row.initiated_by = "SCHEDULER";
	row.attempt = table->attempts;
	row.sqlstate = sqlstate;
	row.error_message = error->message;
	pgt_coordinator_begin(LOCK_WAIT_MS);
	if (pgt_stream_table_find_id(table->st.pgt_id) == NULL)
	{
		/* Dropped meanwhile, which is why. */
		pgt_coordinator_end();
		return;
	}
	pgt_history_insert(&row);
	pgt_frontier_record_error(table->st.pgt_id, sqlstate, error->message, retry->counted,
							  table->retry_at, suspended);
	if (in_full_next)
		pgt_frontier_mark_rebuild(table->st.pgt_id,
								  psprintf(PGT_REFRESH_DELTA_ERROR "%s", error->message));
	pgt_alert_send("refresh_failed", table,
				   psprintf("\"sqlstate\":\"%s\",\"error\":%s,\"attempt\":%d", sqlstate,
							pgt_alert_quote(error->message), table->attempts));
	if (retry->suspend)
		pgt_alert_send("suspended", table, psprintf("\"consecutive_errors\":%d", table->errors));
	pgt_coordinator_end();
}

static void
fail(SchedTable *table, const ErrorData *error, TimestampTz started)
{
	TimestampTz now = pgt_clock_now();
	char *sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode));
	PgtFailure failure = {0};
	PgtRetry retry;
	bool in_full_next;

	failure.sqlstate = sqlstate;
	failure.timed_out = error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
						pgt_guc_max_refresh_runtime > 0 &&
						pgt_clock_ms_between(started, now) >= pgt_guc_max_refresh_runtime;
	table->done = true;
	table->lock_since = 0;
	table->last_start = started;
	failure.attempt = ++table->attempts;
	failure.counted_before = table->errors;
	failure.max_counted = pgt_guc_max_errors;
	failure.random = pg_prng_double(&pg_global_prng_state);
	retry = pgt_retry_decide(&failure);
	in_full_next = retry.failure_class == PGT_FAILURE_DATA && was_differential(table);
	if (in_full_next)
		retry_in_full(&retry);
	if (retry.counted)
		table->errors++;
	table->suspended = retry.suspend;
	table->retry_event = retry.event;
	table->retry_now = false;
	table->retry_at = now + retry.delay_ms * INT64CONST(1000);
	ereport(LOG, (errmsg("could not refresh stream table %s: %s", table->name, error->message),
				  error->detail != NULL ? errdetail_internal("%s", error->detail) : 0));
	record_failure(table, error, sqlstate, &retry, started, in_full_next);
	table->must_rebuild |= in_full_next;
}

/*
 * Refreshes one table, or several to one snapshot in one transaction. Never
 * raises an error of a refresh. With an error nothing of it is committed; the
 * tables that are not to blame are left as they were, to be tried without the
 * one that is.
 */
void
pgt_item_run(SchedTable **items, int count, int locked_out)
{
	MemoryContext caller = CurrentMemoryContext;
	TimestampTz started = pgt_clock_now();
	ErrorData *error = NULL;
	Attempt attempt = {0};

	attempt.items = items;
	attempt.count = count;
	attempt.started = started;
	attempt.locked_out = locked_out;
	attempt.results = palloc0(sizeof(PgtRefreshResult) * count);
	PG_TRY();
	{
		refresh_in_transaction(&attempt);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		disable_all_timeouts(false);
		QueryCancelPending = false;
		LockErrorCleanup();
		AbortCurrentTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	if (error != NULL && !is_locked_out(items[attempt.at], &attempt, error))
		fail(items[attempt.at], error, started);
	for (int i = 0; i < count && error == NULL; i++)
	{
		if (attempt.results[i].action == NULL)
			continue;
		if (strcmp(attempt.results[i].action, "SKIP") == 0)
			put_off(items[i]);
		else
			succeed(items[i], &attempt.results[i], started);
		MemoryContextSwitchTo(caller);
	}
}
