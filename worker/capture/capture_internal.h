/*
 * capture_internal.h: what the files of capture share and nobody else sees.
 */
#ifndef CAPTURE_INTERNAL_H
#define CAPTURE_INTERNAL_H

#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "executor/tuptable.h"
#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"
#include "storage/block.h"
#include "storage/bufmgr.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "pgt_source.h"

/* Columns that every buffer begins with: fixed width, never NULL. */
#define BUFFER_XID 1	/* xid8: top transaction of the writer */
#define BUFFER_CMD 2	/* int4: its command */
#define BUFFER_WEIGHT 3 /* int2: +1 new image, -1 old image, or the marker */
#define BUFFER_FIXED 3
#define WEIGHT_MARKER 0 /* what happened has no delta: TRUNCATE and the like */

/* Where their data is in a tuple, behind t_hoff. */
#define BUFFER_XID_OFFSET 0
#define BUFFER_CMD_OFFSET 8
#define BUFFER_WEIGHT_OFFSET 12

/* --- map.c: what a backend remembers, until an invalidation --- */

/* One captured column as a writer needs it. */
typedef struct CaptureColumn
{
	AttrNumber source_attnum; /* in the source */
	AttrNumber attnum;		  /* in the relation that changed; 0: has no such column */
	AttrNumber buffer_attnum;
	int16 length;
	bool by_value;
} CaptureColumn;

/* How rows of one relation are written to the buffer of one source. */
typedef struct CaptureMap
{
	Oid source_relid; /* root */
	PgtCaptureMethod method;
	Oid segment;  /* the active one */
	bool ignored; /* not a source any more, or not a member of its tree */
	bool unfit;	  /* types differ from the buffer's: only markers can be written */
	int ncolumns;
	CaptureColumn *columns;
	AttrNumber max_attnum; /* of columns[].attnum */
} CaptureMap;

/* What a reader knows of a source. */
typedef struct CaptureSource
{
	Oid relid; /* hash key */
	bool valid;
	bool touched; /* invalidated since it began to be read */
	bool checked; /* pgt_capture_broken found nothing */
	int64 source_id;
	PgtCaptureMethod method;
	Oid segments[PGT_SEGMENTS];
	int nmembers;
	Oid *members; /* in CacheMemoryContext */
} CaptureSource;

/*
 * Opens the active segment for writing rows of the relation, RowExclusiveLock
 * until the end of the transaction, and sets *map to how; NULL if there is
 * nothing to write to. The map stays as it is while no other code of ours runs.
 */
extern Relation pgt_capture_map_open(Oid relid, int64 source_id, const CaptureMap **map);
/* The same, with a copy of the map in the current memory context. */
extern Relation pgt_capture_map_open_copy(Oid relid, int64 source_id, CaptureMap **map);
/* NULL if the relation is not captured. */
extern CaptureSource *pgt_capture_map_source(Oid relid);
/* Relations that the relation is a partition of, or inherits from. */
extern List *pgt_capture_find_parents(Oid relid);
/* Attribute of the segment that holds the source's column, or InvalidAttrNumber. */
extern AttrNumber pgt_capture_map_attribute(TupleDesc segment, AttrNumber source_attnum);

/* --- row.c: writing --- */

typedef struct Appender
{
	Relation segment;
	const CaptureMap *map;
	MemoryContext context; /* of the rows not yet written */
	Size bytes;
	int nrows;
	int nslots;
	TupleTableSlot **slots;
	Datum *values;
	bool *nulls;
	FullTransactionId xid;
	CommandId cmd; /* of the rows not yet written */
	bool wrote;
} Appender;

/* The segment is open already; end closes it, keeping its lock. */
extern void pgt_capture_append_begin(Appender *appender, Relation segment, const CaptureMap *map);
/* One image; slot NULL and WEIGHT_MARKER write a marker. */
extern void pgt_capture_append(Appender *appender, TupleTableSlot *slot, int weight);
extern void pgt_capture_append_end(Appender *appender);
/* Writes a marker to the buffer of a source, whatever its method. */
extern void pgt_capture_append_marker(Oid source_relid, int64 source_id);

/* --- trigger.c: triggers in the database --- */

/* The relation and everything below it, by OID; locked. */
extern List *pgt_capture_find_tree(Oid relid, LOCKMODE lockmode);
/* What a statement on another relation can change without naming any of the tree is ROW. */
extern PgtCaptureMethod pgt_capture_find_method(List *tree);
/* What is wrong with the triggers of one member; NULL: nothing. */
extern const char *pgt_capture_check_triggers(Oid member, int64 source_id, PgtCaptureMethod method);
/* Makes the triggers that are missing or not as they should be; true if any was. */
extern bool pgt_capture_create_triggers(Oid member, int64 source_id, PgtCaptureMethod method);
extern void pgt_capture_drop_triggers(Oid member, int64 source_id);

/* --- buffer.c: segments in the database --- */

/* Creates what is missing, adds columns, replaces columns whose type has changed. */
extern void pgt_capture_create_segments(PgtSource *source, Bitmapset *columns);
extern void pgt_capture_drop_segments(int64 source_id);
/* Empties a segment that the caller has locked in AccessExclusiveLock. */
extern void pgt_capture_empty_segment(Oid segment);

/* --- scan.c: a segment, page by page --- */

typedef struct SegmentScan
{
	Relation segment;
	Snapshot snapshot; /* NULL: every tuple, visible or not */
	uint64 skip_below; /* tuples of older transactions are left out */
	BlockNumber block; /* next to read */
	BlockNumber nblocks;
	BufferAccessStrategy strategy;
	Buffer buffer;
	HeapTupleData tuple;
	int at;
	int noffsets;
	uint16 offsets[MaxHeapTuplesPerPage];
} SegmentScan;

extern void pgt_capture_scan_begin(SegmentScan *scan, Relation segment, BlockNumber start,
								   Snapshot snapshot, uint64 skip_below);
/* Valid until the next call; NULL at the end. */
extern HeapTuple pgt_capture_scan_next(SegmentScan *scan);
extern void pgt_capture_scan_end(SegmentScan *scan);

static inline uint64
pgt_capture_tuple_xid(HeapTuple tuple)
{
	return *(uint64 *) ((char *) tuple->t_data + tuple->t_data->t_hoff + BUFFER_XID_OFFSET);
}

static inline uint32
pgt_capture_tuple_cmd(HeapTuple tuple)
{
	return *(uint32 *) ((char *) tuple->t_data + tuple->t_data->t_hoff + BUFFER_CMD_OFFSET);
}

static inline int
pgt_capture_tuple_weight(HeapTuple tuple)
{
	return *(int16 *) ((char *) tuple->t_data + tuple->t_data->t_hoff + BUFFER_WEIGHT_OFFSET);
}

/*
 * The gate of a source: held in ShareLock by refreshes from before their
 * snapshot to the end of their transaction, in ExclusiveLock by whoever
 * empties segments.
 */
extern bool pgt_capture_lock_gate(Oid source_relid, LOCKMODE lockmode, bool wait);

#endif /* CAPTURE_INTERNAL_H */
