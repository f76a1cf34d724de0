/*
 * format_json.c: every message but rows, as one JSON object per line.
 *
 * Members are always written in the same order and without white space: the same WAL gives
 * the same bytes. Consumers ignore members that they do not know, so new ones may be added.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "mb/pg_wchar.h"
#include "utils/guc.h"

#include "pgtd_format.h"
#include "pgtd_options.h"
#include "pgtd_relation.h"
#include "pgtd_state.h"

static void
put_text(PgtdOut *out, const char *text)
{
	pgtd_put_string(out, text, strlen(text));
}

static void
put_quoted_lsn(PgtdOut *out, XLogRecPtr lsn)
{
	pgtd_put_char(out, '"');
	pgtd_put_lsn(out, lsn);
	pgtd_put_char(out, '"');
}

/* "p":["<commit_lsn>",seq] */
static void
put_position(PgtdOut *out, const PgtdTransaction *tx)
{
	pgtd_put_literal(out, ",\"p\":[");
	put_quoted_lsn(out, tx->commit_lsn);
	pgtd_put_char(out, ',');
	pgtd_put_int64(out, tx->seq);
	pgtd_put_char(out, ']');
}

static void
put_hello(PgtdState *state, PgtdOut *out)
{
	pgtd_put_literal(out, "{\"op\":\"hello\",\"format\":");
	put_text(out, state->options.format->name);
	pgtd_put_literal(out, ",\"format_version\":");
	pgtd_put_int64(out, PGTD_FORMAT_VERSION);
	pgtd_put_literal(out, ",\"envelope\":");
	put_text(out, state->options.envelope->name);
	pgtd_put_literal(out, ",\"plugin\":\"pg_trickle_decoder\",\"plugin_version\":\"" PGT_VERSION
						  "\",\"server_version\":");
	pgtd_put_cstring(out, GetConfigOption("server_version_num", false, false));
	pgtd_put_literal(out, ",\"system_id\":\"");
	pgtd_put_uint64(out, GetSystemIdentifier());
	pgtd_put_literal(out, "\",\"db\":");
	put_text(out, state->database);
	pgtd_put_literal(out, ",\"encoding\":\"UTF8\",\"options\":{");
	pgtd_put_options(out, &state->options);
	pgtd_put_literal(out, "}}");
}

static void
put_begin(PgtdState *state, PgtdOut *out)
{
	const PgtdTransaction *tx = &state->tx;

	pgtd_put_literal(out, "{\"op\":\"begin\",\"xid\":");
	pgtd_put_uint64(out, tx->xid);
	pgtd_put_literal(out, ",\"commit_lsn\":");
	put_quoted_lsn(out, tx->commit_lsn);
	pgtd_put_literal(out, ",\"end_lsn\":");
	put_quoted_lsn(out, tx->end_lsn);
	pgtd_put_literal(out, ",\"ts\":");
	pgtd_put_int64(out, tx->commit_time);
	if (tx->origin != NULL)
	{
		pgtd_put_literal(out, ",\"origin\":");
		put_text(out, tx->origin);
	}
	pgtd_put_char(out, '}');
}

/* For a binary format: what has no binary form. */
static void
put_columns_sent_as_text(PgtdOut *out, const PgtdRelation *rel)
{
	bool is_first = true;

	pgtd_put_literal(out, ",\"as_text\":[");
	for (int i = 0; i < rel->column_count; i++)
	{
		const PgtdColumn *column = &rel->columns[i];

		if (!column->is_sent_as_text)
			continue;
		if (!is_first)
			pgtd_put_char(out, ',');
		is_first = false;
		put_text(out, column->name);
	}
	pgtd_put_char(out, ']');
}

static void
put_schema(PgtdState *state, PgtdOut *out, const PgtdRelation *rel, const uint64 *previous)
{
	pgtd_put_literal(out, "{\"op\":\"schema\",\"schema_id\":\"");
	pgtd_put_hex64(out, rel->schema_id);
	if (previous != NULL)
	{
		pgtd_put_literal(out, "\",\"previous\":\"");
		pgtd_put_hex64(out, *previous);
		pgtd_put_literal(out, "\",");
	}
	else
		pgtd_put_literal(out, "\",\"previous\":null,");
	pgtd_put_cstring(out, rel->shape);
	pgtd_put_literal(out, ",\"identity\":");
	put_text(out, rel->identity);
	if (!state->options.format->is_text)
		put_columns_sent_as_text(out, rel);
	pgtd_put_char(out, '}');
}

static void
put_refresh(PgtdState *state, PgtdOut *out, const PgtdRefresh *refresh,
			const PgtdRefreshCounts *counts)
{
	if (counts == NULL)
		pgtd_put_literal(out, "{\"op\":\"refresh\",\"phase\":\"begin\",\"t\":");
	else
		pgtd_put_literal(out, "{\"op\":\"refresh\",\"phase\":\"end\",\"t\":");
	pgtd_put_label(out, refresh->schema, refresh->name);
	pgtd_put_literal(out, ",\"id\":");
	pgtd_put_int64(out, refresh->id);
	if (counts == NULL)
	{
		pgtd_put_literal(out, ",\"mode\":");
		put_text(out, refresh->mode);
		pgtd_put_literal(out, ",\"frontier\":");
		put_text(out, refresh->frontier);
		pgtd_put_literal(out, ",\"data_ts\":");
		pgtd_put_int64(out, refresh->data_timestamp);
	}
	else
	{
		pgtd_put_literal(out, ",\"inserted\":");
		pgtd_put_int64(out, counts->inserted);
		pgtd_put_literal(out, ",\"updated\":");
		pgtd_put_int64(out, counts->updated);
		pgtd_put_literal(out, ",\"deleted\":");
		pgtd_put_int64(out, counts->deleted);
	}
	put_position(out, &state->tx);
	pgtd_put_char(out, '}');
}

/* Room for what follows the content of a message. */
#define MESSAGE_TAIL 256

/* As text where it is text that UTF-8 can hold, else as base64. */
static void
put_content(PgtdState *state, PgtdOut *out, const char *content, Size size)
{
	const char *utf8 = NULL;
	Size len;

	if (size <= out->limit && pg_verify_mbstr(state->encoding.server_encoding, content, size, true))
		utf8 = pgtd_to_utf8(&state->encoding, content, size, &len, true);
	if (utf8 != NULL)
	{
		pgtd_put_literal(out, ",\"content\":");
		pgtd_put_utf8_string(out, utf8, len);
		return;
	}
	pgtd_put_literal(out, ",\"content_base64\":\"");
	pgtd_put_base64(out, content, size);
	pgtd_put_char(out, '"');
}

static void
put_message(PgtdState *state, PgtdOut *out, const PgtdMessage *message)
{
	Size limit = out->limit;
	int mark;

	pgtd_put_literal(out, "{\"op\":\"message\",\"transactional\":");
	if (message->transactional)
		pgtd_put_literal(out, "true");
	else
		pgtd_put_literal(out, "false");
	pgtd_put_literal(out, ",\"prefix\":");
	put_text(out, message->prefix);

	mark = out->buf->len;
	out->limit = state->value_limit - MESSAGE_TAIL;
	put_content(state, out, message->content, message->size);
	out->limit = limit;
	if (out->full && state->options.omit_oversize)
	{
		out->buf->len = mark;
		out->full = false;
		pgtd_put_literal(out, ",\"content\":null,\"oversize\":true");
	}

	pgtd_put_literal(out, ",\"lsn\":");
	put_quoted_lsn(out, message->lsn);
	if (message->transactional)
	{
		put_position(out, &state->tx);
		pgtd_put_literal(out, ",\"ts\":");
		pgtd_put_int64(out, state->tx.commit_time);
	}
	pgtd_put_char(out, '}');
}

static void
put_commit(PgtdState *state, PgtdOut *out)
{
	const PgtdTransaction *tx = &state->tx;
	ListCell *cell;

	pgtd_put_literal(out, "{\"op\":\"commit\",\"xid\":");
	pgtd_put_uint64(out, tx->xid);
	pgtd_put_literal(out, ",\"commit_lsn\":");
	put_quoted_lsn(out, tx->commit_lsn);
	pgtd_put_literal(out, ",\"end_lsn\":");
	put_quoted_lsn(out, tx->end_lsn);
	pgtd_put_literal(out, ",\"ts\":");
	pgtd_put_int64(out, tx->commit_time);
	pgtd_put_literal(out, ",\"rows\":{");
	foreach (cell, tx->tables)
	{
		const PgtdTableRows *rows = lfirst(cell);

		if (cell != list_head(tx->tables))
			pgtd_put_char(out, ',');
		pgtd_put_cstring(out, rows->label);
		pgtd_put_char(out, ':');
		pgtd_put_int64(out, rows->count);
	}
	pgtd_put_literal(out, "}}");
}

static void
put_heartbeat(PgtdState *state, PgtdOut *out, XLogRecPtr lsn, const int64 *time)
{
	pgtd_put_literal(out, "{\"op\":\"heartbeat\",\"lsn\":");
	put_quoted_lsn(out, lsn);
	if (time != NULL)
	{
		pgtd_put_literal(out, ",\"ts\":");
		pgtd_put_int64(out, *time);
	}
	pgtd_put_char(out, '}');
}

const PgtdFormat pgtd_format_json = {
	.name = "json",
	.is_text = true,
	.envelopes = pgtd_json_envelopes,
	.put_hello = put_hello,
	.put_begin = put_begin,
	.put_schema = put_schema,
	.put_refresh = put_refresh,
	.put_message = put_message,
	.put_commit = put_commit,
	.put_heartbeat = put_heartbeat,
};
