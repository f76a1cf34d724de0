# A refresh locks the sources before anything that depends on them, as DDL on a source
# does on its way to the dependents. The other way round the two would deadlock, and a
# refresh in the background would fail because somebody dropped a column.
use strict;
use warnings;

use Test::More;

use PgTrickle;

my $node = PgTrickle->new_node('main', scheduler => 0);

$node->safe_psql(
	'postgres', q{
CREATE TABLE source (id int PRIMARY KEY, v int);
SELECT pgtrickle.create_stream_table('first', 'SELECT id, v FROM source', schedule => '1h');
SELECT pgtrickle.create_stream_table('second', 'SELECT v, count(*) AS n FROM first GROUP BY v', schedule => '1h');
INSERT INTO source VALUES (1, 1);
});

for my $case ([ 'first', 'source' ], [ 'second', 'first' ])
{
	my ($table, $source) = @$case;
	my $ddl = session($node);
	my $refresh = session($node);

	my $pid = $refresh->query_safe('SELECT pg_backend_pid()');
	$ddl->query_safe("BEGIN; LOCK TABLE $source IN ACCESS EXCLUSIVE MODE");
	$refresh->query_until(qr/refreshing/, "\\echo refreshing\nSELECT pgtrickle.refresh_stream_table('$table');\n");
	wait_until($node,
		"SELECT count(*) = 1 FROM pg_locks WHERE pid = $pid AND NOT granted AND relation = '$source'::regclass");
	is( sql_value(
			$node,
			"SELECT string_agg(relation::regclass || ' ' || mode, ', ') FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
			 WHERE l.pid = $pid AND l.granted AND c.relnamespace IN ('pgtrickle_state'::regnamespace, 'public'::regnamespace)"),
		'',
		"a refresh of $table that waits for $source holds nothing that depends on it");

	# What a DROP COLUMN would go on to lock.
	$ddl->query_safe("LOCK TABLE $table IN ACCESS EXCLUSIVE MODE; COMMIT");
	$refresh->query_safe('SELECT 1');
	stream_table_is_right($node, $table);
	$ddl->quit;
	$refresh->quit;
}

done_testing();
