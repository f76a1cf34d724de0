/*
 * inline.c: reading stages that are not stored.
 *
 * Until a statement is written out, such a stage is an entry like a table, so
 * that terms and fragments treat it as one; the entry carries the stage's query
 * in its field subquery, which means nothing for a relation. Here, at last, the
 * query takes the entry's place.
 *
 * The server does not pass join conditions into a subquery that groups, so a
 * small delta would make it compute all groups. Conditions that equate a key
 * column with what stands before the entry are therefore repeated inside:
 *
 *	  LATERAL (SELECT c1, c2 FROM (stage's query) WHERE c1 = delta.c3 OFFSET 0)
 *
 * OFFSET 0 keeps the levels apart; from the inner one the server does pass them
 * down to the tables. The conditions stay where they were, too.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"

#include "delta_internal.h"

/* Does the entry read a stage that is not stored, in whatever state? */
static bool
is_unstored(const RangeTblEntry *rte)
{
	return (rte->rtekind == RTE_RELATION || rte->rtekind == RTE_CTE) && rte->subquery != NULL;
}

/* Do conditions on this output column reach the rows that the query reads? */
bool
pgt_inline_is_key(const Query *query, AttrNumber column)
{
	TargetEntry *tle = get_tle_by_resno(query->targetList, column);

	if (tle == NULL)
		return false;
	if (query->distinctClause != NIL && !query->hasDistinctOn)
		return !pgt_stage_is_group(query);
	return tle->ressortgroupref > 0 && query->groupingSets == NIL &&
		   get_sortgroupref_clause_noerr(tle->ressortgroupref, query->groupClause) != NULL;
}

/* The column of the entry that one side of an equality is, and the other side. */
bool
pgt_inline_equates(Node *qual, int rtindex, AttrNumber *column, Node **other)
{
	OpExpr *op = (OpExpr *) qual;

	if (!IsA(qual, OpExpr) || list_length(op->args) != 2 ||
		!op_mergejoinable(op->opno, exprType(linitial(op->args))))
		return false;
	for (int side = 0; side < 2; side++)
	{
		Node *expr = list_nth(op->args, side);
		Var *var;

		*other = list_nth(op->args, 1 - side);
		if (IsA(expr, RelabelType))
			expr = (Node *) ((RelabelType *) expr)->arg;
		var = (Var *) expr;
		if (!IsA(expr, Var) || var->varno != rtindex || var->varlevelsup != 0 ||
			var->varattno <= 0 || bms_is_member(rtindex, pull_varnos(NULL, *other)))
			continue;
		/* The columns' equality, under another collation, is another one. */
		if (OidIsValid(var->varcollid) && op->inputcollid != var->varcollid)
			continue;
		*column = var->varattno;
		return true;
	}
	return false;
}

/* The column of the stage; those of an old state are pgt_w, c1, c2, ... */
static AttrNumber
stage_column(const RangeTblEntry *rte, AttrNumber attno)
{
	if (rte->rtekind != RTE_CTE)
		return attno;
	return atoi(strVal(list_nth(rte->eref->colnames, attno - 1)) + 1);
}

/* Conditions that can be repeated inside; NIL if none of them finds rows by a key. */
static List *
inner_conditions(const RangeTblEntry *rte, int rtindex, Bitmapset *visible, List *quals)
{
	List *conditions = NIL;
	bool found = false;
	ListCell *lc;

	foreach (lc, quals)
	{
		Node *qual = lfirst(lc);
		Bitmapset *varnos = pull_varnos(NULL, qual);
		AttrNumber column;
		Node *other;
		bool finds;

		if (!bms_is_member(rtindex, varnos) || checkExprHasSubLink(qual) ||
			contain_volatile_functions(qual))
			continue;
		if (bms_membership(varnos) == BMS_SINGLETON && !contain_vars_of_level(qual, 1))
		{
			conditions = lappend(conditions, qual);
			continue;
		}
		finds = pgt_inline_equates(qual, rtindex, &column, &other) &&
				bms_is_subset(pull_varnos(NULL, other), visible) &&
				pgt_inline_is_key(rte->subquery, stage_column(rte, column));
		if (finds)
			conditions = lappend(conditions, qual);
		found = found || finds;
	}
	return found ? conditions : NIL;
}

typedef struct MoveContext
{
	int rtindex;
} MoveContext;

/* Columns of the entry, one level up by now, become columns of entry 1 of the inner query. */
static bool
move_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var *var = (Var *) node;

		if (var->varlevelsup == 1 && var->varno == ((MoveContext *) context)->rtindex)
		{
			var->varno = var->varnosyn = 1;
			var->varlevelsup = 0;
		}
		return false;
	}
	return expression_tree_walker(node, move_walker, context);
}

static void
become_subquery(RangeTblEntry *rte, Query *query)
{
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = query;
	rte->relid = InvalidOid;
	rte->relkind = 0;
	rte->inh = false;
	rte->ctename = NULL;
	rte->alias = makeAlias(rte->eref->aliasname, copyObject(rte->eref->colnames));
}

/* The whole stage; old states say their stage's query in their WITH item. */
static void
read_whole(RangeTblEntry *rte)
{
	if (rte->rtekind == RTE_CTE)
		rte->subquery = NULL;
	else
		become_subquery(rte, rte->subquery);
}

static void
read_by_key(RangeTblEntry *rte, int rtindex, List *conditions)
{
	Query *query = makeNode(Query);
	RangeTblEntry *inner = copyObject(rte);
	RangeTblRef *ref = makeNode(RangeTblRef);
	MoveContext context = {rtindex};
	Node *quals = (Node *) make_ands_explicit(copyObject(conditions));
	ListCell *lc;

	read_whole(inner);
	query->commandType = CMD_SELECT;
	query->querySource = QSRC_ORIGINAL;
	query->canSetTag = true;
	query->rtable = list_make1(inner);
	ref->rtindex = 1;
	foreach (lc, rte->eref->colnames)
	{
		AttrNumber number = foreach_current_index(lc) + 1;

		/* Only names and positions matter to the deparser, not types. */
		query->targetList = lappend(
			query->targetList,
			makeTargetEntry((Expr *) makeVar(1, number, INT4OID, -1, InvalidOid, 0), number,
							pstrdup(strVal(lfirst(lc))), false));
	}
	IncrementVarSublevelsUp(quals, 1, 0);
	(void) move_walker(quals, &context);
	query->jointree = makeFromExpr(list_make1(ref), quals);
	query->limitOffset = (Node *) makeConst(INT8OID, -1, InvalidOid, sizeof(int64),
											Int64GetDatum(0), false, FLOAT8PASSBYVAL);
	become_subquery(rte, query);
	rte->lateral = true;
}

/* visible: entries that an item at this place may refer to; quals: what holds for its rows. */
static void
read_node(Query *query, Node *node, Bitmapset *visible, List *quals)
{
	ListCell *lc;

	if (IsA(node, RangeTblRef))
	{
		int rtindex = ((RangeTblRef *) node)->rtindex;
		RangeTblEntry *rte = rt_fetch(rtindex, query->rtable);
		List *conditions = NIL;

		if (is_unstored(rte))
			conditions = inner_conditions(rte, rtindex, visible, quals);
		if (conditions != NIL)
			read_by_key(rte, rtindex, conditions);
	}
	else if (IsA(node, FromExpr))
	{
		FromExpr *from = (FromExpr *) node;

		quals = list_concat(list_copy(quals), pgt_tree_conjuncts(from->quals));
		foreach (lc, from->fromlist)
		{
			read_node(query, lfirst(lc), visible, quals);
			visible = bms_union(visible, pgt_tree_rtindex_set(lfirst(lc)));
		}
	}
	else
	{
		JoinExpr *join = castNode(JoinExpr, node);
		List *own = pgt_tree_conjuncts(join->quals);
		List *all = list_concat(list_copy(quals), own);
		bool inner = join->jointype == JOIN_INNER;
		bool right_sees = inner || join->jointype == JOIN_LEFT;

		read_node(query, join->larg, visible,
				  inner							 ? all
				  : join->jointype == JOIN_LEFT	 ? quals
				  : join->jointype == JOIN_RIGHT ? own
												 : NIL);
		if (right_sees)
			visible = bms_union(visible, pgt_tree_rtindex_set(join->larg));
		read_node(query, join->rarg, visible,
				  inner							 ? all
				  : join->jointype == JOIN_LEFT	 ? own
				  : join->jointype == JOIN_RIGHT ? quals
												 : NIL);
	}
}

static bool
read_walker(Node *node, void *context)
{
	ListCell *lc;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query *query = (Query *) node;

		if (*(bool *) context && query->setOperations == NULL)
			read_node(query, (Node *) query->jointree, NULL, NIL);
		foreach (lc, query->rtable)
			if (is_unstored(lfirst(lc)))
				read_whole(lfirst(lc));
		return query_tree_walker(query, read_walker, context, QTW_IGNORE_JOINALIASES);
	}
	return expression_tree_walker(node, read_walker, context);
}

/* Puts the queries of unstored stages in place, by_key where conditions allow it. */
void
pgt_inline_stages(Query *query, bool by_key)
{
	(void) read_walker((Node *) query, &by_key);
}
