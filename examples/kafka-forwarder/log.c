/*
 * log.c: lines of the log, failures, and memory that is always there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"

static FILE *log_file;

bool
fwd_fail(FwdError *error, FwdOutcome outcome, const char *hint, const char *format, ...)
{
	va_list args;

	if (error->outcome != FWD_FINE)
		return false;
	error->outcome = outcome;
	va_start(args, format);
	vsnprintf(error->message, sizeof(error->message), format, args);
	va_end(args);
	snprintf(error->hint, sizeof(error->hint), "%s", hint != NULL ? hint : "");
	return false;
}

void
fwd_clear_error(FwdError *error)
{
	memset(error, 0, sizeof(*error));
}

void
fwd_log(const char *level, const char *format, ...)
{
	FILE *out = log_file != NULL ? log_file : stderr;
	char text[2048];
	char when[32];
	struct timespec now;
	struct tm utc;
	va_list args;
	size_t length;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	for (length = strlen(text); length > 0 && text[length - 1] == '\n'; length--)
		text[length - 1] = '\0';
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &utc);
	fprintf(out, "%s.%03ldZ %s: %s\n", when, now.tv_nsec / 1000000, level, text);
	fflush(out);
}

void
fwd_log_error(const FwdError *error)
{
	fwd_log(error->outcome == FWD_FATAL ? "fatal" : "error", "%s", error->message);
	if (error->hint[0] != '\0')
		fwd_log("hint", "%s", error->hint);
}

bool
fwd_open_log(const char *path, FwdError *error)
{
	FILE *file;

	if (path == NULL || path[0] == '\0')
		return true;
	file = fopen(path, "ae");
	if (file == NULL)
		return fwd_fail(error, FWD_FATAL,
						"Set forwarder.log_file to a file that this user may write.",
						"could not open log file \"%s\": %s", path, strerror(errno));
	if (log_file != NULL)
		fclose(log_file);
	log_file = file;
	return true;
}

static void *
check_memory(void *memory)
{
	if (memory == NULL)
	{
		fwd_log("fatal", "out of memory");
		exit(1);
	}
	return memory;
}

void *
fwd_alloc(size_t size)
{
	return check_memory(calloc(1, size > 0 ? size : 1));
}

void *
fwd_realloc(void *old, size_t size)
{
	return check_memory(realloc(old, size > 0 ? size : 1));
}

char *
fwd_strdup(const char *text)
{
	return check_memory(strdup(text));
}

char *
fwd_strndup(const char *text, size_t length)
{
	return check_memory(strndup(text, length));
}
