#!/usr/bin/perl
# decoder.pl: what output plugins cost a walsender; see ../README.md. Prints a Markdown table.
#
#   --rounds N     (default 5)
#   --rows N       rows inserted; a fifth are updated, a seventh deleted (default 500000)
#   --each N       rows of a transaction (default: inserts, updates and deletes are one each)
#   --only PATTERN outputs whose name matches
#   --svg FILE     the same as a plot
use strict;
use warnings;

use Cwd qw(abs_path);
use DBI;
use File::Basename qw(dirname);
use Getopt::Long;
use POSIX qw(strftime sysconf _SC_CLK_TCK);
use Time::HiRes qw(time sleep);

my $here;
BEGIN { $here = dirname(abs_path(__FILE__)) }
use lib "$here/../../oracle/lib";

use Oracle::Server;

my %opt = (rounds => 5, rows => 500_000, only => '.');
GetOptions(\%opt, qw(rounds=i rows=i each=i only=s svg=s)) or exit 2;
my $each = $opt{each} || $opt{rows};
$| = 1;

my $ours = 'pg_trickle_decoder';
my @debezium = (envelope => 'debezium');
my @batched = (batch_bytes => 65536);
my %publication = (proto_version => 1, publication_names => 'bench');

# [ name, plugin, options, may it be missing ]
my @outputs = (
	[ 'nothing', 'pgt_bench_nothing', {} ],
	[ 'ours, binary, batches of 64 KB', $ours, { format => 'binary', @batched } ],
	[ 'ours, binary', $ours, { format => 'binary' } ],
	[ 'ours, JSON compact, batches of 64 KB', $ours, {@batched} ],
	[ 'ours, JSON compact', $ours, {} ],
	[ 'ours, JSON debezium, batches of 64 KB', $ours, { @debezium, @batched } ],
	[ 'ours, JSON debezium', $ours, {@debezium} ],
	[ 'ours, JSON row, batches of 64 KB', $ours, { envelope => 'row', @batched } ],
	[ 'pgoutput, text', 'pgoutput', {%publication} ],
	[ 'pgoutput, binary', 'pgoutput', { %publication, binary => 'true' } ],
	[ 'test_decoding', 'test_decoding', {} ],
	[ 'decoderbufs', 'decoderbufs', {}, 1 ],
	[ 'wal2json, format 2', 'wal2json', { 'format-version' => 2, 'include-timestamp' => 'true', 'include-lsn' => 'true' }, 1 ]);

my ($server, $dbh, $postmaster, $end_lsn, $changes);
my (%seconds, %bytes, %wall);

start_server();
load();
@outputs = grep { $_->[0] eq 'nothing' || $_->[0] =~ /pgoutput, text|wal2json/ || $_->[0] =~ /$opt{only}/i } @outputs;
@outputs = grep { make_slot($_) } @outputs;
for my $round (0 .. $opt{rounds})
{
	for my $output (@outputs)
	{
		print STDERR "== $round: $output->[0]\n";
		measure($output, $round > 0);
	}
}
report();
plot() if $opt{svg};

# --- server and load ---------------------------------------------------------------------

sub start_server
{
	my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
	system("make -s -C $here PG_CONFIG=$pg_config install >&2") == 0 or die "the plugin that writes nothing cannot be built\n";

	$server = Oracle::Server->start(
		plugins => "pgoutput, test_decoding, $ours, pgt_bench_nothing, wal2json, decoderbufs",
		settings => "autovacuum = off\ncheckpoint_timeout = 1h\nmax_wal_size = 8GB\nmax_replication_slots = 20\nmax_wal_senders = 4\nshared_buffers = 512MB\n");
	$dbh = DBI->connect("dbi:Pg:dbname=postgres;host=$server->{host};port=$server->{port}", 'postgres', '', { RaiseError => 1, PrintError => 0 });
	($postmaster) = do { open my $f, '<', "$server->{dir}/data/postmaster.pid" or die "$!\n"; <$f> =~ /(\d+)/ };
	$dbh->do('CREATE TABLE bench (id bigint PRIMARY KEY, name text, note text, amount numeric(12,2), score float8, at timestamptz, ok boolean, n int)');
	$dbh->do('ALTER TABLE bench REPLICA IDENTITY FULL');
	$dbh->do('CREATE PUBLICATION bench FOR TABLE bench');
}

# False if the server has no such plugin.
sub make_slot
{
	my ($output) = @_;
	my (undef, $plugin, undef, $optional) = @$output;
	my $slot = 'of_' . $plugin;

	return 1 if $dbh->selectrow_array('SELECT true FROM pg_replication_slots WHERE slot_name = ?', undef, $slot);
	die "no slot of $plugin\n" unless $optional;
	print STDERR "$plugin is not installed\n";
	return 0;
}

sub load
{
	my $rows = $opt{rows};
	my %plugins = map { ($_->[1] => 1) } @outputs;

	for my $plugin (sort keys %plugins)
	{
		eval { $dbh->do('SELECT pg_create_logical_replication_slot(?, ?)', undef, "of_$plugin", $plugin); 1 };
	}
	for (my $from = 1; $from <= $rows; $from += $each)
	{
		$dbh->do("INSERT INTO bench SELECT i, 'customer ' || i, 'a note of some length, with \"quotes\", for ' || i, (i % 100000) / 100.0, i / 7.0::float8,
				'2026-01-01 00:00:00+00'::timestamptz + i * interval '1.5 s', i % 3 = 0, i % 1000
			FROM generate_series($from, least($from + $each - 1, $rows)) i");
	}
	for (my $from = 0; $from < $rows; $from += $each * 5)
	{
		$dbh->do("UPDATE bench SET amount = amount + 1, n = n + 1 WHERE id % 5 = 0 AND id > $from AND id <= $from + $each * 5");
	}
	for (my $from = 0; $from < $rows; $from += $each * 7)
	{
		$dbh->do("DELETE FROM bench WHERE id % 7 = 0 AND id > $from AND id <= $from + $each * 7");
	}
	$changes = $rows + int($rows / 5) + int($rows / 7);
	$dbh->do('CHECKPOINT');
	($end_lsn) = $dbh->selectrow_array('SELECT pg_current_wal_insert_lsn()');
}

# --- measuring ---------------------------------------------------------------------------

# CPU of the children of the postmaster that have ended, s.
sub children_cpu
{
	open my $file, '<', "/proc/$postmaster/stat" or die "postmaster: $!\n";
	my @fields = split ' ', <$file> =~ s/.*\) //r;
	return ($fields[13] + $fields[14]) / sysconf(_SC_CLK_TCK);
}

sub children
{
	open my $file, '<', "/proc/$postmaster/task/$postmaster/children" or die "children of the postmaster: $!\n";
	return split ' ', <$file> // '';
}

# All of the WAL once, from a copy of the slot.
sub measure
{
	my ($output, $counts) = @_;
	my ($name, $plugin, $options) = @$output;
	my $file = "$server->{dir}/out";
	my @options = $plugin eq $ours ? (tables => 'public.bench') : ();

	$dbh->do('SELECT pg_copy_logical_replication_slot(?, ?)', undef, "of_$plugin", 'run');
	my %others = map { ($_ => 1) } children();
	my ($cpu, $start) = (children_cpu(), time());
	my %all = (%$options, @options);
	$server->command('pg_recvlogical', '-h', $server->{host}, '-p', $server->{port}, '-U', 'postgres', '-d', 'postgres', '-S', 'run', '--start', '--no-loop',
		'-E', $end_lsn, '-F', 0, '-f', $file, map { ('-o', "$_=$all{$_}") } sort keys %all);
	my $wall = time() - $start;
	sleep(0.01) while grep { !$others{$_} } children();
	my $used = children_cpu() - $cpu;
	die "$name wrote nothing\n" if $name ne 'nothing' && -s $file < $changes * 50;
	push @{ $seconds{$name} }, $used if $counts;
	push @{ $wall{$name} }, $wall if $counts;
	$bytes{$name} = -s $file;
	unlink $file;
	$dbh->do(q{SELECT pg_drop_replication_slot('run')});
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return $sorted[ int(@sorted / 2) ];
}

# --- the report --------------------------------------------------------------------------

# Of what is compared within a round, so that the machine's other work counts for both.
sub ratio
{
	my ($name, $peer) = @_;
	return undef unless $seconds{$peer};
	return median(map { $seconds{$peer}[$_] / $seconds{$name}[$_] } 0 .. $#{ $seconds{$name} });
}

my %bars;
BEGIN
{
	my %json = ('wal2json, format 2' => 2.5, 'pgoutput, text' => 1.3);
	%bars = (
		'ours, JSON compact, batches of 64 KB' => {%json},
		'ours, JSON debezium, batches of 64 KB' => {%json},
		'ours, JSON compact' => { 'pgoutput, text' => 1.1 },
		'ours, JSON debezium' => { 'pgoutput, text' => 1.1 },
		'ours, binary, batches of 64 KB' => { nothing => 0.85 });
}

sub cell
{
	my ($name, $peer) = @_;
	my $ratio = ratio($name, $peer);
	my $bar = $bars{$name}{$peer};

	return '' unless defined $ratio;
	return sprintf('%.2f', $ratio) . ($bar ? sprintf(' (bar %.2f%s)', $bar, $ratio >= $bar ? ', met' : ', MISSED') : '');
}

sub report
{
	my $info = do { open my $f, '<', '/proc/cpuinfo' or die "cpuinfo: $!\n"; local $/; <$f> };
	my ($cpu) = $info =~ /^model name\s*:\s*(.*?)\s*$/m;
	my $cores = () = $info =~ /^processor/mg;
	my ($load) = split ' ', do { open my $f, '<', '/proc/loadavg' or die "loadavg: $!\n"; <$f> };
	my ($version) = $dbh->selectrow_array('SHOW server_version');

	print "# What output plugins cost: PostgreSQL $version\n\n";
	print '`make -s bench-decoder` on ' . strftime('%Y-%m-%d', gmtime) . ': ' . ($cpu // 'unknown') . ", $cores cores, load average $load at the end.\n\n";
	print "$changes changes (inserts, updates, deletes) of a table of 8 columns, REPLICA IDENTITY FULL, in transactions of at most $each rows, read with pg_recvlogical. CPU is the walsender's,\n";
	print "the median of $opt{rounds} rounds in which the outputs take turns; ratios are medians of the rounds' ratios, above 1 is cheaper.\n\n";
	print "| output | bytes | CPU s | changes per CPU second | wall s | against nothing | against pgoutput, text | against wal2json |\n|---|--:|--:|--:|--:|---|---|---|\n";
	for my $output (@outputs)
	{
		my $name = $output->[0];
		my $cpu = median(@{ $seconds{$name} });

		printf "| %s | %.0f MB | %.2f | %d k | %.2f | %s | %s | %s |\n", $name, $bytes{$name} / 1e6, $cpu, $changes / $cpu / 1000, median(@{ $wall{$name} }),
		  cell($name, 'nothing'), cell($name, 'pgoutput, text'), cell($name, 'wal2json, format 2');
	}
}

sub plot
{
	my ($left, $width, $height) = (290, 560, 26);
	my $most = median(@{ $seconds{nothing} });
	my @rows = sort { median(@{ $seconds{ $a->[0] } }) <=> median(@{ $seconds{ $b->[0] } }) } @outputs;
	my $y = 40;

	open my $svg, '>', $opt{svg} or die "$opt{svg}: $!\n";
	printf $svg qq{<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13">\n}, $left + $width + 90, 60 + $height * @rows;
	print $svg qq{<text x="10" y="22" font-size="15">Thousand changes per second of walsender CPU</text>\n};
	for my $output (@rows)
	{
		my $rate = $changes / median(@{ $seconds{ $output->[0] } }) / 1000;
		my $length = $width * $rate / ($changes / $most / 1000);

		printf $svg qq{<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%.0f" height="%d" fill="%s"/><text x="%.0f" y="%d">%.0f</text>\n},
		  $left - 8, $y + 16, $output->[0], $left, $y + 2, $length, $height - 6, $output->[0] =~ /^ours/ ? '#2b7a78' : '#b0b0b0', $left + $length + 6, $y + 16, $rate;
		$y += $height;
	}
	print $svg "</svg>\n";
	close $svg or die "$opt{svg}: $!\n";
}
