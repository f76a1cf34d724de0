/*
 * pgt_cron.h: cron schedules: what they mean and when they come next. Module: policy
 *
 * Plain C99 without PostgreSQL. Five fields (minute hour day month weekday), six with
 * leading seconds, or @yearly @annually @monthly @weekly @daily @midnight @hourly.
 * A field is a list of *, N, N-M and names (jan, mon), each with /STEP if wanted; N/STEP
 * runs to the end of the field. Weekday 0 and 7 are Sunday. As in Vixie cron a time has
 * to match both day fields, unless neither begins with *: then either will do.
 *
 * Time zones. The caller says how far local time is ahead of UTC at an instant, so this
 * file needs no zone data. Where the clock is put forwards or back, also as in
 * Vixie cron: a schedule with * in seconds (of six fields), minute or hour follows the
 * clock on the wall, through the repeated hour again and never in the one left out.
 * Every other schedule means a time of day: it comes once in the repeated hour (the
 * first), and at the moment of the change if its time is left out.
 */
#ifndef PGT_CRON_H
#define PGT_CRON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct PgtCron
{
	uint64_t seconds; /* bit N: the value N is allowed */
	uint64_t minutes;
	uint64_t hours;
	uint64_t days;
	uint64_t months;
	uint64_t weekdays;	/* 0 is Sunday */
	bool either_day;	/* one of days and weekdays is enough */
	bool follows_clock; /* see above */
} PgtCron;

/* What is wrong with a text that a user gave, and where. */
typedef struct PgtParseError
{
	char message[160]; /* lower case, no period */
	int position;	   /* of the character in the text, from 1 */
} PgtParseError;

/* Seconds that local time is ahead of UTC at an instant, in seconds since 1970. */
typedef int (*PgtCronOffset)(void *arg, int64_t instant);

/* Refuses also what can never come, such as the 30th of February. */
extern bool pgt_cron_parse(const char *text, PgtCron *cron, PgtParseError *error);

/*
 * The first time after an instant, both in seconds since 1970. False if there
 * is none within 50 years, which a parsed schedule does not have.
 */
extern bool pgt_cron_next(const PgtCron *cron, int64_t after, PgtCronOffset offset, void *arg,
						  int64_t *next);

/* The same on a clock without zones: the first matching second after this one. */
extern bool pgt_cron_next_local(const PgtCron *cron, int64_t after, int64_t *next);

#endif /* PGT_CRON_H */
