/*
 * layer_window.c: the window clauses of a query level: which functions and columns
 * need them, by which columns they partition, and which make the top layer.
 */
#include "postgres.h"

#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"

#include "delta_internal.h"

typedef struct WinrefContext
{
	Bitmapset *winrefs;
} WinrefContext;

static bool
winref_walker(Node *node, void *context)
{
	if (node == NULL || IsA(node, Query))
		return false;
	if (IsA(node, WindowFunc))
		((WinrefContext *) context)->winrefs = bms_add_member(((WinrefContext *) context)->winrefs,
															  ((WindowFunc *) node)->winref);
	return expression_tree_walker(node, winref_walker, context);
}

bool
pgt_window_is_referenced(const TargetEntry *tle, Query *query)
{
	Index ref = tle->ressortgroupref;
	ListCell *lc;

	if (ref == 0)
		return false;
	if (get_sortgroupref_clause_noerr(ref, query->sortClause) != NULL ||
		get_sortgroupref_clause_noerr(ref, query->distinctClause) != NULL ||
		get_sortgroupref_clause_noerr(ref, query->groupClause) != NULL)
		return true;
	foreach (lc, query->windowClause)
	{
		WindowClause *window = lfirst_node(WindowClause, lc);

		if (get_sortgroupref_clause_noerr(ref, window->partitionClause) != NULL ||
			get_sortgroupref_clause_noerr(ref, window->orderClause) != NULL)
			return true;
	}
	return false;
}

static void
drop_unused_junk(Query *query)
{
	List *kept = NIL;
	ListCell *lc;

	foreach (lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk && !pgt_window_is_referenced(tle, query))
			continue;
		tle->resno = list_length(kept) + 1;
		kept = lappend(kept, tle);
	}
	query->targetList = kept;
}

/* Only windows that are used, without names; in place. */
void
pgt_window_tidy(Query *query)
{
	WinrefContext context = {NULL};
	List *used = NIL;
	ListCell *lc;

	drop_unused_junk(query);
	(void) winref_walker((Node *) query->targetList, &context);
	foreach (lc, query->windowClause)
	{
		WindowClause *window = lfirst_node(WindowClause, lc);

		if (!bms_is_member(window->winref, context.winrefs))
			continue;
		window->name = window->refname = NULL;
		window->copiedOrder = false;
		used = lappend(used, window);
	}
	query->windowClause = used;
	query->hasWindowFuncs = used != NIL;
	drop_unused_junk(query);
}

List *
pgt_window_expressions(List *clauses, List *targets)
{
	List *exprs = NIL;
	ListCell *lc;

	foreach (lc, clauses)
		exprs = lappend(exprs, get_sortgroupclause_expr(lfirst(lc), targets));
	return exprs;
}

static List *
partition_of(const WindowClause *window, const Query *query)
{
	return pgt_window_expressions(window->partitionClause, query->targetList);
}

/* The expressions by which every window of the list partitions. */
List *
pgt_window_common_partition(List *windows, const Query *query)
{
	List *common = NIL;
	ListCell *lc;

	foreach (lc, windows)
	{
		List *own = partition_of(lfirst(lc), query);

		common = foreach_current_index(lc) == 0 ? own : list_intersection(common, own);
	}
	return common;
}

/*
 * The windows of the topmost stage: the one with the fewest partition columns,
 * that is the largest partitions, and all that share some of them. A window
 * over all rows has everything computed anew, so all the others join it.
 */
List *
pgt_window_top(const Query *query)
{
	List *top = NIL;
	List *common = NIL;
	WindowClause *widest = NULL;
	ListCell *lc;

	foreach (lc, query->windowClause)
	{
		WindowClause *window = lfirst_node(WindowClause, lc);

		if (window->partitionClause == NIL)
			return list_copy(query->windowClause);
		if (widest == NULL ||
			list_length(window->partitionClause) < list_length(widest->partitionClause))
			widest = window;
	}
	common = partition_of(widest, query);
	foreach (lc, query->windowClause)
	{
		List *shared = list_intersection(common, partition_of(lfirst(lc), query));

		if (shared == NIL)
			continue;
		common = shared;
		top = lappend(top, lfirst(lc));
	}
	return top;
}

/* Output columns (1-based) by which all windows of a stage partition, by its types' equality. */
List *
pgt_window_scope(Query *query)
{
	List *common = pgt_window_common_partition(query->windowClause, query);
	List *columns = NIL;
	ListCell *lc;

	foreach (lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		bool plain = true;
		Oid equality;
		ListCell *lw;

		if (tle->resjunk || !list_member(common, tle->expr) ||
			!pgt_flatten_is_plain(query, (Node *) tle->expr))
			continue;
		(void) pgt_key_column_equality(exprType((Node *) tle->expr), &equality);
		foreach (lw, query->windowClause)
		{
			ListCell *ls;

			foreach (ls, lfirst_node(WindowClause, lw)->partitionClause)
			{
				SortGroupClause *clause = lfirst_node(SortGroupClause, ls);

				if (equal(get_sortgroupclause_expr(clause, query->targetList), tle->expr))
					plain = plain && clause->eqop == equality;
			}
		}
		common = list_delete(common, tle->expr);
		if (plain)
			columns = lappend_int(columns, foreach_current_index(lc) + 1);
	}
	return columns;
}
