/*
 * decide.c: what a refresh shall do, and why.
 *
 * In order: what makes a delta impossible (never refreshed, marked for rebuild,
 * changes that may be missing), what was asked for, whether anything changed,
 * and in mode AUTO which way is cheaper: by forecast (worker/policy/forecast.c),
 * or, where too little is known for one, by the share of rows that changed
 * (worker/policy/cost.c). Reads only.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "optimizer/optimizer.h"
#include "optimizer/plancat.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "pgt_cost.h"
#include "pgt_guc.h"

#include "refresh_internal.h"

static double
estimate_rows(Oid relid)
{
	double sum = 0;
	ListCell *lc;

	foreach (lc, find_all_inheritors(relid, AccessShareLock, NULL))
	{
		Relation relation = table_open(lfirst_oid(lc), NoLock);

		if (relation->rd_rel->relkind == RELKIND_RELATION ||
			relation->rd_rel->relkind == RELKIND_MATVIEW)
		{
			BlockNumber pages;
			double tuples;
			double visible;

			estimate_rel_size(relation, NULL, &pages, &tuples, &visible);
			sum += tuples;
		}
		table_close(relation, NoLock);
	}
	return sum;
}

double
pgt_decide_source_rows(const Refresh *refresh)
{
	double sum = 0;
	ListCell *lc;

	foreach (lc, refresh->captured)
		sum += estimate_rows(((PgtSourceUse *) lfirst(lc))->relid);
	return sum;
}

static bool
is_full_cheaper_by_ratio(const Refresh *refresh, const char **reason)
{
	int count = list_length(refresh->changes);
	PgtCostSource *sources = palloc0(sizeof(PgtCostSource) * Max(count, 1));
	PgtCostVerdict verdict;
	ListCell *lc;

	if (refresh->result.rows_in <= PGT_COST_SMALL / 10)
		return false; /* not worth a look at the sources' sizes */
	foreach (lc, refresh->changes)
	{
		PgtChangeSet *changes = lfirst(lc);
		PgtCostSource *source = &sources[foreach_current_index(lc)];

		source->pending_rows = changes->nrows;
		source->rows = estimate_rows(changes->relid);
	}
	verdict = pgt_cost_by_ratio(sources, count, pgt_guc_max_change_ratio);
	*reason = verdict.reason;
	return verdict.mode == PGT_COST_FULL;
}

static bool
is_full_cheaper(Refresh *refresh, const char **reason)
{
	int64 rows = refresh->result.rows_in;

	refresh->forecast = pgt_forecast_choose(
		pgt_refresh_model(refresh), rows,
		/* so few are not worth a look at the sources' sizes */
		rows > PGT_COST_SMALL / 10 ? pgt_decide_source_rows(refresh) : 0,
		pgt_guc_prediction_min_samples, pgt_guc_prediction_ratio);
	*reason = refresh->forecast.probe ? "forecast_probe" : "predicted_cost_exceeds_full";
	return refresh->forecast.choice == PGT_FORECAST_UNKNOWN
			   ? is_full_cheaper_by_ratio(refresh, reason)
			   : refresh->forecast.choice == PGT_FORECAST_FULL;
}

/* What the request and the configuration ask for, as a mode. */
static PgtRefreshMode
get_mode(const Refresh *refresh)
{
	if (refresh->request->mode == NULL)
		return refresh->st->mode;
	return pgt_refresh_mode_parse(refresh->request->mode);
}

Decision
pgt_decide_action(Refresh *refresh)
{
	const char *full_reason = refresh->definition->full_reason;
	PgtRefreshMode mode = get_mode(refresh);
	bool forced = refresh->request->mode != NULL && mode == PGT_MODE_FULL;
	const char *reason = NULL;

	if (refresh->request->mode != NULL && mode == PGT_MODE_DIFFERENTIAL && full_reason != NULL)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("stream table \"%s\" cannot be refreshed incrementally",
							   get_rel_name(refresh->st->relid)),
						errdetail("Reason: %s.", full_reason),
						errhint("Refresh it with mode FULL or AUTO.")));
	if (refresh->row.rebuild_reason != NULL)
		return (Decision){"REINITIALIZE", refresh->row.rebuild_reason};
	if (refresh->broken != NULL)
		return (Decision){"REINITIALIZE", refresh->broken};
	if (!refresh->row.frontier.valid)
	{
		if (refresh->row.last_refresh_at != 0)
			return (Decision){"REINITIALIZE", "the frontier is not of this database"};
		return (Decision){"FULL", "first refresh"};
	}
	if (forced)
		return (Decision){"FULL", "requested"};
	if (refresh->truncated)
		return (Decision){"FULL", "source_truncated"};
	if (refresh->sees_all && refresh->result.rows_in == 0)
		return (Decision){"NO_DATA", NULL};
	if (full_reason != NULL)
		return (Decision){"FULL", full_reason};
	/* Meanwhile only the last stage was computed, if any: the others are of some earlier time. */
	if (refresh->st->full_reason != NULL)
		return (Decision){"REINITIALIZE", "the query can be maintained incrementally again"};
	if (mode == PGT_MODE_FULL)
		return (Decision){"FULL", "refresh mode is FULL"};
	if (mode == PGT_MODE_AUTO && is_full_cheaper(refresh, &reason))
		return (Decision){"FULL", reason};
	return (Decision){"DIFFERENTIAL", refresh->forecast.probe ? reason : NULL};
}
