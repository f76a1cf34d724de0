# The forwarder with delivery = exactly_once, into brokers of librdkafka: the position is in the
# state topic with the rows, a restart goes on from there, and what cannot be is refused. These
# brokers do not hide what was taken back: processes that are killed need real ones (t/401_forwarder_kafka.pl).
use strict;
use warnings;

use HTTP::Tiny;
use JSON::PP;
use Test::More;

use PgTrickle;
use PgtForwarder;

my $node = PgTrickle->new_node('exactly', scheduler => 0);
my $db = 'postgres';

build_forwarder();

my $brokers = PgtForwarder::Brokers->new;
my %exactly = ('source.slot' => 'eo', 'forwarder.delivery' => 'exactly_once', 'forwarder.status_interval' => 1);

$node->safe_psql($db, q{
	CREATE TABLE item (id int PRIMARY KEY, kind text, n int);
	SELECT pgtrickle.create_stream_table('st', 'SELECT id, kind, n FROM item', '1h');
	SELECT pg_create_logical_replication_slot('eo', 'pg_trickle_decoder');
});

sub refresh
{
	my ($sql) = @_;
	$node->safe_psql($db, "$sql; SELECT pgtrickle.refresh_stream_table('st')");
}

sub slot
{
	my ($what) = @_;
	return $node->safe_psql($db, "SELECT $what FROM pg_replication_slots WHERE slot_name = 'eo'");
}

# The newest position, and how many there were.
sub state
{
	my @states = grep { $_->{key} eq 'eo' } records($brokers, 'shop.eo.state');
	return ($states[-1]{value}, scalar @states);
}

sub topic_is_st
{
	my ($name) = @_;
	my @records = records($brokers, 'shop.public.st');

	topic_is_table($node, 'shop.public.st', 'st', $name, @records);
	is(twice(@records), 0, 'nothing is there twice');
}

subtest 'once' => sub {
	refresh(q{INSERT INTO item SELECT g, 'k' || g % 3, g FROM generate_series(1, 200) g});
	refresh(q{UPDATE item SET n = n + 1 WHERE id % 5 = 0; DELETE FROM item WHERE id % 7 = 0});

	my ($status, $out) = run_forwarder($node, $brokers, \%exactly, '--check');
	is($status, 0, '--check') or diag($out);

	($status, undef, my $err) = run_forwarder($node, $brokers, \%exactly, '--once');
	is($status, 0, 'ends') or diag($err);
	topic_is_st('the topic is the stream table');

	my ($state, $count) = state();
	is($state->{end_lsn}, slot('confirmed_flush_lsn'), 'the slot is where the state topic says');
	is($state->{system_id}, $node->safe_psql($db, 'SELECT system_identifier FROM pg_control_system()'), 'the server');

	my $records = () = records($brokers, 'shop.public.st');
	($status, undef, $err) = run_forwarder($node, $brokers, \%exactly, '--once');
	is($status, 0, 'again') or diag($err);
	like($err, qr/going on from \Q$state->{end_lsn}\E/, 'from there');
	is(scalar(() = records($brokers, 'shop.public.st')), $records, 'nothing to send');
};

subtest 'a large transaction is split' => sub {
	my (undef, $before) = state();
	my %split = (%exactly, 'forwarder.transaction_records' => 50);

	refresh(q{INSERT INTO item SELECT g, 'large', g FROM generate_series(10001, 12000) g});
	my ($status, undef, $err) = run_forwarder($node, $brokers, \%split, '--once');
	is($status, 0, 'it is forwarded') or diag($err);
	cmp_ok((state())[1], '>', $before + 2, 'in parts');
	topic_is_st('the topic is the stream table');
	my ($state) = state();
	is($state->{end_lsn}, slot('confirmed_flush_lsn'), 'the position is its end');
};

subtest 'a process that stays' => sub {
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $forwarder = start_forwarder($node, $brokers, { %exactly, 'forwarder.metrics_port' => $port });
	my $metric = sub {
		my ($name) = @_;
		my $text = HTTP::Tiny->new(timeout => 10)->get("http://127.0.0.1:$port/metrics")->{content};
		return $text =~ /^pg_trickle_forwarder_$name (\S+)$/m ? $1 : -1;
	};
	my $confirmed = sub {
		my ($name) = @_;
		my $lsn = $node->safe_psql($db, 'SELECT pg_current_wal_flush_lsn()');
		ok(wait_for(sub { slot("confirmed_flush_lsn >= '$lsn'") eq 't' }), $name);
	};

	refresh(qq{UPDATE item SET n = n + 1 WHERE id % 10 = $_}) for 1 .. 5;
	$confirmed->('it catches up');
	cmp_ok($metric->('kafka_transactions_total'), '>', 0, 'transactions of Kafka are counted');
	$node->safe_psql($db, 'CREATE TABLE quiet AS SELECT generate_series(1, 1000)');
	$confirmed->('WAL without rows for us is confirmed');
	my ($state) = state();
	is($node->safe_psql($db, "SELECT '$state->{end_lsn}'::pg_lsn >= confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'eo'"),
		't', 'and never beyond the state topic');

	$brokers->command('down');
	my $lsn = $node->safe_psql($db, 'SELECT pg_current_wal_flush_lsn()');
	refresh(q{UPDATE item SET kind = 'down' WHERE id < 100});
	ok(wait_for(sub { $metric->('pending_transactions') == 1 }), 'brokers down: a transaction waits');
	is(slot("confirmed_flush_lsn <= '$lsn'"), 't', 'and the slot stays before it');
	$brokers->command('up');
	$confirmed->('brokers up: it arrives');
	topic_is_st('the topic is the stream table');

	$node->stop('fast');
	$node->start;
	refresh(q{DELETE FROM item WHERE id % 3 = 0});
	$confirmed->('server restarted: it goes on');
	topic_is_st('the topic is the stream table');
	is(stop_forwarder($forwarder, 'TERM'), 0, 'SIGTERM: done');
};

subtest 'what it refuses' => sub {
	my ($state) = state();
	my $refused = sub {
		my ($expected, $name, %change) = @_;
		my $text = JSON::PP->new->canonical->encode({ %$state, %change });

		IPC::Run::run([ 'kcat', '-b', $brokers->{servers}, '-P', '-t', 'shop.eo.state', '-p', '0', '-K', '|' ],
			'<', \"eo|$text\n");
		my ($status, undef, $err) = run_forwarder($node, $brokers, \%exactly, '--once');
		is($status, 1, $name);
		like($err, $expected, 'why');
	};

	$refused->(qr/were filled from another server/, 'topics of another server', system_id => '1');
	$refused->(qr/ahead of the server/, 'topics ahead of the server', end_lsn => 'FFFF/0');
	$refused->(qr/cannot be read/, 'a position that is none', end_lsn => 'x');
	$refused->(qr/slot has moved beyond/, 'a gap', end_lsn => '0/1');
	IPC::Run::run([ 'kcat', '-b', $brokers->{servers}, '-P', '-t', 'shop.eo.state', '-p', '0', '-K', '|' ],
		'<', \('eo|' . JSON::PP->new->encode($state) . "\n"));
	my ($status, undef, $err) = run_forwarder($node, $brokers, \%exactly, '--once');
	is($status, 0, 'as it was: it goes on') or diag($err);
	$refused = undef;

	refresh(q{UPDATE item SET n = 0 WHERE id < 50});
	$node->safe_psql($db, "SELECT pg_drop_replication_slot('eo'); SELECT pg_create_logical_replication_slot('eo', 'pg_trickle_decoder')");
	($status, undef, $err) = run_forwarder($node, $brokers, \%exactly, '--once');
	is($status, 1, 'a slot that was made anew is a gap');
	like($err, qr/slot has moved beyond/, 'why');
};

$brokers->stop;
done_testing();
