/*
 * downstream_fn.c: what helps consumers begin: a slot of the decoder, and the
 * settings of a Debezium connector.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "pgt_compat.h"
#include "pgt_extension.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

PG_FUNCTION_INFO_V1(pgt_create_decoder_slot);
PG_FUNCTION_INFO_V1(pgt_debezium_config);

static char *
text_argument(FunctionCallInfo fcinfo, const char *name)
{
	pgt_extension_check_version();
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("argument \"%s\" must not be null", name)));
	return text_to_cstring(PG_GETARG_TEXT_PP(0));
}

/* create_decoder_slot(slot text, failover boolean) returns pg_lsn; the server checks rights. */
Datum
pgt_create_decoder_slot(PG_FUNCTION_ARGS)
{
	char *slot = text_argument(fcinfo, "slot");
	bool failover = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	const char *argument = PGT_COMPAT_FAILOVER_ARGUMENT;
	PgtRows *rows;
	bool isnull;

	if (failover && argument == NULL)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("slots of this server cannot fail over"),
						errdetail("That takes PostgreSQL 17 or later."),
						errhint("Leave the argument \"failover\" away.")));
	pgt_publication_check_server();
	rows = pgt_spi_select(
		psprintf("SELECT lsn FROM pg_catalog.pg_create_logical_replication_slot(%s,"
				 " 'pg_trickle_decoder', false, false%s)",
				 pgt_sqltext_literal(slot), failover ? argument : ""));
	PG_RETURN_DATUM(pgt_spi_datum(rows, 0, 1, &isnull));
}

/* As a pattern of Debezium's lists: commas and all that means something escaped. */
#define PATTERN_OF(name) "pg_catalog.regexp_replace(" name ", '([^[:alnum:]_])', '\\\\\\1', 'g')"

/*
 * Values are texts, as Kafka Connect wants them. The columns of message.key.columns
 * are those of our index, where the table has no primary key.
 */
static const char config[] =
	"SELECT pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object("
	"'connector.class', 'io.debezium.connector.postgresql.PostgresConnector',"
	" 'tasks.max', '1', 'plugin.name', 'pgoutput',"
	" 'database.hostname', coalesce(pg_catalog.host(pg_catalog.inet_server_addr()), 'localhost'),"
	" 'database.port', pg_catalog.current_setting('port'),"
	" 'database.dbname', pg_catalog.current_database(), 'database.user', session_user,"
	" 'topic.prefix', pg_catalog.regexp_replace(pg_catalog.current_database(),"
	" '[^A-Za-z0-9._-]', '_', 'g'),"
	" 'publication.name', %1$s, 'publication.autocreate.mode', 'disabled',"
	" 'slot.name', 'pgt_debezium_%2$s',"
	" 'table.include.list', p.pattern,"
	" 'message.key.columns', CASE WHEN k.columns IS NOT NULL THEN p.pattern || ':' || k.columns END,"
	" 'snapshot.mode', 'initial', 'skipped.operations', 'none',"
	" 'decimal.handling.mode', 'string', 'provide.transaction.metadata', 'true',"
	" 'heartbeat.interval.ms', '10000', 'heartbeat.action.query',"
	" 'SELECT pg_catalog.pg_logical_emit_message(false, ''debezium.hb'', '''')',"
	" 'slot.failover', %4$s))"
	" FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
	" CROSS JOIN LATERAL (SELECT " PATTERN_OF("n.nspname") " || '\\.' || " PATTERN_OF(
		"c.relname") " AS pattern) p"
					 " LEFT JOIN LATERAL (SELECT (SELECT pg_catalog.string_agg(a.attname, ',' "
					 "ORDER BY a.attnum)"
					 " FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid"
					 " AND a.attnum = ANY (i.indkey::pg_catalog.int2[])) AS columns"
					 " FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisunique"
					 " AND i.indpred IS NULL AND NOT 0 = ANY (i.indkey::pg_catalog.int2[])"
					 " AND NOT EXISTS (SELECT FROM pg_catalog.pg_index p"
					 " WHERE p.indrelid = c.oid AND p.indisprimary)"
					 " ORDER BY i.indexrelid LIMIT 1) k ON true"
					 " WHERE c.oid = %3$u";

Datum
pgt_debezium_config(PG_FUNCTION_ARGS)
{
	PgtStreamTable *st = pgt_stream_table_get(text_argument(fcinfo, "name"));
	const char *publication = pgt_publication_of(st);
	PgtRows *rows;
	bool isnull;

	pgt_security_check_reader(st->relid);
	if (publication == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("stream table \"%s\" has no publication", get_rel_name(st->relid)),
						errdetail("Debezium follows tables by publications."),
						errhint("SELECT pgtrickle.stream_table_to_publication(%s);",
								pgt_sqltext_literal(pgt_sqltext_relation(st->relid)))));
	rows = pgt_spi_select(psprintf(config, pgt_sqltext_literal(publication),
								   psprintf(INT64_FORMAT, st->pgt_id), st->relid,
								   PGT_COMPAT_FAILOVER_ARGUMENT == NULL ? "NULL" : "'true'"));
	PG_RETURN_DATUM(pgt_spi_datum(rows, 0, 1, &isnull));
}
