/*
 * router.c: from the decoder's messages to records.
 */
#include <ctype.h>
#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "router.h"

/* Longest name that Kafka takes for a topic. */
#define TOPIC_LENGTH 249

/* What the session knows of a table. Spans point into memory of the table itself. */
typedef struct Table
{
	char *name; /* what rows call it: "t", or schema and table of "source" */
	char *topic;
	char *schema_id;
	char **keys; /* names of the columns as JSON has them, without quotes; ends with NULL */
	char refresh[24];
} Table;

struct FwdRouter
{
	const FwdConfig *config;
	const FwdServer *server;
	FwdSink *sink;
	FwdPositions *positions;
	FwdMetrics *metrics;
	void *tables; /* a tree of tsearch, by name */
	Table *last;
	char source[256]; /* of CloudEvents */
};

/* A growing buffer of bytes. */
typedef struct Buffer
{
	char *data;
	size_t length;
	size_t size;
} Buffer;

/* What is read from a row, whichever the envelope. */
typedef struct Row
{
	char op;
	FwdSpan before;
	FwdSpan after;
	FwdSpan refresh;
	FwdPlace place;
	int64_t ts; /* Unix microseconds */
	Table *table;
} Row;

static void
put_bytes(Buffer *buffer, const char *data, size_t length)
{
	if (buffer->length + length + 1 > buffer->size)
	{
		buffer->size = 2 * (buffer->length + length + 1);
		buffer->data = fwd_realloc(buffer->data, buffer->size);
	}
	memcpy(buffer->data + buffer->length, data, length);
	buffer->length += length;
	buffer->data[buffer->length] = '\0';
}

static void
put_text(Buffer *buffer, const char *text)
{
	put_bytes(buffer, text, strlen(text));
}

/* -- topics -- */

/* The value of a ${name} of the template, or NULL. */
static const char *
template_value(const FwdConfig *config, const char *name, size_t length, const char *schema,
			   const char *table)
{
	if (length == 6 && strncmp(name, "prefix", 6) == 0)
		return config->prefix;
	if (length == 6 && strncmp(name, "schema", 6) == 0)
		return schema;
	if (length == 5 && strncmp(name, "table", 5) == 0)
		return table;
	return NULL;
}

static bool
fill_template(const FwdConfig *config, const char *schema, const char *table, Buffer *out,
			  FwdError *error)
{
	for (const char *at = config->topic; *at != '\0'; at++)
	{
		const char *end = at[0] == '$' && at[1] == '{' ? strchr(at, '}') : NULL;
		const char *value;

		if (end == NULL)
		{
			put_bytes(out, at, 1);
			continue;
		}
		value = template_value(config, at + 2, end - at - 2, schema, table);
		if (value == NULL)
			return fwd_fail(error, FWD_FATAL,
							"A template may use ${prefix}, ${schema} and ${table}.",
							"topics.name \"%s\" uses an unknown \"%.*s\"", config->topic,
							(int) (end - at + 1), at);
		put_text(out, value);
		at = end;
	}
	return true;
}

char *
fwd_topic_name(const FwdConfig *config, const char *schema, const char *table, FwdError *error)
{
	Buffer full = {0};
	Buffer topic = {0};
	const char *mapped;

	put_text(&full, schema);
	put_text(&full, ".");
	put_text(&full, table);
	mapped = fwd_pair_get(config->map, full.data);
	if (mapped != NULL)
		put_text(&topic, mapped);
	else if (!fill_template(config, schema, table, &topic, error))
	{
		free(full.data);
		free(topic.data);
		return NULL;
	}
	for (size_t i = 0; i < topic.length; i++)
		if (!isalnum((unsigned char) topic.data[i]) && strchr("._-", topic.data[i]) == NULL)
			topic.data[i] = '_';
	if (topic.length == 0 || topic.length > TOPIC_LENGTH)
	{
		fwd_fail(
			error, FWD_FATAL, "Name a topic for the table in the section [map].",
			"the table \"%s\" would go to a topic with a name of %zu bytes; Kafka takes 1 to %d",
			full.data, topic.length, TOPIC_LENGTH);
		free(topic.data);
		topic.data = NULL;
	}
	free(full.data);
	return topic.data;
}

/* -- tables -- */

static int
compare_tables(const void *a, const void *b)
{
	return strcmp(((const Table *) a)->name, ((const Table *) b)->name);
}

static void
free_table(void *entry)
{
	Table *table = entry;

	for (char **key = table->keys; key != NULL && *key != NULL; key++)
		free(*key);
	free(table->keys);
	free(table->schema_id);
	free(table->topic);
	free(table->name);
	free(table);
}

static Table *
get_table(FwdRouter *router, FwdSpan name)
{
	Table wanted = {0};
	Table **found;
	Table *table;

	if (router->last != NULL && fwd_span_is(name, router->last->name))
		return router->last;
	wanted.name = fwd_strndup(name.data, name.length);
	found = tsearch(&wanted, &router->tables, compare_tables);
	if (found == NULL)
		found = fwd_realloc(NULL, SIZE_MAX); /* out of memory */
	if (*found == &wanted)
	{
		table = fwd_alloc(sizeof(Table));
		table->name = wanted.name;
		*found = table;
	}
	else
		free(wanted.name);
	router->last = *found;
	return *found;
}

/* The name of a table in a row of the debezium envelope: both parts as they stand. */
static FwdSpan
debezium_name(FwdSpan schema, FwdSpan table, Buffer *buffer)
{
	buffer->length = 0;
	put_bytes(buffer, schema.data, schema.length);
	put_bytes(buffer, table.data, table.length);
	return (FwdSpan){buffer->data, buffer->length};
}

static void
take_keys(Table *table, FwdSpan keys)
{
	FwdJsonScan scan;
	FwdSpan name;
	FwdSpan value;
	size_t count = 0;

	for (char **key = table->keys; key != NULL && *key != NULL; key++)
		free(*key);
	table->keys = fwd_realloc(table->keys, sizeof(char *));
	fwd_json_open(&scan, keys);
	while (fwd_json_next(&scan, &name, &value))
	{
		if (value.length < 2)
			continue;
		table->keys = fwd_realloc(table->keys, (count + 2) * sizeof(char *));
		table->keys[count++] = fwd_strndup(value.data + 1, value.length - 2);
	}
	table->keys[count] = NULL;
}

static bool
take_schema(FwdRouter *router, FwdSpan line, FwdError *error)
{
	FwdSpan schema = fwd_json_get(line, "schema");
	FwdSpan name = fwd_json_get(line, "table");
	FwdSpan id = fwd_json_get(line, "schema_id");
	FwdSpan t = fwd_json_get(line, "t");
	Buffer buffer = {0};
	char *schema_text = fwd_json_text(schema);
	char *name_text = fwd_json_text(name);
	Table *table;
	bool fine = false;

	router->metrics->schemas++;
	if (schema_text == NULL || name_text == NULL || id.length < 2 || t.data == NULL)
		fwd_fail(error, FWD_FATAL, NULL, "the decoder sent a schema that could not be read");
	else
	{
		table = get_table(router,
						  router->config->debezium ? debezium_name(schema, name, &buffer) : t);
		free(table->topic);
		free(table->schema_id);
		table->schema_id = fwd_strndup(id.data + 1, id.length - 2);
		table->topic = fwd_topic_name(router->config, schema_text, name_text, error);
		take_keys(table, fwd_json_get(line, "key"));
		fine = table->topic != NULL;
		if (fine && table->keys[0] == NULL && !router->config->keyless)
			fine = fwd_fail(
				error, FWD_FATAL,
				"Give the table a key, set topics.keyless = single_partition, or exclude it "
				"with source.exclude_tables.",
				"the table \"%s.%s\" has no key, so its rows cannot be spread over "
				"partitions in order",
				schema_text, name_text);
	}
	free(buffer.data);
	free(schema_text);
	free(name_text);
	return fine;
}

/* -- records -- */

static void
add_header(FwdRecord *record, const char *name, const char *value, size_t length)
{
	FwdHeader *header = &record->headers[record->header_count];

	if (record->header_count >= FWD_MAX_HEADERS)
		return;
	*header = (FwdHeader){name, value, length};
	record->header_count++;
}

/* The key of an image as an object of its own; false if a column is missing. */
static bool
put_key(const Table *table, FwdSpan image, FwdSpan fallback, Buffer *out)
{
	out->length = 0;
	for (size_t i = 0; table->keys[i] != NULL; i++)
	{
		FwdSpan value = fwd_json_get(image, table->keys[i]);

		if (value.data == NULL)
			value = fwd_json_get(fallback, table->keys[i]);
		if (value.data == NULL)
			return false;
		put_text(out, i == 0 ? "{\"" : ",\"");
		put_text(out, table->keys[i]);
		put_text(out, "\":");
		put_bytes(out, value.data, value.length);
	}
	put_text(out, "}");
	return true;
}

/* Texts that headers point to, for the time of one record. */
typedef struct HeaderTexts
{
	char lsn[24];
	char seq[24];
	char id[96 + TOPIC_LENGTH];
	char type[24];
	char time[40];
} HeaderTexts;

static void
add_cloudevents(const FwdRouter *router, const Row *row, FwdRecord *record, HeaderTexts *texts)
{
	time_t seconds = (time_t) (row->ts / 1000000);
	struct tm utc;
	size_t length;

	/* Rows of a snapshot are numbered within their table. */
	snprintf(texts->id, sizeof(texts->id), "%s:%s:%s%s%s", router->server->system_id, texts->lsn,
			 texts->seq, row->op == 'r' ? ":" : "", row->op == 'r' ? row->table->topic : "");
	snprintf(texts->type, sizeof(texts->type), "pg_trickle.row.%c", row->op);
	gmtime_r(&seconds, &utc);
	length = strftime(texts->time, sizeof(texts->time), "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(texts->time + length, sizeof(texts->time) - length, ".%06dZ",
			 (int) (row->ts % 1000000));
	add_header(record, "ce_specversion", "1.0", 3);
	add_header(record, "ce_id", texts->id, strlen(texts->id));
	add_header(record, "ce_source", router->source, strlen(router->source));
	add_header(record, "ce_type", texts->type, strlen(texts->type));
	add_header(record, "ce_time", texts->time, strlen(texts->time));
	add_header(record, "content-type", "application/json", 16);
}

static bool
send_row(FwdRouter *router, const Row *row, FwdSpan line, const Buffer *key, int part,
		 FwdError *error)
{
	const Table *table = row->table;
	FwdRecord record = {.topic = table->topic, .place = row->place, .first = row->op == 'r'};
	HeaderTexts texts;

	record.place.part = part;
	record.partition = row->op == 't'			? FWD_ALL_PARTITIONS
					   : table->keys[0] == NULL ? FWD_FIRST_PARTITION
												: FWD_BY_KEY;
	if (key != NULL)
	{
		record.key = key->data;
		record.key_length = key->length;
	}
	record.value = line.data;
	record.value_length = line.length;
	snprintf(texts.lsn, sizeof(texts.lsn), "%X/%X", (unsigned) (row->place.lsn >> 32),
			 (unsigned) row->place.lsn);
	snprintf(texts.seq, sizeof(texts.seq), "%" PRId64, row->place.seq);
	add_header(&record, FWD_HEADER_SYSTEM, router->server->system_id,
			   strlen(router->server->system_id));
	add_header(&record, FWD_HEADER_LSN, texts.lsn, strlen(texts.lsn));
	add_header(&record, FWD_HEADER_SEQ, texts.seq, strlen(texts.seq));
	if (part > 0)
		add_header(&record, FWD_HEADER_PART, "1", 1);
	add_header(&record, "schema_id", table->schema_id, strlen(table->schema_id));
	if (row->refresh.data != NULL && row->refresh.length > 0)
		add_header(&record, "refresh_id", row->refresh.data, row->refresh.length);
	if (router->config->cloudevents)
		add_cloudevents(router, row, &record, &texts);
	return router->sink->ops->put(router->sink, &record, error);
}

/* The event, then what makes a compacted topic forget the key that is no more. */
static bool
send_keyed(FwdRouter *router, const Row *row, FwdSpan line, FwdError *error)
{
	Buffer key = {0};
	Buffer old = {0};
	bool fine;
	bool gone = row->op == 'd';

	if (row->op == 'd')
		fine = put_key(row->table, row->before, row->before, &key);
	else
		fine = put_key(row->table, row->after, row->before, &key);
	if (!fine)
		fwd_fail(error, FWD_FATAL, "Set REPLICA IDENTITY FULL, or that of the primary key.",
				 "a row of the topic \"%s\" came without its key", row->table->topic);
	else
		fine = send_row(router, row, line, &key, 0, error);
	if (fine && router->config->tombstones)
	{
		if (row->op == 'u' && put_key(row->table, row->before, (FwdSpan){0}, &old))
			gone = old.length != key.length || memcmp(old.data, key.data, key.length) != 0;
		if (gone)
			fine = send_row(router, row, (FwdSpan){0}, row->op == 'u' ? &old : &key, 1, error);
	}
	free(key.data);
	free(old.data);
	return fine;
}

static bool
take_row(FwdRouter *router, Row *row, FwdSpan line, FwdError *error)
{
	static const char ops[] = "cudtr";

	if (row->table == NULL || row->table->topic == NULL || row->place.lsn == 0 ||
		row->place.seq == 0)
		return fwd_fail(error, FWD_FATAL, NULL,
						"the decoder sent a row that could not be read: %.*s",
						(int) (line.length < 200 ? line.length : 200), line.data);
	router->metrics->rows[strchr(ops, row->op) - ops]++;
	if (row->op == 't' && router->config->truncate == FWD_TRUNCATE_SKIP)
		return true;
	if (row->op == 't' && router->config->truncate == FWD_TRUNCATE_FAIL)
		return fwd_fail(error, FWD_FATAL,
						"Set topics.truncate = send or skip, or exclude the table with "
						"source.exclude_tables.",
						"the table of the topic \"%s\" was truncated", row->table->topic);
	if (row->op == 't' || row->table->keys[0] == NULL)
		return send_row(router, row, line, NULL, 0, error);
	return send_keyed(router, row, line, error);
}

/* -- messages -- */

static bool
take_compact_row(FwdRouter *router, char op, FwdSpan line, FwdError *error)
{
	Row row = {.op = op};
	FwdJsonScan scan;
	FwdSpan name;
	FwdSpan value;

	fwd_json_open(&scan, line);
	while (fwd_json_next(&scan, &name, &value))
	{
		if (fwd_span_is(name, "t"))
			row.table = get_table(router, value);
		else if (fwd_span_is(name, "b"))
			row.before = value;
		else if (fwd_span_is(name, "a"))
			row.after = value;
		else if (fwd_span_is(name, "ts"))
			row.ts = fwd_json_int(value);
		else if (fwd_span_is(name, "p"))
		{
			FwdJsonScan pair;
			FwdSpan none;
			FwdSpan part;

			fwd_json_open(&pair, value);
			if (fwd_json_next(&pair, &none, &part))
				row.place.lsn = fwd_json_lsn(part);
			if (fwd_json_next(&pair, &none, &part))
				row.place.seq = fwd_json_int(part);
		}
	}
	if (row.table != NULL)
		row.refresh = (FwdSpan){row.table->refresh, strlen(row.table->refresh)};
	return take_row(router, &row, line, error);
}

static void
take_debezium_source(FwdRouter *router, FwdSpan source, Row *row)
{
	FwdJsonScan scan;
	FwdSpan name;
	FwdSpan value;
	FwdSpan schema = {0};
	FwdSpan table = {0};
	Buffer buffer = {0};

	fwd_json_open(&scan, source);
	while (fwd_json_next(&scan, &name, &value))
	{
		if (fwd_span_is(name, "schema"))
			schema = value;
		else if (fwd_span_is(name, "table"))
			table = value;
		else if (fwd_span_is(name, "commit_lsn"))
			row->place.lsn = fwd_json_lsn(value);
		else if (fwd_span_is(name, "seq"))
			row->place.seq = fwd_json_int(value);
		else if (fwd_span_is(name, "refresh"))
			row->refresh = fwd_json_get(value, "id");
	}
	if (schema.data != NULL && table.data != NULL)
		row->table = get_table(router, debezium_name(schema, table, &buffer));
	free(buffer.data);
}

static bool
take_debezium_row(FwdRouter *router, FwdSpan line, FwdError *error)
{
	Row row = {0};
	FwdJsonScan scan;
	FwdSpan name;
	FwdSpan value;

	fwd_json_open(&scan, line);
	while (fwd_json_next(&scan, &name, &value))
	{
		if (fwd_span_is(name, "before") && !fwd_json_is_null(value))
			row.before = value;
		else if (fwd_span_is(name, "after") && !fwd_json_is_null(value))
			row.after = value;
		else if (fwd_span_is(name, "source"))
			take_debezium_source(router, value, &row);
		else if (fwd_span_is(name, "op") && value.length == 3)
			row.op = value.data[1];
		else if (fwd_span_is(name, "ts_ms"))
			row.ts = fwd_json_int(value) * 1000;
	}
	/* A later version of the format may have more kinds; they are not rows to us. */
	if (row.op == '\0' || strchr("cudtr", row.op) == NULL)
		return true;
	return take_row(router, &row, line, error);
}

/* A begin, a commit or a schema, to a topic of its own if one is named. */
static bool
send_aside(FwdRouter *router, const char *topic, FwdSpan line, FwdSpan key, FwdPlace place,
		   bool again, FwdError *error)
{
	FwdRecord record = {.topic = topic, .partition = FWD_FIRST_PARTITION, .place = place};
	char lsn[24];
	char seq[24];

	if (topic[0] == '\0')
		return true;
	record.again = again;
	record.key = key.data;
	record.key_length = key.length;
	record.value = line.data;
	record.value_length = line.length;
	add_header(&record, FWD_HEADER_SYSTEM, router->server->system_id,
			   strlen(router->server->system_id));
	if (!again)
	{
		snprintf(lsn, sizeof(lsn), "%X/%X", (unsigned) (place.lsn >> 32), (unsigned) place.lsn);
		snprintf(seq, sizeof(seq), "%" PRId64, place.seq);
		add_header(&record, FWD_HEADER_LSN, lsn, strlen(lsn));
		add_header(&record, FWD_HEADER_SEQ, seq, strlen(seq));
	}
	return router->sink->ops->put(router->sink, &record, error);
}

static bool
take_begin(FwdRouter *router, FwdSpan line, FwdError *error)
{
	FwdSpan lsn = fwd_json_get(line, "commit_lsn");
	FwdPlace place = {fwd_json_lsn(lsn), 0, 0};

	router->metrics->transactions++;
	router->metrics->last_commit_us = fwd_json_int(fwd_json_get(line, "ts"));
	fwd_positions_begin(router->positions, router->metrics->last_commit_us);
	return send_aside(router, router->config->transaction_topic, line, lsn, place, false, error);
}

static bool
take_commit(FwdRouter *router, FwdSpan line, FwdError *error)
{
	FwdSpan lsn = fwd_json_get(line, "commit_lsn");
	uint64_t end_lsn = fwd_json_lsn(fwd_json_get(line, "end_lsn"));
	FwdPlace place = {fwd_json_lsn(lsn), INT64_MAX, 0};

	if (!router->positions->open || end_lsn == 0)
		return fwd_fail(error, FWD_FATAL, NULL, "the decoder sent a commit that could not be read");
	if (!send_aside(router, router->config->transaction_topic, line, lsn, place, false, error))
		return false;
	if (!router->sink->ops->ended(router->sink, end_lsn, error))
		return false;
	fwd_positions_commit(router->positions, end_lsn);
	return true;
}

/* Which refresh the rows of a table come from, until it ends. */
static void
take_refresh(FwdRouter *router, FwdSpan line)
{
	FwdSpan t = fwd_json_get(line, "t");
	FwdSpan id = fwd_json_get(line, "id");
	Table *table;

	if (router->config->debezium || t.data == NULL)
		return;
	table = get_table(router, t);
	table->refresh[0] = '\0';
	if (fwd_span_is(fwd_json_get(line, "phase"), "\"begin\"") && id.length < sizeof(table->refresh))
		snprintf(table->refresh, sizeof(table->refresh), "%.*s", (int) id.length, id.data);
}

static bool
take_hello(FwdSpan line, FwdError *error)
{
	if (fwd_json_int(fwd_json_get(line, "format_version")) == 1)
		return true;
	return fwd_fail(error, FWD_FATAL, "Use the forwarder of the same release as the decoder.",
					"the decoder speaks another version of the format");
}

static bool
take_line(FwdRouter *router, FwdSpan line, FwdError *error)
{
	FwdJsonScan scan;
	FwdSpan name;
	FwdSpan op;

	if (!fwd_json_open(&scan, line) || !fwd_json_next(&scan, &name, &op))
		return fwd_fail(error, FWD_FATAL, NULL, "the decoder sent what is not JSON: %.*s",
						(int) (line.length < 200 ? line.length : 200), line.data);
	if (fwd_span_is(name, "before"))
		return take_debezium_row(router, line, error);
	if (fwd_span_is(name, "v") && fwd_json_next(&scan, &name, &op) && op.length == 3 &&
		strchr("cudtr", op.data[1]) != NULL)
		return take_compact_row(router, op.data[1], line, error);
	if (fwd_span_is(op, "\"begin\""))
		return take_begin(router, line, error);
	if (fwd_span_is(op, "\"commit\""))
		return take_commit(router, line, error);
	if (fwd_span_is(op, "\"refresh\""))
		take_refresh(router, line);
	else if (fwd_span_is(op, "\"heartbeat\""))
		router->metrics->heartbeats++;
	else if (fwd_span_is(op, "\"hello\""))
		return take_hello(line, error);
	else if (fwd_span_is(op, "\"schema\""))
		return take_schema(router, line, error) &&
			   send_aside(router, router->config->schema_topic, line,
						  fwd_json_get(line, "schema_id"), (FwdPlace){0}, true, error);
	return true; /* a message that this version does not know */
}

bool
fwd_router_take(FwdRouter *router, FwdSpan lines, FwdError *error)
{
	const char *at = lines.data;
	const char *end = lines.data + lines.length;

	while (at < end)
	{
		const char *newline = memchr(at, '\n', end - at);
		FwdSpan line = {at, (newline != NULL ? newline : end) - at};

		if (line.length > 0 && !take_line(router, line, error))
			return false;
		at += line.length + 1;
	}
	return true;
}

bool
fwd_router_is_idle(const FwdRouter *router)
{
	return !router->positions->open;
}

FwdRouter *
fwd_router_open(const FwdConfig *config, const FwdServer *server, FwdSink *sink,
				FwdPositions *positions, FwdMetrics *metrics)
{
	FwdRouter *router = fwd_alloc(sizeof(FwdRouter));

	router->config = config;
	router->server = server;
	router->sink = sink;
	router->positions = positions;
	router->metrics = metrics;
	snprintf(router->source, sizeof(router->source), "/pg_trickle/%s/%s", server->database,
			 config->slot);
	return router;
}

void
fwd_router_close(FwdRouter *router)
{
	if (router == NULL)
		return;
	while (router->tables != NULL)
	{
		Table *table = *(Table **) router->tables;

		tdelete(table, &router->tables, compare_tables);
		free_table(table);
	}
	free(router);
}
