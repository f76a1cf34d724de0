/*
 * pgt_security.h: running the SQL of users as its owner, restricted.
 *
 * As REFRESH MATERIALIZED VIEW does (commands/matview.c): the owner's rights,
 * SECURITY_RESTRICTED_OPERATION, a new GUC nest level and a search_path of
 * pg_catalog, pg_temp. Undone by pgt_security_restore or by the abort of the
 * (sub)transaction.
 */
#ifndef PGT_SECURITY_H
#define PGT_SECURITY_H

#include "postgres.h"

typedef struct PgtSecurity
{
	Oid userid;
	int context;
	int guc_level;
} PgtSecurity;

extern PgtSecurity pgt_security_become(Oid owner);
extern void pgt_security_restore(const PgtSecurity *saved);

/*
 * Runs as the extension's bootstrap owner (superuser) for catalog writes that
 * a caller without rights on our catalog makes through a checked function.
 */
extern PgtSecurity pgt_security_become_extension_owner(void);

/* Errors insufficient_privilege unless the user has the owner's rights. */
extern void pgt_security_check_owner(Oid relid);
/* The same for SELECT on the table (or pg_monitor). */
extern bool pgt_security_may_read(Oid relid);
extern void pgt_security_check_reader(Oid relid);

/* USAGE on the schema of stages and states, if it was not granted to the role before. */
extern void pgt_security_let_use_state_schema(Oid role);

#endif /* PGT_SECURITY_H */
