/*
 * pgt_forecast.h: how long a refresh will take. Module: policy
 *
 * Plain C99 without PostgreSQL. A model is a plain array of numbers, so that the catalog can keep
 * it as one (pgt_frontiers.cost_model). It has, per decade of pending rows, the mean number of
 * rows and the mean time of differential refreshes, and the last time of a full one. A mean per
 * decade rather than one line through all: what a burst costs is not forgotten between many small
 * refreshes, and small and large deltas are computed by different plans.
 */
#ifndef PGT_FORECAST_H
#define PGT_FORECAST_H

#include <stdbool.h>

#define PGT_FORECAST_DECADES 10
#define PGT_FORECAST_SIZE (4 + 3 * PGT_FORECAST_DECADES)

typedef struct PgtForecastModel
{
	double values[PGT_FORECAST_SIZE]; /* all 0: nothing is known */
} PgtForecastModel;

/* A differential refresh of so many pending rows took ms milliseconds. */
extern void pgt_forecast_note_differential(PgtForecastModel *model, double rows, double ms);
/* It was given up after ms milliseconds. */
extern void pgt_forecast_note_abandoned(PgtForecastModel *model, double rows, double ms);
/* A full one took ms; source_rows: of all sources together, 0 if not known. */
extern void pgt_forecast_note_full(PgtForecastModel *model, double source_rows, double ms);

/* Forecasts in ms; below 0: not known. */
extern double pgt_forecast_differential(const PgtForecastModel *model, double rows);
extern double pgt_forecast_full(const PgtForecastModel *model, double source_rows);

typedef enum PgtForecastChoice
{
	PGT_FORECAST_UNKNOWN, /* too little is known for a choice */
	PGT_FORECAST_DIFFERENTIAL,
	PGT_FORECAST_FULL
} PgtForecastChoice;

typedef struct PgtForecastVerdict
{
	PgtForecastChoice choice;
	double differential_ms; /* below 0: not known */
	double full_ms;
	double limit_ms; /* after which a differential refresh is given up; 0: never */
	bool probe;		 /* the other way would be chosen, but is put to the test */
} PgtForecastVerdict;

/*
 * min_samples: differential refreshes before forecasts count, 0: they never do. ratio: FULL is
 * chosen if the differential forecast is more than so many times the full one; where a decade is
 * known well, 1.1 is enough. Every now and then (PGT_FORECAST_PROBE) a choice of FULL is put to
 * the test, within a limit, and so is one of DIFFERENTIAL where FULL is not much slower. Counts
 * the choices in the model.
 */
#define PGT_FORECAST_PROBE 32
extern PgtForecastVerdict pgt_forecast_choose(PgtForecastModel *model, double rows,
											  double source_rows, int min_samples, double ratio);

#endif /* PGT_FORECAST_H */
