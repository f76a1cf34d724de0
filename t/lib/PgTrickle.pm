# PgTrickle.pm: what the TAP tests share, on top of PostgreSQL::Test::Cluster.
#
#   use PgTrickle;
#   my $node = PgTrickle->new_node('main');                 # started, extension created
#   my $node = PgTrickle->new_node('quiet', scheduler => 0); # without shared_preload_libraries
#   $node->safe_psql('postgres', ...);                      # it is a PostgreSQL::Test::Cluster
#
#   stream_table_is_right($node, 'orders_by_day');          # one test: symmetric EXCEPT ALL
#   wait_until($node, 'SELECT ...');                        # until it returns t
#   wait_until_up($node);                                   # after a crash
#   wait_for_fresh($node, 'orders_by_day');                 # until it equals its query
#   my $s = session($node);                                 # background psql: query, query_safe, quit
#
# Every function takes an optional dbname => 'postgres' at its end. Nothing here sleeps
# for a guess: everything waits for a state and fails loudly at the time limit.
package PgTrickle;

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(dirname);
use Test::More;

our @EXPORT = qw(
  stream_table_is_right
  stream_table_diff
  wait_until
  is_up
  wait_until_up
  wait_for_fresh
  wait_for_refreshes
  session
  stream_table_query
  sql_value
  error_of
  has_test_points
);

my $pgxs;

BEGIN
{
	my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
	chomp($pgxs = `$pg_config --pgxs`);
	die "no pg_config --pgxs behind \"$pg_config\"\n" if $pgxs eq '';
	# .../pgxs/src/makefiles/pgxs.mk -> .../pgxs/src/test/perl
	unshift @INC, dirname(dirname($pgxs)) . '/test/perl';
	# Cluster->init calls this program with --config-auth.
	$ENV{PG_REGRESS} ||= dirname(dirname($pgxs)) . '/test/regress/pg_regress';
}

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

# Make, configure and start a server, and create the extension in "postgres".
#
#   scheduler => 0       do not preload the library: no launcher, no background refreshes
#   settings => '...'    text for postgresql.conf
#   extension => 0       do not CREATE EXTENSION
#   start => 0           leave it stopped (implies extension => 0)
#   init => [...]        extra arguments for Cluster->init
sub new_node
{
	my ($class, $name, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 'logical', @{ $opt{init} || [] });
	$node->append_conf('postgresql.conf', default_settings(%opt));
	$node->append_conf('postgresql.conf', $opt{settings}) if defined $opt{settings};
	return $node if defined $opt{start} && !$opt{start};

	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_trickle')
	  unless defined $opt{extension} && !$opt{extension};
	return $node;
}

# The part of postgresql.conf that every test server has.
sub default_settings
{
	my %opt = @_;
	my $conf = "wal_level = logical\n"
	  . "max_prepared_transactions = 10\n"
	  . "max_worker_processes = 16\n"
	  . "jit = off\n"
	  . "fsync = off\n"
	  # What AUTO chooses must not depend on how busy the machine is.
	  . "pg_trickle.prediction_min_samples = 0\n";

	$conf .= "shared_preload_libraries = 'pg_trickle'\n"
	  unless defined $opt{scheduler} && !$opt{scheduler};
	# Every scheduler test can be run with workers too.
	$conf .= "pg_trickle.max_parallel_workers = $ENV{PGT_PARALLEL_WORKERS}\n" if $ENV{PGT_PARALLEL_WORKERS};
	$conf .= "output_plugin_libraries = 'pgoutput, test_decoding, pg_trickle_decoder'\n"
	  if server_knows_setting('output_plugin_libraries');
	return $conf;
}

# A server refuses to start with a setting it does not know, so ask it first.
sub server_knows_setting
{
	my ($name) = @_;
	my $bindir = $ENV{PG_CONFIG} ? `$ENV{PG_CONFIG} --bindir` : `pg_config --bindir`;

	chomp $bindir;
	return scalar grep { /^\Q$name\E\t/ } `$bindir/postgres --describe-config`;
}

# One value of one query.
sub sql_value
{
	my ($node, $sql, %opt) = @_;
	return $node->safe_psql($opt{dbname} || 'postgres', $sql);
}

# The message of the error that $sql raises, '' when it raises none.
sub error_of
{
	my ($node, $sql, %opt) = @_;
	my ($status, $stdout, $stderr) =
	  $node->psql($opt{dbname} || 'postgres', "\\set VERBOSITY verbose\n$sql", on_error_stop => 1);

	return $status == 0 ? '' : $stderr;
}

# The defining query of a stream table, as the catalog has it.
sub stream_table_query
{
	my ($node, $name, %opt) = @_;
	my $query = sql_value(
		$node,
		"SELECT defining_query FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = "
		  . quote_literal($name) . "::regclass", %opt);

	die "no stream table $name\n" if $query eq '';
	$query =~ s/;\s*\z//;
	return $query;
}

# Rows that the stream table has too much ("+") or misses ("-"); '' when it equals its
# query. Both sides are read in one statement, so in one snapshot: for a table that is
# being refreshed meanwhile, wait_for_fresh is the right thing.
sub stream_table_diff
{
	my ($node, $name, %opt) = @_;
	my $query = stream_table_query($node, $name, %opt);
	my $table = sql_value($node, "SELECT " . quote_literal($name) . "::regclass", %opt);

	# By rows, and by image: 1.0 is not 1.00 here, and json has no equality.
	my $image = $opt{by_image} ? 't::text COLLATE "C" AS image' : 't.*';

	return sql_value(
		$node, qq{
WITH have AS MATERIALIZED (SELECT $image FROM ONLY $table AS t),
	 want AS MATERIALIZED (SELECT $image FROM (
$query
) AS t)
SELECT '+' AS side, d::text FROM (TABLE have EXCEPT ALL TABLE want) AS d
UNION ALL
SELECT '-', d::text FROM (TABLE want EXCEPT ALL TABLE have) AS d
LIMIT 20}, %opt);
}

# One test: the stream table equals its query, nothing else running.
sub stream_table_is_right
{
	my ($node, $name, $test, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $diff = stream_table_diff($node, $name, %opt);

	return is($diff, '', $test || "$name equals its query");
}

# Wait until a query returns t (or $opt{expected}); a failing test at the time limit.
sub wait_until
{
	my ($node, $sql, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return 1
	  if $node->poll_query_until($opt{dbname} || 'postgres', $sql,
		defined $opt{expected} ? $opt{expected} : 't');
	fail("timed out waiting for: $sql");
	return 0;
}

# Not asked by psql, which may be gone before it has read what it is to ask.
sub is_up
{
	my ($node) = @_;
	return system('pg_isready', '-q', '-h', $node->host, '-p', $node->port) == 0;
}

# After a crash.
sub wait_until_up
{
	my ($node) = @_;
	my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;

	until (is_up($node))
	{
		die "the server does not come back\n" if time() > $deadline;
		select undef, undef, undef, 0.05;
	}
	return 1;
}

# Wait until the scheduler has brought the stream table up to its query. Only sensible
# when the writers have stopped.
sub wait_for_fresh
{
	my ($node, $name, %opt) = @_;
	my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;
	my $diff;

	while (($diff = stream_table_diff($node, $name, %opt)) ne '')
	{
		if (time() > $deadline)
		{
			diag("$name still differs from its query:\n$diff");
			return 0;
		}
		select(undef, undef, undef, 0.05);
	}
	return 1;
}

# Wait until the history has at least $count completed refreshes of the table.
sub wait_for_refreshes
{
	my ($node, $name, $count, %opt) = @_;
	my $rel = quote_literal($name);

	return wait_until(
		$node, qq{
SELECT count(*) >= $count
FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables s USING (pgt_id)
WHERE s.pgt_relid = $rel\::regclass AND h.status = 'COMPLETED'}, %opt);
}

# A psql in the background, for transactions that stay open. ->query_safe(sql) returns
# its output, ->quit ends it; see PostgreSQL::Test::BackgroundPsql.
sub session
{
	my ($node, %opt) = @_;
	return $node->background_psql($opt{dbname} || 'postgres', on_error_stop => 0);
}

# Are the stop and error points of pgt_point.h compiled in?
sub has_test_points
{
	return $ENV{PGT_TEST_POINTS} ? 1 : 0;
}

sub quote_literal
{
	my ($text) = @_;
	$text =~ s/'/''/g;
	return $text =~ /\\/ ? " E'" . ($text =~ s/\\/\\\\/gr) . "'" : "'$text'";
}

1;
