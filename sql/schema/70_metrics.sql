-- For monitoring systems: numbers with names and labels, and their text for Prometheus.

CREATE FUNCTION pgtrickle.diamond_groups(OUT group_id integer, OUT member_schema text,
		OUT member_name text, OUT is_convergence boolean, OUT diamond_consistency text,
		OUT schedule text)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgt_diamond_groups';
COMMENT ON FUNCTION pgtrickle.diamond_groups() IS
	'stream tables on paths that part and meet again, and which of them are refreshed together';

CREATE VIEW pgtrickle.metric_samples WITH (security_barrier) AS
	WITH st AS MATERIALIZED (
		SELECT s.*, pg_catalog.jsonb_build_object('schema', s.pgt_schema, 'name', s.pgt_name) AS labels
		FROM pgtrickle.pg_stat_stream_tables s
	), buffer AS MATERIALIZED (
		SELECT DISTINCT pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname) AS labels,
			b.buffer_bytes, b.buffer_rows
		FROM pgtrickle.change_buffer_sizes() b JOIN pg_catalog.pg_class c ON c.oid = b.source_oid
			JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	), worker AS MATERIALIZED (
		SELECT w.state, count(*) AS n FROM pgtrickle.worker_pool_status() w GROUP BY w.state
	), job AS MATERIALIZED (
		SELECT j.status, count(*) AS n FROM pgtrickle.parallel_job_status(0) j GROUP BY j.status
	), family (metric, type, help) AS (VALUES
		('pg_trickle_info', 'gauge', 'Version of the library; always 1.'),
		('pg_trickle_scheduler_running', 'gauge', 'Does the coordinator of this database run; none on a standby.'),
		('pg_trickle_workers', 'gauge', 'Workers of the scheduler in the whole server.'),
		('pg_trickle_workers_max', 'gauge', 'Setting pg_trickle.max_parallel_workers.'),
		('pg_trickle_jobs', 'gauge', 'Refreshes of this database that are queued for workers or run in one.'),
		('pg_trickle_stream_table_status', 'gauge', 'One for the status that the stream table has, zero for the others.'),
		('pg_trickle_populated', 'gauge', 'Was the stream table filled.'),
		('pg_trickle_stale', 'gauge', 'Is the stream table older than its schedule allows.'),
		('pg_trickle_staleness_seconds', 'gauge', 'Age of the last refresh if changes are pending, else 0.'),
		('pg_trickle_pending_rows', 'gauge', 'Captured row images that the stream table does not reflect yet.'),
		('pg_trickle_data_timestamp_seconds', 'gauge', 'When the snapshot was taken that the stream table shows.'),
		('pg_trickle_last_refresh_timestamp_seconds', 'gauge', 'End of the last refresh.'),
		('pg_trickle_last_refresh_duration_seconds', 'gauge', 'Duration of the last refresh.'),
		('pg_trickle_last_full_duration_seconds', 'gauge', 'Duration of the last refresh that computed everything.'),
		('pg_trickle_consecutive_errors', 'gauge', 'Refreshes that failed one after another.'),
		('pg_trickle_refreshes_total', 'counter', 'Refreshes that did something.'),
		('pg_trickle_refresh_failures_total', 'counter', 'Refreshes that failed.'),
		('pg_trickle_rows_in_total', 'counter', 'Captured row images that refreshes took over.'),
		('pg_trickle_rows_written_total', 'counter', 'Rows that refreshes wrote.'),
		('pg_trickle_sla_seconds', 'gauge', 'The SLA of the stream table.'),
		('pg_trickle_sla_breached', 'gauge', 'Is the SLA broken.'),
		('pg_trickle_sla_attainment', 'gauge', 'Share of the time in which the SLA was met.'),
		('pg_trickle_change_buffer_bytes', 'gauge', 'Size of the change buffer of a source.'),
		('pg_trickle_change_buffer_rows', 'gauge', 'Row images in the change buffer of a source.')
	), sample (metric, labels, value) AS (
		SELECT 'pg_trickle_info', pg_catalog.jsonb_build_object('version', pgtrickle.version()), 1::double precision
	UNION ALL
		SELECT 'pg_trickle_scheduler_running', '{}', r.running::int FROM pgtrickle.scheduler_state() r
		WHERE NOT pg_catalog.pg_is_in_recovery()
	UNION ALL
		SELECT 'pg_trickle_workers', pg_catalog.jsonb_build_object('state', v.state), coalesce(w.n, 0)
		FROM (VALUES ('STARTING'), ('IDLE'), ('RUNNING')) v (state) LEFT JOIN worker w ON w.state = v.state
	UNION ALL
		SELECT 'pg_trickle_workers_max', '{}', pg_catalog.current_setting('pg_trickle.max_parallel_workers', true)::double precision
	UNION ALL
		SELECT 'pg_trickle_jobs', pg_catalog.jsonb_build_object('status', v.status), coalesce(j.n, 0)
		FROM (VALUES ('QUEUED'), ('RUNNING')) v (status) LEFT JOIN job j ON j.status = v.status
	UNION ALL
		SELECT 'pg_trickle_stream_table_status', st.labels || pg_catalog.jsonb_build_object('status', v.status), (st.status = v.status)::int
		FROM st CROSS JOIN (VALUES ('INITIALIZING'), ('ACTIVE'), ('SUSPENDED'), ('ERROR')) v (status)
	UNION ALL
		SELECT v.metric, st.labels || v.labels, v.value
		FROM st CROSS JOIN LATERAL (VALUES
			('pg_trickle_populated', '{}'::jsonb, st.is_populated::int::double precision),
			('pg_trickle_stale', '{}', st.stale::int),
			('pg_trickle_staleness_seconds', '{}', extract(epoch FROM st.staleness)),
			('pg_trickle_pending_rows', '{}', st.pending_rows),
			('pg_trickle_data_timestamp_seconds', '{}', extract(epoch FROM st.data_timestamp)),
			('pg_trickle_last_refresh_timestamp_seconds', '{}', extract(epoch FROM st.last_refresh_at)),
			('pg_trickle_last_refresh_duration_seconds', '{}', st.last_duration_ms / 1000),
			('pg_trickle_last_full_duration_seconds', '{}', st.last_full_ms / 1000),
			('pg_trickle_consecutive_errors', '{}', st.consecutive_errors),
			('pg_trickle_refreshes_total', '{"action": "FULL"}', st.full_count),
			('pg_trickle_refreshes_total', '{"action": "DIFFERENTIAL"}', st.differential_count),
			('pg_trickle_refreshes_total', '{"action": "REINITIALIZE"}', st.reinitialize_count),
			('pg_trickle_refresh_failures_total', '{}', st.failed_refreshes),
			('pg_trickle_rows_in_total', '{}', st.total_rows_in),
			('pg_trickle_rows_written_total', '{"change": "inserted"}', st.total_rows_inserted),
			('pg_trickle_rows_written_total', '{"change": "updated"}', st.total_rows_updated),
			('pg_trickle_rows_written_total', '{"change": "deleted"}', st.total_rows_deleted)
		) v (metric, labels, value)
	UNION ALL
		SELECT v.metric, pg_catalog.jsonb_build_object('schema', a.pgt_schema, 'name', a.pgt_name) || v.labels, v.value
		FROM pgtrickle.sla_status a CROSS JOIN LATERAL (VALUES
			('pg_trickle_sla_seconds', '{}'::jsonb, extract(epoch FROM a.sla)::double precision),
			('pg_trickle_sla_breached', '{}', (a.sla_state = 'BREACHED')::int),
			('pg_trickle_sla_attainment', '{"window": "1h"}', a.attainment_1h),
			('pg_trickle_sla_attainment', '{"window": "24h"}', a.attainment_24h)
		) v (metric, labels, value)
	UNION ALL
		SELECT v.metric, buffer.labels, v.value
		FROM buffer CROSS JOIN LATERAL (VALUES
			('pg_trickle_change_buffer_bytes', buffer.buffer_bytes::double precision),
			('pg_trickle_change_buffer_rows', buffer.buffer_rows)
		) v (metric, value)
	)
	SELECT f.metric, f.type, f.help,
		pg_catalog.jsonb_build_object('database', pg_catalog.current_database()) || s.labels AS labels,
		s.value
	FROM family f JOIN sample s ON s.metric = f.metric
	WHERE s.value IS NOT NULL;
COMMENT ON VIEW pgtrickle.metric_samples IS
	'numbers for monitoring, one row per series: of the scheduler, and of what the current user may see';
GRANT SELECT ON pgtrickle.metric_samples TO PUBLIC;

CREATE FUNCTION pgtrickle.metrics() RETURNS text LANGUAGE sql
BEGIN ATOMIC
	SELECT coalesce(pg_catalog.string_agg(f.lines, '' ORDER BY f.metric), '')
	FROM (SELECT s.metric, pg_catalog.format(E'# HELP %s %s\n# TYPE %s %s\n', s.metric, s.help, s.metric, s.type)
			|| pg_catalog.string_agg(pg_catalog.format(E'%s{%s} %s\n', s.metric, l.labels,
				CASE s.value WHEN 'infinity' THEN '+Inf' WHEN '-infinity' THEN '-Inf' ELSE s.value::text END), '' ORDER BY l.labels) AS lines
		FROM pgtrickle.metric_samples s CROSS JOIN LATERAL (
			SELECT pg_catalog.string_agg(pg_catalog.format('%s="%s"', p.key,
				replace(replace(replace(p.value, E'\\', E'\\\\'), '"', E'\\"'), E'\n', E'\\n')), ',' ORDER BY p.key) AS labels
			FROM pg_catalog.jsonb_each_text(s.labels) p) l
		GROUP BY s.metric, s.help, s.type) f;
END;
COMMENT ON FUNCTION pgtrickle.metrics() IS
	'pgtrickle.metric_samples in the text format of Prometheus';
