# Another query for a stream table, while writers write, others refresh, and readers read: no change
# is lost, nobody sees a half of it, readers are not kept out as long as columns and key stay.
use strict;
use warnings;

use IPC::Run;
use Test::More;

use PgTrickle;

my $node = PgTrickle->new_node('alter', scheduler => 0, settings => "autovacuum = off\ndeadlock_timeout = '100ms'\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

# Differences between a stream table and its query, after a refresh.
sub difference
{
	my ($st) = @_;
	my $query = sql("SELECT rtrim(defining_query, ';') FROM pgtrickle.pgt_stream_tables WHERE pgt_name = '$st'");

	return sql("SELECT count(*) FROM ((TABLE $st EXCEPT ALL ($query)) UNION ALL (($query) EXCEPT ALL TABLE $st)) d");
}

sql(q{
	CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, v int NOT NULL);
	CREATE TABLE other (k int PRIMARY KEY, w int NOT NULL);
	INSERT INTO t SELECT g, g % 10, 1 FROM generate_series(1, 200) g;
	INSERT INTO other SELECT g, g FROM generate_series(0, 9) g;
	SELECT pgtrickle.create_stream_table('sums', 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k');
	SELECT pgtrickle.create_stream_table('below', 'SELECT n, count(*) AS c, sum(total) AS s FROM sums GROUP BY n');
});

# --- locks: a writer that is not done holds the change up, a reader does not --------------------

my $writer = session($node);
my $alter = session($node);
my $reader = session($node);
$writer->query_safe(q{BEGIN; UPDATE other SET w = w + 1 WHERE k = 3});
$alter->query_until(qr/started/, q{
	\echo started
	SELECT pgtrickle.alter_stream_table('sums', query => 'SELECT k, count(*) AS n, sum(v + w) AS total FROM t JOIN other USING (k) GROUP BY k');
});
wait_until($node, q{SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND relation = 'other'::regclass});
is($reader->query_safe('SELECT sum(n) FROM sums'), '200', 'the table can be read while the new query waits for a writer');
is($reader->query_safe('SELECT count(*) FROM pgtrickle.pg_stat_stream_tables'), '2', 'and its status be seen');
$writer->query_safe('COMMIT');
wait_until($node, q{SELECT sum(total) = 200 + 20 * 46 FROM sums});
pass('what the writer did before is in');
sql('UPDATE other SET w = w + 1 WHERE k = 4');
sql(q{SELECT pgtrickle.refresh_stream_table('sums'); SELECT pgtrickle.refresh_stream_table('below')});
is(difference('sums') + difference('below'), 0, 'what another did after it is not lost');

# A reader in a transaction of its own sees the old rows until it ends.
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $before = $reader->query_safe('SELECT sum(total) FROM sums');
sql(q{SELECT pgtrickle.alter_stream_table('sums', query => 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k')});
is($reader->query_safe('SELECT sum(total) FROM sums'), $before, 'an older snapshot sees the old rows');
$reader->query_safe('COMMIT');
is($reader->query_safe('SELECT sum(total) FROM sums'), '200', 'then the new ones');
$_->quit for $writer, $alter, $reader;

# --- everything at once ---------------------------------------------------------------------------

my %scripts = (
	write => "\\set id random(1, 200)\n\\set k random(0, 9)\nUPDATE t SET v = v + 1, k = :k WHERE id = :id;\nUPDATE other SET w = w + 1 WHERE k = :k;\n",
	refresh => "SELECT pgtrickle.refresh_stream_table('sums');\nSELECT pgtrickle.refresh_stream_table('below');\n");
my @running;
for my $name (sort keys %scripts)
{
	my $path = $node->basedir . "/$name.sql";
	PostgreSQL::Test::Utils::append_to_file($path, $scripts{$name});
	my %out = (name => $name, out => '', err => '');
	$out{handle} = IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-T', '8', '--max-tries', '100', '-f', $path, $node->connstr('postgres') ],
		'>', \$out{out}, '2>', \$out{err});
	push @running, \%out;
}
my @queries = (
	'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k',
	'SELECT k, count(*) AS n, sum(v + w) AS total FROM t JOIN other USING (k) GROUP BY k',
	'SELECT k, id::bigint AS n, v::bigint AS total FROM t',
	'SELECT k, count(*) AS n, sum(v) AS total FROM t WHERE id > 20 GROUP BY k');
my ($done, $failed) = (0, '');
while ($running[1]{handle}->pumpable)
{
	my $query = $queries[ $done % @queries ];
	my ($status, undef, $error) = $node->psql('postgres', "SELECT pgtrickle.alter_stream_table('sums', query => '$query')");

	$failed .= $error =~ s/.*?ERROR: */ERROR: /sr if $status != 0;
	$done++;
	$_->{handle}->pump_nb for grep { $_->{handle}->pumpable } @running; # one may have ended before the other
}
$_->{handle}->finish for @running;
cmp_ok($done, '>', 10, "the query was changed $done times");
is($failed, '', 'each time without error');
like($_->{out}, qr/number of failed transactions: 0 /, "$_->{name}: none failed") for @running;
is($_->{err} =~ /ERROR/ ? $_->{err} : '', '', "$_->{name}: no errors") for @running;
sql(q{SELECT pgtrickle.refresh_stream_table('sums'); SELECT pgtrickle.refresh_stream_table('below')});
is(difference('sums') + difference('below'), 0, 'and in the end no change was lost');

$node->stop;
done_testing();
