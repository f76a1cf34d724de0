# A delta that does not fit what is stored is never applied by guess: an error in test builds
# (pg_trickle.verify), else everything is computed under the same snapshot, and said so.
use strict;
use warnings;

use Test::More;

use PgTrickle;

plan skip_all => 'pg_trickle.verify is missing' unless has_test_points();

my $node = PgTrickle->new_node('repair', scheduler => 0);

$node->safe_psql('postgres', q{
CREATE TABLE src (id int PRIMARY KEY, g int, x int);
INSERT INTO src SELECT i, i % 3, i FROM generate_series(1, 30) i;
SELECT pgtrickle.create_stream_table('keyed', 'SELECT id, g, x FROM src');
SELECT pgtrickle.create_stream_table('bag', 'SELECT g, x FROM src');
SELECT pgtrickle.create_stream_table('sums', 'SELECT g, count(*) AS n, sum(x) AS s FROM src GROUP BY g');
SELECT pgtrickle.create_stream_table('floats', 'SELECT g, sum(x::float8) AS s FROM src GROUP BY g');
SELECT pgtrickle.create_stream_table('above', 'SELECT g, count(*) AS n FROM keyed GROUP BY g');
});

# What no user can do: change rows behind the guard.
sub damage
{
	my ($sql) = @_;
	my $off = q{SET allow_system_table_mods = on;
UPDATE pg_trigger SET tgenabled = 'D' WHERE tgname = 'pgt_guard';};
	my $on = q{SET allow_system_table_mods = on;
UPDATE pg_trigger SET tgenabled = 'A' WHERE tgname = 'pgt_guard';};

	$node->safe_psql('postgres', $off);
	$node->safe_psql('postgres', $sql);
	$node->safe_psql('postgres', $on);
	return;
}

sub last_refresh
{
	my ($name) = @_;
	return $node->safe_psql('postgres', qq{
SELECT action || ' ' || coalesce(refresh_reason, '') FROM pgtrickle.pgt_refresh_history h
JOIN pgtrickle.pgt_definitions d USING (pgt_id) WHERE d.pgt_relid = '$name'::regclass
ORDER BY refresh_id DESC LIMIT 1});
}

my @cases = (
	[ 'keyed', 'DELETE FROM keyed WHERE id = 5', 'UPDATE src SET x = 0 WHERE id = 5', 'not there' ],
	[ 'keyed', 'UPDATE keyed SET x = -1 WHERE id = 6', 'UPDATE src SET x = 1 WHERE id = 6', 'other values' ],
	[ 'keyed', 'INSERT INTO keyed VALUES (100, 0, 0)', 'INSERT INTO src VALUES (100, 1, 1)', 'there already' ],
	[ 'bag', 'DELETE FROM bag WHERE x = 7', 'DELETE FROM src WHERE id = 7', 'not there' ],
	[ 'sums', q{DO $$ BEGIN EXECUTE (SELECT format('UPDATE pgtrickle_state.state_%s_1 SET pgt_n = 0', pgt_id)
		FROM pgtrickle.pgt_definitions WHERE pgt_relid = 'sums'::regclass); END $$},
		'DELETE FROM src WHERE id = 8', 'fewer rows than none' ]);

for my $case (@cases)
{
	my ($table, $damage, $change, $reason) = @$case;

	$node->safe_psql('postgres', "SELECT pgtrickle.refresh_stream_table('$_')") for qw(keyed bag sums floats above);
	damage($damage);
	$node->safe_psql('postgres', $change);

	my $error = error_of($node, "SELECT pgtrickle.refresh_stream_table('$table')");
	like($error, qr/XX001: a delta does not fit stream table "$table"/, "$table: an error in test builds");
	like($error, qr/$reason/, "$table: with the reason");

	my ($status, $out, $err) = $node->psql('postgres',
		"SET pg_trickle.verify = off; SELECT pgtrickle.refresh_stream_table('$table')");
	is($status, 0, "$table: repaired otherwise");
	like($err, qr/WARNING:.*does not fit/, "$table: with a warning");
	stream_table_is_right($node, $table, "$table: right again");
	like(last_refresh($table), qr/^REINITIALIZE delta_misfit: .*$reason/, "$table: and in the history");

	# What reads it is computed anew; then all are incremental again.
	$node->safe_psql('postgres', "SELECT pgtrickle.refresh_stream_table('above')") if $table eq 'keyed';
	like(last_refresh('above'), qr/^REINITIALIZE stream table keyed was repaired/, 'what reads it is computed anew')
	  if $table eq 'keyed';
	$node->safe_psql('postgres', 'UPDATE src SET x = x + 1 WHERE id IN (10, 11)');
	$node->safe_psql('postgres', "SELECT pgtrickle.refresh_stream_table('$_')") for qw(keyed bag sums floats above);
	stream_table_is_right($node, $_, "$_ equals its query") for qw(keyed bag sums floats above);
	like(last_refresh($table), qr/^DIFFERENTIAL/, "$table: incremental again");
	like(last_refresh('above'), qr/^DIFFERENTIAL/, 'what reads it follows incrementally') if $table eq 'keyed';
}

# Recomputing keys needs no repair: it makes right what it touches.
damage('UPDATE floats SET s = -1 WHERE g = 1; DELETE FROM floats WHERE g = 2');
$node->safe_psql('postgres', 'UPDATE src SET x = x + 1 WHERE g IN (1, 2)');
$node->safe_psql('postgres', "SELECT pgtrickle.refresh_stream_table('floats')");
stream_table_is_right($node, 'floats', 'affected keys heal');
like(last_refresh('floats'), qr/^DIFFERENTIAL/, 'incrementally');

# And FULL heals everything.
damage('DELETE FROM keyed WHERE id % 2 = 0; UPDATE keyed SET x = 0 WHERE id % 3 = 0; INSERT INTO keyed VALUES (1000, 1, 1); UPDATE bag SET x = 0');
$node->safe_psql('postgres', "SELECT pgtrickle.refresh_stream_table('$_', 'FULL')") for qw(keyed bag);
stream_table_is_right($node, $_, "FULL heals $_") for qw(keyed bag);

$node->stop;
done_testing();
