/*
 * options.c: what a consumer can ask for. One table, one row per option; there is nothing
 * here that does nothing.
 *
 * Needs no transaction: it also runs when a slot is created.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/parsenodes.h"
#include "nodes/value.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "pgtd_filter.h"
#include "pgtd_format.h"
#include "pgtd_options.h"
#include "pgtd_publication.h"

#define MAX_MESSAGE_BYTES_LOWEST 1024

typedef struct OptionRow
{
	const char *name;
	const char *takes;	 /* ends the sentence: Option "..." takes ... */
	const char *initial; /* NULL: left unset */
	bool alone_means_on; /* may be given without a value */
	bool (*parse)(PgtdOptions *options, const char *value);
} OptionRow;

/* ---- the values -------------------------------------------------------------------- */

static bool
parse_format(PgtdOptions *options, const char *value)
{
	options->format = pgtd_find_format(value);
	return options->format != NULL;
}

static bool
parse_envelope(PgtdOptions *options, const char *value)
{
	/* The table has format before envelope, so it is known. */
	options->envelope = pgtd_find_envelope(options->format, value);
	return options->envelope != NULL;
}

static bool
parse_format_version(PgtdOptions *options, const char *value)
{
	return strcmp(value, CppAsString2(PGTD_FORMAT_VERSION)) == 0;
}

static bool
parse_tables(PgtdOptions *options, const char *value)
{
	return pgtd_parse_tables(value, &options->tables);
}

static bool
parse_exclude_tables(PgtdOptions *options, const char *value)
{
	return pgtd_parse_tables(value, &options->exclude_tables);
}

/* The table has tables before publications, so they are known. */
static bool
parse_publications(PgtdOptions *options, const char *value)
{
	return pgtd_parse_publications(value, &options->publications) &&
		   (options->publications == NIL || options->tables == NIL);
}

static bool
parse_include_refresh(PgtdOptions *options, const char *value)
{
	return parse_bool(value, &options->include_refresh);
}

static bool
parse_include_schema(PgtdOptions *options, const char *value)
{
	return parse_bool(value, &options->include_schema);
}

static bool
parse_messages(PgtdOptions *options, const char *value)
{
	return pgtd_parse_prefixes(value, &options->messages);
}

/* One of two words. */
static bool
parse_choice(const char *value, const char *no, const char *yes, bool *choice)
{
	*choice = strcmp(value, yes) == 0;
	return *choice || strcmp(value, no) == 0;
}

static bool
parse_origin(PgtdOptions *options, const char *value)
{
	return parse_choice(value, "any", "none", &options->local_only);
}

static bool
parse_bigint(PgtdOptions *options, const char *value)
{
	return parse_choice(value, "number", "string", &options->bigint_as_string) &&
		   (options->format->is_text || !options->bigint_as_string);
}

static bool
parse_oversize(PgtdOptions *options, const char *value)
{
	return parse_choice(value, "error", "omit", &options->omit_oversize);
}

static bool
parse_bytes(const char *value, int lowest, int highest, int *bytes)
{
	char *end;
	long number;

	errno = 0;
	number = strtol(value, &end, 10);
	if (end == value || *end != '\0' || errno != 0 || number < lowest || number > highest)
		return false;
	*bytes = (int) number;
	return true;
}

static bool
parse_max_message_bytes(PgtdOptions *options, const char *value)
{
	return parse_bytes(value, MAX_MESSAGE_BYTES_LOWEST, PGTD_MAX_MESSAGE_BYTES,
					   &options->max_message_bytes);
}

static bool
parse_batch_bytes(PgtdOptions *options, const char *value)
{
	return parse_bytes(value, 0, PGTD_MAX_BATCH_BYTES, &options->batch_bytes);
}

static bool
parse_topic_prefix(PgtdOptions *options, const char *value)
{
	options->topic_prefix = pstrdup(value);
	return *value != '\0';
}

static const OptionRow option_table[] = {
	{"format", "\"json\" or \"binary\"", "json", false, parse_format},
	{"format_version", "\"" CppAsString2(PGTD_FORMAT_VERSION) "\"",
	 CppAsString2(PGTD_FORMAT_VERSION), false, parse_format_version},
	{"envelope", "\"compact\", \"debezium\" or \"row\", and with format=binary only the first",
	 "compact", false, parse_envelope},
	{"tables", PGTD_TABLES_SYNTAX, "", false, parse_tables},
	{"exclude_tables", PGTD_TABLES_SYNTAX, "", false, parse_exclude_tables},
	{"publications",
	 "a comma-separated list of publications, each named as in SQL, and not together with "
	 "\"tables\"",
	 "", false, parse_publications},
	{"include_refresh", "a Boolean", "on", true, parse_include_refresh},
	{"include_schema", "a Boolean", "on", true, parse_include_schema},
	{"messages", PGTD_PREFIXES_SYNTAX, "", false, parse_messages},
	{"origin", "\"any\" or \"none\"", "any", false, parse_origin},
	{"bigint", "\"number\" or \"string\", the latter not with format=binary", "number", false,
	 parse_bigint},
	{"oversize", "\"error\" or \"omit\"", "error", false, parse_oversize},
	{"max_message_bytes",
	 "an integer from " CppAsString2(MAX_MESSAGE_BYTES_LOWEST) " to " CppAsString2(
		 PGTD_MAX_MESSAGE_BYTES),
	 CppAsString2(PGTD_MAX_MESSAGE_BYTES), false, parse_max_message_bytes},
	{"batch_bytes", "an integer from 0 to " CppAsString2(PGTD_MAX_BATCH_BYTES), "0", false,
	 parse_batch_bytes},
	{"topic_prefix", "a name, not empty", NULL, false, parse_topic_prefix},
};

/* ---- the list ---------------------------------------------------------------------- */

static char *
list_options(void)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < lengthof(option_table); i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", option_table[i].name);
	return names.data;
}

static void
report_bad_value(const OptionRow *row, const char *value)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 value != NULL ? errmsg("invalid value for option \"%s\": \"%s\"", row->name, value)
						   : errmsg("option \"%s\" needs a value", row->name),
			 errdetail("Option \"%s\" takes %s.", row->name, row->takes),
			 errhint("The options of pg_trickle_decoder are: %s.", list_options())));
}

static int
find_option(const char *name)
{
	for (int i = 0; i < lengthof(option_table); i++)
	{
		if (strcmp(option_table[i].name, name) == 0)
			return i;
	}
	if (strcmp(name, "streaming") == 0 || strcmp(name, "two_phase") == 0)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("pg_trickle_decoder does not support option \"%s\"", name),
						errdetail("Transactions are sent whole, and when they commit: neither "
								  "while they run nor when they are prepared."),
						errhint("The options of pg_trickle_decoder are: %s.", list_options())));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized option \"%s\" of output plugin \"pg_trickle_decoder\"", name),
			 errhint("The options of pg_trickle_decoder are: %s.", list_options())));
	return -1; /* keep compiler quiet */
}

void
pgtd_parse_options(List *given, PgtdOptions *options)
{
	bool seen[lengthof(option_table)] = {false};
	ListCell *cell;

	memset(options, 0, sizeof(PgtdOptions));
	options->values = palloc(sizeof(char *) * lengthof(option_table));
	for (int i = 0; i < lengthof(option_table); i++)
		options->values[i] = option_table[i].initial;

	foreach (cell, given)
	{
		DefElem *option = lfirst_node(DefElem, cell);
		int i = find_option(option->defname);

		if (seen[i])
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("option \"%s\" is given more than once", option->defname),
							errdetail("Option \"%s\" takes %s.", option_table[i].name,
									  option_table[i].takes),
							errhint("The options of pg_trickle_decoder are: %s.", list_options())));
		seen[i] = true;
		if (option->arg != NULL)
			options->values[i] = pstrdup(strVal(option->arg));
		else if (option_table[i].alone_means_on)
			options->values[i] = "on";
		else
			report_bad_value(&option_table[i], NULL);
	}

	/* In the order of the table, whatever order they were given in. */
	for (int i = 0; i < lengthof(option_table); i++)
	{
		const char *value = options->values[i];

		if (value != NULL && !option_table[i].parse(options, value))
			report_bad_value(&option_table[i], value);
	}
}

void
pgtd_put_options(PgtdOut *out, const PgtdOptions *options)
{
	bool is_first = true;

	for (int i = 0; i < lengthof(option_table); i++)
	{
		const char *value = options->values[i];

		if (value == NULL)
			continue;
		if (!is_first)
			pgtd_put_char(out, ',');
		is_first = false;
		pgtd_put_string(out, option_table[i].name, strlen(option_table[i].name));
		pgtd_put_char(out, ':');
		pgtd_put_string(out, value, strlen(value));
	}
}
