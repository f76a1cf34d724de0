/*
 * dispatch.c: from what is ready to jobs, and from jobs to who refreshes them.
 *
 * In the coordinator. With pg_trickle.max_parallel_workers it keeps up to two
 * jobs per worker in the queue, so that no worker waits for the coordinator; a
 * worker that has ended one wakes it, and what became ready by that is queued at
 * once. There are no waves and no levels to wait for. Without workers it runs
 * the same jobs by itself, one after the other.
 *
 * No worker to be had: it tries again after 1 to 30 s, says so once, and when
 * there has been none for 5 s refreshes by itself in the meantime.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"

#include "pgt_clock.h"
#include "pgt_guc.h"

#include "pool_internal.h"
#include "sched_internal.h"

#define JOBS_PER_WORKER 2
#define FIRST_PAUSE_MS 1000
#define LONGEST_PAUSE_MS 30000
#define WITHOUT_WORKERS_MS 5000

static int outstanding = 0;			  /* jobs that have not been collected */
static bool any_lost = false;		  /* the journal says more of them */
static bool out_of_workers = false;	  /* told once per change of state */
static long start_pause = 0;		  /* before workers are started again; 0: none failed */
static TimestampTz next_start = 0;	  /* the end of it */
static TimestampTz without_since = 0; /* there is work, but no worker */
static bool by_itself = false;		  /* until a worker is seen */
static int starts_in_vain = 0;		  /* since a worker was seen at work */

/* ---- Jobs that ended ---- */

static void
collect_job(SchedTables *tables, PgtJob *job)
{
	outstanding = Max(outstanding - 1, 0);
	if (job->state == PGT_JOB_DONE)
		starts_in_vain = 0;
	else
		any_lost = true;
	/* Of an extension that was dropped since: ids may mean other stream tables. */
	if (job->extension == pgt_session_extension())
		pgt_item_finish(tables, job);
}

static void
recover_lost(SchedTables *tables)
{
	ListCell *lc;

	foreach (lc, pgt_journal_list_lost())
	{
		const PgtLostAttempt *lost = lfirst(lc);

		if (lost->extension == pgt_session_extension())
			pgt_item_fail_lost(tables, lost);
		pgt_journal_forget(lost);
	}
	any_lost = false;
}

void
pgt_dispatch_collect(SchedTables *tables)
{
	PgtJob *job;

	while (outstanding > 0 && (job = pgt_pool_collect_job()) != NULL)
		collect_job(tables, job);
	if (any_lost)
		recover_lost(tables);
}

void
pgt_dispatch_adopt(SchedTables *tables)
{
	List *jobs;
	ListCell *lc;
	PgtJob *job;

	/* Results first: what is known of them counts for the rest. */
	while ((job = pgt_pool_collect_job()) != NULL)
		collect_job(tables, job);
	recover_lost(tables);
	jobs = pgt_pool_list_jobs();
	/* Some may have ended meanwhile; they are collected in the first round. */
	outstanding = list_length(jobs);
	foreach (lc, jobs)
	{
		job = lfirst(lc);
		for (int i = 0; i < job->count && job->extension == pgt_session_extension(); i++)
		{
			SchedTable *table = pgt_tables_find(tables, job->items[i].pgt_id);

			if (table != NULL && !table->running)
				pgt_item_note_adopted(table);
		}
	}
}

static void
take_back(SchedTables *tables)
{
	ListCell *lc;

	foreach (lc, pgt_pool_take_back_jobs())
	{
		PgtJob *job = lfirst(lc);

		job->state = PGT_JOB_LOST;
		collect_job(tables, job);
	}
}

void
pgt_dispatch_leave(void)
{
	(void) pgt_pool_take_back_jobs();
	pgt_pool_nudge_workers(MyDatabaseId, false);
}

/* ---- The next job ---- */

static PgtJob *
make_next(SchedTables *tables, SchedTable **items)
{
	TimestampTz now = pgt_clock_now();
	int count;
	PgtJob *job;

	pgt_tables_decide(tables, now);
	count = pgt_choose_next(tables, now, items);
	if (count == 0)
		return NULL;
	job = pgt_item_make_job(tables, items, count, now);
	for (int i = 0; i < count; i++)
		pgt_item_note_started(items[i]);
	return job;
}

static SchedTable **
make_room(SchedTables *tables)
{
	return palloc(sizeof(SchedTable *) * Max(tables->count, 1));
}

/* For pg_stat_activity. */
static const char *
describe(SchedTable **items, int count)
{
	if (count == 1)
		return psprintf("refreshing stream table %s", items[0]->name);
	return psprintf("refreshing stream table %s and %d that belong to it", items[0]->name,
					count - 1);
}

static void
run_here(SchedTables *tables, PgtJob *job, SchedTable **items)
{
	pgstat_report_activity(STATE_RUNNING, describe(items, job->count));
	job->state = PGT_JOB_DONE;
	pgt_attempt_run(job);
	pgt_item_finish(tables, job);
}

bool
pgt_dispatch_here(SchedTables *tables)
{
	SchedTable **items = make_room(tables);
	PgtJob *job = make_next(tables, items);

	if (job != NULL)
		run_here(tables, job, items);
	return job != NULL;
}

/* ---- Workers ---- */

static void
tell_of_workers(bool none)
{
	if (none && !out_of_workers)
		ereport(LOG, (errmsg("pg_trickle could not start a worker: no background worker slot is "
							 "free"),
					  errdetail("Stream tables are refreshed by fewer workers, or by the "
								"scheduler itself."),
					  errhint("Raise max_worker_processes, or lower "
							  "pg_trickle.max_parallel_workers.")));
	else if (!none && out_of_workers)
		ereport(LOG, (errmsg("pg_trickle has the workers that it needs")));
	out_of_workers = none;
}

static void
begin_pause(TimestampTz now)
{
	start_pause = start_pause == 0 ? FIRST_PAUSE_MS : Min(start_pause * 2, LONGEST_PAUSE_MS);
	next_start = now + start_pause * INT64CONST(1000);
}

/* As many as there are jobs that no worker is there for. */
static void
start_workers(int wanted, TimestampTz now)
{
	next_start = Min(next_start, now + LONGEST_PAUSE_MS * INT64CONST(1000));
	if (wanted <= 0 || now < next_start)
		return;
	for (int i = 0; i < wanted; i++)
	{
		uint32 generation;
		int slot = pgt_pool_claim_worker(pgt_guc_max_parallel_workers, &generation);

		if (slot < 0)
			break;
		if (!pgt_worker_start(MyDatabaseId, slot, generation))
		{
			pgt_pool_release_worker(slot, generation);
			tell_of_workers(true);
			begin_pause(now);
			return;
		}
		/* They come, and end before they have done anything. */
		if (++starts_in_vain > 2 * pgt_guc_max_parallel_workers + 2)
		{
			begin_pause(now);
			return;
		}
	}
	tell_of_workers(false);
	start_pause = 0;
	next_start = 0;
}

/* False if there has been no worker for so long that this process has to do it. */
static bool
tend_workers(TimestampTz now)
{
	PgtPoolCounts counts;
	int wanted = by_itself ? 1 : Min(outstanding, pgt_guc_max_parallel_workers);

	if (wanted == 0)
	{
		without_since = 0;
		return true;
	}
	pgt_pool_release_late_workers(now);
	counts = pgt_pool_count_workers();
	start_workers(wanted - counts.idle - counts.running - counts.starting, now);
	pgt_pool_wake_workers(outstanding - counts.running);
	if (counts.idle + counts.running > 0)
	{
		without_since = 0;
		by_itself = false;
		return true;
	}
	if (without_since == 0 || without_since > now)
		without_since = now;
	by_itself = pgt_clock_ms_between(without_since, now) >= WITHOUT_WORKERS_MS;
	return !by_itself;
}

bool
pgt_dispatch_is_full(void)
{
	return pgt_guc_max_parallel_workers > 0 && !by_itself &&
		   outstanding >= pgt_guc_max_parallel_workers * JOBS_PER_WORKER;
}

TimestampTz
pgt_dispatch_next_look(void)
{
	TimestampTz next = PG_INT64_MAX;

	if (pgt_guc_max_parallel_workers == 0 || without_since == 0)
		return next;
	if (!by_itself)
		next = without_since + WITHOUT_WORKERS_MS * INT64CONST(1000);
	if (next_start != 0)
		next = Min(next, next_start);
	return next;
}

/* Too large for the queue, or no room in it: then it is done here. */
static void
hand_over(SchedTables *tables, PgtJob *job, SchedTable **items)
{
	if (job->count <= PGT_JOB_ITEMS && pgt_pool_put_job(job))
		outstanding++;
	else
		run_here(tables, job, items);
}

bool
pgt_dispatch_to_workers(SchedTables *tables)
{
	SchedTable **items = make_room(tables);
	PgtJob *job;

	/* None shall be, or one has to be found first. */
	if (pgt_guc_max_parallel_workers == 0 || (by_itself && !tend_workers(pgt_clock_now())))
	{
		if (outstanding > 0)
			take_back(tables);
		return false;
	}
	pgt_tables_decide(tables, pgt_clock_now());
	(void) pgt_tables_release(tables);
	while (!pgt_dispatch_is_full() && (job = make_next(tables, items)) != NULL)
		hand_over(tables, job, items);
	if (tend_workers(pgt_clock_now()))
		return true;
	take_back(tables);
	return false;
}
