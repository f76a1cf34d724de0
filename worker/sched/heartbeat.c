/*
 * heartbeat.c: a sign of life in the WAL for consumers of logical decoding, every
 * pg_trickle.heartbeat_interval while the database has a slot for them.
 *
 * While nothing of its database changes, a consumer has nothing to confirm, and its
 * slot keeps all the WAL that the other databases write. And it cannot tell silence
 * from an interruption. The message is of the kind that include/pgt_wire.h describes;
 * it takes no transaction, so that idle tables go on costing none.
 *
 * Owns the time of the last one. In a coordinator, so never on a standby.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/lwlock.h"

#include "pgt_clock.h"
#include "pgt_compat.h"
#include "pgt_guc.h"
#include "pgt_wire.h"

#include "sched_internal.h"

static TimestampTz sent_at = 0; /* or found to be of no use */

/* Is there a slot that decodes the WAL of this database, and has not lost it? */
static bool
database_has_slot(void)
{
	bool found = false;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots && !found; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		if (!slot->in_use)
			continue;
		SpinLockAcquire(&slot->mutex);
		found = SlotIsLogical(slot) && slot->data.database == MyDatabaseId &&
				slot->data.restart_lsn != InvalidXLogRecPtr;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return found;
}

static void
send_heartbeat(TimestampTz now)
{
	char content[32];
	int size = snprintf(content, sizeof(content), INT64_FORMAT, now + PGT_WIRE_PG_EPOCH_US);

	/* Only what is on disk is sent, and nobody else flushes it while nothing happens. */
	XLogFlush(pgt_compat_log_message_outside(PGT_WIRE_HEARTBEAT_PREFIX, content, size));
}

/* Sends one if it is time; returns how long to wait, for the next or as long as the caller says. */
long
pgt_heartbeat_run(long wait_ms)
{
	int64 interval = pgt_guc_heartbeat_interval * INT64CONST(1000000);
	TimestampTz now;

	if (interval == 0 || !XLogLogicalInfoActive())
		return wait_ms;
	now = pgt_clock_now();
	/* A clock that was set back makes nobody wait for longer. */
	if (now < sent_at || now - sent_at >= interval)
	{
		sent_at = now;
		if (database_has_slot())
			send_heartbeat(now);
	}
	return (long) Min(wait_ms, (sent_at + interval - now) / 1000 + 1);
}
