-- Wrong input of every kind: a clear error each time, and nothing changed.
CREATE SCHEMA bad;
SET search_path = bad;
SET client_min_messages = error;

CREATE FUNCTION fails(sql text, OUT state text, OUT message text, OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE sql;
	message := 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
END $$;
CREATE FUNCTION create_fails(name text, query text, more text = '', OUT state text, OUT message text,
	OUT detail text, OUT hint text)
LANGUAGE sql AS $$
	SELECT * FROM bad.fails(format('SELECT pgtrickle.create_stream_table(%L, %L%s)', name, query, more));
$$;

CREATE TABLE t (id int PRIMARY KEY, g text, v numeric, j json);
CREATE TABLE "Odd ""name""" (id int PRIMARY KEY, "select" int);
CREATE VIEW plain AS SELECT * FROM t;
CREATE TEMP TABLE temporary_table (id int);
INSERT INTO t SELECT i, 'g' || i % 3, i FROM generate_series(1, 9) i;
SELECT pgtrickle.create_stream_table('ok', 'SELECT g, count(*) AS n FROM t GROUP BY g');
\x on

-- Names.
SELECT * FROM create_fails('', 'SELECT 1 AS a');
SELECT * FROM create_fails('a.b.c.d', 'SELECT 1 AS a');
SELECT * FROM create_fails('a..b', 'SELECT 1 AS a');
SELECT * FROM create_fails('"unclosed', 'SELECT 1 AS a');
SELECT * FROM create_fails('no_such_schema.x', 'SELECT 1 AS a');
SELECT * FROM create_fails('otherdb.public.x', 'SELECT 1 AS a');
SELECT * FROM create_fails('t', 'SELECT 1 AS a');
SELECT * FROM create_fails('ok', 'SELECT 1 AS a');
SELECT * FROM create_fails('pg_temp.x', 'SELECT 1 AS a');
SELECT * FROM create_fails('pgtrickle.x', 'SELECT 1 AS a');
SELECT * FROM create_fails('pgtrickle_state.x', 'SELECT 1 AS a');
SELECT * FROM create_fails('pg_catalog.x', 'SELECT 1 AS a');
SELECT * FROM fails($$SELECT pgtrickle.create_stream_table(NULL, 'SELECT 1 AS a')$$);
SELECT * FROM fails($$SELECT pgtrickle.create_stream_table('x', NULL)$$);

-- Queries that are none.
SELECT * FROM create_fails('x', '');
SELECT * FROM create_fails('x', '-- nothing');
SELECT * FROM create_fails('x', 'SELECT 1 AS a; DROP TABLE t');
SELECT * FROM create_fails('x', 'DELETE FROM t RETURNING id');
SELECT * FROM create_fails('x', 'SELECT 1 AS a INTO y');
SELECT * FROM create_fails('x', 'EXPLAIN SELECT 1 AS a');
SELECT * FROM create_fails('x', 'SELEC 1');
SELECT * FROM create_fails('x', 'SELECT nope FROM t');
SELECT * FROM create_fails('x', 'SELECT * FROM nope');
SELECT * FROM create_fails('x', 'SELECT $1 AS a');

-- Columns that a table cannot have.
SELECT * FROM create_fails('x', 'SELECT id, id FROM t');
SELECT * FROM create_fails('x', 'SELECT FROM t');
SELECT * FROM create_fails('x', 'SELECT t AS r, row(1) AS a FROM t');
SELECT * FROM create_fails('x', 'SELECT id AS xmin FROM t');

-- Constructs that are refused outright.
SELECT * FROM create_fails('x', 'SELECT id, random() AS r FROM t');
SELECT * FROM create_fails('x', 'SELECT id FROM t FOR UPDATE');
SELECT * FROM create_fails('x', 'WITH d AS (DELETE FROM t RETURNING id) SELECT id FROM d');
SELECT * FROM create_fails('x', 'SELECT id FROM temporary_table');
SELECT * FROM create_fails('x', 'SELECT id FROM t TABLESAMPLE system (100) REPEATABLE (1)', ', refresh_mode => ''DIFFERENTIAL''');
SELECT * FROM create_fails('x', 'SELECT id, now() AS n FROM t', ', refresh_mode => ''DIFFERENTIAL''');

-- Why a query is computed whole, and where in it that stands (PostgreSQL does not keep where ONLY does).
CREATE TABLE parent (id int PRIMARY KEY, n int);
CREATE TABLE child () INHERITS (parent);
CREATE TYPE composite AS (a int, b text);
CREATE FUNCTION composites(n int) RETURNS SETOF composite LANGUAGE sql IMMUTABLE AS $$ SELECT i, 'c' || i FROM generate_series(1, n) i $$;
SELECT reason, substring(query FROM position FOR 12) AS there FROM (VALUES
	('SELECT id FROM parent TABLESAMPLE bernoulli (50) REPEATABLE (1)'),
	('SELECT id FROM ONLY parent'),
	('SELECT p.id, g FROM parent p, generate_series(1, (SELECT max(n) FROM parent)) g'),
	('SELECT p.id, v.x FROM parent p, LATERAL (VALUES (p.n), ((SELECT max(n) FROM parent))) v (x)'),
	('SELECT id, composites(n) AS c FROM parent'),
	('WITH RECURSIVE r AS (SELECT id, n FROM parent WHERE n IS NULL UNION ALL SELECT p.id, p.n FROM parent p JOIN r ON r.id = p.n) SEARCH DEPTH FIRST BY id SET o SELECT id FROM r ORDER BY o LIMIT 3'),
	('WITH RECURSIVE r AS (SELECT id, n FROM parent WHERE n IS NULL UNION ALL SELECT p.id, p.n FROM parent p JOIN r ON r.id = p.n) CYCLE id SET c USING p SELECT id FROM r'),
	('WITH RECURSIVE r AS (SELECT id, n FROM parent WHERE n IS NULL UNION ALL SELECT s.id, s.n FROM (SELECT p.id, p.n FROM parent p JOIN r ON r.id = p.n) s) SELECT id FROM r'),
	('WITH RECURSIVE r AS (SELECT id, n FROM parent WHERE n IS NULL UNION SELECT p.id, p.n FROM parent p JOIN r ON r.id = p.n) SELECT id FROM r')) q (query),
	LATERAL (SELECT * FROM pgtrickle.validate_query(query) WHERE NOT incremental) v;
DROP TABLE child, parent;
DROP FUNCTION composites;
DROP TYPE composite;

-- Modes, schedules and other options.
SELECT * FROM create_fails('x', 'SELECT id FROM t', ', refresh_mode => ''FASTER''');
SELECT * FROM create_fails('x', 'SELECT id FROM t', ', refresh_mode => NULL');
SELECT * FROM create_fails('x', 'SELECT id FROM t', ', schedule => ''''');
SELECT * FROM create_fails('x', 'SELECT id FROM t', ', schedule => NULL');
SELECT * FROM create_fails('x', 'SELECT id FROM t', ', schedule => ''sometimes''');
SELECT * FROM create_fails('x', 'SELECT id FROM t', ', schedule => ''-5s''');
SELECT * FROM create_fails('x', 'SELECT id FROM t', ', schedule => ''0''');
SELECT * FROM create_fails('x', 'SELECT id FROM t', ', schedule => ''1h30''');
SELECT * FROM create_fails('x', 'SELECT id FROM t', ', schedule => ''1 month''');
SELECT * FROM create_fails('x', 'SELECT id FROM t', ', schedule => ''61 * * * *''');
SELECT * FROM create_fails('x', 'SELECT id FROM t', ', schedule => ''0 0 30 2 *''');
SELECT * FROM create_fails('x', 'SELECT id FROM t', ', schedule => ''@never''');
SELECT * FROM create_fails('x', 'SELECT id FROM t', ', diamond_consistency => ''always''');
SELECT * FROM create_fails('x', 'SELECT id FROM t', ', identity => ''none''');
SELECT * FROM create_fails('x', 'SELECT g FROM t', ', identity => ''key''');

-- Things that are no stream tables.
SELECT * FROM fails($$SELECT pgtrickle.refresh_stream_table('nope')$$);
SELECT * FROM fails($$SELECT pgtrickle.refresh_stream_table('t')$$);
SELECT * FROM fails($$SELECT pgtrickle.drop_stream_table('plain')$$);
SELECT * FROM fails($$SELECT pgtrickle.alter_stream_table('nope', schedule => '1s')$$);
SELECT * FROM fails($$SELECT pgtrickle.pause_stream_table('"Odd ""name"""')$$);
SELECT * FROM fails($$SELECT pgtrickle.export_definition('nope')$$);
SELECT * FROM fails($$SELECT * FROM pgtrickle.get_refresh_history('nope')$$);
SELECT * FROM fails($$SELECT * FROM pgtrickle.list_sources('nope')$$);
SELECT * FROM fails($$SELECT * FROM pgtrickle.explain_st('nope')$$);
SELECT * FROM fails($$SELECT pgtrickle.explain_dag('svg')$$);

-- Changes that cannot be.
SELECT * FROM fails($$SELECT pgtrickle.alter_stream_table('ok', status => 'BROKEN')$$);
CREATE INDEX ok_n ON ok (n);
SELECT * FROM fails($$SELECT pgtrickle.alter_stream_table('ok', query => 'SELECT count(*) AS n, g FROM t GROUP BY g')$$);
SELECT * FROM fails($$SELECT pgtrickle.alter_stream_table('ok', query => 'SELECT g FROM t')$$);
SELECT * FROM fails($$SELECT pgtrickle.alter_stream_table('ok', query => 'SELECT g, n FROM ok')$$);
SELECT * FROM fails($$SELECT pgtrickle.alter_stream_table('ok', identity => 'key', refresh_mode => 'SOMETIMES')$$);
SELECT * FROM fails($$SELECT pgtrickle.refresh_stream_table('ok', 'SLOW')$$);
SELECT * FROM fails($$SELECT pgtrickle.refresh_if_stale('ok', NULL)$$);
SELECT * FROM fails($$SELECT pgtrickle.refresh_if_stale('ok', '-1 s')$$);
SELECT pgtrickle.pause_stream_table('ok');
SELECT * FROM fails($$SELECT pgtrickle.refresh_stream_table('ok')$$);
SELECT pgtrickle.resume_stream_table('ok');

-- Cycles.
SELECT pgtrickle.create_stream_table('ok2', 'SELECT n, count(*) AS m FROM ok GROUP BY n');
SELECT * FROM fails($$SELECT pgtrickle.alter_stream_table('ok', query => 'SELECT ''x'' AS g, m AS n FROM ok2')$$);
SELECT * FROM fails($$SELECT pgtrickle.drop_stream_table('ok')$$);

-- Direct changes.
SELECT * FROM fails('INSERT INTO ok VALUES (1, 1)');
SELECT * FROM fails('UPDATE ok SET n = 0');
SELECT * FROM fails('DELETE FROM ok');
SELECT * FROM fails('TRUNCATE ok');
SELECT * FROM fails('TRUNCATE t, ok');
SELECT * FROM fails('MERGE INTO ok USING t ON ok.g = t.g WHEN MATCHED THEN DELETE');
SET session_replication_role = replica;
SELECT * FROM fails('DELETE FROM ok');
RESET session_replication_role;
\x off
COPY ok FROM stdin;
x	1
\.

-- Transactions that are too old.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pgtrickle.create_stream_table('x', 'SELECT 1 AS a');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT pgtrickle.refresh_stream_table('ok');
ROLLBACK;

-- Positions refer to the query.
SELECT pgtrickle.create_stream_table('x', 'SELECT ''abc'' AS a, nope FROM t');
SELECT pgtrickle.create_stream_table('x', 'SELECT ''abc'' AS a, random() AS r FROM t');

-- Nothing of all this is left.
SELECT pgt_name, status FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'bad' ORDER BY 1;
SELECT relname FROM pg_class WHERE relnamespace = 'bad'::regnamespace AND relkind IN ('r', 'v') ORDER BY 1;
SELECT count(*) FROM pg_class WHERE relnamespace = 'pgtrickle_state'::regnamespace AND relkind = 'v';
(TABLE ok EXCEPT ALL SELECT g, count(*) FROM t GROUP BY g) UNION ALL
(SELECT g, count(*) FROM t GROUP BY g EXCEPT ALL TABLE ok);

-- Hostile names work.
SELECT pgtrickle.create_stream_table('"Odd ""; DROP TABLE t; --"', 'SELECT "select", count(*) AS "from" FROM "Odd ""name""" GROUP BY "select"');
INSERT INTO "Odd ""name""" VALUES (1, 10), (2, 10);
SELECT pgtrickle.refresh_stream_table('bad."Odd ""; DROP TABLE t; --"');
TABLE "Odd ""; DROP TABLE t; --";
SELECT pgtrickle.export_definition('"Odd ""; DROP TABLE t; --"');
SELECT pgtrickle.drop_stream_table('"Odd ""; DROP TABLE t; --"');
SELECT pgtrickle.create_stream_table(repeat('n', 80), 'SELECT 1 AS a');
SELECT pgtrickle.drop_stream_table(repeat('n', 80));

DROP SCHEMA bad CASCADE;
