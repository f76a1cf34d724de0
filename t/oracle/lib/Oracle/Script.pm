# Oracle::Script: a failing case as text: plain SQL when one session is enough, else a spec
# for the isolation tester. Either can become a test.
package Oracle::Script;

use strict;
use warnings;

use Exporter 'import';

use Oracle::Types;
use Oracle::Schema;
use Oracle::Tree;
use Oracle::Case;
use Oracle::Compare;

our @EXPORT = qw(script_of);

# (text, suffix of a file name)
sub script_of
{
	my ($case, $failure) = @_;
	my %sessions = map { $_->{s} => 1 } @{ $case->{steps} };
	my $head = head($case, $failure);
	my $several = keys %sessions > 1 || grep { $_->{k} =~ /^(?:wait|storm)$/ } @{ $case->{steps} };

	return (join('', map { "-- $_\n" } @$head) . plain($case), 'sql') unless $several;
	return (join('', map { "# $_\n" } @$head) . spec($case), 'spec');
}

sub head
{
	my ($case, $failure) = @_;
	my @head = (
		"seed $case->{seed}, technique " . ($failure->{technique} ? "'$failure->{technique}'" : 'as chosen')
		  . ": $failure->{kind}",
		split(/\n/, $failure->{detail}));

	push @head, 'not run by a superuser' if $case->{role};
	push @head, "SET pg_trickle.differential_max_change_ratio = $case->{ratio};" if $case->{ratio} && $case->{ratio} ne 1;
	push @head, "(setting of session 1: $_)" for @{ $case->{settings}{1} || [] };
	push @head, "SET pg_trickle.force_technique = '$failure->{technique}';" if $failure->{technique};
	push @head, 'SET pg_trickle.max_stage_rows = 0;' if ($failure->{technique} // '') eq '2kr';
	return \@head;
}

# What the case uses of the preamble.
sub needed_setup
{
	my ($case) = @_;
	my @all = setup_sql($case);
	my $count = @Oracle::Schema::PREAMBLE;
	my @rest = @all[ $count .. $#all ];
	my $text = join("\n", @rest, map({ query_sql($_->{q}) } @{ $case->{streams} }, grep { $_->{q} } @{ $case->{steps} }),
		map { defined $_->{sql} ? $_->{sql} : defined $_->{rows} ? insert_step_sql($case, $_) || '' : '' } @{ $case->{steps} });
	my @kept;

	for my $sql (reverse @all[ 0 .. $count - 1 ])
	{
		my ($name) = $sql =~ /^CREATE \w+ (?:(o\.\w+))/;
		next if defined $name && $text !~ /\Q$name\E\b/;
		unshift @kept, $sql;
		$text .= "\n$sql";
	}
	return (@kept, @rest);
}

sub stream_statements
{
	my ($case) = @_;
	return map { stream_sql({ %$_, current => undef }) } grep { !$_->{late} } @{ $case->{streams} };
}

sub step_sql
{
	my ($case, $step) = @_;
	my $k = $step->{k};

	return refresh_sql($step->{st}) if $k eq 'refresh' || $k eq 'wait';
	if ($k eq 'create' || $k eq 'drop' || $k eq 'alter')
	{
		my ($stream) = grep { $_->{name} eq $step->{st} } @{ $case->{streams} };
		my $name = table_name($step->{st}) =~ s/'/''/gr;
		return undef unless $stream;
		return stream_sql({ %$stream, current => undef }) if $k eq 'create';
		my $cascade = $step->{cascade} ? ', cascade => true' : '';
		return "SELECT pgtrickle.drop_stream_table('$name'$cascade)" if $k eq 'drop';
		return "SELECT pgtrickle.alter_stream_table('$name', query => '" . (query_sql($step->{q}) =~ s/'/''/gr) . "', refresh_mode => 'AUTO'$cascade)";
	}
	return "-- the server crashes while this runs ($step->{how}, $step->{point}): " . refresh_sql($step->{st}) . "\nSELECT 1" if $k eq 'crash';
	return insert_step_sql($case, $step) if $k eq 'insert' || $k eq 'copy';
	return $step->{sql};
}

sub refresh_sql
{
	my ($name) = @_;
	return "SELECT pgtrickle.refresh_stream_table('" . (table_name($name) =~ s/'/''/gr) . "')";
}

sub plain
{
	my ($case) = @_;
	my @sql = (needed_setup($case), stream_statements($case));

	for my $step (@{ $case->{steps} })
	{
		my $sql = step_sql($case, $step);
		push @sql, $sql if defined $sql;
		my ($stream) = grep { $step->{k} =~ /^(?:refresh|wait)$/ && $_->{name} eq $step->{st} } @{ $case->{streams} };
		push @sql, "-- expected: one row, with the number of rows\n" . compare_sql($stream) if $stream;
	}
	push @sql, map({ (refresh_sql($_->{name}), "-- expected: one row, with the number of rows\n" . compare_sql($_)) } @{ $case->{streams} });
	push @sql, 'DROP SCHEMA o CASCADE';
	return join(";\n", @sql) . ";\n";
}

sub spec
{
	my ($case) = @_;
	my $text = "setup\n{\n" . join(";\n", needed_setup($case)) . ";\n}\n";
	my (%steps, @order);
	my $n = 0;

	$text .= "setup { $_; }\n" for stream_statements($case);
	$text .= "teardown { DROP SCHEMA o CASCADE; }\n";
	for my $step (@{ $case->{steps} })
	{
		if ($step->{k} eq 'storm')
		{
			$text .= "# then, side by side:\n";
			my $s = 0;
			for my $script (@{ $step->{scripts} })
			{
				$s++;
				$text .= "#   session $s: "
				  . (ref $_ ? defined $_->{st} ? refresh_sql($_->{st}) : step_sql($case, $_) || '' : $_) . "\n"
				  for @$script;
			}
			next;
		}
		my $sql = step_sql($case, $step);
		next unless defined $sql;
		my $name = "s$step->{s}_" . ++$n;
		push @{ $steps{ $step->{s} } }, "step $name { $sql; }";
		push @order, $name;
		my ($stream) = grep { $step->{k} =~ /^(?:refresh|wait)$/ && $_->{name} eq $step->{st} } @{ $case->{streams} };
		next unless $stream;
		$name = "s$step->{s}_" . ++$n;
		push @{ $steps{ $step->{s} } }, "step $name { " . compare_sql($stream) . '; }';
		push @order, $name;
	}
	for my $s (sort keys %steps)
	{
		$text .= "\nsession s$s\n" . join("\n", @{ $steps{$s} }) . "\n";
	}
	my @end;
	for my $stream (@{ $case->{streams} })
	{
		my $name = 'end_' . ++$n;
		push @end, "step $name { " . refresh_sql($stream->{name}) . '; ' . compare_sql($stream) . '; }';
		push @order, $name;
	}
	$text .= "\nsession end\n" . join("\n", @end) . "\n" if @end;
	return $text . "\npermutation " . join(' ', @order) . "\n";
}

1;
