# PgtCapture.pm: what the tests of capture share, see capture.sql.
#
#   my $capture = PgtCapture->new($node);
#   $capture->consume('c1', 's', 'id', 'a');      # a consumer of two columns, filled
#   $capture->takes('c1', '2', 'an update');      # two images since, and then it is right
package PgtCapture;

use strict;
use warnings;

use PgTrickle;
use PostgreSQL::Test::Utils;
use Test::More;

sub new
{
	my ($class, $node) = @_;

	$node->safe_psql('postgres', slurp_file('t/lib/capture.sql'));
	return bless { node => $node }, $class;
}

sub sql
{
	my ($self, $sql) = @_;
	return $self->{node}->safe_psql('postgres', $sql);
}

# DDL that nobody hears of, as with event_triggers off (17 on) or a broken extension.
sub sql_without_hooks
{
	my ($self, $sql) = @_;
	my @triggers = split /\n/, $self->sql("SELECT evtname FROM pg_event_trigger WHERE evtname LIKE 'pgt\\_%'");

	$self->sql("ALTER EVENT TRIGGER $_ DISABLE") for @triggers;
	$self->sql($sql);
	$self->sql("ALTER EVENT TRIGGER $_ ENABLE ALWAYS") for @triggers;
}

sub add
{
	my ($self, $name, $relation, @columns) = @_;
	my $list = join ', ', map { "'$_'" } @columns;

	$self->sql("SELECT capture_test.add('$name', '$relation', ARRAY[$list]::text[])");
}

sub consume
{
	my ($self, $name, $relation, @columns) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$self->add($name, $relation, @columns);
	like($self->sql("SELECT capture_test.take('$name')"), qr/^\d+ first$/, "$name is filled");
}

# Reads; compares the number of images (a string, or a pattern) and then the content.
sub takes
{
	my ($self, $name, $expected, $test) = @_;
	my $got = $self->sql("SELECT capture_test.take('$name')");
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	if (ref $expected)
	{
		like($got, $expected, "$test: images");
	}
	else
	{
		is($got, $expected, "$test: images");
	}
	$self->is_right($name, $test);
}

sub is_right
{
	my ($self, $name, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($self->sql("SELECT n, pg_catalog.left(image, 200) FROM capture_test.diff('$name') LIMIT 20"), '', "$test: $name is right");
}

# Statement, images it leaves, for a table of tests.
sub check_all
{
	my ($self, $name, @tests) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	while (my ($sql, $expected) = splice @tests, 0, 2)
	{
		my ($test) = $sql =~ /\A\s*(.*)/;

		$self->sql($sql);
		$self->takes($name, $expected, substr($test, 0, 80));
	}
}

1;
