# What "make install" of the forwarder installs: the program, a man page that man takes without a warning
# and that names all options, the sample with all settings, a unit that systemd takes.
use strict;
use warnings;

use Cwd qw(abs_path);
use Test::More;

use PgTrickle;
use PgtForwarder;
use PostgreSQL::Test::Utils;

build_forwarder();

my $root = abs_path(PostgreSQL::Test::Utils::tempdir());
my $folder = 'examples/kafka-forwarder';
is(system("make -s -C $folder install DESTDIR=$root PREFIX=/usr CFLAGS='-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined'"), 0, 'installs');

my $program = "$root/usr/bin/pg-trickle-forwarder";
my $help = `$program --help`;
my $man = slurp_file("$root/usr/share/man/man1/pg-trickle-forwarder.1") =~ s/\\-/-/gr;
my ($version) = `$program --version` =~ /(\S+)$/;
like($man, qr/^\.TH .*"pg_trickle \Q$version\E"/m, 'the man page has the version');
is_deeply([ grep { index($man, $_) < 0 } $help =~ /(--[a-z-]+)/g ], [], 'and all options');

my $sample = slurp_file("$root/usr/share/doc/pg-trickle-forwarder/forwarder.ini.sample");
my %settings = slurp_file("$folder/config.c") =~ /^\t\{"(\w+)", "(\w+)", /mg;
my @settings = slurp_file("$folder/config.c") =~ /^\t\{"\w+", "(\w+)", /mg;
cmp_ok(scalar @settings, '>', 20, 'settings');
is_deeply([ grep { $sample !~ /^;?$_ =/m } @settings ], [], 'the sample has all of them');
# What is commented out there is taken.
local $ENV{KAFKA_PASSWORD} = 'x';
my $all = "$root/all.ini";
open my $file, '>', $all or die "could not write: $!";
print $file $sample =~ s/^;(\w[\w.]* = \S)/$1/gmr;
close $file;
my $said = `$program --config $all --set source.conninfo=host=/nowhere --set kafka.bootstrap.servers=127.0.0.1:1 --check 2>&1`;
like($said, qr/^ok +settings$/m, 'as they stand there') or diag($said);

# Whatever stands in the file: it is taken, or refused with a message; never a crash, which the sanitizers
# of this build would make of any access that is wrong.
my $seed = $ENV{SEED} || time;
srand($seed);
my ($taken, $refused, @crashed) = (0, 0);
for my $round (1 .. 400)
{
	my $text = $sample;

	for (0 .. rand 4)
	{
		my $at = int rand length $text;
		my $kind = int rand 6;
		if ($kind == 0) { substr $text, $at, 1, chr rand 256 }
		elsif ($kind == 1) { substr $text, $at, int rand 40, '' }
		elsif ($kind == 2) { substr $text, $at, 0, (('[', ']', '=', ';', "\n", "\0", 'env:', '"', '-1', '99999999999999999999', '${', "\xff")[ rand 12 ]) x (1 + rand 3) }
		elsif ($kind == 3) { substr $text, $at, 0, 'x' x rand 9000 }
		elsif ($kind == 4) { $text =~ s/^;(\w+ = )/rand() < 0.3 ? $1 : ";$1"/gme }
		else { $text = substr($text, $at) . substr($text, 0, $at) }
	}
	open my $changed, '>:raw', $all or die "could not write: $!";
	print $changed $text;
	close $changed;
	my $said = `$program --config $all --version 2>&1`;
	if ($? == 0 && $said =~ /^pg-trickle-forwarder \S+$/) { $taken++ }
	elsif ($? >> 8 == 1 && $said =~ /\S/ && $said !~ /Sanitizer|runtime error/) { $refused++ }
	else { push @crashed, "$?: $said" }
}
is_deeply(\@crashed, [], 'no file makes it crash') or diag("SEED=$seed");
ok($taken > 20 && $refused > 20, "$taken were taken, $refused refused");

SKIP:
{
	skip 'no man', 1 if system('command -v man >/dev/null');
	is(`man --warnings -l $root/usr/share/man/man1/pg-trickle-forwarder.1 2>&1 >/dev/null`, '', 'man has nothing to say against it');
}
SKIP:
{
	skip 'no systemd-analyze', 1 if system('command -v systemd-analyze >/dev/null');
	my $unit = "$root/usr/lib/systemd/system/pg-trickle-forwarder\@.service";
	my $text = slurp_file($unit) =~ s{/usr/bin/pg-trickle}{$root/usr/bin/pg-trickle}gr;
	open my $changed, '>', $unit or die "could not write: $!";
	print $changed $text;
	close $changed;
	is(`systemd-analyze verify --man=no '$unit' 2>&1`, '', 'systemd takes the unit');
}

done_testing();
