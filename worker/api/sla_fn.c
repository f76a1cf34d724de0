/*
 * sla_fn.c: functions behind pgtrickle.sla_status and pgtrickle.capacity.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "pgt_sla_state.h"

PG_FUNCTION_INFO_V1(pgt_sla_attainment);
PG_FUNCTION_INFO_V1(pgt_sla_utilisation_fn);

static Datum
interval_of_length(int64 length)
{
	Interval *interval = palloc0(sizeof(Interval));

	interval->time = length;
	return IntervalPGetDatum(interval);
}

Datum
pgt_sla_attainment(PG_FUNCTION_ARGS)
{
	PgtSlaRecord record;
	PgtSlaAttainment attainment;
	TupleDesc desc;
	Datum values[7];
	bool nulls[7];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	pgt_sla_state_read_numbers(PG_GETARG_DATUM(0), record.values, PGT_SLA_RECORD_SIZE);
	attainment = pgt_sla_record_read(&record, PG_GETARG_TIMESTAMPTZ(1));
	nulls[0] = attainment.hour < 0;
	values[0] = Float8GetDatum(attainment.hour);
	nulls[1] = attainment.day < 0;
	values[1] = Float8GetDatum(attainment.day);
	nulls[2] = nulls[3] = false;
	values[2] = Int32GetDatum(attainment.refreshes);
	values[3] = Int32GetDatum(attainment.breaches);
	nulls[4] = nulls[5] = nulls[6] = attainment.p50 < 0;
	values[4] = interval_of_length(attainment.p50);
	values[5] = interval_of_length(attainment.p95);
	values[6] = interval_of_length(attainment.p99);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

Datum
pgt_sla_utilisation_fn(PG_FUNCTION_ARGS)
{
	const Interval *sla = PG_GETARG_INTERVAL_P(0);
	double ms = PG_GETARG_FLOAT8(1);

	if (!(ms >= 0 && ms < 1e12))
		ms = 0;
	PG_RETURN_FLOAT8(
		pgt_sla_utilisation(sla->time + sla->day * USECS_PER_DAY, (int64) (ms * 1000), 0));
}
