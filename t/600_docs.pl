# What the documentation shows is what happens: every SQL block of docs/*.md and README.md is
# run and compared, and docs/support-matrix.md is held against validate_query and refreshes.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgtDocs;

my $node = PgTrickle->new_node('docs', settings => "max_replication_slots = 20\n");

# What the example of the README takes for granted.
my $readme_setup = q{
	DROP EXTENSION pg_trickle;
	CREATE TABLE customers (id int PRIMARY KEY, region text NOT NULL);
	CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL);
	CREATE TABLE items (order_id int, quantity int, price numeric);
};

for my $path (sort glob('docs/*.md'), 'README.md')
{
	next unless document_blocks(read_document($path));
	subtest $path => sub { run_document($node, $path, setup => $path eq 'README.md' ? $readme_setup : '') };
}

# --- docs/support-matrix.md ------------------------------------------------------------------

my $matrix = read_document('docs/support-matrix.md');
my $db = 'docs_support-matrix';
my $code = read_document('worker/delta/support.c');
my %seen;
my $number = 0;
my %cost = map { ($_->[0] => $_->[1]) } table_rows(section_of($matrix, 'Techniques'));

for my $row (table_rows(section_of($matrix, 'Constructs')))
{
	my ($construct, $query, $incremental, $technique, $since) = @$row;

	$seen{$construct} = 1;
	ok($technique eq '' || $cost{$technique}, "the page tells what '$technique' costs");
	like($since, qr/^0\.2[12]\.0$/, '... and since when it is there');
	$query =~ s/^`|`$//g;
	is($node->safe_psql($db, 'SELECT incremental, coalesce(technique, $$$$) FROM pgtrickle.validate_query('
		  . literal($query) . ') WHERE construct = ' . literal($construct)),
		($incremental eq 'yes' ? 't' : 'f') . "|$technique", "$construct: $query");
	check_maintained($query, $incremental eq 'yes' && !any_refused($query), "matrix_" . ++$number);
}

sub any_refused
{
	my ($query) = @_;
	return $node->safe_psql($db, 'SELECT count(*) FROM pgtrickle.validate_query('
		  . literal($query) . ') WHERE NOT incremental') > 0;
}

# Creates it, changes its sources, and looks at what the refresh did.
sub check_maintained
{
	my ($query, $incremental, $name) = @_;
	my $change = section_of($matrix, 'The tables of the examples');

	(undef, $change) = $change =~ /^```sql\n(.*?)^```.*?^```sql\n(.*?)^```/ms;
	$node->safe_psql($db, "SET client_min_messages = error; SELECT pgtrickle.create_stream_table("
		  . literal($name) . ', ' . literal($query) . ", schedule => '1d')");
	$node->safe_psql($db, "$change; SELECT pgtrickle.refresh_stream_table('$name')");
	stream_table_is_right($node, $name, "$name equals its query", dbname => $db);
	unlike($node->safe_psql($db, "SELECT string_agg(DISTINCT action, ' ') FROM pgtrickle.get_refresh_history('$name') WHERE initiated_by <> 'INITIAL'"),
		$incremental ? qr/FULL|REINITIALIZE/ : qr/DIFFERENTIAL|REINITIALIZE/, "$name: how it was refreshed");
	$node->safe_psql($db, "SELECT pgtrickle.drop_stream_table('$name')");
}

sub literal { my ($text) = @_; $text =~ s/'/''/g; return "'$text'"; }

my @constructs = $code =~ /(?:unsupported|pgt_support_add)\s*\(\s*(?:ctx->)?definition,\s*"([^"]+)"/g;
push @constructs, $code =~ /"(ORDER BY with LIMIT[^"]*)"\s*:\s*"(LIMIT[^"]*)"/, $code =~ /\? "(INTERSECT)" : "(EXCEPT)"/;
push @constructs, $& =~ /return "([^"]+)"/g if $code =~ /^sublink_name\(.*?^\}/ms;
cmp_ok(scalar(@constructs), '>', 20, 'constructs found in the code');
$seen{$_} = 1 for map { /\*([^*]+)\*/g } section_of($matrix, 'Constructs') =~ /^(- \*.*)$/mg;
is(join(', ', grep { !$seen{$_} } @constructs), '', 'every construct of the code is in the matrix');

# Refused outright: an error with the SQLSTATE that the page gives.
for my $row (table_rows(section_of($matrix, 'Refused in every mode')))
{
	my ($what, $query, $sqlstate) = @$row;

	$query =~ s/^`|`$//g;
	like(error_of($node, 'SELECT pgtrickle.create_stream_table($st$refused$st$, ' . literal($query) . ');', dbname => $db),
		qr/ERROR:  \Q$sqlstate\E:/, "refused: $what");
	is($node->safe_psql($db, "SELECT to_regclass('refused')"), '', '... and nothing is left of it');
}

# --- docs/limitations.md ---------------------------------------------------------------------

my $limitations = read_document('docs/limitations.md');

$db = 'docs_limitations';
for my $row (grep { $_->[1] =~ /^`/ } table_rows(section_of($limitations, 'Queries that are refreshed in FULL')))
{
	my ($instead, $write) = map { s/^`|`$//gr } @$row;

	ok(any_refused($instead), "FULL: $instead");
	ok(!any_refused($write), "incremental: $write");
	is($node->safe_psql($db, "SET timezone = 'UTC'; SELECT * FROM (($instead) EXCEPT ALL ($write)) l UNION ALL SELECT * FROM (($write) EXCEPT ALL ($instead)) r"),
		'', '... and both give the same rows');
}

# --- links ---------------------------------------------------------------------------------

for my $path (sort glob('docs/*.md docs/decisions/*.md'), 'README.md')
{
	my $text = read_document($path);
	my ($folder) = $path =~ m{\A(.*?)[^/]*\z};
	my @broken;

	while ($text =~ /\]\(([^)#\s]*)(?:#([^)]*))?\)/g)
	{
		my ($file, $anchor) = ($1, $2);
		my $target = $file eq '' ? $path : $folder . $file;

		next if $file =~ /^https?:/;
		if (!-e $target) { push @broken, $file; next; }
		next unless defined $anchor;
		my %anchors = map { (my $a = lc) =~ s/[^\w\- ]//g; $a =~ s/ /-/g; ($a => 1) }
		  read_document($target) =~ /^#+ (.*?)\s*$/mg;
		push @broken, "$file#$anchor" unless $anchors{$anchor};
	}
	is("@broken", '', "links of $path lead somewhere");
}

$node->stop;
done_testing();
