# Real Debezium connectors follow published stream tables with nothing but what debezium_config()
# says and a password: through the snapshot, inserts, updates, deletes, FULL, another query that keeps
# the table and one that needs another table, restarts of the connector and of the server, kill -9.
# After each, what was emitted replays to exactly the rows of the stream table.
use strict;
use warnings;

use JSON::PP;
use Test::More;

use PgTrickle;
use PgtDebezium;

my $node = PgTrickle->new_node('server', settings => "listen_addresses = 'localhost'\nmax_connections = 50\n");
open my $hba, '>', $node->data_dir . '/pg_hba.conf' or die "could not write pg_hba.conf: $!";
print $hba "local all all trust\nhost all debezium localhost scram-sha-256\n";
close $hba;
$node->reload;

sub sql { return $node->safe_psql('postgres', $_[0]) }
sub as_debezium { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'debezium' ]) }

sql(q{
CREATE ROLE debezium LOGIN REPLICATION PASSWORD 'secret';
CREATE TYPE pair AS (x int, y text);
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE t (id int PRIMARY KEY, a int, b text, c numeric, d timestamptz, e jsonb, f bytea, g interval, h pair, i int[], j mood, k uuid, l boolean);
INSERT INTO t SELECT i, i % 5, 'b' || i FROM generate_series(1, 200) i;
UPDATE t SET c = id / 7.0, d = timestamptz '2026-11-24 03:00:00.25+02' + make_interval(days => id), e = jsonb_build_object('i', id), f = decode(md5(id::text), 'hex'),
	g = make_interval(months => id, secs => id), h = (id, 'y "' || id), i = ARRAY[id, NULL], j = 'ok', k = md5(id::text)::uuid, l = id % 2 = 0
	WHERE id <= 20;
UPDATE t SET c = 'NaN', b = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 2000) i) WHERE id = 3;
SELECT pgtrickle.create_stream_table('keyed', 'SELECT * FROM t', schedule => '1h');
SELECT pgtrickle.create_stream_table('bag', 'SELECT a, b, count(*) AS n FROM t GROUP BY a, b UNION ALL SELECT a, b, 0 FROM t', schedule => '1h');
CREATE SCHEMA "odd.schema";
SELECT pgtrickle.create_stream_table('"odd.schema"."Nulls, too"', 'SELECT a AS "A b", count(*) AS n, max(b) AS m FROM t GROUP BY a', schedule => '1h');
GRANT USAGE ON SCHEMA "odd.schema" TO debezium;
SELECT pgtrickle.stream_table_to_publication(s) FROM unnest(ARRAY['keyed', 'bag', '"odd.schema"."Nulls, too"']) s;
GRANT SELECT ON keyed, bag, "odd.schema"."Nulls, too" TO debezium;
});

# A line of a row as the events have it, and the same as SQL.
my $text = sub { my ($v) = @_; return !defined $v ? '' : JSON::PP::is_bool($v) ? $v ? 't' : 'f' : ref $v ? join ',', map { $_ // '' } @$v : $v };
my %tables = (
	'public.keyed' => {
		line => sub { join '|', map { $text->($_) } @{ $_[0] }{qw(id a b c d e f g h i j k l)} },
		sql => q{SELECT id, a, b, upper(c::text), to_char(d AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), e, replace(encode(f, 'base64'), E'\n', ''),
			to_char(g, '"P"FMYYYY"Y"FMMM"M0DT0H0M"FMSS"S"'), replace(encode(convert_to(h::text, 'UTF8'), 'base64'), E'\n', ''), array_to_string(i, ',', ''), j, k, l FROM keyed} },
	'public.bag' => { line => sub { join '|', map { $text->($_) } @{ $_[0] }{qw(a b n)} }, sql => 'SELECT a, b, n FROM bag' },
	'odd.schema.Nulls, too' => { line => sub { join '|', map { $text->($_) } @{ $_[0] }{ 'A b', 'n', 'm' } }, sql => 'SELECT * FROM "odd.schema"."Nulls, too"' });

my %config = map { my $st = $_; ($st => { %{ decode_json(as_debezium("SELECT pgtrickle.debezium_config(\$\$$st\$\$)")) }, 'database.password' => 'secret' }) }
  'keyed', 'bag', '"odd.schema"."Nulls, too"';
# One process as a worker of Kafka Connect, for two connectors, and one that is killed.
my $many = PgtDebezium->new($node, 'many', @config{ 'bag', '"odd.schema"."Nulls, too"' });
plan skip_all => $many->{missing} if $many->{missing};
my $one = PgtDebezium->new($node, 'one', $config{keyed});
my %follower = ('public.keyed' => $one, 'public.bag' => $many, 'odd.schema.Nulls, too' => $many);

sub all_equal
{
	my ($what) = @_;
	for my $table (sort keys %tables)
	{
		my $rows = join "\n", sort split /\n/, sql($tables{$table}{sql});
		my $replayed = sub { $follower{$table}->rows($table, $tables{$table}{line}) };
		$follower{$table}->wait_for(sub { $replayed->() eq $rows });
		my ($got, $want) = map { my %lines = map { ($_ => 1) } split /\n/; \%lines } $replayed->(), $rows;
		my @wrong = ((map { "- $_" } grep { !$got->{$_} } sort keys %$want), map { "+ $_" } grep { !$want->{$_} } sort keys %$got);
		ok($replayed->() eq $rows, "$what: $table")
		  or diag map { substr($_, 0, 300) . "\n" } @wrong[ 0 .. ($#wrong < 5 ? $#wrong : 5) ], $follower{$table}->complaints;
		die "no sense in going on\n" if @wrong;
		is(sql("SELECT count(*) FROM pgtrickle.pgt_stream_tables WHERE pgt_schema || '.' || pgt_name = '$table' AND status <> 'ACTIVE'"), '0', '... whose refreshes work');
	}
	return;
}

sub refresh
{
	my ($mode) = @_;
	sql("SELECT pgtrickle.refresh_stream_table(s, '$mode') FROM unnest(ARRAY['keyed', 'bag', '\"odd.schema\".\"Nulls, too\"']) s");
	return;
}

# --- from the snapshot on ------------------------------------------------------------------------

$_->start for $one, $many;
all_equal('snapshot');
is($one->counts('public.keyed'), 'r 200', 'a snapshot');
wait_until($node, 'SELECT count(*) = 3 FROM pg_replication_slots WHERE active');
sql("INSERT INTO t SELECT i, i % 7, 'n' FROM generate_series(201, 260) i"); refresh('DIFFERENTIAL');
all_equal('insert');
is($one->counts('public.keyed'), 'c 60', 'as many events as rows');
sql("UPDATE t SET a = a + 1 WHERE id % 3 = 0; UPDATE t SET a = NULL WHERE id % 50 = 0; UPDATE t SET c = c + 1 WHERE id = 3; UPDATE t SET l = NOT l WHERE id = 3"); refresh('DIFFERENTIAL');
all_equal('update');
is((grep { length($_->{b} // '') > 10000 } map { @$_ } values %{ $one->{tables}{'public.keyed'} }), 1, 'an update of a row with a long value brings the value');
sql('DELETE FROM t WHERE id % 4 = 0'); refresh('DIFFERENTIAL');
all_equal('delete');
$one->counts('public.keyed');
sql(q{UPDATE t SET b = 'full' WHERE id % 10 = 1; DELETE FROM t WHERE id % 10 = 2; INSERT INTO t (id) SELECT generate_series(301, 303)});
my $expected = sql(q{WITH k AS (SELECT id FROM keyed) SELECT 'c 3 d ' || (SELECT count(*) FROM k WHERE id NOT IN (SELECT id FROM t)) || ' u ' || (SELECT count(*) FROM t WHERE b = 'full')});
refresh('FULL');
all_equal('FULL');
is($one->counts('public.keyed'), $expected, "FULL: events of what changed, no others ($expected)");

# --- restarts ----------------------------------------------------------------------------------------

is($_->stop, 0, 'a connector ends in order') || diag $_->complaints for $one, $many;
sql('UPDATE t SET a = a + 2 WHERE id < 50'); refresh('DIFFERENTIAL');
$_->start for $one, $many;
all_equal('restart of the connectors');
$one->kill;
sql('UPDATE t SET a = a + 2 WHERE id > 50'); refresh('DIFFERENTIAL');
$one->start;
all_equal('after kill -9');
$node->restart;
sql('UPDATE t SET a = a + 1; DELETE FROM t WHERE id = 11'); refresh('DIFFERENTIAL');
all_equal('restart of the server');

# --- other queries ---------------------------------------------------------------------------------

my @columns = qw(a b c d e f g h i j k l);
sql("SELECT pgtrickle.alter_stream_table('keyed', query => 'SELECT * FROM t WHERE id > 10')");
all_equal('a query with the same columns');
# What ANALYZE changes lets the server describe the table anew before the next row; Debezium then
# looks for the key of the table that is there by that time.
sql('ANALYZE keyed');
my $relid = sql("SELECT 'keyed'::regclass::oid");
sql("SELECT pgtrickle.alter_stream_table('keyed', query => 'SELECT id::text AS name, a::numeric(10,2) AS b FROM t WHERE id < 90', cascade => true)");
isnt(sql("SELECT 'keyed'::regclass::oid"), $relid, 'another table');
$tables{'public.keyed'} = { line => sub { join '|', map { $text->($_) } @{ $_[0] }{qw(name b)} }, sql => 'SELECT name, b FROM keyed' };
all_equal('a query that needs another table');
sql('UPDATE t SET a = a + 1 WHERE id % 2 = 0; DELETE FROM t WHERE id = 30'); refresh('DIFFERENTIAL');
all_equal('and on it goes');
is($one->stop, 0, 'ends in order');
sql('UPDATE t SET a = a + 1 WHERE id % 3 = 0'); refresh('DIFFERENTIAL');
sql("SELECT pgtrickle.alter_stream_table('keyed', query => 'SELECT b, id FROM t WHERE id > 40', cascade => true)");
sql("UPDATE t SET b = 'away' WHERE id % 10 = 7"); refresh('DIFFERENTIAL');
$tables{'public.keyed'} = { line => sub { join '|', map { $text->($_) } @{ $_[0] }{qw(b id)} }, sql => 'SELECT b, id FROM keyed' };
$one->start;
all_equal('one that came while nobody followed');
is($one->stop, 0, 'ends in order');
sql("SELECT pgtrickle.alter_stream_table('keyed', query => 'SELECT b, a::text AS n FROM t WHERE id > 40', cascade => true)");
$tables{'public.keyed'} = { line => sub { join '|', map { $text->($_) } @{ $_[0] }{qw(b n)} }, sql => 'SELECT b, n FROM keyed' };
$one->start;
all_equal('one without a key');

# --- nothing happens ---------------------------------------------------------------------------------

for my $turn (1, 2)
{
	my $lsn = sql('SELECT pg_current_wal_insert_lsn()');
	wait_until($node, "SELECT bool_and(confirmed_flush_lsn > '$lsn') FROM pg_replication_slots");
}
pass('by their heartbeats slots get on though nothing happens');
is((grep { ($_->{value}{op} // '') eq 'm' } @{ $one->events }, @{ $many->events }), 0, 'and nobody is bothered with messages');
is_deeply([ grep { /metrics|MBean/i && /WARN|ERROR/ } split /\n/, $many->log ], [], 'connectors of one process do not get in their way');

# --- a gap -------------------------------------------------------------------------------------------

is($one->stop, 0, 'ends in order');
my $slot = $config{keyed}{'slot.name'};
sql("SELECT pg_drop_replication_slot('$slot'); UPDATE t SET a = a + 1");
refresh('DIFFERENTIAL');
sql("SELECT pg_create_logical_replication_slot('$slot', 'pgoutput')");
$one->start;
is($one->finish, 1, 'a slot that was made anew stops the connector, for there is a gap');
like($one->log, qr/connector failed/, 'which says so');
is($many->stop, 0, 'the others end in order');

done_testing();
