/*
 * ddl.c: event triggers: which statements concern stream tables.
 *
 * PostgreSQL's own dependencies do most of the work, since the definition is a
 * view: dropping or retyping a used column, or dropping a source, is refused
 * with the dependents listed. What they do not cover is found here by the kind
 * of statement and left to ddl_stream_table.c and ddl_source.c.
 *
 * The triggers are enabled always, so session_replication_role does not
 * matter. They do nothing while extensions are created or upgraded, and while
 * pg_trickle runs statements of its own.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_publication.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "parser/parse_type.h"

#include "pgt_capture.h"
#include "pgt_extension.h"
#include "pgt_refresh.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_wake.h"

#include "api_internal.h"

PG_FUNCTION_INFO_V1(pgt_ddl_command_start);
PG_FUNCTION_INFO_V1(pgt_ddl_command_end);
PG_FUNCTION_INFO_V1(pgt_sql_drop);

static int internal_depth = 0;

bool
pgt_ddl_is_internal(void)
{
	return internal_depth > 0;
}

static void
run_internal(const char *sql)
{
	internal_depth++;
	PG_TRY();
	{
		pgt_spi_execute(sql);
	}
	PG_FINALLY();
	{
		internal_depth--;
	}
	PG_END_TRY();
}

void
pgt_ddl_run(const char *sql)
{
	PgtSecurity saved = pgt_security_become_extension_owner();

	run_internal(sql);
	pgt_security_restore(&saved);
}

void
pgt_ddl_run_as(Oid owner, const char *sql)
{
	PgtSecurity saved = pgt_security_become(owner);

	run_internal(sql);
	pgt_security_restore(&saved);
}

void
pgt_ddl_drop_storage(const PgtStreamTable *st)
{
	internal_depth++;
	PG_TRY();
	{
		pgt_refresh_drop_storage(st);
	}
	PG_FINALLY();
	{
		internal_depth--;
	}
	PG_END_TRY();
}

/* The statement, or NULL if it is none of our business. */
static Node *
get_statement(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("not called by event trigger manager")));
	if (internal_depth > 0 || creating_extension || !pgt_extension_exists())
		return NULL;
	return ((EventTriggerData *) fcinfo->context)->parsetree;
}

Datum
pgt_ddl_command_start(PG_FUNCTION_ARGS)
{
	Node *stmt = get_statement(fcinfo);

	if (stmt == NULL)
		PG_RETURN_NULL();
	switch (nodeTag(stmt))
	{
		case T_AlterTableStmt:
			pgt_ddl_check_alter((AlterTableStmt *) stmt);
			pgt_ddl_before_retype((AlterTableStmt *) stmt);
			break;
		case T_RenameStmt:
			pgt_ddl_check_rename((RenameStmt *) stmt);
			break;
		case T_CreateStmt:
			pgt_ddl_check_create((CreateStmt *) stmt);
			break;
		case T_CreateTrigStmt:
			pgt_ddl_check_trigger((CreateTrigStmt *) stmt);
			break;
		case T_RuleStmt:
			pgt_ddl_check_rule((RuleStmt *) stmt);
			break;
		case T_DropStmt:
			pgt_ddl_check_drop((DropStmt *) stmt);
			pgt_ddl_before_drop((DropStmt *) stmt);
			break;
		default:
			break;
	}
	PG_RETURN_NULL();
}

typedef void (*ObjectVisitor)(Oid classid, Oid objid, const char *reason);

/* The objects of a catalog that the statement made or changed. */
static void
visit_objects(Oid classid, ObjectVisitor visit, const char *reason)
{
	PgtRows *rows = pgt_spi_select("SELECT classid, objid"
								   " FROM pg_catalog.pg_event_trigger_ddl_commands()");

	for (int i = 0; i < rows->nrows; i++)
		if (pgt_spi_oid(rows, i, 1) == classid)
			visit(classid, pgt_spi_oid(rows, i, 2), reason);
}

static void
follow_all_owners(void)
{
	ListCell *lc;

	foreach (lc, pgt_stream_table_list())
		pgt_ddl_follow_owner(lfirst(lc));
}

static void
domain_changed(const AlterDomainStmt *stmt)
{
	Oid type = typenameTypeId(NULL, makeTypeNameFromNameList(stmt->typeName));

	pgt_ddl_mark_dependents(TypeRelationId, type, "a domain that it uses was altered");
}

Datum
pgt_ddl_command_end(PG_FUNCTION_ARGS)
{
	Node *stmt = get_statement(fcinfo);

	if (stmt == NULL)
		PG_RETURN_NULL();
	switch (nodeTag(stmt))
	{
		case T_AlterTableStmt:
			pgt_ddl_after_retype();
			pgt_ddl_source_altered((AlterTableStmt *) stmt);
			break;
		case T_RenameStmt:
			pgt_ddl_source_renamed((RenameStmt *) stmt);
			if (((RenameStmt *) stmt)->renameType == OBJECT_PUBLICATION)
				pgt_publication_renamed(strVal(((RenameStmt *) stmt)->object),
										((RenameStmt *) stmt)->newname);
			break;
		case T_CreateStmt:
			pgt_ddl_children_created((CreateStmt *) stmt);
			break;
		case T_CreateForeignTableStmt:
			pgt_ddl_children_created(&((CreateForeignTableStmt *) stmt)->base);
			break;
		case T_CreateFunctionStmt:
		case T_AlterFunctionStmt:
			visit_objects(ProcedureRelationId, pgt_ddl_mark_dependents,
						  "a function that it uses was replaced");
			break;
		case T_ViewStmt:
			visit_objects(RelationRelationId, pgt_ddl_rebuild_dependents,
						  "a view that it reads was replaced");
			break;
		case T_AlterDomainStmt:
			domain_changed((AlterDomainStmt *) stmt);
			break;
		case T_CreatePolicyStmt:
			pgt_ddl_policies_changed(((CreatePolicyStmt *) stmt)->table);
			break;
		case T_AlterPolicyStmt:
			pgt_ddl_policies_changed(((AlterPolicyStmt *) stmt)->table);
			break;
		case T_CreateTrigStmt:
			/* The last of a restored dump may be this guard. */
			if (strcmp(((CreateTrigStmt *) stmt)->trigname, PGT_GUARD_TRIGGER) == 0)
				pgt_wake_catalog();
			break;
		case T_CreatePublicationStmt:
			pgt_publication_made(((CreatePublicationStmt *) stmt)->pubname);
			break;
		case T_AlterPublicationStmt:
			pgt_publication_made(((AlterPublicationStmt *) stmt)->pubname);
			break;
		case T_ReassignOwnedStmt:
			follow_all_owners();
			break;
		default:
			break;
	}
	PG_RETURN_NULL();
}

/* ---- Drops ---- */

Datum
pgt_sql_drop(PG_FUNCTION_ARGS)
{
	PgtRows *rows;
	bool relation_dropped = false;

	if (get_statement(fcinfo) == NULL)
		PG_RETURN_NULL();
	rows = pgt_spi_select("SELECT classid, objid, address_names[1] FROM"
						  " pg_catalog.pg_event_trigger_dropped_objects() WHERE objsubid = 0");

	/* Stream tables first: they no longer read what went with them. */
	for (int i = 0; i < rows->nrows; i++)
	{
		PgtStreamTable *st;

		if (pgt_spi_oid(rows, i, 1) != RelationRelationId)
			continue;
		relation_dropped = true;
		st = pgt_stream_table_find(pgt_spi_oid(rows, i, 2));
		if (st != NULL)
			pgt_lifecycle_forget(st);
	}
	for (int i = 0; i < rows->nrows; i++)
		if (pgt_spi_oid(rows, i, 1) == PublicationRelationId)
			pgt_publication_dropped(pgt_spi_text(rows, i, 3));
	for (int i = 0; i < rows->nrows; i++)
		if (pgt_spi_oid(rows, i, 1) == RelationRelationId)
			pgt_capture_release(pgt_spi_oid(rows, i, 2));
	if (relation_dropped)
		pgt_capture_follow_children(InvalidOid); /* it may have been somebody's partition */
	PG_RETURN_NULL();
}
