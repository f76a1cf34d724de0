# What does not fit, and who does not let the forwarder in: rows and records that are too large, brokers
# that are away while much is written, passwords that are wrong, files that cannot be written. Each time
# it says what is wrong, its memory stays bounded, the slot does not move, and nothing is lost.
# PGT_OUTAGE_SECONDS=300 keeps the brokers away for longer.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgtForwarder;
use PgtKafka;

my $node = PgTrickle->new_node('limits', scheduler => 0);
my $db = 'postgres';
my $kafka = PgtKafka->new($node->basedir . '/kafka');
plan skip_all => $kafka->{missing} if $kafka->{missing};
build_forwarder();

sub sql { return $node->safe_psql($db, $_[0]) }
sub slot { my ($name) = @_; return sql("SELECT pg_create_logical_replication_slot('$name', 'pg_trickle_decoder')") }
sub said { my ($forwarder) = @_; return PostgreSQL::Test::Utils::slurp_file($forwarder->{log}) }

sub confirmed
{
	my ($slot, $name) = @_;
	my $lsn = sql('SELECT pg_current_wal_flush_lsn()');
	ok(wait_for(sub { sql("SELECT confirmed_flush_lsn >= '$lsn' FROM pg_replication_slots WHERE slot_name = '$slot'") eq 't' }), $name);
	return;
}

sql(q{CREATE TABLE big (id int PRIMARY KEY, v text); ALTER TABLE big REPLICA IDENTITY FULL});

subtest 'a row that is too large' => sub {
	my %settings = ('source.slot' => 'rows', 'source.tables' => 'public.big', 'topics.prefix' => 'rows', 'source.max_message_bytes' => 20000);

	slot('rows');
	sql(q{INSERT INTO big VALUES (1, 'small'); INSERT INTO big SELECT 2, string_agg(md5(g::text), '') FROM generate_series(1, 3000) g; INSERT INTO big VALUES (3, 'after')});
	my ($status, undef, $err) = run_forwarder($node, $kafka, \%settings, '--once');
	is($status, 1, 'refused');
	like($err, qr/too large.*source\.oversize = omit/s, 'with what to do');
	is_deeply([ map { $_->{value}{after}{id} } records($kafka, 'rows.public.big') ], [1], 'what came before is there');
	($status, undef, $err) = run_forwarder($node, $kafka, { %settings, 'source.oversize' => 'omit' }, '--once');
	is($status, 0, 'sent without the value') or diag($err);
	my ($large) = grep { $_->{value}{after}{id} == 2 } records($kafka, 'rows.public.big');
	is_deeply([ $large->{value}{after}{v}, $large->{value}{oversize} ], [ undef, ['v'] ], 'which it says');
	is(join(' ', sort map { $_->{value}{after}{id} } records($kafka, 'rows.public.big')), '1 2 3', 'each row once');
};

subtest 'a record that is too large for the brokers' => sub {
	my %settings = ('source.slot' => 'records', 'source.tables' => 'public.big', 'topics.prefix' => 'records');

	slot('records');
	$kafka->create_topic('records.public.big', 'max.message.bytes' => 5000);
	sql(q{INSERT INTO big SELECT 12, string_agg(md5(g::text), '') FROM generate_series(1, 1000) g});
	my $before = slot_position($node, 'records');
	my $forwarder = start_forwarder($node, $kafka, \%settings);
	ok(wait_for(sub { said($forwarder) =~ /brokers refused a record for topic "records.public.big".*message\.max\.bytes/s }), 'it says so, with what to do');
	is(slot_position($node, 'records'), $before, 'and the slot does not move');
	$kafka->java('kafka.admin.ConfigCommand', '--bootstrap-server', $kafka->{servers}, '--alter', '--entity-type', 'topics', '--entity-name', 'records.public.big',
		'--add-config', 'max.message.bytes=1000000');
	confirmed('records', 'the limit is raised: it goes on by itself');
	is(stop_forwarder($forwarder), 0, 'ends');
	is_deeply([ map { $_->{value}{after}{id} } records($kafka, 'records.public.big') ], [12], 'the record is there');
};

for my $delivery ('at_least_once', 'exactly_once')
{
	subtest "brokers away, $delivery" => sub {
		my %settings = ('source.slot' => $delivery, 'source.tables' => 'public.big', 'topics.prefix' => $delivery, 'forwarder.delivery' => $delivery,
			'forwarder.queue_mb' => 8, 'forwarder.status_interval' => 1);

		slot($delivery);
		$kafka->create_topic("$delivery.public.big");
		my $forwarder = start_forwarder($node, $kafka, \%settings);
		confirmed($delivery, 'it streams');
		$kafka->stop;
		# Some 80 MB.
		sql(q{INSERT INTO big SELECT g, repeat(md5(g::text), 20) FROM generate_series(100001, 200000) g});
		my $committed = sql('SELECT pg_current_wal_flush_lsn()');
		sql(q{DELETE FROM big WHERE id > 100000});
		# As long as it takes the server to send what it may: then nothing moves any more.
		my ($sent, $same) = ('', 0);
		ok(wait_for(sub {
					my $now = sql("SELECT coalesce(max(sent_lsn)::text, '') FROM pg_stat_replication");
					$same = $now eq $sent ? $same + 1 : 0;
					$sent = $now;
					return $same > 40;
				}), 'the server waits');
		sleep($ENV{PGT_OUTAGE_SECONDS} || 0);
		is(sql("SELECT confirmed_flush_lsn < '$committed' FROM pg_replication_slots WHERE slot_name = '$delivery'"), 't', 'the slot is before what is missing');
		my ($kb) = PostgreSQL::Test::Utils::slurp_file('/proc/' . $forwarder->{run}{KIDS}[0]{PID} . '/status') =~ /^VmHWM:\s+(\d+) kB/m;
		# The sanitizers of this build take their part; what waits is 8 MB.
		cmp_ok($kb, '<', 100_000, "memory is bounded: $kb kB");
		$kafka->start;
		confirmed($delivery, 'brokers are back: it catches up');
		is(stop_forwarder($forwarder), 0, 'ends');
		my @records = records($kafka, "$delivery.public.big");
		is(scalar(grep { $_->{value} && $_->{value}{op} eq 'c' } @records), 100000, 'all of it is there');
		is(scalar(grep { $_->{value} && $_->{value}{op} eq 'd' } @records), 100000, 'in both directions');
		is(twice(@records), 0, 'nothing twice') if $delivery eq 'exactly_once';
		sql("SELECT pg_drop_replication_slot('$delivery')");
	};
}

subtest 'a wrong password' => sub {
	my %settings = ('source.slot' => 'sasl', 'source.tables' => 'public.big', 'topics.prefix' => 'sasl', 'kafka.bootstrap.servers' => $kafka->{sasl},
		'kafka.security.protocol' => 'sasl_plaintext', 'kafka.sasl.mechanism' => 'PLAIN', 'kafka.sasl.username' => 'fwd', 'kafka.sasl.password' => 'env:PGT_TEST_PASSWORD');

	slot('sasl');
	sql(q{INSERT INTO big VALUES (20, 'secret')});
	my $before = slot_position($node, 'sasl');
	local $ENV{PGT_TEST_PASSWORD} = 'wrong';
	my ($status, $out) = run_forwarder($node, $kafka, \%settings, '--check');
	is($status, 1, '--check fails');
	like($out, qr/^FAILED\s+brokers\n\s+could not reach the brokers.*\n\s+.*sasl/m, 'and names the settings');
	my $forwarder = start_forwarder($node, $kafka, \%settings);
	ok(wait_for(sub { said($forwarder) =~ /[Aa]uthentication failed|Authentication failure/ }), 'it says why');
	is(slot_position($node, 'sasl'), $before, 'the slot does not move');
	stop_forwarder($forwarder);
	unlike(said($forwarder), qr/wrong/, 'it does not tell the password');
	$ENV{PGT_TEST_PASSWORD} = 'secret';
	($status, undef, my $err) = run_forwarder($node, $kafka, \%settings, '--once');
	is($status, 0, 'the right one') or diag($err);
	is_deeply([ map { $_->{value}{after}{id} } records($kafka, 'sasl.public.big') ], [20], 'nothing is lost');
};

subtest 'a full disk' => sub {
	slot('full');
	sql(q{INSERT INTO big SELECT g, 'x' FROM generate_series(31, 3000) g});
	my ($status, undef, $err) = (0, '', '');
	my $config = write_config($node, $kafka, { 'source.slot' => 'full', 'source.tables' => 'public.big', 'topics.prefix' => 'full' });
	system("examples/kafka-forwarder/pg-trickle-forwarder --config $config --once --dry-run >/dev/full 2>$config.log");
	is($? >> 8, 1, 'of what a dry run prints');
	like(PostgreSQL::Test::Utils::slurp_file("$config.log"), qr/could not write to standard output/, 'is told');
	($status, undef, $err) = run_forwarder($node, $kafka, { 'source.slot' => 'full', 'source.tables' => 'public.big', 'topics.prefix' => 'full', 'forwarder.log_file' => '/dev/full' }, '--once');
	is($status, 0, 'of its log: it goes on') or diag($err);
	is(scalar(() = records($kafka, 'full.public.big')), 2970, 'and forwards');
	($status, undef, $err) = run_forwarder($node, $kafka, { 'source.slot' => 'full', 'forwarder.log_file' => '/nowhere/log' }, '--once');
	is($status, 1, 'a log that cannot be opened');
	like($err, qr{/nowhere/log}, 'is an error at once');
};

$kafka->stop;
$node->stop;
done_testing();
