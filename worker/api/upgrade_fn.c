/*
 * upgrade_fn.c: what an upgrade script does with the stream tables that are there.
 *
 * Another version may analyse a query otherwise: fewer stages or others, other
 * columns in them, other keys, other columns of the sources. So hidden views,
 * stages, states, captures and dependencies of every stream table are made anew.
 * Rows stay as they are, and whatever is on the tables; the next refresh computes
 * everything and writes the difference. That is not done here, since it may
 * take long and nobody could write to the sources meanwhile.
 *
 * Called by sql/upgrade scripts only, through a function that they drop again.
 * Locks, until the end of the upgrade: the refresh lock of every stream table,
 * upstream first, then ShareRowExclusive on all sources, by oid; and what
 * alter.c takes for each.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "pgt_dependency.h"
#include "pgt_extension.h"
#include "pgt_frontier.h"
#include "pgt_refresh.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

PG_FUNCTION_INFO_V1(pgt_redefine_all);

/* ---- All stream tables, each after those that it reads ---- */

static bool
is_listed(List *list, int64 pgt_id)
{
	ListCell *lc;

	foreach (lc, list)
		if (((PgtStreamTable *) lfirst(lc))->pgt_id == pgt_id)
			return true;
	return false;
}

static void
add_after_upstreams(List **list, PgtStreamTable *st)
{
	ListCell *lc;

	check_stack_depth();
	if (is_listed(*list, st->pgt_id))
		return;
	foreach (lc, pgt_dependency_list(st->pgt_id))
	{
		PgtStreamTable *upstream = pgt_stream_table_find(((PgtDependency *) lfirst(lc))->relid);

		if (upstream != NULL && upstream->pgt_id != st->pgt_id)
			add_after_upstreams(list, upstream);
	}
	*list = lappend(*list, st);
}

static List *
list_in_order(void)
{
	List *list = NIL;
	ListCell *lc;

	foreach (lc, pgt_stream_table_list())
		add_after_upstreams(&list, lfirst(lc));
	return list;
}

/* So that no two statements can wait for each other in the middle of the upgrade. */
static void
lock_all(List *stream_tables)
{
	List *relids = NIL;
	ListCell *lc;
	ListCell *ld;

	foreach (lc, stream_tables)
	{
		PgtStreamTable *st = lfirst(lc);

		(void) pgt_refresh_lock(st->pgt_id, true);
		relids = list_append_unique_oid(relids, st->relid);
		foreach (ld, pgt_dependency_list(st->pgt_id))
		{
			Oid relid = ((PgtDependency *) lfirst(ld))->relid;

			relids = list_append_unique_oid(relids, relid);
		}
	}
	list_sort(relids, list_oid_cmp);
	foreach (lc, relids)
		LockRelationOid(lfirst_oid(lc), ShareRowExclusiveLock);
}

/* ---- One stream table ---- */

/*
 * Nothing that is left of the former version may be used: suspended, without
 * stages, until its query is set again.
 */
static void
give_up(PgtStreamTable *st, const ErrorData *error)
{
	const char *reason = psprintf("version %s cannot maintain it as it is: %s", PGT_VERSION,
								  error->message);
	char *sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode));

	pgt_define_drop_machinery(st);
	pgt_dependency_replace(st->pgt_id, NIL);
	pgt_frontier_mark_rebuild(st->pgt_id, reason);
	pgt_frontier_record_error(st->pgt_id, sqlstate, error->message, false, 0, reason);
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("stream table %s is suspended: %s", pgt_sqltext_relation(st->relid), reason),
			 error->detail != NULL ? errdetail_internal("%s", error->detail) : 0,
			 errhint("After the upgrade, mend the cause and call "
					 "pgtrickle.alter_stream_table(name, query => ...), or drop it.")));
}

/* False if it failed, with everything that it did undone. */
static bool
try_to_redefine(PgtStreamTable *st, const char *reason, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		pgt_lifecycle_redefine_later(st, reason);
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return done;
}

static void
redefine(PgtStreamTable *st, const char *reason)
{
	ErrorData *error = NULL;

	if (try_to_redefine(st, reason, &error))
		return;
	/* Stopped by the user, the administrator or a lock: the upgrade as a whole. */
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK ||
		error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(error);
	give_up(pgt_stream_table_find_id(st->pgt_id), error);
}

static int
redefine_all(const char *reason)
{
	List *stream_tables = list_in_order();
	ListCell *lc;

	lock_all(stream_tables);
	foreach (lc, stream_tables)
	{
		/* It may have been defined again with one before it. */
		PgtStreamTable *st = pgt_stream_table_find_id(((PgtStreamTable *) lfirst(lc))->pgt_id);

		if (st != NULL)
			redefine(st, reason);
	}
	return list_length(stream_tables);
}

/* redefine_all(reason text) returns integer: how many there are. */
Datum
pgt_redefine_all(PG_FUNCTION_ARGS)
{
	const char *reason = text_to_cstring(PG_GETARG_TEXT_PP(0));
	volatile int count = 0;

	if (!creating_extension || !superuser())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("only upgrade scripts of pg_trickle may call this function")));
	/* What is made for stream tables is not part of the extension. */
	creating_extension = false;
	PG_TRY();
	{
		count = redefine_all(reason);
	}
	PG_FINALLY();
	{
		creating_extension = true;
	}
	PG_END_TRY();
	PG_RETURN_INT32(count);
}
