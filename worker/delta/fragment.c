/*
 * fragment.c: which keys a change can touch (the first half of AKR).
 *
 * The key set may be too large but never too small, and it must not need old
 * states. So every other changed leaf is read in its "ever" state (new rows
 * and all images of the change set: a superset of old and new), and outer
 * joins are taken apart by what kinds of rows they can emit: the match, and
 * the row whose other side is absent. A change on one side makes rows of both
 * kinds come and go.
 *
 *	  touched(A JOIN B, i in A)		 = touched(A) x all(B)
 *	  touched(A LEFT JOIN B, i in A) = touched(A) x all(B), touched(A) alone
 *	  touched(A LEFT JOIN B, i in B) = all(A) x touched(B), the same with B absent
 *	  touched(A FULL JOIN B, i in A) = touched(A) x all(B), the same with A absent,
 *									   touched(A) alone
 *
 * A fragment is one kind of row: which entries stand in FROM, which of them
 * count as present (columns of the others are NULL), and the conditions.
 *
 * An index serves the table of an ever state but not its delta, which would be
 * read once per outer row. So fragments with few of them are read by parts:
 * once for each choice of the new rows or the images of every other leaf. What
 * two changed leaves touch together is touched by the first of them, so those
 * before the changed leaf are only read in their new state.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "delta_internal.h"

#define MAX_FRAGMENTS 64
#define MAX_PARTED_NULLS 2	/* conditions of rewrite_null.c that are */
#define MAX_PARTED_STATES 4 /* ever states of a fragment that are read by parts */

typedef struct Entry
{
	int rtindex;
	LeafState state; /* of a relation */
	Query *subquery; /* for a subquery, what stands in its place */
	bool delta;		 /* here is the change */
} Entry;

typedef struct Fragment
{
	List *entries;	   /* Entry */
	Bitmapset *absent; /* entries of the join tree so far that count as NULL */
	List *quals;
	bool rare; /* only if the change has a null value */
} Fragment;

typedef struct FragmentContext
{
	Query *query;
	EmitContext *emit;
	int leaf; /* the changed leaf, or 0 for all() */
} FragmentContext;

static List *fragments_of_node(Node *node, FragmentContext *context, bool touched);
static List *queries_of(Query *query, List *outputs, EmitContext *emit, int leaf, bool touched,
						bool parted);

int
pgt_fragment_limit(void)
{
	return MAX_FRAGMENTS;
}

static void
check_count(List *fragments)
{
	if (list_length(fragments) > MAX_FRAGMENTS)
		ereport(ERROR, (errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
						errmsg("outer joins of the query make more than %d kinds of rows",
							   MAX_FRAGMENTS)));
}

static Fragment *
make_fragment(Entry *entry)
{
	Fragment *fragment = palloc0(sizeof(Fragment));

	fragment->entries = list_make1(entry);
	return fragment;
}

/* The same rows with one side of a join absent. */
static List *
with_absent(List *fragments, Node *side)
{
	List *result = NIL;
	ListCell *lc;

	foreach (lc, fragments)
	{
		Fragment *fragment = palloc(sizeof(Fragment));

		*fragment = *(Fragment *) lfirst(lc);
		fragment->absent = bms_union(fragment->absent, pgt_tree_rtindex_set(side));
		result = lappend(result, fragment);
	}
	return result;
}

/* Values that have no text: an anonymous row, an array of them. */
static bool
has_anonymous_rows(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Const) && !((Const *) node)->constisnull)
		return ((Const *) node)->consttype == RECORDOID ||
			   ((Const *) node)->consttype == RECORDARRAYOID;
	return expression_tree_walker(node, has_anonymous_rows, context);
}

/* Adds conditions as this kind of row sees them; false if they can never hold. */
static bool
add_quals(Fragment *fragment, List *quals)
{
	ListCell *lc;

	foreach (lc, quals)
	{
		Node *qual = pgt_tree_null_vars(lfirst(lc), fragment->absent);

		if (qual != lfirst(lc))
		{
			Node *simple = eval_const_expressions(NULL, qual);

			if (!has_anonymous_rows(simple, NULL))
				qual = simple;
		}
		if (IsA(qual, Const))
		{
			if (((Const *) qual)->constisnull || !DatumGetBool(((Const *) qual)->constvalue))
				return false;
			continue;
		}
		fragment->quals = lappend(list_copy(fragment->quals), qual);
	}
	return true;
}

static List *
product(List *left, List *right, List *quals)
{
	List *result = NIL;
	ListCell *ll;
	ListCell *lr;

	foreach (ll, left)
	{
		foreach (lr, right)
		{
			Fragment *a = lfirst(ll);
			Fragment *b = lfirst(lr);
			Fragment *both = palloc0(sizeof(Fragment));

			both->entries = list_concat(list_copy(a->entries), b->entries);
			both->absent = bms_union(a->absent, b->absent);
			both->quals = list_concat(list_copy(a->quals), b->quals);
			if (add_quals(both, quals))
				result = lappend(result, both);
		}
		check_count(result);
	}
	return result;
}

static bool
subtree_has_leaf(Node *node, FragmentContext *context)
{
	ListCell *lc;
	ListCell *ll;

	foreach (lc, pgt_tree_rtindexes(node))
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), context->query->rtable);

		if (rte->rtekind == RTE_RELATION && pgt_tree_leaf(rte) == context->leaf)
			return true;
		if (rte->rtekind == RTE_SUBQUERY)
			foreach (ll, pgt_tree_leaves(rte->subquery))
				if (pgt_tree_leaf(lfirst(ll)) == context->leaf)
					return true;
	}
	return false;
}

static List *
fragments_of_entry(int rtindex, FragmentContext *context, bool touched)
{
	RangeTblEntry *rte = rt_fetch(rtindex, context->query->rtable);
	List *result = NIL;
	ListCell *lc;

	if (rte->rtekind == RTE_SUBQUERY && !pgt_tree_is_function(rte))
	{
		foreach (lc, queries_of(rte->subquery, pgt_tree_outputs(rte->subquery), context->emit,
								context->leaf, touched, false))
		{
			Entry *entry = palloc0(sizeof(Entry));

			entry->rtindex = rtindex;
			entry->subquery = lfirst(lc);
			entry->delta = touched;
			result = lappend(result, make_fragment(entry));
		}
	}
	else
	{
		Entry *entry = palloc0(sizeof(Entry));

		entry->rtindex = rtindex;
		if (rte->rtekind == RTE_RELATION)
			entry->state = touched || pgt_tree_leaf(rte) == PGT_LEAF_TWIN			? LEAF_DELTA
						   : pgt_tree_find_shape(context->emit, rte->relid) != NULL ? LEAF_EVER
																					: LEAF_NEW;
		entry->delta = touched;
		result = list_make1(make_fragment(entry));
	}
	return result;
}

/* One join; the changed leaf, if any, is on one side. */
static List *
fragments_of_join(JoinExpr *join, FragmentContext *context, bool touched)
{
	bool in_left = touched && subtree_has_leaf(join->larg, context);
	bool in_right = touched && !in_left;
	List *left = fragments_of_node(join->larg, context, in_left);
	List *right = fragments_of_node(join->rarg, context, in_right);
	List *both = product(left, right, pgt_tree_conjuncts(join->quals));
	List *result = both;
	bool left_alone = join->jointype == JOIN_LEFT || join->jointype == JOIN_FULL;
	bool right_alone = join->jointype == JOIN_RIGHT || join->jointype == JOIN_FULL;

	/* Rows of the left side without a match: they change with either side. */
	if (left_alone)
		result = list_concat(list_copy(result), in_right ? with_absent(both, join->rarg)
														 : with_absent(left, join->rarg));
	if (right_alone)
		result = list_concat(list_copy(result), in_left ? with_absent(both, join->larg)
														: with_absent(right, join->larg));
	check_count(result);
	return result;
}

static List *
fragments_of_node(Node *node, FragmentContext *context, bool touched)
{
	if (IsA(node, RangeTblRef))
		return fragments_of_entry(((RangeTblRef *) node)->rtindex, context, touched);
	if (IsA(node, JoinExpr))
		return fragments_of_join((JoinExpr *) node, context, touched);
	else
	{
		FromExpr *from = castNode(FromExpr, node);
		List *quals = pgt_tree_conjuncts(from->quals);
		List *result = NIL;
		bool started = false;
		ListCell *lc;

		foreach (lc, from->fromlist)
		{
			bool here = touched && subtree_has_leaf(lfirst(lc), context);
			List *fragments = fragments_of_node(lfirst(lc), context, here);

			result = started ? product(result, fragments, NIL) : fragments;
			started = true;
		}
		if (!started)
			result = list_make1(palloc0(sizeof(Fragment)));
		/* Conditions of WHERE apply to every kind of row. */
		{
			List *kept = NIL;

			foreach (lc, result)
			{
				Fragment *fragment = palloc(sizeof(Fragment));

				*fragment = *(Fragment *) lfirst(lc);
				if (add_quals(fragment, quals))
					kept = lappend(kept, fragment);
			}
			return kept;
		}
	}
}

/* What a FROM item refers to can be absent. */
static void
null_arguments(RangeTblEntry *rte, const Bitmapset *absent)
{
	if (rte->rtekind == RTE_FUNCTION)
		rte->functions = (List *) pgt_tree_null_vars((Node *) rte->functions, absent);
	else if (rte->rtekind == RTE_VALUES)
		rte->values_lists = (List *) pgt_tree_null_vars((Node *) rte->values_lists, absent);
	else if (rte->rtekind == RTE_TABLEFUNC)
		rte->tablefunc = (TableFunc *) pgt_tree_null_vars((Node *) rte->tablefunc, absent);
	else if (rte->rtekind == RTE_SUBQUERY && rte->lateral)
		rte->subquery = castNode(Query, pgt_tree_null_vars((Node *) rte->subquery, absent));
}

/* Do two kinds of rows have the same arguments in a FROM item that refers to others? */
static bool
same_arguments(Query *query, int rtindex, const Bitmapset *absent, const Bitmapset *other)
{
	RangeTblEntry *rte = rt_fetch(rtindex, query->rtable);
	RangeTblEntry *first;
	RangeTblEntry *second;

	if (!pgt_tree_is_function(rte) || bms_equal(absent, other))
		return true;
	first = copyObject(rte);
	second = copyObject(rte);
	null_arguments(first, absent);
	null_arguments(second, other);
	return equal(first, second);
}

/*
 * A null in a change set is asked for on its own, too: where there is none,
 * nothing else is read.
 */
static List *
add_existence(Query *query, List *quals, int change)
{
	ListCell *lc;

	foreach (lc, quals)
	{
		NullTest *test = lfirst(lc);
		int rtindex;
		RangeTblRef *ref = makeNode(RangeTblRef);
		Query *select = makeNode(Query);
		SubLink *link = makeNode(SubLink);
		Node *own;

		if (!IsA(test, NullTest) || test->nulltesttype != IS_NULL ||
			!bms_get_singleton_member(pull_varnos(NULL, (Node *) test), &rtindex) ||
			rtindex != change)
			continue;
		own = (Node *) copyObject(test);
		ChangeVarNodes(own, rtindex, 1, 0);
		ref->rtindex = 1;
		select->commandType = CMD_SELECT;
		select->canSetTag = true;
		select->rtable = list_make1(copyObject(rt_fetch(rtindex, query->rtable)));
		select->jointree = makeFromExpr(list_make1(ref), own);
		select->targetList = list_make1(
			makeTargetEntry((Expr *) makeBoolConst(true, false), 1, pstrdup("found"), false));
		link->subLinkType = EXISTS_SUBLINK;
		link->subselect = (Node *) select;
		link->location = -1;
		query->hasSubLinks = true;
		return lappend(list_copy(quals), link);
	}
	return quals;
}

/*
 * Conditions without those that a column of the delta differs from one of another
 * entry. These hold nearly always, and without them the other columns alone tell
 * what to look up: Memoize does it once for all rows of the delta that share them.
 */
static List *
drop_inequalities(List *quals, int delta)
{
	List *kept = NIL;
	ListCell *lc;

	foreach (lc, quals)
	{
		OpExpr *op = lfirst(lc);
		Bitmapset *left;
		Bitmapset *right;

		if (IsA(op, OpExpr) && list_length(op->args) == 2 && get_oprjoin(op->opno) == F_NEQJOINSEL)
		{
			left = pull_varnos(NULL, linitial(op->args));
			right = pull_varnos(NULL, lsecond(op->args));
			if (!bms_is_empty(left) && !bms_is_empty(right) &&
				bms_is_member(delta, left) != bms_is_member(delta, right))
				continue;
		}
		kept = lappend(kept, op);
	}
	return kept;
}

/* Reads every entry of a fragment as it shall be read; changes the query in place. */
static Query *
build_query(Query *source, Fragment *fragment, List *outputs, EmitContext *emit)
{
	Query *query = pgt_tree_select(copyObject(source), NIL);
	List *rtindexes = NIL;
	List *quals = copyObject(fragment->quals);
	List *rest = NIL;
	int first = 0;
	Node *tree = NULL;
	ListCell *lc;

	foreach (lc, outputs)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		query->targetList = lappend(
			query->targetList,
			makeTargetEntry(
				(Expr *) copyObject(pgt_tree_null_vars((Node *) tle->expr, fragment->absent)),
				list_length(query->targetList) + 1,
				tle->resname != NULL ? pstrdup(tle->resname) : NULL, false));
	}
	query = pgt_tree_select(query, query->targetList);
	query->jointree = makeFromExpr(NIL, (Node *) quals);
	foreach (lc, fragment->entries)
	{
		Entry *entry = lfirst(lc);

		rtindexes = lappend_int(rtindexes, entry->rtindex);
		if (entry->delta)
			first = entry->rtindex;
		if (entry->subquery != NULL)
			rt_fetch(entry->rtindex, query->rtable)->subquery = entry->subquery;
		else
			pgt_tree_use_state(query, entry->rtindex, entry->state, emit);
		null_arguments(rt_fetch(entry->rtindex, query->rtable), fragment->absent);
	}
	if (fragment->rare && first > 0 && !rt_fetch(first, query->rtable)->lateral)
		quals = add_existence(query, quals, first);
	quals = drop_inequalities(quals, first);
	if (rtindexes != NIL)
		tree = pgt_order_joins(query, rtindexes, quals, first, &rest);
	else
		rest = quals;
	query->jointree = makeFromExpr(tree != NULL ? list_make1(tree) : NIL,
								   rest == NIL ? NULL : (Node *) make_ands_explicit(rest));
	return query;
}

/* Does `wide` only produce rows that `narrow` produces too? */
static bool
is_subsumed(Query *query, Fragment *wide, Fragment *narrow, List *outputs)
{
	ListCell *lc;

	foreach (lc, narrow->entries)
	{
		Entry *entry = lfirst(lc);
		bool found = false;
		ListCell *lw;

		foreach (lw, wide->entries)
		{
			Entry *other = lfirst(lw);

			found = found ||
					(other->rtindex == entry->rtindex && other->state == entry->state &&
					 other->delta == entry->delta && equal(other->subquery, entry->subquery));
		}
		if (!found || !same_arguments(query, entry->rtindex, wide->absent, narrow->absent))
			return false;
	}
	foreach (lc, narrow->quals)
		if (!list_member(wide->quals, lfirst(lc)))
			return false;
	foreach (lc, outputs)
	{
		Node *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;

		if (!equal(pgt_tree_null_vars(expr, wide->absent),
				   pgt_tree_null_vars(expr, narrow->absent)))
			return false;
	}
	return true;
}

static List *
drop_subsumed(Query *query, List *fragments, List *outputs)
{
	List *kept = NIL;
	ListCell *lc;

	foreach (lc, fragments)
	{
		bool needed = true;
		ListCell *other;

		foreach (other, fragments)
		{
			if (other == lc || !is_subsumed(query, lfirst(lc), lfirst(other), outputs))
				continue;
			/* Of two equal ones the first stays. */
			needed = needed && lc < other && is_subsumed(query, lfirst(other), lfirst(lc), outputs);
		}
		if (needed)
			kept = lappend(kept, lfirst(lc));
	}
	return kept;
}

/*
 * Conditions of which a plan can use one at a time, so that each is a fragment
 * of its own. Those of null_equality only where there is room for both.
 */
static List *
part_alternatives(List *fragments, bool null_equality)
{
	List *result = NIL;
	ListCell *lc;

	foreach (lc, fragments)
	{
		Fragment *fragment = lfirst(lc);
		BoolExpr *parted = NULL;
		ListCell *ll;

		foreach (ll, fragment->quals)
			if (parted == NULL && IsA(lfirst(ll), BoolExpr) &&
				lfirst_node(BoolExpr, ll)->boolop == OR_EXPR &&
				lfirst_node(BoolExpr, ll)->location == PGT_ALTERNATIVES &&
				pgt_flatten_is_null_equality(lfirst(ll)) == null_equality)
				parted = lfirst(ll);
		if (parted == NULL)
		{
			result = lappend(result, fragment);
			continue;
		}
		foreach (ll, parted->args)
		{
			Fragment *part = palloc(sizeof(Fragment));

			*part = *fragment;
			/* Two nulls in one condition tell which tables belong together. */
			part->quals = list_concat(list_delete_ptr(list_copy(fragment->quals), parted),
									  null_equality ? list_make1(lfirst(ll))
													: pgt_tree_conjuncts(lfirst(ll)));
			part->rare = part->rare || (!null_equality && lnext(parted->args, ll) == NULL);
			result = lappend(result, part);
		}
	}
	return result;
}

static bool
is_earlier(const Query *query, const Entry *entry, int leaf)
{
	return pgt_tree_leaf(rt_fetch(entry->rtindex, query->rtable)) < leaf;
}

/* The fragment with its ever states as new rows or images of the delta, in all combinations. */
static List *
part_states(const Query *query, Fragment *fragment, int nfragments, int leaf)
{
	int nparted = 0;
	List *result = NIL;
	ListCell *lc;

	foreach (lc, fragment->entries)
	{
		Entry *entry = lfirst(lc);

		nparted += entry->state == LEAF_EVER && !is_earlier(query, entry, leaf);
	}
	if (nparted > MAX_PARTED_STATES || nfragments << nparted > MAX_FRAGMENTS)
		return list_make1(fragment);
	for (int images = 0; images < (1 << nparted); images++)
	{
		Fragment *part = palloc(sizeof(Fragment));
		int number = 0;

		*part = *fragment;
		part->entries = NIL;
		foreach (lc, fragment->entries)
		{
			Entry *entry = palloc(sizeof(Entry));

			*entry = *(Entry *) lfirst(lc);
			if (entry->state == LEAF_EVER)
			{
				entry->state = LEAF_NEW;
				if (!is_earlier(query, entry, leaf) && (images & (1 << number++)) != 0)
					entry->state = LEAF_DELTA;
			}
			part->entries = lappend(part->entries, entry);
		}
		result = lappend(result, part);
	}
	return result;
}

/*
 * Queries whose rows together are every row of `outputs` that the leaf can
 * touch (touched), or that ever was or is there (not touched). Those of the
 * outermost query are read by parts; within it, parts would multiply.
 */
static List *
queries_of(Query *query, List *outputs, EmitContext *emit, int leaf, bool touched, bool parted)
{
	FragmentContext context = {NULL, emit, leaf};
	List *fragments;
	List *result = NIL;
	ListCell *lc;

	check_stack_depth();
	if (query->setOperations != NULL)
	{
		foreach (lc, pgt_tree_union_arms(query))
		{
			Query *arm = lfirst(lc);
			bool here = false;
			ListCell *ll;

			foreach (ll, pgt_tree_leaves(arm))
				here = here || pgt_tree_leaf(lfirst(ll)) == leaf;
			if (!touched || here)
				result = list_concat(
					result, queries_of(arm, pgt_tree_outputs(arm), emit, leaf, touched, parted));
		}
		return result;
	}
	query = pgt_flatten_query(query, touched ? leaf : 0);
	context.query = query;
	fragments = part_alternatives(
		drop_subsumed(query, fragments_of_node((Node *) query->jointree, &context, touched),
					  outputs),
		false);
	for (int i = 0; i < MAX_PARTED_NULLS && parted; i++)
		if (list_length(fragments) * 2 <= MAX_FRAGMENTS)
			fragments = part_alternatives(fragments, true);
	foreach (lc, fragments)
	{
		Fragment *fragment = lfirst(lc);
		ListCell *lp;

		foreach (lp, parted ? part_states(query, fragment, list_length(fragments), leaf)
							: list_make1(fragment))
			result = lappend(result, build_query(query, lfirst(lp), outputs, emit));
	}
	check_count(result);
	return result;
}

/* Queries for the keys that any changed leaf can touch; keys are target entries. */
List *
pgt_fragment_queries(Query *query, List *keys, EmitContext *emit)
{
	List *result = NIL;
	ListCell *lc;

	foreach (lc, pgt_tree_leaves(query))
	{
		RangeTblEntry *rte = lfirst(lc);

		if (pgt_tree_find_shape(emit, rte->relid) != NULL)
			result = list_concat(result,
								 queries_of(query, keys, emit, pgt_tree_leaf(rte), true, true));
	}
	return result;
}
