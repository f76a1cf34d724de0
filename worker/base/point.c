/*
 * point.c: what happens at a test point; empty in production builds.
 */
#include "postgres.h"

#include "pgt_point.h"

#ifdef PGT_TEST_POINTS

#include <signal.h>

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"

#include "pgt_guc.h"

#define POINT_LOCK_CLASS 0x706774

/* Waits while somebody holds pg_advisory_lock(0x706774, hashtext-free key). */
static void
wait_at_point(const char *name)
{
	LOCKTAG tag;
	int32 key = (int32) (hash_bytes((const unsigned char *) name, strlen(name)) & 0x7fffffff);

	/* The layout of pg_advisory_lock(int4, int4). */
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, POINT_LOCK_CLASS, (uint32) key, 2);
	(void) LockAcquire(&tag, ShareLock, false, false);
	LockRelease(&tag, ShareLock, false);
}

void
pgt_point_reach(const char *name)
{
	size_t length = strlen(name);
	const char *at = pgt_guc_test_points;

	while (at != NULL && (at = strstr(at, name)) != NULL)
	{
		const char *action = at + length;

		at = action;
		if (*action++ != '=')
			continue;
		if (strncmp(action, "error", 5) == 0)
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("test point \"%s\"", name)));
		else if (strncmp(action, "kill", 4) == 0)
			kill(MyProcPid, SIGKILL);
		else if (strncmp(action, "wait", 4) == 0)
			wait_at_point(name);
	}
}

#endif /* PGT_TEST_POINTS */
