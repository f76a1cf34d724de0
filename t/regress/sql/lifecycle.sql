-- From creation to drop, and what is left afterwards: nothing.
CREATE SCHEMA life;
SET search_path = life;
SET client_min_messages = warning;

CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL, amount numeric, note text);
CREATE TABLE customers (customer int PRIMARY KEY, name varchar(20) COLLATE "C", region text);
INSERT INTO customers SELECT i, 'name ' || i, CASE i % 2 WHEN 0 THEN 'north' ELSE 'south' END
	FROM generate_series(1, 4) i;
INSERT INTO orders SELECT i, 1 + i % 4, i, 'note ' || i FROM generate_series(1, 12) i;

-- The three forms of creation.
SELECT pgtrickle.create_stream_table('sales', $$
	SELECT c.region, count(*) AS n, sum(o.amount) AS total
	FROM orders o JOIN customers c USING (customer) GROUP BY c.region $$, '30s');
SELECT * FROM sales ORDER BY region;
SET client_min_messages = notice;
SELECT pgtrickle.create_stream_table_if_not_exists('sales', 'SELECT 1 AS whatever');
SELECT pgtrickle.create_stream_table_if_not_exists('life.lines', $$
	SELECT o.id, c.name, o.amount FROM orders o JOIN customers c USING (customer) $$);
SET client_min_messages = warning;
SELECT attname, format_type(atttypid, atttypmod), attcollation::regcollation, attnotnull
	FROM pg_attribute WHERE attrelid = 'lines'::regclass AND attnum > 0 ORDER BY attnum;
SELECT indexrelid::regclass, indisprimary, indisunique FROM pg_index
	WHERE indrelid IN ('lines'::regclass, 'sales'::regclass) ORDER BY indexrelid::regclass::text;
SELECT relname, relreplident, reloptions FROM pg_class
	WHERE oid IN ('lines'::regclass, 'sales'::regclass) ORDER BY 1;

-- Replacing by the same touches nothing, whatever the words; options are compared too.
CREATE FUNCTION version_of(st regclass) RETURNS text LANGUAGE sql AS $$
	SELECT xmin::text || ' ' || updated_at FROM pgtrickle.pgt_definitions WHERE pgt_relid = st $$;
SELECT version_of('sales') AS before \gset
SELECT pgtrickle.create_or_replace_stream_table('sales', $$
	select c.region, COUNT(*) as n,    sum(amount) "total"
	from orders o inner join customers as c using (customer) group by c.region $$, '30 seconds');
SELECT version_of('sales') = :'before' AS untouched;
SELECT pgtrickle.create_or_replace_stream_table('sales', $$
	SELECT c.region, count(*) AS n, sum(o.amount) AS total
	FROM life.orders o JOIN life.customers c USING (customer) GROUP BY c.region $$, '30s');
SELECT version_of('sales') = :'before' AS untouched;
SELECT pgtrickle.create_or_replace_stream_table('sales', $$
	SELECT c.region, count(*) AS n, sum(o.amount) AS total
	FROM orders o JOIN customers c USING (customer) GROUP BY c.region $$, '1m', 'DIFFERENTIAL');
SELECT version_of('sales') = :'before' AS untouched;
SELECT schedule, refresh_mode, status FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = 'sales'::regclass;
SELECT pgtrickle.create_or_replace_stream_table('fresh', 'SELECT count(*) AS n FROM orders');
TABLE fresh;

-- Refreshing.
INSERT INTO orders VALUES (13, 1, 100, 'new');
UPDATE customers SET region = 'west' WHERE customer = 4;
SELECT pgtrickle.refresh_stream_table('sales');
SELECT pgtrickle.refresh_stream_table('life.lines', 'full');
SELECT pgtrickle.refresh_stream_table('"life"."fresh"');
SELECT * FROM sales ORDER BY region;
TABLE fresh;
SELECT action, refresh_reason, initiated_by, status FROM pgtrickle.get_refresh_history('sales');
SELECT action, refresh_reason, initiated_by, status FROM pgtrickle.get_refresh_history('lines', 1);
SELECT pgtrickle.refresh_if_stale('fresh', '1 hour');
SELECT pgtrickle.refresh_if_stale('fresh', '0');

-- Without a first fill.
SELECT pgtrickle.create_stream_table('later', 'SELECT region FROM customers', initialize => false);
SELECT status, is_populated, frontier FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'later';
SELECT count(*) FROM later;
SELECT pgtrickle.refresh_stream_table('later');
SELECT status, is_populated, frontier IS NOT NULL AS has_frontier FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'later';
SELECT count(*) FROM later;

-- Pausing and resuming.
SELECT pgtrickle.pause_stream_table('later');
SELECT status, suspended_reason FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'later';
SELECT pgtrickle.refresh_stream_table('later');
SELECT pgtrickle.resume_stream_table('later');
SELECT pgtrickle.pause_all();
SELECT pgt_name, status FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'life' ORDER BY 1;
SELECT pgtrickle.resume_all();
SELECT pgtrickle.alter_stream_table('later', status => 'suspended');
SELECT pgtrickle.alter_stream_table('later', status => 'active');
SELECT pgt_name, status FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'life' ORDER BY 1;

-- Options.
SELECT pgtrickle.alter_stream_table('sales', schedule => '@hourly', diamond_consistency => 'ATOMIC');
SELECT pgtrickle.alter_stream_table('sales', refresh_mode => 'full');
SELECT schedule, refresh_mode, diamond_consistency, identity FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'sales';
UPDATE orders SET amount = amount + 1;
SELECT pgtrickle.refresh_stream_table('sales');
SELECT pgtrickle.alter_stream_table('sales', refresh_mode => 'AUTO', schedule => 'calculated');
UPDATE orders SET amount = amount + 1 WHERE id = 1;
SELECT pgtrickle.refresh_stream_table('sales');
SELECT action, refresh_reason FROM pgtrickle.get_refresh_history('sales', 2);
SELECT * FROM sales ORDER BY region;
SELECT pgtrickle.alter_stream_table('lines', identity => 'key');
SELECT relreplident FROM pg_class WHERE oid = 'lines'::regclass;
SELECT pgtrickle.alter_stream_table('lines', identity => 'full');
SELECT relreplident FROM pg_class WHERE oid = 'lines'::regclass;
SELECT pgtrickle.alter_stream_table('sales', identity => 'key');

-- A new query; what it keeps and what it costs is in alter.sql.
CREATE INDEX sales_total ON sales (total);
SELECT pgtrickle.create_stream_table('top', 'SELECT max(total) AS best FROM sales');
SELECT pgtrickle.alter_stream_table('sales', query => $$
	SELECT c.region, count(*) AS n, sum(o.amount) AS total
	FROM orders o JOIN customers c USING (customer) WHERE o.id > 6 GROUP BY c.region $$);
SELECT * FROM sales ORDER BY region;
SELECT pgtrickle.alter_stream_table('sales', query => $$
	SELECT c.region, count(*) AS n, sum(o.amount) AS total, min(o.note) AS first_note
	FROM orders o JOIN customers c USING (customer) GROUP BY c.region $$);
SELECT * FROM sales ORDER BY region;
INSERT INTO orders VALUES (14, 2, 1000, 'a note');
SELECT pgtrickle.refresh_stream_table('sales');
SELECT pgtrickle.refresh_stream_table('top');
SELECT * FROM sales ORDER BY region;
TABLE top;
-- Another identity: from a key to whole rows, and back.
SELECT pgtrickle.alter_stream_table('later', query => 'SELECT region FROM customers GROUP BY region');
SELECT * FROM later ORDER BY 1;
SELECT pgtrickle.alter_stream_table('later', query => 'SELECT region FROM customers');
SELECT * FROM later ORDER BY 1;

-- What is exported makes the same again.
SELECT pgtrickle.export_definition('top') AS definition;
SELECT pgtrickle.export_definition('top') AS definition \gset
SELECT pgtrickle.drop_stream_table('top');
:definition
TABLE top;

-- Moving and renaming the table.
CREATE SCHEMA elsewhere;
ALTER TABLE later RENAME TO sooner;
ALTER TABLE sooner SET SCHEMA elsewhere;
INSERT INTO customers VALUES (5, 'five', 'far away');
SELECT pgtrickle.refresh_stream_table('elsewhere.sooner');
SELECT * FROM elsewhere.sooner ORDER BY 1;
DROP SCHEMA elsewhere CASCADE;

-- Dropping: refused, with dependents, plainly, with the source, and rolled back.
SELECT pgtrickle.drop_stream_table('sales');
DROP TABLE sales;
SELECT pgtrickle.drop_stream_table('sales', cascade => true);
SELECT to_regclass('sales') IS NULL AND to_regclass('top') IS NULL AND to_regclass('sales_view') IS NULL AS gone;
DROP TABLE fresh;
DROP TABLE orders;
BEGIN;
DROP TABLE orders CASCADE;
SELECT pgt_name FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'life' ORDER BY 1;
ROLLBACK;
SELECT pgt_name FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'life' ORDER BY 1;
DROP TABLE orders CASCADE;
SELECT pgt_name FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'life' ORDER BY 1;
BEGIN;
SELECT pgtrickle.create_stream_table('undone', 'SELECT customer FROM customers');
ROLLBACK;
SELECT pgtrickle.create_stream_table('s1', 'SELECT region, count(*) AS n FROM customers GROUP BY region');
SELECT pgtrickle.create_stream_table('s2', 'SELECT n, count(*) AS m FROM s1 GROUP BY n');
DROP SCHEMA life CASCADE;

SELECT count(*) AS definitions FROM pgtrickle.pgt_definitions;
SELECT count(*) AS frontiers FROM pgtrickle.pgt_frontiers;
SELECT count(*) AS dependencies FROM pgtrickle.pgt_dependencies;
SELECT count(*) AS sources FROM pgtrickle.pgt_sources;
SELECT count(*) AS history FROM pgtrickle.pgt_refresh_history;
SELECT count(*) AS hidden FROM pg_class
	WHERE relnamespace IN ('pgtrickle_state'::regnamespace, 'pgtrickle_changes'::regnamespace);
