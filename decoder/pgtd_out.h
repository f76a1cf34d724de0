/*
 * pgtd_out.h: the bytes of one message while they are written.
 *
 * A PgtdOut writes into the StringInfo that the server sends, up to a limit. What would go
 * beyond the limit is not written; "full" is set instead and everything after it is ignored,
 * so that callers test once, after a value, and can go back to a mark. Nothing here raises an
 * error for size.
 *
 * Output is always UTF-8. Text of the database is converted by pgtd_put_string and its
 * like; bytes given to pgtd_put_bytes are UTF-8 already.
 */
#ifndef PGTD_OUT_H
#define PGTD_OUT_H

#include "access/xlogdefs.h"
#include "fmgr.h"
#include "lib/stringinfo.h"

/* How text gets from the encoding of the database to UTF-8. */
typedef struct PgtdEncoding
{
	int server_encoding;
	bool is_utf8;	  /* nothing to do */
	FmgrInfo convert; /* fn_oid invalid: SQL_ASCII, only verify */
} PgtdEncoding;

typedef struct PgtdOut
{
	StringInfo buf;
	Size start; /* of the message at hand, in buf */
	Size limit; /* of buf->len */
	bool full;	/* something did not fit */
	const PgtdEncoding *encoding;
} PgtdOut;

/* Look up the conversion; needs a transaction. Lives in CurrentMemoryContext. */
extern void pgtd_find_encoding(PgtdEncoding *encoding);

extern char *pgtd_reserve_slow(PgtdOut *out, Size len);

/* Room for len more bytes, or NULL. What was used of it is added with pgtd_advance. */
static inline char *
pgtd_reserve(PgtdOut *out, Size len)
{
	StringInfo buf = out->buf;

	if (likely(!out->full && buf->len + len < buf->maxlen && buf->len + len <= out->limit))
		return buf->data + buf->len;
	return pgtd_reserve_slow(out, len);
}

static inline void
pgtd_advance(PgtdOut *out, Size len)
{
	out->buf->len += len;
}

static inline void
pgtd_put_bytes(PgtdOut *out, const char *bytes, Size len)
{
	char *to = pgtd_reserve(out, len);

	if (to != NULL)
	{
		memcpy(to, bytes, len);
		pgtd_advance(out, len);
	}
}

static inline void
pgtd_put_char(PgtdOut *out, char c)
{
	char *to = pgtd_reserve(out, 1);

	if (to != NULL)
	{
		*to = c;
		pgtd_advance(out, 1);
	}
}

#define pgtd_put_literal(out, literal) pgtd_put_bytes((out), (literal), sizeof(literal) - 1)

static inline void
pgtd_put_cstring(PgtdOut *out, const char *string)
{
	pgtd_put_bytes(out, string, strlen(string));
}

extern void pgtd_put_int64(PgtdOut *out, int64 value);
extern void pgtd_put_uint64(PgtdOut *out, uint64 value);
extern void pgtd_put_hex64(PgtdOut *out, uint64 value);
extern void pgtd_put_lsn(PgtdOut *out, XLogRecPtr lsn);
extern void pgtd_put_base64(PgtdOut *out, const char *bytes, Size len);

/* A JSON string, quotes included; of UTF-8 bytes, and of text of the database. */
extern void pgtd_put_utf8_string(PgtdOut *out, const char *utf8, Size len);
extern void pgtd_put_string(PgtdOut *out, const char *text, Size len);

/*
 * schema.name, each quoted where it has other characters than lower case letters, digits
 * and underscores; text of the database. The same in every release and session.
 */
extern void pgtd_append_name(StringInfo buf, const char *schema, const char *name);

/*
 * Text of the database in UTF-8: the text itself where that is the same, else palloc'd.
 * Raises an error when it cannot be converted, or returns NULL with missing_ok.
 */
extern const char *pgtd_to_utf8(const PgtdEncoding *encoding, const char *text, Size len,
								Size *utf8_len, bool missing_ok);

#endif /* PGTD_OUT_H */
