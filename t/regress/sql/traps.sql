-- Traps that broke other engines, each as the smallest history that shows it.
-- After every refresh the stream table must equal its query, row for row and
-- by image. Quiet unless something is wrong: a check prints only differences.
\set ON_ERROR_STOP 1
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_trickle;
SELECT count(*) AS before FROM pgtrickle.pgt_definitions \gset
CREATE SCHEMA traps;
SET search_path = traps, public;

CREATE FUNCTION check_st(st text) RETURNS TABLE (difference text) LANGUAGE plpgsql AS $$
DECLARE
	q text;
BEGIN
	SELECT rtrim(defining_query, ';') INTO STRICT q FROM pgtrickle.pgt_stream_tables
		WHERE pgt_relid = st::regclass;
	PERFORM pgtrickle.refresh_stream_table(st);
	RETURN QUERY EXECUTE format(
		'SELECT ''too many: '' || x::text FROM (SELECT x::text FROM %1$s x EXCEPT ALL SELECT x::text FROM (%2$s) x) x
		 UNION ALL SELECT ''missing: '' || x::text FROM (SELECT x::text FROM (%2$s) x EXCEPT ALL SELECT x::text FROM %1$s x) x',
		st, q);
END $$;
-- The last refresh of a stream table must not have been a silent FULL.
CREATE FUNCTION last_action(st text) RETURNS text LANGUAGE sql AS
	$$ SELECT action FROM pgtrickle.get_refresh_history(st, 1) $$;

-- Join key changed while the row of the other side goes.
CREATE TABLE l (id int PRIMARY KEY, k int, v text);
CREATE TABLE r (id int PRIMARY KEY, k int, w text);
INSERT INTO l SELECT i, i % 4, 'l' || i FROM generate_series(1, 8) i;
INSERT INTO r SELECT i, i % 4, 'r' || i FROM generate_series(1, 8) i;
SELECT pgtrickle.create_stream_table('j', 'SELECT l.id, l.v, r.id AS rid, r.w FROM l JOIN r ON l.k = r.k');
SELECT pgtrickle.create_stream_table('jrow', 'SELECT l.v, r.w FROM l JOIN r ON l.k = r.k');
BEGIN; UPDATE l SET k = 3 WHERE id = 1; DELETE FROM r WHERE k = 1; COMMIT;
SELECT * FROM check_st('j'); SELECT * FROM check_st('jrow');
SELECT last_action('j'), last_action('jrow');

-- Both sides, and one row several times, in one transaction; a key is updated and given back.
BEGIN;
UPDATE l SET k = k + 1; UPDATE r SET k = k + 1; UPDATE l SET k = 2 WHERE id = 2;
UPDATE l SET k = 5 WHERE id = 2; UPDATE l SET id = id + 100 WHERE id = 3; INSERT INTO l VALUES (3, 2, 'new');
DELETE FROM l WHERE id = 4; INSERT INTO l VALUES (4, 3, 'again'); DELETE FROM r WHERE id IN (5, 6);
COMMIT;
SELECT * FROM check_st('j'); SELECT * FROM check_st('jrow');
SELECT last_action('j'), last_action('jrow');

-- NULL in join keys never matches; keyless duplicates are copies.
CREATE TABLE n (k int, t text);
INSERT INTO n VALUES (NULL, 'a'), (NULL, 'a'), (1, 'b'), (1, 'b'), (1, 'b');
SELECT pgtrickle.create_stream_table('jn', 'SELECT n.t, l.v FROM n JOIN l ON n.k = l.k');
SELECT pgtrickle.create_stream_table('dup', 'SELECT k, t FROM n WHERE t <> ''z''');
DELETE FROM n WHERE ctid = (SELECT min(ctid) FROM n WHERE k = 1);
INSERT INTO n VALUES (NULL, 'a'), (3, NULL), (3, 'z'); UPDATE l SET k = NULL WHERE id = 8;
SELECT * FROM check_st('jn'); SELECT * FROM check_st('dup');
UPDATE n SET k = 3 WHERE k IS NULL; UPDATE n SET t = 'b' WHERE t = 'z';
SELECT * FROM check_st('jn'); SELECT * FROM check_st('dup');
SELECT last_action('jn'), last_action('dup');

-- Groups: NULL keys, groups that vanish and return, sums over only NULLs, FILTER, CASE on both images.
CREATE TABLE g (id int PRIMARY KEY, k int, x int, b bigint, n numeric, f float8, ok boolean);
INSERT INTO g SELECT i, nullif(i % 4, 3), nullif(i, 6), i, i / 4.0, i, i % 2 = 0 FROM generate_series(1, 12) i;
SELECT pgtrickle.create_stream_table('agg', $$
	SELECT k, count(*) AS n, count(x) AS c, sum(x) AS sx, avg(x) AS ax, sum(b) AS sb, sum(n) AS sn,
		avg(n) AS an, stddev_pop(b) AS sd, sum(x) FILTER (WHERE ok) AS fx,
		sum(CASE WHEN ok THEN x ELSE 0 END) AS cx, sum(x) + count(*) AS e
	FROM g GROUP BY k$$);
SELECT pgtrickle.create_stream_table('agg2', $$
	SELECT k, min(x) AS mi, max(n) AS ma, sum(f) AS sf, bool_and(ok) AS ba,
		string_agg(x::text, ',' ORDER BY id) AS s, count(DISTINCT x) AS cd
	FROM g GROUP BY k$$);
SELECT pgtrickle.create_stream_table('hav', 'SELECT k, sum(x) AS s FROM g GROUP BY k HAVING count(*) > 2');
SELECT pgtrickle.create_stream_table('one', 'SELECT count(*) AS n, sum(x) AS s, max(x) AS m FROM g WHERE ok');
DELETE FROM g WHERE k = 1;
SELECT * FROM check_st('agg'); SELECT * FROM check_st('agg2'); SELECT * FROM check_st('hav'); SELECT * FROM check_st('one');
INSERT INTO g VALUES (1, 1, NULL, NULL, NULL, NULL, NULL); UPDATE g SET ok = NOT ok, x = x + 1 WHERE k IS NULL;
SELECT * FROM check_st('agg'); SELECT * FROM check_st('agg2'); SELECT * FROM check_st('hav'); SELECT * FROM check_st('one');
UPDATE g SET k = 2 WHERE id IN (1, 4, 8); UPDATE g SET x = NULL WHERE k = 2;
SELECT * FROM check_st('agg'); SELECT * FROM check_st('agg2'); SELECT * FROM check_st('hav'); SELECT * FROM check_st('one');
DELETE FROM g;
SELECT * FROM check_st('agg'); SELECT * FROM check_st('agg2'); SELECT * FROM check_st('hav'); SELECT * FROM check_st('one');
SELECT * FROM one;
INSERT INTO g VALUES (1, 1, 1, 1, 1, 1, true);
SELECT * FROM check_st('agg'); SELECT * FROM check_st('agg2'); SELECT * FROM check_st('hav'); SELECT * FROM check_st('one');
SELECT last_action('agg'), last_action('agg2'), last_action('hav'), last_action('one');

-- Numeric: display scale shrinks again, NaN and infinities leave; float cancellation.
UPDATE g SET n = 1.2345; INSERT INTO g VALUES (2, 1, 1, 1, 5, 1e20, true);
SELECT * FROM check_st('agg'); SELECT * FROM check_st('agg2');
DELETE FROM g WHERE id = 1;
SELECT * FROM check_st('agg'); SELECT sn, an FROM agg;
INSERT INTO g VALUES (3, 1, 1, 1, 'NaN', 1, true), (4, 1, 1, 1, 'Infinity', 1, true);
SELECT * FROM check_st('agg');
DELETE FROM g WHERE id = 3; SELECT * FROM check_st('agg');
DELETE FROM g WHERE id = 4; SELECT * FROM check_st('agg');
INSERT INTO g VALUES (5, 1, 1, 1, 1, 1, true); DELETE FROM g WHERE id = 2;
SELECT * FROM check_st('agg2'); SELECT sf FROM agg2;

-- Images, not equality: 1.0 and 1.00, 0.0 and -0.0; DISTINCT by equality.
CREATE TABLE img (n numeric, f float8, j json);
INSERT INTO img VALUES (1.0, 0.0, '{"a": 1}'), (1.00, '-0', '{"a":1}'), (1.000, 0.0, '{"a": 1}');
SELECT pgtrickle.create_stream_table('im', 'SELECT n, f, j FROM img WHERE n > 0');
SELECT pgtrickle.create_stream_table('di', 'SELECT DISTINCT n FROM img');
DELETE FROM img WHERE n::text = '1.00';
SELECT * FROM check_st('im'); SELECT count(*) FROM check_st('di'); SELECT n::numeric(10,0) FROM di;
DELETE FROM img; SELECT * FROM check_st('im'); SELECT * FROM check_st('di');
SELECT last_action('im'), last_action('di');

-- Outer joins: match counts 0-1-2-1-0, NULL keys, full joins with equal all-NULL rows, WHERE after ON.
CREATE TABLE o1 (id int PRIMARY KEY, k int, t text);
CREATE TABLE o2 (id int PRIMARY KEY, k int, u text);
INSERT INTO o1 VALUES (1, 1, 'a'), (2, 2, 'b'), (3, NULL, 'c'), (4, NULL, 'c');
SELECT pgtrickle.create_stream_table('lj', 'SELECT o1.id, o1.t, o2.u FROM o1 LEFT JOIN o2 ON o1.k = o2.k');
SELECT pgtrickle.create_stream_table('ljk', 'SELECT o1.id, o1.t, o2.id AS id2, o2.u FROM o1 LEFT JOIN o2 ON o1.k = o2.k');
SELECT pgtrickle.create_stream_table('fj', 'SELECT o1.t, o2.u FROM o1 FULL JOIN o2 ON o1.k = o2.k');
SELECT pgtrickle.create_stream_table('fjk', 'SELECT o1.id, o2.id AS id2, coalesce(o1.t, o2.u) AS c FROM o1 FULL JOIN o2 ON o1.k = o2.k');
SELECT pgtrickle.create_stream_table('ljg', 'SELECT o1.t, count(o2.id) AS n, sum(o2.k) AS s FROM o1 LEFT JOIN o2 ON o1.k = o2.k AND o2.u <> ''z'' GROUP BY o1.t');
SELECT pgtrickle.create_stream_table('ljw', 'SELECT o1.id FROM o1 LEFT JOIN o2 ON o1.k = o2.k WHERE o2.id IS NULL');
INSERT INTO o2 VALUES (1, 1, 'x');
SELECT * FROM check_st('lj'); SELECT * FROM check_st('ljk'); SELECT * FROM check_st('fj'); SELECT * FROM check_st('fjk'); SELECT * FROM check_st('ljg'); SELECT * FROM check_st('ljw');
INSERT INTO o2 VALUES (2, 1, 'y'), (3, NULL, NULL), (4, NULL, NULL);
SELECT * FROM check_st('lj'); SELECT * FROM check_st('ljk'); SELECT * FROM check_st('fj'); SELECT * FROM check_st('fjk'); SELECT * FROM check_st('ljg'); SELECT * FROM check_st('ljw');
DELETE FROM o2 WHERE id = 1; UPDATE o1 SET t = NULL, k = NULL WHERE id = 4;
SELECT * FROM check_st('lj'); SELECT * FROM check_st('ljk'); SELECT * FROM check_st('fj'); SELECT * FROM check_st('fjk'); SELECT * FROM check_st('ljg'); SELECT * FROM check_st('ljw');
BEGIN; UPDATE o1 SET k = 2 WHERE id = 1; UPDATE o2 SET k = 2, u = 'z' WHERE id = 2; COMMIT;
SELECT * FROM check_st('lj'); SELECT * FROM check_st('ljk'); SELECT * FROM check_st('fj'); SELECT * FROM check_st('fjk'); SELECT * FROM check_st('ljg'); SELECT * FROM check_st('ljw');
BEGIN; DELETE FROM o2; DELETE FROM o1 WHERE id = 1; COMMIT;
SELECT * FROM check_st('lj'); SELECT * FROM check_st('ljk'); SELECT * FROM check_st('fj'); SELECT * FROM check_st('fjk'); SELECT * FROM check_st('ljg'); SELECT * FROM check_st('ljw');
SELECT last_action('lj'), last_action('ljk'), last_action('fj'), last_action('fjk'), last_action('ljg'), last_action('ljw');

-- Outer joins that make more kinds of rows than are taken apart: FULL with the reason, no error later.
SELECT pgtrickle.create_stream_table('many', 'SELECT a.id, b.id AS b, c.id AS c, d.id AS d, e.id AS e FROM o1 a FULL JOIN o2 b USING (k) FULL JOIN o1 c USING (k) FULL JOIN o2 d USING (k) FULL JOIN o1 e USING (k)');
INSERT INTO o1 VALUES (9, 9, 'm'); INSERT INTO o2 VALUES (9, 9, 'm');
SELECT * FROM check_st('many'); SELECT last_action('many'); SELECT reason FROM pgtrickle.explain_refresh_mode('many');

-- Views over views, one CTE twice, aggregates over aggregates, UNION ALL with duplicates.
CREATE VIEW v1 AS SELECT id, k, x FROM g WHERE x IS NOT NULL;
CREATE VIEW v2(key, total) AS SELECT k, sum(x) FROM v1 GROUP BY k;
SELECT pgtrickle.create_stream_table('vv', 'SELECT a.key, a.total, b.total AS other FROM v2 a JOIN v2 b ON a.key = b.key + 1');
SELECT pgtrickle.create_stream_table('cte', 'WITH t AS (SELECT k, count(*) AS n FROM g GROUP BY k) SELECT a.k, a.n, b.n AS m FROM t a JOIN t b ON a.n = b.n');
SELECT pgtrickle.create_stream_table('aa', 'SELECT n, count(*) AS groups FROM (SELECT k, count(*) AS n FROM g GROUP BY k) q GROUP BY n');
SELECT pgtrickle.create_stream_table('ua', 'SELECT k, x FROM g UNION ALL SELECT k, x FROM v1 UNION ALL SELECT k, NULL FROM n');
SELECT pgtrickle.create_stream_table('dd', 'SELECT DISTINCT n FROM (SELECT k, count(*) AS n FROM g GROUP BY k) q');
INSERT INTO g SELECT i, i % 5, i, i, i, i, true FROM generate_series(20, 40) i;
SELECT * FROM check_st('vv'); SELECT * FROM check_st('cte'); SELECT * FROM check_st('aa'); SELECT * FROM check_st('ua'); SELECT * FROM check_st('dd');
DELETE FROM g WHERE id > 35; UPDATE g SET k = k + 1 WHERE id < 30; UPDATE n SET k = 7;
SELECT * FROM check_st('vv'); SELECT * FROM check_st('cte'); SELECT * FROM check_st('aa'); SELECT * FROM check_st('ua'); SELECT * FROM check_st('dd');
SELECT last_action('vv'), last_action('cte'), last_action('aa'), last_action('ua'), last_action('dd');

-- A view inside a recursive WITH: followed, whenever the view's tables change.
CREATE TABLE tree (id int PRIMARY KEY, parent int);
CREATE VIEW vtree AS SELECT id, parent FROM tree;
INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2);
SELECT pgtrickle.create_stream_table('rec', 'WITH RECURSIVE r AS (SELECT id, 0 AS depth FROM vtree WHERE parent IS NULL UNION ALL SELECT v.id, depth + 1 FROM vtree v JOIN r ON v.parent = r.id) SELECT * FROM r');
INSERT INTO tree VALUES (4, 3); SELECT * FROM check_st('rec'); SELECT last_action('rec'), (SELECT count(*) FROM rec);

-- Keys of a composite type: their operator keeps something from call to call.
CREATE TYPE pair AS (a int, b text);
CREATE TABLE comp (id int PRIMARY KEY, p pair, x int);
INSERT INTO comp SELECT i, ROW(i % 3, 'x')::pair, i FROM generate_series(1, 9) i;
SELECT pgtrickle.create_stream_table('cmp', 'SELECT p, min(x) AS m, count(*) AS n FROM comp GROUP BY p');
INSERT INTO comp VALUES (10, ROW(NULL, NULL), 1), (11, NULL, 2), (12, ROW(1, 'x'), -1); SELECT * FROM check_st('cmp');
DELETE FROM comp WHERE id < 5; SELECT * FROM check_st('cmp'); UPDATE comp SET p = ROW(7, 'y') WHERE id > 9; SELECT * FROM check_st('cmp');
SELECT last_action('cmp');

-- A self join of which every occurrence changes.
SELECT pgtrickle.create_stream_table('sj', 'SELECT a.id, b.id AS bid FROM l a JOIN l b ON a.k = b.k AND a.id < b.id');
UPDATE l SET k = k % 3; DELETE FROM l WHERE id = 5; INSERT INTO l VALUES (50, 1, 'x'), (51, 1, 'y');
SELECT * FROM check_st('sj'); SELECT last_action('sj');

-- A row that comes and goes between two refreshes is never evaluated.
CREATE TABLE dz (id int PRIMARY KEY, d int);
SELECT pgtrickle.create_stream_table('div', 'SELECT id, 10 / d AS q FROM dz');
INSERT INTO dz VALUES (1, 0), (2, 5), (3, 1); DELETE FROM dz WHERE d = 0; UPDATE dz SET d = 0 WHERE id = 3; UPDATE dz SET d = 2 WHERE id = 3;
SELECT * FROM check_st('div'); SELECT last_action('div');
INSERT INTO dz VALUES (4, 0); DELETE FROM dz WHERE id = 4;
SELECT * FROM check_st('div'); SELECT last_action('div');

-- Every kind of write.
CREATE TABLE p (id int, part int, t text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 (t text, gone int, part int NOT NULL, id int NOT NULL);
ALTER TABLE p2 DROP COLUMN gone;
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2);
CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, pid int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
SELECT pgtrickle.create_stream_table('pst', 'SELECT id, part, t FROM p WHERE t <> ''x''');
SELECT pgtrickle.create_stream_table('cst', 'SELECT pid, count(*) AS n FROM child GROUP BY pid');
INSERT INTO p VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 2, 'x'); INSERT INTO p2 (id, part, t) VALUES (4, 2, 'direct');
SELECT * FROM check_st('pst');
UPDATE p SET part = 3 - part WHERE id <> 4; UPDATE p1 SET t = t || '!'; DELETE FROM p2 WHERE id = 4;
SELECT * FROM check_st('pst');
INSERT INTO p VALUES (1, 2, 'up') ON CONFLICT (id, part) DO UPDATE SET t = excluded.t;
MERGE INTO p USING (VALUES (2, 1), (9, 1)) s(id, part) ON p.id = s.id AND p.part = s.part
	WHEN MATCHED THEN UPDATE SET t = 'merged' WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.part, 'new');
COPY p FROM stdin;
10	1	copied
11	2	\N
\.
WITH w AS (DELETE FROM p WHERE id = 9 RETURNING *) INSERT INTO p SELECT id, 2, t FROM w;
SELECT * FROM check_st('pst');
INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1), (2, 1), (3, 2);
SELECT * FROM check_st('cst');
UPDATE parent SET id = 7 WHERE id = 1; DELETE FROM parent WHERE id = 2;
SELECT * FROM check_st('cst');
SET session_replication_role = replica;
INSERT INTO p VALUES (20, 1, 'replica'); UPDATE p SET t = 'r' WHERE id = 10; DELETE FROM p WHERE id = 11;
RESET session_replication_role;
SELECT * FROM check_st('pst'); SELECT last_action('pst'), last_action('cst');
TRUNCATE p1; SELECT * FROM check_st('pst');
TRUNCATE p; INSERT INTO p VALUES (1, 1, 'after'); SELECT * FROM check_st('pst');

-- Settings of the writer and of who refreshes must not matter.
CREATE TABLE ts (id int, at timestamptz, d date, i interval, b bytea);
SELECT pgtrickle.create_stream_table('tst', 'SELECT at, d, i, b FROM ts WHERE id > 0');
SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'; SET intervalstyle = 'iso_8601'; SET bytea_output = 'escape'; SET extra_float_digits = -5;
INSERT INTO ts VALUES (1, '2024-01-01 00:00+00', '2024-02-01', '1 mon 2 days', '\x00ff'), (2, '2024-01-01 00:00+00', '2024-02-01', '1 mon 2 days', '\x00ff');
SELECT * FROM check_st('tst');
RESET timezone; RESET datestyle; RESET intervalstyle; RESET bytea_output; RESET extra_float_digits;
DELETE FROM ts WHERE id = 1; SELECT * FROM check_st('tst'); SELECT last_action('tst');

-- Names that need quoting, 63 bytes long, reserved.
CREATE TABLE "Sel""ect" ("a b" int PRIMARY KEY, "from" text, "pgt_w" int,
	"a23456789012345678901234567890123456789012345678901234567890123" int);
INSERT INTO "Sel""ect" VALUES (1, 'x', 1, 1), (2, 'x', 2, 2);
SELECT pgtrickle.create_stream_table('"T.1 ""q"""', 'SELECT "from", sum("pgt_w") AS "sum", count("a23456789012345678901234567890123456789012345678901234567890123") AS "c;--" FROM "Sel""ect" GROUP BY "from"');
UPDATE "Sel""ect" SET "pgt_w" = 7 WHERE "a b" = 1; INSERT INTO "Sel""ect" VALUES (3, 'y', 1, NULL);
SELECT * FROM check_st('"T.1 ""q"""'); SELECT last_action('"T.1 ""q"""');

-- A refresh inside a user's transaction sees exactly what it may see, once.
SELECT pgtrickle.create_stream_table('tx', 'SELECT k, count(*) AS n FROM l GROUP BY k');
SELECT pgtrickle.create_stream_table('tx2', 'SELECT n, count(*) AS c FROM tx GROUP BY n');
BEGIN;
INSERT INTO l VALUES (60, 9, 'a'); SELECT * FROM check_st('tx'); SELECT * FROM check_st('tx2');
INSERT INTO l VALUES (61, 9, 'b');
SAVEPOINT s; INSERT INTO l VALUES (62, 9, 'c'); SELECT * FROM check_st('tx'); ROLLBACK TO s;
COMMIT;
SELECT * FROM check_st('tx'); SELECT * FROM check_st('tx2'); SELECT * FROM check_st('tx2');
SELECT last_action('tx'), last_action('tx2');
BEGIN; DELETE FROM l WHERE k = 9; SELECT * FROM check_st('tx'); ROLLBACK;
SELECT * FROM check_st('tx'); SELECT * FROM check_st('tx2');

DROP SCHEMA traps CASCADE;
SELECT count(*) - :before AS left_over FROM pgtrickle.pgt_definitions;
