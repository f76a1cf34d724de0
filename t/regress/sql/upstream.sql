-- Stream tables that read stream tables and base tables: after each refresh, whatever it was and in
-- whatever order, a stream table equals its query over what it reads as that is now.
\set ON_ERROR_STOP 1
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_trickle;
CREATE SCHEMA up;
SET search_path = up, public;

CREATE FUNCTION wrong(st text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	q text;
BEGIN
	SELECT rtrim(defining_query, ';') INTO STRICT q FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = st::regclass;
	RETURN QUERY EXECUTE format(
		'SELECT ''%1$s, too many: '' || x::text FROM (SELECT x::text FROM %1$s x EXCEPT ALL SELECT x::text FROM (%2$s) x) x
		 UNION ALL SELECT ''%1$s, missing: '' || x::text FROM (SELECT x::text FROM (%2$s) x EXCEPT ALL SELECT x::text FROM %1$s x) x', st, q);
END $$;
CREATE FUNCTION refresh(st text, mode text DEFAULT NULL) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgtrickle.refresh_stream_table(st, mode);
	RETURN QUERY SELECT wrong(st);
END $$;
CREATE FUNCTION last_refresh(st text) RETURNS text LANGUAGE sql AS $$
	SELECT format('%s (in %s, +%s ~%s -%s)', action, rows_in, rows_inserted, rows_updated, rows_deleted)
	FROM pgtrickle.get_refresh_history(st, 1) $$;

CREATE TABLE cust (id int PRIMARY KEY, region text NOT NULL);
CREATE TABLE ord (id int PRIMARY KEY, cust int NOT NULL, amount int, note text);
INSERT INTO cust SELECT i, 'r' || i % 3 FROM generate_series(1, 12) i;
INSERT INTO ord SELECT i, i % 12 + 1, i % 7, 'n' || i % 4 FROM generate_series(1, 60) i;

--   ord --- per_cust ---.--- joined --- per_region --.
--     \        |         cust --'           cust ----+--- top
--      \       '--------- big (keyless) -------------'
--       '---- notes --------------- meet (per_cust, notes, ord)
SELECT pgtrickle.create_stream_table('per_cust', 'SELECT cust, count(*) AS n, sum(amount) AS total FROM ord GROUP BY cust');
SELECT pgtrickle.create_stream_table('joined', 'SELECT c.id, c.region, p.n, p.total FROM cust c LEFT JOIN per_cust p ON p.cust = c.id');
SELECT pgtrickle.create_stream_table('per_region', 'SELECT region, sum(n) AS n, max(total) AS best FROM joined GROUP BY region');
SELECT pgtrickle.create_stream_table('big', 'SELECT p.n, c.region FROM per_cust p JOIN cust c ON c.id = p.cust WHERE p.total > 5');
SELECT pgtrickle.create_stream_table('top', $$
	SELECT r.region, r.n, r.best, b.k, c.members FROM per_region r
	LEFT JOIN (SELECT region, count(*) AS k FROM big GROUP BY region) b USING (region)
	JOIN (SELECT region, count(*) AS members FROM cust GROUP BY region) c USING (region) $$);
SELECT pgtrickle.create_stream_table('notes', 'SELECT note, cust, count(*) AS n FROM ord GROUP BY note, cust', refresh_mode => 'FULL');
SELECT pgtrickle.create_stream_table('meet', 'SELECT o.id, o.note, p.total, s.n FROM ord o JOIN per_cust p USING (cust) JOIN notes s USING (note, cust)');
SELECT pgtrickle.create_stream_table('kinds', 'SELECT DISTINCT region, n FROM big');
CREATE TABLE streams (st text);
INSERT INTO streams VALUES ('per_cust'), ('joined'), ('per_region'), ('big'), ('top'), ('notes'), ('meet'), ('kinds');
SELECT st, last_refresh(st) FROM streams;
SELECT st, effective_mode FROM streams, LATERAL pgtrickle.explain_refresh_mode(st) ORDER BY 1;

-- A FULL refresh of an upstream writes, and tells, what is different and nothing else.
UPDATE ord SET amount = 100 WHERE id = 5;
SELECT * FROM refresh('per_cust', 'FULL');
SELECT last_refresh('per_cust');
SELECT * FROM refresh('joined', 'DIFFERENTIAL');
SELECT last_refresh('joined');
SELECT * FROM refresh('per_cust', 'FULL');
SELECT * FROM refresh('joined');
SELECT last_refresh('per_cust'), last_refresh('joined');
-- A refresh does not refresh what it reads: it is exact over what is there.
UPDATE ord SET amount = 200 WHERE id = 6;
SELECT * FROM refresh('joined');
SELECT count(*) FROM joined WHERE total > 190;
UPDATE cust SET region = 'r9' WHERE id = 6 + 1;
SELECT * FROM refresh('joined');
SELECT last_refresh('joined');
-- Truncated sources, upstream first and last.
BEGIN;
TRUNCATE ord;
SELECT * FROM refresh('meet');
SELECT count(*) FROM meet;
SELECT * FROM refresh('per_cust');
SELECT * FROM refresh('notes');
SELECT * FROM refresh('meet');
SELECT * FROM refresh('joined');
SELECT * FROM refresh('per_region');
SELECT count(*) FROM meet;
ROLLBACK;
SELECT refresh(st) FROM streams;

-- A diamond in one transaction, with changes between the refreshes.
BEGIN;
INSERT INTO ord VALUES (101, 1, 3, 'n1');
SELECT * FROM refresh('per_cust');
UPDATE ord SET cust = 2, note = 'n2' WHERE id = 101;
SELECT * FROM refresh('notes');
SELECT * FROM refresh('meet');
SELECT * FROM refresh('per_cust');
SELECT * FROM refresh('meet');
DELETE FROM ord WHERE id = 101;
SELECT * FROM refresh('meet');
SAVEPOINT s;
SELECT * FROM refresh('per_cust');
SELECT * FROM refresh('joined');
UPDATE cust SET region = 'x' WHERE id = 2;
SELECT * FROM refresh('joined');
ROLLBACK TO s;
SELECT * FROM refresh('joined');
SELECT * FROM refresh('per_cust');
SELECT * FROM refresh('joined');
SELECT * FROM refresh('big');
SELECT * FROM refresh('per_region');
SELECT * FROM refresh('top');
COMMIT;
SELECT refresh(st) FROM streams;

-- A downstream that is behind by many upstream refreshes of all kinds.
DO $$
BEGIN
	FOR i IN 1 .. 12 LOOP
		UPDATE up.ord SET amount = amount + i, cust = cust % 12 + 1 WHERE id % 5 = i % 5;
		PERFORM pgtrickle.refresh_stream_table('up.per_cust', (ARRAY['FULL', 'DIFFERENTIAL', 'AUTO'])[i % 3 + 1]);
		COMMIT;
	END LOOP;
END $$;
SELECT * FROM refresh('big', 'DIFFERENTIAL');
SELECT * FROM refresh('joined', 'DIFFERENTIAL');
SELECT * FROM refresh('meet', 'DIFFERENTIAL');

-- Rebuilt upstreams: a repair, another query, a key that goes and returns.
SELECT pgtrickle.alter_stream_table('per_cust', query => 'SELECT cust, count(*) AS n, sum(amount) AS total FROM ord WHERE amount <> 6 GROUP BY cust');
SELECT refresh(st, 'DIFFERENTIAL') FROM streams WHERE st IN ('joined', 'big', 'meet');
SELECT pgtrickle.alter_stream_table('per_cust', query => 'SELECT cust, id::bigint AS n, amount::bigint AS total FROM ord');
SELECT refresh(st) FROM streams;
UPDATE ord SET amount = amount + 1 WHERE id < 9;
SELECT refresh(st) FROM streams;
SELECT pgtrickle.alter_stream_table('per_cust', query => 'SELECT cust, count(*) AS n, sum(amount) AS total FROM ord GROUP BY cust');
SELECT refresh(st) FROM streams;

-- At random: changes, refreshes in any order and mode, several in one transaction, some rolled back.
CREATE FUNCTION change() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	i int := 1 + floor(random() * 60);
BEGIN
	CASE floor(random() * 9)::int
		WHEN 0 THEN INSERT INTO up.ord VALUES (i, i % 12 + 1, i % 5, 'n' || i % 3)
			ON CONFLICT (id) DO UPDATE SET amount = NULLIF(up.ord.amount, 3);
		WHEN 1 THEN DELETE FROM up.ord WHERE id BETWEEN i AND i + 4;
		WHEN 2 THEN UPDATE up.ord SET cust = i % 12 + 1 WHERE id % 7 = i % 7;
		WHEN 3 THEN UPDATE up.ord SET amount = i % 9, note = 'n' || i % 5 WHERE id = i;
		WHEN 4 THEN UPDATE up.cust SET region = 'r' || i % 4 WHERE id = i % 12 + 1;
		WHEN 5 THEN DELETE FROM up.cust WHERE id = i % 12 + 1;
		WHEN 6 THEN INSERT INTO up.cust VALUES (i % 12 + 1, 'r' || i % 3) ON CONFLICT DO NOTHING;
		WHEN 7 THEN INSERT INTO up.ord SELECT x, x % 12 + 1, x % 6, 'n' || x % 4 FROM generate_series(i, i + 9) x
			ON CONFLICT DO NOTHING;
		ELSE IF random() < 0.1 THEN TRUNCATE up.ord; END IF;
	END CASE;
END $$;
CREATE FUNCTION steps(n int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	s text;
	difference text;
BEGIN
	FOR i IN 1 .. n LOOP
		IF random() < 0.5 THEN PERFORM up.change(); END IF;
		IF random() < 0.04 THEN
			PERFORM pgtrickle.alter_stream_table('up.per_cust', query => (ARRAY[
				'SELECT cust, count(*) AS n, sum(amount) AS total FROM up.ord GROUP BY cust',
				'SELECT cust, count(*) AS n, sum(amount) AS total FROM up.ord WHERE id % 3 > 0 GROUP BY cust',
				'SELECT cust, id::bigint AS n, amount::bigint AS total FROM up.ord WHERE id < 20'])[1 + floor(random() * 3)]);
		END IF;
		SELECT st INTO s FROM up.streams ORDER BY random() LIMIT 1;
		SELECT string_agg(w, '; ') INTO difference FROM up.refresh('up.' || s,
			CASE WHEN random() < 0.2 THEN 'FULL' WHEN random() < 0.5 THEN 'AUTO' END) w;
		IF difference IS NOT NULL THEN
			RAISE EXCEPTION '%', difference USING ERRCODE = 'data_corrupted';
		END IF;
	END LOOP;
END $$;
SELECT setseed(0.5);
DO $$
BEGIN
	FOR i IN 1 .. 120 LOOP
		PERFORM up.steps((random() * 4)::int);
		BEGIN
			PERFORM up.steps((random() * 4)::int);
			IF random() < 0.4 THEN RAISE EXCEPTION 'back'; END IF;
		EXCEPTION WHEN raise_exception THEN NULL;
		END;
		PERFORM up.steps((random() * 3)::int);
		COMMIT;
	END LOOP;
END $$;
SELECT refresh(st) FROM streams;
SELECT count(DISTINCT pgt_id) AS stream_tables, count(*) FILTER (WHERE action = 'DIFFERENTIAL') > 200 AS differential,
	count(*) FILTER (WHERE action = 'FULL') > 50 AS "full", count(*) FILTER (WHERE status <> 'COMPLETED') AS other
	FROM pgtrickle.pgt_refresh_history WHERE pgt_id IN (SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'up');
DROP SCHEMA up CASCADE;
