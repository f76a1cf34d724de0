# The other versions of PostgreSQL: built without a warning, the SQL tests, and some programs of
# each kind, in the chroots that "make check" made (t/lib/chroot.sh). All programs on each
# version: make check-all.
use strict;
use warnings;

use Test::More;

my @versions = (17, 18);
my @programs = qw(t/010_regress.pl t/020_isolation.pl t/030_capture.pl
  t/101_decoder_values.pl t/102_decoder_transactions.pl t/103_decoder_schema.pl t/108_decoder_binary.pl t/109_decoder_snapshot.pl
  t/200_refresh_crash.pl t/202_scheduler_order.pl t/214_monitoring.pl t/216_faults.pl t/217_pg_upgrade.pl t/300_publications.pl);
my ($own) = `pg_config --version` =~ /^PostgreSQL (\d+)/;
my (%run, %why);

# All at once; what they print waits in their pipes.
for my $version (grep { $_ != $own } @versions)
{
	chomp($why{$version} = `t/lib/chroot.sh have $version 2>&1`);
	next if $? != 0;
	open $run{$version}, '-|',
	  "t/lib/chroot.sh run $version env PGT_CFLAGS=-Werror t/lib/sandbox.sh --test-points -- t/lib/prove.sh @programs 2>&1"
	  or die "could not start a shell: $!";
}

for my $version (grep { $_ != $own } @versions)
{
	subtest "PostgreSQL $version" => sub {
		if (!$run{$version})
		{
			diag("PostgreSQL $version is NOT tested: $why{$version}");
			plan skip_all => $why{$version};
		}
		my $output = do { local $/; readline $run{$version} };

		close $run{$version};
		is($?, 0, 'builds without warnings, and all programs end well') || diag($output);
		like($output, qr/^(?:\[[\d:]+\] )?\Q$_\E \.+ *ok\b/m, $_) for @programs;
		note($1) if $output =~ /^(Files=.*)/m;
	};
}

my $chroots = $ENV{PGT_CHROOTS} || '/var/tmp/pg_trickle-chroots';
open my $mounts, '<', '/proc/self/mounts' or die "could not read mounts: $!";
is(join('', grep { m{ \Q$chroots\E/} } <$mounts>), '', 'nothing stays mounted');
done_testing();
