# PgtDebezium.pm: Debezium connectors in a process of their own, and a consumer of what they emit.
#
#   my $debezium = PgtDebezium->new($node, 'name', { %config, 'database.password' => 'x' }, ...);
#   plan skip_all => $debezium->{missing} if $debezium->{missing};
#   $debezium->start;  $debezium->stop;  $debezium->kill;    # stop: in order; returns its status
#   $debezium->wait_for(sub { ... });                        # false if the process has ended
#   $debezium->rows('public.st', sub { ... })                # of each row a line, sorted
#   $debezium->events                                        # [{ topic, key, value }, ...]
#
# The rows are replayed from the events alone: by key where the events have one, else as a bag,
# by their old images.
package PgtDebezium;

use strict;
use warnings;

use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;

use PgtMaven;

my $json = JSON::PP->new->utf8->canonical->allow_nonref;

sub new
{
	my ($class, $node, $name, @configs) = @_;
	my $base = $node->basedir . "/debezium_$name";
	my @files;

	for my $i (0 .. $#configs)
	{
		my %all = (
			%{ $configs[$i] },
			# Of the engine, in the place of Kafka Connect.
			'name' => "$name$i",
			'offset.storage' => 'org.apache.kafka.connect.storage.FileOffsetBackingStore',
			'offset.storage.file.filename' => "$base$i.offsets",
			'offset.flush.interval.ms' => 0,
			'converter.schemas.enable' => 'false');

		open my $file, '>', "$base$i.properties" or die "could not write $base$i.properties: $!";
		print $file map { "$_=" . ($all{$_} =~ s/\\/\\\\/gr) . "\n" } sort keys %all;
		close $file;
		push @files, { properties => "$base$i.properties", events => "$base$i.jsonl", read => 0 };
	}
	return bless { base => $base, files => \@files, starts => 0, events => [], tables => {}, %{ maven_jars('t/debezium') } },
	  $class;
}

sub start
{
	my ($self) = @_;

	$self->{log} = "$self->{base}." . $self->{starts}++ . '.log';
	$self->{run} = IPC::Run::start(
		[ 'java', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xmx256m', '-cp', $self->{classpath}, 't/debezium/Follow.java',
			map { $_->{properties}, $_->{events} } @{ $self->{files} } ],
		'<', \undef, '>', '/dev/null', '2>', $self->{log});
	return;
}

# Its exit status, or 128 and the signal that ended it.
sub finish
{
	my ($self, $signal) = @_;

	$self->{run}->signal($signal) if $signal;
	eval { $self->{run}->finish };
	return $? & 127 ? 128 + ($? & 127) : $? >> 8;
}

sub stop { return $_[0]->finish('TERM') }
sub kill { return $_[0]->finish('KILL') }

sub log { return PostgreSQL::Test::Utils::slurp_file($_[0]{log}) }

# What the log has besides the usual.
sub complaints { return map { "$_\n" } grep { / (?:WARN|ERROR) |failed|Exception/ } split /\n/, $_[0]->log }

# Takes over what was written since.
sub read
{
	my ($self) = @_;

	for my $source (@{ $self->{files} })
	{
		next if !-e $source->{events};
		open my $file, '<', $source->{events} or die "could not open $source->{events}: $!";
		seek $file, $source->{read}, 0;
		while (my $line = <$file>)
		{
			last if $line !~ /\n\z/;
			$source->{read} += length $line;
			my $event = $json->decode($line);
			push @{ $self->{events} }, $event;
			$self->replay($event);
		}
		close $file;
	}
	return;
}

sub replay
{
	my ($self, $event) = @_;
	my $value = $event->{value} or return; # a tombstone
	return if !$value->{source} || !$value->{op} || $value->{op} eq 'm';
	my $table = "$value->{source}{schema}.$value->{source}{table}";
	my $rows = $self->{tables}{$table} ||= {};
	my ($op, $before, $after) = @$value{qw(op before after)};

	die "$table was truncated\n" if $op eq 't';
	if (defined $event->{key})
	{
		my $key = $json->encode($event->{key});
		if ($op eq 'd') { delete $rows->{$key} }
		else { $rows->{$key} = [$after] }
		return;
	}
	if ($before)
	{
		my $image = $json->encode($before);
		die "$table has no row $image\n" if !$rows->{$image};
		pop @{ $rows->{$image} };
		delete $rows->{$image} if !@{ $rows->{$image} };
	}
	push @{ $rows->{ $json->encode($after) } }, $after if $after;
	return;
}

sub events { $_[0]->read; return $_[0]{events} }

# Of a table: how many of each op since the last call.
sub counts
{
	my ($self, $table) = @_;
	my %counts;

	$self->read;
	for (splice @{ $self->{events} })
	{
		my $value = $_->{value} or next;
		$counts{ $value->{op} }++ if $value->{op} && "$value->{source}{schema}.$value->{source}{table}" eq $table;
	}
	return join ' ', map { "$_ $counts{$_}" } sort keys %counts;
}

sub rows
{
	my ($self, $table, $line) = @_;

	$self->read;
	return join "\n", sort map { $line->($_) } map { @$_ } values %{ $self->{tables}{$table} || {} };
}

sub wait_for
{
	my ($self, $is_so) = @_;
	my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;

	while (!$is_so->())
	{
		# What it wrote last may be what was waited for.
		return $is_so->() if time() > $deadline || !$self->{run}->pumpable;
		$self->{run}->pump_nb;
		select undef, undef, undef, 0.1;
	}
	return 1;
}

1;
