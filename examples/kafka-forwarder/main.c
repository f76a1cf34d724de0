/*
 * main.c: the command line, and what a failure means: another attempt, or the end.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "router.h"
#include "session.h"

#define FIRST_DELAY_MS 100
#define LAST_DELAY_MS 30000

static const char usage[] =
	"pg-trickle-forwarder: stream tables into Kafka\n"
	"\n"
	"  -c, --config FILE            settings; forwarder.ini.sample lists them\n"
	"  -s, --set SECTION.NAME=VALUE one setting; wins over the file\n"
	"      --check                  look at settings, database and brokers, and say what is wrong\n"
	"      --dry-run                print records instead of sending them; the slot stays as it is\n"
	"      --once                   forward what is there now, then end\n"
	"      --until-lsn LSN          end after the first transaction that reaches it\n"
	"      --progress               show on the terminal how far it is\n"
	"  -V, --version\n"
	"  -h, --help\n"
	"\n"
	"SIGTERM ends it once what was sent is acknowledged; SIGHUP opens the log file anew.\n"
	"Exit status: 0 done, 1 needs a person, 2 the command line was wrong.\n";

enum
{
	OPT_CHECK = 256,
	OPT_DRY_RUN,
	OPT_ONCE,
	OPT_UNTIL,
	OPT_PROGRESS,
};

static const struct option options[] = {{"config", required_argument, NULL, 'c'},
										{"set", required_argument, NULL, 's'},
										{"check", no_argument, NULL, OPT_CHECK},
										{"dry-run", no_argument, NULL, OPT_DRY_RUN},
										{"once", no_argument, NULL, OPT_ONCE},
										{"until-lsn", required_argument, NULL, OPT_UNTIL},
										{"progress", no_argument, NULL, OPT_PROGRESS},
										{"version", no_argument, NULL, 'V'},
										{"help", no_argument, NULL, 'h'},
										{NULL, 0, NULL, 0}};

/* -1: go on; otherwise the exit status. Files are read in the order they are named. */
static int
read_command_line(int argc, char **argv, FwdForwarder *forwarder, bool *check, FwdError *error)
{
	bool fine = true;
	int option;

	/* Files first, so that --set wins wherever it stands. */
	while ((option = getopt_long(argc, argv, "c:s:Vh", options, NULL)) != -1)
		if (option == '?')
			return 2;
		else if (option == 'c' && fine)
			fine = fwd_config_read(&forwarder->config, optarg, error);
	if (optind < argc)
	{
		fprintf(stderr, "unexpected argument \"%s\"; see --help\n", argv[optind]);
		return 2;
	}
	for (optind = 1; fine && (option = getopt_long(argc, argv, "c:s:Vh", options, NULL)) != -1;)
		switch (option)
		{
			case 's':
				fine = fwd_config_set(&forwarder->config, optarg, error);
				break;
			case OPT_CHECK:
				*check = true;
				break;
			case OPT_DRY_RUN:
				forwarder->dry_run = true;
				break;
			case OPT_ONCE:
				forwarder->once = true;
				break;
			case OPT_PROGRESS:
				forwarder->progress = isatty(STDERR_FILENO) != 0;
				break;
			case OPT_UNTIL:
				if (fwd_parse_lsn(optarg, &forwarder->until) && forwarder->until != 0)
					break;
				fprintf(stderr, "\"%s\" is not a position such as 16/B374D848\n", optarg);
				return 2;
			case 'V':
				puts("pg-trickle-forwarder " FWD_VERSION);
				return 0;
			case 'h':
				fputs(usage, stdout);
				return 0;
		}
	if (fine && fwd_config_validate(&forwarder->config, error))
		return -1;
	fwd_log_error(error);
	return 1;
}

/* One line per thing that was looked at. */
static bool
report(const char *what, bool fine, FwdError *error)
{
	printf("%-8s %s\n", fine ? "ok" : "FAILED", what);
	if (!fine)
	{
		printf("         %s\n", error->message);
		if (error->hint[0] != '\0')
			printf("         %s\n", error->hint);
	}
	fwd_clear_error(error);
	return fine;
}

static int
run_check(FwdForwarder *forwarder)
{
	FwdError error = {0};
	FwdServer server;
	FwdOrigin origin = {"", UINT64_MAX, 0};
	FwdSource *source;
	FwdSink *sink;
	bool fine = report("settings", true, &error);

	source = fwd_source_connect(&forwarder->config, &server, &error);
	fine &= report("database and slot", source != NULL, &error);
	if (source != NULL)
		fine &= report("streaming from the slot", fwd_source_start(source, 0, &error), &error);
	fwd_source_close(source);
	sink = fwd_kafka_open(&forwarder->config, &forwarder->positions, &forwarder->metrics, &origin,
						  &error);
	fine &= report("properties of librdkafka", sink != NULL, &error);
	if (sink != NULL)
	{
		fine &= report("brokers", fwd_kafka_check(sink, 5000, &error), &error);
		sink->ops->close(sink);
	}
	return fine ? 0 : 1;
}

/* Between half of it and all of it, so that many forwarders do not come back at once. */
static int
next_delay(int *delay)
{
	int now = *delay / 2 + (int) (random() % (*delay / 2 + 1));

	*delay = *delay * 2 < LAST_DELAY_MS ? *delay * 2 : LAST_DELAY_MS;
	return now;
}

static int
run(FwdForwarder *forwarder)
{
	int delay = FIRST_DELAY_MS;

	for (;;)
	{
		FwdError error = {0};
		int wait;

		if (fwd_session_run(forwarder, &error))
		{
			fwd_log("info", "done");
			return 0;
		}
		fwd_log_error(&error);
		if (error.outcome == FWD_FATAL)
			return 1;
		if (forwarder->stop)
			return 0;
		if (forwarder->made_headway)
			delay = FIRST_DELAY_MS;
		forwarder->metrics.reconnects++;
		wait = next_delay(&delay);
		fwd_log("info", "trying again in %d ms", wait);
		fwd_session_wait(forwarder, wait);
		if (forwarder->stop)
			return 0;
	}
}

static int
open_signals(void)
{
	sigset_t signals;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	return signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
}

int
main(int argc, char **argv)
{
	FwdForwarder forwarder = {.signals = -1};
	FwdError error = {0};
	bool check = false;
	int status;

	fwd_config_defaults(&forwarder.config);
	forwarder.metrics.positions = &forwarder.positions;
	status = read_command_line(argc, argv, &forwarder, &check, &error);
	if (status >= 0)
	{
		fwd_config_free(&forwarder.config);
		return status;
	}
	srandom((unsigned) (getpid() ^ fwd_now_us()));
	forwarder.signals = open_signals();
	if (check)
		status = run_check(&forwarder);
	else
	{
		forwarder.http = fwd_http_open(forwarder.config.metrics_port, &forwarder.metrics, &error);
		if (error.outcome == FWD_FINE && fwd_open_log(forwarder.config.log_file, &error))
			status = run(&forwarder);
		else
		{
			fwd_log_error(&error);
			status = 1;
		}
		fwd_http_close(forwarder.http);
	}
	fwd_config_free(&forwarder.config);
	return status;
}
