# The forwarder makes its slot, and begins with the rows that are there: while others write, without a
# gap and without a row twice; given up, it leaves nothing that looks complete.
use strict;
use warnings;

use IPC::Run;
use JSON::PP;
use Test::More;

use PgTrickle;
use PgtForwarder;
use PgtKafka;

my $node = PgTrickle->new_node('snapshot', scheduler => 0);
my $db = 'postgres';

build_forwarder();
my $mock = PgtForwarder::Brokers->new;
my $kafka = PgtKafka->new($node->basedir . '/kafka');

sub sql { return $node->safe_psql($db, $_[0]) }
sub slots { return sql('SELECT count(*) FROM pg_replication_slots') }

sql(q{
	CREATE TABLE item (id int PRIMARY KEY, kind text, n int);
	INSERT INTO item SELECT g, repeat('k' || g % 3, 20), g FROM generate_series(1, 20000) g;
	SELECT pgtrickle.create_stream_table('st', 'SELECT id, kind, n FROM item', '1h');
	SELECT pgtrickle.create_stream_table('none', 'SELECT id, kind FROM item WHERE id < 0', '1h');
	CREATE SCHEMA "Odd.";
	CREATE TABLE "Odd."."a ""b" (id int PRIMARY KEY, v text); ALTER TABLE "Odd."."a ""b" REPLICA IDENTITY FULL;
	INSERT INTO "Odd."."a ""b" VALUES (1, E'\\\\ "x" \n'), (2, NULL)});

# Writers of st while a forwarder runs.
sub start_writer
{
	my $script = $node->basedir . '/writer.sql';
	open my $file, '>', $script or die "could not write: $!";
	print $file q{\set id random(1, 20000)
BEGIN; UPDATE item SET n = n + 1 WHERE id = :id; DELETE FROM item WHERE id = :id + 7; INSERT INTO item VALUES (:id + 100000, 'new', 0) ON CONFLICT DO NOTHING;
SELECT pgtrickle.refresh_stream_table('st'); COMMIT;
};
	close $file;
	return IPC::Run::start([ 'pgbench', '-n', '-T', 600, '-f', $script, $node->connstr($db) ], '>', \my $out, '2>', \my $err);
}

# [ delivery, brokers ]; brokers of librdkafka show what was not committed, too.
for my $case ([ 'at_least_once', $mock ], [ 'exactly_once', $kafka ])
{
	my ($delivery, $brokers) = @$case;
	my %settings = ('source.slot' => $delivery, 'source.tables' => '"Odd.".*', 'topics.prefix' => $delivery, 'forwarder.delivery' => $delivery,
		'forwarder.queue_mb' => 1, 'forwarder.status_interval' => 1);

	subtest $delivery => sub {
		plan skip_all => $brokers->{missing} if $brokers->{missing};

		my $writer = start_writer();
		my $forwarder = start_forwarder($node, $brokers, \%settings);
		ok(wait_for(sub { PostgreSQL::Test::Utils::slurp_file($forwarder->{log}) =~ /streaming from slot/ }), 'a snapshot, and then the slot');
		like(PostgreSQL::Test::Utils::slurp_file($forwarder->{log}), qr/the initial snapshot is complete: \d{5} rows.*created the replication slot "$delivery"/s, 'it says so');
		$writer->kill_kill;
		wait_until($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench'});
		my $lsn = sql('SELECT pg_current_wal_flush_lsn()');
		ok($node->poll_query_until($db, "SELECT confirmed_flush_lsn >= '$lsn' FROM pg_replication_slots WHERE slot_name = '$delivery'"), 'it catches up');
		is(stop_forwarder($forwarder), 0, 'ends');
		is(slots(), '1', 'one slot is there');

		my @records = records($brokers, "$delivery.public.st");
		my @snapshot = grep { $_->{value} && $_->{value}{op} eq 'r' } @records;
		cmp_ok(scalar @snapshot, '>', 10000, scalar(@snapshot) . ' rows of the snapshot, ' . (@records - @snapshot) . ' records after it');
		is($snapshot[0]{value}{source}{snapshot}, 'true', 'marked as such');
		topic_is_table($node, "$delivery.public.st", 'st', 'the topic is the stream table', @records);
		is(twice(@records), 0, 'nothing is there twice');
		topic_is_table($node, "$delivery.Odd..a__b", '"Odd."."a ""b"', 'an ordinary table', records($brokers, "$delivery.Odd..a__b"));
		sql("SELECT pg_drop_replication_slot('$delivery')");

		my ($status, undef, $err) = run_forwarder($node, $brokers, \%settings, '--once');
		is($status, 1, 'another slot, and topics that have something');
		like($err, $delivery eq 'exactly_once' ? qr/slot has moved beyond what the topics have/ : qr/has records already, but the replication slot is new/, 'would leave a gap');
		is(slots(), '0', 'and no slot is left');
	};

	subtest "$delivery, killed within" => sub {
		plan skip_all => $brokers->{missing} if $brokers->{missing};

		my %again = (%settings, 'topics.prefix' => "again_$delivery");
		# Until its topic is there; with a small queue that is in the middle of it.
		my $forwarder = start_forwarder($node, $brokers, \%again);
		ok(wait_for(sub { IPC::Run::run([ 'kcat', '-b', $brokers->{servers}, '-C', '-t', "again_$delivery.public.st", '-c', '1', '-e', '-q', '-X', 'isolation.level=read_uncommitted' ],
						'<', \undef, '>', \my $out, '2>', \my $err); defined $out && $out ne '' }), 'some rows are there');
		my $complete = PostgreSQL::Test::Utils::slurp_file($forwarder->{log}) =~ /is complete/;
		is(stop_forwarder($forwarder, 'KILL'), 137, 'killed' . ($complete ? ', too late' : ''));
		wait_until($node, 'SELECT count(*) = 0 FROM pg_replication_slots WHERE temporary');
		is(slots(), $complete ? '1' : '0', 'no slot');
		my ($status, undef, $err) = run_forwarder($node, $brokers, \%again, '--once');
		if ($complete) { pass('no matter') for 1 .. 2 }
		elsif ($delivery eq 'at_least_once')
		{
			is($status, 1, 'refused');
			like($err, qr/has records already.*Empty the topic/s, 'since rows may have gone since');
		}
		else
		{
			is($status, 0, 'nobody has seen anything, so it is taken again') or diag($err);
			topic_is_table($node, "again_$delivery.public.st", 'st', 'the topic is the stream table', records($brokers, "again_$delivery.public.st"));
		}
		sql(q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots});
	};
}

subtest 'what it needs' => sub {
	my %settings = ('source.slot' => 'needs', 'topics.prefix' => 'needs');

	my ($status, $out, $err) = run_forwarder($node, $mock, { %settings, 'source.tables' => '"Odd.".*' }, '--once', '--dry-run');
	is($status, 0, 'dry run') or diag($err);
	like($out, qr/"topic":"needs.Odd..a__b".*"op":"r"/, 'it prints the snapshot');
	is(slots(), '0', 'and makes no slot');

	($status, $out, $err) = run_forwarder($node, $mock, { %settings, 'source.snapshot' => 'never' }, '--once');
	is($status, 0, 'without a snapshot') or diag($err);
	is(scalar(() = records($mock, 'needs.public.st')), 0, 'there are no rows');
	is(slots(), '1', 'but a slot');
	sql("SELECT pg_drop_replication_slot('needs'); CREATE ROLE fwd LOGIN REPLICATION; GRANT pg_monitor TO fwd");
	($status, $out, $err) = run_forwarder($node, $mock, { %settings, 'source.conninfo' => $node->connstr($db) . ' user=fwd' }, '--once');
	is($status, 1, 'without SELECT');
	like($err, qr/could not take the initial snapshot: permission denied for table/, 'it says why');
	$node->safe_psql($db, 'CREATE DATABASE bare');
	($status, $out, $err) = run_forwarder($node, $mock, { %settings, 'source.conninfo' => $node->connstr('bare') }, '--once');
	is($status, 1, 'without the extension');
	like($err, qr/needs the extension pg_trickle.*snapshot = never/, 'it says so');
	is(slots(), '0', 'nothing is left');
};

$mock->stop;
$node->stop;
done_testing();
