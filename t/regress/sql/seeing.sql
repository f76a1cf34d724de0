-- Looking at stream tables: views and functions of the SQL reference, with what never changes.
CREATE SCHEMA see;
SET search_path = see;
SET client_min_messages = error;
CREATE TABLE items (id int PRIMARY KEY, kind text, price numeric);
INSERT INTO items SELECT i, 'kind ' || i % 3, i FROM generate_series(1, 30) i;
CREATE VIEW cheap AS SELECT * FROM items WHERE price < 20;
SELECT pgtrickle.create_stream_table('kinds', 'SELECT kind, count(*) AS n, sum(price) AS total FROM items GROUP BY kind', '1h');
SELECT pgtrickle.create_stream_table('big', 'SELECT kind, total FROM kinds WHERE total > 100');
SELECT pgtrickle.create_stream_table('ranked', 'SELECT id, to_char(price, ''9G999'') AS r FROM cheap');

-- Every column of the views has a meaning for some stream table.
SELECT pgt_schema, pgt_name, schedule, refresh_mode, status, is_populated, full_reason,
	diamond_consistency, identity FROM pgtrickle.pgt_stream_tables ORDER BY pgt_id;
SELECT replace(defining_query, 'kinds.', '') AS defining_query FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'big'; -- 16 leaves it out
SELECT pgt_name, status, effective_mode, staleness, stale, pending_rows, next_due > last_refresh_at AS due,
	total_refreshes, full_count, differential_count, total_rows_inserted, last_duration_ms > 0 AS timed
	FROM pgtrickle.pg_stat_stream_tables ORDER BY pgt_id;
INSERT INTO items VALUES (31, 'kind 0', 1000);
SELECT pgt_name, staleness > '0' AS behind, stale, pending_rows FROM pgtrickle.pg_stat_stream_tables ORDER BY pgt_id;
SELECT pgtrickle.refresh_stream_table('kinds');
SELECT pgtrickle.refresh_stream_table('kinds');
SELECT pgt_name, staleness > '0' AS behind, stale, pending_rows FROM pgtrickle.pg_stat_stream_tables ORDER BY pgt_id;
SELECT pgtrickle.refresh_stream_table('big');
SELECT name, status, refresh_mode, is_populated, consecutive_errors, schedule FROM pgtrickle.pgt_status() ORDER BY 1;
SELECT action, refresh_reason, status, rows_in, rows_inserted, rows_updated, rows_deleted, initiated_by,
	end_time > start_time AS timed, duration_ms > 0 AS measured
	FROM pgtrickle.get_refresh_history('kinds');
SELECT stream_table, action, rows_inserted, rows_updated FROM pgtrickle.refresh_timeline(2);
SELECT DISTINCT jsonb_object_keys(phases) FROM pgtrickle.pgt_refresh_history
	WHERE pgt_id = pgtrickle.stream_table_id('kinds') ORDER BY 1;
SELECT * FROM pgtrickle.list_sources('ranked') AS s (source_table, source_oid, source_type, columns_used, captured)
	\gdesc
SELECT source_table, source_type, columns_used, captured FROM pgtrickle.list_sources('ranked');
SELECT stream_table, source_table, pending_rows, buffer_bytes > 0 AS some FROM pgtrickle.change_buffer_sizes() ORDER BY 1, 2;
SELECT * FROM pgtrickle.dependency_tree();
SELECT regexp_replace(pgtrickle.explain_dag(), 't\d+', 'tN', 'g');
SELECT regexp_replace(pgtrickle.explain_dag('DOT'), 't\d+', 'tN', 'g');
SELECT * FROM pgtrickle.explain_refresh_mode('kinds');
SELECT * FROM pgtrickle.explain_refresh_mode('ranked');
SELECT property, regexp_replace(value, 'state_\d+', 'state_N') AS value FROM pgtrickle.explain_st('kinds') WHERE property <> 'original_query';
SELECT stage, statement FROM pgtrickle.explain_delta('kinds');
SELECT stage, statement, plan LIKE '%actual%' AS analyzed FROM pgtrickle.explain_delta('big', true);
SELECT count(*) FROM big;
SELECT * FROM pgtrickle.validate_query('SELECT kind, sum(price) FROM items GROUP BY kind');
SELECT * FROM pgtrickle.validate_query('SELECT DISTINCT ON (kind) kind, price FROM items ORDER BY kind, price');
SELECT check_name, severity FROM pgtrickle.health_check() WHERE check_name <> 'buffer_growth';
SELECT pgtrickle.version() = extversion FROM pg_extension WHERE extname = 'pg_trickle';

-- Failures are seen too: status, history by the scheduler, and what is to be rebuilt.
CREATE OR REPLACE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
SELECT pgtrickle.create_stream_table('fs', 'SELECT f(id) AS id FROM items');
CREATE OR REPLACE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1';
SELECT pgt_name, rebuild_reason FROM pgtrickle.pgt_stream_tables WHERE rebuild_reason IS NOT NULL;
SELECT check_name, severity, detail FROM pgtrickle.health_check() WHERE check_name = 'rebuild_pending';

-- Diamonds on diamonds: 2^12 ways down, each stream table's sources shown once.
SELECT pgtrickle.create_stream_table('l0', 'SELECT id FROM items', '1h');
SELECT pgtrickle.create_stream_table('r0', 'SELECT id FROM items', '1h');
DO $$
BEGIN
	FOR i IN 1..12 LOOP
		PERFORM pgtrickle.create_stream_table(side || i, pg_catalog.format('SELECT id FROM l%s UNION ALL SELECT id FROM r%s', i - 1, i - 1), '1h', initialize => false)
		FROM unnest(ARRAY['l', 'r']) side;
	END LOOP;
END $$;
SELECT count(*), count(*) FILTER (WHERE tree_line LIKE '%[above]') AS above FROM pgtrickle.dependency_tree() WHERE node ~ '^[lr]\d';
SELECT tree_line FROM pgtrickle.dependency_tree() WHERE node ~ '^[lr](12|11|10)$';
-- The whole way is asked for what is pending.
DELETE FROM items WHERE id = 30;
SELECT pgtrickle.is_behind(pgtrickle.stream_table_id('l12'));

-- Everything of ours is described.
SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'pgtrickle'::regnamespace AND relkind IN ('r', 'v')
	AND obj_description(c.oid, 'pg_class') IS NULL;
SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'pgtrickle'::regnamespace
	AND proname NOT LIKE 'test%' AND obj_description(p.oid, 'pg_proc') IS NULL;
DROP SCHEMA see CASCADE;
