/*
 * pgt_refresh.h: bringing one stream table up to date.
 *
 * refresh lock -> source locks -> snapshot -> frontier -> nothing new? ->
 * decide -> deltas -> stages -> apply -> frontier, history. Runs in the
 * caller's transaction (READ COMMITTED), in a worker or a user's session.
 */
#ifndef PGT_REFRESH_H
#define PGT_REFRESH_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/snapshot.h"

#include "pgt_stream_table.h"
#include "utils/relcache.h"

typedef struct PgtRefreshRequest
{
	int64 pgt_id;
	const char *mode; /* NULL: as configured; "FULL", "DIFFERENTIAL" or "AUTO" asked by a user */
	const char *initiated_by; /* SCHEDULER MANUAL INITIAL */
	bool skip_locked;		  /* do not wait for a running refresh */
	/* An error of the delta that may not be one of the query: compute everything, at once. */
	bool recompute_on_error;
	int attempt;
	Snapshot snapshot; /* refresh to this one, after pgt_refresh_prepare; NULL: to a new one */
	TimestampTz snapshot_at; /* when it was taken */
	bool aligned; /* do nothing, result APART, if what it reads shows different snapshots */
	/*
	 * The table still has the rows of another query, without identity: compute
	 * everything, write the difference, and only then make the identity index.
	 */
	bool redefined;
} PgtRefreshRequest;

/* Reason of a refresh that computes everything, since the delta had an error. */
#define PGT_REFRESH_DELTA_ERROR "its changes could not be computed: "

typedef struct PgtRefreshResult
{
	const char *action; /* NO_DATA FULL DIFFERENTIAL REINITIALIZE SKIP APART */
	const char *reason; /* NULL, or why that action */
	int64 rows_in;
	int64 rows_inserted;
	int64 rows_updated;
	int64 rows_deleted;
	double duration_ms;
} PgtRefreshResult;

/*
 * Errors: object_not_in_prerequisite_state (REPEATABLE READ older than the frontier, standby),
 * insufficient_privilege (the owner lost SELECT on a source), whatever the query raises.
 */
extern PgtRefreshResult pgt_refresh_run(const PgtRefreshRequest *request);

/*
 * For several stream tables that are refreshed to one snapshot in one
 * transaction: prepare each, inputs first, then take the snapshot, then run
 * each, inputs first. Takes every lock that has to come before the snapshot;
 * false if another session refreshes it. Errors as pgt_refresh_run.
 */
extern bool pgt_refresh_prepare(int64 pgt_id);

/*
 * Would a refresh have anything to do? Yes when in doubt. Takes no lock that stays, writes nothing.
 * looked_xmin: of the snapshot of the last call that said no; 0 if there was none, or a refresh since.
 */
extern bool pgt_refresh_has_news(const PgtStreamTable *st, uint64 looked_xmin, Snapshot snapshot);

/*
 * Makes view, stages and captures of a stream table anew, before its refresh, if
 * they were made for another analysis of its query; set by whoever can. The
 * refresh lock is held.
 */
extern void (*pgt_refresh_make_anew)(int64 pgt_id);

/* Makes view and hidden tables parts of the table again, after pg_dump or pg_upgrade. */
extern void pgt_refresh_adopt(const PgtStreamTable *st);

/* The lock that serialises refreshes, ALTER and DROP of one stream table; until end of transaction. */
extern bool pgt_refresh_lock(int64 pgt_id, bool wait);

/*
 * What the table of a stage needs besides its columns: the index that its
 * identity needs (a PRIMARY KEY where keys are never null), the replica
 * identity that st asks for, and for an aggregate stage the table of its
 * states. is_stage: a hidden table, not the user's. Makes only what is missing.
 */
struct PgtStage;
extern void pgt_refresh_create_storage(const PgtStreamTable *st, const struct PgtStage *stage,
									   bool is_stage);
/* After st->identity was changed; errors object_not_in_prerequisite_state if there is no key. */
extern void pgt_refresh_set_identity(const PgtStreamTable *st);
/* Of this only the state table. */
extern void pgt_refresh_create_states(const PgtStreamTable *st, const struct PgtStage *stage);
/* The indexes that we made on the user's table. */
extern List *pgt_refresh_list_indexes(Oid relid);
/* Do these fit the last stage of another query? Else they have to be dropped before. */
extern bool pgt_refresh_fits_storage(Oid relid, const struct PgtStage *stage);
/* Takes index and replica identity from the user's table; a refresh with redefined follows. */
extern void pgt_refresh_drop_storage(const PgtStreamTable *st);
/* Rights on the hidden tables of a stream table: the owner gets them, former ones lose them. */
extern void pgt_refresh_hand_over(Oid relid, Oid owner);

/* published.c: warns of publications that would not let its rows change. */
extern void pgt_published_warn(Relation relation);

#endif /* PGT_REFRESH_H */
