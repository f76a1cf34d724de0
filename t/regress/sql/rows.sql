-- Whole rows, composite values, tableoid; joins that are written in other ways; VALUES and WITH.
SET client_min_messages = error;
CREATE SCHEMA rows;
SET search_path = rows, public;
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
		LATERAL refreshed(pgt_relid::regclass::text) r WHERE pgt_schema = 'rows' ORDER BY 1, 2 LOOP
		RAISE WARNING '%: %', d.st, d.difference;
	END LOOP;
END $$;

CREATE TYPE pair AS (a int, b text);
CREATE FUNCTION swap(p pair) RETURNS pair LANGUAGE sql IMMUTABLE AS $$ SELECT ROW(p.a + 1, p.b || '!')::rows.pair $$;
CREATE TABLE t (id int PRIMARY KEY, gone int, k int, c pair, s text);
ALTER TABLE t DROP COLUMN gone;
CREATE TABLE d (id int, k int, name text);
CREATE VIEW v AS SELECT k, name FROM d;
CREATE FUNCTION describe(t) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce($1.id::text, 'null') || coalesce($1.s, '-') $$;
CREATE FUNCTION describe(v) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce($1.k::text, 'null') || coalesce($1.name, '-') $$;
CREATE AGGREGATE product(int) (sfunc = int4mul, stype = int, initcond = '1');
SELECT pgtrickle.create_stream_table('whole', 'SELECT t.id, t AS whole FROM t');
SELECT pgtrickle.create_stream_table('whole_fn', 'SELECT describe(t) AS x, d.name FROM t JOIN d ON d.k = t.k WHERE (t).id > 0');
SELECT pgtrickle.create_stream_table('whole_null', 'SELECT d.id, t AS whole, t IS NULL AS n, describe(t) AS x FROM d LEFT JOIN t ON t.k = d.k');
SELECT pgtrickle.create_stream_table('whole_view', 'SELECT t.id, describe(v) AS x, v.name FROM t LEFT JOIN v ON v.k = t.k');
SELECT pgtrickle.create_stream_table('whole_count', 'SELECT d.k, count(t) AS n, count(*) AS c FROM d LEFT JOIN t ON t.k = d.k GROUP BY d.k');
SELECT pgtrickle.create_stream_table('whole_sub', 'SELECT q.id, (q.r).k AS k, count(q.r) AS n FROM (SELECT t.id, t AS r FROM t) q GROUP BY q.id, (q.r).k');
SELECT pgtrickle.create_stream_table('whole_rec', 'SELECT count(q) AS n FROM (SELECT k, s FROM t) q');
SELECT pgtrickle.create_stream_table('whole_left_sub', 'SELECT d.id, q IS NOT DISTINCT FROM NULL AS n FROM d LEFT JOIN (SELECT k, s FROM t) q ON q.k = d.k');
SELECT pgtrickle.create_stream_table('whole_full', 'SELECT t AS l, d AS r FROM t FULL JOIN d USING (k)');
SELECT pgtrickle.create_stream_table('whole_group', 'SELECT (t).k, count(*) AS n, max(describe(t)) AS m FROM t GROUP BY (t).k');
SELECT pgtrickle.create_stream_table('field', $$SELECT id, (c).a, (swap(c)).b, swap(c) AS sc FROM t WHERE (c).b <> 'q'$$);
SELECT pgtrickle.create_stream_table('oid_', $$SELECT id, tableoid::bigint > 0 AS there FROM t$$);
SELECT pgtrickle.create_stream_table('same', 'SELECT t.id, d.name FROM t JOIN d ON d.k IS NOT DISTINCT FROM t.k');
SELECT pgtrickle.create_stream_table('same_left', 'SELECT t.id, d.name FROM t LEFT JOIN d ON d.k IS NOT DISTINCT FROM t.k AND d.name IS DISTINCT FROM t.s');
SELECT pgtrickle.create_stream_table('range_', 'SELECT t.id, d.id AS did FROM t JOIN d ON d.k BETWEEN t.k AND t.k + 1 OR d.id = t.id');
SELECT pgtrickle.create_stream_table('natural_', 'SELECT k, id, s, name FROM t NATURAL FULL JOIN d');
SELECT pgtrickle.create_stream_table('merged', 'SELECT k, x.s, y.name FROM (t x FULL JOIN d y USING (k)) LEFT JOIN t z USING (k) WHERE k IS DISTINCT FROM 5');
SELECT pgtrickle.create_stream_table('nested', 'SELECT a.id, b.name, c.id AS cid FROM t a LEFT JOIN (d b JOIN t c ON c.id = b.id) ON b.k = a.k');
SELECT pgtrickle.create_stream_table('vals', $$SELECT t.id, v.w FROM t JOIN (VALUES (1, 'one'), (2, 'two'), (NULL, 'none')) v (k, w) ON v.k IS NOT DISTINCT FROM t.k$$);
SELECT pgtrickle.create_stream_table('data_cte', 'WITH w (k, w) AS MATERIALIZED (VALUES (1, 10), (2, 20)), x AS (SELECT t.id, w.w FROM t JOIN w USING (k)) SELECT a.id, b.id AS bid, a.w FROM x a JOIN x b ON a.w = b.w LEFT JOIN w ON w.k = a.id');
SELECT pgtrickle.create_stream_table('aggs', $$SELECT k, product(id % 7 + 1) AS p, percentile_disc(0.5) WITHIN GROUP (ORDER BY id) AS pd, mode() WITHIN GROUP (ORDER BY s) AS mo, count(DISTINCT s) FILTER (WHERE id > 1) AS n, string_agg(s, ',' ORDER BY id DESC) AS l, rank(2) WITHIN GROUP (ORDER BY id) AS r FROM t GROUP BY k$$);
SELECT pgt_relid::regclass AS st, property, regexp_replace(value, 'stage_\d+|state_\d+|, \d+ rows? in \d+ kB', '', 'g') AS value FROM pgtrickle.pgt_stream_tables,
	LATERAL pgtrickle.explain_st(pgt_relid::regclass::text) WHERE pgt_schema = 'rows' AND property LIKE 'stage%' ORDER BY pgt_id, property;
SET client_min_messages = warning;
CALL check_all();
INSERT INTO d VALUES (1, 1, 'one'), (NULL, NULL, NULL), (3, 2, 'two'), (3, 2, 'two'); CALL check_all();
INSERT INTO t VALUES (1, 1, '(1,x)', 'one'), (2, NULL, NULL, NULL); CALL check_all();
TABLE whole_null ORDER BY 1, 2; TABLE whole_count ORDER BY 1; TABLE whole_full ORDER BY 1, 2;
INSERT INTO t VALUES (3, 2, '(,)', 'two'), (4, 2, '(2,q)', NULL); CALL check_all();
UPDATE t SET k = 1, c.a = 7 WHERE id = 3; CALL check_all();
UPDATE t SET k = k + 1; UPDATE d SET k = NULL WHERE id = 1; CALL check_all();
BEGIN; DELETE FROM t WHERE id = 1; UPDATE d SET name = name || '*'; INSERT INTO d VALUES (2, 3, 'three'); COMMIT; CALL check_all();
DELETE FROM d WHERE k IS NULL; CALL check_all();
DELETE FROM t; CALL check_all();
DELETE FROM d; CALL check_all();
INSERT INTO t SELECT i, i % 5, ROW(i, 'c' || i % 3)::pair, 's' || i % 4 FROM generate_series(1, 30) i;
INSERT INTO d SELECT i % 9, nullif(i % 6, 0), 'n' || i FROM generate_series(1, 30) i; CALL check_all();
UPDATE t SET s = NULL WHERE id % 4 = 0; UPDATE d SET id = id + 1 WHERE k = 2; CALL check_all();
SELECT construct, incremental, technique, reason, "position" FROM pgtrickle.validate_query('SELECT d.id, t AS whole, t.tableoid AS o FROM d LEFT JOIN t ON t.k = d.k') ORDER BY 1;
SET client_min_messages = error;
DROP SCHEMA rows CASCADE;
