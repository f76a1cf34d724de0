# Oracle::Case: everything a seed makes, as data that can be run, cut and written down.
#
#   { seed, tables, views => [{name, q}], streams => [{name, q, mode, tags}], steps,
#     settings => { session number => [SET ...] },
#     ratio => differential_max_change_ratio, role => 1 if not run by a superuser }
package Oracle::Case;

use strict;
use warnings;

use Exporter 'import';

use Oracle::Random;
use Oracle::Types;
use Oracle::Schema;
use Oracle::Query;
use Oracle::Tree;
use Oracle::History;
use Oracle::Alter;

our @EXPORT = qw(current_query make_case setup_sql insert_step_sql stream_sql);

sub make_case
{
	my ($seed, %opt) = @_;

	srand($seed);
	set_wide(chance(0.1));
	my @tables = make_tables();
	my @relations = map { relation_of_table($_) } @tables;
	my (@views, @streams, @before);

	for my $n (1 .. pick(0, 0, 0, 1, 2))
	{
		my $query = make_view_query(\@relations);
		push @views, { name => "v$n", q => $query };
		push @relations, relation_of_query("v$n", $query, 'view');
	}
	for my $n (1 .. between(1, 4))
	{
		my $name = chance(0.04) ? qq{S "$n} : "s$n";
		push @before, [@relations];
		my ($query, $tags) = make_query(\@relations);
		push @streams,
		  { name => $name, q => $query, tags => $tags, mode => pick_weighted(DIFFERENTIAL => 75, AUTO => 20, FULL => 5) };
		# Each later stream table may read the earlier ones; make that likely.
		push @relations, (relation_of_query($name, $query, 'stream table')) x 2;
	}
	# The last ones may come later, while others write.
	my @names = map { $_->{name} } @streams;
	my $early = chance(0.3) ? between(0, $#names) : scalar @names;
	my $other = make_query_like([ grep { $_->{name} ne $names[-1] } @relations ], $streams[-1]{q});
	my $steps = make_history(\@tables, \@names, $opt{steps} || between(15, 50),
		late => [ @names[ $early .. $#names ] ], last => $names[-1], other_query => $other);
	$_->{late} = 1 for @streams[ $early .. $#streams ];

	my $case = {
		seed => $seed,
		tables => \@tables,
		views => \@views,
		streams => \@streams,
		steps => $steps,
		ratio => pick(1, 1, 1, 0.15),
		role => chance(0.25) ? 1 : 0,
		settings => { map { $_ => [ session_settings() ] } 1 .. 4 }
	};
	add_alterations($case, \@before);
	return $case;
}

# Writers and refreshers that see the world differently.
sub session_settings
{
	my @set;
	push @set, "SET TimeZone = '" . pick('UTC', 'America/New_York', 'Asia/Kathmandu') . "'" if chance(0.4);
	push @set, "SET DateStyle = '" . pick('German', 'SQL, MDY', 'ISO, DMY') . "'" if chance(0.3);
	push @set, 'SET search_path = ' . pick('o', "''", 'public', 'pg_temp, o') if chance(0.4);
	push @set, 'SET extra_float_digits = 0' if chance(0.2);
	push @set, 'SET enable_seqscan = off' if chance(0.1);
	push @set, 'SET enable_hashagg = off' if chance(0.1);
	return @set;
}

sub relation_of_table
{
	my ($table) = @_;
	return {
		name => $table->{name},
		kind => $table->{kind},
		primary => $table->{key} && $table->{key_kind} !~ /^(?:unique|not distinct)$/ ? $table->{key} : undef,
		cols => $table->{cols}
	};
}

sub relation_of_query
{
	my ($name, $query, $kind) = @_;
	return {
		name => $name,
		kind => $kind,
		cols => [ map { +{ name => $_->{as}, type => $_->{type}, st => $_->{st}, ap => $_->{ap} } } query_columns($query) ]
	};
}

# Statements up to the stream tables.
sub setup_sql
{
	my ($case) = @_;
	my @sql = @Oracle::Schema::PREAMBLE;

	for my $table (@{ $case->{tables} })
	{
		my @ddl = table_ddl($table);
		push @sql, grep { !/side_write/ } @ddl;
		push @sql, insert_sql($table, [ map { $_->{name} } @{ $table->{cols} } ], $table->{rows})
		  if @{ $table->{rows} };
	}
	push @sql, grep { /side_write/ } table_ddl($_) for @{ $case->{tables} };
	push @sql, 'CREATE VIEW ' . table_name($_->{name}) . ' AS ' . query_sql($_->{q}) for @{ $case->{views} };
	return @sql;
}

# A stream table may have been given another query.
sub current_query
{
	my ($stream) = @_;
	return $stream->{current} || $stream->{q};
}

sub stream_sql
{
	my ($stream, $mode) = @_;
	my $name = table_name($stream->{name}) =~ s/'/''/gr;
	my $query = query_sql(current_query($stream)) =~ s/'/''/gr;

	return "SELECT pgtrickle.create_stream_table('$name', '$query', schedule => '1h', refresh_mode => '"
	  . ($mode || $stream->{mode}) . "')";
}

# SQL of an insert step; undef if its table is gone or it has no rows.
sub insert_step_sql
{
	my ($case, $step) = @_;
	my ($table) = grep { $_->{name} eq $step->{t} } @{ $case->{tables} };

	return undef unless $table && @{ $step->{rows} };
	return insert_sql($table, $step->{names}, $step->{rows}, $step->{suffix}, $step->{target});
}

1;
