# The checks of t/lint, the same that "make lint" runs.
use strict;
use warnings;

use Test::More;

for my $check (qw(layers.pl headers.sh text.pl symbols.sh version_sync.sh format.sh))
{
	my $output = `t/lint/$check 2>&1`;

	ok($? == 0, $check) || diag($output);
	note($output) if $? == 0 && $output ne '';
}
done_testing();
