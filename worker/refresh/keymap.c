/*
 * keymap.c: rows by key in memory.
 *
 * Keys are compared either as SQL compares them (the equality of the identity's
 * operators, nulls equal) or by image. Types without a hash function (money,
 * tsvector, bit) go into a balanced tree by their btree comparison, everything
 * else into a hash table. A map owns a memory context; entries stay where they
 * are until the map is freed.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "executor/executor.h"
#include "lib/rbtree.h"
#include "utils/datum.h"
#include "utils/memutils.h"

#include "pgt_image.h"

#include "refresh_internal.h"

typedef struct HashElement
{
	KeyEntry *entry;
	uint32 hash;
	char status;
} HashElement;

static bool equal_keys(const KeyMap *map, const KeyEntry *a, const KeyEntry *b);

#define SH_PREFIX keyhash
#define SH_ELEMENT_TYPE HashElement
#define SH_KEY_TYPE KeyEntry *
#define SH_KEY entry
#define SH_HASH_KEY(table, key) ((uint32) ((key)->hash ^ ((key)->hash >> 32)))
#define SH_EQUAL(table, a, b) \
	((a)->hash == (b)->hash && equal_keys((const KeyMap *) (table)->private_data, a, b))
#define SH_STORE_HASH
#define SH_GET_HASH(table, element) (element)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct TreeNode
{
	RBTNode node;
	KeyEntry *entry;
} TreeNode;

static bool
equal_keys(const KeyMap *map, const KeyEntry *a, const KeyEntry *b)
{
	if (map->columns == NULL)
		return pgt_image_equal(map->desc, a->values, a->isnull, b->values, b->isnull);
	for (int i = 0; i < map->nkeys; i++)
	{
		KeyColumn *column = &map->columns[i];

		if (a->isnull[i] != b->isnull[i])
			return false;
		if (!a->isnull[i] && !DatumGetBool(FunctionCall2Coll(&column->eq, column->collation,
															 a->values[i], b->values[i])))
			return false;
	}
	return true;
}

static int
compare_nodes(const RBTNode *left, const RBTNode *right, void *arg)
{
	const KeyMap *map = arg;
	const KeyEntry *a = ((const TreeNode *) left)->entry;
	const KeyEntry *b = ((const TreeNode *) right)->entry;

	for (int i = 0; i < map->nkeys; i++)
	{
		KeyColumn *column = &map->columns[i];
		int result;

		if (a->isnull[i] || b->isnull[i])
			result = (int) a->isnull[i] - (int) b->isnull[i];
		else
			result = DatumGetInt32(
				FunctionCall2Coll(&column->cmp, column->collation, a->values[i], b->values[i]));
		if (result != 0)
			return result;
	}
	return 0;
}

static RBTNode *
alloc_node(void *arg)
{
	return MemoryContextAlloc(((KeyMap *) arg)->context, sizeof(TreeNode));
}

static void
combine_nodes(RBTNode *existing, const RBTNode *newdata, void *arg)
{
}

static void
free_node(RBTNode *node, void *arg)
{
	pfree(node);
}

static KeyMap *
make_map(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle key map",
												  ALLOCSET_DEFAULT_SIZES);
	KeyMap *map = MemoryContextAllocZero(context, sizeof(KeyMap));

	map->context = context;
	return map;
}

KeyMap *
pgt_keymap_make(int nkeys, KeyColumn *columns)
{
	KeyMap *map = make_map();
	bool hashable = true;

	map->nkeys = nkeys;
	map->columns = columns;
	for (int i = 0; i < nkeys; i++)
		hashable = hashable && columns[i].hashable;
	if (columns == NULL) /* a single row has no key columns */
		map->columns = MemoryContextAllocZero(map->context, sizeof(KeyColumn));
	if (hashable)
		map->table = keyhash_create(map->context, 64, map);
	else
	{
		MemoryContext old = MemoryContextSwitchTo(map->context);

		map->tree = rbt_create(sizeof(TreeNode), compare_nodes, combine_nodes, alloc_node,
							   free_node, map);
		MemoryContextSwitchTo(old);
	}
	return map;
}

KeyMap *
pgt_keymap_make_images(TupleDesc desc)
{
	KeyMap *map = make_map();

	map->nkeys = desc->natts;
	map->desc = desc;
	map->table = keyhash_create(map->context, 64, map);
	return map;
}

void
pgt_keymap_free(KeyMap *map)
{
	MemoryContextDelete(map->context);
}

uint64
pgt_keymap_hash(const KeyMap *map, const Datum *values, const bool *isnull)
{
	uint64 hash = 0;

	if (map->columns == NULL)
		return pgt_image_hash(map->desc, values, isnull);
	if (map->table == NULL)
		return 0;
	for (int i = 0; i < map->nkeys; i++)
	{
		KeyColumn *column = &map->columns[i];
		uint32 one = 0;

		if (!isnull[i])
			one = DatumGetUInt32(FunctionCall1Coll(&column->hash, column->collation, values[i]));
		hash = hash_combine64(hash, murmurhash32(one));
	}
	return hash;
}

static KeyEntry *
add_entry(KeyMap *map, const KeyEntry *probe)
{
	KeyEntry *entry = MemoryContextAllocZero(map->context, sizeof(KeyEntry));

	entry->hash = probe->hash;
	if (map->last != NULL)
		map->last->next = entry;
	else
		map->first = entry;
	map->last = entry;
	map->nentries++;
	return entry;
}

/* Copies of the key's values in the map's memory. */
static void
copy_key(KeyMap *map, KeyEntry *entry, const KeyEntry *probe)
{
	MemoryContext old = MemoryContextSwitchTo(map->context);

	entry->values = palloc(sizeof(Datum) * Max(map->nkeys, 1));
	entry->isnull = palloc(sizeof(bool) * Max(map->nkeys, 1));
	for (int i = 0; i < map->nkeys; i++)
	{
		bool typbyval = map->columns != NULL ? map->columns[i].typbyval
											 : TupleDescAttr(map->desc, i)->attbyval;
		int16 typlen = map->columns != NULL ? map->columns[i].typlen
											: TupleDescAttr(map->desc, i)->attlen;

		entry->isnull[i] = probe->isnull[i];
		entry->values[i] = probe->values[i];
		if (!probe->isnull[i])
			entry->values[i] = datumCopy(probe->values[i], typbyval, typlen);
	}
	MemoryContextSwitchTo(old);
}

/* The key's values point into a copy of the row. */
static void
copy_row(KeyMap *map, KeyEntry *entry, TupleTableSlot *slot)
{
	MemoryContext old = MemoryContextSwitchTo(map->context);
	HeapTupleData tuple;

	entry->row = ExecCopySlotMinimalTuple(slot);
	entry->values = palloc(sizeof(Datum) * Max(map->nkeys, 1));
	entry->isnull = palloc(sizeof(bool) * Max(map->nkeys, 1));
	tuple.t_len = entry->row->t_len + MINIMAL_TUPLE_OFFSET;
	tuple.t_data = (HeapTupleHeader) ((char *) entry->row - MINIMAL_TUPLE_OFFSET);
	heap_deform_tuple(&tuple, map->desc, entry->values, entry->isnull);
	MemoryContextSwitchTo(old);
}

static KeyEntry *
find_or_add(KeyMap *map, KeyEntry *probe, TupleTableSlot *slot, bool *found)
{
	KeyEntry *entry;

	if (map->table != NULL)
	{
		HashElement *element = keyhash_insert(map->table, probe, found);

		if (*found)
			return element->entry;
		entry = add_entry(map, probe);
		element->entry = entry;
	}
	else
	{
		TreeNode node = {.entry = probe};
		bool is_new;
		TreeNode *stored = (TreeNode *) rbt_find(map->tree, (RBTNode *) &node);

		*found = stored != NULL;
		if (*found)
			return stored->entry;
		stored = (TreeNode *) rbt_insert(map->tree, (RBTNode *) &node, &is_new);
		entry = add_entry(map, probe);
		stored->entry = entry;
	}
	if (slot != NULL)
		copy_row(map, entry, slot);
	else
		copy_key(map, entry, probe);
	return entry;
}

KeyEntry *
pgt_keymap_find(KeyMap *map, Datum *values, bool *isnull)
{
	KeyEntry probe = {.values = values, .isnull = isnull};

	probe.hash = pgt_keymap_hash(map, values, isnull);
	if (map->table != NULL)
	{
		HashElement *element = keyhash_lookup(map->table, &probe);

		return element != NULL ? element->entry : NULL;
	}
	else
	{
		TreeNode node = {.entry = &probe};
		TreeNode *stored = (TreeNode *) rbt_find(map->tree, (RBTNode *) &node);

		return stored != NULL ? stored->entry : NULL;
	}
}

KeyEntry *
pgt_keymap_get(KeyMap *map, Datum *values, bool *isnull, bool *found)
{
	KeyEntry probe = {.values = values, .isnull = isnull};

	probe.hash = pgt_keymap_hash(map, values, isnull);
	return find_or_add(map, &probe, NULL, found);
}

KeyEntry *
pgt_keymap_get_row(KeyMap *map, TupleTableSlot *slot, bool *found)
{
	KeyEntry probe = {0};

	Assert(map->columns == NULL);
	slot_getallattrs(slot);
	probe.values = slot->tts_values;
	probe.isnull = slot->tts_isnull;
	probe.hash = pgt_keymap_hash(map, probe.values, probe.isnull);
	return find_or_add(map, &probe, slot, found);
}
