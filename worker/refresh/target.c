/*
 * target.c: how the rows of a stored table (the user's, a stage's, a state
 * table's) are found: which index, with which scan keys, compared how.
 *
 * Owns a cache per backend, one entry for each table written here, in a memory
 * context of its own below CacheMemoryContext. A relcache invalidation marks
 * the entry stale; it is built again when it is asked for the next time, so
 * whoever holds an entry may go on using it until then.
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "pgt_extension.h"

#include "refresh_internal.h"

static HTAB *targets = NULL;

static void
invalidate(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	TargetInfo *info;

	if (OidIsValid(relid))
	{
		info = hash_search(targets, &relid, HASH_FIND, NULL);
		if (info != NULL)
			info->stale = true;
		return;
	}
	hash_seq_init(&status, targets);
	while ((info = hash_seq_search(&status)) != NULL)
		info->stale = true;
}

static void
init_cache(void)
{
	HASHCTL ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(TargetInfo)};

	if (targets != NULL)
		return;
	targets = hash_create("pg_trickle targets", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(invalidate, (Datum) 0);
}

static Oid
row_hash_function(void)
{
	List *name = list_make2(makeString(PGT_SCHEMA), makeString("row_hash"));
	Oid argtypes[1] = {RECORDOID};

	return LookupFuncName(name, 1, argtypes, false);
}

/* Is it the index on pgtrickle.row_hash(whole row)? */
static bool
is_hash_index(Relation index)
{
	List *expressions = RelationGetIndexExpressions(index);
	Node *expression;

	if (!index->rd_index->indisvalid || index->rd_index->indnkeyatts != 1 ||
		list_length(expressions) != 1 || RelationGetIndexPredicate(index) != NIL)
		return false;
	expression = linitial(expressions);
	return IsA(expression, FuncExpr) && ((FuncExpr *) expression)->funcid == row_hash_function();
}

/* Is it the index on the hash of the key (storage.c) that stands in for wide keys? */
static bool
is_key_hash_index(Relation index, int nkeys, const AttrNumber *keys)
{
	List *expressions = RelationGetIndexExpressions(index);
	FuncExpr *call;
	RowExpr *row;

	if (!index->rd_index->indisvalid || index->rd_index->indnkeyatts != 1 ||
		list_length(expressions) != 1 || RelationGetIndexPredicate(index) != NIL)
		return false;
	call = linitial(expressions);
	if (!IsA(call, FuncExpr) || call->funcid != F_HASH_RECORD_EXTENDED)
		return false;
	row = linitial(call->args);
	if (!IsA(row, RowExpr) || list_length(row->args) != nkeys)
		return false;
	for (int i = 0; i < nkeys; i++)
	{
		Node *column = list_nth(row->args, i);

		if (!IsA(column, Var) || ((Var *) column)->varattno != keys[i])
			return false;
	}
	return true;
}

/* Is it a unique index on exactly the key, with its equality? */
static bool
is_key_index(Relation index, int nkeys, const AttrNumber *keys, const Oid *operators,
			 const Oid *collations)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisvalid || !form->indisunique || !form->indimmediate ||
		form->indnkeyatts != nkeys || RelationGetIndexPredicate(index) != NIL)
		return false;
	for (int i = 0; i < nkeys; i++)
		if (form->indkey.values[i] != keys[i] || index->rd_indcollation[i] != collations[i] ||
			get_op_opfamily_strategy(operators[i], index->rd_opfamily[i]) != BTEqualStrategyNumber)
			return false;
	return true;
}

static void
fill_key_column(KeyColumn *column, Relation relation, AttrNumber attnum, Oid operator,
				Oid collation, MemoryContext context)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(relation), attnum - 1);
	TypeCacheEntry *type = lookup_type_cache(attribute->atttypid, TYPECACHE_CMP_PROC);
	RegProcedure hash;
	RegProcedure unused;

	column->attnum = attnum;
	column->type = attribute->atttypid;
	column->collation = collation;
	column->typlen = attribute->attlen;
	column->typbyval = attribute->attbyval;
	column->hashable = op_hashjoinable(operator, attribute->atttypid) &&
					   get_op_hash_functions(operator, & hash, &unused);
	fmgr_info_cxt(get_opcode(operator), &column->eq, context);
	if (column->hashable)
		fmgr_info_cxt(hash, &column->hash, context);
	else if (OidIsValid(type->cmp_proc))
		fmgr_info_cxt(type->cmp_proc, &column->cmp, context);
	else
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("could not find a comparison function for type %s",
							   format_type_be(attribute->atttypid))));
}

static void
fill_keys(TargetInfo *info, Relation relation, int nkeys, const AttrNumber *keys,
		  const Oid *operators, const Oid *collations)
{
	info->nkeys = nkeys;
	info->keys = MemoryContextAllocZero(info->context, sizeof(KeyColumn) * Max(nkeys, 1));
	info->scankeys = MemoryContextAllocZero(info->context, sizeof(ScanKeyData) * Max(nkeys, 1));
	for (int i = 0; i < nkeys; i++)
	{
		fill_key_column(&info->keys[i], relation, keys[i], operators[i], collations[i],
						info->context);
		ScanKeyEntryInitializeWithInfo(&info->scankeys[i], 0, i + 1, BTEqualStrategyNumber,
									   InvalidOid, collations[i], &info->keys[i].eq, (Datum) 0);
	}
}

/* Columns of a unique or exclusion index; NULL stands for "may be any". */
static Bitmapset *
index_columns(Relation index, int natts)
{
	Bitmapset *columns = NULL;

	if (RelationGetIndexExpressions(index) != NIL || RelationGetIndexPredicate(index) != NIL)
		return bms_add_range(NULL, 1, natts);
	for (int i = 0; i < index->rd_index->indnkeyatts; i++)
		columns = bms_add_member(columns, index->rd_index->indkey.values[i]);
	return columns;
}

static void
scan_indexes(TargetInfo *info, Relation relation, const AttrNumber *keys, const Oid *operators,
			 const Oid *collations)
{
	ListCell *lc;

	foreach (lc, RelationGetIndexList(relation))
	{
		Relation index = index_open(lfirst_oid(lc), AccessShareLock);
		bool is_identity = false;

		if (!OidIsValid(info->index_relid) && index->rd_rel->relam == BTREE_AM_OID)
		{
			if (info->identity == PGT_IDENTITY_KEY)
			{
				info->by_hash = is_key_hash_index(index, info->nkeys, keys);
				is_identity = info->by_hash ||
							  is_key_index(index, info->nkeys, keys, operators, collations);
			}
			else if (info->identity == PGT_IDENTITY_ROW)
				is_identity = is_hash_index(index);
		}
		if (is_identity)
			info->index_relid = lfirst_oid(lc);
		else if (index->rd_index->indisunique || index->rd_index->indisexclusion)
		{
			MemoryContext old = MemoryContextSwitchTo(info->context);

			info->other_unique = true;
			info->unique_columns = bms_join(
				info->unique_columns,
				index_columns(index, RelationGetNumberOfAttributes(relation)));
			MemoryContextSwitchTo(old);
		}
		index_close(index, AccessShareLock);
	}
}

/* Prepares hash_record_extended(ROW(columns), 0), and a scan key for it. */
static TupleDesc
fill_hash(TargetInfo *info, Relation relation, int ncolumns, const KeyColumn *columns,
		  ScanKeyData *scankeys)
{
	MemoryContext old = MemoryContextSwitchTo(info->context);
	TupleDesc desc = CreateTemplateTupleDesc(ncolumns);

	for (int i = 0; i < ncolumns; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(relation),
													columns[i].attnum - 1);

		TupleDescInitEntry(desc, i + 1, NULL, attribute->atttypid, attribute->atttypmod, 0);
		TupleDescInitEntryCollation(desc, i + 1, attribute->attcollation);
	}
	desc = BlessTupleDesc(desc);
	fmgr_info_cxt(F_HASH_RECORD_EXTENDED, &info->key_hash, info->context);
	ScanKeyEntryInitialize(&scankeys[0], 0, 1, BTEqualStrategyNumber, InvalidOid, InvalidOid,
						   F_INT8EQ, (Datum) 0);
	MemoryContextSwitchTo(old);
	return desc;
}

/* Does a cached entry still describe the identity that is asked for? */
static bool
is_current(const TargetInfo *info, PgtIdentity identity, int nkeys, const AttrNumber *keys,
		   const Oid *operators, const Oid *collations)
{
	if (info->stale || info->identity != identity || info->nkeys != nkeys)
		return false;
	for (int i = 0; i < nkeys; i++)
		if (info->keys[i].attnum != keys[i] || info->keys[i].collation != collations[i])
			return false;
	return true;
}

TargetInfo *
pgt_target_get(Relation relation, PgtIdentity identity, int nkeys, const AttrNumber *keys,
			   const Oid *key_operators, const Oid *key_collations)
{
	Oid relid = RelationGetRelid(relation);
	MemoryContext old_context;
	TargetInfo *info;
	bool found;

	init_cache();
	if (identity != PGT_IDENTITY_KEY)
		nkeys = 0;
	info = hash_search(targets, &relid, HASH_ENTER, &found);
	if (!found)
	{
		memset(info, 0, sizeof(TargetInfo));
		info->relid = relid;
		info->stale = true;
	}
	if (is_current(info, identity, nkeys, keys, key_operators, key_collations))
		return info;

	/* Whoever holds the old contents is done with them: see the file's head. */
	old_context = info->context;
	memset(info, 0, sizeof(TargetInfo));
	info->relid = relid;
	info->stale = true;
	if (old_context != NULL)
		MemoryContextDelete(old_context);
	info->context = AllocSetContextCreate(CacheMemoryContext, "pg_trickle target",
										  ALLOCSET_SMALL_SIZES);
	info->stale = false; /* an invalidation from here on counts */
	info->identity = identity;
	fill_keys(info, relation, nkeys, keys, key_operators, key_collations);
	if (identity == PGT_IDENTITY_ROW)
		ScanKeyEntryInitialize(&info->scankeys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
							   InvalidOid, F_INT8EQ, (Datum) 0);
	scan_indexes(info, relation, keys, key_operators, key_collations);
	if (info->by_hash)
		info->key_desc = fill_hash(info, relation, info->nkeys, info->keys, info->scankeys);
	return info;
}

/* Does a btree index begin with these columns, under their equality? */
static bool
is_scope_index(Relation index, const PgtStage *stage)
{
	if (!index->rd_index->indisvalid || index->rd_index->indnkeyatts < stage->nscope ||
		RelationGetIndexPredicate(index) != NIL)
		return false;
	for (int i = 0; i < stage->nscope; i++)
		if (index->rd_index->indkey.values[i] != stage->scope[i] ||
			index->rd_indcollation[i] != stage->scope_collations[i] ||
			get_op_opfamily_strategy(stage->scope_operators[i], index->rd_opfamily[i]) !=
				BTEqualStrategyNumber)
			return false;
	return true;
}

static bool
has_scope(const TargetInfo *info, const PgtStage *stage)
{
	if (info->nscope != stage->nscope)
		return false;
	for (int i = 0; i < info->nscope; i++)
		if (info->scope[i].attnum != stage->scope[i] ||
			info->scope[i].collation != stage->scope_collations[i])
			return false;
	return true;
}

static void
fill_scope(TargetInfo *info, Relation relation, const PgtStage *stage)
{
	ListCell *lc;

	info->scope = MemoryContextAllocZero(info->context, sizeof(KeyColumn) * stage->nscope);
	info->scope_keys = MemoryContextAllocZero(info->context, sizeof(ScanKeyData) * stage->nscope);
	for (int i = 0; i < stage->nscope; i++)
	{
		fill_key_column(&info->scope[i], relation, stage->scope[i], stage->scope_operators[i],
						stage->scope_collations[i], info->context);
		ScanKeyEntryInitializeWithInfo(&info->scope_keys[i], 0, i + 1, BTEqualStrategyNumber,
									   InvalidOid, stage->scope_collations[i], &info->scope[i].eq,
									   (Datum) 0);
	}
	info->nscope = stage->nscope;
	info->scope_index = InvalidOid;
	info->scope_by_hash = false;
	foreach (lc, RelationGetIndexList(relation))
	{
		Relation index = index_open(lfirst_oid(lc), AccessShareLock);

		if (!OidIsValid(info->scope_index) && index->rd_rel->relam == BTREE_AM_OID)
		{
			info->scope_by_hash = is_key_hash_index(index, stage->nscope, stage->scope);
			if (info->scope_by_hash || is_scope_index(index, stage))
				info->scope_index = lfirst_oid(lc);
		}
		index_close(index, AccessShareLock);
	}
	if (info->scope_by_hash)
		info->scope_desc = fill_hash(info, relation, info->nscope, info->scope, info->scope_keys);
}

TargetInfo *
pgt_target_get_stage(Relation relation, const PgtStage *stage)
{
	TargetInfo *info = pgt_target_get(relation, stage->identity, stage->nkeys, stage->keys,
									  stage->key_operators, stage->key_collations);

	if (!has_scope(info, stage))
		fill_scope(info, relation, stage);
	return info;
}

/* A state table begins with the key columns. */
TargetInfo *
pgt_target_get_state(Relation relation, const PgtStage *stage)
{
	AttrNumber keys[INDEX_MAX_KEYS];

	for (int i = 0; i < stage->nkeys; i++)
		keys[i] = i + 1;
	return pgt_target_get(relation, stage->identity, stage->nkeys, keys, stage->key_operators,
						  stage->key_collations);
}
