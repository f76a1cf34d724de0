# A differential refresh in mode AUTO has as much time as FULL would justify (worker/refresh/budget.c).
# Who cancels it before that cancels the refresh, and the session goes on as if nothing had been.
use strict;
use warnings;

use Test::More;

use PgTrickle;

my $node = PgTrickle->new_node('budget', scheduler => 0,
	settings => "pg_trickle.prediction_min_samples = 5\n");
my $refresher = session($node);

# The next call of work() hangs if the sequence stands at 1, and no other.
$node->safe_psql('postgres', q{
CREATE SEQUENCE calls;
CREATE TABLE src (id int PRIMARY KEY, x int);
INSERT INTO src SELECT i, i FROM generate_series(1, 20) i;
CREATE FUNCTION work(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
	IF pg_sequence_last_value('public.calls') IS NOT NULL AND nextval('public.calls') = 2 THEN PERFORM pg_sleep(600); END IF;
	RETURN $1 * 2;
END $$;
SELECT pgtrickle.create_stream_table('st', 'SELECT id % 3 AS g, sum(work(x)) AS total FROM src GROUP BY 1');
SELECT pgtrickle.create_stream_table('above', 'SELECT count(*) AS n, sum(total) AS total FROM st');
});

# Nothing is known but what FULL takes: that is the limit. One row changes.
sub prepare
{
	my ($full_ms) = @_;

	$node->safe_psql('postgres', qq{
UPDATE pgtrickle.pgt_frontiers SET cost_model = ARRAY[0, $full_ms]::float4[] || array_fill(0::float4, ARRAY[32]);
UPDATE src SET x = x + 1 WHERE id = 1;
SELECT setval('calls', 1);});
	return;
}

sub last_refresh
{
	my ($name) = @_;

	return $node->safe_psql('postgres', qq{
SELECT action, refresh_reason, h.status FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables USING (pgt_id)
WHERE pgt_name = '$name' ORDER BY refresh_id DESC LIMIT 1});
}

sub start_refresh
{
	$refresher->{stderr} = '';
	$refresher->query_until(qr/started/, "\\echo started\nSELECT pgtrickle.refresh_stream_table('st');\n");
	wait_until($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
	return;
}

# A chain in one transaction: what is given up of the first is no change for the second.
prepare(20);
$refresher->query_safe(q{BEGIN;
SELECT pgtrickle.refresh_stream_table('st');
SELECT pgtrickle.refresh_stream_table('above');
COMMIT;});
is(last_refresh('st'), 'FULL|differential_slower_than_full|COMPLETED', 'too slow: computed in full');
stream_table_is_right($node, 'st');
stream_table_is_right($node, 'above');

# Again in the same session, and once more in the same transaction, where nothing is slow.
prepare(20);
$refresher->query_safe(q{BEGIN;
SELECT pgtrickle.refresh_stream_table('st');
UPDATE src SET x = x + 1 WHERE id = 2;
SELECT setval('calls', 2);
SELECT pgtrickle.refresh_stream_table('st');
COMMIT;});
stream_table_is_right($node, 'st');

# Cancelled by a user, with time left.
prepare(1000000);
start_refresh();
$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
$refresher->query('SELECT 1');
like($refresher->{stderr}, qr/canceling statement due to user request/, 'a user cancels it');
$refresher->{stderr} = '';
$refresher->query_safe("SELECT pgtrickle.refresh_stream_table('st')");
is(last_refresh('st'), 'DIFFERENTIAL||COMPLETED', 'and the next one does what was left');
stream_table_is_right($node, 'st');

# A server that ends a session within its time leaves nothing either.
prepare(1000000);
start_refresh();
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
wait_until($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
$node->safe_psql('postgres', "SELECT pgtrickle.refresh_stream_table('st')");
stream_table_is_right($node, 'st');

$node->stop;
done_testing();
