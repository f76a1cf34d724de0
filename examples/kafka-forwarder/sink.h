/*
 * sink.h: where records go. Two implementations: Kafka, and standard output for --dry-run.
 *
 * put     takes a record and copies what it keeps. It asks fwd_positions_sent for the
 *         transaction, and gives it back to fwd_positions_acknowledged once the record is
 *         safe. A record that is already there is skipped, which is no failure.
 * poll    handles what has happened since; never waits. A record that could not be
 *         delivered is a failure here: from then on nothing may be confirmed.
 * due     milliseconds until poll has to be called though no socket says so, or -1. 0: at
 *         once, and no record is taken before
 * ended   the open transaction ends at that position; before fwd_positions_commit
 * idle    nothing of interest came before that position; now: the server waits to hear so
 * socket  a descriptor that becomes readable when poll has something to do, or -1
 * flush   waits until all is acknowledged, or for so long
 */
#ifndef FWD_SINK_H
#define FWD_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "metrics.h"
#include "position.h"

/* Where in the stream a record stands. part: the event itself 0, its tombstone 1. */
typedef struct FwdPlace
{
	uint64_t lsn;
	int64_t seq;
	int part;
} FwdPlace;

typedef enum FwdPartition
{
	FWD_BY_KEY,
	FWD_FIRST_PARTITION,
	FWD_ALL_PARTITIONS,
} FwdPartition;

#define FWD_MAX_HEADERS 12

typedef struct FwdHeader
{
	const char *name;
	const char *value;
	size_t length;
} FwdHeader;

typedef struct FwdRecord
{
	const char *topic;
	FwdPartition partition;
	const char *key; /* NULL: none */
	size_t key_length;
	const char *value; /* NULL: a tombstone */
	size_t value_length;
	FwdPlace place;
	bool again; /* to be sent in each session, place or not */
	bool first; /* of the snapshot: into empty topics only */
	int header_count;
	FwdHeader headers[FWD_MAX_HEADERS];
} FwdRecord;

typedef struct FwdSink FwdSink;

typedef struct FwdSinkOps
{
	bool (*put)(FwdSink *sink, const FwdRecord *record, FwdError *error);
	bool (*poll)(FwdSink *sink, FwdError *error);
	int (*due)(FwdSink *sink);
	bool (*ended)(FwdSink *sink, uint64_t end_lsn, FwdError *error);
	void (*idle)(FwdSink *sink, uint64_t lsn, bool now);
	bool (*flush)(FwdSink *sink, int milliseconds);
	size_t (*queued_bytes)(FwdSink *sink);
	void (*close)(FwdSink *sink);
} FwdSinkOps;

struct FwdSink
{
	const FwdSinkOps *ops;
	FwdPositions *positions;
	FwdMetrics *metrics;
	int socket;
};

typedef struct FwdOrigin
{
	const char *system_id;	 /* of the server we read from */
	uint64_t end_of_wal;	 /* of the server: nothing in a topic may be beyond */
	uint64_t slot_confirmed; /* the slot has nothing from before */
} FwdOrigin;

extern FwdSink *fwd_kafka_open(const FwdConfig *config, FwdPositions *positions,
							   FwdMetrics *metrics, const FwdOrigin *origin, FwdError *error);
/* Before the first record: what is there already, and that nobody else goes on with it. */
extern bool fwd_kafka_take_over(FwdSink *sink, FwdError *error);
/* Are there brokers, and do they let us in? Waits at most so long. */
extern bool fwd_kafka_check(FwdSink *sink, int milliseconds, FwdError *error);
extern FwdSink *fwd_stdout_open(FwdPositions *positions, FwdMetrics *metrics);

extern int fwd_place_compare(const FwdPlace *a, const FwdPlace *b);

/* Names of the headers that a restart reads back. */
#define FWD_HEADER_SYSTEM "system_id"
#define FWD_HEADER_LSN "commit_lsn"
#define FWD_HEADER_SEQ "seq"
#define FWD_HEADER_PART "part"
#define FWD_HEADER_PARTITIONS "partitions"

#endif
