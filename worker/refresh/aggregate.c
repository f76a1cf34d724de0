/*
 * aggregate.c: technique AGGREGATE: input rows with weights are folded into
 * stored aggregate states (aggregate_state.c).
 *
 * A state table has a row per group: keys, pgt_epoch, pgt_n (rows in the
 * group), and per aggregate its state (own type, or bytea through the
 * aggregate's serialisation) and how many transitions are in it. It is a cache:
 * a group whose row is missing, or of another epoch than the frontier's, is
 * folded anew from all its input rows; so is one where an inverse function says
 * (by null) that it cannot. As a window does (nodeWindowAgg.c), the last
 * transition is never inverted, the state starts anew.
 *
 * Rows that come are folded before rows that go, so that what goes is there.
 * States of all touched groups live in one memory context until the end.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "storage/bufmgr.h"

#include "pgt_compat.h"
#include "pgt_image.h"

#include "aggregate_state.h"
#include "refresh_internal.h"

typedef struct StatedGroup
{
	bool stored;		 /* there is a row in the state table, */
	ItemPointerData tid; /* here */
	bool read;			 /* which is in the state table's slot */
	bool rebuild;
	int64 n;
	AggregateState states[FLEXIBLE_ARRAY_MEMBER];
} StatedGroup;

typedef struct Folding
{
	const PgtStage *stage;
	int64 epoch;
	AggregateCall *calls;
	AggregateRun run;
	KeyMap *groups;
	Apply *apply;  /* the stage's rows */
	Apply *state;  /* the state table */
	bool is_empty; /* the state table was emptied */
} Folding;

/* Folds one input row, weight times; the row is (weight, keys, inputs). */
static void
fold_row(Folding *folding, StatedGroup *group, TupleTableSlot *slot, int64 weight)
{
	int inputs = 1 + folding->stage->nkeys;

	group->n += weight;
	for (int i = 0; i < folding->stage->naggregates; i++)
	{
		AggregateCall *call = &folding->calls[i];
		const PgtAggregate *aggregate = call->aggregate;
		Datum *args = slot->tts_values + inputs + aggregate->first_input;
		bool *isnull = slot->tts_isnull + inputs + aggregate->first_input;

		if (aggregate->filter_input >= 0)
		{
			int column = inputs + aggregate->filter_input;

			if (slot->tts_isnull[column] || !DatumGetBool(slot->tts_values[column]))
				continue;
		}
		for (int64 j = 0; j < weight; j++)
			pgt_aggregate_add(&folding->run, call, &group->states[i], args, isnull);
		for (int64 j = weight; j < 0; j++)
			if (!pgt_aggregate_remove(&folding->run, call, &group->states[i], args, isnull))
			{
				group->rebuild = true;
				break;
			}
	}
	MemoryContextReset(folding->run.call_context);
}

/* ---- Stored states ---- */

static void
start_group(Folding *folding, StatedGroup *group)
{
	group->n = 0;
	for (int i = 0; i < folding->stage->naggregates; i++)
		pgt_aggregate_start(&folding->run, &folding->calls[i], &group->states[i]);
}

/* Is a group without a stored state surely empty, so that nothing has to be read? */
static bool
is_new_group(Folding *folding, Datum *values, bool *isnull)
{
	return folding->stage->identity == PGT_IDENTITY_KEY && folding->stage->having == NULL &&
		   !pgt_apply_find(folding->apply, values, isnull);
}

static void
load_group(Folding *folding, StatedGroup *group, Datum *values, bool *isnull)
{
	TupleTableSlot *row = folding->state->old;
	int column = folding->stage->nkeys;

	if (pgt_apply_find(folding->state, values, isnull))
	{
		slot_getallattrs(row);
		group->stored = true;
		group->tid = row->tts_tid;
		if (DatumGetInt64(row->tts_values[column++]) == folding->epoch)
		{
			group->n = DatumGetInt64(row->tts_values[column++]);
			for (int i = 0; i < folding->stage->naggregates; i++, column += 2)
			{
				pgt_aggregate_load(&folding->run, &folding->calls[i], &group->states[i],
								   row->tts_values[column], row->tts_isnull[column]);
				group->states[i].count = DatumGetInt64(row->tts_values[column + 1]);
			}
			return;
		}
	}
	start_group(folding, group);
	if (group->stored || !is_new_group(folding, values, isnull))
		group->rebuild = true;
}

static StatedGroup *
get_group(Folding *folding, TupleTableSlot *slot)
{
	bool found;
	KeyEntry *entry = pgt_keymap_get(folding->groups, slot->tts_values + 1, slot->tts_isnull + 1,
									 &found);

	if (!found)
	{
		StatedGroup *group = MemoryContextAllocZero(
			folding->run.state_context,
			offsetof(StatedGroup, states) + sizeof(AggregateState) * folding->stage->naggregates);

		entry->payload = group;
		load_group(folding, group, entry->values, entry->isnull);
	}
	return entry->payload;
}

/* The group's row in the state table. */
static void
store_group(Folding *folding, KeyEntry *entry)
{
	Apply *apply = folding->state;
	StatedGroup *group = entry->payload;
	TupleTableSlot *row = apply->row;
	int nkeys = folding->stage->nkeys;
	int column = nkeys;

	if (group->stored && !group->read)
		pgt_apply_point_at(apply, &group->tid);
	if (group->n == 0 && folding->stage->identity != PGT_IDENTITY_SINGLE)
	{
		if (group->stored)
			pgt_apply_delete(apply);
		return;
	}
	ExecClearTuple(row);
	memcpy(row->tts_values, entry->values, sizeof(Datum) * nkeys);
	memcpy(row->tts_isnull, entry->isnull, sizeof(bool) * nkeys);
	memset(row->tts_isnull + nkeys, false,
		   sizeof(bool) * (row->tts_tupleDescriptor->natts - nkeys));
	row->tts_values[column++] = Int64GetDatum(folding->epoch);
	row->tts_values[column++] = Int64GetDatum(group->n);
	for (int i = 0; i < folding->stage->naggregates; i++, column += 2)
	{
		pgt_aggregate_serialize(&folding->run, &folding->calls[i], &group->states[i],
								&row->tts_values[column], &row->tts_isnull[column]);
		row->tts_values[column + 1] = Int64GetDatum(group->states[i].count);
	}
	ExecStoreVirtualTuple(row);
	if (!group->stored)
		pgt_apply_insert(apply, row);
	else if (!group->read ||
			 !pgt_image_equal(row->tts_tupleDescriptor, apply->old->tts_values,
							  apply->old->tts_isnull, row->tts_values, row->tts_isnull))
		pgt_apply_update(apply, row);
}

/* ---- Output ---- */

typedef struct Output
{
	ExprContext *econtext;
	TupleTableSlot *group; /* keys, aggregate results */
	List *expressions;	   /* ExprState */
	ExprState *having;
	TupleTableSlot *row;
} Output;

static void
prepare_output(Folding *folding, Output *output)
{
	const PgtStage *stage = folding->stage;
	int natts = stage->nkeys + stage->naggregates;
	TupleDesc desc = CreateTemplateTupleDesc(natts);
	TupleDesc keys = RelationGetDescr(folding->state->relation);
	ListCell *lc;

	for (int i = 1; i <= stage->nkeys; i++)
		TupleDescCopyEntry(desc, i, keys, i);
	for (int i = 0; i < stage->naggregates; i++)
	{
		TupleDescInitEntry(desc, stage->nkeys + i + 1, NULL, stage->aggregates[i].result_type, -1,
						   0);
		TupleDescInitEntryCollation(desc, stage->nkeys + i + 1, stage->aggregates[i].collation);
	}
	output->econtext = CreateStandaloneExprContext();
	output->group = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	output->row = MakeSingleTupleTableSlot(RelationGetDescr(folding->apply->relation),
										   &TTSOpsVirtual);
	output->expressions = NIL;
	foreach (lc, stage->outputs)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);

		if (!entry->resjunk)
			output->expressions = lappend(
				output->expressions, ExecInitExpr(expression_planner((Expr *) entry->expr), NULL));
	}
	output->having =
		stage->having == NULL
			? NULL
			: ExecInitQual(make_ands_implicit(expression_planner((Expr *) stage->having)), NULL);
}

static void
free_output(Output *output)
{
	ExecDropSingleTupleTableSlot(output->group);
	ExecDropSingleTupleTableSlot(output->row);
	FreeExprContext(output->econtext, true);
}

/* The group's row of the stage; NULL if HAVING hides it. */
static TupleTableSlot *
output_row(Folding *folding, Output *output, KeyEntry *entry)
{
	const PgtStage *stage = folding->stage;
	StatedGroup *group = entry->payload;
	MemoryContext old;
	int column = 0;
	ListCell *lc;

	ResetExprContext(output->econtext);
	ExecClearTuple(output->group);
	memcpy(output->group->tts_values, entry->values, sizeof(Datum) * stage->nkeys);
	memcpy(output->group->tts_isnull, entry->isnull, sizeof(bool) * stage->nkeys);
	for (int i = 0; i < stage->naggregates; i++)
		output->group->tts_values[stage->nkeys + i] = pgt_aggregate_final(
			&folding->run, &folding->calls[i], &group->states[i],
			&output->group->tts_isnull[stage->nkeys + i]);
	ExecStoreVirtualTuple(output->group);
	output->econtext->ecxt_scantuple = output->group;
	if (output->having != NULL && !ExecQual(output->having, output->econtext))
		return NULL;
	old = MemoryContextSwitchTo(output->econtext->ecxt_per_tuple_memory);
	ExecClearTuple(output->row);
	foreach (lc, output->expressions)
	{
		output->row->tts_values[column] = ExecEvalExpr((ExprState *) lfirst(lc), output->econtext,
													   &output->row->tts_isnull[column]);
		column++;
	}
	MemoryContextSwitchTo(old);
	return ExecStoreVirtualTuple(output->row);
}

/* ---- The stage ---- */

/* Folds the rows with a positive (or the others) weight; marks groups to rebuild. */
static void
fold_rows(Folding *folding, PgtDeltaRows *rows, bool positive, bool rebuilding)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);

	pgt_apply_check_keys(folding->state, rows->desc, 1);
	tuplestore_rescan(rows->rows);
	while (tuplestore_gettupleslot(rows->rows, true, false, slot))
	{
		int64 weight = pgt_apply_weight(slot);
		StatedGroup *group;

		CHECK_FOR_INTERRUPTS();
		if ((weight > 0) != positive || weight == 0)
			continue;
		slot_getallattrs(slot);
		group = get_group(folding, slot);
		if (!group->rebuild || rebuilding)
			fold_row(folding, group, slot, weight);
	}
	ExecDropSingleTupleTableSlot(slot);
}

/* The keys of groups that have to be folded anew; NULL if there are none. */
static PgtDeltaRows *
keys_to_rebuild(Folding *folding)
{
	PgtDeltaRows *keys = palloc0(sizeof(PgtDeltaRows));
	TupleDesc state_desc = RelationGetDescr(folding->state->relation);

	keys->desc = CreateTemplateTupleDesc(folding->stage->nkeys);
	for (int i = 1; i <= folding->stage->nkeys; i++)
		TupleDescCopyEntry(keys->desc, i, state_desc, i);
	keys->rows = tuplestore_begin_heap(true, false, work_mem);
	for (KeyEntry *entry = folding->groups->first; entry != NULL; entry = entry->next)
	{
		StatedGroup *group = entry->payload;

		if (!group->rebuild)
			continue;
		start_group(folding, group);
		tuplestore_putvalues(keys->rows, keys->desc, entry->values, entry->isnull);
		keys->nrows++;
	}
	return keys->nrows > 0 ? keys : NULL;
}

static void
fold(Folding *folding, Refresh *refresh, int index, PgtDeltaInput *input, PgtDeltaRows *rows)
{
	PgtDeltaRows *keys;

	fold_rows(folding, rows, true, false);
	fold_rows(folding, rows, false, false);
	tuplestore_end(rows->rows);
	keys = keys_to_rebuild(folding);
	if (keys == NULL)
		return;
	rows = pgt_delta_inputs_of_keys(refresh->delta, index, input, keys);
	if (rows->desc != NULL)
		fold_rows(folding, rows, true, true);
	tuplestore_end(rows->rows);
	tuplestore_end(keys->rows);
}

static bool
write_groups(Folding *folding)
{
	Output output;

	if (folding->groups->first == NULL)
		return true;
	prepare_output(folding, &output);
	for (KeyEntry *entry = folding->groups->first; entry != NULL; entry = entry->next)
	{
		StatedGroup *group = entry->payload;
		bool exists = group->n > 0 || folding->stage->identity == PGT_IDENTITY_SINGLE;

		if (group->n < 0)
		{
			folding->apply->misfit = "a group has fewer rows than none";
			break;
		}
		store_group(folding, entry);
		pgt_apply_replace_key(folding->apply, entry->values, entry->isnull,
							  exists ? output_row(folding, &output, entry) : NULL);
		MemoryContextReset(folding->run.call_context);
	}
	free_output(&output);
	return folding->apply->misfit == NULL;
}

static void
begin_folding(Folding *folding, const PgtStage *stage, int64 epoch, Apply *apply)
{
	memset(folding, 0, sizeof(Folding));
	folding->stage = stage;
	folding->epoch = epoch;
	folding->apply = apply;
	folding->run.state_context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle states",
													   ALLOCSET_DEFAULT_SIZES);
	folding->run.call_context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle call",
													  ALLOCSET_DEFAULT_SIZES);
	folding->run.window = makeNode(WindowAggState);
	folding->calls = palloc0(sizeof(AggregateCall) * Max(stage->naggregates, 1));
	for (int i = 0; i < stage->naggregates; i++)
		pgt_aggregate_prepare(&folding->calls[i], &stage->aggregates[i]);
	folding->state = pgt_apply_begin(stage->state_relid, stage, true);
}

static void
end_folding(Folding *folding)
{
	pgt_apply_finish(folding->state);
	MemoryContextDelete(folding->run.call_context);
	MemoryContextDelete(folding->run.state_context);
}

static uint64
hash_group(TupleTableSlot *slot, void *arg)
{
	return pgt_keymap_hash(arg, slot->tts_values + 1, slot->tts_isnull + 1);
}

/*
 * Folds the input rows of a stage's delta into its states. False if they do
 * not fit. The rows are used up.
 */
bool
pgt_aggregate_run(Refresh *refresh, const PgtStage *stage, int index, PgtDeltaInput *input,
				  PgtDeltaRows *rows, Apply *apply)
{
	int nbatches = pgt_batches_count(rows);
	Folding folding;
	KeyMap *map;
	PgtDeltaRows *batches;
	bool fits = true;

	begin_folding(&folding, stage, refresh->row.epoch, apply);
	map = pgt_keymap_make(folding.state->info->nkeys, folding.state->info->keys);
	batches = pgt_batches_split(rows, nbatches, hash_group, map);
	pgt_keymap_free(map);
	for (int i = 0; i < nbatches && fits; i++)
	{
		folding.groups = pgt_keymap_make(folding.state->info->nkeys, folding.state->info->keys);
		fold(&folding, refresh, index, input, &batches[i]);
		fits = write_groups(&folding);
		pgt_keymap_free(folding.groups);
		MemoryContextReset(folding.run.state_context);
	}
	end_folding(&folding);
	return fits;
}

/* ---- Everything anew ---- */

/*
 * Which rows of the state table are those of a group: a bit for each, by its
 * place. That is half a percent of the table's size.
 */
typedef struct Seen
{
	BlockNumber nblocks;
	uint8 *bits;
} Seen;

#define SEEN_BYTES ((MaxHeapTuplesPerPage + 7) / 8)

static void
begin_seen(Seen *seen, Relation relation)
{
	seen->nblocks = RelationGetNumberOfBlocks(relation);
	seen->bits = MemoryContextAllocExtended(CurrentMemoryContext,
											Max((Size) seen->nblocks * SEEN_BYTES, 1),
											MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
}

/* The byte of a row, and its bit in it; NULL if it was not there in the beginning. */
static uint8 *
seen_byte(const Seen *seen, ItemPointer tid, uint8 *bit)
{
	int place = ItemPointerGetOffsetNumber(tid) - 1;

	Assert(place < SEEN_BYTES * 8);
	if (ItemPointerGetBlockNumber(tid) >= seen->nblocks)
		return NULL;
	*bit = 1 << (place % 8);
	return &seen->bits[(Size) ItemPointerGetBlockNumber(tid) * SEEN_BYTES + place / 8];
}

static void
note_seen(const Seen *seen, ItemPointer tid)
{
	uint8 bit;
	uint8 *byte = seen_byte(seen, tid, &bit);

	if (byte != NULL)
		*byte |= bit;
}

static bool
is_seen(const Seen *seen, ItemPointer tid)
{
	uint8 bit;
	uint8 *byte = seen_byte(seen, tid, &bit);

	return byte == NULL || (*byte & bit) != 0;
}

/* A group as pgt_delta_states gives it: keys, n, states with their counts. */
static void
take_group(Folding *folding, TupleTableSlot *slot, KeyEntry *entry)
{
	StatedGroup *group = entry->payload;
	int column = folding->stage->nkeys;

	slot_getallattrs(slot);
	entry->values = slot->tts_values;
	entry->isnull = slot->tts_isnull;
	group->n = DatumGetInt64(slot->tts_values[column++]);
	for (int i = 0; i < folding->stage->naggregates; i++, column += 2)
	{
		pgt_aggregate_load(&folding->run, &folding->calls[i], &group->states[i],
						   slot->tts_values[column], slot->tts_isnull[column]);
		group->states[i].count = DatumGetInt64(slot->tts_values[column + 1]);
	}
	group->stored = !folding->is_empty &&
					pgt_apply_find(folding->state, entry->values, entry->isnull);
	group->read = group->stored;
	if (group->stored)
	{
		slot_getallattrs(folding->state->old);
		group->tid = folding->state->old->tts_tid;
	}
}

/* States of groups that are no more; NULL: all, those of another database may be of any epoch. */
static void
delete_states(Apply *state, const Seen *seen)
{
	TableScanDesc scan = table_beginscan(state->relation, state->snapshot, 0, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, state->old))
	{
		CHECK_FOR_INTERRUPTS();
		if (seen == NULL || !is_seen(seen, &state->old->tts_tid))
			pgt_apply_delete(state);
	}
	table_endscan(scan);
	ExecClearTuple(state->old);
}

/*
 * Stores every state (pgt_delta_states) that is not there like this, and deletes the
 * others; the rows of the stage that follow from them are the result.
 */
PgtDeltaRows *
pgt_aggregate_full(Refresh *refresh, const PgtStage *stage, PgtDeltaRows *states, Apply *apply)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(states->desc, &TTSOpsMinimalTuple);
	PgtDeltaRows *result = palloc0(sizeof(PgtDeltaRows));
	StatedGroup *group = palloc0(offsetof(StatedGroup, states) +
								 sizeof(AggregateState) * stage->naggregates);
	KeyEntry entry = {.payload = group};
	Folding folding;
	Output output;
	Seen seen;

	result->desc = RelationGetDescr(apply->relation);
	result->rows = tuplestore_begin_heap(true, false, work_mem);
	begin_folding(&folding, stage, refresh->row.epoch, apply);
	folding.is_empty = !refresh->row.frontier.valid;
	if (folding.is_empty)
		delete_states(folding.state, NULL);
	else
		begin_seen(&seen, folding.state->relation);
	prepare_output(&folding, &output);
	tuplestore_rescan(states->rows);
	while (tuplestore_gettupleslot(states->rows, true, false, slot))
	{
		TupleTableSlot *row;

		CHECK_FOR_INTERRUPTS();
		take_group(&folding, slot, &entry);
		if (group->stored)
			note_seen(&seen, &group->tid);
		store_group(&folding, &entry);
		row = output_row(&folding, &output, &entry);
		if (row != NULL)
		{
			tuplestore_puttupleslot(result->rows, row);
			result->nrows++;
		}
		MemoryContextReset(folding.run.call_context);
		MemoryContextReset(folding.run.state_context);
	}
	if (!folding.is_empty)
	{
		delete_states(folding.state, &seen);
		pfree(seen.bits);
	}
	free_output(&output);
	end_folding(&folding);
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(states->rows);
	return result;
}
