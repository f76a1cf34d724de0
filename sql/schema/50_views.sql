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
		CASE WHEN here.it_is THEN f.snapshot END AS frontier,
		f.data_timestamp, f.last_refresh_at, f.last_refresh_id, f.rebuild_reason,
		coalesce(f.consecutive_errors, 0) AS consecutive_errors,
		CASE WHEN d.paused THEN 'paused by user' ELSE f.suspended_reason END AS suspended_reason,
		f.last_sqlstate, f.last_error_message, f.last_error_at, f.next_retry_at,
		d.diamond_consistency, d.identity, d.created_at, d.updated_at
	FROM pgtrickle.pgt_definitions d
		JOIN pg_catalog.pg_class c ON c.oid = d.pgt_relid
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		LEFT JOIN pgtrickle.pgt_frontiers f USING (pgt_id)
		CROSS JOIN LATERAL (SELECT f.snapshot IS NOT NULL
			AND pgtrickle.frontier_is_here(f.system_id, f.database_id) AS it_is) here
	WHERE pgtrickle.can_see(d.pgt_relid);
COMMENT ON VIEW pgtrickle.pgt_stream_tables IS
	'definition and state of every stream table that the current user may read';

CREATE VIEW pgtrickle.pg_stat_stream_tables WITH (security_barrier) AS
	SELECT s.pgt_id, s.pgt_schema, s.pgt_name, s.status, s.refresh_mode, s.effective_mode,
		s.is_populated, coalesce(s.schedule, 'calculated') AS schedule, s.data_timestamp,
		CASE WHEN p.pending = 0 THEN interval '0'
			ELSE pg_catalog.clock_timestamp() - s.data_timestamp END AS staleness,
		p.pending > 0 AND due.at IS NOT NULL
			AND due.at < pg_catalog.clock_timestamp() - interval '1 second' AS stale,
		p.pending AS pending_rows, s.last_refresh_at, due.at AS next_due,
		f.full_count + f.differential_count + f.reinitialize_count AS total_refreshes,
		f.full_count, f.differential_count, f.reinitialize_count,
		f.failed_count AS failed_refreshes, f.rows_in AS total_rows_in,
		f.rows_inserted AS total_rows_inserted, f.rows_updated AS total_rows_updated,
		f.rows_deleted AS total_rows_deleted, f.last_duration_ms, f.last_full_ms,
		s.consecutive_errors, s.last_sqlstate, s.last_error_message, s.last_error_at,
		s.next_retry_at, s.suspended_reason
	FROM pgtrickle.pgt_stream_tables s
		LEFT JOIN pgtrickle.pgt_frontiers f USING (pgt_id)
		CROSS JOIN LATERAL (SELECT pgtrickle.pending_changes(s.pgt_id) AS pending) p
		CROSS JOIN LATERAL (SELECT pgtrickle.next_due(s.pgt_id) AS at) due;
COMMENT ON VIEW pgtrickle.pg_stat_stream_tables IS
	'one row per stream table: status, freshness, counts of refreshes and rows, last error';
COMMENT ON COLUMN pgtrickle.pg_stat_stream_tables.staleness IS
	'0 if nothing is pending, else the age of the last refresh';

GRANT SELECT ON pgtrickle.pgt_stream_tables, pgtrickle.pg_stat_stream_tables TO PUBLIC;

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
GRANT SELECT ON pgtrickle.pgt_definitions, pgtrickle.pgt_frontiers, pgtrickle.pgt_sources
	TO pg_monitor;
