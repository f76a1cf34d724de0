/*
 * flatten.c: which rows of a query a change inside one of its subqueries can touch.
 *
 * A subquery in an expression, or one in FROM that refers to its surroundings,
 * gives an outer row another result only if a row of the subquery's FROM and
 * WHERE comes or goes for it. So for a changed leaf in there, the subquery's
 * FROM is joined to the outer one, with its WHERE; what the subquery does with
 * these rows (aggregates, ORDER BY, LIMIT) is left out, and so are all
 * conditions that ask other subqueries. What is left has too many rows, but
 * never too few, and needs no old state: fragment.c does the rest.
 *
 * For a changed leaf outside, such subqueries and the conditions that ask them
 * are left out alike.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "catalog/pg_am.h"
#include "catalog/pg_amop.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/catcache.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "delta_internal.h"

typedef struct FlattenContext
{
	Query *query;	 /* changed in place */
	int leaf;		 /* the changed one, or 0 */
	List *pulled;	 /* FROM items to add beside the current join, */
	List *quals;	 /* and their conditions */
	Bitmapset *gone; /* entries that were left out */
} FlattenContext;

/* ---- What there is ---- */

static bool
sublink_walker(Node *node, void *context)
{
	if (node == NULL || IsA(node, Query))
		return false;
	if (IsA(node, SubLink))
	{
		*(Node **) context = node;
		return true;
	}
	return expression_tree_walker(node, sublink_walker, context);
}

/* The first one in an expression, or NULL. */
Node *
pgt_flatten_find_sublink(Node *node)
{
	Node *found = NULL;

	(void) sublink_walker(node, &found);
	return found;
}

bool
pgt_flatten_has_sublink(Node *node)
{
	return pgt_flatten_find_sublink(node) != NULL;
}

/* Does an entry of FROM refer to its surroundings, so that it is no table of its own? */
bool
pgt_flatten_is_dependent(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_SUBQUERY && pgt_tree_has_outer_vars(rte->subquery) &&
		   !pgt_tree_is_function(rte);
}

/* Does this level of a query ask subqueries that depend on its rows? */
bool
pgt_flatten_asks(Query *query)
{
	ListCell *lc;

	if (query->setOperations != NULL)
		return false;
	foreach (lc, pgt_tree_rtindexes((Node *) query->jointree))
		if (pgt_flatten_is_dependent(rt_fetch(lfirst_int(lc), query->rtable)))
			return true;
	return pgt_flatten_has_sublink((Node *) query->targetList) ||
		   pgt_flatten_has_sublink((Node *) query->jointree) ||
		   pgt_flatten_has_sublink(query->havingQual);
}

/* Here or in a subquery of FROM. */
bool
pgt_flatten_is_needed(Query *query)
{
	ListCell *lc;

	if (pgt_flatten_asks(query) || pgt_flatten_has_sublink(query->limitOffset) ||
		pgt_flatten_has_sublink(query->limitCount))
		return true;
	foreach (lc, query->setOperations != NULL ? pgt_tree_arm_rtindexes(query)
											  : pgt_tree_rtindexes((Node *) query->jointree))
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);

		if (rte->rtekind == RTE_SUBQUERY &&
			(pgt_flatten_is_dependent(rte) || pgt_flatten_is_needed(rte->subquery)))
			return true;
	}
	return false;
}

static bool
has_leaf(Query *query, int leaf)
{
	ListCell *lc;

	if (leaf > 0)
		foreach (lc, pgt_tree_leaves(query))
			if (pgt_tree_leaf(lfirst(lc)) == leaf)
				return true;
	return false;
}

/* The sublink with the changed leaf in an expression. */
typedef struct FindContext
{
	int leaf;
	SubLink *found;
} FindContext;

static bool
find_walker(Node *node, void *context)
{
	FindContext *ctx = context;

	if (node == NULL || IsA(node, Query))
		return false;
	if (IsA(node, SubLink) && has_leaf(castNode(Query, ((SubLink *) node)->subselect), ctx->leaf))
	{
		ctx->found = (SubLink *) node;
		return true;
	}
	return expression_tree_walker(node, find_walker, context);
}

static SubLink *
find_sublink(Node *node, int leaf)
{
	FindContext context = {leaf, NULL};

	if (leaf > 0)
		(void) find_walker(node, &context);
	return context.found;
}

/* ---- Conditions ---- */

/* a = b OR (a IS NULL AND b IS NULL): rows of which the second is true are others. */
bool
pgt_flatten_is_null_equality(const Node *node)
{
	const BoolExpr *alternatives = (const BoolExpr *) node;

	return node != NULL && IsA(node, BoolExpr) && alternatives->boolop == OR_EXPR &&
		   alternatives->location == PGT_ALTERNATIVES && list_length(alternatives->args) == 2 &&
		   IsA(linitial(alternatives->args), OpExpr) &&
		   IsA(lsecond(alternatives->args), BoolExpr) &&
		   lsecond_node(BoolExpr, alternatives->args)->location == PGT_ALTERNATIVES;
}

static Node *
make_test(Node *node, BoolTestType type)
{
	BooleanTest *test = makeNode(BooleanTest);

	test->arg = (Expr *) node;
	test->booltesttype = type;
	test->location = -1;
	return (Node *) test;
}

/*
 * Where does the changed sublink matter in a condition? Not where its
 * neighbours in AND and OR decide alone.
 */
static List *
relevance(Node *node, SubLink *link, int leaf)
{
	BoolExpr *expr = (BoolExpr *) node;
	BoolTestType undecided;
	List *result = NIL;
	ListCell *lc;

	if (!IsA(node, BoolExpr))
		return NIL;
	if (expr->boolop == NOT_EXPR)
		return relevance(linitial(expr->args), link, leaf);
	undecided = expr->boolop == OR_EXPR ? IS_NOT_TRUE : IS_NOT_FALSE;
	foreach (lc, expr->args)
	{
		Node *arg = lfirst(lc);

		if (find_sublink(arg, leaf) == link)
			result = list_concat(result, relevance(arg, link, leaf));
		else if (!pgt_flatten_has_sublink(arg))
			result = lappend(result, make_test(copyObject(arg), undecided));
	}
	return result;
}

/* The expression with one sublink replaced. */
typedef struct ReplaceContext
{
	SubLink *link;
	Node *by;
} ReplaceContext;

static Node *
replace_mutator(Node *node, void *context)
{
	ReplaceContext *ctx = context;

	if (node == NULL || IsA(node, Query))
		return node;
	if (node == (Node *) ctx->link)
		return (Node *) copyObject(ctx->by);
	return expression_tree_mutator(node, replace_mutator, context);
}

static Node *
replace_sublink(Node *node, SubLink *link, Node *by)
{
	ReplaceContext context = {link, by};

	return replace_mutator(node, &context);
}

static Node *
null_test(Node *node, NullTestType type)
{
	NullTest *test = makeNode(NullTest);

	test->arg = (Expr *) copyObject(node);
	test->nulltesttype = type;
	test->location = -1;
	return (Node *) test;
}

/* left OP right, by the btree strategy in the family; NULL if there is no such operator. */
static Node *
compare(Oid family, StrategyNumber strategy, Node *left, Node *right, Oid collation)
{
	Oid operator= get_opfamily_member(family, exprType(left), exprType(right), strategy);

	if (!OidIsValid(operator))
		return NULL;
	return (Node *) make_opclause(operator, BOOLOID, false, (Expr *) copyObject(left),
								  (Expr *) copyObject(right), InvalidOid, collation);
}

/*
 * An ordering condition is decided otherwise by two values only for what lies
 * between them, which an index finds. Both orders of the values find the same
 * rows, so it is the smaller one first. One value is null: no bounds. NULL if
 * the condition is no such one. fragment.c reads the two cases apart.
 */
static Node *
between_values(Node *qual, SubLink *link, Node *column, Node *other)
{
	OpExpr *op = (OpExpr *) qual;
	bool link_left;
	Node *tested;
	Node *first;
	Node *second;
	CatCList *members;
	Node *result = NULL;

	if (!IsA(qual, OpExpr) || list_length(op->args) != 2)
		return NULL;
	link_left = pgt_flatten_has_sublink(linitial(op->args));
	tested = link_left ? lsecond(op->args) : linitial(op->args);
	first = replace_sublink(link_left ? linitial(op->args) : lsecond(op->args), link, column);
	second = replace_sublink(link_left ? linitial(op->args) : lsecond(op->args), link, other);
	if (pull_varnos(NULL, tested) == NULL || pgt_flatten_has_sublink(tested))
		return NULL;
	members = SearchSysCacheList1(AMOPOPID, ObjectIdGetDatum(op->opno));
	for (int i = 0; i < members->n_members && result == NULL; i++)
	{
		Form_pg_amop member = (Form_pg_amop) GETSTRUCT(&members->members[i]->tuple);
		List *bounds;

		if (member->amopmethod != BTREE_AM_OID || member->amopstrategy == BTEqualStrategyNumber)
			continue;
		bounds = list_make3(
			compare(member->amopfamily, BTLessStrategyNumber, first, second, op->inputcollid),
			compare(member->amopfamily, BTGreaterEqualStrategyNumber, tested, first,
					op->inputcollid),
			compare(member->amopfamily, BTLessEqualStrategyNumber, tested, second,
					op->inputcollid));
		if (!list_member_ptr(bounds, NULL))
			result = (Node *) makeBoolExpr(
				OR_EXPR,
				list_make2(make_ands_explicit(bounds),
						   make_ands_explicit(list_make2(null_test(first, IS_NULL),
														 null_test(second, IS_NOT_NULL)))),
				PGT_ALTERNATIVES);
	}
	ReleaseCatCacheList(members);
	return result;
}

/*
 * A condition on the value of a table of one row changes only for rows for
 * which the old and the new value decide otherwise: the change set is joined
 * twice. column: of the row, as the subquery shows it.
 */
static List *
decided_otherwise(FlattenContext *context, Node *qual, SubLink *link, Node *column)
{
	Query *query = context->query;
	int first = bms_singleton_member(pull_varnos(NULL, column));
	int second = list_length(query->rtable) + 1;
	RangeTblRef *ref = makeNode(RangeTblRef);
	Node *other = copyObject(column);
	Node *left;
	Node *right;
	Node *between;
	List *result;

	query->rtable = lappend(query->rtable, copyObject(rt_fetch(first, query->rtable)));
	ChangeVarNodes(other, first, second, 0);
	ref->rtindex = second;
	context->pulled = lappend(context->pulled, ref);
	left = make_test(replace_sublink(qual, link, column), IS_TRUE);
	right = make_test(replace_sublink(qual, link, other), IS_TRUE);
	/* Also the other entry reads the change set; it is no leaf. */
	rt_fetch(second, query->rtable)->enrtuples = PGT_LEAF_TWIN;
	result = list_make1(make_opclause(BooleanNotEqualOperator, BOOLOID, false, (Expr *) left,
									  (Expr *) right, InvalidOid, InvalidOid));
	between = between_values(qual, link, column, other);
	return between != NULL ? lappend(result, between) : result;
}

/* ---- Subqueries ---- */

static void flatten_quals(FlattenContext *context, List *quals, List **kept);
static Node *flatten_node(FlattenContext *context, Node *node);

/* Arms of a set operation that have the leaf, each as if it were the subquery. */
static List *
arms_with_leaf(Query *query, int leaf)
{
	List *arms = NIL;
	ListCell *lc;

	if (query->setOperations == NULL)
		return list_make1(query);
	foreach (lc, pgt_tree_arm_rtindexes(query))
	{
		Query *arm = copyObject(rt_fetch(lfirst_int(lc), query->rtable)->subquery);

		if (!has_leaf(arm, leaf))
			continue;
		/* Nothing refers to the set operation itself, only to what is around it. */
		IncrementVarSublevelsUp((Node *) arm, -1, 2);
		arms = list_concat(arms, arms_with_leaf(arm, leaf));
	}
	return arms;
}

/* Makes the FROM of a subquery part of the query's; its conditions go to context->quals. */
static Query *
pull_up(FlattenContext *context, Query *subquery)
{
	Query *query = context->query;
	List *arms = arms_with_leaf(copyObject(subquery), context->leaf);
	FromExpr *from;
	List *kept = NIL;
	ListCell *lc;

	/* A leaf is in one arm only. */
	Assert(list_length(arms) == 1);
	subquery = linitial(arms);
	OffsetVarNodes((Node *) subquery, list_length(query->rtable), 0);
	IncrementVarSublevelsUp((Node *) subquery, -1, 1);
	query->rtable = list_concat(query->rtable, subquery->rtable);
	from = subquery->jointree;
	foreach (lc, from->fromlist)
	{
		Node *item = flatten_node(context, lfirst(lc));

		if (item != NULL)
			context->pulled = lappend(context->pulled, item);
	}
	flatten_quals(context, pgt_tree_conjuncts(from->quals), &kept);
	context->quals = list_concat(context->quals, kept);
	/* A changed leaf in what the subquery shows. */
	flatten_quals(context, list_make1(subquery->targetList), &kept);
	return subquery;
}

/* Keeps the conditions without subqueries; the one with the changed leaf is taken apart. */
static void
flatten_quals(FlattenContext *context, List *quals, List **kept)
{
	ListCell *lc;

	foreach (lc, quals)
	{
		Node *qual = lfirst(lc);
		SubLink *link;
		Query *subquery;

		if (!pgt_flatten_has_sublink(qual))
		{
			if (qual != NULL && !IsA(qual, List))
				*kept = lappend(*kept, qual);
			continue;
		}
		link = find_sublink(qual, context->leaf);
		if (link == NULL)
			continue;
		context->quals = list_concat(context->quals, relevance(qual, link, context->leaf));
		subquery = pull_up(context, castNode(Query, link->subselect));
		if (link->subLinkId == PGT_SUBLINK_ONE_ROW && !IsA(qual, List))
		{
			Node *column = (Node *) linitial_node(TargetEntry, subquery->targetList)->expr;

			/* Other subqueries in the condition are unknown. */
			if (!pgt_flatten_has_sublink(replace_sublink(qual, link, column)))
				context->quals = list_concat(context->quals,
											 decided_otherwise(context, qual, link, column));
		}
	}
}

/* The FROM items that were pulled up stand beside this one. */
static Node *
with_pulled(FlattenContext *context, Node *node)
{
	List *items = context->pulled;

	if (items == NIL)
		return node;
	context->pulled = NIL;
	return (Node *) makeFromExpr(node != NULL ? lcons(node, items) : items, NULL);
}

/* Only conditions about rows that the join has. */
static Node *
known_quals(List *quals, Node *left, Node *right)
{
	Bitmapset *there = bms_union(pgt_tree_rtindex_set(left), pgt_tree_rtindex_set(right));
	List *kept = NIL;
	ListCell *lc;

	foreach (lc, quals)
		if (bms_is_subset(pull_varnos(NULL, lfirst(lc)), there) &&
			!contain_aggs_of_level(lfirst(lc), 0))
			kept = lappend(kept, lfirst(lc));
	return kept == NIL ? NULL : (Node *) make_ands_explicit(kept);
}

static bool
node_has_leaf(FlattenContext *context, Node *node)
{
	ListCell *lc;

	foreach (lc, pgt_tree_rtindexes(node))
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), context->query->rtable);

		if (rte->rtekind == RTE_RELATION
				? pgt_tree_leaf(rte) == context->leaf
				: rte->rtekind == RTE_SUBQUERY && has_leaf(rte->subquery, context->leaf))
			return true;
	}
	return false;
}

/* What is left of a join if one side is not: it must not be missed for being empty. */
static Node *
only_side(FlattenContext *context, Node *node, bool preserved)
{
	if (node == NULL || preserved || node_has_leaf(context, node))
		return node;
	context->gone = bms_add_members(context->gone, pgt_tree_rtindex_set(node));
	return NULL;
}

static Node *
flatten_join(FlattenContext *context, JoinExpr *join)
{
	List *pulled = context->pulled;
	List *quals = context->quals;
	List *kept = NIL;
	Node *left;
	Node *right;
	Node *result = (Node *) join;

	context->pulled = NIL;
	context->quals = NIL;
	left = with_pulled(context, flatten_node(context, join->larg));
	right = flatten_node(context, join->rarg);
	flatten_quals(context, pgt_tree_conjuncts(join->quals), &kept);
	if (join->jointype == JOIN_RIGHT)
		left = with_pulled(context, left);
	else
		right = with_pulled(context, right);
	if (left == NULL)
		result = only_side(context, right, join->jointype != JOIN_LEFT);
	else if (right == NULL)
		result = only_side(context, left, join->jointype != JOIN_RIGHT);
	else
	{
		kept = list_concat(kept, context->quals);
		join->larg = left;
		join->rarg = right;
		join->quals = known_quals(kept, left, right);
	}
	context->pulled = pulled;
	/*
	 * Conditions of a join that is no more hold for what is left, but not for
	 * the side of an outer join that is there in any case.
	 */
	if (result == (Node *) join)
		context->quals = quals;
	else
	{
		bool preserved = join->jointype == JOIN_FULL ||
						 (join->jointype == JOIN_LEFT && right == NULL) ||
						 (join->jointype == JOIN_RIGHT && left == NULL);

		quals = list_concat(quals, context->quals);
		context->quals = preserved ? quals : list_concat(quals, kept);
	}
	return result;
}

/* NULL: nothing is left of it. */
static Node *
flatten_node(FlattenContext *context, Node *node)
{
	if (IsA(node, RangeTblRef))
	{
		int rtindex = ((RangeTblRef *) node)->rtindex;
		RangeTblEntry *rte = rt_fetch(rtindex, context->query->rtable);

		/* A function of something that is left out cannot be computed. */
		if (!pgt_flatten_is_dependent(rte) && !bms_overlap(pgt_order_needs(rte), context->gone))
			return node;
		context->gone = bms_add_member(context->gone, rtindex);
		if (rte->rtekind == RTE_SUBQUERY && has_leaf(rte->subquery, context->leaf))
			(void) pull_up(context, rte->subquery);
		return NULL;
	}
	return flatten_join(context, castNode(JoinExpr, node));
}

/*
 * A query without subqueries that depend on something: for a changed leaf (0:
 * none), its FROM joined to what the change touches. The query itself if it
 * has none.
 */
Query *
pgt_flatten_query(Query *query, int leaf)
{
	FlattenContext context = {NULL, leaf, NIL, NIL, NULL};
	FromExpr *from;
	List *items = NIL;
	List *kept = NIL;
	ListCell *lc;

	if (!pgt_flatten_is_needed(query))
		return query;
	query = copyObject(query);
	context.query = query;
	from = query->jointree;
	foreach (lc, from->fromlist)
	{
		Node *item = flatten_node(&context, lfirst(lc));

		if (item != NULL)
			items = lappend(items, item);
	}
	flatten_quals(&context, pgt_tree_conjuncts(from->quals), &kept);
	/* A changed leaf in what the query shows, or in what it asks of groups. */
	flatten_quals(&context, list_make1(query->targetList), &kept);
	flatten_quals(&context, list_make1(list_make1(query->havingQual)), &kept);
	flatten_quals(&context, list_make1(list_make2(query->limitOffset, query->limitCount)), &kept);
	from->fromlist = list_concat(items, context.pulled);
	from->quals = known_quals(list_concat(kept, context.quals), (Node *) from, NULL);
	return query;
}

/* Can a column be computed without subqueries that depend on something? */
bool
pgt_flatten_is_plain(Query *query, Node *expr)
{
	Query *left;
	List *vars;
	ListCell *lc;
	ListCell *lv;

	if (pgt_flatten_has_sublink(expr))
		return false;
	left = pgt_flatten_query(query, 0);
	if (!bms_is_subset(pull_varnos(NULL, expr), pgt_tree_rtindex_set((Node *) left->jointree)))
		return false;
	vars = pull_vars_of_level(expr, 0);
	foreach (lc, vars)
	{
		Var *var = lfirst_node(Var, lc);
		RangeTblEntry *rte = rt_fetch(var->varno, query->rtable);

		/* What follows from other columns is as plain as these. */
		if (pgt_tree_is_function(rte))
		{
			foreach (lv,
					 rte->subquery != NULL ? pull_vars_of_level((Node *) rte->subquery, 1) : NIL)
			{
				Var *other = copyObject(lfirst_node(Var, lv));

				other->varlevelsup = 0;
				if (!pgt_flatten_is_plain(query, (Node *) other))
					return false;
			}
			continue;
		}
		if (rte->rtekind == RTE_SUBQUERY && var->varattno > 0 &&
			rte->subquery->setOperations == NULL &&
			!pgt_flatten_is_plain(
				rte->subquery, (Node *) list_nth_node(TargetEntry, pgt_tree_outputs(rte->subquery),
													  var->varattno - 1)
								   ->expr))
			return false;
	}
	return true;
}
