/*
 * session.c: transactions of coordinators and workers.
 *
 * Each begins with AccessShareLock on the extension object, so that DROP
 * EXTENSION waits for it or it finds the extension gone, in which case the
 * process ends. Owns the oid of the extension, as this process found it first.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "sched_internal.h"

static Oid extension = InvalidOid;
static void (*when_gone)(bool missing) = NULL;
static MemoryContext outside = NULL; /* of the transaction that runs */

/*
 * Defaults of the server or the database are meant for sessions of users: where these
 * are read-only or serializable, refreshes are not.
 */
static void
set_own(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SET, true, 0,
							 false);
}

void
pgt_session_init(void (*gone)(bool missing))
{
	when_gone = gone;
	set_own("default_transaction_read_only", "off");
	set_own("default_transaction_isolation", "read committed");
	set_own("default_transaction_deferrable", "off");
}

Oid
pgt_session_extension(void)
{
	return extension;
}

void
pgt_session_begin(int lock_wait_ms)
{
	char limit[16];
	Oid now;

	outside = CurrentMemoryContext;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (OidIsValid(extension))
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	PushActiveSnapshot(GetTransactionSnapshot());
	now = get_extension_oid("pg_trickle", true);
	if (!OidIsValid(now) || (OidIsValid(extension) && now != extension))
	{
		PopActiveSnapshot();
		when_gone(!OidIsValid(now));
	}
	extension = now;
	PopActiveSnapshot();
	snprintf(limit, sizeof(limit), "%d", lock_wait_ms);
	(void) set_config_option("lock_timeout", limit, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
							 true, 0, false);
}

void
pgt_session_end(void)
{
	CommitTransactionCommand();
	MemoryContextSwitchTo(outside);
}

bool
pgt_session_try(int lock_wait_ms, void (*work)(void *arg), void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool done = false;

	PG_TRY();
	{
		pgt_session_begin(lock_wait_ms);
		PushActiveSnapshot(GetTransactionSnapshot());
		work(arg);
		PopActiveSnapshot();
		pgt_session_end();
		done = true;
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		FlushErrorState();
		AbortCurrentTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return done;
}
