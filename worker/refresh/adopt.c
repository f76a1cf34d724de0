/*
 * adopt.c: hidden tables and the hidden view as parts of the user's table, with
 * which they are dropped and which stands for them in messages.
 *
 * Dependencies that say so are recorded when the parts are made. Neither pg_dump nor
 * pg_upgrade takes them along.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"

#include "pgt_refresh.h"
#include "pgt_security.h"
#include "pgt_spi.h"

/* A hidden table or view as a part of the user's table, unless it is one already. */
static void
attach(Oid relid, Oid part, DependencyType type)
{
	ObjectAddress table = {RelationRelationId, relid, 0};
	ObjectAddress object = {RelationRelationId, part, 0};

	deleteDependencyRecordsForSpecific(RelationRelationId, part, type, RelationRelationId, relid);
	recordDependencyOn(&object, &table, type);
}

void
pgt_refresh_adopt(const PgtStreamTable *st)
{
	PgtSecurity saved = pgt_security_become_extension_owner();
	PgtRows *rows;

	rows = pgt_spi_select(
		psprintf("SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relkind = 'r'"
				 " AND c.relnamespace = 'pgtrickle_state'::pg_catalog.regnamespace"
				 " AND c.relname ~ '^(stage|state)_" INT64_FORMAT "_[0-9]+$'",
				 st->pgt_id));
	for (int i = 0; i < rows->nrows; i++)
		attach(st->relid, pgt_spi_oid(rows, i, 1), DEPENDENCY_AUTO);
	attach(st->relid, st->view_relid, DEPENDENCY_INTERNAL);
	pgt_security_restore(&saved);
	CommandCounterIncrement();
}
