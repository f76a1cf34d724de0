-- What users see of the catalog: only stream tables that they may read.

CREATE FUNCTION pgtrickle.can_see(relation regclass) RETURNS boolean
	LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT coalesce(pg_catalog.has_table_privilege(relation, 'SELECT'), false)
		OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
		OR coalesce((SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE')
			FROM pg_catalog.pg_class c WHERE c.oid = relation), false);
END;
COMMENT ON FUNCTION pgtrickle.can_see(regclass) IS
	'may the current user see the status of this stream table: SELECT on it, its owner''s rights, or pg_monitor';

CREATE FUNCTION pgtrickle.pending_changes(pgt_id bigint) RETURNS bigint
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgt_pending_changes';
COMMENT ON FUNCTION pgtrickle.pending_changes(bigint) IS
	'row images captured from the sources that the stream table does not reflect yet';

CREATE FUNCTION pgtrickle.is_behind(pgt_id bigint) RETURNS boolean
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgt_is_behind';
COMMENT ON FUNCTION pgtrickle.is_behind(bigint) IS
	'is a change pending that the stream table, or one that it reads, does not reflect yet';

CREATE FUNCTION pgtrickle.next_due(pgt_id bigint) RETURNS timestamptz
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgt_next_due';
COMMENT ON FUNCTION pgtrickle.next_due(bigint) IS
	'when the schedule wants the next refresh; NULL if calculated or suspended';

CREATE FUNCTION pgtrickle.stream_table_id(name text) RETURNS bigint
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgt_stream_table_id';
COMMENT ON FUNCTION pgtrickle.stream_table_id(text) IS
	'pgt_id of a stream table that the caller may see; errors undefined_table, insufficient_privilege';

CREATE FUNCTION pgtrickle.frontier_is_here(system_id bigint, database_id oid) RETURNS boolean
	LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pgt_frontier_is_here';
COMMENT ON FUNCTION pgtrickle.frontier_is_here(bigint, oid) IS
	'was a frontier made in this cluster and database, and not in one that was copied';

CREATE VIEW pgtrickle.pgt_stream_tables WITH (security_barrier) AS
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
COMMENT ON VIEW pgtrickle.pgt_stream_tables IS
	'definition and state of every stream table that the current user may read';

CREATE VIEW pgtrickle.pg_stat_stream_tables WITH (security_barrier) AS
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
COMMENT ON VIEW pgtrickle.pg_stat_stream_tables IS
	'one row per stream table: status, freshness, counts of refreshes and rows, last error';
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

GRANT SELECT ON pgtrickle.pgt_stream_tables, pgtrickle.pg_stat_stream_tables,
	pgtrickle.df_threshold_advice TO PUBLIC;

ALTER TABLE pgtrickle.pgt_refresh_history ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON pgtrickle.pgt_refresh_history FOR SELECT USING (pgt_id IN
	(SELECT s.pgt_id FROM pgtrickle.pgt_stream_tables s));
COMMENT ON POLICY visible ON pgtrickle.pgt_refresh_history IS 'refreshes of stream tables that the user may read';
GRANT SELECT ON pgtrickle.pgt_refresh_history TO PUBLIC;

ALTER TABLE pgtrickle.pgt_dependencies ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON pgtrickle.pgt_dependencies FOR SELECT USING (pgt_id IN
	(SELECT s.pgt_id FROM pgtrickle.pgt_stream_tables s));
COMMENT ON POLICY visible ON pgtrickle.pgt_dependencies IS 'dependencies of stream tables that the user may read';
GRANT SELECT ON pgtrickle.pgt_dependencies TO PUBLIC;

-- Monitoring tools see the rest as well.
GRANT SELECT ON pgtrickle.pgt_definitions, pgtrickle.pgt_frontiers, pgtrickle.pgt_slas,
	pgtrickle.pgt_sources TO pg_monitor;
