/*
 * emit.c: the SQL text of every statement of a stage.
 *
 * Inputs in memory have fixed names: pgt_delta_<n> for the change sets and
 * pgt_keys (columns k1, k2, ...) for a key set. Everything else is deparsed
 * with a search_path of pg_catalog, so it is qualified.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "pgt_sqltext.h"

#include "delta_internal.h"

#define KEYS_INPUT "pgt_keys"

int
pgt_emit_nkeys(const PgtStage *stage)
{
	if (stage->technique == PGT_TECHNIQUE_PARTITION)
		return stage->nscope;
	switch (stage->identity)
	{
		case PGT_IDENTITY_SINGLE:
			return 0;
		case PGT_IDENTITY_KEY:
			return stage->nkeys;
		default:
			return list_length(pgt_tree_outputs(stage->query));
	}
}

/* Those of the outputs that make up the key rows: the key, or the scope of a PARTITION. */
static List *
key_entries_of(const PgtStage *stage, List *outputs)
{
	List *keys = NIL;

	if (stage->technique == PGT_TECHNIQUE_PARTITION)
	{
		for (int i = 0; i < stage->nscope; i++)
			keys = lappend(keys, list_nth(outputs, stage->scope[i] - 1));
		return keys;
	}
	if (stage->identity == PGT_IDENTITY_ROW)
		return outputs;
	for (int i = 0; i < stage->nkeys; i++)
		keys = lappend(keys, list_nth(outputs, stage->keys[i] - 1));
	return keys;
}

static List *
key_entries(const PgtStage *stage)
{
	return key_entries_of(stage, pgt_tree_outputs(stage->query));
}

/* Are key rows distinct by the operators of their columns? Else they are whole rows. */
static bool
has_distinct_keys(const PgtStage *stage)
{
	return stage->technique == PGT_TECHNIQUE_PARTITION || stage->identity == PGT_IDENTITY_KEY;
}

/* A stage recomputed as a whole: may a change of its inputs touch no row of it? */
bool
pgt_emit_has_filter(const PgtStage *stage)
{
	return stage->technique == PGT_TECHNIQUE_PARTITION &&
		   (stage->query->jointree->quals != NULL ||
			list_length(pgt_tree_leaves(stage->query)) != 1);
}

/* Columns k1.. of a key set. */
TupleDesc
pgt_emit_key_desc(const PgtStage *stage)
{
	List *keys = key_entries(stage);
	TupleDesc desc = CreateTemplateTupleDesc(list_length(keys));
	AttrNumber number = 0;
	ListCell *lc;

	foreach (lc, keys)
	{
		Node *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;
		char name[NAMEDATALEN];

		number++;
		snprintf(name, sizeof(name), "k%d", number);
		TupleDescInitEntry(desc, number, name, exprType(expr), exprTypmod(expr), 0);
		TupleDescInitEntryCollation(desc, number, exprCollation(expr));
	}
	return desc;
}

static void
append_columns(StringInfo sql, const char *prefix, int ncolumns)
{
	for (int i = 1; i <= ncolumns; i++)
		appendStringInfo(sql, "%s%s%d", i > 1 ? ", " : "", prefix, i);
}

/* The changed relations are read under WHERE false: their changes touch no key. */
static void
append_no_keys(StringInfo sql, List *entries)
{
	ListCell *lc;

	appendStringInfoString(sql, "SELECT ");
	foreach (lc, entries)
	{
		Node *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;

		appendStringInfo(sql, "%sNULL::%s", foreach_current_index(lc) > 0 ? ", " : "",
						 pgt_sqltext_type(exprType(expr), exprTypmod(expr)));
	}
	appendStringInfoString(sql, " WHERE false");
}

char *
pgt_emit_keys(const PgtStage *stage, EmitContext *context)
{
	List *entries = key_entries(stage);
	bool distinct = has_distinct_keys(stage);
	int nkeys = list_length(entries);
	int number = 0;
	StringInfoData sql;
	StringInfoData body;
	ListCell *lc;

	initStringInfo(&body);
	foreach (lc, pgt_fragment_queries(stage->query, entries, context))
		appendStringInfo(&body, "%s%s", body.len > 0 ? " UNION ALL " : "",
						 pgt_tree_deparse(lfirst(lc), context));
	if (body.len == 0)
		append_no_keys(&body, entries);
	initStringInfo(&sql);
	if (nkeys == 0)
	{
		appendStringInfo(&sql, "%sSELECT FROM (%s) k LIMIT 1", pgt_leaf_state_items(context),
						 body.data);
		return sql.data;
	}
	appendStringInfo(&sql, "%sSELECT %s", pgt_leaf_state_items(context),
					 distinct ? "DISTINCT " : "");
	foreach (lc, entries)
	{
		Oid collation = exprCollation((Node *) lfirst_node(TargetEntry, lc)->expr);

		number++;
		appendStringInfo(&sql, "%sk%d", number > 1 ? ", " : "", number);
		/* Branches with NULL for an absent side have no collation of their own. */
		if (OidIsValid(collation))
			appendStringInfo(&sql, " COLLATE %s AS k%d", pgt_sqltext_collation(collation), number);
	}
	appendStringInfo(&sql, " FROM (%s) k(", body.data);
	append_columns(&sql, "k", nkeys);
	appendStringInfoChar(&sql, ')');
	return sql.data;
}

/*
 * key = pgt_keys.k<n>, or key IS NULL. A key without equality is only known to
 * be not null: null or not parts the rows, so that no row is read twice.
 */
static Node *
key_condition(Node *key, bool is_null, Oid operator, Oid collation, int rtindex, AttrNumber column)
{
	if (is_null || !OidIsValid(operator))
	{
		NullTest *test = makeNode(NullTest);

		test->arg = (Expr *) key;
		test->nulltesttype = is_null ? IS_NULL : IS_NOT_NULL;
		test->argisrow = false;
		test->location = -1;
		return (Node *) test;
	}
	return (Node *) make_opclause(operator, BOOLOID, false, (Expr *) key,
								  (Expr *) makeVar(rtindex, column, exprType(key), -1,
												   exprCollation(key), 0),
								  InvalidOid, collation);
}

/* Operators and collations of the key columns; an operator may be missing for ROW. */
static void
key_equality(const PgtStage *stage, int index, Node *key, Oid *operator, Oid * collation)
{
	if (stage->technique == PGT_TECHNIQUE_PARTITION)
	{
		*operator= stage->scope_operators[index];
		*collation = stage->scope_collations[index];
		return;
	}
	if (stage->identity == PGT_IDENTITY_KEY)
	{
		*operator= stage->key_operators[index];
		*collation = stage->key_collations[index];
		return;
	}
	*collation = exprCollation(key);
	if (!pgt_key_column_equality(exprType(key), operator))
		*operator= InvalidOid;
}

/* Restricts one query to a key set, in place; entries are the keys in its terms. */
static void
restrict_query(Query *query, const PgtStage *stage, List *entries, const Bitmapset *null_keys,
			   bool by_name)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	RangeTblRef *ref = makeNode(RangeTblRef);
	List *names = NIL;
	List *conditions = NIL;
	int rtindex;
	int number = 0;
	ListCell *lc;

	rte->eref = makeAlias("pgt_k", NIL);
	query->rtable = lappend(query->rtable, rte);
	rtindex = list_length(query->rtable);
	ref->rtindex = rtindex;
	foreach (lc, entries)
	{
		Node *key = (Node *) copyObject(lfirst_node(TargetEntry, lc)->expr);
		Oid operator;
		Oid collation;

		number++;
		key_equality(stage, number - 1, key, &operator, & collation);
		names = lappend(names, makeString(psprintf("k%d", number)));
		conditions = lappend(conditions,
							 key_condition(key, bms_is_member(number, null_keys), operator,
										   collation, rtindex, number));
	}
	rte->inFromCl = true;
	pgt_tree_name_input(rte, by_name ? KEYS_INPUT : "pgt_keyset", names);

	if (!pgt_tree_has_outer_join(query))
	{
		List *rtindexes = NIL;
		List *quals = NIL;
		List *rest;
		Node *tree;

		pgt_tree_flatten_inner((Node *) query->jointree, &rtindexes, &quals);
		tree = pgt_order_joins(query, lcons_int(rtindex, rtindexes), list_concat(quals, conditions),
							   rtindex, &rest);
		query->jointree = makeFromExpr(list_make1(tree),
									   rest == NIL ? NULL : (Node *) make_ands_explicit(rest));
	}
	else
	{
		List *quals = list_concat(pgt_tree_conjuncts(query->jointree->quals), conditions);

		/* The keys come first, so that LATERAL items can refer to them. */
		query->jointree = makeFromExpr(lcons(ref, list_copy(query->jointree->fromlist)),
									   quals == NIL ? NULL : (Node *) make_ands_explicit(quals));
	}
}

bool
pgt_emit_is_ordered(const PgtStage *stage)
{
	return !pgt_tree_has_outer_join(stage->query);
}

/*
 * For rows without a key, equal keys must not multiply rows: the key set is
 * made distinct by SQL's equality (columns without one do not restrict).
 */
static char *
distinct_keyset(const PgtStage *stage, List *entries)
{
	StringInfoData sql;
	StringInfoData columns;
	int number = 0;
	ListCell *lc;

	initStringInfo(&columns);
	foreach (lc, entries)
	{
		Node *key = (Node *) lfirst_node(TargetEntry, lc)->expr;
		Oid operator;
		Oid collation;

		number++;
		key_equality(stage, number - 1, key, &operator, & collation);
		appendStringInfo(&columns, "%s", number > 1 ? ", " : "");
		if (OidIsValid(operator))
			appendStringInfo(&columns, "k%d", number);
		else
			appendStringInfo(&columns, "NULL::pg_catalog.bool");
	}
	initStringInfo(&sql);
	appendStringInfo(&sql, "WITH pgt_keyset(");
	append_columns(&sql, "k", number);
	appendStringInfo(&sql, ") AS NOT MATERIALIZED (SELECT DISTINCT %s FROM %s) ", columns.data,
					 KEYS_INPUT);
	return sql.data;
}

static char *
rows_of_keys(const PgtStage *stage, Query *query, const Bitmapset *null_keys,
			 const EmitContext *context)
{
	bool by_name = has_distinct_keys(stage);
	List *arms;
	StringInfoData sql;
	ListCell *lc;

	if (pgt_emit_nkeys(stage) == 0)
		return pgt_emit_all(stage);
	initStringInfo(&sql);
	if (!by_name)
		appendStringInfoString(&sql, distinct_keyset(stage, key_entries(stage)));
	arms = query->setOperations != NULL ? pgt_tree_union_arms(query) : list_make1(query);
	foreach (lc, arms)
	{
		Query *arm = lfirst(lc);
		List *entries = key_entries_of(stage, pgt_tree_outputs(arm));

		if (query->setOperations == NULL && !arm->hasDistinctOn && !pgt_layer_has_limit(arm))
			arm->sortClause = NIL;
		restrict_query(arm, stage, copyObject(entries), null_keys, by_name);
		appendStringInfo(&sql, "%s%s", lc != list_head(arms) ? " UNION ALL " : "",
						 pgt_tree_deparse(arm, context));
	}
	return sql.data;
}

char *
pgt_emit_rows_of_keys(const PgtStage *stage, const Bitmapset *null_keys, const EmitContext *context)
{
	return rows_of_keys(stage, copyObject(stage->query), null_keys, context);
}

/* The same over the old state. */
char *
pgt_emit_old_rows_of_keys(const PgtStage *stage, const Bitmapset *null_keys, EmitContext *context)
{
	Query *query = copyObject(stage->query);
	List *keys = NIL;
	char *rows;
	ListCell *lc;

	foreach (lc, key_entries_of(stage, pgt_tree_outputs(query)))
		keys = lappend(keys, bms_is_member(foreach_current_index(lc) + 1, null_keys)
								 ? NULL
								 : lfirst_node(TargetEntry, lc)->expr);
	pgt_leaf_state_use_before(query, keys, context);
	rows = rows_of_keys(stage, query, null_keys, context);
	return psprintf("%s%s", pgt_leaf_state_items(context), rows);
}

/* Sum of signed terms, the weight first; the states that it reads are in the context then. */
char *
pgt_emit_terms(Query *query, EmitContext *context)
{
	int ncolumns = list_length(pgt_tree_outputs(query));
	List *signs;
	List *terms = pgt_term_queries(query, context, &signs);
	StringInfoData body;
	ListCell *lc;
	ListCell *ls;

	initStringInfo(&body);
	forboth (lc, terms, ls, signs)
	{
		appendStringInfo(&body, "%sSELECT %spgt_w%s", body.len > 0 ? " UNION ALL " : "",
						 lfirst_int(ls) < 0 ? "-" : "", ncolumns > 0 ? ", " : "");
		append_columns(&body, "c", ncolumns);
		appendStringInfo(&body, " FROM (%s) t(", pgt_tree_deparse(lfirst(lc), context));
		append_columns(&body, "c", ncolumns);
		appendStringInfo(&body, "%spgt_w)", ncolumns > 0 ? ", " : "");
	}
	return body.data;
}

static char *
emit_terms(Query *query, EmitContext *context)
{
	char *terms = pgt_emit_terms(query, context);

	return psprintf("%s%s", pgt_leaf_state_items(context), terms);
}

char *
pgt_emit_signed(const PgtStage *stage, EmitContext *context)
{
	if (stage->recursion != NULL)
		return pgt_recursion_emit_signed(stage, context);
	return emit_terms(stage->query, context);
}

char *
pgt_emit_inputs(const PgtStage *stage, EmitContext *context)
{
	return emit_terms(pgt_group_input_query(stage), context);
}

char *
pgt_emit_inputs_of_keys(const PgtStage *stage, const Bitmapset *null_keys,
						const EmitContext *context)
{
	Query *query = copyObject(pgt_group_input_query(stage));
	List *outputs = pgt_tree_outputs(query);
	int ncolumns = list_length(outputs);
	StringInfoData sql;

	if (stage->nkeys > 0)
		restrict_query(query, stage, list_copy_head(outputs, stage->nkeys), null_keys, true);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT 1 AS pgt_w%s", ncolumns > 0 ? ", " : "");
	append_columns(&sql, "c", ncolumns);
	appendStringInfo(&sql, " FROM (%s) t", pgt_tree_deparse(query, context));
	if (ncolumns > 0)
	{
		appendStringInfoChar(&sql, '(');
		append_columns(&sql, "c", ncolumns);
		appendStringInfoChar(&sql, ')');
	}
	return sql.data;
}

char *
pgt_emit_all(const PgtStage *stage)
{
	if (stage->recursion != NULL)
		return pgt_recursion_emit_all(stage);
	return pgt_tree_deparse(stage->query, NULL);
}

/* state(arguments) FILTER (...), and how many transitions are in it. */
static void
append_state(StringInfo sql, const PgtStage *stage, const PgtAggregate *aggregate)
{
	StringInfoData arguments;
	StringInfoData condition;

	initStringInfo(&arguments);
	initStringInfo(&condition);
	if (aggregate->filter_input >= 0)
		appendStringInfo(&condition, "c%d", stage->nkeys + aggregate->filter_input + 1);
	for (int i = 0; i < aggregate->nargs; i++)
	{
		int column = stage->nkeys + aggregate->first_input + i + 1;

		appendStringInfo(&arguments, "%sc%d", i > 0 ? ", " : "", column);
		/* IS NOT NULL would ask for the fields of a composite value. */
		if (aggregate->strict)
			appendStringInfo(&condition, "%sc%d IS DISTINCT FROM NULL",
							 condition.len > 0 ? " AND " : "", column);
	}
	if (aggregate->nargs == 0)
		appendStringInfoChar(&arguments, '*');
	appendStringInfo(sql, ", %s(%s)", pgt_state_aggregate_name(aggregate), arguments.data);
	if (aggregate->filter_input >= 0)
		appendStringInfo(sql, " FILTER (WHERE c%d)", stage->nkeys + aggregate->filter_input + 1);
	appendStringInfoString(sql, ", count(*)");
	if (condition.len > 0)
		appendStringInfo(sql, " FILTER (WHERE %s)", condition.data);
}

char *
pgt_emit_states(const PgtStage *stage)
{
	Query *query = pgt_group_input_query(stage);
	int ncolumns = list_length(pgt_tree_outputs(query));
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	append_columns(&sql, "c", stage->nkeys);
	appendStringInfo(&sql, "%scount(*)", stage->nkeys > 0 ? ", " : "");
	for (int i = 0; i < stage->naggregates; i++)
		append_state(&sql, stage, &stage->aggregates[i]);
	appendStringInfo(&sql, " FROM (%s) t", pgt_tree_deparse(query, NULL));
	if (ncolumns > 0)
	{
		appendStringInfoChar(&sql, '(');
		append_columns(&sql, "c", ncolumns);
		appendStringInfoChar(&sql, ')');
	}
	if (stage->nkeys > 0)
	{
		appendStringInfoString(&sql, " GROUP BY ");
		append_columns(&sql, "c", stage->nkeys);
	}
	return sql.data;
}
