/*
 * apply_delta.c: applying a stage's result: rows that replace those of certain
 * keys, or signed rows.
 *
 * Signed rows must fit what is stored: a row to delete is there, a key to
 * insert is not. If they do not, nothing is guessed: apply->misfit says why,
 * and the caller repairs or fails. Replacing needs no such care, it makes right
 * whatever is there.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"

#include "pgt_image.h"

#include "refresh_internal.h"

/* The weight of a signed row, its first column. */
int64
pgt_apply_weight(TupleTableSlot *slot)
{
	bool isnull;
	Datum weight = slot_getattr(slot, 1, &isnull);

	if (isnull)
		elog(ERROR, "a signed row has no weight");
	switch (TupleDescAttr(slot->tts_tupleDescriptor, 0)->atttypid)
	{
		case INT2OID:
			return DatumGetInt16(weight);
		case INT4OID:
			return DatumGetInt32(weight);
		case INT8OID:
			return DatumGetInt64(weight);
		default:
			elog(ERROR, "a signed row has a weight of another type");
	}
	return 0;
}

/* The stored row of a key becomes row, or goes if row is NULL. */
void
pgt_apply_replace_key(Apply *apply, Datum *values, bool *isnull, TupleTableSlot *row)
{
	CHECK_FOR_INTERRUPTS();
	if (!pgt_apply_find(apply, values, isnull))
	{
		if (row != NULL)
			pgt_apply_insert(apply, row);
	}
	else if (row == NULL)
		pgt_apply_delete(apply);
	else if (!pgt_apply_same_image(apply, row))
		pgt_apply_update(apply, row);
}

/* Key values of a row of the stored table's shape, whose columns begin at first. */
static void
get_key(const TargetInfo *info, TupleTableSlot *slot, int first, Datum *values, bool *isnull)
{
	slot_getallattrs(slot);
	for (int i = 0; i < info->nkeys; i++)
	{
		int column = first + info->keys[i].attnum - 1;

		values[i] = slot->tts_values[column];
		isnull[i] = slot->tts_isnull[column];
	}
}

static MinimalTuple
copy_tuple(KeyMap *map, TupleTableSlot *slot)
{
	MemoryContext old = MemoryContextSwitchTo(map->context);
	MinimalTuple tuple = ExecCopySlotMinimalTuple(slot);

	MemoryContextSwitchTo(old);
	return tuple;
}

/* ---- Batches ---- */

/* What has to meet in a key map: rows of one key, or of one image. */
typedef struct Meeting
{
	Apply *apply;
	KeyMap *map; /* of keys; NULL: images */
	int first;	 /* where the columns of the stored table begin */
	bool is_key; /* the row has nothing but the key */
} Meeting;

static Meeting
make_meeting(Apply *apply, int first, int nbatches)
{
	TargetInfo *info = apply->info;
	Meeting meeting = {apply, NULL, first, false};

	if (nbatches > 1 && info->identity == PGT_IDENTITY_KEY)
		meeting.map = pgt_keymap_make(info->nkeys, info->keys);
	return meeting;
}

static uint64
hash_meeting(TupleTableSlot *slot, void *arg)
{
	Meeting *meeting = arg;
	Datum values[INDEX_MAX_KEYS];
	bool isnull[INDEX_MAX_KEYS];

	if (meeting->map == NULL)
		return pgt_image_hash(RelationGetDescr(meeting->apply->relation),
							  slot->tts_values + meeting->first, slot->tts_isnull + meeting->first);
	if (meeting->is_key)
		return pgt_keymap_hash(meeting->map, slot->tts_values, slot->tts_isnull);
	get_key(meeting->apply->info, slot, meeting->first, values, isnull);
	return pgt_keymap_hash(meeting->map, values, isnull);
}

/* ---- Replacing ---- */

static bool
replace_by_key(Apply *apply, PgtDeltaRows *keys, PgtDeltaRows *rows)
{
	TargetInfo *info = apply->info;
	KeyMap *map = pgt_keymap_make(info->nkeys, info->keys);
	TupleTableSlot *slot;
	Datum values[INDEX_MAX_KEYS];
	bool isnull[INDEX_MAX_KEYS];
	bool found;

	if (rows->desc != NULL)
	{
		slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
		tuplestore_rescan(rows->rows);
		while (tuplestore_gettupleslot(rows->rows, true, false, slot))
		{
			KeyEntry *entry;

			get_key(info, slot, 0, values, isnull);
			entry = pgt_keymap_get(map, values, isnull, &found);
			if (found)
				apply->misfit = "two rows have the same key";
			else
				entry->row = copy_tuple(map, slot);
		}
		ExecDropSingleTupleTableSlot(slot);
	}
	if (keys != NULL && keys->desc != NULL)
	{
		pgt_apply_check_keys(apply, keys->desc, 0);
		slot = MakeSingleTupleTableSlot(keys->desc, &TTSOpsMinimalTuple);
		tuplestore_rescan(keys->rows);
		while (tuplestore_gettupleslot(keys->rows, true, false, slot))
		{
			slot_getallattrs(slot);
			(void) pgt_keymap_get(map, slot->tts_values, slot->tts_isnull, &found);
		}
		ExecDropSingleTupleTableSlot(slot);
	}
	if (apply->misfit == NULL && map->first != NULL)
	{
		slot = MakeSingleTupleTableSlot(rows->desc != NULL ? rows->desc
														   : RelationGetDescr(apply->relation),
										&TTSOpsMinimalTuple);
		for (KeyEntry *entry = map->first; entry != NULL; entry = entry->next)
			pgt_apply_replace_key(
				apply, entry->values, entry->isnull,
				entry->row == NULL ? NULL : pgt_apply_fill_tuple(apply, entry->row, slot, 0));
		ExecDropSingleTupleTableSlot(slot);
	}
	pgt_keymap_free(map);
	return apply->misfit == NULL;
}

/* The single row becomes what the query gives; HAVING may give none. */
static bool
replace_single(Apply *apply, PgtDeltaRows *rows)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
	TupleTableSlot *row = NULL;

	if (rows->nrows > 1)
		apply->misfit = "a query of one row gave several";
	else
	{
		tuplestore_rescan(rows->rows);
		if (tuplestore_gettupleslot(rows->rows, true, false, slot))
			row = pgt_apply_fill(apply, slot, 0);
		pgt_apply_replace_key(apply, NULL, NULL, row);
	}
	ExecDropSingleTupleTableSlot(slot);
	return apply->misfit == NULL;
}

/* Copies of an image: as many as count shall be stored. */
static void
set_copies(Apply *apply, KeyEntry *entry, TupleTableSlot *scratch)
{
	int64 stored = 0;

	pgt_apply_begin_image(apply, entry->hash);
	while (pgt_apply_next_image(apply, entry->values, entry->isnull))
	{
		if (++stored > entry->count)
			pgt_apply_delete(apply);
	}
	for (; stored < entry->count; stored++)
		pgt_apply_insert(apply, pgt_apply_fill_tuple(apply, entry->row, scratch, 0));
}

static void
count_images(KeyMap *map, PgtDeltaRows *rows, TupleDesc desc, int weight)
{
	TupleTableSlot *slot;

	if (rows->desc == NULL)
		return;
	slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	tuplestore_rescan(rows->rows);
	while (tuplestore_gettupleslot(rows->rows, true, false, slot))
	{
		bool found;

		pgt_keymap_get_row(map, slot, &found)->count += weight;
	}
	ExecDropSingleTupleTableSlot(slot);
}

static bool
replace_images(Apply *apply, PgtDeltaRows *keys, PgtDeltaRows *rows)
{
	TupleDesc desc = RelationGetDescr(apply->relation);
	KeyMap *map = pgt_keymap_make_images(desc);
	TupleTableSlot *scratch = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);

	if (keys->desc != NULL)
		pgt_apply_check_rows(apply, keys->desc, 0);
	count_images(map, rows, desc, 1);
	count_images(map, keys, desc, 0);
	for (KeyEntry *entry = map->first; entry != NULL; entry = entry->next)
	{
		CHECK_FOR_INTERRUPTS();
		set_copies(apply, entry, scratch);
	}
	ExecDropSingleTupleTableSlot(scratch);
	pgt_keymap_free(map);
	return true;
}

static bool
replace_batch(Apply *apply, PgtDeltaRows *keys, PgtDeltaRows *rows)
{
	switch (apply->info->identity)
	{
		case PGT_IDENTITY_SINGLE:
			return replace_single(apply, rows);
		case PGT_IDENTITY_KEY:
			return replace_by_key(apply, keys, rows);
		default:
			return replace_images(apply, keys, rows);
	}
}

/*
 * The stored rows of the keys become rows; keys without a row lose theirs.
 * keys may be NULL for a single row. Both are used up.
 */
bool
pgt_apply_replace(Apply *apply, PgtDeltaRows *keys, PgtDeltaRows *rows)
{
	int nbatches = Max(pgt_batches_count(keys), pgt_batches_count(rows));
	Meeting meeting = make_meeting(apply, 0, nbatches);
	PgtDeltaRows *row_batches;
	PgtDeltaRows *key_batches = NULL;
	bool fits = true;

	if (rows->desc != NULL)
		pgt_apply_check_rows(apply, rows->desc, 0);
	row_batches = pgt_batches_split(rows, nbatches, hash_meeting, &meeting);
	if (keys != NULL)
	{
		meeting.is_key = true;
		key_batches = pgt_batches_split(keys, nbatches, hash_meeting, &meeting);
	}
	for (int i = 0; i < nbatches && fits; i++)
	{
		fits = replace_batch(apply, keys != NULL ? &key_batches[i] : NULL, &row_batches[i]);
		pgt_batches_free(&row_batches[i]);
		if (keys != NULL)
			pgt_batches_free(&key_batches[i]);
	}
	if (meeting.map != NULL)
		pgt_keymap_free(meeting.map);
	return fits;
}

/* ---- Signed rows ---- */

/* Sums the weights of equal images; rows begin with the weight. */
static KeyMap *
consolidate(Apply *apply, PgtDeltaRows *rows)
{
	TupleDesc desc = RelationGetDescr(apply->relation);
	KeyMap *map = pgt_keymap_make_images(desc);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);

	tuplestore_rescan(rows->rows);
	while (tuplestore_gettupleslot(rows->rows, true, false, slot))
	{
		bool found;

		pgt_keymap_get_row(map, pgt_apply_fill(apply, slot, 1), &found)->count += pgt_apply_weight(
			slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	return map;
}

static bool
apply_signed_images(Apply *apply, KeyMap *images, TupleTableSlot *scratch)
{
	for (KeyEntry *entry = images->first; entry != NULL; entry = entry->next)
	{
		CHECK_FOR_INTERRUPTS();
		for (int64 i = 0; i < entry->count; i++)
			pgt_apply_insert(apply, pgt_apply_fill_tuple(apply, entry->row, scratch, 0));
		if (entry->count >= 0)
			continue;
		pgt_apply_begin_image(apply, entry->hash);
		for (int64 i = entry->count; i < 0; i++)
		{
			if (!pgt_apply_next_image(apply, entry->values, entry->isnull))
			{
				apply->misfit = "a row to delete is not there";
				return false;
			}
			pgt_apply_delete(apply);
		}
	}
	return true;
}

/* Brings the old and the new image of each key together. */
static bool
pair_images(Apply *apply, KeyMap *images, KeyMap *pairs)
{
	for (KeyEntry *image = images->first; image != NULL; image = image->next)
	{
		Datum values[INDEX_MAX_KEYS];
		bool isnull[INDEX_MAX_KEYS];
		KeyEntry *pair;
		MinimalTuple *side;
		bool found;

		if (image->count == 0)
			continue;
		for (int i = 0; i < apply->info->nkeys; i++)
		{
			values[i] = image->values[apply->info->keys[i].attnum - 1];
			isnull[i] = image->isnull[apply->info->keys[i].attnum - 1];
		}
		pair = pgt_keymap_get(pairs, values, isnull, &found);
		side = image->count > 0 ? &pair->row : &pair->old_row;
		if (*side != NULL || image->count > 1 || image->count < -1)
		{
			apply->misfit = "a key comes or goes twice";
			return false;
		}
		*side = image->row;
	}
	return true;
}

static bool
apply_signed_pair(Apply *apply, KeyEntry *pair, TupleTableSlot *scratch)
{
	bool found = pgt_apply_find(apply, pair->values, pair->isnull);

	if (found != (pair->old_row != NULL))
	{
		apply->misfit = found ? "a key to insert is there already"
							  : "a key to update or delete is not there";
		return false;
	}
	if (found &&
		!pgt_apply_same_image(apply, pgt_apply_fill_tuple(apply, pair->old_row, scratch, 0)))
	{
		apply->misfit = "a row to update or delete has other values";
		return false;
	}
	if (!found)
		pgt_apply_insert(apply, pgt_apply_fill_tuple(apply, pair->row, scratch, 0));
	else if (pair->row == NULL)
		pgt_apply_delete(apply);
	else
		pgt_apply_update(apply, pgt_apply_fill_tuple(apply, pair->row, scratch, 0));
	return true;
}

static bool
apply_signed_keys(Apply *apply, KeyMap *images, TupleTableSlot *scratch)
{
	KeyMap *pairs = pgt_keymap_make(apply->info->nkeys, apply->info->keys);
	bool fits = pair_images(apply, images, pairs);

	for (KeyEntry *pair = pairs->first; pair != NULL && fits; pair = pair->next)
	{
		CHECK_FOR_INTERRUPTS();
		fits = apply_signed_pair(apply, pair, scratch);
	}
	pgt_keymap_free(pairs);
	return fits;
}

static bool
apply_signed_batch(Apply *apply, PgtDeltaRows *rows)
{
	TupleTableSlot *scratch;
	KeyMap *images;
	bool fits;

	if (rows->nrows == 0)
		return true;
	images = consolidate(apply, rows);
	scratch = MakeSingleTupleTableSlot(RelationGetDescr(apply->relation), &TTSOpsMinimalTuple);
	if (apply->info->identity == PGT_IDENTITY_ROW)
		fits = apply_signed_images(apply, images, scratch);
	else
		fits = apply_signed_keys(apply, images, scratch);
	ExecDropSingleTupleTableSlot(scratch);
	pgt_keymap_free(images);
	return fits;
}

/* Adds signed rows (weight, columns) to what is stored. They are used up. */
bool
pgt_apply_signed(Apply *apply, PgtDeltaRows *rows)
{
	int nbatches = pgt_batches_count(rows);
	Meeting meeting = make_meeting(apply, 1, nbatches);
	PgtDeltaRows *batches;
	bool fits = true;

	if (rows->nrows > 0)
		pgt_apply_check_rows(apply, rows->desc, 1);
	batches = pgt_batches_split(rows, nbatches, hash_meeting, &meeting);
	for (int i = 0; i < nbatches && fits; i++)
	{
		fits = apply_signed_batch(apply, &batches[i]);
		pgt_batches_free(&batches[i]);
	}
	if (meeting.map != NULL)
		pgt_keymap_free(meeting.map);
	return fits;
}
