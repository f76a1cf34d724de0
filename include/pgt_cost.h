/*
 * pgt_cost.h: which way of refreshing is cheaper. Module: policy
 *
 * Plain C99 without PostgreSQL. Each rule is one function from facts to a
 * verdict; worker/refresh/decide.c asks only where both ways are possible.
 */
#ifndef PGT_COST_H
#define PGT_COST_H

#include <stdbool.h>

typedef enum PgtCostMode
{
	PGT_COST_DIFFERENTIAL,
	PGT_COST_FULL
} PgtCostMode;

typedef struct PgtCostVerdict
{
	PgtCostMode mode;
	const char *reason;	 /* for refresh_reason: a constant word */
	double change_ratio; /* pending rows per source row; -1 if not known */
} PgtCostVerdict;

typedef struct PgtCostSource
{
	double pending_rows; /* change rows not yet taken over */
	double rows;		 /* of the source now; below 0 if not known */
	bool truncated;		 /* a TRUNCATE is among the pending changes */
} PgtCostSource;

/*
 * The fixed threshold: FULL if a source was truncated, or if more than max_ratio of
 * its rows changed; 1 means never for the second reason. Each source counts for
 * itself: when most of a small table changes, most of a join with it changes, however
 * large the rest. Sources of at most PGT_COST_SMALL rows together are maintained
 * incrementally: either way takes no time, and then the rows that did not change
 * are best left alone.
 */
#define PGT_COST_SMALL 1000
extern PgtCostVerdict pgt_cost_by_ratio(const PgtCostSource *sources, int source_count,
										double max_ratio);

#endif /* PGT_COST_H */
