/*
 * extension.c: the extension as an object of the current database.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "commands/extension.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "pgt_extension.h"

/* Owner and version of the row in pg_extension; false if there is none. */
static bool
read_extension(Oid *owner, char **version)
{
	Relation relation = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	bool found;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("pg_trickle"));
	scan = systable_beginscan(relation, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		bool isnull;
		Datum datum = heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(relation),
								   &isnull);

		if (owner != NULL)
			*owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
		if (version != NULL)
			*version = TextDatumGetCString(datum);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

bool
pgt_extension_exists(void)
{
	Oid extension = get_extension_oid("pg_trickle", true);

	return OidIsValid(extension) && !(creating_extension && CurrentExtensionObject == extension);
}

Oid
pgt_extension_owner(void)
{
	Oid owner;

	if (!read_extension(&owner, NULL))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("extension \"pg_trickle\" does not exist in this database"),
						errhint("Run CREATE EXTENSION pg_trickle.")));
	return owner;
}

void
pgt_extension_check_version(void)
{
	char *version;

	if (!read_extension(NULL, &version) || strcmp(version, PGT_VERSION) == 0)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("pg_trickle library is version %s, but the extension is version %s", PGT_VERSION,
				version),
		 errhint(
			 "Run ALTER EXTENSION pg_trickle UPDATE, or restart the server if the library was replaced.")));
}

Oid
pgt_extension_schema(const char *name)
{
	return get_namespace_oid(name, false);
}

void
pgt_extension_lock_state_schema(void)
{
	LockDatabaseObject(NamespaceRelationId, pgt_extension_schema(PGT_STATE_SCHEMA), 0,
					   ShareUpdateExclusiveLock);
}
