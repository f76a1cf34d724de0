# PgtKafka.pm: a real Apache Kafka for tests: one broker on loopback that is its own controller.
#
#   my $kafka = PgtKafka->new($folder);            # a folder that it may fill; started
#   plan skip_all => $kafka->{missing} if $kafka->{missing};
#   $kafka->{servers}                              # for kafka.bootstrap.servers; records() takes $kafka
#   $kafka->{sasl}                                 # the same, for user fwd with password secret (SASL PLAIN)
#   $kafka->kill;  $kafka->stop;  $kafka->start;   # kill -9, in order, again on the same data
#   $kafka->create_topic('name', partitions => 4, 'cleanup.policy' => 'compact');
#   my @lines = $kafka->console_consumer('name', '--isolation-level', 'read_committed');   # key, tab, value
package PgtKafka;

use strict;
use warnings;

use IO::Socket::INET;
use IPC::Run;

use PgtMaven;

sub new
{
	my ($class, $folder) = @_;
	my $self = bless { folder => $folder, starts => 0, %{ maven_jars('t/kafka') } }, $class;

	return $self if $self->{missing};
	mkdir $folder or die "could not make $folder: $!";
	my @held = map { IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') // die "no port: $!" } 1 .. 3;
	my ($port, $controller, $sasl) = map { $_->sockport } @held;
	$_->close for @held;
	$self->{servers} = "127.0.0.1:$port";
	$self->{sasl} = "127.0.0.1:$sasl";
	open my $file, '>', "$folder/server.properties" or die "could not write: $!";
	print $file <<"CONF";
process.roles=broker,controller
node.id=1
controller.quorum.voters=1\@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,SASL://127.0.0.1:$sasl,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port,SASL://127.0.0.1:$sasl
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_fwd="secret";
controller.listener.names=CONTROLLER
log.dirs=$folder/data
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.backoff.ms=500
CONF
	close $file;
	$self->java('kafka.tools.StorageTool', 'format', '--cluster-id', 'pgTrickleTestsCluste00', '--config', "$folder/server.properties");
	$self->start;
	return $self;
}

sub command
{
	my ($self, @arguments) = @_;
	return ('java', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xmx512m', '-cp', $self->{classpath}, @arguments);
}

# A program of Kafka to its end: what it prints.
sub java
{
	my ($self, @arguments) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ $self->command(@arguments) ], '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(180))
	  or die "@arguments: $out$err";
	return $out;
}

sub start
{
	my ($self) = @_;

	$self->{log} = "$self->{folder}/broker." . $self->{starts}++ . '.log';
	$self->{run} = IPC::Run::start([ $self->command('kafka.Kafka', "$self->{folder}/server.properties") ],
		'<', \undef, '>', $self->{log}, '2>&1');
	my $deadline = time() + 180;
	until ($self->answers)
	{
		die "Kafka does not start, see $self->{log}\n" if time() > $deadline || !$self->{run}->pumpable;
		select undef, undef, undef, 0.1;
	}
	return;
}

sub answers
{
	my ($self) = @_;
	return IPC::Run::run([ 'kcat', '-b', $self->{servers}, '-L', '-m', '2' ], '<', \undef, '>', \my $out, '2>', \my $err);
}

sub stop { my ($self) = @_; $self->{run}->signal('TERM'); eval { $self->{run}->finish }; return }
sub kill { my ($self) = @_; $self->{run}->signal('KILL'); eval { $self->{run}->finish }; return }

sub create_topic
{
	my ($self, $name, %settings) = @_;
	my $partitions = delete $settings{partitions} || 4;

	$self->java('org.apache.kafka.tools.TopicCommand', '--bootstrap-server', $self->{servers}, '--create', '--if-not-exists', '--topic', $name,
		'--partitions', $partitions, map { ('--config', "$_=$settings{$_}") } sort keys %settings);
	return;
}

# All that is there. It ends when nothing more comes for a while.
sub console_consumer
{
	my ($self, $topic, @options) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ $self->command('org.apache.kafka.tools.consumer.ConsoleConsumer', '--bootstrap-server', $self->{servers}, '--topic', $topic, '--from-beginning',
				'--timeout-ms', '5000', '--formatter-property', 'print.key=true', '--formatter-property', 'null.literal=(tombstone)', @options) ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(180));
	return split /\n/, $out;
}

sub DESTROY { my ($self) = @_; $self->kill if $self->{run} && $self->{run}->pumpable; return }

1;
