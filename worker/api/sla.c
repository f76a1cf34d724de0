/*
 * sla.c: will an SLA be kept? Said when it is set; whatever comes later, the
 * scheduler tells by alerts.
 */
#include "postgres.h"

#include "utils/lsyscache.h"

#include "pgt_frontier.h"
#include "pgt_graph.h"
#include "pgt_guc.h"
#include "pgt_security.h"
#include "pgt_sla.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

/* What refreshes took last, of the table, of those that it reads, and of all SLAs together. */
typedef struct Load
{
	int64 forecast; /* microseconds */
	int64 path;
	double utilisation;
} Load;

/* What the last refresh of each took, in microseconds, by node of the graph. */
static int64 *
list_durations(const PgtGraph *graph)
{
	int64 *durations = palloc0(sizeof(int64) * Max(graph->node_count, 1));
	PgtSecurity saved = pgt_security_become_extension_owner();
	PgtRows *rows = pgt_spi_select("SELECT d.pgt_relid, (f.last_duration_ms * 1000)::bigint"
								   " FROM pgtrickle.pgt_definitions d"
								   " JOIN pgtrickle.pgt_frontiers f USING (pgt_id)"
								   " WHERE f.last_duration_ms IS NOT NULL");

	pgt_security_restore(&saved);
	for (int i = 0; i < rows->nrows; i++)
	{
		int node = pgt_graph_find(graph, pgt_spi_oid(rows, i, 1));

		if (node >= 0)
			durations[node] = pgt_spi_int64(rows, i, 2);
	}
	return durations;
}

/* The longest way from a base to a node; each node is looked at once, inputs first. */
static int64
find_path(const PgtGraph *graph, const int64 *durations, int node)
{
	int64 *paths = palloc0(sizeof(int64) * Max(graph->node_count, 1));

	for (int i = 0; i < graph->node_count; i++)
	{
		int at = graph->order[i];
		PgtNodes inputs = pgt_graph_inputs(graph, at);

		for (int j = 0; j < inputs.count; j++)
			paths[at] = Max(paths[at], paths[inputs.items[j]]);
		paths[at] += durations[at];
	}
	return paths[node];
}

static Load
find_load(const PgtGraph *graph, List *stream_tables, const PgtStreamTable *st)
{
	const int64 *durations = list_durations(graph);
	int node = pgt_graph_find(graph, st->relid);
	Load load = {0};
	ListCell *lc;

	load.forecast = durations[node];
	load.path = find_path(graph, durations, node);
	foreach (lc, stream_tables)
	{
		const PgtStreamTable *other = lfirst(lc);

		if (other->sla_ms > 0)
			load.utilisation += pgt_sla_utilisation(
				other->sla_ms * 1000, durations[pgt_graph_find(graph, other->relid)], 0);
	}
	return load;
}

/* Why nothing refreshes it; NULL if something does. */
static const char *
find_standstill(const PgtStreamTable *st)
{
	PgtFrontierRow row;

	if (st->paused)
		return "paused";
	if (st->tier != NULL && strcmp(st->tier, "frozen") == 0)
		return "in the tier 'frozen'";
	if (pgt_frontier_find(st->pgt_id, &row) && row.suspended_reason != NULL)
		return "suspended";
	return NULL;
}

static void
warn_of_standstill(const PgtGraph *graph, List *stream_tables, const PgtStreamTable *st)
{
	bool *upstream = palloc0(sizeof(bool) * Max(graph->node_count, 1));
	ListCell *lc;

	pgt_graph_mark_upstream(graph, pgt_graph_find(graph, st->relid), upstream, palloc);
	upstream[pgt_graph_find(graph, st->relid)] = true;
	foreach (lc, stream_tables)
	{
		const PgtStreamTable *listed = lfirst(lc);
		const PgtStreamTable *other = listed->pgt_id == st->pgt_id ? st : listed;
		const char *standstill = find_standstill(other);
		bool is_frozen = standstill != NULL && !other->paused && standstill[0] == 'i';

		if (standstill == NULL || !upstream[pgt_graph_find(graph, other->relid)])
			continue;
		ereport(WARNING,
				(errmsg("the SLA of stream table \"%s\" will not be kept", get_rel_name(st->relid)),
				 other == st ? errdetail("It is %s.", standstill)
							 : errdetail("It reads stream table %s, which is %s.",
										 pgt_sqltext_relation(other->relid), standstill),
				 is_frozen ? errhint("Give it another tier with pgtrickle.alter_stream_table().")
						   : errhint("Resume it with pgtrickle.resume_stream_table().")));
		return;
	}
}

void
pgt_sla_warn(const PgtStreamTable *st)
{
	List *stream_tables = pgt_stream_table_list();
	PgtGraph *graph = pgt_diamond_load_graph(stream_tables);
	Load load;
	char detail[PGT_SLA_DETAIL];

	warn_of_standstill(graph, stream_tables, st);
	load = find_load(graph, stream_tables, st);
	switch (pgt_sla_check(st->sla_ms * 1000, load.forecast, load.path, load.utilisation,
						  Max(pgt_guc_max_parallel_workers, 1), detail))
	{
		case PGT_SLA_FEASIBLE:
			break;
		case PGT_SLA_TOO_SHORT:
		case PGT_SLA_PATH_TOO_LONG:
			ereport(WARNING,
					(errmsg("the SLA of stream table \"%s\" is too short", get_rel_name(st->relid)),
					 errdetail("%s", detail),
					 errhint("Set a longer one with pgtrickle.alter_stream_table(); "
							 "pgtrickle.explain_delta() tells what a refresh does.")));
			break;
		case PGT_SLA_TOO_FEW_WORKERS:
			ereport(WARNING,
					(errmsg("there are too few workers for all SLAs"), errdetail("%s", detail),
					 errhint("Raise pg_trickle.max_parallel_workers, or set longer SLAs.")));
			break;
	}
}
