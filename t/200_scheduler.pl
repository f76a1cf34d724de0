# The scheduler: what wakes it, in which order it refreshes, and what it does about failures.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time);

use PgTrickle;

my $node = PgTrickle->new_node(
	'scheduler',
	settings => "max_prepared_transactions = 5\n"
	  . "pg_trickle.scheduler_interval_ms = '1h'\n"
	  . "pg_trickle.max_consecutive_errors = 3\n"
	  . "autovacuum = off\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

sql(q{
	CREATE TABLE c (id int PRIMARY KEY, name text);
	CREATE TABLE o (id int PRIMARY KEY, cid int, total numeric(10,2));
	SELECT pgtrickle.create_stream_table('joined', 'SELECT o.id, c.name, o.total FROM o JOIN c ON c.id = o.cid');
	SELECT pgtrickle.create_stream_table('summed', 'SELECT name, count(*) AS n, sum(total) AS s FROM joined GROUP BY name');
	SELECT pgtrickle.create_stream_table('timed', 'SELECT cid, count(*) AS n FROM o GROUP BY cid', '1s');
	SELECT pgtrickle.create_stream_table('seldom', 'SELECT count(*) AS n FROM o', '1h');
	SELECT pgtrickle.create_stream_table('fed', 'SELECT id, total FROM o WHERE total > 5', '1h');
	SELECT pgtrickle.create_stream_table('later', 'SELECT id FROM c', initialize => false);
});

# Commits wake it; with a fallback scan every hour nothing else would.
wait_until($node, q{SELECT status = 'ACTIVE' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'later'});
pass('a stream table made without rows is filled');
sql("INSERT INTO c VALUES (1, 'a'), (2, 'b'); INSERT INTO o VALUES (1, 1, 5), (2, 2, 7)");
wait_until($node, 'SELECT count(*) = 2 FROM summed');
pass('a chain of calculated stream tables follows a commit');
stream_table_is_right($node, $_) for qw(joined summed later);
wait_until($node, 'SELECT count(*) = 2 FROM timed');
pass('a stream table with a duration follows');
is(sql('SELECT n FROM seldom'), '0', 'one with a longer duration is not due');

# Latency, from commit to visible: no polling anywhere on this path.
my @latency;
for my $i (10 .. 29)
{
	sql("INSERT INTO o VALUES ($i, 1, 1)");
	my $start = time;
	wait_until($node, "SELECT count(*) = 1 FROM joined WHERE id = $i");
	push @latency, time - $start;
}
@latency = sort { $a <=> $b } @latency;
ok($latency[10] < 1, sprintf('commit to visible, with psql: median %.1f ms', $latency[10] * 1000));

# A prepared transaction counts when it is committed.
sql("BEGIN; INSERT INTO o VALUES (100, 2, 9); PREPARE TRANSACTION 'p'");
sql("INSERT INTO o VALUES (101, 2, 9)");
wait_until($node, 'SELECT count(*) = 1 FROM joined WHERE id = 101');
is(sql('SELECT count(*) FROM joined WHERE id = 100'), '0', 'a prepared row is not there');
sql("COMMIT PREPARED 'p'");
wait_until($node, 'SELECT count(*) = 1 FROM joined WHERE id = 100');
pass('COMMIT PREPARED wakes the coordinator');
stream_table_is_right($node, $_) for qw(joined summed);

# Idle stream tables cost no transaction ids, fallback scans included.
$node->append_conf('postgresql.conf', "pg_trickle.scheduler_interval_ms = '100ms'\n");
$node->reload;
wait_until($node, q{SELECT bool_and(pending_rows = 0) FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name IN ('joined', 'summed', 'timed')});
{
	my $xid = sub { sql('SELECT pg_snapshot_xmax(pg_current_snapshot())') };
	my $before = $xid->();
	# Ten fallback scans take a second; the clock of the server tells when they are over.
	my $until = sql("SELECT clock_timestamp() + interval '1.2 seconds'");
	wait_until($node, "SELECT clock_timestamp() > '$until'");
	is($xid->(), $before, 'fallback scans take no transaction id');
}

# A table that fails backs off and is suspended; its siblings go on, its children wait.
my $listener = session($node);
$listener->query_safe('LISTEN pg_trickle_alert');
sql(q{
	CREATE TABLE f (id int PRIMARY KEY, d int);
	SELECT pgtrickle.create_stream_table('fails', 'SELECT id, 10 / d AS q FROM f');
	SELECT pgtrickle.create_stream_table('child', 'SELECT count(*) AS n FROM fails');
	SELECT pgtrickle.create_stream_table('sibling', 'SELECT id, d FROM f');
	INSERT INTO f VALUES (1, 5);
});
wait_until($node, 'SELECT count(*) = 1 FROM fails');
sql('INSERT INTO f VALUES (2, 0)');
wait_until($node, q{SELECT status = 'ERROR' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'fails'});
is(sql(q{SELECT last_sqlstate FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'fails'}), '22012', 'the error is in the catalog');
is(sql(q{SELECT status || ' ' || sqlstate FROM pgtrickle.get_refresh_history('fails', 1) h JOIN pgtrickle.pgt_refresh_history USING (refresh_id, status)}),
	'FAILED 22012', 'and in the history');
wait_until($node, 'SELECT count(*) = 2 FROM sibling');
pass('a sibling goes on');
# New input ends the wait of a data error early. The first failure is of a delta, and not
# counted: everything is computed next.
sql("INSERT INTO f VALUES ($_, 1)") || wait_until($node, "SELECT count(*) >= $_ FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables s USING (pgt_id) WHERE pgt_name = 'fails' AND h.status = 'FAILED'")
  for 3 .. 4;
wait_until($node, q{SELECT status = 'SUSPENDED' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'fails'});
like(sql(q{SELECT suspended_reason FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'fails'}), qr/3 refreshes failed in a row.*division by zero/, 'suspended after three');
like($listener->query_safe('SELECT 1') . $listener->query_safe('SELECT 2'), qr/1/, 'the listener lives');
sql('DELETE FROM f WHERE d = 0');
sql("SELECT pgtrickle.resume_stream_table('fails')");
wait_until($node, 'SELECT n = 3 FROM child');
stream_table_is_right($node, $_) for qw(fails child sibling);
is(sql(q{SELECT status FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'fails'}), 'ACTIVE', 'active again after resume');

# Paused means paused.
sql("SELECT pgtrickle.pause_stream_table('sibling'); INSERT INTO f VALUES (9, 9)");
wait_until($node, 'SELECT count(*) = 4 FROM fails');
is(sql('SELECT count(*) FROM sibling'), '3', 'a paused stream table stays as it is');
sql("SELECT pgtrickle.resume_stream_table('sibling')");
wait_until($node, 'SELECT count(*) = 4 FROM sibling');
pass('and catches up when resumed');

# A right that is missing is waited for; DDL that does not give it costs no counted failure.
sql(q{
	CREATE ROLE keeper;
	CREATE TABLE kept (id int PRIMARY KEY);
	GRANT SELECT ON kept TO keeper;
	CREATE SCHEMA keeps AUTHORIZATION keeper;
	SET ROLE keeper;
	SELECT pgtrickle.create_stream_table('keeps.them', 'SELECT id FROM public.kept');
	RESET ROLE;
	REVOKE SELECT ON kept FROM keeper;
	INSERT INTO kept VALUES (1)});
my $keeps = q{FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'them'};
wait_until($node, "SELECT last_sqlstate = '42501' AND consecutive_errors = 1 $keeps");
for my $n (2 .. 5)
{
	sql("CREATE TABLE no_use_$n (id int)");
	wait_until($node, "SELECT failed_refreshes = $n $keeps");
}
is(sql("SELECT status, consecutive_errors, next_retry_at > now() + '14 min' $keeps"), 'ERROR|1|t', 'it waits on');
sql('CREATE TEMP TABLE no_use (id int)');
$node->restart;
$listener = session($node);
$listener->query_safe('LISTEN pg_trickle_alert');
sql('GRANT SELECT ON kept TO keeper');
wait_until($node, 'SELECT count(*) = 1 FROM keeps.them');
is(sql("SELECT status, failed_refreshes $keeps"), 'ACTIVE|5', 'a GRANT ends the wait, after a restart of the server, too');
sql('DROP SCHEMA keeps CASCADE; DROP TABLE kept; DROP OWNED BY keeper; DROP ROLE keeper');

# A refresh that takes too long is stopped; nothing else is.
$node->append_conf('postgresql.conf', "pg_trickle.max_refresh_runtime = '300ms'\n");
$node->reload;
sql(q{
	CREATE TABLE slow (id int);
	CREATE FUNCTION wait_a_bit(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM pg_sleep(5); RETURN $1; END $$;
	SELECT pgtrickle.create_stream_table('sleeps', 'SELECT id, wait_a_bit(id) AS w FROM slow');
	INSERT INTO slow VALUES (1);
});
wait_until($node, q{SELECT last_sqlstate = '57014' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'sleeps'});
pass('max_refresh_runtime stops a refresh');
sql("SELECT pgtrickle.drop_stream_table('sleeps')");
sql("INSERT INTO o VALUES (200, 1, 1)");
wait_until($node, 'SELECT count(*) = 1 FROM joined WHERE id = 200');

# The coordinator is terminated; the launcher starts another one.
my $coordinator = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator' AND datname = 'postgres'};
my $pid = sql($coordinator);
sql("SELECT pg_terminate_backend($pid)");
wait_until($node, "SELECT pid <> $pid FROM ($coordinator) p");
sql("INSERT INTO o VALUES (201, 1, 1)");
wait_until($node, 'SELECT count(*) = 1 FROM joined WHERE id = 201');
pass('a terminated coordinator is replaced');

# Commands that need a database for themselves.
sql('CREATE DATABASE other');
$node->safe_psql('other', q{CREATE EXTENSION pg_trickle; CREATE TABLE t (id int);
	SELECT pgtrickle.create_stream_table('s', 'SELECT id FROM t'); INSERT INTO t VALUES (1)});
wait_until($node, 'SELECT count(*) = 1 FROM s', dbname => 'other');
sql('ALTER DATABASE other RENAME TO another');
$node->safe_psql('another', 'INSERT INTO t VALUES (2)');
wait_until($node, 'SELECT count(*) = 2 FROM s', dbname => 'another');
pass('a renamed database is served again');
sql('CREATE DATABASE copied TEMPLATE another');
$node->safe_psql('copied', 'INSERT INTO t VALUES (3)');
wait_until($node, 'SELECT count(*) = 3 FROM s', dbname => 'copied');
is($node->safe_psql('another', 'SELECT count(*) FROM s'), '2', 'a copied database is served, apart from its template');
sql('DROP DATABASE another');
sql('DROP DATABASE copied');
pass('databases with a coordinator can be dropped');

# The extension goes and comes back.
sql('CREATE DATABASE gone');
$node->safe_psql('gone', q{CREATE EXTENSION pg_trickle; CREATE TABLE t (id int);
	SELECT pgtrickle.create_stream_table('s', 'SELECT id FROM t'); INSERT INTO t VALUES (1)});
wait_until($node, 'SELECT count(*) = 1 FROM s', dbname => 'gone');
$node->safe_psql('gone', 'DROP EXTENSION pg_trickle CASCADE');
$node->safe_psql('gone', 'INSERT INTO t VALUES (2)');
wait_until($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator' AND datname = 'gone'});
pass('the coordinator leaves when the extension is dropped');
$node->safe_psql('gone', q{CREATE EXTENSION pg_trickle; SELECT pgtrickle.create_stream_table('s2', 'SELECT id FROM t'); INSERT INTO t VALUES (3)});
wait_until($node, 'SELECT count(*) = 3 FROM s2', dbname => 'gone');
pass('and comes back with it');

is(sql(q{SELECT string_agg(severity, ',') FROM pgtrickle.health_check() WHERE check_name IN ('library_preloaded', 'scheduler_running', 'error_tables')}), 'OK,OK,OK', 'health_check is content');
$listener->quit;
$node->stop;
done_testing();
