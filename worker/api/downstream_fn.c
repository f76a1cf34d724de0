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
#include "pgt_guc.h"
#include "pgt_security.h"
#include "pgt_shmem.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"
#include "pgt_wire.h"

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

/*
 * What lets a connector advance while nothing happens to its table: our heartbeats, if there
 * are any, else a statement of its own that writes one.
 */
#define HEARTBEAT_QUERY                                                            \
	"SELECT pg_catalog.pg_logical_emit_message(false, '" PGT_WIRE_HEARTBEAT_PREFIX \
	"', (extract(epoch FROM clock_timestamp()) * 1e6)::bigint::text)"

/*
 * Values are texts, as Kafka Connect wants them. message.key.columns names the key though there
 * is a primary key: without, Debezium asks the server when it comes to a row, and a row that is
 * deleted because its table makes place for another one would have the key of that. Topics are named after the
 * database, so that several connectors may share the prefix: what else they would share
 * by it, metrics and the topic for transactions, is named after the slot.
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
	" 'custom.metric.tags', 'slot=pgt_debezium_%2$s',"
	" 'topic.transaction', 'pgt_debezium_%2$s.transaction',"
	" 'table.include.list', p.pattern,"
	" 'message.key.columns', CASE WHEN k.columns IS NOT NULL THEN p.pattern || ':' || k.columns END,"
	" 'snapshot.mode', 'initial', 'skipped.operations', 'none',"
	/* Logical messages are no rows of the table; a refresh writes some for our decoder. */
	" 'message.prefix.exclude.list', '.*',"
	" 'decimal.handling.mode', 'string', 'interval.handling.mode', 'string',"
	/* Else columns of types that it does not know are left out without a word. */
	" 'include.unknown.datatypes', 'true', 'provide.transaction.metadata', 'true',"
	/* Else a slot that was made anew, or moved, is a gap that nobody notices. */
	" 'offset.mismatch.strategy', 'trust_offset',"
	" 'heartbeat.interval.ms', '10000', 'heartbeat.action.query', %5$s,"
	" 'slot.failover', %4$s))"
	" FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
	/* Debezium's lists are of regular expressions. */
	" CROSS JOIN (SELECT '([^[:alnum:]_])' AS special, '\\\\\\1' AS escaped) e"
	" CROSS JOIN LATERAL (SELECT pg_catalog.regexp_replace(n.nspname, e.special, e.escaped, 'g')"
	"   || '\\.' || pg_catalog.regexp_replace(c.relname, e.special, e.escaped, 'g') AS pattern) p"
	/* Of an index that tells all rows apart. What separates the columns cannot be escaped. */
	" LEFT JOIN LATERAL (SELECT CASE WHEN NOT pg_catalog.bool_or(a.attname ~ '[,:;]')"
	"   AND p.pattern !~ '[:;]' THEN pg_catalog.string_agg("
	"   pg_catalog.regexp_replace(a.attname, e.special, e.escaped, 'g'), ',' ORDER BY a.attnum)"
	"   END AS columns"
	"  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid"
	"   AND a.attnum = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1])"
	"  WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate"
	"   AND i.indpred IS NULL AND NOT 0 = ANY (i.indkey::pg_catalog.int2[])"
	"  GROUP BY i.indexrelid, i.indisprimary, i.indnullsnotdistinct"
	"  HAVING i.indnullsnotdistinct OR pg_catalog.bool_and(a.attnotnull)"
	"  ORDER BY i.indisprimary DESC, pg_catalog.count(*), i.indexrelid LIMIT 1) k ON true"
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
	/* START_REPLICATION takes a list of identifiers, where Debezium puts the name as it is. */
	if (publication[strspn(publication, PGT_PLAIN_NAME)] != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("Debezium cannot follow a publication named \"%s\"", publication),
				 errdetail("It does not quote the name, which must have nothing but lower-case "
						   "letters, digits and underscores therefore."),
				 errhint("ALTER PUBLICATION %s RENAME TO ...", quote_identifier(publication))));
	rows = pgt_spi_select(psprintf(config, pgt_sqltext_literal(publication),
								   psprintf(INT64_FORMAT, st->pgt_id), st->relid,
								   PGT_COMPAT_FAILOVER_ARGUMENT == NULL ? "NULL" : "'true'",
								   pgt_shmem_available() && pgt_guc_heartbeat_interval > 0
									   ? "NULL"
									   : pgt_sqltext_literal(HEARTBEAT_QUERY)));
	PG_RETURN_DATUM(pgt_spi_datum(rows, 0, 1, &isnull));
}
