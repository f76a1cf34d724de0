/*
 * state.c: aggregates that return their state.
 *
 * For each aggregate that is folded there is one more, with the same
 * transition function and no final function (or the serialisation, for states
 * that live in memory only). So a full refresh computes all stored states in
 * one pass of the executor, by parallel workers where the server's own aggregate
 * could be.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "parser/parse_agg.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "pgt_extension.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "delta_internal.h"

char *
pgt_state_aggregate_name(const PgtAggregate *aggregate)
{
	return pgt_sqltext_qualified(PGT_STATE_SCHEMA, psprintf("state_of_%u", aggregate->aggfnoid));
}

static char *
function_name(Oid function)
{
	return pgt_sqltext_qualified(get_namespace_name(get_func_namespace(function)),
								 get_func_name(function));
}

/* ---- In parallel ---- */

static bool
is_parallel_safe(Oid function)
{
	return !OidIsValid(function) || func_parallel(function) == PROPARALLEL_SAFE;
}

/* Can the state be computed in parts, as that of an aggregate that sums up in the same way? */
static bool
combines(Form_pg_aggregate form, Oid transition, Oid type)
{
	return form->aggtransfn == transition && form->aggtranstype == type &&
		   OidIsValid(form->aggcombinefn) &&
		   (type != INTERNALOID || OidIsValid(form->aggdeserialfn)) &&
		   is_parallel_safe(transition) && is_parallel_safe(form->aggcombinefn) &&
		   is_parallel_safe(form->aggserialfn) && is_parallel_safe(form->aggdeserialfn);
}

static void
append_parallel(StringInfo sql, Form_pg_aggregate form)
{
	appendStringInfo(sql, ", COMBINEFUNC = %s, PARALLEL = SAFE", function_name(form->aggcombinefn));
	if (form->aggtranstype == INTERNALOID)
		appendStringInfo(sql, ", SERIALFUNC = %s, DESERIALFUNC = %s",
						 function_name(form->aggserialfn), function_name(form->aggdeserialfn));
}

/*
 * The moving transition may be another one than the plain one, which the combining
 * function belongs to: that of sum(int) is the one of avg(int). Among the server's
 * own, any aggregate with this transition will do.
 */
static void
append_parallel_of_own(StringInfo sql, Oid transition, Oid type)
{
	Relation relation = table_open(AggregateRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, NULL, 0, NULL);
	HeapTuple tuple;

	while ((tuple = systable_getnext(scan)) != NULL)
	{
		Form_pg_aggregate form = (Form_pg_aggregate) GETSTRUCT(tuple);

		if (form->aggfnoid < FirstNormalObjectId && combines(form, transition, type))
		{
			append_parallel(sql, form);
			break;
		}
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
}

/* ---- Creation ---- */

/* DROP EXTENSION takes it along, with its schema, without asking for CASCADE. */
static void
go_with_schema(Oid function)
{
	Oid schema = pgt_extension_schema(PGT_STATE_SCHEMA);
	ObjectAddress aggregate = {ProcedureRelationId, function, 0};
	ObjectAddress on = {NamespaceRelationId, schema, 0};

	deleteDependencyRecordsForSpecific(ProcedureRelationId, function, DEPENDENCY_NORMAL,
									   NamespaceRelationId, schema);
	recordDependencyOn(&aggregate, &on, DEPENDENCY_AUTO);
}

void
pgt_delta_create_state_aggregate(const PgtAggregate *aggregate)
{
	List *name = list_make2(makeString(PGT_STATE_SCHEMA),
							makeString(psprintf("state_of_%u", aggregate->aggfnoid)));
	HeapTuple tuple;
	Form_pg_aggregate form;
	Oid type;
	Datum initial;
	bool isnull;
	StringInfoData sql;

	if (OidIsValid(LookupFuncName(name, aggregate->nargs, aggregate->argtypes, true)))
		return;
	/* Another session may be making it. */
	pgt_extension_lock_state_schema();
	if (OidIsValid(LookupFuncName(name, aggregate->nargs, aggregate->argtypes, true)))
		return;
	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggregate->aggfnoid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggregate->aggfnoid);
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	type = resolve_aggregate_transtype(aggregate->aggfnoid, form->aggmtranstype,
									   (Oid *) aggregate->argtypes, aggregate->nargs);
	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE AGGREGATE %s(", pgt_state_aggregate_name(aggregate));
	for (int i = 0; i < aggregate->nargs; i++)
		appendStringInfo(&sql, "%s%s", i > 0 ? ", " : "",
						 pgt_sqltext_type(aggregate->argtypes[i], -1));
	appendStringInfo(&sql, "%s) (SFUNC = %s, STYPE = %s", aggregate->nargs == 0 ? "*" : "",
					 function_name(form->aggmtransfn), pgt_sqltext_type(type, -1));
	if (type == INTERNALOID)
		appendStringInfo(&sql, ", FINALFUNC = %s", function_name(form->aggserialfn));
	initial = SysCacheGetAttr(AGGFNOID, tuple, Anum_pg_aggregate_aggminitval, &isnull);
	if (!isnull)
		appendStringInfo(&sql, ", INITCOND = %s",
						 pgt_sqltext_literal(TextDatumGetCString(initial)));
	if (combines(form, form->aggmtransfn, type))
		append_parallel(&sql, form);
	else if (form->aggmtransfn < FirstNormalObjectId)
		append_parallel_of_own(&sql, form->aggmtransfn, type);
	appendStringInfoChar(&sql, ')');
	ReleaseSysCache(tuple);
	pgt_spi_execute(sql.data);
	CommandCounterIncrement();
	go_with_schema(LookupFuncName(name, aggregate->nargs, aggregate->argtypes, false));
}
