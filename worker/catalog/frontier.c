/*
 * frontier.c: pgtrickle.pgt_frontiers, how far each stream table is refreshed,
 * and the arithmetic of frontiers.
 *
 * Every refresh reads its row and, when it did something, writes it: both go
 * around SQL (catalog_internal.h). The refresh lock serialises refreshes of one
 * stream table; marks and errors may come from anywhere at any time, so writers
 * lock the newest version of the row and change only their own columns.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "pgt_clock.h"
#include "pgt_frontier.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_stream_table.h"
#include "pgt_wake.h"

#include "catalog_internal.h"

enum
{
	COLUMN_PGT_ID = 1,
	COLUMN_SNAPSHOT,
	COLUMN_OWN_XID,
	COLUMN_OWN_CMD,
	COLUMN_SYSTEM_ID,
	COLUMN_DATABASE_ID,
	COLUMN_EPOCH,
	COLUMN_DATA_TIMESTAMP,
	COLUMN_LAST_REFRESH_AT,
	COLUMN_LAST_REFRESH_ID,
	COLUMN_EFFECTIVE_MODE,
	COLUMN_REBUILD_REASON,
	COLUMN_CONSECUTIVE_ERRORS,
	COLUMN_SUSPENDED_REASON,
	COLUMN_LAST_SQLSTATE,
	COLUMN_LAST_ERROR_MESSAGE,
	COLUMN_LAST_ERROR_AT,
	COLUMN_NEXT_RETRY_AT,
	COLUMN_LAST_DURATION_MS,
	COLUMN_LAST_FULL_MS,
	COLUMN_FULL_COUNT,
	COLUMN_DIFFERENTIAL_COUNT,
	COLUMN_REINITIALIZE_COUNT,
	COLUMN_FAILED_COUNT,
	COLUMN_ROWS_IN,
	COLUMN_ROWS_INSERTED,
	COLUMN_ROWS_UPDATED,
	COLUMN_ROWS_DELETED,
	COLUMN_COST_MODEL,
	COLUMN_BASE_SNAPSHOT,
	COLUMN_BASE_XID,
	COLUMN_BASE_CMD,
	COLUMN_COUNT = COLUMN_BASE_CMD
};

/* The type pg_snapshot as PostgreSQL lays it out (utils/adt/xid8funcs.c). */
typedef struct StoredSnapshot
{
	int32 vl_len_;
	uint32 nxip;
	FullTransactionId xmin;
	FullTransactionId xmax;
	FullTransactionId xip[FLEXIBLE_ARRAY_MEMBER]; /* running, ascending */
} StoredSnapshot;

#define STORED_SNAPSHOT(frontier) ((const StoredSnapshot *) DatumGetPointer((frontier)->snapshot))

/* ---- Arithmetic ---- */

/* xid is at most one epoch away from the next one to be assigned. */
static FullTransactionId
widen_xid(TransactionId xid, FullTransactionId next)
{
	uint32 epoch = EpochFromFullTransactionId(next);

	if (!TransactionIdIsNormal(xid))
		return FullTransactionIdFromEpochAndXid(0, xid);
	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return FullTransactionIdFromEpochAndXid(epoch, xid);
}

static int
compare_xids(const void *a, const void *b)
{
	FullTransactionId left = *(const FullTransactionId *) a;
	FullTransactionId right = *(const FullTransactionId *) b;

	if (FullTransactionIdPrecedes(left, right))
		return -1;
	return FullTransactionIdEquals(left, right) ? 0 : 1;
}

PgtFrontier
pgt_frontier_of_snapshot(Snapshot snapshot)
{
	PgtFrontier frontier = {.valid = true};
	FullTransactionId next = ReadNextFullTransactionId();
	StoredSnapshot *stored = palloc0(offsetof(StoredSnapshot, xip) +
									 sizeof(FullTransactionId) * snapshot->xcnt);

	stored->xmin = widen_xid(snapshot->xmin, next);
	stored->xmax = widen_xid(snapshot->xmax, next);
	for (uint32 i = 0; i < snapshot->xcnt; i++)
		stored->xip[stored->nxip++] = widen_xid(snapshot->xip[i], next);
	qsort(stored->xip, stored->nxip, sizeof(FullTransactionId), compare_xids);
	SET_VARSIZE(stored, offsetof(StoredSnapshot, xip) + sizeof(FullTransactionId) * stored->nxip);

	frontier.snapshot = PointerGetDatum(stored);
	frontier.own_xid = GetTopFullTransactionIdIfAny();
	frontier.own_cmd = (int64) snapshot->curcid - 1;
	return frontier;
}

static bool
is_running(const StoredSnapshot *snapshot, FullTransactionId xid)
{
	if (snapshot->nxip > 30)
		return bsearch(&xid, snapshot->xip, snapshot->nxip, sizeof(FullTransactionId),
					   compare_xids) != NULL;
	for (uint32 i = 0; i < snapshot->nxip; i++)
		if (FullTransactionIdEquals(snapshot->xip[i], xid))
			return true;
	return false;
}

bool
pgt_frontier_is_local(int64 system_id, Oid database_id)
{
	return system_id == (int64) GetSystemIdentifier() && database_id == MyDatabaseId;
}

bool
pgt_frontier_contains(const PgtFrontier *frontier, FullTransactionId xid, uint32 cmd)
{
	const StoredSnapshot *snapshot = STORED_SNAPSHOT(frontier);

	if (FullTransactionIdEquals(xid, frontier->own_xid))
		return (int64) cmd <= frontier->own_cmd;
	if (FullTransactionIdPrecedes(xid, snapshot->xmin))
		return true;
	if (!FullTransactionIdPrecedes(xid, snapshot->xmax))
		return false;
	return !is_running(snapshot, xid);
}

FullTransactionId
pgt_frontier_xmin(const PgtFrontier *frontier)
{
	FullTransactionId xmin = STORED_SNAPSHOT(frontier)->xmin;

	if (FullTransactionIdIsValid(frontier->own_xid) &&
		FullTransactionIdPrecedes(frontier->own_xid, xmin))
		return frontier->own_xid;
	return xmin;
}

FullTransactionId
pgt_frontier_xmax(const PgtFrontier *frontier)
{
	return STORED_SNAPSHOT(frontier)->xmax;
}

bool
pgt_frontier_is_behind(const PgtFrontier *a, const PgtFrontier *b)
{
	const StoredSnapshot *older = STORED_SNAPSHOT(a);
	const StoredSnapshot *newer = STORED_SNAPSHOT(b);

	if (FullTransactionIdPrecedes(newer->xmax, older->xmax))
		return false;
	/* What runs for b must not be finished for a. */
	for (uint32 i = 0; i < newer->nxip; i++)
		if (pgt_frontier_contains(a, newer->xip[i], 0))
			return false;
	if (FullTransactionIdIsValid(b->own_xid) && !FullTransactionIdEquals(a->own_xid, b->own_xid) &&
		pgt_frontier_contains(a, b->own_xid, PG_UINT32_MAX))
		return false;
	if (FullTransactionIdIsValid(a->own_xid) && a->own_cmd >= 0)
		return pgt_frontier_contains(b, a->own_xid, (uint32) a->own_cmd);
	return true;
}

/* ---- The row ---- */

void
pgt_frontier_create(int64 pgt_id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(pgt_id)};
	PgtSecurity saved = pgt_security_become_extension_owner();

	(void) pgt_spi_query("INSERT INTO pgtrickle.pgt_frontiers (pgt_id) VALUES ($1)"
						 " ON CONFLICT DO NOTHING",
						 1, types, values, NULL);
	pgt_security_restore(&saved);
}

/* at: the column of the snapshot; those of xid and command come behind it. */
static void
read_frontier(Datum *values, bool *nulls, AttrNumber at, PgtFrontier *frontier)
{
	if (nulls[at - 1] || nulls[COLUMN_SYSTEM_ID - 1] ||
		!pgt_frontier_is_local(DatumGetInt64(values[COLUMN_SYSTEM_ID - 1]),
							   DatumGetObjectId(values[COLUMN_DATABASE_ID - 1])))
		return;
	frontier->valid = true;
	frontier->snapshot = PointerGetDatum(PG_DETOAST_DATUM_COPY(values[at - 1]));
	if (!nulls[at])
		frontier->own_xid = DatumGetFullTransactionId(values[at]);
	frontier->own_cmd = nulls[at + 1] ? -1 : DatumGetInt64(values[at + 1]);
}

/* A model of another size is of another release: start anew. */
void
pgt_frontier_read_model(Datum datum, double *model)
{
	ArrayType *array = DatumGetArrayTypeP(datum);

	memset(model, 0, sizeof(double) * PGT_FRONTIER_MODEL_SIZE);
	if (ARR_NDIM(array) != 1 || ARR_DIMS(array)[0] != PGT_FRONTIER_MODEL_SIZE ||
		ARR_HASNULL(array) || ARR_ELEMTYPE(array) != FLOAT4OID)
		return;
	for (int i = 0; i < PGT_FRONTIER_MODEL_SIZE; i++)
		model[i] = ((float4 *) ARR_DATA_PTR(array))[i];
}

static Datum
model_datum(const double *model)
{
	Datum values[PGT_FRONTIER_MODEL_SIZE];

	for (int i = 0; i < PGT_FRONTIER_MODEL_SIZE; i++)
		values[i] = Float4GetDatum((float4) model[i]);
	return PointerGetDatum(construct_array(values, PGT_FRONTIER_MODEL_SIZE, FLOAT4OID,
										   sizeof(float4), true, TYPALIGN_INT));
}

static bool
visit_row(Relation relation, HeapTuple tuple, void *arg)
{
	PgtFrontierRow *row = arg;
	Datum values[COLUMN_COUNT];
	bool nulls[COLUMN_COUNT];

	pgt_catalog_check_columns(relation, COLUMN_COUNT);
	heap_deform_tuple(tuple, RelationGetDescr(relation), values, nulls);
	read_frontier(values, nulls, COLUMN_SNAPSHOT, &row->frontier);
	read_frontier(values, nulls, COLUMN_BASE_SNAPSHOT, &row->base);
	row->epoch = DatumGetInt64(values[COLUMN_EPOCH - 1]);
	if (!nulls[COLUMN_DATA_TIMESTAMP - 1])
		row->data_timestamp = DatumGetTimestampTz(values[COLUMN_DATA_TIMESTAMP - 1]);
	if (!nulls[COLUMN_LAST_REFRESH_AT - 1])
		row->last_refresh_at = DatumGetTimestampTz(values[COLUMN_LAST_REFRESH_AT - 1]);
	row->rebuild_reason = pgt_catalog_text(relation, tuple, COLUMN_REBUILD_REASON);
	row->consecutive_errors = DatumGetInt32(values[COLUMN_CONSECUTIVE_ERRORS - 1]);
	row->suspended_reason = pgt_catalog_text(relation, tuple, COLUMN_SUSPENDED_REASON);
	if (!nulls[COLUMN_NEXT_RETRY_AT - 1])
		row->next_retry_at = DatumGetTimestampTz(values[COLUMN_NEXT_RETRY_AT - 1]);
	row->failed = !nulls[COLUMN_LAST_SQLSTATE - 1];
	if (row->failed)
		strlcpy(row->sqlstate, TextDatumGetCString(values[COLUMN_LAST_SQLSTATE - 1]),
				sizeof(row->sqlstate));
	row->crashed = strcmp(row->sqlstate, PGT_SQLSTATE_CRASHED) == 0;
	row->last_full_ms = pgt_catalog_float8(relation, tuple, COLUMN_LAST_FULL_MS, -1);
	if (!nulls[COLUMN_COST_MODEL - 1])
		pgt_frontier_read_model(values[COLUMN_COST_MODEL - 1], row->cost_model);
	row->tid = tuple->t_self;
	row->xmin = HeapTupleHeaderGetXmin(tuple->t_data);
	return false;
}

bool
pgt_frontier_find(int64 pgt_id, PgtFrontierRow *row)
{
	return pgt_frontier_find_at(pgt_id, NULL, row);
}

bool
pgt_frontier_find_at(int64 pgt_id, Snapshot snapshot, PgtFrontierRow *row)
{
	Relation relation = pgt_catalog_open("pgt_frontiers", AccessShareLock);

	memset(row, 0, sizeof(*row));
	row->epoch = -1;
	if (relation == NULL)
		return false;
	pgt_catalog_scan(relation, "pgt_frontiers_pkey", COLUMN_PGT_ID, F_INT8EQ, Int64GetDatum(pgt_id),
					 snapshot, visit_row, row);
	table_close(relation, AccessShareLock);
	return row->epoch >= 0;
}

void
pgt_frontier_get(int64 pgt_id, PgtFrontierRow *row)
{
	if (pgt_frontier_find(pgt_id, row))
		return;
	pgt_frontier_create(pgt_id);
	if (!pgt_frontier_find(pgt_id, row))
		elog(ERROR, "could not find the frontier of stream table " INT64_FORMAT, pgt_id);
}

/* The row while it is being changed. */
typedef struct RowChange
{
	Relation relation;
	HeapTuple old;
	Datum values[COLUMN_COUNT];
	bool nulls[COLUMN_COUNT];
} RowChange;

static void
begin_change(RowChange *change, int64 pgt_id)
{
	change->relation = pgt_catalog_open("pgt_frontiers", RowExclusiveLock);
	change->old = change->relation == NULL
					  ? NULL
					  : pgt_catalog_lock_row(change->relation, "pgt_frontiers_pkey",
											 Int64GetDatum(pgt_id));
	if (change->old == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("stream table " INT64_FORMAT " was dropped", pgt_id)));
	pgt_catalog_check_columns(change->relation, COLUMN_COUNT);
	heap_deform_tuple(change->old, RelationGetDescr(change->relation), change->values,
					  change->nulls);
}

static void
end_change(RowChange *change)
{
	HeapTuple new = heap_form_tuple(RelationGetDescr(change->relation), change->values,
									change->nulls);

	CatalogTupleUpdate(change->relation, &change->old->t_self, new);
	CommandCounterIncrement();
	heap_freetuple(new);
	heap_freetuple(change->old);
	table_close(change->relation, NoLock);
}

static void
set_value(RowChange *change, AttrNumber column, Datum value)
{
	change->values[column - 1] = value;
	change->nulls[column - 1] = false;
}

static void
set_null(RowChange *change, AttrNumber column)
{
	change->nulls[column - 1] = true;
}

static void
set_text(RowChange *change, AttrNumber column, const char *text)
{
	change->values[column - 1] = pgt_catalog_text_datum(text, &change->nulls[column - 1]);
}

static void
add_count(RowChange *change, AttrNumber column, int64 count)
{
	set_value(change, column, Int64GetDatum(DatumGetInt64(change->values[column - 1]) + count));
}

/* Columns of the last error are about one that is not overcome; history has the others. */
static void
clear_errors(RowChange *change)
{
	set_value(change, COLUMN_CONSECUTIVE_ERRORS, Int32GetDatum(0));
	set_null(change, COLUMN_SUSPENDED_REASON);
	set_null(change, COLUMN_LAST_SQLSTATE);
	set_null(change, COLUMN_LAST_ERROR_MESSAGE);
	set_null(change, COLUMN_LAST_ERROR_AT);
	set_null(change, COLUMN_NEXT_RETRY_AT);
}

/* at: the column of the snapshot; those of xid and command come behind it. */
static void
set_frontier(RowChange *change, AttrNumber at, const PgtFrontier *frontier)
{
	if (!frontier->valid)
	{
		set_null(change, at);
		return;
	}
	set_value(change, at, frontier->snapshot);
	set_value(change, at + 1, FullTransactionIdGetDatum(frontier->own_xid));
	if (!FullTransactionIdIsValid(frontier->own_xid))
		set_null(change, at + 1);
	set_value(change, at + 2, Int64GetDatum(frontier->own_cmd));
	set_value(change, COLUMN_SYSTEM_ID, Int64GetDatum((int64) GetSystemIdentifier()));
	set_value(change, COLUMN_DATABASE_ID, ObjectIdGetDatum(MyDatabaseId));
}

static void
count_refresh(RowChange *change, const PgtFrontierUpdate *update)
{
	bool reinitialized = strcmp(update->mode, "REINITIALIZE") == 0;
	bool differential = strcmp(update->mode, "DIFFERENTIAL") == 0;

	add_count(change,
			  differential	  ? COLUMN_DIFFERENTIAL_COUNT
			  : reinitialized ? COLUMN_REINITIALIZE_COUNT
							  : COLUMN_FULL_COUNT,
			  1);
	if (update->full_ms > 0)
		set_value(change, COLUMN_LAST_FULL_MS, Float8GetDatum(update->full_ms));
	if (update->cost_model != NULL)
		set_value(change, COLUMN_COST_MODEL, model_datum(update->cost_model));
	add_count(change, COLUMN_ROWS_IN, update->rows_in);
	add_count(change, COLUMN_ROWS_INSERTED, update->rows_inserted);
	add_count(change, COLUMN_ROWS_UPDATED, update->rows_updated);
	add_count(change, COLUMN_ROWS_DELETED, update->rows_deleted);
}

/* A mark that was set again reads like the first, but is about something that came later. */
static bool
is_version(HeapTuple tuple, const PgtFrontierRow *row)
{
	return ItemPointerEquals(&tuple->t_self, (ItemPointer) &row->tid) &&
		   HeapTupleHeaderGetXmin(tuple->t_data) == row->xmin;
}

void
pgt_frontier_update(int64 pgt_id, const PgtFrontierUpdate *update)
{
	RowChange change;

	begin_change(&change, pgt_id);
	set_frontier(&change, COLUMN_SNAPSHOT, &update->frontier);
	set_frontier(&change, COLUMN_BASE_SNAPSHOT, &update->base);
	if (update->new_epoch)
		add_count(&change, COLUMN_EPOCH, 1);
	set_value(&change, COLUMN_DATA_TIMESTAMP, TimestampTzGetDatum(update->data_timestamp));
	set_value(&change, COLUMN_LAST_REFRESH_AT, TimestampTzGetDatum(pgt_clock_now()));
	set_value(&change, COLUMN_LAST_REFRESH_ID, Int64GetDatum(update->refresh_id));
	set_text(&change, COLUMN_EFFECTIVE_MODE, update->mode);
	set_value(&change, COLUMN_LAST_DURATION_MS, Float8GetDatum(update->duration_ms));
	if (update->rebuilt != NULL && is_version(change.old, update->rebuilt))
		set_null(&change, COLUMN_REBUILD_REASON);
	/* The coordinator may not know that somebody else's refresh ends its wait. */
	if (!change.nulls[COLUMN_NEXT_RETRY_AT - 1] || !change.nulls[COLUMN_SUSPENDED_REASON - 1])
		pgt_wake_catalog();
	clear_errors(&change);
	count_refresh(&change, update);
	end_change(&change);
}

void
pgt_frontier_mark_rebuild(int64 pgt_id, const char *reason)
{
	PgtFrontierRow row;
	RowChange change;

	/* In the middle of a restored dump dependencies may be there before definitions. */
	if (pgt_stream_table_find_id(pgt_id) == NULL)
		return;
	pgt_frontier_get(pgt_id, &row); /* makes the row if it is missing */
	begin_change(&change, pgt_id);
	if (change.nulls[COLUMN_REBUILD_REASON - 1])
		set_text(&change, COLUMN_REBUILD_REASON, reason);
	end_change(&change);
	pgt_wake_catalog();
}

void
pgt_frontier_record_error(int64 pgt_id, const char *sqlstate, const char *message, bool counted,
						  TimestampTz next_retry_at, const char *suspended_reason)
{
	RowChange change;

	begin_change(&change, pgt_id);
	add_count(&change, COLUMN_FAILED_COUNT, 1);
	if (counted)
		set_value(&change, COLUMN_CONSECUTIVE_ERRORS,
				  Int32GetDatum(DatumGetInt32(change.values[COLUMN_CONSECUTIVE_ERRORS - 1]) + 1));
	set_text(&change, COLUMN_LAST_SQLSTATE, sqlstate);
	set_text(&change, COLUMN_LAST_ERROR_MESSAGE, message);
	set_value(&change, COLUMN_LAST_ERROR_AT, TimestampTzGetDatum(pgt_clock_now()));
	set_value(&change, COLUMN_NEXT_RETRY_AT, TimestampTzGetDatum(next_retry_at));
	if (next_retry_at == 0)
		set_null(&change, COLUMN_NEXT_RETRY_AT);
	set_text(&change, COLUMN_SUSPENDED_REASON, suspended_reason);
	end_change(&change);
}

void
pgt_frontier_clear_error(int64 pgt_id)
{
	PgtFrontierRow row;
	RowChange change;

	pgt_frontier_get(pgt_id, &row);
	begin_change(&change, pgt_id);
	clear_errors(&change);
	end_change(&change);
	pgt_wake_catalog();
}
