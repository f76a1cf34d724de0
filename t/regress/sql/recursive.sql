-- Recursive queries: linear ones go through what changed in rounds; others are computed anew, and the reason is told.
SET client_min_messages = error;
CREATE SCHEMA recursive;
SET search_path = recursive, public;
CREATE TABLE edge (a int, b int);
SELECT pgtrickle.create_stream_table('reach', 'WITH RECURSIVE r AS (SELECT a, b FROM edge UNION SELECT r.a, e.b FROM r JOIN edge e ON e.a = r.b) SELECT a, b FROM r');
SELECT pgtrickle.create_stream_table('paths', 'WITH RECURSIVE r AS (SELECT a, b, 1 AS n FROM edge UNION ALL SELECT r.a, e.b, r.n + 1 FROM r JOIN edge e ON e.a = r.b WHERE r.n < 5) SELECT a, b, n FROM r');
SELECT construct, reason FROM pgtrickle.validate_query('WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT n FROM r') WHERE NOT incremental;
CREATE FUNCTION refreshed() RETURNS TABLE (st text, action text, ins bigint, del bigint, wrong bigint) LANGUAGE plpgsql AS $$
DECLARE
	d record;
BEGIN
	FOR d IN SELECT pgt_name::text AS name, rtrim(defining_query, ';') AS q FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'recursive' ORDER BY 1 LOOP
		PERFORM pgtrickle.refresh_stream_table('recursive.' || d.name);
		SELECT h.action, h.rows_inserted, h.rows_deleted INTO action, ins, del
			FROM pgtrickle.get_refresh_history('recursive.' || d.name) h ORDER BY start_time DESC LIMIT 1;
		EXECUTE format('SELECT count(*) FROM ((TABLE %1$I EXCEPT ALL (%2$s)) UNION ALL ((%2$s) EXCEPT ALL TABLE %1$I)) x', d.name, d.q) INTO wrong;
		st := d.name;
		RETURN NEXT;
	END LOOP;
END $$;
INSERT INTO edge VALUES (1, 2), (2, 3), (2, 3), (3, 4); SELECT * FROM refreshed();
DELETE FROM edge WHERE a = 3; SELECT * FROM refreshed();
-- A cycle, and it opens again.
INSERT INTO edge VALUES (3, 1); SELECT * FROM refreshed();
DELETE FROM edge WHERE a = 3; SELECT * FROM refreshed();
DELETE FROM edge; SELECT * FROM refreshed();

-- Trees: depth, paths, sums over what is below, the same source in seed and step, two recursions, groups inside and outside.
CREATE TABLE node (id int PRIMARY KEY, parent int, cost int);
CREATE INDEX ON node (parent);
INSERT INTO node SELECT i, CASE WHEN i > 1 THEN greatest(i / 3, 1) END, i FROM generate_series(1, 60) i;
CREATE TABLE root (id int);
INSERT INTO root VALUES (1);
CREATE FUNCTION make(st text, query text) RETURNS text LANGUAGE sql AS $$
	SELECT pgtrickle.create_stream_table('recursive.' || st, query);
	SELECT coalesce(full_reason, 'incremental') FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'recursive' AND pgt_name = st $$;
SELECT make('tree', 'WITH RECURSIVE r AS (SELECT id, 1 AS depth, ARRAY[id] AS path, cost::bigint AS sum FROM node WHERE parent IS NULL
	UNION ALL SELECT n.id, depth + 1, path || n.id, sum + n.cost FROM r JOIN node n ON n.parent = r.id) SELECT * FROM r');
SELECT make('below', 'WITH RECURSIVE r AS (SELECT id, id AS top FROM node UNION ALL SELECT n.id, r.top FROM r, node n WHERE n.parent = r.id)
	SELECT top, count(*) AS n, sum(cost) AS cost FROM r JOIN node USING (id) GROUP BY top');
SELECT make('twice', 'WITH RECURSIVE r AS (SELECT id, 0 AS d FROM root UNION ALL SELECT n.id, d + 1 FROM node n JOIN r ON n.parent = r.id WHERE d < 3)
	SELECT x.id, y.d, count(*) AS n FROM r x LEFT JOIN r y ON y.d = x.d + 1 GROUP BY 1, 2');
SELECT make('two', 'WITH RECURSIVE base AS (SELECT id FROM root WHERE id < 100), r AS (SELECT id, 0 AS d FROM base UNION ALL SELECT id + 1, 1 FROM root
	UNION ALL SELECT n.id, d + 1 FROM r JOIN node n ON n.parent = r.id JOIN (SELECT parent, count(*) AS n FROM node GROUP BY parent) g ON g.parent = n.parent WHERE g.n < 4),
	s AS (SELECT id, d FROM r WHERE d > 0 UNION ALL SELECT id + 1, d + 1 FROM s WHERE d < 4)
	SELECT id, d FROM s WHERE EXISTS (SELECT FROM r WHERE r.id = s.id)');
SELECT make('numbers', 'WITH RECURSIVE r (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM r WHERE n < 4) SELECT n, id FROM r, root');
SELECT make('upon', 'SELECT depth, count(*) AS n FROM tree GROUP BY depth');
-- Not these.
SELECT make('r_union', 'WITH RECURSIVE r AS (SELECT id FROM root UNION SELECT n.id FROM r JOIN node n ON n.parent = r.id) SELECT id FROM r');
SELECT make('r_cycle', 'WITH RECURSIVE r AS (SELECT id FROM root UNION ALL SELECT n.id FROM r JOIN node n ON n.parent = r.id) CYCLE id SET c USING p SELECT id, c FROM r');
SELECT make('r_nested', 'WITH RECURSIVE r AS (SELECT id FROM root UNION ALL SELECT q.id FROM (SELECT n.id FROM r JOIN node n ON n.parent = r.id) q) SELECT id FROM r');
SELECT make('r_outer', 'WITH RECURSIVE r AS (SELECT id, 0 AS c FROM root UNION ALL SELECT n.id, x.cost FROM r JOIN node n ON n.parent = r.id LEFT JOIN node x ON x.id = n.cost + 1) SELECT id, c FROM r');
SELECT make('r_exists', 'WITH RECURSIVE r AS (SELECT id FROM root UNION ALL SELECT n.id FROM r JOIN node n ON n.parent = r.id WHERE EXISTS (SELECT FROM root x WHERE x.id < n.id)) SELECT id FROM r');
SELECT make('r_correlated', 'SELECT id, (WITH RECURSIVE r AS (SELECT root.id AS x UNION ALL SELECT n.id FROM r JOIN node n ON n.parent = r.x) SELECT count(*) FROM r) AS n FROM root');
SELECT make('r_lateral', 'SELECT id, x FROM root, LATERAL (WITH RECURSIVE r AS (SELECT root.id AS x UNION ALL SELECT n.id FROM r JOIN node n ON n.parent = r.x) SELECT x FROM r) l');
SELECT regexp_replace(value, 'stage_\d+', 'stage_N') AS value FROM pgtrickle.explain_st('recursive.tree') WHERE property ~ 'stage';
CREATE FUNCTION wrong() RETURNS TABLE (st text, action text, wrong bigint) LANGUAGE sql AS $$
	SELECT r.st, r.action, r.wrong FROM recursive.refreshed() r
	WHERE r.wrong > 0 OR (r.action = 'DIFFERENTIAL') = (r.st ~ '^r_|reach') $$;
INSERT INTO edge VALUES (1, 2); INSERT INTO root VALUES (2);
UPDATE node SET cost = cost + 1 WHERE id = 7; SELECT * FROM wrong();
UPDATE node SET parent = 5 WHERE id = 9; SELECT * FROM wrong();
DELETE FROM node WHERE id IN (4, 59); SELECT * FROM wrong();
INSERT INTO node VALUES (4, 2, 4), (100, 20, 3), (101, NULL, 1), (102, 101, 2); SELECT * FROM wrong();
UPDATE node SET parent = CASE id WHEN 3 THEN 2 WHEN 8 THEN 1 END WHERE id IN (3, 8); SELECT * FROM wrong();
UPDATE node SET id = 200 WHERE id = 2; SELECT * FROM wrong();
UPDATE node SET id = 2 WHERE id = 200; INSERT INTO root VALUES (5), (1); SELECT * FROM wrong();
DELETE FROM root; SELECT * FROM wrong();
INSERT INTO root VALUES (1); SELECT * FROM wrong();
BEGIN;
INSERT INTO node VALUES (300, 60, 1); SELECT * FROM wrong();
UPDATE node SET parent = 1 WHERE id = 300; SELECT * FROM wrong();
ROLLBACK;
SELECT * FROM wrong();
-- A cycle where the query does not look any more: the rounds over the rows that went would not end.
SELECT pgtrickle.drop_stream_table('recursive.below');
UPDATE node SET parent = CASE id WHEN 20 THEN 60 END WHERE id IN (6, 20); SELECT * FROM wrong();
SELECT action, refresh_reason FROM pgtrickle.get_refresh_history('recursive.tree', 1);
UPDATE node SET parent = 6 WHERE id = 20; SELECT * FROM wrong();
DROP SCHEMA recursive CASCADE;
