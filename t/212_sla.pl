# SLAs and tiers: when tables with an SLA are refreshed, tiers that follow what was measured, alerts.
# Where time has to pass, the clock of the test build is put forward.
use strict;
use warnings;

use Test::More;

use PgTrickle;

plan skip_all => 'needs a build with test points' unless has_test_points();

my $node = PgTrickle->new_node('sla', settings => "pg_trickle.scheduler_interval_ms = '1s'\nautovacuum = off\n");
my $offset = 0;
my $next = 1000;

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub set
{
	my ($name, $value) = @_;
	$node->append_conf('postgresql.conf', "$name = '$value'\n");
	$node->reload;
	return;
}

# Every process has to have read its files before time counts on.
sub forward
{
	my ($seconds) = @_;
	$offset += $seconds;
	set('pg_trickle.test_clock_offset', $offset);
	return;
}

# Longer than the scheduler leaves what it knows of an SLA unwritten.
sub pass_some_news
{
	$next++;
	sql("INSERT INTO o VALUES ($next, 2)");
	forward(6);
	wait_until($node, "SELECT count(*) = 1 FROM top WHERE id = $next");
	return;
}

sub tier { return sql("SELECT refresh_tier FROM pgtrickle.pgt_stream_tables WHERE pgt_name = '$_[0]'") }

# A change, and what shows it; with a time before the refresh that the scheduler did not have.
sub cycle
{
	my ($delay) = @_;
	$next++;
	sql("INSERT INTO o VALUES ($next, 1)");
	forward($delay) if $delay;
	wait_until($node, "SELECT count(*) = 1 FROM top WHERE id = $next");
	# Not only committed, but known to the coordinator.
	wait_until($node, q{SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE backend_type = 'pg_trickle coordinator' AND datname = 'postgres'});
	return;
}

sql(q{
	CREATE TABLE o (id int PRIMARY KEY, g int);
	CREATE TABLE p (id int PRIMARY KEY);
	SELECT pgtrickle.create_stream_table('base', 'SELECT id, g FROM o', '1h');
	SELECT pgtrickle.create_stream_table('top', 'SELECT id FROM base', sla => '30 s');
	SELECT pgtrickle.create_stream_table('manual', 'SELECT id FROM o WHERE g = 1', sla => '30 s', tier => 'hot');
	SELECT pgtrickle.create_stream_table('ice', 'SELECT id FROM p', '1s', tier => 'frozen');
	SELECT pgtrickle.create_stream_table('never_filled', 'SELECT id FROM p', '1s', tier => 'frozen', initialize => false);
	SELECT pgtrickle.create_stream_table('slow', 'SELECT id FROM p', '1s', tier => 'cold');
	SELECT pgtrickle.create_stream_table('quick', 'SELECT id FROM p', '1s', tier => 'hot')});
my $listener = $node->background_psql('postgres', on_error_stop => 1);
$listener->query_safe('LISTEN pg_trickle_alert');

# --- without an SLA a tier stretches the interval ---------------------------------------------

wait_until($node, q{SELECT count(*) = 4 FROM pgtrickle.pgt_stream_tables WHERE is_populated AND pgt_name <> 'ice' AND pgt_name <> 'never_filled' AND pgt_name <> 'manual'});
is(sql(q{SELECT round(extract(epoch FROM next_due - last_refresh_at)) FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'slow'}), '10', 'cold: ten times the interval');
is(sql(q{SELECT next_due IS NULL FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'ice'}), 't', 'frozen: never');
sql('INSERT INTO p VALUES (1)');
wait_until($node, 'SELECT count(*) = 1 FROM quick');
wait_until($node, 'SELECT count(*) = 1 FROM slow');
cmp_ok(sql(q{SELECT extract(epoch FROM (SELECT max(start_time) - min(start_time) FROM pgtrickle.get_refresh_history('slow')))}), '>=', 9.9, 'so it was');
is(sql('SELECT count(*) FROM ice'), '0', 'what is frozen stays so');
is(sql(q{SELECT status FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'never_filled'}), 'INITIALIZING', 'also before its first refresh');
sql(q{SELECT pgtrickle.refresh_stream_table('never_filled')});
is(sql(q{SELECT status FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'never_filled'}), 'ACTIVE', 'but for refreshes by hand');
sql(q{SELECT pgtrickle.drop_stream_table('never_filled')});
# Nor do others bring it along.
for my $consistency ('aligned', 'atomic')
{
	sql(qq{
		CREATE TABLE f (id int PRIMARY KEY);
		SELECT pgtrickle.create_stream_table('f_ice', 'SELECT count(*) AS a FROM f', tier => 'frozen');
		SELECT pgtrickle.create_stream_table('f_warm', 'SELECT count(*) AS b FROM f');
		SELECT pgtrickle.create_stream_table('f_both', 'SELECT a, b FROM f_ice, f_warm', sla => '30 s', diamond_consistency => '$consistency')});
	for my $n (1 .. 3)
	{
		sql("INSERT INTO f VALUES ($n)");
		wait_until($node, "SELECT b = $n FROM f_both");
	}
	is(sql('SELECT a FROM f_ice'), '0', "a frozen branch of a diamond that is $consistency stays frozen");
	sql('DROP TABLE f CASCADE');
}

# --- an SLA, and what it reads ----------------------------------------------------------------

is(tier('top'), 'hot', 'a new SLA starts hot');
wait_until($node, q{SELECT count(*) = 1 FROM pgtrickle.pgt_slas s JOIN pgtrickle.pgt_stream_tables t USING (pgt_id) WHERE pgt_name = 'top'});
cycle(0);
ok(1, 'what it reads comes along, though its own schedule says in an hour');

# --- down when it has long been easy ----------------------------------------------------------

cycle(0) for 1 .. 12;
forward(70);
cycle(0) for 1 .. 2;
wait_until($node, q{SELECT refresh_tier = 'warm' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'top'});
ok(1, 'warm after more than ten easy cycles');
is(tier('manual'), 'hot', 'a tier that a user has set stays');

# Half of the slack passes before it begins.
$next++;
sql("INSERT INTO o VALUES ($next, 1)");
wait_until($node, "SELECT count(*) = 1 FROM manual WHERE id = $next");
is(sql("SELECT count(*) FROM top WHERE id = $next"), '0', 'warm waits, hot does not');
forward(16);
wait_until($node, "SELECT count(*) = 1 FROM top WHERE id = $next");

# --- up when it was missed three times in a row -----------------------------------------------

cycle(40) for 1 .. 2;
is(tier('top'), 'warm', 'missed twice');
cycle(40);
wait_until($node, q{SELECT refresh_tier = 'hot' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'top'});
like(sql(q{SELECT tier_reason FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'top'}), qr/missed the SLA in 3 cycles/, 'the third time it is hot');

# --- it is kept -------------------------------------------------------------------------------

my $since = sql(q{SELECT tier_since FROM pgtrickle.pgt_slas JOIN pgtrickle.pgt_stream_tables USING (pgt_id) WHERE pgt_name = 'top'});
my $alerts = $listener->query('SELECT 1');
$listener->quit;
like($alerts, qr/"event":"tier_changed".*"pgt_name":"top".*"from":"hot","to":"warm"/, 'told of the way down');
like($alerts, qr/"event":"tier_changed".*"pgt_name":"top".*"from":"warm","to":"hot"/, 'and of the way up');
like($alerts, qr/"event":"sla_breach".*"pgt_name":"top".*"sla_ms":30000/, 'of the breach');
$node->restart;
cycle(0);
is(sql(q{SELECT tier_since FROM pgtrickle.pgt_slas JOIN pgtrickle.pgt_stream_tables USING (pgt_id) WHERE pgt_name = 'top'}), $since, 'a restart changes nothing');
wait_until($node, q{SELECT NOT breached FROM pgtrickle.pgt_slas JOIN pgtrickle.pgt_stream_tables USING (pgt_id) WHERE pgt_name = 'top'});

# Nobody refreshes it, and it is told all the same.
$listener = $node->background_psql('postgres', on_error_stop => 1);
$listener->query_safe('LISTEN pg_trickle_alert');
sql(q{SELECT pgtrickle.pause_stream_table('base')});
sql("INSERT INTO o VALUES (1, 1)");
wait_until($node, "SELECT count(*) = 1 FROM manual WHERE id = 1");
forward(60);
wait_until($node, q{SELECT breached FROM pgtrickle.pgt_slas JOIN pgtrickle.pgt_stream_tables USING (pgt_id) WHERE pgt_name = 'top'});
sql(q{SELECT pgtrickle.resume_stream_table('base')});
wait_until($node, 'SELECT count(*) = 1 FROM top WHERE id = 1');
wait_until($node, q{SELECT NOT breached FROM pgtrickle.pgt_slas JOIN pgtrickle.pgt_stream_tables USING (pgt_id) WHERE pgt_name = 'top'});
like($listener->query('SELECT 1'), qr/sla_breach.*sla_recovered/s, 'breach and recovery are told once each');
$listener->quit;

# Somebody drops one and does not commit: the others go on.
my $dropper = $node->background_psql('postgres', on_error_stop => 1);
$dropper->query_safe('BEGIN; DROP TABLE manual');
pass_some_news() for 1 .. 3;
$dropper->query_safe('COMMIT');
$dropper->quit;
pass_some_news();
is(sql('SELECT count(*) FROM pgtrickle.pgt_slas WHERE pgt_id NOT IN (SELECT pgt_id FROM pgtrickle.pgt_definitions)'), '0', 'nothing is left of it');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/ERROR:  canceling statement due to lock timeout/, 'and nobody waited');

sql(q{SELECT pgtrickle.alter_stream_table('top', sla => '0')});
is(sql(q{SELECT sla IS NULL AND tier IS NULL FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'top'}), 't', 'an SLA can be taken back');
stream_table_is_right($node, $_) for qw(base top quick slow);

done_testing();
