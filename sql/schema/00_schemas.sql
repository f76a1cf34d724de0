\echo Use "CREATE EXTENSION pg_trickle" to load this file. \quit

-- The schema pgtrickle itself is made by CREATE EXTENSION (control file).
GRANT USAGE ON SCHEMA pgtrickle TO PUBLIC;
COMMENT ON SCHEMA pgtrickle IS 'functions, views and catalog of pg_trickle';
CREATE SCHEMA pgtrickle_changes;
COMMENT ON SCHEMA pgtrickle_changes IS 'change buffers of pg_trickle; not for users';
CREATE SCHEMA pgtrickle_state;
COMMENT ON SCHEMA pgtrickle_state IS 'definitions and auxiliary state of stream tables; not for users';
