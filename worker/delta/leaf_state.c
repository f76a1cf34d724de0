/*
 * leaf_state.c: the states of changed relations as WITH items.
 *
 * An item is a plain UNION ALL, which the server takes apart, so that
 * conditions find the table's rows through its indexes; the delta's arm ends in
 * OFFSET 0, since the scan of a tuplestore cannot depend on the outer row.
 */
#include "postgres.h"

#include "access/transam.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"

#include "pgt_sqltext.h"

#include "delta_internal.h"

static void
begin_item(StringInfo sql, const ChangeShape *shape, const char *state, const char *columns)
{
	appendStringInfo(sql, "%spgt_%s_%d(pgt_w%s) AS NOT MATERIALIZED (",
					 sql->len == 0 ? "WITH " : ", ", state, shape->number, columns);
}

/* SELECT 1, columns FROM the relation, or from the query of a stage that is not stored. */
static void
append_new(StringInfo sql, const ChangeShape *shape, const EmitContext *context)
{
	appendStringInfoString(sql, "SELECT 1");
	for (int i = 0; i < shape->ncolumns; i++)
		appendStringInfo(sql, ", %s", pgt_sqltext_column(shape->relid, shape->attnums[i]));
	if (shape->subquery == NULL)
		appendStringInfo(sql, " FROM %s", pgt_sqltext_relation(shape->relid));
	else
	{
		appendStringInfo(sql, " FROM (%s) v(", pgt_tree_deparse(shape->subquery, context));
		for (int i = 1; i <= list_length(pgt_tree_outputs(shape->subquery)); i++)
			appendStringInfo(sql, "%s%s", i > 1 ? ", " : "", pgt_sqltext_column(shape->relid, i));
		appendStringInfoChar(sql, ')');
	}
}

/* The columns of a table's key, as the change set calls them. */
static char *
key_columns(const ChangeShape *shape)
{
	Oid index;
	List *key = pgt_key_of_rows(shape->relid, &index);
	StringInfoData columns;
	ListCell *lc;

	initStringInfo(&columns);
	foreach (lc, key)
		for (int i = 0; i < shape->ncolumns; i++)
			if (shape->attnums[i] == lfirst_int(lc))
				appendStringInfo(&columns, "%s%s", columns.len > 0 ? ", " : "",
								 quote_identifier(shape->names[i]));
	if (columns.len == 0)
		elog(ERROR, "the key of relation %u is not captured", shape->relid);
	return columns.data;
}

/*
 * Rows without those that came, and those that went; the key tells which came.
 * Where the leaf has columns of the key set, its rows are looked up by them
 * here: what went cannot be found through an index, so joining the whole with
 * the key set would read it again for every key.
 */
static void
append_before(StringInfo sql, const BeforeLeaf *leaf, const char *columns,
			  const EmitContext *context)
{
	const ChangeShape *shape = leaf->shape;
	char *key = key_columns(shape);
	StringInfoData values;
	StringInfoData keys;
	ListCell *lc;
	ListCell *lk;

	appendStringInfo(sql, "%spgt_before_%d(pgt_w%s) AS NOT MATERIALIZED (",
					 sql->len == 0 ? "WITH " : ", ", leaf->leaf, columns);
	appendStringInfo(sql, "SELECT pgt_w%s FROM (", columns);
	append_new(sql, shape, context);
	initStringInfo(&values);
	initStringInfo(&keys);
	forboth (lc, leaf->columns, lk, leaf->keys)
	{
		appendStringInfo(&values, "%s%s", values.len > 0 ? ", " : "",
						 pgt_sqltext_column(shape->relid, lfirst_int(lc)));
		appendStringInfo(&keys, "%sk%d", keys.len > 0 ? ", " : "", lfirst_int(lk));
	}
	if (values.len > 0)
		appendStringInfo(sql, " WHERE (%s) IN (SELECT %s FROM pgt_keys)", values.data, keys.data);
	appendStringInfo(sql,
					 " UNION ALL (SELECT pgt_w%s FROM pgt_delta_%d WHERE pgt_w < 0 OFFSET 0))"
					 " u(pgt_w%s) WHERE pgt_w < 0 OR NOT ((%s) IN (SELECT %s FROM pgt_delta_%d"
					 " WHERE pgt_w > 0)))",
					 columns, shape->number, columns, key, key, shape->number);
}

/* Weighted rows: with the old one the change is taken back, in the other it is added. */
static void
append_weighted(StringInfo sql, const ChangeShape *shape, const char *columns, bool old,
				const EmitContext *context)
{
	begin_item(sql, shape, old ? "old" : "ever", columns);
	append_new(sql, shape, context);
	appendStringInfo(sql, " UNION ALL (SELECT %spgt_w%s FROM pgt_delta_%d OFFSET 0))",
					 old ? "-" : "", columns, shape->number);
}

/* ---- Before the change ---- */

/* Columns that are keys, or equated with one by a condition between two columns. */
static void
find_keys(int rtindex, List *keys, List *quals, BeforeLeaf *leaf)
{
	ListCell *lc;
	ListCell *lq;

	foreach (lc, keys)
	{
		Var *key = lfirst(lc);
		AttrNumber column = 0;

		/* The server is to take = for what the key's own equality is. */
		if (key == NULL || !IsA(key, Var) || key->varlevelsup != 0 ||
			key->vartype >= FirstNormalObjectId)
			continue;
		if (key->varno == rtindex)
			column = key->varattno;
		foreach (lq, quals)
		{
			Node *other;
			AttrNumber equated;

			if (column == 0 && pgt_inline_equates(lfirst(lq), rtindex, &equated, &other) &&
				IsA(other, Var) && ((Var *) other)->varno == key->varno &&
				((Var *) other)->varattno == key->varattno && ((Var *) other)->varlevelsup == 0 &&
				exprType(linitial(((OpExpr *) lfirst(lq))->args)) == key->vartype &&
				exprType(lsecond(((OpExpr *) lfirst(lq))->args)) == key->vartype)
				column = equated;
		}
		if (column <= 0)
			continue;
		leaf->columns = lappend_int(leaf->columns, column);
		leaf->keys = lappend_int(leaf->keys, foreach_current_index(lc) + 1);
	}
}

/*
 * Every changed leaf of FROM is read as it was before, here and in subqueries;
 * in place. keys: of the query's rows, NULL for those that are null.
 */
void
pgt_leaf_state_use_before(Query *query, List *keys, EmitContext *context)
{
	List *rtindexes = query->setOperations != NULL ? pgt_tree_arm_rtindexes(query)
												   : pgt_tree_rtindexes((Node *) query->jointree);
	bool inner = query->setOperations == NULL && !pgt_tree_has_outer_join(query);
	List *entries = NIL;
	List *quals = NIL;
	ListCell *lc;

	if (inner)
		pgt_tree_flatten_inner((Node *) query->jointree, &entries, &quals);
	/* First all keys are found, while all columns have their numbers. */
	foreach (lc, rtindexes)
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);
		BeforeLeaf *leaf;

		if (rte->rtekind != RTE_RELATION || pgt_tree_find_shape(context, rte->relid) == NULL)
			continue;
		leaf = palloc0(sizeof(BeforeLeaf));
		leaf->shape = pgt_tree_find_shape(context, rte->relid);
		leaf->leaf = pgt_tree_leaf(rte);
		if (inner)
			find_keys(lfirst_int(lc), keys, quals, leaf);
		context->before = lappend(context->before, leaf);
	}
	foreach (lc, rtindexes)
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);

		if (rte->rtekind == RTE_SUBQUERY)
			pgt_leaf_state_use_before(rte->subquery, NIL, context);
		else if (rte->rtekind == RTE_RELATION && pgt_tree_find_shape(context, rte->relid) != NULL)
			pgt_tree_use_state(query, lfirst_int(lc), LEAF_BEFORE, context);
	}
}

/* The columns after pgt_w. */
static char *
list_columns(const ChangeShape *shape)
{
	StringInfoData columns;

	initStringInfo(&columns);
	for (int i = 0; i < shape->ncolumns; i++)
		appendStringInfo(&columns, ", %s", quote_identifier(shape->names[i]));
	return columns.data;
}

char *
pgt_leaf_state_items(EmitContext *context)
{
	StringInfoData sql;
	ListCell *lc;

	initStringInfo(&sql);
	foreach (lc, context->shapes)
	{
		ChangeShape *shape = lfirst(lc);

		if (bms_is_member(2 * shape->number, context->ctes))
			append_weighted(&sql, shape, list_columns(shape), true, context);
		if (bms_is_member(2 * shape->number + 1, context->ctes))
			append_weighted(&sql, shape, list_columns(shape), false, context);
	}
	foreach (lc, context->before)
	{
		BeforeLeaf *leaf = lfirst(lc);

		append_before(&sql, leaf, list_columns(leaf->shape), context);
	}
	if (sql.len > 0)
		appendStringInfoChar(&sql, ' ');
	return sql.data;
}
