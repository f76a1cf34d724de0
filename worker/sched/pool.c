/*
 * pool.c: the slots of workers and the queue of jobs, in shared memory.
 *
 * One queue for the server; coordinators and workers see the jobs of their own
 * database only. Protected by PGT_LOCK_POOL, which is never held while waiting
 * for anybody. A worker that ends, however it does unless the server goes with
 * it, frees its slot and leaves its job behind as lost. Jobs outlive their
 * coordinator: the next one finds them here.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"

#include "pgt_clock.h"
#include "pgt_shmem.h"
#include "pgt_wake.h"

#include "pool_internal.h"
#include "sched_internal.h"

#define LATE_MS 10000
#define JOB_STRIDE MAXALIGN(PGT_JOB_SIZE(PGT_JOB_ITEMS))

typedef struct Worker
{
	PgtWorkerInfo info;
	Latch *latch;
} Worker;

typedef struct Pool
{
	int64 last_job;
	Oid wanted_by; /* a database that has too few workers; InvalidOid: none */
	Latch *wanted_latch;
	Worker workers[PGT_POOL_WORKERS];
	char jobs[FLEXIBLE_ARRAY_MEMBER];
} Pool;

static Pool *pool = NULL;
static int my_slot = -1;

static Size
get_size(void)
{
	return MAXALIGN(offsetof(Pool, jobs)) + (Size) PGT_POOL_JOBS * JOB_STRIDE;
}

static void
attach(void *memory, bool found)
{
	pool = memory;
	if (!found)
		memset(pool, 0, get_size());
}

static const PgtShmemArea area = {"pg_trickle workers", get_size, attach};

void
pgt_pool_init(void)
{
	pgt_shmem_register(&area);
}

static void
lock_pool(LWLockMode mode)
{
	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_POOL), mode);
}

static void
unlock_pool(void)
{
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_POOL));
}

/* ---- Jobs ---- */

static PgtJob *
job_at(int i)
{
	return (PgtJob *) ((char *) pool + MAXALIGN(offsetof(Pool, jobs)) + i * JOB_STRIDE);
}

static bool
is_outstanding(const PgtJob *job)
{
	return job->state != PGT_JOB_FREE && job->state != PGT_JOB_FINISHED;
}

static bool
is_mine(const PgtJob *job)
{
	return job->state != PGT_JOB_FREE && job->database == MyDatabaseId;
}

static PgtJob *
copy_job(const PgtJob *job)
{
	PgtJob *copy = palloc(PGT_JOB_SIZE(job->count));

	memcpy(copy, job, PGT_JOB_SIZE(job->count));
	return copy;
}

/* Free, or what was seen to its end longest ago; NULL if there is none. */
static PgtJob *
find_room(void)
{
	PgtJob *oldest = NULL;

	for (int i = 0; i < PGT_POOL_JOBS; i++)
	{
		PgtJob *job = job_at(i);

		if (job->state == PGT_JOB_FREE)
			return job;
		if (job->state == PGT_JOB_FINISHED && (oldest == NULL || job->id < oldest->id))
			oldest = job;
	}
	return oldest;
}

bool
pgt_pool_put_job(PgtJob *job)
{
	PgtJob *room;

	Assert(job->count <= PGT_JOB_ITEMS);
	job->state = PGT_JOB_QUEUED;
	job->database = MyDatabaseId;
	job->queued_at = pgt_clock_now();
	lock_pool(LW_EXCLUSIVE);
	room = find_room();
	if (room != NULL)
	{
		job->id = ++pool->last_job;
		memcpy(room, job, PGT_JOB_SIZE(job->count));
	}
	unlock_pool();
	return room != NULL;
}

PgtJob *
pgt_pool_collect_job(void)
{
	PgtJob *collected = NULL;

	lock_pool(LW_EXCLUSIVE);
	for (int i = 0; i < PGT_POOL_JOBS && collected == NULL; i++)
	{
		PgtJob *job = job_at(i);

		if (!is_mine(job) || (job->state != PGT_JOB_DONE && job->state != PGT_JOB_LOST))
			continue;
		collected = copy_job(job);
		job->lost = job->state == PGT_JOB_LOST;
		job->state = PGT_JOB_FINISHED;
		if (job->ended_at == 0)
			job->ended_at = pgt_clock_now();
	}
	unlock_pool();
	return collected;
}

List *
pgt_pool_list_jobs(void)
{
	List *jobs = NIL;

	lock_pool(LW_SHARED);
	for (int i = 0; i < PGT_POOL_JOBS; i++)
		if (is_mine(job_at(i)) && is_outstanding(job_at(i)))
			jobs = lappend(jobs, copy_job(job_at(i)));
	unlock_pool();
	return jobs;
}

List *
pgt_pool_take_back_jobs(void)
{
	List *jobs = NIL;

	lock_pool(LW_EXCLUSIVE);
	for (int i = 0; i < PGT_POOL_JOBS; i++)
	{
		PgtJob *job = job_at(i);

		if (!is_mine(job) || job->state != PGT_JOB_QUEUED)
			continue;
		jobs = lappend(jobs, copy_job(job));
		job->state = PGT_JOB_FREE;
	}
	unlock_pool();
	return jobs;
}

static bool
is_unwanted(const PgtJob *job, List *databases)
{
	return job->state != PGT_JOB_FREE && job->state != PGT_JOB_RUNNING &&
		   !list_member_oid(databases, job->database);
}

void
pgt_pool_keep_only(List *databases)
{
	for (int i = 0; i < PGT_POOL_JOBS; i++)
	{
		PgtJob *job = job_at(i);
		CoordinatorSlot slot;
		Oid database;
		bool unwanted;

		lock_pool(LW_SHARED);
		database = job->database;
		unwanted = is_unwanted(job, databases);
		unlock_pool();
		/* A coordinator that has not left yet counts on them. */
		if (!unwanted || pgt_slots_get(database, &slot))
			continue;
		lock_pool(LW_EXCLUSIVE);
		if (is_unwanted(job, databases))
			job->state = PGT_JOB_FREE;
		unlock_pool();
	}
}

static PgtJob *
find_most_urgent(void)
{
	TimestampTz now = pgt_clock_now();
	PgtJob *best = NULL;
	double best_priority = 0;

	for (int i = 0; i < PGT_POOL_JOBS; i++)
	{
		PgtJob *job = job_at(i);
		double priority;

		if (!is_mine(job) || job->state != PGT_JOB_QUEUED)
			continue;
		priority = pgt_sla_priority(&job->urgency, now);
		if (best == NULL || priority > best_priority ||
			(priority == best_priority && job->id < best->id))
		{
			best = job;
			best_priority = priority;
		}
	}
	return best;
}

static PgtJob *
find_job(int64 id)
{
	for (int i = 0; i < PGT_POOL_JOBS; i++)
		if (job_at(i)->state == PGT_JOB_RUNNING && job_at(i)->id == id)
			return job_at(i);
	return NULL;
}

/* ---- A worker ---- */

static void
set_state(Worker *worker, PgtWorkerState state, int64 job)
{
	worker->info.state = state;
	worker->info.job = job;
	worker->info.since = pgt_clock_now();
}

/* The slot is free for others from now on. */
static void
free_slot(Worker *worker)
{
	set_state(worker, PGT_WORKER_FREE, 0);
	worker->info.pid = 0;
	worker->latch = NULL;
	if (OidIsValid(pool->wanted_by))
	{
		pool->wanted_by = InvalidOid;
		SetLatch(pool->wanted_latch);
	}
}

static void
leave_pool(int code, Datum arg)
{
	Worker *worker;

	if (my_slot < 0)
		return;
	lock_pool(LW_EXCLUSIVE);
	worker = &pool->workers[my_slot];
	if (worker->info.state == PGT_WORKER_RUNNING)
	{
		PgtJob *job = find_job(worker->info.job);

		if (job != NULL)
		{
			job->state = PGT_JOB_LOST;
			job->ended_at = pgt_clock_now();
		}
	}
	free_slot(worker);
	my_slot = -1;
	unlock_pool();
	if (OidIsValid(MyDatabaseId))
		pgt_wake_coordinator();
}

bool
pgt_pool_enter(int slot, uint32 generation)
{
	Worker *worker = &pool->workers[slot];
	bool wanted;

	lock_pool(LW_EXCLUSIVE);
	wanted = worker->info.state == PGT_WORKER_STARTING && worker->info.pid == 0 &&
			 worker->info.generation == generation;
	if (wanted)
	{
		worker->info.pid = MyProcPid;
		worker->latch = MyLatch;
		my_slot = slot;
	}
	unlock_pool();
	if (wanted)
		before_shmem_exit(leave_pool, (Datum) 0);
	return wanted;
}

void
pgt_pool_begin_service(void)
{
	lock_pool(LW_EXCLUSIVE);
	set_state(&pool->workers[my_slot], PGT_WORKER_IDLE, 0);
	unlock_pool();
}

PgtJob *
pgt_pool_take_job(void)
{
	Worker *worker = &pool->workers[my_slot];
	PgtJob *job;
	PgtJob *copy = palloc(JOB_STRIDE);

	lock_pool(LW_EXCLUSIVE);
	job = find_most_urgent();
	if (job != NULL)
	{
		job->state = PGT_JOB_RUNNING;
		job->pid = MyProcPid;
		job->started_at = pgt_clock_now();
		memcpy(copy, job, PGT_JOB_SIZE(job->count));
		set_state(worker, PGT_WORKER_RUNNING, job->id);
	}
	unlock_pool();
	return job != NULL ? copy : NULL;
}

void
pgt_pool_end_job(const PgtJob *job, PgtJobState ended)
{
	Worker *worker = &pool->workers[my_slot];
	PgtJob *shared;

	lock_pool(LW_EXCLUSIVE);
	shared = find_job(job->id);
	if (shared != NULL)
	{
		memcpy(shared, job, PGT_JOB_SIZE(job->count));
		shared->state = ended;
	}
	worker->info.jobs_done++;
	set_state(worker, PGT_WORKER_IDLE, 0);
	unlock_pool();
}

static int
count_all(void)
{
	int count = 0;

	for (int i = 0; i < PGT_POOL_WORKERS; i++)
		count += pool->workers[i].info.state != PGT_WORKER_FREE;
	return count;
}

static int
count_of(Oid database)
{
	int count = 0;

	for (int i = 0; i < PGT_POOL_WORKERS; i++)
		count += pool->workers[i].info.state != PGT_WORKER_FREE &&
				 pool->workers[i].info.database == database;
	return count;
}

bool
pgt_pool_may_leave(int limit, bool idle_for_long)
{
	bool leaves;
	bool has_work;

	lock_pool(LW_EXCLUSIVE);
	has_work = find_most_urgent() != NULL;
	leaves = count_all() > limit || (idle_for_long && !has_work) ||
			 (OidIsValid(pool->wanted_by) && pool->wanted_by != MyDatabaseId &&
			  (!has_work || count_of(MyDatabaseId) > 1));
	/* Under the same lock, so that no two leave for one reason. */
	if (leaves)
	{
		free_slot(&pool->workers[my_slot]);
		my_slot = -1;
	}
	unlock_pool();
	return leaves;
}

/* ---- The coordinator: workers ---- */

PgtPoolCounts
pgt_pool_count_workers(void)
{
	PgtPoolCounts counts = {0};

	lock_pool(LW_SHARED);
	counts.all = count_all();
	for (int i = 0; i < PGT_POOL_WORKERS; i++)
	{
		const PgtWorkerInfo *info = &pool->workers[i].info;

		if (info->database != MyDatabaseId)
			continue;
		counts.starting += info->state == PGT_WORKER_STARTING;
		counts.idle += info->state == PGT_WORKER_IDLE;
		counts.running += info->state == PGT_WORKER_RUNNING;
	}
	unlock_pool();
	return counts;
}

/* One that has nothing to do in another database; NULL if there is none. */
static Worker *
find_idle_elsewhere(void)
{
	for (int i = 0; i < PGT_POOL_WORKERS; i++)
		if (pool->workers[i].info.state == PGT_WORKER_IDLE &&
			pool->workers[i].info.database != MyDatabaseId)
			return &pool->workers[i];
	return NULL;
}

/*
 * Others have all of them: one that is idle shall go, or one of several that
 * work for the same database if this one has none.
 */
static void
want_worker(void)
{
	Worker *idle = find_idle_elsewhere();

	if (idle == NULL && count_of(MyDatabaseId) > 0)
		return;
	pool->wanted_by = MyDatabaseId;
	pool->wanted_latch = MyLatch;
	if (idle != NULL)
		SetLatch(idle->latch);
}

int
pgt_pool_claim_worker(int limit, uint32 *generation)
{
	int slot = -1;

	lock_pool(LW_EXCLUSIVE);
	if (count_all() < limit)
		for (int i = 0; i < PGT_POOL_WORKERS && slot < 0; i++)
			if (pool->workers[i].info.state == PGT_WORKER_FREE)
				slot = i;
	if (slot >= 0)
	{
		PgtWorkerInfo *info = &pool->workers[slot].info;

		info->database = MyDatabaseId;
		info->pid = 0;
		info->jobs_done = 0;
		*generation = ++info->generation;
		set_state(&pool->workers[slot], PGT_WORKER_STARTING, 0);
	}
	else if (limit > 0)
		want_worker();
	unlock_pool();
	return slot;
}

void
pgt_pool_release_worker(int slot, uint32 generation)
{
	PgtWorkerInfo *info = &pool->workers[slot].info;

	lock_pool(LW_EXCLUSIVE);
	if (info->state == PGT_WORKER_STARTING && info->generation == generation && info->pid == 0)
		free_slot(&pool->workers[slot]);
	unlock_pool();
}

void
pgt_pool_release_late_workers(TimestampTz now)
{
	lock_pool(LW_EXCLUSIVE);
	for (int i = 0; i < PGT_POOL_WORKERS; i++)
	{
		const PgtWorkerInfo *info = &pool->workers[i].info;

		/* Of whatever database: its own coordinator may be gone. */
		if (info->state == PGT_WORKER_STARTING && info->pid == 0 &&
			(pgt_clock_ms_between(info->since, now) > LATE_MS || info->since > now))
			free_slot(&pool->workers[i]);
	}
	unlock_pool();
}

void
pgt_pool_wake_workers(int count)
{
	lock_pool(LW_SHARED);
	for (int i = 0; i < PGT_POOL_WORKERS && count > 0; i++)
		if (pool->workers[i].info.state == PGT_WORKER_IDLE &&
			pool->workers[i].info.database == MyDatabaseId)
		{
			SetLatch(pool->workers[i].latch);
			count--;
		}
	unlock_pool();
}

bool
pgt_pool_nudge_workers(Oid database, bool cancel)
{
	bool any = false;

	lock_pool(LW_SHARED);
	for (int i = 0; i < PGT_POOL_WORKERS; i++)
	{
		const Worker *worker = &pool->workers[i];

		if (worker->info.state == PGT_WORKER_FREE || worker->info.database != database)
			continue;
		any = true;
		if (worker->info.pid == 0)
			continue;
		/* Its slot is freed before it ends, so this is no stranger's pid. */
		if (cancel)
			(void) kill(worker->info.pid, SIGINT);
		SetLatch(worker->latch);
	}
	unlock_pool();
	return any;
}

bool
pgt_pool_has_workers(Oid database)
{
	int count;

	lock_pool(LW_SHARED);
	count = count_of(database);
	unlock_pool();
	return count > 0;
}

/* ---- For whoever wants to see it ---- */

List *
pgt_pool_list_worker_infos(void)
{
	List *infos = NIL;

	if (pool == NULL)
		return NIL;
	lock_pool(LW_SHARED);
	for (int i = 0; i < PGT_POOL_WORKERS; i++)
	{
		PgtWorkerInfo *info;

		if (pool->workers[i].info.state == PGT_WORKER_FREE)
			continue;
		info = palloc(sizeof(PgtWorkerInfo));
		*info = pool->workers[i].info;
		info->slot = i + 1;
		infos = lappend(infos, info);
	}
	unlock_pool();
	return infos;
}

static PgtJobInfo *
describe_job(const PgtJob *job)
{
	PgtJobInfo *info = palloc0(sizeof(PgtJobInfo));

	info->id = job->id;
	info->state = job->state;
	info->failed = job->sqlerrcode != 0;
	info->lost = job->lost;
	info->pid = job->pid;
	info->queued_at = job->queued_at;
	info->started_at = job->started_at;
	info->ended_at = job->ended_at;
	info->count = job->count;
	info->attempt = job->items[0].attempt;
	for (int i = 0; i < job->count; i++)
		info->pgt_ids[i] = job->items[i].pgt_id;
	strlcpy(info->message, job->message, PGT_JOB_TEXT);
	return info;
}

List *
pgt_pool_list_job_infos(void)
{
	List *infos = NIL;

	if (pool == NULL)
		return NIL;
	lock_pool(LW_SHARED);
	for (int i = 0; i < PGT_POOL_JOBS; i++)
		if (is_mine(job_at(i)))
			infos = lappend(infos, describe_job(job_at(i)));
	unlock_pool();
	return infos;
}
