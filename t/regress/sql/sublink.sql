-- Subqueries in expressions and LATERAL subqueries: what they answer for a row follows the change.
SET client_min_messages = error;
CREATE SCHEMA sublink;
SET search_path = sublink, public;

CREATE TABLE c (id int PRIMARY KEY, name text, n int);
CREATE TABLE o (id int PRIMARY KEY, cid int, v int, k int NOT NULL);
CREATE INDEX ON o (cid);
INSERT INTO c SELECT i, 'c' || i % 20, nullif(i % 7, 0) FROM generate_series(1, 50) i;
INSERT INTO o SELECT i, nullif(i % 40, 0), i % 13, i % 5 FROM generate_series(1, 200) i;

CREATE TABLE made (st text, query text);
INSERT INTO made VALUES
	('exists_dup', 'SELECT c.id, c.name FROM c WHERE EXISTS (SELECT 1 FROM o WHERE o.cid = c.id AND o.v > 10)'),
	('exists_nothing_shown', 'SELECT c.id FROM c WHERE EXISTS (SELECT FROM o WHERE o.cid = c.id AND o.k = 2)'),
	('not_exists', 'SELECT c.id, c.name FROM c WHERE NOT EXISTS (SELECT 1 FROM o WHERE o.cid = c.id AND o.v > 5)'),
	('in_plain', 'SELECT c.id, c.name FROM c WHERE c.id IN (SELECT cid FROM o WHERE v > 6)'),
	('in_groups', 'SELECT c.id FROM c WHERE c.id IN (SELECT cid FROM o GROUP BY cid HAVING sum(v) > 30)'),
	('in_columns', 'SELECT c.id, c.name FROM c WHERE (c.id, c.n) IN (SELECT cid, k FROM o)'),
	('in_distinct', 'SELECT c.name FROM c WHERE c.n IN (SELECT DISTINCT k FROM o WHERE v = 7)'),
	('not_in_nulls', 'SELECT c.id, c.name FROM c WHERE c.n NOT IN (SELECT cid FROM o WHERE v > 10)'),
	('not_in_not_null', 'SELECT c.id, c.name FROM c WHERE c.id NOT IN (SELECT k FROM o WHERE v > 10)'),
	('not_in_columns', 'SELECT c.id FROM c WHERE (c.n, c.id) NOT IN (SELECT k, cid FROM o WHERE v = 3)'),
	('not_in_union', 'SELECT c.id FROM c WHERE c.n NOT IN (SELECT k FROM o WHERE v = 3 UNION ALL SELECT cid FROM o WHERE v = 4)'),
	('any_greater', 'SELECT c.id, c.name FROM c WHERE c.n > ANY (SELECT v FROM o WHERE o.cid = c.id)'),
	('all_greater', 'SELECT c.id, c.name FROM c WHERE c.n >= ALL (SELECT v FROM o WHERE o.cid = c.id)'),
	('under_or', 'SELECT c.id, c.name FROM c WHERE c.n = 3 OR EXISTS (SELECT 1 FROM o WHERE o.cid = c.id AND o.v = 2)'),
	('in_case', 'SELECT c.id, CASE WHEN c.id IN (SELECT cid FROM o WHERE v = 3) THEN 1
		WHEN EXISTS (SELECT 1 FROM o WHERE o.cid = c.id AND k = 1) THEN 2 ELSE 3 END AS x FROM c'),
	('three_values', 'SELECT c.name, c.n IN (SELECT cid FROM o WHERE v = 3) AS b, c.n < ALL (SELECT cid FROM o WHERE k = 2) AS a FROM c'),
	('correlated', 'SELECT c.id, (SELECT count(*) FROM o WHERE o.cid = c.id) AS n,
		(SELECT max(v) FROM o WHERE o.cid = c.id AND k = 2) AS m FROM c'),
	('without_key', 'SELECT c.name, (SELECT sum(v) FROM o WHERE o.cid = c.n) AS s FROM c'),
	('threshold', 'SELECT o.id, o.v FROM o WHERE o.v > (SELECT avg(v) FROM o)'),
	('threshold_own', 'SELECT o.id, o.v FROM o WHERE o.v > (SELECT avg(v) FROM o p WHERE p.cid = o.cid)'),
	('one_value_shown', 'SELECT o.id, (SELECT array_agg(id ORDER BY id) FROM c WHERE n = 3) AS a FROM o WHERE k = 1'),
	('one_value_or_none', 'SELECT c.id, c.n > (SELECT v FROM o WHERE id = 7) AS b FROM c WHERE c.n = (SELECT max(k) FROM o HAVING count(*) > 150)'),
	('as_array', 'SELECT c.id, ARRAY(SELECT v FROM o WHERE o.cid = c.id ORDER BY v DESC, id) AS a FROM c'),
	('on_outer_join', 'SELECT c.id, o.id AS oid FROM c LEFT JOIN o ON o.cid = c.id
		AND EXISTS (SELECT 1 FROM o p WHERE p.k = o.k AND p.v = c.n)'),
	('about_absent', 'SELECT c.id, o.id AS oid, (SELECT count(*) FROM o p WHERE p.cid IS NOT DISTINCT FROM o.cid) AS n
		FROM c LEFT JOIN o ON o.id = c.id'),
	('nested', 'SELECT c.id FROM c WHERE EXISTS (SELECT 1 FROM o WHERE o.cid = c.id
		AND NOT EXISTS (SELECT 1 FROM o p WHERE p.cid = o.cid AND p.v > o.v))'),
	('two_levels_up', 'SELECT c.id FROM c WHERE EXISTS (SELECT 1 FROM o WHERE o.k = c.n
		AND EXISTS (SELECT 1 FROM o p WHERE p.cid = c.id AND p.v = o.v))'),
	('of_union', 'SELECT c.id FROM c WHERE EXISTS (SELECT 1 FROM o WHERE o.cid = c.id AND v = 1 UNION ALL SELECT 1 FROM o WHERE o.k = c.id)'),
	('in_view_column', 'SELECT s.n, s.id FROM (SELECT c.id, (SELECT count(*) FROM o WHERE o.cid = c.id) AS n FROM c) s WHERE s.n > 4'),
	('in_where_of_groups', 'SELECT k, count(*) AS n, sum(v) AS s FROM o WHERE EXISTS (SELECT 1 FROM c WHERE c.id = o.cid AND c.n > 2) GROUP BY k'),
	('in_where_of_all', 'SELECT count(*) AS n, max(v) AS m FROM o WHERE cid IN (SELECT id FROM c WHERE n = 4)'),
	('in_having', 'SELECT k, sum(v) AS s FROM o GROUP BY k HAVING sum(v) > (SELECT sum(v) * 0.2 FROM o)'),
	('in_having_exists', 'SELECT k, sum(v) AS s FROM o GROUP BY k HAVING EXISTS (SELECT 1 FROM c WHERE c.n = o.k AND c.id < sum(o.v))'),
	('beside_groups', 'SELECT k, sum(v) AS s, (SELECT count(*) FROM c WHERE c.n = o.k) AS n FROM o GROUP BY k'),
	('in_aggregate', 'SELECT k, sum((SELECT n FROM c WHERE c.id = o.cid)) AS s FROM o GROUP BY k'),
	('in_group_key', 'SELECT (SELECT n FROM c WHERE c.id = o.cid) AS n, count(*) AS m FROM o GROUP BY 1'),
	('in_distinct_rows', 'SELECT DISTINCT k, cid IN (SELECT id FROM c WHERE n = 2) AS b FROM o'),
	('in_limited', 'SELECT c.id FROM c WHERE c.id IN (SELECT cid FROM o ORDER BY v DESC, id LIMIT 9)'),
	('in_limited_own', 'SELECT c.id FROM c WHERE c.n IN (SELECT k FROM o WHERE o.cid = c.id ORDER BY v DESC, id LIMIT 1)'),
	('in_window', 'SELECT o.id, rank() OVER (PARTITION BY o.cid IN (SELECT id FROM c WHERE n = 2) ORDER BY o.v) AS r FROM o WHERE k = 2'),
	('in_top', 'SELECT o.id, o.v FROM o WHERE EXISTS (SELECT 1 FROM c WHERE c.id = o.cid AND c.n > 2) ORDER BY o.v DESC, o.id LIMIT 7'),
	('lateral_on_left', 'SELECT c.id, s.t FROM c LEFT JOIN LATERAL (SELECT sum(v) AS t FROM o WHERE o.cid = c.id) s ON c.n > 3'),
	('lateral_latest', 'SELECT c.id, s.id AS sid FROM c LEFT JOIN LATERAL (SELECT id FROM o WHERE o.cid = c.id ORDER BY v DESC, id LIMIT 1) s ON true'),
	('lateral_sum', 'SELECT c.id, s.t FROM c, LATERAL (SELECT sum(v) AS t FROM o WHERE o.cid = c.id) s'),
	('lateral_rows', 'SELECT c.id, s.id AS sid, s.v FROM c CROSS JOIN LATERAL (SELECT id, v FROM o WHERE o.cid = c.id) s'),
	('lateral_absent', 'SELECT c.id, s.g, s.n FROM c LEFT JOIN LATERAL (SELECT k AS g, count(*) AS n FROM o WHERE o.cid = c.id GROUP BY k) s ON s.n > 1');
SELECT st, pgtrickle.create_stream_table(st, query, schedule => '1d') FROM made;

-- Refreshes all; shows those that differ from their query, and those that computed everything.
CREATE FUNCTION wrong() RETURNS TABLE (st text, differences bigint, action text) LANGUAGE plpgsql AS $$
DECLARE
	m record;
BEGIN
	FOR m IN SELECT * FROM made LOOP
		st := m.st;
		PERFORM pgtrickle.refresh_stream_table(m.st);
		EXECUTE format('SELECT count(*) FROM ((TABLE %1$I EXCEPT ALL (%2$s)) UNION ALL ((%2$s) EXCEPT ALL TABLE %1$I)) x', m.st, m.query)
			INTO differences;
		SELECT h.action INTO action FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables s USING (pgt_id)
			WHERE s.pgt_name = m.st AND s.pgt_schema = 'sublink' ORDER BY refresh_id DESC LIMIT 1;
		IF differences > 0 OR action NOT IN ('DIFFERENTIAL', 'NO_DATA') THEN
			RETURN NEXT;
		END IF;
	END LOOP;
END $$;
SELECT count(*) AS filled FROM wrong();

-- Each side alone, then both.
UPDATE o SET v = v + 1 WHERE id % 10 = 3;
INSERT INTO o VALUES (1001, 5, 3, 1), (1002, NULL, 20, 2), (1003, 5, 3, 1);
DELETE FROM o WHERE id BETWEEN 20 AND 30;
SELECT * FROM wrong();
UPDATE c SET n = 3 WHERE id % 5 = 0;
DELETE FROM c WHERE id IN (3, 9);
INSERT INTO c VALUES (100, 'new', NULL), (101, 'c1', 2);
SELECT * FROM wrong();
UPDATE o SET cid = cid + 1, v = 11 WHERE id % 7 = 0;
UPDATE c SET id = id + 200, n = n + 1 WHERE id % 11 = 0;
INSERT INTO o VALUES (2000, 7, 40, 3);
SELECT * FROM wrong();
-- The last NULL goes, the first comes back.
DELETE FROM o WHERE cid IS NULL;
SELECT * FROM wrong();
INSERT INTO o VALUES (2001, NULL, 11, 3);
INSERT INTO o VALUES (2002, NULL, 3, 4);
SELECT * FROM wrong();
-- Duplicates come and go; a match goes from one to two to one to none.
INSERT INTO o SELECT i, 3, 3, 3 FROM generate_series(3000, 3002) i;
SELECT * FROM wrong();
DELETE FROM o WHERE id = 3000;
SELECT * FROM wrong();
DELETE FROM o WHERE cid = 3;
SELECT * FROM wrong();
-- Nothing at all, and everything again.
DELETE FROM o;
SELECT * FROM wrong();
INSERT INTO o SELECT i, nullif(i % 40, 0), i % 13, i % 5 FROM generate_series(1, 200) i;
DELETE FROM c;
SELECT * FROM wrong();
INSERT INTO c SELECT i, 'c' || i % 20, nullif(i % 7, 0) FROM generate_series(1, 50) i;
SELECT * FROM wrong();
SELECT count(*) > 0 AS not_empty FROM three_values;

-- A child may hold the NULL that its parent refuses.
CREATE TABLE p (y int NOT NULL);
CREATE TABLE p1 () INHERITS (p);
DO $$ BEGIN
	IF current_setting('server_version_num')::int < 180000 THEN
		ALTER TABLE p1 ALTER y DROP NOT NULL;
		INSERT INTO p1 VALUES (NULL);
		DELETE FROM p1;
	END IF;
END $$;
SELECT pgtrickle.create_stream_table('inherited', 'SELECT id FROM c WHERE id NOT IN (SELECT y FROM p)', schedule => '1d');
INSERT INTO p VALUES (1), (2);
SELECT pgtrickle.refresh_stream_table('inherited');
SELECT count(*) FROM inherited;
DO $$ BEGIN
	IF current_setting('server_version_num')::int < 180000 THEN
		INSERT INTO p1 VALUES (NULL);
	ELSE
		DELETE FROM c; -- there such a child cannot be
	END IF;
END $$;
SELECT pgtrickle.refresh_stream_table('inherited');
SELECT count(*) FROM inherited;
INSERT INTO c VALUES (5, 'c5', 5) ON CONFLICT DO NOTHING;

-- How they are maintained.
SELECT DISTINCT construct, technique FROM made, pgtrickle.validate_query(query) WHERE construct ~ 'subquery|LATERAL' ORDER BY 1;

-- A scalar subquery that gives two rows is an error until the data is mended.
SELECT pgtrickle.create_stream_table('one', 'SELECT c.id, (SELECT v FROM o WHERE o.cid = c.id AND o.k = 9) AS v FROM c WHERE c.id = 5', schedule => '1d');
INSERT INTO o VALUES (4000, 5, 1, 9), (4001, 5, 2, 9);
DO $$ BEGIN
	PERFORM pgtrickle.refresh_stream_table('one');
EXCEPTION WHEN cardinality_violation THEN
	RAISE INFO 'refused: %', SQLERRM;
END $$;
DELETE FROM o WHERE id = 4001;
SELECT pgtrickle.refresh_stream_table('one');
TABLE one;
DROP SCHEMA sublink CASCADE;
