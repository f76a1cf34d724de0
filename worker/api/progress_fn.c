/*
 * progress_fn.c: SQL function that tells how far refreshes are that compute
 * everything. A stream table that is being created is in nobody else's catalog
 * yet: its owner and pg_monitor see it all the same.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "pgt_progress.h"
#include "pgt_security.h"
#include "pgt_stream_table.h"

#include "api_internal.h"

PG_FUNCTION_INFO_V1(pgt_refresh_progress);

static bool
may_see(const PgtProgress *progress)
{
	if (progress->database != MyDatabaseId)
		return false;
	return has_privs_of_role(GetUserId(), progress->owner) ||
		   has_privs_of_role(GetUserId(), ROLE_PG_MONITOR) ||
		   (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(progress->relid)) &&
			pgt_security_may_read(progress->relid));
}

Datum
pgt_refresh_progress(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach (lc, pgt_progress_list())
	{
		const PgtProgress *progress = lfirst(lc);
		Datum values[11] = {0};
		bool nulls[11] = {0};

		if (!may_see(progress))
			continue;
		values[0] = Int32GetDatum(progress->pid);
		values[1] = Int64GetDatum(progress->pgt_id);
		values[2] = CStringGetTextDatum(NameStr(progress->schema));
		values[3] = CStringGetTextDatum(NameStr(progress->name));
		values[4] = CStringGetTextDatum(progress->initiated_by);
		values[5] = CStringGetTextDatum(progress->phase == PGT_PROGRESS_COMPUTING ? "computing rows"
																				  : "writing rows");
		values[6] = Int32GetDatum(progress->statement);
		values[7] = Int64GetDatum(progress->rows);
		values[8] = Int64GetDatum((int64) Min(progress->expected, 9e18));
		values[9] = TimestampTzGetDatum(progress->started_at);
		values[10] = TimestampTzGetDatum(progress->phase_since);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
