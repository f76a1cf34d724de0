#!/usr/bin/perl
# sched.pl: what the scheduler takes from a commit to what readers see, and while nothing
# happens; see README.md. Prints a Markdown table, one row per case.
#
#   --only PATTERN   cases whose name matches
#   --rounds N       rounds of a case (default 100; long cases 10)
#   --seconds N      of a load, and of idleness (default 60)
use strict;
use warnings;

use Cwd qw(abs_path);
use DBI;
use File::Basename qw(dirname);
use Getopt::Long;
use POSIX qw(strftime _exit);
use Time::HiRes qw(time sleep);

use lib dirname(abs_path(__FILE__)) . '/../oracle/lib';

use Oracle::Server;

my %opt = (rounds => 100, seconds => 60, only => '.');
GetOptions(\%opt, qw(only=s rounds=i seconds=i)) or exit 2;
$| = 1;
my $few = $opt{rounds} < 10 ? $opt{rounds} : 10;

my ($server, $dbh);
my @results;

my @cases = (
	[ '200 tables under load', \&under_load ],
	[ 'chain of 10', \&chain ],
	[ '3 x 20 wide', \&wide ],
	[ 'diamond of 4', \&diamond ],
	[ '200 tables, 100 changes each', \&many_changes ],
	[ '1,000 idle tables', \&idle ],
	[ 'waking', \&waking ],
	[ 'after a crash', \&crash ],
	[ 'equal tables', \&equal_tables ]);

for my $case (grep { $_->[0] =~ /$opt{only}/i } @cases)
{
	print STDERR "== $case->[0]\n";
	start_server();
	eval { $case->[1]->(); 1 } or result($case->[0], 'failed', '', ($@ =~ s/\n.*//sr));
}
report();

# --- server and measuring ----------------------------------------------------------------

sub start_server
{
	$dbh->disconnect if $dbh;
	undef $server;
	$server = Oracle::Server->start(
		preload => 1,
		settings => "fsync = on\nfull_page_writes = on\nshared_buffers = 512MB\nmax_wal_size = 8GB\nautovacuum = off\n"
		  . "checkpoint_timeout = 1h\nmax_worker_processes = 16\nlog_error_verbosity = default\nmax_locks_per_transaction = 256\n");
	$dbh = connect_server();
	run('CREATE EXTENSION pg_trickle');
}

sub connect_server
{
	return DBI->connect("dbi:Pg:dbname=postgres;host=$server->{host};port=$server->{port}", 'postgres', '',
		{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, @_ });
}

sub run
{
	local $SIG{__WARN__} = sub { };
	$dbh->do($_) for @_;
}

sub value { return ($dbh->selectrow_array($_[0]))[0] }

sub set
{
	my ($name, $value) = @_;
	run("ALTER SYSTEM SET $name = '$value'", 'SELECT pg_reload_conf()');
	wait_until("SELECT current_setting('$name') = '$value'");
}

sub set_workers { return set('pg_trickle.max_parallel_workers', $_[0]) }

# Looks again and again, without a pause of its own if there is to be none; returns when.
sub wait_until
{
	my ($query, %how) = @_;
	my $handle = $dbh->prepare($query);
	my $start = time();
	while (1)
	{
		$handle->execute;
		my ($true) = $handle->fetchrow_array;
		my $now = time();
		$handle->finish;
		return $now if $true;
		die "not true after 60 s: $query\n" if $now - $start > 60;
		sleep($how{pause} // 0.02) unless $how{spin};
	}
}

sub percentile
{
	my ($percent, @values) = @_;
	@values = sort { $a <=> $b } @values;
	return $values[ int($#values * $percent / 100 + 0.5) ];
}

sub median { return percentile(50, @_) }
sub ms { return sprintf($_[0] < 0.0995 ? '%.1f ms' : '%.0f ms', $_[0] * 1e3) }

sub stream
{
	my ($name, $query) = @_;
	run("SELECT pgtrickle.create_stream_table('$name', \$q\$$query\$q\$, schedule => 'calculated', refresh_mode => 'DIFFERENTIAL')");
}

sub is_right
{
	my ($name, $query) = @_;
	die "$name is not equal to its query\n"
	  if value("SELECT count(*) FROM ((TABLE $name EXCEPT ALL ($query)) UNION ALL (($query) EXCEPT ALL TABLE $name)) AS d");
}

# Seconds of CPU of the extension's processes.
sub extension_cpu
{
	my $pids = $dbh->selectcol_arrayref("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_trickle%'");
	my $sum = 0;
	$sum += cpu_of($_) for @$pids;
	return $sum;
}

sub cpu_of
{
	open my $stat, '<', "/proc/$_[0]/schedstat" or return 0;
	return (split ' ', <$stat>)[0] / 1e9;
}

sub result
{
	my ($name, $figure, $bar, $remark, $good) = @_;
	push @results, [ $name, $figure, $bar, defined $good ? $good ? 'met' : 'MISSED' : '', $remark ];
	print STDERR "   $figure  (bar $bar)  $remark\n";
}

# A case of seconds under a bar in seconds; the bar is one of the given percentile.
sub result_times
{
	my ($name, $bar, $percent, $remark, @times) = @_;
	my $figure = percentile($percent, @times);
	result("$name, p$percent", ms($figure), '<= ' . ms($bar),
		join('; ', 'p50 ' . ms(median(@times)) . ', p99 ' . ms(percentile(99, @times)), grep { $_ ne '' } $remark), $figure <= $bar);
}

# Commits changes, and waits until a reader sees them; seconds from commit to sight.
sub commit_to_visible
{
	my ($rounds, $change, $seen) = @_;
	my @times;
	for my $n (1 .. $rounds + 5)
	{
		run($change->($n));
		my $committed = time();
		my $visible = wait_until($seen->($n), spin => 1);
		push @times, $visible - $committed if $n > 5; # plans and workers come with the first
		sleep(0.03);
	}
	return @times;
}

# --- cases -------------------------------------------------------------------------------

sub make_sources
{
	my ($count) = @_;
	for my $i (1 .. $count)
	{
		run("CREATE TABLE src$i (id integer PRIMARY KEY, g integer, v bigint)",
			"INSERT INTO src$i SELECT i, i % 10, 0 FROM generate_series(1, 100) AS i");
		stream("st$i", "SELECT g, max(v) AS v FROM src$i GROUP BY g");
	}
}

# A process that commits 500 times a second, each time one row of one of 200 tables, through
# two connections; tells at the end how often it did.
sub start_writer
{
	my ($id, $rate, $seconds) = @_;
	pipe(my $in, my $out) or die "pipe: $!\n";
	my $pid = fork() // die "fork: $!\n";
	if (!$pid)
	{
		$dbh->{InactiveDestroy} = 1;
		my $writer = connect_server();
		my $start = time();
		my $done = 0;
		while ((my $now = time() - $start) < $seconds)
		{
			if ($done > $now * $rate)
			{
				sleep(0.0005);
				next;
			}
			my $table = 1 + int(rand(200));
			# The tables' last rows belong to the main process.
			$writer->do("UPDATE src$table SET v = -$done WHERE id = " . (1 + int(rand(90))));
			$done++;
		}
		print $out "$done\n";
		close $out;
		_exit(0);
	}
	close $out;
	return { pid => $pid, in => $in };
}

sub under_load
{
	make_sources(200);
	for my $workers (0, 2)
	{
		set_workers($workers);
		my @writers = map { start_writer($_, 250, $opt{seconds} / 2) } 1, 2;
		my $start = time();
		my @times;
		sleep(2);
		for (my $n = 1; time() - $start < $opt{seconds} / 2 - 1; $n++)
		{
			my $table = 1 + int(rand(200));
			my $mark = $workers * 1_000_000 + $n;
			run("UPDATE src$table SET v = $mark WHERE id = 95");
			my $committed = time();
			push @times, wait_until("SELECT v >= $mark FROM st$table WHERE g = 5", pause => 0.0003) - $committed;
			sleep(0.01 + rand(0.02));
		}
		my $commits = 0;
		for my $writer (@writers)
		{
			$commits += readline($writer->{in});
			waitpid($writer->{pid}, 0);
		}
		result_times("200 tables, 500 commits/s, commit to visible, $workers workers", 0.25, 99,
			sprintf('%.0f commits/s', $commits / ($opt{seconds} / 2)), @times);
	}
	wait_until('SELECT NOT EXISTS (SELECT 1 FROM pgtrickle.pg_stat_stream_tables WHERE pending_rows > 0)');
	is_right("st$_", "SELECT g, max(v) AS v FROM src$_ GROUP BY g") for 1, 100, 200;
}

# Levels that nap are not small, so each is a transaction of its own, and a job.
sub chain
{
	run('CREATE TABLE src (id integer PRIMARY KEY, v bigint)', 'INSERT INTO src SELECT i, 0 FROM generate_series(1, 10) AS i',
		q{CREATE FUNCTION nap(v bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM pg_sleep(0.001); RETURN v; END $$});
	for my $kind ([ 'in one transaction', 0, 'v', 0.002 ], [ 'split over 2 workers, each napping 1 ms', 2, 'nap(v) AS v', 0.04 ])
	{
		my ($what, $workers, $column, $bar) = @$kind;
		set_workers($workers);
		stream("c$_", "SELECT id, $column FROM " . ($_ == 1 ? 'src' : 'c' . ($_ - 1))) for 1 .. 10;
		# A new row, which the delta computes once.
		my $last = value('SELECT max(id) FROM src');
		my @times = commit_to_visible($opt{rounds}, sub { 'INSERT INTO src VALUES (' . ($last + $_[0]) . ', 1)' },
			sub { 'SELECT EXISTS (SELECT 1 FROM c10 WHERE id = ' . ($last + $_[0]) . ')' });
		my ($span, $transactions) = $dbh->selectrow_array(
			"SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY s), percentile_cont(0.5) WITHIN GROUP (ORDER BY n) FROM (
				SELECT extract(epoch FROM max(end_time) - min(start_time)) AS s, count(DISTINCT xmin::text) AS n
				FROM (SELECT *, xmin, row_number() OVER (PARTITION BY pgt_id ORDER BY refresh_id) AS nth FROM pgtrickle.pgt_refresh_history
					WHERE action = 'DIFFERENTIAL') h WHERE nth > 5 GROUP BY nth) r");
		my $naps = $workers ? ', of which 11 ms are naps' : '';
		result("chain of 10, $what, from the first to the last, p50", ms($span), '<= ' . ms($bar),
			"$transactions transactions$naps; commit to visible at the end of the chain: p50 " . ms(median(@times)) . ', p99 '
			  . ms(percentile(99, @times)), $span <= $bar);
		is_right('c10', 'TABLE src');
		run("SELECT pgtrickle.drop_stream_table('c$_')") for reverse 1 .. 10;
		run('DELETE FROM pgtrickle.pgt_refresh_history');
	}
}

sub wide
{
	run('CREATE TABLE src (id integer PRIMARY KEY, v bigint)', 'INSERT INTO src SELECT i, 0 FROM generate_series(1, 1000) AS i');
	for my $level (1 .. 3)
	{
		stream("w${level}_$_", 'SELECT id, v + 1 AS v FROM ' . ($level == 1 ? 'src' : 'w' . ($level - 1) . "_$_")) for 1 .. 20;
	}
	for my $workers (0, 2)
	{
		set_workers($workers);
		my $mark = value('SELECT max(v) FROM src');
		my @times = commit_to_visible($opt{rounds}, sub { 'UPDATE src SET v = ' . ($mark + $_[0]) . ' WHERE id <= 10' },
			sub { 'SELECT ' . join(' AND ', map { "(SELECT v FROM w3_$_ WHERE id = 10) = " . ($mark + $_[0] + 3) } 1 .. 20) });
		result_times("3 x 20 wide, 10 rows, commit to visible in all, $workers workers", 0.15, 50, '', @times);
	}
	is_right('w3_20', 'SELECT id, v + 3 AS v FROM src');
}

sub diamond
{
	run('CREATE TABLE src (id integer PRIMARY KEY, v bigint)', 'INSERT INTO src SELECT i, 0 FROM generate_series(1, 1000) AS i');
	stream('a', 'SELECT id, v FROM src');
	stream('b', 'SELECT id, v + 1 AS v FROM a');
	stream('c', 'SELECT id, v + 2 AS v FROM a');
	stream('d', 'SELECT b.id, b.v + c.v AS v FROM b JOIN c ON c.id = b.id');
	for my $workers (0, 2)
	{
		set_workers($workers);
		my $mark = value('SELECT max(v) FROM src');
		my @times = commit_to_visible($opt{rounds}, sub { 'UPDATE src SET v = ' . ($mark + $_[0]) . ' WHERE id = 1' },
			sub { 'SELECT v = ' . (2 * ($mark + $_[0]) + 3) . ' FROM d WHERE id = 1' });
		result_times("diamond of 4, 1 row, commit to visible, $workers workers", 0.025, 50, '', @times);
	}
	is_right('d', 'SELECT id, 2 * v + 3 AS v FROM src');
}

sub many_changes
{
	make_sources(200);
	for my $workers (0, 2)
	{
		set_workers($workers);
		my $mark = $workers * 1000;
		my @times = commit_to_visible($few,
			sub { 'DO $$ BEGIN FOR i IN 1 .. 200 LOOP EXECUTE format(\'UPDATE src%s SET v = ' . ($mark + $_[0]) . '\', i); END LOOP; END $$' },
			sub { 'SELECT ' . join(' AND ', map { "(SELECT min(v) FROM st$_) = " . ($mark + $_[0]) } 1 .. 200) });
		result_times("200 tables, 100 changes each, commit to visible in all, $workers workers", 0.4, 50, '', @times);
	}
}

sub idle
{
	run("CREATE TABLE src$_ (id integer PRIMARY KEY, v bigint)") for 1 .. 100;
	stream("st$_", "SELECT id, v + $_ AS v FROM src" . (1 + $_ % 100)) for 1 .. 1000;
	run('INSERT INTO src7 VALUES (1, 1)');
	wait_until('SELECT count(*) = 1 FROM st6');
	for my $workers (0, 2)
	{
		set_workers($workers);
		sleep(3);
		my $xid = value('SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint');
		my $cpu = extension_cpu();
		sleep($opt{seconds});
		$cpu = extension_cpu() - $cpu;
		$xid = value('SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint') - $xid;
		result("1,000 idle tables, $opt{seconds} s, $workers workers", sprintf('%.3f %% of a core', 100 * $cpu / $opt{seconds}),
			'<= 0.2 %, no transaction ids', "$xid transaction ids", $cpu <= 0.002 * $opt{seconds} && $xid == 0);
	}
}

# The writer's own CPU and time for a commit, in blocks that take turns: with a coordinator to
# wake and without one. The stream table is not due, so that no refresh is in the way.
sub waking
{
	run('CREATE TABLE src (id integer PRIMARY KEY, v bigint) WITH (fillfactor = 50)', 'INSERT INTO src SELECT i, 0 FROM generate_series(1, 10000) AS i');
	for my $kind ([ 'a table not due', '1h' ], [ 'a table refreshed at once', 'calculated' ])
	{
		my ($what, $schedule) = @$kind;
		my %times;
		run("SELECT pgtrickle.create_stream_table('st', 'SELECT id, v FROM src', schedule => '$schedule')");
		for my $round (1 .. $few * 2 + 2)
		{
			for my $on ($round % 2 ? (0, 1) : (1, 0))
			{
				my $coordinators = "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator')";
				run("ALTER SYSTEM SET pg_trickle.databases = '" . ($on ? 'postgres' : 'nowhere') . "'", 'SELECT pg_reload_conf()');
				wait_until("SELECT $coordinators = $on");
				run("SELECT pgtrickle.refresh_stream_table('st')", 'VACUUM src');
				sleep(0.2);
				my ($cpu, $start) = (cpu_of($dbh->{pg_pid}), time());
				my $update = $dbh->prepare('UPDATE src SET v = v + 1 WHERE id = ?');
				$update->execute(1 + int(rand(10000))) for 1 .. 1000;
				next if $round <= 2;
				push @{ $times{"cpu$on"} }, (cpu_of($dbh->{pg_pid}) - $cpu) / 1000;
				push @{ $times{"wall$on"} }, (time() - $start) / 1000;
			}
		}
		$_ = median(@$_) for values %times;
		my $wall = 100 * ($times{wall1} / $times{wall0} - 1);
		my $cpu = 100 * ($times{cpu1} / $times{cpu0} - 1);
		result("cost of waking on writers, synchronous one-row commits, $what", sprintf('%+.1f %%', $wall), '<= 2 %',
			sprintf('a commit takes %.0f us, %.0f without; CPU of the writer %.1f us, %.1f without: %+.1f %%', $times{wall1} * 1e6, $times{wall0} * 1e6,
				$times{cpu1} * 1e6, $times{cpu0} * 1e6, $cpu), $schedule eq '1h' ? $wall <= 2 : undef);
		run("SELECT pgtrickle.drop_stream_table('st')");
	}
}

sub crash
{
	my (@first, @pending);
	make_sources(20);
	for my $n (1 .. $few)
	{
		# A change that nobody has seen when the server goes down, and one after it.
		my $victim = connect_server();
		run("UPDATE src1 SET v = $n");
		kill 'KILL', $victim->{pg_pid};
		$victim->{InactiveDestroy} = 1;
		sleep(0.001) while eval { $dbh->do('SELECT 1'); 1 };
		$dbh = undef;
		sleep(0.005) until $dbh = eval { connect_server() };
		my $accepted = time();
		run("UPDATE src2 SET v = $n");
		push @first, wait_until("SELECT max(v) = $n FROM st2", pause => 0.002) - $accepted;
		push @pending, wait_until("SELECT max(v) = $n FROM st1", pause => 0.002) - $accepted;
	}
	result_times('first refresh after a crash, from the first connection', 3, 50,
		'what was committed just before the crash: p50 ' . ms(median(@pending)), @first);
}

# From the begin of the first of 50 refreshes to the end of the last one, by the history.
sub makespan
{
	my ($workers) = @_;
	my @times;
	set_workers($workers);
	for my $n (0 .. 5)
	{
		my $before = value('SELECT coalesce(max(refresh_id), 0) FROM pgtrickle.pgt_refresh_history');
		my $of = "FROM pgtrickle.pgt_refresh_history WHERE refresh_id > $before AND status = 'COMPLETED' AND action = 'DIFFERENTIAL'";
		run('UPDATE src SET v = v + 1');
		wait_until("SELECT count(DISTINCT pgt_id) = 50 $of", pause => 0.05);
		push @times, value("SELECT extract(epoch FROM max(end_time) - min(start_time)) $of") if $n > 0;
	}
	return median(@times);
}

sub equal_tables
{
	for my $kind ([ 'burn', 'compute for 20 ms', 2, 1.8, 'count(*) FROM generate_series(1, 100000)' ],
		[ 'nap', 'wait for 50 ms', 8, 6, 'pg_sleep(0.05)' ])
	{
		my ($name, $what, $workers, $bar, $body) = @$kind;
		run("CREATE FUNCTION $name(v integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS \$\$ BEGIN PERFORM $body; RETURN v; END \$\$",
			'CREATE TABLE src (id integer PRIMARY KEY, v integer)', 'INSERT INTO src VALUES (1, 0)');
		stream("w$_", "SELECT id, $name(v) AS v FROM src") for 1 .. 50;
		my $serial = makespan(0);
		my $parallel = makespan($workers);
		is_right("w$_", 'SELECT id, v FROM src') for 1, 50;
		result("50 equal tables that $what, $workers workers", sprintf('%.2f x serial', $serial / $parallel), ">= $bar x",
			ms($parallel) . ', serial ' . ms($serial), $serial / $parallel >= $bar);
		run("SELECT pgtrickle.drop_stream_table('w$_')") for 1 .. 50;
		run('DROP TABLE src');
	}
}

# --- the report --------------------------------------------------------------------------

sub report
{
	my $info = do { open my $f, '<', '/proc/cpuinfo' or die "cpuinfo: $!\n"; local $/; <$f> };
	my ($cpu) = $info =~ /^model name\s*:\s*(.*?)\s*$/m;
	my $cores = () = $info =~ /^processor/mg;
	my ($load) = split ' ', do { open my $f, '<', '/proc/loadavg' or die "loadavg: $!\n"; <$f> };

	print '# The scheduler: pg_trickle ' . value(q{SELECT extversion FROM pg_extension WHERE extname = 'pg_trickle'}) . ' on PostgreSQL '
	  . value('SHOW server_version') . "\n\n";
	print '`make -s bench-sched` on ' . strftime('%Y-%m-%d', gmtime) . ': ' . ($cpu // 'unknown') . ", $cores cores, fsync on, load average $load at the end.\n\n";
	print "| case | measured | bar | | remarks |\n|---|---|---|---|---|\n";
	print '| ' . join(' | ', @$_) . " |\n" for @results;
}
