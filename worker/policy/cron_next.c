/*
 * cron_next.c: when a cron schedule comes next.
 *
 * Relies on nothing but the C library; no memory, no state. Local time is
 * counted in seconds as if it were UTC ("wall"); only here do the two meet.
 */
#include "pgt_cron.h"

#define DAY INT64_C(86400)
#define HORIZON_DAYS (50 * 366)

typedef struct Date
{
	int64_t year;
	int month;
	int day;
} Date;

static bool next_on_wall(const PgtCron *cron, int64_t after, PgtCronOffset offset, void *arg,
						 int64_t *next);
static bool next_time_of_day(const PgtCron *cron, int64_t after, PgtCronOffset offset, void *arg,
							 int64_t *next);
static int64_t instant_of_wall(int64_t wall, PgtCronOffset offset, void *arg);
static int64_t find_change(int64_t before, int64_t behind, PgtCronOffset offset, void *arg);
static bool matches_day(const PgtCron *cron, int64_t day);
static int next_second_of_day(const PgtCron *cron, int from);
static int next_bit(uint64_t bits, int from, int limit);
static Date date_of_day(int64_t day);

/* Division that rounds down, for times before 1970. */
static int64_t
day_of(int64_t second)
{
	return (second - (((second % DAY) + DAY) % DAY)) / DAY;
}

bool
pgt_cron_next(const PgtCron *cron, int64_t after, PgtCronOffset offset, void *arg, int64_t *next)
{
	if (cron->follows_clock)
		return next_on_wall(cron, after, offset, arg, next);
	return next_time_of_day(cron, after, offset, arg, next);
}

/* From one change of the offset to the next, as the clock on the wall shows it. */
static bool
next_on_wall(const PgtCron *cron, int64_t after, PgtCronOffset offset, void *arg, int64_t *next)
{
	int64_t start = after + 1;
	int64_t horizon = start + HORIZON_DAYS * DAY;

	while (start < horizon)
	{
		int ahead = offset(arg, start);
		int64_t wall;

		if (!pgt_cron_next_local(cron, start + ahead - 1, &wall))
			return false;
		if (offset(arg, wall - ahead) == ahead)
		{
			*next = wall - ahead;
			return true;
		}
		start = find_change(start, wall - ahead, offset, arg);
	}
	return false;
}

/* Each time of day once; those that the change of the offset left out, at the change. */
static bool
next_time_of_day(const PgtCron *cron, int64_t after, PgtCronOffset offset, void *arg, int64_t *next)
{
	int64_t wall = after + offset(arg, after);

	while (pgt_cron_next_local(cron, wall, &wall))
	{
		/* In the repeated hour this may be an instant of the first pass: then it is over. */
		*next = instant_of_wall(wall, offset, arg);
		if (*next > after)
			return true;
	}
	return false;
}

/* The first instant at which the clock shows wall; if it never does, when it leaps over it. */
static int64_t
instant_of_wall(int64_t wall, PgtCronOffset offset, void *arg)
{
	int before = offset(arg, wall - DAY);
	int behind = offset(arg, wall + DAY);
	int64_t early = wall - (before > behind ? before : behind);
	int64_t late = wall - (before > behind ? behind : before);

	if (offset(arg, early) == wall - early)
		return early;
	if (offset(arg, late) == wall - late)
		return late;
	return find_change(wall - DAY, wall + DAY, offset, arg);
}

/* The offset differs at the two ends; the first instant of a new one between them. */
static int64_t
find_change(int64_t before, int64_t behind, PgtCronOffset offset, void *arg)
{
	int ahead = offset(arg, before);

	while (behind - before > 1)
	{
		int64_t middle = before + (behind - before) / 2;

		if (offset(arg, middle) == ahead)
			before = middle;
		else
			behind = middle;
	}
	return behind;
}

bool
pgt_cron_next_local(const PgtCron *cron, int64_t after, int64_t *next)
{
	int64_t first = after + 1;
	int64_t day = day_of(first);
	int second = (int) (first - day * DAY);

	for (int i = 0; i <= HORIZON_DAYS; i++, day++, second = 0)
	{
		int found;

		if (!matches_day(cron, day))
			continue;
		found = next_second_of_day(cron, second);
		if (found < 0)
			continue;
		*next = day * DAY + found;
		return true;
	}
	return false;
}

static bool
matches_day(const PgtCron *cron, int64_t day)
{
	Date date = date_of_day(day);
	int weekday = (int) (((day + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
	bool by_date = cron->days >> date.day & 1;
	bool by_weekday = cron->weekdays >> weekday & 1;

	if (!(cron->months >> date.month & 1))
		return false;
	return cron->either_day ? by_date || by_weekday : by_date && by_weekday;
}

/* The first matching second of the day from this one on, -1 if there is none. */
static int
next_second_of_day(const PgtCron *cron, int from)
{
	int first_hour = from / 3600;

	for (int hour = next_bit(cron->hours, first_hour, 24); hour >= 0;
		 hour = next_bit(cron->hours, hour + 1, 24))
	{
		int first_minute = hour == first_hour ? from / 60 % 60 : 0;

		for (int minute = next_bit(cron->minutes, first_minute, 60); minute >= 0;
			 minute = next_bit(cron->minutes, minute + 1, 60))
		{
			bool is_first = hour == first_hour && minute == from / 60 % 60;
			int second = next_bit(cron->seconds, is_first ? from % 60 : 0, 60);

			if (second >= 0)
				return hour * 3600 + minute * 60 + second;
		}
	}
	return -1;
}

static int
next_bit(uint64_t bits, int from, int limit)
{
	for (int i = from; i < limit; i++)
	{
		if (bits >> i & 1)
			return i;
	}
	return -1;
}

/* Civil date of a day since 1970-01-01, in eras of 400 years that begin in March. */
static Date
date_of_day(int64_t day)
{
	int64_t shifted = day + 719468;
	int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
	int of_era = (int) (shifted - era * 146097);
	int year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	int of_year = of_era - (365 * year + year / 4 - year / 100);
	int month = (5 * of_year + 2) / 153; /* 0 is March */
	Date date;

	date.day = of_year - (153 * month + 2) / 5 + 1;
	date.month = month < 10 ? month + 3 : month - 9;
	date.year = year + era * 400 + (date.month <= 2);
	return date;
}
