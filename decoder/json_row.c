/*
 * json_row.c: rows in JSON, in the envelopes "compact" and "debezium".
 *
 * What is the same for all rows of a relation, of a transaction, or of a refresh is written
 * once into a fragment that hangs on its struct and goes with it.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/memutils.h"

#include "pgtd_format.h"
#include "pgtd_relation.h"
#include "pgtd_state.h"

/* ---- images ------------------------------------------------------------------------ */

/* A value, or null and a mark on the column when it does not fit and may be left out. */
static void
put_column_value(PgtdState *state, PgtdOut *out, PgtdRow *row, PgtdColumn *column, Datum value)
{
	int mark = out->buf->len;

	row->column = column;
	pgtd_put_value(out, &state->style, column->type, value);
	row->column = NULL;
	if (likely(!out->full) || !state->options.omit_oversize)
		return;
	out->buf->len = mark;
	out->full = false;
	column->is_oversize = row->has_oversize = true;
}

/*
 * "name":value. Values stop early enough to leave room for the rest of the row.
 */
static void
put_column(PgtdState *state, PgtdOut *out, PgtdRow *row, PgtdColumn *column, bool is_old)
{
	const PgtdRelation *rel = row->rel;
	Size limit = out->limit;
	int mark;

	pgtd_put_bytes(out, column->member, column->member_len);
	mark = out->buf->len;
	if (!(is_old ? rel->old_nulls : rel->new_nulls)[column->index])
	{
		out->limit = state->value_limit - Min(state->value_limit, rel->overhead);
		put_column_value(state, out, row, column,
						 (is_old ? rel->old_values : rel->new_values)[column->index]);
		out->limit = limit;
	}
	if (out->buf->len == mark)
		pgtd_put_literal(out, "null");
}

/* One image as an object: the columns that are in the WAL. */
static void
put_image(PgtdState *state, PgtdOut *out, PgtdRow *row, bool is_old)
{
	PgtdRelation *rel = row->rel;
	bool is_first = true;

	pgtd_put_char(out, '{');
	for (int i = 0; i < rel->column_count; i++)
	{
		PgtdColumn *column = &rel->columns[i];

		if (is_old ? !column->in_identity : column->is_unchanged)
			continue;
		if (!is_first)
			pgtd_put_char(out, ',');
		is_first = false;
		put_column(state, out, row, column, is_old);
	}
	pgtd_put_char(out, '}');
}

static void
put_key(PgtdState *state, PgtdOut *out, PgtdRow *row, bool is_old)
{
	PgtdRelation *rel = row->rel;

	pgtd_put_char(out, '{');
	for (int i = 0; i < rel->key_count; i++)
	{
		if (i > 0)
			pgtd_put_char(out, ',');
		put_column(state, out, row, &rel->columns[rel->key[i]], is_old);
	}
	pgtd_put_char(out, '}');
}

/* ,"unchanged":[...] and ,"oversize":[...], where there is something to name. */
static void
put_column_list(PgtdOut *out, const PgtdRow *row, const char *member, bool unchanged)
{
	const PgtdRelation *rel = row->rel;
	bool is_first = true;

	pgtd_put_cstring(out, member);
	for (int i = 0; i < rel->column_count; i++)
	{
		const PgtdColumn *column = &rel->columns[i];

		if (!(unchanged ? column->is_unchanged : column->is_oversize))
			continue;
		if (!is_first)
			pgtd_put_char(out, ',');
		is_first = false;
		/* The member is "name": with a colon. */
		pgtd_put_bytes(out, column->member, column->member_len - 1);
	}
	pgtd_put_char(out, ']');
}

static void
put_remarks(PgtdOut *out, const PgtdRow *row)
{
	if (row->has_unchanged)
		put_column_list(out, row, ",\"unchanged\":[", true);
	if (row->has_oversize)
		put_column_list(out, row, ",\"oversize\":[", false);
}

/*
 * Starts a fragment: its buffer is made in the given context and becomes *fragment. The
 * caller writes into out and everything is put into rows with put_fragment.
 */
static PgtdOut
start_fragment(PgtdState *state, MemoryContext context, void **fragment)
{
	MemoryContext old_context = MemoryContextSwitchTo(context);
	PgtdOut out = {
		.buf = makeStringInfo(), .limit = MaxAllocSize - 1, .encoding = &state->encoding};

	MemoryContextSwitchTo(old_context);
	*fragment = out.buf;
	return out;
}

static inline void
put_fragment(PgtdOut *out, const void *fragment)
{
	const StringInfoData *buf = fragment;

	pgtd_put_bytes(out, buf->data, buf->len);
}

/* Is the whole key in the new image? Not where it holds unchanged TOAST. */
static bool
new_has_key(const PgtdRow *row)
{
	const PgtdRelation *rel = row->rel;

	for (int i = 0; i < rel->key_count; i++)
	{
		if (rel->columns[rel->key[i]].is_unchanged)
			return false;
	}
	return row->has_new && rel->key_count > 0;
}

/* ---- compact ------------------------------------------------------------------------ */

static void
put_compact_row(PgtdState *state, PgtdOut *out, PgtdRow *row)
{
	PgtdRelation *rel = row->rel;
	PgtdTransaction *tx = &state->tx;
	bool old_has_key;

	if (rel->format_data == NULL)
	{
		PgtdOut fragment = start_fragment(state, rel->context, &rel->format_data);

		pgtd_put_literal(&fragment, "\",\"t\":");
		pgtd_put_cstring(&fragment, rel->label);
		pgtd_put_literal(&fragment, ",\"s\":\"");
		pgtd_put_cstring(&fragment, rel->schema_id_hex);
		pgtd_put_char(&fragment, '"');
	}
	if (tx->format_data == NULL)
	{
		PgtdOut fragment = start_fragment(state, state->transaction_context, &tx->format_data);

		pgtd_put_literal(&fragment, ",\"p\":[\"");
		pgtd_put_lsn(&fragment, tx->commit_lsn);
		pgtd_put_literal(&fragment, "\",");
	}

	pgtd_put_literal(out, "{\"v\":1,\"op\":\"");
	pgtd_put_char(out, row->op);
	put_fragment(out, rel->format_data);
	old_has_key = row->has_old && rel->key_in_identity;
	if (old_has_key || new_has_key(row))
	{
		pgtd_put_literal(out, ",\"k\":");
		put_key(state, out, row, old_has_key);
	}
	if (row->has_old)
	{
		pgtd_put_literal(out, ",\"b\":");
		put_image(state, out, row, true);
	}
	if (row->has_new)
	{
		pgtd_put_literal(out, ",\"a\":");
		put_image(state, out, row, false);
	}
	put_fragment(out, tx->format_data);
	pgtd_put_int64(out, row->seq);
	pgtd_put_literal(out, "],\"ts\":");
	pgtd_put_int64(out, tx->commit_time);
	put_remarks(out, row);
	pgtd_put_char(out, '}');
}

/* ---- debezium ----------------------------------------------------------------------- */

/* The three parts of "source" and "transaction" that a transaction's rows share. */
typedef struct DebeziumTransaction
{
	void *head;	  /* up to the row's own LSN in "sequence" */
	void *middle; /* txId, after the table's name, up to the row's LSN */
	void *commit; /* after that LSN, up to seq */
	void *tail;	  /* after "op", up to total_order, or all of a snapshot */
} DebeziumTransaction;

static DebeziumTransaction *
get_debezium_transaction(PgtdState *state)
{
	PgtdTransaction *tx = &state->tx;
	DebeziumTransaction *parts = tx->format_data;
	PgtdOut out;

	if (parts != NULL)
		return parts;
	parts = MemoryContextAlloc(state->transaction_context, sizeof(DebeziumTransaction));

	out = start_fragment(state, state->transaction_context, &parts->head);
	pgtd_put_literal(&out, ",\"source\":{\"version\":\"" PGT_VERSION
						   "\",\"connector\":\"pg_trickle\",\"name\":");
	pgtd_put_string(&out, state->source_name, strlen(state->source_name));
	pgtd_put_literal(&out, ",\"ts_ms\":");
	pgtd_put_int64(&out, tx->commit_time / 1000);
	if (tx->is_snapshot)
		pgtd_put_literal(&out, ",\"snapshot\":\"true\",\"db\":");
	else
		pgtd_put_literal(&out, ",\"snapshot\":\"false\",\"db\":");
	pgtd_put_string(&out, state->database, strlen(state->database));
	pgtd_put_literal(&out, ",\"sequence\":\"[\\\"");
	pgtd_put_uint64(&out, tx->commit_lsn);
	pgtd_put_literal(&out, "\\\",\\\"");

	out = start_fragment(state, state->transaction_context, &parts->middle);
	pgtd_put_literal(&out, ",\"txId\":");
	if (tx->is_snapshot)
		pgtd_put_literal(&out, "null");
	else
		pgtd_put_uint64(&out, tx->xid);
	pgtd_put_literal(&out, ",\"lsn\":");

	out = start_fragment(state, state->transaction_context, &parts->commit);
	pgtd_put_literal(&out, ",\"xmin\":null,\"commit_lsn\":");
	pgtd_put_uint64(&out, tx->commit_lsn);
	pgtd_put_literal(&out, ",\"seq\":");

	out = start_fragment(state, state->transaction_context, &parts->tail);
	pgtd_put_literal(&out, "\",\"ts_ms\":");
	pgtd_put_int64(&out, tx->commit_time / 1000);
	if (tx->is_snapshot)
		pgtd_put_literal(&out, ",\"transaction\":null");
	else
	{
		pgtd_put_literal(&out, ",\"transaction\":{\"id\":\"");
		pgtd_put_uint64(&out, tx->xid);
		pgtd_put_char(&out, ':');
		pgtd_put_uint64(&out, tx->commit_lsn);
		pgtd_put_literal(&out, "\",\"total_order\":");
	}

	tx->format_data = parts;
	return parts;
}

/* "schema":...,"table":... and, at the end of source, the schema id. */
typedef struct DebeziumRelation
{
	void *names;
	void *schema_id;
} DebeziumRelation;

static DebeziumRelation *
get_debezium_relation(PgtdState *state, PgtdRelation *rel)
{
	DebeziumRelation *parts = rel->format_data;
	PgtdOut out;

	if (parts != NULL)
		return parts;
	parts = MemoryContextAlloc(rel->context, sizeof(DebeziumRelation));

	out = start_fragment(state, rel->context, &parts->names);
	pgtd_put_literal(&out, "\\\"]\",\"schema\":");
	pgtd_put_string(&out, rel->schema, strlen(rel->schema));
	pgtd_put_literal(&out, ",\"table\":");
	pgtd_put_string(&out, rel->name, strlen(rel->name));

	out = start_fragment(state, rel->context, &parts->schema_id);
	pgtd_put_literal(&out, ",\"schema_id\":\"");
	pgtd_put_cstring(&out, rel->schema_id_hex);
	pgtd_put_char(&out, '"');

	rel->format_data = parts;
	return parts;
}

static void
put_debezium_refresh(PgtdState *state, PgtdOut *out, PgtdRefresh *refresh)
{
	if (refresh->format_data == NULL)
	{
		PgtdOut fragment = start_fragment(state, state->transaction_context, &refresh->format_data);

		pgtd_put_literal(&fragment, ",\"refresh\":{\"id\":");
		pgtd_put_int64(&fragment, refresh->id);
		pgtd_put_literal(&fragment, ",\"mode\":");
		pgtd_put_string(&fragment, refresh->mode, strlen(refresh->mode));
		pgtd_put_literal(&fragment, ",\"frontier\":");
		pgtd_put_string(&fragment, refresh->frontier, strlen(refresh->frontier));
		pgtd_put_char(&fragment, '}');
	}
	put_fragment(out, refresh->format_data);
}

static void
put_debezium_row(PgtdState *state, PgtdOut *out, PgtdRow *row)
{
	DebeziumTransaction *of_tx = get_debezium_transaction(state);
	DebeziumRelation *of_rel = get_debezium_relation(state, row->rel);

	pgtd_put_literal(out, "{\"before\":");
	if (row->has_old)
		put_image(state, out, row, true);
	else
		pgtd_put_literal(out, "null");
	pgtd_put_literal(out, ",\"after\":");
	if (row->has_new)
		put_image(state, out, row, false);
	else
		pgtd_put_literal(out, "null");

	put_fragment(out, of_tx->head);
	pgtd_put_uint64(out, row->lsn);
	put_fragment(out, of_rel->names);
	put_fragment(out, of_tx->middle);
	pgtd_put_uint64(out, row->lsn);
	put_fragment(out, of_tx->commit);
	pgtd_put_int64(out, row->seq);
	put_fragment(out, of_rel->schema_id);
	if (row->refresh != NULL)
		put_debezium_refresh(state, out, row->refresh);
	pgtd_put_literal(out, "},\"op\":\"");
	pgtd_put_char(out, row->op);
	put_fragment(out, of_tx->tail);
	if (!state->tx.is_snapshot)
	{
		pgtd_put_int64(out, row->seq);
		pgtd_put_literal(out, ",\"data_collection_order\":");
		pgtd_put_int64(out, row->order);
		pgtd_put_char(out, '}');
	}
	put_remarks(out, row);
	pgtd_put_char(out, '}');
}

/* ---- row ---------------------------------------------------------------------------- */

/* What a row is told by: its key, or all of it. */
static void
put_identity(PgtdState *state, PgtdOut *out, PgtdRow *row, bool is_old)
{
	if (row->rel->key_in_identity)
		put_key(state, out, row, is_old);
	else
		put_image(state, out, row, is_old);
}

/* The old row as gone, unless the new one takes its place. */
static void
put_gone(PgtdState *state, PgtdOut *out, PgtdRow *row)
{
	StringInfo buf = out->buf;
	int start = buf->len;
	int end;

	pgtd_put_char(out, '[');
	put_identity(state, out, row, true);
	pgtd_put_char(out, ']');
	if (!row->has_new)
		return;
	pgtd_put_char(out, '\n');
	if (!row->rel->key_in_identity)
		return;
	end = buf->len;
	put_key(state, out, row, false);
	/* Between [ and ], and behind the line. */
	if (!out->full && buf->len - end == end - start - 3 &&
		memcmp(buf->data + start + 1, buf->data + end, buf->len - end) == 0)
		end = start;
	if (!out->full)
		buf->len = end;
}

/*
 * An object is a row as it is now; an array tells what is gone: the row that is in it (null: the WAL
 * does not say which), or with nothing in it all rows.
 */
static void
put_bare_row(PgtdState *state, PgtdOut *out, PgtdRow *row)
{
	if (row->has_old)
		put_gone(state, out, row);
	if (row->has_new)
		put_image(state, out, row, false);
	else if (row->op == 't')
		pgtd_put_literal(out, "[]");
	else if (!row->has_old)
		pgtd_put_literal(out, "[null]");
}

const PgtdEnvelope pgtd_json_envelopes[] = {
	{"compact", false, false, put_compact_row},
	{"debezium", true, false, put_debezium_row},
	{"row", false, true, put_bare_row},
	{NULL, false, false, NULL},
};
