/*
 * run.c: running the statements of a stage.
 *
 * A statement reads tables under the refresh's snapshot, and in memory the
 * change sets of its inputs and a key set. It runs as the owner, restricted;
 * its rows go straight into a tuplestore in the caller's memory context.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "executor/tstoreReceiver.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"

#include "pgt_security.h"

#include "delta_internal.h"

/* ---- Inputs of a statement ---- */

int
pgt_run_input_number(PgtDelta *delta, Oid relid)
{
	for (int i = 1; i <= delta->ninputs; i++)
		if (delta->inputs[i] == relid)
			return i;
	return 0;
}

ChangeShape *
pgt_run_make_shape(Oid relid, int number, int ncolumns, const AttrNumber *attnums)
{
	ChangeShape *shape = palloc0(sizeof(ChangeShape));

	shape->relid = relid;
	shape->number = number;
	shape->ncolumns = ncolumns;
	shape->attnums = palloc(sizeof(AttrNumber) * Max(ncolumns, 1));
	shape->names = palloc(sizeof(char *) * Max(ncolumns, 1));
	for (int i = 0; i < ncolumns; i++)
	{
		shape->attnums[i] = attnums[i];
		shape->names[i] = psprintf("c%d", attnums[i]);
	}
	return shape;
}

/* The change set under the names that the statements use. */
static TupleDesc
input_desc(const PgtChangeSet *changes, const ChangeShape *shape)
{
	TupleDesc desc = CreateTupleDescCopy(changes->desc);

	namestrcpy(&TupleDescAttr(desc, 0)->attname, PGT_WEIGHT_COLUMN);
	for (int i = 0; i < shape->ncolumns; i++)
		namestrcpy(&TupleDescAttr(desc, i + 1)->attname, shape->names[i]);
	return desc;
}

/* Inputs have no relation whose invalidation would tell that a column has another type. */
static void
add_types(uint64 *shape, TupleDesc desc)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		*shape = hash_combine64(*shape, att->atttypid);
		*shape = hash_combine64(*shape, (uint64) att->atttypmod);
		*shape = hash_combine64(*shape, att->attcollation);
	}
}

void
pgt_run_collect_changes(PgtDelta *delta, const PgtStage *stage, const PgtDeltaInput *input,
						Inputs *result)
{
	ListCell *lc;

	result->inputs = palloc0(sizeof(PgtInput) * (list_length(input->changes) + 1));
	foreach (lc, input->changes)
	{
		PgtChangeSet *changes = lfirst(lc);
		int number = pgt_run_input_number(delta, changes->relid);
		ChangeShape *shape;
		PgtInput *in;

		if (changes->nrows == 0 || number == 0 || !list_member_oid(stage->inputs, changes->relid))
			continue;
		if (number >= 64)
			elog(ERROR, "a stream table over more than 63 tables is not supported");
		shape = pgt_run_make_shape(changes->relid, number, changes->ncolumns, changes->attnums);
		in = &result->inputs[result->ninputs++];
		in->name = psprintf("pgt_delta_%d", number);
		in->desc = input_desc(changes, shape);
		in->rows = changes->rows;
		in->estimate = changes->nrows;
		result->emit.shapes = lappend(result->emit.shapes, shape);
		result->changed |= UINT64CONST(1) << number;
		result->shape = hash_combine64(result->shape, number);
		for (int i = 0; i < shape->ncolumns; i++)
			result->shape = hash_combine64(result->shape, shape->attnums[i]);
		add_types(&result->shape, in->desc);
		result->nrows += changes->nrows;
	}
}

void
pgt_run_add_keys(const PgtStage *stage, PgtDeltaRows *keys, Tuplestorestate *rows, Inputs *result)
{
	PgtInput *in;

	if (result->inputs == NULL)
		result->inputs = palloc0(sizeof(PgtInput));
	in = &result->inputs[result->ninputs++];
	in->name = "pgt_keys";
	in->desc = pgt_emit_key_desc(stage);
	add_types(&result->shape, in->desc);
	in->rows = rows;
	in->estimate = keys->nrows;
	result->nrows += keys->nrows;
}

/* ---- Running ---- */

/* Rights of the owner, unless the caller already runs with them. */
bool
pgt_run_become_owner(PgtDelta *delta, PgtSecurity *saved)
{
	Oid user;
	int context;

	GetUserIdAndSecContext(&user, &context);
	if (user == delta->owner && (context & SECURITY_RESTRICTED_OPERATION) != 0)
		return false;
	*saved = pgt_security_become(delta->owner);
	return true;
}

static PgtDeltaRows *
make_rows(void)
{
	PgtDeltaRows *rows = palloc0(sizeof(PgtDeltaRows));

	rows->rows = tuplestore_begin_heap(true, false, work_mem);
	return rows;
}

static void
run_plan(PgtPlan *plan, Inputs *inputs, Snapshot snapshot, PgtDeltaRows *result)
{
	DestReceiver *dest = CreateDestReceiver(DestTuplestore);

	SetTuplestoreDestReceiverParams(dest, result->rows, CurrentMemoryContext, false, NULL, NULL);
	if (result->desc == NULL)
		result->desc = CreateTupleDescCopy(pgt_spi_plan_desc(plan));
	result->nrows += pgt_spi_run(plan, inputs->inputs, inputs->ninputs, snapshot, dest);
	dest->rDestroy(dest);
}

/* Of a recursion: they may not come to an end. */
static void
run_rounds(PgtPlan *plan, Inputs *inputs, Snapshot snapshot, PgtDeltaRows *result)
{
	int level = NewGUCNestLevel();

	if (temp_file_limit < 0 || temp_file_limit > PGT_RECURSION_FILES)
		(void) set_config_option("temp_file_limit", CppAsString2(PGT_RECURSION_FILES), PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	run_plan(plan, inputs, snapshot, result);
	AtEOXact_GUC(false, level);
	if (result->nrows >= PGT_RECURSION_ROWS)
		ereport(ERROR, (errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
						errmsg("the changes of a recursive query do not come to an end")));
}

static PgtDeltaRows *
run_statement(PgtDelta *delta, int stage_index, Purpose purpose, PgtDeltaInput *input)
{
	const PgtStage *stage = list_nth(delta->definition->stages, stage_index);
	PgtDeltaRows *result = make_rows();
	Inputs inputs = {0};
	PgtPlan *plan;
	PgtSecurity saved;
	bool changed = pgt_run_become_owner(delta, &saved);

	pgt_run_collect_changes(delta, stage, input, &inputs);
	plan = pgt_plan_get(delta, stage, purpose, &inputs, NULL);
	if (stage->recursion != NULL)
		run_rounds(plan, &inputs, input->snapshot, result);
	else
		run_plan(plan, &inputs, input->snapshot, result);
	if (changed)
		pgt_security_restore(&saved);
	return result;
}

/* A part of a key set whose nulls are in the same columns. */
typedef struct KeyPart
{
	Bitmapset *nulls;
	Tuplestorestate *rows;
	int64 nrows;
} KeyPart;

static List *
split_keys(const PgtStage *stage, PgtDeltaRows *keys)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(keys->desc, &TTSOpsMinimalTuple);
	List *parts = NIL;

	tuplestore_rescan(keys->rows);
	while (tuplestore_gettupleslot(keys->rows, true, false, slot))
	{
		Bitmapset *nulls = NULL;
		KeyPart *part = NULL;
		ListCell *lc;

		slot_getallattrs(slot);
		for (int i = 0; i < keys->desc->natts; i++)
			if (slot->tts_isnull[i])
				nulls = bms_add_member(nulls, i + 1);
		foreach (lc, parts)
			if (bms_equal(((KeyPart *) lfirst(lc))->nulls, nulls))
				part = lfirst(lc);
		if (part == NULL)
		{
			part = palloc0(sizeof(KeyPart));
			part->nulls = nulls;
			part->rows = tuplestore_begin_heap(true, false, work_mem);
			parts = lappend(parts, part);
		}
		tuplestore_puttupleslot(part->rows, slot);
		part->nrows++;
	}
	ExecDropSingleTupleTableSlot(slot);
	return parts;
}

/* The first few rows, for which the plan is kept; else everything is planned each time. */
static bool
is_top(const PgtStage *stage)
{
	return pgt_layer_has_limit(stage->query);
}

/* The changes are inputs of the old rows, beside the keys. */
static PgtDeltaRows *
run_with_keys(PgtDelta *delta, int stage_index, Purpose purpose, PgtDeltaInput *input,
			  PgtDeltaRows *keys)
{
	const PgtStage *stage = list_nth(delta->definition->stages, stage_index);
	PgtDeltaRows *result = make_rows();
	PgtSecurity saved;
	bool changed;
	ListCell *lc;

	if (pgt_emit_nkeys(stage) == 0 && purpose == PURPOSE_ROWS_OF_KEYS && !is_top(stage))
		return pgt_delta_all(delta, stage_index, input);
	changed = pgt_run_become_owner(delta, &saved);
	if (pgt_emit_nkeys(stage) == 0)
	{
		Inputs inputs = {0};

		inputs.nrows = is_top(stage) ? 0 : PG_INT32_MAX; /* everything */
		run_plan(pgt_plan_get(delta, stage, purpose, &inputs, NULL), &inputs, input->snapshot,
				 result);
	}
	else
		foreach (lc, split_keys(stage, keys))
		{
			KeyPart *part = lfirst(lc);
			Inputs inputs = {0};

			if (purpose == PURPOSE_OLD_ROWS_OF_KEYS)
				pgt_run_collect_changes(delta, stage, input, &inputs);
			pgt_run_add_keys(stage, keys, part->rows, &inputs);
			inputs.nrows = Max(part->nrows, inputs.nrows - keys->nrows);
			run_plan(pgt_plan_get(delta, stage, purpose, &inputs, part->nulls), &inputs,
					 input->snapshot, result);
			tuplestore_end(part->rows);
		}
	if (changed)
		pgt_security_restore(&saved);
	return result;
}

PgtDeltaRows *
pgt_delta_keys(PgtDelta *delta, int stage_index, PgtDeltaInput *input)
{
	const PgtStage *stage = list_nth(delta->definition->stages, stage_index);

	if (pgt_emit_nkeys(stage) == 0 && !pgt_emit_has_filter(stage))
	{
		PgtDeltaRows *result = make_rows();

		result->desc = CreateTemplateTupleDesc(0);
		result->nrows = 1;
		return result;
	}
	return run_statement(delta, stage_index, PURPOSE_KEYS, input);
}

PgtDeltaRows *
pgt_delta_signed(PgtDelta *delta, int stage, PgtDeltaInput *input)
{
	return run_statement(delta, stage, PURPOSE_SIGNED, input);
}

PgtDeltaRows *
pgt_delta_inputs(PgtDelta *delta, int stage, PgtDeltaInput *input)
{
	return run_statement(delta, stage, PURPOSE_INPUTS, input);
}

PgtDeltaRows *
pgt_delta_rows_of_keys(PgtDelta *delta, int stage, PgtDeltaInput *input, PgtDeltaRows *keys)
{
	return run_with_keys(delta, stage, PURPOSE_ROWS_OF_KEYS, input, keys);
}

PgtDeltaRows *
pgt_delta_old_rows_of_keys(PgtDelta *delta, int stage, PgtDeltaInput *input, PgtDeltaRows *keys)
{
	return run_with_keys(delta, stage, PURPOSE_OLD_ROWS_OF_KEYS, input, keys);
}

PgtDeltaRows *
pgt_delta_inputs_of_keys(PgtDelta *delta, int stage, PgtDeltaInput *input, PgtDeltaRows *keys)
{
	return run_with_keys(delta, stage, PURPOSE_INPUTS_OF_KEYS, input, keys);
}

/* Everything anew: planned each time, with the server's own settings. */
static PgtDeltaRows *
run_once(PgtDelta *delta, const PgtStage *stage, char *(*emit)(const PgtStage *stage),
		 PgtDeltaInput *input)
{
	PgtDeltaRows *result = make_rows();
	Inputs inputs = {0};
	PgtSecurity saved;
	bool changed = pgt_run_become_owner(delta, &saved);
	int level = NewGUCNestLevel();
	PgtPlan *plan;

	(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	plan = pgt_spi_prepare(emit(stage), NULL, 0, CURSOR_OPT_PARALLEL_OK);
	run_plan(plan, &inputs, input->snapshot, result);
	pgt_spi_free_plan(plan);
	AtEOXact_GUC(false, level);
	if (changed)
		pgt_security_restore(&saved);
	return result;
}

PgtDeltaRows *
pgt_delta_all(PgtDelta *delta, int stage, PgtDeltaInput *input)
{
	return run_once(delta, list_nth(delta->definition->stages, stage), pgt_emit_all, input);
}

PgtDeltaRows *
pgt_delta_states(PgtDelta *delta, int stage, PgtDeltaInput *input)
{
	return run_once(delta, list_nth(delta->definition->stages, stage), pgt_emit_states, input);
}
