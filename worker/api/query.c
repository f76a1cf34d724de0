/*
 * query.c: from the text of a defining query to PostgreSQL's Query.
 *
 * PostgreSQL parses and analyses; what is checked here is only what a view
 * would allow and a table cannot have. Positions of errors are made to refer
 * to the user's query instead of to the statement that calls our function.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/view.h"
#include "common/keywords.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "parser/scanner.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "pgt_compat.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

typedef struct TextPosition
{
	const char *text;
	bool in_bytes; /* as the delta engine counts */
	int otherwise; /* position of what the tree does not place, in characters */
} TextPosition;

int
pgt_query_position(const char *text, int position)
{
	if (position <= 0)
		return 0;
	return pg_mbstrlen_with_len(text, Min(position - 1, (int) strlen(text))) + 1;
}

static void
move_position(void *arg)
{
	TextPosition *where = arg;
	int position = geterrposition();

	if (position <= 0 && where->otherwise <= 0)
		return;
	if (position <= 0)
		position = where->otherwise;
	else if (where->in_bytes)
		position = pgt_query_position(where->text, position);
	errposition(0);
	internalerrposition(position);
	internalerrquery(where->text);
}

static RawStmt *
parse_one(const char *text)
{
	List *statements = raw_parser(text, RAW_PARSE_DEFAULT);

	if (list_length(statements) != 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg(statements == NIL ? "the defining query is empty"
												 : "the defining query must be a single statement"),
						errhint("Give one SELECT.")));
	return linitial_node(RawStmt, statements);
}

static void
check_columns(Query *query)
{
	List *names = NIL;
	ListCell *lc;

	foreach (lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		String *name = makeString(tle->resname);

		if (tle->resjunk)
			continue;
		if (list_member(names, name))
			ereport(ERROR, (errcode(ERRCODE_DUPLICATE_COLUMN),
							errmsg("column \"%s\" appears more than once in the defining query",
								   tle->resname),
							errposition(exprLocation((Node *) tle->expr) + 1),
							errhint("Give each column a name of its own with AS.")));
		names = lappend(names, name);
	}
	if (names == NIL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the defining query has no columns"),
						errdetail("Its rows could not be told apart."), errposition(1),
						errhint("Select at least one column.")));
}

/* The token of a keyword. */
static int
keyword(const char *word)
{
	return ScanKeywordTokens[ScanKeywordLookup(word, &ScanKeywords)];
}

/* Where a locking clause begins (in bytes, from 0), or -1: no node of the parser tells. */
static int
find_locking_clause(const char *text)
{
	core_yy_extra_type extra;
	core_YYSTYPE value;
	YYLTYPE location;
	core_yyscan_t scanner = scanner_init(text, &extra, &ScanKeywords, ScanKeywordTokens);
	int last = 0;
	int start = -1;
	int found = -1;
	int token;

	while (found < 0 && (token = core_yylex(&value, &location, scanner)) != 0)
	{
		if (last == keyword("for") && (token == keyword("update") || token == keyword("share") ||
									   token == keyword("no") || token == keyword("key")))
			found = start;
		last = token;
		start = location;
	}
	scanner_finish(scanner);
	return found;
}

/* The first name of a temporary relation, with its location in *context. */
static bool
find_temporary(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeVar))
	{
		Oid relid = RangeVarGetRelid((RangeVar *) node, NoLock, true);

		if (OidIsValid(relid) && get_rel_persistence(relid) == RELPERSISTENCE_TEMP)
		{
			*(int *) context = ((RangeVar *) node)->location;
			return true;
		}
	}
	return raw_expression_tree_walker(node, find_temporary, context);
}

/* What may be refused and has no place in the analysed query. */
static int
place_refused(const char *text, Node *statement)
{
	int location = find_locking_clause(text);

	if (location < 0)
		(void) find_temporary(statement, &location);
	return pgt_query_position(text, location + 1);
}

Query *
pgt_query_parse(const char *text)
{
	TextPosition where = {.text = text};
	ErrorContextCallback callback = {
		.previous = error_context_stack, .callback = move_position, .arg = &where};
	RawStmt *statement;
	Node *raw;
	Query *query;

	error_context_stack = &callback;
	statement = parse_one(text);
	if (!IsA(statement->stmt, SelectStmt))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the defining query is not a SELECT"), errhint("Give one SELECT.")));
	raw = copyObject(statement->stmt);
	query = parse_analyze_fixedparams(statement, text, NULL, 0, NULL);
	if (query->commandType != CMD_SELECT)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the defining query must not be SELECT INTO"),
						errhint("Leave INTO out; the result goes to the stream table.")));
	where.in_bytes = true;
	where.otherwise = place_refused(text, raw);
	pgt_delta_check_query(query);
	where.otherwise = 0;
	check_columns(query);
	error_context_stack = callback.previous;
	return query;
}

void
pgt_query_refuse_mode(const PgtDefinition *definition, const char *text)
{
	TextPosition where = {.text = text, .in_bytes = true};
	ErrorContextCallback callback = {
		.previous = error_context_stack, .callback = move_position, .arg = &where};

	error_context_stack = &callback;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the defining query cannot be maintained incrementally"),
			 errdetail("Reason: %s.", definition->full_reason),
			 definition->full_position > 0 ? errposition(definition->full_position) : 0,
			 errhint("Use refresh_mode => 'AUTO' or 'FULL', or see pgtrickle.validate_query().")));
}

List *
pgt_query_columns(Query *query)
{
	List *columns = NIL;
	ListCell *lc;

	foreach (lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Node *expr = (Node *) tle->expr;
		ColumnDef *column;

		if (tle->resjunk)
			continue;
		column = makeColumnDef(tle->resname, exprType(expr), exprTypmod(expr), exprCollation(expr));
		if (type_is_collatable(exprType(expr)) && !OidIsValid(column->collOid))
			ereport(ERROR, (errcode(ERRCODE_INDETERMINATE_COLLATION),
							errmsg("could not determine which collation to use for column \"%s\"",
								   tle->resname),
							errhint("Use the COLLATE clause to set the collation explicitly.")));
		columns = lappend(columns, column);
	}
	return columns;
}

bool
pgt_query_is_same_column(Form_pg_attribute attribute, const ColumnDef *column)
{
	return attribute->atttypid == column->typeName->typeOid &&
		   attribute->atttypmod == column->typeName->typemod &&
		   attribute->attcollation == column->collOid;
}

static bool
find_hidden_rows(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->securityQuals != NIL)
			ereport(
				ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg(
					 "row-level security of table \"%s\" hides rows from the owner of the stream table",
					 get_rel_name(rte->relid)),
				 errdetail("A stream table holds what its owner may see, whoever reads it."),
				 errhint(
					 "Let a role that bypasses row-level security own the stream table, and give the stream table policies of its own.")));
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, find_hidden_rows, context,
								 QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, find_hidden_rows, context);
}

/*
 * The executor's own check of tables, columns and functions, without running
 * anything. Queries run as the text that PostgreSQL writes down for them, and
 * in a few cases it does not read its own text.
 */
static void
check_plan(const char *text)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		pgt_spi_execute(psprintf("EXPLAIN (COSTS OFF) %s", text));
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->internalquery != NULL && error->internalpos > 0 && error->context == NULL)
		{
			FlushErrorState();
			error->sqlerrcode = ERRCODE_FEATURE_NOT_SUPPORTED;
			error->detail = psprintf("Of its own text of the query it says: %s.", error->message);
			error->message = "PostgreSQL cannot read the defining query as it writes it down";
			error->hint = "Write the part at this position in another way.";
			ReThrowError(error);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
}

void
pgt_query_check_rights(Oid view_relid)
{
	PgtSecurity saved = pgt_security_become(pgt_compat_relation_owner(view_relid));
	Relation view = table_open(view_relid, AccessShareLock);
	Query *query = copyObject(get_view_query(view));
	char *text = pgt_sqltext_query(query);
	ListCell *lc;

	table_close(view, NoLock);
	AcquireRewriteLocks(query, true, false);
	foreach (lc, QueryRewrite(query))
		(void) find_hidden_rows((Node *) lfirst(lc), NULL);
	check_plan(text);
	pgt_security_restore(&saved);
}
