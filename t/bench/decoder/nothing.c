/*
 * nothing.c: an output plugin that writes nothing: what reading and reassembling the WAL
 * costs by itself.
 */
#include "postgres.h"

#include "fmgr.h"
#include "replication/logical.h"
#include "replication/output_plugin.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_output_plugin_init(OutputPluginCallbacks *callbacks);

static void
start_up(LogicalDecodingContext *ctx, OutputPluginOptions *output, bool is_init)
{
	output->output_type = OUTPUT_PLUGIN_TEXTUAL_OUTPUT;
}

static void
ignore_begin(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
}

static void
ignore_change(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, Relation relation,
			  ReorderBufferChange *change)
{
}

static void
ignore_commit(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr commit_lsn)
{
}

void
_PG_output_plugin_init(OutputPluginCallbacks *callbacks)
{
	callbacks->startup_cb = start_up;
	callbacks->begin_cb = ignore_begin;
	callbacks->change_cb = ignore_change;
	callbacks->commit_cb = ignore_commit;
}
