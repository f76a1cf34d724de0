# Capture with several sessions: where readers may start, what prune may empty, writers
# that sleep in bad places, creation while others write, load, logical replication.
# Test builds.
use strict;
use warnings;

use IPC::Run;
use Test::More;

use PgTrickle;
use PgtCapture;
use PostgreSQL::Test::Utils;

plan skip_all => 'needs a build with test points' unless has_test_points();

my $node = PgTrickle->new_node('concurrent', scheduler => 0, settings => "autovacuum = off\nmax_connections = 50\n");
my $capture = PgtCapture->new($node);

sub sql { return $capture->sql(@_); }

sub blocks_of
{
	my ($segment) = @_;
	return sql("SELECT pg_relation_size('pgtrickle_changes.buffer_$segment') / 8192");
}

sub active
{
	return sql("SELECT active_segment FROM pgtrickle.pgt_sources WHERE source_relid = 's'::regclass");
}

sub prune
{
	my ($expected, $test) = @_;
	is(sql("SELECT capture_test.prune('s')"), $expected, $test);
}

sql("CREATE TABLE s (id int, v text)");
$capture->consume('c', 's', 'id', 'v');

# In one session, so that notes of where to start are kept from one read to the next.
my $reader = session($node);
my $writer = session($node);
my $holder = session($node);

sub read_in_session
{
	my ($test, $expected) = @_;

	is($reader->query_safe("SELECT capture_test.take('c')"), $expected, "$test: images");
	is($reader->query_safe("SELECT n, left(image, 100) FROM capture_test.diff('c') LIMIT 5"), '', "$test: right");
}

# --- readers start at the tail --------------------------------------------------------------

# A writer remembers its page; after others have filled many, its next row must not go there.
sql("INSERT INTO s SELECT g, repeat('x', 1500) FROM generate_series(1, 4) AS g");
$writer->query_safe("INSERT INTO s VALUES (1, 'first')");
read_in_session('one row', 5);
# (The others' rows are too big for what is left in its page.)
sql("INSERT INTO s SELECT g, repeat('x', 1500) FROM generate_series(1, 2000) AS g");
cmp_ok(blocks_of('1_0'), '>', 50, 'the buffer has many pages');
read_in_session('many rows', 2000);
read_in_session('nothing', 0);
$writer->query_safe("INSERT INTO s VALUES (2, 'remembered page')");
read_in_session('a writer that remembered an old page', 1);
is(sql("SELECT (ctid::text::point)[0] > 50 FROM pgtrickle_changes.buffer_1_0 WHERE c2 = 'remembered page'"),
	't', 'its row is at the end');

# Space that VACUUM finds in old pages is not used either.
sql("BEGIN; INSERT INTO s SELECT g, repeat('r', 50) FROM generate_series(1, 10000) AS g; ROLLBACK");
sql("INSERT INTO s VALUES (3, 'after rollback')");
sql("VACUUM pgtrickle_changes.buffer_1_0");
read_in_session('vacuumed', 1);
$writer->query_safe("INSERT INTO s SELECT g, repeat('y', 50) FROM generate_series(1, 1000) AS g");
read_in_session('written after VACUUM', 1000);
read_in_session('nothing after VACUUM', 0);
sql("INSERT INTO s VALUES (4, 'still')");
read_in_session('still', 1);

# A writer asleep between two batches of one statement goes on in the page it was in,
# however far others have gone; readers may not start behind it while it can do so.
$writer->query_safe("SET pg_trickle.test_points = 'capture-batch-written=wait'");
$holder->query_safe("SELECT pg_advisory_lock(7366516, hashtext('capture-batch-written') & 2147483647)");
$writer->query_until(qr/started/, "\\echo started\nINSERT INTO s SELECT g, 'sleeper' FROM generate_series(1, 501) AS g;\n");
wait_until($node, "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
for my $round (1 .. 4)
{
	# Too big for what is left in the sleeper's page.
	sql("INSERT INTO s SELECT g, repeat('z', 1500) FROM generate_series(1, 300) AS g");
	read_in_session("others go on, round $round", 300);
}
$holder->query_safe("SELECT pg_advisory_unlock_all()");
$writer->query_safe("SELECT 1");
is( sql(q{SELECT max((ctid::text::point)[0]) < pg_relation_size('pgtrickle_changes.buffer_1_0') / 8192 - 50
	FROM pgtrickle_changes.buffer_1_0 WHERE c2 = 'sleeper'}), 't', 'the sleeper wrote far behind the end');
read_in_session('the sleeper commits', 501);
$writer->query_safe("RESET pg_trickle.test_points");
read_in_session('after the sleeper', 0);

# A writer idle in transaction over many refreshes, then going on.
$writer->query_safe("BEGIN; INSERT INTO s VALUES (10, 'idle')");
for my $round (1 .. 20)
{
	sql("INSERT INTO s SELECT g, repeat('w', 50) FROM generate_series(1, 500) AS g; UPDATE s SET id = id + 1 WHERE v = 'first'");
	read_in_session("idle writer, round $round", 502);
}
$writer->query_safe("INSERT INTO s VALUES (11, 'idle'); COMMIT");
read_in_session('the idle writer commits', 2);

# The reader itself writes, in the same transaction.
is( $reader->query_safe(q{
BEGIN;
INSERT INTO s VALUES (20, 'own');
SELECT capture_test.take('c');
INSERT INTO s SELECT g, repeat('o', 50) FROM generate_series(1, 2000) AS g;
SELECT capture_test.take('c');
INSERT INTO s VALUES (21, 'own');
COMMIT}), "1\n2000", 'own changes');
read_in_session('own changes after commit', 1);

# --- commits out of order --------------------------------------------------------------------

my @sessions = map { session($node) } 1 .. 4;
for my $round (1 .. 5)
{
	$sessions[$_]->query_safe(
		"BEGIN; INSERT INTO s VALUES ($round, 'order $_'); SAVEPOINT a; UPDATE s SET id = id + 1 WHERE v = 'order $_'; SAVEPOINT b")
	  for 0 .. 3;
	for my $at (2, 0, 3, 1)
	{
		$sessions[$at]->query_safe($at == 3 ? "ROLLBACK TO a; COMMIT" : "COMMIT");
		$reader->query_safe("SELECT capture_test.take('c')");
		is($reader->query_safe("SELECT * FROM capture_test.diff('c') LIMIT 5"), '', "round $round, after session $at");
	}
}
$_->quit for @sessions;

# --- prune -----------------------------------------------------------------------------------

$capture->consume('lagging', 's', 'id');
prune('0', 'nothing to empty, but a big buffer');
is(active(), '1', 'writers are sent to the other segment');
$writer->query_safe("INSERT INTO s VALUES (30, 'other segment')");
is(sql("SELECT count(*) FROM pgtrickle_changes.buffer_1_1"), '1', 'a session that knew the old one notices');
read_in_session('from both segments', 1);
prune('1', 'the old segment is emptied');
is(blocks_of('1_0'), '0', 'it is empty');
read_in_session('nothing lost', 0);
$capture->takes('lagging', 1, 'the other consumer has lost nothing either');

# What keeps a segment: a consumer that has not read it ...
sub fill
{
	sql("INSERT INTO s SELECT g, repeat('p', 50) FROM generate_series(1, 20000) AS g");
}
fill();
prune('0', 'switched');
is(active(), '0', 'back to the first');
read_in_session('one consumer has read', 20000);
prune('0', 'the other consumer has not');
$capture->takes('lagging', '20000', 'now it has');

# ... a writer whose transaction is open ...
$writer->query_safe("BEGIN; INSERT INTO s VALUES (40, 'open')");
fill();
prune('1', 'the drained one is emptied, and they change roles');
is(active(), '1', 'the segment of the open writer is inactive');
read_in_session('with an open writer', 20000);
$capture->takes('lagging', '20000', 'with an open writer');
prune('0', 'an open writer keeps the segment');
$writer->query_safe("COMMIT");
prune('0', 'and its row, until it is read');
read_in_session('the open writer', 1);
$capture->takes('lagging', '1', 'the open writer');

# ... even if it has nothing in it that anybody misses ...
$writer->query_safe("BEGIN; INSERT INTO s VALUES (41, 'lock'); ROLLBACK; BEGIN; LOCK TABLE pgtrickle_changes.buffer_1_0 IN ROW EXCLUSIVE MODE");
prune('0', 'prune waits for nobody');
$writer->query_safe("COMMIT");
prune('1', 'then it goes');

# ... a reader that has its snapshot, also one without a frontier so far.
fill();
prune('0', 'switched');
read_in_session('to be emptied', 20000);
$capture->takes('lagging', '20000', 'to be emptied');
$capture->add('first', 's', 'id');
$reader->query_safe("BEGIN; SELECT capture_test.take('first')");
sql("INSERT INTO s VALUES (50, 'while the first refresh is open')");
prune('0', 'an open refresh keeps it');
is(sql("SELECT capture_test.take('c')"), '1', 'others may refresh');
$reader->query_safe("COMMIT");
prune('1', 'emptied after it');
$capture->takes('first', '1', 'the new consumer misses nothing');

# Rows of what was rolled back are nobody's.
sql("BEGIN; INSERT INTO s SELECT g, repeat('p', 50) FROM generate_series(1, 20000) AS g; ROLLBACK");
prune('0', 'switched');
for my $name (qw(c lagging first))
{
	$capture->takes($name, qr/^\d+$/, 'before a segment of rolled back rows is emptied');
}
prune('1', 'rolled back rows do not keep a segment');
for my $name (qw(c lagging first))
{
	$capture->takes($name, '0', 'after all that');
}

# --- installing while others write ---------------------------------------------------------------

# The installer waits for writers, and sees what they did.
sql("CREATE TABLE late (id int)");
$writer->query_safe("BEGIN; INSERT INTO late VALUES (1)");
my $installer = session($node);
$installer->query_until(qr/started/,
	"\\echo started\nBEGIN; SELECT capture_test.add('late', 'late', ARRAY['id']); SELECT capture_test.take('late'); COMMIT;\n");
wait_until($node, "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'late'::regclass AND NOT granted");
$writer->query_safe("INSERT INTO late VALUES (2); COMMIT");
$installer->query_safe("SELECT 1");
$capture->takes('late', '0', 'installed behind a writer');
sql("INSERT INTO late VALUES (3)");
$capture->takes('late', '1', 'captured from then on');
$installer->quit;

# --- load -------------------------------------------------------------------------------------------

sql(q{
CREATE TABLE load (id int PRIMARY KEY, a int, t text);
CREATE TABLE load_part (id int, k int, a int) PARTITION BY LIST (k);
CREATE TABLE load_part0 PARTITION OF load_part FOR VALUES IN (0);
CREATE TABLE load_part1 (a int, k int, id int);
ALTER TABLE load_part ATTACH PARTITION load_part1 FOR VALUES IN (1);
INSERT INTO load SELECT g, 0, 't' FROM generate_series(1, 2000) AS g;
INSERT INTO load_part SELECT g, g % 2, 0 FROM generate_series(1, 200) AS g});
$capture->consume('l1', 'load', 'id', 'a', 't');
$capture->consume('l2', 'load', 'a');
$capture->consume('lp', 'load_part', 'id', 'k', 'a');
$capture->consume('lp1', 'load_part1', 'id', 'a');

my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/write.sql", <<'SQL');
\set id random(1, 2000)
\set a random(1, 100)
\set n random(1, 10)
BEGIN;
UPDATE load SET a = :a WHERE id = :id;
SAVEPOINT x;
INSERT INTO load VALUES (:id + 10000 * :a, :a, repeat('long', 300)) ON CONFLICT (id) DO UPDATE SET a = load.a + 1;
DELETE FROM load WHERE id = :id + 10000 * :n;
\if :n > 7
ROLLBACK TO x;
\endif
UPDATE load_part SET k = (k + 1) % 2, a = :a WHERE id = :id % 200;
UPDATE load_part1 SET a = a + 1 WHERE id = :a;
COMMIT;
SQL
# One refresher per consumer at a time, as the refresh lock sees to.
append_to_file("$dir/read.sql", <<'SQL');
\set n random(1, 4)
BEGIN;
SELECT pg_advisory_xact_lock(:n);
SELECT capture_test.take((ARRAY['l1', 'l2', 'lp', 'lp1'])[:n]);
COMMIT;
SQL
append_to_file("$dir/prune.sql", <<'SQL');
SELECT capture_test.prune('load');
SELECT capture_test.prune('load_part');
SELECT capture_test.prune('load_part1');
\sleep 5 ms
SQL
append_to_file("$dir/bulk.sql", "\\set a random(1, 100)\nUPDATE load SET a = a + 1 WHERE a = :a;\n");

sub pgbench
{
	my ($seconds) = @_;
	return ('pgbench', '-n', '-h', $node->host, '-p', $node->port, '-T', $seconds, '-c', 7, '-j', 2,
		'--max-tries=100',
		'-f', "$dir/write.sql\@12", '-f', "$dir/read.sql\@6", '-f', "$dir/prune.sql\@4", '-f', "$dir/bulk.sql\@1", 'postgres');
}
my ($out, $err) = ('', '');
ok(IPC::Run::run([ pgbench(8) ], '>', \$out, '2>', \$err), 'load') || diag($err);
unlike($out, qr/number of failed transactions: [1-9]/, 'no transaction failed');
note($out);
for my $name (qw(l1 l2 lp lp1))
{
	$capture->takes($name, qr/^\d+$/, 'after the load');
}
my $reads = sql("SELECT sum(differential_count) FROM pgtrickle.pgt_frontiers");
cmp_ok($reads, '>', 100, 'many reads happened');
cmp_ok(sql("SELECT max(relfilenode::bigint - oid::bigint) FROM pg_class WHERE relname ~ '^buffer_'"), '>', 0, 'segments were emptied meanwhile');

# The same after kill -9 in the middle of it.
{
	my $bench = IPC::Run::start([ pgbench(60) ], '>', \$out, '2>', \$err);

	wait_until($node, "SELECT (SELECT sum(differential_count) FROM pgtrickle.pgt_frontiers) > $reads + 100");
	$node->stop('immediate');
	$bench->finish;
	$node->start;
	for my $name (qw(l1 l2 lp lp1))
	{
		$capture->takes($name, qr/^\d+$/, 'after a crash');
	}
}

# --- logical replication ------------------------------------------------------------------------------

my $publisher = PgTrickle->new_node('publisher', scheduler => 0, extension => 0);
$publisher->safe_psql('postgres', q{
CREATE TABLE rep (id int PRIMARY KEY, a int, big text);
CREATE TABLE rep_part (id int PRIMARY KEY, a int) PARTITION BY RANGE (id);
CREATE TABLE rep_part1 PARTITION OF rep_part FOR VALUES FROM (0) TO (100);
INSERT INTO rep SELECT g, g, repeat('b', 3000) FROM generate_series(1, 10) AS g;
CREATE PUBLICATION pub FOR TABLE rep, rep_part WITH (publish_via_partition_root)});
sql(q{
CREATE TABLE rep (big text, id int PRIMARY KEY, a int);
CREATE TABLE rep_part (a int, id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE rep_part1 PARTITION OF rep_part FOR VALUES FROM (0) TO (50);
CREATE TABLE rep_part2 PARTITION OF rep_part FOR VALUES FROM (50) TO (100)});
$capture->consume('rep', 'rep', 'id', 'a', 'big');
$capture->consume('rep_part', 'rep_part', 'id', 'a');
my $connection = $publisher->connstr('postgres') =~ s/'/''/gr;
sql("CREATE SUBSCRIPTION sub CONNECTION '$connection' PUBLICATION pub");
$node->wait_for_subscription_sync($publisher, 'sub');
$capture->takes('rep', '10', 'the first copy of a subscription');

sub replicate
{
	my ($sql, $rep, $rep_part) = @_;

	$publisher->safe_psql('postgres', $sql);
	$publisher->wait_for_catchup('sub');
	$capture->takes('rep', $rep, $sql);
	$capture->takes('rep_part', $rep_part, $sql);
}
replicate("INSERT INTO rep VALUES (11, 11, 'x'); INSERT INTO rep_part SELECT g, g FROM generate_series(40, 60) AS g", 1, 21);
replicate("UPDATE rep SET a = a + 1", 22, 0);
replicate("UPDATE rep_part SET id = 79 WHERE id = 49; DELETE FROM rep WHERE id = 2", 1, 2);
replicate("BEGIN; UPDATE rep SET big = 'new' WHERE id = 3; UPDATE rep SET big = 'newer' WHERE id = 3; COMMIT", 4, 0);
replicate("TRUNCATE rep", '0 truncated', 0);
sql("DROP SUBSCRIPTION sub");
$publisher->stop;

$_->quit for $holder, $reader, $writer;
done_testing();
