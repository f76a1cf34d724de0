/*
 * cost.c: the fixed threshold between FULL and DIFFERENTIAL.
 *
 * Relies on nothing but the C library; no memory, no state.
 */
#include "pgt_cost.h"

PgtCostVerdict
pgt_cost_by_ratio(const PgtCostSource *sources, int source_count, double max_ratio)
{
	PgtCostVerdict verdict = {PGT_COST_DIFFERENTIAL, "change_ratio_low", -1};
	double all_rows = 0;
	bool all_known = true;

	for (int i = 0; i < source_count; i++)
	{
		const PgtCostSource *source = &sources[i];
		double ratio;

		if (source->truncated)
			return (PgtCostVerdict){PGT_COST_FULL, "source_truncated", -1};
		if (source->rows < 0)
		{
			all_known = false;
			continue;
		}
		all_rows += source->rows;
		/* More changes than rows: they were changed repeatedly, or deleted. */
		if (source->pending_rows <= 0)
			ratio = 0;
		else
			ratio = source->rows < source->pending_rows ? 1 : source->pending_rows / source->rows;
		if (ratio > verdict.change_ratio)
			verdict.change_ratio = ratio;
	}
	if (all_known && all_rows <= PGT_COST_SMALL)
		verdict.reason = "sources_small";
	else if (verdict.change_ratio > max_ratio)
	{
		verdict.mode = PGT_COST_FULL;
		verdict.reason = "change_ratio_exceeded";
	}
	else if (!all_known)
		verdict.reason = "source_size_unknown";
	return verdict;
}
