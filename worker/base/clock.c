/*
 * clock.c: the real clock, and the place where a test puts its own.
 * The only file that calls WaitLatch.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "pgt_clock.h"
#include "pgt_guc.h"

static int
wait_latch(long timeout_ms, uint32 wait_event)
{
	int events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

	if (timeout_ms >= 0)
		events |= WL_TIMEOUT;
	events = WaitLatch(MyLatch, events, timeout_ms, wait_event);
	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	return events;
}

static TimestampTz
shift(TimestampTz time)
{
#ifdef PGT_TEST_POINTS
	return time + pgt_guc_test_clock_offset * INT64CONST(1000000);
#else
	return time;
#endif
}

static TimestampTz
read_clock(void)
{
	return shift(GetCurrentTimestamp());
}

static const PgtClock real_clock = {read_clock, wait_latch};
static const PgtClock *clock_in_use = &real_clock;

TimestampTz
pgt_clock_now(void)
{
	return clock_in_use->now();
}

TimestampTz
pgt_clock_transaction_end(void)
{
	return clock_in_use == &real_clock ? shift(GetCurrentTransactionStopTimestamp())
									   : pgt_clock_now();
}

int
pgt_clock_wait(long timeout_ms, uint32 wait_event)
{
	return clock_in_use->wait(timeout_ms, wait_event);
}

void
pgt_clock_set(const PgtClock *clock)
{
	clock_in_use = clock != NULL ? clock : &real_clock;
}

double
pgt_clock_ms_between(TimestampTz start, TimestampTz end)
{
	return (end - start) / 1000.0;
}

pg_tz *
pgt_clock_schedule_zone(void)
{
	return pgt_guc_timezone[0] != '\0' ? pg_tzset(pgt_guc_timezone) : log_timezone;
}

int
pgt_clock_zone_offset(void *zone, int64_t unix_seconds)
{
	pg_time_t time = (pg_time_t) unix_seconds;

	return pg_localtime(&time, (pg_tz *) zone)->tm_gmtoff;
}
