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
#include "utils/acl.h"
#include "utils/syscache.h"

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

#endif							/* PGT_COMPAT_H */
