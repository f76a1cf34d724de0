/*
 * freshness.c: SLAs and tiers, as the coordinator keeps them.
 *
 * What follows from measured numbers is decided by worker/policy/sla.c; here is
 * where they come from, and what is done with the answers:
 *
 *	- since when there is a change of a base table that a stream table does not
 *	  show: carried from who took it over to who reads him;
 *	- due times: of what has an SLA by its tier, of what it reads with it;
 *	- after a refresh: gap, wait and duration, breach or recovery, another tier.
 *
 * The state of a table is in pgt_slas, so that it survives the coordinator and
 * users see it; it is written when tier or breach change, else every 5 s.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "pgt_clock.h"
#include "pgt_guc.h"

#include "pool_internal.h"
#include "sched_internal.h"

#define WRITE_INTERVAL_MS 5000

static int64
interval_of(const SchedTable *table)
{
	return table->schedule.kind == PGT_SCHEDULE_INTERVAL ? table->schedule.interval : 0;
}

static int64
sla_of(const SchedTable *table)
{
	return table->st.sla_ms * INT64CONST(1000);
}

static int64
expected(const SchedTable *table)
{
	return (int64) (table->last_ms * 1000);
}

static PgtTier
tier_of(const SchedTable *table)
{
	PgtTier tier = PGT_TIER_HOT;

	if (table->st.tier != NULL)
		(void) pgt_tier_parse(table->st.tier, &tier);
	else if (table->sla != NULL)
		tier = table->sla->tier;
	return tier;
}

/* ---- Loading ---- */

static void
set_tier(PgtSlaState *state, PgtTier tier, const char *reason, TimestampTz now)
{
	state->tier = tier;
	strlcpy(state->tier_reason, reason, sizeof(state->tier_reason));
	state->tier_since = now;
	state->written_at = 0; /* soon */
}

/* By what is known of its refreshes, and by what waits for a worker now. */
static void
assign_first(SchedTable *table, const SchedTables *old, TimestampTz now)
{
	PgtSlaState *state = table->sla;
	int64 work = 0;
	PgtSlaVerdict verdict;

	for (int i = 0; old != NULL && i < old->count; i++)
		if (old->tables[i].readiness == PGT_READY_NOW || old->tables[i].running)
			work += expected(&old->tables[i]);
	verdict = pgt_sla_assign(&state->stats, sla_of(table), interval_of(table),
							 pgt_sla_backlog(work, Max(pgt_guc_max_parallel_workers, 1)));
	set_tier(state, verdict.tier, verdict.reason, now);
	pgt_sla_note_tier(&state->stats, now);
}

void
pgt_freshness_load(SchedTable *table, const SchedTable *known, const SchedTables *old,
				   TimestampTz now)
{
	if (known != NULL)
	{
		table->change_since = known->change_since;
		table->was_change_since = known->was_change_since;
		table->ready_since = known->ready_since;
	}
	if (table->st.sla_ms == 0)
		return;
	table->sla = palloc0(sizeof(PgtSlaState));
	if (known != NULL && known->sla != NULL)
		*table->sla = *known->sla;
	else if (!pgt_sla_state_find(table->st.pgt_id, table->sla))
		assign_first(table, old, now);
	if (known != NULL && known->sla != NULL && known->st.sla_ms != table->st.sla_ms)
		assign_first(table, old, now);
}

/* ---- Changes that are not shown ---- */

static void
note_change(TimestampTz *since, TimestampTz change)
{
	if (change != 0 && (*since == 0 || change < *since))
		*since = change;
}

void
pgt_freshness_note(SchedTable *table, TimestampTz since)
{
	note_change(&table->change_since, since);
}

/* The oldest change that it or one that it reads has not taken over. */
static void
find_changes(SchedTables *tables)
{
	for (int i = 0; i < tables->graph->node_count; i++)
	{
		SchedTable *table = pgt_tables_at(tables, i);
		PgtNodes inputs;

		if (table == NULL)
			continue;
		table->stale_since = table->pending ? table->change_since : 0;
		if (table->running)
			note_change(&table->stale_since, table->was_change_since);
		inputs = pgt_graph_inputs(tables->graph, table->node);
		for (int j = 0; j < inputs.count; j++)
			if (tables->table_of_node[inputs.items[j]] >= 0)
				note_change(&table->stale_since,
							tables->tables[tables->table_of_node[inputs.items[j]]].stale_since);
	}
}

/* ---- Due times ---- */

int64
pgt_freshness_interval(const SchedTable *table)
{
	return pgt_tier_interval(tier_of(table), interval_of(table));
}

bool
pgt_freshness_is_frozen(const SchedTable *table)
{
	return table->st.tier != NULL && tier_of(table) == PGT_TIER_FROZEN;
}

/* How long it takes until it shows a change: its own refresh, and those of what waits before it. */
static int64
path_of(SchedTables *tables, const SchedTable *table, int64 *paths)
{
	PgtNodes inputs = pgt_graph_inputs(tables->graph, table->node);
	int64 longest = 0;

	for (int i = 0; i < inputs.count; i++)
	{
		int index = tables->table_of_node[inputs.items[i]];

		if (index >= 0 && tables->tables[index].stale_since != 0)
			longest = Max(longest, paths[inputs.items[i]]);
	}
	return longest + expected(table);
}

static int64
start_of(const SchedTable *table, int64 path)
{
	PgtSlaTerms terms = {.sla = sla_of(table), .forecast = path};

	terms.queue_wait = Max(pgt_sla_percentile(&table->sla->stats, PGT_SLA_QUEUE_WAIT, 0.95), 0);
	return pgt_sla_start(&terms, tier_of(table), table->stale_since);
}

/* What a table with an SLA waits for, begins as soon as it does. */
static void
pull_inputs(SchedTables *tables, const SchedTable *table, int64 *pulls)
{
	PgtNodes inputs = pgt_graph_inputs(tables->graph, table->node);

	for (int i = 0; i < inputs.count; i++)
	{
		int index = tables->table_of_node[inputs.items[i]];

		if (index >= 0 && tables->tables[index].stale_since != 0)
			pulls[inputs.items[i]] = Min(pulls[inputs.items[i]], pulls[table->node]);
	}
}

static void
find_limit(SchedTables *tables, SchedTable *table)
{
	PgtNodes outputs = pgt_graph_outputs(tables->graph, table->node);

	table->limit = sla_of(table);
	for (int i = 0; i < outputs.count; i++)
	{
		int index = tables->table_of_node[outputs.items[i]];

		if (index >= 0)
			table->limit = pgt_sla_inherit(table->limit, tables->tables[index].limit,
										   expected(&tables->tables[index]));
	}
}

void
pgt_freshness_find_starts(SchedTables *tables)
{
	int64 *paths = palloc0(sizeof(int64) * Max(tables->graph->node_count, 1));

	find_changes(tables);
	for (int i = 0; i < tables->graph->node_count; i++)
	{
		SchedTable *table = pgt_tables_at(tables, i);

		if (table == NULL)
			continue;
		paths[table->node] = path_of(tables, table, paths);
		table->start_at = table->sla != NULL ? start_of(table, paths[table->node]) : PGT_SLA_NEVER;
	}
	pfree(paths);
}

/* Without a schedule of its own it is also due with who reads it. */
static int64
due_of_readers(SchedTables *tables, const SchedTable *table)
{
	PgtNodes outputs = pgt_graph_outputs(tables->graph, table->node);
	int64 due = PGT_SCHEDULE_NEVER;

	for (int i = 0; i < outputs.count; i++)
	{
		int index = tables->table_of_node[outputs.items[i]];

		if (index >= 0)
			due = Min(due, tables->tables[index].due_at);
	}
	return due;
}

void
pgt_freshness_decide_due(SchedTables *tables)
{
	int nnodes = tables->graph->node_count;
	int64 *pulls = palloc(sizeof(int64) * Max(nnodes, 1));

	for (int i = 0; i < nnodes; i++)
		pulls[i] = PGT_SLA_NEVER;
	for (int i = nnodes - 1; i >= 0; i--)
	{
		SchedTable *table = pgt_tables_at(tables, i);

		if (table == NULL)
			continue;
		find_limit(tables, table);
		if (table->sla != NULL && table->schedule.kind == PGT_SCHEDULE_CALCULATED)
			table->due_at = Min(table->due_at, due_of_readers(tables, table));
		table->due_at = Min(table->due_at, Min(pulls[table->node], table->start_at));
		pulls[table->node] = Min(pulls[table->node], table->start_at);
		if (pgt_freshness_is_frozen(table))
			table->due_at = PGT_SCHEDULE_NEVER;
		pull_inputs(tables, table, pulls);
	}
	pfree(pulls);
}

/* ---- A refresh ---- */

void
pgt_freshness_begin(SchedTable *table)
{
	table->was_change_since = table->stale_since;
	table->change_since = 0;
}

/* Nothing came of it. */
void
pgt_freshness_undo(SchedTable *table)
{
	note_change(&table->change_since, table->was_change_since);
}

static bool
is_in_job(const PgtJob *job, int64 pgt_id)
{
	for (int i = 0; i < job->count; i++)
		if (job->items[i].pgt_id == pgt_id)
			return true;
	return false;
}

/* Who reads it has to show now what it shows. */
static void
pass_on(SchedTables *tables, const SchedTable *table, const PgtJob *job)
{
	PgtNodes outputs = pgt_graph_outputs(tables->graph, table->node);

	for (int i = 0; i < outputs.count; i++)
	{
		int index = tables->table_of_node[outputs.items[i]];

		if (index >= 0 && !is_in_job(job, tables->tables[index].st.pgt_id))
			note_change(&tables->tables[index].change_since, table->was_change_since);
	}
}

typedef struct Telling
{
	SchedTable *table;
	const char *event;
	const char *details;
} Telling;

static void
tell_in_transaction(void *arg)
{
	const Telling *telling = arg;

	pgt_alert_send(telling->event, telling->table, telling->details);
	pgt_sla_state_write(telling->table->st.pgt_id, telling->table->sla);
}

static void
tell(SchedTable *table, const char *event, const char *details, TimestampTz now)
{
	Telling telling = {table, event, details};

	table->sla->written_at = now;
	(void) pgt_session_try(SHORT_LOCK_WAIT_MS, tell_in_transaction, &telling);
}

static void
set_breached(SchedTable *table, bool breached, int64 gap, TimestampTz now)
{
	if (table->sla->breached == breached)
		return;
	table->sla->breached = breached;
	tell(table, breached ? "sla_breach" : "sla_recovered",
		 psprintf("\"staleness_ms\":" INT64_FORMAT ",\"sla_ms\":" INT64_FORMAT, gap / 1000,
				  table->st.sla_ms),
		 now);
}

static void
reassign(SchedTable *table, TimestampTz now)
{
	PgtSlaState *state = table->sla;
	const char *before = pgt_tier_name(state->tier);
	PgtSlaVerdict verdict;

	if (table->st.tier != NULL)
		return;
	verdict = pgt_sla_reassign(&state->stats, sla_of(table), interval_of(table), state->tier, now);
	if (!verdict.changed)
		return;
	set_tier(state, verdict.tier, verdict.reason, now);
	ereport(LOG, (errmsg("stream table %s goes from tier %s to %s", table->name, before,
						 pgt_tier_name(state->tier)),
				  errdetail("Reason: %s.", state->tier_reason)));
	tell(table, "tier_changed",
		 psprintf("\"from\":\"%s\",\"to\":\"%s\",\"reason\":%s", before, pgt_tier_name(state->tier),
				  pgt_alert_quote(state->tier_reason)),
		 now);
}

/* It shows now what was pending when it began. */
void
pgt_freshness_end(SchedTables *tables, SchedTable *table, const PgtJob *job, bool wrote)
{
	TimestampTz now = pgt_clock_now();
	PgtSlaCycle cycle = {0};

	if (wrote)
		pass_on(tables, table, job);
	if (table->sla == NULL || table->was_change_since == 0)
		return;
	cycle.gap = Max(job->ended_at - table->was_change_since, 0);
	cycle.queue_wait = table->ready_since == 0 ? 0 : Max(job->started_at - table->ready_since, 0);
	cycle.duration = Max(job->ended_at - job->started_at, 0);
	pgt_sla_note_cycle(&table->sla->stats, &cycle, sla_of(table));
	pgt_sla_record_refresh(&table->sla->record, now, table->was_change_since, sla_of(table));
	set_breached(table, cycle.gap > sla_of(table), cycle.gap, now);
	reassign(table, now);
	table->was_change_since = 0;
}

/* ---- While nothing is refreshed ---- */

TimestampTz
pgt_freshness_next_time(const SchedTable *table)
{
	if (table->sla == NULL || table->sla->breached || table->stale_since == 0)
		return PGT_SCHEDULE_NEVER;
	return pgt_sla_deadline(table->stale_since, sla_of(table)) + 1000;
}

static void
write_news(void *arg)
{
	SchedTables *tables = arg;

	for (int i = 0; i < tables->count; i++)
		if (tables->tables[i].sla_news)
			pgt_sla_state_write(tables->tables[i].st.pgt_id, tables->tables[i].sla);
}

static void
write_all(SchedTables *tables, TimestampTz now)
{
	for (int i = 0; i < tables->count; i++)
		if (tables->tables[i].sla_news)
			tables->tables[i].sla->written_at = now;
	if (!pgt_session_try(SHORT_LOCK_WAIT_MS, write_news, tables))
		return;
	for (int i = 0; i < tables->count; i++)
		tables->tables[i].sla_news = false;
}

void
pgt_freshness_watch(SchedTables *tables)
{
	TimestampTz now = pgt_clock_now();
	bool due = false;

	for (int i = 0; i < tables->count; i++)
	{
		SchedTable *table = &tables->tables[i];
		TimestampTz written;

		if (table->sla == NULL)
			continue;
		if (table->stale_since != 0)
		{
			pgt_sla_record_wait(&table->sla->record, now, table->stale_since, sla_of(table));
			table->sla_news = true;
			if (now - table->stale_since > sla_of(table))
				set_breached(table, true, now - table->stale_since, now);
		}
		written = table->sla->written_at;
		due = due || written == 0 || written > now ||
			  (table->sla_news && now - written >= WRITE_INTERVAL_MS * INT64CONST(1000));
		table->sla_news = table->sla_news || written == 0;
	}
	if (due)
		write_all(tables, now);
}
