# From a source to the consumer: what the decoder sends of real refreshes, applied to an
# empty copy, is the stream table; at every refresh, with and without a key.
use strict;
use warnings;

use Test::More;

use PgTrickle;
use PgtDecoder;

my $node = PgTrickle->new_node('end_to_end', scheduler => 0);
my $db = 'postgres';

$node->safe_psql($db, q{
	CREATE TABLE item (id int PRIMARY KEY, kind text, n int);
	CREATE TABLE kind (kind text PRIMARY KEY, label text);
	INSERT INTO kind VALUES ('a', 'Apples'), ('b', 'Bänanas "x"'), ('c', NULL);
	INSERT INTO item SELECT g, substr('abc', 1 + g % 3, 1), g % 10 FROM generate_series(1, 60) g;
});
create_slot($node, 's');
$node->safe_psql($db, q{
	SELECT pgtrickle.create_stream_table('by_kind', 'SELECT kind, count(*) AS c, min(n) AS lo FROM item GROUP BY kind', '1h');
	SELECT pgtrickle.create_stream_table('bag', 'SELECT label, n FROM item JOIN kind USING (kind) WHERE n < 8', '1h');
});

# One transaction of the source per step, then a refresh of both.
my @steps = (
	q{INSERT INTO item VALUES (100, 'a', 0), (101, 'd', 5), (102, NULL, 1)},
	q{DELETE FROM item WHERE kind = 'b' AND id < 30},
	q{UPDATE item SET kind = 'c' WHERE kind = 'a' AND n > 4; UPDATE kind SET label = 'Äpfel' WHERE kind = 'a'},
	q{UPDATE item SET id = id + 1000; DELETE FROM kind WHERE kind = 'c'},
	q{INSERT INTO item SELECT g, 'a', 3 FROM generate_series(5000, 5020) g; DELETE FROM item WHERE id = 5000},
	q{TRUNCATE item},
	q{INSERT INTO item VALUES (1, 'a', 1), (2, 'a', 1), (3, 'a', 1)});

my $canonical = JSON::PP->new->canonical->utf8;

sub canon
{
	my ($image) = @_;
	# Numbers and strings of Perl must not differ.
	return $canonical->encode({ map { $_ => defined $image->{$_} ? "$image->{$_}" : undef } keys %$image });
}

sub table_rows
{
	my ($table) = @_;
	return sort map { canon($canonical->decode($_)) }
	  split /\n/, $node->safe_psql($db, "SELECT row_to_json(t) FROM $table t");
}

# Table => canonical image => number of copies, and table => key => image.
my (%bag, %keyed);
my $announced = 0;

for my $step (0 .. @steps)
{
	my $mode = $step % 3 == 2 ? ", 'FULL'" : '';

	$node->safe_psql($db, "$steps[$step - 1]; SELECT pgtrickle.refresh_stream_table(t$mode) FROM unnest(ARRAY['by_kind', 'bag']) t")
	  if $step > 0;
	for my $event (map { event($_) } take_slot($node, 's'))
	{
		$announced++ if $event->{op} eq 'refresh' && $event->{phase} eq 'end';
		next unless rows($event);
		my ($old, $new) = map { defined $event->{$_} ? canon($event->{$_}) : undef } qw(b a);
		my $table = $event->{t};

		$bag{$table}{$old}-- if defined $old;
		$bag{$table}{$new}++ if defined $new;
		if ($event->{k})
		{
			delete $keyed{$table}{ canon($event->{k}) };
			$keyed{$table}{ canon({ map { $_ => $event->{a}{$_} } keys %{ $event->{k} } }) } = $new
			  if defined $new;
		}
	}
	for my $table (qw(by_kind bag))
	{
		my $copy = $bag{"public.$table"} || {};
		my @copied = sort map { ($_) x $copy->{$_} } grep { $copy->{$_} > 0 } keys %$copy;

		is_deeply(\@copied, [ table_rows($table) ], "step $step: $table");
		is(scalar(grep { $_ < 0 } values %$copy), 0, "step $step: $table: nothing was removed that was not there");
	}
	is_deeply([ sort values %{ $keyed{'public.by_kind'} || {} } ], [ table_rows('by_kind') ],
		"step $step: by key");
}
cmp_ok($announced, '>=', 8, 'refreshes announce themselves');

$node->stop;
done_testing();
