/*
 * history.c: pgtrickle.pgt_refresh_history, one row per refresh that did
 * something or failed. Written around SQL, like the frontier.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "pgt_clock.h"
#include "pgt_extension.h"
#include "pgt_history.h"
#include "pgt_security.h"
#include "pgt_spi.h"

#include "catalog_internal.h"

enum
{
	COLUMN_REFRESH_ID = 1,
	COLUMN_PGT_ID,
	COLUMN_START_TIME,
	COLUMN_END_TIME,
	COLUMN_DATA_TIMESTAMP,
	COLUMN_ACTION,
	COLUMN_REFRESH_REASON,
	COLUMN_STATUS,
	COLUMN_ROWS_IN,
	COLUMN_ROWS_INSERTED,
	COLUMN_ROWS_UPDATED,
	COLUMN_ROWS_DELETED,
	COLUMN_DURATION_MS,
	COLUMN_PHASES,
	COLUMN_INITIATED_BY,
	COLUMN_WORKER_PID,
	COLUMN_ATTEMPT,
	COLUMN_SQLSTATE,
	COLUMN_ERROR_MESSAGE,
	COLUMN_FORECAST_MS,
	COLUMN_FORECAST_FULL_MS,
	COLUMN_COUNT = COLUMN_FORECAST_FULL_MS
};

int64
pgt_history_next_id(void)
{
	Oid sequence = get_relname_relid("pgt_refresh_history_refresh_id_seq",
									 pgt_extension_schema(PGT_SCHEMA));

	return nextval_internal(sequence, false);
}

static void
set_time(Datum *values, bool *nulls, AttrNumber column, TimestampTz time)
{
	values[column - 1] = TimestampTzGetDatum(time);
	nulls[column - 1] = time == 0;
}

static void
set_text(Datum *values, bool *nulls, AttrNumber column, const char *text)
{
	values[column - 1] = pgt_catalog_text_datum(text, &nulls[column - 1]);
}

static void
fill_row(const PgtHistoryRow *row, Datum *values, bool *nulls)
{
	memset(nulls, false, sizeof(bool) * COLUMN_COUNT);
	values[COLUMN_REFRESH_ID - 1] = Int64GetDatum(row->refresh_id != 0 ? row->refresh_id
																	   : pgt_history_next_id());
	values[COLUMN_PGT_ID - 1] = Int64GetDatum(row->pgt_id);
	set_time(values, nulls, COLUMN_START_TIME, row->start_time);
	set_time(values, nulls, COLUMN_END_TIME, row->end_time);
	set_time(values, nulls, COLUMN_DATA_TIMESTAMP, row->data_timestamp);
	set_text(values, nulls, COLUMN_ACTION, row->action);
	set_text(values, nulls, COLUMN_REFRESH_REASON, row->refresh_reason);
	set_text(values, nulls, COLUMN_STATUS, row->status);
	values[COLUMN_ROWS_IN - 1] = Int64GetDatum(row->rows_in);
	values[COLUMN_ROWS_INSERTED - 1] = Int64GetDatum(row->rows_inserted);
	values[COLUMN_ROWS_UPDATED - 1] = Int64GetDatum(row->rows_updated);
	values[COLUMN_ROWS_DELETED - 1] = Int64GetDatum(row->rows_deleted);
	values[COLUMN_DURATION_MS - 1] = Float8GetDatum(
		pgt_clock_ms_between(row->start_time, row->end_time));
	nulls[COLUMN_DURATION_MS - 1] = row->end_time == 0;
	nulls[COLUMN_PHASES - 1] = row->phases == NULL;
	if (row->phases != NULL)
		values[COLUMN_PHASES - 1] = DirectFunctionCall1(jsonb_in, CStringGetDatum(row->phases));
	values[COLUMN_FORECAST_MS - 1] = Float8GetDatum(row->forecast_ms);
	nulls[COLUMN_FORECAST_MS - 1] = row->forecast_ms <= 0;
	values[COLUMN_FORECAST_FULL_MS - 1] = Float8GetDatum(row->forecast_full_ms);
	nulls[COLUMN_FORECAST_FULL_MS - 1] = row->forecast_full_ms <= 0;
	set_text(values, nulls, COLUMN_INITIATED_BY, row->initiated_by);
	values[COLUMN_WORKER_PID - 1] = Int32GetDatum(row->worker_pid != 0 ? row->worker_pid
																	   : MyProcPid);
	values[COLUMN_ATTEMPT - 1] = Int32GetDatum(Max(row->attempt, 1));
	set_text(values, nulls, COLUMN_SQLSTATE, row->sqlstate);
	set_text(values, nulls, COLUMN_ERROR_MESSAGE, row->error_message);
}

void
pgt_history_insert(const PgtHistoryRow *row)
{
	Relation relation = pgt_catalog_open("pgt_refresh_history", RowExclusiveLock);
	Datum values[COLUMN_COUNT];
	bool nulls[COLUMN_COUNT];
	HeapTuple tuple;
	HeapTuple old = NULL;

	if (relation == NULL)
		elog(ERROR, "table pgtrickle.pgt_refresh_history does not exist");
	pgt_catalog_check_columns(relation, COLUMN_COUNT);
	fill_row(row, values, nulls);
	tuple = heap_form_tuple(RelationGetDescr(relation), values, nulls);
	if (row->refresh_id != 0)
		old = pgt_catalog_lock_row(relation, "pgt_refresh_history_pkey",
								   Int64GetDatum(row->refresh_id));
	if (old != NULL)
		CatalogTupleUpdate(relation, &old->t_self, tuple);
	else
		CatalogTupleInsert(relation, tuple);
	CommandCounterIncrement();
	heap_freetuple(tuple);
	table_close(relation, NoLock);
}

int64
pgt_history_prune(int retention_days, int64 limit)
{
	Oid types[] = {INT4OID, INT8OID};
	Datum values[] = {Int32GetDatum(retention_days), Int64GetDatum(limit)};
	PgtSecurity saved = pgt_security_become_extension_owner();
	PgtRows *rows;

	rows = pgt_spi_query("DELETE FROM pgtrickle.pgt_refresh_history WHERE refresh_id IN"
						 " (SELECT refresh_id FROM pgtrickle.pgt_refresh_history"
						 " WHERE start_time < clock_timestamp() - make_interval(days => $1)"
						 " LIMIT $2)",
						 2, types, values, NULL);
	pgt_security_restore(&saved);
	return rows->nrows;
}

void
pgt_history_delete(int64 pgt_id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(pgt_id)};
	PgtSecurity saved = pgt_security_become_extension_owner();

	(void) pgt_spi_query("DELETE FROM pgtrickle.pgt_refresh_history WHERE pgt_id = $1", 1, types,
						 values, NULL);
	pgt_security_restore(&saved);
}
