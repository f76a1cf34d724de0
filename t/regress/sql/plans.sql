-- Kept plans of refreshes: which indexes they miss, when they are made anew, what they take.
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_trickle;
-- A warning says once per session that the scheduler is not loaded, if it is not.
CREATE SCHEMA plans;
SET search_path = plans, public;

CREATE TABLE c (id int PRIMARY KEY, region text NOT NULL, k int);
CREATE TABLE o (id int PRIMARY KEY, cust int, amount int, pad text);
CREATE TABLE small (id int, v int);
ALTER TABLE c SET (autovacuum_enabled = off);
ALTER TABLE o SET (autovacuum_enabled = off);
INSERT INTO c SELECT i, 'r' || i % 2000, i FROM generate_series(1, 20000) i;
INSERT INTO o SELECT i, i % 20000 + 1, i, repeat('x', 50) FROM generate_series(1, 30000) i;
INSERT INTO small SELECT i, i FROM generate_series(1, 10) i;
ANALYZE c, o, small;
SELECT pgtrickle.create_stream_table('first', 'SELECT 1 AS one');

-- Creation tells.
SET client_min_messages = notice;
SELECT pgtrickle.create_stream_table('joined', 'SELECT o.id, c.region FROM o JOIN c ON c.id = o.cust');
SELECT pgtrickle.create_stream_table('agg', 'SELECT c.region, sum(o.amount) AS total FROM o JOIN c ON c.k = o.cust GROUP BY c.region');
SELECT pgtrickle.create_stream_table('outer_join', 'SELECT c.id, max(o.pad) AS pad FROM c LEFT JOIN o ON o.cust = c.id GROUP BY c.id');
SELECT pgtrickle.create_stream_table('per_region', 'SELECT c.region, max(o.pad) AS pad FROM c JOIN o ON o.cust = c.id GROUP BY c.region');
SELECT pgtrickle.create_stream_table('two', 'SELECT a.id, b.id AS b FROM c a JOIN o ON a.id = o.id JOIN c b ON b.k = o.amount AND b.region = o.pad');
-- Nothing to tell: found by an index, small, no condition that an index serves, FULL, hints off.
SELECT pgtrickle.create_stream_table('by_key', 'SELECT c.id, o.amount FROM o JOIN c ON c.id = o.id');
SELECT pgtrickle.create_stream_table('of_small', 'SELECT a.id FROM small a JOIN small b ON a.v = b.v');
SELECT pgtrickle.create_stream_table('filtered', 'SELECT id FROM c WHERE k = 7');
SELECT pgtrickle.create_stream_table('whole', 'SELECT o.id, c.region FROM o JOIN c ON c.id = o.cust', refresh_mode => 'FULL');
SET pg_trickle.index_hint_pages = -1;
SELECT pgtrickle.create_stream_table('silent', 'SELECT o.id, c.k FROM o JOIN c ON c.id = o.cust');
SELECT * FROM pgtrickle.missing_indexes('silent');
RESET pg_trickle.index_hint_pages;
SET pg_trickle.index_hint_pages = 1;
SELECT create_index FROM pgtrickle.missing_indexes('of_small');
RESET pg_trickle.index_hint_pages;
SELECT stream_table, stage, statement, source_table, table_bytes > 500000 AS big, create_index FROM pgtrickle.missing_indexes() ORDER BY stream_table::text, 2, 3, 6;
SELECT severity, count(*) FROM pgtrickle.health_check(), regexp_split_to_table(hint, '(?<=;) ') AS h WHERE check_name = 'missing_indexes' GROUP BY 1;
SELECT statement, missing_index FROM pgtrickle.explain_delta('joined');
SELECT pgtrickle.drop_stream_table(st) FROM unnest(ARRAY['silent', 'whole', 'two']) st;
-- With the indexes there is nothing left to say; a partial one does not serve.
CREATE INDEX o_partial ON o (cust) WHERE cust > 100;
SELECT create_index FROM pgtrickle.missing_indexes('joined');
CREATE INDEX o_cust ON o (cust);
CREATE INDEX c_k ON c (k);
CREATE INDEX c_region ON c (region);
SELECT * FROM pgtrickle.missing_indexes();
SELECT severity, detail FROM pgtrickle.health_check() WHERE check_name = 'missing_indexes';
-- Another query tells, too. Partitions: the index belongs on the table that the query names.
SELECT pgtrickle.alter_stream_table('by_key', query => 'SELECT c.id, o.id AS amount FROM o JOIN c ON c.id = o.amount');
CREATE TABLE parted (at int, ref int, filler text) PARTITION BY RANGE (at);
CREATE TABLE parted_1 (filler text, at int, ref int);
ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES FROM (0) TO (100000);
INSERT INTO parted SELECT i, i, repeat('y', 60) FROM generate_series(1, 20000) i;
ANALYZE parted;
SELECT pgtrickle.create_stream_table('of_parted', 'SELECT c.id, p.filler FROM c JOIN parted p ON p.ref = c.k');
CREATE INDEX ON parted (ref);
SELECT * FROM pgtrickle.missing_indexes('of_parted');
DROP TABLE parted CASCADE;
SET client_min_messages = error;

-- What is shown: SQL, plan, rows that are expected, and with analyze those that came.
INSERT INTO o VALUES (40001, 5, 1, 'p'), (40002, 6, 2, 'q');
UPDATE c SET region = 'moved' WHERE id = 5;
SELECT statement, sql LIKE '%pgt_delta_%' AS sql, plan LIKE '%Named Tuplestore Scan%' AS plan,
	plan LIKE '%actual time%' AS analyzed, estimated_rows > 0 AS estimated, actual_rows FROM pgtrickle.explain_delta('joined');
SELECT stage, statement, plan LIKE '%actual time%' AS analyzed, estimated_rows > 0 AS estimated, actual_rows FROM pgtrickle.explain_delta('joined', true);
SELECT stage, statement, actual_rows FROM pgtrickle.explain_delta('per_region', true);
SELECT stage, statement, actual_rows FROM pgtrickle.explain_delta('agg', true);
SELECT count(*) FROM joined WHERE id > 40000;
SELECT pgtrickle.create_stream_table('staged', 'SELECT n, count(*) AS c FROM (SELECT v % 3 AS v, count(*) AS n FROM small GROUP BY v % 3) s GROUP BY n');
SELECT property, regexp_replace(value, '(stage|state)_\d+_', '\1_N_', 'g') AS value FROM pgtrickle.explain_st('staged') WHERE property LIKE 'stage%';

-- Plans are kept, and made anew when something they depend on changes. How tables are read tells
-- which plan ran: statistics of this transaction.
CREATE FUNCTION refresh_reads(st text) RETURNS TABLE (o_seq bigint, o_index bigint, o_cust bigint) LANGUAGE plpgsql AS $$
DECLARE
	s bigint := pg_stat_get_xact_numscans('plans.o'::regclass);
	i bigint := (SELECT sum(pg_stat_get_xact_numscans(indexrelid)) FROM pg_index WHERE indrelid = 'plans.o'::regclass);
	c bigint := coalesce(pg_stat_get_xact_numscans(to_regclass('plans.o_cust')), 0);
BEGIN
	PERFORM pgtrickle.refresh_stream_table(st);
	RETURN QUERY SELECT pg_stat_get_xact_numscans('plans.o'::regclass) - s,
		(SELECT sum(pg_stat_get_xact_numscans(indexrelid)) FROM pg_index WHERE indrelid = 'plans.o'::regclass)::bigint - i,
		coalesce(pg_stat_get_xact_numscans(to_regclass('plans.o_cust')), 0) - c;
END $$;
CREATE FUNCTION wrong(st text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	q text;
BEGIN
	SELECT rtrim(defining_query, ';') INTO STRICT q FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = st::regclass;
	RETURN QUERY EXECUTE format(
		'SELECT ''too many: '' || x::text FROM (SELECT x::text FROM %1$s x EXCEPT ALL SELECT x::text FROM (%2$s) x) x
		 UNION ALL SELECT ''missing: '' || x::text FROM (SELECT x::text FROM (%2$s) x EXCEPT ALL SELECT x::text FROM %1$s x) x', st, q);
END $$;
SELECT pgtrickle.refresh_stream_table('joined');
DROP INDEX o_partial;
UPDATE c SET region = 'a' WHERE id = 7;
SELECT * FROM refresh_reads('joined');
UPDATE c SET region = 'b' WHERE id = 8;
SELECT * FROM refresh_reads('joined');
DROP INDEX o_cust;
UPDATE c SET region = 'c' WHERE id = 9;
SELECT o_seq > 0 AS o_seq, o_index, o_cust FROM refresh_reads('joined');
SELECT create_index FROM pgtrickle.missing_indexes('joined');
CREATE INDEX o_cust ON o (cust);
UPDATE c SET region = 'd' WHERE id = 10;
SELECT * FROM refresh_reads('joined');
-- ANALYZE makes the plan anew, in its size class: still nested loops in the order of the engine,
-- whatever the session allows.
SET enable_nestloop = off;
SET enable_indexscan = on;
ANALYZE o, c;
UPDATE c SET region = 'e' WHERE id = 11;
SELECT * FROM refresh_reads('joined');
RESET enable_nestloop;
SELECT * FROM wrong('joined');
ALTER TABLE o ADD COLUMN later int, DROP COLUMN pad CASCADE;
UPDATE c SET region = 'f' WHERE id = 12;
SELECT * FROM refresh_reads('joined');
ALTER TABLE o RENAME COLUMN cust TO customer;
UPDATE c SET region = 'g' WHERE id = 13;
SELECT * FROM refresh_reads('joined');
SELECT * FROM wrong('joined');
-- A function that is replaced is not remembered inlined.
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
SELECT pgtrickle.create_stream_table('funny', 'SELECT id, twice(v) AS v FROM small');
INSERT INTO small VALUES (11, 11);
SELECT pgtrickle.refresh_stream_table('funny');
CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 20';
INSERT INTO small VALUES (12, 12);
SELECT pgtrickle.refresh_stream_table('funny');
INSERT INTO small VALUES (13, 13);
SELECT pgtrickle.refresh_stream_table('funny');
SELECT min(v), max(v) FROM funny;
SELECT * FROM wrong('funny');

-- Memory: thousands of refreshes take no more than hundreds, with a budget that holds everything
-- and with one that holds next to nothing.
CREATE FUNCTION churn(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		UPDATE plans.small SET v = v + 1 WHERE id = i % 10 + 1;
		PERFORM pgtrickle.refresh_stream_table(st) FROM unnest(ARRAY['plans.of_small', 'plans.staged', 'plans.funny']) st;
	END LOOP;
END $$;
-- Memory of the caches: what outlives transactions.
CREATE VIEW kept AS SELECT sum(total_bytes) AS bytes, count(*) FILTER (WHERE name = 'CachedPlanSource') AS plans
	FROM pg_backend_memory_contexts WHERE name LIKE 'CachedPlan%' OR name LIKE 'pg_trickle%' OR name LIKE 'SPI Plan';
SELECT churn(200);
SELECT bytes AS bytes_before, plans AS plans_before FROM kept \gset
SELECT churn(1500);
SELECT bytes <= :bytes_before * 1.1 AS flat, plans - :plans_before <= 3 AS few_more FROM kept;
SET pg_trickle.plan_cache_size = 64;
SELECT churn(20);
SELECT bytes < :bytes_before AS less, plans < :plans_before AS fewer FROM kept;
SELECT bytes AS bytes_before FROM kept \gset
SELECT churn(300);
SELECT bytes <= :bytes_before * 1.05 AS flat FROM kept;
SELECT * FROM wrong('of_small') UNION ALL SELECT * FROM wrong('staged') UNION ALL SELECT * FROM wrong('funny');
RESET pg_trickle.plan_cache_size;

DROP SCHEMA plans CASCADE;
