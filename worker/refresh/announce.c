/*
 * announce.c: telling the output plugin which rows in the WAL are a refresh.
 *
 * Transactional messages as pgt_wire.h has them, before the first row of the
 * user's table and after the last; only when the WAL is decoded at all, and
 * only when there is a row.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

#include "pgt_compat.h"
#include "pgt_wire.h"

#include "refresh_internal.h"

void
pgt_announce_open(void *arg)
{
	Refresh *refresh = arg;
	Oid relid = refresh->st->relid;
	PgtWireRefreshOpen open = {0};
	char *message;
	size_t size;

	if (!XLogLogicalInfoActive() || refresh->announced)
		return;
	open.relid = relid;
	open.refresh_id = pgt_refresh_get_id(refresh);
	open.data_timestamp = refresh->data_timestamp + PGT_WIRE_PG_EPOCH_US;
	open.schema = pgt_wire_text(get_namespace_name(get_rel_namespace(relid)));
	open.name = pgt_wire_text(get_rel_name(relid));
	open.mode = pgt_wire_text(refresh->result.action);
	open.frontier = pgt_wire_text(
		refresh->base.valid
			? DatumGetCString(DirectFunctionCall1(pg_snapshot_out, refresh->base.snapshot))
			: NULL);
	size = pgt_wire_encode_open(&open, NULL, 0);
	message = palloc(size);
	pgt_wire_encode_open(&open, message, size);
	pgt_compat_log_message(PGT_WIRE_PREFIX, message, size);
	pfree(message);
	refresh->announced = true;
}

void
pgt_announce_close(Refresh *refresh)
{
	PgtWireRefreshClose close = {0};
	char message[PGT_WIRE_CLOSE_SIZE];

	if (!refresh->announced)
		return;
	close.relid = refresh->st->relid;
	close.refresh_id = refresh->refresh_id;
	close.inserted = refresh->result.rows_inserted;
	close.updated = refresh->result.rows_updated;
	close.deleted = refresh->result.rows_deleted;
	pgt_wire_encode_close(&close, message, sizeof(message));
	pgt_compat_log_message(PGT_WIRE_PREFIX, message, sizeof(message));
}
