-- UNION, INTERSECT and EXCEPT, with and without ALL.
SET client_min_messages = error;
CREATE SCHEMA setop;
SET search_path = setop, public;
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
		LATERAL refreshed(pgt_relid::regclass::text) r WHERE pgt_schema = 'setop' ORDER BY 1, 2 LOOP
		RAISE WARNING '%: %', d.st, d.difference;
	END LOOP;
END $$;

CREATE TABLE a (k int, t text);
CREATE TABLE b (k bigint, t text);
CREATE TABLE c (k numeric, t varchar(10));
SELECT pgtrickle.create_stream_table('u', 'SELECT k, t FROM a UNION SELECT k, t FROM b ORDER BY 1');
SELECT pgtrickle.create_stream_table('i', 'SELECT k, t FROM a INTERSECT SELECT k, t FROM b');
SELECT pgtrickle.create_stream_table('ia', 'SELECT k, t FROM a INTERSECT ALL SELECT k, t FROM b');
SELECT pgtrickle.create_stream_table('e', 'SELECT k, t FROM a EXCEPT SELECT k, t FROM b');
SELECT pgtrickle.create_stream_table('ea', 'SELECT k, t FROM a EXCEPT ALL SELECT k, t FROM b');
SELECT pgtrickle.create_stream_table('u3', 'SELECT k FROM a UNION SELECT k FROM b UNION SELECT k FROM c');
SELECT pgtrickle.create_stream_table('mixed', '(SELECT k FROM a UNION ALL SELECT k FROM b) EXCEPT ALL (SELECT k FROM c INTERSECT SELECT k FROM a)');
SELECT pgtrickle.create_stream_table('deep', 'SELECT k FROM a EXCEPT (SELECT k FROM b UNION SELECT k FROM c EXCEPT SELECT 1) UNION ALL SELECT 7');
SELECT pgtrickle.create_stream_table('joined', 'SELECT x.k, count(*) AS n FROM (SELECT k FROM a UNION SELECT k FROM b) x JOIN (SELECT k FROM b INTERSECT ALL SELECT k FROM c) y ON y.k = x.k GROUP BY x.k');
SELECT pgtrickle.create_stream_table('grouped', 'SELECT k, count(*) AS n FROM a GROUP BY k UNION SELECT k, count(*) FROM b GROUP BY k');
SELECT pgtrickle.create_stream_table('top', 'SELECT k, t FROM a UNION SELECT k, t FROM b ORDER BY k NULLS FIRST, t LIMIT 2');
SELECT pgtrickle.create_stream_table('twice', 'WITH x AS (SELECT k FROM a EXCEPT ALL SELECT k FROM b) SELECT p.k, q.k AS k2 FROM x p JOIN x q ON p.k = q.k + 1');
SELECT pgtrickle.create_stream_table('outer_', 'SELECT a.k, x.k AS xk FROM a LEFT JOIN (SELECT k FROM b EXCEPT ALL SELECT k FROM c) x ON x.k = a.k');
SELECT pgt_relid::regclass AS st, property, regexp_replace(value, 'stage_\d+|, \d+ rows in .*', '', 'g') AS value FROM pgtrickle.pgt_stream_tables,
	LATERAL pgtrickle.explain_st(pgt_relid::regclass::text) WHERE pgt_schema = 'setop' AND property LIKE 'stage%' ORDER BY pgt_id, property;
SET client_min_messages = warning;
CALL check_all();
-- Multiplicities 0-1-2-1-0 on either side.
INSERT INTO a VALUES (1, 'x'); CALL check_all();
INSERT INTO a VALUES (1, 'x'); CALL check_all();
INSERT INTO b VALUES (1, 'x'); CALL check_all();
TABLE e; TABLE ea; TABLE i; TABLE ia;
INSERT INTO b VALUES (1, 'x'), (1, 'x'); CALL check_all();
TABLE ia;
DELETE FROM a WHERE ctid IN (SELECT min(ctid) FROM a); CALL check_all();
DELETE FROM a; CALL check_all();
INSERT INTO a SELECT 1, 'x' FROM generate_series(1, 5); CALL check_all();
DELETE FROM b; CALL check_all();
-- NULLs are equal; both sides at once; rows that move.
INSERT INTO a VALUES (NULL, NULL), (NULL, 'n'), (2, NULL); CALL check_all();
BEGIN; INSERT INTO b VALUES (NULL, NULL), (NULL, NULL), (2, NULL); INSERT INTO c VALUES (1, 'x'), (NULL, NULL), (2, 'y'); COMMIT; CALL check_all();
BEGIN; UPDATE a SET k = k + 1; UPDATE b SET k = k - 1; DELETE FROM c WHERE k = 1; COMMIT; CALL check_all();
UPDATE a SET t = NULL; CALL check_all();
DELETE FROM a; CALL check_all();
DELETE FROM b; DELETE FROM c; CALL check_all();
INSERT INTO a SELECT i % 20, 't' || i % 3 FROM generate_series(1, 300) i;
INSERT INTO b SELECT i % 30, 't' || i % 4 FROM generate_series(1, 300) i;
INSERT INTO c SELECT i % 13, 't' || i % 2 FROM generate_series(1, 100) i; CALL check_all();
DELETE FROM a WHERE k % 3 = 0; UPDATE b SET k = NULL WHERE k % 7 = 0; CALL check_all();
TRUNCATE a; SELECT pgtrickle.refresh_stream_table(pgt_relid::regclass::text) FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'setop';
INSERT INTO a VALUES (3, 't'), (3, 't'); CALL check_all();

SET client_min_messages = error;
-- Equal but different: numbers with another scale, text of a nondeterministic collation.
CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE p (n numeric, s text COLLATE ci);
CREATE TABLE q (n numeric, s text COLLATE ci);
SELECT pgtrickle.create_stream_table('pq_u', 'SELECT n, s FROM p UNION SELECT n, s FROM q');
SELECT pgtrickle.create_stream_table('pq_i', 'SELECT n, s FROM p INTERSECT ALL SELECT n, s FROM q');
SELECT pgtrickle.create_stream_table('pq_e', 'SELECT n, s FROM p EXCEPT SELECT n, s FROM q');
SELECT pgtrickle.create_stream_table('pq_c', 'SELECT s COLLATE "C" FROM p EXCEPT SELECT s COLLATE "C" FROM q');
SET client_min_messages = warning;
INSERT INTO p VALUES (1.0, 'a'), (1.00, 'A'), (2, 'b'); CALL check_all();
INSERT INTO q VALUES (1, 'A'), (2.0, 'c'); CALL check_all();
DELETE FROM p WHERE s = 'a' COLLATE "C"; CALL check_all();
DELETE FROM q; CALL check_all();

-- What cannot be kept apart by an index is computed anew.
CREATE TABLE x (x xid); CREATE TABLE y (x xid);
SELECT construct, incremental, reason FROM pgtrickle.validate_query('SELECT x FROM x UNION SELECT x FROM y') WHERE NOT incremental;
SELECT construct, incremental, technique FROM pgtrickle.validate_query('SELECT k FROM a UNION SELECT k FROM b EXCEPT ALL SELECT k FROM c INTERSECT SELECT 1') ORDER BY 1;
SELECT pgtrickle.create_stream_table('xy', 'SELECT x FROM x EXCEPT SELECT x FROM y');
INSERT INTO x VALUES ('7'), ('7'), ('8'); INSERT INTO y VALUES ('8');
SELECT pgtrickle.refresh_stream_table('xy');
TABLE xy;
SET client_min_messages = error;
DROP SCHEMA setop CASCADE;
