-- SLAs: are they met, and is there room for them?

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
