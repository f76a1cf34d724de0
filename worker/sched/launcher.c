/*
 * launcher.c: one process per server that starts a coordinator in every
 * database that has the extension.
 *
 * Connected to shared catalogs only. A coordinator finds out by itself whether
 * its database has the extension; if not it says so in its slot and exits, and
 * is started again when the catalog of that database has news. Runs on a
 * primary only (BgWorkerStart_RecoveryFinished), so on promotion it starts by
 * itself.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"

#include "pgt_clock.h"
#include "pgt_guc.h"
#include "pgt_sched.h"
#include "pgt_shmem.h"
#include "pgt_wake.h"

#include "pool_internal.h"
#include "sched_internal.h"

#define LONGEST_WAIT_MS 60000
#define QUIESCE_WAIT_MS 500
#define FIRST_BACKOFF_MS 1000
#define LONGEST_BACKOFF_MS 60000
#define LONGEST_WORKERS_WAIT_MS 30000
#define STABLE_MS 10000 /* a coordinator that lived this long did not fail to start */

/* Told once per change of state. */
static bool out_of_workers = false;
static bool out_of_slots = false;
static long workers_wait = FIRST_BACKOFF_MS;

bool
pgt_launcher_wants(const char *name)
{
	char *copy;
	List *names;
	ListCell *lc;

	if (strcmp(pgt_guc_databases, "*") == 0)
		return true;
	copy = pstrdup(pgt_guc_databases);
	if (!SplitIdentifierString(copy, ',', &names))
		return false;
	foreach (lc, names)
		if (strcmp(lfirst(lc), "*") == 0 || strcmp(lfirst(lc), name) == 0)
			return true;
	return false;
}

/* Databases that may have a coordinator. */
static List *
list_databases(void)
{
	MemoryContext caller = CurrentMemoryContext;
	List *result = NIL;
	Relation relation;
	TableScanDesc scan;
	HeapTuple tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (database->datistemplate || !database->datallowconn ||
			!pgt_launcher_wants(NameStr(database->datname)))
			continue;
		MemoryContextSwitchTo(caller);
		result = lappend_oid(result, database->oid);
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	return result;
}

static bool
register_coordinator(Oid database)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "pg_trickle");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "pgt_sched_coordinator_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_trickle coordinator");
	snprintf(worker.bgw_type, BGW_MAXLEN, "pg_trickle coordinator");
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

/*
 * Shall a coordinator be started now? If not, *wait is when to look again. A
 * start counts as failed until the coordinator has lived for a while.
 */
static bool
is_to_start(CoordinatorSlot *slot, TimestampTz now, long *wait)
{
	if (slot->no_extension && pgt_wake_has_catalog_news(slot->database))
	{
		slot->no_extension = false;
		slot->not_before = 0;
		slot->failures = 0;
	}
	if (slot->pid != 0 || slot->no_extension)
		return false;
	if (slot->ended_at - slot->started_at > INT64CONST(1000) * STABLE_MS)
		slot->failures = 0;
	/* The clock may be set back. */
	slot->not_before = Min(slot->not_before, now + INT64CONST(1000) * LONGEST_BACKOFF_MS);
	if (slot->not_before > now)
	{
		*wait = (slot->not_before - now) / 1000 + 1;
		return false;
	}
	*wait = Min(FIRST_BACKOFF_MS << Min(slot->failures, 6), LONGEST_BACKOFF_MS);
	slot->failures++;
	slot->not_before = now + INT64CONST(1000) * *wait;
	slot->started_at = now;
	return true;
}

/* It was not even started, and is as soon as there is a worker. */
static void
take_back_start(Oid database)
{
	CoordinatorSlot *slot = pgt_slots_lock(database);

	if (slot != NULL && slot->failures > 0)
		slot->failures--;
	if (slot != NULL)
		slot->not_before = 0;
	pgt_slots_unlock();
}

static void
tell_of_slots(bool none_free)
{
	if (none_free && !out_of_slots)
		ereport(LOG, (errmsg("pg_trickle cannot serve more than %d databases", PGT_MAX_DATABASES),
					  errhint("Set pg_trickle.databases to those that have stream tables.")));
	out_of_slots = none_free;
}

/* Milliseconds until the database should be looked at again. */
static long
tend_database(Oid database, bool *no_worker, bool *no_slot)
{
	CoordinatorSlot *slot;
	bool start = false;
	long wait = LONGEST_WAIT_MS;

	if (pgt_quiesce_holds(database))
		return QUIESCE_WAIT_MS;
	slot = pgt_slots_lock(database);
	*no_slot = *no_slot || slot == NULL;
	if (slot != NULL)
		start = is_to_start(slot, pgt_clock_now(), &wait);
	pgt_slots_unlock();
	/* Where one found no worker the next one will not either. */
	if (start && (*no_worker || !register_coordinator(database)))
	{
		*no_worker = true;
		take_back_start(database);
	}
	return wait;
}

/*
 * Without a free worker it tries again whenever it wakes up, as it does when
 * one of its coordinators ends, and after 1 to 30 s, since others do not tell.
 */
static long
wait_for_workers(bool no_worker, long wait)
{
	if (no_worker && !out_of_workers)
		ereport(LOG, (errmsg("pg_trickle could not start every coordinator: no background worker "
							 "slot is free"),
					  errhint("Raise max_worker_processes.")));
	else if (!no_worker && out_of_workers)
		ereport(LOG, (errmsg("pg_trickle has started every coordinator")));
	out_of_workers = no_worker;
	workers_wait = no_worker ? Min(workers_wait * 2, LONGEST_WORKERS_WAIT_MS) : FIRST_BACKOFF_MS;
	return no_worker ? Min(wait, workers_wait / 2) : wait;
}

static long
tend_databases(void)
{
	List *databases = list_databases();
	long wait = LONGEST_WAIT_MS;
	bool no_worker = false;
	bool no_slot = false;
	ListCell *lc;

	foreach (lc, databases)
		wait = Min(wait, tend_database(lfirst_oid(lc), &no_worker, &no_slot));
	tell_of_slots(no_slot);
	pgt_slots_keep_only(databases);
	pgt_pool_keep_only(databases);
	pgt_journal_keep_only(databases);
	return wait_for_workers(no_worker, wait);
}

void
pgt_sched_launcher_main(Datum arg)
{
	MemoryContext loop_context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgt_wake_register_launcher();
	loop_context = AllocSetContextCreate(TopMemoryContext, "pg_trickle launcher",
										 ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		long wait;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		MemoryContextSwitchTo(loop_context);
		MemoryContextReset(loop_context);
		wait = tend_databases();
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) pgt_clock_wait(wait, PG_WAIT_EXTENSION);
	}
}

static void
register_launcher(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "pg_trickle");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "pgt_sched_launcher_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_trickle launcher");
	snprintf(worker.bgw_type, BGW_MAXLEN, "pg_trickle launcher");
	RegisterBackgroundWorker(&worker);
}

void
pgt_sched_init(void)
{
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	pgt_slots_init();
	pgt_pool_init();
	pgt_journal_init();
	pgt_quiesce_init();
	register_launcher();
}
