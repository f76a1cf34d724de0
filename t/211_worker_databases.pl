# Several databases share few workers: none is starved, and databases that are dropped in the
# middle of a refresh leave neither workers nor jobs behind.
use strict;
use warnings;

use IPC::Run;
use Test::More;
use Time::HiRes qw(time);

use PgTrickle;

my $node = PgTrickle->new_node(
	'shared',
	settings => "pg_trickle.scheduler_interval_ms = '1s'\n"
	  . "pg_trickle.max_parallel_workers = 1\n"
	  . "max_worker_processes = 16\n"
	  . "autovacuum = off\n");

sub sql
{
	my ($text, $database) = @_;
	return $node->safe_psql($database || 'postgres', $text);
}

my $workers = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_trickle worker'};

sub fill
{
	my ($database) = @_;

	sql("CREATE DATABASE $database");
	sql('CREATE EXTENSION pg_trickle', $database);
	sql(q{CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1);
		CREATE FUNCTION slow(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN IF v = -1 THEN PERFORM pg_sleep(600); END IF; RETURN v; END $$;
		SELECT pgtrickle.create_stream_table('s' || i, 'SELECT id, slow(v) AS v FROM t', schedule => '100ms') FROM generate_series(1, 3) i}, $database);
	return;
}

# --- one worker, and a database that always has work for it -----------------------------------

fill('busy');
fill('quiet');
my $load = $node->basedir . '/load.sql';
open(my $file, '>', $load) or die $!;
print $file "UPDATE t SET v = v + 1;\n";
close $file;
my $writer = IPC::Run::start([ 'pgbench', '-n', '-c', '1', '-T', 15, '-f', $load, $node->connstr('busy') ], '>', \my $out, '2>', \my $err);
wait_until($node, q{SELECT count(*) = 1 FROM pgtrickle.worker_pool_status() WHERE database = 'busy' AND jobs_done > 10}, dbname => 'busy');
for my $turn (1, 2)
{
	my $start = time;
	sql('UPDATE t SET v = v + 1', 'quiet');
	ok(wait_for_fresh($node, "s$_", dbname => 'quiet'), "turn $turn: s$_ of the other database is refreshed") for 1 .. 3;
	cmp_ok(time - $start, '<', 12, sprintf('turn %d: within %.1f s', $turn, time - $start));
	cmp_ok(sql($workers), '<=', 1, "turn $turn: there is one worker");
}
$writer->finish;
like($out, qr/number of failed transactions: 0 /, 'the load was one');
ok(wait_for_fresh($node, "s$_", dbname => 'busy'), "s$_ of the busy database is brought up to date") for 1 .. 3;

# --- databases that go -----------------------------------------------------------------------

$node->append_conf('postgresql.conf', "pg_trickle.max_parallel_workers = 4\n");
$node->reload;
for my $n (1 .. 3)
{
	fill('gone');
	sql('UPDATE t SET v = -1', 'gone');
	wait_until($node, q{SELECT count(*) = 3 FROM pg_stat_activity WHERE backend_type = 'pg_trickle worker' AND datname = 'gone' AND wait_event = 'PgSleep'});
	my $start = time;
	sql($n == 2 ? 'ALTER DATABASE gone RENAME TO went' : 'DROP DATABASE gone');
	cmp_ok(time - $start, '<', 8, sprintf('%d: refreshes in workers are sent away within %.1f s', $n, time - $start));
	next if $n != 2;
	wait_until($node, q{SELECT count(*) = 3 FROM pg_stat_activity WHERE backend_type = 'pg_trickle worker' AND datname = 'went' AND wait_event = 'PgSleep'});
	is(sql(q{SELECT string_agg(DISTINCT status, ' ') FROM pgtrickle.pgt_refresh_history}, 'went'), 'COMPLETED', '2: to be sent away is no failure');
	sql('DROP DATABASE went');
}
sql('UPDATE t SET v = 5', 'quiet');
ok(wait_for_fresh($node, "s$_", dbname => 'quiet'), "then: s$_ of another one is refreshed") for 1 .. 3;
wait_until($node, q{SELECT bool_and(database IN ('busy', 'quiet')) FROM pgtrickle.worker_pool_status()}, dbname => 'quiet');
pass('no worker is left over');

# --- an extension that goes, and is made anew --------------------------------------------------

sql('UPDATE t SET v = -1', 'quiet');
wait_until($node, q{SELECT count(*) = 3 FROM pg_stat_activity WHERE backend_type = 'pg_trickle worker' AND datname = 'quiet' AND wait_event = 'PgSleep'});
sql('BEGIN; DROP EXTENSION pg_trickle CASCADE; ROLLBACK', 'quiet');
wait_until($node, q{SELECT count(*) = 3 FROM pg_stat_activity WHERE backend_type = 'pg_trickle worker' AND datname = 'quiet' AND wait_event = 'PgSleep'});
pass('DROP EXTENSION that is rolled back: refreshes begin anew');
my $start = time;
sql('DROP EXTENSION pg_trickle CASCADE', 'quiet');
cmp_ok(time - $start, '<', 8, 'DROP EXTENSION sends workers away');
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_trickle%' AND datname = 'quiet'}), '0', 'nobody is left');
sql(q{CREATE EXTENSION pg_trickle; UPDATE t SET v = 6; SELECT pgtrickle.create_stream_table('fresh', 'SELECT id, slow(v) AS v FROM t', schedule => '100ms')}, 'quiet');
sql('UPDATE t SET v = 7', 'quiet');
ok(wait_for_fresh($node, 'fresh', dbname => 'quiet'), 'made anew, it refreshes');
is(sql(q{SELECT string_agg(DISTINCT status, ' ') FROM pgtrickle.pgt_refresh_history}, 'quiet'), 'COMPLETED', 'and takes no result of the old one for its own');

$node->stop;
done_testing();
