/*
 * choose.c: what to refresh next, and what together with it to one snapshot.
 *
 * The stalest first. With it come, in one transaction:
 *
 *	- the tables of its diamond, always;
 *	- all that wait in its component, if they are small: a chain of ten then costs
 *	  one commit;
 *	- a table that reads it and something else too, if the two did not fit
 *	  together when it was refreshed alone (worker/refresh/base.c).
 *
 * Nobody who failed, or is suspected, gets company: with an error all of a
 * transaction is undone.
 */
#include "postgres.h"

#include "pgt_clock.h"

#include "pool_internal.h"
#include "sched_internal.h"

#define SMALL_MS 10.0

/* ---- Order ---- */

static bool
is_coming(const SchedTable *table)
{
	return table->readiness == PGT_READY_NOW || table->readiness == PGT_READY_AFTER_UPSTREAM;
}

/* Does it wait for a table outside of its group? */
static bool
waits_for_others(SchedTables *tables, const SchedTable *table)
{
	PgtNodes inputs = pgt_graph_inputs(tables->graph, table->node);

	for (int i = 0; i < inputs.count; i++)
	{
		int index = tables->table_of_node[inputs.items[i]];

		if (index >= 0 && tables->tables[index].group != table->group &&
			pgt_ready_as_upstream(tables->tables[index].readiness) == PGT_UPSTREAM_COMING)
			return true;
	}
	return false;
}

/*
 * The members of a group that are to be refreshed, inputs first; 0 if one has to
 * wait for something outside, -1 if one is being refreshed by somebody else or had
 * its turn in this round.
 */
static int
list_group(SchedTables *tables, int group, SchedTable **items)
{
	int count = 0;

	for (int i = 0; i < tables->graph->node_count; i++)
	{
		SchedTable *table = pgt_tables_at(tables, i);

		if (table == NULL || table->group != group)
			continue;
		if (table->readiness == PGT_READY_RUNNING || table->done)
			return -1;
		if (!is_coming(table))
			continue;
		if (waits_for_others(tables, table))
			return 0;
		items[count++] = table;
	}
	return count;
}

/*
 * How long it takes until the last of those that wait for it has been
 * refreshed, by what each took last: the critical path.
 */
static int64
forecast(SchedTables *tables, const SchedTable *table, int64 *paths)
{
	PgtNodes outputs = pgt_graph_outputs(tables->graph, table->node);
	int64 longest = 0;

	for (int i = 0; i < outputs.count; i++)
	{
		int index = tables->table_of_node[outputs.items[i]];

		if (index >= 0 && tables->tables[index].readiness == PGT_READY_AFTER_UPSTREAM)
			longest = Max(longest, paths[outputs.items[i]]);
	}
	return longest + (int64) (table->last_ms * 1000);
}

/* How stale it would be at the end of that path, in units of its interval. */
static void
rank(SchedTables *tables, TimestampTz now)
{
	int nnodes = tables->graph->node_count;
	int64 *paths = palloc0(sizeof(int64) * Max(nnodes, 1));

	for (int i = nnodes - 1; i >= 0; i--)
	{
		SchedTable *table = pgt_tables_at(tables, i);

		if (table == NULL || !is_coming(table))
			continue;
		paths[table->node] = forecast(tables, table, paths);
		if (table->limit > 0 && table->stale_since != 0)
			table->urgency = (PgtUrgency){table->stale_since, paths[table->node], table->limit,
										  true};
		else
			table->urgency = (PgtUrgency){table->pending_since, paths[table->node],
										  pgt_schedule_length(&table->schedule, now,
															  pgt_clock_zone_offset,
															  pgt_clock_schedule_zone()),
										  false};
		table->priority = pgt_sla_priority(&table->urgency, now);
	}
	pfree(paths);
}

/* The stalest first, whatever its level; last whatever may be locked. */
static SchedTable *
choose(SchedTables *tables, const bool *leave_out)
{
	SchedTable *best = NULL;
	PgtReadyItem best_item = {0};

	for (int i = 0; i < tables->count; i++)
	{
		SchedTable *table = &tables->tables[i];
		PgtReadyItem item = {0};

		if (table->readiness != PGT_READY_NOW || leave_out[i])
			continue;
		item.id = table->st.pgt_id;
		item.level = table->lock_since != 0;
		item.staleness = table->priority;
		item.deadline = table->limit > 0 && table->stale_since != 0
							? pgt_sla_deadline(table->stale_since, table->limit)
							: 0;
		if (best == NULL || pgt_ready_compare(&item, &best_item) < 0)
		{
			best = table;
			best_item = item;
		}
	}
	return best;
}

/* ---- Company ---- */

/* Would it be undone with others, or the others with it? */
static bool
is_sound(const SchedTable *table)
{
	return is_coming(table) && table->attempts == 0 && !table->suspect && !table->must_rebuild &&
		   table->lock_since == 0;
}

/* Is everything that it waits for among the members? */
static bool
fits(SchedTables *tables, const SchedTable *table, const bool *member)
{
	PgtNodes inputs = pgt_graph_inputs(tables->graph, table->node);

	for (int i = 0; i < inputs.count; i++)
	{
		int index = tables->table_of_node[inputs.items[i]];

		if (index >= 0 && !member[index] &&
			pgt_ready_as_upstream(tables->tables[index].readiness) == PGT_UPSTREAM_COMING)
			return false;
	}
	return true;
}

/* A diamond comes as a whole, or it waits as one. */
static bool
are_groups_whole(SchedTables *tables, const bool *member)
{
	for (int i = 0; i < tables->count; i++)
	{
		if (!member[i] || tables->tables[i].group < 0)
			continue;
		for (int j = 0; j < tables->count; j++)
			if (tables->tables[j].group == tables->tables[i].group && !member[j] &&
				(is_coming(&tables->tables[j]) ||
				 tables->tables[j].readiness == PGT_READY_RUNNING || tables->tables[j].done))
				return false;
	}
	return true;
}

/*
 * The sound ones of wanted (indexes) that wait for nothing else, inputs first;
 * 0 if the first is not among them, or a diamond would be torn.
 */
static int
list_members(SchedTables *tables, const SchedTable *first, const bool *wanted, SchedTable **items)
{
	bool *member = palloc0(sizeof(bool) * Max(tables->count, 1));
	int count = 0;

	for (int i = 0; i < tables->graph->node_count && count < PGT_JOB_ITEMS; i++)
	{
		SchedTable *table = pgt_tables_at(tables, i);

		if (table == NULL || !wanted[table - tables->tables] || !is_sound(table) ||
			!fits(tables, table, member))
			continue;
		member[table - tables->tables] = true;
		items[count++] = table;
	}
	if (!member[first - tables->tables] || !are_groups_whole(tables, member))
		count = 0;
	pfree(member);
	return count;
}

/* All that wait in the component of a table, if they are small. */
static int
list_small(SchedTables *tables, const SchedTable *first, SchedTable **items)
{
	bool *wanted = palloc0(sizeof(bool) * Max(tables->count, 1));
	double ms = 0;
	int count;

	for (int i = 0; i < tables->count; i++)
	{
		const SchedTable *table = &tables->tables[i];

		wanted[i] = tables->component[table->node] == tables->component[first->node] &&
					is_sound(table) && table->last_ms > 0;
	}
	count = list_members(tables, first, wanted, items);
	for (int i = 0; i < count; i++)
		ms += items[i]->last_ms;
	pfree(wanted);
	return ms <= SMALL_MS ? count : 0;
}

/* A diamond comes as a whole, with what it depends on. */
static void
want_groups(SchedTables *tables, bool *wanted)
{
	bool *upstream = palloc0(sizeof(bool) * Max(tables->graph->node_count, 1));

	for (int i = 0; i < tables->count; i++)
		for (int j = 0; j < tables->count && wanted[i] && tables->tables[i].group >= 0; j++)
		{
			const SchedTable *table = &tables->tables[j];

			if (table->group != tables->tables[i].group || upstream[table->node])
				continue;
			upstream[table->node] = true;
			pgt_graph_mark_upstream(tables->graph, table->node, upstream, palloc);
		}
	for (int i = 0; i < tables->count; i++)
		wanted[i] = wanted[i] || upstream[tables->tables[i].node];
	pfree(upstream);
}

/* What reads a table, and has to be refreshed together with what it reads. */
static int
list_together(SchedTables *tables, const SchedTable *first, SchedTable **items)
{
	bool *wanted = palloc0(sizeof(bool) * Max(tables->count, 1));
	int count;

	for (int i = 0; i < tables->count; i++)
	{
		SchedTable *table = &tables->tables[i];
		bool reads = table == first;

		if (table->together == 0 || !is_coming(table))
			continue;
		for (int j = 0; j < table->nupstreams; j++)
			reads = reads || &tables->tables[table->upstreams[j]] == first;
		wanted[i] = wanted[i] || reads;
		for (int j = 0; j < table->nupstreams && reads; j++)
			wanted[table->upstreams[j]] = true;
	}
	want_groups(tables, wanted);
	count = list_members(tables, first, wanted, items);
	pfree(wanted);
	return count;
}

/* ---- The choice ---- */

int
pgt_choose_next(SchedTables *tables, TimestampTz now, SchedTable **items)
{
	bool *leave_out = palloc0(sizeof(bool) * Max(tables->count, 1));
	SchedTable *first = NULL;
	SchedTable *table;
	int count = 0;

	rank(tables, now);
	while (count == 0 && (table = choose(tables, leave_out)) != NULL)
	{
		leave_out[table - tables->tables] = true;
		if ((count = list_small(tables, table, items)) > 0 ||
			(count = list_together(tables, table, items)) > 0)
			break;
		if (table->group < 0)
		{
			items[count++] = table;
			break;
		}
		count = list_group(tables, table->group, items);
		if (count == 0 && first == NULL)
			first = table;
		count = Max(count, 0);
	}
	/* Groups that wait for one another: one of them has to begin. */
	if (count == 0 && first != NULL)
		items[count++] = first;
	pfree(leave_out);
	return count;
}
