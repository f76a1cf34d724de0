# From the decoder's output alone the tables are built again, exactly: in each format, from random
# concurrent transactions with subtransactions, aborted ones among them; twice the same bytes,
# whatever the settings and however much had to be spilled; cut anywhere and resumed by position.
use strict;
use warnings;

use IPC::Run;
use JSON::PP;
use Test::More;

use PgTrickle;
use PgtDecoder;
use PgtEvents;
use PgtTypes;

my $seed = $ENV{SEED} || time;
srand($seed);
note("SEED=$seed");
my $node = decoder_node('replay', init => [ extra => [ '--encoding=UTF8', '--no-locale' ] ], settings => "logical_decoding_work_mem = '64kB'\n");
my $canonical = JSON::PP->new->utf8->canonical;

sub sql { return $node->safe_psql('postgres', $_[0]) }

sql(q{
	CREATE TABLE "full" (id int PRIMARY KEY, v text, n int); ALTER TABLE "full" REPLICA IDENTITY FULL;
	CREATE TABLE keyed (id int PRIMARY KEY, v text, n int);
	CREATE TABLE indexed (n int, v text, id int NOT NULL, double int GENERATED ALWAYS AS (n * 2) STORED, CONSTRAINT by_id UNIQUE (id)); ALTER TABLE indexed REPLICA IDENTITY USING INDEX by_id;
	CREATE TABLE bag (v text, n int); ALTER TABLE bag REPLICA IDENTITY FULL;
	CREATE TABLE parts (id int, v text, n int, PRIMARY KEY (id, n)) PARTITION BY LIST (n);
	CREATE TABLE part_odd PARTITION OF parts FOR VALUES IN (1, 3, 5, 7, 9);
	CREATE TABLE part_even (n int NOT NULL, id int NOT NULL, v text); ALTER TABLE parts ATTACH PARTITION part_even FOR VALUES IN (0, 2, 4, 6, 8)});
sql(join '', map { "ALTER TABLE \"$_\" ALTER v SET STORAGE EXTERNAL;" } qw(full keyed indexed bag part_odd part_even));
my @keyed = qw(full keyed indexed parts);
create_slot($node, 's');

# --- what happens -------------------------------------------------------------------------------

# Each session has ids of its own, so that none waits for another.
my @sessions = map { session($node) } 0 .. 2;
my $fresh = 100000;

sub value { return rand() < 0.1 ? sprintf(q{repeat(md5('%d'), %d)}, rand 1e6, 80 + rand 400) : rand() < 0.1 ? 'NULL' : sprintf(q{'v%d "ä" \\ %s'}, rand 1000, "\t") }

sub change
{
	my ($who) = @_;
	my $id = $who + 3 * int rand 20;
	my $digit = int rand 10;
	my $table = $keyed[ rand @keyed ];
	my $kind = rand;

	if (rand() < 0.2)
	{
		return sprintf 'INSERT INTO bag SELECT %s, %d FROM generate_series(1, %d)', value(), $who, 1 + rand 3 if $kind < 0.5;
		return sprintf 'UPDATE bag SET v = %s WHERE ctid IN (SELECT ctid FROM bag WHERE n = %d LIMIT 3)', value(), $who if $kind < 0.8;
		return sprintf 'DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE n = %d LIMIT 2)', $who;
	}
	my $conflict = $table eq 'parts' ? 'DO NOTHING' : '(id) DO UPDATE SET v = excluded.v, n = excluded.n';
	return sprintf 'INSERT INTO "%s" (id, v, n) VALUES (%d, %s, %d) ON CONFLICT %s', $table, $id, value(), $digit, $conflict if $kind < 0.4;
	return sprintf 'UPDATE "%s" SET %s WHERE id = %d', $table, ($table ne 'parts' && rand() < 0.5 ? "n = $digit" : 'v = ' . value()), $id if $kind < 0.7;
	return sprintf 'UPDATE "%s" SET id = %d%s WHERE id = %d', $table, $fresh++, ($table eq 'parts' ? ", n = (n + 1) % 10" : ''), $id if $kind < 0.8;
	return sprintf 'DELETE FROM "%s" WHERE id = %d', $table, $id if $kind < 0.95;
	return sprintf 'INSERT INTO "full" SELECT g, md5(g::text), g %% 10 FROM generate_series(%d, %d) g', $fresh, ($fresh += 300) - 1;
}

sub step
{
	my ($who, $depth) = @_;
	my $kind = rand;
	my $sql;

	if (!$$depth) { ($sql, $$depth) = ('BEGIN', 1) }
	elsif ($kind < 0.7) { $sql = change($who) }
	elsif ($kind < 0.8) { $sql = 'SAVEPOINT s' . $$depth++ }
	elsif ($kind < 0.9 && $$depth > 1) { $sql = (rand() < 0.6 ? 'ROLLBACK TO s' : 'RELEASE s') . --$$depth }
	elsif ($kind < 0.97) { ($sql, $$depth) = ('COMMIT', 0) }
	elsif ($kind < 0.99) { ($sql, $$depth) = ('ROLLBACK', 0) }
	else { $sql = change($who) }
	$sessions[$who]->query_safe($sql);
}

my @depths = (0, 0, 0);
for (1 .. 1500)
{
	my $who = int rand 3;
	step($who, \$depths[$who]);
}
$sessions[$_]->query_safe("COMMIT") for grep { $depths[$_] } 0 .. 2;
# Whatever chance did: a large value that updates leave alone, of the row and of its key.
sql(q{INSERT INTO keyed VALUES (-1, repeat(md5('x'), 300), 1); UPDATE keyed SET n = 2 WHERE id = -1; UPDATE keyed SET id = -2 WHERE id = -1});
sql('BEGIN; TRUNCATE bag; INSERT INTO bag SELECT $$end$$, g % 3 FROM generate_series(1, 10) g; COMMIT');
$_->quit for @sessions;

my %truth = map { $_ => join "\n", sort map { $canonical->encode($canonical->decode($_)) } split /\n/, sql(qq{SELECT row_to_json(t) FROM "$_" t}) } @keyed, 'bag';

# --- a consumer ----------------------------------------------------------------------------------

sub canon
{
	my ($image) = @_;
	# Numbers and strings of Perl must not differ, and binary has the numbers as strings.
	return $canonical->encode({ map { $_ => !defined $image->{$_} ? undef : $image->{$_} =~ /\A-?\d+\z/ ? 0 + $image->{$_} : "$image->{$_}" } keys %$image });
}

sub table_of { my ($name) = @_; $name =~ s/\Apublic\.//; $name =~ s/\Apart_.*/parts/; $name =~ tr/"//d; return $name }

# Applies one row to the copy, as docs/wire-format.md tells.
sub apply
{
	my ($copy, $row) = @_;
	my $table = table_of($row->{t});

	if ($row->{op} eq 't') { delete $copy->{$table} }
	elsif ($table eq 'bag')
	{
		if ($row->{b} && --$copy->{bag}{ canon($row->{b}) } == 0) { delete $copy->{bag}{ canon($row->{b}) } }
		$copy->{bag}{ canon($row->{a}) }++ if $row->{a};
	}
	else
	{
		my $old = delete $copy->{$table}{ canon($row->{k}) };
		return if !$row->{a};
		my %new = (%{ $row->{a} }, map { $_ => $old->{$_} } @{ $row->{unchanged} // [] });
		$copy->{$table}{ canon({ map { $_ => $new{$_} } keys %{ $row->{k} } }) } = \%new;
	}
}

sub copy_of
{
	my (@rows) = @_;
	my %copy;

	apply(\%copy, $_) for @rows;
	return \%copy;
}

sub check_copy
{
	my ($copy, $name) = @_;
	my @differ;

	for my $table (sort keys %truth)
	{
		my @rows = $table eq 'bag' ? map { ($_) x $copy->{bag}{$_} } keys %{ $copy->{bag} } : map { canon($_) } values %{ $copy->{$table} };
		push @differ, $table if join("\n", sort @rows) ne join "\n", sort map { canon($canonical->decode($_)) } split /\n/, $truth{$table};
	}
	is("@differ", '', $name) or diag("SEED=$seed");
}

# --- reading -------------------------------------------------------------------------------------------

sub arguments_of { my (%options) = @_; return join '', map { ", '$_', '$options{$_}'" } sort keys %options }

sub read_bytes
{
	my (%options) = @_;
	my $session = delete $options{session} || '';
	my $arguments = arguments_of(tables => 'public.*', %options);
	my @messages = map { pack 'H*', $_ } split /\n/, sql("$session; SELECT encode(data, 'hex') FROM pg_logical_slot_peek_binary_changes('s', NULL, NULL$arguments)");
	return join(($options{format} // '') eq 'binary' ? '' : "\n", @messages);
}

my %formats = (compact => [ envelope => 'compact' ], debezium => [ envelope => 'debezium' ], binary => [ format => 'binary' ], 'binary in batches' => [ format => 'binary', batch_bytes => 10000 ]);
my %bytes;
for my $format (sort keys %formats)
{
	$bytes{$format} = read_bytes(@{ $formats{$format} });
	my @rows = rows_in($bytes{$format}, $format =~ s/ .*//r);
	my $falling = grep { ($rows[ $_ - 1 ]{position}[0] <=> $rows[$_]{position}[0] || $rows[ $_ - 1 ]{position}[1] <=> $rows[$_]{position}[1]) >= 0 } 1 .. $#rows;

	cmp_ok(scalar @rows, '>', 100, "$format: there is something to replay");
	check_copy(copy_of(@rows), "$format: the tables again");
	is($falling, 0, "$format: positions rise");
}
like($bytes{compact}, qr/"unchanged":\["v"\]/, 'large values were left alone');

# Rows alone, of one table.
my %copy;
for my $line (split /\n/, read_bytes(envelope => 'row', tables => 'public.full') =~ s/\A\n//r)
{
	my $row = $canonical->decode($line);
	if (ref $row eq 'ARRAY') { delete $copy{ $row->[0]{id} } }
	else { $copy{ $row->{id} } = $row }
}
is(join("\n", sort map { canon($_) } values %copy), join("\n", sort map { canon($canonical->decode($_)) } split /\n/, $truth{full}), 'row: the table again');

# --- the same bytes ------------------------------------------------------------------------------------

make_types($node, 'vals');
my @settings = (
	"SET logical_decoding_work_mem = '1GB'", "SET DateStyle = 'German'; SET TimeZone = 'America/St_Johns'; SET IntervalStyle = 'postgres_verbose'", 'SET extra_float_digits = -15',
	"SET bytea_output = 'escape'; SET xmlbinary = 'hex'; SET quote_all_identifiers = on", 'SET search_path = pg_temp, pg_catalog', "SET client_encoding = 'WIN1252'", "SET client_encoding = 'SQL_ASCII'", "SET lc_monetary = 'C.UTF-8'; SET work_mem = '64kB'");
for my $format ([ envelope => 'compact' ], [ envelope => 'debezium' ], [ envelope => 'row' ], [ format => 'binary' ], [ envelope => 'compact', batch_bytes => 50000 ])
{
	my $first = read_bytes(@$format);
	my @differ = grep { read_bytes(@$format, session => $_) ne $first } 'SELECT 1 WHERE false', @settings;
	is("@differ", '', "@$format: no setting changes a byte");
}

# --- cut and resumed -----------------------------------------------------------------------------------

# A transaction of 100 MB, a third of it undone, to be cut in.
sql(q{CREATE TABLE large (id int PRIMARY KEY, v text)});
sql(q{BEGIN; INSERT INTO large SELECT g, repeat(md5(g::text), 16) FROM generate_series(1, 100000) g; SAVEPOINT a;
	INSERT INTO large SELECT g, repeat(md5(g::text), 16) FROM generate_series(100001, 200000) g; UPDATE large SET v = NULL WHERE id < 1000; ROLLBACK TO a;
	DO $$ BEGIN FOR i IN 1 .. 200 LOOP BEGIN INSERT INTO large VALUES (1000000 + i, 'sub'); IF i % 2 = 0 THEN RAISE EXCEPTION 'undo'; END IF; EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$;
	INSERT INTO large SELECT g, repeat(md5(g::text), 16) FROM generate_series(300001, 400000) g; COMMIT});
sql('INSERT INTO large VALUES (-1, $$after$$); DELETE FROM large WHERE id = 1');
my $end = sql('SELECT pg_current_wal_insert_lsn()');
my $file = $node->basedir . '/cut';
my @options = ('-o', 'tables=public.*', '-o', 'exclude_tables=public.vals', '-o', 'batch_bytes=5000');

# What is complete in the file; a consumer that dies may have half a line.
sub complete
{
	my $text = do { open my $handle, '<:raw', $file or return ''; local $/; <$handle> };
	return substr $text, 0, 1 + rindex $text, "\n";
}

my (@got, %seen, %keys);
my $cuts = 0;
my $last = [ 0, 0 ];
my ($twice, $complete) = (0, 0);
for my $round (1 .. 200)
{
	unlink $file;
	# It confirms what it has written, at once.
	my $process = IPC::Run::start([ 'pg_recvlogical', '-d', $node->connstr('postgres'), '-S', 's', '--start', '--no-loop', '--endpos', $end, @options, '-s', '1', '-F', '1', '-f', $file ], '2>', '/dev/null');
	my $limit = $round < 20 ? 1 + int rand 4_000_000 : $round < 24 ? 50_000_000 * rand : 1e12;
	while ($process->pumpable && (-s $file // 0) < $limit)
	{
		select undef, undef, undef, 0.01;
	}
	if ($process->pumpable) { $process->kill_kill(grace => 0); $cuts++ }
	$process->finish;
	my $ended = !$process->result;
	for my $line (split /\n/, complete())
	{
		next unless $line =~ /"op":"([cudt])".*"p":\["([0-9A-F\/]+)",(\d+)\]/;
		my $position = [ lsn_number($2), 0 + $3 ];

		if (($position->[0] <=> $last->[0] || $position->[1] <=> $last->[1]) <= 0) { $twice++; next }
		$last = $position;
		push @got, $line;
	}
	wait_until($node, q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 's'});
	if ($ended && $limit == 1e12) { $complete = 1; last }
}
is($complete, 1, 'the consumer came to the end');
cmp_ok($cuts, '>', 10, "after $cuts cuts");
cmp_ok($twice, '>', 0, "having been sent $twice rows again");
my @large = grep { /"t":"public\.large"/ } @got;
is(join(' ', map { my $op = $_; scalar grep { /"op":"$op"/ } @large } qw(c u d)), '200101 0 1', 'the large transaction came once, without what was undone');
check_copy(copy_of(map { from_compact(event($_)) } grep { !/"t":"public\.large"/ } @got), 'and nothing is missing or twice');
is(scalar(keys %{ { map { /"id":(-?\d+)/ ? ($1 => 1) : () } @large } }), 200101, 'each row of it once');

$node->stop;
done_testing();
