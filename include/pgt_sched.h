/*
 * pgt_sched.h: the processes that refresh stream tables by themselves.
 *
 * A launcher for the server, a coordinator for each database that has the
 * extension, workers if there shall be any. See worker/sched/README.md.
 */
#ifndef PGT_SCHED_H
#define PGT_SCHED_H

#include "postgres.h"

/*
 * Registers the launcher, shared memory and the hook that sends a coordinator
 * away before its database is dropped; from _PG_init, before pgt_shmem_init.
 * Does nothing unless the library is being preloaded.
 */
extern void pgt_sched_init(void);

/* Entry points of the background workers; the server looks them up by name. */
extern PGDLLEXPORT void pgt_sched_launcher_main(Datum arg);
extern PGDLLEXPORT void pgt_sched_coordinator_main(Datum arg);
extern PGDLLEXPORT void pgt_sched_worker_main(Datum arg);

#endif /* PGT_SCHED_H */
