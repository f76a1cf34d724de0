/*
 * quiesce.c: sending a coordinator away before a command that needs its
 * database for itself.
 *
 * DROP DATABASE, RENAME, SET TABLESPACE and CREATE DATABASE with it as template
 * wait five seconds for other sessions and then fail. So the session that runs
 * one marks the slot with its virtual transaction, and waits until the
 * coordinator has left. The launcher starts none while that transaction lasts.
 *
 * DROP EXTENSION and ALTER EXTENSION would wait for the end of a running refresh,
 * so they do the same with the coordinator of their own database.
 */
#include "postgres.h"

#include <signal.h>

#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/utility.h"
#include "utils/wait_event.h"

#include "pgt_clock.h"
#include "pgt_compat.h"
#include "pgt_shmem.h"

#include "pool_internal.h"
#include "sched_internal.h"

#define LONGEST_WAIT_MS 10000
#define STEP_MS 10
#define CANCEL_MS 300
#define EXTENSION "pg_trickle"

static ProcessUtility_hook_type previous_hook = NULL;

/* The database that a command needs for itself, or NULL. */
static const char *
needed_database(Node *statement)
{
	ListCell *lc;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) statement)->dbname;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				return ((RenameStmt *) statement)->subname;
			return NULL;
		case T_AlterDatabaseStmt:
			foreach (lc, ((AlterDatabaseStmt *) statement)->options)
				if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
					return ((AlterDatabaseStmt *) statement)->dbname;
			return NULL;
		case T_CreatedbStmt:
			foreach (lc, ((CreatedbStmt *) statement)->options)
				if (strcmp(lfirst_node(DefElem, lc)->defname, "template") == 0 &&
					lfirst_node(DefElem, lc)->arg != NULL)
					return defGetString(lfirst_node(DefElem, lc));
			return NULL;
		default:
			return NULL;
	}
}

/* Does the command need this database's coordinator away? */
static bool
is_about_extension(Node *statement)
{
	ListCell *lc;

	if (IsA(statement, AlterExtensionStmt))
		return strcmp(((AlterExtensionStmt *) statement)->extname, EXTENSION) == 0;
	if (!IsA(statement, DropStmt) || ((DropStmt *) statement)->removeType != OBJECT_EXTENSION)
		return false;
	foreach (lc, ((DropStmt *) statement)->objects)
		if (strcmp(strVal(lfirst(lc)), EXTENSION) == 0)
			return true;
	return false;
}

/* Whoever lacks the right will be told by the command itself. */
static Oid
find_database_to_quiesce(Node *statement)
{
	const char *name = needed_database(statement);
	Oid database = InvalidOid;

	if (name != NULL)
	{
		database = get_database_oid(name, true);
		if (database == MyDatabaseId || !OidIsValid(database) ||
			!pgt_compat_owns_database(database, GetUserId()))
			return InvalidOid;
	}
	else if (is_about_extension(statement))
	{
		Oid extension = get_extension_oid(EXTENSION, true);

		if (OidIsValid(extension) && pgt_compat_owns_extension(extension, GetUserId()))
			database = MyDatabaseId;
	}
	return database;
}

/* The latch makes it look at its slot; a refresh that takes long is cancelled. */
static void
nudge(pid_t pid, bool cancel)
{
	PGPROC *proc = BackendPidGetProc(pid);

	if (proc == NULL)
		return;
	if (cancel)
		(void) kill(pid, SIGINT);
	SetLatch(&proc->procLatch);
}

static void
send_away(Oid database)
{
	CoordinatorSlot *slot = pgt_slots_lock(database);
	bool workers = true;

	if (slot != NULL)
		GET_VXID_FROM_PGPROC(slot->quiesce, *MyProc);
	pgt_slots_unlock();
	/* They refresh for the coordinator, and go as it does. */
	for (int waited = 0; waited < LONGEST_WAIT_MS; waited += STEP_MS)
	{
		CoordinatorSlot copy;
		bool here = pgt_slots_get(database, &copy) && copy.pid != 0;

		if (here && waited % CANCEL_MS == 0)
			nudge(copy.pid, waited > 0);
		if (waited % CANCEL_MS == 0)
			workers = pgt_pool_nudge_workers(database, waited > 0);
		else if (workers)
			workers = pgt_pool_has_workers(database);
		if (!here && !workers)
			return;
		CHECK_FOR_INTERRUPTS();
		(void) pgt_clock_wait(STEP_MS, PG_WAIT_EXTENSION);
	}
}

bool
pgt_quiesce_holds(Oid database)
{
	CoordinatorSlot copy;
	CoordinatorSlot *slot;

	if (!pgt_slots_get(database, &copy) || !VirtualTransactionIdIsValid(copy.quiesce))
		return false;
	if (!VirtualXactLock(copy.quiesce, false))
		return true;
	slot = pgt_slots_lock(database);
	if (slot != NULL && VirtualTransactionIdEquals(slot->quiesce, copy.quiesce))
		SetInvalidVirtualTransactionId(slot->quiesce);
	pgt_slots_unlock();
	return false;
}

static void
run_utility(PlannedStmt *stmt, const char *query, bool read_only, ProcessUtilityContext context,
			ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest,
			QueryCompletion *completion)
{
	Oid database = pgt_shmem_available() ? find_database_to_quiesce(stmt->utilityStmt) : InvalidOid;

	if (OidIsValid(database))
		send_away(database);
	if (previous_hook != NULL)
		previous_hook(stmt, query, read_only, context, params, environment, dest, completion);
	else
		standard_ProcessUtility(stmt, query, read_only, context, params, environment, dest,
								completion);
}

void
pgt_quiesce_init(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = run_utility;
}
