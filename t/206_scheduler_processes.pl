# The processes: how many there are, what happens when there is no room for them, when they are
# terminated or killed, and when their database, extension or server goes in the middle of work.
use strict;
use warnings;

use IPC::Run;
use Test::More;
use Time::HiRes qw(time);

use PgTrickle;

my $node = PgTrickle->new_node('processes', settings => "restart_after_crash = on\n");
my @served = ('postgres', map { "with$_" } 1 .. 8);

sub sql { return $node->safe_psql($_[1] || 'postgres', $_[0]) }

sub set
{
	my ($name, $value) = @_;
	$node->append_conf('postgresql.conf', "$name = '$value'\n");
	$node->reload;
	return;
}

sub log_lines
{
	my ($pattern) = @_;
	return scalar grep { /$pattern/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile);
}

my $coordinators = q{SELECT pid, datname FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator' AND datname IS NOT NULL};

# --- many databases --------------------------------------------------------------------------

sql("CREATE DATABASE without$_") for 1 .. 4;
for my $database (@served)
{
	sql("CREATE DATABASE $database") unless $database eq 'postgres';
	sql(q{CREATE EXTENSION IF NOT EXISTS pg_trickle;
		CREATE TABLE t (id int PRIMARY KEY, v int);
		SELECT pgtrickle.create_stream_table('s', 'SELECT count(*) AS n, sum(v) AS v FROM t');
		INSERT INTO t VALUES (1, 1)}, $database);
}
wait_until($node, 'SELECT n = 1 FROM s', dbname => $_) for @served;
pass('nine databases are served');
wait_until($node, "SELECT count(*) = 9 AND count(DISTINCT datname) = 9 AND bool_and(datname !~ 'without') FROM ($coordinators) c");
pass('by one coordinator each; the others have none');
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_trickle launcher'}), '1', 'and one launcher');

# --- no background worker is free ----------------------------------------------------------

my $missing = 'could not start every coordinator';
$node->append_conf('postgresql.conf', "max_worker_processes = 5\n");
$node->restart;
# One is the launcher, one that of logical replication.
wait_until($node, "SELECT count(*) = 3 FROM ($coordinators) c");
sql('INSERT INTO t VALUES (2, 1)', $_) for @served;
my @now = split /\n/, sql("SELECT datname FROM ($coordinators) c");
wait_until($node, 'SELECT n = 2 FROM s', dbname => $_) for @now;
# Commits of a catalog wake the launcher, so that it tries again.
sql('SELECT pgtrickle.pause_all(); SELECT pgtrickle.resume_all()', $_) for @served, @served, @served;
is(log_lines($missing), 1, 'one line in the log says that no worker is free');
my %now = map { $_ => 1 } @now;
my @others = (grep { !$now{$_} } @served)[ 0 .. 2 ];
set('pg_trickle.databases', join(',', @others));
wait_until($node, 'SELECT n = 2 FROM s', dbname => $_) for @others;
pass('others are served as soon as there is room');
wait_until($node, "SELECT count(*) = 3 FROM ($coordinators) c");
is(log_lines($missing), 1, 'still one line');
set('pg_trickle.databases', 'nowhere, *');
$node->append_conf('postgresql.conf', "max_worker_processes = 16\n");
$node->restart;
wait_until($node, 'SELECT n = 2 FROM s', dbname => $_) for @served;
cmp_ok(log_lines($missing), '<=', 2, 'with room for all there are no more lines');

# --- terminated and killed -------------------------------------------------------------------

my $script = $node->basedir . '/load.sql';
PostgreSQL::Test::Utils::append_to_file($script,
	"\\set id random(1, 100000)\nINSERT INTO t VALUES (:id, 1) ON CONFLICT (id) DO UPDATE SET v = t.v + 1;\n");

my $load;

sub start_load
{
	return IPC::Run::start([ 'pgbench', '-n', '-c', '3', '-T', '600', '-f', $script, $node->connstr('postgres') ],
		'>', \my $out, '2>', \my $err);
}

sub stop_load
{
	$load->kill_kill;
	# Its last statements may still be under way.
	wait_until($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()});
	return;
}

sub is_right
{
	my ($when) = @_;
	wait_for_fresh($node, 's');
	stream_table_is_right($node, 's', "$when: it equals its query");
	is(sql(q{SELECT status, consecutive_errors FROM pgtrickle.pgt_stream_tables}), 'ACTIVE|0', "$when: and is active");
	return;
}

my $pid_of = sub { sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_trickle $_[0]'" . ($_[0] eq 'coordinator' ? " AND datname = 'postgres'" : '')) };
$load = start_load();
my ($longest, $first, $pid) = (0);
for my $turn (1 .. 6)
{
	my $start = time;
	wait_until($node, "SELECT count(*) = 1 FROM ($coordinators) c WHERE datname = 'postgres'");
	$longest = time - $start if time - $start > $longest;
	$first //= time - $start if $turn == 2;
	$pid = $pid_of->('coordinator');
	sql("SELECT pg_terminate_backend($pid, 5000)");
}
cmp_ok($first, '<', 2, sprintf('a coordinator that is terminated is replaced within %.1f s', $first));
cmp_ok($longest, '<', 5, sprintf('a coordinator that is terminated again and again is replaced within %.1f s', $longest));
$pid = $pid_of->('launcher');
sql("SELECT pg_terminate_backend($pid)");
sql(q{SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator'}) for 1 .. 10;
wait_until($node, "SELECT count(*) = 1 AND min(pid) <> $pid FROM pg_stat_activity WHERE backend_type = 'pg_trickle launcher'");
wait_until($node, "SELECT count(*) = 9 FROM ($coordinators) c");
pass('a launcher that is terminated comes back');
stop_load();
sql('UPDATE t SET v = v + 1 WHERE id = 1');
is_right('after terminating');

for my $victim ('launcher', 'coordinator')
{
	$load = start_load();
	$pid = $pid_of->($victim);
	kill 'KILL', $pid;
	$node->poll_query_until('postgres', "SELECT count(*) = 9 AND count(DISTINCT datname) = 9 FROM ($coordinators) c WHERE pid <> $pid")
	  or die "no coordinators after kill -9 of the $victim";
	stop_load();
	sql('UPDATE t SET v = v + 1 WHERE id = 1');
	is_right("kill -9 of the $victim under load");
}

# --- the server stops ------------------------------------------------------------------------

$load = start_load();
my $start = time;
wait_until($node, q{SELECT count(*) > 2 FROM pg_stat_activity WHERE query LIKE 'INSERT INTO t %ON CONFLICT%'});
$node->stop('fast');
cmp_ok(time - $start, '<', 20, 'a fast shutdown with writers does not wait for the scheduler');
$load->kill_kill;
$node->start;
is_right('after a fast shutdown under load');

# --- in the middle of a refresh --------------------------------------------------------------

sub make_slow
{
	my ($database, $seconds) = @_;
	sql("CREATE DATABASE $database");
	sql(qq{CREATE EXTENSION pg_trickle;
		CREATE TABLE t (id int);
		CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS \$\$ BEGIN PERFORM pg_sleep($seconds); RETURN \$1; END \$\$;
		SELECT pgtrickle.create_stream_table('s', 'SELECT id, slow(id) AS w FROM t');
		INSERT INTO t VALUES (1)}, $database);
	wait_until($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type LIKE 'pg_trickle %' AND datname = '$database' AND wait_event = 'PgSleep'");
	return;
}

make_slow('dropped', 600);
$start = time;
sql('DROP DATABASE dropped');
cmp_ok(time - $start, '<', 8, 'DROP DATABASE in the middle of a refresh cancels it');

make_slow('bared', 600);
$start = time;
sql('BEGIN; DROP EXTENSION pg_trickle CASCADE; ROLLBACK', 'bared');
cmp_ok(time - $start, '<', 8, 'DROP EXTENSION in the middle of a refresh cancels it');
wait_until($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator' AND datname = 'bared'});
pass('rolled back, there is a coordinator again');
$start = time;
sql('DROP EXTENSION pg_trickle CASCADE', 'bared');
cmp_ok(time - $start, '<', 8, 'and then it is dropped');
wait_until($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator' AND datname = 'bared'});
is(sql('SELECT count(*) FROM t', 'bared'), '1', 'the sources are as they were');
sql('INSERT INTO t VALUES (2)', 'bared');

# Who may not drop it, cannot send the coordinator away either.
$pid = $pid_of->('coordinator');
sql('CREATE ROLE nobody');
like(error_of($node, 'SET ROLE nobody; DROP EXTENSION pg_trickle CASCADE'), qr/42501/, 'who does not own the extension cannot drop it');
is($pid_of->('coordinator'), $pid, 'and leaves the coordinator alone');

sql('DROP DATABASE with8');
wait_until($node, "SELECT count(*) = 8 FROM ($coordinators) c");
is_right('at last');
is(log_lines('PANIC|TRAP|server process .* was terminated by signal (?!9)'), 0, 'nothing crashed by itself');
$node->stop;
done_testing();
