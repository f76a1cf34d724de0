-- NOT IN, and IN where null counts: nulls on both sides, several columns, correlated, from empty to null and back.
SET client_min_messages = error;
CREATE SCHEMA not_in;
SET search_path = not_in, public;
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
		LATERAL refreshed(pgt_relid::regclass::text) r WHERE pgt_schema = 'not_in' ORDER BY 1, 2 LOOP
		RAISE WARNING '%: %', d.st, d.difference;
	END LOOP;
END $$;


CREATE TABLE o (id int PRIMARY KEY, a int, b text, g int);
CREATE TABLE i (id int PRIMARY KEY, x int, y text, g int);
CREATE TABLE n (x int NOT NULL, y text NOT NULL);
INSERT INTO o VALUES (1, 1, 'p', 1), (2, 2, 'q', 1), (3, NULL, 'p', 2), (4, 4, NULL, 2), (5, NULL, NULL, 3), (6, 1, 'q', 4), (7, 9, 'z', NULL);

SELECT pgtrickle.create_stream_table('plain', 'SELECT id, a FROM o WHERE a NOT IN (SELECT x FROM i)');
SELECT pgtrickle.create_stream_table('not_all', 'SELECT id FROM o WHERE a <> ALL (SELECT x FROM i)');
SELECT pgtrickle.create_stream_table('negated', 'SELECT id FROM o WHERE NOT (a IN (SELECT x FROM i))');
SELECT pgtrickle.create_stream_table('two', 'SELECT id, a, b FROM o WHERE (a, b) NOT IN (SELECT x, y FROM i)');
SELECT pgtrickle.create_stream_table('two_in', 'SELECT id, a, b FROM o WHERE (a, b) IN (SELECT x, y FROM i)');
SELECT pgtrickle.create_stream_table('correlated', 'SELECT id, a FROM o WHERE a NOT IN (SELECT x FROM i WHERE i.g = o.g)');
SELECT pgtrickle.create_stream_table('correlated_null', 'SELECT id FROM o WHERE (a, b) NOT IN (SELECT x, y FROM i WHERE i.g IS NOT DISTINCT FROM o.g)');
SELECT pgtrickle.create_stream_table('shown', 'SELECT id, a NOT IN (SELECT x FROM i) AS not_in, (a, b) IN (SELECT x, y FROM i WHERE i.g = o.g) AS is_in FROM o');
SELECT pgtrickle.create_stream_table('is_unknown', 'SELECT id FROM o WHERE (a NOT IN (SELECT x FROM i)) IS UNKNOWN');
SELECT pgtrickle.create_stream_table('or_else', 'SELECT id FROM o WHERE a NOT IN (SELECT x FROM i) OR g = 2');
SELECT pgtrickle.create_stream_table('grouped', 'SELECT g, count(*) AS n FROM o WHERE a NOT IN (SELECT max(x) FROM i GROUP BY g) GROUP BY g');
SELECT pgtrickle.create_stream_table('of_distinct', 'SELECT id FROM o WHERE a NOT IN (SELECT DISTINCT x FROM i WHERE x IS NOT NULL)');
SELECT pgtrickle.create_stream_table('of_limit', 'SELECT id FROM o WHERE a NOT IN (SELECT x FROM i ORDER BY x DESC NULLS FIRST, id LIMIT 2)');
SELECT pgtrickle.create_stream_table('of_union', 'SELECT id FROM o WHERE a NOT IN (SELECT x FROM i WHERE g = 1 UNION ALL SELECT x FROM n)');
SELECT pgtrickle.create_stream_table('of_except', 'SELECT id FROM o WHERE (a, b) NOT IN (SELECT x, y FROM i EXCEPT SELECT x, y FROM n)');
SELECT pgtrickle.create_stream_table('not_null', 'SELECT id FROM o WHERE (a, b) NOT IN (SELECT x, y FROM n)');
SELECT pgtrickle.create_stream_table('nested', 'SELECT id FROM o WHERE a NOT IN (SELECT x FROM i WHERE y NOT IN (SELECT y FROM n WHERE n.x = i.x))');
SELECT pgtrickle.create_stream_table('self', 'SELECT id FROM o WHERE a NOT IN (SELECT g FROM o)');
SELECT pgtrickle.create_stream_table('below_outer', 'SELECT o.id, i.id AS iid FROM o LEFT JOIN i ON i.g = o.g AND i.x NOT IN (SELECT x FROM n)');
SELECT pgtrickle.create_stream_table('of_outer', 'SELECT o.id, i.id AS iid FROM o LEFT JOIN i ON i.g = o.g WHERE i.x NOT IN (SELECT x FROM n)');
SELECT pgtrickle.create_stream_table('in_having', 'SELECT g, count(a) AS n FROM o GROUP BY g HAVING count(a) NOT IN (SELECT x FROM i)');
SELECT pgt_name FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'not_in' AND refresh_mode = 'FULL' ORDER BY 1;
SELECT name, explain_refresh_mode.reason FROM unnest('{plain,two,correlated,shown,in_having}'::text[]) name, pgtrickle.explain_refresh_mode(name) WHERE effective_mode = 'FULL';

-- The subquery is empty: NOT IN is true even for null.
CALL check_all(); SELECT * FROM plain ORDER BY 1; SELECT * FROM is_unknown ORDER BY 1;
-- From empty to null: nothing is NOT IN.
INSERT INTO i VALUES (1, NULL, NULL, 1);
CALL check_all(); SELECT * FROM plain ORDER BY 1; SELECT * FROM is_unknown ORDER BY 1;
-- Back to empty, then a value, then null beside it.
DELETE FROM i;
CALL check_all(); SELECT * FROM plain ORDER BY 1;
INSERT INTO i VALUES (2, 1, 'p', 1);
CALL check_all(); SELECT * FROM plain ORDER BY 1; SELECT * FROM two ORDER BY 1;
INSERT INTO i VALUES (3, NULL, 'p', 2), (4, 4, NULL, 2);
CALL check_all(); SELECT * FROM two ORDER BY 1;
-- A null becomes a value and a value null.
UPDATE i SET x = 2, y = 'q' WHERE id = 3; UPDATE i SET x = NULL WHERE id = 2;
CALL check_all();
UPDATE i SET x = 1 WHERE id = 2; UPDATE o SET a = NULL WHERE id = 1; UPDATE o SET a = 3 WHERE id = 3;
CALL check_all();
-- Only one column of two is null, on one side and on the other; that decides if the other column differs.
UPDATE i SET x = 1, y = NULL; UPDATE o SET a = 1, b = NULL WHERE id IN (2, 6);
CALL check_all(); SELECT * FROM two ORDER BY 1;
UPDATE i SET x = NULL, y = 'z' WHERE id = 2; UPDATE o SET a = NULL, b = 'q' WHERE id = 2; INSERT INTO n VALUES (1, 'q'), (3, 'p'), (3, 'p');
CALL check_all();
-- Null moves to another group; both sides change at once.
UPDATE i SET g = coalesce(g, 0) + 1; UPDATE o SET g = NULL WHERE g = 3; DELETE FROM n WHERE x = 1;
CALL check_all();
UPDATE i SET g = NULL WHERE id = 4; INSERT INTO i VALUES (5, NULL, NULL, NULL), (6, 9, 'z', NULL); INSERT INTO o VALUES (8, NULL, 'z', NULL), (9, 9, 'z', 1); DELETE FROM o WHERE id = 4;
CALL check_all();
DELETE FROM i WHERE x IS NULL; TRUNCATE n;
CALL check_all();
TRUNCATE i;
CALL check_all(); SELECT * FROM plain ORDER BY 1; SELECT * FROM shown ORDER BY 1;
INSERT INTO i SELECT k, CASE WHEN k % 7 > 0 THEN k % 5 END, CASE WHEN k % 3 > 0 THEN 'p' END, k % 4 FROM generate_series(10, 60) k;
INSERT INTO o SELECT k, CASE WHEN k % 6 > 0 THEN k % 9 END, CASE WHEN k % 4 > 0 THEN 'q' END, k % 5 FROM generate_series(10, 60) k;
CALL check_all();
DELETE FROM i WHERE x IS NULL OR y IS NULL;
CALL check_all();
DROP SCHEMA not_in CASCADE;
