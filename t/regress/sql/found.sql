-- What t/oracle found, cut to the smallest case. After every refresh the stream table
-- must equal its query; a check prints only differences.
\set ON_ERROR_STOP 1
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_trickle;
CREATE SCHEMA found;
SET search_path = found, public;

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

-- HAVING takes the single row of a stage away: its image was read after the scan had ended.
CREATE TABLE t (id int PRIMARY KEY, k int, x int);
INSERT INTO t VALUES (1, 5, 1), (2, NULL, 3);
SELECT pgtrickle.create_stream_table('having_gone',
	'SELECT s FROM (SELECT sum(DISTINCT a.k) AS s FROM t AS a JOIN t AS b ON a.id = b.x HAVING count(*) = 1) AS q');
INSERT INTO t VALUES (3, 1, 0);
SELECT * FROM check_st('having_gone');
INSERT INTO t VALUES (4, 1, 1);
SELECT * FROM check_st('having_gone');

-- A composite value with a NULL field is not NULL, yet IS NOT NULL is false of it.
CREATE TYPE pair AS (i int, t text);
CREATE TABLE c (k int, p pair);
INSERT INTO c VALUES (1, '(,b)'), (2, '(1,a)'), (3, NULL), (4, '(,)');
SELECT pgtrickle.create_stream_table('composite_count', 'SELECT count(p) AS n FROM c');
SELECT pgtrickle.create_stream_table('composite_group', 'SELECT p, count(p) AS n FROM c GROUP BY p');
DELETE FROM c WHERE k = 1;
SELECT * FROM check_st('composite_count');
SELECT * FROM check_st('composite_group');
DELETE FROM c WHERE k = 4;
SELECT * FROM check_st('composite_count');
SELECT * FROM check_st('composite_group');

-- Constants of the query were written and read again with the settings of the session that refreshed:
-- with fewer digits, or in a time zone whose name is read as that of another.
CREATE TABLE constants (id int PRIMARY KEY, f float8, at timestamptz, i interval);
INSERT INTO constants VALUES (1, 0.30000000000000004, '2020-03-02 10:00+00', '-1 day 02:03:04');
SET extra_float_digits = 0;
SET DateStyle = 'SQL, DMY';
SET TimeZone = 'Asia/Kolkata';
SELECT pgtrickle.create_stream_table('constant', $$
	SELECT id, f = '0.30000000000000004'::float8 AS f, at = '2020-03-02 10:00+00'::timestamptz AS at, i = '-1 day 02:03:04'::interval AS i
	FROM constants$$);
INSERT INTO constants SELECT 2, f, at, i FROM constants;
SELECT pgtrickle.refresh_stream_table('constant');
RESET extra_float_digits;
RESET DateStyle;
RESET TimeZone;
SELECT * FROM constant ORDER BY id;

-- While a query can only be computed whole, its inner stages are not kept: when it can be maintained
-- again, they were those of the time before.
CREATE TABLE dup (id int PRIMARY KEY, k int, name text);
CREATE TABLE other (k int PRIMARY KEY, n int);
INSERT INTO dup SELECT i, i, 'n' || i FROM generate_series(1, 3) i;
INSERT INTO other SELECT i, i FROM generate_series(1, 5) i;
SELECT pgtrickle.create_stream_table('staged',
	'SELECT d.name, o.n FROM (SELECT DISTINCT k, name FROM dup) d JOIN other o ON o.k = d.k');
ALTER TABLE dup SET UNLOGGED;
UPDATE dup SET name = name || '!';
SELECT * FROM check_st('staged');
SELECT full_reason FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'staged';
ALTER TABLE dup SET LOGGED;
UPDATE dup SET name = name || '?';
SELECT * FROM check_st('staged');
SELECT full_reason FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'staged';
UPDATE dup SET name = name || '#' WHERE id > 1;
SELECT * FROM check_st('staged');
SELECT action, refresh_reason FROM pgtrickle.get_refresh_history('staged');

-- Kept statements name functions and schemas, which can be renamed.
CREATE SCHEMA found_too;
CREATE TABLE found_too.t (id int PRIMARY KEY, k int);
CREATE FUNCTION found_too.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
SELECT pgtrickle.create_stream_table('renamed', 'SELECT id, found_too.twice(k) AS k FROM found_too.t');
INSERT INTO found_too.t VALUES (1, 1);
SELECT * FROM check_st('renamed');
ALTER SCHEMA found_too RENAME TO found_three;
INSERT INTO found_three.t VALUES (2, 2);
SELECT * FROM check_st('renamed');
ALTER FUNCTION found_three.twice(int) RENAME TO double;
SELECT * FROM check_st('renamed'); -- FULL
INSERT INTO found_three.t VALUES (3, 3);
SELECT * FROM check_st('renamed');
ALTER SCHEMA found_three RENAME TO found_four;
INSERT INTO found_four.t VALUES (4, 4);
SELECT * FROM check_st('renamed');
SELECT action, refresh_reason FROM pgtrickle.get_refresh_history('renamed');
DROP SCHEMA found_four CASCADE;

-- A relation that changed is read under WHERE false only: no key was touched, and the statement
-- that asks for the keys had nothing to read from.
CREATE TABLE never_a (k int, x int);
CREATE TABLE never_b (k int, x int);
INSERT INTO never_a VALUES (1, 1), (2, 2);
SELECT pgtrickle.create_stream_table('never',
	'SELECT a.k, count(b.x) AS n FROM never_a AS a LEFT JOIN (SELECT * FROM never_b WHERE false) AS b ON a.k = b.k GROUP BY a.k');
INSERT INTO never_b VALUES (1, 1);
SELECT * FROM check_st('never');
SELECT pgtrickle.create_stream_table('never_rows',
	'SELECT a.k, b.x FROM never_a AS a LEFT JOIN (SELECT * FROM never_b WHERE false) AS b ON a.k = b.k');
INSERT INTO never_b VALUES (2, 1);
SELECT * FROM check_st('never_rows');

-- A window over rows that a subquery chooses: rows were recomputed one by one, by their own
-- key, where the partition is what changes.
CREATE TABLE chosen (k int, g int);
CREATE TABLE choice (k int);
INSERT INTO chosen VALUES (1, 1), (1, 2), (2, 2), (2, 3);
INSERT INTO choice VALUES (1);
SELECT pgtrickle.create_stream_table('chosen_window',
	'SELECT g, count(*) OVER (PARTITION BY g) AS n FROM chosen WHERE k IN (SELECT k FROM choice)');
SELECT pgtrickle.create_stream_table('chosen_total',
	'SELECT g, row_number() OVER (ORDER BY g, k) AS n FROM chosen WHERE k IN (SELECT k FROM choice)');
SELECT pgtrickle.create_stream_table('chosen_partition',
	'SELECT g, n, count(*) OVER (PARTITION BY n, g % 2) AS m FROM (SELECT g, (SELECT count(*) FROM choice AS c WHERE c.k = b.k) AS n FROM chosen AS b) AS q');
INSERT INTO choice VALUES (2), (2);
SELECT * FROM check_st('chosen_window');
SELECT * FROM check_st('chosen_total');
SELECT * FROM check_st('chosen_partition');
DELETE FROM choice WHERE k = 1;
INSERT INTO chosen VALUES (2, 9);
SELECT * FROM check_st('chosen_window');
SELECT * FROM check_st('chosen_total');
SELECT * FROM check_st('chosen_partition');
SELECT st, (SELECT effective_mode FROM pgtrickle.explain_refresh_mode(st)) FROM unnest('{chosen_window,chosen_total,chosen_partition}'::text[]) AS st;

-- A result column by the name of another input column, ordered by the latter: written without
-- the prefix of its relation, ORDER BY meant the result column.
CREATE TABLE renamed (a int, b int);
INSERT INTO renamed VALUES (1, 20), (2, 10);
SELECT pgtrickle.create_stream_table('renamed_top', 'SELECT b AS a FROM renamed AS r ORDER BY r.a LIMIT 1');
SELECT pgtrickle.create_stream_table('renamed_below', 'SELECT sum(a) FROM (SELECT b AS a FROM renamed AS r ORDER BY r.a LIMIT 1) AS q');
SELECT pgtrickle.create_stream_table('renamed_full', 'SELECT b AS a FROM renamed AS r ORDER BY r.a LIMIT 1', refresh_mode => 'FULL');
SELECT * FROM renamed_top, renamed_below, renamed_full;
INSERT INTO renamed VALUES (0, 30);
SELECT * FROM check_st('renamed_top');
SELECT * FROM check_st('renamed_below');
SELECT * FROM check_st('renamed_full');
SELECT * FROM renamed_top, renamed_below, renamed_full;

-- The index by which the stage of groups is read in order, over keys too wide for it: at
-- creation, and when such a key comes later.
CREATE TABLE wide (x text, g int);
INSERT INTO wide SELECT string_agg(md5(i::text), ''), 1 FROM generate_series(1, 120) AS i;
SELECT pgtrickle.create_stream_table('wide_now',
	'SELECT md5(x) AS x, n FROM (SELECT x, count(*) AS n FROM wide GROUP BY x ORDER BY x DESC LIMIT 3) AS q');
TRUNCATE wide;
SELECT * FROM check_st('wide_now');
SELECT pgtrickle.create_stream_table('wide_later',
	'SELECT md5(x) AS x, n FROM (SELECT x, count(*) AS n FROM wide GROUP BY x ORDER BY x DESC LIMIT 4) AS q');
INSERT INTO wide VALUES ('a', 1), ('b', 2);
SELECT * FROM check_st('wide_later');
INSERT INTO wide SELECT string_agg(md5(i::text), ''), 1 FROM generate_series(1, 120) AS i;
SELECT * FROM check_st('wide_later');
SELECT * FROM check_st('wide_now');

-- GROUPING() passed for an aggregate where it was the only one: the empty set had a row for each
-- row below it.
CREATE TABLE grouped (k int);
CREATE TABLE beside (k int);
INSERT INTO beside VALUES (1), (2), (3);
SELECT pgtrickle.create_stream_table('only_grouping',
	'SELECT GROUPING(a.k) AS g FROM beside AS b LEFT JOIN grouped AS a ON true GROUP BY GROUPING SETS ((a.k), (a.k), ())');
SELECT * FROM only_grouping ORDER BY g;
INSERT INTO grouped VALUES (1), (2);
INSERT INTO beside VALUES (4);
SELECT * FROM check_st('only_grouping');

-- Rows of the former query, just deleted, are in an index that is built for another one: they
-- may be too wide for it, too.
CREATE TABLE former (k int, g int, x text);
CREATE TABLE latter (k int, x text);
INSERT INTO former SELECT 1, 1, string_agg(md5(i::text), '') FROM generate_series(1, 120) AS i;
SELECT pgtrickle.create_stream_table('altered_window', 'SELECT k::bigint AS n, x FROM former');
SELECT pgtrickle.create_stream_table('altered_group', 'SELECT k::bigint AS n, x FROM former');
SELECT pgtrickle.alter_stream_table('altered_window', query => 'SELECT count(*) OVER (PARTITION BY x) AS n, x FROM latter');
SELECT pgtrickle.alter_stream_table('altered_group', query => 'SELECT count(*) AS n, x FROM latter GROUP BY x');
INSERT INTO latter VALUES (1, 'a'), (2, 'a');
SELECT * FROM check_st('altered_window');
SELECT * FROM check_st('altered_group');

-- The unique index of a stage serves its partitions, too; when a key becomes too wide for it, the
-- partitions need one of their own.
CREATE TABLE served (id int PRIMARY KEY, m text, x text);
SELECT pgtrickle.create_stream_table('served_window',
	'SELECT md5(x) AS x, max(count(*)) OVER (PARTITION BY m) AS n FROM served GROUP BY m, x');
INSERT INTO served VALUES (1, 'a', 'b'), (2, 'a', 'b');
SELECT * FROM check_st('served_window');
INSERT INTO served SELECT 3, 'a', string_agg(md5(i::text), '') FROM generate_series(1, 120) AS i;
SELECT * FROM check_st('served_window');
DELETE FROM served WHERE id = 2;
SELECT * FROM check_st('served_window');

-- A column that the primary key in GROUP BY determines, shown over aggregates of what a subquery
-- answers: the grouped rows are a subquery then, which has no primary key.
CREATE TABLE keyed (id int PRIMARY KEY, b boolean, n int);
CREATE TABLE asked (g int);
INSERT INTO keyed VALUES (1, true, 1), (2, false, 2);
SELECT pgtrickle.create_stream_table('dependent',
	'SELECT a.b, a.n + 1 AS m, sum((SELECT max(g) FROM asked WHERE g <= a.n)) AS s FROM keyed AS a GROUP BY a.id HAVING count(a.n) < 5');
INSERT INTO asked VALUES (1);
UPDATE keyed SET b = NULL WHERE id = 2;
SELECT * FROM check_st('dependent');

-- Functions of what a LATERAL subquery answers, in the select list (the server crashed), in FROM,
-- and beside a left join that has nothing but such a subquery on its left (missing FROM entry).
CREATE TABLE srf_a (k int, g int);
CREATE TABLE srf_b (k int, g int);
SELECT pgtrickle.create_stream_table('lateral_srf',
	'SELECT a.g, generate_series(1, l.g) AS i FROM srf_a AS a CROSS JOIN LATERAL (SELECT b.g FROM srf_b AS b WHERE b.k = a.k) AS l');
SELECT effective_mode, reason FROM pgtrickle.explain_refresh_mode('lateral_srf');
INSERT INTO srf_a VALUES (1, 1);
INSERT INTO srf_b VALUES (1, 2);
SELECT * FROM check_st('lateral_srf');
CREATE TABLE srf_c (n int, x int);
INSERT INTO srf_a SELECT i, i % 2 FROM generate_series(2, 6) AS i;
INSERT INTO srf_b SELECT i % 4, 1 FROM generate_series(1, 9) AS i;
INSERT INTO srf_c VALUES (0, 10), (3, 11), (3, 12);
SELECT pgtrickle.create_stream_table('lateral_function', 'SELECT a.k, f.v
	FROM srf_a AS a, LATERAL (SELECT count(*) AS n FROM srf_b AS b WHERE b.k = a.k) AS s, generate_series(1, s.n) AS f(v)');
SELECT pgtrickle.create_stream_table('lateral_left_function', 'SELECT a.k, f.v, r.*
	FROM srf_a AS a CROSS JOIN LATERAL (SELECT count(*) AS n FROM srf_b AS b WHERE b.k = a.k) AS s
		LEFT JOIN generate_series(1, a.k) AS f(v) ON f.v > s.n, LATERAL (SELECT count(*) AS c FROM srf_c AS c WHERE c.n = f.v) AS r');
SELECT pgtrickle.create_stream_table('lateral_then_left', 'SELECT a.k, c.x, u.v
	FROM srf_a AS a, LATERAL (SELECT count(*) AS n FROM srf_b AS b WHERE b.k = a.k) AS s LEFT JOIN srf_c AS c ON c.n = s.n, LATERAL (VALUES (c.n), (s.n)) AS u(v)');
INSERT INTO srf_b VALUES (4), (5), (5), (1);
INSERT INTO srf_c VALUES (2, 77), (4, 8);
DELETE FROM srf_a WHERE k = 2;
SELECT name, c.* FROM (VALUES ('lateral_function'), ('lateral_left_function'), ('lateral_then_left')) AS t(name), check_st(name) AS c;
DELETE FROM srf_b WHERE k = 1;
UPDATE srf_c SET n = n + 1;
SELECT name, c.* FROM (VALUES ('lateral_function'), ('lateral_left_function'), ('lateral_then_left')) AS t(name), check_st(name) AS c;

-- A key that becomes too wide for its index while another stream table tells its rows apart
-- by it: that one goes on, incrementally, by the hash of the key.
CREATE TABLE wide_src (x text, nn text NOT NULL DEFAULT 'n');
CREATE TABLE wide_other (x text PRIMARY KEY, v int);
INSERT INTO wide_src (x) VALUES ('a'), (NULL);
INSERT INTO wide_other VALUES ('a', 1);
SELECT pgtrickle.create_stream_table('wide_up',
	'SELECT x, count(*) AS n FROM wide_src GROUP BY x', schedule => '1h');
SELECT pgtrickle.create_stream_table('wide_up_nn',
	'SELECT x || nn AS k, x, nn, count(*) AS n FROM wide_src WHERE x IS NOT NULL GROUP BY x, nn', schedule => '1h');
SELECT pgtrickle.create_stream_table('wide_pk',
	'SELECT nn, count(*) AS n FROM wide_src GROUP BY nn', schedule => '1h');
SELECT pgtrickle.create_stream_table('wide_down',
	'SELECT u.x, u.n, o.v FROM wide_up AS u LEFT JOIN wide_other AS o ON o.x = u.x', schedule => '1h', refresh_mode => 'DIFFERENTIAL');
SELECT pgtrickle.create_stream_table('wide_down_pk',
	'SELECT nn, n FROM wide_pk', schedule => '1h', refresh_mode => 'DIFFERENTIAL');
INSERT INTO wide_src SELECT string_agg(md5(i::text), ''), string_agg(md5(i::text), '') FROM generate_series(1, 120) AS i;
SELECT * FROM check_st('wide_up');
SELECT * FROM check_st('wide_up_nn');
SELECT * FROM check_st('wide_pk');
SELECT * FROM check_st('wide_down');
SELECT * FROM check_st('wide_down_pk');
INSERT INTO wide_src SELECT * FROM wide_src;
UPDATE wide_other SET v = 2;
SELECT * FROM check_st('wide_up');
SELECT * FROM check_st('wide_pk');
SELECT * FROM check_st('wide_down');
SELECT * FROM check_st('wide_down_pk');
SELECT c.pgt_name, h.action, count(*) FROM pgtrickle.pgt_refresh_history AS h JOIN pgtrickle.pgt_stream_tables AS c USING (pgt_id)
	WHERE c.pgt_name LIKE 'wide\_down%' GROUP BY 1, 2 ORDER BY 1, 2;
SELECT d.refobjid::regclass FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
	WHERE r.ev_class IN (SELECT view_relid FROM pgtrickle.pgt_definitions WHERE pgt_relid IN ('wide_down'::regclass, 'wide_down_pk'::regclass))
	AND d.refclassid = 'pg_class'::regclass AND d.refobjid::regclass::text LIKE '%idx%' ORDER BY 1;
-- The index is held as before, and the key's columns may be null again in another query.
\set ON_ERROR_STOP 0
DROP INDEX wide_pk_hash_record_extended_idx;
\set ON_ERROR_STOP 1
SELECT pgtrickle.alter_stream_table('wide_pk', query => 'SELECT nullif(nn, ''n'') AS nn, count(*) AS n FROM wide_src GROUP BY 1', cascade => true);
SELECT * FROM check_st('wide_pk');
SELECT * FROM check_st('wide_down_pk');

-- A stage would have a column that no table can have: rows of ROW() have no type of their own.
CREATE TABLE rowed (x int);
INSERT INTO rowed VALUES (1);
SELECT pgtrickle.create_stream_table('row_stage', 'SELECT n + 1 AS n FROM (SELECT count(DISTINCT ((SELECT max(x) FROM rowed), x)) AS n FROM rowed) AS s');
SELECT full_reason FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'row_stage';
INSERT INTO rowed VALUES (2);
SELECT * FROM check_st('row_stage');

-- A null of a function's rows was looked for in the function alone, without its arguments.
CREATE FUNCTION upto(integer) RETURNS SETOF integer LANGUAGE sql IMMUTABLE AS 'SELECT generate_series(1, least($1, 3))';
CREATE FUNCTION halves(integer) RETURNS TABLE (h integer, r text) LANGUAGE sql IMMUTABLE AS
	'VALUES ($1 / 2, ''first''), ($1 - $1 / 2, ''rest'')';
CREATE TABLE null_a (id int NOT NULL);
CREATE TABLE null_b (k int);
CREATE TABLE null_c (g int NOT NULL);
INSERT INTO null_a VALUES (3);
INSERT INTO null_b VALUES (2);
INSERT INTO null_c VALUES (1);
SELECT pgtrickle.create_stream_table('null_args',
	'SELECT c.g, s.h FROM null_c AS c LEFT JOIN (SELECT DISTINCT ON (f.h) f.h, f.r FROM null_a AS a CROSS JOIN null_b AS b JOIN ROWS FROM (upto(a.id), halves(a.id)) AS f(n, h, r) ON true WHERE f.r IS NULL) AS s ON true');
DELETE FROM null_b;
SELECT * FROM check_st('null_args');
INSERT INTO null_b VALUES (1);
INSERT INTO null_a VALUES (2);
SELECT * FROM check_st('null_args');

-- What nobody asks a subquery for is not computed, and raises no error.
CREATE TABLE wanted (q1 int, q2 int);
INSERT INTO wanted VALUES (1, 2), (1, 3), (4, 5);
SELECT pgtrickle.create_stream_table('asked_sublink',
	'SELECT q1 FROM (WITH c AS (SELECT * FROM wanted) SELECT q1, (SELECT q2 FROM c WHERE c.q1 = a.q1) AS more FROM wanted AS a) AS s');
SELECT pgtrickle.create_stream_table('asked_group',
	'SELECT q1, (SELECT count(*) FROM wanted AS b WHERE b.q1 = s.q2) AS n FROM (SELECT q1, q2, sum(q2 / (q1 - 1)) AS bad, count(*) AS n FROM wanted GROUP BY q1, q2) AS s WHERE n < 9');
SELECT pgtrickle.create_stream_table('asked_lateral',
	'SELECT a.q1, s.y FROM wanted AS a, LATERAL (SELECT b.q1 / (a.q1 - 1) AS x, b.q2 AS y FROM wanted AS b ORDER BY b.q2 LIMIT 2) AS s');
-- One of two equal subqueries needs the column, so both have it, and there is one stage.
SELECT pgtrickle.create_stream_table('asked_twice',
	'WITH c AS (SELECT q1, count(*) AS n, sum(q2) AS s FROM wanted GROUP BY q1) SELECT x.q1, y.s FROM c AS x, c AS y WHERE x.n = y.n');
SELECT pgt_name, full_reason FROM pgtrickle.pgt_stream_tables WHERE pgt_name LIKE 'asked%' ORDER BY 1;
SELECT property FROM pgtrickle.explain_st('asked_twice') WHERE property LIKE 'stage%';
INSERT INTO wanted VALUES (1, 8), (2, 1), (2, 4), (3, 1);
DELETE FROM wanted WHERE q1 = 4;
SELECT * FROM check_st('asked_sublink');
SELECT * FROM check_st('asked_group');
SELECT * FROM check_st('asked_lateral');
SELECT * FROM check_st('asked_twice');
-- A LIMIT ends what has no end.
SELECT pgtrickle.create_stream_table('asked_ten', 'WITH RECURSIVE r(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM r) SELECT * FROM r LIMIT 10');
SELECT count(*) FROM asked_ten;

-- Whether a row is null does not depend on columns that were dropped.
CREATE TABLE lost_column (id int PRIMARY KEY, k int, gone int);
CREATE TABLE lost_none (id int PRIMARY KEY);
INSERT INTO lost_column VALUES (1, 1, 1), (2, NULL, 2);
INSERT INTO lost_none VALUES (1), (2), (3);
ALTER TABLE lost_column DROP COLUMN gone;
SELECT pgtrickle.create_stream_table('lost_alone', 'SELECT id, l IS NULL AS a, l IS NOT NULL AS b, count(l) FROM lost_column AS l GROUP BY id, l', refresh_mode => 'DIFFERENTIAL');
SELECT pgtrickle.create_stream_table('lost_joined',
	'SELECT n.id, l IS NULL AS a, l IS NOT NULL AS b, l FROM lost_none AS n LEFT JOIN lost_column AS l USING (id) WHERE NOT (l IS NULL AND n.id = 9)', refresh_mode => 'DIFFERENTIAL');
-- Of an absent side it is known, but has no text.
SELECT pgtrickle.create_stream_table('lost_text',
	'SELECT n.id, s::text AS t FROM lost_none AS n LEFT JOIN (SELECT id, k FROM lost_column WHERE k > 0) AS s USING (id) WHERE ROW(s.k, s.id)::text <> ''(,)'' OR n.id > 2', refresh_mode => 'DIFFERENTIAL');
SELECT * FROM lost_alone ORDER BY id;
SELECT * FROM lost_joined ORDER BY id;
INSERT INTO lost_column VALUES (3, NULL);
UPDATE lost_column SET k = 2 WHERE id = 2;
SELECT * FROM check_st('lost_alone');
SELECT * FROM check_st('lost_joined');
SELECT * FROM check_st('lost_text');

-- A source gets a key, and loses it again: stages have other columns then, and are made anew.
CREATE ROLE found_owner;
GRANT USAGE, CREATE ON SCHEMA found TO found_owner;
CREATE TABLE keyless_source (c1 bigint, c2 integer);
CREATE TABLE keyed_source (k integer NOT NULL, g integer NOT NULL, PRIMARY KEY (k, g));
CREATE TABLE least (k integer);
GRANT SELECT ON keyless_source, keyed_source, least TO found_owner;
INSERT INTO keyless_source VALUES (1, 1), (2, 2);
INSERT INTO keyed_source VALUES (1, 1), (2, 1);
INSERT INTO least VALUES (1);
SET ROLE found_owner;
SELECT pgtrickle.create_stream_table('gets_key',
	'SELECT stddev(b.k) AS s FROM keyless_source AS a LEFT JOIN (SELECT k FROM keyed_source) AS b ON true GROUP BY (SELECT c.k FROM least AS c ORDER BY c.k LIMIT 1)', refresh_mode => 'DIFFERENTIAL');
RESET ROLE;
ALTER TABLE keyless_source ADD PRIMARY KEY (c2);
INSERT INTO keyless_source VALUES (3, 3);
SET ROLE found_owner;
SELECT * FROM check_st('gets_key');
RESET ROLE;
INSERT INTO keyless_source VALUES (4, 4);
SELECT * FROM check_st('gets_key');
ALTER TABLE keyless_source DROP CONSTRAINT keyless_source_pkey;
DELETE FROM keyed_source WHERE k = 1;
SELECT * FROM check_st('gets_key');
INSERT INTO keyed_source VALUES (7, 7);
SELECT * FROM check_st('gets_key');
SELECT action, refresh_reason FROM pgtrickle.get_refresh_history('gets_key');
DROP TABLE gets_key;
DROP OWNED BY found_owner;
DROP ROLE found_owner;

-- Foreign keys do not cascade in a session that applies replicated changes.
SELECT pgtrickle.create_stream_table('replicated', 'SELECT id FROM null_a');
SET session_replication_role = replica;
DROP TABLE replicated;
RESET session_replication_role;
SELECT count(*) AS left_behind FROM pgtrickle.pgt_frontiers WHERE pgt_id NOT IN (SELECT pgt_id FROM pgtrickle.pgt_definitions);

DROP SCHEMA found CASCADE;
