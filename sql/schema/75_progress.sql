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
