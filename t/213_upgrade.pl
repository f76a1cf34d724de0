# ALTER EXTENSION UPDATE from 0.21.0: stream tables made by the old library itself, with changes
# that it has not brought in; the new library before the update; the update under load, with workers
# in the server; and then the same objects as in a fresh database, the same rows, and right refreshes.
use strict;
use warnings;

use IPC::Run;
use Test::More;

use PgTrickle;
use PgtUpgrade;

my $old = '0.21.0';
my $server_major = int(`$ENV{PG_CONFIG} --version` =~ /(\d+)/ ? $1 : 0);

plan skip_all => "version $old knows PostgreSQL 15 only" if $server_major != 15;

my $release = build_release($old);

is(PostgreSQL::Test::Utils::slurp_file("sql/releases/pg_trickle--$old.sql"),
	PostgreSQL::Test::Utils::slurp_file("$release->{src}/sql/pg_trickle--$old.sql"),
	"the script of $old is kept as it was released");

my $node = PostgreSQL::Test::Cluster->new('upgraded', install_path => $release->{prefix});
$node->init(allows_streaming => 'logical');
# The server itself says nothing of settings that the old library does not know.
$node->append_conf('postgresql.conf', PgTrickle::default_settings(scheduler => 1)
	  . "pg_trickle.scheduler_interval_ms = '1s'\nautovacuum = off\nlog_min_messages = info\n");
$node->start;

sub sql { my ($sql, $db) = @_; return $node->safe_psql($db || 'postgres', $sql) }

sub set
{
	my ($name, $value) = @_;
	$node->append_conf('postgresql.conf', "$name = '$value'\n");
	$node->reload;
	return;
}

sub log_text { return PostgreSQL::Test::Utils::slurp_file($node->logfile) }

# --- 0.21.0 at work ----------------------------------------------------------------------------

sql(q{CREATE EXTENSION pg_trickle;
	CREATE ROLE owner_of_some; CREATE ROLE reader; GRANT CREATE ON SCHEMA public TO owner_of_some;});
is(sql('SELECT extversion || pgtrickle.version() FROM pg_extension WHERE extname = $$pg_trickle$$'), "$old$old",
	"library and extension are $old");

sql(q{
	CREATE TABLE dept (id int PRIMARY KEY, name text NOT NULL, boss int);
	CREATE TABLE emp (id int PRIMARY KEY, dept int, pay numeric NOT NULL, note text);
	CREATE TABLE ev (emp int, at int, what text);
	CREATE TABLE tree (id int PRIMARY KEY, parent int);
	CREATE TABLE part (id int, k int, v int) PARTITION BY RANGE (id);
	CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
	CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (100) TO (10000);
	INSERT INTO dept SELECT i, 'd' || i, nullif(i % 5, 0) FROM generate_series(1, 20) i;
	INSERT INTO emp SELECT i, nullif(i % 23, 0), i * 1.5, 'n' || i % 7 FROM generate_series(1, 300) i;
	INSERT INTO ev SELECT i % 290, i % 13, 'w' || i % 3 FROM generate_series(1, 900) i;
	INSERT INTO tree SELECT i, nullif(i / 2, 0) FROM generate_series(1, 60) i;
	INSERT INTO part SELECT i, i % 5, i FROM generate_series(1, 200) i;
	GRANT SELECT, INSERT, UPDATE, DELETE ON dept, emp, ev TO owner_of_some;});

# name => [query, schedule, mode]. Several are analysed otherwise since then.
my @stream_tables = (
	[ plain        => q{SELECT e.id, e.pay, d.name FROM emp e JOIN dept d ON d.id = e.dept}, '100ms' ],
	[ by_dept      => q{SELECT dept, count(*) AS n, sum(pay) AS pay, max(note) AS note FROM emp GROUP BY dept}, '100ms' ],
	[ over_groups  => q{SELECT n % 3 AS n3, count(*) AS n, sum(pay) AS pay FROM by_dept GROUP BY n % 3}, 'calculated' ],
	[ joins_groups => q{SELECT d.name, g.n, g.pay FROM dept d LEFT JOIN by_dept g ON g.dept = d.id}, '200ms' ],
	[ in_groups    => q{SELECT id, note FROM emp WHERE dept IN (SELECT dept FROM emp GROUP BY dept HAVING count(*) > 12)}, '100ms' ],
	[ in_unique    => q{SELECT id, emp, at FROM (SELECT e.id, v.emp, v.at FROM ev v JOIN emp e ON e.id = v.emp WHERE v.emp IN (SELECT id FROM emp WHERE pay > 100)) x}, '100ms' ],
	[ exists_one   => q{SELECT emp, at FROM ev v WHERE EXISTS (SELECT FROM emp e WHERE e.id = v.emp AND e.pay < 200)}, '100ms' ],
	[ unused       => q{SELECT s.dept, s.n FROM (SELECT dept, count(*) AS n, sum(pay) AS unused, min(note) AS least FROM emp GROUP BY dept) s WHERE s.n > 3}, '100ms' ],
	[ indistinct   => q{SELECT e.id, d.id AS did FROM emp e JOIN dept d ON d.boss IS NOT DISTINCT FROM e.dept}, '100ms' ],
	[ lateral_spj  => q{SELECT d.id, l.emp FROM dept d CROSS JOIN LATERAL (SELECT v.emp FROM ev v WHERE v.at = d.id AND v.what = 'w1') l}, '100ms' ],
	[ windowed     => q{SELECT id, rank() OVER (PARTITION BY dept ORDER BY pay, id) AS r FROM emp}, '100ms' ],
	[ topk         => q{SELECT id, pay FROM emp ORDER BY pay DESC, id LIMIT 7}, '100ms' ],
	[ distinct_on  => q{SELECT DISTINCT ON (dept) dept, id FROM emp ORDER BY dept, pay DESC, id}, '100ms' ],
	[ unions       => q{SELECT dept AS x FROM emp UNION SELECT id FROM dept}, '100ms' ],
	[ sets         => q{SELECT dept, note, count(*) AS n FROM emp GROUP BY ROLLUP (dept, note)}, '100ms' ],
	[ recursive    => q{WITH RECURSIVE r AS (SELECT id, parent, 0 AS depth FROM tree WHERE parent IS NULL UNION ALL SELECT t.id, t.parent, r.depth + 1 FROM tree t JOIN r ON t.parent = r.id) SELECT * FROM r}, '100ms' ],
	[ scalar_sub   => q{SELECT d.id, (SELECT sum(e.pay) FROM emp e WHERE e.dept = d.id) AS pay FROM dept d}, '100ms' ],
	[ twice        => q{WITH s AS (SELECT dept, count(*) AS n FROM emp GROUP BY dept) SELECT a.dept, b.dept AS other FROM s a JOIN s b ON b.n = a.n AND b.dept > a.dept}, '100ms' ],
	[ parts        => q{SELECT k, count(*) AS n, sum(v) AS v FROM part GROUP BY k}, '100ms' ],
	[ hourly       => q{SELECT note, count(*) AS n FROM emp GROUP BY note}, '0 * * * *' ],
	[ full_mode    => q{SELECT at, string_agg(what, ',' ORDER BY what) AS w FROM ev GROUP BY at}, '200ms', 'FULL' ],
	[ strict       => q{SELECT what, count(*) AS n FROM ev GROUP BY what}, '100ms', 'DIFFERENTIAL' ],
	[ without_key  => q{SELECT at, what FROM ev}, '100ms' ],
	[ constant     => q{SELECT 1 AS one}, 'calculated' ],
);
my @names = map { $_->[0] } @stream_tables;

for my $st (@stream_tables)
{
	my ($name, $query, $schedule, $mode) = @$st;
	sql(sprintf q{SELECT pgtrickle.create_stream_table('%s', $q$%s$q$, schedule => '%s', refresh_mode => '%s')},
		$name, $query, $schedule, $mode || 'AUTO');
}
# Others: of another owner, paused, never filled, and one that its mode will refuse.
sql(q{
	SET ROLE owner_of_some; SELECT pgtrickle.create_stream_table('owned', 'SELECT dept, avg(pay) AS pay FROM emp WHERE dept IN (SELECT id FROM dept) GROUP BY dept', schedule => '100ms'); RESET ROLE;
	SELECT pgtrickle.create_stream_table('paused', 'SELECT s.dept, s.n FROM (SELECT dept, count(*) AS n, sum(pay) AS p FROM emp GROUP BY dept) s', schedule => '100ms');
	SELECT pgtrickle.pause_stream_table('paused');
	SELECT pgtrickle.create_stream_table('empty', 'SELECT id FROM dept WHERE id IN (SELECT dept FROM emp)', schedule => '1h', initialize => false);
	CREATE TABLE will_be_unlogged (a int);
	SELECT pgtrickle.create_stream_table('refused', 'SELECT s.a, s.n FROM (SELECT a, count(*) AS n, sum(a) AS u FROM will_be_unlogged GROUP BY a) s', schedule => '100ms', refresh_mode => 'DIFFERENTIAL');
});
# What users put on stream tables.
sql(q{
	CREATE INDEX plain_name ON plain (name);
	CREATE VIEW plain_view AS SELECT name, count(*) FROM plain GROUP BY name;
	GRANT SELECT (id) ON plain TO reader; GRANT SELECT ON by_dept TO PUBLIC;
	COMMENT ON TABLE plain IS 'mine'; COMMENT ON COLUMN plain.pay IS 'in euros';
	ALTER TABLE by_dept ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON by_dept USING (n > 0);
	CREATE PUBLICATION pub FOR TABLE plain;
	CREATE VIEW status_view AS SELECT * FROM pgtrickle.pg_stat_stream_tables;
	CREATE VIEW history_view AS SELECT refresh_id, action, error_message FROM pgtrickle.pgt_refresh_history;
	GRANT EXECUTE ON FUNCTION pgtrickle.health_check() TO reader;});

sub write_some
{
	my ($n, $db) = @_;
	sql(qq{UPDATE emp SET pay = pay + $n, dept = (dept + 1) % 22 WHERE id % 9 = $n % 9;
		DELETE FROM ev WHERE at = $n % 13 AND emp % 4 = 1; INSERT INTO ev SELECT i, $n % 13, 'w' || $n % 4 FROM generate_series(1, 20) i;
		UPDATE dept SET name = name || '$n', boss = nullif($n % 4, 0) WHERE id % 6 = $n % 6; UPDATE tree SET parent = 1 + $n % 3 WHERE id = 50 + $n % 5;
		UPDATE part SET k = k + 1 WHERE id % 50 = $n % 50; INSERT INTO part VALUES (1000 + $n, 1, 1);}, $db);
	return;
}

for my $n (1 .. 3)
{
	write_some($n);
	wait_for_fresh($node, $_) || die("$_ is not fresh with $old") for grep { $_ ne 'hourly' } @names;
}
stream_table_is_right($node, $_, "$old: $_ is right") for grep { $_ ne 'hourly' } @names;
cmp_ok(sql(q{SELECT count(*) FROM pgtrickle.pgt_refresh_history WHERE action = 'DIFFERENTIAL' AND status = 'COMPLETED'}),
	'>', 20, "$old: the scheduler refreshed differentially");

# Changes that it has not brought in yet, and will be lost if the update forgets them.
set('pg_trickle.enabled', 'off');
wait_until($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'pg_trickle%' AND state <> 'idle'});
sql('ALTER TABLE will_be_unlogged SET UNLOGGED');
write_some(4);
my %rows = map { $_ => sql("SELECT md5(string_agg(t::text, ',' ORDER BY t::text COLLATE \"C\")) FROM $_ t") } @names, 'paused', 'owned';
my $history = q{SELECT md5(string_agg(concat_ws('|', refresh_id, pgt_id, start_time, end_time, action, refresh_reason, status, rows_in, rows_inserted, initiated_by, worker_pid, attempt, error_message), ',' ORDER BY refresh_id)) FROM pgtrickle.pgt_refresh_history WHERE refresh_id <= %s};
my $last_id = sql('SELECT max(refresh_id) FROM pgtrickle.pgt_refresh_history');
my $old_history = sql(sprintf $history, $last_id);
my $definitions = q{SELECT string_agg(concat_ws('|', pgt_id, pgt_relid, pgt_relid::oid, original_query, schedule, refresh_mode, diamond_consistency, identity, paused, created_at), E'\n' ORDER BY pgt_id) FROM pgtrickle.pgt_definitions};
my $old_definitions = sql($definitions);
my $stages = q{SELECT string_agg(d.pgt_relid || ' ' || n, E'\n' ORDER BY d.pgt_relid::text) FROM pgtrickle.pgt_definitions d,
	LATERAL (SELECT string_agg(c.relname || (SELECT string_agg(' ' || a.attname || ' ' || a.atttypid::regtype, '' ORDER BY attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND attnum > 0), ', ' ORDER BY c.relname) AS n
		FROM pg_class c WHERE c.relnamespace = 'pgtrickle_state'::regnamespace AND c.relkind = 'r' AND c.relname ~ ('^st.*_' || d.pgt_id || '_')) s};
my $old_stages = sql($stages);
my $on_tables = q{SELECT string_agg(x, E'\n' ORDER BY x) FROM (
	SELECT 'index ' || pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = ANY (ARRAY['plain', 'by_dept']::regclass[])
	UNION ALL SELECT concat_ws(' ', 'table', oid, relacl::text, relreplident, relrowsecurity, obj_description(oid, 'pg_class'), col_description(oid, 2)) FROM pg_class WHERE relname IN ('plain', 'by_dept')
	UNION ALL SELECT 'column ' || attname || attacl::text FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid = 'plain'::regclass
	UNION ALL SELECT 'policy ' || polname || polrelid::regclass FROM pg_policy WHERE polrelid = 'by_dept'::regclass
	UNION ALL SELECT 'published ' || pubname || tablename FROM pg_publication_tables) o (x)};
my $old_on_tables = sql($on_tables);

my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], "$old: dumped");

# --- the new library over the old objects ---------------------------------------------------------

$node->stop;
$node->{_install_path} = undef;
$node->append_conf('postgresql.conf', "pg_trickle.enabled = on\npg_trickle.max_parallel_workers = 2\n");
$node->start;

my $new = sql('SELECT default_version FROM pg_available_extensions WHERE name = $$pg_trickle$$');
isnt($new, $old, "the library is $new");
is(sql('SELECT extversion FROM pg_extension WHERE extname = $$pg_trickle$$'), $old, "the extension is still $old");

# Its coordinator waits, but not for longer than it is wanted: the server stops at once.
ok(wait_for_log(qr/library is version \Q$new\E, but the extension is version \Q$old\E/), 'the coordinator says why it does not refresh');
$node->restart;

# Another database of the server, fresh, in which workers work all the time.
sql('CREATE DATABASE fresh');
sql(q{CREATE EXTENSION pg_trickle; CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i;
	SELECT pgtrickle.create_stream_table('st' || i, 'SELECT id % 5 AS k, sum(v) AS v FROM t GROUP BY id % 5', schedule => '100ms') FROM generate_series(1, 4) i;}, 'fresh');

sub script
{
	my ($name, $text) = @_;
	my $path = $node->basedir . "/$name.sql";

	open(my $file, '>', $path) or die $!;
	print $file $text;
	close $file;
	return $path;
}

my @load = map {
	my ($db, $file) = @$_;
	IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-T', '600', '-f', $file, $node->connstr($db) ], '>', \my $out, '2>', \my $err)
} ([ fresh => script('fresh', "\\set id random(1, 100)\nUPDATE t SET v = v + 1 WHERE id = :id;\n\\sleep 5 ms\n") ],
	[ postgres => script('upgraded', "\\set id random(1, 300)\nUPDATE emp SET pay = pay + 1 WHERE id = :id;\nINSERT INTO ev VALUES (:id, 1, 'load');\n\\sleep 20 ms\n") ]);

wait_until($node, q{SELECT count(*) > 10 FROM pgtrickle.pgt_refresh_history WHERE status = 'COMPLETED' AND initiated_by = 'SCHEDULER'
	AND worker_pid IN (SELECT pid FROM pgtrickle.worker_pool_status())}, dbname => 'fresh');

# Every function of the old version and every view: an answer, or an error that says what to do.
my $hint = qr/HINT:.*ALTER EXTENSION pg_trickle UPDATE/;
my %arguments = (text => q{'by_dept'}, regclass => q{'by_dept'::regclass}, bigint => 1, integer => 10, boolean => 'false', oid => 1,
	interval => q{interval '1 day'}, record => 'ROW(1, 2)', 'double precision' => 1, 'real[]' => q{'{}'}, 'timestamp with time zone' => 'now()');
my @calls = map { [ split /\|/, $_ ] } split /\n/, sql(q{SELECT p.proname || '|' || coalesce((SELECT string_agg(format_type(t, NULL), ';' ORDER BY n)
	FROM unnest(p.proargtypes) WITH ORDINALITY a (t, n)), '') FROM pg_proc p WHERE p.pronamespace = 'pgtrickle'::regnamespace
	AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) AND p.proname !~ '^(drop|pause|resume)_' ORDER BY 1});
my (@bad, $answers, $hints);
for my $sql ((map { my ($name, $types) = @$_; "SELECT * FROM pgtrickle.$name(" . join(', ', map { $arguments{$_} || die $_ } split /;/, $types || '') . ')' } @calls),
	(map { "SELECT * FROM pgtrickle.$_" } split /\n/, sql(q{SELECT relname FROM pg_class WHERE relnamespace = 'pgtrickle'::regnamespace AND relkind IN ('r', 'v') ORDER BY 1})))
{
	my $error = error_of($node, $sql);
	if ($error =~ $hint) { $hints++ }
	elsif ($error =~ /(?:invalid (?:refresh mode|schedule)|22023|42601|0LP01)/ || $error eq '') { $answers++ }
	else { push @bad, "$sql: $error" }
}
is(join("\n", @bad), '', "every function and view of $old answers or tells to update ($answers answer, $hints tell)");
for my $statement (q{SELECT pgtrickle.refresh_stream_table('by_dept')}, q{SELECT pgtrickle.create_stream_table('never', 'SELECT 1 AS a')},
	q{SELECT pgtrickle.alter_stream_table('by_dept', schedule => '1s')})
{
	like(error_of($node, $statement), qr/55000: .*library is version \Q$new\E, but the extension is version \Q$old\E.*HINT:.*ALTER EXTENSION pg_trickle UPDATE/s,
		"not before the update: $statement");
}
like(error_of($node, 'INSERT INTO by_dept VALUES (1)'), qr/55000|cannot/, 'stream tables are guarded before the update, too');
write_some(5);
sub wait_for_log
{
	my ($pattern) = @_;
	my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;

	while (time() < $deadline)
	{
		return 1 if log_text() =~ $pattern;
		select(undef, undef, undef, 0.1);
	}
	return 0;
}

# Undone, it changes nothing.
my $old_objects = extension_objects($node, 'postgres');
sql('BEGIN; ALTER EXTENSION pg_trickle UPDATE; ROLLBACK');
is(objects_diff(extension_objects($node, 'postgres'), $old_objects), '', 'an update that is rolled back leaves nothing');
is(sql($stages), $old_stages, 'nor do stages change');

# --- the update -----------------------------------------------------------------------------------

my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nALTER EXTENSION pg_trickle UPDATE");
is($status, 0, 'ALTER EXTENSION UPDATE under load') or diag($err);
like($err, qr/WARNING: .*stream table (?:public\.)?refused is suspended.*HINT:.*alter_stream_table/s, 'warns of what cannot be maintained any more');
unlike($err =~ s/WARNING: .*?refused is suspended//sr, qr/WARNING/, 'and of nothing else');

my $have = extension_objects($node, 'postgres');
my $want = extension_objects($node, 'fresh');
ok($have->{'function pgtrickle.health_check()'} =~ s/ rights \{=X\/postgres,postgres=X\/postgres,reader=X\/postgres\}/ rights/,
	'rights that users gave on functions are kept');
cmp_ok(scalar keys %$want, '>', 250, 'the comparison sees ' . keys(%$want) . ' facts');
is(objects_diff($have, $want), '', "every object is as in a fresh $new");

is(sql($definitions), $old_definitions, 'definitions are kept');
is(sql(sprintf $history, $last_id), $old_history, 'the history is kept');
isnt(sql($stages), $old_stages, 'stages are those of the new analysis');
is(sql($on_tables), $old_on_tables, 'indexes, rights, comments, policies and publications are kept');
is(sql("SELECT md5(string_agg(t::text, ',' ORDER BY t::text COLLATE \"C\")) FROM paused t"), $rows{paused}, 'rows of one that nobody refreshes are kept');
is(sql(q{SELECT status || ' ' || coalesce(suspended_reason, '') FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'paused'}), 'SUSPENDED paused by user', 'paused stays paused');
like(sql(q{SELECT status || ' ' || suspended_reason FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'refused'}), qr/^SUSPENDED version \Q$new\E cannot maintain it as it is: /,
	'the refused one is suspended, with the reason');
is(sql(q{SELECT count(*) FROM pg_depend d JOIN pg_class c ON c.oid = d.objid WHERE d.deptype = 'e' AND c.relnamespace = 'pgtrickle_state'::regnamespace}), 0,
	'what belongs to stream tables is not part of the extension');

# It goes on by itself, with what was pending before, written in between, and under load.
my @living = ((grep { !/^(?:hourly|constant)$/ } @names), 'owned');
wait_until($node, qq{SELECT rebuild_reason IS NULL FROM pgtrickle.pgt_stream_tables WHERE pgt_name = '$_'})
  || die("$_ is not refreshed after the update") for @living;
is(sql(q{SELECT DISTINCT action || ' ' || refresh_reason FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables s USING (pgt_id)
	WHERE s.pgt_name = 'by_dept' AND refresh_id = (SELECT min(refresh_id) FROM pgtrickle.pgt_refresh_history n WHERE n.pgt_id = h.pgt_id AND refresh_id > } . $last_id . ')'),
	"REINITIALIZE the extension was upgraded to $new", 'the first refresh computes everything, and says why');
$_->signal('TERM') for @load;
$_->finish for @load;
write_some(6);
(ok(wait_for_fresh($node, $_), "$_ is brought up to date") || die) for @living;
stream_table_is_right($node, $_, "$_ equals its query", by_image => 1) for @living;
for my $name (qw(hourly constant paused empty))
{
	sql(qq{SELECT pgtrickle.resume_stream_table('paused')}) if $name eq 'paused';
	sql(qq{SELECT pgtrickle.refresh_stream_table('$name')});
	stream_table_is_right($node, $name, "$name equals its query");
}

# Incrementally, several times, by workers.
my $mark = sql('SELECT max(refresh_id) FROM pgtrickle.pgt_refresh_history');
for my $n (7 .. 9)
{
	write_some($n);
	ok(wait_for_fresh($node, $_), "$_ follows the changes $n") for @living;
}
is(sql(qq{SELECT string_agg(s.pgt_name, ', ' ORDER BY 1) FROM pgtrickle.pgt_stream_tables s WHERE s.pgt_name = ANY ('{@{[ join ',', grep { $_ ne 'full_mode' } @living ]}}')
	AND NOT EXISTS (SELECT FROM pgtrickle.pgt_refresh_history h WHERE h.pgt_id = s.pgt_id AND h.refresh_id > $mark AND h.action = 'DIFFERENTIAL' AND h.status = 'COMPLETED')}),
	'', 'all were refreshed differentially');
is(sql(qq{SELECT string_agg(DISTINCT status || ' ' || coalesce(error_message, ''), ', ') FROM pgtrickle.pgt_refresh_history WHERE refresh_id > $last_id AND status <> 'COMPLETED'}),
	'', 'no refresh failed since the update');
cmp_ok(sql(qq{SELECT count(*) FROM pgtrickle.pgt_refresh_history h WHERE refresh_id > $mark AND worker_pid IN (SELECT pid FROM pgtrickle.worker_pool_status())}),
	'>', 0, 'workers refreshed');
is(sql(q{SELECT string_agg(v, ',') FROM (SELECT 'x' AS v FROM status_view LIMIT 1) x}), 'x', "views of users over ours still work");

# What the update gave up comes back with its query.
my $again = q{SELECT pgtrickle.alter_stream_table('refused', query => original_query, refresh_mode => 'AUTO') FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'refused'};
sql('INSERT INTO will_be_unlogged VALUES (1), (1), (2)');
sql($again);
sql(q{SELECT pgtrickle.resume_stream_table('refused')});
sql(q{SELECT pgtrickle.refresh_stream_table('refused')});
stream_table_is_right($node, 'refused', 'a stream table that was given up is right after its query was set again');

# Everything can still be changed and dropped.
sql(q{SELECT pgtrickle.alter_stream_table('in_groups', query => 'SELECT id, note FROM emp WHERE dept > 3')});
stream_table_is_right($node, 'in_groups', 'a query can be changed');
sql(qq{SELECT pgtrickle.drop_stream_table('$_', cascade => true)}) for reverse @names, qw(owned paused empty refused);
is(sql(q{SELECT (SELECT count(*) FROM pg_class WHERE relnamespace IN ('pgtrickle_state'::regnamespace, 'pgtrickle_changes'::regnamespace) AND relkind IN ('r', 'v'))
	|| ' ' || (SELECT count(*) FROM pgtrickle.pgt_definitions) || ' ' || (SELECT count(*) FROM pgtrickle.pgt_sources) || ' ' || (SELECT count(*) FROM pg_trigger WHERE tgfoid::regproc::text LIKE 'pgtrickle.capture%')}),
	'0 0 0 0', 'and dropped without a trace');
unlike(log_text(), qr/terminated by signal|PANIC|server process .* was terminated/, 'nothing crashed');

# --- a dump of the old version ---------------------------------------------------------------------

# It brings hidden tables along as the old version made them.
sql('CREATE DATABASE restored');
my ($restored_out, $restored_err);
IPC::Run::run([ 'pg_restore', '-d', $node->connstr('restored'), $dump ], '>', \$restored_out, '2>', \$restored_err);
is($restored_err, '', "a dump of $old is restored");
is(sql('SELECT extversion FROM pg_extension WHERE extname = $$pg_trickle$$', 'restored'), $new, "into $new");
is(objects_diff(do { my $o = extension_objects($node, 'restored'); $o->{'function pgtrickle.health_check()'} =~ s/ rights \{.*?\}/ rights/; $o }, $want), '', "every object is as in a fresh $new");
(ok(wait_for_fresh($node, $_, dbname => 'restored'), "restored: $_ is brought up to date") || die) for @living;
wait_until($node, q{SELECT count(*) = 0 FROM pgtrickle.pgt_stream_tables WHERE status <> 'ACTIVE' AND pgt_name NOT IN ('paused', 'refused') OR rebuild_reason IS NOT NULL AND pgt_name NOT IN ('paused', 'refused')}, dbname => 'restored');
# What AUTO chooses goes by the sizes of the sources.
sql('ANALYZE', 'restored');
my $restored_mark = sql('SELECT max(refresh_id) FROM pgtrickle.pgt_refresh_history', 'restored');
for my $n (10 .. 12)
{
	write_some($n, 'restored');
	ok(wait_for_fresh($node, $_, dbname => 'restored'), "restored: $_ follows the changes $n") for @living;
}
stream_table_is_right($node, $_, "restored: $_ equals its query", by_image => 1, dbname => 'restored') for @living;
is(sql(qq{SELECT string_agg(DISTINCT concat_ws(' ', s.pgt_name, h.action, h.refresh_reason), ', ') FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables s USING (pgt_id)
	WHERE h.refresh_id > $restored_mark AND s.refresh_mode <> 'FULL' AND h.action NOT IN ('DIFFERENTIAL', 'NO_DATA') AND h.refresh_reason NOT IN ('predicted_cost_exceeds_full', 'change_ratio_exceeded')}, 'restored'),
	'', 'restored: all are refreshed differentially, if that is cheaper');
cmp_ok(sql(qq{SELECT count(DISTINCT pgt_id) FROM pgtrickle.pgt_refresh_history WHERE refresh_id > $restored_mark AND action = 'DIFFERENTIAL'}, 'restored'), '>', 15, 'restored: most of them were');
is(sql(q{SELECT string_agg(DISTINCT status || ' ' || coalesce(error_message, ''), ', ') FROM pgtrickle.pgt_refresh_history WHERE status <> 'COMPLETED' AND pgt_id <> (SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'refused')}, 'restored'),
	'', 'restored: no refresh failed');
is(sql(qq{SELECT count(*) FROM pgtrickle.pgt_definitions WHERE made_by IS DISTINCT FROM '$new' AND pgt_relid <> ALL ('{paused,refused}'::regclass[])}, 'restored'), 0, 'restored: all were made anew');
sql(q{SELECT pgtrickle.resume_stream_table('paused'); SELECT pgtrickle.refresh_stream_table('paused')}, 'restored');
stream_table_is_right($node, 'paused', 'restored: one that is refreshed by hand is right, too', dbname => 'restored');

# --- the script alone: a database in which nothing was made yet ------------------------------------

sql('CREATE DATABASE alone');
sql("CREATE EXTENSION pg_trickle VERSION '$old'", 'alone');
is(sql('SELECT extversion FROM pg_extension WHERE extname = $$pg_trickle$$', 'alone'), $old, "CREATE EXTENSION VERSION '$old' works with the new library");
like(error_of($node, q{SELECT pgtrickle.create_stream_table('a', 'SELECT 1 AS a')}, dbname => 'alone'), $hint, 'and says what to do next');
sql('ALTER EXTENSION pg_trickle UPDATE', 'alone');
is(objects_diff(extension_objects($node, 'alone'), $want), '', "every object is as in a fresh $new");
$node->stop;
done_testing();
