# Soak::Faults: kill -9 of random processes of the server, and storms of pg_terminate_backend and
# pg_cancel_backend. Only processes that this server itself names are killed.
package Soak::Faults;

use strict;
use warnings;

use Exporter 'import';
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(kill_one wait_for_server storm);

my $ours = q{backend_type LIKE 'pg_trickle%'};

# One of: a process of the extension (half of the time), any other backend, one of the server's own.
sub kill_one
{
	my ($self, $dbh) = @_;
	my $of = rand() < 0.5 ? $ours : rand() < 0.8 ? q{backend_type = 'client backend'} : 'true';
	my ($pid, $type) = $dbh->selectrow_array("SELECT pid, backend_type FROM pg_stat_activity WHERE $of AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1");

	return unless $pid;
	my ($refreshes) = $dbh->selectrow_array(q{SELECT current_setting('pg_trickle.enabled')});
	kill 'KILL', $pid;
	$self->note("kill -9 $type");
	$self->wait_for_refresh(wait_for_server($self->{server}, $dbh), $refreshes eq 'on');
	return;
}

# After a crash all sessions are gone, also this one.
sub wait_for_server
{
	my ($server, $dbh) = @_;
	my $give_up = time() + 60;
	my $new;

	sleep(0.02) while $dbh && $dbh->ping && time() < $give_up;
	die "no crash within 60 s\n" if time() > $give_up;
	until ($new = Soak::Actor::connect_to($server))
	{
		die "the server does not come back within 60 s\n" if time() > $give_up;
		sleep(0.02);
	}
	return $new;
}

# From the first connection to the first completed refresh that began after it.
sub Soak::Actor::wait_for_refresh
{
	my ($self, $dbh, $enabled) = @_;
	my $start = time();
	my $back = eval { $dbh->selectrow_array('SELECT clock_timestamp()') } or return;

	$self->{dbh} = $dbh;
	return unless $enabled;
	while (time() - $start < 20)
	{
		my $there = eval {
			$dbh->selectrow_array(q{SELECT EXISTS (SELECT FROM pgtrickle.pgt_refresh_history WHERE status = 'COMPLETED' AND end_time > ?)},
				undef, $back);
		};
		return unless defined $there;
		if ($there)
		{
			$self->note('s from accepting connections to a refresh', time() - $start);
			return;
		}
		sleep(0.02);
	}
	# Others may have turned the scheduler off meanwhile.
	$self->note('no refresh within 20 s of a crash');
	return;
}

sub storm
{
	my ($self, $dbh) = @_;
	my $call = rand() < 0.7 ? 'pg_terminate_backend(pid)' : 'pg_cancel_backend(pid)';
	my $of = rand() < 0.8 ? $ours : q{(backend_type = 'client backend' OR } . $ours . ')';
	my $times = rand() < 0.5 ? 1 : 10;

	for (1 .. $times)
	{
		$dbh->do("SELECT $call FROM pg_stat_activity WHERE $of AND pid <> pg_backend_pid()");
		sleep(rand(0.2));
	}
	return;
}

1;
