-- How rows are found and written: identities, user's indexes, triggers, constraints.
SET client_min_messages = error;
CREATE SCHEMA refresh_apply;
SET search_path = refresh_apply, public;

-- Refreshes and compares with the query, by image: prints only differences.
CREATE FUNCTION refreshed(st text) RETURNS TABLE (difference text) LANGUAGE plpgsql AS $$
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
-- What the last refresh did.
CREATE FUNCTION did(st text) RETURNS text LANGUAGE sql AS $$
	SELECT format('%s: %s in, %s inserted, %s updated, %s deleted', action, rows_in, rows_inserted, rows_updated, rows_deleted)
	FROM pgtrickle.pgt_refresh_history
	WHERE pgt_id = (SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = st::regclass)
	ORDER BY refresh_id DESC LIMIT 1 $$;

CREATE TABLE item (id int PRIMARY KEY, kind text, price numeric, note json);
INSERT INTO item SELECT i, 'k' || i % 3, i + 0.50, json_build_object('i', i) FROM generate_series(1, 9) i;

-- A key: PRIMARY KEY, updates in place, and rows whose image stays are not written.
SELECT pgtrickle.create_stream_table('keyed', 'SELECT id, kind, price FROM item');
SELECT conname, contype, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'keyed'::regclass AND contype <> 'n';
SELECT relreplident, reloptions FROM pg_class WHERE oid = 'keyed'::regclass;
CREATE TABLE before AS SELECT ctid AS place, id FROM keyed;
UPDATE item SET price = price + 1 WHERE id = 1;
UPDATE item SET note = '{}' WHERE id = 2; -- a column that nobody reads
UPDATE item SET kind = kind || '', price = price WHERE id = 3; -- changes nothing
DELETE FROM item WHERE id = 4; INSERT INTO item VALUES (4, 'k1', 4.50, NULL); -- the same again
DELETE FROM item WHERE id = 5; INSERT INTO item VALUES (5, 'new', 0, NULL);
INSERT INTO item VALUES (10, 'k1', 10, NULL); DELETE FROM item WHERE id = 10; -- came and went
SELECT * FROM refreshed('keyed');
SELECT did('keyed');
SELECT id FROM keyed JOIN before USING (id) WHERE keyed.ctid <> place ORDER BY id;
-- 1.5 and 1.50 are equal, but not the same.
UPDATE item SET price = 7.500 WHERE id = 7;
SELECT * FROM refreshed('keyed');
SELECT did('keyed'), price FROM keyed WHERE id = 7;

-- No key: rows are images, duplicates are copies, a type without equality.
CREATE TABLE bag (n numeric, t text, j json);
INSERT INTO bag VALUES (1.0, 'a', '{"x": 1}'), (1.00, 'a', '{"x": 1}'), (1.0, 'a', '{"x":1}'), (1.0, 'a', '{"x": 1}'),
	(NULL, NULL, NULL), (NULL, NULL, NULL), (-0.0, '', 'null');
SELECT pgtrickle.create_stream_table('bagged', 'SELECT n, t, j FROM bag');
SELECT indexdef FROM pg_indexes WHERE tablename = 'bagged';
DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE n::text = '1.0');
DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE n IS NULL);
INSERT INTO bag VALUES (1.00, 'a', '{"x": 1}');
SELECT * FROM refreshed('bagged');
SELECT did('bagged');
SELECT n, t, j, count(*) OVER (PARTITION BY bagged::text) FROM bagged ORDER BY bagged::text;
-- Images do not depend on settings, nor on how a value is stored.
CREATE TABLE wide (a timestamptz, b float8, c text, d text[]);
ALTER TABLE wide ALTER c SET STORAGE EXTERNAL;
INSERT INTO wide VALUES ('2020-01-01 12:00+00', 0.1, repeat('x', 10000), array_fill('y'::text, ARRAY[1000])),
	('infinity', 'NaN', NULL, '{}'), ('2020-01-01 12:00+00', '-0', 'c', '{NULL,a}');
SELECT pgtrickle.create_stream_table('wided', 'SELECT * FROM wide');
SET timezone = 'Asia/Tokyo'; SET datestyle = 'SQL, DMY'; SET extra_float_digits = -5; SET bytea_output = 'escape';
DELETE FROM wide WHERE b = 0.1; UPDATE wide SET b = 0.0 WHERE c = 'c'; DELETE FROM wide WHERE a = 'infinity';
SELECT pgtrickle.refresh_stream_table('wided');
RESET timezone; RESET datestyle; RESET extra_float_digits; RESET bytea_output;
SELECT did('wided'); SELECT * FROM wided;

-- DISTINCT and groups: UNIQUE NULLS NOT DISTINCT.
SELECT pgtrickle.create_stream_table('kinds', 'SELECT DISTINCT kind FROM item');
SELECT pgtrickle.create_stream_table('per_kind', 'SELECT kind, count(*) AS n FROM item GROUP BY kind');
SELECT tablename, indexdef FROM pg_indexes WHERE tablename IN ('kinds', 'per_kind') ORDER BY 1;
INSERT INTO item VALUES (20, NULL, 1, NULL), (21, NULL, 1, NULL);
SELECT * FROM refreshed('kinds') UNION ALL SELECT * FROM refreshed('per_kind');
UPDATE item SET kind = 'was null' WHERE id = 20;
SELECT * FROM refreshed('kinds') UNION ALL SELECT * FROM refreshed('per_kind');
DELETE FROM item WHERE id = 21;
SELECT * FROM refreshed('kinds') UNION ALL SELECT * FROM refreshed('per_kind');
SELECT did('kinds'), did('per_kind');

-- Types without a hash function as keys.
CREATE TABLE odd (m money, b bit(3), v tsvector);
INSERT INTO odd VALUES ('1', '101', 'a b'), ('1', '101', 'a b'), ('2', '101', 'a'), (NULL, NULL, NULL);
SELECT pgtrickle.create_stream_table('odds', 'SELECT m, b, v, count(*) AS n FROM odd GROUP BY m, b, v');
INSERT INTO odd VALUES ('2', '101', 'a'), ('3', '000', ''), (NULL, NULL, NULL); DELETE FROM odd WHERE m = '1';
SELECT * FROM refreshed('odds');
SELECT did('odds');

-- Unique constraints of the user: values may be swapped; a conflict that the query makes is an error.
UPDATE item SET price = 1.50 WHERE id = 1;
SELECT pgtrickle.create_stream_table('swap', 'SELECT id, price FROM item WHERE id < 4');
CREATE UNIQUE INDEX swap_price ON swap (price);
SELECT id, price FROM swap ORDER BY id;
UPDATE item SET price = CASE id WHEN 1 THEN 2.50 WHEN 2 THEN 3.50 ELSE 1.50 END WHERE id IN (1, 2, 3);
SELECT * FROM refreshed('swap');
SELECT did('swap');
DELETE FROM item WHERE id = 1; INSERT INTO item VALUES (0, 'k0', 2.50, NULL); -- moves to another key
SELECT * FROM refreshed('swap');
SELECT did('swap');
INSERT INTO item VALUES (-1, 'k0', 2.50, NULL);
\set VERBOSITY terse
SELECT pgtrickle.refresh_stream_table('swap');
DELETE FROM item WHERE id = -1;
SELECT * FROM refreshed('swap');

-- Row triggers and constraints of the user are respected, statement triggers do not fire, direct DML is refused.
CREATE TABLE log (op text, old_id int, new_id int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO refresh_apply.log VALUES (TG_OP, OLD.id, NEW.id);
	RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON keyed FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER of_price AFTER UPDATE OF price ON keyed FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER statements AFTER INSERT OR UPDATE OR DELETE ON keyed FOR EACH STATEMENT EXECUTE FUNCTION note();
ALTER TABLE keyed ADD CONSTRAINT cheap CHECK (price < 1000);
CREATE TABLE child (id int REFERENCES keyed DEFERRABLE);
INSERT INTO child VALUES (9);
UPDATE item SET price = 8 WHERE id = 8; DELETE FROM item WHERE id = 7; INSERT INTO item VALUES (30, 'k', 1, NULL);
SELECT * FROM refreshed('keyed');
SELECT * FROM log ORDER BY log;
UPDATE item SET price = 1000 WHERE id = 8;
SELECT pgtrickle.refresh_stream_table('keyed');
UPDATE item SET price = 999 WHERE id = 8;
DELETE FROM item WHERE id = 9;
SELECT pgtrickle.refresh_stream_table('keyed');
DELETE FROM child;
SELECT * FROM refreshed('keyed');
INSERT INTO keyed VALUES (99, '', 0);
SET session_replication_role = replica;
DELETE FROM keyed;
RESET session_replication_role;

-- A trigger that asks for a refresh of what is being refreshed.
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgtrickle.refresh_stream_table('refresh_apply.keyed');
	RETURN NULL;
END $$;
CREATE TRIGGER again AFTER UPDATE ON keyed FOR EACH ROW EXECUTE FUNCTION again();
UPDATE item SET price = 1 WHERE id = 8;
SELECT pgtrickle.refresh_stream_table('keyed');
DROP TRIGGER again ON keyed;
SELECT * FROM refreshed('keyed');

-- An identity index that went is made again.
DROP INDEX per_kind_kind_idx;
INSERT INTO item VALUES (40, 'fortieth', 1, NULL);
SELECT * FROM refreshed('per_kind');
SELECT did('per_kind');
SELECT indexdef FROM pg_indexes WHERE tablename = 'per_kind';

-- Keys that are too wide for a btree get an index on their hash, from the first wide one on.
CREATE TABLE wordy (id int PRIMARY KEY, w text, n numeric);
INSERT INTO wordy SELECT i, 'w' || i % 3, i % 2 FROM generate_series(1, 9) i;
SELECT pgtrickle.create_stream_table('words', 'SELECT DISTINCT w, n FROM wordy');
SELECT pgtrickle.create_stream_table('word_sums', 'SELECT w, sum(n) AS s, count(*) AS c FROM wordy GROUP BY w');
SELECT pgtrickle.create_stream_table('word_groups', 'SELECT c, count(*) AS k FROM (SELECT w, count(*) AS c FROM wordy GROUP BY w) x GROUP BY c');
CREATE FUNCTION long(i int) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(md5(i::text || j::text), '') FROM generate_series(1, 300) j $$;
UPDATE wordy SET w = long(id % 4) WHERE id < 7; INSERT INTO wordy VALUES (10, NULL, 1.0), (11, NULL, 1.0);
SELECT * FROM refreshed('words') UNION ALL SELECT * FROM refreshed('word_sums') UNION ALL SELECT * FROM refreshed('word_groups');
SELECT did('words'), did('word_sums'), did('word_groups');
SELECT tablename, indexdef FROM pg_indexes WHERE tablename IN ('words', 'word_sums') ORDER BY 1;
UPDATE wordy SET w = long(2), n = 1.000 WHERE id IN (1, 2, 10); DELETE FROM wordy WHERE id IN (3, 11); INSERT INTO wordy VALUES (12, '', 0);
SELECT * FROM refreshed('words') UNION ALL SELECT * FROM refreshed('word_sums') UNION ALL SELECT * FROM refreshed('word_groups');
SELECT did('words'), did('word_sums'), did('word_groups');
UPDATE wordy SET w = long(id); SELECT pgtrickle.refresh_stream_table(st, 'FULL') FROM unnest('{words,word_sums,word_groups}'::text[]) st;
SELECT * FROM refreshed('words') UNION ALL SELECT * FROM refreshed('word_sums') UNION ALL SELECT * FROM refreshed('word_groups');
-- Also at creation, also instead of a PRIMARY KEY.
SELECT pgtrickle.create_stream_table('words_again', 'SELECT w, count(*) AS n FROM wordy GROUP BY w');
SELECT indexdef FROM pg_indexes WHERE tablename = 'words_again';
CREATE TABLE named (name text PRIMARY KEY, x int); INSERT INTO named VALUES ('short', 1);
SELECT pgtrickle.create_stream_table('names', 'SELECT name || name AS pair, count(*) AS n FROM named GROUP BY name || name');
INSERT INTO named SELECT left(long(1), 2000), 2;
SELECT * FROM refreshed('names');
SELECT did('names');

-- Replica identity by key needs a key that is never null.
SELECT pgtrickle.create_stream_table('by_key', 'SELECT id, kind FROM item', identity => 'key');
SELECT relreplident FROM pg_class WHERE oid = 'by_key'::regclass;
SELECT pgtrickle.create_stream_table('no_key', 'SELECT kind FROM item', identity => 'key');
SELECT to_regclass('no_key');

\set VERBOSITY default
DROP SCHEMA refresh_apply CASCADE;
SELECT count(*) FROM pgtrickle.pgt_stream_tables;
