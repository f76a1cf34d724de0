/*
 * base.c: which snapshot of base tables a stream table shows.
 *
 * Base tables are those at the ends of all paths, which are no stream tables.
 * A stream table takes changes of its sources over up to its own snapshot S;
 * but a source that is a stream table shows the base tables as of an earlier
 * one. So the rows show
 *
 *		S						of base tables alone
 *		what the source shows	of one stream table, and nothing else
 *		T						if every source shows at T what it shows now
 *
 * and else no single snapshot. For T there are two to try: the latest that a
 * source shows, and S. A source that shows an earlier one shows T as well if
 * none of its own sources changed since, which their buffers tell. They are
 * complete, because nothing is thrown away that their reader has not seen: rows
 * behind T, and behind what this stream table has read itself.
 *
 * Sources that are not captured have no time, and do not count.
 */
#include "postgres.h"

#include "pgt_dependency.h"
#include "pgt_source.h"

#include "refresh_internal.h"

/* A source that is a stream table, as the snapshot of the refresh sees it. */
typedef struct Upstream
{
	int64 pgt_id;
	PgtFrontierRow row;
} Upstream;

static bool
find_upstream(Oid relid, Snapshot snapshot, Upstream *upstream)
{
	PgtStreamTable *st = pgt_stream_table_find(relid);

	upstream->pgt_id = st == NULL ? 0 : st->pgt_id;
	return st != NULL && pgt_frontier_find_at(st->pgt_id, snapshot, &upstream->row);
}

/* Has nobody refreshed it since, and thrown away what it had not seen before? */
static bool
has_stayed(const Upstream *upstream)
{
	PgtFrontierRow newest;

	return pgt_frontier_find(upstream->pgt_id, &newest) &&
		   ItemPointerEquals(&newest.tid, (ItemPointer) &upstream->row.tid) &&
		   newest.xmin == upstream->row.xmin;
}

/* What it shows of an earlier snapshot, does it show that of `at` as well? No when in doubt. */
static bool
shows_also(const Upstream *upstream, const PgtFrontier *at, Snapshot snapshot)
{
	const PgtFrontierRow *row = &upstream->row;
	ListCell *lc;

	if (!row->frontier.valid || !row->base.valid || row->rebuild_reason != NULL ||
		!pgt_frontier_is_behind(&row->base, at))
		return false;
	foreach (lc, pgt_dependency_list(upstream->pgt_id))
	{
		Oid relid = ((PgtDependency *) lfirst(lc))->relid;
		Upstream next;

		if (pgt_source_find(relid) == NULL)
			continue;
		if (!pgt_capture_is_stream_table(relid))
		{
			if (pgt_capture_broken(relid) != NULL ||
				pgt_capture_has_news(relid, &row->frontier, at, 0, snapshot))
				return false;
		}
		else if (pgt_capture_has_news(relid, &row->frontier, NULL, 0, snapshot) ||
				 !find_upstream(relid, snapshot, &next) || !shows_also(&next, at, snapshot))
			return false;
	}
	return has_stayed(upstream);
}

static bool
is_same(const PgtFrontier *a, const PgtFrontier *b)
{
	return a->valid && b->valid && pgt_frontier_is_behind(a, b) && pgt_frontier_is_behind(b, a);
}

/* Would the rows show the base tables as of this snapshot, at or before that of the refresh? */
static bool
is_shown(const Refresh *refresh, const PgtFrontier *at, List *upstreams, List *bases)
{
	ListCell *lc;

	foreach (lc, bases)
		if (at != &refresh->frontier &&
			pgt_capture_has_news(lfirst_oid(lc), at, &refresh->frontier, 0, refresh->snapshot))
			return false;
	foreach (lc, upstreams)
	{
		const Upstream *upstream = lfirst(lc);

		if (!is_same(&upstream->row.base, at) && !shows_also(upstream, at, refresh->snapshot))
			return false;
	}
	return true;
}

/* The latest snapshot that one of them shows, none if one shows several. */
static const PgtFrontierRow *
find_latest(List *upstreams)
{
	const PgtFrontierRow *latest = NULL;
	ListCell *lc;

	foreach (lc, upstreams)
	{
		const PgtFrontierRow *row = &((Upstream *) lfirst(lc))->row;

		if (!row->base.valid)
			return NULL;
		if (latest == NULL || pgt_frontier_is_behind(&latest->base, &row->base))
			latest = row;
	}
	return latest;
}

static TimestampTz
find_oldest_time(TimestampTz now, List *upstreams)
{
	TimestampTz oldest = now;
	ListCell *lc;

	foreach (lc, upstreams)
	{
		TimestampTz time = ((Upstream *) lfirst(lc))->row.data_timestamp;

		if (time != 0)
			oldest = Min(oldest, time);
	}
	return oldest;
}

/* What is thrown away is before the snapshot of whoever read it, which is this stream table. */
static bool
is_readable(const Refresh *refresh, const PgtFrontier *at)
{
	return !refresh->row.frontier.valid || pgt_frontier_is_behind(&refresh->row.frontier, at);
}

static bool
find_in_sources(Refresh *refresh, List *upstreams, List *bases)
{
	const PgtFrontierRow *latest = find_latest(upstreams);

	if (list_length(upstreams) == 1 && bases == NIL)
	{
		const PgtFrontierRow *row = &((Upstream *) linitial(upstreams))->row;

		refresh->base = row->base;
		refresh->data_timestamp = Min(refresh->data_timestamp, row->data_timestamp);
		return row->base.valid;
	}
	if (latest != NULL && is_readable(refresh, &latest->base) &&
		is_shown(refresh, &latest->base, upstreams, bases))
	{
		refresh->base = latest->base;
		refresh->data_timestamp = Min(refresh->data_timestamp, latest->data_timestamp);
		return true;
	}
	if (latest != NULL && is_shown(refresh, &refresh->frontier, upstreams, bases))
	{
		refresh->base = refresh->frontier;
		return true;
	}
	refresh->base.valid = false;
	refresh->data_timestamp = find_oldest_time(refresh->data_timestamp, upstreams);
	return false;
}

bool
pgt_base_find(Refresh *refresh)
{
	List *upstreams = NIL;
	List *bases = NIL;
	ListCell *lc;

	refresh->base = refresh->frontier;
	foreach (lc, refresh->captured)
	{
		Oid relid = ((PgtSourceUse *) lfirst(lc))->relid;
		Upstream *upstream;

		if (!pgt_capture_is_stream_table(relid))
		{
			bases = lappend_oid(bases, relid);
			continue;
		}
		upstream = palloc0(sizeof(Upstream));
		if (find_upstream(relid, refresh->snapshot, upstream))
			upstreams = lappend(upstreams, upstream);
	}
	return upstreams == NIL || find_in_sources(refresh, upstreams, bases);
}
