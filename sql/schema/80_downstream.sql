-- What consumers downstream follow.

CREATE FUNCTION pgtrickle.stream_table_to_publication(name text, publication text DEFAULT NULL)
	RETURNS text
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_stream_table_to_publication';
COMMENT ON FUNCTION pgtrickle.stream_table_to_publication IS
	'makes a publication of a stream table, named pgt_<schema>_<table> by default, and returns its name; that of the one it has, if it has one';

CREATE FUNCTION pgtrickle.drop_stream_table_publication(name text) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_drop_stream_table_publication';
COMMENT ON FUNCTION pgtrickle.drop_stream_table_publication IS
	'drops the publication that stream_table_to_publication has made; takes the table out of it, if others were added';

CREATE FUNCTION pgtrickle.create_decoder_slot(slot text, failover boolean DEFAULT false) RETURNS pg_lsn
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_create_decoder_slot';
COMMENT ON FUNCTION pgtrickle.create_decoder_slot(text, boolean) IS
	'makes a replication slot of pg_trickle_decoder in this database; returns where it begins';

CREATE FUNCTION pgtrickle.snapshot_rows(name text, lsn pg_lsn DEFAULT NULL, VARIADIC options text[] DEFAULT '{}') RETURNS SETOF text
	LANGUAGE c STABLE ROWS 100000 AS '$libdir/pg_trickle_decoder', 'pgtd_snapshot_rows';
COMMENT ON FUNCTION pgtrickle.snapshot_rows(text, pg_lsn, text[]) IS
	'the rows of a table as pg_trickle_decoder would send them, with op "r"; the options are those of a slot, lsn is where the slot begins';

CREATE FUNCTION pgtrickle.snapshot_rows_binary(name text, lsn pg_lsn DEFAULT NULL, VARIADIC options text[] DEFAULT '{}') RETURNS SETOF bytea
	LANGUAGE c STABLE ROWS 100000 AS '$libdir/pg_trickle_decoder', 'pgtd_snapshot_rows_binary';
COMMENT ON FUNCTION pgtrickle.snapshot_rows_binary(text, pg_lsn, text[]) IS
	'as snapshot_rows, in bytes: for format=binary, and for databases that are not in UTF-8';

CREATE FUNCTION pgtrickle.slot_wants(relation regclass, is_stream_table boolean, options text[]) RETURNS boolean
	LANGUAGE c STABLE AS '$libdir/pg_trickle_decoder', 'pgtd_slot_wants';
COMMENT ON FUNCTION pgtrickle.slot_wants(regclass, boolean, text[]) IS
	'would a slot of pg_trickle_decoder with these options send rows of the table';

-- As its owner, since a stream table that the caller may not read must be an error of
-- snapshot_rows(), not a table that is missing without a word.
CREATE FUNCTION pgtrickle.snapshot_tables(VARIADIC options text[] DEFAULT '{}') RETURNS SETOF regclass
	LANGUAGE sql STABLE SECURITY DEFINER
BEGIN ATOMIC
	SELECT c.oid::regclass
	FROM pg_catalog.pg_class c LEFT JOIN pgtrickle.pgt_definitions d ON d.pgt_relid = c.oid
	WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384
		AND pgtrickle.slot_wants(c.oid::regclass, d.pgt_id IS NOT NULL, options)
	ORDER BY c.oid;
END;
COMMENT ON FUNCTION pgtrickle.snapshot_tables(text[]) IS
	'the tables whose rows a slot of pg_trickle_decoder with these options would send, for snapshot_rows';

CREATE FUNCTION pgtrickle.debezium_config(name text) RETURNS jsonb
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_debezium_config';
COMMENT ON FUNCTION pgtrickle.debezium_config(text) IS
	'settings of a Debezium connector that follows a published stream table';

CREATE FUNCTION pgtrickle.check_downstream(name text DEFAULT NULL, OUT check_name text,
		OUT severity text, OUT detail text, OUT command text)
	RETURNS SETOF record LANGUAGE sql
BEGIN ATOMIC
	SELECT 'wal_level', CASE WHEN s.level = 'logical' THEN 'OK' ELSE 'ERROR' END,
		'wal_level is ' || s.level,
		CASE WHEN s.level <> 'logical' THEN 'ALTER SYSTEM SET wal_level = ''logical''; -- then restart the server' END
	FROM (SELECT pg_catalog.current_setting('wal_level') AS level) s
UNION ALL
	SELECT 'max_replication_slots', CASE WHEN s.used < s.most THEN 'OK' ELSE 'ERROR' END,
		pg_catalog.format('%s of %s slots are in use', s.used, s.most),
		CASE WHEN s.used >= s.most THEN pg_catalog.format('ALTER SYSTEM SET max_replication_slots = %s; -- then restart the server', s.most + 10) END
	FROM (SELECT pg_catalog.current_setting('max_replication_slots')::int AS most,
			(SELECT count(*) FROM pg_catalog.pg_replication_slots) AS used) s
UNION ALL
	SELECT 'max_wal_senders', CASE WHEN s.used < s.most THEN 'OK' ELSE 'ERROR' END,
		pg_catalog.format('%s of %s senders run', s.used, s.most),
		CASE WHEN s.used >= s.most THEN pg_catalog.format('ALTER SYSTEM SET max_wal_senders = %s; -- then restart the server', s.most + 10) END
	FROM (SELECT pg_catalog.current_setting('max_wal_senders')::int AS most,
			(SELECT count(*) FROM pg_catalog.pg_stat_get_wal_senders()) AS used) s
UNION ALL
	SELECT 'output_plugin_libraries', CASE WHEN s.there THEN 'OK' ELSE 'ERROR' END,
		CASE WHEN s.list IS NULL THEN CASE WHEN pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE')
				THEN 'this server lets every output plugin be used' ELSE 'not there, or not for this role to see' END
			WHEN s.there THEN 'pg_trickle_decoder may be used' ELSE 'pg_trickle_decoder is not among: ' || s.list END,
		CASE WHEN NOT s.there THEN pg_catalog.format('ALTER SYSTEM SET output_plugin_libraries = %s; SELECT pg_reload_conf();',
			pg_catalog.concat_ws(', ', nullif(s.list, ''), 'pg_trickle_decoder')) END
	FROM (SELECT l.list, l.list IS NULL OR l.list ~ '(^|[ ,"/])pg_trickle_decoder($|[ ,"])' AS there
		FROM (SELECT (SELECT g.setting FROM pg_catalog.pg_settings g WHERE g.name = 'output_plugin_libraries') AS list) l) s
UNION ALL
	SELECT 'replication_right', CASE WHEN r.rolsuper OR r.rolreplication THEN 'OK' ELSE 'WARNING' END,
		pg_catalog.format(CASE WHEN r.rolsuper OR r.rolreplication THEN 'role %I may make and read slots' ELSE 'role %I may not make or read slots' END, r.rolname),
		CASE WHEN NOT (r.rolsuper OR r.rolreplication) THEN pg_catalog.format('ALTER ROLE %I REPLICATION;', r.rolname) END
	FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
UNION ALL
	SELECT 'slots', CASE WHEN count(*) = 0 THEN 'OK' ELSE 'ERROR' END,
		coalesce('lost the WAL that they need: ' || pg_catalog.string_agg(s.slot_name, ', ' ORDER BY s.slot_name), 'none of this database has lost WAL'),
		pg_catalog.string_agg(pg_catalog.format('SELECT pg_drop_replication_slot(%L);', s.slot_name), ' ' ORDER BY s.slot_name)
	FROM pg_catalog.pg_replication_slots s
	WHERE s.database = pg_catalog.current_database() AND s.wal_status = 'lost'
UNION ALL
	(SELECT v.check_name, v.severity, pg_catalog.format('%I.%I: ', s.pgt_schema, s.pgt_name) || v.detail, v.command
	FROM pgtrickle.pgt_stream_tables s
		JOIN pg_catalog.pg_class c ON c.oid = s.pgt_relid
		CROSS JOIN LATERAL (SELECT pg_catalog.format('%I.%I', s.pgt_schema, s.pgt_name) AS quoted,
			EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS has_key,
			EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisreplident) AS has_identity,
			(SELECT pg_catalog.string_agg(p.pubname, ', ' ORDER BY p.pubname) FROM pg_catalog.pg_publication_tables p
				WHERE p.schemaname = s.pgt_schema AND p.tablename = s.pgt_name) AS publications) o
		CROSS JOIN LATERAL (VALUES
			(1, 'replica_identity', CASE WHEN c.relreplident = 'f' OR c.relreplident = 'i' AND o.has_identity
					OR c.relreplident = 'd' AND o.has_key THEN 'OK' ELSE 'ERROR' END,
				CASE c.relreplident WHEN 'f' THEN 'all columns' WHEN 'i' THEN 'by index' WHEN 'd' THEN 'the primary key' ELSE 'none' END,
				CASE WHEN NOT (c.relreplident = 'f' OR c.relreplident = 'i' AND o.has_identity OR c.relreplident = 'd' AND o.has_key)
					THEN pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY FULL;', o.quoted) END),
			(2, 'primary_key', CASE WHEN o.has_key THEN 'OK' ELSE 'INFO' END,
				CASE WHEN o.has_key THEN 'has one' ELSE 'none: consumers that need one have to be told which columns identify rows' END, NULL),
			(3, 'publication', CASE WHEN o.publications IS NOT NULL THEN 'OK' ELSE 'INFO' END,
				coalesce('in ' || o.publications, 'in none; pg_trickle_decoder needs none'),
				CASE WHEN o.publications IS NULL THEN pg_catalog.format('SELECT pgtrickle.stream_table_to_publication(%L);', o.quoted) END),
			(4, 'select_right', CASE WHEN pg_catalog.has_table_privilege(c.oid, 'SELECT') THEN 'OK' ELSE 'WARNING' END,
				CASE WHEN pg_catalog.has_table_privilege(c.oid, 'SELECT') THEN 'may be read for a snapshot' ELSE 'may not be read for a snapshot' END,
				CASE WHEN NOT pg_catalog.has_table_privilege(c.oid, 'SELECT')
					THEN pg_catalog.format('GRANT SELECT ON %s TO %I;', o.quoted, current_user) END)
		) v (n, check_name, severity, detail, command)
	WHERE check_downstream.name IS NULL OR s.pgt_id = pgtrickle.stream_table_id(check_downstream.name)
	ORDER BY s.pgt_schema, s.pgt_name, v.n);
END;
COMMENT ON FUNCTION pgtrickle.check_downstream(text) IS
	'what others need to follow stream tables, what of it is missing, and the statement that mends it';
