/*
 * normalize.c: one form for what SQL can say in several ways.
 *
 * Views and common table expressions become subqueries, columns of joins
 * become columns of what is joined, IN becomes EXISTS, ORDER BY without LIMIT
 * goes away (see inherit.c). The result reads base tables only, and means the
 * same for queries without volatile functions.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "utils/rel.h"

#include "pgt_compat.h"

#include "delta_internal.h"

/* Replaces references to one common table expression below a query. */
typedef struct InlineContext
{
	CommonTableExpr *cte;
	int depth; /* levels below the query that holds the WITH */
} InlineContext;

static bool
inline_walker(Node *node, void *context)
{
	InlineContext *ctx = context;

	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind == RTE_CTE && rte->ctelevelsup == ctx->depth &&
			strcmp(rte->ctename, ctx->cte->ctename) == 0)
		{
			Query *subquery = copyObject(castNode(Query, ctx->cte->ctequery));

			IncrementVarSublevelsUp((Node *) subquery, ctx->depth, 1);
			rte->rtekind = RTE_SUBQUERY;
			rte->subquery = subquery;
			rte->ctename = NULL;
			rte->ctelevelsup = 0;
			rte->coltypes = rte->coltypmods = rte->colcollations = NIL;
		}
		return false;
	}
	if (IsA(node, Query))
	{
		bool result;

		ctx->depth++;
		result = query_tree_walker((Query *) node, inline_walker, context, QTW_EXAMINE_RTES_AFTER);
		ctx->depth--;
		return result;
	}
	return expression_tree_walker(node, inline_walker, context);
}

/* Names of the columns that the enclosing query sees. */
void
pgt_normalize_names(Query *query, List *names)
{
	ListCell *lc;
	ListCell *ln = list_head(names);

	foreach (lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk)
			continue;
		tle->resname = pstrdup(strVal(lfirst(ln)));
		ln = lnext(names, ln);
	}
	if (query->setOperations != NULL)
		pgt_normalize_names(
			rt_fetch(linitial_int(pgt_tree_arm_rtindexes(query)), query->rtable)->subquery, names);
}

/* WITH items see those before them, so each is inlined into all after it. */
static void
inline_ctes(Query *query)
{
	List *ctes = query->cteList;
	ListCell *lc;

	if (ctes == NIL || query->hasModifyingCTE || (query->hasRecursive && !pgt_recursion_open(ctes)))
		return;
	query->cteList = NIL;
	query->hasRecursive = false;
	foreach (lc, ctes)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);
		InlineContext context = {cte, 0};
		ListCell *later;

		inline_ctes(castNode(Query, cte->ctequery));
		for_each_cell (later, ctes, lnext(ctes, lc))
			inline_walker(lfirst_node(CommonTableExpr, later)->ctequery, &context);
		query_tree_walker(query, inline_walker, &context, QTW_EXAMINE_RTES_AFTER);
	}
}

/* The query of a view, with its relations locked. */
Query *
pgt_normalize_view(Oid view_relid)
{
	Relation view = table_open(view_relid, AccessShareLock);
	Query *query = copyObject(get_view_query(view));

	table_close(view, NoLock);
	AcquireRewriteLocks(query, true, false);
	pgt_compat_simplify_query((Node *) query, NULL);
	return query;
}

/* The query of a view in place of the view. */
static void
expand_view(RangeTblEntry *rte)
{
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = pgt_normalize_view(rte->relid);
	rte->relid = InvalidOid;
	rte->relkind = 0;
	rte->inh = false;
}

/* After columns of entries changed. */
void
pgt_normalize_joins(Query *query)
{
	pgt_tree_rebuild_joins(query, (Node *) query->jointree);
}

static void
flatten_joins(Query *query)
{
	ListCell *lc;

	query->targetList = (List *) pgt_compat_flatten_join_vars(query, (Node *) query->targetList);
	query->havingQual = pgt_compat_flatten_join_vars(query, query->havingQual);
	/* FROM items can refer to columns of joins before them. */
	foreach (lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_SUBQUERY && rte->lateral)
			rte->subquery = (Query *) pgt_compat_flatten_join_vars(query, (Node *) rte->subquery);
		else if (rte->rtekind == RTE_FUNCTION)
			rte->functions = (List *) pgt_compat_flatten_join_vars(query, (Node *) rte->functions);
		else if (rte->rtekind == RTE_VALUES)
			rte->values_lists = (List *) pgt_compat_flatten_join_vars(query,
																	  (Node *) rte->values_lists);
		else if (rte->rtekind == RTE_TABLEFUNC)
			rte->tablefunc = (TableFunc *) pgt_compat_flatten_join_vars(query,
																		(Node *) rte->tablefunc);
	}
	if (query->setOperations == NULL)
	{
		query->jointree = (FromExpr *) pgt_compat_flatten_join_vars(query,
																	(Node *) query->jointree);
		pgt_tree_rebuild_joins(query, (Node *) query->jointree);
	}
}

/* GROUPING() of the query that is *context levels up, without grouping sets: always 0. */
static Node *
grouping_mutator(Node *node, void *context)
{
	int *depth = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, GroupingFunc) && ((GroupingFunc *) node)->agglevelsup == *depth)
		return (Node *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(0), false,
								  true);
	if (IsA(node, Query))
	{
		Query *query;

		(*depth)++;
		query = query_tree_mutator((Query *) node, grouping_mutator, context, 0);
		(*depth)--;
		return (Node *) query;
	}
	return expression_tree_mutator(node, grouping_mutator, context);
}

/*
 * Groups without aggregates. GROUPING() counts as one, but says nothing of a
 * plain GROUP BY. HAVING alone makes one row, whatever FROM has: the server
 * does not even look at FROM.
 */
static void
simplify_groups(Query *query)
{
	int depth = 0;

	if (query->groupingSets != NIL)
		return;
	if (query->hasAggs)
	{
		query->targetList = (List *) grouping_mutator((Node *) query->targetList, &depth);
		query->havingQual = grouping_mutator(query->havingQual, &depth);
		query->hasAggs = contain_aggs_of_level((Node *) query->targetList, 0) ||
						 contain_aggs_of_level(query->havingQual, 0);
	}
	if (!query->hasAggs && query->groupClause == NIL && query->havingQual != NULL &&
		query->setOperations == NULL && !query->hasTargetSRFs)
	{
		query->rtable = NIL;
		query->jointree = makeFromExpr(NIL, query->havingQual);
		query->havingQual = NULL;
	}
}

static void normalize_in_place(Query *query, bool ordered);

/* What only sorts, and nobody looks at the order of. */
static void
drop_order(Query *query)
{
	if (pgt_layer_has_limit(query) || query->distinctClause != NIL)
		return;
	query->sortClause = NIL;
}

static bool
normalize_sublinks(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink) && ((SubLink *) node)->subLinkType == ARRAY_SUBLINK)
	{
		normalize_in_place(castNode(Query, ((SubLink *) node)->subselect), true);
		return false;
	}
	if (IsA(node, Query))
	{
		normalize_in_place((Query *) node, false);
		drop_order((Query *) node);
		return false;
	}
	return expression_tree_walker(node, normalize_sublinks, context);
}

/* ordered: somebody looks at the order of its rows. */
static void
normalize_in_place(Query *query, bool ordered)
{
	bool wants = pgt_inherit_wants(query, ordered);
	ListCell *lc;

	check_stack_depth();
	inline_ctes(query);
	/* Recursive items stay, but what they read has to be seen. */
	foreach (lc, query->cteList)
	{
		Query *item = castNode(Query, lfirst_node(CommonTableExpr, lc)->ctequery);

		normalize_in_place(item, false);
		drop_order(item);
	}
	flatten_joins(query);
	simplify_groups(query);
	if (query->hasSubLinks)
		pgt_sublink_rewrite(query);
	foreach (lc, query->setOperations != NULL ? pgt_tree_arm_rtindexes(query)
											  : pgt_tree_rtindexes((Node *) query->jointree))
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);

		if (rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_VIEW)
			expand_view(rte);
		if (rte->rtekind == RTE_SUBQUERY)
		{
			pgt_normalize_names(rte->subquery, rte->eref->colnames);
			normalize_in_place(rte->subquery, wants);
			if (wants)
				pgt_inherit_order(query);
			drop_order(rte->subquery);
		}
	}
	pgt_layer_drop_void_limit(query);
	if (query->hasSubLinks)
		query_tree_walker(query, normalize_sublinks, NULL, QTW_IGNORE_RT_SUBQUERIES);
}

Query *
pgt_normalize_query(Query *query)
{
	Query *result = copyObject(query);

	normalize_in_place(result, false);
	drop_order(result);
	pgt_unused_drop(result);
	return result;
}
