/*
 * lifecycle_fn.c: the SQL functions of the life of a stream table: arguments
 * and rights, then one call.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "pgt_clock.h"
#include "pgt_compat.h"
#include "pgt_extension.h"
#include "pgt_frontier.h"
#include "pgt_security.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

PG_FUNCTION_INFO_V1(pgt_create_stream_table);
PG_FUNCTION_INFO_V1(pgt_create_stream_table_if_not_exists);
PG_FUNCTION_INFO_V1(pgt_create_or_replace_stream_table);
PG_FUNCTION_INFO_V1(pgt_alter_stream_table);
PG_FUNCTION_INFO_V1(pgt_drop_stream_table);
PG_FUNCTION_INFO_V1(pgt_refresh_stream_table);
PG_FUNCTION_INFO_V1(pgt_refresh_if_stale);
PG_FUNCTION_INFO_V1(pgt_pause_stream_table);
PG_FUNCTION_INFO_V1(pgt_resume_stream_table);
PG_FUNCTION_INFO_V1(pgt_pause_all);
PG_FUNCTION_INFO_V1(pgt_resume_all);
PG_FUNCTION_INFO_V1(pgt_export_definition);

/* Text argument n, NULL if it is null. */
static char *
text_or_null(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static const Interval *
interval_or_null(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_INTERVAL_P(n);
}

static char *
text_required(FunctionCallInfo fcinfo, int n, const char *name, const char *hint)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("argument \"%s\" must not be null", name),
						hint != NULL ? errhint("%s", hint) : 0));
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static PgtCreateArguments
create_arguments(FunctionCallInfo fcinfo)
{
	PgtCreateArguments args = {0};

	pgt_extension_check_version();
	args.name = text_required(fcinfo, 0, "name", NULL);
	args.query = text_required(fcinfo, 1, "query", NULL);
	args.schedule = text_required(
		fcinfo, 2, "schedule",
		"Use 'calculated' for a stream table without a schedule of its own.");
	args.refresh_mode = text_required(fcinfo, 3, "refresh_mode",
									  "Use 'AUTO', 'DIFFERENTIAL' or 'FULL'.");
	args.initialize = PG_ARGISNULL(4) || PG_GETARG_BOOL(4);
	args.diamond_consistency = text_or_null(fcinfo, 5);
	args.sla = interval_or_null(fcinfo, 6);
	args.tier = text_or_null(fcinfo, 7);
	args.identity = text_required(fcinfo, 8, "identity", "Use 'full' or 'key'.");
	return args;
}

Datum
pgt_create_stream_table(PG_FUNCTION_ARGS)
{
	PgtCreateArguments args = create_arguments(fcinfo);

	PG_RETURN_OID(pgt_lifecycle_create(&args));
}

/* The stream table that has the name already, or NULL. */
static PgtStreamTable *
find_existing(const char *name)
{
	char *schema;
	char *relname;
	Oid relid;

	pgt_sqltext_split(name, &schema, &relname);
	relid = get_relname_relid(relname, get_namespace_oid(schema, false));
	return OidIsValid(relid) ? pgt_stream_table_find(relid) : NULL;
}

Datum
pgt_create_stream_table_if_not_exists(PG_FUNCTION_ARGS)
{
	PgtCreateArguments args = create_arguments(fcinfo);
	PgtStreamTable *st = find_existing(args.name);

	if (st == NULL)
		PG_RETURN_OID(pgt_lifecycle_create(&args));
	ereport(NOTICE, (errcode(ERRCODE_DUPLICATE_TABLE),
					 errmsg("stream table \"%s\" already exists, skipping", args.name)));
	PG_RETURN_OID(st->relid);
}

Datum
pgt_create_or_replace_stream_table(PG_FUNCTION_ARGS)
{
	PgtCreateArguments args = create_arguments(fcinfo);
	static const Interval no_time = {0};
	PgtStreamTable *st = find_existing(args.name);
	PgtAlterArguments changes = {0};

	if (st == NULL)
		PG_RETURN_OID(pgt_lifecycle_create(&args));
	st = pgt_lifecycle_open(args.name);
	changes.query = args.query;
	changes.schedule = args.schedule;
	changes.refresh_mode = args.refresh_mode;
	changes.diamond_consistency = args.diamond_consistency != NULL ? args.diamond_consistency
																   : "aligned";
	changes.sla = args.sla != NULL ? args.sla : &no_time;
	changes.tier = args.tier != NULL ? args.tier : "auto";
	changes.identity = args.identity;
	if (!pgt_lifecycle_alter(st, &changes))
		ereport(NOTICE, (errmsg("stream table \"%s\" is defined so already, skipping", args.name)));
	PG_RETURN_OID(st->relid);
}

Datum
pgt_alter_stream_table(PG_FUNCTION_ARGS)
{
	char *name = text_required(fcinfo, 0, "name", NULL);
	PgtAlterArguments changes = {0};

	pgt_extension_check_version();
	changes.query = text_or_null(fcinfo, 1);
	changes.schedule = text_or_null(fcinfo, 2);
	changes.refresh_mode = text_or_null(fcinfo, 3);
	changes.status = text_or_null(fcinfo, 4);
	changes.diamond_consistency = text_or_null(fcinfo, 5);
	changes.sla = interval_or_null(fcinfo, 6);
	changes.tier = text_or_null(fcinfo, 7);
	changes.identity = text_or_null(fcinfo, 8);
	changes.cascade = !PG_ARGISNULL(9) && PG_GETARG_BOOL(9);
	(void) pgt_lifecycle_alter(pgt_lifecycle_open(name), &changes);
	PG_RETURN_VOID();
}

Datum
pgt_drop_stream_table(PG_FUNCTION_ARGS)
{
	char *name = text_required(fcinfo, 0, "name", NULL);

	pgt_lifecycle_drop(pgt_lifecycle_open(name), !PG_ARGISNULL(1) && PG_GETARG_BOOL(1));
	PG_RETURN_VOID();
}

Datum
pgt_refresh_stream_table(PG_FUNCTION_ARGS)
{
	PgtStreamTable *st = pgt_stream_table_get(text_required(fcinfo, 0, "name", NULL));

	pgt_extension_check_version();
	pgt_security_check_owner(st->relid);
	pgt_lifecycle_refresh(st, text_or_null(fcinfo, 1));
	PG_RETURN_VOID();
}

/* Microseconds; months count as in extract(epoch). */
static int64
interval_length(const Interval *interval)
{
	return interval->time + (int64) interval->day * USECS_PER_DAY +
		   (int64) interval->month * 30 * USECS_PER_DAY;
}

Datum
pgt_refresh_if_stale(PG_FUNCTION_ARGS)
{
	PgtStreamTable *st = pgt_stream_table_get(text_required(fcinfo, 0, "name", NULL));
	PgtFrontierRow row;
	int64 max_age;

	if (PG_ARGISNULL(1) || (max_age = interval_length(PG_GETARG_INTERVAL_P(1))) < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"max_age\" must be an interval of zero or more"),
						errhint("For example: interval '5 minutes'.")));
	pgt_security_check_owner(st->relid);
	pgt_frontier_get(st->pgt_id, &row);
	if (row.frontier.valid && row.rebuild_reason == NULL &&
		pgt_clock_now() - row.data_timestamp <= max_age)
		PG_RETURN_BOOL(false);
	pgt_lifecycle_refresh(st, NULL);
	PG_RETURN_BOOL(true);
}

Datum
pgt_pause_stream_table(PG_FUNCTION_ARGS)
{
	pgt_lifecycle_pause(pgt_lifecycle_open(text_required(fcinfo, 0, "name", NULL)), true);
	PG_RETURN_VOID();
}

Datum
pgt_resume_stream_table(PG_FUNCTION_ARGS)
{
	pgt_lifecycle_pause(pgt_lifecycle_open(text_required(fcinfo, 0, "name", NULL)), false);
	PG_RETURN_VOID();
}

/* Pauses or resumes those that the caller may change. */
static void
pause_mine(bool pause)
{
	ListCell *lc;

	foreach (lc, pgt_stream_table_list())
	{
		PgtStreamTable *st = lfirst(lc);

		if (!pgt_compat_is_relation_owner(st->relid, GetUserId()))
			continue;
		if (st->paused != pause || !pause)
			pgt_lifecycle_pause(pgt_lifecycle_open(pgt_sqltext_relation(st->relid)), pause);
	}
}

Datum
pgt_pause_all(PG_FUNCTION_ARGS)
{
	pause_mine(true);
	PG_RETURN_VOID();
}

Datum
pgt_resume_all(PG_FUNCTION_ARGS)
{
	pause_mine(false);
	PG_RETURN_VOID();
}

Datum
pgt_export_definition(PG_FUNCTION_ARGS)
{
	PgtStreamTable *st = pgt_stream_table_get(text_required(fcinfo, 0, "st_name", NULL));

	pgt_security_check_reader(st->relid);
	PG_RETURN_TEXT_P(cstring_to_text(pgt_lifecycle_export(st)));
}
