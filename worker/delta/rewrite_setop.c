/*
 * rewrite_setop.c: UNION, INTERSECT and EXCEPT in terms of UNION ALL.
 *
 *	  A UNION B			SELECT DISTINCT * FROM (A UNION ALL B)
 *	  A INTERSECT B		groups of all columns over (A UNION ALL B), each row with its
 *	  A EXCEPT B		side, HAVING what the counts l and r of the two sides ask for
 *	  ... ALL			the same, with each group repeated least(l, r) or l - r times
 *
 * The counts are aggregates that are folded, so also groups that are not shown
 * are known.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "rewrite.h"

static Query *query_of(Query *query, Node *node);

static bool
same_columns(const SetOperationStmt *a, const SetOperationStmt *b)
{
	return equal(a->colTypes, b->colTypes) && equal(a->colTypmods, b->colTypmods) &&
		   equal(a->colCollations, b->colCollations);
}

/* What is put together by UNION ALL, or if distinct by UNION too. */
static void
collect_arms(Query *query, Node *node, const SetOperationStmt *top, bool distinct, List **arms)
{
	SetOperationStmt *stmt = (SetOperationStmt *) node;

	if (IsA(node, SetOperationStmt) && stmt->op == SETOP_UNION && (stmt->all || distinct) &&
		same_columns(stmt, top))
	{
		collect_arms(query, stmt->larg, top, distinct, arms);
		collect_arms(query, stmt->rarg, top, distinct, arms);
	}
	else
		*arms = lappend(*arms, query_of(query, node));
}

/* Makes the first columns of a query those that are distinct or grouped by. */
static List *
clauses_of(Query *query, const SetOperationStmt *stmt)
{
	List *clauses = copyObject(stmt->groupClauses);
	ListCell *lc;

	foreach (lc, clauses)
	{
		int number = foreach_current_index(lc) + 1;

		lfirst_node(SortGroupClause, lc)->tleSortGroupRef = number;
		list_nth_node(TargetEntry, query->targetList, number - 1)->ressortgroupref = number;
	}
	return clauses;
}

static Query *
distinct_union(Query *query, SetOperationStmt *stmt)
{
	List *arms = NIL;
	Query *result;

	collect_arms(query, (Node *) stmt, stmt, true, &arms);
	result = pgt_tree_wrap(pgt_rewrite_union_all(arms, stmt));
	result->distinctClause = clauses_of(result, stmt);
	return result;
}

/* One side: its columns in the types of the set operation, and which side it is. */
static Query *
side_of(Query *query, Node *node, const SetOperationStmt *stmt, bool is_left)
{
	Query *side = pgt_tree_wrap(query_of(query, node));
	ListCell *lc;

	foreach (lc, side->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		int column = foreach_current_index(lc);

		tle->expr = pgt_tree_coerce_column(tle->expr, list_nth_oid(stmt->colTypes, column),
										   list_nth_int(stmt->colTypmods, column),
										   list_nth_oid(stmt->colCollations, column));
	}
	side->targetList = lappend(side->targetList,
							   makeTargetEntry((Expr *) makeBoolConst(is_left, false),
											   list_length(side->targetList) + 1,
											   pstrdup("pgt_left"), false));
	return side;
}

/* count(*) FILTER (WHERE condition) */
static Node *
count_where(Expr *condition)
{
	Aggref *count = makeNode(Aggref);

	count->aggfnoid = F_COUNT_;
	count->aggtype = INT8OID;
	count->aggstar = true;
	count->aggkind = AGGKIND_NORMAL;
	count->aggsplit = AGGSPLIT_SIMPLE;
	count->aggfilter = condition;
	count->aggno = count->aggtransno = -1;
	count->location = -1;
	return (Node *) count;
}

static Node *
int8_operator(const char *name, Node *left, Node *right)
{
	Oid operator= OpernameGetOprid(
		list_make2(makeString(pstrdup("pg_catalog")), makeString(pstrdup(name))), INT8OID, INT8OID);

	return (Node *) make_opclause(operator, get_op_rettype(operator), false, (Expr *) left,
								  (Expr *) right, InvalidOid, InvalidOid);
}

static Node *
compare_to_zero(const char *name, Node *value)
{
	return int8_operator(name, copyObject(value),
						 (Node *) makeConst(INT8OID, -1, InvalidOid, sizeof(int64),
											Int64GetDatum(0), false, FLOAT8PASSBYVAL));
}

static Node *
least_of(Node *left, Node *right)
{
	MinMaxExpr *expr = makeNode(MinMaxExpr);

	expr->minmaxtype = INT8OID;
	expr->op = IS_LEAST;
	expr->args = list_make2(left, right);
	expr->location = -1;
	return (Node *) expr;
}

/* Each row as often as its last column says, which is not shown. */
static Query *
repeat_rows(Query *groups)
{
	Query *result = pgt_tree_wrap(groups);
	TargetEntry *times = llast_node(TargetEntry, result->targetList);
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	RangeTblFunction *function = makeNode(RangeTblFunction);
	RangeTblRef *ref = makeNode(RangeTblRef);
	Const *one = makeConst(INT8OID, -1, InvalidOid, sizeof(int64), Int64GetDatum(1), false,
						   FLOAT8PASSBYVAL);
	FuncExpr *series = makeFuncExpr(F_GENERATE_SERIES_INT8_INT8, INT8OID,
									list_make2(one, times->expr), InvalidOid, InvalidOid,
									COERCE_EXPLICIT_CALL);

	series->funcretset = true;
	result->targetList = list_delete_last(result->targetList);
	function->funcexpr = (Node *) series;
	function->funccolcount = 1;
	rte->rtekind = RTE_FUNCTION;
	rte->functions = list_make1(function);
	rte->lateral = true;
	rte->alias = makeAlias("n", NIL);
	rte->eref = makeAlias("n", list_make1(makeString(pstrdup("n"))));
	rte->inFromCl = true;
	result->rtable = lappend(result->rtable, rte);
	ref->rtindex = list_length(result->rtable);
	result->jointree->fromlist = lappend(result->jointree->fromlist, ref);
	return result;
}

static Query *
counted_sides(Query *query, SetOperationStmt *stmt)
{
	List *sides = list_make2(side_of(query, stmt->larg, stmt, true),
							 side_of(query, stmt->rarg, stmt, false));
	Query *groups = pgt_tree_wrap(pgt_rewrite_union_all(sides, NULL));
	Expr *is_left = llast_node(TargetEntry, groups->targetList)->expr;
	Node *left = count_where(is_left);
	Node *right = count_where(makeBoolExpr(NOT_EXPR, list_make1(copyObject(is_left)), -1));
	Node *times;

	groups->targetList = list_delete_last(groups->targetList);
	groups->groupClause = clauses_of(groups, stmt);
	groups->hasAggs = true;
	if (stmt->all)
	{
		times = stmt->op == SETOP_EXCEPT ? int8_operator("-", left, right) : least_of(left, right);
		groups->havingQual = compare_to_zero(">", times);
		groups->targetList = lappend(
			groups->targetList, makeTargetEntry((Expr *) times, list_length(groups->targetList) + 1,
												pstrdup("pgt_times"), false));
		return repeat_rows(groups);
	}
	groups->havingQual = (Node *) makeBoolExpr(
		AND_EXPR,
		list_make2(compare_to_zero(">", left),
				   compare_to_zero(stmt->op == SETOP_EXCEPT ? "=" : ">", right)),
		-1);
	return groups;
}

/* The rows of one node of the tree. */
static Query *
query_of(Query *query, Node *node)
{
	SetOperationStmt *stmt = (SetOperationStmt *) node;
	List *arms = NIL;

	check_stack_depth();
	if (IsA(node, RangeTblRef))
		return rt_fetch(((RangeTblRef *) node)->rtindex, query->rtable)->subquery;
	if (stmt->op == SETOP_UNION && stmt->all)
	{
		collect_arms(query, node, stmt, false, &arms);
		return pgt_rewrite_union_all(arms, stmt);
	}
	return stmt->op == SETOP_UNION ? distinct_union(query, stmt) : counted_sides(query, stmt);
}

/* A set operation without LIMIT. */
Query *
pgt_rewrite_setop(Query *query)
{
	List *names = NIL;
	ListCell *lc;

	foreach (lc, pgt_tree_outputs(query))
		names = lappend(names, makeString(lfirst_node(TargetEntry, lc)->resname));
	if (!pgt_tree_is_union_all(query))
		query = query_of(query, query->setOperations);
	pgt_normalize_names(query, names);
	return query;
}
