-- What consumers downstream follow.

CREATE FUNCTION pgtrickle.stream_table_to_publication(name text, publication text DEFAULT NULL)
	RETURNS text
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_stream_table_to_publication';
COMMENT ON FUNCTION pgtrickle.stream_table_to_publication IS
	'makes a publication of a stream table, named pgt_<schema>_<table> by default, and returns its name; that of the one it has, if it has one';

CREATE FUNCTION pgtrickle.drop_stream_table_publication(name text) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_drop_stream_table_publication';
COMMENT ON FUNCTION pgtrickle.drop_stream_table_publication IS
	'drops the publication that stream_table_to_publication has made; takes the table out of it, if others were added';
