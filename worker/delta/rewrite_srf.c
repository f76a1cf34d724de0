/*
 * rewrite_srf.c: set-returning functions as plain FROM items.
 *
 * Functions in the select list become FROM items behind all others: those on
 * the same level of nesting in one ROWS FROM, which runs them in lockstep as
 * the select list does, those that are computed from others behind these.
 *
 * A left join with a function, ... A LEFT JOIN f(A.x) ON c, becomes an inner
 * one with a subquery that gives one row of NULLs where f gives none:
 *
 *	  A, LATERAL (SELECT f.* FROM (SELECT) one LEFT JOIN f(A.x) ON c)
 *
 * Both are linear then: functions that read no table pass weights.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"

#include "pgt_compat.h"

#include "rewrite.h"

/* ---- In the select list ---- */

typedef struct SrfContext
{
	int first;	   /* range table index of the first level */
	List *calls;   /* expressions as they were, */
	List *columns; /* and the Vars that they became */
	List *levels;  /* lists of RangeTblFunction */
} SrfContext;

static bool
is_set_returning(const Node *node)
{
	return (IsA(node, FuncExpr) && ((const FuncExpr *) node)->funcretset) ||
		   (IsA(node, OpExpr) && ((const OpExpr *) node)->opretset);
}

/* The level of the functions whose columns an expression reads; 0: none. */
static int
level_of(Node *expr, const SrfContext *context)
{
	Bitmapset *varnos = pull_varnos(NULL, expr);
	int level = 0;
	int varno = context->first - 1;

	while ((varno = bms_next_member(varnos, varno)) >= 0)
		level = varno - context->first + 1;
	return level;
}

static Var *
add_function(Node *call, SrfContext *context)
{
	RangeTblFunction *function = makeNode(RangeTblFunction);
	int level = level_of(call, context);
	ListCell *cell;

	if (IsA(call, OpExpr))
	{
		OpExpr *op = (OpExpr *) call;
		FuncExpr *expr = makeFuncExpr(get_opcode(op->opno), op->opresulttype, op->args,
									  op->opcollid, op->inputcollid, COERCE_EXPLICIT_CALL);

		expr->funcretset = true;
		call = (Node *) expr;
	}
	function->funcexpr = call;
	function->funccolcount = 1;
	if (level == list_length(context->levels))
		context->levels = lappend(context->levels, NIL);
	cell = list_nth_cell(context->levels, level);
	lfirst(cell) = lappend(lfirst(cell), function);
	return makeVar(context->first + level, list_length(lfirst(cell)), exprType(call), -1,
				   exprCollation(call), 0);
}

static Node *
srf_mutator(Node *node, void *context)
{
	SrfContext *ctx = context;
	Node *call;
	Var *column;
	ListCell *lc;
	ListCell *lv;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
		return node;
	if (!is_set_returning(node))
		return expression_tree_mutator(node, srf_mutator, context);
	forboth (lc, ctx->calls, lv, ctx->columns)
		if (equal(lfirst(lc), node))
			return (Node *) copyObject(lfirst(lv));
	call = expression_tree_mutator(node, srf_mutator, context);
	column = add_function(call, ctx);
	ctx->calls = lappend(ctx->calls, node);
	ctx->columns = lappend(ctx->columns, column);
	return (Node *) copyObject(column);
}

/* Of a query in which nothing stands between the select list and FROM. */
Query *
pgt_rewrite_target_srfs(Query *query)
{
	SrfContext context = {.first = list_length(query->rtable) + 1};
	ListCell *lc;

	query->targetList = (List *) srf_mutator((Node *) query->targetList, &context);
	query->hasTargetSRFs = false;
	foreach (lc, context.levels)
	{
		RangeTblEntry *rte = makeNode(RangeTblEntry);
		RangeTblRef *ref = makeNode(RangeTblRef);
		List *names = NIL;
		char *alias = psprintf("pgt_f%d", foreach_current_index(lc) + 1);

		for (int i = 1; i <= list_length(lfirst(lc)); i++)
			names = lappend(names, makeString(psprintf("f%d", i)));
		rte->rtekind = RTE_FUNCTION;
		rte->functions = lfirst(lc);
		rte->lateral = true;
		rte->alias = makeAlias(alias, copyObject(names));
		rte->eref = makeAlias(alias, names);
		rte->inFromCl = true;
		query->rtable = lappend(query->rtable, rte);
		ref->rtindex = list_length(query->rtable);
		query->jointree->fromlist = lappend(query->jointree->fromlist, ref);
	}
	return query;
}

/* Are there functions in the select list that are computed after grouping? */
bool
pgt_rewrite_has_srfs_above(const Query *query)
{
	ListCell *lc;

	if (!query->hasTargetSRFs || (!pgt_stage_is_group(query) && !query->hasWindowFuncs))
		return false;
	foreach (lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		bool is_key = false;
		ListCell *lg;

		foreach (lg, query->groupClause)
			is_key = is_key ||
					 (tle->ressortgroupref != 0 &&
					  lfirst_node(SortGroupClause, lg)->tleSortGroupRef == tle->ressortgroupref);
		if (!is_key && expression_returns_set((Node *) tle->expr))
			return true;
	}
	return false;
}

/* ---- Left joins with functions ---- */

typedef struct InnerContext
{
	int function; /* becomes entry 2; all else is one level up */
} InnerContext;

static Node *
inner_mutator(Node *node, void *context)
{
	InnerContext *ctx = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var *var = copyObject((Var *) node);

		if (var->varlevelsup == 0 && var->varno == ctx->function)
			var->varno = var->varnosyn = 2;
		else
			var->varlevelsup++;
		return (Node *) var;
	}
	return expression_tree_mutator(node, inner_mutator, context);
}

static Query *
function_or_nulls(RangeTblEntry *function, Node *quals)
{
	Query *one = makeNode(Query);
	Query *query = pgt_tree_wrap(one);
	RangeTblRef *right = makeNode(RangeTblRef);
	RangeTblEntry *join_entry = makeNode(RangeTblEntry);
	JoinExpr *join = makeNode(JoinExpr);
	ListCell *lc;
	ListCell *lv;

	one->commandType = CMD_SELECT;
	one->querySource = QSRC_ORIGINAL;
	one->canSetTag = true;
	one->jointree = makeFromExpr(NIL, NULL);
	query->rtable = lappend(query->rtable, function);
	forboth (lc, function->eref->colnames, lv, pgt_compat_entry_columns(function, 2, 0))
		query->targetList = lappend(query->targetList,
									makeTargetEntry(lfirst(lv), foreach_current_index(lc) + 1,
													pstrdup(strVal(lfirst(lc))), false));
	right->rtindex = 2;
	join->jointype = JOIN_LEFT;
	join->larg = linitial(query->jointree->fromlist);
	join->rarg = (Node *) right;
	join->quals = quals;
	join->rtindex = 3;
	join_entry->rtekind = RTE_JOIN;
	join_entry->jointype = JOIN_LEFT;
	join_entry->inFromCl = true;
	pgt_tree_fill_join(query, join_entry, join->larg, join->rarg);
	query->rtable = lappend(query->rtable, join_entry);
	query->jointree->fromlist = list_make1(join);
	return query;
}

static void
rewrite_left_join(Query *query, JoinExpr *join)
{
	int rtindex = ((RangeTblRef *) join->rarg)->rtindex;
	RangeTblEntry *rte = rt_fetch(rtindex, query->rtable);
	RangeTblEntry *inner = copyObject(rte);
	InnerContext context = {rtindex};

	for (int i = 1; i <= list_length(rte->eref->colnames); i++)
		if (get_rte_attribute_is_dropped(rte, i))
			return;
	IncrementVarSublevelsUp((Node *) inner->functions, 1, 0);
	IncrementVarSublevelsUp((Node *) inner->tablefunc, 1, 0);
	rte->subquery = function_or_nulls(inner, inner_mutator(join->quals, &context));
	rte->rtekind = RTE_SUBQUERY;
	rte->lateral = true;
	rte->functions = NIL;
	rte->funcordinality = false;
	rte->tablefunc = NULL;
	rte->coltypes = rte->coltypmods = rte->colcollations = NIL;
	join->jointype = rt_fetch(join->rtindex, query->rtable)->jointype = JOIN_INNER;
	join->quals = NULL;
}

void
pgt_rewrite_function_joins(Query *query, Node *node)
{
	ListCell *lc;

	if (IsA(node, FromExpr))
	{
		foreach (lc, ((FromExpr *) node)->fromlist)
			pgt_rewrite_function_joins(query, lfirst(lc));
	}
	else if (IsA(node, JoinExpr))
	{
		JoinExpr *join = (JoinExpr *) node;
		RangeTblEntry *rte;

		pgt_rewrite_function_joins(query, join->larg);
		pgt_rewrite_function_joins(query, join->rarg);
		if (join->jointype != JOIN_LEFT || !IsA(join->rarg, RangeTblRef) ||
			contain_subplans(join->quals))
			return;
		rte = rt_fetch(((RangeTblRef *) join->rarg)->rtindex, query->rtable);
		if ((rte->rtekind == RTE_FUNCTION || rte->rtekind == RTE_TABLEFUNC) &&
			!pgt_rewrite_is_used_whole(query, ((RangeTblRef *) join->rarg)->rtindex))
			rewrite_left_join(query, join);
	}
}
