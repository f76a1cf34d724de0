/*
 * refresh_internal.h: what the files of worker/refresh share.
 */
#ifndef REFRESH_INTERNAL_H
#define REFRESH_INTERNAL_H

#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "executor/execdesc.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

#include "pgt_capture.h"
#include "pgt_change.h"
#include "pgt_delta.h"
#include "pgt_forecast.h"
#include "pgt_frontier.h"
#include "pgt_refresh.h"
#include "pgt_stream_table.h"

/* ---- keymap.c: rows by key in memory ---- */

/* How the values of one key column are compared and hashed, by SQL's equality. */
typedef struct KeyColumn
{
	AttrNumber attnum; /* in the stored table, 1-based */
	Oid type;
	Oid collation;
	int16 typlen;
	bool typbyval;
	bool hashable;
	FmgrInfo eq;
	FmgrInfo hash;
	FmgrInfo cmp;
} KeyColumn;

typedef struct KeyEntry
{
	uint64 hash;
	Datum *values; /* the key, in the map's memory */
	bool *isnull;
	MinimalTuple row; /* whatever the caller keeps */
	MinimalTuple old_row;
	int64 count;
	bool done;
	void *payload;
	struct KeyEntry *next; /* in order of insertion */
} KeyEntry;

typedef struct KeyMap
{
	int nkeys;
	KeyColumn *columns; /* NULL: compares images of desc */
	TupleDesc desc;
	MemoryContext context;
	struct keyhash_hash *table; /* if every column has a hash function, */
	struct RBTree *tree;		/* else */
	int64 nentries;
	KeyEntry *first;
	KeyEntry *last;
} KeyMap;

extern KeyMap *pgt_keymap_make(int nkeys, KeyColumn *columns);
extern KeyMap *pgt_keymap_make_images(TupleDesc desc);
extern void pgt_keymap_free(KeyMap *map);
extern uint64 pgt_keymap_hash(const KeyMap *map, const Datum *values, const bool *isnull);
extern KeyEntry *pgt_keymap_find(KeyMap *map, Datum *values, bool *isnull);
/* The entry of a key, made if it is missing (then *found is false and it is zeroed). */
extern KeyEntry *pgt_keymap_get(KeyMap *map, Datum *values, bool *isnull, bool *found);
/* The same under a whole row, which becomes the entry's row if it is new (images only). */
extern KeyEntry *pgt_keymap_get_row(KeyMap *map, TupleTableSlot *slot, bool *found);

/* ---- batches.c: rows split by hash, for key maps that fit into memory ---- */

typedef uint64 (*BatchHash)(TupleTableSlot *slot, void *arg);

extern int pgt_batches_count(PgtDeltaRows *rows); /* NULL: 1 */
extern int pgt_batches_of(uint64 hash, int nbatches);
extern PgtDeltaRows *pgt_batches_split(PgtDeltaRows *rows, int nbatches, BatchHash hash, void *arg);
extern void pgt_batches_free(PgtDeltaRows *batch);

/* ---- target.c: how the rows of a stored table are found ---- */

typedef struct TargetInfo
{
	Oid relid; /* hash key */
	bool stale;
	PgtIdentity identity;
	int nkeys;
	KeyColumn *keys;
	Oid index_relid;	   /* identity index; invalid for SINGLE, or if it is missing */
	ScanKeyData *scankeys; /* nkeys, or one for the hash */
	bool by_hash;		   /* the index is on the hash of the keys: they are too wide for it */
	TupleDesc key_desc;	   /* for that hash */
	FmgrInfo key_hash;
	int nscope; /* columns of the scope of a PARTITION, */
	KeyColumn *scope;
	Oid scope_index; /* and the index whose first columns these are; invalid if missing */
	ScanKeyData *scope_keys;
	bool scope_by_hash; /* the index is on their hash, as by_hash */
	TupleDesc scope_desc;
	bool other_unique;		   /* the user made further unique or exclusion constraints, */
	Bitmapset *unique_columns; /* on these columns */
	MemoryContext context;
} TargetInfo;

/* Cached per backend until the relation changes. */
extern TargetInfo *pgt_target_get(Relation relation, PgtIdentity identity, int nkeys,
								  const AttrNumber *keys, const Oid *key_operators,
								  const Oid *key_collations);
extern TargetInfo *pgt_target_get_stage(Relation relation, const PgtStage *stage);
extern TargetInfo *pgt_target_get_state(Relation relation, const PgtStage *stage);

/* ---- apply*.c: writing rows ---- */

typedef struct Apply
{
	const char *purpose; /* for errors: "stage 2", ... */
	Relation relation;
	TargetInfo *info;
	EState *estate;
	ResultRelInfo *result;
	EPQState epq;
	Snapshot snapshot; /* of look-ups: everything written before */
	Relation index;
	IndexScanDesc scan;
	ScanKeyData *scankeys;
	TupleTableSlot *old; /* the row found */
	TupleTableSlot *row; /* virtual: the row to write */

	/* Who gets what was really changed. */
	MemoryContext context; /* lives as long as this */
	bool publish;		   /* writer is to begin with the first row */
	PgtChangeSet *effect;
	PgtCaptureWriter *writer;
	Datum *effect_values;
	bool *effect_isnull;

	/* Called once before the first write. */
	void (*before_write)(void *arg);
	void *before_write_arg;
	bool wrote;
	bool may_update; /* no publication stands in the way */
	bool may_delete;

	/* Writes that wait until all deletes are done (TargetInfo.other_unique). */
	Tuplestorestate *waiting;
	TupleDesc waiting_desc;

	int64 inserted;
	int64 updated;
	int64 deleted;
	const char *misfit; /* the delta does not fit the stored rows, because */
} Apply;

/* published.c: errors with PostgreSQL's message and the name of the publication to change. */
extern void pgt_published_check(Relation relation, CmdType command);

extern Apply *pgt_apply_begin(Oid relid, const PgtStage *stage, bool is_state);
extern PgtChangeSet *pgt_apply_make_changes(Relation relation); /* empty, of all columns */
extern void pgt_apply_collect(Apply *apply);					/* remember the effective delta */
extern void pgt_apply_publish(
	Apply *apply); /* write it to the buffer, if somebody reads the table */
extern void pgt_apply_finish(Apply *apply);
extern bool pgt_apply_find(Apply *apply, Datum *values, bool *isnull); /* into apply->old */
extern bool pgt_apply_find_first(Apply *apply);						   /* any row */
extern bool pgt_apply_fetch(Apply *apply, ItemPointer tid);
extern void pgt_apply_point_at(Apply *apply, ItemPointer tid);
extern void pgt_apply_insert(Apply *apply, TupleTableSlot *row);
extern void pgt_apply_update(Apply *apply, TupleTableSlot *row);	 /* apply->old becomes row */
extern void pgt_apply_delete(Apply *apply);							 /* apply->old */
extern bool pgt_apply_same_image(Apply *apply, TupleTableSlot *row); /* as apply->old */
extern void pgt_apply_check_rows(Apply *apply, TupleDesc rows, int first);
extern void pgt_apply_check_keys(Apply *apply, TupleDesc rows, int first);
extern TupleTableSlot *pgt_apply_fill(Apply *apply, TupleTableSlot *source, int first);
extern TupleTableSlot *pgt_apply_fill_tuple(Apply *apply, MinimalTuple tuple,
											TupleTableSlot *scratch, int first);
/* Scan for rows with an image; apply_next_image fills apply->old. */
extern void pgt_apply_begin_image(Apply *apply, uint64 hash);
extern bool pgt_apply_next_image(Apply *apply, Datum *values, bool *isnull);
extern void pgt_apply_bulk_insert(Apply *apply, PgtDeltaRows *rows);
extern void pgt_apply_note_effect(Apply *apply, TupleTableSlot *row, int weight);

/* partition.c: rows replace the stored ones whose scope is among keys (NULL: all). */
extern bool pgt_partition_apply(Apply *apply, PgtDeltaRows *keys, PgtDeltaRows *rows);

/* apply_delta.c: whole results. False if the delta does not fit (apply->misfit). */
extern bool pgt_apply_replace(Apply *apply, PgtDeltaRows *keys, PgtDeltaRows *rows);
extern bool pgt_apply_signed(Apply *apply, PgtDeltaRows *rows);
extern void pgt_apply_replace_key(Apply *apply, Datum *values, bool *isnull, TupleTableSlot *row);
extern int64 pgt_apply_weight(TupleTableSlot *slot);

/* ---- consolidate.c ---- */

/* Rows that cancel are taken out; copies become one row with a larger weight. */
extern void pgt_consolidate(PgtChangeSet *changes);

/* ---- one refresh ---- */

typedef struct Refresh
{
	const PgtRefreshRequest *request;
	PgtStreamTable *st;
	Oid owner;
	PgtDelta *delta;
	const PgtDefinition *definition;
	List *captured; /* PgtSourceUse: the sources whose changes are captured */
	bool sees_all;	/* every source is captured, nothing else can change the result */
	Snapshot snapshot;
	PgtFrontierRow row;
	PgtFrontier frontier;		/* the new one */
	PgtFrontier base;			/* and of the tables at the ends of all paths */
	List *changes;				/* PgtChangeSet of the sources, later also of stages */
	bool truncated;				/* a source was */
	Bitmapset *unindexed;		/* numbers of stages whose identity index comes after their rows */
	const char *broken;			/* changes may be missing, because */
	bool is_outdated;			/* it has to be made anew first */
	TimestampTz data_timestamp; /* of base; without one the oldest of what is mixed */
	int64 refresh_id;
	bool announced;
	bool stale_states; /* an aggregate stage was refreshed without its states */
	PgtRefreshResult result;
	double delta_ms;
	double apply_ms;
	double full_ms;				 /* of them, to compute everything */
	PgtForecastVerdict forecast; /* if there was a choice */
	bool abandoned;				 /* the differential refresh took too long */
} Refresh;

StaticAssertDecl(sizeof(PgtForecastModel) == sizeof(double) * PGT_FRONTIER_MODEL_SIZE,
				 "the catalog keeps a forecast's model as it is");

static inline PgtForecastModel *
pgt_refresh_model(Refresh *refresh)
{
	return (PgtForecastModel *) refresh->row.cost_model;
}

/* decide.c */
typedef struct Decision
{
	const char *action; /* NO_DATA FULL DIFFERENTIAL REINITIALIZE */
	const char *reason; /* NULL: as always */
} Decision;

extern Decision pgt_decide_action(Refresh *refresh);
/* Rows of all sources, as the planner estimates them. */
extern double pgt_decide_source_rows(const Refresh *refresh);

/*
 * base.c: the snapshot of the tables at the ends of all paths that the rows will show, with its
 * time. False if there is none: what is read shows several. After the frontier was read.
 */
extern bool pgt_base_find(Refresh *refresh);

/* budget.c: the time that a differential refresh may take */
/* False if there is none: ms is 0, or a refresh around this one has one. */
extern bool pgt_budget_begin(double ms);
/* True if it is spent; the cancellation that came from it is no more. */
extern bool pgt_budget_end(bool began);

/* differential.c, full.c */
extern void pgt_differential_prepare(Refresh *refresh);
extern bool pgt_differential_run(Refresh *refresh, const char **misfit);
/* In a subtransaction; the message of an error that may not be one of the query, or NULL. */
extern const char *pgt_differential_try(Refresh *refresh, bool *fits, const char **misfit);
extern void pgt_full_run(Refresh *refresh);
extern void pgt_full_apply(Apply *apply, PgtDeltaRows *rows);
extern bool pgt_aggregate_run(Refresh *refresh, const PgtStage *stage, int index,
							  PgtDeltaInput *input, PgtDeltaRows *rows, Apply *apply);
extern PgtDeltaRows *pgt_aggregate_full(Refresh *refresh, const PgtStage *stage,
										PgtDeltaRows *states, Apply *apply);
extern int64 pgt_refresh_get_id(Refresh *refresh);
extern void pgt_refresh_count(Refresh *refresh, Apply *apply);

/* announce.c */
extern void pgt_announce_open(void *refresh);
extern void pgt_announce_close(Refresh *refresh);

/* rights.c */
extern void pgt_rights_check(const PgtStreamTable *st, Oid owner);

/* owner.c */
/* Gives the owner the rights on hidden tables that it may not have yet. */
extern void pgt_owner_check(const PgtStreamTable *st, const PgtDefinition *definition, Oid owner);

/* storage.c */
extern bool pgt_storage_is_complete(const PgtStage *stage);
extern bool pgt_storage_has_index(Oid relid, const PgtStage *stage, bool is_state);
/* After all rows of a stage that had no identity index were written. */
extern void pgt_storage_create_again(const PgtStreamTable *st, const PgtStage *stage,
									 bool is_stage);
/* Makes room for wide keys among the rows to come; first: where the keys' row or the keys begin. */
extern void pgt_storage_fit_rows(const PgtStage *stage, PgtDeltaRows *rows, int first);
extern void pgt_storage_fit_keys(const PgtStage *stage, PgtDeltaRows *rows, int first);

/* Of storage.c, for wide_keys.c, which replaces indexes. filled: are there rows already? */
extern void pgt_storage_create(const PgtStreamTable *st, const PgtStage *stage, bool is_stage,
							   bool filled);
extern Oid pgt_storage_mark_index(const PgtStage *stage, bool is_state);
extern void pgt_storage_mark_scope_index(const PgtStage *stage);
extern void pgt_storage_create_scope_index(const PgtStage *stage);
extern bool pgt_storage_is_scope_index_of_ours(Oid index_relid);
extern char *pgt_storage_access_index_name(const PgtStage *stage, int number);
extern void pgt_storage_drop_index(Oid relid, Oid index_relid);
/* Of wide_keys.c: has the table a row whose columns are too wide for an index? */
extern bool pgt_storage_has_wide(Relation relation, int ncolumns, const AttrNumber *columns);

#endif /* REFRESH_INTERNAL_H */
