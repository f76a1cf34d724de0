-- Set-returning functions in FROM and in the select list, and what else has no tables.
SET client_min_messages = error;
CREATE SCHEMA srf;
SET search_path = srf, public;
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
		LATERAL refreshed(pgt_relid::regclass::text) r WHERE pgt_schema = 'srf' ORDER BY 1, 2 LOOP
		RAISE WARNING '%: %', d.st, d.difference;
	END LOOP;
END $$;


CREATE TYPE pair AS (a int, b text);
CREATE FUNCTION pairs(n int) RETURNS SETOF pair LANGUAGE sql IMMUTABLE AS $$ SELECT i, 'p' || i FROM generate_series(1, n) i $$;
CREATE FUNCTION lax(n int) RETURNS SETOF int LANGUAGE sql IMMUTABLE CALLED ON NULL INPUT AS $$ SELECT coalesce(n, -1) $$;
CREATE TABLE t (id int PRIMARY KEY, n int, arr int[], j jsonb, x xml, s text);
CREATE TABLE d (id int PRIMARY KEY, k int, name text);
SELECT pgtrickle.create_stream_table('unnested', 'SELECT t.id, u FROM t, unnest(t.arr) u');
SELECT pgtrickle.create_stream_table('ordinal', 'SELECT t.id, u.e, u.o FROM t CROSS JOIN LATERAL unnest(t.arr) WITH ORDINALITY u (e, o) WHERE u.o < 3');
SELECT pgtrickle.create_stream_table('rows_from', 'SELECT t.id, r.* FROM t, ROWS FROM (unnest(t.arr), generate_series(1, t.n)) r (a, b)');
SELECT pgtrickle.create_stream_table('joined', 'SELECT t.id, d.name FROM t, unnest(t.arr) u (k), d WHERE d.k = u.k');
SELECT pgtrickle.create_stream_table('using_', 'SELECT id, g FROM t FULL JOIN d USING (id), generate_series(1, id % 3) g');
SELECT pgtrickle.create_stream_table('json_', 'SELECT t.id, e.value FROM t, jsonb_array_elements(t.j) e');
CREATE FUNCTION recs(n int) RETURNS SETOF record LANGUAGE sql IMMUTABLE AS $$ SELECT i, 'r' || i FROM generate_series(1, n) i $$;
SELECT pgtrickle.create_stream_table('recordset', 'SELECT t.id, r.* FROM t, recs(t.n) AS r (a int, b text)');
SELECT pgtrickle.create_stream_table('pairs_', 'SELECT t.id, p.a, p.b FROM t, pairs(t.n) p');
SELECT pgtrickle.create_stream_table('chain', 'SELECT t.id, a, b FROM t, generate_series(1, t.n) a, generate_series(a, 3) b');
SELECT pgtrickle.create_stream_table('left_', 'SELECT t.id, u.e FROM t LEFT JOIN LATERAL unnest(t.arr) u (e) ON u.e > t.n');
SELECT pgtrickle.create_stream_table('left_o', 'SELECT d.id, d.k, u.e, u.o FROM d LEFT JOIN t ON t.id = d.k LEFT JOIN LATERAL unnest(t.arr) WITH ORDINALITY u (e, o) ON true');
SELECT pgtrickle.create_stream_table('absent', 'SELECT d.id, l FROM d LEFT JOIN t ON t.id = d.k, lax(t.n) l');
SELECT pgtrickle.create_stream_table('grouped', 'SELECT u.e, count(*) AS n, sum(t.id) AS s FROM t LEFT JOIN LATERAL unnest(t.arr) u (e) ON true GROUP BY u.e');
SELECT pgtrickle.create_stream_table('vals', 'SELECT t.id, v.z FROM t, LATERAL (VALUES (t.n), (t.id), (7)) v (z)');
SELECT pgtrickle.create_stream_table('lat_agg', 'SELECT t.id, l.s, l.m FROM t, LATERAL (SELECT sum(e) AS s, max(e) AS m FROM unnest(t.arr) e) l');
SELECT pgtrickle.create_stream_table('lat_top', 'SELECT d.name, l.e FROM d JOIN t ON t.id = d.k CROSS JOIN LATERAL (SELECT e FROM unnest(t.arr) e ORDER BY e DESC LIMIT 2) l');
SELECT pgtrickle.create_stream_table('xml_', $$SELECT t.id, c.* FROM t, XMLTABLE('/r/i' PASSING t.x COLUMNS i int PATH '@i', v text PATH '.') c$$);
SELECT pgtrickle.create_stream_table('sel', 'SELECT id, unnest(arr) + 1 AS u FROM t');
SELECT pgtrickle.create_stream_table('sel_lock', 'SELECT id, unnest(arr) AS a, generate_series(1, n) AS b, unnest(arr) AS c FROM t');
SELECT pgtrickle.create_stream_table('sel_nest', 'SELECT id, generate_series(1, generate_series(1, n)) AS a, unnest(arr) AS b FROM t');
SELECT pgtrickle.create_stream_table('sel_const', 'SELECT generate_series(1, 3) AS g');
SELECT pgtrickle.create_stream_table('sel_key', 'SELECT unnest(arr) AS e, count(*) AS n FROM t GROUP BY 1');
SELECT pgtrickle.create_stream_table('sel_above', 'SELECT n, unnest(array_agg(id ORDER BY id)) AS i, count(*) AS c FROM t GROUP BY n');
SELECT pgtrickle.create_stream_table('sel_dis', 'SELECT DISTINCT n, unnest(array_agg(id)) % 2 AS i FROM t GROUP BY n');
SELECT pgtrickle.create_stream_table('sel_win', 'SELECT id, generate_series(1, rank() OVER (PARTITION BY n ORDER BY id)) AS g FROM t');
SELECT pgtrickle.create_stream_table('sel_top', 'SELECT id, unnest(arr) AS e FROM t ORDER BY 2 DESC NULLS LAST, 1 LIMIT 4');
SELECT pgtrickle.create_stream_table('sel_in', 'SELECT q.e, d.name FROM (SELECT unnest(arr) AS e FROM t) q JOIN d ON d.k = q.e');
SELECT pgtrickle.create_stream_table('sel_re', $$SELECT id, regexp_split_to_table(s, ',') AS w FROM t$$);
SELECT pgtrickle.create_stream_table('exists_', 'SELECT t.id, u FROM t, unnest(t.arr) u WHERE EXISTS (SELECT FROM d WHERE d.k = u)');
SELECT pgt_relid::regclass AS st, property, regexp_replace(value, 'stage_\d+|state_\d+|, \d+ rows? in \d+ kB', '', 'g') AS value FROM pgtrickle.pgt_stream_tables,
	LATERAL pgtrickle.explain_st(pgt_relid::regclass::text) WHERE pgt_schema = 'srf' AND property LIKE 'stage%' ORDER BY pgt_id, property;
SET client_min_messages = warning;
CALL check_all();
INSERT INTO d VALUES (1, 1, 'one'), (2, 2, 'two'), (3, NULL, 'none'), (4, 9, 'nine'); CALL check_all();
INSERT INTO t VALUES (1, 2, '{1,2,2,NULL}', '[{"a": 1, "b": "x"}, {"a": 2}]', '<r><i i="1">p</i><i>q</i></r>', 'a,b,a'); CALL check_all();
INSERT INTO t VALUES (2, 0, '{}', '[]', NULL, ''), (3, NULL, NULL, NULL, NULL, NULL), (9, 3, '{9}', '[3]'::jsonb - 0, '<r/>', 'z'); CALL check_all();
TABLE left_ ORDER BY 1, 2; TABLE sel_lock ORDER BY 1, 2, 3; TABLE sel_nest ORDER BY 1, 2, 3; TABLE absent ORDER BY 1;
UPDATE t SET arr = '{2,2}', n = 1 WHERE id = 1; CALL check_all();
UPDATE t SET arr = NULL WHERE id = 1; CALL check_all();
UPDATE t SET arr = '{NULL,1}', n = n + 1, s = s || ',c'; CALL check_all();
BEGIN; UPDATE d SET k = 3 WHERE id = 1; UPDATE t SET id = 4 WHERE id = 3; DELETE FROM t WHERE id = 1; COMMIT; CALL check_all();
UPDATE d SET k = 4; CALL check_all();
DELETE FROM d; CALL check_all();
DELETE FROM t; CALL check_all();
INSERT INTO t SELECT i, i % 4, ARRAY[i % 5, i % 7, NULL], jsonb_build_array(jsonb_build_object('a', i)), NULL, 'a,' || i FROM generate_series(1, 40) i;
INSERT INTO d SELECT i, i % 6, 'd' || i FROM generate_series(1, 20) i; CALL check_all();
UPDATE t SET arr = arr || 3 WHERE id % 9 = 0; DELETE FROM d WHERE id % 5 = 0; CALL check_all();
SELECT construct, incremental, technique, reason, "position" FROM pgtrickle.validate_query('SELECT id, pairs(n)::text AS p FROM t') ORDER BY 1;
SELECT construct, reason FROM pgtrickle.validate_query($$SELECT c.* FROM t, XMLTABLE('/r/i' PASSING t.x COLUMNS i date PATH '.') c$$) WHERE NOT incremental;
SELECT construct, reason FROM pgtrickle.validate_query($$SELECT g FROM generate_series(1, (SELECT count(*) FROM t)) g$$) WHERE NOT incremental;
SET client_min_messages = error;
DROP SCHEMA srf CASCADE;
