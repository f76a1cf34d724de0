-- Who may do and see what.
CREATE SCHEMA sec;
SET search_path = sec;
SET client_min_messages = error;
CREATE ROLE pgt_sec_owner;
CREATE ROLE pgt_sec_member IN ROLE pgt_sec_owner;
CREATE ROLE pgt_sec_reader;
CREATE ROLE pgt_sec_other;
CREATE ROLE pgt_sec_monitor IN ROLE pg_monitor;
GRANT USAGE ON SCHEMA sec TO PUBLIC;
GRANT CREATE ON SCHEMA sec TO pgt_sec_owner;

CREATE TABLE open (id int PRIMARY KEY, g text, v int);
CREATE TABLE closed (id int PRIMARY KEY, secret text);
INSERT INTO open SELECT i, 'g' || i % 2, i FROM generate_series(1, 4) i;
INSERT INTO closed VALUES (1, 'secret');
GRANT SELECT ON open TO pgt_sec_owner;
GRANT SELECT (id) ON closed TO pgt_sec_owner;
CREATE VIEW window_to_closed AS SELECT id, length(secret) AS len FROM closed;
GRANT SELECT ON window_to_closed TO pgt_sec_owner;

-- Creation needs SELECT on what is read, and CREATE on the schema.
SET ROLE pgt_sec_owner;
SELECT pgtrickle.create_stream_table('s', 'SELECT g, count(*) AS n FROM open GROUP BY g');
SELECT pgtrickle.create_stream_table('sc', 'SELECT id, secret FROM closed');
SELECT pgtrickle.create_stream_table('sc', 'SELECT id, secret FROM closed', initialize => false);
SELECT pgtrickle.create_stream_table('sc', 'SELECT o.id FROM open o WHERE EXISTS (SELECT secret FROM closed c WHERE c.id = o.id)', initialize => false);
SELECT pgtrickle.create_stream_table('sid', 'SELECT id FROM closed');
SELECT pgtrickle.create_stream_table('sw', 'SELECT id, len FROM window_to_closed');
SELECT pgtrickle.create_stream_table('public.s', 'SELECT 1 AS a');
TABLE sw;
SELECT relname, relowner::regrole FROM pg_class WHERE relnamespace = 'sec'::regnamespace AND relname IN ('s', 'sid', 'sw') ORDER BY 1;
-- Nothing of ours can be touched directly.
SELECT count(*) FROM pgtrickle.pgt_definitions;
DELETE FROM pgtrickle.pgt_refresh_history;
INSERT INTO pgtrickle.pgt_dependencies VALUES (1, 'open', 'TABLE');
SELECT has_schema_privilege('pgtrickle_changes', 'USAGE') AS open_schema;
-- How the server is, everybody may know.
SELECT check_name, severity FROM pgtrickle.health_check() WHERE check_name IN ('library_preloaded', 'scheduler_running') ORDER BY 1;
SELECT count(*) FROM pg_class WHERE relnamespace IN ('pgtrickle_changes'::regnamespace, 'pgtrickle_state'::regnamespace)
	AND relkind = 'r' AND has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE');
RESET ROLE;
INSERT INTO open VALUES (5, 'g1', 5);
INSERT INTO closed VALUES (2, 'more');

-- Changing needs the owner's rights,
SET ROLE pgt_sec_other;
SELECT pgtrickle.refresh_stream_table('sec.s');
SELECT pgtrickle.alter_stream_table('sec.s', schedule => '1s');
SELECT pgtrickle.pause_stream_table('sec.s');
SELECT pgtrickle.resume_stream_table('sec.s');
SELECT pgtrickle.drop_stream_table('sec.s');
SELECT pgtrickle.refresh_if_stale('sec.s', '0');
SELECT pgtrickle.create_or_replace_stream_table('sec.s', 'SELECT 1 AS a');
SELECT pgtrickle.export_definition('sec.s');
SELECT * FROM pgtrickle.get_refresh_history('sec.s');
SELECT * FROM pgtrickle.explain_st('sec.s');
SELECT * FROM pgtrickle.list_sources('sec.s');
SELECT pgtrickle.pause_all();
DROP TABLE sec.s;
SELECT count(*) FROM pgtrickle.pgt_stream_tables;
SELECT count(*) FROM pgtrickle.pgt_refresh_history;
SELECT count(*) FROM pgtrickle.pgt_dependencies;
SELECT count(*) FROM pgtrickle.pgt_status();
SELECT count(*) FROM pgtrickle.change_buffer_sizes();
SELECT pgtrickle.explain_dag();
-- which members have.
SET ROLE pgt_sec_member;
SELECT pgtrickle.refresh_stream_table('sec.s');
SELECT pgtrickle.refresh_stream_table('sec.sw');
SELECT * FROM s ORDER BY g;
TABLE sw;
RESET ROLE;
-- Seeing needs SELECT, or pg_monitor.
GRANT SELECT ON s TO pgt_sec_reader;
SET ROLE pgt_sec_reader;
SELECT pgt_name, status FROM pgtrickle.pgt_stream_tables;
SELECT action FROM pgtrickle.get_refresh_history('sec.s');
SELECT source_table FROM pgtrickle.list_sources('sec.s');
SELECT count(*) FROM pgtrickle.explain_delta('sec.s');
SELECT count(*) FROM pgtrickle.get_refresh_history('sec.sw');
SELECT pgtrickle.refresh_stream_table('sec.s');
SET ROLE pgt_sec_monitor;
SELECT pgt_name, status FROM pgtrickle.pgt_stream_tables ORDER BY 1;
SELECT action FROM pgtrickle.get_refresh_history('sec.sw') ORDER BY 1;
SELECT pgtrickle.drop_stream_table('sec.s');
RESET ROLE;

-- No function of a caller sees rows that he may not.
CREATE FUNCTION leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN RAISE WARNING 'leaked %', $1; RETURN true; END $$;
SET client_min_messages = warning;
SET ROLE pgt_sec_reader;
SELECT pgt_name FROM pgtrickle.pgt_stream_tables WHERE sec.leak(pgt_name);
SELECT count(*) > 0 AS some FROM pgtrickle.pgt_refresh_history WHERE sec.leak(pgt_id || ' ' || action) AND false;
RESET ROLE;

SET client_min_messages = error;
-- The query runs as its owner, with a search_path of its own, whoever refreshes.
CREATE FUNCTION who(int) RETURNS text STABLE LANGUAGE plpgsql AS $$
BEGIN RETURN current_user || ' ' || current_setting('search_path') || ' ' || current_setting('is_superuser'); END $$;
SET ROLE pgt_sec_owner;
SELECT pgtrickle.create_stream_table('swho', 'SELECT id, sec.who(id) AS who FROM sec.open WHERE id = 1');
RESET ROLE;
SELECT pgtrickle.refresh_stream_table('swho');
TABLE swho;
CREATE FUNCTION climb(int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN EXECUTE 'SET ROLE ' || quote_ident(session_user); RETURN 1; END $$;
SET pg_trickle.volatile_function_policy = allow;
SET ROLE pgt_sec_owner;
SELECT pgtrickle.create_stream_table('sclimb', 'SELECT sec.climb(id) AS c FROM sec.open', initialize => false);
RESET ROLE;
SELECT pgtrickle.refresh_stream_table('sclimb');
SELECT count(*) FROM pgtrickle.explain_delta('sclimb', true);
RESET pg_trickle.volatile_function_policy;
-- So do triggers of the stream table.
SET ROLE pgt_sec_owner;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE WARNING '% as %', TG_OP, current_user; RETURN NULL; END $$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON swho FOR EACH ROW EXECUTE FUNCTION tell();
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON swho DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION tell();
CREATE TRIGGER tell_truncate AFTER TRUNCATE ON swho EXECUTE FUNCTION tell();
RESET ROLE;
SET client_min_messages = warning;
SELECT pgtrickle.alter_stream_table('swho', query => 'SELECT id, sec.who(id) || ''!'' AS who FROM sec.open WHERE id = 1');
SET client_min_messages = error;
-- A later right that is gone counts.
REVOKE SELECT ON open FROM pgt_sec_owner;
SELECT pgtrickle.refresh_stream_table('s');
GRANT SELECT ON open TO pgt_sec_owner;
SELECT pgtrickle.refresh_stream_table('s');

-- Row security that would hide rows.
CREATE TABLE rows (id int PRIMARY KEY, who text);
INSERT INTO rows VALUES (1, 'pgt_sec_owner'), (2, 'pgt_sec_other');
GRANT SELECT ON rows TO pgt_sec_owner;
ALTER TABLE rows ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON rows USING (who = current_user);
SET ROLE pgt_sec_owner;
SELECT pgtrickle.create_stream_table('sr', 'SELECT id, who FROM rows');
SELECT pgtrickle.create_stream_table('sr', 'SELECT count(*) AS n FROM open WHERE id IN (SELECT id FROM rows)');
RESET ROLE;
ALTER TABLE rows DISABLE ROW LEVEL SECURITY;
SET ROLE pgt_sec_owner;
SELECT pgtrickle.create_stream_table('sr', 'SELECT id, who FROM rows');
RESET ROLE;
ALTER TABLE rows ENABLE ROW LEVEL SECURITY;
INSERT INTO rows VALUES (3, 'pgt_sec_other');
SELECT pgtrickle.refresh_stream_table('sr');
DROP POLICY mine ON rows;
ALTER TABLE rows DISABLE ROW LEVEL SECURITY;
SELECT pgtrickle.refresh_stream_table('sr');
SELECT * FROM sr ORDER BY id;
-- Policies of the stream table itself are for its readers.
SET ROLE pgt_sec_owner;
ALTER TABLE sr ENABLE ROW LEVEL SECURITY;
ALTER TABLE sr FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON sr USING (who = current_user);
RESET ROLE;
INSERT INTO rows VALUES (4, 'pgt_sec_other');
SET ROLE pgt_sec_owner;
SELECT pgtrickle.refresh_stream_table('sr');
TABLE sr;
RESET ROLE;
SELECT count(*) FROM sr;

DROP SCHEMA sec CASCADE;
DROP ROLE pgt_sec_member, pgt_sec_reader, pgt_sec_other, pgt_sec_monitor;
DROP OWNED BY pgt_sec_owner;
DROP ROLE pgt_sec_owner;
