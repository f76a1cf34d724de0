# What capture writes down, statement by statement: one session, one source. Test builds.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgtCapture;

plan skip_all => 'needs a build with test points' unless has_test_points();

my $node = PgTrickle->new_node('capture', scheduler => 0);
my $capture = PgtCapture->new($node);

sub sql { return $capture->sql(@_); }

# --- kinds of statements --------------------------------------------------------------

sql(q{
CREATE TABLE s (id int PRIMARY KEY, a int, b text, unused text);
INSERT INTO s SELECT g, g, 'b' || g, 'u' FROM generate_series(1, 10) AS g;
CREATE TABLE source_rows AS TABLE s;
UPDATE source_rows SET id = id + 100;
});
$capture->consume('c', 's', 'id', 'a', 'b');
is(sql("SELECT capture_test.broken('s')"), '', 'nothing is broken');

$capture->check_all('c',
	"INSERT INTO s VALUES (11, 11, 'x')" => '1',
	"INSERT INTO s SELECT * FROM source_rows" => '10',
	"INSERT INTO s SELECT * FROM source_rows WHERE false" => '0',
	"UPDATE s SET a = a + 1 WHERE id <= 3" => '6',
	"UPDATE s SET id = 1000 + id WHERE id <= 3" => '6',
	"UPDATE s SET unused = 'other'" => '0',
	"UPDATE s SET a = a" => '0',
	"UPDATE s SET a = CASE WHEN id = 1001 THEN 7 ELSE a END" => '2',
	"UPDATE s SET b = NULL WHERE id = 4" => '2',
	"UPDATE s SET b = NULL WHERE id = 4" => '0',
	"UPDATE s SET b = 'back' WHERE id = 4" => '2',
	"DELETE FROM s WHERE id > 1000" => '3',
	"INSERT INTO s VALUES (4, 40, 'conflict'), (50, 50, 'new') ON CONFLICT (id) DO UPDATE SET a = excluded.a" => '3',
	"INSERT INTO s VALUES (4, 41, 'conflict') ON CONFLICT DO NOTHING" => '0',
	"COPY s FROM PROGRAM 'printf ''60\\t1\\tx\\tu\\n61\\t2\\t\\\\N\\tu\\n'''" => '2',
	"MERGE INTO s USING source_rows AS r ON s.id = r.id
	   WHEN MATCHED AND r.id = 101 THEN DELETE
	   WHEN MATCHED THEN UPDATE SET a = -1
	   WHEN NOT MATCHED THEN INSERT VALUES (r.id, 0, 'merged', '')" => '19',
	"WITH d AS (DELETE FROM s WHERE id = 102 RETURNING *),
	      u AS (UPDATE s SET a = 99 WHERE id = 103 RETURNING *),
	      i AS (INSERT INTO s SELECT id + 1000, a, b FROM d RETURNING *)
	 SELECT count(*) FROM u, i" => '4',
	"WITH u AS (UPDATE s SET a = 98 WHERE id = 104 RETURNING *)
	 UPDATE s SET a = 97 WHERE id = 105" => '4',
	"DO \$\$ BEGIN FOR i IN 1..20 LOOP UPDATE s SET a = i WHERE id = 106; END LOOP; END \$\$" => '40',
	"UPDATE s SET (a, b) = (SELECT 5, 'sub') WHERE id IN (5, 6)" => '4');

is(sql("SELECT count(*) FROM pgtrickle_changes.buffer_1_1"), '0', 'the other segment is not used');

# --- transactions ---------------------------------------------------------------------

$capture->check_all('c',
	"BEGIN; INSERT INTO s VALUES (200, 1, 'x'); ROLLBACK" => '0',
	"BEGIN; INSERT INTO s VALUES (200, 1, 'x'); SAVEPOINT a; INSERT INTO s VALUES (201, 1, 'x');
	 ROLLBACK TO a; INSERT INTO s VALUES (202, 1, 'x'); SAVEPOINT b; INSERT INTO s VALUES (203, 1, 'x');
	 RELEASE b; COMMIT" => '3',
	"DO \$\$ BEGIN FOR i IN 300..400 LOOP BEGIN INSERT INTO s VALUES (i, i, 'sub'); IF i % 3 = 0 THEN RAISE 'no'; END IF;
	 EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END \$\$" => '67',
	"BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE s SET a = 0 WHERE id = 7; COMMIT" => '2',
	"BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE s SET a = 1 WHERE id = 7; COMMIT" => '2');

sql("BEGIN; INSERT INTO s VALUES (210, 1, 'x'); PREPARE TRANSACTION 'one'");
is(sql("SELECT capture_test.take('c')"), '0', 'a prepared transaction is not visible');
$capture->sql("INSERT INTO s VALUES (211, 1, 'x')");
$capture->takes('c', '1', 'another one goes past it');
$node->restart;
$capture->sql("COMMIT PREPARED 'one'");
$capture->takes('c', '1', 'COMMIT PREPARED after a restart');
sql("BEGIN; INSERT INTO s VALUES (212, 1, 'x'); PREPARE TRANSACTION 'two'");
sql("ROLLBACK PREPARED 'two'");
$capture->takes('c', '0', 'ROLLBACK PREPARED');

# One transaction that reads its own changes, and goes on.
is( sql(q{
BEGIN;
INSERT INTO s VALUES (220, 1, 'x');
SELECT capture_test.take('c');
INSERT INTO s VALUES (221, 1, 'x');
SAVEPOINT a;
UPDATE s SET a = 2 WHERE id = 220;
SELECT capture_test.take('c');
DELETE FROM s WHERE id = 221;
COMMIT}),
	"1\n3", 'own changes are read once');
$capture->takes('c', '1', 'the rest after COMMIT');
sql(q{
BEGIN;
UPDATE s SET a = 3 WHERE id = 220;
SAVEPOINT a;
SELECT capture_test.take('c');
ROLLBACK TO a;
SELECT capture_test.take('c');
UPDATE s SET a = 4 WHERE id = 220;
ROLLBACK});
$capture->takes('c', '0', 'everything rolled back, the frontier too');

# Subtransactions beyond what a snapshot lists.
{
	my $writer = session($node);

	$writer->query_safe("BEGIN");
	$writer->query_safe(
		"DO \$\$ BEGIN FOR i IN 500..599 LOOP BEGIN INSERT INTO s VALUES (i, i, 'many'); EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END \$\$"
	);
	$capture->takes('c', '0', '100 open subtransactions');
	sql("UPDATE s SET a = 5 WHERE id = 220");
	$capture->takes('c', '2', 'another transaction meanwhile');
	$writer->query_safe("COMMIT");
	$writer->quit;
	$capture->takes('c', '100', 'they commit');
}

# --- TRUNCATE ---------------------------------------------------------------------------

sql("CREATE TABLE keep AS TABLE s");
$capture->check_all('c',
	"TRUNCATE s" => '0 truncated',
	"INSERT INTO s TABLE keep" => qr/^\d+$/,
	"BEGIN; TRUNCATE s; ROLLBACK" => '0',
	"BEGIN; TRUNCATE s; INSERT INTO s TABLE keep; COMMIT" => qr/^\d+ truncated$/,
	"SET session_replication_role = replica; TRUNCATE s; INSERT INTO s TABLE keep" => qr/^\d+ truncated$/);

# --- replica role -----------------------------------------------------------------------

$capture->check_all('c',
	"SET session_replication_role = replica; INSERT INTO s VALUES (700, 1, 'r'), (701, 1, 'r')" => '2',
	"SET session_replication_role = replica; UPDATE s SET a = 2 WHERE id IN (700, 701)" => '4',
	"SET session_replication_role = replica; UPDATE s SET unused = 'z' WHERE id IN (700, 701)" => '0',
	"SET session_replication_role = replica; DELETE FROM s WHERE id = 700" => '1',
	"SET session_replication_role = local; UPDATE s SET a = 3 WHERE id = 701" => '2',
	"BEGIN; UPDATE s SET a = 4 WHERE id = 701; SET LOCAL session_replication_role = replica;
	 UPDATE s SET a = 5 WHERE id = 701; SET LOCAL session_replication_role = origin;
	 UPDATE s SET a = 6 WHERE id = 701; COMMIT" => '6');

# What ALTER TABLE does to triggers never captures twice, and is noticed.
sql("ALTER TABLE s DISABLE TRIGGER USER");
is(sql("SELECT capture_test.broken('s')"), '', 'DISABLE TRIGGER USER does not reach them');
$capture->check_all('c', "UPDATE s SET a = 7 WHERE id = 701" => '2');
sql("ALTER TABLE s DISABLE TRIGGER ALL; UPDATE s SET a = 8 WHERE id = 701; ALTER TABLE s ENABLE TRIGGER ALL");
like(sql("SELECT capture_test.broken('s')"), qr/by hand/, 'DISABLE TRIGGER ALL is noticed after the fact');
sql("UPDATE s SET a = 9 WHERE id = 701");
is(sql("SELECT sum(w) FROM pgtrickle_changes.buffer_1_0 WHERE c1 = 701 AND c2 = 9"), '1',
	'captured once, although the replica trigger is enabled');
$capture->takes('c', qr/^\d+ capture trigger for .* by hand$/, 'everything is computed');
sql("SELECT capture_test.install('s', '{1}', false)");
is(sql("SELECT capture_test.broken('s')"), '', 'install repairs');
$capture->check_all('c', "UPDATE s SET a = 10 WHERE id = 701" => '2');

sql(q{DO $$ DECLARE n name; BEGIN FOR n IN SELECT tgname FROM pg_trigger WHERE tgrelid = 's'::regclass LOOP
	EXECUTE format('ALTER TABLE s ENABLE ALWAYS TRIGGER %I', n); END LOOP; END $$});
sql("SET session_replication_role = replica; UPDATE s SET a = 11 WHERE id = 701");
sql("UPDATE s SET a = 12 WHERE id = 701");
is(sql("SELECT string_agg(w || ' ' || c2, ', ' ORDER BY xid, w) FROM pgtrickle_changes.buffer_1_0 WHERE c1 = 701 AND c2 > 9"),
	'1 10, -1 10, 1 11, -1 11, 1 12', 'captured once by triggers that all fire always');
sql("SELECT capture_test.install('s', '{1}', false)");
$capture->takes('c', qr/^\d+/, 'after that');

# --- values -----------------------------------------------------------------------------

sql(q{
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN short AS varchar(10) CHECK (value <> 'bad');
CREATE TABLE v (id int, gone int, big text, m mood, p pair, d short, n numeric(10, 2), arr int[], j jsonb, f float8,
	g int GENERATED ALWAYS AS (id * 2) STORED);
ALTER TABLE v DROP COLUMN gone;
ALTER TABLE v ALTER COLUMN big SET STORAGE EXTERNAL;
INSERT INTO v VALUES (1, repeat('x', 3000), 'sad', (1, 'p'), 'd', 1.5, '{1,2}', '{"a":1}', 'NaN'),
	(1, repeat('x', 3000), 'sad', (1, 'p'), 'd', 1.5, '{1,2}', '{"a":1}', 'NaN'),
	(2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
});
$capture->consume('v', 'v', qw(id big m p d n arr j f g));
$capture->check_all('v',
	"UPDATE v SET m = 'happy' WHERE id = 1" => '4',
	"UPDATE v SET big = big || '' WHERE id = 1" => '0',
	"UPDATE v SET big = repeat('x', 2999) || 'y' WHERE id = 1" => '4',
	"UPDATE v SET n = 1.50" => '2',
	"UPDATE v SET p.y = NULL, arr[3] = 7, f = '-0', j = '{}', d = 'other' WHERE id = 1" => '4',
	"UPDATE v SET f = 0 WHERE id = 1" => '4',
	"UPDATE v SET id = id + 1" => '6',
	"SET session_replication_role = replica; UPDATE v SET m = NULL" => '4',
	"DELETE FROM v WHERE ctid IN (SELECT ctid FROM v WHERE id = 2 LIMIT 1)" => '1',
	"ALTER TABLE v RENAME COLUMN m TO \"Mo\"\"od\"; UPDATE v SET \"Mo\"\"od\" = 'sad'" => '4',
	"ALTER TABLE v ADD COLUMN later int DEFAULT 5; INSERT INTO v (id) VALUES (9)" => '1',
	"ALTER DOMAIN short ADD CHECK (value <> 'worse'); INSERT INTO v (d) VALUES ('a')" => '1',
	"VACUUM FULL v; UPDATE v SET id = id + 1" => qr/^\d+$/);

# Adding a consumer that needs another column; the old one does not notice.
$capture->consume('v2', 'v', 'id', 'later');
$capture->check_all('v2', "UPDATE v SET later = id" => qr/^\d+$/);
$capture->takes('v', qr/^\d+$/, 'the other consumer goes on');
is(sql("SELECT count(*) FROM pgtrickle.pgt_sources WHERE source_relid = 'v'::regclass"), '1', 'one source for both');

# Another type under an old column: only a marker can be written until install.
$capture->sql_without_hooks("ALTER TABLE v ALTER COLUMN later TYPE text USING 'text' || later; UPDATE v SET later = 'other' WHERE id IS NOT NULL");
like(sql("SELECT capture_test.broken('v')"), qr/type of column "later"/, 'a type change is noticed');
sql("SELECT capture_test.install('v', '{}', false)");
is(sql("SELECT capture_test.broken('v')"), '', 'and repaired');
$capture->takes('v2', qr/^\d+ truncated$/, 'marker after a type change');
$capture->takes('v', qr/^\d+ truncated$/, 'marker for the other consumer');
$capture->check_all('v2', "UPDATE v SET later = 'third' WHERE id IS NOT NULL" => qr/^\d+$/);

# No column at all: count(*).
sql("CREATE TABLE z (a int)");
$capture->consume('z', 'z');
$capture->check_all('z',
	"INSERT INTO z VALUES (1), (2), (NULL)" => '3',
	"UPDATE z SET a = 5" => '0',
	"DELETE FROM z WHERE a IS NOT NULL" => '3');
sql("CREATE TABLE nothing ()");
$capture->consume('nothing', 'nothing');
$capture->check_all('nothing', "INSERT INTO nothing DEFAULT VALUES" => '1', "DELETE FROM nothing" => '1');

# Names that need quotes.
sql(q{CREATE SCHEMA "S "".x"; CREATE TABLE "S "".x"."T'1" ("sel""ect" int, "c1" text)});
$node->safe_psql('postgres', q{SELECT capture_test.add('q', '"S "".x"."T''1"', ARRAY['sel"ect', 'c1'])});
sql("SELECT capture_test.take('q')");
$capture->check_all('q', q{INSERT INTO "S "".x"."T'1" VALUES (1, 'x')} => '1');

# --- foreign keys -----------------------------------------------------------------------

sql(q{
CREATE TABLE pk (id int PRIMARY KEY);
CREATE TABLE fk (id int, p int REFERENCES pk ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE,
	q int REFERENCES pk ON DELETE SET NULL);
INSERT INTO pk SELECT generate_series(1, 10);
INSERT INTO fk SELECT g, g, 11 - g FROM generate_series(1, 10) AS g;
});
$capture->consume('fk', 'fk', 'id', 'p', 'q');
sql("DELETE FROM pk WHERE id IN (1, 3)");
$capture->takes('fk', '6', 'ON DELETE CASCADE and SET NULL');
sql("ALTER TABLE fk DROP CONSTRAINT fk_q_fkey; UPDATE pk SET id = id + 100");
$capture->takes('fk', '16', 'ON UPDATE CASCADE');
is( sql(q{
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO fk VALUES (1000, 5000, 0);
SELECT capture_test.take('fk');
INSERT INTO pk VALUES (5000);
COMMIT}),
	'1', 'a refresh while a constraint is pending');
$capture->takes('fk', '0', 'nothing more after that');

# --- user triggers ------------------------------------------------------------------------

sql(q{
CREATE TABLE u1 (a int);
CREATE TABLE u2 (a int);
CREATE FUNCTION copy_on() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO u2 VALUES (new.a); UPDATE u1 SET a = a + 1000 WHERE a = new.a AND a < 10; RETURN NULL; END $$;
CREATE TRIGGER copy_on AFTER INSERT ON u1 FOR EACH ROW EXECUTE FUNCTION copy_on();
CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN IF new.a = 13 THEN RETURN NULL; END IF; new.a = new.a + 1; RETURN new; END $$;
CREATE TRIGGER change BEFORE INSERT ON u2 FOR EACH ROW EXECUTE FUNCTION change();
});
$capture->consume('u1', 'u1', 'a');
$capture->consume('u2', 'u2', 'a');
sql("INSERT INTO u1 SELECT generate_series(1, 20)");
$capture->takes('u1', '38', 'a trigger that changes its own table');
$capture->takes('u2', '19', 'a trigger that changes another table');

# A refresh in the middle of a statement would count its rows twice.
sql(q{
CREATE FUNCTION refresh_inside() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN PERFORM capture_test.take('u1'); RETURN NULL; END $$;
CREATE FUNCTION refresh_value(x int) RETURNS int LANGUAGE plpgsql AS
	$$ BEGIN PERFORM capture_test.take('u1'); RETURN x; END $$;
CREATE TRIGGER aaa AFTER UPDATE ON u1 FOR EACH ROW EXECUTE FUNCTION refresh_inside();
});
like(error_of($node, "UPDATE u1 SET a = a + 1"), qr/55006.*cannot refresh while a statement/, 'refresh in a row trigger');
sql("DROP TRIGGER aaa ON u1");
like(error_of($node, "UPDATE u1 SET a = refresh_value(a)"), qr/55006/, 'refresh in an expression');
sql("DO \$\$ DECLARE r record; BEGIN FOR r IN UPDATE u1 SET a = 1 RETURNING a LOOP PERFORM capture_test.take('u1'); END LOOP; END \$\$");
$capture->takes('u1', '0', 'a loop over UPDATE ... RETURNING is fine');
sql("DO \$\$ DECLARE r record; BEGIN FOR r IN SELECT * FROM u1 LOOP PERFORM capture_test.take('u1'); END LOOP; END \$\$");
$capture->takes('u1', '0', 'a loop over SELECT is fine');
sql("CREATE TABLE other (a int); CREATE TRIGGER aaa AFTER INSERT ON other FOR EACH ROW EXECUTE FUNCTION refresh_inside()");
$capture->check_all('u1', "BEGIN; UPDATE u1 SET a = a + 1; INSERT INTO other VALUES (1); COMMIT" => '0');

# RI queries leave their statement triggers to the outer statement.
sql(q{
CREATE FUNCTION refresh_fk() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN PERFORM capture_test.take('fk'); RETURN NULL; END $$;
CREATE TRIGGER zzz AFTER DELETE ON pk FOR EACH ROW EXECUTE FUNCTION refresh_fk();
});
like(error_of($node, "DELETE FROM pk WHERE id = 105"), qr/55006/, 'refresh between a cascade and its capture');
sql("DROP TRIGGER zzz ON pk");
$capture->check_all('fk', "DELETE FROM pk WHERE id = 105" => '1');

# --- rights, dumps, the end -----------------------------------------------------------------

sql("CREATE ROLE writer LOGIN; GRANT INSERT, UPDATE, DELETE, SELECT, TRUNCATE ON s TO writer");
sql("SET ROLE writer; SET search_path = pg_temp; INSERT INTO public.s VALUES (900, 1, 'w'); UPDATE public.s SET a = 2 WHERE id = 900");
$capture->takes('c', '3', 'a writer without any right on the extension');
like(error_of($node, "SET ROLE writer; SELECT * FROM pgtrickle_changes.buffer_1_0"), qr/42501/, 'who may not read buffers');
like(error_of($node, "CREATE TABLE w (a int); CREATE TRIGGER x BEFORE INSERT ON w FOR EACH ROW EXECUTE FUNCTION pgtrickle.capture_row('1'); INSERT INTO w VALUES (1)"),
	qr/39P01/, 'a trigger of another kind');

my %reasons = (
	"CREATE VIEW xv AS SELECT 1" => [ 'xv', qr/views have no rows/ ],
	"CREATE MATERIALIZED VIEW xm AS SELECT 1" => [ 'xm', qr/materialized views/ ],
	"CREATE UNLOGGED TABLE xu (a int)" => [ 'xu', qr/unlogged/ ],
	"CREATE SEQUENCE xs" => [ 'xs', qr/only tables/ ],
	"SELECT 1" => [ 'pg_class', qr/system catalogs/ ],
	"SELECT 2" => [ 'pgtrickle.pgt_sources', qr/pg_trickle itself/ ],
	"CREATE FOREIGN DATA WRAPPER w; CREATE SERVER w FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE xf (a int) SERVER w" => [ 'xf', qr/foreign/ ],
	"CREATE TABLE xp (a int) PARTITION BY LIST (a); CREATE UNLOGGED TABLE xp1 PARTITION OF xp DEFAULT" => [ 'xp', qr/"xp1" cannot be captured: unlogged/ ]);
for my $make (sort keys %reasons)
{
	my ($relation, $pattern) = @{ $reasons{$make} };

	sql($make);
	like(sql("SELECT capture_test.reason('$relation')"), $pattern, "reason for $relation");
}
like(sql("CREATE TEMP TABLE xt (a int); SELECT capture_test.reason('xt')"), qr/temporary/, 'reason for a temporary table');
like(error_of($node, "SELECT capture_test.install('xu', '{1}', false)"), qr/0A000.*cannot be captured.*FULL/s, 'install says so');

my $dump = `pg_dump -h @{[ $node->host ]} -p @{[ $node->port ]} postgres`;
unlike($dump, qr/buffer_\d|CREATE TRIGGER pgt/, 'buffers and triggers are not dumped');
like($dump, qr/COPY pgtrickle\.pgt_sources/, 'the list of sources is');

# Changes survive a crash.
sql("INSERT INTO s VALUES (901, 1, 'crash')");
$node->stop('immediate');
$node->start;
$capture->takes('c', '1', 'a change before a crash');

# A dropped source leaves nothing behind.
my $z = sql("SELECT 'z'::regclass::oid");
my $z_id = sql("SELECT source_id FROM pgtrickle.pgt_sources WHERE source_relid = 'z'::regclass");
sql("SELECT capture_test.release('z'::regclass)");
is(sql("SELECT count(*) FROM pgtrickle.pgt_sources WHERE source_relid = 'z'::regclass"), '1', 'release keeps what has consumers');
sql("DROP TABLE z; SELECT capture_test.release($z)");
is(sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'buffer\\_$z_id\\_%'"), '0', 'buffers of a dropped source are gone');
sql("DELETE FROM pgtrickle.pgt_dependencies WHERE source_relid = 's'::regclass; SELECT capture_test.release('s'::regclass)");
is(sql("SELECT count(*) FROM pg_trigger WHERE tgrelid = 's'::regclass"), '0', 'triggers of a released source are gone');
sql("INSERT INTO s VALUES (902)");

# The extension can be dropped, taking triggers and buffers along.
sql("DROP TABLE w; DROP SCHEMA capture_test CASCADE; DROP EXTENSION pg_trickle");
is(sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'buffer\\_%'"), '0', 'no buffers without the extension');
is(sql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgt\\_%'"), '0', 'no triggers without the extension');
sql("INSERT INTO v (id) VALUES (1)");

done_testing();
