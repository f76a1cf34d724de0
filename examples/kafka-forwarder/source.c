/*
 * source.c: the replication connection.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

#include "pgt_wire.h"
#include "source.h"

#define PLUGIN "pg_trickle_decoder"

struct FwdSource
{
	const FwdConfig *config;
	PGconn *conn;
	const char *slot; /* the one to read: the configured one, or new_slot */
	char new_slot[64];
	bool streaming;
	char *copied; /* the message that was read last */
};

int64_t
fwd_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* What a person has to mend does not get better by waiting. */
static FwdOutcome
classify(const char *sqlstate)
{
	static const char *const fatal[] = {"0A", "22",	   "28",	"3D",	 "3F", "42",
										"54", "55000", "58P01", "XX002", NULL};

	if (sqlstate == NULL)
		return FWD_RETRY;
	for (int i = 0; fatal[i] != NULL; i++)
		if (strncmp(sqlstate, fatal[i], strlen(fatal[i])) == 0)
			return FWD_FATAL;
	return FWD_RETRY;
}

static const char *
hint_for(const char *sqlstate, const char *server_hint)
{
	if (sqlstate == NULL)
		return server_hint;
	if (strcmp(sqlstate, "42883") == 0 || strcmp(sqlstate, "3F000") == 0)
		return "The initial snapshot needs the extension pg_trickle in the database. Or set "
			   "source.snapshot = never.";
	if (strcmp(sqlstate, "55006") == 0)
		return "Another process reads this slot, perhaps an older forwarder; see "
			   "pg_replication_slots.active_pid.";
	if (strncmp(sqlstate, "54", 2) == 0)
		return "Set source.oversize = omit, raise source.max_message_bytes, or exclude the table "
			   "with source.exclude_tables.";
	if (server_hint != NULL)
		return server_hint;
	if (strcmp(sqlstate, "42501") == 0)
		return "The role needs REPLICATION, and output_plugin_libraries of the server has to "
			   "name " PLUGIN ".";
	if (strcmp(sqlstate, "55000") == 0)
		return "If the slot has lost its WAL, drop it, empty the topics and begin anew: changes in "
			   "between are gone. If not, see wal_level and the server's log.";
	if (strcmp(sqlstate, "58P01") == 0)
		return "Install " PLUGIN " on the server.";
	return NULL;
}

bool
fwd_fail_with_result(PGconn *conn, const PGresult *result, const char *what, FwdError *error)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);

	fwd_fail(error, classify(sqlstate),
			 hint_for(sqlstate, PQresultErrorField(result, PG_DIAG_MESSAGE_HINT)), "%s: %s%s%s%s%s",
			 what, message != NULL ? message : PQerrorMessage(conn), detail != NULL ? " (" : "",
			 detail != NULL ? detail : "", detail != NULL ? ")" : "", "");
	return false;
}

static bool
fail_with_result(FwdSource *source, PGresult *result, const char *what, FwdError *error)
{
	fwd_fail_with_result(source->conn, result, what, error);
	PQclear(result);
	return false;
}

/* One command whose rows are wanted; NULL if it failed. */
static PGresult *
query(FwdSource *source, const char *sql, const char *what, FwdError *error)
{
	PGresult *result = PQexec(source->conn, sql);

	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		return result;
	fail_with_result(source, result, what, error);
	return NULL;
}

static bool
connect_server(FwdSource *source, FwdError *error)
{
	const char *keywords[] = {"dbname", "replication", "fallback_application_name", "options",
							  NULL};
	const char *values[] = {source->config->conninfo, "database", "pg_trickle_forwarder", NULL,
							NULL};

	source->conn = PQconnectdbParams(keywords, values, 1);
	if (PQstatus(source->conn) != CONNECTION_OK)
		return fwd_fail(error, PQconnectionNeedsPassword(source->conn) ? FWD_FATAL : FWD_RETRY,
						PQconnectionNeedsPassword(source->conn)
							? "Give a password in ~/.pgpass, PGPASSWORD or source.conninfo."
							: NULL,
						"could not connect to the database: %s", PQerrorMessage(source->conn));
	return true;
}

static bool
identify(FwdSource *source, FwdServer *server, FwdError *error)
{
	PGresult *result = query(source, "IDENTIFY_SYSTEM", "could not ask the server who it is",
							 error);

	if (result == NULL)
		return false;
	snprintf(server->system_id, sizeof(server->system_id), "%s", PQgetvalue(result, 0, 0));
	snprintf(server->database, sizeof(server->database), "%s", PQgetvalue(result, 0, 3));
	fwd_parse_lsn(PQgetvalue(result, 0, 2), &server->flushed);
	PQclear(result);
	if (server->database[0] == '\0')
		return fwd_fail(error, FWD_FATAL,
						"Name the database of the slot in source.conninfo: dbname=...",
						"the connection is to no database");
	return true;
}

/*
 * A slot that goes with the connection. The one that stays is a copy of it, made when the
 * snapshot is in the topics: whoever dies before has left nothing that looks complete.
 */
static bool
create_slot(FwdSource *source, FwdServer *server, FwdError *error)
{
	char sql[256];
	PGresult *result;

	snprintf(source->new_slot, sizeof(source->new_slot), "pgt_forwarder_%d",
			 PQbackendPID(source->conn));
	snprintf(sql, sizeof(sql),
			 "CREATE_REPLICATION_SLOT \"%s\" TEMPORARY LOGICAL " PLUGIN " %sEXPORT_SNAPSHOT",
			 source->new_slot, source->config->snapshot ? "" : "NO");
	result = query(source, sql, "could not create the replication slot", error);
	if (result == NULL)
		return false;
	source->slot = source->new_slot;
	server->slot_is_new = true;
	fwd_parse_lsn(PQgetvalue(result, 0, 1), &server->slot_confirmed);
	if (source->config->snapshot)
		snprintf(server->snapshot, sizeof(server->snapshot), "%s", PQgetvalue(result, 0, 2));
	PQclear(result);
	return true;
}

bool
fwd_source_keep_slot(FwdSource *source, FwdError *error)
{
	char sql[256];
	PGresult *result;

	snprintf(sql, sizeof(sql),
			 "SELECT pg_catalog.pg_copy_logical_replication_slot('%s', '%s', false)",
			 source->new_slot, source->config->slot);
	result = query(source, sql, "could not create the replication slot", error);
	if (result == NULL)
		return false;
	PQclear(result);
	fwd_log("info", "created the replication slot \"%s\"", source->config->slot);
	source->slot = source->config->slot;
	/* It would hold back WAL as long as the connection lives. */
	snprintf(sql, sizeof(sql), "SELECT pg_catalog.pg_drop_replication_slot('%s')",
			 source->new_slot);
	result = query(source, sql, "could not drop the temporary replication slot", error);
	if (result == NULL)
		return false;
	PQclear(result);
	return true;
}

static bool
check_slot(FwdSource *source, PGresult *found, FwdServer *server, FwdError *error)
{
	const char *slot = source->config->slot;

	if (strcmp(PQgetvalue(found, 0, 0), PLUGIN) != 0)
		return fwd_fail(error, FWD_FATAL,
						"Set source.slot to a slot that was created with " PLUGIN ".",
						"the slot \"%s\" uses \"%s\", not " PLUGIN, slot, PQgetvalue(found, 0, 0));
	if (strcmp(PQgetvalue(found, 0, 1), server->database) != 0)
		return fwd_fail(error, FWD_FATAL, "Connect to the database of the slot.",
						"the slot \"%s\" belongs to the database \"%s\", this is \"%s\"", slot,
						PQgetvalue(found, 0, 1), server->database);
	if (strcmp(PQgetvalue(found, 0, 2), "lost") == 0)
		return fwd_fail(
			error, FWD_FATAL,
			"Drop the slot, empty the topics and begin anew; raise max_slot_wal_keep_size.",
			"the slot \"%s\" has lost WAL that was not forwarded yet", slot);
	fwd_parse_lsn(PQgetvalue(found, 0, 3), &server->slot_confirmed);
	return true;
}

static bool
find_slot(FwdSource *source, FwdServer *server, FwdError *error)
{
	char sql[512];
	PGresult *found;
	bool fine;

	snprintf(sql, sizeof(sql),
			 "SELECT plugin, database, coalesce(wal_status, ''), confirmed_flush_lsn"
			 " FROM pg_catalog.pg_replication_slots"
			 " WHERE slot_name OPERATOR(pg_catalog.=) '%s' AND slot_type "
			 "OPERATOR(pg_catalog.=) 'logical'",
			 source->config->slot);
	found = query(source, sql, "could not look at the replication slot", error);
	if (found == NULL)
		return false;
	if (PQntuples(found) == 1)
		fine = check_slot(source, found, server, error);
	else if (source->config->create_slot)
		fine = create_slot(source, server, error);
	else
		fine = fwd_fail(error, FWD_FATAL,
						"Set source.create_slot = on, or create the slot with " PLUGIN ".",
						"there is no logical replication slot \"%s\"", source->config->slot);
	PQclear(found);
	return fine;
}

FwdSource *
fwd_source_connect(const FwdConfig *config, FwdServer *server, FwdError *error)
{
	FwdSource *source = fwd_alloc(sizeof(FwdSource));

	source->config = config;
	source->slot = config->slot;
	memset(server, 0, sizeof(*server));
	if (!connect_server(source, error) || !identify(source, server, error) ||
		!find_slot(source, server, error))
	{
		fwd_source_close(source);
		return NULL;
	}
	return source;
}

static void
set_option(FwdOptions *options, const char *name, const char *value)
{
	options->names[options->count] = name;
	options->values[options->count++] = value;
}

void
fwd_source_options(const FwdConfig *config, FwdOptions *options)
{
	memset(options, 0, sizeof(*options));
	snprintf(options->bytes, sizeof(options->bytes), "%d", config->max_message_bytes);
	set_option(options, "format", "json");
	set_option(options, "format_version", "1");
	set_option(options, "envelope", config->debezium ? "debezium" : "compact");
	set_option(options, "oversize", config->oversize_omit ? "omit" : "error");
	set_option(options, "max_message_bytes", options->bytes);
	/* Each message is a system call and a wake-up on both sides, however many rows are in it. */
	set_option(options, "batch_bytes", "65536");
	if (config->tables[0] != '\0')
		set_option(options, "tables", config->tables);
	if (config->exclude_tables[0] != '\0')
		set_option(options, "exclude_tables", config->exclude_tables);
	if (config->prefix[0] != '\0')
		set_option(options, "topic_prefix", config->prefix);
}

/* Add "name" 'value'. In this grammar only the quote itself is doubled. */
static void
add_option(char *sql, bool comma, const char *name, const char *value)
{
	char *at = sql + strlen(sql);

	at += sprintf(at, "%s\"%s\" '", comma ? ", " : "", name);
	for (; *value != '\0'; value++)
	{
		if (*value == '\'')
			*at++ = '\'';
		*at++ = *value;
	}
	strcpy(at, "'");
}

bool
fwd_source_start(FwdSource *source, uint64_t lsn, FwdError *error)
{
	FwdOptions options;
	size_t size = 256;
	char *sql;
	PGresult *result;

	fwd_source_options(source->config, &options);
	for (int i = 0; i < options.count; i++)
		size += strlen(options.names[i]) + 2 * strlen(options.values[i]) + 8;
	sql = fwd_alloc(size);
	snprintf(sql, size, "START_REPLICATION SLOT \"%s\" LOGICAL %X/%X (", source->slot,
			 (unsigned) (lsn >> 32), (unsigned) lsn);
	for (int i = 0; i < options.count; i++)
		add_option(sql, i > 0, options.names[i], options.values[i]);
	strcat(sql, ")");
	result = PQexec(source->conn, sql);
	free(sql);
	if (PQresultStatus(result) != PGRES_COPY_BOTH)
		return fail_with_result(source, result, "could not start replication", error);
	PQclear(result);
	source->streaming = true;
	return true;
}

int
fwd_source_socket(FwdSource *source)
{
	return PQsocket(source->conn);
}

static uint64_t
get_int64(const char *at)
{
	uint64_t value = 0;

	for (int i = 0; i < 8; i++)
		value = value << 8 | (unsigned char) at[i];
	return value;
}

static void
put_int64(char *at, uint64_t value)
{
	for (int i = 7; i >= 0; i--, value >>= 8)
		at[i] = (char) (value & 0xFF);
}

/* The stream has ended: why? */
static FwdRead
read_end(FwdSource *source, int length, FwdError *error)
{
	PGresult *result;

	source->streaming = false;
	if (length == -2)
	{
		fwd_fail(error, FWD_RETRY, NULL, "could not read: %s", PQerrorMessage(source->conn));
		return FWD_READ_FAILED;
	}
	result = PQgetResult(source->conn);
	if (result != NULL && PQresultStatus(result) == PGRES_FATAL_ERROR)
		fail_with_result(source, result, "the server ended the stream", error);
	else
	{
		PQclear(result);
		fwd_fail(error, FWD_RETRY, NULL, "the server ended the stream");
	}
	return FWD_READ_FAILED;
}

FwdRead
fwd_source_read(FwdSource *source, FwdMessage *message, FwdError *error)
{
	int length;

	PQfreemem(source->copied);
	source->copied = NULL;
	memset(message, 0, sizeof(*message));
	length = PQgetCopyData(source->conn, &source->copied, 1);
	if (length == 0)
		return FWD_READ_NOTHING;
	if (length < 0)
		return read_end(source, length, error);
	if (source->copied[0] == 'k' && length >= 18)
	{
		message->lsn = get_int64(source->copied + 1);
		message->sent_at = (int64_t) get_int64(source->copied + 9) + PGT_WIRE_PG_EPOCH_US;
		message->reply_request = source->copied[17] != 0;
		return FWD_READ_KEEPALIVE;
	}
	if (source->copied[0] == 'w' && length >= 25)
	{
		message->lsn = get_int64(source->copied + 9);
		message->sent_at = (int64_t) get_int64(source->copied + 17) + PGT_WIRE_PG_EPOCH_US;
		message->data = (FwdSpan){source->copied + 25, (size_t) length - 25};
		return FWD_READ_DATA;
	}
	fwd_fail(error, FWD_RETRY, NULL, "the server sent a message of unknown kind");
	return FWD_READ_FAILED;
}

bool
fwd_source_fill(FwdSource *source, FwdError *error)
{
	if (PQconsumeInput(source->conn) == 0)
		return fwd_fail(error, FWD_RETRY, NULL, "lost the server: %s",
						PQerrorMessage(source->conn));
	return true;
}

bool
fwd_source_confirm(FwdSource *source, uint64_t received, uint64_t confirmed, bool want_reply,
				   FwdError *error)
{
	char reply[34];

	reply[0] = 'r';
	put_int64(reply + 1, received > confirmed ? received : confirmed);
	put_int64(reply + 9, confirmed);
	put_int64(reply + 17, 0);
	put_int64(reply + 25, (uint64_t) (fwd_now_us() - PGT_WIRE_PG_EPOCH_US));
	reply[33] = want_reply ? 1 : 0;
	if (PQputCopyData(source->conn, reply, sizeof(reply)) <= 0 || PQflush(source->conn) < 0)
		return fwd_fail(error, FWD_RETRY, NULL, "lost the server: %s",
						PQerrorMessage(source->conn));
	return true;
}

/* Let the server take note of what it was told before: it closes the stream in order. */
static void
end_stream(FwdSource *source)
{
	struct pollfd wait = {PQsocket(source->conn), POLLIN, 0};
	int64_t until = fwd_now_us() + 2000000;

	if (PQputCopyEnd(source->conn, NULL) <= 0 || PQflush(source->conn) < 0)
		return;
	while (fwd_now_us() < until)
	{
		char *copied = NULL;
		int length = PQgetCopyData(source->conn, &copied, 1);

		PQfreemem(copied);
		if (length < 0)
			return;
		if (length == 0 && poll(&wait, 1, 100) > 0 && PQconsumeInput(source->conn) == 0)
			return;
	}
}

void
fwd_source_close(FwdSource *source)
{
	if (source == NULL)
		return;
	PQfreemem(source->copied);
	if (source->streaming && PQstatus(source->conn) == CONNECTION_OK)
		end_stream(source);
	PQfinish(source->conn);
	free(source);
}
