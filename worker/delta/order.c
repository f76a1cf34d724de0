/*
 * order.c: the join order of a delta term.
 *
 * The planner has no statistics of deltas and of old states, so the engine
 * fixes the order: start at the delta, follow unique indexes first, then other
 * indexes, then equalities without an index. The result is a left-deep tree of
 * explicit joins, planned under join_collapse_limit = 1.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "catalog/pg_index.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "delta_internal.h"

/* How good it is to join an entry next; better is larger. */
typedef enum Edge
{
	EDGE_NONE,		/* a cross product */
	EDGE_CONDITION, /* some condition */
	EDGE_EQUALITY,
	EDGE_INDEX,	 /* equality on the first column of an index */
	EDGE_UNIQUE, /* equality on all columns of a unique index */
	EDGE_DELTA	 /* equality with another delta: few rows are left */
} Edge;

/* Column of the entry that the condition equates with something already joined, or 0. */
static AttrNumber
equated_column(Node *qual, int rtindex, Bitmapset *joined)
{
	OpExpr *op = (OpExpr *) qual;
	AttrNumber attno = 0;

	if (!IsA(qual, OpExpr) || list_length(op->args) != 2 ||
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

static Edge
rate_index(Relation index, Bitmapset *columns)
{
	Form_pg_index form = index->rd_index;
	bool all = true;

	if (!form->indisvalid || form->indkey.values[0] == 0 ||
		!bms_is_member(form->indkey.values[0], columns))
		return EDGE_EQUALITY;
	for (int i = 0; i < form->indnkeyatts; i++)
		all = all && bms_is_member(form->indkey.values[i], columns);
	return all && form->indisunique && RelationGetIndexPredicate(index) == NIL ? EDGE_UNIQUE
																			   : EDGE_INDEX;
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

static bool
is_delta(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_CTE && strncmp(rte->ctename, "pgt_delta_", 10) == 0;
}

/* The number in its table of a column of an old state, whose columns are pgt_w, c1, c2 ... */
static AttrNumber
table_column(const RangeTblEntry *rte, AttrNumber attno)
{
	if (rte->rtekind != RTE_CTE || !OidIsValid(rte->relid))
		return attno;
	return atoi(strVal(list_nth(rte->eref->colnames, attno - 1)) + 1);
}

static Edge
rate_entry(int rtindex, List *quals, Bitmapset *joined, const RangeTblEntry *rte)
{
	Bitmapset *columns = NULL;
	Edge edge = EDGE_NONE;
	Bitmapset *with = bms_add_member(bms_copy(joined), rtindex);
	ListCell *lc;

	foreach (lc, quals)
	{
		Bitmapset *needs = pull_varnos(NULL, lfirst(lc));
		AttrNumber attno;

		if (!bms_is_member(rtindex, needs) || !bms_is_subset(needs, with) ||
			!bms_overlap(needs, joined))
			continue;
		edge = Max(edge, EDGE_CONDITION);
		attno = equated_column(lfirst(lc), rtindex, joined);
		if (attno > 0)
		{
			edge = Max(edge, EDGE_EQUALITY);
			columns = bms_add_member(columns, table_column(rte, attno));
		}
	}
	if (columns != NULL && is_delta(rte))
		return EDGE_DELTA;
	if (columns != NULL && OidIsValid(rte->relid) &&
		(rte->rtekind == RTE_RELATION || rte->rtekind == RTE_CTE))
	{
		Relation relation = relation_open(rte->relid, AccessShareLock);
		List *indexes = RelationGetIndexList(relation);

		foreach (lc, indexes)
		{
			Relation index = index_open(lfirst_oid(lc), AccessShareLock);

			edge = Max(edge, rate_index(index, columns));
			index_close(index, AccessShareLock);
		}
		relation_close(relation, AccessShareLock);
	}
	return edge;
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
	List *waiting = list_copy(rtindexes);
	List *original = quals;
	Bitmapset *joined;
	Node *tree = (Node *) ref;
	Node *own;

	ref->rtindex = first;
	if (first == 0 || !bms_is_empty(pgt_order_needs(rt_fetch(first, query->rtable))))
		ref->rtindex = first_free(query, rtindexes);
	joined = bms_make_singleton(ref->rtindex);
	waiting = list_delete_int(waiting, ref->rtindex);
	own = take_conditions(&quals, joined);
	while (waiting != NIL)
	{
		Edge best_edge = EDGE_NONE;
		int best = 0;
		ListCell *lc;

		foreach (lc, waiting)
		{
			RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);
			Bitmapset *needs = pgt_order_needs(rte);
			Edge edge;

			if (!bms_is_subset(needs, joined))
				continue;
			edge = rate_entry(lfirst_int(lc), original, joined, rte);
			/* A function of what is joined is no cross product. */
			if (!bms_is_empty(needs))
				edge = Max(edge, EDGE_EQUALITY);
			if (best == 0 || edge > best_edge)
			{
				best_edge = edge;
				best = lfirst_int(lc);
			}
		}
		if (best == 0)
			elog(ERROR, "a FROM item of the query refers to one that is not there");
		waiting = list_delete_int(waiting, best);
		joined = bms_add_member(joined, best);
		tree = pgt_tree_join(query, tree, best, take_conditions(&quals, joined));
	}
	*rest = own != NULL ? lcons(own, quals) : quals;
	return tree;
}
