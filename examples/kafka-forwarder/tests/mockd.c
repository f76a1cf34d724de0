/*
 * mockd.c: brokers for tests: librdkafka's mock cluster in a process of its own, so that it
 * outlives the forwarder. Prints its bootstrap servers, then takes commands on standard
 * input, a line each, and answers "ok":
 *
 *   down, up        all brokers
 *   errors N CODE   the next N produce requests fail with this code of the protocol
 *
 * Ends with its standard input. Argument: how many brokers (1).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#define PRODUCE_REQUEST 0

static void
take_command(rd_kafka_mock_cluster_t *cluster, const char *line, int brokers)
{
	int count;
	int code;

	if (strncmp(line, "down", 4) == 0 || strncmp(line, "up", 2) == 0)
	{
		for (int i = 1; i <= brokers; i++)
			if (line[0] == 'd')
				rd_kafka_mock_broker_set_down(cluster, i);
			else
				rd_kafka_mock_broker_set_up(cluster, i);
	}
	else if (sscanf(line, "errors %d %d", &count, &code) == 2)
	{
		for (int i = 0; i < count; i++)
			rd_kafka_mock_push_request_errors(cluster, PRODUCE_REQUEST, 1,
											  (rd_kafka_resp_err_t) code);
	}
	else
	{
		puts("what?");
		return;
	}
	puts("ok");
}

int
main(int argc, char **argv)
{
	int brokers = argc > 1 ? atoi(argv[1]) : 1;
	char reason[256];
	char line[128];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *handle;
	rd_kafka_mock_cluster_t *cluster;

	rd_kafka_conf_set(conf, "client.id", "mockd", reason, sizeof(reason));
	rd_kafka_conf_set(conf, "log_level", "2", reason, sizeof(reason));
	handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof(reason));
	cluster = handle != NULL ? rd_kafka_mock_cluster_new(handle, brokers) : NULL;
	if (cluster == NULL)
	{
		fprintf(stderr, "could not make the cluster\n");
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts(rd_kafka_mock_cluster_bootstraps(cluster));
	while (fgets(line, sizeof(line), stdin) != NULL)
		take_command(cluster, line, brokers);
	rd_kafka_mock_cluster_destroy(cluster);
	rd_kafka_destroy(handle);
	return 0;
}
