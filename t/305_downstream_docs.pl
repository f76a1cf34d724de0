# The recipes of docs/downstream.md for pg_recvlogical, run as they stand there; and what a role that
# has nothing but REPLICATION can reach.
use strict;
use warnings;

use JSON::PP;
use Test::More;

use PgTrickle;
use PgtDocs;

my $node = PgTrickle->new_node('recipes', scheduler => 0, settings => "listen_addresses = ''\n");
my $folder = $node->basedir . '/recipes';
mkdir $folder or die "could not make $folder: $!";
local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGUSER => 'postgres');

$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->safe_psql('shop', 'CREATE EXTENSION pg_trickle');

sub sql { return $node->safe_psql('shop', $_[0]) }

sub lines
{
	my ($name) = @_;
	return map { JSON::PP->new->utf8->allow_nonref->decode($_) } split /\n/, PostgreSQL::Test::Utils::slurp_file("$folder/$name");
}

# Each change is there to be found by the recipe that comes next.
my $change = 10;
sub change
{
	$change++;
	sql("INSERT INTO orders VALUES ($change, 'north', 1); SELECT pgtrickle.refresh_stream_table('sales')");
}

sql(q{
	CREATE TABLE orders (id int PRIMARY KEY, region text NOT NULL, amount numeric(12,2) NOT NULL);
	INSERT INTO orders VALUES (1, 'north', 10), (2, 'south', 20);
	SELECT pgtrickle.create_stream_table('sales', 'SELECT region, sum(amount) AS amount, count(*) AS n FROM orders GROUP BY region', schedule => '1h')});

my $section = section_of(read_document('docs/downstream.md'), 'pg_recvlogical');
my @recipes = $section =~ /^```sh\n(.*?)^```/msg;
is(scalar @recipes, 6, 'recipes');
for my $recipe (@recipes)
{
	my ($name) = $recipe =~ /\A(.*)/;

	open my $file, '>', "$folder/recipe.sh" or die "could not write: $!";
	print $file $recipe;
	close $file;
	is(system("cd '$folder' && sh -e recipe.sh >recipe.log 2>&1"), 0, "runs: $name") or diag(PostgreSQL::Test::Utils::slurp_file("$folder/recipe.log"));
	change() if $recipe !~ /drop-slot/;
}
my @changes = lines('changes.jsonl');
is(join(' ', map { $_->{op} } @changes), 'hello begin refresh schema u refresh commit', 'a refresh');
is_deeply($changes[4]{a}, { region => 'north', amount => '11.00', n => 2 }, 'with its row');
my ($event) = grep { $_->{op} eq 'u' } lines('events.jsonl');
is($event->{after}{n}, 3, "the next one as Debezium's event");
is_deeply([ lines('rows.jsonl') ], [ { id => 13, region => 'north', amount => '1.00' } ], 'rows of the table that was asked for');
is(scalar(() = lines('sales.jsonl')), 2, 'a snapshot');
is(sql('SELECT count(*) FROM pg_replication_slots'), '0', 'and the slot is gone');

# --- a role with REPLICATION and nothing else ---------------------------------------------------------

sql(q{CREATE ROLE follower LOGIN REPLICATION; CREATE ROLE nobody LOGIN; CREATE TABLE secret (id int PRIMARY KEY, v text); ALTER TABLE secret ENABLE ROW LEVEL SECURITY});
my $as = sub { my ($role, $statement) = @_; return error_of($node, "SET SESSION AUTHORIZATION $role; $statement", dbname => 'shop') };

like($as->('nobody', q{SELECT pg_create_logical_replication_slot('n', 'pg_trickle_decoder')}), qr/42501/, 'without REPLICATION there is no slot');
is($as->('follower', q{SELECT pg_create_logical_replication_slot('f', 'pg_trickle_decoder')}), '', 'with it there is');
sql(q{INSERT INTO secret VALUES (1, 'hidden')});
my $peek = q{SELECT data FROM pg_logical_slot_peek_changes('f', NULL, NULL, 'tables', 'public.*')};
like($as->('nobody', $peek), qr/42501/, 'which others cannot read');
like($node->safe_psql('shop', "SET SESSION AUTHORIZATION follower; $peek"), qr/"v":"hidden"/, 'it reads rows of tables that it may not select from, as with every plugin');
for my $statement (
	'SELECT * FROM secret', q{SELECT pgtrickle.snapshot_rows('secret')}, q{SELECT pgtrickle.snapshot_rows_binary('public.sales')}, q{SELECT pgtrickle.refresh_stream_table('sales')},
	q{SELECT pgtrickle.drop_stream_table('sales')}, q{SELECT pgtrickle.stream_table_to_publication('sales')}, q{SELECT pgtrickle.debezium_config('sales')}, q{INSERT INTO secret VALUES (2, 'x')})
{
	like($as->('follower', $statement), qr/ERROR:  42501/, "it cannot: $statement");
}
sql(q{SELECT pg_drop_replication_slot('f')});

$node->stop;
done_testing();
