/*
 * diamond_fn.c: which stream tables are on paths that part and meet again.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "pgt_dependency.h"
#include "pgt_graph.h"
#include "pgt_security.h"
#include "pgt_stream_table.h"

#include "api_internal.h"

PG_FUNCTION_INFO_V1(pgt_diamond_groups);

PgtGraph *
pgt_diamond_load_graph(List *stream_tables)
{
	List *dependencies = pgt_dependency_list_all();
	int64_t *ids = palloc(sizeof(int64_t) * Max(list_length(stream_tables), 1));
	PgtEdge *edges = palloc(sizeof(PgtEdge) * Max(list_length(dependencies), 1));
	int nids = 0;
	int nedges = 0;
	ListCell *lc;

	foreach (lc, stream_tables)
		ids[nids++] = ((PgtStreamTable *) lfirst(lc))->relid;
	foreach (lc, dependencies)
	{
		PgtDependency *dependency = lfirst(lc);
		PgtStreamTable *st = pgt_stream_table_find_id(dependency->pgt_id);

		if (st == NULL)
			continue;
		edges[nedges].source = dependency->relid;
		edges[nedges++].target = st->relid;
	}
	return pgt_graph_make(ids, nids, edges, nedges, palloc);
}

static void
put_member(ReturnSetInfo *rsinfo, const PgtStreamTable *st, int group, bool converges)
{
	Datum values[6] = {0};
	bool nulls[6] = {0};

	values[0] = Int32GetDatum(group + 1);
	values[1] = CStringGetTextDatum(get_namespace_name(get_rel_namespace(st->relid)));
	values[2] = CStringGetTextDatum(get_rel_name(st->relid));
	values[3] = BoolGetDatum(converges);
	values[4] = CStringGetTextDatum(st->diamond_consistency);
	values[5] = CStringGetTextDatum(st->schedule != NULL ? st->schedule : "calculated");
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
pgt_diamond_groups(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	List *stream_tables = pgt_stream_table_list();
	PgtGraph *graph = pgt_diamond_load_graph(stream_tables);
	int *group = palloc(sizeof(int) * Max(graph->node_count, 1));
	bool *converges = palloc0(sizeof(bool) * Max(graph->node_count, 1));
	ListCell *lc;

	InitMaterializedSRF(fcinfo, 0);
	(void) pgt_graph_find_diamonds(graph, group, converges, palloc);
	foreach (lc, stream_tables)
	{
		const PgtStreamTable *st = lfirst(lc);
		int node = pgt_graph_find(graph, st->relid);

		if (group[node] >= 0 && get_rel_name(st->relid) != NULL && pgt_security_may_read(st->relid))
			put_member(rsinfo, st, group[node], converges[node]);
	}
	return (Datum) 0;
}
