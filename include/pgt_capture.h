/*
 * pgt_capture.h: writing down what happens to source tables, and reading it.
 *
 * Statement triggers in C with transition tables append images to a buffer
 * per source: (xid xid8, cmd int4, w int2, captured columns). Stream tables
 * that are sources have no triggers: the refresh appends its effective delta.
 * See worker/capture/README.md.
 */
#ifndef PGT_CAPTURE_H
#define PGT_CAPTURE_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "nodes/bitmapset.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "pgt_change.h"
#include "pgt_frontier.h"

/*
 * NULL if changes of the relation can be captured, else the reason as a
 * clause for the user ("foreign tables have no triggers that see every change").
 */
extern const char *pgt_capture_reason(Oid relid);

/*
 * Makes sure that the given columns (attribute numbers, 1-based) of the
 * relation, its partitions and its inheritance children are captured: catalog
 * row, buffer segments, triggers. is_stream_table: no triggers, the refresh
 * writes. The caller holds ShareRowExclusiveLock on the relation and takes its
 * snapshot afterwards.
 */
extern void pgt_capture_install(Oid relid, Bitmapset *columns, bool is_stream_table);

/* Are its changes written down by refreshes, since it is a stream table? Cached. */
extern bool pgt_capture_is_stream_table(Oid relid);

/* Drops triggers, buffer and row if nobody reads the relation any more. */
extern void pgt_capture_release(Oid relid);

/*
 * NULL if every trigger is in place and enabled, else what is broken ("trigger
 * of table s.t is disabled"): changes may be missing, refresh in FULL after
 * pgt_capture_install.
 */
extern const char *pgt_capture_broken(Oid relid);

/*
 * A partition or child was added or removed below a captured root, or the
 * root became or ceased to be a child itself (DDL hook). InvalidOid: looks at
 * every source. Makes and drops triggers; if rows came or went with a child,
 * leaves a marker, so that consumers refresh in FULL.
 */
extern void pgt_capture_follow_children(Oid root);

/*
 * Changes of the relation that are before `to` and not before `from`, with the
 * given columns at least (NULL: all captured ones). The result and its
 * tuplestore live in the current memory context and must be freed, since the
 * tuplestore may have a file, which the context does not close. The caller
 * holds AccessShareLock on the relation; snapshot is the registered one that
 * `to` was made of.
 */
extern PgtChangeSet *pgt_capture_read(Oid relid, Bitmapset *columns, const PgtFrontier *from,
									  const PgtFrontier *to, Snapshot snapshot);
extern void pgt_capture_free(PgtChangeSet *changes);

/*
 * Is there a change after `from`, and before `to` if that is not NULL? For a look at idle sources: takes no lock
 * that stays, and may miss what is committed meanwhile. looked_xmin: everything
 * of older transactions was looked at before with the same `from`; 0: nothing was.
 */
extern bool pgt_capture_has_news(Oid relid, const PgtFrontier *from, const PgtFrontier *to,
								 uint64 looked_xmin, Snapshot snapshot);

/*
 * Must be called for every captured source before the refresh takes its
 * snapshot, also when it will compute everything: keeps the buffers from being
 * emptied until the end of the transaction, and notes how long they are, so
 * that later refreshes can start reading at the tail. Errors object_in_use if a
 * statement of this session is in the middle of changing the relation; the
 * caller must not have it open (locks are fine).
 */
extern void pgt_capture_mark(Oid relid);

/* Rows and bytes now in the buffers of a source; rows are counted up to limit (-1: all). */
extern void pgt_capture_buffer_size(Oid relid, int64 limit, int64 *rows, int64 *bytes);

/*
 * Bytes of the buffers of a source, files and toast, without counting rows.
 * *wants_prune: a segment may have to be emptied, or has grown. Takes no lock
 * that stays.
 */
struct PgtSource;
extern int64 pgt_capture_buffer_bytes(const struct PgtSource *source, bool *wants_prune);

/*
 * Empties drained segments and switches writers to the other one when theirs
 * has grown; never waits for anybody. Returns the number of segments emptied.
 * In an own transaction of the scheduler; without one, after a refresh by hand.
 * Commit soon, since refreshes and late writers of the source wait for it. A stream table that is
 * not refreshed (paused, suspended) keeps its sources' buffers growing:
 * pgt_capture_buffer_size tells, nothing is thrown away.
 */
extern int pgt_capture_prune(Oid relid);
/* Is there something to give back? A few microseconds. */
extern bool pgt_capture_is_large(Oid relid);

/*
 * The effective delta of a stream table that others read: what the refresh
 * really changed. writer is NULL, and the calls do nothing, if nobody reads it.
 */
typedef struct PgtCaptureWriter PgtCaptureWriter;

extern PgtCaptureWriter *pgt_capture_writer_begin(Relation relation);
extern void pgt_capture_writer_add(PgtCaptureWriter *writer, TupleTableSlot *row, int weight);
extern void pgt_capture_writer_end(PgtCaptureWriter *writer);

#endif /* PGT_CAPTURE_H */
