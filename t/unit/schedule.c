/*
 * schedule.c: every form of a schedule, its canonical text, and when it is due.
 *
 * link: worker/policy/schedule.c worker/policy/cron.c worker/policy/cron_next.c
 */
#include "pgt_schedule.h"
#include "pgt_test.h"

#define SECOND INT64_C(1000000)

static int
no_offset(void *arg, int64_t instant)
{
	return 0;
}

static void
test_forms(void)
{
	static const struct
	{
		const char *text;
		PgtScheduleKind kind;
		double seconds;
		const char *canonical;
	} cases[] = {
		{"30s", PGT_SCHEDULE_INTERVAL, 30, "30s"},
		{"1h30m", PGT_SCHEDULE_INTERVAL, 5400, "1h30m"},
		{"90", PGT_SCHEDULE_INTERVAL, 90, "1m30s"},
		{" 90s ", PGT_SCHEDULE_INTERVAL, 90, "1m30s"},
		{"1w2d", PGT_SCHEDULE_INTERVAL, 9 * 86400, "9d"},
		{"24H", PGT_SCHEDULE_INTERVAL, 86400, "1d"},
		{"250ms", PGT_SCHEDULE_INTERVAL, 0.25, "250ms"},
		{"1m500ms", PGT_SCHEDULE_INTERVAL, 60.5, "1m500ms"},
		{"5m5m", PGT_SCHEDULE_INTERVAL, 600, "10m"},
		{"100ms", PGT_SCHEDULE_INTERVAL, 0.1, "100ms"},
		{"3650d", PGT_SCHEDULE_INTERVAL, 3650.0 * 86400, "3650d"},
		{"calculated", PGT_SCHEDULE_CALCULATED, 0, "calculated"},
		{" CALCULATED\t", PGT_SCHEDULE_CALCULATED, 0, "calculated"},
		{"*/5 * * * *", PGT_SCHEDULE_CRON, 300, "*/5 * * * *"},
		{"  0   4 * *   MON ", PGT_SCHEDULE_CRON, 7 * 86400, "0 4 * * mon"},
		{"0 4 1 1 1", PGT_SCHEDULE_CRON, 0, "0 4 1 1 1"},
		{"*/10 * * * * *", PGT_SCHEDULE_CRON, 10, "*/10 * * * * *"},
		{"@Hourly", PGT_SCHEDULE_CRON, 3600, "@hourly"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		PgtSchedule schedule;
		PgtSchedule again;
		PgtParseError error;
		char name[100];

		snprintf(name, sizeof(name), "\"%s\" is a schedule", cases[i].text);
		if (!ok(pgt_schedule_parse(cases[i].text, &schedule, &error) == PGT_SCHEDULE_PARSED, name))
			continue;
		is_int(schedule.kind, cases[i].kind, "its kind");
		is_str(schedule.text, cases[i].canonical, "its canonical text");
		if (cases[i].seconds > 0)
			is_int(pgt_schedule_length(&schedule, 0, no_offset, NULL),
				   (int64_t) (cases[i].seconds * SECOND), "its length");
		ok(pgt_schedule_parse(schedule.text, &again, &error) == PGT_SCHEDULE_PARSED &&
			   memcmp(&schedule, &again, sizeof(schedule)) == 0,
		   "the canonical text means the same");
	}
}

static void
test_intervals(void)
{
	static const char *const asked[] = {"5 minutes",
										"1 hour 30 min",
										"00:05:00",
										"1.5h",
										"P1D",
										"-5",
										"@ 5 minutes",
										"abc",
										"5minutes",
										"1 day 2:00",
										"1 year 2 mons 3 days",
										"1 day 2 hours 3 minutes",
										"+1h",
										"1h 30m",
										"1 2:00:00",
										"calculated!"};
	PgtSchedule schedule;
	PgtParseError error;

	for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++)
		is_int(pgt_schedule_parse(asked[i], &schedule, &error), PGT_SCHEDULE_ASK_INTERVAL,
			   asked[i]);

	ok(pgt_schedule_from_interval(0, 1, 5400 * SECOND, &schedule, &error), "1 day 1:30");
	is_str(schedule.text, "1d1h30m", "its text");
	ok(pgt_schedule_from_interval(0, 0, 1500400, &schedule, &error), "1.5004 s");
	is_str(schedule.text, "1s500ms", "is rounded to milliseconds");
	ok(pgt_schedule_from_interval(0, 1, -3600 * SECOND, &schedule, &error), "1 day - 1 hour");
	is_str(schedule.text, "23h", "is 23 hours");
	ok(!pgt_schedule_from_interval(1, 0, 0, &schedule, &error), "a month is refused");
	is_str(error.message,
		   "months and years have no fixed length; use days, or cron as in '@monthly'", "and why");
	ok(!pgt_schedule_from_interval(0, 0, -5 * SECOND, &schedule, &error), "so is -5 seconds");
	is_str(error.message, "the schedule is negative", "and why");
	ok(!pgt_schedule_from_interval(0, 2000000000, 0, &schedule, &error), "and eternity");
	ok(!pgt_schedule_from_interval(0, -2000000000, 0, &schedule, &error), "in both directions");
	ok(!pgt_schedule_from_interval(0, 0, INT64_MAX, &schedule, &error), "however");
	ok(!pgt_schedule_from_interval(0, 0, INT64_MIN, &schedule, &error), "it is said");
}

static void
test_errors(void)
{
	static const struct
	{
		const char *text;
		int position;
		const char *message;
	} cases[] = {
		{"", 1, "the schedule is empty"},
		{"  ", 1, "the schedule is empty"},
		{"1h30", 3, "the last number has no unit (ms, s, m, h, d, w)"},
		{" 1h30", 4, "the last number has no unit (ms, s, m, h, d, w)"},
		{"0", 1,
		 "the schedule is shorter than 100ms; with 'calculated' every change is taken over at once"},
		{"99ms", 1,
		 "the schedule is shorter than 100ms; with 'calculated' every change is taken over at once"},
		{"99999999999999999999", 1, "the schedule is longer than ten years"},
		{"1d521w1w", 7, "the schedule is longer than ten years"},
		{"*", 1, "a cron schedule has 5 fields, or 6 with leading seconds, not 1"},
		{"0 25 * * *", 3, "the hours field must be 0 to 23"},
		{"  0 25 * * *", 5, "the hours field must be 0 to 23"},
		{"@never", 1, "unknown cron name \"@never\""},
		{"0 0 30 2 *", 1, "this never comes: the day does not occur in these months"},
	};
	char name[100];
	char many[1000] = "";
	PgtSchedule schedule;
	PgtParseError error;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		snprintf(name, sizeof(name), "\"%s\" is wrong", cases[i].text);
		is_int(pgt_schedule_parse(cases[i].text, &schedule, &error), PGT_SCHEDULE_WRONG, name);
		is_str(error.message, cases[i].message, "what is wrong");
		is_int(error.position, cases[i].position, "and where");
	}
	for (int i = 0; i < 150; i++)
		strcat(many, "1,");
	strcat(many, "1 * * * *");
	is_int(pgt_schedule_parse(many, &schedule, &error), PGT_SCHEDULE_WRONG, "a long list");
	is_str(error.message, "the schedule has more than 199 characters", "is too long");
}

static void
test_due(void)
{
	PgtSchedule interval;
	PgtSchedule cron;
	PgtSchedule calculated;
	PgtParseError error;
	const int64_t now = 1000 * 3600 * SECOND + 59; /* 16:00 on some day of 2000 */

	pgt_schedule_parse("30s", &interval, &error);
	pgt_schedule_parse("0 * * * *", &cron, &error);
	pgt_schedule_parse("calculated", &calculated, &error);
	is_int(pgt_schedule_next_due(&interval, now - 5, now, NULL, NULL), now - 5 + 30 * SECOND,
		   "an interval after the last start");
	is_int(pgt_schedule_next_due(&interval, PGT_SCHEDULE_NO_TIME, now, NULL, NULL), now,
		   "never refreshed is due");
	is_int(pgt_schedule_next_due(&interval, now + 1, now, NULL, NULL), now,
		   "so it is when the clock was put back");
	is_int(pgt_schedule_next_due(&cron, now - 59 - 1, now, no_offset, NULL), now - 59,
		   "cron: the first time after the last start");
	is_int(pgt_schedule_next_due(&cron, now, now, no_offset, NULL), now - 59 + 3600 * SECOND,
		   "which is the next one right after a start");
	is_int(pgt_schedule_next_due(&cron, -3600 * SECOND - 1, now, no_offset, NULL), -3600 * SECOND,
		   "before 2000, too");
	is_int(pgt_schedule_next_due(&cron, now + 1, now, no_offset, NULL), now,
		   "cron when the clock was put back");
	is_int(pgt_schedule_next_due(&calculated, now - 5, now, NULL, NULL), now,
		   "calculated is due with every change");
}

int
main(void)
{
	test_forms();
	test_intervals();
	test_errors();
	test_due();
	return test_done();
}
