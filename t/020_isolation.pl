# The specs of t/isolation, through pg_isolation_regress: several sessions, one order of
# their steps. No scheduler, for the same reason as in the SQL tests.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgRegress;

plan skip_all => 'no specs in t/isolation' unless glob('t/isolation/specs/*.spec');

my $node = PgTrickle->new_node('isolation', scheduler => 0, extension => 0);

run_regress(
	$node,
	program => $ENV{PG_ISOLATION_REGRESS},
	dir => 't/isolation',
	sources => 'specs',
	suffix => 'spec');
