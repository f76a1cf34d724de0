# With workers: kill -9 at each step of a refresh, suspects one at a time, an immediate stop, the
# launcher's end, slots of workers, and room for workers that is taken and given back.
use strict;
use warnings;

use Test::More;

use PgTrickle;

my $node = PgTrickle->new_node(
	'crashes',
	settings => "restart_after_crash = on\n"
	  . "pg_trickle.scheduler_interval_ms = '1s'\n"
	  . "pg_trickle.volatile_function_policy = 'allow'\n"
	  . "pg_trickle.max_parallel_workers = 4\n"
	  . "max_worker_processes = 16\n"
	  . "autovacuum = off\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub set
{
	my ($name, $value) = @_;
	$node->append_conf('postgresql.conf', "$name = '$value'\n");
	return;
}

# Every process has read the settings as soon as this one has: all get the signal before it.
sub reload
{
	my ($name, $value) = @_;
	set($name, $value);
	$node->reload;
	return wait_until($node, "SELECT current_setting('$name') = '$value'");
}

sub comes_back
{
	return wait_until_up($node);
}

my @tables = qw(agg left_branch right_branch meet top);

sql(q{
	CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, v int NOT NULL);
	INSERT INTO t SELECT i, i % 10, i FROM generate_series(1, 200) i;
	SELECT pgtrickle.create_stream_table('agg', 'SELECT k, sum(v) AS v FROM t GROUP BY k', schedule => '100ms');
	SELECT pgtrickle.create_stream_table('left_branch', 'SELECT id, v FROM t');
	SELECT pgtrickle.create_stream_table('right_branch', 'SELECT id, 2 * v AS w FROM t');
	SELECT pgtrickle.create_stream_table('meet', 'SELECT l.id, v, w FROM left_branch l JOIN right_branch r ON r.id = l.id', schedule => '100ms');
	SELECT pgtrickle.create_stream_table('top', 'SELECT sum(v) AS v FROM agg', schedule => '100ms')});

sub all_right
{
	my ($when) = @_;

	sql('UPDATE t SET v = v + 1, k = (k + 1) % 10 WHERE id % 3 = 0');
	ok(wait_for_fresh($node, $_), "$when: $_ is brought up to date") for @tables;
	stream_table_is_right($node, $_, "$when: $_ equals its query") for @tables;
	# A crash leaves ERROR behind until the next refresh.
	wait_until($node, q{SELECT bool_and(status = 'ACTIVE') FROM pgtrickle.pgt_stream_tables});
	return;
}

all_right('at first');

# --- each step of a refresh ------------------------------------------------------------------

SKIP:
{
	skip 'the test points are missing', 1 unless has_test_points();
	for my $point (qw(worker-has-job attempt-begin refresh-after-snapshot refresh-before-apply refresh-after-apply attempt-commit attempt-committed))
	{
		my $last = sql('SELECT max(refresh_id) FROM pgtrickle.pgt_refresh_history');
		my $log = -s $node->logfile;

		set('restart_after_crash', 'off');
		reload('pg_trickle.test_points', "$point=kill");
		$node->psql('postgres', 'UPDATE t SET v = v - 1, k = (k + 7) % 10 WHERE id % 2 = 0');
		$node->wait_for_log(qr{because "?restart_after_crash"? is off}, $log);
		# The processes are on their way out, the file of the postmaster is the last to go.
		my $pid_file = $node->data_dir . '/postmaster.pid';
		for (1 .. 600)
		{
			last unless -e $pid_file;
			select(undef, undef, undef, 0.1);
		}
		$node->{_pid} = undef;
		set('pg_trickle.test_points', '');
		set('restart_after_crash', 'on');
		$node->start;
		all_right("killed at $point");
		my $crashed = sql(qq{SELECT count(*) > 0 FROM pgtrickle.pgt_refresh_history WHERE refresh_id > $last AND status = 'CRASHED' AND sqlstate = '58P90'});
		is($crashed, 't', "killed at $point: the history says so") unless $point =~ /committed|has-job/;
		is(sql(qq{SELECT count(*) FROM pgtrickle.pgt_refresh_history WHERE refresh_id > $last AND status NOT IN ('COMPLETED', 'CRASHED')}),
			'0', "killed at $point: and nothing else failed");
	}
}

# --- two suspects ----------------------------------------------------------------------------

sql(q{
	CREATE TABLE gate (closed bool); INSERT INTO gate VALUES (false);
	CREATE FUNCTION slow(v int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
	BEGIN
		WHILE v = -1 AND (SELECT bool_or(closed) FROM public.gate) LOOP PERFORM pg_sleep(0.05); END LOOP;
		RETURN v;
	END $$;
	CREATE TABLE s1 (v int); CREATE TABLE s2 (v int);
	INSERT INTO s1 VALUES (-1); INSERT INTO s2 VALUES (-1);
	SELECT pgtrickle.create_stream_table('waits' || i, format('SELECT slow(v) AS v FROM s%s', i), schedule => '1s') FROM generate_series(1, 2) i});

my $waiting = q{SELECT job_id, unit_key, worker_pid FROM pgtrickle.parallel_job_status() WHERE status = 'RUNNING' AND unit_key ~ 'waits'};

sub both_wait
{
	sql('UPDATE gate SET closed = true; INSERT INTO s1 VALUES (-1); INSERT INTO s2 VALUES (-1)');
	wait_until($node, "SELECT count(*) = 2 FROM ($waiting) w JOIN pg_stat_activity a ON a.pid = w.worker_pid AND a.wait_event = 'PgSleep'");
	return split /\n/, sql("SELECT worker_pid FROM ($waiting) w ORDER BY unit_key");
}

my ($first, $second) = both_wait();
my $last = sql('SELECT max(refresh_id) FROM pgtrickle.pgt_refresh_history');
# Stopped, the second one leaves no mark when the postmaster ends it because of the first.
kill 'STOP', $second;
kill 'KILL', $first;
kill 'KILL', $second;
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid IN ($first, $second)") or die 'the server does not come back';
wait_until($node, qq{SELECT count(*) = 2 FROM pgtrickle.pgt_refresh_history WHERE refresh_id > $last AND status = 'CRASHED' AND sqlstate = '58P90'});
wait_until($node, "SELECT count(*) = 1 FROM ($waiting) w");
for my $turn (1, 2)
{
	sql('UPDATE t SET v = v + 1');
	ok(wait_for_fresh($node, $_), "turn $turn: a suspect does not hold up $_") for @tables;
	is(sql("SELECT count(*) FROM ($waiting) w"), '1', "turn $turn: one suspect is refreshed at a time");
}
# The only one that is at work now is the one to blame.
my ($suspect, $blamed) = split /\|/, sql("SELECT unit_key, worker_pid FROM ($waiting) w");
my $name = $suspect =~ s/.*\.//r;
kill 'KILL', $blamed;
$node->poll_query_until('postgres', qq{SELECT status = 'SUSPENDED' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = '$name'})
  or fail('the suspect is suspended');
sql('UPDATE gate SET closed = false');
my $innocent = $name eq 'waits1' ? 'waits2' : 'waits1';
ok(wait_for_fresh($node, $innocent), 'the other suspect is refreshed');
wait_until($node, qq{SELECT status = 'ACTIVE' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = '$innocent'});
is(sql(q{SELECT string_agg(pgt_name, ' ') FROM pgtrickle.pgt_stream_tables WHERE status = 'SUSPENDED'}), $name, 'only one is suspended');
sql("SELECT pgtrickle.resume_stream_table('$name')");
all_right('resumed');
stream_table_is_right($node, $_, "$_ equals its query") for qw(waits1 waits2);

# --- an immediate stop, and the launcher -----------------------------------------------------

both_wait();
$last = sql('SELECT max(refresh_id) FROM pgtrickle.pgt_refresh_history');
$node->stop('immediate');
$node->start;
wait_until($node, qq{SELECT count(*) = 2 FROM pgtrickle.pgt_refresh_history WHERE refresh_id > $last AND status = 'CRASHED' AND sqlstate = '57P02'});
pass('an immediate stop makes nobody a suspect');
wait_until($node, "SELECT count(*) = 2 FROM ($waiting) w");

my $launcher = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_trickle launcher'};
my $old = sql($launcher);
sql("SELECT pg_terminate_backend($old, 5000)");
sql('UPDATE t SET v = v + 1');
ok(wait_for_fresh($node, $_), "without launcher: $_ is brought up to date") for @tables;
is(sql("SELECT count(*) FROM ($waiting) w"), '2', 'and refreshes that ran still run');
wait_until($node, "SELECT count(*) = 1 FROM ($launcher) l WHERE pid <> $old");
pass('the launcher comes back');

# --- slots -----------------------------------------------------------------------------------

# Storms of terminations: no slot is lost.
for (1 .. 10)
{
	sql('UPDATE t SET v = v + 1');
	sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_trickle worker'});
}
sql('UPDATE gate SET closed = false');
ok(wait_for_fresh($node, $_), "after a storm: $_ is brought up to date") for @tables, qw(waits1 waits2);
wait_until($node, q{SELECT bool_and(status = 'ACTIVE') FROM pgtrickle.pgt_stream_tables});
wait_until($node, q{SELECT count(*) = 0 FROM pgtrickle.worker_pool_status() w LEFT JOIN pg_stat_activity a USING (pid) WHERE a.pid IS NULL});
cmp_ok(sql('SELECT max(generation) FROM pgtrickle.worker_pool_status()'), '>', 2, 'slots are used again');
cmp_ok(sql('SELECT count(*) FROM pgtrickle.worker_pool_status()'), '<=', 4, 'there are no more than shall be');
is(sql(q{SELECT count(*) FROM pgtrickle.parallel_job_status() WHERE status IN ('QUEUED', 'RUNNING')}), '0', 'and no job is left over');

# Room for the launcher, the one of logical replication and two more: two coordinators, no worker.
set('max_worker_processes', 4);
$node->restart;
$node->safe_psql('postgres', 'CREATE DATABASE other');
sql(q{ALTER SYSTEM SET pg_trickle.max_parallel_workers = 0; SELECT pg_reload_conf()});
wait_until($node, q{SELECT count(*) = 0 FROM pgtrickle.worker_pool_status()});
$node->safe_psql('other', 'CREATE EXTENSION pg_trickle');
wait_until($node, q{SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator'});
my $log = -s $node->logfile;
sql(q{ALTER SYSTEM RESET pg_trickle.max_parallel_workers; SELECT pg_reload_conf()});
all_right('without room for workers');
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_trickle worker'}), '0', 'there is none');
is(sql(q{SELECT count(*) FROM pgtrickle.pgt_refresh_history WHERE status NOT IN ('COMPLETED', 'CRASHED', 'TERMINATED')}), '0', 'failed launches are no failures of refreshes');
$node->safe_psql('postgres', 'DROP DATABASE other');
for (1 .. $PostgreSQL::Test::Utils::timeout_default)
{
	sql('UPDATE t SET v = v + 1');
	last if sql(q{SELECT count(*) > 0 FROM pgtrickle.worker_pool_status() WHERE jobs_done > 0}) eq 't';
	select(undef, undef, undef, 1);
}
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_trickle worker'}), '1', 'one comes as soon as there is room');
all_right('with room for one worker');
my @lines = PostgreSQL::Test::Utils::slurp_file($node->logfile, $log) =~ /could not start a worker/g;
cmp_ok(scalar @lines, '<=', 3, 'the log says so once per change');

$node->stop;
done_testing();
