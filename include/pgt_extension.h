/*
 * pgt_extension.h: the extension as an object of the current database.
 */
#ifndef PGT_EXTENSION_H
#define PGT_EXTENSION_H

#include "postgres.h"

#define PGT_SCHEMA "pgtrickle"
#define PGT_CHANGES_SCHEMA "pgtrickle_changes"
#define PGT_STATE_SCHEMA "pgtrickle_state"

/* Does the extension exist here (and is it not being created right now)? */
extern bool pgt_extension_exists(void);
/* Its owner; error if it does not exist. */
extern Oid pgt_extension_owner(void);
/* Errors unless the library's version is the installed extension's. */
extern void pgt_extension_check_version(void);
/* Oid of one of our schemas, looked up each time (a syscache hit). */
extern Oid pgt_extension_schema(const char *name);

/*
 * For what is made once in the schema of stages and states, and used by all: lock,
 * then look again whether another session has made it. Until the transaction ends.
 */
extern void pgt_extension_lock_state_schema(void);

#endif /* PGT_EXTENSION_H */
