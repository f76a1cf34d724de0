/*
 * pgt_pool.h: what the workers of the scheduler do, for whoever wants to see it.
 * Module: sched
 *
 * Copies of shared memory; without shared_preload_libraries there is nothing.
 */
#ifndef PGT_POOL_H
#define PGT_POOL_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#define PGT_POOL_WORKERS 32 /* in the server; the largest pg_trickle.max_parallel_workers */
#define PGT_POOL_JOBS 128	/* queued, running, or kept to be seen */
#define PGT_JOB_ITEMS 32	/* larger ones are refreshed by the coordinator */
#define PGT_JOB_TEXT 1024

typedef enum PgtJobState
{
	PGT_JOB_FREE, /* no job */
	PGT_JOB_QUEUED,
	PGT_JOB_RUNNING,
	PGT_JOB_DONE,	 /* the coordinator has not seen its result yet */
	PGT_JOB_LOST,	 /* its worker ended */
	PGT_JOB_FINISHED /* collected, kept until its place is needed */
} PgtJobState;

typedef enum PgtWorkerState
{
	PGT_WORKER_FREE, /* no worker */
	PGT_WORKER_STARTING,
	PGT_WORKER_IDLE,
	PGT_WORKER_RUNNING
} PgtWorkerState;

typedef struct PgtWorkerInfo
{
	int slot;
	Oid database;
	uint32 generation; /* how many workers this slot has had */
	PgtWorkerState state;
	pid_t pid;
	int64 job; /* 0: none */
	int64 jobs_done;
	TimestampTz since; /* of the state */
} PgtWorkerInfo;

typedef struct PgtJobInfo
{
	int64 id;
	PgtJobState state;
	bool failed;
	bool lost;
	pid_t pid;
	TimestampTz queued_at;
	TimestampTz started_at; /* 0: not yet */
	TimestampTz ended_at;
	int count;
	int attempt; /* of the first stream table */
	int64 pgt_ids[PGT_JOB_ITEMS];
	char message[PGT_JOB_TEXT];
} PgtJobInfo;

/* Lists of PgtWorkerInfo (of the whole server) and PgtJobInfo (of this database). */
extern List *pgt_pool_list_worker_infos(void);
extern List *pgt_pool_list_job_infos(void);

#endif /* PGT_POOL_H */
