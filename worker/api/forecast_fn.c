/*
 * forecast_fn.c: what AUTO would choose now, in SQL. Behind pgtrickle.df_threshold_advice.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "pgt_forecast.h"
#include "pgt_frontier.h"
#include "pgt_guc.h"

PG_FUNCTION_INFO_V1(pgt_forecast_fn);

/*
 * forecast(cost_model real[], pending_rows bigint, source_rows double precision)
 * -> (forecast_ms, forecast_full_ms double precision, choice text), each NULL if not known.
 */
PGDLLEXPORT Datum
pgt_forecast_fn(PG_FUNCTION_ARGS)
{
	PgtForecastModel model = {{0}};
	double rows = PG_ARGISNULL(1) ? 0 : (double) PG_GETARG_INT64(1);
	double source_rows = PG_ARGISNULL(2) ? 0 : PG_GETARG_FLOAT8(2);
	PgtForecastVerdict verdict;
	TupleDesc desc;
	Datum values[3];
	bool nulls[3];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!PG_ARGISNULL(0))
		pgt_frontier_read_model(PG_GETARG_DATUM(0), model.values);
	verdict = pgt_forecast_choose(&model, rows, source_rows, pgt_guc_prediction_min_samples,
								  pgt_guc_prediction_ratio);
	values[0] = Float8GetDatum(verdict.differential_ms);
	nulls[0] = verdict.differential_ms < 0;
	values[1] = Float8GetDatum(verdict.full_ms);
	nulls[1] = verdict.full_ms < 0;
	nulls[2] = verdict.choice == PGT_FORECAST_UNKNOWN;
	values[2] = CStringGetTextDatum(
		psprintf("%s%s", verdict.choice == PGT_FORECAST_FULL ? "FULL" : "DIFFERENTIAL",
				 verdict.probe ? " PROBE" : ""));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
