/*
 * pgt_wake.h: telling the coordinator of this database that a source changed.
 *
 * Writers note the source before they commit; the commit callback touches
 * only atomics in shared memory and sets a latch. Works (as a no-op) without
 * shared_preload_libraries.
 *
 * What may get lost, so that the coordinator must also look by itself now and
 * then (pg_trickle.scheduler_interval_ms): transactions that were prepared
 * before the last start of the server, and everything that was pending when
 * the server or a coordinator went down.
 */
#ifndef PGT_WAKE_H
#define PGT_WAKE_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* How many databases there are places for in shared memory. */
#define PGT_MAX_DATABASES 128

/* Callbacks, shared memory and the hook for COMMIT PREPARED; from _PG_init. */
extern void pgt_wake_init(void);

/* --- writers: all of it happens when the current transaction commits --- */

/* A captured relation (root) was changed by the current transaction. */
extern void pgt_wake_source(Oid relid);
/* Catalog of stream tables changed: the coordinator reloads after commit. */
extern void pgt_wake_catalog(void);

/* --- the coordinator of a database --- */

/*
 * MyLatch is set from now on when something commits in this database; false if
 * another process is registered or there is no shared memory. Ends at exit.
 */
extern bool pgt_wake_register_coordinator(void);
extern void pgt_wake_unregister_coordinator(void);
/* Does one look after this database? */
extern bool pgt_wake_has_coordinator(void);

typedef struct PgtWakeNews
{
	bool catalog;  /* reload the catalog */
	bool scan_all; /* some source changed, nobody knows which: look at all */
	int sources;   /* calls of the callback */
} PgtWakeNews;

/* since: when the first change not collected so far was committed. */
typedef void (*PgtWakeCallback)(Oid relid, TimestampTz since, void *arg);

/*
 * Hands out what was committed since the last call, once. A snapshot taken
 * afterwards sees all of it. Reset the latch before. Costs a microsecond when
 * there is nothing, and needs no transaction.
 */
extern PgtWakeNews pgt_wake_collect(PgtWakeCallback callback, void *arg);

/*
 * Of a source that was collected: the coordinator knows that it changed and does not want to be
 * woken for it. Commits are silent until the next call of pgt_wake_collect, which hands it out
 * again; so collect before whatever takes the changes over.
 */
extern void pgt_wake_hold(Oid relid, TimestampTz since);

/*
 * DDL and changes of rights in this database are news of the catalog, too, from now until the
 * next time that there is such news.
 */
extern void pgt_wake_await_ddl(void);

/* Sets the latch of this database's coordinator now, without any news. */
extern void pgt_wake_coordinator(void);

/* --- the launcher --- */

/* MyLatch is set when pgt_wake_catalog commits in a database without coordinator. */
extern void pgt_wake_register_launcher(void);
/* Was a change of its catalog committed that no coordinator has collected? */
extern bool pgt_wake_has_catalog_news(Oid database);
/* The database is gone: frees its slots. */
extern void pgt_wake_forget_database(Oid database);

#endif /* PGT_WAKE_H */
