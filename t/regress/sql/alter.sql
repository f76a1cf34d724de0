-- Another query for a stream table: what is kept, what is told downstream, what it costs.
-- What is read off the physical table (ctid, xmin) tells rows that were not touched.
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_trickle;
SET client_min_messages = notice;
CREATE SCHEMA alt;
SET search_path = alt, public;
\set VERBOSITY default

CREATE TABLE cust (id int PRIMARY KEY, region text NOT NULL, tier text);
CREATE TABLE ord (id int PRIMARY KEY, cust int NOT NULL, amount int NOT NULL, note text);
INSERT INTO cust SELECT i, (ARRAY['north','south','west'])[i % 3 + 1], 'a' FROM generate_series(1, 9) i;
INSERT INTO ord SELECT i, i % 9 + 1, i, 'n' || i FROM generate_series(1, 30) i;

-- Equal to its query, after a refresh?
CREATE FUNCTION wrong(st text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	q text;
BEGIN
	SELECT rtrim(defining_query, ';') INTO STRICT q FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = st::regclass;
	PERFORM pgtrickle.refresh_stream_table(st);
	RETURN QUERY EXECUTE format(
		'SELECT ''too many: '' || x::text FROM (SELECT x::text FROM %1$s x EXCEPT ALL SELECT x::text FROM (%2$s) x) x
		 UNION ALL SELECT ''missing: '' || x::text FROM (SELECT x::text FROM (%2$s) x EXCEPT ALL SELECT x::text FROM %1$s x) x', st, q);
END $$;
CREATE FUNCTION last_refresh(st text) RETURNS text LANGUAGE sql AS $$
	SELECT format('%s: %s (in %s, +%s ~%s -%s)', action, refresh_reason, rows_in, rows_inserted, rows_updated, rows_deleted)
	FROM pgtrickle.get_refresh_history(st, 1) $$;
CREATE FUNCTION indexes(st text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = st::regclass ORDER BY 1 $$;
CREATE FUNCTION captured(source text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute a
	JOIN pgtrickle.pgt_sources s ON s.source_relid = source::regclass
	AND a.attrelid = format('pgtrickle_changes.buffer_%s_0', s.source_id)::regclass
	WHERE attnum > 0 AND NOT attisdropped AND attname ~ '^c[0-9]' $$;

SELECT pgtrickle.create_stream_table('sums', $$
	SELECT c.region, count(*) AS n, sum(o.amount) AS total FROM ord o JOIN cust c ON c.id = o.cust GROUP BY c.region $$);
SELECT pgtrickle.create_stream_table('rich', 'SELECT region FROM sums WHERE total > 150');
SELECT pgtrickle.create_stream_table('joined', 'SELECT s.region, s.total, c.id FROM sums s JOIN cust c USING (region)');

-- What users put on a table.
CREATE INDEX sums_total ON sums (total DESC) INCLUDE (n);
CREATE VIEW sums_view AS SELECT region, total FROM sums;
GRANT SELECT ON sums TO pg_monitor;
COMMENT ON TABLE sums IS 'kept';
COMMENT ON COLUMN sums.n IS 'kept, too';
SET client_min_messages = error;
CREATE PUBLICATION alt_pub FOR TABLE sums;
SET client_min_messages = notice;
CREATE STATISTICS sums_stat ON region, n FROM sums;
CREATE TABLE told (what text);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN INSERT INTO alt.told VALUES (concat_ws(' ', TG_OP, OLD, NEW)); RETURN NULL; END $$;
CREATE TRIGGER sums_tell AFTER INSERT OR UPDATE OR DELETE ON sums FOR EACH ROW EXECUTE FUNCTION tell();
CREATE FUNCTION kept(st text) RETURNS TABLE (what text, is text) LANGUAGE sql AS $$
	SELECT 'indexes', string_agg(i, ' ') FROM alt.indexes(st) i
	UNION ALL SELECT 'view', to_regclass('alt.sums_view')::text
	UNION ALL SELECT 'granted', has_table_privilege('pg_monitor', st, 'SELECT')::text
	UNION ALL SELECT 'comments', concat_ws(', ', obj_description(st::regclass, 'pg_class'), col_description(st::regclass, 2))
	UNION ALL SELECT 'publication', (SELECT string_agg(pubname, ' ') FROM pg_publication_tables WHERE tablename = split_part(st, '.', 2))
	UNION ALL SELECT 'statistics', (SELECT string_agg(stxname, ' ') FROM pg_statistic_ext WHERE stxrelid = st::regclass)
	UNION ALL SELECT 'triggers', (SELECT string_agg(tgname, ' ' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = st::regclass AND NOT tgisinternal)
	UNION ALL SELECT 'replica identity', (SELECT relreplident::text FROM pg_class WHERE oid = st::regclass) $$;
SELECT 'sums'::regclass::oid AS sums_oid \gset

-- The same columns: only the row that is different is written, and told downstream.
SELECT ctid AS north FROM sums WHERE region = 'north' \gset
SELECT pgtrickle.alter_stream_table('sums', query => $$
	SELECT c.region, count(*) AS n, sum(o.amount) AS total FROM ord o JOIN cust c ON c.id = o.cust
	WHERE o.id <> 1 GROUP BY c.region $$);
SELECT 'sums'::regclass::oid = :sums_oid AS same_table;
SELECT * FROM kept('alt.sums');
TABLE told; TRUNCATE told;
SELECT last_refresh('sums');
SELECT ctid = :'north' AS untouched FROM sums WHERE region = 'north';
SELECT count(*) FROM joined WHERE total = 155;
SELECT * FROM wrong('joined');
SELECT last_refresh('joined');
SELECT * FROM wrong('rich');
SELECT last_refresh('rich');
-- Later changes of what the new query reads.
INSERT INTO ord VALUES (31, 1, 1000, 'x');
UPDATE cust SET region = 'east' WHERE id = 2;
SELECT * FROM wrong('sums');
SELECT last_refresh('sums');
SELECT * FROM wrong('joined');
SELECT last_refresh('joined');
TRUNCATE told;

-- A column follows; another source, more columns of a source, a stage below.
SELECT captured('ord') AS ord, captured('cust') AS cust;
CREATE TABLE extra (region text PRIMARY KEY, factor int);
INSERT INTO extra VALUES ('north', 2), ('south', 3), ('east', 4);
SELECT pgtrickle.alter_stream_table('sums', query => $$
	SELECT c.region, count(*) AS n, sum(o.amount) AS total, max(o.note || c.tier) AS last, max(x.factor) AS factor
	FROM ord o JOIN cust c ON c.id = o.cust LEFT JOIN extra x USING (region)
	WHERE o.id <> 1 GROUP BY c.region $$);
SELECT captured('ord') AS ord, captured('cust') AS cust, captured('extra') AS extra;
SELECT 'sums'::regclass::oid = :sums_oid AS same_table;
SELECT * FROM kept('alt.sums');
SELECT last_refresh('sums');
TABLE sums ORDER BY region;
UPDATE ord SET note = 'zz' WHERE id = 4;
UPDATE extra SET factor = 9 WHERE region = 'south';
DELETE FROM extra WHERE region = 'east';
SELECT * FROM wrong('sums');
SELECT last_refresh('sums');
SELECT * FROM wrong('rich');
SELECT last_refresh('rich');
SELECT * FROM wrong('joined');
-- Sources that are no longer read are let go.
CREATE TABLE lonely (id int PRIMARY KEY);
SELECT pgtrickle.create_stream_table('plain', 'SELECT c.id, region FROM lonely JOIN cust c ON c.id = lonely.id');
SELECT captured('lonely');
SELECT pgtrickle.alter_stream_table('plain', query => 'SELECT id, region FROM cust');
SELECT captured('lonely'), (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'lonely'::regclass) AS triggers;
SELECT pgtrickle.drop_stream_table('plain');

-- Nothing to do: same query in other words, same options.
SELECT pgtrickle.create_or_replace_stream_table('rich', 'select s.region from alt.sums as s where 150 < s.total');
SELECT xmin::text AS before FROM pgtrickle.pgt_definitions WHERE pgt_relid = 'rich'::regclass \gset
SELECT pgtrickle.create_or_replace_stream_table('rich', 'select s.region from alt.sums as s where 150 < s.total');
SELECT pgtrickle.create_or_replace_stream_table('rich', 'SELECT region FROM sums s WHERE 150 < total');
SELECT xmin::text = :'before' AS untouched FROM pgtrickle.pgt_definitions WHERE pgt_relid = 'rich'::regclass;
SELECT pgtrickle.create_or_replace_stream_table('rich', 'SELECT region FROM sums s WHERE 150 < total', '5m');
SELECT schedule FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'rich';

-- The rows are identified otherwise: who relies on the old key is made again, in the same way.
SELECT pgtrickle.create_stream_table('per_cust', 'SELECT cust, count(*) AS n FROM ord GROUP BY cust');
SELECT pgtrickle.create_stream_table('named', 'SELECT p.cust, p.n, c.region FROM per_cust p JOIN cust c ON c.id = p.cust');
SELECT pgtrickle.create_stream_table('over', 'SELECT region, sum(n) AS n FROM named GROUP BY region');
SELECT indexes('per_cust'), indexes('named');
SELECT pgtrickle.alter_stream_table('per_cust', query => 'SELECT cust, amount::bigint AS n FROM ord WHERE amount < 5 OR amount % 7 = 0');
SELECT indexes('per_cust'), indexes('named');
SELECT last_refresh('per_cust');
SELECT last_refresh('named');
SELECT * FROM wrong('named');
SELECT * FROM wrong('over');
UPDATE ord SET amount = amount + 1 WHERE id < 6;
SELECT * FROM wrong('per_cust');
SELECT * FROM wrong('named');
SELECT * FROM wrong('over');
SELECT last_refresh('per_cust'), last_refresh('named'), last_refresh('over');
-- From rows to a single one, to a key, with old rows that the key would not allow.
SELECT pgtrickle.alter_stream_table('per_cust', query => 'SELECT max(cust) AS cust, count(*) AS n FROM ord');
TABLE per_cust;
SELECT pgtrickle.alter_stream_table('per_cust', query => 'SELECT cust, amount::bigint AS n FROM ord WHERE id < 20');
SELECT pgtrickle.alter_stream_table('per_cust', query => 'SELECT cust, sum(amount) AS n FROM ord GROUP BY cust');
SELECT indexes('per_cust');
DELETE FROM ord WHERE id = 20;
SELECT * FROM wrong('per_cust');
SELECT * FROM wrong('named');
SELECT last_refresh('per_cust'), last_refresh('named');
-- A better key of a source: what is stored may not fit it before everything is computed.
CREATE TABLE nokey (id int, v int);
INSERT INTO nokey VALUES (1, 1), (1, 2), (2, 2), (3, NULL);
SELECT pgtrickle.create_stream_table('gets_key', 'SELECT n.id, n.v, c.region FROM nokey n JOIN cust c USING (id)');
SELECT pgtrickle.create_stream_table('key_stage', 'SELECT s.id, s.m, o.v FROM (SELECT id, max(v) AS m FROM nokey GROUP BY id) s JOIN nokey o ON o.id = s.id');
DELETE FROM nokey WHERE v = 1;
ALTER TABLE nokey ADD PRIMARY KEY (id);
SELECT * FROM wrong('gets_key');
SELECT * FROM wrong('key_stage');
SELECT last_refresh('gets_key'), indexes('gets_key');
UPDATE nokey SET v = v + 1;
SELECT * FROM wrong('gets_key');
SELECT * FROM wrong('key_stage');
SELECT last_refresh('gets_key');
DROP TABLE nokey CASCADE;
-- Keys that are too wide for a btree, when the index is made again.
SELECT pgtrickle.create_stream_table('wide', 'SELECT note AS k, count(*) AS n FROM ord GROUP BY note');
SELECT pgtrickle.alter_stream_table('wide', query => 'SELECT note AS k, id::bigint AS n FROM ord');
SELECT pgtrickle.alter_stream_table('wide', query => $$
	SELECT string_agg(md5(id::text || i), '') AS k, id::bigint AS n FROM ord, generate_series(1, 100) i GROUP BY id $$);
SELECT * FROM wrong('wide');
SELECT pgtrickle.alter_stream_table('wide', query => $$
	SELECT k, count(*) AS n FROM (SELECT repeat(md5(note), 200) AS k FROM ord) o GROUP BY k $$);
INSERT INTO ord VALUES (40, 1, 1, 'n3'), (41, 1, 1, 'w');
SELECT * FROM wrong('wide');
SELECT pgtrickle.drop_stream_table('wide');

-- What depends on the old key.
SELECT pgtrickle.create_stream_table('keyed', 'SELECT id, amount FROM ord');
CREATE TABLE refers (keyed int REFERENCES keyed (id) ON DELETE CASCADE);
CREATE VIEW grouped AS SELECT id, amount FROM keyed GROUP BY id;
SELECT pgtrickle.create_stream_table('reader', 'SELECT id FROM grouped');
SELECT pgtrickle.alter_stream_table('keyed', query => 'SELECT o.id, o.amount FROM ord o JOIN extra x ON true');
SELECT indexes('keyed');
SELECT pgtrickle.alter_stream_table('keyed', query => 'SELECT o.id, o.amount FROM ord o JOIN extra x ON true', cascade => true);
SELECT to_regclass('reader'), to_regclass('grouped'), (SELECT count(*) FROM pg_constraint WHERE conrelid = 'refers'::regclass);
SELECT count(*) FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'reader';
SELECT * FROM wrong('keyed');

-- Types that change.
SELECT pgtrickle.alter_stream_table('sums', query => $$
	SELECT c.region, count(*)::int AS n, sum(o.amount)::int AS total, max(o.note) AS last, max(o.id) AS factor
	FROM ord o JOIN cust c ON c.id = o.cust GROUP BY c.region $$);
SELECT 'sums'::regclass::oid = :sums_oid AS same_table;
SELECT * FROM wrong('joined');
SELECT pgtrickle.alter_stream_table('sums', cascade => true, query => $$
	SELECT c.region, count(*)::int AS n, sum(o.amount)::int AS total, max(o.note) AS last, max(o.id) AS factor
	FROM ord o JOIN cust c ON c.id = o.cust GROUP BY c.region $$);
SELECT 'sums'::regclass::oid = :sums_oid AS same_table;
SELECT * FROM kept('alt.sums');
SELECT to_regclass('rich'), to_regclass('joined');
SELECT * FROM wrong('sums');
-- Those that do not use the column stay, and see what changed.
SELECT pgtrickle.create_stream_table('counts', 'SELECT n, count(*) AS c FROM sums GROUP BY n');
SELECT pgtrickle.alter_stream_table('sums', query => $$
	SELECT c.region, count(*)::int AS n, sum(o.amount) AS total, max(o.note) AS last, max(o.id) AS factor
	FROM ord o JOIN cust c ON c.id = o.cust WHERE o.id <> 7 GROUP BY c.region $$);
SELECT pgtrickle.alter_stream_table('sums', cascade => true, query => $$
	SELECT c.region, count(*)::int AS n, sum(o.amount) AS total, max(o.note) AS last, max(o.id) AS factor
	FROM ord o JOIN cust c ON c.id = o.cust WHERE o.id <> 7 GROUP BY c.region $$);
SELECT * FROM wrong('counts');
SELECT last_refresh('counts');
-- A key column that changes its type.
SELECT pgtrickle.alter_stream_table('sums', cascade => true, query => $$
	SELECT c.region::varchar(10) AS region, count(*)::int AS n, sum(o.amount) AS total, max(o.note) AS last, max(o.id) AS factor
	FROM ord o JOIN cust c ON c.id = o.cust WHERE o.id <> 7 GROUP BY c.region::varchar(10) $$);
SELECT indexes('sums');
SELECT * FROM wrong('sums');
SELECT * FROM wrong('counts');

-- Columns that go, change their names or places.
CREATE VIEW sums_view AS SELECT region, total FROM sums;
CREATE MATERIALIZED VIEW sums_matview AS SELECT * FROM sums_view;
SELECT pgtrickle.create_stream_table('through', 'SELECT max(total) AS m FROM sums_view');
CREATE FUNCTION sums_fn(sums) RETURNS text LANGUAGE sql AS 'SELECT $1.region';
GRANT SELECT (region), REFERENCES (n) ON sums TO PUBLIC;
CREATE POLICY sums_policy ON sums USING (true);
SELECT pgtrickle.alter_stream_table('sums', query => 'SELECT count(*) AS n, region FROM cust GROUP BY region');
SELECT 'sums'::regclass::oid = :sums_oid AS same_table;
SELECT * FROM wrong('through');
SELECT pgtrickle.alter_stream_table('sums', query => 'SELECT count(*) AS n, region FROM cust GROUP BY region', cascade => true);
SELECT 'sums'::regclass::oid = :sums_oid AS same_table;
SELECT * FROM kept('alt.sums') WHERE what IN ('indexes', 'granted', 'view', 'triggers');
SELECT pgt_name FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'alt' ORDER BY 1;
SELECT * FROM wrong('sums');
SELECT pgtrickle.alter_stream_table('sums', query => 'SELECT region, count(*) AS n FROM cust GROUP BY region');
SELECT pgtrickle.create_or_replace_stream_table('sums', 'SELECT region, count(*) AS n FROM cust GROUP BY region');
SELECT pgtrickle.alter_stream_table('sums', query => 'SELECT region, count(*) AS n FROM cust GROUP BY region', cascade => true);
INSERT INTO cust VALUES (10, 'north', 'b');
SELECT * FROM wrong('sums');
SELECT last_refresh('sums');

-- An error changes nothing: of the query, of the first fill, of the mode.
SELECT pgtrickle.alter_stream_table('sums', query => 'SELECT region, count(*) AS n, missing FROM cust GROUP BY region');
SELECT pgtrickle.alter_stream_table('sums', query => 'SELECT region, 1 / (count(*) - 4) AS n FROM cust GROUP BY region');
SELECT pgtrickle.alter_stream_table('sums', refresh_mode => 'DIFFERENTIAL', query => 'SELECT now()::text AS region, count(*) AS n FROM cust');
SELECT pgtrickle.alter_stream_table('sums', query => 'SELECT region, count(*) AS n FROM sums GROUP BY region');
BEGIN;
SELECT pgtrickle.alter_stream_table('sums', query => 'SELECT region, sum(id) AS n FROM cust GROUP BY region');
TABLE sums ORDER BY region;
INSERT INTO cust VALUES (11, 'east', 'c');
SELECT * FROM wrong('sums');
ROLLBACK;
UPDATE cust SET region = 'far' WHERE id = 3;
SELECT * FROM wrong('sums');
SELECT last_refresh('sums'), refresh_mode FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'sums';
-- Several changes and writes in one transaction.
BEGIN;
INSERT INTO cust VALUES (12, 'in', 'c');
SELECT pgtrickle.alter_stream_table('sums', query => 'SELECT region, sum(id) AS n FROM cust GROUP BY region');
INSERT INTO cust VALUES (13, 'in', 'c');
SELECT pgtrickle.alter_stream_table('sums', query => 'SELECT region, sum(id) AS n, max(tier) AS t FROM cust GROUP BY region');
DELETE FROM cust WHERE id = 12;
COMMIT;
SELECT * FROM wrong('sums');
SELECT last_refresh('sums');
-- Not filled yet, then with another query.
SELECT pgtrickle.create_stream_table('empty', 'SELECT id FROM ord', initialize => false);
SELECT pgtrickle.alter_stream_table('empty', query => 'SELECT cust AS id FROM ord');
SELECT count(*) FROM empty;
SELECT * FROM wrong('empty');
-- The replica identity of a key goes with the key.
SELECT pgtrickle.create_stream_table('ident', 'SELECT id, amount FROM ord', identity => 'key');
SELECT pgtrickle.alter_stream_table('ident', query => 'SELECT id, amount + 1 AS amount FROM ord');
SELECT relreplident FROM pg_class WHERE oid = 'ident'::regclass;
SELECT pgtrickle.alter_stream_table('ident', query => 'SELECT id % 5 AS id, amount FROM ord');
SELECT pgtrickle.alter_stream_table('ident', query => 'SELECT id % 5 AS id, amount FROM ord', identity => 'full');
SELECT relreplident FROM pg_class WHERE oid = 'ident'::regclass;
SELECT pgtrickle.alter_stream_table('ident', query => 'SELECT id, amount FROM ord', identity => 'key');
SELECT relreplident FROM pg_class WHERE oid = 'ident'::regclass;

SET client_min_messages = error;
DROP SCHEMA alt CASCADE;
