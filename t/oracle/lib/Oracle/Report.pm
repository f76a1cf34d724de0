# Oracle::Report: what a run counted, printed so that it can be read again and added to that
# of other runs. Counts are { section => { name => [numbers] } }; everything adds up.
package Oracle::Report;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(add_stats print_report read_report);

my $CONSTRUCTS = 'by construct: seeds; stream tables, of them incremental; refreshes with changes, of them by a delta';
my $RUNS = 'runs, seconds, seeds, failures';

# The runner's counts ({ what => { name => n } }), those of constructs side by side.
sub add_stats
{
	my ($total, $stats) = @_;
	my @columns = ('construct seeds', 'constructs', 'constructs incremental', 'construct refreshes',
		'construct refreshes incremental');
	my %apart = map { $_ => 1 } @columns;

	for my $tag (keys %{ $stats->{constructs} || {} })
	{
		add($total, $CONSTRUCTS, $tag, map { $stats->{$_}{$tag} || 0 } @columns);
	}
	for my $what (grep { !$apart{$_} } keys %$stats)
	{
		add($total, $what, $_, $stats->{$what}{$_}) for keys %{ $stats->{$what} };
	}
	$total->{$RUNS}{'all'} = [ map { int($_ + 0.5) } @{ delete($total->{runs})->{''} } ];
	return $total;
}

sub add
{
	my ($total, $section, $name, @numbers) = @_;
	my $sum = $total->{$section}{$name} ||= [ (0) x @numbers ];

	$sum->[$_] += $numbers[$_] for 0 .. $#numbers;
}

sub print_report
{
	my ($total) = @_;
	my ($all, $incremental) = (0, 0);

	for my $section (sort { order($a) cmp order($b) } keys %$total)
	{
		print "\n= $section\n";
		for my $name (sort keys %{ $total->{$section} })
		{
			printf "  %-60s %s\n", $name =~ s/\s+/ /gr, join('', map { sprintf(' %9d', $_) } @{ $total->{$section}{$name} });
		}
	}
	for my $mode (keys %{ $total->{'stream tables'} || {} })
	{
		my $n = $total->{'stream tables'}{$mode}[0];
		$all += $n;
		$incremental += $n if $mode =~ /DIFF/;
	}
	my (undef, $seconds, $seeds, $failures) = @{ $total->{$RUNS}{all} || [ (0) x 4 ] };
	printf "\noracle: %d seeds in %d s, %d stream tables, %.0f %% of them incremental; %d failures\n", $seeds,
	  $seconds, $all, $all ? 100 * $incremental / $all : 0, $failures;
}

sub order
{
	my ($section) = @_;
	return ($section eq $RUNS ? 0 : $section eq $CONSTRUCTS ? 1 : 2) . $section;
}

# The sections at the end of a run's output.
sub read_report
{
	my ($total, $file) = @_;
	my $section;

	open my $in, '<', $file or die "$file: $!\n";
	while (my $line = <$in>)
	{
		chomp $line;
		$section = $1, next if $line =~ /^= (.+)/;
		$section = undef, next if $line !~ /^  /;
		add($total, $section, $1, split(' ', $2)) if defined $section && $line =~ /^  (.+?)  +([\d ]+)$/;
	}
	close $in;
}

1;
