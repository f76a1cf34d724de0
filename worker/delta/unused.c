/*
 * unused.c: columns of subqueries that nobody asks for.
 *
 * The server does not compute them: it drops them where it pulls a subquery up
 * and puts a null in their place where it does not. A stage that computed them
 * could fail where the query does not, and would be changed by what nobody
 * sees. So a null takes their place here, too, in a normalized query.
 *
 * A WITH item that is named twice is two equal subqueries by now, and one stage
 * later. They stay equal: a column that one of them needs stays in both.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"

#include "delta_internal.h"

/* A subquery in FROM and the columns of it that are used. */
typedef struct Usage
{
	RangeTblEntry *rte;
	Bitmapset *columns;
	bool whole; /* as a row, or as an arm */
} Usage;

typedef struct UsageContext
{
	List *levels; /* Query, the innermost first */
	List *usages;
} UsageContext;

static Usage *
find_usage(UsageContext *context, RangeTblEntry *rte)
{
	Usage *usage;
	ListCell *lc;

	foreach (lc, context->usages)
		if (((Usage *) lfirst(lc))->rte == rte)
			return lfirst(lc);
	usage = palloc0(sizeof(Usage));
	usage->rte = rte;
	context->usages = lappend(context->usages, usage);
	return usage;
}

static void
note_var(UsageContext *context, const Var *var)
{
	Query *query = list_nth_node(Query, context->levels, var->varlevelsup);
	RangeTblEntry *rte = rt_fetch(var->varno, query->rtable);

	if (rte->rtekind != RTE_SUBQUERY)
		return;
	if (var->varattno <= 0)
		find_usage(context, rte)->whole = true;
	else
		find_usage(context, rte)->columns = bms_add_member(find_usage(context, rte)->columns,
														   var->varattno);
}

static bool
usage_walker(Node *node, void *context)
{
	UsageContext *ctx = context;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
		note_var(ctx, (Var *) node);
	else if (IsA(node, Query))
	{
		Query *query = (Query *) node;
		ListCell *lc;

		if (query->setOperations != NULL)
			foreach (lc, pgt_tree_arm_rtindexes(query))
				find_usage(ctx, rt_fetch(lfirst_int(lc), query->rtable))->whole = true;
		foreach (lc, query->rtable)
			if (lfirst_node(RangeTblEntry, lc)->rtekind == RTE_SUBQUERY)
				(void) find_usage(ctx, lfirst(lc));
		ctx->levels = lcons(query, ctx->levels);
		(void) query_tree_walker(query, usage_walker, context, QTW_IGNORE_JOINALIASES);
		ctx->levels = list_delete_first(ctx->levels);
		return false;
	}
	return expression_tree_walker(node, usage_walker, context);
}

/* What equal subqueries are asked for, together. */
static void
join_usages(List *usages)
{
	ListCell *lc;
	ListCell *other;

	foreach (lc, usages)
	{
		Usage *usage = lfirst(lc);

		for_each_cell (other, usages, lnext(usages, lc))
		{
			Usage *twin = lfirst(other);

			if (!equal(usage->rte->subquery, twin->rte->subquery))
				continue;
			usage->whole = twin->whole = usage->whole || twin->whole;
			usage->columns = bms_add_members(usage->columns, twin->columns);
			twin->columns = bms_copy(usage->columns);
		}
	}
}

/* As in the server: a column stays if the number of rows or their order hangs on it. */
static bool
can_be_null(const Query *query, const TargetEntry *tle)
{
	Node *expr = (Node *) tle->expr;

	return !tle->resjunk && tle->ressortgroupref == 0 && !IsA(expr, Var) && !IsA(expr, Const) &&
		   !expression_returns_set(expr) && !contain_volatile_functions(expr) &&
		   !contain_windowfuncs(expr) &&
		   (!contain_aggs_of_level(expr, 0) ||
			(query->groupClause != NIL && query->groupingSets == NIL));
}

/* Is anything different now? */
static bool
drop_columns(const Usage *usage)
{
	Query *query = usage->rte->subquery;
	bool dropped = false;
	ListCell *lc;

	if (usage->whole || query->setOperations != NULL ||
		(query->distinctClause != NIL && !query->hasDistinctOn))
		return false;
	foreach (lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Node *expr = (Node *) tle->expr;

		if (bms_is_member(tle->resno, usage->columns) || !can_be_null(query, tle))
			continue;
		tle->expr = (Expr *) makeNullConst(exprType(expr), exprTypmod(expr), exprCollation(expr));
		dropped = true;
	}
	if (!dropped)
		return false;
	query->hasAggs = contain_aggs_of_level((Node *) query->targetList, 0) ||
					 contain_aggs_of_level(query->havingQual, 0);
	query->hasSubLinks = checkExprHasSubLink((Node *) query);
	usage->rte->lateral = usage->rte->lateral && pgt_tree_has_outer_vars(query);
	return true;
}

void
pgt_unused_drop(Query *query)
{
	bool again = true;

	/* What a dropped column read may be unused, too, now. */
	while (again)
	{
		UsageContext context = {NIL, NIL};
		ListCell *lc;

		again = false;
		(void) usage_walker((Node *) query, &context);
		join_usages(context.usages);
		foreach (lc, context.usages)
			again = drop_columns(lfirst(lc)) || again;
	}
}
