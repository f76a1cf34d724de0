-- What make corpus found in the queries of PostgreSQL's own tests. A check prints only differences.
\set ON_ERROR_STOP 1
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_trickle;
CREATE SCHEMA corpus;
SET search_path = corpus, public;

CREATE FUNCTION check_st(st text, mode text DEFAULT 'DIFFERENTIAL') RETURNS TABLE (difference text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgtrickle.refresh_stream_table(st, mode);
	RETURN QUERY EXECUTE format(
		'SELECT ''too many: '' || x::text FROM (SELECT x::text FROM %1$s x EXCEPT ALL SELECT x::text FROM v_%1$s x) x
		 UNION ALL SELECT ''missing: '' || x::text FROM (SELECT x::text FROM v_%1$s x EXCEPT ALL SELECT x::text FROM %1$s x) x', st);
END $$;
-- A view and a stream table of one query; how the latter is refreshed, if not by deltas.
CREATE FUNCTION make(st text, query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE VIEW v_%s AS %s', st, query);
	PERFORM pgtrickle.create_stream_table(st, query, '1h');
	RETURN (SELECT full_reason FROM pgtrickle.pgt_definitions WHERE pgt_relid = st::regclass);
END $$;
CREATE TABLE a (i int, j int);
CREATE TABLE b (i int, k int);
INSERT INTO a VALUES (1, 2), (3, 4), (2, 7), (5, 0), (NULL, 3);
INSERT INTO b VALUES (1, 5), (3, 6);

-- Columns of a join that has an alias.
SELECT make('join_alias', 'SELECT ii, t, kk FROM (a CROSS JOIN b) AS tx (ii, jj, t, kk)');
SELECT make('join_alias_lateral', 'SELECT * FROM ((SELECT i / 2 AS x FROM a) AS s JOIN b ON x = b.i) AS q, LATERAL (SELECT x) AS l (y)');
SELECT make('left_lateral', 'SELECT * FROM (SELECT x.i, x.j, y.i, y.j, v.* FROM a AS x LEFT JOIN (SELECT i, coalesce(j, 0) AS j FROM a) AS y ON x.j = y.i,
	LATERAL (SELECT x.i, y.i, y.j) AS v (xi, yi, yj)) AS q (c1, c2, c3, c4, c5, c6, c7)');

-- GROUPING() without grouping sets, also of a query further out.
SELECT make('grouping_one', 'SELECT j, GROUPING(j) AS g FROM a GROUP BY j HAVING GROUPING(j) >= 0');
SELECT make('grouping_set', 'SELECT j, GROUPING(j) AS g FROM a GROUP BY GROUPING SETS (j) HAVING GROUPING(j) >= 0');
SELECT make('grouping_outer', 'SELECT (SELECT (SELECT GROUPING(x, y) FROM (VALUES (1)) AS v2 (c)) FROM (VALUES (1, 2)) AS v1 (x, y) GROUP BY (x, y)) AS g FROM a GROUP BY ROLLUP (i, j)');
-- Functions in group keys make rows in every set.
SELECT make('srf_cube', 'SELECT i, generate_series(1, 2) AS g, count(*) AS n FROM a GROUP BY CUBE (i, g)');
-- DISTINCT ON first, then the function.
SELECT make('srf_distinct', 'SELECT DISTINCT ON (i) i, j, generate_series(1, 3) AS g FROM a ORDER BY i, j DESC');
-- HAVING without groups and aggregates: FROM does not matter.
SELECT make('having_alone', 'SELECT 1 AS one FROM a WHERE 1 / (i - i) = 1 HAVING 1 < 2');
-- Subqueries in aggregates are asked only for rows that FILTER, or CASE, leaves.
SELECT make('filtered', 'SELECT max((SELECT b.k FROM b WHERE b.i = a.i)) FILTER (WHERE j > 3) AS m FROM a');
SELECT make('guarded', 'SELECT j % 2 AS k, sum(CASE WHEN j > 3 THEN (SELECT b.k FROM b WHERE b.i = a.i) ELSE 0 END) AS s FROM a GROUP BY 1');
-- The order of a subquery, where aggregates or LIMIT show it.
CREATE VIEW a_sorted AS SELECT i, j FROM a ORDER BY j DESC;
SELECT make('order_agg', 'SELECT array_agg(i) AS x FROM (SELECT i FROM a ORDER BY j) AS s');
SELECT make('order_view', 'SELECT string_agg(i::text, '','') AS x, count(*) AS n, max(i) FILTER (WHERE i > 1) AS m FROM (SELECT * FROM a_sorted WHERE i > 0) AS s');
SELECT make('order_limit', 'SELECT * FROM (SELECT i FROM a ORDER BY j) AS s LIMIT 2');
SELECT make('order_groups', 'SELECT j % 2 AS k, array_agg(i) AS x FROM (SELECT i, j FROM a ORDER BY j) AS s GROUP BY 1 HAVING count(*) > 1');
SELECT make('order_array', 'SELECT j, ARRAY(SELECT i FROM (SELECT * FROM a AS x WHERE x.i >= a.i ORDER BY j OFFSET 0) AS s) AS x FROM a');
SELECT make('order_with', 'WITH w AS (SELECT i, j FROM a ORDER BY i + j DESC) SELECT array_agg(i) AS x, max(j) AS m FROM w');
-- Keys that PostgreSQL writes as if they were the number of a column.
SELECT make('key_zero', 'SELECT - (0::int) AS k, count(*) AS n FROM a GROUP BY - (0::int)');
SELECT make('key_number', 'SELECT - (2::int) AS k, i, count(*) AS n FROM a GROUP BY ROLLUP (- (2::int), i) ORDER BY - (2::int), i, n LIMIT 3');

INSERT INTO a VALUES (9, 1), (1, 8);
INSERT INTO b VALUES (1, 7), (8, 8);
DELETE FROM b WHERE k = 5;
DELETE FROM a WHERE i = 2;
UPDATE a SET j = j + 10 WHERE i = 5;
SELECT s.pgt_name, c.* FROM pgtrickle.pgt_stream_tables AS s, check_st(pgt_name, CASE WHEN full_reason IS NULL THEN 'DIFFERENTIAL' END) AS c
	WHERE pgt_schema = 'corpus';
-- Two rows where only one may be, but not for rows that are looked at.
INSERT INTO b VALUES (9, 1), (9, 2);
SELECT * FROM check_st('filtered');
SELECT * FROM check_st('guarded');

-- Refused with construct, position and reason.
\set ON_ERROR_STOP 0
SELECT pgtrickle.create_stream_table('no', 'SELECT i AS x, i AS y FROM a GROUP BY x, ROLLUP (y)');
SELECT pgtrickle.create_stream_table('no', 'SELECT i FROM a WHERE j > 0 /* for update */ FOR NO KEY UPDATE');
CREATE TEMPORARY TABLE tmp (i int);
SELECT pgtrickle.create_stream_table('no', 'SELECT a.i FROM a JOIN tmp USING (i)');
SELECT pgtrickle.create_stream_table('no', 'SELECT FROM a');
SELECT pgtrickle.create_stream_table('no', 'SELECT i, interval ''-9223372036854775808 microseconds'' AS v FROM a');
CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN 'x'::int; END $$;
SELECT pgtrickle.create_stream_table('no', 'SELECT i, fails() AS v FROM a');
SELECT pgtrickle.create_stream_table('no', 'SELECT i, array_agg(ROW(i, j)) AS x FROM a GROUP BY i');
DROP SCHEMA corpus CASCADE;
