-- Refreshes inside transactions: every change is seen exactly once.
SET client_min_messages = error;
CREATE SCHEMA refresh_frontier;
SET search_path = refresh_frontier, public;
CREATE TABLE s (id int PRIMARY KEY, g int, x int);
INSERT INTO s SELECT i, i % 2, i FROM generate_series(1, 4) i;
SELECT pgtrickle.create_stream_table('b', 'SELECT id, g, x FROM s WHERE x > 0');
SELECT pgtrickle.create_stream_table('c', 'SELECT g, count(*) AS n, sum(x) AS sx FROM b GROUP BY g');
SELECT pgtrickle.create_stream_table('d', 'SELECT c.g, c.n, c.sx, s.id FROM c JOIN s USING (g)');
CREATE PROCEDURE check_all(refresh bool DEFAULT true) LANGUAGE plpgsql AS $$
DECLARE
	st text;
	q text;
	n bigint;
BEGIN
	FOREACH st IN ARRAY '{b,c,d}'::text[] LOOP
		IF refresh THEN
			PERFORM pgtrickle.refresh_stream_table(st);
		END IF;
		SELECT rtrim(defining_query, ';') INTO STRICT q FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = st::regclass;
		EXECUTE format('SELECT count(*) FROM ((SELECT * FROM %1$s EXCEPT ALL SELECT * FROM (%2$s) x)
			UNION ALL (SELECT * FROM (%2$s) x EXCEPT ALL SELECT * FROM %1$s)) d', st, q) INTO n;
		IF n > 0 THEN
			RAISE EXCEPTION '%: % rows differ', st, n;
		END IF;
	END LOOP;
END $$;
CREATE FUNCTION actions(n int) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(a, ' ') FROM (SELECT action || ':' || rows_in AS a FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT n) x $$;
CALL check_all(false);

-- Insert, refresh, insert, commit: the second insert is not lost, the first not applied twice.
BEGIN;
INSERT INTO s VALUES (5, 1, 5);
CALL check_all();
INSERT INTO s VALUES (6, 0, 6);
COMMIT;
CALL check_all();
SELECT actions(6);
-- Several refreshes in one transaction, of a chain; without changes in between they do nothing.
BEGIN;
UPDATE s SET x = x + 1; CALL check_all(); CALL check_all();
DELETE FROM s WHERE id = 1; CALL check_all();
UPDATE s SET g = 1 - g; CALL check_all();
COMMIT;
SELECT count(*) AS before FROM pgtrickle.pgt_refresh_history \gset
CALL check_all();
SELECT count(*) - :before AS refreshes FROM pgtrickle.pgt_refresh_history;

-- Savepoints: what is rolled back was never there, frontier included.
BEGIN;
INSERT INTO s VALUES (10, 0, 10);
SAVEPOINT a;
INSERT INTO s VALUES (11, 1, 11); CALL check_all();
SAVEPOINT b;
UPDATE s SET x = x * 2; CALL check_all();
ROLLBACK TO b; CALL check_all();
ROLLBACK TO a; CALL check_all();
INSERT INTO s VALUES (12, 1, 12);
SAVEPOINT c;
DELETE FROM s WHERE id = 10;
RELEASE c;
COMMIT;
CALL check_all();
-- In subtransactions of functions.
DO $$
BEGIN
	FOR i IN 20..29 LOOP
		BEGIN
			INSERT INTO refresh_frontier.s VALUES (i, i % 2, i);
			PERFORM pgtrickle.refresh_stream_table('refresh_frontier.b');
			IF i % 3 = 0 THEN
				RAISE EXCEPTION 'not this one';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
END $$;
CALL check_all();
SELECT count(*) FROM b WHERE id BETWEEN 20 AND 29;

-- A whole transaction that is rolled back.
BEGIN; DELETE FROM s; CALL check_all(); ROLLBACK;
CALL check_all(false);
CALL check_all();

-- A refresh with nothing to do takes no transaction id and writes nothing.
BEGIN;
CALL check_all();
SELECT pg_current_xact_id_if_assigned() IS NULL AS no_xid;
COMMIT;

-- Created, changed and refreshed in one transaction.
BEGIN;
INSERT INTO s VALUES (30, 0, 30);
SELECT pgtrickle.create_stream_table('e', 'SELECT id, x FROM s');
INSERT INTO s VALUES (31, 0, 31);
SELECT pgtrickle.refresh_stream_table('e');
UPDATE s SET x = 32 WHERE id = 31;
COMMIT;
SELECT pgtrickle.refresh_stream_table('e');
SELECT * FROM e WHERE id >= 30 ORDER BY id;
CALL check_all();

-- A cursor that was open before goes on seeing the old rows.
BEGIN;
DECLARE old CURSOR FOR SELECT count(*) FROM e;
DELETE FROM s WHERE id >= 30;
SELECT pgtrickle.refresh_stream_table('e');
FETCH old;
COMMIT;
CALL check_all();

-- Not in a snapshot that may be too old, not in a transaction that may not write.
\set VERBOSITY terse
BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pgtrickle.refresh_stream_table('b'); ROLLBACK;
BEGIN READ ONLY; SELECT pgtrickle.refresh_stream_table('b'); ROLLBACK;
\set VERBOSITY default

-- A frontier of another cluster counts for nothing: everything is computed, states too.
UPDATE pgtrickle.pgt_frontiers SET system_id = 1, epoch = 0;
UPDATE s SET x = x + 1 WHERE id = 2;
CALL check_all();
SELECT actions(3);
UPDATE s SET x = x + 1 WHERE id = 2;
CALL check_all();
SELECT actions(3);
SELECT refresh_reason FROM pgtrickle.pgt_refresh_history WHERE action = 'REINITIALIZE' GROUP BY 1;
-- A mark for rebuild is honoured once.
SELECT pgt_id AS d_id FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = 'd'::regclass \gset
UPDATE pgtrickle.pgt_frontiers SET rebuild_reason = 'a test' WHERE pgt_id = :d_id;
SELECT pgtrickle.refresh_stream_table('d'), pgtrickle.refresh_stream_table('d');
SELECT action, refresh_reason FROM pgtrickle.pgt_refresh_history WHERE pgt_id = :d_id ORDER BY refresh_id DESC LIMIT 1;
SELECT rebuild_reason FROM pgtrickle.pgt_frontiers WHERE pgt_id = :d_id;

DROP SCHEMA refresh_frontier CASCADE;
