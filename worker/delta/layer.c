/*
 * layer.c: the layers of one query level, taken apart from the top.
 *
 *	  core -> GROUP BY -> window functions -> DISTINCT -> ORDER BY with LIMIT
 *
 * Each is a stage of its own: what is below becomes a subquery in FROM, which
 * the caller cuts in turn. Columns that only a clause of the upper layer names
 * are shown by the lower one.
 *
 * Windows that share partition columns share a stage; others make a chain of
 * stages, so that each is recomputed by partitions of its own.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_clause.h"
#include "parser/parse_oper.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"

#include "delta_internal.h"

bool
pgt_layer_has_limit(const Query *query)
{
	return query->limitCount != NULL || query->limitOffset != NULL;
}

/* LIMIT ALL, LIMIT NULL and OFFSET 0 say nothing. */
void
pgt_layer_drop_void_limit(Query *query)
{
	Node *count = eval_const_expressions(NULL, copyObject(query->limitCount));
	Node *offset = eval_const_expressions(NULL, copyObject(query->limitOffset));

	if (count != NULL && IsA(count, Const) && ((Const *) count)->constisnull)
		query->limitCount = NULL;
	if (offset != NULL && IsA(offset, Const) &&
		(((Const *) offset)->constisnull || DatumGetInt64(((Const *) offset)->constvalue) == 0))
		query->limitOffset = NULL;
	if (!pgt_layer_has_limit(query))
		query->limitOption = LIMIT_OPTION_COUNT;
}

/* ---- Peeling ---- */

/*
 * Shows what the output shows and what the clauses name; other entries stay
 * junk behind these. Returns the entries shown, as they were.
 */
static List *
show(Query *query, List *clauses)
{
	List *former = NIL;
	List *shown = NIL;
	List *hidden = NIL;
	ListCell *lc;

	foreach (lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk && (tle->ressortgroupref == 0 ||
							 !get_sortgroupref_clause_noerr(tle->ressortgroupref, clauses)))
		{
			hidden = lappend(hidden, tle);
			continue;
		}
		former = lappend(former, flatCopyTargetEntry(tle));
		shown = lappend(shown, tle);
		tle->resjunk = false;
		tle->resno = list_length(shown);
		tle->resname = psprintf("c%d", tle->resno);
	}
	foreach (lc, hidden)
		lfirst_node(TargetEntry, lc)->resno = list_length(shown) + foreach_current_index(lc) + 1;
	query->targetList = list_concat(shown, hidden);
	return former;
}

/* A query over the lower one, whose columns are the former entries of its columns. */
static Query *
put_on_top(Query *lower, List *former, bool keep_junk)
{
	Query *above = pgt_tree_wrap(lower);
	List *targets = NIL;
	ListCell *lc;
	ListCell *lf;

	forboth (lc, above->targetList, lf, former)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		TargetEntry *old = lfirst_node(TargetEntry, lf);

		if (old->resjunk && !keep_junk)
			continue;
		tle->resno = list_length(targets) + 1;
		tle->resname = old->resname;
		tle->resjunk = old->resjunk;
		tle->ressortgroupref = keep_junk ? old->ressortgroupref : 0;
		targets = lappend(targets, tle);
	}
	above->targetList = targets;
	return above;
}

/* All that the clauses name is shown below; above is what the query shows. */
static Query *
peel_projection(Query *query, List *clauses)
{
	List *former = show(query, clauses);

	return put_on_top(query, former, false);
}

static Query *
peel_limit(Query *query)
{
	Query top = *query;
	List *former = show(query, query->sortClause);
	Query *above;

	query->limitCount = query->limitOffset = NULL;
	query->limitOption = LIMIT_OPTION_COUNT;
	if (!query->hasDistinctOn)
		query->sortClause = NIL;
	above = put_on_top(query, former, true);
	above->sortClause = copyObject(top.sortClause);
	above->limitCount = top.limitCount;
	above->limitOffset = top.limitOffset;
	above->limitOption = top.limitOption;
	above->hasSubLinks = pgt_flatten_has_sublink(top.limitCount) ||
						 pgt_flatten_has_sublink(top.limitOffset);
	return above;
}

static Query *
peel_distinct(Query *query)
{
	Query top = *query;
	List *sort = query->hasDistinctOn ? query->sortClause : NIL;
	List *former = show(query, list_concat_copy(query->distinctClause, sort));
	Query *above;

	query->distinctClause = query->sortClause = NIL;
	query->hasDistinctOn = false;
	above = put_on_top(query, former, true);
	above->distinctClause = top.distinctClause;
	above->sortClause = sort;
	above->hasDistinctOn = top.hasDistinctOn;
	return above;
}

/* What of an expression is computed below. */
typedef struct AtomContext
{
	Query *lower;
	List *whole;		/* expressions that become columns as they are */
	Bitmapset *winrefs; /* of the windows below */
	bool sublinks;		/* subqueries of expressions, too */
	bool groups;		/* and not rows are below: aggregates */
	int depth;			/* levels below the query, in subqueries of expressions */
} AtomContext;

static TargetEntry *
add_target(Query *query, Expr *expr, bool resjunk)
{
	int number = list_length(query->targetList) + 1;
	TargetEntry *tle = makeTargetEntry(expr, number, psprintf("c%d", number), resjunk);

	query->targetList = lappend(query->targetList, tle);
	return tle;
}

/* The column of the lower query that shows the expression; added if there is none. */
static Node *
column_of(AtomContext *context, Node *expr)
{
	TargetEntry *tle = NULL;
	Var *var;
	ListCell *lc;

	expr = copyObject(expr);
	if (context->depth > 0)
		IncrementVarSublevelsUp(expr, -context->depth, context->depth);
	foreach (lc, context->lower->targetList)
		if (tle == NULL && equal(lfirst_node(TargetEntry, lc)->expr, expr))
			tle = lfirst(lc);
	if (tle == NULL)
		tle = add_target(context->lower, (Expr *) expr, false);
	var = makeVarFromTargetEntry(1, tle);
	var->varlevelsup = context->depth;
	return (Node *) var;
}

static bool
is_atom(AtomContext *context, Node *node)
{
	ListCell *lc;

	foreach (lc, context->whole)
	{
		Node *expr = lfirst(lc);

		if (nodeTag(expr) != nodeTag(node))
			continue;
		if (context->depth > 0)
		{
			expr = copyObject(expr);
			IncrementVarSublevelsUp(expr, context->depth, 0);
		}
		if (equal(expr, node))
			return true;
	}
	switch (nodeTag(node))
	{
		case T_Var:
			return ((Var *) node)->varlevelsup == context->depth;
		case T_Aggref:
			return context->groups && ((Aggref *) node)->agglevelsup == context->depth;
		case T_GroupingFunc:
			return context->groups && ((GroupingFunc *) node)->agglevelsup == context->depth;
		case T_SubLink:
			return context->sublinks && context->depth == 0;
		case T_WindowFunc:
			return context->depth == 0 &&
				   bms_is_member(((WindowFunc *) node)->winref, context->winrefs);
		default:
			return false;
	}
}

static Node *atom_mutator(Node *node, void *context);

/* What asks subqueries is computed below, but not for rows that the condition leaves out. */
static Node *
column_if(AtomContext *context, Node *expr, Expr *condition)
{
	CaseExpr *choice;
	CaseWhen *when;

	if (!pgt_flatten_has_sublink(expr))
		return atom_mutator(expr, context);
	if (condition == NULL)
		return column_of(context, expr);
	when = makeNode(CaseWhen);
	when->expr = condition;
	when->result = (Expr *) expr;
	when->location = -1;
	choice = makeNode(CaseExpr);
	choice->casetype = exprType(expr);
	choice->casecollid = exprCollation(expr);
	choice->args = list_make1(when);
	choice->defresult = (Expr *) makeNullConst(exprType(expr), exprTypmod(expr),
											   exprCollation(expr));
	choice->location = -1;
	return column_of(context, (Node *) choice);
}

/* An aggregate whose arguments are computed below, each as a whole: CASE may guard what is in it. */
static Node *
raise_aggregate(AtomContext *context, const Aggref *aggregate)
{
	Aggref *raised = makeNode(Aggref);
	ListCell *lc;

	*raised = *aggregate;
	raised->aggdirectargs = (List *) atom_mutator((Node *) aggregate->aggdirectargs, context);
	raised->args = NIL;
	foreach (lc, aggregate->args)
	{
		TargetEntry *tle = flatCopyTargetEntry(lfirst_node(TargetEntry, lc));

		tle->expr = (Expr *) column_if(context, (Node *) tle->expr, aggregate->aggfilter);
		raised->args = lappend(raised->args, tle);
	}
	raised->aggfilter = (Expr *) column_if(context, (Node *) aggregate->aggfilter, NULL);
	return (Node *) raised;
}

static Node *
atom_mutator(Node *node, void *context)
{
	AtomContext *ctx = context;

	if (node == NULL)
		return NULL;
	if (is_atom(ctx, node))
		return column_of(ctx, node);
	if (IsA(node, Aggref) && ctx->sublinks && ctx->depth == 0 &&
		((Aggref *) node)->agglevelsup == 0)
		return raise_aggregate(ctx, (Aggref *) node);
	if (IsA(node, Query))
	{
		Query *query;

		ctx->depth++;
		query = query_tree_mutator((Query *) node, atom_mutator, context, 0);
		ctx->depth--;
		return (Node *) query;
	}
	return expression_tree_mutator(node, atom_mutator, context);
}

static bool
has_ref(const Query *query, Index ref)
{
	ListCell *lc;

	foreach (lc, query->targetList)
		if (lfirst_node(TargetEntry, lc)->ressortgroupref == ref)
			return true;
	return false;
}

/* Entries that the clauses of a query name, from its former target list. */
static void
add_referenced(Query *query, List *clauses, List *targets, bool resjunk)
{
	ListCell *lc;

	foreach (lc, clauses)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		TargetEntry *old = get_sortgroupclause_tle(clause, targets);

		if (!has_ref(query, old->ressortgroupref))
			add_target(query, copyObject(old->expr), resjunk)->ressortgroupref =
				old->ressortgroupref;
	}
}

/* These windows above; below what they are computed from, groups or other windows. */
static Query *
peel_windows(Query *query, List *windows)
{
	List *targets = query->targetList;
	AtomContext context = {.lower = query, .sublinks = true, .groups = true};
	Query scratch = {.targetList = targets, .windowClause = windows};
	List *shown = NIL;
	Query *above;
	ListCell *lc;

	query->windowClause = list_difference_ptr(query->windowClause, windows);
	query->hasWindowFuncs = query->windowClause != NIL;
	query->targetList = NIL;
	foreach (lc, query->windowClause)
	{
		WindowClause *window = lfirst_node(WindowClause, lc);

		context.winrefs = bms_add_member(context.winrefs, window->winref);
		add_referenced(query, window->partitionClause, targets, false);
	}
	add_referenced(query, query->groupClause, targets, false);
	context.whole = pgt_window_expressions(query->groupClause, targets);
	foreach (lc, windows)
		context.whole = list_concat(
			context.whole,
			pgt_window_expressions(lfirst_node(WindowClause, lc)->partitionClause, targets));
	foreach (lc, targets)
	{
		TargetEntry *tle = flatCopyTargetEntry(lfirst_node(TargetEntry, lc));

		if (tle->resjunk && !pgt_window_is_referenced(tle, &scratch))
			continue;
		tle->expr = (Expr *) atom_mutator((Node *) tle->expr, &context);
		tle->resno = list_length(shown) + 1;
		shown = lappend(shown, tle);
	}
	/* A subquery in FROM has at least one column. */
	if (query->targetList == NIL)
		add_target(query, (Expr *) makeBoolConst(true, false), false);
	above = pgt_tree_wrap(query);
	above->targetList = shown;
	above->windowClause = windows;
	above->hasWindowFuncs = windows != NIL;
	above->hasTargetSRFs = expression_returns_set((Node *) shown);
	query->hasTargetSRFs = expression_returns_set((Node *) query->targetList);
	above->hasSubLinks = query->hasSubLinks && checkExprHasSubLink((Node *) shown);
	foreach (lc, query->windowClause)
		add_referenced(query, lfirst_node(WindowClause, lc)->orderClause, targets, true);
	return above;
}

/* Target entries over what the lower query shows. */
static List *
raise_targets(AtomContext *context, List *targets)
{
	List *raised = NIL;
	ListCell *lc;

	foreach (lc, targets)
	{
		TargetEntry *tle = flatCopyTargetEntry(lfirst_node(TargetEntry, lc));

		tle->expr = (Expr *) atom_mutator((Node *) tle->expr, context);
		raised = lappend(raised, tle);
	}
	return raised;
}

/*
 * Groups below, above them what asks subqueries: HAVING becomes WHERE, so that
 * groups are maintained without it.
 */
static Query *
peel_answers(Query *query)
{
	List *targets = query->targetList;
	Node *having = query->havingQual;
	AtomContext context = {.lower = query, .groups = true};
	Query *above;
	List *shown;

	query->targetList = NIL;
	query->havingQual = NULL;
	add_referenced(query, query->groupClause, targets, false);
	context.whole = pgt_window_expressions(query->groupClause, targets);
	shown = raise_targets(&context, targets);
	having = atom_mutator(having, &context);
	if (query->targetList == NIL)
		add_target(query, (Expr *) makeBoolConst(true, false), false);
	above = pgt_tree_wrap(query);
	above->targetList = shown;
	above->jointree->quals = having;
	above->sortClause = query->sortClause;
	query->sortClause = NIL;
	above->hasSubLinks = true;
	return above;
}

/* The primary keys of the tables in FROM, so that its rows can be told apart. */
static void
show_keys(Query *query)
{
	ListCell *lc;
	ListCell *lk;

	foreach (lc, pgt_tree_rtindexes((Node *) query->jointree))
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);

		if (rte->rtekind != RTE_RELATION)
			continue;
		foreach (lk, pgt_key_primary_columns(rte->relid))
		{
			AttrNumber attnum = lfirst_int(lk);
			Oid type;
			int32 typmod;
			Oid collation;
			Var *var;
			bool shown = false;
			ListCell *lt;

			get_atttypetypmodcoll(rte->relid, attnum, &type, &typmod, &collation);
			var = makeVar(lfirst_int(lc), attnum, type, typmod, collation, 0);
			foreach (lt, query->targetList)
				shown = shown || equal(lfirst_node(TargetEntry, lt)->expr, var);
			if (!shown)
				add_target(query, (Expr *) var, false);
		}
	}
}

typedef struct DependentColumns
{
	List *known; /* group keys, and what was found */
	List *found;
} DependentColumns;

/* Columns outside of aggregates that are no group keys. */
static bool
dependent_walker(Node *node, void *context)
{
	DependentColumns *columns = context;
	ListCell *lc;

	if (node == NULL || IsA(node, Aggref))
		return false;
	foreach (lc, columns->known)
		if (equal(lfirst(lc), node))
			return false;
	if (IsA(node, Var))
	{
		columns->known = lappend(columns->known, node);
		columns->found = lappend(columns->found, node);
		return false;
	}
	return expression_tree_walker(node, dependent_walker, context);
}

/*
 * Columns that a primary key among the group keys determines are group keys of
 * their own where the rows come from a subquery.
 */
static void
group_dependent(Query *query)
{
	DependentColumns columns = {
		.known = pgt_window_expressions(query->groupClause, query->targetList)};
	ListCell *lc;

	(void) dependent_walker((Node *) query->targetList, &columns);
	(void) dependent_walker(query->havingQual, &columns);
	foreach (lc, columns.found)
	{
		Expr *expr = lfirst(lc);
		TargetEntry *tle = tlist_member(expr, query->targetList);
		SortGroupClause *clause = makeNode(SortGroupClause);

		get_sort_group_operators(exprType((Node *) expr), false, false, false, &clause->sortop,
								 &clause->eqop, NULL, &clause->hashable);
		if (!OidIsValid(clause->eqop))
			continue;
		if (tle == NULL)
		{
			tle = makeTargetEntry(copyObject(expr), list_length(query->targetList) + 1, NULL, true);
			query->targetList = lappend(query->targetList, tle);
		}
		clause->tleSortGroupRef = assignSortGroupRef(tle, query->targetList);
		query->groupClause = lappend(query->groupClause, clause);
	}
}

/* The rows that are grouped below, with what subqueries answer for them. */
static Query *
peel_core(Query *query)
{
	Query *lower = makeNode(Query);
	AtomContext context = {.lower = lower, .sublinks = true};
	Query *above;
	List *shown;
	Node *having;

	lower->commandType = CMD_SELECT;
	lower->querySource = QSRC_ORIGINAL;
	lower->canSetTag = true;
	lower->rtable = query->rtable;
	lower->jointree = query->jointree;
	lower->hasSubLinks = true;
	shown = raise_targets(&context, query->targetList);
	having = atom_mutator(query->havingQual, &context);
	show_keys(lower);
	if (lower->targetList == NIL)
		add_target(lower, (Expr *) makeBoolConst(true, false), false);
	above = pgt_tree_wrap(lower);
	query->rtable = above->rtable;
	query->jointree = above->jointree;
	query->targetList = shown;
	query->havingQual = having;
	query->hasSubLinks = false;
	if (query->groupClause != NIL)
		group_dependent(query);
	return query;
}

/* Functions of the select list above; below groups and windows, that they are computed from. */
Query *
pgt_layer_peel_srfs(Query *query)
{
	return peel_windows(query, NIL);
}

/* ---- Which ---- */

static bool
hides(const Query *query, List *clauses)
{
	ListCell *lc;

	foreach (lc, clauses)
		if (get_sortgroupclause_tle(lfirst(lc), query->targetList)->resjunk)
			return true;
	return false;
}

/* Clauses of the common partition columns that the output does not show. */
static List *
hidden_partition(Query *query)
{
	List *common = pgt_window_common_partition(query->windowClause, query);
	List *hidden = NIL;
	ListCell *lc;

	foreach (lc, query->windowClause == NIL
					 ? NIL
					 : linitial_node(WindowClause, query->windowClause)->partitionClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		Expr *expr = get_sortgroupclause_tle(clause, query->targetList)->expr;
		bool shown = false;
		ListCell *lt;

		foreach (lt, query->targetList)
		{
			TargetEntry *tle = lfirst_node(TargetEntry, lt);

			shown = shown || (!tle->resjunk && equal(tle->expr, expr));
		}
		if (!shown && list_member(common, expr))
			hidden = lappend(hidden, clause);
	}
	return hidden;
}

/* The only entry of FROM, or NULL. */
static RangeTblEntry *
only_entry(const Query *query)
{
	List *fromlist = query->jointree->fromlist;

	if (query->setOperations != NULL || list_length(fromlist) != 1 ||
		!IsA(linitial(fromlist), RangeTblRef))
		return NULL;
	return rt_fetch(linitial_node(RangeTblRef, fromlist)->rtindex, query->rtable);
}

static bool
sorts_by_columns(const Query *query)
{
	ListCell *lc;

	foreach (lc, query->sortClause)
		if (!IsA(get_sortgroupclause_expr(lfirst(lc), query->targetList), Var))
			return false;
	return true;
}

/*
 * Do the rows under a LIMIT stand in one table, which an index may keep in
 * order: a base table, or a stage whose columns are the sort keys? Storing
 * them once more would be a plain copy.
 */
bool
pgt_layer_is_stored_below(Query *query)
{
	RangeTblEntry *rte = only_entry(query);

	if (pgt_stage_is_group(query) || query->distinctClause != NIL || query->hasWindowFuncs ||
		query->hasTargetSRFs || rte == NULL || pgt_flatten_asks(query))
		return false;
	if (rte->rtekind == RTE_RELATION)
		return true;
	if (rte->rtekind != RTE_SUBQUERY)
		return false;
	if (pgt_stage_is_closed(rte->subquery))
		return sorts_by_columns(query);
	return pgt_layer_is_stored_below(rte->subquery);
}

/* Does the output of groups ask subqueries, besides what aggregates are about? */
static bool
sublink_beside_walker(Node *node, void *context)
{
	if (node == NULL || IsA(node, Query) || IsA(node, Aggref))
		return false;
	if (IsA(node, SubLink))
		return true;
	return expression_tree_walker(node, sublink_beside_walker, context);
}

static bool
shows_sublink(Query *query)
{
	ListCell *lc;

	foreach (lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if ((tle->ressortgroupref == 0 ||
			 get_sortgroupref_clause_noerr(tle->ressortgroupref, query->groupClause) == NULL) &&
			sublink_beside_walker((Node *) tle->expr, NULL))
			return true;
	}
	return false;
}

/*
 * Takes the topmost layer off, if there is something below it. *store: what is
 * below has to be stored, whatever it is.
 */
Query *
pgt_layer_peel(Query *query, bool *store)
{
	bool group = pgt_stage_is_group(query);
	bool asks = pgt_flatten_asks(query);
	List *hidden;

	pgt_window_tidy(query);
	if (pgt_layer_has_limit(query) && !pgt_layer_is_stored_below(query))
	{
		*store = true;
		return peel_limit(query);
	}
	if (query->distinctClause != NIL && (group || query->hasWindowFuncs || asks))
		return pgt_layer_peel(peel_distinct(query), store);
	if (query->hasWindowFuncs)
	{
		List *top = pgt_window_top(query);

		if (group || asks)
			top = query->windowClause;
		if (group || asks || list_length(top) < list_length(query->windowClause))
			return pgt_layer_peel(peel_windows(query, top), store);
	}
	if (group && (pgt_flatten_has_sublink(query->havingQual) || shows_sublink(query)))
		return pgt_layer_peel(peel_answers(query), store);
	if (group && asks)
	{
		*store = true;
		query = peel_core(query);
	}
	hidden = hidden_partition(query);
	if (hidden != NIL)
		return peel_projection(query, hidden);
	if (query->hasDistinctOn && hides(query, query->distinctClause))
		return peel_projection(query, query->distinctClause);
	if (group && hides(query, query->groupClause))
		return peel_projection(query, query->groupClause);
	return query;
}
