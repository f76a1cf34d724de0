# Oracle::Schema: random tables with random rows.
#
# A table: { name, kind (plain partitioned inherited), cols => [{ name, type, not_null }],
# key => [names] or undef, key_kind, rows => [[raw...]], parts => [...] }. Statements
# are made from this structure, so that the shrinker can drop columns and rows.
package Oracle::Schema;

use strict;
use warnings;

use Exporter 'import';

use Oracle::Random;
use Oracle::Types;

our @EXPORT = qw(make_tables table_ddl insert_sql make_row table_name write_targets);

# What every case has: a schema, types, functions and aggregates of the user.
our @PREAMBLE = (
	'CREATE SCHEMA o',
	q{CREATE COLLATION o.nd (provider = icu, locale = 'und-u-ks-level2', deterministic = false)},
	q{CREATE TYPE o.mood AS ENUM ('sad', 'ok', 'happy')},
	'CREATE TYPE o.pair AS (i integer, t text)',
	q{CREATE FUNCTION o.add_null_as_0(integer, integer) RETURNS integer
LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, 0) + coalesce($2, 0)'},
	q{CREATE AGGREGATE o.total(integer) (sfunc = o.add_null_as_0, stype = integer)},
	q{CREATE FUNCTION o.add_int(integer, integer) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1 + $2'},
	q{CREATE FUNCTION o.sub_int(integer, integer) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1 - $2'},
	q{CREATE AGGREGATE o.moving_total(integer) (sfunc = o.add_int, stype = integer,
initcond = '0', msfunc = o.add_int, minvfunc = o.sub_int, mstype = integer, minitcond = '0')},
	q{CREATE FUNCTION o.long_text() RETURNS text LANGUAGE sql IMMUTABLE AS
'SELECT string_agg(md5(i::text), '''') FROM generate_series(1, 120) AS i'},
	q{CREATE FUNCTION o.twice(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1'},
	q{CREATE FUNCTION o.upto(integer) RETURNS SETOF integer LANGUAGE sql IMMUTABLE AS
'SELECT generate_series(1, least($1, 3))'},
	q{CREATE FUNCTION o.halves(integer) RETURNS TABLE (h integer, r text) LANGUAGE sql IMMUTABLE AS
'VALUES ($1 / 2, ''first''), ($1 - $1 / 2, ''rest'')'});

sub make_tables
{
	my @tables = map { make_table($_) } 1 .. between(3, 5);

	for my $table (@tables)
	{
		my $rows = pick_weighted(0 => 1, 3 => 2, 8 => 5, 15 => 8, 30 => 3);
		$rows = between(100, 350) if is_wide();
		my @rows = map { make_row($table) } 1 .. $rows;
		$table->{rows} = [ unique_rows($table, @rows) ];
	}
	add_references(@tables);
	add_side_writer(@tables) if chance(0.08);
	return @tables;
}

sub make_table
{
	my ($n) = @_;
	my %table = (name => chance(0.06) ? qq{T "$n} : "t$n", number => $n);
	my @cols = ({ name => 'k', type => 'int4' }, { name => 'g', type => 'int4' });

	for my $i (1 .. between(1, 4))
	{
		my $name = chance(0.05) ? "Sel ect$i" : chance(0.05) ? 'order' : "x$i";
		$name = "x$i" if grep { $_->{name} eq $name } @cols;
		push @cols, { name => $name, type => pick_weighted(type_names()) };
	}
	$table{kind} = pick_weighted(plain => 78, partitioned => 13, inherited => 9);
	$table{cols} = \@cols;
	$table{dropped} = 1 if chance(0.1);
	choose_key(\%table);
	choose_partitions(\%table) if $table{kind} eq 'partitioned';
	if ($table{kind} eq 'inherited')
	{
		$table{parts} = [ { name => part_name(\%table, 'child'), order => [ map { $_->{name} } @cols ] } ];
	}
	$_->{not_null} = 1 for grep { !$_->{key} && chance(0.1) } @cols;
	return \%table;
}

# Primary keys of one, two and odd columns, unique keys that admit NULL, or none.
sub choose_key
{
	my ($table) = @_;
	my $kind = pick_weighted(
		none => 30, id => 40, two => 12, numeric => 5, ndtext => 3, unique => 6, 'not distinct' => 4);
	my $cols = $table->{cols};

	$kind = pick(qw(none id)) if $table->{kind} ne 'plain';
	$kind = 'none' if $table->{kind} eq 'inherited';
	$table->{key_kind} = $kind;
	return if $kind eq 'none';

	if ($kind eq 'two' || $kind eq 'unique' || $kind eq 'not distinct')
	{
		$table->{key} = $kind eq 'two' ? [ 'k', 'g' ] : ['k'];
	}
	else
	{
		my $type = $kind eq 'id' ? 'int4' : $kind;
		unshift @$cols, { name => 'id', type => $type };
		$table->{key} = $table->{kind} eq 'partitioned' ? [ 'id', 'k' ] : ['id'];
	}
	return if $kind eq 'unique' || $kind eq 'not distinct';
	for my $name (@{ $table->{key} })
	{
		my ($col) = grep { $_->{name} eq $name } @$cols;
		$col->{not_null} = $col->{key} = 1;
	}
}

sub part_name
{
	my ($table, $suffix) = @_;
	return "t$table->{number}_$suffix";
}

# Three partitions over k: one with another column order and a dropped column, attached.
sub choose_partitions
{
	my ($table) = @_;
	my @names = map { $_->{name} } @{ $table->{cols} };

	$table->{parts} = [
		{ name => part_name($table, 'low'), order => \@names, bound => 'FOR VALUES FROM (MINVALUE) TO (2)' },
		{   name => part_name($table, 'mid'),
			order => [ reverse @names ],
			attach => 1,
			bound => 'FOR VALUES FROM (2) TO (4)'
		},
		{ name => part_name($table, 'rest'), order => \@names, bound => 'DEFAULT' }
	];
}

# Foreign keys that cascade, between an "id" and a later table's k.
sub add_references
{
	my @tables = @_;

	for my $table (@tables)
	{
		next unless chance(0.12) && $table->{kind} eq 'plain';
		next if grep { $_ eq 'k' } @{ $table->{key} || [] };
		my ($k) = grep { $_->{name} eq 'k' } @{ $table->{cols} };
		my ($parent) = grep {
				 $_->{number} < $table->{number}
			  && $_->{key_kind} eq 'id'
			  && $_->{kind} eq 'plain'
		} @tables;
		next unless $parent;
		my ($id) = grep { $parent->{cols}[$_]{name} eq 'id' } 0 .. $#{ $parent->{cols} };
		my %have = map { $_->[$id] => 1 } grep { defined $_->[$id] } @{ $parent->{rows} };
		my ($at) = grep { $table->{cols}[$_]{name} eq 'k' } 0 .. $#{ $table->{cols} };
		$table->{rows} =
		  [ grep { !defined $_->[$at] || $have{ $_->[$at] } } @{ $table->{rows} } ];
		$table->{references} = $parent->{name};
		$table->{on_delete} = $k->{not_null} || chance(0.6) ? 'CASCADE' : 'SET NULL';
	}
}

# A user's trigger on one table that writes another.
sub add_side_writer
{
	my ($from, $to) = @_;

	return if grep { $_->{key_kind} ne 'none' || $_->{references} } $to;
	return if grep { $_->{not_null} } @{ $to->{cols} };
	$from->{side_writes} = $to->{name};
}

sub table_name
{
	my ($name) = @_;
	return 'o.' . quote_name($name);
}

sub column_sql
{
	my ($table, $col) = @_;
	my $sql = quote_name($col->{name}) . ' ' . type_sql($col->{type});

	$sql .= ' NOT NULL' if $col->{not_null};
	return $sql;
}

sub key_sql
{
	my ($table) = @_;
	return () unless $table->{key};
	my $names = join(', ', map { quote_name($_) } @{ $table->{key} });
	return "UNIQUE ($names)" if $table->{key_kind} eq 'unique';
	return "UNIQUE NULLS NOT DISTINCT ($names)" if $table->{key_kind} eq 'not distinct';
	return "PRIMARY KEY ($names)";
}

# Statements that create a table, empty.
sub table_ddl
{
	my ($table) = @_;
	my %col = map { $_->{name} => $_ } @{ $table->{cols} };
	my @defs = map { column_sql($table, $_) } @{ $table->{cols} };
	my $name = table_name($table->{name});
	my @ddl;

	splice(@defs, 1, 0, 'gone integer') if $table->{dropped};
	push @defs, key_sql($table);
	push @defs, 'FOREIGN KEY (k) REFERENCES ' . table_name($table->{references}) . " ON DELETE $table->{on_delete} ON UPDATE CASCADE"
	  if $table->{references};
	push @ddl, "CREATE TABLE $name (" . join(', ', @defs) . ')'
	  . ($table->{kind} eq 'partitioned' ? ' PARTITION BY RANGE (k)' : '');
	push @ddl, "ALTER TABLE $name DROP COLUMN gone" if $table->{dropped};
	for my $part (@{ $table->{parts} || [] })
	{
		my $part_name = table_name($part->{name});
		my @order = grep { $col{$_} } @{ $part->{order} };

		if ($table->{kind} eq 'inherited')
		{
			push @ddl, "CREATE TABLE $part_name (extra integer) INHERITS ($name)";
		}
		elsif ($part->{attach})
		{
			push @ddl, "CREATE TABLE $part_name (gone text, "
			  . join(', ', map { column_sql($table, $col{$_}) } @order) . ')',
			  "ALTER TABLE $part_name DROP COLUMN gone",
			  "ALTER TABLE $name ATTACH PARTITION $part_name $part->{bound}";
		}
		else
		{
			push @ddl, "CREATE TABLE $part_name PARTITION OF $name $part->{bound}";
		}
	}
	if ($table->{side_writes})
	{
		my $to = table_name($table->{side_writes});
		push @ddl, "CREATE FUNCTION o.side_write() RETURNS trigger LANGUAGE plpgsql AS "
		  . "'BEGIN INSERT INTO $to (k) SELECT count(*) FROM $name; RETURN NULL; END'",
		  "CREATE TRIGGER side_write AFTER INSERT OR DELETE ON $name EXECUTE FUNCTION o.side_write()";
	}
	return @ddl;
}

sub make_row
{
	my ($table) = @_;
	return [ map { row_value($_) } @{ $table->{cols} } ];
}

sub row_value
{
	my ($col) = @_;
	return between(1, is_wide() ? 400 : 18) if $col->{name} eq 'id' && $col->{type} eq 'int4';
	return value($col->{type}, $col->{not_null} ? 0 : undef);
}

# Initial rows must not break the key.
sub unique_rows
{
	my ($table, @rows) = @_;
	return @rows unless $table->{key};
	my @at = grep {
		my $name = $table->{cols}[$_]{name};
		grep { $_ eq $name } @{ $table->{key} }
	} 0 .. $#{ $table->{cols} };
	my (%seen, @kept);

	for my $row (@rows)
	{
		my @key = map { defined $_ ? $_ : 'NULL' } @$row[@at];
		for my $value (@key)
		{
			# What the key's type calls equal: scales of numeric, case of nd text.
			$value = $value + 0 if $table->{key_kind} eq 'numeric' && $value =~ /^-?[0-9.]+$/;
			$value = lc $value;
		}
		push @kept, $row unless $seen{"@key"}++;
	}
	return @kept;
}

# INSERT of raw rows; columns that a shrunk table no longer has are left out.
sub insert_sql
{
	my ($table, $names, $rows, $suffix, $target) = @_;
	my %have = map { $_->{name} => 1 } @{ $table->{cols} };
	my @at = grep { $have{ $names->[$_] } } 0 .. $#$names;
	my $values = join(
		', ',
		map {
			my $row = $_;
			'(' . join(', ', map { quote_sql($row->[$_]) } @at) . ')'
		} @$rows);

	return sprintf('INSERT INTO %s (%s) VALUES %s%s',
		table_name($target || $table->{name}),
		join(', ', map { quote_name($names->[$_]) } @at),
		$values, $suffix ? " $suffix" : '');
}

# Where rows of a table can be written: itself, and sometimes a partition or child.
sub write_targets
{
	my ($table) = @_;
	return ($table->{name}) x 3, map { $_->{name} } @{ $table->{parts} || [] };
}

1;
