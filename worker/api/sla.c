/*
 * sla.c: will an SLA be kept? Said when it is set; whatever comes later, the
 * scheduler tells by alerts.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/lsyscache.h"

#include "pgt_guc.h"
#include "pgt_security.h"
#include "pgt_sla.h"
#include "pgt_spi.h"

#include "api_internal.h"

/* What refreshes took last, of the table, of those that it reads, and of all SLAs together. */
typedef struct Load
{
	int64 forecast; /* microseconds */
	int64 path;
	double utilisation;
} Load;

static Load
find_load(int64 pgt_id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(pgt_id)};
	Load load = {0};
	PgtSecurity saved = pgt_security_become_extension_owner();
	PgtRows *rows = pgt_spi_query(
		"WITH RECURSIVE cost AS MATERIALIZED (SELECT d.pgt_id, d.pgt_relid, d.freshness_deadline_ms,"
		" (coalesce(f.last_duration_ms, 0) * 1000)::bigint AS us"
		" FROM pgtrickle.pgt_definitions d LEFT JOIN pgtrickle.pgt_frontiers f USING (pgt_id)),"
		" up AS (SELECT pgt_id, us, 1 AS depth FROM cost WHERE pgt_id = $1 UNION ALL"
		" SELECT c.pgt_id, up.us + c.us, depth + 1 FROM up"
		" JOIN pgtrickle.pgt_dependencies d ON d.pgt_id = up.pgt_id"
		" JOIN cost c ON c.pgt_relid = d.source_relid WHERE depth < 50)"
		" SELECT pgt_id, us, freshness_deadline_ms, (SELECT max(us) FROM up) FROM cost"
		" WHERE pgt_id = $1 OR freshness_deadline_ms IS NOT NULL",
		1, types, values, NULL);

	pgt_security_restore(&saved);
	for (int i = 0; i < rows->nrows; i++)
	{
		int64 us = pgt_spi_int64(rows, i, 2);

		load.utilisation += pgt_sla_utilisation(pgt_spi_int64(rows, i, 3) * 1000, us, 0);
		if (pgt_spi_int64(rows, i, 1) != pgt_id)
			continue;
		load.forecast = us;
		load.path = pgt_spi_int64(rows, i, 4);
	}
	return load;
}

void
pgt_sla_warn(const PgtStreamTable *st)
{
	Load load = find_load(st->pgt_id);
	char detail[PGT_SLA_DETAIL];

	if (st->paused || (st->tier != NULL && strcmp(st->tier, "frozen") == 0))
		ereport(WARNING,
				(errmsg("the SLA of stream table \"%s\" will not be kept", get_rel_name(st->relid)),
				 errdetail("It is %s.", st->paused ? "paused" : "in the tier 'frozen'"),
				 st->paused
					 ? errhint("Resume it with pgtrickle.resume_stream_table().")
					 : errhint("Give it another tier with pgtrickle.alter_stream_table().")));
	switch (pgt_sla_check(st->sla_ms * 1000, load.forecast, load.path, load.utilisation,
						  Max(pgt_guc_max_parallel_workers, 1), detail))
	{
		case PGT_SLA_FEASIBLE:
			break;
		case PGT_SLA_TOO_SHORT:
		case PGT_SLA_PATH_TOO_LONG:
			ereport(WARNING,
					(errmsg("the SLA of stream table \"%s\" is too short", get_rel_name(st->relid)),
					 errdetail("%s", detail),
					 errhint("Set a longer one with pgtrickle.alter_stream_table(); "
							 "pgtrickle.explain_delta() tells what a refresh does.")));
			break;
		case PGT_SLA_TOO_FEW_WORKERS:
			ereport(WARNING,
					(errmsg("there are too few workers for all SLAs"), errdetail("%s", detail),
					 errhint("Raise pg_trickle.max_parallel_workers, or set longer SLAs.")));
			break;
	}
}
