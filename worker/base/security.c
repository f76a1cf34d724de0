/*
 * security.c: changing to the rights of an owner and back, and the checks of
 * who may call what.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "pgt_compat.h"
#include "pgt_extension.h"
#include "pgt_security.h"
#include "pgt_spi.h"

static PgtSecurity
become_user(Oid userid, int flags)
{
	PgtSecurity saved;

	GetUserIdAndSecContext(&saved.userid, &saved.context);
	SetUserIdAndSecContext(userid, saved.context | flags);
	saved.guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	return saved;
}

PgtSecurity
pgt_security_become(Oid owner)
{
	return become_user(owner, SECURITY_RESTRICTED_OPERATION);
}

PgtSecurity
pgt_security_become_extension_owner(void)
{
	return become_user(pgt_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
}

void
pgt_security_restore(const PgtSecurity *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->userid, saved->context);
}

void
pgt_security_check_owner(Oid relid)
{
	if (!pgt_compat_is_relation_owner(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(relid));
}

bool
pgt_security_may_read(Oid relid)
{
	return pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
		   pgt_compat_is_relation_owner(relid, GetUserId()) ||
		   has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
}

void
pgt_security_check_reader(Oid relid)
{
	if (!pgt_security_may_read(relid))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(relid));
}

/* By a grant of its own: a superuser may everything, but perhaps not for ever. */
static bool
is_granted_usage(Oid schema, Oid role)
{
	HeapTuple tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	bool is_granted = false;
	bool isnull;
	Datum datum;

	if (!HeapTupleIsValid(tuple))
		return false;
	datum = SysCacheGetAttr(NAMESPACEOID, tuple, Anum_pg_namespace_nspacl, &isnull);
	if (!isnull)
	{
		Acl *acl = DatumGetAclP(datum);

		for (int i = 0; i < ACL_NUM(acl); i++)
			is_granted = is_granted || (ACL_DAT(acl)[i].ai_grantee == role &&
										(ACLITEM_GET_PRIVS(ACL_DAT(acl)[i]) & ACL_USAGE) != 0);
	}
	ReleaseSysCache(tuple);
	return is_granted;
}

void
pgt_security_let_use_state_schema(Oid role)
{
	Oid schema = pgt_extension_schema(PGT_STATE_SCHEMA);
	PgtSecurity saved;

	if (is_granted_usage(schema, role))
		return;
	pgt_extension_lock_state_schema();
	if (is_granted_usage(schema, role))
		return;
	saved = pgt_security_become_extension_owner();
	pgt_spi_execute(psprintf("GRANT USAGE ON SCHEMA %s TO %s", PGT_STATE_SCHEMA,
							 quote_identifier(GetUserNameFromId(role, false))));
	pgt_security_restore(&saved);
}
