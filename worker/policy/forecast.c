/*
 * forecast.c: how long a refresh will take, learned from those before.
 *
 * Relies on nothing but the C library; all state is in the model.
 */
#include "pgt_forecast.h"

/* Where things are in PgtForecastModel.values. */
enum
{
	SAMPLES,   /* differential refreshes so far */
	FULL_MS,   /* 0: none yet */
	FULL_ROWS, /* of the sources then */
	PREDICTED, /* refreshes in a row that were FULL by forecast; below 0: DIFFERENTIAL, nearly not */
	FIRST_DECADE
};

#define ALPHA 0.3		  /* weight of the newest refresh in a mean */
#define NEW_WORLD 3.0	  /* so far off a mean is no noise: an index came, a plan changed */
#define WELL_KNOWN 3	  /* refreshes of a decade */
#define MARGIN 1.1		  /* of FULL, for decades known well */
#define GIVE_UP 3.0		  /* times FULL */
#define SHORT 50.0		  /* ms; refreshes as short as this are not worth a choice */
#define LEAST_LIMIT 250.0 /* ms; the first time, plans are made, too */
#define CHEAP 5.0		  /* ms; decades as cheap as this need no limit */
#define FEW_ROWS 100.0
#define MOST_BETWEEN 512 /* choices of one way between two probes of the other */
#define HYSTERESIS 0.1	 /* of FULL; what was chosen last is kept within it */
#define NEAR 0.67		 /* of FULL; a differential refresh that takes so long is nearly as dear, */
#define NOT_FAR 0.2 /* and one as long as this is not so cheap that FULL need not be seen again */

typedef struct Decade
{
	double count;
	double rows; /* means */
	double ms;
} Decade;

static int
decade_of(double rows)
{
	int decade = 0;

	while (rows >= 10 && decade < PGT_FORECAST_DECADES - 1)
	{
		rows /= 10;
		decade++;
	}
	return decade;
}

static Decade
get_decade(const PgtForecastModel *model, int decade)
{
	const double *values = &model->values[FIRST_DECADE + 3 * decade];

	return (Decade){values[0], values[1], values[2]};
}

static void
set_decade(PgtForecastModel *model, int decade, Decade value)
{
	double *values = &model->values[FIRST_DECADE + 3 * decade];

	values[0] = value.count;
	values[1] = value.rows;
	values[2] = value.ms;
}

static double
larger(double a, double b)
{
	return a > b ? a : b;
}

/* Within a decade: half of the time is taken to be fixed. */
static double
scaled(Decade decade, double rows)
{
	return decade.ms * (1 + rows / decade.rows) / 2;
}

static void
note(PgtForecastModel *model, double rows, double ms)
{
	int number = decade_of(rows);
	Decade decade = get_decade(model, number);
	double expected = decade.count > 0 ? scaled(decade, rows) : 0;

	if (decade.count == 0 ||
		(decade.count >= WELL_KNOWN && (ms > expected * NEW_WORLD || ms * NEW_WORLD < expected)))
		decade = (Decade){0, rows, ms};
	else
	{
		/* A plain mean at first. */
		double weight = larger(ALPHA, 1 / (decade.count + 1));

		decade.rows += weight * (rows - decade.rows);
		decade.ms += weight * (ms - decade.ms);
	}
	decade.count++;
	set_decade(model, number, decade);
}

void
pgt_forecast_note_differential(PgtForecastModel *model, double rows, double ms)
{
	if (rows < 1 || ms <= 0)
		return;
	note(model, rows, ms);
	model->values[SAMPLES]++;
	if (model->values[PREDICTED] > 0)
		model->values[PREDICTED] = 0;
}

/* At least so long, and known well at once: what comes next must not try it again. */
void
pgt_forecast_note_abandoned(PgtForecastModel *model, double rows, double ms)
{
	if (rows < 1 || ms <= 0)
		return;
	set_decade(model, decade_of(rows), (Decade){WELL_KNOWN, rows, 2 * ms});
	model->values[SAMPLES]++;
}

void
pgt_forecast_note_full(PgtForecastModel *model, double source_rows, double ms)
{
	double expected = pgt_forecast_full(model, source_rows);

	if (ms <= 0)
		return;
	if (expected > 0 && ms <= expected * NEW_WORLD && ms * NEW_WORLD >= expected)
		ms = expected + ALPHA * (ms - expected);
	model->values[FULL_MS] = ms;
	model->values[FULL_ROWS] = larger(source_rows, 0);
}

double
pgt_forecast_full(const PgtForecastModel *model, double source_rows)
{
	double ms = model->values[FULL_MS];
	double before = model->values[FULL_ROWS];
	double growth;

	if (ms <= 0)
		return -1;
	if (before <= 0 || source_rows <= 0)
		return ms;
	growth = source_rows / before;
	return ms * (growth < 0.1 ? 0.1 : growth > 10 ? 10 : growth);
}

/*
 * The line through two decades at so many rows; more rows never take less. Beyond
 * both, a row takes no more than rows took so far: means of nearly as many rows
 * differ by noise, which a steep line would make much of.
 */
static double
on_line(Decade a, Decade b, double rows)
{
	double slope = b.rows > a.rows ? larger((b.ms - a.ms) / (b.rows - a.rows), 0) : 0;

	if (rows > b.rows)
		return b.ms + (rows - b.rows) * (slope * b.rows > b.ms ? b.ms / b.rows : slope);
	return larger(a.ms + slope * (rows - a.rows), 0);
}

double
pgt_forecast_differential(const PgtForecastModel *model, double rows)
{
	int own = decade_of(rows);
	Decade decade = get_decade(model, own);
	Decade below = {0};
	Decade further_below = {0};
	Decade above = {0};
	int nearest = -1;

	for (int i = own - 1; i >= 0 && further_below.count == 0; i--)
	{
		Decade other = get_decade(model, i);

		if (other.count == 0)
			continue;
		if (below.count == 0)
		{
			below = other;
			nearest = i;
		}
		else
			further_below = other;
	}
	for (int i = own + 1; i < PGT_FORECAST_DECADES && above.count == 0; i++)
		above = get_decade(model, i);
	if (decade.count > 0)
		return below.count > 0 && rows > decade.rows ? on_line(below, decade, rows)
													 : scaled(decade, rows);
	if (below.count > 0 && above.count > 0)
		return on_line(below, above, rows);
	/* Beyond what is known, but not far: few rows do not tell what very many would take. */
	if (further_below.count > 0 && own - nearest == 1)
		return on_line(further_below, below, rows);
	/* In favour of trying: the fixed part of the time is not known. */
	if (below.count == 0 && above.count > 0)
		return above.ms * rows / above.rows;
	return -1;
}

static double
limit_of(const PgtForecastModel *model, double rows, double full_ms, bool probe)
{
	Decade own = get_decade(model, decade_of(rows));

	if (!probe && own.count >= WELL_KNOWN && rows <= FEW_ROWS && own.ms <= CHEAP)
		return 0;
	return larger(full_ms * (own.count > 0 && !probe ? GIVE_UP : 1), LEAST_LIMIT);
}

/* At 32, 64, 128, 256, 512, and every 512 from then on. */
static bool
is_probe(double chosen)
{
	double next = PGT_FORECAST_PROBE;

	if (chosen >= MOST_BETWEEN)
		return (long) chosen % MOST_BETWEEN == 0;
	while (next < chosen)
		next *= 2;
	return chosen == next;
}

/* By both forecasts; counts in a row what was chosen. *probe: it is time to try the other way. */
static PgtForecastChoice
choose(PgtForecastModel *model, const PgtForecastVerdict *verdict, double ratio, bool *probe)
{
	double *chosen = &model->values[PREDICTED];
	double relative = verdict->differential_ms / verdict->full_ms;

	*probe = false;
	if (verdict->differential_ms > SHORT &&
		relative > (*chosen > 0 ? larger(ratio - HYSTERESIS, 1) : ratio))
	{
		*chosen = larger(*chosen, 0) + 1;
		*probe = is_probe(*chosen);
		return *probe ? PGT_FORECAST_DIFFERENTIAL : PGT_FORECAST_FULL;
	}
	if (verdict->differential_ms > SHORT && relative > NOT_FAR)
	{
		*chosen = -larger(-*chosen, 0) - 1;
		*probe = is_probe(-*chosen) && (relative > NEAR || -*chosen >= MOST_BETWEEN);
		return *probe ? PGT_FORECAST_FULL : PGT_FORECAST_DIFFERENTIAL;
	}
	*chosen = 0;
	return PGT_FORECAST_DIFFERENTIAL;
}

PgtForecastVerdict
pgt_forecast_choose(PgtForecastModel *model, double rows, double source_rows, int min_samples,
					double ratio)
{
	PgtForecastVerdict verdict = {PGT_FORECAST_UNKNOWN, -1, -1, 0, false};
	bool known_well = get_decade(model, decade_of(rows)).count >= WELL_KNOWN;

	verdict.full_ms = pgt_forecast_full(model, source_rows);
	if (min_samples == 0 || verdict.full_ms < 0)
		return verdict;
	if (model->values[SAMPLES] >= min_samples || known_well)
		verdict.differential_ms = pgt_forecast_differential(model, rows);
	if (verdict.differential_ms >= 0)
		verdict.choice = choose(model, &verdict, known_well ? MARGIN : ratio, &verdict.probe);
	if (verdict.choice != PGT_FORECAST_FULL)
		verdict.limit_ms = limit_of(model, rows, verdict.full_ms, verdict.probe);
	return verdict;
}
