# A short run of t/oracle: fixed seeds only, so that what fails here fails again. make oracle
# runs random ones, and longer.
use strict;
use warnings;

use Test::More;

use PgTrickle;

plan skip_all => 'the settings of test builds are missing' unless has_test_points();

# The tester must find a mistake, else its silence means nothing.
my ($status, $output) = run_oracle(qw(--fake-bug --seeds 1000-1030 --only --failures 1 --shrink 4));
is($status, 1, 'the tester finds the mistake of a fake');
like($output, qr/tries of making it smaller/, 'and makes the case smaller');

($status, $output) = run_oracle(qw(--fake --seeds 1-20 --only --seconds 10));
is($status, 0, 'the tester finds none where there is none') or diag(last_lines($output));

($status, $output) = run_oracle(qw(--seeds 1-24 --only --seconds 60 --failures 2 --shrink 40));
is($status, 0, 'stream tables equal their queries') or diag($output);
note($output);

done_testing();

sub run_oracle
{
	my @options = @_;
	my $output = `perl t/oracle/oracle.pl @options 2>&1`;

	return ($? >> 8, $output);
}

sub last_lines
{
	my ($text) = @_;
	my @lines = split /^/, $text;

	splice(@lines, 0, @lines - 60) if @lines > 60;
	return join('', @lines);
}
