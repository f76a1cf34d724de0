/*
 * recreate.c: a stream table whose new query has columns that the table cannot
 * follow: the table is made again under its name, with its grants.
 *
 * Only if nothing else of the user's would go with the old table. What depends
 * on it (views, other stream tables) makes PostgreSQL refuse.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "pgt_capture.h"
#include "pgt_compat.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

/* What users put on a table, as rows of one text column; %u is the table. */
static const char list_of_losses[] =
	"SELECT 'index ' || i.indexrelid::pg_catalog.regclass FROM pg_catalog.pg_index i"
	" WHERE i.indrelid = %1$u AND pg_catalog.obj_description(i.indexrelid, 'pg_class')"
	" IS DISTINCT FROM 'identity of the rows of this stream table'"
	" UNION ALL SELECT 'trigger ' || t.tgname FROM pg_catalog.pg_trigger t"
	" WHERE t.tgrelid = %1$u AND NOT t.tgisinternal AND t.tgname <> 'pgt_guard'"
	" UNION ALL SELECT 'policy ' || p.polname FROM pg_catalog.pg_policy p WHERE p.polrelid = %1$u"
	" UNION ALL SELECT 'constraint ' || c.conname FROM pg_catalog.pg_constraint c"
	" WHERE c.conrelid = %1$u AND c.contype IN ('c', 'f', 'x')"
	" UNION ALL SELECT 'publication ' || p.pubname FROM pg_catalog.pg_publication_rel r"
	" JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = %1$u"
	" UNION ALL SELECT 'comment on ' || coalesce('column ' || a.attname, 'the table')"
	" FROM pg_catalog.pg_description d LEFT JOIN pg_catalog.pg_attribute a"
	" ON a.attrelid = d.objoid AND a.attnum = d.objsubid AND d.objsubid > 0"
	" WHERE d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objoid = %1$u"
	" UNION ALL SELECT 'grants on column ' || a.attname FROM pg_catalog.pg_attribute a"
	" WHERE a.attrelid = %1$u AND a.attacl IS NOT NULL"
	" UNION ALL SELECT 'statistics ' || s.stxname FROM pg_catalog.pg_statistic_ext s"
	" WHERE s.stxrelid = %1$u"
	" UNION ALL SELECT 'row-level security' FROM pg_catalog.pg_class c"
	" WHERE c.oid = %1$u AND c.relrowsecurity ORDER BY 1";

void
pgt_recreate_check(const PgtStreamTable *st)
{
	PgtSecurity saved = pgt_security_become_extension_owner();
	PgtRows *rows = pgt_spi_select(psprintf(list_of_losses, st->relid));
	StringInfoData losses;

	pgt_security_restore(&saved);
	initStringInfo(&losses);
	for (int i = 0; i < rows->nrows; i++)
		appendStringInfo(&losses, "%s%s", i > 0 ? ", " : "", pgt_spi_text(rows, i, 1));
	if (losses.len > 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the new query has columns that stream table \"%s\" cannot follow",
					get_rel_name(st->relid)),
			 errdetail("The table would have to be made again, without: %s.", losses.data),
			 errhint(
				 "Drop these first, or drop the stream table and create it anew. Columns may change their types and new ones may follow the old ones at any time.")));
}

/* GRANT statements that give a table of this name the rights of the old one. */
static List *
list_grants(Oid relid)
{
	PgtRows *rows;
	List *grants = NIL;

	rows = pgt_spi_select(
		psprintf("SELECT pg_catalog.format('GRANT %%s ON %%s TO %%s%%s', a.privilege_type, %s,"
				 " CASE a.grantee WHEN 0 THEN 'PUBLIC'"
				 " ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,"
				 " CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)"
				 " FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a"
				 " WHERE c.oid = %u AND a.grantee <> c.relowner",
				 pgt_sqltext_literal(pgt_sqltext_relation(relid)), relid));
	for (int i = 0; i < rows->nrows; i++)
		grants = lappend(grants, pgt_spi_text(rows, i, 1));
	return grants;
}

void
pgt_recreate_table(PgtStreamTable *st, List *columns)
{
	Oid old = st->relid;
	Oid owner = pgt_compat_relation_owner(old);
	char *schema = get_namespace_name(get_rel_namespace(old));
	char *name = get_rel_name(old);
	List *grants = list_grants(old);
	PgtSecurity saved;
	ListCell *lc;

	pgt_ddl_run(psprintf("DROP TABLE %s RESTRICT", pgt_sqltext_relation(old)));
	pgt_capture_release(old);
	saved = pgt_security_become_extension_owner();
	st->relid = pgt_define_table(schema, name, columns, owner);
	pgt_security_restore(&saved);
	foreach (lc, grants)
		pgt_ddl_run(lfirst(lc));
	ereport(NOTICE, (errmsg("the table of stream table \"%s\" was made again", name),
					 errdetail("Its columns go or change places; grants were kept.")));
}
