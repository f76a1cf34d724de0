# kill -9 in the middle of a refresh and right after its commit: nothing is lost, nothing is
# applied twice. Also a lost commit: refreshes may commit asynchronously, because what is lost
# with them is still in the change buffers.
use strict;
use warnings;

use Test::More;

use PgTrickle;

plan skip_all => 'the test points are missing' unless has_test_points();

my @tables = qw(rows sums chain bag);
my $node = PgTrickle->new_node('crash', scheduler => 0,
	settings => "restart_after_crash = on\nfsync = on\nautovacuum = off\n");

$node->safe_psql('postgres', q{
CREATE TABLE src (id int PRIMARY KEY, g int, x numeric);
CREATE TABLE dim (g int PRIMARY KEY, name text);
INSERT INTO dim SELECT i, 'dim ' || i FROM generate_series(0, 4) i;
INSERT INTO src SELECT i, i % 5, i FROM generate_series(1, 100) i;
SELECT pgtrickle.create_stream_table('rows', 'SELECT id, name, x FROM src JOIN dim USING (g)');
SELECT pgtrickle.create_stream_table('sums', 'SELECT g, count(*) AS n, sum(x) AS s FROM src GROUP BY g');
SELECT pgtrickle.create_stream_table('chain', 'SELECT name, sum(x) AS s FROM rows GROUP BY name');
SELECT pgtrickle.create_stream_table('bag', 'SELECT g, x FROM src');
});

sub change
{
	$node->safe_psql('postgres', q{
UPDATE src SET x = x + 0.5, g = (g + 1) % 5 WHERE id % 7 = 0;
DELETE FROM src WHERE id = (SELECT min(id) FROM src);
INSERT INTO src SELECT max(id) + 1, 3, 1 FROM src;
UPDATE dim SET name = name || '!' WHERE g = 1});
}

sub refresh_all
{
	my ($prefix) = @_;
	return $node->psql('postgres',
		join('', $prefix || '', map { "SELECT pgtrickle.refresh_stream_table('$_');\n" } @tables));
}

sub image
{
	my ($name) = @_;
	return $node->safe_psql('postgres', "SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM $name t");
}

sub all_right
{
	my ($when) = @_;

	is(refresh_all(), 0, "$when: the next refresh succeeds");
	stream_table_is_right($node, $_, "$when: $_ equals its query", by_image => 1) for @tables;
	my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM pgtrickle.pgt_refresh_history');
	refresh_all();
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pgtrickle.pgt_refresh_history'),
		$before, "$when: and then there is nothing to do");
	return;
}

# Until a crash was noticed and recovery is over; the server that crashed may answer for a moment.
sub wait_for_restart
{
	my ($offset) = @_;

	for (1 .. 1800)
	{
		return 1 if PostgreSQL::Test::Utils::slurp_file($node->logfile, $offset) =~ /database system is ready to accept connections/;
		select(undef, undef, undef, 0.1);
	}
	die 'the server did not come back';
}

for my $point (qw(refresh-after-snapshot refresh-before-apply refresh-after-apply refresh-before-commit))
{
	for my $mode ('DIFFERENTIAL', 'FULL')
	{
		for my $table ('sums', 'bag')
		{
			change();
			my $before = image($table);
			my $offset = -s $node->logfile;
			my ($status) = $node->psql('postgres',
				"SET pg_trickle.test_points = '$point=kill'; SELECT pgtrickle.refresh_stream_table('$table', '$mode')");

			isnt($status, 0, "$mode of $table: killed at $point");
			wait_for_restart($offset);
			is(image($table), $before, "$mode of $table: its rows are as before");
		}
		all_right("$mode at $point");
	}
}

# The whole chain in one transaction, killed before its last refresh commits: all of it is undone.
change();
my $before = image('rows');
my $offset = -s $node->logfile;
my ($status) = $node->psql('postgres', "BEGIN; SELECT pgtrickle.refresh_stream_table('rows');"
	  . "SET LOCAL pg_trickle.test_points = 'refresh-before-commit=kill';"
	  . "SELECT pgtrickle.refresh_stream_table('chain'); COMMIT;");
isnt($status, 0, 'the chain in a transaction: killed');
wait_for_restart($offset);
is(image('rows'), $before, 'the chain in a transaction: the first of it is undone, too');
all_right('chain in a transaction');

# Committed, then the server dies at once. With synchronous_commit = off the commit itself may be lost.
for my $sync ('on', 'off')
{
	change();
	refresh_all("SET synchronous_commit = $sync;");
	my @images = map { image($_) } @tables;
	$node->stop('immediate');
	$node->start;
	is_deeply([ map { image($_) } @tables ], \@images, 'a synchronous refresh is there after a crash')
	  if $sync eq 'on';
	all_right("crash after a commit, synchronous_commit = $sync");
}

# Writers commit, the backend that refreshes is killed from outside while it waits in the middle.
change();
my $holder = session($node);
my $session = session($node);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$holder->query_safe('BEGIN; LOCK TABLE sums IN SHARE ROW EXCLUSIVE MODE;');
$session->query_until(qr/started/, "\\echo started\nSELECT pgtrickle.refresh_stream_table('sums');\n");
wait_until($node, "SELECT count(*) = 1 FROM pg_locks WHERE pid = $pid AND NOT granted");
change();
$offset = -s $node->logfile;
kill 'KILL', $pid;
eval { $session->quit };
eval { $holder->quit };
wait_for_restart($offset);
all_right('killed while it waited for a lock');

# Terminated instead: nobody else is affected.
change();
$holder = session($node);
$holder->query_safe('BEGIN; LOCK TABLE sums IN SHARE ROW EXCLUSIVE MODE;');
$session = session($node);
$pid = $session->query_safe('SELECT pg_backend_pid()');
$session->query_until(qr/started/, "\\echo started\nSELECT pgtrickle.refresh_stream_table('sums');\n");
wait_until($node, "SELECT count(*) = 1 FROM pg_locks WHERE pid = $pid AND NOT granted");
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
wait_until($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
is($holder->query_safe('SELECT 1'), '1', 'the other session lives');
$holder->query_safe('COMMIT');
$holder->quit;
eval { $session->quit };
all_right('terminated');

# A refresh that fails in the middle leaves nothing, and can be repeated in the same session.
for my $point (qw(refresh-after-snapshot refresh-before-apply refresh-after-apply refresh-before-commit))
{
	change();
	my ($code, $out, $err) = $node->psql('postgres', qq{
BEGIN;
SAVEPOINT a;
SET pg_trickle.test_points = '$point=error';
SELECT pgtrickle.refresh_stream_table('rows');
ROLLBACK TO a;
RESET pg_trickle.test_points;
SELECT pgtrickle.refresh_stream_table('rows');
SELECT pgtrickle.refresh_stream_table('sums');
COMMIT}, on_error_stop => 0);
	like($err, qr/test point "$point"/, "failed at $point");
	stream_table_is_right($node, 'rows', "right after a failure at $point");
	all_right("failed at $point");
}

$node->stop;
done_testing();
