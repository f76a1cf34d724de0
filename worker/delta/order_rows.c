/*
 * order_rows.c: how many rows of a FROM item join one row of what stands before it.
 *
 * The planner's own estimates need its own structures, and it knows nothing of
 * deltas and old states, which are read by other names. This is a rough
 * estimate from the statistics of the tables behind: it only has to tell a
 * hundred rows from one, and a condition that leaves one row in twenty from none.
 */
#include "postgres.h"

#include <math.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_index.h"
#include "catalog/pg_statistic.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/plancat.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#include "delta_internal.h"

#define DEFAULT_DISTINCT 200.0
#define SMALL_TABLE_ROWS 1000.0 /* as good without an index as with one */
#define UNSTORED_ROWS 100000.0
#define DELTA_FRACTION 0.01 /* of a table, for deltas */

/* Factors of conditions about which nothing is known. */
#define RANGE_SELECTIVITY 0.33
#define PATTERN_SELECTIVITY 0.05
#define OTHER_SELECTIVITY 0.5

typedef struct OrderIndex
{
	AttrNumber first;
	Bitmapset *columns; /* the key's */
	bool unique;
} OrderIndex;

static bool
is_delta(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_CTE && strncmp(rte->ctename, "pgt_delta_", 10) == 0;
}

/* The number in its table of a column of a delta or old state, whose columns are pgt_w, c1 ... */
static AttrNumber
table_column(const PgtOrderEntry *entry, AttrNumber attno)
{
	const RangeTblEntry *rte = entry->rte;

	if (rte->rtekind != RTE_CTE || attno <= 0)
		return attno;
	return atoi(strVal(list_nth(rte->eref->colnames, attno - 1)) + 1);
}

/* Different values of a column of the table. */
static double
distinct_values(const PgtOrderEntry *entry, AttrNumber attno)
{
	double values = Min(DEFAULT_DISTINCT, entry->rows);
	HeapTuple tuple = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(entry->relid),
									  Int16GetDatum(attno), BoolGetDatum(false));
	ListCell *lc;

	if (!HeapTupleIsValid(tuple))
		tuple = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(entry->relid), Int16GetDatum(attno),
								BoolGetDatum(true));
	if (HeapTupleIsValid(tuple))
	{
		float4 distinct = ((Form_pg_statistic) GETSTRUCT(tuple))->stadistinct;

		if (distinct != 0)
			values = distinct > 0 ? distinct : -distinct * entry->rows;
		ReleaseSysCache(tuple);
	}
	foreach (lc, entry->indexes)
	{
		OrderIndex *index = lfirst(lc);

		if (index->unique && index->first == attno && bms_num_members(index->columns) == 1)
			values = entry->rows;
	}
	return Max(values, 1);
}

/* ---- Conditions of a table alone ---- */

static double
operator_selectivity(const PgtOrderEntry *entry, Oid operator, Node * expr)
{
	double equal = 1 / DEFAULT_DISTINCT;
	RegProcedure estimator = get_oprrest(operator);

	expr = strip_implicit_coercions(expr);
	if (IsA(expr, RelabelType))
		expr = (Node *) ((RelabelType *) expr)->arg;
	if (IsA(expr, Var))
		equal = 1 / distinct_values(entry, table_column(entry, ((Var *) expr)->varattno));
	switch (estimator)
	{
		case F_EQSEL:
			return equal;
		case F_NEQSEL:
			return 1 - equal;
		case F_SCALARLTSEL:
		case F_SCALARLESEL:
		case F_SCALARGTSEL:
		case F_SCALARGESEL:
			return RANGE_SELECTIVITY;
		case F_LIKESEL:
		case F_ICLIKESEL:
		case F_REGEXEQSEL:
		case F_ICREGEXEQSEL:
			return PATTERN_SELECTIVITY;
		case F_NLIKESEL:
		case F_ICNLIKESEL:
		case F_REGEXNESEL:
		case F_ICREGEXNESEL:
			return 1 - PATTERN_SELECTIVITY;
		default:
			return OTHER_SELECTIVITY;
	}
}

static int
array_elements(Node *array)
{
	if (IsA(array, ArrayExpr))
		return list_length(((ArrayExpr *) array)->elements);
	if (IsA(array, Const) && !((Const *) array)->constisnull)
	{
		ArrayType *value = DatumGetArrayTypeP(((Const *) array)->constvalue);

		return ArrayGetNItems(ARR_NDIM(value), ARR_DIMS(value));
	}
	return 10;
}

static double
array_selectivity(const PgtOrderEntry *entry, ScalarArrayOpExpr *op)
{
	double one = operator_selectivity(entry, op->opno, linitial(op->args));
	int elements = array_elements(strip_implicit_coercions(lsecond(op->args)));

	return op->useOr ? Min(1.0, one * elements) : pow(one, elements);
}

static double
condition_selectivity(const PgtOrderEntry *entry, Node *qual)
{
	if (IsA(qual, BoolExpr))
	{
		BoolExpr *expr = (BoolExpr *) qual;
		double result = expr->boolop == OR_EXPR ? 0 : 1;
		ListCell *lc;

		foreach (lc, expr->args)
		{
			double one = condition_selectivity(entry, lfirst(lc));

			if (expr->boolop == OR_EXPR)
				result = Min(1, result + one);
			else
				result *= expr->boolop == NOT_EXPR ? 1 - one : one;
		}
		return result;
	}
	if (IsA(qual, OpExpr) && list_length(((OpExpr *) qual)->args) == 2)
	{
		OpExpr *op = (OpExpr *) qual;
		bool reversed = pull_varnos(NULL, linitial(op->args)) == NULL;

		return operator_selectivity(entry, op->opno,
									reversed ? lsecond(op->args) : linitial(op->args));
	}
	if (IsA(qual, ScalarArrayOpExpr))
		return array_selectivity(entry, (ScalarArrayOpExpr *) qual);
	return OTHER_SELECTIVITY;
}

/* ---- Tables ---- */

static void
add_indexes(PgtOrderEntry *entry, Relation relation)
{
	ListCell *lc;

	foreach (lc, RelationGetIndexList(relation))
	{
		Relation index = index_open(lfirst_oid(lc), AccessShareLock);
		Form_pg_index form = index->rd_index;

		if (form->indisvalid && form->indkey.values[0] != 0)
		{
			OrderIndex *own = palloc0(sizeof(OrderIndex));

			own->first = form->indkey.values[0];
			own->unique = form->indisunique && RelationGetIndexPredicate(index) == NIL;
			for (int i = 0; i < form->indnkeyatts; i++)
			{
				if (form->indkey.values[i] > 0)
					own->columns = bms_add_member(own->columns, form->indkey.values[i]);
				else
					own->unique = false;
			}
			entry->indexes = lappend(entry->indexes, own);
		}
		index_close(index, AccessShareLock);
	}
}

PgtOrderEntry *
pgt_order_entry(const RangeTblEntry *rte, int rtindex, List *quals)
{
	PgtOrderEntry *entry = palloc0(sizeof(PgtOrderEntry));
	ListCell *lc;

	entry->rte = rte;
	entry->rtindex = rtindex;
	entry->needs = pgt_order_needs(rte);
	entry->is_delta = is_delta(rte);
	entry->own = 1;
	entry->rows = SMALL_TABLE_ROWS;
	if ((rte->rtekind == RTE_RELATION || rte->rtekind == RTE_CTE) && OidIsValid(rte->relid))
	{
		Relation relation = relation_open(rte->relid, AccessShareLock);
		BlockNumber pages = 0;
		double allvisible;

		entry->relid = rte->relid;
		estimate_rel_size(relation, NULL, &pages, &entry->rows, &allvisible);
		/* The table of a stage that is not stored is empty. */
		entry->rows = rte->subquery != NULL ? UNSTORED_ROWS : Max(entry->rows, 1);
		add_indexes(entry, relation);
		relation_close(relation, AccessShareLock);
	}
	if (OidIsValid(entry->relid))
		foreach (lc, quals)
		{
			Bitmapset *needs = pull_varnos(NULL, lfirst(lc));

			if (bms_get_singleton_member(needs, &rtindex) && rtindex == entry->rtindex)
				entry->own *= condition_selectivity(entry, lfirst(lc));
		}
	return entry;
}

/* Rows that its own conditions leave of it; those of deltas are only good to be compared. */
double
pgt_order_rows(const PgtOrderEntry *entry)
{
	return entry->rows * entry->own * (entry->is_delta ? DELTA_FRACTION : 1);
}

/*
 * Rows of the entry for one row that its columns (attribute numbers of the
 * entry) are equated with, and by what means they are found.
 */
double
pgt_order_matches(const PgtOrderEntry *entry, const Bitmapset *columns, PgtOrderEdge *edge)
{
	Bitmapset *own = NULL;
	Bitmapset *unique = NULL;
	double rows = entry->rows;
	double damping = 1;
	int member = -1;
	ListCell *lc;

	*edge = PGT_EDGE_EQUALITY;
	if (!OidIsValid(entry->relid))
		return rows * entry->own;
	while ((member = bms_next_member(columns, member)) >= 0)
	{
		AttrNumber attno = table_column(entry, member);

		if (attno > 0)
			own = bms_add_member(own, attno);
	}
	foreach (lc, entry->indexes)
	{
		OrderIndex *index = lfirst(lc);

		if (!bms_is_member(index->first, own))
			continue;
		*edge = Max(*edge, PGT_EDGE_INDEX);
		if (index->unique && bms_is_subset(index->columns, own))
		{
			*edge = PGT_EDGE_UNIQUE;
			unique = index->columns;
			rows = 1;
		}
	}
	/* Columns of a table depend on each other: of the further ones less is believed. */
	own = bms_difference(own, unique);
	member = -1;
	while ((member = bms_next_member(own, member)) >= 0)
	{
		rows /= pow(distinct_values(entry, member), damping);
		damping /= 2;
	}
	if (entry->is_delta)
	{
		*edge = Max(*edge, PGT_EDGE_INDEX);
		rows *= DELTA_FRACTION;
	}
	else if (entry->rows <= SMALL_TABLE_ROWS)
		*edge = Max(*edge, PGT_EDGE_INDEX);
	return rows * entry->own;
}
