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

#include "sched_internal.h"

#define LONGEST_WAIT_MS 60000
#define QUIESCE_WAIT_MS 500
#define FIRST_BACKOFF_MS 1000
#define LONGEST_BACKOFF_MS 60000
#define STABLE_MS 10000 /* a coordinator that lived this long did not fail to start */

static bool out_of_slots = false; /* told once per change of state */

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
		if (strcmp(lfirst(lc), name) == 0)
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

/* Milliseconds until the database should be looked at again. */
static long
tend_database(Oid database)
{
	TimestampTz now = pgt_clock_now();
	CoordinatorSlot *slot;
	bool start = false;
	long wait = LONGEST_WAIT_MS;

	if (pgt_quiesce_holds(database))
		return QUIESCE_WAIT_MS;
	slot = pgt_slots_lock(database);
	if (slot == NULL)
	{
		pgt_slots_unlock();
		return LONGEST_WAIT_MS;
	}
	if (slot->no_extension && pgt_wake_has_catalog_news(database))
	{
		slot->no_extension = false;
		slot->not_before = 0;
		slot->failures = 0;
	}
	if (slot->pid == 0 && !slot->no_extension)
	{
		if (slot->ended_at - slot->started_at > INT64CONST(1000) * STABLE_MS)
			slot->failures = 0;
		if (slot->not_before > now)
			wait = (slot->not_before - now) / 1000 + 1;
		else
		{
			start = true;
			wait = Min(FIRST_BACKOFF_MS << Min(slot->failures, 6), LONGEST_BACKOFF_MS);
			slot->failures++;
			slot->not_before = now + INT64CONST(1000) * wait;
			slot->started_at = now;
		}
	}
	pgt_slots_unlock();
	if (start && !register_coordinator(database))
	{
		if (!out_of_slots)
			ereport(
				LOG,
				(errmsg(
					 "pg_trickle could not start a coordinator: no background worker slot is free"),
				 errhint("Raise max_worker_processes.")));
		out_of_slots = true;
	}
	else if (start)
		out_of_slots = false;
	return wait;
}

static long
tend_databases(void)
{
	List *databases = list_databases();
	long wait = LONGEST_WAIT_MS;
	ListCell *lc;

	foreach (lc, databases)
		wait = Min(wait, tend_database(lfirst_oid(lc)));
	pgt_slots_keep_only(databases);
	return wait;
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
	pgt_quiesce_init();
	register_launcher();
}
