/*
 * define.c: what a stream table consists of in the database.
 *
 *	 the user's table		ordinary, owned by its creator
 *	 pgtrickle_state.def_N	hidden view with the defining query, same owner,
 *							an internal part of the table: dropping a source
 *							names the table as what depends on it
 *	 stages, their states	hidden tables, made by delta
 *	 identity				index and replica identity, made by refresh
 *	 guard					statement trigger, see guard.c
 *	 capture				triggers and buffers of the sources, made by capture
 *
 * Locks: ShareRowExclusive on sources in the order of their oids, before any
 * snapshot for the first refresh is taken.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/toasting.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "commands/view.h"
#include "catalog/pg_rewrite.h"
#include "rewrite/rewriteSupport.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "pgt_capture.h"
#include "pgt_dependency.h"
#include "pgt_extension.h"
#include "pgt_graph.h"
#include "pgt_refresh.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

#define STORAGE_FILLFACTOR 70 /* room for HOT updates */

/* ---- Table and view ---- */

static CreateStmt *
make_create_statement(const char *schema, const char *name, List *columns)
{
	CreateStmt *stmt = makeNode(CreateStmt);

	stmt->relation = makeRangeVar(pstrdup(schema), pstrdup(name), -1);
	stmt->tableElts = copyObject(columns);
	stmt->oncommit = ONCOMMIT_NOOP;
	return stmt;
}

/* The guards that refuse direct changes; see guard.c. */
static void
create_guard(Oid relid)
{
	char *name = pgt_sqltext_relation(relid);

	pgt_ddl_run(psprintf("CREATE TRIGGER " PGT_GUARD_TRIGGER
						 " BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE"
						 " ON %s EXECUTE FUNCTION pgtrickle.guard_stream_table()",
						 name));
	pgt_ddl_run(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER " PGT_GUARD_TRIGGER, name));
	pgt_ddl_run(psprintf("CREATE TRIGGER " PGT_APPLY_GUARD_TRIGGER
						 " BEFORE INSERT OR UPDATE OR DELETE ON %s"
						 " FOR EACH ROW EXECUTE FUNCTION pgtrickle.guard_stream_table()",
						 name));
	pgt_ddl_run(psprintf("ALTER TABLE %s ENABLE REPLICA TRIGGER " PGT_APPLY_GUARD_TRIGGER, name));
}

Oid
pgt_define_table(const char *schema, const char *name, List *columns, Oid owner)
{
	CreateStmt *stmt = make_create_statement(schema, name, columns);
	ObjectAddress address;

	stmt->options = list_make1(
		makeDefElem("fillfactor", (Node *) makeInteger(STORAGE_FILLFACTOR), -1));
	stmt->accessMethod = "heap";
	address = DefineRelation(stmt, RELKIND_RELATION, owner, NULL, NULL);
	CommandCounterIncrement();
	NewRelationCreateToastTable(address.objectId, (Datum) 0);
	CommandCounterIncrement();
	create_guard(address.objectId);
	return address.objectId;
}

Oid
pgt_define_view(int64 pgt_id, Oid relid, Query *query, List *columns, Oid owner)
{
	CreateStmt *stmt = make_create_statement(PGT_STATE_SCHEMA,
											 psprintf("def_" INT64_FORMAT, pgt_id), columns);
	PgtSecurity saved = pgt_security_become_extension_owner();
	ObjectAddress view = DefineRelation(stmt, RELKIND_VIEW, owner, NULL, NULL);
	ObjectAddress table = {RelationRelationId, relid, 0};

	CommandCounterIncrement();
	StoreViewQuery(view.objectId, copyObject(query), false);
	recordDependencyOn(&view, &table, DEPENDENCY_INTERNAL);
	CommandCounterIncrement();
	pgt_security_restore(&saved);
	return view.objectId;
}

void
pgt_define_drop_view(Oid view_relid, Oid relid)
{
	ObjectAddress view = {RelationRelationId, view_relid, 0};

	/* No longer a part of the table, so that it can go alone. */
	deleteDependencyRecordsForClass(RelationRelationId, view_relid, RelationRelationId,
									DEPENDENCY_INTERNAL);
	CommandCounterIncrement();
	performDeletion(&view, DROP_RESTRICT, PERFORM_DELETION_INTERNAL | PERFORM_DELETION_QUIETLY);
	CommandCounterIncrement();
}

/* ---- Sources ---- */

static const char *
source_type(const PgtSourceUse *use)
{
	if (pgt_stream_table_find(use->relid) != NULL)
		return "STREAM_TABLE";
	switch (use->relkind)
	{
		case RELKIND_VIEW:
			return "VIEW";
		case RELKIND_MATVIEW:
			return "MATVIEW";
		case RELKIND_FOREIGN_TABLE:
			return "FOREIGN_TABLE";
		default:
			return "TABLE";
	}
}

static int
compare_dependencies(const ListCell *a, const ListCell *b)
{
	Oid left = ((PgtDependency *) lfirst(a))->relid;
	Oid right = ((PgtDependency *) lfirst(b))->relid;

	return left < right ? -1 : left > right ? 1 : 0;
}

static List *
make_dependencies(int64 pgt_id, const PgtDefinition *definition)
{
	List *dependencies = NIL;
	ListCell *lc;

	foreach (lc, definition->sources)
	{
		PgtSourceUse *use = lfirst(lc);
		PgtDependency *dependency = palloc0(sizeof(PgtDependency));

		dependency->pgt_id = pgt_id;
		dependency->relid = use->relid;
		dependency->type = source_type(use);
		dependency->columns = use->columns;
		dependencies = lappend(dependencies, dependency);
	}
	list_sort(dependencies, compare_dependencies);
	return dependencies;
}

static bool
is_capturable(const PgtDependency *dependency)
{
	return strcmp(dependency->type, "TABLE") == 0 || strcmp(dependency->type, "STREAM_TABLE") == 0;
}

/* Writers are out until we commit, and what they wrote is visible from now on. */
static void
lock_sources(List *dependencies)
{
	ListCell *lc;

	foreach (lc, dependencies)
	{
		PgtDependency *dependency = lfirst(lc);

		if (!is_capturable(dependency) || pgt_delta_source_reason(dependency->relid) != NULL)
			continue;
		(void) find_all_inheritors(dependency->relid, NoLock, NULL);
		LockRelationOid(dependency->relid, ShareRowExclusiveLock);
		(void) find_all_inheritors(dependency->relid, ShareRowExclusiveLock, NULL);
	}
}

void
pgt_define_lock_sources(const PgtDefinition *definition)
{
	lock_sources(make_dependencies(0, definition));
}

static void
capture_sources(List *dependencies)
{
	ListCell *lc;

	lock_sources(dependencies);
	foreach (lc, dependencies)
	{
		PgtDependency *dependency = lfirst(lc);

		if (!is_capturable(dependency) || pgt_delta_source_reason(dependency->relid) != NULL)
			continue;
		pgt_capture_install(dependency->relid, dependency->columns,
							strcmp(dependency->type, "STREAM_TABLE") == 0);
	}
}

void
pgt_define_release_sources(List *dependencies)
{
	ListCell *lc;

	foreach (lc, dependencies)
	{
		PgtDependency *dependency = lfirst(lc);

		if (is_capturable(dependency))
			pgt_capture_release(dependency->relid);
	}
}

/* ---- Cycles ---- */

static char *
describe_cycle(const PgtGraph *graph, const int *cycle, int length)
{
	StringInfoData path;

	initStringInfo(&path);
	for (int i = 0; i <= length; i++)
		appendStringInfo(&path, "%s%s", i > 0 ? " -> " : "",
						 pgt_sqltext_relation((Oid) graph->ids[cycle[i % length]]));
	return path.data;
}

void
pgt_define_check_cycle(const PgtStreamTable *st, Query *query)
{
	PgtDefinition *definition = pgt_delta_analyze(InvalidOid, copyObject(query));
	List *stored = pgt_dependency_list_all();
	int max = list_length(stored) + list_length(definition->sources);
	PgtEdge *edges = palloc(sizeof(PgtEdge) * Max(max, 1));
	int n = 0;
	PgtGraph *graph;
	int *cycle;
	int length;
	ListCell *lc;

	foreach (lc, stored)
	{
		PgtDependency *dependency = lfirst(lc);
		PgtStreamTable *reader;

		if (dependency->pgt_id == st->pgt_id)
			continue;
		reader = pgt_stream_table_find_id(dependency->pgt_id);
		if (reader == NULL)
			continue;
		edges[n].source = dependency->relid;
		edges[n++].target = reader->relid;
	}
	foreach (lc, definition->sources)
	{
		edges[n].source = ((PgtSourceUse *) lfirst(lc))->relid;
		edges[n++].target = st->relid;
	}
	graph = pgt_graph_make(NULL, 0, edges, n, palloc);
	cycle = palloc(sizeof(int) * Max(graph->node_count, 1));
	length = pgt_graph_find_cycle(graph, cycle, palloc);
	if (length == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg(length == 1 ? "stream table \"%s\" would read itself"
								: "stream table \"%s\" would read itself through others",
					get_rel_name(st->relid)),
			 errdetail("Each is read by the next: %s.", describe_cycle(graph, cycle, length)),
			 errhint("Define it over tables that do not depend on it.")));
}

/* ---- What makes it live ---- */

PgtDefinition *
pgt_define_machinery(PgtStreamTable *st, const char *query_text, bool with_identity)
{
	PgtDefinition *definition = pgt_delta_analyze(st->view_relid, NULL);
	List *dependencies;
	ListCell *lc;

	if (definition->full_reason != NULL && st->mode == PGT_MODE_DIFFERENTIAL)
		pgt_query_refuse_mode(definition, query_text);
	st->full_reason = definition->full_reason;
	st->made_by = PGT_VERSION;
	pgt_delta_choose_storage(definition, pgt_stream_table_owner(st));
	dependencies = make_dependencies(st->pgt_id, definition);
	pgt_dependency_replace(st->pgt_id, dependencies);
	capture_sources(dependencies);
	pgt_delta_create_stages(st->pgt_id, st->relid, definition);
	foreach (lc, definition->stages)
	{
		PgtStage *stage = lfirst(lc);
		bool is_stage = lnext(definition->stages, lc) != NULL;

		if (is_stage || with_identity)
			pgt_refresh_create_storage(st, stage, is_stage);
		else
			pgt_refresh_create_states(st, stage);
	}
	CommandCounterIncrement();
	return definition;
}

void
pgt_define_note_sources(PgtStreamTable *st)
{
	PgtDefinition *definition = pgt_delta_analyze(st->view_relid, NULL);

	pgt_delta_bind(definition, st->pgt_id, st->relid);
	pgt_dependency_replace(st->pgt_id, make_dependencies(st->pgt_id, definition));
	pgt_delta_forget(st->pgt_id);
}

bool
pgt_define_reads(const PgtStreamTable *st, Oid relid)
{
	ListCell *lc;

	foreach (lc, pgt_dependency_list(st->pgt_id))
		if (((PgtDependency *) lfirst(lc))->relid == relid)
			return true;
	return false;
}

/* Stages and states are the hidden tables that are parts of the user's table. */
static void
drop_hidden_tables(Oid relid)
{
	PgtRows *rows;
	PgtSecurity saved = pgt_security_become_extension_owner();

	rows = pgt_spi_select(psprintf("SELECT d.objid FROM pg_catalog.pg_depend d"
								   " JOIN pg_catalog.pg_class c ON c.oid = d.objid"
								   " WHERE d.classid = 'pg_catalog.pg_class'::regclass"
								   " AND d.refclassid = 'pg_catalog.pg_class'::regclass"
								   " AND d.refobjid = %u AND c.relkind = 'r'"
								   " AND c.relnamespace = 'pgtrickle_state'::regnamespace",
								   relid));
	for (int i = 0; i < rows->nrows; i++)
	{
		ObjectAddress table = {RelationRelationId, pgt_spi_oid(rows, i, 1), 0};

		performDeletion(&table, DROP_CASCADE, PERFORM_DELETION_INTERNAL | PERFORM_DELETION_QUIETLY);
	}
	pgt_security_restore(&saved);
	CommandCounterIncrement();
}

void
pgt_define_drop_machinery(PgtStreamTable *st)
{
	pgt_delta_forget(st->pgt_id);
	drop_hidden_tables(st->relid);
	pgt_define_release_view(st->view_relid);
}

void
pgt_define_release_view(Oid view_relid)
{
	Oid rule = get_rewrite_oid(view_relid, ViewSelectRuleName, false);

	deleteDependencyRecordsForClass(RewriteRelationId, rule, ConstraintRelationId,
									DEPENDENCY_NORMAL);
	deleteDependencyRecordsForClass(RewriteRelationId, rule, RelationRelationId, DEPENDENCY_NORMAL);
	CommandCounterIncrement();
}
