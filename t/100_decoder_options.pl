# The options of the output plugin: each works, each bad value is an error that helps.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgtDecoder;

my $node = decoder_node('options');
my $db = 'postgres';

$node->safe_psql($db, q{
	CREATE TABLE a (id int8 PRIMARY KEY, v text);
	CREATE TABLE b (id int PRIMARY KEY);
	CREATE SCHEMA "My Schema";
	CREATE TABLE "My Schema"."T.1" (id int PRIMARY KEY);
	CREATE SCHEMA pgtrickle_changes;
	CREATE TABLE pgtrickle_changes.b1 (id int);
});
create_slot($node, 's');
$node->safe_psql($db, q{
	INSERT INTO a VALUES (9007199254740993, 'x');
	INSERT INTO b VALUES (1);
	INSERT INTO "My Schema"."T.1" VALUES (2);
	INSERT INTO pgtrickle_changes.b1 VALUES (3);
});

# --- errors ----------------------------------------------------------------------------

for my $case (
	[ { nonsense => 'x' }, qr/unrecognized option "nonsense" of output plugin "pg_trickle_decoder"/ ],
	[ { Format => 'json' }, qr/unrecognized option "Format"/ ],
	[ { format => 'avro' }, qr/invalid value for option "format": "avro".*takes "json" or "binary"\./s ],
	[ { format_version => '2' }, qr/invalid value for option "format_version": "2".*takes "1"\./s ],
	[ { envelope => 'rows' }, qr/option "envelope": "rows".*takes "compact", "debezium" or "row", and with format=binary only the first\./s ],
	[ { envelope => '' }, qr/option "envelope": ""/ ],
	[ { include_refresh => 'maybe' }, qr/option "include_refresh": "maybe".*takes a Boolean\./s ],
	[ { include_schema => '2' }, qr/option "include_schema": "2"/ ],
	[ { origin => 'local' }, qr/option "origin": "local".*takes "any" or "none"\./s ],
	[ { bigint => 'text' }, qr/option "bigint": "text".*takes "number" or "string", the latter not with format=binary\./s ],
	[ { oversize => 'truncate' }, qr/option "oversize".*takes "error" or "omit"\./s ],
	[ { max_message_bytes => '10' }, qr/option "max_message_bytes".*an integer from 1024 to/s ],
	[ { max_message_bytes => '1MB' }, qr/option "max_message_bytes": "1MB"/ ],
	[ { max_message_bytes => '99999999999999999999' }, qr/option "max_message_bytes"/ ],
	[ { topic_prefix => '' }, qr/option "topic_prefix": "".*a name, not empty/s ],
	[ { messages => 'a,,b' }, qr/option "messages": "a,,b".*message prefixes/s ],
	[ { messages => 'a,' }, qr/option "messages"/ ],
	(   map { [ { tables => $_ }, qr/option "tables": .*comma-separated list of schema\.table/s ] } 'a',
		'public.', '.a', 'public.a,', 'public.a b', 'public."a', 'public.""', '*a', 'public.a.b', ',',
		'1.a'),
	[ { exclude_tables => 'a' }, qr/option "exclude_tables": "a"/ ])
{
	my ($options, $pattern) = @$case;
	my $error = read_error($node, 's', %$options);
	my $name = join(' ', map { "$_=$options->{$_}" } keys %$options);

	like($error, $pattern, "$name is refused");
	like($error, qr/ERROR:  22023:.*HINT:  The options of pg_trickle_decoder are: format, format_version, envelope, tables, exclude_tables, publications, include_refresh, include_schema, messages, origin, bigint, oversize, max_message_bytes, batch_bytes, topic_prefix\./s,
		"$name: SQLSTATE, and a hint that lists the options");
}

like(
	error_of($node,
		"SELECT * FROM pg_logical_slot_peek_changes('s', NULL, NULL, 'format', 'json', 'format', 'json')"),
	qr/22023: option "format" is given more than once/,
	'an option given twice is refused');
like(
	error_of($node, "SELECT * FROM pg_logical_slot_peek_changes('s', NULL, NULL, 'bigint')"),
	qr/number of (?:arguments|elements)|array must have even number of elements/,
	'the server itself wants pairs');

is_deeply([ read_slot($node, 's') ], [], 'without options ordinary tables are not sent');

# --- tables ----------------------------------------------------------------------------

sub tables_of
{
	my (%options) = @_;
	return join ' ', map { $_->{t} } rows(events($node, 's', %options));
}

is(tables_of(tables => '*'), 'public.a public.b "My Schema"."T.1"',
	'tables=* is every table of users, not those of the extension');
is(tables_of(tables => 'pgtrickle_changes.*'), 'pgtrickle_changes.b1', 'which can be named');
is(tables_of(tables => 'public.a'), 'public.a', 'one table');
is(tables_of(tables => ' Public.A , public.b '), 'public.a public.b', 'names fold to lower case');
is(tables_of(tables => 'public.*'), 'public.a public.b', 'a schema');
is(tables_of(tables => '*.b'), 'public.b', 'a name in every schema');
is(tables_of(tables => '"My Schema"."T.1"'), '"My Schema"."T.1"', 'quoted names');
is(tables_of(tables => '"public"."A"'), '', 'quoted names do not fold');
is(tables_of(tables => '*.*', exclude_tables => 'public.a,"My Schema".*'), 'public.b',
	'exclude_tables takes away');
is(tables_of(tables => ''), '', 'an empty list');

# --- the others ------------------------------------------------------------------------

my ($row) = rows(events($node, 's', tables => 'public.a'));
is($row->{v}, 1, 'the envelope is compact unless told');
my ($line) = grep { /"op":"c"/ } read_slot($node, 's', tables => 'public.a');
like($line, qr/"a":\{"id":9007199254740993,/, 'bigint=number');
($line) = grep { /"op":"c"/ } read_slot($node, 's', tables => 'public.a', bigint => 'string');
like($line, qr/"k":\{"id":"9007199254740993"\},"a":\{"id":"9007199254740993",/, 'bigint=string');

my @all = events($node, 's', tables => 'public.a', format => 'json', format_version => 1);
is(join(' ', map { $_->{op} } @all), 'hello begin schema c commit', 'format and version');
is(join(' ', map { $_->{op} } events($node, 's', tables => 'public.a', include_schema => 'off')),
	'hello begin c commit', 'include_schema=off');

($row) = rows(events($node, 's', tables => 'public.a', envelope => 'debezium'));
is($row->{source}{name}, 'postgres', 'the source is named after the database');
($row) = rows(events($node, 's', tables => 'public.a', envelope => 'debezium', topic_prefix => 'sh"op'));
is($row->{source}{name}, 'sh"op', 'or as topic_prefix says');

my ($hello) = events($node, 's', tables => 'public.a', oversize => 'omit');
is_deeply(
	$hello->{options},
	{   format => 'json', format_version => '1', envelope => 'compact', tables => 'public.a',
		exclude_tables => '', publications => '', include_refresh => 'on', include_schema => 'on', messages => '',
		origin => 'any', bigint => 'number', oversize => 'omit', max_message_bytes => '1056964608', batch_bytes => '0'
	},
	'hello tells the options in force');

# --- the documentation ----------------------------------------------------------------

my $docs = PostgreSQL::Test::Utils::slurp_file('docs/wire-format.md');
my ($options) = $docs =~ /^## Options\n(.*?)^## /ms;
is_deeply([ sort $options =~ /^\| `(\w+)` \|/mg ], [ sort keys %{ $hello->{options} }, 'topic_prefix' ],
	'docs/wire-format.md has every option');
my @examples = map { split /\n/ } $docs =~ /^```json\n(.*?)^```/msg;
is(scalar(grep { event($_) } @examples), 13, 'and its examples are JSON');
my ($example) = grep { /"op":"schema"/ } @examples;
is(fnv1a($example =~ /("t":.*),"identity"/ ? $1 : ''), event($example)->{schema_id}, 'with the right hash');

# --- origin ----------------------------------------------------------------------------

$node->safe_psql($db, q{
	SELECT pg_replication_origin_create('elsewhere');
	SELECT pg_replication_origin_session_setup('elsewhere');
	INSERT INTO b VALUES (2);
});
$node->safe_psql($db, 'INSERT INTO b VALUES (3)');
my @any = events($node, 's', tables => 'public.b');
my @none = events($node, 's', tables => 'public.b', origin => 'none');
is(join(' ', map { $_->{a}{id} } rows(@any)), '1 2 3', 'origin=any');
is(join(' ', map { $_->{a}{id} } rows(@none)), '1 3', 'origin=none');
is(join(' ', map { $_->{origin} // '-' } grep { $_->{op} eq 'begin' } @any), '- elsewhere -',
	'begin names the origin');

# --- at creation, and through the replication protocol ------------------------------------

like(
	error_of($node, "SELECT pg_create_logical_replication_slot('s2', 'pg_trickle_decoder', false, true)"),
	qr/0A000.*does not support two-phase decoding.*HINT:.*without two_phase/s, 'a slot for two-phase commit is refused');
is($node->safe_psql($db, q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 's2'}), 0, 'and not there');
like(read_error($node, 's', $_ => 'on'), qr/0A000.*does not support option "$_".*sent whole/s, "option $_") for qw(streaming two_phase);
create_slot($node, 's2');
$node->safe_psql($db, q{
	BEGIN; INSERT INTO b VALUES (4); PREPARE TRANSACTION 'p';});
is(join(' ', map { $_->{a}{id} } rows(events($node, 's2', tables => 'public.b'))), '',
	'a prepared transaction is not sent');
$node->safe_psql($db, q{COMMIT PREPARED 'p'});
is(join(' ', map { $_->{a}{id} } rows(events($node, 's2', tables => 'public.b'))), '4',
	'before it commits');

my ($out, $err) = ('', '');
my $status = run_recvlogical('-o', 'envelop=compact');
isnt($status, 0, 'pg_recvlogical fails with an unknown option');
like($err, qr/unrecognized option "envelop".*The options of pg_trickle_decoder are:/s, 'and says why');
$status = run_recvlogical('-o', 'tables');
like($err, qr/option "tables" needs a value.*Option "tables" takes a comma-separated list/s,
	'an option without a value');
my $end = $node->safe_psql($db, 'SELECT pg_current_wal_lsn()');
$status = run_recvlogical('-o', 'include_schema', '-o', 'tables=public.a', '--endpos', $end, '--no-loop');
is($status, 0, 'except a Boolean one') or diag($err);

sub run_recvlogical
{
	my (@options) = @_;
	($out, $err) = ('', '');
	require IPC::Run;
	IPC::Run::run(
		[   'pg_recvlogical', '-d', $node->connstr($db), '--slot', 's', '--start', '--no-loop', '-f', '-',
			@options
		],
		'<', \undef, '>', \$out, '2>', \$err);
	return $? >> 8;
}

# --- the setting that allows plugins --------------------------------------------------------

SKIP:
{
	skip 'this server has no output_plugin_libraries', 1
	  unless PgTrickle::server_knows_setting('output_plugin_libraries');
	$node->safe_psql($db, q{ALTER SYSTEM SET output_plugin_libraries = 'pgoutput'});
	$node->reload;
	wait_until($node, "SELECT current_setting('output_plugin_libraries') = 'pgoutput'");
	like(read_error($node, 's'), qr/may not be used as an output plugin/,
		'a server that does not list the plugin refuses it');
}

$node->stop;
done_testing();
