# Everything is told: each SQL object of the extension has a COMMENT, each setting is in
# docs/configuration.md as the server knows it, each function, view and column is in
# docs/sql-reference.md, and the SQLSTATEs and locks given there are those that come.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgtDocs;

my $node = PgTrickle->new_node('comments', scheduler => 0);
my $reference = read_document('docs/sql-reference.md');
my $configuration = read_document('docs/configuration.md');

sub rows_of { return map { [ split /\|/, $_, -1 ] } split /\n/, sql_value($node, $_[0]) }
sub code { my ($cell) = @_; return $cell =~ /^`(.*)`$/ ? $1 : $cell }

# --- comments --------------------------------------------------------------------------------

is(sql_value($node, q{
	SELECT string_agg(pg_describe_object(classid, objid, 0), ', ' ORDER BY 1)
	FROM (SELECT classid, objid FROM pg_depend WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
			AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_trickle')
		UNION ALL
		SELECT 'pg_policy'::regclass, p.oid FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
		WHERE c.relnamespace = 'pgtrickle'::regnamespace) o (classid, objid)
	-- From 17 on the types of a table's rows and of their arrays are members, too.
	WHERE NOT (classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_depend i
			WHERE i.classid = o.classid AND i.objid = o.objid AND i.deptype = 'i'))
		AND coalesce(obj_description(objid, (SELECT relname FROM pg_class WHERE oid = classid)), '') = ''}),
	'', 'every object of the extension has a comment');
is(sql_value($node, q{SELECT string_agg(nspname, ', ') FROM pg_namespace
	WHERE nspname LIKE 'pgtrickle%' AND obj_description(oid, 'pg_namespace') IS NULL}),
	'', 'every schema has a comment');

# --- settings --------------------------------------------------------------------------------

my %settings = map { code($_->[0]) => $_ } table_rows(section_of($configuration, 'Settings'));
my %contexts = (sighup => 'reload', superuser => 'superuser', user => 'everybody', postmaster => 'restart');

for my $setting (rows_of(q{
	LOAD 'pg_trickle';
	SELECT name, boot_val, coalesce(unit, ''), CASE WHEN vartype IN ('integer', 'real') THEN min_val || ' to ' || max_val
			WHEN vartype = 'enum' THEN array_to_string(enumvals, ', ') ELSE '' END, context
	FROM pg_settings WHERE name LIKE 'pg_trickle.%' AND short_desc NOT LIKE 'Test builds:%' ORDER BY name}))
{
	my ($name, $default, $unit, $values, $context) = @$setting;
	my $row = delete $settings{$name};

	ok($row, "$name is documented") or next;
	$default = $default eq '' ? 'empty' : $default;
	is(code($row->[1]), $unit eq '' ? $default : "$default $unit", "$name: default");
	is($row->[2], $values, "$name: values") if $values ne '';
	is($row->[3], $contexts{$context}, "$name: how it is changed");
}
is(join(' ', sort keys %settings), '', 'and nothing but settings');

# --- functions -------------------------------------------------------------------------------

my $internal = section_of($reference, 'For internal use');
my @functions = rows_of(q{
	SELECT p.proname, p.proname || '(' || coalesce((SELECT string_agg(a, ', ' ORDER BY n)
			FROM regexp_split_to_table(pg_get_function_arguments(p.oid), ', ') WITH ORDINALITY x (a, n) WHERE a !~ '^OUT '), '')
			|| ') → ' || pg_get_function_result(p.oid),
		(SELECT string_agg(proargnames[i] || ' ' || format_type(proallargtypes[i], NULL), ', ' ORDER BY i)
			FROM generate_subscripts(proargmodes, 1) i WHERE proargmodes[i] IN ('o', 't'))
	FROM pg_proc p WHERE pronamespace = 'pgtrickle'::regnamespace AND proname NOT LIKE 'test\_%' ORDER BY 1});

for my $function (@functions)
{
	my ($name, $signature, $columns) = @$function;
	my $section = section_of($reference, $name);

	utf8::decode($signature);
	$signature =~ s/::(?:text|interval|pg_lsn)\b(?:\[\])?//g;
	if (!defined $section)
	{
		like($internal, qr/^\| `\Q$signature\E` \|/m, "$name is documented, or for internal use");
		next;
	}
	like($section, qr/^pgtrickle\.\Q$signature\E$/m, "$name: signature");
	is(join(', ', map { code($_->[0]) . ' ' . $_->[1] } grep { @$_ == 3 } table_rows($section)),
		$columns, "$name: result columns");
	like($section, qr/^Locks: \S/m, "$name: locks");
}
is(join(' ', grep { my $s = $_; !grep { $_->[0] eq $s } @functions }
		map { /^### ([a-z_]+)$/ ? $1 : () } split /\n/, section_of($reference, 'Creating, changing, dropping')
		  . section_of($reference, 'Refreshing') . section_of($reference, 'Seeing')),
	'', 'and nothing but functions');

# --- views and tables ------------------------------------------------------------------------

for my $relation (rows_of(q{
	SELECT relname, (SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
	FROM pg_class c WHERE relnamespace = 'pgtrickle'::regnamespace AND relkind IN ('r', 'v') ORDER BY 1}))
{
	my ($name, $columns) = @$relation;
	my $section = section_of($reference, "pgtrickle.$name");

	if (defined $section)
	{
		is(join(' ', map { code($_->[0]) } table_rows($section)), $columns, "$name: columns");
	}
	else
	{
		like(section_of($reference, 'Views and tables'), qr/`$name`/, "$name is mentioned");
		is(sql_value($node, "SELECT has_table_privilege('pg_monitor', 'pgtrickle.$name', 'SELECT')"), 't',
			"$name is for pg_monitor");
	}
}

# --- SQLSTATEs -------------------------------------------------------------------------------

$node->safe_psql('postgres', q{
	CREATE ROLE nobody;
	CREATE TABLE s (id int PRIMARY KEY, v int, n int);
	CREATE TABLE fk (id int);
	CREATE VIEW public.locks AS SELECT relation::regclass::text AS name, mode FROM pg_locks
		WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation::regclass::text IN ('s', 'st', 'dep');
	GRANT SELECT ON locks TO PUBLIC;
	SELECT pgtrickle.create_stream_table('st', 'SELECT id, v FROM s', '1d');
	SELECT pgtrickle.create_stream_table('dep', 'SELECT v, count(*) AS c FROM st GROUP BY v', '1d');
	SELECT pgtrickle.create_stream_table('top', 'SELECT id, now() AS at FROM s', '1d');
	SELECT pgtrickle.create_stream_table('bad', 'SELECT id, 1 / n AS q FROM s', '1d');
	SELECT pgtrickle.create_stream_table('paused', 'SELECT id FROM s', '1d');
	SELECT pgtrickle.pause_stream_table('paused');
});

my $common = (split /^## Creating/m, $reference)[0];

for my $case (
	[ 'create_stream_table', '42P07', q{('s', 'SELECT 1 AS x')} ],
	[ 'create_stream_table', '42P07', q{('st', 'SELECT 1 AS x')} ],
	[ 'create_stream_table', '22004', q{(NULL, 'SELECT 1 AS x')} ],
	[ 'create_stream_table', '22004', q{('x', NULL)} ],
	[ 'create_stream_table', '22004', q{('x', 'SELECT 1 AS x', schedule => NULL)} ],
	[ 'create_stream_table', '22023', q{('x', 'SELECT 1 AS x', schedule => 'soon')} ],
	[ 'create_stream_table', '22023', q{('x', 'SELECT 1 AS x', refresh_mode => 'IMMEDIATE')} ],
	[ 'create_stream_table', '22023', q{('x', 'SELECT 1 AS x', diamond_consistency => 'maybe')} ],
	[ 'create_stream_table', '22023', q{('x', 'SELECT 1 AS x', identity => 'none')} ],
	[ 'create_stream_table', '22023', q{('x', 'UPDATE s SET v = 1')} ],
	[ 'create_stream_table', '22023', q{('x', '')} ],
	[ 'create_stream_table', '0A000', q{('x', 'SELECT random() AS x')} ],
	[ 'create_stream_table', '0A000', q{('x', 'SELECT id, now() AS at FROM s', refresh_mode => 'DIFFERENTIAL')} ],
	[ 'create_stream_table', '42501', q{('x', 'SELECT id FROM s')}, 'SET ROLE nobody;' ],
	[ 'create_stream_table', '55000', q{('x', 'SELECT v FROM s', identity => 'key')} ],
	[ 'create_stream_table', '55000', q{('x', 'SELECT v FROM s')}, 'BEGIN ISOLATION LEVEL REPEATABLE READ;' ],
	[ 'create_stream_table', '3F000', q{('nowhere.x', 'SELECT id FROM s')} ],
	[ 'create_stream_table', '3F000', q{('pgtrickle.x', 'SELECT id FROM s')} ],
	[ 'create_stream_table', '42P01', q{('x', 'SELECT id FROM nowhere')} ],
	[ 'create_stream_table', '42703', q{('x', 'SELECT nothing FROM s')} ],
	[ 'create_stream_table', '42601', q{('x', 'SELEKT')} ],
	[ 'create_stream_table', '42701', q{('x', 'SELECT id, id FROM s')} ],
	[ 'create_stream_table', '42P16', q{('x', 'SELECT ROW(id) AS r FROM s')} ],
	[ 'create_stream_table', '42602', q{('', 'SELECT id FROM s')} ],
	[ 'create_stream_table', '42601', q{('a.b.c.d', 'SELECT id FROM s')} ],
	[ 'create_stream_table_if_not_exists', '42P07', q{('s', 'SELECT id FROM s')} ],
	[ 'alter_stream_table', '42P01', q{('nothing', schedule => '1s')} ],
	[ 'alter_stream_table', '42P01', q{('s', schedule => '1s')} ],
	[ 'alter_stream_table', '42501', q{('st', schedule => '1s')}, 'SET ROLE nobody;' ],
	[ 'alter_stream_table', '22023', q{('st', status => 'BUSY')} ],
	[ 'alter_stream_table', '22023', q{('st', query => 'SELECT c AS id, v FROM dep')} ],
	[ 'alter_stream_table', '2BP01', q{('st', query => 'SELECT id FROM s')} ],
	[ 'alter_stream_table', '2BP01', q{('bad', query => 'SELECT id FROM s')}, 'CREATE INDEX mine ON bad (q);' ],
	[ 'alter_stream_table', '55000', q{('bad', identity => 'key', query => 'SELECT v AS id, v AS q FROM s')} ],
	[ 'alter_stream_table', '0A000', q{('top', refresh_mode => 'DIFFERENTIAL')} ],
	[ 'drop_stream_table', '2BP01', q{('st')} ],
	[ 'drop_stream_table', '42P01', q{('nothing')} ],
	[ 'drop_stream_table', '42501', q{('dep')}, 'SET ROLE nobody;' ],
	[ 'export_definition', '42501', q{('st')}, 'SET ROLE nobody;' ],
	[ 'refresh_stream_table', '55000', q{('paused')} ],
	[ 'refresh_stream_table', '55000', q{('st')}, 'BEGIN ISOLATION LEVEL SERIALIZABLE;' ],
	[ 'refresh_stream_table', '22023', q{('st', 'SLOW')} ],
	[ 'refresh_stream_table', '0A000', q{('top', 'DIFFERENTIAL')} ],
	[ 'refresh_stream_table', '25006', q{('st')}, 'BEGIN READ ONLY;' ],
	[ 'refresh_stream_table', '22012', q{('bad')}, 'INSERT INTO s VALUES (1, 1, 0);' ],
	[ 'refresh_stream_table', '42501', q{('st')}, 'SET ROLE nobody;' ],
	[ 'refresh_if_stale', '22023', q{('st', NULL)} ],
	[ 'refresh_if_stale', '22023', q{('st', interval '-1s')} ],
	[ 'pause_stream_table', '42501', q{('st')}, 'SET ROLE nobody;' ],
	[ 'resume_stream_table', '42P01', q{('nothing')} ],
	[ 'explain_delta', '42501', q{('st')}, 'SET ROLE nobody;' ],
	[ 'explain_dag', '22023', q{('png')} ],
	[ 'get_refresh_history', '42P01', q{('nothing')} ])
{
	my ($function, $sqlstate, $arguments, $before) = @$case;
	my $error = error_of($node, ($before // '') . "SELECT pgtrickle.$function$arguments;");

	like($error, qr/ERROR:  $sqlstate:/, "$function$arguments: $sqlstate") or diag($error);
	ok((section_of($reference, $function) . $common) =~ /^\| [^|]*\b$sqlstate\b/m, '... as documented');
}

# --- locks -----------------------------------------------------------------------------------

my @strength = qw(AccessShareLock RowShareLock RowExclusiveLock ShareUpdateExclusiveLock ShareLock
  ShareRowExclusiveLock ExclusiveLock AccessExclusiveLock);

# The strongest lock on each of the three tables.
sub locks_of
{
	my ($sql) = @_;
	my %strongest;

	for my $lock (rows_of("BEGIN; SET client_min_messages = error; DO \$do\$ BEGIN PERFORM $sql; END \$do\$; SELECT name, mode FROM locks; ROLLBACK;"))
	{
		my ($rank) = grep { $strength[$_] eq $lock->[1] } 0 .. $#strength;
		$strongest{ $lock->[0] } = $rank if !defined $strongest{ $lock->[0] } || $rank > $strongest{ $lock->[0] };
	}
	return join ', ', map { "$_ $strength[$strongest{$_}]" } sort keys %strongest;
}

$node->safe_psql('postgres', q{INSERT INTO s VALUES (5, 5, 5)});
is(locks_of(q{pgtrickle.create_stream_table('x', 'SELECT id FROM s')}), 's ShareRowExclusiveLock', 'locks: create');
is(locks_of(q{pgtrickle.refresh_stream_table('st')}), 's AccessShareLock, st RowExclusiveLock', 'locks: refresh');
is(locks_of(q{pgtrickle.refresh_stream_table('st', 'FULL')}), 's AccessShareLock, st RowExclusiveLock', 'locks: FULL');
is(locks_of(q{pgtrickle.alter_stream_table('st', schedule => '2s')}), '', 'locks: alter schedule');
is(locks_of(q{pgtrickle.alter_stream_table('st', query => 'SELECT id, v + 1 AS v FROM s')}),
	's ShareRowExclusiveLock, st ShareRowExclusiveLock', 'locks: alter query');
is(locks_of(q{pgtrickle.alter_stream_table('st', query => 'SELECT id, v, n FROM s')}),
	's ShareRowExclusiveLock, st AccessExclusiveLock', 'locks: alter query, one more column');
is(locks_of(q{pgtrickle.alter_stream_table('st', query => 'SELECT id / 2 AS id, v FROM s')}),
	's ShareRowExclusiveLock, st AccessExclusiveLock', 'locks: alter query, another key');
is(locks_of(q{pgtrickle.alter_stream_table('st', identity => 'key')}), 's AccessShareLock, st AccessExclusiveLock', 'locks: alter identity');
is(locks_of(q{count(*) FROM pgtrickle.pgt_status()}), 's AccessShareLock, st AccessShareLock', 'locks: status');

$node->stop;
done_testing();
