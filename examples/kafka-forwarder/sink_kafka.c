/*
 * sink_kafka.c: records into topics, with an idempotent producer, or a transactional one.
 *
 * A record never times out without a transaction (message.timeout.ms = 0): a producer that gives
 * up on one and goes on with the next would leave a silent gap; a transaction has none. Any record that the brokers refuse
 * ends the session, and what was not confirmed comes again. Partitions are chosen here, as
 * Java's default partitioner does, since resuming has to know where a record would go.
 */
#include <fcntl.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "exactly_once.h"
#include "source.h"

#define BROKER_MS 10000

/* As long as brokers allow by default, since the initial snapshot is one transaction. */
#define TRANSACTION_MS "900000"

/* What librdkafka needs for a record besides its bytes; counts towards forwarder.queue_mb. */
#define RECORD_COST 320

typedef struct Topic
{
	char *name;
	rd_kafka_topic_t *handle;
	int count;		/* partitions */
	char text[16];	/* the same, for a header */
	FwdPlace *last; /* what was there when the session began, by partition */
} Topic;

typedef struct KafkaSink
{
	FwdSink base;
	const FwdConfig *config;
	const FwdOrigin *origin;
	rd_kafka_t *producer;
	FwdResume *resume;
	FwdExactlyOnce *exactly_once; /* NULL: at least once */
	void *topics;				  /* a tree of tsearch, by name */
	Topic *recent;
	size_t queued;
	int pipe[2];
	bool closing;
	FwdError failure; /* from a callback */
} KafkaSink;

int
fwd_place_compare(const FwdPlace *a, const FwdPlace *b)
{
	if (a->lsn != b->lsn)
		return a->lsn < b->lsn ? -1 : 1;
	if (a->seq != b->seq)
		return a->seq < b->seq ? -1 : 1;
	return a->part - b->part;
}

/* -- callbacks, called from rd_kafka_poll only -- */

static void
on_delivery(rd_kafka_t *producer, const rd_kafka_message_t *message, void *opaque)
{
	KafkaSink *sink = opaque;

	(void) producer;
	if (message->_private != FWD_NOT_COUNTED)
		sink->queued -= message->len + message->key_len + RECORD_COST;
	if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		if (sink->config->exactly_once)
			return; /* until the commit nobody has it */
		sink->base.metrics->acknowledged++;
		if (!sink->closing)
			fwd_positions_acknowledged(sink->base.positions, message->_private);
		return;
	}
	if (message->err == RD_KAFKA_RESP_ERR__PURGE_QUEUE ||
		message->err == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT)
		return;
	sink->base.metrics->delivery_errors++;
	fwd_fail(&sink->failure, FWD_RETRY,
			 message->err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
				 ? "Raise message.max.bytes of the brokers, or lower source.max_message_bytes."
				 : NULL,
			 "the brokers refused a record for topic \"%s\": %s", rd_kafka_topic_name(message->rkt),
			 rd_kafka_err2str(message->err));
}

static void
on_error(rd_kafka_t *producer, int err, const char *reason, void *opaque)
{
	KafkaSink *sink = opaque;
	char text[512];

	if (err == RD_KAFKA_RESP_ERR__FATAL)
	{
		rd_kafka_fatal_error(producer, text, sizeof(text));
		fwd_fail(&sink->failure, FWD_RETRY, NULL, "the producer cannot go on: %s", text);
	}
	else
		fwd_log("warning", "kafka: %s: %s", rd_kafka_err2str(err), reason);
}

static void
on_log(const rd_kafka_t *producer, int level, const char *facility, const char *text)
{
	(void) producer;
	fwd_log(level <= 4 ? "warning" : "info", "librdkafka: %s: %s", facility, text);
}

/* -- opening -- */

static bool
set(rd_kafka_conf_t *conf, const char *name, const char *value, FwdError *error)
{
	char reason[256];

	if (rd_kafka_conf_set(conf, name, value, reason, sizeof(reason)) == RD_KAFKA_CONF_OK)
		return true;
	return fwd_fail(error, FWD_FATAL, NULL, "kafka.%s: %s", name, reason);
}

static bool
set_delivery(rd_kafka_conf_t *conf, const FwdConfig *config, FwdError *error)
{
	char *name;
	bool fine;

	if (!config->exactly_once)
		return set(conf, "message.timeout.ms", "0", error);
	name = fwd_eo_id(config);
	fine = set(conf, "transactional.id", name, error);
	free(name);
	return fine;
}

/* What stands in [kafka] comes first, so that what the guarantees rest on wins. */
static rd_kafka_conf_t *
make_conf(KafkaSink *sink, FwdError *error)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char kilobytes[16];

	/* Beyond what we count: a row may be large, and so may what came with one read. */
	snprintf(kilobytes, sizeof(kilobytes), "%d", 1024 * (sink->config->queue_mb + 64));
	if (set(conf, "queue.buffering.max.messages", "10000000", error) &&
		set(conf, "linger.ms", "5", error) &&
		/* Small requests would wait for 40 ms behind others. */
		set(conf, "socket.nagle.disable", "true", error) &&
		set(conf, "client.id", sink->config->slot, error) &&
		set(conf, "transaction.timeout.ms", TRANSACTION_MS, error) &&
		fwd_kafka_configure(conf, sink->config, error) &&
		set(conf, "queue.buffering.max.kbytes", kilobytes, error) &&
		set_delivery(conf, sink->config, error) && set(conf, "acks", "all", error) &&
		set(conf, "enable.idempotence", "true", error))
	{
		rd_kafka_conf_set_opaque(conf, sink);
		rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
		rd_kafka_conf_set_error_cb(conf, on_error);
		rd_kafka_conf_set_log_cb(conf, on_log);
		return conf;
	}
	rd_kafka_conf_destroy(conf);
	return NULL;
}

static bool
open_producer(KafkaSink *sink, FwdError *error)
{
	rd_kafka_conf_t *conf = make_conf(sink, error);
	rd_kafka_queue_t *queue;
	char reason[256];

	if (conf == NULL)
		return false;
	sink->producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof(reason));
	if (sink->producer == NULL)
	{
		rd_kafka_conf_destroy(conf);
		return fwd_fail(error, FWD_FATAL, NULL, "could not make a producer: %s", reason);
	}
	rd_kafka_set_log_queue(sink->producer, NULL);
	if (pipe2(sink->pipe, O_NONBLOCK | O_CLOEXEC) != 0)
		return fwd_fail(error, FWD_RETRY, NULL, "could not make a pipe");
	sink->base.socket = sink->pipe[0];
	queue = rd_kafka_queue_get_main(sink->producer);
	rd_kafka_queue_io_event_enable(queue, sink->pipe[1], "1", 1);
	rd_kafka_queue_destroy(queue);
	sink->resume = fwd_resume_open(sink->config, sink->origin, error);
	return sink->resume != NULL;
}

/* -- topics -- */

static int
compare_topics(const void *a, const void *b)
{
	return strcmp(((const Topic *) a)->name, ((const Topic *) b)->name);
}

static void
free_topic(Topic *topic)
{
	if (topic->handle != NULL)
		rd_kafka_topic_destroy(topic->handle);
	free(topic->last);
	free(topic->name);
	free(topic);
}

/* How many partitions; brokers that make topics on demand need a moment for it. */
static int
count_partitions(KafkaSink *sink, Topic *topic, FwdError *error)
{
	int64_t until = fwd_now_us() + BROKER_MS * 1000;
	rd_kafka_resp_err_t err;
	int count = 0;

	do
	{
		const struct rd_kafka_metadata *data;

		err = rd_kafka_metadata(sink->producer, 0, topic->handle, &data, BROKER_MS / 2);
		if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			if (data->topic_cnt == 1)
			{
				err = data->topics[0].err;
				count = err == RD_KAFKA_RESP_ERR_NO_ERROR ? data->topics[0].partition_cnt : 0;
			}
			rd_kafka_metadata_destroy(data);
		}
		if (count == 0)
			rd_kafka_poll(sink->producer, 100);
	} while (count == 0 && fwd_now_us() < until);
	if (count == 0)
		fwd_fail(error, FWD_RETRY,
				 err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
					 ? "Create the topic, or let the brokers do so: auto.create.topics.enable."
					 : NULL,
				 "could not find the topic \"%s\": %s", topic->name, rd_kafka_err2str(err));
	return count;
}

static Topic *
open_topic(KafkaSink *sink, const char *name, FwdError *error)
{
	Topic wanted = {.name = (char *) name};
	Topic **found = tfind(&wanted, &sink->topics, compare_topics);
	Topic *topic;

	if (found != NULL)
		return *found;
	topic = fwd_alloc(sizeof(Topic));
	topic->name = fwd_strdup(name);
	topic->handle = rd_kafka_topic_new(sink->producer, name, NULL);
	topic->count = count_partitions(sink, topic, error);
	if (topic->count > 0)
	{
		topic->last = fwd_alloc((size_t) topic->count * sizeof(FwdPlace));
		snprintf(topic->text, sizeof(topic->text), "%d", topic->count);
		/* With a position of its own, nothing else is asked what is there. */
		if ((sink->exactly_once != NULL && fwd_eo_knows(sink->exactly_once)) ||
			fwd_resume_read(sink->resume, name, topic->count, topic->last, error))
		{
			tsearch(topic, &sink->topics, compare_topics);
			return topic;
		}
	}
	free_topic(topic);
	return NULL;
}

/* -- records -- */

static rd_kafka_headers_t *
make_headers(const FwdRecord *record, const Topic *topic)
{
	rd_kafka_headers_t *headers = rd_kafka_headers_new((size_t) record->header_count + 1);

	for (int i = 0; i < record->header_count; i++)
		rd_kafka_header_add(headers, record->headers[i].name, -1, record->headers[i].value,
							(ssize_t) record->headers[i].length);
	rd_kafka_header_add(headers, FWD_HEADER_PARTITIONS, -1, topic->text, -1);
	return headers;
}

static bool
produce(KafkaSink *sink, Topic *topic, const FwdRecord *record, int partition, FwdError *error)
{
	rd_kafka_headers_t *headers;
	rd_kafka_resp_err_t err;

	if (record->first && topic->last[partition].lsn != 0)
		return fwd_fail(
			error, FWD_FATAL,
			"Empty the topic and begin anew; or set source.snapshot = never if you know that "
			"nothing is missing.",
			"the topic \"%s\" has records already, but the replication slot is new: rows that are "
			"gone by now would stay in it",
			topic->name);
	if (!record->again && fwd_place_compare(&record->place, &topic->last[partition]) <= 0)
	{
		sink->base.metrics->skipped++;
		return true;
	}
	headers = make_headers(record, topic);
	for (;;)
	{
		err = rd_kafka_producev(
			sink->producer, RD_KAFKA_V_RKT(topic->handle), RD_KAFKA_V_PARTITION(partition),
			RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
			RD_KAFKA_V_KEY((void *) record->key, record->key_length),
			RD_KAFKA_V_VALUE((void *) record->value, record->value_length),
			RD_KAFKA_V_HEADERS(headers),
			RD_KAFKA_V_OPAQUE(sink->exactly_once != NULL ? NULL : sink->base.positions->newest),
			RD_KAFKA_V_END);
		if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL || sink->queued == 0)
			break;
		rd_kafka_poll(sink->producer, 100);
	}
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		rd_kafka_headers_destroy(headers);
		return fwd_fail(error, err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ? FWD_FATAL : FWD_RETRY,
						err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
							? "Raise kafka.message.max.bytes, or lower source.max_message_bytes."
							: NULL,
						"could not produce to topic \"%s\": %s", topic->name,
						rd_kafka_err2str(err));
	}
	if (sink->exactly_once == NULL)
		fwd_positions_sent(sink->base.positions);
	sink->queued += record->key_length + record->value_length + RECORD_COST;
	sink->base.metrics->records++;
	sink->base.metrics->record_bytes += record->key_length + record->value_length;
	return true;
}

static bool
produce_all(KafkaSink *sink, const FwdRecord *record, FwdError *error)
{
	Topic *topic = sink->recent;
	int partition = 0;

	if (topic == NULL || strcmp(topic->name, record->topic) != 0)
		topic = sink->recent = open_topic(sink, record->topic, error);
	if (topic == NULL)
		return false;
	if (record->partition == FWD_ALL_PARTITIONS)
	{
		for (partition = 0; partition < topic->count; partition++)
			if (!produce(sink, topic, record, partition, error))
				return false;
		return true;
	}
	if (record->partition == FWD_BY_KEY)
		partition = rd_kafka_msg_partitioner_murmur2(topic->handle, record->key, record->key_length,
													 topic->count, NULL, NULL);
	return produce(sink, topic, record, partition, error);
}

static bool
kafka_put(FwdSink *base, const FwdRecord *record, FwdError *error)
{
	KafkaSink *sink = (KafkaSink *) base;

	if (sink->exactly_once == NULL)
		return produce_all(sink, record, error);
	if (!record->again && !record->first && fwd_eo_has(sink->exactly_once, &record->place))
	{
		base->metrics->skipped++;
		return true;
	}
	if (!fwd_eo_begin(sink->exactly_once, error))
		return false;
	if (!produce_all(sink, record, error))
	{
		/* A part of the record may be there. */
		fwd_eo_spoil(sink->exactly_once);
		return false;
	}
	fwd_eo_produced(sink->exactly_once, &record->place);
	return true;
}

static bool
kafka_poll(FwdSink *base, FwdError *error)
{
	KafkaSink *sink = (KafkaSink *) base;
	char drain[256];

	while (read(sink->pipe[0], drain, sizeof(drain)) == sizeof(drain))
		;
	rd_kafka_poll(sink->producer, 0);
	if (sink->failure.outcome == FWD_FINE)
		return sink->exactly_once == NULL || fwd_eo_poll(sink->exactly_once, error);
	*error = sink->failure;
	return false;
}

static int
kafka_due(FwdSink *base)
{
	KafkaSink *sink = (KafkaSink *) base;

	return sink->exactly_once == NULL ? -1 : fwd_eo_due(sink->exactly_once);
}

static bool
kafka_ended(FwdSink *base, uint64_t end_lsn, FwdError *error)
{
	KafkaSink *sink = (KafkaSink *) base;

	return sink->exactly_once == NULL || fwd_eo_ended(sink->exactly_once, end_lsn, error);
}

static void
kafka_idle(FwdSink *base, uint64_t lsn, bool now)
{
	KafkaSink *sink = (KafkaSink *) base;

	if (sink->exactly_once == NULL)
		fwd_positions_idle(base->positions, lsn);
	else
		fwd_eo_idle(sink->exactly_once, lsn, now);
}

static bool
kafka_flush(FwdSink *base, int milliseconds)
{
	KafkaSink *sink = (KafkaSink *) base;

	if (sink->exactly_once != NULL)
		return sink->failure.outcome == FWD_FINE &&
			   fwd_eo_flush(sink->exactly_once, milliseconds, &sink->failure);
	return rd_kafka_flush(sink->producer, milliseconds) == RD_KAFKA_RESP_ERR_NO_ERROR &&
		   sink->failure.outcome == FWD_FINE;
}

static size_t
kafka_queued_bytes(FwdSink *base)
{
	return ((KafkaSink *) base)->queued;
}

static void
kafka_close(FwdSink *base)
{
	KafkaSink *sink = (KafkaSink *) base;

	sink->closing = true;
	while (sink->topics != NULL)
	{
		Topic *topic = *(Topic **) sink->topics;

		tdelete(topic, &sink->topics, compare_topics);
		free_topic(topic);
	}
	fwd_eo_close(sink->exactly_once);
	fwd_resume_close(sink->resume);
	if (sink->producer != NULL)
	{
		rd_kafka_purge(sink->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
		rd_kafka_flush(sink->producer, 1000);
		rd_kafka_destroy(sink->producer);
	}
	if (base->socket >= 0)
	{
		close(sink->pipe[0]);
		close(sink->pipe[1]);
	}
	free(sink);
}

static const FwdSinkOps kafka_ops = {
	kafka_put,	kafka_poll,	 kafka_due,			 kafka_ended,
	kafka_idle, kafka_flush, kafka_queued_bytes, kafka_close,
};

FwdSink *
fwd_kafka_open(const FwdConfig *config, FwdPositions *positions, FwdMetrics *metrics,
			   const FwdOrigin *origin, FwdError *error)
{
	KafkaSink *sink = fwd_alloc(sizeof(KafkaSink));

	sink->base = (FwdSink){&kafka_ops, positions, metrics, -1};
	sink->config = config;
	sink->origin = origin;
	if (open_producer(sink, error))
		return &sink->base;
	kafka_close(&sink->base);
	return NULL;
}

bool
fwd_kafka_take_over(FwdSink *base, FwdError *error)
{
	KafkaSink *sink = (KafkaSink *) base;

	if (!sink->config->exactly_once)
		return true;
	sink->exactly_once = fwd_eo_open(sink->producer, sink->resume, sink->config, sink->origin,
									 base->positions, base->metrics, error);
	return sink->exactly_once != NULL;
}

bool
fwd_kafka_check(FwdSink *base, int milliseconds, FwdError *error)
{
	KafkaSink *sink = (KafkaSink *) base;
	const struct rd_kafka_metadata *data;
	rd_kafka_resp_err_t err = rd_kafka_metadata(sink->producer, 0, NULL, &data, milliseconds);

	if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		rd_kafka_metadata_destroy(data);
		return true;
	}
	rd_kafka_poll(sink->producer, 0);
	return fwd_fail(
		error, FWD_RETRY,
		"See kafka.bootstrap.servers, and security.protocol and sasl.* where brokers ask "
		"for them.",
		"could not reach the brokers: %s", rd_kafka_err2str(err));
}
