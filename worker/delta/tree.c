/*
 * tree.c: surgery on Query trees.
 *
 * PostgreSQL's Query is the algebra of the delta engine: a term of a delta is
 * the stage's query with some leaves read from elsewhere, deparsed by the
 * server. Inputs that exist only in memory, and the common table expressions
 * for old and ever states, are range table entries of kind CTE: the deparser
 * prints such an entry by its bare name, which is how SQL refers to both.
 *
 * All functions copy what they change unless they say so.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "pgt_sqltext.h"

#include "delta_internal.h"

int
pgt_tree_leaf(const RangeTblEntry *rte)
{
	return (int) rte->enrtuples;
}

/* Range table indexes that a join tree uses, in order, joins left out. */
List *
pgt_tree_rtindexes(const Node *node)
{
	List *result = NIL;
	ListCell *lc;

	if (node == NULL)
		return NIL;
	switch (nodeTag(node))
	{
		case T_RangeTblRef:
			return list_make1_int(((const RangeTblRef *) node)->rtindex);
		case T_FromExpr:
			foreach (lc, ((const FromExpr *) node)->fromlist)
				result = list_concat(result, pgt_tree_rtindexes(lfirst(lc)));
			return result;
		case T_JoinExpr:
			return list_concat(pgt_tree_rtindexes(((const JoinExpr *) node)->larg),
							   pgt_tree_rtindexes(((const JoinExpr *) node)->rarg));
		case T_SetOperationStmt:
			return list_concat(pgt_tree_rtindexes(((const SetOperationStmt *) node)->larg),
							   pgt_tree_rtindexes(((const SetOperationStmt *) node)->rarg));
		default:
			elog(ERROR, "unexpected node in join tree: %d", (int) nodeTag(node));
			return NIL;
	}
}

Bitmapset *
pgt_tree_rtindex_set(const Node *node)
{
	Bitmapset *set = NULL;
	ListCell *lc;

	foreach (lc, pgt_tree_rtindexes(node))
		set = bms_add_member(set, lfirst_int(lc));
	return set;
}

List *
pgt_tree_arm_rtindexes(const Query *query)
{
	return pgt_tree_rtindexes(query->setOperations);
}

static List *
used_rtindexes(const Query *query)
{
	return query->setOperations != NULL ? pgt_tree_arm_rtindexes(query)
										: pgt_tree_rtindexes((const Node *) query->jointree);
}

static void collect_leaves(Query *query, List **leaves);

static bool
sublink_leaves_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		collect_leaves((Query *) node, context);
		return false;
	}
	return expression_tree_walker(node, sublink_leaves_walker, context);
}

/* Those of FROM first, then those in subqueries of expressions. */
static void
collect_leaves(Query *query, List **leaves)
{
	ListCell *lc;

	foreach (lc, used_rtindexes(query))
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);

		if (rte->rtekind == RTE_RELATION)
			*leaves = lappend(*leaves, rte);
		else if (rte->rtekind == RTE_SUBQUERY)
			collect_leaves(rte->subquery, leaves);
	}
	(void) sublink_leaves_walker((Node *) query->targetList, leaves);
	(void) sublink_leaves_walker((Node *) query->jointree, leaves);
	(void) sublink_leaves_walker(query->havingQual, leaves);
	(void) sublink_leaves_walker(query->limitOffset, leaves);
	(void) sublink_leaves_walker(query->limitCount, leaves);
}

List *
pgt_tree_leaves(Query *query)
{
	List *leaves = NIL;

	collect_leaves(query, &leaves);
	return leaves;
}

/* Numbers the leaves from 1, in place. */
void
pgt_tree_number_leaves(Query *query)
{
	int number = 0;
	ListCell *lc;

	foreach (lc, pgt_tree_leaves(query))
		((RangeTblEntry *) lfirst(lc))->enrtuples = ++number;
}

static bool
is_union_all(const Node *node)
{
	const SetOperationStmt *stmt = (const SetOperationStmt *) node;

	return IsA(node, RangeTblRef) || (stmt->op == SETOP_UNION && stmt->all &&
									  is_union_all(stmt->larg) && is_union_all(stmt->rarg));
}

/* Is it a set operation of nothing but UNION ALL? */
bool
pgt_tree_is_union_all(const Query *query)
{
	return query->setOperations != NULL && is_union_all(query->setOperations);
}

List *
pgt_tree_outputs(Query *query)
{
	List *outputs = NIL;
	ListCell *lc;

	foreach (lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (!tle->resjunk)
			outputs = lappend(outputs, tle);
	}
	return outputs;
}

/* In place. */
void
pgt_tree_drop_junk(Query *query)
{
	query->targetList = pgt_tree_outputs(query);
	query->sortClause = NIL;
}

/* One column of a union's arm, in the type and collation of the union. */
Expr *
pgt_tree_coerce_column(Expr *expr, Oid type, int32 typmod, Oid collation)
{
	Node *node = coerce_to_target_type(NULL, (Node *) expr, exprType((Node *) expr), type, typmod,
									   COERCION_EXPLICIT, COERCE_EXPLICIT_CAST, -1);

	if (node == NULL)
		elog(ERROR, "could not coerce a column of a UNION");
	if (OidIsValid(collation) && exprCollation(node) != collation)
	{
		CollateExpr *collate = makeNode(CollateExpr);

		collate->arg = (Expr *) node;
		collate->collOid = collation;
		collate->location = -1;
		node = (Node *) collate;
	}
	return (Expr *) node;
}

/* SELECT every column FROM (query); the query itself becomes part of the result. */
Query *
pgt_tree_wrap(Query *subquery)
{
	Query *query = makeNode(Query);
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	RangeTblRef *ref = makeNode(RangeTblRef);
	List *names = NIL;
	ListCell *lc;

	query->commandType = CMD_SELECT;
	query->querySource = QSRC_ORIGINAL;
	query->canSetTag = true;
	foreach (lc, pgt_tree_outputs(subquery))
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Var *var = makeVarFromTargetEntry(1, tle);

		names = lappend(names, makeString(pstrdup(tle->resname)));
		query->targetList = lappend(
			query->targetList,
			makeTargetEntry((Expr *) var, tle->resno, pstrdup(tle->resname), false));
	}
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = subquery;
	rte->alias = makeAlias("q", NIL);
	rte->eref = makeAlias("q", names);
	rte->inFromCl = true;
	query->rtable = list_make1(rte);
	ref->rtindex = 1;
	query->jointree = makeFromExpr(list_make1(ref), NULL);
	return query;
}

List *
pgt_tree_union_arms(Query *query)
{
	SetOperationStmt *top = castNode(SetOperationStmt, query->setOperations);
	List *arms = NIL;
	ListCell *lc;

	foreach (lc, pgt_tree_arm_rtindexes(query))
	{
		Query *arm = copyObject(rt_fetch(lfirst_int(lc), query->rtable)->subquery);
		List *outputs = pgt_tree_outputs(query);
		int column = 0;
		ListCell *lt;

		pgt_tree_drop_junk(arm);
		if (arm->setOperations != NULL)
			arm = pgt_tree_wrap(arm);
		foreach (lt, arm->targetList)
		{
			TargetEntry *tle = lfirst_node(TargetEntry, lt);
			Oid type = list_nth_oid(top->colTypes, column);

			tle->expr = pgt_tree_coerce_column(tle->expr, type,
											   list_nth_int(top->colTypmods, column),
											   list_nth_oid(top->colCollations, column));
			tle->resname = pstrdup(list_nth_node(TargetEntry, outputs, column)->resname);
			column++;
		}
		arms = lappend(arms, arm);
	}
	return arms;
}

typedef struct NullVarsContext
{
	const Bitmapset *rtindexes;
	int depth; /* levels below the query */
} NullVarsContext;

static Node *
null_vars_mutator(Node *node, void *context)
{
	NullVarsContext *ctx = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var *var = (Var *) node;

		if (var->varlevelsup == ctx->depth && bms_is_member(var->varno, ctx->rtindexes))
			return (Node *) makeNullConst(var->vartype, var->vartypmod, var->varcollid);
		return (Node *) copyObject(var);
	}
	if (IsA(node, Query))
	{
		Query *query;

		ctx->depth++;
		query = query_tree_mutator((Query *) node, null_vars_mutator, context,
								   QTW_IGNORE_JOINALIASES);
		ctx->depth--;
		return (Node *) query;
	}
	return expression_tree_mutator(node, null_vars_mutator, context);
}

/* Columns of absent relations are NULL. */
Node *
pgt_tree_null_vars(Node *node, const Bitmapset *rtindexes)
{
	NullVarsContext context = {rtindexes, 0};

	return bms_is_empty(rtindexes) ? node : null_vars_mutator(node, &context);
}

ChangeShape *
pgt_tree_find_shape(EmitContext *context, Oid relid)
{
	ListCell *lc;

	foreach (lc, context->shapes)
	{
		ChangeShape *shape = lfirst(lc);

		if (shape->relid == relid)
			return shape;
	}
	return NULL;
}

/* Turns an entry into a reference by bare name, in place. */
void
pgt_tree_name_input(RangeTblEntry *rte, const char *name, List *colnames)
{
	rte->rtekind = RTE_CTE;
	rte->ctename = pstrdup(name);
	rte->ctelevelsup = 0;
	rte->relid = InvalidOid;
	rte->relkind = 0;
	rte->subquery = NULL;
	rte->inh = false;
	rte->tablesample = NULL;
	rte->eref = makeAlias(rte->eref->aliasname, colnames);
	rte->alias = makeAlias(rte->eref->aliasname, NIL);
}

typedef struct RemapContext
{
	int rtindex;
	const ChangeShape *shape;
	int depth; /* levels below the query */
} RemapContext;

/* Columns of a relation become columns of its change set, whose first is pgt_w. */
static bool
remap_walker(Node *node, void *context)
{
	RemapContext *ctx = context;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var *var = (Var *) node;

		if (var->varlevelsup != ctx->depth || var->varno != ctx->rtindex)
			return false;
		for (int i = 0; i < ctx->shape->ncolumns; i++)
			if (ctx->shape->attnums[i] == var->varattno)
			{
				var->varattno = var->varattnosyn = i + 2;
				return false;
			}
		elog(ERROR, "column %d of relation %u is not captured", var->varattno, ctx->shape->relid);
	}
	if (IsA(node, Query))
	{
		ctx->depth++;
		query_tree_walker((Query *) node, remap_walker, context, QTW_IGNORE_JOINALIASES);
		ctx->depth--;
		return false;
	}
	return expression_tree_walker(node, remap_walker, context);
}

/* FROM items that refer to others. */
static void
remap_entries(Query *query, RemapContext *context)
{
	ListCell *lc;

	foreach (lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		(void) remap_walker((Node *) rte->functions, context);
		(void) remap_walker((Node *) rte->values_lists, context);
		(void) remap_walker((Node *) rte->tablefunc, context);
		if (rte->rtekind == RTE_SUBQUERY && rte->lateral)
			(void) remap_walker((Node *) rte->subquery, context);
	}
}

/* Reads a leaf in another state, in place. */
void
pgt_tree_use_state(Query *query, int rtindex, LeafState state, EmitContext *context)
{
	RangeTblEntry *rte = rt_fetch(rtindex, query->rtable);
	ChangeShape *shape;
	RemapContext remap;
	List *names = list_make1(makeString(PGT_WEIGHT_COLUMN));
	char *name;

	if (state == LEAF_NEW)
		return;
	shape = pgt_tree_find_shape(context, rte->relid);
	for (int i = 0; i < shape->ncolumns; i++)
		names = lappend(names, makeString(pstrdup(shape->names[i])));
	switch (state)
	{
		case LEAF_OLD:
			name = psprintf("pgt_old_%d", shape->number);
			context->ctes = bms_add_member(context->ctes, 2 * shape->number);
			break;
		case LEAF_EVER:
			name = psprintf("pgt_ever_%d", shape->number);
			context->ctes = bms_add_member(context->ctes, 2 * shape->number + 1);
			break;
		case LEAF_BEFORE:
			name = psprintf("pgt_before_%d", pgt_tree_leaf(rte)); /* a WITH item of its own */
			break;
		default:
			name = psprintf("pgt_delta_%d", shape->number);
			break;
	}
	remap.rtindex = rtindex;
	remap.shape = shape;
	remap.depth = 0;
	remap_entries(query, &remap);
	remap_walker((Node *) query->targetList, &remap);
	remap_walker((Node *) query->jointree, &remap);
	remap_walker(query->havingQual, &remap);
	shape->subquery = rte->subquery;
	pgt_tree_name_input(rte, name, names);
	rte->relid = shape->relid; /* for the join order: it has the table's statistics */
	if (state != LEAF_DELTA)
		rte->subquery = shape->subquery;
}

/* Appends the columns of an entry or join that exist, as Vars with names. */
static void
append_columns(Query *query, Node *node, List **vars, List **names, List **numbers)
{
	int rtindex = IsA(node, JoinExpr) ? ((JoinExpr *) node)->rtindex
									  : castNode(RangeTblRef, node)->rtindex;
	RangeTblEntry *rte = rt_fetch(rtindex, query->rtable);
	int attno = 0;
	ListCell *lc;

	foreach (lc, rte->eref->colnames)
	{
		attno++;
		/* A stage may have no table yet, and none of its columns is ever dropped. */
		if (rte->rtekind == RTE_RELATION && pgt_stage_of_entry(rte) == 0 &&
			get_rte_attribute_is_dropped(rte, attno))
			continue;
		/* Only names and positions matter to the deparser, not types. */
		*vars = lappend(*vars, makeVar(rtindex, attno, INT4OID, -1, InvalidOid, 0));
		*names = lappend(*names, copyObject(lfirst(lc)));
		*numbers = lappend_int(*numbers, attno);
	}
}

/* Lists the columns of a join in its range table entry, both sides after each other. */
void
pgt_tree_fill_join(Query *query, RangeTblEntry *rte, Node *left, Node *right)
{
	List *names = NIL;

	rte->joinmergedcols = 0;
	rte->joinaliasvars = rte->joinleftcols = rte->joinrightcols = NIL;
	append_columns(query, left, &rte->joinaliasvars, &names, &rte->joinleftcols);
	append_columns(query, right, &rte->joinaliasvars, &names, &rte->joinrightcols);
	rte->alias = NULL;
	rte->join_using_alias = NULL;
	rte->eref = makeAlias("unnamed_join", names);
}

/* Joins list their columns plainly; nothing refers to them any more. */
void
pgt_tree_rebuild_joins(Query *query, Node *node)
{
	ListCell *lc;

	if (IsA(node, FromExpr))
	{
		foreach (lc, ((FromExpr *) node)->fromlist)
			pgt_tree_rebuild_joins(query, lfirst(lc));
	}
	else if (IsA(node, JoinExpr))
	{
		JoinExpr *join = (JoinExpr *) node;

		pgt_tree_rebuild_joins(query, join->larg);
		pgt_tree_rebuild_joins(query, join->rarg);
		join->usingClause = NIL;
		join->join_using_alias = NULL;
		join->alias = NULL;
		pgt_tree_fill_join(query, rt_fetch(join->rtindex, query->rtable), join->larg, join->rarg);
	}
}

/* An inner join of a join tree with one more entry; adds the join's own entry. */
Node *
pgt_tree_join(Query *query, Node *left, int rtindex, Node *quals)
{
	JoinExpr *join = makeNode(JoinExpr);
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	RangeTblRef *right = makeNode(RangeTblRef);

	right->rtindex = rtindex;
	rte->rtekind = RTE_JOIN;
	rte->jointype = JOIN_INNER;
	pgt_tree_fill_join(query, rte, left, (Node *) right);
	rte->inFromCl = true;
	query->rtable = lappend(query->rtable, rte);

	join->jointype = JOIN_INNER;
	join->larg = left;
	join->rarg = (Node *) right;
	join->quals = quals;
	join->rtindex = list_length(query->rtable);
	return (Node *) join;
}

static bool
join_tree_has_outer(const Node *node)
{
	ListCell *lc;

	if (node == NULL || IsA(node, RangeTblRef))
		return false;
	if (IsA(node, FromExpr))
	{
		foreach (lc, ((const FromExpr *) node)->fromlist)
			if (join_tree_has_outer(lfirst(lc)))
				return true;
		return false;
	}
	return ((const JoinExpr *) node)->jointype != JOIN_INNER ||
		   join_tree_has_outer(((const JoinExpr *) node)->larg) ||
		   join_tree_has_outer(((const JoinExpr *) node)->rarg);
}

/* Entries of a join tree that are absent in some rows. */
void
pgt_tree_nullable_rtindexes(const Node *node, bool nullable, Bitmapset **result)
{
	const JoinExpr *join = (const JoinExpr *) node;
	ListCell *lc;

	if (IsA(node, RangeTblRef))
	{
		if (nullable)
			*result = bms_add_member(*result, ((const RangeTblRef *) node)->rtindex);
		return;
	}
	if (IsA(node, FromExpr))
	{
		foreach (lc, ((const FromExpr *) node)->fromlist)
			pgt_tree_nullable_rtindexes(lfirst(lc), nullable, result);
		return;
	}
	pgt_tree_nullable_rtindexes(
		join->larg, nullable || join->jointype == JOIN_RIGHT || join->jointype == JOIN_FULL,
		result);
	pgt_tree_nullable_rtindexes(
		join->rarg, nullable || join->jointype == JOIN_LEFT || join->jointype == JOIN_FULL, result);
}

typedef struct OuterContext
{
	int depth;
} OuterContext;

static bool
outer_walker(Node *node, void *context)
{
	OuterContext *ctx = context;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return (int) ((Var *) node)->varlevelsup > ctx->depth;
	if (IsA(node, Aggref) && (int) ((Aggref *) node)->agglevelsup > ctx->depth)
		return true;
	if (IsA(node, GroupingFunc) && (int) ((GroupingFunc *) node)->agglevelsup > ctx->depth)
		return true;
	if (IsA(node, Query))
	{
		bool found;

		ctx->depth++;
		found = query_tree_walker((Query *) node, outer_walker, context, QTW_IGNORE_JOINALIASES);
		ctx->depth--;
		return found;
	}
	return expression_tree_walker(node, outer_walker, context);
}

/* Does a query refer to what is around it? */
bool
pgt_tree_has_outer_vars(Query *query)
{
	OuterContext context = {0};

	return query_tree_walker(query, outer_walker, &context, QTW_IGNORE_JOINALIASES);
}

/* A FROM item without tables: its rows follow from what it refers to, so it is linear. */
bool
pgt_tree_is_function(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_FUNCTION || rte->rtekind == RTE_TABLEFUNC ||
		   (rte->rtekind == RTE_SUBQUERY && pgt_tree_has_outer_vars(rte->subquery) &&
			pgt_tree_leaves(rte->subquery) == NIL);
}

/* Here or in a subquery. */
bool
pgt_tree_has_outer_join(const Query *query)
{
	ListCell *lc;

	if (query->setOperations == NULL && join_tree_has_outer((const Node *) query->jointree))
		return true;
	foreach (lc, used_rtindexes(query))
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);

		if (rte->rtekind == RTE_SUBQUERY && !pgt_tree_is_function(rte) &&
			pgt_tree_has_outer_join(rte->subquery))
			return true;
	}
	return false;
}

/* The conditions that nested ANDs join; NIL for none. Two nulls of rewrite_null.c stay together. */
List *
pgt_tree_conjuncts(Node *quals)
{
	List *result = NIL;
	ListCell *lc;

	if (quals != NULL && is_andclause(quals) && ((BoolExpr *) quals)->location == PGT_ALTERNATIVES)
		return list_make1(quals);
	if (quals == NULL || !is_andclause(quals))
		return make_ands_implicit((Expr *) quals);
	foreach (lc, ((BoolExpr *) quals)->args)
		result = list_concat(result, pgt_tree_conjuncts(lfirst(lc)));
	return result;
}

/* Inner joins as a list of entries and a list of conditions. */
void
pgt_tree_flatten_inner(Node *node, List **rtindexes, List **quals)
{
	ListCell *lc;

	if (IsA(node, RangeTblRef))
		*rtindexes = lappend_int(*rtindexes, ((RangeTblRef *) node)->rtindex);
	else if (IsA(node, FromExpr))
	{
		FromExpr *from = (FromExpr *) node;

		foreach (lc, from->fromlist)
			pgt_tree_flatten_inner(lfirst(lc), rtindexes, quals);
		*quals = list_concat(*quals, pgt_tree_conjuncts(from->quals));
	}
	else
	{
		JoinExpr *join = castNode(JoinExpr, node);

		Assert(join->jointype == JOIN_INNER);
		pgt_tree_flatten_inner(join->larg, rtindexes, quals);
		pgt_tree_flatten_inner(join->rarg, rtindexes, quals);
		*quals = list_concat(*quals, pgt_tree_conjuncts(join->quals));
	}
}

/* The FROM and WHERE of a query under another target list; nothing is copied. */
Query *
pgt_tree_select(Query *source, List *target_list)
{
	Query *query = makeNode(Query);
	int number = 0;
	ListCell *lc;

	query->commandType = CMD_SELECT;
	query->querySource = QSRC_ORIGINAL;
	query->canSetTag = true;
	query->rtable = source->rtable;
	query->jointree = source->jointree;
	query->targetList = target_list;
	foreach (lc, target_list)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		tle->resno = ++number;
		tle->resjunk = false;
		tle->ressortgroupref = 0;
		if (tle->resname == NULL)
			tle->resname = psprintf("c%d", number);
	}
	return query;
}

static void
collect_joins(Node *node, Bitmapset **joins)
{
	ListCell *lc;

	if (IsA(node, FromExpr))
	{
		foreach (lc, ((FromExpr *) node)->fromlist)
			collect_joins(lfirst(lc), joins);
	}
	else if (IsA(node, JoinExpr))
	{
		JoinExpr *join = (JoinExpr *) node;

		*joins = bms_add_member(*joins, join->rtindex);
		collect_joins(join->larg, joins);
		collect_joins(join->rarg, joins);
	}
}

static void drop_dead_joins(Query *query);

static bool
dead_joins_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		drop_dead_joins((Query *) node);
		return false;
	}
	/* Columns of a join with an alias are written as the user wrote them. */
	if (IsA(node, Var))
	{
		((Var *) node)->varnosyn = ((Var *) node)->varno;
		((Var *) node)->varattnosyn = ((Var *) node)->varattno;
		return false;
	}
	return expression_tree_walker(node, dead_joins_walker, context);
}

/* Entries of joins that were taken apart would lead the deparser astray. */
static void
drop_dead_joins(Query *query)
{
	Bitmapset *joins = NULL;
	int rtindex = 0;
	ListCell *lc;

	collect_joins((Node *) query->jointree, &joins);
	foreach (lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		rtindex++;
		if (rte->rtekind == RTE_JOIN && !bms_is_member(rtindex, joins))
		{
			rte->rtekind = RTE_RESULT;
			rte->eref = makeAlias("unused", NIL);
			rte->alias = NULL;
		}
	}
	/* What they join may be read from elsewhere now, with other columns. */
	pgt_tree_rebuild_joins(query, (Node *) query->jointree);
	(void) query_tree_walker(query, dead_joins_walker, NULL, QTW_IGNORE_JOINALIASES);
}

/* SQL text of a query; the caller has set a safe search_path. */
char *
pgt_tree_deparse(Query *query, const EmitContext *context)
{
	Query *copy = copyObject(query);

	pgt_inline_stages(copy, context != NULL && !context->whole);
	drop_dead_joins(copy);
	pgt_rewrite_name_rows(copy);
	return pgt_sqltext_query(copy);
}
