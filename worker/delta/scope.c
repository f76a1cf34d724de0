/*
 * scope.c: by which columns a stage of technique PARTITION is recomputed.
 *
 * A scope is a set of output columns such that restricting the stage's query
 * to some of their values gives exactly the rows with these values: the
 * PARTITION BY columns that all window functions share, the columns by which a
 * subquery is correlated. They need not identify a row. A smaller set is
 * always right, too, only more is recomputed; the empty one means everything.
 */
#include "postgres.h"

#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "delta_internal.h"

/* Can rows be found by the column: is there an equality with a btree order? */
static bool
can_be_scope(Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_EQ_OPR | TYPECACHE_BTREE_OPFAMILY |
														TYPECACHE_CMP_PROC);

	return OidIsValid(entry->eq_opr) && OidIsValid(entry->btree_opf) && OidIsValid(entry->cmp_proc);
}

/*
 * Makes these output columns (1-based, an integer list) the stage's scope.
 * Columns that no index can hold are left out, and so are those beyond what an
 * index can have.
 */
void
pgt_scope_set(PgtStage *stage, List *columns)
{
	List *outputs = pgt_tree_outputs(stage->query);
	int max = Max(list_length(columns), 1);
	ListCell *lc;

	stage->nscope = 0;
	stage->scope = palloc0(sizeof(AttrNumber) * max);
	stage->scope_operators = palloc0(sizeof(Oid) * max);
	stage->scope_collations = palloc0(sizeof(Oid) * max);
	foreach (lc, columns)
	{
		Node *expr = (Node *) list_nth_node(TargetEntry, outputs, lfirst_int(lc) - 1)->expr;
		int n = stage->nscope;

		if (n == INDEX_MAX_KEYS || !can_be_scope(exprType(expr)))
			continue;
		stage->scope[n] = lfirst_int(lc);
		(void) pgt_key_column_equality(exprType(expr), &stage->scope_operators[n]);
		stage->scope_collations[n] = exprCollation(expr);
		stage->nscope++;
	}
}

/* Columns that no subquery has a part in. */
static List *
plain_columns(Query *query)
{
	List *columns = NIL;
	ListCell *lc;

	if (query->setOperations != NULL)
		return NIL;
	foreach (lc, pgt_tree_outputs(query))
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		/* Of groups and the first rows of each only the keys tell which rows belong to them. */
		if (pgt_stage_is_group(query) &&
			(tle->ressortgroupref == 0 ||
			 get_sortgroupref_clause_noerr(tle->ressortgroupref, query->groupClause) == NULL))
			continue;
		if (query->hasDistinctOn &&
			(tle->ressortgroupref == 0 ||
			 get_sortgroupref_clause_noerr(tle->ressortgroupref, query->distinctClause) == NULL))
			continue;
		if (pgt_flatten_is_plain(query, (Node *) tle->expr))
			columns = lappend_int(columns, foreach_current_index(lc) + 1);
	}
	return columns;
}

/*
 * Is the stage one that is recomputed by partitions? Then its scope is set.
 * Called once the identity is known.
 */
bool
pgt_scope_find(PgtStage *stage)
{
	Query *query = stage->query;

	if (pgt_layer_has_limit(query))
		pgt_scope_set(stage, NIL);
	else if (query->hasWindowFuncs)
	{
		List *columns = pgt_window_scope(query);

		/* A partition may be larger than need be, so columns of subqueries can go. */
		if (pgt_flatten_is_needed(query))
			columns = list_intersection_int(columns, plain_columns(query));
		pgt_scope_set(stage, columns);
	}
	else if (pgt_flatten_is_needed(query))
		pgt_scope_set(stage, plain_columns(query));
	else
		return false;
	return true;
}

/* For explain_st: what is recomputed together. Stages but the last have columns c1, c2, ... */
const char *
pgt_scope_describe(PgtStage *stage)
{
	List *outputs = pgt_tree_outputs(stage->query);
	StringInfoData text;

	if (stage->nscope == 0)
		return "all rows are recomputed together";
	initStringInfo(&text);
	appendStringInfoString(&text, "rows are recomputed together that have the same ");
	for (int i = 0; i < stage->nscope; i++)
		appendStringInfo(
			&text, "%s%s", i > 0 ? ", " : "",
			quote_identifier(list_nth_node(TargetEntry, outputs, stage->scope[i] - 1)->resname));
	return text.data;
}
