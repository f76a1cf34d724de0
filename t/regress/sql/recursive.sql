-- Recursive queries are computed anew, and only what differs is written; the reason is told.
SET client_min_messages = error;
CREATE SCHEMA recursive;
SET search_path = recursive, public;
CREATE TABLE edge (a int, b int);
SELECT pgtrickle.create_stream_table('reach', 'WITH RECURSIVE r AS (SELECT a, b FROM edge UNION SELECT r.a, e.b FROM r JOIN edge e ON e.a = r.b) SELECT a, b FROM r');
SELECT pgtrickle.create_stream_table('paths', 'WITH RECURSIVE r AS (SELECT a, b, 1 AS n FROM edge UNION ALL SELECT r.a, e.b, r.n + 1 FROM r JOIN edge e ON e.a = r.b WHERE r.n < 5) SELECT a, b, n FROM r');
SELECT construct, reason FROM pgtrickle.validate_query('WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT n FROM r') WHERE NOT incremental;
CREATE FUNCTION refreshed() RETURNS TABLE (st text, action text, ins bigint, del bigint, wrong bigint) LANGUAGE plpgsql AS $$
DECLARE
	d record;
BEGIN
	FOR d IN SELECT pgt_name::text AS name, rtrim(defining_query, ';') AS q FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = 'recursive' ORDER BY 1 LOOP
		PERFORM pgtrickle.refresh_stream_table('recursive.' || d.name);
		SELECT h.action, h.rows_inserted, h.rows_deleted INTO action, ins, del
			FROM pgtrickle.get_refresh_history('recursive.' || d.name) h ORDER BY start_time DESC LIMIT 1;
		EXECUTE format('SELECT count(*) FROM ((TABLE %1$I EXCEPT ALL (%2$s)) UNION ALL ((%2$s) EXCEPT ALL TABLE %1$I)) x', d.name, d.q) INTO wrong;
		st := d.name;
		RETURN NEXT;
	END LOOP;
END $$;
INSERT INTO edge VALUES (1, 2), (2, 3), (2, 3), (3, 4); SELECT * FROM refreshed();
DELETE FROM edge WHERE a = 3; SELECT * FROM refreshed();
-- A cycle, and it opens again.
INSERT INTO edge VALUES (3, 1); SELECT * FROM refreshed();
DELETE FROM edge WHERE a = 3; SELECT * FROM refreshed();
DELETE FROM edge; SELECT * FROM refreshed();
DROP SCHEMA recursive CASCADE;
