# Oracle::Types: the column types, their values and what can be done with them.
#
#   sql       how the type is written
#   values    raw values, as COPY would read them; small domains, so that rows meet
#   exact     equal values always have the same image (1.0 and 1.00 have not)
#   key       has equality and an order, so it can be grouped, joined, made distinct
#   sum       sum() and avg() exist
package Oracle::Types;

use strict;
use warnings;

use Exporter 'import';

use Oracle::Random;

our @EXPORT = qw(%TYPE set_wide is_wide type_names value literal quote_sql quote_name is_exact is_key type_sql);

# Stands for a text that is stored out of line; the database makes it (Schema.pm).
our $LONG = 'long text';

our %TYPE = (
	int4 => {
		sql => 'integer',
		values => [ -2, 0, 0, 1, 1, 2, 2, 3, 4, 5 ],
		exact => 1, key => 1, sum => 1, weight => 8
	},
	int8 => {
		sql => 'bigint',
		values => [ 0, 1, 2, 3, '9223372036854775807', '-9223372036854775808' ],
		exact => 1, key => 1, sum => 1, weight => 3
	},
	numeric => {
		sql => 'numeric',
		values =>
		  [ '0', '0.0', '1', '1.0', '1.00', '2.50', '2.5', '-3.125', '1.2345', '5', 'NaN', 'Infinity', '-Infinity' ],
		key => 1, sum => 1, weight => 5
	},
	money2 => {
		sql => 'numeric(10,2)',
		values => [ '0.00', '1.00', '1.25', '10.50', '-3.10', '99999.99' ],
		exact => 1, key => 1, sum => 1, weight => 3
	},
	float8 => {
		sql => 'double precision',
		values => [ '0', '-0', '0.25', '1.5', '-2.75', '100', '1e20', 'NaN', 'Infinity' ],
		key => 1, weight => 3
	},
	text => {
		sql => 'text',
		values => [ '', 'a', 'A', 'b', "it's", 'x y', '%', 'null', $LONG ],
		exact => 1, key => 1, weight => 6
	},
	ndtext => {
		sql => 'text COLLATE o.nd',
		values => [ '', 'a', 'A', 'b', 'B', 'c' ],
		key => 1, weight => 2
	},
	timestamptz => {
		sql => 'timestamptz',
		values => [
			'2024-01-01 00:00:00+00', '2024-01-01 12:30:00.123456+00', '2024-03-31 01:30:00+00',
			'2024-10-27 00:30:00+00', 'infinity'
		],
		exact => 1, key => 1, weight => 2
	},
	date => {
		sql => 'date',
		values => [ '2024-01-01', '2024-02-29', '1999-12-31' ],
		exact => 1, key => 1, weight => 2
	},
	interval => {
		sql => 'interval',
		values => [ '1 day', '24:00:00', '1 mon', '30 days', '00:00:00', '-1 day' ],
		key => 1, sum => 1, weight => 1
	},
	bool => {
		sql => 'boolean',
		values => [ 't', 't', 'f' ],
		exact => 1, key => 1, weight => 2
	},
	intarray => {
		sql => 'integer[]',
		values => [ '{}', '{1}', '{1,2}', '{NULL}', '{2,1}' ],
		exact => 1, key => 1, weight => 1
	},
	json => {
		sql => 'json',
		values => [ '{"a":1}', '{"a": 1}', '[]', 'null', '"x"' ],
		weight => 1
	},
	jsonb => {
		sql => 'jsonb',
		values => [ '{"a":1}', '{"a":1.0}', '[]', 'null', '{"b":[1,2]}' ],
		key => 1, weight => 1
	},
	mood => {
		sql => 'o.mood',
		values => [ 'sad', 'ok', 'happy' ],
		exact => 1, key => 1, weight => 1
	},
	pair => {
		sql => 'o.pair',
		values => [ '(1,a)', '(1,)', '(,b)', '(,)', '(2,a)' ],
		exact => 1, key => 1, weight => 1
	});

# Types that only queries make: arrays and json of aggregates, vectors of text.
my %MADE = (
	textarray => { sql => 'text[]', exact => 1, key => 1 },
	timestamp => { sql => 'timestamp', exact => 1, key => 1 },
	row => { sql => 'record', exact => 1 });

# Wide cases have many rows and keys that meet rarely; plans for large deltas need them.
my $wide = 0;
sub set_wide { $wide = $_[0] }
sub is_wide { return $wide }

sub type_names
{
	return map { $_ => $TYPE{$_}{weight} } sort keys %TYPE;
}

sub info
{
	my ($type) = @_;
	return $TYPE{$type} || $MADE{$type} || die "no type $type";
}

sub is_exact { return info($_[0])->{exact} }
sub is_key { return info($_[0])->{key} }
sub type_sql { return info($_[0])->{sql} }

# A raw value, undef for NULL.
sub value
{
	my ($type, $null) = @_;
	$null = 0.15 unless defined $null;
	return undef if chance($null);
	return between(0, 150) if $wide && $type eq 'int4';
	return pick(@{ info($type)->{values} });
}

sub quote_sql
{
	my ($raw) = @_;
	return 'NULL' unless defined $raw;
	return 'o.long_text()' if $raw eq $LONG;
	$raw =~ s/'/''/g;
	return "'$raw'";
}

sub quote_name
{
	my ($name) = @_;
	return $name if $name =~ /\A[a-z_][a-z0-9_]*\z/ && $name ne 'order';
	$name =~ s/"/""/g;
	return qq{"$name"};
}

# A literal of the type, for expressions.
sub literal
{
	my ($type, $null) = @_;
	my $sql = info($type)->{sql};
	return "(NULL::$sql)" unless info($type)->{values};
	my $raw = value($type, defined $null ? $null : 0.05);

	return "('a'::text COLLATE o.nd)" if $type eq 'ndtext' && !defined $raw;
	return '(' . quote_sql($raw) . '::text COLLATE o.nd)' if $type eq 'ndtext';
	return '(' . quote_sql($raw) . "::$sql)";
}

1;
