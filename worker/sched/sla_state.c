/*
 * sla_state.c: pgtrickle.pgt_slas, what the scheduler knows of each SLA.
 *
 * Written by coordinators only, seldom: when a tier or a breach changes, and
 * else every few seconds. So this goes through SQL.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "pgt_sla_state.h"
#include "pgt_spi.h"

void
pgt_sla_state_read_numbers(Datum datum, double *numbers, int count)
{
	ArrayType *array = DatumGetArrayTypeP(datum);

	memset(numbers, 0, sizeof(double) * count);
	if (ARR_NDIM(array) == 1 && ARR_DIMS(array)[0] == count && !ARR_HASNULL(array) &&
		ARR_ELEMTYPE(array) == FLOAT8OID)
		memcpy(numbers, ARR_DATA_PTR(array), sizeof(double) * count);
}

static Datum
make_array(const double *numbers, int count)
{
	Datum *values = palloc(sizeof(Datum) * count);

	for (int i = 0; i < count; i++)
		values[i] = Float8GetDatum(numbers[i]);
	return PointerGetDatum(construct_array(values, count, FLOAT8OID, sizeof(float8),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static void
read_numbers(const PgtRows *rows, int column, double *numbers, int count)
{
	bool isnull;
	Datum array = pgt_spi_datum(rows, 0, column, &isnull);

	if (!isnull)
		pgt_sla_state_read_numbers(array, numbers, count);
}

static TimestampTz
read_time(const PgtRows *rows, int column)
{
	bool isnull;
	Datum value = pgt_spi_datum(rows, 0, column, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(value);
}

bool
pgt_sla_state_find(int64 pgt_id, PgtSlaState *state)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(pgt_id)};
	PgtRows *rows = pgt_spi_query("SELECT tier, tier_reason, tier_since, breached, stats, record,"
								  " written_at FROM pgtrickle.pgt_slas WHERE pgt_id = $1",
								  1, types, values, NULL);

	memset(state, 0, sizeof(*state));
	if (rows->nrows == 0)
		return false;
	(void) pgt_tier_parse(pgt_spi_text(rows, 0, 1), &state->tier);
	strlcpy(state->tier_reason, pgt_spi_text(rows, 0, 2), sizeof(state->tier_reason));
	state->tier_since = read_time(rows, 3);
	state->breached = pgt_spi_bool(rows, 0, 4);
	read_numbers(rows, 5, state->stats.values, PGT_SLA_STATS_SIZE);
	read_numbers(rows, 6, state->record.values, PGT_SLA_RECORD_SIZE);
	state->written_at = read_time(rows, 7);
	return true;
}

void
pgt_sla_state_write(int64 pgt_id, const PgtSlaState *state)
{
	Oid types[] = {INT8OID, TEXTOID,		TEXTOID,		TIMESTAMPTZOID,
				   BOOLOID, FLOAT8ARRAYOID, FLOAT8ARRAYOID, TIMESTAMPTZOID};
	Datum values[] = {Int64GetDatum(pgt_id),
					  CStringGetTextDatum(pgt_tier_name(state->tier)),
					  CStringGetTextDatum(state->tier_reason),
					  TimestampTzGetDatum(state->tier_since),
					  BoolGetDatum(state->breached),
					  make_array(state->stats.values, PGT_SLA_STATS_SIZE),
					  make_array(state->record.values, PGT_SLA_RECORD_SIZE),
					  TimestampTzGetDatum(state->written_at)};

	/* Whoever drops the stream table has its definition locked: nobody waits for him, nothing is left. */
	(void) pgt_spi_query(
		"INSERT INTO pgtrickle.pgt_slas (pgt_id, tier, tier_reason, tier_since, breached, stats,"
		" record, written_at) SELECT d.pgt_id, $2, $3, $4, $5, $6, $7, $8 FROM pgtrickle.pgt_definitions d"
		" WHERE d.pgt_id = $1 FOR KEY SHARE SKIP LOCKED"
		" ON CONFLICT (pgt_id) DO UPDATE SET tier = $2, tier_reason = $3, tier_since = $4,"
		" breached = $5, stats = $6, record = $7, written_at = $8",
		8, types, values, NULL);
}
