/*
 * source.h: the replication connection: one slot of one database, over libpq.
 *
 * Owns the PGconn. It reads messages one by one, tells the server how far it may forget,
 * and sorts failures into those worth another attempt and those that need a person.
 */
#ifndef FWD_SOURCE_H
#define FWD_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "json.h"

typedef struct FwdSource FwdSource;

typedef enum FwdRead
{
	FWD_READ_NOTHING, /* wait for the socket */
	FWD_READ_DATA,
	FWD_READ_KEEPALIVE,
	FWD_READ_END, /* of a snapshot */
	FWD_READ_FAILED,
} FwdRead;

typedef struct FwdMessage
{
	FwdSpan data;		/* lines; valid until the next read */
	uint64_t lsn;		/* keepalive: everything before this has been sent */
	int64_t sent_at;	/* Unix microseconds, by the server's clock */
	bool reply_request; /* keepalive: the server wants to hear from us now */
} FwdMessage;

typedef struct FwdServer
{
	char system_id[32];
	char database[64];
	uint64_t flushed; /* end of the server's WAL when we connected */
	uint64_t slot_confirmed;
	bool slot_is_new;  /* made by us: there only as long as the connection, unless it is kept */
	char snapshot[64]; /* of a new slot, until the next command; "": none is wanted */
} FwdServer;

/* What the decoder is asked for, by a slot or for a snapshot. Point into the configuration. */
#define FWD_MAX_OPTIONS 10

typedef struct FwdOptions
{
	int count;
	const char *names[FWD_MAX_OPTIONS];
	const char *values[FWD_MAX_OPTIONS];
	char bytes[16];
} FwdOptions;

extern void fwd_source_options(const FwdConfig *config, FwdOptions *options);

/* Connect and look at the slot, which is made if that is asked for; NULL if that failed. */
extern FwdSource *fwd_source_connect(const FwdConfig *config, FwdServer *server, FwdError *error);
/* From now on a slot that is new stays. */
extern bool fwd_source_keep_slot(FwdSource *source, FwdError *error);
/* Begin to stream; 0: where the slot stands. */
extern bool fwd_source_start(FwdSource *source, uint64_t lsn, FwdError *error);
extern int fwd_source_socket(FwdSource *source);
extern FwdRead fwd_source_read(FwdSource *source, FwdMessage *message, FwdError *error);
/* The socket is readable: take what is there. */
extern bool fwd_source_fill(FwdSource *source, FwdError *error);
extern bool fwd_source_confirm(FwdSource *source, uint64_t received, uint64_t confirmed,
							   bool want_reply, FwdError *error);
/* Say goodbye properly if there is a stream. Takes NULL. */
extern void fwd_source_close(FwdSource *source);

/* What a result that is an error says, and whether it is worth another attempt; NULL: the connection's. */
struct pg_conn;
struct pg_result;
extern bool fwd_fail_with_result(struct pg_conn *conn, const struct pg_result *result,
								 const char *what, FwdError *error);

extern int64_t fwd_now_us(void);

#endif
