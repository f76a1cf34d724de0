/*
 * sla_load.c: sixty tables with SLAs of 1 to 120 s whose inputs change at random, two workers, and
 * more and more work: how often is the table with the worst luck in time? The scheduler is
 * simulated, event by event, with the policy as it is.
 *
 * link: worker/policy/sla.c worker/policy/sla_record.c worker/policy/ready.c
 */
#include <math.h>
#include <stdint.h>

#include "pgt_ready.h"
#include "pgt_sla.h"
#include "pgt_test.h"

#define SECOND INT64_C(1000000)
#define START (INT64_C(848620800) * SECOND)
#define TABLES 60
#define WORKERS 2
#define LENGTH (900 * SECOND)
#define MEASURED_FROM (300 * SECOND) /* before that, tiers find their place */

typedef struct Table
{
	int64_t sla;
	int64_t mean; /* duration of its refreshes */
	int64_t pending_since;
	int64_t began; /* refresh that runs; 0: none */
	int64_t ends;
	int64_t due; /* of the next one */
	PgtTier tier;
	PgtSlaStats stats;
	PgtSlaRecord record;
} Table;

typedef struct Result
{
	double worst; /* attainment */
	double mean;
	int refreshes;
	int tier_changes;
	int lazy; /* tables that are not hot at the end */
} Result;

/* What decides who is first. */
typedef enum Order
{
	BY_URGENCY,
	BY_AGE,
	BY_TIER
} Order;

static uint64_t random_state;

static double
random_fraction(void)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (double) (random_state >> 11) / 9007199254740992.0;
}

/* What they need together, in workers. */
static double
needed(const Table *tables, double scale)
{
	double sum = 0;

	for (int i = 0; i < TABLES; i++)
		sum += pgt_sla_utilisation(tables[i].sla, (int64_t) (scale * tables[i].mean), 0);
	return sum;
}

/*
 * SLAs and durations have nothing to do with one another; the durations are scaled so that load x
 * WORKERS workers are needed.
 */
static void
make_tables(Table *tables, double load)
{
	double low = 0;
	double high = 1;

	for (int i = 0; i < TABLES; i++)
	{
		tables[i] = (Table){.sla = (int64_t) (pow(120, random_fraction()) * SECOND)};
		tables[i].mean = (int64_t) (SECOND * pow(10, random_fraction()));
		tables[i].pending_since = START + (int64_t) (random_fraction() * SECOND);
		tables[i].due = tables[i].pending_since;
		tables[i].tier = pgt_sla_assign(&tables[i].stats, tables[i].sla, 0, 0).tier;
	}
	for (int i = 0; i < 40; i++)
	{
		if (needed(tables, (low + high) / 2) > load * WORKERS)
			high = (low + high) / 2;
		else
			low = (low + high) / 2;
	}
	for (int i = 0; i < TABLES; i++)
		tables[i].mean = (int64_t) (low * tables[i].mean);
}

static int64_t
start_of(const Table *table)
{
	PgtSlaTerms terms = {.sla = table->sla};

	terms.queue_wait = pgt_sla_percentile(&table->stats, PGT_SLA_QUEUE_WAIT, 0.95);
	terms.forecast = pgt_sla_percentile(&table->stats, PGT_SLA_DURATION, 0.95);
	return pgt_sla_start(&terms, table->tier, table->pending_since);
}

static Table *
choose(Table *tables, int64_t now, Order order)
{
	Table *best = NULL;
	PgtReadyItem best_item = {0};

	for (int i = 0; i < TABLES; i++)
	{
		Table *table = &tables[i];
		PgtReadyItem item = {.id = i};

		if (table->began != 0 || table->due > now)
			continue;
		item.deadline = pgt_sla_deadline(table->pending_since, table->sla);
		if (order == BY_URGENCY)
			item.staleness = pgt_sla_urgency(now, table->pending_since, table->mean, table->sla);
		else if (order == BY_AGE)
			item.staleness = (double) (now - table->pending_since);
		else
			item.level = table->sla > 30 * SECOND ? 2 : table->sla > 5 * SECOND;
		if (best == NULL || pgt_ready_compare(&item, &best_item) < 0)
		{
			best = table;
			best_item = item;
		}
	}
	return best;
}

/* Changes come at random, four in the time of an SLA. */
static int64_t
next_change(const Table *table, int64_t after)
{
	return after + 1 - (int64_t) (log(1 - random_fraction()) * (double) table->sla / 4);
}

static void
finish(Table *table, int64_t now, Result *result)
{
	PgtSlaCycle cycle = {.gap = now - table->pending_since};
	PgtSlaVerdict verdict;

	cycle.queue_wait = table->began - table->due;
	cycle.duration = now - table->began;
	pgt_sla_note_cycle(&table->stats, &cycle, table->sla);
	verdict = pgt_sla_reassign(&table->stats, table->sla, 0, table->tier, now);
	result->tier_changes += verdict.changed;
	result->refreshes++;
	table->tier = verdict.tier;
	pgt_sla_record_refresh(&table->record, now, table->pending_since, table->sla);
	table->pending_since = next_change(table, table->began);
	table->began = 0;
	table->due = start_of(table);
}

/* When something happens next: a refresh ends, or a table becomes ready for a worker. */
static int64_t
next_time(const Table *tables, int64_t now, bool worker_free)
{
	int64_t next = PGT_SLA_NEVER;

	for (int i = 0; i < TABLES; i++)
	{
		int64_t time = tables[i].began != 0 ? tables[i].ends : tables[i].due;

		if (tables[i].began == 0 && !worker_free)
			continue;
		time = time > now ? time : now + 1;
		next = time < next ? time : next;
	}
	return next;
}

static Result
simulate(double load, Order order, uint64_t seed)
{
	static Table tables[TABLES];
	Result result = {.worst = 1};
	int running = 0;

	random_state = seed;
	make_tables(tables, load);
	for (int64_t now = START; now < START + LENGTH; now = next_time(tables, now, running < WORKERS))
	{
		Table *table;

		for (int i = 0; i < TABLES; i++)
		{
			if (tables[i].began == 0 || tables[i].ends > now)
				continue;
			finish(&tables[i], now, &result);
			running--;
		}
		while (running < WORKERS && (table = choose(tables, now, order)) != NULL)
		{
			table->began = now;
			table->ends = now + (int64_t) ((0.7 + 0.6 * random_fraction()) * table->mean) + 1;
			running++;
		}
		if (now < START + MEASURED_FROM)
		{
			for (int i = 0; i < TABLES; i++)
			{
				tables[i].record = (PgtSlaRecord){{0}};
				pgt_sla_record_advance(&tables[i].record, now);
			}
		}
	}
	for (int i = 0; i < TABLES; i++)
	{
		double attained;

		if (tables[i].pending_since < START + LENGTH)
			pgt_sla_record_wait(&tables[i].record, START + LENGTH, tables[i].pending_since,
								tables[i].sla);
		attained = pgt_sla_record_read(&tables[i].record, START + LENGTH).hour;
		result.worst = attained < result.worst ? attained : result.worst;
		result.mean += attained / TABLES;
		result.lazy += tables[i].tier != PGT_TIER_HOT;
	}
	return result;
}

/* Of four runs, the worst table of each, on average. */
static double
worst_of(double load, Order order, const char *name)
{
	double worst = 0;
	double mean = 0;
	int refreshes = 0;
	int changes = 0;
	int lazy = 0;

	for (int seed = 1; seed <= 4; seed++)
	{
		Result result = simulate(load, order, seed);

		worst += result.worst / 4;
		mean += result.mean / 4;
		refreshes += result.refreshes;
		changes += result.tier_changes;
		lazy += result.lazy;
	}
	printf("# load %.1f, %s: worst table %.3f, mean %.3f, %d refreshes, %d changes of tier, "
		   "%d of %d tables not hot\n",
		   load, name, worst, mean, refreshes, changes, lazy, 4 * TABLES);
	return worst;
}

int
main(void)
{
	ok(worst_of(0.5, BY_URGENCY, "urgency") >= 0.99, "load 0.5: in time");
	ok(worst_of(0.8, BY_URGENCY, "urgency") >= 0.99, "load 0.8: 99 % for every table");
	ok(worst_of(1.0, BY_URGENCY, "urgency") >= 0.95, "load 1.0: 95 %");
	ok(worst_of(1.2, BY_URGENCY, "urgency") >= 0.85, "load 1.2: 85 %");
	ok(worst_of(1.0, BY_AGE, "the oldest change first") < 0.95, "the oldest first would not do");
	ok(worst_of(1.0, BY_TIER, "short SLAs first") < 0.95, "nor would short SLAs first");
	return test_done();
}
