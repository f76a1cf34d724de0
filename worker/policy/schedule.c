/*
 * schedule.c: reads schedules and says when they are due.
 *
 * Relies on cron.c and the C library; no memory, no state.
 */
#include "pgt_schedule.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define SECOND INT64_C(1000000)
#define EPOCH_2000 INT64_C(946684800) /* in seconds since 1970 */

/* Largest first: so the canonical text is written. */
static const struct
{
	const char *name;
	int64_t length;
	bool is_written;
} units[] = {
	{"w", 7 * 86400 * SECOND, false},
	{"d", 86400 * SECOND, true},
	{"h", 3600 * SECOND, true},
	{"m", 60 * SECOND, true},
	{"s", SECOND, true},
	{"ms", SECOND / 1000, true},
	{NULL, 0, false},
};

static bool is_duration(const char *text);
static bool read_duration(const char *text, const char *start, int64_t *length,
						  PgtParseError *error);
static bool looks_like_cron(const char *text);
static bool set_interval(int64_t length, PgtSchedule *schedule, PgtParseError *error);
static bool set_cron_text(const char *text, PgtSchedule *schedule, PgtParseError *error);
static int64_t seconds_1970(int64_t time);
static bool fail(PgtParseError *error, int position, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f';
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static size_t
trimmed_length(const char *text)
{
	size_t length = strlen(text);

	while (length > 0 && is_space(text[length - 1]))
		length--;
	return length;
}

PgtScheduleResult
pgt_schedule_parse(const char *text, PgtSchedule *schedule, PgtParseError *error)
{
	const char *start = text;
	int64_t length;
	bool good;

	while (is_space(*start))
		start++;
	if (*start == '\0')
		return fail(error, 1, "the schedule is empty"), PGT_SCHEDULE_WRONG;

	memset(schedule, 0, sizeof(*schedule));
	if (trimmed_length(start) == strlen("calculated") &&
		strncasecmp(start, "calculated", strlen("calculated")) == 0)
	{
		schedule->kind = PGT_SCHEDULE_CALCULATED;
		strcpy(schedule->text, "calculated");
		return PGT_SCHEDULE_PARSED;
	}
	if (looks_like_cron(start))
	{
		schedule->kind = PGT_SCHEDULE_CRON;
		good = pgt_cron_parse(text, &schedule->cron, error) && set_cron_text(text, schedule, error);
		return good ? PGT_SCHEDULE_PARSED : PGT_SCHEDULE_WRONG;
	}
	if (!is_duration(start))
		return PGT_SCHEDULE_ASK_INTERVAL;
	good = read_duration(text, start, &length, error) && set_interval(length, schedule, error);
	return good ? PGT_SCHEDULE_PARSED : PGT_SCHEDULE_WRONG;
}

/* Only numbers and units that we know, the first being a number. */
static bool
is_duration(const char *text)
{
	const char *end = text + trimmed_length(text);

	if (!is_digit(*text))
		return false;
	while (text < end)
	{
		size_t letters = 0;
		bool is_unit = false;

		while (is_digit(*text))
			text++;
		while (is_letter(text[letters]))
			letters++;
		if (text == end)
			return true;
		for (int i = 0; units[i].name != NULL; i++)
		{
			if (strlen(units[i].name) == letters && strncasecmp(units[i].name, text, letters) == 0)
				is_unit = true;
		}
		text += letters;
		if (!is_unit || (text < end && !is_digit(*text)))
			return false;
	}
	return true;
}

/* Of a text that is_duration. A number alone is seconds. */
static bool
read_duration(const char *text, const char *start, int64_t *length, PgtParseError *error)
{
	const char *end = start + trimmed_length(start);
	const char *at = start;

	*length = 0;
	while (at < end)
	{
		const char *number_start = at;
		int64_t number = 0;
		int64_t unit = 0;

		for (; is_digit(*at); at++)
		{
			if (number < PGT_SCHEDULE_MOST)
				number = number * 10 + (*at - '0');
		}
		if (at == end && number_start > start)
			return fail(error, (int) (number_start - text) + 1,
						"the last number has no unit (ms, s, m, h, d, w)");
		if (at == end)
			unit = SECOND;
		for (int i = 0; unit == 0; i++)
		{
			size_t letters = strlen(units[i].name);

			if (strncasecmp(units[i].name, at, letters) == 0 && !is_letter(at[letters]))
			{
				unit = units[i].length;
				at += letters;
			}
		}
		if (number > PGT_SCHEDULE_MOST / unit || (*length += number * unit) > PGT_SCHEDULE_MOST)
			return fail(error, (int) (number_start - text) + 1,
						"the schedule is longer than ten years");
	}
	return true;
}

/*
 * Something of PostgreSQL's interval, such as '1 day 2:00', is no cron: there the
 * second word is a unit, here it is the minutes or hours. '@ 5 minutes' is an
 * interval, too.
 */
static bool
looks_like_cron(const char *text)
{
	int words = 0;
	bool second_is_cron = false;

	if (strchr(text, '*') != NULL || (*text == '@' && !is_space(text[1])))
		return true;
	for (const char *c = text; *c != '\0'; c++)
	{
		if (is_space(*c) || (c > text && !is_space(c[-1])))
			continue;
		words++;
		if (words == 2)
			second_is_cron = is_digit(*c) && c[strcspn(c, " \t:")] != ':';
	}
	return words >= 5 && second_is_cron;
}

bool
pgt_schedule_from_interval(int months, int days, int64_t microseconds, PgtSchedule *schedule,
						   PgtParseError *error)
{
	const int64_t day = 86400 * SECOND;

	memset(schedule, 0, sizeof(*schedule));
	if (months != 0)
		return fail(error, 1,
					"months and years have no fixed length; use days, or cron as in '@monthly'");
	if (days > PGT_SCHEDULE_MOST / day || microseconds > PGT_SCHEDULE_MOST)
		return fail(error, 1, "the schedule is longer than ten years");
	if (days < -PGT_SCHEDULE_MOST / day || microseconds < -PGT_SCHEDULE_MOST)
		return fail(error, 1, "the schedule is negative");
	return set_interval(days * day + microseconds, schedule, error);
}

/* Checks the length and writes it as text; below a millisecond is rounded. */
static bool
set_interval(int64_t length, PgtSchedule *schedule, PgtParseError *error)
{
	size_t written = 0;

	length = (length + (length > 0 ? 500 : -500)) / 1000 * 1000;
	if (length < 0)
		return fail(error, 1, "the schedule is negative");
	if (length < PGT_SCHEDULE_LEAST)
		return fail(
			error, 1,
			"the schedule is shorter than %dms; with 'calculated' every change is taken over at once",
			(int) (PGT_SCHEDULE_LEAST / 1000));
	if (length > PGT_SCHEDULE_MOST)
		return fail(error, 1, "the schedule is longer than ten years");

	schedule->kind = PGT_SCHEDULE_INTERVAL;
	schedule->interval = length;
	for (int i = 0; units[i].name != NULL; i++)
	{
		int64_t count = length / units[i].length;

		if (!units[i].is_written || count == 0)
			continue;
		written += snprintf(schedule->text + written, sizeof(schedule->text) - written,
							"%" PRId64 "%s", count, units[i].name);
		length -= count * units[i].length;
	}
	return true;
}

/* Lower case, one space between fields. */
static bool
set_cron_text(const char *text, PgtSchedule *schedule, PgtParseError *error)
{
	size_t length = 0;

	for (const char *c = text; *c != '\0'; c++)
	{
		if (is_space(*c) && (c == text || is_space(c[-1])))
			continue;
		if (length == sizeof(schedule->text) - 1)
			return fail(error, (int) (c - text) + 1, "the schedule has more than %d characters",
						(int) sizeof(schedule->text) - 1);
		if (is_space(*c))
			schedule->text[length++] = ' ';
		else
			schedule->text[length++] = (*c >= 'A' && *c <= 'Z') ? *c - 'A' + 'a' : *c;
	}
	if (schedule->text[0] == ' ')
		memmove(schedule->text, schedule->text + 1, length--);
	if (length > 0 && schedule->text[length - 1] == ' ')
		length--;
	schedule->text[length] = '\0';
	return true;
}

int64_t
pgt_schedule_next_due(const PgtSchedule *schedule, int64_t last_start, int64_t now,
					  PgtCronOffset offset, void *arg)
{
	int64_t next;

	if (last_start == PGT_SCHEDULE_NO_TIME || last_start > now)
		return now;
	switch (schedule->kind)
	{
		case PGT_SCHEDULE_CALCULATED:
			return now;
		case PGT_SCHEDULE_INTERVAL:
			return last_start + schedule->interval;
		case PGT_SCHEDULE_CRON:
			if (!pgt_cron_next(&schedule->cron, seconds_1970(last_start), offset, arg, &next))
				return PGT_SCHEDULE_NEVER;
			return (next - EPOCH_2000) * SECOND;
	}
	return PGT_SCHEDULE_NEVER;
}

int64_t
pgt_schedule_length(const PgtSchedule *schedule, int64_t now, PgtCronOffset offset, void *arg)
{
	int64_t first;
	int64_t second;

	if (schedule->kind == PGT_SCHEDULE_INTERVAL)
		return schedule->interval;
	if (schedule->kind == PGT_SCHEDULE_CALCULATED)
		return 0;
	if (!pgt_cron_next(&schedule->cron, seconds_1970(now), offset, arg, &first) ||
		!pgt_cron_next(&schedule->cron, first, offset, arg, &second))
		return PGT_SCHEDULE_NEVER;
	return (second - first) * SECOND;
}

/* Rounds down. */
static int64_t
seconds_1970(int64_t time)
{
	int64_t fraction = ((time % SECOND) + SECOND) % SECOND;

	return (time - fraction) / SECOND + EPOCH_2000;
}

static bool
fail(PgtParseError *error, int position, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error->message, sizeof(error->message), format, args);
	va_end(args);
	error->position = position;
	return false;
}
