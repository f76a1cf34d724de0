# A physical standby: it shows how stream tables are and refuses to refresh them; after promotion
# its scheduler goes on where the primary was.
use strict;
use warnings;

use Test::More;

use PgTrickle;

my $primary = PgTrickle->new_node('primary');
$primary->safe_psql('postgres', q{
CREATE TABLE src (id int PRIMARY KEY, k int);
INSERT INTO src SELECT i, i % 5 FROM generate_series(1, 100) i;
SELECT pgtrickle.create_stream_table('counts', 'SELECT k, count(*) AS n FROM src GROUP BY k', '1s');
SELECT pgtrickle.create_stream_table('top', 'SELECT max(n) AS n FROM counts');
SELECT pgtrickle.create_stream_table('by_hand', 'SELECT id FROM src WHERE k = 1', '1h');
});
$primary->backup('base');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->safe_psql('postgres', 'INSERT INTO src SELECT i, i % 5 FROM generate_series(101, 200) i');
wait_until($standby, 'SELECT n = 40 FROM top');

is( $standby->safe_psql('postgres', q{
	SELECT pgt_name, status, pending_rows FROM pgtrickle.pg_stat_stream_tables ORDER BY 1}),
	"by_hand|ACTIVE|100\ncounts|ACTIVE|0\ntop|ACTIVE|0", 'and how they are');
is($standby->safe_psql('postgres', q{SELECT severity, detail FROM pgtrickle.health_check() WHERE check_name = 'scheduler_running'}),
	'INFO|this server is a standby; its primary refreshes', 'that no scheduler runs is no error here');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pgtrickle.metric_samples WHERE metric = 'pg_trickle_scheduler_running'}), '0', 'nor a metric that alerts');
for my $call ('pgt_status()', 'health_check()', 'change_buffer_sizes()', "explain_delta('counts', true)", "explain_st('top')")
{
	is($standby->safe_psql('postgres', "SELECT count(*) > 0 FROM pgtrickle.$call"), 't', $call);
}
for my $case (
	[ "refresh_stream_table('counts')", qr/55000: cannot refresh a stream table during recovery/ ],
	[ "refresh_if_stale('by_hand', '0 s')", qr/55000: cannot refresh/ ],
	[ "create_stream_table('more', 'SELECT id FROM src')", qr/25006: cannot execute/ ],
	[ "pause_stream_table('counts')", qr/25006: cannot execute/ ],
	[ "drop_stream_table('top')", qr/25006: cannot execute|55000: / ])
{
	my ($call, $error) = @$case;
	like(error_of($standby, "SELECT pgtrickle.$call"), $error, $call);
}

# Changes that the primary did not come to refresh, and a transaction that ends after promotion.
$primary->safe_psql('postgres', q{
BEGIN; INSERT INTO src VALUES (1001, 1); PREPARE TRANSACTION 'late';
INSERT INTO src VALUES (1002, 1)});
$primary->wait_for_catchup($standby);
$primary->stop('immediate');
$standby->promote;
$standby->safe_psql('postgres', "COMMIT PREPARED 'late'; INSERT INTO src VALUES (1003, 2)");
wait_for_fresh($standby, $_) for 'counts', 'top';
$standby->safe_psql('postgres', "SELECT pgtrickle.refresh_stream_table('by_hand')");
stream_table_is_right($standby, $_) for 'counts', 'top', 'by_hand';
is( $standby->safe_psql('postgres', q{
	SELECT string_agg(DISTINCT action, ',') FROM pgtrickle.pgt_refresh_history WHERE initiated_by <> 'INITIAL'}),
	'DIFFERENTIAL', 'nothing had to be computed anew');

done_testing();
