/*
 * datetime.c: dates and times as ISO 8601, whatever DateStyle, IntervalStyle and TimeZone
 * say.
 *
 * Years are those of ISO 8601: 0000 is 1 BC, -0043 is 44 BC, and beyond 9999 they carry a
 * plus sign. A fraction of a second has six digits or is left out. Infinities are the words
 * "infinity" and "-infinity".
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "pgt_compat.h"
#include "pgtd_out.h"
#include "pgtd_value.h"

/* "+294276-12-31T23:59:59.999999+15:59:59" and quotes, with room to spare. */
#define DATETIME_MAXLEN 48

static char *
write_two_digits(char *to, int number)
{
	to[0] = '0' + number / 10;
	to[1] = '0' + number % 10;
	return to + 2;
}

static char *
write_year(char *to, int year)
{
	if (year < 0 || year > 9999)
	{
		*to++ = year < 0 ? '-' : '+';
		year = year < 0 ? -year : year;
	}
	if (year > 9999)
		return to + pg_ultoa_n((uint32) year, to);
	to = write_two_digits(to, year / 100);
	return write_two_digits(to, year % 100);
}

/* Days are counted from 2000-01-01, as in a DateADT. */
static char *
write_date(char *to, int64 days)
{
	int year;
	int month;
	int day;

	/* j2date has 1 BC as year 0, as ISO 8601 has. */
	j2date((int) days + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	to = write_year(to, year);
	*to++ = '-';
	to = write_two_digits(to, month);
	*to++ = '-';
	return write_two_digits(to, day);
}

static char *
write_time(char *to, int64 microseconds)
{
	int seconds = (int) (microseconds / USECS_PER_SEC);
	int fraction = (int) (microseconds % USECS_PER_SEC);

	to = write_two_digits(to, seconds / SECS_PER_HOUR);
	*to++ = ':';
	to = write_two_digits(to, seconds / SECS_PER_MINUTE % MINS_PER_HOUR);
	*to++ = ':';
	to = write_two_digits(to, seconds % SECS_PER_MINUTE);
	if (fraction != 0)
	{
		*to++ = '.';
		to = write_two_digits(to, fraction / 10000);
		to = write_two_digits(to, fraction / 100 % 100);
		to = write_two_digits(to, fraction % 100);
	}
	return to;
}

static void
put_infinity(PgtdOut *out, bool is_negative)
{
	if (is_negative)
		pgtd_put_literal(out, "\"-infinity\"");
	else
		pgtd_put_literal(out, "\"infinity\"");
}

void
pgtd_put_date(PgtdOut *out, DateADT date)
{
	char *start;
	char *to;

	if (DATE_NOT_FINITE(date))
	{
		put_infinity(out, DATE_IS_NOBEGIN(date));
		return;
	}
	start = to = pgtd_reserve(out, DATETIME_MAXLEN);
	if (to == NULL)
		return;
	*to++ = '"';
	to = write_date(to, date);
	*to++ = '"';
	pgtd_advance(out, to - start);
}

void
pgtd_put_time(PgtdOut *out, TimeADT time)
{
	char *start = pgtd_reserve(out, DATETIME_MAXLEN);
	char *to = start;

	if (to == NULL)
		return;
	*to++ = '"';
	to = write_time(to, time);
	*to++ = '"';
	pgtd_advance(out, to - start);
}

void
pgtd_put_timetz(PgtdOut *out, const TimeTzADT *time)
{
	char *start = pgtd_reserve(out, DATETIME_MAXLEN);
	char *to = start;
	int offset = -time->zone; /* stored as seconds west of Greenwich */

	if (to == NULL)
		return;
	*to++ = '"';
	to = write_time(to, time->time);
	*to++ = offset < 0 ? '-' : '+';
	offset = offset < 0 ? -offset : offset;
	to = write_two_digits(to, offset / SECS_PER_HOUR);
	*to++ = ':';
	to = write_two_digits(to, offset / SECS_PER_MINUTE % MINS_PER_HOUR);
	if (offset % SECS_PER_MINUTE != 0)
	{
		*to++ = ':';
		to = write_two_digits(to, offset % SECS_PER_MINUTE);
	}
	*to++ = '"';
	pgtd_advance(out, to - start);
}

void
pgtd_put_timestamp(PgtdOut *out, Timestamp timestamp, bool is_utc)
{
	char *start;
	char *to;
	int64 days;
	int64 time;

	if (TIMESTAMP_NOT_FINITE(timestamp))
	{
		put_infinity(out, TIMESTAMP_IS_NOBEGIN(timestamp));
		return;
	}
	start = to = pgtd_reserve(out, DATETIME_MAXLEN);
	if (to == NULL)
		return;

	days = timestamp / USECS_PER_DAY;
	time = timestamp % USECS_PER_DAY;
	if (time < 0)
	{
		time += USECS_PER_DAY;
		days--;
	}
	*to++ = '"';
	to = write_date(to, days);
	*to++ = 'T';
	to = write_time(to, time);
	if (is_utc)
		*to++ = 'Z';
	*to++ = '"';
	pgtd_advance(out, to - start);
}

void
pgtd_put_interval(PgtdOut *out, const Interval *interval)
{
	char text[MAXDATELEN + 1];
	struct pg_itm itm;
	int infinity = pgt_compat_interval_infinity(interval);

	if (infinity != 0)
	{
		put_infinity(out, infinity < 0);
		return;
	}
	interval2itm(*interval, &itm);
	EncodeInterval(&itm, INTSTYLE_ISO_8601, text);
	pgtd_put_utf8_string(out, text, strlen(text));
}
