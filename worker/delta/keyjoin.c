/*
 * keyjoin.c: what the planner believes about joins by keys of several columns.
 *
 * A row meets at most one row of a table whose unique key it is equated with.
 * For a key of one column the planner knows that; of several, it multiplies
 * their selectivities as if they were independent, and so takes four hundred rows for
 * one, after which every join looks cheap. Only for foreign keys it knows
 * better (get_foreign_key_join_selectivity in src/backend/optimizer/path/costsize.c).
 * So here it is told of one wherever a query equates all columns of a unique index
 * with columns of one other entry, which may be a change set. Nothing but
 * estimates depends on it: results do not, if no such row exists.
 */
#include "postgres.h"

#include "nodes/nodeFuncs.h"
#include "nodes/pathnodes.h"
#include "optimizer/optimizer.h"
#include "utils/lsyscache.h"

#include "delta_internal.h"

/* One side of an equality, as a column; NULL if it is none of this query level. */
static Var *
side_column(Node *side)
{
	while (IsA(side, RelabelType))
		side = (Node *) ((RelabelType *) side)->arg;
	if (!IsA(side, Var) || ((Var *) side)->varlevelsup > 0 || ((Var *) side)->varattno <= 0)
		return NULL;
	return (Var *) side;
}

/* The conditions that hold for all rows of a FROM clause; the planner keeps them as lists. */
static List *
inner_conditions(Node *node)
{
	List *conditions;

	if (IsA(node, FromExpr))
	{
		FromExpr *from = (FromExpr *) node;
		ListCell *lc;

		conditions = list_copy((List *) from->quals);
		foreach (lc, from->fromlist)
			conditions = list_concat(conditions, inner_conditions(lfirst(lc)));
		return conditions;
	}
	if (!IsA(node, JoinExpr) || ((JoinExpr *) node)->jointype != JOIN_INNER)
		return NIL;
	conditions = list_copy((List *) ((JoinExpr *) node)->quals);
	conditions = list_concat(conditions, inner_conditions(((JoinExpr *) node)->larg));
	return list_concat(conditions, inner_conditions(((JoinExpr *) node)->rarg));
}

/* The column of entry `other` that the conditions equate with a column; 0 if there is none. */
static AttrNumber
equated_column(List *conditions, Index rtindex, AttrNumber attnum, Index other, Oid *operator)
{
	ListCell *lc;

	foreach (lc, conditions)
	{
		OpExpr *op = lfirst(lc);

		if (!IsA(op, OpExpr) || list_length(op->args) != 2 ||
			!op_mergejoinable(op->opno, exprType(linitial(op->args))))
			continue;
		for (int side = 0; side < 2; side++)
		{
			Var *column = side_column(list_nth(op->args, side));
			Var *with = side_column(list_nth(op->args, 1 - side));

			if (column == NULL || with == NULL || column->varno != rtindex ||
				column->varattno != attnum || with->varno != other)
				continue;
			*operator= side == 0 ? op->opno : get_commutator(op->opno);
			return with->varattno;
		}
	}
	return 0;
}

static void
add_join(PlannerInfo *root, List *conditions, const RelOptInfo *rel, const IndexOptInfo *index,
		 Index other)
{
	ForeignKeyOptInfo *key = makeNode(ForeignKeyOptInfo);

	key->con_relid = other;
	key->ref_relid = rel->relid;
	key->nkeys = index->nkeycolumns;
	for (int i = 0; i < index->nkeycolumns; i++)
	{
		key->confkey[i] = index->indexkeys[i];
		key->conkey[i] = equated_column(conditions, rel->relid, key->confkey[i], other,
										&key->conpfeqop[i]);
		if (key->conkey[i] == 0)
			return;
	}
	root->fkey_list = lappend(root->fkey_list, key);
}

static bool
is_composite_key(const IndexOptInfo *index)
{
	if (!index->unique || index->indpred != NIL || index->nkeycolumns < 2)
		return false;
	for (int i = 0; i < index->nkeycolumns; i++)
		if (index->indexkeys[i] <= 0)
			return false;
	return true;
}

/* For get_relation_info_hook: `rel` has its indexes, and no join has been looked at. */
void
pgt_keyjoin_add(PlannerInfo *root, RelOptInfo *rel)
{
	List *conditions = NIL;
	ListCell *lc;

	foreach (lc, rel->indexlist)
	{
		IndexOptInfo *index = lfirst(lc);

		if (!is_composite_key(index))
			continue;
		if (conditions == NIL)
			conditions = inner_conditions((Node *) root->parse->jointree);
		for (Index other = 1; other <= list_length(root->parse->rtable); other++)
			if (other != rel->relid)
				add_join(root, conditions, rel, index, other);
	}
}
