/*
 * differential.c: only what changed: each stage whose inputs changed, in order.
 *
 * What a stage really changed (not what the delta asked for) is the change set
 * of the stages that read it.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/elog.h"
#include "utils/resowner.h"

#include "pgt_clock.h"
#include "pgt_point.h"
#include "pgt_retry.h"

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

/* What a stage's statements gave. */
typedef struct StageDelta
{
	PgtDeltaRows *keys; /* AKR and PARTITION, unless everything is one */
	PgtDeltaRows *rows; /* NULL: no key was touched */
} StageDelta;

static void
compute_keys(Refresh *refresh, const PgtStage *stage, int index, PgtDeltaInput *input,
			 StageDelta *delta)
{
	/* The states do not follow: later aggregation must not trust them. */
	refresh->stale_states = refresh->stale_states || OidIsValid(stage->state_relid);
	delta->keys = pgt_delta_keys(refresh->delta, index, input);
	if (delta->keys->nrows == 0)
		return;
	/* Without columns the key only says that something was touched. */
	if (delta->keys->desc->natts == 0)
		delta->keys = NULL;
	delta->rows = pgt_delta_rows_of_keys(refresh->delta, index, input, delta->keys);
	pgt_storage_fit_rows(stage, delta->rows, 0);
}

/* Everything is computed before anything of the stage is written. */
static void
compute_delta(Refresh *refresh, const PgtStage *stage, int index, PgtDeltaInput *input,
			  StageDelta *delta)
{
	switch (stage->technique)
	{
		case PGT_TECHNIQUE_AGGREGATE:
			delta->rows = pgt_delta_inputs(refresh->delta, index, input);
			pgt_storage_fit_keys(stage, delta->rows, 1);
			break;
		case PGT_TECHNIQUE_LINEAR:
			delta->rows = pgt_delta_signed(refresh->delta, index, input);
			pgt_storage_fit_rows(stage, delta->rows, 1);
			break;
		case PGT_TECHNIQUE_AKR:
		case PGT_TECHNIQUE_PARTITION:
			compute_keys(refresh, stage, index, input, delta);
			break;
		default:
			elog(ERROR, "stage %d cannot be refreshed incrementally", stage->number);
	}
}

static bool
apply_delta(Refresh *refresh, const PgtStage *stage, int index, PgtDeltaInput *input,
			StageDelta *delta, Apply *apply)
{
	switch (stage->technique)
	{
		case PGT_TECHNIQUE_AGGREGATE:
			return pgt_aggregate_run(refresh, stage, index, input, delta->rows, apply);
		case PGT_TECHNIQUE_LINEAR:
			return pgt_apply_signed(apply, delta->rows);
		case PGT_TECHNIQUE_PARTITION:
			return pgt_partition_apply(apply, delta->keys, delta->rows);
		default:
			return pgt_apply_replace(apply, delta->keys, delta->rows);
	}
}

/* Adds the rows of a key set in one state to a change set. */
static void
add_rows(PgtChangeSet *changes, PgtDeltaRows *rows, int weight)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
	Datum *values = palloc(sizeof(Datum) * (changes->ncolumns + 1));
	bool *isnull = palloc(sizeof(bool) * (changes->ncolumns + 1));

	values[0] = Int32GetDatum(weight);
	isnull[0] = false;
	tuplestore_rescan(rows->rows);
	while (tuplestore_gettupleslot(rows->rows, true, false, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		memcpy(values + 1, slot->tts_values, sizeof(Datum) * changes->ncolumns);
		memcpy(isnull + 1, slot->tts_isnull, sizeof(bool) * changes->ncolumns);
		tuplestore_putvalues(changes->rows, changes->desc, values, isnull);
		changes->nrows++;
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(rows->rows);
}

/*
 * A stage that is not stored: what is new of its touched keys, minus what was
 * there. Rows on both sides go away.
 */
static void
run_virtual(Refresh *refresh, const PgtStage *stage, int index)
{
	PgtDeltaInput input = {refresh->snapshot, refresh->changes};
	TimestampTz start = pgt_clock_now();
	PgtDeltaRows *keys = pgt_delta_keys(refresh->delta, index, &input);

	if (keys->nrows > 0)
	{
		Relation relation = table_open(stage->relid, AccessShareLock);
		PgtChangeSet *changes = pgt_apply_make_changes(relation);

		table_close(relation, NoLock);
		add_rows(changes, pgt_delta_rows_of_keys(refresh->delta, index, &input, keys), 1);
		add_rows(changes, pgt_delta_old_rows_of_keys(refresh->delta, index, &input, keys), -1);
		pgt_consolidate(changes);
		refresh->changes = lappend(refresh->changes, changes);
	}
	refresh->delta_ms += pgt_clock_ms_between(start, pgt_clock_now());
}

static bool
run_stage(Refresh *refresh, const PgtStage *stage, int index, bool last, const char **misfit)
{
	PgtDeltaInput input = {refresh->snapshot, refresh->changes};
	TimestampTz start = pgt_clock_now();
	TimestampTz middle;
	StageDelta delta = {NULL, NULL};
	Apply *apply;
	bool fits;

	compute_delta(refresh, stage, index, &input, &delta);
	middle = pgt_clock_now();
	refresh->delta_ms += pgt_clock_ms_between(start, middle);
	PGT_POINT("refresh-before-apply");
	if (delta.rows == NULL)
		return true;
	apply = pgt_apply_begin(stage->relid, stage, false);
	if (last)
	{
		apply->before_write = pgt_announce_open;
		apply->before_write_arg = refresh;
		pgt_apply_publish(apply);
	}
	else
		pgt_apply_collect(apply);
	fits = apply_delta(refresh, stage, index, &input, &delta, apply);
	if (!fits)
		*misfit = psprintf("%s (stage %d)", apply->misfit, stage->number);
	pgt_apply_finish(apply);
	if (last)
		pgt_refresh_count(refresh, apply);
	else if (apply->effect->nrows > 0)
		refresh->changes = lappend(refresh->changes, apply->effect);
	refresh->apply_ms += pgt_clock_ms_between(middle, pgt_clock_now());
	return fits;
}

/* Changes that cancel are not evaluated. */
void
pgt_differential_prepare(Refresh *refresh)
{
	TimestampTz start = pgt_clock_now();
	ListCell *lc;

	foreach (lc, refresh->changes)
		pgt_consolidate(lfirst(lc));
	refresh->delta_ms += pgt_clock_ms_between(start, pgt_clock_now());
}

/* False, and why, if a delta did not fit: then everything has to be computed. */
bool
pgt_differential_run(Refresh *refresh, const char **misfit)
{
	int last = list_length(refresh->definition->stages) - 1;
	ListCell *lc;

	foreach (lc, refresh->definition->stages)
	{
		const PgtStage *stage = lfirst(lc);
		int index = foreach_current_index(lc);

		if (!inputs_changed(refresh, stage))
			continue;
		if (stage->is_virtual)
			run_virtual(refresh, stage, index);
		else if (!run_stage(refresh, stage, index, index == last, misfit))
			return false;
	}
	return true;
}

/* ---- With an error that may be one of the delta alone ---- */

/* What stages changed goes before their subtransaction does, with the files it may have. */
static void
forget_effects(Refresh *refresh, int sources)
{
	while (list_length(refresh->changes) > sources)
	{
		tuplestore_end(((PgtChangeSet *) llast(refresh->changes))->rows);
		refresh->changes = list_delete_last(refresh->changes);
	}
}

static bool
is_error_of_data(const ErrorData *error)
{
	return pgt_retry_classify(unpack_sql_state(error->sqlerrcode), false, false) ==
		   PGT_FAILURE_DATA;
}

/*
 * In a subtransaction: what a delta refresh must be able to take back.
 *
 * It may take longer than computing everything (refresh->forecast.limit_ms).
 * And a delta may compute with pairs of rows that were never there together, one
 * from before a change and one from after another. If that is an error
 * (division by zero, overflow), it need not be one of the result. Returns it,
 * with all that was done undone; NULL if there was none, and then *fits as
 * from pgt_differential_run.
 */
const char *
pgt_differential_try(Refresh *refresh, bool *fits, const char **misfit)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	List *sources = list_copy(refresh->changes);
	Refresh before = *refresh;
	const char *volatile message = NULL;
	volatile bool limited;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	limited = pgt_budget_begin(refresh->forecast.limit_ms);
	PG_TRY();
	{
		*fits = pgt_differential_run(refresh, misfit);
		(void) pgt_budget_end(limited);
		limited = false;
		forget_effects(refresh, list_length(sources));
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		bool spent = pgt_budget_end(limited);
		ErrorData *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		spent = (spent && error->sqlerrcode == ERRCODE_QUERY_CANCELED) ||
				error->sqlerrcode == ERRCODE_STATEMENT_TOO_COMPLEX ||
				error->sqlerrcode == ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
		if (!spent && (!refresh->request->recompute_on_error || !is_error_of_data(error)))
			ReThrowError(error);
		*refresh = before;
		refresh->changes = sources;
		refresh->abandoned = spent;
		message = error->message;
	}
	PG_END_TRY();
	return message;
}
