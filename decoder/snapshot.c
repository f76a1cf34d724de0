/*
 * snapshot.c: the rows that a table has, as the slot would send them: SQL functions.
 *
 * They read the table under the snapshot of the query, as the caller, and write rows with the same
 * formats. Rows are made some at a time and handed out one by one, so that a table of any size
 * takes little memory, and settings are changed and restored once per portion, not per row.
 *
 * A reader lives as long as the query; its scan is closed with it, also when the query does not
 * want all rows.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "pgt_compat.h"
#include "pgt_wire.h"
#include "pgtd_format.h"
#include "pgtd_options.h"
#include "pgtd_relation.h"
#include "pgtd_session.h"
#include "pgtd_state.h"

PG_FUNCTION_INFO_V1(pgtd_snapshot_rows);
PG_FUNCTION_INFO_V1(pgtd_snapshot_rows_binary);
PG_FUNCTION_INFO_V1(pgtd_slot_wants);

/* Made at once, at least; with batch_bytes a result is that long anyway. */
#define PORTION_BYTES (64 * 1024)

typedef struct SnapshotReader
{
	PgtdState *state;
	Relation relation;
	Snapshot snapshot;
	TableScanDesc scan; /* NULL: closed */
	TupleTableSlot *slot;
	bool has_row; /* slot has one that is not written yet */
	bool is_done; /* the scan has come to its end; asked again, it would begin anew */

	/* What was made and not handed out: messages in state->batch, each up to its end. */
	int *ends;
	int end_count;
	int end_room;
	int next;  /* index into ends */
	int given; /* bytes of the buffer that were handed out */
} SnapshotReader;

/* ---- the table ----------------------------------------------------------------------- */

/* What a SELECT of all of it would check, and what such rows cannot show. */
static Relation
open_table(text *name)
{
	RangeVar *range = makeRangeVarFromNameList(pgt_compat_split_name(text_to_cstring(name)));
	Relation relation = relation_openrv(range, AccessShareLock);
	AclResult allowed = pg_class_aclcheck(RelationGetRelid(relation), GetUserId(), ACL_SELECT);

	if (allowed != ACLCHECK_OK)
		aclcheck_error(allowed, get_relkind_objtype(relation->rd_rel->relkind),
					   RelationGetRelationName(relation));
	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is a partitioned table", RelationGetRelationName(relation)),
						errdetail("The stream names the partition of each row."),
						errhint("Call the function for each partition; pg_partition_tree() lists "
								"them.")));
	if (relation->rd_rel->relkind != RELKIND_RELATION)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a table", RelationGetRelationName(relation)),
						errhint("Only tables have rows that replication slots send.")));
	if (check_enable_rls(RelationGetRelid(relation), InvalidOid, false) == RLS_ENABLED)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("row-level security hides rows of table \"%s\" from this role",
							   RelationGetRelationName(relation)),
						errdetail("A slot sends all rows, so a snapshot has to have all."),
						errhint("Call the function as the owner of the table, or as a role with "
								"BYPASSRLS.")));
	return relation;
}

/* ---- rows ---------------------------------------------------------------------------- */

/* Opens a message in the buffer; users' values end where options say. */
static PgtdOut *
start_message(PgtdState *state)
{
	PgtdOut *out = &state->out;

	if (state->options.format->is_text && state->options.batch_bytes > 0 && state->batch.len > 0)
		appendStringInfoChar(&state->batch, '\n');
	out->buf = &state->batch;
	out->start = out->buf->len;
	out->limit = PGTD_MAX_MESSAGE_BYTES;
	out->full = false;
	out->encoding = &state->encoding;
	state->value_limit = out->start + state->options.max_message_bytes;
	return out;
}

static void
end_result(SnapshotReader *reader)
{
	if (reader->end_count == reader->end_room)
	{
		reader->end_room *= 2;
		reader->ends = repalloc(reader->ends, sizeof(int) * reader->end_room);
	}
	reader->ends[reader->end_count++] = reader->state->batch.len;
}

static void
end_message(SnapshotReader *reader)
{
	if (reader->state->options.batch_bytes == 0)
		end_result(reader);
}

/* As the stream has it: before the first row, and when the shape is another. */
static void
put_schema(SnapshotReader *reader, PgtdRelation *rel)
{
	PgtdState *state = reader->state;

	if (!state->options.include_schema || state->options.envelope->is_rows_only ||
		(rel->schema_sent && rel->sent_schema_id == rel->schema_id))
		return;
	state->options.format->put_schema(state, start_message(state), rel,
									  rel->schema_sent ? &rel->sent_schema_id : NULL);
	end_message(reader);
	rel->schema_sent = true;
	rel->sent_schema_id = rel->schema_id;
	rel->sent_identity = rel->identity;
}

static bool
next_row(SnapshotReader *reader)
{
	if (!reader->has_row && !reader->is_done)
	{
		reader->has_row = table_scan_getnextslot(reader->scan, ForwardScanDirection, reader->slot);
		reader->is_done = !reader->has_row;
	}
	return reader->has_row;
}

/* False: there is room for it only once what is in the buffer is handed out. */
static bool
put_row(SnapshotReader *reader, PgtdRelation *rel)
{
	PgtdState *state = reader->state;
	PgtdRow row = {.op = 'r', .rel = rel, .has_new = true, .lsn = state->tx.commit_lsn};
	ErrorContextCallback error_context = {error_context_stack, pgtd_add_row_context, &row};
	int before = state->batch.len;
	PgtdOut *out;

	error_context_stack = &error_context;
	slot_getallattrs(reader->slot);
	memcpy(rel->new_values, reader->slot->tts_values, sizeof(Datum) * rel->natts);
	memcpy(rel->new_nulls, reader->slot->tts_isnull, sizeof(bool) * rel->natts);
	for (int i = 0; i < rel->column_count; i++)
		rel->columns[i].is_unchanged = rel->columns[i].is_oversize = false;
	row.seq = state->tx.seq + 1;
	row.order = row.seq;

	out = start_message(state);
	if (!state->options.omit_oversize)
		out->limit = Min(out->limit, state->value_limit);
	state->options.envelope->put_row(state, out, &row);
	error_context_stack = error_context.previous;
	if (out->full && before > 0)
	{
		state->batch.len = before;
		return false;
	}
	if (out->full)
		pgtd_report_oversize(state);
	end_message(reader);
	state->tx.seq++;
	reader->has_row = false;
	return true;
}

/* Makes the next portion; there is none when the buffer stays empty. */
static void
make_portion(SnapshotReader *reader)
{
	PgtdState *state = reader->state;
	int wanted = state->options.batch_bytes > 0 ? state->options.batch_bytes : PORTION_BYTES;
	MemoryContext old_context = MemoryContextSwitchTo(state->row_context);
	int level = pgtd_enter_settings(state);
	PgtdRelation *rel = pgtd_get_relation(state->cache, reader->relation);

	pgtd_describe_relation(state->cache, rel, reader->relation);
	while (state->batch.len < wanted && next_row(reader))
	{
		bool is_written;

		CHECK_FOR_INTERRUPTS();
		put_schema(reader, rel);
		is_written = put_row(reader, rel);
		MemoryContextReset(state->row_context);
		if (!is_written)
			break;
	}
	if (state->options.batch_bytes > 0 && state->batch.len > 0)
		end_result(reader);
	AtEOXact_GUC(true, level);
	MemoryContextSwitchTo(old_context);
}

/* ---- the functions --------------------------------------------------------------------- */

/* Name, value, name, value, as pg_logical_slot_get_changes takes them. */
static List *
read_options(ArrayType *array)
{
	List *options = NIL;
	Datum *texts;
	int count;

	if (array_contains_nulls(array))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("options must not be null"),
						errhint("Give names and values in turn, as texts.")));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &texts, NULL, &count);
	if (count % 2 != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" needs a value", TextDatumGetCString(texts[count - 1])),
				 errhint("Give names and values in turn, as texts.")));
	for (int i = 0; i < count; i += 2)
		options = lappend(options,
						  makeDefElem(TextDatumGetCString(texts[i]),
									  (Node *) makeString(TextDatumGetCString(texts[i + 1])), -1));
	return options;
}

/* Does a slot with these options send rows that are inserted into the relation? */
static bool
slot_wants(PgtdState *state, Relation relation, bool is_stream_table)
{
	PgtdRelation *rel = pgtd_get_relation(state->cache, relation);

	if (rel->is_excluded)
		return false;
	if (state->options.publications != NIL)
		return rel->published.insert;
	return is_stream_table || rel->is_listed;
}

Datum
pgtd_slot_wants(PG_FUNCTION_ARGS)
{
	PgtdState *state;
	Relation relation;
	bool result;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("relation, is_stream_table and options must not be null"),
						errhint("Options are pairs of texts, or none.")));
	relation = try_relation_open(PG_GETARG_OID(0), AccessShareLock);
	/* It may have been dropped since it was found. */
	if (relation == NULL)
		PG_RETURN_BOOL(false);
	state = pgtd_make_session(read_options(PG_GETARG_ARRAYTYPE_P(2)));
	pgtd_load_session(state);
	result = slot_wants(state, relation, PG_GETARG_BOOL(1));
	pgtd_free_session(state);
	relation_close(relation, AccessShareLock);
	PG_RETURN_BOOL(result);
}

/*
 * What the rows say of where they come from: the transaction that reads them, and the byte before
 * the given position, which no record of the WAL begins at: before all that a slot sends that
 * begins there.
 */
static void
set_transaction(PgtdTransaction *tx, XLogRecPtr lsn)
{
	tx->number = 1;
	tx->is_snapshot = true;
	tx->commit_lsn = lsn > 0 ? lsn - 1 : 0;
	tx->end_lsn = tx->commit_lsn;
	tx->commit_time = GetCurrentTransactionStartTimestamp() + PGT_WIRE_PG_EPOCH_US;
}

static void
close_snapshot(Datum arg)
{
	SnapshotReader *reader = (SnapshotReader *) DatumGetPointer(arg);

	if (reader->scan == NULL)
		return;
	ExecDropSingleTupleTableSlot(reader->slot);
	table_endscan(reader->scan);
	UnregisterSnapshot(reader->snapshot);
	table_close(reader->relation, NoLock);
	reader->scan = NULL;
	pgtd_free_session(reader->state);
}

static SnapshotReader *
open_snapshot(FunctionCallInfo fcinfo, bool is_text)
{
	SnapshotReader *reader = palloc0(sizeof(SnapshotReader));
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	PgtdState *state;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(2))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("%s must not be null", PG_ARGISNULL(0) ? "name" : "options"),
						errhint("Name a table, and options in pairs of texts, or none.")));
	state = reader->state = pgtd_make_session(read_options(PG_GETARG_ARRAYTYPE_P(2)));
	pgtd_load_session(state);
	if (is_text && !pgtd_is_database_text(state))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("rows are not text of this database"),
						errdetail("Format \"%s\" is %s, the database's encoding is %s.",
								  state->options.format->name,
								  state->options.format->is_text ? "UTF-8" : "bytes",
								  GetDatabaseEncodingName()),
						errhint("Call pgtrickle.snapshot_rows_binary().")));
	set_transaction(&state->tx, PG_ARGISNULL(1) ? InvalidXLogRecPtr : PG_GETARG_LSN(1));

	reader->relation = open_table(PG_GETARG_TEXT_PP(0));
	reader->slot = table_slot_create(reader->relation, NULL);
	reader->snapshot = RegisterSnapshot(GetActiveSnapshot());
	reader->scan = table_beginscan(reader->relation, reader->snapshot, 0, NULL);
	reader->end_room = 64;
	reader->ends = palloc(sizeof(int) * reader->end_room);
	RegisterExprContextCallback(result->econtext, close_snapshot, PointerGetDatum(reader));
	return reader;
}

/* The next result, or NULL at the end. */
static struct varlena *
take_message(SnapshotReader *reader)
{
	StringInfo buf = &reader->state->batch;
	struct varlena *message;
	int end;

	if (reader->next == reader->end_count)
	{
		reader->next = reader->end_count = reader->given = 0;
		resetStringInfo(buf);
		pgtd_shrink_buffer(buf);
		make_portion(reader);
		if (reader->end_count == 0)
			return NULL;
	}
	end = reader->ends[reader->next++];
	message = (struct varlena *) cstring_to_text_with_len(buf->data + reader->given,
														  end - reader->given);
	reader->given = end;
	return message;
}

static Datum
snapshot_rows(FunctionCallInfo fcinfo, bool is_text)
{
	FuncCallContext *call;
	ReturnSetInfo *result;
	struct varlena *message;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old_context;

		call = SRF_FIRSTCALL_INIT();
		old_context = MemoryContextSwitchTo(call->multi_call_memory_ctx);
		call->user_fctx = open_snapshot(fcinfo, is_text);
		MemoryContextSwitchTo(old_context);
	}
	call = SRF_PERCALL_SETUP();
	message = take_message(call->user_fctx);
	if (message != NULL)
		SRF_RETURN_NEXT(call, PointerGetDatum(message));

	result = (ReturnSetInfo *) fcinfo->resultinfo;
	UnregisterExprContextCallback(result->econtext, close_snapshot,
								  PointerGetDatum(call->user_fctx));
	close_snapshot(PointerGetDatum(call->user_fctx));
	SRF_RETURN_DONE(call);
}

Datum
pgtd_snapshot_rows(PG_FUNCTION_ARGS)
{
	return snapshot_rows(fcinfo, true);
}

Datum
pgtd_snapshot_rows_binary(PG_FUNCTION_ARGS)
{
	return snapshot_rows(fcinfo, false);
}
