# PgtEvents.pm: what the decoder writes, in whichever format, as events of one shape.
#
#   my @events = events_in($bytes, 'compact');    # or debezium, binary
#   my @rows = rows_in($bytes, 'compact');        # c, u, d, t of these
#
# Rows have op, t, k, b, a, unchanged and position, [commit_lsn, seq] as numbers; values of binary
# are read by their types. Other messages are as in JSON. Dies on what is not the format.
package PgtEvents;

use strict;
use warnings;

use Exporter 'import';

use JSON::PP;

use PgtBinary;

our @EXPORT = qw(events_in rows_in from_compact lsn_number);
our @EXPORT_OK = qw(event);

my $json = JSON::PP->new->utf8->allow_bignum(0)->canonical;

# A line of JSON.
sub event
{
	my ($line) = @_;
	my $event = eval { $json->decode($line) };

	die "not one JSON object: $line\n$@" unless ref $event eq 'HASH';
	return $event;
}

sub from_compact
{
	my ($event) = @_;
	return { %$event, position => [ lsn_number($event->{p}[0]), $event->{p}[1] ] };
}

# As compact writes names.
sub quoted { my ($name) = @_; return $name =~ /\A[a-z0-9_]+\z/ ? $name : '"' . $name =~ s/"/""/gr . '"' }

sub from_debezium
{
	my ($event, $keys) = @_;
	my $source = $event->{source};
	my $key = $keys->{ $source->{schema_id} } || []; # schemas can be switched off
	my $from = $event->{before} // $event->{after};

	return { op => $event->{op}, t => join('.', map { quoted($_) } @$source{qw(schema table)}), b => $event->{before}, a => $event->{after}, unchanged => $event->{unchanged},
		@$key && $from ? (k => { map { $_ => $from->{$_} } @$key }) : (), position => [ $source->{commit_lsn}, $source->{seq} ] };
}

sub binary_image
{
	my ($schema, $image, $unchanged) = @_;
	my %image;

	return undef unless $image;
	for my $i (0 .. $#$image)
	{
		my $column = $schema->{columns}[$i];

		if (!defined $image->[$i]) { $image{ $column->{name} } = undef }
		elsif (ref $image->[$i]) { $image{ $column->{name} } = read_value($column->{type}, ${ $image->[$i] }) }
		elsif ($image->[$i] eq 'unchanged') { push @$unchanged, $column->{name} }
	}
	return \%image;
}

sub from_binary
{
	my ($row, $schemas) = @_;
	my $schema = $schemas->{ $row->{s} };
	my @unchanged;
	my ($old, $new) = (binary_image($schema, $row->{old}), binary_image($schema, $row->{new}, \@unchanged));
	my $from = $old // $new;

	return { op => $row->{op}, t => $row->{t}, b => $old, a => $new, unchanged => \@unchanged,
		@{ $schema->{key} } && $from ? (k => { map { $_ => $from->{$_} } @{ $schema->{key} } }) : (), position => [ lsn_number($row->{commit_lsn}), $row->{seq} ] };
}

sub lsn_number { my ($high, $low) = map { hex } split m{/}, $_[0]; return $high * 2**32 + $low }

# The events in such bytes, in their order.
sub events_in
{
	my ($bytes, $format) = @_;
	my %schemas;

	if ($format eq 'binary')
	{
		return map { $schemas{ $_->{schema_id} } = $_ if $_->{op} eq 'schema'; $_->{op} =~ /\A[cudt]\z/ ? from_binary($_, \%schemas) : $_ } read_binary($bytes);
	}
	my @events;
	for my $event (map { event($_) } split /\n/, $bytes)
	{
		$schemas{ $event->{schema_id} } = $event->{key} if $event->{op} eq 'schema';
		push @events, $event->{op} !~ /\A[cudt]\z/ ? $event : $format eq 'debezium' ? from_debezium($event, \%schemas) : from_compact($event);
	}
	return @events;
}

sub rows_in { return grep { $_->{op} =~ /\A[cudt]\z/ } events_in(@_) }

1;
