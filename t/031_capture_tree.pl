# Capture of partitioned and inherited tables, and of their parts. Test builds.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgtCapture;

plan skip_all => 'needs a build with test points' unless has_test_points();

my $node = PgTrickle->new_node('tree', scheduler => 0);
my $capture = PgtCapture->new($node);

sub sql { return $capture->sql(@_); }

# Three levels, columns in another order, dropped columns; the root, a part in the middle
# and a leaf are sources at the same time.
sql(q{
CREATE TABLE p (dropped int, id int, k text, v numeric, unused int) PARTITION BY LIST (k);
ALTER TABLE p DROP COLUMN dropped;
CREATE TABLE pa PARTITION OF p FOR VALUES IN ('a');
CREATE TABLE pb (v numeric, gone text, k text, id int, unused int) PARTITION BY RANGE (id);
ALTER TABLE pb DROP COLUMN gone;
CREATE TABLE pb1 (id int, v numeric, unused int, k text);
CREATE TABLE pb2 (unused int, k text, x int, v numeric, id int);
ALTER TABLE pb2 DROP COLUMN x;
ALTER TABLE pb ATTACH PARTITION pb1 FOR VALUES FROM (0) TO (100);
ALTER TABLE pb ATTACH PARTITION pb2 FOR VALUES FROM (100) TO (200);
ALTER TABLE p ATTACH PARTITION pb FOR VALUES IN ('b');
INSERT INTO p (id, k, v) SELECT g, CASE WHEN g % 2 = 0 THEN 'a' ELSE 'b' END, g FROM generate_series(1, 20) AS g;
});
$capture->consume('p', 'p', 'id', 'k', 'v');
$capture->consume('pb', 'pb', 'id', 'v');
$capture->consume('pb1', 'pb1', 'v', 'k');
is(sql("SELECT string_agg(source_relid || ' ' || method, ', ' ORDER BY source_id) FROM pgtrickle.pgt_sources"),
	'p STATEMENT, pb ROW, pb1 ROW', 'methods');

# Statement, images for p, pb, pb1.
sub check_tree
{
	my ($sql, @expected) = @_;

	sql($sql);
	for my $name (qw(p pb pb1))
	{
		$capture->takes($name, shift @expected, substr($sql, 0, 70));
	}
}

check_tree("INSERT INTO p (id, k, v) VALUES (21, 'a', 1), (22, 'b', 2), (122, 'b', 3)", 3, 2, 1);
check_tree("INSERT INTO pb (id, k, v) VALUES (23, 'b', 2), (123, 'b', 3)", 2, 2, 1);
check_tree("INSERT INTO pb1 (id, k, v) VALUES (24, 'b', 2)", 1, 1, 1);
check_tree("INSERT INTO pb2 (id, k, v) VALUES (124, 'b', 2)", 1, 1, 0);
check_tree("INSERT INTO pa (id, k, v) VALUES (25, 'a', 2)", 1, 0, 0);
check_tree("UPDATE p SET v = v + 1 WHERE id IN (22, 122, 25)", 6, 4, 2);
check_tree("UPDATE p SET unused = 1", 0, 0, 0);
check_tree("UPDATE p SET k = 'b' WHERE id = 21", 2, 1, 1);
check_tree("UPDATE p SET k = 'a' WHERE id IN (21, 123)", 4, 2, 1);
check_tree("UPDATE pb SET id = id + 100 WHERE id = 23", 2, 2, 1);
check_tree("UPDATE pb1 SET v = 0 WHERE id = 24", 2, 2, 2);
check_tree("DELETE FROM p WHERE id IN (22, 122, 25)", 3, 2, 1);
check_tree("DELETE FROM pb2 WHERE id = 124", 1, 1, 0);
check_tree("COPY p (id, k, v) FROM PROGRAM 'printf ''30\\ta\\t1\\n31\\tb\\t2\\n'''", 2, 1, 1);
check_tree("COPY pb1 (id, k, v) FROM PROGRAM 'printf ''32\\tb\\t2\\n'''", 1, 1, 1);
check_tree("MERGE INTO p USING (VALUES (31), (33)) AS s (id) ON p.id = s.id
	WHEN MATCHED THEN UPDATE SET v = 77 WHEN NOT MATCHED THEN INSERT (id, k, v) VALUES (s.id, 'b', 1)", 3, 3, 3);
check_tree("WITH d AS (DELETE FROM pa WHERE id = 30 RETURNING *) INSERT INTO pb1 (id, k, v) SELECT id, 'b', v FROM d", 2, 1, 1);
check_tree("SET session_replication_role = replica; INSERT INTO p (id, k, v) VALUES (40, 'a', 1), (41, 'b', 2)", 2, 1, 1);
check_tree("SET session_replication_role = replica; UPDATE p SET v = 5 WHERE id IN (40, 41)", 4, 2, 2);
check_tree("SET session_replication_role = replica; UPDATE p SET k = 'b' WHERE id = 40", 2, 1, 1);
check_tree("SET session_replication_role = replica; DELETE FROM pb1 WHERE id = 40", 1, 1, 1);
check_tree("TRUNCATE pa", qr/truncated/, 0, 0);
check_tree("TRUNCATE pb2", qr/truncated/, qr/truncated/, 0);
check_tree("INSERT INTO p (id, k, v) SELECT g, CASE WHEN g % 2 = 0 THEN 'a' ELSE 'b' END, g FROM generate_series(50, 60) AS g", 11, 5, 5);
check_tree("TRUNCATE p", qr/truncated/, qr/truncated/, qr/truncated/);

# A trigger that swallows a moving row leaves an old image without a new one.
sql(q{
INSERT INTO p (id, k, v) SELECT g, CASE WHEN g % 2 = 0 THEN 'a' ELSE 'b' END, g FROM generate_series(1, 20) AS g;
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER swallow BEFORE INSERT ON pb1 FOR EACH ROW WHEN (new.id % 3 = 0) EXECUTE FUNCTION swallow();
});
$capture->takes($_, qr/\d/, 'filled again') for qw(p pb pb1);
check_tree("UPDATE p SET k = 'b', v = 0 WHERE k = 'a'", 17, 7, 7);
sql("DROP TRIGGER swallow ON pb1");

# --- parts come and go -------------------------------------------------------------------

# With the hook: new empty parts need nothing, others leave a marker.
sql("CREATE TABLE pc PARTITION OF p FOR VALUES IN ('c'); SELECT capture_test.follow('p')");
is(sql("SELECT capture_test.broken('p')"), '', 'followed a new partition');
check_tree("INSERT INTO pc (id, k, v) VALUES (1, 'c', 1)", 1, 0, 0);
sql(q{
CREATE TABLE pd (v numeric, id int, k text, unused int);
INSERT INTO pd VALUES (1, 1, 'd');
BEGIN; ALTER TABLE p ATTACH PARTITION pd FOR VALUES IN ('d'); SELECT capture_test.follow(NULL); COMMIT;
INSERT INTO pd VALUES (2, 2, 'd')});
check_tree("SELECT 1", qr/truncated/, 0, 0);
check_tree("UPDATE pd SET v = v + 1", 4, 0, 0);
sql("BEGIN; ALTER TABLE p DETACH PARTITION pd; SELECT capture_test.follow(NULL); COMMIT; UPDATE pd SET v = 100");
is(sql("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'pd'::regclass"), '0', 'a detached partition has no triggers');
check_tree("SELECT 1", qr/truncated/, 0, 0);
sql("DROP TABLE pc; SELECT capture_test.follow('p')");
check_tree("SELECT 1", qr/truncated/, 0, 0);

# Without it: noticed at the next refresh, and nothing wrong is written meanwhile.
$capture->sql_without_hooks("CREATE TABLE pe PARTITION OF p FOR VALUES IN ('e'); INSERT INTO pe (id, k) VALUES (5, 'e'); INSERT INTO p (id, k) VALUES (6, 'e')");
like(sql("SELECT capture_test.broken('p')"), qr/added or removed/, 'a new partition without the hook');
$capture->takes('p', qr/added or removed/, 'everything is computed');
sql("SELECT capture_test.install('p', '{}', false)");
check_tree("INSERT INTO pe (id, k) VALUES (7, 'e')", 1, 0, 0);
$capture->sql_without_hooks("ALTER TABLE p DETACH PARTITION pe; UPDATE pe SET v = 1");
is(sql("SELECT count(*) FROM pgtrickle_changes.buffer_1_0 WHERE c3 = 'e' AND c4 = 1"), '0',
	'triggers left on a detached partition write nothing');
like(sql("SELECT capture_test.broken('p')"), qr/added or removed/, 'a detached partition without the hook');
sql("SELECT capture_test.install('p', '{}', false)");
is(sql("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'pe'::regclass"), '0', 'install removes them');

# A source that becomes a partition changes its method.
sql(q{
CREATE TABLE q1 (id int, k int);
INSERT INTO q1 VALUES (1, 1);
CREATE TABLE q (k int, id int) PARTITION BY LIST (k)});
$capture->consume('q1', 'q1', 'id');
$capture->check_all('q1', "INSERT INTO q1 VALUES (2, 1)" => '1');
$capture->sql_without_hooks("ALTER TABLE q ATTACH PARTITION q1 FOR VALUES IN (1)");
like(sql("SELECT capture_test.broken('q1')"), qr/another parent/, 'a source that became a partition');
sql("SELECT capture_test.follow('q1')");
is(sql("SELECT capture_test.broken('q1')"), '', 'followed');
$capture->check_all('q1',
	"INSERT INTO q VALUES (1, 3)" => '1',
	"INSERT INTO q1 VALUES (4, 1)" => '1',
	"DELETE FROM q WHERE id = 3" => '1');
sql("ALTER TABLE q DETACH PARTITION q1; SELECT capture_test.follow('q1')");
is(sql("SELECT method FROM pgtrickle.pgt_sources WHERE source_relid = 'q1'::regclass"), 'STATEMENT', 'and back');
$capture->check_all('q1', "INSERT INTO q1 VALUES (5, 1)" => '1', "UPDATE q1 SET id = id + 1" => '8');

# Foreign keys that point to partitions.
sql(q{
CREATE TABLE r (id int PRIMARY KEY);
CREATE TABLE rp (r int REFERENCES r ON DELETE CASCADE ON UPDATE CASCADE, n int) PARTITION BY HASH (n);
CREATE TABLE rp0 PARTITION OF rp FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE rp1 PARTITION OF rp FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO r SELECT generate_series(1, 10);
INSERT INTO rp SELECT g, g FROM generate_series(1, 10) AS g});
$capture->consume('rp', 'rp', 'r', 'n');
$capture->consume('rp0', 'rp0', 'r');
sql("DELETE FROM r WHERE id <= 4; UPDATE r SET id = id + 100");
$capture->takes('rp', '16', 'cascades into a partitioned table');
$capture->takes('rp0', qr/^\d+$/, 'cascades into a partition');

# --- inheritance ---------------------------------------------------------------------------

sql(q{
CREATE TABLE i (id int, v text);
CREATE TABLE i2 (more int, v text, id int);
ALTER TABLE i2 INHERIT i;
CREATE TABLE j (z int);
CREATE TABLE i3 (extra text) INHERITS (i2, j);
INSERT INTO i VALUES (1, 'i');
INSERT INTO i2 VALUES (0, 'i2', 2);
INSERT INTO i3 (id, v) VALUES (3, 'i3')});
$capture->consume('i', 'i', 'id', 'v');
$capture->consume('i2', 'i2', 'id', 'more');
$capture->consume('i3', 'i3', 'v');
is(sql("SELECT method FROM pgtrickle.pgt_sources WHERE source_relid = 'i'::regclass"), 'ROW', 'a child with another parent');

sub check_inheritance
{
	my ($sql, @expected) = @_;

	sql($sql);
	for my $name (qw(i i2 i3))
	{
		$capture->takes($name, shift @expected, $sql);
	}
}
check_inheritance("UPDATE i SET v = v || '!'", 6, 0, 2);
check_inheritance("UPDATE i SET id = id + 10", 6, 4, 0);
check_inheritance("UPDATE ONLY i SET v = 'only'", 2, 0, 0);
check_inheritance("UPDATE i2 SET more = 5", 0, 4, 0);
check_inheritance("UPDATE j SET z = 1", 0, 0, 0);
check_inheritance("INSERT INTO i3 (id, v) VALUES (4, 'i3')", 1, 1, 1);
check_inheritance("SET session_replication_role = replica; UPDATE i SET id = id + 1", 8, 6, 0);
check_inheritance("DELETE FROM j", 2, 2, 2);
check_inheritance("DELETE FROM i", 2, 1, 0);
check_inheritance("TRUNCATE i2", qr/truncated/, qr/truncated/, qr/truncated/);
check_inheritance("TRUNCATE ONLY i", qr/truncated/, 0, 0);
sql("CREATE TABLE i4 () INHERITS (i); SELECT capture_test.follow(NULL)");
check_inheritance("INSERT INTO i4 VALUES (9, 'i4')", 1, 0, 0);
sql("ALTER TABLE i3 NO INHERIT i2; SELECT capture_test.follow(NULL)");
check_inheritance("INSERT INTO i3 (id, v) VALUES (9, 'i3')", 0, 0, 1);

# Everything at once, with the parts moving.
sql("SELECT capture_test.install(relid, '{}', false) FROM capture_test.consumer");
sql("UPDATE pgtrickle.pgt_frontiers SET snapshot = NULL WHERE pgt_id = (SELECT id FROM capture_test.consumer WHERE name = 'p')");
$capture->takes($_, qr/^\d+/, 'before random moves') for qw(p pb pb1);
sql(q{
DO $$
BEGIN
	FOR n IN 1..300 LOOP
		INSERT INTO p (id, k, v) VALUES ((random() * 199)::int, CASE WHEN random() < 0.5 THEN 'a' ELSE 'b' END, n);
		UPDATE p SET id = (random() * 199)::int, k = CASE WHEN random() < 0.5 THEN 'a' ELSE 'b' END WHERE v = (random() * n)::int;
		UPDATE pb SET id = (random() * 199)::int WHERE v = (random() * n)::int;
		DELETE FROM pb1 WHERE v = (random() * n)::int;
	END LOOP;
END $$});
$capture->takes($_, qr/^\d+$/, 'random moves') for qw(p pb pb1);

done_testing();
