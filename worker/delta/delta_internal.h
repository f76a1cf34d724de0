/*
 * delta_internal.h: what the files of worker/delta share.
 *
 * Leaves. Every occurrence of a relation in a stage's query is a leaf, with a
 * number that is unique in the stage and survives copyObject: it is kept in
 * the field enrtuples of the range table entry, which means nothing for a
 * relation. A self join has two leaves of one relation.
 */
#ifndef DELTA_INTERNAL_H
#define DELTA_INTERNAL_H

#include "postgres.h"

#include "nodes/bitmapset.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"

#include "pgt_delta.h"
#include "pgt_security.h"
#include "pgt_spi.h"

/* In which state a term reads a leaf. */
typedef enum LeafState
{
	LEAF_NEW,	 /* the relation, as the snapshot sees it */
	LEAF_DELTA,	 /* its change set, with weights */
	LEAF_OLD,	 /* new state minus the change set, with weights */
	LEAF_BEFORE, /* the same without weights, for tables with a key */
	LEAF_EVER	 /* rows of the new state and of the change set */
} LeafState;

/* The shape of a change set: which columns follow pgt_w. */
typedef struct ChangeShape
{
	Oid relid;
	int number; /* of the input: pgt_delta_<number> */
	int ncolumns;
	AttrNumber *attnums;
	char **names;	 /* column names in the change set */
	Query *subquery; /* of a stage that is not stored */
} ChangeShape;

/* A leaf read in the state before the change, and which of its columns are keys. */
typedef struct BeforeLeaf
{
	ChangeShape *shape;
	int leaf;
	List *columns; /* attribute numbers, */
	List *keys;	   /* and which column of pgt_keys each of them equals */
} BeforeLeaf;

/* What one statement is generated for. */
typedef struct EmitContext
{
	List *shapes;	 /* ChangeShape of the changed relations */
	Bitmapset *ctes; /* old (2n) and ever (2n + 1) states used, by input number */
	List *before;	 /* BeforeLeaf */
	bool whole;		 /* stages that are not stored are read whole, not by keys */
} EmitContext;

/* tree.c: surgery on Query trees */
extern List *pgt_tree_leaves(Query *query); /* RangeTblEntry *, by leaf number */
extern void pgt_tree_number_leaves(Query *query);
extern int pgt_tree_leaf(const RangeTblEntry *rte);
extern bool pgt_tree_is_union_all(const Query *query);
extern Query *pgt_tree_wrap(Query *subquery);
extern Expr *pgt_tree_coerce_column(Expr *expr, Oid type, int32 typmod, Oid collation);
extern List *pgt_tree_union_arms(Query *query); /* Query *, columns coerced to the union's types */
extern List *pgt_tree_arm_rtindexes(const Query *query);
extern List *pgt_tree_outputs(Query *query); /* non-junk TargetEntry */
extern void pgt_tree_drop_junk(Query *query);
extern void pgt_tree_nullable_rtindexes(const Node *jointree, bool nullable, Bitmapset **result);
extern bool pgt_tree_has_outer_vars(Query *query);
extern Node *pgt_tree_null_vars(Node *node, const Bitmapset *rtindexes);
extern void pgt_tree_use_state(Query *query, int rtindex, LeafState state, EmitContext *context);
extern void pgt_tree_name_input(RangeTblEntry *rte, const char *name, List *colnames);
extern void pgt_tree_rebuild_joins(Query *query, Node *node);
extern void pgt_tree_fill_join(Query *query, RangeTblEntry *rte, Node *left, Node *right);
extern Node *pgt_tree_join(Query *query, Node *left, int rtindex, Node *quals);
extern bool pgt_tree_has_outer_join(const Query *query);
extern bool pgt_tree_is_function(const RangeTblEntry *rte);
extern List *pgt_tree_conjuncts(Node *quals); /* of nested ANDs */
extern void pgt_tree_flatten_inner(Node *node, List **rtindexes, List **quals);
extern Query *pgt_tree_select(Query *source, List *target_list);
extern ChangeShape *pgt_tree_find_shape(EmitContext *context, Oid relid);
extern char *pgt_tree_deparse(Query *query, const EmitContext *context);
extern List *pgt_tree_rtindexes(const Node *jointree);
extern Bitmapset *pgt_tree_rtindex_set(const Node *jointree);

/* normalize.c: one form for what can be written in several ways */
extern Query *pgt_normalize_view(Oid view_relid);
extern Query *pgt_normalize_query(Query *query);
extern void pgt_normalize_joins(Query *query);
extern void pgt_normalize_names(Query *query, List *names); /* of the output; in place */

/* unused.c: columns of subqueries that nobody asks for */
extern void pgt_unused_drop(Query *query); /* in place */

/* inherit.c: the order of a subquery in FROM, where it matters */
extern bool pgt_inherit_wants(Query *query, bool wanted);
extern void pgt_inherit_order(Query *query);

/* sublink.c: subqueries in expressions */
#define PGT_SUBLINK_ONE_ROW 1 /* subLinkId of a scalar subquery over a table of one row, */
#define PGT_SUBLINK_JOIN 2	  /* and of an EXISTS that becomes a join */
extern const char *pgt_sublink_name(const SubLink *link);
extern void pgt_sublink_rewrite(Query *query); /* in place, this level */

/* semijoin.c: EXISTS of at most one row becomes a join; in place, all levels */
extern void pgt_semijoin_mark(PgtDefinition *definition, Query *query);
extern void pgt_semijoin_rewrite(Query *query);

/* lateral.c: LATERAL subqueries that are joins; in place, all levels */
#define PGT_LATERAL_JOIN (-2) /* enrtuples of such an entry */
extern bool pgt_lateral_is_join(const RangeTblEntry *rte);
extern void pgt_lateral_mark(Query *query);
extern void pgt_lateral_rewrite(Query *query);

/* The location of an OR whose arguments are better read apart. */
#define PGT_ALTERNATIVES (-77)
extern bool pgt_flatten_is_null_equality(const Node *node); /* of rewrite_null.c */

/* flatten.c: subqueries that depend on what is around them, for touched keys */
#define PGT_LEAF_TWIN (-1) /* number of an entry that reads a change set and is no leaf */
extern bool pgt_flatten_has_sublink(Node *node);
extern Node *pgt_flatten_find_sublink(Node *node);
extern bool pgt_flatten_is_dependent(const RangeTblEntry *rte);
extern bool pgt_flatten_asks(Query *query);
extern bool pgt_flatten_is_needed(Query *query);
extern bool pgt_flatten_is_plain(Query *query, Node *expr);
extern Query *pgt_flatten_query(Query *query, int leaf);

/* support.c: what can be maintained, with the reason why not */
extern void pgt_rewrite_name_rows(Query *query);
extern char *pgt_volatile_find(Query *query, char volatility, int *location); /* volatile.c */
extern void pgt_support_check_refused(Query *query);
extern bool pgt_support_check(Query *query, PgtDefinition *definition, Oid owner);
extern void pgt_support_add(PgtDefinition *definition, const char *construct, const char *technique,
							const char *reason, int position);
extern void pgt_support_add_columns(PgtDefinition *definition);
extern List *pgt_support_collect_sources(Query *original, Query *normalized);

/* rewrite.c: constructs maintained in other words */
extern Query *pgt_rewrite_query(Query *query);
extern bool pgt_rewrite_is_one_table(Query *query, int rtindex); /* is tableoid a constant? */

/* key.c: identity of a stage's rows */
extern const char *pgt_key_find_identity(PgtStage *stage, PgtDefinition *definition);
/* Does a query give one row at most? Adds the unique indexes that say so. */
extern bool pgt_key_is_single_row(Query *query, List **indexes);
extern List *pgt_key_of_rows(Oid relid, Oid *index); /* not null: attribute numbers, or NIL */
extern bool pgt_key_is_image(Oid type, int32 typmod, Oid collation);
extern List *pgt_key_primary_columns(Oid relid); /* attribute numbers, or NIL */
extern bool pgt_key_is_not_null(Oid relid, AttrNumber attnum);
extern bool pgt_key_column_equality(Oid type, Oid *operator);

/* scope.c: what a stage of technique PARTITION is recomputed by */
extern bool pgt_scope_find(PgtStage *stage);
extern void pgt_scope_set(PgtStage *stage, List *columns); /* integer list, 1-based */
extern const char *pgt_scope_describe(PgtStage *stage);

/* access.c: indexes by which stages are read */
extern void pgt_access_request(PgtDefinition *definition, PgtStage *stage);
extern PgtMissingIndex *pgt_access_missing_order(const PgtStage *stage);

/* group.c: aggregate stages */
extern bool pgt_group_is_foldable(Query *query);
extern const char *pgt_group_describe(PgtStage *stage); /* NULL, or why it cannot be folded */
extern bool pgt_group_has_other_columns(const PgtStage *stage);
extern Query *pgt_group_input_query(const PgtStage *stage);

/* state.c: aggregates that return their state */
extern char *pgt_state_aggregate_name(const PgtAggregate *aggregate);

/* stage.c: cutting and storing */
extern void pgt_stage_cut(PgtDefinition *definition, Query *query);
extern bool pgt_stage_is_group(const Query *query);
extern bool pgt_stage_is_closed(const Query *query);	 /* its result is stored */
extern int pgt_stage_of_entry(const RangeTblEntry *rte); /* number of the stage it reads, or 0 */
/* Are the stored tables those of these stages? After pgt_delta_bind. */
extern bool pgt_stage_tables_fit(const PgtDefinition *definition);
extern char *pgt_stage_table_name(int64 pgt_id, int number);
extern char *pgt_stage_state_name(int64 pgt_id, int number);

/* leaf_state.c: states of changed relations */
extern void pgt_leaf_state_use_before(Query *query, List *keys, EmitContext *context);
extern char *pgt_leaf_state_items(EmitContext *context); /* "WITH ... " or "" */

/* inline.c: reading stages that are not stored */
extern bool pgt_inline_is_key(const Query *query, AttrNumber column);
extern bool pgt_inline_equates(Node *qual, int rtindex, AttrNumber *column, Node **other);
extern void pgt_inline_stages(Query *query, bool by_key);

/* virtual.c: which stages are not stored */
extern void pgt_virtual_load(PgtDefinition *definition); /* stages have their tables */
extern void pgt_virtual_note(const PgtStage *stage);

/* layer.c: windows, DISTINCT and LIMIT taken apart */
extern Query *pgt_layer_peel(Query *query, bool *store);
extern Query *pgt_layer_peel_srfs(Query *query);
extern bool pgt_layer_has_limit(const Query *query);
extern bool pgt_layer_is_stored_below(Query *query);
extern void pgt_layer_drop_void_limit(Query *query);

/* layer_window.c: window clauses of a query level */
extern void pgt_window_tidy(Query *query);
extern List *pgt_window_expressions(List *clauses, List *targets);
extern List *pgt_window_common_partition(List *windows, const Query *query);
extern List *pgt_window_top(const Query *query);
/* Does some clause of the query, or a window, refer to the entry? */
extern bool pgt_window_is_referenced(const TargetEntry *tle, Query *query);
extern List *pgt_window_scope(Query *query);

/* recursion.c: recursive WITH items */
#define PGT_RECURSION_ROWS 2000000	/* after which the rounds of a delta end, */
#define PGT_RECURSION_FILES 2097152 /* or so many kB of temporary files */
#define PGT_RECURSION_REASON                                                                        \
	"a recursive WITH query is maintained incrementally only if it is a UNION ALL of inner joins, " \
	"the last of which joins the recursion, once"
extern bool pgt_recursion_open(List *ctes); /* in place */
extern bool pgt_recursion_is(const Query *query);
extern bool pgt_recursion_is_read(const Query *query); /* in a subquery in FROM */
extern bool pgt_recursion_is_self(const RangeTblEntry *rte);
extern const char *pgt_recursion_reason(Query *query);
extern const char *pgt_recursion_closed_reason(Query *query, int *location);
extern RangeTblEntry *pgt_recursion_self(Query *query);
extern char *pgt_recursion_emit_signed(const PgtStage *stage, EmitContext *context);
extern char *pgt_recursion_emit_all(const PgtStage *stage);

/* order_rows.c: what the join order is chosen by */
typedef enum PgtOrderEdge /* how the rows of an entry are found; better is larger */
{
	PGT_EDGE_NONE,		/* a cross product */
	PGT_EDGE_CONDITION, /* some condition */
	PGT_EDGE_EQUALITY,
	PGT_EDGE_INDEX, /* equality on the first column of an index, or a small table or delta */
	PGT_EDGE_UNIQUE /* equality on all columns of a unique index */
} PgtOrderEdge;

typedef struct PgtOrderEntry
{
	const RangeTblEntry *rte;
	int rtindex;
	Bitmapset *needs; /* entries that it refers to */
	Oid relid;		  /* the table that is behind it, or 0 */
	double rows;	  /* of that */
	double own;		  /* which part of them its own conditions leave */
	bool is_delta;
	List *indexes;
} PgtOrderEntry;

extern PgtOrderEntry *pgt_order_entry(const RangeTblEntry *rte, int rtindex, List *quals);
extern double pgt_order_rows(const PgtOrderEntry *entry);
extern double pgt_order_matches(const PgtOrderEntry *entry, const Bitmapset *columns,
								PgtOrderEdge *edge);

/* order.c: join order */
extern Bitmapset *pgt_order_needs(const RangeTblEntry *rte);
extern Node *pgt_order_joins(Query *query, List *rtindexes, List *quals, int first, List **rest);

/* term.c: signed terms */
extern List *pgt_term_queries(Query *query, EmitContext *context, List **signs);

/* fragment.c: affected keys */
extern List *pgt_fragment_queries(Query *query, List *key_exprs, EmitContext *context);
extern int pgt_fragment_limit(void);

/* emit.c: SQL text of each purpose */
extern char *pgt_emit_keys(const PgtStage *stage, EmitContext *context);
extern char *pgt_emit_rows_of_keys(const PgtStage *stage, const Bitmapset *null_keys,
								   const EmitContext *context);
extern char *pgt_emit_old_rows_of_keys(const PgtStage *stage, const Bitmapset *null_keys,
									   EmitContext *context);
extern bool pgt_emit_is_ordered(
	const PgtStage *stage); /* is the join order of rows_of_keys fixed */
extern char *pgt_emit_terms(Query *query, EmitContext *context);
extern char *pgt_emit_signed(const PgtStage *stage, EmitContext *context);
extern char *pgt_emit_inputs(const PgtStage *stage, EmitContext *context);
extern char *pgt_emit_inputs_of_keys(const PgtStage *stage, const Bitmapset *null_keys,
									 const EmitContext *context);
extern char *pgt_emit_all(const PgtStage *stage);
extern char *pgt_emit_states(const PgtStage *stage);
extern bool pgt_emit_has_filter(const PgtStage *stage);
extern int pgt_emit_nkeys(const PgtStage *stage); /* columns of the key rows */
extern TupleDesc pgt_emit_key_desc(const PgtStage *stage);

/* plan.c: definitions and kept statements; run.c runs them */
typedef enum Purpose
{
	PURPOSE_KEYS,
	PURPOSE_ROWS_OF_KEYS,
	PURPOSE_SIGNED,
	PURPOSE_INPUTS,
	PURPOSE_INPUTS_OF_KEYS,
	PURPOSE_OLD_ROWS_OF_KEYS
} Purpose;

struct PgtDelta
{
	int64 pgt_id; /* hash key */
	Oid relid;
	Oid view_relid;
	Oid owner;
	bool analyzed; /* the definition is one */
	bool stale;
	bool forced; /* analysed under force_technique */
	uint64 generation;
	MemoryContext context;
	PgtDefinition *definition;
	int ninputs; /* relations by input number, from 1 */
	Oid *inputs;
};

/* What a statement reads besides tables. */
typedef struct Inputs
{
	PgtInput *inputs; /* their estimates are their sizes until a small delta is planned */
	int ninputs;
	EmitContext emit;
	uint64 changed;
	uint64 shape;
	double nrows;
} Inputs;

extern char *pgt_plan_emit(const PgtStage *stage, Purpose purpose, EmitContext *context,
						   const Bitmapset *nulls);
typedef enum PlanOrder
{
	ORDER_OURS, /* that of order.c */
	ORDER_PLANNERS,
	ORDER_DOUBTFUL /* the planner's, where it promises much */
} PlanOrder;

extern PgtPlan *pgt_plan_statement(const char *sql, Inputs *inputs, PlanOrder order);
extern PgtPlan *pgt_plan_get(PgtDelta *delta, const PgtStage *stage, Purpose purpose,
							 Inputs *inputs, const Bitmapset *nulls);

/* Plans a statement for a delta of one row, as it is: hash joins are no way out. */
extern PgtPlan *pgt_plan_small(const char *sql, Inputs *inputs, bool ordered);
extern const char *pgt_plan_purpose_name(Purpose purpose);
extern PlanOrder pgt_plan_order(const PgtStage *stage, Purpose purpose, const EmitContext *emit);

/* statistics.c: plans a prepared statement; its change sets have their tables' statistics */
extern PlannedStmt *pgt_statistics_plan(PgtPlan *plan, const Inputs *inputs);

/* keyjoin.c: joins by keys of several columns; "optimizer/plancat.h" */
struct PlannerInfo;
struct RelOptInfo;
extern void pgt_keyjoin_add(struct PlannerInfo *root, struct RelOptInfo *rel);

/* run.c, for explain.c */
extern int pgt_run_input_number(PgtDelta *delta, Oid relid);
extern ChangeShape *pgt_run_make_shape(Oid relid, int number, int ncolumns,
									   const AttrNumber *attnums);
extern void pgt_run_collect_changes(PgtDelta *delta, const PgtStage *stage,
									const PgtDeltaInput *input, Inputs *result);
extern void pgt_run_add_keys(const PgtStage *stage, PgtDeltaRows *keys, Tuplestorestate *rows,
							 Inputs *result);
/* Rights of the owner, unless the caller already runs with them. */
extern bool pgt_run_become_owner(PgtDelta *delta, PgtSecurity *saved);

/* explain.c: a statement as if each of these relations had one changed row */
extern Inputs *pgt_explain_inputs(PgtDelta *delta, const PgtStage *stage, Purpose purpose,
								  List *relids);
/* The purposes of a stage's statements, in the order in which they run. */
extern List *pgt_explain_purposes(const PgtStage *stage);

#endif /* DELTA_INTERNAL_H */
