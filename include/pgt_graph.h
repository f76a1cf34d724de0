/*
 * pgt_graph.h: who reads whom, as a value. Module: dag
 *
 * Plain C99 without PostgreSQL: built once from arrays, read by index, thrown
 * away with the memory context it was allocated in. A node is a relation (its
 * OID as int64); an edge leads from what is read to the stream table that
 * reads it. A node without inputs is called a base here: that is every source
 * table, and a stream table that reads nothing.
 *
 *		orders --> totals --> report        levels: 0, 1, 2
 *		orders --------------^
 */
#ifndef PGT_GRAPH_H
#define PGT_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Must not return NULL; palloc fits, and so does a checked malloc. Nothing is ever freed. */
typedef void *(*PgtAlloc)(size_t size);

typedef struct PgtEdge
{
	int64_t source; /* what is read */
	int64_t target; /* the stream table that reads it */
} PgtEdge;

/* A slice of node numbers, owned by the graph. */
typedef struct PgtNodes
{
	const int *items;
	int count;
} PgtNodes;

typedef struct PgtGraph
{
	int node_count;
	int64_t *ids;	  /* by node number, ascending */
	int *level;		  /* 0 for a base, else 1 + the highest of its inputs */
	int *order;		  /* node numbers by (level, id): inputs come first */
	bool has_cycle;	  /* level and order mean nothing then; ask for the cycle */
	int *input_start; /* [node_count + 1], offsets into inputs */
	int *inputs;
	int *output_start;
	int *outputs;
} PgtGraph;

/*
 * The nodes are all of ids and all ends of edges; both may repeat. Always
 * succeeds, also with a cycle.
 */
extern PgtGraph *pgt_graph_make(const int64_t *ids, int id_count, const PgtEdge *edges,
								int edge_count, PgtAlloc alloc);
/* Node number, -1 if the id is none of the graph's. */
extern int pgt_graph_find(const PgtGraph *graph, int64_t id);
extern PgtNodes pgt_graph_inputs(const PgtGraph *graph, int node);
extern PgtNodes pgt_graph_outputs(const PgtGraph *graph, int node);

/*
 * A cycle as node numbers, each read by the next and the last by the first; it
 * starts at its smallest node. Returns its length, 0 if there is none; the same
 * graph gives the same cycle. *cycle has room for node_count.
 */
extern int pgt_graph_find_cycle(const PgtGraph *graph, int *cycle, PgtAlloc alloc);

/*
 * Sets marked[] for every node that node reaches, or that reaches it, itself
 * excluded unless it lies on a cycle. Leaves other marks alone, and does not
 * look behind a node that is marked already.
 */
extern void pgt_graph_mark_downstream(const PgtGraph *graph, int node, bool *marked,
									  PgtAlloc alloc);
extern void pgt_graph_mark_upstream(const PgtGraph *graph, int node, bool *marked, PgtAlloc alloc);

/*
 * What consumers need, carried towards the sources. For a node with inherits[]
 * value[] becomes the least value of its outputs (fallback if it has none, or
 * none that is below PGT_GRAPH_NEVER); other values stay. Serves intervals and
 * due times of 'calculated' schedules alike. The graph has no cycle.
 */
#define PGT_GRAPH_NEVER INT64_MAX
extern void pgt_graph_inherit_least(const PgtGraph *graph, const bool *inherits, int64_t fallback,
									int64_t *value);

/*
 * Numbers the connected components from 0, in the order of their smallest
 * node; returns how many. With apart_at_bases, reading the same base does not
 * connect, and a base gets -1: what remains are the stream tables that read one
 * another, which have to be refreshed to the same snapshot.
 */
extern int pgt_graph_find_components(const PgtGraph *graph, bool apart_at_bases, int *component,
									 PgtAlloc alloc);

/*
 * Diamonds: a node converges if one base reaches it through at least two of its
 * inputs (being such an input counts). Its group is every node but bases on
 * these paths, with itself; groups that share a node are one. group[] gets
 * numbers from 0 in the order of the smallest node, -1 for a node in no group;
 * converges[] may be NULL. Returns how many groups. The graph has no cycle.
 */
extern int pgt_graph_find_diamonds(const PgtGraph *graph, int *group, bool *converges,
								   PgtAlloc alloc);

#endif /* PGT_GRAPH_H */
