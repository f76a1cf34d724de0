# PgtOutput.pm: a reader of pgoutput's protocol 1, which is what Debezium asks for, that keeps the
# tables it hears of as bags of rows. It knows nothing but the messages.
#
#   my $copy = PgtOutput->new($node, slot => 's', publication => 'p');   # the slot exists
#   $copy->read;                             # takes what the slot has; dies of what does not fit
#   $copy->rows('public.st', 'id', 'b')      # sorted lines, columns separated by |
package PgtOutput;

use strict;
use warnings;

sub new
{
	my ($class, $node, %arg) = @_;
	return bless { node => $node, relations => {}, tables => {}, counts => {}, %arg }, $class;
}

sub take { return unpack $_[1], substr ${ $_[0] }, 0, $_[2], '' }

sub take_name
{
	my ($in) = @_;
	$$in =~ s/\A([^\0]*)\0//s or die "no end of a name\n";
	return $1;
}

# { column => text, undef for null }
sub take_tuple
{
	my ($in, $relation) = @_;
	my %row;
	my $n = take($in, 'n', 2);

	die "$n columns instead of " . @{ $relation->{columns} } . "\n" if $n != @{ $relation->{columns} };
	for my $column (@{ $relation->{columns} })
	{
		my $kind = take($in, 'a', 1);
		if ($kind eq 'n') { $row{$column} = undef }
		elsif ($kind eq 't') { my $length = take($in, 'N', 4); $row{$column} = take($in, "a$length", $length) }
		else { die "value of kind $kind\n" }
	}
	return \%row;
}

sub image
{
	my ($row) = @_;
	return join ',', map { $_ . '=' . (defined $row->{$_} ? "'$row->{$_}'" : 'null') } sort keys %$row;
}

sub remove
{
	my ($self, $relation, $row) = @_;
	my $bag = $self->{tables}{ $relation->{name} } ||= {};
	my $image = image($row);

	die "no row $image in $relation->{name}\n" if !$bag->{$image};
	pop @{ $bag->{$image} };
	delete $bag->{$image} if !@{ $bag->{$image} };
	return;
}

sub add
{
	my ($self, $relation, $row) = @_;
	push @{ $self->{tables}{ $relation->{name} }{ image($row) } }, $row;
	return;
}

# The rows that are there have new columns, too: null.
sub follow
{
	my ($self, $name, $columns) = @_;
	my @rows = map { @$_ } values %{ $self->{tables}{$name} || {} };

	$self->{tables}{$name} = {};
	for my $row (@rows)
	{
		my %now;
		@now{@$columns} = @{$row}{@$columns};
		$self->add({ name => $name }, \%now);
	}
	return;
}

sub message
{
	my ($self, $in) = @_;
	my $type = take(\$in, 'a', 1);

	$self->{counts}{$type}++;
	if ($type eq 'R')
	{
		my $id = take(\$in, 'N', 4);
		my $name = take_name(\$in) . '.' . take_name(\$in);
		my ($identity, $n) = (take(\$in, 'a', 1), take(\$in, 'n', 2));
		die "identity $identity of $name\n" if $identity ne 'f';
		my @columns = map { take(\$in, 'C', 1); my $column = take_name(\$in); take(\$in, 'NN', 8); $column } 1 .. $n;
		$self->{relations}{$id} = { name => $name, columns => \@columns };
		$self->follow($name, \@columns);
	}
	elsif ($type =~ /[IUD]/)
	{
		my $relation = $self->{relations}{ take(\$in, 'N', 4) } || die "a relation that was not told\n";
		while (length $in)
		{
			my $side = take(\$in, 'a', 1);
			my $row = take_tuple(\$in, $relation);
			if ($side eq 'O') { $self->remove($relation, $row) }
			elsif ($side eq 'N') { $self->add($relation, $row) }
			else { die "side $side of $type\n" }
		}
	}
	elsif ($type !~ /[BCY]/) { die "message $type\n" }
	return;
}

sub read
{
	my ($self) = @_;
	my $lines = $self->{node}->safe_psql('postgres', "SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('$self->{slot}', NULL, NULL, 'proto_version', '1', 'publication_names', '$self->{publication}')");

	$self->message(pack 'H*', $_) for split /\n/, $lines;
	return;
}

sub rows
{
	my ($self, $table, @columns) = @_;
	my @lines;

	for my $rows (values %{ $self->{tables}{$table} || {} })
	{
		push @lines, join '|', map { defined $_ ? $_ : '' } @{$_}{@columns} for @$rows;
	}
	return join "\n", sort @lines;
}

1;
