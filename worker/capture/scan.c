/*
 * scan.c: reading a segment page by page.
 *
 * A heap scan of our own: it starts at any block, looks at the transaction in
 * the row before it pays for visibility, and takes no predicate locks. The
 * page stays pinned while its tuples are handed out. Buffers are heap tables
 * by creation (buffer.c).
 */
#include "postgres.h"

#include "access/heapam.h"
#include "miscadmin.h"
#include "storage/bufpage.h"
#include "utils/rel.h"

#include "capture_internal.h"

void
pgt_capture_scan_begin(SegmentScan *scan, Relation segment, BlockNumber start, Snapshot snapshot,
					   uint64 skip_below)
{
	scan->segment = segment;
	scan->snapshot = snapshot;
	scan->skip_below = skip_below;
	scan->block = start;
	scan->nblocks = RelationGetNumberOfBlocks(segment);
	scan->buffer = InvalidBuffer;
	scan->at = scan->noffsets = 0;
	scan->tuple.t_tableOid = RelationGetRelid(segment);
	scan->strategy = scan->nblocks > start && scan->nblocks - start > NBuffers / 4
						 ? GetAccessStrategy(BAS_BULKREAD)
						 : NULL;
}

/* Points scan->tuple at a line pointer's tuple; false if it holds none. */
static bool
set_tuple(SegmentScan *scan, Page page, OffsetNumber offset)
{
	ItemId item = PageGetItemId(page, offset);

	if (!ItemIdIsNormal(item))
		return false;
	scan->tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
	scan->tuple.t_len = ItemIdGetLength(item);
	ItemPointerSet(&scan->tuple.t_self, scan->block, offset);
	return true;
}

static void
read_page(SegmentScan *scan)
{
	Page page;
	OffsetNumber last;

	CHECK_FOR_INTERRUPTS();
	scan->at = scan->noffsets = 0;
	scan->buffer = ReadBufferExtended(scan->segment, MAIN_FORKNUM, scan->block, RBM_NORMAL,
									  scan->strategy);
	LockBuffer(scan->buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(scan->buffer);
	last = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
	for (OffsetNumber offset = FirstOffsetNumber; offset <= last; offset++)
	{
		if (!set_tuple(scan, page, offset))
			continue;
		if (pgt_capture_tuple_xid(&scan->tuple) < scan->skip_below)
			continue;
		if (scan->snapshot != NULL &&
			!HeapTupleSatisfiesVisibility(&scan->tuple, scan->snapshot, scan->buffer))
			continue;
		scan->offsets[scan->noffsets++] = offset;
	}
	LockBuffer(scan->buffer, BUFFER_LOCK_UNLOCK);
}

HeapTuple
pgt_capture_scan_next(SegmentScan *scan)
{
	for (;;)
	{
		if (BufferIsValid(scan->buffer))
		{
			if (scan->at < scan->noffsets)
			{
				/* A pinned page's tuples stay where they are. */
				(void) set_tuple(scan, BufferGetPage(scan->buffer), scan->offsets[scan->at++]);
				return &scan->tuple;
			}
			ReleaseBuffer(scan->buffer);
			scan->buffer = InvalidBuffer;
			scan->block++;
		}
		if (scan->block >= scan->nblocks)
			return NULL;
		read_page(scan);
	}
}

void
pgt_capture_scan_end(SegmentScan *scan)
{
	if (BufferIsValid(scan->buffer))
		ReleaseBuffer(scan->buffer);
	scan->buffer = InvalidBuffer;
	if (scan->strategy != NULL)
		FreeAccessStrategy(scan->strategy);
	scan->strategy = NULL;
}
