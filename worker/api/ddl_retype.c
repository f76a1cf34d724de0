/*
 * ddl_retype.c: changing the type of a column that queries use, or dropping it.
 *
 * Refused like PostgreSQL does for views. With pg_trickle.block_source_ddl off
 * the hidden view lets go of the table before the statement, and after it the
 * query is read again from its text: the stream table follows, with other types
 * if need be, or the statement fails because the query does.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "pgt_dependency.h"
#include "pgt_guc.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

typedef struct Waiting
{
	int64 pgt_id;
	char *query; /* with every name qualified */
} Waiting;

/* Stream tables that wait for the end of the statement; of one transaction. */
static List *waiting = NIL;
static TransactionId waiting_xid = InvalidTransactionId;

static List *
list_users(Oid relid, AttrNumber column)
{
	List *users = NIL;
	ListCell *lc;

	foreach (lc, pgt_dependency_list_all())
	{
		PgtDependency *dependency = lfirst(lc);

		if (dependency->relid == relid && bms_is_member(column, dependency->columns))
			users = lappend(users, pgt_stream_table_find_id(dependency->pgt_id));
	}
	return users;
}

static void
refuse(const char *column, List *users)
{
	StringInfoData names;
	ListCell *lc;

	initStringInfo(&names);
	foreach (lc, users)
		appendStringInfo(&names, "%sstream table %s", names.len > 0 ? ", " : "",
						 pgt_sqltext_relation(((PgtStreamTable *) lfirst(lc))->relid));
	ereport(
		ERROR,
		(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
		 errmsg("cannot alter type of column \"%s\" because stream tables use it", column),
		 errdetail("It is used by %s.", names.data),
		 errhint(
			 "Drop them first, or set pg_trickle.block_source_ddl to off to have them rebuilt.")));
}

static void
let_go(PgtStreamTable *st)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Waiting *entry = palloc(sizeof(Waiting));

	if (waiting_xid != GetTopTransactionId())
		waiting = NIL;
	waiting_xid = GetTopTransactionId();
	entry->pgt_id = st->pgt_id;
	entry->query = pgt_lifecycle_query_text(st);
	waiting = lappend(waiting, entry);
	MemoryContextSwitchTo(old);

	pgt_define_release_view(st->view_relid);
}

static bool
is_waiting(int64 pgt_id)
{
	ListCell *lc;

	if (waiting_xid == InvalidTransactionId || waiting_xid != GetTopTransactionIdIfAny())
		return false;
	foreach (lc, waiting)
		if (((Waiting *) lfirst(lc))->pgt_id == pgt_id)
			return true;
	return false;
}

void
pgt_ddl_before_retype(const AlterTableStmt *stmt)
{
	Oid relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	ListCell *lc;
	ListCell *lu;

	foreach (lc, stmt->cmds)
	{
		AlterTableCmd *command = lfirst_node(AlterTableCmd, lc);
		AttrNumber column;
		List *users;

		if (!OidIsValid(relid) ||
			(command->subtype != AT_AlterColumnType && command->subtype != AT_DropColumn))
			continue;
		column = get_attnum(relid, command->name);
		users = column > 0 ? list_users(relid, column) : NIL;
		if (users != NIL && pgt_guc_block_source_ddl && command->subtype == AT_AlterColumnType)
			refuse(command->name, users);
		foreach (lu, users)
		{
			PgtStreamTable *st = lfirst(lu);

			/* A drop is refused by PostgreSQL, or takes them along with CASCADE. */
			if (!pgt_guc_block_source_ddl && command->behavior != DROP_CASCADE &&
				!is_waiting(st->pgt_id))
				let_go(st);
		}
	}
}

void
pgt_ddl_after_retype(void)
{
	List *entries = waiting;
	ListCell *lc;

	if (waiting == NIL || waiting_xid != GetTopTransactionIdIfAny())
		return;
	waiting = NIL;
	foreach (lc, entries)
	{
		Waiting *entry = lfirst(lc);
		PgtStreamTable *st = pgt_stream_table_find_id(entry->pgt_id);

		if (st != NULL)
			pgt_lifecycle_redefine(st, entry->query, "a column of a source was changed");
	}
}
