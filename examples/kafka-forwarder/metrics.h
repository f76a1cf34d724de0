/*
 * metrics.h: what the forwarder knows about itself, served in Prometheus' text format.
 *
 * Everything runs in the one event loop, so plain counters do. The server listens on
 * 127.0.0.1 only: /metrics, /healthz (the process answers), /readyz (it streams, and the
 * server was heard of lately).
 */
#ifndef FWD_METRICS_H
#define FWD_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "log.h"
#include "position.h"

typedef struct FwdMetrics
{
	uint64_t rows[5]; /* c u d t r */
	uint64_t records;
	uint64_t record_bytes;
	uint64_t skipped;
	uint64_t acknowledged;
	uint64_t transactions;
	uint64_t kafka_transactions;
	uint64_t heartbeats;
	uint64_t schemas;
	uint64_t reconnects;
	uint64_t delivery_errors;
	uint64_t confirmed_lsn;
	uint64_t received_lsn;
	uint64_t server_lsn;
	uint64_t queued_bytes;
	uint64_t pending_transactions;
	uint64_t throttled;
	int64_t last_commit_us; /* time of the commit that was received last */
	int64_t last_heard_us;	/* when the server was last heard of */
	bool streaming;
	const FwdPositions *positions; /* how long they take */
} FwdMetrics;

typedef struct FwdHttp FwdHttp;

/* Port 0: none is wanted, NULL without an error. */
extern FwdHttp *fwd_http_open(int port, FwdMetrics *metrics, FwdError *error);
extern int fwd_http_socket(FwdHttp *http); /* -1 for NULL */
extern void fwd_http_poll(FwdHttp *http);
extern void fwd_http_close(FwdHttp *http);

#endif
