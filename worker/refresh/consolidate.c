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
 * rows of the hashes that do occur twice are compared by their images, in
 * batches that fit into memory.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "pgt_image.h"

#include "refresh_internal.h"

#define BATCH_ROWS 200000

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
next_row(PgtChangeSet *changes, TupleTableSlot *slot)
{
	CHECK_FOR_INTERRUPTS();
	if (!tuplestore_gettupleslot(changes->rows, true, false, slot))
		return false;
	slot_getallattrs(slot);
	return true;
}

/* Counts the hashes; true if one occurs twice. */
static bool
count_hashes(PgtChangeSet *changes, TupleDesc desc, TupleTableSlot *slot, hashcount_hash *counts)
{
	bool any = false;

	tuplestore_rescan(changes->rows);
	while (next_row(changes, slot))
	{
		uint64 hash = pgt_image_hash(desc, slot->tts_values + 1, slot->tts_isnull + 1);
		bool found;
		HashCount *count = hashcount_insert(counts, hash, &found);

		count->twice = found;
		any = any || found;
	}
	return any;
}

/* Adds up the rows of one batch of hashes that occur twice. */
static void
add_up(PgtChangeSet *changes, TupleDesc desc, TupleTableSlot *slot, hashcount_hash *counts,
	   int batch, int nbatches, PgtChangeSet *result)
{
	KeyMap *map = pgt_keymap_make_images(desc);
	Datum *values = palloc(sizeof(Datum) * changes->desc->natts);
	bool *isnull = palloc0(sizeof(bool) * changes->desc->natts);

	tuplestore_rescan(changes->rows);
	while (next_row(changes, slot))
	{
		uint64 hash = pgt_image_hash(desc, slot->tts_values + 1, slot->tts_isnull + 1);
		KeyEntry *entry;
		bool found;

		if (hash % nbatches != batch)
			continue;
		if (!hashcount_lookup(counts, hash)->twice)
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
		memcpy(values + 1, entry->values, sizeof(Datum) * changes->ncolumns);
		memcpy(isnull + 1, entry->isnull, sizeof(bool) * changes->ncolumns);
		tuplestore_putvalues(result->rows, result->desc, values, isnull);
		result->nrows++;
	}
	pgt_keymap_free(map);
}

/* Images without columns are all equal: only the sum of the weights counts. */
void
pgt_consolidate(PgtChangeSet *changes)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle consolidation",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = CurrentMemoryContext;
	TupleTableSlot *slot;
	TupleDesc desc;
	hashcount_hash *counts;

	if (changes->nrows < 2)
		return;
	slot = MakeSingleTupleTableSlot(changes->desc, &TTSOpsMinimalTuple);
	MemoryContextSwitchTo(context);
	desc = image_desc(changes);
	counts = hashcount_create(context, (uint32) Min(changes->nrows, 1000000), NULL);
	if (count_hashes(changes, desc, slot, counts))
	{
		PgtChangeSet result = *changes;
		int nbatches = 1 + (int) (changes->nrows / BATCH_ROWS);

		MemoryContextSwitchTo(caller);
		result.rows = tuplestore_begin_heap(true, false, work_mem);
		MemoryContextSwitchTo(context);
		result.nrows = 0;
		for (int batch = 0; batch < nbatches; batch++)
			add_up(changes, desc, slot, counts, batch, nbatches, &result);
		tuplestore_end(changes->rows);
		*changes = result;
	}
	MemoryContextSwitchTo(caller);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(context);
}
