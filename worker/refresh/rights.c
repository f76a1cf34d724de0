/*
 * rights.c: may the owner of a stream table still read what it reads?
 *
 * Checked at each refresh, because change buffers and statements over expanded
 * views pass by the server's own checks. As the server does: what a view reads
 * is checked with the rights of the view's owner. So is row security: a policy
 * that would hide rows is an error.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"

#include "pgt_compat.h"
#include "pgt_sqltext.h"

#include "refresh_internal.h"

typedef struct RightsContext
{
	Oid userid;
	Query *query;
} RightsContext;

static void check_query(Query *query, Oid userid);

static bool
may_read_columns(Oid relid, Oid userid, Bitmapset *columns)
{
	int column = -1;

	if (bms_is_empty(columns))
		return pg_attribute_aclcheck_all(relid, userid, ACL_SELECT, ACLMASK_ANY) == ACLCHECK_OK;
	while ((column = bms_next_member(columns, column)) >= 0)
	{
		AttrNumber attnum = column + FirstLowInvalidHeapAttributeNumber;
		AclResult result;

		if (attnum == InvalidAttrNumber)
			result = pg_attribute_aclcheck_all(relid, userid, ACL_SELECT, ACLMASK_ALL);
		else
			result = pg_attribute_aclcheck(relid, attnum, userid, ACL_SELECT);
		if (result != ACLCHECK_OK)
			return false;
	}
	return true;
}

/* A delta may come from the change buffers alone, which no policy guards. */
static void
check_row_security(Oid relid, Oid userid)
{
	if (check_enable_rls(relid, userid, true) != RLS_ENABLED)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		 errmsg("row-level security of table \"%s\" hides rows from the owner of the stream table",
				get_rel_name(relid)),
		 errdetail("A stream table holds what its owner may see, whoever reads it."),
		 errhint(
			 "Let a role that bypasses row-level security own the stream table, and give the stream table policies of its own.")));
}

static void
check_relation(Oid relid, Oid userid, Bitmapset *columns)
{
	check_row_security(relid, userid);
	if (pg_class_aclcheck(relid, userid, ACL_SELECT) == ACLCHECK_OK ||
		may_read_columns(relid, userid, columns))
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		 errmsg("permission denied for table %s", get_rel_name(relid)),
		 errdetail(
			 "A stream table is refreshed with the rights of its owner; role \"%s\" must not read the table.",
			 GetUserNameFromId(userid, true)),
		 errhint("GRANT SELECT ON %s TO %s, or drop the stream table.", pgt_sqltext_relation(relid),
				 quote_identifier(GetUserNameFromId(userid, true)))));
}

static void
check_view(Oid relid, Oid userid)
{
	Relation view = table_open(relid, AccessShareLock);
	Oid reader = RelationHasSecurityInvoker(view) ? userid : view->rd_rel->relowner;

	check_query(get_view_query(view), reader);
	table_close(view, NoLock);
}

static bool
check_walker(Node *node, void *arg)
{
	RightsContext *context = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		check_query((Query *) node, context->userid);
		return false;
	}
	return expression_tree_walker(node, check_walker, arg);
}

static void
check_query(Query *query, Oid userid)
{
	RightsContext context = {userid, query};
	ListCell *lc;

	foreach (lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		Bitmapset *columns;

		if (rte->rtekind != RTE_RELATION ||
			(pgt_compat_required_rights(query, rte, &columns) & ACL_SELECT) == 0)
			continue;
		check_relation(rte->relid, userid, columns);
		if (rte->relkind == RELKIND_VIEW)
			check_view(rte->relid, userid);
	}
	query_tree_walker(query, check_walker, &context, 0);
}

void
pgt_rights_check(const PgtStreamTable *st, Oid owner)
{
	Relation view = table_open(st->view_relid, AccessShareLock);

	check_query(get_view_query(view), owner);
	table_close(view, NoLock);
}
