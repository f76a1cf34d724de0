/*
 * sla_record.c: the share of the time in which an SLA was met, over an hour and a day.
 *
 * link: worker/policy/sla_record.c
 */
#include <stdint.h>

#include "pgt_sla.h"
#include "pgt_test.h"

#define SECOND INT64_C(1000000)
#define HOUR (3600 * SECOND)
#define NOW (INT64_C(848620800) * SECOND) /* a full hour in 2026 */
#define SLA (30 * SECOND)

static bool
near(double got, double want)
{
	if (got > want - 1e-6 && got < want + 1e-6)
		return true;
	printf("# got %.9f, expected %.9f\n", got, want);
	return false;
}

static bool
about(int64_t got, int64_t want)
{
	if (got > want * 8 / 10 && got < want * 12 / 10)
		return true;
	printf("# got %lld, expected about %lld\n", (long long) got, (long long) want);
	return false;
}

static void
test_attainment(void)
{
	PgtSlaRecord record = {{0}};
	PgtSlaAttainment got = pgt_sla_record_read(&record, NOW);

	ok(got.hour < 0 && got.day < 0 && got.p50 == -1, "no record: nothing is known");
	pgt_sla_record_advance(&record, NOW);
	got = pgt_sla_record_read(&record, NOW);
	ok(got.hour < 0, "it began just now: nothing is known");
	got = pgt_sla_record_read(&record, NOW + 100 * SECOND);
	ok(near(got.hour, 1) && near(got.day, 1), "nothing pending: met");
	pgt_sla_record_refresh(&record, NOW + 200 * SECOND, NOW + 175 * SECOND, SLA);
	ok(near(pgt_sla_record_read(&record, NOW + 200 * SECOND).hour, 1), "in time");
	pgt_sla_record_refresh(&record, NOW + 400 * SECOND, NOW + 330 * SECOND, SLA);
	got = pgt_sla_record_read(&record, NOW + 400 * SECOND);
	ok(near(got.hour, 0.9) && near(got.day, 0.9), "40 s late in 400 s");
	is_int(got.refreshes, 2, "two refreshes");
	is_int(got.breaches, 1, "one of them late");
	/* Its oldest change came while the one before was late already. */
	pgt_sla_record_refresh(&record, NOW + 440 * SECOND, NOW + 360 * SECOND, SLA);
	ok(near(pgt_sla_record_read(&record, NOW + 440 * SECOND).hour, 1 - 80.0 / 440),
	   "no second is late twice");
	pgt_sla_record_wait(&record, NOW + 500 * SECOND, NOW + 450 * SECOND, SLA);
	pgt_sla_record_wait(&record, NOW + 500 * SECOND, NOW + 450 * SECOND, SLA);
	pgt_sla_record_refresh(&record, NOW + 500 * SECOND, NOW + 450 * SECOND, SLA);
	ok(near(pgt_sla_record_read(&record, NOW + 500 * SECOND).hour, 1 - 100.0 / 500),
	   "waiting counts, once");
	got = pgt_sla_record_read(&record, NOW + 500 * SECOND);
	is_int(got.refreshes, 4, "and is no refresh");
	pgt_sla_record_refresh(&record, NOW + 501 * SECOND, 0, SLA);
	is_int(pgt_sla_record_read(&record, NOW + 501 * SECOND).refreshes, 4,
		   "nor is one that took nothing over");
}

static void
test_time(void)
{
	PgtSlaRecord record = {{0}};
	PgtSlaAttainment got;

	pgt_sla_record_advance(&record, NOW - 30 * HOUR);
	/* Late for five minutes, across minutes and an hour. */
	pgt_sla_record_refresh(&record, NOW + 150 * SECOND, NOW - 150 * SECOND - SLA, SLA);
	got = pgt_sla_record_read(&record, NOW + 150 * SECOND);
	ok(near(got.hour, 1 - 300.0 / (59 * 60 + 30)), "an hour: 59 minutes and the one that runs");
	ok(near(got.day, 1 - 300.0 / (23 * 3600 + 150)), "a day: 23 hours and the one that runs");
	got = pgt_sla_record_read(&record, NOW + HOUR - SECOND);
	ok(near(got.hour, 1 - 150.0 / (60 * 60 - 1)), "the older half is forgotten after an hour");
	ok(near(got.day, 1 - 300.0 / (24 * 3600 - 1)), "not after a day");
	got = pgt_sla_record_read(&record, NOW + 23 * HOUR + SECOND);
	ok(near(got.day, 1 - 150.0 / (23 * 3600 + 1)), "then that, too, by hours");
	ok(near(pgt_sla_record_read(&record, NOW + 23 * HOUR).hour, 1), "a gap of a day in time");
	is_int(got.breaches, 1, "a breach of this day");
	got = pgt_sla_record_read(&record, NOW + 24 * HOUR);
	is_int(got.breaches, 0, "is none of the next");
	is_int((int) got.p50, -1, "and its staleness is forgotten");
	got = pgt_sla_record_read(&record, NOW + 10000 * HOUR);
	ok(near(got.hour, 1) && near(got.day, 1), "a gap of a year");

	/* The clock goes back by two hours: what was noted keeps its age. */
	got = pgt_sla_record_read(&record, NOW + 150 * SECOND - 2 * HOUR);
	ok(got.hour < 0.93 && got.hour > 0.9, "the clock was put back: the hour is still known");
	pgt_sla_record_refresh(&record, NOW - 2 * HOUR, NOW - 2 * HOUR - SECOND, SLA);
	pgt_sla_record_refresh(&record, NOW - 2 * HOUR + 60 * SECOND, NOW + SECOND, SLA);
	got = pgt_sla_record_read(&record, NOW - 2 * HOUR + 60 * SECOND);
	is_int(got.refreshes, 3, "and goes on");
	ok(got.day > 0.99 && got.day < 1, "with what was late before");

	/* A record that begins in the middle of a delay, and one that is late all the time. */
	record = (PgtSlaRecord){{0}};
	pgt_sla_record_refresh(&record, NOW, NOW - HOUR, SLA);
	ok(pgt_sla_record_read(&record, NOW + HOUR / 2).hour < 0.5, "late before it began");
	for (int i = 1; i <= 48 * 6; i++)
		pgt_sla_record_refresh(&record, NOW + i * HOUR / 6, NOW + (i - 1) * HOUR / 6 - SLA, SLA);
	got = pgt_sla_record_read(&record, NOW + 48 * HOUR);
	ok(near(got.hour, 0) && near(got.day, 0), "never in time");
	is_int(got.breaches, got.refreshes, "all are breaches");
	pgt_sla_record_refresh(&record, NOW + 49 * HOUR, NOW, 0);
	ok(pgt_sla_record_read(&record, NOW + 49 * HOUR).hour > 0.9, "no SLA is never missed");
}

static void
test_percentiles(void)
{
	PgtSlaRecord record = {{0}};
	PgtSlaAttainment got;

	for (int i = 1; i <= 1000; i++)
		pgt_sla_record_refresh(&record, NOW + i * SECOND, NOW + i * SECOND - i * SECOND / 100, SLA);
	got = pgt_sla_record_read(&record, NOW + 1000 * SECOND);
	ok(about(got.p50, 5 * SECOND), "p50 within a fifth");
	ok(about(got.p95, 95 * SECOND / 10), "p95");
	ok(about(got.p99, 99 * SECOND / 10), "p99");
	ok(got.p50 < got.p95 && got.p95 < got.p99, "in order");
	for (int i = 0; i < PGT_SLA_RECORD_SIZE; i++)
		record.values[i] = (float) record.values[i];
	ok(pgt_sla_record_read(&record, NOW + 1000 * SECOND).p95 == got.p95, "a real[] keeps it");
	for (int i = 0; i < 100000; i++)
		pgt_sla_record_refresh(&record, NOW + 1000 * SECOND, NOW + 1000 * SECOND - 300, SLA);
	got = pgt_sla_record_read(&record, NOW + 1000 * SECOND);
	ok(got.p50 > 0 && got.p50 <= SECOND / 1000, "less than a millisecond");
	record = (PgtSlaRecord){{0}};
	pgt_sla_record_refresh(&record, NOW, NOW - 86400 * SECOND, SLA);
	ok(pgt_sla_record_read(&record, NOW).p50 > 3 * HOUR, "the last step has no end");
}

int
main(void)
{
	test_attainment();
	test_time();
	test_percentiles();
	return test_done();
}
