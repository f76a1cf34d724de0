/*
 * session.h: one life of the two connections: from connecting to the first failure.
 */
#ifndef FWD_SESSION_H
#define FWD_SESSION_H

#include "config.h"
#include "metrics.h"
#include "position.h"

/* What outlives a session. */
typedef struct FwdForwarder
{
	FwdConfig config;
	FwdPositions positions;
	FwdMetrics metrics;
	FwdHttp *http;
	int signals;		/* a signalfd */
	char system_id[32]; /* of the server of the first session */
	bool dry_run;		/* to standard output, and nothing is confirmed */
	bool once;			/* end when all is forwarded that was there at the start */
	bool progress;		/* a line on the terminal */
	uint64_t until;		/* end here, unless 0 */
	bool stop;			/* SIGTERM or SIGINT */
	bool made_headway;	/* something was confirmed in this session */
} FwdForwarder;

/* True: it is done, the process may end. False: it failed, and error says how. */
extern bool fwd_session_run(FwdForwarder *forwarder, FwdError *error);

/* Wait for a signal or a request for metrics, for so long. */
extern void fwd_session_wait(FwdForwarder *forwarder, int milliseconds);

#endif
