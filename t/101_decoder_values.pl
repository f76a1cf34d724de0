# Every kind of value, byte by byte, in both envelopes; and the same bytes whatever the
# session has set, and however often the WAL is read.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgtDecoder;

# Everything here is bytes, and this file is in UTF-8.
my $node = decoder_node('values', init => [ extra => [ '--encoding=UTF8', '--no-locale' ] ]);
my $db = 'postgres';

$node->safe_psql($db, q{
	CREATE TYPE mood AS ENUM ('sad', 'ok "so"');
	CREATE DOMAIN posint AS int CHECK (value > 0);
	CREATE DOMAIN posints AS posint[];
	CREATE TYPE inner_t AS (a int, "b c" text);
	CREATE TYPE outer_t AS (i inner_t, l inner_t[], d date, "q""uote" numeric);
	CREATE DOMAIN inner_d AS inner_t;
	CREATE TYPE span AS RANGE (subtype = timestamptz);
});

# [ type, SQL expression, JSON in compact, JSON in debezium when that differs ]
my @cases = (
	[ 'bool', 'true', 'true' ],
	[ 'bool', 'false', 'false' ],
	[ 'bool', 'NULL', 'null' ],
	[ 'int2', '(-32768)', '-32768' ],
	[ 'int4', '(-2147483648)', '-2147483648' ],
	[ 'int4', '0', '0' ],
	[ 'int8', '(-9223372036854775808)', '-9223372036854775808' ],
	[ 'int8', '9223372036854775807', '9223372036854775807' ],
	[ 'oid', '4294967295', '4294967295' ],
	[ 'numeric', '1.50', '"1.50"' ],
	[ 'numeric(12,3)', '-0.1', '"-0.100"' ],
	[ 'numeric', "'NaN'", '"NaN"' ],
	[ 'numeric', "'-Infinity'", '"-Infinity"' ],
	[ 'numeric', '1e30', '"1000000000000000000000000000000"' ],
	[ 'float4', '0.1', '0.1' ],
	[ 'float4', '16777216', '1.6777216e+07' ],
	[ 'float8', '0.1', '0.1' ],
	[ 'float8', "'0.30000000000000004'", '0.30000000000000004' ],
	[ 'float8', "'1e-310'", '1e-310' ],
	[ 'float8', "'1.7976931348623157e308'", '1.7976931348623157e+308' ],
	[ 'float8', "'-0'", '-0' ],
	[ 'float8', "'NaN'", '"NaN"' ],
	[ 'float8', "'Infinity'", '"Infinity"' ],
	[ 'float4', "'-Infinity'", '"-Infinity"' ],

	[ 'text', q{''}, '""' ],
	[ 'text', q{E'quote " backslash \\\\ slash / tab \t newline \n return \r'}, '"quote \" backslash \\\\ slash / tab \t newline \n return \r"' ],
	[ 'text', q{E'\x01\x08\x0c\x1f\x7f'}, qq{"\\u0001\\b\\f\\u001f\x7f"} ],
	[ 'text', q{'äöü 漢字 😀'}, '"äöü 漢字 😀"' ],
	[ 'text', q{repeat('0123456789abcde"', 3)}, '"' . ('0123456789abcde\"' x 3) . '"' ],
	[ 'text', q{repeat('ä', 20) || '"' || repeat('x', 17)}, '"' . ('ä' x 20) . '\"' . ('x' x 17) . '"' ],
	[ 'varchar(5)', q{'abc'}, '"abc"' ],
	[ 'char(5)', q{'abc'}, '"abc  "' ],
	[ '"char"', q{'x'}, '"x"' ],
	[ 'name', q{'na me'}, '"na me"' ],
	[ 'mood', q{'ok "so"'}, '"ok \"so\""' ],
	[ 'uuid', q{'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'}, '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"' ],
	[ 'inet', q{'10.0.0.1/8'}, '"10.0.0.1/8"' ],
	[ 'bit(5)', q{B'10101'}, '"10101"' ],
	[ 'tsvector', q{'a:1 b:2'}, q{"'a':1 'b':2"} ],
	[ 'xml', q{'<a>"</a>'}, '"<a>\"</a>"' ],
	[ 'pg_lsn', q{'1/A'}, '"1/A"' ],

	[ 'bytea', q{''}, '""' ],
	[ 'bytea', q{'\x00'}, '"AA=="' ],
	[ 'bytea', q{'\x00ff'}, '"AP8="' ],
	[ 'bytea', q{'\x00ff10'}, '"AP8Q"' ],
	[ 'bytea', q{'\xfbefbe'}, '"++++"' ],
	[ 'bytea', q{'\xffffff'}, '"////"' ],

	[ 'date', q{'2026-11-23'}, '"2026-11-23"' ],
	[ 'date', q{'0001-01-01'}, '"0001-01-01"' ],
	[ 'date', q{'0001-12-31 BC'}, '"0000-12-31"' ],
	[ 'date', q{'0044-03-15 BC'}, '"-0043-03-15"' ],
	[ 'date', q{'4714-11-24 BC'}, '"-4713-11-24"' ],
	[ 'date', q{'12345-06-07'}, '"+12345-06-07"' ],
	[ 'date', q{'5874897-12-31'}, '"+5874897-12-31"' ],
	[ 'date', q{'infinity'}, '"infinity"' ],
	[ 'date', q{'-infinity'}, '"-infinity"' ],
	[ 'time', q{'00:00'}, '"00:00:00"' ],
	[ 'time', q{'24:00:00'}, '"24:00:00"' ],
	[ 'time', q{'23:59:59.999999'}, '"23:59:59.999999"' ],
	[ 'timetz', q{'01:02:03.4+02:30'}, '"01:02:03.400000+02:30"' ],
	[ 'timetz', q{'01:02:03-15:59:59'}, '"01:02:03-15:59:59"' ],
	[ 'timestamp', q{'2026-01-02 03:04:05'}, '"2026-01-02T03:04:05"' ],
	[ 'timestamp', q{'2026-01-02 03:04:05.000001'}, '"2026-01-02T03:04:05.000001"' ],
	[ 'timestamp', q{'1999-12-31 23:59:59.9'}, '"1999-12-31T23:59:59.900000"' ],
	[ 'timestamp', q{'0044-03-15 12:00 BC'}, '"-0043-03-15T12:00:00"' ],
	[ 'timestamp', q{'294276-12-31 23:59:59.999999'}, '"+294276-12-31T23:59:59.999999"' ],
	[ 'timestamp', q{'infinity'}, '"infinity"' ],
	[ 'timestamptz', q{'2026-07-02 03:04:05.5+02'}, '"2026-07-02T01:04:05.500000Z"' ],
	[ 'timestamptz', q{'1969-12-31 23:59:59-00:00:01'}, '"1970-01-01T00:00:00Z"' ],
	[ 'timestamptz', q{'-infinity'}, '"-infinity"' ],
	[ 'interval', q{'0'}, '"PT0S"' ],
	[ 'interval', q{'1 year 2 mons 3 days 04:05:06.789'}, '"P1Y2M3DT4H5M6.789S"' ],
	[ 'interval', q{'1 mon -3 days -00:00:00.1'}, '"P1M-3DT-0.1S"' ],

	[ 'json', qq{E'{"b": 1,\\n "a" : [1, 2 ] , "s": "x  \\\\n \\\\" y"}'}, '{"b":1,"a":[1,2],"s":"x  \n \" y"}', '"{\"b\": 1,\n \"a\" : [1, 2 ] , \"s\": \"x  \\\\n \\\\\" y\"}"' ],
	[ 'json', q{' "x" '}, '"x"', '" \"x\" "' ],
	[ 'json', q{'1.10e2'}, '1.10e2', '"1.10e2"' ],
	[ 'json', q{'null'}, 'null', '"null"' ],
	[ 'jsonb', q{'{"b": 1.10, "a": [true, null, "ä\u00e4"]}'}, '{"a":[true,null,"ää"],"b":1.10}', '"{\"a\": [true, null, \"ää\"], \"b\": 1.10}"' ],
	[ 'jsonb', q{'"\\\\"'}, '"\\\\"', '"\"\\\\\\\\\""' ],
	[ 'jsonb', q{jsonb_build_object('k', repeat('y', 5000))}, '{"k":"' . ('y' x 5000) . '"}', '"{\"k\": \"' . ('y' x 5000) . '\"}"' ],

	[ 'int[]', q{'{}'}, '[]' ],
	[ 'int[]', q{'{1,NULL,-3}'}, '[1,null,-3]' ],
	[ 'int[]', q{'[5:6]={1,2}'}, '[1,2]' ],
	[ 'int[][]', q{'{{1,2},{3,NULL}}'}, '[[1,2],[3,null]]' ],
	[ 'int[]', q{'{{{1},{2}},{{3},{4}}}'}, '[[[1],[2]],[[3],[4]]]' ],
	[ 'text[]', q{ARRAY['a,b', '"', NULL, 'NULL', '']}, '["a,b","\"",null,"NULL",""]' ],
	[ 'timestamptz[]', q{'{"2026-01-02 03:04:05+01"}'}, '["2026-01-02T02:04:05Z"]' ],
	[ 'float8[]', q{'{NaN,0.1}'}, '["NaN",0.1]' ],
	[ 'bytea[]', q{ARRAY['\x00'::bytea]}, '["AA=="]' ],
	[ 'jsonb[]', q{ARRAY['{"a": 1}'::jsonb]}, '[{"a":1}]', '["{\"a\": 1}"]' ],
	[ 'int8[]', q{'{9223372036854775807}'}, '[9223372036854775807]' ],
	[ 'int2vector', q{'1 2'}, '[1,2]' ],
	[ 'mood[]', q{'{sad}'}, '["sad"]' ],
	[ 'posint', '7', '7' ],
	[ 'posints', q{'{7,8}'}, '[7,8]' ],
	[ 'posint[]', q{'{7,NULL}'}, '[7,null]' ],
	[ 'inner_t', q{ROW(1, 'x"y')}, '{"a":1,"b c":"x\"y"}' ],
	[ 'inner_t', q{ROW(NULL, NULL)}, '{"a":null,"b c":null}' ],
	[ 'inner_d', q{ROW(1, 'x')::inner_t}, '{"a":1,"b c":"x"}' ],
	[ 'outer_t', q{ROW(ROW(1,'x'), ARRAY[ROW(2,'y')::inner_t, NULL], '2026-01-02', 1.0)}, '{"i":{"a":1,"b c":"x"},"l":[{"a":2,"b c":"y"},null],"d":"2026-01-02","q\"uote":"1.0"}' ],
	[ 'outer_t', q{ROW(NULL, '{}', 'infinity', 'NaN')}, '{"i":null,"l":[],"d":"infinity","q\"uote":"NaN"}' ],

	# By their output functions, whose settings are pinned.
	[ 'tstzrange', q{'[2026-01-01 00:00+01,)'}, '"[\"2025-12-31 23:00:00+00\",)"' ],
	[ 'span', q{'[2026-07-01 00:00+00,infinity]'}, '"[\"2026-07-01 00:00:00+00\",infinity]"' ],
	[ 'daterange', q{'[2026-01-02,2026-01-05)'}, '"[2026-01-02,2026-01-05)"' ],
	[ 'int4range', q{'[1,3]'}, '"[1,4)"' ],
	[ 'point', q{'(0.1,0.30000000000000004)'}, '"(0.1,0.30000000000000004)"' ],
	[ 'money', q{1234.5}, '"$1,234.50"' ],
	[ 'regclass', q{'pg_catalog.pg_class'}, '"pg_class"' ],
	[ 'regtype', q{'mood'}, '"public.mood"' ],
);

my $sql = '';
for my $i (0 .. $#cases)
{
	my ($type, $value) = @{ $cases[$i] };
	$sql .= "CREATE TABLE v$i (x $type);\nINSERT INTO v$i VALUES ($value);\n";
}

create_slot($node, 's');
$node->safe_psql($db, $sql);

for my $envelope (qw(compact debezium))
{
	my @lines = grep { /"op":"c"/ } read_slot($node, 's', tables => 'public.*', envelope => $envelope);

	is(scalar @lines, scalar @cases, "$envelope: one line per row");
	for my $i (0 .. $#cases)
	{
		my ($type, $value, $compact, $debezium) = @{ $cases[$i] };
		my $expected = $envelope eq 'debezium' && defined $debezium ? $debezium : $compact;
		my $got =
		  $envelope eq 'compact'
		  ? ($lines[$i] =~ /"a":\{"x":(.*)\},"p":\[/s)[0]
		  : ($lines[$i] =~ /"after":\{"x":(.*)\},"source":\{/s)[0];

		is($got, $expected, "$envelope: $type " . substr($value, 0, 60));
		ok(ref event($lines[$i]), "$envelope: $type is JSON");
	}
}

# --- settings ------------------------------------------------------------------------------

my @settings = (
	q{SET DateStyle = 'German, DMY'; SET TimeZone = 'Asia/Kathmandu'; SET IntervalStyle = 'sql_standard'},
	q{SET extra_float_digits = -15; SET bytea_output = 'escape'; SET search_path = 'pg_temp'},
	q{SET search_path = 'information_schema', 'pg_catalog'; SET quote_all_identifiers = on; SET lc_monetary = 'C.UTF-8'; SET xmlbinary = 'hex'},
	q{SET client_encoding = 'LATIN9'; SET client_encoding = 'UTF8'; SET standard_conforming_strings = off});

# The first line that differs says more than two long texts.
sub same_lines
{
	my ($got, $expected, $name) = @_;

	is(scalar @$got, scalar @$expected, "$name: as many lines");
	my ($first) = grep { $got->[$_] ne $expected->[$_] } 0 .. $#$expected;
	is($first // 'none', 'none', "$name: no line differs")
	  or diag("     got: $got->[$first]\nexpected: $expected->[$first]");
}

for my $envelope (qw(compact debezium))
{
	my @options = (tables => '*', envelope => $envelope);
	my @before = read_slot($node, 's', @options);

	same_lines([ read_slot($node, 's', @options) ], \@before, "$envelope read twice");
	for my $session (@settings)
	{
		same_lines([ read_slot($node, 's', @options, session => $session) ],
			\@before, "$envelope after $session");
	}
}

my $after = $node->safe_psql($db,
	qq{SET TimeZone = 'Asia/Kathmandu'; SET search_path = public, pg_catalog; SET DateStyle = 'German';
	   SELECT count(*) FROM pg_logical_slot_peek_changes('s', NULL, NULL, 'tables', '*') \\g /dev/null
	   SELECT concat_ws(' ', current_setting('TimeZone'), current_setting('search_path'), current_setting('DateStyle'))});
is($after, 'Asia/Kathmandu public, pg_catalog German, DMY', "the session's own settings are back afterwards");

is( error_of($node, q{
	DO $$
	BEGIN
		SET LOCAL TimeZone = 'Asia/Kathmandu';
		PERFORM count(*) FROM pg_logical_slot_peek_changes('s', NULL, NULL, 'tables', '*');
		IF current_setting('TimeZone') <> 'Asia/Kathmandu' THEN
			RAISE EXCEPTION 'time zone is %', current_setting('TimeZone');
		END IF;
		PERFORM count(*) FROM pg_logical_slot_peek_changes('s', NULL, NULL, 'tables', 'public.*', 'max_message_bytes', '1024');
	EXCEPTION WHEN program_limit_exceeded THEN
		IF current_setting('search_path') <> '"$user", public' THEN
			RAISE EXCEPTION 'search_path is %', current_setting('search_path');
		END IF;
	END $$}), '', 'also after an error');

$node->stop;
done_testing();
