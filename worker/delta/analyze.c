/*
 * analyze.c: from a defining query to its stages.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "pgt_compat.h"

#include "delta_internal.h"

/* Is the stage a core with subqueries, but recomputed by keys without any? */
static bool
has_plain_keys(PgtStage *stage)
{
	AttrNumber number = 0;
	ListCell *lc;

	foreach (lc, pgt_tree_outputs(stage->query))
	{
		bool is_key = stage->identity == PGT_IDENTITY_ROW;

		number++;
		for (int i = 0; i < stage->nkeys; i++)
			is_key = is_key || stage->keys[i] == number;
		if (is_key &&
			!pgt_flatten_is_plain(stage->query, (Node *) lfirst_node(TargetEntry, lc)->expr))
			return false;
	}
	return true;
}

static void
choose_technique(PgtStage *stage)
{
	/* Windows and limits depend on rows that the change did not touch. */
	if (pgt_flatten_is_needed(stage->query) && !stage->query->hasWindowFuncs &&
		!pgt_layer_has_limit(stage->query) && has_plain_keys(stage))
	{
		stage->technique = PGT_TECHNIQUE_AKR;
		stage->reason = "rows for which subqueries may answer otherwise are recomputed";
	}
	else if (pgt_scope_find(stage))
	{
		stage->technique = PGT_TECHNIQUE_PARTITION;
		stage->reason = pgt_scope_describe(stage);
	}
	else if (pgt_stage_is_group(stage->query))
	{
		stage->reason = pgt_group_describe(stage);
		stage->technique = stage->reason == NULL ? PGT_TECHNIQUE_AGGREGATE : PGT_TECHNIQUE_AKR;
	}
	else if (stage->query->distinctClause != NIL)
	{
		stage->technique = PGT_TECHNIQUE_AKR;
		stage->reason = "distinct rows are recomputed";
	}
	else if (pgt_tree_has_outer_join(stage->query))
	{
		stage->technique = PGT_TECHNIQUE_AKR;
		stage->reason = "rows of outer joins are recomputed";
	}
	else
		stage->technique = PGT_TECHNIQUE_LINEAR;
}

/* Can rows of a query that is refreshed in FULL still be told apart by a key? */
static bool
has_simple_rows(Query *query)
{
	ListCell *lc;

	if (query->setOperations != NULL || query->hasTargetSRFs || query->groupingSets != NIL ||
		query->hasDistinctOn || query->cteList != NIL)
		return false;
	if (query->groupClause != NIL && query->distinctClause != NIL)
		return false;
	foreach (lc, query->groupClause)
		if (get_sortgroupclause_tle(lfirst(lc), query->targetList)->resjunk)
			return false;
	foreach (lc, pgt_tree_rtindexes((Node *) query->jointree))
		if (rt_fetch(lfirst_int(lc), query->rtable)->rtekind != RTE_RELATION)
			return pgt_stage_is_group(query);
	return true;
}

static void
make_full(PgtDefinition *definition, Query *original, Query *normalized)
{
	PgtStage *stage = palloc0(sizeof(PgtStage));

	stage->number = 1;
	stage->query = normalized;
	stage->identity = PGT_IDENTITY_ROW;
	definition->stages = NIL;
	definition->constraints = NIL;
	if (has_simple_rows(normalized))
	{
		pgt_tree_number_leaves(normalized);
		if (pgt_key_find_identity(stage, definition) != NULL ||
			stage->identity == PGT_IDENTITY_SINGLE)
		{
			stage->identity = PGT_IDENTITY_ROW;
			stage->nkeys = 0;
			stage->keys_not_null = false;
			definition->constraints = NIL;
		}
	}
	stage->query = copyObject(original);
	stage->technique = PGT_TECHNIQUE_FULL;
	stage->reason = definition->full_reason;
	definition->stages = list_make1(stage);
}

/* A column of a stage of a type that no table can have, such as ROW(a, b); NULL if none. */
static const char *
find_pseudo_type(PgtStage *stage, int *location)
{
	ListCell *lc;

	foreach (lc, pgt_tree_outputs(stage->query))
	{
		Node *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;

		*location = exprLocation(expr);
		if (get_typtype(exprType(expr)) == TYPTYPE_PSEUDO)
			return psprintf("a value of type %s would have to be stored",
							format_type_be(exprType(expr)));
	}
	return NULL;
}

static void
describe_stages(PgtDefinition *definition)
{
	ListCell *lc;

	foreach (lc, definition->stages)
	{
		PgtStage *stage = lfirst(lc);
		const char *reason;
		int location;

		reason = find_pseudo_type(stage, &location);
		if (reason != NULL)
		{
			pgt_support_add(definition, "row without a type of its own", NULL, reason, location);
			return;
		}
		pgt_tree_number_leaves(stage->query);
		reason = pgt_key_find_identity(stage, definition);
		if (reason != NULL)
		{
			pgt_support_add(definition, "identity of rows", NULL, reason, -1);
			return;
		}
		choose_technique(stage);
		if (stage->recursion != NULL && stage->technique != PGT_TECHNIQUE_LINEAR)
		{
			pgt_support_add(definition, "recursive WITH query", NULL, stage->reason, -1);
			return;
		}
		pgt_access_request(definition, stage);
	}
}

PgtDefinition *
pgt_delta_analyze(Oid view_relid, Query *query)
{
	PgtDefinition *definition = palloc0(sizeof(PgtDefinition));
	Oid owner = OidIsValid(view_relid) ? pgt_compat_relation_owner(view_relid) : GetUserId();
	Query *normalized;

	definition->query = query != NULL ? query : pgt_normalize_view(view_relid);
	pgt_compat_simplify_query((Node *) definition->query, NULL);
	pgt_support_check_refused(definition->query);
	normalized = pgt_normalize_query(definition->query);
	pgt_semijoin_mark(definition, normalized);
	pgt_lateral_mark(normalized);
	definition->sources = pgt_support_collect_sources(definition->query, normalized);
	if (pgt_support_check(normalized, definition, owner))
	{
		Query *rewritten = copyObject(normalized);

		pgt_semijoin_rewrite(rewritten);
		pgt_lateral_rewrite(rewritten);
		pgt_stage_cut(definition, pgt_rewrite_query(rewritten));
		pgt_support_add_columns(definition);
		describe_stages(definition);
	}
	if (definition->full_reason != NULL)
		make_full(definition, definition->query, normalized);
	return definition;
}

void
pgt_delta_check_query(Query *query)
{
	query = copyObject(query);
	pgt_compat_simplify_query((Node *) query, NULL);
	pgt_support_check_refused(query);
}
