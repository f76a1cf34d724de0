/*
 * resume.h: what a topic has already, read back from its partitions.
 *
 * Each partition holds its records in the order of the stream, so the last one says how
 * far it got: whatever is not newer is there already. That holds only while a key stays in
 * its partition; every record says how many partitions its topic had, and a topic whose
 * number has changed is sent everything again rather than something never.
 */
#ifndef FWD_RESUME_H
#define FWD_RESUME_H

#include <librdkafka/rdkafka.h>

#include "sink.h"

typedef struct FwdResume FwdResume;

extern FwdResume *fwd_resume_open(const FwdConfig *config, const FwdOrigin *origin,
								  FwdError *error);
/*
 * Fill last[count], {0,0,0} for a partition that has nothing. Fails for good if the topic
 * was filled from another server, or is ahead of this one.
 */
extern bool fwd_resume_read(FwdResume *resume, const char *topic, int count, FwdPlace *last,
							FwdError *error);
/* Is the topic there? Brokers make none because a consumer asks. False if they do not tell. */
extern bool fwd_resume_find_topic(FwdResume *resume, const char *topic, bool *found,
								  FwdError *error);
/* The last value under a key in partition 0, in memory of the caller; NULL if there is none. */
extern bool fwd_resume_read_value(FwdResume *resume, const char *topic, const char *key,
								  char **value, FwdError *error);
extern void fwd_resume_close(FwdResume *resume);

/* Properties of [kafka] into a configuration. */
extern bool fwd_kafka_configure(rd_kafka_conf_t *conf, const FwdConfig *config, FwdError *error);

#endif
