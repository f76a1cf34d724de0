/*
 * full.c: everything computed anew, and only the difference written.
 *
 * The query's rows are compared with the stored rows as multisets of images, in
 * batches by hash so that one batch of the query's rows fits into work_mem *
 * hash_mem_multiplier; with more than one batch both sides are read once per
 * batch. What is left over is written: a row that goes and one that comes with
 * the same key are an update. An empty table is filled as COPY does.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "pgt_clock.h"
#include "pgt_image.h"
#include "pgt_point.h"

#include "refresh_internal.h"

/* What is to be done: rows that go, rows that come. */
typedef struct Difference
{
	int64 ngone;
	int64 maxgone;
	ItemPointerData *gone; /* in the order of the table */
	int64 ncome;
	Tuplestorestate *come; /* of the table's shape */
} Difference;

/* Keeps the new rows of one batch in memory, counted by image. */
static KeyMap *
load_batch(PgtDeltaRows *rows, TupleTableSlot *slot, TupleDesc desc, int batch, int nbatches)
{
	KeyMap *map = pgt_keymap_make_images(desc);

	tuplestore_rescan(rows->rows);
	while (tuplestore_gettupleslot(rows->rows, true, false, slot))
	{
		bool found;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		if (nbatches == 1 ||
			pgt_batches_of(pgt_image_hash(desc, slot->tts_values, slot->tts_isnull), nbatches) ==
				batch)
			pgt_keymap_get_row(map, slot, &found)->count++;
	}
	return map;
}

static void
add_gone(Difference *difference, ItemPointer tid)
{
	if (difference->ngone == difference->maxgone)
	{
		difference->maxgone *= 2;
		difference->gone = repalloc_huge(difference->gone,
										 sizeof(ItemPointerData) * difference->maxgone);
	}
	difference->gone[difference->ngone++] = *tid;
}

/* Stored rows of the batch that the query no longer gives; counts down those it gives. */
static void
scan_stored(Apply *apply, KeyMap *map, int batch, int nbatches, Difference *difference)
{
	TableScanDesc scan = table_beginscan(apply->relation, apply->snapshot, 0, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, apply->old))
	{
		TupleTableSlot *old = apply->old;
		KeyEntry *entry;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(old);
		if (nbatches > 1 &&
			pgt_batches_of(pgt_image_hash(map->desc, old->tts_values, old->tts_isnull), nbatches) !=
				batch)
			continue;
		entry = pgt_keymap_find(map, old->tts_values, old->tts_isnull);
		if (entry != NULL && entry->count > 0)
			entry->count--;
		else
			add_gone(difference, &old->tts_tid);
	}
	table_endscan(scan);
	ExecClearTuple(apply->old);
}

static void
find_difference(Apply *apply, PgtDeltaRows *rows, Difference *difference)
{
	TupleDesc desc = RelationGetDescr(apply->relation);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	int nbatches = pgt_batches_count(rows);

	memset(difference, 0, sizeof(Difference));
	difference->maxgone = 1024;
	difference->gone = palloc(sizeof(ItemPointerData) * difference->maxgone);
	difference->come = tuplestore_begin_heap(true, false, work_mem);
	for (int batch = 0; batch < nbatches; batch++)
	{
		KeyMap *map = load_batch(rows, slot, desc, batch, nbatches);

		scan_stored(apply, map, batch, nbatches, difference);
		for (KeyEntry *entry = map->first; entry != NULL; entry = entry->next)
		{
			ExecStoreMinimalTuple(entry->row, slot, false);
			for (; entry->count > 0; entry->count--)
			{
				tuplestore_puttupleslot(difference->come, slot);
				difference->ncome++;
			}
		}
		ExecClearTuple(slot);
		pgt_keymap_free(map);
	}
	ExecDropSingleTupleTableSlot(slot);
}

static void
require_row(Apply *apply, ItemPointer tid)
{
	if (!pgt_apply_fetch(apply, tid))
		elog(ERROR, "a row of \"%s\" has gone", apply->purpose);
}

/* Rows without a key: what goes goes, what comes comes. */
static void
write_images(Apply *apply, Difference *difference, TupleTableSlot *slot)
{
	for (int64 i = 0; i < difference->ngone; i++)
	{
		require_row(apply, &difference->gone[i]);
		pgt_apply_delete(apply);
	}
	while (tuplestore_gettupleslot(difference->come, true, false, slot))
		pgt_apply_insert(apply, pgt_apply_fill(apply, slot, 0));
}

static void
get_key(const TargetInfo *info, TupleTableSlot *slot, Datum *values, bool *isnull)
{
	slot_getallattrs(slot);
	for (int i = 0; i < info->nkeys; i++)
	{
		values[i] = slot->tts_values[info->keys[i].attnum - 1];
		isnull[i] = slot->tts_isnull[info->keys[i].attnum - 1];
	}
}

static KeyMap *
load_come(Apply *apply, Difference *difference, TupleTableSlot *slot, int batch, int nbatches)
{
	KeyMap *map = pgt_keymap_make(apply->info->nkeys, apply->info->keys);
	Datum values[INDEX_MAX_KEYS];
	bool isnull[INDEX_MAX_KEYS];

	tuplestore_rescan(difference->come);
	while (tuplestore_gettupleslot(difference->come, true, false, slot))
	{
		MemoryContext old;
		KeyEntry *entry;
		bool found;

		CHECK_FOR_INTERRUPTS();
		get_key(apply->info, slot, values, isnull);
		if (nbatches > 1 && pgt_batches_of(pgt_keymap_hash(map, values, isnull), nbatches) != batch)
			continue;
		entry = pgt_keymap_get(map, values, isnull, &found);
		if (found)
		{
			/* The identity does not hold: the unique index shall say so. */
			pgt_apply_insert(apply, pgt_apply_fill(apply, slot, 0));
			continue;
		}
		old = MemoryContextSwitchTo(map->context);
		entry->row = ExecCopySlotMinimalTuple(slot);
		MemoryContextSwitchTo(old);
	}
	return map;
}

/* Rows with a key: the same key on both sides is an update. */
static void
write_keys(Apply *apply, Difference *difference, TupleTableSlot *slot)
{
	PgtDeltaRows come = {RelationGetDescr(apply->relation), difference->come, difference->ncome};
	int nbatches = pgt_batches_count(&come);

	for (int batch = 0; batch < nbatches; batch++)
	{
		KeyMap *map = load_come(apply, difference, slot, batch, nbatches);

		for (int64 i = 0; i < difference->ngone; i++)
		{
			Datum values[INDEX_MAX_KEYS];
			bool isnull[INDEX_MAX_KEYS];
			KeyEntry *entry;

			CHECK_FOR_INTERRUPTS();
			require_row(apply, &difference->gone[i]);
			get_key(apply->info, apply->old, values, isnull);
			if (nbatches > 1 &&
				pgt_batches_of(pgt_keymap_hash(map, values, isnull), nbatches) != batch)
				continue;
			entry = pgt_keymap_find(map, values, isnull);
			if (entry == NULL || entry->done)
				pgt_apply_delete(apply);
			else
			{
				entry->done = true;
				pgt_apply_update(apply, pgt_apply_fill_tuple(apply, entry->row, slot, 0));
			}
		}
		for (KeyEntry *entry = map->first; entry != NULL; entry = entry->next)
			if (!entry->done)
				pgt_apply_insert(apply, pgt_apply_fill_tuple(apply, entry->row, slot, 0));
		ExecClearTuple(slot);
		pgt_keymap_free(map);
	}
}

/* Makes the stored rows those of the query. */
void
pgt_full_apply(Apply *apply, PgtDeltaRows *rows)
{
	Difference difference;
	TupleTableSlot *slot;

	pgt_apply_check_rows(apply, rows->desc, 0);
	if (!pgt_apply_find_first(apply))
	{
		pgt_apply_bulk_insert(apply, rows);
		return;
	}
	ExecClearTuple(apply->old);
	find_difference(apply, rows, &difference);
	slot = MakeSingleTupleTableSlot(RelationGetDescr(apply->relation), &TTSOpsMinimalTuple);
	if (apply->info->identity == PGT_IDENTITY_ROW)
		write_images(apply, &difference, slot);
	else
		write_keys(apply, &difference, slot);
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(difference.come);
	pfree(difference.gone);
}

/* Every stage in order, each from what is stored of the earlier ones. */
void
pgt_full_run(Refresh *refresh)
{
	int last = list_length(refresh->definition->stages) - 1;
	ListCell *lc;

	refresh->stale_states = false; /* what a differential attempt left was undone */
	foreach (lc, refresh->definition->stages)
	{
		const PgtStage *stage = lfirst(lc);
		int index = foreach_current_index(lc);
		PgtDeltaInput input = {.snapshot = refresh->snapshot};
		TimestampTz start = pgt_clock_now();
		bool is_aggregate = stage->technique == PGT_TECHNIQUE_AGGREGATE;
		PgtDeltaRows *rows;
		TimestampTz middle;
		Apply *apply;

		if (stage->is_virtual)
			continue;
		if (!is_aggregate && OidIsValid(stage->state_relid))
			refresh->stale_states = true;
		rows = is_aggregate ? pgt_delta_states(refresh->delta, index, &input)
							: pgt_delta_all(refresh->delta, index, &input);
		middle = pgt_clock_now();
		PGT_POINT("refresh-before-apply");
		if (is_aggregate)
			pgt_storage_fit_keys(stage, rows, 0);
		else
			pgt_storage_fit_rows(stage, rows, 0);
		apply = pgt_apply_begin(stage->relid, stage, false);
		if (is_aggregate)
			rows = pgt_aggregate_full(refresh, stage, rows, apply);
		if (index == last)
		{
			apply->before_write = pgt_announce_open;
			apply->before_write_arg = refresh;
			pgt_apply_publish(apply);
		}
		pgt_full_apply(apply, rows);
		pgt_apply_finish(apply);
		if (index == last)
			pgt_refresh_count(refresh, apply);
		if (bms_is_member(stage->number, refresh->unindexed))
			pgt_storage_create_again(refresh->st, stage, index < last);
		tuplestore_end(rows->rows);
		refresh->delta_ms += pgt_clock_ms_between(start, middle);
		refresh->apply_ms += pgt_clock_ms_between(middle, pgt_clock_now());
	}
}
