# Option publications: what pgoutput would publish, and nothing else.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgtDecoder;

my $node = decoder_node('publications');

sub sql { return $node->safe_psql('postgres', $_[0]) }

# op t{columns}, in one line.
sub story
{
	my (@events) = @_;
	return join ', ', map {
		my $row = $_->{a} // $_->{b} // $_->{k};
		"$_->{op} $_->{t}" . ($row ? '(' . join(' ', map { "$_=" . ($row->{$_} // '-') } sort keys %$row) . ')' : '')
	} rows(@events);
}

sub told { my (%options) = @_; return story(events($node, 's', %options)) }

sql(q{
	CREATE SCHEMA sales;
	CREATE TABLE st (id int PRIMARY KEY, note text, secret text); ALTER TABLE st REPLICA IDENTITY FULL;
	CREATE TABLE other (id int PRIMARY KEY, v int);
	CREATE TABLE sales.a (id int PRIMARY KEY);
	CREATE TABLE parts (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
	CREATE TABLE part1 (v text, k int, id int, PRIMARY KEY (id, k)); ALTER TABLE parts ATTACH PARTITION part1 FOR VALUES IN (1);
	CREATE SCHEMA pgtrickle; CREATE TABLE pgtrickle.own (id int);
	CREATE PUBLICATION only_st FOR TABLE st;
	CREATE PUBLICATION inserts FOR TABLE other WITH (publish = 'insert');
	CREATE PUBLICATION "In Sales" FOR TABLES IN SCHEMA sales;
	CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert, truncate');
	CREATE PUBLICATION columns FOR TABLE st (note, id) WITH (publish = 'insert');
	CREATE PUBLICATION all_columns FOR TABLE st (note, id, secret) WITH (publish = 'insert');
	CREATE PUBLICATION root FOR TABLE parts;
	CREATE PUBLICATION via_root FOR TABLE parts (id, k) WITH (publish_via_partition_root, publish = 'insert');
	CREATE PUBLICATION filtered FOR TABLE other WHERE (id > 0);
	CREATE PUBLICATION empty});
create_slot($node, 's');
sql('BEGIN; ' . open_refresh('public.st', id => 3) . "INSERT INTO st VALUES (1, 'n', 's'); UPDATE st SET note = 'm';" . close_refresh('public.st', id => 3, ins => 1, upd => 1) . q{COMMIT;
	INSERT INTO other VALUES (1, 1); UPDATE other SET v = 2; DELETE FROM other; TRUNCATE other;
	INSERT INTO sales.a VALUES (5);
	INSERT INTO parts VALUES (1, 1, 'p');
	INSERT INTO pgtrickle.own VALUES (1)});

# --- tables, operations, columns ----------------------------------------------------------------

my $st = 'c public.st(id=1 note=n secret=s), u public.st(id=1 note=m secret=s)';
my %want = (
	'only_st' => $st,
	'"only_st"' => $st,
	'ONLY_ST' => $st,
	'inserts' => 'c public.other(id=1 v=1)',
	'only_st,inserts' => "$st, c public.other(id=1 v=1)",
	'"In Sales" , inserts' => 'c public.other(id=1 v=1), c sales.a(id=5)',
	'everything' => 'c public.st(id=1 note=n secret=s), c public.other(id=1 v=1), t public.other, c sales.a(id=5), c public.part1(id=1 k=1 v=p)',
	'columns' => 'c public.st(id=1 note=n)',
	'all_columns, only_st' => $st,
	'root' => 'c public.part1(id=1 k=1 v=p)',
	'via_root' => 'c public.part1(id=1 k=1)',
	'empty' => '');

for my $publications (sort keys %want)
{
	is(told(publications => $publications), $want{$publications}, "publications=$publications");
}
is(told(publications => ''), $st, 'none named: stream tables');
is(told(publications => 'everything', exclude_tables => 'public.*'), 'c sales.a(id=5)', 'excluded tables stay excluded');

# The same rows as pgoutput's, by its own count.
sub pgoutput_tables
{
	my ($publications) = @_;
	sql(q{SELECT pg_create_logical_replication_slot('p', 'pgoutput')}) unless sql(q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'p'});
	return sql(qq{SELECT string_agg(chr(get_byte(data, 0)), '' ORDER BY n) FROM pg_logical_slot_peek_binary_changes('p', NULL, NULL, 'proto_version', '1', 'publication_names', '$publications')
		WITH ORDINALITY x (lsn, xid, data, n) WHERE chr(get_byte(data, 0)) IN ('I', 'U', 'D', 'T')});
}
pgoutput_tables('empty');
take_slot($node, 's');
sql(q{INSERT INTO st VALUES (2, 'a', 'b'); UPDATE st SET note = 'c' WHERE id = 2; DELETE FROM st WHERE id = 2; INSERT INTO other VALUES (2, 2); UPDATE other SET v = 3; DELETE FROM other;
	TRUNCATE other, sales.a; INSERT INTO sales.a VALUES (6); INSERT INTO parts VALUES (2, 1, 'q'); DELETE FROM parts WHERE id = 2});
my %letter = (c => 'I', u => 'U', d => 'D', t => 'T');
for my $publications ('only_st', 'inserts', 'only_st, inserts', '"In Sales"', 'root', 'everything', 'everything, root', 'columns', 'via_root', 'empty')
{
	my $ours = join '', map { $letter{ $_->{op} } } rows(events($node, 's', publications => $publications));
	# It tells one TRUNCATE of two tables as one message.
	$ours =~ s/TT/T/;
	is($ours, pgoutput_tables($publications) || '', "$publications: as many as pgoutput sends");
}

# --- messages ------------------------------------------------------------------------------------

take_slot($node, 's');
sql('BEGIN; ' . open_refresh('public.st', id => 4) . "INSERT INTO st VALUES (4, 'n', 's');" . close_refresh('public.st', id => 4, ins => 1) . 'COMMIT');
my @messages = map { $_->{op} } events($node, 's', publications => 'columns');
is("@messages", 'hello begin refresh schema c refresh commit', 'a published stream table');
is(scalar(events($node, 's', publications => 'inserts')), 0, 'one that is not: no word of its refresh');
my ($schema) = grep { $_->{op} eq 'schema' } events($node, 's', publications => 'columns');
is(join(' ', map { $_->{name} } @{ $schema->{columns} }), 'id note', 'the schema has the columns that are listed');
my ($hello) = events($node, 's', publications => '"In Sales", columns');
is($hello->{options}{publications}, '"In Sales", columns', 'hello tells of them');

# --- as they were when the change was made ----------------------------------------------------------

take_slot($node, 's');
sql(q{INSERT INTO other VALUES (10, 1); ALTER PUBLICATION inserts SET TABLE sales.a; INSERT INTO other VALUES (11, 1); INSERT INTO sales.a VALUES (11);
	ALTER PUBLICATION inserts SET (publish = 'delete'); INSERT INTO sales.a VALUES (12); DELETE FROM sales.a WHERE id = 11;
	ALTER PUBLICATION inserts ADD TABLES IN SCHEMA public; DELETE FROM other WHERE id = 10;
	CREATE PUBLICATION late FOR TABLE other; DELETE FROM other;
	BEGIN; ALTER PUBLICATION inserts SET (publish = 'insert'); INSERT INTO other VALUES (12, 1); ROLLBACK; INSERT INTO other VALUES (13, 1)});
is(told(publications => 'inserts'), 'c public.other(id=10 v=1), c sales.a(id=11), d sales.a(id=11), d public.other(id=10), d public.other(id=11)', 'publications change as they did');
is(told(publications => 'late'), 'd public.other(id=11), c public.other(id=13 v=1)', 'one that came later');

# --- errors ---------------------------------------------------------------------------------------

like(read_error($node, 's', publications => 'filtered'), qr/0A000.*does not support row filters.*"filtered" has one for table "public.other".*HINT/s, 'a row filter');
is(told(publications => 'filtered', exclude_tables => 'public.other'), '', 'unless its table is excluded');
take_slot($node, 's');
sql('INSERT INTO other VALUES (20, 1)');
is(told(publications => 'filtered, late'), 'c public.other(id=20 v=1)', 'or another publication has all of its rows');
take_slot($node, 's');
sql("INSERT INTO st VALUES (9, 'n', 's')");
like(read_error($node, 's', publications => 'columns, only_st'), qr/0A000.*different column lists for table "public.st".*HINT/s, 'lists of columns that do not agree');
like(read_error($node, 's', publications => 'nowhere'), qr/42704.*publication "nowhere" does not exist.*HINT/s, 'no such publication');
like(read_error($node, 's', publications => 'only_st', tables => '*'), qr/22023.*"publications" takes.*not together with "tables"/s, 'together with tables');
like(read_error($node, 's', publications => $_), qr/22023.*"publications" takes a comma-separated list/s, "publications=$_") for 'a,', ',', 'a b', '"a';

$node->stop;
done_testing();
