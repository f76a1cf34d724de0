-- Window functions.
-- After every refresh each stream table must equal its query as a multiset of rows, and the
-- refresh must have been incremental. Quiet unless something is wrong.
\set ON_ERROR_STOP 1
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_trickle;
SELECT count(*) AS before FROM pgtrickle.pgt_definitions \gset
CREATE SCHEMA windows;
SET search_path = windows, public;

CREATE TABLE query (name text PRIMARY KEY, query text, n serial);
CREATE FUNCTION create_all() RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(pgtrickle.create_stream_table(name, query)) FROM (SELECT * FROM query ORDER BY n) q $$;
CREATE FUNCTION check_all() RETURNS TABLE (name text, difference text) LANGUAGE plpgsql AS $$
DECLARE
	q query;
BEGIN
	FOR q IN SELECT * FROM query ORDER BY n LOOP
		PERFORM pgtrickle.refresh_stream_table(q.name);
		RETURN QUERY EXECUTE format(
			'SELECT %3$L, ''too many: '' || x FROM (SELECT x::text FROM %1$s x EXCEPT ALL SELECT x::text FROM (%2$s) x) x
			 UNION ALL SELECT %3$L, ''missing: '' || x FROM (SELECT x::text FROM (%2$s) x EXCEPT ALL SELECT x::text FROM %1$s x) x',
			q.name, q.query, q.name);
		RETURN QUERY SELECT q.name, h.action || coalesce(': ' || h.refresh_reason, '')
			FROM pgtrickle.get_refresh_history(q.name, 1) h
			WHERE h.initiated_by <> 'INITIAL' AND h.action NOT IN ('DIFFERENTIAL', 'NO_DATA');
	END LOOP;
END $$;

CREATE TABLE e (id int PRIMARY KEY, g text, h int, x numeric);
INSERT INTO e SELECT i, CASE WHEN i % 5 > 0 THEN 'g' || i % 5 END, i % 3, i * 7 % 11 FROM generate_series(1, 60) i;
CREATE TABLE d (g text PRIMARY KEY, r text);
INSERT INTO d VALUES ('g1', 'a'), ('g2', 'a'), ('g3', 'b'), ('g4', 'b');

CREATE VIEW w AS SELECT id, g, row_number() OVER (PARTITION BY g ORDER BY x, id) AS n FROM e;
INSERT INTO query (name, query) VALUES
('partitioned', 'SELECT id, g, x, rank() OVER (PARTITION BY g ORDER BY x) AS r FROM e'),
('hidden_partition', 'SELECT id, rank() OVER (PARTITION BY g ORDER BY x) AS r FROM e'),
('no_key', 'SELECT g, rank() OVER (PARTITION BY g ORDER BY x) AS r, dense_rank() OVER (PARTITION BY g ORDER BY x) AS d FROM e'),
('chain', 'SELECT id, rank() OVER (PARTITION BY g ORDER BY x) + sum(x) OVER (PARTITION BY h ORDER BY id ROWS 1 PRECEDING) AS r FROM e'),
('common', 'SELECT id, count(*) OVER (PARTITION BY g, h) AS c, max(x) OVER (PARTITION BY g) AS m FROM e'),
('over_groups', 'SELECT g, sum(x) AS s, sum(sum(x)) OVER (PARTITION BY h ORDER BY g) AS r FROM e GROUP BY g, h'),
('chain_over_groups', 'SELECT g, rank() OVER (PARTITION BY g ORDER BY sum(x)) AS a, rank() OVER (PARTITION BY h ORDER BY sum(x)) AS b FROM e GROUP BY g, h HAVING count(*) > 1'),
('unpartitioned', 'SELECT id, row_number() OVER (ORDER BY x, id) AS r, sum(x) OVER (PARTITION BY g) AS s FROM e'),
('distinct_rows', 'SELECT DISTINCT d.r, max(e.x) OVER (PARTITION BY d.r) AS m FROM e JOIN d USING (g)'),
('outer_join', 'SELECT e.id, d.r, sum(x) OVER w AS s, count(*) OVER (w RANGE BETWEEN 2 PRECEDING AND CURRENT ROW) AS c FROM e LEFT JOIN d USING (g) WINDOW w AS (PARTITION BY d.r ORDER BY x), unused AS (ORDER BY id)'),
('first_of_each', 'SELECT * FROM (SELECT id, g, row_number() OVER (PARTITION BY g ORDER BY x, id) AS n FROM e) s WHERE n <= 2'),
('of_expression', 'SELECT upper(g) AS u, count(*) FILTER (WHERE x > 3) OVER (PARTITION BY upper(g)) AS c FROM e'),
('by_number', 'SELECT id, x, count(*) OVER (PARTITION BY x) AS c FROM e'),
('frames', 'SELECT id, h, first_value(id) OVER (PARTITION BY h ORDER BY id ROWS BETWEEN 1 PRECEDING AND 2 FOLLOWING EXCLUDE CURRENT ROW) AS f, lead(x, 2, -1.0) OVER (PARTITION BY h ORDER BY id) AS l, sum(x) OVER (PARTITION BY h ORDER BY x GROUPS 1 PRECEDING) AS s, ntile(3) OVER (PARTITION BY h ORDER BY id DESC) AS n FROM e'),
('over_window', 'SELECT g, n, rank() OVER (PARTITION BY n ORDER BY id) AS r FROM w WHERE n < 5'),
('joined', 'SELECT w.id, d.r, w.n FROM w JOIN d ON d.g = w.g'),
('grouped', 'SELECT g, sum(n) AS s FROM w GROUP BY g'),
('exists', 'SELECT id, g, rank() OVER (PARTITION BY g ORDER BY x) AS r FROM e WHERE EXISTS (SELECT FROM d WHERE d.g = e.g AND d.r = ''a'')'),
('of_subquery', 'SELECT id, sum((SELECT count(*) FROM d WHERE d.r > e.g)) OVER (PARTITION BY h) AS s FROM e WHERE g IN (SELECT g FROM d)'),
('by_subquery', 'SELECT id, count(*) OVER (PARTITION BY g, (SELECT r FROM d WHERE d.g = e.g)) AS c, (SELECT r FROM d WHERE d.g = e.g) AS r FROM e'),
('on_top', 'SELECT g, r, count(*) OVER (PARTITION BY r) AS c FROM partitioned WHERE x IS NOT NULL');
SELECT create_all();
SELECT * FROM check_all();
-- A value, a partition, both to and from NULL.
UPDATE e SET x = 100 WHERE id = 7;
SELECT * FROM check_all();
UPDATE e SET g = 'g1' WHERE id = 8;
SELECT * FROM check_all();
UPDATE e SET g = NULL WHERE id = 7; DELETE FROM e WHERE id = 13; UPDATE e SET g = 'g2' WHERE id = 10;
SELECT * FROM check_all();
-- The row on top goes; a group comes and goes; one row changes twice.
DELETE FROM e WHERE x = (SELECT max(x) FROM e); INSERT INTO e VALUES (99, 'g9', 7, NULL);
SELECT * FROM check_all();
BEGIN; DELETE FROM e WHERE g = 'g9'; UPDATE e SET x = x + 1 WHERE id = 3; UPDATE e SET x = x + 1 WHERE id = 3; COMMIT;
SELECT * FROM check_all();
-- The same value with another image is in the same partition.
UPDATE e SET x = x + 0.00 WHERE id % 4 = 0;
SELECT * FROM check_all();
-- The other side of the joins, alone and together with this one.
UPDATE d SET r = CASE r WHEN 'a' THEN 'b' ELSE 'a' END;
SELECT * FROM check_all();
BEGIN; DELETE FROM d WHERE g = 'g1'; INSERT INTO d VALUES ('g9', 'c'); UPDATE e SET g = 'g9' WHERE id IN (1, 2, 4); COMMIT;
SELECT * FROM check_all();
-- Nearly everything, everything, and back again.
DELETE FROM e WHERE h = 1;
SELECT * FROM check_all();
DELETE FROM e;
SELECT * FROM check_all();
INSERT INTO e SELECT i, CASE WHEN i % 5 > 0 THEN 'g' || i % 5 END, i % 3, i * 7 % 11 FROM generate_series(1, 60) i;
SELECT * FROM check_all();

-- Values too wide for a btree come and go.
CREATE TABLE words (id int PRIMARY KEY, g text, t text);
INSERT INTO words VALUES (1, 'a', 'x'), (2, 'a', 'y'), (3, 'b', 'x');
SELECT pgtrickle.create_stream_table('wide', 'SELECT id, g, count(*) OVER (PARTITION BY g) AS c, rank() OVER (PARTITION BY t ORDER BY id) AS r FROM words');
INSERT INTO query (name, query) VALUES ('wide', 'SELECT id, g, count(*) OVER (PARTITION BY g) AS c, rank() OVER (PARTITION BY t ORDER BY id) AS r FROM words');
INSERT INTO words SELECT 3 + i, w, w FROM generate_series(1, 3) i, (SELECT string_agg(md5(n::text), '') AS w FROM generate_series(1, 300) n) w;
SELECT * FROM check_all();
UPDATE words SET g = left(g, 9000) || 'b' WHERE id = 4; UPDATE words SET t = 'x' WHERE id = 6; DELETE FROM words WHERE id = 1;
SELECT * FROM check_all();
DELETE FROM words WHERE id IN (4, 5);
SELECT * FROM check_all();
-- Values that are the same and look different are one partition.
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE same (id int PRIMARY KEY, t text COLLATE nocase, f float8, n numeric);
INSERT INTO same VALUES (1, 'a', 0, 1.0), (2, 'A', '-0', 1.00), (3, NULL, 'NaN', 'NaN'), (4, 'b', 'NaN', 1);
INSERT INTO query (name, query) VALUES
('same_text', 'SELECT t, count(*) OVER (PARTITION BY t) AS c FROM same'),
('same_float', 'SELECT f, count(*) OVER (PARTITION BY f) AS c FROM same'),
('same_number', 'SELECT id, n, rank() OVER (PARTITION BY n ORDER BY id) AS r, count(*) OVER (PARTITION BY t) AS c FROM same');
SELECT count(pgtrickle.create_stream_table(name, query)) FROM query WHERE name LIKE 'same%';
INSERT INTO same VALUES (5, 'a', 0, 1), (6, 'B', 'NaN', 'NaN'), (7, NULL, NULL, NULL);
SELECT * FROM check_all();
DELETE FROM same WHERE id IN (1, 4); UPDATE same SET t = upper(t), n = n + 0.0;
SELECT * FROM check_all();

-- How it is done: stages and what they are recomputed by.
SELECT property, regexp_replace(regexp_replace(value, 'stage_\d+', 'stage_n'), ', \d+ rows in .*$', '') AS value
FROM pgtrickle.explain_st('chain_over_groups') WHERE property LIKE 'stage %';

SELECT count(pgtrickle.drop_stream_table(name)) FROM (SELECT * FROM query ORDER BY n DESC) q;
SELECT count(*) - :before AS left_over FROM pgtrickle.pgt_definitions;

