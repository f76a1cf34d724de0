/*
 * row.c: from rows that change to rows of a buffer. The path that every
 * writer pays for; no SPI, no rights, no code of users.
 *
 * Owns the three trigger functions and the Appender, which the refresh uses
 * through PgtCaptureWriter. Relies on map.c for where to write and how.
 * Locks: RowExclusiveLock on the active segment until the end of the
 * transaction. Memory: a child of the context at pgt_capture_append_begin,
 * reset whenever a batch was written.
 *
 * Where rows go in a segment matters for readers, see README.md: the
 * transaction has its id before we look for a page, and we look only at the
 * last page or extend the file (no free space map, no remembered page).
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/xid8.h"

#include "capture_internal.h"
#include "pgt_capture.h"
#include "pgt_point.h"
#include "pgt_wake.h"

#define BATCH_ROWS 500
#define BATCH_BYTES (256 * 1024)
#define INSERT_OPTIONS TABLE_INSERT_SKIP_FSM

extern PGDLLEXPORT Datum pgt_capture_statement(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum pgt_capture_row(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum pgt_capture_truncate(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(pgt_capture_statement);
PG_FUNCTION_INFO_V1(pgt_capture_row);
PG_FUNCTION_INFO_V1(pgt_capture_truncate);

/* --- the appender --- */

void
pgt_capture_append_begin(Appender *appender, Relation segment, const CaptureMap *map)
{
	int natts = RelationGetDescr(segment)->natts;

	memset(appender, 0, sizeof(Appender));
	appender->segment = segment;
	appender->map = map;
	/* Before anybody looks for a page: see README.md. */
	appender->xid = GetTopFullTransactionId();
	PGT_POINT("capture-xid-assigned");
	appender->context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle captured rows",
											  ALLOCSET_DEFAULT_SIZES);
	appender->values = palloc(natts * sizeof(Datum));
	appender->nulls = palloc(natts * sizeof(bool));
	memset(appender->nulls, true, natts);
	memset(appender->values, 0, natts * sizeof(Datum));
	/* What an earlier command of this backend remembered may be far from the end. */
	RelationSetTargetBlock(segment, InvalidBlockNumber);
}

static void
write_batch(Appender *appender)
{
	MemoryContext old;

	if (appender->nrows == 0)
		return;
	/* It leaves some memory behind, per call and per toasted row. */
	old = MemoryContextSwitchTo(appender->context);
	table_multi_insert(appender->segment, appender->slots, appender->nrows, appender->cmd,
					   INSERT_OPTIONS, NULL);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < appender->nrows; i++)
		ExecClearTuple(appender->slots[i]);
	MemoryContextReset(appender->context);
	appender->nrows = 0;
	appender->bytes = 0;
	PGT_POINT("capture-batch-written");
}

/* Room for one more row; slots are made as they are needed, most statements change one row. */
static TupleTableSlot *
get_free_slot(Appender *appender)
{
	if (appender->nrows >= BATCH_ROWS || appender->bytes >= BATCH_BYTES)
		write_batch(appender);
	if (appender->slots == NULL)
		appender->slots = palloc(sizeof(TupleTableSlot *) * BATCH_ROWS);
	if (appender->nrows == appender->nslots)
		appender->slots[appender->nslots++] = MakeSingleTupleTableSlot(
			RelationGetDescr(appender->segment), &TTSOpsHeapTuple);
	return appender->slots[appender->nrows];
}

void
pgt_capture_append(Appender *appender, TupleTableSlot *slot, int weight)
{
	const CaptureMap *map = appender->map;
	CommandId cmd = GetCurrentCommandId(true);
	TupleTableSlot *target;
	Datum *values = appender->values;
	bool *nulls = appender->nulls;
	MemoryContext old;
	HeapTuple tuple;

	/* The command in the row and that of the tuple itself are one. */
	if (cmd != appender->cmd)
		write_batch(appender);
	appender->cmd = cmd;
	target = get_free_slot(appender);
	values[BUFFER_XID - 1] = FullTransactionIdGetDatum(appender->xid);
	values[BUFFER_CMD - 1] = Int32GetDatum((int32) cmd);
	values[BUFFER_WEIGHT - 1] = Int16GetDatum((int16) weight);
	nulls[BUFFER_XID - 1] = nulls[BUFFER_CMD - 1] = nulls[BUFFER_WEIGHT - 1] = false;
	for (int i = 0; i < map->ncolumns; i++)
	{
		const CaptureColumn *column = &map->columns[i];
		int at = column->buffer_attnum - 1;

		nulls[at] = slot == NULL || slot->tts_isnull[column->attnum - 1];
		if (!nulls[at])
			values[at] = slot->tts_values[column->attnum - 1];
	}
	old = MemoryContextSwitchTo(appender->context);
	tuple = heap_form_tuple(RelationGetDescr(appender->segment), values, nulls);
	/* The slot's own, else heap_multi_insert makes a copy of it. */
	ExecStoreHeapTuple(tuple, target, true);
	MemoryContextSwitchTo(old);
	appender->bytes += tuple->t_len;
	appender->nrows++;
	appender->wrote = true;
}

void
pgt_capture_append_end(Appender *appender)
{
	write_batch(appender);
	for (int i = 0; i < appender->nslots; i++)
		ExecDropSingleTupleTableSlot(appender->slots[i]);
	MemoryContextDelete(appender->context);
	table_close(appender->segment, NoLock);
	if (appender->wrote)
		pgt_wake_source(appender->map->source_relid);
}

void
pgt_capture_append_marker(Oid source_relid, int64 source_id)
{
	const CaptureMap *map;
	Relation segment = pgt_capture_map_open(source_relid, source_id, &map);
	Appender appender;

	if (segment == NULL)
		return;
	pgt_capture_append_begin(&appender, segment, map);
	pgt_capture_append(&appender, NULL, WEIGHT_MARKER);
	pgt_capture_append_end(&appender);
}

/* --- what statements and rows do --- */

/* Fetches the captured columns of a row. */
static inline void
fetch_columns(const CaptureMap *map, TupleTableSlot *slot)
{
	if (map->max_attnum > 0)
		slot_getsomeattrs(slot, map->max_attnum);
}

/* Do both rows have the same bytes in every captured column? */
static bool
images_are_equal(const CaptureMap *map, TupleTableSlot *old, TupleTableSlot *new)
{
	for (int i = 0; i < map->ncolumns; i++)
	{
		const CaptureColumn *column = &map->columns[i];
		int at = column->attnum - 1;

		if (old->tts_isnull[at] != new->tts_isnull[at])
			return false;
		if (old->tts_isnull[at])
			continue;
		if (column->by_value)
		{
			if (old->tts_values[at] != new->tts_values[at])
				return false;
		}
		else if (!datum_image_eq(old->tts_values[at], new->tts_values[at], false, column->length))
			return false;
	}
	return true;
}

static bool
next_row(Tuplestorestate *rows, TupleTableSlot *slot)
{
	return tuplestore_gettupleslot(rows, true, false, slot);
}

static void
rewind_rows(Tuplestorestate *rows)
{
	tuplestore_select_read_pointer(rows, 0);
	tuplestore_rescan(rows);
}

static void
append_all(Appender *appender, Tuplestorestate *rows, TupleTableSlot *slot, int weight)
{
	rewind_rows(rows);
	while (next_row(rows, slot))
	{
		fetch_columns(appender->map, slot);
		pgt_capture_append(appender, slot, weight);
	}
}

/*
 * Old and new images come in the same order, with gaps where a trigger
 * swallowed a row that moved between partitions. Leaving out a pair of equal
 * images is right even if they belong to different rows: it adds up to nothing.
 */
static void
append_updates(Appender *appender, Tuplestorestate *old_rows, Tuplestorestate *new_rows,
			   TupleTableSlot *old, TupleTableSlot *new)
{
	bool have_old;
	bool have_new;

	rewind_rows(old_rows);
	rewind_rows(new_rows);
	for (;;)
	{
		have_old = next_row(old_rows, old);
		have_new = next_row(new_rows, new);
		if (!have_old && !have_new)
			break;
		if (have_old)
			fetch_columns(appender->map, old);
		if (have_new)
			fetch_columns(appender->map, new);
		if (have_old && have_new && images_are_equal(appender->map, old, new))
			continue;
		if (have_old)
			pgt_capture_append(appender, old, -1);
		if (have_new)
			pgt_capture_append(appender, new, +1);
	}
}

static void
capture_statement(TriggerData *trigger, Relation segment, const CaptureMap *map)
{
	TupleDesc desc = RelationGetDescr(trigger->tg_relation);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	TupleTableSlot *other = NULL;
	Appender appender;

	if (map->unfit)
	{
		pgt_capture_append_begin(&appender, segment, map);
		pgt_capture_append(&appender, NULL, WEIGHT_MARKER);
		pgt_capture_append_end(&appender);
	}
	else if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		other = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
		pgt_capture_append_begin(&appender, segment, map);
		append_updates(&appender, trigger->tg_oldtable, trigger->tg_newtable, slot, other);
		pgt_capture_append_end(&appender);
		ExecDropSingleTupleTableSlot(other);
	}
	else
	{
		pgt_capture_append_begin(&appender, segment, map);
		if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
			append_all(&appender, trigger->tg_newtable, slot, +1);
		else
			append_all(&appender, trigger->tg_oldtable, slot, -1);
		pgt_capture_append_end(&appender);
	}
	ExecDropSingleTupleTableSlot(slot);
}

static void
capture_row(TriggerData *trigger, Relation segment, const CaptureMap *map)
{
	bool is_update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	TupleTableSlot *old = TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? NULL : trigger->tg_trigslot;
	TupleTableSlot *new = is_update									   ? trigger->tg_newslot
						  : TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? trigger->tg_trigslot
																	   : NULL;
	Appender appender;

	if (old != NULL)
		fetch_columns(map, old);
	if (new != NULL)
		fetch_columns(map, new);
	if (is_update && !map->unfit && images_are_equal(map, old, new))
	{
		table_close(segment, NoLock);
		return;
	}
	pgt_capture_append_begin(&appender, segment, map);
	if (map->unfit)
		pgt_capture_append(&appender, NULL, WEIGHT_MARKER);
	else
	{
		if (old != NULL)
			pgt_capture_append(&appender, old, -1);
		if (new != NULL)
			pgt_capture_append(&appender, new, +1);
	}
	pgt_capture_append_end(&appender);
}

/* --- the trigger functions; their argument is the source_id --- */

static TriggerData *
get_trigger(FunctionCallInfo fcinfo, TriggerEvent what, int64 *source_id)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		(trigger->tg_event & TRIGGER_EVENT_ROW) != what || trigger->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function is called by the capture triggers of pg_trickle only")));
	*source_id = strtoll(trigger->tg_trigger->tgargs[0], NULL, 10);
	return trigger;
}

static bool
in_replica_role(void)
{
	return SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA;
}

static bool
is_empty(Tuplestorestate *rows)
{
	return rows == NULL || tuplestore_tuple_count(rows) == 0;
}

Datum
pgt_capture_statement(PG_FUNCTION_ARGS)
{
	int64 source_id;
	TriggerData *trigger = get_trigger(fcinfo, 0, &source_id);
	const CaptureMap *map;
	Relation segment;

	/* In replica role the row trigger writes, whatever ALTER TABLE made of the two. */
	if (in_replica_role() || (is_empty(trigger->tg_oldtable) && is_empty(trigger->tg_newtable)))
		PG_RETURN_POINTER(NULL);
	segment = pgt_capture_map_open(RelationGetRelid(trigger->tg_relation), source_id, &map);
	if (segment == NULL)
		PG_RETURN_POINTER(NULL);
	if (map->method == PGT_CAPTURE_STATEMENT)
		capture_statement(trigger, segment, map);
	else
		table_close(segment, NoLock);
	PG_RETURN_POINTER(NULL);
}

Datum
pgt_capture_row(PG_FUNCTION_ARGS)
{
	int64 source_id;
	TriggerData *trigger = get_trigger(fcinfo, TRIGGER_EVENT_ROW, &source_id);
	const CaptureMap *map;
	Relation segment;

	segment = pgt_capture_map_open(RelationGetRelid(trigger->tg_relation), source_id, &map);
	if (segment == NULL)
		PG_RETURN_POINTER(NULL);
	if (map->method == PGT_CAPTURE_ROW || in_replica_role())
		capture_row(trigger, segment, map);
	else
		table_close(segment, NoLock);
	PG_RETURN_POINTER(NULL);
}

Datum
pgt_capture_truncate(PG_FUNCTION_ARGS)
{
	int64 source_id;
	TriggerData *trigger = get_trigger(fcinfo, 0, &source_id);
	const CaptureMap *map;
	Relation segment;
	Appender appender;

	segment = pgt_capture_map_open(RelationGetRelid(trigger->tg_relation), source_id, &map);
	if (segment == NULL)
		PG_RETURN_POINTER(NULL);
	pgt_capture_append_begin(&appender, segment, map);
	pgt_capture_append(&appender, NULL, WEIGHT_MARKER);
	pgt_capture_append_end(&appender);
	PG_RETURN_POINTER(NULL);
}

/* --- the refresh of a stream table that others read --- */

struct PgtCaptureWriter
{
	Appender appender;
	bool begun; /* only with the first row: a refresh that finds no change takes no xid */
	MemoryContext context;
	Relation segment;
	CaptureMap *map;
};

PgtCaptureWriter *
pgt_capture_writer_begin(Relation relation)
{
	CaptureSource *source = pgt_capture_map_source(RelationGetRelid(relation));
	PgtCaptureWriter *writer;
	Relation segment;

	if (source == NULL || source->method != PGT_CAPTURE_REFRESH)
		return NULL;
	writer = palloc(sizeof(PgtCaptureWriter));
	segment = pgt_capture_map_open_copy(RelationGetRelid(relation), source->source_id,
										&writer->map);
	if (segment == NULL)
		return NULL;
	writer->begun = false;
	writer->context = CurrentMemoryContext;
	writer->segment = segment;
	return writer;
}

void
pgt_capture_writer_add(PgtCaptureWriter *writer, TupleTableSlot *row, int weight)
{
	if (writer == NULL)
		return;
	if (!writer->begun)
	{
		MemoryContext old = MemoryContextSwitchTo(writer->context);

		pgt_capture_append_begin(&writer->appender, writer->segment, writer->map);
		writer->begun = true;
		MemoryContextSwitchTo(old);
	}
	if (!writer->map->unfit)
	{
		fetch_columns(writer->map, row);
		pgt_capture_append(&writer->appender, row, weight);
	}
	else if (!writer->appender.wrote)
		pgt_capture_append(&writer->appender, NULL, WEIGHT_MARKER);
}

void
pgt_capture_writer_end(PgtCaptureWriter *writer)
{
	if (writer == NULL)
		return;
	if (writer->begun)
		pgt_capture_append_end(&writer->appender);
	else
		table_close(writer->segment, NoLock);
	pfree(writer);
}
