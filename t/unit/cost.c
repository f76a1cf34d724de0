/*
 * cost.c: the fixed threshold between FULL and DIFFERENTIAL.
 *
 * link: worker/policy/cost.c
 */
#include "pgt_cost.h"
#include "pgt_test.h"

static PgtCostVerdict
judge(double pending_rows, double rows, double max_ratio)
{
	/* The second source makes the first one not small, and has not changed. */
	const PgtCostSource sources[] = {{pending_rows, rows, false}, {0, 100000, false}};

	return pgt_cost_by_ratio(sources, 2, max_ratio);
}

int
main(void)
{
	const PgtCostSource truncated[] = {{1, 100000, false}, {0, 10, true}};
	const PgtCostSource small[] = {{400, 500, false}, {5, 500, false}};
	const PgtCostSource unknown[] = {{400, -1, false}, {20000, 100000, false}};

	is_int(judge(15, 100, 0.15).mode, PGT_COST_DIFFERENTIAL, "at the threshold: incremental");
	is_str(judge(15, 100, 0.15).reason, "change_ratio_low", "with its reason");
	is_int(judge(16, 100, 0.15).mode, PGT_COST_FULL, "above it: full");
	is_str(judge(16, 100, 0.15).reason, "change_ratio_exceeded", "with its reason");
	ok(judge(16, 100, 0.15).change_ratio == 0.16, "and the ratio");
	is_int(judge(1, 1000000, 0).mode, PGT_COST_FULL, "threshold 0: any change is too much");
	is_int(judge(5000, 100, 1).mode, PGT_COST_DIFFERENTIAL, "threshold 1: none is");
	ok(judge(5000, 100, 1).change_ratio == 1, "more changes than rows are all of them");
	is_int(judge(10, 0, 0.15).mode, PGT_COST_FULL, "everything deleted: full");
	is_int(judge(0, 0, 0.15).mode, PGT_COST_DIFFERENTIAL, "nothing changed: incremental");
	is_int(judge(1e9, -1, 0.15).mode, PGT_COST_DIFFERENTIAL, "size not known: incremental");
	is_str(judge(1e9, -1, 0.15).reason, "source_size_unknown", "with its reason");
	is_int(pgt_cost_by_ratio(unknown, 2, 0.15).mode, PGT_COST_FULL,
		   "one not known does not hide another");
	is_int(pgt_cost_by_ratio(truncated, 2, 1).mode, PGT_COST_FULL, "truncated: full");
	is_str(pgt_cost_by_ratio(truncated, 2, 1).reason, "source_truncated", "with its reason");
	is_int(pgt_cost_by_ratio(small, 2, 0.15).mode, PGT_COST_DIFFERENTIAL,
		   "small sources: incremental");
	is_str(pgt_cost_by_ratio(small, 2, 0.15).reason, "sources_small", "with its reason");
	is_int(pgt_cost_by_ratio(NULL, 0, 0.15).mode, PGT_COST_DIFFERENTIAL, "no source at all");
	return test_done();
}
