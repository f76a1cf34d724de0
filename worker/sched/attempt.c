/*
 * attempt.c: one refresh, or several to one snapshot, in a transaction.
 *
 * The same in a worker and in a coordinator that refreshes by itself. The
 * transaction commits asynchronously: data and frontier commit together, and
 * what a crash loses is redone from the buffer. What follows from the result is
 * decided elsewhere (item.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "pgt_clock.h"
#include "pgt_guc.h"
#include "pgt_point.h"
#include "pgt_progress.h"
#include "pgt_refresh.h"
#include "pgt_stream_table.h"

#include "pool_internal.h"
#include "sched_internal.h"

static void
set_action(PgtJobItem *item, const char *action)
{
	strlcpy(item->action, action, sizeof(item->action));
}

/* False if another session refreshes one of them. */
static bool
prepare_all(PgtJob *job)
{
	for (job->at = 0; job->at < job->count; job->at++)
	{
		if (!pgt_refresh_prepare(job->items[job->at].pgt_id))
		{
			set_action(&job->items[job->at], "SKIP");
			return false;
		}
	}
	return true;
}

static void
refresh_one(PgtJob *job, Snapshot snapshot, TimestampTz snapshot_at)
{
	PgtJobItem *item = &job->items[job->at];
	PgtRefreshRequest request = {0};
	PgtRefreshResult result;

	request.pgt_id = item->pgt_id;
	request.initiated_by = "SCHEDULER";
	request.skip_locked = true;
	request.attempt = item->attempt;
	request.snapshot = snapshot;
	request.snapshot_at = snapshot_at;
	request.aligned = item->aligned;
	pgt_journal_begin(item, job->started_at);
	PGT_POINT("attempt-begin");
	/* A background worker has to arm it by itself. */
	if (pgt_guc_max_refresh_runtime > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, pgt_guc_max_refresh_runtime);
	pgt_progress_begin(item->pgt_id, request.initiated_by, pgt_stream_table_relid);
	result = pgt_refresh_run(&request);
	pgt_progress_end();
	if (pgt_guc_max_refresh_runtime > 0)
		disable_timeout(STATEMENT_TIMEOUT, false);
	set_action(item, result.action);
	item->duration_ms = result.duration_ms;
}

/* If the extension was made anew since, ids may mean other stream tables. */
static bool
is_of_this_extension(const PgtJob *job)
{
	return job->extension == pgt_session_extension();
}

/* Results stay without action where nothing was done. */
static void
refresh_in_transaction(PgtJob *job)
{
	Snapshot snapshot = NULL;
	TimestampTz snapshot_at = 0;

	job->at = 0;
	pgt_session_begin(job->lock_wait_ms);
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	/* As a session has it: repairs run commands that want one around them. */
	PushActiveSnapshot(GetTransactionSnapshot());
	if (is_of_this_extension(job) && (job->count == 1 || prepare_all(job)))
	{
		if (job->count > 1)
		{
			snapshot = RegisterSnapshot(GetTransactionSnapshot());
			snapshot_at = pgt_clock_now();
		}
		for (job->at = 0; job->at < job->count; job->at++)
			refresh_one(job, snapshot, snapshot_at);
		job->at = job->count - 1;
		if (snapshot != NULL)
			UnregisterSnapshot(snapshot);
	}
	PopActiveSnapshot();
	PGT_POINT("attempt-commit");
	pgt_session_end();
	PGT_POINT("attempt-committed");
}

static void
copy_text(char *to, const char *text)
{
	if (text == NULL)
		text = "";
	strlcpy(to, text, pg_mbcliplen(text, strlen(text), PGT_JOB_TEXT - 1) + 1);
}

void
pgt_attempt_run(PgtJob *job)
{
	MemoryContext caller = CurrentMemoryContext;

	job->started_at = pgt_clock_now();
	PG_TRY();
	{
		refresh_in_transaction(job);
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		disable_all_timeouts(false);
		QueryCancelPending = false;
		LockErrorCleanup();
		AbortCurrentTransaction();
		job->sqlerrcode = error->sqlerrcode;
		copy_text(job->message, error->message);
		copy_text(job->detail, error->detail);
		FreeErrorData(error);
	}
	PG_END_TRY();
	pgt_journal_end();
	MemoryContextSwitchTo(caller);
	job->ended_at = pgt_clock_now();
}
