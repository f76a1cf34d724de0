-- The life of a stream table. Everybody may call these: each checks the caller's rights.

CREATE FUNCTION pgtrickle.create_stream_table(name text, query text,
	schedule text DEFAULT 'calculated', refresh_mode text DEFAULT 'AUTO',
	initialize boolean DEFAULT true, diamond_consistency text DEFAULT NULL,
	sla interval DEFAULT NULL, tier text DEFAULT NULL, identity text DEFAULT 'full')
	RETURNS regclass
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_create_stream_table';
COMMENT ON FUNCTION pgtrickle.create_stream_table IS
	'makes a table that holds the result of a query and is kept up to date';

CREATE FUNCTION pgtrickle.create_stream_table_if_not_exists(name text, query text,
	schedule text DEFAULT 'calculated', refresh_mode text DEFAULT 'AUTO',
	initialize boolean DEFAULT true, diamond_consistency text DEFAULT NULL,
	sla interval DEFAULT NULL, tier text DEFAULT NULL, identity text DEFAULT 'full')
	RETURNS regclass
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_create_stream_table_if_not_exists';
COMMENT ON FUNCTION pgtrickle.create_stream_table_if_not_exists IS
	'the same; leaves a stream table that has the name already as it is';

CREATE FUNCTION pgtrickle.create_or_replace_stream_table(name text, query text,
	schedule text DEFAULT 'calculated', refresh_mode text DEFAULT 'AUTO',
	initialize boolean DEFAULT true, diamond_consistency text DEFAULT NULL,
	sla interval DEFAULT NULL, tier text DEFAULT NULL, identity text DEFAULT 'full')
	RETURNS regclass
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_create_or_replace_stream_table';
COMMENT ON FUNCTION pgtrickle.create_or_replace_stream_table IS
	'the same; alters a stream table that has the name already, if anything differs';

CREATE FUNCTION pgtrickle.alter_stream_table(name text, query text DEFAULT NULL,
	schedule text DEFAULT NULL, refresh_mode text DEFAULT NULL, status text DEFAULT NULL,
	diamond_consistency text DEFAULT NULL, sla interval DEFAULT NULL, tier text DEFAULT NULL,
	identity text DEFAULT NULL, cascade boolean DEFAULT false) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_alter_stream_table';
COMMENT ON FUNCTION pgtrickle.alter_stream_table IS
	'changes what is given; a new query keeps the table, or with cascade makes it again';

CREATE FUNCTION pgtrickle.drop_stream_table(name text, cascade boolean DEFAULT false) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_drop_stream_table';
COMMENT ON FUNCTION pgtrickle.drop_stream_table IS
	'drops a stream table; so does DROP TABLE';

CREATE FUNCTION pgtrickle.refresh_stream_table(name text, mode text DEFAULT NULL) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_refresh_stream_table';
COMMENT ON FUNCTION pgtrickle.refresh_stream_table IS
	'brings a stream table up to date in this transaction; waits for a refresh that is running';

CREATE FUNCTION pgtrickle.refresh_if_stale(name text,
	max_age interval DEFAULT '5 minutes') RETURNS boolean
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_refresh_if_stale';
COMMENT ON FUNCTION pgtrickle.refresh_if_stale IS
	'refreshes a stream table whose data are older than max_age; tells whether it did';

CREATE FUNCTION pgtrickle.pause_stream_table(name text) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_pause_stream_table';
COMMENT ON FUNCTION pgtrickle.pause_stream_table IS 'nothing refreshes it until it is resumed';

CREATE FUNCTION pgtrickle.resume_stream_table(name text) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_resume_stream_table';
COMMENT ON FUNCTION pgtrickle.resume_stream_table IS
	'ends a pause, or the suspension after too many errors';

CREATE FUNCTION pgtrickle.pause_all() RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_pause_all';
COMMENT ON FUNCTION pgtrickle.pause_all IS 'pauses every stream table that the caller may change';

CREATE FUNCTION pgtrickle.resume_all() RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_resume_all';
COMMENT ON FUNCTION pgtrickle.resume_all IS 'resumes every stream table that the caller may change';

CREATE FUNCTION pgtrickle.export_definition(st_name text) RETURNS text
	STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_export_definition';
COMMENT ON FUNCTION pgtrickle.export_definition IS 'the SQL that creates the stream table again';

-- What watches over stream tables and their sources.

CREATE FUNCTION pgtrickle.guard_stream_table() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_guard_stream_table';
COMMENT ON FUNCTION pgtrickle.guard_stream_table() IS
	'refuses INSERT, UPDATE, DELETE and TRUNCATE of stream tables';

CREATE FUNCTION pgtrickle.definition_inserted() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_definition_inserted';
COMMENT ON FUNCTION pgtrickle.definition_inserted() IS
	'makes what a dump restored one thing again';
CREATE TRIGGER adopt AFTER INSERT ON pgtrickle.pgt_definitions
	FOR EACH ROW EXECUTE FUNCTION pgtrickle.definition_inserted();
ALTER TABLE pgtrickle.pgt_definitions ENABLE ALWAYS TRIGGER adopt;

CREATE FUNCTION pgtrickle.ddl_command_start() RETURNS event_trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_ddl_command_start';
COMMENT ON FUNCTION pgtrickle.ddl_command_start() IS
	'refuses statements that change the shape of a stream table';
CREATE FUNCTION pgtrickle.ddl_command_end() RETURNS event_trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_ddl_command_end';
COMMENT ON FUNCTION pgtrickle.ddl_command_end() IS
	'follows changes of what the queries of stream tables use';
CREATE FUNCTION pgtrickle.sql_drop() RETURNS event_trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_sql_drop';
COMMENT ON FUNCTION pgtrickle.sql_drop() IS
	'cleans up after stream tables and sources that were dropped';

CREATE EVENT TRIGGER pgt_ddl_command_start ON ddl_command_start
	EXECUTE FUNCTION pgtrickle.ddl_command_start();
COMMENT ON EVENT TRIGGER pgt_ddl_command_start IS 'pg_trickle: protects stream tables';
CREATE EVENT TRIGGER pgt_ddl_command_end ON ddl_command_end
	EXECUTE FUNCTION pgtrickle.ddl_command_end();
COMMENT ON EVENT TRIGGER pgt_ddl_command_end IS 'pg_trickle: follows changes of sources';
CREATE EVENT TRIGGER pgt_sql_drop ON sql_drop EXECUTE FUNCTION pgtrickle.sql_drop();
COMMENT ON EVENT TRIGGER pgt_sql_drop IS 'pg_trickle: cleans up after drops';
ALTER EVENT TRIGGER pgt_ddl_command_start ENABLE ALWAYS;
ALTER EVENT TRIGGER pgt_ddl_command_end ENABLE ALWAYS;
ALTER EVENT TRIGGER pgt_sql_drop ENABLE ALWAYS;

REVOKE EXECUTE ON FUNCTION pgtrickle.guard_stream_table(), pgtrickle.definition_inserted(), pgtrickle.ddl_command_start(),
	pgtrickle.ddl_command_end(), pgtrickle.sql_drop() FROM PUBLIC;
