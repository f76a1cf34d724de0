/*
 * session.c: the event loop. One thread: it waits for the socket of the server, for
 * acknowledgements, for signals and for requests of metrics.
 *
 * When as many bytes wait for the brokers as forwarder.queue_mb allows, the server's socket
 * is left alone until a quarter of them is through; the server then waits, and hears of us
 * all the same, since it ends connections that are silent (wal_sender_timeout).
 */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "router.h"
#include "session.h"
#include "snapshot.h"

/* Messages between two looks at everything else. */
#define MESSAGES_PER_TURN 500
/* Transactions that may wait, whatever their size. */
#define MAX_TRANSACTIONS 200000
/* What has been acknowledged is told to the server after so long. */
#define CONFIRM_US 100000
/* With --once, the server is asked where it stands after so long. */
#define ASK_US 200000

typedef struct Session
{
	FwdForwarder *forwarder;
	FwdServer server;
	FwdOrigin origin;
	FwdSource *source;
	FwdSink *sink;
	FwdRouter *router;
	uint64_t told; /* the position that the server was told last */
	int64_t told_at;
	int64_t asked_at;
	int64_t shown_at;
	bool throttled;
	bool done;
} Session;

static void
take_signals(FwdForwarder *forwarder)
{
	struct signalfd_siginfo info;
	FwdError error = {0};

	while (read(forwarder->signals, &info, sizeof(info)) == sizeof(info))
	{
		if (info.ssi_signo != SIGHUP)
		{
			forwarder->stop = true;
			continue;
		}
		if (fwd_open_log(forwarder->config.log_file, &error))
			fwd_log("info", "opened the log file anew");
		else
			fwd_log_error(&error);
	}
}

static void
wait_for(FwdForwarder *forwarder, int server, int brokers, int milliseconds)
{
	struct pollfd fds[] = {{server, POLLIN, 0},
						   {brokers, POLLIN, 0},
						   {forwarder->signals, POLLIN, 0},
						   {fwd_http_socket(forwarder->http), POLLIN, 0}};

	poll(fds, 4, milliseconds);
	take_signals(forwarder);
	fwd_http_poll(forwarder->http);
}

void
fwd_session_wait(FwdForwarder *forwarder, int milliseconds)
{
	int64_t until = fwd_now_us() + (int64_t) milliseconds * 1000;

	while (!forwarder->stop && fwd_now_us() < until)
		wait_for(forwarder, -1, -1, (int) ((until - fwd_now_us()) / 1000) + 1);
}

/* -- whose server -- */

static bool
check_server(Session *session, FwdError *error)
{
	FwdForwarder *forwarder = session->forwarder;
	uint64_t confirmed = forwarder->positions.confirmed;

	if (forwarder->system_id[0] == '\0')
		strcpy(forwarder->system_id, session->server.system_id);
	if (strcmp(forwarder->system_id, session->server.system_id) != 0)
		return fwd_fail(error, FWD_FATAL,
						"Point source.conninfo to the server that the topics were filled from.",
						"this is another server: its system id is %s, not %s",
						session->server.system_id, forwarder->system_id);
	if (confirmed != 0 && session->server.slot_confirmed > confirmed && !forwarder->dry_run)
		return fwd_fail(
			error, FWD_FATAL,
			"Somebody else has read or advanced the slot. Empty the topics and begin anew, "
			"with a slot of its own.",
			"the slot has moved beyond what was forwarded: it is at %X/%X, not %X/%X",
			(unsigned) (session->server.slot_confirmed >> 32),
			(unsigned) session->server.slot_confirmed, (unsigned) (confirmed >> 32),
			(unsigned) confirmed);
	return true;
}

/* -- what others hear of us -- */

static bool
tell_server(Session *session, bool want_reply, FwdError *error)
{
	FwdForwarder *forwarder = session->forwarder;
	uint64_t confirmed = forwarder->dry_run ? 0 : forwarder->positions.confirmed;
	uint64_t received = forwarder->dry_run ? 0 : forwarder->positions.received;

	if (confirmed > session->told)
	{
		session->told = confirmed;
		forwarder->made_headway = true;
	}
	session->told_at = fwd_now_us();
	if (want_reply)
		session->asked_at = session->told_at;
	return fwd_source_confirm(session->source, received, confirmed, want_reply, error);
}

static bool
tell_server_if_due(Session *session, FwdError *error)
{
	FwdForwarder *forwarder = session->forwarder;
	int64_t now = fwd_now_us();
	bool ask = forwarder->until != 0 && now - session->asked_at >= ASK_US;
	bool news = forwarder->positions.confirmed > session->told && !forwarder->dry_run;

	if (ask || (news && now - session->told_at >= CONFIRM_US) ||
		now - session->told_at >= (int64_t) forwarder->config.status_interval * 1000000)
		return tell_server(session, ask, error);
	return true;
}

static void
update_metrics(Session *session)
{
	FwdMetrics *metrics = &session->forwarder->metrics;
	const FwdPositions *positions = &session->forwarder->positions;

	metrics->received_lsn = positions->received;
	metrics->confirmed_lsn = positions->confirmed;
	metrics->pending_transactions = positions->count;
	metrics->queued_bytes = session->sink->ops->queued_bytes(session->sink);
}

static void
show_progress(Session *session)
{
	const FwdMetrics *metrics = &session->forwarder->metrics;
	int64_t now = fwd_now_us();

	if (!session->forwarder->progress || now - session->shown_at < 500000)
		return;
	session->shown_at = now;
	fprintf(stderr,
			"\r%" PRIu64 " records, %" PRIu64 " acknowledged, %" PRIu64 " kB behind, queue %" PRIu64
			" kB   ",
			metrics->records, metrics->acknowledged,
			(metrics->server_lsn > metrics->confirmed_lsn
				 ? metrics->server_lsn - metrics->confirmed_lsn
				 : 0) /
				1024,
			metrics->queued_bytes / 1024);
}

static void
update_throttle(Session *session)
{
	size_t limit = (size_t) session->forwarder->config.queue_mb * 1024 * 1024;
	size_t queued = session->sink->ops->queued_bytes(session->sink);
	size_t count = session->forwarder->positions.count;

	if (session->throttled)
		session->throttled = queued > limit / 4 * 3 || count > MAX_TRANSACTIONS / 4 * 3;
	else if (queued >= limit || count >= MAX_TRANSACTIONS)
	{
		session->throttled = true;
		session->forwarder->metrics.throttled++;
	}
}

/* -- the initial snapshot -- */

/* As much as is there without waiting. */
static FwdRead
read_snapshot(Session *session, FwdSnapshot *snapshot, FwdError *error)
{
	FwdRead kind;
	FwdSpan lines;

	for (;;)
	{
		update_throttle(session);
		if (session->throttled || session->sink->ops->due(session->sink) == 0)
			return FWD_READ_NOTHING;
		kind = fwd_snapshot_read(snapshot, &lines, error);
		if (kind != FWD_READ_DATA)
			return kind;
		if (!fwd_router_take(session->router, lines, error))
			return FWD_READ_FAILED;
	}
}

static bool
copy_snapshot(Session *session, FwdSnapshot *snapshot, FwdError *error)
{
	FwdForwarder *forwarder = session->forwarder;
	FwdRead kind;

	while ((kind = read_snapshot(session, snapshot, error)) != FWD_READ_END)
	{
		if (kind == FWD_READ_FAILED || !session->sink->ops->poll(session->sink, error))
			return false;
		update_metrics(session);
		show_progress(session);
		wait_for(forwarder, session->throttled ? -1 : fwd_snapshot_socket(snapshot),
				 session->sink->socket, 100);
		if (forwarder->stop)
			return fwd_fail(error, FWD_RETRY, NULL, "ended during the initial snapshot");
		if (!fwd_snapshot_fill(snapshot, error))
			return false;
	}
	return true;
}

/* Until all of it is acknowledged. */
static bool
finish_snapshot(Session *session, FwdError *error)
{
	FwdForwarder *forwarder = session->forwarder;

	while (!session->sink->ops->flush(session->sink, 100))
	{
		if (!session->sink->ops->poll(session->sink, error))
			return false;
		update_metrics(session);
		wait_for(forwarder, -1, session->sink->socket, 0);
		if (forwarder->stop)
			return fwd_fail(error, FWD_RETRY, NULL, "ended during the initial snapshot");
	}
	/* What was refused shows here. */
	return session->sink->ops->poll(session->sink, error);
}

/* All of it is one transaction, which ends where the slot begins. */
static bool
take_snapshot(Session *session, FwdError *error)
{
	FwdForwarder *forwarder = session->forwarder;
	FwdPositions *positions = &forwarder->positions;
	uint64_t lsn = session->server.slot_confirmed;
	FwdSnapshot *snapshot = fwd_snapshot_open(&forwarder->config, &session->server, error);
	bool fine;

	if (snapshot == NULL)
		return false;
	fwd_positions_begin(positions, 0);
	positions->whole = true;
	fine = copy_snapshot(session, snapshot, error);
	fwd_snapshot_close(snapshot);
	if (!fine || !session->sink->ops->ended(session->sink, lsn, error))
		return false;
	fwd_positions_commit(positions, lsn);
	if (!finish_snapshot(session, error))
		return false;
	fwd_log("info", "the initial snapshot is complete: %" PRIu64 " rows",
			forwarder->metrics.rows[4]);
	return true;
}

/* -- beginning -- */

static bool
open_session(Session *session, FwdError *error)
{
	FwdForwarder *forwarder = session->forwarder;

	session->source = fwd_source_connect(&forwarder->config, &session->server, error);
	if (session->source == NULL || !check_server(session, error))
		return false;
	session->origin = (FwdOrigin){session->server.system_id, session->server.flushed,
								  session->server.slot_confirmed};
	if (forwarder->dry_run)
		session->sink = fwd_stdout_open(&forwarder->positions, &forwarder->metrics);
	else
		session->sink = fwd_kafka_open(&forwarder->config, &forwarder->positions,
									   &forwarder->metrics, &session->origin, error);
	if (session->sink == NULL ||
		(!forwarder->dry_run && !fwd_kafka_take_over(session->sink, error)))
		return false;
	session->router = fwd_router_open(&forwarder->config, &session->server, session->sink,
									  &forwarder->positions, &forwarder->metrics);
	if (forwarder->once && forwarder->until == 0)
		forwarder->until = session->server.flushed;
	if (session->server.snapshot[0] != '\0' && !take_snapshot(session, error))
		return false;
	if (session->server.slot_is_new && !forwarder->dry_run &&
		!fwd_source_keep_slot(session->source, error))
		return false;
	if (!fwd_source_start(session->source, forwarder->positions.confirmed, error))
		return false;
	fwd_log("info", "streaming from slot \"%s\" of database \"%s\"", forwarder->config.slot,
			session->server.database);
	forwarder->metrics.streaming = true;
	forwarder->metrics.last_heard_us = fwd_now_us();
	return true;
}

/* -- streaming -- */

static bool
take_message(Session *session, FwdRead kind, const FwdMessage *message, FwdError *error)
{
	FwdForwarder *forwarder = session->forwarder;

	forwarder->metrics.last_heard_us = fwd_now_us();
	if (message->lsn > forwarder->metrics.server_lsn)
		forwarder->metrics.server_lsn = message->lsn;
	if (kind == FWD_READ_DATA)
		return fwd_router_take(session->router, message->data, error);
	session->sink->ops->idle(session->sink, message->lsn, message->reply_request);
	return !message->reply_request || tell_server(session, false, error);
}

/* As much as is there, up to a turn's worth; *more: there is more without waiting. */
static bool
read_turn(Session *session, bool *more, FwdError *error)
{
	FwdForwarder *forwarder = session->forwarder;

	*more = false;
	for (int i = 0; i < MESSAGES_PER_TURN; i++)
	{
		FwdMessage message;
		FwdRead kind;

		update_throttle(session);
		if (session->throttled || session->sink->ops->due(session->sink) == 0)
			return true;
		kind = fwd_source_read(session->source, &message, error);
		if (kind == FWD_READ_NOTHING)
			return true;
		if (kind == FWD_READ_FAILED || !take_message(session, kind, &message, error))
			return false;
		if (forwarder->until != 0 && fwd_router_is_idle(session->router) &&
			forwarder->positions.received >= forwarder->until)
		{
			session->done = true;
			return true;
		}
	}
	*more = true;
	return true;
}

static bool
stream(Session *session, FwdError *error)
{
	FwdForwarder *forwarder = session->forwarder;

	while (!forwarder->stop && !session->done)
	{
		bool more;
		int wait;

		if (!read_turn(session, &more, error) || !session->sink->ops->poll(session->sink, error) ||
			!tell_server_if_due(session, error))
			return false;
		update_metrics(session);
		show_progress(session);
		if (forwarder->dry_run && !more)
			fflush(stdout);
		update_throttle(session);
		wait = session->sink->ops->due(session->sink);
		if (wait < 0 || wait > 100)
			wait = 100;
		wait_for(forwarder, session->throttled ? -1 : fwd_source_socket(session->source),
				 session->sink->socket, more || session->done ? 0 : wait);
		if (!session->throttled && !more && !fwd_source_fill(session->source, error))
			return false;
	}
	return true;
}

/* -- end -- */

/* Wait for what is under way, for a time; the server hears of us meanwhile. */
static bool
drain(Session *session, int seconds, FwdError *error)
{
	FwdForwarder *forwarder = session->forwarder;
	int64_t until = fwd_now_us() + (int64_t) seconds * 1000000;
	bool empty;

	do
	{
		empty = session->sink->ops->flush(session->sink, 100);
		if (!session->sink->ops->poll(session->sink, error))
			return false;
		take_signals(forwarder);
		if (!tell_server_if_due(session, error))
			return false;
	} while (!empty && fwd_now_us() < until);
	/* What was read behind the last transaction has no rows; it may be forgotten now. */
	if (empty)
	{
		session->sink->ops->idle(session->sink, forwarder->positions.received, true);
		session->sink->ops->flush(session->sink, 1000);
	}
	update_metrics(session);
	if (!empty)
		fwd_log("warning", "not all records were acknowledged in time: they will be sent again");
	return tell_server(session, false, error);
}

bool
fwd_session_run(FwdForwarder *forwarder, FwdError *error)
{
	Session session = {.forwarder = forwarder};
	bool fine;

	forwarder->made_headway = false;
	fine = open_session(&session, error) && stream(&session, error);
	if (fine)
		fine = drain(&session, forwarder->config.shutdown_timeout, error);
	else if (session.sink != NULL)
		session.sink->ops->flush(session.sink, 2000);
	forwarder->metrics.streaming = false;
	fwd_source_close(session.source);
	fwd_router_close(session.router);
	fwd_positions_rewind(&forwarder->positions);
	if (session.sink != NULL)
		session.sink->ops->close(session.sink);
	return fine;
}
