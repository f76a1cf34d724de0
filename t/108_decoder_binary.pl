# format=binary: values byte for byte as the server's send functions write them, every message
# read by a reader that knows nothing but the document, and the same story as JSON tells.
use strict;
use warnings;

use Encode;
use Test::More;

use PgTrickle;
use PgtBinary;
use PgtDecoder;
use PgtTypes;

my $node = decoder_node('binary', init => [ extra => [ '--encoding=UTF8', '--no-locale' ] ]);

sub sql { return $node->safe_psql('postgres', $_[0]) }

# The messages of the slot as one string of bytes, and their number.
sub read_bytes
{
	my ($slot, %options) = @_;
	my $dbname = delete $options{dbname} || 'postgres';
	my $session = delete $options{session} || '';
	my $arguments = join '', map { ", '$_', '$options{$_}'" } sort keys %options;
	my $hex = $node->safe_psql($dbname,
		"$session; SELECT encode(data, 'hex') FROM pg_logical_slot_peek_binary_changes('$slot', NULL, NULL, 'format', 'binary'$arguments)");
	my @messages = map { pack 'H*', $_ } split /\n/, $hex;

	return wantarray ? @messages : join '', @messages;
}

# --- values ---------------------------------------------------------------------------------

create_slot($node, 's');
make_types($node, 'vals');
my @columns = typed_columns();
my @types = map { $_->[0] } @columns;
# Settings must not matter, and client_encoding least of all.
my $odd = "SET client_encoding = 'LATIN1'; SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Kolkata'; SET IntervalStyle = 'sql_standard'; SET extra_float_digits = -3;
	SET bytea_output = 'escape'; SET search_path = pg_temp; SET quote_all_identifiers = on; SET lc_monetary = 'C'";
my $bytes = read_bytes('s', tables => '*', session => $odd);
my @messages = read_binary($bytes);
my ($full, $nulls) = rows(@messages);

is($bytes, scalar read_bytes('s', tables => '*'), 'the same bytes whatever the session has set');
for my $i (0 .. $#types)
{
	my $send = sql("SELECT typsend::oid::regproc::text FROM pg_type WHERE oid = (SELECT CASE typtype WHEN 'd' THEN typbasetype ELSE oid END
		FROM pg_type WHERE oid = (SELECT atttypid FROM pg_attribute WHERE attrelid = 'vals'::regclass AND attname = 'c$i'))");
	my $expected = sql("SELECT encode($send(c$i), 'hex') FROM vals WHERE id = 1");

	is(unpack('H*', ${ $full->{new}[ $i + 1 ] }), $expected, "$columns[$i][0] '" . encode('UTF-8', $columns[$i][1] =~ s/\n/\\n/r) . "'");
}
is_deeply($nulls->{new}, [ \"\0\0\0\2", (undef) x @types ], 'NULLs');

# Against the text that SQL shows, by the reader's own arithmetic.
my ($schema) = grep { $_->{op} eq 'schema' } @messages;
for my $i (grep { $types[$_] =~ /^(bool|int\d|oid|numeric(\(.*)?|text|varchar.*|uuid|bytea|posint|mood)$/ } 0 .. $#types)
{
	my $column = $schema->{columns}[ $i + 1 ];
	my $text = decode('UTF-8', sql("SELECT c$i FROM vals WHERE id = 1"));

	is(read_value($column->{base} // $column->{type}, ${ $full->{new}[ $i + 1 ] }), $text, "$column->{type} as text");
}

# Numbers of all lengths, which are written without the server's functions, in text and in bytes.
sql(q{CREATE TABLE numbers (id int PRIMARY KEY, v numeric);
	SELECT setseed(0.5);
	INSERT INTO numbers SELECT i, round((random() - 0.5)::numeric * (10::numeric ^ (i % 60 - 30)), (i * 7) % 45) FROM generate_series(1, 600) i;
	INSERT INTO numbers SELECT 1000 + i, ('1e' || i)::numeric FROM generate_series(-40, 40) i;
	INSERT INTO numbers SELECT 2000 + i, ('-9' || repeat('0', i) || '.' || repeat('0', i) || '10')::numeric FROM generate_series(0, 20) i;
	INSERT INTO numbers VALUES (3001, '0.000'), (3002, '1e131071'), (3003, '1e-16383'), (3004, '0'), (3005, '-10000'), (3006, '9999'), (3007, '99999999.99990000')});
my %number = map { split /\|/ } split /\n/, sql('SELECT id, v FROM numbers');
my %sent = map { split /\|/ } split /\n/, sql(q{SELECT id, encode(numeric_send(v), 'hex') FROM numbers});
my @numbers = rows(events($node, 's', tables => 'public.numbers', include_refresh => 'off'));
is(scalar @numbers, scalar keys %number, 'all numbers');
is_deeply({ map { ($_->{a}{id} => $_->{a}{v}) } @numbers }, \%number, 'as text');
is_deeply({ map { (unpack('N', ${ $_->{new}[0] }) => unpack('H*', ${ $_->{new}[1] })) } grep { $_->{t} eq 'public.numbers' } rows(read_binary(scalar read_bytes('s', tables => 'public.numbers'))) },
	\%sent, 'as bytes');

# Types of users inside of others: no oids of theirs.
sql(q{CREATE TABLE users (id int PRIMARY KEY, m mood[], p posints, o outer_t, d inner_d, n inner_t[], plain float8[]);
	INSERT INTO users VALUES (1, '{sad,glücklich}', '{1,2}', ROW(ROW(1, 'ä'), ARRAY[ROW(2, NULL)::inner_t], '2000-01-02', 1.5), ROW(3, ''), '{"(4,x)",NULL}', '{1.5,NULL}')});
my @both = read_binary(scalar read_bytes('s', tables => 'public.users'));
($schema) = grep { $_->{op} eq 'schema' } @both;
my ($row) = rows(@both);
my %got = map { my $c = $schema->{columns}[$_]; ($c->{name} => read_value($c->{base} // $c->{type}, ${ $row->{new}[$_] }, $c->{fields})) } 0 .. 6;
is_deeply(\%got, {
		id => 1, m => [ 'sad', "gl\x{fc}cklich" ], p => [ 1, 2 ], d => { a => 3, 'b c' => '' }, n => [ { a => 4, 'b c' => 'x' }, undef ], plain => [ 1.5, undef ],
		o => { i => { a => 1, 'b c' => "\x{e4}" }, l => [ { a => 2, 'b c' => undef } ], d => 1, 'q"uote' => '1.5' } }, 'types of users, within each other');
my $oids = sql(q{SELECT string_agg(encode(oidsend(oid), 'hex'), '|') FROM pg_type WHERE oid >= 16384});
unlike(unpack('H*', ${ $row->{new}[$_] }), qr/\A(?:..)*(?:$oids)/, "no oid of a user's type in $schema->{columns}[$_]{name}") for 1 .. 5;
is(unpack('N', substr ${ $row->{new}[6] }, 8, 4), 701, 'the oid of a type that every server has');

# --- messages -------------------------------------------------------------------------------

sql('SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) FROM pg_replication_slots');
sql('CREATE TABLE st (id int PRIMARY KEY, note text, big text); ALTER TABLE st REPLICA IDENTITY FULL; ALTER TABLE st ALTER big SET STORAGE EXTERNAL;
	CREATE TABLE keyed (a int, b int, v text, big text, PRIMARY KEY (a, b)); ALTER TABLE keyed ALTER big SET STORAGE EXTERNAL');
sql('BEGIN; ' . open_refresh('public.st', id => 9, data_ts => 5, mode => 'FULL', frontier => '1:2:') . "INSERT INTO st SELECT i, 'n' || i, repeat('x', 3000) FROM generate_series(1, 200) i;"
	  . close_refresh('public.st', id => 9, ins => 200, upd => 1, del => 2) . 'COMMIT');
sql(q{INSERT INTO keyed VALUES (1, 1, 'x', repeat('k', 3000))});
sql(q{UPDATE keyed SET v = 'y'});
sql(q{UPDATE keyed SET b = 2});
sql(q{DELETE FROM keyed});
sql(q{BEGIN; UPDATE keyed SET v = 'none'; TRUNCATE keyed; SELECT pg_logical_emit_message(true, 'app', 'in'); COMMIT});
sql(q{SELECT pg_logical_emit_message(false, 'app', '\x00ff'::bytea); SELECT pg_logical_emit_message(false, 'pg_trickle.hb', '1700000000000000'); SELECT pg_logical_emit_message(false, 'pg_trickle.hb', 'x')});
sql('CREATE TABLE flushes_them ()');
my %asked = (tables => 'public.keyed', messages => 'app');
my @single = read_bytes('s', %asked);
my @all = read_binary(join '', @single);

is(scalar @all, scalar @single, 'each message alone');
is(join(' ', map { $_->{op} eq 'refresh' ? "refresh-$_->{phase}" : $_->{op} } @all) =~ s/( c){200}/ c*200/r,
	'hello begin refresh-begin schema c*200 refresh-end commit begin schema c commit begin u commit begin u commit begin d commit begin t message commit message heartbeat heartbeat',
	'all kinds of messages');
my @json = events($node, 's', %asked);
is(scalar @json, scalar @all, 'as many as in JSON');
for my $i (grep { $all[$_]{op} =~ /^(begin|commit|heartbeat)$/ } 0 .. $#all)
{
	my %json = %{ $json[$i] };
	my %binary = ((map { ($_ => $all[$i]{$_}) } keys %{ $all[$i] }), $all[$i]{op} eq 'commit' ? (rows => $all[$i]{rows} || {}) : ());
	is_deeply(\%binary, \%json, "$i: the same $json{op} as in JSON");
}
is_deeply([ map { [ $_->{commit_lsn}, $_->{seq} ] } rows(@all) ], [ map { $_->{p} } rows(@json) ], 'the same positions as in JSON');
is_deeply($all[2], { op => 'refresh', phase => 'begin', schema => 'public', table => 'st', id => 9, seq => 1, mode => 'FULL', frontier => '1:2:', data_ts => 5 }, 'a refresh opens');
is_deeply((grep { ($_->{phase} // '') eq 'end' } @all)[0], { op => 'refresh', phase => 'end', schema => 'public', table => 'st', id => 9, seq => 202, inserted => 200, updated => 1, deleted => 2 }, 'and closes');
my ($in, $out) = grep { $_->{op} eq 'message' } @all;
is("$in->{transactional} $in->{seq} $in->{prefix} $in->{content}", '1 2 app in', 'a message in a transaction');
is("$out->{transactional} $out->{seq} $out->{prefix} " . unpack('H*', $out->{content}), '0 0 app 00ff', 'one outside, with bytes');
is($in->{lsn}, (grep { $_->{op} eq 'message' } @json)[0]{lsn}, 'its LSN');

my @keyed = grep { $_->{t} eq 'public.keyed' } rows(@all);
is($keyed[1]{old}, undef, 'no old row where the WAL has none');
is($keyed[1]{new}[3], 'unchanged', 'a large value that did not change');
is_deeply($keyed[2]{old}, [ \"\0\0\0\1", \"\0\0\0\1", 'absent', 'absent' ], 'the old key alone');
is_deeply([ @{ $keyed[3] }{qw(op new)} ], [ 'd', undef ], 'a row deleted');
is_deeply([ @{ $keyed[4] }{qw(op old new)} ], [ 't', undef, undef ], 'a table truncated');
($schema) = grep { $_->{op} eq 'schema' && $_->{t} eq 'public.keyed' } @all;
is($schema->{s} // $schema->{schema_id}, (grep { $_->{op} eq 'schema' && $_->{t} eq 'public.keyed' } @json)[0]{schema_id}, 'the schema id of JSON');

# Batches are the same bytes.
for my $size (1, 5000, 1_000_000)
{
	my @batched = read_bytes('s', %asked, batch_bytes => $size);
	my $text = join '', @batched;

	ok(($text =~ s/"batch_bytes":"$size"/"batch_bytes":"0"/r =~ s/\AH.{4}//sr) eq (join('', @single) =~ s/\AH.{4}//sr), "batches of $size bytes");
	cmp_ok(scalar @batched, '<', @single / 2, '... in fewer messages') if $size > 1;
}
# Cut anywhere, the reader notices; with newlines between messages, as pg_recvlogical writes them, it reads on.
my $story = join '', @single;
my $cut = grep { eval { read_binary(substr $story, 0, length($story) - $_); 1 } } 1 .. 200;
cmp_ok($cut, '<', 8, 'truncated bytes are refused but at the ends of messages');
is_deeply([ read_binary(join '', map { "$_\n" } @single) ], \@all, 'with newlines between messages');

# --- what does not fit ------------------------------------------------------------------------

my %omit = (%asked, oversize => 'omit', max_message_bytes => 4096);
sql("INSERT INTO keyed VALUES (5, 5, 'small', repeat('ä', 5000)); SELECT pg_logical_emit_message(false, 'app', repeat('m', 10000))");
sql('DROP TABLE flushes_them');
@all = read_binary(scalar read_bytes('s', %omit));
($row) = (rows(@all))[-1];
is_deeply([ map { ref $_ ? $$_ : $_ } @{ $row->{new} } ], [ "\0\0\0\5", "\0\0\0\5", 'small', 'oversize' ], 'a value that does not fit is left out');
is_deeply([ @{ $all[-1] }{qw(op oversize content)} ], [ 'message', 1, '' ], 'the content of a message, too');
like(read_error($node, 's', format => 'binary', %asked, max_message_bytes => 4096), qr/produces binary output/, 'not to be had as text');
my ($code, undef, $stderr) = $node->psql('postgres', "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('s', NULL, NULL, 'format', 'binary', 'tables', 'public.keyed', 'max_message_bytes', '4096')");
like($stderr, qr/too large for one message/, 'oversize=error');
sql("INSERT INTO keyed VALUES (6, 6, repeat('v', 1000000), NULL)");
is(length ${ (rows(read_binary(scalar read_bytes('s', %asked))))[-1]{new}[2] }, 1_000_000, '1 MB in a value');

# --- options ----------------------------------------------------------------------------------

for my $bad ([ envelope => 'debezium' ], [ envelope => 'row' ], [ bigint => 'string' ])
{
	($code, undef, $stderr) = $node->psql('postgres', "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('s', NULL, NULL, 'format', 'binary', '$bad->[0]', '$bad->[1]')");
	like($stderr, qr/invalid value for option "$bad->[0]": "$bad->[1]".*format=binary/s, "no $bad->[0]=$bad->[1]");
}

# --- a database in another encoding -------------------------------------------------------------

$node->safe_psql('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'});
create_slot($node, 'latin', dbname => 'latin');
$node->safe_psql('latin', q{
	SET client_encoding = 'UTF8';
	CREATE TYPE stimmung AS ENUM ('fröhlich');
	CREATE TABLE "Größe" (id int PRIMARY KEY, "Maß" text, s stimmung, n name, a text[], ss stimmung[], j json, jb jsonb, x xml);
	INSERT INTO "Größe" VALUES (1, 'straße', 'fröhlich', 'nämlich', '{ö}', '{fröhlich}', '{"ü":  1}', '{"é": "è"}', '<ä/>')});
for my $encoding (qw(UTF8 LATIN1))
{
	my @latin = read_binary(scalar read_bytes('latin', dbname => 'latin', tables => '*', session => "SET client_encoding = '$encoding'"));
	my ($schema) = grep { $_->{op} eq 'schema' } @latin;
	my ($row) = rows(@latin);
	my @got = map { my $c = $schema->{columns}[$_]; read_value($c->{type}, ${ $row->{new}[$_] }) } 0 .. 8;

	is($schema->{columns}[1]{name}, "Ma\x{df}", "LATIN1, client_encoding $encoding: names");
	is_deeply(\@got, [ 1, "stra\x{df}e", "fr\x{f6}hlich", "n\x{e4}mlich", ["\x{f6}"], ["fr\x{f6}hlich"], "{\"\x{fc}\":  1}", "{\"\x{e9}\": \"\x{e8}\"}", $got[8] ], '... values');
	like($got[8], qr{<\x{e4}/>}, '... XML');
}

# --- types without a binary form ----------------------------------------------------------------

sql('CREATE TABLE rights (id int PRIMARY KEY, a aclitem, l aclitem[]); INSERT INTO rights SELECT 1, makeaclitem(10, 10, $$SELECT$$, false), ARRAY[makeaclitem(10, 10, $$SELECT$$, false)]');
@all = read_binary(scalar read_bytes('s', tables => 'public.rights'));
($schema) = grep { ($_->{t} // '') eq 'public.rights' && $_->{op} eq 'schema' } @all;
is_deeply($schema->{as_text}, [ 'a', 'l' ], 'the schema says what is text');
is(${ (rows(@all))[-1]{new}[1] }, sql('SELECT a FROM rights'), 'a type without a send function, as text');

# --- over the wire --------------------------------------------------------------------------------

my $file = $node->basedir . '/binary';
my $end = sql('SELECT pg_current_wal_insert_lsn()');
$node->command_ok([ 'pg_recvlogical', '-d', $node->connstr('postgres'), '-S', 's', '--start', '--endpos', $end, '--no-loop', '-o', 'format=binary', '-o', 'tables=public.*', '-f', $file ], 'pg_recvlogical');
my $raw = do { open my $fh, '<:raw', $file or die $!; local $/; <$fh> };
is(scalar(grep { $_->{op} eq 'c' } read_binary($raw)), 204, 'what it wrote can be read');

done_testing();
