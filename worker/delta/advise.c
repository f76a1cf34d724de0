/*
 * advise.c: which indexes would keep small deltas from reading tables whole.
 *
 * For each statement and each of its inputs: planned as if that input had one
 * changed row. Where the plan reads a big table by a sequential scan, the
 * conditions on the way from the scan to the root tell which columns are looked
 * up; without any, no index would help. Plan trees are only read.
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "access/relation.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#include "pgt_extension.h"
#include "pgt_guc.h"
#include "pgt_sqltext.h"

#include "delta_internal.h"

typedef struct Advice
{
	PgtDelta *delta;
	const PgtStage *stage;
	Purpose purpose;
	PlannedStmt *stmt;
	List *path; /* Plan *, from the root to the node looked at */
	List *found;
} Advice;

/* ---- From a Var at some node down to the scan at the end of the path ---- */

/* The column of the scan that an expression at path[depth] is, or 0. */
static AttrNumber
scan_column(Advice *advice, int depth, Node *node)
{
	while (node != NULL)
	{
		Plan *plan = list_nth(advice->path, depth);
		Plan *child;
		List *target_list;
		TargetEntry *tle;
		Var *var;

		while (IsA(node, RelabelType))
			node = (Node *) ((RelabelType *) node)->arg;
		if (!IsA(node, Var))
			return 0;
		var = (Var *) node;
		if (IsA(plan, SeqScan))
			return var->varno == ((SeqScan *) plan)->scan.scanrelid ? Max(var->varattno, 0) : 0;
		if (depth + 1 >= list_length(advice->path))
			return 0;
		child = list_nth(advice->path, ++depth);
		if ((var->varno == OUTER_VAR && plan->righttree == child) ||
			(var->varno == INNER_VAR && plan->lefttree == child) || var->varattno <= 0)
			return 0;
		target_list = child->targetlist;
		tle = var->varattno <= list_length(target_list) ? list_nth(target_list, var->varattno - 1)
														: NULL;
		node = tle != NULL ? (Node *) tle->expr : NULL;
	}
	return 0;
}

/* Is it an equality that an index on the column serves? */
static bool
is_indexable(Oid opno, Oid type)
{
	Oid opclass = GetDefaultOpClass(getBaseType(type), BTREE_AM_OID);

	return OidIsValid(opclass) &&
		   get_op_opfamily_strategy(opno, get_opclass_family(opclass)) == BTEqualStrategyNumber;
}

static void
add_column(Advice *advice, int depth, OpExpr *clause, List **columns)
{
	Node *left;
	Node *right;
	AttrNumber l;
	AttrNumber r;

	if (list_length(clause->args) != 2)
		return;
	left = linitial(clause->args);
	right = lsecond(clause->args);
	if (IsA(left, Const) || IsA(right, Const))
		return; /* the same for every row of the delta */
	l = scan_column(advice, depth, left);
	r = scan_column(advice, depth, right);
	/* One side comes from elsewhere. */
	if ((l != 0) == (r != 0))
		return;
	if (is_indexable(clause->opno, exprType(l != 0 ? left : right)))
		*columns = list_append_unique_int(*columns, l != 0 ? l : r);
}

static bool
is_and_of_nulls(Node *node)
{
	ListCell *lc;

	if (!is_andclause(node))
		return false;
	foreach (lc, ((BoolExpr *) node)->args)
		if (!IsA(lfirst(lc), NullTest) || lfirst_node(NullTest, lc)->nulltesttype != IS_NULL)
			return false;
	return true;
}

static void
add_columns(Advice *advice, int depth, List *quals, List **columns)
{
	ListCell *lc;

	foreach (lc, quals)
	{
		Node *qual = lfirst(lc);

		/* a = b OR (a IS NULL AND b IS NULL), see rewrite_null.c: the index serves both. */
		if (IsA(qual, BoolExpr) && ((BoolExpr *) qual)->boolop == OR_EXPR &&
			list_length(((BoolExpr *) qual)->args) == 2 &&
			is_and_of_nulls(lsecond(((BoolExpr *) qual)->args)))
			qual = linitial(((BoolExpr *) qual)->args);
		if (IsA(qual, OpExpr))
			add_column(advice, depth, (OpExpr *) qual, columns);
	}
}

/* Columns that are looked up as null: an index has these, too. */
static void
add_null_columns(Advice *advice, int depth, List *quals, List **columns)
{
	ListCell *lc;

	foreach (lc, quals)
	{
		NullTest *test = lfirst(lc);
		AttrNumber column = IsA(test, NullTest) && test->nulltesttype == IS_NULL
								? scan_column(advice, depth, (Node *) test->arg)
								: 0;

		if (column != 0)
			*columns = list_append_unique_int(*columns, column);
	}
}

/*
 * Columns of the scan at the end of the path by which its rows are looked up:
 * those of its own conditions, else of the lowest join that has any.
 */
static List *
find_columns(Advice *advice)
{
	List *columns = NIL;

	for (int depth = list_length(advice->path) - 1; depth >= 0 && columns == NIL; depth--)
	{
		Plan *plan = list_nth(advice->path, depth);

		add_columns(advice, depth, plan->qual, &columns);
		if (IsA(plan, NestLoop))
			add_columns(advice, depth, ((NestLoop *) plan)->join.joinqual, &columns);
	}
	if (columns != NIL)
		add_null_columns(advice, list_length(advice->path) - 1,
						 ((Plan *) llast(advice->path))->qual, &columns);
	return columns;
}

/* ---- What is there already, what is to be said ---- */

/* A usable index that begins with one of the columns: the planner did not want it. */
static bool
has_index(Relation relation, List *columns)
{
	ListCell *lc;

	foreach (lc, RelationGetIndexList(relation))
	{
		Relation index = index_open(lfirst_oid(lc), AccessShareLock);
		bool serves = index->rd_index->indisvalid && index->rd_rel->relam == BTREE_AM_OID &&
					  RelationGetIndexPredicate(index) == NIL &&
					  list_member_int(columns, index->rd_index->indkey.values[0]);

		index_close(index, AccessShareLock);
		if (serves)
			return true;
	}
	return false;
}

/* A partition's index belongs on the table that the query names. */
static Oid
named_relation(Advice *advice, Oid relid)
{
	ListCell *lc;
	ListCell *ls;

	if (!get_rel_relispartition(relid))
		return relid;
	foreach (lc, get_partition_ancestors(relid))
		foreach (ls, advice->delta->definition->sources)
			if (((PgtSourceUse *) lfirst(ls))->relid == lfirst_oid(lc))
				return lfirst_oid(lc);
	return relid;
}

static char *
index_statement(Oid relid, List *columns)
{
	StringInfoData sql;
	ListCell *lc;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE INDEX ON %s (", pgt_sqltext_relation(relid));
	foreach (lc, columns)
		appendStringInfo(&sql, "%s%s", foreach_current_index(lc) > 0 ? ", " : "",
						 pgt_sqltext_column(relid, lfirst_int(lc)));
	appendStringInfoChar(&sql, ')');
	return sql.data;
}

static void
note(Advice *advice, Oid relid, List *columns, BlockNumber pages)
{
	PgtMissingIndex *missing = palloc0(sizeof(PgtMissingIndex));
	ListCell *lc;

	missing->stage = advice->stage->number;
	missing->purpose = pgt_plan_purpose_name(advice->purpose);
	missing->relid = named_relation(advice, relid);
	missing->pages = pages;
	foreach (lc, columns)
		missing->columns = lappend_int(
			missing->columns,
			get_attnum(missing->relid, get_attname(relid, lfirst_int(lc), false)));
	list_sort(missing->columns, list_int_cmp);
	missing->sql = index_statement(missing->relid, missing->columns);
	foreach (lc, advice->found)
		if (strcmp(((PgtMissingIndex *) lfirst(lc))->sql, missing->sql) == 0)
			return;
	advice->found = lappend(advice->found, missing);
}

static void
look_at_scan(Advice *advice, const SeqScan *scan)
{
	RangeTblEntry *rte = list_nth(advice->stmt->rtable, scan->scan.scanrelid - 1);
	Relation relation = relation_open(rte->relid, AccessShareLock);
	BlockNumber pages = RelationGetNumberOfBlocks(relation);
	List *columns;

	/* Stages and what is small are read whole when that is cheaper. */
	if (pages >= (BlockNumber) pgt_guc_index_hint_pages && pages > 0 &&
		RelationGetNamespace(relation) != pgt_extension_schema(PGT_STATE_SCHEMA))
	{
		columns = find_columns(advice);
		if (columns != NIL && !has_index(relation, columns))
			note(advice, rte->relid, columns, pages);
	}
	relation_close(relation, AccessShareLock);
}

/* ---- All of a plan, all plans ---- */

static void
walk(Advice *advice, Plan *plan)
{
	ListCell *lc;

	if (plan == NULL)
		return;
	advice->path = lappend(advice->path, plan);
	if (IsA(plan, SeqScan))
		look_at_scan(advice, (SeqScan *) plan);
	else if (IsA(plan, Append))
		foreach (lc, ((Append *) plan)->appendplans)
			walk(advice, lfirst(lc));
	else if (IsA(plan, MergeAppend))
		foreach (lc, ((MergeAppend *) plan)->mergeplans)
			walk(advice, lfirst(lc));
	else if (IsA(plan, SubqueryScan))
		walk(advice, ((SubqueryScan *) plan)->subplan);
	else
	{
		walk(advice, plan->lefttree);
		walk(advice, plan->righttree);
	}
	advice->path = list_delete_last(advice->path);
}

static void
look_at_statement(Advice *advice, Inputs *inputs)
{
	bool ordered = advice->purpose != PURPOSE_ROWS_OF_KEYS || pgt_emit_is_ordered(advice->stage);
	char *sql = pgt_plan_emit(advice->stage, advice->purpose, &inputs->emit, NULL);
	PgtPlan *plan = pgt_plan_small(sql, inputs, ordered);
	ListCell *lc;

	advice->stmt = pgt_spi_plan_now(plan, inputs->inputs, inputs->ninputs);
	walk(advice, advice->stmt->planTree);
	foreach (lc, advice->stmt->subplans)
		walk(advice, lfirst(lc));
	pgt_spi_free_plan(plan);
}

static void
look_at_stage(Advice *advice)
{
	PgtMissingIndex *order = pgt_access_missing_order(advice->stage);
	ListCell *lp;
	ListCell *lc;

	/* The plan for the first rows looks for no values, so it tells nothing. */
	if (order != NULL)
		advice->found = lappend(advice->found, order);

	foreach (lp, pgt_explain_purposes(advice->stage))
	{
		advice->purpose = lfirst_int(lp);
		if (advice->purpose == PURPOSE_ROWS_OF_KEYS)
		{
			/* A stage that is one row or one partition is computed whole, whatever changes. */
			if (pgt_emit_nkeys(advice->stage) > 0)
				look_at_statement(
					advice, pgt_explain_inputs(advice->delta, advice->stage, advice->purpose, NIL));
			continue;
		}
		foreach (lc, advice->stage->inputs)
			look_at_statement(advice,
							  pgt_explain_inputs(advice->delta, advice->stage, advice->purpose,
												 list_make1_oid(lfirst_oid(lc))));
	}
}

List *
pgt_delta_missing_indexes(PgtDelta *delta)
{
	Advice advice = {.delta = delta};
	PgtSecurity saved;
	bool changed;
	ListCell *lc;

	if (delta->definition->full_reason != NULL || pgt_guc_index_hint_pages < 0)
		return NIL;
	changed = pgt_run_become_owner(delta, &saved);
	foreach (lc, delta->definition->stages)
	{
		advice.stage = lfirst(lc);
		look_at_stage(&advice);
	}
	if (changed)
		pgt_security_restore(&saved);
	return advice.found;
}
