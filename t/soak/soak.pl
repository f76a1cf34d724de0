#!/usr/bin/perl
# soak.pl: a server under load, DDL, kill -9 and terminate storms; see README.md.
#
#   --seconds N    how long (default 180)
#   --round N      seconds between two times when all comes to rest (default 60)
#   --kill N       seconds between two kills (default 30)
#   --writers N    writing sessions (default 4)
#   --seed N       of what the sessions do (they run side by side: it is no replay)
#   --fake-bug     spoil a log, which has to be found
#   --keep         do not remove the server's folder
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Getopt::Long;
use Time::HiRes qw(sleep time);

use lib map { dirname(abs_path(__FILE__)) . $_ } '/lib', '/../oracle/lib';

use Oracle::Server;
use Soak::Actor;
use Soak::Check qw(differences stream_tables);
use Soak::Faults qw(kill_one storm);
use Soak::Writers qw(@WRITES @DDL);

my %opt = (seconds => 180, round => 60, kill => 30, writers => 4, seed => int(time() * 1000) % 1_000_000_000);
GetOptions(\%opt, qw(seconds=i round=i kill=i writers=i seed=i fake-bug keep)) or exit 2;
$| = 1;
$ENV{PGOPTIONS} = '';

# Refreshes may end like this, and in no other way.
my $expected_ends = qr/^(?:CRASHED 5\w+|TERMINATED 57P01|CANCELLED 57014|INTERRUPTED 57\w+|(?:FAILED|ERROR) (?:40001|40P01|55P03|57014|57P0\d|53\w+))$/;

my $server = Oracle::Server->start(
	preload => 1,
	settings => "full_page_writes = on\nmax_worker_processes = 16\nmax_connections = 40\nlog_error_verbosity = default\n"
	  . "log_line_prefix = '%m [%p] %b '\npg_trickle.scheduler_interval_ms = '1s'\n");
$server->keep if $opt{keep};
$SIG{$_} = sub { exit 3 } for qw(INT TERM);

my $folder = $server->{dir};
my $dbh = Soak::Actor::connect_to($server) or die "no connection\n";
$dbh->do('CREATE EXTENSION pg_trickle');
{
	open my $file, '<', dirname(abs_path(__FILE__)) . '/soak.sql' or die "soak.sql: $!";
	local $/;
	$dbh->do(<$file>);
}
printf "soak: %d s, seed %d\n", $opt{seconds}, $opt{seed};

my $start = time();
my ($round, $bad) = (0, 0);
my ($log_at, %seen);
while (time() - $start < $opt{seconds} && !$bad)
{
	one_round(++$round);
}
summary();
exit($bad ? 1 : 0);

sub one_round
{
	my ($number) = @_;
	my $until = time() + ($opt{round} < $opt{seconds} - (time() - $start) ? $opt{round} : $opt{seconds} - (time() - $start));
	my %common = (server => $server, folder => $folder, until => $until);
	my @actors;
	my $seed = $opt{seed} + 100 * $number;

	# What was open in the parent must not be shared.
	# All of it, since writers replace some and TRUNCATE everything of one.
	if ($opt{'fake-bug'})
	{
		$dbh->do($_) for 'UPDATE customer_log SET region = region + 1', 'UPDATE orders_log SET amount = amount + 1', 'UPDATE small_log SET v = v + 1';
	}
	$dbh->disconnect;
	push @actors, Soak::Actor->start(%common, name => "writer $_", actions => \@WRITES, pause => 0.1, seed => $seed + $_)
	  for 1 .. $opt{writers};
	push @actors, Soak::Actor->start(%common, name => 'ddl', actions => \@DDL, pause => 2, seed => $seed + 50);
	push @actors, Soak::Actor->start(%common, name => 'checker', actions => [ [ 'check at a frontier', \&check ] ], pause => 0.4, seed => $seed + 51);
	push @actors, Soak::Actor->start(%common, name => 'terminator', actions => [ [ 'storm', \&storm ] ], pause => 6, seed => $seed + 52);
	push @actors, Soak::Actor->start(%common, name => 'killer', actions => [ [ 'kill', \&kill_one ] ], pause => $opt{kill}, seed => $seed + 53);
	for my $pid (@actors)
	{
		waitpid($pid, 0);
		$bad++ if $?;
	}
	rest();
	printf "round %d: %d s of %d%s\n", $number, time() - $start, $opt{seconds}, $bad ? ', found something' : '';
}

# One snapshot: the catalog, the stream tables and the logs.
sub check
{
	my ($self, $dbh) = @_;

	$dbh->begin_work;
	$dbh->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
	my $all = stream_tables($dbh);
	for my $table (@$all)
	{
		next if rand() < 0.6;
		my $rows = eval { differences($dbh, $all, $table) };
		if ($@)
		{
			# The snapshot has it, but it was dropped since.
			die $@ unless $dbh->state eq '42P01' && $table->{name} =~ /now_and_then/;
			$dbh->rollback;
			return;
		}
		$self->find("$table->{name} is not what it was at its frontier $table->{frontier}:\n" . join("\n", @$rows)) if @$rows;
		$self->note("check of $table->{name} at its frontier");
	}
	$dbh->commit;
	return;
}

# Nobody does anything any more: all must become right and active by itself.
sub rest
{
	my $problem;

	$dbh = wait_for_connection();
	$dbh->do('ALTER SYSTEM RESET ALL');
	$dbh->do('SELECT pg_reload_conf()');
	$dbh->do((rand() < 0.5 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$_'") for @{ $dbh->selectcol_arrayref('SELECT gid FROM pg_prepared_xacts') };
	my $suspended = $dbh->selectall_arrayref(q{SELECT pgt_name, suspended_reason FROM pgtrickle.pgt_stream_tables WHERE status = 'SUSPENDED'});
	for my $row (@$suspended)
	{
		note_line('suspended: ' . ($row->[1] // ''));
		# Two kills in a refresh that runs alone, and pauses that a crash cut short, are all right.
		found("$row->[0] is suspended: $row->[1]") if ($row->[1] // '') !~ /crashed twice|paused|request|^$/i;
	}
	$dbh->do('SELECT pgtrickle.resume_all()');
	my $give_up = time() + 90;
	while (defined($problem = not_at_rest()) && time() < $give_up)
	{
		sleep(0.1);
	}
	found("90 s after the load: $problem") if defined $problem;
	my $ends = $dbh->selectall_arrayref(q{
		SELECT h.status || ' ' || coalesce(h.sqlstate, ''), count(*), min(h.error_message) FROM pgtrickle.pgt_refresh_history h WHERE h.status <> 'COMPLETED' GROUP BY 1});
	for my $end (@$ends)
	{
		note_line("refresh $end->[0]", $end->[1]);
		found("a refresh ended $end->[0]: $end->[2]") if $end->[0] !~ $expected_ends;
	}
	my ($completed) = $dbh->selectrow_array(q{SELECT count(*) FROM pgtrickle.pgt_refresh_history WHERE status = 'COMPLETED'});
	note_line('refresh COMPLETED', $completed);
	found("in the server's log: $_") for bad_log_lines();
	$dbh->do('TRUNCATE pgtrickle.pgt_refresh_history') unless $bad;
	$dbh->do('SELECT forget_logs()') unless $bad;
}

sub not_at_rest
{
	my $problem = eval {
		$dbh->begin_work;
		$dbh->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
		my $all = stream_tables($dbh);
		my ($count) = $dbh->selectrow_array('SELECT count(*) FROM pgtrickle.pgt_stream_tables');
		my @problems;
		push @problems, 'not all are populated' if $count != @$all;
		for my $table (@$all)
		{
			push @problems, "$table->{name} is $table->{status}" if $table->{status} ne 'ACTIVE';
			my $rows = $dbh->selectcol_arrayref("(SELECT '+ ' || t::text FROM (TABLE $table->{name} EXCEPT ALL ($table->{query})) t) UNION ALL "
				  . "(SELECT '- ' || t::text FROM (($table->{query}) EXCEPT ALL TABLE $table->{name}) t) LIMIT 10");
			push @problems, "$table->{name} differs from its query: " . join(', ', @$rows) if @$rows;
		}
		$dbh->commit;
		join("\n", @problems);
	};
	return $problem eq '' ? undef : $problem if defined $problem;
	$problem = $@;
	$dbh = wait_for_connection() unless $dbh->ping;
	eval { $dbh->rollback unless $dbh->{AutoCommit} };
	return $problem;
}

sub wait_for_connection
{
	my $give_up = time() + 60;
	my $new;

	until ($new = Soak::Actor::connect_to($server))
	{
		die "the server does not come back\n" if time() > $give_up;
		sleep(0.1);
	}
	return $new;
}

sub found
{
	my ($what) = @_;

	$bad++;
	open my $file, '>>', "$folder/findings" or die "findings: $!";
	print $file "$what\n";
	close $file;
}

sub note_line
{
	my ($what, $count) = @_;

	open my $file, '>>', "$folder/notes" or die "notes: $!";
	print $file join("\t", $what, $count // 1, ''), "\n";
	close $file;
}

# Crashes that we did not cause.
sub bad_log_lines
{
	open my $log, '<', "$folder/log" or die "log: $!";
	seek $log, $log_at // 0, 0;
	# Recovery reads to the end of the WAL, where an older segment may go on that was used again.
	my @lines = grep { /PANIC|TRAP:|terminated by signal (?!9:|15:)|corrupt|could not read block|unexpected(?! pageaddr)/ && !$seen{ s/^.*?\] //r }++ } <$log>;
	$log_at = tell $log;
	return map { s/\n//r } @lines;
}

sub summary
{
	my (%count, %most);

	if (open my $notes, '<', "$folder/notes")
	{
		while (my $line = <$notes>)
		{
			my ($what, $count, $most) = split /\t/, $line =~ s/\n//r;
			$count{$what} += $count;
			$most{$what} = $most if $most ne '' && (!defined $most{$what} || $most > $most{$what});
		}
	}
	printf "%-60s %7d%s\n", $_, $count{$_}, defined $most{$_} ? sprintf('  at most %.2f', $most{$_}) : '' for sort keys %count;
	return unless $bad;
	open my $findings, '<', "$folder/findings" or return;
	print "\nFOUND\n", <$findings>;
	print "\nthe end of the log:\n", $server->log_tail(40);
}
