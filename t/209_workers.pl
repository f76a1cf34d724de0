# Workers: the same contents with and without them, diamonds under load, and what follows when a
# worker, the coordinator, another process or the server ends in the middle of a refresh.
use strict;
use warnings;

use IPC::Run;
use Test::More;
use Time::HiRes qw(time);

use PgTrickle;

my $node = PgTrickle->new_node(
	'workers',
	settings => "restart_after_crash = on\n"
	  . "pg_trickle.scheduler_interval_ms = '1s'\n"
	  . "pg_trickle.volatile_function_policy = 'allow'\n"
	  . "autovacuum = off\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

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

sub write_script
{
	my ($name, $text) = @_;
	my $path = $node->basedir . "/$name.sql";

	open(my $file, '>', $path) or die $!;
	print $file $text;
	close $file;
	return $path;
}

# --- many tables, under load -----------------------------------------------------------------

my @tables = ((map { "agg$_" } 1 .. 8), qw(left_branch right_branch meet chain1 chain2 chain3));

sql(q{
	CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, v int NOT NULL);
	INSERT INTO t SELECT i, i % 10, i FROM generate_series(1, 200) i;
	SELECT pgtrickle.create_stream_table('agg' || i, format('SELECT k, count(*) AS n, sum(v + %s) AS v FROM t GROUP BY k', i), schedule => '100ms')
	FROM generate_series(1, 8) i;
	SELECT pgtrickle.create_stream_table('left_branch', 'SELECT id, v FROM t');
	SELECT pgtrickle.create_stream_table('right_branch', 'SELECT id, 2 * v AS w FROM t');
	SELECT pgtrickle.create_stream_table('meet', 'SELECT l.id, v, w FROM left_branch l JOIN right_branch r ON r.id = l.id', schedule => '100ms');
	SELECT pgtrickle.create_stream_table('chain1', 'SELECT k, sum(v) AS v FROM t GROUP BY k');
	SELECT pgtrickle.create_stream_table('chain2', 'SELECT k % 3 AS k, sum(v) AS v FROM chain1 GROUP BY k % 3');
	SELECT pgtrickle.create_stream_table('chain3', 'SELECT sum(v) AS v FROM chain2', schedule => '100ms');});

my $load = write_script('load',
	"\\set id random(1, 200)\n\\set k random(0, 9)\n"
	  . "UPDATE t SET v = v + 1, k = :k WHERE id = :id;\n"
	  . "BEGIN; DELETE FROM t WHERE id = 1000 + :id; INSERT INTO t VALUES (1000 + :id, :k, :id) ON CONFLICT DO NOTHING; COMMIT;\n");
# An error if a snapshot shows the table where branches meet wrong; for atomic ones also if it shows the branches apart.
my $wrong_meet = 'SELECT id, v, w FROM meet WHERE w IS DISTINCT FROM 2 * v';
my %reader = (
	aligned => write_script('reader', "SELECT 1 / (count(*) = 0)::int FROM ($wrong_meet) d;\n"),
	atomic => write_script('atomic_reader',
		"SELECT 1 / (count(*) = 0)::int FROM ((TABLE meet EXCEPT SELECT l.id, v, w FROM left_branch l JOIN right_branch r ON r.id = l.id)\n"
		  . "	UNION ALL ($wrong_meet)\n"
		  . "	UNION ALL (SELECT l.id, v, w FROM left_branch l FULL JOIN right_branch r ON r.id = l.id WHERE w IS DISTINCT FROM 2 * v)) d;\n"));

sub run_load
{
	my ($workers, $consistency) = @_;
	my $refreshes = sql('SELECT count(*) FROM pgtrickle.pgt_refresh_history');
	my $writers = IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-T', 5, '-f', $load, $node->connstr('postgres') ],
		'>', \my $out, '2>', \my $err);
	my $readers = IPC::Run::start([ 'pgbench', '-n', '-c', '1', '-T', 5, '-f', $reader{$consistency}, $node->connstr('postgres') ],
		'>', \my $seen, '2>', \my $wrong);

	$writers->finish;
	$readers->finish;
	unlike($wrong, qr/division by zero/, "$workers workers: no snapshot shows the branches of a diamond apart, $consistency");
	like($seen, qr/number of transactions actually processed: [1-9]\d+/, "$workers workers: of many");
	ok(wait_for_fresh($node, $_), "$workers workers: $_ is brought up to date") for @tables;
	stream_table_is_right($node, $_, "$workers workers: $_ equals its query") for @tables;
	cmp_ok(sql('SELECT count(*) FROM pgtrickle.pgt_refresh_history') - $refreshes, '>', 50, "$workers workers: by many refreshes");
	is(sql(q{SELECT string_agg(status || ' ' || coalesce(error_message, ''), ', ') FROM pgtrickle.pgt_refresh_history WHERE status <> 'COMPLETED'}),
		'', "$workers workers: without any failure");
	return;
}

for my $workers (0, 1, 4)
{
	set('pg_trickle.max_parallel_workers', $workers);
	run_load($workers, 'aligned');
}
sql(q{SELECT pgtrickle.alter_stream_table('meet', diamond_consistency => 'atomic')});
run_load(4, 'atomic');
cmp_ok(sql('SELECT count(DISTINCT worker_pid) FROM pgtrickle.pgt_refresh_history'), '>=', 4, 'several processes refreshed');
cmp_ok(sql(q{SELECT count(*) FROM pgtrickle.worker_pool_status() WHERE database = 'postgres' AND jobs_done > 0}), '>=', 2, 'the pool is shown');
is(sql(q{SELECT count(*) = 4 FROM pgtrickle.worker_pool_status() w JOIN pg_stat_activity a USING (pid) WHERE backend_type = 'pg_trickle worker'}),
	't', 'and is there');
cmp_ok(sql(q{SELECT count(*) FROM pgtrickle.parallel_job_status() WHERE status = 'COMPLETED' AND unit_kind = 'GROUP' AND unit_key ~ 'left_branch.*meet'}),
	'>', 0, 'a diamond was one job');
is(sql(q{SELECT count(*) FROM pgtrickle.parallel_job_status(0) WHERE status = 'COMPLETED' AND finished_at < now() - interval '2s'}), '0', 'old jobs are left out');
like(error_of($node, 'SELECT pgtrickle.parallel_job_status(-1)'), qr/22023/, 'a negative age is an error');

# Branches of an aligned diamond are refreshed at the same time, those of an atomic one are not.
sql(q{
	CREATE TABLE b (id int PRIMARY KEY, v int);
	CREATE FUNCTION wait_at(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		WHILE v = -1 AND NOT pg_try_advisory_xact_lock_shared(4711) LOOP PERFORM pg_sleep(0.01); END LOOP;
		RETURN v;
	END $$;
	SELECT pgtrickle.create_stream_table('upper', 'SELECT id, wait_at(v) AS v FROM b');
	SELECT pgtrickle.create_stream_table('lower', 'SELECT id, wait_at(v) + 1 AS w FROM b');
	SELECT pgtrickle.create_stream_table('both', 'SELECT id, v, w FROM upper JOIN lower USING (id)', schedule => '100ms')});
my $gate = session($node);
my $running = q{FROM pgtrickle.parallel_job_status() WHERE status = 'RUNNING' AND unit_key ~ 'upper|lower|both'};
$gate->query_safe('SELECT pg_advisory_lock(4711)');
sql('INSERT INTO b VALUES (1, -1)');
ok(wait_until($node, "SELECT count(*) = 2 $running"), 'the branches of an aligned diamond are refreshed at the same time');
is(sql("SELECT string_agg(unit_kind, ',') $running"), 'STREAM_TABLE,STREAM_TABLE', 'each by itself');
$gate->query_safe('SELECT pg_advisory_unlock(4711)');
ok(wait_for_fresh($node, 'both'), 'then where they meet');
stream_table_is_right($node, $_) for qw(upper lower both);
sql(q{SELECT pgtrickle.alter_stream_table('both', diamond_consistency => 'atomic')});
$gate->query_safe('SELECT pg_advisory_lock(4711)');
sql('INSERT INTO b VALUES (2, -1)');
ok(wait_until($node, "SELECT count(*) = 1 $running"), 'those of an atomic one are not');
is(sql("SELECT string_agg(unit_kind, ',') $running"), 'GROUP', 'but with the rest');
$gate->query_safe('SELECT pg_advisory_unlock(4711)');
$gate->quit;
ok(wait_for_fresh($node, 'both'), 'and so is where they meet');
stream_table_is_right($node, $_) for qw(upper lower both);
sql(q{SELECT pgtrickle.drop_stream_table(t) FROM unnest(ARRAY['both', 'upper', 'lower']) t});

set('pg_trickle.max_parallel_workers', 2);
wait_until($node, q{SELECT count(*) = 2 FROM pgtrickle.worker_pool_status()});
pass('with a lower limit workers leave');
set('pg_trickle.max_parallel_workers', 0);
wait_until($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pg_trickle worker'});
pass('without workers all do');

# --- what ends in the middle of a refresh ----------------------------------------------------

# A refresh that waits while a test wants it, and one that kills its process.
sql(q{
	SELECT pgtrickle.drop_stream_table('agg' || i) FROM generate_series(3, 8) i;
	CREATE TABLE gate (closed bool); INSERT INTO gate VALUES (false);
	CREATE FUNCTION slow(v int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
	BEGIN
		IF v = -1 AND (SELECT bool_or(closed) FROM public.gate) THEN PERFORM pg_sleep(600); END IF;
		RETURN v;
	END $$;
	CREATE FUNCTION poison(v int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
	BEGIN
		IF v = -2 THEN COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'; END IF;
		RETURN v;
	END $$;
	CREATE TABLE s (v int);
	INSERT INTO s VALUES (1);
	SELECT pgtrickle.create_stream_table('waits', 'SELECT slow(v) AS v FROM s', schedule => '1s');
	CREATE TABLE p (v int);
	INSERT INTO p VALUES (1);
	SELECT pgtrickle.create_stream_table('poisoned', 'SELECT poison(v) AS v FROM p', schedule => '1s');
	INSERT INTO s VALUES (-1)});

my $refreshing = q{SELECT pid FROM pg_stat_activity WHERE backend_type IN ('pg_trickle worker', 'pg_trickle coordinator') AND wait_event = 'PgSleep'};
my $last_id;

sub state_of
{
	return sql(qq{SELECT status || ' ' || consecutive_errors FROM pgtrickle.pgt_stream_tables WHERE pgt_name = '$_[0]'});
}

# What the history says of a table since the last call.
sub is_recorded
{
	my ($table, $expected, $test) = @_;
	my $query = qq{SELECT coalesce(string_agg(DISTINCT h.status || ' ' || coalesce(h.sqlstate, ''), ', '), '') FROM pgtrickle.pgt_refresh_history h
		JOIN pgtrickle.pgt_stream_tables s USING (pgt_id) WHERE pgt_name = '$table' AND h.status <> 'COMPLETED' AND refresh_id > $last_id};

	wait_until($node, "SELECT ($query) = '$expected'") or diag(sql($query));
	return is(sql($query), $expected, $test);
}

# The process that is in the middle of the refresh.
sub wait_in_refresh
{
	$last_id = sql('SELECT max(refresh_id) FROM pgtrickle.pgt_refresh_history');
	sql('UPDATE gate SET closed = true');
	wait_until($node, "SELECT count(*) = 1 FROM ($refreshing) r");
	# This one waits; the next one, which may begin at once, shall not.
	sql('UPDATE gate SET closed = false');
	return sql($refreshing);
}

sub everything_goes_on
{
	my ($when) = @_;

	sql('UPDATE t SET v = v + 1');
	ok(wait_for_fresh($node, $_), "$when: $_ is brought up to date") for qw(agg1 meet chain3);
	return;
}

sub is_over
{
	my ($when) = @_;

	wait_until_up($node);
	everything_goes_on($when);
	wait_until($node, q{SELECT status = 'ACTIVE' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'waits'});
	is(state_of('waits'), 'ACTIVE 0', "$when: it is refreshed again");
	return;
}

for my $workers (0, 4)
{
	my $with = "$workers workers";

	set('pg_trickle.max_parallel_workers', $workers);
	wait_until($node, qq{SELECT (current_setting('pg_trickle.max_parallel_workers')) = '$workers'});

	my $pid = wait_in_refresh();
	everything_goes_on("$with, one is in a long refresh") if $workers;
	sql("SELECT pg_terminate_backend($pid)");
	is_recorded('waits', 'TERMINATED 57P01', "$with: a terminated refresh is recorded");
	is_over("$with, terminated");

	$pid = wait_in_refresh();
	my $other = session($node);
	kill 'KILL', $other->query_safe('SELECT pg_backend_pid()');
	wait_until_up($node);
	is_recorded('waits', 'CRASHED 57P02', "$with: a crash of another process is no suspicion");
	is_over("$with, another process crashed");

	$pid = wait_in_refresh();
	kill 'KILL', $pid;
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid") or die 'the server does not come back';
	is_recorded('waits', 'CRASHED 58P90', "$with: a crash of its process is");
	is_over("$with, its process was killed");

	if ($workers)
	{
		wait_in_refresh();
		my $start = time;
		sql(q{SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator'});
		everything_goes_on("$with, the coordinator was terminated");
		cmp_ok(time - $start, '<', 5, sprintf('it is replaced within %.1f s', time - $start));
		is(sql("SELECT count(*) FROM ($refreshing) r"), '1', 'and the refresh that ran still runs');
		sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_trickle worker' AND wait_event = 'PgSleep'});
		is_recorded('waits', 'CANCELLED 57014', 'the new coordinator gets its result');
		sql(q{SELECT pgtrickle.refresh_stream_table('waits')});
		is_over("$with, the coordinator was replaced");
	}

	wait_in_refresh();
	$node->stop('fast');
	$node->start;
	is_recorded('waits', 'INTERRUPTED 57P01', "$with: a refresh that a shutdown ended is recorded");
	is_over("$with, shut down");

	$last_id = sql('SELECT max(refresh_id) FROM pgtrickle.pgt_refresh_history');
	sql('INSERT INTO p VALUES (-2)');
	$node->poll_query_until('postgres', q{SELECT status = 'SUSPENDED' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'poisoned'})
	  or fail('the poisoned table is suspended');
	is(sql(q{SELECT count(*) FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables s USING (pgt_id)
		WHERE pgt_name = 'poisoned' AND h.status = 'CRASHED' AND sqlstate = '58P90' AND refresh_id > } . $last_id),
		'2', "$with: a query that crashes the server twice is suspended");
	like(sql(q{SELECT suspended_reason FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'poisoned'}), qr/crashed twice/, "$with: and says why");
	is_over("$with, poisoned");
	is(sql(q{SELECT string_agg(pgt_name, ' ') FROM pgtrickle.pgt_stream_tables WHERE status = 'SUSPENDED'}), 'poisoned', "$with: no other is");
	sql(q{DELETE FROM p WHERE v = -2; SELECT pgtrickle.resume_stream_table('poisoned')});
	wait_until($node, q{SELECT status = 'ACTIVE' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'poisoned'});
	stream_table_is_right($node, 'poisoned', "$with: resumed, it goes on");
}

# --- no room for workers ---------------------------------------------------------------------

my $missing = 'could not start a worker';
set('pg_trickle.max_parallel_workers', 8);
$node->append_conf('postgresql.conf', "max_worker_processes = 3\n");
$node->restart;
everything_goes_on('without room for workers');
sql('INSERT INTO s VALUES (2)');
wait_for_fresh($node, 'waits');
everything_goes_on('later');
is(log_lines($missing), 1, 'one line in the log says so');
is(sql(q{SELECT count(*) FROM pgtrickle.worker_pool_status() WHERE state <> 'STARTING'}), '0', 'there is none');
$node->append_conf('postgresql.conf', "max_worker_processes = 16\n");
$node->restart;
everything_goes_on('with room for workers');
is(log_lines($missing), 1, 'no more lines');

$node->stop;
done_testing();
