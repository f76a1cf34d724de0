/*
 * partition.c: applying the recomputed rows of touched partitions.
 *
 * The new rows of a partition are compared with the stored ones as multisets of
 * images; what is left over are signed rows, which are applied as such, whatever
 * identifies a row. Stored rows are found through the index on the scope
 * columns, by SQL's equality: 1.0 and 1.00 are one partition.
 *
 * Partitions are taken in batches by hash, so that one batch of new rows fits
 * into memory (batches.c).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"

#include "pgt_compat.h"

#include "refresh_internal.h"

typedef struct Partitions
{
	Apply *apply;
	KeyMap *map; /* hashes scopes */
	bool is_key; /* rows have nothing but the scope */
	Relation index;
	IndexScanDesc scan;
	ScanKeyData *scankeys;
	PgtDeltaRows *difference; /* weight, columns of the stored table */
	TupleTableSlot *slot;	  /* of the stored table's shape */
} Partitions;

static uint64
hash_scope(TupleTableSlot *slot, void *arg)
{
	Partitions *partitions = arg;
	TargetInfo *info = partitions->apply->info;
	Datum values[INDEX_MAX_KEYS];
	bool isnull[INDEX_MAX_KEYS];

	if (partitions->is_key)
		return pgt_keymap_hash(partitions->map, slot->tts_values, slot->tts_isnull);
	for (int i = 0; i < info->nscope; i++)
	{
		int column = info->scope[i].attnum - 1;

		values[i] = slot->tts_values[column];
		isnull[i] = slot->tts_isnull[column];
	}
	return pgt_keymap_hash(partitions->map, values, isnull);
}

static void
begin_scan(Partitions *partitions)
{
	Apply *apply = partitions->apply;
	int nscope = apply->info->scope_by_hash ? 1 : apply->info->nscope;

	if (!OidIsValid(apply->info->scope_index))
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the index that finds the partitions of \"%s\" is missing", apply->purpose),
			 errhint(
				 "Refresh the stream table: the index is made again before its rows are computed.")));
	partitions->scankeys = palloc(sizeof(ScanKeyData) * nscope);
	memcpy(partitions->scankeys, apply->info->scope_keys, sizeof(ScanKeyData) * nscope);
	for (int i = 0; i < nscope; i++)
	{
		partitions->scankeys[i].sk_func.fn_mcxt = CurrentMemoryContext;
		partitions->scankeys[i].sk_func.fn_extra = NULL;
	}
	partitions->index = index_open(apply->info->scope_index, AccessShareLock);
	partitions->scan = pgt_compat_begin_index_scan(apply->relation, partitions->index,
												   apply->snapshot, nscope);
}

/* Is the row found in the partition? A hash alone does not tell. */
static bool
is_in_partition(Apply *apply, TupleTableSlot *key)
{
	for (int i = 0; i < apply->info->nscope; i++)
	{
		KeyColumn *column = &apply->info->scope[i];
		bool isnull;
		Datum value = slot_getattr(apply->old, column->attnum, &isnull);

		if (isnull != key->tts_isnull[i])
			return false;
		if (!isnull && !DatumGetBool(FunctionCall2Coll(&column->eq, column->collation, value,
													   key->tts_values[i])))
			return false;
	}
	return true;
}

static void
set_keys(Partitions *partitions, TupleTableSlot *key)
{
	TargetInfo *info = partitions->apply->info;
	HeapTuple tuple;

	if (info->scope_by_hash)
	{
		tuple = heap_form_tuple(info->scope_desc, key->tts_values, key->tts_isnull);
		partitions->scankeys[0].sk_argument = FunctionCall2Coll(
			&info->key_hash, InvalidOid, HeapTupleGetDatum(tuple), Int64GetDatum(0));
		heap_freetuple(tuple);
		return;
	}
	for (int i = 0; i < info->nscope; i++)
	{
		ScanKey scankey = &partitions->scankeys[i];

		scankey->sk_flags = key->tts_isnull[i] ? SK_ISNULL | SK_SEARCHNULL : 0;
		scankey->sk_argument = key->tts_isnull[i] ? (Datum) 0 : key->tts_values[i];
	}
}

/* Counts down the images of the stored rows of one partition. */
static void
count_stored(Partitions *partitions, KeyMap *images, TupleTableSlot *key)
{
	Apply *apply = partitions->apply;
	bool by_hash = apply->info->scope_by_hash;

	slot_getallattrs(key);
	set_keys(partitions, key);
	index_rescan(partitions->scan, partitions->scankeys, by_hash ? 1 : apply->info->nscope, NULL,
				 0);
	while (index_getnext_slot(partitions->scan, ForwardScanDirection, apply->old))
	{
		bool found;

		CHECK_FOR_INTERRUPTS();
		if (by_hash && !is_in_partition(apply, key))
			continue;
		pgt_keymap_get_row(images, apply->old, &found)->count--;
	}
}

static void
add_difference(Partitions *partitions, KeyEntry *entry)
{
	PgtDeltaRows *difference = partitions->difference;
	int natts = difference->desc->natts - 1;
	Datum *values = palloc(sizeof(Datum) * (natts + 1));
	bool *isnull = palloc(sizeof(bool) * (natts + 1));

	ExecStoreMinimalTuple(entry->row, partitions->slot, false);
	slot_getallattrs(partitions->slot);
	values[0] = Int64GetDatum(entry->count);
	isnull[0] = false;
	memcpy(values + 1, partitions->slot->tts_values, sizeof(Datum) * natts);
	memcpy(isnull + 1, partitions->slot->tts_isnull, sizeof(bool) * natts);
	tuplestore_putvalues(difference->rows, difference->desc, values, isnull);
	difference->nrows++;
	ExecClearTuple(partitions->slot);
	pfree(values);
	pfree(isnull);
}

static void
compare_batch(Partitions *partitions, PgtDeltaRows *keys, PgtDeltaRows *rows)
{
	Apply *apply = partitions->apply;
	KeyMap *images = pgt_keymap_make_images(RelationGetDescr(apply->relation));
	TupleTableSlot *slot;
	bool found;

	if (rows->nrows > 0)
	{
		slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
		tuplestore_rescan(rows->rows);
		while (tuplestore_gettupleslot(rows->rows, true, false, slot))
			pgt_keymap_get_row(images, pgt_apply_fill(apply, slot, 0), &found)->count++;
		ExecDropSingleTupleTableSlot(slot);
	}
	if (keys->nrows > 0)
	{
		slot = MakeSingleTupleTableSlot(keys->desc, &TTSOpsMinimalTuple);
		tuplestore_rescan(keys->rows);
		while (tuplestore_gettupleslot(keys->rows, true, false, slot))
			count_stored(partitions, images, slot);
		ExecDropSingleTupleTableSlot(slot);
		ExecClearTuple(apply->old);
	}
	for (KeyEntry *entry = images->first; entry != NULL; entry = entry->next)
		if (entry->count != 0)
			add_difference(partitions, entry);
	pgt_keymap_free(images);
}

static PgtDeltaRows *
make_difference(Apply *apply)
{
	TupleDesc table_desc = RelationGetDescr(apply->relation);
	PgtDeltaRows *difference = palloc0(sizeof(PgtDeltaRows));

	difference->desc = CreateTemplateTupleDesc(table_desc->natts + 1);
	TupleDescInitEntry(difference->desc, 1, PGT_WEIGHT_COLUMN, INT8OID, -1, 0);
	for (int i = 1; i <= table_desc->natts; i++)
		TupleDescCopyEntry(difference->desc, i + 1, table_desc, i);
	difference->rows = tuplestore_begin_heap(true, false, work_mem);
	return difference;
}

/* The keys are distinct, so that no stored row is counted twice. Both are used up. */
bool
pgt_partition_apply(Apply *apply, PgtDeltaRows *keys, PgtDeltaRows *rows)
{
	int nbatches = Max(pgt_batches_count(keys), pgt_batches_count(rows));
	Partitions partitions = {.apply = apply};
	PgtDeltaRows *row_batches;
	PgtDeltaRows *key_batches;

	if (keys == NULL)
	{
		pgt_full_apply(apply, rows);
		return true;
	}
	if (rows->desc != NULL)
		pgt_apply_check_rows(apply, rows->desc, 0);
	partitions.map = pgt_keymap_make(apply->info->nscope, apply->info->scope);
	partitions.difference = make_difference(apply);
	partitions.slot = MakeSingleTupleTableSlot(RelationGetDescr(apply->relation),
											   &TTSOpsMinimalTuple);
	begin_scan(&partitions);
	row_batches = pgt_batches_split(rows, nbatches, hash_scope, &partitions);
	partitions.is_key = true;
	key_batches = pgt_batches_split(keys, nbatches, hash_scope, &partitions);
	for (int i = 0; i < nbatches; i++)
	{
		compare_batch(&partitions, &key_batches[i], &row_batches[i]);
		pgt_batches_free(&row_batches[i]);
		pgt_batches_free(&key_batches[i]);
	}
	index_endscan(partitions.scan);
	index_close(partitions.index, AccessShareLock);
	ExecDropSingleTupleTableSlot(partitions.slot);
	pgt_keymap_free(partitions.map);
	return pgt_apply_signed(apply, partitions.difference);
}
