/*
 * map.c: what a backend remembers of sources, buffers and column numbers.
 *
 * Owns two hashes in CacheMemoryContext: maps, for writers, by (relation,
 * source), and sources, for readers, by relation. An invalidation of any
 * relation that an entry depends on (relation, source, segments) marks it
 * stale; it is read anew from the catalogs at its next use. Whoever changes
 * pgt_sources invalidates the segments.
 *
 * The active segment is locked before the entry is trusted: LockRelationOid
 * reads pending invalidations, so that a writer whose entry is stale finds out
 * before it writes, and prune gets its lock only when no writer has an open
 * transaction on the segment.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "capture_internal.h"

typedef struct MapKey
{
	int64 source_id;
	Oid relid;
	Oid padding; /* hashed with the rest */
} MapKey;

typedef struct MapEntry
{
	MapKey key;
	bool valid;
	bool touched; /* invalidated since it began to be read */
	bool missing; /* there is no buffer, and nothing will invalidate the entry when there is */
	Oid segments[PGT_SEGMENTS];
	CaptureMap map;
	MemoryContext context; /* of map.columns; NULL before the first use */
} MapEntry;

static HTAB *maps = NULL;
static HTAB *sources = NULL;

/* --- invalidation --- */

static void
invalidate_maps(Oid relid)
{
	HASH_SEQ_STATUS status;
	MapEntry *entry;

	hash_seq_init(&status, maps);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (!OidIsValid(relid) || entry->key.relid == relid || entry->map.source_relid == relid ||
			entry->segments[0] == relid || entry->segments[1] == relid)
		{
			entry->valid = false;
			entry->touched = true;
		}
	}
}

static void
invalidate_sources(Oid relid)
{
	HASH_SEQ_STATUS status;
	CaptureSource *source;

	hash_seq_init(&status, sources);
	while ((source = hash_seq_search(&status)) != NULL)
	{
		bool hit = !OidIsValid(relid) || source->relid == relid || source->segments[0] == relid ||
				   source->segments[1] == relid;

		for (int i = 0; !hit && i < source->nmembers; i++)
			hit = source->members[i] == relid;
		if (hit)
		{
			source->valid = source->checked = false;
			source->touched = true;
		}
	}
}

static void
invalidate_relation(Datum arg, Oid relid)
{
	invalidate_maps(relid);
	invalidate_sources(relid);
}

static void
make_caches(void)
{
	HASHCTL map_ctl = {.keysize = sizeof(MapKey), .entrysize = sizeof(MapEntry)};
	HASHCTL source_ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(CaptureSource)};

	StaticAssertStmt(PGT_SEGMENTS == 2, "invalidation looks at two segments");
	maps = hash_create("pg_trickle capture maps", 64, &map_ctl, HASH_ELEM | HASH_BLOBS);
	sources = hash_create("pg_trickle capture sources", 64, &source_ctl, HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(invalidate_relation, (Datum) 0);
}

/* --- writers --- */

AttrNumber
pgt_capture_map_attribute(TupleDesc segment, AttrNumber source_attnum)
{
	char name[NAMEDATALEN];

	snprintf(name, sizeof(name), "c%d", source_attnum);
	for (int i = BUFFER_FIXED; i < segment->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(segment, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return att->attnum;
	}
	return InvalidAttrNumber;
}

List *
pgt_capture_find_parents(Oid relid)
{
	Relation inherits = table_open(InheritsRelationId, AccessShareLock);
	List *parents = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(inherits, InheritsRelidSeqnoIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		parents = lappend_oid(parents, ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent);
	systable_endscan(scan);
	table_close(inherits, AccessShareLock);
	return parents;
}

/* Is the relation below the source (or the source itself)? */
static bool
is_member(Oid relid, Oid source_relid)
{
	List *parents = list_make1_oid(relid);

	/* Each relation once, so that several ways up cost nothing. */
	for (int i = 0; i < list_length(parents); i++)
	{
		Oid at = list_nth_oid(parents, i);

		if (at == source_relid)
			return true;
		parents = list_concat_unique_oid(parents, pgt_capture_find_parents(at));
	}
	return false;
}

static AttrNumber
find_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return att->attnum;
	}
	return InvalidAttrNumber;
}

/* Adds what the buffer's column holds; false if it cannot hold the relation's. */
static bool
add_column(CaptureMap *map, Form_pg_attribute buffer_att, Relation source, Relation relation)
{
	CaptureColumn *column = &map->columns[map->ncolumns];
	AttrNumber attnum = (AttrNumber) atoi(NameStr(buffer_att->attname) + 1);
	Form_pg_attribute att;

	if (attnum < 1 || attnum > RelationGetNumberOfAttributes(source))
		return false;
	att = TupleDescAttr(RelationGetDescr(source), attnum - 1);
	if (att->attisdropped)
		return true; /* nobody can ask for it; stays NULL */
	column->source_attnum = attnum;
	column->buffer_attnum = buffer_att->attnum;
	column->attnum = attnum;
	if (relation != source)
	{
		column->attnum = find_column(RelationGetDescr(relation), NameStr(att->attname));
		if (column->attnum == InvalidAttrNumber)
			return false;
		att = TupleDescAttr(RelationGetDescr(relation), column->attnum - 1);
	}
	column->length = att->attlen;
	column->by_value = att->attbyval;
	map->max_attnum = Max(map->max_attnum, column->attnum);
	map->ncolumns++;
	return getBaseType(att->atttypid) == buffer_att->atttypid;
}

/* Both relations are locked by the statement that fired the trigger, or by its parents' lock. */
static void
load_columns(CaptureMap *map, Oid relid)
{
	Relation segment = table_open(map->segment, AccessShareLock);
	Relation source = table_open(map->source_relid, AccessShareLock);
	Relation relation = relid == map->source_relid ? source : table_open(relid, AccessShareLock);
	TupleDesc desc = RelationGetDescr(segment);

	map->columns = palloc0(sizeof(CaptureColumn) * Max(desc->natts, 1));
	for (int i = BUFFER_FIXED; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && !add_column(map, att, source, relation))
			map->unfit = true;
	}
	if (relation != source)
		table_close(relation, AccessShareLock);
	table_close(source, AccessShareLock);
	table_close(segment, AccessShareLock);
}

static void
load_map(MapEntry *entry)
{
	MemoryContext old;
	PgtSource *source;

	if (entry->context == NULL)
		entry->context = AllocSetContextCreate(CacheMemoryContext, "pg_trickle capture map",
											   ALLOCSET_SMALL_SIZES);
	else
		MemoryContextReset(entry->context);
	memset(&entry->map, 0, sizeof(CaptureMap));

	entry->touched = false;
	old = MemoryContextSwitchTo(entry->context);
	source = pgt_source_find_id(entry->key.source_id);
	entry->missing = source == NULL || !OidIsValid(source->segments[0]) ||
					 !OidIsValid(source->segments[1]);
	if (entry->missing)
		entry->map.ignored = true;
	else
	{
		memcpy(entry->segments, source->segments, sizeof(entry->segments));
		entry->map.source_relid = source->relid;
		entry->map.method = source->method;
		entry->map.segment = source->segments[source->active_segment];
		entry->map.ignored = !is_member(entry->key.relid, source->relid);
		if (!entry->map.ignored)
			load_columns(&entry->map, entry->key.relid);
	}
	MemoryContextSwitchTo(old);
	entry->valid = !entry->touched && !entry->missing;
}

Relation
pgt_capture_map_open(Oid relid, int64 source_id, const CaptureMap **map)
{
	MapKey key = {.source_id = source_id, .relid = relid};
	MapEntry *entry;
	bool found;

	if (maps == NULL)
		make_caches();
	entry = hash_search(maps, &key, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) entry + sizeof(MapKey), 0, sizeof(MapEntry) - sizeof(MapKey));
	}
	for (;;)
	{
		Oid segment;

		if (!entry->valid)
		{
			do
				load_map(entry);
			while (!entry->valid && !entry->missing);
		}
		*map = &entry->map;
		if (entry->map.ignored)
			return NULL;
		segment = entry->map.segment;
		LockRelationOid(segment, RowExclusiveLock);
		if (entry->valid)
			return table_open(segment, NoLock);
		UnlockRelationOid(segment, RowExclusiveLock);
	}
}

Relation
pgt_capture_map_open_copy(Oid relid, int64 source_id, CaptureMap **map)
{
	const CaptureMap *cached;
	Relation segment = pgt_capture_map_open(relid, source_id, &cached);
	CaptureMap *copy = palloc(sizeof(CaptureMap));

	*copy = *cached;
	copy->columns = palloc(sizeof(CaptureColumn) * Max(cached->ncolumns, 1));
	if (cached->ncolumns > 0)
		memcpy(copy->columns, cached->columns, sizeof(CaptureColumn) * cached->ncolumns);
	*map = copy;
	return segment;
}

/* --- readers --- */

static void
load_source(CaptureSource *cached, const PgtSource *source)
{
	ListCell *cell;

	cached->source_id = source->source_id;
	cached->method = source->method;
	memcpy(cached->segments, source->segments, sizeof(cached->segments));
	cached->nmembers = 0;
	if (cached->members != NULL)
		pfree(cached->members);
	cached->members = MemoryContextAlloc(CacheMemoryContext,
										 sizeof(Oid) * Max(1, list_length(source->members)));
	foreach (cell, source->members)
		cached->members[cached->nmembers++] = lfirst_oid(cell);
}

CaptureSource *
pgt_capture_map_source(Oid relid)
{
	CaptureSource *cached;
	bool found;

	if (maps == NULL)
		make_caches();
	cached = hash_search(sources, &relid, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) cached + sizeof(Oid), 0, sizeof(CaptureSource) - sizeof(Oid));
		cached->relid = relid;
	}
	while (!cached->valid)
	{
		PgtSource *source;

		cached->touched = false;
		source = pgt_source_find(relid);
		if (source == NULL)
		{
			if (cached->members != NULL)
				pfree(cached->members);
			hash_search(sources, &relid, HASH_REMOVE, NULL);
			return NULL;
		}
		load_source(cached, source);
		/* Without buffers nothing invalidates the entry: do not keep it. */
		if (!OidIsValid(source->segments[0]) || !OidIsValid(source->segments[1]))
			break;
		cached->valid = !cached->touched;
	}
	return cached;
}
