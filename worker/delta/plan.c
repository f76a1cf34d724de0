/*
 * plan.c: the statements of each stream table, and running them.
 *
 * Owns, per backend, one PgtDelta for each stream table refreshed here: the
 * analysed definition in a memory context of its own, and kept plans under
 * (stage, purpose, changed inputs, null keys, size class). Inputs are named
 * relations in memory, so plans have no parameters and are generic at once.
 *
 * A relcache invalidation of anything the definition reads makes it stale: it
 * is analysed again at the next refresh, and a plan whose text is still the
 * same is kept (the plan cache itself replans what must be replanned).
 */
#include "postgres.h"

#include "access/relation.h"
#include "executor/executor.h"
#include "executor/tstoreReceiver.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "pgt_compat.h"
#include "pgt_guc.h"
#include "pgt_security.h"

#include "delta_internal.h"

#define PLAN_BUDGET 256			/* kept plans per backend */
#define SMALL_DELTA 2000		/* images; above, hash joins are allowed */
#define LARGE_ESTIMATE 100000	/* images the planner believes in for the large class */
#define SMALL_ESTIMATE 50
#define SMALL_TABLE_PAGES 64	/* reading this much whole is no defect of a plan */

typedef enum Purpose
{
	PURPOSE_KEYS,
	PURPOSE_ROWS_OF_KEYS,
	PURPOSE_SIGNED,
	PURPOSE_INPUTS,
	PURPOSE_INPUTS_OF_KEYS
} Purpose;

static const char *const purpose_names[] = {
	"keys", "rows of keys", "signed rows", "inputs", "inputs of keys"
};

typedef struct PlanKey
{
	int64		pgt_id;
	uint64		changed;		/* bit n: input number n has changes */
	uint64		shape;			/* hash of which columns those have */
	int32		stage;
	int32		purpose;
	uint32		nulls;			/* bit n: key column n is null */
	int32		large;
} PlanKey;

typedef struct PlanEntry
{
	PlanKey		key;
	PgtPlan    *plan;
	char	   *sql;
	uint64		generation;		/* of the definition the text was made from */
	uint64		last_used;
} PlanEntry;

struct PgtDelta
{
	int64		pgt_id;			/* hash key */
	Oid			relid;
	Oid			view_relid;
	Oid			owner;
	bool		stale;
	bool		forced;			/* analysed under force_technique */
	uint64		generation;
	MemoryContext context;
	PgtDefinition *definition;
	int			ninputs;		/* relations by input number, from 1 */
	Oid		   *inputs;
};

static HTAB *deltas = NULL;
static HTAB *plans = NULL;
static uint64 generations = 0;
static uint64 uses = 0;

/* ---- The cache of definitions ---- */

static void
invalidate(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	PgtDelta   *delta;

	hash_seq_init(&status, deltas);
	while ((delta = hash_seq_search(&status)) != NULL)
	{
		bool		reads = !OidIsValid(relid) || relid == delta->view_relid;

		for (int i = 1; i <= delta->ninputs && !reads; i++)
			reads = delta->inputs[i] == relid;
		delta->stale = delta->stale || reads;
	}
}

static void
init_caches(void)
{
	HASHCTL		delta_ctl = {.keysize = sizeof(int64),.entrysize = sizeof(PgtDelta)};
	HASHCTL		plan_ctl = {.keysize = sizeof(PlanKey),.entrysize = sizeof(PlanEntry)};

	if (deltas != NULL)
		return;
	deltas = hash_create("pg_trickle deltas", 64, &delta_ctl, HASH_ELEM | HASH_BLOBS);
	plans = hash_create("pg_trickle plans", PLAN_BUDGET, &plan_ctl, HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(invalidate, (Datum) 0);
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
	MemoryContext context = AllocSetContextCreate(CacheMemoryContext,
												  "pg_trickle definition",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	PgtDefinition *definition;
	ListCell   *lc;

	delta->stale = false;		/* an invalidation from here on counts again */
	definition = pgt_delta_analyze(delta->view_relid, NULL);
	stage_bind(definition, delta->pgt_id, delta->relid);
	delta->forced = is_forced();
	foreach(lc, definition->stages)
	{
		PgtStage   *stage = lfirst(lc);

		if (delta->forced && stage->technique != PGT_TECHNIQUE_FULL)
			stage->technique = PGT_TECHNIQUE_AKR;
	}
	if (delta->context != NULL)
		MemoryContextDelete(delta->context);
	delta->context = context;
	delta->definition = definition;
	delta->owner = pgt_compat_relation_owner(delta->relid);
	delta->generation = ++generations;
	delta->ninputs = 0;
	delta->inputs = palloc0(sizeof(Oid) * (1 + list_length(definition->sources) +
										   list_length(definition->stages)));
	foreach(lc, definition->sources)
		if (!((PgtSourceUse *) lfirst(lc))->is_view)
			add_input(delta, ((PgtSourceUse *) lfirst(lc))->relid);
	foreach(lc, definition->stages)
		if (lnext(definition->stages, lc) != NULL)
			add_input(delta, ((PgtStage *) lfirst(lc))->relid);
	MemoryContextSwitchTo(old);
}

PgtDelta *
pgt_delta_open(int64 pgt_id, Oid relid, Oid view_relid)
{
	PgtDelta   *delta;
	bool		found;

	init_caches();
	delta = hash_search(deltas, &pgt_id, HASH_ENTER, &found);
	if (!found)
	{
		memset(delta, 0, sizeof(PgtDelta));
		delta->pgt_id = pgt_id;
		delta->stale = true;
	}
	if (delta->stale || delta->relid != relid || delta->view_relid != view_relid ||
		delta->forced != is_forced())
	{
		PgtSecurity saved;

		delta->relid = relid;
		delta->view_relid = view_relid;
		delta->stale = true;	/* until it succeeded */
		saved = pgt_security_become(pgt_compat_relation_owner(relid));
		analyze_definition(delta);
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
	pgt_spi_free_plan(entry->plan);
	pfree(entry->sql);
	hash_search(plans, &entry->key, HASH_REMOVE, NULL);
}

void
pgt_delta_forget(int64 pgt_id)
{
	HASH_SEQ_STATUS status;
	PlanEntry  *entry;
	PgtDelta   *delta;

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

/* Makes room for one more plan: the one unused for longest goes. */
static void
evict_plan(void)
{
	HASH_SEQ_STATUS status;
	PlanEntry  *entry;
	PlanEntry  *oldest = NULL;

	if (hash_get_num_entries(plans) < PLAN_BUDGET)
		return;
	hash_seq_init(&status, plans);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (oldest == NULL || entry->last_used < oldest->last_used)
			oldest = entry;
	drop_plan(oldest);
}

/* ---- Inputs of a statement ---- */

static int
input_number(PgtDelta *delta, Oid relid)
{
	for (int i = 1; i <= delta->ninputs; i++)
		if (delta->inputs[i] == relid)
			return i;
	return 0;
}

static ChangeShape *
make_shape(Oid relid, int number, int ncolumns, const AttrNumber *attnums)
{
	ChangeShape *shape = palloc0(sizeof(ChangeShape));

	shape->relid = relid;
	shape->number = number;
	shape->ncolumns = ncolumns;
	shape->attnums = palloc(sizeof(AttrNumber) * Max(ncolumns, 1));
	shape->names = palloc(sizeof(char *) * Max(ncolumns, 1));
	for (int i = 0; i < ncolumns; i++)
	{
		shape->attnums[i] = attnums[i];
		shape->names[i] = psprintf("c%d", attnums[i]);
	}
	return shape;
}

/* The change set under the names that the statements use. */
static TupleDesc
input_desc(const PgtChangeSet *changes, const ChangeShape *shape)
{
	TupleDesc	desc = CreateTupleDescCopy(changes->desc);

	namestrcpy(&TupleDescAttr(desc, 0)->attname, PGT_WEIGHT_COLUMN);
	for (int i = 0; i < shape->ncolumns; i++)
		namestrcpy(&TupleDescAttr(desc, i + 1)->attname, shape->names[i]);
	return desc;
}

/* What a statement reads besides tables. */
typedef struct Inputs
{
	PgtInput   *inputs;
	int			ninputs;
	EmitContext emit;
	uint64		changed;
	uint64		shape;
	double		nrows;
} Inputs;

static void
collect_changes(PgtDelta *delta, const PgtStage *stage, const PgtDeltaInput *input, Inputs *result)
{
	ListCell   *lc;

	result->inputs = palloc0(sizeof(PgtInput) * (list_length(input->changes) + 1));
	foreach(lc, input->changes)
	{
		PgtChangeSet *changes = lfirst(lc);
		int			number = input_number(delta, changes->relid);
		ChangeShape *shape;
		PgtInput   *in;

		if (changes->nrows == 0 || number == 0 ||
			!list_member_oid(stage->inputs, changes->relid))
			continue;
		if (number >= 64)
			elog(ERROR, "a stream table over more than 63 tables is not supported");
		shape = make_shape(changes->relid, number, changes->ncolumns, changes->attnums);
		in = &result->inputs[result->ninputs++];
		in->name = psprintf("pgt_delta_%d", number);
		in->desc = input_desc(changes, shape);
		in->rows = changes->rows;
		result->emit.shapes = lappend(result->emit.shapes, shape);
		result->changed |= UINT64CONST(1) << number;
		for (int i = 0; i < shape->ncolumns; i++)
			result->shape = result->shape * 1000003 + shape->attnums[i] + number * 7919;
		result->nrows += changes->nrows;
	}
}

static void
add_keys(const PgtStage *stage, PgtDeltaRows *keys, Tuplestorestate *rows, Inputs *result)
{
	PgtInput   *in;

	if (result->inputs == NULL)
		result->inputs = palloc0(sizeof(PgtInput));
	in = &result->inputs[result->ninputs++];
	in->name = "pgt_keys";
	in->desc = emit_key_desc(stage);
	in->rows = rows;
	result->nrows += keys->nrows;
}

/* ---- Planning ---- */

/* Settings under which statements of a class are planned; undone by the caller. */
static int
set_planner(bool large, bool ordered)
{
	int			level = NewGUCNestLevel();
	const char *const settings[][2] = {
		{"row_security", "off"},
		{"enable_hashjoin", large ? "on" : "off"},
		{"enable_mergejoin", large ? "on" : "off"},
		{"join_collapse_limit", ordered ? "1" : "8"},
		{"from_collapse_limit", ordered ? "1" : "8"},
		{"random_page_cost", "1.1"},
		{"max_parallel_workers_per_gather", "0"},
		{"jit", "off"},
		{"plan_cache_mode", "auto"}
	};

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/* Does a plan read a table of some size whole? */
static bool
reads_whole_table(Plan *plan, List *rtable)
{
	ListCell   *lc;

	if (plan == NULL)
		return false;
	if (IsA(plan, SeqScan))
	{
		RangeTblEntry *rte = list_nth(rtable, ((SeqScan *) plan)->scan.scanrelid - 1);
		Relation	relation = relation_open(rte->relid, NoLock);
		bool		big = RelationGetNumberOfBlocks(relation) > SMALL_TABLE_PAGES;

		relation_close(relation, NoLock);
		return big;
	}
	if (IsA(plan, Append))
		foreach(lc, ((Append *) plan)->appendplans)
			if (reads_whole_table(lfirst(lc), rtable))
				return true;
	if (IsA(plan, SubqueryScan) && reads_whole_table(((SubqueryScan *) plan)->subplan, rtable))
		return true;
	return reads_whole_table(plan->lefttree, rtable) || reads_whole_table(plan->righttree, rtable);
}

static PgtPlan *
plan_statement(const char *sql, Inputs *inputs, bool large, bool ordered)
{
	PgtPlan    *plan;
	PlannedStmt *stmt;
	int			level = set_planner(large, ordered);

	for (int i = 0; i < inputs->ninputs; i++)
		inputs->inputs[i].estimate = large ? LARGE_ESTIMATE : SMALL_ESTIMATE;
	plan = pgt_spi_prepare(sql, inputs->inputs, inputs->ninputs, CURSOR_OPT_GENERIC_PLAN);
	stmt = pgt_spi_plan_now(plan, inputs->inputs, inputs->ninputs);
	AtEOXact_GUC(false, level);
	if (!large && reads_whole_table(stmt->planTree, stmt->rtable))
	{
		/* Without an index, one hash of the delta beats a scan for every row of it. */
		pgt_spi_free_plan(plan);
		level = set_planner(true, ordered);
		plan = pgt_spi_prepare(sql, inputs->inputs, inputs->ninputs, CURSOR_OPT_GENERIC_PLAN);
		(void) pgt_spi_plan_now(plan, inputs->inputs, inputs->ninputs);
		AtEOXact_GUC(false, level);
	}
	return plan;
}

static char *
emit_statement(const PgtStage *stage, Purpose purpose, EmitContext *context,
			   const Bitmapset *nulls)
{
	switch (purpose)
	{
		case PURPOSE_KEYS:
			return emit_keys(stage, context);
		case PURPOSE_ROWS_OF_KEYS:
			return emit_rows_of_keys(stage, nulls);
		case PURPOSE_SIGNED:
			return emit_signed(stage, context);
		case PURPOSE_INPUTS:
			return emit_inputs(stage, context);
		case PURPOSE_INPUTS_OF_KEYS:
			return emit_inputs_of_keys(stage, nulls);
	}
	return NULL;
}

static PgtPlan *
get_plan(PgtDelta *delta, const PgtStage *stage, Purpose purpose, Inputs *inputs,
		 const Bitmapset *nulls)
{
	PlanKey		key;
	PlanEntry  *entry;
	bool		found;
	bool		large = inputs->nrows > SMALL_DELTA;
	char	   *sql;
	int			member = -1;

	memset(&key, 0, sizeof(key));
	key.pgt_id = delta->pgt_id;
	key.changed = inputs->changed;
	key.shape = inputs->shape;
	key.stage = stage->number;
	key.purpose = purpose;
	key.large = large;
	while ((member = bms_next_member(nulls, member)) >= 0)
		key.nulls |= 1U << (member & 31);
	entry = hash_search(plans, &key, HASH_FIND, NULL);
	if (entry != NULL && entry->generation == delta->generation)
	{
		entry->last_used = ++uses;
		return entry->plan;
	}
	sql = emit_statement(stage, purpose, &inputs->emit, nulls);
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
	evict_plan();
	{
		PgtPlan    *plan = plan_statement(sql, inputs, large,
										  purpose != PURPOSE_ROWS_OF_KEYS || emit_is_ordered(stage));

		entry = hash_search(plans, &key, HASH_ENTER, &found);
		entry->plan = plan;
		entry->sql = MemoryContextStrdup(CacheMemoryContext, sql);
		entry->generation = delta->generation;
		entry->last_used = ++uses;
	}
	return entry->plan;
}

/* ---- Running ---- */

/* Rights of the owner, unless the caller already runs with them. */
static bool
become_owner(PgtDelta *delta, PgtSecurity *saved)
{
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	if (user == delta->owner && (context & SECURITY_RESTRICTED_OPERATION) != 0)
		return false;
	*saved = pgt_security_become(delta->owner);
	return true;
}

static PgtDeltaRows *
make_rows(void)
{
	PgtDeltaRows *rows = palloc0(sizeof(PgtDeltaRows));

	rows->rows = tuplestore_begin_heap(true, false, work_mem);
	return rows;
}

static void
run_plan(PgtPlan *plan, Inputs *inputs, Snapshot snapshot, PgtDeltaRows *result)
{
	DestReceiver *dest = CreateDestReceiver(DestTuplestore);

	SetTuplestoreDestReceiverParams(dest, result->rows, CurrentMemoryContext, false, NULL, NULL);
	if (result->desc == NULL)
		result->desc = CreateTupleDescCopy(pgt_spi_plan_desc(plan));
	result->nrows += pgt_spi_run(plan, inputs->inputs, inputs->ninputs, snapshot, dest);
	dest->rDestroy(dest);
}

static PgtDeltaRows *
run_statement(PgtDelta *delta, int stage_index, Purpose purpose, PgtDeltaInput *input)
{
	const PgtStage *stage = list_nth(delta->definition->stages, stage_index);
	PgtDeltaRows *result = make_rows();
	Inputs		inputs = {0};
	PgtSecurity saved;
	bool		changed = become_owner(delta, &saved);

	collect_changes(delta, stage, input, &inputs);
	run_plan(get_plan(delta, stage, purpose, &inputs, NULL), &inputs, input->snapshot, result);
	if (changed)
		pgt_security_restore(&saved);
	return result;
}

/* A part of a key set whose nulls are in the same columns. */
typedef struct KeyPart
{
	Bitmapset  *nulls;
	Tuplestorestate *rows;
	int64		nrows;
} KeyPart;

static List *
split_keys(const PgtStage *stage, PgtDeltaRows *keys)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(keys->desc, &TTSOpsMinimalTuple);
	List	   *parts = NIL;

	tuplestore_rescan(keys->rows);
	while (tuplestore_gettupleslot(keys->rows, true, false, slot))
	{
		Bitmapset  *nulls = NULL;
		KeyPart    *part = NULL;
		ListCell   *lc;

		slot_getallattrs(slot);
		for (int i = 0; i < keys->desc->natts; i++)
			if (slot->tts_isnull[i])
				nulls = bms_add_member(nulls, i + 1);
		foreach(lc, parts)
			if (bms_equal(((KeyPart *) lfirst(lc))->nulls, nulls))
				part = lfirst(lc);
		if (part == NULL)
		{
			part = palloc0(sizeof(KeyPart));
			part->nulls = nulls;
			part->rows = tuplestore_begin_heap(true, false, work_mem);
			parts = lappend(parts, part);
		}
		tuplestore_puttupleslot(part->rows, slot);
		part->nrows++;
	}
	ExecDropSingleTupleTableSlot(slot);
	return parts;
}

static PgtDeltaRows *
run_with_keys(PgtDelta *delta, int stage_index, Purpose purpose, PgtDeltaInput *input,
			  PgtDeltaRows *keys)
{
	const PgtStage *stage = list_nth(delta->definition->stages, stage_index);
	PgtDeltaRows *result = make_rows();
	PgtSecurity saved;
	bool		changed;
	ListCell   *lc;

	if (stage->identity == PGT_IDENTITY_SINGLE && purpose == PURPOSE_ROWS_OF_KEYS)
		return pgt_delta_all(delta, stage_index, input);
	changed = become_owner(delta, &saved);
	if (stage->identity == PGT_IDENTITY_SINGLE)
	{
		Inputs		inputs = {0};

		inputs.nrows = LARGE_ESTIMATE;
		run_plan(get_plan(delta, stage, purpose, &inputs, NULL), &inputs, input->snapshot,
				 result);
	}
	else
		foreach(lc, split_keys(stage, keys))
		{
			KeyPart    *part = lfirst(lc);
			Inputs		inputs = {0};

			add_keys(stage, keys, part->rows, &inputs);
			inputs.nrows = part->nrows;
			run_plan(get_plan(delta, stage, purpose, &inputs, part->nulls), &inputs,
					 input->snapshot, result);
			tuplestore_end(part->rows);
		}
	if (changed)
		pgt_security_restore(&saved);
	return result;
}

PgtDeltaRows *
pgt_delta_keys(PgtDelta *delta, int stage_index, PgtDeltaInput *input)
{
	const PgtStage *stage = list_nth(delta->definition->stages, stage_index);

	if (stage->identity == PGT_IDENTITY_SINGLE)
	{
		PgtDeltaRows *result = make_rows();

		result->desc = CreateTemplateTupleDesc(0);
		result->nrows = 1;
		return result;
	}
	return run_statement(delta, stage_index, PURPOSE_KEYS, input);
}

PgtDeltaRows *
pgt_delta_signed(PgtDelta *delta, int stage, PgtDeltaInput *input)
{
	return run_statement(delta, stage, PURPOSE_SIGNED, input);
}

PgtDeltaRows *
pgt_delta_inputs(PgtDelta *delta, int stage, PgtDeltaInput *input)
{
	return run_statement(delta, stage, PURPOSE_INPUTS, input);
}

PgtDeltaRows *
pgt_delta_rows_of_keys(PgtDelta *delta, int stage, PgtDeltaInput *input, PgtDeltaRows *keys)
{
	return run_with_keys(delta, stage, PURPOSE_ROWS_OF_KEYS, input, keys);
}

PgtDeltaRows *
pgt_delta_inputs_of_keys(PgtDelta *delta, int stage, PgtDeltaInput *input, PgtDeltaRows *keys)
{
	return run_with_keys(delta, stage, PURPOSE_INPUTS_OF_KEYS, input, keys);
}

/* Everything anew: planned each time, with the server's own settings. */
PgtDeltaRows *
pgt_delta_all(PgtDelta *delta, int stage_index, PgtDeltaInput *input)
{
	const PgtStage *stage = list_nth(delta->definition->stages, stage_index);
	PgtDeltaRows *result = make_rows();
	Inputs		inputs = {0};
	PgtSecurity saved;
	bool		changed = become_owner(delta, &saved);
	int			level = NewGUCNestLevel();
	PgtPlan    *plan;

	(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	plan = pgt_spi_prepare(emit_all(stage), NULL, 0, CURSOR_OPT_PARALLEL_OK);
	run_plan(plan, &inputs, input->snapshot, result);
	pgt_spi_free_plan(plan);
	AtEOXact_GUC(false, level);
	if (changed)
		pgt_security_restore(&saved);
	return result;
}

/* ---- Explaining ---- */

static ChangeShape *
shape_of_input(PgtDelta *delta, Oid relid)
{
	AttrNumber *attnums = palloc(sizeof(AttrNumber) * MaxHeapAttributeNumber);
	int			ncolumns = 0;
	ListCell   *lc;

	foreach(lc, delta->definition->sources)
	{
		PgtSourceUse *source = lfirst(lc);
		int			column = -1;

		if (source->relid == relid)
			while ((column = bms_next_member(source->columns, column)) >= 0)
				attnums[ncolumns++] = column;
	}
	foreach(lc, delta->definition->stages)
	{
		PgtStage   *stage = lfirst(lc);

		if (stage->relid == relid)
			for (int i = 1; i <= list_length(tree_outputs(stage->query)); i++)
				attnums[ncolumns++] = i;
	}
	return make_shape(relid, input_number(delta, relid), ncolumns, attnums);
}

static PgtDeltaText *
explain_statement(PgtDelta *delta, const PgtStage *stage, Purpose purpose)
{
	PgtDeltaText *text = palloc0(sizeof(PgtDeltaText));
	EmitContext emit = {NIL, NULL};
	ListCell   *lc;

	foreach(lc, stage->inputs)
		emit.shapes = lappend(emit.shapes, shape_of_input(delta, lfirst_oid(lc)));
	text->stage = stage->number;
	text->purpose = purpose_names[purpose];
	text->sql = emit_statement(stage, purpose, &emit, NULL);
	return text;
}

List *
pgt_delta_explain(PgtDelta *delta)
{
	List	   *texts = NIL;
	PgtSecurity saved;
	bool		changed = become_owner(delta, &saved);
	ListCell   *lc;

	foreach(lc, delta->definition->stages)
	{
		const PgtStage *stage = lfirst(lc);

		switch (stage->technique)
		{
			case PGT_TECHNIQUE_LINEAR:
				texts = lappend(texts, explain_statement(delta, stage, PURPOSE_SIGNED));
				break;
			case PGT_TECHNIQUE_AGGREGATE:
				texts = lappend(texts, explain_statement(delta, stage, PURPOSE_INPUTS));
				break;
			case PGT_TECHNIQUE_AKR:
				if (stage->identity != PGT_IDENTITY_SINGLE)
					texts = lappend(texts, explain_statement(delta, stage, PURPOSE_KEYS));
				texts = lappend(texts, explain_statement(delta, stage, PURPOSE_ROWS_OF_KEYS));
				break;
			case PGT_TECHNIQUE_FULL:
				{
					PgtDeltaText *text = palloc0(sizeof(PgtDeltaText));

					text->stage = stage->number;
					text->purpose = "full";
					text->sql = emit_all(stage);
					texts = lappend(texts, text);
				}
				break;
		}
	}
	if (changed)
		pgt_security_restore(&saved);
	return texts;
}
