/*
 * support.c: what is refused, what is maintained, and why something is not.
 *
 * Decided by resolved oids and node types, never by names. A reason is a
 * clause that explain_refresh_mode shows to the user; the first one found
 * makes the whole query FULL.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "pgt_guc.h"

#include "delta_internal.h"

const char *(*pgt_delta_source_reason)(Oid relid) = NULL;

/* ---- What is refused outright ---- */

static void
refuse(const char *construct, const char *reason, int location, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("a stream table cannot be defined by a query with %s", construct),
					reason != NULL ? errdetail("%s", reason) : 0,
					location >= 0 ? errposition(location + 1) : 0, errhint("%s", hint)));
}

/*
 * One expression grouped by under two names: which of the two is NULL in a set
 * is kept by the server's tree of the query, and lost in its text.
 */
static void
refuse_double_groups(Query *query)
{
	List *exprs = NIL;
	ListCell *lc;
	ListCell *le;

	if (query->groupingSets == NIL)
		return;
	foreach (lc, query->groupClause)
	{
		Node *expr = get_sortgroupclause_expr(lfirst(lc), query->targetList);

		foreach (le, exprs)
		{
			if (equal(lfirst(le), expr))
				refuse("an expression grouped by twice in GROUPING SETS, ROLLUP or CUBE",
					   "PostgreSQL cannot write down which of the two is meant.",
					   exprLocation(lfirst(le)),
					   "Group by the expression once, and show it twice.");
		}
		exprs = lappend(exprs, expr);
	}
}

static bool
refuse_walker(Node *node, void *context)
{
	ListCell *lc;

	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind == RTE_RELATION && get_rel_persistence(rte->relid) == RELPERSISTENCE_TEMP)
			refuse("temporary tables",
				   "Other sessions, and the scheduler among them, could not refresh it.", -1,
				   "Use a permanent table.");
		return false;
	}
	if (IsA(node, Query))
	{
		Query *query = (Query *) node;

		if (query->commandType != CMD_SELECT || query->hasModifyingCTE ||
			query->utilityStmt != NULL)
			refuse("data-modifying statements", "Every refresh would run them again.",
				   query->cteList != NIL ? linitial_node(CommonTableExpr, query->cteList)->location
										 : -1,
				   "Use a plain SELECT.");
		refuse_double_groups(query);
		if (query->rowMarks != NIL)
			foreach (lc, query->rowMarks)
				if (!lfirst_node(RowMarkClause, lc)->pushedDown)
					refuse("FOR UPDATE or FOR SHARE",
						   "Rows of the sources are not locked by a refresh.", -1,
						   "Leave the locking clause out.");
		return query_tree_walker(query, refuse_walker, context, QTW_EXAMINE_RTES_BEFORE);
	}
	return expression_tree_walker(node, refuse_walker, context);
}

static void
check_output_types(Query *query)
{
	ListCell *lc;

	foreach (lc, pgt_tree_outputs(query))
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Oid type = exprType((Node *) tle->expr);

		if (get_typtype(type) == TYPTYPE_PSEUDO)
			ereport(ERROR, (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
							errmsg("column \"%s\" of the query has pseudo-type %s", tle->resname,
								   format_type_be(type)),
							errdetail("A table cannot have such a column."),
							errposition(exprLocation((Node *) tle->expr) + 1),
							errhint("Cast the column to a type that a table can store.")));
	}
}

void
pgt_support_check_refused(Query *query)
{
	char *function;
	int location;

	(void) refuse_walker((Node *) query, NULL);
	check_output_types(query);
	if (pgt_guc_volatile_policy == PGT_VOLATILE_ALLOW)
		return;
	function = pgt_volatile_find(query, PROVOLATILE_VOLATILE, &location);
	if (function != NULL)
		ereport(
			pgt_guc_volatile_policy == PGT_VOLATILE_REJECT ? ERROR : WARNING,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the defining query calls volatile function %s", function),
			 errdetail(
				 "Its result would differ from one refresh to the next without any change of the sources."),
			 location >= 0 ? errposition(location + 1) : 0,
			 errhint(
				 "Use an immutable function, or set pg_trickle.volatile_function_policy to allow.")));
}

/* ---- What is maintained ---- */

void
pgt_support_add(PgtDefinition *definition, const char *construct, const char *technique,
				const char *reason, int position)
{
	PgtFinding *finding = palloc0(sizeof(PgtFinding));
	ListCell *lc;

	foreach (lc, definition->findings)
	{
		PgtFinding *other = lfirst(lc);

		if (strcmp(other->construct, construct) == 0 && (other->reason == NULL) == (reason == NULL))
			return;
	}
	finding->construct = construct;
	finding->incremental = reason == NULL;
	finding->technique = technique;
	finding->reason = reason;
	finding->position = position >= 0 ? position + 1 : 0;
	definition->findings = lappend(definition->findings, finding);
	if (reason != NULL && definition->full_reason == NULL)
	{
		definition->full_reason = pstrdup(reason);
		definition->full_position = finding->position;
	}
}

static void
unsupported(PgtDefinition *definition, const char *construct, int position)
{
	pgt_support_add(definition, construct, NULL,
					psprintf("%s is not maintained incrementally", construct), position);
}

typedef struct ExpressionContext
{
	PgtDefinition *definition;
	Query *query;
	Oid owner;
} ExpressionContext;

static void check_query(PgtDefinition *definition, Query *query, Oid owner);

/* Is there a LIMIT or OFFSET of which a subquery tells how many rows? */
static bool
asked_limit_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, asked_limit_walker, context);
	return pgt_flatten_has_sublink(((Query *) node)->limitCount) ||
		   pgt_flatten_has_sublink(((Query *) node)->limitOffset) ||
		   query_tree_walker((Query *) node, asked_limit_walker, context, 0);
}

/* A subquery that is run for rows of others, so that it is no stage. */
static void
check_asked_limit(PgtDefinition *definition, Query *query, int location)
{
	if (asked_limit_walker((Node *) query, NULL))
		pgt_support_add(definition, "LIMIT of a subquery in an expression", NULL,
						"how many rows there are is itself the result of a subquery", location);
}

/* Constructs within the expressions of one query level. */
static bool
expression_walker(Node *node, void *context)
{
	ExpressionContext *ctx = context;

	if (node == NULL || IsA(node, Query))
		return false;
	if (IsA(node, SubLink))
	{
		bool join = ((SubLink *) node)->subLinkId == PGT_SUBLINK_JOIN;

		pgt_support_add(ctx->definition, pgt_sublink_name((SubLink *) node),
						join ? "linear" : "affected-key recompute", NULL, exprLocation(node));
		check_asked_limit(ctx->definition, castNode(Query, ((SubLink *) node)->subselect),
						  exprLocation(node));
		check_query(ctx->definition, castNode(Query, ((SubLink *) node)->subselect), ctx->owner);
	}
	else if (IsA(node, WindowFunc))
		pgt_support_add(ctx->definition, "window function", "affected partitions", NULL, -1);
	else if (IsA(node, GroupingFunc) && ((GroupingFunc *) node)->agglevelsup == 0)
		pgt_support_add(ctx->definition, "GROUPING()", "as part of GROUPING SETS", NULL, -1);
	else if (IsA(node, Var))
	{
		Var *var = (Var *) node;
		RangeTblEntry *rte;

		if (var->varlevelsup > 0)
		{
			if (var->varattno <= 0)
				unsupported(ctx->definition, "system column or whole row of an outer query",
							exprLocation(node));
			return false;
		}
		rte = rt_fetch(var->varno, ctx->query->rtable);
		if (var->varattno == TableOidAttributeNumber &&
			pgt_rewrite_is_one_table(ctx->query, var->varno))
			pgt_support_add(ctx->definition, "tableoid of a plain table", "a constant", NULL, -1);
		else if (var->varattno < 0)
			unsupported(ctx->definition, "system column", exprLocation(node));
		else if (var->varattno == 0 && pgt_flatten_is_dependent(rte))
			unsupported(ctx->definition, "whole row of a LATERAL subquery", exprLocation(node));
		else if (var->varattno == 0 && rte->rtekind != RTE_JOIN)
			pgt_support_add(ctx->definition, "whole-row reference", "as a row of its columns", NULL,
							-1);
	}
	return expression_tree_walker(node, expression_walker, context);
}

/*
 * Kinds of rows that a join tree can emit, present and absent sides, and how
 * many of them a change of one leaf can touch: what fragment.c will make, at most.
 */
typedef struct Kinds
{
	int all;
	int touched;
} Kinds;

#define MANY_KINDS 1000

static Kinds count_kinds_of_query(Query *query);

static Kinds
count_kinds(Query *query, Node *node)
{
	Kinds kinds = {1, 1};
	ListCell *lc;

	if (IsA(node, RangeTblRef))
	{
		RangeTblEntry *rte = rt_fetch(((RangeTblRef *) node)->rtindex, query->rtable);

		/* Set operations are stored, but for UNION ALL. */
		return rte->rtekind == RTE_SUBQUERY && (rte->subquery->setOperations == NULL ||
												pgt_tree_is_union_all(rte->subquery))
				   ? count_kinds_of_query(rte->subquery)
				   : kinds;
	}
	if (IsA(node, FromExpr))
	{
		foreach (lc, ((FromExpr *) node)->fromlist)
		{
			Kinds next = count_kinds(query, lfirst(lc));

			kinds.touched = Min(Max(kinds.touched * next.all, kinds.all * next.touched),
								MANY_KINDS);
			kinds.all = Min(kinds.all * next.all, MANY_KINDS);
		}
		return kinds;
	}
	else
	{
		JoinExpr *join = castNode(JoinExpr, node);
		Kinds left = count_kinds(query, join->larg);
		Kinds right = count_kinds(query, join->rarg);
		bool left_alone = join->jointype == JOIN_LEFT || join->jointype == JOIN_FULL;
		bool right_alone = join->jointype == JOIN_RIGHT || join->jointype == JOIN_FULL;
		int by_left = left.touched * right.all * (right_alone ? 2 : 1) +
					  (left_alone ? left.touched : 0);
		int by_right = right.touched * left.all * (left_alone ? 2 : 1) +
					   (right_alone ? right.touched : 0);

		kinds.touched = Min(Max(by_left, by_right), MANY_KINDS);
		kinds.all = Min(left.all * right.all + (left_alone ? left.all : 0) +
							(right_alone ? right.all : 0),
						MANY_KINDS);
		return kinds;
	}
}

static Kinds
count_kinds_of_query(Query *query)
{
	Kinds kinds = {0, 0};
	ListCell *lc;

	/* What groups or makes distinct is stored: one kind. */
	if (pgt_stage_is_closed(query))
		return (Kinds){1, 1};
	if (query->setOperations == NULL)
		return count_kinds(query, (Node *) query->jointree);
	foreach (lc, pgt_tree_arm_rtindexes(query))
	{
		Kinds arm = count_kinds_of_query(rt_fetch(lfirst_int(lc), query->rtable)->subquery);

		kinds.all = Min(kinds.all + arm.all, MANY_KINDS);
		kinds.touched = Max(kinds.touched, arm.touched);
	}
	return kinds;
}

/* May the role read the columns that the query uses, without any view? */
static bool
may_read(PgtDefinition *definition, Oid relid, Oid role)
{
	ListCell *lc;

	if (pg_class_aclcheck(relid, role, ACL_SELECT) == ACLCHECK_OK)
		return true;
	if (pg_attribute_aclcheck_all(relid, role, ACL_SELECT, ACLMASK_ANY) != ACLCHECK_OK)
		return false;
	foreach (lc, definition->sources)
	{
		PgtSourceUse *use = lfirst(lc);
		int column = -1;

		while (use->relid == relid && (column = bms_next_member(use->columns, column)) > 0)
			if (pg_attribute_aclcheck(relid, column, role, ACL_SELECT) != ACLCHECK_OK)
				return false;
	}
	return true;
}

static void
check_relation(PgtDefinition *definition, RangeTblEntry *rte, Oid owner)
{
	const char *reason = pgt_delta_source_reason != NULL ? pgt_delta_source_reason(rte->relid)
														 : NULL;

	if (reason != NULL)
		pgt_support_add(definition, psprintf("table \"%s\"", get_rel_name(rte->relid)), NULL,
						reason, -1);
	else if (rte->tablesample != NULL)
		pgt_support_add(definition, "TABLESAMPLE", NULL,
						psprintf("TABLESAMPLE of table \"%s\" is not maintained incrementally",
								 get_rel_name(rte->relid)),
						exprLocation((Node *) rte->tablesample->args));
	else if (!rte->inh && has_subclass(rte->relid))
		/* The server does not keep where ONLY stands. */
		pgt_support_add(definition, "ONLY over a table with children", NULL,
						psprintf("ONLY over table \"%s\", which has children, is not maintained "
								 "incrementally",
								 get_rel_name(rte->relid)),
						-1);
	else if (OidIsValid(owner) && !may_read(definition, rte->relid, owner))
		pgt_support_add(
			definition, psprintf("table \"%s\"", get_rel_name(rte->relid)), NULL,
			psprintf("the owner of the stream table may read table \"%s\" only through a view",
					 get_rel_name(rte->relid)),
			-1);
}

/* Its columns are made from text. */
static void
check_table_function(PgtDefinition *definition, RangeTblEntry *rte)
{
	ListCell *lc;

	foreach (lc, rte->tablefunc->coltypes)
	{
		Oid input;
		Oid parameter;

		getTypeInputInfo(lfirst_oid(lc), &input, &parameter);
		if (func_volatile(input) == PROVOLATILE_IMMUTABLE)
			continue;
		pgt_support_add(
			definition, "XMLTABLE or JSON_TABLE", NULL,
			psprintf("reading type %s depends on settings", format_type_be(lfirst_oid(lc))),
			exprLocation((Node *) rte->tablefunc));
		return;
	}
	pgt_support_add(definition, "XMLTABLE or JSON_TABLE", "linear", NULL, -1);
}

static void
check_entry(PgtDefinition *definition, RangeTblEntry *rte, Oid owner)
{
	switch (rte->rtekind)
	{
		case RTE_RELATION:
			check_relation(definition, rte, owner);
			break;
		case RTE_SUBQUERY:
			if (pgt_flatten_is_dependent(rte))
			{
				pgt_support_add(definition, "LATERAL subquery",
								pgt_lateral_is_join(rte) ? "as part of the join"
														 : "affected-key recompute",
								NULL, -1);
				check_asked_limit(definition, rte->subquery, -1);
			}
			else if (pgt_tree_is_function(rte))
				pgt_support_add(definition, "LATERAL subquery without tables", "linear", NULL, -1);
			break;
		case RTE_FUNCTION:
			if (contain_vars_of_level((Node *) rte->functions, 0))
				pgt_support_add(definition, "set-returning function of a column (LATERAL)",
								"linear", NULL, -1);
			break;
		case RTE_TABLEFUNC:
			check_table_function(definition, rte);
			break;
		case RTE_CTE:
			if (!pgt_recursion_is_self(rte))
				pgt_support_add(definition, "recursive WITH query", NULL, PGT_RECURSION_REASON, -1);
			break;
		case RTE_VALUES:
		case RTE_RESULT:
			break;
		default:
			unsupported(definition, "this kind of FROM item", -1);
			break;
	}
}

static void
check_setop(PgtDefinition *definition, Node *node)
{
	SetOperationStmt *stmt;

	if (!IsA(node, SetOperationStmt))
		return;
	stmt = (SetOperationStmt *) node;
	if (stmt->op == SETOP_UNION && stmt->all)
		pgt_support_add(definition, "UNION ALL", "linear", NULL, -1);
	else if (stmt->groupClauses == NIL)
		unsupported(definition, "set operation without columns", -1);
	else if (stmt->op == SETOP_UNION)
		pgt_support_add(definition, "UNION", "affected-key recompute", NULL, -1);
	else
		pgt_support_add(definition, stmt->op == SETOP_INTERSECT ? "INTERSECT" : "EXCEPT",
						"folded by group", NULL, -1);
	check_setop(definition, stmt->larg);
	check_setop(definition, stmt->rarg);
}

static void
check_limit(PgtDefinition *definition, Query *query)
{
	/* The server asks for no more rows than it needs, of a recursion that may have no end. */
	if (query->sortClause == NIL && pgt_recursion_is_read(query))
		unsupported(definition, "LIMIT without ORDER BY over a recursive WITH query", -1);
	pgt_support_add(definition,
					query->sortClause != NIL ? "ORDER BY with LIMIT (top-k)"
											 : "LIMIT without ORDER BY",
					"the first rows are read again", NULL, -1);
}

/* Set-returning functions of a select list become FROM items. */
static bool
target_srf_walker(Node *node, void *context)
{
	const char *construct = "set-returning function in the select list";
	PgtDefinition *definition = context;

	if (node == NULL || IsA(node, Query))
		return false;
	if ((IsA(node, FuncExpr) && ((FuncExpr *) node)->funcretset) ||
		(IsA(node, OpExpr) && ((OpExpr *) node)->opretset))
	{
		if (type_is_rowtype(exprType(node)))
			pgt_support_add(definition, construct, NULL,
							"a set of composite values in the select list is not maintained "
							"incrementally",
							exprLocation(node));
		else if (contain_subplans(node))
			unsupported(definition, "subquery in the arguments of a FROM item", exprLocation(node));
		else
			pgt_support_add(definition, construct, "linear", NULL, -1);
	}
	return expression_tree_walker(node, target_srf_walker, context);
}

/* Clauses of one query level. */
static void
check_clauses(PgtDefinition *definition, Query *query)
{
	const char *reason;
	int location;

	if (pgt_recursion_is(query))
	{
		reason = pgt_recursion_reason(query);
		pgt_support_add(definition, "recursive WITH query",
						reason == NULL ? "linear, in rounds" : NULL, reason, -1);
		return;
	}
	if (query->hasRecursive)
	{
		reason = pgt_recursion_closed_reason(query, &location);
		pgt_support_add(definition, "recursive WITH query", NULL, reason, location);
	}
	if (pgt_layer_has_limit(query))
		check_limit(definition, query);
	if (query->hasDistinctOn)
		pgt_support_add(definition, "DISTINCT ON", "affected-key recompute", NULL, -1);
	else if (query->distinctClause != NIL)
		pgt_support_add(definition, "DISTINCT", "affected-key recompute", NULL, -1);
	if (query->groupingSets != NIL)
		pgt_support_add(definition, "GROUPING SETS, ROLLUP or CUBE", "by group, one stage per set",
						NULL, -1);
	else if (query->groupClause != NIL)
		pgt_support_add(definition, "GROUP BY", "by group", NULL, -1);
	if (query->hasAggs)
		pgt_support_add(definition, "aggregate", "folded or recomputed by group", NULL, -1);
	if (query->havingQual != NULL)
		pgt_support_add(definition, "HAVING", "by group", NULL, -1);
	if (query->hasTargetSRFs)
	{
		(void) target_srf_walker((Node *) query->targetList, definition);
		/* Which of the two comes first depends on ORDER BY. */
		if (query->hasDistinctOn)
			unsupported(definition, "set-returning function in the select list of DISTINCT ON", -1);
	}
	if (query->setOperations != NULL)
		check_setop(definition, query->setOperations);
}

/* What FROM items that are no tables are computed from. */
static void
check_arguments(ExpressionContext *context, RangeTblEntry *rte)
{
	Node *arguments[] = {(Node *) rte->functions, (Node *) rte->values_lists,
						 (Node *) rte->tablefunc};

	for (int i = 0; i < lengthof(arguments); i++)
	{
		Node *link = pgt_flatten_find_sublink(arguments[i]);

		if (link != NULL)
			unsupported(context->definition, "subquery in the arguments of a FROM item",
						exprLocation(link));
		else
			(void) expression_walker(arguments[i], context);
	}
}

static bool
has_inner_join(Node *node)
{
	ListCell *lc;

	if (IsA(node, FromExpr))
	{
		foreach (lc, ((FromExpr *) node)->fromlist)
			if (has_inner_join(lfirst(lc)))
				return true;
		return list_length(((FromExpr *) node)->fromlist) > 1;
	}
	return IsA(node, JoinExpr) &&
		   (((JoinExpr *) node)->jointype == JOIN_INNER ||
			has_inner_join(((JoinExpr *) node)->larg) || has_inner_join(((JoinExpr *) node)->rarg));
}

static void
check_query(PgtDefinition *definition, Query *query, Oid owner)
{
	ExpressionContext context = {definition, query, owner};
	List *rtindexes;
	ListCell *lc;

	check_stack_depth();
	check_clauses(definition, query);
	expression_walker((Node *) query->targetList, &context);
	expression_walker(query->havingQual, &context);
	expression_walker(query->limitOffset, &context);
	expression_walker(query->limitCount, &context);
	if (query->setOperations == NULL)
	{
		expression_walker((Node *) query->jointree, &context);
		rtindexes = pgt_tree_rtindexes((Node *) query->jointree);
		if (has_inner_join((Node *) query->jointree))
			pgt_support_add(definition, "inner join", "linear", NULL, -1);
	}
	else
		rtindexes = pgt_tree_arm_rtindexes(query);
	foreach (lc, rtindexes)
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);

		check_entry(definition, rte, owner);
		check_arguments(&context, rte);
		if (rte->rtekind == RTE_SUBQUERY)
		{
			if (query->setOperations == NULL)
				pgt_support_add(definition, "subquery, view or WITH item in FROM",
								"as part of the query, or as a stage", NULL, -1);
			check_query(definition, rte->subquery, owner);
		}
	}
	if (definition->full_reason == NULL && pgt_tree_has_outer_join(query))
	{
		Kinds kinds = query->setOperations == NULL ? count_kinds(query, (Node *) query->jointree)
												   : count_kinds_of_query(query);

		pgt_support_add(definition, "outer join", "affected-key recompute", NULL, -1);
		if (Max(kinds.all, kinds.touched) > pgt_fragment_limit())
			pgt_support_add(
				definition, "many outer joins", NULL,
				"the outer joins make too many combinations of present and absent sides", -1);
	}
}

/* Findings for every construct; false if the query can only be refreshed in FULL. */
bool
pgt_support_check(Query *query, PgtDefinition *definition, Oid owner)
{
	char *function;
	int location;

	pgt_support_add(definition, "SELECT, WHERE", "linear", NULL, -1);
	check_query(definition, query, owner);
	function = pgt_volatile_find(query, PROVOLATILE_VOLATILE, &location);
	if (function != NULL)
		pgt_support_add(definition, psprintf("function %s", function), NULL,
						psprintf("volatile function %s", function), location);
	function = pgt_volatile_find(query, PROVOLATILE_STABLE, &location);
	if (function != NULL)
		pgt_support_add(
			definition, psprintf("function %s", function), NULL,
			psprintf("the result of %s changes without any change of the sources", function),
			location);
	return definition->full_reason == NULL;
}

/* ---- What is read ---- */

typedef struct SourceContext
{
	List *queries; /* from the outermost */
	List *sources;
} SourceContext;

static PgtSourceUse *
get_source(SourceContext *context, Oid relid, char relkind)
{
	PgtSourceUse *source;
	ListCell *lc;

	foreach (lc, context->sources)
	{
		source = lfirst(lc);
		if (source->relid == relid)
			return source;
	}
	source = palloc0(sizeof(PgtSourceUse));
	source->relid = relid;
	source->relkind = relkind;
	source->is_view = relkind == RELKIND_VIEW;
	context->sources = lappend(context->sources, source);
	return source;
}

static void
note_column(SourceContext *context, const Var *var)
{
	int level = list_length(context->queries) - 1 - (int) var->varlevelsup;
	Query *query;
	RangeTblEntry *rte;
	PgtSourceUse *source;

	if (level < 0)
		return;
	query = list_nth(context->queries, level);
	rte = rt_fetch(var->varno, query->rtable);
	if (rte->rtekind != RTE_RELATION || rte->relkind == RELKIND_VIEW || pgt_stage_of_entry(rte) > 0)
		return;
	source = get_source(context, rte->relid, rte->relkind);
	if (var->varattno > 0)
		source->columns = bms_add_member(source->columns, var->varattno);
	else if (var->varattno == 0)
		for (int i = 1; i <= list_length(rte->eref->colnames); i++)
			if (!get_rte_attribute_is_dropped(rte, i))
				source->columns = bms_add_member(source->columns, i);
}

static bool
source_walker(Node *node, void *context)
{
	SourceContext *ctx = context;
	bool result;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		note_column(ctx, (Var *) node);
		return false;
	}
	if (IsA(node, RangeTblRef))
	{
		Query *query = llast(ctx->queries);
		RangeTblEntry *rte = rt_fetch(((RangeTblRef *) node)->rtindex, query->rtable);

		if (rte->rtekind == RTE_RELATION && pgt_stage_of_entry(rte) == 0)
			(void) get_source(ctx, rte->relid, rte->relkind);
		return false;
	}
	if (IsA(node, Query))
	{
		ctx->queries = lappend(ctx->queries, node);
		result = query_tree_walker((Query *) node, source_walker, context, QTW_IGNORE_JOINALIASES);
		ctx->queries = list_delete_last(ctx->queries);
		return result;
	}
	return expression_tree_walker(node, source_walker, context);
}

/* Relations that the query reads, and the views that it names. */
List *
pgt_support_collect_sources(Query *original, Query *normalized)
{
	SourceContext context = {NIL, NIL};
	SourceContext named = {NIL, NIL};
	ListCell *lc;

	(void) source_walker((Node *) normalized, &context);
	(void) source_walker((Node *) original, &named);
	foreach (lc, named.sources)
	{
		PgtSourceUse *source = lfirst(lc);

		if (source->is_view)
			(void) get_source(&context, source->relid, source->relkind);
	}
	return context.sources;
}

/* Stages may use more columns than the query: keys, to tell rows apart. */
void
pgt_support_add_columns(PgtDefinition *definition)
{
	SourceContext context = {NIL, definition->sources};
	ListCell *lc;

	foreach (lc, definition->stages)
		(void) source_walker((Node *) ((PgtStage *) lfirst(lc))->query, &context);
	definition->sources = context.sources;
}
