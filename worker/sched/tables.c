/*
 * tables.c: the stream tables of this database, as the coordinator knows them.
 *
 * Read from the catalog after a change of it, with the graph of who reads
 * whom. What only the coordinator knows (news that came, attempts, waits)
 * survives a reload. Everything lives in one memory context, replaced as a
 * whole.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "pgt_clock.h"
#include "pgt_dependency.h"
#include "pgt_frontier.h"
#include "pgt_guc.h"
#include "pgt_source.h"
#include "pgt_wake.h"

#include "sched_internal.h"

#define SUSPECT_PUT_OFF_MS 100

static int64_t
next_due(const SchedTable *table, TimestampTz now)
{
	PgtSchedule schedule = table->schedule;

	if (schedule.kind == PGT_SCHEDULE_INTERVAL && table->sla == NULL)
		schedule.interval = pgt_freshness_interval(table);
	if (schedule.kind == PGT_SCHEDULE_INTERVAL && schedule.interval == PGT_SLA_NEVER)
		return PGT_SCHEDULE_NEVER;
	return pgt_schedule_next_due(&schedule,
								 table->last_start != 0 ? table->last_start : PGT_SCHEDULE_NO_TIME,
								 now, pgt_clock_zone_offset, pgt_clock_schedule_zone());
}

/* ---- Loading ---- */

static const SchedTable *
find_old(const SchedTables *old, int64 pgt_id)
{
	for (int i = 0; old != NULL && i < old->count; i++)
		if (old->tables[i].st.pgt_id == pgt_id)
			return &old->tables[i];
	return NULL;
}

static char *
get_name(Oid relid)
{
	char *schema = get_namespace_name(get_rel_namespace(relid));
	char *name = get_rel_name(relid);

	return schema != NULL && name != NULL ? quote_qualified_identifier(schema, name)
										  : psprintf("%u", relid);
}

static void
load_table(SchedTable *table, const PgtStreamTable *st, const SchedTables *old, TimestampTz now)
{
	const SchedTable *known = find_old(old, st->pgt_id);
	PgtFrontierRow row;
	PgtParseError error;

	pgt_frontier_get(st->pgt_id, &row);
	table->st = *st;
	table->name = get_name(st->relid);
	if (st->schedule == NULL ||
		pgt_schedule_parse(st->schedule, &table->schedule, &error) != PGT_SCHEDULE_PARSED)
		table->schedule.kind = PGT_SCHEDULE_CALCULATED;
	table->suspect = row.crashed;
	table->must_rebuild = !row.frontier.valid || row.rebuild_reason != NULL;
	table->suspended = row.suspended_reason != NULL;
	table->errors = row.consecutive_errors;
	table->retry_at = row.next_retry_at;
	table->blind = st->full_reason != NULL;
	table->last_start = row.last_refresh_at;
	/* What changed while nobody listened is unknown: look once. */
	table->pending = true;
	table->pending_since = now;
	pgt_freshness_load(table, known, old, now);
	/* Also of a failure that another coordinator has seen. */
	if (table->retry_at != 0)
		table->retry_event = pgt_retry_event(row.sqlstate);
	if (table->retry_event == PGT_RETRY_ON_DDL)
		pgt_wake_await_ddl();
	if (known == NULL)
		return;
	table->pending = known->pending;
	table->pending_since = known->pending_since;
	table->last_start = Max(table->last_start, known->last_start);
	table->last_ms = known->last_ms;
	table->behind = known->behind;
	table->lock_since = known->lock_since;
	table->busy_until = known->busy_until;
	table->together = known->together;
	table->apart = known->apart;
	table->running = known->running;
	table->was_pending = known->was_pending;
	table->was_pending_since = known->was_pending_since;
	if (table->retry_at != 0 || known->retry_at != 0)
	{
		table->attempts = known->attempts;
		table->retry_event = known->retry_event;
		table->retry_at = Max(table->retry_at, known->retry_at);
		/* The catalog changed, which may be what it waits for. */
		table->retry_now = known->retry_now || known->retry_event == PGT_RETRY_ON_DDL;
	}
	if (row.consecutive_errors == 0 && row.next_retry_at == 0)
	{
		/* Resumed, or refreshed by hand. */
		table->attempts = 0;
		table->retry_at = 0;
	}
	if (known->suspended && !table->suspended)
		pgt_alert_send("resumed", table, NULL);
}

static int
compare_tables(const void *left, const void *right)
{
	int64 a = ((const SchedTable *) left)->st.pgt_id;
	int64 b = ((const SchedTable *) right)->st.pgt_id;

	return a < b ? -1 : a > b;
}

SchedTable *
pgt_tables_find(SchedTables *tables, int64 pgt_id)
{
	SchedTable key = {.st.pgt_id = pgt_id};

	return bsearch(&key, tables->tables, tables->count, sizeof(SchedTable), compare_tables);
}

static void
load_graph(SchedTables *tables)
{
	List *dependencies = pgt_dependency_list_all();
	int64_t *ids = palloc(sizeof(int64_t) * Max(tables->count, 1));
	PgtEdge *edges = palloc(sizeof(PgtEdge) * Max(list_length(dependencies), 1));
	int nedges = 0;
	ListCell *lc;

	for (int i = 0; i < tables->count; i++)
		ids[i] = tables->tables[i].st.relid;
	foreach (lc, dependencies)
	{
		PgtDependency *dependency = lfirst(lc);
		SchedTable *table = pgt_tables_find(tables, dependency->pgt_id);

		if (table == NULL)
			continue;
		if (strcmp(dependency->type, "VIEW") != 0 && pgt_source_find(dependency->relid) == NULL)
			table->blind = true;
		edges[nedges].source = dependency->relid;
		edges[nedges++].target = table->st.relid;
	}
	tables->graph = pgt_graph_make(ids, tables->count, edges, nedges, palloc);
	tables->table_of_node = palloc(sizeof(int) * Max(tables->graph->node_count, 1));
	for (int i = 0; i < tables->graph->node_count; i++)
		tables->table_of_node[i] = -1;
	for (int i = 0; i < tables->count; i++)
	{
		tables->tables[i].node = pgt_graph_find(tables->graph, tables->tables[i].st.relid);
		tables->table_of_node[tables->tables[i].node] = i;
	}
}

/*
 * Tables on paths that part and meet again, so that the table where they meet
 * never sees one branch ahead of the other. Some may meet in several tables.
 */
static void
load_diamonds(SchedTables *tables)
{
	int nnodes = tables->graph->node_count;
	int *group = palloc(sizeof(int) * Max(nnodes, 1));
	bool *converges = palloc0(sizeof(bool) * Max(nnodes, 1));
	bool *upstream = palloc(sizeof(bool) * Max(nnodes, 1));
	bool *atomic = palloc0(sizeof(bool) * Max(nnodes, 1));

	(void) pgt_graph_find_diamonds(tables->graph, group, converges, palloc);
	for (int i = 0; i < tables->count; i++)
		tables->tables[i].diamond = tables->tables[i].group = -1;
	for (int i = 0; i < tables->count; i++)
	{
		SchedTable *table = &tables->tables[i];

		if (!converges[table->node] || strcmp(table->st.diamond_consistency, "none") == 0)
			continue;
		memset(upstream, false, sizeof(bool) * nnodes);
		pgt_graph_mark_upstream(tables->graph, table->node, upstream, palloc);
		table->branches = palloc(sizeof(int) * tables->count);
		for (int j = 0; j < tables->count; j++)
		{
			SchedTable *branch = &tables->tables[j];

			if (j == i || !upstream[branch->node] || group[branch->node] != group[table->node])
				continue;
			table->branches[table->nbranches++] = j;
			branch->diamond = group[table->node];
		}
		table->diamond = group[table->node];
		atomic[table->diamond] |= strcmp(table->st.diamond_consistency, "atomic") == 0;
	}
	for (int i = 0; i < tables->count; i++)
		tables->tables[i].atomic = tables->tables[i].diamond >= 0 &&
								   atomic[tables->tables[i].diamond];
	pfree(group);
	pfree(converges);
	pfree(upstream);
	pfree(atomic);
}

/*
 * Several sources, a stream table among them: refreshed alone they may show
 * different snapshots.
 */
static void
load_mixes(SchedTables *tables)
{
	int nnodes = tables->graph->node_count;
	bool *upstream = palloc(sizeof(bool) * Max(nnodes, 1));

	for (int i = 0; i < tables->count; i++)
	{
		SchedTable *table = &tables->tables[i];
		PgtNodes inputs = pgt_graph_inputs(tables->graph, table->node);
		bool any = false;

		for (int j = 0; j < inputs.count; j++)
			any = any || tables->table_of_node[inputs.items[j]] >= 0;
		table->mixes = any && inputs.count > 1 &&
					   strcmp(table->st.diamond_consistency, "none") != 0;
		if (!table->mixes)
			continue;
		memset(upstream, false, sizeof(bool) * nnodes);
		pgt_graph_mark_upstream(tables->graph, table->node, upstream, palloc);
		table->upstreams = palloc(sizeof(int) * tables->count);
		for (int j = 0; j < tables->count; j++)
			if (upstream[tables->tables[j].node])
				table->upstreams[table->nupstreams++] = j;
	}
	pfree(upstream);
}

SchedTables *
pgt_tables_load(SchedTables *old)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "pg_trickle scheduled tables",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	SchedTables *tables = palloc0(sizeof(SchedTables));
	List *list = pgt_stream_table_list();
	TimestampTz now = pgt_clock_now();
	ListCell *lc;

	/* Whoever restores a dump makes indexes that a refresh would find missing. */
	if (pgt_stream_table_any_unguarded(list))
		list = NIL;
	tables->context = context;
	tables->tables = palloc0(sizeof(SchedTable) * Max(list_length(list), 1));
	foreach (lc, list)
		load_table(&tables->tables[tables->count++], lfirst(lc), old, now);
	qsort(tables->tables, tables->count, sizeof(SchedTable), compare_tables);
	load_graph(tables);
	load_diamonds(tables);
	load_mixes(tables);
	tables->component = palloc(sizeof(int) * Max(tables->graph->node_count, 1));
	tables->ncomponents = pgt_graph_find_components(tables->graph, true, tables->component, palloc);
	MemoryContextSwitchTo(caller);
	if (old != NULL)
		MemoryContextDelete(old->context);
	return tables;
}

/* ---- News ---- */

void
pgt_tables_note_table(SchedTable *table, TimestampTz since)
{
	if (!table->pending)
		table->pending_since = since;
	table->pending = true;
	pgt_freshness_note(table, since);
	if (table->retry_event == PGT_RETRY_ON_INPUT)
		table->retry_now = true;
}

void
pgt_tables_note(SchedTables *tables, Oid relid, TimestampTz since)
{
	int node = pgt_graph_find(tables->graph, relid);
	PgtNodes readers;

	if (node < 0)
		return;
	readers = pgt_graph_outputs(tables->graph, node);
	for (int i = 0; i < readers.count; i++)
		if (tables->table_of_node[readers.items[i]] >= 0)
			pgt_tables_note_table(&tables->tables[tables->table_of_node[readers.items[i]]], since);
}

bool
pgt_tables_wait_for_time(const SchedTables *tables, Oid relid)
{
	int node = pgt_graph_find(tables->graph, relid);
	PgtNodes readers;

	if (node < 0)
		return false;
	readers = pgt_graph_outputs(tables->graph, node);
	for (int i = 0; i < readers.count; i++)
	{
		int index = tables->table_of_node[readers.items[i]];
		const SchedTable *table = index < 0 ? NULL : &tables->tables[index];

		if (table == NULL || !table->pending || table->running ||
			table->readiness != PGT_READY_NOT_DUE || table->retry_event == PGT_RETRY_ON_INPUT)
			return false;
	}
	return readers.count > 0;
}

/* ---- Deciding ---- */

SchedTable *
pgt_tables_at(const SchedTables *tables, int position)
{
	int index = tables->table_of_node[tables->graph->order[position]];

	return index < 0 ? NULL : &tables->tables[index];
}

/*
 * A time of a cron schedule that passed with nothing to do is done with; a
 * change that comes later waits for the next one.
 */
static void
skip_idle_times(SchedTable *table, TimestampTz now)
{
	TimestampTz due;

	if (table->schedule.kind != PGT_SCHEDULE_CRON || !table->pending || table->must_rebuild)
		return;
	while ((due = next_due(table, now)) <= now && due > table->last_start &&
		   table->pending_since > due)
		table->last_start = due;
}

static int64_t
length_of(const SchedTable *table, TimestampTz now)
{
	return pgt_schedule_length(&table->schedule, now, pgt_clock_zone_offset,
							   pgt_clock_schedule_zone());
}

/* A diamond has its turn as one. */
static void
give_turn(SchedTables *tables, SchedTable *table)
{
	table->done = false;
	for (int i = 0; i < tables->count && table->group >= 0; i++)
		if (tables->tables[i].group == table->group)
			tables->tables[i].done = false;
}

/*
 * What a table is refreshed together with comes along before its time; but not
 * far more often than its own schedule says, unless they make a diamond.
 */
static void
bring_along(SchedTables *tables, const SchedTable *table, TimestampTz now)
{
	int64_t length = length_of(table, now);
	bool begins = table->due_at <= now && table->retry_at <= now && table->busy_until <= now &&
				  !table->st.paused && !table->suspended && !table->running && !table->done;

	for (int i = 0; i < table->nupstreams; i++)
	{
		SchedTable *upstream = &tables->tables[table->upstreams[i]];

		if (pgt_freshness_is_frozen(upstream))
			continue;
		if (length_of(upstream, now) > length &&
			(table->diamond < 0 || upstream->diamond != table->diamond))
			continue;
		upstream->due_at = Min(upstream->due_at, table->due_at);
		/* Even if it had its turn in this round: this is not its own. */
		if (begins && upstream->done)
			give_turn(tables, upstream);
	}
}

/*
 * Due times; calculated tables are due with the first of their consumers, and
 * the branches of a diamond with the table where they meet.
 */
static void
decide_due(SchedTables *tables, TimestampTz now)
{
	int nnodes = tables->graph->node_count;
	bool *inherits = palloc0(sizeof(bool) * Max(nnodes, 1));
	int64_t *due = palloc(sizeof(int64_t) * Max(nnodes, 1));

	pgt_freshness_find_starts(tables);
	for (int i = 0; i < nnodes; i++)
		due[i] = PGT_GRAPH_NEVER;
	for (int i = 0; i < tables->count; i++)
	{
		SchedTable *table = &tables->tables[i];

		skip_idle_times(table, now);
		inherits[table->node] = table->schedule.kind == PGT_SCHEDULE_CALCULATED &&
								table->sla == NULL;
		due[table->node] = next_due(table, now);
		/* Without a schedule, its SLA alone says when. */
		if (table->sla != NULL && table->schedule.kind == PGT_SCHEDULE_CALCULATED)
			due[table->node] = table->start_at;
	}
	pgt_graph_inherit_least(tables->graph, inherits, now, due);
	for (int i = 0; i < tables->count; i++)
		tables->tables[i].due_at = due[tables->tables[i].node];
	pgt_freshness_decide_due(tables);
	for (int i = nnodes - 1; i >= 0; i--)
	{
		SchedTable *table = pgt_tables_at(tables, i);

		for (int j = 0; table != NULL && j < table->nbranches; j++)
		{
			SchedTable *branch = &tables->tables[table->branches[j]];

			if (!pgt_freshness_is_frozen(branch))
				branch->due_at = Min(branch->due_at, table->due_at);
		}
		if (table != NULL && table->together > 0)
			bring_along(tables, table, now);
	}
	pfree(inherits);
	pfree(due);
}

static void
decide_table(SchedTables *tables, SchedTable *table, TimestampTz now)
{
	PgtNodes inputs = pgt_graph_inputs(tables->graph, table->node);
	PgtReadyFacts facts = {0};

	facts.paused = table->st.paused;
	facts.suspended = table->suspended;
	facts.running = table->running || table->busy_until > now;
	facts.must_rebuild = table->must_rebuild && !pgt_freshness_is_frozen(table);
	facts.pending = table->pending ||
					(table->blind && table->schedule.kind != PGT_SCHEDULE_CALCULATED);
	facts.upstream = PGT_UPSTREAM_REACHED;
	facts.now = now;
	facts.due_at = facts.must_rebuild ? now : table->due_at;
	facts.retry_at = table->retry_at;
	facts.retry_now = table->retry_now;
	for (int i = 0; i < inputs.count; i++)
	{
		int index = tables->table_of_node[inputs.items[i]];
		PgtUpstream upstream;

		if (index < 0)
			continue;
		upstream = pgt_ready_as_upstream(tables->tables[index].readiness);
		facts.upstream = Max(facts.upstream, upstream);
		if (upstream == PGT_UPSTREAM_COMING)
			facts.pending = true;
	}
	table->readiness = pgt_ready_decide(&facts);
	if (table->done && table->readiness >= PGT_READY_STALLED)
		table->readiness = PGT_READY_UNCHANGED;
	if (table->readiness != PGT_READY_NOW)
		table->ready_since = table->running ? table->ready_since : 0;
	else if (table->ready_since == 0)
		table->ready_since = now;
}

/*
 * The clock may be set back: nothing was in the future, and no wait is longer
 * than it was meant to be.
 */
static void
fit_to_clock(SchedTable *table, TimestampTz now)
{
	table->last_start = Min(table->last_start, now);
	table->pending_since = Min(table->pending_since, now);
	table->lock_since = Min(table->lock_since, now);
	table->change_since = Min(table->change_since, now);
	table->busy_until = Min(table->busy_until,
							now + PGT_SCHED_LONGEST_PUT_OFF_MS * INT64CONST(1000));
	table->retry_at = Min(table->retry_at, now + PGT_RETRY_LONGEST_MS * INT64CONST(1000));
}

/*
 * Branches of an aligned diamond are refreshed by several workers at once, and the
 * table where they meet alone, until it finds them apart: then all of it is
 * refreshed in one transaction for some turns. An atomic one always is.
 */
static void
choose_groups(SchedTables *tables)
{
	int nnodes = Max(tables->graph->node_count, 1);
	bool *whole = palloc0(sizeof(bool) * nnodes);
	bool *runs = palloc0(sizeof(bool) * nnodes);

	for (int i = 0; i < tables->count; i++)
	{
		const SchedTable *table = &tables->tables[i];

		if (table->diamond < 0)
			continue;
		whole[table->diamond] |= table->atomic || table->together > 0 ||
								 pgt_guc_max_parallel_workers < 2;
		runs[table->diamond] |= table->running;
	}
	for (int i = 0; i < tables->count; i++)
	{
		SchedTable *table = &tables->tables[i];

		if (table->diamond >= 0 && whole[table->diamond])
			table->group = table->diamond;
		else if (table->diamond >= 0 && !runs[table->diamond])
			table->group = -1;
	}
	pfree(whole);
	pfree(runs);
}

/* A group is refreshed as one: while a member is, the others wait for their next turn. */
static void
decide_groups(SchedTables *tables, TimestampTz now)
{
	bool *busy = palloc0(sizeof(bool) * Max(tables->graph->node_count, 1));

	for (int i = 0; i < tables->count; i++)
	{
		const SchedTable *table = &tables->tables[i];

		if (table->group >= 0 && (table->running || table->busy_until > now))
			busy[table->group] = true;
	}
	for (int i = 0; i < tables->count; i++)
	{
		SchedTable *table = &tables->tables[i];

		if (table->group >= 0 && busy[table->group] && table->readiness >= PGT_READY_AFTER_UPSTREAM)
			table->readiness = PGT_READY_RUNNING;
	}
	pfree(busy);
}

void
pgt_tables_decide(SchedTables *tables, TimestampTz now)
{
	bool suspect_runs = false;

	tables->locked_out = 0;
	for (int i = 0; i < tables->count; i++)
	{
		SchedTable *table = &tables->tables[i];

		fit_to_clock(table, now);
		if (table->lock_since != 0)
			tables->locked_out++;
		suspect_runs = suspect_runs || (table->suspect && table->running);
	}
	/* One at a time, so that the next crash tells which one it was. */
	for (int i = 0; i < tables->count && suspect_runs; i++)
		if (tables->tables[i].suspect)
			tables->tables[i].busy_until = Max(tables->tables[i].busy_until,
											   now + SUSPECT_PUT_OFF_MS * INT64CONST(1000));
	choose_groups(tables);
	decide_due(tables, now);
	for (int i = 0; i < tables->graph->node_count; i++)
	{
		SchedTable *table = pgt_tables_at(tables, i);

		if (table != NULL)
			decide_table(tables, table, now);
	}
	decide_groups(tables, now);
}

/* ---- Rounds ---- */

/*
 * Has a component tables that wait for their turn, and something under way that
 * brings it? Whoever waits for a lock, or behind one that does, holds up nobody.
 */
static bool *
find_waiting(const SchedTables *tables)
{
	bool *waits = palloc0(sizeof(bool) * Max(tables->ncomponents, 1));
	bool *moves = palloc0(sizeof(bool) * Max(tables->ncomponents, 1));

	for (int i = 0; i < tables->count; i++)
	{
		const SchedTable *table = &tables->tables[i];
		int component = tables->component[table->node];

		if (component < 0)
			continue;
		if (table->running || table->readiness == PGT_READY_NOW)
			moves[component] = true;
		if (!table->running && table->readiness >= PGT_READY_AFTER_UPSTREAM)
			waits[component] = true;
	}
	for (int i = 0; i < tables->ncomponents; i++)
		waits[i] = waits[i] && moves[i];
	pfree(moves);
	return waits;
}

bool
pgt_tables_release(SchedTables *tables)
{
	bool *waits = find_waiting(tables);
	bool any = false;

	for (int i = 0; i < tables->count; i++)
	{
		SchedTable *table = &tables->tables[i];
		int component = tables->component[table->node];

		if (!table->done || (component >= 0 && waits[component]))
			continue;
		table->done = false;
		any = true;
	}
	pfree(waits);
	return any;
}

TimestampTz
pgt_tables_next_time(SchedTables *tables, TimestampTz now, bool is_full)
{
	TimestampTz next = PGT_SCHEDULE_NEVER;

	for (int i = 0; i < tables->count; i++)
	{
		SchedTable *table = &tables->tables[i];

		next = Min(next, pgt_freshness_next_time(table));
		if (table->running)
			continue;
		if (table->readiness == PGT_READY_NOW)
			next = is_full ? next : now;
		else if (table->readiness == PGT_READY_RUNNING && table->busy_until > now)
			next = Min(next, table->busy_until);
		else if (table->readiness == PGT_READY_BACKING_OFF)
			next = Min(next, table->retry_at);
		else if (table->readiness == PGT_READY_NOT_DUE)
			next = Min(next, table->due_at);
	}
	return next;
}
