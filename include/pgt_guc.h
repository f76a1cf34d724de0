/*
 * pgt_guc.h: the settings of pg_trickle, all under the prefix "pg_trickle.".
 *
 * One row per setting in the tables of worker/base/guc.c; the variables below
 * are read-only for everybody else.
 */
#ifndef PGT_GUC_H
#define PGT_GUC_H

#include "postgres.h"

typedef enum PgtVolatilePolicy
{
	PGT_VOLATILE_REJECT,
	PGT_VOLATILE_WARN,
	PGT_VOLATILE_ALLOW
} PgtVolatilePolicy;

extern bool pgt_guc_enabled;			   /* the scheduler refreshes at all */
extern int pgt_guc_scheduler_interval;	   /* ms between fallback scans */
extern int pgt_guc_max_parallel_workers;   /* 0: the coordinator refreshes by itself */
extern double pgt_guc_max_change_ratio;	   /* AUTO goes FULL above this */
extern int pgt_guc_prediction_min_samples; /* 0: no forecasts */
extern int pgt_guc_prediction_window;	   /* min, of df_threshold_advice */
extern double pgt_guc_prediction_ratio;	   /* AUTO goes FULL if forecast above so many times */
extern int pgt_guc_max_errors;			   /* failures in a row until SUSPENDED */
extern int pgt_guc_max_refresh_runtime;	   /* ms; 0 is no limit */
extern int pgt_guc_lock_timeout;		   /* ms, of a scheduled refresh */
extern int pgt_guc_index_hint_pages;	   /* tables below are not worth an index; -1: no hints */
extern int pgt_guc_max_stage_rows;	   /* a bigger stage is not stored; -1: stored in any case */
extern int pgt_guc_plan_cache_size;	   /* kB for kept plans, per session */
extern int pgt_guc_history_days;	   /* retention of pgt_refresh_history */
extern int pgt_guc_heartbeat_interval; /* s between heartbeats in the WAL; 0: none */
extern int pgt_guc_buffer_alert_size;  /* MB of a change buffer; 0 is never */
extern bool pgt_guc_block_source_ddl;
extern int pgt_guc_volatile_policy; /* PgtVolatilePolicy */
extern char *pgt_guc_timezone;		/* of cron schedules; '' is the server's */
extern char *pgt_guc_databases;		/* '*' or a list of names */
extern bool pgt_guc_log_refreshes;
#ifdef PGT_TEST_POINTS
extern char *pgt_guc_test_points;	  /* see pgt_point.h */
extern bool pgt_guc_verify;			  /* a delta that does not fit is an error */
extern char *pgt_guc_force_technique; /* "" or "akr" */
extern int pgt_guc_test_clock_offset; /* seconds that pgt_clock_now is ahead */
#endif

/* Defines every setting and reserves the prefix; called once by _PG_init. */
extern void pgt_guc_init(void);

#endif /* PGT_GUC_H */
