/*
 * pgt_history.h: rows of pgt_refresh_history.
 */
#ifndef PGT_HISTORY_H
#define PGT_HISTORY_H

#include "postgres.h"

#include "utils/timestamp.h"

typedef struct PgtHistoryRow
{
	int64 refresh_id; /* 0: take the next */
	int64 pgt_id;
	TimestampTz start_time;
	TimestampTz end_time;		/* 0: still running */
	TimestampTz data_timestamp; /* 0: none */
	const char *action;
	const char *refresh_reason; /* NULL: none */
	const char *status;
	int64 rows_in;
	int64 rows_inserted;
	int64 rows_updated;
	int64 rows_deleted;
	const char *phases; /* JSON text, NULL: none */
	double forecast_ms; /* of a differential refresh; 0: none */
	double forecast_full_ms;
	const char *initiated_by;
	int attempt;
	int worker_pid; /* 0: this process */
	const char *sqlstate;
	const char *error_message;
} PgtHistoryRow;

extern int64 pgt_history_next_id(void);
/* Replaces the row of the same refresh_id, if there is one (an attempt that was RUNNING). */
extern void pgt_history_insert(const PgtHistoryRow *row);
/* Deletes rows older than the retention, at most limit of them; returns how many. */
extern int64 pgt_history_prune(int retention_days, int64 limit);
extern void pgt_history_delete(int64 pgt_id);

#endif /* PGT_HISTORY_H */
