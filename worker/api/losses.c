/*
 * losses.c: what another query of a stream table costs its user.
 *
 * As long as columns stay and the rows are identified as before, nothing. A
 * column that changes its type takes along what PostgreSQL cannot carry over
 * (views, stream tables, triggers that name it, ...); columns that go take the
 * table along, with everything on it; another identity takes what depends on
 * the old key (foreign keys, views that group by it). All of this is listed
 * before anything is done. Reads the catalogs as the extension's owner, under
 * the refresh lock.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_publication_rel.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "pgt_capture.h"
#include "pgt_compat.h"
#include "pgt_refresh.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

/*
 * Objects (classid, objid) that depend directly on what goes. A rule stands for
 * its view, the hidden view of a stream table for that. %1$u is the table, %2$s
 * a condition on d.
 */
#define DIRECT                                                                         \
	"SELECT CASE WHEN r.oid IS NULL THEN d.classid"                                    \
	" ELSE 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid END AS classid," \
	" coalesce(s.pgt_relid::pg_catalog.oid, r.ev_class, d.objid) AS objid"             \
	" FROM pg_catalog.pg_depend d LEFT JOIN pg_catalog.pg_rewrite r"                   \
	" ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid" \
	" LEFT JOIN pgtrickle.pgt_definitions s ON s.view_relid = r.ev_class"

/* Parts of an object go with it without being named; a row type stands for its table. */
#define IS_NAMED                            \
	" (d.deptype = 'n' OR (d.deptype = 'i'" \
	" AND d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass))"

/* What depends on columns: not indexes, constraints and statistics, which follow a type. */
#define ON_COLUMNS                                                                              \
	DIRECT " LEFT JOIN pg_catalog.pg_class c"                                                   \
		   " ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid"     \
		   " WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"                   \
		   " AND d.refobjid = %u AND d.refobjsubid IN (%s) AND coalesce(c.relkind, 'v') <> 'i'" \
		   " AND d.classid NOT IN ('pg_catalog.pg_constraint'::pg_catalog.regclass,"            \
		   " 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass)"

/* What depends on our index; stream tables only rely on it, they are made again. */
#define ON_IDENTITY                                                                          \
	DIRECT " WHERE s.pgt_id IS NULL AND d.deptype = 'n' AND ("                               \
		   "d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = %1$u" \
		   " OR d.refclassid = 'pg_catalog.pg_constraint'::pg_catalog.regclass"              \
		   " AND d.refobjid = %2$u)"

#define ON_TABLE \
	"SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, %u::pg_catalog.oid"

static const char everything_on[] =
	"WITH RECURSIVE o (classid, objid) AS (%s UNION SELECT n.classid, n.objid FROM o"
	" CROSS JOIN LATERAL (" DIRECT " WHERE d.refclassid = o.classid AND d.refobjid = o.objid"
	" AND" IS_NAMED ") n)"
	" SELECT o.classid, o.objid, s.pgt_id, coalesce('stream table '"
	" || s.pgt_relid::pg_catalog.regclass,"
	" pg_catalog.pg_describe_object(o.classid, o.objid, 0)) AS what"
	" FROM o LEFT JOIN pgtrickle.pgt_definitions s"
	" ON o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.pgt_relid = o.objid"
	" WHERE NOT (o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.objid = %u)"
	" AND o.classid <> 'pg_catalog.pg_type'::pg_catalog.regclass ORDER BY 4";

/* What users put on a table, as rows of one text column; %u is the table. */
static const char list_of_losses[] =
	"SELECT 'index ' || i.indexrelid::pg_catalog.regclass FROM pg_catalog.pg_index i"
	" WHERE i.indrelid = %1$u AND pg_catalog.obj_description(i.indexrelid, 'pg_class')"
	" IN ('identity of the rows of this stream table',"
	" 'partitions of the rows of this stream table') IS NOT TRUE"
	" UNION ALL SELECT 'trigger ' || t.tgname FROM pg_catalog.pg_trigger t"
	" WHERE t.tgrelid = %1$u AND NOT t.tgisinternal AND t.tgname NOT IN ('pgt_guard', 'pgt_apply_guard')"
	" UNION ALL SELECT 'policy ' || p.polname FROM pg_catalog.pg_policy p WHERE p.polrelid = %1$u"
	" UNION ALL SELECT 'constraint ' || c.conname FROM pg_catalog.pg_constraint c"
	" WHERE c.conrelid = %1$u AND c.contype IN ('c', 'f', 'x')"
	" UNION ALL SELECT 'comment on ' || coalesce('column ' || a.attname, 'the table')"
	" FROM pg_catalog.pg_description d LEFT JOIN pg_catalog.pg_attribute a"
	" ON a.attrelid = d.objoid AND a.attnum = d.objsubid AND d.objsubid > 0"
	" WHERE d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objoid = %1$u"
	" UNION ALL SELECT 'grants on column ' || a.attname FROM pg_catalog.pg_attribute a"
	" WHERE a.attrelid = %1$u AND a.attacl IS NOT NULL"
	" UNION ALL SELECT 'statistics ' || s.stxname FROM pg_catalog.pg_statistic_ext s"
	" WHERE s.stxrelid = %1$u"
	" UNION ALL SELECT 'row-level security' FROM pg_catalog.pg_class c"
	" WHERE c.oid = %1$u AND c.relrowsecurity ORDER BY 1";

/* ---- What goes ---- */

/* The query for what depends directly on what goes, or NULL if nothing can. */
static char *
make_seed(const PgtStreamTable *st, List *columns, PgtColumnsFit fit, bool keep_identity)
{
	StringInfoData seed;
	StringInfoData numbers;
	Relation table;
	ListCell *lc;

	if (fit == PGT_COLUMNS_REMAKE)
		return psprintf(ON_TABLE, st->relid);
	initStringInfo(&seed);
	initStringInfo(&numbers);
	table = table_open(st->relid, AccessShareLock);
	for (int i = 0; i < RelationGetDescr(table)->natts; i++)
		if (!pgt_query_is_same_column(TupleDescAttr(RelationGetDescr(table), i),
									  list_nth_node(ColumnDef, columns, i)))
			appendStringInfo(&numbers, "%s%d", numbers.len > 0 ? ", " : "", i + 1);
	table_close(table, NoLock);
	if (numbers.len > 0)
		appendStringInfo(&seed, ON_COLUMNS, st->relid, numbers.data);
	if (!keep_identity)
		foreach (lc, pgt_refresh_list_indexes(st->relid))
		{
			if (seed.len > 0)
				appendStringInfoString(&seed, " UNION ");
			appendStringInfo(&seed, ON_IDENTITY, lfirst_oid(lc),
							 get_index_constraint(lfirst_oid(lc)));
		}
	return seed.len > 0 ? seed.data : NULL;
}

static void
append_loss(StringInfo list, const char *what)
{
	appendStringInfo(list, "%s%s", list->len > 0 ? ", " : "", what);
}

/* Columns that another query has no longer, or of another type. */
static void
append_columns(StringInfo list, const PgtStreamTable *st, List *columns)
{
	Relation table = table_open(st->relid, AccessShareLock);
	TupleDesc desc = RelationGetDescr(table);
	bool all_there = true;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		const char *name = NameStr(attribute->attname);
		ColumnDef *column = NULL;
		ListCell *lc;

		foreach (lc, columns)
			if (strcmp(lfirst_node(ColumnDef, lc)->colname, name) == 0)
				column = lfirst_node(ColumnDef, lc);
		if (column != NULL && pgt_query_is_same_column(attribute, column))
			continue;
		all_there = false;
		if (column == NULL)
			append_loss(list, psprintf("column %s", quote_identifier(name)));
		else
			append_loss(
				list, psprintf("type %s of column %s",
							   format_type_with_typemod(attribute->atttypid, attribute->atttypmod),
							   quote_identifier(name)));
	}
	table_close(table, NoLock);
	if (all_there)
		append_loss(list, "the order of the columns");
}

static void
append_rows(StringInfo list, PgtRows *rows, int column)
{
	for (int i = 0; i < rows->nrows; i++)
		append_loss(list, pgt_spi_text(rows, i, column));
}

/* Rows or columns that it has not to show any more would be shown without them. */
static void
append_publications(StringInfo list, const PgtStreamTable *st, List *columns)
{
	ListCell *lc;

	foreach (lc, pgt_publication_list_members(st->relid, columns))
	{
		const PgtPublicationMember *member = lfirst(lc);

		if (!member->fits)
			append_loss(list,
						psprintf("publication %s, whose row filter or column list does not fit",
								 quote_identifier(member->publication)));
	}
}

static PgtRows *
list_objects(const PgtStreamTable *st, const char *seed)
{
	return pgt_spi_select(psprintf(everything_on, seed, st->relid));
}

/* A table that is made again comes back into publications, as far as these fit. */
static void
append_objects(StringInfo list, PgtRows *rows, PgtColumnsFit fit)
{
	for (int i = 0; i < rows->nrows; i++)
		if (fit != PGT_COLUMNS_REMAKE || pgt_spi_oid(rows, i, 1) != PublicationRelRelationId)
			append_loss(list, pgt_spi_text(rows, i, 4));
}

static char *
list_losses(const PgtStreamTable *st, List *columns, PgtColumnsFit fit, const char *seed,
			PgtLossPolicy policy)
{
	StringInfoData list;

	initStringInfo(&list);
	if (fit >= PGT_COLUMNS_RETYPE && policy == PGT_LOSE_NOTHING)
		append_columns(&list, st, columns);
	if (fit == PGT_COLUMNS_REMAKE)
	{
		append_rows(&list, pgt_spi_select(psprintf(list_of_losses, st->relid)), 1);
		append_publications(&list, st, columns);
	}
	if (seed != NULL)
		append_objects(&list, list_objects(st, seed), fit);
	return list.data;
}

/* ---- Doing it ---- */

/* Event triggers clean up after stream tables, so these are dropped by statements. */
static void
drop_stream_tables(const PgtStreamTable *st, const char *seed)
{
	PgtRows *rows = list_objects(st, seed);

	for (int i = 0; i < rows->nrows; i++)
	{
		PgtStreamTable *other;

		if (pgt_spi_text(rows, i, 3) == NULL)
			continue;
		other = pgt_stream_table_find_id(pgt_spi_int64(rows, i, 3));
		/* It may have gone with an earlier one. */
		if (other == NULL)
			continue;
		pgt_spi_execute(psprintf("DROP TABLE %s CASCADE", pgt_sqltext_relation(other->relid)));
		CommandCounterIncrement();
	}
}

static void
drop_objects(const char *seed)
{
	PgtRows *rows = pgt_spi_select(seed);
	ObjectAddresses *objects = new_object_addresses();

	for (int i = 0; i < rows->nrows; i++)
	{
		ObjectAddress object = {pgt_spi_oid(rows, i, 1), pgt_spi_oid(rows, i, 2), 0};

		add_exact_object_address(&object, objects);
	}
	performMultipleDeletions(objects, DROP_CASCADE, 0);
	free_object_addresses(objects);
	CommandCounterIncrement();
}

void
pgt_losses_settle(const PgtStreamTable *st, List *columns, PgtColumnsFit fit, bool keep_identity,
				  PgtLossPolicy policy)
{
	PgtSecurity saved = pgt_security_become_extension_owner();
	char *seed = make_seed(st, columns, fit, keep_identity);
	char *losses = list_losses(st, columns, fit, seed, policy);

	if (policy != PGT_LOSE_ALL && losses[0] != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("the new query does not fit stream table \"%s\"", get_rel_name(st->relid)),
				 errdetail("Its %s would change. Lost would be: %s.",
						   fit >= PGT_COLUMNS_RETYPE ? "columns" : "key", losses),
				 errhint("Use pgtrickle.alter_stream_table(name, query => ..., cascade => true) to "
						 "lose these, or drop them first.")));
	if (seed != NULL)
	{
		drop_stream_tables(st, seed);
		if (fit != PGT_COLUMNS_REMAKE)
			drop_objects(seed);
	}
	pgt_security_restore(&saved);
}
