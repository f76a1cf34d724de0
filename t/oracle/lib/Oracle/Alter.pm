# Oracle::Alter: other queries for stream tables that others read, with the same columns or
# with other ones, which costs those that read them (cascade => true).
#
# Those that read it go on, or are created again, and what they compute relies on the flags
# of its columns (Query.pm). So the other query shows no column of the same type whose flags
# are worse, and nothing is created that reads a column of another type (is_reshaped).
package Oracle::Alter;

use strict;
use warnings;

use Exporter 'import';

use Oracle::Random;
use Oracle::Tree;
use Oracle::Query;

our @EXPORT = qw(add_alterations is_reshaped);

# $before: for each stream table the relations that it may read.
sub add_alterations
{
	my ($case, $before) = @_;
	my $streams = $case->{streams};

	for (1 .. pick_weighted(0 => 70, 1 => 20, 2 => 10))
	{
		my $n = between(0, $#$streams);
		my @steps = chance(0.15) ? { k => 'drop', cascade => 1 } : alter_step($streams->[$n]{q}, $before->[$n]);
		my $s = between(1, 4);
		my $at = between(0, scalar @{ $case->{steps} });

		$_->{st} = $streams->[$n]{name} for @steps;
		push @steps, { k => 'alter', st => $streams->[$n]{name}, q => $steps[0]{q}, cascade => 1 }
		  if @steps && $steps[0]{q} && chance(0.3);
		push @steps, map { +{ k => 'create', st => $_->{name} } } @$streams[ $n .. $#$streams ] if @steps && chance(0.7);
		splice(@{ $case->{steps} }, $at, 0, map { +{ %$_, s => $s } } @steps);
	}
}

sub alter_step
{
	my ($query, $relations) = @_;
	my @types = map { $_->{type} eq 'row' ? 'int4' : $_->{type} } query_columns($query);
	my $how = pick_weighted(same => 3, longer => 2, retyped => 3, shorter => 2);

	push @types, pick(qw(int4 text)) if $how eq 'longer';
	$types[ int(rand(scalar @types)) ] = pick(qw(int8 numeric text)) if $how eq 'retyped';
	splice(@types, int(rand(scalar @types)), 1) if $how eq 'shorter' && @types > 1;
	for (1 .. 5)
	{
		my $other = make_query_of($relations, @types);
		return { k => 'alter', q => $other, cascade => chance(0.8) ? 1 : 0 } if is_faithful($query, $other);
	}
	return ();
}

sub is_faithful
{
	my ($query, $other) = @_;
	my @old = query_columns($query);
	my @new = query_columns($other);

	for my $i (0 .. $#old)
	{
		next if $i > $#new || $old[$i]{type} ne $new[$i]{type};
		return 0 if $old[$i]{st} && !$new[$i]{st} || $new[$i]{ap} && !$old[$i]{ap};
	}
	return 1;
}

# Has a stream table columns now that its readers were not made for?
sub is_reshaped
{
	my ($stream) = @_;
	return 0 unless $stream->{current};
	my @old = query_columns($stream->{q});
	my @new = query_columns($stream->{current});

	return 1 if @new < @old;
	return scalar grep { $old[$_]{type} ne $new[$_]{type} } 0 .. $#old;
}

1;
