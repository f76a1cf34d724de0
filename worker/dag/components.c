/*
 * components.c: which nodes belong together: connected components, diamonds.
 *
 * Relies on graph.c and the C library only; memory comes from the caller's
 * alloc and is never freed here. See pgt_graph.h.
 */
#include "pgt_graph.h"

#include <string.h>

static int find_root(int *parent, int node);
static void join_sets(int *parent, int a, int b);
static int number_sets(int *parent, const bool *member, int node_count, int *number,
					   PgtAlloc alloc);
static bool mark_converging_paths(const PgtGraph *graph, int node, int *seen, int *last_seen,
								  bool *on_path, PgtAlloc alloc);

static void *
alloc_array(PgtAlloc alloc, int count, size_t size)
{
	size_t bytes = ((size_t) count + 1) * size;

	return memset(alloc(bytes), 0, bytes);
}

static bool
is_base(const PgtGraph *graph, int node)
{
	return pgt_graph_inputs(graph, node).count == 0;
}

int
pgt_graph_find_components(const PgtGraph *graph, bool apart_at_bases, int *component,
						  PgtAlloc alloc)
{
	int *parent = alloc_array(alloc, graph->node_count, sizeof(int));
	bool *member = alloc_array(alloc, graph->node_count, sizeof(bool));

	for (int node = 0; node < graph->node_count; node++)
	{
		parent[node] = node;
		member[node] = !(apart_at_bases && is_base(graph, node));
	}
	for (int node = 0; node < graph->node_count; node++)
	{
		PgtNodes outputs = pgt_graph_outputs(graph, node);

		for (int i = 0; member[node] && i < outputs.count; i++)
			join_sets(parent, node, outputs.items[i]);
	}
	return number_sets(parent, member, graph->node_count, component, alloc);
}

int
pgt_graph_find_diamonds(const PgtGraph *graph, int *group, bool *converges, PgtAlloc alloc)
{
	int *parent = alloc_array(alloc, graph->node_count, sizeof(int));
	bool *member = alloc_array(alloc, graph->node_count, sizeof(bool));
	int *seen = alloc_array(alloc, graph->node_count, sizeof(int));
	int *last_seen = alloc_array(alloc, graph->node_count, sizeof(int));
	bool *on_path = alloc_array(alloc, graph->node_count, sizeof(bool));

	for (int node = 0; node < graph->node_count; node++)
		parent[node] = node;
	for (int node = 0; node < graph->node_count; node++)
	{
		bool is_point = mark_converging_paths(graph, node, seen, last_seen, on_path, alloc);

		if (converges != NULL)
			converges[node] = is_point;
		if (!is_point)
			continue;
		for (int other = 0; other < graph->node_count; other++)
		{
			if (!on_path[other])
				continue;
			member[other] = true;
			join_sets(parent, node, other);
		}
	}
	return number_sets(parent, member, graph->node_count, group, alloc);
}

/*
 * Does one base reach node through two inputs? Then on_path[] becomes the
 * nodes, without bases, on the ways from all such bases to node. seen[] counts
 * through how many inputs a node is reached; last_seen[] is through which last.
 */
static bool
mark_converging_paths(const PgtGraph *graph, int node, int *seen, int *last_seen, bool *on_path,
					  PgtAlloc alloc)
{
	PgtNodes inputs = pgt_graph_inputs(graph, node);
	int *stack;
	bool converges = false;

	if (inputs.count < 2)
		return false;
	stack = alloc_array(alloc, graph->node_count, sizeof(int));
	memset(seen, 0, graph->node_count * sizeof(int));
	memset(last_seen, 0, graph->node_count * sizeof(int));
	for (int i = 0; i < inputs.count; i++)
	{
		int depth = 0;

		stack[depth++] = inputs.items[i];
		last_seen[inputs.items[i]] = i + 1;
		while (depth > 0)
		{
			int current = stack[--depth];
			PgtNodes next = pgt_graph_inputs(graph, current);

			seen[current]++;
			if (next.count == 0 && seen[current] == 2)
				converges = true;
			for (int j = 0; j < next.count; j++)
			{
				if (last_seen[next.items[j]] == i + 1)
					continue;
				last_seen[next.items[j]] = i + 1;
				stack[depth++] = next.items[j];
			}
		}
	}
	if (!converges)
		return false;

	memset(on_path, 0, graph->node_count * sizeof(bool));
	for (int i = 0; i < graph->node_count; i++)
	{
		int current = graph->order[i];
		PgtNodes next = pgt_graph_inputs(graph, current);

		if (current != node && seen[current] == 0)
			continue;
		for (int j = 0; j < next.count; j++)
		{
			int input = next.items[j];

			if (on_path[input] || (is_base(graph, input) && seen[input] >= 2))
				on_path[current] = true;
		}
	}
	return true;
}

static int
find_root(int *parent, int node)
{
	while (parent[node] != node)
	{
		parent[node] = parent[parent[node]];
		node = parent[node];
	}
	return node;
}

/* The smaller root wins, so that the root is the smallest node of the set. */
static void
join_sets(int *parent, int a, int b)
{
	a = find_root(parent, a);
	b = find_root(parent, b);
	if (a < b)
		parent[b] = a;
	else
		parent[a] = b;
}

static int
number_sets(int *parent, const bool *member, int node_count, int *number, PgtAlloc alloc)
{
	int *number_of_root = alloc_array(alloc, node_count, sizeof(int));
	int count = 0;

	for (int node = 0; node < node_count; node++)
	{
		int root = find_root(parent, node);

		number[node] = -1;
		if (!member[node])
			continue;
		if (number_of_root[root] == 0)
			number_of_root[root] = ++count;
		number[node] = number_of_root[root] - 1;
	}
	return count;
}
