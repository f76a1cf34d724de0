# Publications of stream tables: stream_table_to_publication() and what users do to what it made,
# rights, names, dump and restore, and any other publication that holds a stream table: it stays
# when a new query needs another table, and it lets refreshes work or is named by their error.
use strict;
use warnings;

use IPC::Run;
use Test::More;

use PgTrickle;

my $node = PgTrickle->new_node('publications', settings => "pg_trickle.scheduler_interval_ms = '1s'\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }
sub row_of { return sql("SELECT downstream_publication_name FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = '$_[0]'::regclass") }
sub seen { return sql("SELECT downstream_publication FROM pgtrickle.pg_stat_stream_tables WHERE pgt_id = pgtrickle.stream_table_id('$_[0]')") }
sub exists_pub { return sql("SELECT count(*) FROM pg_publication WHERE pubname = '$_[0]'") }
sub make_pub { return sql("SELECT pgtrickle.stream_table_to_publication($_[0])") }

sql(q{
CREATE TABLE t (id int PRIMARY KEY, a int, b text);
INSERT INTO t SELECT i, i, 'b' || i FROM generate_series(1, 10) i;
SELECT pgtrickle.create_stream_table('st', 'SELECT id, a, b FROM t', schedule => 'calculated');
});

# --- one of its own ----------------------------------------------------------------------------

is(row_of('st'), '', 'none at first');
is(make_pub("'st'"), 'pgt_public_st', 'the name is made of schema and table');
is(row_of('st'), 'pgt_public_st', 'and in the catalog');
is(seen('st'), 'pgt_public_st', 'and to be seen');
is(make_pub("'st'"), 'pgt_public_st', 'a second call changes nothing');
like(error_of($node, "SELECT pgtrickle.stream_table_to_publication('st', 'other')"), qr/42710.*has publication "pgt_public_st".*RENAME TO other/s, 'not two');
like(sql("SELECT pgtrickle.export_definition('st')"), qr/\nSELECT pgtrickle\.stream_table_to_publication\('public\.st', 'pgt_public_st'\);$/, 'exported');
is(sql("SELECT pubinsert, pubupdate, pubdelete, attnames, rowfilter FROM pg_publication p JOIN pg_publication_tables USING (pubname)"),
	't|t|t|{id,a,b}|', 'it publishes everything');

sql('ALTER PUBLICATION pgt_public_st RENAME TO "Strange ""name"');
is(row_of('st'), 'Strange "name', 'renamed');
sql("SELECT pgtrickle.drop_stream_table_publication('st')");
is(sql('SELECT count(*) FROM pg_publication'), '0', 'dropped');
is(row_of('st'), '', 'and forgotten');
like(error_of($node, "SELECT pgtrickle.drop_stream_table_publication('st')"), qr/42704.*has no publication/s, 'only once');

make_pub("'st', 'by_name'");
sql('DROP PUBLICATION by_name');
is(row_of('st'), '', 'dropped by hand: forgotten');
is(make_pub("'st'"), 'pgt_public_st', 'and made again');

sql('ALTER PUBLICATION pgt_public_st DROP TABLE st');
is(seen('st'), '', 'table taken out by hand: not claimed');
is(sql("SELECT severity, detail FROM pgtrickle.health_check() WHERE check_name = 'publications'"), 'WARNING|public.st is not in publication pgt_public_st', 'but reported');
unlike(sql("SELECT pgtrickle.export_definition('st')"), qr/publication/, 'nor exported');
sql('ALTER PUBLICATION pgt_public_st ADD TABLE st');
is(seen('st'), 'pgt_public_st', 'put back by hand');
is(sql("SELECT severity FROM pgtrickle.health_check() WHERE check_name = 'publications'"), 'OK', 'all is well');

sql('ALTER EVENT TRIGGER pgt_sql_drop DISABLE; DROP PUBLICATION pgt_public_st; ALTER EVENT TRIGGER pgt_sql_drop ENABLE ALWAYS');
is(seen('st'), '', 'dropped unseen: not claimed');
is(make_pub("'st'"), 'pgt_public_st', 'and made again');

# One that holds other tables, too, is not only ours.
sql('CREATE TABLE more (id int PRIMARY KEY); ALTER PUBLICATION pgt_public_st ADD TABLE more');
sql("SELECT pgtrickle.drop_stream_table_publication('st')");
is(sql("SELECT string_agg(tablename, ' ') FROM pg_publication_tables WHERE pubname = 'pgt_public_st'"), 'more', 'what others put into it stays');
my $own = make_pub("'st'");
like($own, qr/\Apgt_public_st_[0-9a-f]{8}\z/, 'a name in use is left alone');
like(error_of($node, "DO \$\$BEGIN PERFORM pgtrickle.drop_stream_table_publication('st'); PERFORM pgtrickle.stream_table_to_publication('st', 'pgt_public_st'); END\$\$"),
	qr/42710.*publication "pgt_public_st" already exists/s, 'or refused');
sql('DROP PUBLICATION pgt_public_st');

# --- names -------------------------------------------------------------------------------------

sql(q{CREATE SCHEMA a; CREATE SCHEMA a_b});
sql("SELECT pgtrickle.create_stream_table('$_', 'SELECT id FROM t')") for 'a.b_c', 'a_b.c';
is(make_pub("'a.b_c'"), 'pgt_a_b_c', 'names that meet ...');
like(make_pub("'a_b.c'"), qr/\Apgt_a_b_c_[0-9a-f]{8}\z/, '... are told apart');
my ($s, $n1, $n2) = ('s' x 50, 'n' x 60 . '1', 'n' x 60 . '2');
sql("CREATE SCHEMA $s");
sql("SELECT pgtrickle.create_stream_table('$s.$_', 'SELECT id FROM t')") for $n1, $n2;
my @long = map { make_pub("'$s.$_'") } $n1, $n2;
is_deeply([ map { length } @long ], [ 63, 63 ], 'long names are cut');
isnt($long[0], $long[1], 'and differ');
my $wide = "\x{c3}\x{a4}" x 31;    # 62 bytes
sql(qq{SELECT pgtrickle.create_stream_table('"$wide"', 'SELECT id FROM t')});
is(make_pub(qq{'"$wide"'}), 'pgt_public_' . '_' x 31, 'a character that needs quotes is an underscore');
sql(qq{SELECT pgtrickle.create_stream_table('"B, c"', 'SELECT id FROM t')});
is(make_pub(qq{'"B, c"'}), 'pgt_public_b__c', 'and so in lower case');
sql(q{SELECT pgtrickle.drop_stream_table('"B, c"')});
like(error_of($node, "SELECT pgtrickle.stream_table_to_publication('more')"), qr/42P01.*not a stream table/s, 'only stream tables');
sql("SELECT pgtrickle.drop_stream_table_publication('a.b_c')");
like(error_of($node, "SELECT pgtrickle.stream_table_to_publication('a.b_c', '')"), qr/42602/, 'no name');
like(error_of($node, "SELECT pgtrickle.stream_table_to_publication('a.b_c', repeat('x', 64))"), qr/42602/, 'a name too long');
sql(qq{DROP SCHEMA a, a_b, $s CASCADE; DROP TABLE "$wide"});
is(sql('SELECT count(*) FROM pg_publication'), '1', 'publications go with their stream tables');

# --- rights ------------------------------------------------------------------------------------

sql(q{
CREATE ROLE owner LOGIN; CREATE ROLE heir LOGIN; CREATE ROLE other LOGIN;
CREATE SCHEMA o AUTHORIZATION owner;
GRANT SELECT ON t TO owner, heir;
});
my $as = sub { return $node->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE $_[0]; $_[1]", on_error_stop => 1) };
$as->('owner', "SELECT pgtrickle.create_stream_table('o.st', 'SELECT id FROM public.t')");
my (undef, undef, $error) = $as->('owner', "SELECT pgtrickle.stream_table_to_publication('o.st')");
like($error, qr/42501.*may not make publications.*GRANT CREATE ON DATABASE postgres TO owner;/s, 'needs CREATE on the database');
sql('GRANT CREATE ON DATABASE postgres TO owner, heir; GRANT USAGE ON SCHEMA o TO other');
(undef, undef, $error) = $as->('other', "SELECT pgtrickle.stream_table_to_publication('o.st')");
like($error, qr/42501.*must be owner/s, 'and ownership');
my $pub_owner = "SELECT pg_get_userbyid(pubowner) FROM pg_publication WHERE pubname = 'pgt_o_st'";
$as->('owner', "SELECT pgtrickle.stream_table_to_publication('o.st')");
is(sql($pub_owner), 'owner', 'made by the owner');
(undef, undef, $error) = $as->('other', "SELECT pgtrickle.drop_stream_table_publication('o.st')");
like($error, qr/42501/, 'not for others to drop');
sql("GRANT USAGE, CREATE ON SCHEMA o TO heir; ALTER TABLE o.st OWNER TO heir");
is(sql($pub_owner), 'heir', 'follows the owner');
sql("SELECT pgtrickle.drop_stream_table_publication('o.st'); SELECT pgtrickle.stream_table_to_publication('o.st')");
is(sql($pub_owner), 'heir', 'made by a superuser for the owner');
sql('DROP OWNED BY heir');
is(exists_pub('pgt_o_st'), '0', 'gone with all that he owned');

# --- publications of users, another table ------------------------------------------------------

sql(q{
CREATE PUBLICATION all_of_it FOR TABLE st;
CREATE PUBLICATION columns FOR TABLE st (id, b) WITH (publish = 'insert');
CREATE PUBLICATION old_column FOR TABLE st (id, a) WITH (publish = 'insert');
CREATE PUBLICATION filtered FOR TABLE st WHERE (id > 2 AND b <> 'it''s');
CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA public;
CREATE PUBLICATION two FOR TABLE st, more;
});
like(error_of($node, q{SELECT pgtrickle.alter_stream_table('st', 'SELECT b, id FROM t')}),
	qr/2BP01.*Lost would be: column a, publication old_column, whose row filter or column list does not fit\./s, 'only what does not fit is a loss');
sql(q{SELECT pgtrickle.alter_stream_table('st', 'SELECT b, id FROM t', cascade => true)});
is(sql(q{SELECT string_agg(format('%s %s %s', pubname, attnames, rowfilter), E'\n' ORDER BY pubname) FROM pg_publication_tables WHERE tablename = 'st' AND pubname <> 'of_schema'}),
	join("\n", 'all_of_it {b,id} ', 'columns {b,id} ', q{filtered {b,id} ((id > 2) AND (b <> 'it''s'::text))}, "$own {b,id} ", 'two {b,id} '),
	'the table is back in all others');
is(seen('st'), $own, 'and in its own');
is(exists_pub('old_column'), '1', 'the publication itself stays');
is(sql(q{SELECT count(*) FROM pg_publication_tables WHERE pubname = 'of_schema' AND tablename = 'st'}), '1', 'schemas publish it as before');
stream_table_is_right($node, 'st');

# --- publications that do not let it change ----------------------------------------------------

sub make_and_read_warning
{
	my (undef, undef, $err) = $node->psql('postgres', $_[0], on_error_stop => 1);
	return $err;
}
sql(q{DROP PUBLICATION columns, old_column, filtered, two, all_of_it});
sql(q{SELECT pgtrickle.alter_stream_table('st', 'SELECT id, a, b FROM t', cascade => true)});
my $warning = make_and_read_warning('CREATE PUBLICATION narrow FOR TABLE st (id, b)');
like($warning, qr/WARNING:  refreshes of stream table "st" will fail.*HINT:.*narrow.*identity => 'key'/s, 'warned of a list that FULL does not fit in');
sql('UPDATE t SET b = b || 1 WHERE id = 1');
like(error_of($node, "SELECT pgtrickle.refresh_stream_table('st')"), qr/42P10.*cannot update table "st".*HINT:.* narrow/s, 'and refreshes fail by that');
wait_until($node, "SELECT last_sqlstate = '42P10' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'st'");
pass('recorded');
sql("SELECT pgtrickle.alter_stream_table('st', identity => 'key')");
sql("SELECT pgtrickle.refresh_stream_table('st')");
stream_table_is_right($node, 'st', 'the hint helps');
is(make_and_read_warning('ALTER PUBLICATION narrow SET TABLE st (id, a)'), '', 'a list with the key is fine');
$warning = make_and_read_warning('CREATE PUBLICATION filtered FOR TABLE st WHERE (a > 5)');
like($warning, qr/WARNING.*HINT.*filtered/s, 'warned of a filter that the key does not cover');
sql('UPDATE t SET a = a + 1 WHERE id = 1');
wait_until($node, "SELECT coalesce(last_sqlstate = '42P10', false) FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'st'");
sql('INSERT INTO t VALUES (11, 11)');
sql("ALTER PUBLICATION filtered SET (publish = 'insert')");
ok(wait_for_fresh($node, 'st'), 'ALTER PUBLICATION lets the scheduler try again');
$warning = make_and_read_warning("ALTER PUBLICATION filtered SET (publish = 'insert, delete')");
like($warning, qr/WARNING.*filtered/s, 'warned at ALTER, too');
sql('DELETE FROM t WHERE id = 11');
wait_until($node, "SELECT coalesce(last_sqlstate = '42P10', false) FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'st'");
sql('DROP PUBLICATION filtered');
ok(wait_for_fresh($node, 'st'), 'and so does DROP PUBLICATION');
sql('DROP PUBLICATION narrow; CREATE PUBLICATION everything FOR ALL TABLES');
sql("UPDATE t SET a = a + 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (12, 12)");
ok(wait_for_fresh($node, 'st'), 'FOR ALL TABLES lets refreshes work');
sql('ALTER TABLE st REPLICA IDENTITY NOTHING');
sql('UPDATE t SET a = a + 1 WHERE id = 1');
like(error_of($node, "SELECT pgtrickle.refresh_stream_table('st')"), qr/55000.*does not have a replica identity.*ALTER TABLE public\.st REPLICA IDENTITY FULL/s, 'no identity');
sql('ALTER TABLE st REPLICA IDENTITY FULL; DROP PUBLICATION everything, of_schema');
ok(wait_for_fresh($node, 'st'), 'and again with one');

# --- dump and restore --------------------------------------------------------------------------

my $dump = $node->backup_dir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'dumped');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-q', '-f', $dump, $node->connstr('copy') ], 'restored');
my $both = q{SELECT downstream_publication_name, downstream_publication FROM pgtrickle.pgt_stream_tables JOIN pgtrickle.pg_stat_stream_tables USING (pgt_id) WHERE pgt_relid = 'st'::regclass};
is($node->safe_psql('copy', $both), "$own|$own", 'a restored publication is known');
is($node->safe_psql('copy', "SELECT pgtrickle.stream_table_to_publication('st')"), $own, 'as before');
$node->safe_psql('copy', "SELECT pgtrickle.drop_stream_table('st')");
is($node->safe_psql('copy', 'SELECT count(*) FROM pg_publication'), '0', 'and dropped with the table');

# --- wal_level ---------------------------------------------------------------------------------

sql("SELECT pgtrickle.drop_stream_table_publication('st'); ALTER SYSTEM SET wal_level = 'replica'");
$node->restart;
like(error_of($node, "SELECT pgtrickle.stream_table_to_publication('st')"), qr/55000.*wal_level is "replica".*ALTER SYSTEM SET wal_level = 'logical'/s, 'wal_level');
sql(q{SELECT pgtrickle.alter_stream_table('st', 'SELECT b, id FROM t', cascade => true)});
stream_table_is_right($node, 'st', 'nobody follows');

done_testing();
