# What comes out of a transaction: which messages, in which order, at which position.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgtDecoder;

my $node = decoder_node('transactions');
my $db = 'postgres';

# One table that a "refresh" writes, one that is its source.
$node->safe_psql($db, q{
	CREATE TABLE st (dept int PRIMARY KEY, total numeric);
	ALTER TABLE st REPLICA IDENTITY FULL;
	CREATE TABLE st2 (x int);
	ALTER TABLE st2 REPLICA IDENTITY FULL;
	CREATE TABLE src (id int PRIMARY KEY, dept int, amount numeric);
	CREATE TABLE "Odd ""one" ("Ke y" int PRIMARY KEY, v text);
	ALTER TABLE "Odd ""one" REPLICA IDENTITY FULL;
});
create_slot($node, 's');

sub ops
{
	return join ' ', map { $_->{op} eq 'refresh' ? "refresh-$_->{phase}" : $_->{op} } @_;
}

# --- a refresh ---------------------------------------------------------------------------

$node->safe_psql($db, 'BEGIN; INSERT INTO src VALUES (1, 7, 120.5); '
	  . open_refresh('public.st', id => 1842, mode => 'DIFFERENTIAL', frontier => '10:20:10,15', data_ts => 1795389790011234)
	  . 'INSERT INTO st VALUES (7, 120.50), (8, 1); UPDATE st SET total = 131.00 WHERE dept = 7; DELETE FROM st WHERE dept = 8; '
	  . close_refresh('public.st', id => 1842, ins => 2, upd => 1, del => 1)
	  . 'COMMIT;');

my @e = events($node, 's');
is(ops(@e), 'hello begin refresh-begin schema c c u d refresh-end commit', 'the messages of a refresh');
my ($hello, $begin, $open, $schema) = @e[ 0 .. 3 ];
my ($close, $commit) = @e[ -2, -1 ];

is_deeply(
	[ @$hello{qw(format format_version envelope plugin db encoding)} ],
	[ 'json', 1, 'compact', 'pg_trickle_decoder', 'postgres', 'UTF8' ],
	'hello');
is($hello->{system_id},
	$node->safe_psql($db, 'SELECT system_identifier FROM pg_control_system()'), 'hello: system id');
is($hello->{server_version}, $node->safe_psql($db, 'SHOW server_version_num'), 'hello: server');
is($hello->{plugin_version},
	(split /'/, `grep ^default_version sql/pg_trickle.control`)[1], 'hello: version of the plugin');

like($begin->{commit_lsn}, qr{\A[0-9A-F]+/[0-9A-F]+\z}, 'begin: LSN');
ok(!exists $begin->{origin}, 'begin: a local transaction has no origin');
is_deeply(
	{ %$open, p => undef },
	{   op => 'refresh', phase => 'begin', t => 'public.st', id => 1842, mode => 'DIFFERENTIAL',
		frontier => '10:20:10,15', data_ts => 1795389790011234, p => undef
	},
	'the opening message');
is_deeply(
	{ %$close, p => undef },
	{   op => 'refresh', phase => 'end', t => 'public.st', id => 1842, inserted => 2, updated => 1,
		deleted => 1, p => undef
	},
	'the closing message');
is_deeply($commit->{rows}, { 'public.st' => 4 }, 'commit counts rows');
is_deeply([ @$commit{qw(xid commit_lsn end_lsn ts)} ], [ @$begin{qw(xid commit_lsn end_lsn ts)} ],
	'begin and commit agree');

my @r = rows(@e);
is_deeply([ map { $_->{p}[1] } @r ], [ 3, 4, 5, 6 ],
	'seq counts the source row and the message before, which were not sent');
is_deeply([ $open->{p}[1], $close->{p}[1] ], [ 2, 7 ], 'and the messages themselves');
is(scalar(grep { $_->{p}[0] eq $commit->{commit_lsn} } @r), 4, 'and belongs to the commit LSN');
is_deeply(
	{ %{ $r[2] }, p => undef, ts => undef, s => undef },
	{   v => 1, op => 'u', t => 'public.st', s => undef, k => { dept => 7 },
		b => { dept => 7, total => '120.50' },
		a => { dept => 7, total => '131.00' },
		p => undef, ts => undef
	},
	'an update');
is_deeply([ sort keys %{ $r[0] } ], [ sort qw(v op t s k a p ts) ], 'an insert has no old image');
is_deeply([ sort keys %{ $r[3] } ], [ sort qw(v op t s k b p ts) ], 'a delete has no new one');
is($r[0]{s}, $schema->{schema_id}, 'rows name their schema');
is($r[0]{ts}, $begin->{ts}, 'time is that of the commit');

my @d = rows(events($node, 's', envelope => 'debezium'));
my ($u) = $d[2];
is_deeply($u->{before}, { dept => 7, total => '120.50' }, 'debezium: before');
is_deeply($u->{after}, { dept => 7, total => '131.00' }, 'debezium: after');
is($d[0]{before}, undef, 'debezium: an insert has before null');
is($d[3]{after}, undef, 'debezium: a delete has after null');
my $commit_lsn = $node->safe_psql($db, "SELECT '$commit->{commit_lsn}'::pg_lsn - '0/0'");
is_deeply(
	{ %{ $u->{source} }, version => undef },
	{   version => undef, connector => 'pg_trickle', name => 'postgres', ts_ms => int($begin->{ts} / 1000),
		snapshot => 'false', db => 'postgres', sequence => qq{["$commit_lsn","$u->{source}{lsn}"]},
		schema => 'public', table => 'st', txId => $begin->{xid}, lsn => $u->{source}{lsn}, xmin => undef,
		commit_lsn => $commit_lsn, seq => 5, schema_id => $schema->{schema_id},
		refresh => { id => 1842, mode => 'DIFFERENTIAL', frontier => '10:20:10,15' }
	},
	'debezium: source');
ok($u->{source}{lsn} < $commit_lsn, 'debezium: the LSN of the change');
is_deeply($u->{transaction},
	{ id => "$begin->{xid}:$commit_lsn", total_order => 5, data_collection_order => 3 },
	'debezium: transaction');
is_deeply([ $u->{op}, $u->{ts_ms} ], [ 'u', int($begin->{ts} / 1000) ], 'debezium: op and ts_ms');

is(ops(events($node, 's', include_refresh => 'off')), 'hello begin schema c c u d commit',
	'include_refresh=off');
my ($plain) = rows(events($node, 's', include_refresh => 'off', envelope => 'debezium'));
ok(!exists $plain->{source}{refresh}, 'also in source');
is(ops(events($node, 's', exclude_tables => 'public.st')), '', 'an excluded stream table leaves nothing');
is_deeply(
	[ map { [ $_->{t}, $_->{p}[1] ] } rows(events($node, 's', tables => '*', exclude_tables => 'public.st')) ],
	[ [ 'public.src', 1 ] ],
	'positions do not depend on the filter');
is_deeply([ map { $_->{p}[1] } rows(events($node, 's', tables => '*')) ], [ 1, 3, 4, 5, 6 ],
	'whatever it is');
is_deeply({ map { %{ $_->{rows} } } grep { $_->{op} eq 'commit' } events($node, 's', tables => '*') },
	{ 'public.st' => 4, 'public.src' => 1 }, 'commit counts the rows of each table');

# --- what is a row of a stream table ------------------------------------------------------------

sub fresh
{
	my ($sql, %options) = @_;
	take_slot($node, 's');
	$node->safe_psql($db, $sql);
	return events($node, 's', %options);
}

is(ops(fresh('INSERT INTO st VALUES (100, 1)')), '', 'a write without an announcement is not one');
is(ops(fresh('BEGIN; INSERT INTO st VALUES (101, 1); ' . open_refresh('public.st') . 'COMMIT')),
	'hello begin refresh-begin commit', 'nor is one before it');
is(ops(fresh(open_refresh('public.st') . '; INSERT INTO st VALUES (102, 1)')),
	'hello begin refresh-begin commit', 'nor in the next transaction');
is(ops(fresh('SELECT 1')), '', 'nothing at all: nothing, not even hello');
is(ops(fresh('CREATE TABLE ddl (x int); INSERT INTO src VALUES (2); DROP TABLE ddl')), '', 'empty transactions are not mentioned');

@e = fresh('BEGIN; '
	  . open_refresh('public.st', id => 1) . 'INSERT INTO st VALUES (1, 1); '
	  . open_refresh('public.st2', id => 2) . 'INSERT INTO st2 VALUES (1); '
	  . 'INSERT INTO st VALUES (2, 1); ' . close_refresh('public.st2', id => 2)
	  . close_refresh('public.st', id => 1)
	  . open_refresh('public.st', id => 3) . 'DELETE FROM st WHERE dept < 3; '
	  . close_refresh('public.st', id => 3) . 'COMMIT',
	envelope => 'debezium');
is( ops(@e),
	'hello begin refresh-begin schema c refresh-begin schema c c refresh-end refresh-end refresh-begin d d refresh-end commit',
	'several refreshes, nested and again, in one transaction');
is(join(' ', map { $_->{source}{refresh}{id} } rows(@e)), '1 2 1 3 3', 'each row has its own');
is(join(' ', map { $_->{id} } grep { $_->{op} eq 'refresh' } @e), '1 2 2 1 3 3', 'and each end');
is(join(' ', map { $_->{transaction}{data_collection_order} } rows(@e)), '1 1 2 3 4',
	'data_collection_order counts by table');

is(ops(fresh('BEGIN; SAVEPOINT a; ' . open_refresh('public.st') . 'INSERT INTO st VALUES (5, 1); ROLLBACK TO a; INSERT INTO st VALUES (6, 1); COMMIT')),
	'', 'an announcement that is rolled back does not count');
@e = fresh('BEGIN; ' . open_refresh('public.st')
	  . 'SAVEPOINT a; INSERT INTO st VALUES (10, 1); ROLLBACK TO a; SAVEPOINT b; INSERT INTO st VALUES (11, 1); RELEASE b; INSERT INTO st VALUES (12, 1); COMMIT');
is_deeply([ map { [ $_->{a}{dept}, $_->{p}[1] ] } rows(@e) ], [ [ 11, 2 ], [ 12, 3 ] ],
	'subtransactions: what was rolled back has no position');

# --- order -----------------------------------------------------------------------------------

# Two transactions that interleave come one after the other, in the order of their commits.
take_slot($node, 's');
my ($one, $two) = map { session($node) } 1 .. 2;
$one->query_safe('BEGIN; INSERT INTO src VALUES (1001)');
$two->query_safe('BEGIN; INSERT INTO src VALUES (1002)');
$one->query_safe('INSERT INTO src VALUES (1003)');
$two->query_safe('INSERT INTO src VALUES (1004); COMMIT');
$one->query_safe('COMMIT');
$_->quit for $one, $two;
@e = events($node, 's', tables => '*');
is(join(' ', map { $_->{a}{id} } rows(@e)), '1002 1004 1001 1003', 'transactions come whole');
is(join(' ', map { $_->{p}[1] } rows(@e)), '1 2 1 2', 'each counts from 1');

@e = fresh("COPY src FROM stdin;\n2001\t1\t1\n2002\t1\t1\n2003\t1\t1\n\\.\n", tables => '*', envelope => 'debezium');
is(scalar(keys %{ { map { $_->{source}{lsn} => 1 } rows(@e) } }), 1, 'rows of a COPY share one LSN');
is(join(' ', map { $_->{source}{seq} } rows(@e)), '1 2 3', 'but not their position');

my %seen;
my @previous = (0, 0);
my $in_order = 1;
$node->safe_psql($db, "INSERT INTO src SELECT g FROM generate_series($_ * 100, $_ * 100 + 40) g; UPDATE src SET dept = 1 WHERE id % 100 < 10;") for 50 .. 55;
for my $row (rows(events($node, 's', tables => '*', envelope => 'debezium')))
{
	my @position = @{ $row->{source} }{qw(commit_lsn seq)};
	$in_order &&= $position[0] > $previous[0] || ($position[0] == $previous[0] && $position[1] > $previous[1]);
	$in_order &&= !$seen{"@position"}++;
	@previous = @position;
}
ok($in_order && keys %seen > 240, 'positions rise strictly');

@e = fresh('INSERT INTO st VALUES (9000, 1) ON CONFLICT DO NOTHING; INSERT INTO st VALUES (9000, 2), (9001, 2) ON CONFLICT (dept) DO UPDATE SET total = 3', tables => 'public.st');
is(join(' ', map { "$_->{op}$_->{a}{dept}" } rows(@e)), 'c9000 u9000 c9001', 'ON CONFLICT');

# --- TRUNCATE ----------------------------------------------------------------------------------

@e = fresh('BEGIN; TRUNCATE src, st2; INSERT INTO src VALUES (1); COMMIT', tables => 'public.src');
is(ops(@e), 'hello begin schema t c commit', 'TRUNCATE of a kept table');
is_deeply([ map { $_->{t} } rows(@e) ], [ 'public.src', 'public.src' ], 'and of no other');
@e = fresh('TRUNCATE src, st2', tables => 'public.*', envelope => 'debezium');
is_deeply([ map { [ $_->{source}{table}, $_->{source}{seq}, $_->{before}, $_->{after} ] } rows(@e) ],
	[ [ 'src', 1, undef, undef ], [ 'st2', 2, undef, undef ] ], 'of two tables: two positions');

# --- names -------------------------------------------------------------------------------------

@e = fresh('BEGIN; ' . open_refresh('public."Odd ""one"', name => 'Odd "one')
	  . q{INSERT INTO "Odd ""one" VALUES (1, 'x'); COMMIT});
is($e[2]{t}, 'public."Odd ""one"', 'names are quoted where they must be');
is($e[4]{t}, $e[2]{t}, 'the same in rows');
is($e[3]{table}, 'Odd "one', 'and plain in the schema');
is_deeply($e[4]{k}, { 'Ke y' => 1 }, 'members are the plain names of columns');
is_deeply($e[-1]{rows}, { 'public."Odd ""one"' => 1 }, 'also in commit');

# --- other messages -----------------------------------------------------------------------------

my $messages = q{
	SELECT pg_logical_emit_message(false, 'app', 'outside');
	BEGIN;
	INSERT INTO src VALUES (10);
	SELECT pg_logical_emit_message(true, 'app.x', E'line\nfeed "ä"');
	SELECT pg_logical_emit_message(true, 'other', '\x00ff'::bytea);
	COMMIT;
	SELECT pg_logical_emit_message(false, 'pg_trickle.hb', '1795389790011234');
	SELECT pg_logical_emit_message(false, 'pg_trickle.hb', 'yesterday');
	SELECT pg_logical_emit_message(true, 'pg_trickle.hb', '');
};
@e = fresh($messages);
is(ops(@e), 'hello heartbeat heartbeat heartbeat', 'heartbeats come without asking, messages do not');
is_deeply([ map { $_->{ts} } @e[ 1 .. 3 ] ], [ 1795389790011234, undef, undef ], 'with the time that they have');
ok($e[1]{lsn} ne $e[2]{lsn}, 'and an LSN');

@e = events($node, 's', messages => 'app, other');
is(ops(@e), 'hello message begin message commit heartbeat heartbeat heartbeat', 'exact prefixes');
is_deeply([ @{ $e[1] }{qw(prefix transactional content)} ], [ 'app', JSON::PP::false, 'outside' ],
	'a message outside of transactions');
ok(!exists $e[1]{p}, 'it has no position');
is($e[3]{content_base64}, 'AP8=', 'what is not text comes as base64');
is($e[3]{p}[1], 3, 'and has a position');
@e = events($node, 's', messages => 'app*');
is(ops(@e), 'hello message begin message commit heartbeat heartbeat heartbeat', 'prefixes with *');
is($e[3]{content}, qq{line\nfeed "\x{e4}"}, 'text');
is(ops(events($node, 's', messages => '*', tables => '*')),
	'hello message begin schema c message message commit heartbeat heartbeat heartbeat', 'all, between rows');

# --- messages that are not ours --------------------------------------------------------------------

my $log = -s $node->logfile;
@e = fresh('BEGIN; '
	  . emit_bytes('pg_trickle', '') . emit_bytes('pg_trickle', "\x01O") . emit_bytes('pg_trickle', "\x02Oabcdefgh" x 8)
	  . emit_bytes('pg_trickle', "\x01O" . ("\xff" x 100)) . emit_bytes('pg_trickle', "\x01C" . ("\x00" x 36))
	  . emit_bytes('pg_trickle', "\x01O" . pack('N q>q> N a1 N a1 N a1 N a1', 1, 1, 1, 1, "\xe4", 1, 'x', 1, 'x', 1, 'x'))
	  . emit_bytes('pg_trickle', 'hello', transactional => 0)
	  . close_refresh('public.st', id => 99)
	  . open_refresh('public.st') . 'INSERT INTO st VALUES (500, 1); COMMIT');
is(ops(@e), 'hello begin refresh-begin schema c commit', 'garbage under our prefix is ignored');
is((rows(@e))[0]{p}[1], 9, 'but has positions, like every message');
is(() = PostgreSQL::Test::Utils::slurp_file($node->logfile, $log) =~ /LOG:  ignoring a logical message with prefix "pg_trickle" that is not/g,
	8, 'and is logged');
is(ops(grep { $_->{op} eq 'message' } events($node, 's', messages => '*')), '', 'messages=* does not show it');
is(scalar(grep { $_->{op} eq 'message' } events($node, 's', messages => 'pg_trickle')), 8,
	'who asks for the prefix itself sees it as it is');

srand(20261123);
my $noise = '';
for my $round (1 .. 300)
{
	my $bytes = pack('C*', 1, ord(qw(O C)[ rand 2 ]), map { int rand(4) ? 0 : int rand 256 } 1 .. rand 90);
	$noise .= emit_bytes('pg_trickle', $bytes);
}
@e = fresh("BEGIN; $noise" . open_refresh('public.st') . 'INSERT INTO st VALUES (501, 1); COMMIT');
is((rows(@e))[0]{p}[1], 302, 'random bytes do no harm');

is(ops(fresh(open_refresh('public.st', schema => 'no such', name => 'ta"ble'))),
	'hello begin refresh-begin commit', 'an announcement of what does not exist is passed on');

# --- many skipped changes ---------------------------------------------------------------------------

take_slot($node, 's');
$node->safe_psql($db, 'BEGIN; INSERT INTO src SELECT g FROM generate_series(100000, 103000) g; '
	  . open_refresh('public.st') . 'INSERT INTO st VALUES (600, 1); COMMIT');
is((rows(events($node, 's')))[0]{p}[1], 3003, 'skipped changes count');

# --- undone, and too large to be kept in memory -------------------------------------------------------

take_slot($node, 's');
$node->safe_psql($db, q{BEGIN; SAVEPOINT a; INSERT INTO src VALUES (200000); RELEASE a; INSERT INTO src SELECT g FROM generate_series(210000, 213000) g;
	ROLLBACK; INSERT INTO src VALUES (300000); });
is(join(' ', map { $_->{a}{id} } rows(events($node, 's', tables => 'public.src', session => "SET logical_decoding_work_mem = '64kB'"))), 300000, 'a large transaction with subtransactions, rolled back');

$node->stop;
done_testing();
