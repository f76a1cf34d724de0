/*
 * see_fn.c: SQL functions that explain how a stream table is maintained.
 */
#include "postgres.h"

#include "access/relation.h"
#include "fmgr.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "optimizer/plancat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "pgt_capture.h"
#include "pgt_compat.h"
#include "pgt_delta.h"
#include "pgt_frontier.h"
#include "pgt_security.h"
#include "pgt_source.h"
#include "pgt_sqltext.h"
#include "pgt_stream_table.h"

#include "api_internal.h"

#define COUNTED_PAGES 64

PG_FUNCTION_INFO_V1(pgt_version);
PG_FUNCTION_INFO_V1(pgt_stream_table_id);
PG_FUNCTION_INFO_V1(pgt_frontier_is_here);
PG_FUNCTION_INFO_V1(pgt_explain_st);
PG_FUNCTION_INFO_V1(pgt_explain_delta);
PG_FUNCTION_INFO_V1(pgt_missing_indexes);
PG_FUNCTION_INFO_V1(pgt_explain_refresh_mode);
PG_FUNCTION_INFO_V1(pgt_validate_query);

/* A row of a set-returning function; NULL pointers are nulls. */
static void
put_texts(ReturnSetInfo *rsinfo, int ncolumns, char *const *texts)
{
	Datum values[8];
	bool nulls[8];

	for (int i = 0; i < ncolumns; i++)
	{
		nulls[i] = texts[i] == NULL;
		values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(texts[i]);
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static PgtStreamTable *
get_visible(text *name)
{
	PgtStreamTable *st = pgt_stream_table_get(text_to_cstring(name));

	pgt_security_check_reader(st->relid);
	return st;
}

Datum
pgt_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(PGT_VERSION));
}

Datum
pgt_frontier_is_here(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(pgt_frontier_is_local(PG_GETARG_INT64(0), PG_GETARG_OID(1)));
}

Datum
pgt_stream_table_id(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(get_visible(PG_GETARG_TEXT_PP(0))->pgt_id);
}

/* ---- explain_st ---- */

static const char *
technique_name(PgtTechnique technique)
{
	switch (technique)
	{
		case PGT_TECHNIQUE_LINEAR:
			return "signed rows";
		case PGT_TECHNIQUE_AGGREGATE:
			return "folded aggregates";
		case PGT_TECHNIQUE_AKR:
			return "affected keys recomputed";
		case PGT_TECHNIQUE_PARTITION:
			return "affected partitions recomputed";
		default:
			return "full";
	}
}

static char *
describe_identity(const PgtStage *stage)
{
	StringInfoData text;

	if (stage->identity == PGT_IDENTITY_SINGLE)
		return pstrdup("a single row");
	if (stage->identity == PGT_IDENTITY_ROW)
		return pstrdup("the whole row");
	initStringInfo(&text);
	appendStringInfoString(&text, stage->keys_not_null ? "primary key (" : "unique key (");
	for (int i = 0; i < stage->nkeys; i++)
		appendStringInfo(&text, "%s%s", i > 0 ? ", " : "",
						 pgt_sqltext_column(stage->relid, stage->keys[i]));
	appendStringInfoChar(&text, ')');
	return text.data;
}

static int64
count_rows(Relation relation)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, NULL);
	int64 n = 0;

	while (heap_getnext(scan, ForwardScanDirection) != NULL)
		n++;
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	return n;
}

/* Small tables are counted, of others it says what the planner assumes. */
static char *
describe_size(Oid relid)
{
	Relation relation = table_open(relid, AccessShareLock);
	BlockNumber pages = RelationGetNumberOfBlocks(relation);
	uint64 kilobytes = (uint64) pages * (BLCKSZ / 1024);
	char *text;

	if (pages <= COUNTED_PAGES)
		text = psprintf(INT64_FORMAT " rows in " UINT64_FORMAT " kB", count_rows(relation),
						kilobytes);
	else
	{
		double tuples;
		double visible;

		estimate_rel_size(relation, NULL, &pages, &tuples, &visible);
		text = psprintf("about %.0f rows in " UINT64_FORMAT " kB", tuples, kilobytes);
	}
	table_close(relation, AccessShareLock);
	return text;
}

static char *
describe_stage(const PgtStage *stage)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%s, %s by %s%s%s, ", pgt_sqltext_relation(stage->relid),
					 technique_name(stage->technique), describe_identity(stage),
					 stage->reason != NULL ? ": " : "", stage->reason != NULL ? stage->reason : "");
	if (!stage->is_virtual)
		appendStringInfoString(&text, describe_size(stage->relid));
	if (stage->storage != NULL)
		appendStringInfo(&text, "%s%s", stage->is_virtual ? "" : ", ", stage->storage);
	if (OidIsValid(stage->state_relid))
		appendStringInfo(&text, "; states in %s, %s", pgt_sqltext_relation(stage->state_relid),
						 describe_size(stage->state_relid));
	return text.data;
}

Datum
pgt_explain_st(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PgtStreamTable *st = get_visible(PG_GETARG_TEXT_PP(0));
	const PgtDefinition *definition = pgt_delta_definition(
		pgt_delta_open(st->pgt_id, st->relid, st->view_relid));
	ListCell *lc;

	InitMaterializedSRF(fcinfo, 0);
	put_texts(rsinfo, 2, (char *[]){"name", pgt_sqltext_relation(st->relid)});
	put_texts(rsinfo, 2, (char *[]){"original_query", st->original_query});
	put_texts(rsinfo, 2, (char *[]){"refresh_mode", (char *) pgt_refresh_mode_name(st->mode)});
	put_texts(rsinfo, 2, (char *[]){"incremental", definition->full_reason == NULL ? "yes" : "no"});
	if (definition->full_reason != NULL)
		put_texts(rsinfo, 2, (char *[]){"full_reason", definition->full_reason});
	foreach (lc, definition->stages)
	{
		PgtStage *stage = lfirst(lc);

		put_texts(rsinfo, 2,
				  (char *[]){psprintf("stage %d", stage->number), describe_stage(stage)});
	}
	foreach (lc, definition->sources)
	{
		PgtSourceUse *source = lfirst(lc);

		put_texts(
			rsinfo, 2,
			(char *[]){source->is_view ? "view" : "source", pgt_sqltext_relation(source->relid)});
	}
	return (Datum) 0;
}

/* ---- explain_delta ---- */

/* Changes that the next refresh would read, without taking any refresh lock. */
static List *
pending_changes(PgtStreamTable *st, const PgtDefinition *definition, Snapshot snapshot)
{
	PgtFrontierRow row;
	PgtFrontier now = pgt_frontier_of_snapshot(snapshot);
	List *changes = NIL;
	ListCell *lc;

	pgt_frontier_get(st->pgt_id, &row);
	if (!row.frontier.valid)
		return NIL;
	foreach (lc, definition->sources)
	{
		PgtSourceUse *source = lfirst(lc);
		PgtChangeSet *set;

		if (source->is_view || pgt_source_find(source->relid) == NULL)
			continue;
		LockRelationOid(source->relid, AccessShareLock);
		set = pgt_capture_read(source->relid, source->columns, &row.frontier, &now, snapshot);
		if (set->nrows > 0)
			changes = lappend(changes, set);
	}
	return changes;
}

static char *
indexes_of_statement(List *missing, const PgtDeltaText *text)
{
	StringInfoData list;
	ListCell *lc;

	initStringInfo(&list);
	foreach (lc, missing)
	{
		PgtMissingIndex *index = lfirst(lc);

		if (index->stage == text->stage && strcmp(index->purpose, text->purpose) == 0)
			appendStringInfo(&list, "%s%s", list.len > 0 ? "; " : "", index->sql);
	}
	return list.len > 0 ? list.data : NULL;
}

Datum
pgt_explain_delta(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PgtStreamTable *st = get_visible(PG_GETARG_TEXT_PP(0));
	bool analyze = PG_GETARG_BOOL(1);
	PgtDelta *delta;
	PgtDeltaInput input = {0};
	PgtSecurity saved;
	List *missing;
	ListCell *lc;

	pgt_security_check_owner(st->relid);
	InitMaterializedSRF(fcinfo, 0);
	delta = pgt_delta_open(st->pgt_id, st->relid, st->view_relid);
	input.snapshot = RegisterSnapshot(GetTransactionSnapshot());
	if (analyze)
		input.changes = pending_changes(st, pgt_delta_definition(delta), input.snapshot);
	/* Whatever the caller may: the query's functions run with its owner's rights. */
	saved = pgt_security_become(pgt_stream_table_owner(st));
	missing = pgt_delta_missing_indexes(delta);
	foreach (lc, pgt_delta_explain(delta, &input, analyze))
	{
		PgtDeltaText *text = lfirst(lc);
		char *indexes = indexes_of_statement(missing, text);
		Datum values[7] = {Int32GetDatum(text->stage),
						   CStringGetTextDatum(text->purpose),
						   CStringGetTextDatum(text->sql),
						   CStringGetTextDatum(text->plan),
						   Int64GetDatum((int64) text->estimated_rows),
						   Int64GetDatum(text->actual_rows),
						   indexes != NULL ? CStringGetTextDatum(indexes) : (Datum) 0};
		bool nulls[7] = {false, false, false, false, false, !analyze, indexes == NULL};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	pgt_security_restore(&saved);
	UnregisterSnapshot(input.snapshot);
	return (Datum) 0;
}

/* ---- missing_indexes ---- */

static void
put_missing_indexes(ReturnSetInfo *rsinfo, PgtStreamTable *st)
{
	ListCell *lc;

	if (st->mode == PGT_MODE_FULL)
		return;
	foreach (lc, pgt_delta_missing_indexes(pgt_delta_open(st->pgt_id, st->relid, st->view_relid)))
	{
		PgtMissingIndex *index = lfirst(lc);
		Datum values[6] = {ObjectIdGetDatum(st->relid),
						   Int32GetDatum(index->stage),
						   CStringGetTextDatum(index->purpose),
						   ObjectIdGetDatum(index->relid),
						   Int64GetDatum((int64) index->pages * BLCKSZ),
						   CStringGetTextDatum(index->sql)};
		bool nulls[6] = {false, false, false, false, false, false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

Datum
pgt_missing_indexes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell *lc;

	InitMaterializedSRF(fcinfo, 0);
	if (!PG_ARGISNULL(0))
	{
		PgtStreamTable *st = get_visible(PG_GETARG_TEXT_PP(0));

		pgt_security_check_owner(st->relid);
		put_missing_indexes(rsinfo, st);
	}
	else
		foreach (lc, pgt_stream_table_list())
		{
			PgtStreamTable *st = lfirst(lc);

			if (pgt_compat_is_relation_owner(st->relid, GetUserId()))
				put_missing_indexes(rsinfo, st);
		}
	return (Datum) 0;
}

/* ---- explain_refresh_mode ---- */

Datum
pgt_explain_refresh_mode(PG_FUNCTION_ARGS)
{
	PgtStreamTable *st = get_visible(PG_GETARG_TEXT_PP(0));
	const PgtDefinition *definition = pgt_delta_definition(
		pgt_delta_open(st->pgt_id, st->relid, st->view_relid));
	bool full = st->mode == PGT_MODE_FULL || definition->full_reason != NULL;
	const char *reason;
	TupleDesc desc;
	Datum values[3];
	bool nulls[3] = {false, false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (st->mode == PGT_MODE_FULL)
		reason = "FULL is configured";
	else if (definition->full_reason != NULL)
		reason = definition->full_reason;
	else if (st->mode == PGT_MODE_AUTO)
		reason = "the query is maintained incrementally; FULL only where a forecast says that it "
				 "is faster (see pgtrickle.df_threshold_advice)";
	else
		reason = "the query is maintained incrementally";
	values[0] = CStringGetTextDatum(pgt_refresh_mode_name(st->mode));
	values[1] = CStringGetTextDatum(full ? "FULL" : "DIFFERENTIAL");
	values[2] = CStringGetTextDatum(reason);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* ---- validate_query ---- */

Datum
pgt_validate_query(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char *sql = text_to_cstring(PG_GETARG_TEXT_PP(0));
	PgtDefinition *definition = pgt_delta_analyze(InvalidOid, pgt_query_parse(sql));
	ListCell *lc;

	InitMaterializedSRF(fcinfo, 0);
	pgt_delta_choose_storage(definition, GetUserId());
	foreach (lc, definition->findings)
	{
		PgtFinding *finding = lfirst(lc);
		Datum values[5];
		bool nulls[5];

		values[0] = CStringGetTextDatum(finding->construct);
		values[1] = BoolGetDatum(finding->incremental);
		values[2] = finding->technique ? CStringGetTextDatum(finding->technique) : (Datum) 0;
		values[3] = finding->reason ? CStringGetTextDatum(finding->reason) : (Datum) 0;
		values[4] = Int32GetDatum(pgt_query_position(sql, finding->position));
		nulls[0] = nulls[1] = false;
		nulls[2] = finding->technique == NULL;
		nulls[3] = finding->reason == NULL;
		nulls[4] = finding->position == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
