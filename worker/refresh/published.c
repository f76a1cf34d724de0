/*
 * published.c: does a publication stand in the way of what is to be written?
 *
 * PostgreSQL refuses updates and deletes of a published table whose replica identity
 * does not cover the row filter or column list, or which has none
 * (executor/execReplication.c, CheckCmdReplicaIdentity). The error is PostgreSQL's; who
 * sees it in the history of a refresh has to be told which publication it is about.
 */
#include "postgres.h"

#include "catalog/pg_publication.h"
#include "executor/executor.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "pgt_sqltext.h"

#include "refresh_internal.h"

/* Those that list it, or all that may be meant. */
static char *
list_publications(Oid relid)
{
	List *publications = GetRelationPublications(relid);
	StringInfoData names;
	ListCell *lc;

	if (publications == NIL)
		publications = GetSchemaPublications(get_rel_namespace(relid));
	if (publications == NIL)
		publications = GetAllTablesPublications();
	initStringInfo(&names);
	foreach (lc, publications)
	{
		char *name = get_publication_name(lfirst_oid(lc), true);

		if (name != NULL)
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", quote_identifier(name));
	}
	return names.data;
}

static char *
tell_mend(Relation relation)
{
	Oid relid = RelationGetRelid(relation);
	char *table = pgt_sqltext_relation(relid);
	char identity = relation->rd_rel->relreplident;

	if (identity == REPLICA_IDENTITY_NOTHING || identity == REPLICA_IDENTITY_DEFAULT)
		return psprintf("ALTER TABLE %s REPLICA IDENTITY FULL, or take it out of %s.", table,
						list_publications(relid));
	return psprintf("It is listed in %s: use neither column list nor row filter there%s, or "
					"publish inserts only (ALTER PUBLICATION ... SET (publish = 'insert')).",
					list_publications(relid),
					identity == REPLICA_IDENTITY_FULL
						? ", or columns of the key only, and "
						  "pgtrickle.alter_stream_table(name, identity => 'key')"
						: " that names other columns than the key does");
}

static bool
is_in_the_way(Relation relation, bool updates, bool deletes)
{
	PublicationDesc desc;

	RelationBuildPublicationDesc(relation, &desc);
	if (updates && desc.pubactions.pubupdate)
		return !desc.rf_valid_for_update || !desc.cols_valid_for_update;
	if (deletes && desc.pubactions.pubdelete)
		return !desc.rf_valid_for_delete || !desc.cols_valid_for_delete;
	return false;
}

void
pgt_published_warn(Relation relation)
{
	if (!is_in_the_way(relation, true, false) && !is_in_the_way(relation, false, true))
		return;
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("refreshes of stream table \"%s\" will fail because of its publications",
					RelationGetRelationName(relation)),
			 errdetail("Its replica identity does not go with a column list or row filter, so that "
					   "updates or deletes cannot be published."),
			 errhint("%s", tell_mend(relation))));
}

void
pgt_published_check(Relation relation, CmdType command)
{
	MemoryContext context = CurrentMemoryContext;

	/*
	 * A commit wakes the scheduler before it sends invalidations: the mend that
	 * this refresh is the answer to may not have arrived in our caches.
	 */
	if (is_in_the_way(relation, command == CMD_UPDATE, command == CMD_DELETE))
		InvalidateSystemCaches();
	PG_TRY();
	{
		CheckCmdReplicaIdentity(relation, command);
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		error->hint = tell_mend(relation);
		ReThrowError(error);
	}
	PG_END_TRY();
}
