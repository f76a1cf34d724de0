# The SQL tests of t/regress, through pg_regress. No scheduler: a test says itself when
# something is refreshed, so its output is always the same.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgRegress;

plan skip_all => 'no tests in t/regress' unless glob('t/regress/sql/*.sql');

my $node = PgTrickle->new_node('regress', scheduler => 0, extension => 0);

run_regress(
	$node,
	program => $ENV{PG_REGRESS},
	dir => 't/regress',
	sources => 'sql',
	suffix => 'sql');
