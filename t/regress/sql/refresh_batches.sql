-- Deltas that do not fit into work_mem: every way of applying takes them in batches.
SET client_min_messages = error;
CREATE SCHEMA refresh_batches;
SET search_path = refresh_batches, public;

CREATE TABLE a (id int PRIMARY KEY, k int, v numeric, t text COLLATE "C");
CREATE TABLE b (id int PRIMARY KEY, w int);
CREATE INDEX ON a (k);
INSERT INTO a SELECT i, i % 500, i, repeat('x', i % 50) FROM generate_series(1, 3000) i;
INSERT INTO b SELECT i, i FROM generate_series(0, 400) i;
ANALYZE a, b;

CREATE TABLE made (st text, query text);
INSERT INTO made VALUES
	('by_key', 'SELECT a.id, a.v, a.t, b.w FROM a JOIN b ON b.id = a.k'),
	('by_image', 'SELECT a.k, a.v, a.t FROM a'),
	('recomputed_keys', 'SELECT a.id, a.v, b.w FROM a LEFT JOIN b ON b.id = a.k'),
	('recomputed_images', 'SELECT a.v, a.t, b.w FROM a LEFT JOIN b ON b.id = a.k'),
	('folded', 'SELECT a.id % 1700 AS g, count(*) AS n, sum(a.v) AS s FROM a GROUP BY 1'),
	('recomputed_groups', 'SELECT a.id % 1700 AS g, max(a.v) AS m FROM a GROUP BY 1'),
	('upon_stage', 'SELECT g.s, count(*) AS n FROM (SELECT id % 1700 AS g, sum(v) AS s FROM a GROUP BY 1) g GROUP BY 1');
SELECT pgtrickle.create_stream_table(st, query, schedule => '1d', refresh_mode => 'DIFFERENTIAL') FROM made;

-- One image more than once, rows that cancel, keys that move.
SET work_mem = '64kB';
SET hash_mem_multiplier = 1;
UPDATE a SET v = v + 0.5, t = left(t, 3), k = (k + 3) % 500;
UPDATE a SET v = v - 0.5 WHERE id % 2 = 0;
UPDATE b SET w = -w;
DELETE FROM a WHERE id BETWEEN 1200 AND 2000;
INSERT INTO a SELECT 20000 + i, i % 600, i % 7, 'new' FROM generate_series(1, 800) i;
INSERT INTO a SELECT 30000 + i, 0, 0, 'gone' FROM generate_series(1, 800) i;
DELETE FROM a WHERE id > 30000;

CREATE FUNCTION differences(st text, query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	PERFORM pgtrickle.refresh_stream_table(st);
	EXECUTE format('SELECT count(*) FROM ((TABLE %1$s EXCEPT ALL %2$s) UNION ALL (%2$s EXCEPT ALL TABLE %1$s)) x', st, query) INTO n;
	RETURN n;
END $$;
SELECT st, differences(st, query) FROM made;
SELECT s.pgt_name, h.action, h.rows_in > 4000 AS large, h.status FROM pgtrickle.pgt_refresh_history h
	JOIN pgtrickle.pgt_stream_tables s USING (pgt_id) WHERE s.pgt_schema = 'refresh_batches' AND h.action <> 'FULL' ORDER BY h.refresh_id;

-- Everything anew, in batches too.
UPDATE a SET v = v + 1;
SELECT st, pgtrickle.refresh_stream_table(st, 'FULL') AS refreshed, differences(st, query) FROM made;
RESET work_mem;
RESET hash_mem_multiplier;
DROP SCHEMA refresh_batches CASCADE;
