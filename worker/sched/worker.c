/*
 * worker.c: a process that refreshes what the coordinator of its database has
 * queued.
 *
 * It stays, since to start one costs ten times what a small refresh does: takes
 * the most urgent job, refreshes, gives the result back and wakes the
 * coordinator, or waits on its latch. It leaves when it has had nothing to do
 * for a while, is one too many, is wanted in another database, or the database
 * is to be left alone.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "pgt_clock.h"
#include "pgt_guc.h"
#include "pgt_point.h"
#include "pgt_sched.h"
#include "pgt_wake.h"

#include "pool_internal.h"
#include "sched_internal.h"

#define IDLE_MS 60000

/* What it is started with; in bgw_extra. */
typedef struct WorkerStart
{
	Oid database;
	int slot;
	uint32 generation;
} WorkerStart;

bool
pgt_worker_start(Oid database, int slot, uint32 generation)
{
	BackgroundWorker worker;
	WorkerStart start = {database, slot, generation};

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "pg_trickle");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "pgt_sched_worker_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_trickle worker");
	snprintf(worker.bgw_type, BGW_MAXLEN, "pg_trickle worker");
	memcpy(worker.bgw_extra, &start, sizeof(start));
	worker.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

static void
leave(bool missing)
{
	if (IsTransactionState())
		AbortCurrentTransaction();
	proc_exit(0);
}

static void
run_job(PgtJob *job)
{
	pgstat_report_activity(STATE_RUNNING, psprintf("refreshing stream table %lld%s",
												   (long long) job->items[0].pgt_id,
												   job->count > 1 ? " and others with it" : ""));
	PGT_POINT("worker-has-job");
	pgt_attempt_run(job);
	/* Sent away in the middle of it: no fault of the stream table. */
	pgt_pool_end_job(job, job->sqlerrcode != 0 && pgt_quiesce_holds(MyDatabaseId) ? PGT_JOB_LOST
																				  : PGT_JOB_DONE);
	pgt_wake_coordinator();
	pgstat_report_activity(STATE_IDLE, NULL);
}

static void
wait_for_job(TimestampTz *idle_since)
{
	long left = IDLE_MS;
	long stats_wait = pgstat_report_stat(false);
	TimestampTz now = pgt_clock_now();

	if (*idle_since == 0 || *idle_since > now)
		*idle_since = now;
	left = Max(IDLE_MS - (long) pgt_clock_ms_between(*idle_since, now), 0);
	if (pgt_pool_may_leave(pgt_guc_max_parallel_workers, left == 0))
	{
		pgt_wake_coordinator();
		proc_exit(0);
	}
	if (stats_wait > 0)
		left = Min(left, stats_wait);
	(void) pgt_clock_wait(left + 1, PG_WAIT_EXTENSION);
}

static void
serve(MemoryContext context)
{
	TimestampTz idle_since = 0;

	for (;;)
	{
		PgtJob *job;

		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		/* There is no statement that could be cancelled. */
		QueryCancelPending = false;
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (pgt_quiesce_holds(MyDatabaseId))
			proc_exit(0);
		job = pgt_guc_enabled ? pgt_pool_take_job() : NULL;
		if (job == NULL)
		{
			wait_for_job(&idle_since);
			continue;
		}
		run_job(job);
		idle_since = 0;
		if (pgt_pool_may_leave(pgt_guc_max_parallel_workers, false))
		{
			pgt_wake_coordinator();
			proc_exit(0);
		}
	}
}

void
pgt_sched_worker_main(Datum arg)
{
	WorkerStart start;

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	if (!pgt_pool_enter(start.slot, start.generation))
		proc_exit(0);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(start.database, InvalidOid, 0);
	(void) set_config_option("application_name", "pg_trickle worker", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SET, true, 0, false);
	pgt_session_init(leave);
	pgt_journal_enter();
	pgt_pool_begin_service();
	pgt_wake_coordinator();
	serve(AllocSetContextCreate(TopMemoryContext, "pg_trickle worker", ALLOCSET_DEFAULT_SIZES));
}
