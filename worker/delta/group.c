/*
 * group.c: aggregate stages that can be folded (technique AGGREGATE).
 *
 * Whether an aggregate can be inverted exactly is PostgreSQL's own knowledge:
 * it can if the aggregate has an inverse transition function for moving
 * windows (pg_aggregate.aggminvtransfn) and a state that can be stored. Floats
 * have none, so they are recomputed.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "delta_internal.h"

typedef struct GroupContext
{
	List *keys;		   /* expressions */
	List *aggrefs;	   /* distinct Aggref nodes */
	bool other_column; /* a column that is neither key nor aggregate */
} GroupContext;

/* NULL if the aggregate's state can be kept and inverted, else why not. */
static const char *
reason_not_invertible(const Aggref *aggref)
{
	HeapTuple tuple;
	Form_pg_aggregate form;
	const char *reason = NULL;
	char *name = get_func_name(aggref->aggfnoid);

	if (aggref->aggdistinct != NIL || aggref->aggorder != NIL)
		return psprintf("%s with DISTINCT or ORDER BY cannot be inverted", name);
	if (aggref->aggkind != AGGKIND_NORMAL || list_length(aggref->args) > 8)
		return psprintf("aggregate %s cannot be inverted", name);
	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggref->aggfnoid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggref->aggfnoid);
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	if (!OidIsValid(form->aggminvtransfn))
		reason = psprintf("aggregate %s over %s has no inverse", name,
						  list_length(aggref->aggargtypes) > 0
							  ? format_type_be(linitial_oid(aggref->aggargtypes))
							  : "rows");
	else if (form->aggmtranstype == INTERNALOID &&
			 (form->aggmtransfn != form->aggtransfn || !OidIsValid(form->aggserialfn) ||
			  !OidIsValid(form->aggcombinefn)))
		reason = psprintf("the state of aggregate %s cannot be stored", name);
	else if (get_typtype(form->aggmtranstype) == TYPTYPE_PSEUDO &&
			 form->aggmtranstype != INTERNALOID)
		reason = psprintf("the state of aggregate %s has no fixed type", name);
	ReleaseSysCache(tuple);
	return reason;
}

static int
position_in(List *list, Node *node)
{
	int position = 0;
	ListCell *lc;

	foreach (lc, list)
	{
		if (equal(lfirst(lc), node))
			return position;
		position++;
	}
	return -1;
}

/* Keys and aggregates become columns of the group's row. */
static Node *
group_mutator(Node *node, void *context)
{
	GroupContext *ctx = context;
	int position;

	if (node == NULL)
		return NULL;
	position = position_in(ctx->keys, node);
	if (position < 0 && IsA(node, Aggref))
	{
		position = position_in(ctx->aggrefs, node);
		if (position < 0)
		{
			position = list_length(ctx->aggrefs);
			ctx->aggrefs = lappend(ctx->aggrefs, node);
		}
		position += list_length(ctx->keys);
	}
	if (position >= 0)
		return (Node *) makeVar(1, position + 1, exprType(node), exprTypmod(node),
								exprCollation(node), 0);
	if (IsA(node, Var))
		ctx->other_column = true;
	return expression_tree_mutator(node, group_mutator, context);
}

static Oid
transition_of(Oid aggfnoid)
{
	HeapTuple tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggfnoid));
	Oid function;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggfnoid);
	function = ((Form_pg_aggregate) GETSTRUCT(tuple))->aggmtransfn;
	ReleaseSysCache(tuple);
	return function;
}

static void
describe_aggregate(PgtAggregate *aggregate, const Aggref *aggref, int *next_input)
{
	ListCell *lc;

	aggregate->aggfnoid = aggref->aggfnoid;
	aggregate->collation = aggref->inputcollid;
	aggregate->first_input = *next_input;
	aggregate->nargs = list_length(aggref->args);
	aggregate->result_type = aggref->aggtype;
	aggregate->result_typmod = -1;
	aggregate->strict = func_strict(transition_of(aggref->aggfnoid));
	foreach (lc, aggref->aggargtypes)
		aggregate->argtypes[foreach_current_index(lc)] = lfirst_oid(lc);
	*next_input += aggregate->nargs;
	aggregate->filter_input = aggref->aggfilter != NULL ? (*next_input)++ : -1;
}

/* Distinct aggregates of a group query in the order of the state table. */
static List *
collect(const PgtStage *stage, List **outputs, Node **having, bool *other_column)
{
	GroupContext context = {NIL, NIL, false};
	List *entries = pgt_tree_outputs(stage->query);

	for (int i = 0; i < stage->nkeys; i++)
		context.keys = lappend(context.keys,
							   list_nth_node(TargetEntry, entries, stage->keys[i] - 1)->expr);
	*outputs = (List *) group_mutator((Node *) entries, &context);
	*having = group_mutator(stage->query->havingQual, &context);
	*other_column = context.other_column;
	return context.aggrefs;
}

/* Does a group show columns that only a constraint makes depend on its key? */
bool
pgt_group_has_other_columns(const PgtStage *stage)
{
	List *outputs;
	Node *having;
	bool other_column;

	(void) collect(stage, &outputs, &having, &other_column);
	return other_column;
}

static bool
unfoldable_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref))
		return reason_not_invertible((Aggref *) node) != NULL;
	if (list_member((List *) context, node))
		return false;
	return IsA(node, Var) || expression_tree_walker(node, unfoldable_walker, context);
}

/* Can the groups of a query be folded, as far as its keys and aggregates go? */
bool
pgt_group_is_foldable(Query *query)
{
	List *keys = NIL;
	ListCell *lc;

	foreach (lc, query->groupClause)
		keys = lappend(keys, get_sortgroupclause_expr(lfirst(lc), query->targetList));
	return !unfoldable_walker((Node *) query->targetList, keys) &&
		   !unfoldable_walker(query->havingQual, keys);
}

/* Fills in the aggregates of a stage; NULL, or the reason why it cannot be folded. */
const char *
pgt_group_describe(PgtStage *stage)
{
	bool other_column;
	List *aggrefs = collect(stage, &stage->outputs, &stage->having, &other_column);
	int next_input = 0;
	ListCell *lc;

	if (pgt_tree_has_outer_join(stage->query))
		return "groups over outer joins are recomputed";
	if (other_column)
		return "a column depends on the key only by a constraint";
	foreach (lc, aggrefs)
	{
		const char *reason = reason_not_invertible(lfirst_node(Aggref, lc));

		if (reason != NULL)
			return reason;
	}
	stage->naggregates = list_length(aggrefs);
	stage->aggregates = palloc0(sizeof(PgtAggregate) * Max(stage->naggregates, 1));
	foreach (lc, aggrefs)
		describe_aggregate(&stage->aggregates[foreach_current_index(lc)], lfirst(lc), &next_input);
	return NULL;
}

/* SELECT keys, arguments and filters of the aggregates FROM ... WHERE ... */
Query *
pgt_group_input_query(const PgtStage *stage)
{
	List *outputs;
	Node *having;
	bool other_column;
	List *aggrefs = collect(stage, &outputs, &having, &other_column);
	List *entries = pgt_tree_outputs(stage->query);
	List *targets = NIL;
	ListCell *lc;

	for (int i = 0; i < stage->nkeys; i++)
	{
		TargetEntry *tle = list_nth(entries, stage->keys[i] - 1);

		targets = lappend(targets, makeTargetEntry(copyObject(tle->expr), 0, NULL, false));
	}
	foreach (lc, aggrefs)
	{
		Aggref *aggref = lfirst_node(Aggref, lc);
		ListCell *la;

		foreach (la, aggref->args)
			targets = lappend(
				targets,
				makeTargetEntry(copyObject(lfirst_node(TargetEntry, la)->expr), 0, NULL, false));
		if (aggref->aggfilter != NULL)
			targets = lappend(targets,
							  makeTargetEntry(copyObject(aggref->aggfilter), 0, NULL, false));
	}
	return pgt_tree_select(copyObject(stage->query), targets);
}
