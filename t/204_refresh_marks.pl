# What changes about a stream table while a session refreshes it, or between two refreshes of it.
# A mark for rebuild that comes while a refresh is running: the refresh settles what came before
# its snapshot, and no more than that.
use strict;
use warnings;

use Test::More;

use PgTrickle;

plan skip_all => 'the test points are missing' unless has_test_points();

my $node = PgTrickle->new_node('marks', scheduler => 0);
my $refresher = session($node);
my $holder = session($node);

$node->safe_psql('postgres', q{
CREATE TABLE src (id int PRIMARY KEY, x int);
INSERT INTO src SELECT i, i FROM generate_series(1, 5) i;
CREATE FUNCTION times(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
SELECT pgtrickle.create_stream_table('st', 'SELECT id, times(x) AS x FROM src');
});

# Refreshes in a session that stops at a point while the statements of another one are committed.
sub refresh_around
{
	my ($point, $sql) = @_;
	$refresher->query_safe("SET pg_trickle.test_points = '$point=wait'");
	$holder->query_safe("SELECT pg_advisory_lock(7366516, hashtext('$point') & 2147483647)");
	$refresher->query_until(qr/started/, "\\echo started\nSELECT pgtrickle.refresh_stream_table('st');\n");
	wait_until($node, "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
	$node->safe_psql('postgres', $sql);
	$holder->query_safe('SELECT pg_advisory_unlock_all()');
	$refresher->query_safe('SELECT 1');
	$refresher->query_safe('RESET pg_trickle.test_points');
	$refresher->query_safe("SELECT pgtrickle.refresh_stream_table('st')");
	return;
}

sub replace_function
{
	my ($factor) = @_;
	return "CREATE OR REPLACE FUNCTION times(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT \$1 * $factor'";
}

$node->safe_psql('postgres', replace_function(3));
refresh_around('refresh-after-apply', replace_function(5));
stream_table_is_right($node, 'st');

# Marked after the snapshot and before the frontier is read: what was not captured is not in the
# snapshot either.
refresh_around('refresh-after-snapshot', q{
BEGIN;
ALTER TABLE src DISABLE TRIGGER ALL;
INSERT INTO src VALUES (6, 6);
ALTER TABLE src ENABLE TRIGGER ALL;
COMMIT;});
stream_table_is_right($node, 'st');

# Whether the query can be maintained is looked at again, in every session.
is($node->safe_psql('postgres', "SELECT effective_mode FROM pgtrickle.explain_refresh_mode('st')"),
	'DIFFERENTIAL', 'an immutable function');
$node->safe_psql('postgres', 'ALTER FUNCTION times STABLE');
$refresher->query_safe("INSERT INTO src VALUES (7, 7); SELECT pgtrickle.refresh_stream_table('st')");
$refresher->query_safe("INSERT INTO src VALUES (8, 8); SELECT pgtrickle.refresh_stream_table('st')");
is( $node->safe_psql('postgres', "SELECT action FROM pgtrickle.get_refresh_history('st', 1)"),
	'FULL', 'a stable function');
stream_table_is_right($node, 'st');

# The statements that a session keeps are not those for columns of another type.
$node->safe_psql('postgres', q{
CREATE TABLE typed (id int PRIMARY KEY, t text, n numeric, k int);
INSERT INTO typed VALUES (1, 'a', 1, 1);
SELECT pgtrickle.create_stream_table('typed_rows', 'SELECT t, n FROM typed');
SELECT pgtrickle.create_stream_table('typed_max', 'SELECT t, max(n) AS n FROM typed GROUP BY t');
SELECT pgtrickle.create_stream_table('typed_keys', 'SELECT DISTINCT k FROM typed');
});
my @typed = qw(typed_rows typed_max typed_keys);
for my $round (2 .. 4)
{
	$refresher->query_safe("INSERT INTO typed VALUES ($round, 'b', $round, $round)");
	$refresher->query_safe("SELECT pgtrickle.refresh_stream_table('$_', 'DIFFERENTIAL')") for @typed;
	stream_table_is_right($node, $_) for @typed;
	$node->safe_psql('postgres', q{SET pg_trickle.block_source_ddl = off;
ALTER TABLE typed ALTER t TYPE varchar(40), ALTER n TYPE float8, ALTER k TYPE bigint}) if $round == 2;
}

done_testing();
