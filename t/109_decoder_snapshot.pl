# snapshot_rows: the rows of a table are byte for byte those that the stream sends, apart from op
# and position; with a slot's exported snapshot, rows and stream together are the table.
use strict;
use warnings;

use Encode;
use Test::More;

use PgTrickle;
use PgtBinary;
use PgtDecoder;
use PgtTypes;

my $node = PgTrickle->new_node('snapshot', scheduler => 0, init => [ extra => [ '--encoding=UTF8', '--no-locale' ] ]);

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub arguments { my (%options) = @_; return join '', map { ", '$_', '$options{$_}'" } sort keys %options }

# Of a slot, or of a table: each message as bytes.
sub stream_messages
{
	my ($slot, %options) = @_;
	my $session = delete $options{session} || '';
	my $dbname = delete $options{dbname} || 'postgres';
	my $hex = $node->safe_psql($dbname, "$session; SELECT encode(data, 'hex') FROM pg_logical_slot_peek_binary_changes('$slot', NULL, NULL" . arguments(%options) . ')');
	return map { pack 'H*', $_ } split /\n/, $hex;
}

sub snapshot_messages
{
	my ($table, $lsn, %options) = @_;
	my $session = delete $options{session} || '';
	my $dbname = delete $options{dbname} || 'postgres';
	my $hex = $node->safe_psql($dbname, "$session; SELECT encode(m, 'hex') FROM pgtrickle.snapshot_rows_binary('$table', " . ($lsn ? "'$lsn'" : 'NULL') . arguments(%options) . ') m');
	return map { pack 'H*', $_ } split /\n/, $hex;
}

# Without what says where a row comes from.
sub plain
{
	my ($line) = @_;

	$line =~ s/"op":"[cr]"/"op":"_"/;
	$line =~ s/"p":\["[^"]*",/"p":["_",/;
	$line =~ s/"(ts|ts_ms|txId|lsn|commit_lsn)":(?:\d+|null)/"$1":_/g;
	$line =~ s/"snapshot":"\w+"/"snapshot":_/;
	$line =~ s/"sequence":"\[.*?\]"/"sequence":_/;
	$line =~ s/"transaction":(?:null|\{[^}]*\})/"transaction":_/;
	return $line;
}

# --- the same bytes -------------------------------------------------------------------------

create_slot($node, 's');
sql(q{
	CREATE TABLE wide (id int PRIMARY KEY, big text, small text, gone int, twice int GENERATED ALWAYS AS (id * 2) STORED, later int DEFAULT 7);
	ALTER TABLE wide DROP gone;
	INSERT INTO wide VALUES (1, repeat('x', 3000000), 'a'), (2, (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 40000) i), NULL);
	CREATE TABLE "Odd ""name" ("the key" int PRIMARY KEY, v text);
	INSERT INTO "Odd ""name" SELECT i, 'v' || i FROM generate_series(1, 5000) i;
	CREATE TABLE bag (v text);
	INSERT INTO bag VALUES ('a'), ('a'), (NULL)});
make_types($node, 'vals');
my @tables = ('vals', 'wide', '"Odd ""name"', 'bag');
my %asked = map { $_ => { tables => "public.$_" } } @tables;
my $odd = "SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Kolkata'; SET IntervalStyle = 'sql_standard'; SET extra_float_digits = -3;
	SET bytea_output = 'escape'; SET xmlbinary = 'hex'; SET quote_all_identifiers = on; SET client_encoding = 'LATIN1'; SET search_path = public, pg_catalog";

for my $table (@tables)
{
	for my $envelope (qw(compact debezium row))
	{
		my @stream = grep { $envelope eq 'row' || /"op":"(?:c|schema)"/ } stream_messages('s', %{ $asked{$table} }, envelope => $envelope);
		my @snapshot = snapshot_messages($table, undef, envelope => $envelope, session => $odd);

		cmp_ok(scalar @snapshot, '>=', 2, "$table, $envelope: there are rows");
		is(join("\n", map { plain($_) } @snapshot), join("\n", map { plain($_) } @stream), "$table, $envelope: the same bytes");
		is_deeply([ snapshot_messages($table, undef, envelope => $envelope) ], \@snapshot, "$table, $envelope: in the same order")
		  if $envelope eq 'row';
	}
	my @stream = grep { /\A[cS]/ } stream_messages('s', %{ $asked{$table} }, format => 'binary');
	my @snapshot = snapshot_messages($table, undef, format => 'binary', session => $odd);
	is(join('', map { unpack 'H*', s/\Ar/c/r } @snapshot), join('', map { unpack 'H*', $_ } @stream), "$table, binary: the same bytes but the tag");
	is(join(' ', map { $_->{op} } (read_binary(join '', @snapshot))[ 0, -1 ]), 'schema r', "$table: which the reader can read");
}

# As text, and in batches.
my @lines = split /\n/, sql(q{SELECT * FROM pgtrickle.snapshot_rows('"Odd ""name"')});
is(join("\n", map { plain($_) } @lines), join("\n", map { plain($_) } snapshot_messages('"Odd ""name"')), 'snapshot_rows gives the same as text');
for my $format (qw(json binary))
{
	my @single = snapshot_messages('"Odd ""name"', '0/1234500', format => $format);
	my @batched = snapshot_messages('"Odd ""name"', '0/1234500', format => $format, batch_bytes => 20000);
	my ($from, $to) = map { join $format eq 'json' ? "\n" : '', map { s/"ts":\d+//gr } @$_ } \@batched, \@single;

	is($from, $to, "$format in batches: the same");
	cmp_ok(scalar @batched, '<', 60, 'in fewer results');
	is(scalar(grep { length $_ < 20000 || length $_ > 21000 } @batched[ 0 .. $#batched - 1 ]), 0, 'as large as asked for');
}

# --- positions ------------------------------------------------------------------------------

my ($schema, @events) = map { event($_) } snapshot_messages('bag', '1/A0');
is($schema->{op}, 'schema', 'the schema comes first');
is_deeply([ map { "$_->{op} @{ $_->{p} }" } @events ], [ 'r 1/9F 1', 'r 1/9F 2', 'r 1/9F 3' ], 'positions lie just before the given one');
is_deeply([ map { join ' ', @{ $_->{p} } } map { event($_) } (snapshot_messages('bag'))[ 1 .. 3 ] ], [ '0/0 1', '0/0 2', '0/0 3' ], 'or before all');
my $begin = sql('BEGIN; CREATE TABLE at AS SELECT (extract(epoch FROM now()) * 1000000)::bigint AS ts; CREATE TABLE rows AS SELECT * FROM pgtrickle.snapshot_rows($$at$$, $$0/10$$, $$include_schema$$, $$off$$) m; COMMIT; SELECT ts FROM at');
is(event(sql('SELECT m FROM rows'))->{ts}, $begin, 'the time is that of the transaction');
my $debezium = event((snapshot_messages('bag', '0/100', envelope => 'debezium', topic_prefix => 'shop'))[1]);
is_deeply([ @{ $debezium->{source} }{qw(snapshot name txId lsn commit_lsn seq sequence)}, @$debezium{qw(before transaction op)} ], [ 'true', 'shop', undef, 255, 255, 1, '["255","255"]', undef, undef, 'r' ], 'as Debezium says it');

sql(q{CREATE PUBLICATION two_columns FOR TABLE wide (id, small) WITH (publish = 'insert')});
is_deeply([ map { $_->{a} } rows(map { event($_) } snapshot_messages('wide', undef, publications => 'two_columns')) ], [ { id => 1, small => 'a' }, { id => 2, small => undef } ], 'columns of a publication');

# --- large values -----------------------------------------------------------------------------

is_deeply([ map { $_->{oversize} // '-' } rows(map { event($_) } snapshot_messages('wide', undef, max_message_bytes => 2000000, oversize => 'omit')) ], [ ['big'], '-' ], 'what does not fit is left out');
like(error_of($node, q{SELECT count(*) FROM pgtrickle.snapshot_rows('wide', NULL, 'max_message_bytes', '2000000')}), qr/54000.*at most 2000000 bytes.*table "public.wide"|54000.*at most 2000000/s, 'or an error');
is(sql(q{CREATE TABLE many AS SELECT i, repeat('x', 100) AS v FROM generate_series(1, 300000) i;
	DECLARE c CURSOR WITH HOLD FOR SELECT 1; BEGIN; DECLARE d CURSOR FOR SELECT pgtrickle.snapshot_rows('many');
	MOVE 250000 IN d; SELECT sum(total_bytes) < 1000000 FROM pg_backend_memory_contexts WHERE name LIKE 'pg_trickle%'; COMMIT}), 't', 'a quarter of a million rows take less than 1 MB');
is(sql(q{SELECT count(*) FROM (SELECT pgtrickle.snapshot_rows('many') LIMIT 3) q; SELECT count(*) FROM (SELECT pgtrickle.snapshot_rows('many')) q}), "3\n300001", 'it may be given up, or read to the end');
is(sql(q{SELECT sum((SELECT count(*) FROM pgtrickle.snapshot_rows(t))) FROM unnest(ARRAY['bag', 'wide', 'bag']) t}), 4 + 3 + 4, 'several times in a query');
is(sql("SET work_mem = '64kB'; SET DateStyle = 'German'; SELECT count(*) FROM pgtrickle.snapshot_rows('vals'); SHOW DateStyle"), "3\nGerman, DMY", 'settings are as they were');
is(sql(q{SET DateStyle = 'German';
	DO $$ BEGIN PERFORM * FROM pgtrickle.snapshot_rows('wide', NULL, 'max_message_bytes', '2000'); EXCEPTION WHEN program_limit_exceeded THEN NULL; END $$; SHOW DateStyle}),
	'German, DMY', 'after errors, too');

# --- rights and errors --------------------------------------------------------------------------

sql(q{
	CREATE ROLE reader; CREATE TABLE secret (x int); CREATE VIEW v AS SELECT 1 AS x;
	CREATE TABLE ranked (x int); INSERT INTO ranked VALUES (1); ALTER TABLE ranked ENABLE ROW LEVEL SECURITY; GRANT SELECT ON ranked, bag TO reader;
	CREATE TABLE parts (x int) PARTITION BY LIST (x); CREATE TABLE part1 PARTITION OF parts FOR VALUES IN (1); INSERT INTO parts VALUES (1);
	GRANT USAGE ON SCHEMA pgtrickle TO reader});
sub snapshot_error { my ($call, $session) = @_; return error_of($node, ($session // '') . "SELECT * FROM pgtrickle.$call") }

# Which tables: as a slot decides.
my $tables = sub { my ($options) = @_; return join ' ', sort split /\n/, sql("SELECT pgtrickle.snapshot_tables($options)") };
sql(q{CREATE SCHEMA lists; CREATE TABLE lists.a (id int); CREATE TABLE lists.b (id int); CREATE UNLOGGED TABLE lists.u (id int); CREATE VIEW lists.v AS SELECT 1 AS id;
	CREATE TABLE lists.p (id int) PARTITION BY LIST (id); CREATE TABLE lists.p1 PARTITION OF lists.p DEFAULT;
	SELECT pgtrickle.create_stream_table('lists.st', 'SELECT id FROM lists.a', schedule => '1h');
	CREATE PUBLICATION lists FOR TABLE lists.b, lists.st; CREATE PUBLICATION late FOR TABLE lists.a WITH (publish = 'update')});
is($tables->(''), 'lists.st', 'stream tables');
is($tables->(q{'tables', 'lists.*'}), 'lists.a lists.b lists.p1 lists.st', 'and tables that are named, partitions of them');
is($tables->(q{'tables', 'lists.*', 'exclude_tables', '*.st, lists.b'}), 'lists.a lists.p1', 'but not those that are excluded');
is($tables->(q{'publications', 'lists, late'}), 'lists.b lists.st', 'what publications publish');
like(snapshot_error(q{snapshot_tables('tables', 'x')}), qr/22023/, 'bad options');
like(snapshot_error(q{snapshot_tables(VARIADIC NULL)}), qr/22004/, 'no options at all');
like(snapshot_error(q{snapshot_tables('tables', NULL)}), qr/22004/, 'null');
like(snapshot_error(q{snapshot_tables('publications', 'nowhere')}), qr/42704/, 'no such publication');
sql('DROP PUBLICATION late, lists; DROP SCHEMA lists CASCADE');

# Whose rows.
like(snapshot_error(q{snapshot_rows('secret')}, 'SET ROLE reader;'), qr/42501.*permission denied for table secret/s, 'a table that the caller may not read');
is(sql(q{SET ROLE reader; SELECT count(*) FROM pgtrickle.snapshot_rows('bag')}), 4, 'one that he may');
like(snapshot_error(q{snapshot_rows('ranked')}, 'SET ROLE reader;'), qr/42501.*row-level security hides rows.*HINT:.*BYPASSRLS/s, 'row-level security');
is(sql(q{SELECT count(*) FROM pgtrickle.snapshot_rows('ranked')}), 2, 'which does not hide from the owner');
like(snapshot_error(q{snapshot_rows('nowhere')}), qr/42P01/, 'no such table');
like(snapshot_error(q{snapshot_rows('v')}), qr/42809.*"v" is not a table/s, 'a view');
like(snapshot_error(q{snapshot_rows('parts')}), qr/42809.*partitioned table.*HINT:.*each partition/s, 'a partitioned table');
is(event((snapshot_messages('part1'))[1])->{t}, 'public.part1', 'a partition');
like(snapshot_error(q{snapshot_rows(NULL)}), qr/22004.*name must not be null/s, 'no name');
like(snapshot_error(q{snapshot_rows('bag', NULL, 'format')}), qr/22023.*option "format" needs a value/s, 'half an option');
like(snapshot_error(q{snapshot_rows('bag', NULL, 'format', NULL)}), qr/22004/s, 'a null option');
like(snapshot_error(q{snapshot_rows('bag', NULL, 'envelop', 'row')}), qr/22023.*unrecognized option "envelop"/s, 'an unknown option');
like(snapshot_error(q{snapshot_rows('bag', NULL, 'format', 'binary')}), qr/0A000.*HINT:.*snapshot_rows_binary/s, 'bytes as text');

# --- a database in another encoding -------------------------------------------------------------

sql(q{CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'});
create_slot($node, 'latin', dbname => 'latin');
$node->safe_psql('latin', q{SET client_encoding = 'UTF8'; CREATE EXTENSION pg_trickle; CREATE TABLE "Größe" (id int PRIMARY KEY, "Maß" text); INSERT INTO "Größe" VALUES (1, 'straße')});
my %latin = (dbname => 'latin', session => "SET client_encoding = 'UTF8'");
my ($streamed) = grep { /"op":"c"/ } stream_messages('latin', %latin, tables => 'public.*');
is(plain((snapshot_messages('"Größe"', undef, %latin))[1]), plain($streamed), 'LATIN1: the same bytes');
like($streamed, qr/"Maß":"straße"/, 'in UTF-8');
like(error_of($node, q{SELECT * FROM pgtrickle.snapshot_rows('pg_class')}, dbname => 'latin'), qr/0A000.*encoding is LATIN1.*snapshot_rows_binary/s, 'as text it is refused');

# --- with a slot's snapshot ------------------------------------------------------------------------

sql(q{
	CREATE TABLE src (id int PRIMARY KEY, g int, v int); INSERT INTO src SELECT i, i % 100, i FROM generate_series(1, 2000) i;
	SELECT pgtrickle.create_stream_table('sums', 'SELECT g, sum(v) AS total FROM src GROUP BY g', '1h')});
for my $round (1 .. 5)
{
	my $sender = $node->background_psql('postgres', replication => 'database', on_error_stop => 0);
	my ($name, $lsn, $snapshot) = split /\|/, $sender->query_safe(qq{CREATE_REPLICATION_SLOT "from$round" LOGICAL pg_trickle_decoder (SNAPSHOT 'export')});
	sql("UPDATE src SET v = v + 1 WHERE id <= 500 * $round; DELETE FROM src WHERE g = $round; SELECT pgtrickle.refresh_stream_table('sums')");
	my @first = snapshot_messages('sums', $lsn, session => "BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '$snapshot'");
	sql("UPDATE src SET v = v + 1 WHERE id > 1000; SELECT pgtrickle.refresh_stream_table('sums')");
	my @all = rows(map { event($_) } @first, read_slot($node, "from$round"));
	my ($last, $falling, %copy) = ('', 0);

	for my $row (@all)
	{
		my @position = map { hex } split m{/}, $row->{p}[0];
		my $position = sprintf '%010d %010d %010d', @position, $row->{p}[1];

		$falling++ if $position le $last;
		$last = $position;
		delete $copy{ $row->{k}{g} };
		$copy{ $row->{a}{g} } = $row->{a}{total} if $row->{a};
	}
	is(join(' ', map { "$_=$copy{$_}" } sort { $a <=> $b } keys %copy), sql(q{SELECT string_agg(g || '=' || total, ' ' ORDER BY g) FROM sums}), "round $round: snapshot and stream are the table");
	is($falling, 0, '... in rising positions');
	cmp_ok(scalar(grep { $_->{op} eq 'r' } @all), '>', 90, '... with a snapshot');
	cmp_ok(scalar(grep { $_->{op} ne 'r' } @all), '>', 90, '... and changes');
	$sender->quit;
	drop_slot($node, "from$round");
}

$node->stop;
done_testing();
