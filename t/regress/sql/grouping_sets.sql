-- GROUPING SETS, ROLLUP and CUBE, with GROUPING().
SET client_min_messages = error;
CREATE SCHEMA grouping_sets;
SET search_path = grouping_sets, public;
CREATE FUNCTION refreshed(st text) RETURNS TABLE (difference text) LANGUAGE plpgsql AS $$
DECLARE
	q text;
	how text;
BEGIN
	SELECT rtrim(defining_query, ';') INTO STRICT q FROM pgtrickle.pgt_stream_tables
		WHERE pgt_relid = st::regclass;
	PERFORM pgtrickle.refresh_stream_table(st, 'DIFFERENTIAL');
	SELECT action INTO how FROM pgtrickle.get_refresh_history(st) WHERE initiated_by <> 'INITIAL' ORDER BY start_time DESC LIMIT 1;
	RETURN QUERY SELECT 'action: ' || how WHERE how NOT IN ('DIFFERENTIAL', 'NO_DATA');
	RETURN QUERY EXECUTE format(
		'SELECT ''too many: '' || d::text FROM (TABLE %1$s EXCEPT ALL SELECT * FROM (%2$s) q) d
		 UNION ALL SELECT ''missing: '' || d::text FROM (SELECT * FROM (%2$s) q EXCEPT ALL TABLE %1$s) d',
		st, q);
END $$;
CREATE PROCEDURE check_all() LANGUAGE plpgsql AS $$
DECLARE
	d record;
BEGIN
	FOR d IN SELECT pgt_relid::regclass::text AS st, r.difference FROM pgtrickle.pgt_stream_tables,
		LATERAL refreshed(pgt_relid::regclass::text) r WHERE pgt_schema = 'grouping_sets' ORDER BY 1, 2 LOOP
		RAISE WARNING '%: %', d.st, d.difference;
	END LOOP;
END $$;


CREATE TABLE t (id int PRIMARY KEY, k int, x int, s text, f float8);
CREATE TABLE d (k int PRIMARY KEY, name text);
SELECT pgtrickle.create_stream_table('roll', 'SELECT k, x, count(*) AS n, sum(id) AS si, GROUPING(k, x) AS g FROM t GROUP BY ROLLUP (k, x)');
SELECT pgtrickle.create_stream_table('cube_', 'SELECT k, x, s, min(f) AS lo, count(s) FILTER (WHERE x > 1) AS n FROM t GROUP BY CUBE (k, x, s)');
SELECT pgtrickle.create_stream_table('sets', 'SELECT k + 1 AS k1, x, count(*) AS n, coalesce(s, ''-'') || GROUPING(s)::text AS sg FROM t GROUP BY GROUPING SETS ((k + 1), (x, s), (), (k + 1)) ORDER BY 1');
SELECT pgtrickle.create_stream_table('dist', 'SELECT k, x, count(*) AS n FROM t GROUP BY DISTINCT ROLLUP (k, x), ROLLUP (k, s)');
SELECT pgtrickle.create_stream_table('all_', 'SELECT k, x, count(*) AS n FROM t GROUP BY ROLLUP (k, x), ROLLUP (k, s)');
SELECT pgtrickle.create_stream_table('nothing', 'SELECT 1 AS one FROM t GROUP BY GROUPING SETS ((), ())');
SELECT pgtrickle.create_stream_table('empty_set', 'SELECT count(*) AS n FROM t GROUP BY ()');
SELECT pgtrickle.create_stream_table('having_', 'SELECT k, x, sum(id) AS s FROM t GROUP BY ROLLUP (k, x) HAVING count(*) > 1 OR GROUPING(k) = 1');
SELECT pgtrickle.create_stream_table('hidden', 'SELECT count(*) AS n, sum(k) AS sk FROM t GROUP BY CUBE (k, x)');
SELECT pgtrickle.create_stream_table('dis', 'SELECT DISTINCT k, count(*) AS n FROM t GROUP BY ROLLUP (k, x)');
SELECT pgtrickle.create_stream_table('win', 'SELECT k, x, sum(f) AS f, rank() OVER (PARTITION BY GROUPING(x) ORDER BY count(*), k, x) AS r FROM t GROUP BY ROLLUP (k, x)');
SELECT pgtrickle.create_stream_table('top', 'SELECT k, x, count(*) AS n FROM t GROUP BY ROLLUP (k, x) ORDER BY count(*) DESC, k NULLS FIRST, x LIMIT 3');
SELECT pgtrickle.create_stream_table('joined', 'SELECT d.name, t.x, count(*) AS n, count(DISTINCT t.s) AS ns FROM t JOIN d USING (k) GROUP BY ROLLUP (d.name, t.x)');
SELECT pgtrickle.create_stream_table('outer_', 'SELECT d.name, t.x, count(t.id) AS n FROM d LEFT JOIN t USING (k) GROUP BY GROUPING SETS ((d.name), (t.x))');
SELECT pgtrickle.create_stream_table('above', 'SELECT g.n, count(*) AS c FROM (SELECT k, x, count(*) AS n FROM t GROUP BY CUBE (k, x)) g GROUP BY g.n');
SELECT pgtrickle.create_stream_table('pk', 'SELECT id, s, x, count(*) AS n FROM t GROUP BY GROUPING SETS ((id), (id, x))');
SELECT pgt_relid::regclass AS st, count(*) AS stages, string_agg(DISTINCT regexp_replace(value, '^.*, (.*) by .*$', '\1'), ', ') AS how FROM pgtrickle.pgt_stream_tables,
	LATERAL pgtrickle.explain_st(pgt_relid::regclass::text) WHERE pgt_schema = 'grouping_sets' AND property LIKE 'stage%' GROUP BY pgt_id, pgt_relid ORDER BY pgt_id;
SET client_min_messages = warning;
CALL check_all();
TABLE nothing; TABLE empty_set; TABLE roll;
INSERT INTO d VALUES (1, 'one'), (2, 'two'), (3, NULL); CALL check_all();
INSERT INTO t VALUES (1, 1, 1, 'a', 1); CALL check_all();
TABLE roll ORDER BY 1, 2;
INSERT INTO t VALUES (2, 1, 1, 'a', 'NaN'), (3, 1, NULL, 'b', 2), (4, NULL, NULL, NULL, NULL); CALL check_all();
TABLE roll ORDER BY g, k, x; TABLE sets ORDER BY 1, 2, 4;
UPDATE t SET k = 2 WHERE id = 1; CALL check_all();
UPDATE t SET k = NULL, x = 1; CALL check_all();
BEGIN; INSERT INTO t VALUES (5, 3, 2, 'c', 0); DELETE FROM t WHERE id = 2; UPDATE d SET name = 'zwei' WHERE k = 2; COMMIT; CALL check_all();
DELETE FROM t; CALL check_all();
TABLE roll; TABLE nothing;
INSERT INTO t SELECT i, nullif(i % 4, 0), nullif(i % 3, 1), 's' || i % 2, i / 4.0 FROM generate_series(1, 60) i; CALL check_all();
UPDATE t SET x = x + 1 WHERE id % 7 = 0; DELETE FROM d WHERE k = 1; CALL check_all();
DELETE FROM t WHERE id > 10; CALL check_all();
SELECT construct, incremental, technique, reason, "position" FROM pgtrickle.validate_query('SELECT k, GROUPING(k) AS g, count(*) AS n FROM t GROUP BY CUBE (k, x) HAVING count(*) > 1') ORDER BY 1;
\set ON_ERROR_STOP 0
SELECT construct, reason FROM pgtrickle.validate_query('SELECT k AS a, k AS b, count(*) AS n FROM t GROUP BY ROLLUP (a, b)') WHERE NOT incremental;
\set ON_ERROR_STOP 1
SET client_min_messages = error;
DROP SCHEMA grouping_sets CASCADE;
