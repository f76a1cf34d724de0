/*
 * term.c: the signed delta of a select-project-join query (technique L).
 *
 * Every row carries an integer weight: filter, projection and UNION ALL pass
 * it, joins multiply it (DBSP, Budiu et al. 2023: linear and bilinear rules).
 * For up to three changed leaves the delta is an inclusion-exclusion sum over
 * new states, dR x S + R x dS - dR x dS, whose terms read plain tables; for
 * more it telescopes, with old = new minus delta. Inserts and deletes are
 * never split: that is algebraically wrong.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/fmgroids.h"

#include "delta_internal.h"

#define INT4_MULTIPLY 514 /* pg_operator oid of int4 * int4; see pg_operator.dat */
#define MAX_INCLUSION_EXCLUSION 5
#define MAX_PARTED_TERMS 16 /* about so many where conditions about nulls are read apart */

typedef struct TermContext
{
	EmitContext *emit;
	const LeafState *states; /* by leaf number */
} TermContext;

static bool
has_state(Query *query, const LeafState *states, LeafState state)
{
	ListCell *lc;

	foreach (lc, pgt_tree_leaves(query))
		if (states[pgt_tree_leaf(lfirst(lc))] == state)
			return true;
	return false;
}

static Expr *
multiply(Expr *a, Expr *b)
{
	OpExpr *op = makeNode(OpExpr);

	if (a == NULL)
		return b;
	op->opno = INT4_MULTIPLY;
	op->opfuncid = F_INT4MUL;
	op->opresulttype = INT4OID;
	op->args = list_make2(a, b);
	op->location = -1;
	return (Expr *) op;
}

static Expr *
constant_weight(void)
{
	return (Expr *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(1), false,
							  true);
}

static void
add_weight_output(Query *query, Expr *weight)
{
	query->targetList = lappend(query->targetList,
								makeTargetEntry(weight, list_length(query->targetList) + 1,
												pstrdup(PGT_WEIGHT_COLUMN), false));
}

static Query *transform(Query *query, TermContext *context, bool *weighted);

static Query *
transform_select(Query *query, TermContext *context, bool *weighted)
{
	Expr *weight = NULL;
	List *rtindexes = NIL;
	List *quals = NIL;
	List *rest;
	int first = 0;
	Node *tree;
	ListCell *lc;

	*weighted = false;
	pgt_tree_flatten_inner((Node *) query->jointree, &rtindexes, &quals);
	if (rtindexes == NIL)
		return query;									 /* a SELECT without FROM */
	query->jointree = makeFromExpr(NIL, (Node *) quals); /* so that it is remapped */
	foreach (lc, rtindexes)
	{
		int rtindex = lfirst_int(lc);
		RangeTblEntry *rte = rt_fetch(rtindex, query->rtable);
		bool has_weight = false;
		int column = 1;

		if (rte->rtekind == RTE_RELATION)
		{
			LeafState state = context->states[pgt_tree_leaf(rte)];

			has_weight = state == LEAF_DELTA || state == LEAF_OLD;
			if (state == LEAF_DELTA && first == 0)
				first = rtindex;
			pgt_tree_use_state(query, rtindex, state, context->emit);
		}
		else if (rte->rtekind == RTE_SUBQUERY && !pgt_tree_is_function(rte))
		{
			if (first == 0 && has_state(rte->subquery, context->states, LEAF_DELTA))
				first = rtindex;
			rte->subquery = transform(rte->subquery, context, &has_weight);
			if (rte->subquery == NULL)
				return NULL;
			if (has_weight)
			{
				rte->eref->colnames = lappend(rte->eref->colnames,
											  makeString(pstrdup(PGT_WEIGHT_COLUMN)));
				column = list_length(rte->eref->colnames);
			}
		}
		if (has_weight)
			weight = multiply(weight,
							  (Expr *) makeVar(rtindex, column, INT4OID, -1, InvalidOid, 0));
	}
	tree = pgt_order_joins(query, rtindexes, quals, first, &rest);
	query->jointree = makeFromExpr(list_make1(tree),
								   rest == NIL ? NULL : (Node *) make_ands_explicit(rest));
	*weighted = weight != NULL;
	if (weight != NULL)
		add_weight_output(query, weight);
	return query;
}

/* A union of which no arm is the delta: all arms stay, and have a weight if one has. */
static void
add_weight_to_setop(SetOperationStmt *stmt)
{
	stmt->colTypes = lappend_oid(stmt->colTypes, INT4OID);
	stmt->colTypmods = lappend_int(stmt->colTypmods, -1);
	stmt->colCollations = lappend_oid(stmt->colCollations, InvalidOid);
	if (IsA(stmt->larg, SetOperationStmt))
		add_weight_to_setop((SetOperationStmt *) stmt->larg);
	if (IsA(stmt->rarg, SetOperationStmt))
		add_weight_to_setop((SetOperationStmt *) stmt->rarg);
}

static Query *
transform_whole_union(Query *query, TermContext *context, bool *weighted)
{
	List *arms = pgt_tree_arm_rtindexes(query);
	ListCell *lc;
	Var *weight;

	*weighted = has_state(query, context->states, LEAF_OLD);
	if (!*weighted)
		return query;
	foreach (lc, arms)
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);
		bool arm_weighted;

		pgt_tree_drop_junk(rte->subquery);
		rte->subquery = transform(rte->subquery, context, &arm_weighted);
		if (!arm_weighted)
		{
			if (rte->subquery->setOperations != NULL)
				rte->subquery = pgt_tree_wrap(rte->subquery);
			add_weight_output(rte->subquery, constant_weight());
		}
		rte->eref->colnames = lappend(rte->eref->colnames, makeString(pstrdup(PGT_WEIGHT_COLUMN)));
	}
	add_weight_to_setop(castNode(SetOperationStmt, query->setOperations));
	weight = makeVar(linitial_int(arms), list_length(query->targetList) + 1, INT4OID, -1,
					 InvalidOid, 0);
	add_weight_output(query, (Expr *) weight);
	return query;
}

/* Changes the query in place; NULL if the term is empty. */
static Query *
transform(Query *query, TermContext *context, bool *weighted)
{
	Query *delta_arm = NULL;
	ListCell *lc;

	*weighted = false;
	pgt_tree_drop_junk(query);
	if (query->setOperations == NULL)
		return transform_select(query, context, weighted);
	if (!has_state(query, context->states, LEAF_DELTA))
		return transform_whole_union(query, context, weighted);
	foreach (lc, pgt_tree_union_arms(query))
	{
		if (!has_state(lfirst(lc), context->states, LEAF_DELTA))
			continue;
		if (delta_arm != NULL)
			return NULL; /* a product of two arms does not exist */
		delta_arm = lfirst(lc);
	}
	return transform(delta_arm, context, weighted);
}

static void
add_term(List **terms, List **signs, Query *query, EmitContext *emit, const LeafState *states,
		 int sign)
{
	TermContext context = {emit, states};
	bool weighted;
	Query *term = transform(copyObject(query), &context, &weighted);

	if (term == NULL)
		return;
	Assert(weighted);
	*terms = lappend(*terms, term);
	*signs = lappend_int(*signs, sign);
}

/*
 * The query as a sum of queries, in which conditions of rewrite_null.c are
 * either equalities or about nulls: the delta of a sum is that of its parts.
 */
static List *
part_null_equality(Query *query, int room)
{
	List *rtindexes = NIL;
	List *quals = NIL;
	List *parts = NIL;
	BoolExpr *parted = NULL;
	ListCell *lc;

	if (query->setOperations != NULL || room < 2)
		return list_make1(query);
	pgt_tree_flatten_inner((Node *) query->jointree, &rtindexes, &quals);
	foreach (lc, quals)
		if (parted == NULL && pgt_flatten_is_null_equality(lfirst(lc)))
			parted = lfirst(lc);
	if (parted == NULL)
		return list_make1(query);
	foreach (lc, parted->args)
	{
		Query *part = copyObject(query);
		List *items = NIL;
		ListCell *li;

		foreach (li, rtindexes)
		{
			RangeTblRef *ref = makeNode(RangeTblRef);

			ref->rtindex = lfirst_int(li);
			items = lappend(items, ref);
		}
		part->jointree = makeFromExpr(
			items, (Node *) make_ands_explicit(
					   copyObject(lappend(list_delete_ptr(list_copy(quals), parted), lfirst(lc)))));
		parts = list_concat(parts, part_null_equality(part, room / 2));
	}
	return parts;
}

static List *
terms_of_part(Query *query, EmitContext *emit, List **signs)
{
	List *leaves = pgt_tree_leaves(query);
	LeafState *states = palloc0(sizeof(LeafState) * (list_length(leaves) + 1));
	int *changed = palloc(sizeof(int) * (list_length(leaves) + 1));
	int nchanged = 0;
	List *terms = NIL;
	ListCell *lc;

	foreach (lc, leaves)
	{
		RangeTblEntry *rte = lfirst(lc);

		if (pgt_tree_find_shape(emit, rte->relid) != NULL)
			changed[nchanged++] = pgt_tree_leaf(rte);
	}
	if (nchanged <= MAX_INCLUSION_EXCLUSION)
	{
		for (int subset = 1; subset < (1 << nchanged); subset++)
		{
			int sign = -1;

			for (int i = 0; i < nchanged; i++)
			{
				bool member = (subset & (1 << i)) != 0;

				states[changed[i]] = member ? LEAF_DELTA : LEAF_NEW;
				sign = member ? -sign : sign;
			}
			add_term(&terms, signs, query, emit, states, sign);
		}
		return terms;
	}
	for (int i = 0; i < nchanged; i++)
	{
		for (int j = 0; j < nchanged; j++)
			states[changed[j]] = j < i ? LEAF_NEW : j == i ? LEAF_DELTA : LEAF_OLD;
		add_term(&terms, signs, query, emit, states, 1);
	}
	return terms;
}

/* The terms of the delta, each with the outputs and then pgt_w, and their signs. */
List *
pgt_term_queries(Query *query, EmitContext *emit, List **signs)
{
	List *terms = NIL;
	int nchanged = 0;
	ListCell *lc;

	foreach (lc, pgt_tree_leaves(query))
		nchanged += pgt_tree_find_shape(emit, lfirst_node(RangeTblEntry, lc)->relid) != NULL;
	*signs = NIL;
	foreach (lc, part_null_equality(query, MAX_PARTED_TERMS >> nchanged))
		terms = list_concat(terms, terms_of_part(lfirst(lc), emit, signs));
	return terms;
}
