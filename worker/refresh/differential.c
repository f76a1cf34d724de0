/*
 * differential.c: only what changed: each stage whose inputs changed, in order.
 *
 * What a stage really changed (not what the delta asked for) is the change set
 * of the stages that read it.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "pgt_clock.h"
#include "pgt_point.h"

#include "refresh_internal.h"

static bool
inputs_changed(const Refresh *refresh, const PgtStage *stage)
{
	ListCell *lc;

	foreach (lc, refresh->changes)
	{
		PgtChangeSet *changes = lfirst(lc);

		if (changes->nrows > 0 && list_member_oid(stage->inputs, changes->relid))
			return true;
	}
	return false;
}

/* Result of an AKR stage: the rows of its touched keys. False: nothing was touched. */
static bool
recompute(Refresh *refresh, const PgtStage *stage, int index, PgtDeltaInput *input,
		  PgtDeltaRows **keys, PgtDeltaRows **rows)
{
	/* The states do not follow: later aggregation must not trust them. */
	refresh->stale_states = refresh->stale_states || OidIsValid(stage->state_relid);
	*keys = NULL;
	if (stage->identity == PGT_IDENTITY_SINGLE)
	{
		*rows = pgt_delta_all(refresh->delta, index, input);
		return true;
	}
	*keys = pgt_delta_keys(refresh->delta, index, input);
	if ((*keys)->nrows == 0)
		return false;
	*rows = pgt_delta_rows_of_keys(refresh->delta, index, input, *keys);
	return true;
}

/* Computes and applies the stage's delta, each technique in its own way. False: a misfit. */
static bool
run_technique(Refresh *refresh, const PgtStage *stage, int index, PgtDeltaInput *input,
			  Apply *apply)
{
	TimestampTz start = pgt_clock_now();
	PgtDeltaRows *keys;
	PgtDeltaRows *rows;
	bool touched = true;

	switch (stage->technique)
	{
		case PGT_TECHNIQUE_AGGREGATE:
			return pgt_aggregate_run(refresh, stage, index, input, apply);
		case PGT_TECHNIQUE_LINEAR:
			rows = pgt_delta_signed(refresh->delta, index, input);
			refresh->delta_ms += pgt_clock_ms_between(start, pgt_clock_now());
			return pgt_apply_signed(apply, rows);
		case PGT_TECHNIQUE_AKR:
			touched = recompute(refresh, stage, index, input, &keys, &rows);
			refresh->delta_ms += pgt_clock_ms_between(start, pgt_clock_now());
			return !touched || pgt_apply_replace(apply, keys, rows);
		default:
			elog(ERROR, "stage %d cannot be refreshed incrementally", stage->number);
	}
	return false;
}

static bool
run_stage(Refresh *refresh, const PgtStage *stage, int index, bool last, const char **misfit)
{
	PgtDeltaInput input = {refresh->snapshot, refresh->changes};
	TimestampTz start = pgt_clock_now();
	double delta_before = refresh->delta_ms;
	Apply *apply = pgt_apply_begin(stage->relid, stage, false);
	bool fits;

	if (last)
	{
		apply->before_write = pgt_announce_open;
		apply->before_write_arg = refresh;
		pgt_apply_publish(apply);
	}
	else
		pgt_apply_collect(apply);
	PGT_POINT("refresh-before-apply");
	fits = run_technique(refresh, stage, index, &input, apply);
	if (!fits)
		*misfit = psprintf("%s (stage %d)", apply->misfit, stage->number);
	pgt_apply_finish(apply);
	if (last)
		pgt_refresh_count(refresh, apply);
	else if (apply->effect->nrows > 0)
		refresh->changes = lappend(refresh->changes, apply->effect);
	refresh->apply_ms += pgt_clock_ms_between(start, pgt_clock_now()) -
						 (refresh->delta_ms - delta_before);
	return fits;
}

/* False, and why, if a delta did not fit: then everything has to be computed. */
bool
pgt_differential_run(Refresh *refresh, const char **misfit)
{
	int last = list_length(refresh->definition->stages) - 1;
	TimestampTz start = pgt_clock_now();
	ListCell *lc;

	foreach (lc, refresh->changes)
		pgt_consolidate(lfirst(lc));
	refresh->delta_ms += pgt_clock_ms_between(start, pgt_clock_now());
	foreach (lc, refresh->definition->stages)
	{
		const PgtStage *stage = lfirst(lc);
		int index = foreach_current_index(lc);

		if (inputs_changed(refresh, stage) &&
			!run_stage(refresh, stage, index, index == last, misfit))
			return false;
	}
	return true;
}
