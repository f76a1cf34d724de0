# kill -9 of the coordinator, restart, standby and promotion.
use strict;
use warnings;

use Test::More;

use PgTrickle;

my $node = PgTrickle->new_node('crash', settings => "restart_after_crash = on\nhot_standby = on\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

my $coordinator = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator' AND datname = 'postgres'};

sql(q{CREATE TABLE t (id int PRIMARY KEY, k int);
	SELECT pgtrickle.create_stream_table('s', 'SELECT k, count(*) AS n FROM t GROUP BY k');
	INSERT INTO t SELECT i, i % 5 FROM generate_series(1, 100) i});
wait_until($node, 'SELECT sum(n) = 100 FROM s');

my $pid = sql($coordinator);
kill 'KILL', $pid;
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($coordinator) p WHERE pid <> $pid")
  or die 'no coordinator after the crash';
sql('INSERT INTO t SELECT i, i % 5 FROM generate_series(101, 200) i');
wait_until($node, 'SELECT sum(n) = 200 FROM s');
stream_table_is_right($node, 's');
pass('refreshes go on after kill -9 of the coordinator');

$node->stop('immediate');
$node->start;
sql('INSERT INTO t SELECT i, i % 5 FROM generate_series(201, 300) i');
wait_until($node, 'SELECT sum(n) = 300 FROM s');
stream_table_is_right($node, 's');
pass('and after an immediate stop');

# A standby has the rows and runs nothing; promoted, it refreshes.
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
sql('DELETE FROM t WHERE k = 1');
wait_until($node, 'SELECT sum(n) = 240 FROM s');
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', 'SELECT sum(n) FROM s'), '240', 'the standby has the refreshed rows');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_trickle%'}), '0', 'nothing runs on a standby');
$node->stop;
$standby->promote;
$standby->safe_psql('postgres', 'DELETE FROM t WHERE k = 2');
wait_until($standby, 'SELECT sum(n) = 180 FROM s');
stream_table_is_right($standby, 's');
pass('promotion starts the scheduler');
$standby->stop;
done_testing();
