# The plugin in a walsender, read by pg_recvlogical as a consumer would.
use strict;
use warnings;

use IPC::Run;
use Test::More;

use PgTrickle;
use PgtDecoder;

my $node = decoder_node('stream');
my $db = 'postgres';

$node->safe_psql($db, q{
	CREATE TABLE st (id int PRIMARY KEY, v text);
	ALTER TABLE st REPLICA IDENTITY FULL;
	CREATE TABLE src (id int, v text);});

my ($out, $err) = ('', '');

sub recvlogical
{
	my (@arguments) = @_;

	($out, $err) = ('', '');
	IPC::Run::run(
		[ 'pg_recvlogical', '-d', $node->connstr($db), '--slot', 'r', '--no-loop', '-f', '-', @arguments ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $? >> 8;
}

sub refresh
{
	my ($id, $sql) = @_;
	$node->safe_psql($db,
		'BEGIN; ' . open_refresh('public.st', id => $id) . "$sql;" . close_refresh('public.st', id => $id) . 'COMMIT');
	return $node->safe_psql($db, 'SELECT pg_current_wal_lsn()');
}

is(recvlogical('--create-slot', '-P', 'pg_trickle_decoder'), 0, 'the slot can be made through the protocol')
  or diag($err);

# --- two sessions ---------------------------------------------------------------------------

my $end = refresh(1, q{INSERT INTO st SELECT g, 'v' || g FROM generate_series(1, 1000) g});
is(recvlogical('--start', '--endpos', $end), 0, 'a first session') or diag($err);
my @lines = split /\n/, $out;
is(scalar(rows(map { event($_) } @lines)), 1000, 'has all rows, one per line');
is($err, '', 'without complaint');

$end = refresh(2, q{UPDATE st SET v = 'w' WHERE id <= 10; DELETE FROM st WHERE id > 990});
is(recvlogical('--start', '--endpos', $end), 0, 'a second session');
my @second = map { event($_) } split /\n/, $out;
is(scalar(rows(@second)), 20, 'goes on where the first ended');
is(join(' ', map { $_->{op} } @second[ 0 .. 3 ]), 'hello begin refresh schema', 'and says again who it is');

# The same bytes over the protocol as through SQL: decode the second half once more.
$node->safe_psql($db, "SELECT pg_copy_logical_replication_slot('r', 'copy')");
$end = refresh(3, q{INSERT INTO st VALUES (5000, E'\t"')});
my @sql = read_slot($node, 'copy', envelope => 'debezium');
recvlogical('--start', '--endpos', $end, '-o', 'envelope=debezium');
is_deeply([ split /\n/, $out ], \@sql, 'walsender and SQL function send the same bytes');

# --- a large transaction of others ----------------------------------------------------------------

# Replaying this takes longer than the walsender waits for a client that it did not ask
# anything: the plugin has to report progress. A machine may be too busy to answer in time,
# so it may try again; without progress no attempt would ever succeed.
$node->safe_psql($db, 'SET synchronous_commit = off; INSERT INTO src SELECT g FROM generate_series(1, 1500000) g');
$end = refresh(4, q{INSERT INTO st VALUES (5001)});
my $status;
for my $attempt (1 .. 20)
{
	local $ENV{PGOPTIONS} = '-c wal_sender_timeout=80ms -c logical_decoding_work_mem=1GB';

	$status = recvlogical('--start', '--endpos', $end, '-o', 'tables=public.*', '-o', 'exclude_tables=public.src');
	last if $status == 0;
}
is($status, 0, '1,500,000 changes that are not wanted') or diag($err);
is(scalar(rows(map { event($_) } split /\n/, $out)), 1, 'and one that is');

# --- memory ------------------------------------------------------------------------------------------

# A walsender that stays: its memory before and after many rows and many tables.
my $file = $PostgreSQL::Test::Utils::tmp_check . '/stream.out';
my $reader = IPC::Run::start(
	[ 'pg_recvlogical', '-d', $node->connstr($db), '--slot', 'r', '--no-loop', '-f', $file, '--start', '-o', 'tables=*', '-s', '1', '-F', '1' ],
	'<', \undef, '>', \$out, '2>', \$err);

sub memory_when_caught_up
{
	my $lsn = $node->safe_psql($db, 'SELECT pg_current_wal_lsn()');
	wait_until($node, "SELECT confirmed_flush_lsn >= '$lsn' FROM pg_replication_slots WHERE slot_name = 'r'");
	my $pid = $node->safe_psql($db, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'r'");
	my ($kb) = PostgreSQL::Test::Utils::slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m;
	return $kb;
}

sub make_work
{
	my ($from, $tables, $rows) = @_;
	$node->safe_psql($db, join '', map { "CREATE TABLE m$_ (id int PRIMARY KEY, v text); INSERT INTO m$_ VALUES (1, 'x'); ALTER TABLE m$_ ADD w int; INSERT INTO m$_ VALUES (2); DROP TABLE m$_;\n" } $from .. $from + $tables - 1);
	$node->safe_psql($db, "UPDATE st SET v = repeat('x', 500); INSERT INTO src SELECT g, repeat('y', 100) FROM generate_series(1, $rows) g") for 1 .. 3;
}

wait_until($node, "SELECT active FROM pg_replication_slots WHERE slot_name = 'r'");
SKIP:
{
	skip 'no /proc', 1 unless -e '/proc/self/status';
	# The same work twice: what the server keeps after its largest transaction is not of interest.
	make_work(1, 400, 30000);
	my $before = memory_when_caught_up();
	make_work(1000, 400, 30000);
	my $after = memory_when_caught_up();
	note("walsender: $before kB, then $after kB");
	cmp_ok($after - $before, '<', 2000, "memory stays flat ($before kB, then $after kB)");
}

$reader->signal('INT');
$reader->finish;
my $bad = 0;
open my $handle, '<', $file or die "could not open $file: $!";
while (my $line = <$handle>)
{
	# Parsing is slow, so only a sample of the many rows that look alike.
	next if $line =~ /"t":"public\.src"/ && $. % 100 != 0;
	$bad++ unless eval { event($line) };
}
close $handle;
is($bad, 0, 'every line is a JSON object');

$node->stop;
done_testing();
