# PgtDecoder.pm: what the tests of the output plugin share.
#
#   my $node = decoder_node('main');            # no extension: the plugin needs none
#   create_slot($node, 's');
#   $node->safe_psql('postgres', "BEGIN; " . open_refresh('public.st', id => 7) . ...);
#   my @lines = read_slot($node, 's', envelope => 'debezium');   # peeks: texts of the lines
#   my @events = map { event($_) } @lines;      # decoded JSON
#   my @rows = rows(@events);                   # c, u, d, t, r only
#
# open_refresh and close_refresh are SQL statements that write what a refresh writes, laid
# out as include/pgt_wire.h says.
package PgtDecoder;

use strict;
use warnings;

use Exporter 'import';
use Test::More;

use PgTrickle;
use PgtEvents qw(event);

our @EXPORT = qw(
  decoder_node
  create_slot
  drop_slot
  read_slot
  take_slot
  read_error
  event
  events
  rows
  open_refresh
  close_refresh
  emit_bytes
  fnv1a
);

sub decoder_node
{
	my ($name, %opt) = @_;
	return PgTrickle->new_node($name, scheduler => 0, extension => 0, %opt);
}

sub create_slot
{
	my ($node, $slot, %opt) = @_;
	$node->safe_psql($opt{dbname} || 'postgres',
		"SELECT pg_create_logical_replication_slot('$slot', 'pg_trickle_decoder')");
}

sub drop_slot
{
	my ($node, $slot) = @_;
	$node->safe_psql('postgres', "SELECT pg_drop_replication_slot('$slot')");
}

sub option_arguments
{
	my ($options) = @_;
	return join('', map { ", " . literal($_) . ", " . literal($options->{$_}) } sort keys %$options);
}

sub slot_query
{
	my ($function, $slot, %options) = @_;

	delete @options{qw(dbname session)};
	return "SELECT data FROM $function('$slot', NULL, NULL" . option_arguments(\%options) . ")";
}

# The lines that the slot has, leaving them there. Options of the slot by name; session =>
# SQL that runs before in the same session; dbname.
sub read_slot
{
	my ($node, $slot, %options) = @_;
	my $query = slot_query('pg_logical_slot_peek_changes', $slot, %options);

	return split /\n/,
	  $node->safe_psql($options{dbname} || 'postgres', ($options{session} || '') . ";\n" . $query);
}

# The same, consuming them.
sub take_slot
{
	my ($node, $slot, %options) = @_;
	my $query = slot_query('pg_logical_slot_get_changes', $slot, %options);

	return split /\n/, $node->safe_psql($options{dbname} || 'postgres', $query);
}

# The error of reading the slot, with its SQLSTATE, detail, hint and context.
sub read_error
{
	my ($node, $slot, %options) = @_;
	return error_of($node, slot_query('pg_logical_slot_peek_changes', $slot, %options),
		dbname => $options{dbname} || 'postgres');
}

# The lines of a slot as events.
sub events
{
	return map { event($_) } read_slot(@_);
}

sub rows
{
	return grep { $_->{op} =~ /\A[cudtr]\z/ } @_;
}

sub text_bytes
{
	my ($text) = @_;
	return pack('N', length $text) . $text;
}

sub literal
{
	my ($text) = @_;
	$text =~ s/'/''/g;
	return "'$text'";
}

sub emit_bytes
{
	my ($prefix, $bytes, %opt) = @_;
	return sprintf("SELECT pg_logical_emit_message(%s, %s, decode('%s', 'hex'));\n",
		$opt{transactional} // 1 ? 'true' : 'false', literal($prefix), unpack('H*', $bytes));
}

# $table: schema.name, plain. Its oid is looked up by the statement itself.
sub refresh_message
{
	my ($table, $head, $tail) = @_;
	return sprintf(
		"SELECT pg_logical_emit_message(true, 'pg_trickle', decode('%s', 'hex') || int4send(%s::regclass::oid::int4) || decode('%s', 'hex'));\n",
		unpack('H*', $head), literal($table), unpack('H*', $tail));
}

sub open_refresh
{
	my ($table, %opt) = @_;
	my ($schema, $name) = split /\./, $table;

	return refresh_message(
		$table, "\x01O",
		pack('q>q>', $opt{id} // 1, $opt{data_ts} // 1795389790011234)
		  . text_bytes($opt{schema} // $schema)
		  . text_bytes($opt{name} // $name)
		  . text_bytes($opt{mode} // 'DIFFERENTIAL')
		  . text_bytes($opt{frontier} // '10:20:10,15'));
}

sub close_refresh
{
	my ($table, %opt) = @_;
	return refresh_message($table, "\x01C",
		pack('q>q>q>q>', $opt{id} // 1, $opt{ins} // 0, $opt{upd} // 0, $opt{del} // 0));
}

# The hash that schema_id is, as 16 hex digits.
sub fnv1a
{
	my ($bytes) = @_;
	use integer;
	my $hash = -3750763034362895579;    # 0xcbf29ce484222325

	for my $byte (unpack('C*', $bytes))
	{
		$hash ^= $byte;
		$hash *= 1099511628211;    # 0x100000001b3
	}
	return sprintf('%016x', $hash);
}

1;
