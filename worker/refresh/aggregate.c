/*
 * aggregate.c: technique AGGREGATE: input rows with weights are folded into
 * stored aggregate states, with PostgreSQL's own functions for moving windows
 * (pg_aggregate.aggmtransfn, aggminvtransfn, aggmfinalfn).
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
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_agg.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/expandeddatum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "pgt_compat.h"

#include "refresh_internal.h"

/* One aggregate call, with all that is needed to run it. */
typedef struct AggregateCall
{
	const PgtAggregate *aggregate;
	FmgrInfo transition;
	FmgrInfo inverse;
	FmgrInfo final;
	FmgrInfo serialize;
	FmgrInfo deserialize;
	bool has_final;
	bool is_internal; /* stored through serialize */
	int nfinal_args;
	Oid state_type;
	int16 state_len;
	bool state_byval;
	Datum initial;
	bool initial_isnull;
	int16 result_len;
	bool result_byval;
} AggregateCall;

typedef struct AggregateState
{
	Datum value;
	bool isnull;
	int64 count; /* transitions in it */
} AggregateState;

typedef struct StatedGroup
{
	bool stored;		 /* there is a row in the state table, */
	ItemPointerData tid; /* here */
	bool rebuild;
	int64 n;
	AggregateState states[FLEXIBLE_ARRAY_MEMBER];
} StatedGroup;

typedef struct Folding
{
	const PgtStage *stage;
	int64 epoch;
	AggregateCall *calls;
	WindowAggState *window; /* what aggregate functions take for their node */
	MemoryContext state_context;
	MemoryContext call_context; /* reset per row */
	KeyMap *groups;
	Apply *apply;  /* the stage's rows */
	Apply *state;  /* the state table */
	bool is_empty; /* the state table was emptied */
} Folding;

/* ---- Preparing ---- */

static Datum
initial_value(Oid aggfnoid, HeapTuple tuple, Oid type, bool *isnull)
{
	Datum initval = SysCacheGetAttr(AGGFNOID, tuple, Anum_pg_aggregate_aggminitval, isnull);
	Oid input;
	Oid ioparam;
	char *string;

	if (*isnull)
		return (Datum) 0;
	getTypeInputInfo(type, &input, &ioparam);
	string = TextDatumGetCString(initval);
	return OidInputFunctionCall(input, string, ioparam, -1);
}

static void
prepare_functions(AggregateCall *call, Form_pg_aggregate form)
{
	const PgtAggregate *aggregate = call->aggregate;
	Oid *types = (Oid *) aggregate->argtypes;
	Expr *transition;
	Expr *inverse;
	Expr *expression;

	build_aggregate_transfn_expr(types, aggregate->nargs, 0, false, call->state_type,
								 aggregate->collation, form->aggmtransfn, form->aggminvtransfn,
								 &transition, &inverse);
	fmgr_info(form->aggmtransfn, &call->transition);
	fmgr_info_set_expr((Node *) transition, &call->transition);
	fmgr_info(form->aggminvtransfn, &call->inverse);
	fmgr_info_set_expr((Node *) inverse, &call->inverse);
	if (OidIsValid(form->aggmfinalfn))
	{
		call->has_final = true;
		call->nfinal_args = form->aggmfinalextra ? aggregate->nargs + 1 : 1;
		build_aggregate_finalfn_expr(types, call->nfinal_args, call->state_type,
									 aggregate->result_type, aggregate->collation,
									 form->aggmfinalfn, &expression);
		fmgr_info(form->aggmfinalfn, &call->final);
		fmgr_info_set_expr((Node *) expression, &call->final);
	}
	if (call->is_internal)
	{
		build_aggregate_serialfn_expr(form->aggserialfn, &expression);
		fmgr_info(form->aggserialfn, &call->serialize);
		fmgr_info_set_expr((Node *) expression, &call->serialize);
		build_aggregate_deserialfn_expr(form->aggdeserialfn, &expression);
		fmgr_info(form->aggdeserialfn, &call->deserialize);
		fmgr_info_set_expr((Node *) expression, &call->deserialize);
	}
}

static void
prepare_call(AggregateCall *call, const PgtAggregate *aggregate)
{
	HeapTuple tuple;
	Form_pg_aggregate form;

	if (!pgt_compat_may_execute(aggregate->aggfnoid, GetUserId()))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_AGGREGATE, get_func_name(aggregate->aggfnoid));
	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggregate->aggfnoid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggregate->aggfnoid);
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	call->aggregate = aggregate;
	call->state_type = resolve_aggregate_transtype(aggregate->aggfnoid, form->aggmtranstype,
												   (Oid *) aggregate->argtypes, aggregate->nargs);
	call->is_internal = call->state_type == INTERNALOID;
	get_typlenbyval(call->state_type, &call->state_len, &call->state_byval);
	get_typlenbyval(aggregate->result_type, &call->result_len, &call->result_byval);
	prepare_functions(call, form);
	call->initial = initial_value(aggregate->aggfnoid, tuple, call->state_type,
								  &call->initial_isnull);
	ReleaseSysCache(tuple);
}

/* ---- Transitions ---- */

static void
start_state(Folding *folding, const AggregateCall *call, AggregateState *state)
{
	MemoryContext old = MemoryContextSwitchTo(folding->state_context);

	state->count = 0;
	state->isnull = call->initial_isnull;
	state->value = call->initial_isnull
					   ? (Datum) 0
					   : datumCopy(call->initial, call->state_byval, call->state_len);
	MemoryContextSwitchTo(old);
}

/* Takes over what a function returned, copied if it must outlive the call. */
static void
set_state(Folding *folding, const AggregateCall *call, AggregateState *state, Datum value,
		  bool isnull)
{
	if (!call->state_byval && DatumGetPointer(value) != DatumGetPointer(state->value))
	{
		Datum before = state->value;
		bool before_isnull = state->isnull;

		/* An expanded object that the function made in our context is ours already. */
		if (!isnull &&
			!(DatumIsReadWriteExpandedObject(value, false, call->state_len) &&
			  MemoryContextGetParent(DatumGetEOHP(value)->eoh_context) == folding->state_context))
		{
			MemoryContext old = MemoryContextSwitchTo(folding->state_context);

			value = datumCopy(value, call->state_byval, call->state_len);
			MemoryContextSwitchTo(old);
		}
		if (before_isnull)
			;
		else if (DatumIsReadWriteExpandedObject(before, false, call->state_len))
			DeleteExpandedObject(before);
		else
			pfree(DatumGetPointer(before));
	}
	state->value = value;
	state->isnull = isnull;
}

static Datum
call_function(Folding *folding, const AggregateCall *call, FmgrInfo *function,
			  const AggregateState *state, const Datum *args, const bool *isnull, int nargs,
			  bool *result_isnull)
{
	LOCAL_FCINFO(fcinfo, FUNC_MAX_ARGS);
	MemoryContext old = MemoryContextSwitchTo(folding->call_context);
	Datum result;

	InitFunctionCallInfoData(*fcinfo, function, nargs + 1, call->aggregate->collation,
							 (Node *) folding->window, NULL);
	fcinfo->args[0].value = state->value;
	fcinfo->args[0].isnull = state->isnull;
	for (int i = 0; i < nargs; i++)
	{
		fcinfo->args[i + 1].value = args[i];
		fcinfo->args[i + 1].isnull = isnull[i];
	}
	folding->window->curaggcontext = folding->state_context;
	result = FunctionCallInvoke(fcinfo);
	folding->window->curaggcontext = NULL;
	*result_isnull = fcinfo->isnull;
	MemoryContextSwitchTo(old);
	return result;
}

static bool
has_null(const bool *isnull, int nargs)
{
	for (int i = 0; i < nargs; i++)
		if (isnull[i])
			return true;
	return false;
}

/* As advance_windowaggregate(). */
static void
add_row(Folding *folding, AggregateCall *call, AggregateState *state, const Datum *args,
		const bool *isnull)
{
	int nargs = call->aggregate->nargs;
	Datum value;
	bool value_isnull;

	if (call->transition.fn_strict)
	{
		if (has_null(isnull, nargs))
			return;
		if (state->count == 0 && state->isnull)
		{
			/* The first value is the state, as nodeWindowAgg.c has it. */
			MemoryContext old = MemoryContextSwitchTo(folding->state_context);

			state->value = datumCopy(args[0], call->state_byval, call->state_len);
			state->isnull = false;
			state->count = 1;
			MemoryContextSwitchTo(old);
			return;
		}
	}
	value = call_function(folding, call, &call->transition, state, args, isnull, nargs,
						  &value_isnull);
	if (value_isnull)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("moving-aggregate transition function must not return null")));
	state->count++;
	set_state(folding, call, state, value, false);
}

/* As advance_windowaggregate_base(). False: this group has to be folded anew. */
static bool
remove_row(Folding *folding, AggregateCall *call, AggregateState *state, const Datum *args,
		   const bool *isnull)
{
	int nargs = call->aggregate->nargs;
	Datum value;
	bool value_isnull;

	if (call->inverse.fn_strict && has_null(isnull, nargs))
		return true;
	if (state->count <= 0 || state->isnull)
		return false;
	if (state->count == 1)
	{
		start_state(folding, call, state);
		return true;
	}
	value = call_function(folding, call, &call->inverse, state, args, isnull, nargs, &value_isnull);
	if (value_isnull)
		return false;
	state->count--;
	set_state(folding, call, state, value, false);
	return true;
}

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
			add_row(folding, call, &group->states[i], args, isnull);
		for (int64 j = weight; j < 0; j++)
			if (!remove_row(folding, call, &group->states[i], args, isnull))
			{
				group->rebuild = true;
				break;
			}
	}
	MemoryContextReset(folding->call_context);
}

/* ---- Stored states ---- */

static void
start_group(Folding *folding, StatedGroup *group)
{
	group->n = 0;
	for (int i = 0; i < folding->stage->naggregates; i++)
		start_state(folding, &folding->calls[i], &group->states[i]);
}

static void
load_state(Folding *folding, AggregateCall *call, AggregateState *state, Datum value, bool isnull)
{
	MemoryContext old = MemoryContextSwitchTo(folding->state_context);

	state->isnull = isnull;
	state->value = (Datum) 0;
	if (!isnull && call->is_internal)
	{
		LOCAL_FCINFO(fcinfo, 2);

		InitFunctionCallInfoData(*fcinfo, &call->deserialize, 2, InvalidOid,
								 (Node *) folding->window, NULL);
		fcinfo->args[0].value = value;
		fcinfo->args[0].isnull = false;
		fcinfo->args[1].value = (Datum) 0;
		fcinfo->args[1].isnull = false;
		folding->window->curaggcontext = folding->state_context;
		state->value = FunctionCallInvoke(fcinfo);
		folding->window->curaggcontext = NULL;
		state->isnull = fcinfo->isnull;
	}
	else if (!isnull && call->state_len == -1)
		state->value = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	else if (!isnull)
		state->value = datumCopy(value, call->state_byval, call->state_len);
	MemoryContextSwitchTo(old);
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
				load_state(folding, &folding->calls[i], &group->states[i], row->tts_values[column],
						   row->tts_isnull[column]);
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
			folding->state_context,
			offsetof(StatedGroup, states) + sizeof(AggregateState) * folding->stage->naggregates);

		entry->payload = group;
		load_group(folding, group, entry->values, entry->isnull);
	}
	return entry->payload;
}

static void
serialize_state(Folding *folding, AggregateCall *call, const AggregateState *state, Datum *value,
				bool *isnull)
{
	*value = state->value;
	*isnull = state->isnull;
	if (!state->isnull && call->is_internal)
		*value = call_function(folding, call, &call->serialize, state, NULL, NULL, 0, isnull);
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

	if (group->stored)
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
		serialize_state(folding, &folding->calls[i], &group->states[i], &row->tts_values[column],
						&row->tts_isnull[column]);
		row->tts_values[column + 1] = Int64GetDatum(group->states[i].count);
	}
	ExecStoreVirtualTuple(row);
	if (group->stored)
		pgt_apply_update(apply, row);
	else
		pgt_apply_insert(apply, row);
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

static Datum
final_value(Folding *folding, AggregateCall *call, const AggregateState *state, bool *isnull)
{
	static const Datum no_values[FUNC_MAX_ARGS] = {0};
	static bool all_null[FUNC_MAX_ARGS] = {false};
	AggregateState readonly = *state;

	if (!call->has_final)
	{
		*isnull = state->isnull;
		return state->value;
	}
	if (!all_null[0])
		memset(all_null, true, sizeof(all_null));
	if (call->final.fn_strict && (state->isnull || call->nfinal_args > 1))
	{
		*isnull = true;
		return (Datum) 0;
	}
	readonly.value = MakeExpandedObjectReadOnly(state->value, state->isnull, call->state_len);
	return call_function(folding, call, &call->final, &readonly, no_values, all_null,
						 call->nfinal_args - 1, isnull);
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
		output->group->tts_values[stage->nkeys + i] = final_value(
			folding, &folding->calls[i], &group->states[i],
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
		MemoryContextReset(folding->call_context);
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
	folding->state_context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle states",
												   ALLOCSET_DEFAULT_SIZES);
	folding->call_context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle call",
												  ALLOCSET_DEFAULT_SIZES);
	folding->window = makeNode(WindowAggState);
	folding->calls = palloc0(sizeof(AggregateCall) * Max(stage->naggregates, 1));
	for (int i = 0; i < stage->naggregates; i++)
		prepare_call(&folding->calls[i], &stage->aggregates[i]);
	folding->state = pgt_apply_begin(stage->state_relid, stage, true);
}

static void
end_folding(Folding *folding)
{
	pgt_apply_finish(folding->state);
	MemoryContextDelete(folding->call_context);
	MemoryContextDelete(folding->state_context);
}

/* Folds the input rows of a stage's delta into its states. False if they do not fit. */
bool
pgt_aggregate_run(Refresh *refresh, const PgtStage *stage, int index, PgtDeltaInput *input,
				  PgtDeltaRows *rows, Apply *apply)
{
	Folding folding;
	bool fits;

	begin_folding(&folding, stage, refresh->row.epoch, apply);
	folding.groups = pgt_keymap_make(folding.state->info->nkeys, folding.state->info->keys);
	fold(&folding, refresh, index, input, rows);
	fits = write_groups(&folding);
	pgt_keymap_free(folding.groups);
	end_folding(&folding);
	return fits;
}

/* ---- Everything anew ---- */

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
		load_state(folding, &folding->calls[i], &group->states[i], slot->tts_values[column],
				   slot->tts_isnull[column]);
		group->states[i].count = DatumGetInt64(slot->tts_values[column + 1]);
	}
	group->stored = !folding->is_empty &&
					pgt_apply_find(folding->state, entry->values, entry->isnull);
	if (group->stored)
		group->tid = folding->state->old->tts_tid;
}

/* Stored states of another database may be of any epoch. */
static void
delete_states(Apply *state)
{
	TableScanDesc scan = table_beginscan(state->relation, state->snapshot, 0, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, state->old))
		pgt_apply_delete(state);
	table_endscan(scan);
	ExecClearTuple(state->old);
}

/*
 * Stores every state (pgt_delta_states) under the next epoch; the rows of the stage
 * that follow from them are the result.
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

	result->desc = RelationGetDescr(apply->relation);
	result->rows = tuplestore_begin_heap(true, false, work_mem);
	begin_folding(&folding, stage, refresh->row.epoch + 1, apply);
	folding.is_empty = !refresh->row.frontier.valid;
	if (folding.is_empty)
		delete_states(folding.state);
	prepare_output(&folding, &output);
	tuplestore_rescan(states->rows);
	while (tuplestore_gettupleslot(states->rows, true, false, slot))
	{
		TupleTableSlot *row;

		CHECK_FOR_INTERRUPTS();
		take_group(&folding, slot, &entry);
		store_group(&folding, &entry);
		row = output_row(&folding, &output, &entry);
		if (row != NULL)
		{
			tuplestore_puttupleslot(result->rows, row);
			result->nrows++;
		}
		MemoryContextReset(folding.call_context);
		MemoryContextReset(folding.state_context);
	}
	free_output(&output);
	end_folding(&folding);
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(states->rows);
	return result;
}
