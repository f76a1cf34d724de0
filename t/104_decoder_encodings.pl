# UTF-8 comes out, whatever the encoding of the database; where it cannot, an error that says
# what and where.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgtDecoder;

my $node = decoder_node('encodings');

sub create_database
{
	my ($name, $encoding) = @_;
	$node->safe_psql('postgres',
		qq{CREATE DATABASE $name ENCODING '$encoding' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'});
	create_slot($node, $name, dbname => $name);
}

# The lines as the bytes that they are: read as bytea, written as hex.
sub read_bytes
{
	my ($name, %options) = @_;
	my $arguments = join '', map { ", '$_', '$options{$_}'" } sort keys %options;
	my $hex = $node->safe_psql($name,
		"SELECT encode(data, 'hex') FROM pg_logical_slot_peek_binary_changes('$name', NULL, NULL$arguments)");

	return map { pack 'H*', $_ } split /\n/, $hex;
}

# --- LATIN1 ----------------------------------------------------------------------------------

create_database('latin', 'LATIN1');
$node->safe_psql('latin', q{
	SET client_encoding = 'UTF8';
	CREATE TYPE stimmung AS ENUM ('fröhlich');
	CREATE TYPE paar AS (schlüssel text);
	CREATE TABLE "Größe" (id int PRIMARY KEY, "Maß" text, s stimmung, p paar, a text[], j json, jb jsonb, ascii text);
	ALTER TABLE "Größe" REPLICA IDENTITY FULL;
	INSERT INTO "Größe" VALUES (1, 'straße "ü"', 'fröhlich', ROW('ä'), ARRAY['ö', 'o'], '{"ü":  1}', '{"é": "è"}', 'plain');
	SELECT pg_logical_emit_message(true, 'app', 'naïve');
	SELECT pg_logical_emit_message(false, 'app', 'outside: é');
	BEGIN;
} . open_refresh('public."Größe"', name => "Gr\xf6\xdfe", mode => 'FULL') . q{
	UPDATE "Größe" SET ascii = 'ÿ';
	COMMIT;
});

my $error = read_error($node, 'latin', dbname => 'latin');
like($error, qr/produces binary output, but function .* expects textual data/,
	'as text of the database, UTF-8 cannot be had');

my @lines = read_bytes('latin', tables => 'public.*', messages => '*', topic_prefix => 'pre');
my @e = map { event($_) } @lines;
my ($schema) = grep { $_->{op} eq 'schema' } @e;
is($schema->{table}, "Gr\x{f6}\x{df}e", 'table name');
is($schema->{columns}[1]{name}, "Ma\x{df}", 'column name');
is($schema->{columns}[3]{fields}[0]{name}, "schl\x{fc}ssel", 'field name');
my ($row) = rows(@e);
is_deeply(
	$row->{a},
	{   id => 1, "Ma\x{df}" => "stra\x{df}e \"\x{fc}\"", s => "fr\x{f6}hlich", p => { "schl\x{fc}ssel" => "\x{e4}" },
		a => [ "\x{f6}", 'o' ], j => { "\x{fc}" => 1 }, jb => { "\x{e9}" => "\x{e8}" }, ascii => 'plain'
	},
	'values');
is($row->{t}, "public.\"Gr\x{f6}\x{df}e\"", 'label');
is_deeply([ map { $_->{content} } grep { $_->{op} eq 'message' } @e ], [ "na\x{ef}ve", "outside: \x{e9}" ],
	'messages, in a transaction or not');
my ($open) = grep { $_->{op} eq 'refresh' } @e;
is($open->{t}, $row->{t}, 'the name in a refresh message');
is((rows(@e))[1]{a}{ascii}, "\x{ff}", 'rows of the refresh');

# The same through the replication protocol, which runs without a transaction at times.
my $end = $node->safe_psql('latin', 'SELECT pg_current_wal_lsn()');
require IPC::Run;
my ($out, $err) = ('', '');
IPC::Run::run(
	[   'pg_recvlogical', '-d', $node->connstr('latin'), '--slot', 'latin', '--start', '--no-loop', '-f', '-',
		'--endpos', $end, '-o', 'tables=public.*', '-o', 'messages=*', '-o', 'topic_prefix=pre'
	],
	'<', \undef, '>', \$out, '2>', \$err);
is_deeply([ split /\n/, $out ], \@lines, 'the walsender sends the same bytes');
is($err, '', 'without complaint');

# The shape, and so its id, is the same in a database of another encoding.
create_database('uni', 'UTF8');
$node->safe_psql('uni', q{
	CREATE TYPE stimmung AS ENUM ('fröhlich');
	CREATE TYPE paar AS (schlüssel text);
	CREATE TABLE "Größe" (weg int, id int PRIMARY KEY, "Maß" text, s stimmung, p paar, a text[], j json, jb jsonb, ascii text);
	ALTER TABLE "Größe" DROP weg;
	INSERT INTO "Größe" VALUES (1);});
my ($other) = grep { $_->{op} eq 'schema' } events($node, 'uni', tables => '*', dbname => 'uni');
is($other->{schema_id}, $schema->{schema_id}, 'schema_id is the same in UTF8');

# --- encodings of several bytes -----------------------------------------------------------------

create_database('euc', 'EUC_JP');
$node->safe_psql('euc', qq{
	SET client_encoding = 'UTF8';
	CREATE TABLE k (id int PRIMARY KEY, v text);
	INSERT INTO k VALUES (1, '\xe6\xbc\xa2\xe5\xad\x97"\\');
	INSERT INTO k VALUES (2, repeat('\xe6\xbc\xa2', 30000));});
my @r = rows(map { event($_) } read_bytes('euc', tables => '*'));
is($r[0]{a}{v}, "\x{6f22}\x{5b57}\"\\", 'EUC_JP');
is($r[1]{a}{v}, "\x{6f22}" x 30000, 'long text');

# --- SQL_ASCII: nobody knows --------------------------------------------------------------------

create_database('unknown', 'SQL_ASCII');
$node->safe_psql('unknown', qq{
	CREATE TABLE t (id int PRIMARY KEY, v text);
	CREATE TABLE u (id int PRIMARY KEY);
	INSERT INTO t VALUES (1, 'plain');
	INSERT INTO t VALUES (2, '\xc3\xa4');
	SELECT pg_logical_emit_message(true, 'app', E'\\\\xe4');
	INSERT INTO u VALUES (3);});
@r = rows(events($node, 'unknown', tables => '*', dbname => 'unknown'));
is_deeply([ map { $_->{a}{v} } @r ], [ 'plain', "\x{e4}", undef ], 'SQL_ASCII: text that is UTF-8 is taken for it');
$node->safe_psql('unknown', q{INSERT INTO t VALUES (4, E'\xe4'); INSERT INTO u VALUES (5)});
$error = read_error($node, 'unknown', tables => '*', dbname => 'unknown');
like($error, qr/22021: could not convert text to encoding "UTF8"/, 'what is not is an error');
like($error, qr/encoding "SQL_ASCII".*HINT:.*"exclude_tables".*column "v" of table "public\.t"/s,
	'that says what to do, and where');
@r = rows(events($node, 'unknown', tables => '*', exclude_tables => 'public.t', dbname => 'unknown'));
is_deeply([ map { $_->{a}{id} } @r ], [ 3, 5 ], 'which helps');

$node->stop;
done_testing();
