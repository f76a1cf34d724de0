/*
 * ready.c: who may be refreshed, and in which order.
 *
 * Relies on nothing but the C library; no memory, no state.
 */
#include "pgt_ready.h"

static const char *const texts[] = {
	[PGT_READY_PAUSED] = "paused",
	[PGT_READY_SUSPENDED] = "suspended after repeated failures",
	[PGT_READY_RUNNING] = "being refreshed",
	[PGT_READY_BACKING_OFF] = "waiting to retry after a failure",
	[PGT_READY_UNCHANGED] = "no changes",
	[PGT_READY_NOT_DUE] = "not due yet",
	[PGT_READY_STALLED] = "stalled by a stream table it reads",
	[PGT_READY_AFTER_UPSTREAM] = "waiting for the stream tables it reads",
	[PGT_READY_NOW] = "ready"};

PgtReadiness
pgt_ready_decide(const PgtReadyFacts *facts)
{
	if (facts->paused)
		return PGT_READY_PAUSED;
	if (facts->suspended)
		return PGT_READY_SUSPENDED;
	if (facts->running)
		return PGT_READY_RUNNING;
	if (facts->retry_at > facts->now && !facts->retry_now)
		return PGT_READY_BACKING_OFF;
	if (!facts->must_rebuild)
	{
		if (!facts->pending)
			return PGT_READY_UNCHANGED;
		if (facts->due_at > facts->now)
			return PGT_READY_NOT_DUE;
	}
	if (facts->upstream == PGT_UPSTREAM_STALLED)
		return PGT_READY_STALLED;
	if (facts->upstream == PGT_UPSTREAM_COMING)
		return PGT_READY_AFTER_UPSTREAM;
	return PGT_READY_NOW;
}

const char *
pgt_readiness_text(PgtReadiness readiness)
{
	return texts[readiness];
}

PgtUpstream
pgt_ready_as_upstream(PgtReadiness readiness)
{
	switch (readiness)
	{
		case PGT_READY_PAUSED:
		case PGT_READY_SUSPENDED:
		case PGT_READY_BACKING_OFF:
		case PGT_READY_STALLED:
			return PGT_UPSTREAM_STALLED;
		case PGT_READY_RUNNING:
		case PGT_READY_AFTER_UPSTREAM:
		case PGT_READY_NOW:
			return PGT_UPSTREAM_COMING;
		case PGT_READY_UNCHANGED:
		case PGT_READY_NOT_DUE:
			return PGT_UPSTREAM_REACHED;
	}
	return PGT_UPSTREAM_STALLED;
}

double
pgt_ready_staleness(int64_t now, int64_t pending_since, int64_t forecast, int64_t interval)
{
	const int64_t least = 1000000;

	if (pending_since == 0 || pending_since > now)
		pending_since = now;
	return ((double) (now - pending_since) + (double) forecast) /
		   (double) (interval > least ? interval : least);
}

int
pgt_ready_compare(const void *left, const void *right)
{
	const PgtReadyItem *a = left;
	const PgtReadyItem *b = right;

	if (a->level != b->level)
		return (a->level > b->level) - (a->level < b->level);
	if (a->staleness != b->staleness)
		return (a->staleness < b->staleness) - (a->staleness > b->staleness);
	if (a->deadline != b->deadline)
	{
		if (a->deadline == 0 || b->deadline == 0)
			return a->deadline == 0 ? 1 : -1;
		return a->deadline > b->deadline ? 1 : -1;
	}
	return (a->id > b->id) - (a->id < b->id);
}
