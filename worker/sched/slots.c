/*
 * slots.c: which database has a coordinator, in shared memory.
 *
 * Protected by PGT_LOCK_SCHED, which is never held while waiting for anybody.
 */
#include "postgres.h"

#include "storage/lwlock.h"

#include "pgt_shmem.h"
#include "pgt_wake.h"

#include "sched_internal.h"

typedef struct Slots
{
	CoordinatorSlot slots[PGT_MAX_DATABASES];
} Slots;

static Slots *slots = NULL;

static Size
get_size(void)
{
	return sizeof(Slots);
}

static void
attach(void *memory, bool found)
{
	slots = memory;
	if (!found)
		memset(slots, 0, sizeof(Slots));
}

static const PgtShmemArea area = {"pg_trickle coordinators", get_size, attach};

void
pgt_slots_init(void)
{
	pgt_shmem_register(&area);
}

CoordinatorSlot *
pgt_slots_lock(Oid database)
{
	CoordinatorSlot *free_slot = NULL;

	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_SCHED), LW_EXCLUSIVE);
	for (int i = 0; i < PGT_MAX_DATABASES; i++)
	{
		if (slots->slots[i].database == database)
			return &slots->slots[i];
		if (!OidIsValid(slots->slots[i].database) && free_slot == NULL)
			free_slot = &slots->slots[i];
	}
	if (free_slot != NULL)
	{
		memset(free_slot, 0, sizeof(CoordinatorSlot));
		free_slot->database = database;
		SetInvalidVirtualTransactionId(free_slot->quiesce);
	}
	return free_slot;
}

void
pgt_slots_unlock(void)
{
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_SCHED));
}

void
pgt_slots_keep_only(List *databases)
{
	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_SCHED), LW_EXCLUSIVE);
	for (int i = 0; i < PGT_MAX_DATABASES; i++)
	{
		CoordinatorSlot *slot = &slots->slots[i];

		if (!OidIsValid(slot->database) || slot->pid != 0 ||
			list_member_oid(databases, slot->database))
			continue;
		pgt_wake_forget_database(slot->database);
		slot->database = InvalidOid;
	}
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_SCHED));
}

bool
pgt_slots_get(Oid database, CoordinatorSlot *copy)
{
	bool found = false;

	if (slots == NULL)
		return false;
	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_SCHED), LW_SHARED);
	for (int i = 0; i < PGT_MAX_DATABASES && !found; i++)
		if (slots->slots[i].database == database)
		{
			*copy = slots->slots[i];
			found = true;
		}
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_SCHED));
	return found;
}
