/*
 * cron.c: cron texts, the next time in zones whose clocks jump, and random
 * schedules against stepping from minute to minute.
 *
 * link: worker/policy/cron.c worker/policy/cron_next.c
 */
#include <stdlib.h>
#include <time.h>

#include "pgt_cron.h"
#include "pgt_test.h"

/* A zone whose clock jumps twice: the offset before, between and after. */
typedef struct Zone
{
	int64_t change[2];
	int offset[3];
} Zone;

/* 2024: New York, Lord Howe (half an hour), London (from 0), a day left out as on Samoa. */
static const Zone new_york = {
	{1710054000, 1730613600},
	{-18000, -14400, -18000},
};
static const Zone lord_howe = {
	{1712415600, 1728142200},
	{39600, 37800, 39600},
};
static const Zone london = {
	{1711846800, 1729990800},
	{0, 3600, 0},
};
static const Zone samoa = {
	{1325239200, 1333202400},
	{-36000, 50400, 46800},
};
static const Zone utc = {
	{1710054000, 1730613600},
	{0, 0, 0},
};

static int
offset_of(void *arg, int64_t instant)
{
	const Zone *zone = arg;

	if (instant < zone->change[0])
		return zone->offset[0];
	return zone->offset[instant < zone->change[1] ? 1 : 2];
}

static int64_t
instant(int year, int month, int day, int hour, int minute, int second)
{
	struct tm tm = {.tm_year = year - 1900,
					.tm_mon = month - 1,
					.tm_mday = day,
					.tm_hour = hour,
					.tm_min = minute,
					.tm_sec = second};

	return timegm(&tm);
}

/* The next time as the clock of the zone shows it, and its offset in minutes. */
static const char *
next_text(const char *text, const Zone *zone, int64_t after)
{
	static char buffer[64];
	static PgtParseError error;
	PgtCron cron;
	int64_t next;
	time_t wall;
	struct tm tm;
	size_t length;

	if (!pgt_cron_parse(text, &cron, &error))
		return error.message;
	if (!pgt_cron_next(&cron, after, offset_of, (void *) zone, &next))
		return "never";
	wall = next + offset_of((void *) zone, next);
	gmtime_r(&wall, &tm);
	length = strftime(buffer, sizeof(buffer), "%Y-%m-%d %H:%M:%S", &tm);
	snprintf(buffer + length, sizeof(buffer) - length, " %+d", offset_of((void *) zone, next) / 60);
	return buffer;
}

static void
test_next(void)
{
	static const struct
	{
		const char *text;
		const char *next; /* after 2024-01-31 10:20:30, a Wednesday, in UTC */
	} cases[] = {
		{"* * * * *", "2024-01-31 10:21:00 +0"},
		{"* * * * * *", "2024-01-31 10:20:31 +0"},
		{"*/7 * * * * *", "2024-01-31 10:20:35 +0"},
		{"30 20 10 31 1 *", "2025-01-31 10:20:30 +0"},
		{"*/15 * * * *", "2024-01-31 10:30:00 +0"},
		{"5,50-55/2 * * * *", "2024-01-31 10:50:00 +0"},
		{"20/25 * * * *", "2024-01-31 10:45:00 +0"},
		{"0 0 * * *", "2024-02-01 00:00:00 +0"},
		{"15 14 1 * *", "2024-02-01 14:15:00 +0"},
		{"0 22 * * 1-5", "2024-01-31 22:00:00 +0"},
		{"0 4 * * sun", "2024-02-04 04:00:00 +0"},
		{"0 4 * * 7", "2024-02-04 04:00:00 +0"},
		{"0 4 * * Fri-Sun", "2024-02-02 04:00:00 +0"},
		{"0 4 * * 6-7", "2024-02-03 04:00:00 +0"},
		{"0 0 29 2 *", "2024-02-29 00:00:00 +0"},
		{"0 0 31 * *", "2024-03-31 00:00:00 +0"},
		{"0 0 30 feb,APR *", "2024-04-30 00:00:00 +0"},
		{"0 0 13 * 5", "2024-02-02 00:00:00 +0"},	/* either: Friday, or the 13th */
		{"0 0 */13 * 5", "2024-03-01 00:00:00 +0"}, /* both: Friday, and the 1st, 14th or 27th */
		{"0 0 13 * *", "2024-02-13 00:00:00 +0"},
		{"@hourly", "2024-01-31 11:00:00 +0"},
		{"@daily", "2024-02-01 00:00:00 +0"},
		{" @Midnight ", "2024-02-01 00:00:00 +0"},
		{"@weekly", "2024-02-04 00:00:00 +0"},
		{"@monthly", "2024-02-01 00:00:00 +0"},
		{"@yearly", "2025-01-01 00:00:00 +0"},
		{"@annually", "2025-01-01 00:00:00 +0"},
		{"\t0  0 1\t1 * ", "2025-01-01 00:00:00 +0"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		is_str(next_text(cases[i].text, &utc, instant(2024, 1, 31, 10, 20, 30)), cases[i].next,
			   cases[i].text);
	is_str(next_text("0 0 29 2 *", &utc, instant(2096, 3, 1, 0, 0, 0)), "2104-02-29 00:00:00 +0",
		   "a leap day is eight years away once in a century");
	is_str(next_text("0 0 */28 2 1", &utc, instant(2088, 3, 1, 0, 0, 0)), "2094-02-01 00:00:00 +0",
		   "the 1st or 29th of February, if a Monday");
	is_str(next_text("0 0 1 1 *", &utc, -1000000000), "1939-01-01 00:00:00 +0", "before 1970");
}

static void
test_zones(void)
{
	/* New York left out 2:00 to 3:00 on March 10th, repeated 1:00 to 2:00 on November 3rd. */
	const int64_t before_gap = instant(2024, 3, 10, 6, 0, 0); /* 1:00 EST */
	const int64_t first_pass = instant(2024, 11, 3, 5, 0, 0); /* 1:00 EDT */

	is_str(next_text("30 2 * * *", &new_york, before_gap), "2024-03-10 03:00:00 -240",
		   "a time of day that is left out comes when the clock jumps");
	is_str(next_text("30 2 * * *", &new_york, before_gap + 3600), "2024-03-11 02:30:00 -240",
		   "once");
	is_str(next_text("0 3 * * *", &new_york, before_gap), "2024-03-10 03:00:00 -240",
		   "one just behind the jump comes on time");
	is_str(next_text("*/30 * * * *", &new_york, before_gap + 1800), "2024-03-10 03:00:00 -240",
		   "every half hour goes on at the jump");
	is_str(next_text("*/30 2 * * *", &new_york, before_gap), "2024-03-11 02:00:00 -240",
		   "every half hour of what is left out is left out");

	is_str(next_text("30 1 * * *", &new_york, first_pass), "2024-11-03 01:30:00 -240",
		   "a repeated time of day comes the first time");
	is_str(next_text("30 1 * * *", &new_york, first_pass + 1800), "2024-11-04 01:30:00 -300",
		   "and not the second");
	is_str(next_text("30 1 * * *", &new_york, first_pass + 3600), "2024-11-04 01:30:00 -300",
		   "nor if asked between the two");
	is_str(next_text("*/30 * * * *", &new_york, first_pass + 1800), "2024-11-03 01:00:00 -300",
		   "every half hour comes again in the repeated hour");
	is_str(next_text("*/30 * * * *", &new_york, first_pass + 3600), "2024-11-03 01:30:00 -300",
		   "both times");
	is_str(next_text("@hourly", &new_york, first_pass), "2024-11-03 01:00:00 -300",
		   "so does every hour");

	is_str(next_text("45 1 * * *", &lord_howe, instant(2024, 4, 6, 14, 40, 0)),
		   "2024-04-07 01:45:00 +660", "half an hour back: the first time");
	is_str(next_text("45 1 * * *", &lord_howe, instant(2024, 4, 6, 14, 45, 0)),
		   "2024-04-08 01:45:00 +630", "and no second time");
	is_str(next_text("15 2 * * *", &lord_howe, instant(2024, 10, 5, 14, 0, 0)),
		   "2024-10-06 02:30:00 +660", "half an hour forwards: at the jump");
	is_str(next_text("0 12 30 12 *", &samoa, instant(2011, 12, 30, 9, 0, 0)),
		   "2011-12-31 00:00:00 +840", "a day left out: at the jump");
	is_str(next_text("0 0 1 1 *", &london, instant(2024, 1, 1, 0, 0, 0)), "2025-01-01 00:00:00 +0",
		   "over two changes");
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
		{"", 1, "a cron schedule has 5 fields, or 6 with leading seconds, not 0"},
		{"* * * *", 1, "a cron schedule has 5 fields, or 6 with leading seconds, not 4"},
		{"* * * * * * *", 1, "a cron schedule has 5 fields, or 6 with leading seconds, not 7"},
		{"60 * * * *", 1, "the minutes field must be 0 to 59"},
		{"60 * * * * *", 1, "the seconds field must be 0 to 59"},
		{"* 24 * * *", 3, "the hours field must be 0 to 23"},
		{"* * 0 * *", 5, "the day of month field must be 1 to 31"},
		{"* * * 13 *", 7, "the month field must be 1 to 12"},
		{"* * * * 8", 9, "the day of week field must be 0 to 7"},
		{"* * * * 99999999999999999999", 9, "the day of week field must be 0 to 7"},
		{"*/0 * * * *", 3, "the step in the minutes field must be 1 to 59"},
		{"*/60 * * * *", 3, "the step in the minutes field must be 1 to 59"},
		{"*/ * * * *", 3, "a value is missing in the minutes field"},
		{"1, * * * *", 3, "a value is missing in the minutes field"},
		{"1,,2 * * * *", 3, "a value is missing in the minutes field"},
		{"1- * * * *", 3, "a value is missing in the minutes field"},
		{"5-2 * * * *", 1, "the range in the minutes field runs backwards"},
		{"1-2-3 * * * *", 4, "unexpected character \"-\" in the minutes field"},
		{"* * L * *", 5, "unexpected character \"L\" in the day of month field"},
		{"* * ? * *", 5, "unexpected character \"?\" in the day of month field"},
		{"** * * * *", 2, "unexpected character \"*\" in the minutes field"},
		{"-1 * * * *", 1, "unexpected character \"-\" in the minutes field"},
		{"* * * foo *", 7, "unknown name \"foo\" in the month field"},
		{"* * * january *", 7, "unknown name \"january\" in the month field"},
		{"* mon * * *", 3, "unexpected character \"m\" in the hours field"},
		{"\xc3\xa4 * * * *", 1, "unexpected character \"?\" in the minutes field"},
		{"0 0 30 2 *", 1, "this never comes: the day does not occur in these months"},
		{"0 0 31 2,4,6,9,11 *", 1, "this never comes: the day does not occur in these months"},
		{"@reboot", 1, "unknown cron name \"@reboot\""},
		{"@hourly 5", 9, "nothing may follow \"@hourly\""},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		PgtCron cron;
		PgtParseError error = {"accepted", 0};

		pgt_cron_parse(cases[i].text, &cron, &error);
		is_str(error.message, cases[i].message, cases[i].text);
		is_int(error.position, cases[i].position, "its position");
	}
}

/* By the definition, with the C library's calendar. */
static bool
wall_matches(const PgtCron *cron, int64_t wall)
{
	time_t time = wall;
	struct tm tm;
	bool by_date;
	bool by_weekday;

	gmtime_r(&time, &tm);
	by_date = cron->days >> tm.tm_mday & 1;
	by_weekday = cron->weekdays >> tm.tm_wday & 1;
	return (cron->seconds >> tm.tm_sec & 1) && (cron->minutes >> tm.tm_min & 1) &&
		   (cron->hours >> tm.tm_hour & 1) && (cron->months >> (tm.tm_mon + 1) & 1) &&
		   (cron->either_day ? by_date || by_weekday : by_date && by_weekday);
}

static bool
instant_matches(const PgtCron *cron, const Zone *zone, int64_t at)
{
	int offset = offset_of((void *) zone, at);
	int jump = offset - offset_of((void *) zone, at - 60);

	if (cron->follows_clock)
		return wall_matches(cron, at + offset);
	/* All that is left out falls on the jump. */
	for (int left_out = 60; left_out <= jump; left_out += 60)
	{
		if (wall_matches(cron, at + offset - left_out))
			return true;
	}
	/* Shown before? */
	for (int i = 0; i < 2; i++)
	{
		int repeated = zone->offset[i] - zone->offset[i + 1];

		if (repeated > 0 && at >= zone->change[i] && at < zone->change[i] + repeated)
			return false;
	}
	return wall_matches(cron, at + offset);
}

static void
random_field(char *text, size_t size, int min, int max)
{
	int low = min + random() % (max - min + 1);
	int high = low + random() % (max - low + 1);

	switch (random() % 7)
	{
		case 0:
			snprintf(text, size, "%d", low);
			break;
		case 1:
			snprintf(text, size, "%d-%d", low, high);
			break;
		case 2:
			snprintf(text, size, "*/%ld", 1 + random() % (max > 7 ? max / 2 : 3));
			break;
		case 3:
			snprintf(text, size, "%d,%d", high, low);
			break;
		case 4:
			snprintf(text, size, "%d-%d/%ld,%d", low, high, 1 + random() % 4, min);
			break;
		default:
			snprintf(text, size, "*");
			break;
	}
}

static void
test_random(void)
{
	const Zone *zones[] = {&utc, &new_york, &lord_howe, &london, &samoa};
	int compared = 0;
	int wrong = 0;

	srandom(7);
	for (int round = 0; round < 3000; round++)
	{
		const Zone *zone = zones[round % 5];
		/* Half of them near a change of the clock. */
		int64_t near = zone->change[random() % 2] - 86400 + random() % (2 * 86400);
		int64_t after = round % 2 ? near : instant(2024, 1, 1, 0, 0, 0) + random() % 31536000;
		char field[5][40];
		char text[250];
		PgtCron cron;
		PgtParseError error;
		int64_t next;
		int64_t step = after - after % 60 + 60;
		int64_t limit = after + 60 * 86400;

		random_field(field[0], sizeof(field[0]), 0, 59);
		random_field(field[1], sizeof(field[1]), 0, 23);
		random_field(field[2], sizeof(field[2]), 1, 31);
		random_field(field[3], sizeof(field[3]), 1, 12);
		random_field(field[4], sizeof(field[4]), 0, 7);
		snprintf(text, sizeof(text), "%s %s %s %s %s", field[0], field[1], field[2],
				 random() % 3 ? "*" : field[3], random() % 2 ? "*" : field[4]);
		if (!pgt_cron_parse(text, &cron, &error))
		{
			if (strstr(error.message, "never comes") == NULL)
				wrong++;
			continue;
		}
		if (!pgt_cron_next(&cron, after, offset_of, (void *) zone, &next))
		{
			printf("# %s never comes\n", text);
			wrong++;
			continue;
		}
		while (step < limit && !instant_matches(&cron, zone, step))
			step += 60;
		if (step < limit ? next != step : next < limit)
		{
			printf("# zone %d: \"%s\" after %lld: %lld, by stepping %lld\n", round % 5, text,
				   (long long) after, (long long) next, (long long) step);
			wrong++;
		}
		compared++;
	}
	is_int(wrong, 0, "random schedules: the next time is what stepping finds");
	ok(compared > 2500, "of which nearly all could be compared");
}

int
main(void)
{
	test_next();
	test_zones();
	test_errors();
	test_random();
	return test_done();
}
