/*
 * pgt_compat.h: what differs between PostgreSQL 15 and 18, and nothing else.
 * The only file that tests PG_VERSION_NUM; functions carry the prefix
 * pgt_compat_, so that nobody mistakes them for the server's own.
 */
#ifndef PGT_COMPAT_H
#define PGT_COMPAT_H

#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "optimizer/optimizer.h"
#include "parser/parse_relation.h"
#include "replication/logical.h"
#include "replication/output_plugin.h"
#include "replication/reorderbuffer.h"
#include "replication/message.h"
#include "rewrite/rewriteManip.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "pg_trickle supports PostgreSQL 15 to 18"
#endif

static inline bool
pgt_compat_is_relation_owner(Oid relid, Oid userid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relid, userid);
#else
	return pg_class_ownercheck(relid, userid);
#endif
}

static inline bool
pgt_compat_may_execute(Oid function, Oid userid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, function, userid, ACL_EXECUTE) == ACLCHECK_OK;
#else
	return pg_proc_aclcheck(function, userid, ACL_EXECUTE) == ACLCHECK_OK;
#endif
}

static inline bool
pgt_compat_may_use_schema(Oid schema, Oid userid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(NamespaceRelationId, schema, userid, ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_namespace_aclcheck(schema, userid, ACL_USAGE) == ACLCHECK_OK;
#endif
}

static inline bool
pgt_compat_may_create_in_database(Oid database, Oid userid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(DatabaseRelationId, database, userid, ACL_CREATE) == ACLCHECK_OK;
#else
	return pg_database_aclcheck(database, userid, ACL_CREATE) == ACLCHECK_OK;
#endif
}

static inline Oid
pgt_compat_relation_owner(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* Arguments after two_phase of pg_create_logical_replication_slot; NULL: it has none. */
#if PG_VERSION_NUM >= 170000
#define PGT_COMPAT_FAILOVER_ARGUMENT ", true"
#else
#define PGT_COMPAT_FAILOVER_ARGUMENT NULL
#endif

/* The parts of a qualified name, as strings; an error if it is not one. */
static inline List *
pgt_compat_split_name(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return stringToQualifiedNameList(name, NULL);
#else
	return stringToQualifiedNameList(name);
#endif
}

/* Replaces references to columns of joins by the columns they stand for. */
static inline Node *
pgt_compat_flatten_join_vars(Query *query, Node *node)
{
#if PG_VERSION_NUM >= 160000
	return flatten_join_alias_vars(NULL, query, node);
#else
	return flatten_join_alias_vars(query, node);
#endif
}

#if PG_VERSION_NUM >= 180000
/* Grouped expressions in place of columns of the entry for them, which stays, empty. */
static inline void
pgt_compat_unfold_groups(Query *query)
{
	RangeTblEntry *groups = NULL;
	int rtindex = 0;
	ListCell *lc;

	while (groups == NULL || groups->rtekind != RTE_GROUP)
		groups = list_nth_node(RangeTblEntry, query->rtable, rtindex++);
	/* Where the user wrote it, for error messages. */
	foreach (lc, query->targetList)
	{
		Var *var = (Var *) lfirst_node(TargetEntry, lc)->expr;

		if (IsA(var, Var) && var->varno == rtindex && var->varlevelsup == 0)
			var->location = exprLocation(list_nth(groups->groupexprs, var->varattno - 1));
	}
	query->targetList = (List *) flatten_group_exprs(NULL, query, (Node *) query->targetList);
	query->havingQual = flatten_group_exprs(NULL, query, query->havingQual);
	query->hasGroupRTE = false;
	groups->rtekind = RTE_RESULT;
	groups->groupexprs = NIL;
	groups->eref = makeAlias("*RESULT*", NIL);
}
#endif

/*
 * Queries in the form of 15, which says the same in fewer ways: a Var does not tell which
 * outer joins and grouping sets can make it null (16), and expressions that are grouped by
 * stand where they are used, not in an entry of their own (18). In place. Queries go to
 * the planner as text, which has neither.
 */
static inline bool
pgt_compat_simplify_query(Node *node, void *context)
{
#if PG_VERSION_NUM >= 160000
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		((Var *) node)->varnullingrels = NULL;
	if (IsA(node, Query))
	{
		Query *query = (Query *) node;

#if PG_VERSION_NUM >= 180000
		if (query->hasGroupRTE)
			pgt_compat_unfold_groups(query);
#endif
		return query_tree_walker(query, pgt_compat_simplify_query, context, 0);
	}
	return expression_tree_walker(node, pgt_compat_simplify_query, context);
#else
	return false;
#endif
}

/* Vars of all columns of an entry; NULL constants for dropped ones. */
static inline List *
pgt_compat_entry_columns(RangeTblEntry *rte, int rtindex, int levels_up)
{
	List *vars;

#if PG_VERSION_NUM >= 180000
	expandRTE(rte, rtindex, levels_up, VAR_RETURNING_DEFAULT, -1, true, NULL, &vars);
#else
	expandRTE(rte, rtindex, levels_up, -1, true, NULL, &vars);
#endif
	return vars;
}

/* Expressions of a subquery in place of the columns of its entry, which has all of them. */
static inline Node *
pgt_compat_replace_columns(Node *node, int rtindex, RangeTblEntry *rte, List *targetlist)
{
#if PG_VERSION_NUM >= 180000
	return ReplaceVarsFromTargetList(node, rtindex, 0, rte, targetlist, 0, REPLACEVARS_REPORT_ERROR,
									 0, NULL);
#else
	return ReplaceVarsFromTargetList(node, rtindex, 0, rte, targetlist, REPLACEVARS_REPORT_ERROR, 0,
									 NULL);
#endif
}

/* ---- logical decoding ---- */

static inline HeapTuple
pgt_compat_change_old_tuple(ReorderBufferChange *change)
{
#if PG_VERSION_NUM >= 170000
	return change->data.tp.oldtuple;
#else
	return change->data.tp.oldtuple != NULL ? &change->data.tp.oldtuple->tuple : NULL;
#endif
}

static inline HeapTuple
pgt_compat_change_new_tuple(ReorderBufferChange *change)
{
#if PG_VERSION_NUM >= 170000
	return change->data.tp.newtuple;
#else
	return change->data.tp.newtuple != NULL ? &change->data.tp.newtuple->tuple : NULL;
#endif
}

/*
 * A sign of life while changes are skipped, so that the server does not take the consumer
 * for dead. From 16 on the server does that for every plugin.
 */
static inline void
pgt_compat_report_skipped_changes(LogicalDecodingContext *ctx)
{
#if PG_VERSION_NUM < 160000
	OutputPluginUpdateProgress(ctx, false);
#endif
}

/* Virtual generated columns (18) are not stored, so a tuple has no value of theirs. */
static inline bool
pgt_compat_is_virtual_column(Form_pg_attribute attribute)
{
#if PG_VERSION_NUM >= 180000
	return attribute->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL;
#else
	return false;
#endif
}

/* -1 and 1 for the infinite intervals of 17 on, else 0. */
static inline int
pgt_compat_interval_infinity(const Interval *interval)
{
#if PG_VERSION_NUM >= 170000
	if (INTERVAL_IS_NOBEGIN(interval))
		return -1;
	if (INTERVAL_IS_NOEND(interval))
		return 1;
#endif
	return 0;
}

/* ---- writing without a plan ---- */

/*
 * A relation that is written without a plan, as range table entry 1 of an
 * executor state; all its columns count as updated (UPDATE OF triggers).
 */
static inline ResultRelInfo *
pgt_compat_init_result_relation(EState *estate, Relation relation)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	ResultRelInfo *result = makeNode(ResultRelInfo);
	Bitmapset *columns = NULL;

	for (int i = 1; i <= RelationGetNumberOfAttributes(relation); i++)
		columns = bms_add_member(columns, i - FirstLowInvalidHeapAttributeNumber);
	rte->rtekind = RTE_RELATION;
	rte->relid = RelationGetRelid(relation);
	rte->relkind = relation->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;
#if PG_VERSION_NUM >= 160000
	{
		List *infos = NIL;
		RTEPermissionInfo *info = addRTEPermissionInfo(&infos, rte);

		info->updatedCols = columns;
#if PG_VERSION_NUM >= 180000
		ExecInitRangeTable(estate, list_make1(rte), infos, bms_make_singleton(1));
#else
		ExecInitRangeTable(estate, list_make1(rte), infos);
#endif
	}
#else
	rte->updatedCols = columns;
	ExecInitRangeTable(estate, list_make1(rte));
#endif
	InitResultRelInfo(result, relation, 1, NULL, 0);
	estate->es_opened_result_relations = lappend(estate->es_opened_result_relations, result);
	estate->es_output_cid = GetCurrentCommandId(true);
	return result;
}

/* What a concurrent change of a row would be checked with again; nothing is planned to be. */
static inline void
pgt_compat_init_recheck(EPQState *recheck, EState *estate)
{
#if PG_VERSION_NUM >= 160000
	EvalPlanQualInit(recheck, estate, NULL, NIL, -1, NIL);
#else
	EvalPlanQualInit(recheck, estate, NULL, NIL, -1);
#endif
}

/* Index entries of a row that was just inserted. */
static inline List *
pgt_compat_insert_index_tuples(ResultRelInfo *result, TupleTableSlot *slot, EState *estate)
{
#if PG_VERSION_NUM >= 160000
	return ExecInsertIndexTuples(result, slot, estate, false, false, NULL, NIL, false);
#else
	return ExecInsertIndexTuples(result, slot, estate, false, false, NULL, NIL);
#endif
}

/* A transactional logical message. */
static inline void
pgt_compat_log_message(const char *prefix, const char *message, size_t size)
{
#if PG_VERSION_NUM >= 170000
	(void) LogLogicalMessage(prefix, message, size, true, false);
#else
	(void) LogLogicalMessage(prefix, message, size, true);
#endif
}

/* One outside of transactions, which is not flushed yet; returns its end. */
static inline XLogRecPtr
pgt_compat_log_message_outside(const char *prefix, const char *message, size_t size)
{
#if PG_VERSION_NUM >= 170000
	return LogLogicalMessage(prefix, message, size, false, false);
#else
	return LogLogicalMessage(prefix, message, size, false);
#endif
}

/* What a range table entry asks of whom: 0 if nothing. */
static inline AclMode
pgt_compat_required_rights(const Query *query, const RangeTblEntry *rte, Bitmapset **columns)
{
#if PG_VERSION_NUM >= 160000
	RTEPermissionInfo *info;

	*columns = NULL;
	if (rte->perminfoindex == 0)
		return 0;
	info = getRTEPermissionInfo(query->rteperminfos, (RangeTblEntry *) rte);
	*columns = info->selectedCols;
	return info->requiredPerms;
#else
	*columns = rte->selectedCols;
	return rte->requiredPerms;
#endif
}

/* Whoever runs the plan needs no rights on its tables; false if that was so already. */
static inline bool
pgt_compat_waive_rights(PlannedStmt *stmt)
{
	ListCell *lc;
	bool changed = false;

#if PG_VERSION_NUM >= 160000
	changed = stmt->permInfos != NIL;
	foreach (lc, stmt->rtable)
		lfirst_node(RangeTblEntry, lc)->perminfoindex = 0;
	stmt->permInfos = NIL;
#else
	foreach (lc, stmt->rtable)
	{
		changed = changed || lfirst_node(RangeTblEntry, lc)->requiredPerms != 0;
		lfirst_node(RangeTblEntry, lc)->requiredPerms = 0;
	}
#endif
	return changed;
}

/* Does the user have the rights of the owner of the database? */
static inline bool
pgt_compat_owns_database(Oid database, Oid userid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, userid);
#else
	return pg_database_ownercheck(database, userid);
#endif
}

/* Of the extension? */
static inline bool
pgt_compat_owns_extension(Oid extension, Oid userid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(ExtensionRelationId, extension, userid);
#else
	return pg_extension_ownercheck(extension, userid);
#endif
}

/* ---- catalogs and access methods ---- */

/* The family, input type and btree strategy of < or >; false if the operator is neither. */
static inline bool
pgt_compat_ordering_operator(Oid operator, Oid * family, Oid *type, int16 *strategy)
{
#if PG_VERSION_NUM >= 180000
	CompareType compare;
	bool result = get_ordering_op_properties(operator, family, type, &compare);

	/* CompareType counts as btree does. */
	*strategy = (int16) compare;
	return result;
#else
	return get_ordering_op_properties(operator, family, type, strategy);
#endif
}

/* Is it one of =, <>, <, <=, >, >= of a btree family? */
static inline bool
pgt_compat_is_comparison(Oid operator)
{
#if PG_VERSION_NUM >= 180000
	return get_op_index_interpretation(operator) != NIL;
#else
	return get_op_btree_interpretation(operator) != NIL;
#endif
}

/* Of a primary key that is not deferrable. */
static inline Oid
pgt_compat_primary_key_index(Relation relation)
{
#if PG_VERSION_NUM >= 180000
	return RelationGetPrimaryKeyIndex(relation, false);
#else
	return RelationGetPrimaryKeyIndex(relation);
#endif
}

static inline IndexScanDesc
pgt_compat_begin_index_scan(Relation relation, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(relation, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(relation, index, snapshot, nkeys, 0);
#endif
}

static inline Datum
pgt_compat_toast_options(List *options)
{
#if PG_VERSION_NUM >= 180000
	const char *const namespaces[] = {"toast", NULL};
#else
	char *namespaces[] = {"toast", NULL};
#endif

	return transformRelOptions((Datum) 0, options, "toast", namespaces, true, false);
}

/* Runs a query that was started to its end. */
static inline void
pgt_compat_run(QueryDesc *desc)
{
#if PG_VERSION_NUM >= 180000
	ExecutorRun(desc, ForwardScanDirection, 0);
#else
	ExecutorRun(desc, ForwardScanDirection, 0, true);
#endif
}

#endif /* PGT_COMPAT_H */
