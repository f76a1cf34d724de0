/*
 * session.c: what is the same whether rows come from the WAL or from a table.
 *
 * A session's memory context is a child of the one it was made in, so that it goes with the
 * decoding context or the query, by error or not. It holds everything but the buffers of others.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "pgtd_format.h"
#include "pgtd_options.h"
#include "pgtd_publication.h"
#include "pgtd_relation.h"
#include "pgtd_session.h"

/* A buffer that one large row made larger than this is given back. */
#define KEPT_BUFFER_BYTES (8 * 1024 * 1024)

/*
 * What output functions of types, and the names of types, depend on. They are made with
 * these values, whatever the session has.
 */
static const struct
{
	const char *name;
	const char *value;
} output_settings[] = {
	{"DateStyle", "ISO, YMD"},	 {"IntervalStyle", "iso_8601"},	   {"TimeZone", "UTC"},
	{"extra_float_digits", "1"}, {"bytea_output", "hex"},		   {"xmlbinary", "base64"},
	{"lc_monetary", "C"},		 {"quote_all_identifiers", "off"}, {"search_path", ""},
};

PgtdState *
pgtd_make_session(List *options)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_trickle session",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	PgtdState *state = palloc0(sizeof(PgtdState));

	state->context = context;
	state->transaction_context = AllocSetContextCreate(context, "pg_trickle transaction",
													   ALLOCSET_DEFAULT_SIZES);
	state->row_context = AllocSetContextCreate(context, "pg_trickle row", ALLOCSET_DEFAULT_SIZES);
	pgtd_parse_options(options, &state->options);
	initStringInfo(&state->batch);
	state->style.json_as_text = state->options.envelope->json_as_text;
	state->style.bigint_as_string = state->options.bigint_as_string;
	state->cache = pgtd_make_relation_cache(&state->encoding, state->options.tables,
											state->options.exclude_tables,
											state->options.publications);
	MemoryContextSwitchTo(old_context);
	return state;
}

void
pgtd_free_session(PgtdState *state)
{
	MemoryContextDelete(state->context);
}

void
pgtd_load_session(PgtdState *state)
{
	MemoryContext old_context = CurrentMemoryContext;
	bool own_transaction = !IsTransactionState();

	if (own_transaction)
		StartTransactionCommand();
	MemoryContextSwitchTo(state->context);
	pgtd_find_encoding(&state->encoding);
	state->database = get_database_name(MyDatabaseId);
	pgtd_check_publications(state->options.publications);
	if (own_transaction)
		CommitTransactionCommand();
	MemoryContextSwitchTo(old_context);

	state->source_name = state->options.topic_prefix != NULL ? state->options.topic_prefix
															 : state->database;
}

int
pgtd_enter_settings(const PgtdState *state)
{
	int level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(output_settings); i++)
		(void) set_config_option(output_settings[i].name, output_settings[i].value, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	/* Send functions convert to it, output functions do not. */
	if (!state->options.format->is_text)
		(void) set_config_option("client_encoding", "UTF8", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return level;
}

bool
pgtd_is_database_text(const PgtdState *state)
{
	int encoding = GetDatabaseEncoding();

	return state->options.format->is_text && (encoding == PG_UTF8 || encoding == PG_SQL_ASCII);
}

void
pgtd_report_oversize(const PgtdState *state)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("row or message is too large for one message of pg_trickle_decoder"),
			 errdetail("A message takes at most %d bytes.", state->options.max_message_bytes),
			 errhint("Set the option \"oversize\" to \"omit\" to send the row without the "
					 "values that do not fit, or raise \"max_message_bytes\".")));
}

void
pgtd_shrink_buffer(StringInfo buf)
{
	MemoryContext old_context;

	if (buf->maxlen <= KEPT_BUFFER_BYTES)
		return;
	old_context = MemoryContextSwitchTo(GetMemoryChunkContext(buf->data));
	pfree(buf->data);
	initStringInfo(buf);
	MemoryContextSwitchTo(old_context);
}

void
pgtd_add_row_context(void *arg)
{
	const PgtdRow *row = arg;

	if (row->column != NULL)
		errcontext("column \"%s\" of table \"%s.%s\"", row->column->name, row->rel->schema,
				   row->rel->name);
	else
		errcontext("table \"%s.%s\"", row->rel->schema, row->rel->name);
}
