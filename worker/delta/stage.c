/*
 * stage.c: cutting a query into stages, and the hidden tables that hold them.
 *
 * A subquery that groups, makes rows distinct, numbers them in windows or takes
 * the first of them is not linear (layer.c has a layer for each): its result is
 * stored (DBSP's integral made explicit) and read like a table by what is
 * above it. Equal subqueries, such as two uses of one WITH item, are one stage.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_rewrite.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteSupport.h"
#include "storage/lockdefs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "pgt_compat.h"
#include "pgt_extension.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"
#include "pgt_stream_table.h"

#include "delta_internal.h"

/* Marks an entry that reads stage number relid, until the stage's table is known. */
#define STAGE_MARK "pgt_stage"

int
pgt_stage_of_entry(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_RELATION && rte->ctename != NULL &&
				   strcmp(rte->ctename, STAGE_MARK) == 0
			   ? (int) rte->relid
			   : 0;
}

bool
pgt_stage_is_group(const Query *query)
{
	return query->hasAggs || query->groupClause != NIL || query->havingQual != NULL;
}

/* Is its result stored? */
bool
pgt_stage_is_closed(const Query *query)
{
	return pgt_stage_is_group(query) || query->distinctClause != NIL || query->hasWindowFuncs ||
		   pgt_layer_has_limit(query);
}

/* Junk that no clause needs. */
static void
drop_junk(Query *query)
{
	if (!query->hasWindowFuncs && !query->hasDistinctOn && !pgt_layer_has_limit(query))
		pgt_tree_drop_junk(query);
}

static void read_stage(RangeTblEntry *rte, int number, int ncolumns);

static int
add_stage(PgtDefinition *definition, Query *query)
{
	PgtStage *stage;
	ListCell *lc;

	foreach (lc, definition->stages)
	{
		stage = lfirst(lc);
		if (equal(stage->recursion != NULL ? stage->recursion : stage->query, query))
			return stage->number;
	}
	stage = palloc0(sizeof(PgtStage));
	stage->number = list_length(definition->stages) + 1;
	stage->query = query;
	if (pgt_recursion_is(query))
	{
		stage->recursion = query;
		stage->query = copyObject(query);
		stage->query->hasRecursive = false;
		read_stage(pgt_recursion_self(stage->query), stage->number,
				   list_length(pgt_tree_outputs(query)));
	}
	definition->stages = lappend(definition->stages, stage);
	return stage->number;
}

static void
read_stage(RangeTblEntry *rte, int number, int ncolumns)
{
	List *names = NIL;

	for (int i = 1; i <= ncolumns; i++)
		names = lappend(names, makeString(psprintf("c%d", i)));
	rte->rtekind = RTE_RELATION;
	rte->relid = number;
	rte->relkind = RELKIND_RELATION;
	rte->rellockmode = AccessShareLock;
	rte->subquery = NULL;
	rte->inh = true;
	rte->lateral = false;
	rte->ctename = pstrdup(STAGE_MARK);
	rte->eref = makeAlias(rte->eref->aliasname, names);
	rte->alias = makeAlias(rte->eref->aliasname, NIL);
}

static Query *cut(PgtDefinition *definition, Query *query);
static Query *cut_below(PgtDefinition *definition, Query *query, bool store);

/* Reads a stage instead of the query that it holds: SELECT c1, ... FROM stage. */
static Query *
query_of_stage(PgtDefinition *definition, Query *query)
{
	Query *reader;
	int shown = list_length(pgt_tree_outputs(query));

	drop_junk(query);
	reader = pgt_tree_wrap(query);
	reader->targetList = list_copy_head(reader->targetList, shown);
	read_stage(linitial_node(RangeTblEntry, reader->rtable), add_stage(definition, query), shown);
	return reader;
}

/* Is a subquery without references to the outside worth a stage of its own? */
static bool
is_separate(const SubLink *link, Query *query)
{
	if (pgt_tree_has_outer_vars(query))
		return false;
	/* Read as a single value, and compared before and after. */
	return pgt_stage_is_closed(query) || link->subLinkType == EXPR_SUBLINK;
}

static bool
cut_sublinks_walker(Node *node, void *context)
{
	SubLink *link = (SubLink *) node;
	Query *query;

	if (node == NULL || IsA(node, Query))
		return false;
	if (!IsA(node, SubLink))
		return expression_tree_walker(node, cut_sublinks_walker, context);
	query = castNode(Query, link->subselect);
	if (is_separate(link, query))
	{
		bool one_row = query->hasAggs && query->groupClause == NIL && query->groupingSets == NIL &&
					   query->havingQual == NULL;

		query = query_of_stage(context, cut(context, query));
		if (link->subLinkType == EXPR_SUBLINK && one_row)
			link->subLinkId = PGT_SUBLINK_ONE_ROW;
	}
	else
		query = cut_below(context, query, false);
	link->subselect = (Node *) query;
	return expression_tree_walker(link->testexpr, cut_sublinks_walker, context);
}

/* Does a subquery of FROM show what a superset of its rows cannot? */
static bool
shows_answers(Query *query)
{
	ListCell *lc;

	if (query->setOperations != NULL)
		return false;
	foreach (lc, pgt_tree_outputs(query))
		if (!pgt_flatten_is_plain(query, (Node *) lfirst_node(TargetEntry, lc)->expr))
			return true;
	return false;
}

/* Takes the topmost layer off and cuts below it; what is left reads tables and stages. */
static Query *
cut(PgtDefinition *definition, Query *query)
{
	bool store = false;

	query = pgt_layer_peel(query, &store);
	return cut_below(definition, query, store);
}

/* store: what is below is stored, whatever it is. */
static Query *
cut_below(PgtDefinition *definition, Query *query, bool store)
{
	List *rtindexes;
	ListCell *lc;

	rtindexes = query->setOperations != NULL ? pgt_tree_arm_rtindexes(query)
											 : pgt_tree_rtindexes((Node *) query->jointree);
	foreach (lc, rtindexes)
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);

		if (rte->rtekind != RTE_SUBQUERY || pgt_tree_is_function(rte))
			continue;
		if (pgt_flatten_is_dependent(rte))
		{
			rte->subquery = cut_below(definition, rte->subquery, false);
			continue;
		}
		rte->subquery = cut(definition, rte->subquery);
		if (!store && !pgt_stage_is_closed(rte->subquery) && !pgt_recursion_is(rte->subquery) &&
			!shows_answers(rte->subquery) &&
			!((pgt_stage_is_group(query) || query->setOperations != NULL) &&
			  pgt_flatten_is_needed(rte->subquery)))
			continue;
		if (query->setOperations != NULL)
		{
			/* An arm of a set operation stays a subquery. */
			rte->subquery = pgt_tree_wrap(rte->subquery);
			rte = linitial_node(RangeTblEntry, rte->subquery->rtable);
		}
		drop_junk(rte->subquery);
		read_stage(rte, add_stage(definition, rte->subquery),
				   list_length(pgt_tree_outputs(rte->subquery)));
	}
	if (query->setOperations == NULL)
	{
		(void) cut_sublinks_walker((Node *) query->targetList, definition);
		(void) cut_sublinks_walker((Node *) query->jointree, definition);
		(void) cut_sublinks_walker(query->havingQual, definition);
		(void) cut_sublinks_walker(query->limitOffset, definition);
		(void) cut_sublinks_walker(query->limitCount, definition);
	}
	return query;
}

void
pgt_stage_cut(PgtDefinition *definition, Query *query)
{
	PgtStage *last;

	query = cut(definition, query);
	drop_junk(query);
	/* The last stage is the user's table, even if an equal one is below. */
	last = palloc0(sizeof(PgtStage));
	last->number = list_length(definition->stages) + 1;
	last->query = query;
	definition->stages = lappend(definition->stages, last);
}

char *
pgt_stage_table_name(int64 pgt_id, int number)
{
	return psprintf("stage_" INT64_FORMAT "_%d", pgt_id, number);
}

char *
pgt_stage_state_name(int64 pgt_id, int number)
{
	return psprintf("state_" INT64_FORMAT "_%d", pgt_id, number);
}

/* Puts the oids of the stored tables in place of stage numbers, in place. */
void
pgt_delta_bind(PgtDefinition *definition, int64 pgt_id, Oid relid)
{
	Oid schema = pgt_extension_schema(PGT_STATE_SCHEMA);
	ListCell *lc;
	ListCell *ll;

	foreach (lc, definition->stages)
	{
		PgtStage *stage = lfirst(lc);
		bool last = lnext(definition->stages, lc) == NULL;

		stage->relid = last
						   ? relid
						   : get_relname_relid(pgt_stage_table_name(pgt_id, stage->number), schema);
		stage->state_relid = get_relname_relid(pgt_stage_state_name(pgt_id, stage->number), schema);
		stage->inputs = NIL;
		if (stage->technique == PGT_TECHNIQUE_FULL)
			continue;
		foreach (ll, pgt_tree_leaves(stage->query))
		{
			RangeTblEntry *rte = lfirst(ll);
			int number = pgt_stage_of_entry(rte);

			if (number > 0)
			{
				rte->relid = ((PgtStage *) list_nth(definition->stages, number - 1))->relid;
				rte->ctename = NULL;
			}
			/* What a recursion reads of itself is there before its change. */
			if (rte->relid != stage->relid)
				stage->inputs = list_append_unique_oid(stage->inputs, rte->relid);
		}
	}
	pgt_virtual_load(definition);
}

static bool
fits_table(const PgtStage *stage)
{
	Relation relation = try_relation_open(stage->relid, AccessShareLock);
	List *outputs = pgt_tree_outputs(stage->query);
	bool fits = relation != NULL && RelationGetNumberOfAttributes(relation) == list_length(outputs);
	ListCell *lc;

	foreach (lc, fits ? outputs : NIL)
	{
		Node *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(relation),
													foreach_current_index(lc));

		fits = fits && attribute->atttypid == exprType(expr) &&
			   attribute->attcollation == exprCollation(expr);
	}
	if (relation != NULL)
		relation_close(relation, AccessShareLock);
	return fits;
}

bool
pgt_stage_tables_fit(const PgtDefinition *definition)
{
	ListCell *lc;

	foreach (lc, definition->stages)
		if (lnext(definition->stages, lc) != NULL && !fits_table(lfirst(lc)))
			return false;
	return true;
}

static void
create_stage_table(int64 pgt_id, const PgtStage *stage, const char *owner)
{
	char *name = pgt_sqltext_qualified(PGT_STATE_SCHEMA,
									   pgt_stage_table_name(pgt_id, stage->number));
	StringInfoData sql;
	int number = 0;
	ListCell *lc;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE TABLE %s (", name);
	foreach (lc, pgt_tree_outputs(stage->query))
	{
		Node *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;

		number++;
		appendStringInfo(&sql, "%sc%d %s", number > 1 ? ", " : "", number,
						 pgt_sqltext_type(exprType(expr), exprTypmod(expr)));
		if (OidIsValid(exprCollation(expr)))
			appendStringInfo(&sql, " COLLATE %s", pgt_sqltext_collation(exprCollation(expr)));
	}
	appendStringInfoString(&sql, ") WITH (fillfactor = 80)");
	pgt_spi_execute(sql.data);
	/* A publication of all tables has it, too, and would stop updates without one. */
	pgt_spi_execute(psprintf("ALTER TABLE %s REPLICA IDENTITY FULL", name));
	pgt_spi_execute(psprintf("GRANT SELECT ON %s TO %s", name, owner));
}

/*
 * Rows are identified through unique indexes, so these must stay. The rule of
 * the hidden view holds them, as it does for GROUP BY of a primary key: pg_dump
 * knows how to order that.
 */
static void
depend_on_indexes(Oid view_relid, List *indexes)
{
	ObjectAddress rule = {RewriteRelationId, get_rewrite_oid(view_relid, ViewSelectRuleName, false),
						  0};
	ListCell *lc;

	foreach (lc, indexes)
	{
		Oid constraint = get_index_constraint(lfirst_oid(lc));
		ObjectAddress index;

		if (OidIsValid(constraint))
			ObjectAddressSet(index, ConstraintRelationId, constraint);
		else
			ObjectAddressSet(index, RelationRelationId, lfirst_oid(lc));
		recordDependencyOn(&rule, &index, DEPENDENCY_NORMAL);
	}
}

void
pgt_delta_create_stages(int64 pgt_id, Oid relid, PgtDefinition *definition)
{
	const char *owner = quote_identifier(
		GetUserNameFromId(pgt_compat_relation_owner(relid), false));
	Oid schema = pgt_extension_schema(PGT_STATE_SCHEMA);
	PgtSecurity saved = pgt_security_become_extension_owner();
	ListCell *lc;

	/* The owner's statements name the stage tables. */
	if (list_length(definition->stages) > 1)
		pgt_security_let_use_state_schema(pgt_compat_relation_owner(relid));
	foreach (lc, definition->stages)
	{
		PgtStage *stage = lfirst(lc);
		ObjectAddress table = {RelationRelationId, relid, 0};
		ObjectAddress hidden = {RelationRelationId, InvalidOid, 0};

		if (lnext(definition->stages, lc) == NULL)
			break;
		create_stage_table(pgt_id, stage, owner);
		hidden.objectId = get_relname_relid(pgt_stage_table_name(pgt_id, stage->number), schema);
		recordDependencyOn(&hidden, &table, DEPENDENCY_AUTO);
		stage->relid = hidden.objectId;
		pgt_virtual_note(stage);
	}
	CommandCounterIncrement();
	pgt_security_restore(&saved);
	depend_on_indexes(pgt_stream_table_find(relid)->view_relid, definition->constraints);
	pgt_delta_bind(definition, pgt_id, relid);
}
