/*
 * snapshot.c: the rows that were there when a slot was created.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

#include "snapshot.h"

struct FwdSnapshot
{
	PGconn *conn;
	char lsn[24];
	FwdOptions options;
	PGresult *tables; /* their names, quoted */
	int next;		  /* the table that comes next */
	bool reading;
	PGresult *row; /* the one that was handed out */
};

static bool
fail(FwdSnapshot *snapshot, PGresult *result, FwdError *error)
{
	fwd_fail_with_result(snapshot->conn, result, "could not take the initial snapshot", error);
	PQclear(result);
	return false;
}

static bool
run(FwdSnapshot *snapshot, const char *sql, FwdError *error)
{
	PGresult *result = PQexec(snapshot->conn, sql);

	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		return fail(snapshot, result, error);
	PQclear(result);
	return true;
}

/* A call of a function that takes the options at its end, behind so many other arguments. */
static bool
call(FwdSnapshot *snapshot, const char *function, const char *const *arguments, int count,
	 bool binary, FwdError *error)
{
	const char *values[4 + 2 * FWD_MAX_OPTIONS];
	char sql[64 + 8 * (4 + 2 * FWD_MAX_OPTIONS)];
	int length = snprintf(sql, sizeof(sql), "SELECT pgtrickle.%s(", function);

	for (int i = 0; i < count; i++)
		values[i] = arguments[i];
	for (int i = 0; i < snapshot->options.count; i++)
	{
		values[count++] = snapshot->options.names[i];
		values[count++] = snapshot->options.values[i];
	}
	for (int i = 0; i < count; i++)
		length += snprintf(sql + length, sizeof(sql) - (size_t) length, "%s$%d", i > 0 ? "," : "",
						   i + 1);
	snprintf(sql + length, sizeof(sql) - (size_t) length, ")");
	if (PQsendQueryParams(snapshot->conn, sql, count, NULL, values, NULL, NULL, binary) == 1)
		return true;
	return fail(snapshot, NULL, error);
}

static bool
list_tables(FwdSnapshot *snapshot, FwdError *error)
{
	PGresult *rest;

	if (!call(snapshot, "snapshot_tables", NULL, 0, false, error))
		return false;
	snapshot->tables = PQgetResult(snapshot->conn);
	while ((rest = PQgetResult(snapshot->conn)) != NULL)
		PQclear(rest);
	if (PQresultStatus(snapshot->tables) == PGRES_TUPLES_OK)
		return true;
	rest = snapshot->tables;
	snapshot->tables = NULL;
	return fail(snapshot, rest, error);
}

static bool
begin(FwdSnapshot *snapshot, const FwdConfig *config, const FwdServer *server, FwdError *error)
{
	const char *keywords[] = {"dbname", "fallback_application_name", "client_encoding", NULL};
	const char *values[] = {config->conninfo, "pg_trickle_forwarder", "UTF8", NULL};
	char sql[128];

	snapshot->conn = PQconnectdbParams(keywords, values, 1);
	if (PQstatus(snapshot->conn) != CONNECTION_OK)
		return fwd_fail(error, FWD_RETRY, NULL, "could not connect for the initial snapshot: %s",
						PQerrorMessage(snapshot->conn));
	snprintf(sql, sizeof(sql), "SET TRANSACTION SNAPSHOT '%s'", server->snapshot);
	return run(snapshot, "SET search_path = ''", error) &&
		   run(snapshot, "SET statement_timeout = 0", error) &&
		   run(snapshot, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", error) &&
		   run(snapshot, sql, error) && list_tables(snapshot, error);
}

FwdSnapshot *
fwd_snapshot_open(const FwdConfig *config, const FwdServer *server, FwdError *error)
{
	FwdSnapshot *snapshot = fwd_alloc(sizeof(FwdSnapshot));

	fwd_source_options(config, &snapshot->options);
	snprintf(snapshot->lsn, sizeof(snapshot->lsn), "%X/%X",
			 (unsigned) (server->slot_confirmed >> 32), (unsigned) server->slot_confirmed);
	if (begin(snapshot, config, server, error))
		return snapshot;
	fwd_snapshot_close(snapshot);
	return NULL;
}

int
fwd_snapshot_socket(FwdSnapshot *snapshot)
{
	return PQsocket(snapshot->conn);
}

bool
fwd_snapshot_fill(FwdSnapshot *snapshot, FwdError *error)
{
	return PQconsumeInput(snapshot->conn) == 1 || fail(snapshot, NULL, error);
}

static bool
begin_table(FwdSnapshot *snapshot, FwdError *error)
{
	const char *arguments[] = {PQgetvalue(snapshot->tables, snapshot->next, 0), snapshot->lsn};

	fwd_log("info", "reading table %s", arguments[0]);
	if (!call(snapshot, "snapshot_rows_binary", arguments, 2, true, error))
		return false;
	PQsetSingleRowMode(snapshot->conn);
	snapshot->reading = true;
	snapshot->next++;
	return true;
}

FwdRead
fwd_snapshot_read(FwdSnapshot *snapshot, FwdSpan *lines, FwdError *error)
{
	PQclear(snapshot->row);
	snapshot->row = NULL;
	for (;;)
	{
		if (!snapshot->reading && snapshot->next == PQntuples(snapshot->tables))
			return FWD_READ_END;
		if (!snapshot->reading && !begin_table(snapshot, error))
			return FWD_READ_FAILED;
		if (PQflush(snapshot->conn) < 0)
		{
			fail(snapshot, NULL, error);
			return FWD_READ_FAILED;
		}
		if (PQisBusy(snapshot->conn))
			return FWD_READ_NOTHING;
		snapshot->row = PQgetResult(snapshot->conn);
		switch (PQresultStatus(snapshot->row))
		{
			case PGRES_SINGLE_TUPLE:
				*lines = (FwdSpan){PQgetvalue(snapshot->row, 0, 0),
								   (size_t) PQgetlength(snapshot->row, 0, 0)};
				return FWD_READ_DATA;
			case PGRES_TUPLES_OK: /* none is left */
				PQclear(snapshot->row);
				break;
			default:
				if (snapshot->row != NULL)
				{
					fail(snapshot, snapshot->row, error);
					snapshot->row = NULL;
					return FWD_READ_FAILED;
				}
				snapshot->reading = false;
		}
		snapshot->row = NULL;
	}
}

void
fwd_snapshot_close(FwdSnapshot *snapshot)
{
	if (snapshot == NULL)
		return;
	PQclear(snapshot->row);
	PQclear(snapshot->tables);
	PQfinish(snapshot->conn);
	free(snapshot);
}
