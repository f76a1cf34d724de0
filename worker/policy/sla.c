/*
 * sla.c: tiers, when a table with an SLA is to be refreshed, and whether that can work.
 *
 * Relies on nothing but the C library; all state is in PgtSlaStats.
 */
#include "pgt_ready.h"
#include "pgt_sla.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Where things are in PgtSlaStats.values. A real holds neither a time nor its hour's microseconds
 * in one. */
enum
{
	COUNT,	  /* cycles that are remembered */
	NEXT,	  /* where the next one goes */
	BREACHES, /* in a row */
	SHORT,	  /* under half of the SLA, in a row */
	CHANGED_HOUR,
	CHANGED_SECOND, /* in that hour */
	FIRST_LENGTH = 8
};

#define HOUR INT64_C(3600000000)
#define SECOND INT64_C(1000000)

#define MARGIN 0.8	  /* of the SLA: what a predicted gap may take */
#define SPARE 0.05	  /* of the SLA: never given away */
#define USABLE 0.8	  /* of a worker; the rest is for queueing */
#define UP_AFTER 3	  /* breaches in a row */
#define DOWN_AFTER 10 /* cycles in a row under half of the SLA */
#define DOWN_REST (60 * SECOND)

static const struct
{
	const char *name;
	double slack;
	int multiplier; /* 0: never */
} tiers[] = {
	[PGT_TIER_HOT] = {"hot", 0, 1},
	[PGT_TIER_WARM] = {"warm", 0.5, 2},
	[PGT_TIER_COLD] = {"cold", 0.8, 10},
	[PGT_TIER_FROZEN] = {"frozen", 1, 0},
};

static int64_t
not_negative(int64_t length)
{
	return length > 0 ? length : 0;
}

static int64_t
add(int64_t a, int64_t b)
{
	return b > 0 && a > PGT_SLA_NEVER - b ? PGT_SLA_NEVER : a + b;
}

bool
pgt_tier_parse(const char *text, PgtTier *tier)
{
	for (int i = 0; i < (int) (sizeof(tiers) / sizeof(tiers[0])); i++)
	{
		if (strcasecmp(text, tiers[i].name) == 0)
		{
			*tier = (PgtTier) i;
			return true;
		}
	}
	return false;
}

const char *
pgt_tier_name(PgtTier tier)
{
	return tiers[tier].name;
}

int64_t
pgt_tier_interval(PgtTier tier, int64_t interval)
{
	int multiplier = tiers[tier].multiplier;

	if (multiplier == 0 || interval > PGT_SLA_NEVER / multiplier)
		return PGT_SLA_NEVER;
	return interval * multiplier;
}

char *
pgt_sla_length_text(int64_t length, char text[PGT_SLA_LENGTH_TEXT])
{
	static const struct
	{
		const char *name;
		double unit; /* in microseconds */
		double most; /* up to so many */
	} units[] = {{"ms", 1e3, 999.5},
				 {"s", 1e6, 120},
				 {"min", 6e7, 120},
				 {"h", 3.6e9, 48},
				 {"d", 8.64e10, 0}};
	int i = 0;
	double number;
	char digits[PGT_SLA_LENGTH_TEXT];
	size_t end;

	while (units[i].most > 0 && (double) length / units[i].unit >= units[i].most)
		i++;
	number = (double) length / units[i].unit;
	snprintf(digits, sizeof(digits), "%.*f", i == 0 && number >= 10 ? 0 : 1, number);
	end = strlen(digits);
	if (end > 2 && strcmp(digits + end - 2, ".0") == 0)
		digits[end - 2] = '\0';
	snprintf(text, PGT_SLA_LENGTH_TEXT, "%.20s %s", digits, units[i].name);
	return text;
}

/* ---- what was measured ---- */

static double *
lengths(const PgtSlaStats *stats, PgtSlaMeasure measure)
{
	return (double *) &stats->values[FIRST_LENGTH + (int) measure * PGT_SLA_CYCLES];
}

void
pgt_sla_note_cycle(PgtSlaStats *stats, const PgtSlaCycle *cycle, int64_t sla)
{
	int at = (int) stats->values[NEXT] % PGT_SLA_CYCLES;
	int64_t gap = not_negative(cycle->gap);

	lengths(stats, PGT_SLA_GAP)[at] = (double) gap / 1000;
	lengths(stats, PGT_SLA_QUEUE_WAIT)[at] = (double) not_negative(cycle->queue_wait) / 1000;
	lengths(stats, PGT_SLA_DURATION)[at] = (double) not_negative(cycle->duration) / 1000;
	stats->values[NEXT] = (at + 1) % PGT_SLA_CYCLES;
	if (stats->values[COUNT] < PGT_SLA_CYCLES)
		stats->values[COUNT]++;
	if (sla <= 0 || gap <= sla)
		stats->values[BREACHES] = 0;
	else if (stats->values[BREACHES] < 1000000)
		stats->values[BREACHES]++;
	if (sla <= 0 || gap >= sla / 2)
		stats->values[SHORT] = 0;
	else if (stats->values[SHORT] < 1000000)
		stats->values[SHORT]++;
}

int
pgt_sla_count_cycles(const PgtSlaStats *stats)
{
	return (int) stats->values[COUNT];
}

int
pgt_sla_count_breaches(const PgtSlaStats *stats)
{
	return (int) stats->values[BREACHES];
}

static int
compare_doubles(const void *left, const void *right)
{
	double a = *(const double *) left;
	double b = *(const double *) right;

	return (a > b) - (a < b);
}

int64_t
pgt_sla_percentile(const PgtSlaStats *stats, PgtSlaMeasure measure, double fraction)
{
	int count = pgt_sla_count_cycles(stats);
	double sorted[PGT_SLA_CYCLES];
	int rank;

	if (count <= 0)
		return -1;
	if (count > PGT_SLA_CYCLES)
		count = PGT_SLA_CYCLES;
	memcpy(sorted, lengths(stats, measure), sizeof(double) * count);
	qsort(sorted, count, sizeof(double), compare_doubles);
	rank = (int) (fraction * count);
	if (rank < fraction * count - 1e-9)
		rank++;
	rank = rank < 1 ? 1 : (rank > count ? count : rank);
	return (int64_t) (sorted[rank - 1] * 1000 + 0.5);
}

/* The last cycle's; only with count > 0. */
static int64_t
last_gap(const PgtSlaStats *stats)
{
	int at = ((int) stats->values[NEXT] + PGT_SLA_CYCLES - 1) % PGT_SLA_CYCLES;

	return (int64_t) (lengths(stats, PGT_SLA_GAP)[at] * 1000 + 0.5);
}

/* ---- when ---- */

int64_t
pgt_sla_deadline(int64_t pending_since, int64_t sla)
{
	if (pending_since == PGT_SLA_NONE || sla <= 0)
		return PGT_SLA_NEVER;
	return add(pending_since, sla);
}

/* How much of the slack a tier lets pass. */
static int64_t
delay(const PgtSlaTerms *terms, PgtTier tier)
{
	double slack = (double) terms->sla * (1 - SPARE) - (double) not_negative(terms->forecast) -
				   (double) not_negative(terms->queue_wait);

	return slack > 0 ? (int64_t) (slack * tiers[tier].slack) : 0;
}

int64_t
pgt_sla_start(const PgtSlaTerms *terms, PgtTier tier, int64_t pending_since)
{
	if (tier == PGT_TIER_FROZEN || pending_since == PGT_SLA_NONE)
		return PGT_SLA_NEVER;
	if (terms->sla <= 0)
		return pending_since;
	return add(pending_since, delay(terms, tier));
}

int64_t
pgt_sla_inherit(int64_t limit, int64_t consumer_limit, int64_t consumer_forecast)
{
	int64_t left;

	if (consumer_limit <= 0)
		return limit;
	left = consumer_limit - not_negative(consumer_forecast);
	if (left < PGT_SLA_TIGHTEST)
		left = PGT_SLA_TIGHTEST;
	return limit <= 0 || left < limit ? left : limit;
}

/* An SLA that cannot be met anyhow must not take everything from those that can. */
double
pgt_sla_urgency(int64_t now, int64_t pending_since, int64_t forecast, int64_t sla)
{
	if (pending_since == PGT_SLA_NONE || pending_since > now)
		pending_since = now;
	return ((double) (now - pending_since) + (double) not_negative(forecast)) /
		   (double) (sla > PGT_SLA_LEAST ? sla : PGT_SLA_LEAST);
}

double
pgt_sla_urgency_without(double staleness)
{
	return staleness / (1 + staleness) + staleness / 100;
}

double
pgt_sla_priority(const PgtUrgency *urgency, int64_t now)
{
	if (urgency->has_sla)
		return pgt_sla_urgency(now, urgency->since, urgency->forecast, urgency->unit);
	return pgt_sla_urgency_without(
		pgt_ready_staleness(now, urgency->since, urgency->forecast, urgency->unit));
}

/* ---- which tier ---- */

int64_t
pgt_sla_predict_gap(const PgtSlaTerms *terms, PgtTier tier)
{
	int64_t period;

	if (tier == PGT_TIER_FROZEN)
		return PGT_SLA_NEVER;
	period = delay(terms, tier);
	if (terms->interval > 0 && terms->interval < period)
		period = terms->interval;
	return add(add(period, not_negative(terms->queue_wait)), not_negative(terms->forecast));
}

int64_t
pgt_sla_backlog(int64_t work, int workers)
{
	return not_negative(work) / (workers > 1 ? workers : 1);
}

static PgtSlaTerms
measured_terms(const PgtSlaStats *stats, int64_t sla, int64_t interval)
{
	PgtSlaTerms terms = {.sla = sla, .interval = interval};

	terms.queue_wait = pgt_sla_percentile(stats, PGT_SLA_QUEUE_WAIT, 0.95);
	terms.forecast = pgt_sla_percentile(stats, PGT_SLA_DURATION, 0.95);
	return terms;
}

static bool
would_do(const PgtSlaTerms *terms, PgtTier tier)
{
	return (double) pgt_sla_predict_gap(terms, tier) <= MARGIN * (double) terms->sla;
}

PgtSlaVerdict
pgt_sla_assign(const PgtSlaStats *stats, int64_t sla, int64_t interval, int64_t backlog)
{
	PgtSlaVerdict verdict = {.tier = PGT_TIER_HOT, .changed = true};
	PgtSlaTerms terms = measured_terms(stats, sla, interval);
	char gap[PGT_SLA_LENGTH_TEXT];
	char of[PGT_SLA_LENGTH_TEXT];

	if (pgt_sla_count_cycles(stats) == 0)
	{
		snprintf(verdict.reason, sizeof(verdict.reason), "nothing was measured yet");
		return verdict;
	}
	if (backlog > terms.queue_wait)
		terms.queue_wait = backlog;
	for (int tier = PGT_TIER_COLD; tier > PGT_TIER_HOT && verdict.tier == PGT_TIER_HOT; tier--)
	{
		if (would_do(&terms, (PgtTier) tier))
			verdict.tier = (PgtTier) tier;
	}
	snprintf(verdict.reason, sizeof(verdict.reason), "predicted to take %s of %s",
			 pgt_sla_length_text(pgt_sla_predict_gap(&terms, verdict.tier), gap),
			 pgt_sla_length_text(sla, of));
	return verdict;
}

void
pgt_sla_note_tier(PgtSlaStats *stats, int64_t now)
{
	int64_t hour = now / HOUR;

	stats->values[CHANGED_HOUR] = (double) hour;
	stats->values[CHANGED_SECOND] = (double) (now - hour * HOUR) / (double) SECOND;
	stats->values[BREACHES] = 0;
	stats->values[SHORT] = 0;
}

/* Since the last change of the tier. If the clock was put back, from now on. */
static int64_t
rested(PgtSlaStats *stats, int64_t now)
{
	int64_t changed = (int64_t) stats->values[CHANGED_HOUR] * HOUR +
					  (int64_t) (stats->values[CHANGED_SECOND] * (double) SECOND);
	int64_t hour = now / HOUR;

	if (changed <= now)
		return now - changed;
	stats->values[CHANGED_HOUR] = (double) hour;
	stats->values[CHANGED_SECOND] = (double) (now - hour * HOUR) / (double) SECOND;
	return 0;
}

static void
set_tier(PgtSlaVerdict *verdict, PgtTier tier, const char *what, int cycles, int64_t gap,
		 int64_t sla)
{
	char gap_text[PGT_SLA_LENGTH_TEXT];
	char of[PGT_SLA_LENGTH_TEXT];

	verdict->tier = tier;
	verdict->changed = true;
	snprintf(verdict->reason, sizeof(verdict->reason), "%s in %d cycles in a row: %s of %s", what,
			 cycles, pgt_sla_length_text(gap, gap_text), pgt_sla_length_text(sla, of));
}

PgtSlaVerdict
pgt_sla_reassign(PgtSlaStats *stats, int64_t sla, int64_t interval, PgtTier tier, int64_t now)
{
	PgtSlaVerdict verdict = {.tier = tier};
	PgtSlaTerms terms = measured_terms(stats, sla, interval);
	int64_t rest = rested(stats, now);

	if (sla <= 0 || tier == PGT_TIER_FROZEN)
		return verdict;
	if (stats->values[BREACHES] >= UP_AFTER && tier > PGT_TIER_HOT)
		set_tier(&verdict, (PgtTier) (tier - 1), "missed the SLA", (int) stats->values[BREACHES],
				 last_gap(stats), sla);
	else if (stats->values[SHORT] >= DOWN_AFTER && tier < PGT_TIER_COLD && rest >= DOWN_REST &&
			 would_do(&terms, (PgtTier) (tier + 1)))
		set_tier(&verdict, (PgtTier) (tier + 1), "took under half of the SLA",
				 (int) stats->values[SHORT], last_gap(stats), sla);
	if (verdict.changed)
		pgt_sla_note_tier(stats, now);
	return verdict;
}

/* ---- can it be met? ---- */

double
pgt_sla_utilisation(int64_t sla, int64_t duration, int64_t period)
{
	int64_t least = sla - not_negative(duration);

	if (sla <= 0 || duration <= 0)
		return 0;
	if (least < period)
		least = period;
	return least <= duration ? 1 : (double) duration / (double) least;
}

double
pgt_sla_workers_needed(double utilisation)
{
	return utilisation / USABLE;
}

PgtSlaFeasibility
pgt_sla_check(int64_t sla, int64_t forecast, int64_t path, double utilisation, int workers,
			  char detail[PGT_SLA_DETAIL])
{
	double needed = pgt_sla_workers_needed(utilisation);
	char length[PGT_SLA_LENGTH_TEXT];

	detail[0] = '\0';
	if (sla <= 0)
		return PGT_SLA_FEASIBLE;
	if (forecast > sla / 2)
	{
		snprintf(detail, PGT_SLA_DETAIL,
				 "A refresh takes about %s, and a change that comes when one has just begun waits "
				 "for two of them.",
				 pgt_sla_length_text(forecast, length));
		return PGT_SLA_TOO_SHORT;
	}
	if (path > sla)
	{
		snprintf(detail, PGT_SLA_DETAIL,
				 "The refreshes of the stream tables that it reads and its own take about %s.",
				 pgt_sla_length_text(path, length));
		return PGT_SLA_PATH_TOO_LONG;
	}
	if (workers < 1)
		workers = 1;
	if (needed > workers)
	{
		double tenths = (double) (int64_t) (needed * 10 + 0.999999) / 10;

		snprintf(detail, PGT_SLA_DETAIL, "All SLAs together need %.1f workers, %d %s available.",
				 tenths, workers, workers == 1 ? "is" : "are");
		return PGT_SLA_TOO_FEW_WORKERS;
	}
	return PGT_SLA_FEASIBLE;
}
