# A delta may raise an error that the result does not have: it joins rows from before one
# change with rows from after another. The scheduler then computes everything.
use strict;
use warnings;

use Test::More;

use PgTrickle;

my $node = PgTrickle->new_node('delta_error');

$node->safe_psql('postgres', q{
	CREATE TABLE a (id int PRIMARY KEY, k int, x int);
	CREATE TABLE b (id int PRIMARY KEY, k int, y int);
	INSERT INTO a VALUES (1, 1, 5);
	INSERT INTO b VALUES (1, 1, 7);
	SELECT pgtrickle.create_stream_table('q', 'SELECT a.id, 100 / (a.x - b.y) AS d FROM a JOIN b USING (k)');
});
# 5 - 7 and 7 - 9 are all right, 7 - 7 never was there.
$node->safe_psql('postgres', 'BEGIN; UPDATE a SET x = 7; UPDATE b SET y = 9; COMMIT');
wait_until($node, q{SELECT count(*) = 1 FROM pgtrickle.get_refresh_history('q') WHERE action = 'REINITIALIZE' AND status = 'COMPLETED'});
stream_table_is_right($node, 'q', 'it equals its query');
is(sql_value($node, q{SELECT status, consecutive_errors, rebuild_reason IS NULL FROM pgtrickle.pgt_stream_tables}),
	'ACTIVE|0|t', 'it is active, and nothing was counted');
is(sql_value($node, q{SELECT string_agg(action || ' ' || status, ', ' ORDER BY start_time) FROM pgtrickle.get_refresh_history('q')}),
	'FULL COMPLETED, DIFFERENTIAL FAILED, REINITIALIZE COMPLETED', 'the history tells');
like(sql_value($node, q{SELECT refresh_reason FROM pgtrickle.get_refresh_history('q', 1)}),
	qr/^its changes could not be computed: division by zero/, 'and why');

# An error that the result does have is one of the stream table, until the row is mended.
$node->safe_psql('postgres', 'UPDATE b SET y = 7');
wait_until($node, q{SELECT status = 'ERROR' AND consecutive_errors = 1 FROM pgtrickle.pgt_stream_tables});
is(sql_value($node, 'SELECT d FROM q'), '-50', 'it shows what it showed');
$node->safe_psql('postgres', 'UPDATE b SET y = 3');
wait_until($node, q{SELECT status = 'ACTIVE' FROM pgtrickle.pgt_stream_tables});
stream_table_is_right($node, 'q', 'it equals its query again');
$node->safe_psql('postgres', 'UPDATE b SET y = 2');
wait_until($node, 'SELECT d = 20 FROM q');
is(sql_value($node, q{SELECT action FROM pgtrickle.get_refresh_history('q', 1)}), 'DIFFERENTIAL', 'and is incremental again');

# A refresh by hand does the same in its own transaction, and says so.
$node->safe_psql('postgres', q{
	SELECT pgtrickle.alter_stream_table('q', schedule => '1h');
	UPDATE a SET x = 5;
	UPDATE b SET y = 7;
	SELECT pgtrickle.refresh_stream_table('q')});
$node->safe_psql('postgres', 'BEGIN; UPDATE a SET x = 7; UPDATE b SET y = 9; COMMIT');
my ($status, $out, $err) = $node->psql('postgres', q{SELECT pgtrickle.refresh_stream_table('q')}, on_error_stop => 1);
is($status, 0, 'a refresh by hand succeeds as well');
like($err, qr/WARNING:  could not compute the changes of stream table "q", computing it anew\nDETAIL:  Reason: division by zero\./, 'with a warning');
stream_table_is_right($node, 'q', 'it equals its query');
is(sql_value($node, q{SELECT action || ', ' || refresh_reason FROM pgtrickle.get_refresh_history('q', 1)}),
	'REINITIALIZE, its changes could not be computed: division by zero', 'the history tells');

# What the first half of the delta had written is undone; what else the transaction did is not.
$node->safe_psql('postgres', q{
	CREATE TABLE note (t text);
	SELECT pgtrickle.create_stream_table('r', 'SELECT d, count(*) AS n FROM q GROUP BY d');
	SELECT pgtrickle.create_stream_table('two', 'SELECT s.k, 100 / (s.x - b.y) AS d FROM (SELECT k, sum(x) AS x FROM a GROUP BY k) s JOIN b USING (k)', '1h');
	BEGIN; INSERT INTO note VALUES ('before'); UPDATE a SET x = 9; UPDATE b SET y = 11;
	SET client_min_messages = error;
	SELECT pgtrickle.refresh_stream_table('q');
	SELECT pgtrickle.refresh_stream_table('two');
	INSERT INTO note VALUES ('after');
	COMMIT});
is(sql_value($node, q{SELECT string_agg(t, ' ' ORDER BY t) FROM note}), 'after before', 'inside of a transaction');
stream_table_is_right($node, $_) for qw(q two);
is(sql_value($node, q{SELECT action FROM pgtrickle.get_refresh_history('two', 1)}), 'REINITIALIZE', 'with a stage below as well');
$node->safe_psql('postgres', q{UPDATE a SET x = 1; SELECT pgtrickle.refresh_stream_table('q'), pgtrickle.refresh_stream_table('two')});
stream_table_is_right($node, $_) for qw(q two);
is(sql_value($node, q{SELECT string_agg(action, ' ') FROM pgtrickle.get_refresh_history('two', 1)}), 'DIFFERENTIAL', 'and incremental again');
wait_for_fresh($node, 'r');
stream_table_is_right($node, 'r', 'whoever reads it has followed');

# The error of the query itself is shown as it is, and nothing has changed.
$node->safe_psql('postgres', 'UPDATE b SET y = 1');
like(error_of($node, q{SELECT pgtrickle.refresh_stream_table('q')}), qr/ERROR:  22012: division by zero/, 'an error of the result is an error');
like(error_of($node, q{SELECT pgtrickle.refresh_stream_table('q', 'FULL')}), qr/ERROR:  22012: division by zero/, 'the same in FULL');
is(sql_value($node, 'SELECT d FROM q'), '-10', 'and it shows what it showed');
$node->safe_psql('postgres', q{
	UPDATE b SET y = 2;
	CREATE FUNCTION try() RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM pgtrickle.refresh_stream_table('q'); RETURN 'ok'; EXCEPTION WHEN division_by_zero THEN RETURN 'caught'; END $$});
is(sql_value($node, q{UPDATE b SET y = 1; SELECT try()}), 'caught', 'who catches it goes on');
is(sql_value($node, q{UPDATE b SET y = 3; SELECT try(); SELECT d FROM q}), "ok\n-50", 'and refreshes later');

# Large deltas go to files, which must not outlive the subtransaction.
$node->safe_psql('postgres', q{
	CREATE TABLE wide (id int PRIMARY KEY, g int, x int, t text);
	CREATE TABLE div (g int PRIMARY KEY, y int);
	INSERT INTO wide SELECT i, i % 5000, 5, repeat('x', 200) FROM generate_series(1, 20000) i;
	INSERT INTO div SELECT i, 7 FROM generate_series(0, 4999) i;
	SELECT pgtrickle.create_stream_table('big', 'SELECT s.g, t, 100 / (x - y) AS d FROM (SELECT g, max(x) AS x, max(t) AS t FROM wide GROUP BY g) s JOIN div USING (g)', '1h', 'DIFFERENTIAL')});
for my $change (['x = 6', 'y = 7', 'DIFFERENTIAL'], ['x = 7', 'y = 9', 'REINITIALIZE'], ['x = 1', 'y = 8', 'DIFFERENTIAL'])
{
	my ($x, $y, $action) = @$change;
	my (undef, undef, $warnings) = $node->psql('postgres', qq{SET work_mem = '64kB';
		BEGIN; UPDATE wide SET $x; UPDATE div SET $y; COMMIT;
		SELECT pgtrickle.refresh_stream_table('big')});
	unlike($warnings, qr/leak|ERROR/, "large deltas, $action, leave nothing behind");
	is(sql_value($node, q{SELECT action FROM pgtrickle.get_refresh_history('big', 1)}), $action, 'as it should be');
	stream_table_is_right($node, 'big');
}
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/leak/, 'the log has nothing of it either');

$node->stop;
done_testing();
