/*
 * aggregate_state.c: the state of one aggregate: rows come and go.
 *
 * Calls PostgreSQL's own functions for moving windows (pg_aggregate.aggmtransfn,
 * aggminvtransfn, aggmfinalfn) as nodeWindowAgg.c does: strict functions skip
 * rows with null arguments, the first value of a strict one is the state, and
 * the last transition is never inverted, the state starts anew.
 */
#include "postgres.h"

#include "catalog/pg_aggregate.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_agg.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/expandeddatum.h"

#include "pgt_compat.h"

#include "aggregate_state.h"

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
		build_aggregate_transfn_expr(&call->state_type, 1, 0, false, call->state_type,
									 aggregate->collation, form->aggcombinefn, InvalidOid,
									 &transition, NULL);
		fmgr_info(form->aggcombinefn, &call->combine);
		fmgr_info_set_expr((Node *) transition, &call->combine);
	}
}

void
pgt_aggregate_prepare(AggregateCall *call, const PgtAggregate *aggregate)
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

void
pgt_aggregate_start(AggregateRun *run, const AggregateCall *call, AggregateState *state)
{
	MemoryContext old = MemoryContextSwitchTo(run->state_context);

	state->count = 0;
	state->isnull = call->initial_isnull;
	state->value = call->initial_isnull
					   ? (Datum) 0
					   : datumCopy(call->initial, call->state_byval, call->state_len);
	MemoryContextSwitchTo(old);
}

/* Takes over what a function returned, copied if it must outlive the call. */
static void
set_state(AggregateRun *run, const AggregateCall *call, AggregateState *state, Datum value,
		  bool isnull)
{
	if (!call->state_byval && DatumGetPointer(value) != DatumGetPointer(state->value))
	{
		Datum before = state->value;
		bool before_isnull = state->isnull;

		/* An expanded object that the function made in our context is ours already. */
		if (!isnull &&
			!(DatumIsReadWriteExpandedObject(value, false, call->state_len) &&
			  MemoryContextGetParent(DatumGetEOHP(value)->eoh_context) == run->state_context))
		{
			MemoryContext old = MemoryContextSwitchTo(run->state_context);

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
call_function(AggregateRun *run, const AggregateCall *call, FmgrInfo *function,
			  const AggregateState *state, const Datum *args, const bool *isnull, int nargs,
			  bool *result_isnull)
{
	LOCAL_FCINFO(fcinfo, FUNC_MAX_ARGS);
	MemoryContext old = MemoryContextSwitchTo(run->call_context);
	Datum result;

	InitFunctionCallInfoData(*fcinfo, function, nargs + 1, call->aggregate->collation,
							 (Node *) run->window, NULL);
	fcinfo->args[0].value = state->value;
	fcinfo->args[0].isnull = state->isnull;
	for (int i = 0; i < nargs; i++)
	{
		fcinfo->args[i + 1].value = args[i];
		fcinfo->args[i + 1].isnull = isnull[i];
	}
	run->window->curaggcontext = run->state_context;
	result = FunctionCallInvoke(fcinfo);
	run->window->curaggcontext = NULL;
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
void
pgt_aggregate_add(AggregateRun *run, AggregateCall *call, AggregateState *state, const Datum *args,
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
			MemoryContext old = MemoryContextSwitchTo(run->state_context);

			state->value = datumCopy(args[0], call->state_byval, call->state_len);
			state->isnull = false;
			state->count = 1;
			MemoryContextSwitchTo(old);
			return;
		}
	}
	value = call_function(run, call, &call->transition, state, args, isnull, nargs, &value_isnull);
	if (value_isnull)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("moving-aggregate transition function must not return null")));
	state->count++;
	set_state(run, call, state, value, false);
}

/* As advance_windowaggregate_base(). False: this group has to be folded anew. */
bool
pgt_aggregate_remove(AggregateRun *run, AggregateCall *call, AggregateState *state,
					 const Datum *args, const bool *isnull)
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
		pgt_aggregate_start(run, call, state);
		return true;
	}
	value = call_function(run, call, &call->inverse, state, args, isnull, nargs, &value_isnull);
	if (value_isnull)
		return false;
	state->count--;
	set_state(run, call, state, value, false);
	return true;
}

/* ---- Stored and final values ---- */

/*
 * What a deserialization function returns is only good for being combined: before PostgreSQL
 * 15.19, that of var_pop(int) and its like no longer sums squares. So it is combined with a
 * state of no rows, as parallel aggregation does.
 */
static void
load_internal(AggregateRun *run, AggregateCall *call, AggregateState *state, Datum value)
{
	AggregateState stored = {.value = value};
	AggregateState none = {.isnull = true};
	Datum read;
	bool isnull;
	static const Datum unused[1] = {0};
	static const bool not_null[1] = {false};

	read = call_function(run, call, &call->deserialize, &stored, unused, not_null, 1, &isnull);
	state->value = call_function(run, call, &call->combine, &none, &read, &isnull, 1,
								 &state->isnull);
}

void
pgt_aggregate_load(AggregateRun *run, AggregateCall *call, AggregateState *state, Datum value,
				   bool isnull)
{
	MemoryContext old;

	state->isnull = isnull;
	state->value = (Datum) 0;
	if (isnull)
		return;
	if (call->is_internal)
	{
		load_internal(run, call, state, value);
		return;
	}
	old = MemoryContextSwitchTo(run->state_context);
	state->value = call->state_len == -1 ? PointerGetDatum(PG_DETOAST_DATUM_COPY(value))
										 : datumCopy(value, call->state_byval, call->state_len);
	MemoryContextSwitchTo(old);
}

void
pgt_aggregate_serialize(AggregateRun *run, AggregateCall *call, const AggregateState *state,
						Datum *value, bool *isnull)
{
	*value = state->value;
	*isnull = state->isnull;
	if (!state->isnull && call->is_internal)
		*value = call_function(run, call, &call->serialize, state, NULL, NULL, 0, isnull);
}

Datum
pgt_aggregate_final(AggregateRun *run, AggregateCall *call, const AggregateState *state,
					bool *isnull)
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
	return call_function(run, call, &call->final, &readonly, no_values, all_null,
						 call->nfinal_args - 1, isnull);
}
