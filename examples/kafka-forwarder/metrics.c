/*
 * metrics.c: counters as text, and the HTTP server for them, inside of the event loop.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <microhttpd.h>

#include "metrics.h"
#include "source.h"

/* Not heard of the server for so long: not ready. */
#define READY_US INT64_C(60000000)

struct FwdHttp
{
	struct MHD_Daemon *daemon;
	FwdMetrics *metrics;
};

static void
put_metric(FILE *out, const char *name, const char *type, const char *help, double value)
{
	fprintf(out,
			"# HELP pg_trickle_forwarder_%s %s\n# TYPE pg_trickle_forwarder_%s %s\n"
			"pg_trickle_forwarder_%s %.17g\n",
			name, help, name, type, name, value);
}

static void
put_delays(FILE *out, const FwdPositions *positions)
{
	static const int bounds[FWD_DELAY_COUNT] = FWD_DELAYS;
	const char *name = "pg_trickle_forwarder_commit_to_acknowledged_seconds";
	uint64_t count = 0;

	fprintf(out,
			"# HELP %s From the commit of a transaction until all of it, and all before it, is "
			"acknowledged.\n# TYPE %s histogram\n",
			name, name);
	for (int i = 0; i < FWD_DELAY_COUNT; i++)
		fprintf(out, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, bounds[i] / 1000.0,
				count += positions->delayed[i]);
	count += positions->delayed[FWD_DELAY_COUNT];
	fprintf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum %.6f\n%s_count %" PRIu64 "\n", name,
			count, name, (double) positions->delay_us / 1e6, name, count);
}

static char *
render(const FwdMetrics *m)
{
	static const char ops[] = "cudtr";
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	uint64_t lag = m->server_lsn > m->confirmed_lsn ? m->server_lsn - m->confirmed_lsn : 0;

	if (out == NULL)
		return NULL;
	fprintf(out, "# HELP pg_trickle_forwarder_rows_total Rows read, by operation.\n"
				 "# TYPE pg_trickle_forwarder_rows_total counter\n");
	for (int i = 0; i < 5; i++)
		fprintf(out, "pg_trickle_forwarder_rows_total{op=\"%c\"} %" PRIu64 "\n", ops[i],
				m->rows[i]);
	put_metric(out, "records_total", "counter", "Records given to the producer.", m->records);
	put_metric(out, "record_bytes_total", "counter", "Bytes of these.", m->record_bytes);
	put_metric(out, "acknowledged_total", "counter", "Records acknowledged.", m->acknowledged);
	put_metric(out, "skipped_total", "counter", "Records that were there already.", m->skipped);
	put_metric(out, "transactions_total", "counter", "Transactions read.", m->transactions);
	put_metric(out, "kafka_transactions_total", "counter", "Transactions of Kafka committed.",
			   m->kafka_transactions);
	put_metric(out, "heartbeats_total", "counter", "Heartbeats read.", m->heartbeats);
	put_metric(out, "schemas_total", "counter", "Shapes of tables read.", m->schemas);
	put_metric(out, "reconnects_total", "counter", "Sessions that ended early.", m->reconnects);
	put_metric(out, "delivery_errors_total", "counter", "Records refused.", m->delivery_errors);
	put_metric(out, "throttled_total", "counter", "Times the queue was full.", m->throttled);
	put_metric(out, "queued_bytes", "gauge", "Bytes not acknowledged yet.", m->queued_bytes);
	put_metric(out, "pending_transactions", "gauge", "Transactions not acknowledged yet.",
			   m->pending_transactions);
	put_metric(out, "received_lsn", "gauge", "Position read, in bytes.", m->received_lsn);
	put_metric(out, "confirmed_lsn", "gauge", "Position confirmed, in bytes.", m->confirmed_lsn);
	put_metric(out, "lag_bytes", "gauge", "WAL not confirmed yet.", lag);
	put_metric(out, "last_commit_seconds", "gauge", "Time of the commit read last.",
			   m->last_commit_us / 1e6);
	put_delays(out, m->positions);
	put_metric(out, "streaming", "gauge", "1 while the slot is read.", m->streaming);
	fclose(out);
	return text;
}

static bool
is_ready(const FwdMetrics *metrics)
{
	return metrics->streaming && fwd_now_us() - metrics->last_heard_us < READY_US;
}

static enum MHD_Result
answer(void *user, struct MHD_Connection *connection, const char *url, const char *method,
	   const char *version, const char *upload, size_t *upload_size, void **request)
{
	FwdHttp *http = user;
	struct MHD_Response *response;
	enum MHD_Result result;
	unsigned status = MHD_HTTP_OK;
	char *text;

	(void) version;
	(void) upload;
	(void) request;
	if (strcmp(method, "GET") != 0 || *upload_size != 0)
		return MHD_NO;
	if (strcmp(url, "/metrics") == 0)
		text = render(http->metrics);
	else if (strcmp(url, "/healthz") == 0)
		text = fwd_strdup("alive\n");
	else if (strcmp(url, "/readyz") == 0)
	{
		bool ready = is_ready(http->metrics);

		status = ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
		text = fwd_strdup(ready ? "streaming\n" : "not streaming\n");
	}
	else
	{
		status = MHD_HTTP_NOT_FOUND;
		text = fwd_strdup("/metrics /healthz /readyz\n");
	}
	if (text == NULL)
		return MHD_NO;
	response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (response == NULL)
	{
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

FwdHttp *
fwd_http_open(int port, FwdMetrics *metrics, FwdError *error)
{
	struct sockaddr_in address = {0};
	FwdHttp *http;

	if (port == 0)
		return NULL;
	http = fwd_alloc(sizeof(FwdHttp));
	http->metrics = metrics;
	address.sin_family = AF_INET;
	address.sin_port = htons((uint16_t) port);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	http->daemon = MHD_start_daemon(MHD_USE_EPOLL, (uint16_t) port, NULL, NULL, answer, http,
									MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_CONNECTION_LIMIT,
									(unsigned) 16, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned) 10,
									MHD_OPTION_END);
	if (http->daemon != NULL)
		return http;
	fwd_fail(error, FWD_FATAL, "Set forwarder.metrics_port to a free port, or to 0 for none.",
			 "could not listen on 127.0.0.1:%d: %s", port, strerror(errno));
	free(http);
	return NULL;
}

int
fwd_http_socket(FwdHttp *http)
{
	const union MHD_DaemonInfo *info;

	if (http == NULL)
		return -1;
	info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	return info != NULL ? info->epoll_fd : -1;
}

void
fwd_http_poll(FwdHttp *http)
{
	if (http != NULL)
		MHD_run(http->daemon);
}

void
fwd_http_close(FwdHttp *http)
{
	if (http == NULL)
		return;
	MHD_stop_daemon(http->daemon);
	free(http);
}
