/*
 * statistics.c: what the planner believes about the columns of change sets.
 *
 * A change set is a named relation in memory, about which the server knows its
 * number of rows and nothing else: it takes every column for one of 200 values,
 * and so a join of two change sets by a key for thirty times the rows that it
 * has, and hashes whole tables for them. Here a change set has the statistics of
 * its table, but as many different values as are counted in its first rows: lines
 * change together with the others of their order, so few orders have to be looked
 * up for them. Given through get_relation_stats_hook
 * (src/backend/utils/adt/selfuncs.c), which is set only while one of our
 * statements is planned.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_statistic.h"
#include "executor/executor.h"
#include "lib/hyperloglog.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "optimizer/plancat.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/selfuncs.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "delta_internal.h"

#define COUNT_FROM 1000	   /* rows; few are not worth it */
#define COUNT_ROWS 10000   /* the first ones stand for all */
#define COUNT_REGISTERS 10 /* as a power of two: within 3 % */

/* What was counted for the statement that is being planned. */
typedef struct Counted
{
	const PgtInput *input;
	AttrNumber attnum;
	double distinct;
} Counted;

static const Inputs *planned = NULL; /* those of that statement */
static List *counted = NIL;
static get_relation_stats_hook_type next_hook = NULL;
static get_relation_info_hook_type next_info_hook = NULL;

static const PgtInput *
find_input(const RangeTblEntry *rte)
{
	for (int i = 0; i < planned->ninputs; i++)
		if (strcmp(planned->inputs[i].name, rte->enrname) == 0)
			return &planned->inputs[i];
	return NULL;
}

static const ChangeShape *
find_shape(const RangeTblEntry *rte)
{
	ListCell *lc;

	foreach (lc, planned->emit.shapes)
	{
		const ChangeShape *shape = lfirst(lc);

		if (strcmp(psprintf("pgt_delta_%d", shape->number), rte->enrname) == 0)
			return shape;
	}
	return NULL;
}

static double
table_rows(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	double rows = 1;

	if (HeapTupleIsValid(tuple))
	{
		rows = Max(((Form_pg_class) GETSTRUCT(tuple))->reltuples, 1);
		ReleaseSysCache(tuple);
	}
	return rows;
}

/* Different values among the first rows; 0 if the type cannot be hashed. */
static double
count_first_rows(const PgtInput *input, AttrNumber attnum, double *nrows)
{
	Form_pg_attribute att = TupleDescAttr(input->desc, attnum - 1);
	TypeCacheEntry *type = lookup_type_cache(att->atttypid, TYPECACHE_HASH_PROC_FINFO);
	TupleTableSlot *slot;
	hyperLogLogState state;
	double distinct;
	int pointer;

	*nrows = 0;
	if (!OidIsValid(type->hash_proc_finfo.fn_oid))
		return 0;
	slot = MakeSingleTupleTableSlot(input->desc, &TTSOpsMinimalTuple);
	initHyperLogLog(&state, COUNT_REGISTERS);
	pointer = tuplestore_alloc_read_pointer(input->rows, EXEC_FLAG_REWIND);
	tuplestore_select_read_pointer(input->rows, pointer);
	tuplestore_rescan(input->rows);
	while (*nrows < COUNT_ROWS && tuplestore_gettupleslot(input->rows, true, false, slot))
	{
		bool isnull;
		Datum value = slot_getattr(slot, attnum, &isnull);

		(*nrows)++;
		if (!isnull)
			addHyperLogLog(&state, DatumGetUInt32(FunctionCall1Coll(&type->hash_proc_finfo,
																	att->attcollation, value)));
	}
	tuplestore_select_read_pointer(input->rows, 0);
	ExecDropSingleTupleTableSlot(slot);
	distinct = estimateHyperLogLog(&state);
	freeHyperLogLog(&state);
	return Max(distinct, 1);
}

/* Different values of a column of a change set. */
static double
count_distinct(const PgtInput *input, AttrNumber attnum)
{
	Counted *entry;
	double nrows;
	ListCell *lc;

	if (input->rows == NULL || input->estimate < COUNT_FROM)
		return input->estimate;
	foreach (lc, counted)
	{
		entry = lfirst(lc);
		if (entry->input == input && entry->attnum == attnum)
			return entry->distinct;
	}
	entry = palloc(sizeof(Counted));
	entry->input = input;
	entry->attnum = attnum;
	entry->distinct = count_first_rows(input, attnum, &nrows);
	if (entry->distinct == 0 || nrows == 0)
		entry->distinct = input->estimate;
	else if (nrows < input->estimate)
		entry->distinct *= input->estimate / nrows;
	counted = lappend(counted, entry);
	return entry->distinct;
}

/* No more than the table has: few values among the first rows are as few among all. */
static void
set_distinct(HeapTuple tuple, Oid relid, double values)
{
	Form_pg_statistic statistic = (Form_pg_statistic) GETSTRUCT(tuple);
	double distinct = statistic->stadistinct;

	if (distinct < 0)
		distinct = -distinct * table_rows(relid);
	statistic->stadistinct = (float4) Max(distinct == 0 ? values : Min(distinct, values), 1);
}

/*
 * Values of the statistics are shown to operators of the query, which may tell
 * them: only to those who may read the table itself.
 */
static bool
may_read(Oid relid)
{
	return pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK &&
		   check_enable_rls(relid, InvalidOid, true) != RLS_ENABLED;
}

static bool
find_statistics(PlannerInfo *root, RangeTblEntry *rte, AttrNumber attnum, VariableStatData *result)
{
	const ChangeShape *shape;
	const PgtInput *input;
	HeapTuple tuple;
	AttrNumber column;

	if (next_hook != NULL && next_hook(root, rte, attnum, result))
		return true;
	if (rte->rtekind != RTE_NAMEDTUPLESTORE || (shape = find_shape(rte)) == NULL ||
		(input = find_input(rte)) == NULL || attnum < 2 ||
		attnum - 1 > shape->ncolumns) /* the first one is the weight */
		return false;
	column = shape->attnums[attnum - 2];
	if (get_atttype(shape->relid, column) != result->atttype)
		return false;
	tuple = SearchSysCacheCopy3(STATRELATTINH, ObjectIdGetDatum(shape->relid),
								Int16GetDatum(column), BoolGetDatum(false));
	if (!HeapTupleIsValid(tuple)) /* of a partitioned table */
		tuple = SearchSysCacheCopy3(STATRELATTINH, ObjectIdGetDatum(shape->relid),
									Int16GetDatum(column), BoolGetDatum(true));
	if (!HeapTupleIsValid(tuple))
		return false;
	set_distinct(tuple, shape->relid, count_distinct(input, attnum));
	result->statsTuple = tuple;
	result->freefunc = heap_freetuple;
	result->acl_ok = may_read(shape->relid);
	return true;
}

static void
add_relation_info(PlannerInfo *root, Oid relid, bool inhparent, RelOptInfo *rel)
{
	if (next_info_hook != NULL)
		next_info_hook(root, relid, inhparent, rel);
	pgt_keyjoin_add(root, rel);
}

PlannedStmt *
pgt_statistics_plan(PgtPlan *plan, const Inputs *inputs)
{
	PlannedStmt *stmt;

	Assert(planned == NULL);
	next_hook = get_relation_stats_hook;
	get_relation_stats_hook = find_statistics;
	next_info_hook = get_relation_info_hook;
	get_relation_info_hook = add_relation_info;
	planned = inputs;
	counted = NIL;
	PG_TRY();
	{
		stmt = pgt_spi_plan_now(plan, inputs->inputs, inputs->ninputs);
	}
	PG_FINALLY();
	{
		planned = NULL;
		get_relation_stats_hook = next_hook;
		get_relation_info_hook = next_info_hook;
	}
	PG_END_TRY();
	return stmt;
}
