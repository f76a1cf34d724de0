/*
 * recursion.c: recursive WITH items whose step refers to the item once, in a join.
 *
 * Such an item is a stage: seed UNION ALL step, where the step reads the stage's own
 * rows. Its change follows from that of the sources by iteration (semi-naive evaluation
 * as in DBSP, Budiu et al., VLDB 2023): the first rows are the signed terms of the union
 * over the stored rows, each further round is the step of the round before, over the new
 * state of the sources, weights and all. The server's own recursion does the rounds: a
 * refresh runs one statement, WITH RECURSIVE over a WITH item that has the name of a delta.
 *
 * Rows that went are followed through the new state of the sources, too, and these may
 * have a cycle that the query itself no longer reaches. So the rounds end at a number of
 * rows or a size of files (paths get longer with each round), and then the refresh
 * computes everything.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"

#include "delta_internal.h"

/* What the item is called in itself, from normalization until it is a stage. */
#define SELF "pgt_recursion"

bool
pgt_recursion_is(const Query *query)
{
	return query->hasRecursive && query->cteList == NIL && query->setOperations != NULL;
}

bool
pgt_recursion_is_read(const Query *query)
{
	ListCell *lc;

	foreach (lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_SUBQUERY &&
			(pgt_recursion_is(rte->subquery) || pgt_recursion_is_read(rte->subquery)))
			return true;
	}
	return false;
}

bool
pgt_recursion_is_self(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_CTE && rte->self_reference && strcmp(rte->ctename, SELF) == 0;
}

/* ---- Before: WITH items that can become subqueries ---- */

typedef struct SelfContext
{
	const char *name;
	int depth; /* levels below the query that has the WITH */
	List *entries;
} SelfContext;

static bool
self_walker(Node *node, void *context)
{
	SelfContext *ctx = context;

	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind == RTE_CTE && rte->ctelevelsup == ctx->depth &&
			strcmp(rte->ctename, ctx->name) == 0)
			ctx->entries = lappend(ctx->entries, rte);
		return false;
	}
	if (IsA(node, Query))
	{
		bool result;

		ctx->depth++;
		result = query_tree_walker((Query *) node, self_walker, context, QTW_EXAMINE_RTES_BEFORE);
		ctx->depth--;
		return result;
	}
	return expression_tree_walker(node, self_walker, context);
}

/* Is it seed UNION ALL step, and nothing else; where does the step name the item? */
static RangeTblEntry *
find_self(CommonTableExpr *cte)
{
	Query *query = castNode(Query, cte->ctequery);
	SelfContext context = {cte->ctename, 0, NIL};
	SetOperationStmt *top;
	Query *step;
	ListCell *lc;

	if (!pgt_tree_is_union_all(query) || query->cteList != NIL || query->sortClause != NIL ||
		pgt_layer_has_limit(query) || cte->search_clause != NULL || cte->cycle_clause != NULL)
		return NULL;
	top = castNode(SetOperationStmt, query->setOperations);
	if (!IsA(top->rarg, RangeTblRef))
		return NULL;
	(void) self_walker((Node *) query, &context);
	if (list_length(context.entries) != 1)
		return NULL;
	step = rt_fetch(((RangeTblRef *) top->rarg)->rtindex, query->rtable)->subquery;
	foreach (lc, pgt_tree_rtindexes((Node *) step->jointree))
		if (rt_fetch(lfirst_int(lc), step->rtable) == linitial(context.entries))
			return linitial(context.entries);
	return NULL;
}

/* Prepares the recursive ones of WITH items to become subqueries; false if one cannot. */
bool
pgt_recursion_open(List *ctes)
{
	ListCell *lc;

	foreach (lc, ctes)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);

		if (cte->cterecursive && find_self(cte) == NULL)
			return false;
	}
	foreach (lc, ctes)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);
		RangeTblEntry *self;

		if (!cte->cterecursive)
			continue;
		self = find_self(cte);
		self->ctename = pstrdup(SELF);
		self->ctelevelsup = 0;
		self->self_reference = true;
		castNode(Query, cte->ctequery)->hasRecursive = true;
	}
	return true;
}

/* Why the recursive WITH items of a query were not opened, and where that is. */
const char *
pgt_recursion_closed_reason(Query *query, int *location)
{
	ListCell *lc;

	*location = -1;
	foreach (lc, query->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);

		if (!cte->cterecursive || find_self(cte) != NULL)
			continue;
		*location = cte->location;
		if (cte->cycle_clause != NULL)
		{
			*location = cte->cycle_clause->location;
			return "CYCLE of a recursive WITH query is not maintained incrementally";
		}
		if (cte->search_clause != NULL)
		{
			*location = cte->search_clause->location;
			return "SEARCH of a recursive WITH query is not maintained incrementally";
		}
		break;
	}
	return PGT_RECURSION_REASON;
}

/* ---- Normalized ---- */

/* Are its rows signed rows of what it reads? If arm, also where it would be a stage otherwise. */
static bool
is_linear(Query *query, bool arm)
{
	ListCell *lc;

	if (!arm && pgt_stage_is_closed(query))
		return true;
	if (query->setOperations == NULL &&
		(pgt_stage_is_closed(query) || query->hasTargetSRFs || query->hasSubLinks ||
		 pgt_tree_has_outer_join(query) || pgt_flatten_is_needed(query)))
		return false;
	if (query->setOperations != NULL && (arm || !pgt_tree_is_union_all(query)))
		return false;
	foreach (lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_SUBQUERY && rte->subquery != NULL &&
			!is_linear(rte->subquery, false))
			return false;
	}
	return true;
}

/* Why the changes of a recursion cannot be iterated; NULL if they can. */
const char *
pgt_recursion_reason(Query *query)
{
	ListCell *lc;

	if (pgt_tree_has_outer_vars(query))
		return PGT_RECURSION_REASON;
	foreach (lc, pgt_tree_arm_rtindexes(query))
		if (!is_linear(rt_fetch(lfirst_int(lc), query->rtable)->subquery, true))
			return PGT_RECURSION_REASON;
	return NULL;
}

/* Where the step reads the recursion. */
RangeTblEntry *
pgt_recursion_self(Query *query)
{
	ListCell *lc;
	ListCell *lr;

	foreach (lc, pgt_tree_arm_rtindexes(query))
		foreach (lr, rt_fetch(lfirst_int(lc), query->rtable)->subquery->rtable)
			if (pgt_recursion_is_self(lfirst(lr)))
				return lfirst(lr);
	elog(ERROR, "a recursion does not read itself");
	return NULL;
}

/* ---- The statements of its stage ---- */

static char *
column_list(int ncolumns)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 1; i <= ncolumns; i++)
		appendStringInfo(&list, "%sc%d", i > 1 ? ", " : "", i);
	return list.data;
}

char *
pgt_recursion_emit_signed(const PgtStage *stage, EmitContext *context)
{
	int ncolumns = list_length(pgt_tree_outputs(stage->query));
	char *columns = column_list(ncolumns);
	ChangeShape *self = palloc0(sizeof(ChangeShape));
	EmitContext step = {list_make1(self)};
	char *first = pgt_emit_terms(stage->query, context);
	char *with = pgt_leaf_state_items(context);

	self->relid = stage->relid;
	self->ncolumns = ncolumns;
	self->attnums = palloc(sizeof(AttrNumber) * ncolumns);
	self->names = palloc(sizeof(char *) * ncolumns);
	for (int i = 0; i < ncolumns; i++)
	{
		self->attnums[i] = i + 1;
		self->names[i] = psprintf("c%d", i + 1);
	}
	/* pgt_delta_0: no change set has this number. */
	return psprintf("WITH RECURSIVE %s%spgt_delta_0(pgt_w, %s) AS (%s UNION ALL %s) "
					"SELECT pgt_w, %s FROM pgt_delta_0 LIMIT %d",
					with[0] != '\0' ? with + strlen("WITH ") : "", with[0] != '\0' ? ", " : "",
					columns, first, pgt_emit_terms(stage->query, &step), columns,
					PGT_RECURSION_ROWS);
}

char *
pgt_recursion_emit_all(const PgtStage *stage)
{
	char *columns = column_list(list_length(pgt_tree_outputs(stage->query)));
	StringInfoData arms;
	ListCell *lc;
	ListCell *lr;

	initStringInfo(&arms);
	foreach (lc, pgt_tree_union_arms(stage->query))
	{
		Query *arm = lfirst(lc);

		foreach (lr, arm->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lr);
			bool self = rte->rtekind == RTE_RELATION &&
						(pgt_stage_of_entry(rte) == 0 ? rte->relid == stage->relid
													  : rte->relid == stage->number);

			if (self)
				pgt_tree_name_input(rte, SELF, rte->eref->colnames);
		}
		appendStringInfo(&arms, "%s%s", arms.len > 0 ? " UNION ALL " : "",
						 pgt_tree_deparse(arm, NULL));
	}
	return psprintf("WITH RECURSIVE " SELF "(%s) AS (%s) SELECT %s FROM " SELF, columns, arms.data,
					columns);
}
