# What may happen to a server in the middle of everything: no processes to be had, a restart while
# transactions are prepared, a standby that takes over while the primary refreshes.
use strict;
use warnings;

use Test::More;

use PgTrickle;

my $primary = PgTrickle->new_node('primary', settings => "max_prepared_transactions = 5\nautovacuum = off\n");

sub sql { return $primary->safe_psql('postgres', $_[0]) }

sub log_lines
{
	my ($text, $from) = @_;
	my $log = PostgreSQL::Test::Utils::slurp_file($primary->logfile, $from);
	return scalar(() = $log =~ /\Q$text\E/g);
}

sql(q{
	CREATE TABLE s (id int PRIMARY KEY, g int);
	INSERT INTO s SELECT i, i % 3 FROM generate_series(1, 30) i;
	SELECT pgtrickle.create_stream_table('counts', 'SELECT g, count(*) AS n FROM s GROUP BY g', '1s');
	SELECT pgtrickle.create_stream_table('top', 'SELECT max(n) AS n FROM counts')});
wait_for_fresh($primary, 'top');

# --- max_worker_processes 1 and 2 ------------------------------------------------------------

# The launcher of logical replication comes first.
my $id = 100;
for my $processes (1, 2)
{
	my $from = -s $primary->logfile;
	$primary->append_conf('postgresql.conf', "max_worker_processes = $processes\n");
	$primary->restart;
	$id++;
	sql("INSERT INTO s VALUES ($id, 1); SELECT pgtrickle.refresh_stream_table('counts'); SELECT pgtrickle.refresh_stream_table('top')");
	stream_table_is_right($primary, $_, "max_worker_processes = $processes: $_ is refreshed by hand") for 'counts', 'top';
	is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator'}), '0', 'there is no coordinator');
	is(sql(q{SELECT count(*) > 0 FROM pgtrickle.health_check() WHERE severity <> 'OK' AND check_name ~ 'scheduler'}), 't', 'and somebody who asks is told');
	my $complaint = $processes == 1 ? 'too many background workers' : 'could not start every coordinator';
	for my $try (1 .. 300)
	{
		last if log_lines($complaint, $from) > 0;
		sql('SELECT pg_sleep(0.1)');
	}
	cmp_ok(log_lines($complaint, $from), '>', 0, 'the log says why');
	sql('SELECT pgtrickle.pause_all(); SELECT pgtrickle.resume_all()') for 1 .. 5;
	is(log_lines('could not start every coordinator', $from), $processes - 1, 'one line in the log, no more');
}
$primary->append_conf('postgresql.conf', "max_worker_processes = 8\n");
$primary->restart;
sql('INSERT INTO s VALUES (200, 2)');
wait_for_fresh($primary, $_) for 'counts', 'top';
pass('with room it goes on');

# --- a restart while transactions are prepared -----------------------------------------------

sql(q{
	BEGIN; INSERT INTO s VALUES (301, 0); PREPARE TRANSACTION 'kept';
	BEGIN; INSERT INTO s VALUES (302, 0); PREPARE TRANSACTION 'undone';
	INSERT INTO s VALUES (303, 0)});
$primary->stop('immediate');
$primary->start;
sql('INSERT INTO s VALUES (304, 0)');
wait_for_fresh($primary, $_) for 'counts', 'top';
stream_table_is_right($primary, $_, "$_, with transactions that are prepared") for 'counts', 'top';
sql("COMMIT PREPARED 'kept'");
wait_for_fresh($primary, $_) for 'counts', 'top';
sql("ROLLBACK PREPARED 'undone'");
stream_table_is_right($primary, $_, "$_, when they have ended") for 'counts', 'top';

# --- a standby takes over in the middle of a refresh -----------------------------------------

SKIP:
{
	skip 'the test points are missing', 1 unless has_test_points();
	$primary->backup('base');
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($primary, 'base', has_streaming => 1);
	$standby->start;
	my $point = 'refresh-before-commit';
	$primary->append_conf('postgresql.conf', "pg_trickle.test_points = '$point=kill'\nrestart_after_crash = off\n");
	$primary->restart;
	$primary->psql('postgres', 'INSERT INTO s VALUES (401, 1)');
	# It goes down while it refreshes, when everything is written but not committed.
	my $gone = 0;
	for my $try (1 .. 200)
	{
		last if ($gone = !is_up($primary));
	}
	is($gone, 1, 'the primary goes down in the middle of a refresh');
	$primary->stop('immediate', fail_ok => 1);
	$standby->promote;
	$standby->safe_psql('postgres', 'INSERT INTO s VALUES (402, 2)');
	wait_for_fresh($standby, $_) for 'counts', 'top';
	stream_table_is_right($standby, $_, "$_, when the standby has taken over") for 'counts', 'top';
	$standby->stop;
}

done_testing();
