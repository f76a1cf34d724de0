-- What a stream table shows is what its query gives at the frontier it reports: rows are only
-- inserted here, so that the rows of any snapshot can be counted later.
CREATE SCHEMA frontier;
SET search_path = frontier;
SET client_min_messages = warning;
CREATE TABLE o (id int PRIMARY KEY);
CREATE TABLE d (id int PRIMARY KEY);
INSERT INTO o VALUES (1);
INSERT INTO d VALUES (1);
SELECT pgtrickle.create_stream_table('a', 'SELECT count(*) AS o FROM o');
SELECT pgtrickle.create_stream_table('b', 'SELECT o FROM a');
SELECT pgtrickle.create_stream_table('c', 'SELECT count(*) AS d FROM d');
SELECT pgtrickle.create_stream_table('m', 'SELECT a.o, count(d.id) AS d FROM a LEFT JOIN d ON true GROUP BY a.o');
SELECT pgtrickle.create_stream_table('k', 'SELECT b.o, c.d FROM b, c');
CREATE FUNCTION rows_at(source regclass, frontier pg_snapshot) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
	EXECUTE format('SELECT count(*) FROM %s WHERE pg_visible_in_snapshot(xmin::text::xid8, $1)', source) INTO n USING frontier;
	RETURN n;
END $$;
CREATE VIEW frontiers AS
	SELECT pgt_name AS st, frontier IS NULL AS several, shown.o, shown.d,
		frontier IS NULL OR ((shown.o IS NULL OR shown.o = rows_at('o', frontier)) AND (shown.d IS NULL OR shown.d = rows_at('d', frontier))) AS holds
	FROM pgtrickle.pgt_stream_tables s
	JOIN (SELECT 'a' AS st, o, NULL::bigint AS d FROM a UNION ALL SELECT 'b', o, NULL FROM b UNION ALL SELECT 'c', NULL, d FROM c
		UNION ALL SELECT 'm', o, d FROM m UNION ALL SELECT 'k', o, d FROM k) shown ON shown.st = s.pgt_name
	WHERE pgt_schema = 'frontier';
CREATE FUNCTION refresh(VARIADIC names text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE st text;
BEGIN
	FOREACH st IN ARRAY names LOOP
		PERFORM pgtrickle.refresh_stream_table(st);
	END LOOP;
	RETURN array_to_string(names, ' ');
END $$;
SELECT * FROM frontiers ORDER BY st;

-- Each after what it reads, with changes of the other base table in between.
INSERT INTO o VALUES (2);
SELECT refresh('a');
INSERT INTO o VALUES (3);
SELECT refresh('b');
SELECT * FROM frontiers ORDER BY st;
-- m reads a, which is behind, and d as it is: that fits as long as d did not change.
SELECT refresh('m');
SELECT * FROM frontiers WHERE st = 'm';
INSERT INTO d VALUES (2);
SELECT refresh('m');
SELECT * FROM frontiers WHERE st = 'm';
-- a catches up: one snapshot again.
SELECT refresh('a');
SELECT refresh('m');
SELECT * FROM frontiers WHERE st = 'm';
-- Two branches: k needs both at the same.
SELECT refresh('b');
SELECT refresh('k');
SELECT * FROM frontiers WHERE st = 'k';
SELECT refresh('c');
SELECT refresh('k');
SELECT * FROM frontiers WHERE st = 'k';
-- b is behind, but nothing of c's came since that: the frontier is that of b.
INSERT INTO o VALUES (4);
SELECT refresh('k', 'c');
SELECT * FROM frontiers WHERE st IN ('b', 'k') ORDER BY st;
INSERT INTO d VALUES (3);
SELECT refresh('c', 'k');
SELECT * FROM frontiers WHERE st = 'k';
SELECT refresh('a', 'b', 'k');
SELECT * FROM frontiers ORDER BY st;

-- In the transaction that changed the base tables.
BEGIN;
INSERT INTO o VALUES (5);
SELECT refresh('a', 'b');
INSERT INTO o VALUES (6);
SELECT refresh('m', 'k');
COMMIT;
SELECT st, several, o, d FROM frontiers ORDER BY st;
SELECT refresh('a', 'b', 'c', 'm', 'k');
SELECT * FROM frontiers ORDER BY st;
DROP SCHEMA frontier CASCADE;
