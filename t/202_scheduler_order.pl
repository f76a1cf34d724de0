# The scheduler: branches that part and meet again, repairs, other refreshers, limits, logs.
use strict;
use warnings;

use IPC::Run;
use Test::More;

use PgTrickle;

my $node = PgTrickle->new_node(
	'order',
	settings => "pg_trickle.scheduler_interval_ms = '1h'\n"
	  . "pg_trickle.max_consecutive_errors = 100\n"
	  . "autovacuum = off\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub status
{
	return sql("SELECT status FROM pgtrickle.pgt_stream_tables WHERE pgt_name = '$_[0]'");
}

# Frontiers without the transaction's own part, which differs by command.
sub frontiers
{
	my $names = join ', ', map { "'$_'" } @_;
	return sql("SELECT string_agg(DISTINCT frontier::text || ' ' || data_timestamp, ',') FROM pgtrickle.pgt_stream_tables WHERE pgt_name IN ($names)");
}

# --- a diamond is refreshed to one snapshot -------------------------------------------------

sql(q{
	CREATE TABLE t (id int PRIMARY KEY, v int);
	INSERT INTO t SELECT g, 0 FROM generate_series(1, 20) g;
	SELECT pgtrickle.create_stream_table('left_branch', 'SELECT id, v FROM t');
	SELECT pgtrickle.create_stream_table('right_branch', 'SELECT id, v * 2 AS w FROM t', '1h');
	SELECT pgtrickle.create_stream_table('meet', 'SELECT id, v, w FROM left_branch JOIN right_branch USING (id)');
	SELECT pgtrickle.create_stream_table('sums', 'SELECT sum(v) AS v, sum(w) AS w FROM meet');
});
my $script = $node->basedir . '/update.sql';
PostgreSQL::Test::Utils::append_to_file($script, "\\set id random(1, 20)\nUPDATE t SET v = v + 1 WHERE id = :id;\n");
my $writers = IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-t', '1500', '-f', $script, $node->connstr('postgres') ],
	'>', \my $out, '2>', \my $err);
my ($samples, $apart, $torn) = (0, 0, 0);
my $reader = session($node);
while ($writers->pumpable)
{
	my ($wrong, $differ) = split /\|/, $reader->query_safe(q{
		SELECT (SELECT count(*) FROM meet WHERE w <> 2 * v),
			(SELECT count(*) FROM meet m FULL JOIN left_branch l USING (id) WHERE l.v IS DISTINCT FROM m.v)});
	$apart++ if $wrong > 0;
	$torn++ if $differ > 0;
	$samples++;
	$writers->pump_nb;
}
$writers->finish;
$reader->quit;
is($apart, 0, "the branches are never apart where they meet ($samples samples)");
is($torn, 0, 'and readers see the diamond change as a whole');
wait_until($node, 'SELECT (SELECT sum(v) FROM t) = (SELECT v FROM sums)');
stream_table_is_right($node, $_) for qw(left_branch right_branch meet sums);
unlike(frontiers(qw(left_branch right_branch meet)), qr/,/, 'all of it is at one snapshot');

# With 'none' each goes by its own schedule.
sql(q{SELECT pgtrickle.alter_stream_table('meet', diamond_consistency => 'none'); UPDATE t SET v = v + 1 WHERE id = 1});
wait_until($node, 'SELECT v = (SELECT v FROM t WHERE id = 1) FROM meet WHERE id = 1');
sql('UPDATE t SET v = v + 1 WHERE id = 1');
wait_until($node, 'SELECT v = (SELECT v FROM t WHERE id = 1) FROM meet WHERE id = 1');
is(sql('SELECT w < 2 * v FROM meet WHERE id = 1'), 't', "diamond_consistency 'none' lets branches be apart");
sql(q{SELECT pgtrickle.alter_stream_table('meet', diamond_consistency => 'aligned'); UPDATE t SET v = v + 1 WHERE id = 1});
wait_until($node, 'SELECT w = 2 * v AND v = (SELECT v FROM t WHERE id = 1) FROM meet WHERE id = 1');
pass('and aligned brings them together');

# A base that is read directly as well is a branch like any other.
sql(q{
	SELECT pgtrickle.create_stream_table('direct', 'SELECT t.id, t.v, r.w FROM t JOIN right_branch r USING (id)');
	UPDATE t SET v = v + 1 WHERE id = 2});
wait_until($node, 'SELECT v = (SELECT v FROM t WHERE id = 2) FROM direct WHERE id = 2');
is(sql('SELECT count(*) FROM direct WHERE w <> 2 * v'), '0', 'a base and a stream table over it are not apart either');
stream_table_is_right($node, 'direct');

# One branch fails: the other goes on, where they meet waits.
sql(q{
	CREATE TABLE d (id int PRIMARY KEY, v int);
	INSERT INTO d VALUES (1, 1);
	SELECT pgtrickle.create_stream_table('sound', 'SELECT id, v FROM d');
	SELECT pgtrickle.create_stream_table('fragile', 'SELECT id, 10 / v AS q FROM d');
	SELECT pgtrickle.create_stream_table('whole', 'SELECT id, v, q FROM sound JOIN fragile USING (id)');
	INSERT INTO d VALUES (2, 0);
});
wait_until($node, 'SELECT count(*) = 2 FROM sound');
wait_until($node, q{SELECT status = 'ERROR' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'fragile'});
is(sql('SELECT count(*) FROM whole'), '1', 'a failing branch holds up where it meets the other');
is(status('sound'), 'ACTIVE', 'but not the other branch');
sql('UPDATE d SET v = 5 WHERE id = 2');
wait_until($node, 'SELECT count(*) = 2 FROM whole');
stream_table_is_right($node, $_) for qw(sound fragile whole);
unlike(frontiers(qw(sound fragile whole)), qr/,/, 'mended, they are at one snapshot again');

# --- somebody else refreshes ----------------------------------------------------------------

sql(q{CREATE TABLE m (id int); SELECT pgtrickle.create_stream_table('shared', 'SELECT id FROM m')});
my $other = session($node);
sql(q{INSERT INTO m VALUES (1)});
wait_until($node, 'SELECT count(*) = 1 FROM shared');
$other->query_safe(q{BEGIN; SELECT pgtrickle.refresh_stream_table('shared')});
sql('INSERT INTO m VALUES (2); INSERT INTO t VALUES (100, 1)');
wait_until($node, 'SELECT count(*) = 1 FROM left_branch WHERE id = 100');
is(sql('SELECT count(*) FROM shared'), '1', 'the coordinator does not wait for a refresh by hand');
$other->query_safe('COMMIT');
wait_until($node, 'SELECT count(*) = 2 FROM shared');
pass('and comes back when it is over');

# A source that is locked holds up only what reads it, for lock_timeout.
$node->append_conf('postgresql.conf', "pg_trickle.lock_timeout = '200ms'\n");
$node->reload;
$other->query_safe('BEGIN; LOCK TABLE m IN ACCESS EXCLUSIVE MODE; INSERT INTO m VALUES (3)');
$other->query_safe(q{SELECT pgtrickle.alter_stream_table('shared', schedule => '100ms')});
sql(q{UPDATE t SET v = v + 1 WHERE id = 3});
wait_until($node, 'SELECT v = (SELECT v FROM t WHERE id = 3) FROM meet WHERE id = 3');
pass('others are refreshed while a source is locked');
$other->query_safe('COMMIT');
wait_until($node, 'SELECT count(*) = 3 FROM shared');
is(status('shared'), 'ACTIVE', 'what waited for the lock is active');

# --- repairs ---------------------------------------------------------------------------------

# Nobody tells the coordinator of a disabled trigger; its next look finds it.
$node->append_conf('postgresql.conf', "pg_trickle.scheduler_interval_ms = '200ms'\n");
$node->reload;
sql(q{CREATE TABLE broken (id int PRIMARY KEY);
	SELECT pgtrickle.create_stream_table('mended', 'SELECT id FROM broken');
	ALTER TABLE broken DISABLE TRIGGER ALL;
	INSERT INTO broken VALUES (1)});
wait_until($node, 'SELECT count(*) = 1 FROM mended');
sql('INSERT INTO broken VALUES (2)');
wait_until($node, 'SELECT count(*) = 2 FROM mended');
is(status('mended'), 'ACTIVE', 'disabled triggers are repaired by the coordinator');

# A dump that is restored in a database of its own.
sql('CREATE DATABASE restored');
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'the database can be dumped');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('restored') ], 'and restored');
$node->safe_psql('restored', 'INSERT INTO t VALUES (200, 7); INSERT INTO broken VALUES (3)');
wait_until($node, 'SELECT count(*) = 1 FROM meet WHERE id = 200', dbname => 'restored');
wait_until($node, 'SELECT count(*) = 3 FROM mended', dbname => 'restored');
wait_until($node, 'SELECT (SELECT sum(v) FROM t) = (SELECT v FROM sums)', dbname => 'restored');
wait_until($node, q{SELECT bool_and(status = 'ACTIVE') FROM pgtrickle.pgt_stream_tables}, dbname => 'restored');
stream_table_is_right($node, $_, "$_ is right in the restored database", dbname => 'restored') for qw(left_branch right_branch meet sums whole mended);
sql('DROP DATABASE restored');

# --- what is told ----------------------------------------------------------------------------

$node->append_conf('postgresql.conf', "pg_trickle.log_refreshes = on\n");
$node->reload;
wait_until($node, q{SELECT current_setting('pg_trickle.log_refreshes') = 'on'});
sql(q{CREATE TABLE l (id int); SELECT pgtrickle.create_stream_table('logged', 'SELECT id FROM l', initialize => false)});
wait_until($node, q{SELECT status = 'ACTIVE' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'logged'});
wait_until($node, q{SELECT state = 'idle' FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator' AND datname = 'postgres'});
my @lines = grep { /refreshed stream table.*logged/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile);
is(scalar(@lines), 1, 'log_refreshes writes one line for a refresh');

# What the coordinator writes is counted while it lives, or autovacuum would never come.
wait_until($node, q{SELECT n_tup_ins > 20 FROM pg_stat_all_tables WHERE relname = 'pgt_refresh_history'});
pass('its statistics are reported');
$other->quit;
$node->stop;
done_testing();
