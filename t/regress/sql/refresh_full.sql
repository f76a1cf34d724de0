-- FULL writes the difference only: also in several batches, with duplicates, into a table with triggers.
SET client_min_messages = error;
CREATE SCHEMA refresh_full;
SET search_path = refresh_full, public;
CREATE FUNCTION differences(st text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	q text;
	n bigint;
BEGIN
	SELECT rtrim(defining_query, ';') INTO STRICT q FROM pgtrickle.pgt_stream_tables
		WHERE pgt_relid = st::regclass;
	EXECUTE format('SELECT count(*) FROM ((SELECT x::text FROM %1$s x EXCEPT ALL SELECT x::text FROM (%2$s) x)
		 UNION ALL (SELECT x::text FROM (%2$s) x EXCEPT ALL SELECT x::text FROM %1$s x)) d', st, q) INTO n;
	RETURN n;
END $$;
CREATE FUNCTION did(st text) RETURNS text LANGUAGE sql AS $$
	SELECT format('%s (%s): %s inserted, %s updated, %s deleted', action, refresh_reason, rows_inserted, rows_updated, rows_deleted)
	FROM pgtrickle.pgt_refresh_history
	WHERE pgt_id = (SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = st::regclass)
	ORDER BY refresh_id DESC LIMIT 1 $$;

CREATE TABLE a (id int PRIMARY KEY, k int, t text);
INSERT INTO a SELECT i, i % 100, 'text ' || i FROM generate_series(1, 20000) i;
SELECT pgtrickle.create_stream_table('f_key', 'SELECT id, t FROM a', refresh_mode => 'FULL');
SELECT pgtrickle.create_stream_table('f_row', 'SELECT k, left(t, 6) AS t FROM a', refresh_mode => 'FULL');
SELECT pgtrickle.create_stream_table('f_win', 'SELECT id, rank() OVER (ORDER BY id DESC) AS r FROM a TABLESAMPLE system (100) REPEATABLE (1) WHERE id <= 1000');
SELECT pgtrickle.create_stream_table('f_one', 'SELECT count(*) AS n, max(t) AS t FROM a', refresh_mode => 'FULL');
SELECT did('f_key'), did('f_row'), did('f_win'), did('f_one');

-- Nothing changed: nothing happens.
SELECT count(*) AS before FROM pgtrickle.pgt_refresh_history \gset
SELECT pgtrickle.refresh_stream_table(s) FROM unnest('{f_key,f_row,f_win,f_one}'::text[]) s;
SELECT count(*) - :before AS refreshes FROM pgtrickle.pgt_refresh_history;
-- Unless it is asked for, and then nothing is written.
CREATE TABLE before AS SELECT ctid AS place, id FROM f_key;
SELECT pgtrickle.refresh_stream_table('f_key', 'FULL');
SELECT did('f_key'), (SELECT count(*) FROM f_key JOIN before USING (id) WHERE f_key.ctid <> place) AS moved;

-- Small memory: 64 kB make many batches.
SET work_mem = '64kB'; SET hash_mem_multiplier = 1;
UPDATE a SET t = 'other ' || id WHERE id % 10 = 0;
DELETE FROM a WHERE id % 10 = 1;
INSERT INTO a SELECT i, i % 100, 'text ' || i FROM generate_series(20001, 21000) i;
SELECT pgtrickle.refresh_stream_table(s) FROM unnest('{f_key,f_row,f_win,f_one}'::text[]) s;
SELECT did('f_key'), did('f_row'), did('f_win'), did('f_one');
SELECT differences('f_key'), differences('f_row'), differences('f_win'), differences('f_one');
-- With a unique constraint of the user, deletes come first; every row changes its value.
CREATE UNIQUE INDEX ON f_key (t);
UPDATE a SET t = 'text ' || (id % 20000) + 1;
UPDATE a SET t = 'unique ' || id WHERE id > 20000 OR id % 10 = 0;
SELECT pgtrickle.refresh_stream_table('f_key');
SELECT did('f_key'), differences('f_key');
RESET work_mem; RESET hash_mem_multiplier;

-- A table with row triggers is filled row by row.
TRUNCATE a;
SELECT pgtrickle.refresh_stream_table(s) FROM unnest('{f_key,f_row,f_win,f_one}'::text[]) s;
SELECT did('f_key'), did('f_row'), did('f_win'), did('f_one');
SELECT * FROM f_one;
CREATE TABLE log (n int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO refresh_full.log VALUES (NEW.id);
	RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT ON f_key FOR EACH ROW EXECUTE FUNCTION note();
INSERT INTO a SELECT i, i % 100, 'text ' || i FROM generate_series(1, 1500) i;
SELECT pgtrickle.refresh_stream_table(s) FROM unnest('{f_key,f_row,f_win,f_one}'::text[]) s;
SELECT did('f_key'), did('f_row'), did('f_win'), did('f_one');
SELECT count(*) FROM log;
SELECT differences('f_key'), differences('f_row'), differences('f_win'), differences('f_one');

-- Modes: AUTO goes FULL when much changed, DIFFERENTIAL never; a mode can be asked for once.
CREATE TABLE b (id int PRIMARY KEY, x int);
INSERT INTO b SELECT i, i FROM generate_series(1, 5000) i;
ANALYZE b;
SELECT pgtrickle.create_stream_table('m_auto', 'SELECT id, x FROM b');
SELECT pgtrickle.create_stream_table('m_diff', 'SELECT id, x FROM b', refresh_mode => 'DIFFERENTIAL');
SELECT pgtrickle.create_stream_table('m_full', 'SELECT id, x FROM b', refresh_mode => 'FULL');
UPDATE b SET x = -x;
SELECT pgtrickle.refresh_stream_table(s) FROM unnest('{m_auto,m_diff,m_full}'::text[]) s;
SELECT did('m_auto'), did('m_diff'), did('m_full');
UPDATE b SET x = x + 1 WHERE id = 1;
SELECT pgtrickle.refresh_stream_table(s) FROM unnest('{m_auto,m_diff,m_full}'::text[]) s;
SELECT did('m_auto'), did('m_diff'), did('m_full');
UPDATE b SET x = x + 1 WHERE id = 2;
SELECT pgtrickle.refresh_stream_table('m_auto', 'full'), pgtrickle.refresh_stream_table('m_full', 'Differential');
SELECT did('m_auto'), did('m_full');
\set VERBOSITY terse
SELECT pgtrickle.refresh_stream_table('f_win', 'DIFFERENTIAL');
SELECT pgtrickle.refresh_stream_table('m_auto', 'INCREMENTAL');
\set VERBOSITY default
SELECT pgtrickle.refresh_stream_table('m_diff');
SELECT differences('m_auto'), differences('m_diff'), differences('m_full');

-- So are states of groups: those that stay are not written, those of groups that went go.
CREATE TABLE g (k int, n numeric);
INSERT INTO g SELECT i % 50, i FROM generate_series(1, 500) i;
SELECT pgtrickle.create_stream_table('m_states', 'SELECT k, sum(n) AS s, avg(n) AS a FROM g GROUP BY k HAVING count(*) > 5');
SELECT format('pgtrickle_state.state_%s_1', pgt_id) AS states FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = 'm_states'::regclass \gset
CREATE TABLE states_before AS SELECT k1, xmin::text AS version FROM :states;
SELECT pgtrickle.refresh_stream_table('m_states', 'FULL');
SELECT count(*), count(*) FILTER (WHERE b.version IS DISTINCT FROM s.xmin::text) AS written FROM states_before b FULL JOIN :states s USING (k1);
UPDATE g SET n = n + 1 WHERE k = 7;
DELETE FROM g WHERE k IN (8, 9) OR n < 40;
INSERT INTO g SELECT 60, i FROM generate_series(1, 3) i;
SELECT pgtrickle.refresh_stream_table('m_states', 'FULL');
SELECT count(*), count(*) FILTER (WHERE b.version IS DISTINCT FROM s.xmin::text) AS written,
	count(*) FILTER (WHERE b.k1 IS NULL) AS new, count(*) FILTER (WHERE s.k1 IS NULL) AS gone FROM states_before b FULL JOIN :states s USING (k1);
SELECT differences('m_states');
-- What is there of them serves the next differential refresh.
INSERT INTO g SELECT i, 1000 FROM generate_series(5, 9) i;
UPDATE g SET k = 60 WHERE k = 11;
SELECT pgtrickle.refresh_stream_table('m_states', 'DIFFERENTIAL');
SELECT did('m_states'), differences('m_states');

-- History: clock times, phases.
SELECT DISTINCT h.status, h.initiated_by, end_time > start_time AS took_time, h.duration_ms > 0 AS measured,
	h.data_timestamp BETWEEN start_time AND end_time AS dated, (SELECT string_agg(k, ',' ORDER BY k) FROM jsonb_object_keys(phases) k)
	FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables s USING (pgt_id)
	WHERE s.pgt_relid IN ('m_auto'::regclass, 'f_one'::regclass);

DROP SCHEMA refresh_full CASCADE;
