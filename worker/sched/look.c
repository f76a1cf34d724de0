/*
 * look.c: the look at everything, now and then, for what no news told of.
 *
 * Transactions that were prepared before the server started, triggers that
 * somebody disabled, indexes that are gone, buffers that grow. All of it in one
 * transaction, which takes no id and keeps no lock, so that a thousand idle
 * stream tables cost what one does. What an error stops goes on behind the
 * table that raised it, whose refresh will tell.
 *
 * Owns the list of buffers that are too large, so that each is told of once.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "pgt_capture.h"
#include "pgt_clock.h"
#include "pgt_dependency.h"
#include "pgt_frontier.h"
#include "pgt_guc.h"
#include "pgt_refresh.h"
#include "pgt_source.h"

#include "sched_internal.h"

/* Files of buffers are opened for it, which is most of what a look costs. */
#define LOOKS_PER_BUFFER_LOOK 3

static List *large_buffers = NIL; /* OIDs of sources */

/* ---- Stream tables ---- */

static void
look_at_table(SchedTable *table, Snapshot snapshot, uint64 xmin, TimestampTz now)
{
	if (table->pending || table->st.paused || table->suspended)
		return;
	/* Nobody can tell but a refresh. */
	if (table->blind || pgt_refresh_has_news(&table->st, table->looked_xmin, snapshot))
		pgt_tables_note_table(table, now);
	else
		table->looked_xmin = xmin;
}

/* From *at on. */
static void
look_at_tables(SchedTables *tables, volatile int *at)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle look",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Snapshot snapshot = GetActiveSnapshot();
	PgtFrontier frontier = pgt_frontier_of_snapshot(snapshot);
	uint64 xmin = U64FromFullTransactionId(pgt_frontier_xmin(&frontier));
	TimestampTz now = pgt_clock_now();

	for (; *at < tables->count; (*at)++)
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(context);
		look_at_table(&tables->tables[*at], snapshot, xmin, now);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

/* ---- Buffers ---- */

/* Who has seen least of a source; NULL if nobody has seen any of it. */
static const SchedTable *
find_slowest(SchedTables *tables, Oid relid)
{
	const SchedTable *slowest = NULL;
	uint64 least = PG_UINT64_MAX;
	ListCell *lc;

	foreach (lc, pgt_dependency_consumers(relid))
	{
		int64 pgt_id = *(int64 *) lfirst(lc);
		PgtFrontierRow row;
		uint64 xmin;

		if (!pgt_frontier_find(pgt_id, &row) || !row.frontier.valid)
			continue;
		xmin = U64FromFullTransactionId(pgt_frontier_xmin(&row.frontier));
		if (xmin >= least)
			continue;
		least = xmin;
		for (int i = 0; i < tables->count; i++)
			if (tables->tables[i].st.pgt_id == pgt_id)
				slowest = &tables->tables[i];
	}
	return slowest;
}

static void
tell_of_growth(SchedTables *tables, Oid relid, int64 bytes)
{
	const SchedTable *slowest = find_slowest(tables, relid);
	const char *name = slowest != NULL ? slowest->name : "";

	ereport(LOG,
			(errmsg("the change buffer of \"%s\" has grown beyond pg_trickle.buffer_alert_size",
					get_rel_name(relid)),
			 slowest != NULL ? errdetail("Stream table %s has seen least of it.", name) : 0,
			 errhint("Resume, refresh or drop stream tables that are paused, suspended or slow.")));
	pgt_alert_send_source("buffer_growth", relid,
						  psprintf("\"buffer_bytes\":" INT64_FORMAT ",\"alert_bytes\":" INT64_FORMAT
								   ",\"slowest\":%s",
								   bytes, pgt_guc_buffer_alert_size * INT64CONST(1048576),
								   slowest != NULL ? pgt_alert_quote(name) : "null"));
}

static void
look_at_buffers(SchedTables *tables)
{
	int64 limit = pgt_guc_buffer_alert_size > 0 ? pgt_guc_buffer_alert_size * INT64CONST(1048576)
												: PG_INT64_MAX;
	List *large = NIL;
	ListCell *lc;
	MemoryContext caller;

	foreach (lc, pgt_source_list())
	{
		PgtSource *source = lfirst(lc);
		bool wants_prune;
		int64 bytes = pgt_capture_buffer_bytes(source, &wants_prune);

		if (wants_prune)
			pgt_coordinator_want_prune(source->relid);
		if (bytes <= limit)
			continue;
		large = lappend_oid(large, source->relid);
		if (!list_member_oid(large_buffers, source->relid))
			tell_of_growth(tables, source->relid, bytes);
	}
	caller = MemoryContextSwitchTo(TopMemoryContext);
	list_free(large_buffers);
	large_buffers = list_copy(large);
	MemoryContextSwitchTo(caller);
}

/* ---- Both ---- */

static void
look_in_transaction(SchedTables *tables, volatile int *at)
{
	static int looks = 0;

	pgt_session_begin(SHORT_LOCK_WAIT_MS);
	PushActiveSnapshot(GetTransactionSnapshot());
	look_at_tables(tables, at);
	if (looks++ % LOOKS_PER_BUFFER_LOOK == 0)
		look_at_buffers(tables);
	PopActiveSnapshot();
	pgt_session_end();
}

void
pgt_look_run(SchedTables *tables)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile int at = 0;
	volatile bool again = tables->count > 0;

	while (again)
	{
		again = false;
		PG_TRY();
		{
			look_in_transaction(tables, &at);
		}
		PG_CATCH();
		{
			/* Behind the last table: no error of any of them. */
			if (at >= tables->count)
				PG_RE_THROW();
			MemoryContextSwitchTo(caller);
			FlushErrorState();
			AbortCurrentTransaction();
			pgt_tables_note_table(&tables->tables[at++], pgt_clock_now());
			again = true;
		}
		PG_END_TRY();
		MemoryContextSwitchTo(caller);
	}
}
