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
-- A right to bypass it that goes is missed, too, though the rows of a delta come from the change buffer.
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
ALTER ROLE rr_owner BYPASSRLS;
INSERT INTO secret VALUES (4, 'seen', 'x');
SELECT pgtrickle.refresh_stream_table('st');
ALTER ROLE rr_owner NOBYPASSRLS;
INSERT INTO secret VALUES (5, 'unseen', 'x');
SELECT pgtrickle.refresh_stream_table('st');
SELECT * FROM st ORDER BY id;
ALTER TABLE secret DISABLE ROW LEVEL SECURITY;

-- A function of the owner is not called with rows that a view hides, also after a membership that showed them went.
CREATE ROLE rr_group;
GRANT SELECT ON secret TO rr_group;
GRANT rr_group TO rr_owner;
REVOKE SELECT ON secret FROM rr_owner;
REVOKE SELECT (id, shown) ON secret FROM rr_owner;
CREATE VIEW odd WITH (security_barrier) AS SELECT id, shown FROM secret WHERE id % 2 = 1;
GRANT SELECT ON odd TO rr_owner;
SET ROLE rr_owner;
CREATE FUNCTION curious(t text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0001 AS $$
BEGIN
	IF t LIKE 'hidden%' THEN RAISE WARNING 'saw %', t; END IF;
	RETURN true;
END $$;
SELECT pgtrickle.create_stream_table('odd_st', 'SELECT id, shown FROM odd WHERE curious(shown)');
SELECT effective_mode FROM pgtrickle.explain_refresh_mode('odd_st');
RESET ROLE;
SET client_min_messages = warning;
INSERT INTO secret VALUES (6, 'hidden from the view, not from the group', 'x');
SELECT pgtrickle.refresh_stream_table('odd_st');
REVOKE rr_group FROM rr_owner;
INSERT INTO secret VALUES (8, 'hidden', 'x'), (9, 'odd', 'x');
SELECT pgtrickle.refresh_stream_table('odd_st');
SELECT * FROM odd_st ORDER BY id;
SET client_min_messages = error;
DROP OWNED BY rr_group;
DROP ROLE rr_group;
\set VERBOSITY default
DROP SCHEMA refresh_rights CASCADE;
DROP OWNED BY rr_owner, rr_viewer, rr_other;
DROP ROLE rr_owner, rr_viewer, rr_other;
