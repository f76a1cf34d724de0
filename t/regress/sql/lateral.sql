-- LATERAL subqueries: those that are joins, and those that are run for touched rows.
SET client_min_messages = error;
CREATE SCHEMA lat;
SET search_path = lat, public;
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
		LATERAL refreshed(pgt_relid::regclass::text) r WHERE pgt_schema = 'lat' ORDER BY 1, 2 LOOP
		RAISE WARNING '%: %', d.st, d.difference;
	END LOOP;
END $$;


CREATE TABLE a (id int PRIMARY KEY, k int, v int);
CREATE TABLE b (id int PRIMARY KEY, k int, w int);
CREATE TABLE c (id int PRIMARY KEY, bid int, t text);
CREATE TABLE no_key (k int, z int);
CREATE VIEW bc AS SELECT b.id, b.k, b.w, c.t FROM b JOIN c ON c.bid = b.id;
INSERT INTO a SELECT i, nullif(i % 4, 3), i FROM generate_series(1, 12) i;
INSERT INTO b SELECT i, nullif(i % 5, 4), i * 10 FROM generate_series(1, 12) i;
INSERT INTO c SELECT i, i % 8, 't' || i FROM generate_series(1, 10) i;
INSERT INTO no_key VALUES (1, 1), (1, 1), (2, NULL);

-- Joins in other words.
SELECT pgtrickle.create_stream_table('plain', 'SELECT a.id, l.id AS bid, l.w FROM a, LATERAL (SELECT b.id, b.w FROM b WHERE b.k = a.k) l');
SELECT pgtrickle.create_stream_table('computed', 'SELECT a.id, l.* FROM a CROSS JOIN LATERAL (SELECT b.id AS bid, b.w + a.v AS s, a.k AS k, 7 AS seven FROM b WHERE b.k = a.k AND b.w > a.v) l WHERE l.s % 2 = 0');
SELECT pgtrickle.create_stream_table('joined', 'SELECT a.id, l.id AS bid, l.t FROM a JOIN LATERAL (SELECT b.id, c.t FROM b JOIN c ON c.bid = b.id AND c.id > a.id WHERE b.k = a.k) l ON l.id <> a.v');
SELECT pgtrickle.create_stream_table('chain', 'SELECT a.id, l.id AS bid, m.id AS cid FROM a, LATERAL (SELECT b.id, b.w FROM b WHERE b.k = a.k) l, LATERAL (SELECT c.id FROM c WHERE c.bid = l.id AND c.id < a.v) m');
SELECT pgtrickle.create_stream_table('within', 'SELECT a.id, l.cid FROM a, LATERAL (SELECT m.id AS cid FROM b, LATERAL (SELECT c.id FROM c WHERE c.bid = b.id AND c.id <> a.v) m WHERE b.k = a.k) l');
SELECT pgtrickle.create_stream_table('of_view', 'SELECT a.id, l.t FROM a, LATERAL (SELECT bc.t FROM bc WHERE bc.k = a.k) l');
SELECT pgtrickle.create_stream_table('without_keys', 'SELECT a.v, l.z FROM a, LATERAL (SELECT n.z FROM no_key n WHERE n.k = a.k) l');
SELECT pgtrickle.create_stream_table('grouped', 'SELECT l.w, count(*) AS n, sum(a.v) AS s FROM a, LATERAL (SELECT b.w % 3 AS w FROM b WHERE b.k = a.k) l GROUP BY l.w');
SELECT pgtrickle.create_stream_table('recomputed', 'SELECT a.k, max(l.w) AS w FROM a, LATERAL (SELECT b.w FROM b WHERE b.k = a.k) l GROUP BY a.k HAVING max(l.w) > 20');
SELECT pgtrickle.create_stream_table('windowed', 'SELECT a.id, l.id AS bid, rank() OVER (PARTITION BY a.k ORDER BY l.w) AS r FROM a, LATERAL (SELECT b.id, b.w FROM b WHERE b.k = a.k) l');
SELECT pgtrickle.create_stream_table('self', 'SELECT a.id, l.id AS other FROM a, LATERAL (SELECT x.id FROM a x WHERE x.k = a.k AND x.id > a.id) l');
SELECT pgtrickle.create_stream_table('asked', 'SELECT a.id, l.id AS bid FROM a, LATERAL (SELECT b.id FROM b WHERE b.k = a.k) l WHERE EXISTS (SELECT FROM c WHERE c.bid = l.id AND c.id <> a.id)');
SELECT pgtrickle.create_stream_table('then_function', 'SELECT a.id, l.id AS bid, g FROM a, LATERAL (SELECT b.id FROM b WHERE b.k = a.k) l, generate_series(1, l.id % 3) g');
SELECT pgtrickle.create_stream_table('with_union', 'SELECT a.id, l.w FROM a, LATERAL (SELECT b.w FROM b WHERE b.k = a.k) l UNION ALL SELECT id, v FROM a');

-- Outer joins, on either side of them.
SELECT pgtrickle.create_stream_table('left_true', 'SELECT a.id, l.id AS bid, l.w FROM a LEFT JOIN LATERAL (SELECT b.id, b.w FROM b WHERE b.k = a.k) l ON true');
SELECT pgtrickle.create_stream_table('left_on', 'SELECT a.id, l.id AS bid FROM a LEFT JOIN LATERAL (SELECT b.id, b.w FROM b WHERE b.k = a.k AND b.w > a.v) l ON l.w < 90 AND a.id > 2');
SELECT pgtrickle.create_stream_table('left_computed', 'SELECT a.id, l.bid, l.seven, l.s, l.k FROM a LEFT JOIN LATERAL (SELECT b.id AS bid, 7 AS seven, coalesce(b.w, 0) + a.v AS s, a.k FROM b WHERE b.k = a.k) l ON true');
SELECT pgtrickle.create_stream_table('left_joined', 'SELECT a.id, l.bid, l.cid FROM a LEFT JOIN LATERAL (SELECT b.id AS bid, c.id AS cid FROM b LEFT JOIN c ON c.bid = b.id AND c.id > a.v WHERE b.k = a.k) l ON true');
SELECT pgtrickle.create_stream_table('left_far', 'SELECT x.id, a.id AS aid, l.id AS bid FROM c x, a LEFT JOIN LATERAL (SELECT b.id FROM b WHERE b.k = a.k AND b.id > x.id) l ON true WHERE a.id = x.bid');
SELECT pgtrickle.create_stream_table('left_chain', 'SELECT a.id, l.id AS bid, m.id AS cid FROM a LEFT JOIN LATERAL (SELECT b.id FROM b WHERE b.k = a.k) l ON true LEFT JOIN LATERAL (SELECT c.id FROM c WHERE c.bid = l.id) m ON true');
SELECT pgtrickle.create_stream_table('left_null', 'SELECT a.id, m.id AS cid FROM a LEFT JOIN LATERAL (SELECT b.id FROM b WHERE b.k = a.k) l ON true LEFT JOIN LATERAL (SELECT c.id FROM c WHERE c.bid = l.id OR l.id IS NULL AND c.id = 1) m ON true');
SELECT pgtrickle.create_stream_table('after_outer', 'SELECT a.id, b.id AS bid, l.id AS cid FROM a LEFT JOIN b ON b.k = a.k AND b.w > 50, LATERAL (SELECT c.id FROM c WHERE c.bid = b.id OR b.id IS NULL AND c.id = a.id) l');
SELECT pgtrickle.create_stream_table('under_full', 'SELECT q.id, q.bid, c.id AS cid FROM (SELECT a.id, l.id AS bid FROM a, LATERAL (SELECT b.id FROM b WHERE b.k = a.k) l) q FULL JOIN c ON c.bid = q.bid');
SELECT pgtrickle.create_stream_table('left_under_right', 'SELECT c.id AS cid, q.id FROM (SELECT a.id, l.id AS bid FROM a LEFT JOIN LATERAL (SELECT b.id FROM b WHERE b.k = a.k) l ON true) q RIGHT JOIN c ON c.bid = q.bid');

-- More than a join.
SELECT pgtrickle.create_stream_table('aggregate', 'SELECT a.id, l.* FROM a, LATERAL (SELECT max(b.w) AS w, count(*) AS n FROM b WHERE b.k = a.k) l');
SELECT pgtrickle.create_stream_table('left_aggregate', 'SELECT a.id, l.n FROM a LEFT JOIN LATERAL (SELECT count(*) AS n FROM b WHERE b.k = a.k HAVING count(*) > 1) l ON true');
SELECT pgtrickle.create_stream_table('top', 'SELECT a.id, l.id AS bid FROM a, LATERAL (SELECT b.id FROM b WHERE b.k = a.k ORDER BY b.w DESC, b.id LIMIT 2) l');
SELECT pgtrickle.create_stream_table('left_top', 'SELECT a.id, l.id AS bid FROM a LEFT JOIN LATERAL (SELECT b.id FROM b WHERE b.k = a.k ORDER BY b.w DESC, b.id OFFSET 1 LIMIT 1) l ON true');
SELECT pgtrickle.create_stream_table('distinct_', 'SELECT a.id, l.w FROM a, LATERAL (SELECT DISTINCT b.w % 4 AS w FROM b WHERE b.k = a.k) l');
SELECT pgtrickle.create_stream_table('unioned', 'SELECT a.id, l.x FROM a, LATERAL (SELECT b.id AS x FROM b WHERE b.k = a.k UNION SELECT c.id FROM c WHERE c.bid = a.id) l');
SELECT pgtrickle.create_stream_table('asking', 'SELECT a.id, l.id AS bid FROM a, LATERAL (SELECT b.id FROM b WHERE b.k = a.k AND NOT EXISTS (SELECT FROM c WHERE c.bid = b.id AND c.id > a.v)) l');
SELECT pgtrickle.create_stream_table('mixed', 'SELECT a.id, l.id AS bid, m.n FROM a, LATERAL (SELECT b.id FROM b WHERE b.k = a.k) l, LATERAL (SELECT count(*) AS n FROM c WHERE c.bid = l.id AND c.id <> a.id) m');
SELECT pgtrickle.create_stream_table('top_of_join', 'SELECT a.id, l.id AS bid FROM a, LATERAL (SELECT b.id FROM b WHERE b.k = a.k) l ORDER BY a.v, l.id LIMIT 5');
SELECT name, e.reason FROM (SELECT pgt_name::text AS name FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'lat') s, pgtrickle.explain_refresh_mode(name) e WHERE effective_mode = 'FULL' ORDER BY 1;
SELECT pgt_name, regexp_replace(substring(value from '^[^:,(]*, [^:,(]*'), '_\d+_', '_') AS stage FROM pgtrickle.pgt_stream_tables,
	LATERAL pgtrickle.explain_st(pgt_relid::regclass::text) WHERE pgt_schema = 'lat' AND property = 'stage 1' ORDER BY pgt_id;

CALL check_all();
INSERT INTO b VALUES (20, 1, 5), (21, NULL, 6), (22, 0, NULL);
CALL check_all();
UPDATE a SET k = k + 1 WHERE id % 3 = 0; UPDATE b SET k = NULL WHERE id = 5; DELETE FROM c WHERE id = 3;
CALL check_all();
UPDATE b SET w = w + 1 WHERE k = 2; INSERT INTO no_key VALUES (1, 1), (0, 3); UPDATE no_key SET z = 9 WHERE k = 2; UPDATE c SET bid = 20 WHERE id = 7;
CALL check_all();
DELETE FROM a WHERE k = 1; DELETE FROM b WHERE k = 0; DELETE FROM no_key WHERE k = 1; UPDATE a SET v = v - 5;
CALL check_all();
INSERT INTO a VALUES (30, NULL, 1), (31, 2, NULL), (32, 1, 0), (33, 1, 0); UPDATE c SET bid = id, t = NULL WHERE id % 2 = 0; UPDATE b SET k = 1 WHERE id IN (5, 21);
CALL check_all();
TRUNCATE b;
CALL check_all();
INSERT INTO b SELECT i, i % 5, i FROM generate_series(1, 40) i; UPDATE a SET k = 4 WHERE k IS NULL;
CALL check_all();
TRUNCATE a, c;
CALL check_all();
DROP SCHEMA lat CASCADE;
