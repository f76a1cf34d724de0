/*
 * alter.c: changing a stream table: its options, its query, and what a change
 * of other objects makes necessary.
 *
 * A new query keeps the user's table, with its oid, grants, indexes and views,
 * as long as the columns stay the same, change their types or are followed by
 * new ones; else see recreate.c. The table is filled anew in the same
 * transaction, so nobody else sees it empty.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_attribute.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "pgt_compat.h"
#include "pgt_dependency.h"
#include "pgt_frontier.h"
#include "pgt_refresh.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

PgtStreamTable *
pgt_lifecycle_open(const char *name)
{
	PgtStreamTable *st = pgt_stream_table_get(name);
	int64 pgt_id = st->pgt_id;

	pgt_security_check_owner(st->relid);
	(void) pgt_refresh_lock(pgt_id, true);
	/* It may have changed or gone while we waited. */
	st = pgt_stream_table_find_id(pgt_id);
	if (st == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("stream table \"%s\" does not exist", name),
						errdetail("It was dropped by another session.")));
	return st;
}

/* ---- Columns ---- */

static bool
is_same_column(Form_pg_attribute attribute, const ColumnDef *column)
{
	return attribute->atttypid == column->typeName->typeOid &&
		   attribute->atttypmod == column->typeName->typemod &&
		   attribute->attcollation == column->collOid;
}

static void
append_type(StringInfo sql, const ColumnDef *column)
{
	appendStringInfoString(sql,
						   pgt_sqltext_type(column->typeName->typeOid, column->typeName->typemod));
	if (OidIsValid(column->collOid))
		appendStringInfo(sql, " COLLATE %s", pgt_sqltext_collation(column->collOid));
}

/* Are the old columns the first of the new ones, but for their types? */
static bool
can_follow(Oid relid, List *columns)
{
	Relation table = table_open(relid, AccessExclusiveLock);
	TupleDesc desc = RelationGetDescr(table);
	bool follows = list_length(columns) >= desc->natts;

	for (int i = 0; i < desc->natts && follows; i++)
		follows = strcmp(NameStr(TupleDescAttr(desc, i)->attname),
						 list_nth_node(ColumnDef, columns, i)->colname) == 0;
	table_close(table, NoLock);
	return follows;
}

/* ALTER TABLE that gives the table the columns, or NULL if it has them. */
static char *
alter_columns_statement(Oid relid, List *columns)
{
	Relation table = table_open(relid, AccessExclusiveLock);
	TupleDesc desc = RelationGetDescr(table);
	StringInfoData sql;
	int i = 0;
	ListCell *lc;

	initStringInfo(&sql);
	foreach (lc, columns)
	{
		ColumnDef *column = lfirst_node(ColumnDef, lc);
		const char *name = quote_identifier(column->colname);

		if (i >= desc->natts)
		{
			appendStringInfo(&sql, "%s ADD COLUMN %s ", sql.len > 0 ? "," : "", name);
			append_type(&sql, column);
		}
		else if (!is_same_column(TupleDescAttr(desc, i), column))
		{
			appendStringInfo(&sql, "%s ALTER COLUMN %s TYPE ", sql.len > 0 ? "," : "", name);
			append_type(&sql, column);
			appendStringInfoString(&sql, " USING NULL::");
			appendStringInfoString(&sql, pgt_sqltext_type(column->typeName->typeOid, -1));
		}
		i++;
	}
	table_close(table, NoLock);
	return sql.len == 0 ? NULL
						: psprintf("ALTER TABLE %s%s", pgt_sqltext_relation(relid), sql.data);
}

/* ---- Query ---- */

static char *
stored_query_text(Oid view_relid)
{
	Relation view = table_open(view_relid, AccessShareLock);
	char *text = pgt_query_text(copyObject(get_view_query(view)));

	table_close(view, NoLock);
	return text;
}

static List *
list_consumers(Oid relid)
{
	List *consumers = NIL;
	ListCell *lc;

	foreach (lc, pgt_dependency_consumers(relid))
	{
		PgtStreamTable *st = pgt_stream_table_find_id(*(int64 *) lfirst(lc));

		if (st != NULL)
			consumers = lappend(consumers, st);
	}
	return consumers;
}

/*
 * Without rows and identity the table can take any rows and any identity. Who
 * reads it may have relied on its key, and will not see as changes how its rows
 * are replaced: rebuild_consumers must follow.
 */
static void
empty_table(PgtStreamTable *st)
{
	ListCell *lc;

	foreach (lc, list_consumers(st->relid))
		pgt_define_drop_machinery(lfirst(lc));
	pgt_define_drop_machinery(st);
	pgt_ddl_run_as(pgt_stream_table_owner(st),
				   psprintf("TRUNCATE %s", pgt_sqltext_relation(st->relid)));
	pgt_refresh_drop_storage(st);
}

static void
rebuild_consumers(PgtStreamTable *st)
{
	const char *reason = psprintf("stream table %s was redefined", pgt_sqltext_relation(st->relid));
	ListCell *lc;

	foreach (lc, list_consumers(st->relid))
		pgt_lifecycle_rebuild(lfirst(lc), reason);
}

static void
fill_again(PgtStreamTable *st, bool was_filled)
{
	PgtRefreshRequest request = {
		.pgt_id = st->pgt_id, .mode = "FULL", .initiated_by = "MANUAL", .attempt = 1};

	if (was_filled)
		(void) pgt_refresh_run(&request);
}

static bool
is_filled(const PgtStreamTable *st)
{
	PgtFrontierRow row;

	pgt_frontier_get(st->pgt_id, &row);
	return row.frontier.valid;
}

static void
set_columns(Oid relid, List *columns)
{
	char *sql = alter_columns_statement(relid, columns);

	if (sql != NULL)
		pgt_ddl_run(sql);
}

/*
 * Keeps away the refreshes of all that is made anew with it, upstream first as
 * refreshes of chains do: they hold this lock when they wait for the table.
 */
static void
lock_downstream(PgtStreamTable *st)
{
	ListCell *lc;

	(void) pgt_refresh_lock(st->pgt_id, true);
	foreach (lc, list_consumers(st->relid))
		lock_downstream(lfirst(lc));
}

static void
set_query(PgtStreamTable *st, const char *text, Query *query)
{
	List *columns = pgt_query_columns(query);
	List *old_sources = pgt_dependency_list(st->pgt_id);

	pgt_define_check_cycle(st, query);
	lock_downstream(st);
	LockRelationOid(st->relid, AccessExclusiveLock);
	if (can_follow(st->relid, columns))
	{
		empty_table(st);
		set_columns(st->relid, columns);
		pgt_define_drop_view(st->view_relid, st->relid);
	}
	else
	{
		pgt_recreate_check(st);
		pgt_define_drop_machinery(st);
		pgt_recreate_table(st, columns);
	}
	st->view_relid = pgt_define_view(st->pgt_id, st->relid, query, columns,
									 pgt_stream_table_owner(st));
	st->original_query = pstrdup(text);
	pgt_stream_table_update(st);
	pgt_query_check_rights(st->view_relid);
	(void) pgt_define_machinery(st, text);
	pgt_stream_table_update(st);
	pgt_define_release_sources(old_sources);
}

void
pgt_lifecycle_redefine(PgtStreamTable *st, const char *text, const char *reason)
{
	bool was_filled = is_filled(st);
	PgtSecurity saved = pgt_security_become_extension_owner(); /* for its search_path */
	Query *query = pgt_query_parse(text);

	pgt_security_restore(&saved);
	set_query(st, st->original_query, query);
	pgt_frontier_mark_rebuild(st->pgt_id, reason);
	fill_again(st, was_filled);
	rebuild_consumers(st);
}

void
pgt_lifecycle_rebuild(PgtStreamTable *st, const char *reason)
{
	pgt_lifecycle_redefine(st, pgt_lifecycle_query_text(st), reason);
}

/* ---- Options ---- */

static bool
set_options(PgtStreamTable *st, const PgtAlterArguments *args)
{
	PgtStreamTable old = *st;

	if (args->schedule != NULL)
	{
		st->schedule = pgt_option_schedule(args->schedule);
		pgt_option_warn_scheduler();
	}
	if (args->refresh_mode != NULL)
		st->mode = pgt_refresh_mode_parse(args->refresh_mode);
	if (args->diamond_consistency != NULL)
		st->diamond_consistency = pstrdup(
			pgt_option_diamond_consistency(args->diamond_consistency));
	if (args->identity != NULL)
		st->identity = pstrdup(pgt_option_identity(args->identity));
	return st->mode != old.mode || strcmp(st->identity, old.identity) != 0 ||
		   strcmp(st->diamond_consistency, old.diamond_consistency) != 0 ||
		   (st->schedule == NULL) != (old.schedule == NULL) ||
		   (st->schedule != NULL && strcmp(st->schedule, old.schedule) != 0);
}

static void
check_mode(const PgtStreamTable *st)
{
	PgtDefinition *definition;

	if (st->mode != PGT_MODE_DIFFERENTIAL)
		return;
	definition = pgt_delta_analyze(st->view_relid, NULL);
	if (definition->full_reason != NULL)
		pgt_query_refuse_mode(definition, st->original_query);
}

void
pgt_lifecycle_alter(PgtStreamTable *st, const PgtAlterArguments *args)
{
	bool was_filled = is_filled(st);
	char *old_identity = st->identity;
	Query *query = NULL;
	bool changed;

	pgt_lifecycle_check_isolation();
	if (args->query != NULL)
	{
		query = pgt_query_parse(args->query);
		if (strcmp(pgt_query_text(copyObject(query)), stored_query_text(st->view_relid)) == 0)
			query = NULL;
	}
	changed = set_options(st, args);
	if (query != NULL)
	{
		set_query(st, args->query, query);
		pgt_frontier_clear_error(st->pgt_id);
		pgt_frontier_mark_rebuild(st->pgt_id, "the query was changed");
		fill_again(st, was_filled);
		rebuild_consumers(st);
	}
	else if (changed)
	{
		check_mode(st);
		if (strcmp(st->identity, old_identity) != 0)
			pgt_refresh_set_identity(st);
		pgt_stream_table_update(st);
	}
	if (args->status != NULL)
		pgt_lifecycle_pause(st, pgt_option_paused(args->status));
}
