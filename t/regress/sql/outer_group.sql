-- Groups over outer joins are folded: rows without a match are a stage, the rest is linear.
SET client_min_messages = error;
CREATE SCHEMA outer_group;
SET search_path = outer_group, public;

CREATE TABLE a (id int PRIMARY KEY, g int, k int, x int);
CREATE TABLE b (id int, part int, aid int, w int, t text, PRIMARY KEY (id, part));
CREATE TABLE c (id int PRIMARY KEY, bid int, z numeric) PARTITION BY HASH (id);
CREATE TABLE c0 PARTITION OF c FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE c1 PARTITION OF c FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE keyless (aid int, n int);
CREATE INDEX ON b (aid);
CREATE INDEX ON c (bid);
INSERT INTO a SELECT i, i % 5, nullif(i % 7, 3), i % 9 FROM generate_series(1, 60) i;
INSERT INTO b SELECT i / 2, i % 2, nullif(i % 50, 4), i % 11, 't' || i % 3 FROM generate_series(1, 120) i;
INSERT INTO c SELECT i, i % 40, i / 4.0 FROM generate_series(1, 90) i;
INSERT INTO keyless SELECT i % 30, i FROM generate_series(1, 40) i;

CREATE TABLE made (st text, query text);
INSERT INTO made VALUES
	('by_few', 'SELECT g, count(b.id) AS n, count(*) AS m, sum(w) AS s FROM a LEFT JOIN b ON b.aid = a.id GROUP BY g'),
	('by_key', 'SELECT a.id, count(b.id) AS n FROM a LEFT JOIN b ON b.aid = a.id AND t <> ''t1'' GROUP BY a.id'),
	('by_both_sides', 'SELECT g, t, count(*) AS n FROM a LEFT JOIN b ON b.aid = a.id GROUP BY g, t'),
	('of_expressions', 'SELECT coalesce(w, -1) AS w, sum(coalesce(x + w, 100)) AS s FROM a LEFT JOIN b ON b.aid = a.id GROUP BY 1'),
	('without_keys', 'SELECT count(b.aid) AS n, sum(x) AS s FROM a LEFT JOIN b ON b.aid = a.id'),
	('with_having', 'SELECT k, count(*) AS n FROM a LEFT JOIN b ON b.aid = a.id GROUP BY k HAVING sum(w) IS NULL OR sum(w) > 20'),
	('with_filter', 'SELECT g, count(*) FILTER (WHERE b.id IS NULL) AS none FROM a LEFT JOIN b ON b.aid = a.id GROUP BY g'),
	('right_join', 'SELECT t, count(a.id) AS n, sum(z) AS s FROM a JOIN c ON c.id = a.k RIGHT JOIN b ON b.aid = a.id GROUP BY t'),
	('only_missing', 'SELECT g, count(*) AS n FROM a LEFT JOIN b ON b.aid = a.id WHERE b.id IS NULL GROUP BY g'),
	('never_missing', 'SELECT g, count(*) AS n FROM a LEFT JOIN b ON b.aid = a.id WHERE b.w > 2 GROUP BY g'),
	('never_met', 'SELECT g, count(*) AS n FROM a LEFT JOIN b ON b.aid = a.id AND false GROUP BY g'),
	('on_true', 'SELECT g, count(b.id) AS n FROM a LEFT JOIN b ON true GROUP BY g'),
	('on_range', 'SELECT g, sum(w) AS n FROM a LEFT JOIN b ON b.aid BETWEEN a.x AND a.k GROUP BY g'),
	('on_own_column', 'SELECT g, count(b.id) AS n FROM a LEFT JOIN b ON b.aid = a.id AND a.x > 4 GROUP BY g'),
	('chain', 'SELECT g, count(b.id) AS n, sum(z) AS s FROM a LEFT JOIN b ON b.aid = a.id LEFT JOIN c ON c.bid = b.id GROUP BY g'),
	('star', 'SELECT g, count(b.id) AS n, sum(z) AS s FROM a LEFT JOIN b ON b.aid = a.id LEFT JOIN c ON c.bid = a.k GROUP BY g'),
	('before_inner', 'SELECT g, t, count(c.id) AS n FROM a LEFT JOIN b ON b.aid = a.id JOIN c ON c.bid = a.k GROUP BY g, t'),
	('self', 'SELECT p.g, count(q.id) AS n FROM a p LEFT JOIN a q ON q.k = p.x GROUP BY p.g'),
	('junk_key', 'SELECT 1 AS one FROM a LEFT JOIN b ON b.aid = a.id GROUP BY b.w'),
	('over_groups', 'SELECT n, count(*) AS c FROM (SELECT a.id, count(b.id) AS n FROM a LEFT JOIN b ON b.aid = a.id GROUP BY a.id) v GROUP BY n'),
	('below_windows', 'SELECT g, count(b.id) AS n, rank() OVER (ORDER BY count(b.id) DESC, g) AS r FROM a LEFT JOIN b ON b.aid = a.id GROUP BY g'),
	-- Arms of UNION ALL that are not linear are stages of their own, too.
	('union_arm', 'SELECT id, x FROM a WHERE NOT EXISTS (SELECT FROM b WHERE aid = a.id) UNION ALL SELECT id, w FROM b'),
	('group_of_union', 'SELECT x, count(*) AS n FROM (SELECT x FROM a WHERE NOT EXISTS (SELECT FROM b WHERE aid = a.id) UNION ALL SELECT w FROM b) u GROUP BY x'),
	-- These are recomputed by group.
	('not_invertible', 'SELECT g, max(w) AS m FROM a LEFT JOIN b ON b.aid = a.id GROUP BY g'),
	('no_key', 'SELECT n % 3 AS r, count(a.id) AS c FROM keyless LEFT JOIN a ON a.id = aid GROUP BY 1'),
	('full_join', 'SELECT g, count(*) AS n FROM a FULL JOIN b ON b.aid = a.id GROUP BY g'),
	('three', 'SELECT p.g, count(*) AS n FROM a p LEFT JOIN b ON b.aid = p.id LEFT JOIN c ON c.bid = b.id LEFT JOIN a q ON q.id = c.id GROUP BY p.g'),
	('of_join', 'SELECT a.g, count(z) AS n FROM a LEFT JOIN (b JOIN c ON c.bid = b.id) ON b.aid = a.id GROUP BY a.g'),
	('dependent_column', 'SELECT a.id, a.g, count(b.id) AS n FROM a LEFT JOIN b ON b.aid = a.id GROUP BY a.id');
SELECT st, pgtrickle.create_stream_table(st, query, schedule => '1d', refresh_mode => 'DIFFERENTIAL') IS NOT NULL AS made FROM made;

SELECT m.st, string_agg(split_part(regexp_replace(e.value, '^[^,]*, ', ''), ' by ', 1), ', ' ORDER BY e.property) AS stages
	FROM made m, pgtrickle.explain_st(m.st) e WHERE e.property LIKE 'stage %' GROUP BY m.ctid, m.st ORDER BY m.ctid;

CREATE FUNCTION wrong() RETURNS TABLE (st text, differences bigint, action text) LANGUAGE plpgsql AS $$
DECLARE
	m made;
BEGIN
	FOR m IN SELECT * FROM made LOOP
		PERFORM pgtrickle.refresh_stream_table(m.st);
		st := m.st;
		EXECUTE format('SELECT count(*) FROM ((TABLE %1$I EXCEPT ALL (%2$s)) UNION ALL ((%2$s) EXCEPT ALL TABLE %1$I)) d',
			m.st, m.query) INTO differences;
		SELECT h.action INTO action FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables s USING (pgt_id)
			WHERE s.pgt_name = m.st ORDER BY refresh_id DESC LIMIT 1;
		IF differences > 0 OR action = 'FULL' THEN RETURN NEXT; END IF;
	END LOOP;
END $$;
SELECT * FROM wrong();

-- The first and the last match come and go, alone and together with the row that has them.
INSERT INTO b VALUES (900, 0, 55, 1, 't1'), (901, 0, 55, 2, 't2'), (902, 0, 77, 3, NULL);
SELECT * FROM wrong();
DELETE FROM b WHERE aid = 55;
UPDATE b SET aid = aid + 1 WHERE id % 5 = 0;
SELECT * FROM wrong();
UPDATE b SET aid = NULL WHERE id % 7 = 0;
UPDATE a SET k = k + 1, x = nullif(x, 5) WHERE id % 3 = 0;
INSERT INTO a VALUES (77, 2, NULL, 4), (78, NULL, 3, NULL);
SELECT * FROM wrong();
-- The identity changes, and both sides do in one transaction, several times.
BEGIN;
UPDATE a SET id = id + 1000 WHERE id % 4 = 0;
UPDATE b SET aid = aid + 1000 WHERE aid % 8 = 0;
DELETE FROM b WHERE aid IN (1, 2, 3);
INSERT INTO b SELECT i, 5, 1, i % 3, 't0' FROM generate_series(1, 3) i;
DELETE FROM b WHERE part = 5 AND id > 1;
UPDATE c SET bid = bid + 1 WHERE id % 2 = 0;
UPDATE c SET id = id + 200 WHERE id < 9;
COMMIT;
SELECT * FROM wrong();
DELETE FROM a WHERE id % 6 = 0;
DELETE FROM c WHERE bid % 3 = 0;
SELECT * FROM wrong();
DELETE FROM b;
SELECT * FROM wrong();
INSERT INTO b SELECT i, 0, i % 90, i % 11, 't' || i % 3 FROM generate_series(1, 120) i;
SELECT * FROM wrong();
DELETE FROM a;
SELECT * FROM wrong();
INSERT INTO a SELECT i, i % 5, nullif(i % 7, 3), i % 9 FROM generate_series(1, 40) i;
SELECT * FROM wrong();

-- The primary key is relied on.
ALTER TABLE a DROP CONSTRAINT a_pkey;

DROP SCHEMA outer_group CASCADE;
