/*
 * pgt_clock.h: time and waiting, in one place so that tests can move time.
 */
#ifndef PGT_CLOCK_H
#define PGT_CLOCK_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "pgtime.h"

extern TimestampTz pgt_clock_now(void);
/* When the current transaction has ended, by the same clock; costs no system call. */
extern TimestampTz pgt_clock_transaction_end(void);
/* Waits on MyLatch at most timeout_ms (-1: for ever), and resets it; returns WL_* events. */
extern int pgt_clock_wait(long timeout_ms, uint32 wait_event);
/* Milliseconds between two times, as a fraction. */
extern double pgt_clock_ms_between(TimestampTz start, TimestampTz end);

/* The zone in which cron schedules are read, and its offset at a time, as policy asks for it. */
extern pg_tz *pgt_clock_schedule_zone(void);
extern int pgt_clock_zone_offset(void *zone, int64_t unix_seconds);

#endif /* PGT_CLOCK_H */
