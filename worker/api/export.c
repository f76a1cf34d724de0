/*
 * export.c: a stream table as the statement that creates it again.
 */
#include "postgres.h"

#include "access/table.h"
#include "rewrite/rewriteHandler.h"
#include "utils/rel.h"

#include "pgt_security.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

char *
pgt_lifecycle_query_text(const PgtStreamTable *st)
{
	PgtSecurity saved = pgt_security_become_extension_owner(); /* for its search_path */
	Relation view = table_open(st->view_relid, AccessShareLock);
	char *text = pgt_sqltext_query(get_view_query(view));

	table_close(view, AccessShareLock);
	pgt_security_restore(&saved);
	return text;
}

char *
pgt_lifecycle_export(PgtStreamTable *st)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT pgtrickle.create_stream_table(\n\tname => %s,\n\tquery => %s,\n",
					 pgt_sqltext_literal(pgt_sqltext_relation(st->relid)),
					 pgt_sqltext_literal(pgt_lifecycle_query_text(st)));
	appendStringInfo(&sql, "\tschedule => %s,\n\trefresh_mode => %s,\n",
					 pgt_sqltext_literal(st->schedule != NULL ? st->schedule : "calculated"),
					 pgt_sqltext_literal(pgt_refresh_mode_name(st->mode)));
	appendStringInfo(&sql, "\tdiamond_consistency => %s,\n",
					 pgt_sqltext_literal(st->diamond_consistency));
	if (st->sla_ms > 0)
		appendStringInfo(&sql, "\tsla => '" INT64_FORMAT " ms',\n", st->sla_ms);
	if (st->tier != NULL)
		appendStringInfo(&sql, "\ttier => %s,\n", pgt_sqltext_literal(st->tier));
	appendStringInfo(&sql, "\tidentity => %s);", pgt_sqltext_literal(st->identity));
	if (st->paused)
		appendStringInfo(&sql, "\nSELECT pgtrickle.pause_stream_table(%s);",
						 pgt_sqltext_literal(pgt_sqltext_relation(st->relid)));
	if (pgt_publication_of(st) != NULL)
		appendStringInfo(&sql, "\nSELECT pgtrickle.stream_table_to_publication(%s, %s);",
						 pgt_sqltext_literal(pgt_sqltext_relation(st->relid)),
						 pgt_sqltext_literal(st->publication));
	return sql.data;
}
