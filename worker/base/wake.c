/*
 * wake.c: from the commit of a writer to the latch of a coordinator.
 *
 * Shared memory: a slot per database (latch of its coordinator, news that
 * concern no single source) and a slot per source, chained to its database.
 * Slots are found and made under PGT_LOCK_WAKE, before the commit; the commit
 * callback knows its slots and touches only their atomics, since an ERROR
 * there would be a PANIC. A slot that cannot be had turns into scan_all.
 *
 * pending_since is flag and time in one: the writer that turns it from 0 sets
 * the latch, the coordinator turns it back before it takes its snapshot. So a
 * change is either in that snapshot or announced again.
 *
 * PREPARE TRANSACTION leaves a mark on the slots that stays until the server
 * restarts; any COMMIT PREPARED announces the marked ones.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/utility.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "pgt_clock.h"
#include "pgt_shmem.h"
#include "pgt_wake.h"

#define MAX_SOURCES 8192
#define NO_SLOT (-1)

typedef struct DatabaseSlot
{
	Oid database;				  /* InvalidOid: free */
	int first;					  /* source slot, or NO_SLOT */
	pg_atomic_uint64 coordinator; /* its Latch *, or 0 */
	pg_atomic_uint32 changed;	  /* some source of the chain is pending */
	pg_atomic_uint32 catalog;
	pg_atomic_uint32 scan_all;
	pg_atomic_uint32 awaits_ddl;   /* it may mend what failed */
	pg_atomic_uint32 prepared;	   /* some source of the chain is marked so */
	pg_atomic_uint32 prepared_all; /* a source without slot was prepared */
} DatabaseSlot;

typedef struct SourceSlot
{
	Oid relid; /* InvalidOid: free */
	Oid database;
	int next; /* of the same database, or of the free list */
	pg_atomic_uint32 prepared;
	pg_atomic_uint64 pending_since; /* TimestampTz, 0: nothing */
} SourceSlot;

typedef struct WakeMemory
{
	pg_atomic_uint64 launcher; /* Latch * */
	int first_free;			   /* source slot */
	DatabaseSlot databases[PGT_MAX_DATABASES];
	SourceSlot sources[MAX_SOURCES];
} WakeMemory;

/* Where a relation's slot is; a guess that find_source_slot verifies. */
typedef struct KnownSource
{
	Oid relid; /* hash key */
	SourceSlot *slot;
} KnownSource;

/* What the current transaction will announce; in TopTransactionContext. */
typedef struct Announcement
{
	SourceSlot **sources;
	int nsources;
	int capacity;
	Oid last_relid; /* shortcut for many statements on one table */
	bool catalog;
	bool scan_all;
} Announcement;

static WakeMemory *memory = NULL;
static HTAB *known_sources = NULL;
static DatabaseSlot *my_database = NULL;
static Announcement *announcement = NULL;
static ProcessUtility_hook_type previous_utility_hook = NULL;

/* --- slots --- */

static Size
get_memory_size(void)
{
	return sizeof(WakeMemory);
}

static void
attach_memory(void *area, bool found)
{
	memory = area;
	if (found)
		return;
	memset(memory, 0, sizeof(WakeMemory));
	pg_atomic_init_u64(&memory->launcher, 0);
	for (int i = 0; i < PGT_MAX_DATABASES; i++)
	{
		DatabaseSlot *slot = &memory->databases[i];

		slot->first = NO_SLOT;
		pg_atomic_init_u64(&slot->coordinator, 0);
		pg_atomic_init_u32(&slot->changed, 0);
		pg_atomic_init_u32(&slot->catalog, 0);
		pg_atomic_init_u32(&slot->scan_all, 0);
		pg_atomic_init_u32(&slot->awaits_ddl, 0);
		pg_atomic_init_u32(&slot->prepared, 0);
		pg_atomic_init_u32(&slot->prepared_all, 0);
	}
	memory->first_free = 0;
	for (int i = 0; i < MAX_SOURCES; i++)
	{
		SourceSlot *slot = &memory->sources[i];

		slot->next = i + 1 < MAX_SOURCES ? i + 1 : NO_SLOT;
		pg_atomic_init_u32(&slot->prepared, 0);
		pg_atomic_init_u64(&slot->pending_since, 0);
	}
}

static const PgtShmemArea wake_area = {"pg_trickle wake", get_memory_size, attach_memory};

/* The slot of this database, made if need be; NULL if all are in use. */
static DatabaseSlot *
find_my_database(void)
{
	DatabaseSlot *free_slot = NULL;

	if (my_database != NULL && my_database->database == MyDatabaseId)
		return my_database;
	my_database = NULL;
	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_WAKE), LW_EXCLUSIVE);
	for (int i = 0; i < PGT_MAX_DATABASES; i++)
	{
		DatabaseSlot *slot = &memory->databases[i];

		if (slot->database == MyDatabaseId)
		{
			my_database = slot;
			break;
		}
		if (!OidIsValid(slot->database) && free_slot == NULL)
			free_slot = slot;
	}
	if (my_database == NULL && free_slot != NULL)
	{
		my_database = free_slot;
		my_database->database = MyDatabaseId;
	}
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_WAKE));
	return my_database;
}

/* The slot of a source in the chain of its database, made if need be; or NULL. */
static SourceSlot *
look_up_source(DatabaseSlot *database, Oid relid)
{
	SourceSlot *slot = NULL;
	int at;

	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_WAKE), LW_EXCLUSIVE);
	for (at = database->first; at != NO_SLOT; at = memory->sources[at].next)
	{
		if (memory->sources[at].relid == relid)
			break;
	}
	if (at == NO_SLOT && memory->first_free != NO_SLOT)
	{
		at = memory->first_free;
		slot = &memory->sources[at];
		memory->first_free = slot->next;
		slot->relid = relid;
		slot->database = MyDatabaseId;
		slot->next = database->first;
		database->first = at;
	}
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_WAKE));
	return at == NO_SLOT ? NULL : &memory->sources[at];
}

static SourceSlot *
find_source_slot(DatabaseSlot *database, Oid relid)
{
	KnownSource *known;
	bool found;

	if (known_sources == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(KnownSource)};

		known_sources = hash_create("pg_trickle wake slots", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	known = hash_search(known_sources, &relid, HASH_ENTER, &found);
	if (!found || known->slot == NULL || known->slot->relid != relid ||
		known->slot->database != MyDatabaseId)
	{
		known->slot = NULL;
		known->slot = look_up_source(database, relid);
	}
	return known->slot;
}

/* --- writers --- */

static Announcement *
get_announcement(void)
{
	if (announcement == NULL)
		announcement = MemoryContextAllocZero(TopTransactionContext, sizeof(Announcement));
	return announcement;
}

void
pgt_wake_source(Oid relid)
{
	Announcement *news;
	DatabaseSlot *database;
	SourceSlot *slot;

	if (memory == NULL || (announcement != NULL && announcement->last_relid == relid))
		return;
	database = find_my_database();
	if (database == NULL)
		return;
	news = get_announcement();
	slot = find_source_slot(database, relid);
	if (slot == NULL)
	{
		news->scan_all = true;
		return;
	}
	news->last_relid = relid;
	for (int i = 0; i < news->nsources; i++)
	{
		if (news->sources[i] == slot)
			return;
	}
	if (news->nsources == news->capacity)
	{
		int capacity = Max(8, news->capacity * 2);
		SourceSlot **sources = MemoryContextAlloc(TopTransactionContext,
												  capacity * sizeof(SourceSlot *));

		if (news->nsources > 0)
			memcpy(sources, news->sources, news->nsources * sizeof(SourceSlot *));
		news->sources = sources;
		news->capacity = capacity;
	}
	news->sources[news->nsources++] = slot;
}

void
pgt_wake_catalog(void)
{
	if (memory != NULL && find_my_database() != NULL)
		get_announcement()->catalog = true;
}

static void
set_latch(pg_atomic_uint64 *where)
{
	Latch *latch = (Latch *) (uintptr_t) pg_atomic_read_u64(where);

	if (latch != NULL)
		SetLatch(latch);
}

/* True if it was not pending before, so that the coordinator has to be woken. */
static bool
mark_pending(SourceSlot *slot, TimestampTz when)
{
	uint64 nothing = 0;

	/* Full barrier; the common case under load is that it is set already. */
	return pg_atomic_compare_exchange_u64(&slot->pending_since, &nothing, (uint64) when);
}

/* Runs where no error is allowed: atomics and SetLatch only. */
static void
announce_commit(void)
{
	TimestampTz now = pgt_clock_transaction_end();
	bool wake = false;

	for (int i = 0; i < announcement->nsources; i++)
		wake |= mark_pending(announcement->sources[i], now);
	if (wake)
		pg_atomic_write_u32(&my_database->changed, 1);
	if (announcement->scan_all)
		wake |= pg_atomic_exchange_u32(&my_database->scan_all, 1) == 0;
	if (announcement->catalog)
	{
		wake |= pg_atomic_exchange_u32(&my_database->catalog, 1) == 0;
		if (pg_atomic_read_u64(&my_database->coordinator) == 0)
			set_latch(&memory->launcher);
	}
	if (!wake)
		return;
	pg_memory_barrier();
	set_latch(&my_database->coordinator);
}

/* The transaction will be committed by somebody else: leave a mark for them. */
static void
note_prepared(void)
{
	for (int i = 0; i < announcement->nsources; i++)
		pg_atomic_write_u32(&announcement->sources[i]->prepared, 1);
	if (announcement->nsources > 0)
		pg_atomic_write_u32(&my_database->prepared, 1);
	if (announcement->scan_all)
		pg_atomic_write_u32(&my_database->prepared_all, 1);
}

static void
end_transaction(XactEvent event, void *arg)
{
	if (announcement == NULL)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
			announce_commit();
			announcement = NULL;
			break;
		case XACT_EVENT_PREPARE:
			note_prepared();
			announcement = NULL;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
			announcement = NULL;
			break;
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			break;
	}
}

static void
announce_prepared(void)
{
	DatabaseSlot *database = find_my_database();
	TimestampTz now = pgt_clock_now();

	if (database == NULL)
		return;
	if (pg_atomic_read_u32(&database->prepared_all) != 0)
		pg_atomic_write_u32(&database->scan_all, 1);
	else if (pg_atomic_read_u32(&database->prepared) == 0)
		return;
	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_WAKE), LW_SHARED);
	for (int at = database->first; at != NO_SLOT; at = memory->sources[at].next)
	{
		SourceSlot *slot = &memory->sources[at];

		if (pg_atomic_read_u32(&slot->prepared) != 0)
			(void) mark_pending(slot, now);
	}
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_WAKE));
	pg_atomic_write_u32(&database->changed, 1);
	pg_memory_barrier();
	set_latch(&database->coordinator);
}

/* May it give a refresh that failed the object or the right that it missed? */
static bool
may_mend(const Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_GrantStmt:
		case T_GrantRoleStmt:
		case T_AlterRoleStmt:
		case T_AlterOwnerStmt:
		case T_ReassignOwnedStmt:
		case T_AlterTableStmt:
		case T_AlterObjectSchemaStmt:
		case T_AlterPolicyStmt:
		case T_AlterPublicationStmt:
		case T_CreateExtensionStmt:
		case T_CreateFunctionStmt:
		case T_CreatePolicyStmt:
		case T_CreateSchemaStmt:
		case T_RenameStmt:
		case T_ViewStmt:
			return true;
		case T_DropStmt:
			return ((const DropStmt *) stmt)->removeType == OBJECT_PUBLICATION;
		case T_CreateStmt:
			return ((const CreateStmt *) stmt)->relation->relpersistence != RELPERSISTENCE_TEMP;
		default:
			return false;
	}
}

static void
announce_ddl(void)
{
	bool awaited = false;

	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_WAKE), LW_SHARED);
	for (int i = 0; i < PGT_MAX_DATABASES; i++)
		if (memory->databases[i].database == MyDatabaseId)
			awaited = pg_atomic_read_u32(&memory->databases[i].awaits_ddl) != 0;
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_WAKE));
	if (awaited)
		pgt_wake_catalog();
}

static void
run_utility(PlannedStmt *stmt, const char *query, bool read_only, ProcessUtilityContext context,
			ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest,
			QueryCompletion *completion)
{
	/* Remembered now: the statement may be freed by running it. */
	bool is_commit_prepared = IsA(stmt->utilityStmt, TransactionStmt) &&
							  ((TransactionStmt *) stmt->utilityStmt)->kind ==
								  TRANS_STMT_COMMIT_PREPARED;
	bool is_ddl = may_mend(stmt->utilityStmt);

	if (previous_utility_hook != NULL)
		previous_utility_hook(stmt, query, read_only, context, params, environment, dest,
							  completion);
	else
		standard_ProcessUtility(stmt, query, read_only, context, params, environment, dest,
								completion);
	/* The prepared transaction is committed and visible by now. */
	if (is_commit_prepared && memory != NULL && OidIsValid(MyDatabaseId))
		announce_prepared();
	if (is_ddl && memory != NULL && OidIsValid(MyDatabaseId) && IsTransactionState())
		announce_ddl();
}

/* --- the coordinator --- */

static void
leave_at_exit(int code, Datum arg)
{
	pgt_wake_unregister_coordinator();
}

bool
pgt_wake_register_coordinator(void)
{
	static bool at_exit = false;
	uint64 nobody = 0;
	DatabaseSlot *database = memory != NULL ? find_my_database() : NULL;

	if (database == NULL)
		return false;
	if (!pg_atomic_compare_exchange_u64(&database->coordinator, &nobody,
										(uint64) (uintptr_t) MyLatch) &&
		nobody != (uint64) (uintptr_t) MyLatch)
		return false;
	if (!at_exit)
		before_shmem_exit(leave_at_exit, (Datum) 0);
	at_exit = true;
	return true;
}

void
pgt_wake_unregister_coordinator(void)
{
	uint64 mine = (uint64) (uintptr_t) MyLatch;

	if (my_database != NULL)
		(void) pg_atomic_compare_exchange_u64(&my_database->coordinator, &mine, 0);
}

bool
pgt_wake_has_coordinator(void)
{
	DatabaseSlot *database = memory != NULL ? find_my_database() : NULL;

	return database != NULL && pg_atomic_read_u64(&database->coordinator) != 0;
}

PgtWakeNews
pgt_wake_collect(PgtWakeCallback callback, void *arg)
{
	PgtWakeNews news = {0};
	DatabaseSlot *database = memory != NULL ? find_my_database() : NULL;

	if (database == NULL)
		return news;
	news.catalog = pg_atomic_exchange_u32(&database->catalog, 0) != 0;
	if (news.catalog)
		pg_atomic_write_u32(&database->awaits_ddl, 0);
	news.scan_all = pg_atomic_exchange_u32(&database->scan_all, 0) != 0;
	if (pg_atomic_exchange_u32(&database->changed, 0) == 0)
		return news;

	/* The chain only grows at its head, and only its own database shrinks it. */
	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_WAKE), LW_SHARED);
	for (int at = database->first; at != NO_SLOT; at = memory->sources[at].next)
	{
		SourceSlot *slot = &memory->sources[at];
		uint64 since;

		if (pg_atomic_read_u64(&slot->pending_since) == 0)
			continue;
		since = pg_atomic_exchange_u64(&slot->pending_since, 0);
		callback(slot->relid, (TimestampTz) since, arg);
		news.sources++;
	}
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_WAKE));
	return news;
}

void
pgt_wake_hold(Oid relid, TimestampTz since)
{
	DatabaseSlot *database = memory != NULL ? find_my_database() : NULL;
	SourceSlot *slot = database != NULL ? find_source_slot(database, relid) : NULL;

	/* A writer that comes later finds it pending; one that was first has set the latch. */
	if (slot != NULL && mark_pending(slot, since))
		pg_atomic_write_u32(&database->changed, 1);
}

void
pgt_wake_await_ddl(void)
{
	DatabaseSlot *database = memory != NULL ? find_my_database() : NULL;

	if (database != NULL)
		pg_atomic_write_u32(&database->awaits_ddl, 1);
}

void
pgt_wake_coordinator(void)
{
	DatabaseSlot *database = memory != NULL ? find_my_database() : NULL;

	if (database != NULL)
		set_latch(&database->coordinator);
}

/* --- the launcher --- */

static void
leave_launcher_at_exit(int code, Datum arg)
{
	uint64 mine = (uint64) (uintptr_t) MyLatch;

	(void) pg_atomic_compare_exchange_u64(&memory->launcher, &mine, 0);
}

void
pgt_wake_register_launcher(void)
{
	if (memory == NULL)
		return;
	pg_atomic_write_u64(&memory->launcher, (uint64) (uintptr_t) MyLatch);
	before_shmem_exit(leave_launcher_at_exit, (Datum) 0);
}

bool
pgt_wake_has_catalog_news(Oid database)
{
	bool news = false;

	if (memory == NULL)
		return false;
	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_WAKE), LW_SHARED);
	for (int i = 0; i < PGT_MAX_DATABASES; i++)
		if (memory->databases[i].database == database)
			news = pg_atomic_read_u32(&memory->databases[i].catalog) != 0;
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_WAKE));
	return news;
}

void
pgt_wake_forget_database(Oid database)
{
	if (memory == NULL)
		return;
	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_WAKE), LW_EXCLUSIVE);
	for (int i = 0; i < PGT_MAX_DATABASES; i++)
	{
		DatabaseSlot *slot = &memory->databases[i];

		if (slot->database != database)
			continue;
		while (slot->first != NO_SLOT)
		{
			int at = slot->first;
			SourceSlot *source = &memory->sources[at];

			slot->first = source->next;
			source->relid = InvalidOid;
			source->database = InvalidOid;
			pg_atomic_write_u64(&source->pending_since, 0);
			pg_atomic_write_u32(&source->prepared, 0);
			source->next = memory->first_free;
			memory->first_free = at;
		}
		pg_atomic_write_u32(&slot->changed, 0);
		pg_atomic_write_u32(&slot->catalog, 0);
		pg_atomic_write_u32(&slot->scan_all, 0);
		pg_atomic_write_u32(&slot->awaits_ddl, 0);
		pg_atomic_write_u32(&slot->prepared, 0);
		pg_atomic_write_u32(&slot->prepared_all, 0);
		slot->database = InvalidOid;
	}
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_WAKE));
}

void
pgt_wake_init(void)
{
	pgt_shmem_register(&wake_area);
	RegisterXactCallback(end_transaction, NULL);
	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = run_utility;
}
