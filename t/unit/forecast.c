/*
 * forecast.c: how long refreshes will take, and what that decides, on replayed traces.
 *
 * link: worker/policy/forecast.c
 */
#include "pgt_forecast.h"
#include "pgt_test.h"

/* A world: what refreshes cost. */
typedef struct World
{
	double fixed_ms;
	double row_ms;
	double full_ms;
	double source_rows;
} World;

typedef struct Result
{
	double spent;
	double best;
	int full;
	int flips;
} Result;

static unsigned long long state = 1;

/* About 10 % around 1. */
static double
noise(void)
{
	double sum = 0;

	for (int i = 0; i < 4; i++)
	{
		state = state * 6364136223846793005ULL + 1442695040888963407ULL;
		sum += (double) (state >> 40) / (1 << 24) - 0.5;
	}
	return 1 + 0.2 * sum;
}

static void
refresh(PgtForecastModel *model, const World *world, double rows, Result *result)
{
	static PgtForecastChoice last;
	double differential = (world->fixed_ms + world->row_ms * rows) * noise();
	double full = world->full_ms * noise();
	PgtForecastVerdict verdict = pgt_forecast_choose(model, rows, world->source_rows, 5, 1.5);
	bool as_full = verdict.choice == PGT_FORECAST_FULL;

	result->flips += as_full != (last == PGT_FORECAST_FULL);
	last = verdict.choice;
	result->best += differential < full ? differential : full;
	if (!as_full && verdict.limit_ms > 0 && differential > verdict.limit_ms)
	{
		result->spent += verdict.limit_ms;
		pgt_forecast_note_abandoned(model, rows, verdict.limit_ms);
		as_full = true;
	}
	else if (!as_full)
	{
		result->spent += differential;
		pgt_forecast_note_differential(model, rows, differential);
	}
	if (as_full)
	{
		result->spent += full;
		result->full++;
		pgt_forecast_note_full(model, world->source_rows, full);
	}
}

static double
regret(Result result)
{
	return 100 * (result.spent / result.best - 1);
}

static void
no_worse(Result result, double percent, const char *name)
{
	printf("# %s: regret %.2f %%, %d full, %d flips\n", name, regret(result), result.full,
		   result.flips);
	ok(regret(result) <= percent, name);
}

static PgtForecastModel
new_model(const World *world)
{
	PgtForecastModel model = {{0}};

	pgt_forecast_note_full(&model, world->source_rows, world->full_ms);
	return model;
}

static void
test_cold_start(void)
{
	PgtForecastModel model = {{0}};
	PgtForecastVerdict verdict = pgt_forecast_choose(&model, 1000, 1e6, 5, 1.5);

	is_int(verdict.choice, PGT_FORECAST_UNKNOWN, "nothing is known: no choice");
	ok(verdict.limit_ms == 0, "and no limit without a full refresh");
	pgt_forecast_note_full(&model, 1e6, 1000);
	verdict = pgt_forecast_choose(&model, 1000, 1e6, 5, 1.5);
	is_int(verdict.choice, PGT_FORECAST_UNKNOWN, "0 samples: no choice");
	ok(verdict.limit_ms == 1000, "but not for longer than a full one takes");
	pgt_forecast_note_differential(&model, 100, 100);
	verdict = pgt_forecast_choose(&model, 10000, 1e6, 5, 1.5);
	is_int(verdict.choice, PGT_FORECAST_UNKNOWN, "1 sample: no choice");
	ok(verdict.differential_ms < 0, "and no forecast");
	is_int(pgt_forecast_choose(&model, 1000, 1e6, 1, 1.5).choice, PGT_FORECAST_UNKNOWN,
		   "nor one from 1 sample of another size, where 1 is enough");
	for (int i = 1; i < 4; i++)
		pgt_forecast_note_differential(&model, i % 2 == 0 ? 100 : 1000, i % 2 == 0 ? 100 : 1000);
	is_int(pgt_forecast_choose(&model, 10000, 1e6, 5, 1.5).choice, PGT_FORECAST_UNKNOWN,
		   "4 samples: no choice");
	pgt_forecast_note_differential(&model, 1000, 1000);
	verdict = pgt_forecast_choose(&model, 10000, 1e6, 5, 1.5);
	is_int(verdict.choice, PGT_FORECAST_FULL, "5 samples: full, where the line says so");
	ok(verdict.differential_ms > 9999 && verdict.differential_ms < 10001, "by the line");
	is_int(pgt_forecast_choose(&model, 100, 1e6, 5, 1.5).choice, PGT_FORECAST_DIFFERENTIAL,
		   "and differential where not");
	is_int(pgt_forecast_choose(&model, 10000, 1e6, 0, 1.5).choice, PGT_FORECAST_UNKNOWN,
		   "0 as the least number of samples turns it off");
	is_int(pgt_forecast_choose(&model, 10000, 1e7, 5, 1.5).choice, PGT_FORECAST_DIFFERENTIAL,
		   "full takes ten times as long when there are ten times as many rows");
}

static void
test_traces(void)
{
	const World world = {2, 0.05, 2000, 1e6};
	const World slow = {10, 1, 2000, 1e6};
	World growing = world;
	World mended = slow;
	PgtForecastModel model = new_model(&world);
	Result result = {0};

	for (int i = 0; i < 1000; i++)
		refresh(&model, &world, 500, &result);
	no_worse(result, 1, "constant, differential is better");
	is_int(result.full, 0, "and always taken");

	model = new_model(&slow);
	result = (Result){0};
	for (int i = 0; i < 1000; i++)
		refresh(&model, &slow, 20000, &result);
	no_worse(result, 5, "constant, full is better");
	ok(result.flips <= 1000 / 20, "few flips on steady input");

	model = new_model(&world);
	result = (Result){0};
	for (int i = 0; i < 1000; i++)
		refresh(&model, &world, 100 * (1 + i % 900), &result);
	no_worse(result, 5, "sawtooth across the point where both are equal");

	model = new_model(&slow);
	result = (Result){0};
	for (int i = 0; i < 2000; i++)
		refresh(&model, &slow, i % 40 == 39 ? 30000 : 5, &result);
	no_worse(result, 10, "bursty");

	model = new_model(&world);
	result = (Result){0};
	for (int i = 0; i < 1000; i++)
	{
		growing.source_rows = 1e6 * (1 + i / 100.0);
		growing.full_ms = 2000 * (1 + i / 100.0);
		refresh(&model, &growing, 100000, &result);
	}
	no_worse(result, 5, "growth: full becomes slower than differential");

	model = new_model(&mended);
	result = (Result){0};
	for (int i = 0; i < 1000; i++)
	{
		if (i == 200)
			mended.row_ms = 0.01; /* somebody made the index */
		refresh(&model, &mended, 20000, &result);
		if (i == 264)
			result = (Result){0};
	}
	no_worse(result, 5, "an index was made: noticed within 64 refreshes");

	model = new_model(&world);
	mended = world;
	result = (Result){0};
	for (int i = 0; i < 1000; i++)
	{
		if (i == 200)
			mended.row_ms = 5; /* somebody dropped it */
		refresh(&model, &mended, 2000, &result);
	}
	no_worse(result, 5, "the index was dropped");
}

/* Nearly as many rows on either side of a decade's border, with noise; then ten times as many. */
static void
test_noise(void)
{
	PgtForecastModel model = {{0}};

	pgt_forecast_note_full(&model, 1e6, 500);
	for (int i = 0; i < 3; i++)
	{
		pgt_forecast_note_differential(&model, 9800, 20);
		pgt_forecast_note_differential(&model, 10200, 28);
	}
	ok(pgt_forecast_differential(&model, 98000) <= 28 * 98000 / 10200.0 + 1,
	   "ten times as many rows take ten times as long at most");
	is_int(pgt_forecast_choose(&model, 98000, 1e6, 5, 1.5).choice, PGT_FORECAST_DIFFERENTIAL,
		   "noise does not make a choice of full");
}

static int
count_probes(double differential_ms, int refreshes)
{
	PgtForecastModel model = {{0}};
	int probes = 0;

	pgt_forecast_note_full(&model, 1e6, 1000);
	for (int i = 0; i < 5 + refreshes; i++)
	{
		PgtForecastVerdict verdict = pgt_forecast_choose(&model, 5000, 1e6, 5, 1.5);

		probes += verdict.probe && verdict.choice == PGT_FORECAST_FULL;
		if (verdict.choice != PGT_FORECAST_FULL)
			pgt_forecast_note_differential(&model, 5000, differential_ms);
		else
			pgt_forecast_note_full(&model, 1e6, 1000);
	}
	return probes;
}

static void
test_probes_of_full(void)
{
	PgtForecastModel model = {{0}};

	is_int(count_probes(900, 28), 0,
		   "differential refreshes nearly as slow as full: no test at first");
	is_int(count_probes(900, 40), 1, "but one among 40");
	is_int(count_probes(500, 500), 0, "half as slow: none so soon");
	is_int(count_probes(500, 520), 1, "but later");
	is_int(count_probes(100, 2000), 0, "a tenth: never");
	for (int i = 0; i < 20; i++)
		pgt_forecast_note_full(&model, 1e6, i % 2 == 0 ? 800 : 1200);
	ok(pgt_forecast_full(&model, 1e6) > 900 && pgt_forecast_full(&model, 1e6) < 1100,
	   "noise of full refreshes is smoothed");
	pgt_forecast_note_full(&model, 1e6, 100);
	ok(pgt_forecast_full(&model, 1e6) == 100, "but a new world is seen at once");
}

static void
test_limits(void)
{
	const World world = {2, 0.001, 1000, 1e6};
	PgtForecastModel model = new_model(&world);
	Result result = {0};

	for (int i = 0; i < 5; i++)
		refresh(&model, &world, 50, &result);
	ok(pgt_forecast_choose(&model, 50, 1e6, 5, 1.5).limit_ms == 0, "small and cheap: no limit");
	ok(pgt_forecast_choose(&model, 5000, 1e6, 5, 1.5).limit_ms > 0, "never seen: a limit");
	pgt_forecast_note_abandoned(&model, 5000, 1000);
	is_int(pgt_forecast_choose(&model, 5000, 1e6, 5, 1.5).choice, PGT_FORECAST_FULL,
		   "given up once: not tried again");
	is_int(pgt_forecast_choose(&model, 50, 1e6, 5, 1.5).choice, PGT_FORECAST_DIFFERENTIAL,
		   "but small ones are");
}

int
main(void)
{
	test_cold_start();
	test_traces();
	test_noise();
	test_probes_of_full();
	test_limits();
	return test_done();
}
