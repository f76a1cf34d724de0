#!/usr/bin/perl
# corpus.pl: every query of PostgreSQL's own regression tests as a stream table in AUTO, where
# it works as a materialized view. The rows must be the same, also after changes; what is
# refused must be refused clearly. See README.md.
#
#   --source DIR      src/test/regress of PostgreSQL's source
#   --files LIST      names of tests, with commas (default: those in @FILES)
#   --rounds N        changes and refreshes per query (default 2)
#   --timeout MS      per statement (default 20000)
#   --technique X     value of pg_trickle.force_technique
#   --host --port     an existing server instead of one of its own
#   --list KINDS      print the queries with these outcomes (default: the bugs)
#   --out FILE        all outcomes, one line each, tab-separated
use strict;
use warnings;

use Cwd qw(abs_path);
use DBI;
use File::Basename qw(dirname);
use File::Temp;
use Getopt::Long;

use lib dirname(abs_path(__FILE__)) . '/lib', dirname(abs_path(__FILE__)) . '/../oracle/lib';

use Corpus::Probe;
use Corpus::Script;
use Oracle::Server;

# What makes the tables that the others use, then those that are about queries.
my @SETUP = qw(test_setup create_misc create_index create_view);
my @FILES = qw(aggregates arrays case collate domain enum equivclass explain expressions fast_default
  generated groupingsets hash_func hash_part horology incremental_sort indexing inherit insert_conflict
  interval join join_hash json jsonb jsonb_jsonpath jsonpath limit matview memoize misc misc_functions
  multirangetypes numeric partition_aggregate partition_join partition_prune plancache
  plpgsql polymorphism portals rangefuncs rangetypes returning rowsecurity rowtypes rules select
  select_distinct select_distinct_on select_having select_implicit select_into select_parallel
  select_views sqljson strings subselect tablesample tid tidscan tsearch tsrf tuplesort union
  updatable_views window with xml xmlmap);

my %opt = (rounds => 2, timeout => 20000, list => join(',', @Corpus::Probe::BUGS), port => 5432);
GetOptions(\%opt, qw(source=s files=s rounds=i timeout=i technique=s host=s port=i list=s out=s)) or exit 2;
die "--source is missing\n" unless $opt{source} && -d "$opt{source}/sql";
$opt{source} = abs_path($opt{source});
$| = 1;
$SIG{$_} = sub { exit 3 } for qw(INT TERM);		# so that the server ends, too

my $server = $opt{host} ? undef : Oracle::Server->start(settings => "log_error_verbosity = default\n");
my $host = $opt{host} || $server->{host};
my $port = $opt{host} ? $opt{port} : $server->{port};
my $probe = Corpus::Probe->new(rounds => $opt{rounds});
my %listed = map { $_ => 1 } split /,/, $opt{list};
my (%count, %total, %reasons);
my $out;

if ($opt{out}) { open $out, '>', $opt{out} or die "$opt{out}: $!"; }
make_template();
for my $file ($opt{files} ? split(/,/, $opt{files}) : @FILES)
{
	run_file($file) if -f "$opt{source}/sql/$file.sql";
}
report();
exit((grep { $total{$_} } @Corpus::Probe::BUGS) ? 1 : 0);

sub connect_to
{
	my ($database) = @_;
	my $dbh = DBI->connect("dbi:Pg:host=$host;port=$port;dbname=$database", 'postgres', '',
		{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_server_prepare => 0, pg_enable_utf8 => 0 });

	$dbh->{pg_placeholder_dollaronly} = 1;
	$dbh->do("SET client_min_messages = error; SET statement_timeout = $opt{timeout}");
	$dbh->do("SET pg_trickle.force_technique = '$opt{technique}'") if defined $opt{technique};
	return $dbh;
}

sub text_of
{
	my ($file) = @_;
	open my $handle, '<:raw', "$opt{source}/sql/$file.sql" or die "$file.sql: $!";
	local $/;
	return scalar <$handle>;
}

# psql runs these, since they read files.
sub make_template
{
	my $admin = connect_to('postgres');
	my $library = build_library();

	$admin->do('DROP DATABASE IF EXISTS corpus_template');
	$admin->do("CREATE DATABASE corpus_template TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'");
	$admin->do("ALTER DATABASE corpus_template SET $_")
	  for q(timezone = 'PST8PDT'), q(datestyle = 'Postgres, MDY'), q(intervalstyle = 'postgres_verbose');
	local $ENV{PG_ABS_SRCDIR} = $opt{source};
	local $ENV{PG_LIBDIR} = dirname($library);
	local $ENV{PG_DLSUFFIX} = '.so';
	local $ENV{PGOPTIONS} = '-c client_min_messages=error';
	for my $file (@SETUP)
	{
		system("psql -X -q -h '$host' -p $port -U postgres -d corpus_template -f '$opt{source}/sql/$file.sql' >/dev/null 2>&1");
	}
	my $dbh = connect_to('corpus_template');
	$dbh->do('CREATE EXTENSION pg_trickle');
	$dbh->do('CREATE SCHEMA corpus; GRANT ALL ON SCHEMA corpus TO PUBLIC');
	$dbh->do('GRANT SELECT ON pgtrickle.pgt_definitions, pgtrickle.pgt_dependencies TO PUBLIC');
	$dbh->disconnect;
}

# The C functions of the tests; without them a few statements fail.
sub build_library
{
	my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
	my $dir = File::Temp::tempdir(CLEANUP => 1);

	chmod 0755, $dir;
	chomp(my $include = `$pg_config --includedir-server`);
	system("cc -w -shared -fPIC -I'$include' -o '$dir/regress.so' '$opt{source}/regress.c' >/dev/null 2>&1");
	return "$dir/regress.so";
}

sub run_file
{
	my ($file) = @_;
	my $admin = connect_to('postgres');

	$admin->do('DROP DATABASE IF EXISTS corpus_run');
	$admin->do('CREATE DATABASE corpus_run TEMPLATE corpus_template');
	my $dbh = connect_to('corpus_run');
	my %seen;

	%count = ();
	for my $statement (Corpus::Script::statements(text_of($file)))
	{
		my $query = Corpus::Script::query_of($statement->{sql});

		if (defined $query && !$seen{$query}++ && can_be_probed($dbh))
		{
			note($file, $statement, probe($dbh, $query));
		}
		if (!$dbh->ping)
		{
			# What the file has made in this session is lost; the rest of it does with less.
			sleep 1 until eval { $dbh = connect_to('corpus_run') };
			next;
		}
		%seen = () unless $statement->{sql} =~ /^(?:select|explain|with|values)\b/i;
		run_statement($dbh, $statement);
		if (!$dbh->ping) { sleep 1 until eval { $dbh = connect_to('corpus_run') }; }
	}
	eval { $dbh->disconnect };
	printf "%-20s %s\n", $file, join ', ', map { "$count{$_} $_" } grep { $count{$_} } @Corpus::Probe::KINDS;
}

# Not after an error in the file's own transaction.
sub can_be_probed { return $_[0]->ping && $_[0]->ping != 4 }

sub probe
{
	my ($dbh, $query) = @_;
	my $inside = $dbh->ping != 1;

	$dbh->do($inside ? 'SAVEPOINT corpus_probe' : 'BEGIN');
	my $outcome = $probe->run($dbh, $query);
	return $outcome unless $dbh->ping;
	eval { $dbh->do($inside ? 'ROLLBACK TO SAVEPOINT corpus_probe; RELEASE SAVEPOINT corpus_probe' : 'ROLLBACK') };
	return $outcome;
}

# As psql would; temporary tables are permanent ones here, so that their queries count.
sub run_statement
{
	my ($dbh, $statement) = @_;
	my $sql = $statement->{sql};

	return if $sql =~ /^copy\b.*\bto\s+stdout/is || ($sql =~ /^copy\b.*\bfrom\s+stdin/is && !defined $statement->{data});
	$sql =~ s/^(create\s+)(?:local\s+|global\s+)?temp(?:orary)?\s+(table|view|recursive)/$1$2/i;
	$sql =~ s/\s+on\s+commit\s+(?:drop|delete\s+rows|preserve\s+rows)//i if $sql =~ /^create\s+table/i;
	eval {
		$dbh->do($sql);
		if (defined $statement->{data})
		{
			$dbh->pg_putcopydata($statement->{data});
			$dbh->pg_putcopyend;
		}
		1;
	} or eval { $dbh->do('SELECT 1') };
	# The file may have taken the limit away.
	eval { $dbh->do("SET statement_timeout = $opt{timeout}") } if $sql =~ /^\s*(?:reset|set)\b/i;
}

sub note
{
	my ($file, $statement, $outcome) = @_;
	my $kind = $outcome->{kind};
	my ($reason) = split /\n/, $outcome->{message} // '';

	$count{$kind}++;
	$total{$kind}++;
	$reasons{$kind}{$reason =~ s/"[^"]*"/"..."/gr}++ if $kind =~ /^(?:full|refused|unclear)\z/;
	print $out join("\t", $file, $statement->{line}, $kind, ($outcome->{message} // '') =~ s/\s+/ /gr), "\n" if $out;
	return unless $listed{$kind};
	my $query = ($outcome->{query} // $statement->{sql}) =~ s/^/    /gmr;
	my $message = ($outcome->{message} // '') =~ s/^/  /gmr;
	print "$file.sql:$statement->{line}: $kind\n$query\n$message\n";
}

sub report
{
	print "\n";
	printf "%-13s %6d\n", $_, $total{$_} // 0 for @Corpus::Probe::KINDS;
	for my $kind (qw(full refused unclear))
	{
		my $of = $reasons{$kind} or next;

		print "\n$kind:\n";
		printf "%6d  %s\n", $of->{$_}, $_ for sort { $of->{$b} <=> $of->{$a} || $a cmp $b } keys %$of;
	}
}
