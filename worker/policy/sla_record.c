/*
 * sla_record.c: was an SLA met? Minutes, hours and a histogram of fixed size.
 *
 * Minutes and hours are kept by age, the current one first, and shifted when time passes: so a
 * clock that is put back moves what was noted with it, and one that is put forward pushes it out.
 * Relies on nothing but the C library; all state is in PgtSlaRecord.
 */
#include "pgt_sla.h"

#include <string.h>

/* Where things are in PgtSlaRecord.values; times as hours and the seconds in the hour. */
enum
{
	SINCE = 0,		   /* the record began */
	LAST = 2,		   /* it was moved on to then */
	MISSED_MINUTE = 4, /* ms in which the SLA was missed */
	MISSED_HOUR = MISSED_MINUTE + PGT_SLA_MINUTES,
	REFRESHES = MISSED_HOUR + PGT_SLA_HOURS, /* by hour */
	BREACHES = REFRESHES + PGT_SLA_HOURS,
	STEPS = BREACHES + PGT_SLA_HOURS /* by quarter of an hour, then by step */
};

#define SECOND INT64_C(1000000)
#define MINUTE (60 * SECOND)
#define QUARTER (15 * MINUTE)
#define HOUR (60 * MINUTE)

#define HALF_OCTAVE 1.4142135623730951

static void
put_time(PgtSlaRecord *record, int at, int64_t time)
{
	int64_t hour = time / HOUR;

	record->values[at] = (double) hour;
	record->values[at + 1] = (double) (time - hour * HOUR) / (double) SECOND;
}

static int64_t
get_time(const PgtSlaRecord *record, int at)
{
	return (int64_t) record->values[at] * HOUR +
		   (int64_t) (record->values[at + 1] * (double) SECOND + 0.5);
}

static bool
has_begun(const PgtSlaRecord *record)
{
	return record->values[SINCE] != 0 || record->values[SINCE + 1] != 0;
}

/* Makes room for so many new ones at the front of count rows. */
static void
shift(double *rows, int count, int row_size, int64_t by)
{
	int moved = by < count ? (int) by : count;

	memmove(rows + moved * row_size, rows, sizeof(double) * (count - moved) * row_size);
	memset(rows, 0, sizeof(double) * moved * row_size);
}

void
pgt_sla_record_advance(PgtSlaRecord *record, int64_t now)
{
	int64_t last = get_time(record, LAST);

	if (!has_begun(record))
		put_time(record, SINCE, now);
	else if (now < last)
		put_time(record, SINCE, get_time(record, SINCE) - (last - now));
	else
	{
		shift(&record->values[MISSED_MINUTE], PGT_SLA_MINUTES, 1, now / MINUTE - last / MINUTE);
		for (int at = MISSED_HOUR; at < STEPS; at += PGT_SLA_HOURS)
			shift(&record->values[at], PGT_SLA_HOURS, 1, now / HOUR - last / HOUR);
		shift(&record->values[STEPS], PGT_SLA_QUARTERS, PGT_SLA_STEPS,
			  now / QUARTER - last / QUARTER);
	}
	put_time(record, LAST, now);
}

/* Notes what lies of from ... to in units of that length, the one of to first. */
static void
note_missed(double *missed, int count, int64_t unit, int64_t from, int64_t to)
{
	int64_t begin = to / unit * unit;

	for (int i = 0; i < count && to > from; i++)
	{
		int64_t start = begin > from ? begin : from;

		missed[i] += (double) (to - start) / 1000;
		if (missed[i] > (double) unit / 1000)
			missed[i] = (double) unit / 1000;
		to = start;
		begin -= unit;
	}
}

/* What is late before LAST was counted when the record was moved there. */
void
pgt_sla_record_wait(PgtSlaRecord *record, int64_t now, int64_t pending_since, int64_t sla)
{
	bool begun = has_begun(record);
	int64_t from = pending_since + sla;
	int64_t counted = get_time(record, LAST);

	pgt_sla_record_advance(record, now);
	if (pending_since == PGT_SLA_NONE || sla <= 0)
		return;
	if (begun && from < counted)
		from = counted;
	note_missed(&record->values[MISSED_MINUTE], PGT_SLA_MINUTES, MINUTE, from, now);
	note_missed(&record->values[MISSED_HOUR], PGT_SLA_HOURS, HOUR, from, now);
}

/* The step that a staleness falls into; the first is up to 1 ms. */
static int
step_of(int64_t staleness)
{
	double bound = 1000;
	int step = 0;

	while (step < PGT_SLA_STEPS - 1 && (double) staleness > bound)
	{
		bound *= HALF_OCTAVE;
		step++;
	}
	return step;
}

void
pgt_sla_record_refresh(PgtSlaRecord *record, int64_t now, int64_t pending_since, int64_t sla)
{
	int64_t staleness = now - pending_since;

	pgt_sla_record_wait(record, now, pending_since, sla);
	if (pending_since == PGT_SLA_NONE)
		return;
	if (staleness < 0)
		staleness = 0;
	record->values[REFRESHES]++;
	if (sla > 0 && staleness > sla)
		record->values[BREACHES]++;
	record->values[STEPS + step_of(staleness)]++;
}

/* Of the time between from and now; the units reach back count whole ones and the current one. */
static double
attained(const double *missed, int count, int64_t unit, int64_t since, int64_t now)
{
	int64_t from = now / unit * unit - (count - 1) * unit;
	double length;
	double late = 0;

	if (from < since)
		from = since;
	length = (double) (now - from) / 1000;
	if (length <= 0)
		return -1;
	for (int i = 0; i < count; i++)
		late += missed[i];
	return late < length ? 1 - late / length : 0;
}

/* Within a step the staleness is taken to be spread evenly. */
static int64_t
percentile(const PgtSlaRecord *record, double fraction)
{
	double counts[PGT_SLA_STEPS] = {0};
	double total = 0;
	double low = 0;
	double high = 1000;

	for (int i = 0; i < PGT_SLA_QUARTERS * PGT_SLA_STEPS; i++)
	{
		counts[i % PGT_SLA_STEPS] += record->values[STEPS + i];
		total += record->values[STEPS + i];
	}
	if (total <= 0)
		return -1;
	total *= fraction;
	for (int step = 0; step < PGT_SLA_STEPS - 1; step++)
	{
		if (counts[step] >= total && counts[step] > 0)
			return (int64_t) (low + (high - low) * total / counts[step] + 0.5);
		total -= counts[step];
		low = high;
		high *= HALF_OCTAVE;
	}
	return (int64_t) low;
}

PgtSlaAttainment
pgt_sla_record_read(const PgtSlaRecord *record, int64_t now)
{
	PgtSlaAttainment attainment = {.hour = -1, .day = -1, .p50 = -1, .p95 = -1, .p99 = -1};
	PgtSlaRecord current = *record;
	int64_t since;

	if (!has_begun(record))
		return attainment;
	pgt_sla_record_advance(&current, now);
	since = get_time(&current, SINCE);
	attainment.hour = attained(&current.values[MISSED_MINUTE], PGT_SLA_MINUTES, MINUTE, since, now);
	attainment.day = attained(&current.values[MISSED_HOUR], PGT_SLA_HOURS, HOUR, since, now);
	for (int i = 0; i < PGT_SLA_HOURS; i++)
	{
		attainment.refreshes += (int) current.values[REFRESHES + i];
		attainment.breaches += (int) current.values[BREACHES + i];
	}
	attainment.p50 = percentile(&current, 0.50);
	attainment.p95 = percentile(&current, 0.95);
	attainment.p99 = percentile(&current, 0.99);
	return attainment;
}
