/*
 * pgtd_state.h: one decoding session, and the transaction that it is in.
 *
 * A PgtdState is the output_plugin_private of its decoding context. Transactions come whole
 * and one after the other (streaming and two-phase are not offered), so one PgtdTransaction
 * is enough.
 */
#ifndef PGTD_STATE_H
#define PGTD_STATE_H

#include "access/xlogdefs.h"
#include "nodes/pg_list.h"
#include "replication/logical.h"

#include "pgtd_options.h"
#include "pgtd_out.h"
#include "pgtd_relation.h"

/* A refresh announced in the transaction at hand. */
typedef struct PgtdRefresh
{
	Oid relid;
	int64 id;
	int64 data_timestamp; /* Unix microseconds */
	const char *schema;	  /* as the message says; in the encoding of the database */
	const char *name;
	const char *mode;
	const char *frontier;
	bool is_excluded;
	void *format_data; /* of the envelope, NULL at first */
} PgtdRefresh;

/* Rows written in the transaction at hand. */
typedef struct PgtdTableRows
{
	const char *label; /* these as in PgtdRelation, copies */
	const char *schema;
	const char *name;
	int64 count;
} PgtdTableRows;

typedef struct PgtdTransaction
{
	uint64 number; /* in this session, from 1 */
	TransactionId xid;
	XLogRecPtr commit_lsn;
	XLogRecPtr end_lsn;
	int64 commit_time;	/* Unix microseconds */
	const char *origin; /* NULL: local */
	int64 seq;			/* changes so far, filtered ones included */
	bool is_begun;		/* its begin message is out */
	bool is_snapshot;	/* none: rows of a table as it is */
	List *refreshes;
	List *tables;		/* of PgtdTableRows, in order of their first row */
	int settings_level; /* 0: still the session's own */
	void *format_data;	/* of the envelope, NULL at first */
} PgtdTransaction;

typedef struct PgtdState
{
	LogicalDecodingContext *ctx;
	MemoryContext context; /* of the session */
	MemoryContext transaction_context;
	MemoryContext row_context; /* reset after each change */
	PgtdOptions options;
	PgtdValueStyle style;
	PgtdEncoding encoding;
	PgtdRelationCache *cache;
	const char *database;	 /* in its own encoding */
	const char *source_name; /* topic_prefix, or the database's name */
	bool hello_sent;
	int skipped;			   /* changes since the last sign of life */
	uint64 refresh_generation; /* raised when the announced refreshes change */
	PgtdTransaction tx;
	StringInfoData batch; /* messages not sent yet; empty without batch_bytes */
	PgtdOut out;		  /* the message at hand */
	Size value_limit;	  /* of its length, for what users may make as large as they like */
} PgtdState;

/* One row to write. The images are in rel->old_values and rel->new_values. */
typedef struct PgtdRow
{
	char op; /* c, u, d, t, or r: of a snapshot */
	PgtdRelation *rel;
	PgtdRefresh *refresh; /* NULL: not of a refresh, or not asked for */
	bool has_old;
	bool has_new;
	bool has_unchanged; /* some column has is_unchanged set */
	bool has_oversize;	/* some column has is_oversize set */
	XLogRecPtr lsn;
	int64 seq;				  /* within the transaction */
	int64 order;			  /* among the rows of its table in the transaction */
	const PgtdColumn *column; /* being written, for errors */
} PgtdRow;

/* A message of a user. */
typedef struct PgtdMessage
{
	bool transactional;
	const char *prefix;
	const char *content;
	Size size;
	XLogRecPtr lsn;
} PgtdMessage;

#endif /* PGTD_STATE_H */
