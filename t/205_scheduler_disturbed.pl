# The scheduler while others get in its way: locks held for long, DDL under load, its switch
# turned off and on, a clock that is set back and forth.
use strict;
use warnings;

use IPC::Run;
use Test::More;
use Time::HiRes qw(time);

use PgTrickle;

my $node = PgTrickle->new_node(
	'disturbed',
	settings => "pg_trickle.scheduler_interval_ms = '1s'\n"
	  . "pg_trickle.lock_timeout = '3s'\n"
	  . "autovacuum = off\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub set
{
	my ($name, $value) = @_;
	$node->append_conf('postgresql.conf', "$name = '$value'\n");
	$node->reload;
	return;
}

sub failures
{
	return sql("SELECT count(*) FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables s USING (pgt_id) WHERE h.status = 'FAILED' AND pgt_name ~ '$_[0]'");
}

my $load;
my $load_errors;

# Writers that go through views, which follow a table whatever it is called.
sub start_load
{
	my $script = $node->basedir . '/load.sql';
	open(my $file, '>', $script) or die $!;
	print $file "\\set id random(1, 200)\n\\set k random(0, 4)\n"
	  . "UPDATE base_view SET v = v + 1, k = :k WHERE id = :id;\n"
	  . "BEGIN; DELETE FROM base_view WHERE id = 1000 + :id; INSERT INTO base_view (id, k, v) VALUES (1000 + :id, :k, 1) ON CONFLICT DO NOTHING; COMMIT;\n"
	  . "UPDATE dim_view SET name = 'd' || :id WHERE k = :k;\n";
	close $file;
	$load_errors = '';
	$load = IPC::Run::start([ 'pgbench', '-n', '-c', '3', '-T', 600, '-f', $script, $node->connstr('postgres') ],
		'>', \my $out, '2>', \$load_errors);
	return;
}

sub stop_load
{
	$load->kill_kill;
	# Its last statements may still be under way.
	wait_until($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()});
	return;
}

# --- locks -----------------------------------------------------------------------------------

sql(q{
	CREATE TABLE free (id int PRIMARY KEY);
	CREATE TABLE other (id int PRIMARY KEY);
	SELECT pgtrickle.create_stream_table('of_free', 'SELECT id FROM free');
	SELECT pgtrickle.create_stream_table('locked' || i, 'SELECT id, ' || i || ' AS n FROM other') FROM generate_series(1, 10) i});
my $holder = session($node);
$holder->query_safe('BEGIN; LOCK TABLE ' . join(', ', map { "locked$_" } 1 .. 10) . ' IN ACCESS EXCLUSIVE MODE');
sql('INSERT INTO other VALUES (1)');
my ($slowest, $began, $rounds) = (0, time, 0);
while (time - $began < 2)
{
	my $start = time;
	$rounds++;
	sql("INSERT INTO free VALUES ($rounds)");
	wait_until($node, "SELECT count(*) = $rounds FROM of_free");
	$slowest = time - $start if time - $start > $slowest;
}
cmp_ok($slowest, '<', 1, sprintf('ten locked stream tables do not hold up another: at most %.0f ms in %d rounds', $slowest * 1000, $rounds));
is(failures('locked'), '0', 'and are no failures yet');
$holder->query_safe('COMMIT');
wait_until($node, q{SELECT count(*) = 10 FROM pgtrickle.pgt_stream_tables s, LATERAL (SELECT 1 FROM pgtrickle.pgt_refresh_history h WHERE h.pgt_id = s.pgt_id AND action = 'DIFFERENTIAL' AND h.status = 'COMPLETED' LIMIT 1) h WHERE pgt_name ~ 'locked'});
stream_table_is_right($node, "locked$_") for 1 .. 10;

# Beyond lock_timeout it is one, and is shown.
$holder->query_safe('BEGIN; LOCK TABLE locked1 IN ACCESS EXCLUSIVE MODE');
sql('INSERT INTO other VALUES (2)');
wait_until($node, q{SELECT last_sqlstate = '55P03' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'locked1'});
is(sql(q{SELECT status, consecutive_errors FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'locked1'}), 'ERROR|0', 'a lock for longer than lock_timeout is a failure, not counted');
is(sql('SELECT count(*) FROM locked2'), '2', 'of that stream table alone');
$holder->query_safe('COMMIT');
wait_until($node, 'SELECT count(*) = 2 FROM locked1');
is(sql(q{SELECT status, last_error_message FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'locked1'}), 'ACTIVE|', 'it recovers');

# A row that a session has locked, and a source that somebody else changes the shape of.
$holder->query_safe('BEGIN; SELECT id FROM locked3 WHERE id = 1 FOR UPDATE');
sql('DELETE FROM other WHERE id = 1; INSERT INTO free VALUES (-1)');
wait_until($node, 'SELECT count(*) = 1 FROM of_free WHERE id = -1');
wait_until($node, 'SELECT count(*) = 1 FROM locked4');
$holder->query_safe('COMMIT; BEGIN; ALTER TABLE other ADD COLUMN note text');
sql('INSERT INTO free VALUES (-2)');
wait_until($node, 'SELECT count(*) = 1 FROM of_free WHERE id = -2');
$holder->query_safe('INSERT INTO other VALUES (3); COMMIT');
wait_until($node, 'SELECT count(*) = 2 FROM (SELECT id FROM locked3 UNION ALL SELECT id FROM locked4) x WHERE id = 3');
wait_until($node, 'SELECT count(*) = 0 FROM (SELECT id FROM locked3 UNION ALL SELECT id FROM locked4) x WHERE id = 1');
stream_table_is_right($node, "locked$_") for 3 .. 4;
$holder->quit;

# --- DDL under load --------------------------------------------------------------------------

sql(q{
	CREATE ROLE one; CREATE ROLE two;
	GRANT CREATE ON SCHEMA public TO one, two;
	CREATE SCHEMA elsewhere;
	GRANT ALL ON SCHEMA elsewhere TO one, two;
	CREATE TABLE base (id int PRIMARY KEY, k int, v int, spare text);
	CREATE TABLE dim (k int PRIMARY KEY, name text);
	INSERT INTO base SELECT i, i % 5, 0 FROM generate_series(1, 200) i;
	INSERT INTO dim SELECT i, 'd' || i FROM generate_series(0, 4) i;
	CREATE VIEW base_view AS SELECT id, k, v FROM base;
	CREATE VIEW dim_view AS SELECT k, name FROM dim;
	GRANT SELECT ON base, dim TO one, two;
	SELECT pgtrickle.create_stream_table('joined', 'SELECT b.id, b.v, d.name FROM base b JOIN dim d USING (k)');
	SELECT pgtrickle.create_stream_table('grouped', 'SELECT k, count(*) AS n, sum(v) AS s FROM base GROUP BY k', '1s');
	SELECT pgtrickle.create_stream_table('above', 'SELECT name, count(*) AS n, sum(v) AS s FROM joined GROUP BY name')});
start_load();
for my $ddl (
	'ALTER TABLE base ADD COLUMN more int DEFAULT 7',
	'ALTER TABLE base RENAME COLUMN v TO value',
	'ALTER TABLE base RENAME TO basis',
	'ALTER TABLE basis SET SCHEMA elsewhere',
	'ALTER TABLE elsewhere.basis OWNER TO one',
	'ALTER TABLE dim RENAME COLUMN name TO title',
	'ALTER TABLE elsewhere.basis DROP COLUMN spare',
	'CREATE INDEX ON elsewhere.basis (k)',
	'GRANT SELECT ON elsewhere.basis, dim TO two',
	'ALTER TABLE joined OWNER TO two',
	'ALTER TABLE joined RENAME TO connected',
	'ALTER TABLE connected SET SCHEMA elsewhere',
	'ALTER TABLE grouped RENAME TO "Grouped !"',
	'CREATE INDEX ON elsewhere.connected (name)',
	'ALTER SCHEMA elsewhere RENAME TO "Else Where"',
	'ALTER TABLE "Else Where".basis RENAME COLUMN value TO v',
	q{SELECT pgtrickle.alter_stream_table('above', query => 'SELECT name, count(*) AS n, sum(v) AS s, max(v) AS m FROM "Else Where".connected GROUP BY name')},
	'ALTER TABLE "Else Where".connected SET SCHEMA public',
	'VACUUM FULL "Else Where".basis',
	'REINDEX TABLE connected',
	'CLUSTER connected USING connected_name_idx')
{
	my ($status, undef, $error) = $node->psql('postgres', $ddl, on_error_stop => 1);
	is($status, 0, "under load: $ddl") or diag($error);
	# A refresh between this one and the next.
	my $id = sql(q{SELECT max(refresh_id) FROM pgtrickle.pgt_refresh_history WHERE status = 'COMPLETED'});
	wait_until($node, "SELECT max(refresh_id) > $id FROM pgtrickle.pgt_refresh_history WHERE status = 'COMPLETED'");
}
stop_load();
unlike($load_errors, qr/ERROR|FATAL|aborted/, 'no writer has noticed') or diag($load_errors);
for my $table ('connected', '"Grouped !"', 'above')
{
	wait_for_fresh($node, $table);
	stream_table_is_right($node, $table, "$table equals its query");
}
# ALTER SCHEMA ... RENAME takes no lock that a reader could wait for: a statement that has its text, but is
# not parsed yet, names the schema as it was.
is(sql(q{SELECT string_agg(DISTINCT h.error_message, '; ') FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables USING (pgt_id)
	WHERE h.status = 'FAILED' AND sqlstate NOT IN ('55P03', '40P01') AND pgt_name !~ 'locked'
	AND error_message !~ '^(schema|relation) "elsewhere[."].*does not exist'}), '', 'no refresh failed but for locks and the new name of a schema');
is(sql(q{SELECT count(*) FROM pgtrickle.pgt_stream_tables WHERE status <> 'ACTIVE'}), '0', 'all are active');

# --- off and on ------------------------------------------------------------------------------

sub off_is_noticed
{
	for my $try (1 .. 50)
	{
		sql('INSERT INTO free SELECT max(id) + 1 FROM free');
		sql('SELECT pg_sleep(0.3)');
		return 1 if sql('SELECT (SELECT max(id) FROM of_free) < (SELECT max(id) FROM free)') eq 't';
	}
	return 0;
}

start_load();
for my $turn (1 .. 3)
{
	set('pg_trickle.enabled', 'off');
	ok(off_is_noticed(), "switched off, turn $turn");
	set('pg_trickle.enabled', 'on');
	wait_until($node, 'SELECT (SELECT max(id) FROM of_free) = (SELECT max(id) FROM free)');
}
set('pg_trickle.enabled', $_ % 2 ? 'off' : 'on') for 1 .. 10;
stop_load();
for my $table ('connected', '"Grouped !"', 'above', 'of_free')
{
	wait_for_fresh($node, $table);
	stream_table_is_right($node, $table, "$table equals its query after switching off and on");
}

# --- the clock -------------------------------------------------------------------------------

SKIP:
{
	skip 'the test points are missing', 1 unless has_test_points();
	sql(q{
		CREATE TABLE tick (id int PRIMARY KEY);
		CREATE TABLE bad (id int PRIMARY KEY, d int);
		SELECT pgtrickle.create_stream_table('by_second', 'SELECT id FROM tick', '1s');
		SELECT pgtrickle.create_stream_table('by_cron', 'SELECT id FROM tick', '*/2 * * * * *');
		SELECT pgtrickle.create_stream_table('by_news', 'SELECT id FROM tick');
		SELECT pgtrickle.create_stream_table('in_error', 'SELECT id, 1 / d AS q FROM bad');
		INSERT INTO tick VALUES (1)});
	my @timed = qw(by_second by_cron by_news);
	my $i = 1;
	for my $offset (-7200, 7200, -86400 * 400, 0)
	{
		sql('DELETE FROM bad; INSERT INTO bad VALUES (1, 0)');
		wait_until($node, q{SELECT status = 'ERROR' AND consecutive_errors > 0 FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'in_error'});
		set('pg_trickle.test_clock_offset', $offset);
		# The coordinator reads its files when it gets to it.
		my $seen = 0;
		for my $try (1 .. 20)
		{
			$i++;
			sql("INSERT INTO tick VALUES ($i)");
			wait_until($node, "SELECT bool_and(n = $i) FROM (" . join(' UNION ALL ', map { "SELECT count(*) AS n FROM $_" } @timed) . ') x');
			$seen = sql("SELECT count(*) FROM pgtrickle.pgt_stream_tables WHERE pgt_name ~ '^by_' AND abs(extract(epoch FROM last_refresh_at - clock_timestamp()) - $offset) < 60");
			last if $seen == 3;
		}
		is($seen, '3', "clock at $offset s: all kinds of schedules go on");
		my $refreshes = q{SELECT coalesce(sum(full_count + differential_count), 0) FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name IN ('by_second', 'by_cron')};
		my ($before, $start) = (sql($refreshes), time);
		while (time - $start < 2.5)
		{
			sql('DELETE FROM tick WHERE id = 0; INSERT INTO tick VALUES (0)');
		}
		my $done = sql($refreshes) - $before;
		cmp_ok($done, '<=', 8, "and not more often than they say: $done refreshes in 2.5 s");
		sql('DELETE FROM tick WHERE id = 0; UPDATE bad SET d = 1');
		wait_until($node, 'SELECT count(*) = 1 FROM in_error WHERE q = 1');
		pass('a stream table in error is tried again');
	}
	wait_for_fresh($node, $_) && stream_table_is_right($node, $_) for @timed, 'in_error';
}

# --- paused when its turn has begun ----------------------------------------------------------

SKIP:
{
	skip 'the test points are missing', 1 unless has_test_points();
	sql(q{
		CREATE TABLE still (id int PRIMARY KEY);
		SELECT pgtrickle.create_stream_table('paused', 'SELECT id FROM still');
		INSERT INTO still VALUES (1)});
	wait_until($node, 'SELECT count(*) = 1 FROM paused');
	my $holder = $node->background_psql('postgres', on_error_stop => 1);
	$holder->query_safe(q{SELECT pg_advisory_lock(7366516, hashtext('attempt-begin') & 2147483647)});
	set('pg_trickle.test_points', 'attempt-begin=wait');
	# Workers read their files when they get to it.
	my $i = 2;
	until (sql(q{SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 7366516 AND NOT granted)}) eq 't')
	{
		sql("INSERT INTO still VALUES ($i)");
		$i++;
		select(undef, undef, undef, 0.05);
	}
	my $before = sql('SELECT count(*) FROM paused');
	sql(q{SELECT pgtrickle.pause_stream_table('paused'); INSERT INTO still VALUES (0)});
	set('pg_trickle.test_points', '');
	$holder->quit;
	wait_until($node, q{SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 7366516)});
	sql('INSERT INTO tick VALUES (100000)');
	wait_for_fresh($node, 'by_news');
	is(sql('SELECT count(*) FROM paused'), $before, 'it is not refreshed any more');
	sql(q{SELECT pgtrickle.resume_stream_table('paused')});
	wait_for_fresh($node, 'paused');
	stream_table_is_right($node, 'paused', 'resumed, it goes on');
}

# --- defaults of the database that are meant for users ---------------------------------------

sql('CREATE DATABASE with_defaults');
$node->safe_psql('with_defaults', q{CREATE EXTENSION pg_trickle; CREATE TABLE t (id int);
	SELECT pgtrickle.create_stream_table('s', 'SELECT count(*) AS n FROM t')});
sql("ALTER DATABASE with_defaults SET $_") for 'default_transaction_read_only = on', 'default_transaction_isolation = serializable',
  "statement_timeout = '1ms'", "lock_timeout = '1ms'", "role = 'pg_monitor'", "search_path = 'nowhere'";
my $scheduler = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator' AND datname = 'with_defaults'};
wait_until($node, "SELECT EXISTS ($scheduler)");
my $former = sql($scheduler);
sql("SELECT pg_terminate_backend($former)");
wait_until($node, "SELECT pid <> $former FROM ($scheduler) p");
$node->safe_psql('postgres', 'ALTER DATABASE with_defaults RESET ALL');
$node->safe_psql('with_defaults', 'INSERT INTO t VALUES (1)');
wait_until($node, 'SELECT n = 1 FROM s', dbname => 'with_defaults');
is($node->safe_psql('with_defaults', 'SELECT status, total_refreshes, failed_refreshes FROM pgtrickle.pg_stat_stream_tables'), 'ACTIVE|2|0', 'a database that is read-only by default, and more, is served');

$node->stop;
done_testing();
