/*
 * sink_stdout.c: records as lines of JSON, for people and --dry-run. Nothing can fail but
 * the pipe, and what is written counts as acknowledged.
 */
#include <stdio.h>
#include <stdlib.h>

#include "sink.h"

static void
print_json(const char *name, const char *value, size_t length)
{
	printf(",\"%s\":", name);
	if (value == NULL)
		fputs("null", stdout);
	else
		fwrite(value, 1, length, stdout);
}

static bool
stdout_put(FwdSink *sink, const FwdRecord *record, FwdError *error)
{
	printf("{\"topic\":\"%s\"", record->topic);
	print_json("key", record->key, record->key_length);
	fputs(",\"headers\":{", stdout);
	for (int i = 0; i < record->header_count; i++)
		printf("%s\"%s\":\"%.*s\"", i > 0 ? "," : "", record->headers[i].name,
			   (int) record->headers[i].length, record->headers[i].value);
	putchar('}');
	print_json("value", record->value, record->value_length);
	fputs("}\n", stdout);
	sink->metrics->records++;
	sink->metrics->record_bytes += record->key_length + record->value_length;
	sink->metrics->acknowledged++;
	fwd_positions_acknowledged(sink->positions, fwd_positions_sent(sink->positions));
	if (ferror(stdout))
		return fwd_fail(error, FWD_FATAL, NULL, "could not write to standard output");
	return true;
}

static bool
stdout_poll(FwdSink *sink, FwdError *error)
{
	(void) sink;
	(void) error;
	return true;
}

static int
stdout_due(FwdSink *sink)
{
	(void) sink;
	return -1;
}

static bool
stdout_ended(FwdSink *sink, uint64_t end_lsn, FwdError *error)
{
	(void) sink;
	(void) end_lsn;
	(void) error;
	return true;
}

static void
stdout_idle(FwdSink *sink, uint64_t lsn, bool now)
{
	(void) now;
	fwd_positions_idle(sink->positions, lsn);
}

static bool
stdout_flush(FwdSink *sink, int milliseconds)
{
	(void) sink;
	(void) milliseconds;
	return fflush(stdout) == 0;
}

static size_t
stdout_queued_bytes(FwdSink *sink)
{
	(void) sink;
	return 0;
}

static void
stdout_close(FwdSink *sink)
{
	free(sink);
}

static const FwdSinkOps stdout_ops = {
	stdout_put,	 stdout_poll,  stdout_due,			stdout_ended,
	stdout_idle, stdout_flush, stdout_queued_bytes, stdout_close,
};

FwdSink *
fwd_stdout_open(FwdPositions *positions, FwdMetrics *metrics)
{
	FwdSink *sink = fwd_alloc(sizeof(FwdSink));

	*sink = (FwdSink){&stdout_ops, positions, metrics, -1};
	return sink;
}
