/*
 * create.c: creating a stream table.
 *
 * Everything happens in the caller's transaction, with the caller as owner. The
 * sources are locked and captured before the first refresh takes its snapshot,
 * so a transaction older than our locks cannot do it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "pgt_dependency.h"
#include "pgt_extension.h"
#include "pgt_frontier.h"
#include "pgt_guc.h"
#include "pgt_refresh.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

void
pgt_lifecycle_check_isolation(void)
{
	if (IsolationUsesXactSnapshot())
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(
				 "stream tables cannot be created, changed or refreshed in a transaction with isolation level %s",
				 XactIsoLevel == XACT_SERIALIZABLE ? "SERIALIZABLE" : "REPEATABLE READ"),
			 errdetail("Its snapshot may be older than changes that have to be seen."),
			 errhint("Use READ COMMITTED.")));
}

static void
check_name(const char *name, const char *schema, const char *relname)
{
	Oid namespace = get_namespace_oid(schema, false);
	Oid relid = get_relname_relid(relname, namespace);

	if (isAnyTempNamespace(namespace))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("a stream table cannot be temporary"),
						errhint("Create it in a permanent schema.")));
	if (strcmp(schema, PGT_SCHEMA) == 0 || strcmp(schema, PGT_CHANGES_SCHEMA) == 0 ||
		strcmp(schema, PGT_STATE_SCHEMA) == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_SCHEMA_NAME),
						errmsg("schema \"%s\" is reserved for pg_trickle itself", schema),
						errhint("Create the stream table in a schema of your own.")));
	if (!OidIsValid(relid))
		return;
	if (pgt_stream_table_find(relid) != NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_DUPLICATE_TABLE), errmsg("stream table \"%s\" already exists", name),
			 errhint(
				 "Use pgtrickle.create_or_replace_stream_table() or pgtrickle.alter_stream_table() to change it.")));
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_TABLE), errmsg("relation \"%s\" already exists", relname),
			 errdetail("It is not a stream table."),
			 errhint("Choose another name, or drop the relation first.")));
}

static void
fill_options(PgtStreamTable *st, const PgtCreateArguments *args)
{
	st->original_query = pstrdup(args->query);
	st->schedule = pgt_option_schedule(args->schedule);
	st->mode = pgt_refresh_mode_parse(args->refresh_mode);
	st->diamond_consistency = pstrdup(
		args->diamond_consistency == NULL
			? "aligned"
			: pgt_option_diamond_consistency(args->diamond_consistency));
	st->identity = pstrdup(pgt_option_identity(args->identity));
	if (args->sla != NULL)
		st->sla_ms = pgt_option_sla(args->sla);
	if (args->tier != NULL && pgt_option_tier(args->tier) != NULL)
		st->tier = pstrdup(pgt_option_tier(args->tier));
}

static void
tell_about_mode(const PgtStreamTable *st)
{
	if (st->full_reason != NULL && st->mode == PGT_MODE_AUTO)
		ereport(NOTICE,
				(errmsg("stream table \"%s\" is refreshed in FULL", get_rel_name(st->relid)),
				 errdetail("Reason: %s.", st->full_reason)));
}

/*
 * A hint is never a reason to fail: if a statement cannot be planned, refreshes
 * will say so.
 */
static List *
find_missing_indexes(const PgtStreamTable *st)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	List *volatile missing = NIL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		missing = pgt_delta_missing_indexes(pgt_delta_open(st->pgt_id, st->relid, st->view_relid));
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
			ReThrowError(error);
		elog(DEBUG1, "no look for missing indexes: %s", error->message);
	}
	PG_END_TRY();
	return missing;
}

void
pgt_lifecycle_hint_indexes(const PgtStreamTable *st)
{
	ListCell *lc;

	if (st->mode == PGT_MODE_FULL || st->full_reason != NULL || pgt_guc_index_hint_pages < 0)
		return;
	foreach (lc, find_missing_indexes(st))
	{
		PgtMissingIndex *index = lfirst(lc);

		ereport(NOTICE,
				(errmsg("small refreshes of stream table \"%s\" have to read table \"%s\" whole",
						get_rel_name(st->relid), get_rel_name(index->relid)),
				 errdetail("No index finds its rows for the statement \"%s\" of stage %d.",
						   index->purpose, index->stage),
				 errhint("%s;", index->sql)));
	}
}

Oid
pgt_lifecycle_create(const PgtCreateArguments *args)
{
	PgtStreamTable st = {0};
	char *schema;
	char *relname;
	Query *query;
	List *columns;
	Oid owner = GetUserId();

	pgt_lifecycle_check_isolation();
	fill_options(&st, args);
	pgt_sqltext_split(args->name, &schema, &relname);
	check_name(args->name, schema, relname);
	query = pgt_query_parse(args->query);
	columns = pgt_query_columns(query);

	st.pgt_id = pgt_stream_table_next_id();
	st.relid = pgt_define_table(schema, relname, columns, owner);
	st.view_relid = pgt_define_view(st.pgt_id, st.relid, query, columns, owner);
	pgt_query_check_rights(st.view_relid);
	pgt_stream_table_create(&st);
	pgt_frontier_create(st.pgt_id);
	(void) pgt_define_machinery(&st, args->query, true);
	pgt_stream_table_update(&st);
	tell_about_mode(&st);
	pgt_option_warn_scheduler();
	if (st.sla_ms > 0)
		pgt_sla_warn(&st);

	if (args->initialize)
	{
		PgtRefreshRequest request = {.pgt_id = st.pgt_id, .initiated_by = "INITIAL", .attempt = 1};

		pgt_lifecycle_run(&request);
	}
	pgt_lifecycle_hint_indexes(&st);
	return st.relid;
}
