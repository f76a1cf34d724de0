-- Identity of rows without a key: an index on this finds a row by its image.
CREATE FUNCTION pgtrickle.row_hash(record) RETURNS bigint
	AS 'MODULE_PATHNAME', 'pgt_row_hash'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgtrickle.row_hash(record) IS
	'hash of a row''s bytes, the same under every setting and collation';
