/*
 * coordinator.c: the process that refreshes the stream tables of one database.
 *
 * A loop around a latch: collect news (shared memory only), decide which
 * tables are ready, refresh them one after the other, sleep until there is
 * news or something is due. Between refreshes there is no transaction, and
 * tables without news cost none. See README.md for the states.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "pgt_capture.h"
#include "pgt_clock.h"
#include "pgt_extension.h"
#include "pgt_guc.h"
#include "pgt_history.h"
#include "pgt_point.h"
#include "pgt_sched.h"
#include "pgt_source.h"
#include "pgt_wake.h"

#include "pool_internal.h"
#include "sched_internal.h"

#define PRUNE_INTERVAL_MS 5000
#define HISTORY_INTERVAL_MS 600000
#define WATCH_INTERVAL_MS 500
#define HISTORY_BATCH 10000

#define LONGEST_BREATH_MS 60000

static char *database_name = NULL; /* nobody renames it while it has a coordinator */
static SchedTables *tables = NULL;
static List *changed_sources = NIL; /* whose buffers may have something to empty */
static List *news_sources = NIL;	/* collected and not settled yet */
static MemoryContext source_context = NULL;
static bool is_looping = false;
static int errors_in_row = 0; /* outside of refreshes */

/* ---- Coming and going ---- */

static void
leave_slot(int code, Datum arg)
{
	CoordinatorSlot *slot = pgt_slots_lock(MyDatabaseId);

	if (slot != NULL && slot->pid == MyProcPid)
	{
		/* What ends the loop is termination, which is no failure to start. */
		if (is_looping)
			slot->failures = 0;
		slot->pid = 0;
		slot->ended_at = pgt_clock_now();
	}
	pgt_slots_unlock();
}

/* False if there is a coordinator already, or shall be none. */
static bool
enter_slot(Oid database)
{
	CoordinatorSlot *slot;
	bool free_slot;

	if (pgt_quiesce_holds(database))
		return false;
	slot = pgt_slots_lock(database);
	free_slot = slot != NULL && slot->pid == 0;
	if (free_slot)
		slot->pid = MyProcPid;
	pgt_slots_unlock();
	return free_slot;
}

static void
note_no_extension(void)
{
	CoordinatorSlot *slot = pgt_slots_lock(MyDatabaseId);

	if (slot != NULL)
		slot->no_extension = true;
	pgt_slots_unlock();
}

/*
 * Of its own will, so that the next one may come at once. Exit 0 is for ever,
 * which is right: the launcher starts coordinators anew.
 */
static void
leave(void)
{
	CoordinatorSlot *slot = pgt_slots_lock(MyDatabaseId);

	if (slot != NULL)
		slot->failures = slot->not_before = 0;
	pgt_slots_unlock();
	if (IsTransactionState())
		CommitTransactionCommand();
	pgt_dispatch_leave();
	proc_exit(0);
}

static void
leave_without_extension(bool missing)
{
	/* If it was made anew, the next coordinator serves it. */
	if (missing)
		note_no_extension();
	leave();
}

/*
 * Is it time? If so it will be again after the interval. A clock that was set
 * back makes nobody wait for longer than that.
 */
static bool
is_time(TimestampTz *next, int64 interval_ms)
{
	TimestampTz now = pgt_clock_now();
	int64 interval = interval_ms * INT64CONST(1000);

	if (now < *next && *next - now <= interval)
		return false;
	*next = now + interval;
	return true;
}

/* ---- News ---- */

void
pgt_coordinator_want_prune(Oid relid)
{
	MemoryContext caller = MemoryContextSwitchTo(source_context);

	changed_sources = list_append_unique_oid(changed_sources, relid);
	MemoryContextSwitchTo(caller);
}

static void
note_source(Oid relid, TimestampTz since, void *arg)
{
	MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

	news_sources = lappend_oid(news_sources, relid);
	MemoryContextSwitchTo(caller);
	pgt_tables_note(tables, relid, since);
}

/*
 * Sources whose readers all wait for their time: their writers need not wake
 * anybody until then. What was taken over, of the others, may go.
 */
static void
settle_news(void)
{
	TimestampTz now = pgt_clock_now();
	ListCell *lc;

	foreach (lc, news_sources)
	{
		if (pgt_guc_enabled && pgt_tables_wait_for_time(tables, lfirst_oid(lc)))
			pgt_wake_hold(lfirst_oid(lc), now);
		else
			pgt_coordinator_want_prune(lfirst_oid(lc));
	}
	list_free(news_sources);
	news_sources = NIL;
}

static void
reload_tables(void)
{
	pgt_session_begin(LOCK_WAIT_MS);
	PushActiveSnapshot(GetTransactionSnapshot());
	pgt_extension_check_version();
	if (database_name == NULL)
		database_name = MemoryContextStrdup(TopMemoryContext, get_database_name(MyDatabaseId));
	tables = pgt_tables_load(tables);
	PopActiveSnapshot();
	pgt_session_end();
}

static void
collect_news(void)
{
	PgtWakeNews news = pgt_wake_collect(note_source, NULL);

	if (news.catalog)
		reload_tables();
	/* What was news before it was known who reads it, or whose. */
	if (news.catalog || news.scan_all)
		pgt_look_run(tables);
}

/* ---- Refreshing ---- */

/* Each table at most once; what a refresh makes ready comes in the same round. */
static void
run_round(MemoryContext context)
{
	for (int i = 0; i < tables->count; i++)
		tables->tables[i].done = false;
	do
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(context);
		/* News of this refresh for its consumers, and of writers meanwhile. */
		pgt_dispatch_collect(tables);
		collect_news();
	} while (!ConfigReloadPending && !pgt_quiesce_holds(MyDatabaseId) && pgt_dispatch_here(tables));
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* By itself, as long as there shall be no workers or there are none to be had. */
static void
refresh_what_is_ready(MemoryContext context)
{
	if (!pgt_dispatch_to_workers(tables))
		run_round(context);
	else
		pgstat_report_activity(STATE_IDLE, NULL);
}

/* ---- Housekeeping, off the refresh path ---- */

static bool
prune_in_transaction(Oid relid)
{
	PgtSource *source;
	bool more = false;

	pgt_session_begin(SHORT_LOCK_WAIT_MS);
	PushActiveSnapshot(GetTransactionSnapshot());
	if (pgt_source_find(relid) != NULL)
		(void) pgt_capture_prune(relid);
	CommandCounterIncrement();
	source = pgt_source_find(relid);
	if (source != NULL)
		(void) pgt_capture_buffer_bytes(source, &more);
	PopActiveSnapshot();
	pgt_session_end();
	return more;
}

/* True if there is more to do, for another transaction. */
static bool
prune_source(Oid relid)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool more = false;

	CHECK_FOR_INTERRUPTS();
	PG_TRY();
	{
		more = prune_in_transaction(relid);
	}
	PG_CATCH();
	{
		/* Somebody creates or drops a stream table over it. The next look finds it again. */
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		FlushErrorState();
		AbortCurrentTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return more;
}

/* Most buffers are small: one transaction tells which are not. */
static List *
list_prunable(List *relids)
{
	List *prunable = NIL;
	ListCell *lc;

	pgt_session_begin(SHORT_LOCK_WAIT_MS);
	PushActiveSnapshot(GetTransactionSnapshot());
	foreach (lc, relids)
	{
		PgtSource *source = pgt_source_find(lfirst_oid(lc));
		bool wants_prune = false;
		MemoryContext caller;

		if (source != NULL)
			(void) pgt_capture_buffer_bytes(source, &wants_prune);
		caller = MemoryContextSwitchTo(source_context);
		if (wants_prune)
			prunable = lappend_oid(prunable, source->relid);
		MemoryContextSwitchTo(caller);
	}
	PopActiveSnapshot();
	pgt_session_end();
	return prunable;
}

static void
prune_sources(void)
{
	List *sources = changed_sources;
	ListCell *lc;

	changed_sources = NIL;
	foreach (lc, list_prunable(sources))
	{
		/* Segments that changed roles: the one that writers have left may go at once. */
		if (prune_source(lfirst_oid(lc)))
			(void) prune_source(lfirst_oid(lc));
	}
	MemoryContextReset(source_context);
}

static void
prune_history(void)
{
	pgt_session_begin(LOCK_WAIT_MS);
	PushActiveSnapshot(GetTransactionSnapshot());
	(void) pgt_history_prune(pgt_guc_history_days, HISTORY_BATCH);
	PopActiveSnapshot();
	pgt_session_end();
}

static void
keep_house(void)
{
	static TimestampTz next_prune = 0;
	static TimestampTz next_history = 0;
	static TimestampTz next_watch = 0;

	if (changed_sources != NIL && is_time(&next_prune, PRUNE_INTERVAL_MS))
		prune_sources();
	if (is_time(&next_watch, WATCH_INTERVAL_MS))
		pgt_freshness_watch(tables);
	if (tables->count > 0 && is_time(&next_history, HISTORY_INTERVAL_MS))
		prune_history();
}

/* ---- The loop ---- */

static long
time_to_wait(TimestampTz next_look)
{
	TimestampTz now = pgt_clock_now();
	TimestampTz next;

	/* News may have come for a table after its turn. */
	pgt_tables_decide(tables, now);
	if (pgt_tables_release(tables))
		pgt_tables_decide(tables, now);
	settle_news();
	next = Min(next_look, pgt_tables_next_time(tables, now, pgt_dispatch_is_full()));
	next = Min(next, pgt_dispatch_next_look());
	if (changed_sources != NIL)
		next = Min(next, now + PRUNE_INTERVAL_MS * INT64CONST(1000));
	if (next <= now)
		return 0;
	/* No longer than the look is away, whatever the clock does. */
	return (long) Min((next - now) / 1000 + 1, pgt_guc_scheduler_interval);
}

static void
run_loop(MemoryContext context)
{
	TimestampTz next_look = 0;

	for (;;)
	{
		long wait;
		long stats_wait;

		MemoryContextReset(context);

		/* There is no statement that could be cancelled. */
		QueryCancelPending = false;
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (pgt_quiesce_holds(MyDatabaseId) || !pgt_launcher_wants(database_name))
			leave();
		pgt_dispatch_collect(tables);
		collect_news();
		if (is_time(&next_look, pgt_guc_scheduler_interval))
			pgt_look_run(tables);
		if (pgt_guc_enabled)
			refresh_what_is_ready(context);
		keep_house();
		errors_in_row = 0;
		if (!pgt_guc_enabled)
			settle_news();
		wait = pgt_guc_enabled ? time_to_wait(next_look) : pgt_guc_scheduler_interval;
		wait = pgt_heartbeat_run(wait);
		/* Nobody else does it in a background worker, and autovacuum goes by it. */
		stats_wait = pgstat_report_stat(false);
		if (stats_wait > 0)
			wait = Min(wait, stats_wait);
		(void) pgt_clock_wait(wait, PG_WAIT_EXTENSION);
	}
}

void
pgt_sched_coordinator_main(Datum arg)
{
	Oid database = DatumGetObjectId(arg);
	MemoryContext context;
	sigjmp_buf local_sigjmp_buf;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	pgt_session_init(leave_without_extension);
	if (!enter_slot(database))
		proc_exit(0);
	before_shmem_exit(leave_slot, (Datum) 0);
	pgt_journal_enter();
	(void) set_config_option("application_name", "pg_trickle coordinator", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SET, true, 0, false);
	context = AllocSetContextCreate(TopMemoryContext, "pg_trickle coordinator",
									ALLOCSET_DEFAULT_SIZES);
	source_context = AllocSetContextCreate(TopMemoryContext, "pg_trickle changed sources",
										   ALLOCSET_DEFAULT_SIZES);

	/* An error outside a refresh: say so, take breath, begin anew. */
	if (sigsetjmp(local_sigjmp_buf, 1) != 0)
	{
		error_context_stack = NULL;
		HOLD_INTERRUPTS();
		disable_all_timeouts(false);
		EmitErrorReport();
		/* Outside of a transaction nobody else does. */
		LWLockReleaseAll();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		MemoryContextSwitchTo(context);
		if (pgt_quiesce_holds(MyDatabaseId))
			leave();
		(void) pgt_clock_wait(Min(1000L << Min(errors_in_row, 6), LONGEST_BREATH_MS),
							  PG_WAIT_EXTENSION);
		errors_in_row++;
		QueryCancelPending = false;
	}
	PG_exception_stack = &local_sigjmp_buf;
	MemoryContextSwitchTo(context);
	/* A shutdown, which an error that comes again and again would never let be seen. */
	CHECK_FOR_INTERRUPTS();
	reload_tables();
	if (!pgt_wake_register_coordinator())
		elog(LOG, "pg_trickle: nobody will wake the coordinator; it looks every %d ms",
			 pgt_guc_scheduler_interval);
	pgt_dispatch_adopt(tables);
	is_looping = true;
	run_loop(context);
}
