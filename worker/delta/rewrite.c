/*
 * rewrite.c: constructs that are maintained by saying them in other words.
 *
 * Runs after support.c has named what the user wrote, and before stage.c cuts.
 * Each query level is rewritten on its own: set operations (rewrite_setop.c),
 * grouping sets (rewrite_grouping.c), set-returning functions (rewrite_srf.c),
 * whole rows (rewrite_row.c), IS NOT DISTINCT FROM (rewrite_null.c) and groups over outer
 * joins (rewrite_outer.c). What stands above these in the same level, such as windows,
 * DISTINCT or LIMIT, is taken off first (layer.c).
 *
 * A subquery that refers to what is around it stays as it is: it is run for
 * touched rows, never maintained on its own.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"

#include "rewrite.h"

/* ---- Tools of the other files ---- */

RangeTblEntry *
pgt_rewrite_make_entry(Query *subquery, const char *alias)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	List *names = NIL;
	ListCell *lc;

	foreach (lc, pgt_tree_outputs(subquery))
		names = lappend(names, makeString(pstrdup(lfirst_node(TargetEntry, lc)->resname)));
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = subquery;
	rte->alias = makeAlias(alias, NIL);
	rte->eref = makeAlias(alias, names);
	rte->inFromCl = true;
	return rte;
}

/* A UNION ALL of queries that have columns of the same types; like gives them, or NULL: the first. */
Query *
pgt_rewrite_union_all(List *arms, const SetOperationStmt *like)
{
	Query *query = makeNode(Query);
	SetOperationStmt *top = NULL;
	List *types = NIL;
	List *typmods = NIL;
	List *collations = NIL;
	Node *tree = NULL;
	ListCell *lc;

	foreach (lc, pgt_tree_outputs(linitial(arms)))
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		int column = foreach_current_index(lc);
		Oid type = like != NULL ? list_nth_oid(like->colTypes, column)
								: exprType((Node *) tle->expr);
		int32 typmod = like != NULL ? list_nth_int(like->colTypmods, column)
									: exprTypmod((Node *) tle->expr);
		Oid collation = like != NULL ? list_nth_oid(like->colCollations, column)
									 : exprCollation((Node *) tle->expr);

		types = lappend_oid(types, type);
		typmods = lappend_int(typmods, typmod);
		collations = lappend_oid(collations, collation);
		query->targetList = lappend(
			query->targetList,
			makeTargetEntry((Expr *) makeVar(1, column + 1, type, typmod, collation, 0), column + 1,
							pstrdup(tle->resname), false));
	}
	query->commandType = CMD_SELECT;
	query->querySource = QSRC_ORIGINAL;
	query->canSetTag = true;
	query->jointree = makeFromExpr(NIL, NULL);
	foreach (lc, arms)
	{
		RangeTblRef *ref = makeNode(RangeTblRef);
		RangeTblEntry *rte = pgt_rewrite_make_entry(lfirst(lc), "*SELECT*");

		rte->inFromCl = false;
		query->rtable = lappend(query->rtable, rte);
		ref->rtindex = list_length(query->rtable);
		if (tree == NULL)
		{
			tree = (Node *) ref;
			continue;
		}
		top = makeNode(SetOperationStmt);
		top->op = SETOP_UNION;
		top->all = true;
		top->larg = tree;
		top->rarg = (Node *) ref;
		top->colTypes = types;
		top->colTypmods = typmods;
		top->colCollations = collations;
		tree = (Node *) top;
	}
	query->setOperations = tree;
	return query;
}

/* ---- Levels ---- */

static bool
sublink_walker(Node *node, void *context)
{
	if (node == NULL || IsA(node, Query))
		return false;
	if (IsA(node, SubLink))
	{
		SubLink *link = (SubLink *) node;

		link->subselect = (Node *) pgt_rewrite_query(castNode(Query, link->subselect));
	}
	return expression_tree_walker(node, sublink_walker, context);
}

/* Does something stand above what is rewritten here? */
static bool
needs_peeling(const Query *query)
{
	return query->groupingSets != NIL || (query->hasTargetSRFs && pgt_layer_has_limit(query)) ||
		   (pgt_rewrite_has_srfs_above(query) && query->distinctClause != NIL) ||
		   (query->setOperations != NULL && !pgt_tree_is_union_all(query) &&
			pgt_layer_has_limit(query));
}

/* Changes the query in place or gives another one. */
Query *
pgt_rewrite_query(Query *query)
{
	bool plain = !pgt_tree_has_outer_vars(query);
	bool store;
	ListCell *lc;

	check_stack_depth();
	if (plain && pgt_rewrite_has_srfs_above(query) && query->distinctClause == NIL &&
		!pgt_layer_has_limit(query))
		query = pgt_layer_peel_srfs(query);
	else if (plain && needs_peeling(query))
		query = pgt_layer_peel(query, &store);
	pgt_rewrite_rows(query);
	pgt_rewrite_null_equality((Node *) query->jointree);
	foreach (lc, query->setOperations != NULL ? pgt_tree_arm_rtindexes(query)
											  : pgt_tree_rtindexes((Node *) query->jointree))
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);

		if (rte->rtekind == RTE_SUBQUERY)
			rte->subquery = pgt_rewrite_query(rte->subquery);
	}
	if (query->hasSubLinks)
	{
		(void) sublink_walker((Node *) query->targetList, NULL);
		(void) sublink_walker((Node *) query->jointree, NULL);
		(void) sublink_walker(query->havingQual, NULL);
		(void) sublink_walker(query->limitOffset, NULL);
		(void) sublink_walker(query->limitCount, NULL);
	}
	if (!plain)
		return query;
	if (query->setOperations != NULL)
		return pgt_rewrite_setop(query);
	if (query->groupingSets != NIL)
	{
		/* Functions in group keys make rows before these are grouped, in every set. */
		if (query->hasTargetSRFs)
			query = pgt_rewrite_target_srfs(query);
		return pgt_rewrite_grouping_sets(query);
	}
	pgt_rewrite_outer_joins(query);
	pgt_rewrite_function_joins(query, (Node *) query->jointree);
	if (query->hasTargetSRFs)
		return pgt_rewrite_target_srfs(query);
	return query;
}
