/*
 * stream_table.c: pgtrickle.pgt_definitions, the row of a stream table.
 *
 * Reads go straight to the table, writes are statements run as the extension's
 * owner: callers have checked the user's rights. Writes tell the coordinator.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "pgt_extension.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"
#include "pgt_stream_table.h"
#include "pgt_wake.h"

#include "catalog_internal.h"

enum
{
	COLUMN_PGT_ID = 1,
	COLUMN_RELID,
	COLUMN_VIEW_RELID,
	COLUMN_ORIGINAL_QUERY,
	COLUMN_SCHEDULE,
	COLUMN_REFRESH_MODE,
	COLUMN_DIAMOND_CONSISTENCY,
	COLUMN_IDENTITY,
	COLUMN_PAUSED,
	COLUMN_FULL_REASON,
	COLUMN_CREATED_AT,
	COLUMN_UPDATED_AT,
	COLUMN_FRESHNESS_DEADLINE_MS,
	COLUMN_REFRESH_TIER,
	COLUMN_MADE_BY,
	COLUMN_PUBLICATION
};

static const char *const mode_names[] = {"AUTO", "DIFFERENTIAL", "FULL"};

const char *
pgt_refresh_mode_name(PgtRefreshMode mode)
{
	return mode_names[mode];
}

PgtRefreshMode
pgt_refresh_mode_parse(const char *text)
{
	for (int i = 0; i < lengthof(mode_names); i++)
		if (pg_strcasecmp(text, mode_names[i]) == 0)
			return (PgtRefreshMode) i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid refresh mode \"%s\"", text),
			 errhint("Use 'AUTO', 'DIFFERENTIAL' or 'FULL'.")));
	return PGT_MODE_AUTO; /* not reached */
}

static PgtStreamTable *
read_row(Relation relation, HeapTuple tuple)
{
	PgtStreamTable *st = palloc0(sizeof(PgtStreamTable));
	char *mode = pgt_catalog_text(relation, tuple, COLUMN_REFRESH_MODE);

	st->pgt_id = pgt_catalog_int64(relation, tuple, COLUMN_PGT_ID);
	st->relid = pgt_catalog_oid(relation, tuple, COLUMN_RELID);
	st->view_relid = pgt_catalog_oid(relation, tuple, COLUMN_VIEW_RELID);
	st->original_query = pgt_catalog_text(relation, tuple, COLUMN_ORIGINAL_QUERY);
	st->schedule = pgt_catalog_text(relation, tuple, COLUMN_SCHEDULE);
	st->mode = pgt_refresh_mode_parse(mode);
	st->diamond_consistency = pgt_catalog_text(relation, tuple, COLUMN_DIAMOND_CONSISTENCY);
	st->identity = pgt_catalog_text(relation, tuple, COLUMN_IDENTITY);
	st->paused = pgt_catalog_bool(relation, tuple, COLUMN_PAUSED);
	st->full_reason = pgt_catalog_text(relation, tuple, COLUMN_FULL_REASON);
	st->sla_ms = pgt_catalog_int64(relation, tuple, COLUMN_FRESHNESS_DEADLINE_MS);
	st->tier = pgt_catalog_text(relation, tuple, COLUMN_REFRESH_TIER);
	st->made_by = pgt_catalog_text(relation, tuple, COLUMN_MADE_BY);
	st->publication = pgt_catalog_text(relation, tuple, COLUMN_PUBLICATION);
	pfree(mode);
	return st;
}

static bool
visit_one(Relation relation, HeapTuple tuple, void *arg)
{
	*(PgtStreamTable **) arg = read_row(relation, tuple);
	return false;
}

static PgtStreamTable *
find_row(const char *index, AttrNumber column, Oid eq, Datum key)
{
	PgtStreamTable *st = NULL;
	Relation relation = pgt_catalog_open("pgt_definitions", AccessShareLock);

	if (relation == NULL)
		return NULL;
	pgt_catalog_scan(relation, index, column, eq, key, NULL, visit_one, &st);
	table_close(relation, AccessShareLock);
	return st;
}

PgtStreamTable *
pgt_stream_table_find(Oid relid)
{
	return find_row("pgt_definitions_pgt_relid_key", COLUMN_RELID, F_OIDEQ,
					ObjectIdGetDatum(relid));
}

PgtStreamTable *
pgt_stream_table_find_id(int64 pgt_id)
{
	return find_row("pgt_definitions_pkey", COLUMN_PGT_ID, F_INT8EQ, Int64GetDatum(pgt_id));
}

bool
pgt_stream_table_is_outdated(const PgtStreamTable *st)
{
	return st->made_by == NULL || strcmp(st->made_by, PGT_VERSION) != 0;
}

Oid
pgt_stream_table_relid(int64 pgt_id)
{
	PgtStreamTable *st = pgt_stream_table_find_id(pgt_id);

	return st == NULL ? InvalidOid : st->relid;
}

PgtStreamTable *
pgt_stream_table_get(const char *name)
{
	Oid relid = pgt_sqltext_resolve(name, true);
	PgtStreamTable *st;

	if (!OidIsValid(relid))
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE), errmsg("stream table \"%s\" does not exist", name),
			 errhint("See pgtrickle.pgt_stream_tables for the stream tables of this database.")));
	st = pgt_stream_table_find(relid);
	if (st == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE), errmsg("stream table \"%s\" does not exist", name),
			 errdetail("There is a relation of this name, but it is not a stream table."),
			 errhint("See pgtrickle.pgt_stream_tables for the stream tables of this database.")));
	return st;
}

static bool
visit_all(Relation relation, HeapTuple tuple, void *arg)
{
	List **list = arg;

	*list = lappend(*list, read_row(relation, tuple));
	return true;
}

static int
compare_ids(const ListCell *a, const ListCell *b)
{
	int64 left = ((PgtStreamTable *) lfirst(a))->pgt_id;
	int64 right = ((PgtStreamTable *) lfirst(b))->pgt_id;

	return left < right ? -1 : left > right ? 1 : 0;
}

List *
pgt_stream_table_list(void)
{
	List *list = NIL;
	Relation relation = pgt_catalog_open("pgt_definitions", AccessShareLock);

	if (relation == NULL)
		return NIL;
	pgt_catalog_scan(relation, NULL, 0, 0, 0, NULL, visit_all, &list);
	table_close(relation, AccessShareLock);
	list_sort(list, compare_ids);
	return list;
}

Oid
pgt_stream_table_owner(const PgtStreamTable *st)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(st->relid));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table of stream table " INT64_FORMAT " does not exist", st->pgt_id)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

#define NFIELDS 13

static const Oid field_types[NFIELDS + 1] = {REGCLASSOID, REGCLASSOID, TEXTOID, TEXTOID, TEXTOID,
											 TEXTOID,	  TEXTOID,	   BOOLOID, TEXTOID, INT8OID,
											 TEXTOID,	  TEXTOID,	   TEXTOID, INT8OID};

static void
fill_fields(const PgtStreamTable *st, Datum *values, bool *nulls)
{
	values[0] = ObjectIdGetDatum(st->relid);
	nulls[0] = false;
	values[1] = ObjectIdGetDatum(st->view_relid);
	nulls[1] = false;
	values[2] = pgt_catalog_text_datum(st->original_query, &nulls[2]);
	values[3] = pgt_catalog_text_datum(st->schedule, &nulls[3]);
	values[4] = pgt_catalog_text_datum(mode_names[st->mode], &nulls[4]);
	values[5] = pgt_catalog_text_datum(
		st->diamond_consistency != NULL ? st->diamond_consistency : "aligned", &nulls[5]);
	values[6] = pgt_catalog_text_datum(st->identity != NULL ? st->identity : "full", &nulls[6]);
	values[7] = BoolGetDatum(st->paused);
	nulls[7] = false;
	values[8] = pgt_catalog_text_datum(st->full_reason, &nulls[8]);
	values[9] = Int64GetDatum(st->sla_ms);
	nulls[9] = st->sla_ms == 0;
	values[10] = pgt_catalog_text_datum(st->tier, &nulls[10]);
	values[11] = pgt_catalog_text_datum(st->made_by, &nulls[11]);
	values[12] = pgt_catalog_text_datum(st->publication, &nulls[12]);
	values[13] = Int64GetDatum(st->pgt_id);
	nulls[13] = false;
}

int64
pgt_stream_table_next_id(void)
{
	return nextval_internal(
		get_relname_relid("pgt_definitions_pgt_id_seq", pgt_extension_schema(PGT_SCHEMA)), false);
}

int64
pgt_stream_table_create(PgtStreamTable *st)
{
	Datum values[NFIELDS + 1];
	bool nulls[NFIELDS + 1];
	PgtSecurity saved;

	if (st->pgt_id == 0)
		st->pgt_id = pgt_stream_table_next_id();
	fill_fields(st, values, nulls);
	saved = pgt_security_become_extension_owner();
	(void) pgt_spi_query("INSERT INTO pgtrickle.pgt_definitions (pgt_relid, view_relid,"
						 " original_query, schedule, refresh_mode, diamond_consistency,"
						 " identity, paused, full_reason, freshness_deadline_ms, refresh_tier,"
						 " made_by, downstream_publication_name, pgt_id)"
						 " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
						 NFIELDS + 1, field_types, values, nulls);
	pgt_security_restore(&saved);
	pgt_wake_catalog();
	return st->pgt_id;
}

void
pgt_stream_table_update(const PgtStreamTable *st)
{
	Datum values[NFIELDS + 1];
	bool nulls[NFIELDS + 1];
	PgtSecurity saved;

	fill_fields(st, values, nulls);
	saved = pgt_security_become_extension_owner();
	(void) pgt_spi_query("UPDATE pgtrickle.pgt_definitions SET pgt_relid = $1, view_relid = $2,"
						 " original_query = $3, schedule = $4, refresh_mode = $5,"
						 " diamond_consistency = $6, identity = $7, paused = $8,"
						 " full_reason = $9, freshness_deadline_ms = $10, refresh_tier = $11,"
						 " made_by = $12, downstream_publication_name = $13,"
						 " updated_at = clock_timestamp() WHERE pgt_id = $14",
						 NFIELDS + 1, field_types, values, nulls);
	pgt_security_restore(&saved);
	pgt_wake_catalog();
}

void
pgt_stream_table_set_publication(int64 pgt_id, const char *name)
{
	Oid types[] = {TEXTOID, INT8OID};
	Datum values[2];
	bool nulls[2] = {false, false};
	PgtSecurity saved;

	values[0] = pgt_catalog_text_datum(name, &nulls[0]);
	values[1] = Int64GetDatum(pgt_id);
	saved = pgt_security_become_extension_owner();
	(void) pgt_spi_query("UPDATE pgtrickle.pgt_definitions SET downstream_publication_name = $1"
						 " WHERE pgt_id = $2",
						 2, types, values, nulls);
	pgt_security_restore(&saved);
}

void
pgt_stream_table_delete(int64 pgt_id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(pgt_id)};
	PgtSecurity saved = pgt_security_become_extension_owner();

	(void) pgt_spi_query("DELETE FROM pgtrickle.pgt_dependencies WHERE pgt_id = $1", 1, types,
						 values, NULL);
	/* Foreign keys do not cascade where session_replication_role is replica. */
	(void) pgt_spi_query("DELETE FROM pgtrickle.pgt_slas WHERE pgt_id = $1", 1, types, values,
						 NULL);
	(void) pgt_spi_query("DELETE FROM pgtrickle.pgt_frontiers WHERE pgt_id = $1", 1, types, values,
						 NULL);
	(void) pgt_spi_query("DELETE FROM pgtrickle.pgt_definitions WHERE pgt_id = $1", 1, types,
						 values, NULL);
	pgt_security_restore(&saved);
	pgt_wake_catalog();
}

bool
pgt_stream_table_any_unguarded(const List *stream_tables)
{
	ListCell *lc;

	foreach (lc, stream_tables)
		if (!OidIsValid(
				get_trigger_oid(((PgtStreamTable *) lfirst(lc))->relid, PGT_GUARD_TRIGGER, true)))
			return true;
	return false;
}
