# Oracle::Shrink: the smallest case that still fails in the same way, found by trying.
package Oracle::Shrink;

use strict;
use warnings;

use Exporter 'import';
use Storable qw(dclone);
use Time::HiRes qw(time);

use Oracle::Tree;

our @EXPORT = qw(shrink);

my ($runner, $key, $technique, $deadline, $tries, $repeat);

sub shrink
{
	my ($with, $case, $failure, %opt) = @_;
	my $before;

	$runner = $with;
	$key = $failure->{key};
	$technique = $failure->{technique};
	$deadline = time() + ($opt{seconds} || 60);
	$tries = 0;
	# What happens in a storm or a crash does not happen every time.
	$repeat = (grep { $_->{k} =~ /^(?:storm|crash)\z/ } @{ $case->{steps} }) ? 4 : 1;
	$case = dclone($case);
	delete $_->{rejected} for @{ $case->{streams} };

	cut_after($case, $failure);
	do
	{
		$before = weight($case);
		drop_from($case, sub { $_[0]{steps} });
		drop_from($case, sub { $_[0]{streams} });
		shrink_storms($case);
		drop_from($case, sub { $_[0]{views} });
		drop_from($case, sub { $_[0]{tables} });
		for my $t (0 .. $#{ $case->{tables} })
		{
			drop_from($case, sub { $_[0]{tables}[$t]{rows} });
		}
		for my $n (grep { $case->{steps}[$_]{rows} } 0 .. $#{ $case->{steps} })
		{
			drop_from($case, sub { $_[0]{steps}[$n]{rows} });
		}
		shrink_queries($case);
		plain_tables($case);
		drop_columns($case);
		one_session($case);
		drop_settings($case);
	} while (weight($case) < $before && time() < $deadline);
	return ($case, $runner->run_case($case, technique => $technique, quiet => 1) || $failure, $tries);
}

sub weight
{
	my ($case) = @_;
	local $Storable::canonical = 1;
	return length(Storable::freeze($case));
}

sub fails
{
	my ($candidate) = @_;

	return 0 if time() > $deadline;
	for (1 .. $repeat)
	{
		$tries++;
		my $failure = $runner->run_case($candidate, technique => $technique, quiet => 1);
		return 1 if $failure && $failure->{key} eq $key;
	}
	return 0;
}

# Takes the change over if the case still fails.
sub try_change
{
	my ($case, $change) = @_;
	my $candidate = dclone($case);

	return 0 unless $change->($candidate);
	return 0 unless fails($candidate);
	%$case = %$candidate;
	return 1;
}

sub cut_after
{
	my ($case, $failure) = @_;
	my $step = $failure->{step};

	return unless defined $step && $step =~ /^\d+$/;
	try_change($case, sub { $#{ $_[0]{steps} } = $step; 1 });
}

# Delta debugging over a list: halves, quarters, ... single members.
sub drop_from
{
	my ($case, $list_of) = @_;
	my $size = int(@{ $list_of->($case) || [] } / 2) || 1;

	while ($size >= 1)
	{
		my $at = 0;
		while ($at < @{ $list_of->($case) || [] } && time() < $deadline)
		{
			my $done = try_change(
				$case,
				sub {
					my $list = $list_of->($_[0]);
					my $n = $size < @$list - $at ? $size : @$list - $at;
					splice(@$list, $at, $n);
					return 1;
				});
			$at += $size unless $done;
		}
		last if $size == 1;
		$size = int($size / 2);
	}
}

sub shrink_storms
{
	my ($case) = @_;

	for my $n (grep { $case->{steps}[$_]{k} eq 'storm' } 0 .. $#{ $case->{steps} })
	{
		for my $s (0 .. $#{ $case->{steps}[$n]{scripts} })
		{
			drop_from($case, sub { $_[0]{steps}[$n]{scripts}[$s] });
		}
	}
}

# The first smaller tree that fails is taken, until none does.
sub shrink_queries
{
	my ($case) = @_;

	for my $list (qw(streams views))
	{
		for my $n (0 .. $#{ $case->{$list} })
		{
			my $again = 1;
			while ($again && time() < $deadline)
			{
				$again = 0;
				for my $query (smaller_queries($case->{$list}[$n]{q}))
				{
					last if time() > $deadline;
					next unless try_change($case, sub { $_[0]{$list}[$n]{q} = $query; 1 });
					$again = 1;
					last;
				}
			}
		}
	}
}

sub drop_columns
{
	my ($case) = @_;

	for my $t (0 .. $#{ $case->{tables} })
	{
		for (my $c = $#{ $case->{tables}[$t]{cols} }; $c >= 0; $c--)
		{
			try_change(
				$case,
				sub {
					my $table = $_[0]{tables}[$t];
					my $name = $table->{cols}[$c]{name};
					return 0 if @{ $table->{cols} } < 2 || grep { $_ eq $name } @{ $table->{key} || [] };
					splice(@{ $table->{cols} }, $c, 1);
					splice(@$_, $c, 1) for @{ $table->{rows} };
					return 1;
				});
		}
	}
}

sub plain_tables
{
	my ($case) = @_;

	for my $t (0 .. $#{ $case->{tables} })
	{
		for my $feature (qw(dropped references side_writes key))
		{
			next unless $case->{tables}[$t]{$feature};
			try_change(
				$case,
				sub {
					my $table = $_[0]{tables}[$t];
					delete $table->{$feature};
					$table->{key_kind} = 'none' if $feature eq 'key';
					return 1;
				});
		}
		next if $case->{tables}[$t]{kind} eq 'plain';
		try_change(
			$case,
			sub {
				my $table = $_[0]{tables}[$t];
				$table->{kind} = 'plain';
				delete $table->{parts};
				for my $step (@{ $_[0]{steps} })
				{
					$step->{target} = $step->{t} if defined $step->{t} && $step->{t} eq $table->{name};
				}
				return 1;
			});
	}
}

sub one_session
{
	my ($case) = @_;
	try_change($case, sub { $_->{s} = 1 for @{ $_[0]{steps} }; 1 })
	  if grep { $_->{s} != 1 } @{ $case->{steps} };
}

sub drop_settings
{
	my ($case) = @_;
	try_change($case, sub { $_[0]{settings} = {}; 1 }) if %{ $case->{settings} };
	try_change($case, sub { $_[0]{role} = 0; 1 }) if $case->{role};
	try_change($case, sub { $_[0]{ratio} = 1; 1 }) if $case->{ratio} ne 1;
	for my $n (grep { $case->{streams}[$_]{late} } 0 .. $#{ $case->{streams} })
	{
		try_change($case, sub { $_[0]{streams}[$n]{late} = 0; 1 });
	}
}

1;
