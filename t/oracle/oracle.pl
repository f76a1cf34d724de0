#!/usr/bin/perl
# oracle.pl: random schemas, queries and transactions; after every refresh, does the stream
# table equal its query? See README.md.
#
#   --seconds N      how long (default 60); with --seeds: at most
#   --seed N         only this seed, shrunk if it fails
#   --seeds A-B      these seeds, then random ones until the time is over
#   --only           no random ones after --seeds
#   --first N        where the random seeds begin (default: the clock)
#   --out DIR        where scripts of failures go (default tmp_check/oracle)
#   --failures N     stop after so many failures (default 5)
#   --shrink N       seconds to spend on one failure (default 60; 0: none)
#   --known REGEX    failures whose message matches are counted only
#   --technique X    only this one ('', akr or 2kr); default all of @TECHNIQUES
#   --host --port    an existing server instead of one of its own
#   --fake           test the tester: PostgreSQL alone, refreshed by delete and insert
#   --fake-bug       the same with a mistake in it
#   --print          show the case of --seed, run nothing
#   --sum FILE...    add up the reports at the ends of several runs' outputs, run nothing
#   --verbose        every statement; --rejected: queries that PostgreSQL refuses
#   --keep           leave the server's folder
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use Getopt::Long;
use Time::HiRes qw(time);

use lib dirname(abs_path(__FILE__)) . '/lib';

use Oracle::Case;
use Oracle::Report;
use Oracle::Runner;
use Oracle::Script;
use Oracle::Server;
use Oracle::Shrink;

# '' is what the engine chooses; the others are values of pg_trickle.force_technique.
my @TECHNIQUES = ('', 'akr', '2kr');

my %opt = (seconds => 60, failures => 5, shrink => 60, out => 'tmp_check/oracle', user => 'postgres');
GetOptions(\%opt,
	qw(seconds=f seed=i seeds=s only first=i out=s failures=i shrink=f technique=s known=s host=s port=i user=s
	  fake fake-bug print sum verbose+ rejected keep steps=i))
  or exit 2;
$| = 1;

if ($opt{print})
{
	my $case = make_case($opt{seed}, %opt);
	print((script_of($case, { kind => 'not run', detail => '', technique => '' }))[0]);
	exit 0;
}

if ($opt{sum})
{
	my $sum = {};
	read_report($sum, $_) for @ARGV;
	print_report($sum);
	exit 0;
}

my $start = time();
my ($ran, $failed, $total) = (0, 0, {});
my $server = $opt{host} ? undef : Oracle::Server->start;
my $runner = Oracle::Runner->new(
	host => $opt{host} || $server->{host},
	port => $opt{port} || $server->{port},
	user => $opt{user},
	dbname => 'oracle',
	server => $opt{fake} || $opt{'fake-bug'} ? undef : $server,
	verbose => $opt{verbose},
	explain_rejected => $opt{rejected},
	fake => $opt{fake} || $opt{'fake-bug'} ? fake_sql($opt{'fake-bug'}) : undef);
# So that the server ends, too, and what was found is not lost.
$SIG{$_} = sub { report(); exit 3 } for qw(INT TERM);
$server->keep if $server && $opt{keep};
$runner->new_database;

my @seeds = defined $opt{seed} ? ($opt{seed}) : ();
my $next = defined $opt{first} ? $opt{first} : int(time() * 1000) % 1_000_000_000;

@seeds = ($1 .. $2) if defined $opt{seeds} && $opt{seeds} =~ /^(\d+)-(\d+)$/;
printf "oracle: %s, random seeds from %d\n",
  @seeds ? "seeds $seeds[0] to $seeds[-1]" : 'no fixed seeds', $next;
while (1)
{
	my $fixed = @seeds > 0;
	last if time() - $start > $opt{seconds} && !defined $opt{seed};
	last if !$fixed && (defined $opt{seed} || $opt{only});
	one_seed($fixed ? shift @seeds : $next++);
	last if $failed >= $opt{failures};
	last if defined $opt{seed};
}
report();
exit($failed ? 1 : 0);

sub one_seed
{
	my ($seed) = @_;
	my @techniques = defined $opt{technique} ? ($opt{technique}) : @TECHNIQUES;

	$ran++;
	$runner->{tags} = {};
	for my $technique ($runner->{fake} ? '' : @techniques)
	{
		my $case = make_case($seed, %opt);
		my $failure = $runner->run_case($case, technique => $technique);

		$runner->count('cases run with technique', $technique || 'as the engine chooses');
		next unless $failure;
		if ($failure->{kind} eq 'invalid')
		{
			$runner->count('cases that PostgreSQL rejects', $failure->{detail} =~ s/\n.*//sr);
			print "seed $seed: PostgreSQL rejects the case: $failure->{detail}\n" if $opt{rejected};
			next;
		}
		if (defined $opt{known} && $failure->{detail} =~ /$opt{known}/)
		{
			$runner->count('failures known before', $failure->{key});
			last;
		}
		$failed++;
		print_failure($seed, $case, $failure);
		last;
	}
	$runner->count('construct seeds', $_) for keys %{ $runner->{tags} };
}

sub print_failure
{
	my ($seed, $case, $failure) = @_;
	my $where = $failure->{step} // 'end';
	$where = "step $where" if $where =~ /^\d+$/;

	printf "\nseed %d, technique %s, %s: %s\n%s\n", $seed, $failure->{technique} || 'as chosen', $where,
	  $failure->{key}, $failure->{detail};
	print $server->log_tail(25) if $server && $failure->{kind} eq 'crash';
	my $tries = 0;
	($case, $failure, $tries) = shrink($runner, $case, $failure, seconds => $opt{shrink}) if $opt{shrink};
	my ($text, $suffix) = script_of($case, $failure);
	make_path($opt{out});
	my $file = "$opt{out}/seed-$seed.$suffix";
	if (open my $out, '>', $file)
	{
		print $out $text;
		close $out;
	}
	print "after $tries tries of making it smaller, in $file:\n\n$text\n";
}

sub report
{
	$total->{runs}{''} = [ 1, time() - $start, $ran, $failed ];
	print_report(add_stats($total, $runner->{stats}));
}

sub fake_sql
{
	my ($bug) = @_;
	my $file = dirname(abs_path(__FILE__)) . '/fake.sql';
	open my $in, '<', $file or die "$file: $!";
	local $/;
	my $sql = <$in>;
	$sql =~ s/'no mistake'/'a mistake'/ if $bug;
	return $sql;
}
