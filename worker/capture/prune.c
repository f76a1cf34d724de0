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
 *
 * Owns, for this backend, the last row of each segment that some consumer had
 * not seen: as long as it has not, the others need not be looked at. So a
 * consumer that is paused for long costs no scan of what is kept for it.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/hsearch.h"
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

/* A committed row that was not seen by all; by its writer, since rows do not move. */
typedef struct Blocker
{
	Oid segment; /* hash key */
	Oid file;	 /* relfilenode */
	uint64 xid;
	uint32 cmd;
} Blocker;

static HTAB *blockers = NULL;

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

static Blocker *
find_blocker(Relation segment, HASHACTION action)
{
	Oid relid = RelationGetRelid(segment);
	Blocker *blocker;

	if (blockers == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(Blocker)};

		blockers = hash_create("pg_trickle undrained segments", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	blocker = hash_search(blockers, &relid, action, NULL);
	if (blocker != NULL && action == HASH_FIND && blocker->file != segment->rd_rel->relfilenode)
		return NULL;
	return blocker;
}

static void
set_blocker(Relation segment, HeapTuple tuple)
{
	Blocker *blocker = find_blocker(segment, HASH_ENTER);

	blocker->file = segment->rd_rel->relfilenode;
	blocker->xid = pgt_capture_tuple_xid(tuple);
	blocker->cmd = pgt_capture_tuple_cmd(tuple);
}

/* Does the row count, now or later? */
static bool
is_wanted(HeapTuple tuple, bool *committed)
{
	/* The subtransaction may have rolled back alone. */
	TransactionId writer = HeapTupleHeaderGetXmin(tuple->t_data);

	*committed = false;
	/* In progress before committed. */
	if (TransactionIdIsCurrentTransactionId(writer) || TransactionIdIsInProgress(writer))
		return true;
	*committed = TransactionIdDidCommit(writer);
	return *committed;
}

/*
 * Is every row of the segment seen, or rolled back? Rows older than all
 * frontiers are left out by the scan without looking further.
 */
static bool
is_drained(Relation segment, const Seen *seen)
{
	Blocker *blocker = find_blocker(segment, HASH_FIND);
	SegmentScan scan;
	HeapTuple tuple;
	bool drained = true;

	if (blocker != NULL && !is_seen(seen, blocker->xid, blocker->cmd))
		return false;
	pgt_capture_scan_begin(&scan, segment, 0, NULL, seen->xmin);
	while (drained && (tuple = pgt_capture_scan_next(&scan)) != NULL)
	{
		bool committed;

		if (is_seen(seen, pgt_capture_tuple_xid(tuple), pgt_capture_tuple_cmd(tuple)))
			continue;
		drained = !is_wanted(tuple, &committed);
		if (!drained && committed)
			set_blocker(segment, tuple);
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

bool
pgt_capture_is_large(Oid relid)
{
	CaptureSource *source = pgt_capture_map_source(relid);
	bool large = false;

	for (int i = 0; source != NULL && i < PGT_SEGMENTS; i++)
		large = large || (OidIsValid(source->segments[i]) &&
						  get_length(source->segments[i]) >= SWITCH_BLOCKS);
	return large;
}

static void
switch_segments(const CaptureSource *source, int active)
{
	pgt_source_set_segment(source->source_id, 1 - active);
	for (int i = 0; i < PGT_SEGMENTS; i++)
		CacheInvalidateRelcacheByRelid(source->segments[i]);
}

/* Of a segment and of what is toasted beside it; 0 if it has gone. */
static BlockNumber
find_length(Oid relid, int64 *bytes)
{
	Relation segment = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	BlockNumber nblocks;
	Oid toast;

	if (segment == NULL)
		return 0;
	nblocks = RelationGetNumberOfBlocks(segment);
	toast = segment->rd_rel->reltoastrelid;
	relation_close(segment, AccessShareLock);
	*bytes += (int64) nblocks * BLCKSZ;
	if (OidIsValid(toast))
		(void) find_length(toast, bytes);
	return nblocks;
}

int64
pgt_capture_buffer_bytes(const PgtSource *source, bool *wants_prune)
{
	int64 bytes = 0;
	BlockNumber active = find_length(source->segments[source->active_segment], &bytes);
	BlockNumber inactive = find_length(source->segments[1 - source->active_segment], &bytes);

	*wants_prune = inactive > 0 || active >= SWITCH_BLOCKS;
	return bytes;
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
