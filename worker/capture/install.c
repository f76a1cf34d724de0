/*
 * install.c: what is captured, and whether it still is.
 *
 * Ties together row of pgt_sources, segments and triggers. Everything here
 * runs as the extension's owner once the caller has checked rights. Locks:
 * ShareRowExclusive on all members of the tree in the order of their OIDs.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "capture_internal.h"
#include "pgt_capture.h"
#include "pgt_dependency.h"
#include "pgt_extension.h"
#include "pgt_security.h"
#include "pgt_wake.h"

/* --- can it be captured? --- */

static const char *
kind_reason(char relkind)
{
	switch (relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
			return NULL;
		case RELKIND_FOREIGN_TABLE:
			return "foreign tables change without any trigger here seeing it";
		case RELKIND_MATVIEW:
			return "materialized views have no triggers";
		case RELKIND_VIEW:
			return "views have no rows of their own; their tables are captured";
		default:
			return "only tables have triggers";
	}
}

static const char *
member_reason(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;
	const char *reason;

	if (!HeapTupleIsValid(tuple))
		return "it does not exist";
	form = (Form_pg_class) GETSTRUCT(tuple);
	reason = kind_reason(form->relkind);
	if (reason != NULL)
		;
	else if (IsSystemClass(relid, form))
		reason = "system catalogs have no triggers";
	else if (form->relpersistence == RELPERSISTENCE_TEMP)
		reason = "temporary tables belong to one session";
	else if (form->relpersistence == RELPERSISTENCE_UNLOGGED)
		reason = "unlogged tables lose rows in a crash without any trigger seeing it";
	ReleaseSysCache(tuple);
	return reason;
}

const char *
pgt_capture_reason(Oid relid)
{
	const char *reason = member_reason(relid);
	Oid schema = get_rel_namespace(relid);
	List *tree;
	ListCell *cell;

	if (reason != NULL)
		return reason;
	if (schema == pgt_extension_schema(PGT_SCHEMA) ||
		schema == pgt_extension_schema(PGT_CHANGES_SCHEMA))
		return "the tables of pg_trickle itself change with every refresh";
	if (!has_subclass(relid))
		return NULL;
	tree = pgt_capture_find_tree(relid, AccessShareLock);
	foreach (cell, tree)
	{
		reason = member_reason(lfirst_oid(cell));
		if (reason != NULL)
			return psprintf("its partition or child \"%s\" cannot be captured: %s",
							get_rel_name(lfirst_oid(cell)), reason);
	}
	return NULL;
}

/* --- install --- */

/* Readers and writers in all sessions read pgt_sources anew. */
static void
invalidate_segments(const PgtSource *source)
{
	for (int i = 0; i < PGT_SEGMENTS; i++)
	{
		if (OidIsValid(source->segments[i]))
			CacheInvalidateRelcacheByRelid(source->segments[i]);
	}
}

static bool
has_same_members(const PgtSource *source, List *tree, PgtCaptureMethod method)
{
	return source->method == method && equal(source->members, tree);
}

static void
set_members(PgtSource *source, List *tree, PgtCaptureMethod method)
{
	pgt_source_set_members(source->source_id, method, tree);
	source->members = tree;
	source->method = method;
	invalidate_segments(source);
	CommandCounterIncrement();
}

static void
install(Oid relid, Bitmapset *columns, bool is_stream_table)
{
	List *tree = is_stream_table ? list_make1_oid(relid)
								 : pgt_capture_find_tree(relid, ShareRowExclusiveLock);
	PgtCaptureMethod method = is_stream_table ? PGT_CAPTURE_REFRESH : pgt_capture_find_method(tree);
	PgtSource *source = pgt_source_find(relid);
	List *removed;
	ListCell *cell;

	if (source == NULL)
		source = pgt_source_create(relid, method);
	/* Without buffers the row comes from a dump, and its members mean nothing here. */
	removed = OidIsValid(source->segments[0]) ? list_difference_oid(source->members, tree) : NIL;
	foreach (cell, removed)
		pgt_capture_drop_triggers(lfirst_oid(cell), source->source_id);
	pgt_capture_create_segments(source, columns);
	if (!has_same_members(source, tree, method))
		set_members(source, tree, method);
	if (is_stream_table)
		return;
	foreach (cell, tree)
		(void) pgt_capture_create_triggers(lfirst_oid(cell), source->source_id, method);
}

void
pgt_capture_install(Oid relid, Bitmapset *columns, bool is_stream_table)
{
	const char *reason = pgt_capture_reason(relid);
	PgtSecurity saved;

	if (reason != NULL)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("changes of \"%s\" cannot be captured", get_rel_name(relid)),
						errdetail("Reason: %s.", reason), errhint("Use refresh_mode => 'FULL'.")));
	saved = pgt_security_become_extension_owner();
	/* For all who read it: after a dump was restored, the first one to come installs. */
	install(relid, bms_union(columns, pgt_dependency_columns(relid)), is_stream_table);
	pgt_security_restore(&saved);
}

/* --- release --- */

static void
release(PgtSource *source)
{
	ListCell *cell;

	if (source->method != PGT_CAPTURE_REFRESH)
	{
		foreach (cell, source->members)
			pgt_capture_drop_triggers(lfirst_oid(cell), source->source_id);
	}
	invalidate_segments(source);
	pgt_capture_drop_segments(source->source_id);
	pgt_source_delete(source->source_id);
	CommandCounterIncrement();
}

void
pgt_capture_release(Oid relid)
{
	PgtSource *source = pgt_source_find(relid);
	PgtSecurity saved;

	if (source == NULL)
		return;
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)) &&
		pgt_dependency_consumers(relid) != NIL)
		return;
	saved = pgt_security_become_extension_owner();
	release(source);
	pgt_security_restore(&saved);
}

/* --- is it still? --- */

static const char *
check_source(const CaptureSource *source)
{
	List *tree = pgt_capture_find_tree(source->relid, AccessShareLock);
	const char *reason = NULL;
	ListCell *cell;

	if (pgt_capture_find_method(tree) != source->method)
		return "it, or one of its children, got or lost another parent";
	if (list_length(tree) != source->nmembers)
		return "partitions or children were added or removed";
	foreach (cell, tree)
	{
		if (lfirst_oid(cell) != source->members[foreach_current_index(cell)])
			return "partitions or children were exchanged";
	}
	foreach (cell, tree)
	{
		reason = pgt_capture_check_triggers(lfirst_oid(cell), source->source_id, source->method);
		if (reason != NULL)
			break;
	}
	return reason;
}

/* Do the buffer's columns have the types of the source's? */
static const char *
check_columns(const CaptureSource *source)
{
	Relation relation = table_open(source->relid, AccessShareLock);
	TupleDesc desc = RelationGetDescr(relation);
	const char *reason = NULL;

	for (int i = 0; i < PGT_SEGMENTS; i++)
	{
		Relation segment = table_open(source->segments[i], AccessShareLock);

		for (int column = 0; column < desc->natts; column++)
		{
			Form_pg_attribute att = TupleDescAttr(desc, column);
			AttrNumber at = pgt_capture_map_attribute(RelationGetDescr(segment), att->attnum);

			if (!att->attisdropped && at != InvalidAttrNumber &&
				TupleDescAttr(RelationGetDescr(segment), at - 1)->atttypid !=
					getBaseType(att->atttypid))
				reason = psprintf("type of column \"%s\" has changed", NameStr(att->attname));
		}
		table_close(segment, AccessShareLock);
	}
	table_close(relation, AccessShareLock);
	return reason;
}

bool
pgt_capture_is_stream_table(Oid relid)
{
	CaptureSource *source = pgt_capture_map_source(relid);

	return source != NULL && source->method == PGT_CAPTURE_REFRESH;
}

const char *
pgt_capture_broken(Oid relid)
{
	CaptureSource *source = pgt_capture_map_source(relid);
	const char *reason;

	if (source == NULL)
		return "it is not captured";
	if (source->valid && source->checked)
		return NULL;
	if (!OidIsValid(source->segments[0]) || !OidIsValid(source->segments[1]))
		return "its change buffer is missing";
	source->touched = false;
	reason = check_columns(source);
	if (reason == NULL && source->method != PGT_CAPTURE_REFRESH)
		reason = check_source(source);
	if (reason == NULL && source->valid && !source->touched)
		source->checked = true;
	return reason;
}

/* --- children --- */

/* Does an addition or removal of these change what the source contains? */
static bool
hold_rows(List *members)
{
	ListCell *cell;

	foreach (cell, members)
	{
		Relation relation = try_table_open(lfirst_oid(cell), AccessShareLock);
		bool has_rows;

		if (relation == NULL)
			return true; /* dropped: its rows are gone */
		has_rows = RELKIND_HAS_STORAGE(relation->rd_rel->relkind) &&
				   RelationGetNumberOfBlocks(relation) > 0;
		table_close(relation, NoLock);
		if (has_rows)
			return true;
	}
	return false;
}

static void
follow_children(PgtSource *source)
{
	List *tree;
	List *added;
	List *removed;
	PgtCaptureMethod method;
	ListCell *cell;

	if (source->method == PGT_CAPTURE_REFRESH || !OidIsValid(source->segments[0]) ||
		!OidIsValid(source->segments[1]) ||
		!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(source->relid)))
		return;
	tree = pgt_capture_find_tree(source->relid, AccessShareLock);
	method = pgt_capture_find_method(tree);
	if (has_same_members(source, tree, method))
		return;

	added = list_difference_oid(tree, source->members);
	removed = list_difference_oid(source->members, tree);
	foreach (cell, removed)
		pgt_capture_drop_triggers(lfirst_oid(cell), source->source_id);
	foreach (cell, method == source->method ? added : tree)
		(void) pgt_capture_create_triggers(lfirst_oid(cell), source->source_id, method);

	/* Rows that came or went with a child have no delta. */
	if (hold_rows(added) || hold_rows(removed))
		pgt_capture_append_marker(source->relid, source->source_id);
	set_members(source, tree, method);
}

void
pgt_capture_follow_children(Oid root)
{
	PgtSecurity saved = pgt_security_become_extension_owner();
	List *sources = OidIsValid(root) ? list_make1(pgt_source_find(root)) : pgt_source_list();
	ListCell *cell;

	foreach (cell, sources)
	{
		if (lfirst(cell) != NULL)
			follow_children(lfirst(cell));
	}
	pgt_security_restore(&saved);
}
