#!/usr/bin/perl
# bench.pl: measures what README.md describes and prints a Markdown table.
#
#   --only PATTERN   cases whose name matches
#   --rows N         rows of the large table (default 1000000)
#   --calls N        calls per figure (default 2000; large changes 30)
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

my %opt = (rows => 1_000_000, calls => 2000, only => '.');
GetOptions(\%opt, qw(only=s rows=i calls=i)) or exit 2;
$| = 1;

my ($server, $dbh, $empty);
my @twins = ('plain', 'watched', 'captured');
my @results;

my @cases = (
	[ 'nothing changed', \&nothing_changed ],
	[ 'grouped sum, 1 row', \&sum_one_row ],
	[ 'grouped sum, 1,000 groups', \&sum_thousand_groups ],
	[ 'join rows, 1 row', \&join_one_row ],
	[ 'join + group by, 10,000 rows', \&join_group ],
	[ 'chain of 10, 1 row', \&chain ],
	[ 'capture, one-row UPDATE', \&capture_one ],
	[ 'capture, bulk UPDATE', \&capture_bulk ],
	[ 'capture, bulk UPDATE, HOT', \&capture_hot ],
	[ 'capture, bulk INSERT', \&capture_insert ],
	[ 'commit to visible', \&commit_to_visible ]);
# Those that need the scheduler.
my $scheduled = qr/^commit to visible$/;

my @wanted = grep { $_->[0] =~ /$opt{only}/i } @cases;
start_server(0);
load();
for my $case (grep { $_->[0] !~ $scheduled } @wanted)
{
	print STDERR "== $case->[0]\n";
	eval { $case->[1]->(); 1 } or result($case->[0], 'failed', '', ($@ =~ s/\n.*//sr), '');
	clean();
}
for my $case (grep { $_->[0] =~ $scheduled } @wanted)
{
	print STDERR "== $case->[0]\n";
	start_server(1);
	eval { $case->[1]->(); 1 } or result($case->[0], 'failed', '', ($@ =~ s/\n.*//sr), '');
}
report();

# --- server and measuring ----------------------------------------------------------------

sub start_server
{
	my ($preload) = @_;

	$dbh->disconnect if $dbh;
	undef $server;
	$server = Oracle::Server->start(
		preload => $preload,
		settings => "fsync = on\nfull_page_writes = on\nshared_buffers = 1GB\nmax_wal_size = 8GB\n"
		  . "checkpoint_timeout = 1h\nautovacuum_naptime = 1min\nmax_worker_processes = 16\nlog_error_verbosity = default\n");
	$dbh = connect_server();
	run('CREATE EXTENSION pg_trickle');
}

sub connect_server
{
	return DBI->connect("dbi:Pg:dbname=postgres;host=$server->{host};port=$server->{port}", 'postgres', '',
		{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1 });
}

sub run
{
	my ($sql) = @_;
	local $SIG{__WARN__} = sub { };
	return $dbh->do($sql);
}

# A large table with 1,000 groups and a small one it refers to.
sub load
{
	run("CREATE TABLE item (id integer PRIMARY KEY, g integer NOT NULL, d integer NOT NULL, v integer NOT NULL, pad text) WITH (fillfactor = 80)");
	run("INSERT INTO item SELECT i, i % 1000, i % 5000, i % 97, 'some text ' || i FROM generate_series(1, $opt{rows}) AS i");
	run('CREATE INDEX ON item (g)');
	run('CREATE INDEX ON item (d)');
	run('CREATE TABLE dim (d integer PRIMARY KEY, cat integer NOT NULL, name text)');
	run("INSERT INTO dim SELECT i, i % 200, 'name ' || i FROM generate_series(0, 4999) AS i");
	run('VACUUM ANALYZE');
	run('CHECKPOINT');
	fresh_session();
}

sub fresh_session
{
	$dbh->disconnect;
	$dbh = connect_server();
	run('SET synchronous_commit = off');
	my $select = prepared('SELECT 1');
	$empty = median(map { timed($select) } 1 .. 3000);
}

sub prepared
{
	my ($sql) = @_;
	my $sth = $dbh->prepare($sql, { pg_server_prepare => 1, pg_switch_prepared => 1 });
	return sub { $sth->execute(@_); $sth->fetchall_arrayref if $sth->{NUM_OF_FIELDS}; };
}

# Seconds.
sub timed
{
	my ($what, @args) = @_;
	my $start = time();
	$what->(@args);
	return time() - $start;
}

sub median { return percentile(50, @_) }

sub percentile
{
	my ($percent, @values) = @_;
	@values = sort { $a <=> $b } @values;
	return $values[ int($#values * $percent / 100 + 0.5) ];
}

sub stream
{
	my ($name, $query, %more) = @_;
	my $schedule = $more{schedule} || '1h';
	run("SELECT pgtrickle.create_stream_table('$name', \$q\$$query\$q\$, schedule => '$schedule', refresh_mode => 'DIFFERENTIAL')");
	run("SELECT pgtrickle.refresh_stream_table('$name')");
	run("VACUUM ANALYZE $name");
	return prepared("SELECT pgtrickle.refresh_stream_table('$name')");
}

# The same as a materialized view: median of a few refreshes.
sub materialized
{
	my ($query) = @_;
	run("CREATE MATERIALIZED VIEW mv AS $query");
	my $refresh = prepared('REFRESH MATERIALIZED VIEW mv');
	my $time = median(map { timed($refresh) } 1 .. 5) - $empty;
	run('DROP MATERIALIZED VIEW mv');
	return $time;
}

sub clean
{
	my $names = $dbh->selectcol_arrayref('SELECT pgt_relid::text FROM pgtrickle.pgt_definitions ORDER BY pgt_id DESC');
	run("SELECT pgtrickle.drop_stream_table('$_', true)") for @$names;
	fresh_session();
}

# The server's CPU time of this session, in seconds.
sub cpu
{
	open my $stat, '<', "/proc/$dbh->{pg_pid}/schedstat" or return undef;
	my ($ns) = split ' ', <$stat>;
	return $ns / 1e9;
}

sub is_right
{
	my ($name, $query) = @_;
	my $n = $dbh->selectrow_array("SELECT count(*) FROM ((TABLE $name EXCEPT ALL ($query)) UNION ALL (($query) EXCEPT ALL TABLE $name)) AS d");
	die "$name is not equal to its query\n" if $n;
}

sub result
{
	my ($name, $figure, $bar, $note, $peer) = @_;
	push @results, [ $name, $figure, $bar, $peer, $note ];
	print STDERR "   $figure  (bar $bar)  $note\n";
}

sub us { return sprintf '%.0f us', $_[0] * 1e6 }
sub us1 { return sprintf '%.1f us', $_[0] * 1e6 }
sub ms { return $_[0] < 0.01 ? sprintf('%.2f ms', $_[0] * 1e3) : sprintf('%.1f ms', $_[0] * 1e3) }

sub times_faster
{
	my ($peer, $ours) = @_;
	return sprintf('%s, x%.0f', ms($peer), $peer / $ours);
}

# --- cases -------------------------------------------------------------------------------

my $sum_query;
BEGIN { $sum_query = 'SELECT g, sum(v) AS total, count(*) AS n FROM item GROUP BY g' }

sub nothing_changed
{
	my $refresh = stream('st', $sum_query);
	$refresh->() for 1 .. 200;
	my $cpu = cpu();
	my @times = map { timed($refresh) } 1 .. $opt{calls};
	$cpu = (cpu() - $cpu) / $opt{calls};
	run('BEGIN');
	$refresh->();
	my $xid = $dbh->selectrow_array('SELECT pg_current_xact_id_if_assigned()');
	run('COMMIT');
	result('refresh, nothing changed', us(median(@times) - $empty), '<= 60 us, no transaction id',
		'CPU ' . us($cpu) . ($xid ? '; takes a transaction id' : '; no transaction id'), '');
}

# Changes one row, then refreshes, many times: median and p99 of the refresh.
sub one_row
{
	my ($refresh, $sync) = @_;
	my $update = prepared('UPDATE item SET v = v + 1 WHERE id = ?');
	my @times;

	for my $n (1 .. $opt{calls} + 200)
	{
		$update->(1 + int(rand($opt{rows})));
		run('SET synchronous_commit = on') if $sync;
		my $time = timed($refresh);
		run('SET synchronous_commit = off') if $sync;
		push @times, $time if $n > 200;
	}
	return @times;
}

sub sum_one_row
{
	my $refresh = stream('st', $sum_query);
	my @times = one_row($refresh, 0);
	my @sync = one_row($refresh, 1);
	is_right('st', $sum_query);
	my $peer = materialized($sum_query);
	my $ours = median(@times) - $empty;
	result('1M rows, grouped sum, 1 row changed, asynchronous', us($ours), '<= 100 us', 'p99 ' . us(percentile(99, @times)), times_faster($peer, $ours));
	result('the same, synchronous', us(median(@sync) - $empty), '<= 300 us', 'p99 ' . us(percentile(99, @sync)), '');
}

sub sum_thousand_groups
{
	my $refresh = stream('st', $sum_query);
	my @times;
	for my $n (1 .. 60)
	{
		my $from = int(rand($opt{rows} - 1000));
		run("UPDATE item SET v = v + 1 WHERE id > $from AND id <= $from + 1000");
		push @times, timed($refresh);
	}
	is_right('st', $sum_query);
	my $ours = median(@times) - $empty;
	result('1M rows, grouped sum, 1,000 groups changed', ms($ours), '<= 3 ms', 'p99 ' . ms(percentile(99, @times)), times_faster(materialized($sum_query), $ours));
}

sub join_one_row
{
	my $query = 'SELECT i.id, i.v, i.pad, m.cat, m.name FROM item AS i JOIN dim AS m ON m.d = i.d';
	my $refresh = stream('st', $query);
	my @times = one_row($refresh, 0);
	is_right('st', $query);
	my $ours = median(@times) - $empty;
	result('1M rows, join of two tables as rows, 1 row changed', us($ours), '<= 150 us', 'p99 ' . us(percentile(99, @times)), times_faster(materialized($query), $ours));
}

sub join_group
{
	my $query = 'SELECT m.cat, sum(i.v) AS total, count(*) AS n FROM item AS i JOIN dim AS m ON m.d = i.d GROUP BY m.cat';
	my $refresh = stream('st', $query);
	my @times;
	for my $n (1 .. 30)
	{
		my $from = int(rand($opt{rows} - 10000));
		run("UPDATE item SET v = v + 1 WHERE id > $from AND id <= $from + 10000");
		push @times, timed($refresh);
	}
	is_right('st', $query);
	my $ours = median(@times) - $empty;
	result('1M rows, join + group by, 10,000 rows changed', ms($ours), '<= 14 ms', 'p99 ' . ms(percentile(99, @times)), times_faster(materialized($query), $ours));
}

sub chain
{
	my $from = 'item';
	my @names;
	for my $n (1 .. 10)
	{
		my $query = $n == 1 ? 'SELECT g, sum(v) AS v FROM item GROUP BY g' : "SELECT g, v + 1 AS v FROM c" . ($n - 1);
		stream("c$n", $query);
		push @names, "c$n";
	}
	my @refresh = map { prepared("SELECT pgtrickle.refresh_stream_table('$_')") } @names;
	my $update = prepared('UPDATE item SET v = v + 1 WHERE id = ?');
	my @times;
	for my $n (1 .. 300)
	{
		$update->(1 + int(rand($opt{rows})));
		push @times, timed(sub { run('BEGIN'); $_->() for @refresh; run('COMMIT') });
	}
	is_right('c10', 'SELECT g, sum(v) + 9 AS v FROM item GROUP BY g');
	result('chain of 10, 1 row, one transaction', ms(median(@times) - 12 * $empty), '<= 2 ms', 'p99 ' . ms(percentile(99, @times)), '');
}

# Tables with the same rows, of which one is captured, and one has triggers that ask for the same
# transition tables and do nothing. What is measured alternates between them.
sub make_twins
{
	my ($fillfactor, $rows, $indexes) = @_;
	for my $twin (@twins)
	{
		run("CREATE TABLE $twin (LIKE item) WITH (fillfactor = $fillfactor, autovacuum_enabled = off)");
		run("INSERT INTO $twin SELECT * FROM item WHERE id <= $rows");
		run("ALTER TABLE $twin ADD PRIMARY KEY (id)");
		run("CREATE INDEX ON $twin ($_)") for @$indexes;
	}
	run(q{CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'});
	run("CREATE TRIGGER i AFTER INSERT ON watched REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION nothing()");
	run("CREATE TRIGGER u AFTER UPDATE ON watched REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION nothing()");
	stream('st', $sum_query =~ s/item/captured/r);
	vacuum_twins();
}

sub vacuum_twins
{
	run("VACUUM ANALYZE $_") for @twins;
}

sub drop_twins
{
	run("SELECT pgtrickle.drop_stream_table('st')");
	run('DROP TABLE ' . join(', ', @twins));
	run('DROP FUNCTION nothing');
}

# CPU of the backend per statement, in blocks of 50 that take turns, so that whatever the
# machine does besides falls upon both. The figure is the median of the differences of pairs.
sub capture_one
{
	my %update;
	my (@plain, @difference);
	make_twins(50, 100000, []);
	$update{$_} = prepared("UPDATE $_ SET v = v + 1 WHERE id = ?") for 'plain', 'captured';
	my $block = sub {
		my ($twin) = @_;
		my $cpu = cpu();
		$update{$twin}->(1 + int(rand(100000))) for 1 .. 50;
		return (cpu() - $cpu) / 50;
	};
	$block->($_) for ('plain', 'captured') x 20;
	for my $pair (1 .. $opt{calls} / 5)
	{
		my %cpu = map { $_ => $block->($_) } $pair % 2 ? ('plain', 'captured') : ('captured', 'plain');
		push @plain, $cpu{plain};
		push @difference, $cpu{captured} - $cpu{plain};
		vacuum_twins() if $pair % 100 == 0;
	}
	drop_twins();
	result('capture, one-row UPDATE, CPU', us1(median(@difference)), '<= 8 us',
		'CPU of the statement ' . us1(median(@plain)) . ' without; half of the differences between '
		  . us1(percentile(25, @difference)) . ' and ' . us1(percentile(75, @difference)), '');
}

# CPU of a large statement, on twins that take turns.
sub measure_bulk
{
	my ($name, $statement, $after) = @_;
	my (%cpu, %wall);
	for my $round (1 .. 14)
	{
		for my $twin ($round % 2 ? @twins : reverse @twins)
		{
			my $cpu = cpu();
			my $wall = timed(sub { run($statement =~ s/TWIN/$twin/gr) });
			next if $round <= 2;
			push @{ $cpu{$twin} }, cpu() - $cpu;
			push @{ $wall{$twin} }, $wall;
		}
		$after->();
		run("SELECT pgtrickle.refresh_stream_table('st')") if $round % 4 == 0;
	}
	$_ = median(@$_) for values %cpu, values %wall;
	result($name, sprintf('%.2fx', $cpu{captured} / $cpu{plain}), '<= 1.25x',
		sprintf('CPU %s without, %s with; %.2fx are PostgreSQL\'s transition tables alone; wall time %s, %s',
			ms($cpu{plain}), ms($cpu{captured}), $cpu{watched} / $cpu{plain}, ms($wall{plain}), ms($wall{captured})), '');
}

sub capture_bulk
{
	make_twins(80, 200000, [ 'g', 'd' ]);
	measure_bulk('capture, UPDATE of 100,000 rows, three indexes',
		'UPDATE TWIN SET v = v + 1 WHERE id <= 100000', \&vacuum_twins);
	drop_twins();
}

# The hardest case: the table is in memory, no index is touched, nothing else has to be done.
sub capture_hot
{
	make_twins(45, 100000, []);
	measure_bulk('capture, UPDATE of 100,000 rows, HOT', 'UPDATE TWIN SET v = v + 1', \&vacuum_twins);
	drop_twins();
}

sub capture_insert
{
	make_twins(100, 100000, []);
	measure_bulk('capture, INSERT of 100,000 rows',
		"INSERT INTO TWIN SELECT i, i % 1000, i % 5000, i, 'some text ' || i FROM generate_series(200001, 300000) AS i",
		sub { run("DELETE FROM $_ WHERE id > 200000") for @twins; vacuum_twins() });
	drop_twins();
}

sub commit_to_visible
{
	run('CREATE TABLE src (id integer PRIMARY KEY, g integer, v bigint)');
	run('INSERT INTO src SELECT i, i % 100, 0 FROM generate_series(1, 10000) AS i');
	stream('vis', 'SELECT g, max(v) AS v FROM src GROUP BY g', schedule => 'calculated');
	my $update = prepared('UPDATE src SET v = ? WHERE id = ?');
	my $read = $dbh->prepare('SELECT v FROM vis WHERE g = ?');
	my @times;
	for my $n (1 .. 330)
	{
		my $id = 1 + int(rand(10000));
		$update->($n, $id);
		my $committed = time();
		while (1)
		{
			$read->execute($id % 100);
			my ($seen) = $read->fetchrow_array;
			$read->finish;
			last if defined $seen && $seen >= $n;
			die "not visible after 30 s\n" if time() - $committed > 30;
		}
		push @times, time() - $committed if $n > 30;
		sleep(0.01 + rand(0.03));
	}
	result("commit to visible, one table, schedule 'calculated', p50", ms(percentile(50, @times)), '<= 3 ms',
		'p99 ' . ms(percentile(99, @times)) . ' (bar 15 ms)', '');
}

# --- the report --------------------------------------------------------------------------

sub report
{
	my ($cpu) = grep { /^model name/ } do { open my $f, '<', '/proc/cpuinfo'; <$f> };
	my $cores = () = do { open my $f, '<', '/proc/cpuinfo'; my $t = join('', <$f>); $t =~ /^processor/mg };
	my ($version) = $dbh->selectrow_array('SHOW server_version');
	my ($extension) = $dbh->selectrow_array(q{SELECT extversion FROM pg_extension WHERE extname = 'pg_trickle'});

	$cpu = ($cpu || 'unknown') =~ s/.*:\s*//r =~ s/\s+\z//r;
	print "# pg_trickle $extension on PostgreSQL $version\n\n";
	print "`make -s bench` on " . strftime('%Y-%m-%d', gmtime) . ": $cpu, $cores cores, fsync on, load average "
	  . (split ' ', do { open my $f, '<', '/proc/loadavg'; <$f> })[0] . " at the end.\n";
	printf "Medians; the empty call that is subtracted took %s.\n\n", us($empty);
	print "| case | measured | bar | REFRESH MATERIALIZED VIEW, ratio | remarks |\n|---|---|---|---|---|\n";
	print '| ' . join(' | ', @$_) . " |\n" for @results;
}
