/*
 * consolidate.c: changes that cancel are taken out of a change set.
 *
 * A row that came and went between two refreshes was never there, and must not
 * be evaluated: its expressions may raise errors that the query itself would
 * not (10 / d with d = 0 for a moment). Images are what counts; equal ones add
 * up to one row with the sum of their weights.
 *
 * Most change sets have nothing to cancel. So the first look only counts
 * 64-bit hashes; a set in which none occurs twice stays as it is. Otherwise the
 * rows of the hashes that do occur twice are compared by their images. Large
 * sets are split by hash into batches that fit into memory.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "pgt_image.h"

#include "refresh_internal.h"

typedef struct HashCount
{
	uint64 hash;
	char status;
	bool twice;
} HashCount;

#define SH_PREFIX hashcount
#define SH_ELEMENT_TYPE HashCount
#define SH_KEY_TYPE uint64
#define SH_KEY hash
#define SH_HASH_KEY(table, key) ((uint32) ((key) ^ ((key) >> 32)))
#define SH_EQUAL(table, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* The captured columns of a change set, without the weight. */
static TupleDesc
image_desc(const PgtChangeSet *changes)
{
	TupleDesc desc = CreateTemplateTupleDesc(changes->ncolumns);

	for (int i = 1; i <= changes->ncolumns; i++)
		TupleDescCopyEntry(desc, i, changes->desc, i + 1);
	return desc;
}

static bool
next_row(PgtDeltaRows *rows, TupleTableSlot *slot)
{
	CHECK_FOR_INTERRUPTS();
	if (!tuplestore_gettupleslot(rows->rows, true, false, slot))
		return false;
	slot_getallattrs(slot);
	return true;
}

static uint64
hash_change(TupleTableSlot *slot, void *arg)
{
	return pgt_image_hash((TupleDesc) arg, slot->tts_values + 1, slot->tts_isnull + 1);
}

/* Counts the hashes; true if one occurs twice. */
static bool
count_hashes(PgtDeltaRows *rows, TupleDesc desc, TupleTableSlot *slot, hashcount_hash *counts)
{
	bool any = false;

	tuplestore_rescan(rows->rows);
	while (next_row(rows, slot))
	{
		bool found;
		HashCount *count = hashcount_insert(counts, hash_change(slot, desc), &found);

		count->twice = found;
		any = any || found;
	}
	return any;
}

/* Adds up the rows of the hashes that occur twice; the others are copied. */
static void
add_up(PgtDeltaRows *rows, TupleDesc desc, TupleTableSlot *slot, hashcount_hash *counts,
	   PgtChangeSet *result)
{
	KeyMap *map = pgt_keymap_make_images(desc);
	Datum *values = palloc(sizeof(Datum) * rows->desc->natts);
	bool *isnull = palloc0(sizeof(bool) * rows->desc->natts);

	tuplestore_rescan(rows->rows);
	while (next_row(rows, slot))
	{
		KeyEntry *entry;
		bool found;

		if (!hashcount_lookup(counts, hash_change(slot, desc))->twice)
		{
			tuplestore_puttupleslot(result->rows, slot);
			result->nrows++;
			continue;
		}
		entry = pgt_keymap_get(map, slot->tts_values + 1, slot->tts_isnull + 1, &found);
		entry->count += DatumGetInt32(slot->tts_values[0]);
	}
	for (KeyEntry *entry = map->first; entry != NULL; entry = entry->next)
	{
		if (entry->count == 0)
			continue;
		values[0] = Int32GetDatum((int32) entry->count);
		memcpy(values + 1, entry->values, sizeof(Datum) * desc->natts);
		memcpy(isnull + 1, entry->isnull, sizeof(bool) * desc->natts);
		tuplestore_putvalues(result->rows, result->desc, values, isnull);
		result->nrows++;
	}
	pgt_keymap_free(map);
}

/* Takes one batch into the result; false: it can stay as it is, if it is the only one. */
static bool
consolidate_batch(PgtDeltaRows *batch, bool only, TupleDesc desc, TupleTableSlot *slot,
				  MemoryContext context, PgtChangeSet *result)
{
	hashcount_hash *counts = hashcount_create(context, (uint32) Min(batch->nrows, 1000000), NULL);
	bool any = count_hashes(batch, desc, slot, counts);

	if (any || !only)
		add_up(batch, desc, slot, counts, result);
	hashcount_destroy(counts);
	return any || !only;
}

/* Images without columns are all equal: only the sum of the weights counts. */
void
pgt_consolidate(PgtChangeSet *changes)
{
	PgtDeltaRows rows = {changes->desc, changes->rows, changes->nrows};
	MemoryContext context;
	MemoryContext caller = CurrentMemoryContext;
	TupleTableSlot *slot;
	TupleDesc desc;
	PgtChangeSet result = *changes;
	PgtDeltaRows *batches;
	int nbatches;
	bool replaced = true;

	if (changes->nrows < 2)
		return;
	context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle consolidation",
									ALLOCSET_DEFAULT_SIZES);
	nbatches = pgt_batches_count(&rows);
	result.rows = tuplestore_begin_heap(true, false, work_mem);
	result.nrows = 0;
	slot = MakeSingleTupleTableSlot(changes->desc, &TTSOpsMinimalTuple);
	MemoryContextSwitchTo(context);
	desc = image_desc(changes);
	batches = pgt_batches_split(&rows, nbatches, hash_change, desc);
	for (int i = 0; i < nbatches; i++)
	{
		replaced = consolidate_batch(&batches[i], nbatches == 1, desc, slot, context, &result);
		if (replaced)
			pgt_batches_free(&batches[i]);
	}
	MemoryContextSwitchTo(caller);
	if (replaced)
		*changes = result;
	else
		tuplestore_end(result.rows);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(context);
}
