/*
 * pgt_compat.h: what differs between PostgreSQL 15 and 18, and nothing else.
 * The only file that tests PG_VERSION_NUM; functions carry the prefix
 * pgt_compat_, so that nobody mistakes them for the server's own.
 */
#ifndef PGT_COMPAT_H
#define PGT_COMPAT_H

#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "optimizer/optimizer.h"
#include "parser/parse_relation.h"
#include "replication/logical.h"
#include "replication/output_plugin.h"
#include "replication/reorderbuffer.h"
#include "replication/message.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

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

#endif /* PGT_COMPAT_H */
