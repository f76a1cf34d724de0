# From a commit to the coordinator: a session of the test plays the coordinator. Test builds.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgtCapture;

plan skip_all => 'needs a build with test points' unless has_test_points();

my $node = PgTrickle->new_node('wake', settings => "pg_trickle.databases = 'nowhere'\n");
my $capture = PgtCapture->new($node);

sub sql { return $capture->sql(@_); }

sql("CREATE TABLE s (id int); CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p DEFAULT");
$capture->consume('s', 's', 'id');
$capture->consume('p', 'p', 'id');
my $s = sql("SELECT 's'::regclass::oid");
my $p = sql("SELECT 'p'::regclass::oid");

my $coordinator = session($node);
is($coordinator->query_safe("SELECT capture_test.wake_register()"), 't', 'registered');
is(sql("SELECT capture_test.wake_register()"), 'f', 'there is one at a time');
is($coordinator->query_safe("SELECT capture_test.wake_register()"), 't', 'registering again is fine');
$coordinator->query_safe("SELECT capture_test.wake_collect()");

# Statement, what the coordinator hears of it.
sub hears
{
	my ($sql, $expected, $test) = @_;

	sql($sql) if $sql ne '';
	is($coordinator->query_safe("SELECT capture_test.wake_collect()"), $expected, $test || $sql);
}
hears("SELECT 1", '');
hears("INSERT INTO s VALUES (1)", " $s");
hears("", '', 'once');
hears("INSERT INTO p1 VALUES (1)", " $p", 'a change of a partition is one of the root');
hears("UPDATE s SET id = id", '', 'an update of nothing');
hears("BEGIN; INSERT INTO s VALUES (1); ROLLBACK", '');
hears("BEGIN; SAVEPOINT a; INSERT INTO s VALUES (1); ROLLBACK TO a; COMMIT", " $s", 'a savepoint rolled back wakes for nothing');
hears("BEGIN; INSERT INTO s VALUES (1); INSERT INTO p VALUES (2); INSERT INTO s VALUES (3); COMMIT", " $p $s", 'two sources');
hears("TRUNCATE s", " $s");
hears("SET session_replication_role = replica; INSERT INTO s VALUES (1)", " $s");
hears("SELECT capture_test.wake_catalog()", ' catalog');
hears("BEGIN; SELECT capture_test.wake_catalog(); ROLLBACK", '');

# Held: the news is handed out again, with or without a commit since; then it is as before.
$coordinator->query_safe("SELECT capture_test.wake_hold('s')");
hears("INSERT INTO p VALUES (4)", " $p $s", 'held, and nothing came');
hears("", '', 'once');
$coordinator->query_safe("SELECT capture_test.wake_hold('s')");
hears("INSERT INTO s VALUES (4)", " $s", 'held, and something came');
hears("INSERT INTO s VALUES (4)", " $s", 'not held any more');
sql("INSERT INTO s VALUES (4)");
$coordinator->query_safe("SELECT capture_test.wake_hold('s')");
hears("", " $s", 'something came before it was held');

# Nothing is heard before the commit.
my $writer = session($node);
$writer->query_safe("BEGIN; INSERT INTO s VALUES (1)");
hears("", '', 'an open transaction');
$writer->query_safe("COMMIT");
hears("", " $s", 'its commit');

# Prepared transactions.
hears("BEGIN; INSERT INTO p VALUES (5); PREPARE TRANSACTION 'a'", '', 'PREPARE TRANSACTION');
hears("COMMIT PREPARED 'a'", " $p");
hears("BEGIN; INSERT INTO s VALUES (5); PREPARE TRANSACTION 'b'", '');
hears("ROLLBACK PREPARED 'b'", '');

# Another coordinator takes over.
$coordinator->quit;
$coordinator = session($node);
sql("INSERT INTO s VALUES (6)");
ok(wait_until($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%wake_collect%' AND pid <> pg_backend_pid())"), 'the first one is gone');
is($coordinator->query_safe("SELECT capture_test.wake_register()"), 't', 'another session registers');
hears("", " $s", 'and hears what nobody collected');

# After a crash everything starts anew.
$coordinator->quit;
$writer->quit;
$node->stop('immediate');
$node->start;
$coordinator = session($node);
is($coordinator->query_safe("SELECT capture_test.wake_register()"), 't', 'registered after a crash');
$coordinator->query_safe("SELECT capture_test.wake_collect()");
hears("INSERT INTO s VALUES (7)", " $s", 'after a crash');
$coordinator->quit;

# Without shared_preload_libraries nothing of this exists, and everything works.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->restart;
is(sql("SELECT capture_test.wake_register()"), 'f', 'no shared memory, no coordinator');
sql("INSERT INTO s VALUES (8); SELECT capture_test.wake_catalog()");
is(sql("SELECT capture_test.wake_collect()"), '', 'writers do not notice');
sql("BEGIN; INSERT INTO s VALUES (9); PREPARE TRANSACTION 'c'");
sql("COMMIT PREPARED 'c'");
$capture->takes('s', qr/^\d+ truncated$/, 'captured all the same');

done_testing();
