/*
 * inherit.c: the order of a subquery in FROM, where the query above shows it.
 *
 * The order of a subquery says nothing to most queries and is dropped
 * (normalize.c). But the server runs it, and hands its rows on in that order,
 * to a LIMIT or to an aggregate whose value depends on the order of its input:
 *
 *	  SELECT array_agg(x) FROM (SELECT x FROM t ORDER BY y) AS s
 *
 * Where a query has only this one FROM item, the order is written into what it
 * matters for: it becomes the query's own, or that of its aggregates.
 */
#include "postgres.h"

#include "catalog/pg_aggregate.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_clause.h"
#include "parser/parsetree.h"
#include "utils/fmgroids.h"

#include "rewrite.h"

/* One sort key as the query above sees it. */
typedef struct Key
{
	Var *var;
	SortGroupClause *clause;
} Key;

static bool
depends_on_order(const Aggref *aggregate)
{
	if (aggregate->agglevelsup != 0 || aggregate->aggkind != AGGKIND_NORMAL ||
		aggregate->aggorder != NIL || aggregate->aggdistinct != NIL)
		return false;
	switch (aggregate->aggfnoid)
	{
		case F_ARRAY_AGG_ANYNONARRAY:
		case F_ARRAY_AGG_ANYARRAY:
		case F_STRING_AGG_TEXT_TEXT:
		case F_STRING_AGG_BYTEA_BYTEA:
		case F_JSON_AGG:
		case F_JSONB_AGG:
		case F_JSON_OBJECT_AGG:
		case F_JSONB_OBJECT_AGG:
		case F_XMLAGG:
			return true;
		default:
			return false;
	}
}

/* Shows the sort keys of the subquery, behind its other columns. */
static List *
show_keys(RangeTblEntry *rte, int rtindex)
{
	Query *query = rte->subquery;
	List *shown = NIL;
	List *hidden = NIL;
	List *keys = NIL;
	ListCell *lc;

	foreach (lc, query->sortClause)
	{
		TargetEntry *tle = get_sortgroupclause_tle(lfirst(lc), query->targetList);

		if (!tle->resjunk)
			continue;
		tle->resjunk = false;
		tle->resname = psprintf("pgt_order%d", foreach_current_index(lc) + 1);
		query->targetList = list_delete_ptr(query->targetList, tle);
		shown = lappend(shown, tle);
		rte->eref->colnames = lappend(rte->eref->colnames, makeString(pstrdup(tle->resname)));
	}
	foreach (lc, query->targetList)
		if (lfirst_node(TargetEntry, lc)->resjunk)
			hidden = lappend(hidden, lfirst(lc));
	query->targetList = list_concat(
		list_concat(list_difference_ptr(query->targetList, hidden), shown), hidden);
	foreach (lc, query->targetList)
		lfirst_node(TargetEntry, lc)->resno = foreach_current_index(lc) + 1;
	foreach (lc, query->sortClause)
	{
		Key *key = palloc(sizeof(Key));
		TargetEntry *tle = get_sortgroupclause_tle(lfirst(lc), query->targetList);

		key->var = makeVarFromTargetEntry(rtindex, tle);
		key->clause = lfirst(lc);
		keys = lappend(keys, key);
	}
	return keys;
}

/* The keys as sort clauses over a target list, to which they are added where they are missing. */
static List *
sort_by(List *keys, List **targets)
{
	List *clauses = NIL;
	ListCell *lc;

	foreach (lc, keys)
	{
		Key *key = lfirst(lc);
		SortGroupClause *clause = copyObject(key->clause);
		TargetEntry *tle = tlist_member((Expr *) key->var, *targets);

		if (tle == NULL)
		{
			tle = makeTargetEntry((Expr *) copyObject(key->var), list_length(*targets) + 1, NULL,
								  true);
			*targets = lappend(*targets, tle);
		}
		clause->tleSortGroupRef = assignSortGroupRef(tle, *targets);
		clauses = lappend(clauses, clause);
	}
	return clauses;
}

static bool
order_walker(Node *node, void *keys)
{
	if (node == NULL || IsA(node, Query))
		return false;
	if (IsA(node, Aggref))
	{
		Aggref *aggregate = (Aggref *) node;

		if (depends_on_order(aggregate))
			aggregate->aggorder = sort_by((List *) keys, &aggregate->args);
		return false;
	}
	return expression_tree_walker(node, order_walker, keys);
}

static bool
depends_walker(Node *node, void *context)
{
	if (node == NULL || IsA(node, Query))
		return false;
	if (IsA(node, Aggref))
		return depends_on_order((Aggref *) node);
	return expression_tree_walker(node, depends_walker, context);
}

/* The only FROM item, if it is a subquery. */
static RangeTblEntry *
only_subquery(Query *query, int *rtindex)
{
	List *fromlist = query->jointree->fromlist;
	RangeTblEntry *rte;

	if (query->setOperations != NULL || list_length(fromlist) != 1 ||
		!IsA(linitial(fromlist), RangeTblRef))
		return NULL;
	*rtindex = linitial_node(RangeTblRef, fromlist)->rtindex;
	rte = rt_fetch(*rtindex, query->rtable);
	return rte->rtekind == RTE_SUBQUERY ? rte : NULL;
}

/*
 * Does the order of the rows in FROM matter to the query? wanted: the order of
 * its own rows does.
 */
bool
pgt_inherit_wants(Query *query, bool wanted)
{
	if (query->sortClause != NIL || query->groupingSets != NIL)
		return false;
	if (pgt_stage_is_group(query))
		return depends_walker((Node *) query->targetList, NULL) ||
			   depends_walker(query->havingQual, NULL);
	return (wanted || pgt_layer_has_limit(query)) && query->distinctClause == NIL &&
		   !query->hasWindowFuncs && !query->hasTargetSRFs;
}

/* Before the order of its FROM item is dropped, for a query that wants it. */
void
pgt_inherit_order(Query *query)
{
	int rtindex;
	RangeTblEntry *rte = only_subquery(query, &rtindex);
	List *keys;

	if (rte == NULL || rte->subquery->sortClause == NIL || rte->subquery->hasDistinctOn ||
		pgt_rewrite_is_used_whole(query, rtindex))
		return;
	keys = show_keys(rte, rtindex);
	if (pgt_stage_is_group(query))
	{
		(void) order_walker((Node *) query->targetList, keys);
		(void) order_walker(query->havingQual, keys);
	}
	else
		query->sortClause = sort_by(keys, &query->targetList);
}
