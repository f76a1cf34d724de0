/*
 * pgtd_options.h: the options of a slot's consumer, parsed.
 */
#ifndef PGTD_OPTIONS_H
#define PGTD_OPTIONS_H

#include "nodes/pg_list.h"

#include "pgtd_format.h"
#include "pgtd_out.h"

/* The one version of the output that this release speaks. */
#define PGTD_FORMAT_VERSION 1

/* The walsender adds its own header to a message and must still stay below 1 GB. */
#define PGTD_MAX_MESSAGE_BYTES 1056964608
#define PGTD_MAX_BATCH_BYTES 16777216

typedef struct PgtdOptions
{
	const PgtdFormat *format;
	const PgtdEnvelope *envelope;
	List *tables;
	List *exclude_tables;
	List *publications; /* of names; NIL: not asked for */
	bool include_refresh;
	bool include_schema;
	List *messages;
	bool local_only; /* origin=none */
	bool bigint_as_string;
	bool omit_oversize;
	const char *topic_prefix; /* NULL: the name of the database */
	int max_message_bytes;
	int batch_bytes; /* 0: one message at a time */

	/* What is in force, in the order of the table in options.c; for the hello message. */
	const char **values;
} PgtdOptions;

/*
 * Parse a list of DefElem. An unknown option, a bad value, or an option given twice raises
 * an error that names the option and what it takes. Results live in CurrentMemoryContext.
 */
extern void pgtd_parse_options(List *given, PgtdOptions *options);

/* The options in force as members of a JSON object, without its braces. */
extern void pgtd_put_options(PgtdOut *out, const PgtdOptions *options);

#endif /* PGTD_OPTIONS_H */
