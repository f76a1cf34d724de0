/*
 * progress.c: how far refreshes are that compute everything, see pgt_progress.h.
 *
 * Owns a slot per process in shared memory, in the order of the server's array
 * of processes. Only its process writes it, under PGT_LOCK_PROGRESS, but for the
 * number of rows, which is an atomic and written every 1024 rows. Slots are
 * cleared at the end of the transaction, however that comes.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "pgt_clock.h"
#include "pgt_compat.h"
#include "pgt_point.h"
#include "pgt_progress.h"
#include "pgt_shmem.h"

#define ROWS_PER_NEWS 1024

typedef struct Slot
{
	PgtProgress progress;
	pg_atomic_uint64 rows;
} Slot;

static Slot *slots = NULL;

/* The refresh of this process; depth 0: none. */
static struct
{
	int depth;
	int64 pgt_id;
	const char *initiated_by;
	Oid (*find_relid)(int64);
	bool shown;
} current;

typedef struct Counter
{
	DestReceiver receiver;
	DestReceiver *dest;
	uint64 rows;
} Counter;

/* ---- Shared memory ---- */

static int
slot_count(void)
{
	return MaxBackends;
}

static Size
memory_size(void)
{
	return mul_size(sizeof(Slot), slot_count());
}

static void
attach_memory(void *memory, bool found)
{
	slots = memory;
	if (found)
		return;
	memset(slots, 0, memory_size());
	for (int i = 0; i < slot_count(); i++)
		pg_atomic_init_u64(&slots[i].rows, 0);
}

static const PgtShmemArea area = {"pg_trickle progress", memory_size, attach_memory};

static Slot *
my_slot(void)
{
	int number = MyProc - ProcGlobal->allProcs;

	return slots == NULL || number < 0 || number >= slot_count() ? NULL : &slots[number];
}

/* ---- A refresh ---- */

static void
hide(void)
{
	Slot *slot = my_slot();

	if (current.shown && slot != NULL)
	{
		LWLockAcquire(pgt_shmem_lock(PGT_LOCK_PROGRESS), LW_EXCLUSIVE);
		slot->progress.pid = 0;
		LWLockRelease(pgt_shmem_lock(PGT_LOCK_PROGRESS));
	}
	current.shown = false;
}

static void
end_transaction(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (current.shown)
		hide();
	current.depth = 0;
}

static void
end_process(int code, Datum arg)
{
	hide();
}

void
pgt_progress_begin(int64 pgt_id, const char *initiated_by, Oid (*find_relid)(int64))
{
	if (slots == NULL || current.depth++ > 0)
		return;
	current.pgt_id = pgt_id;
	current.initiated_by = initiated_by;
	current.find_relid = find_relid;
}

void
pgt_progress_end(void)
{
	if (current.depth > 0 && --current.depth == 0)
		hide();
}

/* The slot with what does not change while the refresh lasts. */
static bool
show(Slot *slot)
{
	static bool at_exit = false;
	PgtProgress progress = {0};
	char *schema;
	char *name;

	progress.relid = current.find_relid(current.pgt_id);
	name = get_rel_name(progress.relid);
	schema = name == NULL ? NULL : get_namespace_name(get_rel_namespace(progress.relid));
	if (schema == NULL)
		return false;
	progress.pid = MyProcPid;
	progress.database = MyDatabaseId;
	progress.pgt_id = current.pgt_id;
	progress.owner = pgt_compat_relation_owner(progress.relid);
	namestrcpy(&progress.schema, schema);
	namestrcpy(&progress.name, name);
	strlcpy(progress.initiated_by, current.initiated_by, sizeof(progress.initiated_by));
	progress.started_at = pgt_clock_now();
	if (!at_exit)
		before_shmem_exit(end_process, (Datum) 0);
	at_exit = true;
	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_PROGRESS), LW_EXCLUSIVE);
	slot->progress = progress;
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_PROGRESS));
	current.shown = true;
	return true;
}

static void
set_phase(Slot *slot, PgtProgressPhase phase, int64 rows)
{
	TimestampTz now = pgt_clock_now();

	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_PROGRESS), LW_EXCLUSIVE);
	pg_atomic_write_u64(&slot->rows, rows);
	slot->progress.phase = phase;
	slot->progress.phase_since = now;
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_PROGRESS));
}

bool
pgt_progress_compute(double expected)
{
	Slot *slot = my_slot();

	if (current.depth != 1 || slot == NULL || (!current.shown && !show(slot)))
		return false;
	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_PROGRESS), LW_EXCLUSIVE);
	slot->progress.statement++;
	slot->progress.expected = expected;
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_PROGRESS));
	set_phase(slot, PGT_PROGRESS_COMPUTING, 0);
	return true;
}

void
pgt_progress_computed(int64 rows)
{
	Slot *slot = my_slot();

	if (!current.shown || current.depth != 1)
		return;
	set_phase(slot, PGT_PROGRESS_WRITING, rows);
	PGT_POINT("progress-writing");
}

/* ---- Rows ---- */

static bool
receive(TupleTableSlot *tuple, DestReceiver *self)
{
	Counter *counter = (Counter *) self;

	if (++counter->rows % ROWS_PER_NEWS == 0)
	{
		pg_atomic_write_u64(&my_slot()->rows, counter->rows);
		PGT_POINT("progress-computing");
	}
	return counter->dest->receiveSlot(tuple, counter->dest);
}

static void
start_up(DestReceiver *self, int operation, TupleDesc desc)
{
	Counter *counter = (Counter *) self;

	counter->dest->rStartup(counter->dest, operation, desc);
}

static void
shut_down(DestReceiver *self)
{
	Counter *counter = (Counter *) self;

	counter->dest->rShutdown(counter->dest);
}

/* The other one is its owner's. */
static void
destroy(DestReceiver *self)
{
	pfree(self);
}

DestReceiver *
pgt_progress_count(DestReceiver *dest)
{
	Counter *counter = palloc0(sizeof(Counter));

	counter->receiver.receiveSlot = receive;
	counter->receiver.rStartup = start_up;
	counter->receiver.rShutdown = shut_down;
	counter->receiver.rDestroy = destroy;
	counter->receiver.mydest = dest->mydest;
	counter->dest = dest;
	return &counter->receiver;
}

/* ---- Others ---- */

List *
pgt_progress_list(void)
{
	List *list = NIL;

	if (slots == NULL)
		return NIL;
	for (int i = 0; i < slot_count(); i++)
	{
		PgtProgress *progress = palloc(sizeof(PgtProgress));

		LWLockAcquire(pgt_shmem_lock(PGT_LOCK_PROGRESS), LW_SHARED);
		*progress = slots[i].progress;
		progress->rows = (int64) pg_atomic_read_u64(&slots[i].rows);
		LWLockRelease(pgt_shmem_lock(PGT_LOCK_PROGRESS));
		if (progress->pid != 0)
			list = lappend(list, progress);
	}
	return list;
}

void
pgt_progress_init(void)
{
	pgt_shmem_register(&area);
	RegisterXactCallback(end_transaction, NULL);
}
