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

$node->stop;
done_testing();
