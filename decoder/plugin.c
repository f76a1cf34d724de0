/*
 * plugin.c: the callbacks of the output plugin "pg_trickle_decoder", and nothing else: what
 * is due when. What it looks like is the format's business.
 *
 * Owns a PgtdState per decoding context, in the context's memory:
 *
 *   session       options, encoding, relation cache; until the decoding context goes
 *   transaction   announced refreshes, row counts, fragments; reset at the next begin
 *   row           everything allocated for one change; reset after it
 *
 * Takes no locks. Runs with the rights of whoever reads the slot, in a server that need not
 * have the extension; trusts no message that it reads.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "replication/logical.h"
#include "replication/origin.h"
#include "replication/output_plugin.h"
#include "replication/slot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "pgt_compat.h"
#include "pgt_wire.h"
#include "pgtd_filter.h"
#include "pgtd_format.h"
#include "pgtd_options.h"
#include "pgtd_out.h"
#include "pgtd_relation.h"
#include "pgtd_session.h"
#include "pgtd_state.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_output_plugin_init(OutputPluginCallbacks *callbacks);

/* As often as the server itself does from 16 on. */
#define SKIPPED_BEFORE_PROGRESS 100

/* ---- messages ---------------------------------------------------------------------- */

/*
 * "is_last": nothing more is written in this callback. With batch_bytes, messages gather in a
 * buffer of our own, since the position that the server sends along must be that of the last
 * one: who has got the commit with it need not get the transaction again.
 */
static PgtdOut *
start_message(PgtdState *state, bool is_last)
{
	PgtdOut *out = &state->out;

	if (state->options.batch_bytes > 0)
	{
		out->buf = &state->batch;
		if (state->options.format->is_text && state->batch.len > 0)
			appendStringInfoChar(&state->batch, '\n');
		out->limit = PGTD_MAX_MESSAGE_BYTES;
	}
	else
	{
		OutputPluginPrepareWrite(state->ctx, is_last);
		out->buf = state->ctx->out;
		out->limit = out->buf->len + PGTD_MAX_MESSAGE_BYTES;
	}
	out->start = out->buf->len;
	out->full = false;
	out->encoding = &state->encoding;
	return out;
}

/*
 * The same for rows and messages of users, which obey max_message_bytes: with oversize=omit
 * only what can be left out does, so that a slot cannot get stuck at names that are too long.
 */
static PgtdOut *
start_bounded_message(PgtdState *state, bool is_last)
{
	PgtdOut *out = start_message(state, is_last);

	state->value_limit = out->buf->len + state->options.max_message_bytes;
	if (!state->options.omit_oversize)
		out->limit = state->value_limit;
	return out;
}

static void
write_out(PgtdState *state, bool is_last)
{
	OutputPluginWrite(state->ctx, is_last);
	state->skipped = 0;
	pgtd_shrink_buffer(state->ctx->out);
}

static void
send_batch(PgtdState *state, bool is_last)
{
	if (state->batch.len == 0)
		return;
	OutputPluginPrepareWrite(state->ctx, is_last);
	appendBinaryStringInfo(state->ctx->out, state->batch.data, state->batch.len);
	resetStringInfo(&state->batch);
	pgtd_shrink_buffer(&state->batch);
	write_out(state, is_last);
}

static void
end_message(PgtdState *state, bool is_last)
{
	if (state->out.full)
		pgtd_report_oversize(state);
	if (state->options.batch_bytes == 0)
		write_out(state, is_last);
	else if (state->batch.len >= state->options.batch_bytes)
		send_batch(state, is_last);
}

static void
say_hello(PgtdState *state)
{
	if (state->hello_sent || state->options.envelope->is_rows_only)
		return;
	state->options.format->put_hello(state, start_message(state, false));
	end_message(state, false);
	state->hello_sent = true;
}

/* Before whatever is kept of a transaction: a transaction without it is not mentioned. */
static void
begin_transaction(PgtdState *state)
{
	if (state->tx.is_begun)
		return;
	say_hello(state);
	if (!state->options.envelope->is_rows_only)
	{
		state->options.format->put_begin(state, start_message(state, false));
		end_message(state, false);
	}
	state->tx.is_begun = true;
}

static void
skip_change(PgtdState *state)
{
	if (++state->skipped >= SKIPPED_BEFORE_PROGRESS)
	{
		state->skipped = 0;
		pgt_compat_report_skipped_changes(state->ctx);
	}
}

/* ---- session ----------------------------------------------------------------------- */

static void
start_up(LogicalDecodingContext *ctx, OutputPluginOptions *output, bool is_init)
{
	MemoryContext old_context = MemoryContextSwitchTo(ctx->context);
	PgtdState *state = pgtd_make_session(ctx->output_plugin_options);

	MemoryContextSwitchTo(old_context);
	state->ctx = ctx;
	ctx->streaming = false; /* a callback of it there may be, see ignore_stream_abort */
	if (is_init && ctx->slot->data.two_phase)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("pg_trickle_decoder does not support two-phase decoding"),
						errdetail("A prepared transaction is sent when it commits."),
						errhint("Create the slot without two_phase.")));
	/* A slot that is only being created sends nothing, and no snapshot may stay behind. */
	if (!is_init)
		pgtd_load_session(state);

	/* The server takes textual output for text of the database, which UTF-8 need not be. */
	output->output_type = pgtd_is_database_text(state) ? OUTPUT_PLUGIN_TEXTUAL_OUTPUT
													   : OUTPUT_PLUGIN_BINARY_OUTPUT;
	output->receive_rewrites = false;
	ctx->output_plugin_private = state;
}

static void
shut_down(LogicalDecodingContext *ctx)
{
	PgtdState *state = ctx->output_plugin_private;

	if (state != NULL)
		pgtd_free_session(state);
	ctx->output_plugin_private = NULL;
}

static bool
filter_origin(LogicalDecodingContext *ctx, RepOriginId origin_id)
{
	PgtdState *state = ctx->output_plugin_private;

	return state->options.local_only && origin_id != InvalidRepOriginId;
}

/* ---- transactions ------------------------------------------------------------------ */

static void
handle_begin(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
	PgtdState *state = ctx->output_plugin_private;
	PgtdTransaction *tx = &state->tx;
	uint64 number = tx->number + 1;

	MemoryContextReset(state->transaction_context);
	memset(tx, 0, sizeof(PgtdTransaction));
	tx->number = number;
	tx->xid = txn->xid;
	tx->commit_lsn = txn->final_lsn;
	tx->end_lsn = txn->end_lsn;
	tx->commit_time = txn->xact_time.commit_time + PGT_WIRE_PG_EPOCH_US;
	state->refresh_generation++;

	if (txn->origin_id != InvalidRepOriginId)
	{
		MemoryContext old_context = MemoryContextSwitchTo(state->transaction_context);
		char *origin;

		if (replorigin_by_oid(txn->origin_id, true, &origin))
			tx->origin = origin;
		MemoryContextSwitchTo(old_context);
	}
}

/*
 * The same settings in every session. Only for transactions that need it: that describe a
 * relation, or have values that output functions write. The level goes at commit, or with
 * the transaction that decoding runs in.
 */
static void
apply_settings(PgtdState *state)
{
	PgtdTransaction *tx = &state->tx;

	if (tx->settings_level == 0)
		tx->settings_level = pgtd_enter_settings(state);
}

static void
handle_commit(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr commit_lsn)
{
	PgtdState *state = ctx->output_plugin_private;
	PgtdTransaction *tx = &state->tx;

	if (tx->settings_level != 0)
		AtEOXact_GUC(true, tx->settings_level);
	OutputPluginUpdateProgress(ctx, !tx->is_begun);
	if (tx->is_begun)
	{
		MemoryContext old_context = MemoryContextSwitchTo(state->row_context);

		if (!state->options.envelope->is_rows_only)
		{
			state->options.format->put_commit(state, start_message(state, true));
			end_message(state, true);
		}
		send_batch(state, true);
		MemoryContextSwitchTo(old_context);
		MemoryContextReset(state->row_context);
	}
	tx->is_begun = false;
	tx->refreshes = NIL;
	tx->tables = NIL;
	tx->format_data = NULL;
	MemoryContextReset(state->transaction_context);
}

/* ---- rows -------------------------------------------------------------------------- */

/* The newest refresh of the relation that this transaction announced before. */
static PgtdRefresh *
find_refresh(PgtdState *state, PgtdRelation *rel)
{
	if (rel->refresh_generation == state->refresh_generation)
		return rel->refresh;

	rel->refresh = NULL;
	for (int i = list_length(state->tx.refreshes) - 1; i >= 0 && rel->refresh == NULL; i--)
	{
		PgtdRefresh *refresh = list_nth(state->tx.refreshes, i);

		if (refresh->relid == rel->relid)
			rel->refresh = refresh;
	}
	rel->refresh_generation = state->refresh_generation;
	return rel->refresh;
}

static bool
is_published(const PgtdPublished *published, char op)
{
	switch (op)
	{
		case 'c':
			return published->insert;
		case 'u':
			return published->update;
		case 'd':
			return published->delete;
		default:
			return published->truncate;
	}
}

static bool
is_wanted(PgtdState *state, PgtdRelation *rel, char op)
{
	if (state->options.publications != NIL)
		return is_published(&rel->published, op);
	return rel->is_listed || find_refresh(state, rel) != NULL;
}

/* What is known of the relation, or NULL when such rows of it are not wanted. */
static PgtdRelation *
find_kept_relation(PgtdState *state, Relation relation, char op)
{
	PgtdRelation *rel;

	if (state->tx.refreshes == NIL && state->options.tables == NIL &&
		state->options.publications == NIL)
		return NULL;
	rel = pgtd_get_relation(state->cache, relation);
	if (rel->is_excluded || !is_wanted(state, rel, op))
		return NULL;
	if (!rel->is_described)
	{
		apply_settings(state);
		pgtd_describe_relation(state->cache, rel, relation);
	}
	return rel;
}

static void
send_schema(PgtdState *state, PgtdRelation *rel)
{
	if (!state->options.include_schema || state->options.envelope->is_rows_only ||
		(rel->schema_sent && rel->sent_schema_id == rel->schema_id &&
		 strcmp(rel->sent_identity, rel->identity) == 0))
		return;
	state->options.format->put_schema(state, start_message(state, false), rel,
									  rel->schema_sent ? &rel->sent_schema_id : NULL);
	end_message(state, false);
	rel->schema_sent = true;
	rel->sent_schema_id = rel->schema_id;
	rel->sent_identity = rel->identity;
}

/* By name: a transaction may drop a table and create another of that name. */
static PgtdTableRows *
find_table_rows(PgtdState *state, const PgtdRelation *rel)
{
	MemoryContext old_context;
	PgtdTableRows *rows;
	ListCell *cell;

	foreach (cell, state->tx.tables)
	{
		rows = lfirst(cell);
		if (strcmp(rows->label, rel->label) == 0)
			return rows;
	}
	old_context = MemoryContextSwitchTo(state->transaction_context);
	rows = palloc0(sizeof(PgtdTableRows));
	rows->label = pstrdup(rel->label);
	rows->schema = pstrdup(rel->schema);
	rows->name = pstrdup(rel->name);
	state->tx.tables = lappend(state->tx.tables, rows);
	MemoryContextSwitchTo(old_context);
	return rows;
}

/* Counts one more row of the relation in this transaction, and returns the count. */
static int64
count_row(PgtdState *state, PgtdRelation *rel)
{
	if (rel->transaction_number != state->tx.number)
	{
		rel->rows = find_table_rows(state, rel);
		rel->transaction_number = state->tx.number;
	}
	return ++rel->rows->count;
}

static void
send_row(PgtdState *state, PgtdRow *row, bool is_last)
{
	PgtdRelation *rel = row->rel;
	ErrorContextCallback error_context = {error_context_stack, pgtd_add_row_context, row};

	error_context_stack = &error_context;
	begin_transaction(state);
	send_schema(state, rel);
	if (rel->needs_settings || (rel->needs_client_encoding && !state->options.format->is_text))
		apply_settings(state);
	row->refresh = state->options.include_refresh ? find_refresh(state, rel) : NULL;
	row->order = count_row(state, rel);
	state->options.envelope->put_row(state, start_bounded_message(state, is_last), row);
	if (state->out.full && state->options.batch_bytes > 0 && state->out.start > 0)
	{
		/* There may be room for it in a message of its own. */
		state->batch.len = state->out.start - (state->options.format->is_text ? 1 : 0);
		send_batch(state, false);
		state->options.envelope->put_row(state, start_bounded_message(state, is_last), row);
	}
	end_message(state, is_last);
	error_context_stack = error_context.previous;
}

/*
 * A large value that an update left alone is not in the WAL of the new row. The old row has
 * it where the identity is FULL; else all there is to say is that it did not change.
 */
static void
resolve_unchanged_toast(PgtdRow *row)
{
	PgtdRelation *rel = row->rel;

	for (int i = 0; i < rel->column_count; i++)
	{
		PgtdColumn *column = &rel->columns[i];
		int index = column->index;

		column->is_unchanged = false;
		column->is_oversize = false;
		if (column->type->len != -1 || !row->has_new || rel->new_nulls[index] ||
			!VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(rel->new_values[index])))
			continue;
		if (row->has_old && column->in_identity && !rel->old_nulls[index] &&
			!VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(rel->old_values[index])))
		{
			rel->new_values[index] = rel->old_values[index];
			continue;
		}
		column->is_unchanged = row->has_unchanged = true;
	}
}

static void
deform_images(PgtdRow *row, Relation relation, ReorderBufferChange *change)
{
	PgtdRelation *rel = row->rel;
	HeapTuple old_tuple = NULL;
	HeapTuple new_tuple = NULL;

	if (change->action != REORDER_BUFFER_CHANGE_INSERT)
		old_tuple = pgt_compat_change_old_tuple(change);
	if (change->action != REORDER_BUFFER_CHANGE_DELETE)
		new_tuple = pgt_compat_change_new_tuple(change);
	row->has_old = old_tuple != NULL;
	row->has_new = new_tuple != NULL;
	if (row->has_old)
		heap_deform_tuple(old_tuple, RelationGetDescr(relation), rel->old_values, rel->old_nulls);
	if (row->has_new)
		heap_deform_tuple(new_tuple, RelationGetDescr(relation), rel->new_values, rel->new_nulls);
	resolve_unchanged_toast(row);
}

static void
handle_change(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, Relation relation,
			  ReorderBufferChange *change)
{
	PgtdState *state = ctx->output_plugin_private;
	MemoryContext old_context = MemoryContextSwitchTo(state->row_context);
	PgtdRow row = {0};

	row.seq = ++state->tx.seq;
	row.lsn = change->lsn;
	switch (change->action)
	{
		case REORDER_BUFFER_CHANGE_INSERT:
			row.op = 'c';
			break;
		case REORDER_BUFFER_CHANGE_UPDATE:
			row.op = 'u';
			break;
		case REORDER_BUFFER_CHANGE_DELETE:
			row.op = 'd';
			break;
		default:
			break;
	}
	if (row.op != '\0')
		row.rel = find_kept_relation(state, relation, row.op);

	if (row.rel != NULL)
	{
		deform_images(&row, relation, change);
		send_row(state, &row, true);
	}
	else
		skip_change(state);
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(state->row_context);
}

static void
handle_truncate(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, int nrelations,
				Relation relations[], ReorderBufferChange *change)
{
	PgtdState *state = ctx->output_plugin_private;
	MemoryContext old_context = MemoryContextSwitchTo(state->row_context);

	for (int i = 0; i < nrelations; i++)
	{
		PgtdRow row = {0};

		row.op = 't';
		row.seq = ++state->tx.seq;
		row.lsn = change->lsn;
		row.rel = find_kept_relation(state, relations[i], row.op);
		if (row.rel == NULL)
		{
			skip_change(state);
			continue;
		}
		send_row(state, &row, i == nrelations - 1);
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(state->row_context);
}

/* ---- logical messages -------------------------------------------------------------- */

static char *
copy_wire_text(PgtWireText text)
{
	return pnstrdup(text.data, text.len);
}

static void
send_refresh(PgtdState *state, const PgtdRefresh *refresh, const PgtdRefreshCounts *counts)
{
	if (!state->options.include_refresh || refresh->is_excluded ||
		state->options.envelope->is_rows_only)
		return;
	begin_transaction(state);
	state->options.format->put_refresh(state, start_message(state, true), refresh, counts);
	end_message(state, true);
}

/* Whatever the relation is: anyone can write such a message. */
static bool
may_be_published(PgtdState *state, Oid relid)
{
	const PgtdPublished *published;
	Relation relation;
	bool result;

	if (state->options.publications == NIL)
		return true;
	relation = RelationIdGetRelation(relid);
	if (!RelationIsValid(relation))
		return false;
	published = &pgtd_get_relation(state->cache, relation)->published;
	result = published->insert || published->update || published->delete || published->truncate;
	RelationClose(relation);
	return result;
}

static void
open_refresh(PgtdState *state, const PgtWireRefreshOpen *open)
{
	MemoryContext old_context = MemoryContextSwitchTo(state->transaction_context);
	PgtdRefresh *refresh = palloc0(sizeof(PgtdRefresh));

	refresh->relid = open->relid;
	refresh->id = open->refresh_id;
	refresh->data_timestamp = open->data_timestamp;
	refresh->schema = copy_wire_text(open->schema);
	refresh->name = copy_wire_text(open->name);
	refresh->mode = copy_wire_text(open->mode);
	refresh->frontier = copy_wire_text(open->frontier);
	refresh->is_excluded = pgtd_match_tables(state->options.exclude_tables, refresh->schema,
											 refresh->name) ||
						   !may_be_published(state, open->relid);
	state->tx.refreshes = lappend(state->tx.refreshes, refresh);
	state->refresh_generation++;
	MemoryContextSwitchTo(old_context);

	send_refresh(state, refresh, NULL);
}

/* False when no such refresh is open. */
static bool
close_refresh(PgtdState *state, const PgtWireRefreshClose *close)
{
	PgtdRefreshCounts counts = {close->inserted, close->updated, close->deleted};
	ListCell *cell;

	foreach (cell, state->tx.refreshes)
	{
		PgtdRefresh *refresh = lfirst(cell);

		if (refresh->relid == close->relid && refresh->id == close->refresh_id)
		{
			send_refresh(state, refresh, &counts);
			return true;
		}
	}
	return false;
}

/*
 * Anyone who can write logical messages can write any bytes under our prefix: what is not
 * one of our messages is logged and otherwise ignored.
 */
static bool
handle_own_message(PgtdState *state, const PgtdMessage *message)
{
	PgtWireRefreshOpen open;
	PgtWireRefreshClose close;

	if (message->transactional)
	{
		if (pgt_wire_decode_open(message->content, message->size, &open) &&
			pg_verifymbstr(open.schema.data, open.schema.len, true) &&
			pg_verifymbstr(open.name.data, open.name.len, true) &&
			pg_verifymbstr(open.mode.data, open.mode.len, true) &&
			pg_verifymbstr(open.frontier.data, open.frontier.len, true))
		{
			open_refresh(state, &open);
			return true;
		}
		if (pgt_wire_decode_close(message->content, message->size, &close) &&
			close_refresh(state, &close))
			return true;
	}
	ereport(LOG, (errcode(ERRCODE_DATA_CORRUPTED),
				  errmsg("ignoring a logical message with prefix \"%s\" that is not one of "
						 "pg_trickle's",
						 PGT_WIRE_PREFIX),
				  errdetail("The message is at %X/%X and has %zu bytes.",
							LSN_FORMAT_ARGS(message->lsn), message->size)));
	return false;
}

static void
send_heartbeat(PgtdState *state, const PgtdMessage *message)
{
	int64_t wire_time;
	int64 time;
	bool has_time = pgt_wire_decode_heartbeat(message->content, message->size, &wire_time);

	if (state->options.envelope->is_rows_only)
		return;
	time = has_time ? wire_time : 0;
	say_hello(state);
	state->options.format->put_heartbeat(state, start_message(state, true), message->lsn,
										 has_time ? &time : NULL);
	end_message(state, true);
	if (!message->transactional)
		send_batch(state, true);
}

static void
send_message(PgtdState *state, const PgtdMessage *message)
{
	if (message->transactional)
		begin_transaction(state);
	else
		say_hello(state);
	state->options.format->put_message(state, start_bounded_message(state, true), message);
	end_message(state, true);
	if (!message->transactional)
		send_batch(state, true);
}

static void
handle_message(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr lsn,
			   bool transactional, const char *prefix, Size size, const char *content)
{
	PgtdState *state = ctx->output_plugin_private;
	MemoryContext old_context = MemoryContextSwitchTo(state->row_context);
	PgtdMessage message = {transactional, prefix, content, size, lsn};
	bool is_done = false;

	if (transactional)
		state->tx.seq++;
	if (strcmp(prefix, PGT_WIRE_HEARTBEAT_PREFIX) == 0)
	{
		send_heartbeat(state, &message);
		is_done = true;
	}
	else if (strcmp(prefix, PGT_WIRE_PREFIX) == 0)
	{
		/* As a plain message, too, but only for who asks for exactly that. */
		is_done = handle_own_message(state, &message) ||
				  !pgtd_match_prefix_exactly(state->options.messages, prefix);
	}
	if (!is_done && !state->options.envelope->is_rows_only &&
		pgtd_match_prefixes(state->options.messages, prefix))
		send_message(state, &message);
	else if (!is_done && transactional)
		skip_change(state);
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(state->row_context);
}

/*
 * PostgreSQL 18 takes subtransactions of an aborted transaction, whose changes it drops for want
 * of memory, for streamed, and tells that they are aborted, also where nothing is streamed. A plugin
 * without this callback could never get beyond.
 */
static void
ignore_stream_abort(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr abort_lsn)
{
}

/*
 * The server sends transactions whole: for two-phase commit there are no callbacks, and streaming is
 * switched off.
 */
void
_PG_output_plugin_init(OutputPluginCallbacks *callbacks)
{
	callbacks->startup_cb = start_up;
	callbacks->shutdown_cb = shut_down;
	callbacks->filter_by_origin_cb = filter_origin;
	callbacks->begin_cb = handle_begin;
	callbacks->change_cb = handle_change;
	callbacks->truncate_cb = handle_truncate;
	callbacks->message_cb = handle_message;
	callbacks->commit_cb = handle_commit;
	callbacks->stream_abort_cb = ignore_stream_abort;
}
