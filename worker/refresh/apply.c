/*
 * apply.c: finding, inserting, updating and deleting rows of a stored table.
 *
 * Everything goes through the executor, as logical replication's apply does:
 * row triggers, constraints and indexes as always, statement triggers not (so
 * the guard against users' writes costs nothing and does not stop us; the one for
 * rows is left out). What
 * was really changed is remembered for later stages and written down for
 * downstream stream tables.
 *
 * Look-ups use a snapshot taken at the beginning that sees everything this
 * transaction has written before; a row written since is never looked up again,
 * because every key is handled once. The caller holds the refresh lock.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/snapmgr.h"

#include "pgt_compat.h"
#include "pgt_image.h"

#include "refresh_internal.h"

#define BULK_ROWS 500

/* Columns of Apply.waiting before those of the table. */
#define WAITING_TID 0	/* of the row to update, or null */
#define WAITING_SPLIT 1 /* the row to update is deleted already */
#define WAITING_COLUMNS 2

/*
 * The guard of rows is for others. The executor's copy of the triggers is ours
 * to change; without row triggers it does not even lock rows before it writes.
 */
static void
leave_out_guard(ResultRelInfo *result)
{
	TriggerDesc *desc = result->ri_TrigDesc;
	int kept = 0;

	if (desc == NULL)
		return;
	desc->trig_insert_before_row = false;
	desc->trig_update_before_row = false;
	desc->trig_delete_before_row = false;
	for (int i = 0; i < desc->numtriggers; i++)
	{
		Trigger *trigger = &desc->triggers[i];

		if (strcmp(trigger->tgname, PGT_APPLY_GUARD_TRIGGER) == 0)
			continue;
		if (TRIGGER_FOR_ROW(trigger->tgtype) && TRIGGER_FOR_BEFORE(trigger->tgtype))
		{
			desc->trig_insert_before_row |= TRIGGER_FOR_INSERT(trigger->tgtype) != 0;
			desc->trig_update_before_row |= TRIGGER_FOR_UPDATE(trigger->tgtype) != 0;
			desc->trig_delete_before_row |= TRIGGER_FOR_DELETE(trigger->tgtype) != 0;
		}
		desc->triggers[kept++] = *trigger;
	}
	desc->numtriggers = kept;
}

static void
open_result(Apply *apply)
{
	apply->estate = CreateExecutorState();
	apply->result = pgt_compat_init_result_relation(apply->estate, apply->relation);
	leave_out_guard(apply->result);
	ExecOpenIndices(apply->result, false);
	pgt_compat_init_recheck(&apply->epq, apply->estate);
	AfterTriggerBeginQuery();
}

Apply *
pgt_apply_begin(Oid relid, const PgtStage *stage, bool is_state)
{
	Apply *apply = palloc0(sizeof(Apply));
	TupleDesc desc;

	apply->context = CurrentMemoryContext;
	/* What this transaction has written so far shall be found. */
	CommandCounterIncrement();
	apply->relation = table_open(relid, RowExclusiveLock);
	apply->purpose = RelationGetRelationName(apply->relation);
	apply->info = is_state ? pgt_target_get_state(apply->relation, stage)
						   : pgt_target_get_stage(apply->relation, stage);
	desc = RelationGetDescr(apply->relation);
	apply->snapshot = RegisterSnapshot(GetLatestSnapshot());
	apply->old = table_slot_create(apply->relation, NULL);
	apply->row = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	open_result(apply);
	if (OidIsValid(apply->info->index_relid))
	{
		int nkeys = apply->info->by_hash ? 1 : Max(apply->info->nkeys, 1);

		apply->index = index_open(apply->info->index_relid, RowExclusiveLock);
		apply->scankeys = palloc(sizeof(ScanKeyData) * nkeys);
		memcpy(apply->scankeys, apply->info->scankeys, sizeof(ScanKeyData) * nkeys);
		/* What an operator remembers between calls (record_eq does) lives as long as we do. */
		for (int i = 0; i < nkeys; i++)
		{
			apply->scankeys[i].sk_func.fn_mcxt = CurrentMemoryContext;
			apply->scankeys[i].sk_func.fn_extra = NULL;
		}
		apply->scan = pgt_compat_begin_index_scan(apply->relation, apply->index, apply->snapshot,
												  nkeys);
	}
	return apply;
}

/* ---- Finding ---- */

static void
require_index(Apply *apply)
{
	if (apply->index == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the index that identifies the rows of \"%s\" is missing", apply->purpose),
			 errhint(
				 "Refresh the stream table: the index is made again before its rows are computed.")));
}

bool
pgt_apply_find_first(Apply *apply)
{
	TableScanDesc scan = table_beginscan(apply->relation, apply->snapshot, 0, NULL);
	bool found = table_scan_getnextslot(scan, ForwardScanDirection, apply->old);

	/* The slot points into the scan. */
	if (found)
		ExecMaterializeSlot(apply->old);
	table_endscan(scan);
	return found;
}

static bool
has_key(Apply *apply, Datum *values, bool *isnull)
{
	for (int i = 0; i < apply->info->nkeys; i++)
	{
		KeyColumn *column = &apply->info->keys[i];
		bool old_isnull;
		Datum old = slot_getattr(apply->old, column->attnum, &old_isnull);

		if (old_isnull != isnull[i])
			return false;
		if (!old_isnull &&
			!DatumGetBool(FunctionCall2Coll(&column->eq, column->collation, old, values[i])))
			return false;
	}
	return true;
}

static bool
find_by_hash(Apply *apply, Datum *values, bool *isnull)
{
	HeapTuple key = heap_form_tuple(apply->info->key_desc, values, isnull);

	apply->scankeys[0].sk_argument = FunctionCall2Coll(&apply->info->key_hash, InvalidOid,
													   HeapTupleGetDatum(key), Int64GetDatum(0));
	heap_freetuple(key);
	index_rescan(apply->scan, apply->scankeys, 1, NULL, 0);
	while (index_getnext_slot(apply->scan, ForwardScanDirection, apply->old))
		if (has_key(apply, values, isnull))
			return true;
	return false;
}

bool
pgt_apply_find(Apply *apply, Datum *values, bool *isnull)
{
	if (apply->info->identity == PGT_IDENTITY_SINGLE)
		return pgt_apply_find_first(apply);
	require_index(apply);
	if (apply->info->by_hash)
		return find_by_hash(apply, values, isnull);
	for (int i = 0; i < apply->info->nkeys; i++)
	{
		ScanKey key = &apply->scankeys[i];

		key->sk_flags = isnull[i] ? SK_ISNULL | SK_SEARCHNULL : 0;
		key->sk_argument = isnull[i] ? (Datum) 0 : values[i];
	}
	index_rescan(apply->scan, apply->scankeys, apply->info->nkeys, NULL, 0);
	return index_getnext_slot(apply->scan, ForwardScanDirection, apply->old);
}

void
pgt_apply_begin_image(Apply *apply, uint64 hash)
{
	require_index(apply);
	apply->scankeys[0].sk_argument = Int64GetDatum((int64) hash);
	index_rescan(apply->scan, apply->scankeys, 1, NULL, 0);
}

bool
pgt_apply_next_image(Apply *apply, Datum *values, bool *isnull)
{
	while (index_getnext_slot(apply->scan, ForwardScanDirection, apply->old))
	{
		slot_getallattrs(apply->old);
		if (pgt_image_equal(RelationGetDescr(apply->relation), apply->old->tts_values,
							apply->old->tts_isnull, values, isnull))
			return true;
	}
	return false;
}

bool
pgt_apply_fetch(Apply *apply, ItemPointer tid)
{
	return table_tuple_fetch_row_version(apply->relation, tid, SnapshotAny, apply->old);
}

/* The row at tid is only updated or deleted, nobody looks at its old values. */
void
pgt_apply_point_at(Apply *apply, ItemPointer tid)
{
	ExecClearTuple(apply->old);
	apply->old->tts_tid = *tid;
}

bool
pgt_apply_same_image(Apply *apply, TupleTableSlot *row)
{
	slot_getallattrs(apply->old);
	slot_getallattrs(row);
	return pgt_image_equal(RelationGetDescr(apply->relation), apply->old->tts_values,
						   apply->old->tts_isnull, row->tts_values, row->tts_isnull);
}

/*
 * Rows are taken over by position, without a look at their types: make sure
 * that these are the table's. first: columns before them.
 */
void
pgt_apply_check_rows(Apply *apply, TupleDesc rows, int first)
{
	TupleDesc desc = RelationGetDescr(apply->relation);
	bool same = rows->natts - first == desc->natts;

	for (int i = 0; i < desc->natts && same; i++)
		same = TupleDescAttr(desc, i)->atttypid == TupleDescAttr(rows, i + first)->atttypid;
	if (!same)
		elog(ERROR, "rows for \"%s\" have columns of other types", apply->purpose);
}

/* The same for keys alone. */
void
pgt_apply_check_keys(Apply *apply, TupleDesc rows, int first)
{
	bool same = rows->natts - first >= apply->info->nkeys;

	for (int i = 0; i < apply->info->nkeys && same; i++)
		same = apply->info->keys[i].type == TupleDescAttr(rows, i + first)->atttypid;
	if (!same)
		elog(ERROR, "keys for \"%s\" have other types", apply->purpose);
}

/* The columns of source from first on (0-based) become apply->row. */
TupleTableSlot *
pgt_apply_fill(Apply *apply, TupleTableSlot *source, int first)
{
	int natts = RelationGetDescr(apply->relation)->natts;

	slot_getallattrs(source);
	Assert(source->tts_tupleDescriptor->natts - first == natts);
	ExecClearTuple(apply->row);
	memcpy(apply->row->tts_values, source->tts_values + first, sizeof(Datum) * natts);
	memcpy(apply->row->tts_isnull, source->tts_isnull + first, sizeof(bool) * natts);
	return ExecStoreVirtualTuple(apply->row);
}

/* The same for a tuple whose shape scratch has. */
TupleTableSlot *
pgt_apply_fill_tuple(Apply *apply, MinimalTuple tuple, TupleTableSlot *scratch, int first)
{
	ExecStoreMinimalTuple(tuple, scratch, false);
	return pgt_apply_fill(apply, scratch, first);
}

/* ---- The effective delta ---- */

PgtChangeSet *
pgt_apply_make_changes(Relation relation)
{
	TupleDesc table_desc = RelationGetDescr(relation);
	int natts = table_desc->natts;
	PgtChangeSet *effect = palloc0(sizeof(PgtChangeSet));

	effect->relid = RelationGetRelid(relation);
	effect->ncolumns = natts;
	effect->desc = CreateTemplateTupleDesc(natts + 1);
	effect->attnums = palloc(sizeof(AttrNumber) * Max(natts, 1));
	TupleDescInitEntry(effect->desc, 1, PGT_WEIGHT_COLUMN, INT4OID, -1, 0);
	for (int i = 0; i < natts; i++)
	{
		TupleDescCopyEntry(effect->desc, i + 2, table_desc, i + 1);
		effect->attnums[i] = i + 1;
	}
	effect->rows = tuplestore_begin_heap(true, false, work_mem);
	return effect;
}

void
pgt_apply_collect(Apply *apply)
{
	int natts = RelationGetDescr(apply->relation)->natts;

	apply->effect = pgt_apply_make_changes(apply->relation);
	apply->effect_values = palloc(sizeof(Datum) * (natts + 1));
	apply->effect_isnull = palloc0(sizeof(bool) * (natts + 1));
}

void
pgt_apply_publish(Apply *apply)
{
	apply->publish = true;
}

/* The writer takes a transaction id, so it begins with the first row. */
static void
begin_writer(Apply *apply)
{
	MemoryContext old = MemoryContextSwitchTo(apply->context);

	apply->publish = false;
	apply->writer = pgt_capture_writer_begin(apply->relation);
	MemoryContextSwitchTo(old);
}

void
pgt_apply_note_effect(Apply *apply, TupleTableSlot *row, int weight)
{
	if (apply->publish)
		begin_writer(apply);
	if (apply->writer != NULL)
		pgt_capture_writer_add(apply->writer, row, weight);
	if (apply->effect != NULL)
	{
		int natts = apply->effect->ncolumns;

		slot_getallattrs(row);
		apply->effect_values[0] = Int32GetDatum(weight);
		memcpy(apply->effect_values + 1, row->tts_values, sizeof(Datum) * natts);
		memcpy(apply->effect_isnull + 1, row->tts_isnull, sizeof(bool) * natts);
		tuplestore_putvalues(apply->effect->rows, apply->effect->desc, apply->effect_values,
							 apply->effect_isnull);
		apply->effect->nrows++;
	}
}

/* ---- Writing ---- */

static void
note_write(Apply *apply)
{
	CHECK_FOR_INTERRUPTS();
	if (apply->wrote)
		return;
	apply->wrote = true;
	if (apply->before_write != NULL)
		apply->before_write(apply->before_write_arg);
}

static void
insert_now(Apply *apply, TupleTableSlot *row)
{
	note_write(apply);
	ExecSimpleRelationInsert(apply->result, apply->estate, row);
	pgt_apply_note_effect(apply, row, 1);
	ResetPerTupleExprContext(apply->estate);
}

static void
update_now(Apply *apply, TupleTableSlot *row)
{
	note_write(apply);
	if (!apply->may_update)
		pgt_published_check(apply->relation, CMD_UPDATE);
	apply->may_update = true;
	ExecSimpleRelationUpdate(apply->result, apply->estate, &apply->epq, apply->old, row);
	pgt_apply_note_effect(apply, apply->old, -1);
	pgt_apply_note_effect(apply, row, 1);
	ResetPerTupleExprContext(apply->estate);
}

static void
delete_now(Apply *apply)
{
	note_write(apply);
	if (!apply->may_delete)
		pgt_published_check(apply->relation, CMD_DELETE);
	apply->may_delete = true;
	ExecSimpleRelationDelete(apply->result, apply->estate, &apply->epq, apply->old);
	pgt_apply_note_effect(apply, apply->old, -1);
	ResetPerTupleExprContext(apply->estate);
}

/* Keeps a row for pgt_apply_finish, after all deletes. */
static void
wait_with(Apply *apply, ItemPointer tid, bool split, TupleTableSlot *row)
{
	TupleDesc desc = RelationGetDescr(apply->relation);
	Datum *values = palloc(sizeof(Datum) * (desc->natts + WAITING_COLUMNS));
	bool *isnull = palloc(sizeof(bool) * (desc->natts + WAITING_COLUMNS));

	if (apply->waiting == NULL)
	{
		apply->waiting = tuplestore_begin_heap(false, false, work_mem);
		apply->waiting_desc = CreateTemplateTupleDesc(desc->natts + WAITING_COLUMNS);
		TupleDescInitEntry(apply->waiting_desc, WAITING_TID + 1, "tid", TIDOID, -1, 0);
		TupleDescInitEntry(apply->waiting_desc, WAITING_SPLIT + 1, "split", BOOLOID, -1, 0);
		for (int i = 1; i <= desc->natts; i++)
			TupleDescCopyEntry(apply->waiting_desc, i + WAITING_COLUMNS, desc, i);
	}
	slot_getallattrs(row);
	values[WAITING_TID] = tid != NULL ? PointerGetDatum(tid) : (Datum) 0;
	isnull[WAITING_TID] = tid == NULL;
	values[WAITING_SPLIT] = BoolGetDatum(split);
	isnull[WAITING_SPLIT] = false;
	memcpy(values + WAITING_COLUMNS, row->tts_values, sizeof(Datum) * desc->natts);
	memcpy(isnull + WAITING_COLUMNS, row->tts_isnull, sizeof(bool) * desc->natts);
	tuplestore_putvalues(apply->waiting, apply->waiting_desc, values, isnull);
	pfree(values);
	pfree(isnull);
}

void
pgt_apply_insert(Apply *apply, TupleTableSlot *row)
{
	apply->inserted++;
	if (apply->info->other_unique)
		wait_with(apply, NULL, false, row);
	else
		insert_now(apply, row);
}

/* Does an update change a column of another unique constraint? */
static bool
changes_unique_columns(Apply *apply, TupleTableSlot *row)
{
	TupleDesc desc = RelationGetDescr(apply->relation);
	int column = -1;

	slot_getallattrs(apply->old);
	slot_getallattrs(row);
	while ((column = bms_next_member(apply->info->unique_columns, column)) >= 0)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, column - 1);
		int i = column - 1;

		if (apply->old->tts_isnull[i] != row->tts_isnull[i])
			return true;
		if (!row->tts_isnull[i] && !datum_image_eq(apply->old->tts_values[i], row->tts_values[i],
												   attribute->attbyval, attribute->attlen))
			return true;
	}
	return false;
}

void
pgt_apply_update(Apply *apply, TupleTableSlot *row)
{
	apply->updated++;
	if (!apply->info->other_unique)
		update_now(apply, row);
	else if (changes_unique_columns(apply, row))
	{
		/* Two rows may swap values: take the old one out before anything comes in. */
		wait_with(apply, NULL, true, row);
		delete_now(apply);
	}
	else
		wait_with(apply, &apply->old->tts_tid, false, row);
}

void
pgt_apply_delete(Apply *apply)
{
	apply->deleted++;
	delete_now(apply);
}

static void
write_waiting(Apply *apply)
{
	TupleTableSlot *slot;

	if (apply->waiting == NULL)
		return;
	slot = MakeSingleTupleTableSlot(apply->waiting_desc, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(apply->waiting, true, false, slot))
	{
		TupleTableSlot *row = pgt_apply_fill(apply, slot, WAITING_COLUMNS);

		if (slot->tts_isnull[WAITING_TID])
			insert_now(apply, row);
		else
		{
			ItemPointer tid = (ItemPointer) DatumGetPointer(slot->tts_values[WAITING_TID]);

			if (!pgt_apply_fetch(apply, tid))
				elog(ERROR, "a row of \"%s\" has gone", apply->purpose);
			update_now(apply, row);
		}
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(apply->waiting);
	apply->waiting = NULL;
}

/* ---- Filling an empty table ---- */

typedef struct Bulk
{
	TupleTableSlot *slots[BULK_ROWS];
	int nslots;
	BulkInsertState state;
} Bulk;

static void
flush_bulk(Apply *apply, Bulk *bulk)
{
	EState *estate = apply->estate;
	MemoryContext old;

	if (bulk->nslots == 0)
		return;
	/* It leaves some memory behind, per call and per toasted row. */
	old = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
	table_multi_insert(apply->relation, bulk->slots, bulk->nslots, GetCurrentCommandId(true), 0,
					   bulk->state);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < bulk->nslots; i++)
	{
		if (apply->result->ri_NumIndices > 0)
			list_free(pgt_compat_insert_index_tuples(apply->result, bulk->slots[i], estate));
		pgt_apply_note_effect(apply, bulk->slots[i], 1);
		ResetPerTupleExprContext(estate);
		ExecClearTuple(bulk->slots[i]);
	}
	apply->inserted += bulk->nslots;
	bulk->nslots = 0;
}

static bool
has_insert_triggers(const ResultRelInfo *result)
{
	TriggerDesc *triggers = result->ri_TrigDesc;

	return triggers != NULL &&
		   (triggers->trig_insert_before_row || triggers->trig_insert_after_row);
}

/* All rows into a table that has none: as COPY does, unless somebody wants each row. */
void
pgt_apply_bulk_insert(Apply *apply, PgtDeltaRows *rows)
{
	TupleTableSlot *slot;
	Bulk *bulk;

	if (rows->nrows == 0)
		return;
	slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
	tuplestore_rescan(rows->rows);
	if (has_insert_triggers(apply->result))
	{
		while (tuplestore_gettupleslot(rows->rows, true, false, slot))
		{
			apply->inserted++;
			insert_now(apply, pgt_apply_fill(apply, slot, 0));
		}
		ExecDropSingleTupleTableSlot(slot);
		return;
	}
	bulk = palloc0(sizeof(Bulk));
	bulk->state = GetBulkInsertState();
	while (tuplestore_gettupleslot(rows->rows, true, false, slot))
	{
		TupleTableSlot *kept = bulk->slots[bulk->nslots];

		note_write(apply);
		pgt_apply_fill(apply, slot, 0);
		if (RelationGetDescr(apply->relation)->constr != NULL)
			ExecConstraints(apply->result, apply->row, apply->estate);
		if (kept == NULL)
		{
			kept = MakeSingleTupleTableSlot(RelationGetDescr(apply->relation), &TTSOpsHeapTuple);
			bulk->slots[bulk->nslots] = kept;
		}
		ExecCopySlot(kept, apply->row);
		if (++bulk->nslots == BULK_ROWS)
			flush_bulk(apply, bulk);
	}
	flush_bulk(apply, bulk);
	FreeBulkInsertState(bulk->state);
	for (int i = 0; i < BULK_ROWS && bulk->slots[i] != NULL; i++)
		ExecDropSingleTupleTableSlot(bulk->slots[i]);
	ExecDropSingleTupleTableSlot(slot);
	pfree(bulk);
}

/* ---- The end ---- */

void
pgt_apply_finish(Apply *apply)
{
	write_waiting(apply);
	if (apply->scan != NULL)
		index_endscan(apply->scan);
	if (apply->index != NULL)
		index_close(apply->index, NoLock);
	AfterTriggerEndQuery(apply->estate);
	if (apply->writer != NULL)
		pgt_capture_writer_end(apply->writer);
	EvalPlanQualEnd(&apply->epq);
	ExecCloseResultRelations(apply->estate);
	ExecResetTupleTable(apply->estate->es_tupleTable, false);
	FreeExecutorState(apply->estate);
	ExecDropSingleTupleTableSlot(apply->old);
	ExecDropSingleTupleTableSlot(apply->row);
	UnregisterSnapshot(apply->snapshot);
	table_close(apply->relation, NoLock);
}
