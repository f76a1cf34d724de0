/*
 * recreate.c: a stream table whose new query has columns that the table cannot
 * follow: the table is made again under its name, with its grants, in its publications.
 *
 * losses.c has seen to it that the user agrees to lose what is on the old one.
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
	List *members = pgt_publication_list_members(old, columns);
	PgtSecurity saved;
	ListCell *lc;

	pgt_publication_tell_deletes(old);
	pgt_ddl_run(psprintf("DROP TABLE %s CASCADE", pgt_sqltext_relation(old)));
	pgt_capture_release(old);
	saved = pgt_security_become_extension_owner();
	st->relid = pgt_define_table(schema, name, columns, owner);
	pgt_security_restore(&saved);
	foreach (lc, grants)
		pgt_ddl_run(lfirst(lc));
	foreach (lc, members)
		if (((PgtPublicationMember *) lfirst(lc))->fits)
			pgt_ddl_run(((PgtPublicationMember *) lfirst(lc))->add_again);
	ereport(NOTICE,
			(errmsg("the table of stream table \"%s\" was made again", name),
			 errdetail("Its columns go or change places; grants and publications were kept.")));
}
