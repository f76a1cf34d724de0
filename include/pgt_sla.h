/*
 * pgt_sla.h: what a stream table's SLA asks for, and the tiers. Module: policy
 *
 * Plain C99 without PostgreSQL. Times are those of TimestampTz, lengths are microseconds.
 * An SLA is the age that the oldest change may have that the stream table does not show yet.
 *
 * A tier has two meanings. Of a table with an SLA it says how much of the slack may pass before
 * a refresh begins; the slack is what the SLA leaves beside the refresh and its wait in the
 * queue. Of a table without, it is what a user wants, and multiplies the interval.
 *
 *				slack	interval
 *		hot		   0	 x 1
 *		warm	50 %	 x 2
 *		cold	80 %	 x 10
 *		frozen	never	 never
 *
 * A table with an SLA and no manual tier gets pgt_sla_assign() when the SLA is set, and
 * pgt_sla_note_cycle() with pgt_sla_reassign() after each refresh. Nobody assigns frozen. A tier
 * set by a user is never given to these.
 *
 * PgtSlaStats and PgtSlaRecord are plain arrays of numbers that a real[] can keep. All 0: new.
 */
#ifndef PGT_SLA_H
#define PGT_SLA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum PgtTier
{
	PGT_TIER_HOT,
	PGT_TIER_WARM,
	PGT_TIER_COLD,
	PGT_TIER_FROZEN
} PgtTier;

#define PGT_TIER_HINT "A tier is 'hot', 'warm', 'cold' or 'frozen'."

/* Case does not matter; false: none of them. */
extern bool pgt_tier_parse(const char *text, PgtTier *tier);
extern const char *pgt_tier_name(PgtTier tier);

#define PGT_SLA_NONE 0			/* no SLA, no limit, no pending change */
#define PGT_SLA_NEVER INT64_MAX /* a time that does not come; = PGT_SCHEDULE_NEVER */
#define PGT_SLA_LEAST INT64_C(100000)
#define PGT_SLA_MOST (INT64_C(3650) * 86400 * 1000000)

/* A length for a message: "250 ms", "41.2 s", "30 s", "5 min", "1.5 h". Returns text. */
#define PGT_SLA_LENGTH_TEXT 32
extern char *pgt_sla_length_text(int64_t length, char text[PGT_SLA_LENGTH_TEXT]);

/* ---- what was measured ---- */

#define PGT_SLA_CYCLES 32
#define PGT_SLA_STATS_SIZE (8 + 3 * PGT_SLA_CYCLES)

typedef struct PgtSlaStats
{
	double values[PGT_SLA_STATS_SIZE];
} PgtSlaStats;

/* Of one refresh. */
typedef struct PgtSlaCycle
{
	int64_t gap;		/* age of the oldest change that it took over, when it had committed */
	int64_t queue_wait; /* from when it was due and its inputs ready, until it began */
	int64_t duration;
} PgtSlaCycle;

typedef enum PgtSlaMeasure
{
	PGT_SLA_GAP,
	PGT_SLA_QUEUE_WAIT,
	PGT_SLA_DURATION
} PgtSlaMeasure;

/*
 * After each refresh that took changes over, whether or not there is an SLA (sla 0 counts
 * nothing as a breach; what is measured helps to assign a tier when one is set). Negative lengths,
 * after the clock was put back, are 0.
 */
extern void pgt_sla_note_cycle(PgtSlaStats *stats, const PgtSlaCycle *cycle, int64_t sla);
/* Refreshes that are remembered, at most PGT_SLA_CYCLES. */
extern int pgt_sla_count_cycles(const PgtSlaStats *stats);
/* The length that the share of fraction (0.95) of them did not exceed; -1: none is remembered. */
extern int64_t pgt_sla_percentile(const PgtSlaStats *stats, PgtSlaMeasure measure, double fraction);
/* Breaches of the SLA in a row, up to and with the last cycle. */
extern int pgt_sla_count_breaches(const PgtSlaStats *stats);

/* ---- when ---- */

/*
 * What the time of a refresh depends on. queue_wait and forecast: what is expected of the next
 * one; for both the p95 of the statistics is a good choice where nothing better is known
 * (negative: not known, as 0).
 */
typedef struct PgtSlaTerms
{
	int64_t sla;	  /* its own, or what pgt_sla_inherit() left it; PGT_SLA_NONE: none */
	int64_t interval; /* of an interval schedule that holds beside the SLA; 0: none */
	int64_t queue_wait;
	int64_t forecast;
} PgtSlaTerms;

/* The time at which the SLA is broken. Without an SLA or a pending change: never. */
extern int64_t pgt_sla_deadline(int64_t pending_since, int64_t sla);
/*
 * When to begin with a change that is pending since then. Never later than what still meets the
 * deadline. The interval is not looked at: a caller whose table has a schedule of its own takes
 * the earlier of the two. Of a manual tier on a table without an SLA: see pgt_tier_interval.
 */
extern int64_t pgt_sla_start(const PgtSlaTerms *terms, PgtTier tier, int64_t pending_since);
/* The interval of a table with a manual tier and no SLA; PGT_SLA_NEVER if frozen. */
extern int64_t pgt_tier_interval(PgtTier tier, int64_t interval);

/*
 * What is left for a table that others read: the least of its own SLA (or PGT_SLA_NONE) and,
 * for each of its consumers, their limit less their forecast. To be folded over the consumers
 * in reverse topological order, so that a consumer's limit is final: a chain hands on its whole
 * path. At least PGT_SLA_TIGHTEST, which stands for "at once".
 *
 *		limit[node] = sla[node];
 *		for each consumer: limit[node] = pgt_sla_inherit(limit[node], limit[c], forecast[c]);
 */
#define PGT_SLA_TIGHTEST 1000
extern int64_t pgt_sla_inherit(int64_t limit, int64_t consumer_limit, int64_t consumer_forecast);

/*
 * Among all that are ready: the largest first, and at a tie the earliest deadline (PgtReadyItem
 * has both). With an SLA: the age of the oldest pending change when the refresh would show it, in
 * units of the SLA. Without: made of pgt_ready_staleness(), in the same order among themselves;
 * below 1 as long as they wait less than about ten of their intervals, so that they make way
 * for what is about to break its SLA, and without bound, so that they do not wait for ever.
 */
extern double pgt_sla_urgency(int64_t now, int64_t pending_since, int64_t forecast, int64_t sla);
extern double pgt_sla_urgency_without(double staleness);

/* The same, to be asked again later: what waits in a queue becomes more urgent meanwhile. */
typedef struct PgtUrgency
{
	int64_t since; /* of the oldest pending change */
	int64_t forecast;
	int64_t unit; /* the SLA, or the interval */
	bool has_sla;
} PgtUrgency;

extern double pgt_sla_priority(const PgtUrgency *urgency, int64_t now);

/* ---- which tier ---- */

#define PGT_SLA_REASON 128

typedef struct PgtSlaVerdict
{
	PgtTier tier;
	bool changed;				 /* it is not the tier that was asked about */
	char reason[PGT_SLA_REASON]; /* for the log and the catalog; empty if not changed */
} PgtSlaVerdict;

/* The gap to expect in a tier: what the tier or the interval lets pass, the queue, the refresh. */
extern int64_t pgt_sla_predict_gap(const PgtSlaTerms *terms, PgtTier tier);
/* What is queued (all forecasts together) over the workers there are (at least 1). */
extern int64_t pgt_sla_backlog(int64_t work, int workers);
/*
 * The laziest tier whose predicted gap, by the p95 of what was measured, is at most 0.8 of the
 * SLA; hot if none is, and hot if nothing was measured. backlog: the wait that the queue of this
 * moment makes likely; it counts if it is more than the p95. changed is always set.
 */
extern PgtSlaVerdict pgt_sla_assign(const PgtSlaStats *stats, int64_t sla, int64_t interval,
									int64_t backlog);
/*
 * After pgt_sla_note_cycle(). One tier up after 3 breaches in a row. One down after 10 cycles in a
 * row under half of the SLA, if the next tier would do by prediction and the last change is 60 s
 * ago. A change is remembered in stats, and counting starts anew.
 */
extern PgtSlaVerdict pgt_sla_reassign(PgtSlaStats *stats, int64_t sla, int64_t interval,
									  PgtTier tier, int64_t now);
/* When a tier is set by other means (assigned at first, SLA changed): the same bookkeeping. */
extern void pgt_sla_note_tier(PgtSlaStats *stats, int64_t now);

/* ---- can it be met? ---- */

/*
 * How many workers an SLA keeps busy when its inputs change all the time: a refresh per
 * (sla - duration), or per period if changes come more seldom (0: not known). To be summed up over
 * all tables with SLAs. An SLA that is no longer than the refresh takes a worker for itself.
 */
extern double pgt_sla_utilisation(int64_t sla, int64_t duration, int64_t period);
/* Workers needed for that, with room for queueing: utilisation / 0.8. */
extern double pgt_sla_workers_needed(double utilisation);

typedef enum PgtSlaFeasibility
{
	PGT_SLA_FEASIBLE,
	PGT_SLA_TOO_SHORT,		/* below 2 x the forecast: a change may come just after a snapshot */
	PGT_SLA_PATH_TOO_LONG,	/* the refreshes of its upstreams and its own take longer */
	PGT_SLA_TOO_FEW_WORKERS /* all SLAs together need more than there are */
} PgtSlaFeasibility;

/*
 * path: the longest chain of forecasts that ends with the table, its own included. detail gets a
 * whole sentence ("All SLAs together need 1.4 workers, 1 is available."), empty if feasible.
 */
#define PGT_SLA_DETAIL 200
extern PgtSlaFeasibility pgt_sla_check(int64_t sla, int64_t forecast, int64_t path,
									   double utilisation, int workers,
									   char detail[PGT_SLA_DETAIL]);

/* ---- was it met? (worker/policy/sla_record.c) ---- */

#define PGT_SLA_MINUTES 60
#define PGT_SLA_HOURS 24
#define PGT_SLA_QUARTERS 4
#define PGT_SLA_STEPS 50 /* of staleness: half octaves from 1 ms to 4.6 h */
#define PGT_SLA_RECORD_SIZE \
	(4 + PGT_SLA_MINUTES + 3 * PGT_SLA_HOURS + PGT_SLA_QUARTERS * PGT_SLA_STEPS)

typedef struct PgtSlaRecord
{
	double values[PGT_SLA_RECORD_SIZE];
} PgtSlaRecord;

/* Begins at now, if it has not begun; otherwise time has passed until now with nothing pending. */
extern void pgt_sla_record_advance(PgtSlaRecord *record, int64_t now);
/* A refresh has committed just now that took over what was pending since then. */
extern void pgt_sla_record_refresh(PgtSlaRecord *record, int64_t now, int64_t pending_since,
								   int64_t sla);
/*
 * No refresh, but time passes with a change pending: what is late so far counts. For views (on a
 * copy), and before a record is stored. Counting the same time twice is harmless.
 */
extern void pgt_sla_record_wait(PgtSlaRecord *record, int64_t now, int64_t pending_since,
								int64_t sla);

typedef struct PgtSlaAttainment
{
	double hour;   /* share of the time in which no change was older than the SLA; */
	double day;	   /* since the record began, if that is less; below 0: not known */
	int refreshes; /* of 24 h */
	int breaches;  /* of these */
	int64_t p50;   /* staleness when refreshes committed, of the last 45 to 60 minutes; */
	int64_t p95;   /* -1: there was none */
	int64_t p99;
} PgtSlaAttainment;

extern PgtSlaAttainment pgt_sla_record_read(const PgtSlaRecord *record, int64_t now);

#endif /* PGT_SLA_H */
