/*
 * out.c: writing into a message, bounded; numbers, JSON strings, and the way to UTF-8.
 *
 * Owns nothing: the buffer belongs to the server, conversions are palloc'd in the current
 * context, which callers reset for each change.
 */
#include "postgres.h"

#include "access/xlogdefs.h"
#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "pgtd_out.h"

/* Strings are escaped in pieces, so that the room reserved stays near the room needed. */
#define ESCAPE_PIECE 16384

char *
pgtd_reserve_slow(PgtdOut *out, Size len)
{
	if (out->full || len > out->limit || out->buf->len > out->limit - len)
	{
		out->full = true;
		return NULL;
	}
	enlargeStringInfo(out->buf, (int) len);
	return out->buf->data + out->buf->len;
}

void
pgtd_put_int64(PgtdOut *out, int64 value)
{
	char *to = pgtd_reserve(out, 20 + 1);

	if (to != NULL)
		pgtd_advance(out, pg_lltoa(value, to));
}

void
pgtd_put_uint64(PgtdOut *out, uint64 value)
{
	char *to = pgtd_reserve(out, 20);

	if (to != NULL)
		pgtd_advance(out, pg_ulltoa_n(value, to));
}

void
pgtd_put_hex64(PgtdOut *out, uint64 value)
{
	char hex[17];

	snprintf(hex, sizeof(hex), "%08x%08x", (uint32) (value >> 32), (uint32) value);
	pgtd_put_bytes(out, hex, 16);
}

void
pgtd_put_lsn(PgtdOut *out, XLogRecPtr lsn)
{
	char text[20];
	int len = snprintf(text, sizeof(text), "%X/%X", LSN_FORMAT_ARGS(lsn));

	pgtd_put_bytes(out, text, len);
}

void
pgtd_put_base64(PgtdOut *out, const char *bytes, Size len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *from = (const unsigned char *) bytes;
	char *to = pgtd_reserve(out, (len + 2) / 3 * 4);
	char *start = to;

	if (to == NULL)
		return;
	for (; len >= 3; len -= 3, from += 3)
	{
		*to++ = digits[from[0] >> 2];
		*to++ = digits[(from[0] & 0x03) << 4 | from[1] >> 4];
		*to++ = digits[(from[1] & 0x0f) << 2 | from[2] >> 6];
		*to++ = digits[from[2] & 0x3f];
	}
	if (len > 0)
	{
		unsigned char second = len > 1 ? from[1] : 0;

		*to++ = digits[from[0] >> 2];
		*to++ = digits[(from[0] & 0x03) << 4 | second >> 4];
		*to++ = len > 1 ? digits[(second & 0x0f) << 2] : '=';
		*to++ = '=';
	}
	pgtd_advance(out, to - start);
}

/* ---- JSON strings ------------------------------------------------------------------ */

static inline bool
must_be_escaped(unsigned char c)
{
	return c < 0x20 || c == '"' || c == '\\';
}

static char *
escape_char(char *to, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";
	char letter;

	switch (c)
	{
		case '"':
		case '\\':
			letter = c;
			break;
		case '\b':
			letter = 'b';
			break;
		case '\f':
			letter = 'f';
			break;
		case '\n':
			letter = 'n';
			break;
		case '\r':
			letter = 'r';
			break;
		case '\t':
			letter = 't';
			break;
		default:
			memcpy(to, "\\u00", 4);
			to[4] = hex[c >> 4];
			to[5] = hex[c & 0x0f];
			return to + 6;
	}
	to[0] = '\\';
	to[1] = letter;
	return to + 2;
}

#define EVERY_BYTE(b) (UINT64CONST(0x0101010101010101) * (b))
#define HAS_ZERO(w) (((w) -EVERY_BYTE(0x01)) & ~(w) &EVERY_BYTE(0x80))

static inline bool
is_plain(uint64 bytes)
{
	return (HAS_ZERO(bytes ^ EVERY_BYTE('"')) | HAS_ZERO(bytes ^ EVERY_BYTE('\\')) |
			((bytes - EVERY_BYTE(0x20)) & ~bytes & EVERY_BYTE(0x80))) == 0;
}

/*
 * Copies as many of the next COPY_WIDTH bytes as come before one that must be escaped, and
 * returns their number. The room is there: it was reserved for the worst case.
 */
#ifdef __SSE2__
#define COPY_WIDTH 16

static inline int
copy_plain_bytes(char *to, const char *from)
{
	__m128i bytes = _mm_loadu_si128((const __m128i *) from);
	__m128i quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"'));
	__m128i backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'));
	__m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
	int escapes = _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), control));

	_mm_storeu_si128((__m128i *) to, bytes);
	return escapes == 0 ? COPY_WIDTH : pg_rightmost_one_pos32(escapes);
}
#else
#define COPY_WIDTH 8

static inline int
copy_plain_bytes(char *to, const char *from)
{
	uint64 bytes;
	int count = 0;

	memcpy(&bytes, from, sizeof(bytes));
	memcpy(to, &bytes, sizeof(bytes));
	if (is_plain(bytes))
		return COPY_WIDTH;
	while (!must_be_escaped(from[count]))
		count++;
	return count;
}
#endif

/* Copies len bytes, fewer than 16, if none of them must be escaped: from both ends, which may overlap. */
static inline bool
copy_plain_rest(char *to, const char *from, Size len)
{
	uint64 first = EVERY_BYTE(' ');
	uint64 last = EVERY_BYTE(' ');
	Size width = len >= sizeof(uint64) ? sizeof(uint64) : sizeof(uint32);

	if (len < width)
		return false;
	if (width == sizeof(uint64))
	{
		memcpy(&first, from, sizeof(uint64));
		memcpy(&last, from + len - sizeof(uint64), sizeof(uint64));
	}
	else
	{
		memcpy(&first, from, sizeof(uint32));
		memcpy(&last, from + len - sizeof(uint32), sizeof(uint32));
	}
	if (!is_plain(first) || !is_plain(last))
		return false;
	if (width == sizeof(uint64))
	{
		memcpy(to, &first, sizeof(uint64));
		memcpy(to + len - sizeof(uint64), &last, sizeof(uint64));
	}
	else
	{
		memcpy(to, &first, sizeof(uint32));
		memcpy(to + len - sizeof(uint32), &last, sizeof(uint32));
	}
	return true;
}

static void
put_escaped_piece(PgtdOut *out, const char *from, Size len)
{
	const char *end = from + len;
	char *to = pgtd_reserve(out, len * 6);
	char *start = to;

	if (to == NULL)
	{
		/* Near the limit: what is really needed may still fit. */
		Size needed = 0;

		for (const char *c = from; c < end; c++)
		{
			char scratch[8];

			needed += must_be_escaped(*c) ? escape_char(scratch, *c) - scratch : 1;
		}
		if (out->buf->len + needed > out->limit)
			return;
		out->full = false;
		for (; from < end; from++)
		{
			char scratch[8];
			Size n = 1;

			scratch[0] = *from;
			if (must_be_escaped(*from))
				n = escape_char(scratch, *from) - scratch;
			pgtd_put_bytes(out, scratch, n);
		}
		return;
	}

	while (end - from >= COPY_WIDTH)
	{
		int count = copy_plain_bytes(to, from);

		from += count;
		to += count;
		if (count < COPY_WIDTH)
			to = escape_char(to, *from++);
	}
	if (copy_plain_rest(to, from, end - from))
	{
		to += end - from;
		from = end;
	}
	for (; from < end; from++)
	{
		if (unlikely(must_be_escaped(*from)))
			to = escape_char(to, *from);
		else
			*to++ = *from;
	}
	pgtd_advance(out, to - start);
}

void
pgtd_put_utf8_string(PgtdOut *out, const char *utf8, Size len)
{
	pgtd_put_char(out, '"');
	while (len > 0 && !out->full)
	{
		Size piece = Min(len, ESCAPE_PIECE);

		put_escaped_piece(out, utf8, piece);
		utf8 += piece;
		len -= piece;
	}
	pgtd_put_char(out, '"');
}

void
pgtd_put_string(PgtdOut *out, const char *text, Size len)
{
	if (out->full || len > out->limit)
	{
		out->full = true;
		return;
	}
	if (!out->encoding->is_utf8)
		text = pgtd_to_utf8(out->encoding, text, len, &len, false);
	pgtd_put_utf8_string(out, text, len);
}

/* ---- names ------------------------------------------------------------------------- */

static bool
needs_quotes(const char *name)
{
	if (!((*name >= 'a' && *name <= 'z') || *name == '_'))
		return true;
	for (; *name != '\0'; name++)
	{
		if (!((*name >= 'a' && *name <= 'z') || (*name >= '0' && *name <= '9') || *name == '_'))
			return true;
	}
	return false;
}

/* quote_identifier knows keywords, which differ by release, and obeys a setting. */
static void
append_quoted(StringInfo buf, const char *name)
{
	if (!needs_quotes(name))
	{
		appendStringInfoString(buf, name);
		return;
	}
	appendStringInfoChar(buf, '"');
	for (; *name != '\0'; name++)
	{
		if (*name == '"')
			appendStringInfoChar(buf, '"');
		appendStringInfoChar(buf, *name);
	}
	appendStringInfoChar(buf, '"');
}

void
pgtd_append_name(StringInfo buf, const char *schema, const char *name)
{
	append_quoted(buf, schema);
	appendStringInfoChar(buf, '.');
	append_quoted(buf, name);
}

/* ---- UTF-8 ------------------------------------------------------------------------- */

void
pgtd_find_encoding(PgtdEncoding *encoding)
{
	encoding->server_encoding = GetDatabaseEncoding();
	encoding->is_utf8 = encoding->server_encoding == PG_UTF8;
	encoding->convert.fn_oid = InvalidOid;
	if (!encoding->is_utf8 && encoding->server_encoding != PG_SQL_ASCII)
	{
		Oid function = FindDefaultConversionProc(encoding->server_encoding, PG_UTF8);

		if (!OidIsValid(function))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("could not find a conversion from encoding \"%s\" to \"UTF8\"",
							pg_encoding_to_char(encoding->server_encoding)),
					 errdetail("The rows that pg_trickle_decoder sends are always in UTF8.")));
		fmgr_info(function, &encoding->convert);
	}
}

static bool
is_ascii(const char *text, Size len)
{
	for (; len >= sizeof(uint64); text += sizeof(uint64), len -= sizeof(uint64))
	{
		uint64 bytes;

		memcpy(&bytes, text, sizeof(bytes));
		if ((bytes & UINT64CONST(0x8080808080808080)) != 0)
			return false;
	}
	for (; len > 0; text++, len--)
	{
		if (IS_HIGHBIT_SET(*text))
			return false;
	}
	return true;
}

static void
report_not_utf8(void)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
		 errmsg("could not convert text to encoding \"UTF8\""),
		 errdetail("The database has encoding \"SQL_ASCII\", and the text is not valid UTF-8, "
				   "so that its encoding is unknown."),
		 errhint("Correct the text, or exclude the table with the option \"exclude_tables\".")));
}

const char *
pgtd_to_utf8(const PgtdEncoding *encoding, const char *text, Size len, Size *utf8_len,
			 bool missing_ok)
{
	char *utf8;
	int converted;

	*utf8_len = len;
	if (len == 0 || encoding->is_utf8 || is_ascii(text, len))
		return text;

	if (!OidIsValid(encoding->convert.fn_oid))
	{
		if (pg_verify_mbstr(PG_UTF8, text, (int) len, true))
			return text;
		if (!missing_ok)
			report_not_utf8();
		return NULL;
	}

	utf8 = MemoryContextAllocHuge(CurrentMemoryContext, len * MAX_CONVERSION_GROWTH + 1);
	converted = DatumGetInt32(FunctionCall6(
		unconstify(FmgrInfo *, &encoding->convert), Int32GetDatum(encoding->server_encoding),
		Int32GetDatum(PG_UTF8), CStringGetDatum(text), CStringGetDatum(utf8),
		Int32GetDatum((int) len), BoolGetDatum(missing_ok)));
	if (converted != (int) len)
	{
		pfree(utf8);
		return NULL;
	}
	*utf8_len = strlen(utf8);
	return utf8;
}
