/*
 * json.h: find values in JSON without copying it.
 *
 * The decoder's messages are routed by a few of their members and otherwise passed on as
 * they are. A span is a value as it stands in the message, so a string has its quotes.
 * Nothing here reads beyond the end it is given; what is not JSON ends a scan.
 */
#ifndef FWD_JSON_H
#define FWD_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct FwdSpan
{
	const char *data; /* NULL: there is none */
	size_t length;
} FwdSpan;

/* Walks over the members of an object or the elements of an array. */
typedef struct FwdJsonScan
{
	const char *at;
	const char *end;
	bool object;
	bool broken; /* this is not JSON */
} FwdJsonScan;

extern bool fwd_json_open(FwdJsonScan *scan, FwdSpan value);
extern bool fwd_json_next(FwdJsonScan *scan, FwdSpan *name, FwdSpan *value);

/* The member of that name, or a span without data. */
extern FwdSpan fwd_json_get(FwdSpan object, const char *name);

extern bool fwd_span_is(FwdSpan span, const char *text);
extern bool fwd_span_equal(FwdSpan a, FwdSpan b);
extern bool fwd_json_is_null(FwdSpan value);

/* The text of a string, unescaped, in memory of the caller (free); NULL if it is none. */
extern char *fwd_json_text(FwdSpan string);
extern int64_t fwd_json_int(FwdSpan number);
/* "16/B374D848" or 97500059720. */
extern uint64_t fwd_json_lsn(FwdSpan value);

extern bool fwd_parse_lsn(const char *text, uint64_t *lsn);

#endif
