-- ORDER BY with LIMIT and OFFSET.
-- After every refresh each stream table must equal its query as a multiset of rows, and the
-- refresh must have been incremental. Quiet unless something is wrong.
\set ON_ERROR_STOP 1
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_trickle;
SELECT count(*) AS before FROM pgtrickle.pgt_definitions \gset
CREATE SCHEMA topk;
SET search_path = topk, public;

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

INSERT INTO query (name, query) VALUES
('first', 'SELECT id, x FROM e ORDER BY x DESC, id LIMIT 3'),
('page', 'SELECT id, g FROM e ORDER BY x DESC NULLS LAST, id OFFSET 2 ROWS FETCH FIRST 4 ROWS ONLY'),
('ties', 'SELECT x FROM e ORDER BY x FETCH FIRST 2 ROWS WITH TIES'),
('ties_of_groups', 'SELECT h, count(*) AS c FROM e GROUP BY h, g ORDER BY count(*) DESC FETCH FIRST 2 ROWS WITH TIES'),
('filtered', 'SELECT id FROM e WHERE h = 1 AND x > 1 ORDER BY x, id LIMIT 3'),
('over_join', 'SELECT e.id, d.r FROM e JOIN d USING (g) ORDER BY d.r DESC, e.x, e.id LIMIT 5'),
('over_outer_join', 'SELECT e.id, d.r FROM e LEFT JOIN d USING (g) ORDER BY d.r COLLATE "C" NULLS FIRST, e.x USING >, e.id LIMIT 5'),
('of_groups', 'SELECT g, sum(x) AS s FROM e GROUP BY g ORDER BY sum(x) DESC NULLS LAST, g LIMIT 2'),
('of_hidden_groups', 'SELECT count(*) AS c FROM e GROUP BY g ORDER BY sum(x) * 2 DESC NULLS LAST, g LIMIT 2'),
('all_rows', 'SELECT id FROM e ORDER BY id LIMIT ALL'),
('null_rows', 'SELECT id FROM e ORDER BY id LIMIT NULL OFFSET NULL'),
('asked', 'SELECT id FROM e ORDER BY id LIMIT (SELECT count(*) - 3 FROM d)'),
('asked_offset', 'SELECT e.id, d.r FROM e JOIN d USING (g) ORDER BY e.x DESC, e.id LIMIT (SELECT count(*) FROM d WHERE r = ''b'') + 1 OFFSET (SELECT count(DISTINCT r) FROM d)'),
('asked_ties', 'SELECT g, count(*) AS n FROM e GROUP BY g ORDER BY n, g FETCH FIRST ((SELECT count(*) FROM e WHERE x = 1) + 1) ROWS WITH TIES'),
('asked_below', 'SELECT s.id, d.r FROM (SELECT id, g FROM e ORDER BY id LIMIT (SELECT length(g) FROM d ORDER BY g LIMIT 1)) AS s LEFT JOIN d ON d.g = s.g'),
('no_rows', 'SELECT id FROM e ORDER BY id LIMIT 0'),
('offset_only', 'SELECT id FROM e ORDER BY x, id OFFSET 55'),
('computed', 'SELECT id FROM e ORDER BY id LIMIT 2 + length(''ab'')'),
('in_join', 'SELECT s.c, t.id FROM (SELECT count(*) AS c, h FROM e GROUP BY h ORDER BY count(*) DESC, h LIMIT 2) s JOIN e t ON t.id = s.h'),
('of_windows', 'SELECT id, row_number() OVER (PARTITION BY h ORDER BY x, id) AS r FROM e ORDER BY r, id LIMIT 4'),
('of_first', 'SELECT id FROM (SELECT id, x, g FROM e ORDER BY x DESC, id LIMIT 20) s WHERE g IS NOT NULL ORDER BY id LIMIT 5'),
('two_ends', '(SELECT id FROM e ORDER BY x, id LIMIT 3) UNION ALL (SELECT id FROM e ORDER BY x DESC, id LIMIT 3)'),
('of_union', 'SELECT id FROM e UNION ALL SELECT h FROM e ORDER BY id LIMIT 5'),
('of_distinct', 'SELECT DISTINCT h, g FROM e ORDER BY g DESC, h LIMIT 5'),
('single', 'SELECT count(*) AS c FROM e LIMIT 1'),
('exists', 'SELECT id FROM e WHERE NOT EXISTS (SELECT FROM d WHERE d.g = e.g AND d.r = ''a'') ORDER BY x DESC, id LIMIT 4'),
('by_subquery', 'SELECT id FROM e ORDER BY (SELECT r FROM d WHERE d.g = e.g) DESC, id LIMIT 4'),
('on_top', 'SELECT id FROM page ORDER BY id DESC LIMIT 2');
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
-- A large table without an index in the order of the query: a hint, once.
CREATE TABLE large AS SELECT i AS id, i % 100 AS g, repeat('x', 200) AS t FROM generate_series(1, 5000) i;
SET client_min_messages = notice;
SELECT pgtrickle.create_stream_table('hinted', 'SELECT id, g FROM large ORDER BY g DESC NULLS LAST, id LIMIT 3');
SELECT pgtrickle.create_stream_table('hinted_windows', 'SELECT id, rank() OVER (PARTITION BY g ORDER BY id) AS r, count(*) OVER (PARTITION BY g) AS c FROM large');
CREATE INDEX ON large (g DESC NULLS LAST, id);
SELECT pgtrickle.create_stream_table('quiet', 'SELECT id, g FROM large ORDER BY g DESC NULLS LAST, id LIMIT 3');
SET client_min_messages = error;
SELECT count(pgtrickle.drop_stream_table(s)) FROM unnest('{hinted,hinted_windows,quiet}'::text[]) s;

-- Values too wide for a btree come and go.
CREATE TABLE words (id int PRIMARY KEY, g text, t text);
INSERT INTO words VALUES (1, 'a', 'x'), (2, 'a', 'y'), (3, 'b', 'x');
SELECT pgtrickle.create_stream_table('wide', 'SELECT words.id, words.t FROM words JOIN e USING (id) ORDER BY words.t DESC, id LIMIT 2');
INSERT INTO query (name, query) VALUES ('wide', 'SELECT words.id, words.t FROM words JOIN e USING (id) ORDER BY words.t DESC, id LIMIT 2');
INSERT INTO words SELECT 3 + i, w, w FROM generate_series(1, 3) i, (SELECT string_agg(md5(n::text), '') AS w FROM generate_series(1, 300) n) w;
SELECT * FROM check_all();
UPDATE words SET g = left(g, 9000) || 'b' WHERE id = 4; UPDATE words SET t = 'x' WHERE id = 6; DELETE FROM words WHERE id = 1;
SELECT * FROM check_all();
DELETE FROM words WHERE id IN (4, 5);
SELECT * FROM check_all();

SELECT count(pgtrickle.drop_stream_table(name)) FROM (SELECT * FROM query ORDER BY n DESC) q;
SELECT count(*) - :before AS left_over FROM pgtrickle.pgt_definitions;

