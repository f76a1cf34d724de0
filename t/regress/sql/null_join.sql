-- Joins by IS NOT DISTINCT FROM: null meets null, and an index finds both.
SET client_min_messages = error;
CREATE SCHEMA null_join;
SET search_path = null_join, public;
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
		LATERAL refreshed(pgt_relid::regclass::text) r WHERE pgt_schema = 'null_join' ORDER BY 1, 2 LOOP
		RAISE WARNING '%: %', d.st, d.difference;
	END LOOP;
END $$;

CREATE TYPE pair AS (p int, q int);
CREATE TABLE r (id int PRIMARY KEY, a int, b text, p pair, v int, pad text);
CREATE TABLE s (id int PRIMARY KEY, x bigint, y text, p pair, w int, pad text);
CREATE TABLE u (id int PRIMARY KEY, rid int, k int, pad text);
CREATE INDEX r_a ON r (a);
CREATE INDEX s_x ON s (x);
CREATE INDEX u_rid ON u (rid);
ALTER TABLE r ALTER pad SET STORAGE PLAIN;
ALTER TABLE s ALTER pad SET STORAGE PLAIN;
ALTER TABLE u ALTER pad SET STORAGE PLAIN;
INSERT INTO r SELECT i, nullif(i % 150, 7), 'b' || nullif(i % 3, 1), (i % 5, nullif(i % 2, 0))::pair, i, repeat('x', 2000) FROM generate_series(1, 400) i;
INSERT INTO s SELECT i, nullif(i % 150, 9), 'b' || nullif(i % 3, 2), (i % 5, nullif(i % 2, 1))::pair, i, repeat('x', 2000) FROM generate_series(1, 400) i;
INSERT INTO u SELECT i, i, nullif(i % 50, 3), repeat('x', 2000) FROM generate_series(1, 400) i;
UPDATE r SET p = NULL WHERE id % 50 = 0;
UPDATE s SET p = NULL WHERE id % 60 = 0;
ANALYZE r, s, u;

SELECT pgtrickle.create_stream_table('plain', 'SELECT r.id, s.id AS sid, v, w FROM r JOIN s ON r.a IS NOT DISTINCT FROM s.x');
SELECT pgtrickle.create_stream_table('no_key', 'SELECT v % 10 AS v, w % 10 AS w FROM r, s WHERE NOT r.a IS DISTINCT FROM s.x AND r.b IS NOT DISTINCT FROM s.y AND v > 5');
SELECT pgtrickle.create_stream_table('rows_of_two', 'SELECT r.id, s.id AS sid, w FROM r LEFT JOIN s ON (r.a, r.b) IS NOT DISTINCT FROM (s.x, s.y)');
SELECT pgtrickle.create_stream_table('whole', 'SELECT r.id, s.id AS sid, v FROM r FULL JOIN s ON r.a = s.x AND r.p IS NOT DISTINCT FROM s.p');
SELECT pgtrickle.create_stream_table('after_outer', 'SELECT u.id, s.id AS sid, s.w FROM u LEFT JOIN r ON r.id = u.rid AND r.v < 100 JOIN s ON s.x IS NOT DISTINCT FROM r.a AND s.id < 200');
SELECT pgtrickle.create_stream_table('chain', 'SELECT u.id, r.id AS rid, s.id AS sid FROM u JOIN r ON r.id = u.rid JOIN s ON s.x IS NOT DISTINCT FROM r.a');
SELECT pgtrickle.create_stream_table('grouped', 'SELECT r.b, count(*) AS n, sum(w) AS w FROM r JOIN s ON r.a IS NOT DISTINCT FROM s.x GROUP BY r.b HAVING count(*) IS DISTINCT FROM 3');
SELECT pgtrickle.create_stream_table('recomputed', 'SELECT r.a, max(w) AS w FROM r JOIN s ON r.a IS NOT DISTINCT FROM s.x GROUP BY r.a');
SELECT pgtrickle.create_stream_table('semi', 'SELECT id, v FROM r WHERE EXISTS (SELECT FROM s WHERE s.x IS NOT DISTINCT FROM r.a AND s.w > 3)');
SELECT pgtrickle.create_stream_table('anti', 'SELECT id, v FROM r WHERE NOT EXISTS (SELECT FROM s WHERE s.x IS NOT DISTINCT FROM r.a AND s.w > 200)');
SELECT pgtrickle.create_stream_table('within', 'SELECT q.id, u.k FROM (SELECT r.id, s.w FROM r JOIN s ON r.a IS NOT DISTINCT FROM s.x) q JOIN u ON u.id = q.w');
SELECT pgtrickle.create_stream_table('self', 'SELECT a.id, b.id AS other FROM s a JOIN s b ON a.x IS NOT DISTINCT FROM b.x AND a.id < b.id');
SELECT pgtrickle.create_stream_table('constants', 'SELECT id FROM r WHERE a IS NOT DISTINCT FROM 5 AND b IS NOT DISTINCT FROM ''b0''');
SELECT pgtrickle.create_stream_table('elsewhere', 'SELECT r.id, s.id AS sid, r.b IS NOT DISTINCT FROM s.y AS same FROM r JOIN s ON r.id = s.id AND (r.a IS NOT DISTINCT FROM s.x OR r.b IS DISTINCT FROM s.y)');
SELECT pgt_name FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'null_join' AND refresh_mode = 'FULL' ORDER BY 1;

-- Small changes read no table whole, and no index is missing.
SELECT st, statement, plan ~ 'Seq Scan on (r|s|u)\M' AS whole FROM unnest('{plain,rows_of_two,chain,semi,self}'::text[]) st,
	LATERAL (SELECT * FROM pgtrickle.explain_delta(st)) e ORDER BY 1, stage, 2;
SELECT plan ~ 'BitmapOr' AS both FROM pgtrickle.explain_delta('recomputed') WHERE statement = 'rows of keys';
SELECT * FROM pgtrickle.missing_indexes();
DROP INDEX s_x;
SELECT DISTINCT create_index FROM unnest('{plain,recomputed,rows_of_two}'::text[]) st, LATERAL (SELECT * FROM pgtrickle.missing_indexes(st)) m;
CREATE INDEX s_x ON s (x);

-- From null to a value and back, on each side, and both at once.
CALL check_all();
UPDATE r SET a = NULL WHERE id IN (10, 11, 157);
CALL check_all();
UPDATE s SET x = NULL WHERE id IN (20, 21, 9); UPDATE s SET y = NULL WHERE id IN (7, 30);
CALL check_all();
UPDATE r SET a = 11, b = NULL WHERE id IN (7, 10); UPDATE s SET x = 11 WHERE id IN (9, 20); INSERT INTO s VALUES (20000, NULL, NULL, NULL, 20000);
CALL check_all();
DELETE FROM r WHERE a IS NULL; INSERT INTO r VALUES (20000, NULL, NULL, ROW(NULL, NULL), 50), (20001, NULL, 'b0', NULL, 51);
DELETE FROM u WHERE id % 100 = 7;
CALL check_all();
UPDATE s SET p = NULL WHERE id < 20; UPDATE r SET p = ROW(NULL, NULL) WHERE id BETWEEN 10 AND 30; UPDATE u SET rid = 20000 WHERE id < 10;
CALL check_all();
DELETE FROM s WHERE x IS NULL;
CALL check_all();
-- Large changes.
UPDATE s SET x = NULL WHERE id % 50 = 1; UPDATE r SET a = a + 1 WHERE id % 2 = 0; UPDATE u SET k = NULL WHERE id % 3 = 0;
CALL check_all();
TRUNCATE s;
CALL check_all();
INSERT INTO s SELECT i, nullif(i % 100, 5), NULL, NULL, i FROM generate_series(1, 300) i;
CALL check_all();
DROP SCHEMA null_join CASCADE;
