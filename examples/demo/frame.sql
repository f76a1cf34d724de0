-- frame.sql: what the demo shows while the writer writes. :before is the state of
-- region_sales at the start, as jsonb.
\pset footer off
\pset border 1
\echo
SELECT r.region, to_char(r.customers, '999,990') AS customers, to_char(r.lines, '9,999,990') AS lines,
       to_char(r.revenue, '999,999,990.00') AS revenue,
       to_char(r.revenue - (:'before'::jsonb ->> r.region)::numeric, 'SG999,990.00') AS "since the start"
FROM shop.region_sales r ORDER BY r.region;

SELECT s.pgt_relid::regclass AS "stream table", h.refreshes, h.rows AS "rows written",
       to_char(h.last, '99,990.0') AS "last refresh, ms", to_char(h.median, '99,990.0') AS "median, ms", h.action AS "how"
FROM pgtrickle.pgt_stream_tables s
CROSS JOIN LATERAL (
  SELECT count(*) AS refreshes, coalesce(sum(rows_inserted + rows_updated + rows_deleted), 0) AS rows,
         (array_agg(duration_ms ORDER BY refresh_id DESC))[1] AS last,
         percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) AS median,
         (array_agg(action ORDER BY refresh_id DESC))[1] AS action
  FROM pgtrickle.pgt_refresh_history h
  WHERE h.pgt_id = s.pgt_id AND h.initiated_by = 'SCHEDULER' AND h.status = 'COMPLETED'
) h
ORDER BY s.pgt_id;
