/*
 * pgt_wire.h: what the extension writes into the WAL for the output plugin to read.
 *
 * A refresh brackets the rows that it writes to a stream table with two transactional
 * logical messages, prefix PGT_WIRE_PREFIX:
 *
 *   opening   names the stream table and the refresh; it comes before the first row, and
 *             from it on the rows of that table in the same transaction are rows of a
 *             stream table
 *   closing   tells how many rows the refresh wrote; it comes after the last
 *
 * One transaction may hold several refreshes, of one stream table or of many, also nested;
 * the pair (table, refresh id) says what closes what.
 *
 * This header is the whole contract between pg_trickle.so, which encodes, and
 * pg_trickle_decoder.so, which decodes; they never link to or call each other. It is plain
 * C99 and includes nothing of PostgreSQL, so that programs outside the server can use it.
 * It owns no state, allocates nothing and fails only by return value.
 *
 * Layout, all integers big-endian:
 *
 *   byte 0     PGT_WIRE_VERSION
 *   byte 1     kind: PGT_WIRE_KIND_OPEN or PGT_WIRE_KIND_CLOSE
 *   opening:   uint32 table oid, int64 refresh id, int64 data timestamp, then schema, name,
 *              mode and frontier, each a uint32 length and as many bytes
 *   closing:   uint32 table oid, int64 refresh id, int64 inserted, int64 updated,
 *              int64 deleted
 *
 * Strings are in the encoding of the database and not NUL-terminated. A reader ignores
 * bytes after the last field that it knows: within one version fields are only appended.
 * A version that it does not know it rejects.
 *
 * A heartbeat is a logical message, prefix PGT_WIRE_HEARTBEAT_PREFIX, usually not
 * transactional. Its content is the time it was written at, as the decimal digits of Unix
 * microseconds, so that plain SQL can write one; it may be empty.
 */
#ifndef PGT_WIRE_H
#define PGT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Prefix of the two messages above, and of the heartbeat message. */
#define PGT_WIRE_PREFIX "pg_trickle"
#define PGT_WIRE_HEARTBEAT_PREFIX "pg_trickle.hb"

#define PGT_WIRE_VERSION 1
#define PGT_WIRE_KIND_OPEN 'O'
#define PGT_WIRE_KIND_CLOSE 'C'

/*
 * Timestamps here are microseconds since the Unix epoch. A PostgreSQL TimestampTz counts
 * from 2000-01-01: add this to get from there to here.
 */
#define PGT_WIRE_PG_EPOCH_US INT64_C(946684800000000)

/* A string with its length; points into memory of whoever made it. */
typedef struct PgtWireText
{
	const char *data;
	uint32_t len;
} PgtWireText;

/* The opening message. */
typedef struct PgtWireRefreshOpen
{
	uint32_t relid;			/* oid of the stream table, never 0 */
	int64_t refresh_id;		/* as in pgt_refresh_history */
	int64_t data_timestamp; /* the instant whose data this is, Unix microseconds */
	PgtWireText schema;		/* never empty */
	PgtWireText name;		/* never empty */
	PgtWireText mode;		/* FULL, DIFFERENTIAL, REINITIALIZE, ... */
	PgtWireText frontier;	/* text of a pg_snapshot; may be empty */
} PgtWireRefreshOpen;

/* The closing message; relid and refresh_id repeat those of the opening one. */
typedef struct PgtWireRefreshClose
{
	uint32_t relid;
	int64_t refresh_id;
	int64_t inserted;
	int64_t updated;
	int64_t deleted;
} PgtWireRefreshClose;

/*
 * Writing and reading with bounds. A writer's "at" runs on past the end, so that it learns
 * the size it needs; a reader remembers that it was cheated.
 */
typedef struct PgtWireOut
{
	unsigned char *data;
	size_t size;
	size_t at;
} PgtWireOut;

typedef struct PgtWireIn
{
	const unsigned char *data;
	size_t size;
	size_t at;
	bool failed;
} PgtWireIn;

static inline void
pgt_wire_put_bytes(PgtWireOut *out, const void *bytes, size_t len)
{
	if (len > 0 && out->at <= out->size && len <= out->size - out->at)
		memcpy(out->data + out->at, bytes, len);
	out->at += len;
}

static inline void
pgt_wire_put_uint(PgtWireOut *out, uint64_t value, int width)
{
	unsigned char bytes[8];

	for (int i = 0; i < width; i++)
		bytes[i] = (unsigned char) (value >> (8 * (width - 1 - i)));
	pgt_wire_put_bytes(out, bytes, (size_t) width);
}

static inline void
pgt_wire_put_text(PgtWireOut *out, PgtWireText text)
{
	pgt_wire_put_uint(out, text.len, 4);
	pgt_wire_put_bytes(out, text.data, text.len);
}

static inline uint64_t
pgt_wire_get_uint(PgtWireIn *in, int width)
{
	uint64_t value = 0;

	if (in->failed || (size_t) width > in->size - in->at)
	{
		in->failed = true;
		return 0;
	}
	for (int i = 0; i < width; i++)
		value = (value << 8) | in->data[in->at++];
	return value;
}

/* More than any of ours has: whoever can write messages must not fill those of a consumer. */
#define PGT_WIRE_MAX_NAME 1024
#define PGT_WIRE_MAX_FRONTIER (8 * 1024 * 1024)

static inline PgtWireText
pgt_wire_get_text(PgtWireIn *in, uint32_t max)
{
	PgtWireText text = {"", 0};
	uint32_t len = (uint32_t) pgt_wire_get_uint(in, 4);

	if (in->failed || len > max || len > in->size - in->at ||
		memchr(in->data + in->at, '\0', len) != NULL)
	{
		in->failed = true;
		return text;
	}
	text.data = (const char *) in->data + in->at;
	text.len = len;
	in->at += len;
	return text;
}

/* Wrap a NUL-terminated string; NULL counts as the empty one. */
static inline PgtWireText
pgt_wire_text(const char *string)
{
	PgtWireText text;

	text.data = string != NULL ? string : "";
	text.len = (uint32_t) strlen(text.data);
	return text;
}

/*
 * Encode into buf[size] and return the number of bytes that the message takes. Like
 * snprintf: if the result exceeds size, what was written is of no use, and the caller comes
 * back with a larger buffer (buf may be NULL when size is 0).
 */
static inline size_t
pgt_wire_encode_open(const PgtWireRefreshOpen *open, void *buf, size_t size)
{
	PgtWireOut out = {(unsigned char *) buf, size, 0};

	pgt_wire_put_uint(&out, PGT_WIRE_VERSION, 1);
	pgt_wire_put_uint(&out, PGT_WIRE_KIND_OPEN, 1);
	pgt_wire_put_uint(&out, open->relid, 4);
	pgt_wire_put_uint(&out, (uint64_t) open->refresh_id, 8);
	pgt_wire_put_uint(&out, (uint64_t) open->data_timestamp, 8);
	pgt_wire_put_text(&out, open->schema);
	pgt_wire_put_text(&out, open->name);
	pgt_wire_put_text(&out, open->mode);
	pgt_wire_put_text(&out, open->frontier);
	return out.at;
}

/* The same for the closing message, which always takes PGT_WIRE_CLOSE_SIZE bytes. */
#define PGT_WIRE_CLOSE_SIZE 38

static inline size_t
pgt_wire_encode_close(const PgtWireRefreshClose *close, void *buf, size_t size)
{
	PgtWireOut out = {(unsigned char *) buf, size, 0};

	pgt_wire_put_uint(&out, PGT_WIRE_VERSION, 1);
	pgt_wire_put_uint(&out, PGT_WIRE_KIND_CLOSE, 1);
	pgt_wire_put_uint(&out, close->relid, 4);
	pgt_wire_put_uint(&out, (uint64_t) close->refresh_id, 8);
	pgt_wire_put_uint(&out, (uint64_t) close->inserted, 8);
	pgt_wire_put_uint(&out, (uint64_t) close->updated, 8);
	pgt_wire_put_uint(&out, (uint64_t) close->deleted, 8);
	return out.at;
}

/* What a message claims to be: one of the kinds; 0 when too short or of another version. */
static inline int
pgt_wire_get_kind(const void *buf, size_t size)
{
	const unsigned char *bytes = (const unsigned char *) buf;

	if (size < 2 || bytes[0] != PGT_WIRE_VERSION)
		return 0;
	return bytes[1];
}

/*
 * Decode buf[size]. False means that it is not such a message, whatever else it may be;
 * what was filled in is then undefined. The strings point into buf.
 */
static inline bool
pgt_wire_decode_open(const void *buf, size_t size, PgtWireRefreshOpen *open)
{
	PgtWireIn in = {(const unsigned char *) buf, size, 2, false};

	if (pgt_wire_get_kind(buf, size) != PGT_WIRE_KIND_OPEN)
		return false;
	open->relid = (uint32_t) pgt_wire_get_uint(&in, 4);
	open->refresh_id = (int64_t) pgt_wire_get_uint(&in, 8);
	open->data_timestamp = (int64_t) pgt_wire_get_uint(&in, 8);
	open->schema = pgt_wire_get_text(&in, PGT_WIRE_MAX_NAME);
	open->name = pgt_wire_get_text(&in, PGT_WIRE_MAX_NAME);
	open->mode = pgt_wire_get_text(&in, PGT_WIRE_MAX_NAME);
	open->frontier = pgt_wire_get_text(&in, PGT_WIRE_MAX_FRONTIER);
	return !in.failed && open->relid != 0 && open->schema.len > 0 && open->name.len > 0;
}

static inline bool
pgt_wire_decode_close(const void *buf, size_t size, PgtWireRefreshClose *close)
{
	PgtWireIn in = {(const unsigned char *) buf, size, 2, false};

	if (pgt_wire_get_kind(buf, size) != PGT_WIRE_KIND_CLOSE)
		return false;
	close->relid = (uint32_t) pgt_wire_get_uint(&in, 4);
	close->refresh_id = (int64_t) pgt_wire_get_uint(&in, 8);
	close->inserted = (int64_t) pgt_wire_get_uint(&in, 8);
	close->updated = (int64_t) pgt_wire_get_uint(&in, 8);
	close->deleted = (int64_t) pgt_wire_get_uint(&in, 8);
	return !in.failed && close->relid != 0 && close->inserted >= 0 && close->updated >= 0 &&
		   close->deleted >= 0;
}

/* Decode the content of a heartbeat; false when it is not a time. */
static inline bool
pgt_wire_decode_heartbeat(const void *buf, size_t size, int64_t *time)
{
	const unsigned char *bytes = (const unsigned char *) buf;
	int64_t value = 0;

	/* 18 digits are less than an int64_t can hold, and enough until the year 33658. */
	if (size < 1 || size > 18)
		return false;
	for (size_t i = 0; i < size; i++)
	{
		if (bytes[i] < '0' || bytes[i] > '9')
			return false;
		value = value * 10 + (bytes[i] - '0');
	}
	*time = value;
	return true;
}

#endif /* PGT_WIRE_H */
