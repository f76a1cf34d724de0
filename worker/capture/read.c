/*
 * read.c: what changed between two frontiers.
 *
 * Owns the notes: facts of the form "a transaction whose id is not below N
 * writes no block below B of this segment", from which a reader with a frontier
 * past N knows that blocks below B hold nothing new (README.md has the
 * argument). They live in this backend only; without notes a read starts at
 * block 0 and is right as well.
 *
 * Locks: the gate of the source in ShareLock from pgt_capture_mark to the end
 * of the transaction, so that nobody empties a segment meanwhile; segments in
 * AccessShareLock while they are read. Toasted values are fetched here, so
 * that the result outlives the segment.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "capture_internal.h"
#include "pgt_capture.h"
#include "pgt_point.h"

#define NOTES 32
#define GATE_SUBID 0x7067 /* nobody else locks pg_class objects in this way */

typedef struct Note
{
	BlockNumber nblocks; /* blocks below nblocks - 1 ... */
	uint64 next_xid;	 /* ... are never written by this transaction or later ones */
} Note;

typedef struct SegmentNotes
{
	Oid segment; /* hash key */
	Oid file;	 /* relfilenode: emptying a segment changes it */
	int count;
	Note notes[NOTES]; /* both numbers ascend */
} SegmentNotes;

static HTAB *segment_notes = NULL;

/* --- the gate --- */

bool
pgt_capture_lock_gate(Oid source_relid, LOCKMODE lockmode, bool wait)
{
	LOCKTAG tag;

	/* A standby empties nothing itself; when the primary did, replay locks the segment. */
	if (RecoveryInProgress())
		return true;
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, source_relid, GATE_SUBID);
	return LockAcquire(&tag, lockmode, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

/* --- notes --- */

static SegmentNotes *
get_notes(Relation segment)
{
	SegmentNotes *entry;
	Oid relid = RelationGetRelid(segment);
	bool found;

	if (segment_notes == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(SegmentNotes)};

		segment_notes = hash_create("pg_trickle segment notes", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	entry = hash_search(segment_notes, &relid, HASH_ENTER, &found);
	if (!found || entry->file != segment->rd_rel->relfilenode)
	{
		entry->file = segment->rd_rel->relfilenode;
		entry->count = 0;
	}
	return entry;
}

/* Every second one goes: old readers keep a start that is not far off. */
static void
thin_out(SegmentNotes *entry)
{
	int kept = 0;

	for (int i = 1; i < entry->count; i += 2)
		entry->notes[kept++] = entry->notes[i];
	entry->count = kept;
}

/* nblocks: the length, read before. Whoever looked at an earlier one has an id below next_xid. */
static void
take_note(Relation segment, BlockNumber nblocks)
{
	SegmentNotes *entry = get_notes(segment);
	Note note = {.nblocks = nblocks};

	PGT_POINT("capture-length-read");
	pg_memory_barrier();
	note.next_xid = U64FromFullTransactionId(ReadNextFullTransactionId());

	if (entry->count > 0 && entry->notes[entry->count - 1].nblocks > note.nblocks)
		entry->count = 0; /* shortened by hand */
	if (note.nblocks < 2 ||
		(entry->count > 0 && entry->notes[entry->count - 1].nblocks == note.nblocks))
		return;
	if (entry->count == NOTES)
		thin_out(entry);
	entry->notes[entry->count++] = note;
}

/* First block that may hold something new for a reader that has seen all below xmin. */
static BlockNumber
find_start(Relation segment, uint64 xmin)
{
	SegmentNotes *entry = get_notes(segment);

	for (int i = entry->count - 1; i >= 0; i--)
	{
		if (entry->notes[i].next_xid <= xmin)
			return entry->notes[i].nblocks - 1;
	}
	return 0;
}

/*
 * A refresh inside of a statement that changes the source would see its rows
 * before they are captured, and apply them again later. The caller knows that
 * this transaction has written to the relation.
 */
static void
check_not_in_statement(Oid relid)
{
	Relation relation = table_open(relid, AccessShareLock);
	bool in_use;

	in_use = relation->rd_refcnt > 1;
	table_close(relation, NoLock);
	if (!in_use)
		in_use = DatumGetInt32(DirectFunctionCall1(pg_trigger_depth, (Datum) 0)) > 0 &&
				 AfterTriggerPendingOnRel(relid);
	if (in_use)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("cannot refresh while a statement of this session changes \"%s\"",
					get_rel_name(relid)),
			 errdetail("The statement's changes are captured when it ends."),
			 errhint(
				 "Refresh after the statement, not from a trigger or function that it calls.")));
}

void
pgt_capture_mark(Oid relid)
{
	CaptureSource *source = pgt_capture_map_source(relid);

	if (source == NULL)
		return;
	/* Only who has an id can have written. */
	for (int i = 0; i < source->nmembers && TransactionIdIsValid(GetTopTransactionIdIfAny()); i++)
	{
		if (CheckRelationOidLockedByMe(source->members[i], RowExclusiveLock, true))
			check_not_in_statement(source->members[i]);
	}
	(void) pgt_capture_lock_gate(relid, ShareLock, true);
	for (int i = 0; i < PGT_SEGMENTS; i++)
	{
		Relation segment;

		if (!OidIsValid(source->segments[i]))
			continue;
		segment = table_open(source->segments[i], AccessShareLock);
		take_note(segment, RelationGetNumberOfBlocks(segment));
		table_close(segment, AccessShareLock);
	}
}

/* --- reading --- */

/* What a read looks for, and the columns of one segment in it. */
typedef struct Reader
{
	const PgtFrontier *from;
	const PgtFrontier *to;
	uint64 from_xmin;
	uint64 to_xmin;
	uint64 last_xid; /* whose answer is remembered, if last_known */
	uint32 last_cmd;
	bool last_known;
	bool last_wanted;
	PgtChangeSet *changes;
	MemoryContext row_context; /* fetched toast; reset now and then */
	Datum *values;			   /* of a row of the change set */
	bool *nulls;
	AttrNumber *attributes; /* in the segment, by column of the change set */
	Datum *segment_values;
	bool *segment_nulls;
} Reader;

static bool
decide_wanted(const Reader *reader, uint64 xid, uint32 cmd)
{
	FullTransactionId full = FullTransactionIdFromU64(xid);

	if (xid >= reader->from_xmin && !pgt_frontier_contains(reader->from, full, cmd))
		return xid < reader->to_xmin || pgt_frontier_contains(reader->to, full, cmd);
	return false;
}

/* Rows of one transaction and command come in runs. */
static inline bool
is_wanted(Reader *reader, uint64 xid, uint32 cmd)
{
	if (!reader->last_known || reader->last_xid != xid || reader->last_cmd != cmd)
	{
		reader->last_wanted = decide_wanted(reader, xid, cmd);
		reader->last_xid = xid;
		reader->last_cmd = cmd;
		reader->last_known = true;
	}
	return reader->last_wanted;
}

static void
add_row(Reader *reader, TupleDesc segment, HeapTuple tuple, int weight)
{
	PgtChangeSet *changes = reader->changes;

	heap_deform_tuple(tuple, segment, reader->segment_values, reader->segment_nulls);
	reader->values[0] = Int32GetDatum(weight);
	for (int i = 0; i < changes->ncolumns; i++)
	{
		int at = reader->attributes[i] - 1;
		Datum value = reader->segment_values[at];

		reader->nulls[i + 1] = reader->segment_nulls[at];
		if (!reader->segment_nulls[at] && TupleDescAttr(segment, at)->attlen == -1 &&
			VARATT_IS_EXTERNAL(DatumGetPointer(value)))
		{
			MemoryContext old = MemoryContextSwitchTo(reader->row_context);

			value = PointerGetDatum(
				detoast_external_attr((struct varlena *) DatumGetPointer(value)));
			MemoryContextSwitchTo(old);
		}
		reader->values[i + 1] = value;
	}
	tuplestore_putvalues(changes->rows, changes->desc, reader->values, reader->nulls);
	MemoryContextReset(reader->row_context);
	changes->nrows++;
}

static void
find_attributes(Reader *reader, TupleDesc segment)
{
	PgtChangeSet *changes = reader->changes;

	for (int i = 0; i < changes->ncolumns; i++)
	{
		reader->attributes[i] = pgt_capture_map_attribute(segment, changes->attnums[i]);
		if (reader->attributes[i] == InvalidAttrNumber)
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("column \"%s\" of \"%s\" is not captured",
								   get_attname(changes->relid, changes->attnums[i], false),
								   get_rel_name(changes->relid)),
							errhint("Refresh the stream table with mode => 'FULL'.")));
	}
	reader->segment_values = palloc(sizeof(Datum) * segment->natts);
	reader->segment_nulls = palloc(sizeof(bool) * segment->natts);
}

static void
read_segment(Reader *reader, Oid relid, Snapshot snapshot)
{
	Relation segment = table_open(relid, AccessShareLock);
	TupleDesc desc = RelationGetDescr(segment);
	SegmentScan scan;
	HeapTuple tuple;

	find_attributes(reader, desc);
	pgt_capture_scan_begin(&scan, segment, find_start(segment, reader->from_xmin), snapshot,
						   reader->from_xmin);
	while ((tuple = pgt_capture_scan_next(&scan)) != NULL)
	{
		int weight;

		if (!is_wanted(reader, pgt_capture_tuple_xid(tuple), pgt_capture_tuple_cmd(tuple)))
			continue;
		weight = pgt_capture_tuple_weight(tuple);
		if (weight != WEIGHT_MARKER)
			add_row(reader, desc, tuple, weight);
		else
		{
			reader->changes->truncated = true;
			break;
		}
	}
	pgt_capture_scan_end(&scan);
	table_close(segment, AccessShareLock);
}

/* The columns that the first segment captures, restricted to those wanted. */
static void
choose_columns(PgtChangeSet *changes, Relation relation, Oid segment_relid, Bitmapset *columns)
{
	TupleDesc desc = RelationGetDescr(relation);
	Relation segment = table_open(segment_relid, AccessShareLock);

	changes->attnums = palloc(sizeof(AttrNumber) * Max(desc->natts, 1));
	for (AttrNumber attnum = 1; attnum <= desc->natts; attnum++)
	{
		bool wanted = columns != NULL ? bms_is_member(attnum, columns)
									  : pgt_capture_map_attribute(RelationGetDescr(segment),
																  attnum) != InvalidAttrNumber;

		if (wanted && !TupleDescAttr(desc, attnum - 1)->attisdropped)
			changes->attnums[changes->ncolumns++] = attnum;
	}
	table_close(segment, AccessShareLock);

	changes->desc = CreateTemplateTupleDesc(changes->ncolumns + 1);
	TupleDescInitEntry(changes->desc, 1, PGT_WEIGHT_COLUMN, INT4OID, -1, 0);
	for (int i = 0; i < changes->ncolumns; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, changes->attnums[i] - 1);

		TupleDescInitEntry(changes->desc, i + 2, NameStr(att->attname), att->atttypid,
						   att->atttypmod, att->attndims);
		TupleDescInitEntryCollation(changes->desc, i + 2, att->attcollation);
	}
}

static void
init_reader(Reader *reader, PgtChangeSet *changes, const PgtFrontier *from, const PgtFrontier *to)
{
	memset(reader, 0, sizeof(Reader));
	reader->changes = changes;
	reader->from = from;
	reader->to = to;
	reader->from_xmin = U64FromFullTransactionId(pgt_frontier_xmin(from));
	reader->to_xmin = U64FromFullTransactionId(pgt_frontier_xmin(to));
	reader->values = palloc(sizeof(Datum) * (changes->ncolumns + 1));
	reader->nulls = palloc0(sizeof(bool) * (changes->ncolumns + 1));
	reader->attributes = palloc(sizeof(AttrNumber) * Max(changes->ncolumns, 1));
	reader->row_context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle change row",
												ALLOCSET_DEFAULT_SIZES);
}

PgtChangeSet *
pgt_capture_read(Oid relid, Bitmapset *columns, const PgtFrontier *from, const PgtFrontier *to,
				 Snapshot snapshot)
{
	CaptureSource *source = pgt_capture_map_source(relid);
	PgtChangeSet *changes = palloc0(sizeof(PgtChangeSet));
	SnapshotData visible = *snapshot;
	Oid segments[PGT_SEGMENTS];
	Relation relation;
	Reader reader;

	if (source == NULL || !OidIsValid(source->segments[0]) || !OidIsValid(source->segments[1]))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("changes of \"%s\" are not captured", get_rel_name(relid)),
						errhint("Refresh the stream table with mode => 'FULL'.")));
	memcpy(segments, source->segments, sizeof(segments));
	(void) pgt_capture_lock_gate(relid, ShareLock, true);

	relation = table_open(relid, AccessShareLock);
	changes->relid = relid;
	choose_columns(changes, relation, segments[0], columns);
	/* A plan may scan it several times, also after it went to disk. */
	changes->rows = tuplestore_begin_heap(true, false, work_mem);
	init_reader(&reader, changes, from, to);

	/* Own rows: exactly those of commands that `to` contains. */
	if (FullTransactionIdIsValid(to->own_xid) && to->own_cmd >= 0)
		visible.curcid = Max(visible.curcid, (CommandId) to->own_cmd + 1);
	for (int i = 0; i < PGT_SEGMENTS && !changes->truncated; i++)
		read_segment(&reader, segments[i], &visible);

	MemoryContextDelete(reader.row_context);
	table_close(relation, NoLock);
	return changes;
}

/* Rows of transactions below xmin that finished are judged once and for all by the caller. */
static bool
segment_has_news(Oid relid, const PgtFrontier *from, const PgtFrontier *to, uint64 xmin,
				 Snapshot snapshot)
{
	Relation segment = table_open(relid, AccessShareLock);
	SegmentScan scan;
	HeapTuple tuple;
	bool news = false;

	pgt_capture_scan_begin(&scan, segment, find_start(segment, xmin), snapshot, xmin);
	while (!news && (tuple = pgt_capture_scan_next(&scan)) != NULL)
	{
		FullTransactionId xid = FullTransactionIdFromU64(pgt_capture_tuple_xid(tuple));
		uint32 cmd = pgt_capture_tuple_cmd(tuple);

		news = !pgt_frontier_contains(from, xid, cmd) &&
			   (to == NULL || pgt_frontier_contains(to, xid, cmd));
	}
	pgt_capture_scan_end(&scan);
	take_note(segment, scan.nblocks); /* the next look begins where this one ended */
	table_close(segment, AccessShareLock);
	return news;
}

bool
pgt_capture_has_news(Oid relid, const PgtFrontier *from, const PgtFrontier *to, uint64 looked_xmin,
					 Snapshot snapshot)
{
	CaptureSource *source = pgt_capture_map_source(relid);
	uint64 xmin = Max(looked_xmin, U64FromFullTransactionId(pgt_frontier_xmin(from)));

	for (int i = 0; source != NULL && i < PGT_SEGMENTS; i++)
		if (OidIsValid(source->segments[i]) &&
			segment_has_news(source->segments[i], from, to, xmin, snapshot))
			return true;
	return false;
}

void
pgt_capture_free(PgtChangeSet *changes)
{
	tuplestore_end(changes->rows);
	FreeTupleDesc(changes->desc);
	pfree(changes->attnums);
	pfree(changes);
}

/* --- size --- */

void
pgt_capture_buffer_size(Oid relid, int64 limit, int64 *rows, int64 *bytes)
{
	CaptureSource *source = pgt_capture_map_source(relid);

	*rows = *bytes = 0;
	for (int i = 0; source != NULL && i < PGT_SEGMENTS; i++)
	{
		Relation segment;
		SegmentScan scan;

		if (!OidIsValid(source->segments[i]))
			continue;
		segment = table_open(source->segments[i], AccessShareLock);
		*bytes += DatumGetInt64(
			DirectFunctionCall1(pg_total_relation_size, ObjectIdGetDatum(source->segments[i])));
		pgt_capture_scan_begin(&scan, segment, 0, NULL, 0);
		while ((limit < 0 || *rows < limit) && pgt_capture_scan_next(&scan) != NULL)
			(*rows)++;
		pgt_capture_scan_end(&scan);
		table_close(segment, AccessShareLock);
	}
}
