# PgRegress.pm: run pg_regress or pg_isolation_regress under prove, one TAP line per test,
# the difference on failure. Used by t/010_regress.pl and t/020_isolation.pl.
package PgRegress;

use strict;
use warnings;

use Exporter 'import';
use Test::More;

our @EXPORT = qw(run_regress);

# run_regress($node, program => path, dir => 't/regress', sources => 'sql', suffix => 'sql')
#
# The tests are those of DIR/schedule when there is one, else all in the order of their
# names. A test file that the schedule forgets is a failure.
sub run_regress
{
	my ($node, %opt) = @_;
	my $dir = $opt{dir};
	my @names = map { m{([^/]+)\.$opt{suffix}\z} ? $1 : () }
	  sort glob("$dir/$opt{sources}/*.$opt{suffix}");
	my @which = @names;

	plan skip_all => "no tests in $dir" unless @names;

	if (-e "$dir/schedule")
	{
		my %scheduled = map { $_ => 1 } scheduled_tests("$dir/schedule");

		@which = ("--schedule=$dir/schedule");
		ok($scheduled{$_}, "$_ is in $dir/schedule") for grep { !$scheduled{$_} } @names;
	}

	my $outdir = "$ENV{TESTDATADIR}/" . ($dir =~ s{.*/}{}r);
	mkdir $outdir;

	my @command = (
		$opt{program},
		"--inputdir=$dir",
		"--outputdir=$outdir",
		"--bindir=" . bindir(),
		"--host=" . $node->host,
		"--port=" . $node->port,
		"--dbname=" . ($dir =~ s{.*/}{}r),
		"--load-extension=pg_trickle",
		"--max-connections=4",
		@which);
	my $output = run_quietly(@command);
	my $tests = report_lines($output->{text});

	is($output->{status}, 0, "$opt{program} ended well") || diag($output->{text});
	ok($tests > 0, "$tests tests ran") || diag($output->{text});
	show_diffs("$outdir/regression.diffs");
	done_testing();
}

# Each "test NAME ... ok" (15), "     NAME ... ok" (15, parallel) or "ok 1 - NAME" (16 on).
sub report_lines
{
	my ($text) = @_;
	my $tests = 0;

	for my $line (split /\n/, $text)
	{
		if ($line =~ /^(?:test|\s)\s+(\S+)\s+\.\.\. (ok|FAILED|failed)\b/)
		{
			ok($2 eq 'ok', $1);
			$tests++;
		}
		elsif ($line =~ /^(not )?ok \d+\s+[-+] (\S+)/)
		{
			ok(!$1, $2);
			$tests++;
		}
	}
	return $tests;
}

sub scheduled_tests
{
	my ($path) = @_;
	my @tests;

	open my $file, '<', $path or die "could not open $path: $!";
	while (my $line = <$file>)
	{
		push @tests, split ' ', $1 if $line =~ /^test:\s*(.*)/;
	}
	close $file;
	return @tests;
}

sub show_diffs
{
	my ($path) = @_;

	open my $file, '<', $path or return;
	my @lines = <$file>;
	close $file;
	my $more = @lines > 400 ? @lines - 400 : 0;
	diag(join '', @lines[ 0 .. ($more ? 399 : $#lines) ]);
	diag("... $more more lines in $path") if $more;
}

sub run_quietly
{
	my @command = @_;
	my $pid = open(my $pipe, '-|');

	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open STDERR, '>&', \*STDOUT;
		exec @command or die "could not run $command[0]: $!";
	}
	local $/;
	my $text = <$pipe>;
	close $pipe;
	return { text => defined $text ? $text : '', status => $? };
}

sub bindir
{
	chomp(my $bindir = `$ENV{PG_CONFIG} --bindir`);
	return $bindir;
}

1;
