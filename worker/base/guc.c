/*
 * guc.c: the settings, one row each.
 *
 * Owns the variables declared in pgt_guc.h. Every value is checked when it is
 * set, so that a wrong value never reaches a refresh.
 */
#include "postgres.h"

#include <limits.h>

#include "pgtime.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "pgt_guc.h"

bool pgt_guc_enabled = true;
int pgt_guc_scheduler_interval = 10000;
int pgt_guc_max_parallel_workers = 0;
double pgt_guc_max_change_ratio = 0.15;
int pgt_guc_prediction_min_samples = 5;
int pgt_guc_prediction_window = 60;
double pgt_guc_prediction_ratio = 1.5;
int pgt_guc_max_errors = 5;
int pgt_guc_max_refresh_runtime = 0;
int pgt_guc_lock_timeout = 5000;
int pgt_guc_history_days = 90;
int pgt_guc_buffer_alert_size = 1024;
int pgt_guc_heartbeat_interval = 0;
int pgt_guc_index_hint_pages = 64;
int pgt_guc_max_stage_rows = 10000000;
int pgt_guc_plan_cache_size = 32768;
bool pgt_guc_block_source_ddl = true;
int pgt_guc_volatile_policy = PGT_VOLATILE_REJECT;
char *pgt_guc_timezone = NULL;
char *pgt_guc_databases = NULL;
bool pgt_guc_log_refreshes = false;
#ifdef PGT_TEST_POINTS
char *pgt_guc_test_points = NULL;
bool pgt_guc_verify = true;
char *pgt_guc_force_technique = NULL;
int pgt_guc_test_clock_offset = 0;
#endif

static bool check_timezone(char **newval, void **extra, GucSource source);
static bool check_databases(char **newval, void **extra, GucSource source);

typedef struct BoolSetting
{
	const char *name;
	const char *description;
	bool *variable;
	bool boot;
	GucContext context;
} BoolSetting;

typedef struct IntSetting
{
	const char *name;
	const char *description;
	int *variable;
	int boot;
	int min;
	int max;
	GucContext context;
	int flags;
} IntSetting;

typedef struct StringSetting
{
	const char *name;
	const char *description;
	char **variable;
	const char *boot;
	GucContext context;
	GucStringCheckHook check;
} StringSetting;

static const struct config_enum_entry volatile_policies[] = {{"reject", PGT_VOLATILE_REJECT, false},
															 {"warn", PGT_VOLATILE_WARN, false},
															 {"allow", PGT_VOLATILE_ALLOW, false},
															 {NULL, 0, false}};

static const BoolSetting bool_settings[] = {
	{"pg_trickle.enabled", "Lets the scheduler refresh stream tables.", &pgt_guc_enabled, true,
	 PGC_SIGHUP},
	{"pg_trickle.block_source_ddl",
	 "Refuses changes of a source that a stream table sees, instead of marking it for rebuild.",
	 &pgt_guc_block_source_ddl, true, PGC_SUSET},
	{"pg_trickle.log_refreshes", "Writes a line to the server log for every refresh.",
	 &pgt_guc_log_refreshes, false, PGC_SUSET},
#ifdef PGT_TEST_POINTS
	{"pg_trickle.verify", "Test builds: a delta that does not fit is an error, not a repair.",
	 &pgt_guc_verify, true, PGC_USERSET},
#endif
};

static const IntSetting int_settings[] = {
	{"pg_trickle.scheduler_interval_ms",
	 "Longest time between two looks of the scheduler at all stream tables.",
	 &pgt_guc_scheduler_interval, 10000, 100, 3600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"pg_trickle.max_parallel_workers",
	 "Most background workers that refresh stream tables at once; 0 leaves it to the scheduler.",
	 &pgt_guc_max_parallel_workers, 0, 0, 32, PGC_SIGHUP, 0},
	{"pg_trickle.max_consecutive_errors",
	 "Failed refreshes in a row after which a stream table is suspended.", &pgt_guc_max_errors, 5,
	 1, 1000, PGC_SIGHUP, 0},
	{"pg_trickle.prediction_min_samples",
	 "Differential refreshes from which on AUTO decides by forecast; 0 turns forecasts off.",
	 &pgt_guc_prediction_min_samples, 5, 0, 1000, PGC_SUSET, 0},
	{"pg_trickle.prediction_window", "Span of history that pgtrickle.df_threshold_advice looks at.",
	 &pgt_guc_prediction_window, 60, 5, 1440, PGC_SUSET, GUC_UNIT_MIN},
	{"pg_trickle.max_refresh_runtime", "Longest time a scheduled refresh may take; 0 is no limit.",
	 &pgt_guc_max_refresh_runtime, 0, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS},
	{"pg_trickle.lock_timeout", "Longest wait of a scheduled refresh for a lock; 0 is no limit.",
	 &pgt_guc_lock_timeout, 5000, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS},
	{"pg_trickle.history_retention_days",
	 "Days that rows of pgtrickle.pgt_refresh_history are kept.", &pgt_guc_history_days, 90, 1,
	 36500, PGC_SIGHUP, 0},
	{"pg_trickle.buffer_alert_size",
	 "Size of a change buffer above which the scheduler sends an alert; 0 is never.",
	 &pgt_guc_buffer_alert_size, 1024, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MB},
	{"pg_trickle.heartbeat_interval",
	 "Time between heartbeats in the WAL of databases with logical slots; 0 is none.",
	 &pgt_guc_heartbeat_interval, 0, 0, 86400, PGC_SIGHUP, GUC_UNIT_S},
	{"pg_trickle.index_hint_pages",
	 "Size of a table from which on a missing index is worth a hint; -1 gives none.",
	 &pgt_guc_index_hint_pages, 64, -1, INT_MAX, PGC_USERSET, GUC_UNIT_BLOCKS},
	{"pg_trickle.max_stage_rows",
	 "Estimated rows above which a stage of a new query is not stored where it need not; -1 stores "
	 "all.",
	 &pgt_guc_max_stage_rows, 10000000, -1, INT_MAX, PGC_USERSET, 0},
	{"pg_trickle.plan_cache_size",
	 "Memory of a session for kept plans of refreshes; what was used longest ago goes.",
	 &pgt_guc_plan_cache_size, 32768, 64, MAX_KILOBYTES, PGC_USERSET, GUC_UNIT_KB},
#ifdef PGT_TEST_POINTS
	{"pg_trickle.test_clock_offset", "Test builds: seconds that the clock is ahead.",
	 &pgt_guc_test_clock_offset, 0, INT_MIN, INT_MAX, PGC_SIGHUP, GUC_UNIT_S},
#endif
};

static const StringSetting string_settings[] = {
	{"pg_trickle.timezone", "Time zone in which cron schedules are read; empty is the server's.",
	 &pgt_guc_timezone, "", PGC_SIGHUP, check_timezone},
	{"pg_trickle.databases",
	 "Databases in which the scheduler runs: a list of names, or * for all.", &pgt_guc_databases,
	 "*", PGC_SIGHUP, check_databases},
#ifdef PGT_TEST_POINTS
	{"pg_trickle.test_points", "Test builds: what happens at named points of the code.",
	 &pgt_guc_test_points, "", PGC_USERSET, NULL},
	{"pg_trickle.force_technique",
	 "Test builds: akr, to recompute where folding is possible; 2kr, to store no stage that need not.",
	 &pgt_guc_force_technique, "", PGC_USERSET, NULL},
#endif
};

static bool
check_timezone(char **newval, void **extra, GucSource source)
{
	if ((*newval)[0] == '\0' || pg_tzset(*newval) != NULL)
		return true;
	GUC_check_errdetail("There is no time zone named \"%s\".", *newval);
	return false;
}

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char *copy = pstrdup(*newval);
	List *names = NIL;
	bool ok = strcmp(*newval, "*") == 0 || SplitIdentifierString(copy, ',', &names);

	if (!ok)
		GUC_check_errdetail("It must be * or a list of database names, separated by commas.");
	list_free(names);
	pfree(copy);
	return ok;
}

void
pgt_guc_init(void)
{
	for (int i = 0; i < lengthof(bool_settings); i++)
	{
		const BoolSetting *s = &bool_settings[i];

		DefineCustomBoolVariable(s->name, s->description, NULL, s->variable, s->boot, s->context, 0,
								 NULL, NULL, NULL);
	}
	for (int i = 0; i < lengthof(int_settings); i++)
	{
		const IntSetting *s = &int_settings[i];

		DefineCustomIntVariable(s->name, s->description, NULL, s->variable, s->boot, s->min, s->max,
								s->context, s->flags, NULL, NULL, NULL);
	}
	for (int i = 0; i < lengthof(string_settings); i++)
	{
		const StringSetting *s = &string_settings[i];

		DefineCustomStringVariable(s->name, s->description, NULL, s->variable, s->boot, s->context,
								   0, s->check, NULL, NULL);
	}
	DefineCustomRealVariable("pg_trickle.differential_max_change_ratio",
							 "Share of changed source rows above which AUTO refreshes in full.",
							 NULL, &pgt_guc_max_change_ratio, 0.15, 0.0, 1.0, PGC_SUSET, 0, NULL,
							 NULL, NULL);
	DefineCustomRealVariable(
		"pg_trickle.prediction_ratio",
		"AUTO refreshes in full if a differential refresh is forecast to take so many times as long.",
		NULL, &pgt_guc_prediction_ratio, 1.5, 1.0, 10.0, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("pg_trickle.volatile_function_policy",
							 "What happens to a defining query that calls a volatile function.",
							 NULL, &pgt_guc_volatile_policy, PGT_VOLATILE_REJECT, volatile_policies,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("pg_trickle");
}
