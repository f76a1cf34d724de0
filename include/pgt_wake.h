/*
 * pgt_wake.h: telling the coordinator of this database that a source changed.
 *
 * Writers note the source before they commit; the commit callback touches
 * only atomics in shared memory and sets a latch. Works (as a no-op) without
 * shared_preload_libraries.
 */
#ifndef PGT_WAKE_H
#define PGT_WAKE_H

#include "postgres.h"

/* A captured relation (root) was changed by the current transaction. */
extern void pgt_wake_source(Oid relid);
/* Catalog of stream tables changed: the coordinator reloads after commit. */
extern void pgt_wake_catalog(void);

#endif							/* PGT_WAKE_H */
