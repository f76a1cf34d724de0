# Oracle::History: what the sessions do. A history is a list of steps; each belongs to a
# session (s) and is one of
#
#   { k => 'sql', sql }                  any statement
#   { k => 'insert', t, names, rows, suffix, target }   rows that the shrinker can drop
#   { k => 'copy', t, names, rows, target }
#   { k => 'refresh', st, mode }         refresh a stream table, then compare it
#   { k => 'create', st }  { k => 'drop', st, cascade }  { k => 'alter', st, q, cascade }
#   { k => 'wait', st, other }           refresh in this session, which has to wait for the
#                                        session other to finish its transaction
#   { k => 'storm', scripts, crash }     all at once, in whatever order it comes
#   { k => 'crash', st, how, ... }       the server dies while the stream table is refreshed:
#                                        by an immediate shutdown, with the backend, or at a
#                                        test point
#
# Nothing here knows what rows exist. A statement may fail or change nothing; the runner
# rolls the session's transaction back and goes on.
package Oracle::History;

use strict;
use warnings;

use Exporter 'import';

use Oracle::Random;
use Oracle::Types;
use Oracle::Schema;

our @EXPORT = qw(make_history);

my (@tables, @streams, %in, $prepared, @prepared, $savepoint);

sub make_history
{
	my ($tables, $stream_names, $length, %opt) = @_;
	my $sessions = pick_weighted(1 => 3, 2 => 3, 3 => 2, 4 => 1);
	my @steps;

	@tables = @$tables;
	@streams = @$stream_names;
	%in = ();
	@prepared = ();
	$prepared = $savepoint = 0;
	my @late = @{ $opt{late} || [] };
	while (@steps < $length)
	{
		my $s = between(1, $sessions);
		if (@late && chance(3 / $length * @late))
		{
			push @steps, { s => $s, k => 'create', st => shift @late };
		}
		if ($opt{last} && chance(0.03))
		{
			push @steps, { s => $s, k => pick('drop', 'create', 'alter'), st => $opt{last}, q => $opt{other_query} };
		}
		push @steps, map { +{ s => $s, %$_ } } make_step($s);
	}
	push @steps, { s => 1, k => 'storm', scripts => [ map { storm_script($_) } 1 .. 3 ],
		chance(0.2) ? (crash => { how => pick(qw(server backend)), after => rand(0.03) }) : () }
	  if chance(0.08);
	for (1 .. pick_weighted(0 => 95, 1 => 4, 2 => 1))
	{
		splice(@steps, between(1, scalar @steps), 0, crash_step(between(1, $sessions)));
	}
	return \@steps;
}

sub sql { return { k => 'sql', sql => $_[0] } }

sub make_step
{
	my ($s) = @_;

	return start($s) if !$in{$s} && chance(0.35);
	return finish($s) if $in{$s} && chance(0.18);
	return settle_prepared() if @prepared && chance(0.15);
	return savepoint_step($s) if $in{$s} && chance(0.12);
	return refresh_step($s) if chance(0.3);
	return as_replica() if chance(0.02);
	return block_step() if chance(0.03);
	return maintenance() if chance(0.02);
	return write_step();
}

sub start
{
	my ($s) = @_;
	$in{$s} = 1;
	return sql('BEGIN' . pick_weighted('' => 8, ' ISOLATION LEVEL REPEATABLE READ' => 1, ' ISOLATION LEVEL SERIALIZABLE' => 0.5));
}

sub finish
{
	my ($s) = @_;

	$in{$s} = 0;
	if (chance(0.12))
	{
		my $name = 'p' . ++$prepared;
		push @prepared, $name;
		return sql("PREPARE TRANSACTION '$name'");
	}
	return sql(pick_weighted(COMMIT => 4, ROLLBACK => 1));
}

sub settle_prepared
{
	my $name = splice(@prepared, int(rand(scalar @prepared)), 1);
	return sql(pick('COMMIT', 'COMMIT', 'ROLLBACK') . " PREPARED '$name'");
}

sub savepoint_step
{
	my ($s) = @_;
	my $name = 'sp' . (++$savepoint % 3);

	return pick(
		sub { sql("SAVEPOINT $name") },
		sub { sql("RELEASE SAVEPOINT $name") },
		sub { (sql("SAVEPOINT $name"), write_step(), chance(0.3) ? refresh_step($s) : (), sql("ROLLBACK TO SAVEPOINT $name")) }
	)->();
}

sub refresh_step
{
	my ($s) = @_;
	my $st = pick(@streams);

	if (chance(0.05))
	{
		my @others = grep { $in{$_} && $_ ne $s } keys %in;
		return { k => 'wait', st => $st, other => (sort @others)[0] } if @others && !$in{$s};
	}
	my @all = $in{$s} ? () : grep { chance(0.3) } @streams;
	return map { +{ k => 'refresh', st => $_ } } $st, @all;
}

sub crash_step
{
	my ($s) = @_;
	return {
		s => $s, k => 'crash', st => pick(@streams), how => pick(qw(server backend point point)), after => rand() ** 3 * 0.02,
		point => pick(qw(refresh-after-snapshot refresh-before-apply refresh-after-apply refresh-before-commit prune-has-gate)),
		check => chance(0.6) ? 1 : 0
	};
}

# Rows written as logical replication's apply would.
sub as_replica
{
	return (sql(q{SET session_replication_role = replica}), write_step(), write_step(),
		sql('RESET session_replication_role'));
}

# DDL on sources, and what it hides: writes that fire no trigger, partitions that go and
# come back, a function that means something else from now on.
sub maintenance
{
	my $table = pick(@tables);
	my $name = table_name($table->{name});
	my $refresh = { k => 'refresh', st => pick(@streams), unchecked => 1 };
	my ($part) = grep { $_->{bound} } @{ $table->{parts} || [] };

	if ($part && chance(0.5))
	{
		my $part_name = table_name($part->{name});
		return (sql("ALTER TABLE $name DETACH PARTITION $part_name"), $refresh,
			sql("DELETE FROM $part_name WHERE g = " . between(0, 4)),
			sql("ALTER TABLE $name ATTACH PARTITION $part_name $part->{bound}"));
	}
	return pick(
		sub { sql("ANALYZE $name") },
		sub { sql("VACUUM (FULL) $name") },
		sub { sql("ALTER TABLE $name ADD COLUMN IF NOT EXISTS late integer DEFAULT 7") },
		sub { sql("CREATE INDEX ON $name (k)") },
		# A key that was not there when the query was analysed.
		sub { $table->{parts} ? sql("ANALYZE $name") : sql("ALTER TABLE $name ADD COLUMN IF NOT EXISTS own bigint GENERATED ALWAYS AS IDENTITY UNIQUE") },
		sub { (sql("ALTER TABLE $name DISABLE TRIGGER USER"), write_to($table), chance(0.3) ? $refresh : (), sql("ALTER TABLE $name ENABLE TRIGGER USER")) },
		sub { (sql("BEGIN"), sql("ALTER TABLE $name RENAME COLUMN g TO renamed"), $refresh, sql("ALTER TABLE $name RENAME COLUMN renamed TO g"), sql("COMMIT")) },
		sub { (sql("BEGIN"), sql("ALTER TABLE $name RENAME TO renamed"), $refresh, sql("ALTER TABLE o.renamed RENAME TO " . quote_name($table->{name})), sql("COMMIT")) },
		sub { sql("CREATE OR REPLACE FUNCTION o.twice(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT " . pick(2, 3) . " * \$1'") },
		sub { sql('CREATE INDEX ON ' . table_name(pick(@streams)) . ' (c1)') },
	)->();
}

# Many commands of one transaction in one statement, and more subtransactions than fit
# into shared memory.
sub block_step
{
	my $st = pick(@streams);
	my $refresh = "PERFORM pgtrickle.refresh_stream_table('" . (table_name($st) =~ s/'/''/gr) . "')";
	my @write = map { my $table = pick(@tables); pick(update_sql($table), delete_sql($table)) } 1 .. 3;
	my $body = chance(0.6)
	  ? "$write[0]; $refresh; $write[1]; $refresh; $write[2];"
	  : "FOR i IN 1..70 LOOP BEGIN $write[0]; IF i % 2 = 0 THEN RAISE division_by_zero; END IF; EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP;";

	return (sql("DO \$do\$ BEGIN $body END \$do\$"), { k => 'refresh', st => $st });
}

# --- writes ----------------------------------------------------------------------------

sub write_step { return write_to(pick(@tables)) }

sub write_to
{
	my ($table) = @_;
	my $kind = pick_weighted(
		insert => 30, update => 28, delete => 16, copy => 5, upsert => 8, merge => 5, select => 3,
		move => 4, truncate => 1.5, join => 3);

	return insert_step($table) if $kind eq 'insert';
	return copy_step($table) if $kind eq 'copy';
	return upsert_step($table) if $kind eq 'upsert';
	return merge_step($table) if $kind eq 'merge';
	return sql(update_sql($table)) if $kind eq 'update';
	return sql(delete_sql($table)) if $kind eq 'delete';
	return sql('TRUNCATE ' . table_name(pick(write_targets($table))) . pick('', ' CASCADE')) if $kind eq 'truncate';
	return sql(select_into_sql($table)) if $kind eq 'select';
	return sql(move_sql($table)) if $kind eq 'move';
	return sql(update_from_sql($table));
}

sub names_of { return [ map { $_->{name} } @{ $_[0]{cols} } ] }

sub some_rows
{
	my ($table, $most) = @_;
	return [ map { make_row($table) } 1 .. pick(1, 1, 1, 2, $most) ];
}

sub insert_step
{
	my ($table) = @_;
	my $names = names_of($table);
	my $rows = some_rows($table, 6);

	# The second row is sometimes the first one again: keyless duplicates.
	push @$rows, [ @{ $rows->[0] } ] if chance(0.15);
	return {
		k => 'insert', t => $table->{name}, names => $names, rows => $rows,
		target => pick(write_targets($table)),
		suffix => $table->{key} && chance(0.8) ? 'ON CONFLICT DO NOTHING' : ''
	};
}

sub copy_step
{
	my ($table) = @_;
	return {
		k => 'copy', t => $table->{name}, names => names_of($table), rows => some_rows($table, 5),
		target => pick(write_targets($table))
	};
}

sub upsert_step
{
	my ($table) = @_;
	return insert_step($table) unless $table->{key} && $table->{key_kind} ne 'none';
	my $key = join(', ', map { quote_name($_) } @{ $table->{key} });
	my $rows = some_rows($table, 3);

	$#$rows = 0;	# no row may be updated twice in one command
	return {
		k => 'insert', t => $table->{name}, names => names_of($table), rows => $rows,
		suffix => "ON CONFLICT ($key) DO UPDATE SET " . assignments($table, 1)
	};
}

sub merge_step
{
	my ($table) = @_;
	my $name = table_name($table->{name});
	my $row = make_row($table);
	my $cols = $table->{cols};
	my $values = join(', ', map { quote_sql($_) } @$row);
	my $on = between(0, 5);

	return sql("MERGE INTO $name AS m USING (VALUES ($on)) AS s(k) ON m.k = s.k"
		  . " WHEN MATCHED AND m.g > 2 THEN DELETE"
		  . " WHEN MATCHED THEN UPDATE SET " . assignments($table, 1)
		  . " WHEN NOT MATCHED THEN INSERT (" . join(', ', map { quote_name($_) } @{ names_of($table) }) . ") VALUES ($values)");
}

# A condition that often holds for a few rows.
sub condition
{
	my ($table, $prefix) = @_;
	my $name = table_name($table->{name});

	$prefix ||= '';
	return "${prefix}ctid = ANY (ARRAY(SELECT ctid FROM $name ORDER BY tableoid, ctid LIMIT " . between(1, 3) . ' OFFSET ' . between(0, 9) . pick('', ' FOR UPDATE SKIP LOCKED') . '))'
	  if $table->{kind} ne 'partitioned' && chance(0.35);
	return "${prefix}k " . pick('<', '>') . ' ' . between(20, 130) if is_wide() && chance(0.5);
	my $col = pick(@{ $table->{cols} });
	my $column = $prefix . quote_name($col->{name});

	return "${prefix}k = " . between(0, 5) if chance(0.25) || $col->{type} =~ /^json/;
	return "$column IS NULL" if chance(0.1);
	return "$column " . pick('=', '=', '<', '>') . ' ' . literal($col->{type}, 0);
}

# SET list; with $plain no references to columns.
sub assignments
{
	my ($table, $plain) = @_;
	my @cols = pick_some(pick(1, 1, 2), @{ $table->{cols} });
	my @set;

	for my $col (@cols)
	{
		my $name = quote_name($col->{name});
		my $value = quote_sql(row_value_of($col));

		$value = "$name + 1" if !$plain && $col->{type} eq 'int4' && chance(0.4);
		$value = $name if !$plain && chance(0.06);	# an update that changes nothing
		push @set, "$name = $value";
	}
	return join(', ', @set);
}

sub row_value_of
{
	my ($col) = @_;
	return between(1, 25) if $col->{name} eq 'id' && $col->{type} eq 'int4';
	return value($col->{type}, $col->{not_null} ? 0 : undef);
}

sub update_sql
{
	my ($table) = @_;
	return 'UPDATE ' . table_name(pick(write_targets($table))) . ' SET ' . assignments($table) . ' WHERE ' . condition($table);
}

sub delete_sql
{
	my ($table) = @_;
	return 'DELETE FROM ' . table_name(pick(write_targets($table))) . ' WHERE ' . condition($table);
}

sub update_from_sql
{
	my ($table) = @_;
	my $other = pick(@tables);
	return 'UPDATE ' . table_name($table->{name}) . ' AS t SET ' . assignments($table, 1)
	  . ' FROM ' . table_name($other->{name}) . ' AS u WHERE t.k = u.g AND u.k = ' . between(0, 4);
}

# Rows of a table into itself: keyless tables get duplicates.
sub select_into_sql
{
	my ($table) = @_;
	my $name = table_name($table->{name});
	my @names = map { quote_name($_->{name}) } @{ $table->{cols} };
	my @values = map { $_->{name} eq 'id' && $_->{type} eq 'int4' ? 'id + 100' : quote_name($_->{name}) } @{ $table->{cols} };

	return "INSERT INTO $name (" . join(', ', @names) . ') SELECT ' . join(', ', @values) . " FROM $name ORDER BY k, g LIMIT " . between(1, 4)
	  . ($table->{key} ? ' ON CONFLICT DO NOTHING' : '');
}

# One statement, two sources: rows go from one table to another.
sub move_sql
{
	my ($from) = @_;
	my $to = pick(@tables);
	my $target = quote_name(pick('k', 'g'));
	my $condition = condition($from);
	my $conflict = $to->{key} ? ' ON CONFLICT DO NOTHING' : '';

	return 'WITH gone AS (DELETE FROM ' . table_name($from->{name}) . " WHERE $condition RETURNING k, g)"
	  . ' INSERT INTO ' . table_name($to->{name}) . " (k, g) SELECT k, g FROM gone$conflict"
	  if !grep { $_->{not_null} && $_->{name} !~ /^[kg]$/ } @{ $to->{cols} };
	return 'WITH one AS (UPDATE ' . table_name($from->{name}) . " SET $target = $target + 1 WHERE $condition RETURNING k)"
	  . ' UPDATE ' . table_name($to->{name}) . ' SET g = 3 WHERE k IN (SELECT k FROM one)';
}

# --- everybody at once -----------------------------------------------------------------

sub storm_script
{
	my ($who) = @_;
	my @script;

	for (1 .. 8)
	{
		my $in = chance(0.4);
		push @script, 'BEGIN' if $in;
		for (1 .. ($in ? 2 : 1))
		{
			my $table = pick(@tables);
			push @script, chance($who == 3 ? 0.7 : 0.15) ? { st => pick(@streams) }
			  : pick(sub { update_sql($table) }, sub { delete_sql($table) }, sub { insert_step($table) })->();
		}
		push @script, pick('COMMIT', 'COMMIT', 'ROLLBACK') if $in;
	}
	return \@script;
}

1;
