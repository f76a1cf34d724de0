-- DISTINCT ON.
-- After every refresh each stream table must equal its query as a multiset of rows, and the
-- refresh must have been incremental. Quiet unless something is wrong.
\set ON_ERROR_STOP 1
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_trickle;
SELECT count(*) AS before FROM pgtrickle.pgt_definitions \gset
CREATE SCHEMA distinct_on;
SET search_path = distinct_on, public;

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
('latest', 'SELECT DISTINCT ON (g) g, id, x FROM e ORDER BY g, x DESC, id'),
('hidden', 'SELECT DISTINCT ON (g) id, x FROM e ORDER BY g, x DESC NULLS LAST, id'),
('two', 'SELECT DISTINCT ON (h, g) g, id FROM e WHERE x > 2 ORDER BY g, h, x, id'),
('expression', 'SELECT DISTINCT ON (x % 3) id, x % 3 AS m, x FROM e ORDER BY x % 3, id DESC'),
('over_groups', 'SELECT DISTINCT ON (h) h, g, sum(x) AS s FROM e GROUP BY g, h ORDER BY h, sum(x) DESC, g'),
('over_window', 'SELECT DISTINCT ON (g) g, id, rank() OVER (PARTITION BY h ORDER BY x, id) AS r FROM e ORDER BY g, r, id'),
('over_join', 'SELECT DISTINCT ON (d.r) d.r, e.id FROM e LEFT JOIN d USING (g) ORDER BY d.r, e.x, e.id'),
('limited', 'SELECT DISTINCT ON (g) g, id FROM e ORDER BY g DESC, x, id LIMIT 3'),
('joined', 'SELECT d.r, s.id FROM d JOIN (SELECT DISTINCT ON (g) g, id FROM e ORDER BY g, id DESC) s ON s.g = d.g'),
('exists', 'SELECT DISTINCT ON (h) h, id FROM e WHERE EXISTS (SELECT FROM d WHERE d.g = e.g AND d.r = ''a'') ORDER BY h, x, id'),
('by_subquery', 'SELECT DISTINCT ON ((SELECT r FROM d WHERE d.g = e.g)) h, id FROM e ORDER BY (SELECT r FROM d WHERE d.g = e.g), x, id'),
('on_top', 'SELECT DISTINCT ON (x) x, id FROM latest ORDER BY x, id');
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

SELECT count(pgtrickle.drop_stream_table(name)) FROM (SELECT * FROM query ORDER BY n DESC) q;
SELECT count(*) - :before AS left_over FROM pgtrickle.pgt_definitions;

