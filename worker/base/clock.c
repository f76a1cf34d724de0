/*
 * clock.c: what time it is, and waiting. Tests move the clock of a server with the
 * setting pg_trickle.test_clock_offset, in builds that have test points; policy
 * is given the time as an argument. The only file that asks for the time or calls
 * WaitLatch (t/lint/text.pl).
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "pgt_clock.h"
#include "pgt_guc.h"

static TimestampTz
shift(TimestampTz time)
{
#ifdef PGT_TEST_POINTS
	return time + pgt_guc_test_clock_offset * INT64CONST(1000000);
#else
	return time;
#endif
}

TimestampTz
pgt_clock_now(void)
{
	return shift(GetCurrentTimestamp());
}

TimestampTz
pgt_clock_transaction_end(void)
{
	return shift(GetCurrentTransactionStopTimestamp());
}

int
pgt_clock_wait(long timeout_ms, uint32 wait_event)
{
	int events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

	if (timeout_ms >= 0)
		events |= WL_TIMEOUT;
	events = WaitLatch(MyLatch, events, timeout_ms, wait_event);
	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	return events;
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
