# What helps consumers begin: check_downstream() finds what is missing and names the statement that
# mends it, which is run here; create_decoder_slot(); debezium_config(). And what a FULL refresh
# writes: counted by decoding it, and in bytes of WAL.
use strict;
use warnings;

use JSON::PP;
use Test::More;

use PgTrickle;

my $node = PgTrickle->new_node('helpers', scheduler => 0, settings => "wal_level = replica\nmax_replication_slots = 1\nmax_wal_senders = 1\nfull_page_writes = off\nautovacuum = off\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }
sub finding { return sql("SELECT severity, command FROM pgtrickle.check_downstream() WHERE check_name = '$_[0]'") }
sub mend
{
	my $command = sql("SELECT command FROM pgtrickle.check_downstream() WHERE check_name = '$_[0]'");
	$node->safe_psql('postgres', $_) for grep { /\S/ && !/\A\s*--/ } split /;/, $command;
}

sql(q{
CREATE TABLE t (id int PRIMARY KEY, a int, b text);
INSERT INTO t SELECT i, i % 100, repeat(md5(i::text), 4) FROM generate_series(1, 20000) i;
SELECT pgtrickle.create_stream_table('st', 'SELECT id, a, b FROM t', schedule => '1h', refresh_mode => 'FULL');
SELECT pgtrickle.create_stream_table('"n.o key"', 'SELECT a % 2 AS a FROM t', schedule => '1h');
CREATE ROLE reader LOGIN;
});

# --- check_downstream --------------------------------------------------------------------------

like(finding('wal_level'), qr/\AERROR\|ALTER SYSTEM SET wal_level = 'logical';/, 'wal_level is missing');
like(error_of($node, "SELECT pgtrickle.create_decoder_slot('s')"), qr/55000.*wal_level is "replica".*ALTER SYSTEM SET wal_level/s, 'no slot without it');
mend('wal_level');
$node->restart;
is(finding('wal_level'), 'OK|', 'and mended by the command');

sql("SELECT pg_create_physical_replication_slot('taken')");
like(finding('max_replication_slots'), qr/\AERROR\|/, 'no slot is free');
mend('max_replication_slots');
$node->restart;
is(finding('max_replication_slots'), 'OK|', 'mended');
sql("SELECT pg_drop_replication_slot('taken')");
sql("ALTER SYSTEM SET max_wal_senders = 0");
$node->restart;
like(finding('max_wal_senders'), qr/\AERROR\|ALTER SYSTEM SET max_wal_senders = 10;/, 'no sender is free');
mend('max_wal_senders');
$node->restart;
is(finding('max_wal_senders'), 'OK|', 'mended');

SKIP:
{
	skip 'this server lets every plugin be used', 3 unless PgTrickle::server_knows_setting('output_plugin_libraries');
	sql("ALTER SYSTEM SET output_plugin_libraries = pgoutput, test_decoding");
	$node->reload;
	wait_until($node, "SELECT current_setting('output_plugin_libraries') !~ 'trickle'");
	like(finding('output_plugin_libraries'), qr/\AERROR\|ALTER SYSTEM SET output_plugin_libraries = pgoutput, test_decoding, pg_trickle_decoder;/, 'the plugin may not be used');
	like(error_of($node, "SELECT pgtrickle.create_decoder_slot('s')"), qr/pg_trickle_decoder/, 'and slots are refused');
	mend('output_plugin_libraries');
	wait_until($node, "SELECT current_setting('output_plugin_libraries') ~ 'trickle'");
	is(finding('output_plugin_libraries'), 'OK|', 'mended');
}

my $as_reader = sub { return $node->safe_psql('postgres', "SET ROLE reader; $_[0]") };
is($as_reader->("SELECT severity, command FROM pgtrickle.check_downstream() WHERE check_name = 'replication_right'"), 'WARNING|ALTER ROLE reader REPLICATION;', 'a right is missing');
is($as_reader->("SELECT count(*) FROM pgtrickle.check_downstream() WHERE check_name = 'publication'"), '0', 'what one may not see is not told');
sql('ALTER ROLE reader REPLICATION; GRANT SELECT ON st TO reader');
is($as_reader->("SELECT severity, command FROM pgtrickle.check_downstream() WHERE check_name = 'replication_right'"), 'OK|', 'mended');
is($as_reader->("SELECT string_agg(check_name || ' ' || severity, ', ') FROM pgtrickle.check_downstream('st') WHERE detail ~ '^public'"),
	'replica_identity OK, primary_key OK, publication INFO, select_right OK', 'one stream table');
sql('ALTER TABLE st REPLICA IDENTITY NOTHING');
is(finding('replica_identity'), "OK|\nERROR|ALTER TABLE public.st REPLICA IDENTITY FULL;", 'an identity is missing');
sql('ALTER TABLE st REPLICA IDENTITY FULL');
like(error_of($node, "SELECT pgtrickle.check_downstream('t')"), qr/42P01/, 'only stream tables');

# --- debezium_config ---------------------------------------------------------------------------

like(error_of($node, "SELECT pgtrickle.debezium_config('st')"), qr/55000.*has no publication.*stream_table_to_publication\('public\.st'\)/s, 'needs a publication');
sql(q{SELECT pgtrickle.stream_table_to_publication('st'), pgtrickle.stream_table_to_publication('"n.o key"')});
my $config = decode_json(sql("SELECT pgtrickle.debezium_config('st')"));
is_deeply([ @$config{qw(plugin.name publication.name publication.autocreate.mode skipped.operations decimal.handling.mode database.dbname database.port)} ],
	[ 'pgoutput', 'pgt_public_st', 'disabled', 'none', 'string', 'postgres', $node->port ], 'what Debezium has to be told');
is((grep { ref } values %$config), 0, 'all texts');
like($config->{'slot.name'}, qr/\A[a-z0-9_]{1,63}\z/, 'a name for the slot');
is($config->{'message.key.columns'}, 'public\.st:id', 'the key, lest Debezium takes that of a table that comes after this one');
like('public.st', qr/\A$config->{'table.include.list'}\z/, 'the table matches its pattern');
unlike('publicXst', qr/\A$config->{'table.include.list'}\z/, 'and others do not');
$config = decode_json(sql(q{SELECT pgtrickle.debezium_config('"n.o key"')}));
like('public.n.o key', qr/\A$config->{'table.include.list'}\z/, 'odd names, too');
sql('ALTER PUBLICATION pgt_public_n_o_key RENAME TO "No key"');
like(error_of($node, q{SELECT pgtrickle.debezium_config('"n.o key"')}), qr/0A000.*named "No key".*ALTER PUBLICATION "No key" RENAME TO/s, 'a name that Debezium does not quote');
sql('ALTER PUBLICATION "No key" RENAME TO pgt_public_n_o_key');
is($config->{'message.key.columns'}, undef, 'no key');
sql(q{SELECT pgtrickle.create_stream_table('w', 'SELECT a AS "A b", b, id AS "c,d" FROM t', schedule => '1h'); SELECT pgtrickle.stream_table_to_publication('w')});
my $key = sub { return decode_json(sql("SELECT pgtrickle.debezium_config('w')"))->{'message.key.columns'} };
is($key->(), undef, 'a key whose name cannot be told');
sql('ALTER TABLE w DROP CONSTRAINT w_pkey; CREATE UNIQUE INDEX ON w (b) INCLUDE ("A b"); CREATE UNIQUE INDEX ON w (b) WHERE b > 0::text; CREATE UNIQUE INDEX ON w (lower(b))');
is($key->(), undef, 'null values of an index are no key');
sql('CREATE UNIQUE INDEX ON w ("A b", b) INCLUDE ("c,d") NULLS NOT DISTINCT');
is($key->(), 'public\.w:A\ b,b', 'unless they are equal');
sql("SELECT pgtrickle.drop_stream_table('w')");
isnt($node->psql('postgres', "SET ROLE reader; SELECT pgtrickle.debezium_config('\"n.o key\"')"), 0, 'who may not read it is told nothing');
sql($config->{'heartbeat.action.query'});
pass('its heartbeat runs');

# --- create_decoder_slot, and what a FULL refresh writes ---------------------------------------

like(error_of($node, "SELECT pgtrickle.create_decoder_slot('s', failover => true)"), qr/0A000.*PostgreSQL 17/s, 'no failover before 17')
  if sql('SHOW server_version_num') < 170000;
is(sql("SELECT pgtrickle.create_decoder_slot('s') <= pg_current_wal_insert_lsn()"), 't', 'a slot');
is(sql("SELECT plugin, slot_type, temporary FROM pg_replication_slots WHERE slot_name = 's'"), 'pg_trickle_decoder|logical|f', 'of the decoder');
like(error_of($node, "SELECT pgtrickle.create_decoder_slot('s')"), qr/42710/, 'not twice');

sql("SELECT pg_create_logical_replication_slot('plain', 'test_decoding')");
sql(q{
UPDATE t SET a = a + 1 WHERE id % 100 = 0;
DELETE FROM t WHERE id % 100 = 1;
INSERT INTO t SELECT i, 1, 'new' FROM generate_series(20001, 20100) i;
SELECT count(*) FROM pg_logical_slot_get_changes('plain', NULL, NULL);
SELECT count(*) FROM pg_logical_slot_get_binary_changes('s', NULL, NULL);
});
my $filenode = sql("SELECT pg_relation_filenode('st')");
my $lsn = sql('SELECT pg_current_wal_insert_lsn()');
sql("SELECT pgtrickle.refresh_stream_table('st', 'FULL')");
my $bytes = sql("SELECT pg_current_wal_insert_lsn() - '$lsn'::pg_lsn");
stream_table_is_right($node, 'st');
is(sql(q{SELECT string_agg(op || ' ' || n, ', ' ORDER BY op) FROM (SELECT split_part(data, ' ', 3) AS op, count(*) AS n
	FROM pg_logical_slot_get_changes('plain', NULL, NULL) WHERE data LIKE 'table public.st:%' GROUP BY 1) q}),
	'DELETE: 200, INSERT: 100, UPDATE: 200', 'FULL publishes what changed and nothing else, no TRUNCATE');
cmp_ok($bytes, '<', sql("SELECT pg_relation_size('st') / 5"), "$bytes bytes of WAL for it");
is(sql("SELECT pg_relation_filenode('st')"), $filenode, 'no new file');
$lsn = sql('SELECT pg_current_wal_insert_lsn()');
sql("SELECT pgtrickle.refresh_stream_table('st', 'FULL')");
is(sql("SELECT count(*) FROM pg_logical_slot_get_changes('plain', NULL, NULL) WHERE data LIKE 'table public.st:%'"), '0', 'nothing when nothing changed');

# No catalog is changed by a refresh of either kind: WAL says which relations it wrote.
my $catalogs_written_since = sub {
	my ($from) = @_;
	my $to = sql("SELECT pg_switch_wal(); SELECT pg_current_wal_insert_lsn()");
	($to) = $to =~ /(\S+)\z/;
	my $dump = `pg_waldump -p @{[ $node->data_dir ]}/pg_wal -s $from -e $to 2>/dev/null`;
	my %catalogs = map { split / / } split /\n/, sql("SELECT pg_relation_filenode(oid) || ' ' || relname FROM pg_class WHERE oid < 16384 AND pg_relation_filenode(oid) IS NOT NULL AND relkind IN ('r', 't') AND oid <> 'pg_statistic'::regclass");
	return join ' ', map { $catalogs{$_} // () } $dump =~ m{rmgr: Heap2?\s.*?desc: (?:\+?INSERT|\+?UPDATE|DELETE|HOT_UPDATE|MULTI_INSERT).*?blkref #0: rel \d+/\d+/(\d+)}g;
};
# (Change buffers that have grown are emptied by TRUNCATE now and then; that is done with first.)
my $both = q{SELECT pgtrickle.refresh_stream_table('st', 'FULL'); SELECT pgtrickle.refresh_stream_table('"n.o key"')};
sql("UPDATE t SET a = a + 1 WHERE id < 20; $both") for 1 .. 3;
sql('UPDATE t SET a = a + 1 WHERE id % 1000 = 0');
$lsn = sql('SELECT pg_current_wal_insert_lsn()');
sql($both);
is($catalogs_written_since->($lsn), '', 'and no row of a catalog is written');

done_testing();
