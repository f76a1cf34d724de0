/*
 * dependency.c: pgtrickle.pgt_dependencies, what each stream table reads.
 *
 * Columns are stored by name, so that a dump means the same elsewhere; they
 * are attribute numbers for everybody else.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "pgt_dependency.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_wake.h"

#include "catalog_internal.h"

enum
{
	COLUMN_PGT_ID = 1,
	COLUMN_SOURCE_RELID,
	COLUMN_SOURCE_TYPE,
	COLUMN_COLUMNS_USED
};

static Datum
make_names(Oid relid, const Bitmapset *columns)
{
	int n = bms_num_members(columns);
	Datum *names = palloc(sizeof(Datum) * Max(n, 1));
	int column = -1;
	int i = 0;

	while ((column = bms_next_member(columns, column)) >= 0)
	{
		char *name = get_attname(relid, (AttrNumber) column, true);

		if (name != NULL)
			names[i++] = CStringGetTextDatum(name);
	}
	return PointerGetDatum(construct_array(names, i, TEXTOID, -1, false, TYPALIGN_INT));
}

static Bitmapset *
find_columns(Oid relid, ArrayType *names)
{
	Bitmapset *columns = NULL;
	Datum *elements;
	int n;

	deconstruct_array(names, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &n);
	for (int i = 0; i < n; i++)
	{
		AttrNumber attnum = get_attnum(relid, TextDatumGetCString(elements[i]));

		if (attnum > 0)
			columns = bms_add_member(columns, attnum);
	}
	return columns;
}

static void
insert_row(int64 pgt_id, const PgtDependency *dependency)
{
	Oid types[] = {INT8OID, REGCLASSOID, TEXTOID, TEXTARRAYOID};
	Datum values[] = {Int64GetDatum(pgt_id), ObjectIdGetDatum(dependency->relid),
					  CStringGetTextDatum(dependency->type),
					  make_names(dependency->relid, dependency->columns)};

	(void) pgt_spi_query("INSERT INTO pgtrickle.pgt_dependencies"
						 " (pgt_id, source_relid, source_type, columns_used)"
						 " VALUES ($1, $2, $3, $4)",
						 4, types, values, NULL);
}

void
pgt_dependency_replace(int64 pgt_id, List *dependencies)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(pgt_id)};
	PgtSecurity saved = pgt_security_become_extension_owner();
	ListCell *lc;

	(void) pgt_spi_query("DELETE FROM pgtrickle.pgt_dependencies WHERE pgt_id = $1", 1, types,
						 values, NULL);
	foreach (lc, dependencies)
		insert_row(pgt_id, lfirst(lc));
	pgt_security_restore(&saved);
	pgt_wake_catalog();
}

static bool
visit_row(Relation relation, HeapTuple tuple, void *arg)
{
	List **list = arg;
	PgtDependency *dependency = palloc0(sizeof(PgtDependency));
	bool isnull;
	Datum names = heap_getattr(tuple, COLUMN_COLUMNS_USED, RelationGetDescr(relation), &isnull);

	dependency->pgt_id = pgt_catalog_int64(relation, tuple, COLUMN_PGT_ID);
	dependency->relid = pgt_catalog_oid(relation, tuple, COLUMN_SOURCE_RELID);
	dependency->type = pgt_catalog_text(relation, tuple, COLUMN_SOURCE_TYPE);
	if (!isnull)
		dependency->columns = find_columns(dependency->relid, DatumGetArrayTypeP(names));
	*list = lappend(*list, dependency);
	return true;
}

static int
compare_rows(const ListCell *a, const ListCell *b)
{
	const PgtDependency *left = lfirst(a);
	const PgtDependency *right = lfirst(b);

	if (left->pgt_id != right->pgt_id)
		return left->pgt_id < right->pgt_id ? -1 : 1;
	return left->relid < right->relid ? -1 : left->relid > right->relid ? 1 : 0;
}

static List *
list_rows(const char *index, AttrNumber column, Oid eq, Datum key, PgtCatalogVisitor visit)
{
	List *list = NIL;
	Relation relation = pgt_catalog_open("pgt_dependencies", AccessShareLock);

	if (relation == NULL)
		return NIL;
	pgt_catalog_scan(relation, index, column, eq, key, NULL, visit, &list);
	table_close(relation, AccessShareLock);
	return list;
}

List *
pgt_dependency_list(int64 pgt_id)
{
	List *list = list_rows("pgt_dependencies_pkey", COLUMN_PGT_ID, F_INT8EQ, Int64GetDatum(pgt_id),
						   visit_row);

	list_sort(list, compare_rows);
	return list;
}

List *
pgt_dependency_list_all(void)
{
	List *list = list_rows(NULL, 0, 0, 0, visit_row);

	list_sort(list, compare_rows);
	return list;
}

static bool
visit_consumer(Relation relation, HeapTuple tuple, void *arg)
{
	List **list = arg;
	int64 *pgt_id = palloc(sizeof(int64));

	*pgt_id = pgt_catalog_int64(relation, tuple, COLUMN_PGT_ID);
	*list = lappend(*list, pgt_id);
	return true;
}

List *
pgt_dependency_consumers(Oid relid)
{
	return list_rows("pgt_dependencies_source_relid_idx", COLUMN_SOURCE_RELID, F_OIDEQ,
					 ObjectIdGetDatum(relid), visit_consumer);
}

Bitmapset *
pgt_dependency_columns(Oid relid)
{
	Bitmapset *columns = NULL;
	ListCell *lc;

	foreach (lc, list_rows("pgt_dependencies_source_relid_idx", COLUMN_SOURCE_RELID, F_OIDEQ,
						   ObjectIdGetDatum(relid), visit_row))
		columns = bms_add_members(columns, ((PgtDependency *) lfirst(lc))->columns);
	return columns;
}
