/*
 * numeric.c: numeric values, as numeric_out and numeric_send write them, but straight from
 * the stored form: numeric columns are common, and these functions allocate and copy.
 *
 * The stored form (utils/adt/numeric.c) is a header, maybe a weight, and digits of base
 * 10,000. It is on disk everywhere, so it does not change between major versions.
 */
#include "postgres.h"

#include "pgt_compat.h"
#include "pgtd_binary.h"
#include "pgtd_out.h"
#include "pgtd_value.h"

#define DIGITS_PER_WORD 4

#define HEADER_KIND 0xC000 /* of these, 0 and 0x4000 are the sign of the long form */
#define HEADER_SHORT 0x8000
#define HEADER_SPECIAL 0xC000
#define SPECIAL_KIND 0xF000
#define SPECIAL_PLUS_INFINITY 0xD000
#define SPECIAL_MINUS_INFINITY 0xF000

#define SHORT_NEGATIVE 0x2000
#define SHORT_SCALE 0x1F80
#define SHORT_SCALE_SHIFT 7
#define SHORT_WEIGHT 0x003F
#define SHORT_WEIGHT_NEGATIVE 0x0040
#define LONG_SCALE 0x3FFF

#define SIGN_NEGATIVE 0x4000

typedef struct Number
{
	int special; /* 0, or what the header says */
	bool is_negative;
	int weight; /* of the first word: 10,000 to the power of this */
	int scale;	/* decimal digits after the point */
	int count;
	const char *words; /* int16 each, not aligned */
} Number;

static inline uint16
get_word(const char *from)
{
	uint16 word;

	memcpy(&word, from, sizeof(word));
	return word;
}

static void
parse_number(const struct varlena *bytes, Number *number)
{
	const char *data = VARDATA_ANY(bytes);
	const char *end = data + VARSIZE_ANY_EXHDR(bytes);
	uint16 header = get_word(data);

	data += sizeof(header);
	number->special = 0;
	if ((header & HEADER_KIND) == HEADER_SPECIAL)
		number->special = header & SPECIAL_KIND;
	if (header & HEADER_SHORT) /* of special ones, too */
	{
		number->is_negative = (header & SHORT_NEGATIVE) != 0;
		number->scale = (header & SHORT_SCALE) >> SHORT_SCALE_SHIFT;
		number->weight = header & SHORT_WEIGHT;
		if (header & SHORT_WEIGHT_NEGATIVE)
			number->weight |= ~SHORT_WEIGHT;
	}
	else
	{
		number->is_negative = (header & HEADER_KIND) == SIGN_NEGATIVE;
		number->scale = header & LONG_SCALE;
		number->weight = (int16) get_word(data);
		data += sizeof(uint16);
	}
	number->words = data;
	number->count = (end - data) / sizeof(uint16);
}

/* The word of a power of 10,000; 0 where none is stored. */
static inline int
get_digits(const Number *number, int power)
{
	int i = number->weight - power;

	return i >= 0 && i < number->count ? get_word(number->words + i * sizeof(uint16)) : 0;
}

static inline char *
write_four(char *to, int digits)
{
	to[0] = '0' + digits / 1000;
	to[1] = '0' + digits / 100 % 10;
	to[2] = '0' + digits / 10 % 10;
	to[3] = '0' + digits % 10;
	return to + DIGITS_PER_WORD;
}

void
pgtd_put_numeric(PgtdOut *out, const struct varlena *bytes)
{
	Number number;
	char *start;
	char *to;

	parse_number(bytes, &number);
	if (number.special != 0)
	{
		if (number.special == SPECIAL_PLUS_INFINITY)
			pgtd_put_literal(out, "\"Infinity\"");
		else if (number.special == SPECIAL_MINUS_INFINITY)
			pgtd_put_literal(out, "\"-Infinity\"");
		else
			pgtd_put_literal(out, "\"NaN\"");
		return;
	}
	/* Quotes, sign, point, whole words before and behind the point. */
	start = to = pgtd_reserve(out, (Max(number.weight, 0) + 1) * DIGITS_PER_WORD + number.scale +
									   DIGITS_PER_WORD + 4);
	if (to == NULL)
		return;
	*to++ = '"';
	if (number.is_negative)
		*to++ = '-';
	if (number.weight < 0)
		*to++ = '0';
	for (int power = number.weight; power >= 0; power--)
	{
		int digits = get_digits(&number, power);

		if (power < number.weight)
			to = write_four(to, digits);
		else
		{
			char four[DIGITS_PER_WORD];
			int skip = digits < 10 ? 3 : digits < 100 ? 2 : digits < 1000 ? 1 : 0;

			write_four(four, digits);
			memcpy(to, four + skip, DIGITS_PER_WORD - skip);
			to += DIGITS_PER_WORD - skip;
		}
	}
	if (number.scale > 0)
	{
		char *point = to;

		*to++ = '.';
		for (int power = -1; to <= point + number.scale; power--)
			to = write_four(to, get_digits(&number, power));
		to = point + 1 + number.scale;
	}
	*to++ = '"';
	pgtd_advance(out, to - start);
}

void
pgtd_put_binary_numeric(PgtdOut *out, const struct varlena *bytes)
{
	Number number;

	parse_number(bytes, &number);
	pgtd_put_uint16_be(out, number.count);
	pgtd_put_uint16_be(out, number.weight);
	pgtd_put_uint16_be(out, number.special != 0 ? number.special
												: (number.is_negative ? SIGN_NEGATIVE : 0));
	pgtd_put_uint16_be(out, number.scale);
	for (int i = 0; i < number.count; i++)
		pgtd_put_uint16_be(out, get_word(number.words + i * sizeof(uint16)));
}
