/*
 * graph.c: the graph of dependencies: order, levels, cycles, components, diamonds,
 * and random graphs against what the definitions say.
 *
 * link: worker/dag/graph.c worker/dag/components.c
 */
#include <stdlib.h>

#include "pgt_graph.h"
#include "pgt_test.h"

#define MAX_NODES 40
#define MAX_EDGES 200

static void *
dirty_alloc(size_t size)
{
	return memset(malloc(size), 0x7f, size);
}

static PgtGraph *
make(const PgtEdge *edges, int count)
{
	return pgt_graph_make(NULL, 0, edges, count, dirty_alloc);
}

#define COUNT(array) ((int) (sizeof(array) / sizeof((array)[0])))

/* "10 20 30" of node numbers. */
static const char *
ids_text(const PgtGraph *graph, const int *nodes, int count)
{
	static char text[1000];
	size_t length = 0;

	text[0] = '\0';
	for (int i = 0; i < count; i++)
		length += snprintf(text + length, sizeof(text) - length, "%s%lld", i ? " " : "",
						   (long long) graph->ids[nodes[i]]);
	return text;
}

static const char *
numbers_text(const int *numbers, int count)
{
	static char text[1000];
	size_t length = 0;

	text[0] = '\0';
	for (int i = 0; i < count; i++)
		length += snprintf(text + length, sizeof(text) - length, "%s%d", i ? " " : "", numbers[i]);
	return text;
}

static void
test_order(void)
{
	/* 1 -> 5 -> 3, 1 -> 3, 2 -> 3, 2 -> 4, and 9 alone */
	const PgtEdge edges[] = {{5, 3}, {1, 5}, {1, 3}, {2, 3}, {2, 4}, {1, 5}};
	const int64_t ids[] = {9, 3};
	PgtGraph *graph = pgt_graph_make(ids, 2, edges, COUNT(edges), dirty_alloc);
	bool marked[6] = {false};
	int cycle[6];

	is_int(graph->node_count, 6, "nodes are the ends of edges and the ids, once each");
	ok(!graph->has_cycle, "no cycle is seen where there is none");
	is_int(pgt_graph_find_cycle(graph, cycle, dirty_alloc), 0, "and none is found");
	is_str(ids_text(graph, graph->order, 6), "1 2 9 4 5 3", "order: by level, then id");
	is_str(numbers_text(graph->level, 6), "0 0 2 1 1 0", "levels are longest paths");
	is_int(pgt_graph_find(graph, 4), 3, "an id is found");
	is_int(pgt_graph_find(graph, 6), -1, "an id that is none is not");
	is_int(pgt_graph_inputs(graph, 2).count, 3, "an edge given twice counts once");
	is_str(ids_text(graph, pgt_graph_inputs(graph, 2).items, 3), "1 2 5", "inputs ascend");
	pgt_graph_mark_downstream(graph, 0, marked, dirty_alloc);
	ok(!marked[0] && !marked[1] && marked[2] && !marked[3] && marked[4] && !marked[5],
	   "downstream of 1: 3 and 5");
	memset(marked, 0, sizeof(marked));
	pgt_graph_mark_upstream(graph, 2, marked, dirty_alloc);
	ok(marked[0] && marked[1] && !marked[2] && !marked[3] && marked[4] && !marked[5],
	   "upstream of 3: 1, 2 and 5");

	graph = pgt_graph_make(NULL, 0, NULL, 0, dirty_alloc);
	is_int(graph->node_count, 0, "the empty graph is one, too");
	ok(!graph->has_cycle, "without a cycle");
	is_int(pgt_graph_find(graph, 1), -1, "in which nothing is found");
}

static void
test_cycles(void)
{
	const PgtEdge loop[] = {{7, 7}, {1, 7}};
	const PgtEdge long_loop[] = {{1, 2}, {2, 8}, {8, 5}, {5, 3}, {3, 8}, {5, 9}};
	PgtGraph *graph = make(loop, COUNT(loop));
	int cycle[10];

	ok(graph->has_cycle, "a table that reads itself is a cycle");
	is_int(pgt_graph_find_cycle(graph, cycle, dirty_alloc), 1, "of one node");
	is_str(ids_text(graph, cycle, 1), "7", "namely itself");

	graph = make(long_loop, COUNT(long_loop));
	ok(graph->has_cycle, "a cycle behind other nodes is seen");
	is_int(pgt_graph_find_cycle(graph, cycle, dirty_alloc), 3, "without what leads to it");
	is_str(ids_text(graph, cycle, 3), "3 8 5", "in reading order, from its smallest node");
}

static void
test_inherit(void)
{
	/* base 1; 2 -> 3 -> 4 (10 s), 3 -> 5 (60 s); 6 alone; 7 -> 8 (never) */
	const PgtEdge edges[] = {{1, 2}, {2, 3}, {3, 4}, {3, 5}, {1, 6}, {1, 7}, {7, 8}};
	PgtGraph *graph = make(edges, COUNT(edges));
	const bool inherits[] = {false, true, true, false, false, true, true, false};
	int64_t value[] = {99, 99, 99, 10, 60, 99, 99, PGT_GRAPH_NEVER};

	pgt_graph_inherit_least(graph, inherits, 0, value);
	is_int(value[0], 99, "a base keeps its value");
	is_int(value[2], 10, "the least of the consumers");
	is_int(value[1], 10, "through two calculated ones");
	is_int(value[3], 10, "a value of its own stays");
	is_int(value[5], 0, "alone: the fallback");
	is_int(value[6], 0, "consumers that never refresh count as none");
}

static void
test_components(void)
{
	/* 1 -> 10 -> 11, 1 -> 20, 2 -> 30, 31 reads 30 and 20 is apart */
	const PgtEdge edges[] = {{1, 10}, {10, 11}, {1, 20}, {2, 30}, {30, 31}};
	PgtGraph *graph = make(edges, COUNT(edges));
	int component[7];

	is_int(pgt_graph_find_components(graph, false, component, dirty_alloc), 2,
		   "reading the same base connects");
	is_str(numbers_text(component, 7), "0 1 0 0 0 1 1", "numbered by their smallest node");
	is_int(pgt_graph_find_components(graph, true, component, dirty_alloc), 3,
		   "unless bases keep apart");
	is_str(numbers_text(component, 7), "-1 -1 0 0 1 2 2", "then they are in none");
}

static void
test_diamonds(void)
{
	/* 1 -> 10 -> 11, 12 -> 13 -> 14; 2 -> 12; 1 -> 20, 2 -> 21; 1 -> 30 -> 31 <- 1; 20, 21 -> 22 */
	const PgtEdge edges[] = {{1, 10}, {10, 11}, {10, 12}, {11, 13}, {12, 13}, {13, 14}, {2, 12},
							 {1, 20}, {2, 21},	{20, 22}, {21, 22}, {1, 30},  {30, 31}, {1, 31}};
	PgtGraph *graph = make(edges, COUNT(edges));
	int group[12];
	bool converges[12];

	is_int(graph->node_count, 12, "nodes of the test");
	is_int(pgt_graph_find_diamonds(graph, group, converges, dirty_alloc), 2, "two diamonds");
	/* 1 2 10 11 12 13 14 20 21 22 30 31 */
	is_str(numbers_text(group, 12), "-1 -1 0 0 0 0 -1 -1 -1 -1 1 1",
		   "what is between base and point; neither what comes behind nor two bases");
	ok(converges[5] && converges[11], "the points where the branches meet");
	ok(!converges[6] && !converges[9] && !converges[3], "and no others");
}

static void
test_long_chain(void)
{
	enum
	{
		LENGTH = 20000
	};
	PgtEdge *edges = malloc(LENGTH * sizeof(PgtEdge));
	int *cycle = malloc((LENGTH + 1) * sizeof(int));
	PgtGraph *graph;

	for (int i = 0; i < LENGTH; i++)
		edges[i] = (PgtEdge){i, i + 1};
	graph = make(edges, LENGTH);
	is_int(graph->level[LENGTH], LENGTH, "a chain of 20,000 has as many levels");
	is_int(pgt_graph_find_cycle(graph, cycle, dirty_alloc), 0, "and no recursion to run out");
	edges[0].source = LENGTH;
	graph = make(edges, LENGTH);
	is_int(pgt_graph_find_cycle(graph, cycle, dirty_alloc), LENGTH, "nor has a cycle of 20,000");
}

static int
paths_between(const PgtGraph *graph, int from, int to)
{
	PgtNodes inputs = pgt_graph_inputs(graph, to);
	int count = from == to;

	for (int i = 0; i < inputs.count; i++)
		count += paths_between(graph, from, inputs.items[i]) > 0;
	return count;
}

/* Random graphs without cycles, and a few with: the definitions, checked the slow way. */
static void
test_random(void)
{
	bool order_good = true;
	bool level_good = true;
	bool reach_good = true;
	bool diamond_good = true;
	bool cycle_good = true;
	bool component_good = true;

	srandom(20240501);
	for (int round = 0; round < 300; round++)
	{
		int nodes = 2 + random() % 12;
		int count = random() % (2 * nodes);
		int64_t ids[MAX_NODES];
		PgtEdge edges[MAX_EDGES];
		int place[MAX_NODES];
		int group[MAX_NODES];
		int component[MAX_NODES];
		bool converges[MAX_NODES];
		int cycle[MAX_NODES];
		int length;
		PgtGraph *graph;

		for (int i = 0; i < nodes; i++)
			ids[i] = i;
		for (int i = 0; i < count; i++)
		{
			int a = random() % nodes;
			int b = random() % nodes;

			if (a == b)
				b = (a + 1) % nodes;
			/* A fixed order that is not that of the ids. */
			if ((a * 7 + 3) % 13 > (b * 7 + 3) % 13)
				edges[i] = (PgtEdge){b, a};
			else
				edges[i] = (PgtEdge){a, b};
		}
		graph = pgt_graph_make(ids, nodes, edges, count, dirty_alloc);
		order_good &= !graph->has_cycle && graph->node_count == nodes;
		for (int i = 0; i < nodes; i++)
			place[graph->order[i]] = i;
		for (int i = 0; i < count; i++)
		{
			order_good &= place[edges[i].source] < place[edges[i].target];
			level_good &= graph->level[edges[i].source] < graph->level[edges[i].target];
		}
		pgt_graph_find_diamonds(graph, group, converges, dirty_alloc);
		pgt_graph_find_components(graph, false, component, dirty_alloc);
		for (int node = 0; node < nodes; node++)
		{
			bool marked[MAX_NODES] = {false};
			bool point = false;

			pgt_graph_mark_downstream(graph, node, marked, dirty_alloc);
			for (int other = 0; other < nodes; other++)
			{
				if (other != node)
					reach_good &= marked[other] == (paths_between(graph, node, other) > 0);
				if (marked[other])
					component_good &= component[node] == component[other];
				if (pgt_graph_inputs(graph, other).count == 0 && other != node &&
					paths_between(graph, other, node) > 1)
					point = true;
			}
			diamond_good &= converges[node] == point && (!point || group[node] >= 0);
		}

		/* One edge back makes a cycle of what lies between. */
		if (count == 0)
			continue;
		edges[count] = (PgtEdge){edges[0].target, edges[0].source};
		graph = pgt_graph_make(ids, nodes, edges, count + 1, dirty_alloc);
		length = pgt_graph_find_cycle(graph, cycle, dirty_alloc);
		cycle_good &= graph->has_cycle && length >= 2;
		for (int i = 0; i < length; i++)
		{
			PgtNodes outputs = pgt_graph_outputs(graph, cycle[i]);
			bool follows = false;

			for (int j = 0; j < outputs.count; j++)
				follows |= outputs.items[j] == cycle[(i + 1) % length];
			cycle_good &= follows && cycle[i] >= cycle[0];
		}
	}
	ok(order_good, "300 random graphs: inputs come first");
	ok(level_good, "300 random graphs: inputs have lower levels");
	ok(reach_good, "300 random graphs: marked is what a path leads to");
	ok(diamond_good, "300 random graphs: branches meet where two paths from a base do");
	ok(component_good, "300 random graphs: who reads is in the same component");
	ok(cycle_good, "300 random graphs: a cycle is found and is one");
}

int
main(void)
{
	test_order();
	test_cycles();
	test_inherit();
	test_components();
	test_diamonds();
	test_long_chain();
	test_random();
	return test_done();
}
