# Forwarders of both deliveries into a real Kafka while writers write and the scheduler refreshes, and
# forwarders, broker, server and its workers are killed (kill -9) at random. In the end the topics are the
# stream table; the events of each key follow one from the other, none is missing; with exactly once
# none is there twice. PGT_CHAOS_SECONDS=600 (make chaos-forwarder) for longer.
use strict;
use warnings;

use DBI;
use IPC::Run;
use JSON::XS;
use Test::More;
use Time::HiRes qw(time sleep);

use PgTrickle;
use PgtForwarder;
use PgtKafka;

my $seconds = $ENV{PGT_CHAOS_SECONDS} || 120;
my $seed = $ENV{SEED} || time % 1_000_000;
srand($seed);
note("SEED=$seed");

my $node = PgTrickle->new_node('chaos', settings => "restart_after_crash = on\nmax_replication_slots = 20\n");
my $kafka = PgtKafka->new($node->basedir . '/kafka');
plan skip_all => $kafka->{missing} if $kafka->{missing};
build_forwarder();

my $canonical = JSON::XS->new->canonical->utf8;
my %of = (once => 'exactly_once', least => 'at_least_once');
my (%forwarder, %killed);

$node->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, kind text, n int);
	INSERT INTO item SELECT g, 'k' || g % 3, g FROM generate_series(1, 2000) g;
	SELECT pgtrickle.create_stream_table('st', 'SELECT id, kind, n FROM item')});

sub start_one
{
	my ($name) = @_;
	$forwarder{$name} = start_forwarder($node, $kafka, { 'source.slot' => $name, 'topics.prefix' => $name, 'forwarder.delivery' => $of{$name},
			'forwarder.status_interval' => 1, 'forwarder.transaction_records' => 200, 'forwarder.shutdown_timeout' => 60 });
	return;
}

# True if it runs. It may not end by itself, whatever goes on.
sub is_alive
{
	my ($name) = @_;
	my $run = $forwarder{$name}{run};

	$run->pump_nb;
	return 1 if $run->pumpable;
	eval { $run->finish };
	fail("$name ended by itself: $?");
	diag(PostgreSQL::Test::Utils::slurp_file($forwarder{$name}{log}));
	return 0;
}

# Transactions of some statements, for ever, through crashes of the server.
sub start_writer
{
	my $parent = $$;
	my $pid = fork() // die "fork: $!";
	return $pid if $pid;

	srand($seed + 1);
	my $connstr = $node->connstr('postgres') =~ tr/ /;/r;
	my $dbh;
	while (getppid() == $parent)
	{
		eval {
			$dbh ||= DBI->connect("dbi:Pg:$connstr", '', '', { RaiseError => 1, PrintError => 0 });
			my $id = 1 + int rand 3000;
			$dbh->begin_work;
			$dbh->do("UPDATE item SET n = n + 1 WHERE id BETWEEN $id AND $id + " . int rand 10);
			$dbh->do("DELETE FROM item WHERE id = $id + 20");
			$dbh->do("INSERT INTO item SELECT g, 'new', 0 FROM generate_series($id + 30, $id + 33) g ON CONFLICT DO NOTHING");
			$dbh->do("UPDATE item SET kind = 'all' || $id WHERE id % 3 = 0") if rand() < 0.002;
			$dbh->commit;
			1;
		} or do { undef $dbh; sleep 0.1 };
		sleep 0.005;
	}
	require POSIX;
	POSIX::_exit(0);
}

my %disaster = (
	forwarder => sub { my $name = rand() < 0.5 ? 'once' : 'least'; stop_forwarder($forwarder{$name}, 'KILL'); start_one($name) },
	worker => sub {
		wait_until_up($node);
		my ($status, $pids) = $node->psql('postgres', q{SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type LIKE 'pg_trickle%' OR backend_type = 'walsender'});
		my @pids = split / /, $pids // '';
		kill 'KILL', $pids[ rand @pids ] if @pids;
	},
	broker => sub { $kafka->kill; sleep rand 2; $kafka->start },
	# Its children take a moment to notice.
	server => sub {
		my $deadline = time + 60;
		$node->kill9;
		until (IPC::Run::run([ 'pg_ctl', '-w', '-D', $node->data_dir, '-l', $node->logfile, 'start' ], '<', \undef, '>', '/dev/null', '2>&1'))
		{
			die "the server does not start again\n" if time > $deadline;
			sleep 0.2;
		}
		$node->_update_pid(1);
	});

start_one($_) for sort keys %of;
for my $name (sort keys %of)
{
	ok(wait_for(sub { PostgreSQL::Test::Utils::slurp_file($forwarder{$name}{log}) =~ /streaming from slot/ }), "$name: has begun, with the rows that are there")
	  or diag(PostgreSQL::Test::Utils::slurp_file($forwarder{$name}{log}));
}
my $writer = start_writer();
my $end = time + $seconds;
my $alive = 1;
while ($alive && time < $end)
{
	sleep rand 2;
	my $what = (('forwarder') x 5, ('worker') x 2, 'broker', 'server')[ rand 9 ];
	note("kill -9: $what");
	$disaster{$what}->();
	$killed{$what}++;
	$alive &&= is_alive($_) for sort keys %of;
}
kill 'KILL', $writer;
waitpid $writer, 0;
note('killed: ' . join ', ', map { "$_ $killed{$_}" } sort keys %killed);

ok(wait_until_up($node), 'the server is there');
wait_for_fresh($node, 'st');
my $lsn = $node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
for my $name (sort keys %of)
{
	ok($node->poll_query_until('postgres', "SELECT confirmed_flush_lsn >= '$lsn' FROM pg_replication_slots WHERE slot_name = '$name'"), "$name: catches up")
	  or diag(PostgreSQL::Test::Utils::slurp_file($forwarder{$name}{log}));
	is(stop_forwarder($forwarder{$name}), 0, "$name: ends");
	my @records = records($kafka, "$name.public.st");
	note("$name: " . @records . ' records, ' . twice(@records) . ' of them again');
	is(twice(@records), 0, "$name: nothing is there twice") if $name eq 'once';
	topic_is_table($node, "$name.public.st", 'st', "$name: the topic is the stream table", @records);
	is(join("\n", breaks(@records)), '', "$name: each event follows from the one before");
}
$kafka->stop;
$node->stop;
done_testing();

# Where the old image of an event is not what the event before has left.
sub breaks
{
	my (%now, %seen, @breaks);

	for my $record (grep { $_->{value} && !$seen{"$_->{partition} $_->{place}"}++ } @_)
	{
		my ($key, $value) = @$record{qw(key value)};
		my ($have, $before) = map { defined $_ ? $canonical->encode($_) : 'nothing' } $now{$key}, $value->{before};

		push @breaks, "$key at $record->{place}: $before, but there was $have" if $have ne $before;
		$now{$key} = $value->{after};
	}
	return @breaks > 5 ? @breaks[ 0 .. 4 ] : @breaks;
}
