# Followers of a stream table have exactly its rows after everything that happens to it: a subscriber
# on another server, and a reader of pgoutput's protocol 1 as Debezium is one. Through inserts,
# updates, deletes, FULL, REINITIALIZE, queries that keep the table and that need another one,
# restarts of either side, and the drop.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgtOutput;

my $publisher = PgTrickle->new_node('publisher', scheduler => 0);
my $subscriber = PgTrickle->new_node('subscriber', scheduler => 0, extension => 0);

sub sql { return $publisher->safe_psql('postgres', $_[0]) }

sql(q{
CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i * 2';
CREATE TABLE t (id int PRIMARY KEY, a int, b text);
INSERT INTO t SELECT i, i % 5, 'b' || i FROM generate_series(1, 200) i;
SELECT pgtrickle.create_stream_table('keyed', 'SELECT id, a, twice(a) AS c FROM t', schedule => '1h');
SELECT pgtrickle.create_stream_table('bag', 'SELECT a, twice(a) AS c FROM t', schedule => '1h');
SELECT pgtrickle.create_stream_table('sums', 'SELECT a, count(*) AS n, sum(id) AS s FROM t GROUP BY a', schedule => '1h');
});
my @tables = ('keyed', 'bag', 'sums');
my %columns = (keyed => [ 'id', 'a', 'c' ], bag => [ 'a', 'c' ], sums => [ 'a', 'n', 's' ]);
my $publications = join ',', map { sql("SELECT pgtrickle.stream_table_to_publication('$_')") } @tables;

$subscriber->safe_psql('postgres', q{
CREATE TABLE keyed (id int PRIMARY KEY, a int, c int);
CREATE TABLE bag (a int, c int);
CREATE TABLE sums (a int, n bigint, s bigint);
});
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION sub CONNECTION \$\$" . $publisher->connstr('postgres') . "\$\$ PUBLICATION $publications");
$subscriber->wait_for_subscription_sync($publisher, 'sub');
sql("SELECT pg_create_logical_replication_slot('reader', 'pgoutput')");
my $reader = PgtOutput->new($publisher, slot => 'reader', publication => $publications);
# What is there already: the reader's snapshot.
for my $table (@tables)
{
	for (split /\n/, sql("SELECT @{[ join ', ', @{ $columns{$table} } ]} FROM $table"))
	{
		my %row;
		@row{ @{ $columns{$table} } } = split /\|/;
		$reader->add({ name => "public.$table" }, \%row);
	}
}

sub all_equal
{
	my ($what) = @_;
	$publisher->wait_for_catchup('sub');
	$reader->read;
	for my $table (@tables)
	{
		my @columns = @{ $columns{$table} };
		my $query = 'SELECT ' . join(', ', @columns) . " FROM $table";
		my $rows = join "\n", sort split /\n/, sql($query);
		stream_table_is_right($publisher, $table, "$what: $table");
		is(join("\n", sort split /\n/, $subscriber->safe_psql('postgres', $query)), $rows, "$what: the subscriber has $table");
		is($reader->rows("public.$table", @columns), $rows, "$what: the reader has $table");
	}
	return;
}

sub refresh
{
	my ($mode) = @_;
	my $argument = defined $mode ? ", '$mode'" : '';
	sql("SELECT pgtrickle.refresh_stream_table('$_'$argument)") for @tables;
	return;
}

all_equal('at first');
sql("INSERT INTO t SELECT i, i % 7, 'n' FROM generate_series(201, 260) i"); refresh();
all_equal('insert');
sql('UPDATE t SET a = a + 1 WHERE id % 3 = 0; UPDATE t SET id = id + 1000 WHERE id < 10; UPDATE t SET a = NULL WHERE id % 50 = 0'); refresh();
all_equal('update');
sql('DELETE FROM t WHERE id % 4 = 0'); refresh();
all_equal('delete');
sql('UPDATE t SET a = a + 1 WHERE id % 5 = 0; DELETE FROM t WHERE id % 11 = 0'); refresh('FULL');
all_equal('FULL');
sql(q{CREATE OR REPLACE FUNCTION twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i * 2 + 1'}); refresh();
is(sql("SELECT string_agg(DISTINCT action, ',') FROM pgtrickle.get_refresh_history('keyed', 1)"), 'REINITIALIZE', 'computed anew');
all_equal('REINITIALIZE');
sql('TRUNCATE t'); refresh();
all_equal('TRUNCATE of the source');
is($reader->rows('public.keyed', 'id'), '', 'nothing is left of it');
ok(!$reader->{counts}{T}, 'and nobody was sent a TRUNCATE');
sql("INSERT INTO t SELECT i, i % 5, 'b' || i FROM generate_series(1, 100) i"); refresh();
all_equal('again');

$publisher->restart;
sql('UPDATE t SET a = a + 2 WHERE id < 50'); refresh();
all_equal('restart of the publisher');
$subscriber->stop;
sql('UPDATE t SET a = a + 2 WHERE id > 50'); refresh();
$subscriber->start;
all_equal('restart of the subscriber');

# Other queries: same columns, another column, another table.
sql(q{SELECT pgtrickle.alter_stream_table('keyed', query => 'SELECT id, a, twice(a + 1) AS c FROM t WHERE id > 10')});
all_equal('a query with the same columns');
$subscriber->safe_psql('postgres', 'ALTER TABLE keyed ADD COLUMN b text');
sql(q{SELECT pgtrickle.alter_stream_table('keyed', query => 'SELECT id, a, twice(a + 1) AS c, b FROM t WHERE id > 10')});
sql('INSERT INTO t VALUES (500, 5, NULL)'); refresh();
push @{ $columns{keyed} }, 'b';
all_equal('a query with another column');
$columns{keyed} = [ 'b', 'id' ];
my $relid = sql("SELECT 'keyed'::regclass::oid");
sql(q{SELECT pgtrickle.alter_stream_table('keyed', query => 'SELECT b, id FROM t WHERE id < 80', cascade => true)});
isnt(sql("SELECT 'keyed'::regclass::oid"), $relid, 'another table');
all_equal('a query that needs another table');
sql('UPDATE t SET b = id::text WHERE id < 20; DELETE FROM t WHERE id = 30'); refresh();
all_equal('and on it goes');

sql("SELECT pgtrickle.drop_stream_table('bag')");
is(sql('SELECT count(*) FROM pg_publication'), '2', 'dropped with its publication');
$subscriber->safe_psql('postgres', "ALTER SUBSCRIPTION sub DROP PUBLICATION pgt_public_bag; ");
$reader->{publication} = 'pgt_public_keyed,pgt_public_sums';
@tables = ('keyed', 'sums');
sql('UPDATE t SET a = a + 1'); refresh();
all_equal('after the drop');
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION sub');

done_testing();
