/*
 * shmem.c: asks for shared memory once, for all modules.
 *
 * Owns the two hooks (both chained) and the LWLock tranche "pg_trickle". The
 * areas themselves belong to the modules that registered them.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "pgt_shmem.h"

#define TRANCHE "pg_trickle"
#define MAX_AREAS 8

static const PgtShmemArea *areas[MAX_AREAS];
static int nareas = 0;
static LWLockPadded *locks = NULL;
static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

void
pgt_shmem_register(const PgtShmemArea *area)
{
	if (nareas >= MAX_AREAS)
		elog(ERROR, "too many shared memory areas");
	areas[nareas++] = area;
}

static void
request_memory(void)
{
	if (previous_request_hook != NULL)
		previous_request_hook();
	for (int i = 0; i < nareas; i++)
		RequestAddinShmemSpace(areas[i]->size());
	RequestNamedLWLockTranche(TRANCHE, PGT_LOCK_COUNT);
}

static void
attach_memory(void)
{
	if (previous_startup_hook != NULL)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < nareas; i++)
	{
		bool found;
		void *memory = ShmemInitStruct(areas[i]->name, areas[i]->size(), &found);

		areas[i]->attach(memory, found);
	}
	locks = GetNamedLWLockTranche(TRANCHE);
	LWLockRelease(AddinShmemInitLock);
}

void
pgt_shmem_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = attach_memory;
}

bool
pgt_shmem_available(void)
{
	return locks != NULL;
}

LWLock *
pgt_shmem_lock(PgtShmemLock lock)
{
	Assert(locks != NULL);
	return &locks[lock].lock;
}
