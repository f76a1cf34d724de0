/*
 * plan.c: the definitions and kept statements of each stream table.
 *
 * Owns, per backend, one PgtDelta for each stream table refreshed here: the
 * analysed definition in a memory context of its own, and kept plans under
 * (stage, purpose, changed inputs, null keys, size class). Inputs are named
 * relations in memory, so plans have no parameters and are generic at once.
 *
 * A relcache invalidation of anything the definition reads makes it stale, and
 * so does any change of roles: it is analysed again at the next refresh, and a
 * plan whose text is still the same is kept. A plan that the server would make
 * again is made again here, from a text with the names of now.
 */
#include "postgres.h"

#include <math.h>

#include "access/relation.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#include "pgt_compat.h"
#include "pgt_dependency.h"
#include "pgt_guc.h"
#include "pgt_security.h"

#include "delta_internal.h"

#define SMALL_DELTA 2000 /* images; above, hash joins are allowed */
#define SMALL_ESTIMATE 50
#define MUCH_CHEAPER 2 /* times: what the planner has to promise for the keys of large deltas */
#define FEW_ROWS 100   /* where several inputs are small, some are smaller */
#define FEW_ESTIMATE 20
#define MORE_ESTIMATE 500
#define SMALL_TABLE_PAGES 64 /* reading this much whole is no defect of a plan */

typedef struct PlanKey
{
	int64 pgt_id;
	uint64 changed; /* bit n: input number n has changes */
	uint64 shape;	/* hash of which columns those have */
	int32 stage;
	int32 purpose;
	uint32 nulls; /* bit n: key column n is null */
	int32 large;
} PlanKey;

typedef struct PlanEntry
{
	PlanKey key;
	PgtPlan *plan;
	char *sql;
	uint64 generation; /* of the definition the text was made from */
	uint64 last_used;
	Size size;
} PlanEntry;

static HTAB *deltas = NULL;
static HTAB *plans = NULL;
static Size plans_size = 0; /* memory of all of them */
static uint64 generations = 0;
static uint64 uses = 0;

/* ---- The cache of definitions ---- */

static void
invalidate(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	PgtDelta *delta;

	hash_seq_init(&status, deltas);
	while ((delta = hash_seq_search(&status)) != NULL)
	{
		bool reads = !OidIsValid(relid) || relid == delta->view_relid;

		for (int i = 1; i <= delta->ninputs && !reads; i++)
			reads = delta->inputs[i] == relid;
		delta->stale = delta->stale || reads;
	}
}

/* Roles and memberships decide what may be read without a view (support.c). */
static void
invalidate_rights(Datum arg, int cacheid, uint32 hashvalue)
{
	invalidate((Datum) 0, InvalidOid);
}

static void
init_caches(void)
{
	HASHCTL delta_ctl = {.keysize = sizeof(int64), .entrysize = sizeof(PgtDelta)};
	HASHCTL plan_ctl = {.keysize = sizeof(PlanKey), .entrysize = sizeof(PlanEntry)};

	if (deltas != NULL)
		return;
	deltas = hash_create("pg_trickle deltas", 64, &delta_ctl, HASH_ELEM | HASH_BLOBS);
	plans = hash_create("pg_trickle plans", 256, &plan_ctl, HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(invalidate, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, invalidate_rights, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, invalidate_rights, (Datum) 0);
}

static void
add_input(PgtDelta *delta, Oid relid)
{
	if (OidIsValid(relid))
		delta->inputs[++delta->ninputs] = relid;
}

static bool
is_forced(void)
{
#ifdef PGT_TEST_POINTS
	return pgt_guc_force_technique != NULL && strcmp(pgt_guc_force_technique, "akr") == 0;
#else
	return false;
#endif
}

static void
analyze_definition(PgtDelta *delta)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle definition",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	PgtDefinition *definition;
	ListCell *lc;

	delta->stale = false; /* an invalidation from here on counts again */
	definition = pgt_delta_analyze(delta->view_relid, NULL);
	pgt_delta_bind(definition, delta->pgt_id, delta->relid);
	definition->is_outdated = definition->full_reason == NULL && !pgt_stage_tables_fit(definition);
	delta->forced = is_forced();
	foreach (lc, definition->stages)
	{
		PgtStage *stage = lfirst(lc);

		/* One that is not stored is recomputed as it is. */
		if (delta->forced && stage->technique != PGT_TECHNIQUE_FULL && !stage->is_virtual &&
			stage->recursion == NULL && stage->technique != PGT_TECHNIQUE_PARTITION)
			stage->technique = PGT_TECHNIQUE_AKR;
	}
	if (delta->context != NULL)
		MemoryContextDelete(delta->context);
	MemoryContextSetParent(context, CacheMemoryContext);
	delta->context = context;
	delta->definition = definition;
	delta->owner = pgt_compat_relation_owner(delta->relid);
	delta->generation = ++generations;
	delta->ninputs = 0;
	delta->inputs = palloc0(
		sizeof(Oid) * (1 + list_length(definition->sources) + list_length(definition->stages)));
	foreach (lc, definition->sources)
		if (!((PgtSourceUse *) lfirst(lc))->is_view)
			add_input(delta, ((PgtSourceUse *) lfirst(lc))->relid);
	foreach (lc, definition->stages)
		if (lnext(definition->stages, lc) != NULL)
			add_input(delta, ((PgtStage *) lfirst(lc))->relid);
	MemoryContextSwitchTo(old);
}

/*
 * Analysis opens the hidden view. DDL on a source locks the source and then
 * the view, so the sources come first here, too, or the two deadlock.
 */
static void
lock_sources(int64 pgt_id)
{
	List *dependencies = pgt_dependency_list(pgt_id);
	ListCell *lc;

	foreach (lc, dependencies)
		LockRelationOid(((PgtDependency *) lfirst(lc))->relid, AccessShareLock);
}

PgtDelta *
pgt_delta_open(int64 pgt_id, Oid relid, Oid view_relid)
{
	PgtDelta *delta;
	bool found;

	init_caches();
	delta = hash_search(deltas, &pgt_id, HASH_ENTER, &found);
	if (!found)
	{
		memset(delta, 0, sizeof(PgtDelta));
		delta->pgt_id = pgt_id;
		delta->stale = true;
	}
	if (!delta->analyzed || delta->stale || delta->relid != relid ||
		delta->view_relid != view_relid || delta->forced != is_forced())
	{
		PgtSecurity saved;

		delta->relid = relid;
		delta->view_relid = view_relid;
		delta->analyzed = false; /* until it succeeded */
		lock_sources(pgt_id);
		saved = pgt_security_become(pgt_compat_relation_owner(relid));
		analyze_definition(delta);
		delta->analyzed = true;
		pgt_security_restore(&saved);
	}
	return delta;
}

const PgtDefinition *
pgt_delta_definition(PgtDelta *delta)
{
	return delta->definition;
}

static void
drop_plan(PlanEntry *entry)
{
	plans_size -= entry->size;
	pgt_spi_free_plan(entry->plan);
	pfree(entry->sql);
	hash_search(plans, &entry->key, HASH_REMOVE, NULL);
}

void
pgt_delta_forget(int64 pgt_id)
{
	HASH_SEQ_STATUS status;
	PlanEntry *entry;
	PgtDelta *delta;

	if (deltas == NULL || (delta = hash_search(deltas, &pgt_id, HASH_FIND, NULL)) == NULL)
		return;
	hash_seq_init(&status, plans);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (entry->key.pgt_id == pgt_id)
			drop_plan(entry);
	if (delta->context != NULL)
		MemoryContextDelete(delta->context);
	hash_search(deltas, &pgt_id, HASH_REMOVE, NULL);
}

/* Keeps to the budget: those unused for longest go. The newest one stays in any case. */
static void
evict_plans(void)
{
	while (plans_size > (Size) pgt_guc_plan_cache_size * 1024 && hash_get_num_entries(plans) > 1)
	{
		HASH_SEQ_STATUS status;
		PlanEntry *entry;
		PlanEntry *oldest = NULL;

		hash_seq_init(&status, plans);
		while ((entry = hash_seq_search(&status)) != NULL)
			if (oldest == NULL || entry->last_used < oldest->last_used)
				oldest = entry;
		drop_plan(oldest);
	}
}

/* ---- Planning ---- */

/*
 * How freely a statement is planned. Only nested loops: what the query's
 * indexes can do. Indexed: deltas may be hashed, too, but no table is read whole.
 * Free: a delta so large, or so few indexes, that reading tables whole may pay.
 */
typedef enum Freedom
{
	FREEDOM_LOOPS,
	FREEDOM_INDEXED,
	FREEDOM_ALL
} Freedom;

/* Settings under which statements are planned; undone by the caller. */
static int
set_planner(Freedom freedom, bool ordered)
{
	int level = NewGUCNestLevel();
	const char *const settings[][2] = {
		{"row_security", "off"},
		{"enable_hashjoin", freedom >= FREEDOM_INDEXED ? "on" : "off"},
		{"enable_mergejoin", freedom == FREEDOM_ALL ? "on" : "off"},
		{"enable_seqscan", freedom == FREEDOM_INDEXED ? "off" : "on"},
		{"join_collapse_limit", ordered ? "1" : "10"},
		{"from_collapse_limit", ordered ? "1" : "10"},
		/* What deltas are about was written a moment ago: it is in memory. */
		{"seq_page_cost", "0.1"},
		{"random_page_cost", "0.1"},
		{"cpu_tuple_cost", "0.02"},
		{"max_parallel_workers_per_gather", "0"},
		{"jit", "off"},
		{"plan_cache_mode", "auto"}};

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/* Does a plan read a table of some size whole? */
static bool
reads_whole_table(Plan *plan, List *rtable)
{
	ListCell *lc;

	if (plan == NULL)
		return false;
	if (IsA(plan, SeqScan) || (IsA(plan, IndexScan) && ((IndexScan *) plan)->indexqual == NIL) ||
		(IsA(plan, IndexOnlyScan) && ((IndexOnlyScan *) plan)->indexqual == NIL))
	{
		RangeTblEntry *rte = list_nth(rtable, ((Scan *) plan)->scanrelid - 1);
		Relation relation = relation_open(rte->relid, NoLock);
		bool big = RelationGetNumberOfBlocks(relation) > SMALL_TABLE_PAGES;

		relation_close(relation, NoLock);
		return big;
	}
	if (IsA(plan, Append))
		foreach (lc, ((Append *) plan)->appendplans)
			if (reads_whole_table(lfirst(lc), rtable))
				return true;
	if (IsA(plan, SubqueryScan) && reads_whole_table(((SubqueryScan *) plan)->subplan, rtable))
		return true;
	return reads_whole_table(plan->lefttree, rtable) || reads_whole_table(plan->righttree, rtable);
}

PgtPlan *
pgt_plan_small(const char *sql, Inputs *inputs, bool ordered)
{
	int level = set_planner(FREEDOM_LOOPS, ordered);
	PgtPlan *plan;

	for (int i = 0; i < inputs->ninputs; i++)
		inputs->inputs[i].estimate = 1;
	plan = pgt_spi_prepare(sql, inputs->inputs, inputs->ninputs, CURSOR_OPT_GENERIC_PLAN);
	(void) pgt_statistics_plan(plan, inputs);
	AtEOXact_GUC(false, level);
	return plan;
}

/* Plans a statement; NULL if the plan would read a table of some size whole and must not. */
static PgtPlan *
plan_with(const char *sql, Inputs *inputs, bool ordered, Freedom freedom, double *cost)
{
	int level = set_planner(freedom, ordered);
	PgtPlan *plan = pgt_spi_prepare(sql, inputs->inputs, inputs->ninputs, CURSOR_OPT_GENERIC_PLAN);
	PlannedStmt *stmt = pgt_statistics_plan(plan, inputs);

	AtEOXact_GUC(false, level);
	*cost = stmt->planTree->total_cost;
	if (freedom == FREEDOM_ALL || !reads_whole_table(stmt->planTree, stmt->rtable))
		return plan;
	pgt_spi_free_plan(plan);
	return NULL;
}

/*
 * What a small delta is planned for. One plan does for any size of a single input;
 * of several, which one is the smaller decides where to begin.
 */
static double
small_estimate(const Inputs *inputs, int i)
{
	if (inputs->ninputs == 1)
		return SMALL_ESTIMATE;
	return inputs->inputs[i].estimate <= FEW_ROWS ? FEW_ESTIMATE : MORE_ESTIMATE;
}

/*
 * Keys of a large delta. Rows found by many look-ups in an index that is not unique
 * cost more than the planner takes for them, and such a way to the keys may seem
 * the cheaper one; in our order, each changed row is looked up once.
 */
static PgtPlan *
plan_keys(const char *sql, Inputs *inputs)
{
	double our_cost;
	double cost;
	PgtPlan *ours = plan_with(sql, inputs, true, FREEDOM_ALL, &our_cost);
	PgtPlan *other = plan_with(sql, inputs, false, FREEDOM_ALL, &cost);
	bool cheaper = cost * MUCH_CHEAPER < our_cost;

	pgt_spi_free_plan(cheaper ? ours : other);
	return cheaper ? other : ours;
}

PgtPlan *
pgt_plan_statement(const char *sql, Inputs *inputs, PlanOrder order)
{
	bool ordered = order == ORDER_OURS;
	bool large = inputs->nrows > SMALL_DELTA;
	PgtPlan *plan = NULL;
	double cost;

	for (int i = 0; i < inputs->ninputs && !large; i++)
		inputs->inputs[i].estimate = small_estimate(inputs, i);
	if (!large)
		plan = plan_with(sql, inputs, ordered, FREEDOM_INDEXED, &cost);
	if (!large && plan == NULL)
		plan = plan_with(sql, inputs, ordered, FREEDOM_LOOPS, &cost);
	/* Without an index, one hash of the delta beats a scan for every row of it. */
	if (plan != NULL)
		return plan;
	return order == ORDER_DOUBTFUL ? plan_keys(sql, inputs)
								   : plan_with(sql, inputs, ordered, FREEDOM_ALL, &cost);
}

/*
 * Large deltas are planned for their sizes, to a power of ten each: a hundred
 * rows of a small table that reach a million of a large one are not the
 * same as the reverse. Of small ones, what small_estimate takes for the same is.
 */
static uint64
size_class(Inputs *inputs)
{
	bool large = inputs->nrows > SMALL_DELTA;
	uint64 class = 0;

	for (int i = 0; i < inputs->ninputs; i++)
		class = hash_combine64(class, large ? 1 + (uint64) log10(Max(inputs->inputs[i].estimate, 1))
											: (uint64) small_estimate(inputs, i));
	return class;
}

const char *
pgt_plan_purpose_name(Purpose purpose)
{
	static const char *const names[] = {"keys",	  "rows of keys",	"signed rows",
										"inputs", "inputs of keys", "old rows of keys"};

	return names[purpose];
}

/*
 * In whose order is a statement joined: in the one in which it is written (order.c), or
 * in the planner's, which finds a better one where it has statistics?
 */
PlanOrder
pgt_plan_order(const PgtStage *stage, Purpose purpose, const EmitContext *emit)
{
	if (purpose == PURPOSE_ROWS_OF_KEYS || purpose == PURPOSE_OLD_ROWS_OF_KEYS)
		return pgt_emit_is_ordered(stage) ? ORDER_OURS : ORDER_PLANNERS;
	if (emit->ctes != NULL || emit->before != NIL)
		return ORDER_OURS;
	return purpose == PURPOSE_KEYS ? ORDER_DOUBTFUL : ORDER_PLANNERS;
}

char *
pgt_plan_emit(const PgtStage *stage, Purpose purpose, EmitContext *context, const Bitmapset *nulls)
{
	switch (purpose)
	{
		case PURPOSE_KEYS:
			return pgt_emit_keys(stage, context);
		case PURPOSE_ROWS_OF_KEYS:
			return pgt_emit_rows_of_keys(stage, nulls, context);
		case PURPOSE_SIGNED:
			return pgt_emit_signed(stage, context);
		case PURPOSE_INPUTS:
			return pgt_emit_inputs(stage, context);
		case PURPOSE_INPUTS_OF_KEYS:
			return pgt_emit_inputs_of_keys(stage, nulls, context);
		case PURPOSE_OLD_ROWS_OF_KEYS:
			return pgt_emit_old_rows_of_keys(stage, nulls, context);
	}
	return NULL;
}

PgtPlan *
pgt_plan_get(PgtDelta *delta, const PgtStage *stage, Purpose purpose, Inputs *inputs,
			 const Bitmapset *nulls)
{
	PlanKey key;
	PlanEntry *entry;
	bool found;
	bool large = inputs->nrows > SMALL_DELTA;
	PgtPlan *plan;
	char *sql;
	int member = -1;

	memset(&key, 0, sizeof(key));
	key.pgt_id = delta->pgt_id;
	key.changed = inputs->changed;
	key.shape = hash_combine64(inputs->shape, size_class(inputs));
	key.stage = stage->number;
	key.purpose = purpose;
	key.large = large;
	while ((member = bms_next_member(nulls, member)) >= 0)
		key.nulls |= 1U << (member & 31);
	entry = hash_search(plans, &key, HASH_FIND, NULL);
	/*
	 * A plan that was invalidated (by DDL, ANALYZE, another function) is made
	 * here: the server's plan cache would read its text again, though names in
	 * it may have changed, and plan it under whatever settings.
	 */
	if (entry != NULL && !pgt_spi_plan_is_valid(entry->plan))
	{
		drop_plan(entry);
		entry = NULL;
	}
	if (entry != NULL && entry->generation == delta->generation)
	{
		entry->last_used = ++uses;
		evict_plans();
		return entry->plan;
	}
	sql = pgt_plan_emit(stage, purpose, &inputs->emit, nulls);
	if (entry != NULL)
	{
		if (strcmp(entry->sql, sql) == 0)
		{
			entry->generation = delta->generation;
			entry->last_used = ++uses;
			return entry->plan;
		}
		drop_plan(entry);
	}
	plan = pgt_plan_statement(sql, inputs, pgt_plan_order(stage, purpose, &inputs->emit));
	entry = hash_search(plans, &key, HASH_ENTER, &found);
	entry->plan = plan;
	entry->sql = MemoryContextStrdup(CacheMemoryContext, sql);
	entry->generation = delta->generation;
	entry->last_used = ++uses;
	entry->size = pgt_spi_plan_size(plan) + strlen(sql) + sizeof(PlanEntry);
	plans_size += entry->size;
	evict_plans();
	return plan;
}
