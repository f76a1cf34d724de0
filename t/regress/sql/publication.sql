-- Publications of stream tables: made, named, renamed, dropped, kept when a table is made again.
SET client_min_messages = warning;
CREATE SCHEMA pu;
SET search_path = pu, public;
CREATE TABLE src (id int PRIMARY KEY, k int, x int);
INSERT INTO src VALUES (1, 1, 10), (2, 1, 20), (3, 2, 30);
SELECT pgtrickle.create_stream_table('pu.s', 'SELECT id, k, x FROM src');
SELECT pgtrickle.create_stream_table('pu.sums', 'SELECT k, sum(x) AS x FROM src GROUP BY k');
CREATE VIEW state AS
	SELECT pgt_name, downstream_publication_name AS name, downstream_publication AS publication,
		(SELECT string_agg(pubname || coalesce(' ' || attnames::text, '') || coalesce(' ' || rowfilter, ''), ', ' ORDER BY pubname)
			FROM pg_publication_tables t WHERE t.schemaname = pgt_schema AND t.tablename = pgt_name) AS all_of_them
	FROM pgtrickle.pgt_stream_tables JOIN pgtrickle.pg_stat_stream_tables USING (pgt_id, pgt_schema, pgt_name) WHERE pgt_schema = 'pu' ORDER BY 1;

SELECT pgtrickle.stream_table_to_publication('pu.s');
SELECT pgtrickle.stream_table_to_publication('s'); -- the same one
SELECT pgtrickle.stream_table_to_publication('s', 'another');
SELECT pgtrickle.stream_table_to_publication('sums', 'pgt_pu_s');
SELECT pgtrickle.stream_table_to_publication('sums', '');
SELECT pgtrickle.stream_table_to_publication('sums', repeat('x', 64));
SELECT pgtrickle.stream_table_to_publication('sums', 'My "pub"');
TABLE state;
SELECT pubname, puballtables, pubinsert, pubupdate, pubdelete, pubowner::regrole = current_user::regrole AS mine FROM pg_publication WHERE pubname ~ '^(pgt_pu|My)' ORDER BY 1;
SELECT pgtrickle.stream_table_to_publication(NULL);
SELECT pgtrickle.stream_table_to_publication('src');
SELECT regexp_replace(pgtrickle.export_definition('sums'), '^.*;\n', '') AS last_line;

-- Refreshes go on.
INSERT INTO src VALUES (4, 2, 40);
UPDATE src SET x = 11 WHERE id = 1;
DELETE FROM src WHERE id = 2;
SELECT pgtrickle.refresh_stream_table('s'), pgtrickle.refresh_stream_table('sums');
SELECT * FROM s ORDER BY 1;
SELECT * FROM sums ORDER BY 1;
UPDATE src SET x = 12 WHERE id = 1;
SELECT pgtrickle.refresh_stream_table('s', 'FULL');
SELECT * FROM s ORDER BY 1;

-- Statements of users are followed.
ALTER PUBLICATION pgt_pu_s RENAME TO renamed;
TABLE state;
ALTER PUBLICATION renamed DROP TABLE s;
TABLE state;
SELECT pgtrickle.drop_stream_table_publication('s');
SELECT pgtrickle.stream_table_to_publication('s');
TABLE state;
DROP PUBLICATION renamed, pgt_pu_s;
TABLE state;
SELECT pgtrickle.stream_table_to_publication('s');
SELECT pgtrickle.drop_stream_table_publication('s');
TABLE state;
SELECT pgtrickle.drop_stream_table_publication('s');

-- Long and ambiguous names.
CREATE SCHEMA pu_a;
SELECT pgtrickle.create_stream_table('pu_a.b', 'SELECT id FROM src'), pgtrickle.create_stream_table('pu.a_b', 'SELECT id FROM src');
SELECT pgtrickle.stream_table_to_publication('pu_a.b') AS first, pgtrickle.stream_table_to_publication('pu.a_b') ~ '^pgt_pu_a_b_[0-9a-f]{8}$' AS second;
SELECT pgtrickle.create_stream_table(format('pu.%I', repeat('ä', 31)), 'SELECT id FROM src'), pgtrickle.create_stream_table(format('pu.%I', repeat('ä', 30) || 'b'), 'SELECT id FROM src');
SELECT count(DISTINCT p), max(octet_length(p)) AS longest FROM (SELECT pgtrickle.stream_table_to_publication(format('pu.%I', n)) AS p FROM unnest(ARRAY[repeat('ä', 31), repeat('ä', 30) || 'b']) n) q;
SELECT pgtrickle.create_stream_table('pu.' || repeat('l', 60), 'SELECT id FROM src') IS NOT NULL AS made;
SELECT p, octet_length(p) FROM pgtrickle.stream_table_to_publication('pu.' || repeat('l', 60)) p;
SELECT pgtrickle.drop_stream_table('pu.' || repeat('l', 60));
SELECT pgtrickle.create_stream_table('pu."We""ird. name"', 'SELECT id FROM src');
SELECT pgtrickle.stream_table_to_publication('pu."We""ird. name"');

-- Dropped with the stream table, however that goes; others in it stay.
SELECT pgtrickle.drop_stream_table('pu."We""ird. name"');
ALTER PUBLICATION pgt_pu_a_b ADD TABLE src;
DROP SCHEMA pu_a CASCADE;
SELECT count(*) FROM pg_publication WHERE pubname = 'pgt_pu_we_ird__name';
SELECT pubname, tablename FROM pg_publication_tables WHERE pubname = 'pgt_pu_a_b';
DROP PUBLICATION pgt_pu_a_b;
SELECT pgtrickle.stream_table_to_publication('s');
ALTER PUBLICATION pgt_pu_s ADD TABLE src;
SET client_min_messages = notice;
SELECT pgtrickle.drop_stream_table_publication('s');
SET client_min_messages = warning;
SELECT pubname, tablename FROM pg_publication_tables WHERE pubname = 'pgt_pu_s';
DROP PUBLICATION pgt_pu_s;

-- A query that needs another table keeps it in its publications.
SELECT pgtrickle.stream_table_to_publication('s');
CREATE PUBLICATION pu_lists FOR TABLE s (id, k);
CREATE PUBLICATION pu_rows FOR TABLE s WHERE (x > 10 AND id > 0), src;
CREATE PUBLICATION pu_all FOR ALL TABLES;
CREATE PUBLICATION pu_inserts FOR TABLE s WITH (publish = 'insert');
DROP PUBLICATION pu_lists;
CREATE PUBLICATION pu_inserts_list FOR TABLE s (id, k) WITH (publish = 'insert');
SELECT 's'::regclass::oid AS before \gset
SELECT pgtrickle.alter_stream_table('s', query => 'SELECT k, id, x FROM src', cascade => true);
SELECT 's'::regclass::oid <> :before AS another_table;
TABLE state;
SELECT pgtrickle.alter_stream_table('s', query => 'SELECT id FROM src');
SELECT pgtrickle.alter_stream_table('s', query => 'SELECT id FROM src', cascade => true);
TABLE state;
UPDATE src SET id = id + 100;
SELECT pgtrickle.refresh_stream_table('s'), pgtrickle.refresh_stream_table('sums'); -- hidden tables are published, too
SELECT * FROM s ORDER BY 1;
SELECT pgtrickle.create_stream_table('pu.staged', 'SELECT n, count(*) AS groups FROM (SELECT k, count(*) AS n FROM src GROUP BY k) q GROUP BY n');
DELETE FROM src WHERE id > 103;
SELECT pgtrickle.refresh_stream_table('staged');
TABLE staged;
SELECT pgtrickle.alter_stream_table('staged', query => 'SELECT n, max(k) AS groups FROM (SELECT k, count(*) AS n FROM src GROUP BY k) q GROUP BY n', cascade => true);
SELECT pgtrickle.drop_stream_table('staged');
DROP PUBLICATION pu_all, pu_rows, pu_inserts, pu_inserts_list;

-- Publications of users that PostgreSQL does not let updates pass through: the refresh says what to do.
SELECT pgtrickle.create_stream_table('pu.u', 'SELECT id, k, x FROM src');
CREATE PUBLICATION pu_lists FOR TABLE u (id, k);
INSERT INTO src VALUES (500, 5, 5);
SELECT pgtrickle.refresh_stream_table('u'); -- inserts pass
UPDATE src SET x = x + 1;
SELECT pgtrickle.refresh_stream_table('u');
DELETE FROM src WHERE id = 500;
SELECT pgtrickle.refresh_stream_table('u', 'FULL');
DROP PUBLICATION pu_lists;
SELECT pgtrickle.alter_stream_table('u', identity => 'key');
CREATE PUBLICATION pu_rows FOR TABLE u WHERE (x > 10);
SELECT pgtrickle.refresh_stream_table('u');
DROP PUBLICATION pu_rows;
CREATE PUBLICATION pu_lists FOR TABLE u (id, k);
SELECT pgtrickle.refresh_stream_table('u');
SELECT * FROM u ORDER BY 1;
ALTER TABLE u REPLICA IDENTITY NOTHING;
SELECT pgtrickle.stream_table_to_publication('u');
UPDATE src SET x = x + 1;
SELECT pgtrickle.refresh_stream_table('u');
DROP PUBLICATION pu_lists;
SELECT pgtrickle.refresh_stream_table('u');

-- Rights.
CREATE ROLE regress_pu_owner;
CREATE ROLE regress_pu_other;
GRANT USAGE, CREATE ON SCHEMA pu TO regress_pu_owner;
GRANT USAGE ON SCHEMA pu TO regress_pu_other;
GRANT SELECT ON src TO regress_pu_owner;
SET ROLE regress_pu_owner;
SELECT pgtrickle.create_stream_table('pu.owned', 'SELECT id FROM src');
SELECT pgtrickle.stream_table_to_publication('owned');
RESET ROLE;
SELECT pgtrickle.stream_table_to_publication('owned');
GRANT CREATE ON DATABASE :DBNAME TO regress_pu_owner;
SET ROLE regress_pu_other;
SELECT pgtrickle.stream_table_to_publication('owned');
RESET ROLE;
SELECT pgtrickle.stream_table_to_publication('owned');
SELECT pubowner::regrole FROM pg_publication WHERE pubname = 'pgt_pu_owned';
SET ROLE regress_pu_other;
SELECT pgtrickle.drop_stream_table_publication('owned');
SET ROLE regress_pu_owner;
SELECT pgtrickle.drop_stream_table_publication('owned');
SELECT pgtrickle.stream_table_to_publication('owned', 'their_own');
RESET ROLE;
DROP OWNED BY regress_pu_owner;
SELECT count(*) FROM pg_publication WHERE pubname = 'their_own';
DROP SCHEMA pu CASCADE;
DROP ROLE regress_pu_owner, regress_pu_other;
SELECT pubname FROM pg_publication WHERE pubname ~ '^(pu|pgt)_';
