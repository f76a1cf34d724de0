# The JSON Schema files describe what comes, and golden files hold it byte for byte: a fixed
# history in each format and envelope, with positions, times and versions made equal.
#
# What was got is left in tmp_check/golden; read it and copy it to t/golden where it should change.
use strict;
use warnings;

use File::Path qw(make_path);
use JSON::PP;
use JSON::Validator;
use Test::More;

use PgTrickle;
use PgtDecoder;

my $node = decoder_node('golden', init => [ extra => [ '--encoding=UTF8', '--no-locale' ] ]);
my $json = JSON::PP->new->utf8->allow_nonref;

sub sql { return $node->safe_psql('postgres', $_[0]) }

# --- the history ------------------------------------------------------------------------------

# The library works without the extension, its function, too.
sql(q{
	CREATE FUNCTION snapshot_rows_binary(text, pg_lsn, VARIADIC text[]) RETURNS SETOF bytea LANGUAGE c STABLE AS '$libdir/pg_trickle_decoder', 'pgtd_snapshot_rows_binary';
	SELECT pg_replication_origin_create('elsewhere');
	CREATE TYPE address AS (street text, "No." int);
	CREATE DOMAIN price AS numeric(10, 2);
	CREATE TABLE st (id bigint PRIMARY KEY, name text NOT NULL, cost price, at timestamptz, tags text[], home address, doc jsonb, raw bytea, ratio float8);
	ALTER TABLE st REPLICA IDENTITY FULL;
	CREATE TABLE keyed (a int, b int, v text, big text, PRIMARY KEY (b, a));
	ALTER TABLE keyed ALTER big SET STORAGE EXTERNAL;
	CREATE TABLE "No key" (v text, x xml, a aclitem); ALTER TABLE "No key" REPLICA IDENTITY NOTHING});
create_slot($node, 's');
sql('BEGIN; ' . open_refresh('public.st', id => 7) . q{INSERT INTO st VALUES
		(1, 'Ä "quoted" \\ 😀', 12.5, '2026-11-23 10:00:00.5+01', '{a,NULL,"b c"}', ROW('Hauptstraße', 5), '{"b": [1, null], "a": "x"}', '\x00ff', 0.1),
		(9007199254740993, '', NULL, 'infinity', '{}', NULL, 'null', '', 'NaN');
	UPDATE st SET cost = 13, home = ROW(NULL, 6) WHERE id = 1; DELETE FROM st WHERE id > 1;} . close_refresh('public.st', id => 7, ins => 2, upd => 1, del => 1) . q{COMMIT;
	SELECT pg_logical_emit_message(false, 'pg_trickle.hb', '1795389790011234');
	SELECT pg_logical_emit_message(false, 'pg_trickle.hb', '');
	BEGIN;
	INSERT INTO keyed VALUES (1, 1, 'v', repeat('x', 9000));
	SELECT pg_logical_emit_message(true, 'app', 'line' || chr(10)); SELECT pg_logical_emit_message(true, 'app', '\xff00'::bytea);
	UPDATE keyed SET v = 'w'; UPDATE keyed SET a = 2; DELETE FROM keyed; COMMIT;
	SELECT pg_logical_emit_message(false, 'app', 'outside');
	SELECT pg_logical_emit_message(false, 'app', repeat('m', 9000));
	BEGIN; INSERT INTO "No key" VALUES ('a', '<a/>', NULL), (NULL, NULL, 'pg_monitor=r/pg_monitor'); TRUNCATE "No key", keyed; COMMIT;
	BEGIN; ALTER TABLE keyed RENAME a TO "A"; ALTER TABLE keyed ADD c int DEFAULT 4; INSERT INTO keyed (b, "A", v) VALUES (3, 3, NULL); COMMIT;
	SELECT pg_replication_origin_session_setup('elsewhere'); INSERT INTO keyed VALUES (4, 4, 'from elsewhere')});
my %asked = (tables => 'public.*', messages => 'app', max_message_bytes => 6000, oversize => 'omit', topic_prefix => 'shop');

# Messages of the slot, then those of a snapshot.
sub messages
{
	my (%options) = @_;
	my $arguments = join '', map { ", '$_', '$options{$_}'" } sort keys %options;
	return map { pack 'H*', $_ } split /\n/, sql("SELECT encode(data, 'hex') FROM pg_logical_slot_peek_binary_changes('s', NULL, NULL$arguments);
		SELECT encode(m, 'hex') FROM snapshot_rows_binary('st', '0/20', VARIADIC ARRAY['include_schema', 'off'$arguments]) m");
}

# --- what differs from run to run ---------------------------------------------------------------

my %position;    # of the slot's messages, in their order
sub position
{
	my ($text) = @_;
	my ($high, $low) = map { hex } split m{/}, $text;
	my $number = $high * 2**32 + $low;

	return $number < 0x100 ? $number : $position{$number} //= 0x1000 + 0x10 * keys %position;
}
my %xid;
sub xid { my ($number) = @_; return $xid{$number} //= 700 + keys %xid }
sub lsn { return sprintf '0/%X', $_[0] }
sub number_of { my ($number) = @_; return position(sprintf '%X/%X', $number >> 32, $number & 0xffffffff) }

sub normal_json
{
	my ($line) = @_;

	$line =~ s/"plugin_version":"[^"]*"/"plugin_version":"VERSION"/;
	$line =~ s/"version":"[^"]*","connector"/"version":"VERSION","connector"/;
	$line =~ s/"server_version":\d+/"server_version":150000/;
	$line =~ s/"system_id":"\d+"/"system_id":"1"/;
	$line =~ s/"xid":(\d+)/'"xid":' . xid($1)/e;
	$line =~ s/"txId":(\d+)/'"txId":' . xid($1)/e;
	$line =~ s/"transaction":\{"id":"(\d+):(\d+)"/'"transaction":{"id":"' . xid($1) . ':' . number_of($2) . '"'/e;
	$line =~ s/"sequence":"\[\\"(\d+)\\",\\"(\d+)\\"\]"/'"sequence":"[\\"' . number_of($1) . '\\",\\"' . number_of($2) . '\\"]"'/e;
	$line =~ s/"((?:commit_)?lsn)":(\d+)/'"' . $1 . '":' . number_of($2)/ge;
	$line =~ s/"([0-9A-F]+\/[0-9A-F]+)"/'"' . lsn(position($1)) . '"'/ge;
	$line =~ s/("ts":|"ts_ms":)(\d+)/$1 . ($2 == 1795389790011234 ? $2 : 1)/ge;
	return $line;
}

# Tag and body, with what JSON says of the same messages replaced wherever it stands.
my %times;
sub normal_binary
{
	my ($message) = @_;
	my ($tag, $body) = unpack 'a x4 a*', $message;

	return "$tag " . normal_json($body) if $tag =~ /[HS]/;
	my $hex = unpack 'H*', $body;
	$hex =~ s/$_/<time>/g for map { sprintf '%016x', $_ } keys %times;
	for my $number (sort { $a <=> $b } keys %position)
	{
		my ($real, $normal) = map { sprintf '%016x', $_ } $number, $position{$number};
		$hex =~ s/$real/$normal/g if $tag =~ /[BCMK]/;
	}
	$hex =~ s/\A((?:[89a-f].)*[0-7].)/<xid>/ if $tag =~ /[BC]/;
	return "$tag $hex";
}

# --- the schemas ------------------------------------------------------------------------------------

my %lines;
for my $envelope (qw(compact debezium row))
{
	my $validator = JSON::Validator->new;
	my %seen;
	my @wrong;

	$validator->schema("docs/schema/$envelope.schema.json");
	$lines{$envelope} = [ map { split /\n/ } messages(%asked, envelope => $envelope) ];
	for my $line (@{ $lines{$envelope} })
	{
		my $event = $json->decode($line);
		my @errors = $validator->validate($event);

		push @wrong, "$line: @errors" if @errors;
		$seen{ ref $event eq 'ARRAY' ? 'gone' : $envelope eq 'row' ? 'row' : $event->{op} }++;
		next if $envelope eq 'row';
		# A schema that takes anything proves nothing: each member that it requires must be.
		for my $member (grep { !/\A(?:k|b|origin|unchanged|oversize|ts|key|p)\z/ } keys %$event)
		{
			my %less = %$event;
			delete $less{$member};
			push @wrong, "without $member it passes, too: $line" unless $validator->validate(\%less);
		}
		push @wrong, "with another op it passes, too: $line" unless $validator->validate({ %$event, op => 'x' });
		push @wrong, "with a wrong type it passes, too: $line" unless $validator->validate({ %$event, exists $event->{p} ? (p => 'x') : exists $event->{source} ? (source => 'x') : exists $event->{lsn} ? (lsn => 7) : exists $event->{commit_lsn} ? (commit_lsn => 7) : exists $event->{columns} ? (columns => {}) : (options => 7) });
	}
	is(join("\n", @wrong), '', "$envelope: each line is as the schema says");
	is(join(' ', sort keys %seen), $envelope eq 'row' ? 'gone row' : 'begin c commit d heartbeat hello message r refresh schema t u', "$envelope: of each kind");
	ok(scalar $validator->validate($envelope eq 'row' ? 'x' : {}), "$envelope: nothing else");
}
my $row = JSON::Validator->new->schema('docs/schema/row.schema.json');
ok(scalar $row->validate($json->decode($_)), "row: not $_") for '1', '[1]', '[{}, {}]', 'null';

# The examples of the document, too.
my $docs = PostgreSQL::Test::Utils::slurp_file('docs/wire-format.md');
my $compact = JSON::Validator->new->schema('docs/schema/compact.schema.json');
my $debezium = JSON::Validator->new->schema('docs/schema/debezium.schema.json');
for my $line (map { split /\n/ } $docs =~ /^```json\n(.*?)^```/msg)
{
	my @errors = ($line =~ /\A\{"before"/ ? $debezium : $compact)->validate($json->decode($line));
	is("@errors", '', 'docs: ' . substr $line, 0, 60);
}

# --- the golden files -----------------------------------------------------------------------------------

my $got_dir = "$PostgreSQL::Test::Utils::tmp_check/golden";
make_path($got_dir);
for my $line (@{ $lines{compact} })
{
	my $event = $json->decode($line);
	$times{ $event->{ts} } = 1 if defined $event->{ts} && $event->{ts} != 1795389790011234;
}
my @compact = map { normal_json($_) } @{ $lines{compact} };
my %got = (
	'compact.jsonl' => \@compact,
	'debezium.jsonl' => [ map { normal_json($_) } @{ $lines{debezium} } ],
	'row.jsonl' => $lines{row},
	'binary.txt' => [ map { normal_binary($_) } messages(%asked, format => 'binary') ]);

for my $name (sort keys %got)
{
	my $text = join '', map { "$_\n" } @{ $got{$name} };
	my $golden = -e "t/golden/$name" ? PostgreSQL::Test::Utils::slurp_file("t/golden/$name") : '';

	PostgreSQL::Test::Utils::append_to_file("$got_dir/$name", $text);
	my @golden = split /\n/, $golden;
	my @differ = grep { ($got{$name}[$_] // '') ne ($golden[$_] // '') } 0 .. ($#golden > $#{ $got{$name} } ? $#golden : $#{ $got{$name} });
	is(join("\n", map { $got{$name}[$_] // '' } @differ), join("\n", map { $golden[$_] // '' } @differ), "t/golden/$name");
	cmp_ok(scalar @golden, '>', 15, "... which says something");
}

$node->stop;
done_testing();
