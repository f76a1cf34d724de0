/*
 * testing.c: capture and nothing else as SQL functions, for its own tests.
 * Empty in production builds.
 *
 * A consumer here is a row of pgt_definitions that the test made; reading
 * moves its frontier as a refresh does.
 */
#include "postgres.h"

#ifdef PGT_TEST_POINTS

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/tstoreReceiver.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "capture_internal.h"
#include "pgt_clock.h"
#include "pgt_capture.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"
#include "pgt_wake.h"

#define FUNCTION(name)                               \
	extern PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(name)

FUNCTION(pgt_test_capture_install);
FUNCTION(pgt_test_capture_release);
FUNCTION(pgt_test_capture_broken);
FUNCTION(pgt_test_capture_reason);
FUNCTION(pgt_test_capture_follow);
FUNCTION(pgt_test_capture_prune);
FUNCTION(pgt_test_capture_rows);
FUNCTION(pgt_test_capture_read);
FUNCTION(pgt_test_capture_write);
FUNCTION(pgt_test_wake_register);
FUNCTION(pgt_test_wake_catalog);
FUNCTION(pgt_test_wake_collect);
FUNCTION(pgt_test_wake_hold);

static Bitmapset *
get_columns(ArrayType *array)
{
	Bitmapset *columns = NULL;
	Datum *values;
	int count;

	deconstruct_array(array, INT2OID, 2, true, TYPALIGN_SHORT, &values, NULL, &count);
	for (int i = 0; i < count; i++)
		columns = bms_add_member(columns, DatumGetInt16(values[i]));
	return columns;
}

/* (relation, columns int2[], is_stream_table) */
Datum
pgt_test_capture_install(PG_FUNCTION_ARGS)
{
	LockRelationOid(PG_GETARG_OID(0), ShareRowExclusiveLock);
	pgt_capture_install(PG_GETARG_OID(0), get_columns(PG_GETARG_ARRAYTYPE_P(1)), PG_GETARG_BOOL(2));
	PG_RETURN_VOID();
}

Datum
pgt_test_capture_release(PG_FUNCTION_ARGS)
{
	pgt_capture_release(PG_GETARG_OID(0));
	PG_RETURN_VOID();
}

static Datum
return_text(FunctionCallInfo fcinfo, const char *text)
{
	if (text == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(text));
}

Datum
pgt_test_capture_broken(PG_FUNCTION_ARGS)
{
	return return_text(fcinfo, pgt_capture_broken(PG_GETARG_OID(0)));
}

Datum
pgt_test_capture_reason(PG_FUNCTION_ARGS)
{
	return return_text(fcinfo, pgt_capture_reason(PG_GETARG_OID(0)));
}

Datum
pgt_test_capture_follow(PG_FUNCTION_ARGS)
{
	pgt_capture_follow_children(PG_ARGISNULL(0) ? InvalidOid : PG_GETARG_OID(0));
	PG_RETURN_VOID();
}

Datum
pgt_test_capture_prune(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(pgt_capture_prune(PG_GETARG_OID(0)));
}

/* (relation, limit) */
Datum
pgt_test_capture_rows(PG_FUNCTION_ARGS)
{
	int64 rows;
	int64 bytes;

	pgt_capture_buffer_size(PG_GETARG_OID(0), PG_GETARG_INT64(1), &rows, &bytes);
	PG_RETURN_INT64(rows);
}

/* (relation, weight): writes every row of a "stream table" as its refresh would. */
Datum
pgt_test_capture_write(PG_FUNCTION_ARGS)
{
	Relation relation = table_open(PG_GETARG_OID(0), RowExclusiveLock);
	PgtCaptureWriter *writer = pgt_capture_writer_begin(relation);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	TableScanDesc scan = table_beginscan(relation, GetActiveSnapshot(), 0, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		pgt_capture_writer_add(writer, slot, PG_GETARG_INT32(1));
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	pgt_capture_writer_end(writer);
	table_close(relation, NoLock);
	PG_RETURN_BOOL(writer != NULL);
}

/* This session plays the coordinator. */
Datum
pgt_test_wake_register(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(pgt_wake_register_coordinator());
}

Datum
pgt_test_wake_catalog(PG_FUNCTION_ARGS)
{
	pgt_wake_catalog();
	PG_RETURN_VOID();
}

Datum
pgt_test_wake_hold(PG_FUNCTION_ARGS)
{
	pgt_wake_hold(PG_GETARG_OID(0), pgt_clock_now());
	PG_RETURN_VOID();
}

static void
collect_source(Oid relid, TimestampTz since, void *arg)
{
	appendStringInfo((StringInfo) arg, " %u", relid);
	if (since <= 0 || since > pgt_clock_now())
		appendStringInfoString((StringInfo) arg, "?");
}

/* (): "catalog", "all", numbers of relations */
Datum
pgt_test_wake_collect(PG_FUNCTION_ARGS)
{
	StringInfoData text;
	PgtWakeNews news;

	initStringInfo(&text);
	news = pgt_wake_collect(collect_source, &text);
	if (news.catalog)
		appendStringInfoString(&text, " catalog");
	if (news.scan_all)
		appendStringInfoString(&text, " all");
	PG_RETURN_TEXT_P(cstring_to_text(text.data));
}

/* The image of a row without its first column, as ROW(...)::text shows it. */
static char *
make_image(TupleTableSlot *slot)
{
	TupleDesc desc = slot->tts_tupleDescriptor;
	TupleDesc rest = CreateTemplateTupleDesc(desc->natts - 1);
	HeapTuple tuple;

	slot_getallattrs(slot);
	for (int i = 1; i < desc->natts; i++)
		TupleDescCopyEntry(rest, i, desc, i + 1);
	rest->tdtypeid = RECORDOID;
	rest = BlessTupleDesc(rest);
	tuple = heap_form_tuple(rest, slot->tts_values + 1, slot->tts_isnull + 1);
	return OidOutputFunctionCall(F_RECORD_OUT, HeapTupleGetDatum(tuple));
}

static void
return_row(ReturnSetInfo *result, int weight, const char *image)
{
	Datum values[] = {Int32GetDatum(weight), CStringGetTextDatum(image)};
	bool nulls[] = {false, false};

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
return_rows(ReturnSetInfo *result, Tuplestorestate *rows, TupleDesc desc)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);

	tuplestore_rescan(rows);
	while (tuplestore_gettupleslot(rows, true, false, slot))
	{
		bool isnull;
		int weight = DatumGetInt32(slot_getattr(slot, 1, &isnull));

		return_row(result, weight, make_image(slot));
	}
	ExecDropSingleTupleTableSlot(slot);
}

/* Everything, in the same snapshot. */
static void
return_all(ReturnSetInfo *result, Oid relid, Snapshot snapshot, Bitmapset *columns)
{
	StringInfoData sql;
	PgtPlan *plan;
	Tuplestorestate *rows = tuplestore_begin_heap(true, false, work_mem);
	DestReceiver *dest = CreateTuplestoreDestReceiver();
	int attnum = -1;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT 1");
	while ((attnum = bms_next_member(columns, attnum)) >= 0)
		appendStringInfo(&sql, ", %s", pgt_sqltext_column(relid, attnum));
	appendStringInfo(&sql, " FROM %s", pgt_sqltext_relation(relid));
	plan = pgt_spi_prepare(sql.data, NULL, 0, 0);
	SetTuplestoreDestReceiverParams(dest, rows, CurrentMemoryContext, false, NULL, NULL);
	(void) pgt_spi_run(plan, NULL, 0, snapshot, dest);
	return_rows(result, rows, pgt_spi_plan_desc(plan));
	pgt_spi_free_plan(plan);
	tuplestore_end(rows);
}

/*
 * (relation, pgt_id, columns int2[], full): rows (weight, image) since the
 * consumer's frontier; (0, ...) before everything if there is no delta.
 */
Datum
pgt_test_capture_read(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid relid = PG_GETARG_OID(0);
	int64 pgt_id = PG_GETARG_INT64(1);
	Bitmapset *columns = get_columns(PG_GETARG_ARRAYTYPE_P(2));
	PgtFrontierUpdate update = {.mode = "DIFFERENTIAL"};
	PgtFrontierRow row;
	PgtChangeSet *changes = NULL;
	Snapshot snapshot;
	const char *broken;

	InitMaterializedSRF(fcinfo, 0);
	LockRelationOid(relid, AccessShareLock);
	broken = pgt_capture_broken(relid);
	pgt_capture_mark(relid);
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	update.frontier = pgt_frontier_of_snapshot(snapshot);
	pgt_frontier_get(pgt_id, &row);
	if (broken != NULL)
		return_row(result, 0, broken);
	else if (!row.frontier.valid)
		return_row(result, 0, "first");
	else
	{
		changes = pgt_capture_read(relid, columns, &row.frontier, &update.frontier, snapshot);
		if (changes->truncated)
			return_row(result, 0, "truncated");
		else
			return_rows(result, changes->rows, changes->desc);
	}
	if (changes == NULL || changes->truncated)
		return_all(result, relid, snapshot, columns);
	if (changes != NULL)
		pgt_capture_free(changes);
	pgt_frontier_update(pgt_id, &update);
	UnregisterSnapshot(snapshot);
	return (Datum) 0;
}

#endif /* PGT_TEST_POINTS */
