/*
 * rewrite_row.c: references to whole rows, and tableoid of plain tables.
 *
 * Change sets have columns, no rows. So a whole row becomes ROW(columns) of the
 * same type. Where an outer join can make the row absent, this would be a row
 * of NULLs instead of NULL: there the row is made below the join, as one more
 * column of a subquery that reads the table.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"

#include "pgt_compat.h"

#include "rewrite.h"

typedef struct RowContext
{
	Query *query;
	AttrNumber attno;  /* which columns are meant: 0 or tableoid */
	int rtindex;	   /* of this entry; 0: find */
	AttrNumber column; /* the column that shows the row; 0: ROW(...) in its place */
	Bitmapset *rtindexes;
	Oid type; /* of the row found last */
	int depth;
} RowContext;

/* ---- Finding ---- */

static bool
find_walker(Node *node, void *context)
{
	RowContext *ctx = context;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var *var = (Var *) node;

		if (var->varlevelsup != ctx->depth || var->varattno != ctx->attno)
			return false;
		ctx->rtindexes = bms_add_member(ctx->rtindexes, var->varno);
		if (var->varno == ctx->rtindex)
			ctx->type = var->vartype;
		return false;
	}
	if (IsA(node, Query))
	{
		ctx->depth++;
		(void) query_tree_walker((Query *) node, find_walker, context, QTW_IGNORE_JOINALIASES);
		ctx->depth--;
		return false;
	}
	return expression_tree_walker(node, find_walker, context);
}

static void
find_rows(RowContext *context)
{
	context->depth = 0;
	(void) query_tree_walker(context->query, find_walker, context, QTW_IGNORE_JOINALIASES);
}

bool
pgt_rewrite_is_used_whole(Query *query, int rtindex)
{
	RowContext context = {.query = query};

	find_rows(&context);
	return bms_is_member(rtindex, context.rtindexes);
}

/* ---- Replacing ---- */

static bool
is_dropped(RangeTblEntry *rte, int attno)
{
	return rte->rtekind == RTE_RELATION && get_rte_attribute_is_dropped(rte, attno);
}

static Node *
make_row(RangeTblEntry *rte, int rtindex, Oid type, int depth)
{
	RowExpr *row = makeNode(RowExpr);

	row->args = pgt_compat_entry_columns(rte, rtindex, depth);
	row->row_typeid = type;
	row->row_format = type == RECORDOID ? COERCE_EXPLICIT_CALL : COERCE_EXPLICIT_CAST;
	row->colnames = type == RECORDOID ? copyObject(rte->eref->colnames) : NIL;
	row->location = -1;
	return (Node *) row;
}

static Node *
row_mutator(Node *node, void *context)
{
	RowContext *ctx = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var *var = (Var *) node;
		RangeTblEntry *rte;

		if (var->varlevelsup != ctx->depth || var->varattno != ctx->attno ||
			var->varno != ctx->rtindex)
			return node;
		rte = rt_fetch(ctx->rtindex, ctx->query->rtable);
		if (ctx->attno == TableOidAttributeNumber)
			return (Node *) makeConst(OIDOID, -1, InvalidOid, sizeof(Oid),
									  ObjectIdGetDatum(rte->relid), false, true);
		if (ctx->column > 0)
			return (Node *) makeVar(ctx->rtindex, ctx->column, var->vartype, -1, InvalidOid,
									ctx->depth);
		return make_row(rte, ctx->rtindex, var->vartype, ctx->depth);
	}
	if (IsA(node, Query))
	{
		Query *query;

		ctx->depth++;
		query = query_tree_mutator((Query *) node, row_mutator, context, 0);
		ctx->depth--;
		return (Node *) query;
	}
	return expression_tree_mutator(node, row_mutator, context);
}

static void
replace_rows(RowContext *context)
{
	context->depth = 0;
	(void) query_tree_mutator(context->query, row_mutator, context,
							  QTW_DONT_COPY_QUERY | QTW_IGNORE_JOINALIASES);
}

/* Makes an entry a subquery with one more column, the row; returns its number. */
static AttrNumber
add_row(RangeTblEntry *rte, Oid type)
{
	Query *query = makeNode(Query);
	RangeTblEntry *inner = copyObject(rte);
	RangeTblRef *ref = makeNode(RangeTblRef);
	List *names = NIL;
	int number = 0;
	ListCell *lc;
	ListCell *lv;

	query->commandType = CMD_SELECT;
	query->querySource = QSRC_ORIGINAL;
	query->canSetTag = true;
	query->rtable = list_make1(inner);
	ref->rtindex = 1;
	query->jointree = makeFromExpr(list_make1(ref), NULL);
	forboth (lc, rte->eref->colnames, lv, pgt_compat_entry_columns(inner, 1, 0))
	{
		char *name = strVal(lfirst(lc));

		number++;
		if (is_dropped(rte, number))
			name = psprintf("pgt_dropped_%d", number);
		names = lappend(names, makeString(pstrdup(name)));
		query->targetList = lappend(query->targetList,
									makeTargetEntry(lfirst(lv), number, pstrdup(name), false));
	}
	number++;
	names = lappend(names, makeString(pstrdup("pgt_row")));
	query->targetList = lappend(
		query->targetList,
		makeTargetEntry((Expr *) make_row(inner, 1, type, 0), number, pstrdup("pgt_row"), false));
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = query;
	rte->relid = InvalidOid;
	rte->relkind = 0;
	rte->inh = false;
	rte->eref = makeAlias(rte->eref->aliasname, names);
	rte->alias = makeAlias(rte->eref->aliasname, NIL);
	return number;
}

/*
 * "row IS NULL" asks every column, of an absent row too. Asked of ROW(columns)::type,
 * PostgreSQL (15 to 18) would ask the dropped columns as well, which a row of the table
 * does not have; so these tests ask the columns.
 */
static Node *
ask_columns(NullTest *test, RangeTblEntry *rte, int depth)
{
	List *tests = NIL;
	ListCell *lc;

	foreach (lc, pgt_compat_entry_columns(rte, ((Var *) test->arg)->varno, depth))
	{
		NullTest *column = makeNode(NullTest);

		if (is_dropped(rte, foreach_current_index(lc) + 1))
			continue;
		column->arg = lfirst(lc);
		column->nulltesttype = test->nulltesttype;
		column->location = -1;
		tests = lappend(tests, column);
	}
	return tests == NIL ? (Node *) test : (Node *) make_ands_explicit(tests);
}

static Node *
null_test_mutator(Node *node, void *context)
{
	RowContext *ctx = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, NullTest) && ((NullTest *) node)->argisrow && IsA(((NullTest *) node)->arg, Var))
	{
		Var *var = (Var *) ((NullTest *) node)->arg;
		RangeTblEntry *rte;

		if (var->varlevelsup != ctx->depth || var->varattno != 0)
			return node;
		rte = rt_fetch(var->varno, ctx->query->rtable);
		if (rte->rtekind != RTE_RELATION && rte->rtekind != RTE_SUBQUERY)
			return node;
		return ask_columns((NullTest *) node, rte, ctx->depth);
	}
	if (IsA(node, Query))
	{
		Query *query;

		ctx->depth++;
		query = query_tree_mutator((Query *) node, null_test_mutator, context, 0);
		ctx->depth--;
		return (Node *) query;
	}
	return expression_tree_mutator(node, null_test_mutator, context);
}

static void
rewrite_null_tests(Query *query)
{
	RowContext context = {.query = query};

	(void) query_tree_mutator(query, null_test_mutator, &context,
							  QTW_DONT_COPY_QUERY | QTW_IGNORE_JOINALIASES);
}

static void
rewrite_rows(Query *query, const Bitmapset *nullable)
{
	RowContext context = {.query = query};
	int rtindex = -1;

	find_rows(&context);
	while ((rtindex = bms_next_member(context.rtindexes, rtindex)) >= 0)
	{
		RangeTblEntry *rte = rt_fetch(rtindex, query->rtable);
		RowContext row = {.query = query, .rtindex = rtindex};

		if (rte->rtekind != RTE_RELATION && rte->rtekind != RTE_SUBQUERY)
			continue;
		find_rows(&row);
		if (bms_is_member(rtindex, nullable))
			row.column = add_row(rte, row.type);
		replace_rows(&row);
		if (row.column > 0)
			pgt_normalize_joins(query);
	}
}

/* Is tableoid the same in all rows of an entry? */
bool
pgt_rewrite_is_one_table(Query *query, int rtindex)
{
	RangeTblEntry *rte = rt_fetch(rtindex, query->rtable);
	Bitmapset *nullable = NULL;

	pgt_tree_nullable_rtindexes((Node *) query->jointree, false, &nullable);
	return rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_RELATION &&
		   (!rte->inh || !has_subclass(rte->relid)) && !bms_is_member(rtindex, nullable);
}

static void
rewrite_tableoids(Query *query)
{
	RowContext context = {.query = query, .attno = TableOidAttributeNumber};

	find_rows(&context);
	context.rtindex = -1;
	while ((context.rtindex = bms_next_member(context.rtindexes, context.rtindex)) >= 0)
		if (pgt_rewrite_is_one_table(query, context.rtindex))
			replace_rows(&context);
}

/* In place. */
void
pgt_rewrite_rows(Query *query)
{
	Bitmapset *nullable = NULL;

	if (query->setOperations != NULL)
		return;
	pgt_tree_nullable_rtindexes((Node *) query->jointree, false, &nullable);
	rewrite_null_tests(query);
	rewrite_rows(query, nullable);
	rewrite_tableoids(query);
}

/* ---- Names ---- */

/* Rows without a type of their own, whose columns have other names than ROW(...) gives them. */
static bool
has_lost_names(Node *node)
{
	RowExpr *row = (RowExpr *) node;
	ListCell *lc;

	if (!IsA(node, RowExpr) || row->row_typeid != RECORDOID)
		return false;
	foreach (lc, row->colnames)
		if (strcmp(strVal(lfirst(lc)), psprintf("f%d", foreach_current_index(lc) + 1)) != 0)
			return true;
	return false;
}

/* (SELECT pgt_row FROM (SELECT value AS name, ...) AS pgt_row) */
static Expr *
name_row(RowExpr *row)
{
	Query *inner = makeNode(Query);
	Query *query;
	SubLink *link = makeNode(SubLink);
	ListCell *lc;
	ListCell *ln;

	inner->commandType = CMD_SELECT;
	inner->querySource = QSRC_ORIGINAL;
	inner->canSetTag = true;
	inner->jointree = makeFromExpr(NIL, NULL);
	forboth (lc, row->args, ln, row->colnames)
	{
		Expr *expr = copyObject(lfirst(lc));

		IncrementVarSublevelsUp((Node *) expr, 2, 0);
		inner->targetList = lappend(inner->targetList,
									makeTargetEntry(expr, foreach_current_index(lc) + 1,
													pstrdup(strVal(lfirst(ln))), false));
	}
	query = pgt_tree_wrap(inner);
	query->rtable = list_make1(pgt_rewrite_make_entry(inner, "pgt_row"));
	query->targetList = list_make1(makeTargetEntry(
		(Expr *) makeVar(1, 0, RECORDOID, -1, InvalidOid, 0), 1, pstrdup("pgt_row"), false));
	link->subLinkType = EXPR_SUBLINK;
	link->subselect = (Node *) query;
	link->location = -1;
	return (Expr *) link;
}

static bool
names_walker(Node *node, void *context)
{
	ListCell *lc;

	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr))
	{
		foreach (lc, ((FuncExpr *) node)->args)
			if (has_lost_names(lfirst(lc)))
				lfirst(lc) = name_row(lfirst(lc));
	}
	else if (IsA(node, Aggref))
	{
		foreach (lc, ((Aggref *) node)->args)
		{
			TargetEntry *tle = lfirst_node(TargetEntry, lc);

			if (tle->ressortgroupref == 0 && has_lost_names((Node *) tle->expr))
				tle->expr = name_row((RowExpr *) tle->expr);
		}
	}
	else if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		/* The column of add_row. */
		foreach (lc, rte->subquery != NULL ? rte->subquery->targetList : NIL)
		{
			TargetEntry *tle = lfirst_node(TargetEntry, lc);

			if (tle->ressortgroupref == 0 && has_lost_names((Node *) tle->expr))
				tle->expr = name_row((RowExpr *) tle->expr);
		}
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, names_walker, context,
								 QTW_EXAMINE_RTES_BEFORE | QTW_IGNORE_JOINALIASES);
	return expression_tree_walker(node, names_walker, context);
}

/*
 * Before a query becomes text: functions such as to_jsonb see the names of a
 * row's columns, and ROW(...) has none. In place.
 */
void
pgt_rewrite_name_rows(Query *query)
{
	(void) names_walker((Node *) query, NULL);
}
