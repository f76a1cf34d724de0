/*
 * retry.c: the class of a failure, and when to try again.
 *
 * Relies on nothing but the C library; no memory, no state.
 */
#include "pgt_retry.h"

#include <string.h>

#define BACKOFF_BASE_MS 1000
#define BACKOFF_MOST_MS 300000
#define BACKOFF_LEAST_MS 50 /* a random wait of nothing would be no wait */

/* The first row whose code begins the SQLSTATE. */
static const struct
{
	const char *code;
	PgtFailureClass failure_class;
} codes[] = {
	{"08", PGT_FAILURE_TRANSIENT}, /* connection */
	{"0A", PGT_FAILURE_SCHEMA},
	{"21", PGT_FAILURE_DATA}, /* more than one row of a scalar subquery */
	{"22", PGT_FAILURE_DATA},
	{"23", PGT_FAILURE_DATA},
	{"25", PGT_FAILURE_TRANSIENT}, /* read-only: a standby, or a setting */
	{"2F", PGT_FAILURE_SCHEMA},
	{"38", PGT_FAILURE_DATA}, /* a function of the user */
	{"39", PGT_FAILURE_DATA},
	{"3D", PGT_FAILURE_SCHEMA},
	{"3F", PGT_FAILURE_SCHEMA},
	{"40", PGT_FAILURE_TRANSIENT},
	{"42", PGT_FAILURE_SCHEMA},
	{"44", PGT_FAILURE_DATA},		  /* WITH CHECK OPTION */
	{"53", PGT_FAILURE_TRANSIENT},	  /* memory, disk, connections */
	{"54", PGT_FAILURE_DATA},		  /* program limit, such as an index row too long */
	{"55P03", PGT_FAILURE_TRANSIENT}, /* lock_timeout */
	{"55006", PGT_FAILURE_TRANSIENT}, /* object in use */
	{"55", PGT_FAILURE_SCHEMA},
	{"57014", PGT_FAILURE_CANCELLED},
	{"57P01", PGT_FAILURE_TERMINATED},
	{"57P02", PGT_FAILURE_INTERRUPTED},
	{"57P03", PGT_FAILURE_INTERRUPTED},
	{"57P04", PGT_FAILURE_INTERRUPTED},
	{"57", PGT_FAILURE_TRANSIENT},
	{"58", PGT_FAILURE_TRANSIENT}, /* input and output of the system */
	{"P0", PGT_FAILURE_DATA},	   /* RAISE in a function of the user */
	{NULL, PGT_FAILURE_INTERNAL},
};

static const struct
{
	const char *name;
	bool counted;
	int64_t delay_ms; /* 0: back-off */
	PgtRetryEvent event;
} classes[] = {
	[PGT_FAILURE_TRANSIENT] = {"transient", false, 0, PGT_RETRY_ON_TIME},
	[PGT_FAILURE_TIMEOUT] = {"timeout", true, 0, PGT_RETRY_ON_TIME},
	[PGT_FAILURE_DATA] = {"data", true, 5 * 60 * 1000, PGT_RETRY_ON_INPUT},
	[PGT_FAILURE_SCHEMA] = {"schema", true, PGT_RETRY_LONGEST_MS, PGT_RETRY_ON_DDL},
	[PGT_FAILURE_INTERNAL] = {"internal", true, 0, PGT_RETRY_ON_TIME},
	[PGT_FAILURE_CANCELLED] = {"cancelled", false, 30 * 1000, PGT_RETRY_ON_TIME},
	[PGT_FAILURE_TERMINATED] = {"terminated", false, 1000, PGT_RETRY_ON_TIME},
	[PGT_FAILURE_INTERRUPTED] = {"interrupted", false, -1, PGT_RETRY_ON_TIME},
};

static int64_t backoff(int attempt, double random);

PgtRetry
pgt_retry_decide(const PgtFailure *failure)
{
	PgtRetry retry = {0};
	int64_t delay_ms;

	retry.failure_class = pgt_retry_classify(failure->sqlstate, failure->timed_out,
											 failure->shutting_down);
	retry.counted = classes[retry.failure_class].counted;
	retry.event = classes[retry.failure_class].event;
	delay_ms = classes[retry.failure_class].delay_ms;
	if (delay_ms > 0)
		retry.delay_ms = delay_ms;
	else if (delay_ms == 0)
		retry.delay_ms = backoff(failure->attempt, failure->random);
	retry.suspend = retry.counted && failure->max_counted > 0 &&
					failure->counted_before + 1 >= failure->max_counted;
	return retry;
}

PgtRetryEvent
pgt_retry_event(const char *sqlstate)
{
	return classes[pgt_retry_classify(sqlstate, false, false)].event;
}

/* Full jitter: anything up to the limit, which doubles with each attempt. */
static int64_t
backoff(int attempt, double random)
{
	int64_t limit = BACKOFF_BASE_MS;

	for (int i = 1; i < attempt && limit < BACKOFF_MOST_MS; i++)
		limit *= 2;
	if (limit > BACKOFF_MOST_MS)
		limit = BACKOFF_MOST_MS;
	return BACKOFF_LEAST_MS + (int64_t) ((limit - BACKOFF_LEAST_MS) * random);
}

PgtFailureClass
pgt_retry_classify(const char *sqlstate, bool timed_out, bool shutting_down)
{
	int i = 0;

	while (codes[i].code != NULL && strncmp(sqlstate, codes[i].code, strlen(codes[i].code)) != 0)
		i++;
	if (codes[i].failure_class == PGT_FAILURE_CANCELLED && timed_out)
		return PGT_FAILURE_TIMEOUT;
	if (codes[i].failure_class == PGT_FAILURE_TERMINATED && shutting_down)
		return PGT_FAILURE_INTERRUPTED;
	return codes[i].failure_class;
}

const char *
pgt_failure_class_name(PgtFailureClass failure_class)
{
	return classes[failure_class].name;
}
