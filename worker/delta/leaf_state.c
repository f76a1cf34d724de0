/*
 * leaf_state.c: the states of changed relations as WITH items.
 *
 * An item is a plain UNION ALL, which the server takes apart, so that
 * conditions find the table's rows through its indexes; the delta's arm ends in
 * OFFSET 0, since the scan of a tuplestore cannot depend on the outer row.
 */
#include "postgres.h"

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

/* Rows without those that came, and those that went; the key tells which came. */
static void
append_before(StringInfo sql, const ChangeShape *shape, const char *columns,
			  const EmitContext *context)
{
	char *key = key_columns(shape);

	begin_item(sql, shape, "before", columns);
	appendStringInfo(sql, "SELECT pgt_w%s FROM (", columns);
	append_new(sql, shape, context);
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

char *
pgt_leaf_state_items(EmitContext *context)
{
	StringInfoData sql;
	ListCell *lc;

	initStringInfo(&sql);
	foreach (lc, context->shapes)
	{
		ChangeShape *shape = lfirst(lc);
		StringInfoData columns;

		initStringInfo(&columns);
		for (int i = 0; i < shape->ncolumns; i++)
			appendStringInfo(&columns, ", %s", quote_identifier(shape->names[i]));
		if (bms_is_member(3 * shape->number, context->ctes))
			append_weighted(&sql, shape, columns.data, true, context);
		if (bms_is_member(3 * shape->number + 1, context->ctes))
			append_weighted(&sql, shape, columns.data, false, context);
		if (bms_is_member(3 * shape->number + 2, context->ctes))
			append_before(&sql, shape, columns.data, context);
	}
	if (sql.len > 0)
		appendStringInfoChar(&sql, ' ');
	return sql.data;
}
