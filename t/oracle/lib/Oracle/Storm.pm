# Oracle::Storm: the part of Oracle::Runner in which sessions do not take turns: refreshes
# that wait for another session, sessions side by side, servers that die.
package Oracle::Storm;

use strict;
use warnings;

use Time::HiRes qw(time sleep);

use Oracle::Case;

use constant ASYNC => 1;		# DBD::Pg's PG_ASYNC

# --- several at once -------------------------------------------------------------------

sub send
{
	my ($self, $s, $sql) = @_;
	local $SIG{__WARN__} = sub { };
	$self->trace("$s: (sent) $sql") if $self->{verbose};
	return $self->session($s)->do($sql, { pg_async => ASYNC });
}

sub receive
{
	my ($self, $s) = @_;
	local $SIG{__WARN__} = sub { };
	my $result = $self->session($s)->pg_result;
	return 1 if defined $result && $result ne '';
	$self->note_error($s);
	return 0;
}

sub refresh_waiting
{
	my ($self, $step) = @_;
	my ($s, $other, $name) = @$step{qw(s other st)};

	return unless $self->stream($name) && $self->exists_in('admin', $name);
	return $self->refresh($s, $name)
	  if $self->in_transaction($s) || !$self->in_transaction($other);
	my $pid = $self->session($s)->{pg_pid};
	my $ready = sub { $self->session($s)->pg_ready };
	my $before = $self->last_refresh($s, $name);

	$self->run_sql($s, 'SET lock_timeout = 3000');
	$self->send($s, Oracle::Runner::refresh_sql($name));
	$self->wait_for(sub { $ready->() || $self->sql_value('admin', "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $pid AND NOT granted)") });
	if (!$ready->())
	{
		$self->count('refreshes', 'had to wait');
		$self->write($other, 'COMMIT');
	}
	$self->wait_for($ready);
	my $ok = $self->receive($s);
	$self->refresh_failed($s, $name) unless $ok;
	$self->run_sql($s, 'SET lock_timeout = 40');
	return unless $ok;
	$self->note_refresh($s, $name, $before);
	$self->check($s, $name, 'waiting refresh');
}

sub wait_for
{
	my ($self, $done) = @_;
	my $deadline = time() + 60;

	while (!$done->())
	{
		die { kind => 'hang', key => 'hang', detail => 'a statement does not end' } if time() > $deadline;
		sleep(0.001);
	}
}

# Sessions run their scripts side by side; what happens in which order is up to the server.
sub storm
{
	my ($self, $step) = @_;
	my %queue;

	$self->end_transactions;
	for my $s (1 .. @{ $step->{scripts} })
	{
		$queue{$s} = [ map { $self->storm_sql($_) } @{ $step->{scripts}[ $s - 1 ] } ];
		$self->run_sql($s, 'SET lock_timeout = 2000');
	}
	my %busy;
	my $crash = $self->{server} ? $step->{crash} : undef;
	my $start = time();
	while (%queue)
	{
		if ($crash && time() - $start > $crash->{after})
		{
			$self->crash_now($crash->{how}, 1);
			$self->count('crashes', 'in a storm');
			last;
		}
		for my $s (sort keys %queue)
		{
			if (defined $busy{$s})
			{
				next unless $self->session($s)->pg_ready;
				$self->storm_result($s, delete $busy{$s});
			}
			my $next = shift @{ $queue{$s} };
			if (!defined $next)
			{
				delete $queue{$s};
				next;
			}
			$self->send($s, $next->{sql});
			$busy{$s} = $next;
		}
		sleep(0.0003);
	}
	$self->run_sql($_, 'SET lock_timeout = 40') for 1 .. @{ $step->{scripts} };
	$self->end_transactions;
	$self->check_all('storm');
}

sub storm_sql
{
	my ($self, $item) = @_;

	return { sql => $item } unless ref $item;
	return $self->stream($item->{st}) && $self->exists_in('admin', $item->{st}) ? { sql => Oracle::Runner::refresh_sql($item->{st}), st => $item->{st} } : ()
	  if defined $item->{st};
	my $sql = $item->{k} eq 'insert' ? insert_step_sql($self->{case}, $item) : $item->{sql};
	return defined $sql ? { sql => $sql } : ();
}

sub storm_result
{
	my ($self, $s, $sent) = @_;

	if ($self->receive($s))
	{
		$self->count('statements in storms', $sent->{st} ? 'refresh' : 'write');
		return;
	}
	if (!$sent->{st})
	{
		$self->count('statements in storms', "failed $self->{sqlstate}");
		return $self->abort($s);
	}
	$self->refresh_failed($s, $sent->{st});
}

# --- crashes -----------------------------------------------------------------------------

sub crash_step
{
	my ($self, $step) = @_;
	my ($s, $name, $how) = @$step{qw(s st how)};
	return unless $self->{server};
	my $point = $how eq 'point';
	my $live = $self->stream($name) && $self->exists_in($s, $name);

	$self->run_sql($s, "SET pg_trickle.test_points = '$step->{point}=kill'") if $point && $live;
	$self->send($s, Oracle::Runner::refresh_sql($name)) if $live;
	if ($point && $live)
	{
		# The point may not be on the way; then it dies afterwards.
		my $dbh = $self->session($s);
		$self->wait_for(sub { $dbh->pg_ready || !defined $dbh->pg_ready || !kill(0, $dbh->{pg_pid}) });
	}
	else
	{
		sleep($step->{after});
	}
	$self->crash_now($how eq 'server' ? 'server' : 'backend', $s);
	$self->count('crashes', $point && $live ? "at $step->{point}" : $how);
	return unless $step->{check};
	$self->end_transactions;
	$self->check_all('crash');
}

# All sessions are new ones afterwards.
sub crash_now
{
	my ($self, $how, $s) = @_;
	my $number = $self->{step};
	my $pid = $self->session($s)->{pg_pid};
	my $admin = $self->session('admin');
	local $SIG{__WARN__} = sub { };

	$self->trace("-- crash ($how)") if $self->{verbose};
	if ($how eq 'server')
	{
		$self->{server}->restart_immediately;
	}
	else
	{
		kill 'KILL', $pid if $pid;		# it may have died at a test point already
		$self->wait_for(sub { !$admin->ping });
	}
	eval { $_->disconnect } for values %{ $self->{session} };
	$self->{session} = {};
	$self->{iso} = {};
	$self->prepare_sessions;
	$self->{step} = $number;
}

1;
