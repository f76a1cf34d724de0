# PgtUpgrade.pm: a server with a former release in it, and the extension's objects as text.
#
#   my $release = build_release('0.21.0');          # {src}: its sources, {prefix}: a server with it
#   my %objects = extension_objects($node, 'db');   # identity => everything about it
package PgtUpgrade;

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(dirname);
use File::Path qw(make_path);

use IPC::Run;
use PgTrickle;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(build_release extension_objects objects_diff);

sub pg_config
{
	my ($what) = @_;
	chomp(my $answer = qx{$ENV{PG_CONFIG} --$what});
	die "pg_config --$what failed\n" if $? != 0 || $answer eq '';
	return $answer;
}

sub run
{
	my ($what, @command) = @_;
	my ($out, $err);

	IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err) or die "$what: $err\n";
	return $out;
}

# Compiles the release and puts it into a copy of the server installation: PostgreSQL finds
# its files relative to its executable. {prefix} is for Cluster's install_path.
sub build_release
{
	my ($version) = @_;
	my $root = PostgreSQL::Test::Utils::tempdir();
	my ($src, $inst) = ("$root/src", "$root/inst");
	my $tarball = dirname(__FILE__) . "/../upgrade/pg_trickle-$version.tar.gz";

	make_path($src);
	run('unpack', 'tar', '-C', $src, '-xzf', $tarball);
	# Flags of this build are nothing to the other.
	local @ENV{qw(PGT_CPPFLAGS PGT_CFLAGS MAKEFLAGS)};
	delete @ENV{qw(PGT_CPPFLAGS PGT_CFLAGS MAKEFLAGS)};
	run("compile $version", 'make', '-s', '-j2', '-C', "$src/$_", "PG_CONFIG=$ENV{PG_CONFIG}", 'all')
	  for qw(worker sql);
	for my $dir (map { pg_config($_) } qw(bindir pkglibdir sharedir))
	{
		make_path(dirname("$inst$dir"));
		run('copy', 'cp', '-a', $dir, "$inst$dir");
	}
	my $extension = $inst . pg_config('sharedir') . '/extension';
	unlink glob("$extension/pg_trickle--*.sql");
	run('install', 'cp', "$src/worker/pg_trickle.so", $inst . pg_config('pkglibdir') . '/pg_trickle.so');
	run('install', 'cp', "$src/sql/pg_trickle.control", "$src/sql/pg_trickle--$version.sql", $extension);
	return { src => $src, prefix => dirname($inst . pg_config('bindir')) };
}

# Everything that CREATE EXTENSION makes, one line per fact. No oids and nothing of stream tables;
# change buffers are members, too, and whoever owns
# a stream table with stages may use their schema. Some servers count changes of a column in its options.
my $objects_sql = <<'SQL';
SET search_path = pg_catalog;
WITH member AS (
	SELECT d.classid, d.objid, i.identity
	FROM pg_depend d CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
		AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_trickle')
		AND i.schema IS DISTINCT FROM 'pgtrickle_changes'
), relation AS (
	SELECT c.*, m.identity FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
)
SELECT 'member ' || (SELECT type FROM pg_identify_object(classid, objid, 0)) || ' ' || identity, 'member, owned by ' || coalesce(
		(SELECT refobjid::regrole::text FROM pg_shdepend s WHERE s.classid = m.classid AND s.objid = m.objid AND s.deptype = 'o'), 'the superuser')
	|| ', comment ' || coalesce(quote_literal(obj_description(objid, classid::regclass::name)), 'missing')
	|| ', first rights ' || coalesce((SELECT string_agg(p.objsubid || ' ' || p.initprivs::text, ' ' ORDER BY p.objsubid) FROM pg_init_privs p
		WHERE p.classoid = m.classid AND p.objoid = m.objid), 'none') FROM member m
UNION ALL
SELECT 'relation ' || identity, concat_ws(' ', 'kind', relkind, relpersistence, 'options', reloptions::text, 'rights', relacl::text,
	'row security', relrowsecurity, relforcerowsecurity, 'identity', relreplident, 'columns', relnatts) FROM relation
UNION ALL
SELECT 'column ' || identity || '.' || a.attnum, concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
	'not null', a.attnotnull, 'default', pg_get_expr(d.adbin, d.adrelid), 'identity', a.attidentity, 'generated', a.attgenerated,
	'collation', a.attcollation::regcollation, 'storage', a.attstorage, a.attcompression, 'rights', a.attacl::text,
	'statistics', a.attstattarget, 'options', (SELECT string_agg(o, ' ') FROM unnest(a.attoptions) o WHERE o NOT LIKE 'pg\_attver=%'), 'comment', quote_nullable(col_description(a.attrelid, a.attnum)))
FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0
UNION ALL
SELECT 'constraint ' || r.identity || '.' || c.conname, concat_ws(' ', c.contype, pg_get_constraintdef(c.oid), c.convalidated, c.connoinherit,
	'comment', quote_nullable(obj_description(c.oid, 'pg_constraint'))) FROM relation r JOIN pg_constraint c ON c.conrelid = r.oid
UNION ALL
SELECT 'index ' || i.indexrelid::regclass, concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisclustered, i.indisreplident,
	'comment', quote_nullable(obj_description(i.indexrelid, 'pg_class'))) FROM relation r JOIN pg_index i ON i.indrelid = r.oid
UNION ALL
SELECT 'trigger ' || r.identity || '.' || CASE WHEN t.tgisinternal THEN t.tgfoid::regproc || ' ' || t.tgtype ELSE t.tgname END,
	concat_ws(' ', CASE WHEN NOT t.tgisinternal THEN pg_get_triggerdef(t.oid) END, t.tgenabled) FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid
UNION ALL
SELECT 'policy ' || r.identity || '.' || p.polname, concat_ws(' ', p.polcmd, p.polpermissive, p.polroles::text,
	pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) FROM relation r JOIN pg_policy p ON p.polrelid = r.oid
UNION ALL
SELECT 'view ' || identity, pg_get_viewdef(oid) FROM relation WHERE relkind = 'v'
UNION ALL
SELECT 'sequence ' || r.identity, concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache, s.seqcycle,
	(SELECT concat_ws(' ', d.refobjid::regclass, d.refobjsubid, d.deptype) FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype IN ('a', 'i')))
FROM relation r JOIN pg_sequence s ON s.seqrelid = r.oid
UNION ALL
SELECT 'function ' || m.identity, concat_ws(' ', pg_get_functiondef(p.oid), 'rights', p.proacl::text, 'support', p.prosupport::regproc, 'body', p.prosrc, p.probin)
FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
UNION ALL
SELECT 'event trigger ' || e.evtname, concat_ws(' ', e.evtevent, e.evtfoid::regproc, e.evtenabled, e.evttags::text)
FROM member m JOIN pg_event_trigger e ON m.classid = 'pg_event_trigger'::regclass AND e.oid = m.objid
UNION ALL
SELECT 'schema ' || n.nspname, (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(n.nspacl) a
	WHERE n.nspname <> 'pgtrickle_state' OR a::text LIKE '=%') FROM pg_namespace n WHERE n.nspname LIKE 'pgtrickle%'
UNION ALL
SELECT 'object in schema pgtrickle: ' || i.type || ' ' || i.identity, 'there'
FROM (SELECT 'pg_class'::regclass AS classid, oid FROM pg_class WHERE relnamespace = 'pgtrickle'::regnamespace
	UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE pronamespace = 'pgtrickle'::regnamespace
	UNION ALL SELECT 'pg_type'::regclass, oid FROM pg_type WHERE typnamespace = 'pgtrickle'::regnamespace) o,
	pg_identify_object(o.classid, o.oid, 0) i
UNION ALL
SELECT 'extension', concat_ws(' ', e.extversion, e.extrelocatable, e.extnamespace::regnamespace,
	(SELECT string_agg(c.relid::regclass || ' where ' || quote_literal(c.condition), ', ' ORDER BY c.relid::regclass::text) FROM unnest(e.extconfig, e.extcondition) c(relid, condition)))
FROM pg_extension e WHERE e.extname = 'pg_trickle'
SQL

sub extension_objects
{
	my ($node, $dbname) = @_;
	my %objects;
	my $sql = $objects_sql =~ s/\A(SET.*?;)\n//r;

	# One fact a line, whatever is in it.
	my $text = $node->safe_psql($dbname,
		"SET search_path = pg_catalog; SELECT pg_catalog.to_jsonb(f) #>> '{}' FROM (\n"
		  . "SELECT replace(key, E'\\n', ' ') || E'\\t' || replace(replace(coalesce(fact, ''), E'\\\\', E'\\\\\\\\'), E'\\n', '\\n') AS f FROM (\n$sql) o (key, fact)) l");
	for my $line (split /\n/, $text)
	{
		my ($key, $fact) = split /\t/, $line, 2;
		die "twice in the catalog: $key\n" if exists $objects{$key};
		$objects{$key} = $fact;
	}
	return \%objects;
}

# What differs, one line each; '' when nothing does.
sub objects_diff
{
	my ($have, $want) = @_;
	my @lines;

	for my $key (sort keys %{ { %$have, %$want } })
	{
		my ($is, $should) = map { defined $_->{$key} ? $_->{$key} : 'not there' } $have, $want;

		push @lines, "$key\n  is:     $is\n  should: $should" if $is ne $should;
	}
	return join "\n", @lines;
}

1;
