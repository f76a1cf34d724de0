#!/usr/bin/perl
# sla.pl: are SLAs met when the workers have too little time? Prints Markdown; exit status 1 if a
# bar is missed.
#
#   --seconds N   measured per load (default 100), after a third of that to settle
#   --tables N    stream tables (default 24)
#   --load X      only this one (0.8, 1.0, 1.2)
#   --seed N      of durations and changes
#
# What is measured does not come from the extension: a client commits the changes, reads all
# stream tables every few milliseconds, and knows which change is the oldest that does not show.
# Refreshes take their time by sleeping, so that the load is what it is meant to be whatever else
# the machine does.
use strict;
use warnings;

use Cwd qw(abs_path);
use DBI;
use File::Basename qw(dirname);
use Getopt::Long;
use POSIX qw(strftime);
use Time::HiRes qw(time sleep);

use lib dirname(abs_path(__FILE__)) . '/../oracle/lib';

use Oracle::Server;

my %opt = (seconds => 100, tables => 24, seed => 1);
GetOptions(\%opt, qw(seconds=i tables=i load=f seed=i)) or exit 2;
$| = 1;

my $workers = 2;
my %bar = ('0.8' => 99, '1.0' => 95, '1.2' => 85);
my $failed = 0;

for my $load (sort keys %bar)
{
	measure($load) if !defined $opt{load} || $opt{load} == $load;
}
exit($failed ? 1 : 0);

sub measure
{
	my ($load) = @_;
	my $server = Oracle::Server->start(
		preload => 1,
		settings => "pg_trickle.max_parallel_workers = $workers\nfsync = on\n"
		  . "log_error_verbosity = default\n");
	my $dbh = DBI->connect("dbi:Pg:dbname=postgres;host=$server->{host};port=$server->{port}",
		'postgres', '',
		{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_server_prepare => 0 });
	my @tables;

	srand($opt{seed});
	$dbh->do('SET client_min_messages = error');
	$dbh->do('CREATE EXTENSION pg_trickle');
	head($dbh) if !$opt{headed}++;
	@tables = make_tables($dbh, $load);
	watch($dbh, \@tables, $opt{seconds} / 3);
	$_->{late} = $_->{watched} = 0 for @tables;
	my $refreshes = refreshes($dbh);
	watch($dbh, \@tables, $opt{seconds});
	report($dbh, $load, \@tables, refreshes($dbh) - $refreshes);
	$dbh->disconnect;
	$server->command('pg_ctl', '-D', "$server->{dir}/data", '-m', 'fast', '-w', 'stop');
	delete $server->{running};
	return;
}

sub refreshes
{
	return ($_[0]->selectrow_array(
			q{SELECT count(*) FROM pgtrickle.pgt_refresh_history WHERE initiated_by = 'SCHEDULER'}))[0];
}

# SLAs of 1 to 30 s; durations that have nothing to do with them, scaled for the load. A load of
# 1 is as much as the workers can do, if there is always a change that waits.
sub make_tables
{
	my ($dbh, $load) = @_;
	my @tables = map { { number => $_, sla => 30**(($_ - 1) / ($opt{tables} - 1)), weight => 10**rand(), late => 0, watched => 0 } }
	  1 .. $opt{tables};
	my ($low, $high) = (0, 1);

	for (1 .. 40)
	{
		my $scale = ($low + $high) / 2;
		my $needed = 0;

		for my $table (@tables)
		{
			my $takes = $scale * $table->{weight};
			$needed += $takes < $table->{sla} / 2 ? $takes / ($table->{sla} - $takes) : 1;
		}
		($needed > $load * $workers ? $high : $low) = $scale;
	}
	$dbh->do(q{CREATE FUNCTION slow(n bigint, seconds float8) RETURNS bigint LANGUAGE plpgsql IMMUTABLE
		AS 'BEGIN PERFORM pg_catalog.pg_sleep(seconds * (0.7 + 0.6 * pg_catalog.random())); RETURN n; END'});
	for my $table (@tables)
	{
		$table->{takes} = $low * $table->{weight};
		$dbh->do("CREATE TABLE source_$table->{number} (id int PRIMARY KEY, n bigint)");
		$dbh->do("INSERT INTO source_$table->{number} VALUES (1, 0)");
		$dbh->do(sprintf(q{SELECT pgtrickle.create_stream_table('st_%d', 'SELECT id, public.slow(n, %.4f) AS n FROM public.source_%d', refresh_mode => 'FULL', sla => '%d ms')},
				$table->{number}, $table->{takes}, $table->{number}, 1000 * $table->{sla}));
		$table->{written} = 0;    # n of the last change
		$table->{pending} = [];   # [n, time of commit] of those that do not show
		$table->{next} = time() + $table->{sla} * rand();
	}
	return @tables;
}

# Changes at random, four in the time of an SLA; and what of them shows.
sub watch
{
	my ($dbh, $tables, $seconds) = @_;
	my $shown = $dbh->prepare(join(' UNION ALL ', map { "SELECT $_->{number}, n FROM st_$_->{number}" } @$tables));
	my $last = time();
	my $end = $last + $seconds;

	while ($last < $end)
	{
		for my $table (grep { $_->{next} <= time() } @$tables)
		{
			$table->{written}++;
			$dbh->do("UPDATE source_$table->{number} SET n = $table->{written}");
			push @{ $table->{pending} }, [ $table->{written}, time() ];
			$table->{next} = time() - log(1 - rand()) * $table->{sla} / 4;
		}
		$shown->execute;
		my %n = map { $_->[0] => $_->[1] } @{ $shown->fetchall_arrayref };
		my $now = time();

		for my $table (@$tables)
		{
			my $pending = $table->{pending};

			$table->{watched} += $now - $last;
			# What shows now was late, if it was, until now.
			$table->{late} += late($pending->[0][1] + $table->{sla}, $last, $now) if @$pending;
			shift @$pending while @$pending && $pending->[0][0] <= $n{ $table->{number} };
		}
		$last = $now;
		sleep(0.01);
	}
	return;
}

# How much of the time between two looks is after the deadline.
sub late
{
	my ($deadline, $last, $now) = @_;

	$deadline = $last if $deadline < $last;
	return $now > $deadline ? $now - $deadline : 0;
}

sub report
{
	my ($dbh, $load, $tables, $refreshes) = @_;
	my @attained = sort { $a->{attained} <=> $b->{attained} }
	  map { { %$_, attained => 100 * (1 - $_->{late} / $_->{watched}) } } @$tables;
	my $mean = 0;
	my ($own) = $dbh->selectrow_array('SELECT 100 * min(attainment_1h) FROM pgtrickle.sla_status');
	my ($needed) = $dbh->selectrow_array('SELECT sla_workers_needed * 0.8 FROM pgtrickle.capacity');
	my $tiers = join(', ', map { "$_->[1] $_->[0]" } @{ $dbh->selectall_arrayref(
			'SELECT tier, count(*) FROM pgtrickle.sla_status GROUP BY tier ORDER BY tier') });

	$mean += $_->{attained} / @attained for @attained;
	$failed = 1 if $attained[0]{attained} < $bar{$load};
	printf "| %.1f | %.1f %% | >= %d %%%s | %.1f s | %.1f %% | %s %% | %.2f | %d | %s |\n", $load,
	  $attained[0]{attained}, $bar{$load}, $attained[0]{attained} < $bar{$load} ? ', missed' : '', $attained[0]{sla}, $mean,
	  defined $own ? sprintf('%.1f', $own) : '?', $needed / $workers, $refreshes, $tiers;
	return;
}

sub head
{
	my ($dbh) = @_;
	my ($cpu) = grep { /^model name/ } do { open my $f, '<', '/proc/cpuinfo'; <$f> };
	my $cores = () = do { open my $f, '<', '/proc/cpuinfo'; my $t = join('', <$f>); $t =~ /^processor/mg };

	$cpu = ($cpu || 'unknown') =~ s/.*:\s*//r =~ s/\s+\z//r;
	printf "# SLAs under load\n\n`make -s bench-sla` on %s: pg_trickle %s, PostgreSQL %s; %s, %d cores.\n"
	  . "%d stream tables with SLAs of 1 to 30 s, %d workers, %d s per load. Attainment: share of the time in which no\n"
	  . "committed change was older than the SLA and did not show.\n\n",
	  strftime('%Y-%m-%d', gmtime),
	  ($dbh->selectrow_array(q{SELECT extversion FROM pg_extension WHERE extname = 'pg_trickle'}))[0],
	  ($dbh->selectrow_array('SHOW server_version'))[0], $cpu, $cores, $opt{tables}, $workers, $opt{seconds};
	print "| load | worst table | bar | its SLA | mean | worst by sla_status, with the start | load by capacity | refreshes | tiers at the end |\n"
	  . "|---|--:|---|--:|--:|--:|--:|--:|---|\n";
	return;
}
