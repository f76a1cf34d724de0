/*
 * ddl_source.c: statements about what the queries of stream tables use.
 *
 * Changes that a query does not see need nothing; those that PostgreSQL's
 * dependencies refuse never come here. The rest marks the stream tables that
 * may be concerned for a rebuild: their next refresh computes everything.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "pgt_capture.h"
#include "pgt_dependency.h"
#include "pgt_frontier.h"
#include "pgt_security.h"
#include "pgt_source.h"
#include "pgt_spi.h"

#include "api_internal.h"

/* ---- Who is concerned ---- */

/* The relation, and every table that contains its rows as a parent. */
static void
add_ancestors(List **relids, Oid relid)
{
	Relation inherits;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	List *parents = NIL;
	ListCell *lc;

	*relids = list_append_unique_oid(*relids, relid);
	inherits = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(inherits, InheritsRelidSeqnoIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		parents = lappend_oid(parents, ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent);
	systable_endscan(scan);
	table_close(inherits, AccessShareLock);
	foreach (lc, parents)
		add_ancestors(relids, lfirst_oid(lc));
}

static List *
list_ancestors(Oid relid)
{
	List *relids = NIL;

	add_ancestors(&relids, relid);
	return relids;
}

static void
mark_consumers(Oid relid, const char *reason)
{
	ListCell *lr;
	ListCell *lc;

	foreach (lr, list_ancestors(relid))
		foreach (lc, pgt_dependency_consumers(lfirst_oid(lr)))
			pgt_frontier_mark_rebuild(*(int64 *) lfirst(lc), reason);
}

static bool
has_consumers(Oid relid)
{
	ListCell *lr;

	foreach (lr, list_ancestors(relid))
		if (pgt_dependency_consumers(lfirst_oid(lr)) != NIL)
			return true;
	return false;
}

/*
 * Stream tables whose definition depends on an object, over views, operators,
 * aggregates and whatever else lies between.
 */
static List *
list_dependents(Oid classid, Oid objid)
{
	List *list = NIL;
	PgtSecurity saved;
	PgtRows *rows;

	if (pgt_stream_table_list() == NIL)
		return NIL;
	saved = pgt_security_become_extension_owner();
	rows = pgt_spi_select(psprintf("WITH RECURSIVE d (classid, objid) AS ("
								   "SELECT %u::pg_catalog.oid, %u::pg_catalog.oid UNION "
								   "SELECT CASE WHEN r.oid IS NULL THEN p.classid"
								   " ELSE 'pg_catalog.pg_class'::pg_catalog.regclass END,"
								   " coalesce(r.ev_class, p.objid) FROM d"
								   " JOIN pg_catalog.pg_depend p ON p.refclassid = d.classid"
								   " AND p.refobjid = d.objid"
								   " LEFT JOIN pg_catalog.pg_rewrite r"
								   " ON p.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
								   " AND r.oid = p.objid"
								   " WHERE p.deptype NOT IN ('e', 'x'))"
								   " SELECT s.pgt_id FROM d JOIN pgtrickle.pgt_definitions s"
								   " ON s.view_relid = d.objid WHERE d.classid ="
								   " 'pg_catalog.pg_class'::pg_catalog.regclass ORDER BY 1",
								   classid, objid));
	pgt_security_restore(&saved);
	for (int i = 0; i < rows->nrows; i++)
	{
		PgtStreamTable *st = pgt_stream_table_find_id(pgt_spi_int64(rows, i, 1));

		if (st != NULL)
			list = lappend(list, st);
	}
	return list;
}

void
pgt_ddl_mark_dependents(Oid classid, Oid objid, const char *reason)
{
	ListCell *lc;

	foreach (lc, list_dependents(classid, objid))
	{
		PgtStreamTable *st = lfirst(lc);

		pgt_frontier_mark_rebuild(st->pgt_id, reason);
		/* It may have become volatile, or immutable: every backend looks at the query again. */
		CacheInvalidateRelcacheByRelid(st->view_relid);
	}
}

void
pgt_ddl_rebuild_dependents(Oid classid, Oid objid, const char *reason)
{
	ListCell *lc;

	foreach (lc, list_dependents(classid, objid))
	{
		PgtStreamTable *st = lfirst(lc);

		/* Through another stream table only its rows matter, and refreshes see to these. */
		if (pgt_define_reads(st, objid))
			pgt_lifecycle_rebuild(st, reason);
	}
}

/* ---- ALTER TABLE ---- */

/* Columns that identify rows may do so only as long as they are never null. */
static void
null_allowed(Oid relid, const char *column)
{
	AttrNumber attnum = get_attnum(relid, column);
	ListCell *lc;

	foreach (lc, pgt_dependency_list_all())
	{
		PgtDependency *dependency = lfirst(lc);
		PgtStreamTable *st;

		if (dependency->relid != relid || !bms_is_member(attnum, dependency->columns))
			continue;
		st = pgt_stream_table_find_id(dependency->pgt_id);
		if (st != NULL)
			pgt_lifecycle_rebuild(st, "a NOT NULL constraint of a source was dropped");
	}
}

static void
source_command(Oid relid, const AlterTableCmd *command)
{
	switch (command->subtype)
	{
		case AT_AttachPartition:
		case AT_DetachPartition:
		case AT_DetachPartitionFinalize:
		case AT_AddInherit:
		case AT_DropInherit:
			/* Rows that came or went with a child make capture write a marker. */
			pgt_capture_follow_children(InvalidOid);
			break;
		case AT_DropNotNull:
			null_allowed(relid, command->name);
			break;
		case AT_EnableTrig:
		case AT_EnableAlwaysTrig:
		case AT_EnableReplicaTrig:
		case AT_EnableTrigAll:
		case AT_EnableTrigUser:
		case AT_DisableTrig:
		case AT_DisableTrigAll:
		case AT_DisableTrigUser:
			mark_consumers(relid, "triggers of a source were disabled or enabled");
			break;
		case AT_EnableRowSecurity:
		case AT_DisableRowSecurity:
		case AT_ForceRowSecurity:
		case AT_NoForceRowSecurity:
			mark_consumers(relid, "row-level security of a source was changed");
			break;
		default:
			break;
	}
}

void
pgt_ddl_source_altered(const AlterTableStmt *stmt)
{
	Oid relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	PgtStreamTable *st;
	ListCell *lc;

	if (!OidIsValid(relid))
		return;
	st = pgt_stream_table_find(relid);
	foreach (lc, stmt->cmds)
	{
		if (st != NULL && lfirst_node(AlterTableCmd, lc)->subtype == AT_ChangeOwner)
			pgt_ddl_follow_owner(st);
		source_command(relid, lfirst_node(AlterTableCmd, lc));
	}
}

/* ---- The others ---- */

void
pgt_ddl_source_renamed(const RenameStmt *stmt)
{
	Oid relid;
	ListCell *lr;
	ListCell *lc;

	if (stmt->renameType != OBJECT_COLUMN || stmt->relation == NULL)
		return;
	relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	if (!OidIsValid(relid))
		return;
	CommandCounterIncrement();
	foreach (lr, list_ancestors(relid))
		foreach (lc, pgt_dependency_consumers(lfirst_oid(lr)))
		{
			PgtStreamTable *st = pgt_stream_table_find_id(*(int64 *) lfirst(lc));

			if (st != NULL)
				pgt_define_note_sources(st);
		}
}

void
pgt_ddl_children_created(const CreateStmt *stmt)
{
	ListCell *lc;

	foreach (lc, stmt->inhRelations)
	{
		Oid parent = RangeVarGetRelid(lfirst_node(RangeVar, lc), NoLock, true);

		if (!OidIsValid(parent) || !has_consumers(parent))
			continue;
		pgt_capture_follow_children(InvalidOid);
	}
}

void
pgt_ddl_before_drop(const DropStmt *stmt)
{
	ListCell *lc;

	if (stmt->removeType != OBJECT_POLICY)
		return;
	foreach (lc, stmt->objects)
	{
		List *name = lfirst(lc);

		pgt_ddl_policies_changed(
			makeRangeVarFromNameList(list_truncate(list_copy(name), list_length(name) - 1)));
	}
}

void
pgt_ddl_policies_changed(const RangeVar *table)
{
	Oid relid = RangeVarGetRelid(table, NoLock, true);

	if (OidIsValid(relid))
		mark_consumers(relid, "row-level security of a source was changed");
}
