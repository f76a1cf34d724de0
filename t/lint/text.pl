#!/usr/bin/perl
# text.pl: what every text file of the project keeps to. Complaints stop; warnings (long
# files) only speak.
use strict;
use warnings;

use File::Find qw(find);

my $too_long = 800;
my @complaints;
my @files;

find(
	{   no_chdir => 1,
		wanted => sub {
			$File::Find::prune = 1
			  if m{^\./(?:\.git|coverage|tmp_check|tmp_install|t/unit/bin)\z};
			push @files, s{^\./}{}r
			  if -f && /(?:\.(?:[chly]|sql|spec|pl|pm|sh|md|json|control|yml)|Makefile)\z/;
		}
	},
	'.');

for my $path (sort @files)
{
	next if $path =~ m{^sql/pg_trickle--|/expected/};
	check_file($path);
}
print "$_\n" for @complaints;
exit(@complaints ? 1 : 0);

sub check_file
{
	my ($path) = @_;
	my $lines = 0;
	my $last = "\n";
	my $is_code = $path =~ /\.[ch]\z/;

	open my $file, '<', $path or die "could not open $path: $!";
	while (my $line = <$file>)
	{
		$lines++;
		$last = $line;
		complain($path, $lines, 'space at the end of the line')
		  if $line =~ /[ \t]+$/ && $path !~ /\.md\z/;
		complain($path, $lines, 'carriage return') if $line =~ /\r/;
		complain($path, $lines, 'unfinished work is an issue, not a comment')
		  if $line =~ /\b(?:TODO|FIXME|XXX)\b/ && $path !~ m{^t/lint/text\.pl\z};
		complain($path, $lines, 'a C++ comment')
		  if $is_code && $line =~ m{^\s*//};
		complain($path, $lines, 'time and waiting are asked of pgt_clock.h')
		  if $path =~ m{^worker/.*\.[ch]\z} && $path ne 'worker/base/clock.c'
		  && $line =~ /\b(?:GetCurrentTimestamp|WaitLatch|pg_usleep)\s*\(/;
		complain($path, $lines, 'a conflict left by a merge')
		  if $line =~ /^(?:<<<<<<< |>>>>>>> )/;
	}
	close $file;
	complain($path, $lines, 'no newline at the end of the file') if $lines && $last !~ /\n\z/;
	complain($path, 1, 'a C file opens with a comment that says what it is')
	  if $is_code && $lines && !opens_with_comment($path);
	print "warning: $path: $lines lines, aim below $too_long\n"
	  if $is_code && $lines > $too_long;
}

sub opens_with_comment
{
	my ($path) = @_;

	open my $file, '<', $path or die "could not open $path: $!";
	my $first = <$file>;
	close $file;
	return $first =~ m{^/\*};
}

sub complain
{
	my ($path, $line, $message) = @_;
	push @complaints, "$path:$line: $message";
}
