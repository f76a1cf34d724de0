/*
 * snapshot.h: the rows that were there when a slot was created, before what it sends.
 *
 * Read by SQL under the slot's exported snapshot (pgtrickle.snapshot_rows_binary), in the format
 * that the slot has, so that together they are the tables: nothing missing, nothing twice. Rows
 * come one result after the other, so a table of any size takes little memory.
 */
#ifndef FWD_SNAPSHOT_H
#define FWD_SNAPSHOT_H

#include "source.h"

typedef struct FwdSnapshot FwdSnapshot;

/* A connection of its own; the tables are those that the slot would send. */
extern FwdSnapshot *fwd_snapshot_open(const FwdConfig *config, const FwdServer *server,
									  FwdError *error);
extern int fwd_snapshot_socket(FwdSnapshot *snapshot);
extern FwdRead fwd_snapshot_read(FwdSnapshot *snapshot, FwdSpan *lines, FwdError *error);
/* The socket is readable: take what is there. */
extern bool fwd_snapshot_fill(FwdSnapshot *snapshot, FwdError *error);
/* Takes NULL. */
extern void fwd_snapshot_close(FwdSnapshot *snapshot);

#endif
