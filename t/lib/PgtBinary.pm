# PgtBinary.pm: reads format=binary of pg_trickle_decoder, from docs/wire-format.md alone.
#
#   my @messages = read_binary($bytes);     # hashes, shaped like the JSON messages
#   my $value = read_value('integer[]', $bytes);
#
# Rows have op, s, seq, commit_lsn, old and new: lists of columns in the order of the schema,
# each undef (NULL), a reference to bytes, or one of the strings unchanged, absent, oversize.
# Dies where the bytes are not what the document says.
package PgtBinary;

use strict;
use warnings;

use Encode;
use Exporter 'import';
use JSON::PP;
use Math::BigInt;

our @EXPORT = qw(read_binary read_value);

my $json = JSON::PP->new->utf8->allow_bignum(0);

# --- bytes ----------------------------------------------------------------------------------

# Takes so many bytes off the front.
sub take
{
	my ($bytes, $len) = @_;

	die sprintf("%d bytes where %d should be\n", length $$bytes, $len) if length $$bytes < $len;
	return substr $$bytes, 0, $len, '';
}

sub u8 { return unpack 'C', take($_[0], 1) }
sub u32 { return unpack 'N', take($_[0], 4) }
sub i16 { return unpack 's>', take($_[0], 2) }
sub i32 { return unpack 'l>', take($_[0], 4) }
sub u64 { return unpack 'Q>', take($_[0], 8) }
sub i64 { return unpack 'q>', take($_[0], 8) }

sub varint
{
	my ($bytes) = @_;
	my ($value, $shift) = (0, 0);

	while (1)
	{
		my $byte = u8($bytes);
		$value |= ($byte & 0x7f) << $shift;
		return unpack 'q', pack 'Q', $value if $byte < 0x80;
		$shift += 7;
		die "a varint of more than ten bytes\n" if $shift > 63;
	}
}

sub text { return decode('UTF-8', take($_[0], varint($_[0])), Encode::FB_CROAK) }

sub lsn
{
	my $value = u64($_[0]);
	return sprintf '%X/%X', $value >> 32, $value & 0xffffffff;
}

# --- messages -------------------------------------------------------------------------------

my %column_mark = (-2 => 'unchanged', -3 => 'absent', -4 => 'oversize');

sub image
{
	my ($body, $count) = @_;
	my @columns;

	for (1 .. $count)
	{
		my $len = i32($body);
		die "a length of $len\n" if $len < -4;
		push @columns, $len >= 0 ? \take($body, $len) : $column_mark{$len};
	}
	return \@columns;
}

sub transaction
{
	my ($body) = @_;
	return (xid => varint($body), commit_lsn => lsn($body), end_lsn => lsn($body), ts => i64($body));
}

sub row
{
	my ($op, $body, $state) = @_;
	my $id = unpack 'H*', take($body, 8);
	my %row = (op => $op, s => $id, seq => varint($body), commit_lsn => $state->{commit_lsn});
	my $schema = $state->{schemas}{$id} or die "a row of schema $id, which nobody has described\n";
	my $images = u8($body);

	$row{t} = $schema->{t};
	$row{old} = image($body, scalar @{ $schema->{columns} }) if $images & 1;
	$row{new} = image($body, scalar @{ $schema->{columns} }) if $images & 2;
	return \%row;
}

my %read = (
	H => sub { my ($body) = @_; return $json->decode(take($body, length $$body)) },
	S => sub {
		my ($body, $state) = @_;
		my $schema = $json->decode(take($body, length $$body));
		return $state->{schemas}{ $schema->{schema_id} } = $schema;
	},
	B => sub {
		my ($body, $state) = @_;
		my %begin = (op => 'begin', transaction($body));
		my $origin = text($body);

		$begin{origin} = $origin if $origin ne '';
		$state->{commit_lsn} = $begin{commit_lsn};
		return \%begin;
	},
	C => sub {
		my ($body) = @_;
		my %commit = (op => 'commit', transaction($body));

		for (1 .. varint($body))
		{
			my ($schema, $table) = (text($body), text($body));
			$commit{rows}{"$schema.$table"} = varint($body);
		}
		return \%commit;
	},
	R => sub {
		my ($body) = @_;
		return { op => 'refresh', phase => 'begin', schema => text($body), table => text($body), id => varint($body), seq => varint($body),
			mode => text($body), frontier => text($body), data_ts => i64($body) };
	},
	E => sub {
		my ($body) = @_;
		return { op => 'refresh', phase => 'end', schema => text($body), table => text($body), id => varint($body), seq => varint($body),
			inserted => varint($body), updated => varint($body), deleted => varint($body) };
	},
	M => sub {
		my ($body) = @_;
		my $flags = u8($body);
		return { op => 'message', transactional => $flags & 1, oversize => $flags & 2 ? 1 : 0, lsn => lsn($body), seq => varint($body),
			prefix => text($body), content => take($body, length $$body) };
	},
	K => sub {
		my ($body) = @_;
		my ($has_time, $lsn, $ts) = (u8($body), lsn($body), i64($body));
		return { op => 'heartbeat', lsn => $lsn, $has_time ? (ts => $ts) : () };
	});

for my $op (qw(c u d t r))
{
	$read{$op} = sub { return row($op, @_) };
}

# $state, if given, keeps schemas from one call to the next, as a session does.
sub read_binary
{
	my ($bytes, $state) = @_;
	my @messages;

	$state //= {};
	while (length $bytes)
	{
		my $tag = take(\$bytes, 1);
		next if $tag eq "\n";    # pg_recvlogical writes one after each message
		my $body = take(\$bytes, u32(\$bytes));
		my $reader = $read{$tag} or next;
		push @messages, $reader->(\$body, $state);
		die sprintf("%d bytes left of a message %s\n", length $body, $tag) if length $body;
	}
	return @messages;
}

# --- values ---------------------------------------------------------------------------------

sub float { return unpack $_[0], $_[1] }

# The digits of a numeric, as its output function writes them.
sub numeric
{
	my ($bytes) = @_;
	my ($count, $weight, $sign, $scale) = (i16(\$bytes), i16(\$bytes), unpack('n', take(\$bytes, 2)), i16(\$bytes));
	my %special = (0xC000 => 'NaN', 0xD000 => 'Infinity', 0xF000 => '-Infinity');

	return $special{$sign} if $special{$sign};
	my @digits = map { i16(\$bytes) } 1 .. $count;
	my $whole = join '', map { sprintf '%04d', $_ >= 0 && $_ < @digits ? $digits[$_] : 0 } 0 .. $weight;
	my $fraction = join '', map { sprintf '%04d', $_ >= 0 && $_ < @digits ? $digits[$_] : 0 } $weight + 1 .. $weight + 1 + int(($scale + 3) / 4);
	$whole =~ s/\A0+(?=\d)//;
	$whole = '0' if $whole eq '';
	return ($sign == 0x4000 ? '-' : '') . $whole . ($scale > 0 ? '.' . substr($fraction . '0' x $scale, 0, $scale) : '');
}

# Plain types: from their bytes to what SQL shows, for those that have a simple form.
my %plain = (
	'boolean' => sub { return unpack('C', $_[0]) ? 't' : 'f' },
	'smallint' => sub { return unpack 's>', $_[0] },
	'integer' => sub { return unpack 'l>', $_[0] },
	'bigint' => sub { return unpack 'q>', $_[0] },
	'oid' => sub { return unpack 'N', $_[0] },
	'real' => sub { return float('f>', $_[0]) },
	'double precision' => sub { return float('d>', $_[0]) },
	'numeric' => \&numeric,
	'date' => sub { return unpack 'l>', $_[0] },    # days since 2000-01-01
	'bytea' => sub { return '\x' . unpack 'H*', $_[0] },
	'uuid' => sub { return join '-', unpack 'H8 H4 H4 H4 H12', $_[0] },
	'jsonb' => sub { my ($bytes) = @_; die "jsonb version\n" if u8(\$bytes) != 1; return decode('UTF-8', $bytes, Encode::FB_CROAK) });

for my $type ('time without time zone', 'timestamp without time zone', 'timestamp with time zone')
{
	$plain{$type} = sub { return unpack 'q>', $_[0] };    # microseconds of the day, since 2000-01-01
}

# What arrays and composite values name by number: types that every server has.
my %type_of_oid = (16 => 'boolean', 17 => 'bytea', 20 => 'bigint', 21 => 'smallint', 23 => 'integer', 26 => 'oid', 700 => 'real', 701 => 'double precision',
	1082 => 'date', 1114 => 'timestamp without time zone', 1184 => 'timestamp with time zone', 1700 => 'numeric', 2950 => 'uuid', 3802 => 'jsonb');

# As nested lists for arrays, [ [oid, value] ... ] for composite types; text for all that is not known.
sub read_value
{
	my ($type, $bytes, $fields) = @_;

	return undef if !defined $bytes;
	if ($type =~ s/\[\]\z//)
	{
		my ($dimensions, undef, $oid) = (i32(\$bytes), i32(\$bytes), u32(\$bytes));
		$type = $type_of_oid{$oid} // $type;
		my @dims = map { [ i32(\$bytes), i32(\$bytes) ] } 1 .. $dimensions;
		my $read;
		$read = sub {
			my ($depth) = @_;
			return [ map { $depth < $#dims ? $read->($depth + 1) : part(\$bytes, $type, $fields) } 1 .. $dims[$depth][0] ];
		};
		my $array = $dimensions ? $read->(0) : [];
		die "bytes left of an array\n" if length $bytes;
		return $array;
	}
	if ($fields)
	{
		my $count = i32(\$bytes);
		die "fields\n" if $count != @$fields;
		my %record = map { my $oid = u32(\$bytes); ($_->{name} => part(\$bytes, $type_of_oid{$oid} // $_->{base} // $_->{type}, $_->{fields})) } @$fields;
		die "bytes left of a composite value\n" if length $bytes;
		return \%record;
	}
	my $reader = $plain{ $type =~ s/\(.*?\)//r };
	return $reader ? $reader->($bytes) : decode('UTF-8', $bytes, Encode::FB_CROAK);
}

sub part
{
	my ($bytes, $type, $fields) = @_;
	my $len = i32($bytes);

	return $len < 0 ? undef : read_value($type, take($bytes, $len), $fields);
}

1;
