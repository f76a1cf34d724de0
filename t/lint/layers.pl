#!/usr/bin/perl
# layers.pl: does data flow one way? Checks the includes of every C file against the
# ranks of the modules, and that a few kinds of line stand only where they belong.
# Prints FILE:LINE: message, exits with 1 if there was any.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Find qw(find);

# Includes point down only; the same rank is forbidden, except within one module.
my %rank = (
	base => 0,
	catalog => 1,
	dag => 2,
	policy => 2,
	capture => 3,
	delta => 3,
	refresh => 4,
	sched => 5,
	api => 6);

# Which module a public header of include/ belongs to. A header that is a contract
# between modules of one rank belongs to the rank below them.
my %owner = read_owners('include');

# What may stand only in certain files: pattern, files it may stand in, the reason.
my @places = (
	[ qr/\bPG_VERSION_NUM\b/, qr{^include/pgt_compat\.h$}, 'versions of PostgreSQL are told apart in include/pgt_compat.h only' ],
	[ qr/\bSPI_[a-z]\w*\s*\(/, qr{^worker/base/spi\.c$}, 'SPI is called in worker/base/spi.c only' ],
	[ qr/\bPG_FUNCTION_INFO_V1\s*\(/, qr{^(?:worker/(?:api|capture)|decoder)/}, 'SQL functions are declared in worker/api, trigger functions in worker/capture' ],
	[ qr/\bPG_MODULE_MAGIC\b/, qr{^(?:worker/api|decoder)/}, 'one per library' ],
	[ qr/\bWaitLatch\s*\(/, qr{^worker/base/clock\.c$}, 'waiting is done by pgt_clock, so that tests can move time' ],
	[ qr/\b(?:pg_usleep|sleep|usleep)\s*\(/, qr{^(?:worker/base/(?:clock|point)\.c|examples/|t/)}, 'nothing sleeps for a guess' ],
	[ qr/\bDefineCustom\w+Variable\s*\(/, qr{^worker/base/guc\.c$}, 'a setting is one row of the table in worker/base/guc.c' ],
	[ qr/#\s*include\s+"\.\.|#\s*include\s+".*\.\.\//, qr{^$}, 'no ".." in an include' ],
);

my @complaints;
my @files;

find({ no_chdir => 1, wanted => sub { push @files, $_ if /\.[ch]\z/ } },
	grep { -d } qw(include worker decoder));

for my $path (sort @files)
{
	check_file($path);
}
print "$_\n" for @complaints;
exit(@complaints ? 1 : 0);

# The opening comment of a header says "module: NAME"; otherwise its name does:
# pgt_capture.h belongs to capture, pgt_stream_table.h to the folder with stream_table.c.
sub read_owners
{
	my ($dir) = @_;
	my %found;
	my %file_module = map { m{^worker/(\w+)/(?:.*/)?(\w+)\.c\z} ? ($2 => $1) : () }
	  (glob('worker/*/*.c'), glob('worker/*/*/*.c'));

	for my $path (glob("$dir/*.h"))
	{
		my ($header) = $path =~ m{([^/]+)\z};
		my ($noun) = $header =~ /^pgt_(\w+)\.h$/;
		my $text = slurp($path);

		if ($text =~ /\A\s*\/\*.*?\bmodule:\s*(?:worker\/)?(\w+).*?\*\//s)
		{
			$found{$header} = $1;
		}
		elsif (defined $noun && exists $rank{$noun})
		{
			$found{$header} = $noun;
		}
		elsif (defined $noun && $file_module{$noun})
		{
			$found{$header} = $file_module{$noun};
		}
		else
		{
			$found{$header} = 'base';
		}
	}
	$found{'pgt_compat.h'} = 'base';
	$found{'pgt_wire.h'} = 'base';
	return %found;
}

sub check_file
{
	my ($path) = @_;
	my ($module) = $path =~ m{^worker/(\w+)/};
	my ($header) = $path =~ m{^include/(.*)};
	my $is_decoder = $path =~ m{^decoder/};

	$module = $owner{$header} if defined $header;

	my $in_comment = 0;
	my $number = 0;
	open my $file, '<', $path or die "could not open $path: $!";
	while (my $line = <$file>)
	{
		$number++;
		my $code = strip_comments($line, \$in_comment);

		for my $place (@places)
		{
			my ($pattern, $where, $reason) = @$place;

			push @complaints, "$path:$number: $reason"
			  if $code =~ $pattern && $path !~ $where;
		}
		next unless $code =~ /^\s*#\s*include\s+"([^"]+)"/;
		check_include($path, $number, $module, $is_decoder, $1);
	}
	close $file;
}

sub check_include
{
	my ($path, $number, $module, $is_decoder, $target) = @_;

	if ($is_decoder)
	{
		push @complaints, "$path:$number: the decoder knows only pgt_compat.h, pgt_wire.h and its own files, not $target"
		  if $target =~ /^pgt_/ && $target !~ /^pgt_(?:compat|wire)\.h$/ && !-e "decoder/$target";
		return;
	}
	if ($target =~ m{(?:^|/)(\w+)_internal\.h$})
	{
		push @complaints, "$path:$number: $target belongs to another folder"
		  unless -e dirname($path) . "/$target" || in_own_module($path, $target);
		return;
	}
	return unless exists $owner{$target} && defined $module;
	my $target_module = $owner{$target};

	return if $target_module eq $module;
	if (!exists $rank{$module} || !exists $rank{$target_module})
	{
		push @complaints, "$path:$number: no rank is known for $module or $target_module";
		return;
	}
	push @complaints,
	  "$path:$number: $module (rank $rank{$module}) includes $target of $target_module (rank $rank{$target_module}): includes point down only"
	  if $rank{$target_module} >= $rank{$module};

	# dag and policy are pure: a plain C test links them.
	push @complaints, "$path:$number: $module is pure and may not include $target"
	  if $module =~ /^(?:dag|policy)$/ && $target =~ /^pgt_(?:spi|guc|clock|shmem|point|catalog)\.h$/;
}

# Sub-folders of a module (delta/ops) share its internal header.
sub in_own_module
{
	my ($path, $target) = @_;
	my ($module_dir) = $path =~ m{^(worker/\w+|decoder)/};

	return defined $module_dir && ($target =~ m{/} ? 0 : -e "$module_dir/$target");
}

sub strip_comments
{
	my ($line, $in_comment) = @_;

	if ($$in_comment)
	{
		return '' unless $line =~ s{^.*?\*/}{};
		$$in_comment = 0;
	}
	$line =~ s{/\*.*?\*/}{}g;
	if ($line =~ s{/\*.*}{}s)
	{
		$$in_comment = 1;
	}
	$line =~ s{"(?:\\.|[^"\\])*"}{""}g unless $line =~ /^\s*#\s*include/;
	return $line;
}

sub slurp
{
	my ($path) = @_;
	local $/;
	open my $file, '<', $path or die "could not open $path: $!";
	return scalar <$file>;
}
