/*
 * item.c: one scheduled refresh, and what follows from its failure.
 *
 * A refresh is a transaction of its own, committed asynchronously: data and
 * frontier commit together, and what a crash loses is redone from the buffer.
 * Here stands the only PG_TRY of the scheduler. A failure is recorded in a
 * second transaction, with the wait that its SQLSTATE asks for.
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

/* Settings of the transaction that has just begun. */
static void
set_limits(void)
{
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	(void) set_config_option("lock_timeout", psprintf("%d", pgt_guc_lock_timeout), PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	/* A background worker has to arm it by itself. */
	if (pgt_guc_max_refresh_runtime > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, pgt_guc_max_refresh_runtime);
}

static PgtRefreshResult
refresh_in_transaction(SchedTable *table)
{
	PgtRefreshRequest request = {.pgt_id = table->st.pgt_id,.initiated_by = "SCHEDULER",
	.skip_locked = true,.attempt = table->attempts + 1};
	PgtRefreshResult result;

	pgt_coordinator_begin();
	set_limits();
	/* As there is in a session, for whatever repairs or triggers execute. */
	PushActiveSnapshot(GetTransactionSnapshot());
	result = pgt_refresh_run(&request);
	PopActiveSnapshot();
	if (pgt_guc_max_refresh_runtime > 0)
		disable_timeout(STATEMENT_TIMEOUT, false);
	if (table->attempts > 0)
		pgt_frontier_clear_error(table->st.pgt_id);
	pgt_coordinator_end();
	return result;
}

static void
tell_if_behind(SchedTable *table, TimestampTz now)
{
	double		interval = table->schedule.kind == PGT_SCHEDULE_INTERVAL ?
		table->schedule.interval / 1000.0 : 0;
	bool		behind = interval > 0 && table->last_ms > interval;

	if (behind && !table->behind)
	{
		pgt_coordinator_begin();
		pgt_alert_send("falling_behind", table,
					   psprintf("\"duration_ms\":%.3f,\"schedule_ms\":%.3f", table->last_ms,
								interval));
		pgt_coordinator_end();
	}
	table->behind = behind;
}

static void
succeed(SchedTable *table, const PgtRefreshResult *result)
{
	bool		skipped = strcmp(result->action, "SKIP") == 0;

	table->attempts = table->errors = 0;
	table->retry_at = 0;
	table->retry_now = false;
	/* Somebody else refreshes it: look again when he is done. */
	table->pending = skipped;
	table->must_rebuild = table->must_rebuild && skipped;
	if (strcmp(result->action, "NO_DATA") != 0)
		table->last_ms = result->duration_ms;
	if (pgt_guc_log_refreshes && strcmp(result->action, "NO_DATA") != 0)
		ereport(LOG,
				(errmsg("refreshed stream table " INT64_FORMAT ": %s, " INT64_FORMAT " inserted, "
						INT64_FORMAT " updated, " INT64_FORMAT " deleted, %.3f ms",
						table->st.pgt_id, result->action, result->rows_inserted,
						result->rows_updated, result->rows_deleted, result->duration_ms)));
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
	return !table->must_rebuild && table->st.full_reason == NULL &&
		table->st.mode != PGT_MODE_FULL;
}

/*
 * A delta may compute with pairs of rows that were never there together, one
 * from before a change and one from after another. If that is an error
 * (division by zero, overflow), it need not be one of the result. So everything
 * is computed, at once; what fails then is counted.
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
	row.action = table->must_rebuild ? "REINITIALIZE" :
		table->st.full_reason != NULL || table->st.mode == PGT_MODE_FULL ? "FULL" : "DIFFERENTIAL";
	row.status = status_of(retry->failure_class);
	row.initiated_by = "SCHEDULER";
	row.attempt = table->attempts;
	row.sqlstate = sqlstate;
	row.error_message = error->message;
	pgt_coordinator_begin();
	pgt_history_insert(&row);
	pgt_frontier_record_error(table->st.pgt_id, sqlstate, error->message, retry->counted,
							  table->retry_at, suspended);
	if (in_full_next)
		pgt_frontier_mark_rebuild(table->st.pgt_id,
								  psprintf("its changes could not be computed: %s", error->message));
	pgt_alert_send("refresh_failed", table,
				   psprintf("\"sqlstate\":\"%s\",\"error\":%s,\"attempt\":%d", sqlstate,
							pgt_alert_quote(error->message), table->attempts));
	if (retry->suspend)
		pgt_alert_send("suspended", table,
					   psprintf("\"consecutive_errors\":%d", table->errors));
	pgt_coordinator_end();
}

static void
fail(SchedTable *table, const ErrorData *error, TimestampTz started)
{
	TimestampTz now = pgt_clock_now();
	char	   *sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode));
	PgtFailure	failure = {0};
	PgtRetry	retry;
	bool		in_full_next;

	failure.sqlstate = sqlstate;
	failure.timed_out = error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		pgt_guc_max_refresh_runtime > 0 &&
		pgt_clock_ms_between(started, now) >= pgt_guc_max_refresh_runtime;
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
	ereport(LOG,
			(errmsg("refresh of stream table " INT64_FORMAT " failed: %s", table->st.pgt_id,
					error->message),
			 error->detail != NULL ? errdetail_internal("%s", error->detail) : 0));
	record_failure(table, error, sqlstate, &retry, started, in_full_next);
	table->must_rebuild |= in_full_next;
}

/* Refreshes; never raises an error of the refresh. */
void
pgt_item_run(SchedTable *table)
{
	MemoryContext caller = CurrentMemoryContext;
	TimestampTz started = pgt_clock_now();
	ErrorData  *error = NULL;
	PgtRefreshResult result = {0};

	table->done = true;
	table->last_start = started;
	PG_TRY();
	{
		result = refresh_in_transaction(table);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		disable_all_timeouts(false);
		LockErrorCleanup();
		AbortCurrentTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	if (error != NULL)
		fail(table, error, started);
	else
	{
		succeed(table, &result);
		tell_if_behind(table, pgt_clock_now());
	}
	MemoryContextSwitchTo(caller);
}
