# Schema messages, keys and identities, TOAST, and rows that are too large.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgtDecoder;

my $node = decoder_node('schema');
my $db = 'postgres';

create_slot($node, 's');

sub fresh
{
	my ($sql, %options) = @_;
	take_slot($node, 's');
	$node->safe_psql($db, $sql);
	return events($node, 's', tables => '*', %options);
}

sub schemas
{
	return grep { $_->{op} eq 'schema' } @_;
}

# --- the message ---------------------------------------------------------------------------

my @e = fresh(q{
	CREATE SCHEMA "S p";
	CREATE TYPE "S p".pair AS (l int, r numeric(5,2));
	CREATE DOMAIN "S p".money_d AS numeric(10,2) NOT NULL;
	CREATE TYPE "S p".mood AS ENUM ('a');
	CREATE TABLE "S p".t (
		gone int, id bigint, "na""me" varchar(20) NOT NULL, at timestamptz(3), p "S p".pair,
		m "S p".money_d, e "S p".mood[], iv int2vector, PRIMARY KEY ("na""me", id));
	ALTER TABLE "S p".t DROP COLUMN gone;
	INSERT INTO "S p".t VALUES (1, 'x', now(), NULL, 1, NULL, NULL);
});
my ($schema) = schemas(@e);
is_deeply(
	$schema->{columns},
	[   { name => 'id', type => 'bigint', typmod => -1, not_null => JSON::PP::true, key => 2 },
		{ name => 'na"me', type => 'character varying(20)', typmod => 24, not_null => JSON::PP::true, key => 1 },
		{ name => 'at', type => 'timestamp(3) with time zone', typmod => 3, not_null => JSON::PP::false },
		{   name => 'p', type => '"S p".pair', typmod => -1, not_null => JSON::PP::false,
			fields => [
				{ name => 'l', type => 'integer', typmod => -1 },
				{ name => 'r', type => 'numeric(5,2)', typmod => 327686 }
			]
		},
		{ name => 'm', type => '"S p".money_d', typmod => -1, base => 'numeric(10,2)', not_null => JSON::PP::false },
		{ name => 'e', type => '"S p".mood[]', typmod => -1, not_null => JSON::PP::false },
		{ name => 'iv', type => 'int2vector', typmod => -1, not_null => JSON::PP::false },
	],
	'columns');
is_deeply([ @$schema{qw(t schema table previous)}, $schema->{key} ],
	[ '"S p".t', 'S p', 't', undef, [ 'na"me', 'id' ] ], 'names and key');
is_deeply((rows(@e))[0]{k}, { 'na"me' => 'x', id => 1 }, 'the key is in its own order');
my ($line) = grep { /"op":"schema"/ } read_slot($node, 's', tables => '*');
is(fnv1a($line =~ /("t":.*),"identity"/ ? $1 : ''), $schema->{schema_id},
	'schema_id is the hash of what the message says');

# --- when it comes ----------------------------------------------------------------------------

$node->safe_psql($db, 'CREATE TABLE a (id int PRIMARY KEY, v text)');

# [ what, SQL, schema messages, does the shape change ]
for my $case (
	[ 'nothing', 'INSERT INTO a VALUES (1)', 1, 0 ],
	[ 'ANALYZE', 'INSERT INTO a VALUES (2); ANALYZE a; VACUUM a; INSERT INTO a VALUES (3)', 1, 0 ],
	[ 'a trigger', 'INSERT INTO a VALUES (4); ALTER TABLE a SET (fillfactor = 70); INSERT INTO a VALUES (5)', 1, 0 ],
	[ 'a default', q{INSERT INTO a VALUES (6); ALTER TABLE a ALTER v SET DEFAULT 'x'; INSERT INTO a VALUES (7)}, 1, 0 ],
	[ 'ADD COLUMN', 'INSERT INTO a VALUES (8); ALTER TABLE a ADD w int; INSERT INTO a VALUES (9)', 2, 1 ],
	[ 'DROP COLUMN', 'INSERT INTO a VALUES (10); ALTER TABLE a DROP w; INSERT INTO a VALUES (11)', 2, 1 ],
	[ 'RENAME COLUMN', 'INSERT INTO a VALUES (12); ALTER TABLE a RENAME v TO u; INSERT INTO a VALUES (13)', 2, 1 ],
	[ 'ALTER TYPE', 'INSERT INTO a VALUES (14); ALTER TABLE a ALTER u TYPE varchar(9); INSERT INTO a VALUES (15)', 2, 1 ],
	[ 'SET NOT NULL', q{DELETE FROM a; INSERT INTO a VALUES (1, 'x'); ALTER TABLE a ALTER u SET NOT NULL; INSERT INTO a VALUES (2, 'x')}, 2, 1 ],
	[ 'another key', q{INSERT INTO a VALUES (16, 'y'); ALTER TABLE a DROP CONSTRAINT a_pkey, ADD PRIMARY KEY (u, id); INSERT INTO a VALUES (17, 'z')}, 2, 1 ],
	[ 'another identity', q{INSERT INTO a VALUES (18, 'y'); ALTER TABLE a REPLICA IDENTITY FULL; INSERT INTO a VALUES (19, 'z')}, 2, 0 ],
	[ 'RENAME TABLE', q{INSERT INTO a VALUES (20, 'y'); ALTER TABLE a RENAME TO b; INSERT INTO b VALUES (21, 'z')}, 2, 1 ],
	[ 'RENAME SCHEMA', q{CREATE SCHEMA s1; ALTER TABLE b SET SCHEMA s1; INSERT INTO s1.b VALUES (22, 'y'); ALTER SCHEMA s1 RENAME TO s2; INSERT INTO s2.b VALUES (23, 'z')}, 2, 1 ])
{
	my ($what, $sql, $count, $changes) = @$case;
	my @s = schemas(fresh($sql));

	is(scalar @s, $count, "$what: schema messages");
	next unless @s == 2;
	is($s[1]{previous}, $s[0]{schema_id}, "$what: previous");
	is($s[1]{schema_id} ne $s[0]{schema_id} ? 1 : 0, $changes, "$what: another shape?");
}

# The same statements in one transaction: each row in the shape of its moment.
@e = fresh(q{
	CREATE TABLE tx (id int PRIMARY KEY);
	BEGIN; INSERT INTO tx VALUES (1); ALTER TABLE tx ADD v text; INSERT INTO tx VALUES (2, 'x');
	ALTER TABLE tx RENAME v TO w; INSERT INTO tx VALUES (3, 'y'); UPDATE tx SET w = 'q' WHERE id = 1; COMMIT;});
is_deeply([ map { $_->{a} } rows(@e) ],
	[ { id => 1 }, { id => 2, v => 'x' }, { id => 3, w => 'y' }, { id => 1, w => 'q' } ],
	'DDL within a transaction');
is(scalar(schemas(@e)), 3, 'with a schema message for each shape');
is((grep { $_->{op} eq 'commit' } @e)[0]{rows}{'public.tx'}, 4, 'and all counted as one table');

@e = fresh(q{CREATE TABLE fast (id int PRIMARY KEY); ALTER TABLE fast REPLICA IDENTITY FULL;
	INSERT INTO fast VALUES (1); ALTER TABLE fast ADD v text DEFAULT 'was', ADD n int; UPDATE fast SET id = 2;});
is_deeply((rows(@e))[1]{b}, { id => 1, v => 'was', n => undef }, 'columns added with a default that rows do not store');

@e = fresh(q{
	CREATE TYPE comp AS (x int);
	CREATE TYPE mood AS ENUM ('sad');
	CREATE TABLE ct (id int PRIMARY KEY, c comp, m mood);
	INSERT INTO ct VALUES (1, ROW(1), 'sad');
	ALTER TYPE comp ADD ATTRIBUTE y text;
	INSERT INTO ct VALUES (2, ROW(1, 'new'), 'sad');
	ALTER TYPE comp RENAME ATTRIBUTE y TO z;
	INSERT INTO ct VALUES (3, ROW(1, 'new'), 'sad');
	ALTER TYPE mood RENAME TO feeling;
	INSERT INTO ct VALUES (4, ROW(1, 'new'), 'sad');
	ALTER TYPE feeling RENAME VALUE 'sad' TO 'blue';
	INSERT INTO ct VALUES (5, ROW(1, 'new'), 'blue');
	ALTER TYPE comp SET SCHEMA s2;
	INSERT INTO ct VALUES (6, ROW(1, 'new'), 'blue');
	});
is_deeply([ map { $_->{a}{c} } rows(@e) ],
	[ { x => 1 }, { x => 1, y => 'new' }, map { { x => 1, z => 'new' } } 1 .. 4 ], 'composite types change under a table');
is_deeply([ map { $_->{a}{m} } rows(@e) ], [ ('sad') x 4, ('blue') x 2 ], 'enum labels, too');
is(scalar(schemas(@e)), 5, 'the shape follows');

@e = fresh(q{
	CREATE TABLE again (id int PRIMARY KEY); INSERT INTO again VALUES (1); DROP TABLE again;
	CREATE TABLE again (id int PRIMARY KEY); INSERT INTO again VALUES (1);});
my @s = schemas(@e);
is(scalar @s, 2, 'a table dropped and made again is announced again');
is($s[0]{schema_id}, $s[1]{schema_id}, 'with the same id, since the shape is the same');

# 300 tables that come and go: more than the cache keeps details of.
my $sql = join '', map { "CREATE TABLE g$_ (id int); INSERT INTO g$_ VALUES ($_); DROP TABLE g$_; INSERT INTO tx VALUES (1000 + $_);\n" } 1 .. 300;
@e = fresh($sql);
is(scalar(rows(@e)), 600, 'many tables come and go');
is(scalar(schemas(@e)), 301, 'and none is described twice');

# --- keys and identities ----------------------------------------------------------------------

# [ what, definition, identity, key, k b of an update of v, k b of a delete, k of a key update ]
my $n = 0;
for my $case (
	[ 'default, primary key', 'id int PRIMARY KEY, v text', '', 'key', [ 'id' ], undef, { id => 1 } ],
	[ 'full, primary key', 'id int PRIMARY KEY, v text', 'FULL', 'full', [ 'id' ], { id => 1, v => 'x' }, { id => 1, v => 'y' } ],
	[ 'full, no key', 'id int, v text', 'FULL', 'full', [], { id => 1, v => 'x' }, { id => 1, v => 'y' } ],
	[ 'default, no key', 'id int, v text', '', 'none', [], undef, undef ],
	[ 'nothing, primary key', 'id int PRIMARY KEY, v text', 'NOTHING', 'none', [ 'id' ], undef, undef ],
	[ 'index', 'id int NOT NULL, v text, CONSTRAINT %s_i UNIQUE (id)', 'USING INDEX %s_i', 'key', [ 'id' ], undef, { id => 1 } ],
	[ 'index beside a primary key', 'id int NOT NULL, v text, p int DEFAULT 5 PRIMARY KEY, CONSTRAINT %s_i UNIQUE (id)', 'USING INDEX %s_i', 'key', [ 'id' ], undef, { id => 1 } ],
	[ 'unique, nulls not distinct', 'id int, v text, CONSTRAINT %s_i UNIQUE NULLS NOT DISTINCT (id)', 'FULL', 'full', [ 'id' ], { id => 1, v => 'x' }, { id => 1, v => 'y' } ],
	[ 'unique, nulls distinct', 'id int, v text, CONSTRAINT %s_i UNIQUE (id)', 'FULL', 'full', [], { id => 1, v => 'x' }, { id => 1, v => 'y' } ],
	[ 'deferrable', 'id int NOT NULL, v text, CONSTRAINT %s_i UNIQUE (id) DEFERRABLE', 'FULL', 'full', [], { id => 1, v => 'x' }, { id => 1, v => 'y' } ],
	[ 'two unique keys', 'id int NOT NULL, v text NOT NULL, CONSTRAINT %s_a UNIQUE (v, id), CONSTRAINT %s_i UNIQUE (id)', 'FULL', 'full', [ 'id' ], { id => 1, v => 'x' }, { id => 1, v => 'y' } ])
{
	my ($what, $columns, $identity, $identity_name, $key, $before_u, $before_d) = @$case;
	my $t = 'k' . ++$n;

	s/%s/$t/g for $columns, $identity;
	$node->safe_psql($db, "CREATE TABLE $t ($columns)" . ($identity ne '' ? "; ALTER TABLE $t REPLICA IDENTITY $identity" : ''));
	@e = fresh("INSERT INTO $t VALUES (1, 'x'); UPDATE $t SET v = 'y'; DELETE FROM $t");
	($schema) = schemas(@e);
	is($schema->{identity}, $identity_name, "$what: identity");
	is_deeply($schema->{key}, $key, "$what: key");

	my ($c, $u, $d) = rows(@e);
	my $k = @$key ? { id => 1 } : undef;
	is_deeply($c->{k}, $k, "$what: key of an insert");
	is_deeply($u->{k}, $k, "$what: key of an update");
	is_deeply($u->{b}, $before_u, "$what: old image of an update");
	is_deeply($d->{b}, $before_d, "$what: old image of a delete");
	is_deeply($d->{k}, defined $before_d ? $k : undef, "$what: key of a delete");
}
@e = fresh('INSERT INTO k1 VALUES (1); UPDATE k1 SET id = 2');
is_deeply([ @{ (rows(@e))[1] }{qw(k b)}, (rows(@e))[1]{a}{id} ], [ { id => 1 }, { id => 1 }, 2 ],
	'an update of the key: k is the old one');

@e = fresh('CREATE TABLE nocols (); INSERT INTO nocols DEFAULT VALUES');
is_deeply((rows(@e))[0]{a}, {}, 'a table without columns');
@e = fresh('CREATE TABLE gen (id int PRIMARY KEY, d int GENERATED ALWAYS AS (id * 2) STORED); INSERT INTO gen VALUES (4)');
is_deeply((rows(@e))[0]{a}, { id => 4, d => 8 }, 'a stored generated column');
@e = fresh('CREATE TABLE par (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE par1 PARTITION OF par FOR VALUES FROM (0) TO (10); INSERT INTO par VALUES (4)');
is((rows(@e))[0]{t}, 'public.par1', 'a partition has its own name');

# --- TOAST ------------------------------------------------------------------------------------

$node->safe_psql($db, q{
	CREATE TABLE big (id int PRIMARY KEY, small int, v text, w text, j jsonb, a text[]);
	ALTER TABLE big ALTER v SET STORAGE EXTERNAL, ALTER w SET STORAGE EXTERNAL, ALTER a SET STORAGE EXTERNAL;});
my $values = q{repeat('v', 9000), 'w', jsonb_build_array(repeat(md5('1'), 900)), ARRAY[repeat('a', 5000), 'x']};
@e = fresh("INSERT INTO big VALUES (1, 1, $values); UPDATE big SET small = 2; UPDATE big SET w = repeat('W', 5000); UPDATE big SET small = 3; UPDATE big SET v = NULL");
my @r = rows(@e);
is($r[0]{a}{v}, 'v' x 9000, 'large values come whole');
is(length $r[0]{a}{a}[0], 5000, 'in arrays, too');
is_deeply([ $r[1]{unchanged}, [ sort keys %{ $r[1]{a} } ] ], [ [ 'v', 'a' ], [qw(id j small w)] ],
	'what an update left alone is left out, and named');
is($r[2]{a}{w}, 'W' x 5000, 'what it changed is there');
is_deeply($r[3]{unchanged}, [qw(v w a)], 'the next time it is not');
is_deeply([ $r[4]{unchanged}, exists $r[4]{a}{v}, $r[4]{a}{v} ], [ [qw(w a)], 1, undef ], 'NULL is not unchanged');
ok(!exists $r[0]{unchanged}, 'nothing to name: no member');
@r = rows(events($node, 's', tables => 'public.big', envelope => 'debezium'));
is_deeply([ $r[1]{unchanged}, exists $r[1]{after}{v} ], [ [ 'v', 'a' ], '' ], 'the same in debezium');

$node->safe_psql($db, 'ALTER TABLE big REPLICA IDENTITY FULL; UPDATE big SET v = repeat(\'v\', 9000)');
@e = fresh("UPDATE big SET small = 4");
@r = rows(@e);
is($r[0]{a}{v}, 'v' x 9000, 'under FULL, the old row has it');
is($r[0]{b}{v}, 'v' x 9000, 'and shows it');
ok(!exists $r[0]{unchanged}, 'so nothing is unchanged');

@e = fresh("CREATE TABLE lk (k text PRIMARY KEY, n int); ALTER TABLE lk ALTER k SET STORAGE EXTERNAL;
	INSERT INTO lk VALUES (repeat('k', 2500), 1); UPDATE lk SET n = 2; DELETE FROM lk");
@r = rows(@e);
is(length $r[1]{k}{k}, 2500, 'a large key is always there');
is(length $r[2]{k}{k}, 2500, 'in deletes, too');

# --- too large -------------------------------------------------------------------------------

$node->safe_psql($db, q{CREATE TABLE huge (id int PRIMARY KEY, v text, w text, b bytea, j jsonb, n text[]); ALTER TABLE huge REPLICA IDENTITY FULL});
take_slot($node, 's');
$node->safe_psql($db, q{
	INSERT INTO huge VALUES (1, repeat('x', 20000), 'w', NULL, '{}', NULL);
	INSERT INTO huge VALUES (2, repeat(E'\x01', 5000), repeat('y', 100), NULL, NULL, ARRAY[repeat('z', 30000)]);
	INSERT INTO huge VALUES (3, 'v', 'w', decode(repeat('00', 15000), 'hex'), jsonb_build_object('k', repeat('j', 20000)), '{}');
	UPDATE huge SET w = 'W' WHERE id = 1;
	DELETE FROM huge WHERE id = 1;
	SELECT pg_logical_emit_message(true, 'm', repeat('m', 30000));});
my @limit = (tables => 'public.huge', max_message_bytes => 16000);
my $error = read_error($node, 's', @limit);
like($error, qr/ERROR:  54000: row or message is too large for one message of pg_trickle_decoder/, 'oversize=error');
like($error, qr/at most 16000 bytes.*HINT:  Set the option "oversize" to "omit".*raise "max_message_bytes"/s, 'says what to do');
like($error, qr/table "public\.huge"/, 'and where');
for my $envelope (qw(compact debezium))
{
	my @lines = read_slot($node, 's', @limit, oversize => 'omit', messages => 'm', envelope => $envelope);
	my ($a, $b) = $envelope eq 'compact' ? ('a', 'b') : ('after', 'before');

	is(scalar(grep { length > 16000 } @lines), 0, "$envelope, oversize=omit: no line is longer than allowed");
	@r = rows(map { event($_) } @lines);
	is_deeply([ $r[0]{oversize}, $r[0]{$a} ], [ ['v'], { id => 1, v => undef, w => 'w', b => undef, j => $envelope eq 'compact' ? {} : '{}', n => undef } ], "$envelope: one value");
	is_deeply([ $r[1]{oversize}, $r[1]{$a}{w} ], [ [ 'v', 'n' ], 'y' x 100 ], "$envelope: escaped, and nested");
	is_deeply([ $r[2]{oversize}, $r[2]{$a}{v} ], [ [ 'b', 'j' ], 'v' ], "$envelope: bytea and jsonb");
	is_deeply([ $r[3]{oversize}, $r[3]{$b}{w}, $r[3]{$a}{w} ], [ ['v'], 'w', 'W' ], "$envelope: in both images");
	is_deeply([ $r[4]{oversize}, $r[4]{$b}{id} ], [ ['v'], 1 ], "$envelope: of a delete");
	my ($m) = grep { $_->{op} eq 'message' } map { event($_) } @lines;
	is_deeply([ $m->{oversize}, $m->{content} ], [ JSON::PP::true, undef ], "$envelope: a message");
}
@r = rows(events($node, 's', tables => 'public.huge', max_message_bytes => 1024, oversize => 'omit'));
is_deeply($r[2]{oversize}, [qw(id v w b j n)], 'even the smallest limit wedges nothing');

# Names alone can be more than that.
my $columns = join ', ', map { sprintf 'a_rather_long_name_for_a_column_%03d int', $_ } 1 .. 100;
@e = fresh("CREATE TABLE wide (id int PRIMARY KEY, $columns); INSERT INTO wide VALUES (1, 2)", max_message_bytes => 1024, oversize => 'omit');
is_deeply([ (map { $_->{op} } @e), scalar keys %{ (rows(@e))[0]{a} } ], [ qw(hello begin schema c commit), 101 ], 'names alone may be more than that');
is((rows(@e))[0]{oversize}[0], 'id', 'values then are left out');

# Exactly what fits, fits: the limit is that of the line.
take_slot($node, 's');
$node->safe_psql($db, q{INSERT INTO huge SELECT 10 + g, repeat('x', 12000 + 200 * g) FROM generate_series(1, 20) g});
my @sizes = map { [ length, /"oversize"/ ? 1 : 0 ] } grep { /"op":"c"/ } read_slot($node, 's', @limit, oversize => 'omit');
is(scalar(grep { $_->[1] } @sizes) > 0 && scalar(grep { !$_->[1] } @sizes) > 0, 1, 'around the limit');
is(scalar(grep { $_->[0] > 16000 } @sizes), 0, 'it is kept');

# A jsonb whose text cannot be made at all: a slot must not stop at it for ever.
SKIP:
{
	skip 'takes gigabytes', 9 unless ($ENV{PG_TEST_EXTRA} || '') =~ /large/;
	take_slot($node, 's');

	# A value of nearly 1 GB, as far as each format takes it: sizes and checksums, counted by the server.
	$node->safe_psql($db, q{CREATE TABLE giant (id int PRIMARY KEY, v text); ALTER TABLE giant ALTER v SET STORAGE EXTERNAL});
	$node->safe_psql($db, q{INSERT INTO giant VALUES (1, repeat('x', 1000000000))});
	for my $format ([ format => 'json' ], [ format => 'binary' ])
	{
		my $sizes = $node->safe_psql($db, qq{SELECT string_agg((length(data) / 1000000)::text, ' ') FROM pg_logical_slot_peek_binary_changes('s', NULL, NULL, 'tables', 'public.giant', '$format->[0]', '$format->[1]')});
		is($sizes, '0 0 0 1000 0', "@$format: 1,000,000,000 characters");
	}
	is($node->safe_psql($db, q{CREATE FUNCTION snapshot_rows_binary(text, pg_lsn, VARIADIC text[]) RETURNS SETOF bytea LANGUAGE c STABLE AS '$libdir/pg_trickle_decoder', 'pgtd_snapshot_rows_binary';
		SELECT string_agg((length(m) / 1000000)::text, ' ') FROM (SELECT snapshot_rows_binary('giant', '0/0', 'envelope', 'compact') AS m) q}), '0 1000', 'the same in a snapshot');
	$node->safe_psql($db, 'UPDATE giant SET id = 2');
	is((rows(events($node, 's', tables => 'public.giant', oversize => 'omit', max_message_bytes => 1000000)))[1]{unchanged}[0], 'v', 'left alone, it is not sent');
	$node->safe_psql($db, q{TRUNCATE giant});
	take_slot($node, 's', tables => 'public.none');
	# Escaped, it would need 6 GB.
	$node->safe_psql($db, q{INSERT INTO giant VALUES (3, repeat(chr(1), 1000000000))});
	like(read_error($node, 's', tables => 'public.giant'), qr/54000.*too large for one message/s, 'what escaping makes too large');
	is_deeply((rows(events($node, 's', tables => 'public.giant', oversize => 'omit')))[0]{oversize}, ['v'], 'is left out');
	$node->safe_psql($db, q{DROP TABLE giant});
	take_slot($node, 's', tables => 'public.none');
	is(scalar(events($node, 's', tables => 'public.giant')), 0, 'and no slot is stuck');

	$node->safe_psql($db, q{INSERT INTO huge (id, j) SELECT 99, jsonb_agg(('1e130000')::jsonb) FROM generate_series(1, 9000)});
	@r = rows(events($node, 's', tables => 'public.huge', oversize => 'omit'));
	is_deeply($r[0]{oversize}, ['j'], 'a small jsonb of immense text');
	like(read_error($node, 's', tables => 'public.huge'), qr/too large for one message/, 'or the error that says so');
}

$node->stop;
done_testing();
