/*
 * graph.c: builds the graph and walks it.
 *
 * Relies on nothing but the C library; memory comes from the caller's alloc
 * and is never freed here. See pgt_graph.h.
 */
#include "pgt_graph.h"

#include <stdlib.h>
#include <string.h>

static int compare_ids(const void *left, const void *right);
static int compare_edges(const void *left, const void *right);
static void collect_ids(PgtGraph *graph, const int64_t *ids, int id_count, const PgtEdge *edges,
						int edge_count, PgtAlloc alloc);
static void connect_nodes(PgtGraph *graph, const PgtEdge *edges, int edge_count, PgtAlloc alloc);
static void assign_levels(PgtGraph *graph, PgtAlloc alloc);
static void sort_by_level(PgtGraph *graph, PgtAlloc alloc);
static void mark_reached(PgtNodes (*neighbours)(const PgtGraph *, int), const PgtGraph *graph,
						 int node, bool *marked, PgtAlloc alloc);

/* Zero bytes would be a question of taste of the allocator. */
static void *
alloc_array(PgtAlloc alloc, int count, size_t size)
{
	size_t bytes = ((size_t) count + 1) * size;

	return memset(alloc(bytes), 0, bytes);
}

PgtGraph *
pgt_graph_make(const int64_t *ids, int id_count, const PgtEdge *edges, int edge_count,
			   PgtAlloc alloc)
{
	PgtGraph *graph = alloc_array(alloc, 1, sizeof(PgtGraph));

	collect_ids(graph, ids, id_count, edges, edge_count, alloc);
	connect_nodes(graph, edges, edge_count, alloc);
	assign_levels(graph, alloc);
	sort_by_level(graph, alloc);
	return graph;
}

static void
collect_ids(PgtGraph *graph, const int64_t *ids, int id_count, const PgtEdge *edges, int edge_count,
			PgtAlloc alloc)
{
	int count = 0;

	graph->ids = alloc_array(alloc, id_count + 2 * edge_count, sizeof(int64_t));
	for (int i = 0; i < id_count; i++)
		graph->ids[count++] = ids[i];
	for (int i = 0; i < edge_count; i++)
	{
		graph->ids[count++] = edges[i].source;
		graph->ids[count++] = edges[i].target;
	}
	qsort(graph->ids, count, sizeof(int64_t), compare_ids);
	for (int i = 0; i < count; i++)
	{
		if (i == 0 || graph->ids[i] != graph->ids[i - 1])
			graph->ids[graph->node_count++] = graph->ids[i];
	}
}

/* Both directions as arrays of arrays; an edge given twice counts once. */
static void
connect_nodes(PgtGraph *graph, const PgtEdge *edges, int edge_count, PgtAlloc alloc)
{
	PgtEdge *sorted = alloc_array(alloc, edge_count, sizeof(PgtEdge));
	int *filled = alloc_array(alloc, graph->node_count, sizeof(int));
	int count = 0;

	for (int i = 0; i < edge_count; i++)
	{
		sorted[i].source = pgt_graph_find(graph, edges[i].source);
		sorted[i].target = pgt_graph_find(graph, edges[i].target);
	}
	qsort(sorted, edge_count, sizeof(PgtEdge), compare_edges);
	for (int i = 0; i < edge_count; i++)
	{
		if (i == 0 || compare_edges(&sorted[i], &sorted[count - 1]) != 0)
			sorted[count++] = sorted[i];
	}

	graph->input_start = alloc_array(alloc, graph->node_count + 1, sizeof(int));
	graph->output_start = alloc_array(alloc, graph->node_count + 1, sizeof(int));
	graph->inputs = alloc_array(alloc, count, sizeof(int));
	graph->outputs = alloc_array(alloc, count, sizeof(int));
	for (int i = 0; i < count; i++)
	{
		graph->output_start[sorted[i].source + 1]++;
		graph->input_start[sorted[i].target + 1]++;
	}
	for (int node = 0; node < graph->node_count; node++)
	{
		graph->output_start[node + 1] += graph->output_start[node];
		graph->input_start[node + 1] += graph->input_start[node];
	}
	/* Sorted by (source, target), so the inputs come out ascending, too. */
	for (int i = 0; i < count; i++)
	{
		int target = (int) sorted[i].target;

		graph->outputs[i] = target;
		graph->inputs[graph->input_start[target] + filled[target]++] = (int) sorted[i].source;
	}
}

/* Longest distance from a base; nodes on or behind a cycle never become free. */
static void
assign_levels(PgtGraph *graph, PgtAlloc alloc)
{
	int *missing = alloc_array(alloc, graph->node_count, sizeof(int));
	int *queue = alloc_array(alloc, graph->node_count, sizeof(int));
	int queued = 0;

	graph->level = alloc_array(alloc, graph->node_count, sizeof(int));
	for (int node = 0; node < graph->node_count; node++)
	{
		missing[node] = pgt_graph_inputs(graph, node).count;
		if (missing[node] == 0)
			queue[queued++] = node;
	}
	for (int next = 0; next < queued; next++)
	{
		PgtNodes outputs = pgt_graph_outputs(graph, queue[next]);
		int level = graph->level[queue[next]] + 1;

		for (int i = 0; i < outputs.count; i++)
		{
			int output = outputs.items[i];

			if (graph->level[output] < level)
				graph->level[output] = level;
			if (--missing[output] == 0)
				queue[queued++] = output;
		}
	}
	graph->has_cycle = queued < graph->node_count;
}

/* A counting sort is stable, and node numbers ascend with the ids. */
static void
sort_by_level(PgtGraph *graph, PgtAlloc alloc)
{
	int *start = alloc_array(alloc, graph->node_count + 1, sizeof(int));

	graph->order = alloc_array(alloc, graph->node_count, sizeof(int));
	for (int node = 0; node < graph->node_count; node++)
		start[graph->level[node] + 1]++;
	for (int level = 0; level < graph->node_count; level++)
		start[level + 1] += start[level];
	for (int node = 0; node < graph->node_count; node++)
		graph->order[start[graph->level[node]]++] = node;
}

int
pgt_graph_find(const PgtGraph *graph, int64_t id)
{
	int low = 0;
	int high = graph->node_count - 1;

	while (low <= high)
	{
		int middle = low + (high - low) / 2;

		if (graph->ids[middle] == id)
			return middle;
		if (graph->ids[middle] < id)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return -1;
}

PgtNodes
pgt_graph_inputs(const PgtGraph *graph, int node)
{
	return (PgtNodes){graph->inputs + graph->input_start[node],
					  graph->input_start[node + 1] - graph->input_start[node]};
}

PgtNodes
pgt_graph_outputs(const PgtGraph *graph, int node)
{
	return (PgtNodes){graph->outputs + graph->output_start[node],
					  graph->output_start[node + 1] - graph->output_start[node]};
}

/* Depth first from the smallest node on, with a stack of our own: chains may be long. */
int
pgt_graph_find_cycle(const PgtGraph *graph, int *cycle, PgtAlloc alloc)
{
	enum
	{
		UNSEEN,
		ON_PATH,
		DONE
	} *state = alloc_array(alloc, graph->node_count, sizeof(*state));
	int *path = alloc_array(alloc, graph->node_count, sizeof(int));
	int *visited = alloc_array(alloc, graph->node_count, sizeof(int));

	for (int root = 0; root < graph->node_count; root++)
	{
		int depth = 0;

		if (state[root] != UNSEEN)
			continue;
		path[depth++] = root;
		state[root] = ON_PATH;
		while (depth > 0)
		{
			int node = path[depth - 1];
			PgtNodes outputs = pgt_graph_outputs(graph, node);
			int output;

			if (visited[node] == outputs.count)
			{
				state[node] = DONE;
				depth--;
				continue;
			}
			output = outputs.items[visited[node]++];
			if (state[output] == UNSEEN)
			{
				path[depth++] = output;
				state[output] = ON_PATH;
			}
			else if (state[output] == ON_PATH)
			{
				int start = depth - 1;
				int smallest;

				while (path[start] != output)
					start--;
				smallest = start;
				for (int i = start; i < depth; i++)
				{
					if (path[i] < path[smallest])
						smallest = i;
				}
				for (int i = 0; i < depth - start; i++)
					cycle[i] = path[start + (smallest - start + i) % (depth - start)];
				return depth - start;
			}
		}
	}
	return 0;
}

void
pgt_graph_mark_downstream(const PgtGraph *graph, int node, bool *marked, PgtAlloc alloc)
{
	mark_reached(pgt_graph_outputs, graph, node, marked, alloc);
}

void
pgt_graph_mark_upstream(const PgtGraph *graph, int node, bool *marked, PgtAlloc alloc)
{
	mark_reached(pgt_graph_inputs, graph, node, marked, alloc);
}

static void
mark_reached(PgtNodes (*neighbours)(const PgtGraph *, int), const PgtGraph *graph, int node,
			 bool *marked, PgtAlloc alloc)
{
	int *stack = alloc_array(alloc, graph->node_count, sizeof(int));
	int depth = 0;

	stack[depth++] = node;
	while (depth > 0)
	{
		PgtNodes next = neighbours(graph, stack[--depth]);

		for (int i = 0; i < next.count; i++)
		{
			if (marked[next.items[i]])
				continue;
			marked[next.items[i]] = true;
			if (next.items[i] != node)
				stack[depth++] = next.items[i];
		}
	}
}

void
pgt_graph_inherit_least(const PgtGraph *graph, const bool *inherits, int64_t fallback,
						int64_t *value)
{
	for (int i = graph->node_count - 1; i >= 0; i--)
	{
		int node = graph->order[i];
		PgtNodes outputs = pgt_graph_outputs(graph, node);
		int64_t least = PGT_GRAPH_NEVER;

		if (!inherits[node])
			continue;
		for (int j = 0; j < outputs.count; j++)
		{
			if (value[outputs.items[j]] < least)
				least = value[outputs.items[j]];
		}
		value[node] = least == PGT_GRAPH_NEVER ? fallback : least;
	}
}

static int
compare_ids(const void *left, const void *right)
{
	int64_t a = *(const int64_t *) left;
	int64_t b = *(const int64_t *) right;

	return (a > b) - (a < b);
}

static int
compare_edges(const void *left, const void *right)
{
	const PgtEdge *a = left;
	const PgtEdge *b = right;

	if (a->source != b->source)
		return (a->source > b->source) - (a->source < b->source);
	return (a->target > b->target) - (a->target < b->target);
}
