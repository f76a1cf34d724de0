# Oracle::Random: choices. All of them come from Perl's own generator, seeded once per
# case, so that a seed makes the same case on every machine.
package Oracle::Random;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(chance pick pick_weighted pick_some between);

# True with the given probability.
sub chance
{
	my ($probability) = @_;
	return rand() < $probability;
}

# One of the arguments.
sub pick
{
	return $_[int(rand(scalar @_))];
}

# pick_weighted(a => 3, b => 1): a three times as often as b.
sub pick_weighted
{
	my @pairs = @_;
	my $total = 0;

	for (my $i = 1; $i < @pairs; $i += 2)
	{
		$total += $pairs[$i];
	}
	my $at = rand($total);
	for (my $i = 0; $i < @pairs; $i += 2)
	{
		$at -= $pairs[ $i + 1 ];
		return $pairs[$i] if $at < 0;
	}
	return $pairs[-2];
}

# $n different ones of the rest, in their order.
sub pick_some
{
	my ($n, @from) = @_;
	my @index = (0 .. $#from);

	while (@index > $n)
	{
		splice(@index, int(rand(scalar @index)), 1);
	}
	return @from[@index];
}

sub between
{
	my ($low, $high) = @_;
	return $low + int(rand($high - $low + 1));
}

1;
