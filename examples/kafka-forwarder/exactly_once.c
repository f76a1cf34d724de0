/*
 * exactly_once.c: Kafka's transactions around the records, with the position in them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exactly_once.h"
#include "json.h"
#include "source.h"

#define BROKER_MS 10000
/* A commit is waited for in pieces, between which the server hears of us. */
#define COMMIT_MS 20
/* A transaction of PostgreSQL that comes slowly is split: brokers end theirs after a minute. */
#define SPLIT_US 10000000

typedef struct State
{
	bool known;
	uint64_t end_lsn; /* of the newest transaction that is complete: the stream goes on here */
	FwdPlace place;	  /* of the newest record: beyond end_lsn if its transaction was split */
} State;

/* Of the Kafka transaction. */
typedef enum Phase
{
	CLOSED,
	OPEN,
	COMMITTING,
	SPOILT,
} Phase;

struct FwdExactlyOnce
{
	rd_kafka_t *producer;
	const FwdConfig *config;
	const FwdOrigin *origin;
	FwdPositions *positions;
	FwdMetrics *metrics;
	char *topic;
	Phase phase;
	State state;			/* committed */
	State next;				/* with the open Kafka transaction */
	FwdTransaction **ended; /* transactions of PostgreSQL in it that are complete */
	size_t ended_count;
	size_t ended_size;
	int records;
	int64_t opened_at;
	uint64_t idle_lsn; /* 0: the stream is not idle */
	int64_t idle_at;   /* when the position has to be written */
};

/* -- names -- */

static char *
state_topic(const FwdConfig *config)
{
	size_t size = strlen(config->prefix) + strlen(config->slot) + 8;
	char *name;

	if (config->state_topic[0] != '\0')
		return fwd_strdup(config->state_topic);
	name = fwd_alloc(size);
	snprintf(name, size, "%s%s%s.state", config->prefix, config->prefix[0] == '\0' ? "" : ".",
			 config->slot);
	return name;
}

char *
fwd_eo_id(const FwdConfig *config)
{
	char *topic = state_topic(config);
	size_t size = strlen(topic) + strlen(config->slot) + 2;
	char *id = fwd_alloc(size);

	snprintf(id, size, "%s/%s", topic, config->slot);
	free(topic);
	return id;
}

/* -- failures -- */

/*
 * Takes the error of librdkafka. Being fenced is worth another attempt as well: brokers fence a
 * producer, too, that was away for longer than its transaction may last. One that was replaced by
 * another forwarder finds the slot taken.
 */
static bool
fail(const char *what, rd_kafka_error_t *cause, FwdError *error)
{
	fwd_fail(error, FWD_RETRY, NULL, "could not %s: %s", what, rd_kafka_error_string(cause));
	rd_kafka_error_destroy(cause);
	return false;
}

/* -- the position -- */

/*
 * Compacted, with one partition. Brokers that refuse make it as they make others, once the
 * first position is produced. False if it is there by now, and may have a position.
 */
static bool
create_topic(FwdExactlyOnce *eo, FwdError *error)
{
	bool exists = false;
	char reason[256];
	rd_kafka_queue_t *queue = rd_kafka_queue_new(eo->producer);
	rd_kafka_NewTopic_t *topic = rd_kafka_NewTopic_new(eo->topic, 1, -1, reason, sizeof(reason));
	rd_kafka_event_t *event;

	if (topic == NULL)
	{
		rd_kafka_queue_destroy(queue);
		return true;
	}
	rd_kafka_NewTopic_set_config(topic, "cleanup.policy", "compact");
	/* Only what is in full segments is compacted. */
	rd_kafka_NewTopic_set_config(topic, "segment.bytes", "16777216");
	rd_kafka_CreateTopics(eo->producer, &topic, 1, NULL, queue);
	event = rd_kafka_queue_poll(queue, BROKER_MS);
	if (event != NULL)
	{
		const rd_kafka_CreateTopics_result_t *result = rd_kafka_event_CreateTopics_result(event);
		size_t count = 0;
		const rd_kafka_topic_result_t **topics =
			result != NULL ? rd_kafka_CreateTopics_result_topics(result, &count) : NULL;
		rd_kafka_resp_err_t err = count > 0 ? rd_kafka_topic_result_error(topics[0])
											: rd_kafka_event_error(event);

		if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
			fwd_log("info", "made the topic \"%s\" for the position", eo->topic);
		else if (err == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
			exists = true;
		else
			fwd_log("warning", "could not make the compacted topic \"%s\": %s", eo->topic,
					rd_kafka_err2str(err));
		rd_kafka_event_destroy(event);
	}
	rd_kafka_NewTopic_destroy(topic);
	rd_kafka_queue_destroy(queue);
	return !exists ||
		   fwd_fail(error, FWD_RETRY, NULL, "the topic \"%s\" has just been made", eo->topic);
}

static bool
parse_state(FwdExactlyOnce *eo, FwdSpan text, FwdError *error)
{
	FwdSpan system = fwd_json_get(text, "system_id");
	State *state = &eo->state;
	char id[40];

	snprintf(id, sizeof(id), "\"%s\"", eo->origin->system_id);
	state->end_lsn = fwd_json_lsn(fwd_json_get(text, "end_lsn"));
	state->place.lsn = fwd_json_lsn(fwd_json_get(text, "commit_lsn"));
	state->place.seq = fwd_json_int(fwd_json_get(text, "seq"));
	state->place.part = (int) fwd_json_int(fwd_json_get(text, "part"));
	state->known = state->end_lsn != 0;
	if (!state->known)
		return fwd_fail(error, FWD_FATAL, "Empty the topics, the state topic too, and begin anew.",
						"the position in topic \"%s\" cannot be read: %.*s", eo->topic,
						(int) text.length, text.data);
	if (!fwd_span_is(system, id))
		return fwd_fail(
			error, FWD_FATAL,
			"Set topics.prefix to something else, or empty the topics, the state topic too.",
			"the topics were filled from another server: its system id is %.*s, this one's is %s",
			(int) system.length, system.data, eo->origin->system_id);
	return true;
}

/* Where the topics are must be what the slot still has. */
static bool
check_state(FwdExactlyOnce *eo, FwdError *error)
{
	const FwdOrigin *origin = eo->origin;
	uint64_t at = eo->state.end_lsn;

	if (origin->slot_confirmed > at)
		return fwd_fail(error, FWD_FATAL,
						"Somebody else has read or advanced the slot. Empty the topics, the state "
						"topic too, and begin anew, with a slot of its own.",
						"the slot has moved beyond what the topics have: it is at %X/%X, they are "
						"at %X/%X",
						(unsigned) (origin->slot_confirmed >> 32),
						(unsigned) origin->slot_confirmed, (unsigned) (at >> 32), (unsigned) at);
	if (at > origin->end_of_wal)
		return fwd_fail(error, FWD_FATAL,
						"The server has lost transactions, perhaps in a failover: empty the "
						"topics, the state topic too, and begin anew.",
						"the topics are at %X/%X, ahead of the server at %X/%X",
						(unsigned) (at >> 32), (unsigned) at, (unsigned) (origin->end_of_wal >> 32),
						(unsigned) origin->end_of_wal);
	return true;
}

static bool
read_state(FwdExactlyOnce *eo, FwdResume *resume, FwdError *error)
{
	char *text;
	bool found;

	if (!fwd_resume_find_topic(resume, eo->topic, &found, error))
		return false;
	if (!found)
		return create_topic(eo, error);
	if (!fwd_resume_read_value(resume, eo->topic, eo->config->slot, &text, error))
		return false;
	if (text == NULL)
	{
		fwd_log("info", "topic \"%s\" has no position yet: beginning where the slot stands",
				eo->topic);
		return true;
	}
	if (!parse_state(eo, (FwdSpan){text, strlen(text)}, error) || !check_state(eo, error))
	{
		free(text);
		return false;
	}
	free(text);
	if (eo->state.end_lsn > eo->positions->confirmed)
		eo->positions->confirmed = eo->state.end_lsn;
	fwd_log("info", "going on from %X/%X", (unsigned) (eo->state.end_lsn >> 32),
			(unsigned) eo->state.end_lsn);
	return true;
}

static bool
write_state(FwdExactlyOnce *eo, FwdError *error)
{
	const State *next = &eo->next;
	char text[256];
	rd_kafka_resp_err_t err;
	int length = snprintf(text, sizeof(text),
						  "{\"system_id\":\"%s\",\"end_lsn\":\"%X/%X\",\"commit_lsn\":\"%X/%X\","
						  "\"seq\":%" PRId64 ",\"part\":%d}",
						  eo->origin->system_id, (unsigned) (next->end_lsn >> 32),
						  (unsigned) next->end_lsn, (unsigned) (next->place.lsn >> 32),
						  (unsigned) next->place.lsn, next->place.seq, next->place.part);

	err = rd_kafka_producev(eo->producer, RD_KAFKA_V_TOPIC(eo->topic), RD_KAFKA_V_PARTITION(0),
							RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
							RD_KAFKA_V_KEY((void *) eo->config->slot, strlen(eo->config->slot)),
							RD_KAFKA_V_VALUE(text, (size_t) length),
							RD_KAFKA_V_OPAQUE(FWD_NOT_COUNTED), RD_KAFKA_V_END);
	if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
		return true;
	return fwd_fail(error, FWD_RETRY, NULL, "could not produce to topic \"%s\": %s", eo->topic,
					rd_kafka_err2str(err));
}

/* -- transactions -- */

static bool
open_transaction(FwdExactlyOnce *eo, FwdError *error)
{
	rd_kafka_error_t *cause;

	if (eo->phase == OPEN)
		return true;
	cause = rd_kafka_begin_transaction(eo->producer);
	if (cause != NULL)
		return fail("begin a transaction of Kafka", cause, error);
	eo->phase = OPEN;
	eo->opened_at = fwd_now_us();
	eo->next = eo->state;
	eo->records = 0;
	return true;
}

static bool
begin_commit(FwdExactlyOnce *eo, FwdError *error)
{
	State *next = &eo->next;

	if (eo->idle_lsn > next->end_lsn)
		next->end_lsn = eo->idle_lsn;
	/* If the first transaction ever is split, the stream goes on where it began. */
	if (next->end_lsn == 0)
		next->end_lsn = eo->origin->slot_confirmed;
	next->known = true;
	if (!write_state(eo, error))
		return false;
	eo->phase = COMMITTING;
	return true;
}

/* True: there was no failure; it is through once the phase is CLOSED. */
static bool
go_on_with_commit(FwdExactlyOnce *eo, int milliseconds, FwdError *error)
{
	rd_kafka_error_t *cause = rd_kafka_commit_transaction(eo->producer, milliseconds);

	if (cause != NULL)
	{
		if (!rd_kafka_error_is_retriable(cause))
			return fail("commit a transaction of Kafka", cause, error);
		rd_kafka_error_destroy(cause);
		return true;
	}
	eo->phase = CLOSED;
	eo->state = eo->next;
	eo->metrics->kafka_transactions++;
	eo->metrics->acknowledged += (uint64_t) eo->records;
	for (size_t i = 0; i < eo->ended_count; i++)
		fwd_positions_acknowledged(eo->positions, eo->ended[i]);
	eo->ended_count = 0;
	if (eo->state.end_lsn >= eo->idle_lsn)
		eo->idle_lsn = 0;
	if (!eo->positions->open)
		fwd_positions_idle(eo->positions, eo->state.end_lsn);
	return true;
}

/* Is there a position to be written although nothing happened? */
static bool
is_idle(const FwdExactlyOnce *eo)
{
	return eo->phase == CLOSED && eo->idle_lsn > eo->state.end_lsn && !eo->positions->open;
}

bool
fwd_eo_begin(FwdExactlyOnce *eo, FwdError *error)
{
	return open_transaction(eo, error);
}

void
fwd_eo_produced(FwdExactlyOnce *eo, const FwdPlace *place)
{
	eo->records++;
	if (fwd_place_compare(place, &eo->next.place) > 0)
		eo->next.place = *place;
}

void
fwd_eo_spoil(FwdExactlyOnce *eo)
{
	eo->phase = SPOILT;
}

bool
fwd_eo_ended(FwdExactlyOnce *eo, uint64_t end_lsn, FwdError *error)
{
	if (!open_transaction(eo, error))
		return false;
	if (eo->ended_count == eo->ended_size)
	{
		eo->ended_size = eo->ended_size == 0 ? 64 : eo->ended_size * 2;
		eo->ended = fwd_realloc(eo->ended, eo->ended_size * sizeof(*eo->ended));
	}
	eo->ended[eo->ended_count++] = fwd_positions_sent(eo->positions);
	eo->next.end_lsn = end_lsn;
	eo->idle_lsn = 0;
	return true;
}

void
fwd_eo_idle(FwdExactlyOnce *eo, uint64_t lsn, bool now)
{
	/* Written as rarely as the server hears of us: it may forget WAL then. */
	int64_t at = fwd_now_us() + (now ? 0 : (int64_t) eo->config->status_interval * 1000000);

	fwd_positions_received(eo->positions, lsn);
	if (eo->positions->open)
		return;
	if (eo->idle_lsn == 0 || at < eo->idle_at)
		eo->idle_at = at;
	eo->idle_lsn = lsn;
}

int
fwd_eo_due(const FwdExactlyOnce *eo)
{
	int64_t at;

	if (eo->phase == COMMITTING || eo->phase == SPOILT)
		return 0;
	if (eo->phase == OPEN)
	{
		if (eo->positions->whole)
			return -1;
		if (eo->records >= eo->config->transaction_records)
			return 0;
		at = eo->opened_at +
			 (eo->positions->open ? SPLIT_US : (int64_t) eo->config->transaction_ms * 1000);
	}
	else if (is_idle(eo))
		at = eo->idle_at;
	else
		return -1;
	at -= fwd_now_us();
	return at <= 0 ? 0 : (int) ((at + 999) / 1000);
}

bool
fwd_eo_poll(FwdExactlyOnce *eo, FwdError *error)
{
	if (fwd_eo_due(eo) != 0)
		return true;
	return fwd_eo_flush(eo, COMMIT_MS, error) || error->outcome == FWD_FINE;
}

bool
fwd_eo_flush(FwdExactlyOnce *eo, int milliseconds, FwdError *error)
{
	if (eo->phase == SPOILT)
		return fwd_fail(error, FWD_RETRY, NULL, "a record was not produced as a whole");
	if (eo->phase == CLOSED && (!is_idle(eo) || !open_transaction(eo, error)))
		return error->outcome == FWD_FINE;
	/* Given up within what must be whole. */
	if (eo->phase == OPEN && eo->positions->whole)
		return false;
	if (eo->phase == OPEN && !begin_commit(eo, error))
		return false;
	return go_on_with_commit(eo, milliseconds, error) && eo->phase == CLOSED;
}

/* -- life -- */

bool
fwd_eo_knows(const FwdExactlyOnce *eo)
{
	return eo->state.known;
}

bool
fwd_eo_has(const FwdExactlyOnce *eo, const FwdPlace *place)
{
	return fwd_place_compare(place, &(eo->phase == OPEN ? &eo->next : &eo->state)->place) <= 0;
}

FwdExactlyOnce *
fwd_eo_open(rd_kafka_t *producer, FwdResume *resume, const FwdConfig *config,
			const FwdOrigin *origin, FwdPositions *positions, FwdMetrics *metrics, FwdError *error)
{
	FwdExactlyOnce *eo = fwd_alloc(sizeof(FwdExactlyOnce));
	rd_kafka_error_t *cause;

	eo->producer = producer;
	eo->config = config;
	eo->origin = origin;
	eo->positions = positions;
	eo->metrics = metrics;
	eo->topic = state_topic(config);
	cause = rd_kafka_init_transactions(producer, BROKER_MS);
	if (cause != NULL)
		fail("begin with transactions of Kafka", cause, error);
	else if (read_state(eo, resume, error))
		return eo;
	fwd_eo_close(eo);
	return NULL;
}

void
fwd_eo_close(FwdExactlyOnce *eo)
{
	if (eo == NULL)
		return;
	if (eo->phase != CLOSED)
	{
		rd_kafka_error_t *cause = rd_kafka_abort_transaction(eo->producer, 5000);

		/* Otherwise the next one takes it back when it fences this one. */
		if (cause != NULL)
			rd_kafka_error_destroy(cause);
	}
	free(eo->ended);
	free(eo->topic);
	free(eo);
}
