/*
 * key.c: the identity of a stage's rows.
 *
 * Groups and DISTINCT rows are identified by their keys. A row of joined
 * tables is identified by the unique keys of the tables that determine it, if
 * these are in the output: a table whose unique key is equated to columns of
 * tables already determined adds nothing. Everything else is identified by the
 * whole row.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/nbtree.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "access/transam.h"
#include "catalog/pg_index.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/comment.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "pgt_compat.h"
#include "pgt_stream_table.h"

#include "delta_internal.h"

typedef struct Column
{
	int leaf; /* 0: none, -1: a constant */
	AttrNumber attno;
} Column;

/* to = from holds for every row in which `to` is present. */
typedef struct Equality
{
	Column from;
	Column to;
	bool both_ways; /* and in both directions */
	Oid operator;
	Oid collation;
} Equality;

typedef struct UniqueKey
{
	Oid index; /* 0: the key of a stage */
	int ncolumns;
	AttrNumber columns[INDEX_MAX_KEYS];
	Oid families[INDEX_MAX_KEYS];
	Oid collations[INDEX_MAX_KEYS];
	bool identifies; /* also when columns are NULL */
	bool not_null;
} UniqueKey;

typedef struct Leaf
{
	int number;
	bool nullable;		 /* absent in some rows */
	Bitmapset *not_null; /* columns declared so */
	List *keys;			 /* UniqueKey, the primary key first */
} Leaf;

typedef struct KeyContext
{
	List *stages;
	List *leaves;
	List *equalities;
	bool opaque; /* something without any key is joined */
} KeyContext;

/* Equality and a btree order, so that an index can hold the type. */
bool
pgt_key_column_equality(Oid type, Oid *operator)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_EQ_OPR | TYPECACHE_HASH_PROC |
														TYPECACHE_BTREE_OPFAMILY);

	*operator= entry->eq_opr;
	return OidIsValid(entry->eq_opr);
}

bool
pgt_key_is_not_null(Oid relid, AttrNumber attnum)
{
	HeapTuple tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(attnum));
	bool result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_attribute) GETSTRUCT(tuple))->attnotnull;
	ReleaseSysCache(tuple);
	return result;
}

static bool
has_btree(Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY | TYPECACHE_CMP_PROC);

	return OidIsValid(entry->btree_opf) && OidIsValid(entry->cmp_proc);
}

/* The column of a leaf that an expression of a query is, through subqueries. */
static Column
resolve_column(Query *query, Node *expr)
{
	Column none = {0, 0};
	Var *var;
	RangeTblEntry *rte;

	while (IsA(expr, RelabelType))
		expr = (Node *) ((RelabelType *) expr)->arg;
	if (IsA(expr, Const))
		return (Column){-1, 0};
	if (!IsA(expr, Var) || ((Var *) expr)->varlevelsup != 0 || ((Var *) expr)->varattno <= 0)
		return none;
	var = (Var *) expr;
	rte = rt_fetch(var->varno, query->rtable);
	if (rte->rtekind == RTE_RELATION)
		return (Column){pgt_tree_leaf(rte), var->varattno};
	if (rte->rtekind == RTE_SUBQUERY && rte->subquery->setOperations == NULL)
		return resolve_column(
			rte->subquery,
			(Node *) list_nth_node(TargetEntry, pgt_tree_outputs(rte->subquery), var->varattno - 1)
				->expr);
	return none;
}

static void
add_equality(KeyContext *context, Column from, Column to, bool both_ways, OpExpr *op)
{
	Equality *equality;

	if (from.leaf == 0 || to.leaf <= 0)
		return;
	equality = palloc(sizeof(Equality));
	equality->from = from;
	equality->to = to;
	equality->both_ways = both_ways;
	equality->operator= op->opno;
	equality->collation = op->inputcollid;
	context->equalities = lappend(context->equalities, equality);
}

/* Conditions col = col; of an outer join only towards its nullable entries. */
static void
add_conditions(KeyContext *context, Query *query, Node *quals, const Bitmapset *towards)
{
	ListCell *lc;

	foreach (lc, pgt_tree_conjuncts(quals))
	{
		OpExpr *op = lfirst(lc);
		Node *left;
		Node *right;

		if (!IsA(op, OpExpr) || list_length(op->args) != 2)
			continue;
		left = linitial(op->args);
		right = lsecond(op->args);
		if (!op_mergejoinable(op->opno, exprType(left)))
			continue;
		if (towards == NULL)
		{
			add_equality(context, resolve_column(query, left), resolve_column(query, right), true,
						 op);
			add_equality(context, resolve_column(query, right), resolve_column(query, left), true,
						 op);
			continue;
		}
		if (bms_is_subset(pull_varnos(NULL, right), towards))
			add_equality(context, resolve_column(query, left), resolve_column(query, right), false,
						 op);
		if (bms_is_subset(pull_varnos(NULL, left), towards))
			add_equality(context, resolve_column(query, right), resolve_column(query, left), false,
						 op);
	}
}

static UniqueKey *
key_of_index(Relation relation, Relation index)
{
	Form_pg_index form = index->rd_index;
	UniqueKey *key;

	if (!form->indisunique || !form->indimmediate || !form->indisvalid ||
		RelationGetIndexPredicate(index) != NIL || RelationGetIndexExpressions(index) != NIL)
		return NULL;
	key = palloc0(sizeof(UniqueKey));
	key->index = RelationGetRelid(index);
	key->ncolumns = form->indnkeyatts;
	key->not_null = true;
	for (int i = 0; i < key->ncolumns; i++)
	{
		key->columns[i] = form->indkey.values[i];
		key->families[i] = index->rd_opfamily[i];
		key->collations[i] = index->rd_indcollation[i];
		if (key->columns[i] <= 0)
			return NULL;
		key->not_null = key->not_null &&
						TupleDescAttr(RelationGetDescr(relation), key->columns[i] - 1)->attnotnull;
	}
	key->identifies = key->not_null || form->indnullsnotdistinct;
	return key;
}

/*
 * The key of a stream table whose values became too wide for a unique index: an
 * index on their hash stands in for it, and refreshes keep it unique.
 */
static UniqueKey *
key_of_hash_index(Relation relation, Relation index)
{
	List *expressions = RelationGetIndexExpressions(index);
	FuncExpr *call = list_length(expressions) == 1 ? linitial(expressions) : NULL;
	char *comment;
	List *columns;
	UniqueKey *key;
	ListCell *lc;

	if (call == NULL || !IsA(call, FuncExpr) || call->funcid != F_HASH_RECORD_EXTENDED ||
		!IsA(linitial(call->args), RowExpr) || !index->rd_index->indisvalid ||
		RelationGetIndexPredicate(index) != NIL)
		return NULL;
	comment = GetComment(RelationGetRelid(index), RelationRelationId, 0);
	if (comment == NULL || strcmp(comment, PGT_IDENTITY_COMMENT) != 0 ||
		pgt_stream_table_find(RelationGetRelid(relation)) == NULL)
		return NULL;
	columns = linitial_node(RowExpr, call->args)->args;
	key = palloc0(sizeof(UniqueKey));
	key->index = RelationGetRelid(index);
	key->ncolumns = list_length(columns);
	key->not_null = true;
	key->identifies = true;
	foreach (lc, columns)
	{
		Var *var = lfirst(lc);
		int i = foreach_current_index(lc);

		if (!IsA(var, Var) || var->varattno <= 0)
			return NULL;
		key->columns[i] = var->varattno;
		key->families[i] = lookup_type_cache(var->vartype, TYPECACHE_BTREE_OPFAMILY)->btree_opf;
		key->collations[i] = var->varcollid;
		key->not_null = key->not_null &&
						TupleDescAttr(RelationGetDescr(relation), var->varattno - 1)->attnotnull;
	}
	return key;
}

static Bitmapset *
not_null_columns(Oid relid)
{
	Relation relation = relation_open(relid, AccessShareLock);
	TupleDesc desc = RelationGetDescr(relation);
	Bitmapset *columns = NULL;

	for (int i = 0; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->attnotnull)
			columns = bms_add_member(columns, i + 1);
	relation_close(relation, AccessShareLock);
	return columns;
}

static List *
keys_of_relation(Oid relid)
{
	Relation relation = relation_open(relid, AccessShareLock);
	List *keys = NIL;
	ListCell *lc;

	foreach (lc, RelationGetIndexList(relation))
	{
		Relation index = index_open(lfirst_oid(lc), AccessShareLock);
		UniqueKey *key = key_of_index(relation, index);
		bool first = lfirst_oid(lc) == relation->rd_pkindex;

		/* It takes the place of the first one. */
		if (key == NULL && !OidIsValid(relation->rd_pkindex))
		{
			key = key_of_hash_index(relation, index);
			first = true;
		}
		if (key != NULL)
			keys = first ? lcons(key, keys) : lappend(keys, key);
		index_close(index, AccessShareLock);
	}
	relation_close(relation, AccessShareLock);
	return keys;
}

/* Columns of a key without nulls, whose equality is the server's own, and its index. */
List *
pgt_key_of_rows(Oid relid, Oid *index)
{
	ListCell *lc;

	*index = InvalidOid;
	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE && has_subclass(relid))
		return NIL;
	foreach (lc, keys_of_relation(relid))
	{
		UniqueKey *key = lfirst(lc);
		List *columns = NIL;

		for (int i = 0; key->not_null && i < key->ncolumns; i++)
		{
			Oid type;
			int32 typmod;
			Oid collation;
			Oid operator;

			get_atttypetypmodcoll(relid, key->columns[i], &type, &typmod, &collation);
			if (type < FirstNormalObjectId && collation == key->collations[i] &&
				pgt_key_column_equality(type, &operator))
				columns = lappend_int(columns, key->columns[i]);
		}
		if (columns == NIL || list_length(columns) < key->ncolumns)
			continue;
		*index = key->index;
		return columns;
	}
	return NIL;
}

/* Do equal values of the type look the same, too, so that none of them has to be chosen? */
bool
pgt_key_is_image(Oid type, int32 typmod, Oid collation)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY);
	Oid function;

	if (!OidIsValid(entry->btree_opf) || (getBaseType(type) == BPCHAROID && typmod < 0))
		return false;
	function = get_opfamily_proc(entry->btree_opf, entry->btree_opintype, entry->btree_opintype,
								 BTEQUALIMAGE_PROC);
	return OidIsValid(function) &&
		   DatumGetBool(
			   OidFunctionCall1Coll(function, collation, ObjectIdGetDatum(entry->btree_opintype)));
}

List *
pgt_key_primary_columns(Oid relid)
{
	Relation relation = relation_open(relid, AccessShareLock);
	Bitmapset *columns = RelationGetIndexAttrBitmap(relation, INDEX_ATTR_BITMAP_PRIMARY_KEY);
	List *result = NIL;
	int column = -1;

	while ((column = bms_next_member(columns, column)) >= 0)
		result = lappend_int(result, column + FirstLowInvalidHeapAttributeNumber);
	relation_close(relation, AccessShareLock);
	return result;
}

static List *
keys_of_stage(const PgtStage *stage)
{
	UniqueKey *key = palloc0(sizeof(UniqueKey));
	List *outputs = pgt_tree_outputs(stage->query);

	if (stage->identity == PGT_IDENTITY_ROW || stage->nkeys > INDEX_MAX_KEYS)
		return NIL;
	key->ncolumns = stage->nkeys;
	for (int i = 0; i < stage->nkeys; i++)
	{
		Node *expr = (Node *) list_nth_node(TargetEntry, outputs, stage->keys[i] - 1)->expr;

		key->columns[i] = stage->keys[i];
		key->families[i] = lookup_type_cache(exprType(expr), TYPECACHE_BTREE_OPFAMILY)->btree_opf;
		key->collations[i] = exprCollation(expr);
	}
	key->identifies = true;
	key->not_null = stage->keys_not_null;
	return list_make1(key);
}

/* A subquery that gives at most one row per row of what it refers to. */
static bool
is_one_row(Query *query)
{
	Const *limit = (Const *) eval_const_expressions(NULL, copyObject(query->limitCount));

	if (query->hasTargetSRFs)
		return false;
	return (query->hasAggs && query->groupClause == NIL && query->groupingSets == NIL) ||
		   (limit != NULL && IsA(limit, Const) && !limit->constisnull &&
			query->limitOption == LIMIT_OPTION_COUNT && DatumGetInt64(limit->constvalue) <= 1);
}

static void walk_node(KeyContext *context, Query *query, Node *node, bool nullable);

static void
walk_entry(KeyContext *context, Query *query, int rtindex, bool nullable)
{
	RangeTblEntry *rte = rt_fetch(rtindex, query->rtable);
	int stage = pgt_stage_of_entry(rte);

	if (rte->rtekind == RTE_RELATION)
	{
		Leaf *leaf = palloc0(sizeof(Leaf));

		leaf->number = pgt_tree_leaf(rte);
		leaf->nullable = nullable;
		if (stage == 0)
			leaf->not_null = not_null_columns(rte->relid);
		/* Uniqueness in each child says nothing about the whole of an inheritance tree. */
		if (stage > 0)
			leaf->keys = keys_of_stage(list_nth(context->stages, stage - 1));
		else if (rte->relkind == RELKIND_PARTITIONED_TABLE || !rte->inh ||
				 !has_subclass(rte->relid))
			leaf->keys = keys_of_relation(rte->relid);
		context->leaves = lappend(context->leaves, leaf);
	}
	else if (rte->rtekind == RTE_SUBQUERY &&
			 (pgt_flatten_is_dependent(rte) || pgt_tree_is_function(rte)))
		context->opaque = context->opaque || !is_one_row(rte->subquery);
	else if (rte->rtekind == RTE_SUBQUERY && rte->subquery->setOperations == NULL)
		walk_node(context, rte->subquery, (Node *) rte->subquery->jointree, nullable);
	else
		context->opaque = true;
}

static void
walk_node(KeyContext *context, Query *query, Node *node, bool nullable)
{
	ListCell *lc;

	if (IsA(node, RangeTblRef))
		walk_entry(context, query, ((RangeTblRef *) node)->rtindex, nullable);
	else if (IsA(node, FromExpr))
	{
		foreach (lc, ((FromExpr *) node)->fromlist)
			walk_node(context, query, lfirst(lc), nullable);
		add_conditions(context, query, ((FromExpr *) node)->quals, NULL);
	}
	else
	{
		JoinExpr *join = castNode(JoinExpr, node);
		bool left_nullable = join->jointype == JOIN_RIGHT || join->jointype == JOIN_FULL;
		bool right_nullable = join->jointype == JOIN_LEFT || join->jointype == JOIN_FULL;

		walk_node(context, query, join->larg, nullable || left_nullable);
		walk_node(context, query, join->rarg, nullable || right_nullable);
		if (join->jointype == JOIN_INNER)
			add_conditions(context, query, join->quals, NULL);
		else if (join->jointype == JOIN_LEFT)
			add_conditions(context, query, join->quals, pgt_tree_rtindex_set(join->rarg));
		else if (join->jointype == JOIN_RIGHT)
			add_conditions(context, query, join->quals, pgt_tree_rtindex_set(join->larg));
	}
}

/* Is a column equated, under the key's own equality, to something determined? */
static bool
is_equated(KeyContext *context, int leaf, const UniqueKey *key, int column,
		   const Bitmapset *determined)
{
	ListCell *lc;

	foreach (lc, context->equalities)
	{
		Equality *equality = lfirst(lc);

		if (equality->to.leaf == leaf && equality->to.attno == key->columns[column] &&
			(equality->from.leaf < 0 || bms_is_member(equality->from.leaf, determined)) &&
			equality->collation == key->collations[column] &&
			list_member_oid(get_mergejoin_opfamilies(equality->operator), key->families[column]))
			return true;
	}
	return false;
}

/* Adds every leaf that follows from those given; the indexes used go to *indexes. */
static Bitmapset *
close_over(KeyContext *context, Bitmapset *determined, List **indexes)
{
	bool grown = true;

	while (grown)
	{
		ListCell *lc;

		grown = false;
		foreach (lc, context->leaves)
		{
			Leaf *leaf = lfirst(lc);
			ListCell *lk;

			if (bms_is_member(leaf->number, determined))
				continue;
			foreach (lk, leaf->keys)
			{
				UniqueKey *key = lfirst(lk);
				bool all = true;

				for (int i = 0; i < key->ncolumns; i++)
					all = all && is_equated(context, leaf->number, key, i, determined);
				if (!all)
					continue;
				determined = bms_add_member(determined, leaf->number);
				if (OidIsValid(key->index))
					*indexes = list_append_unique_oid(*indexes, key->index);
				grown = true;
				break;
			}
		}
	}
	return determined;
}

/* The output column (1-based) that shows a column of a leaf, or 0. */
static AttrNumber
find_output(KeyContext *context, PgtStage *stage, Column column)
{
	AttrNumber number = 0;
	ListCell *lc;
	ListCell *le;

	foreach (lc, pgt_tree_outputs(stage->query))
	{
		Node *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;
		Column shown = resolve_column(stage->query, expr);

		number++;
		if (shown.leaf == column.leaf && shown.attno == column.attno)
			return number;
		foreach (le, context->equalities)
		{
			Equality *equality = lfirst(le);
			Oid left;
			Oid right;

			op_input_types(equality->operator, & left, &right);
			if (equality->both_ways && left == right && shown.leaf > 0 &&
				equality->from.leaf == shown.leaf && equality->from.attno == shown.attno &&
				equality->to.leaf == column.leaf && equality->to.attno == column.attno)
				return number;
		}
	}
	return 0;
}

/* Adds the columns of one of the leaf's keys; false if no key is in the output. */
static bool
add_leaf_key(KeyContext *context, PgtStage *stage, const Leaf *leaf, List **indexes)
{
	ListCell *lc;

	foreach (lc, leaf->keys)
	{
		UniqueKey *key = lfirst(lc);
		AttrNumber found[INDEX_MAX_KEYS];
		bool all = key->identifies && stage->nkeys + key->ncolumns <= INDEX_MAX_KEYS;

		for (int i = 0; all && i < key->ncolumns; i++)
		{
			found[i] = find_output(context, stage, (Column){leaf->number, key->columns[i]});
			all = found[i] > 0;
		}
		if (!all)
			continue;
		for (int i = 0; i < key->ncolumns; i++)
			stage->keys[stage->nkeys++] = found[i];
		stage->keys_not_null = stage->keys_not_null && key->not_null && !leaf->nullable;
		if (OidIsValid(key->index))
			*indexes = list_append_unique_oid(*indexes, key->index);
		return true;
	}
	return false;
}

static void
remove_duplicate_keys(PgtStage *stage)
{
	int kept = 0;

	for (int i = 0; i < stage->nkeys; i++)
	{
		bool seen = false;

		for (int j = 0; j < kept; j++)
			seen = seen || stage->keys[j] == stage->keys[i];
		if (!seen)
			stage->keys[kept++] = stage->keys[i];
	}
	stage->nkeys = kept;
}

/* Is an output a column that no row can have as NULL? */
static bool
is_not_null(KeyContext *context, PgtStage *stage, Node *expr)
{
	Column column = resolve_column(stage->query, expr);
	ListCell *lc;

	foreach (lc, context->leaves)
	{
		Leaf *leaf = lfirst(lc);

		if (leaf->number == column.leaf)
			return !leaf->nullable && bms_is_member(column.attno, leaf->not_null);
	}
	return false;
}

/* Group keys and distinct rows make a primary key if no column of them can be NULL. */
static bool
all_keys_not_null(PgtStage *stage, PgtDefinition *definition)
{
	KeyContext context = {definition->stages, NIL, NIL, false};
	List *outputs = pgt_tree_outputs(stage->query);

	walk_node(&context, stage->query, (Node *) stage->query->jointree, false);
	for (int i = 0; i < stage->nkeys; i++)
		if (!is_not_null(&context, stage,
						 (Node *) list_nth_node(TargetEntry, outputs, stage->keys[i] - 1)->expr))
			return false;
	return stage->nkeys > 0;
}

/* Unique keys of the tables that determine a row; false if they are not all shown. */
static bool
find_joined_key(PgtStage *stage, PgtDefinition *definition)
{
	KeyContext context = {definition->stages, NIL, NIL, false};
	Bitmapset *required = NULL;
	List *indexes = NIL;
	ListCell *lc;

	if (stage->query->setOperations != NULL)
		return false;
	walk_node(&context, stage->query, (Node *) stage->query->jointree, false);
	if (context.opaque || context.leaves == NIL)
		return false;
	foreach (lc, context.leaves)
		required = bms_add_member(required, ((Leaf *) lfirst(lc))->number);
	foreach (lc, context.leaves)
	{
		Bitmapset *fewer = bms_del_member(bms_copy(required), ((Leaf *) lfirst(lc))->number);
		List *unused = NIL;

		if (bms_num_members(close_over(&context, bms_copy(fewer), &unused)) ==
			list_length(context.leaves))
			required = fewer;
	}
	(void) close_over(&context, bms_copy(required), &indexes);
	stage->nkeys = 0;
	stage->keys_not_null = true;
	foreach (lc, context.leaves)
		if (bms_is_member(((Leaf *) lfirst(lc))->number, required) &&
			!add_leaf_key(&context, stage, lfirst(lc), &indexes))
			return false;
	remove_duplicate_keys(stage);
	if (stage->nkeys == 0)
		return false;
	definition->constraints = list_concat_unique_oid(definition->constraints, indexes);
	return true;
}

/* Does a query give one row at most, whatever is in its tables? Through the indexes added. */
bool
pgt_key_is_single_row(Query *query, List **indexes)
{
	KeyContext context = {NIL, NIL, NIL, false};

	pgt_tree_number_leaves(query);
	walk_node(&context, query, (Node *) query->jointree, false);
	return !context.opaque && context.leaves != NIL &&
		   bms_num_members(close_over(&context, NULL, indexes)) == list_length(context.leaves);
}

/* Operators and collations of the key columns; a reason if one cannot be indexed. */
static const char *
describe_keys(PgtStage *stage)
{
	List *outputs = pgt_tree_outputs(stage->query);

	for (int i = 0; i < stage->nkeys; i++)
	{
		TargetEntry *tle = list_nth_node(TargetEntry, outputs, stage->keys[i] - 1);
		Oid type = exprType((Node *) tle->expr);

		if (!has_btree(type))
			return psprintf("column \"%s\" of type %s has no btree order to identify its rows by",
							tle->resname, format_type_be(type));
		(void) pgt_key_column_equality(type, &stage->key_operators[i]);
		stage->key_collations[i] = exprCollation((Node *) tle->expr);
	}
	return NULL;
}

static void
use_all_columns(PgtStage *stage)
{
	stage->nkeys = 0;
	for (int i = 1; i <= list_length(pgt_tree_outputs(stage->query)); i++)
		stage->keys[stage->nkeys++] = i;
}

/* Sets identity and keys; a reason if the rows cannot be identified at all. */
const char *
pgt_key_find_identity(PgtStage *stage, PgtDefinition *definition)
{
	Query *query = stage->query;
	int ncolumns = list_length(pgt_tree_outputs(query));
	int max_keys = Max(Max(ncolumns, list_length(query->groupClause)), INDEX_MAX_KEYS);
	ListCell *lc;

	stage->keys = palloc0(sizeof(AttrNumber) * max_keys);
	stage->key_operators = palloc0(sizeof(Oid) * max_keys);
	stage->key_collations = palloc0(sizeof(Oid) * max_keys);
	stage->nkeys = 0;
	stage->keys_not_null = false;
	stage->identity = PGT_IDENTITY_KEY;
	if (pgt_stage_is_group(query))
	{
		foreach (lc, query->groupClause)
			stage->keys[stage->nkeys++] =
				get_sortgroupclause_tle(lfirst(lc), query->targetList)->resno;
		remove_duplicate_keys(stage);
		if (stage->nkeys == 0)
			stage->identity = PGT_IDENTITY_SINGLE;
	}
	else if (query->hasDistinctOn)
	{
		foreach (lc, query->distinctClause)
			stage->keys[stage->nkeys++] =
				get_sortgroupclause_tle(lfirst(lc), query->targetList)->resno;
		remove_duplicate_keys(stage);
	}
	else if (query->distinctClause != NIL)
		use_all_columns(stage);
	else if (!find_joined_key(stage, definition))
	{
		stage->identity = PGT_IDENTITY_ROW;
		stage->keys_not_null = false;
		stage->nkeys = 0;
		return NULL;
	}
	if (pgt_stage_is_group(query) || query->distinctClause != NIL)
		stage->keys_not_null = all_keys_not_null(stage, definition);
	if (stage->nkeys > INDEX_MAX_KEYS)
		return psprintf("rows are identified by %d columns, more than an index can have",
						stage->nkeys);
	return describe_keys(stage);
}
