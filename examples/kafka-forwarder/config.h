/*
 * config.h: the settings: one ini file, then --set section.name=value, which wins.
 *
 * A value of the form env:NAME is taken from the environment, so that secrets need not
 * stand in a file. The sections [kafka] and [map] take any name: properties of librdkafka,
 * and "schema.table = topic". Everywhere else an unknown name is an error.
 */
#ifndef FWD_CONFIG_H
#define FWD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "log.h"

typedef enum FwdTruncate
{
	FWD_TRUNCATE_FAIL,
	FWD_TRUNCATE_SKIP,
	FWD_TRUNCATE_SEND,
} FwdTruncate;

typedef struct FwdPair
{
	char *name;
	char *value;
	struct FwdPair *next;
} FwdPair;

typedef struct FwdConfig
{
	/* [source] */
	char *conninfo;
	char *slot;
	int create_slot;
	int snapshot; /* when we create it */
	char *tables;
	char *exclude_tables;
	int debezium; /* envelope */
	int oversize_omit;
	int max_message_bytes;

	/* [topics] */
	char *prefix;
	char *topic;
	char *schema_topic;
	char *transaction_topic;
	char *state_topic;
	int tombstones;
	int keyless; /* tables without a key: one partition instead of a refusal */
	int truncate;
	int cloudevents;

	/* [forwarder] */
	int exactly_once; /* delivery */
	int transaction_ms;
	int transaction_records;
	int queue_mb;
	int metrics_port;
	char *log_file;
	int shutdown_timeout;
	int status_interval;

	FwdPair *kafka;
	FwdPair *map;
} FwdConfig;

extern void fwd_config_defaults(FwdConfig *config);
extern bool fwd_config_read(FwdConfig *config, const char *path, FwdError *error);
/* section.name=value */
extern bool fwd_config_set(FwdConfig *config, const char *assignment, FwdError *error);
/* What must be there is there, and fits together. */
extern bool fwd_config_validate(FwdConfig *config, FwdError *error);
extern void fwd_config_free(FwdConfig *config);

extern const char *fwd_pair_get(const FwdPair *pairs, const char *name);

#endif
