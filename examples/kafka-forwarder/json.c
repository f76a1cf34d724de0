/*
 * json.c: find values in JSON without copying it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "log.h"

static const char *
skip_space(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
		at++;
	return at;
}

/* After the string that begins here, or NULL. */
static const char *
skip_string(const char *at, const char *end)
{
	for (at++; at < end; at++)
	{
		if (*at == '"')
			return at + 1;
		if (*at == '\\')
			at++;
	}
	return NULL;
}

/* After the object or array that begins here, or NULL: only brackets and strings count. */
static const char *
skip_nested(const char *at, const char *end)
{
	size_t depth = 0;

	while (at != NULL && at < end)
	{
		switch (*at)
		{
			case '{':
			case '[':
				depth++;
				at++;
				break;
			case '}':
			case ']':
				at++;
				if (--depth == 0)
					return at;
				break;
			case '"':
				at = skip_string(at, end);
				break;
			default:
				at++;
		}
	}
	return NULL;
}

static const char *
skip_value(const char *at, const char *end)
{
	const char *start = at;

	if (at >= end)
		return NULL;
	if (*at == '"')
		return skip_string(at, end);
	if (*at == '{' || *at == '[')
		return skip_nested(at, end);
	while (at < end && strchr(",}] \t\r\n", *at) == NULL)
		at++;
	return at > start ? at : NULL;
}

bool
fwd_json_open(FwdJsonScan *scan, FwdSpan value)
{
	memset(scan, 0, sizeof(*scan));
	if (value.data == NULL)
		return false;
	scan->end = value.data + value.length;
	scan->at = skip_space(value.data, scan->end);
	if (scan->at == scan->end || (*scan->at != '{' && *scan->at != '['))
	{
		scan->broken = true;
		return false;
	}
	scan->object = *scan->at++ == '{';
	return true;
}

/* The next value, from where the scan stands to where it ends. */
static bool
take_value(FwdJsonScan *scan, FwdSpan *value)
{
	const char *after;

	scan->at = skip_space(scan->at, scan->end);
	after = skip_value(scan->at, scan->end);
	if (after == NULL || after > scan->end)
	{
		scan->broken = true;
		return false;
	}
	value->data = scan->at;
	value->length = after - scan->at;
	scan->at = skip_space(after, scan->end);
	return true;
}

bool
fwd_json_next(FwdJsonScan *scan, FwdSpan *name, FwdSpan *value)
{
	if (scan->broken)
		return false;
	scan->at = skip_space(scan->at, scan->end);
	if (scan->at < scan->end && *scan->at == ',')
		scan->at = skip_space(scan->at + 1, scan->end);
	if (scan->at < scan->end && (*scan->at == '}' || *scan->at == ']'))
		return false;
	if (scan->object)
	{
		if (!take_value(scan, name) || name->length < 2 || name->data[0] != '"' ||
			scan->at >= scan->end || *scan->at != ':')
		{
			scan->broken = true;
			return false;
		}
		name->data++;
		name->length -= 2;
		scan->at++;
	}
	return take_value(scan, value);
}

FwdSpan
fwd_json_get(FwdSpan object, const char *name)
{
	FwdJsonScan scan;
	FwdSpan found = {0};
	FwdSpan key;

	if (!fwd_json_open(&scan, object) || !scan.object)
		return found;
	while (fwd_json_next(&scan, &key, &found))
		if (fwd_span_is(key, name))
			return found;
	return (FwdSpan){0};
}

bool
fwd_span_is(FwdSpan span, const char *text)
{
	return span.data != NULL && strlen(text) == span.length &&
		   memcmp(span.data, text, span.length) == 0;
}

bool
fwd_span_equal(FwdSpan a, FwdSpan b)
{
	return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

bool
fwd_json_is_null(FwdSpan value)
{
	return value.data == NULL || fwd_span_is(value, "null");
}

/* Four hexadecimal digits, or -1. */
static int
hex4(const char *at, const char *end)
{
	char digits[5] = "";

	if (end - at < 4)
		return -1;
	memcpy(digits, at, 4);
	if (strspn(digits, "0123456789abcdefABCDEF") != 4)
		return -1;
	return (int) strtol(digits, NULL, 16);
}

static char *
put_utf8(char *out, unsigned code)
{
	if (code < 0x80)
		*out++ = (char) code;
	else if (code < 0x800)
	{
		*out++ = (char) (0xC0 | code >> 6);
		*out++ = (char) (0x80 | (code & 0x3F));
	}
	else
	{
		*out++ = (char) (0xE0 | code >> 12);
		*out++ = (char) (0x80 | (code >> 6 & 0x3F));
		*out++ = (char) (0x80 | (code & 0x3F));
	}
	return out;
}

/*
 * The decoder escapes only control characters as \uXXXX, so surrogates need no thought: a
 * pair would come out as two characters.
 */
char *
fwd_json_text(FwdSpan string)
{
	static const char escapes[] = "b\bf\fn\nr\rt\t";
	const char *at;
	const char *end;
	char *text;
	char *out;

	if (string.data == NULL || string.length < 2 || string.data[0] != '"')
		return NULL;
	text = out = fwd_alloc(string.length);
	end = string.data + string.length - 1;
	for (at = string.data + 1; at < end; at++)
	{
		if (*at != '\\' || at + 1 >= end)
			*out++ = *at;
		else if (*++at == 'u')
		{
			int code = hex4(at + 1, end);

			if (code < 0)
				continue;
			out = put_utf8(out, (unsigned) code);
			at += 4;
		}
		else
		{
			const char *pair = escapes;

			while (*pair != '\0' && *pair != *at)
				pair += 2;
			*out++ = *pair != '\0' ? pair[1] : *at;
		}
	}
	*out = '\0';
	return text;
}

int64_t
fwd_json_int(FwdSpan number)
{
	char digits[32];

	if (number.data == NULL || number.length >= sizeof(digits))
		return 0;
	memcpy(digits, number.data, number.length);
	digits[number.length] = '\0';
	return strtoll(digits, NULL, 10);
}

bool
fwd_parse_lsn(const char *text, uint64_t *lsn)
{
	unsigned high;
	unsigned low;
	int used = 0;

	if (sscanf(text, "%8X/%8X%n", &high, &low, &used) != 2 || text[used] != '\0')
		return false;
	*lsn = (uint64_t) high << 32 | low;
	return true;
}

uint64_t
fwd_json_lsn(FwdSpan value)
{
	char text[32];
	uint64_t lsn = 0;

	if (value.data == NULL || value.length < 3 || value.length >= sizeof(text))
		return 0;
	if (value.data[0] != '"')
		return (uint64_t) fwd_json_int(value);
	memcpy(text, value.data + 1, value.length - 2);
	text[value.length - 2] = '\0';
	return fwd_parse_lsn(text, &lsn) ? lsn : 0;
}
