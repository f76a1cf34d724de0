/*
 * pool_fn.c: SQL functions that tell what the workers of the scheduler do.
 *
 * Copies of shared memory, so what they show may have ended meanwhile. Jobs are
 * shown to whoever may read all stream tables of them.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "pgt_clock.h"
#include "pgt_compat.h"
#include "pgt_pool.h"
#include "pgt_security.h"
#include "pgt_sqltext.h"
#include "pgt_stream_table.h"

#include "api_internal.h"

PG_FUNCTION_INFO_V1(pgt_worker_pool_status);
PG_FUNCTION_INFO_V1(pgt_parallel_job_status);

static const char *const worker_states[] = {[PGT_WORKER_STARTING] = "STARTING",
											[PGT_WORKER_IDLE] = "IDLE",
											[PGT_WORKER_RUNNING] = "RUNNING"};

Datum
pgt_worker_pool_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach (lc, pgt_pool_list_worker_infos())
	{
		const PgtWorkerInfo *info = lfirst(lc);
		char *database = get_database_name(info->database);
		Datum values[8] = {0};
		bool nulls[8] = {0};

		if (database == NULL)
			continue;
		values[0] = Int32GetDatum(info->slot);
		values[1] = Int32GetDatum(info->pid);
		nulls[1] = info->pid == 0;
		values[2] = CStringGetTextDatum(database);
		values[3] = CStringGetTextDatum(worker_states[info->state]);
		values[4] = Int64GetDatum(info->job);
		nulls[4] = info->job == 0;
		values[5] = Int64GetDatum(info->jobs_done);
		values[6] = Int64GetDatum(info->generation);
		values[7] = TimestampTzGetDatum(info->since);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static const char *
status_of(const PgtJobInfo *info)
{
	if (info->state == PGT_JOB_QUEUED)
		return "QUEUED";
	if (info->state == PGT_JOB_RUNNING)
		return "RUNNING";
	if (info->lost || info->state == PGT_JOB_LOST)
		return "LOST";
	return info->failed ? "FAILED" : "COMPLETED";
}

/* NULL if the caller may not know of all of them, or they are gone. */
static char *
name_members(const PgtJobInfo *info)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < info->count; i++)
	{
		PgtStreamTable *st = pgt_stream_table_find_id(info->pgt_ids[i]);

		if (st == NULL || !pgt_security_may_read(st->relid))
			return NULL;
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", pgt_sqltext_relation(st->relid));
	}
	return names.data;
}

static void
put_time(Datum *value, bool *is_null, TimestampTz time)
{
	*value = TimestampTzGetDatum(time);
	*is_null = time == 0;
}

static void
put_job(ReturnSetInfo *rsinfo, const PgtJobInfo *info, const char *members)
{
	Datum values[12] = {0};
	bool nulls[12] = {0};
	TimestampTz until = info->ended_at != 0 ? info->ended_at : pgt_clock_now();

	values[0] = Int64GetDatum(info->id);
	values[1] = CStringGetTextDatum(members);
	values[2] = CStringGetTextDatum(info->count > 1 ? "GROUP" : "STREAM_TABLE");
	values[3] = CStringGetTextDatum(status_of(info));
	values[4] = Int32GetDatum(info->count);
	values[5] = Int32GetDatum(info->attempt);
	values[6] = Int32GetDatum(info->pid);
	nulls[6] = info->pid == 0;
	put_time(&values[7], &nulls[7], info->queued_at);
	put_time(&values[8], &nulls[8], info->started_at);
	put_time(&values[9], &nulls[9], info->ended_at);
	values[10] = Float8GetDatum(pgt_clock_ms_between(info->started_at, until));
	nulls[10] = info->started_at == 0;
	values[11] = CStringGetTextDatum(info->message);
	nulls[11] = !info->failed;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static int
compare_jobs(const ListCell *a, const ListCell *b)
{
	int64 id_a = ((const PgtJobInfo *) lfirst(a))->id;
	int64 id_b = ((const PgtJobInfo *) lfirst(b))->id;

	return id_a < id_b ? -1 : id_a > id_b;
}

Datum
pgt_parallel_job_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int32 max_age = PG_GETARG_INT32(0);
	TimestampTz since = pgt_clock_now() - max_age * INT64CONST(1000000);
	List *infos;
	ListCell *lc;

	if (max_age < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("max_age_seconds must not be negative")));
	InitMaterializedSRF(fcinfo, 0);
	infos = pgt_pool_list_job_infos();
	list_sort(infos, compare_jobs);
	foreach (lc, infos)
	{
		const PgtJobInfo *info = lfirst(lc);
		char *members;

		if (info->ended_at != 0 && info->ended_at < since)
			continue;
		members = name_members(info);
		if (members != NULL)
			put_job(rsinfo, info, members);
	}
	return (Datum) 0;
}
