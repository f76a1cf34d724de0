# Heartbeats: with pg_trickle.heartbeat_interval the consumers of a database in which nothing happens
# get on, and see what time it is. Only databases with slots have them; they cost no transaction.
use strict;
use warnings;

use IPC::Run;
use JSON::PP;
use Test::More;

use PgTrickle;

# Nothing else shall write WAL: the background writer would, after every heartbeat.
my $node = PgTrickle->new_node('heartbeats', settings => "autovacuum = off\ncheckpoint_timeout = '1d'\nwal_keep_size = '1GB'\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub set
{
	my (%settings) = @_;
	$node->append_conf('postgresql.conf', "$_ = '$settings{$_}'\n") for sort keys %settings;
	$node->reload;
	for (sort keys %settings)
	{
		wait_until($node, "SELECT setting = '$settings{$_}' FROM pg_settings WHERE name = '$_'");
	}
	return;
}

# A refresh by the scheduler: what it was told before, it has taken over.
my $rows = 0;
sub refresh
{
	$rows++;
	$node->safe_psql($_, "INSERT INTO t VALUES ($rows)") for 'postgres', 'silent';
	wait_until($node, "SELECT n = $rows FROM st", dbname => $_) for 'postgres', 'silent';
	return;
}

# All that are in the WAL of the server, whichever the database.
my $start;
sub heartbeats_in_wal
{
	my $end = sql('SELECT pg_current_wal_flush_lsn()');
	my @found = grep { /prefix "pg_trickle\.hb"/ } split /\n/, `pg_waldump -r LogicalMessage -p @{[ $node->data_dir ]}/pg_wal -s $start -e $end 2>/dev/null`;
	return scalar @found;
}

sql('CREATE DATABASE silent');
$node->safe_psql('silent', 'CREATE EXTENSION pg_trickle');
$node->safe_psql($_, q{CREATE TABLE t (id int PRIMARY KEY); SELECT pgtrickle.create_stream_table('st', 'SELECT count(*) AS n FROM t')}) for 'postgres', 'silent';
refresh();
$start = sql('SELECT pg_current_wal_insert_lsn()');

# --- none without a slot, and none unless asked for ------------------------------------------

is(sql('SHOW pg_trickle.heartbeat_interval'), '0', 'off by default');
like(error_of($node, "ALTER SYSTEM SET pg_trickle.heartbeat_interval = '-1'"), qr/22023.*outside the valid range/s, 'never less than never');
sql("SELECT pgtrickle.create_decoder_slot('s')");
refresh();
is(heartbeats_in_wal(), 0, 'with a slot, not asked for');
sql("SELECT pg_drop_replication_slot('s'); SELECT pg_create_physical_replication_slot('physical', true)");
set('pg_trickle.heartbeat_interval' => 1);
refresh();
# Both coordinators have seen the setting, and then that their time has come.
set('pg_trickle.test_clock_offset' => 60) if has_test_points();
refresh();
is(heartbeats_in_wal(), 0, 'asked for, but nobody decodes');

# --- a consumer of a database in which nothing happens ----------------------------------------

sql("SELECT pgtrickle.create_decoder_slot('s')");
my $file = $node->basedir . '/heartbeats.out';
my $consumer = IPC::Run::start(
	[ 'pg_recvlogical', '-d', $node->connstr('postgres'), '--slot', 's', '--no-loop', '-f', $file, '--start', '-s', '1', '-F', '1' ],
	'<', \undef, '2>', "$file.err");
wait_until($node, q{SELECT active FROM pg_replication_slots WHERE slot_name = 's'});
my $xid = sql('SELECT pg_snapshot_xmax(pg_current_snapshot())');
for my $turn (1 .. 3)
{
	my $before = sql('SELECT pg_current_wal_insert_lsn()');
	wait_until($node, "SELECT confirmed_flush_lsn > '$before' FROM pg_replication_slots WHERE slot_name = 's'");
}
pass('the slot gets on though nothing is written');
is(sql('SELECT pg_snapshot_xmax(pg_current_snapshot())'), $xid, 'and no transaction id is taken');
$consumer->signal('INT');
$consumer->finish;

open my $lines, '<', $file or die "could not open $file: $!";
my @heartbeats = grep { $_->{op} eq 'heartbeat' } map { decode_json($_) } <$lines>;
close $lines;
# The consumer confirms what it has written to its file.
cmp_ok(scalar(@heartbeats), '>=', 3, 'by heartbeats');
my @times = map { $_->{ts} } @heartbeats;
is_deeply([ sort { $a <=> $b } @times ], \@times, 'their times rise');
my $now = time() + (has_test_points() ? 60 : 0);
ok((!grep { abs($_ / 1e6 - $now) > 200 } @times), 'and are those of the clock, in microseconds');
ok((!grep { $times[$_] - $times[ $_ - 1 ] < 1e6 } 1 .. $#times), 'a second apart at least');

# --- only for databases with slots --------------------------------------------------------------

sql("SELECT pg_drop_replication_slot('s')");
refresh();
my $in_wal = heartbeats_in_wal();
$node->safe_psql('silent', "SELECT pgtrickle.create_decoder_slot('other')");
wait_until($node, q{SELECT count(*) >= 2 FROM pg_logical_slot_peek_changes('other', NULL, NULL) WHERE data LIKE '%"heartbeat"%'}, dbname => 'silent');
my $decoded = $node->safe_psql('silent', q{SELECT count(*) FROM pg_logical_slot_peek_changes('other', NULL, NULL) WHERE data LIKE '%"heartbeat"%'});
cmp_ok(heartbeats_in_wal() - $in_wal, '<=', $decoded + 1, 'a database whose slot was dropped has none any more');

# --- off again ---------------------------------------------------------------------------------

set('pg_trickle.heartbeat_interval' => 0);
refresh();
$in_wal = heartbeats_in_wal();
set('pg_trickle.test_clock_offset' => 120) if has_test_points();
refresh();
is(heartbeats_in_wal(), $in_wal, 'off again');
set('pg_trickle.heartbeat_interval' => 86400);
set('pg_trickle.test_clock_offset' => 200000) if has_test_points();
wait_until($node, qq{SELECT count(*) > $decoded FROM pg_logical_slot_peek_changes('other', NULL, NULL) WHERE data LIKE '%"heartbeat"%'}, dbname => 'silent')
  if has_test_points();
set('pg_trickle.test_clock_offset' => 0, 'pg_trickle.heartbeat_interval' => 1) if has_test_points();
$in_wal = heartbeats_in_wal();
wait_until($node, qq{SELECT count(*) > $decoded + 2 FROM pg_logical_slot_peek_changes('other', NULL, NULL) WHERE data LIKE '%"heartbeat"%'}, dbname => 'silent');
pass('a clock that is set back stops nothing');

$node->stop;
done_testing();
