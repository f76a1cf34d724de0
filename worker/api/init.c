/*
 * init.c: what happens when the library is loaded.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "pgt_capture.h"
#include "pgt_delta.h"
#include "pgt_guc.h"
#include "pgt_progress.h"
#include "pgt_refresh.h"
#include "pgt_sched.h"
#include "pgt_shmem.h"
#include "pgt_wake.h"

#include "api_internal.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	pgt_guc_init();
	pgt_wake_init();
	pgt_progress_init();
	pgt_sched_init();
	pgt_shmem_init();
	pgt_delta_source_reason = pgt_capture_reason;
	pgt_refresh_make_anew = pgt_lifecycle_make_anew;
}
