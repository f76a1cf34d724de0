\echo Use "ALTER EXTENSION pg_trickle UPDATE TO '0.22.0'" to load this file. \quit

-- What stands here has to make of 0.21.0 exactly what sql/schema makes anew: t/213_upgrade.pl compares.

-- 10_catalog.sql

ALTER TABLE pgtrickle.pgt_definitions
	ADD COLUMN freshness_deadline_ms bigint CHECK (freshness_deadline_ms > 0),
	ADD COLUMN refresh_tier text CHECK (refresh_tier IN ('hot', 'warm', 'cold', 'frozen')),
	ADD COLUMN made_by text,
	ADD COLUMN downstream_publication_name text;
COMMENT ON COLUMN pgtrickle.pgt_definitions.freshness_deadline_ms IS
	'the SLA: how old a change may be that the stream table does not show yet; NULL: none';
COMMENT ON COLUMN pgtrickle.pgt_definitions.refresh_tier IS 'the tier that a user has set; NULL: the scheduler assigns one if there is an SLA';
COMMENT ON COLUMN pgtrickle.pgt_definitions.made_by IS
	'the version that made stages and captures; another one makes them anew, as after a dump was restored';
COMMENT ON COLUMN pgtrickle.pgt_definitions.downstream_publication_name IS
	'the publication that pgtrickle.stream_table_to_publication has made';

ALTER TABLE pgtrickle.pgt_frontiers
	ADD COLUMN cost_model real[],
	ADD COLUMN base_snapshot pg_snapshot,
	ADD COLUMN base_xid xid8,
	ADD COLUMN base_cmd bigint;
COMMENT ON COLUMN pgtrickle.pgt_frontiers.snapshot IS 'changes of the sources are taken over up to here';
COMMENT ON COLUMN pgtrickle.pgt_frontiers.base_snapshot IS
	'of the tables at the ends of all paths, what the rows show; NULL if they show some of these tables as of one time, some as of another';
UPDATE pgtrickle.pgt_frontiers f SET base_snapshot = snapshot, base_xid = own_xid, base_cmd = own_cmd
	WHERE NOT EXISTS (SELECT FROM pgtrickle.pgt_dependencies d
		WHERE d.pgt_id = f.pgt_id AND d.source_type = 'STREAM_TABLE');
COMMENT ON COLUMN pgtrickle.pgt_frontiers.cost_model IS 'what refreshes took, by number of pending rows; forecasts are made from it';

ALTER TABLE pgtrickle.pgt_refresh_history
	ADD COLUMN forecast_ms double precision,
	ADD COLUMN forecast_full_ms double precision;
COMMENT ON COLUMN pgtrickle.pgt_refresh_history.forecast_ms IS
	'what a differential refresh was expected to take when the mode was chosen; NULL if nothing was known, or there was no choice';
COMMENT ON COLUMN pgtrickle.pgt_refresh_history.forecast_full_ms IS 'the same of a full one';

CREATE TABLE pgtrickle.pgt_slas (
	pgt_id bigint PRIMARY KEY, -- of pgt_definitions
	tier text NOT NULL CHECK (tier IN ('hot', 'warm', 'cold', 'frozen')),
	tier_reason text NOT NULL,
	tier_since timestamptz NOT NULL,
	breached boolean NOT NULL DEFAULT false,
	stats double precision[],
	record double precision[],
	written_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE pgtrickle.pgt_slas IS
	'what the scheduler has found out of stream tables with an SLA; not dumped';
COMMENT ON COLUMN pgtrickle.pgt_slas.tier IS 'as assigned; counts unless a user has set one';
COMMENT ON COLUMN pgtrickle.pgt_slas.breached IS 'is the SLA broken now';
COMMENT ON COLUMN pgtrickle.pgt_slas.stats IS 'gaps, waits and durations of the last refreshes';
COMMENT ON COLUMN pgtrickle.pgt_slas.record IS 'for how much of the last day the SLA was met';

GRANT SELECT ON pgtrickle.pgt_slas TO pg_monitor;

-- 30_lifecycle.sql

DROP FUNCTION pgtrickle.create_stream_table;
DROP FUNCTION pgtrickle.create_stream_table_if_not_exists;
DROP FUNCTION pgtrickle.create_or_replace_stream_table;
DROP FUNCTION pgtrickle.alter_stream_table;
CREATE FUNCTION pgtrickle.create_stream_table(name text, query text,
	schedule text DEFAULT 'calculated', refresh_mode text DEFAULT 'AUTO',
	initialize boolean DEFAULT true, diamond_consistency text DEFAULT NULL,
	sla interval DEFAULT NULL, tier text DEFAULT NULL, identity text DEFAULT 'full')
	RETURNS regclass
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_create_stream_table';
COMMENT ON FUNCTION pgtrickle.create_stream_table IS
	'makes a table that holds the result of a query and is kept up to date';

CREATE FUNCTION pgtrickle.create_stream_table_if_not_exists(name text, query text,
	schedule text DEFAULT 'calculated', refresh_mode text DEFAULT 'AUTO',
	initialize boolean DEFAULT true, diamond_consistency text DEFAULT NULL,
	sla interval DEFAULT NULL, tier text DEFAULT NULL, identity text DEFAULT 'full')
	RETURNS regclass
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_create_stream_table_if_not_exists';
COMMENT ON FUNCTION pgtrickle.create_stream_table_if_not_exists IS
	'the same; leaves a stream table that has the name already as it is';

CREATE FUNCTION pgtrickle.create_or_replace_stream_table(name text, query text,
	schedule text DEFAULT 'calculated', refresh_mode text DEFAULT 'AUTO',
	initialize boolean DEFAULT true, diamond_consistency text DEFAULT NULL,
	sla interval DEFAULT NULL, tier text DEFAULT NULL, identity text DEFAULT 'full')
	RETURNS regclass
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_create_or_replace_stream_table';
COMMENT ON FUNCTION pgtrickle.create_or_replace_stream_table IS
	'the same; alters a stream table that has the name already, if anything differs';

CREATE FUNCTION pgtrickle.alter_stream_table(name text, query text DEFAULT NULL,
	schedule text DEFAULT NULL, refresh_mode text DEFAULT NULL, status text DEFAULT NULL,
	diamond_consistency text DEFAULT NULL, sla interval DEFAULT NULL, tier text DEFAULT NULL,
	identity text DEFAULT NULL, cascade boolean DEFAULT false) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_alter_stream_table';
COMMENT ON FUNCTION pgtrickle.alter_stream_table IS
	'changes what is given; a new query keeps the table, or with cascade makes it again';

-- 50_views.sql

CREATE FUNCTION pgtrickle.is_behind(pgt_id bigint) RETURNS boolean
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgt_is_behind';
COMMENT ON FUNCTION pgtrickle.is_behind(bigint) IS
	'is a change pending that the stream table, or one that it reads, does not reflect yet';

CREATE OR REPLACE VIEW pgtrickle.pgt_stream_tables WITH (security_barrier) AS
	SELECT d.pgt_id, d.pgt_relid, n.nspname AS pgt_schema, c.relname AS pgt_name,
		pg_catalog.pg_get_viewdef(d.view_relid) AS defining_query, d.original_query,
		d.schedule, d.refresh_mode, f.effective_mode, d.full_reason,
		CASE WHEN d.paused OR f.suspended_reason IS NOT NULL THEN 'SUSPENDED'
			WHEN f.last_sqlstate IS NOT NULL THEN 'ERROR'
			WHEN here.it_is IS NOT TRUE THEN 'INITIALIZING'
			ELSE 'ACTIVE' END AS status,
		coalesce(here.it_is, false) AS is_populated,
		CASE WHEN here.it_is THEN f.base_snapshot END AS frontier,
		f.data_timestamp, f.last_refresh_at, f.last_refresh_id, f.rebuild_reason,
		coalesce(f.consecutive_errors, 0) AS consecutive_errors,
		CASE WHEN d.paused THEN 'paused by user' ELSE f.suspended_reason END AS suspended_reason,
		f.last_sqlstate, f.last_error_message, f.last_error_at, f.next_retry_at,
		d.diamond_consistency, d.identity, d.created_at, d.updated_at,
		d.freshness_deadline_ms, coalesce(d.refresh_tier, a.tier) AS refresh_tier,
		CASE WHEN d.refresh_tier IS NOT NULL THEN 'set by user' ELSE a.tier_reason END AS tier_reason,
		d.downstream_publication_name
	FROM pgtrickle.pgt_definitions d
		JOIN pg_catalog.pg_class c ON c.oid = d.pgt_relid
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		LEFT JOIN pgtrickle.pgt_frontiers f USING (pgt_id)
		LEFT JOIN pgtrickle.pgt_slas a ON a.pgt_id = d.pgt_id AND d.freshness_deadline_ms IS NOT NULL
		CROSS JOIN LATERAL (SELECT f.snapshot IS NOT NULL
			AND pgtrickle.frontier_is_here(f.system_id, f.database_id) AS it_is) here
	WHERE pgtrickle.can_see(d.pgt_relid);

CREATE OR REPLACE VIEW pgtrickle.pg_stat_stream_tables WITH (security_barrier) AS
	SELECT s.pgt_id, s.pgt_schema, s.pgt_name, s.status, s.refresh_mode, s.effective_mode,
		s.is_populated, coalesce(s.schedule, 'calculated') AS schedule, s.data_timestamp,
		CASE WHEN pgtrickle.is_behind(s.pgt_id) THEN pg_catalog.clock_timestamp() - s.data_timestamp
			ELSE interval '0' END AS staleness,
		p.pending > 0 AND due.at IS NOT NULL
			AND due.at < pg_catalog.clock_timestamp() - interval '1 second' AS stale,
		p.pending AS pending_rows, s.last_refresh_at, due.at AS next_due,
		f.full_count + f.differential_count + f.reinitialize_count AS total_refreshes,
		f.full_count, f.differential_count, f.reinitialize_count,
		f.failed_count AS failed_refreshes, f.rows_in AS total_rows_in,
		f.rows_inserted AS total_rows_inserted, f.rows_updated AS total_rows_updated,
		f.rows_deleted AS total_rows_deleted, f.last_duration_ms, f.last_full_ms,
		s.consecutive_errors, s.last_sqlstate, s.last_error_message, s.last_error_at,
		s.next_retry_at, s.suspended_reason,
		s.freshness_deadline_ms * interval '1 ms' AS sla, s.refresh_tier AS tier,
		(SELECT p.pubname FROM pg_catalog.pg_publication p
				JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
			WHERE p.pubname = s.downstream_publication_name AND r.prrelid = s.pgt_relid) AS downstream_publication
	FROM pgtrickle.pgt_stream_tables s
		LEFT JOIN pgtrickle.pgt_frontiers f USING (pgt_id)
		CROSS JOIN LATERAL (SELECT pgtrickle.pending_changes(s.pgt_id) AS pending) p
		CROSS JOIN LATERAL (SELECT pgtrickle.next_due(s.pgt_id) AS at) due;
COMMENT ON COLUMN pgtrickle.pg_stat_stream_tables.staleness IS
	'age of the data if a change of it, or of what it reads, is pending; else 0';
COMMENT ON COLUMN pgtrickle.pg_stat_stream_tables.downstream_publication IS
	'NULL also if its publication was dropped by hand, or the table taken out of it';

CREATE FUNCTION pgtrickle.forecast(cost_model real[], pending_rows bigint,
	source_rows double precision, OUT forecast_ms double precision,
	OUT forecast_full_ms double precision, OUT choice text)
	LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pgt_forecast_fn';
COMMENT ON FUNCTION pgtrickle.forecast(real[], bigint, double precision) IS
	'what a refresh of so many pending rows would take by pgt_frontiers.cost_model, differential and full, and which AUTO would choose; NULL if too little is known';

-- The line through the refreshes of the window is for people; AUTO decides by the model.
CREATE VIEW pgtrickle.df_threshold_advice WITH (security_barrier) AS
	SELECT s.pgt_id, s.pgt_schema, s.pgt_name,
		setting.threshold AS current_threshold,
		CASE WHEN line.slope > 0 AND size.source_rows > 0 AND next.forecast_full_ms > 0 THEN
			round(least(greatest((next.forecast_full_ms - line.intercept) / line.slope
				/ size.source_rows, 0.001), 1)::numeric, 3)::double precision END AS recommended_threshold,
		line.slope AS slope_ms_per_row, line.intercept AS intercept_ms, line.samples, line.r2,
		pending.n AS pending_rows, next.forecast_ms, next.forecast_full_ms, f.last_full_ms,
		CASE WHEN s.refresh_mode <> 'AUTO' THEN s.refresh_mode
			WHEN s.full_reason IS NOT NULL THEN 'FULL'
			ELSE coalesce(pg_catalog.split_part(next.choice, ' ', 1), 'DIFFERENTIAL') END AS decision,
		CASE WHEN s.refresh_mode <> 'AUTO' THEN 'the mode is ' || s.refresh_mode || ', nothing is chosen'
			WHEN s.full_reason IS NOT NULL THEN s.full_reason
			WHEN setting.min_samples = 0 THEN 'forecasts are off: the share of changed rows decides'
			WHEN next.forecast_full_ms IS NULL THEN 'no full refresh was measured yet: the share of changed rows decides'
			WHEN next.choice IS NULL THEN 'fewer than pg_trickle.prediction_min_samples differential refreshes, or none of a like size: the share of changed rows decides'
			WHEN next.choice = 'FULL' THEN 'predicted_cost_exceeds_full'
			WHEN next.choice LIKE '% PROBE' THEN 'forecast_probe'
			ELSE 'a differential refresh is not expected to be slower, or is short anyhow' END AS reason,
		CASE WHEN next.forecast_ms IS NULL THEN 'LOW'
			WHEN line.samples >= 20 THEN 'HIGH' ELSE 'MEDIUM' END AS confidence
	FROM pgtrickle.pgt_stream_tables s
		LEFT JOIN pgtrickle.pgt_frontiers f USING (pgt_id)
		CROSS JOIN LATERAL (SELECT
			pg_catalog.current_setting('pg_trickle.differential_max_change_ratio')::double precision AS threshold,
			pg_catalog.current_setting('pg_trickle.prediction_min_samples')::int AS min_samples,
			pg_catalog.current_setting('pg_trickle.prediction_window')::interval AS span) setting
		CROSS JOIN LATERAL (SELECT pgtrickle.pending_changes(s.pgt_id) AS n) pending
		CROSS JOIN LATERAL (SELECT sum(greatest(c.reltuples, 0)) AS source_rows
			FROM pgtrickle.pgt_dependencies d JOIN pg_catalog.pg_class c ON c.oid = d.source_relid
			WHERE d.pgt_id = s.pgt_id) size
		CROSS JOIN LATERAL (SELECT CASE WHEN pg_catalog.regr_slope(h.duration_ms, h.rows_in) < 0 THEN 0
					ELSE pg_catalog.regr_slope(h.duration_ms, h.rows_in) END AS slope,
				CASE WHEN pg_catalog.regr_slope(h.duration_ms, h.rows_in) >= 0
					THEN pg_catalog.regr_intercept(h.duration_ms, h.rows_in)
					ELSE avg(h.duration_ms) FILTER (WHERE h.rows_in IS NOT NULL) END AS intercept,
				pg_catalog.regr_r2(h.duration_ms, h.rows_in) AS r2,
				pg_catalog.regr_count(h.duration_ms, h.rows_in) AS samples
			FROM pgtrickle.pgt_refresh_history h
			WHERE h.pgt_id = s.pgt_id AND h.action = 'DIFFERENTIAL' AND h.status = 'COMPLETED'
				AND h.start_time > pg_catalog.clock_timestamp() - setting.span) line
		CROSS JOIN LATERAL pgtrickle.forecast(f.cost_model, pending.n, size.source_rows) next;
COMMENT ON VIEW pgtrickle.df_threshold_advice IS
	'what AUTO would choose now for each stream table, by which forecasts, and the change ratio from which on FULL pays';

GRANT SELECT ON pgtrickle.df_threshold_advice TO PUBLIC;

-- 60_seeing.sql

CREATE FUNCTION pgtrickle.walk_dependencies(OUT line integer, OUT node oid, OUT depth integer,
		OUT is_stream_table boolean, OUT shown_above boolean)
	RETURNS SETOF record LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'pgt_walk_dependencies';
COMMENT ON FUNCTION pgtrickle.walk_dependencies() IS
	'internal: the stream tables that no other reads, and what they read, depth first; what a stream table reads is not repeated';

CREATE OR REPLACE FUNCTION pgtrickle.dependency_tree(OUT tree_line text, OUT node text, OUT node_type text,
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

CREATE OR REPLACE FUNCTION pgtrickle.health_check(OUT check_name text, OUT severity text, OUT detail text,
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

-- 65_sla.sql

CREATE FUNCTION pgtrickle.sla_attainment(record double precision[], at_time timestamptz,
		OUT attainment_1h double precision, OUT attainment_24h double precision,
		OUT refreshes integer, OUT breaches integer,
		OUT p50 interval, OUT p95 interval, OUT p99 interval)
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pgt_sla_attainment';
COMMENT ON FUNCTION pgtrickle.sla_attainment(double precision[], timestamptz) IS
	'what a record of pgtrickle.pgt_slas says at a time: share of the time in which the SLA was met, staleness when refreshes committed; NULL where nothing is known';

CREATE VIEW pgtrickle.sla_status WITH (security_barrier) AS
	SELECT s.pgt_id, s.pgt_schema, s.pgt_name, s.freshness_deadline_ms * interval '1 ms' AS sla,
		CASE WHEN pgtrickle.is_behind(s.pgt_id) THEN pg_catalog.clock_timestamp() - s.data_timestamp
			ELSE interval '0' END AS staleness,
		CASE WHEN s.status = 'SUSPENDED' OR s.refresh_tier = 'frozen' THEN 'NOT REFRESHED'
			WHEN a.breached THEN 'BREACHED'
			WHEN a.pgt_id IS NULL THEN 'UNKNOWN' ELSE 'MET' END AS sla_state,
		m.p50, m.p95, m.p99, m.attainment_1h, m.attainment_24h, m.refreshes, m.breaches,
		s.refresh_tier AS tier, s.tier_reason, a.tier_since
	FROM pgtrickle.pgt_stream_tables s
		LEFT JOIN pgtrickle.pgt_slas a USING (pgt_id)
		LEFT JOIN LATERAL pgtrickle.sla_attainment(a.record, pg_catalog.clock_timestamp()) m ON true
	WHERE s.freshness_deadline_ms IS NOT NULL;
COMMENT ON VIEW pgtrickle.sla_status IS
	'one row per stream table with an SLA that the current user may see: is it met now, for how much of the last hour and day, and by which tier';
COMMENT ON COLUMN pgtrickle.sla_status.staleness IS 'age of the data if a change of it, or of what it reads, is pending; else 0';
COMMENT ON COLUMN pgtrickle.sla_status.attainment_1h IS 'share of the last hour in which no change was older than the SLA';
COMMENT ON COLUMN pgtrickle.sla_status.p95 IS 'of the age of the oldest change, when refreshes of the last hour committed';
GRANT SELECT ON pgtrickle.sla_status TO PUBLIC;

CREATE FUNCTION pgtrickle.sla_utilisation(sla interval, duration_ms double precision)
	RETURNS double precision
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pgt_sla_utilisation_fn';
COMMENT ON FUNCTION pgtrickle.sla_utilisation(interval, double precision) IS
	'how many workers a stream table keeps busy whose sources change all the time, if refreshes take that long';

CREATE VIEW pgtrickle.capacity AS
	SELECT greatest(setting.workers, 1) AS workers, pool.running AS running_workers,
		job.queued AS queued_jobs, job.wait AS oldest_wait,
		least(spent.ms / (300000.0 * greatest(setting.workers, 1)), 1)::double precision AS utilisation,
		sla.n AS slas, coalesce(sla.utilisation / 0.8, 0) AS sla_workers_needed,
		coalesce(sla.utilisation / 0.8 <= greatest(setting.workers, 1), true) AS is_enough
	FROM (SELECT coalesce(pg_catalog.current_setting('pg_trickle.max_parallel_workers', true), '0')::int AS workers) setting
		CROSS JOIN (SELECT count(*) FILTER (WHERE w.state = 'RUNNING') AS running
			FROM pgtrickle.worker_pool_status() w) pool
		CROSS JOIN (SELECT count(*) AS queued, pg_catalog.clock_timestamp() - min(j.enqueued_at) AS wait
			FROM pgtrickle.parallel_job_status(0) j WHERE j.status = 'QUEUED') job
		CROSS JOIN (SELECT coalesce(sum(h.duration_ms), 0) AS ms FROM pgtrickle.pgt_refresh_history h
			WHERE h.initiated_by = 'SCHEDULER'
				AND h.start_time > pg_catalog.clock_timestamp() - interval '5 minutes') spent
		CROSS JOIN (SELECT count(*) AS n,
				sum(pgtrickle.sla_utilisation(d.freshness_deadline_ms * interval '1 ms', coalesce(f.last_duration_ms, 0))) AS utilisation
			FROM pgtrickle.pgt_definitions d LEFT JOIN pgtrickle.pgt_frontiers f USING (pgt_id)
			WHERE d.freshness_deadline_ms IS NOT NULL AND NOT d.paused) sla;
COMMENT ON VIEW pgtrickle.capacity IS
	'one row: workers there are, what waits for them, how busy they were in the last five minutes, and how many the SLAs of this database need';
COMMENT ON COLUMN pgtrickle.capacity.workers IS 'pg_trickle.max_parallel_workers, or 1: the scheduler itself';
COMMENT ON COLUMN pgtrickle.capacity.utilisation IS 'share of the time of all workers that refreshes took';
GRANT SELECT ON pgtrickle.capacity TO pg_monitor;

-- 70_metrics.sql

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

-- 75_progress.sql

-- Of refreshes that compute everything. A stream table that is being created is in nobody else's catalog yet.
CREATE FUNCTION pgtrickle.refresh_progress(OUT pid integer, OUT pgt_id bigint, OUT pgt_schema text,
		OUT pgt_name text, OUT initiated_by text, OUT phase text, OUT statement integer,
		OUT rows_computed bigint, OUT rows_expected bigint, OUT started_at timestamptz,
		OUT phase_since timestamptz)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgt_refresh_progress';
COMMENT ON FUNCTION pgtrickle.refresh_progress() IS
	'refreshes of this database that compute everything right now, of stream tables that the current user may see';

CREATE VIEW pgtrickle.progress AS
	SELECT p.pid, p.pgt_id, p.pgt_schema, p.pgt_name, p.initiated_by, p.phase, p.statement,
		p.rows_computed, p.rows_expected,
		CASE WHEN p.phase = 'writing rows' THEN 100
			WHEN p.rows_expected > 0 THEN least(round(100.0 * p.rows_computed / p.rows_expected, 1), 99.9)
			END AS percent_computed,
		p.started_at, p.phase_since
	FROM pgtrickle.refresh_progress() p;
COMMENT ON VIEW pgtrickle.progress IS
	'how far refreshes are that compute everything: initial fills, FULL, REINITIALIZE';
COMMENT ON COLUMN pgtrickle.progress.rows_expected IS 'by the planner''s estimate, for this statement';
GRANT SELECT ON pgtrickle.progress TO PUBLIC;

-- 80_downstream.sql

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

-- The stream tables that are there: this version analyses queries otherwise.

CREATE FUNCTION pgtrickle.redefine_all(reason text) RETURNS integer
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgt_redefine_all';
SELECT pgtrickle.redefine_all('the extension was upgraded to 0.22.0');
DROP FUNCTION pgtrickle.redefine_all(text);
