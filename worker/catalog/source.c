/*
 * source.c: rows of pgt_sources.
 *
 * Read by index scans without SPI, because the capture triggers of any user
 * read them; written by statements, as the extension's owner. Results are in
 * the current memory context. Locks: AccessShare on pgt_sources while reading.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "pgt_extension.h"
#include "pgt_source.h"
#include "pgt_spi.h"

#include "catalog_internal.h"

enum
{
	COLUMN_SOURCE_ID = 1,
	COLUMN_SOURCE_RELID,
	COLUMN_ACTIVE_SEGMENT,
	COLUMN_METHOD,
	COLUMN_MEMBERS
};

static const char *const method_names[] = {"STATEMENT", "ROW", "REFRESH"};

char *
pgt_source_buffer_name(int64 source_id, int segment)
{
	return psprintf("buffer_" INT64_FORMAT "_%d", source_id, segment);
}

static PgtCaptureMethod
parse_method(const char *name)
{
	for (int i = 0; i < lengthof(method_names); i++)
	{
		if (strcmp(name, method_names[i]) == 0)
			return (PgtCaptureMethod) i;
	}
	elog(ERROR, "unknown capture method \"%s\"", name);
	pg_unreachable();
}

static List *
parse_members(ArrayType *array)
{
	List *members = NIL;
	Datum *oids;
	int count;

	deconstruct_array(array, OIDOID, sizeof(Oid), true, TYPALIGN_INT, &oids, NULL, &count);
	for (int i = 0; i < count; i++)
		members = lappend_oid(members, DatumGetObjectId(oids[i]));
	return members;
}

static bool
visit_row(Relation relation, HeapTuple tuple, void *arg)
{
	List **list = arg;
	PgtSource *source = palloc0(sizeof(PgtSource));
	Oid schema = get_namespace_oid(PGT_CHANGES_SCHEMA, true);
	bool isnull;
	Datum members = heap_getattr(tuple, COLUMN_MEMBERS, RelationGetDescr(relation), &isnull);

	source->source_id = pgt_catalog_int64(relation, tuple, COLUMN_SOURCE_ID);
	source->relid = pgt_catalog_oid(relation, tuple, COLUMN_SOURCE_RELID);
	source->active_segment = pgt_catalog_int64(relation, tuple, COLUMN_ACTIVE_SEGMENT);
	source->method = parse_method(pgt_catalog_text(relation, tuple, COLUMN_METHOD));
	source->members = isnull ? NIL : parse_members(DatumGetArrayTypeP(members));
	if (source->active_segment < 0 || source->active_segment >= PGT_SEGMENTS)
		source->active_segment = 0;
	for (int i = 0; OidIsValid(schema) && i < PGT_SEGMENTS; i++)
		source->segments[i] = get_relname_relid(pgt_source_buffer_name(source->source_id, i),
												schema);
	*list = lappend(*list, source);
	return true;
}

/* index NULL: all of them. Nothing while the extension is being made or dropped. */
static List *
list_rows(const char *index, AttrNumber column, Oid eq, Datum key)
{
	Relation relation = pgt_catalog_open("pgt_sources", AccessShareLock);
	List *list = NIL;

	if (relation == NULL)
		return NIL;
	pgt_catalog_scan(relation, index, column, eq, key, NULL, visit_row, &list);
	table_close(relation, AccessShareLock);
	return list;
}

PgtSource *
pgt_source_find(Oid relid)
{
	List *found = list_rows("pgt_sources_source_relid_key", COLUMN_SOURCE_RELID, F_OIDEQ,
							ObjectIdGetDatum(relid));

	return found == NIL ? NULL : linitial(found);
}

PgtSource *
pgt_source_find_id(int64 source_id)
{
	List *found = list_rows("pgt_sources_pkey", COLUMN_SOURCE_ID, F_INT8EQ,
							Int64GetDatum(source_id));

	return found == NIL ? NULL : linitial(found);
}

List *
pgt_source_list(void)
{
	return list_rows(NULL, 0, InvalidOid, (Datum) 0);
}

PgtSource *
pgt_source_create(Oid relid, PgtCaptureMethod method)
{
	Oid types[] = {OIDOID, TEXTOID};
	Datum values[] = {ObjectIdGetDatum(relid), CStringGetTextDatum(method_names[method])};

	(void) pgt_spi_query("INSERT INTO pgtrickle.pgt_sources (source_relid, method) "
						 "VALUES ($1::pg_catalog.regclass, $2)",
						 2, types, values, NULL);
	CommandCounterIncrement();
	return pgt_source_find(relid);
}

void
pgt_source_delete(int64 source_id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(source_id)};

	(void) pgt_spi_query("DELETE FROM pgtrickle.pgt_sources WHERE source_id = $1", 1, types, values,
						 NULL);
}

void
pgt_source_set_segment(int64 source_id, int segment)
{
	Oid types[] = {INT8OID, INT4OID};
	Datum values[] = {Int64GetDatum(source_id), Int32GetDatum(segment)};

	(void) pgt_spi_query("UPDATE pgtrickle.pgt_sources SET active_segment = $2 "
						 "WHERE source_id = $1",
						 2, types, values, NULL);
}

void
pgt_source_set_members(int64 source_id, PgtCaptureMethod method, List *members)
{
	Oid types[] = {INT8OID, TEXTOID, OIDARRAYOID};
	Datum *oids = palloc(sizeof(Datum) * Max(list_length(members), 1));
	Datum values[3];
	ListCell *cell;

	foreach (cell, members)
		oids[foreach_current_index(cell)] = ObjectIdGetDatum(lfirst_oid(cell));
	values[0] = Int64GetDatum(source_id);
	values[1] = CStringGetTextDatum(method_names[method]);
	values[2] = PointerGetDatum(
		construct_array(oids, list_length(members), OIDOID, sizeof(Oid), true, TYPALIGN_INT));
	(void) pgt_spi_query("UPDATE pgtrickle.pgt_sources SET method = $2, members = $3 "
						 "WHERE source_id = $1",
						 3, types, values, NULL);
}
