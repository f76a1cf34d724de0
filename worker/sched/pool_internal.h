/*
 * pool_internal.h: the queue of jobs and the workers that take them, in shared
 * memory, and the journal of attempts.
 *
 * A job is what one worker refreshes in one transaction: a stream table, or
 * several to one snapshot. It is plain data, the same for a coordinator that
 * refreshes by itself.
 */
#ifndef POOL_INTERNAL_H
#define POOL_INTERNAL_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "storage/latch.h"

#include "pgt_pool.h"
#include "pgt_sla.h"

/* ---- A job ---- */

typedef struct PgtJobItem
{
	int64 pgt_id;
	int attempt;
	bool suspect;	 /* the server crashed in its last attempt */
	bool forced;	 /* its attempt is written to disk before it begins */
	bool aligned;	 /* only if what it reads shows one snapshot */
	char action[16]; /* of the result; "": nothing was done */
	double duration_ms;
} PgtJobItem;

typedef struct PgtJob
{
	int64 id;
	Oid database;
	Oid extension;
	PgtJobState state;
	bool lost;			/* its worker ended before it did; once collected */
	pid_t pid;			/* of the worker */
	PgtUrgency urgency; /* of the most urgent item, growing while it waits */
	TimestampTz queued_at;
	TimestampTz started_at;
	TimestampTz ended_at;
	int lock_wait_ms;
	int at;			/* the item that it was at, to know whose an error is */
	int sqlerrcode; /* 0: no error */
	char message[PGT_JOB_TEXT];
	char detail[PGT_JOB_TEXT];
	int count;
	PgtJobItem items[FLEXIBLE_ARRAY_MEMBER];
} PgtJob;

#define PGT_JOB_SIZE(count) (offsetof(PgtJob, items) + sizeof(PgtJobItem) * (count))

/* ---- attempt.c ---- */

/* Runs a job in a transaction of its own and fills in what came of it. Raises no error of it. */
extern void pgt_attempt_run(PgtJob *job);

/* ---- pool.c: shared memory; every call takes PGT_LOCK_POOL ---- */

extern void pgt_pool_init(void);

/* The coordinator: jobs of its database. Copies; allocated in the caller's context. */

/* A copy is queued, with an id; false if there is no room. */
extern bool pgt_pool_put_job(PgtJob *job);
/* One that has ended or was lost; it counts as collected. NULL if there is none. */
extern PgtJob *pgt_pool_collect_job(void);
/* Those that have not been collected. */
extern List *pgt_pool_list_jobs(void);
/* Takes back what no worker has begun. */
extern List *pgt_pool_take_back_jobs(void);
/* The launcher: forgets those of databases that are not in the list, as dropped ones. */
extern void pgt_pool_keep_only(List *databases);

/* The coordinator: workers of its database. */

typedef struct PgtPoolCounts
{
	int starting;
	int idle;
	int running;
	int all; /* of all databases */
} PgtPoolCounts;

extern PgtPoolCounts pgt_pool_count_workers(void);
/* A slot for a worker that will be started; -1 if limit are in use in the server. */
extern int pgt_pool_claim_worker(int limit, uint32 *generation);
/* It could not be started, or never came. */
extern void pgt_pool_release_worker(int slot, uint32 generation);
/* Those that should have come long ago. */
extern void pgt_pool_release_late_workers(TimestampTz now);
/* Wakes as many idle workers. */
extern void pgt_pool_wake_workers(int count);
/* Are there workers of a database? Sets their latches; also cancels what they run. */
extern bool pgt_pool_nudge_workers(Oid database, bool cancel);
extern bool pgt_pool_has_workers(Oid database);

/* A worker. */

/* False if it is not wanted any more. */
extern bool pgt_pool_enter(int slot, uint32 generation);
/* Connected. */
extern void pgt_pool_begin_service(void);
/* The most urgent job of this database, as a copy; NULL if there is none. */
extern PgtJob *pgt_pool_take_job(void);
/* ended: PGT_JOB_DONE, or PGT_JOB_LOST if nothing follows from it. */
extern void pgt_pool_end_job(const PgtJob *job, PgtJobState ended);
/* Is it one too many, or wanted elsewhere, or idle for too long? It has left then. */
extern bool pgt_pool_may_leave(int limit, bool idle_for_long);

/* ---- worker.c ---- */

/* False if the server has no room for a background worker. */
extern bool pgt_worker_start(Oid database, int slot, uint32 generation);

/* ---- journal.c: which attempts are under way, for whoever comes after a crash ---- */

typedef enum PgtAttemptEnd
{
	PGT_ATTEMPT_TERMINATED,	 /* its process was, the server was not */
	PGT_ATTEMPT_INTERRUPTED, /* by a shutdown */
	PGT_ATTEMPT_BYSTANDER,	 /* the server crashed, but in another process */
	PGT_ATTEMPT_CRASHED		 /* the server crashed, maybe because of it */
} PgtAttemptEnd;

typedef struct PgtLostAttempt
{
	int place; /* of the record */
	Oid extension;
	int64 pgt_id;
	int attempt;
	bool suspect;
	pid_t pid;
	TimestampTz started;
	PgtAttemptEnd end;
} PgtLostAttempt;

extern void pgt_journal_init(void);
/* This process will make attempts: takes a place, and SIGQUIT. */
extern void pgt_journal_enter(void);
extern void pgt_journal_begin(const PgtJobItem *item, TimestampTz started);
extern void pgt_journal_end(void);
/* Attempts in this database whose process is gone: a list of PgtLostAttempt. */
extern List *pgt_journal_list_lost(void);
/* What follows from it has been recorded. */
extern void pgt_journal_forget(const PgtLostAttempt *lost);
/* Forgets those of databases that are not in the list. */
extern void pgt_journal_keep_only(List *databases);

#endif /* POOL_INTERNAL_H */
