-- SLAs and tiers: what they take, and what they warn of. What the scheduler makes of them: t/212_sla.pl.
CREATE SCHEMA sla;
SET search_path = sla;
SET client_min_messages = warning;
CREATE TABLE o (id int PRIMARY KEY, g int);
SELECT pgtrickle.create_stream_table('first', 'SELECT id FROM o');
SELECT pgtrickle.create_stream_table('a', 'SELECT g, count(*) AS n FROM o GROUP BY g', sla => '-1 s');
SELECT pgtrickle.create_stream_table('a', 'SELECT g, count(*) AS n FROM o GROUP BY g', sla => '1 month');
SELECT pgtrickle.create_stream_table('a', 'SELECT g, count(*) AS n FROM o GROUP BY g', sla => '99 ms');
SELECT pgtrickle.create_stream_table('a', 'SELECT g, count(*) AS n FROM o GROUP BY g', sla => '4000 days');
SELECT pgtrickle.create_stream_table('a', 'SELECT g, count(*) AS n FROM o GROUP BY g', sla => '200000000 days');
SELECT pgtrickle.create_stream_table('a', 'SELECT g, count(*) AS n FROM o GROUP BY g', tier => 'tepid');
SELECT pgtrickle.create_stream_table('a', 'SELECT g, count(*) AS n FROM o GROUP BY g', sla => '1 day 90 s', tier => 'Warm');
SELECT pgt_name, freshness_deadline_ms, refresh_tier, tier_reason FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'sla' ORDER BY 1;
SELECT pgt_name, sla, tier FROM pgtrickle.pg_stat_stream_tables WHERE pgt_schema = 'sla' ORDER BY 1;
SELECT pgtrickle.export_definition('a');
-- NULL leaves them, '0' and auto take them back.
SELECT pgtrickle.alter_stream_table('a', schedule => '1h');
SELECT sla, tier FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'a';
SELECT pgtrickle.alter_stream_table('a', tier => 'auto');
SELECT sla, tier FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'a';
SELECT pgtrickle.alter_stream_table('a', sla => '0');
SELECT sla, tier FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'a';
SELECT pgtrickle.alter_stream_table('a', sla => '-0.001 s');
-- create_or_replace says all there is to say.
SELECT pgtrickle.create_or_replace_stream_table('a', 'SELECT g, count(*) AS n FROM o GROUP BY g', '1h', sla => '1 min', tier => 'cold');
SELECT sla, tier FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'a';
SET client_min_messages = notice;
SELECT pgtrickle.create_or_replace_stream_table('a', 'SELECT g, count(*) AS n FROM o GROUP BY g', '1h', sla => '1 min', tier => 'cold');
SET client_min_messages = warning;
SELECT pgtrickle.create_or_replace_stream_table('a', 'SELECT g, count(*) AS n FROM o GROUP BY g', '1h');
SELECT sla, tier FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'a';
-- It will not be kept.
SELECT pgtrickle.pause_stream_table('a');
SELECT pgtrickle.alter_stream_table('a', sla => '1 min');
SELECT pgtrickle.resume_stream_table('a');
SELECT pgtrickle.alter_stream_table('a', sla => '1 min', tier => 'frozen');
SELECT pgtrickle.create_stream_table('c', 'SELECT n FROM a', sla => '1 min');
SELECT pgtrickle.alter_stream_table('a', tier => 'auto', status => 'SUSPENDED');
SELECT pgtrickle.create_stream_table('d', 'SELECT n FROM c', sla => '1 min');
DROP TABLE c CASCADE;
SELECT pgtrickle.resume_stream_table('a');
UPDATE pgtrickle.pgt_frontiers SET last_duration_ms = 40000 WHERE pgt_id = (SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'a');
SELECT pgtrickle.alter_stream_table('a', sla => '1 min', tier => 'hot');
SELECT pgtrickle.create_stream_table('b', 'SELECT n FROM a', sla => '30 s');
SELECT pgtrickle.alter_stream_table('a', sla => '81 s');
SELECT slas, round(sla_workers_needed::numeric, 1), is_enough FROM pgtrickle.capacity;
SELECT pgt_name, sla, sla_state, attainment_1h, tier FROM pgtrickle.sla_status ORDER BY 1;
SELECT next_due IS NULL FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'a';
SELECT metric, labels->>'name' AS name, value FROM pgtrickle.metric_samples WHERE metric LIKE '%sla%' ORDER BY 1, 2;
DROP TABLE a CASCADE;
SELECT count(*) FROM pgtrickle.sla_status;
-- Ways that part and meet thirty times are no billion ways to look at.
CREATE TABLE left_0 (id int);
CREATE TABLE right_0 (id int);
DO $$
BEGIN
	FOR i IN 1 .. 30 LOOP
		PERFORM pgtrickle.create_stream_table('left_' || i, format('SELECT id FROM left_%1$s UNION ALL SELECT id FROM right_%1$s', i - 1), '1h', initialize => false);
		PERFORM pgtrickle.create_stream_table('right_' || i, format('SELECT id FROM right_%1$s WHERE id IN (SELECT id FROM left_%1$s)', i - 1), '1h', initialize => false);
	END LOOP;
END $$;
UPDATE pgtrickle.pgt_frontiers SET last_duration_ms = 1000;
SET statement_timeout = '30s';
SELECT pgtrickle.alter_stream_table('left_30', sla => '31 s');
SELECT pgtrickle.alter_stream_table('left_30', sla => '29 s');
RESET statement_timeout;
DROP SCHEMA sla CASCADE;
