/*
 * replay.c: the policy that chooses between DIFFERENTIAL and FULL, on traces of refreshes.
 *
 * For each trace and each of SEEDS seeds: so many refreshes, whose true costs are known for both
 * ways, with noise. Regret is what was spent beyond an oracle that knows both but for the noise.
 * Beside pgt_forecast_choose(): a line through the last hour, taken as the settings say, and what
 * never chooses. Prints Markdown; ends with 1 if a bar is missed. No server, no clock but for the
 * time that a decision takes.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pgt_forecast.h"

#define SEEDS 20
#define LENGTH 2000
#define STEADY_SPAN 20 /* refreshes in which steady input may flip once */
#define LINE_SPAN 60   /* samples: an hour of refreshes, one a minute */

/* What one refresh takes. */
typedef struct Step
{
	double rows;
	double source_rows;
	double differential_ms;
	double full_ms;
	double best_ms; /* of the way that takes less but for the noise */
} Step;

typedef struct World
{
	double fixed_ms;
	double row_ms;
	double full_ms;
	double source_rows;
	double rows;
} World;

typedef void (*Change)(World *world, int i);

typedef struct Trace
{
	const char *name;
	World world;
	Change change; /* before refresh i */
	double bar;	   /* regret, percent */
	bool steady;
} Trace;

typedef struct Score
{
	double spent;
	double best;
	long full;
	long flips;
	long probes;
} Score;

static unsigned long long random_state;

static double
uniform(void)
{
	random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
	return ((double) (random_state >> 40) + 0.5) / (1 << 24);
}

static double
normal(void)
{
	return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

static double
noisy(double ms)
{
	return ms * exp(0.1 * normal());
}

/* --- traces ------------------------------------------------------------------------------ */

static void
sawtooth(World *world, int i)
{
	world->rows = 100 * (1 + i % 900);
}

static void
bursts_in_turn(World *world, int i)
{
	world->rows = i % 40 == 39 ? 30000 : 5;
}

static void
bursts_at_random(World *world, int i)
{
	(void) i;
	world->rows = uniform() < 0.03 ? 20000 / sqrt(uniform()) : 1 + 20 * uniform();
}

static void
lognormal(World *world, int i)
{
	(void) i;
	world->rows = ceil(exp(log(500) + 2 * normal()));
}

static void
growth(World *world, int i)
{
	world->source_rows = 1e6 * (1 + i / 100.0);
	world->full_ms = 2000 * (1 + i / 100.0);
}

static void
index_dropped(World *world, int i)
{
	if (i == LENGTH / 4)
		world->row_ms *= 100;
}

static void
index_made(World *world, int i)
{
	if (i == LENGTH / 4)
		world->row_ms /= 100;
}

static const Trace traces[] = {
	{"constant, differential takes 1 % of FULL", {2, 0.05, 2000, 1e6, 500}, NULL, 5, true},
	{"constant, differential takes ten times FULL", {10, 1, 2000, 1e6, 20000}, NULL, 5, true},
	{"constant, both take as long", {2, 0.05, 2000, 1e6, 40000}, NULL, 5, true},
	{"constant, differential takes 1.1 times FULL", {2, 0.05, 2000, 1e6, 44000}, NULL, 5, true},
	{"constant, differential takes 1.3 times FULL", {2, 0.05, 2000, 1e6, 52000}, NULL, 5, true},
	{"sawtooth across the break-even point", {2, 0.05, 2000, 1e6, 0}, sawtooth, 5, false},
	{"lognormal", {10, 1, 2000, 1e6, 0}, lognormal, 5, false},
	{"bursty, every 40th", {10, 1, 2000, 1e6, 0}, bursts_in_turn, 10, false},
	{"bursty, at random, heavy tail", {10, 0.2, 2000, 1e6, 0}, bursts_at_random, 10, false},
	{"growth of the sources, 20 times", {2, 0.05, 2000, 1e6, 100000}, growth, 5, false},
	{"index dropped", {2, 0.05, 2000, 1e6, 2000}, index_dropped, 5, false},
	{"index made", {10, 1, 2000, 1e6, 20000}, index_made, 5, false},
};

#define TRACES ((int) (sizeof(traces) / sizeof(traces[0])))

static void
make_steps(const Trace *trace, int seed, Step *steps)
{
	World world = trace->world;

	random_state = 7919ULL * (seed + 1);
	for (int i = 0; i < LENGTH; i++)
	{
		if (trace->change)
			trace->change(&world, i);
		steps[i].rows = world.rows;
		steps[i].source_rows = world.source_rows;
		steps[i].differential_ms = noisy(world.fixed_ms + world.row_ms * world.rows);
		steps[i].full_ms = noisy(world.full_ms);
		steps[i].best_ms = world.fixed_ms + world.row_ms * world.rows < world.full_ms
							   ? steps[i].differential_ms
							   : steps[i].full_ms;
	}
}

/* --- policies ---------------------------------------------------------------------------- */

static double decision_us;

static double
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

/* The slowest decision is that of an empty cache; a mean is what a refresh pays. */
static void
measure_decision(const PgtForecastModel *model, const Step *step)
{
	PgtForecastModel copy = *model;
	double start = now_us();

	for (int i = 0; i < 1000; i++)
		pgt_forecast_choose(&copy, step->rows, step->source_rows, 5, 1.5);
	start = (now_us() - start) / 1000;
	if (start > decision_us)
		decision_us = start;
}

static Score
play_forecast(const Step *steps)
{
	PgtForecastModel model = {{0}};
	Score score = {0};
	bool before = false;

	pgt_forecast_note_full(&model, steps[0].source_rows, steps[0].full_ms);
	for (int i = 0; i < LENGTH; i++)
	{
		Step step = steps[i];
		PgtForecastVerdict verdict = pgt_forecast_choose(&model, step.rows, step.source_rows, 5,
														 1.5);
		bool full = verdict.choice == PGT_FORECAST_FULL;

		score.best += step.best_ms;
		score.probes += verdict.probe;
		/* A test is no change of mind. */
		score.flips += i > 0 && !verdict.probe && full != before;
		if (!verdict.probe)
			before = full;
		if (!full && verdict.limit_ms > 0 && step.differential_ms > verdict.limit_ms)
		{
			score.spent += verdict.limit_ms;
			pgt_forecast_note_abandoned(&model, step.rows, verdict.limit_ms);
			full = true;
		}
		else if (!full)
		{
			score.spent += step.differential_ms;
			pgt_forecast_note_differential(&model, step.rows, step.differential_ms);
		}
		if (full)
		{
			score.full++;
			score.spent += step.full_ms;
			pgt_forecast_note_full(&model, step.source_rows, step.full_ms);
		}
	}
	measure_decision(&model, &steps[LENGTH - 1]);
	return score;
}

/* Least squares through the differential refreshes among the last LINE_SPAN. */
static double
line_forecast(const Step *steps, const bool *was_full, int i)
{
	double n = 0;
	double x = 0;
	double y = 0;
	double xx = 0;
	double xy = 0;
	double slope;

	for (int j = i < LINE_SPAN ? 0 : i - LINE_SPAN; j < i; j++)
		if (!was_full[j])
		{
			n++;
			x += steps[j].rows;
			y += steps[j].differential_ms;
			xx += steps[j].rows * steps[j].rows;
			xy += steps[j].rows * steps[j].differential_ms;
		}
	if (n < 5)
		return -1;
	slope = n * xx - x * x > 0 ? (n * xy - x * y) / (n * xx - x * x) : 0;
	return y / n + slope * (steps[i].rows - x / n);
}

static Score
play_line(const Step *steps)
{
	static bool was_full[LENGTH];
	double last_full_ms = steps[0].full_ms;
	Score score = {0};

	for (int i = 0; i < LENGTH; i++)
	{
		double forecast = line_forecast(steps, was_full, i);

		was_full[i] = forecast >= 0 ? forecast > last_full_ms * 1.5
									: steps[i].rows > 0.15 * steps[i].source_rows;
		score.best += steps[i].best_ms;
		score.spent += was_full[i] ? steps[i].full_ms : steps[i].differential_ms;
		if (was_full[i])
			last_full_ms = steps[i].full_ms;
	}
	return score;
}

static Score
play_always(const Step *steps, bool full)
{
	Score score = {0};

	for (int i = 0; i < LENGTH; i++)
	{
		score.best += steps[i].best_ms;
		score.spent += full ? steps[i].full_ms : steps[i].differential_ms;
	}
	return score;
}

/* --- the report -------------------------------------------------------------------------- */

static double
regret(Score score)
{
	return 100 * (score.spent / score.best - 1);
}

static bool
report_trace(const Trace *trace, double *sum)
{
	static Step steps[LENGTH];
	double mean = 0;
	double worst = 0;
	double others[3] = {0};
	double flips = 0;
	double probes = 0;
	double full = 0;
	bool good;

	for (int seed = 0; seed < SEEDS; seed++)
	{
		Score score;

		make_steps(trace, seed, steps);
		score = play_forecast(steps);
		mean += regret(score) / SEEDS;
		worst = fmax(worst, regret(score));
		flips += (double) score.flips * STEADY_SPAN / LENGTH / SEEDS;
		probes += (double) score.probes * STEADY_SPAN / LENGTH / SEEDS;
		full += 100.0 * score.full / LENGTH / SEEDS;
		others[0] += regret(play_line(steps)) / SEEDS;
		others[1] += regret(play_always(steps, false)) / SEEDS;
		others[2] += regret(play_always(steps, true)) / SEEDS;
	}
	good = mean <= trace->bar && (!trace->steady || flips + 2 * probes <= 1);
	printf("| %s | %.2f %% | %.2f %% | <= %.0f %% | %.0f %% | %.2f | %.2f | %.0f %% | %.0f %% | "
		   "%.0f %% | %s |\n",
		   trace->name, mean, worst, trace->bar, full, flips, probes, others[0], others[1],
		   others[2], good ? "met" : "MISSED");
	*sum += mean;
	return good;
}

int
main(void)
{
	bool good = true;
	double sum = 0;

	printf("# Choosing between DIFFERENTIAL and FULL\n\n");
	printf("`make -s bench-replay`: %d refreshes of each trace, %d seeds, costs with 10 %% noise, "
		   "nothing known\nat first but one FULL. Regret: time spent beyond an oracle's, given-up "
		   "attempts and tests counted.\n\n",
		   LENGTH, SEEDS);
	printf("| trace | regret | worst seed | bar | FULL | flips per %d | tests per %d | line of the "
		   "last %d | always differential | always FULL | |\n",
		   STEADY_SPAN, STEADY_SPAN, LINE_SPAN);
	printf("|---|---|---|---|---|---|---|---|---|---|---|\n");
	for (int i = 0; i < TRACES; i++)
		good = report_trace(&traces[i], &sum) && good;
	good = good && sum / TRACES <= 5 && decision_us <= 50;
	printf("\nMean regret %.2f %% (bar 5 %%). A decision takes %.2f us (bar 50 us). On constant "
		   "input at most one\nchange per %d refreshes is allowed; a test counts as two.\n",
		   sum / TRACES, decision_us, STEADY_SPAN);
	return good ? 0 : 1;
}
