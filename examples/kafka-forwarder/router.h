/*
 * router.h: from the decoder's messages to records.
 *
 * Knows docs/wire-format.md: which message is a row of which table, what its key and its
 * position are, which topic it goes to, and when a tombstone follows. Feeds the positions
 * with the beginnings and ends of transactions, and the sink with records.
 */
#ifndef FWD_ROUTER_H
#define FWD_ROUTER_H

#include "json.h"
#include "sink.h"
#include "source.h"

typedef struct FwdRouter FwdRouter;

extern FwdRouter *fwd_router_open(const FwdConfig *config, const FwdServer *server, FwdSink *sink,
								  FwdPositions *positions, FwdMetrics *metrics);
/* One message or several, a line each. */
extern bool fwd_router_take(FwdRouter *router, FwdSpan lines, FwdError *error);
/* Between two transactions. */
extern bool fwd_router_is_idle(const FwdRouter *router);
extern void fwd_router_close(FwdRouter *router);

/* The topic of a table, in memory of the caller; NULL if it cannot be one. */
extern char *fwd_topic_name(const FwdConfig *config, const char *schema, const char *table,
							FwdError *error);

#endif
