/*
 * alter.c: changing a stream table: its options, its query, and what a change
 * of other objects makes necessary.
 *
 * A new query whose columns are those of the table, or these followed by new
 * ones, keeps the user's table and everything on it. Hidden view, stages,
 * states, capture and dependencies are exchanged, and the rows become those of
 * the new query as a difference: who reads the table, by query, as a stream
 * table or from the WAL, sees what is different and nothing else. Other columns
 * need the user's consent to what is lost, see losses.c.
 *
 * Locks, until the end of the transaction: the refresh lock (and, if the rows
 * are identified otherwise from now on, those of the stream tables downstream);
 * ShareRowExclusive on the sources, by oid; on the table the same as long as
 * neither columns nor identity change, else AccessExclusive.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_attribute.h"
#include "nodes/makefuncs.h"
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

static void
append_type(StringInfo sql, const ColumnDef *column)
{
	appendStringInfoString(sql,
						   pgt_sqltext_type(column->typeName->typeOid, column->typeName->typemod));
	if (OidIsValid(column->collOid))
		appendStringInfo(sql, " COLLATE %s", pgt_sqltext_collation(column->collOid));
}

static PgtColumnsFit
fit_columns(Oid relid, List *columns)
{
	Relation table = table_open(relid, AccessShareLock);
	TupleDesc desc = RelationGetDescr(table);
	PgtColumnsFit fit = list_length(columns) < desc->natts	  ? PGT_COLUMNS_REMAKE
						: list_length(columns) == desc->natts ? PGT_COLUMNS_SAME
															  : PGT_COLUMNS_FOLLOW;

	for (int i = 0; i < desc->natts && fit != PGT_COLUMNS_REMAKE; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		ColumnDef *column = list_nth_node(ColumnDef, columns, i);

		if (strcmp(NameStr(attribute->attname), column->colname) != 0)
			fit = PGT_COLUMNS_REMAKE;
		else if (!pgt_query_is_same_column(attribute, column))
			fit = PGT_COLUMNS_RETYPE;
	}
	table_close(table, NoLock);
	return fit;
}

/* ALTER TABLE that gives the table the columns, or NULL if it has them. */
static char *
alter_columns_statement(Oid relid, List *columns)
{
	Relation table = table_open(relid, AccessShareLock);
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
		else if (!pgt_query_is_same_column(TupleDescAttr(desc, i), column))
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

static bool
is_stored_query(Query *query, Oid view_relid)
{
	Relation view = table_open(view_relid, AccessShareLock);
	bool same = strcmp(pgt_sqltext_query(query), pgt_sqltext_query(get_view_query(view))) == 0;

	table_close(view, NoLock);
	return same;
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

/* Columns that are never null only because they are our key. */
static Bitmapset *
primary_key_columns(const PgtStreamTable *st)
{
	Relation table = table_open(st->relid, AccessShareLock);
	Bitmapset *columns = NULL;

	if (list_member_oid(pgt_refresh_list_indexes(st->relid), pgt_compat_primary_key_index(table)))
		for (int i = 1; i <= RelationGetDescr(table)->natts; i++)
			if (TupleDescAttr(RelationGetDescr(table), i - 1)->attnotnull)
				columns = bms_add_member(columns, i);
	table_close(table, NoLock);
	return columns;
}

static bool
uses_columns(const PgtStreamTable *st, Oid relid, const Bitmapset *columns)
{
	ListCell *lc;

	foreach (lc, pgt_dependency_list(st->pgt_id))
	{
		PgtDependency *dependency = lfirst(lc);

		if (dependency->relid == relid && bms_overlap(dependency->columns, columns))
			return true;
	}
	return false;
}

/*
 * Stream tables that may rely on the key of this one, or on its columns being
 * never null, let go. Their views mean nothing until redefine_consumers has
 * made them again.
 */
static List *
release_consumers(PgtStreamTable *st)
{
	List *released = NIL;
	List *indexes = pgt_refresh_list_indexes(st->relid);
	Bitmapset *not_null = primary_key_columns(st);
	ListCell *lc;

	foreach (lc, list_consumers(st->relid))
	{
		PgtStreamTable *consumer = lfirst(lc);
		List *relied = pgt_delta_analyze(consumer->view_relid, NULL)->constraints;

		if (list_length(list_difference_oid(relied, indexes)) == list_length(relied) &&
			!uses_columns(consumer, st->relid, not_null))
			continue;
		pgt_define_drop_machinery(consumer);
		released = lappend(released, consumer);
	}
	return released;
}

static void
redefine_consumers(PgtStreamTable *st, List *consumers)
{
	const char *reason = psprintf("stream table %s was redefined", pgt_sqltext_relation(st->relid));
	ListCell *lc;

	foreach (lc, consumers)
		pgt_lifecycle_rebuild(lfirst(lc), reason);
}

/* Are there rows, even if they come from a dump? */
static bool
is_filled(const PgtStreamTable *st)
{
	PgtFrontierRow row;

	pgt_frontier_get(st->pgt_id, &row);
	return row.frontier.valid || row.last_refresh_at != 0;
}

static void
fill_again(PgtStreamTable *st, bool new_identity)
{
	PgtRefreshRequest request = {.pgt_id = st->pgt_id,
								 .mode = "FULL",
								 .initiated_by = "MANUAL",
								 .attempt = 1,
								 .redefined = new_identity};

	pgt_lifecycle_run(&request);
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

/* Will the rows be identified as they are now? */
static bool
keeps_identity(const PgtStreamTable *st, const PgtDefinition *definition, List *columns,
			   PgtColumnsFit fit)
{
	PgtStage *last = llast(definition->stages);
	Relation table = table_open(st->relid, AccessShareLock);
	TupleDesc desc = RelationGetDescr(table);
	bool keeps = fit == PGT_COLUMNS_SAME || last->identity != PGT_IDENTITY_ROW;

	if (last->identity == PGT_IDENTITY_KEY)
		for (int i = 0; i < last->nkeys && keeps; i++)
			keeps = last->keys[i] <= desc->natts &&
					pgt_query_is_same_column(TupleDescAttr(desc, last->keys[i] - 1),
											 list_nth_node(ColumnDef, columns, last->keys[i] - 1));
	table_close(table, NoLock);
	return keeps && fit != PGT_COLUMNS_REMAKE && pgt_refresh_fits_storage(st->relid, last);
}

/* View, stages, states, capture and dependencies of the new query instead of the old ones. */
static void
exchange_machinery(PgtStreamTable *st, const char *text, Query *query, List *columns,
				   bool with_identity, bool later)
{
	List *old_sources = pgt_dependency_list(st->pgt_id);

	st->view_relid = pgt_define_view(st->pgt_id, st->relid, query, columns,
									 pgt_stream_table_owner(st));
	st->original_query = pstrdup(text);
	pgt_stream_table_update(st);
	if (!later)
		pgt_query_check_rights(st->view_relid);
	(void) pgt_define_machinery(st, text, with_identity);
	pgt_stream_table_update(st);
	pgt_define_release_sources(old_sources);
}

/*
 * later: nothing is computed here unless rows get another identity, and the
 * owner's rights are left to the refresh that will.
 */
static void
set_query(PgtStreamTable *st, const char *text, Query *query, PgtLossPolicy policy,
		  const char *reason, bool later)
{
	List *columns = pgt_query_columns(query);
	PgtDefinition *definition = pgt_delta_analyze(InvalidOid, copyObject(query));
	PgtColumnsFit fit = fit_columns(st->relid, columns);
	bool keep_identity = keeps_identity(st, definition, columns, fit);
	bool was_filled = is_filled(st);
	List *consumers = NIL;

	pgt_define_check_cycle(st, query);
	if (!keep_identity)
		lock_downstream(st);
	pgt_define_lock_sources(definition);
	LockRelationOid(st->relid, keep_identity && fit == PGT_COLUMNS_SAME ? ShareRowExclusiveLock
																		: AccessExclusiveLock);
	pgt_losses_settle(st, columns, fit, keep_identity, policy);
	if (!keep_identity)
		consumers = release_consumers(st);
	pgt_define_drop_machinery(st);
	if (fit == PGT_COLUMNS_REMAKE)
		pgt_recreate_table(st, columns);
	else
	{
		if (!keep_identity)
			pgt_ddl_drop_storage(st);
		set_columns(st->relid, columns);
		pgt_define_drop_view(st->view_relid, st->relid);
	}
	exchange_machinery(st, text, query, columns, fit == PGT_COLUMNS_REMAKE || !was_filled, later);
	pgt_frontier_mark_rebuild(st->pgt_id, reason);
	if (was_filled && !(later && keep_identity))
		fill_again(st, !keep_identity && fit != PGT_COLUMNS_REMAKE);
	redefine_consumers(st, consumers);
}

static void
redefine(PgtStreamTable *st, const char *text, const char *reason, bool later)
{
	PgtSecurity saved = pgt_security_become_extension_owner(); /* for its search_path */
	Query *query = pgt_query_parse(text);

	pgt_security_restore(&saved);
	set_query(st, st->original_query, query, PGT_LOSE_COLUMNS, reason, later);
}

void
pgt_lifecycle_redefine(PgtStreamTable *st, const char *text, const char *reason)
{
	redefine(st, text, reason, false);
}

void
pgt_lifecycle_redefine_later(PgtStreamTable *st, const char *reason)
{
	redefine(st, pgt_lifecycle_query_text(st), reason, true);
}

void
pgt_lifecycle_make_anew(int64 pgt_id)
{
	PgtStreamTable *st = pgt_stream_table_find_id(pgt_id);
	const char *reason;

	if (st == NULL)
		return;
	if (!pgt_stream_table_is_outdated(st))
		reason = "the keys of what it reads have changed";
	else if (st->made_by == NULL)
		reason = "it was made by a former version";
	else
		reason = psprintf("it was made by version %s", st->made_by);
	pgt_lifecycle_redefine_later(st, reason);
	CommandCounterIncrement();
}

void
pgt_lifecycle_rebuild(PgtStreamTable *st, const char *reason)
{
	pgt_lifecycle_redefine(st, pgt_lifecycle_query_text(st), reason);
}

/* ---- Options ---- */

static char *
copy_or_null(const char *text)
{
	return text == NULL ? NULL : pstrdup(text);
}

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
	if (args->sla != NULL)
		st->sla_ms = pgt_option_sla(args->sla);
	if (args->tier != NULL)
		st->tier = copy_or_null(pgt_option_tier(args->tier));
	return st->mode != old.mode || strcmp(st->identity, old.identity) != 0 ||
		   strcmp(st->diamond_consistency, old.diamond_consistency) != 0 ||
		   (st->schedule == NULL) != (old.schedule == NULL) ||
		   (st->schedule != NULL && strcmp(st->schedule, old.schedule) != 0) ||
		   st->sla_ms != old.sla_ms || (st->tier == NULL) != (old.tier == NULL) ||
		   (st->tier != NULL && strcmp(st->tier, old.tier) != 0);
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

bool
pgt_lifecycle_alter(PgtStreamTable *st, const PgtAlterArguments *args)
{
	char *old_identity = st->identity;
	Query *query = NULL;
	bool changed;

	pgt_lifecycle_check_isolation();
	if (args->query != NULL)
	{
		query = pgt_query_parse(args->query);
		/* Without any dependency it may be one that an upgrade has given up. */
		if (is_stored_query(query, st->view_relid) && pgt_dependency_list(st->pgt_id) != NIL)
			query = NULL;
	}
	changed = set_options(st, args);
	if (query != NULL)
	{
		pgt_frontier_clear_error(st->pgt_id);
		set_query(st, args->query, query, args->cascade ? PGT_LOSE_ALL : PGT_LOSE_NOTHING,
				  "the query was changed", false);
		pgt_lifecycle_hint_indexes(st);
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
	if (args->sla != NULL && st->sla_ms > 0)
	{
		pgt_option_warn_scheduler();
		pgt_sla_warn(st);
	}
	return query != NULL || changed || args->status != NULL;
}
