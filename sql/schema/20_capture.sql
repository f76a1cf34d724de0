-- Trigger functions of capture. Made triggers of by C only, see worker/capture/trigger.c.

CREATE FUNCTION pgtrickle.capture_statement() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_capture_statement';
COMMENT ON FUNCTION pgtrickle.capture_statement() IS 'writes the rows that a statement changed to the buffer of their source';

CREATE FUNCTION pgtrickle.capture_row() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_capture_row';
COMMENT ON FUNCTION pgtrickle.capture_row() IS 'the same row by row: in replica role, and for partitions that are sources themselves';

CREATE FUNCTION pgtrickle.capture_truncate() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'pgt_capture_truncate';
COMMENT ON FUNCTION pgtrickle.capture_truncate() IS 'leaves a marker in the buffer: no delta reaches past a TRUNCATE';

REVOKE EXECUTE ON FUNCTION pgtrickle.capture_statement(), pgtrickle.capture_row(),
	pgtrickle.capture_truncate() FROM PUBLIC;
