-- Whose rights a refresh uses, and what it checks each time.
SET client_min_messages = error;
CREATE ROLE rr_owner; CREATE ROLE rr_viewer; CREATE ROLE rr_other;
CREATE SCHEMA refresh_rights; GRANT ALL ON SCHEMA refresh_rights TO PUBLIC;
SET search_path = refresh_rights, public;
CREATE TABLE secret (id int PRIMARY KEY, shown text, hidden text);
INSERT INTO secret VALUES (1, 'a', 'x'), (2, 'b', 'y');
GRANT SELECT (id, shown) ON secret TO rr_owner;
GRANT SELECT ON secret TO rr_viewer;
SET ROLE rr_viewer; CREATE VIEW window_on AS SELECT id, hidden FROM secret; GRANT SELECT ON window_on TO rr_owner; RESET ROLE;

SET ROLE rr_owner;
SELECT pgtrickle.create_stream_table('st', 'SELECT id, shown FROM secret');
SELECT pgtrickle.create_stream_table('through', 'SELECT id, hidden FROM window_on');
\set VERBOSITY terse
SELECT pgtrickle.create_stream_table('no', 'SELECT id, hidden FROM secret');
RESET ROLE;
UPDATE secret SET shown = 'c', hidden = 'z' WHERE id = 1;
SET ROLE rr_owner;
SELECT pgtrickle.refresh_stream_table('st'), pgtrickle.refresh_stream_table('through');
SELECT * FROM st ORDER BY id; SELECT * FROM through ORDER BY id;
RESET ROLE;
-- A right that goes is missed at the next refresh, even with nothing to do.
REVOKE SELECT (shown) ON secret FROM rr_owner;
SELECT pgtrickle.refresh_stream_table('st');
GRANT SELECT (shown) ON secret TO rr_owner;
SELECT pgtrickle.refresh_stream_table('st');
REVOKE SELECT ON secret FROM rr_viewer; -- the view's owner
SELECT pgtrickle.refresh_stream_table('through');
GRANT SELECT ON secret TO rr_viewer;
REVOKE SELECT ON window_on FROM rr_owner;
SELECT pgtrickle.refresh_stream_table('through');
GRANT SELECT ON window_on TO rr_owner;
SELECT pgtrickle.refresh_stream_table('through');
-- Only the owner refreshes.
SET ROLE rr_other; SELECT pgtrickle.refresh_stream_table('st'); RESET ROLE;

-- Functions run as the owner, restricted, with a safe search_path, whoever refreshes.
SET ROLE rr_owner;
CREATE FUNCTION who() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING 'user %, search_path %', current_user, current_setting('search_path');
	BEGIN
		SET ROLE postgres;
	EXCEPTION WHEN OTHERS THEN
		RAISE WARNING 'SET ROLE: %', SQLERRM;
	END;
	BEGIN
		SET SESSION AUTHORIZATION postgres;
	EXCEPTION WHEN OTHERS THEN
		RAISE WARNING 'SET SESSION AUTHORIZATION: %', SQLERRM;
	END;
	RETURN NEW;
END $$;
CREATE TRIGGER who BEFORE INSERT ON st FOR EACH ROW EXECUTE FUNCTION who();
RESET ROLE;
SET client_min_messages = warning;
INSERT INTO secret VALUES (3, 'd', 'w');
SELECT pgtrickle.refresh_stream_table('st');
SELECT current_user = session_user AS unchanged, current_setting('search_path');
SET client_min_messages = error;
-- Objects that shadow ours are not taken.
CREATE FUNCTION row_hash(record) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 0; END';
SELECT pgtrickle.create_stream_table('bag', 'SELECT shown FROM secret');
SELECT indexdef FROM pg_indexes WHERE tablename = 'bag';
DELETE FROM secret WHERE id = 3; SELECT pgtrickle.refresh_stream_table('bag'); SELECT * FROM bag ORDER BY 1;

-- Row security that would hide rows is an error, not a partial result.
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY first_only ON secret USING (id = 1);
UPDATE secret SET shown = shown || '!';
SELECT pgtrickle.refresh_stream_table('st');
ALTER TABLE secret DISABLE ROW LEVEL SECURITY;
SELECT pgtrickle.refresh_stream_table('st');
SELECT * FROM st ORDER BY id;
\set VERBOSITY default
DROP SCHEMA refresh_rights CASCADE;
DROP OWNED BY rr_owner, rr_viewer, rr_other;
DROP ROLE rr_owner, rr_viewer, rr_other;
