/*
 * spi.c: the only file that calls SPI.
 *
 * Owns the kept plans of the catalog statements (a hash from the address of
 * the statement's text to its plan, in CacheMemoryContext for the life of the
 * backend). Every function opens and closes its own SPI connection and leaves
 * its results in the context of its caller.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "executor/spi_priv.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/queryenvironment.h"
#include "utils/snapmgr.h"

#include "pgt_compat.h"
#include "pgt_progress.h"
#include "pgt_spi.h"

struct PgtPlan
{
	SPIPlanPtr plan;
};

typedef struct KeptStatement
{
	const char *sql; /* hash key: the literal's address */
	SPIPlanPtr plan;
} KeptStatement;

static HTAB *kept_statements = NULL;

static void
connect_spi(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
}

static void
finish_spi(void)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not finish SPI");
}

static void
check_spi(int code, const char *sql)
{
	if (code < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(code));
}

/* Copies SPI's result to the given context. */
static PgtRows *
copy_rows(MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	PgtRows *rows = palloc0(sizeof(PgtRows));

	if (SPI_tuptable != NULL)
	{
		rows->nrows = (int) SPI_processed;
		rows->desc = CreateTupleDescCopy(SPI_tuptable->tupdesc);
		rows->rows = palloc(sizeof(HeapTuple) * Max(rows->nrows, 1));
		for (int i = 0; i < rows->nrows; i++)
			rows->rows[i] = heap_copytuple(SPI_tuptable->vals[i]);
	}
	else
		rows->nrows = (int) SPI_processed;
	MemoryContextSwitchTo(old);
	return rows;
}

static SPIPlanPtr
get_kept_statement(const char *sql, int nargs, const Oid *types)
{
	KeptStatement *entry;
	bool found;

	if (kept_statements == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(char *), .entrysize = sizeof(KeptStatement)};

		kept_statements = hash_create("pg_trickle statements", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	entry = hash_search(kept_statements, &sql, HASH_FIND, NULL);
	if (entry == NULL)
	{
		SPIPlanPtr plan = SPI_prepare(sql, nargs, (Oid *) types);

		if (plan == NULL)
			check_spi(SPI_result, sql);
		SPI_keepplan(plan);
		entry = hash_search(kept_statements, &sql, HASH_ENTER, &found);
		entry->plan = plan;
	}
	return entry->plan;
}

PgtRows *
pgt_spi_query(const char *sql, int nargs, const Oid *types, const Datum *values, const bool *nulls)
{
	MemoryContext caller = CurrentMemoryContext;
	char nullchars[FUNC_MAX_ARGS];
	PgtRows *rows;

	for (int i = 0; i < nargs; i++)
		nullchars[i] = nulls != NULL && nulls[i] ? 'n' : ' ';
	connect_spi();
	check_spi(SPI_execute_plan(get_kept_statement(sql, nargs, types), (Datum *) values, nullchars,
							   false, 0),
			  sql);
	rows = copy_rows(caller);
	finish_spi();
	return rows;
}

PgtRows *
pgt_spi_select(const char *sql)
{
	MemoryContext caller = CurrentMemoryContext;
	PgtRows *rows;

	connect_spi();
	check_spi(SPI_execute(sql, false, 0), sql);
	rows = copy_rows(caller);
	finish_spi();
	return rows;
}

uint64
pgt_spi_execute(const char *sql)
{
	uint64 processed;

	connect_spi();
	check_spi(SPI_execute(sql, false, 0), sql);
	processed = SPI_processed;
	finish_spi();
	return processed;
}

Datum
pgt_spi_datum(const PgtRows *rows, int row, int column, bool *isnull)
{
	return heap_getattr(rows->rows[row], column, rows->desc, isnull);
}

char *
pgt_spi_text(const PgtRows *rows, int row, int column)
{
	return SPI_getvalue(rows->rows[row], rows->desc, column);
}

int64
pgt_spi_int64(const PgtRows *rows, int row, int column)
{
	bool isnull;
	Datum value = pgt_spi_datum(rows, row, column, &isnull);

	if (isnull)
		return 0;
	switch (TupleDescAttr(rows->desc, column - 1)->atttypid)
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		default:
			return DatumGetInt64(value);
	}
}

bool
pgt_spi_bool(const PgtRows *rows, int row, int column)
{
	bool isnull;
	Datum value = pgt_spi_datum(rows, row, column, &isnull);

	return !isnull && DatumGetBool(value);
}

Oid
pgt_spi_oid(const PgtRows *rows, int row, int column)
{
	bool isnull;
	Datum value = pgt_spi_datum(rows, row, column, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(value);
}

static EphemeralNamedRelation
make_enr(const PgtInput *input)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));

	enr->md.name = (char *) input->name;
	enr->md.reliddesc = InvalidOid;
	enr->md.tupdesc = input->desc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = input->estimate;
	enr->reldata = input->rows;
	return enr;
}

static void
register_inputs(const PgtInput *inputs, int ninputs)
{
	for (int n = 0; n < ninputs; n++)
		check_spi(SPI_register_relation(make_enr(&inputs[n])), inputs[n].name);
}

PgtPlan *
pgt_spi_prepare(const char *sql, const PgtInput *inputs, int ninputs, int cursor_options)
{
	PgtPlan *plan;

	connect_spi();
	register_inputs(inputs, ninputs);
	plan = MemoryContextAlloc(CacheMemoryContext, sizeof(PgtPlan));
	plan->plan = SPI_prepare_cursor(sql, 0, NULL, cursor_options);
	if (plan->plan == NULL)
		check_spi(SPI_result, sql);
	SPI_keepplan(plan->plan);
	finish_spi();
	return plan;
}

static CachedPlanSource *
get_source(PgtPlan *plan)
{
	Assert(list_length(plan->plan->plancache_list) == 1);
	return (CachedPlanSource *) linitial(plan->plan->plancache_list);
}

bool
pgt_spi_plan_is_valid(PgtPlan *plan)
{
	CachedPlanSource *source = get_source(plan);

	return source->is_valid && source->gplan != NULL && source->gplan->is_valid;
}

static QueryEnvironment *
make_environment(const PgtInput *inputs, int ninputs)
{
	QueryEnvironment *env = create_queryEnv();

	for (int i = 0; i < ninputs; i++)
		register_ENR(env, make_enr(&inputs[i]));
	return env;
}

PlannedStmt *
pgt_spi_plan_now(PgtPlan *plan, const PgtInput *inputs, int ninputs)
{
	CachedPlan *cached = GetCachedPlan(get_source(plan), NULL, NULL,
									   make_environment(inputs, ninputs));
	PlannedStmt *result = copyObject(linitial_node(PlannedStmt, cached->stmt_list));

	ReleaseCachedPlan(cached, NULL);
	return result;
}

char *
pgt_spi_explain(PgtPlan *plan, const PgtInput *inputs, int ninputs, Snapshot snapshot, bool analyze,
				double *estimated, int64 *actual)
{
	ExplainState *es = NewExplainState();
	PlannedStmt *stmt = pgt_spi_plan_now(plan, inputs, ninputs);
	QueryDesc *desc;

	es->analyze = es->timing = es->summary = analyze;
	es->costs = true;
	PushCopiedSnapshot(snapshot);
	UpdateActiveSnapshotCommandId();
	desc = CreateQueryDesc(stmt, "", GetActiveSnapshot(), InvalidSnapshot, None_Receiver, NULL,
						   make_environment(inputs, ninputs),
						   analyze ? INSTRUMENT_TIMER | INSTRUMENT_ROWS : 0);
	ExecutorStart(desc, analyze ? 0 : EXEC_FLAG_EXPLAIN_ONLY);
	if (analyze)
	{
		pgt_compat_run(desc);
		ExecutorFinish(desc);
	}
	ExplainPrintPlan(es, desc);
	*estimated = stmt->planTree->plan_rows;
	*actual = analyze ? (int64) desc->estate->es_processed : 0;
	ExecutorEnd(desc);
	FreeQueryDesc(desc);
	PopActiveSnapshot();
	return es->str->data;
}

void
pgt_spi_free_plan(PgtPlan *plan)
{
	SPI_freeplan(plan->plan);
	pfree(plan);
}

Size
pgt_spi_plan_size(PgtPlan *plan)
{
	CachedPlanSource *source = get_source(plan);
	Size size = MemoryContextMemAllocated(plan->plan->plancxt, true) +
				MemoryContextMemAllocated(source->context, true);

	if (source->gplan != NULL)
		size += MemoryContextMemAllocated(source->gplan->context, true);
	return size;
}

TupleDesc
pgt_spi_plan_desc(PgtPlan *plan)
{
	return get_source(plan)->resultDesc;
}

/* The plan that is about to run; SPI uses the same one, since it is generic. Rows it expects. */
static double
waive_rights(PgtPlan *plan, const PgtInput *inputs, int ninputs)
{
	CachedPlan *cached = GetCachedPlan(get_source(plan), NULL, NULL,
									   make_environment(inputs, ninputs));
	double expected = 0;
	ListCell *lc;

	foreach (lc, cached->stmt_list)
	{
		PlannedStmt *stmt = lfirst_node(PlannedStmt, lc);

		(void) pgt_compat_waive_rights(stmt);
		expected = stmt->planTree->plan_rows;
	}
	ReleaseCachedPlan(cached, NULL);
	return expected;
}

uint64
pgt_spi_run(PgtPlan *plan, const PgtInput *inputs, int ninputs, Snapshot snapshot,
			DestReceiver *dest)
{
	SPIExecuteOptions options = {.read_only = true, .dest = dest};
	uint64 processed;
	double expected = waive_rights(plan, inputs, ninputs);
	/* Without change sets it computes everything, which may take long. */
	bool shown = ninputs == 0 && pgt_progress_compute(expected);

	if (shown)
		options.dest = pgt_progress_count(dest);
	connect_spi();
	register_inputs(inputs, ninputs);

	/* Own writes so far belong to the state that the plan reads. */
	CommandCounterIncrement();
	PushCopiedSnapshot(snapshot);
	UpdateActiveSnapshotCommandId();
	check_spi(SPI_execute_plan_extended(plan->plan, &options), "delta plan");
	processed = SPI_processed;
	PopActiveSnapshot();
	finish_spi();
	if (shown)
	{
		options.dest->rDestroy(options.dest);
		pgt_progress_computed(processed);
	}
	return processed;
}
