/*
 * pgt_shmem.h: shared memory and locks of the modules.
 *
 * Each module describes its area in _PG_init (pgt_shmem_register), then
 * pgt_shmem_init asks the server for all of it at once. Without
 * shared_preload_libraries nothing is reserved, init is never called and
 * pgt_shmem_available() is false: the module does nothing then.
 */
#ifndef PGT_SHMEM_H
#define PGT_SHMEM_H

#include "postgres.h"

#include "storage/lwlock.h"

/* Locks of the tranche "pg_trickle", in the order in which they may be nested. */
typedef enum PgtShmemLock
{
	PGT_LOCK_SCHED,	   /* slots of coordinators */
	PGT_LOCK_POOL,	   /* slots of workers, queue of jobs, journal of attempts */
	PGT_LOCK_WAKE,	   /* which databases and sources have a slot */
	PGT_LOCK_PROGRESS, /* how far refreshes are */
	PGT_LOCK_COUNT
} PgtShmemLock;

typedef struct PgtShmemArea
{
	const char *name; /* "pg_trickle wake" */
	Size (*size)(void);
	/*
	 * Called once in every process. found: another process has initialised the
	 * memory already. Runs under AddinShmemInitLock.
	 */
	void (*attach)(void *memory, bool found);
} PgtShmemArea;

/* The struct must live for ever. */
extern void pgt_shmem_register(const PgtShmemArea *area);
/* Last of _PG_init: reserves what was registered, if the library is preloaded. */
extern void pgt_shmem_init(void);
/* Was the library preloaded (is there shared memory)? */
extern bool pgt_shmem_available(void);
extern LWLock *pgt_shmem_lock(PgtShmemLock lock);

#endif /* PGT_SHMEM_H */
