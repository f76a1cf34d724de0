#!/usr/bin/perl
# memory.pl: does a refresh stay within work_mem however much has changed, does a session stay as
# it is over many refreshes, and a walsender over many rows and changes of tables? Prints Markdown;
# exit status 1 if a bar is missed.
#
#   --rows N       rows changed at once (default 5000000)
#   --refreshes N  of each stream table (default 1000)
#   --decoded N    rows decoded (default 10000000)
#   --shapes N     changes of a table that is decoded (default 10000)
#   --only X       large, session, scheduler or walsender
#
# Private memory is what /proc/PID/smaps_rollup calls Anonymous: pages that no other process
# shares, so without shared buffers.
use strict;
use warnings;

use Cwd qw(abs_path);
use DBI;
use File::Basename qw(dirname);
use Getopt::Long;
use POSIX qw(strftime);
use Time::HiRes qw(time sleep);

use lib dirname(abs_path(__FILE__)) . '/../oracle/lib';

use Oracle::Server;

my %opt = (rows => 5_000_000, refreshes => 1000, decoded => 10_000_000, shapes => 10_000, only => '.');
GetOptions(\%opt, qw(rows=i refreshes=i decoded=i shapes=i only=s)) or exit 2;
$| = 1;

my $failed = 0;
my $server = Oracle::Server->start(
	preload => 1,
	plugins => 'pg_trickle_decoder',
	settings => "shared_buffers = 1GB\nmax_wal_size = 8GB\ncheckpoint_timeout = 1h\nautovacuum_naptime = 1min\n"
	  . "log_error_verbosity = default\n");
my $dbh = connect_server();

run('CREATE EXTENSION pg_trickle');
head();
large() if 'large' =~ /$opt{only}/;
many('session') if 'session' =~ /$opt{only}/;
many('scheduler') if 'scheduler' =~ /$opt{only}/;
walsender() if 'walsender' =~ /$opt{only}/;
exit($failed ? 1 : 0);

# --- server and measuring ----------------------------------------------------------------

sub connect_server
{
	return DBI->connect("dbi:Pg:dbname=postgres;host=$server->{host};port=$server->{port}", 'postgres', '',
		{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_server_prepare => 0 });
}

sub run { $dbh->do($_) for @_ }
sub value { return ($dbh->selectrow_array($_[0]))[0] }

# In kB; 0 if the process has ended.
sub private_memory
{
	my ($pid) = @_;
	open my $in, '<', "/proc/$pid/smaps_rollup" or return 0;
	local $/;
	my ($kb) = (<$in> // '') =~ /^Anonymous:\s+(\d+) kB/m;
	return $kb || 0;
}

sub mb { return sprintf('%.0f', $_[0] / 1024) }

# Runs it in a session; seconds, most private memory while it ran (kB), MB of temporary files.
sub watched
{
	my ($session, $sql) = @_;
	my $peak = 0;

	flush($session);
	my $before = temp_bytes();
	my $start = time();
	$session->do($sql, { pg_async => 1 });
	while (!$session->pg_ready)
	{
		my $now = private_memory($session->{pg_pid});
		$peak = $now if $now > $peak;
		sleep(0.02);
	}
	$session->pg_result;
	my $seconds = time() - $start;
	flush($session);
	return ($seconds, $peak, (temp_bytes() - $before) / 1048576);
}

sub flush { $_[0]->do('SELECT pg_stat_force_next_flush()'); $_[0]->do('SELECT 1') }

sub temp_bytes
{
	return value('SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()');
}

# Both ways, as multisets.
sub differences
{
	my ($st, $query) = @_;
	return value("SELECT count(*) FROM ((TABLE $st EXCEPT ALL ($query)) UNION ALL (($query) EXCEPT ALL TABLE $st)) AS d");
}

sub head
{
	my ($cpu) = grep { /^model name/ } do { open my $f, '<', '/proc/cpuinfo'; <$f> };
	my $cores = () = do { open my $f, '<', '/proc/cpuinfo'; my $t = join('', <$f>); $t =~ /^processor/mg };

	$cpu = ($cpu || 'unknown') =~ s/.*:\s*//r =~ s/\s+\z//r;
	printf "# Memory\n\n`make -s bench-memory` on %s: pg_trickle %s, PostgreSQL %s; %s, %d cores.\n",
	  strftime('%Y-%m-%d', gmtime), value(q{SELECT extversion FROM pg_extension WHERE extname = 'pg_trickle'}),
	  value('SHOW server_version'), $cpu, $cores;
	print "Private memory: \"Anonymous\" of /proc/PID/smaps_rollup.\n";
}

# --- many rows at once -------------------------------------------------------------------

# The bar is relative: with the same work_mem, five times the rows may not take more memory
# (but for a tenth, and what the allocator rounds), and with less work_mem they take less.
sub large
{
	my @runs = ([ '64MB', int($opt{rows} / 5) ], [ '64MB', $opt{rows} ], [ '16MB', $opt{rows} ]);
	my %peak;

	print "\n## Many rows in one transaction\n\n"
	  . "A stream table over three joined tables, grouped. All rows of the large one are updated, so that their groups change, then\n"
	  . "one DIFFERENTIAL refresh. hash_mem_multiplier is 2, so each hash table may take twice work_mem; no parallel workers.\n\n"
	  . "| work_mem | rows changed | step | seconds | private memory before, MB | at most, MB | temporary files, MB | differences |\n"
	  . "|---|--:|---|--:|--:|--:|--:|--:|\n";
	for my $run (@runs)
	{
		my ($work_mem, $rows) = @$run;
		$peak{"$work_mem $rows"} = large_once($work_mem, $rows);
	}
	my ($small, $big, $less) = map { $peak{"$_->[0] $_->[1]"} } @runs;
	bar('five times the rows take no more memory', $big <= $small * 1.1 + 16384);
	bar('a quarter of work_mem takes less memory', $less < $big);
	bar('at most eight times work_mem', $big <= 8 * 65536 && $less <= 8 * 16384 + 32768);
}

sub bar
{
	my ($what, $kept) = @_;

	print "\n$what: ", ($kept ? 'yes' : '**no**'), "\n";
	$failed = 1 unless $kept;
}

sub large_once
{
	my ($work_mem, $rows) = @_;
	my $query = 'SELECT p.kind, c.region, count(*) AS n, sum(s.amount) AS amount FROM sale AS s JOIN product AS p ON p.id = s.product'
	  . ' JOIN customer AS c ON c.id = s.customer GROUP BY p.kind, c.region';

	run('DROP TABLE IF EXISTS sale, product, customer CASCADE',
		'CREATE TABLE product (id integer PRIMARY KEY, kind integer)',
		'CREATE TABLE customer (id integer PRIMARY KEY, region integer)',
		'CREATE TABLE sale (id integer PRIMARY KEY, product integer, customer integer, amount bigint)',
		'INSERT INTO product SELECT i, i % 1000 FROM generate_series(1, 200000) AS i',
		'INSERT INTO customer SELECT i, i % 500 FROM generate_series(1, 300000) AS i',
		"INSERT INTO sale SELECT i, 1 + i % 200000, 1 + i % 300000, i % 1000 FROM generate_series(1, $rows) AS i",
		'ANALYZE', "SELECT pgtrickle.create_stream_table('totals', '$query', schedule => '1d', refresh_mode => 'DIFFERENTIAL')");
	my @steps = (
		[ 'UPDATE, captured', 'UPDATE sale SET product = 1 + product % 200000, amount = amount + 1' ],
		[ 'refresh', q{SELECT pgtrickle.refresh_stream_table('totals', 'DIFFERENTIAL')} ]);
	my $most = 0;
	for my $step (@steps)
	{
		my $session = connect_server();
		$session->do($_) for "SET work_mem = '$work_mem'", 'SET max_parallel_workers_per_gather = 0',
		  'SET pg_trickle.differential_max_change_ratio = 1';
		my $before = private_memory($session->{pg_pid});
		my ($seconds, $peak, $temp) = watched($session, $step->[1]);
		my $is_refresh = $step->[0] eq 'refresh';

		$most = $peak if $peak > $most;
		printf "| %s | %d | %s | %.1f | %s | %s | %.0f | %s |\n", $work_mem, $rows, $step->[0], $seconds, mb($before), mb($peak), $temp,
		  $is_refresh ? differences('totals', $query) : '';
		$session->disconnect;
	}
	my $action = value(q{SELECT action FROM pgtrickle.get_refresh_history('totals', 1)});
	bar("the refresh went by a delta ($action)", 0) if $action ne 'DIFFERENTIAL';
	bar('the rows are right', 0) if differences('totals', $query);
	run(q{SELECT pgtrickle.drop_stream_table('totals')}, 'DROP TABLE sale, product, customer');
	return $most;
}

# --- many refreshes ----------------------------------------------------------------------

sub queries
{
	return (
		join_rows => 'SELECT s.id, s.v, d.name FROM s JOIN d ON d.id = s.d',
		outer_join => 'SELECT d.id, s.id AS s, s.v FROM d LEFT JOIN s ON s.d = d.id AND s.v > 500',
		grouped => 'SELECT d, count(*) AS n, sum(v) AS v, max(v) AS most FROM s GROUP BY d',
		group_of_join => 'SELECT d.name, count(*) AS n, array_agg(s.v ORDER BY s.v) AS vs FROM s JOIN d ON d.id = s.d GROUP BY d.name',
		windowed => 'SELECT id, d, row_number() OVER (PARTITION BY d ORDER BY v, id) AS n, sum(v) OVER (PARTITION BY d) AS v FROM s',
		top => 'SELECT id, v FROM s ORDER BY v DESC, id LIMIT 20',
		exists_in => 'SELECT id, name FROM d WHERE EXISTS (SELECT FROM s WHERE s.d = d.id AND s.v > 900)',
		not_in => 'SELECT id FROM s WHERE d NOT IN (SELECT id FROM d WHERE name < \'n5\')',
		scalar => 'SELECT d.id, (SELECT max(v) FROM s WHERE s.d = d.id) AS most, (SELECT avg(v) FROM s) AS mean FROM d',
		lateral_top => 'SELECT d.id, t.v FROM d CROSS JOIN LATERAL (SELECT v FROM s WHERE s.d = d.id ORDER BY v DESC, s.id LIMIT 2) AS t',
		distinct_on => 'SELECT DISTINCT ON (d) d, id, v FROM s ORDER BY d, v, id',
		set_operation => 'SELECT d AS x FROM s EXCEPT SELECT id FROM d WHERE id % 3 = 0',
		recursion => 'WITH RECURSIVE r AS (SELECT id, 0 AS depth FROM tree WHERE parent IS NULL UNION ALL SELECT t.id, depth + 1 FROM tree AS t JOIN r ON t.parent = r.id) SELECT depth, count(*) AS n FROM r GROUP BY depth',
		not_stored => 'SELECT d.name, g.n FROM d JOIN (SELECT d, count(*) AS n, sum(v) AS v FROM s GROUP BY d) AS g ON g.d = d.id WHERE g.v > 100',
		downstream => 'SELECT n, count(*) AS groups FROM grouped GROUP BY n',
		recomputed => 'SELECT d, stddev(v) AS v FROM s WHERE now() > \'2000-01-01\' GROUP BY d');
}

sub many
{
	my ($how) = @_;
	my %query = queries();
	my @names = sort { ($a eq 'downstream') <=> ($b eq 'downstream') || $a cmp $b } keys %query;
	my @samples = map { int($opt{refreshes} * $_) } 0.1, 0.25, 0.5, 0.75, 1;
	my $schedule = $how eq 'session' ? q{'1d'} : q{'calculated'};

	run('CREATE TABLE d (id integer PRIMARY KEY, name text)',
		'CREATE TABLE s (id integer PRIMARY KEY, d integer NOT NULL, v integer)',
		'CREATE TABLE tree (id integer PRIMARY KEY, parent integer)',
		'INSERT INTO d SELECT i, \'n\' || i FROM generate_series(0, 99) AS i',
		'INSERT INTO s SELECT i, i % 100, i * 7 % 1000 FROM generate_series(1, 5000) AS i',
		'INSERT INTO tree SELECT i, nullif(i / 3, 0) FROM generate_series(1, 500) AS i',
		'CREATE INDEX ON s (d)', 'CREATE INDEX ON tree (parent)', 'ANALYZE');
	for my $name (@names)
	{
		run('SET pg_trickle.max_stage_rows = ' . ($name eq 'not_stored' ? 0 : -1),
			"SELECT pgtrickle.create_stream_table('$name', '" . ($query{$name} =~ s/'/''/gr) . "', schedule => $schedule, refresh_mode => '"
			  . ($name eq 'recomputed' ? 'FULL' : 'DIFFERENTIAL') . q{')});
	}
	my $session = connect_server();
	my $worker = $how eq 'session' ? sub { $session->{pg_pid} } : \&busiest_worker;
	my (@memory, $n);
	my $start = time();

	$session->do('SET pg_trickle.differential_max_change_ratio = 1');
	for my $round (1 .. $opt{refreshes})
	{
		change($round);
		$how eq 'session' ? refresh_all($session, \@names) : wait_for_all();
		push @memory, private_memory($worker->()) if grep { $_ == $round } @samples;
	}
	my $wrong = join ', ', grep { differences($_, $query{$_}) } @names;
	my $actions = $dbh->selectall_arrayref('SELECT action, count(*) FROM pgtrickle.pgt_refresh_history GROUP BY 1 ORDER BY 1');

	printf "\n## %s refreshes of each of %d stream tables, by %s\n\n", $opt{refreshes}, scalar @names,
	  $how eq 'session' ? 'one session' : 'the scheduler';
	print join(', ', @names), ".\n\n";
	printf "In %.0f s; refreshes in the history: %s. Stream tables that differ from their query: %s.\n\n", time() - $start,
	  join(', ', map { "$_->[1] $_->[0]" } @$actions), $wrong || 'none';
	print '| after refresh | ' . join(' | ', @samples) . " |\n|---|" . '--:|' x @samples . "\n";
	print '| private memory, kB | ' . join(' | ', @memory) . " |\n";
	bar('from the middle to the end, growth of less than 2 %', $memory[-1] <= $memory[2] * 1.02);
	bar('all rows are right', 0) if $wrong;
	$session->disconnect;
	run("SELECT pgtrickle.drop_stream_table('$_')") for reverse @names;
	run('DROP TABLE s, d, tree');
}

sub refresh_all
{
	my ($session, $names) = @_;
	$session->do("SELECT pgtrickle.refresh_stream_table('$_')") for @$names;
}

# A few rows of every table, some in, some out.
sub change
{
	my ($round) = @_;
	my $id = 5000 + $round;

	$dbh->begin_work;
	run("INSERT INTO s VALUES ($id, $round % 97, $round * 13 % 1000)", 'DELETE FROM s WHERE id = ' . ($round <= 5000 ? $round : $id - 1),
		"UPDATE s SET v = v + 1, d = (d + 1) % 100 WHERE id IN ($id, $id - 1, $id - 2)",
		"UPDATE d SET name = 'n' || ($round * 3 % 10) || id WHERE id = $round % 100",
		"UPDATE tree SET parent = 1 + $round % 3 WHERE id = 450 + $round % 50");
	$dbh->commit;
}

# Until nothing that was committed is pending.
sub wait_for_all
{
	my $deadline = time() + 60;

	while (value(q{SELECT count(*) FROM pgtrickle.pgt_status() WHERE staleness > '0'}))
	{
		die "the scheduler does not get on\n" if time() > $deadline;
		sleep(0.002);
	}
}

# Of the scheduler's processes in this database, the one with most memory.
sub busiest_worker
{
	my @pids = @{ $dbh->selectcol_arrayref(
			q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_trickle%' AND datname = current_database()}) };
	my ($most) = sort { private_memory($b) <=> private_memory($a) } @pids;

	return $most;
}

# --- decoding ----------------------------------------------------------------------------

sub walsender
{
	my @formats = ([ 'JSON' ], [ 'JSON in batches', '-o', 'batch_bytes=65536' ], [ 'binary in batches', '-o', 'format=binary', '-o', 'batch_bytes=65536' ]);
	my $each = 10_000;

	run('CREATE TABLE decoded (id bigint PRIMARY KEY, name text, amount numeric(12,2), at timestamptz)', 'ALTER TABLE decoded REPLICA IDENTITY FULL');
	make_slot('rows');
	for (my $from = 1; $from <= $opt{decoded} / 2; $from += $each)
	{
		run("INSERT INTO decoded SELECT i, 'name ' || i, i / 7.0, now() FROM generate_series($from, $from + $each - 1) i");
		run("UPDATE decoded SET amount = amount + 1 WHERE id BETWEEN $from AND $from + $each - 1");
	}
	print "\n## $opt{decoded} rows decoded\n\nHalf of them inserted, half updated, 10,000 in a transaction. Private memory of the walsender, kB, when so much of the WAL is through.\n\n";
	follow('rows', @formats);
	make_slot('shapes');
	run('CREATE TABLE shaped (id bigint, c0 text)');
	for my $i (1 .. $opt{shapes})
	{
		my $before = $i - 1;
		run("ALTER TABLE shaped RENAME c$before TO c$i; INSERT INTO shaped VALUES ($i, 'x'), ($i, 'y')");
	}
	print "\n## $opt{shapes} changes of a table\n\nA column is renamed, then two rows are inserted, in a transaction each.\n\n";
	follow('shapes', @formats);
}

sub make_slot { $dbh->selectall_arrayref('SELECT pg_create_logical_replication_slot(?, ?)', undef, $_[0], 'pg_trickle_decoder') }

# The slot once in each format, from copies of it.
sub follow
{
	my ($slot, @formats) = @_;
	my ($start, $end) = $dbh->selectrow_array('SELECT confirmed_flush_lsn, pg_current_wal_insert_lsn() FROM pg_replication_slots WHERE slot_name = ?', undef, $slot);
	my @parts = map { $_ / 10 } 1 .. 9;
	my @points = map { value("SELECT '$start'::pg_lsn + (('$end'::pg_lsn - '$start'::pg_lsn) * $_)::numeric") } @parts;
	my $grown = 0;

	print '| format | ' . join(' | ', map { $_ * 100 . ' %' } @parts) . " |\n|---|" . '--:|' x @parts . "\n";
	for my $format (@formats)
	{
		my ($name, @options) = @$format;
		my @memory;

		$dbh->selectall_arrayref('SELECT pg_copy_logical_replication_slot(?, ?)', undef, $slot, 'run');
		my $reader = fork() // die "fork: $!";
		if (!$reader)
		{
			$dbh->{InactiveDestroy} = 1;
			exec "$server->{bin}/pg_recvlogical", '-h', $server->{host}, '-U', 'postgres', '-d', 'postgres', '-S', 'run', '--start', '--no-loop', '-E', $end,
			  '-s', 1, '-F', 0, '-f', '/dev/null', '-o', 'tables=public.*', @options;
		}
		for my $point (@points)
		{
			my ($pid, $there);
			until ($there)
			{
				($pid, $there) = $dbh->selectrow_array('SELECT pid, sent_lsn >= ? FROM pg_stat_replication', undef, $point);
				last if waitpid($reader, 1) > 0;
				sleep(0.005);
			}
			# It may be gone by the last one.
			push @memory, ($pid && private_memory($pid)) || last;
		}
		waitpid $reader, 0;
		sleep(0.01) while value(q{SELECT active FROM pg_replication_slots WHERE slot_name = 'run'}) eq '1';
		$dbh->selectall_arrayref(q{SELECT pg_drop_replication_slot('run')});
		print "| $name | " . join(' | ', @memory) . " |\n";
		# The server's own caches fill at first.
		$grown = 1 if @memory < 7 || $memory[-1] > $memory[2] * 1.02 + 64;
	}
	$dbh->selectall_arrayref('SELECT pg_drop_replication_slot(?)', undef, $slot);
	bar('from 30 % on, growth of less than 2 %', !$grown);
}
