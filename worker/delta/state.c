/*
 * state.c: aggregates that return their state.
 *
 * For each aggregate that is folded there is one more, with the same
 * transition function and no final function (or the serialisation, for states
 * that live in memory only). So a full refresh computes all stored states in
 * one pass of the executor.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "parser/parse_agg.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
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
	appendStringInfoChar(&sql, ')');
	ReleaseSysCache(tuple);
	pgt_spi_execute(sql.data);
}
