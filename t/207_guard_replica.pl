# Nobody writes into a stream table but its refreshes: not a session in replica role, not the
# apply worker of logical replication, which fires no statement triggers.
use strict;
use warnings;

use Test::More;

use PgTrickle;

my $node = PgTrickle->new_node('guard', settings => "pg_trickle.enabled = off\nmax_logical_replication_workers = 8\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

sql('CREATE DATABASE publisher');
$node->safe_psql('publisher', q{
	CREATE TABLE s (id int PRIMARY KEY, v int);
	INSERT INTO s VALUES (1, 10), (2, 20);
	CREATE PUBLICATION p FOR TABLE s});
sql(q{
	CREATE TABLE t (id int PRIMARY KEY, v int);
	INSERT INTO t VALUES (1, 10), (2, 20);
	SELECT pgtrickle.create_stream_table('s', 'SELECT id, v FROM t', identity => 'key')});

# --- the apply worker -----------------------------------------------------------------------

my $connection = $node->connstr('publisher');
my $number = 0;
for my $change ('INSERT INTO s VALUES (3, 30)', 'UPDATE s SET v = 11 WHERE id = 1', 'DELETE FROM s WHERE id = 2', 'TRUNCATE s')
{
	my $slot = 'slot' . ++$number;
	$node->safe_psql('publisher', "SELECT pg_create_logical_replication_slot('$slot', 'pgoutput')");
	sql("CREATE SUBSCRIPTION $slot CONNECTION \$c\$$connection\$c\$ PUBLICATION p WITH (create_slot = false, slot_name = '$slot', copy_data = false, disable_on_error = true)");
	$node->safe_psql('publisher', $change);
	wait_until($node, "SELECT NOT subenabled FROM pg_subscription WHERE subname = '$slot'");
	is(sql('SELECT string_agg(id || \' \' || v, \', \' ORDER BY id) FROM s'), '1 10, 2 20', "replicated $change is refused");
	sql("ALTER SUBSCRIPTION $slot SET (slot_name = NONE); DROP SUBSCRIPTION $slot");
}
my @refusals = grep { /ERROR:  cannot change stream table "s" directly/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile);
is(scalar(@refusals), 4, 'the log says why');

# The first copy of a table is a statement.
$node->safe_psql('publisher', q{INSERT INTO s VALUES (7, 7); SELECT pg_create_logical_replication_slot('copy', 'pgoutput')});
sql("CREATE SUBSCRIPTION copy CONNECTION \$c\$$connection\$c\$ PUBLICATION p WITH (create_slot = false, slot_name = 'copy', disable_on_error = true)");
wait_until($node, q{SELECT NOT subenabled FROM pg_subscription WHERE subname = 'copy'});
is(sql('SELECT count(*) FROM s'), '2', 'the copy of a subscription is refused');
sql('ALTER SUBSCRIPTION copy SET (slot_name = NONE); DROP SUBSCRIPTION copy');

# --- sessions in replica role ---------------------------------------------------------------

for my $change (q{INSERT INTO s VALUES (3, 30)}, 'UPDATE s SET v = 11', 'DELETE FROM s', 'TRUNCATE s', "COPY s FROM STDIN;\n4\t4\n\\.\n")
{
	like(error_of($node, "SET session_replication_role = replica; $change"), qr/55000: cannot change stream table "s" directly/, "in replica role: $change");
}
sql(q{
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (TG_OP || NEW.id); RETURN NEW; END $$;
	CREATE TABLE seen (what text);
	CREATE TRIGGER mine BEFORE INSERT OR UPDATE ON s FOR EACH ROW EXECUTE FUNCTION note();
	ALTER TABLE s ENABLE ALWAYS TRIGGER mine;
	INSERT INTO t VALUES (5, 50); UPDATE t SET v = 12 WHERE id = 1; DELETE FROM t WHERE id = 2;
	SET session_replication_role = replica;
	SELECT pgtrickle.refresh_stream_table('s')});
stream_table_is_right($node, 's', 'refreshed by a session in replica role');
is(sql(q{SELECT string_agg(what, ' ' ORDER BY what) FROM seen}), 'INSERT5 UPDATE1', 'triggers of the user fire as ever');

# --- the guards stay ------------------------------------------------------------------------

my $guards = q{SELECT string_agg(tgname || ' ' || tgenabled::text, ', ' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = 's'::regclass AND tgname LIKE 'pgt%'};
for my $ddl ('DISABLE TRIGGER ALL', 'DISABLE TRIGGER USER', 'ENABLE TRIGGER ALL', 'ENABLE TRIGGER USER', map { ("DISABLE TRIGGER $_", "ENABLE TRIGGER $_") } qw(pgt_guard pgt_apply_guard))
{
	like(error_of($node, "ALTER TABLE s $ddl"), qr/55000: "s" is a stream table, so you cannot/, $ddl);
}
like(error_of($node, 'ALTER TABLE s ENABLE REPLICA TRIGGER pgt_guard'), qr/55000/, 'ENABLE REPLICA TRIGGER pgt_guard');
like(error_of($node, 'DROP TRIGGER pgt_apply_guard ON s'), qr/55000/, 'DROP TRIGGER');
sql('ALTER TABLE s DISABLE TRIGGER mine; ALTER TABLE s ENABLE TRIGGER mine');
is(sql($guards), 'pgt_apply_guard R, pgt_guard A', 'guards are as they were');

# Dumped and restored.
sql('CREATE DATABASE restored');
my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dumped');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'and restored');
is($node->safe_psql('restored', $guards), 'pgt_apply_guard R, pgt_guard A', 'with its guards');
$node->safe_psql('restored', q{INSERT INTO t VALUES (9, 9); SELECT pgtrickle.refresh_stream_table('s')});
stream_table_is_right($node, 's', 'it is refreshed there', dbname => 'restored');

$node->stop;
done_testing();
