-- Space that nobody gives back. The server of these tests has no scheduler.
\set ON_ERROR_STOP 1
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_trickle;
CREATE SCHEMA space;
SET search_path = space, public;

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

-- Without a scheduler nobody gave the space of change buffers back.
CREATE TABLE many (id int PRIMARY KEY, v int);
INSERT INTO many SELECT i, 0 FROM generate_series(1, 20000) i;
SELECT pgtrickle.create_stream_table('many_st', 'SELECT id, v FROM many');
SELECT pgtrickle.create_stream_table('many_paused', 'SELECT count(*) AS n FROM many WHERE v > 0');
UPDATE many SET v = v + 1;
SELECT pgtrickle.refresh_stream_table('many_st');
UPDATE many SET v = v + 1;
SELECT pgtrickle.refresh_stream_table('many_st');
SELECT stream_table, pending_rows, buffer_rows FROM pgtrickle.change_buffer_sizes() WHERE source_table LIKE '%many' ORDER BY 1;
BEGIN;
SELECT pgtrickle.refresh_stream_table('many_paused');
UPDATE many SET v = v + 1 WHERE id <= 10;
ROLLBACK;
SELECT stream_table, pending_rows, buffer_rows FROM pgtrickle.change_buffer_sizes() WHERE source_table LIKE '%many' ORDER BY 1;
SELECT * FROM check_st('many_paused');
UPDATE many SET v = v + 1 WHERE id <= 10;
SELECT * FROM check_st('many_st');
SELECT * FROM check_st('many_paused');
SELECT stream_table, pending_rows, buffer_rows FROM pgtrickle.change_buffer_sizes() WHERE source_table LIKE '%many' ORDER BY 1;

DROP SCHEMA space CASCADE;
