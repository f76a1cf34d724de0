/*
 * pgt_frontier.h: how far a stream table is refreshed.
 *
 * F = (pg_snapshot, own_xid, own_cmd) + the cluster's system identifier. A
 * change row (xid, cmd) is *before* F iff xid = own_xid and cmd <= own_cmd, or
 * xid <> own_xid and it is visible in the snapshot. The own part makes chains
 * refreshed in one transaction, and refreshes inside a user's transaction,
 * exact. xids are those of top-level transactions.
 */
#ifndef PGT_FRONTIER_H
#define PGT_FRONTIER_H

#include "postgres.h"

#include "access/transam.h"
#include "storage/itemptr.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"


/* Numbers from which worker/policy/forecast.c makes forecasts; the catalog only keeps them. */
#define PGT_FRONTIER_MODEL_SIZE 34

typedef struct PgtFrontier
{
	bool valid;				   /* false: never refreshed, or not in this cluster */
	Datum snapshot;			   /* pg_snapshot */
	FullTransactionId own_xid; /* invalid if the refresh had none */
	int64 own_cmd;			   /* -1: no command of it */
} PgtFrontier;

/* The hot state of a stream table: the row of pgt_frontiers. */
typedef struct PgtFrontierRow
{
	PgtFrontier frontier;
	PgtFrontier base; /* see PgtFrontierUpdate */
	int64 epoch;
	TimestampTz data_timestamp;	 /* 0 if none */
	TimestampTz last_refresh_at; /* 0 if none */
	char *rebuild_reason;		 /* NULL: none */
	int consecutive_errors;
	char *suspended_reason;	   /* NULL: not suspended */
	TimestampTz next_retry_at; /* 0 if none */
	bool failed;			   /* the last attempt did */
	char sqlstate[6];		   /* with which; empty if it did not */
	bool crashed;			   /* the server did, while it was refreshed last */
	double last_full_ms;	   /* < 0 if unknown */
	double cost_model[PGT_FRONTIER_MODEL_SIZE];
	ItemPointerData tid; /* which version of the row this is, */
	TransactionId xmin;	 /* and who wrote it */
} PgtFrontierRow;

/* What one finished refresh writes into the row. */
typedef struct PgtFrontierUpdate
{
	PgtFrontier frontier; /* up to where changes of the sources are taken over */
	PgtFrontier base;	  /* what the rows show of the tables that are no stream tables; invalid if
						   * they show some as of one time, some as of another */
	TimestampTz data_timestamp;
	int64 refresh_id;
	const char *mode;			   /* FULL, DIFFERENTIAL, REINITIALIZE */
	bool new_epoch;				   /* stages were not maintained: make their rows stale */
	const PgtFrontierRow *rebuilt; /* the row whose rebuild_reason is settled, or NULL; if
									* somebody has written it since, the reason stays */
	double duration_ms;
	double full_ms;			  /* of that, to compute everything; 0: it was not */
	const double *cost_model; /* PGT_FRONTIER_MODEL_SIZE of them; NULL: stay as they are */
	int64 rows_in;
	int64 rows_inserted;
	int64 rows_updated;
	int64 rows_deleted;
} PgtFrontierUpdate;

/* Frontier of a registered snapshot for the current transaction. */
extern PgtFrontier pgt_frontier_of_snapshot(Snapshot snapshot);
extern bool pgt_frontier_contains(const PgtFrontier *frontier, FullTransactionId xid, uint32 cmd);
/* Was a frontier with these marks made in this cluster and database? */
extern bool pgt_frontier_is_local(int64 system_id, Oid database_id);
/* Oldest xid that may be invisible: everything older is before the frontier. */
extern FullTransactionId pgt_frontier_xmin(const PgtFrontier *frontier);
extern FullTransactionId pgt_frontier_xmax(const PgtFrontier *frontier);
/* Is every change before a also before b? (a refresh may only move forwards) True for equal ones. */
extern bool pgt_frontier_is_behind(const PgtFrontier *a, const PgtFrontier *b);

extern void pgt_frontier_create(int64 pgt_id);
/* last_sqlstate of a stream table during whose refresh the server crashed */
#define PGT_SQLSTATE_CRASHED "58P90"

/* Reads the row, the frontier is invalid if written by another cluster; false if there is none. */
extern bool pgt_frontier_find(int64 pgt_id, PgtFrontierRow *row);
/* The same as a snapshot sees it. */
extern bool pgt_frontier_find_at(int64 pgt_id, Snapshot snapshot, PgtFrontierRow *row);
/* The same, but creates it if missing (and waits for whoever is doing so). */
extern void pgt_frontier_get(int64 pgt_id, PgtFrontierRow *row);
extern void pgt_frontier_update(int64 pgt_id, const PgtFrontierUpdate *update);
/* The next refresh shall compute everything; keeps an earlier reason. */
extern void pgt_frontier_mark_rebuild(int64 pgt_id, const char *reason);
extern void pgt_frontier_record_error(int64 pgt_id, const char *sqlstate, const char *message,
									  bool counted, TimestampTz next_retry_at,
									  const char *suspended_reason);
extern void pgt_frontier_clear_error(int64 pgt_id);

/* The column cost_model; all 0 if it is not what this release writes. */
extern void pgt_frontier_read_model(Datum array, double *model);

#endif /* PGT_FRONTIER_H */
