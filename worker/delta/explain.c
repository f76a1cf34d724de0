/*
 * explain.c: the statements of a refresh, with their plans, for people.
 *
 * Works on statements as plan.c makes them, but keeps none. Where no changes
 * are given, an input gets an empty change set that counts as one changed row.
 * With analyze, statements run over the changes given; nothing is written, so
 * later stages have none.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/rel.h"

#include "delta_internal.h"

List *
pgt_explain_purposes(const PgtStage *stage)
{
	switch (stage->technique)
	{
		case PGT_TECHNIQUE_LINEAR:
			return list_make1_int(PURPOSE_SIGNED);
		case PGT_TECHNIQUE_AGGREGATE:
			return list_make1_int(PURPOSE_INPUTS);
		case PGT_TECHNIQUE_AKR:
		case PGT_TECHNIQUE_PARTITION:
			if (stage->is_virtual)
				return list_make3_int(PURPOSE_KEYS, PURPOSE_ROWS_OF_KEYS, PURPOSE_OLD_ROWS_OF_KEYS);
			if (pgt_emit_nkeys(stage) > 0)
				return list_make2_int(PURPOSE_KEYS, PURPOSE_ROWS_OF_KEYS);
			return list_make1_int(PURPOSE_ROWS_OF_KEYS);
		case PGT_TECHNIQUE_FULL:
			break;
	}
	return NIL;
}

/* ---- Change sets that nobody gave ---- */

static ChangeShape *
shape_of_input(PgtDelta *delta, Oid relid)
{
	AttrNumber *attnums = palloc(sizeof(AttrNumber) * MaxHeapAttributeNumber);
	int ncolumns = 0;
	ListCell *lc;

	foreach (lc, delta->definition->sources)
	{
		PgtSourceUse *source = lfirst(lc);
		int column = -1;

		if (source->relid == relid)
			while ((column = bms_next_member(source->columns, column)) >= 0)
				attnums[ncolumns++] = column;
	}
	foreach (lc, delta->definition->stages)
	{
		PgtStage *stage = lfirst(lc);

		if (stage->relid == relid)
			for (int i = 1; i <= list_length(pgt_tree_outputs(stage->query)); i++)
				attnums[ncolumns++] = i;
	}
	return pgt_run_make_shape(relid, pgt_run_input_number(delta, relid), ncolumns, attnums);
}

/* An empty change set that counts as one changed row. */
static PgtChangeSet *
make_changes(PgtDelta *delta, Oid relid)
{
	ChangeShape *shape = shape_of_input(delta, relid);
	PgtChangeSet *changes = palloc0(sizeof(PgtChangeSet));
	Relation relation = relation_open(relid, AccessShareLock);

	changes->relid = relid;
	changes->ncolumns = shape->ncolumns;
	changes->attnums = shape->attnums;
	changes->desc = CreateTemplateTupleDesc(shape->ncolumns + 1);
	TupleDescInitEntry(changes->desc, 1, PGT_WEIGHT_COLUMN, INT4OID, -1, 0);
	for (int i = 0; i < shape->ncolumns; i++)
		TupleDescCopyEntry(changes->desc, i + 2, RelationGetDescr(relation), shape->attnums[i]);
	changes->rows = tuplestore_begin_heap(true, false, work_mem);
	changes->nrows = 1;
	relation_close(relation, AccessShareLock);
	return changes;
}

/* Change sets of a statement of which all these changed, empty where none is given. */
static List *
complete_changes(PgtDelta *delta, List *relids, List *given)
{
	List *result = NIL;
	ListCell *lr;

	foreach (lr, relids)
	{
		PgtChangeSet *changes = NULL;
		ListCell *lc;

		foreach (lc, given)
		{
			PgtChangeSet *candidate = lfirst(lc);

			if (candidate->relid == lfirst_oid(lr) && candidate->nrows > 0)
				changes = candidate;
		}
		result = lappend(result, changes != NULL ? changes : make_changes(delta, lfirst_oid(lr)));
	}
	return result;
}

static Inputs *
make_inputs(PgtDelta *delta, const PgtStage *stage, Purpose purpose, List *changes,
			PgtDeltaRows *keys)
{
	Inputs *inputs = palloc0(sizeof(Inputs));
	PgtDeltaInput input = {.changes = changes};

	bool has_keys = purpose == PURPOSE_ROWS_OF_KEYS || purpose == PURPOSE_INPUTS_OF_KEYS ||
					purpose == PURPOSE_OLD_ROWS_OF_KEYS;

	if (!has_keys || purpose == PURPOSE_OLD_ROWS_OF_KEYS)
		pgt_run_collect_changes(delta, stage, &input, inputs);
	if (has_keys && pgt_emit_nkeys(stage) > 0)
		pgt_run_add_keys(stage, keys, keys->rows, inputs);
	return inputs;
}

static PgtDeltaRows *
make_no_keys(void)
{
	PgtDeltaRows *keys = palloc0(sizeof(PgtDeltaRows));

	keys->rows = tuplestore_begin_heap(true, false, work_mem);
	keys->nrows = 1;
	return keys;
}

Inputs *
pgt_explain_inputs(PgtDelta *delta, const PgtStage *stage, Purpose purpose, List *relids)
{
	return make_inputs(delta, stage, purpose, complete_changes(delta, relids, NIL), make_no_keys());
}

/* ---- Explaining ---- */

static void
explain_plan(PgtDeltaText *text, PgtPlan *plan, const Inputs *inputs, Snapshot snapshot,
			 bool analyze)
{
	text->plan = pgt_spi_explain(plan, inputs->inputs, inputs->ninputs, snapshot, analyze,
								 &text->estimated_rows, &text->actual_rows);
	pgt_spi_free_plan(plan);
}

static PgtDeltaText *
explain_statement(PgtDelta *delta, const PgtStage *stage, Purpose purpose, PgtDeltaInput *input,
				  PgtDeltaRows *keys, bool analyze)
{
	PgtDeltaText *text = palloc0(sizeof(PgtDeltaText));
	List *changes = complete_changes(delta, stage->inputs, input->changes);
	Inputs *inputs = make_inputs(delta, stage, purpose, changes, keys);

	text->stage = stage->number;
	text->purpose = pgt_plan_purpose_name(purpose);
	text->sql = pgt_plan_emit(stage, purpose, &inputs->emit, NULL);
	explain_plan(
		text, pgt_plan_statement(text->sql, inputs, pgt_plan_order(stage, purpose, &inputs->emit)),
		inputs, input->snapshot, analyze);
	return text;
}

static PgtDeltaText *
explain_full(const PgtStage *stage, Snapshot snapshot, bool analyze)
{
	PgtDeltaText *text = palloc0(sizeof(PgtDeltaText));
	Inputs inputs = {0};

	text->stage = stage->number;
	text->purpose = "full";
	text->sql = pgt_emit_all(stage);
	explain_plan(text, pgt_spi_prepare(text->sql, NULL, 0, 0), &inputs, snapshot, analyze);
	return text;
}

List *
pgt_delta_explain(PgtDelta *delta, PgtDeltaInput *input, bool analyze)
{
	List *texts = NIL;
	PgtSecurity saved;
	bool changed = pgt_run_become_owner(delta, &saved);
	ListCell *lc;

	foreach (lc, delta->definition->stages)
	{
		const PgtStage *stage = lfirst(lc);
		PgtDeltaRows *keys = make_no_keys();
		ListCell *lp;

		foreach (lp, pgt_explain_purposes(stage))
		{
			Purpose purpose = lfirst_int(lp);

			texts = lappend(texts, explain_statement(delta, stage, purpose, input, keys, analyze));
			if (purpose == PURPOSE_KEYS && analyze)
				keys = pgt_delta_keys(delta, foreach_current_index(lc), input);
		}
		if (stage->technique == PGT_TECHNIQUE_FULL)
			texts = lappend(texts, explain_full(stage, input->snapshot, analyze));
	}
	if (changed)
		pgt_security_restore(&saved);
	return texts;
}
