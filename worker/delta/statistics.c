/*
 * statistics.c: what the planner believes about the columns of change sets.
 *
 * A change set is a named relation in memory, about which the server knows its
 * number of rows and nothing else: it takes every column for one of 200 values,
 * and so a join of two change sets by a key for thirty times the rows that it
 * has, and hashes whole tables for them. Here a change set has the statistics of
 * its table, with no more different values than it has rows. Given through
 * get_relation_stats_hook (src/backend/utils/adt/selfuncs.c), which is set only
 * while one of our statements is planned.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_statistic.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/selfuncs.h"
#include "utils/syscache.h"

#include "delta_internal.h"

static const Inputs *planned = NULL; /* those of the statement that is being planned */
static get_relation_stats_hook_type next_hook = NULL;

static const ChangeShape *
find_shape(const RangeTblEntry *rte, double *nrows)
{
	ListCell *lc;

	for (int i = 0; i < planned->ninputs; i++)
		if (strcmp(planned->inputs[i].name, rte->enrname) == 0)
			*nrows = planned->inputs[i].estimate;
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

static void
limit_distinct(HeapTuple tuple, Oid relid, double nrows)
{
	Form_pg_statistic statistic = (Form_pg_statistic) GETSTRUCT(tuple);
	double distinct = statistic->stadistinct;

	if (distinct < 0)
		distinct = -distinct * table_rows(relid);
	statistic->stadistinct = (float4) Min(distinct, Max(nrows, 1.0));
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
	double nrows = 0;
	HeapTuple tuple;
	AttrNumber column;

	if (next_hook != NULL && next_hook(root, rte, attnum, result))
		return true;
	if (rte->rtekind != RTE_NAMEDTUPLESTORE || (shape = find_shape(rte, &nrows)) == NULL ||
		attnum < 2 || attnum - 1 > shape->ncolumns) /* the first one is the weight */
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
	limit_distinct(tuple, shape->relid, nrows);
	result->statsTuple = tuple;
	result->freefunc = heap_freetuple;
	result->acl_ok = may_read(shape->relid);
	return true;
}

PlannedStmt *
pgt_statistics_plan(PgtPlan *plan, const Inputs *inputs)
{
	PlannedStmt *stmt;

	Assert(planned == NULL);
	next_hook = get_relation_stats_hook;
	get_relation_stats_hook = find_statistics;
	planned = inputs;
	PG_TRY();
	{
		stmt = pgt_spi_plan_now(plan, inputs->inputs, inputs->ninputs);
	}
	PG_FINALLY();
	{
		planned = NULL;
		get_relation_stats_hook = next_hook;
	}
	PG_END_TRY();
	return stmt;
}
