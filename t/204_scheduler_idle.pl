# What the scheduler does when nothing happens, and what it leaves behind: idle stream tables,
# looks that find what no news told of, buffers that grow and are emptied, errors that are over.
use strict;
use warnings;

use Test::More;

use PgTrickle;

my $node = PgTrickle->new_node(
	'idle',
	settings => "pg_trickle.scheduler_interval_ms = '200ms'\n"
	  . "pg_trickle.buffer_alert_size = '2MB'\n"
	  . "pg_trickle.max_consecutive_errors = 2\n"
	  . "autovacuum = off\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub set
{
	my ($name, $value) = @_;
	$node->append_conf('postgresql.conf', "$name = '$value'\n");
	$node->reload;
	wait_until($node, "SELECT setting = '$value' FROM pg_settings WHERE name = '$name'");
	return;
}

sub buffer_bytes
{
	my ($source) = @_;
	return "(SELECT max(buffer_bytes) FROM pgtrickle.change_buffer_sizes() WHERE source_table::regclass = '$source'::regclass)";
}

# --- idle stream tables cost no transaction -------------------------------------------------

# Transactions of the database while two seconds pass, which is ten looks. One session reads
# the counters, so that it adds the same each time.
sub transactions
{
	my $session = session($node);
	my $counters = 'SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()';
	$session->query_safe('SELECT pg_sleep(1.1)'); # what was before is reported after a second
	my $before = $session->query_safe($counters);
	$session->query_safe('SELECT pg_sleep(3)');
	my $after = $session->query_safe($counters);
	$session->quit;
	return $after - $before;
}

sql(q{CREATE TABLE t0 (id int PRIMARY KEY, v int); SELECT pgtrickle.create_stream_table('s0', 'SELECT id, v FROM t0', '1s'); INSERT INTO t0 VALUES (1, 1)});
wait_until($node, 'SELECT count(*) = 1 FROM s0');
my $few = transactions();
sql(q{
	SELECT format('CREATE TABLE t%1$s (id int PRIMARY KEY, v int)', i) FROM generate_series(1, 60) i \gexec
	SELECT pgtrickle.create_stream_table('s' || i, format('SELECT id, v FROM t%s', i), '1s') FROM generate_series(1, 60) i;
	SELECT pgtrickle.create_stream_table('sum' || i, format('SELECT v, count(*) AS n FROM s%s GROUP BY v', i)) FROM generate_series(1, 30) i;
	SELECT format('INSERT INTO t%s VALUES (1, 1)', i) FROM generate_series(1, 60) i \gexec
});
wait_until($node, q{SELECT bool_and(pending_rows = 0 AND total_rows_in > 0) FROM pgtrickle.pg_stat_stream_tables});
wait_until($node, q{SELECT state = 'idle' FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator'});
my $xid = sub { sql('SELECT pg_snapshot_xmax(pg_current_snapshot())') };
my $before = $xid->();
my $many = transactions();
cmp_ok($many, '<', $few + 15, "91 idle stream tables cost no more transactions than one ($many, $few)");
is($xid->(), $before, 'and no transaction id');
sql('UPDATE t7 SET v = 2');
wait_until($node, 'SELECT v = 2 FROM s7');
wait_until($node, 'SELECT v = 2 FROM sum7');
stream_table_is_right($node, $_) for qw(s7 sum7);
sql(join ';', map { "SELECT pgtrickle.drop_stream_table('s$_', cascade => true)" } 1 .. 60);

# --- writers of what is not due wake nobody -------------------------------------------------

set('pg_trickle.scheduler_interval_ms', '10000');
sql(q{CREATE TABLE h (id int PRIMARY KEY); SELECT pgtrickle.create_stream_table('of_h', 'SELECT id FROM h', '1h')});
wait_until($node, q{SELECT state = 'idle' FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator'});
my $coordinator = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator'});
my $switches = sub {
	open my $status, '<', "/proc/$coordinator/status" or return 0;
	local $/;
	return (<$status> =~ /^voluntary_ctxt_switches:\s*(\d+)/m)[0];
};
my $writer = session($node);
$writer->query_safe('INSERT INTO h VALUES (0)');
my $switches_before = $switches->();
$writer->query_safe("INSERT INTO h VALUES ($_)") for 1 .. 500;
cmp_ok($switches->() - $switches_before, '<', 100, '500 commits wake the coordinator a few times at most');
is(sql('SELECT count(*) FROM of_h'), '0', 'nothing was due');
sql(q{SELECT pgtrickle.alter_stream_table('of_h', schedule => '1s')});
wait_until($node, 'SELECT count(*) = 501 FROM of_h');
# Now and then held and let go, nothing is lost.
for my $n (501 .. 520)
{
	$writer->query_safe("INSERT INTO h VALUES ($n)");
	wait_until($node, "SELECT count(*) = $n + 1 FROM of_h") if $n % 5 == 0;
}
wait_until($node, 'SELECT count(*) = 521 FROM of_h');
pass('what was committed in silence comes when it is due');
sql(q{SELECT pgtrickle.create_stream_table('also_of_h', 'SELECT count(*) AS n FROM h')});
$writer->query_safe('INSERT INTO h VALUES (1000)');
wait_until($node, 'SELECT n = 522 FROM also_of_h');
pass('one that is due at once is not held up by another that is not');
$writer->quit;

# The news of a source are held for the readers of that source, and for no others: of none here,
# since only the last of these is not due.
set('pg_trickle.max_parallel_workers', 2);
sql(q{
	CREATE TABLE d (id int PRIMARY KEY, g int);
	SELECT pgtrickle.create_stream_table('left_of_d', 'SELECT g, count(*) AS n FROM d GROUP BY g');
	SELECT pgtrickle.create_stream_table('right_of_d', 'SELECT g, max(id) AS m FROM d GROUP BY g');
	SELECT pgtrickle.create_stream_table('both_of_d', 'SELECT * FROM left_of_d JOIN right_of_d USING (g)', diamond_consistency => 'atomic');
	SELECT pgtrickle.create_stream_table('later_of_d', 'SELECT id FROM d', '1h')});
for my $n (1 .. 5)
{
	sql("INSERT INTO d VALUES ($n, 1)");
	wait_until($node, "SELECT n = $n AND m = $n FROM both_of_d");
}
my $jobs = 'SELECT coalesce(max(job_id), 0) FROM pgtrickle.parallel_job_status()';
my $jobs_before = sql($jobs);
sql('SELECT pg_sleep(1)');
cmp_ok(sql($jobs) - $jobs_before, '<', 10, 'nothing is refreshed again and again for one that is not due');
set('pg_trickle.max_parallel_workers', 0);
sql(q{SELECT pgtrickle.drop_stream_table(s) FROM unnest('{later_of_d,both_of_d,right_of_d,left_of_d}'::text[]) s});
set('pg_trickle.scheduler_interval_ms', '200');

# --- what no news tells of ------------------------------------------------------------------

# The marks of prepared transactions are lost when the server restarts.
sql(q{BEGIN; INSERT INTO t0 VALUES (2, 2); PREPARE TRANSACTION 'over a restart'});
$node->restart;
sql('INSERT INTO t0 VALUES (3, 3)');
wait_until($node, 'SELECT count(*) = 2 FROM s0');
sql(q{COMMIT PREPARED 'over a restart'});
wait_until($node, 'SELECT count(*) = 3 FROM s0');
pass('a look finds what was prepared before the server started');
stream_table_is_right($node, 's0');

# A look that fails at one stream table goes on with the others.
sql(q{
	CREATE TABLE u (id int PRIMARY KEY);
	CREATE TABLE w (id int PRIMARY KEY);
	SELECT pgtrickle.create_stream_table('of_u', 'SELECT id FROM u');
	SELECT pgtrickle.create_stream_table('of_w', 'SELECT id FROM w');
	ALTER TABLE u DISABLE TRIGGER ALL; ALTER TABLE w DISABLE TRIGGER ALL;
	INSERT INTO u VALUES (1); INSERT INTO w VALUES (1)});
wait_until($node, 'SELECT count(*) = 1 FROM of_u');
wait_until($node, 'SELECT count(*) = 1 FROM of_w');
pass('a look finds triggers that were disabled');

# --- buffers ---------------------------------------------------------------------------------

my $listener = session($node);
my $heard = '';
my $hear = sub { $heard .= $listener->query_safe('SELECT 1'); return scalar(() = $heard =~ /buffer_growth/g) };
$listener->query_safe('LISTEN pg_trickle_alert');
sql(q{
	CREATE TABLE g (id int PRIMARY KEY, v text);
	SELECT pgtrickle.create_stream_table('quick', 'SELECT id, v FROM g');
	SELECT pgtrickle.create_stream_table('slow', 'SELECT count(*) AS n FROM g');
	SELECT pgtrickle.pause_stream_table('slow')});
sub grow
{
	my ($from) = @_;
	sql("INSERT INTO g SELECT i, repeat('x', 1000) FROM generate_series($from, $from + 999) i");
	wait_until($node, "SELECT count(*) = $from + 999 FROM quick");
	return;
}
grow($_ * 1000 + 1) for 0 .. 3;
wait_until($node, q{SELECT severity = 'WARNING' FROM pgtrickle.health_check() WHERE check_name = 'buffer_growth'});
like(sql(q{SELECT detail FROM pgtrickle.health_check() WHERE check_name = 'buffer_growth'}), qr/^(public\.)?g: \d+ (kB|MB)$/, 'health_check names the buffer');
$hear->() until $heard =~ /buffer_growth/;
like($heard, qr/"source_schema":"public","source_name":"g","buffer_bytes":\d+,"alert_bytes":2097152,"slowest":"public\.slow"/, 'an alert tells whose it is and who keeps it');
grow(4001);
my $kept = sql('SELECT ' . buffer_bytes('g'));
# Prune comes every five seconds: time for one.
sql('SELECT pg_sleep(6)');
cmp_ok(sql('SELECT ' . buffer_bytes('g')), '>=', $kept, 'what a paused stream table has not seen is kept');
is($hear->(), 1, 'told once');
is(sql(q{SELECT min(pending_rows) || ' ' || max(pending_rows) FROM pgtrickle.change_buffer_sizes() WHERE source_table = 'g' OR source_table = 'public.g'}), '0 5000', 'though another has');

# It catches up, and nobody writes any more: the space comes back.
sql(q{SELECT pgtrickle.resume_stream_table('slow')});
wait_until($node, 'SELECT n = 5000 FROM slow');
wait_until($node, 'SELECT ' . buffer_bytes('g') . ' < 1048576');
pass('resumed, its source has its space back without another write');
wait_until($node, q{SELECT severity = 'OK' FROM pgtrickle.health_check() WHERE check_name = 'buffer_growth'});

# Again too large: told again, if it was seen small in between, by every third look. Dropping the
# slow one frees it.
sql('SELECT pg_sleep(1.5)');
sql(q{SELECT pgtrickle.pause_stream_table('slow')});
grow($_ * 1000 + 1) for 5 .. 8;
$hear->() until (() = $heard =~ /buffer_growth/g) == 2;
pass('the second crossing is told, too');
sql(q{SELECT pgtrickle.drop_stream_table('slow')});
wait_until($node, 'SELECT ' . buffer_bytes('g') . ' < 1048576');
pass('a dropped stream table keeps nothing');
grow(9001);
stream_table_is_right($node, 'quick');
set('pg_trickle.buffer_alert_size', '0');
sql(q{SELECT pgtrickle.create_stream_table('slow', 'SELECT count(*) AS n FROM g'); SELECT pgtrickle.pause_stream_table('slow')});
grow($_ * 1000 + 1) for 10 .. 13;
is(sql(q{SELECT severity FROM pgtrickle.health_check() WHERE check_name = 'buffer_growth'}), 'OK', 'buffer_alert_size 0 is never');
$listener->quit;

# --- errors that are over --------------------------------------------------------------------

my $errors = q{SELECT status, consecutive_errors, last_sqlstate, last_error_message, last_error_at IS NULL, next_retry_at IS NULL FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'q'};
sql(q{
	CREATE TABLE e (id int PRIMARY KEY, d int);
	SELECT pgtrickle.create_stream_table('q', 'SELECT id, 10 / d AS q FROM e');
	INSERT INTO e VALUES (1, 0)});
wait_until($node, q{SELECT status = 'ERROR' AND consecutive_errors = 1 FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'q'});
is(sql($errors), 'ERROR|1|22012|division by zero|f|f', 'an error is shown with its time');
sql('UPDATE e SET d = 1');
wait_until($node, q{SELECT status = 'ACTIVE' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'q'});
is(sql($errors), 'ACTIVE|0|||t|t', 'until it is overcome');
like(sql(q{SELECT string_agg(error_message, ',') FROM pgtrickle.get_refresh_history('q')}), qr/^division by zero/, 'the history keeps it');

# A refresh by hand ends a suspension, and the scheduler knows.
set('pg_trickle.scheduler_interval_ms', '3600000');
sql('UPDATE e SET d = 0');
wait_until($node, q{SELECT status = 'ERROR' AND consecutive_errors = 1 FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'q'});
sql('INSERT INTO e VALUES (2, 0)');
wait_until($node, q{SELECT status = 'SUSPENDED' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'q'});
sql(q{UPDATE e SET d = 5; SELECT pgtrickle.refresh_stream_table('q')});
is(sql($errors), 'ACTIVE|0|||t|t', 'a refresh by hand ends a suspension');
sql('UPDATE e SET d = 2');
wait_until($node, 'SELECT bool_and(q = 5) FROM q');
pass('and the scheduler goes on with it');

# Somebody who asks is told why nothing is refreshed.
set('pg_trickle.enabled', 'off');
is(sql(q{SELECT severity, detail FROM pgtrickle.health_check() WHERE check_name = 'scheduler_running'}),
	'ERROR|the coordinator of this database runs, but pg_trickle.enabled is off', 'health_check tells that it is switched off');

$node->stop;
done_testing();
