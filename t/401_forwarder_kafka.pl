# The forwarder into a real Kafka, read by kcat and by the console consumer of Java: at least once
# and exactly once, with processes killed on both sides.
use strict;
use warnings;

use JSON::PP;
use Test::More;

use PgTrickle;
use PgtForwarder;
use PgtKafka;

my $node = PgTrickle->new_node('kafka', scheduler => 0);
my $db = 'postgres';
my $kafka = PgtKafka->new($node->basedir . '/kafka');
plan skip_all => $kafka->{missing} if $kafka->{missing};

build_forwarder();

my %once = ('source.slot' => 'eo', 'forwarder.delivery' => 'exactly_once', 'forwarder.status_interval' => 1, 'forwarder.transaction_records' => 100);
my %least = ('source.slot' => 'least', 'topics.prefix' => 'least');

$node->safe_psql($db, q{
	CREATE TABLE item (id int PRIMARY KEY, kind text, n int);
	SELECT pgtrickle.create_stream_table('st', 'SELECT id, kind, n FROM item', '1h');
	SELECT pg_create_logical_replication_slot(s, 'pg_trickle_decoder') FROM unnest(ARRAY['eo', 'least']) s;
});

sub refresh
{
	my ($sql) = @_;
	$node->safe_psql($db, "$sql; SELECT pgtrickle.refresh_stream_table('st')");
}

sub forward
{
	my ($settings, $name) = @_;
	my ($status, undef, $err) = run_forwarder($node, $kafka, $settings, '--once');
	is($status, 0, $name) or diag($err);
	return;
}

sub confirmed
{
	my ($slot, $name) = @_;
	my $lsn = $node->safe_psql($db, 'SELECT pg_current_wal_flush_lsn()');
	ok(wait_for(sub { $node->safe_psql($db, "SELECT confirmed_flush_lsn >= '$lsn' FROM pg_replication_slots WHERE slot_name = '$slot'") eq 't' }), $name);
	return;
}

sub topic_is_st
{
	my ($prefix, $name) = @_;
	my @records = records($kafka, "$prefix.public.st");

	topic_is_table($node, "$prefix.public.st", 'st', $name, @records);
	return @records;
}

$kafka->create_topic("$_.public.st", 'cleanup.policy' => 'compact', 'segment.ms' => 1000, 'min.cleanable.dirty.ratio' => 0.01, 'delete.retention.ms' => 100) for 'shop', 'least';

subtest 'rows arrive' => sub {
	refresh(q{INSERT INTO item SELECT g, 'k' || g % 3, g FROM generate_series(1, 300) g});
	refresh(q{UPDATE item SET n = n + 1 WHERE id % 5 = 0; DELETE FROM item WHERE id % 7 = 0});
	forward(\%least, 'at least once');
	topic_is_st('least', 'the topic is the stream table');
	forward(\%once, 'exactly once');
	my @records = topic_is_st('shop', 'the topic is the stream table');
	is(twice(@records), 0, 'nothing is there twice');

	# Partitions: what the producer of Java would choose (murmur2 of the key).
	my @java = $kafka->console_consumer('shop.public.st', '--isolation-level', 'read_committed', '--formatter-property', 'print.partition=true', '--formatter-property', 'print.value=false');
	is(scalar @java, scalar @records, 'the consumer of Java sees as many');
	my %java = map { /^Partition:(\d+)\t(.*)$/ ? ($2 => $1) : () } @java;
	is_deeply([ grep { $java{ $_->{key} } ne $_->{partition} } @records ], [], 'and the same keys in the same partitions');
	my ($key, $in) = %java;
	IPC::Run::run([ $kafka->command('org.apache.kafka.tools.ConsoleProducer', '--bootstrap-server', $kafka->{servers}, '--topic', 'partitioner',
				'--reader-property', 'parse.key=true', '--reader-property', 'key.separator=|') ], '<', \join('', map { "$_|x\n" } sort keys %java), '>', \my $out, '2>', \my $err);
	my @theirs = map { s/\n//r } split /^/, join '', map { "$_\n" } $kafka->console_consumer('partitioner', '--formatter-property', 'print.partition=true', '--formatter-property', 'print.value=false');
	is(join("\n", sort @theirs), join("\n", sort map { "Partition:$java{$_}\t$_" } keys %java), "Java's producer puts them into the same partitions");
};

subtest 'brokers go away' => sub {
	my %forwarder = (shop => start_forwarder($node, $kafka, \%once), least => start_forwarder($node, $kafka, \%least));
	my %slot = (shop => 'eo', least => 'least');

	confirmed($slot{$_}, "$_: it streams") for sort keys %slot;
	$kafka->kill;
	refresh(q{UPDATE item SET kind = 'down' WHERE id < 200});
	my $lsn = $node->safe_psql($db, 'SELECT pg_current_wal_flush_lsn()');
	$kafka->start;
	confirmed($slot{$_}, "$_: killed and started, it goes on") for sort keys %slot;
	$kafka->stop;
	refresh(q{UPDATE item SET kind = 'stopped' WHERE id < 200; DELETE FROM item WHERE id % 11 = 1});
	$kafka->start;
	confirmed($slot{$_}, "$_: stopped and started, it goes on") for sort keys %slot;
	is(stop_forwarder($forwarder{$_}), 0, "$_: ends") for sort keys %slot;
	topic_is_st('least', 'at least once: nothing is lost');
	is(twice(topic_is_st('shop', 'exactly once: nothing is lost')), 0, 'and nothing twice');
};

subtest 'killed at any moment' => sub {
	for my $round (1 .. 8)
	{
		my $forwarder = start_forwarder($node, $kafka, \%once);

		refresh("INSERT INTO item SELECT g, 'round $round', g FROM generate_series($round * 10000, $round * 10000 + 900) g;"
			  . "UPDATE item SET n = n + 1 WHERE id % 13 = 0 AND id >= 10000; DELETE FROM item WHERE id % 17 = $round");
		wait_for(sub { -s $forwarder->{log} && PostgreSQL::Test::Utils::slurp_file($forwarder->{log}) =~ /streaming/ });
		select undef, undef, undef, rand 0.2;    # anywhere
		is(stop_forwarder($forwarder, 'KILL'), 137, "round $round: killed");
	}
	forward(\%once, 'the last one ends');
	is(twice(topic_is_st('shop', 'nothing is lost')), 0, 'nothing is there twice');
	my @all = $kafka->console_consumer('shop.public.st', '--isolation-level', 'read_uncommitted');
	my @committed = $kafka->console_consumer('shop.public.st', '--isolation-level', 'read_committed');
	cmp_ok(scalar @all, '>=', scalar @committed, scalar(@all) - scalar(@committed) . ' records were taken back');
};

# In one partition; brokers do not end a transaction in all partitions at the same moment.
subtest 'a transaction is seen whole' => sub {
	$node->safe_psql($db, q{SELECT pg_create_logical_replication_slot('whole', 'pg_trickle_decoder')});
	$kafka->create_topic('whole.public.st', partitions => 1);
	refresh(q{DELETE FROM item WHERE id >= 10000; UPDATE item SET n = -1});
	my $rows = $node->safe_psql($db, 'SELECT count(*) FROM st');
	my $forwarder = start_forwarder($node, $kafka, { 'source.slot' => 'whole', 'topics.prefix' => 'whole', 'forwarder.delivery' => 'exactly_once' });
	my %sizes;
	ok(wait_for(sub {
				my @new = grep { $_->{value} && ($_->{value}{after}{n} // 0) == -1 } records($kafka, 'whole.public.st');
				$sizes{ scalar @new }++;
				return @new >= $rows;
			}), 'it arrives');
	is(join(' ', sort { $a <=> $b } keys %sizes) =~ s/^0 //r, $rows, 'all of its records at once');
	stop_forwarder($forwarder);
};

$kafka->stop;
$node->stop;
done_testing();
