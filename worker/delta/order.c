/*
 * order.c: the join order of a delta term.
 *
 * The planner has no statistics of old, ever and before states (of change sets it
 * has: statistics.c), so where one is read, the engine fixes the order: start at the smallest delta, then join what is found by an
 * index, small, or a delta, and leaves the least rows by statistics
 * (order_rows.c), then equalities without an index. The result is a left-deep tree of
 * explicit joins, planned under join_collapse_limit = 1 where pgt_plan_order
 * says so; otherwise it is but the way in which the joins are written.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"

#include "delta_internal.h"

#define MAX_LOOKAHEAD 4 /* entries followed to see what a join makes possible */

/* Column of the entry that the condition equates with something already joined, or 0. */
static AttrNumber
equated_column(Node *qual, int rtindex, Bitmapset *joined)
{
	OpExpr *op = pgt_flatten_is_null_equality(qual) ? linitial(((BoolExpr *) qual)->args)
													: (OpExpr *) qual;
	AttrNumber attno = 0;

	if (!IsA(op, OpExpr) || list_length(op->args) != 2 ||
		!op_mergejoinable(op->opno, exprType(linitial(op->args))))
		return 0;
	for (int side = 0; side < 2; side++)
	{
		Node *column = strip_implicit_coercions(list_nth(op->args, side));
		Node *other = list_nth(op->args, 1 - side);

		if (IsA(column, RelabelType))
			column = (Node *) ((RelabelType *) column)->arg;
		if (IsA(column, Var) && ((Var *) column)->varno == rtindex &&
			bms_is_subset(pull_varnos(NULL, other), joined))
			attno = ((Var *) column)->varattno;
	}
	return attno;
}

/* Entries whose columns a FROM item refers to: they have to stand before it. */
Bitmapset *
pgt_order_needs(const RangeTblEntry *rte)
{
	switch (rte->rtekind)
	{
		case RTE_FUNCTION:
			return pull_varnos(NULL, (Node *) rte->functions);
		case RTE_VALUES:
			return pull_varnos(NULL, (Node *) rte->values_lists);
		case RTE_TABLEFUNC:
			return pull_varnos(NULL, (Node *) rte->tablefunc);
		case RTE_SUBQUERY:
			return rte->lateral ? pull_varnos_of_level(NULL, (Node *) rte->subquery, 1) : NULL;
		default:
			return NULL;
	}
}

/* The first entry that needs no other. */
static int
first_free(Query *query, List *rtindexes)
{
	ListCell *lc;

	foreach (lc, rtindexes)
		if (bms_is_empty(pgt_order_needs(rt_fetch(lfirst_int(lc), query->rtable))))
			return lfirst_int(lc);
	elog(ERROR, "every FROM item of the query refers to another one");
	return 0;
}

/* Rows of the entry per row of what is joined, and by what means they are found. */
static double
rate_entry(const PgtOrderEntry *entry, List *quals, Bitmapset *joined, PgtOrderEdge *edge)
{
	Bitmapset *columns = NULL;
	Bitmapset *with = bms_add_member(bms_copy(joined), entry->rtindex);
	ListCell *lc;

	*edge = PGT_EDGE_NONE;
	foreach (lc, quals)
	{
		Bitmapset *needs = pull_varnos(NULL, lfirst(lc));
		AttrNumber attno;

		if (!bms_is_member(entry->rtindex, needs) || !bms_is_subset(needs, with) ||
			!bms_overlap(needs, joined))
			continue;
		*edge = PGT_EDGE_CONDITION;
		attno = equated_column(lfirst(lc), entry->rtindex, joined);
		if (attno > 0)
			columns = bms_add_member(columns, attno);
	}
	if (columns != NULL)
		return pgt_order_matches(entry, columns, edge);
	/* A function of what is joined is no cross product. */
	if (!bms_is_empty(entry->needs))
		*edge = PGT_EDGE_EQUALITY;
	return entry->rows * entry->own;
}

/*
 * What a join leads to: by which factor the entries that it makes reachable
 * through unique indexes reduce the rows.
 */
static double
look_ahead(const PgtOrderEntry *entry, List *entries, List *quals, Bitmapset *joined, int depth)
{
	Bitmapset *with = bms_add_member(bms_copy(joined), entry->rtindex);
	double factor = 1;
	ListCell *lc;

	if (depth == MAX_LOOKAHEAD)
		return 1;
	foreach (lc, entries)
	{
		PgtOrderEntry *next = lfirst(lc);
		PgtOrderEdge edge;
		double rows;

		if (bms_is_member(next->rtindex, with) || !bms_is_subset(next->needs, with))
			continue;
		(void) rate_entry(next, quals, joined, &edge);
		if (edge == PGT_EDGE_UNIQUE)
			continue; /* it can be joined without this one */
		rows = rate_entry(next, quals, with, &edge);
		if (edge == PGT_EDGE_UNIQUE)
			factor *= Min(1, rows * look_ahead(next, entries, quals, with, depth + 1));
	}
	return factor;
}

/* The entry to be joined next: found by an index if any is, and of these the one that leaves least rows. */
static PgtOrderEntry *
best_entry(List *entries, List *quals, Bitmapset *joined)
{
	PgtOrderEntry *best = NULL;
	PgtOrderEdge best_edge = PGT_EDGE_NONE;
	double best_rows = 0;
	ListCell *lc;

	foreach (lc, entries)
	{
		PgtOrderEntry *entry = lfirst(lc);
		PgtOrderEdge edge;
		double rows;
		bool better;

		if (bms_is_member(entry->rtindex, joined) || !bms_is_subset(entry->needs, joined))
			continue;
		rows = rate_entry(entry, quals, joined, &edge);
		if (edge >= PGT_EDGE_INDEX)
		{
			rows *= look_ahead(entry, entries, quals, joined, 0);
			better = best == NULL || best_edge < PGT_EDGE_INDEX || rows < best_rows ||
					 (rows == best_rows &&
					  (edge > best_edge || (edge == best_edge && entry->rows < best->rows)));
		}
		else
			better = best == NULL || edge > best_edge ||
					 (edge == best_edge && pgt_order_rows(entry) < pgt_order_rows(best));
		if (better)
		{
			best = entry;
			best_edge = edge;
			best_rows = rows;
		}
	}
	if (best == NULL)
		elog(ERROR, "a FROM item of the query refers to one that is not there");
	return best;
}

/* Of several deltas, the one to begin with. */
static int
smallest_delta(List *entries, int first)
{
	PgtOrderEntry *best = NULL;
	ListCell *lc;

	foreach (lc, entries)
	{
		PgtOrderEntry *entry = lfirst(lc);

		if (entry->rtindex == first && !entry->is_delta)
			return first;
		if (entry->is_delta && bms_is_empty(entry->needs) &&
			(best == NULL || pgt_order_rows(entry) < pgt_order_rows(best)))
			best = entry;
	}
	return best != NULL ? best->rtindex : first;
}

/* Conditions that can be checked once these entries are joined; taken out of quals. */
static Node *
take_conditions(List **quals, Bitmapset *joined)
{
	List *taken = NIL;
	List *rest = NIL;
	ListCell *lc;

	foreach (lc, *quals)
	{
		Bitmapset *needs = pull_varnos(NULL, lfirst(lc));

		if (!bms_is_empty(needs) && bms_is_subset(needs, joined))
			taken = lappend(taken, lfirst(lc));
		else
			rest = lappend(rest, lfirst(lc));
	}
	*quals = rest;
	return taken == NIL ? NULL : (Node *) make_ands_explicit(taken);
}

/*
 * Joins the entries, beginning with the one given (0: the first of the list).
 * Conditions that a join can check stand at that join; *rest gets those of
 * the first entry alone and those without columns, for WHERE.
 */
Node *
pgt_order_joins(Query *query, List *rtindexes, List *quals, int first, List **rest)
{
	RangeTblRef *ref = makeNode(RangeTblRef);
	List *entries = NIL;
	List *original = quals;
	Bitmapset *joined;
	Node *tree = (Node *) ref;
	Node *own;
	ListCell *lc;

	foreach (lc, rtindexes)
		entries = lappend(entries, pgt_order_entry(rt_fetch(lfirst_int(lc), query->rtable),
												   lfirst_int(lc), quals));
	if (first != 0)
		first = smallest_delta(entries, first);
	if (first == 0 || !bms_is_empty(pgt_order_needs(rt_fetch(first, query->rtable))))
		first = first_free(query, rtindexes);
	ref->rtindex = first;
	joined = bms_make_singleton(first);
	own = take_conditions(&quals, joined);
	for (int i = 1; i < list_length(rtindexes); i++)
	{
		int next = best_entry(entries, original, joined)->rtindex;

		joined = bms_add_member(joined, next);
		tree = pgt_tree_join(query, tree, next, take_conditions(&quals, joined));
	}
	*rest = own != NULL ? lcons(own, quals) : quals;
	return tree;
}
