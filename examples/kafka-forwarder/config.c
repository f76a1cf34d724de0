/*
 * config.c: the settings, one row each in a table.
 */
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <ini.h>

#include "config.h"

typedef enum Kind
{
	TEXT,
	SWITCH,
	NUMBER,
	CHOICE,
} Kind;

typedef struct Setting
{
	const char *section;
	const char *name;
	Kind kind;
	size_t offset;
	const char *initial;
	const char *choices; /* CHOICE: words, whose index is the value */
	int min;			 /* NUMBER */
	int max;
} Setting;

#define AT(field) offsetof(FwdConfig, field)

static const Setting settings[] = {
	{"source", "conninfo", TEXT, AT(conninfo), "", NULL, 0, 0},
	{"source", "slot", TEXT, AT(slot), "", NULL, 0, 0},
	{"source", "create_slot", SWITCH, AT(create_slot), "off", NULL, 0, 0},
	{"source", "snapshot", CHOICE, AT(snapshot), "initial", "never initial", 0, 0},
	{"source", "tables", TEXT, AT(tables), "", NULL, 0, 0},
	{"source", "exclude_tables", TEXT, AT(exclude_tables), "", NULL, 0, 0},
	{"source", "envelope", CHOICE, AT(debezium), "debezium", "compact debezium", 0, 0},
	{"source", "oversize", CHOICE, AT(oversize_omit), "error", "error omit", 0, 0},
	{"source", "max_message_bytes", NUMBER, AT(max_message_bytes), "900000", NULL, 1024, 1 << 29},
	{"topics", "prefix", TEXT, AT(prefix), "", NULL, 0, 0},
	{"topics", "name", TEXT, AT(topic), "${prefix}.${schema}.${table}", NULL, 0, 0},
	{"topics", "schemas", TEXT, AT(schema_topic), "", NULL, 0, 0},
	{"topics", "transactions", TEXT, AT(transaction_topic), "", NULL, 0, 0},
	{"topics", "state", TEXT, AT(state_topic), "", NULL, 0, 0},
	{"topics", "tombstones", SWITCH, AT(tombstones), "on", NULL, 0, 0},
	{"topics", "keyless", CHOICE, AT(keyless), "refuse", "refuse single_partition", 0, 0},
	{"topics", "truncate", CHOICE, AT(truncate), "fail", "fail skip send", 0, 0},
	{"topics", "cloudevents", SWITCH, AT(cloudevents), "off", NULL, 0, 0},
	{"forwarder", "delivery", CHOICE, AT(exactly_once), "at_least_once",
	 "at_least_once exactly_once", 0, 0},
	{"forwarder", "transaction_ms", NUMBER, AT(transaction_ms), "20", NULL, 0, 60000},
	{"forwarder", "transaction_records", NUMBER, AT(transaction_records), "50000", NULL, 1,
	 10000000},
	{"forwarder", "queue_mb", NUMBER, AT(queue_mb), "128", NULL, 1, 1 << 20},
	{"forwarder", "metrics_port", NUMBER, AT(metrics_port), "0", NULL, 0, 65535},
	{"forwarder", "log_file", TEXT, AT(log_file), "", NULL, 0, 0},
	{"forwarder", "shutdown_timeout", NUMBER, AT(shutdown_timeout), "30", NULL, 0, 86400},
	{"forwarder", "status_interval", NUMBER, AT(status_interval), "5", NULL, 1, 3600},
};

#define SETTING_COUNT (sizeof(settings) / sizeof(settings[0]))

/* Index of the word in a list separated by spaces, or -1. */
static int
find_choice(const char *choices, const char *word)
{
	int index = 0;
	size_t length = strlen(word);

	if (length == 0 || strchr(word, ' ') != NULL)
		return -1;
	for (const char *at = choices; *at != '\0'; index++)
	{
		size_t size = strcspn(at, " ");

		if (size == length && strncasecmp(at, word, size) == 0)
			return index;
		at += size;
		at += strspn(at, " ");
	}
	return -1;
}

static bool
assign_setting(FwdConfig *config, const Setting *setting, const char *value, FwdError *error)
{
	void *field = (char *) config + setting->offset;
	char *end;
	long number;
	int choice;

	switch (setting->kind)
	{
		case TEXT:
			free(*(char **) field);
			*(char **) field = fwd_strdup(value);
			return true;
		case SWITCH:
		case CHOICE:
			choice = find_choice(
				setting->kind == SWITCH ? "off on false true no yes 0 1" : setting->choices, value);
			if (choice < 0)
				return fwd_fail(error, FWD_FATAL, NULL, "%s.%s is one of: %s, not \"%s\"",
								setting->section, setting->name,
								setting->kind == SWITCH ? "on off" : setting->choices, value);
			*(int *) field = setting->kind == SWITCH ? choice % 2 : choice;
			return true;
		case NUMBER:
			errno = 0;
			number = strtol(value, &end, 10);
			if (errno != 0 || end == value || *end != '\0' || number < setting->min ||
				number > setting->max)
				return fwd_fail(error, FWD_FATAL, NULL,
								"%s.%s is a number from %d to %d, not \"%s\"", setting->section,
								setting->name, setting->min, setting->max, value);
			*(int *) field = (int) number;
			return true;
	}
	return false;
}

static void
put_pair(FwdPair **pairs, const char *name, const char *value)
{
	FwdPair *pair;

	for (pair = *pairs; pair != NULL; pair = pair->next)
		if (strcmp(pair->name, name) == 0)
			break;
	if (pair == NULL)
	{
		pair = fwd_alloc(sizeof(FwdPair));
		pair->name = fwd_strdup(name);
		pair->next = *pairs;
		*pairs = pair;
	}
	free(pair->value);
	pair->value = fwd_strdup(value);
}

const char *
fwd_pair_get(const FwdPair *pairs, const char *name)
{
	for (; pairs != NULL; pairs = pairs->next)
		if (strcmp(pairs->name, name) == 0)
			return pairs->value;
	return NULL;
}

static bool
assign(FwdConfig *config, const char *section, const char *name, const char *value, FwdError *error)
{
	if (strncmp(value, "env:", 4) == 0)
	{
		const char *found = getenv(value + 4);

		if (found == NULL)
			return fwd_fail(error, FWD_FATAL,
							"Set the environment variable, or write the value itself.",
							"%s.%s names the environment variable \"%s\", which is not set",
							section, name, value + 4);
		value = found;
	}
	if (strcmp(section, "kafka") == 0 || strcmp(section, "map") == 0)
	{
		put_pair(section[0] == 'k' ? &config->kafka : &config->map, name, value);
		return true;
	}
	for (size_t i = 0; i < SETTING_COUNT; i++)
		if (strcmp(settings[i].section, section) == 0 && strcmp(settings[i].name, name) == 0)
			return assign_setting(config, &settings[i], value, error);
	return fwd_fail(error, FWD_FATAL,
					"forwarder.ini.sample lists all settings. Properties of librdkafka belong into "
					"the section [kafka].",
					"unknown setting \"%s.%s\"", section, name);
}

void
fwd_config_defaults(FwdConfig *config)
{
	FwdError error = {0};

	memset(config, 0, sizeof(*config));
	for (size_t i = 0; i < SETTING_COUNT; i++)
		assign_setting(config, &settings[i], settings[i].initial, &error);
}

/* inih cuts long lines into pieces and takes the rest for a line of its own: not here. */
typedef struct Reader
{
	FILE *file;
	FwdConfig *config;
	FwdError *error;
	const char *path;
	int line;
} Reader;

static char *
read_line(char *text, int size, void *stream)
{
	Reader *reader = stream;
	char *result = fgets(text, size, reader->file);

	if (result == NULL)
		return NULL;
	reader->line++;
	if (strchr(text, '\n') == NULL && !feof(reader->file))
	{
		fwd_fail(reader->error, FWD_FATAL, "Let the value be taken from the environment: env:NAME.",
				 "%s, line %d: longer than %d bytes", reader->path, reader->line, size - 2);
		return NULL;
	}
	return result;
}

static int
take_setting(void *user, const char *section, const char *name, const char *value)
{
	Reader *reader = user;

	return assign(reader->config, section, name, value, reader->error);
}

bool
fwd_config_read(FwdConfig *config, const char *path, FwdError *error)
{
	Reader reader = {fopen(path, "re"), config, error, path, 0};
	int line;

	if (reader.file == NULL)
		return fwd_fail(error, FWD_FATAL, "Name the file with --config.",
						"could not open \"%s\": %s", path, strerror(errno));
	line = ini_parse_stream(read_line, &reader, take_setting, &reader);
	fclose(reader.file);
	if (error->outcome != FWD_FINE)
		return false;
	if (line != 0)
		return fwd_fail(
			error, FWD_FATAL,
			"A line is a [section], name = value, or a comment that begins with ; or #.",
			"%s, line %d: could not be understood", path, line);
	return true;
}

bool
fwd_config_set(FwdConfig *config, const char *assignment, FwdError *error)
{
	const char *dot = strchr(assignment, '.');
	const char *equals = strchr(assignment, '=');
	char *section;
	char *name;
	bool done;

	if (dot == NULL || equals == NULL || dot > equals)
		return fwd_fail(error, FWD_FATAL, "For example: --set source.slot=orders",
						"\"%s\" is not section.name=value", assignment);
	section = fwd_strndup(assignment, dot - assignment);
	name = fwd_strndup(dot + 1, equals - dot - 1);
	done = assign(config, section, name, equals + 1, error);
	free(section);
	free(name);
	return done;
}

static bool
check_slot_name(const char *slot, FwdError *error)
{
	if (slot[0] == '\0')
		return fwd_fail(
			error, FWD_FATAL,
			"Set source.slot; with source.create_slot = on it is made if it is missing.",
			"no replication slot is named");
	if (strspn(slot, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(slot) || strlen(slot) > 63)
		return fwd_fail(error, FWD_FATAL,
						"The name of a slot has lower-case letters, digits and underscores.",
						"source.slot \"%s\" cannot be the name of a slot", slot);
	return true;
}

/* Properties whose value the guarantees rest on. */
static bool
check_kafka(const FwdPair *pairs, FwdError *error)
{
	static const char *const reserved[] = {"message.timeout.ms",
										   "delivery.timeout.ms",
										   "transactional.id",
										   "enable.idempotence",
										   "acks",
										   "request.required.acks",
										   "test.mock.num.brokers",
										   NULL};

	for (; pairs != NULL; pairs = pairs->next)
		for (int i = 0; reserved[i] != NULL; i++)
			if (strcmp(pairs->name, reserved[i]) == 0)
				return fwd_fail(error, FWD_FATAL, "Remove it from [kafka].",
								"kafka.%s cannot be set: the forwarder's guarantees rest on it",
								pairs->name);
	return true;
}

bool
fwd_config_validate(FwdConfig *config, FwdError *error)
{
	if (!check_slot_name(config->slot, error) || !check_kafka(config->kafka, error))
		return false;
	if (strstr(config->topic, "${prefix}") != NULL && config->prefix[0] == '\0')
		return fwd_fail(error, FWD_FATAL,
						"Set topics.prefix, for example to the name of the database.",
						"topics.name \"%s\" uses a prefix, and none is set", config->topic);
	return true;
}

static void
free_pairs(FwdPair *pairs)
{
	while (pairs != NULL)
	{
		FwdPair *next = pairs->next;

		free(pairs->name);
		free(pairs->value);
		free(pairs);
		pairs = next;
	}
}

void
fwd_config_free(FwdConfig *config)
{
	for (size_t i = 0; i < SETTING_COUNT; i++)
		if (settings[i].kind == TEXT)
			free(*(char **) ((char *) config + settings[i].offset));
	free_pairs(config->kafka);
	free_pairs(config->map);
	memset(config, 0, sizeof(*config));
}
