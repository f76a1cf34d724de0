#!/usr/bin/perl
# tpch.pl: the 22 queries of TPC-H, recomputed and refreshed, as a Markdown table.
#
#   --scale S        of the specification's size (default 1)
#   --percent LIST   of the data changed before a refresh (default 0.1,1)
#   --rounds N       refreshes per figure, after one that plans (default 3)
#   --queries LIST   (default 1-22)
#   --mode MODE      refresh mode of the stream tables (default AUTO)
#   --orders-only    no changes of part, partsupp, customer and supplier
#   --socket DIR --port N   an existing server's (database tpch_bench, which is replaced)
use strict;
use warnings;

use Cwd qw(abs_path);
use DBI;
use File::Basename qw(dirname);
use Getopt::Long;
use POSIX qw(strftime);
use Time::HiRes qw(time);

use lib dirname(abs_path(__FILE__)) . '/lib', dirname(abs_path(__FILE__)) . '/../../oracle/lib';

use Oracle::Server;
use Tpch;

my @arguments = @ARGV;
my %opt = (scale => 1, percent => '0.1,1', rounds => 3, queries => '1-22', mode => 'AUTO', port => 5432);
GetOptions(\%opt, qw(scale=f percent=s rounds=i queries=s mode=s orders-only socket=s port=i)) or exit 2;
$| = 1;

my @queries = map { /^(\d+)-(\d+)$/ ? ($1 .. $2) : $_ } split /,/, $opt{queries};
my $server = $opt{socket} ? undef : Oracle::Server->start(
	settings => "fsync = on\nfull_page_writes = on\nshared_buffers = 4GB\nmaintenance_work_mem = 256MB\nwork_mem = 64MB\nmax_wal_size = 8GB\npg_trickle.prediction_min_samples = 5\n"
	  . "effective_cache_size = 4GB\ncheckpoint_timeout = 1h\nautovacuum = off\nlog_error_verbosity = default\n");
my $dbh = database();
my $tpch = Tpch->new($dbh, scale => $opt{scale});

progress('loading');
$tpch->load;
my (%full, %why, %stages);
for my $n (@queries)
{
	progress("Q$n, recomputing");
	$tpch->run("CREATE MATERIALIZED VIEW m AS " . $tpch->query($n));
	$full{$n} = [ median(map { timed('REFRESH MATERIALIZED VIEW m') } 1 .. ($opt{rounds} > 1 ? 3 : 1)) ];
	$tpch->run('DROP MATERIALIZED VIEW m');
	$why{$n} = $tpch->create($n, $opt{mode});
	push @{ $full{$n} }, $tpch->refresh($n, 'FULL');
	my @stages = map { s/^\S+, //r =~ s/ by .*//r } @{ $dbh->selectcol_arrayref(
		"SELECT value FROM pgtrickle.explain_st('q$n') WHERE property LIKE 'stage %'") };
	my %seen;
	$stages{$n} = @stages . ': ' . join(', ', grep { !$seen{$_}++ } @stages);
}
my $missing = $dbh->selectcol_arrayref('SELECT DISTINCT create_index FROM pgtrickle.missing_indexes() ORDER BY 1');
$tpch->run($_) for @$missing;
$tpch->run('VACUUM ANALYZE');

# What is recomputed was read just now; so is what is looked up, which tables of this size are in use, too.
$tpch->run('CREATE EXTENSION pg_prewarm');
$tpch->run("SELECT pg_prewarm(oid::regclass) FROM pg_class WHERE relkind IN ('r', 'i') AND relpersistence = 'p'");
$tpch->run('SET synchronous_commit = off');
printf "# TPC-H, scale %s\n\n    make -s bench-tpch TPCH='%s'\n\n%s; %s; %s\n", $opt{scale}, "@arguments",
  strftime('%Y-%m-%d', gmtime), processor(), $dbh->selectrow_array('SELECT version()') =~ s/ on .*//r;
print "\nMade, because `pgtrickle.missing_indexes()` asks for them: " . join(', ', map { "`$_`" } @$missing) . "\n" if @$missing;
for my $percent (split /,/, $opt{percent})
{
	report($percent, 0);
	report($percent, 1) unless $opt{'orders-only'};
}
nine() if grep { $_ == 9 } @queries;

# --- measuring ---------------------------------------------------------------------------

sub database
{
	my $connect = sub {
		return DBI->connect("dbi:Pg:dbname=$_[0];host=" . ($server ? $server->{host} : $opt{socket})
			  . ";port=$opt{port}", 'postgres', '',
			{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1 });
	};
	my $first = $connect->('postgres');
	$first->do('SET client_min_messages = error');
	$first->do("DROP DATABASE IF EXISTS tpch_bench");
	$first->do('CREATE DATABASE tpch_bench');
	$first->disconnect;
	my $handle = $connect->('tpch_bench');
	$handle->do('SET client_min_messages = error');
	$handle->do('CREATE EXTENSION pg_trickle');
	return $handle;
}

sub timed
{
	my ($sql) = @_;
	my $start = time();
	$tpch->run($sql);
	return time() - $start;
}

sub median { my @sorted = sort { $a <=> $b } @_; return ($sorted[ $#sorted / 2 ] + $sorted[ @sorted / 2 ]) / 2 }

sub report
{
	my ($percent, $all) = @_;
	my (%times, %how, %read, $lines);

	for my $round (0 .. $opt{rounds})
	{
		progress("$percent %, round $round" . ($all ? ', every table' : ''));
		$lines = $tpch->change_fraction($percent / 100, 1000 * $round + int(10 * $percent) + 500 * $all, $all);
		for my $n (@queries)
		{
			my $time = eval { $tpch->refresh($n) };
			if (!defined $time)
			{
				$how{$n} = 'failed: ' . ($@ =~ s/\n.*//sr);
				next;
			}
			push @{ $times{$n} }, $time;
			my ($action, $reason) = ($tpch->last_refresh($n));
			$how{$n} = $action eq 'DIFFERENTIAL' ? '' : "$action $reason";
		}
	}
	print "\n## $percent % changed: " . ($all ? 'every table' : 'orders and their lines') . "\n\n"
	  . "Full: REFRESH MATERIALIZED VIEW. Ours full: `refresh_stream_table(name, 'FULL')`. Milliseconds.\n\n"
	  . "| query | full | ours full | first, planning | differential | ratio | stages | |\n|--:|--:|--:|--:|--:|--:|---|---|\n";
	my @ratios;
	for my $n (@queries)
	{
		my @all = @{ $times{$n} || [0] };
		my $first = shift @all;
		my $time = median(@all ? @all : $first) || 1e-9;
		my $wrong = $tpch->difference($n);
		push @ratios, $full{$n}[0] / $time;
		printf "| %d | %.0f | %.0f | %.1f | %.1f | %.1f | %s | %s |\n", $n, map({ 1e3 * $_ } @{ $full{$n} }, $first, $time),
		  $ratios[-1], $stages{$n}, join('; ', grep { length } $why{$n} // '', $how{$n}, defined $wrong ? 'WRONG: ' . ($wrong =~ s/\n.*//sr) : '');
	}
	printf "\nMedian %.1f, smallest %.2f.\n", median(@ratios), (sort { $a <=> $b } @ratios)[0];
}

# Q9 when five of its tables change at once, about a thousand images of lineitem.
sub nine
{
	my @times;

	for my $round (0 .. 5)
	{
		my $some = $tpch->some('orders', 'o_orderkey', 125, 77 + $round);
		$tpch->run('BEGIN');
		$tpch->run("CREATE TEMP TABLE updated AS $some");
		my $lines = $tpch->run('UPDATE lineitem SET l_quantity = l_quantity % 50 + 1 WHERE l_orderkey IN (TABLE updated)');
		$tpch->run('UPDATE orders SET o_orderdate = o_orderdate + 1 WHERE o_orderkey IN (TABLE updated)');
		$tpch->run('UPDATE partsupp SET ps_supplycost = ps_supplycost + 1 WHERE ps_partkey IN (' . $tpch->some('part', 'p_partkey', 5, $round) . ')');
		$tpch->run("UPDATE part SET p_name = p_name || '*' WHERE p_partkey = " . (10 + $round));
		$tpch->run('UPDATE supplier SET s_nationkey = (s_nationkey + 1) % 25 WHERE s_suppkey = ' . (60 + $round));
		$tpch->run('DROP TABLE updated');
		$tpch->run('COMMIT');
		push @times, [ $tpch->refresh(9), 2 * $lines ];
	}
	my $first = shift @times;
	printf "\n## Q9, five tables changed\n\nlineitem (%d images), orders, partsupp, part and supplier: %.1f ms; %.1f ms the first time. %s\n",
	  $first->[1], 1e3 * median(map { $_->[0] } @times), 1e3 * $first->[0],
	  defined $tpch->difference(9) ? 'WRONG' : '';
}

sub processor
{
	open my $info, '<', '/proc/cpuinfo' or return 'unknown processor';
	my @lines = grep { /^model name/ } <$info>;
	return @lines ? scalar(@lines) . ' x' . ($lines[0] =~ s/^.*:\s*/ /r =~ s/\s+$//r) : 'unknown processor';
}

sub progress { print STDERR "== $_[0]\n" }
