# Three minutes of t/soak: writers, DDL, settings, kill -9 and terminate storms. Every stream table
# is compared with its query at the frontiers that it reports, and when all has come to rest.
use strict;
use warnings;

use Test::More;

# A mistake must be found, else silence means nothing.
my ($status, $output) = soak(qw(--seconds 10 --kill 600 --fake-bug));
is($status, 1, 'a stream table that is not what it was at its frontier is found') or diag($output);
like($output, qr/is not what it was at its frontier/, 'and told');

($status, $output) = soak(qw(--seconds 180 --round 60 --kill 12));
is($status, 0, 'stream tables equal their queries') or diag($output);
note($output);
like($output, qr/kill -9 pg_trickle/, 'processes of the extension were killed');

done_testing();

sub soak
{
	my @options = @_;
	my $output = `perl t/soak/soak.pl @options 2>&1`;

	return ($? >> 8, $output);
}
