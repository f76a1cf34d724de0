/*
 * pgt_ready.h: may a stream table be refreshed now, and which one first? Module: policy
 *
 * Plain C99 without PostgreSQL. Times are those of TimestampTz; an interval is
 * microseconds.
 */
#ifndef PGT_READY_H
#define PGT_READY_H

#include <stdbool.h>
#include <stdint.h>

/* Of all stream tables that this one reads, the worst. */
typedef enum PgtUpstream
{
	PGT_UPSTREAM_REACHED, /* at the target, or there is none */
	PGT_UPSTREAM_COMING,  /* will be refreshed first */
	PGT_UPSTREAM_STALLED  /* cannot be: failed, suspended, paused or stalled itself */
} PgtUpstream;

typedef struct PgtReadyFacts
{
	bool paused;	/* by a user */
	bool suspended; /* after too many failures */
	bool running;
	bool must_rebuild; /* never refreshed, or has to compute everything anew */
	bool pending;	   /* an input is ahead of its frontier, or will be */
	PgtUpstream upstream;
	int64_t now;
	int64_t due_at;
	int64_t retry_at; /* of the back-off; 0: none */
	bool retry_now;	  /* what the back-off waits for has happened */
} PgtReadyFacts;

/* In the order of which is told when several hold. */
typedef enum PgtReadiness
{
	PGT_READY_PAUSED,
	PGT_READY_SUSPENDED,
	PGT_READY_RUNNING,
	PGT_READY_BACKING_OFF,
	PGT_READY_UNCHANGED, /* nothing to take over */
	PGT_READY_NOT_DUE,
	PGT_READY_STALLED,		  /* by an upstream */
	PGT_READY_AFTER_UPSTREAM, /* due, as soon as its upstreams are done */
	PGT_READY_NOW
} PgtReadiness;

extern PgtReadiness pgt_ready_decide(const PgtReadyFacts *facts);
/* "paused", "not due yet", ... for users */
extern const char *pgt_readiness_text(PgtReadiness readiness);

/*
 * What it is to its consumers. One that is not due holds nobody up: to them it is
 * a source that changes seldom. Where that would show two branches of a diamond
 * apart, the caller makes the branches due with the table that joins them.
 */
extern PgtUpstream pgt_ready_as_upstream(PgtReadiness readiness);

/* What decides the order among several. */
typedef struct PgtReadyItem
{
	int64_t id;
	int level;		  /* in the graph of dependencies */
	double staleness; /* pgt_ready_staleness, or pgt_sla_urgency */
	int64_t deadline; /* the time at which its SLA is broken; 0: it has none */
} PgtReadyItem;

/*
 * Age of the oldest pending change when a refresh that starts now would show
 * it, in units of the interval: above 1 it is late. Intervals below a second
 * (and calculated schedules, 0) count as a second. No pending change, no age.
 */
extern double pgt_ready_staleness(int64_t now, int64_t pending_since, int64_t forecast,
								  int64_t interval);
/* For qsort: by level, then the stalest first, then the earliest deadline, then by id. */
extern int pgt_ready_compare(const void *left, const void *right);

#endif /* PGT_READY_H */
