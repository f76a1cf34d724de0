/*
 * graph_fn.c: SQL functions about the graph of stream tables and their sources.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "pgt_dependency.h"
#include "pgt_security.h"
#include "pgt_sqltext.h"
#include "pgt_stream_table.h"

PG_FUNCTION_INFO_V1(pgt_walk_dependencies);
PG_FUNCTION_INFO_V1(pgt_explain_dag);

/* ---- As a tree ---- */

/*
 * Everything is shown below each of its readers, but what a stream table reads
 * only once: with diamonds on diamonds there are exponentially many ways down.
 */
typedef struct Walk
{
	ReturnSetInfo *rsinfo;
	int line;
	List *shown; /* oids of stream tables whose sources were shown */
} Walk;

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(pgt_sqltext_relation(lfirst_oid(a)), pgt_sqltext_relation(lfirst_oid(b)));
}

/* What a stream table reads, by name; NIL for other relations. */
static List *
sources_of(Oid relid)
{
	PgtStreamTable *st = pgt_stream_table_find(relid);
	List *sources = NIL;
	ListCell *lc;

	if (st == NULL)
		return NIL;
	foreach (lc, pgt_dependency_list(st->pgt_id))
		sources = list_append_unique_oid(sources, ((PgtDependency *) lfirst(lc))->relid);
	list_sort(sources, compare_names);
	return sources;
}

static void
put_line(Walk *walk, Oid relid, int depth, bool is_stream_table, bool shown)
{
	Datum values[5];
	bool nulls[5] = {false};

	values[0] = Int32GetDatum(++walk->line);
	values[1] = ObjectIdGetDatum(relid);
	values[2] = Int32GetDatum(depth);
	values[3] = BoolGetDatum(is_stream_table);
	values[4] = BoolGetDatum(shown);
	tuplestore_putvalues(walk->rsinfo->setResult, walk->rsinfo->setDesc, values, nulls);
}

static void
walk_down(Walk *walk, Oid relid, int depth)
{
	bool is_stream_table = pgt_stream_table_find(relid) != NULL;
	List *sources = pgt_security_may_read(relid) ? sources_of(relid) : NIL;
	bool shown = sources != NIL && list_member_oid(walk->shown, relid);
	ListCell *lc;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	put_line(walk, relid, depth, is_stream_table, shown);
	if (shown)
		return;
	walk->shown = lappend_oid(walk->shown, relid);
	foreach (lc, sources)
		walk_down(walk, lfirst_oid(lc), depth + 1);
}

Datum
pgt_walk_dependencies(PG_FUNCTION_ARGS)
{
	Walk walk = {.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo};
	List *tops = NIL;
	List *read = NIL;
	ListCell *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach (lc, pgt_stream_table_list())
	{
		PgtStreamTable *st = lfirst(lc);

		if (!pgt_security_may_read(st->relid))
			continue;
		tops = lappend_oid(tops, st->relid);
		read = list_concat_unique_oid(read, sources_of(st->relid));
	}
	tops = list_difference_oid(tops, read);
	list_sort(tops, compare_names);
	foreach (lc, tops)
		walk_down(&walk, lfirst_oid(lc), 0);
	return (Datum) 0;
}

/* ---- As text for mermaid and dot ---- */

/* A label without what mermaid and dot take for syntax. */
static char *
make_label(Oid relid)
{
	char *label = pgt_sqltext_relation(relid);

	for (char *c = label; *c != '\0'; c++)
		if (*c == '"' || *c == '\\' || *c == '\n')
			*c = '\'';
	return label;
}

static void
append_node(StringInfo text, bool mermaid, Oid relid, bool is_stream_table)
{
	if (mermaid)
		appendStringInfo(text, is_stream_table ? "    t%u[\"%s\"]\n" : "    t%u[(\"%s\")]\n", relid,
						 make_label(relid));
	else
		appendStringInfo(text, "    t%u [label=\"%s\", shape=%s];\n", relid, make_label(relid),
						 is_stream_table ? "box" : "cylinder");
}

Datum
pgt_explain_dag(PG_FUNCTION_ARGS)
{
	char *format = text_to_cstring(PG_GETARG_TEXT_PP(0));
	bool mermaid = pg_strcasecmp(format, "mermaid") == 0;
	StringInfoData text;
	List *nodes = NIL;
	ListCell *lc;
	ListCell *ld;

	if (!mermaid && pg_strcasecmp(format, "dot") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown format \"%s\"", format),
				 errhint("Use 'mermaid' or 'dot'.")));
	initStringInfo(&text);
	appendStringInfoString(&text,
						   mermaid ? "graph LR\n" : "digraph stream_tables {\n    rankdir=LR;\n");
	foreach (lc, pgt_stream_table_list())
	{
		PgtStreamTable *st = lfirst(lc);

		if (!pgt_security_may_read(st->relid))
			continue;
		append_node(&text, mermaid, st->relid, true);
		foreach (ld, pgt_dependency_list(st->pgt_id))
		{
			Oid source = ((PgtDependency *) lfirst(ld))->relid;

			if (pgt_stream_table_find(source) == NULL && !list_member_oid(nodes, source))
			{
				nodes = lappend_oid(nodes, source);
				append_node(&text, mermaid, source, false);
			}
			appendStringInfo(&text, mermaid ? "    t%u --> t%u\n" : "    t%u -> t%u;\n", source,
							 st->relid);
		}
	}
	if (!mermaid)
		appendStringInfoString(&text, "}\n");
	PG_RETURN_TEXT_P(cstring_to_text(text.data));
}
