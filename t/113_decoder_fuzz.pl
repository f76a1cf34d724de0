# A short run of t/fuzz/decoder.pl with fixed seeds, so that what fails here fails again; make
# fuzz-decoder runs random ones, and longer.
use strict;
use warnings;

use Test::More;

for my $seed (1 .. 6)
{
	my $output = `perl t/fuzz/decoder.pl --seed $seed 2>&1`;

	is($?, 0, "seed $seed") or diag($output);
	like($output, qr/^1 seeds, .* [1-9]\d* rows, .*no finding$/m, 'rows were compared');
}

done_testing();
