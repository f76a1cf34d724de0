-- Functions that tell how stream tables are and why.

CREATE FUNCTION pgtrickle.pgt_status(OUT name text, OUT status text, OUT refresh_mode text,
		OUT is_populated boolean, OUT consecutive_errors integer, OUT schedule text,
		OUT data_timestamp timestamptz, OUT staleness interval)
	RETURNS SETOF record LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT pg_catalog.format('%I.%I', s.pgt_schema, s.pgt_name), s.status, s.refresh_mode,
		s.is_populated, s.consecutive_errors, s.schedule, s.data_timestamp, s.staleness
	FROM pgtrickle.pg_stat_stream_tables s ORDER BY 1;
END;
COMMENT ON FUNCTION pgtrickle.pgt_status() IS 'status and freshness of every stream table, one row each';

CREATE FUNCTION pgtrickle.get_refresh_history(name text, max_rows integer DEFAULT 20,
		OUT refresh_id bigint, OUT data_timestamp timestamptz, OUT start_time timestamptz,
		OUT end_time timestamptz, OUT action text, OUT refresh_reason text, OUT status text,
		OUT rows_in bigint, OUT rows_inserted bigint, OUT rows_updated bigint,
		OUT rows_deleted bigint, OUT duration_ms double precision, OUT initiated_by text,
		OUT error_message text)
	RETURNS SETOF record LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT h.refresh_id, h.data_timestamp, h.start_time, h.end_time, h.action, h.refresh_reason,
		h.status, h.rows_in, h.rows_inserted, h.rows_updated, h.rows_deleted, h.duration_ms,
		h.initiated_by, h.error_message
	FROM (SELECT pgtrickle.stream_table_id(name) AS pgt_id OFFSET 0) s
		LEFT JOIN pgtrickle.pgt_refresh_history h USING (pgt_id)
	WHERE h.refresh_id IS NOT NULL
	ORDER BY h.start_time DESC, h.refresh_id DESC LIMIT max_rows;
END;
COMMENT ON FUNCTION pgtrickle.get_refresh_history(text, integer) IS
	'the last refreshes of one stream table, newest first';

CREATE FUNCTION pgtrickle.refresh_timeline(max_rows integer DEFAULT 50,
		OUT start_time timestamptz, OUT stream_table text, OUT action text, OUT status text,
		OUT rows_inserted bigint, OUT rows_updated bigint, OUT rows_deleted bigint,
		OUT duration_ms double precision, OUT error_message text)
	RETURNS SETOF record LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT h.start_time, pg_catalog.format('%I.%I', s.pgt_schema, s.pgt_name), h.action, h.status,
		h.rows_inserted, h.rows_updated, h.rows_deleted, h.duration_ms, h.error_message
	FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables s USING (pgt_id)
	ORDER BY h.start_time DESC, h.refresh_id DESC LIMIT max_rows;
END;
COMMENT ON FUNCTION pgtrickle.refresh_timeline(integer) IS
	'the last refreshes of all stream tables, newest first';

CREATE FUNCTION pgtrickle.version() RETURNS text
	LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pgt_version';
COMMENT ON FUNCTION pgtrickle.version() IS 'version of the library that is loaded';

CREATE FUNCTION pgtrickle.is_captured(relation regclass) RETURNS boolean
	LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'pgt_is_captured';
COMMENT ON FUNCTION pgtrickle.is_captured(regclass) IS 'are changes of the relation written down for stream tables';

CREATE FUNCTION pgtrickle.list_sources(name text, OUT source_table text, OUT source_oid oid,
		OUT source_type text, OUT columns_used text[], OUT captured boolean)
	RETURNS SETOF record LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT d.source_relid::text, d.source_relid::oid, d.source_type, d.columns_used,
		pgtrickle.is_captured(d.source_relid)
	FROM (SELECT pgtrickle.stream_table_id(name) AS pgt_id OFFSET 0) s
		LEFT JOIN pgtrickle.pgt_dependencies d USING (pgt_id)
	WHERE d.source_relid IS NOT NULL ORDER BY 1;
END;

COMMENT ON FUNCTION pgtrickle.list_sources(text) IS
	'relations that the stream table reads, the columns it uses, and whether their changes are captured';


CREATE FUNCTION pgtrickle.walk_dependencies(OUT line integer, OUT node oid, OUT depth integer,
		OUT is_stream_table boolean, OUT shown_above boolean)
	RETURNS SETOF record LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'pgt_walk_dependencies';
COMMENT ON FUNCTION pgtrickle.walk_dependencies() IS
	'internal: the stream tables that no other reads, and what they read, depth first; what a stream table reads is not repeated';

CREATE FUNCTION pgtrickle.dependency_tree(OUT tree_line text, OUT node text, OUT node_type text,
		OUT depth integer, OUT status text, OUT refresh_mode text)
	RETURNS SETOF record LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT pg_catalog.repeat('    ', w.depth - 1)
			|| CASE WHEN w.depth > 0 THEN '└── ' ELSE '' END || w.node::regclass::text
			|| CASE WHEN NOT w.is_stream_table THEN ' [src]' WHEN w.shown_above THEN ' [above]' ELSE '' END,
		w.node::regclass::text, CASE WHEN w.is_stream_table THEN 'stream_table' ELSE 'source_table' END,
		w.depth, s.status, s.refresh_mode
	FROM pgtrickle.walk_dependencies() w
		LEFT JOIN pgtrickle.pgt_stream_tables s ON s.pgt_relid = w.node
	ORDER BY w.line;
END;
COMMENT ON FUNCTION pgtrickle.dependency_tree() IS
	'every stream table that no other reads, and below it what it reads; what was shown above is not repeated';

CREATE FUNCTION pgtrickle.explain_dag(format text DEFAULT 'mermaid') RETURNS text
	LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'pgt_explain_dag';
COMMENT ON FUNCTION pgtrickle.explain_dag(text) IS
	'graph of sources and stream tables for mermaid or dot; errors invalid_parameter_value';

CREATE FUNCTION pgtrickle.change_buffer_sizes(OUT stream_table text, OUT source_table text,
		OUT source_oid oid, OUT pending_rows bigint, OUT buffer_rows bigint,
		OUT buffer_bytes bigint)
	RETURNS SETOF record LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_change_buffer_sizes';
COMMENT ON FUNCTION pgtrickle.change_buffer_sizes() IS
	'per stream table and captured source: images not reflected yet, images and bytes in the buffer';

CREATE FUNCTION pgtrickle.worker_pool_status(OUT slot integer, OUT pid integer, OUT database text,
		OUT state text, OUT job_id bigint, OUT jobs_done bigint, OUT generation bigint,
		OUT state_since timestamptz)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgt_worker_pool_status';
COMMENT ON FUNCTION pgtrickle.worker_pool_status() IS
	'the workers of the scheduler in the whole server: STARTING, IDLE or RUNNING, and what';

CREATE FUNCTION pgtrickle.parallel_job_status(max_age_seconds integer DEFAULT 300,
		OUT job_id bigint, OUT unit_key text, OUT unit_kind text, OUT status text,
		OUT member_count integer, OUT attempt_no integer, OUT worker_pid integer,
		OUT enqueued_at timestamptz, OUT started_at timestamptz, OUT finished_at timestamptz,
		OUT duration_ms double precision, OUT error_message text)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgt_parallel_job_status';
COMMENT ON FUNCTION pgtrickle.parallel_job_status(integer) IS
	'refreshes of this database that are queued for workers, run in one, or ended not long ago; errors invalid_parameter_value';

CREATE FUNCTION pgtrickle.explain_st(name text, OUT property text, OUT value text)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgt_explain_st';
COMMENT ON FUNCTION pgtrickle.explain_st(text) IS
	'how a stream table is maintained: query, stages with technique, identity and size, sources';

CREATE FUNCTION pgtrickle.explain_delta(name text, "analyze" boolean DEFAULT false,
		OUT stage integer, OUT statement text, OUT sql text, OUT plan text,
		OUT estimated_rows bigint, OUT actual_rows bigint, OUT missing_index text)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgt_explain_delta';
COMMENT ON FUNCTION pgtrickle.explain_delta(text, boolean) IS
	'SQL and plan of the statements of a refresh; with analyze they run over the pending changes, writing nothing. Needs ownership';

CREATE FUNCTION pgtrickle.missing_indexes(name text DEFAULT NULL, OUT stream_table regclass,
		OUT stage integer, OUT statement text, OUT source_table regclass, OUT table_bytes bigint,
		OUT create_index text)
	RETURNS SETOF record LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_missing_indexes';
COMMENT ON FUNCTION pgtrickle.missing_indexes(text) IS
	'indexes without which refreshes after small changes read big tables whole, of one stream table or of all that the caller owns';

CREATE FUNCTION pgtrickle.explain_refresh_mode(name text, OUT configured_mode text,
		OUT effective_mode text, OUT reason text)
	RETURNS record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgt_explain_refresh_mode';
COMMENT ON FUNCTION pgtrickle.explain_refresh_mode(text) IS
	'configured mode, the mode that refreshes use, and why';

CREATE FUNCTION pgtrickle.validate_query(query text, OUT construct text, OUT incremental boolean,
		OUT technique text, OUT reason text, OUT "position" integer)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgt_validate_query';
COMMENT ON FUNCTION pgtrickle.validate_query(text) IS
	'how each construct of a query would be maintained, or why only FULL would do; creates nothing';

-- Of the server, not of stream tables: everybody may know, whatever else of it is closed to them.
CREATE FUNCTION pgtrickle.scheduler_state(OUT preloaded boolean, OUT running boolean)
	RETURNS record LANGUAGE sql STABLE SECURITY DEFINER
BEGIN ATOMIC
	SELECT pg_catalog.current_setting('shared_preload_libraries') ~ '(^|[ ,"/])pg_trickle($|[ ,"])',
		EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
			WHERE a.backend_type = 'pg_trickle coordinator'
				AND a.datname = pg_catalog.current_database());
END;
COMMENT ON FUNCTION pgtrickle.scheduler_state() IS
	'is the library preloaded, and does the coordinator of this database run';

CREATE FUNCTION pgtrickle.health_check(OUT check_name text, OUT severity text, OUT detail text,
		OUT hint text)
	RETURNS SETOF record LANGUAGE sql
BEGIN ATOMIC
	SELECT 'library_preloaded',
		CASE WHEN p.loaded THEN 'OK' ELSE 'ERROR' END,
		CASE WHEN p.loaded THEN 'pg_trickle is in shared_preload_libraries'
			ELSE 'stream tables are refreshed by hand only' END,
		CASE WHEN NOT p.loaded THEN 'Set shared_preload_libraries = ''pg_trickle'' and restart the server.' END
	FROM (SELECT preloaded AS loaded FROM pgtrickle.scheduler_state()) p
UNION ALL
	SELECT 'scheduler_running',
		CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'INFO' WHEN r.running AND r.enabled THEN 'OK' ELSE 'ERROR' END,
		CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'this server is a standby; its primary refreshes'
			WHEN NOT r.running THEN 'no coordinator runs in this database'
			WHEN NOT r.enabled THEN 'the coordinator of this database runs, but pg_trickle.enabled is off'
			ELSE 'the coordinator of this database runs' END,
		CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'After promotion the scheduler starts by itself.'
			WHEN NOT r.running THEN 'See the server log; pg_trickle.databases must allow it.'
			WHEN NOT r.enabled THEN 'Set pg_trickle.enabled = on and reload the configuration.' END
	FROM (SELECT running, pg_catalog.current_setting('pg_trickle.enabled', true)::boolean IS NOT FALSE AS enabled
		FROM pgtrickle.scheduler_state()) r
UNION ALL
	SELECT 'error_tables', CASE WHEN count(*) = 0 THEN 'OK' ELSE 'ERROR' END,
		coalesce(pg_catalog.string_agg(pg_catalog.format('%I.%I: %s', s.pgt_schema, s.pgt_name,
			coalesce(s.suspended_reason, s.last_error_message)), '; '
			ORDER BY s.pgt_schema, s.pgt_name), 'none'),
		CASE WHEN count(*) > 0 THEN 'See pgtrickle.get_refresh_history(name); pgtrickle.resume_stream_table(name) once the cause is mended.' END
	FROM pgtrickle.pgt_stream_tables s
	WHERE s.status = 'ERROR' OR (s.status = 'SUSPENDED' AND s.suspended_reason <> 'paused by user')
UNION ALL
	SELECT 'stale_tables', CASE WHEN count(*) = 0 THEN 'OK' ELSE 'WARNING' END,
		coalesce(pg_catalog.string_agg(pg_catalog.format('%I.%I', s.pgt_schema, s.pgt_name), ', '
			ORDER BY s.pgt_schema, s.pgt_name), 'none'),
		CASE WHEN count(*) > 0 THEN 'Their refreshes take longer than their schedules allow, or the scheduler does not run.' END
	FROM pgtrickle.pg_stat_stream_tables s WHERE s.stale AND s.status = 'ACTIVE'
UNION ALL
	SELECT 'rebuild_pending', CASE WHEN count(*) = 0 THEN 'OK' ELSE 'WARNING' END,
		coalesce(pg_catalog.string_agg(pg_catalog.format('%I.%I: %s', s.pgt_schema, s.pgt_name,
			s.rebuild_reason), '; ' ORDER BY s.pgt_schema, s.pgt_name), 'none'),
		CASE WHEN count(*) > 0 THEN 'The next refresh computes everything.' END
	FROM pgtrickle.pgt_stream_tables s WHERE s.rebuild_reason IS NOT NULL
UNION ALL
	SELECT 'full_only', CASE WHEN count(*) = 0 THEN 'OK' ELSE 'INFO' END,
		coalesce(pg_catalog.string_agg(pg_catalog.format('%I.%I: %s', s.pgt_schema, s.pgt_name,
			s.full_reason), '; ' ORDER BY s.pgt_schema, s.pgt_name), 'none'),
		CASE WHEN count(*) > 0 THEN 'docs/limitations.md tells what can be written differently.' END
	FROM pgtrickle.pgt_stream_tables s WHERE s.full_reason IS NOT NULL AND s.refresh_mode <> 'FULL'
UNION ALL
	SELECT 'publications', CASE WHEN count(*) = 0 THEN 'OK' ELSE 'WARNING' END,
		coalesce(pg_catalog.string_agg(pg_catalog.format('%I.%I is not in publication %I', s.pgt_schema, s.pgt_name,
			s.downstream_publication_name), '; ' ORDER BY s.pgt_schema, s.pgt_name), 'none'),
		CASE WHEN count(*) > 0 THEN 'ALTER PUBLICATION ... ADD TABLE, or pgtrickle.stream_table_to_publication(name) to make another one.' END
	FROM pgtrickle.pgt_stream_tables s
	WHERE s.downstream_publication_name IS NOT NULL
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication p
			JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
			WHERE p.pubname = s.downstream_publication_name AND r.prrelid = s.pgt_relid)
UNION ALL
	SELECT 'missing_indexes', CASE WHEN count(*) = 0 THEN 'OK' ELSE 'INFO' END,
		coalesce(pg_catalog.string_agg(DISTINCT pg_catalog.format('%s reads %s whole (%s)', i.stream_table, i.source_table,
			pg_catalog.pg_size_pretty(i.table_bytes)), '; '), 'none'),
		pg_catalog.string_agg(DISTINCT i.create_index || ';', ' ')
	FROM pgtrickle.missing_indexes() i
UNION ALL
	SELECT 'buffer_growth', CASE WHEN count(*) = 0 THEN 'OK' ELSE 'WARNING' END,
		coalesce(pg_catalog.string_agg(pg_catalog.format('%s: %s', b.source_table,
			pg_catalog.pg_size_pretty(b.buffer_bytes)), ', ' ORDER BY b.source_table), 'none'),
		CASE WHEN count(*) > 0 THEN 'A stream table that is paused, suspended or slow keeps its sources'' buffers: resume, refresh or drop it.' END
	FROM (SELECT DISTINCT c.source_table, c.buffer_bytes FROM pgtrickle.change_buffer_sizes() c) b
	WHERE b.buffer_bytes > nullif(pg_catalog.pg_size_bytes(
		coalesce(pg_catalog.current_setting('pg_trickle.buffer_alert_size', true), '1GB')), 0);
END;
COMMENT ON FUNCTION pgtrickle.health_check() IS
	'what works and what needs attention: check, severity (OK, INFO, WARNING, ERROR), detail, hint';
