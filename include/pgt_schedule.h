/*
 * pgt_schedule.h: when a stream table wants to be refreshed. Module: policy
 *
 * Plain C99 without PostgreSQL. Times are those of TimestampTz: microseconds
 * since 2000-01-01 UTC; lengths are microseconds.
 */
#ifndef PGT_SCHEDULE_H
#define PGT_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgt_cron.h"

#define PGT_SCHEDULE_LEAST INT64_C(100000)					/* 100 ms */
#define PGT_SCHEDULE_MOST (INT64_C(3650) * 86400 * 1000000) /* ten years */
#define PGT_SCHEDULE_TEXT 200

/* For an errhint: every form there is. */
#define PGT_SCHEDULE_HINT                                                          \
	"A schedule is a duration ('30s', '1h30m'), a number of seconds, an interval " \
	"('5 minutes'), a cron schedule ('*/10 * * * *', '@hourly'), or 'calculated'."

typedef enum PgtScheduleKind
{
	PGT_SCHEDULE_CALCULATED, /* as often as its consumers; alone, with every change */
	PGT_SCHEDULE_INTERVAL,
	PGT_SCHEDULE_CRON
} PgtScheduleKind;

typedef struct PgtSchedule
{
	PgtScheduleKind kind;
	int64_t interval;			  /* of an interval */
	PgtCron cron;				  /* of a cron schedule */
	char text[PGT_SCHEDULE_TEXT]; /* canonical; parsing it gives the same */
} PgtSchedule;

typedef enum PgtScheduleResult
{
	PGT_SCHEDULE_PARSED,
	PGT_SCHEDULE_WRONG,		  /* error is set */
	PGT_SCHEDULE_ASK_INTERVAL /* nothing of ours: give it to interval_in, and the result to
								 * pgt_schedule_from_interval */
} PgtScheduleResult;

extern PgtScheduleResult pgt_schedule_parse(const char *text, PgtSchedule *schedule,
											PgtParseError *error);
/* Of the parts of a PostgreSQL interval; months are refused, having no length. */
extern bool pgt_schedule_from_interval(int months, int days, int64_t microseconds,
									   PgtSchedule *schedule, PgtParseError *error);

#define PGT_SCHEDULE_NO_TIME INT64_MIN /* never happened */
#define PGT_SCHEDULE_NEVER INT64_MAX   /* will never happen */

/*
 * When the next refresh is due, given when the last one started. A time that is
 * not after now means: due. Due without a last one, and also if the last one
 * lies in the future, because the clock was put back. Of a calculated schedule
 * this is what holds when it is alone: due. offset and arg are for cron.
 *
 * A caller for whom a cron time passed with nothing to do gives that time as
 * last_start from then on; otherwise the schedule would catch up at once with
 * the first change that comes. Of an interval this is what one wants.
 */
extern int64_t pgt_schedule_next_due(const PgtSchedule *schedule, int64_t last_start, int64_t now,
									 PgtCronOffset offset, void *arg);

/* The length between two refreshes; of cron, between the next two; 0 if calculated. */
extern int64_t pgt_schedule_length(const PgtSchedule *schedule, int64_t now, PgtCronOffset offset,
								   void *arg);

#endif /* PGT_SCHEDULE_H */
