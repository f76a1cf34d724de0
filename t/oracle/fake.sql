-- fake.sql: the functions that the tester calls, over plain tables that are refreshed by
-- delete and insert. Tests the tester without the extension.
CREATE SCHEMA pgtrickle;
CREATE TABLE pgtrickle.fake (name text PRIMARY KEY, query text);

CREATE FUNCTION pgtrickle.create_stream_table(name text, query text, schedule text, refresh_mode text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE %s AS %s', name, query);
	DELETE FROM pgtrickle.fake AS f WHERE f.name = create_stream_table.name;
	INSERT INTO pgtrickle.fake VALUES (name, query);
END
$$;

CREATE FUNCTION pgtrickle.refresh_stream_table(name text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	q text := (SELECT f.query FROM pgtrickle.fake AS f WHERE f.name = refresh_stream_table.name);
BEGIN
	EXECUTE format('LOCK TABLE %s IN EXCLUSIVE MODE', name);
	EXECUTE format('DELETE FROM %s', name);
	EXECUTE format('INSERT INTO %s %s', name, q);
	-- The mistake: a row that is there twice is stored once.
	IF 'no mistake' = 'a mistake' AND q !~ 'json' THEN
		EXECUTE format('DELETE FROM %s AS a USING %s AS b WHERE a.ctid > b.ctid AND a::text = b::text', name, name);
	END IF;
END
$$;

CREATE FUNCTION pgtrickle.explain_refresh_mode(name text) RETURNS TABLE (effective_mode text)
LANGUAGE sql AS $$ SELECT 'FULL' $$;

CREATE FUNCTION pgtrickle.drop_stream_table(name text, cascade boolean DEFAULT false) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'DROP TABLE ' || name;
	DELETE FROM pgtrickle.fake AS f WHERE f.name = drop_stream_table.name;
END
$$;

-- Knows nothing of readers, so it cannot tell which a cascade would take along.
CREATE FUNCTION pgtrickle.alter_stream_table(name text, query text, refresh_mode text, cascade boolean DEFAULT false)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF cascade THEN
		RAISE EXCEPTION 'no cascade' USING ERRCODE = 'dependent_objects_still_exist';
	END IF;
	PERFORM pgtrickle.drop_stream_table(name);
	PERFORM pgtrickle.create_stream_table(name, query, '', '');
END
$$;

GRANT USAGE ON SCHEMA pgtrickle TO PUBLIC;
GRANT ALL ON pgtrickle.fake TO PUBLIC;
