/*
 * rows.c: access to rows of our catalog tables by index, see catalog_internal.h.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "pgt_extension.h"

#include "catalog_internal.h"

Relation
pgt_catalog_open(const char *name, LOCKMODE lockmode)
{
	Oid namespace = get_namespace_oid(PGT_SCHEMA, true);
	Oid relid = OidIsValid(namespace) ? get_relname_relid(name, namespace) : InvalidOid;

	return OidIsValid(relid) ? table_open(relid, lockmode) : NULL;
}

void
pgt_catalog_check_columns(Relation relation, int count)
{
	if (RelationGetNumberOfAttributes(relation) == count)
		return;
	pgt_extension_check_version();
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("table \"pgtrickle.%s\" has %d columns instead of %d",
						   RelationGetRelationName(relation),
						   RelationGetNumberOfAttributes(relation), count),
					errhint("Columns must not be added to the catalog of pg_trickle or dropped.")));
}

void
pgt_catalog_scan(Relation relation, const char *index, AttrNumber column, Oid eq, Datum key,
				 Snapshot snapshot, PgtCatalogVisitor visit, void *arg)
{
	ScanKeyData scankey;
	Oid index_oid = InvalidOid;
	SysScanDesc scan;
	HeapTuple tuple;

	if (index != NULL)
	{
		ScanKeyInit(&scankey, column, BTEqualStrategyNumber, eq, key);
		index_oid = get_relname_relid(index, RelationGetNamespace(relation));
	}
	scan = systable_beginscan(relation, index_oid, OidIsValid(index_oid), snapshot,
							  index != NULL ? 1 : 0, &scankey);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		if (!visit(relation, tuple, arg))
			break;
	systable_endscan(scan);
}

static bool
keep_tid(Relation relation, HeapTuple tuple, void *arg)
{
	*(ItemPointerData *) arg = tuple->t_self;
	return false;
}

HeapTuple
pgt_catalog_lock_row(Relation relation, const char *index, Datum key)
{
	ItemPointerData tid;
	TupleTableSlot *slot;
	TM_FailureData failure;
	TM_Result result;
	Snapshot snapshot;
	HeapTuple tuple = NULL;

	ItemPointerSetInvalid(&tid);
	pgt_catalog_scan(relation, index, 1, F_INT8EQ, key, NULL, keep_tid, &tid);
	if (!ItemPointerIsValid(&tid))
		return NULL;

	slot = table_slot_create(relation, NULL);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	result = table_tuple_lock(relation, &tid, snapshot, slot, GetCurrentCommandId(false),
							  LockTupleNoKeyExclusive, LockWaitBlock,
							  TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure);
	if (result == TM_Ok)
		tuple = ExecCopySlotHeapTuple(slot);
	else if (result != TM_Deleted && result != TM_Updated)
		elog(ERROR, "could not lock a row of \"%s\": %d", RelationGetRelationName(relation),
			 result);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	return tuple;
}

static Datum
get_field(Relation relation, HeapTuple tuple, AttrNumber column, bool *isnull)
{
	/* In the database of an older version, before ALTER EXTENSION UPDATE. */
	*isnull = true;
	if (column > RelationGetDescr(relation)->natts)
		return (Datum) 0;
	return heap_getattr(tuple, column, RelationGetDescr(relation), isnull);
}

int64
pgt_catalog_int64(Relation relation, HeapTuple tuple, AttrNumber column)
{
	bool isnull;
	Datum value = get_field(relation, tuple, column, &isnull);

	if (isnull)
		return 0;
	switch (TupleDescAttr(RelationGetDescr(relation), column - 1)->attlen)
	{
		case 2:
			return DatumGetInt16(value);
		case 4:
			return DatumGetInt32(value);
		default:
			return DatumGetInt64(value);
	}
}

Oid
pgt_catalog_oid(Relation relation, HeapTuple tuple, AttrNumber column)
{
	bool isnull;
	Datum value = get_field(relation, tuple, column, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(value);
}

bool
pgt_catalog_bool(Relation relation, HeapTuple tuple, AttrNumber column)
{
	bool isnull;
	Datum value = get_field(relation, tuple, column, &isnull);

	return !isnull && DatumGetBool(value);
}

double
pgt_catalog_float8(Relation relation, HeapTuple tuple, AttrNumber column, double null)
{
	bool isnull;
	Datum value = get_field(relation, tuple, column, &isnull);

	return isnull ? null : DatumGetFloat8(value);
}

char *
pgt_catalog_text(Relation relation, HeapTuple tuple, AttrNumber column)
{
	bool isnull;
	Datum value = get_field(relation, tuple, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

Datum
pgt_catalog_text_datum(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}
