/*
 * relation.c: the per-relation cache.
 *
 * Owns one hash table per decoding session, in a memory context of its own; each entry's
 * details live in a child of that, which goes when the entry is rebuilt. A stub of a few
 * dozen bytes stays per relation ever seen, to know which schema was sent last.
 *
 * Invalidation callbacks cannot be unregistered, so they are registered once per process
 * and find the caches that are alive through a static list; a cache leaves it when its
 * memory context goes, by error or not.
 *
 * Runs inside change callbacks: under their historic snapshot, taking no locks.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_index.h"
#include "lib/ilist.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "pgt_compat.h"
#include "pgtd_filter.h"
#include "pgtd_relation.h"

/* Room for the parts of a row that neither names nor values make. */
#define ROW_OVERHEAD 2048

/* Invalid entries that keep their details before all of them are thrown away. */
#define MAX_INVALID 64

struct PgtdRelationCache
{
	slist_node node; /* in live_caches */
	MemoryContext context;
	HTAB *relations;
	PgtdRelation *last; /* a transaction mostly changes one relation */
	int invalid_count;
	const PgtdEncoding *encoding;
	const List *tables;
	const List *exclude_tables;
	const List *publications;

	/* Types of users that some entry depends on: their pg_type hashes, their pg_class oids. */
	List *type_hashes;
	List *type_relations;
	uint64 types_version; /* raised when one of them may have changed */
};

static slist_head live_caches = SLIST_STATIC_INIT(live_caches);

/* ---- invalidation: only marks -------------------------------------------------------- */

static void
mark_invalid(PgtdRelationCache *cache, PgtdRelation *rel)
{
	if (rel->is_valid)
		cache->invalid_count++;
	rel->is_valid = false;
}

static void
mark_all_invalid(PgtdRelationCache *cache)
{
	HASH_SEQ_STATUS status;
	PgtdRelation *rel;

	hash_seq_init(&status, cache->relations);
	while ((rel = hash_seq_search(&status)) != NULL)
		mark_invalid(cache, rel);
	cache->types_version++;
}

static void
handle_relcache_invalidation(Datum arg, Oid relid)
{
	slist_iter iter;

	slist_foreach (iter, &live_caches)
	{
		PgtdRelationCache *cache = slist_container(PgtdRelationCache, node, iter.cur);
		PgtdRelation *rel;

		if (!OidIsValid(relid))
		{
			mark_all_invalid(cache);
			continue;
		}
		rel = hash_search(cache->relations, &relid, HASH_FIND, NULL);
		if (rel != NULL)
			mark_invalid(cache, rel);
		else if (list_member_oid(cache->type_relations, relid))
			cache->types_version++;
	}
}

static void
handle_type_invalidation(Datum arg, int cacheid, uint32 hashvalue)
{
	slist_iter iter;

	slist_foreach (iter, &live_caches)
	{
		PgtdRelationCache *cache = slist_container(PgtdRelationCache, node, iter.cur);

		if (hashvalue == 0 || list_member_int(cache->type_hashes, (int) hashvalue))
			cache->types_version++;
	}
}

static void
handle_namespace_invalidation(Datum arg, int cacheid, uint32 hashvalue)
{
	slist_iter iter;

	slist_foreach (iter, &live_caches)
		mark_all_invalid(slist_container(PgtdRelationCache, node, iter.cur));
}

static void
handle_publication_invalidation(Datum arg, int cacheid, uint32 hashvalue)
{
	slist_iter iter;

	slist_foreach (iter, &live_caches)
	{
		PgtdRelationCache *cache = slist_container(PgtdRelationCache, node, iter.cur);

		if (cache->publications != NIL)
			mark_all_invalid(cache);
	}
}

static void
register_callbacks(void)
{
	static bool is_registered = false;

	if (is_registered)
		return;
	CacheRegisterRelcacheCallback(handle_relcache_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, handle_type_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, handle_namespace_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(PUBLICATIONOID, handle_publication_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(PUBLICATIONRELMAP, handle_publication_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(PUBLICATIONNAMESPACEMAP, handle_publication_invalidation,
								  (Datum) 0);
	is_registered = true;
}

/* ---- the cache ----------------------------------------------------------------------- */

static void
forget_cache(void *arg)
{
	PgtdRelationCache *cache = arg;

	slist_delete(&live_caches, &cache->node);
}

PgtdRelationCache *
pgtd_make_relation_cache(const PgtdEncoding *encoding, const List *tables,
						 const List *exclude_tables, const List *publications)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle relations",
												  ALLOCSET_DEFAULT_SIZES);
	PgtdRelationCache *cache = MemoryContextAllocZero(context, sizeof(PgtdRelationCache));
	MemoryContextCallback *callback = MemoryContextAlloc(context, sizeof(MemoryContextCallback));
	HASHCTL control = {0};

	cache->context = context;
	cache->encoding = encoding;
	cache->tables = tables;
	cache->exclude_tables = exclude_tables;
	cache->publications = publications;
	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(PgtdRelation);
	control.hcxt = context;
	cache->relations = hash_create("pg_trickle relations", 128, &control,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	register_callbacks();
	slist_push_head(&live_caches, &cache->node);
	callback->func = forget_cache;
	callback->arg = cache;
	MemoryContextRegisterResetCallback(context, callback);
	return cache;
}

/* Forget all but what was sent. */
static void
free_details(PgtdRelation *rel)
{
	if (rel->context != NULL)
		MemoryContextDelete(rel->context);
	rel->context = NULL;
	rel->is_described = false;
	rel->schema = rel->name = NULL;
	memset(&rel->published, 0, sizeof(PgtdPublished));
	rel->format_data = NULL;
	rel->transaction_number = 0;
}

/* Relations that are dropped never come back, so somebody has to clean up after them. */
static void
free_invalid_details(PgtdRelationCache *cache)
{
	HASH_SEQ_STATUS status;
	PgtdRelation *rel;

	hash_seq_init(&status, cache->relations);
	while ((rel = hash_seq_search(&status)) != NULL)
	{
		if (!rel->is_valid)
			free_details(rel);
	}
	cache->invalid_count = 0;
}

static void
load_names(PgtdRelationCache *cache, PgtdRelation *rel, Relation relation)
{
	MemoryContext old_context;
	char *schema;

	free_details(rel);
	/* Before any look-up: an invalidation that comes in meanwhile must not be lost. */
	rel->is_valid = true;
	rel->types_version = cache->types_version;

	rel->context = AllocSetContextCreate(cache->context, "pg_trickle relation",
										 ALLOCSET_SMALL_SIZES);
	old_context = MemoryContextSwitchTo(rel->context);
	schema = get_namespace_name(RelationGetNamespace(relation));
	if (schema == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_SCHEMA),
						errmsg("could not find the schema of table \"%s\"",
							   RelationGetRelationName(relation))));
	rel->schema = schema;
	rel->name = pstrdup(RelationGetRelationName(relation));
	rel->is_listed = pgtd_match_tables(cache->tables, rel->schema, rel->name);
	rel->is_excluded = pgtd_match_tables(cache->exclude_tables, rel->schema, rel->name);
	if (cache->publications != NIL && !rel->is_excluded)
		rel->published = pgtd_find_published(cache->publications, relation);
	MemoryContextSwitchTo(old_context);
}

static bool
is_current(const PgtdRelationCache *cache, const PgtdRelation *rel, Relation relation)
{
	if (!rel->is_valid || rel->context == NULL)
		return false;
	if (!rel->is_described)
		return true;
	return rel->natts == RelationGetNumberOfAttributes(relation) &&
		   (!rel->has_user_types || rel->types_version == cache->types_version);
}

PgtdRelation *
pgtd_get_relation(PgtdRelationCache *cache, Relation relation)
{
	Oid relid = RelationGetRelid(relation);
	PgtdRelation *rel = cache->last;

	if (rel == NULL || rel->relid != relid)
	{
		bool found;

		rel = hash_search(cache->relations, &relid, HASH_ENTER, &found);
		if (!found)
		{
			memset(rel, 0, sizeof(PgtdRelation));
			rel->relid = relid;
		}
		cache->last = rel;
	}
	if (likely(is_current(cache, rel, relation)))
		return rel;

	if (cache->invalid_count > MAX_INVALID)
		free_invalid_details(cache);
	load_names(cache, rel, relation);
	return rel;
}

/* ---- describing: columns --------------------------------------------------------------- */

static void
load_columns(PgtdRelationCache *cache, PgtdRelation *rel, TupleDesc desc, PgtdTypeNeeds *needs)
{
	rel->natts = desc->natts;
	rel->columns = palloc0(sizeof(PgtdColumn) * Max(desc->natts, 1));
	rel->column_count = 0;
	rel->overhead = ROW_OVERHEAD;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		PgtdColumn *column = &rel->columns[rel->column_count];

		if (attribute->attisdropped || pgt_compat_is_virtual_column(attribute) ||
			(rel->published.columns != NULL && !bms_is_member(i + 1, rel->published.columns)))
			continue;
		column->index = i;
		column->name = pstrdup(NameStr(attribute->attname));
		column->member = pgtd_make_member(cache->encoding, column->name, &column->member_len);
		needs->no_send = false;
		column->type = pgtd_make_type(cache->encoding, attribute->atttypid, needs);
		column->is_sent_as_text = needs->no_send;
		rel->column_count++;

		/* In both images and in the key, null everywhere, and named as omitted. */
		rel->overhead += 4 * (column->member_len + strlen("null,"));
	}

	rel->old_values = palloc(sizeof(Datum) * Max(desc->natts, 1));
	rel->old_nulls = palloc(sizeof(bool) * Max(desc->natts, 1));
	rel->new_values = palloc(sizeof(Datum) * Max(desc->natts, 1));
	rel->new_nulls = palloc(sizeof(bool) * Max(desc->natts, 1));
}

static int
find_column(const PgtdRelation *rel, AttrNumber attnum)
{
	for (int i = 0; i < rel->column_count; i++)
	{
		if (rel->columns[i].index == attnum - 1)
			return i;
	}
	return -1;
}

/* ---- describing: key and identity -------------------------------------------------------- */

typedef struct IndexKey
{
	int count;					 /* 0: there is none */
	int columns[INDEX_MAX_KEYS]; /* indexes into the columns */
} IndexKey;

typedef struct IndexKeys
{
	IndexKey primary;
	IndexKey identity; /* REPLICA IDENTITY USING INDEX */
	IndexKey unique;   /* the smallest of the others that identify a row */
} IndexKeys;

/* The columns of an index; false if it has others than the plain ones of the relation. */
static bool
load_index_columns(const PgtdRelation *rel, Relation index, IndexKey *key)
{
	key->count = 0;
	for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(index); i++)
	{
		int column = find_column(rel, index->rd_index->indkey.values[i]);

		if (column < 0)
			return false;
		key->columns[key->count++] = column;
	}
	return key->count > 0;
}

/* Does it identify every row: unique at once, for all rows, and NULLs not exempt? */
static bool
index_identifies_rows(Relation relation, Relation index)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisunique || !form->indimmediate || !form->indisvalid ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
		return false;
	if (form->indnullsnotdistinct)
		return true;
	for (int i = 0; i < form->indnkeyatts; i++)
	{
		AttrNumber attnum = form->indkey.values[i];

		if (attnum <= 0 || !TupleDescAttr(RelationGetDescr(relation), attnum - 1)->attnotnull)
			return false;
	}
	return true;
}

/* Fewer columns, then earlier ones: the same choice on every server. */
static bool
is_smaller_key(const IndexKey *a, const IndexKey *b)
{
	if (b->count == 0 || a->count != b->count)
		return b->count == 0 || a->count < b->count;
	for (int i = 0; i < a->count; i++)
	{
		if (a->columns[i] != b->columns[i])
			return a->columns[i] < b->columns[i];
	}
	return false;
}

static void
find_index_keys(const PgtdRelation *rel, Relation relation, IndexKeys *keys)
{
	List *indexes = RelationGetIndexList(relation);
	ListCell *cell;

	memset(keys, 0, sizeof(IndexKeys));
	foreach (cell, indexes)
	{
		Relation index = RelationIdGetRelation(lfirst_oid(cell));
		IndexKey key;

		if (!RelationIsValid(index))
			continue;
		if (load_index_columns(rel, index, &key))
		{
			if (index->rd_index->indisprimary)
				keys->primary = key;
			if (index->rd_index->indisreplident)
				keys->identity = key;
			if (index_identifies_rows(relation, index) && is_smaller_key(&key, &keys->unique))
				keys->unique = key;
		}
		RelationClose(index);
	}
	list_free(indexes);
}

static void
set_identity(PgtdRelation *rel, char replident, const IndexKeys *keys)
{
	const IndexKey *identity = NULL;

	if (replident == REPLICA_IDENTITY_DEFAULT)
		identity = &keys->primary;
	else if (replident == REPLICA_IDENTITY_INDEX)
		identity = &keys->identity;

	rel->identity = "none";
	if (replident == REPLICA_IDENTITY_FULL)
		rel->identity = "full";
	else if (identity != NULL && identity->count > 0)
	{
		rel->identity = "key";
		for (int i = 0; i < identity->count; i++)
			rel->columns[identity->columns[i]].in_identity = true;
	}
	for (int i = 0; i < rel->column_count && replident == REPLICA_IDENTITY_FULL; i++)
		rel->columns[i].in_identity = true;
}

/*
 * The key is the identity index where one was chosen, else the primary key, else the
 * smallest unique index that identifies every row.
 */
static void
load_key(PgtdRelation *rel, Relation relation)
{
	char replident = relation->rd_rel->relreplident;
	const IndexKey *key;
	IndexKeys keys;

	find_index_keys(rel, relation, &keys);
	set_identity(rel, replident, &keys);

	if (replident == REPLICA_IDENTITY_INDEX && keys.identity.count > 0)
		key = &keys.identity;
	else if (keys.primary.count > 0)
		key = &keys.primary;
	else
		key = &keys.unique;

	rel->key_count = key->count;
	rel->key = palloc(sizeof(int) * Max(key->count, 1));
	rel->key_in_identity = key->count > 0;
	for (int i = 0; i < key->count; i++)
	{
		rel->key[i] = key->columns[i];
		rel->key_in_identity = rel->key_in_identity && rel->columns[rel->key[i]].in_identity;
	}
}

/* ---- describing: what consumers see ------------------------------------------------------ */

void
pgtd_put_label(PgtdOut *out, const char *schema, const char *name)
{
	StringInfoData buf;

	initStringInfo(&buf);
	pgtd_append_name(&buf, schema, name);
	pgtd_put_string(out, buf.data, buf.len);
	pfree(buf.data);
}

static int
get_key_position(const PgtdRelation *rel, int column)
{
	for (int i = 0; i < rel->key_count; i++)
	{
		if (rel->key[i] == column)
			return i + 1;
	}
	return 0;
}

static void
put_shape(PgtdOut *out, const PgtdRelation *rel, TupleDesc desc)
{
	pgtd_put_literal(out, "\"t\":");
	pgtd_put_cstring(out, rel->label);
	pgtd_put_literal(out, ",\"schema\":");
	pgtd_put_string(out, rel->schema, strlen(rel->schema));
	pgtd_put_literal(out, ",\"table\":");
	pgtd_put_string(out, rel->name, strlen(rel->name));
	pgtd_put_literal(out, ",\"columns\":[");
	for (int i = 0; i < rel->column_count; i++)
	{
		const PgtdColumn *column = &rel->columns[i];
		Form_pg_attribute attribute = TupleDescAttr(desc, column->index);
		int position = get_key_position(rel, i);

		if (i > 0)
			pgtd_put_char(out, ',');
		pgtd_put_literal(out, "{\"name\":");
		pgtd_put_string(out, column->name, strlen(column->name));
		pgtd_put_char(out, ',');
		pgtd_put_type_members(out, attribute->atttypid, attribute->atttypmod);
		if (attribute->attnotnull)
			pgtd_put_literal(out, ",\"not_null\":true");
		else
			pgtd_put_literal(out, ",\"not_null\":false");
		if (position > 0)
		{
			pgtd_put_literal(out, ",\"key\":");
			pgtd_put_int64(out, position);
		}
		pgtd_put_char(out, '}');
	}
	pgtd_put_literal(out, "],\"key\":[");
	for (int i = 0; i < rel->key_count; i++)
	{
		const char *name = rel->columns[rel->key[i]].name;

		if (i > 0)
			pgtd_put_char(out, ',');
		pgtd_put_string(out, name, strlen(name));
	}
	pgtd_put_char(out, ']');
}

/* FNV-1a: the same on every machine, and anyone can compute it. */
static uint64
hash_text(const char *text, Size len)
{
	uint64 hash = UINT64CONST(0xcbf29ce484222325);

	for (Size i = 0; i < len; i++)
	{
		hash ^= (unsigned char) text[i];
		hash *= UINT64CONST(0x100000001b3);
	}
	return hash;
}

static void
load_shape(PgtdRelationCache *cache, PgtdRelation *rel, TupleDesc desc)
{
	StringInfoData label;
	StringInfoData shape;
	PgtdOut out = {.buf = &label, .limit = MaxAllocSize - 1, .encoding = cache->encoding};

	initStringInfo(&label);
	pgtd_put_label(&out, rel->schema, rel->name);
	pgtd_put_char(&out, '\0');
	rel->label = label.data;

	initStringInfo(&shape);
	out.buf = &shape;
	put_shape(&out, rel, desc);
	rel->schema_id = hash_text(shape.data, shape.len);
	snprintf(rel->schema_id_hex, sizeof(rel->schema_id_hex), "%08x%08x",
			 (uint32) (rel->schema_id >> 32), (uint32) rel->schema_id);
	pgtd_put_char(&out, '\0');
	rel->shape = shape.data;
}

/* The cache keeps its lists for good: types are few, and dropped ones do no harm. */
static void
watch_types(PgtdRelationCache *cache, const PgtdTypeNeeds *needs)
{
	MemoryContext old_context = MemoryContextSwitchTo(cache->context);
	ListCell *cell;

	foreach (cell, needs->type_ids)
		cache->type_hashes = list_append_unique_int(
			cache->type_hashes,
			(int) GetSysCacheHashValue1(TYPEOID, ObjectIdGetDatum(lfirst_oid(cell))));
	foreach (cell, needs->relation_ids)
		cache->type_relations = list_append_unique_oid(cache->type_relations, lfirst_oid(cell));
	MemoryContextSwitchTo(old_context);
}

void
pgtd_describe_relation(PgtdRelationCache *cache, PgtdRelation *rel, Relation relation)
{
	MemoryContext old_context;
	PgtdTypeNeeds needs = {0};
	TupleDesc desc = RelationGetDescr(relation);

	if (rel->is_described)
		return;
	rel->types_version = cache->types_version;
	old_context = MemoryContextSwitchTo(rel->context);
	load_columns(cache, rel, desc, &needs);
	load_key(rel, relation);
	load_shape(cache, rel, desc);
	rel->needs_settings = needs.settings;
	rel->needs_client_encoding = needs.client_encoding;
	rel->has_user_types = needs.type_ids != NIL || needs.relation_ids != NIL;
	watch_types(cache, &needs);
	rel->is_described = true;
	MemoryContextSwitchTo(old_context);
}
