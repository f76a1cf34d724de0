/*
 * sqltext.c: pieces of SQL text, always quoted and schema-qualified, and the
 * one resolver of stream table names.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "pgt_compat.h"
#include "pgt_sqltext.h"

char *
pgt_sqltext_qualified(const char *schema, const char *name)
{
	return psprintf("%s.%s", quote_identifier(schema), quote_identifier(name));
}

char *
pgt_sqltext_relation(Oid relid)
{
	char *name = get_rel_name(relid);

	if (name == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relid)));
	return pgt_sqltext_qualified(get_namespace_name(get_rel_namespace(relid)), name);
}

char *
pgt_sqltext_type(Oid type, int32 typmod)
{
	return format_type_extended(type, typmod,
								FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

char *
pgt_sqltext_collation(Oid collation)
{
	HeapTuple tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));
	Form_pg_collation form;
	char *text;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for collation %u", collation);
	form = (Form_pg_collation) GETSTRUCT(tuple);
	text = pgt_sqltext_qualified(get_namespace_name(form->collnamespace), NameStr(form->collname));
	ReleaseSysCache(tuple);
	return text;
}

char *
pgt_sqltext_operator(Oid operator)
{
	HeapTuple tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char *text;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	text = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
					NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return text;
}

char *
pgt_sqltext_column(Oid relid, AttrNumber attnum)
{
	return pstrdup(quote_identifier(get_attname(relid, attnum, false)));
}

char *
pgt_sqltext_literal(const char *text)
{
	return text == NULL ? pstrdup("NULL") : quote_literal_cstr(text);
}

static RangeVar *
parse_name(const char *name)
{
	char *copy = pstrdup(name);
	List *parts;

	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME), errmsg("name of the stream table is empty"),
				 errhint("Give a name such as 'orders_by_day' or 'sales.\"Orders by day\"'.")));
	if (!SplitIdentifierString(copy, '.', &parts))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_NAME), errmsg("invalid name syntax: %s", name),
			 errhint("Spell it as in SQL, such as 'orders_by_day' or 'sales.\"Orders by day\"'.")));
	parts = pgt_compat_split_name(name);
	if (list_length(parts) > 3)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
						errmsg("improper qualified name (too many dotted names): %s", name)));
	return makeRangeVarFromNameList(parts);
}

Oid
pgt_sqltext_resolve(const char *name, bool missing_ok)
{
	return RangeVarGetRelid(parse_name(name), NoLock, missing_ok);
}

void
pgt_sqltext_split(const char *name, char **schema, char **relname)
{
	RangeVar *rv = parse_name(name);
	Oid namespace = RangeVarGetCreationNamespace(rv);

	*schema = get_namespace_name(namespace);
	*relname = rv->relname;
}

/*
 * PostgreSQL leaves out the prefix of columns where a query reads one relation
 * only. Then ORDER BY and GROUP BY would find a column of the result by that
 * name first: a second relation, which nobody reads, makes it write them.
 */
static Query *
with_prefixes(Query *query)
{
	RangeTblEntry *unused;

	if (list_length(query->rtable) != 1)
		return query;
	unused = makeNode(RangeTblEntry);
	unused->rtekind = RTE_RESULT;
	unused->eref = makeAlias("unused", NIL);
	query->rtable = lappend(query->rtable, unused);
	return query;
}

/*
 * PostgreSQL writes a sort or group key such as -(1) as (- 1), and would read
 * that as the number of a column; a constant it writes with its type.
 */
static bool
fold_keys_walker(Node *node, void *context)
{
	ListCell *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, fold_keys_walker, context);
	foreach (lc, ((Query *) node)->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->ressortgroupref != 0 && IsA(tle->expr, OpExpr) &&
			list_length(((OpExpr *) tle->expr)->args) == 1 &&
			!contain_volatile_functions((Node *) tle->expr))
			tle->expr = (Expr *) eval_const_expressions(NULL, (Node *) tle->expr);
	}
	return query_tree_walker((Query *) node, fold_keys_walker, context, QTW_IGNORE_JOINALIASES);
}

char *
pgt_sqltext_query(Query *query)
{
	const char *const settings[][2] = {
		{"DateStyle", "ISO"}, {"IntervalStyle", "postgres"}, {"extra_float_digits", "1"}};
	int level = NewGUCNestLevel();
	char *text;

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	query = copyObject(query);
	(void) pgt_compat_simplify_query((Node *) query, NULL);
	(void) fold_keys_walker((Node *) query, NULL);
	text = pg_get_querydef(with_prefixes(query), false);
	AtEOXact_GUC(false, level);
	return text;
}
