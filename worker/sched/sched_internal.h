/*
 * sched_internal.h: what the files of worker/sched share.
 */
#ifndef SCHED_INTERNAL_H
#define SCHED_INTERNAL_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/lock.h"

#include "pgt_graph.h"
#include "pgt_ready.h"
#include "pgt_retry.h"
#include "pgt_schedule.h"
#include "pgt_sla.h"
#include "pgt_sla_state.h"
#include "pgt_stream_table.h"

/* ---- slots.c: which database has a coordinator ---- */

typedef struct CoordinatorSlot
{
	Oid database;				  /* InvalidOid: free */
	pid_t pid;					  /* 0: none runs */
	bool no_extension;			  /* looked in vain; until its catalog has news */
	VirtualTransactionId quiesce; /* whoever wants it away, while that transaction lasts */
	TimestampTz not_before;		  /* of the next start */
	int failures;				  /* starts in a row that did not last */
	TimestampTz started_at;
	TimestampTz ended_at; /* of one that had got as far as to enter the slot */
} CoordinatorSlot;

extern void pgt_slots_init(void);
/* The slot of a database, made if need be; NULL if all are in use. Holds PGT_LOCK_SCHED on return. */
extern CoordinatorSlot *pgt_slots_lock(Oid database);
extern void pgt_slots_unlock(void);
/* Frees the slots of databases that are not in the list. */
extern void pgt_slots_keep_only(List *databases);
/* A copy; false if the database has none. */
extern bool pgt_slots_get(Oid database, CoordinatorSlot *copy);

/* ---- launcher.c ---- */

/* Does pg_trickle.databases name it? */
extern bool pgt_launcher_wants(const char *database_name);

/* ---- quiesce.c ---- */

extern void pgt_quiesce_init(void);
/* Shall the coordinator of this database stay away? Forgets transactions that ended. */
extern bool pgt_quiesce_holds(Oid database);

struct PgtJob;
struct PgtLostAttempt;

/* ---- tables.c: the stream tables of this database, as the coordinator knows them ---- */

typedef struct SchedTable
{
	PgtStreamTable st;
	char *name; /* when it was loaded; for logs */
	PgtSchedule schedule;
	int node;	   /* in the graph */
	int diamond;   /* of paths that part and meet again, and are kept aligned; -1: none */
	bool atomic;   /* that diamond is never refreshed but as a whole */
	int group;	   /* that diamond while it is refreshed as a whole; -1: by itself */
	int nbranches; /* of a table where branches meet: the tables of its group */
	int *branches; /* that lead to it, as indexes */
	bool blind;	   /* may change without any news: look whenever it is due */
	bool must_rebuild;
	bool suspended;
	int errors;	  /* counted, in a row */
	int attempts; /* failures in a row, counted or not */
	PgtRetryEvent retry_event;
	TimestampTz retry_at; /* 0: none */
	bool retry_now;
	TimestampTz last_start; /* 0: never */
	TimestampTz due_at;		/* own schedule; calculated: of its consumers */
	bool pending;			/* there is news of an input */
	TimestampTz pending_since;
	TimestampTz busy_until; /* another session refreshes or locks it: look again then; 0: no */
	TimestampTz lock_since; /* attempts end at somebody's lock since then; 0: they do not */
	uint64 looked_xmin;		/* all older transactions were looked at, without news; 0: none */
	double last_ms;			/* of the last refresh */
	PgtUrgency urgency;		/* what the priority is made of */
	double priority;		/* to be refreshed, if it is ready: the largest first */
	bool running;			/* in a job that has not ended */
	bool was_pending;		/* before that job began */
	TimestampTz was_pending_since;
	bool suspect;	/* the server crashed while it was refreshed last */
	bool mixes;		/* reads stream tables and something else: they may show different snapshots */
	int together;	/* they did; so many turns more it is refreshed with them */
	int apart;		/* attempts in a row that found them so */
	int nupstreams; /* of one that mixes: all that it depends on, as indexes */
	int *upstreams;
	PgtSlaState *sla;		  /* NULL: has none */
	bool sla_news;			  /* it is to be written */
	int64 limit;			  /* its SLA, or what those of its readers leave; 0: none */
	TimestampTz change_since; /* the oldest change of a base that it has to take over; 0: none */
	TimestampTz was_change_since; /* of those that it took over when it began to run */
	TimestampTz stale_since;	  /* the oldest that it or what it reads does not show */
	TimestampTz start_at;		  /* what its SLA asks for; PGT_SLA_NEVER: nothing */
	TimestampTz ready_since;	  /* could have begun; 0: could not */
	PgtReadiness readiness;
	bool done;	 /* in this round */
	bool behind; /* falling_behind was told */
} SchedTable;

typedef struct SchedTables
{
	MemoryContext context;
	int count;
	SchedTable *tables; /* by pgt_id */
	PgtGraph *graph;
	int *table_of_node; /* index into tables, or -1 */
	int locked_out;		/* tables with lock_since */
	int *component;		/* of a node: those that read one another, for rounds; -1: a base */
	int ncomponents;
} SchedTables;

/* Reads the catalog; what is known of tables that are still there is kept. In a transaction. */
extern SchedTables *pgt_tables_load(SchedTables *old);
/* News of a source, or of a stream table that others read. */
extern void pgt_tables_note(SchedTables *tables, Oid relid, TimestampTz since);
/* Is there news of all readers of a source, and each only not due yet? */
extern bool pgt_tables_wait_for_time(const SchedTables *tables, Oid relid);
extern void pgt_tables_note_table(SchedTable *table, TimestampTz since);
/* Decides the readiness of every table. */
extern void pgt_tables_decide(SchedTables *tables, TimestampTz now);
/* By position in the order in which inputs come first; NULL for what is no stream table. */
extern SchedTable *pgt_tables_at(const SchedTables *tables, int position);
/*
 * Gives their next turn to the tables that had one, where no table that reads
 * them, or is read by them, still waits for its own. After pgt_tables_decide.
 */
extern bool pgt_tables_release(SchedTables *tables);
extern SchedTable *pgt_tables_find(SchedTables *tables, int64 pgt_id);
/*
 * When something becomes ready by time alone; PGT_SCHEDULE_NEVER if nothing will.
 * is_full: what is ready has to wait for a worker, who will tell.
 */
extern TimestampTz pgt_tables_next_time(SchedTables *tables, TimestampTz now, bool is_full);

/* ---- freshness.c: SLAs and tiers ---- */

extern void pgt_freshness_load(SchedTable *table, const SchedTable *known, const SchedTables *old,
							   TimestampTz now);
/* A change of a base table, or of what shows one. */
extern void pgt_freshness_note(SchedTable *table, TimestampTz since);
/* The interval of the schedule as the tier stretches it; PGT_SLA_NEVER if frozen. */
extern int64 pgt_freshness_interval(const SchedTable *table);
extern bool pgt_freshness_is_frozen(const SchedTable *table);
/* Since when tables are stale, and when those with an SLA have to begin. */
extern void pgt_freshness_find_starts(SchedTables *tables);
/* Makes due what an SLA asks for, and what that reads; limits of all. */
extern void pgt_freshness_decide_due(SchedTables *tables);
extern void pgt_freshness_begin(SchedTable *table);
extern void pgt_freshness_undo(SchedTable *table);
extern void pgt_freshness_end(SchedTables *tables, SchedTable *table, const struct PgtJob *job,
							  bool wrote);
/* When an SLA will be broken. */
extern TimestampTz pgt_freshness_next_time(const SchedTable *table);
/* Counts time, tells of SLAs that are broken meanwhile, writes what is to be kept. */
extern void pgt_freshness_watch(SchedTables *tables);

/* ---- choose.c: what to refresh next ---- */

/*
 * One table, or several that are to be refreshed to one snapshot, inputs first.
 * Returns how many; items has room for all. After pgt_tables_decide.
 */
extern int pgt_choose_next(SchedTables *tables, TimestampTz now, SchedTable **items);

/* ---- item.c: what is asked of a refresh, and what follows from its result ---- */

extern struct PgtJob *pgt_item_make_job(SchedTables *tables, SchedTable **items, int count,
										TimestampTz now);
extern void pgt_item_note_started(SchedTable *table);
extern void pgt_item_note_adopted(SchedTable *table);
extern void pgt_item_finish(SchedTables *tables, const struct PgtJob *job);
/* An attempt whose process is gone. */
extern void pgt_item_fail_lost(SchedTables *tables, const struct PgtLostAttempt *lost);

/* ---- dispatch.c: jobs for workers, and for the coordinator itself ---- */

/* Once: the jobs that another coordinator has left, and attempts that nobody ended. */
extern void pgt_dispatch_adopt(SchedTables *tables);
/* What has ended since. Before news are collected. */
extern void pgt_dispatch_collect(SchedTables *tables);
/* Refreshes here what is to be refreshed next; false if there is nothing. */
extern bool pgt_dispatch_here(SchedTables *tables);
/* Queues what is ready, starts workers. False if this process has to refresh by itself. */
extern bool pgt_dispatch_to_workers(SchedTables *tables);
/* Is there room in the queue? If not, a worker will wake this process. */
extern bool pgt_dispatch_is_full(void);
/* When to look again for workers that are missing; PG_INT64_MAX: no need. */
extern TimestampTz pgt_dispatch_next_look(void);
/* Nobody shall begin anything more. */
extern void pgt_dispatch_leave(void);

/* ---- look.c: what no news told of ---- */

/* Looks at all stream tables and buffers, in one transaction unless one raises an error. */
extern void pgt_look_run(SchedTables *tables);

/* ---- heartbeat.c: signs of life for consumers of logical decoding ---- */

/* Sends one if it is time. Returns how long to wait, at most wait_ms. Outside of transactions. */
extern long pgt_heartbeat_run(long wait_ms);

/* ---- alert.c ---- */

/* NOTIFY pg_trickle_alert at the commit of the current transaction; details are JSON members. */
extern void pgt_alert_send(const char *event, const SchedTable *table, const char *details);
/* The same for a table that is a source. */
extern void pgt_alert_send_source(const char *event, Oid relid, const char *details);
extern char *pgt_alert_quote(const char *text); /* as a JSON string */

/* ---- session.c: transactions of coordinators and workers ---- */

/* gone: ends the process; missing: there is no extension at all, else it is another one. */
extern void pgt_session_init(void (*gone)(bool missing));
/*
 * Begins a transaction in which the extension cannot be dropped; calls gone if
 * it has gone. It waits for no lock longer than that: errors lock_not_available.
 */
extern void pgt_session_begin(int lock_wait_ms);
extern void pgt_session_end(void);
/* Does something in such a transaction; false if a lock could not be had, and nothing was done. */
extern bool pgt_session_try(int lock_wait_ms, void (*work)(void *arg), void *arg);
/* The extension that this process serves; InvalidOid before its first transaction. */
extern Oid pgt_session_extension(void);

/* ---- coordinator.c ---- */

/* A buffer that may have something to empty; for the next housekeeping. */
extern void pgt_coordinator_want_prune(Oid relid);

/* While one waits for a lock, nothing is refreshed. */
#define LOCK_WAIT_MS 1000
#define SHORT_LOCK_WAIT_MS 20

/* The longest that a table is left alone because of somebody's lock. */
#define PGT_SCHED_LONGEST_PUT_OFF_MS 1000

#endif /* SCHED_INTERNAL_H */
