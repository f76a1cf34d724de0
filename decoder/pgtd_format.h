/*
 * pgtd_format.h: formats and envelopes.
 *
 * A format says how messages look as bytes; an envelope of that format says how a row looks.
 * plugin.c decides when a message is due, opens it, calls one function here, closes it. The
 * functions write the body of exactly one message into out and raise no error for size: they
 * leave out->full set.
 *
 * They run inside a transaction, except put_hello, put_heartbeat and put_message (for a
 * message that is not transactional), which must read no catalog.
 */
#ifndef PGTD_FORMAT_H
#define PGTD_FORMAT_H

#include "access/xlogdefs.h"

#include "pgtd_out.h"
#include "pgtd_value.h"

struct PgtdState;
struct PgtdRefresh;
struct PgtdRelation;
struct PgtdRow;
struct PgtdMessage;

/* The counts of a refresh that has ended. */
typedef struct PgtdRefreshCounts
{
	int64 inserted;
	int64 updated;
	int64 deleted;
} PgtdRefreshCounts;

typedef struct PgtdEnvelope
{
	const char *name;
	bool json_as_text; /* json and jsonb values as strings */
	bool is_rows_only; /* no other messages than rows */
	void (*put_row)(struct PgtdState *state, PgtdOut *out, struct PgtdRow *row);
} PgtdEnvelope;

typedef struct PgtdFormat
{
	const char *name;
	bool is_text;
	const PgtdEnvelope *envelopes; /* ends with one that has no name */

	void (*put_hello)(struct PgtdState *state, PgtdOut *out);
	void (*put_begin)(struct PgtdState *state, PgtdOut *out);

	/* previous: what this session sent before for the relation, or NULL. */
	void (*put_schema)(struct PgtdState *state, PgtdOut *out, const struct PgtdRelation *rel,
					   const uint64 *previous);

	/* counts: NULL for the opening message. */
	void (*put_refresh)(struct PgtdState *state, PgtdOut *out, const struct PgtdRefresh *refresh,
						const PgtdRefreshCounts *counts);
	void (*put_message)(struct PgtdState *state, PgtdOut *out, const struct PgtdMessage *message);
	void (*put_commit)(struct PgtdState *state, PgtdOut *out);

	/* time: Unix microseconds, or NULL when the heartbeat has none. */
	void (*put_heartbeat)(struct PgtdState *state, PgtdOut *out, XLogRecPtr lsn, const int64 *time);
} PgtdFormat;

/* NULL when there is none of that name. */
extern const PgtdFormat *pgtd_find_format(const char *name);
extern const PgtdEnvelope *pgtd_find_envelope(const PgtdFormat *format, const char *name);

/* format_json.c; its envelopes are in json_row.c. */
extern const PgtdFormat pgtd_format_json;
extern const PgtdEnvelope pgtd_json_envelopes[];

/* format_binary.c */
extern const PgtdFormat pgtd_format_binary;

#endif /* PGTD_FORMAT_H */
