-- What the tests of capture share: capture without refresh, delta and scheduler. Schema
-- capture_test, functions of test builds (worker/capture/testing.c). A consumer keeps the
-- multiset of images of some columns of a relation, moving as a stream table does.
CREATE SCHEMA capture_test;
GRANT USAGE ON SCHEMA capture_test TO PUBLIC;
SET search_path = capture_test;

CREATE FUNCTION install(regclass, int2[], bool) RETURNS void
	LANGUAGE c STRICT AS 'pg_trickle', 'pgt_test_capture_install';
CREATE FUNCTION release(oid) RETURNS void
	LANGUAGE c STRICT AS 'pg_trickle', 'pgt_test_capture_release';
CREATE FUNCTION broken(regclass) RETURNS text
	LANGUAGE c STRICT AS 'pg_trickle', 'pgt_test_capture_broken';
CREATE FUNCTION reason(regclass) RETURNS text
	LANGUAGE c STRICT AS 'pg_trickle', 'pgt_test_capture_reason';
CREATE FUNCTION follow(regclass) RETURNS void
	LANGUAGE c AS 'pg_trickle', 'pgt_test_capture_follow';
CREATE FUNCTION prune(regclass) RETURNS int
	LANGUAGE c STRICT AS 'pg_trickle', 'pgt_test_capture_prune';
CREATE FUNCTION rows(regclass, bigint DEFAULT -1) RETURNS bigint
	LANGUAGE c STRICT AS 'pg_trickle', 'pgt_test_capture_rows';
CREATE FUNCTION write(regclass, int) RETURNS bool
	LANGUAGE c STRICT AS 'pg_trickle', 'pgt_test_capture_write';
CREATE FUNCTION read(regclass, bigint, int2[], OUT w int, OUT image text) RETURNS SETOF record
	LANGUAGE c STRICT AS 'pg_trickle', 'pgt_test_capture_read';
CREATE FUNCTION wake_register() RETURNS bool
	LANGUAGE c AS 'pg_trickle', 'pgt_test_wake_register';
CREATE FUNCTION wake_catalog() RETURNS void
	LANGUAGE c AS 'pg_trickle', 'pgt_test_wake_catalog';
CREATE FUNCTION wake_hold(regclass) RETURNS void
	LANGUAGE c STRICT AS 'pg_trickle', 'pgt_test_wake_hold';
CREATE FUNCTION wake_collect() RETURNS text
	LANGUAGE c AS 'pg_trickle', 'pgt_test_wake_collect';

CREATE TABLE consumer (id bigint, name text, relid regclass, columns int2[]);
CREATE TABLE state (consumer bigint, w int, image text);

-- The columns by name, of one consumer by name.
CREATE FUNCTION add(consumer_name text, relation regclass, names text[], is_stream_table bool = false)
	RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	id bigint;
	attnums int2[] = ARRAY(SELECT attnum FROM pg_attribute WHERE attrelid = relation AND attname = ANY (names));
BEGIN
	EXECUTE format('CREATE TABLE capture_test.%I ()', 'st_' || consumer_name);
	EXECUTE format('CREATE VIEW capture_test.%I AS SELECT 1 AS x', 'v_' || consumer_name);
	INSERT INTO pgtrickle.pgt_definitions (pgt_relid, view_relid, original_query, refresh_mode)
		VALUES (format('capture_test.%I', 'st_' || consumer_name), format('capture_test.%I', 'v_' || consumer_name), '', 'AUTO')
		RETURNING pgt_id INTO id;
	INSERT INTO pgtrickle.pgt_dependencies VALUES (id, relation, 'TABLE', names);
	PERFORM capture_test.install(relation, attnums, is_stream_table);
	INSERT INTO capture_test.consumer VALUES (id, consumer_name, relation, attnums);
END $$;

-- Reads and applies; the number of images, and why everything was computed, if it was.
CREATE FUNCTION take(consumer_name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	c capture_test.consumer;
	r record;
	images int = 0;
	why text = '';
BEGIN
	SELECT * INTO c FROM capture_test.consumer WHERE name = consumer_name;
	FOR r IN SELECT * FROM capture_test.read(c.relid, c.id, c.columns)
	LOOP
		IF r.w = 0 THEN
			DELETE FROM capture_test.state WHERE consumer = c.id;
			why = ' ' || r.image;
		ELSE
			INSERT INTO capture_test.state VALUES (c.id, r.w, r.image);
			images = images + 1;
		END IF;
	END LOOP;
	RETURN images || why;
END $$;

-- Images that the consumer has too often (n > 0) or not often enough.
CREATE FUNCTION diff(consumer_name text, OUT n bigint, OUT image text)
	RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
	c capture_test.consumer;
	list text;
BEGIN
	SELECT * INTO c FROM capture_test.consumer WHERE name = consumer_name;
	SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO list
		FROM pg_attribute WHERE attrelid = c.relid AND attnum = ANY (c.columns);
	RETURN QUERY EXECUTE format(
		'SELECT sum(w), image FROM (SELECT w, image FROM capture_test.state WHERE consumer = %s'
		' UNION ALL SELECT -1, ROW(%s)::text FROM %s) AS x GROUP BY image HAVING sum(w) <> 0',
		c.id, coalesce(list, ''), c.relid);
END $$;
