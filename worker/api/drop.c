/*
 * drop.c: dropping a stream table, and cleaning up after one that is gone.
 *
 * The table is dropped like any other; the event trigger sees that, however it
 * happens (DROP TABLE, DROP SCHEMA, DROP of a source with CASCADE), and calls
 * pgt_lifecycle_forget.
 */
#include "postgres.h"

#include "utils/lsyscache.h"

#include "pgt_capture.h"
#include "pgt_delta.h"
#include "pgt_dependency.h"
#include "pgt_history.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

/* Names of the stream tables that read it, or NULL. */
static char *
list_consumers(Oid relid)
{
	StringInfoData names;
	ListCell *lc;

	initStringInfo(&names);
	foreach (lc, pgt_dependency_consumers(relid))
	{
		PgtStreamTable *consumer = pgt_stream_table_find_id(*(int64 *) lfirst(lc));

		if (consumer != NULL && get_rel_name(consumer->relid) != NULL)
			appendStringInfo(&names, "%sstream table %s", names.len > 0 ? ", " : "",
							 pgt_sqltext_relation(consumer->relid));
	}
	return names.len > 0 ? names.data : NULL;
}

void
pgt_lifecycle_drop(PgtStreamTable *st, bool cascade)
{
	char *consumers = list_consumers(st->relid);

	if (consumers != NULL && !cascade)
		ereport(
			ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("cannot drop stream table \"%s\" because others read it",
					get_rel_name(st->relid)),
			 errdetail("It is read by %s.", consumers),
			 errhint(
				 "Drop them first, or use pgtrickle.drop_stream_table(name, cascade => true).")));
	pgt_spi_execute(psprintf("DROP TABLE %s %s", pgt_sqltext_relation(st->relid),
							 cascade ? "CASCADE" : "RESTRICT"));
}

/* Those that pg_upgrade left without the table's knowing of them, and no refresh since has adopted. */
static void
drop_parts(int64 pgt_id)
{
	PgtRows *rows = pgt_spi_select(
		psprintf("SELECT pg_catalog.format('DROP %%1$s pgtrickle_state.%%2$I CASCADE',"
				 " CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, c.relname)"
				 " FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'v')"
				 " AND c.relnamespace = 'pgtrickle_state'::pg_catalog.regnamespace"
				 " AND c.relname ~ '^(def_%1$s|(stage|state)_%1$s_[0-9]+)$'",
				 psprintf(INT64_FORMAT, pgt_id)));

	for (int i = 0; i < rows->nrows; i++)
		pgt_ddl_run(pgt_spi_text(rows, i, 1));
}

void
pgt_lifecycle_forget(PgtStreamTable *st)
{
	List *sources = pgt_dependency_list(st->pgt_id);

	pgt_delta_forget(st->pgt_id);
	pgt_history_delete(st->pgt_id);
	pgt_stream_table_delete(st->pgt_id); /* with frontier and dependencies */
	pgt_define_release_sources(sources);
	pgt_capture_release(st->relid); /* who read it is gone too */
	drop_parts(st->pgt_id);
	pgt_publication_forget(st);
}
