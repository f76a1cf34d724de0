/*
 * ready.c: who may be refreshed, and in which order.
 *
 * link: worker/policy/ready.c
 */
#include <stdlib.h>

#include "pgt_ready.h"
#include "pgt_test.h"

#define NOW INT64_C(1000000000)

int
main(void)
{
	PgtReadyFacts facts = {.pending = true, .now = NOW, .due_at = NOW};
	PgtReadyItem items[] = {{1, 2, 9}, {2, 1, 0.5}, {3, 1, 2}, {5, 1, 0.5}, {4, 1, 0.5}};

	is_int(pgt_ready_decide(&facts), PGT_READY_NOW, "due with changes: ready");
	facts.upstream = PGT_UPSTREAM_COMING;
	is_int(pgt_ready_decide(&facts), PGT_READY_AFTER_UPSTREAM, "after its upstream");
	facts.upstream = PGT_UPSTREAM_STALLED;
	is_int(pgt_ready_decide(&facts), PGT_READY_STALLED, "not without its upstream");
	facts.due_at = NOW + 1;
	is_int(pgt_ready_decide(&facts), PGT_READY_NOT_DUE, "not before it is due");
	facts.pending = false;
	is_int(pgt_ready_decide(&facts), PGT_READY_UNCHANGED, "not without changes");
	facts.must_rebuild = true;
	facts.upstream = PGT_UPSTREAM_REACHED;
	is_int(pgt_ready_decide(&facts), PGT_READY_NOW, "a rebuild waits for neither");
	facts.retry_at = NOW + 1;
	is_int(pgt_ready_decide(&facts), PGT_READY_BACKING_OFF, "but for its back-off");
	facts.retry_now = true;
	is_int(pgt_ready_decide(&facts), PGT_READY_NOW, "unless what that waits for has come");
	facts.retry_now = false;
	facts.retry_at = NOW;
	is_int(pgt_ready_decide(&facts), PGT_READY_NOW, "or its time is over");
	facts.running = true;
	is_int(pgt_ready_decide(&facts), PGT_READY_RUNNING, "not twice at a time");
	facts.suspended = true;
	is_int(pgt_ready_decide(&facts), PGT_READY_SUSPENDED, "not when suspended");
	facts.paused = true;
	is_int(pgt_ready_decide(&facts), PGT_READY_PAUSED, "not when paused, which is told first");
	is_str(pgt_readiness_text(PGT_READY_STALLED), "stalled by a stream table it reads", "as text");

	is_int(pgt_ready_as_upstream(PGT_READY_BACKING_OFF), PGT_UPSTREAM_STALLED,
		   "one that failed stalls its consumers");
	is_int(pgt_ready_as_upstream(PGT_READY_STALLED), PGT_UPSTREAM_STALLED, "and theirs");
	is_int(pgt_ready_as_upstream(PGT_READY_NOW), PGT_UPSTREAM_COMING,
		   "one that is ready goes first");
	is_int(pgt_ready_as_upstream(PGT_READY_NOT_DUE), PGT_UPSTREAM_REACHED,
		   "a slower one holds nobody up");

	ok(pgt_ready_staleness(NOW, NOW - 5000000, 1000000, 12000000) == 0.5,
	   "staleness: age when done, in intervals");
	ok(pgt_ready_staleness(NOW, NOW - 2000000, 0, 0) == 2, "a calculated schedule counts as 1 s");
	ok(pgt_ready_staleness(NOW, 0, 0, 1) == 0, "no pending change: no age");
	ok(pgt_ready_staleness(NOW, NOW + 5, 0, 1) == 0, "nor with one from the future");

	qsort(items, 5, sizeof(items[0]), pgt_ready_compare);
	ok(items[0].id == 3 && items[1].id == 2 && items[2].id == 4 && items[3].id == 5 &&
		   items[4].id == 1,
	   "order: level, the stalest, id");
	items[1].deadline = items[2].deadline = NOW + 2;
	items[3].deadline = NOW + 1;
	items[2].deadline = 0;
	qsort(items, 5, sizeof(items[0]), pgt_ready_compare);
	ok(items[0].id == 3 && items[1].id == 5 && items[2].id == 2 && items[3].id == 4,
	   "equally stale: the earliest deadline first, and before none");
	return test_done();
}
