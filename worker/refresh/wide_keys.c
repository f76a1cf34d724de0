/*
 * wide_keys.c: keys too wide for a btree.
 *
 * An index entry takes at most a third of a page. Where a key may come near
 * that, the unique index gives way to one on the hash of the key (by the type's
 * own hash function, so equal keys have equal hashes); refreshes keep keys
 * unique by themselves. Looked at before rows are written, since an index
 * cannot change in the middle of that. Runs as the extension's owner.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_rewrite.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#include "pgt_extension.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "refresh_internal.h"

#define WIDE_KEY 2000

static bool
is_wide(TupleTableSlot *slot, int ncolumns, const AttrNumber *columns, int first)
{
	Size width = 0;

	for (int i = 0; i < ncolumns; i++)
	{
		bool isnull;
		Datum value = slot_getattr(slot, first + columns[i], &isnull);
		bool varies = TupleDescAttr(slot->tts_tupleDescriptor, first + columns[i] - 1)->attlen ==
					  -1;

		if (!isnull)
			width += varies ? toast_raw_datum_size(value) : sizeof(Datum);
	}
	return width > WIDE_KEY;
}

/* Of rows that were deleted a moment ago, too: an index that is built has them. */
bool
pgt_storage_has_wide(Relation relation, int ncolumns, const AttrNumber *columns)
{
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	TableScanDesc scan = table_beginscan(relation, SnapshotAny, 0, NULL);
	bool wide = false;

	while (!wide && table_scan_getnextslot(scan, ForwardScanDirection, slot))
		wide = is_wide(slot, ncolumns, columns, 0);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return wide;
}

static bool
has_wide_keys(PgtDeltaRows *rows, int ncolumns, const AttrNumber *columns, int first)
{
	TupleTableSlot *slot;
	bool wide = false;

	for (int i = 0; i < ncolumns; i++)
		wide = wide || TupleDescAttr(rows->desc, first + columns[i] - 1)->attlen == -1;
	if (!wide)
		return false;
	wide = false;
	slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
	tuplestore_rescan(rows->rows);
	while (!wide && tuplestore_gettupleslot(rows->rows, true, false, slot))
		wide = is_wide(slot, ncolumns, columns, first);
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_rescan(rows->rows);
	return wide;
}

/* Wide keys need a hash function for each column. */
static bool
can_be_hashed(Relation relation, int ncolumns, const KeyColumn *columns)
{
	for (int i = 0; i < ncolumns; i++)
	{
		TypeCacheEntry *type = lookup_type_cache(columns[i].type, TYPECACHE_HASH_EXTENDED_PROC);
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(relation),
													columns[i].attnum - 1);

		if (!OidIsValid(type->hash_extended_proc) ||
			attribute->attcollation != columns[i].collation)
			return false;
	}
	return true;
}

static void
create_hash_index(Oid relid, int ncolumns, const KeyColumn *columns)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE INDEX ON %s (pg_catalog.hash_record_extended(ROW(",
					 pgt_sqltext_relation(relid));
	for (int i = 0; i < ncolumns; i++)
		appendStringInfo(&sql, "%s%s", i > 0 ? ", " : "",
						 pgt_sqltext_column(relid, columns[i].attnum));
	appendStringInfoString(&sql, "), '0'::pg_catalog.int8))");
	pgt_spi_execute(sql.data);
}

static bool
constraint_walker(Node *node, void *constraint)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return list_member_oid(((Query *) node)->constraintDeps, *(Oid *) constraint) ||
			   query_tree_walker((Query *) node, constraint_walker, constraint, 0);
	return expression_tree_walker(node, constraint_walker, constraint);
}

/* Does the query itself need the constraint, as GROUP BY of a primary key does? */
static bool
view_needs(Oid view_relid, Oid constraint)
{
	Relation view = table_open(view_relid, AccessShareLock);
	bool needs = OidIsValid(constraint) &&
				 constraint_walker((Node *) get_view_query(view), &constraint);

	table_close(view, AccessShareLock);
	return needs;
}

/*
 * Stream tables that read this one tell their rows apart by its key, and hold
 * the index of the key through the rules of their views (worker/delta/stage.c).
 * The hash of the key is as good to them: they let go of the one index here,
 * and hold the other below.
 */
static List *
release_rules(Oid index_relid, Oid constraint)
{
	Oid class = OidIsValid(constraint) ? ConstraintRelationId : RelationRelationId;
	Oid object = OidIsValid(constraint) ? constraint : index_relid;
	List *rules = NIL;
	PgtRows *rows = pgt_spi_select(psprintf(
		"SELECT DISTINCT r.oid, r.ev_class FROM pg_catalog.pg_depend d"
		" JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid AND d.classid = %u"
		" JOIN %s s ON s.view_relid = r.ev_class"
		" WHERE d.refclassid = %u AND d.refobjid = %u AND d.refobjsubid = 0 AND d.deptype = 'n'",
		RewriteRelationId, pgt_sqltext_qualified(PGT_SCHEMA, "pgt_definitions"), class, object));

	for (int i = 0; i < rows->nrows; i++)
	{
		Oid rule = pgt_spi_oid(rows, i, 1);

		if (view_needs(pgt_spi_oid(rows, i, 2), constraint))
			continue;
		(void) deleteDependencyRecordsForSpecific(RewriteRelationId, rule, DEPENDENCY_NORMAL, class,
												  object);
		rules = lappend_oid(rules, rule);
	}
	CommandCounterIncrement();
	return rules;
}

static void
hold_rules(List *rules, Oid index_relid)
{
	ListCell *lc;

	foreach (lc, rules)
	{
		ObjectAddress rule = {RewriteRelationId, lfirst_oid(lc), 0};
		ObjectAddress index = {RelationRelationId, index_relid, 0};

		recordDependencyOn(&rule, &index, DEPENDENCY_NORMAL);
	}
}

static void
replace_by_hash_index(const PgtStage *stage, Oid relid, Oid index_relid, const TargetInfo *info,
					  bool is_state)
{
	Oid constraint = get_index_constraint(index_relid);
	PgtSecurity saved = pgt_security_become_extension_owner();
	List *rules;

	/* Dropping locks it anyway; nobody may begin to rely on the index from here on. */
	LockRelationOid(relid, AccessExclusiveLock);
	rules = release_rules(index_relid, constraint);
	/* The key's columns stay NOT NULL, which consumers may rely on. */
	pgt_storage_drop_index(relid, index_relid);
	create_hash_index(relid, info->nkeys, info->keys);
	hold_rules(rules, pgt_storage_mark_index(stage, is_state));
	pgt_security_restore(&saved);
}

static void
fit(const PgtStage *stage, PgtDeltaRows *rows, const AttrNumber *columns, int first, bool is_state)
{
	Oid relid = is_state ? stage->state_relid : stage->relid;
	Relation relation = table_open(relid, AccessShareLock);
	TargetInfo *info = is_state ? pgt_target_get_state(relation, stage)
								: pgt_target_get_stage(relation, stage);
	/* A replica identity has to stay. */
	bool wide = OidIsValid(info->index_relid) && !info->by_hash &&
				relation->rd_rel->relreplident != REPLICA_IDENTITY_INDEX &&
				can_be_hashed(relation, info->nkeys, info->keys) &&
				has_wide_keys(rows, info->nkeys, columns, first);

	table_close(relation, NoLock);
	if (!wide)
		return;
	replace_by_hash_index(stage, relid, info->index_relid, info, is_state);
	/* The index that went may have served the partitions, whose columns are not wide. */
	if (!is_state)
	{
		PgtSecurity saved = pgt_security_become_extension_owner();

		pgt_storage_create_scope_index(stage);
		pgt_security_restore(&saved);
	}
}

/* The same for the index on the scope; one that the user made stays as it is. */
static void
fit_scope(const PgtStage *stage, PgtDeltaRows *rows, int first)
{
	Relation relation = table_open(stage->relid, AccessShareLock);
	TargetInfo *info = pgt_target_get_stage(relation, stage);
	bool wide = OidIsValid(info->scope_index) && !info->scope_by_hash &&
				can_be_hashed(relation, info->nscope, info->scope) &&
				has_wide_keys(rows, stage->nscope, stage->scope, first);
	Oid scope_index = info->scope_index;
	PgtSecurity saved;

	table_close(relation, NoLock);
	if (!wide)
		return;
	saved = pgt_security_become_extension_owner();
	create_hash_index(stage->relid, info->nscope, info->scope);
	if (scope_index != info->index_relid && pgt_storage_is_scope_index_of_ours(scope_index))
		pgt_spi_execute(psprintf("DROP INDEX %s", pgt_sqltext_relation(scope_index)));
	pgt_storage_mark_scope_index(stage);
	pgt_security_restore(&saved);
}

/* The columns of an index that are keys, as they stand in rows that begin with the keys. */
static int
key_positions(const PgtStage *stage, const PgtStageIndex *index, AttrNumber *positions)
{
	int n = 0;

	for (int i = 0; i < index->ncolumns; i++)
		for (int k = 0; k < stage->nkeys; k++)
			if (stage->keys[k] == index->columns[i])
				positions[n++] = k + 1;
	return n;
}

/*
 * Indexes that only make reading faster go. only_keys: the rows have the keys
 * after first columns instead of the columns of the stage; the others are narrow.
 */
static void
fit_access_indexes(const PgtStage *stage, PgtDeltaRows *rows, int first, bool only_keys)
{
	ListCell *lc;

	foreach (lc, stage->indexes)
	{
		PgtStageIndex *index = lfirst(lc);
		AttrNumber positions[INDEX_MAX_KEYS];
		int n = only_keys ? key_positions(stage, index, positions) : index->ncolumns;
		Oid relid;
		PgtSecurity saved;

		if (!has_wide_keys(rows, n, only_keys ? positions : index->columns, first))
			continue;
		relid = get_relname_relid(pgt_storage_access_index_name(stage, foreach_current_index(lc)),
								  get_rel_namespace(stage->relid));
		if (!OidIsValid(relid))
			continue;
		saved = pgt_security_become_extension_owner();
		pgt_spi_execute(psprintf("DROP INDEX %s", pgt_sqltext_relation(relid)));
		pgt_security_restore(&saved);
	}
}

/* For rows of the stage's table; first: columns before them. */
void
pgt_storage_fit_rows(const PgtStage *stage, PgtDeltaRows *rows, int first)
{
	if (rows->desc != NULL && stage->nscope > 0)
		fit_scope(stage, rows, first);
	if (rows->desc != NULL && stage->indexes != NIL)
		fit_access_indexes(stage, rows, first, false);
	if (stage->identity == PGT_IDENTITY_KEY && rows->desc != NULL)
		fit(stage, rows, stage->keys, first, false);
}

/* For an aggregate stage, whose input rows and states begin with the keys after first columns. */
void
pgt_storage_fit_keys(const PgtStage *stage, PgtDeltaRows *rows, int first)
{
	AttrNumber columns[INDEX_MAX_KEYS];

	if (stage->identity != PGT_IDENTITY_KEY || rows->desc == NULL)
		return;
	for (int i = 0; i < stage->nkeys; i++)
		columns[i] = i + 1;
	fit(stage, rows, columns, first, false);
	fit(stage, rows, columns, first, true);
	fit_access_indexes(stage, rows, first, true);
}

/* After everything was written: what was missing, as the rows need it. */
void
pgt_storage_create_again(const PgtStreamTable *st, const PgtStage *stage, bool is_stage)
{
	Relation relation = table_open(stage->relid, AccessShareLock);
	TargetInfo *info = pgt_target_get_stage(relation, stage);
	bool wide = stage->identity == PGT_IDENTITY_KEY && !OidIsValid(info->index_relid) &&
				relation->rd_rel->relreplident != REPLICA_IDENTITY_INDEX &&
				can_be_hashed(relation, info->nkeys, info->keys) &&
				pgt_storage_has_wide(relation, stage->nkeys, stage->keys);
	bool wide_scope = stage->nscope > 0 && !OidIsValid(info->scope_index) &&
					  can_be_hashed(relation, info->nscope, info->scope) &&
					  pgt_storage_has_wide(relation, stage->nscope, stage->scope);
	PgtSecurity saved = pgt_security_become_extension_owner();

	table_close(relation, NoLock);
	if (stage->is_missing)
		pgt_delta_note_stored(stage);
	if (wide)
	{
		create_hash_index(stage->relid, info->nkeys, info->keys);
		pgt_storage_mark_index(stage, false);
	}
	if (wide_scope)
	{
		create_hash_index(stage->relid, info->nscope, info->scope);
		pgt_storage_mark_scope_index(stage);
	}
	pgt_security_restore(&saved);
	pgt_storage_create(st, stage, is_stage, true);
}
