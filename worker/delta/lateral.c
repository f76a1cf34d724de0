/*
 * lateral.c: a LATERAL subquery that only joins and filters is part of the join.
 *
 *	  FROM a, LATERAL (SELECT b.x + a.y AS z FROM b WHERE b.k = a.k) l
 *	  FROM a, b WHERE b.k = a.k			with b.x + a.y for l.z
 *
 *	  FROM a LEFT JOIN LATERAL (SELECT b.x FROM b WHERE b.k = a.k) l ON c
 *	  FROM a LEFT JOIN b ON b.k = a.k AND c
 *
 * What changes of a join is found from the changed rows; of other subqueries
 * only which rows may see another answer (flatten.c). Below an outer join the
 * columns must be plain ones, as these are null where there is no match, and
 * all that the subquery refers to must be within that join.
 *
 * Marked first, so that support.c can tell; changed in place after semijoin.c.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"

#include "pgt_compat.h"

#include "delta_internal.h"

/* ---- Which ---- */

bool
pgt_lateral_is_join(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_SUBQUERY && rte->enrtuples == PGT_LATERAL_JOIN;
}

static bool
has_outer_join(Node *node)
{
	ListCell *lc;

	if (IsA(node, FromExpr))
		foreach (lc, ((FromExpr *) node)->fromlist)
			if (has_outer_join(lfirst(lc)))
				return true;
	return IsA(node, JoinExpr) &&
		   (((JoinExpr *) node)->jointype != JOIN_INNER ||
			has_outer_join(((JoinExpr *) node)->larg) || has_outer_join(((JoinExpr *) node)->rarg));
}

/* Does something in FROM, but not in WHERE, refer to the level above? */
static bool
from_refers_outside(Query *query)
{
	ListCell *lc;

	if (contain_vars_of_level((Node *) query->jointree->fromlist, 1))
		return true;
	foreach (lc, pgt_tree_rtindexes((Node *) query->jointree))
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);

		if (contain_vars_of_level((Node *) rte->functions, 1) ||
			contain_vars_of_level((Node *) rte->values_lists, 1) ||
			contain_vars_of_level((Node *) rte->tablefunc, 1) ||
			(rte->subquery != NULL && contain_vars_of_level((Node *) rte->subquery, 2)))
			return true;
	}
	return false;
}

static bool
is_plain(Query *query)
{
	ListCell *lc;

	if (query->hasAggs || query->hasWindowFuncs || query->hasTargetSRFs || query->hasDistinctOn ||
		query->distinctClause != NIL || query->groupClause != NIL || query->groupingSets != NIL ||
		query->havingQual != NULL || query->setOperations != NULL || query->limitCount != NULL ||
		query->limitOffset != NULL || query->cteList != NIL || query->rowMarks != NIL ||
		query->jointree->fromlist == NIL || pgt_flatten_has_sublink((Node *) query->targetList))
		return false;
	foreach (lc, pgt_tree_rtindexes((Node *) query->jointree))
		if (rt_fetch(lfirst_int(lc), query->rtable)->tablesample != NULL)
			return false;
	return !has_outer_join((Node *) query->jointree) || !from_refers_outside(query);
}

/* As the right side of an outer join whose left side has these entries. */
static bool
is_plain_below_outer(Query *query, Node *left)
{
	Bitmapset *there = pgt_tree_rtindex_set(left);
	ListCell *lc;

	if (query->hasSubLinks || list_length(query->jointree->fromlist) != 1 ||
		from_refers_outside(query) ||
		!bms_is_subset(pull_varnos_of_level(NULL, query->jointree->quals, 1), there))
		return false;
	foreach (lc, query->targetList)
	{
		Var *var = (Var *) lfirst_node(TargetEntry, lc)->expr;

		if (!IsA(var, Var) || var->varlevelsup > 0)
			return false;
	}
	return true;
}

/* inner: only inner joins stand above it; left: what it is the right side of by LEFT JOIN. */
static void
mark_node(Query *query, Node *node, bool inner, Node *left)
{
	ListCell *lc;

	if (IsA(node, FromExpr))
	{
		foreach (lc, ((FromExpr *) node)->fromlist)
			mark_node(query, lfirst(lc), inner, NULL);
	}
	else if (IsA(node, JoinExpr))
	{
		JoinExpr *join = (JoinExpr *) node;
		bool still = inner && join->jointype == JOIN_INNER;

		mark_node(query, join->larg, still, NULL);
		mark_node(query, join->rarg, still, join->jointype == JOIN_LEFT ? join->larg : NULL);
	}
	else
	{
		RangeTblEntry *rte = rt_fetch(((RangeTblRef *) node)->rtindex, query->rtable);

		if (!pgt_flatten_is_dependent(rte) || !is_plain(rte->subquery))
			return;
		if (inner || (left != NULL && is_plain_below_outer(rte->subquery, left)))
			rte->enrtuples = PGT_LATERAL_JOIN;
	}
}

static bool
mark_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query *query = (Query *) node;

		if (query->setOperations == NULL)
			mark_node(query, (Node *) query->jointree, true, NULL);
		return query_tree_walker(query, mark_walker, context, 0);
	}
	return expression_tree_walker(node, mark_walker, context);
}

/* Marks them at every level of a query, in place. */
void
pgt_lateral_mark(Query *query)
{
	(void) mark_walker((Node *) query, NULL);
}

/* ---- Pulling up ---- */

typedef struct Pull
{
	Query *query;
	List *quals; /* for WHERE */
} Pull;

/* Its entries become the query's, its columns what they stand for. */
static FromExpr *
open_subquery(Query *query, int rtindex)
{
	RangeTblEntry *rte = rt_fetch(rtindex, query->rtable);
	Query *subquery = rte->subquery;
	Query *replaced;
	ListCell *lc;

	rte->rtekind = RTE_RESULT; /* nothing refers to it any more */
	rte->subquery = NULL;
	rte->lateral = false;
	rte->enrtuples = 0;
	OffsetVarNodes((Node *) subquery, list_length(query->rtable), 0);
	IncrementVarSublevelsUp((Node *) subquery, -1, 1);
	foreach (lc, subquery->rtable)
	{
		RangeTblEntry *entry = lfirst_node(RangeTblEntry, lc);

		/* It may refer to what was outside of the subquery, and is beside it now. */
		if (entry->rtekind != RTE_RELATION && entry->rtekind != RTE_JOIN)
			entry->lateral = true;
	}
	replaced = (Query *) pgt_compat_replace_columns((Node *) query, rtindex, rte,
													subquery->targetList);
	/* Other parts of the tree are looked at right now. */
	query->targetList = replaced->targetList;
	query->havingQual = replaced->havingQual;
	query->limitCount = replaced->limitCount;
	query->limitOffset = replaced->limitOffset;
	query->rtable = list_concat(replaced->rtable, subquery->rtable);
	query->jointree = replaced->jointree;
	query->hasSubLinks = query->hasSubLinks || subquery->hasSubLinks;
	return subquery->jointree;
}

/* The first marked entry below a node that is to be opened in this way, or 0. */
static int
find_marked(Query *query, Node *node, bool inner)
{
	ListCell *lc;
	int found = 0;

	if (IsA(node, RangeTblRef))
	{
		int rtindex = ((RangeTblRef *) node)->rtindex;

		return inner && pgt_lateral_is_join(rt_fetch(rtindex, query->rtable)) ? rtindex : 0;
	}
	if (IsA(node, FromExpr))
	{
		foreach (lc, ((FromExpr *) node)->fromlist)
			if (found == 0)
				found = find_marked(query, lfirst(lc), inner);
		return found;
	}
	inner = inner && ((JoinExpr *) node)->jointype == JOIN_INNER;
	found = find_marked(query, ((JoinExpr *) node)->larg, inner);
	return found != 0 ? found : find_marked(query, ((JoinExpr *) node)->rarg, inner);
}

/* Inner joins as items of FROM and conditions; those of the opened entry in its place. */
static void
explode(Node *node, int rtindex, FromExpr *opened, List **items, List **quals)
{
	ListCell *lc;

	if (IsA(node, JoinExpr) && ((JoinExpr *) node)->jointype == JOIN_INNER)
	{
		JoinExpr *join = (JoinExpr *) node;

		explode(join->larg, rtindex, opened, items, quals);
		explode(join->rarg, rtindex, opened, items, quals);
		*quals = list_concat(*quals, pgt_tree_conjuncts(join->quals));
	}
	else if (IsA(node, RangeTblRef) && ((RangeTblRef *) node)->rtindex == rtindex)
	{
		foreach (lc, opened->fromlist)
			explode(lfirst(lc), 0, NULL, items, quals);
		*quals = list_concat(*quals, pgt_tree_conjuncts(opened->quals));
	}
	else
		*items = lappend(*items, node);
}

static void
open_inner(Query *query, int rtindex)
{
	FromExpr *opened = open_subquery(query, rtindex);
	List *items = NIL;
	List *quals = NIL;
	ListCell *lc;

	foreach (lc, query->jointree->fromlist)
		explode(lfirst(lc), rtindex, opened, &items, &quals);
	quals = list_concat(quals, pgt_tree_conjuncts(query->jointree->quals));
	query->jointree = makeFromExpr(items, quals == NIL ? NULL : (Node *) make_ands_explicit(quals));
}

/* The LEFT JOIN whose right side is a marked entry, or NULL. */
static JoinExpr *
find_left_join(Query *query, Node *node)
{
	JoinExpr *join = (JoinExpr *) node;
	JoinExpr *found = NULL;
	ListCell *lc;

	if (IsA(node, RangeTblRef))
		return NULL;
	if (IsA(node, FromExpr))
	{
		foreach (lc, ((FromExpr *) node)->fromlist)
			if (found == NULL)
				found = find_left_join(query, lfirst(lc));
		return found;
	}
	if (join->jointype == JOIN_LEFT && IsA(join->rarg, RangeTblRef) &&
		pgt_lateral_is_join(rt_fetch(((RangeTblRef *) join->rarg)->rtindex, query->rtable)))
		return join;
	found = find_left_join(query, join->larg);
	return found != NULL ? found : find_left_join(query, join->rarg);
}

/* The join that has an entry as its right side. */
static JoinExpr *
join_above(Node *node, int rtindex)
{
	JoinExpr *join = (JoinExpr *) node;
	JoinExpr *found = NULL;
	ListCell *lc;

	if (IsA(node, RangeTblRef))
		return NULL;
	if (IsA(node, FromExpr))
	{
		foreach (lc, ((FromExpr *) node)->fromlist)
			if (found == NULL)
				found = join_above(lfirst(lc), rtindex);
		return found;
	}
	if (IsA(join->rarg, RangeTblRef) && ((RangeTblRef *) join->rarg)->rtindex == rtindex)
		return join;
	found = join_above(join->larg, rtindex);
	return found != NULL ? found : join_above(join->rarg, rtindex);
}

static void
open_left(Query *query, int rtindex)
{
	FromExpr *opened = open_subquery(query, rtindex);
	JoinExpr *join = join_above((Node *) query->jointree, rtindex);
	List *quals = list_concat(pgt_tree_conjuncts(opened->quals), pgt_tree_conjuncts(join->quals));

	join->rarg = linitial(opened->fromlist);
	join->quals = quals == NIL ? NULL : (Node *) make_ands_explicit(quals);
}

/* A join's entry has to come after those that it joins. */
static void
move_joins(Query *query, Node *node)
{
	JoinExpr *join = (JoinExpr *) node;
	ListCell *lc;

	if (IsA(node, FromExpr))
	{
		foreach (lc, ((FromExpr *) node)->fromlist)
			move_joins(query, lfirst(lc));
		return;
	}
	if (!IsA(node, JoinExpr))
		return;
	move_joins(query, join->larg);
	move_joins(query, join->rarg);
	query->rtable = lappend(query->rtable, copyObject(rt_fetch(join->rtindex, query->rtable)));
	join->rtindex = list_length(query->rtable);
}

/* Nothing joins by this entry any more. */
static void
drop_join(RangeTblEntry *rte)
{
	if (rte->rtekind != RTE_JOIN)
		return;
	rte->rtekind = RTE_RESULT;
	rte->joinaliasvars = rte->joinleftcols = rte->joinrightcols = NIL;
}

static void
rewrite_level(Query *query)
{
	bool changed = false;
	JoinExpr *left;
	int rtindex;
	int count;

	if (query->setOperations != NULL || query->jointree == NULL)
		return;
	while ((rtindex = find_marked(query, (Node *) query->jointree, true)) != 0)
	{
		open_inner(query, rtindex);
		changed = true;
	}
	while ((left = find_left_join(query, (Node *) query->jointree)) != NULL)
	{
		open_left(query, ((RangeTblRef *) left->rarg)->rtindex);
		changed = true;
	}
	if (!changed)
		return;
	count = list_length(query->rtable);
	move_joins(query, (Node *) query->jointree);
	for (int i = 1; i <= count; i++)
		drop_join(rt_fetch(i, query->rtable));
	pgt_normalize_joins(query);
}

static bool
rewrite_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		(void) query_tree_walker((Query *) node, rewrite_walker, context, 0);
		rewrite_level((Query *) node);
		return false;
	}
	return expression_tree_walker(node, rewrite_walker, context);
}

/* Makes joins of those that are marked, in place. */
void
pgt_lateral_rewrite(Query *query)
{
	(void) rewrite_walker((Node *) query, NULL);
}
