/*
 * rewrite_grouping.c: GROUPING SETS, ROLLUP and CUBE as one GROUP BY per set.
 *
 * The query becomes a UNION ALL of one arm per grouping set, as PostgreSQL
 * itself expands them. In an arm, the grouping expressions that its set lacks
 * are NULL, outside of the arguments of aggregates, and GROUPING() is a
 * constant. Each arm is a stage.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_agg.h"
#include "rewrite/rewriteManip.h"

#include "rewrite.h"

typedef struct SetContext
{
	Query *query; /* with all group clauses */
	List *set;	  /* integer list of tleSortGroupRef */
	int depth;	  /* levels below the query, in subqueries of expressions */
} SetContext;

static Node *
grouping_constant(const GroupingFunc *function, const SetContext *context)
{
	int32 value = 0;
	ListCell *lc;

	foreach (lc, function->refs)
		value = value << 1 | (list_member_int(context->set, lfirst_int(lc)) ? 0 : 1);
	return (Node *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(value), false,
							  true);
}

/* The group clause that an expression is, or NULL. */
static SortGroupClause *
clause_of(Node *node, const SetContext *context)
{
	ListCell *lc;

	foreach (lc, context->query->groupClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		Node *expr = get_sortgroupclause_expr(clause, context->query->targetList);

		if (nodeTag(expr) != nodeTag(node))
			continue;
		if (context->depth > 0)
		{
			expr = copyObject(expr);
			IncrementVarSublevelsUp(expr, context->depth, 0);
		}
		if (equal(expr, node))
			return clause;
	}
	return NULL;
}

static Node *
in_set(Node *node, Index ref, const SetContext *context)
{
	if (list_member_int(context->set, ref))
		return (Node *) copyObject(node);
	return (Node *) makeNullConst(exprType(node), exprTypmod(node), exprCollation(node));
}

static Node *
set_mutator(Node *node, void *context)
{
	SetContext *ctx = context;
	SortGroupClause *clause;

	if (node == NULL)
		return NULL;
	if (IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == ctx->depth)
		return (Node *) copyObject(node);
	if (IsA(node, GroupingFunc) && ((GroupingFunc *) node)->agglevelsup == ctx->depth)
		return grouping_constant((GroupingFunc *) node, ctx);
	clause = clause_of(node, ctx);
	if (clause != NULL)
		return in_set(node, clause->tleSortGroupRef, ctx);
	if (IsA(node, Query))
	{
		Query *query;

		ctx->depth++;
		query = query_tree_mutator((Query *) node, set_mutator, context, 0);
		ctx->depth--;
		return (Node *) query;
	}
	return expression_tree_mutator(node, set_mutator, context);
}

/* The query with GROUP BY of one set. */
static Query *
arm_of(Query *query, List *set)
{
	SetContext context = {query, set, 0};
	Query *arm = copyObject(query);
	ListCell *lc;

	arm->groupingSets = NIL;
	arm->groupDistinct = false;
	arm->groupClause = NIL;
	foreach (lc, query->groupClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);

		if (list_member_int(set, clause->tleSortGroupRef))
			arm->groupClause = lappend(arm->groupClause, copyObject(clause));
	}
	arm->targetList = NIL;
	foreach (lc, query->targetList)
	{
		TargetEntry *tle = copyObject(lfirst_node(TargetEntry, lc));
		Index ref = tle->ressortgroupref;

		if (ref != 0 && get_sortgroupref_clause_noerr(ref, query->groupClause) != NULL)
			tle->expr = (Expr *) in_set((Node *) tle->expr, ref, &context);
		else
			tle->expr = (Expr *) set_mutator((Node *) tle->expr, &context);
		if (!list_member_int(set, ref))
			tle->ressortgroupref = 0;
		arm->targetList = lappend(arm->targetList, tle);
	}
	arm->havingQual = set_mutator(query->havingQual, &context);
	/* GROUPING(), which is a constant now, counted as one. */
	arm->hasAggs = contain_aggs_of_level((Node *) arm->targetList, 0) ||
				   contain_aggs_of_level(arm->havingQual, 0);
	/* The empty set is one group, also of a query without aggregates. */
	if (arm->groupClause == NIL && !arm->hasAggs && arm->havingQual == NULL)
		arm->havingQual = (Node *) makeBoolConst(true, false);
	pgt_tree_drop_junk(arm);
	return arm;
}

/* A query whose output shows all group keys and in which nothing stands above the groups. */
Query *
pgt_rewrite_grouping_sets(Query *query)
{
	List *arms = NIL;
	ListCell *lc;

	foreach (lc, expand_grouping_sets(query->groupingSets, query->groupDistinct, -1))
		arms = lappend(arms, arm_of(query, lfirst(lc)));
	return list_length(arms) == 1 ? linitial(arms) : pgt_rewrite_union_all(arms, NULL);
}
