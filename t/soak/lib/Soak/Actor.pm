# Soak::Actor: processes that do things to a server at random until a time comes. Each connects by
# itself, and again when it is thrown out. An error that no user would expect is a finding: it goes
# into a file, and the process ends with status 1.
package Soak::Actor;

use strict;
use warnings;

use DBI;
use Time::HiRes qw(sleep time);

# Errors that come with crashes, terminate and cancel storms, and conflicts between users.
my $expected = qr/^(?:08|40|57P0[1-5]|57014|55P03|55006|23505|53300|S8006)/;

sub start
{
	my ($class, %self) = @_;
	my $pid = fork();

	die "fork: $!" unless defined $pid;
	return $pid if $pid;
	my $self = bless {%self}, $class;
	# The parent's connection and server are not ours to end.
	$SIG{$_} = 'DEFAULT' for qw(INT TERM);
	srand($self->{seed});
	my $ok = eval { $self->run; 1 };
	$self->find("the actor itself: $@") unless $ok;
	require POSIX;
	POSIX::_exit($self->{found} ? 1 : 0);
}

sub run
{
	my ($self) = @_;

	$self->rest(rand(2));
	while (time() < $self->{until} && !$self->{found})
	{
		my $dbh = $self->connection or next;
		my $action = $self->{actions}[ rand @{ $self->{actions} } ];
		$self->{last} = $action->[0];
		eval { $action->[1]->($self, $dbh); 1 } or $self->failed($dbh, $@);
		eval { $dbh->rollback unless $dbh->{AutoCommit} };
		$self->note($action->[0]);
		$self->rest(0.5 + rand(1));
	}
	eval { $self->{dbh}->disconnect } if $self->{dbh};
	$self->write_notes;
	return;
}

# Pauses, but not beyond the end.
sub rest
{
	my ($self, $times) = @_;
	my $left = $self->{until} - time();
	my $pause = $self->{pause} * $times;

	sleep($pause < $left ? $pause : $left) if $left > 0;
	return;
}

sub connection
{
	my ($self) = @_;

	return $self->{dbh} if $self->{dbh} && $self->{dbh}->ping;
	$self->{dbh} = connect_to($self->{server});
	sleep(0.1) unless $self->{dbh};
	return $self->{dbh};
}

sub connect_to
{
	my ($server) = @_;
	my $dbh = DBI->connect("dbi:Pg:dbname=postgres;host=$server->{host};port=$server->{port}", 'postgres', '',
		{ RaiseError => 0, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_server_prepare => 0, AutoInactiveDestroy => 1 }) or return;

	$dbh->{RaiseError} = 1;
	local $SIG{__WARN__} = sub { };
	return eval { $dbh->do("SET lock_timeout = '5s'; SET client_min_messages = 'error'"); 1 } ? $dbh : undef;
}

# Is this error one that a user may get?
sub failed
{
	my ($self, $dbh, $error) = @_;
	my $state = $dbh->state || '';

	# One that began with BEGIN; the others end with rollback().
	eval { $dbh->do('ROLLBACK') } if $dbh->{AutoCommit} && $dbh->ping > 1;
	$self->note("error $state in: $self->{last}");
	return if $state =~ $expected || !$dbh->ping;
	return if $state eq 'XX000' && $error =~ /tuple concurrently (?:updated|deleted)/;
	return $self->find("$self->{last}: $state $error");
}

sub find
{
	my ($self, $what) = @_;

	$self->{found} = 1;
	open my $file, '>>', "$self->{folder}/findings" or die "findings: $!";
	print $file "$self->{name}: $what\n";
	close $file;
	return;
}

sub note
{
	my ($self, $what, $value) = @_;

	$self->{notes}{$what}{count}++;
	$self->{notes}{$what}{most} = $value
	  if defined $value && (!defined $self->{notes}{$what}{most} || $value > $self->{notes}{$what}{most});
	return;
}

sub write_notes
{
	my ($self) = @_;

	open my $file, '>>', "$self->{folder}/notes" or die "notes: $!";
	for my $what (sort keys %{ $self->{notes} })
	{
		my $note = $self->{notes}{$what};
		print $file join("\t", $what, $note->{count}, $note->{most} // ''), "\n";
	}
	close $file;
	return;
}

1;
