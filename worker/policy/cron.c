/*
 * cron.c: reads cron schedules.
 *
 * Relies on nothing but the C library; no memory, no state. cron_next.c finds
 * the times.
 */
#include "pgt_cron.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

typedef struct Field
{
	const char *name;
	int min;
	int max;
	const char *const *names; /* of min, min + 1, ...; NULL: numbers only */
} Field;

static const char *const month_names[] = {"jan", "feb", "mar", "apr", "may", "jun", "jul",
										  "aug", "sep", "oct", "nov", "dec", NULL};
static const char *const weekday_names[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL};

#define FIELD_COUNT 6
#define WEEKDAY_FIELD 5

/* In the order of a text with six fields. */
static const Field fields[FIELD_COUNT] = {
	{"seconds", 0, 59, NULL},	   {"minutes", 0, 59, NULL},
	{"hours", 0, 23, NULL},		   {"day of month", 1, 31, NULL},
	{"month", 1, 12, month_names}, {"day of week", 0, 7, weekday_names},
};

static const struct
{
	const char *name;
	const char *fields;
} macros[] = {
	{"@yearly", "0 0 1 1 *"},  {"@annually", "0 0 1 1 *"},
	{"@monthly", "0 0 1 * *"}, {"@weekly", "0 0 * * 0"},
	{"@daily", "0 0 * * *"},   {"@midnight", "0 0 * * *"},
	{"@hourly", "0 * * * *"},  {NULL, NULL},
};

/* A text being read. */
typedef struct Reader
{
	const char *text;
	const char *at;
	PgtParseError *error;
} Reader;

static bool read_macro(Reader *reader, PgtCron *cron);
static bool read_field(Reader *reader, const Field *field, uint64_t *values, bool *is_star);
static bool read_item(Reader *reader, const Field *field, uint64_t *values);
static bool read_value(Reader *reader, const Field *field, int *value);
static bool read_number(Reader *reader, const Field *field, int *value);
static int count_words(const char *text);
static bool can_come(const PgtCron *cron);
static bool fail(Reader *reader, const char *at, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f';
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* The end of a field, or of one item of its list. */
static bool
is_end(char c)
{
	return c == '\0' || c == ',' || is_space(c);
}

bool
pgt_cron_parse(const char *text, PgtCron *cron, PgtParseError *error)
{
	Reader reader = {text, text, error};
	uint64_t values[FIELD_COUNT] = {1}; /* at second 0, if there is no such field */
	bool is_star[FIELD_COUNT] = {false};
	int count = count_words(text);

	while (is_space(*reader.at))
		reader.at++;
	if (*reader.at == '@')
		return read_macro(&reader, cron);
	if (count != FIELD_COUNT - 1 && count != FIELD_COUNT)
		return fail(&reader, reader.at,
					"a cron schedule has 5 fields, or 6 with leading seconds, not %d", count);
	for (int i = FIELD_COUNT - count; i < FIELD_COUNT; i++)
	{
		while (is_space(*reader.at))
			reader.at++;
		if (!read_field(&reader, &fields[i], &values[i], &is_star[i]))
			return false;
	}
	if (values[WEEKDAY_FIELD] & (UINT64_C(1) << 7))
		values[WEEKDAY_FIELD] = (values[WEEKDAY_FIELD] | 1) & 0x7f;

	*cron = (PgtCron){.seconds = values[0],
					  .minutes = values[1],
					  .hours = values[2],
					  .days = values[3],
					  .months = values[4],
					  .weekdays = values[5],
					  .either_day = !is_star[3] && !is_star[5],
					  .follows_clock = is_star[0] || is_star[1] || is_star[2]};
	if (!can_come(cron))
		return fail(&reader, text, "this never comes: the day does not occur in these months");
	return true;
}

static bool
read_macro(Reader *reader, PgtCron *cron)
{
	const char *start = reader->at;
	size_t length = strcspn(start, " \t\n\r\v\f");

	for (int i = 0; macros[i].name != NULL; i++)
	{
		if (strlen(macros[i].name) != length || strncasecmp(macros[i].name, start, length) != 0)
			continue;
		for (reader->at = start + length; is_space(*reader->at); reader->at++)
			;
		if (*reader->at != '\0')
			return fail(reader, reader->at, "nothing may follow \"%s\"", macros[i].name);
		return pgt_cron_parse(macros[i].fields, cron, reader->error);
	}
	return fail(reader, start, "unknown cron name \"%.*s\"", (int) (length < 40 ? length : 40),
				start);
}

static bool
read_field(Reader *reader, const Field *field, uint64_t *values, bool *is_star)
{
	*values = 0;
	*is_star = *reader->at == '*';
	for (;;)
	{
		if (!read_item(reader, field, values))
			return false;
		if (*reader->at != ',')
			return true;
		reader->at++;
	}
}

/* One of *, N, N-M with or without /STEP. */
static bool
read_item(Reader *reader, const Field *field, uint64_t *values)
{
	const char *start = reader->at;
	int low = field->min;
	int high = field->max;
	int step = 1;

	if (*reader->at == '*')
	{
		reader->at++;
		/* 7 is another name of Sunday, so it is none of the seven days to step through. */
		if (field == &fields[WEEKDAY_FIELD])
			high = 6;
	}
	else
	{
		if (!read_value(reader, field, &low))
			return false;
		if (*reader->at == '-')
		{
			reader->at++;
			if (!read_value(reader, field, &high))
				return false;
			/* Friday to Sunday. */
			if (field == &fields[WEEKDAY_FIELD] && high == 0 && low > 0)
				high = 7;
			if (low > high)
				return fail(reader, start, "the range in the %s field runs backwards", field->name);
		}
		else if (*reader->at != '/')
			high = low;
		else if (field == &fields[WEEKDAY_FIELD])
			high = 6;
	}
	if (*reader->at == '/')
	{
		const char *step_start = ++reader->at;

		if (!read_number(reader, field, &step))
			return false;
		if (step < 1 || step > field->max)
			return fail(reader, step_start, "the step in the %s field must be 1 to %d", field->name,
						field->max);
	}
	if (!is_end(*reader->at))
		return fail(reader, reader->at, "unexpected character \"%c\" in the %s field",
					(unsigned char) *reader->at < 0x80 ? *reader->at : '?', field->name);
	for (int value = low; value <= high; value += step)
		*values |= UINT64_C(1) << value;
	return true;
}

static bool
read_value(Reader *reader, const Field *field, int *value)
{
	const char *start = reader->at;
	int length = 0;

	if (field->names != NULL && is_letter(*start))
	{
		while (is_letter(start[length]))
			length++;
		for (int i = 0; field->names[i] != NULL; i++)
		{
			if (length == 3 && strncasecmp(start, field->names[i], 3) == 0)
			{
				reader->at += length;
				*value = field->min + i;
				return true;
			}
		}
		return fail(reader, start, "unknown name \"%.*s\" in the %s field",
					length < 40 ? length : 40, start, field->name);
	}
	if (!read_number(reader, field, value))
		return false;
	if (*value < field->min || *value > field->max)
		return fail(reader, start, "the %s field must be %d to %d", field->name, field->min,
					field->max);
	return true;
}

/* Digits; what does not fit becomes a number that no field allows. */
static bool
read_number(Reader *reader, const Field *field, int *value)
{
	if (!is_digit(*reader->at))
	{
		if (is_end(*reader->at))
			return fail(reader, reader->at, "a value is missing in the %s field", field->name);
		return fail(reader, reader->at, "unexpected character \"%c\" in the %s field",
					(unsigned char) *reader->at < 0x80 ? *reader->at : '?', field->name);
	}
	*value = 0;
	for (; is_digit(*reader->at); reader->at++)
	{
		if (*value < 1000)
			*value = *value * 10 + (*reader->at - '0');
	}
	return true;
}

static int
count_words(const char *text)
{
	int count = 0;

	for (const char *c = text; *c != '\0'; c++)
	{
		if (!is_space(*c) && (c == text || is_space(c[-1])))
			count++;
	}
	return count;
}

/*
 * Days of the week occur in every month, and the leap days of a cycle fall on
 * all of them; so only a day of the month can be too large for its months.
 */
static bool
can_come(const PgtCron *cron)
{
	static const int longest[] = {0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int first_day = 1;

	if (cron->either_day)
		return true;
	while (!(cron->days >> first_day & 1))
		first_day++;
	for (int month = 1; month <= 12; month++)
	{
		if ((cron->months >> month & 1) && first_day <= longest[month])
			return true;
	}
	return false;
}

static bool
fail(Reader *reader, const char *at, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(reader->error->message, sizeof(reader->error->message), format, args);
	va_end(args);
	reader->error->position = (int) (at - reader->text) + 1;
	return false;
}
