/*
 * rewrite_outer.c: groups over outer joins.
 *
 * An outer join is not linear: a row of the preserved side that loses its last match
 * comes back with nulls. A group over one would have to be recomputed whole,
 * however few of its rows changed. But where the aggregates can be folded
 * (group.c), the join can be said as the sum of two queries,
 *
 *	  SELECT ... FROM l LEFT JOIN r ON c   becomes
 *	  SELECT ... FROM l JOIN r ON c   UNION ALL
 *	  SELECT ..., NULL FROM l WHERE NOT EXISTS (SELECT FROM r WHERE c)
 *
 * of which the first is linear, and the second becomes a stage (stage.c) that
 * holds the rows without a match. Both show the primary keys of the tables, too, so that
 * rows of that stage are found. Several outer joins make an arm for each
 * combination, but for those that no row can have.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/pg_constraint.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"

#include "rewrite.h"

#define MAX_OUTER_JOINS 2

/* ---- Is it such a query? ---- */

static bool
is_nullable_side(const Node *node)
{
	return IsA(node, RangeTblRef);
}

/* Outer joins of a tree whose nullable sides are tables; -1 if there are others. */
static int
count_outer_joins(const Node *node)
{
	const JoinExpr *join = (const JoinExpr *) node;
	int count = 0;
	int left;
	int right;

	if (IsA(node, RangeTblRef))
		return 0;
	if (IsA(node, FromExpr))
	{
		ListCell *lc;

		foreach (lc, ((const FromExpr *) node)->fromlist)
		{
			left = count_outer_joins(lfirst(lc));
			if (left < 0)
				return -1;
			count += left;
		}
		return count;
	}
	if ((join->jointype == JOIN_LEFT && !is_nullable_side(join->rarg)) ||
		(join->jointype == JOIN_RIGHT && !is_nullable_side(join->larg)) ||
		join->jointype == JOIN_FULL)
		return -1;
	left = count_outer_joins(join->larg);
	right = count_outer_joins(join->rarg);
	return left < 0 || right < 0 ? -1 : left + right + (join->jointype != JOIN_INNER ? 1 : 0);
}

static Bitmapset *
primary_key(Oid relid)
{
	Oid constraint;

	return get_primary_key_attnos(relid, false, &constraint);
}

static bool
is_table_with_key(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_RELATION && rte->tablesample == NULL &&
		   primary_key(rte->relid) != NULL;
}

/* Refers a column list to no single column: a whole row or a system column. */
static bool
odd_column_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varattno <= 0;
	return expression_tree_walker(node, odd_column_walker, context);
}

static bool
is_such_a_group(Query *query)
{
	int count;
	ListCell *lc;

	if (query->setOperations != NULL || !pgt_stage_is_group(query) || query->groupingSets != NIL ||
		query->hasSubLinks || query->hasTargetSRFs || query->rowMarks != NIL ||
		query->cteList != NIL)
		return false;
	count = count_outer_joins((Node *) query->jointree);
	if (count < 1 || count > MAX_OUTER_JOINS)
		return false;
	foreach (lc, pgt_tree_rtindexes((Node *) query->jointree))
		if (!is_table_with_key(rt_fetch(lfirst_int(lc), query->rtable)))
			return false;
	return !odd_column_walker((Node *) query->targetList, NULL) &&
		   !odd_column_walker((Node *) query->jointree, NULL) &&
		   !odd_column_walker(query->havingQual, NULL) && pgt_group_is_foldable(query);
}

/* ---- One outer join as two queries ---- */

/* An outer join below which there is none. */
static JoinExpr *
innermost_outer_join(Node *node)
{
	JoinExpr *join = (JoinExpr *) node;
	JoinExpr *found = NULL;

	if (IsA(node, FromExpr))
	{
		ListCell *lc;

		foreach (lc, ((FromExpr *) node)->fromlist)
			if (found == NULL)
				found = innermost_outer_join(lfirst(lc));
		return found;
	}
	if (IsA(node, RangeTblRef))
		return NULL;
	found = innermost_outer_join(join->larg);
	if (found == NULL)
		found = innermost_outer_join(join->rarg);
	return found != NULL || join->jointype == JOIN_INNER ? found : join;
}

/* The tree without one of its joins: what that preserves stands in its place. */
static Node *
replace_join(Node *node, JoinExpr *join, Node *preserved)
{
	ListCell *lc;

	if (node == (Node *) join)
		return preserved;
	if (IsA(node, FromExpr))
		foreach (lc, ((FromExpr *) node)->fromlist)
			lfirst(lc) = replace_join(lfirst(lc), join, preserved);
	else if (IsA(node, JoinExpr))
	{
		((JoinExpr *) node)->larg = replace_join(((JoinExpr *) node)->larg, join, preserved);
		((JoinExpr *) node)->rarg = replace_join(((JoinExpr *) node)->rarg, join, preserved);
	}
	return node;
}

/* Columns of one entry are those of the first one of a subquery, others are from outside. */
static Node *
inward_mutator(Node *node, void *context)
{
	Var *var;

	if (node == NULL)
		return NULL;
	if (!IsA(node, Var))
		return expression_tree_mutator(node, inward_mutator, context);
	var = copyObject((Var *) node);
	if (var->varno == *(int *) context)
		var->varno = 1;
	else
		var->varlevelsup = 1;
	return (Node *) var;
}

/* NOT EXISTS (SELECT FROM entry WHERE quals) */
static Node *
no_match(Query *query, int rtindex, Node *quals)
{
	Query *subquery = makeNode(Query);
	RangeTblRef *ref = makeNode(RangeTblRef);
	SubLink *link = makeNode(SubLink);

	ref->rtindex = 1;
	subquery->commandType = CMD_SELECT;
	subquery->querySource = QSRC_ORIGINAL;
	subquery->canSetTag = true;
	subquery->rtable = list_make1(copyObject(rt_fetch(rtindex, query->rtable)));
	subquery->jointree = makeFromExpr(list_make1(ref), inward_mutator(quals, &rtindex));
	link->subLinkType = EXISTS_SUBLINK;
	link->subselect = (Node *) subquery;
	link->location = -1;
	return (Node *) makeBoolExpr(NOT_EXPR, list_make1(link), -1);
}

static bool
is_never_true(Node *quals)
{
	ListCell *lc;

	foreach (lc, pgt_tree_conjuncts(eval_const_expressions(NULL, copyObject(quals))))
		if (IsA(lfirst(lc), Const) && (((Const *) lfirst(lc))->constisnull ||
									   !DatumGetBool(((Const *) lfirst(lc))->constvalue)))
			return true;
	return false;
}

/* Conditions of inner joins, as a FROM list and WHERE; NULL if no row can meet them. */
static Query *
finish_arm(Query *arm)
{
	List *rtindexes = NIL;
	List *quals = NIL;
	List *items = NIL;
	ListCell *lc;

	pgt_tree_flatten_inner((Node *) arm->jointree, &rtindexes, &quals);
	foreach (lc, rtindexes)
	{
		RangeTblRef *ref = makeNode(RangeTblRef);

		ref->rtindex = lfirst_int(lc);
		items = lappend(items, ref);
	}
	arm->jointree = makeFromExpr(items, quals == NIL ? NULL : (Node *) make_ands_explicit(quals));
	return is_never_true(arm->jointree->quals) ? NULL : arm;
}

/* Adds the queries of which the arm is the sum. */
static List *
split(List *arms, Query *arm)
{
	JoinExpr *join = innermost_outer_join((Node *) arm->jointree);
	Query *matched = arm;
	Query *unmatched;
	Node *preserved;
	int rtindex;

	if (join == NULL)
	{
		arm = finish_arm(arm);
		return arm != NULL ? lappend(arms, arm) : arms;
	}
	unmatched = copyObject(arm);
	join->jointype = JOIN_INNER;
	arms = split(arms, matched);

	join = innermost_outer_join((Node *) unmatched->jointree);
	preserved = join->jointype == JOIN_LEFT ? join->larg : join->rarg;
	rtindex = castNode(RangeTblRef, join->jointype == JOIN_LEFT ? join->rarg : join->larg)->rtindex;
	(void) replace_join((Node *) unmatched->jointree, join, preserved);
	unmatched->jointree = (FromExpr *) pgt_tree_null_vars((Node *) unmatched->jointree,
														  bms_make_singleton(rtindex));
	unmatched->targetList = (List *) pgt_tree_null_vars((Node *) unmatched->targetList,
														bms_make_singleton(rtindex));
	if (!is_never_true(join->quals))
	{
		unmatched->jointree->quals = (Node *) make_and_qual(
			unmatched->jointree->quals, no_match(unmatched, rtindex, join->quals));
		unmatched->hasSubLinks = true;
	}
	return split(arms, unmatched);
}

/* ---- The group reads their sum ---- */

static void
add_column(List **targets, Var *var)
{
	ListCell *lc;

	foreach (lc, *targets)
	{
		Var *other = castNode(Var, lfirst_node(TargetEntry, lc)->expr);

		if (other->varno == var->varno && other->varattno == var->varattno)
			return;
	}
	*targets = lappend(*targets,
					   makeTargetEntry((Expr *) copyObject(var), list_length(*targets) + 1,
									   psprintf("c%d", list_length(*targets) + 1), false));
}

/* Columns that the group needs, and the primary keys. */
static List *
shown_columns(Query *query)
{
	List *targets = NIL;
	ListCell *lc;

	foreach (lc, pull_var_clause((Node *) list_make2(query->targetList, query->havingQual),
								 PVC_RECURSE_AGGREGATES | PVC_RECURSE_WINDOWFUNCS))
		add_column(&targets, lfirst(lc));
	foreach (lc, pgt_tree_rtindexes((Node *) query->jointree))
	{
		Oid relid = rt_fetch(lfirst_int(lc), query->rtable)->relid;
		Bitmapset *key = primary_key(relid);
		int member = -1;

		while ((member = bms_next_member(key, member)) >= 0)
		{
			AttrNumber attnum = member + FirstLowInvalidHeapAttributeNumber;
			Oid type;
			int32 typmod;
			Oid collation;

			get_atttypetypmodcoll(relid, attnum, &type, &typmod, &collation);
			add_column(&targets, makeVar(lfirst_int(lc), attnum, type, typmod, collation, 0));
		}
	}
	return targets;
}

static Node *
column_mutator(Node *node, void *context)
{
	ListCell *lc;

	if (node == NULL)
		return NULL;
	if (!IsA(node, Var))
		return expression_tree_mutator(node, column_mutator, context);
	foreach (lc, (List *) context)
	{
		TargetEntry *tle = lfirst(lc);
		Var *shown = castNode(Var, tle->expr);
		Var *var = (Var *) node;

		if (shown->varno == var->varno && shown->varattno == var->varattno)
			return (Node *) makeVar(1, tle->resno, var->vartype, var->vartypmod, var->varcollid, 0);
	}
	elog(ERROR, "a column of an outer join is not shown");
	return NULL;
}

/* Changes a query that groups an outer join in place; others stay as they are. */
void
pgt_rewrite_outer_joins(Query *query)
{
	RangeTblRef *ref = makeNode(RangeTblRef);
	List *targets;
	List *arms;

	if (!is_such_a_group(query))
		return;
	targets = shown_columns(query);
	arms = split(NIL, pgt_tree_select(copyObject(query), copyObject(targets)));
	if (arms == NIL)
		return;
	query->rtable = list_make1(pgt_rewrite_make_entry(
		list_length(arms) == 1 ? linitial(arms) : pgt_rewrite_union_all(arms, NULL), "pgt_joined"));
	ref->rtindex = 1;
	query->jointree = makeFromExpr(list_make1(ref), NULL);
	query->targetList = (List *) column_mutator((Node *) query->targetList, targets);
	query->havingQual = column_mutator(query->havingQual, targets);
}
