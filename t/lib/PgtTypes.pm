# PgtTypes.pm: a table with a column for every type, and values at their limits.
#
#   make_types($node, 'vals');      # tables vals, with rows 1 (values) and 2 (NULLs), and types
#   my @columns = typed_columns();  # [type, value as SQL text] of the columns c0, c1, ... behind id
#
# Their bytes name no type of users, so that they are exactly those of the send functions.
package PgtTypes;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(make_types typed_columns);

my @values = (
	[ bool => 'true', 'false' ], [ int2 => '-32768', '32767' ], [ int4 => '-2147483648', '0' ], [ int8 => '-9223372036854775808', '9223372036854775807' ],
	[ oid => '4294967295' ], [ float4 => '0.1', 'NaN', '-Infinity' ], [ float8 => '1e-310', '-0', 'Infinity', '1.7976931348623157e308' ],
	[ numeric => '1.50', '-0.0001', 'NaN', 'Infinity', '-Infinity', '1e1000', '0', '12345678901234567890.123456789' ], [ 'numeric(12,3)' => '-0.1' ],
	[ money => '-12.34' ], [ text => '', 'äöü 漢字 😀', "a\nb" ], [ 'varchar(5)' => 'abc' ], [ 'char(5)' => 'abc' ], [ '"char"' => 'x' ], [ name => 'na me' ],
	[ mood => 'glücklich' ], [ uuid => 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11' ], [ inet => '10.0.0.1/8', '::1' ], [ cidr => '10.0.0.0/8' ],
	[ macaddr => '08:00:2b:01:02:03' ], [ macaddr8 => '08:00:2b:01:02:03:04:05' ], [ 'bit(5)' => '10101' ], [ varbit => '', '1' ],
	[ tsvector => 'ä:1 b:2A' ], [ tsquery => '(ä & b) | !c' ], [ xml => '<a>ä</a>' ], [ pg_lsn => '1/A' ], [ tid => '(1,2)' ], [ xid => '7' ], [ xid8 => '77' ],
	[ bytea => '', '\x00ff10' ], [ date => '2026-11-23', 'infinity', '0044-03-15 BC' ], [ time => '23:59:59.5' ], [ timetz => '01:02:03+02:30' ],
	[ timestamp => '2026-11-23 10:00', '-infinity' ], [ timestamptz => '2026-11-23 10:00+01', 'infinity' ], [ interval => '1 year 2 mons -3 days 4:05:06.789' ],
	[ json => '{"a":  [1, "ä"]}' ], [ jsonb => '{"b": null, "a": [1.50, "ä"]}', '[]' ], [ jsonpath => '$.a[*] ? (@ > 1)' ],
	[ point => '(1,2)' ], [ box => '(1,2),(3,4)' ], [ path => '[(1,2),(3,4)]' ], [ polygon => '((1,2),(3,4))' ], [ circle => '<(1,2),3>' ], [ line => '{1,2,3}' ], [ lseg => '[(1,2),(3,4)]' ],
	[ int4range => '[1,5)', 'empty', '(,)' ], [ tstzrange => '[2026-01-01 00:00+00,)' ], [ span => '[2026-01-01 00:00+00,2026-01-02 00:00+00]' ], [ words => '[ä,ö)' ],
	[ nummultirange => '{[1.5,2),[3,4)}' ], [ int4multirange => '{}' ],
	[ 'int[]' => '{1,NULL,3}', '{}', '[0:1]={5,6}', '{{1,2},{3,4}}' ], [ 'text[]' => '{"ä b",NULL,""}' ], [ 'numeric[]' => '{1.5,NaN}' ], [ int2vector => '1 2 3' ], [ oidvector => '1 2' ],
	[ posint => '7' ], [ regclass => 'pg_class' ], [ regtype => 'integer' ], [ pg_snapshot => '10:20:10,14' ]);

sub typed_columns
{
	return map { my ($type, @of) = @$_; map { [ $type, $_ ] } @of } @values;
}

sub make_types
{
	my ($node, $table, %opt) = @_;
	my $dbname = $opt{dbname} || 'postgres';
	my @columns = typed_columns();

	$node->safe_psql($dbname, q{
	CREATE TYPE mood AS ENUM ('sad', 'glücklich');
	CREATE DOMAIN posint AS int CHECK (value > 0);
	CREATE DOMAIN posints AS posint[];
	CREATE TYPE inner_t AS (a int, "b c" text);
	CREATE TYPE outer_t AS (i inner_t, l inner_t[], d date, "q""uote" numeric);
	CREATE DOMAIN inner_d AS inner_t;
	CREATE TYPE span AS RANGE (subtype = timestamptz);
	CREATE TYPE words AS RANGE (subtype = text)});
	$node->safe_psql($dbname, "BEGIN; CREATE TABLE $table (id int PRIMARY KEY, " . join(', ', map { "c$_ $columns[$_][0]" } 0 .. $#columns) . ");
		ALTER TABLE $table REPLICA IDENTITY FULL;
		INSERT INTO $table VALUES (1, " . join(', ', map { "'" . $_->[1] =~ s/'/''/gr . "'" } @columns) . ");
		INSERT INTO $table (id) VALUES (2); COMMIT");
}

1;
