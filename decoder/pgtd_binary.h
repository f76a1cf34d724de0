/*
 * pgtd_binary.h: the parts that format=binary is made of. Everything is in network byte order.
 */
#ifndef PGTD_BINARY_H
#define PGTD_BINARY_H

#include "port/pg_bswap.h"

#include "pgtd_out.h"

/* In place of the length of a value. */
#define PGTD_BINARY_NULL (-1)
#define PGTD_BINARY_UNCHANGED (-2) /* a large value that is not in the WAL */
#define PGTD_BINARY_ABSENT (-3)	   /* not part of the replica identity */
#define PGTD_BINARY_OVERSIZE (-4)  /* left out, as oversize=omit asks for */

static inline void
pgtd_put_uint16_be(PgtdOut *out, uint16 value)
{
	uint16 bytes = pg_hton16(value);

	pgtd_put_bytes(out, (const char *) &bytes, sizeof(bytes));
}

static inline void
pgtd_put_uint32_be(PgtdOut *out, uint32 value)
{
	uint32 bytes = pg_hton32(value);

	pgtd_put_bytes(out, (const char *) &bytes, sizeof(bytes));
}

static inline void
pgtd_put_uint64_be(PgtdOut *out, uint64 value)
{
	uint64 bytes = pg_hton64(value);

	pgtd_put_bytes(out, (const char *) &bytes, sizeof(bytes));
}

/* LEB128: seven bits a byte, the lowest first, the highest bit set where more follow. */
static inline void
pgtd_put_varint(PgtdOut *out, uint64 value)
{
	while (value >= 0x80)
	{
		pgtd_put_char(out, (char) (value | 0x80));
		value >>= 7;
	}
	pgtd_put_char(out, (char) value);
}

/* Room for the length of what follows; pgtd_end_length writes it there. */
static inline int
pgtd_start_length(PgtdOut *out)
{
	pgtd_put_uint32_be(out, 0);
	return out->buf->len;
}

static inline void
pgtd_end_length(PgtdOut *out, int start)
{
	uint32 len = pg_hton32((uint32) (out->buf->len - start));

	if (likely(!out->full))
		memcpy(out->buf->data + start - sizeof(len), &len, sizeof(len));
}

#endif /* PGTD_BINARY_H */
