/*
 * buffer.c: the segments of a change buffer as objects of the database.
 *
 * pgtrickle_changes.buffer_<source_id>_<segment>: logged heap tables without
 * index, sequence or autovacuum, owned by the extension's owner and members of
 * the extension, so that pg_dump leaves them out and DROP EXTENSION takes them
 * along. Therefore they do not depend on their source; pgt_capture_release
 * drops them. Made through the server's own functions instead of SQL, so that
 * no event trigger of users sees them.
 *
 * Columns are named c<attnum of the source>, with the base type of the
 * source's and without type modifier: renaming a column, changing a domain's
 * constraints or a length never touches a buffer.
 *
 * Runs as the extension's owner. Locks: AccessExclusive on segments that change.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "catalog/toasting.h"
#include "commands/extension.h"
#include "commands/event_trigger.h"
#include "commands/tablecmds.h"
#include "commands/tablespace.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "capture_internal.h"
#include "pgt_capture.h"
#include "pgt_compat.h"
#include "pgt_extension.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

static char *
column_name(AttrNumber attnum)
{
	return psprintf("c%d", attnum);
}

static ColumnDef *
make_column(Relation source, AttrNumber attnum)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(source), attnum - 1);

	return makeColumnDef(column_name(attnum), getBaseType(att->atttypid), -1,
						 get_typcollation(getBaseType(att->atttypid)));
}

static List *
make_fixed_columns(void)
{
	List *columns = list_make3(makeColumnDef("xid", XID8OID, -1, InvalidOid),
							   makeColumnDef("cmd", INT4OID, -1, InvalidOid),
							   makeColumnDef("w", INT2OID, -1, InvalidOid));
	ListCell *cell;

	foreach (cell, columns)
		lfirst_node(ColumnDef, cell)->is_not_null = true;
	return columns;
}

/*
 * No autovacuum, and no VACUUM may shorten the file: readers remember where
 * they stopped. Space comes back when a segment is emptied.
 */
static List *
make_options(void)
{
	List *options = NIL;

	options = lappend(options, makeDefElem("autovacuum_enabled", (Node *) makeString("false"), -1));
	options = lappend(options, makeDefElem("vacuum_truncate", (Node *) makeString("false"), -1));
	options = lappend(options,
					  makeDefElemExtended("toast", "autovacuum_enabled",
										  (Node *) makeString("false"), DEFELEM_UNSPEC, -1));
	return options;
}

static void
create_toast_table(Oid segment, List *options)
{
	Datum toast_options = pgt_compat_toast_options(options);

	(void) heap_reloptions(RELKIND_TOASTVALUE, toast_options, true);
	NewRelationCreateToastTable(segment, toast_options);
}

static Oid
create_segment(const PgtSource *source, int number, Relation relation, Bitmapset *columns)
{
	CreateStmt *stmt = makeNode(CreateStmt);
	ObjectAddress segment;
	ObjectAddress extension = {ExtensionRelationId, get_extension_oid("pg_trickle", false), 0};
	int attnum = -1;

	stmt->relation = makeRangeVar(pstrdup(PGT_CHANGES_SCHEMA),
								  pgt_source_buffer_name(source->source_id, number), -1);
	stmt->tableElts = make_fixed_columns();
	while ((attnum = bms_next_member(columns, attnum)) >= 0)
		stmt->tableElts = lappend(stmt->tableElts, make_column(relation, attnum));
	stmt->options = make_options();
	stmt->oncommit = ONCOMMIT_NOOP;
	stmt->accessMethod = pstrdup("heap");
	/* Not where default_tablespace of the session points to. */
	stmt->tablespacename = get_tablespace_name(MyDatabaseTableSpace);
	segment = DefineRelation(stmt, RELKIND_RELATION, pgt_extension_owner(), NULL, NULL);
	CommandCounterIncrement();
	create_toast_table(segment.objectId, stmt->options);
	recordDependencyOn(&segment, &extension, DEPENDENCY_EXTENSION);
	CommandCounterIncrement();
	return segment.objectId;
}

static void
alter_segment(Oid segment, AlterTableType type, const char *column, ColumnDef *def)
{
	AlterTableCmd *cmd = makeNode(AlterTableCmd);

	cmd->subtype = type;
	cmd->name = column == NULL ? NULL : pstrdup(column);
	cmd->def = (Node *) def;
	cmd->behavior = DROP_RESTRICT;
	/*
	 * Our own event trigger may have called this. What is altered there is nobody's command, and
	 * before PostgreSQL 15.19 collecting it without one crashes.
	 */
	EventTriggerInhibitCommandCollection();
	PG_TRY();
	{
		AlterTableInternal(segment, list_make1(cmd), false);
	}
	PG_FINALLY();
	{
		EventTriggerUndoInhibitCommandCollection();
	}
	PG_END_TRY();
	CommandCounterIncrement();
}

/* True if the segment has changed; *replaced: it had the column, of another type. */
static bool
add_column(Oid segment_relid, Relation relation, AttrNumber attnum, bool *replaced)
{
	ColumnDef *def = make_column(relation, attnum);
	Oid type = getBaseType(TupleDescAttr(RelationGetDescr(relation), attnum - 1)->atttypid);
	Relation segment = table_open(segment_relid, AccessShareLock);
	AttrNumber at = pgt_capture_map_attribute(RelationGetDescr(segment), attnum);
	bool fits = at != InvalidAttrNumber &&
				TupleDescAttr(RelationGetDescr(segment), at - 1)->atttypid == type;

	table_close(segment, NoLock);
	if (fits)
		return false;
	/* Another type: what was captured means nothing any more. */
	if (at != InvalidAttrNumber)
	{
		alter_segment(segment_relid, AT_DropColumn, column_name(attnum), NULL);
		*replaced = true;
	}
	alter_segment(segment_relid, AT_AddColumn, NULL, def);
	return true;
}

/* Columns of the source that the segment captures and that still exist. */
static Bitmapset *
captured_columns(Oid segment_relid, Relation relation)
{
	Relation segment = table_open(segment_relid, AccessShareLock);
	TupleDesc desc = RelationGetDescr(relation);
	Bitmapset *columns = NULL;

	for (AttrNumber attnum = 1; attnum <= desc->natts; attnum++)
	{
		if (!TupleDescAttr(desc, attnum - 1)->attisdropped &&
			pgt_capture_map_attribute(RelationGetDescr(segment), attnum) != InvalidAttrNumber)
			columns = bms_add_member(columns, attnum);
	}
	table_close(segment, NoLock);
	return columns;
}

/* A buffer that a dump brought along, or a table that somebody put there. */
static bool
is_ours(Oid segment)
{
	return getExtensionOfObject(RelationRelationId, segment) ==
		   get_extension_oid("pg_trickle", false);
}

void
pgt_capture_create_segments(PgtSource *source, Bitmapset *columns)
{
	Relation relation = table_open(source->relid, NoLock);
	Bitmapset *all = bms_copy(columns);
	int attnum = -1;
	bool changed = false;
	bool replaced = false;

	for (int i = 0; i < PGT_SEGMENTS; i++)
	{
		if (OidIsValid(source->segments[i]) && !is_ours(source->segments[i]))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_TABLE),
					 errmsg("table \"%s.%s\" is in the way of a change buffer", PGT_CHANGES_SCHEMA,
							pgt_source_buffer_name(source->source_id, i)),
					 errhint("Drop it; nothing but pg_trickle keeps tables in that schema.")));
		if (OidIsValid(source->segments[i]))
			all = bms_join(all, captured_columns(source->segments[i], relation));
	}
	for (int i = 0; i < PGT_SEGMENTS; i++)
	{
		if (OidIsValid(source->segments[i]))
			continue;
		source->segments[i] = create_segment(source, i, relation, all);
		changed = true;
	}
	while ((attnum = bms_next_member(all, attnum)) >= 0)
	{
		for (int i = 0; i < PGT_SEGMENTS; i++)
			changed |= add_column(source->segments[i], relation, attnum, &replaced);
	}
	table_close(relation, NoLock);
	if (changed)
		CommandCounterIncrement();
	/* Its readers compute everything. */
	if (replaced)
		pgt_capture_append_marker(source->relid, source->source_id);
}

/* Members of an extension cannot be dropped as such. */
static void
release_from_extension(Oid class, Oid object)
{
	(void) deleteDependencyRecordsForClass(class, object, ExtensionRelationId,
										   DEPENDENCY_EXTENSION);
}

void
pgt_capture_drop_segments(int64 source_id)
{
	Oid schema = pgt_extension_schema(PGT_CHANGES_SCHEMA);

	for (int i = 0; i < PGT_SEGMENTS; i++)
	{
		ObjectAddress segment = {
			RelationRelationId, get_relname_relid(pgt_source_buffer_name(source_id, i), schema), 0};
		Oid row_type;

		if (!OidIsValid(segment.objectId))
			continue;
		row_type = get_rel_type_id(segment.objectId);
		release_from_extension(RelationRelationId, segment.objectId);
		/* From 17 on pg_upgrade makes these members, too. */
		release_from_extension(TypeRelationId, row_type);
		release_from_extension(TypeRelationId, get_array_type(row_type));
		CommandCounterIncrement();
		performDeletion(&segment, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	}
}

void
pgt_capture_empty_segment(Oid segment)
{
	char *sql = psprintf("TRUNCATE TABLE %s", pgt_sqltext_relation(segment));

	(void) pgt_spi_execute(sql);
}
