/*
 * ddl_stream_table.c: statements about a stream table itself.
 *
 * Indexes, grants, policies, comments, storage parameters, constraints and the
 * owner are the user's business. Columns belong to the query, and rows to the
 * refreshes.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "commands/tablecmds.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "pgt_compat.h"
#include "pgt_extension.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

#define GUARD_FUNCTION "guard_stream_table"

static PgtStreamTable *
find_stream_table(const RangeVar *name)
{
	Oid relid = name == NULL ? InvalidOid : RangeVarGetRelid(name, NoLock, true);

	return OidIsValid(relid) ? pgt_stream_table_find(relid) : NULL;
}

/* what: a clause with "it" for the table. */
static void
refuse(const PgtStreamTable *st, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("\"%s\" is a stream table, so you cannot %s", get_rel_name(st->relid), what),
			 errhint("%s", hint)));
}

static bool
is_guard(Oid relid, const char *trigger_name)
{
	Relation table = table_open(relid, AccessShareLock);
	bool found = false;

	for (int i = 0; table->trigdesc != NULL && i < table->trigdesc->numtriggers; i++)
	{
		Trigger *trigger = &table->trigdesc->triggers[i];

		if (strcmp(trigger->tgname, trigger_name) == 0)
		{
			char *function = get_func_name(trigger->tgfoid);

			found = function != NULL && strcmp(function, GUARD_FUNCTION) == 0;
		}
	}
	table_close(table, AccessShareLock);
	return found;
}

static void
check_command(const PgtStreamTable *st, const AlterTableCmd *command)
{
	switch (command->subtype)
	{
		case AT_AddColumn:
		case AT_DropColumn:
		case AT_AlterColumnType:
			refuse(st, "change its columns",
				   "Use pgtrickle.alter_stream_table(name, query => ...).");
			break;
		case AT_ColumnDefault:
		case AT_AddIdentity:
		case AT_SetIdentity:
			refuse(st, "set defaults of its columns", "All values come from the query.");
			break;
		case AT_AddInherit:
		case AT_AddOf:
			refuse(st, "give it a parent or a type", "Create a view over it instead.");
			break;
		case AT_SetUnLogged:
			refuse(st, "make it unlogged",
				   "Its rows would be lost in a crash without its definition knowing.");
			break;
		case AT_DisableTrigAll:
		case AT_DisableTrigUser:
			refuse(st, "disable all its triggers", "Disable your own triggers by name.");
			break;
		case AT_EnableTrigAll:
		case AT_EnableTrigUser:
			/* Its guards are enabled for more than that. */
			refuse(st, "enable all its triggers", "Enable your own triggers by name.");
			break;
		case AT_EnableReplicaTrig:
			/* As a dump has it. */
			if (strcmp(command->name, PGT_APPLY_GUARD_TRIGGER) == 0)
				break;
			/* FALLTHROUGH */
		case AT_DisableTrig:
		case AT_EnableTrig:
			if (is_guard(st->relid, command->name))
				refuse(st, "remove its guard", "Change the tables it reads, then refresh it.");
			break;
		default:
			break;
	}
}

void
pgt_ddl_check_alter(const AlterTableStmt *stmt)
{
	PgtStreamTable *st = find_stream_table(stmt->relation);
	ListCell *lc;

	if (st == NULL)
		return;
	foreach (lc, stmt->cmds)
		check_command(st, lfirst_node(AlterTableCmd, lc));
}

void
pgt_ddl_check_rename(const RenameStmt *stmt)
{
	PgtStreamTable *st;

	if (stmt->renameType != OBJECT_COLUMN)
		return;
	st = find_stream_table(stmt->relation);
	if (st != NULL)
		refuse(
			st, "rename its columns",
			"Use pgtrickle.alter_stream_table(name, query => ...) with the new name in the query.");
}

void
pgt_ddl_check_create(const CreateStmt *stmt)
{
	ListCell *lc;

	foreach (lc, stmt->inhRelations)
	{
		PgtStreamTable *st = find_stream_table(lfirst_node(RangeVar, lc));

		if (st != NULL)
			refuse(st, "make children of it", "Create a view over it instead.");
	}
}

void
pgt_ddl_check_rule(const RuleStmt *stmt)
{
	PgtStreamTable *st = find_stream_table(stmt->relation);

	if (st != NULL)
		refuse(st, "create rules on it", "Create a view over it, and a rule on that.");
}

/*
 * Deferred triggers run at the commit, with the rights of whoever commits: of
 * the scheduler, when it refreshed.
 */
void
pgt_ddl_check_trigger(const CreateTrigStmt *stmt)
{
	PgtStreamTable *st = stmt->deferrable ? find_stream_table(stmt->relation) : NULL;

	if (st != NULL)
		refuse(st, "create deferrable triggers on it", "Create a trigger that is not deferrable.");
}

void
pgt_ddl_check_drop(const DropStmt *stmt)
{
	ListCell *lc;

	if (stmt->removeType != OBJECT_TRIGGER)
		return;
	foreach (lc, stmt->objects)
	{
		List *name = lfirst(lc);
		RangeVar *table = makeRangeVarFromNameList(
			list_truncate(list_copy(name), list_length(name) - 1));
		PgtStreamTable *st = find_stream_table(table);

		if (st != NULL && is_guard(st->relid, strVal(llast(name))))
			refuse(st, "remove its guard", "Change the tables it reads, then refresh it.");
	}
}

void
pgt_ddl_follow_owner(PgtStreamTable *st)
{
	Oid owner = pgt_compat_relation_owner(st->relid);
	Oid view_owner = pgt_compat_relation_owner(st->view_relid);
	PgtSecurity saved;

	if (!OidIsValid(owner) || !OidIsValid(view_owner))
		return;
	if (owner != view_owner)
	{
		saved = pgt_security_become_extension_owner();
		ATExecChangeOwner(st->view_relid, owner, true, AccessExclusiveLock);
		pgt_security_restore(&saved);
		CommandCounterIncrement();
		pgt_publication_follow_owner(st, view_owner, owner);
	}
	pgt_refresh_hand_over(st->relid, owner);
	pgt_delta_forget(st->pgt_id);
}
