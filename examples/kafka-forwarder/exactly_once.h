/*
 * exactly_once.h: Kafka's transactions around the records, with the position in them.
 *
 * How far the topics have got is a record of a topic of its own, in the same Kafka transaction
 * as the rows: either both are there or neither. A restart reads it back and goes on from
 * there. Not a consumer group's offsets: those expire.
 *
 * A Kafka transaction holds as many whole transactions of PostgreSQL as come within
 * forwarder.transaction_ms. One that has more than forwarder.transaction_records records, or
 * takes longer than brokers wait, is split; the position then names its last record, and what
 * is not newer is skipped afterwards.
 *
 * Nothing here waits for a commit but fwd_eo_flush: fwd_eo_poll goes on with it, and until it
 * is through no record may be produced (fwd_eo_due is 0).
 */
#ifndef FWD_EXACTLY_ONCE_H
#define FWD_EXACTLY_ONCE_H

#include "resume.h"

typedef struct FwdExactlyOnce FwdExactlyOnce;

/* What a record of ours that is no row has in its _private. */
#define FWD_NOT_COUNTED ((void *) 1)

/* The transactional.id of the producer, in memory of the caller. */
extern char *fwd_eo_id(const FwdConfig *config);

/*
 * Fence older instances, read the position and set positions->confirmed to it. Fails for good if
 * the slot is beyond it, or the server behind it or another.
 */
extern FwdExactlyOnce *fwd_eo_open(rd_kafka_t *producer, FwdResume *resume, const FwdConfig *config,
								   const FwdOrigin *origin, FwdPositions *positions,
								   FwdMetrics *metrics, FwdError *error);
/* Is there a position? Otherwise the topics say what they have. */
extern bool fwd_eo_knows(const FwdExactlyOnce *eo);
extern bool fwd_eo_has(const FwdExactlyOnce *eo, const FwdPlace *place);
/* Before and after the record at a place is produced. */
extern bool fwd_eo_begin(FwdExactlyOnce *eo, FwdError *error);
extern void fwd_eo_produced(FwdExactlyOnce *eo, const FwdPlace *place);
/* Never commit what there is. */
extern void fwd_eo_spoil(FwdExactlyOnce *eo);
/* The open transaction of PostgreSQL ends there; before fwd_positions_commit. */
extern bool fwd_eo_ended(FwdExactlyOnce *eo, uint64_t end_lsn, FwdError *error);
/* Nothing came before that position; now: it has to be written soon. */
extern void fwd_eo_idle(FwdExactlyOnce *eo, uint64_t lsn, bool now);
/* Milliseconds until fwd_eo_poll has something to do, or -1. */
extern int fwd_eo_due(const FwdExactlyOnce *eo);
/* Commit if it is time for it, or go on with that. */
extern bool fwd_eo_poll(FwdExactlyOnce *eo, FwdError *error);
/* Commit whatever there is. False: it failed, or there was not enough time (no error). */
extern bool fwd_eo_flush(FwdExactlyOnce *eo, int milliseconds, FwdError *error);
/* Takes NULL. What is not committed is taken back. */
extern void fwd_eo_close(FwdExactlyOnce *eo);

#endif
