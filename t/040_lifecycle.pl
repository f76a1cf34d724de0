# What the life of a stream table has to do with other sessions, other databases and the
# extension as a whole.
use strict;
use warnings;

use Test::More;

use PgTrickle;

my $node = PgTrickle->new_node('lifecycle', scheduler => 0, settings => 'max_prepared_transactions = 5');

my $shop = q{
CREATE SCHEMA shop;
CREATE TABLE shop.items (id int PRIMARY KEY, kind text, price numeric);
CREATE TABLE shop.parts (id int, k int NOT NULL) PARTITION BY RANGE (k);
CREATE TABLE shop.parts1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (100);
CREATE VIEW shop.dear AS SELECT * FROM shop.items WHERE price > 3;
INSERT INTO shop.items SELECT i, 'kind ' || i % 3, i FROM generate_series(1, 20) i;
INSERT INTO shop.parts SELECT i, i FROM generate_series(0, 9) i;
};
my $stream_tables = q{
SELECT pgtrickle.create_stream_table('shop.kinds', 'SELECT kind, count(*) AS n, sum(price) AS total FROM shop.items GROUP BY kind', '10m');
SELECT pgtrickle.create_stream_table('shop.best', 'SELECT max(total) AS best FROM shop.kinds');
SELECT pgtrickle.create_stream_table('shop.nested', 'SELECT n, count(*) AS m FROM (SELECT kind, count(*) AS n FROM shop.dear GROUP BY kind) k GROUP BY n');
SELECT pgtrickle.create_stream_table('shop.lines', 'SELECT id, price FROM shop.items', identity => 'key');
SELECT pgtrickle.create_stream_table('shop.joined', 'SELECT l.id, i.kind FROM shop.lines l JOIN shop.items i USING (id)');
SELECT pgtrickle.create_stream_table('shop.ranked', 'SELECT id, rank() OVER (ORDER BY price) AS r FROM shop.items');
SELECT pgtrickle.create_stream_table('shop.per_k', 'SELECT k, count(*) AS n FROM shop.parts GROUP BY k', refresh_mode => 'DIFFERENTIAL');
CREATE INDEX kinds_total ON shop.kinds (total);
GRANT SELECT ON shop.kinds TO PUBLIC;
};
my @names = map { "shop.$_" } qw(kinds best nested lines joined ranked per_k);

sub refresh_all
{
	my %opt = @_;
	sql_value($node, "SELECT pgtrickle.refresh_stream_table('$_')", %opt) for @names;
}

sub all_right
{
	my ($test, %opt) = @_;
	my @wrong = grep { stream_table_diff($node, $_, %opt) ne '' } @names;
	is("@wrong", '', $test);
}

sub last_action
{
	my ($name, %opt) = @_;
	return sql_value($node, "SELECT action FROM pgtrickle.get_refresh_history('$name', 1)", %opt);
}

sub left_over
{
	my %opt = @_;
	return sql_value(
		$node, q{
SELECT (SELECT count(*) FROM pgtrickle.pgt_definitions), (SELECT count(*) FROM pgtrickle.pgt_sources),
	(SELECT count(*) FROM pg_class WHERE relnamespace IN ('pgtrickle_state'::regnamespace, 'pgtrickle_changes'::regnamespace)),
	(SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgt%')}, %opt);
}

$node->safe_psql('postgres', $shop);

# --- other sessions ----------------------------------------------------------------

# Creation waits for a writer, and has what it wrote.
my $writer = session($node);
$writer->query_safe('BEGIN');
$writer->query_safe("INSERT INTO shop.items VALUES (21, 'kind 9', 21)");
my $creator = session($node);
$creator->query_safe('SET client_min_messages = error');
$writer->query_safe('SET SESSION client_min_messages = error');
$creator->query_until(qr/started/, qq{\\echo started
SELECT pgtrickle.create_stream_table('shop.kinds', 'SELECT kind, count(*) AS n, sum(price) AS total FROM shop.items GROUP BY kind', '10m');
});
wait_until($node, q{SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND mode = 'ShareRowExclusiveLock'});
is(sql_value($node, 'SELECT count(*) FROM pgtrickle.pgt_definitions'), '0', 'creation waits for a writer');
$writer->query_safe('COMMIT');
$creator->query_safe('SELECT 1');
is(sql_value($node, q{SELECT n FROM shop.kinds WHERE kind = 'kind 9'}), '1', 'and has what it wrote');
stream_table_is_right($node, 'shop.kinds');

# A writer that began before the creation and writes after it.
$writer->query_safe('BEGIN; SELECT pg_current_xact_id()');
sql_value($node, q{SELECT pgtrickle.drop_stream_table('shop.kinds')});
$node->safe_psql('postgres', $stream_tables);
$writer->query_safe("INSERT INTO shop.items VALUES (22, 'kind 9', 22)");
refresh_all();
$writer->query_safe('COMMIT');
refresh_all();
all_right('a writer older than the stream table');
is(last_action('shop.kinds'), 'DIFFERENTIAL', 'seen as a change');

# Two at once with the same name; the loser is told so.
$writer->query_safe('BEGIN');
$writer->query_safe(q{SELECT pgtrickle.create_stream_table('shop.twice', 'SELECT id FROM shop.items')});
$creator->query_until(qr/started/, qq{\\echo started
SELECT pgtrickle.create_stream_table('shop.twice', 'SELECT id FROM shop.items');
});
wait_until($node, 'SELECT count(*) > 0 FROM pg_locks WHERE NOT granted');
$writer->query_safe('COMMIT');
$creator->query('SELECT 1');
like($creator->{stderr}, qr/already exists|duplicate key/, 'the second creation of a name fails');
$creator->quit;
$creator = session($node);
sql_value($node, q{SELECT pgtrickle.drop_stream_table('shop.twice')});

# A drop waits for a refresh, which still counts for its session.
$writer->query_safe('BEGIN');
$writer->query_safe("INSERT INTO shop.items VALUES (23, 'kind 9', 23)");
$writer->query_safe(q{SELECT pgtrickle.refresh_stream_table('shop.nested')});
$creator->query_until(qr/started/, qq{\\echo started
SELECT pgtrickle.drop_stream_table('shop.nested');
});
wait_until($node, q{SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'});
is($writer->query_safe('SELECT sum(m) FROM shop.nested'), '4', 'a drop waits for a refresh');
$writer->query_safe('COMMIT');
$creator->query('SELECT 1');
is(sql_value($node, q{SELECT to_regclass('shop.nested') IS NULL}), 't', 'and then drops');
sql_value($node, q{SELECT pgtrickle.create_stream_table('shop.nested', 'SELECT n, count(*) AS m FROM (SELECT kind, count(*) AS n FROM shop.dear GROUP BY kind) k GROUP BY n')});

# A mark that is set while a refresh runs is not lost to it.
sql_value($node, q{CREATE FUNCTION shop.f(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i'});
sql_value($node, q{SELECT pgtrickle.create_stream_table('shop.fs', 'SELECT id, shop.f(id) AS f FROM shop.items')});
$writer->query_safe('BEGIN');
$writer->query_safe("INSERT INTO shop.items VALUES (24, 'kind 9', 24)");
$writer->query_safe(q{SELECT pgtrickle.refresh_stream_table('shop.fs', 'FULL')});
$creator->query_until(qr/started/, qq{\\echo started
CREATE OR REPLACE FUNCTION shop.f(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i + 1';
});
wait_until($node, q{SELECT count(*) = 1 FROM pg_locks WHERE NOT granted});
$writer->query_safe('COMMIT');
$creator->query_safe('SELECT 1');
sql_value($node, q{SELECT pgtrickle.refresh_stream_table('shop.fs')});
is(last_action('shop.fs'), 'REINITIALIZE', 'a mark that waited for a refresh holds');
stream_table_is_right($node, 'shop.fs');
sql_value($node, q{SELECT pgtrickle.drop_stream_table('shop.fs')});
$writer->quit;
$creator->quit;

# PREPARE TRANSACTION of a creation is like any other, or refused; never half.
my $prepared = error_of($node, q{BEGIN;
SELECT pgtrickle.create_stream_table('shop.prepared', 'SELECT id FROM shop.items');
PREPARE TRANSACTION 'creation';});
if ($prepared eq '')
{
	sql_value($node, q{COMMIT PREPARED 'creation'});
	stream_table_is_right($node, 'shop.prepared', 'creation in a prepared transaction');
	sql_value($node, q{SELECT pgtrickle.drop_stream_table('shop.prepared')});
}
else
{
	like($prepared, qr/cannot PREPARE/, 'creation in a prepared transaction is refused');
}

# --- other databases ----------------------------------------------------------------

refresh_all();
my $dump = $node->backup_dir . '/lifecycle';

mkdir $node->backup_dir;
for my $jobs (1, 2)
{
	my $db = "restored$jobs";

	$node->command_checks_all([ 'pg_dump', '-Fc', '-f', "$dump.$jobs", $node->connstr('postgres') ],
		0, [], [qr/\A\z/], "pg_dump says nothing");
	sql_value($node, "CREATE DATABASE $db");
	$node->command_ok([ 'pg_restore', '-e', '-j', $jobs, '-d', $node->connstr($db), "$dump.$jobs" ],
		"pg_restore with $jobs jobs");
	is( sql_value($node, 'SELECT string_agg(DISTINCT status, NULL) FROM pgtrickle.pgt_stream_tables', dbname => $db),
		'INITIALIZING', 'no frontier came along');
	sql_value($node, "INSERT INTO shop.items VALUES (100, 'kind 1', 100)", dbname => $db);
	refresh_all(dbname => $db);
	all_right('refreshed after a restore', dbname => $db);
	sql_value($node, "UPDATE shop.items SET price = price + 1 WHERE id > 10; INSERT INTO shop.parts VALUES (1, 50)", dbname => $db);
	refresh_all(dbname => $db);
	all_right('changed after a restore', dbname => $db);
	is(last_action('shop.lines', dbname => $db), 'DIFFERENTIAL', 'incrementally again');
	like(error_of($node, 'DELETE FROM shop.kinds', dbname => $db), qr/55000/, 'guarded');
	like(error_of($node, 'DROP TABLE shop.items', dbname => $db), qr/table shop.joined depends on/, 'protected');
	is(sql_value($node, "SELECT has_table_privilege('pg_monitor', 'shop.kinds', 'SELECT')", dbname => $db), 't', 'granted');
	sql_value($node, 'DROP SCHEMA shop CASCADE', dbname => $db);
	is(left_over(dbname => $db), '0|0|0|0', 'nothing is left after a drop');
	sql_value($node, "DROP DATABASE $db");
}

# With a scheduler that looks on: it must not touch anything before the restore is done.
my $other = PgTrickle->new_node('restored', extension => 0);

for my $round (1 .. 5)
{
	$other->safe_psql('postgres', "CREATE DATABASE r$round");
	$other->command_ok([ 'pg_restore', '-e', '-j', 3, '-d', $other->connstr("r$round"), "$dump.1" ],
		"pg_restore beside a scheduler, round $round");
	wait_until($other, q{SELECT bool_and(status = 'ACTIVE') FROM pgtrickle.pgt_stream_tables}, dbname => "r$round");
	$other->safe_psql("r$round", "UPDATE shop.items SET price = price + 1");
	ok(wait_for_fresh($other, $_, dbname => "r$round"), "$_ is fresh") for 'shop.best', 'shop.nested';
	$other->safe_psql('postgres', "DROP DATABASE r$round");
}
$other->stop;

sql_value($node, 'CREATE DATABASE copied TEMPLATE postgres');
is( sql_value($node, 'SELECT string_agg(DISTINCT status, NULL) FROM pgtrickle.pgt_stream_tables', dbname => 'copied'),
	'INITIALIZING', 'frontiers do not count in a copy of the database');
sql_value($node, "DELETE FROM shop.items WHERE id < 5", dbname => 'copied');
refresh_all(dbname => 'copied');
all_right('refreshed in the copy', dbname => 'copied');
isnt(last_action('shop.kinds', dbname => 'copied'), 'DIFFERENTIAL', 'in full');
sql_value($node, "INSERT INTO shop.items VALUES (200, 'new', 1)", dbname => 'copied');
refresh_all(dbname => 'copied');
all_right('and incrementally', dbname => 'copied');
is(last_action('shop.kinds', dbname => 'copied'), 'DIFFERENTIAL', 'from then on');

# --- the extension ------------------------------------------------------------------

like(error_of($node, 'DROP EXTENSION pg_trickle', dbname => 'copied'),
	qr/2BP01.*table shop.kinds depends on/s, 'DROP EXTENSION names the stream tables');
like(error_of($node, 'DROP SCHEMA pgtrickle_state CASCADE', dbname => 'copied'),
	qr/2BP01/, 'its schemas belong to it');
sql_value($node, 'DROP EXTENSION pg_trickle CASCADE', dbname => 'copied');
is( sql_value($node, q{SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgt%'}, dbname => 'copied'),
	'0', 'DROP EXTENSION CASCADE leaves no trigger');
sql_value($node, "INSERT INTO shop.items VALUES (300, 'still', 1)", dbname => 'copied');
sql_value($node, 'CREATE EXTENSION pg_trickle', dbname => 'copied');
$node->safe_psql('copied', $stream_tables);
all_right('and everything works in a new one', dbname => 'copied');
like(error_of($node, 'ALTER EXTENSION pg_trickle SET SCHEMA shop', dbname => 'copied'),
	qr/does not support SET SCHEMA|already a schema/, 'it cannot move');
sql_value($node, 'DROP DATABASE copied');

# The rows of our catalog are written around SQL; a crash in between leaves all or nothing.
sql_value($node, "INSERT INTO shop.items VALUES (400, 'crash', 1)");
sql_value($node, q{SELECT pgtrickle.refresh_stream_table('shop.kinds')});
$node->stop('immediate');
$node->start;
refresh_all();
all_right('after a crash');

sql_value($node, 'DROP SCHEMA shop CASCADE');
is(left_over(), '0|0|0|0', 'nothing is left');
is(error_of($node, 'DROP EXTENSION pg_trickle'), '', 'and the extension goes without CASCADE');

done_testing();
