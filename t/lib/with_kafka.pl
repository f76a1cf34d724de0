# with_kafka.pl COMMAND [ARGUMENT...]: runs it with an Apache Kafka of its own, whose address is in
# PGT_DEMO_BROKERS. Ends with its status.
use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;

use lib $FindBin::Bin;
use PgtKafka;

my $folder = tempdir('pgt-kafka-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $kafka = PgtKafka->new("$folder/kafka");
die "no Kafka: $kafka->{missing}\n" if $kafka->{missing};
$ENV{PGT_DEMO_BROKERS} = $kafka->{servers};
my $status = system @ARGV;
$kafka->kill;
exit($status == -1 ? 127 : $status >> 8 || $status & 127);
