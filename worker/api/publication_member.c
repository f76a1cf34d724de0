/*
 * publication_member.c: what others follow of a stream table, and may trip over.
 *
 * A table that is dropped for another says nothing to who follows it: its rows
 * are deleted one by one before, under the AccessExclusiveLock of the caller.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "pgt_refresh.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

/* ---- What users make ---- */

/* Says at once what the next refreshes would fail for. */
void
pgt_publication_made(const char *name)
{
	PgtSecurity saved = pgt_security_become_extension_owner();
	PgtRows *rows = pgt_spi_select(
		psprintf("SELECT d.pgt_relid::pg_catalog.oid FROM pgtrickle.pgt_definitions d"
				 " JOIN pg_catalog.pg_publication_rel r ON r.prrelid = d.pgt_relid"
				 " JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid"
				 " WHERE p.pubname = %s AND (r.prattrs IS NOT NULL OR r.prqual IS NOT NULL)",
				 pgt_sqltext_literal(name)));

	for (int i = 0; i < rows->nrows; i++)
	{
		Relation table = table_open(pgt_spi_oid(rows, i, 1), AccessShareLock);

		pgt_published_warn(table);
		table_close(table, NoLock);
	}
	pgt_security_restore(&saved);
}

/* ---- A table that makes place for another ---- */

/* Does anybody follow the changes of this database? */
static bool
somebody_follows(void)
{
	bool found = false;

	if (wal_level < WAL_LEVEL_LOGICAL)
		return false;
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots && !found; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		found = slot->in_use && slot->data.database == MyDatabaseId;
	}
	LWLockRelease(ReplicationSlotControlLock);
	return found;
}

/*
 * Nobody downstream hears of a dropped table: its rows go one by one before, so
 * that those of the new table do not come on top of them. No triggers: they go
 * with the table, which the caller has locked.
 */
void
pgt_publication_tell_deletes(Oid relid)
{
	Relation table;
	TableScanDesc scan;
	HeapTuple tuple;
	Snapshot snapshot;

	if (!somebody_follows())
		return;
	table = table_open(relid, AccessExclusiveLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = table_beginscan(table, snapshot, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		simple_heap_delete(table, &tuple->t_self);
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(table, NoLock);
	CommandCounterIncrement();
}
