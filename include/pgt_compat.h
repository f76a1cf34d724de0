/*
 * pgt_compat.h: what differs between PostgreSQL 15 and 18, and nothing else.
 * The only file that tests PG_VERSION_NUM; functions carry the prefix
 * pgt_compat_, so that nobody mistakes them for the server's own.
 */
#ifndef PGT_COMPAT_H
#define PGT_COMPAT_H

#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "nodes/parsenodes.h"
#include "optimizer/optimizer.h"
#include "replication/logical.h"
#include "replication/output_plugin.h"
#include "replication/reorderbuffer.h"
#include "utils/acl.h"
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

static inline Oid
pgt_compat_relation_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

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

#endif							/* PGT_COMPAT_H */
