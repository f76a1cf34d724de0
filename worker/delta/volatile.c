/*
 * volatile.c: functions whose result may change without any change of a source.
 *
 * PostgreSQL marks many functions STABLE only because they write values of any
 * type as text, or read them from text, and some types look different under
 * other settings (DateStyle, TimeZone, lc_monetary, ...). Called with types
 * that always look the same they are as good as IMMUTABLE: found here by the
 * function's oid and the types that the call has. Left out on purpose are
 * types whose text depends on a setting although their output function is
 * marked IMMUTABLE (float4, float8, bytea, interval), and enums, whose labels
 * can be renamed. JSON has dates and timestamps in ISO format under any
 * DateStyle, but no times with a time zone.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "pgt_compat.h"

#include "delta_internal.h"

typedef struct VolatilityContext
{
	char worst;	   /* PROVOLATILE_* to look for */
	List *queries; /* from the outermost */
	char *found;   /* name of the first one */
	int location;
} VolatilityContext;

/* ---- Types ---- */

typedef enum Form
{
	AS_TEXT,
	AS_JSON,
	FROM_TEXT
} Form;

static bool is_settled(Oid type, Form form);

static bool
is_settled_row(TupleDesc desc, Form form)
{
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped &&
			!is_settled(TupleDescAttr(desc, i)->atttypid, form))
			return false;
	return true;
}

static bool
is_settled_base(Oid type, Form form)
{
	Oid function;
	Oid parameter;
	bool varies;

	switch (type)
	{
		case FLOAT4OID:
		case FLOAT8OID:
		case BYTEAOID:
		case INTERVALOID:
			return form == FROM_TEXT && type != INTERVALOID;
		case DATEOID:
		case TIMESTAMPOID:
			return form == AS_JSON;
		default:
			break;
	}
	/* JSON looks for casts of types that users make. */
	if (form == AS_JSON && type >= FirstNormalObjectId)
		return false;
	if (form == FROM_TEXT)
		getTypeInputInfo(type, &function, &parameter);
	else
		getTypeOutputInfo(type, &function, &varies);
	return func_volatile(function) == PROVOLATILE_IMMUTABLE;
}

/* Do values of the type look the same under any settings? */
static bool
is_settled(Oid type, Form form)
{
	Oid base = getBaseType(type);
	Oid element = get_element_type(base);
	TupleDesc desc;
	bool settled;

	check_stack_depth();
	if (OidIsValid(element))
		return is_settled(element, form);
	switch (get_typtype(base))
	{
		case TYPTYPE_COMPOSITE:
			desc = lookup_rowtype_tupdesc(base, -1);
			settled = is_settled_row(desc, form);
			ReleaseTupleDesc(desc);
			return settled;
		case TYPTYPE_RANGE:
			return is_settled(get_range_subtype(base), form == FROM_TEXT ? FROM_TEXT : AS_TEXT);
		case TYPTYPE_MULTIRANGE:
			return is_settled(get_multirange_range(base), form);
		case TYPTYPE_BASE:
			return is_settled_base(base, form);
		default:
			return base == UNKNOWNOID || base == CSTRINGOID;
	}
}

static bool is_settled_expr(Node *expr, Form form, VolatilityContext *context);

/* Whole rows of a FROM item: the columns that it has. */
static bool
is_settled_entry(const Var *var, Form form, VolatilityContext *context)
{
	int level = list_length(context->queries) - 1 - (int) var->varlevelsup;
	RangeTblEntry *rte;
	ListCell *lc;

	if (level < 0 || var->varattno != 0)
		return false;
	rte = rt_fetch(var->varno, list_nth_node(Query, context->queries, level)->rtable);
	foreach (lc, pgt_compat_entry_columns(rte, var->varno, var->varlevelsup))
		if (exprType(lfirst(lc)) == RECORDOID || !is_settled_expr(lfirst(lc), form, context))
			return false;
	return true;
}

static bool
is_settled_list(List *exprs, Form form, VolatilityContext *context)
{
	ListCell *lc;

	foreach (lc, exprs)
		if (!is_settled_expr(lfirst(lc), form, context))
			return false;
	return true;
}

static bool
is_settled_expr(Node *expr, Form form, VolatilityContext *context)
{
	if (IsA(expr, TargetEntry))
		expr = (Node *) ((TargetEntry *) expr)->expr;
	if (exprType(expr) != RECORDOID)
		return is_settled(exprType(expr), form);
	if (IsA(expr, RowExpr))
		return is_settled_list(((RowExpr *) expr)->args, form, context);
	return IsA(expr, Var) && is_settled_entry((Var *) expr, form, context);
}

/* ---- Calls ---- */

/* A format that is written in the query, without signs of the locale: D, G, L and S. */
static bool
is_plain_number(Node *format)
{
	Const *constant = (Const *) format;

	if (!IsA(constant, Const) || constant->consttype != TEXTOID)
		return false;
	return constant->constisnull ||
		   strpbrk(TextDatumGetCString(constant->constvalue), "DdGgLlSs") == NULL;
}

/* The same, without the locale's names of months and days. */
static bool
is_plain_date(Node *format)
{
	Const *constant = (Const *) format;
	char *written;

	if (!IsA(constant, Const) || constant->consttype != TEXTOID)
		return false;
	if (constant->constisnull)
		return true;
	written = TextDatumGetCString(constant->constvalue);
	return strstr(written, "TM") == NULL && strstr(written, "tm") == NULL;
}

/* Is a STABLE function with these arguments as good as an IMMUTABLE one? */
static bool
is_settled_call(Oid function, List *args, Oid result, VolatilityContext *context)
{
	switch (function)
	{
		case F_TO_JSON:
		case F_TO_JSONB:
		case F_ROW_TO_JSON_RECORD:
		case F_ROW_TO_JSON_RECORD_BOOL:
		case F_ARRAY_TO_JSON_ANYARRAY:
		case F_ARRAY_TO_JSON_ANYARRAY_BOOL:
		case F_JSON_BUILD_ARRAY_ANY:
		case F_JSON_BUILD_ARRAY_:
		case F_JSON_BUILD_OBJECT_ANY:
		case F_JSON_BUILD_OBJECT_:
		case F_JSONB_BUILD_ARRAY_ANY:
		case F_JSONB_BUILD_ARRAY_:
		case F_JSONB_BUILD_OBJECT_ANY:
		case F_JSONB_BUILD_OBJECT_:
		case F_JSON_AGG:
		case F_JSONB_AGG:
		case F_JSON_OBJECT_AGG:
		case F_JSONB_OBJECT_AGG:
			return is_settled_list(args, AS_JSON, context);
		case F_ARRAY_TO_STRING_ANYARRAY_TEXT:
		case F_ARRAY_TO_STRING_ANYARRAY_TEXT_TEXT:
		case F_CONCAT:
		case F_CONCAT_WS:
		case F_FORMAT_TEXT:
		case F_FORMAT_TEXT_ANY:
		case F_QUOTE_LITERAL_ANYELEMENT:
		case F_QUOTE_NULLABLE_ANYELEMENT:
		case F_TEXTANYCAT:
		case F_ANYTEXTCAT:
			return is_settled_list(args, AS_TEXT, context);
		case F_JSON_POPULATE_RECORD:
		case F_JSONB_POPULATE_RECORD:
		case F_JSON_POPULATE_RECORDSET:
		case F_JSONB_POPULATE_RECORDSET:
			return result != RECORDOID && is_settled(result, FROM_TEXT);
		case F_TO_CHAR_NUMERIC_TEXT:
		case F_TO_CHAR_INT4_TEXT:
		case F_TO_CHAR_INT8_TEXT:
		case F_TO_CHAR_FLOAT4_TEXT:
		case F_TO_CHAR_FLOAT8_TEXT:
		case F_TO_NUMBER:
			return is_plain_number(lsecond(args));
		case F_TO_CHAR_TIMESTAMP_TEXT:
		case F_TO_CHAR_INTERVAL_TEXT:
		case F_TO_DATE:
			return is_plain_date(lsecond(args));
		default:
			return false;
	}
}

/* Reading and writing values as text is what it does. */
static bool
is_settled_coercion(CoerceViaIO *coercion, VolatilityContext *context)
{
	Node *arg = (Node *) coercion->arg;

	return is_settled_expr(arg, AS_TEXT, context) && is_settled(coercion->resulttype, FROM_TEXT);
}

static bool
is_settled_node(Node *node, VolatilityContext *context)
{
	switch (nodeTag(node))
	{
		case T_FuncExpr:
			return is_settled_call(((FuncExpr *) node)->funcid, ((FuncExpr *) node)->args,
								   ((FuncExpr *) node)->funcresulttype, context);
		case T_OpExpr:
			return is_settled_call(get_opcode(((OpExpr *) node)->opno), ((OpExpr *) node)->args,
								   InvalidOid, context);
		case T_Aggref:
			return is_settled_call(((Aggref *) node)->aggfnoid, ((Aggref *) node)->args, InvalidOid,
								   context);
		case T_WindowFunc:
			return is_settled_call(((WindowFunc *) node)->winfnoid, ((WindowFunc *) node)->args,
								   InvalidOid, context);
		case T_CoerceViaIO:
			return is_settled_coercion((CoerceViaIO *) node, context);
		default:
			return false;
	}
}

/* json_to_record and its like in FROM, with the columns that the query gives them. */
static bool
is_settled_record_function(RangeTblFunction *function)
{
	FuncExpr *call = (FuncExpr *) function->funcexpr;
	ListCell *lc;

	if (!IsA(call, FuncExpr) || function->funccoltypes == NIL)
		return false;
	switch (call->funcid)
	{
		case F_JSON_TO_RECORD:
		case F_JSON_TO_RECORDSET:
		case F_JSONB_TO_RECORD:
		case F_JSONB_TO_RECORDSET:
			break;
		default:
			return false;
	}
	foreach (lc, function->funccoltypes)
		if (!is_settled(lfirst_oid(lc), FROM_TEXT))
			return false;
	return true;
}

/* ---- The search ---- */

static bool
check_function(Oid function, void *context)
{
	VolatilityContext *ctx = context;

	if (func_volatile(function) != ctx->worst)
		return false;
	ctx->found = get_func_name(function);
	return true;
}

static bool
check_aggregate(Oid aggregate, VolatilityContext *context)
{
	HeapTuple tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggregate));
	Form_pg_aggregate form;
	bool found;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	found = check_function(form->aggtransfn, context) ||
			(OidIsValid(form->aggfinalfn) && check_function(form->aggfinalfn, context));
	ReleaseSysCache(tuple);
	if (found)
		context->found = get_func_name(aggregate);
	return found;
}

static bool volatility_walker(Node *node, void *context);

static bool
walk_query(Query *query, VolatilityContext *context)
{
	bool found;

	context->queries = lappend(context->queries, query);
	found = query_tree_walker(query, volatility_walker, context, QTW_IGNORE_JOINALIASES);
	context->queries = list_delete_last(context->queries);
	return found;
}

static bool
volatility_walker(Node *node, void *context)
{
	VolatilityContext *ctx = context;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return walk_query((Query *) node, ctx);
	if (IsA(node, RangeTblFunction) && ctx->worst == PROVOLATILE_STABLE &&
		is_settled_record_function((RangeTblFunction *) node))
		return volatility_walker(
			(Node *) ((FuncExpr *) ((RangeTblFunction *) node)->funcexpr)->args, context);
	if (IsA(node, SQLValueFunction) && ctx->worst == PROVOLATILE_STABLE)
		ctx->found = "CURRENT_DATE, CURRENT_USER or similar";
	else if (IsA(node, NextValueExpr) && ctx->worst == PROVOLATILE_VOLATILE)
		ctx->found = "nextval";
	else if ((IsA(node, Aggref) && check_aggregate(((Aggref *) node)->aggfnoid, ctx)) ||
			 (IsA(node, WindowFunc) && check_aggregate(((WindowFunc *) node)->winfnoid, ctx)) ||
			 check_functions_in_node(node, check_function, context))
	{
		if (ctx->worst == PROVOLATILE_STABLE && is_settled_node(node, ctx))
		{
			ctx->found = NULL;
			return expression_tree_walker(node, volatility_walker, context);
		}
	}
	else
		return expression_tree_walker(node, volatility_walker, context);
	ctx->location = exprLocation(node);
	return true;
}

/*
 * The first function of this volatility in the query, its name, and its
 * location (in bytes, from 0) or -1; NULL if there is none.
 */
char *
pgt_volatile_find(Query *query, char volatility, int *location)
{
	VolatilityContext context = {.worst = volatility, .location = -1};

	(void) volatility_walker((Node *) query, &context);
	*location = context.location;
	return context.found;
}
