# decoder.pl [--seconds N] [--seed N] [--valgrind]: random histories with DDL in them, read with random
# options.
#
# Triggers write down what happens to each row, with the id of the transaction; that is the truth.
# What is decoded of a transaction, in whichever format, must be that, in that order. Reading twice
# gives the same bytes. Options are valid or not: an invalid one is an error of class 22, 42 or 0A,
# never a crash. With --valgrind the slots are read by a single-user server under valgrind, and what
# it finds in our code is a failure.
#
# Prints what was done; exit status 1 and the seed if something is wrong. --seed runs that one.
use strict;
use warnings;

use DBI;
use FindBin;
use Getopt::Long;
use IPC::Run;
use JSON::PP;

use lib "$FindBin::Bin/../lib", "$FindBin::Bin/../oracle/lib";
use Oracle::Server;
use PgtEvents;

my %opt = (seconds => 60);
GetOptions(\%opt, 'seconds=i', 'seed=i', 'valgrind') or die "see the head of $0\n";
$| = 1;

my $server = Oracle::Server->start(plugins => 'pg_trickle_decoder', settings => "logical_decoding_work_mem = '64kB'\nautovacuum = off\n");
my $dbh = connect_to();
my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my %done = map { $_ => 0 } qw(seeds transactions rows readings refused);
my $seed;

sub connect_to
{
	return DBI->connect("dbi:Pg:dbname=postgres;host=$server->{host};port=$server->{port}", 'postgres', '', { RaiseError => 1, PrintError => 0, PrintWarn => 0, pg_enable_utf8 => 0 });
}

sub sql { return $dbh->do($_[0]) }
sub pick { return $_[ int rand @_ ] }

# --- a history ------------------------------------------------------------------------------

# What a step may refer to; steps whose names are gone are errors that change nothing.
my @schemas = ('public', 'other', 'Odd "schema"');
my @tables = ('a', 'b', 'C d', 'e.f', 'g');
my @columns = ('id', 'v', 'n', 'new 1', 'new"2', 'm');

sub ident { my ($name) = @_; return '"' . $name =~ s/"/""/gr . '"' }
sub table { return ident(pick(@schemas)) . '.' . ident(pick(@tables)) }
sub literal { return $dbh->quote($_[0]) }

sub value
{
	return pick('NULL', int(rand 1000), q{'7'}) if rand() < 0.5;
	return sprintf q{repeat(md5('%d'), %d)}, rand 1e6, pick(1, 3, 90, 400);
}

sub type { return pick(qw(int bigint text numeric boolean), 'varchar(3000)', 'numeric(20,2)') }

sub create
{
	my $name = table();
	my $kind = rand;
	my $sql = "CREATE TABLE IF NOT EXISTS $name (id int" . ($kind < 0.7 ? ' PRIMARY KEY' : '') . ', v text, n ' . type() . ')'
	  . ($kind > 0.6 && $kind < 0.8 ? ' PARTITION BY HASH (id)' : '') . ';';

	if ($kind > 0.6 && $kind < 0.8)
	{
		$sql .= 'CREATE TABLE IF NOT EXISTS ' . ident(pick(@schemas)) . '.' . ident('part' . int rand 1e9) . " PARTITION OF $name FOR VALUES WITH (MODULUS 2, REMAINDER $_);" for 0, 1;
	}
	# In one, so that nobody writes to what is not watched.
	return 'DO ' . literal('BEGIN EXECUTE ' . literal($sql) . '; PERFORM watch_all(); END');
}

sub ddl
{
	my $table = table();
	my $column = ident(pick(@columns));

	return pick(
		sub { return create() },
		sub { return "ALTER TABLE $table ADD $column " . type() . pick('', ' DEFAULT 5', ' NOT NULL DEFAULT 1', ' GENERATED ALWAYS AS (7) STORED') },
		sub { return "ALTER TABLE $table DROP $column" },
		sub { return "ALTER TABLE $table RENAME $column TO " . ident(pick(@columns)) },
		sub { my $type = type(); return "ALTER TABLE $table ALTER $column TYPE $type USING $column\::text::$type" },
		sub { return "ALTER TABLE $table ALTER $column SET STORAGE EXTERNAL" },
		sub { return "ALTER TABLE $table RENAME TO " . ident(pick(@tables)) },
		sub { return "ALTER TABLE $table SET SCHEMA " . ident(pick(@schemas)) },
		sub { return "ALTER TABLE $table REPLICA IDENTITY " . pick('FULL', 'DEFAULT', 'FULL', 'NOTHING') },
		sub { return "ALTER TABLE $table DROP CONSTRAINT IF EXISTS " . ident(pick(@tables) . '_pkey') },
		sub { return "DROP TABLE $table" },
		sub { return "CREATE UNIQUE INDEX ON $table ($column)" },
		sub { return "CLUSTER $table" },
		sub { return "VACUUM FULL $table" },
		sub { return "ANALYZE $table" })->();
}

sub change
{
	my $table = table();
	my $id = int rand 30;
	my $kind = rand;

	return "INSERT INTO $table (id, v) SELECT g, " . value() . " FROM generate_series($id, $id + " . pick(0, 0, 3, 20) . ') g' . pick('', ' ON CONFLICT DO NOTHING') if $kind < 0.4;
	return "UPDATE $table SET " . ident(pick(@columns)) . ' = ' . value() . " WHERE id < $id" if $kind < 0.7;
	return "UPDATE $table SET id = id + 1000 WHERE id = $id" if $kind < 0.75;
	return "DELETE FROM $table WHERE id % 5 = " . int rand 5 if $kind < 0.9;
	return "INSERT INTO $table (id, v) SELECT g, md5(g::text) FROM generate_series(10000, 10600) g" if $kind < 0.93;
	return sprintf 'SELECT pg_logical_emit_message(%s, %s, %s)', pick('true', 'false'), literal(pick('pg_trickle', 'pg_trickle.hb', 'app', 'pg_trickle.x')), literal(pick('', '17', "\x01O rubbish", 'x' x 2000))
	  if $kind < 0.95;
	return "TRUNCATE $table" if $kind < 0.97;
	return ddl();
}

# Statements of a transaction; psql takes those back that fail (ON_ERROR_ROLLBACK).
sub transaction
{
	my $depth = 0;
	my @sql = ('BEGIN');

	return ddl() if rand() < 0.25;
	$done{transactions}++;
	for (0 .. rand 12)
	{
		push @sql, 'SAVEPOINT deep' . $depth++ if rand() < 0.15;
		push @sql, change();
		push @sql, (rand() < 0.5 ? 'ROLLBACK TO deep' : 'RELEASE deep') . --$depth if $depth && rand() < 0.3;
	}
	return (@sql, rand() < 0.1 ? 'ROLLBACK' : 'COMMIT');
}

# A session's statements, run to their end.
sub start_session
{
	my ($name, @sql) = @_;
	my $path = "$server->{dir}/$name.sql";

	open my $file, '>', $path or die "could not write $path: $!";
	print $file "SET lock_timeout = '2s';\n", map { "$_;\n" } @sql;
	close $file;
	return IPC::Run::start([ "$server->{bin}/psql", '-X', '-q', '-h', $server->{host}, '-U', 'postgres', '-v', 'ON_ERROR_ROLLBACK=on', '-f', $path ],
		'<', \undef, '>', '/dev/null', '2>', "$path.log");
}

# The truth: one row of the log per row that changed. Its own table is not watched.
my $watch = <<'E_SQL';
CREATE SCHEMA truth;
CREATE TABLE truth.log (seq bigserial, xid bigint, t text, op "char", b jsonb, a jsonb);
CREATE FUNCTION truth.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO truth.log (xid, t, op, b, a) VALUES (txid_current() % 4294967296, quote_ident(TG_TABLE_SCHEMA) || '.' || quote_ident(TG_TABLE_NAME),
		CASE TG_OP WHEN 'INSERT' THEN 'c' WHEN 'UPDATE' THEN 'u' WHEN 'DELETE' THEN 'd' ELSE 't' END,
		CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN truth.texts(to_jsonb(OLD)) END, CASE WHEN TG_OP IN ('INSERT', 'UPDATE') THEN truth.texts(to_jsonb(NEW)) END);
	RETURN NULL;
END $$;
CREATE FUNCTION truth.texts(jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each_text($1) $$;
CREATE FUNCTION watch_all() RETURNS void LANGUAGE plpgsql AS $$
DECLARE r regclass;
BEGIN
	FOR r IN SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r' AND nspname IN ('public', 'other', 'Odd "schema"')
		AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgname = 'noted')
	LOOP
		EXECUTE format('CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION truth.note()', r);
		EXECUTE format('CREATE TRIGGER noted_truncate AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION truth.note()', r);
	END LOOP;
END $$;
E_SQL

sub history
{
	sql('CREATE SCHEMA other; CREATE SCHEMA "Odd ""schema"""');
	sql($watch);
	for (1 .. 6)
	{
		eval { sql(create()) };    # a name may be taken
	}
	sql(q{SELECT pg_create_logical_replication_slot('s', 'pg_trickle_decoder')});
	my @sessions = map { start_session("session$_", map { transaction() } 1 .. 20) } 0, 1;
	$_->finish for @sessions;
	# Messages that are not transactional are written, but perhaps not flushed, so not decoded.
	sql('CHECKPOINT');
	return;
}

# --- readings --------------------------------------------------------------------------------

# Name => values that are taken, and others. A few are refused together.
my %values = (
	format => [ [ 'json', 'binary' ], [ 'xml', '' ] ],
	format_version => [ ['1'], [ '2', '' ] ],
	envelope => [ [ 'compact', 'debezium', 'row' ], ['avro'] ],
	tables => [ [ '*', 'public.*, other.*', '"Odd ""schema""".*', '*.a', '*."C d",public."e.f"' ], [ 'a', 'public."C d', '.', ',,', 'public.e.f' ] ],
	exclude_tables => [ [ '*.b', 'public.*', '*', '' ], [ 'x y', '""' ] ],
	publications => [ ['p'], [ '"P"', 'nothing', ',', 'p,,p' ] ],
	include_refresh => [ [ 'on', 'off' ], ['perhaps'] ],
	include_schema => [ [ 'on', 'off' ], ['2'] ],
	messages => [ [ '*', 'app', 'app,pg_tr*', '' ], [ ',', '"' ] ],
	origin => [ [ 'any', 'none' ], ['here'] ],
	bigint => [ [ 'number', 'string' ], ['float'] ],
	oversize => [ [ 'omit', 'error' ], ['cut'] ],
	max_message_bytes => [ [ '1024', '5000', '1000000' ], [ '0', '-1', '99999999999999999999', '1e9' ] ],
	batch_bytes => [ [ '0', '1', '1000', '65536', '16777216' ], [ '16777217', 'x' ] ],
	topic_prefix => [ [ 'shop', "a\"b\n" ], [''] ],
	nonsense => [ [], ['1'] ],
	two_phase => [ [], ['on'] ],
	streaming => [ [], ['on'] ]);

sub random_options
{
	my %options;

	for my $name (grep { rand() < 0.25 } sort keys %values)
	{
		my ($taken, $others) = @{ $values{$name} };
		my $other = rand() < 0.03;

		$options{$name} = pick(@{ $other ? $others : $taken }) if @$taken || $other;
	}
	delete $options{tables} if exists $options{publications} && rand() < 0.8;
	return %options;
}

sub query_of
{
	my (%options) = @_;
	return "SELECT encode(data, 'hex') FROM pg_logical_slot_peek_binary_changes('s', NULL, NULL" . join('', map { ', ' . literal($_) . ', ' . literal($options{$_}) } sort keys %options) . ')';
}

sub describe { my (%options) = @_; return join ' ', map { "$_=" . $json->encode($options{$_}) } sort keys %options }

# The bytes, or nothing if the options were refused.
sub reading
{
	my (%options) = @_;
	my $messages = eval { $dbh->selectcol_arrayref(query_of(%options)) };

	$done{readings}++;
	if (!$messages)
	{
		$done{refused}++;
		die "failed with $@" if $dbh->state !~ /\A(?:22|42|0A|54)/;
		return;
	}
	return (join(($options{format} // '') eq 'binary' ? '' : "\n", map { pack 'H*', $_ } @$messages));
}

# Images as texts, to compare them with the truth.
sub texts
{
	my ($image) = @_;

	return undef unless $image;
	return { map { $_ => !defined $image->{$_} ? undef : JSON::PP::is_bool($image->{$_}) ? ($image->{$_} ? 'true' : 'false') : "$image->{$_}" =~ s/\At\z/true/r =~ s/\Af\z/false/r } keys %$image };
}

# Of a transaction: op, table and images, as far as the WAL has them.
sub check_row
{
	my ($row, $true) = @_;
	my $image = texts($row->{a});
	my $old = texts($row->{b});
	my $key = texts($row->{k});

	return "$row->{op} instead of $true->{op}" if $row->{op} ne $true->{op};
	return "table $row->{t} instead of $true->{t}" if $row->{t} ne $true->{t};
	if ($image)
	{
		my %whole = %{ $true->{a} };
		delete @whole{ @{ $row->{unchanged} || [] } };
		return 'new image ' . $json->encode($image) . ' instead of ' . $json->encode(\%whole) if $json->encode($image) ne $json->encode(\%whole);
	}
	for my $name (sort keys %{ $old || {} })
	{
		return "old $name is " . $json->encode($old->{$name}) if $json->encode($old->{$name}) ne $json->encode($true->{b}{$name});
	}
	for my $name (sort keys %{ $key || {} })
	{
		# Without an old image the key has not changed.
		my $want = ($old ? $true->{b} : $true->{a} // $true->{b})->{$name};
		return "key $name is " . $json->encode($key->{$name}) . ' instead of ' . $json->encode($want) if $json->encode($key->{$name}) ne $json->encode($want);
	}
	return;
}

sub check_events
{
	my ($bytes, $format, $truth) = @_;
	my %left = map { my $xid = $_; $xid => [ grep { $_->{op} ne 't' } @{ $truth->{$xid} } ] } keys %$truth;
	# Several tables of a TRUNCATE come in whichever order, and those that have partitions, too.
	my %emptied = map { my $xid = $_; map { ("$xid $_->{t}" => 1) } grep { $_->{op} eq 't' } @{ $truth->{$xid} } } keys %$truth;
	my $xid;

	for my $event (events_in($bytes, $format))
	{
		if ($event->{op} eq 'begin') { $xid = $event->{xid} }
		elsif ($event->{op} eq 't') { delete $emptied{"$xid $event->{t}"} }
		elsif ($event->{op} =~ /\A[cud]\z/)
		{
			my $true = shift @{ $left{$xid} || [] } or die "a row too many in transaction $xid: " . $json->encode($event) . "\n";
			my $wrong = check_row($event, $true);
			die "transaction $xid: $wrong\n  " . $json->encode($event) . "\n  " . $json->encode($true) . "\n" if $wrong;
			$done{rows}++;
		}
	}
	my @missing = grep { @{ $left{$_} } } sort keys %left;
	die "transaction $missing[0] misses " . $json->encode($left{ $missing[0] }) . "\n" if @missing;
	die "nobody says who is emptied: $_\n" for sort keys %emptied;
	return;
}

sub truth
{
	my %truth;

	for my $line (@{ $dbh->selectcol_arrayref(q{SELECT json_build_object('xid', xid, 't', t, 'op', op, 'b', b, 'a', a) FROM truth.log ORDER BY seq}) })
	{
		my $row = $json->decode($line);
		push @{ $truth{ $row->{xid} } }, $row;
	}
	return \%truth;
}

my @whole = (
	[ compact => envelope => 'compact' ],
	[ debezium => envelope => 'debezium' ],
	[ binary => format => 'binary' ],
	[ compact => batch_bytes => 3000 ],
	[ binary => format => 'binary', batch_bytes => 100 ]);

sub read_all
{
	my $truth = truth();

	for my $how (@whole)
	{
		my ($format, %options) = @$how;
		my $bytes = reading(%options, tables => '*.*', exclude_tables => 'truth.*');

		check_events($bytes, $format, $truth);
		my $again = reading(%options, tables => '*.*', exclude_tables => 'truth.*');
		my $same = length(($bytes ^ $again) =~ s/[^\0].*//sr);
		die "other bytes the second time: " . substr($bytes, $same > 200 ? $same - 200 : 0, 400) . "\n" if $bytes ne $again;
	}
	for (1 .. 15)
	{
		my %options = random_options();
		my ($bytes) = eval { reading(%options) };

		die describe(%options) . ": $@" if $@;
		next unless defined $bytes;
		my $envelope = $options{envelope} // 'compact';
		eval {
			if (($options{format} // '') eq 'binary')
			{
				# Without schemas rows cannot be taken apart.
				events_in($bytes, 'binary') if ($options{include_schema} // 'on') eq 'on';
			}
			elsif ($envelope eq 'row') { $json->decode($_) for split /\n/, $bytes }
			else { events_in($bytes, $envelope) }
			1;
		} or die describe(%options) . ": $@";
	}
	return;
}

# --- valgrind ------------------------------------------------------------------------------------

# The slot as it is, read in a server that is one process.
sub read_under_valgrind
{
	my @queries = map { my ($format, %options) = @$_; query_of(%options, tables => '*.*') } @whole;
	my ($log, $input) = map { "$server->{dir}/valgrind$_" } '.log', '.sql';

	push @queries, map { query_of(random_options()) } 1 .. 6;
	open my $file, '>', $input or die "could not write $input: $!";
	print $file map { s/\n/ /gr . "\n" } @queries;
	close $file;
	$dbh->disconnect;
	$server->command('pg_ctl', '-D', "$server->{dir}/data", '-m', 'fast', '-w', 'stop');
	system("valgrind --quiet --error-limit=no --num-callers=30 --log-file=$log $server->{bin}/postgres --single -D $server->{dir}/data postgres <$input >$log.out 2>$log.err") == 0
	  or die "the server under valgrind ended with $?: " . slurp("$log.err");
	$server->command('pg_ctl', '-D', "$server->{dir}/data", '-l', "$server->{dir}/log", '-w', 'start');
	$dbh = connect_to();
	my $hello = unpack 'H*', '{"op":"hello"';
	my $sessions = () = slurp("$log.out") =~ /"$hello/g;
	die "the server under valgrind has read $sessions times: " . slurp("$log.err") if $sessions < grep { $_->[0] ne 'binary' } @whole;
	my @ours = grep { /pg_trickle_decoder|pgtd_/ } split /\n==\d+== \n/, slurp($log);
	die "valgrind says:\n$ours[0]\n" if @ours;
	$done{readings} += @queries;
	return;
}

sub slurp
{
	my ($path) = @_;
	open my $file, '<', $path or return '';
	local $/;
	return <$file>;
}

# --- the run -----------------------------------------------------------------------------------------

sub clean
{
	sql('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');
	sql(q{DROP SCHEMA IF EXISTS public, other, "Odd ""schema""", truth CASCADE; CREATE SCHEMA public; DROP PUBLICATION IF EXISTS p; CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert, truncate')});
	return;
}

my $end = time + $opt{seconds};
my $first = $opt{seed} // time % 1_000_000 * 1000;
for ($seed = $first; $seed == $first || (!defined $opt{seed} && time < $end); $seed++)
{
	srand($seed);
	clean();
	if (!eval { history(); $opt{valgrind} ? read_under_valgrind() : read_all(); 1 })
	{
		print "seed $seed: $@";
		print "again with --seed $seed\n";
		exit 1;
	}
	$done{seeds}++;
}
print join(', ', map { "$done{$_} $_" } qw(seeds transactions rows readings refused)), ", no finding\n";
