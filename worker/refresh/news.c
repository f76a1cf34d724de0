/*
 * news.c: would a refresh have anything to do?
 *
 * For the scheduler's look at all stream tables, in one transaction for all of
 * them: takes no lock that stays (but for the first time, when the definition
 * is analyzed), repairs nothing and writes nothing. Says yes when in doubt; the
 * refresh itself finds out.
 */
#include "postgres.h"

#include "storage/lmgr.h"

#include "pgt_source.h"

#include "refresh_internal.h"

/* Waits for nobody, and unlocks what it locked, since there may be thousands of tables. */
static bool
is_incomplete(Oid relid, const PgtStage *stage, bool is_state)
{
	bool complete;

	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, AccessShareLock))
		return true;
	complete = pgt_storage_has_index(relid, stage, is_state);
	UnlockRelationOid(relid, AccessShareLock);
	return !complete;
}

static bool
is_storage_missing(const PgtDefinition *definition)
{
	ListCell *lc;

	foreach (lc, definition->stages)
	{
		const PgtStage *stage = lfirst(lc);

		if (stage->technique == PGT_TECHNIQUE_FULL)
			continue;
		if (stage->is_missing || is_incomplete(stage->relid, stage, false) ||
			(stage->technique == PGT_TECHNIQUE_AGGREGATE &&
			 is_incomplete(stage->state_relid, stage, true)))
			return true;
	}
	return false;
}

static bool
has_source_news(const PgtSourceUse *source, const PgtFrontier *frontier, uint64 looked_xmin,
				Snapshot snapshot)
{
	return pgt_capture_broken(source->relid) != NULL ||
		   pgt_capture_has_news(source->relid, frontier, NULL, looked_xmin, snapshot);
}

bool
pgt_refresh_has_news(const PgtStreamTable *st, uint64 looked_xmin, Snapshot snapshot)
{
	PgtFrontierRow row;
	const PgtDefinition *definition;
	ListCell *lc;

	if (!pgt_frontier_find(st->pgt_id, &row))
		return pgt_stream_table_find_id(st->pgt_id) != NULL; /* dropped? */
	if (!row.frontier.valid || row.rebuild_reason != NULL || pgt_stream_table_is_outdated(st))
		return true;
	definition = pgt_delta_definition(pgt_delta_open(st->pgt_id, st->relid, st->view_relid));
	/* Only computing it tells whether now(), or a source without capture, gave other rows. */
	if (definition->full_reason != NULL || definition->is_outdated ||
		is_storage_missing(definition))
		return true;
	foreach (lc, definition->sources)
	{
		const PgtSourceUse *source = lfirst(lc);

		if (!source->is_view && has_source_news(source, &row.frontier, looked_xmin, snapshot))
			return true;
	}
	return false;
}
