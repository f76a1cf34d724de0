-- Aggregates folded into stored states.
SET client_min_messages = error;
CREATE SCHEMA refresh_aggregate;
SET search_path = refresh_aggregate, public;
CREATE FUNCTION refreshed(st text) RETURNS TABLE (difference text) LANGUAGE plpgsql AS $$
DECLARE
	q text;
BEGIN
	SELECT rtrim(defining_query, ';') INTO STRICT q FROM pgtrickle.pgt_stream_tables
		WHERE pgt_relid = st::regclass;
	PERFORM pgtrickle.refresh_stream_table(st, 'DIFFERENTIAL');
	RETURN QUERY EXECUTE format(
		'SELECT ''too many: '' || x::text FROM (SELECT x::text FROM %1$s x EXCEPT ALL SELECT x::text FROM (%2$s) x) x
		 UNION ALL SELECT ''missing: '' || x::text FROM (SELECT x::text FROM (%2$s) x EXCEPT ALL SELECT x::text FROM %1$s x) x',
		st, q);
END $$;
CREATE FUNCTION state_of(st text) RETURNS text LANGUAGE sql AS $$
	SELECT format('pgtrickle_state.state_%s_1', pgt_id) FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = st::regclass $$;

CREATE FUNCTION states(st text, OUT groups bigint, OUT rows numeric, OUT epochs bigint) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT count(*), sum(pgt_n), count(DISTINCT pgt_epoch) FROM %s', state_of(st)) INTO groups, rows, epochs;
END $$;

CREATE TABLE t (id int PRIMARY KEY, g text, i int, l bigint, n numeric, v interval, m money, f float8);
SELECT pgtrickle.create_stream_table('every', $$
	SELECT g, count(*) AS rows, count(i) AS ci, sum(i) AS si, avg(i) AS ai, sum(l) AS sl, avg(l) AS al, sum(n) AS sn, avg(n) AS an,
		sum(v) AS sv, avg(v) AS av, sum(m) AS sm, variance(n) AS vn, stddev(i) AS di, count(*) FILTER (WHERE i > 5) AS big,
		sum(CASE WHEN l > 0 THEN i ELSE -i END) AS signed, sum(i * 2) + count(*) AS expression
	FROM t GROUP BY g $$);
SELECT pgtrickle.create_stream_table('whole', 'SELECT count(*) AS rows, sum(i) AS si, avg(n) AS an FROM t');
SELECT pgtrickle.create_stream_table('hav', 'SELECT g, sum(i) AS si FROM t GROUP BY g HAVING sum(i) > 10 AND count(*) < 5');
SELECT pgtrickle.create_stream_table('whole_having', 'SELECT sum(i) AS si FROM t HAVING count(*) > 2');
SELECT pgtrickle.create_stream_table('only_keys', 'SELECT g, i % 2 AS odd FROM t GROUP BY g, i % 2');
SELECT pgtrickle.create_stream_table('floats', 'SELECT g, sum(f) AS sf, min(i) AS mi FROM t GROUP BY g');
SELECT pgt_relid::regclass, regexp_replace(value, '.*, (.*) by .*', '\1') FROM pgtrickle.pgt_stream_tables,
	LATERAL pgtrickle.explain_st(pgt_relid::regclass::text) WHERE property = 'stage 1' ORDER BY pgt_id;

SET client_min_messages = warning;
CREATE PROCEDURE check_all() LANGUAGE plpgsql AS $$
DECLARE
	d record;
BEGIN
	FOR d IN SELECT st, r.difference FROM unnest('{every,whole,hav,whole_having,only_keys,floats}'::text[]) st, LATERAL refreshed(st) r LOOP
		RAISE WARNING '%: %', d.st, d.difference;
	END LOOP;
END $$;

TABLE whole; TABLE whole_having;
INSERT INTO t VALUES (1, 'a', 1, 1, 1.5, '1 day', '1', 1e20), (2, 'a', 6, -1, 1.25, '2 h', '2', 1), (3, NULL, 3, 0, NULL, NULL, NULL, NULL),
	(4, 'b', NULL, NULL, NULL, NULL, NULL, 'NaN'), (5, 'c', 20, 1, 'NaN', '-1 month', '-5', 0);
CALL check_all();
TABLE whole;
-- A value that goes with the scale, NaN that goes, sums that become null, infinity.
UPDATE t SET n = 2 WHERE id = 2; CALL check_all();
DELETE FROM t WHERE id = 1; CALL check_all();
UPDATE t SET n = NULL WHERE id = 5; CALL check_all();
UPDATE t SET n = 'infinity', l = 9223372036854775807 WHERE id IN (2, 5); CALL check_all();
UPDATE t SET n = '-infinity' WHERE id = 2; CALL check_all();
UPDATE t SET n = 1.123456789 WHERE n IN ('infinity', '-infinity'); CALL check_all();
UPDATE t SET i = NULL, l = NULL, n = NULL, v = NULL, m = NULL; CALL check_all();
SELECT g, rows, ci, si, sn, sv, sm FROM every ORDER BY g;
-- Groups vanish, return, move, all in one transaction or one by one.
UPDATE t SET g = 'a', i = id; CALL check_all();
UPDATE t SET g = NULL; CALL check_all();
BEGIN; UPDATE t SET g = 'z'; UPDATE t SET g = 'y', i = 100; UPDATE t SET g = NULL WHERE id = 3; COMMIT; CALL check_all();
DELETE FROM t; CALL check_all();
TABLE whole; TABLE every; TABLE whole_having;
SELECT * FROM states('every');
INSERT INTO t SELECT i, 'g' || i % 7, i, i, i / 7.0, NULL, i::text::money, i FROM generate_series(1, 500) i; CALL check_all();
-- HAVING crossed both ways.
UPDATE t SET i = -1000 WHERE id % 100 = 0; CALL check_all();
UPDATE t SET i = 1 WHERE id % 100 = 0; CALL check_all();
SELECT * FROM states('every');

-- FULL makes the states anew, TRUNCATE too; afterwards deltas fit.
SELECT pgtrickle.refresh_stream_table('every', 'FULL');
UPDATE t SET i = i + 1 WHERE id < 10; CALL check_all();
TRUNCATE t;
SELECT pgtrickle.refresh_stream_table(s) FROM unnest('{every,whole,hav,whole_having,only_keys,floats}'::text[]) s;
TABLE whole; TABLE whole_having;
INSERT INTO t (id, g, i) VALUES (1, 'a', 5), (2, 'a', 6); CALL check_all();
TABLE hav;

-- States that are lost or of another epoch are folded anew.
DO $$ BEGIN
	EXECUTE format('UPDATE %s SET pgt_epoch = 0', refresh_aggregate.state_of('every'));
	EXECUTE format('DELETE FROM %s', refresh_aggregate.state_of('whole'));
END $$;
UPDATE t SET i = i + 1; CALL check_all();

SELECT * FROM states('every') UNION ALL SELECT * FROM states('whole');

-- One's own aggregate, with a strict transition and no initial value: the first value is the state.
CREATE FUNCTION last_in(int, int) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1 + $2';
CREATE FUNCTION last_out(int, int) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS
	'SELECT CASE WHEN $2 % 10 = 0 THEN NULL ELSE $1 - $2 END'; -- sometimes it cannot
CREATE AGGREGATE own_sum(int) (SFUNC = last_in, STYPE = int, MSFUNC = last_in, MINVFUNC = last_out, MSTYPE = int);
SELECT pgtrickle.create_stream_table('own', 'SELECT g, own_sum(i) AS s, own_sum(i) FILTER (WHERE i < 0) AS negative FROM t GROUP BY g');
INSERT INTO t (id, g, i) SELECT i, 'own', i FROM generate_series(10, 50) i;
SELECT * FROM refreshed('own');
DELETE FROM t WHERE id IN (11, 12); SELECT * FROM refreshed('own');
DELETE FROM t WHERE id IN (20, 30); UPDATE t SET i = -i WHERE id = 40; SELECT * FROM refreshed('own');
UPDATE t SET i = NULL WHERE g = 'own'; SELECT * FROM refreshed('own');
SELECT * FROM own ORDER BY g;

-- A stage below: groups of groups.
SELECT pgtrickle.create_stream_table('nested', 'SELECT n, count(*) AS groups, sum(s) AS s FROM (SELECT g, count(*) AS n, sum(i) AS s FROM t GROUP BY g) q GROUP BY n');
INSERT INTO t (id, g, i) SELECT i, 'n' || i % 5, i FROM generate_series(100, 125) i; SELECT * FROM refreshed('nested');
DELETE FROM t WHERE id % 10 = 0; UPDATE t SET g = 'n0' WHERE g = 'n1' AND id < 110; SELECT * FROM refreshed('nested');
DELETE FROM t; SELECT * FROM refreshed('nested');
TABLE nested;

DROP SCHEMA refresh_aggregate CASCADE;
SELECT count(*) FROM pg_class WHERE relnamespace = 'pgtrickle_state'::regnamespace;
