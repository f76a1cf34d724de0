#!/usr/bin/perl
# forwarder.pl: how fast rows get from commits into Kafka, and what the forwarder needs for it. Prints Markdown.
#
#   --rows N       rows of the stream that is forwarded at once (default 1000000)
#   --rounds N     (default 3)
#   --seconds N    how long rows are committed one after the other for the delays (default 20)
#   --rate N       rows a second meanwhile (default 10000)
#   --only X       mock or kafka
#
# Brokers: librdkafka's mock brokers in a process of their own (examples/kafka-forwarder/tests), and Apache
# Kafka from Maven Central (t/lib/PgtKafka.pm). All on this machine: server, forwarder and brokers share its cores.
use strict;
use warnings;

use Cwd qw(abs_path);
use DBI;
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use Getopt::Long;
use HTTP::Tiny;
use IPC::Run;
use POSIX qw(strftime);
use Time::HiRes qw(time sleep);

my $here;
BEGIN { $here = dirname(abs_path(__FILE__)) }
use lib "$here/../oracle/lib", "$here/../lib";

use Oracle::Server;

my %opt = (rows => 1_000_000, rounds => 3, seconds => 20, rate => 10_000, only => '.');
GetOptions(\%opt, qw(rows=i rounds=i seconds=i rate=i only=s)) or exit 2;
$| = 1;

my $folder = "$here/../../examples/kafka-forwarder";
system("make -s -C $folder all tests >&2") == 0 or die "the forwarder cannot be built\n";
my $server = Oracle::Server->start(plugins => 'pg_trickle_decoder', settings => "autovacuum = off\ncheckpoint_timeout = 1h\nmax_wal_size = 8GB\nshared_buffers = 512MB\n");
my $conninfo = "host=$server->{host} port=$server->{port} user=postgres dbname=postgres";
my $dbh = connect_server();
my $base = tempdir('pgt-forwarder-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $topics = 0;

head();
load();
my @brokers = grep { $_->{name} =~ /$opt{only}/i } (mock(), kafka());
my @cases = map { my $brokers = $_; map { { brokers => $brokers, delivery => $_, speed => [], memory => [] } } 'at_least_once', 'exactly_once' } @brokers;

for my $round (1 .. $opt{rounds})
{
	for my $case (@cases)
	{
		print STDERR "== $round: $case->{brokers}{name}, $case->{delivery}\n";
		all_at_once($case);
	}
}
delays($_) for @cases;
report();
$_->{stop}->() for @brokers;

# --- server and brokers ------------------------------------------------------------------

sub connect_server
{
	return DBI->connect("dbi:Pg:dbname=postgres;host=$server->{host};port=$server->{port}", 'postgres', '', { RaiseError => 1, PrintError => 0 });
}

sub value { return ($dbh->selectrow_array($_[0]))[0] }

# A row is some 120 bytes as text, and 700 as Debezium's event.
sub load
{
	$dbh->do('CREATE TABLE sales (id bigint PRIMARY KEY, region text, product text, amount numeric(12,2), n int, at timestamptz)');
	$dbh->do('ALTER TABLE sales REPLICA IDENTITY FULL');
	$dbh->selectall_arrayref(q{SELECT pg_create_logical_replication_slot('all', 'pg_trickle_decoder')});
	for (my $from = 1; $from <= $opt{rows}; $from += 10_000)
	{
		$dbh->do("INSERT INTO sales SELECT i, 'region ' || i % 50, 'product number ' || i, (i % 100000) / 100.0, i % 1000, '2026-01-01 00:00:00+00'::timestamptz + i * interval '1.5 s'
			FROM generate_series($from, $from + 9999) i");
	}
	return;
}

sub mock
{
	my ($in, $out) = ('', '');
	my $run = IPC::Run::start([ "$folder/tests/mockd", 1 ], '<', \$in, '>', \$out);

	$run->pump until $out =~ s/\A(\S+)\n//;
	return { name => 'mock brokers of librdkafka', servers => $1, stop => sub { $run->kill_kill } };
}

sub kafka
{
	return () if 'kafka' !~ /$opt{only}/i;
	require PgtKafka;
	my $kafka = PgtKafka->new("$base/kafka");

	print STDERR "no Kafka: $kafka->{missing}\n" if $kafka->{missing};
	return () if $kafka->{missing};
	return { name => 'Apache Kafka, one broker', servers => $kafka->{servers}, create => sub { $kafka->create_topic($_[0], partitions => 4) }, stop => sub { $kafka->kill } };
}

# --- the forwarder -----------------------------------------------------------------------

sub start_forwarder
{
	my ($case, $slot, @more) = @_;
	my $port = 20000 + int rand 20000;
	my $prefix = 'bench' . ++$topics;
	my %settings = ('source.conninfo' => $conninfo, 'source.slot' => $slot, 'source.tables' => 'public.sales', 'source.envelope' => 'compact', 'topics.prefix' => $prefix,
		'forwarder.delivery' => $case->{delivery}, 'forwarder.metrics_port' => $port, 'forwarder.queue_mb' => 64, 'kafka.bootstrap.servers' => $case->{brokers}{servers});

	$case->{brokers}{create}->("$prefix.public.sales") if $case->{brokers}{create};
	my $pid = fork() // die "fork: $!";
	if (!$pid)
	{
		$dbh->{InactiveDestroy} = 1;
		open STDERR, '>', "$base/log";
		exec "$folder/pg-trickle-forwarder", (map { ('--set', "$_=$settings{$_}") } sort keys %settings), @more;
	}
	return { pid => $pid, url => "http://127.0.0.1:$port/metrics" };
}

sub metrics
{
	my ($forwarder) = @_;
	my $answer = HTTP::Tiny->new(timeout => 5)->get($forwarder->{url});
	return $answer->{success} ? { $answer->{content} =~ /^pg_trickle_forwarder_(\S+) (\S+)$/mg } : {};
}

sub wait_until_streaming
{
	my ($forwarder) = @_;
	my $until = time + 60;

	sleep 0.05 until (metrics($forwarder)->{streaming} // 0) == 1 || time > $until;
	return;
}

sub log_text { open my $file, '<', "$base/log" or return ''; local $/; return <$file> }

# Most memory that the process had of its own, MB.
sub peak
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/status" or return 0;
	return join('', <$file>) =~ /^VmHWM:\s+(\d+) kB/m ? $1 / 1024 : 0;
}

sub all_at_once
{
	my ($case) = @_;

	$dbh->selectall_arrayref(q{SELECT pg_copy_logical_replication_slot('all', 'bench')});
	my $end = value('SELECT pg_current_wal_flush_lsn()');
	my $forwarder = start_forwarder($case, 'bench', '--once');
	my ($start, $memory) = (time, 0);
	while (waitpid($forwarder->{pid}, 1) == 0)
	{
		my $now = peak($forwarder->{pid});
		$memory = $now if $now > $memory;
		sleep 0.01;
	}
	my $seconds = time - $start;
	die 'the forwarder failed: ' . log_text() if $?;
	die "not all is confirmed\n" if value(qq{SELECT confirmed_flush_lsn < '$end' FROM pg_replication_slots WHERE slot_name = 'bench'});
	$dbh->selectall_arrayref(q{SELECT pg_drop_replication_slot('bench')});
	push @{ $case->{speed} }, $opt{rows} / $seconds;
	push @{ $case->{memory} }, $memory;
	return;
}

# Transactions of 100 rows, at a steady rate; the forwarder counts how long each takes.
sub delays
{
	my ($case) = @_;
	my $writer = connect_server();
	my $each = 100;
	my $id = 1_000_000_000;

	$dbh->selectall_arrayref(q{SELECT pg_create_logical_replication_slot('bench', 'pg_trickle_decoder')});
	my $forwarder = start_forwarder($case, 'bench');
	wait_until_streaming($forwarder);
	my $insert = $writer->prepare('INSERT INTO sales SELECT i, $$region$$, $$product$$, 1.5, 1, now() FROM generate_series(?::bigint, ?::bigint) i');
	my $write = sub {
		my ($seconds) = @_;
		my ($start, $done) = (time, 0);
		while (time - $start < $seconds)
		{
			if ($done >= (time - $start) * $opt{rate}) { sleep 0.001; next }
			$insert->execute($id, $id + $each - 1);
			$id += $each;
			$done += $each;
		}
		return $done / (time - $start);
	};
	$write->(3);    # topics are found, connections made
	my $before = metrics($forwarder);
	$case->{rate} = $write->($opt{seconds});
	my $after = metrics($forwarder);
	my ($count, %share) = ($after->{commit_to_acknowledged_seconds_count} - $before->{commit_to_acknowledged_seconds_count});
	for my $name (grep { /_bucket/ } keys %$after)
	{
		my ($bound) = $name =~ /le="(.*)"/;
		$share{$bound} = ($after->{$name} - $before->{$name}) / $count if $bound ne '+Inf';
	}
	for my $percent (50, 99)
	{
		($case->{"p$percent"}) = grep { $share{$_} >= $percent / 100 } sort { $a <=> $b } keys %share;
	}
	$case->{mean} = ($after->{commit_to_acknowledged_seconds_sum} - $before->{commit_to_acknowledged_seconds_sum}) / $count;
	kill 'TERM', $forwarder->{pid};
	waitpid $forwarder->{pid}, 0;
	$dbh->do('DELETE FROM sales WHERE id >= 1000000000');
	$dbh->selectall_arrayref(q{SELECT pg_drop_replication_slot('bench')});
	return;
}

# --- the report --------------------------------------------------------------------------

sub median { my @sorted = sort { $a <=> $b } @_; return $sorted[ int(@sorted / 2) ] }

sub head
{
	my ($cpu) = grep { /^model name/ } do { open my $f, '<', '/proc/cpuinfo'; <$f> };
	my $cores = () = do { open my $f, '<', '/proc/cpuinfo'; my $t = join('', <$f>); $t =~ /^processor/mg };

	printf "# The forwarder\n\n`make -s bench-forwarder` on %s: PostgreSQL %s; %s, %d cores, which server, forwarder and brokers share.\n",
	  strftime('%Y-%m-%d', gmtime), value('SHOW server_version'), ($cpu || 'unknown') =~ s/.*:\s*//r =~ s/\s+\z//r, $cores;
	return;
}

sub ms { return defined $_[0] ? 1000 * $_[0] : 'over 30000' }

sub report
{
	printf "\n%d rows of six columns, inserted in transactions of 10,000, are waiting; how long until all are acknowledged and confirmed, the forwarder's start and end included (median of %d). "
	  . "Memory: VmHWM, with forwarder.queue_mb = 64.\n\n| brokers | delivery | rows a second | all rounds | bar | memory, MB | besides the queue |\n|---|---|--:|---|--:|--:|--:|\n", $opt{rows}, $opt{rounds};
	for my $case (@cases)
	{
		my $memory = median(@{ $case->{memory} });
		printf "| %s | %s | %.0f | %s | %d | %.0f | %.0f |\n", $case->{brokers}{name}, $case->{delivery}, median(@{ $case->{speed} }), join(', ', map { sprintf '%.0f', $_ } @{ $case->{speed} }),
		  $case->{brokers}{name} =~ /mock/ ? 200_000 : 100_000, $memory, $memory > 64 ? $memory - 64 : 0;
	}
	printf "\n%d rows a second, committed 100 at a time, for %d s: from commit to acknowledgement, ms. Percentiles are upper bounds, those of the buckets of the forwarder's histogram. Bar: 50 for 99 %%.\n\n"
	  . "| brokers | delivery | rows a second | mean | 50 %% | 99 %% |\n|---|---|--:|--:|--:|--:|\n", $opt{rate}, $opt{seconds};
	printf "| %s | %s | %.0f | %.1f | %s | %s |\n", $_->{brokers}{name}, $_->{delivery}, $_->{rate}, 1000 * $_->{mean}, ms($_->{p50}), ms($_->{p99}) for @cases;
	return;
}
