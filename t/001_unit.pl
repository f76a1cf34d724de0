# The plain C tests of t/unit: no server, only the pure code they name.
#
# Each t/unit/NAME.c has a main() that prints TAP (see pgt_test.h) and a comment line
#     link: worker/policy/cron.c ...
# with the files to compile it with. t/unit/stub_*.c, if named there, too.
use strict;
use warnings;

use Test::More;

my @tests = grep { !m{/stub_} } sort glob('t/unit/*.c');

plan skip_all => 'no tests in t/unit' unless @tests;

my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $server_include = `$pg_config --includedir-server`);
chomp(my $pkglibdir = `$pg_config --pkglibdir`);
chomp(my $libdir = `$pg_config --libdir`);
my $bin = 't/unit/bin';
my @libraries = grep { -e $_ }
  map { ("$pkglibdir/$_", "$libdir/$_") } qw(libpgcommon.a libpgport.a);
my @flags = (
	qw(-std=gnu99 -g -O1 -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare),
	qw(-Wno-missing-field-initializers -Wno-unused-function),
	'-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-ffunction-sections',
	qw(-DPGT_UNIT_TEST -Iinclude -It/unit -D_GNU_SOURCE),
	"-I$server_include");

$ENV{ASAN_OPTIONS} = 'detect_leaks=0';
mkdir $bin;

for my $test (@tests)
{
	my ($name) = $test =~ m{([^/]+)\.c\z};
	my @link = linked_files($test);

	subtest $name => sub {
		my $compile = join(' ',
			'gcc', @flags, $test, @link, "-o $bin/$name", '-Wl,--gc-sections', @libraries, '-lm');
		my $messages = `$compile 2>&1`;

		if (!is($?, 0, "$name compiles"))
		{
			diag("$compile\n$messages");
			return;
		}
		is($messages, '', "$name compiles without warnings");

		my @output = `$bin/$name 2>&1`;
		my $status = $?;
		my $planned;

		for my $line (@output)
		{
			if ($line =~ /^(not )?ok \d+(?: - (.*))?$/)
			{
				ok(!$1, $2);
			}
			elsif ($line =~ /^1\.\.(\d+)/)
			{
				$planned = $1;
			}
			else
			{
				diag($line);
			}
		}
		my $ran = grep { /^(not )?ok \d+/ } @output;
		is($planned, $ran, "$name ran to its end");
		is($status, 0, "$name exits with 0");
	};
}
done_testing();

sub linked_files
{
	my ($test) = @_;
	my @files;

	open my $file, '<', $test or die "could not open $test: $!";
	while (my $line = <$file>)
	{
		push @files, split ' ', ($1 =~ s{\*/}{}r) if $line =~ /\blink:\s*(.*)/;
	}
	close $file;
	return map { my @found = glob; @found ? @found : $_ } @files;
}
