/*
 * sublink.c: subqueries in expressions, in the forms that can be maintained.
 *
 * IN, ANY and ALL become EXISTS at normalisation, with the comparison inside
 * the subquery: then PostgreSQL looks for few rows through an index instead of
 * hashing all of the subquery, and the comparison tells which rows a change
 * touches. Where only true counts (WHERE, ON, HAVING, under AND and OR):
 *
 *	  x op ANY (S)		  EXISTS (S with x op y)
 *	  x op ALL (S)		  NOT EXISTS (S with (x op y) IS NOT TRUE)
 *	  x NOT IN (S)		  NOT EXISTS (S with x = y) AND NOT EXISTS (S with y IS NULL)
 *						  AND (x IS NOT NULL OR NOT EXISTS (S))
 *
 * of which the last needs only its first part where x and y cannot be NULL.
 * Elsewhere a CASE over EXISTS keeps the three values apart.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"

#include "pgt_compat.h"

#include "delta_internal.h"

/* How the user wrote an EXISTS that we made; kept where EXISTS has no use for it. */
#define WRITTEN_AS_ANY "ANY"
#define WRITTEN_AS_ALL "ALL"

const char *
pgt_sublink_name(const SubLink *link)
{
	switch (link->subLinkType)
	{
		case EXISTS_SUBLINK:
			if (link->operName == NIL)
				return "EXISTS (subquery)";
			return strcmp(strVal(linitial(link->operName)), WRITTEN_AS_ANY) == 0
					   ? "IN or ANY (subquery)"
					   : "NOT IN or ALL (subquery)";
		case ANY_SUBLINK:
			return "IN or ANY (subquery)";
		case ALL_SUBLINK:
			return "NOT IN or ALL (subquery)";
		case ARRAY_SUBLINK:
			return "ARRAY(subquery)";
		default:
			return "scalar subquery";
	}
}

/* ---- ANY and ALL ---- */

static Node *
make_not(Node *node)
{
	return (Node *) makeBoolExpr(NOT_EXPR, list_make1(node), -1);
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

static Node *
make_null_test(Node *node, NullTestType type)
{
	NullTest *test = makeNode(NullTest);

	test->arg = (Expr *) node;
	test->nulltesttype = type;
	test->argisrow = false;
	test->location = -1;
	return (Node *) test;
}

/* Can conditions be added to the WHERE of the subquery? */
static bool
is_plain(const Query *query)
{
	return !query->hasAggs && !query->hasWindowFuncs && !query->hasTargetSRFs &&
		   query->groupClause == NIL && query->groupingSets == NIL && query->havingQual == NULL &&
		   !query->hasDistinctOn && query->setOperations == NULL && query->limitCount == NULL &&
		   query->limitOffset == NULL && query->cteList == NIL;
}

/* The subquery of a sublink in a form to which conditions can be added; a copy. */
static Query *
plain_subquery(const SubLink *link)
{
	Query *query = copyObject(castNode(Query, link->subselect));
	Query *above;
	RangeTblEntry *rte;
	int shown;

	if (is_plain(query))
	{
		query->distinctClause = NIL;
		pgt_tree_drop_junk(query);
		return query;
	}
	IncrementVarSublevelsUp((Node *) query, 1, 1);
	shown = list_length(pgt_tree_outputs(query));
	above = pgt_tree_wrap(query);
	above->targetList = list_copy_head(above->targetList, shown);
	rte = linitial_node(RangeTblEntry, above->rtable);
	rte->eref->colnames = list_copy_head(rte->eref->colnames, shown);
	return above;
}

typedef struct ParamContext
{
	List *outputs; /* of the subquery */
} ParamContext;

static Node *
param_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_SUBLINK)
		return (Node *) copyObject(list_nth_node(TargetEntry, ((ParamContext *) context)->outputs,
												 ((Param *) node)->paramid - 1)
									   ->expr);
	return expression_tree_mutator(node, param_mutator, context);
}

/* The comparison of a sublink as a condition within its subquery. */
static Node *
inner_test(Node *test, Query *subquery)
{
	ParamContext context = {pgt_tree_outputs(subquery)};

	test = copyObject(test);
	IncrementVarSublevelsUp(test, 1, 0);
	return param_mutator(test, &context);
}

/* EXISTS (the subquery with one more condition, which may be NULL). */
static Node *
make_exists(const SubLink *link, Query *subquery, Node *condition)
{
	SubLink *exists = makeNode(SubLink);
	Const *one = makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(1), false, true);

	if (condition != NULL)
		subquery->jointree->quals = (Node *) make_and_qual(subquery->jointree->quals, condition);
	subquery->targetList = list_make1(makeTargetEntry((Expr *) one, 1, pstrdup("one"), false));
	subquery->sortClause = NIL;
	subquery->hasSubLinks = subquery->hasSubLinks || checkExprHasSubLink(condition);
	exists->subLinkType = EXISTS_SUBLINK;
	exists->operName = list_make1(
		makeString(pstrdup(link->subLinkType == ANY_SUBLINK ? WRITTEN_AS_ANY : WRITTEN_AS_ALL)));
	exists->subselect = (Node *) subquery;
	exists->location = link->location;
	return (Node *) exists;
}

/* Can the expression of a query not be NULL, as far as it is a column? */
static bool
is_not_null(Query *query, Node *expr)
{
	Var *var = (Var *) expr;
	RangeTblEntry *rte;
	Bitmapset *absent = NULL;

	if (IsA(expr, Const))
		return !((Const *) expr)->constisnull;
	if (IsA(expr, RelabelType))
		return is_not_null(query, (Node *) ((RelabelType *) expr)->arg);
	if (!IsA(expr, Var) || var->varlevelsup > 0 || var->varattno <= 0 ||
		query->setOperations != NULL || query->groupingSets != NIL)
		return false;
	rte = rt_fetch(var->varno, query->rtable);
	pgt_tree_nullable_rtindexes((Node *) query->jointree, false, &absent);
	if (bms_is_member(var->varno, absent))
		return false;
	if (rte->rtekind == RTE_SUBQUERY)
		return is_not_null(
			rte->subquery,
			(Node *) list_nth_node(TargetEntry, pgt_tree_outputs(rte->subquery), var->varattno - 1)
				->expr);
	/* Before PostgreSQL 18 a child table can allow NULL where its parent does not. */
	return rte->rtekind == RTE_RELATION &&
		   !(rte->inh && rte->relkind == RELKIND_RELATION && has_subclass(rte->relid)) &&
		   pgt_key_is_not_null(rte->relid, var->varattno);
}

/*
 * NOT (x op ANY (S)) where only true counts. A strict comparison of two values
 * is unknown exactly if one of them is NULL.
 */
static Node *
not_any(Query *query, SubLink *link, Node *test)
{
	Query *subquery = plain_subquery(link);
	OpExpr *op = (OpExpr *) test;
	Node *outer;
	Node *inner;
	List *parts;

	link->subLinkType = ALL_SUBLINK; /* NOT IN is <> ALL */
	if (!IsA(test, OpExpr) || list_length(op->args) != 2 || !op_strict(op->opno) ||
		!pgt_compat_is_comparison(op->opno) || !IsA(lsecond(op->args), Param))
		return make_not(
			make_exists(link, subquery, make_test(inner_test(test, subquery), IS_NOT_FALSE)));
	outer = linitial(op->args);
	inner = inner_test(lsecond(op->args), subquery);
	parts = list_make1(
		make_not(make_exists(link, copyObject(subquery), inner_test(test, subquery))));
	if (!is_not_null(subquery, inner))
		parts = lappend(parts, make_not(make_exists(link, copyObject(subquery),
													make_null_test(inner, IS_NULL))));
	if (!is_not_null(query, outer))
		parts = lappend(parts,
						makeBoolExpr(OR_EXPR,
									 list_make2(make_null_test(copyObject(outer), IS_NOT_NULL),
												make_not(make_exists(link, subquery, NULL))),
									 -1));
	return (Node *) make_ands_explicit(parts);
}

/* x op ALL (S) is NOT (x negator ANY (S)), if there is a negator. */
static Node *
negate_test(Node *test)
{
	OpExpr *op = (OpExpr *) test;
	Oid negator;

	if (!IsA(test, OpExpr) || !OidIsValid(negator = get_negator(op->opno)))
		return NULL;
	op = copyObject(op);
	op->opno = negator;
	op->opfuncid = InvalidOid;
	set_opfuncid(op);
	return (Node *) op;
}

static Node *
rewrite_true(Query *query, SubLink *link)
{
	Query *subquery = plain_subquery(link);
	Node *negated;

	if (link->subLinkType == ANY_SUBLINK)
		return make_exists(link, subquery, inner_test(link->testexpr, subquery));
	negated = negate_test(link->testexpr);
	if (negated != NULL)
		return not_any(query, link, negated);
	return make_not(
		make_exists(link, subquery, make_test(inner_test(link->testexpr, subquery), IS_NOT_TRUE)));
}

static CaseWhen *
make_when(Node *condition, Node *result)
{
	CaseWhen *when = makeNode(CaseWhen);

	when->expr = (Expr *) condition;
	when->result = (Expr *) result;
	when->location = -1;
	return when;
}

/* ANY: true, unknown, else false. ALL: false, unknown, else true. */
static Node *
rewrite_value(const SubLink *link)
{
	bool any = link->subLinkType == ANY_SUBLINK;
	Query *first = plain_subquery(link);
	Query *second = plain_subquery(link);
	Node *test = inner_test(link->testexpr, first);
	CaseExpr *value = makeNode(CaseExpr);

	value->casetype = BOOLOID;
	value->args = list_make2(
		make_when(make_exists(link, first, any ? test : make_test(test, IS_FALSE)),
				  makeBoolConst(any, false)),
		make_when(
			make_exists(link, second, make_test(inner_test(link->testexpr, second), IS_UNKNOWN)),
			makeBoolConst(false, true)));
	value->defresult = (Expr *) makeBoolConst(!any, false);
	value->location = -1;
	return (Node *) value;
}

typedef struct RewriteContext
{
	Query *query;
	bool true_counts; /* what is not true is as false */
} RewriteContext;

static Node *
rewrite_mutator(Node *node, void *context)
{
	RewriteContext *ctx = context;
	RewriteContext value = {ctx->query, false};

	if (node == NULL || IsA(node, Query))
		return node;
	if (IsA(node, List) || (IsA(node, BoolExpr) && ((BoolExpr *) node)->boolop != NOT_EXPR))
		return expression_tree_mutator(node, rewrite_mutator, context);
	if (ctx->true_counts && IsA(node, BoolExpr))
	{
		SubLink *link = linitial(((BoolExpr *) node)->args);

		if (IsA(link, SubLink) && link->subLinkType == ANY_SUBLINK)
		{
			link = copyObject(link);
			link->testexpr = rewrite_mutator(link->testexpr, &value);
			return not_any(ctx->query, link, link->testexpr);
		}
	}
	if (IsA(node, SubLink))
	{
		SubLink *link = copyObject((SubLink *) node);

		link->testexpr = rewrite_mutator(link->testexpr, &value);
		if (link->subLinkType != ANY_SUBLINK && link->subLinkType != ALL_SUBLINK)
			return (Node *) link;
		return ctx->true_counts ? rewrite_true(ctx->query, link) : rewrite_value(link);
	}
	return expression_tree_mutator(node, rewrite_mutator, &value);
}

static void
rewrite_join_quals(Node *node, RewriteContext *context)
{
	ListCell *lc;

	if (IsA(node, FromExpr))
	{
		foreach (lc, ((FromExpr *) node)->fromlist)
			rewrite_join_quals(lfirst(lc), context);
		((FromExpr *) node)->quals = rewrite_mutator(((FromExpr *) node)->quals, context);
	}
	else if (IsA(node, JoinExpr))
	{
		rewrite_join_quals(((JoinExpr *) node)->larg, context);
		rewrite_join_quals(((JoinExpr *) node)->rarg, context);
		((JoinExpr *) node)->quals = rewrite_mutator(((JoinExpr *) node)->quals, context);
	}
}

/* Rewrites the sublinks of one query level, in place. */
void
pgt_sublink_rewrite(Query *query)
{
	RewriteContext where = {query, true};
	RewriteContext value = {query, false};

	query->targetList = (List *) rewrite_mutator((Node *) query->targetList, &value);
	query->havingQual = rewrite_mutator(query->havingQual, &where);
	if (query->jointree != NULL)
		rewrite_join_quals((Node *) query->jointree, &where);
}
