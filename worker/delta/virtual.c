/*
 * virtual.c: which stages are not stored, because they would be too big.
 *
 * Such a stage is recomputed by keys on both sides of a refresh: over the new
 * state of its inputs and over the old one. What stays of it is an empty table:
 * its columns, its place in the plans' cache, and in its comment the decision,
 * which was made when the query was defined and is dumped like a table's rows.
 *
 * The rows of a key must come out the same whenever they are computed, and must
 * be found by the key, both in the tables that the stage reads and by the
 * stages that read it; else the stage is stored.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_class.h"
#include "commands/comment.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "pgt_guc.h"

#include "delta_internal.h"

#define NOT_STORED "not stored: "
#define STORED "stored: "

/* ---- Is a row the same whenever it is computed? ---- */

/* Aggregates without an inverse that do not depend on the order of rows either. */
static bool
is_unordered_name(const char *name)
{
	static const char *const names[] = {"min",	   "max",	   "bit_and", "bit_or",
										"bit_xor", "bool_and", "bool_or", "every"};

	for (int i = 0; i < lengthof(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

static bool
has_inverse(Oid aggfnoid)
{
	HeapTuple tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggfnoid));
	bool result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggfnoid);
	result = OidIsValid(((Form_pg_aggregate) GETSTRUCT(tuple))->aggminvtransfn);
	ReleaseSysCache(tuple);
	return result;
}

static bool
is_determined(const Aggref *aggref)
{
	ListCell *lc;

	if (aggref->aggkind != AGGKIND_NORMAL || aggref->aggorder != NIL ||
		aggref->aggfnoid >= FirstNormalObjectId)
		return false;
	if (aggref->aggdistinct != NIL)
		foreach (lc, aggref->args)
		{
			Node *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;

			if (!pgt_key_is_image(exprType(expr), exprTypmod(expr), exprCollation(expr)))
				return false;
		}
	return has_inverse(aggref->aggfnoid) ||
		   (is_unordered_name(get_func_name(aggref->aggfnoid)) &&
			pgt_key_is_image(aggref->aggtype, -1, aggref->aggcollid));
}

static bool
undetermined_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref) && !is_determined((Aggref *) node))
	{
		*(const char **) context = get_func_name(((Aggref *) node)->aggfnoid);
		return true;
	}
	return expression_tree_walker(node, undetermined_walker, context);
}

/* Its equal group keys or distinct values of one query must look the same. */
static const char *
reason_of_rows(const PgtStage *stage)
{
	List *outputs = pgt_tree_outputs(stage->query);
	const char *name = NULL;

	for (int i = 0; i < stage->nkeys; i++)
	{
		Node *expr = (Node *) list_nth_node(TargetEntry, outputs, stage->keys[i] - 1)->expr;

		if (!pgt_key_is_image(exprType(expr), exprTypmod(expr), exprCollation(expr)))
			return psprintf("equal values of its key can look different (type %s)",
							format_type_be(exprType(expr)));
	}
	if (undetermined_walker((Node *) stage->query->targetList, &name) ||
		undetermined_walker(stage->query->havingQual, &name))
		return psprintf("the result of aggregate %s can depend on the order of rows", name);
	return NULL;
}

/* ---- Are the rows of a key found in what the stage reads? ---- */

static bool
reads(const RangeTblEntry *rte, const PgtStage *stage)
{
	return rte->rtekind == RTE_RELATION &&
		   (rte->ctename != NULL ? pgt_stage_of_entry(rte) == stage->number
								 : OidIsValid(stage->relid) && rte->relid == stage->relid);
}

static bool
is_stage(PgtDefinition *definition, const RangeTblEntry *rte)
{
	ListCell *lc;

	foreach (lc, definition->stages)
		if (reads(rte, lfirst(lc)))
			return true;
	return false;
}

static const char *
reason_of_inputs(PgtDefinition *definition, const PgtStage *stage)
{
	ListCell *lc;

	foreach (lc, pgt_tree_leaves(stage->query))
	{
		RangeTblEntry *rte = lfirst(lc);
		Oid index;

		if (is_stage(definition, rte))
			return "it reads another stage";
		if (pgt_key_of_rows(rte->relid, &index) == NIL)
			return psprintf("table %s has no key without nulls", get_rel_name(rte->relid));
	}
	return NULL;
}

/* ---- Do the stages that read it do so by its key? ---- */

typedef struct ReaderContext
{
	const PgtStage *stage;
	const PgtStage *reader;
	Query *level;
	bool at_top;
	bool by_key; /* so far */
} ReaderContext;

/* Is there a condition that equates a key column with something else? */
static bool
is_equated_to_key(const PgtStage *stage, int rtindex, List *quals)
{
	ListCell *lc;

	foreach (lc, quals)
	{
		AttrNumber column;
		Node *other;

		if (pgt_inline_equates(lfirst(lc), rtindex, &column, &other) && !IsA(other, Const) &&
			!checkExprHasSubLink(lfirst(lc)) && pgt_inline_is_key(stage->query, column))
			return true;
	}
	return false;
}

/* Is the reader recomputed by a column that is one of the stage's key? */
static bool
is_key_of_reader(const ReaderContext *context, int rtindex)
{
	const PgtStage *reader = context->reader;
	List *outputs = pgt_tree_outputs(reader->query);
	bool partition = reader->technique == PGT_TECHNIQUE_PARTITION;
	int n = partition ? reader->nscope : reader->identity == PGT_IDENTITY_KEY ? reader->nkeys : 0;

	for (int i = 0; i < n; i++)
	{
		AttrNumber column = partition ? reader->scope[i] : reader->keys[i];
		Var *var = (Var *) list_nth_node(TargetEntry, outputs, column - 1)->expr;

		if (IsA(var, Var) && var->varno == rtindex && var->varlevelsup == 0 && var->varattno > 0 &&
			pgt_inline_is_key(context->stage->query, var->varattno))
			return true;
	}
	return false;
}

static bool
is_linear(const PgtStage *stage)
{
	return stage->technique == PGT_TECHNIQUE_LINEAR || stage->technique == PGT_TECHNIQUE_AGGREGATE;
}

/* where: do the conditions of WHERE, and of the keys, hold for the rows at this place? */
static void
check_node(ReaderContext *context, Node *node, List *quals, bool where)
{
	ListCell *lc;

	if (IsA(node, RangeTblRef))
	{
		int rtindex = ((RangeTblRef *) node)->rtindex;

		if (!reads(rt_fetch(rtindex, context->level->rtable), context->stage) ||
			is_equated_to_key(context->stage, rtindex, quals))
			return;
		/* Alone in its place, only its change is read. */
		if (is_linear(context->reader) &&
			list_length(pgt_tree_rtindexes((Node *) context->level->jointree)) == 1)
			return;
		if (!is_linear(context->reader) && where && is_key_of_reader(context, rtindex))
			return;
		context->by_key = false;
	}
	else if (IsA(node, FromExpr))
	{
		FromExpr *from = (FromExpr *) node;

		quals = list_concat(list_copy(quals), pgt_tree_conjuncts(from->quals));
		foreach (lc, from->fromlist)
			check_node(context, lfirst(lc), quals, where);
	}
	else
	{
		JoinExpr *join = castNode(JoinExpr, node);
		List *own = pgt_tree_conjuncts(join->quals);
		List *all = list_concat(list_copy(quals), own);
		bool inner = join->jointype == JOIN_INNER;

		check_node(context, join->larg,
				   inner						 ? all
				   : join->jointype == JOIN_LEFT ? quals
												 : NIL,
				   where && (inner || join->jointype == JOIN_LEFT));
		check_node(context, join->rarg,
				   inner						  ? all
				   : join->jointype == JOIN_LEFT  ? own
				   : join->jointype == JOIN_RIGHT ? quals
												  : NIL,
				   where && (inner || join->jointype == JOIN_RIGHT));
	}
}

static bool
reader_walker(Node *node, void *context)
{
	ReaderContext *ctx = context;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		ReaderContext saved = *ctx;
		bool result;

		ctx->level = (Query *) node;
		if (ctx->level->setOperations == NULL)
			check_node(ctx, (Node *) ctx->level->jointree, NIL, ctx->at_top);
		ctx->at_top = false;
		result = query_tree_walker((Query *) node, reader_walker, context, QTW_IGNORE_JOINALIASES);
		ctx->level = saved.level;
		ctx->at_top = saved.at_top;
		return result;
	}
	return expression_tree_walker(node, reader_walker, context);
}

static const char *
reason_of_readers(PgtDefinition *definition, const PgtStage *stage)
{
	ListCell *lc;

	foreach (lc, definition->stages)
	{
		ReaderContext context = {stage, lfirst(lc), NULL, true, true};

		(void) reader_walker((Node *) context.reader->query, &context);
		if (!context.by_key)
			return psprintf("stage %d reads it by other columns than its key",
							context.reader->number);
	}
	return NULL;
}

/* ---- The decision ---- */

/* Test builds can ask for it even where it is slow. */
static bool
is_forced(void)
{
#ifdef PGT_TEST_POINTS
	return pgt_guc_force_technique != NULL && strcmp(pgt_guc_force_technique, "2kr") == 0;
#else
	return false;
#endif
}

/* NULL, or why a stage cannot be right unless it is stored. */
static const char *
find_reason(PgtDefinition *definition, const PgtStage *stage)
{
	Query *query = stage->query;
	const char *reason;

	if (stage->identity == PGT_IDENTITY_SINGLE)
		return "it is a single row";
	if (stage->identity != PGT_IDENTITY_KEY || query->hasWindowFuncs || query->hasDistinctOn ||
		pgt_layer_has_limit(query) || query->setOperations != NULL || query->hasTargetSRFs ||
		(stage->technique != PGT_TECHNIQUE_AGGREGATE && stage->technique != PGT_TECHNIQUE_AKR) ||
		(!pgt_stage_is_group(query) && query->distinctClause == NIL))
		return "only groups and distinct rows are recomputed by key on both sides";
	if (pgt_flatten_is_needed(query) || pgt_flatten_has_sublink((Node *) query->jointree) ||
		contain_volatile_functions((Node *) query))
		return "its rows depend on subqueries";
	/* The old state is no table, so that no constraint is known of it. */
	if (pgt_stage_is_group(query) && pgt_group_has_other_columns(stage))
		return "a column depends on the key only by a constraint";
	reason = reason_of_rows(stage);
	return reason != NULL ? reason : reason_of_inputs(definition, stage);
}

/* The keys by which old states are told from new ones are captured, and stay. */
static void
add_key_columns(PgtDefinition *definition, const PgtStage *stage)
{
	ListCell *lc;
	ListCell *ls;
	ListCell *lk;

	foreach (lc, pgt_tree_leaves(stage->query))
	{
		RangeTblEntry *rte = lfirst(lc);
		Oid index;
		List *key = pgt_key_of_rows(rte->relid, &index);

		definition->constraints = list_append_unique_oid(definition->constraints, index);
		foreach (ls, definition->sources)
		{
			PgtSourceUse *source = lfirst(ls);

			if (source->relid == rte->relid && !source->is_view)
				foreach (lk, key)
					source->columns = bms_add_member(source->columns, lfirst_int(lk));
		}
	}
}

static void
make_virtual(PgtDefinition *definition, PgtStage *stage)
{
	stage->is_virtual = true;
	stage->technique = PGT_TECHNIQUE_AKR;
	stage->reason = "rows are computed for the old and the new state";
	stage->indexes = NIL;
	add_key_columns(definition, stage);
}

/* The queries of stages in place of the stages, here and below. */
static void
put_queries(PgtDefinition *definition, Query *query)
{
	ListCell *lc;

	foreach (lc, pgt_tree_leaves(query))
	{
		RangeTblEntry *rte = lfirst(lc);
		int number = pgt_stage_of_entry(rte);

		if (number == 0)
			continue;
		rte->subquery = copyObject(((PgtStage *) list_nth(definition->stages, number - 1))->query);
		put_queries(definition, rte->subquery);
	}
}

static double
estimate_rows(PgtDefinition *definition, const PgtStage *stage, Oid owner)
{
	Query *query = copyObject(stage->query);
	PgtSecurity saved;
	PgtPlan *plan;
	double rows;

	put_queries(definition, query);
	saved = pgt_security_become(owner);
	plan = pgt_spi_prepare(pgt_tree_deparse(query, NULL), NULL, 0, 0);
	rows = pgt_spi_plan_now(plan, NULL, 0)->planTree->plan_rows;
	pgt_spi_free_plan(plan);
	pgt_security_restore(&saved);
	return rows;
}

static void
choose(PgtDefinition *definition, PgtStage *stage, Oid owner)
{
	double rows = 0;
	const char *reason;

	if (pgt_guc_max_stage_rows > 0)
	{
		rows = estimate_rows(definition, stage, owner);
		if (rows <= pgt_guc_max_stage_rows)
			return;
	}
	reason = find_reason(definition, stage);
	if (reason == NULL && !is_forced())
		reason = reason_of_readers(definition, stage);
	if (reason != NULL)
		stage->storage = psprintf(STORED "%s", reason);
	else if (pgt_guc_max_stage_rows == 0)
		stage->storage = NOT_STORED "pg_trickle.max_stage_rows was 0";
	else
		stage->storage = psprintf(NOT_STORED "about %.0f rows were expected, and"
											 " pg_trickle.max_stage_rows was %d",
								  rows, pgt_guc_max_stage_rows);
	if (reason == NULL)
		make_virtual(definition, stage);
	/* For validate_query. */
	pgt_support_add(definition, psprintf("stage %d", stage->number), stage->storage, NULL, -1);
}

void
pgt_delta_choose_storage(PgtDefinition *definition, Oid owner)
{
	ListCell *lc;

	if (pgt_guc_max_stage_rows < 0 || definition->full_reason != NULL)
		return;
	/* Nothing estimates the rows of a recursion. */
	foreach (lc, definition->stages)
		if (((PgtStage *) lfirst(lc))->recursion != NULL)
			return;
	foreach (lc, definition->stages)
		if (lnext(definition->stages, lc) != NULL)
			choose(definition, lfirst(lc), owner);
}

/* ---- What was decided ---- */

/* The queries of stages that are not stored go with the entries that read them. */
static void
bind_readers(PgtDefinition *definition, const PgtStage *stage)
{
	ListCell *lc;
	ListCell *ll;

	foreach (lc, definition->stages)
		foreach (ll, pgt_tree_leaves(((PgtStage *) lfirst(lc))->query))
		{
			RangeTblEntry *rte = lfirst(ll);

			if (reads(rte, stage))
				rte->subquery = copyObject(stage->query);
		}
}

void
pgt_virtual_load(PgtDefinition *definition)
{
	ListCell *lc;

	if (definition->full_reason != NULL)
		return;
	foreach (lc, definition->stages)
	{
		PgtStage *stage = lfirst(lc);

		if (lnext(definition->stages, lc) == NULL || !OidIsValid(stage->relid))
			continue;
		stage->storage = GetComment(stage->relid, RelationRelationId, 0);
		if (stage->storage == NULL || strncmp(stage->storage, NOT_STORED, strlen(NOT_STORED)) != 0)
			continue;
		/* Of a stage just chosen the technique is the one of the choice. */
		if (!stage->is_virtual && find_reason(definition, stage) != NULL)
		{
			stage->is_missing = true;
			continue;
		}
		if (!stage->is_virtual)
			make_virtual(definition, stage);
		bind_readers(definition, stage);
	}
}

void
pgt_virtual_note(const PgtStage *stage)
{
	if (stage->storage != NULL)
		CreateComments(stage->relid, RelationRelationId, 0, (char *) stage->storage);
}

void
pgt_delta_note_stored(const PgtStage *stage)
{
	CreateComments(stage->relid, RelationRelationId, 0,
				   STORED "it can no longer be recomputed by key on both sides");
	CacheInvalidateRelcacheByRelid(stage->relid);
}
