-- Traps per operator: aggregates, semi and anti joins, sets, windows, top-k, scalar subqueries, recursion.
-- Quiet unless something is wrong: check_all() shows only differences, compared by image.
SET client_min_messages = error;
CREATE SCHEMA trapo;
SET search_path = trapo, public;
CREATE PROCEDURE check_all() LANGUAGE plpgsql AS $$
DECLARE
	s record;
	how text;
	n int;
BEGIN
	FOR s IN SELECT pgt_relid::regclass::text AS st, rtrim(defining_query, ';') AS q
		FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'trapo' ORDER BY pgt_id LOOP
		PERFORM pgtrickle.refresh_stream_table(s.st, 'DIFFERENTIAL');
		SELECT CASE initiated_by WHEN 'INITIAL' THEN 'NO_DATA' ELSE action END INTO how FROM pgtrickle.get_refresh_history(s.st, 1);
		IF how NOT IN ('DIFFERENTIAL', 'NO_DATA') THEN
			RAISE WARNING '%: %', s.st, how;
		END IF;
		EXECUTE format('SELECT count(*) FROM ((SELECT x::text FROM %1$s x EXCEPT ALL SELECT x::text FROM (%2$s) x)
			UNION ALL (SELECT x::text FROM (%2$s) x EXCEPT ALL SELECT x::text FROM %1$s x)) d', s.st, s.q) INTO n;
		IF n > 0 THEN
			RAISE WARNING '%: % differences', s.st, n;
		END IF;
	END LOOP;
END $$;

CREATE COLLATION no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE f (id int PRIMARY KEY, g int, i4 int, i8 bigint, n numeric, d float8, b bool, s text COLLATE no_case);
CREATE TABLE p (g int, x int);
CREATE TABLE tree (id int PRIMARY KEY, up int);
INSERT INTO f SELECT i, i % 5, i, i, i / 4.0, i / 4.0, i % 2 = 0, CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END || i % 3 FROM generate_series(1, 20) i;
INSERT INTO p SELECT i % 4, i % 3 FROM generate_series(1, 12) i;
INSERT INTO tree SELECT i, nullif(i - 1, 0) FROM generate_series(1, 150) i;

-- A group that comes over the threshold of HAVING shows all of it, one below goes.
SELECT pgtrickle.create_stream_table('hav', 'SELECT g, sum(i8) AS s, count(*) AS c FROM f GROUP BY g HAVING sum(i8) > 45');
-- The sum of int4 and int8 on the way from one state to the next is larger than its type.
SELECT pgtrickle.create_stream_table('big', 'SELECT sum(i4) AS s4, sum(i8) AS s8, avg(i8) AS a8, var_samp(n) AS v, stddev_pop(i4) AS sd FROM f');
SELECT pgtrickle.create_stream_table('bools', 'SELECT g, bool_and(b) AS a, bool_or(b) AS o, every(b) AS e, count(DISTINCT i4 % 3) AS dc, sum(DISTINCT i4 % 3) AS ds FROM f GROUP BY g');
-- A sum whose argument is decided by the row must look at both images; over an outer join that has no match it is null.
SELECT pgtrickle.create_stream_table('cases', 'SELECT g, sum(CASE WHEN b THEN i8 ELSE -i8 END) AS s, count(*) FILTER (WHERE b) AS c FROM f GROUP BY g');
SELECT pgtrickle.create_stream_table('outer_sum', 'SELECT f.id, sum(p.x) AS s, count(p.x) AS c FROM f LEFT JOIN p ON p.g = f.i4 GROUP BY f.id');
-- Keys that are equal and look different.
SELECT pgtrickle.create_stream_table('ci', 'SELECT lower(min(s)) AS s, count(*) AS c, sum(i4) AS t FROM f GROUP BY f.s');
-- Every copy of a row comes back, not one of them.
SELECT pgtrickle.create_stream_table('copies', 'SELECT x FROM p WHERE NOT EXISTS (SELECT FROM f WHERE f.i4 = p.x)');
SELECT pgtrickle.create_stream_table('copies_in', 'SELECT x FROM p WHERE x IN (SELECT i4 FROM f)');
SELECT pgtrickle.create_stream_table('ex_having', 'SELECT g, x FROM p WHERE EXISTS (SELECT 1 FROM f WHERE f.g = p.g GROUP BY f.b HAVING count(*) > 2)');
SELECT pgtrickle.create_stream_table('ex_or', 'SELECT id, g = ALL (SELECT x FROM p) AS all_, g <> ANY (SELECT x FROM p WHERE p.g = f.g) AS any_ FROM f WHERE EXISTS (SELECT FROM p WHERE p.g = f.g AND p.x = 1) OR i4 % 7 = 0');
-- Rows whose two sides cancel stay counted.
SELECT pgtrickle.create_stream_table('ia', 'SELECT g FROM p INTERSECT ALL SELECT g FROM f');
SELECT pgtrickle.create_stream_table('ea', 'SELECT g FROM f EXCEPT ALL SELECT g FROM p');
SELECT pgtrickle.create_stream_table('ed', 'SELECT g FROM p EXCEPT SELECT g FROM f');
SELECT pgtrickle.create_stream_table('dis', 'SELECT DISTINCT g, b FROM f');
-- A row moves from one partition to another; a rank shifts; the first rows are left by an update.
SELECT pgtrickle.create_stream_table('win', 'SELECT id, row_number() OVER (PARTITION BY g ORDER BY i8, id) AS r, lag(i4) OVER (PARTITION BY g ORDER BY i8, id) AS l, sum(i4) OVER (PARTITION BY b ORDER BY id ROWS 2 PRECEDING) AS w FROM f');
SELECT pgtrickle.create_stream_table('top', 'SELECT id, i8 FROM f ORDER BY i8 DESC, id LIMIT 4 OFFSET 2');
SELECT pgtrickle.create_stream_table('ties', 'SELECT g, id FROM f ORDER BY g FETCH FIRST 5 ROWS WITH TIES');
-- No row is a count of 0, and of nothing else; a threshold moves.
SELECT pgtrickle.create_stream_table('scalars', 'SELECT id, (SELECT count(*) FROM p WHERE p.g = f.i4) AS c, (SELECT sum(x) FROM p WHERE p.g = f.i4) AS s, CASE WHEN (SELECT count(*) FROM p WHERE p.g = f.g) = 0 THEN ''none'' END AS w FROM f');
SELECT pgtrickle.create_stream_table('above', 'SELECT id FROM f WHERE i8 > (SELECT avg(i8) FROM f)');
SELECT pgtrickle.create_stream_table('moved', 'SELECT id FROM f WHERE i8 > (SELECT max(g) * 4 FROM p)');
-- Deeper than any limit.
SELECT pgtrickle.create_stream_table('deep', 'WITH RECURSIVE r AS (SELECT id, 1 AS depth FROM tree WHERE up IS NULL UNION ALL SELECT t.id, r.depth + 1 FROM tree t JOIN r ON t.up = r.id) SELECT id, depth FROM r');
SELECT max(depth) FROM deep;

SET client_min_messages = warning;
CALL check_all();
UPDATE f SET i8 = i8 + 30 WHERE id IN (1, 2); UPDATE f SET i8 = 0 WHERE id IN (20, 15);
CALL check_all();
INSERT INTO f SELECT 100 + i, 1, 2147483647, 9223372036854775807, 1e100, 1, NULL, 'B1' FROM generate_series(1, 3) i;
DELETE FROM tree WHERE id = 120; INSERT INTO tree VALUES (500, 149), (501, NULL), (502, 501);
CALL check_all();
DELETE FROM f WHERE id > 100; INSERT INTO p SELECT 7, 9 FROM generate_series(1, 3);
CALL check_all();
UPDATE f SET b = NOT b, s = upper(s); UPDATE f SET g = g + 1 WHERE id % 4 = 0; UPDATE tree SET up = 60 WHERE id = 121;
CALL check_all();
INSERT INTO f VALUES (30, NULL, 0, 0, 'NaN', 0, true, NULL), (31, 7, 9, NULL, NULL, NULL, NULL, 'A0');
CALL check_all();
DELETE FROM f WHERE i4 IN (0, 1, 2, 9); UPDATE p SET x = NULL WHERE x = 0;
CALL check_all();
UPDATE f SET i4 = 2 WHERE id = 5; DELETE FROM p WHERE ctid = (SELECT min(ctid) FROM p WHERE g = 2); UPDATE p SET g = 1 WHERE g = 3; UPDATE f SET i8 = -i8 WHERE id > 12;
CALL check_all();
DELETE FROM f WHERE g = 3; DELETE FROM p WHERE g = 1; UPDATE tree SET up = NULL WHERE id = 2; UPDATE f SET g = 3, id = id + 200 WHERE g = 2;
CALL check_all();
DELETE FROM p; DELETE FROM f; DELETE FROM tree WHERE up IS NULL;
CALL check_all();
INSERT INTO p VALUES (1, 1), (1, 1), (NULL, NULL); INSERT INTO f VALUES (1, 1, 1, 1, 1.00, 1, true, 'x'), (2, NULL, 1, 1, 1.0, -0.0, NULL, 'X');
CALL check_all();
SET client_min_messages = error;
DROP SCHEMA trapo CASCADE;
