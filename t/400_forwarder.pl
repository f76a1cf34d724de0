# The forwarder into brokers of librdkafka, read by kcat: what arrives is the stream table,
# nothing is lost when either side goes away, and it refuses what it cannot do.
use strict;
use warnings;

use HTTP::Tiny;
use JSON::PP;
use Test::More;

use PgTrickle;
use PgtForwarder;

my $node = PgTrickle->new_node('forwarder', scheduler => 0);
my $db = 'postgres';

build_forwarder();

my $brokers = PgtForwarder::Brokers->new;

$node->safe_psql($db, q{
	CREATE TABLE item (id int PRIMARY KEY, kind text, n int);
	SELECT pgtrickle.create_stream_table('st', 'SELECT id, kind, n FROM item', '1h');
});

sub refresh
{
	my ($sql) = @_;
	$node->safe_psql($db, "$sql; SELECT pgtrickle.refresh_stream_table('st')");
}

# key => row, as compacted() gives it.
sub table_rows
{
	my $rows = $node->safe_psql($db, "SELECT coalesce(json_object_agg('{\"id\":' || id || '}', row_to_json(t)), '{}') FROM st t");
	return JSON::PP->new->utf8->decode($rows);
}

sub arrived
{
	my ($topic) = @_;
	return compacted(records($brokers, $topic));
}

sub wait_until_confirmed
{
	my ($slot, $name) = @_;
	my $lsn = $node->safe_psql($db, 'SELECT pg_current_wal_flush_lsn()');

	ok($node->poll_query_until($db,
			"SELECT confirmed_flush_lsn >= '$lsn' FROM pg_replication_slots WHERE slot_name = '$slot'"),
		$name);
}

subtest 'what it refuses' => sub {
	my @refusals = (
		[ 'an unknown setting', { 'source.slot' => 's', 'source.tabels' => 'x' }, qr/unknown setting "source.tabels"/ ],
		[ 'no slot', {}, qr/no replication slot is named/ ],
		[ 'a slot that cannot be one', { 'source.slot' => 'A b' }, qr/cannot be the name of a slot/ ],
		[ 'a number that is none', { 'source.slot' => 's', 'forwarder.queue_mb' => '12x' }, qr/queue_mb is a number from/ ],
		[ 'a choice that is none', { 'source.slot' => 's', 'source.envelope' => 'avro' }, qr/one of: compact debezium/ ],
		[ 'a guarantee switched off', { 'source.slot' => 's', 'kafka.acks' => '0' }, qr/kafka.acks cannot be set/ ],
		[ 'a secret that is not there', { 'source.slot' => 's', 'kafka.sasl.password' => 'env:NO_SUCH_VARIABLE' }, qr/which is not set/ ],
		[ 'an unknown property', { 'source.slot' => 's1', 'kafka.no.such' => '1' }, qr/kafka.no.such/ ],
		[ 'a line that is too long', { 'source.slot' => 's', 'topics.name' => 'x' x 5000 }, qr/longer than \d+ bytes/ ],
		[ 'a template with an unknown name', { 'source.slot' => 's2', 'topics.name' => '${prefix}.${who}' }, qr/unknown "\$\{who\}"/ ],
		[ 'a slot that is not there', { 'source.slot' => 's3', 'source.create_slot' => 'off' }, qr/there is no logical replication slot "s3"/ ],
		[ 'a slot of another plugin', { 'source.slot' => 'other' }, qr/uses "test_decoding"/ ]);

	$node->safe_psql($db, "SELECT pg_create_logical_replication_slot('other', 'test_decoding')");
	$node->safe_psql($db, "SELECT pg_create_logical_replication_slot('s2', 'pg_trickle_decoder')");
	refresh('INSERT INTO item VALUES (-1, NULL, 0)');
	for my $case (@refusals)
	{
		my ($name, $settings, $expected) = @$case;
		my ($status, undef, $err) = run_forwarder($node, $brokers, $settings, '--once');

		is($status, 1, "$name: status");
		like($err, $expected, "$name: message");
	}
	$node->safe_psql($db, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
};

subtest 'checking' => sub {
	my ($status, $out) = run_forwarder($node, $brokers, { 'source.slot' => 'fwd' }, '--check');

	is($status, 0, 'all is well');
	is(() = $out =~ /^ok /mg, 5, 'five things were looked at');
	is($node->safe_psql($db, 'SELECT count(*) FROM pg_replication_slots'), '0', 'and no slot was made');
	($status, $out) = run_forwarder($node, undef, { 'source.slot' => 'fwd' }, '--check');
	is($status, 1, 'no brokers');
	like($out, qr/^FAILED\s+brokers\n\s+could not reach the brokers/m, 'and it says so');
};

# Two slots from the same place, the second to send everything again.
$node->safe_psql($db, "SELECT pg_create_logical_replication_slot(s, 'pg_trickle_decoder') FROM unnest(ARRAY['fwd', 'again']) s");

subtest 'rows arrive' => sub {
	refresh(q{INSERT INTO item SELECT g, 'k' || g % 3, g FROM generate_series(1, 200) g});
	refresh(q{UPDATE item SET n = n + 1 WHERE id % 5 = 0; DELETE FROM item WHERE id % 7 = 0});
	refresh(q{UPDATE item SET id = id + 1000 WHERE id % 11 = 0; UPDATE item SET kind = E'"ä\\\\\n' WHERE id = 2});

	my ($status, $out) = run_forwarder($node, $brokers, { 'source.slot' => 'fwd' }, '--once', '--dry-run');
	my $printed = () = $out =~ /\n/g;

	is($status, 0, 'dry run');
	my $before = slot_position($node, 'fwd');
	($status, undef, my $err) = run_forwarder($node, $brokers, { 'source.slot' => 'fwd' }, '--once');
	is($status, 0, 'once') or diag($err);
	isnt(slot_position($node, 'fwd'), $before, 'the slot has moved');

	my @records = records($brokers, 'shop.public.st');

	is(scalar @records, $printed, 'as many records as the dry run printed');
	my %images = %{ table_rows() };
	delete $images{'{"id":-1}'};    # older than the slot
	is_deeply(compacted(@records), \%images, 'compacted, the topic is the stream table');
	ok((grep { !defined $_->{value} } @records), 'there are tombstones');
	cmp_ok(scalar(keys %{ { map { $_->{partition} => 1 } @records } }), '>', 1, 'partitions are used');
	like($records[0]{headers}{schema_id}, qr/\A[0-9a-f]{16}\z/, 'headers: shape');
	like($records[0]{headers}{refresh_id}, qr/\A\d+\z/, 'headers: refresh');

	($status, undef, $err) = run_forwarder($node, $brokers, { 'source.slot' => 'again' }, '--once');
	is($status, 0, 'another slot with the same rows') or diag($err);
	is(scalar(my @now = records($brokers, 'shop.public.st')), scalar @records, 'nothing arrives twice');
};

subtest 'envelope compact, CloudEvents, topics of their own' => sub {
	my %settings = (
		'source.slot' => 'compact', 'source.snapshot' => 'never', 'source.envelope' => 'compact', 'topics.cloudevents' => 'on',
		'topics.schemas' => 'c.schemas', 'topics.transactions' => 'c.transactions', 'map.public.st' => 'mapped');

	run_forwarder($node, $brokers, \%settings, '--once');
	refresh(q{INSERT INTO item VALUES (5000, 'a', 1)});
	refresh(q{UPDATE item SET n = 2 WHERE id = 5000});
	my ($status, undef, $err) = run_forwarder($node, $brokers, \%settings, '--once');

	is($status, 0, 'forwarded') or diag($err);
	my @records = records($brokers, 'mapped');

	is(scalar @records, 2, 'both records in the topic that [map] names');
	is($records[1]{value}{op}, 'u', 'an update');
	is($records[1]{key}, '{"id":5000}', 'its key');
	is($records[1]{headers}{ce_id}, join(':', map { $records[1]{headers}{$_} } qw(system_id commit_lsn seq)), 'ce_id');
	like($records[1]{headers}{refresh_id}, qr/\A\d+\z/, 'headers: refresh');
	is(join(' ', map { $_->{value}{op} } records($brokers, 'c.transactions')), 'begin commit begin commit', 'transactions');
	is((records($brokers, 'c.schemas'))[0]{value}{table}, 'st', 'schemas');
	$node->safe_psql($db, "SELECT pg_drop_replication_slot('compact')");
};

subtest 'without a key, and truncated' => sub {
	$node->safe_psql($db, q{CREATE TABLE bag (v int); ALTER TABLE bag REPLICA IDENTITY FULL});
	$node->safe_psql($db, q{SELECT pg_create_logical_replication_slot('bag', 'pg_trickle_decoder')});
	$node->safe_psql($db, q{INSERT INTO bag VALUES (1), (1); DELETE FROM bag; TRUNCATE bag});

	my %settings = ('source.slot' => 'bag', 'source.tables' => 'public.bag');
	my ($status, undef, $err) = run_forwarder($node, $brokers, \%settings, '--once');

	is($status, 1, 'no key: refused');
	like($err, qr/"public.bag" has no key.*topics\.keyless/s, 'with the setting');
	$settings{'topics.keyless'} = 'single_partition';
	($status, undef, $err) = run_forwarder($node, $brokers, \%settings, '--once');
	is($status, 1, 'TRUNCATE: refused');
	like($err, qr/was truncated.*topics\.truncate/s, 'with the setting');
	$settings{'topics.truncate'} = 'send';
	($status, undef, $err) = run_forwarder($node, $brokers, \%settings, '--once');
	is($status, 0, 'sent') or diag($err);
	my @records = records($brokers, 'shop.public.bag');
	is(join('', map { $_->{value}{op} } grep { $_->{partition} == 0 } @records), 'ccddt', 'in order, each once');
	is(scalar(grep { $_->{value}{op} eq 't' } @records), 4, 'every partition hears of the truncation');
	$node->safe_psql($db, "SELECT pg_drop_replication_slot('bag')");
};

subtest 'topics of another server, or ahead of this one' => sub {
	my $system = $node->safe_psql($db, 'SELECT system_identifier FROM pg_control_system()');
	my %cases = (foreign => [ 1, '0/1', qr/was filled from another server/ ],
		ahead => [ $system, 'FFFF/0', qr/ahead of the server/ ]);

	for my $prefix (sort keys %cases)
	{
		my ($id, $lsn, $expected) = @{ $cases{$prefix} };

		$node->safe_psql($db, "SELECT pg_create_logical_replication_slot('$prefix', 'pg_trickle_decoder')");
		refresh(q{UPDATE item SET n = n + 1 WHERE id < 30});
		for my $partition (0 .. 3)
		{
			IPC::Run::run([ 'kcat', '-b', $brokers->{servers}, '-P', '-t', "$prefix.public.st", '-p', $partition,
					'-H', "system_id=$id", '-H', "commit_lsn=$lsn", '-H', 'seq=1', '-H', 'partitions=4' ],
				'<', \"x\n");
		}
		my ($status, undef, $err) = run_forwarder($node, $brokers,
			{ 'source.slot' => $prefix, 'topics.prefix' => $prefix }, '--once');
		is($status, 1, "$prefix: refused");
		like($err, $expected, "$prefix: why");
		$node->safe_psql($db, "SELECT pg_drop_replication_slot('$prefix')");
	}
};

subtest 'a process that stays' => sub {
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $http = HTTP::Tiny->new(timeout => 10);
	my $url = "http://127.0.0.1:$port";
	my %settings = ('source.slot' => 'fwd', 'forwarder.metrics_port' => $port);
	my $forwarder = start_forwarder($node, $brokers, \%settings);

	wait_until_confirmed('fwd', 'it catches up');
	is($http->get("$url/healthz")->{status}, 200, '/healthz');
	is($http->get("$url/readyz")->{status}, 200, '/readyz');
	like($http->get("$url/metrics")->{content}, qr/^pg_trickle_forwarder_streaming 1$/m, '/metrics');
	is($http->get("$url/else")->{status}, 404, 'something else');

	$node->safe_psql($db, 'CREATE TABLE quiet AS SELECT generate_series(1, 1000)');
	wait_until_confirmed('fwd', 'WAL without rows for us is confirmed');

	$brokers->command('down');
	refresh(q{INSERT INTO item SELECT g, 'down', g FROM generate_series(2001, 2100) g});
	ok(wait_for(sub {
				$http->get("$url/metrics")->{content} =~ /^pg_trickle_forwarder_pending_transactions 1$/m }),
		'brokers down: a transaction waits');
	my $lsn = $node->safe_psql($db, 'SELECT pg_current_wal_flush_lsn()');
	is($node->safe_psql($db, "SELECT confirmed_flush_lsn < '$lsn' FROM pg_replication_slots WHERE slot_name = 'fwd'"),
		't', 'and the slot stays before it');
	$brokers->command('up');
	wait_until_confirmed('fwd', 'brokers up: it arrives');
	topic_is_table_without('shop.public.st', 'and the topic is the stream table');

	# 29: TOPIC_AUTHORIZATION_FAILED, which no retry of the producer mends
	$brokers->command('errors 1 29');
	refresh(q{UPDATE item SET n = -n WHERE id > 2000});
	wait_until_confirmed('fwd', 'a record is refused: it comes again');
	like(slurp($forwarder->{log}), qr/topic "shop.public.st": Broker: Topic authorization failed/, 'with a message');
	topic_is_table_without('shop.public.st', 'and nothing is lost');

	$node->stop('fast');
	is($http->get("$url/readyz")->{status}, 503, 'server stopped: not ready');
	$node->start;
	refresh(q{DELETE FROM item WHERE id > 2050});
	wait_until_confirmed('fwd', 'server started: it goes on');
	topic_is_table_without('shop.public.st', 'and nothing is lost');
	is(stop_forwarder($forwarder, 'TERM'), 0, 'SIGTERM: done');
	ok(!$node->safe_psql($db, "SELECT active FROM pg_replication_slots WHERE slot_name = 'fwd' AND active"), 'the slot is free');
};

subtest 'killed at any moment' => sub {
	my %settings = ('source.slot' => 'fwd', 'forwarder.queue_mb' => 1);

	for my $round (1 .. 8)
	{
		my $forwarder = start_forwarder($node, $brokers, \%settings);

		refresh("INSERT INTO item SELECT g, 'round $round', g FROM generate_series($round * 10000, $round * 10000 + 600) g;"
			  . "UPDATE item SET n = n + 1 WHERE id % 13 = 0 AND id >= 10000; DELETE FROM item WHERE id % 17 = $round");
		# Somewhere within: when some of it has arrived.
		wait_for(sub { -s $forwarder->{log} && slurp($forwarder->{log}) =~ /streaming/ });
		is(stop_forwarder($forwarder, 'KILL'), 137, "round $round: killed");
	}
	my ($status, undef, $err) = run_forwarder($node, $brokers, \%settings, '--once');
	is($status, 0, 'the last one ends') or diag($err);
	my @records = records($brokers, 'shop.public.st');
	my (%seen, $twice);
	topic_is_table_without('shop.public.st', 'the topic is the stream table', @records);
	$twice += $seen{$_}++ ? 1 : 0 for places(@records);
	is($twice, 0, 'no record is there twice');
};

$brokers->stop;
done_testing();

# The row that is older than the slot never went through it.
sub topic_is_table_without
{
	my ($topic, $name, @records) = @_;
	my $canonical = JSON::PP->new->canonical->utf8;
	my ($have, $want) = (@records ? compacted(@records) : arrived($topic), table_rows());

	delete $_->{'{"id":-1}'} for $have, $want;
	is($canonical->encode($have), $canonical->encode($want), $name);
}

sub slurp
{
	my ($path) = @_;
	open my $file, '<', $path or return '';
	local $/;
	return <$file>;
}
