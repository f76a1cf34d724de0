/*
 * access.c: the indexes by which stages are read.
 *
 * A stage that is recomputed by keys or partitions reads the stage below by
 * these columns, and the first rows of a stage are read in the order of the
 * query: the stage below gets an index for it. Base tables are the user's; what
 * they lack is a hint (advise.c).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/typcache.h"

#include "pgt_compat.h"
#include "pgt_extension.h"
#include "pgt_guc.h"
#include "pgt_sqltext.h"

#include "delta_internal.h"


typedef struct StageColumn
{
	int stage; /* 0: none */
	AttrNumber attno;
	int leaf; /* of a base table, */
	Oid relid;
} StageColumn;

/* The column of a stage or table that an expression of a query is, through plain subqueries. */
static StageColumn
resolve(Query *query, Node *expr)
{
	StageColumn none = {0};
	Var *var = (Var *) expr;
	RangeTblEntry *rte;

	if (query->setOperations != NULL || !IsA(expr, Var) || var->varlevelsup != 0 ||
		var->varattno <= 0)
		return none;
	rte = rt_fetch(var->varno, query->rtable);
	if (rte->rtekind == RTE_RELATION)
	{
		int stage = pgt_stage_of_entry(rte);

		return (StageColumn){stage, var->varattno, pgt_tree_leaf(rte),
							 stage > 0 ? InvalidOid : rte->relid};
	}
	if (rte->rtekind == RTE_SUBQUERY && rte->subquery->setOperations == NULL)
		return resolve(
			rte->subquery,
			(Node *) list_nth_node(TargetEntry, pgt_tree_outputs(rte->subquery), var->varattno - 1)
				->expr);
	return none;
}

/* Do the columns begin a key or a scope, which has an index of its own? */
static bool
begins(const PgtStageIndex *index, int ncolumns, const AttrNumber *columns)
{
	if (ncolumns < index->ncolumns)
		return false;
	for (int i = 0; i < index->ncolumns; i++)
		if (columns[i] != index->columns[i])
			return false;
	return true;
}

static bool
same_index(const PgtStageIndex *a, const PgtStageIndex *b)
{
	if (a->ncolumns != b->ncolumns)
		return false;
	for (int i = 0; i < a->ncolumns; i++)
		if (a->columns[i] != b->columns[i] || a->operators[i] != b->operators[i] ||
			a->nulls_first[i] != b->nulls_first[i])
			return false;
	return true;
}

/*
 * May the column be in the index? Values too wide for one are seen before rows
 * are written (storage.c), but not among the results of folded aggregates.
 */
static bool
is_narrow(const PgtStage *stage, AttrNumber attno, Oid type)
{
	if (stage->technique != PGT_TECHNIQUE_AGGREGATE || get_typlen(type) > 0 || type == NUMERICOID)
		return true;
	for (int i = 0; i < stage->nkeys; i++)
		if (stage->keys[i] == attno)
			return true;
	return false;
}

static void
add_index(PgtStage *stage, PgtStageIndex *index, bool ordered)
{
	List *outputs = pgt_tree_outputs(stage->query);
	ListCell *lc;

	for (int i = 0; i < index->ncolumns; i++)
		if (!is_narrow(
				stage, index->columns[i],
				exprType(
					(Node *) list_nth_node(TargetEntry, outputs, index->columns[i] - 1)->expr)))
			return;
	if (!ordered &&
		((stage->identity == PGT_IDENTITY_KEY && begins(index, stage->nkeys, stage->keys)) ||
		 begins(index, stage->nscope, stage->scope)))
		return;
	foreach (lc, stage->indexes)
		if (same_index(lfirst(lc), index))
			return;
	stage->indexes = lappend(stage->indexes, index);
}

static PgtStageIndex *
make_index(int max)
{
	PgtStageIndex *index = palloc0(sizeof(PgtStageIndex));

	index->columns = palloc0(sizeof(AttrNumber) * Max(max, 1));
	index->operators = palloc0(sizeof(Oid) * Max(max, 1));
	index->nulls_first = palloc0(sizeof(bool) * Max(max, 1));
	return index;
}

/* Adds a column; false if it is not one of the same stage as those before. */
static bool
add_column(PgtStageIndex *index, int *stage, StageColumn column, Oid operator, bool nulls_first)
{
	if (column.stage == 0 || !OidIsValid(operator) || (*stage != 0 && *stage != column.stage) ||
		index->ncolumns == INDEX_MAX_KEYS)
		return false;
	*stage = column.stage;
	index->columns[index->ncolumns] = column.attno;
	index->operators[index->ncolumns] = operator;
	index->nulls_first[index->ncolumns] = nulls_first;
	index->ncolumns++;
	return true;
}

/* By the columns that the rows to recompute are found by. */
static void
request_lookup(PgtDefinition *definition, PgtStage *stage, int ncolumns, const AttrNumber *columns)
{
	PgtStageIndex *index = make_index(ncolumns);
	List *outputs = pgt_tree_outputs(stage->query);
	int number = 0;

	for (int i = 0; i < ncolumns; i++)
	{
		Node *expr = (Node *) list_nth_node(TargetEntry, outputs, columns[i] - 1)->expr;

		if (!add_column(index, &number, resolve(stage->query, expr),
						lookup_type_cache(exprType(expr), TYPECACHE_LT_OPR)->lt_opr, false))
			return;
	}
	if (number > 0)
		add_index(list_nth(definition->stages, number - 1), index, false);
}

static void
request_order(PgtDefinition *definition, PgtStage *stage)
{
	Query *query = stage->query;
	PgtStageIndex *index = make_index(list_length(query->sortClause));
	int number = 0;
	ListCell *lc;

	foreach (lc, query->sortClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		Node *expr = get_sortgroupclause_expr(clause, query->targetList);

		if (!add_column(index, &number, resolve(query, expr), clause->sortop, clause->nulls_first))
			return;
	}
	if (number > 0)
		add_index(list_nth(definition->stages, number - 1), index, true);
}

/* By columns that are compared with a stage's only value: what lies between two of these changes. */
static void
request_thresholds(PgtDefinition *definition, PgtStage *stage)
{
	List *quals = pgt_tree_conjuncts(stage->query->jointree->quals);
	ListCell *lc;

	foreach (lc, quals)
	{
		OpExpr *op = lfirst(lc);
		Node *tested;
		PgtStageIndex *index = make_index(1);
		int number = 0;

		if (!IsA(op, OpExpr) || list_length(op->args) != 2 ||
			pgt_flatten_has_sublink(linitial(op->args)) ==
				pgt_flatten_has_sublink(lsecond(op->args)) ||
			op_mergejoinable(op->opno, exprType(linitial(op->args))))
			continue;
		tested = pgt_flatten_has_sublink(linitial(op->args)) ? lsecond(op->args)
															 : linitial(op->args);
		if (add_column(index, &number, resolve(stage->query, tested),
					   lookup_type_cache(exprType(tested), TYPECACHE_LT_OPR)->lt_opr, false))
			add_index(list_nth(definition->stages, number - 1), index, false);
	}
}

/* A change of what the step joins finds the rows to join it with. */
static void
request_recursion(PgtDefinition *definition, PgtStage *stage)
{
	ListCell *lc;
	ListCell *lq;

	foreach (lc, pgt_tree_arm_rtindexes(stage->query))
	{
		Query *arm = rt_fetch(lfirst_int(lc), stage->query->rtable)->subquery;
		List *rtindexes = NIL;
		List *quals = NIL;

		pgt_tree_flatten_inner((Node *) arm->jointree, &rtindexes, &quals);
		foreach (lq, quals)
		{
			OpExpr *op = lfirst(lq);

			if (!IsA(op, OpExpr) || list_length(op->args) != 2 ||
				!op_mergejoinable(op->opno, exprType(linitial(op->args))))
				continue;
			for (int i = 0; i < 2; i++)
			{
				Node *side = list_nth(op->args, i);
				StageColumn column = resolve(arm, side);
				PgtStageIndex *index = make_index(1);
				int number = 0;

				if (column.stage == stage->number &&
					add_column(index, &number, column,
							   lookup_type_cache(exprType(side), TYPECACHE_LT_OPR)->lt_opr, false))
					add_index(stage, index, false);
			}
		}
	}
}

/* Asks the stages below for the indexes that a stage reads them by. */
void
pgt_access_request(PgtDefinition *definition, PgtStage *stage)
{
	if (stage->recursion != NULL)
		request_recursion(definition, stage);
	if (stage->query->setOperations != NULL)
		return;
	if (stage->technique == PGT_TECHNIQUE_AKR)
		request_thresholds(definition, stage);
	if (pgt_layer_has_limit(stage->query))
		request_order(definition, stage);
	else if (stage->technique == PGT_TECHNIQUE_PARTITION)
		request_lookup(definition, stage, stage->nscope, stage->scope);
	else if (stage->technique == PGT_TECHNIQUE_AKR && stage->identity == PGT_IDENTITY_KEY)
		request_lookup(definition, stage, stage->nkeys, stage->keys);
}

/* ---- What base tables lack ---- */

/* Does a btree index begin with these columns, in this or the opposite order? */
static bool
has_ordered_index(Relation relation, int ncolumns, const AttrNumber *columns)
{
	bool found = false;
	ListCell *lc;

	foreach (lc, RelationGetIndexList(relation))
	{
		Relation index = index_open(lfirst_oid(lc), AccessShareLock);
		Form_pg_index form = index->rd_index;
		bool fits = form->indisvalid && index->rd_rel->relam == BTREE_AM_OID &&
					RelationGetIndexPredicate(index) == NIL && form->indnkeyatts >= ncolumns;

		for (int i = 0; fits && i < ncolumns; i++)
			fits = form->indkey.values[i] == columns[i];
		found = found || fits;
		index_close(index, AccessShareLock);
	}
	return found;
}

static char *
order_command(Oid relid, int ncolumns, const AttrNumber *columns, List *clauses)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE INDEX ON %s (", pgt_sqltext_relation(relid));
	for (int i = 0; i < ncolumns; i++)
	{
		SortGroupClause *clause = list_nth_node(SortGroupClause, clauses, i);
		Oid family;
		Oid type;
		int16 strategy = BTLessStrategyNumber;
		bool desc;

		(void) pgt_compat_ordering_operator(clause->sortop, &family, &type, &strategy);
		desc = strategy == BTGreaterStrategyNumber;
		appendStringInfo(&sql, "%s%s%s", i > 0 ? ", " : "", pgt_sqltext_column(relid, columns[i]),
						 desc ? " DESC" : "");
		if (clause->nulls_first != desc)
			appendStringInfo(&sql, " NULLS %s", clause->nulls_first ? "FIRST" : "LAST");
	}
	appendStringInfoChar(&sql, ')');
	return sql.data;
}

/*
 * The index that a big table lacks for the first rows to be read in order, or
 * NULL: for a stage with LIMIT whose sort keys are columns of one table. Stages'
 * own tables have theirs.
 */
PgtMissingIndex *
pgt_access_missing_order(const PgtStage *stage)
{
	Query *query = stage->query;
	AttrNumber columns[INDEX_MAX_KEYS];
	StageColumn column = {0};
	PgtMissingIndex *missing = NULL;
	Relation relation;
	int n = 0;
	ListCell *lc;

	if (!pgt_layer_has_limit(query) || query->sortClause == NIL ||
		list_length(query->sortClause) > INDEX_MAX_KEYS)
		return NULL;
	foreach (lc, query->sortClause)
	{
		int leaf = column.leaf;

		column = resolve(query, get_sortgroupclause_expr(lfirst(lc), query->targetList));
		if (!OidIsValid(column.relid) || (n > 0 && column.leaf != leaf))
			return NULL;
		columns[n++] = column.attno;
	}
	relation = relation_open(column.relid, AccessShareLock);
	if (relation->rd_rel->relkind == RELKIND_RELATION &&
		RelationGetNamespace(relation) != pgt_extension_schema(PGT_STATE_SCHEMA) &&
		RelationGetNumberOfBlocks(relation) >= pgt_guc_index_hint_pages &&
		!has_ordered_index(relation, n, columns))
	{
		missing = palloc0(sizeof(PgtMissingIndex));
		missing->stage = stage->number;
		missing->purpose = "rows of keys";
		missing->relid = column.relid;
		missing->pages = RelationGetNumberOfBlocks(relation);
		for (int i = 0; i < n; i++)
			missing->columns = lappend_int(missing->columns, columns[i]);
		missing->sql = order_command(column.relid, n, columns, query->sortClause);
	}
	relation_close(relation, AccessShareLock);
	return missing;
}
