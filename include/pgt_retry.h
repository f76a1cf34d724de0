/*
 * pgt_retry.h: what follows from a failed refresh. Module: policy
 *
 * Plain C99 without PostgreSQL. The class of an error comes from its SQLSTATE,
 * never from its message.
 *
 *		class			waits for						counts	examples
 *		TRANSIENT		1 s, doubling to 5 min, random	no		40001 40P01 55P03 53xxx 08xxx 58xxx
 *		TIMEOUT			the same						yes		a refresh beyond its limit
 *		DATA			new input, at most 5 min		yes		22xxx 23xxx P0001
 *		SCHEMA			DDL, at most 15 min				yes		42xxx 0Axxx 3Fxxx 55000
 *		INTERNAL		1 s, doubling to 5 min, random	yes		everything else
 *		CANCELLED		30 s							no		pg_cancel_backend
 *		TERMINATED		1 s								no		pg_terminate_backend
 *		INTERRUPTED		nothing							no		shutdown
 */
#ifndef PGT_RETRY_H
#define PGT_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#define PGT_RETRY_LONGEST_MS (15 * 60 * 1000)

typedef enum PgtFailureClass
{
	PGT_FAILURE_TRANSIENT,
	PGT_FAILURE_TIMEOUT,
	PGT_FAILURE_DATA,
	PGT_FAILURE_SCHEMA,
	PGT_FAILURE_INTERNAL,
	PGT_FAILURE_CANCELLED,
	PGT_FAILURE_TERMINATED,
	PGT_FAILURE_INTERRUPTED
} PgtFailureClass;

/* What may end a wait early. */
typedef enum PgtRetryEvent
{
	PGT_RETRY_ON_TIME,	/* nothing may */
	PGT_RETRY_ON_INPUT, /* a change of a source */
	PGT_RETRY_ON_DDL	/* a change of the definition, of a source or of rights */
} PgtRetryEvent;

typedef struct PgtFailure
{
	const char *sqlstate; /* five characters */
	bool timed_out;		  /* 57014 came from a limit of our own, not from a user */
	bool shutting_down;	  /* 57P01 came with a shutdown of the server */
	int attempt;		  /* failures in a row with this one, counted or not; from 1 */
	int counted_before;	  /* counted failures in a row before this one */
	int max_counted;	  /* suspend at that many; 0: never */
	double random;		  /* in [0, 1) */
} PgtFailure;

typedef struct PgtRetry
{
	PgtFailureClass failure_class;
	bool counted;
	bool suspend;
	int64_t delay_ms;
	PgtRetryEvent event;
} PgtRetry;

extern PgtRetry pgt_retry_decide(const PgtFailure *failure);
/* What may end a wait after a failure early. */
extern PgtRetryEvent pgt_retry_event(const char *sqlstate);
extern PgtFailureClass pgt_retry_classify(const char *sqlstate, bool timed_out, bool shutting_down);
/* "transient", "data", ... */
extern const char *pgt_failure_class_name(PgtFailureClass failure_class);

#endif /* PGT_RETRY_H */
