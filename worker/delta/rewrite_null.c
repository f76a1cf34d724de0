/*
 * rewrite_null.c: IS NOT DISTINCT FROM, for which no index and no hash join exists.
 *
 * Where it is a condition between two tables,
 *
 *	  a IS NOT DISTINCT FROM b	 becomes   a = b OR (a IS NULL AND b IS NULL)
 *
 * The two hold for different rows, so deltas and key sets are read once for
 * each (term.c, fragment.c): the one by an index or by hashing, the other only
 * if there are nulls. Elsewhere a bitmap can serve both at once. As a
 * condition, unknown is as good as false; the equality must be strict, so that
 * it says nothing of nulls.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "utils/lsyscache.h"

#include "rewrite.h"

static Node *
null_test(Node *node)
{
	NullTest *test = makeNode(NullTest);

	test->arg = (Expr *) copyObject(node);
	test->nulltesttype = IS_NULL;
	test->argisrow = false;
	test->location = -1;
	return (Node *) test;
}

static bool
is_null_free_constant(Node *node)
{
	return IsA(node, Const) && !((Const *) node)->constisnull;
}

/* NOT (a IS DISTINCT FROM b) in other words, or NULL. */
static Node *
say_equal(DistinctExpr *distinct)
{
	Node *left = linitial(distinct->args);
	Node *right = lsecond(distinct->args);
	OpExpr *equal;
	Node *nulls;

	if (!op_mergejoinable(distinct->opno, exprType(left)) || !op_strict(distinct->opno) ||
		pgt_flatten_has_sublink((Node *) distinct->args) ||
		contain_volatile_functions((Node *) distinct->args))
		return NULL;
	equal = (OpExpr *) make_opclause(distinct->opno, BOOLOID, false, copyObject((Expr *) left),
									 copyObject((Expr *) right), distinct->opcollid,
									 distinct->inputcollid);
	set_opfuncid(equal);
	if (is_null_free_constant(left) || is_null_free_constant(right))
		return (Node *) equal;
	if (bms_overlap(pull_varnos(NULL, left), pull_varnos(NULL, right)))
		return NULL;
	nulls = (Node *) makeBoolExpr(AND_EXPR, list_make2(null_test(left), null_test(right)),
								  PGT_ALTERNATIVES);
	return (Node *) makeBoolExpr(OR_EXPR, list_make2(equal, nulls), PGT_ALTERNATIVES);
}

/* Conditions that have to hold together; rows are compared column by column. */
static List *
say_conditions(Node *quals)
{
	List *result = NIL;
	ListCell *lc;

	foreach (lc, make_ands_implicit((Expr *) quals))
	{
		BoolExpr *negation = lfirst(lc);
		Node *negated = IsA(negation, BoolExpr) && negation->boolop == NOT_EXPR
							? linitial(negation->args)
							: NULL;
		List *parts = NIL;
		ListCell *lp;

		if (negation != NULL && IsA(negation, BoolExpr) && negation->boolop == AND_EXPR)
		{
			result = list_concat(result, say_conditions((Node *) negation));
			continue;
		}
		if (negated != NULL && IsA(negated, DistinctExpr))
			parts = list_make1(negated);
		else if (negated != NULL && IsA(negated, BoolExpr) &&
				 ((BoolExpr *) negated)->boolop == OR_EXPR)
			parts = ((BoolExpr *) negated)->args;
		if (parts == NIL)
			result = lappend(result, negation);
		foreach (lp, parts)
		{
			Node *said = IsA(lfirst(lp), DistinctExpr) ? say_equal(lfirst(lp)) : NULL;

			result = lappend(
				result,
				said != NULL ? said : (Node *) makeBoolExpr(NOT_EXPR, list_make1(lfirst(lp)), -1));
		}
	}
	return result;
}

static bool
distinct_walker(Node *node, void *context)
{
	if (node == NULL || IsA(node, Query))
		return false;
	return IsA(node, DistinctExpr) || expression_tree_walker(node, distinct_walker, context);
}

static Node *
say_quals(Node *quals)
{
	List *said;

	if (!distinct_walker(quals, NULL))
		return quals;
	said = say_conditions(quals);
	return said == NIL ? NULL : (Node *) make_ands_explicit(said);
}

/* All conditions of a join tree, in place. */
void
pgt_rewrite_null_equality(Node *node)
{
	ListCell *lc;

	if (IsA(node, FromExpr))
	{
		FromExpr *from = (FromExpr *) node;

		foreach (lc, from->fromlist)
			pgt_rewrite_null_equality(lfirst(lc));
		from->quals = say_quals(from->quals);
	}
	else if (IsA(node, JoinExpr))
	{
		JoinExpr *join = (JoinExpr *) node;

		pgt_rewrite_null_equality(join->larg);
		pgt_rewrite_null_equality(join->rarg);
		join->quals = say_quals(join->quals);
	}
}
