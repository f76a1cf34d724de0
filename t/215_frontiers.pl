# Every stream table, whenever somebody looks, shows what its query gives at the frontier it reports.
# Rows are only inserted into the base tables, so that those of any snapshot can be counted later.
use strict;
use warnings;

use IPC::Run;
use Test::More;

use PgTrickle;

my $node = PgTrickle->new_node('frontiers', settings => "max_worker_processes = 12\nautovacuum = off\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

# What each counts: rows of o, rows of d.
my %shows = (
	a1 => 'o', a2 => 'o', a3 => 'o', b => 'd', mixed => 'o d', two => 'o d', diamond => 'o', top => 'o d', seldom => 'o d', calm => 'o');
sql(q{
	CREATE TABLE o (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, g int);
	CREATE TABLE d (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, g int);
	CREATE TABLE still (g int PRIMARY KEY);
	INSERT INTO o (g) SELECT i % 4 FROM generate_series(1, 8) i;
	INSERT INTO d (g) SELECT i % 4 FROM generate_series(1, 8) i;
	INSERT INTO still SELECT generate_series(0, 3);
	SELECT pgtrickle.create_stream_table('a1', 'SELECT g, count(*) AS o FROM o GROUP BY g', '1s');
	SELECT pgtrickle.create_stream_table('a2', 'SELECT g, o FROM a1');
	SELECT pgtrickle.create_stream_table('a3', 'SELECT sum(o) AS o FROM a2', '1s');
	SELECT pgtrickle.create_stream_table('b', 'SELECT g, count(*) AS d FROM d GROUP BY g', '1s');
	SELECT pgtrickle.create_stream_table('mixed', 'SELECT a2.g, a2.o, count(d.id) AS d FROM a2 LEFT JOIN d USING (g) GROUP BY a2.g, a2.o', '1s');
	SELECT pgtrickle.create_stream_table('two', 'SELECT g, o, d FROM a2 JOIN b USING (g)', '1s');
	SELECT pgtrickle.create_stream_table('diamond', 'SELECT a1.g, a1.o FROM a1 JOIN (SELECT g, count(*) AS n FROM o GROUP BY g) x ON x.g = a1.g AND x.n = a1.o', '1s');
	SELECT pgtrickle.create_stream_table('top', 'SELECT sum(o) AS o, sum(d) AS d FROM two', '1s');
	SELECT pgtrickle.create_stream_table('calm', 'SELECT a1.g, o FROM a1 JOIN still USING (g)', '1s');
	SELECT pgtrickle.create_stream_table('seldom', 'SELECT a3.o, count(d.id) AS d FROM a3 LEFT JOIN d ON true GROUP BY a3.o', '2s');
	CREATE FUNCTION rows_at(source regclass, frontier pg_snapshot) RETURNS bigint LANGUAGE plpgsql AS $$
	DECLARE n bigint;
	BEGIN
		EXECUTE format('SELECT count(*) FROM %s WHERE pg_visible_in_snapshot(xmin::text::xid8, $1)', source) INTO n USING frontier;
		RETURN n;
	END $$});
my $rows = join ' UNION ALL ', map {
	my $st = $_;
	"SELECT '$st' AS st, " . join(', ', map { $shows{$st} =~ /$_/ ? "(SELECT sum($_) FROM $st) AS $_" : "NULL::numeric AS $_" } qw(o d))
} sort keys %shows;
# One statement, one snapshot: rows and frontier belong together.
my $look = "SELECT pgt_name, frontier IS NULL, frontier, shown.o, shown.d FROM pgtrickle.pgt_stream_tables JOIN ($rows) shown ON st = pgt_name";
my $check = "SELECT count(*) FILTER (WHERE o IS DISTINCT FROM CASE WHEN o IS NOT NULL THEN rows_at('o', frontier) END"
  . " OR d IS DISTINCT FROM CASE WHEN d IS NOT NULL THEN rows_at('d', frontier) END) AS wrong, count(*)"
  . " FROM (SELECT st, frontier::pg_snapshot AS frontier, o, d FROM (SELECT DISTINCT st, frontier::text, o, d FROM seen WHERE frontier IS NOT NULL) y) x";

my $script = $node->basedir . '/insert.sql';
open(my $file, '>', $script) or die $!;
print $file "\\set g random(0, 3)\nINSERT INTO o (g) VALUES (:g);\nINSERT INTO d (g) VALUES (:g);\n\\sleep 4 ms\n";
close $file;

for my $workers (0, 4)
{
	$node->append_conf('postgresql.conf', "pg_trickle.max_parallel_workers = $workers\n");
	$node->reload;
	my $load = IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-T', 600, '-f', $script, $node->connstr('postgres') ],
		'>', \my $out, '2>', \my $errors);
	my $session = $node->background_psql('postgres', on_error_stop => 1);
	$session->query_safe("SET client_min_messages = error; DROP TABLE IF EXISTS seen; CREATE TABLE seen (st text, several bool, frontier pg_snapshot, o numeric, d numeric)");
	# Until each has been seen at so many frontiers.
	my $done = "SELECT count(*) >= ${\ scalar keys %shows} FROM (SELECT st FROM seen GROUP BY st HAVING count(DISTINCT frontier::text) >= 6) x";
	for my $try (1 .. 15000)
	{
		$session->query_safe("INSERT INTO seen $look");
		last if $try % 50 == 0 && $session->query_safe($done) =~ /^t/;
	}
	$load->kill_kill;
	is($session->query_safe($done), 't', "$workers workers: every stream table was seen at several frontiers");
	my ($wrong, $all) = split /\|/, $session->query_safe($check);
	is($wrong, 0, "each of $all contents is what the frontier says");
	diag($session->query_safe("SELECT *, rows_at('o', frontier), rows_at('d', frontier) FROM seen WHERE o <> rows_at('o', frontier) OR d <> rows_at('d', frontier) LIMIT 5"))
	  if $wrong > 0;
	# Refreshed alone, mixed and two would show their sources as of different snapshots most of the time.
	is($session->query_safe("SELECT string_agg(DISTINCT st, ' ') FROM seen WHERE several"), '', 'and all showed a single snapshot');
	$session->quit;
	wait_for_fresh($node, $_) && stream_table_is_right($node, $_) for sort keys %shows;
}

done_testing();
