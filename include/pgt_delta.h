/*
 * pgt_delta.h: from a defining query to the statements that maintain it.
 *
 * PostgreSQL's Query is the algebra. Analysis cuts it into stages (each a
 * select-project-join core with at most one non-linear operator on top, its
 * result stored), and finds for each stage an identity and a technique, or the
 * reason why the query can only be refreshed in FULL. See worker/delta/README.md.
 */
#ifndef PGT_DELTA_H
#define PGT_DELTA_H

#include "postgres.h"

#include "nodes/parsenodes.h"
#include "utils/snapshot.h"

#include "pgt_change.h"

/* What makes a stored row of a stage the same row after a change. */
typedef enum PgtIdentity
{
	PGT_IDENTITY_SINGLE, /* exactly one row, always (aggregate without GROUP BY) */
	PGT_IDENTITY_KEY,	 /* unique key columns, compared with SQL's equality */
	PGT_IDENTITY_ROW	 /* the whole row as an image; duplicates are copies */
} PgtIdentity;

/* The comment on the index that identifies the rows of a stage: which one is ours. */
#define PGT_IDENTITY_COMMENT "identity of the rows of this stream table"

typedef enum PgtTechnique
{
	PGT_TECHNIQUE_LINEAR,	 /* signed rows of the output */
	PGT_TECHNIQUE_AGGREGATE, /* signed input rows folded into stored aggregate states */
	PGT_TECHNIQUE_AKR,		 /* affected keys are recomputed */
	PGT_TECHNIQUE_PARTITION, /* affected partitions (see PgtStage.scope) are recomputed */
	PGT_TECHNIQUE_FULL		 /* everything is computed, the difference is applied */
} PgtTechnique;

/* One aggregate call of an aggregate stage that PostgreSQL itself can invert. */
typedef struct PgtAggregate
{
	Oid aggfnoid;
	Oid collation;
	int nargs;		  /* columns of the input rows, in order */
	int first_input;  /* column (0-based) of its first argument among the inputs */
	int filter_input; /* boolean column, or -1 */
	Oid argtypes[8];  /* resolved */
	bool strict;	  /* rows with a null argument make no transition */
	Oid result_type;
	int32 result_typmod;
} PgtAggregate;

/* An index of a stage's table by which later stages read it. */
typedef struct PgtStageIndex
{
	int ncolumns;
	AttrNumber *columns; /* 1-based */
	Oid *operators;		 /* in which order: < or > of a btree operator class */
	bool *nulls_first;
} PgtStageIndex;

typedef struct PgtStage
{
	int number;		  /* 1..n; the last one is the user's table */
	Oid relid;		  /* where its rows are stored; 0 before creation */
	Query *query;	  /* over tables and the storage of earlier stages */
	List *inputs;	  /* Oids of relations it reads */
	Query *recursion; /* as it was, if the stage is one: the query reads the stage itself */
	PgtIdentity identity;
	PgtTechnique technique;
	const char *reason; /* why not a faster technique; NULL if none */
	int nkeys;			/* identity KEY: columns of the output, 1-based */
	AttrNumber *keys;
	Oid *key_operators; /* equality */
	Oid *key_collations;
	bool keys_not_null; /* provably: the key can be a PRIMARY KEY */

	/*
	 * Technique PARTITION: columns of the output, not necessarily unique, of
	 * which every row's result depends only on input rows with the same
	 * values, so that the query may be restricted to some of them. The touched
	 * values follow from the deltas; the rows of the query with these values
	 * replace the stored rows with these values, found through an index of
	 * their own. Values are the same by the operators given, as the query's
	 * own partitions are; rows are compared as images. Without scope columns
	 * the whole stage is computed whenever an input changed.
	 */
	int nscope;
	AttrNumber *scope; /* 1-based */
	Oid *scope_operators;
	Oid *scope_collations;

	List *indexes; /* PgtStageIndex, for stages but the last */

	/*
	 * Two-sided keyed recompute: the stage is not stored, its table is empty.
	 * Of touched keys the query gives the new rows, and over the old state of
	 * its inputs the old ones; stages that read it compute what they need.
	 */
	bool is_virtual;
	bool is_missing;	 /* it was not stored, but has to be now: nothing is there yet */
	const char *storage; /* why it is stored, or not; NULL if it was no question */

	/* Technique AGGREGATE: input rows are (pgt_w, keys, inputs...). */
	int naggregates;
	PgtAggregate *aggregates;
	Oid state_relid; /* stored states; 0 before creation */
	List *outputs;	 /* TargetEntries over Var(1, 1..nkeys) = keys,
								 * Var(1, nkeys+1..) = aggregate results */
	Node *having;	 /* the same, or NULL */
} PgtStage;

/* A construct of the query, for validate_query and the support matrix. */
typedef struct PgtFinding
{
	const char *construct;
	bool incremental;
	const char *technique; /* for incremental ones */
	const char *reason;	   /* for others */
	int position;		   /* character of the query, 1-based, or 0 */
} PgtFinding;

/* A relation that the query reads, with the columns it uses. */
typedef struct PgtSourceUse
{
	Oid relid;
	char relkind;
	bool is_view;		/* only named in the query; its expansion has the tables */
	Bitmapset *columns; /* attribute numbers, 1-based */
} PgtSourceUse;

typedef struct PgtDefinition
{
	Query *query;	   /* views expanded */
	List *sources;	   /* PgtSourceUse */
	List *findings;	   /* PgtFinding */
	List *stages;	   /* PgtStage; one with technique FULL if full_reason */
	List *constraints; /* Oids of unique indexes that identities rely on */
	bool is_outdated;  /* stages were made for another analysis: a source has other keys now */
	char *full_reason; /* NULL if maintained incrementally */
	int full_position; /* where in the query, or 0 */
} PgtDefinition;

/*
 * Analyses the definition held by a view (or, with query, one not stored yet;
 * then view_relid is 0). Raises errors only for what is refused outright
 * (feature_not_supported with the position: volatile functions by policy,
 * temporary tables, FOR UPDATE, data-modifying CTEs). Result in the current
 * memory context.
 */
extern PgtDefinition *pgt_delta_analyze(Oid view_relid, Query *query);

/*
 * Tells why a relation's changes cannot be captured (NULL if they can); set
 * once when the library is loaded, since capture is no layer below this one.
 */
extern const char *(*pgt_delta_source_reason)(Oid relid);

/* Raised by pgt_delta_analyze, but usable alone: refuses what is never accepted. */
extern void pgt_delta_check_query(Query *query);

/*
 * Creates the hidden tables of the stages (schema pgtrickle_state, depending
 * on the stream table) and fills in their oids. Called at creation.
 */
extern void pgt_delta_create_stages(int64 pgt_id, Oid relid, PgtDefinition *definition);

/*
 * Decides for a new definition which stages are too big to be stored, by
 * pg_trickle.max_stage_rows and the planner's estimates. Before dependencies
 * are made, since these stages need the keys of what they read. Runs as owner.
 */
extern void pgt_delta_choose_storage(PgtDefinition *definition, Oid owner);

/* Puts the tables of stages, once created, in place, and what was decided about them. */
extern void pgt_delta_bind(PgtDefinition *definition, int64 pgt_id, Oid relid);

/* A stage whose rows are stored from now on. */
extern void pgt_delta_note_stored(const PgtStage *stage);

/*
 * The statements of one stream table, cached per backend, rebuilt after
 * changes of its sources. Valid until the end of the current refresh.
 */
typedef struct PgtDelta PgtDelta;

extern PgtDelta *pgt_delta_open(int64 pgt_id, Oid relid, Oid view_relid);
extern const PgtDefinition *pgt_delta_definition(PgtDelta *delta);
extern void pgt_delta_forget(int64 pgt_id); /* after ALTER and DROP */

/* Inputs of one refresh. Change sets of earlier stages are added as they are applied. */
typedef struct PgtDeltaInput
{
	Snapshot snapshot; /* registered */
	List *changes;	   /* PgtChangeSet; relations without changes may be missing */
} PgtDeltaInput;

/* A result in memory. Key and signed rows carry no duplicates of equal image. */
typedef struct PgtDeltaRows
{
	TupleDesc desc;
	Tuplestorestate *rows;
	int64 nrows;
} PgtDeltaRows;

/*
 * For the stage number (0-based index) of a refresh:
 *
 * keys: AKR and AGGREGATE: the keys (nkeys columns; all columns for ROW) that any change touches, a superset.
 * PARTITION: the touched values of the scope columns.
 * rows_of_keys: AKR, PARTITION: the stage's query over the new state, restricted to the keys.
 * old_rows_of_keys: AKR of a stage that is not stored: the same over the old state.
 * signed: LINEAR: pgt_w and the output columns; consolidated.
 * inputs: AGGREGATE: pgt_w, keys, inputs; not consolidated.
 * inputs_of_keys: AGGREGATE: the same over the new state, restricted to the keys, pgt_w = 1.
 * all: the stage's whole query over the new state.
 * states: AGGREGATE: per group of the new state, HAVING left out: keys, number of rows, and per
 * aggregate its state (as stored) and its number of transitions.
 *
 * They run as the owner; the caller has already checked rights and taken locks.
 */
extern PgtDeltaRows *pgt_delta_keys(PgtDelta *delta, int stage, PgtDeltaInput *input);
extern PgtDeltaRows *pgt_delta_rows_of_keys(PgtDelta *delta, int stage, PgtDeltaInput *input,
											PgtDeltaRows *keys);
extern PgtDeltaRows *pgt_delta_old_rows_of_keys(PgtDelta *delta, int stage, PgtDeltaInput *input,
												PgtDeltaRows *keys);
extern PgtDeltaRows *pgt_delta_signed(PgtDelta *delta, int stage, PgtDeltaInput *input);
extern PgtDeltaRows *pgt_delta_inputs(PgtDelta *delta, int stage, PgtDeltaInput *input);
extern PgtDeltaRows *pgt_delta_inputs_of_keys(PgtDelta *delta, int stage, PgtDeltaInput *input,
											  PgtDeltaRows *keys);
extern PgtDeltaRows *pgt_delta_all(PgtDelta *delta, int stage, PgtDeltaInput *input);
extern PgtDeltaRows *pgt_delta_states(PgtDelta *delta, int stage, PgtDeltaInput *input);

/*
 * Makes the aggregate that returns the state of another instead of its result
 * (schema pgtrickle_state), which pgt_delta_states uses, if it is not there.
 * Call as the extension's owner.
 */
extern void pgt_delta_create_state_aggregate(const PgtAggregate *aggregate);

/* One statement of a refresh, for explain_delta. */
typedef struct PgtDeltaText
{
	int stage;
	const char *purpose; /* keys, rows of keys, old rows of keys, signed rows, inputs, full */
	char *sql;
	char *plan; /* EXPLAIN's text */
	double estimated_rows;
	int64 actual_rows; /* with analyze */
} PgtDeltaText;

/*
 * The statements of a refresh in which every source changed: SQL and plan. With
 * analyze the plans run over the given changes (statements without any run
 * over empty ones); nothing is written.
 */
extern List *pgt_delta_explain(PgtDelta *delta, PgtDeltaInput *input, bool analyze);

/* An index that small deltas miss: without it they read a table whole. */
typedef struct PgtMissingIndex
{
	int stage;
	const char *purpose; /* of the statement */
	Oid relid;
	List *columns; /* attribute numbers */
	uint32 pages;
	char *sql; /* CREATE INDEX */
} PgtMissingIndex;

/*
 * Indexes on tables of at least pg_trickle.index_hint_pages pages, without
 * which a refresh after a change of a single row reads the table whole although
 * it looks for values of these columns. Deterministic but for sizes and
 * statistics. Plans every statement once for each of its inputs.
 */
extern List *pgt_delta_missing_indexes(PgtDelta *delta);

#endif /* PGT_DELTA_H */
