/*
 * semijoin.c: EXISTS of at most one row becomes a join.
 *
 *	  FROM a WHERE EXISTS (SELECT FROM b WHERE b.key = a.x AND c)
 *	  FROM a, b WHERE b.key = a.x AND c
 *
 * are the same where b.key is unique, and IN is an EXISTS by now (sublink.c). What
 * changes of a join is found from the changed rows; what changes of an EXISTS takes
 * the keys of all rows that may be concerned, and these rows again. Unique is what
 * a unique index or GROUP BY says; an index that is relied on must stay.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"

#include "delta_internal.h"

/* ---- At most one row ---- */

/* Columns of the outside are as constants to a subquery. */
static Node *
fix_outer_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && ((Var *) node)->varlevelsup > 0)
		return (Node *) makeNullConst(((Var *) node)->vartype, ((Var *) node)->vartypmod,
									  ((Var *) node)->varcollid);
	if (IsA(node, Query))
		return node;
	return expression_tree_mutator(node, fix_outer_mutator, context);
}

/* Is an output of a subquery in FROM equated to something fixed, as its GROUP BY compares? */
static bool
is_fixed(Node *quals, int rtindex, AttrNumber attno, Oid eqop, Oid collation)
{
	ListCell *lc;

	foreach (lc, pgt_tree_conjuncts(quals))
	{
		OpExpr *op = lfirst(lc);

		if (!IsA(op, OpExpr) || list_length(op->args) != 2 || op->inputcollid != collation)
			continue;
		for (int side = 0; side < 2; side++)
		{
			Var *var = (Var *) strip_implicit_coercions(list_nth(op->args, side));
			Node *other = strip_implicit_coercions(list_nth(op->args, 1 - side));

			if (IsA(var, Var) && var->varno == rtindex && var->varattno == attno &&
				IsA(other, Const) && equality_ops_are_compatible(op->opno, eqop))
				return true;
		}
	}
	return false;
}

/* SELECT FROM (SELECT x ... GROUP BY x) AS g WHERE g.x = something fixed */
static bool
is_one_group(Query *query, Node *quals)
{
	RangeTblRef *ref = linitial(query->jointree->fromlist);
	Query *grouped;
	ListCell *lc;

	if (list_length(query->jointree->fromlist) != 1 || !IsA(ref, RangeTblRef))
		return false;
	grouped = rt_fetch(ref->rtindex, query->rtable)->subquery;
	if (grouped == NULL || grouped->groupClause == NIL || grouped->groupingSets != NIL ||
		grouped->hasTargetSRFs)
		return false;
	foreach (lc, grouped->groupClause)
	{
		SortGroupClause *clause = lfirst(lc);
		TargetEntry *tle = get_sortgroupclause_tle(clause, grouped->targetList);

		if (tle->resjunk || !is_fixed(quals, ref->rtindex, tle->resno, clause->eqop,
									  exprCollation((Node *) tle->expr)))
			return false;
	}
	return true;
}

/* ---- Marking ---- */

/* Tables and closed subqueries, joined; conditions. */
static bool
is_plain(Query *query)
{
	ListCell *lc;

	if (query->hasAggs || query->hasWindowFuncs || query->hasTargetSRFs || query->hasDistinctOn ||
		query->groupClause != NIL || query->groupingSets != NIL || query->havingQual != NULL ||
		query->setOperations != NULL || query->limitCount != NULL || query->limitOffset != NULL ||
		query->cteList != NIL || query->rowMarks != NIL || query->jointree->fromlist == NIL)
		return false;
	foreach (lc, pgt_tree_rtindexes((Node *) query->jointree))
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);

		if (rte->tablesample != NULL ||
			(rte->rtekind != RTE_RELATION &&
			 (rte->rtekind != RTE_SUBQUERY || rte->subquery->hasTargetSRFs ||
			  pgt_tree_has_outer_vars(rte->subquery))))
			return false;
	}
	return true;
}

static bool
is_single(PgtDefinition *definition, Query *query)
{
	Query *fixed = copyObject(query);
	List *indexes = NIL;

	fixed->jointree = (FromExpr *) fix_outer_mutator((Node *) fixed->jointree, NULL);
	if (is_one_group(fixed, fixed->jointree->quals))
		return true;
	if (!pgt_key_is_single_row(fixed, &indexes))
		return false;
	definition->constraints = list_concat_unique_oid(definition->constraints, indexes);
	return true;
}

/* The conditions of the level above. */
static void
mark_level(PgtDefinition *definition, Query *query)
{
	ListCell *lc;

	if (!query->hasSubLinks || query->setOperations != NULL || query->jointree == NULL)
		return;
	foreach (lc, pgt_tree_conjuncts(query->jointree->quals))
	{
		SubLink *link = lfirst(lc);

		if (IsA(link, SubLink) && link->subLinkType == EXISTS_SUBLINK &&
			is_plain(castNode(Query, link->subselect)) &&
			is_single(definition, castNode(Query, link->subselect)))
			link->subLinkId = PGT_SUBLINK_JOIN;
	}
}

static bool
mark_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		mark_level(context, (Query *) node);
		return query_tree_walker((Query *) node, mark_walker, context, 0);
	}
	return expression_tree_walker(node, mark_walker, context);
}

/* Marks them at every level of a query, in place. */
void
pgt_semijoin_mark(PgtDefinition *definition, Query *query)
{
	(void) mark_walker((Node *) query, definition);
}

/* ---- Pulling up ---- */

static void
pull_up(Query *query, Query *subquery)
{
	FromExpr *jointree;

	OffsetVarNodes((Node *) subquery, list_length(query->rtable), 0);
	IncrementVarSublevelsUp((Node *) subquery, -1, 1);
	jointree = subquery->jointree;
	query->rtable = list_concat(query->rtable, subquery->rtable);
	query->jointree->fromlist = list_concat(query->jointree->fromlist, jointree->fromlist);
	query->jointree->quals = (Node *) make_and_qual(query->jointree->quals, jointree->quals);
}

static void
rewrite_level(Query *query)
{
	List *quals = query->jointree == NULL ? NIL : pgt_tree_conjuncts(query->jointree->quals);
	List *kept = NIL;
	List *pulled = NIL;
	ListCell *lc;

	foreach (lc, quals)
	{
		SubLink *link = lfirst(lc);

		if (IsA(link, SubLink) && link->subLinkId == PGT_SUBLINK_JOIN)
			pulled = lappend(pulled, link->subselect);
		else
			kept = lappend(kept, link);
	}
	if (pulled == NIL)
		return;
	query->jointree->quals = kept == NIL ? NULL : (Node *) make_ands_explicit(kept);
	foreach (lc, pulled)
		pull_up(query, lfirst(lc));
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
pgt_semijoin_rewrite(Query *query)
{
	(void) rewrite_walker((Node *) query, NULL);
}
