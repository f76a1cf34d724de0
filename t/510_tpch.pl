# The 22 queries of TPC-H as stream tables, at a hundredth of its size, over cycles of changes
# of everything the queries read: after each cycle every stream table has its query's rows, by
# image, and a result that says something; and the refresh was incremental.
#
# PGT_TPCH_CYCLES and PGT_TPCH_SCALE make it longer or larger.
use strict;
use warnings;

use lib 't/oracle/lib', 't/bench/tpch/lib';

use DBI;
use Test::More;
use Time::HiRes qw(time);

use Oracle::Server;
use Tpch;

# Queries that are maintained incrementally. This list only grows.
my @incremental = (1 .. 22);

my $cycles = $ENV{PGT_TPCH_CYCLES} || 100;
my $server = Oracle::Server->start(settings => "shared_buffers = 256MB\nautovacuum = off\n");
my $dbh = DBI->connect("dbi:Pg:dbname=postgres;host=$server->{host};port=$server->{port}", 'postgres', '',
	{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1 });
$dbh->do('CREATE EXTENSION pg_trickle');
$dbh->do('SET client_min_messages = error');

my $tpch = Tpch->new($dbh, scale => $ENV{PGT_TPCH_SCALE} || 0.01);
$tpch->load;

my %why;
$why{$_} = $tpch->create($_) for 1 .. 22;
for my $n (1 .. 22)
{
	note("Q$n: ", $why{$n} // 'incremental');
	is($why{$n}, undef, "Q$n is maintained incrementally") if grep { $_ == $n } @incremental;
	$tpch->refresh($n);
	is($tpch->difference($n), undef, "Q$n is right when created");
}

my (%refresh, %wrong);
for my $cycle (1 .. $cycles)
{
	my @kinds = $tpch->change($cycle);
	my @failed;

	for my $n (grep { !$wrong{$_} } 1 .. 22)
	{
		my $failed = cycle($n);
		next if !defined $failed;
		push @failed, "Q$n: $failed";
		$wrong{$n} = 1;
		$tpch->refresh($n, 'FULL') if $failed !~ /fails/;
	}
	ok(!@failed, "cycle $cycle") or diag("after @kinds:\n", join("\n", @failed));
}

note(sprintf('Q%-2d refreshes: %.1f ms each', $_, 1e3 * $refresh{$_} / $cycles)) for sort { $a <=> $b } keys %refresh;
$dbh->disconnect;
done_testing();

# What is wrong with a stream table after its refresh, or undef.
sub cycle
{
	my ($n) = @_;

	eval { $refresh{$n} += $tpch->refresh($n); 1 } or return "the refresh fails: $@";
	my $difference = $tpch->difference($n);
	return $difference if defined $difference;
	return undef if defined $why{$n};
	my ($action, $reason) = $tpch->last_refresh($n);
	return $action eq 'DIFFERENTIAL' || $action eq 'NO_DATA' ? undef : "the refresh was $action: $reason";
}
