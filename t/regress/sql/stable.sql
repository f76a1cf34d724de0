-- Functions that are STABLE only because of the types they can be called with: incremental
-- where the types of the call look the same under any settings.
\set ON_ERROR_STOP 1
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_trickle;
CREATE SCHEMA stable;
SET search_path = stable, public;
CREATE TYPE pair AS (i int, t text);
CREATE TYPE moment AS (i int, at timestamptz);
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN small AS int CHECK (VALUE < 1000);
CREATE TABLE t (id int PRIMARY KEY, g int, s small, x text, n numeric, b bool, f float8, d date, ts timestamp, tz timestamptz,
	iv interval, by bytea, m money, e mood, p pair, q moment, a int[], da date[], r int4range, tr tsrange, j jsonb);
CREATE FUNCTION why(query text) RETURNS text LANGUAGE sql AS
	$$ SELECT coalesce(min(reason) FILTER (WHERE NOT incremental), 'incremental') FROM pgtrickle.validate_query(query) $$;

SELECT e, why('SELECT ' || e || ' AS v FROM t') FROM unnest(ARRAY[
	'to_jsonb(id)', 'to_jsonb(s)', 'to_jsonb(x)', 'to_jsonb(n)', 'to_jsonb(b)', 'to_jsonb(d)', 'to_jsonb(ts)', 'to_jsonb(a)', 'to_jsonb(da)',
	'to_jsonb(p)', 'to_jsonb(r)', 'to_jsonb(j)', 'to_json(ROW(id, x, d))', 'row_to_json(p)', 'array_to_json(a)',
	'jsonb_build_object(''k'', id, ''d'', ts)', 'jsonb_build_array(n, b)', 'json_build_object(x, a)',
	'to_jsonb(f)', 'to_jsonb(tz)', 'to_jsonb(iv)', 'to_jsonb(by)', 'to_jsonb(m)', 'to_jsonb(e)', 'to_jsonb(q)', 'to_jsonb(tr)', 'to_jsonb(t)',
	'concat(id, x, b)', 'concat_ws('','', n, a)', 'format(''%s %s'', id, p)', 'id || x', 'array_to_string(a, '','')', 'quote_literal(id)',
	'p::text', 'a::text', 'r::text', 'concat(d)', 'concat(f)', 'format(''%s'', tz)', 'array_to_string(da, '','')', 'q::text', 'e::text', 'x::int[]', 'x::date',
	'to_char(id, ''FM0000'')', 'to_char(n, ''9G999'')', 'to_char(n, x)', 'to_char(ts, ''YYYY-MM-DD"T"HH24'')', 'to_char(d, ''YYYY'')', 'to_char(ts, ''TMMonth'')', 'to_char(tz, ''YYYY'')',
	'to_date(x, ''YYYY-MM-DD'')', 'to_number(x, ''99.9'')', 'to_timestamp(x, ''YYYY'')',
	'jsonb_populate_record(NULL::pair, j)', 'jsonb_populate_record(NULL::moment, j)', 'now()', 'jsonb_build_object(''now'', now())']) AS e;
SELECT e, why('SELECT g, ' || e || ' AS v FROM t GROUP BY g') FROM unnest(ARRAY[
	'json_agg(x ORDER BY id)', 'jsonb_agg(d ORDER BY id)', 'jsonb_object_agg(id, n)', 'json_agg(tz ORDER BY id)', 'jsonb_agg(p ORDER BY id)', 'jsonb_object_agg(id, f)']) AS e;
SELECT why('SELECT to_jsonb(s) AS v FROM (SELECT id, x FROM t) AS s'), why('SELECT to_jsonb(s) AS v FROM (SELECT id, tz FROM t) AS s'),
	why('SELECT jsonb_agg(s ORDER BY id) AS v FROM (SELECT id, x FROM t) AS s'),
	why('SELECT t.id, r.* FROM t, jsonb_to_recordset(t.j) AS r (i int, x text)'),
	why('SELECT t.id, r.* FROM t, jsonb_to_recordset(t.j) AS r (i int, at timestamptz)');

-- Right, under other settings as well.
CREATE FUNCTION check_st(st text) RETURNS TABLE (difference text) LANGUAGE plpgsql AS $$
DECLARE
	q text;
BEGIN
	SELECT rtrim(defining_query, ';') INTO STRICT q FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = st::regclass;
	PERFORM pgtrickle.refresh_stream_table(st, 'DIFFERENTIAL');
	RETURN QUERY EXECUTE format(
		'SELECT ''too many: '' || x::text FROM (SELECT x::text FROM %1$s x EXCEPT ALL SELECT x::text FROM (%2$s) x) x
		 UNION ALL SELECT ''missing: '' || x::text FROM (SELECT x::text FROM (%2$s) x EXCEPT ALL SELECT x::text FROM %1$s x) x', st, q);
END $$;
SELECT pgtrickle.create_stream_table('docs', $$SELECT id, to_jsonb(s) AS doc, concat(id, '-', x) AS c, to_char(n, 'FM990.00') AS n
	FROM (SELECT id, x, n, d, ts, a, p FROM t) AS s$$);
SELECT pgtrickle.create_stream_table('groups', $$SELECT g, jsonb_agg(jsonb_build_object('id', id, 'd', d) ORDER BY id) AS docs, string_agg(a::text, ',' ORDER BY id) AS x FROM t GROUP BY g$$);
SELECT pgtrickle.create_stream_table('rows', $$SELECT t.id, to_jsonb(half) AS doc, row_to_json(u) AS row
	FROM t LEFT JOIN (SELECT id, x, n AS "N n" FROM t WHERE id % 2 = 0) AS half ON half.id = t.id JOIN (SELECT id, d AS day FROM t) AS u ON u.id = t.id$$);
SELECT pgtrickle.create_stream_table('row_groups', $$SELECT s.g, jsonb_agg(s ORDER BY s.id) AS docs, count(DISTINCT s) AS n FROM (SELECT id, g, x FROM t) AS s GROUP BY s.g$$);
INSERT INTO t (id, g, x, n, d, ts, a, p) SELECT i, i % 3, 'x' || i, i / 4.0, date '2024-02-01' + i, timestamp '2024-02-01' + i * interval '1 h', ARRAY[i, NULL], (i, 'p')::pair FROM generate_series(1, 20) AS i;
SELECT * FROM check_st('docs');
SELECT * FROM check_st('groups');
SELECT * FROM check_st('rows');
SELECT * FROM check_st('row_groups');
SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Tokyo'; SET intervalstyle = 'sql_standard'; SET extra_float_digits = -5;
UPDATE t SET n = n + 1, d = d + 1 WHERE id % 5 = 0;
DELETE FROM t WHERE id % 7 = 0;
SELECT * FROM check_st('docs');
SELECT * FROM check_st('groups');
SELECT * FROM check_st('rows');
SELECT * FROM check_st('row_groups');
RESET ALL;
SET search_path = stable, public; SET client_min_messages = error;
SELECT * FROM check_st('docs');
SELECT * FROM check_st('groups');
SELECT * FROM check_st('rows');
SELECT * FROM check_st('row_groups');
SELECT id, doc, c FROM docs WHERE id = 5;
SELECT * FROM rows WHERE id < 3 ORDER BY id;
SELECT g, n, docs -> 0 AS doc FROM row_groups ORDER BY g;
DROP SCHEMA stable CASCADE;
