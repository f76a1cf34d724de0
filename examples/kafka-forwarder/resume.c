/*
 * resume.c: the last record of each partition. Owns a consumer, without a group.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "resume.h"

#define BROKER_MS 10000
/* So many records of others at the end of a partition are looked through for one of ours. */
#define OTHERS 10000

struct FwdResume
{
	rd_kafka_t *consumer;
	const FwdOrigin *origin;
};

/* What the headers of a record say. */
typedef struct Trace
{
	bool ours;
	FwdPlace place;
	int partitions;
	char system_id[32];
} Trace;

static bool
set_property(rd_kafka_conf_t *conf, const char *name, const char *value, FwdError *error)
{
	char reason[256];

	if (rd_kafka_conf_set(conf, name, value, reason, sizeof(reason)) == RD_KAFKA_CONF_OK)
		return true;
	return fwd_fail(error, FWD_FATAL,
					"The properties of librdkafka are listed in its CONFIGURATION.md.",
					"kafka.%s: %s", name, reason);
}

bool
fwd_kafka_configure(rd_kafka_conf_t *conf, const FwdConfig *config, FwdError *error)
{
	if (fwd_pair_get(config->kafka, "bootstrap.servers") == NULL &&
		fwd_pair_get(config->kafka, "metadata.broker.list") == NULL)
		return fwd_fail(error, FWD_FATAL,
						"Set bootstrap.servers = host:port,... in the section [kafka].",
						"no brokers are named");
	for (const FwdPair *pair = config->kafka; pair != NULL; pair = pair->next)
		if (!set_property(conf, pair->name, pair->value, error))
			return false;
	return set_property(conf, "log.queue", "true", error);
}

FwdResume *
fwd_resume_open(const FwdConfig *config, const FwdOrigin *origin, FwdError *error)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	FwdResume *resume;
	char reason[256];

	if (!fwd_kafka_configure(conf, config, error) ||
		!set_property(conf, "enable.partition.eof", "true", error) ||
		!set_property(conf, "fetch.wait.max.ms", "10", error) ||
		!set_property(conf, "isolation.level", "read_committed", error))
	{
		rd_kafka_conf_destroy(conf);
		return NULL;
	}
	resume = fwd_alloc(sizeof(FwdResume));
	resume->origin = origin;
	resume->consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof(reason));
	if (resume->consumer != NULL)
		return resume;
	rd_kafka_conf_destroy(conf);
	free(resume);
	fwd_fail(error, FWD_FATAL, NULL, "could not make a consumer: %s", reason);
	return NULL;
}

static bool
get_header(rd_kafka_headers_t *headers, const char *name, char *text, size_t size)
{
	const void *value;
	size_t length;

	if (rd_kafka_header_get_last(headers, name, &value, &length) != RD_KAFKA_RESP_ERR_NO_ERROR ||
		value == NULL || length >= size)
		return false;
	memcpy(text, value, length);
	text[length] = '\0';
	return true;
}

static void
read_headers(rd_kafka_message_t *message, Trace *trace)
{
	rd_kafka_headers_t *headers;
	char text[32];

	memset(trace, 0, sizeof(*trace));
	if (rd_kafka_message_headers(message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	if (!get_header(headers, FWD_HEADER_SYSTEM, trace->system_id, sizeof(trace->system_id)) ||
		!get_header(headers, FWD_HEADER_LSN, text, sizeof(text)) ||
		!fwd_parse_lsn(text, &trace->place.lsn) ||
		!get_header(headers, FWD_HEADER_SEQ, text, sizeof(text)))
		return;
	trace->place.seq = strtoll(text, NULL, 10);
	if (get_header(headers, FWD_HEADER_PART, text, sizeof(text)))
		trace->place.part = atoi(text);
	if (get_header(headers, FWD_HEADER_PARTITIONS, text, sizeof(text)))
		trace->partitions = atoi(text);
	trace->ours = true;
}

/* Looked for in a partition: the last record that is ours, or that has a key. */
typedef struct Search
{
	const char *key; /* NULL: ours, whatever its key */
	bool found;
	Trace trace;
	char *value; /* of the one with the key; NULL: a tombstone */
} Search;

static void
look_at(rd_kafka_message_t *message, Search *search)
{
	Trace trace;

	if (search->key != NULL)
	{
		if (message->key == NULL || message->key_len != strlen(search->key) ||
			memcmp(message->key, search->key, message->key_len) != 0)
			return;
		free(search->value);
		search->value = message->payload == NULL ? NULL
												 : fwd_strndup(message->payload, message->len);
		search->found = true;
		return;
	}
	read_headers(message, &trace);
	if (!trace.ours)
		return;
	search->trace = trace;
	search->found = true;
}

/*
 * Read from that offset to the end; markers of transactions and aborted records are not seen.
 * False if the brokers did not answer.
 */
static bool
read_tail(rd_kafka_topic_t *topic, int partition, int64_t offset, Search *search)
{
	bool ended = false;

	if (rd_kafka_consume_start(topic, partition, offset) != 0)
		return false;
	while (!ended)
	{
		rd_kafka_message_t *message = rd_kafka_consume(topic, partition, BROKER_MS);

		if (message == NULL)
			break;
		if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
			ended = true;
		else if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
			look_at(message, search);
		else
		{
			rd_kafka_message_destroy(message);
			break;
		}
		rd_kafka_message_destroy(message);
	}
	rd_kafka_consume_stop(topic, partition);
	return ended;
}

/* Others may have written behind it; ever more is read, until found or beyond that many. */
static bool
find_last(FwdResume *resume, rd_kafka_topic_t *topic, int partition, int64_t most, Search *search,
		  FwdError *error)
{
	const char *name = rd_kafka_topic_name(topic);
	int64_t low;
	int64_t high;
	rd_kafka_resp_err_t err;

	err = rd_kafka_query_watermark_offsets(resume->consumer, name, partition, &low, &high,
										   BROKER_MS);
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
		return fwd_fail(error, FWD_RETRY, NULL,
						"could not look at partition %d of topic \"%s\": %s", partition, name,
						rd_kafka_err2str(err));
	for (int64_t back = 1; high > low && !search->found; back *= 100)
	{
		if (!read_tail(topic, partition, high - back > low ? high - back : low, search))
			return fwd_fail(error, FWD_RETRY, NULL,
							"could not read back partition %d of topic \"%s\"", partition, name);
		if (high - back <= low || back >= most)
			break;
	}
	if (high > low && !search->found)
		fwd_log("warning",
				"partition %d of topic \"%s\" ends with records of others: cannot tell what it has",
				partition, name);
	return true;
}

static bool
check_trace(FwdResume *resume, const char *topic, int partition, const Trace *trace,
			FwdError *error)
{
	if (strcmp(trace->system_id, resume->origin->system_id) != 0)
		return fwd_fail(
			error, FWD_FATAL, "Set topics.prefix to something else, or empty the topics first.",
			"the topic \"%s\" was filled from another server: its system id is %s, this "
			"one's is %s",
			topic, trace->system_id, resume->origin->system_id);
	if (trace->place.lsn > resume->origin->end_of_wal)
		return fwd_fail(
			error, FWD_FATAL,
			"The server has lost transactions, perhaps in a failover: empty the topics and "
			"begin anew.",
			"partition %d of topic \"%s\" is at %X/%X, ahead of the server at %X/%X", partition,
			topic, (unsigned) (trace->place.lsn >> 32), (unsigned) trace->place.lsn,
			(unsigned) (resume->origin->end_of_wal >> 32), (unsigned) resume->origin->end_of_wal);
	return true;
}

bool
fwd_resume_read(FwdResume *resume, const char *topic, int count, FwdPlace *last, FwdError *error)
{
	rd_kafka_topic_t *handle = rd_kafka_topic_new(resume->consumer, topic, NULL);
	bool changed = false;
	bool fine = true;

	memset(last, 0, (size_t) count * sizeof(*last));
	for (int i = 0; fine && i < count; i++)
	{
		Search search = {0};

		fine = find_last(resume, handle, i, OTHERS, &search, error);
		if (!fine || !search.found)
			continue;
		fine = check_trace(resume, topic, i, &search.trace, error);
		last[i] = search.trace.place;
		if (search.trace.partitions != count)
			changed = true;
	}
	if (changed)
	{
		fwd_log(
			"warning",
			"the number of partitions of topic \"%s\" has changed to %d: records that are there "
			"may be sent again",
			topic, count);
		memset(last, 0, (size_t) count * sizeof(*last));
	}
	rd_kafka_topic_destroy(handle);
	return fine;
}

bool
fwd_resume_find_topic(FwdResume *resume, const char *topic, bool *found, FwdError *error)
{
	rd_kafka_topic_t *handle = rd_kafka_topic_new(resume->consumer, topic, NULL);
	const struct rd_kafka_metadata *data;
	rd_kafka_resp_err_t err = rd_kafka_metadata(resume->consumer, 0, handle, &data, BROKER_MS);

	*found = false;
	if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		if (data->topic_cnt == 1)
		{
			err = data->topics[0].err;
			*found = err == RD_KAFKA_RESP_ERR_NO_ERROR && data->topics[0].partition_cnt > 0;
		}
		rd_kafka_metadata_destroy(data);
	}
	rd_kafka_topic_destroy(handle);
	if (*found || err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
		return true;
	return fwd_fail(error, FWD_RETRY, NULL, "could not look for the topic \"%s\": %s", topic,
					rd_kafka_err2str(err));
}

bool
fwd_resume_read_value(FwdResume *resume, const char *topic, const char *key, char **value,
					  FwdError *error)
{
	rd_kafka_topic_t *handle = rd_kafka_topic_new(resume->consumer, topic, NULL);
	Search search = {.key = key};
	bool fine = find_last(resume, handle, 0, INT64_MAX / 100, &search, error);

	rd_kafka_topic_destroy(handle);
	*value = search.value;
	return fine;
}

void
fwd_resume_close(FwdResume *resume)
{
	if (resume == NULL)
		return;
	rd_kafka_destroy(resume->consumer);
	free(resume);
}
