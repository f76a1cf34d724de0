/*
 * item.c: what is asked of a refresh, and what follows from its result.
 *
 * In the coordinator, whoever refreshed. A failure is recorded in a transaction
 * of its own, with the wait that its SQLSTATE asks for.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "pgt_clock.h"
#include "pgt_frontier.h"
#include "pgt_guc.h"
#include "pgt_history.h"
#include "pgt_refresh.h"
#include "pgt_wake.h"

#include "pool_internal.h"
#include "sched_internal.h"

#define BUSY_MS 50
#define LONGEST_LOCK_WAIT_MS 500
#define SUSPECT_DELAY_MS 1000
#define TURNS_TOGETHER 20
#define MOST_APART 3 /* then it is refreshed all the same: what it reads is not due, say */

typedef struct Failure
{
	const char *sqlstate;
	const char *message;
	const char *detail;	   /* "": none */
	const char *status;	   /* of the history row */
	const char *suspended; /* why, or NULL */
	TimestampTz started;
	TimestampTz ended;
	pid_t pid; /* 0: this process */
} Failure;

/* ---- Before ---- */

/*
 * Others have to wait while this process waits for a lock, so it does for a
 * moment only, and comes back later; until pg_trickle.lock_timeout is over in
 * all. The moments grow, for a lock that is only had by queueing for it, and
 * are shared among all tables that are locked out.
 */
static int
lock_wait_ms(SchedTable **items, int count, int locked_out, TimestampTz now)
{
	double waited = 0;
	double longest = (double) LONGEST_LOCK_WAIT_MS / Max(locked_out, 1);

	for (int i = 0; i < count; i++)
		if (items[i]->lock_since != 0)
			waited = Max(waited, pgt_clock_ms_between(items[i]->lock_since, now));
	longest = Max(Min(waited / 2, longest), SHORT_LOCK_WAIT_MS);
	if (pgt_guc_lock_timeout > 0)
		longest = Min(longest, pgt_guc_lock_timeout);
	return (int) longest;
}

/*
 * News of inputs that come from now on are for the next refresh: this one may
 * have taken its snapshot already. What was news until now is again if nothing
 * comes of it.
 */
void
pgt_item_note_started(SchedTable *table)
{
	table->running = true;
	table->was_pending = table->pending;
	table->was_pending_since = table->pending_since;
	table->pending = false;
	pgt_freshness_begin(table);
}

/* Begun for a coordinator that is gone: whatever came since is unknown, so look again. */
void
pgt_item_note_adopted(SchedTable *table)
{
	pgt_item_note_started(table);
	table->pending = true;
}

static void
note_ended(SchedTable *table, bool refreshed)
{
	table->running = false;
	if (!refreshed)
		pgt_freshness_undo(table);
	if (refreshed || !table->was_pending)
		return;
	if (!table->pending || table->was_pending_since < table->pending_since)
		table->pending_since = table->was_pending_since;
	table->pending = true;
}

PgtJob *
pgt_item_make_job(SchedTables *tables, SchedTable **items, int count, TimestampTz now)
{
	PgtJob *job = palloc0(PGT_JOB_SIZE(count));

	job->count = count;
	job->extension = pgt_session_extension();
	job->lock_wait_ms = lock_wait_ms(items, count, tables->locked_out, now);
	for (int i = 0; i < count; i++)
	{
		job->items[i].pgt_id = items[i]->st.pgt_id;
		job->items[i].attempt = items[i]->attempts + 1;
		job->items[i].suspect = items[i]->suspect;
		job->items[i].aligned = items[i]->mixes && items[i]->apart < MOST_APART;
		job->items[i].forced = items[i]->attempts > 0 || items[i]->suspect ||
							   items[i]->last_start == 0;
		if (i == 0 || items[i]->priority > pgt_sla_priority(&job->urgency, now))
			job->urgency = items[i]->urgency;
	}
	if (job->urgency.since == 0)
		job->urgency.since = now;
	return job;
}

/* ---- Afterwards ---- */

static void
tell_if_behind(SchedTable *table, TimestampTz now)
{
	double interval = table->schedule.kind == PGT_SCHEDULE_INTERVAL
						  ? table->schedule.interval / 1000.0
						  : 0;
	bool behind = interval > 0 && table->last_ms > interval;

	if (behind && !table->behind)
	{
		pgt_session_begin(LOCK_WAIT_MS);
		pgt_alert_send(
			"falling_behind", table,
			psprintf("\"duration_ms\":%.3f,\"schedule_ms\":%.3f", table->last_ms, interval));
		pgt_session_end();
	}
	table->behind = behind;
}

static void
succeed(SchedTable *table, const PgtJobItem *result, TimestampTz started)
{
	table->attempts = table->errors = 0;
	table->retry_at = 0;
	table->retry_now = false;
	table->suspect = false;
	table->must_rebuild = false;
	table->lock_since = 0;
	table->together = Max(table->together - 1, 0);
	if (table->apart < MOST_APART || table->together == 0)
		table->apart = 0;
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

/* What it reads shows different snapshots: for some time it is refreshed with them. */
static void
bring_together(SchedTables *tables, SchedTable *table)
{
	TimestampTz now = pgt_clock_now();

	for (int i = 0; i < table->nupstreams; i++)
		pgt_tables_note_table(&tables->tables[table->upstreams[i]], now);
	table->together = TURNS_TOGETHER;
	table->apart++;
}

/* True if it is to be tried again soon, and this was no failure yet. */
static bool
is_locked_out(SchedTable *table, const PgtJob *job, int locked_out)
{
	TimestampTz now = pgt_clock_now();
	double waited;
	double pause;

	if (job->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		return false;
	if (table->lock_since == 0)
		table->lock_since = job->started_at;
	waited = pgt_clock_ms_between(table->lock_since, now);
	if (pgt_guc_lock_timeout > 0 && waited >= pgt_guc_lock_timeout)
		return false;
	/* At least as long as all of them take to try. */
	pause = Max(waited / 2, BUSY_MS * (locked_out + 1));
	pause = Min(pause, PGT_SCHED_LONGEST_PUT_OFF_MS);
	table->busy_until = now + (int64) pause * INT64CONST(1000);
	table->done = true;
	return true;
}

static const char *
status_of(PgtFailureClass failure_class)
{
	if (failure_class == PGT_FAILURE_TERMINATED)
		return "TERMINATED";
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

typedef struct FailureRecord
{
	SchedTable *table;
	const Failure *failure;
	const PgtRetry *retry;
	bool in_full_next;
} FailureRecord;

static void
write_failure(void *arg)
{
	const FailureRecord *record = arg;
	SchedTable *table = record->table;
	const Failure *failure = record->failure;
	PgtHistoryRow row = {0};

	row.pgt_id = table->st.pgt_id;
	row.start_time = failure->started;
	row.end_time = pgt_clock_now();
	row.action = table->must_rebuild ? "REINITIALIZE"
				 : table->st.full_reason != NULL || table->st.mode == PGT_MODE_FULL
					 ? "FULL"
					 : "DIFFERENTIAL";
	row.status = failure->status;
	row.initiated_by = "SCHEDULER";
	row.attempt = table->attempts;
	row.worker_pid = failure->pid;
	row.sqlstate = failure->sqlstate;
	row.error_message = failure->message;
	/* Dropped meanwhile, which is why. */
	if (pgt_stream_table_find_id(table->st.pgt_id) == NULL)
		return;
	pgt_history_insert(&row);
	pgt_frontier_record_error(table->st.pgt_id, failure->sqlstate, failure->message,
							  record->retry->counted, table->retry_at, failure->suspended);
	if (record->in_full_next)
		pgt_frontier_mark_rebuild(table->st.pgt_id,
								  psprintf(PGT_REFRESH_DELTA_ERROR "%s", failure->message));
	pgt_alert_send("refresh_failed", table,
				   psprintf("\"sqlstate\":\"%s\",\"error\":%s,\"attempt\":%d", failure->sqlstate,
							pgt_alert_quote(failure->message), table->attempts));
	if (failure->suspended != NULL)
		pgt_alert_send("suspended", table, psprintf("\"consecutive_errors\":%d", table->errors));
}

/*
 * In a transaction of its own; the table knows already what follows. Somebody who
 * drops it, say, and has not committed, keeps the record from being written; the
 * log has it, and whoever comes after it goes on.
 */
static void
record_failure(SchedTable *table, const Failure *failure, const PgtRetry *retry, bool in_full_next)
{
	FailureRecord record = {table, failure, retry, in_full_next};

	(void) pgt_session_try(LOCK_WAIT_MS, write_failure, &record);
}


/* What the table does next, by the rules of policy. */
static void
apply_retry(SchedTable *table, const PgtRetry *retry, TimestampTz now)
{
	if (retry->counted)
		table->errors++;
	table->suspended = retry->suspend;
	table->retry_event = retry->event;
	if (retry->event == PGT_RETRY_ON_DDL)
		pgt_wake_await_ddl();
	/* Input that came while it ran. */
	table->retry_now = retry->event == PGT_RETRY_ON_INPUT && table->pending;
	table->retry_at = now + retry->delay_ms * INT64CONST(1000);
}

static void
fail(SchedTable *table, Failure *failure)
{
	TimestampTz now = pgt_clock_now();
	PgtFailure facts = {0};
	PgtRetry retry;
	bool in_full_next;

	facts.sqlstate = failure->sqlstate;
	facts.timed_out = strcmp(failure->sqlstate, "57014") == 0 && pgt_guc_max_refresh_runtime > 0 &&
					  pgt_clock_ms_between(failure->started, failure->ended) >=
						  pgt_guc_max_refresh_runtime;
	table->done = true;
	table->lock_since = 0;
	table->last_start = failure->started;
	facts.attempt = ++table->attempts;
	facts.counted_before = table->errors;
	facts.max_counted = pgt_guc_max_errors;
	facts.random = pg_prng_double(&pg_global_prng_state);
	retry = pgt_retry_decide(&facts);
	/* DDL that mends nothing may come often: then only what was tried in its time counts. */
	if (table->retry_now && table->retry_event == PGT_RETRY_ON_DDL &&
		table->retry_at > failure->started)
		retry.counted = retry.suspend = false;
	in_full_next = retry.failure_class == PGT_FAILURE_DATA && was_differential(table);
	if (in_full_next)
		retry_in_full(&retry);
	failure->status = status_of(retry.failure_class);
	apply_retry(table, &retry, now);
	note_ended(table, false);
	if (retry.suspend)
		failure->suspended = psprintf("%d refreshes failed in a row; the last one: %s",
									  table->errors, failure->message);
	ereport(LOG, (errmsg("could not refresh stream table %s: %s", table->name, failure->message),
				  failure->detail[0] != '\0' ? errdetail_internal("%s", failure->detail) : 0));
	record_failure(table, failure, &retry, in_full_next);
	table->must_rebuild |= in_full_next;
}

static void
fail_in_job(SchedTable *table, const PgtJob *job)
{
	Failure failure = {0};

	failure.sqlstate = pstrdup(unpack_sql_state(job->sqlerrcode));
	failure.message = job->message;
	failure.detail = job->detail;
	failure.started = job->started_at;
	failure.ended = job->ended_at;
	failure.pid = job->pid;
	fail(table, &failure);
}

/*
 * A group has its turn as one: who reads it does not wait for a member for which
 * news came after the turn of the others.
 */
static void
end_turns(SchedTables *tables, const PgtJob *job)
{
	for (int i = 0; i < job->count; i++)
	{
		SchedTable *table = pgt_tables_find(tables, job->items[i].pgt_id);

		if (table == NULL || !table->done || table->group < 0)
			continue;
		for (int j = 0; j < tables->count; j++)
			if (tables->tables[j].group == table->group)
				tables->tables[j].done = true;
		return;
	}
}

/*
 * With an error nothing of a job is committed; the tables that are not to blame
 * are left as they were, to be tried without the one that is. The same for all
 * of a job that was lost.
 */
void
pgt_item_finish(SchedTables *tables, const PgtJob *job)
{
	SchedTable *failed = NULL;

	/* Whatever may fail below. */
	for (int i = 0; i < job->count; i++)
		if (pgt_tables_find(tables, job->items[i].pgt_id) != NULL)
			pgt_tables_find(tables, job->items[i].pgt_id)->running = false;
	for (int i = 0; i < job->count; i++)
	{
		const PgtJobItem *item = &job->items[i];
		SchedTable *table = pgt_tables_find(tables, item->pgt_id);

		if (table == NULL)
			continue;
		if (job->sqlerrcode != 0 && i == job->at)
			failed = table;
		else if (job->state == PGT_JOB_LOST || job->sqlerrcode != 0 || item->action[0] == '\0')
			note_ended(table, false);
		else if (strcmp(item->action, "SKIP") == 0)
		{
			note_ended(table, false);
			put_off(table);
		}
		else if (strcmp(item->action, "APART") == 0)
		{
			note_ended(table, false);
			bring_together(tables, table);
		}
		else
		{
			note_ended(table, true);
			succeed(table, item, job->started_at);
			pgt_freshness_end(tables, table, job, strcmp(item->action, "NO_DATA") != 0);
		}
	}
	if (failed != NULL && job->state != PGT_JOB_LOST &&
		!is_locked_out(failed, job, tables->locked_out))
		fail_in_job(failed, job);
	else if (failed != NULL)
		note_ended(failed, false);
	end_turns(tables, job);
}

/* ---- Attempts whose process is gone ---- */

/* Is it known to have committed, or not to be there any more? */
static bool
is_settled(const PgtLostAttempt *lost)
{
	PgtFrontierRow row;
	bool settled;

	pgt_session_begin(LOCK_WAIT_MS);
	PushActiveSnapshot(GetTransactionSnapshot());
	settled = pgt_stream_table_find_id(lost->pgt_id) == NULL ||
			  (pgt_frontier_find(lost->pgt_id, &row) && row.last_refresh_at >= lost->started);
	PopActiveSnapshot();
	pgt_session_end();
	return settled;
}

/* No failure: it is in the history, and nothing follows. */
static void
record_interruption(SchedTable *table, const PgtLostAttempt *lost)
{
	PgtHistoryRow row = {0};

	row.pgt_id = lost->pgt_id;
	row.start_time = row.end_time = lost->started;
	row.action = table->must_rebuild ? "REINITIALIZE" : "DIFFERENTIAL";
	row.status = "INTERRUPTED";
	row.initiated_by = "SCHEDULER";
	row.attempt = lost->attempt;
	row.worker_pid = lost->pid;
	row.sqlstate = "57P01";
	row.error_message = "the server was shut down";
	pgt_session_begin(LOCK_WAIT_MS);
	pgt_history_insert(&row);
	pgt_session_end();
}

/*
 * Whoever was only near the crash begins anew at once. A suspect does so as the
 * only one of its kind; if the server crashes again with it, it is suspended.
 */
static void
fail_in_crash(SchedTable *table, const PgtLostAttempt *lost, Failure *failure)
{
	bool suspect = lost->end == PGT_ATTEMPT_CRASHED;
	PgtRetry retry = {0};

	table->attempts = Max(lost->attempt, 1);
	table->suspect = suspect;
	retry.event = PGT_RETRY_ON_TIME;
	retry.counted = retry.suspend = suspect && lost->suspect;
	retry.delay_ms = suspect ? SUSPECT_DELAY_MS : 0;
	failure->status = "CRASHED";
	failure->sqlstate = suspect ? PGT_SQLSTATE_CRASHED : "57P02";
	failure->message = suspect ? "the server crashed while it was being refreshed"
							   : "the server restarted after a crash of another process";
	if (retry.suspend)
		failure->suspended = "the server crashed twice in a row while it was being refreshed";
	ereport(LOG,
			(errmsg("a refresh of stream table %s was lost: %s", table->name, failure->message),
			 retry.suspend ? errhint("When the cause is removed, resume it with "
									 "pgtrickle.resume_stream_table().")
						   : 0));
	apply_retry(table, &retry, pgt_clock_now());
	record_failure(table, failure, &retry, false);
}

void
pgt_item_fail_lost(SchedTables *tables, const PgtLostAttempt *lost)
{
	SchedTable *table = pgt_tables_find(tables, lost->pgt_id);
	Failure failure = {0};

	if (table == NULL || is_settled(lost))
		return;
	failure.started = failure.ended = lost->started;
	failure.pid = lost->pid;
	failure.detail = "";
	if (lost->end == PGT_ATTEMPT_INTERRUPTED)
		record_interruption(table, lost);
	else if (lost->end == PGT_ATTEMPT_TERMINATED)
	{
		failure.sqlstate = "57P01";
		failure.message = "the process that refreshed it was terminated";
		fail(table, &failure);
	}
	else
		fail_in_crash(table, lost, &failure);
}
