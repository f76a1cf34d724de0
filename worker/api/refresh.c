/*
 * refresh.c: refreshing on request, pausing and resuming.
 */
#include "postgres.h"

#include "utils/lsyscache.h"

#include "pgt_frontier.h"
#include "pgt_progress.h"
#include "pgt_refresh.h"

#include "api_internal.h"

void
pgt_lifecycle_run(const PgtRefreshRequest *request)
{
	pgt_progress_begin(request->pgt_id, request->initiated_by, pgt_stream_table_relid);
	(void) pgt_refresh_run(request);
	pgt_progress_end();
}

void
pgt_lifecycle_refresh(PgtStreamTable *st, const char *mode)
{
	PgtRefreshRequest request = {
		.pgt_id = st->pgt_id, .initiated_by = "MANUAL", .attempt = 1, .recompute_on_error = true};

	pgt_lifecycle_check_isolation();
	if (mode != NULL)
		request.mode = pgt_refresh_mode_name(pgt_refresh_mode_parse(mode));
	if (st->paused)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("stream table \"%s\" is suspended", get_rel_name(st->relid)),
						errdetail("It was paused by a user."),
						errhint("Use pgtrickle.resume_stream_table().")));
	pgt_lifecycle_run(&request);
}

void
pgt_lifecycle_pause(PgtStreamTable *st, bool pause)
{
	if (st->paused != pause)
	{
		st->paused = pause;
		pgt_stream_table_update(st);
	}
	if (!pause)
		pgt_frontier_clear_error(st->pgt_id);
}
