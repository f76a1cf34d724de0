/*
 * format_binary.c: every message as bytes.
 *
 * A message is a tag, the length of its body, and the body, so that readers can skip what
 * they do not know. "hello" and "schema", which are rare and grow, are the JSON of
 * format_json.c. The grammar is in docs/wire-format.md.
 */
#include "postgres.h"

#include "pgtd_binary.h"
#include "pgtd_format.h"
#include "pgtd_options.h"
#include "pgtd_relation.h"
#include "pgtd_state.h"
#include "pgtd_value.h"

#define TAG_HELLO 'H'
#define TAG_BEGIN 'B'
#define TAG_SCHEMA 'S'
#define TAG_REFRESH 'R'
#define TAG_REFRESH_END 'E'
#define TAG_MESSAGE 'M'
#define TAG_COMMIT 'C'
#define TAG_HEARTBEAT 'K'

#define ROW_HAS_OLD 1
#define ROW_HAS_NEW 2

#define MESSAGE_IS_TRANSACTIONAL 1
#define MESSAGE_IS_OVERSIZE 2

#define HEARTBEAT_HAS_TIME 1

/* ---- parts -------------------------------------------------------------------------- */

static int
start_body(PgtdOut *out, char tag)
{
	pgtd_put_char(out, tag);
	return pgtd_start_length(out);
}

static void
put_text(PgtdOut *out, const char *text)
{
	Size len = strlen(text);
	const char *utf8 = pgtd_to_utf8(out->encoding, text, len, &len, false);

	pgtd_put_varint(out, len);
	pgtd_put_bytes(out, utf8, len);
}

/* ---- messages ----------------------------------------------------------------------- */

static void
put_hello(PgtdState *state, PgtdOut *out)
{
	int body = start_body(out, TAG_HELLO);

	pgtd_format_json.put_hello(state, out);
	pgtd_end_length(out, body);
}

static void
put_schema(PgtdState *state, PgtdOut *out, const PgtdRelation *rel, const uint64 *previous)
{
	int body = start_body(out, TAG_SCHEMA);

	pgtd_format_json.put_schema(state, out, rel, previous);
	pgtd_end_length(out, body);
}

static void
put_transaction(PgtdOut *out, const PgtdTransaction *tx)
{
	pgtd_put_varint(out, tx->xid);
	pgtd_put_uint64_be(out, tx->commit_lsn);
	pgtd_put_uint64_be(out, tx->end_lsn);
	pgtd_put_uint64_be(out, tx->commit_time);
}

static void
put_begin(PgtdState *state, PgtdOut *out)
{
	const PgtdTransaction *tx = &state->tx;
	int body = start_body(out, TAG_BEGIN);

	put_transaction(out, tx);
	put_text(out, tx->origin != NULL ? tx->origin : "");
	pgtd_end_length(out, body);
}

static void
put_commit(PgtdState *state, PgtdOut *out)
{
	const PgtdTransaction *tx = &state->tx;
	int body = start_body(out, TAG_COMMIT);
	ListCell *cell;

	put_transaction(out, tx);
	pgtd_put_varint(out, list_length(tx->tables));
	foreach (cell, tx->tables)
	{
		const PgtdTableRows *rows = lfirst(cell);

		put_text(out, rows->schema);
		put_text(out, rows->name);
		pgtd_put_varint(out, rows->count);
	}
	pgtd_end_length(out, body);
}

static void
put_refresh(PgtdState *state, PgtdOut *out, const PgtdRefresh *refresh,
			const PgtdRefreshCounts *counts)
{
	int body = start_body(out, counts == NULL ? TAG_REFRESH : TAG_REFRESH_END);

	put_text(out, refresh->schema);
	put_text(out, refresh->name);
	pgtd_put_varint(out, refresh->id);
	pgtd_put_varint(out, state->tx.seq);
	if (counts == NULL)
	{
		put_text(out, refresh->mode);
		put_text(out, refresh->frontier);
		pgtd_put_uint64_be(out, refresh->data_timestamp);
	}
	else
	{
		pgtd_put_varint(out, counts->inserted);
		pgtd_put_varint(out, counts->updated);
		pgtd_put_varint(out, counts->deleted);
	}
	pgtd_end_length(out, body);
}

static void
put_heartbeat(PgtdState *state, PgtdOut *out, XLogRecPtr lsn, const int64 *time)
{
	int body = start_body(out, TAG_HEARTBEAT);

	pgtd_put_char(out, time != NULL ? HEARTBEAT_HAS_TIME : 0);
	pgtd_put_uint64_be(out, lsn);
	pgtd_put_uint64_be(out, time != NULL ? *time : 0);
	pgtd_end_length(out, body);
}

/* The content as it was written, whatever it is. */
static void
put_message(PgtdState *state, PgtdOut *out, const PgtdMessage *message)
{
	int body = start_body(out, TAG_MESSAGE);
	int flags_at = out->buf->len;
	char flags = message->transactional ? MESSAGE_IS_TRANSACTIONAL : 0;
	Size limit = out->limit;

	pgtd_put_char(out, flags);
	pgtd_put_uint64_be(out, message->lsn);
	pgtd_put_varint(out, message->transactional ? state->tx.seq : 0);
	put_text(out, message->prefix);
	if (!out->full)
	{
		out->limit = state->value_limit;
		pgtd_put_bytes(out, message->content, message->size);
		out->limit = limit;
		if (out->full && state->options.omit_oversize)
		{
			out->full = false;
			out->buf->data[flags_at] = flags | MESSAGE_IS_OVERSIZE;
		}
	}
	pgtd_end_length(out, body);
}

/* ---- rows --------------------------------------------------------------------------- */

/* False: it does not fit and may be left out. */
static bool
put_value(PgtdState *state, PgtdOut *out, PgtdRow *row, PgtdColumn *column, Datum value)
{
	Size limit = out->limit;
	int start = out->buf->len;

	out->limit = state->value_limit - Min(state->value_limit, row->rel->overhead);
	row->column = column;
	pgtd_put_sized_binary_value(out, column->type, value);
	row->column = NULL;
	out->limit = limit;
	if (likely(!out->full) || !state->options.omit_oversize)
		return true;
	out->buf->len = start;
	out->full = false;
	return false;
}

static void
put_column(PgtdState *state, PgtdOut *out, PgtdRow *row, PgtdColumn *column, bool is_old)
{
	const PgtdRelation *rel = row->rel;

	if (is_old && !column->in_identity)
		pgtd_put_uint32_be(out, (uint32) PGTD_BINARY_ABSENT);
	else if (!is_old && column->is_unchanged)
		pgtd_put_uint32_be(out, (uint32) PGTD_BINARY_UNCHANGED);
	else if ((is_old ? rel->old_nulls : rel->new_nulls)[column->index])
		pgtd_put_uint32_be(out, (uint32) PGTD_BINARY_NULL);
	else if (!put_value(state, out, row, column,
						(is_old ? rel->old_values : rel->new_values)[column->index]))
		pgtd_put_uint32_be(out, (uint32) PGTD_BINARY_OVERSIZE);
}

static void
put_image(PgtdState *state, PgtdOut *out, PgtdRow *row, bool is_old)
{
	for (int i = 0; i < row->rel->column_count; i++)
		put_column(state, out, row, &row->rel->columns[i], is_old);
}

static void
put_row(PgtdState *state, PgtdOut *out, PgtdRow *row)
{
	int body = start_body(out, row->op);

	pgtd_put_uint64_be(out, row->rel->schema_id);
	pgtd_put_varint(out, row->seq);
	pgtd_put_char(out, (row->has_old ? ROW_HAS_OLD : 0) | (row->has_new ? ROW_HAS_NEW : 0));
	if (row->has_old)
		put_image(state, out, row, true);
	if (row->has_new)
		put_image(state, out, row, false);
	pgtd_end_length(out, body);
}

static const PgtdEnvelope envelopes[] = {
	{"compact", false, false, put_row},
	{NULL, false, false, NULL},
};

const PgtdFormat pgtd_format_binary = {
	.name = "binary",
	.is_text = false,
	.envelopes = envelopes,
	.put_hello = put_hello,
	.put_begin = put_begin,
	.put_schema = put_schema,
	.put_refresh = put_refresh,
	.put_message = put_message,
	.put_commit = put_commit,
	.put_heartbeat = put_heartbeat,
};
