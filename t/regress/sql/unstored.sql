-- Stages that are not stored: computed by key for the state before and after.
-- Each query is maintained twice, with all stages stored and with none that need not be.
-- After every refresh each stream table must equal its query as a multiset of images, and the
-- refresh must have been incremental. Quiet unless something is wrong.
\set ON_ERROR_STOP 1
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_trickle;
SELECT count(*) AS before FROM pgtrickle.pgt_definitions \gset
CREATE SCHEMA unstored;
SET search_path = unstored, public;
SET pg_trickle.differential_max_change_ratio = 1;

CREATE TABLE query (name text PRIMARY KEY, query text, n serial);
CREATE FUNCTION create_all(suffix text) RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(pgtrickle.create_stream_table(name || suffix, query)) FROM (SELECT * FROM query ORDER BY n) q $$;
CREATE FUNCTION check_all() RETURNS TABLE (name text, difference text) LANGUAGE plpgsql AS $$
DECLARE
	q record;
BEGIN
	FOR q IN SELECT query.name || suffix AS name, query FROM query, (VALUES ('_s'), ('_u')) s(suffix) ORDER BY n, suffix LOOP
		PERFORM pgtrickle.refresh_stream_table(q.name);
		RETURN QUERY EXECUTE format(
			'SELECT %3$L, ''too many: '' || x FROM (SELECT x::text FROM %1$s x EXCEPT ALL SELECT x::text FROM (%2$s) x) x
			 UNION ALL SELECT %3$L, ''missing: '' || x FROM (SELECT x::text FROM (%2$s) x EXCEPT ALL SELECT x::text FROM %1$s x) x',
			q.name, q.query, q.name);
		RETURN QUERY SELECT q.name, h.action || coalesce(': ' || h.refresh_reason, '')
			FROM pgtrickle.get_refresh_history(q.name, 1) h
			WHERE h.initiated_by <> 'INITIAL' AND h.action NOT IN ('DIFFERENTIAL', 'NO_DATA');
	END LOOP;
END $$;

CREATE TABLE c (id int PRIMARY KEY, region text, ref int);
CREATE TABLE o (id int PRIMARY KEY, cust int, day date NOT NULL, amount numeric(10, 2), x float8);
CREATE TABLE l (oid int, line int, qty int, PRIMARY KEY (oid, line));
CREATE TABLE keyless (cust int, n int);
INSERT INTO c SELECT i, CASE WHEN i % 4 > 0 THEN 'r' || i % 4 END, i % 7 FROM generate_series(1, 30) i;
INSERT INTO o SELECT i, CASE WHEN i % 11 > 0 THEN i % 20 END, date '2026-01-01' + i % 5, i, i / 3.0 FROM generate_series(1, 120) i;
INSERT INTO l SELECT i / 2, i % 2, i % 9 FROM generate_series(2, 200) i;
INSERT INTO keyless SELECT i % 5, i FROM generate_series(1, 20) i;
SELECT pgtrickle.create_stream_table('up', 'SELECT id, cust, amount FROM o WHERE amount > 10');

INSERT INTO query (name, query) VALUES
('joined', 'SELECT c.id, c.region, v.n, v.s FROM c JOIN (SELECT cust, count(*) AS n, sum(amount) AS s FROM o GROUP BY cust) v ON v.cust = c.id'),
('outer_joined', 'SELECT c.id, v.n, v.m FROM c LEFT JOIN (SELECT cust, count(*) AS n, max(day) AS m FROM o GROUP BY cust HAVING count(*) > 2) v ON v.cust = c.id'),
('null_keys', 'SELECT c.id, v.n FROM c JOIN (SELECT region, count(*) AS n FROM c GROUP BY region) v ON v.region IS NOT DISTINCT FROM c.region AND v.region = c.region'),
('self', 'SELECT o.id, o.amount, v.m FROM o JOIN (SELECT cust, max(day) AS m, min(id) AS i FROM o GROUP BY cust) v ON v.cust = o.cust AND v.i <> o.id'),
('of_join', 'SELECT c.id, v.q FROM c JOIN (SELECT o.cust, sum(l.qty) AS q FROM o JOIN l ON l.oid = o.id GROUP BY o.cust) v ON v.cust = c.ref'),
('of_outer_join', 'SELECT c.id, v.q FROM c JOIN (SELECT o.cust, count(DISTINCT l.qty) AS q FROM o LEFT JOIN l ON l.oid = o.id GROUP BY o.cust) v ON v.cust = c.ref'),
('of_self_join', 'SELECT c.id, v.q FROM c JOIN (SELECT a.cust, count(*) AS q FROM o a JOIN o b ON b.cust = a.cust AND b.day = a.day GROUP BY a.cust) v ON v.cust = c.ref'),
('two_levels', 'SELECT n, count(*) AS c FROM (SELECT cust, count(*) AS n FROM o GROUP BY cust) v GROUP BY n'),
('distinct_rows', 'SELECT c.id, v.day FROM c JOIN (SELECT DISTINCT cust, day FROM o) v ON v.cust = c.id'),
('two_keys', 'SELECT c.id, v.day, v.n FROM c JOIN (SELECT cust, day, count(*) AS n FROM o GROUP BY cust, day) v ON v.cust = c.id AND v.day <> date ''2026-01-02'''),
('twice', 'WITH v AS (SELECT cust, count(*) AS n FROM o GROUP BY cust) SELECT a.cust, a.n, b.n AS m FROM v a JOIN v b ON b.cust = a.cust + 1'),
('in_exists', 'SELECT id FROM c WHERE EXISTS (SELECT FROM (SELECT cust, count(*) AS n FROM o GROUP BY cust) v WHERE v.cust = c.id AND v.n > 5)'),
('in_list', 'SELECT id FROM c WHERE id IN (SELECT cust FROM o GROUP BY cust HAVING sum(amount) > 300)'),
('upstream', 'SELECT c.id, v.n FROM c JOIN (SELECT cust, count(*) AS n FROM up GROUP BY cust) v ON v.cust = c.id'),
('window', 'SELECT cust, day, rank() OVER (PARTITION BY cust ORDER BY n DESC, day) AS r FROM (SELECT cust, day, count(*) AS n FROM o GROUP BY cust, day) v'),
('set', 'SELECT c.id, v.n FROM c JOIN (SELECT k, count(*) AS n FROM (SELECT cust AS k FROM o UNION ALL SELECT ref FROM c) u GROUP BY k) v ON v.k = c.id'),
-- stored, each for its own reason
('of_stage', 'SELECT c.id, v.m FROM c JOIN (SELECT cust, max(n) AS m FROM (SELECT cust, day, count(*) AS n FROM o GROUP BY cust, day) u GROUP BY cust) v ON v.cust = c.id'),
('numeric_key', 'SELECT o.id, v.n FROM o JOIN (SELECT amount, count(*) AS n FROM o GROUP BY amount) v ON v.amount = o.amount'),
('float_sum', 'SELECT c.id, v.n FROM c JOIN (SELECT cust, sum(x) > 0 AS n FROM o GROUP BY cust) v ON v.cust = c.id'),
('no_key', 'SELECT c.id, v.n FROM c JOIN (SELECT cust, count(*) AS n FROM keyless GROUP BY cust) v ON v.cust = c.id'),
('full_joined', 'SELECT c.id, v.cust, v.n FROM c FULL JOIN (SELECT cust, count(*) AS n FROM o GROUP BY cust) v ON v.cust = c.id'),
('cross_joined', 'SELECT c.id, v.cust FROM c JOIN (SELECT cust, count(*) AS n FROM o GROUP BY cust) v ON v.n > c.id'),
('by_result', 'SELECT c.id, v.cust FROM c JOIN (SELECT cust, count(*) AS n FROM o GROUP BY cust) v ON v.n = c.id'),
('first_rows', 'SELECT cust, n FROM (SELECT cust, count(*) AS n FROM o WHERE cust IS NOT NULL GROUP BY cust) v ORDER BY n DESC, cust LIMIT 3'),
('dependent', 'SELECT c.id, v.n FROM c JOIN (SELECT cust, count(*) AS n FROM o WHERE EXISTS (SELECT FROM l WHERE l.oid = o.id) GROUP BY cust) v ON v.cust = c.id');
SET pg_trickle.max_stage_rows = -1;
SELECT create_all('_s');
SET pg_trickle.max_stage_rows = 0;
SELECT create_all('_u');
SELECT construct, incremental, technique FROM query q, pgtrickle.validate_query(q.query)
WHERE name IN ('joined', 'cross_joined') AND construct ~ '^stage' ORDER BY q.n;
-- The choice belongs to the stream table, not to the session.
RESET pg_trickle.max_stage_rows;

SELECT q.name, property, substring(value, '(?:not )?stored: [^;]*') AS choice
FROM query q, pgtrickle.explain_st(q.name || '_u') WHERE property LIKE 'stage%' AND value ~ 'stored: ' ORDER BY q.n, property;
SELECT count(*) FROM query q, pgtrickle.explain_st(q.name || '_s') WHERE value ~ 'stored: ';
SELECT statement, stage FROM pgtrickle.explain_delta('joined_u');

SELECT * FROM check_all();
-- groups appear, change and vanish
INSERT INTO o VALUES (1000, 25, '2026-01-01', 5, 1), (1001, 1, '2026-01-02', 0, NULL), (1002, NULL, '2026-01-09', NULL, 2);
SELECT * FROM check_all();
DELETE FROM o WHERE cust = 3 OR id = 1000;
UPDATE o SET amount = amount + 1 WHERE cust = 4;
SELECT * FROM check_all();
-- keys of rows and of groups change, to and from null
UPDATE o SET cust = cust + 1 WHERE id % 10 = 0;
UPDATE o SET cust = NULL WHERE id IN (5, 6, 7);
UPDATE o SET cust = 2 WHERE cust IS NULL AND id < 50;
UPDATE o SET id = id + 5000 WHERE id BETWEEN 60 AND 70;
UPDATE c SET region = NULL WHERE id = 1;
UPDATE c SET region = 'r1' WHERE region IS NULL AND id > 20;
SELECT * FROM check_all();
-- several tables at once, a row changed more than once, the same key again
BEGIN;
UPDATE l SET qty = qty + 1 WHERE oid % 3 = 0;
UPDATE l SET oid = oid + 1, line = line + 10 WHERE oid % 7 = 0;
DELETE FROM o WHERE id = 12;
INSERT INTO o VALUES (12, 9, '2026-01-03', 7.00, 7);
UPDATE o SET amount = 7.5 WHERE id = 12;
DELETE FROM c WHERE id IN (9, 10);
INSERT INTO c VALUES (9, 'r9', 9), (40, 'r1', 12);
UPDATE c SET ref = ref + 1 WHERE id % 2 = 0;
UPDATE keyless SET n = n + 1 WHERE cust = 2;
INSERT INTO l VALUES (12, 50, 3), (9999, 1, 1);
COMMIT;
SELECT * FROM check_all();
-- more rows than a small plan is for
INSERT INTO o SELECT i, i % 40, date '2026-01-01' + i % 5, i, i FROM generate_series(10000, 13000) i;
INSERT INTO c SELECT i, 'r' || i % 9, i % 50 FROM generate_series(10000, 13000) i;
SELECT * FROM check_all();
DELETE FROM o WHERE id >= 10000;
DELETE FROM c WHERE id >= 10000 AND id % 2 = 0;
SELECT * FROM check_all();
-- changes within the transaction of a refresh
BEGIN;
UPDATE o SET cust = 1 WHERE cust = 2;
SELECT * FROM check_all();
UPDATE o SET cust = 2 WHERE cust = 1;
SELECT * FROM check_all();
ROLLBACK;
SELECT * FROM check_all();

-- Nothing is stored of it, not by a full refresh either.
TRUNCATE l;
INSERT INTO l SELECT i, 1, i FROM generate_series(1, 30) i;
SELECT name, substring(difference, '^FULL') AS difference FROM check_all() ORDER BY 1;
SELECT count(pgtrickle.alter_stream_table(name || '_u', refresh_mode => 'FULL')) FROM query;
UPDATE o SET amount = amount + 1 WHERE cust = 3;
SELECT name FROM check_all() WHERE difference NOT LIKE 'FULL%';
SELECT count(pgtrickle.alter_stream_table(name || '_u', refresh_mode => 'AUTO')) FROM query;
CREATE FUNCTION stored_rows(stream_table text) RETURNS TABLE (stage text, choice text, has_rows boolean) LANGUAGE plpgsql AS $$
DECLARE
	t record;
BEGIN
	FOR t IN SELECT c.oid, c.relname, substring(obj_description(c.oid, 'pg_class'), '(?:not )?stored: ') AS choice
			FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
			WHERE d.refobjid = stream_table::regclass AND d.classid = 'pg_class'::regclass AND c.relname ~ '^stage_' ORDER BY 2 LOOP
		stage := regexp_replace(t.relname, '_\d+', '');
		choice := t.choice;
		EXECUTE format('SELECT count(*) > 0 FROM %s', t.oid::regclass) INTO has_rows;
		RETURN NEXT;
	END LOOP;
END $$;
SELECT q.name, s.* FROM query q, stored_rows(q.name || '_u') s WHERE s.choice IS DISTINCT FROM 'stored: ' ORDER BY q.n, s.stage;
SELECT q.name, s.* FROM query q, stored_rows(q.name || '_s') s WHERE NOT s.has_rows;

-- The choice is made again with another query.
SET pg_trickle.max_stage_rows = -1;
SELECT pgtrickle.alter_stream_table('joined_u', query => (SELECT query || ' AND v.n > 1' FROM query WHERE name = 'joined'));
SELECT * FROM stored_rows('joined_u');
SET pg_trickle.max_stage_rows = 3;
SELECT pgtrickle.alter_stream_table('joined_u', query => (SELECT query FROM query WHERE name = 'joined'));
SELECT stage, has_rows FROM stored_rows('joined_u');
SELECT regexp_replace(value, '.* about \d+ ', 'about N ') AS choice FROM pgtrickle.explain_st('joined_u') WHERE property = 'stage 1';
RESET pg_trickle.max_stage_rows;
INSERT INTO o VALUES (2000, 7, '2026-01-01', 5, 1);
SELECT * FROM check_all();

-- The keys by which the old state is told from the new one stay.
\set VERBOSITY terse
\set ON_ERROR_STOP 0
ALTER TABLE o DROP CONSTRAINT o_pkey;
\set ON_ERROR_STOP 1
-- With children a table has no key: the stage is stored from then on.
CREATE TABLE child () INHERITS (o);
INSERT INTO child VALUES (2999, 7, '2026-01-01', 5, 1);
SELECT name, substring(difference, '^(?:FULL|REINITIALIZE)') AS difference FROM check_all() WHERE name LIKE 'joined%';
SELECT * FROM stored_rows('joined_u');
INSERT INTO child VALUES (3000, 7, '2026-01-01', 5, 1);
INSERT INTO o VALUES (3001, 8, '2026-01-01', 5, 1);
SELECT * FROM check_all();

SELECT count(pgtrickle.drop_stream_table(name || suffix)) FROM query, (VALUES ('_s'), ('_u')) s(suffix);
DROP SCHEMA unstored CASCADE;
SELECT count(*) = :before AS clean FROM pgtrickle.pgt_definitions;
