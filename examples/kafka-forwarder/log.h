/*
 * log.h: what the forwarder says, and how a failure travels to whoever decides about it.
 *
 * A function that can fail returns false after fwd_fail has filled the FwdError of its
 * caller. Only main.c decides what a failure means for the process: FWD_RETRY is worth
 * another attempt, FWD_FATAL needs a person.
 */
#ifndef FWD_LOG_H
#define FWD_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

typedef enum FwdOutcome
{
	FWD_FINE = 0,
	FWD_RETRY,
	FWD_FATAL,
} FwdOutcome;

typedef struct FwdError
{
	FwdOutcome outcome;
	char message[1024];
	char hint[512];
} FwdError;

#define FWD_PRINTF(a, b) __attribute__((format(printf, a, b)))

/* Fill the error; hint may be NULL. Always returns false. The first failure is kept. */
extern bool fwd_fail(FwdError *error, FwdOutcome outcome, const char *hint, const char *format, ...)
	FWD_PRINTF(4, 5);
extern void fwd_clear_error(FwdError *error);

/* One line, with the time, to the log file or to stderr. Trailing newlines are cut off. */
extern void fwd_log(const char *level, const char *format, ...) FWD_PRINTF(2, 3);
extern void fwd_log_error(const FwdError *error);

/* Write to this file from now on, NULL: stderr. Called again on SIGHUP: opens it anew. */
extern bool fwd_open_log(const char *path, FwdError *error);

/* Memory that is always there: running out of it ends the process. */
extern void *fwd_alloc(size_t size);
extern void *fwd_realloc(void *old, size_t size);
extern char *fwd_strdup(const char *text);
extern char *fwd_strndup(const char *text, size_t length);

#endif
