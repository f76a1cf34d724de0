# pg_upgrade: a cluster with stream tables of all kinds becomes another one, and they go on.
use strict;
use warnings;

use Test::More;

use PgTrickle;

my $old = PgTrickle->new_node('before', settings => "pg_trickle.max_parallel_workers = 2\nautovacuum = off\n");
my $new = PostgreSQL::Test::Cluster->new('after');
my $bin = do { my $dir = `pg_config --bindir`; chomp $dir; $dir };

sub sql { my ($node, $sql) = @_; return $node->safe_psql('postgres', $sql) }

sql($old, q{
	CREATE ROLE owner_of_some;
	GRANT CREATE ON SCHEMA public TO owner_of_some;
	CREATE TABLE emp (id int PRIMARY KEY, dept int, pay numeric, gone text, note text);
	ALTER TABLE emp DROP COLUMN gone;
	INSERT INTO emp SELECT i, i % 20, i, 'n' || i FROM generate_series(1, 400) i;
	CREATE TABLE part (id int, k int) PARTITION BY RANGE (id);
	CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
	CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (100) TO (1000);
	INSERT INTO part SELECT i, i % 7 FROM generate_series(1, 200) i;
	GRANT SELECT ON emp TO owner_of_some;
	SELECT pgtrickle.create_stream_table('plain', 'SELECT id, dept, pay FROM emp WHERE pay > 10', schedule => '100ms');
	SELECT pgtrickle.create_stream_table('by_dept', 'SELECT dept, count(*) AS n, sum(pay) AS pay, max(note) AS last FROM emp GROUP BY dept', schedule => '100ms', sla => '1 min');
	SELECT pgtrickle.create_stream_table('staged', 'SELECT n, count(*) AS depts FROM (SELECT dept, count(*) AS n FROM emp GROUP BY dept) s GROUP BY n', schedule => '100ms');
	SELECT pgtrickle.create_stream_table('over', 'SELECT sum(n) AS n, max(pay) AS pay FROM by_dept', schedule => '100ms');
	SELECT pgtrickle.create_stream_table('parts', 'SELECT k, count(*) AS n FROM part GROUP BY k', schedule => '100ms');
	SELECT pgtrickle.create_stream_table('paused', 'SELECT k, sum(id) AS s FROM part GROUP BY k', schedule => '100ms');
	SELECT pgtrickle.create_stream_table('asleep', 'SELECT dept, sum(pay) AS s FROM emp GROUP BY dept', schedule => '1h');
	SELECT pgtrickle.pause_stream_table(t) FROM unnest(ARRAY['paused', 'asleep']) t;
	SET ROLE owner_of_some;
	SELECT pgtrickle.create_stream_table('owned', 'SELECT dept, avg(pay) AS pay FROM emp GROUP BY dept', schedule => '100ms');
	RESET ROLE;
	CREATE INDEX plain_dept ON plain (dept);
	CREATE VIEW plain_view AS SELECT dept, count(*) FROM plain GROUP BY dept;
	SELECT pgtrickle.stream_table_to_publication('plain')});
my @all = qw(plain by_dept staged over parts owned);

sub write_some
{
	my ($node, $n) = @_;
	sql($node, qq{UPDATE emp SET pay = pay + $n, dept = (dept + 1) % 22 WHERE id % 9 = $n % 9; INSERT INTO part SELECT $n * 1000 % 900 + i, i FROM generate_series(1, 5) i;
		DELETE FROM emp WHERE id % 50 = $n});
	return;
}

write_some($old, 1);
wait_for_fresh($old, $_) || die for @all;
# Changes that are not taken over yet, and will be pending when it stops.
$old->append_conf('postgresql.conf', "pg_trickle.enabled = off\n");
$old->reload;
wait_until($old, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'pg_trickle%' AND state <> 'idle'});
write_some($old, 2);
my $definitions = q{SELECT string_agg(concat_ws('|', pgt_id, pgt_relid::text, original_query, schedule, refresh_mode, paused, freshness_deadline_ms, downstream_publication_name), E'\n' ORDER BY pgt_id) FROM pgtrickle.pgt_definitions};
my $before = sql($old, $definitions);
$old->stop;

$new->init;
$new->append_conf('postgresql.conf', PgTrickle::default_settings(scheduler => 1) . "pg_trickle.max_parallel_workers = 2\nautovacuum = off\n");
$new->command_ok(
	[   'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bin, '-B', $bin,
		'-s', $new->host, '-p', $old->port, '-P', $new->port, '--check' ],
	'pg_upgrade finds nothing in the way');
$new->command_ok(
	[   'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bin, '-B', $bin,
		'-s', $new->host, '-p', $old->port, '-P', $new->port ],
	'pg_upgrade');
$new->start;

is(sql($new, $definitions), $before, 'definitions are kept');
ok(wait_for_fresh($new, $_), "$_ is brought up to date by the scheduler") for @all;
stream_table_is_right($new, $_, "$_ equals its query") for @all;
is(sql($new, q{SELECT status FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'paused'}), 'SUSPENDED', 'paused stays paused');
is(sql($new, q{SELECT downstream_publication FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'plain'}), 'pgt_public_plain', 'the publication is there');
is(sql($new, q{SELECT count(*) FROM pg_indexes WHERE indexname = 'plain_dept'}), 1, 'and so is the index');
sql($new, 'ANALYZE');
for my $n (3 .. 5)
{
	write_some($new, $n);
	ok(wait_for_fresh($new, $_), "$_ follows the changes $n") for @all;
}
stream_table_is_right($new, $_, "$_ still equals its query") for @all;
cmp_ok(sql($new, q{SELECT count(DISTINCT pgt_id) FROM pgtrickle.pgt_refresh_history WHERE action = 'DIFFERENTIAL' AND status = 'COMPLETED' AND start_time > (SELECT pg_postmaster_start_time())}), '>=', 4, 'incrementally');
is(sql($new, q{SELECT string_agg(DISTINCT status || ' ' || coalesce(error_message, ''), ', ') FROM pgtrickle.pgt_refresh_history WHERE status <> 'COMPLETED'}), '', 'no refresh failed');
sql($new, q{SELECT pgtrickle.resume_stream_table('paused'); SELECT pgtrickle.refresh_stream_table('paused')});
stream_table_is_right($new, 'paused', 'what was paused is right when it is resumed');
like(error_of($new, 'DROP TABLE emp'), qr/table plain depends on|stream table|table by_dept depends on/, 'sources are protected');
like(error_of($new, 'INSERT INTO plain VALUES (1)'), qr/ERROR/, 'stream tables are guarded');
sql($new, q{SELECT pgtrickle.drop_stream_table(t, cascade => true) FROM unnest(ARRAY['over', 'by_dept', 'staged', 'parts', 'owned', 'paused', 'asleep']) t; DROP TABLE plain CASCADE});
is(sql($new, q{SELECT count(*) FROM pg_class WHERE relnamespace IN ('pgtrickle_state'::regnamespace, 'pgtrickle_changes'::regnamespace)}), 0, 'and dropped without a trace');
sql($new, 'DROP EXTENSION pg_trickle CASCADE');
done_testing();
