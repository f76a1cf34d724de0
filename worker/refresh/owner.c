/*
 * owner.c: hidden tables follow the owner of their stream table.
 *
 * They belong to the owner of the extension; the owner of the stream table may read
 * them, for refreshes run with the rights of that role. ALTER TABLE ... OWNER TO
 * comes here by an event trigger. REASSIGN OWNED fires none, so each refresh looks
 * whether the owner has these rights, which costs a look into the syscache.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "pgt_compat.h"
#include "pgt_extension.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "refresh_internal.h"

/* The hidden tables of a stream table, by pg_depend. */
#define HIDDEN_TABLES                                                      \
	"pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid" \
	" WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"        \
	" AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"       \
	" AND d.refobjid = %u AND c.relkind = 'r'"                             \
	" AND c.relnamespace = 'pgtrickle_state'::pg_catalog.regnamespace"

/* What former owners may do; the owner of the tables themselves, that of the extension, is none. */
static void
revoke_hidden_tables(Oid relid, Oid owner)
{
	PgtRows *rows;

	rows = pgt_spi_select(
		psprintf("SELECT c.relname, a.grantee FROM (SELECT c.* FROM " HIDDEN_TABLES ") c,"
				 " pg_catalog.aclexplode(c.relacl) a WHERE a.grantee NOT IN (0, c.relowner, %u)",
				 relid, owner));
	for (int i = 0; i < rows->nrows; i++)
	{
		Oid former = pgt_spi_oid(rows, i, 2);
		const char *role = quote_identifier(GetUserNameFromId(former, false));
		PgtRows *left;

		pgt_spi_execute(psprintf("REVOKE ALL ON %s FROM %s",
								 pgt_sqltext_qualified(PGT_STATE_SCHEMA, pgt_spi_text(rows, i, 1)),
								 role));
		left = pgt_spi_select(psprintf("SELECT 1 FROM pg_catalog.pg_class c,"
									   " pg_catalog.aclexplode(c.relacl) a WHERE c.relnamespace ="
									   " 'pgtrickle_state'::pg_catalog.regnamespace"
									   " AND a.grantee = %u LIMIT 1",
									   former));
		if (left->nrows > 0)
			continue;
		pgt_extension_lock_state_schema();
		pgt_spi_execute(psprintf("REVOKE ALL ON SCHEMA pgtrickle_state FROM %s", role));
	}
}

/* The owner runs the statements that read the hidden tables. */
static void
grant_hidden_tables(Oid relid, Oid owner)
{
	const char *role = quote_identifier(GetUserNameFromId(owner, false));
	PgtRows *rows;

	rows = pgt_spi_select(psprintf("SELECT c.relname FROM " HIDDEN_TABLES, relid));
	if (rows->nrows > 0)
		pgt_security_let_use_state_schema(owner);
	for (int i = 0; i < rows->nrows; i++)
		pgt_spi_execute(psprintf("GRANT SELECT ON %s TO %s",
								 pgt_sqltext_qualified(PGT_STATE_SCHEMA, pgt_spi_text(rows, i, 1)),
								 role));
}

void
pgt_refresh_hand_over(Oid relid, Oid owner)
{
	PgtSecurity saved = pgt_security_become_extension_owner();

	revoke_hidden_tables(relid, owner);
	grant_hidden_tables(relid, owner);
	pgt_security_restore(&saved);
}

/* May the owner read the stages, and name the aggregates of states? */
static bool
may_read_hidden(const PgtStreamTable *st, const PgtDefinition *definition, Oid owner)
{
	bool any = false;
	ListCell *lc;

	foreach (lc, definition->stages)
	{
		const PgtStage *stage = lfirst(lc);
		bool is_hidden = OidIsValid(stage->relid) && stage->relid != st->relid;

		any = any || is_hidden || OidIsValid(stage->state_relid);
		if (is_hidden && pg_class_aclcheck(stage->relid, owner, ACL_SELECT) != ACLCHECK_OK)
			return false;
	}
	return !any || pgt_compat_may_use_schema(pgt_extension_schema(PGT_STATE_SCHEMA), owner);
}

void
pgt_owner_check(const PgtStreamTable *st, const PgtDefinition *definition, Oid owner)
{
	if (may_read_hidden(st, definition, owner))
		return;
	pgt_refresh_hand_over(st->relid, owner);
	CommandCounterIncrement();
}
