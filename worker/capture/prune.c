/*
 * prune.c: giving back the space of what every consumer has seen.
 *
 * Writers append to the active segment. When it has grown and the other one is
 * empty, the two change roles; writers notice at their next statement. The
 * inactive segment is emptied as a whole once it is drained: nothing in it is
 * news for any consumer. Emptying needs the gate of the source (no refresh has
 * taken its snapshot and not yet committed) and AccessExclusiveLock on the
 * segment (no transaction that wrote to it is open); both are tried, never
 * waited for. With both held every row in the segment belongs to a finished
 * transaction, so that any snapshot taken later contains it: a consumer
 * without frontier, whose first refresh is still to come, needs none of them.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/inval.h"
#include "utils/rel.h"

#include "capture_internal.h"
#include "pgt_capture.h"
#include "pgt_dependency.h"
#include "pgt_frontier.h"
#include "pgt_point.h"
#include "pgt_security.h"

/* Small buffers are left alone: emptying costs more than reading them again. */
#define SWITCH_BLOCKS 128

/* What the consumers have seen. */
typedef struct Seen
{
	int count;
	PgtFrontier *frontiers; /* the valid ones */
	uint64 xmin;			/* everything below is seen by all */
} Seen;

static Seen
read_frontiers(Oid relid)
{
	Seen seen = {.xmin = PG_UINT64_MAX};
	List *consumers = pgt_dependency_consumers(relid);
	ListCell *cell;

	seen.frontiers = palloc(sizeof(PgtFrontier) * Max(list_length(consumers), 1));
	foreach (cell, consumers)
	{
		PgtFrontierRow row;

		if (!pgt_frontier_find(*(int64 *) lfirst(cell), &row) || !row.frontier.valid)
			continue;
		seen.frontiers[seen.count++] = row.frontier;
		seen.xmin = Min(seen.xmin, U64FromFullTransactionId(pgt_frontier_xmin(&row.frontier)));
	}
	return seen;
}

static bool
is_seen(const Seen *seen, uint64 xid, uint32 cmd)
{
	for (int i = 0; i < seen->count; i++)
	{
		if (!pgt_frontier_contains(&seen->frontiers[i], FullTransactionIdFromU64(xid), cmd))
			return false;
	}
	return true;
}

/*
 * Is every row of the segment seen, or rolled back? Rows older than all
 * frontiers are left out by the scan without looking further.
 */
static bool
is_drained(Relation segment, const Seen *seen)
{
	SegmentScan scan;
	HeapTuple tuple;
	bool drained = true;

	pgt_capture_scan_begin(&scan, segment, 0, NULL, seen->xmin);
	while (drained && (tuple = pgt_capture_scan_next(&scan)) != NULL)
	{
		TransactionId writer;

		if (is_seen(seen, pgt_capture_tuple_xid(tuple), pgt_capture_tuple_cmd(tuple)))
			continue;
		/* The subtransaction may have rolled back alone. In progress before committed. */
		writer = HeapTupleHeaderGetXmin(tuple->t_data);
		drained = !TransactionIdIsCurrentTransactionId(writer) &&
				  !TransactionIdIsInProgress(writer) && !TransactionIdDidCommit(writer);
	}
	pgt_capture_scan_end(&scan);
	return drained;
}

static BlockNumber
get_length(Oid relid)
{
	Relation segment = table_open(relid, AccessShareLock);
	BlockNumber nblocks = RelationGetNumberOfBlocks(segment);

	table_close(segment, AccessShareLock);
	return nblocks;
}

/* The long look, without keeping anybody out. */
static bool
looks_drained(Oid source_relid, Oid relid)
{
	Seen seen = read_frontiers(source_relid);
	Relation segment = table_open(relid, AccessShareLock);
	bool drained = is_drained(segment, &seen);

	table_close(segment, AccessShareLock);
	return drained;
}

static bool
try_empty(Oid source_relid, Oid relid)
{
	Seen seen;
	Relation segment;
	bool drained;

	if (!pgt_capture_lock_gate(source_relid, ExclusiveLock, false))
		return false;
	PGT_POINT("prune-has-gate");
	if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return false;
	/* Anew, since both may have changed before the locks were ours. */
	seen = read_frontiers(source_relid);
	segment = table_open(relid, NoLock);
	drained = is_drained(segment, &seen);
	table_close(segment, NoLock);
	if (drained)
		pgt_capture_empty_segment(relid);
	return drained;
}

static void
switch_segments(const CaptureSource *source, int active)
{
	pgt_source_set_segment(source->source_id, 1 - active);
	for (int i = 0; i < PGT_SEGMENTS; i++)
		CacheInvalidateRelcacheByRelid(source->segments[i]);
}

int
pgt_capture_prune(Oid relid)
{
	PgtSource *row = pgt_source_find(relid);
	CaptureSource *source = row == NULL ? NULL : pgt_capture_map_source(relid);
	PgtSecurity saved;
	int active;
	Oid inactive;
	int emptied = 0;

	if (source == NULL || !OidIsValid(source->segments[0]) || !OidIsValid(source->segments[1]))
		return 0;
	saved = pgt_security_become_extension_owner();
	active = row->active_segment;
	inactive = row->segments[1 - active];
	if (get_length(inactive) > 0)
	{
		if (looks_drained(relid, inactive) && try_empty(relid, inactive))
			emptied++;
	}
	if (get_length(row->segments[active]) >= SWITCH_BLOCKS && get_length(inactive) == 0)
		switch_segments(source, active);
	pgt_security_restore(&saved);
	return emptied;
}
