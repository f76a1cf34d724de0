/*
 * batches.c: rows split by hash, so that one batch's key map fits into memory.
 *
 * A key map cannot spill, so whoever fills one from a large result takes it
 * batch by batch: what has to meet in the map (a key, an image) has one hash
 * and so is in one batch. Limit: work_mem * hash_mem_multiplier, as for a hash
 * join (nodeHash.c). Small results are one batch and are not copied.
 */
#include "postgres.h"

#include <math.h>

#include "executor/executor.h"
#include "executor/nodeHash.h"
#include "miscadmin.h"

#include "refresh_internal.h"

#define SAMPLE_ROWS 1000
#define FEW_ROWS 32		   /* never worth the sample */
#define ENTRY_OVERHEAD 128 /* bytes of a key map's entry, besides the row */
#define COLUMN_OVERHEAD 9  /* of its arrays of values and nulls */
#define MAX_BATCHES 1024
#define MIN_STORE_KB 64

/* In how many batches the rows are to be kept in memory. */
int
pgt_batches_count(PgtDeltaRows *rows)
{
	TupleTableSlot *slot;
	double bytes = 0;
	int sampled = 0;

	if (rows == NULL || rows->desc == NULL || rows->nrows <= FEW_ROWS)
		return 1;
	slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
	tuplestore_rescan(rows->rows);
	while (sampled < SAMPLE_ROWS && tuplestore_gettupleslot(rows->rows, true, false, slot))
	{
		bool should_free;
		MinimalTuple tuple = ExecFetchSlotMinimalTuple(slot, &should_free);

		bytes += tuple->t_len + ENTRY_OVERHEAD + rows->desc->natts * COLUMN_OVERHEAD;
		sampled++;
		if (should_free)
			pfree(tuple);
	}
	ExecDropSingleTupleTableSlot(slot);
	if (sampled == 0)
		return 1;
	bytes = ceil(bytes / sampled * rows->nrows / get_hash_memory_limit());
	return (int) Min(Max(bytes, 1), MAX_BATCHES);
}

/* Not the bits by which a hash table finds its bucket. */
int
pgt_batches_of(uint64 hash, int nbatches)
{
	return (int) ((hash >> 20) % nbatches);
}

/* An array of nbatches results; the given rows are used up. */
PgtDeltaRows *
pgt_batches_split(PgtDeltaRows *rows, int nbatches, BatchHash hash, void *arg)
{
	PgtDeltaRows *batches = palloc0(sizeof(PgtDeltaRows) * nbatches);
	TupleTableSlot *slot;

	if (nbatches == 1 || rows->desc == NULL)
	{
		batches[0] = *rows;
		return batches;
	}
	for (int i = 0; i < nbatches; i++)
	{
		batches[i].desc = rows->desc;
		batches[i].rows = tuplestore_begin_heap(true, false,
												Max(work_mem / nbatches, MIN_STORE_KB));
	}
	slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
	tuplestore_rescan(rows->rows);
	while (tuplestore_gettupleslot(rows->rows, true, false, slot))
	{
		PgtDeltaRows *batch;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		batch = &batches[pgt_batches_of(hash(slot, arg), nbatches)];
		tuplestore_puttupleslot(batch->rows, slot);
		batch->nrows++;
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(rows->rows);
	rows->rows = NULL;
	rows->desc = NULL;
	rows->nrows = 0;
	return batches;
}

void
pgt_batches_free(PgtDeltaRows *batch)
{
	if (batch->rows != NULL)
		tuplestore_end(batch->rows);
	batch->rows = NULL;
}
