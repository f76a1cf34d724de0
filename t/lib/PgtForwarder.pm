# PgtForwarder.pm: what the tests of examples/kafka-forwarder share.
#
#   build_forwarder();                       # with the checks of the compiler's sanitizers
#   my $brokers = PgtForwarder::Brokers->new;          # librdkafka's, in a process of their own
#   $brokers->command('down');
#   my ($status, $out, $err) = run_forwarder($node, $brokers, { 'source.slot' => 's' }, '--once');
#   my $forwarder = start_forwarder($node, $brokers, {...});   # in the background
#   $forwarder->{log}                        # what it has said
#   stop_forwarder($forwarder, 'TERM');      # its exit status
#   my @records = records($brokers, 'shop.public.st');         # read by kcat
#   compacted(@records)                      # key => value: what a compacted topic would hold
#   topic_is_table($node, 'shop.public.st', 'st', 'name', @records);   # tests that it is the table, keyed by id
package PgtForwarder;

use strict;
use warnings;

use Cwd qw(abs_path);
use Encode ();
use Exporter 'import';
use IPC::Run;
use JSON::XS;
use Test::More;

use PgTrickle;

our @EXPORT = qw(
  build_forwarder
  run_forwarder
  start_forwarder
  stop_forwarder
  write_config
  records
  compacted
  topic_is_table
  twice
  places
  slot_position
  wait_for
);

my $folder = abs_path('examples/kafka-forwarder');
my $program = "$folder/pg-trickle-forwarder";
# make check-forwarder-valgrind: an error, or memory that nobody can reach any more, is exit status 99.
my @under = $ENV{PGT_VALGRIND} ? qw(valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite) : ();
my $json = JSON::XS->new->utf8->allow_nonref->canonical;
my $configs = 0;

# A crash in a callback would otherwise be a silent exit.
sub build_forwarder
{
	my $flags = '-O1 -g' . (@under ? '' : ' -fsanitize=address,undefined -fno-sanitize-recover=undefined');
	my $messages = `make -s -C $folder clean 2>&1; make -s -C $folder all tests CFLAGS='$flags' 2>&1`;

	$ENV{ASAN_OPTIONS} = 'detect_leaks=0';
	is($?, 0, 'the forwarder builds') or BAIL_OUT($messages);
	is($messages, '', 'without warnings');
}

# A file with these settings, { 'section.name' => value }; those of every test come first.
sub write_config
{
	my ($node, $brokers, $settings) = @_;
	my %all = (
		'source.conninfo' => $node->connstr('postgres'),
		'source.create_slot' => 'on',
		'topics.prefix' => 'shop',
		'kafka.bootstrap.servers' => $brokers ? $brokers->{servers} : '127.0.0.1:1',
		%{ $settings || {} });
	my $path = $node->basedir . '/forwarder' . $configs++ . '.ini';
	my %sections;

	for my $name (sort keys %all)
	{
		my ($section, $rest) = split /\./, $name, 2;

		push @{ $sections{$section} }, "$rest = $all{$name}\n" if defined $all{$name};
	}
	open my $file, '>', $path or die "could not write $path: $!";
	print $file map { ("[$_]\n", @{ $sections{$_} }) } sort keys %sections;
	close $file;
	return $path;
}

# To its end: exit status, standard output, standard error.
sub run_forwarder
{
	my ($node, $brokers, $settings, @arguments) = @_;
	my @command = (@under, $program, '--config', write_config($node, $brokers, $settings), @arguments);
	my ($out, $err) = ('', '');

	eval { IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(180)) };
	return ($? >> 8, $out, $@ ? "$err\n$@" : $err);
}

sub start_forwarder
{
	my ($node, $brokers, $settings, @arguments) = @_;
	my $forwarder = { log => '' };

	$forwarder->{run} = IPC::Run::start(
		[ @under, $program, '--config', write_config($node, $brokers, $settings), @arguments ],
		'<', \undef, '>', '/dev/null', '2>', $node->basedir . "/forwarder$configs.log");
	$forwarder->{log} = $node->basedir . "/forwarder$configs.log";
	return $forwarder;
}

# Its exit status, or 128 and the signal that ended it.
sub stop_forwarder
{
	my ($forwarder, $signal) = @_;

	$forwarder->{run}->signal($signal || 'TERM');
	eval { $forwarder->{run}->finish };
	my $status = $?;

	return $status & 127 ? 128 + ($status & 127) : $status >> 8;
}

# All records of a topic, by partition in their order: { partition, offset, key, value, place, ... }.
sub records
{
	my ($brokers, $topic) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run(
		[ 'kcat', '-b', $brokers->{servers}, '-C', '-t', $topic, '-o', 'beginning', '-e', '-q', '-J' ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(180));

	my @records;
	for my $line (split /\n/, $out)
	{
		my $event = $json->decode($line);
		my %headers;
		my @list = @{ $event->{headers} || [] };

		while (my ($name, $value) = splice @list, 0, 2)
		{
			$headers{$name} = $value;
		}
		push @records,
		  { partition => $event->{partition},
			offset => $event->{offset},
			key => $event->{key},
			value => defined $event->{payload} && $event->{payload} ne ''
			? $json->decode(Encode::encode_utf8($event->{payload}))
			: undef,
			headers => \%headers,
			place => join('/', map { $headers{$_} // 0 } qw(commit_lsn seq part)) };
	}
	return sort { $a->{partition} <=> $b->{partition} || $a->{offset} <=> $b->{offset} } @records;
}

# What compaction would leave: key => the row.
sub compacted
{
	my %rows;

	for my $record (@_)
	{
		my $value = $record->{value};

		if (!defined $value)
		{
			delete $rows{ $record->{key} };
			next;
		}
		my $image = exists $value->{after} ? $value->{after} : $value->{a};

		$rows{ $record->{key} } = $image if defined $image;
	}
	return \%rows;
}

# Compacted, the records are the rows of the table whose key is id.
sub topic_is_table
{
	my ($node, $topic, $table, $name, @records) = @_;
	my $rows = $node->safe_psql('postgres',
		"SELECT coalesce(json_object_agg('{\"id\":' || id || '}', row_to_json(t)), '{}') FROM $table t");

	Test::More::is($json->encode(compacted(@records)), $json->encode($json->decode($rows)), $name);
}

# How many records are there more than once, by their positions.
sub twice
{
	my %seen;

	return scalar grep { $seen{$_}++ } places(@_);
}

# Positions of records, to see what came twice.
sub places
{
	return map { "$_->{partition} $_->{place}" } @_;
}

sub slot_position
{
	my ($node, $slot) = @_;
	return $node->safe_psql('postgres',
		"SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '$slot'");
}

# Until the function is true; false at the time limit.
sub wait_for
{
	my ($true) = @_;
	my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;

	while (time() < $deadline)
	{
		return 1 if $true->();
		select(undef, undef, undef, 0.01);
	}
	return 0;
}

package PgtForwarder::Brokers;

sub new
{
	my ($class, $count) = @_;
	my $self = bless { in => '', out => '' }, $class;

	$self->{run} = IPC::Run::start([ "$folder/tests/mockd", $count || 1 ],
		'<', \$self->{in}, '>', \$self->{out}, IPC::Run::timeout(600));
	$self->{run}->pump until $self->{out} =~ s/\A(\S+)\n//;
	$self->{servers} = $1;
	return $self;
}

# down, up, "errors N CODE"
sub command
{
	my ($self, $command) = @_;

	$self->{out} = '';
	$self->{in} .= "$command\n";
	$self->{run}->pump until $self->{out} =~ /\n/;
	die "mockd: $self->{out}" unless $self->{out} eq "ok\n";
}

sub stop
{
	my ($self) = @_;
	$self->{run}->kill_kill;
}

1;
