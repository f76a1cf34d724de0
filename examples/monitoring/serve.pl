#!/usr/bin/perl
# serve.pl: a page for Prometheus. Each GET /metrics is one SELECT pgtrickle.metrics() by psql.
#
#   serve.pl [--listen 127.0.0.1:9719] [--psql psql] [--timeout 10] DSN
#
# DSN is what psql -d takes, e.g. 'dbname=shop user=metrics'; PGPASSFILE and its like work.
# One process per database. Answers one request at a time: a database that hangs is given up
# after the timeout, by statement_timeout and by ending psql. Needs nothing but Perl and psql.
use strict;
use warnings;

use Getopt::Long qw(GetOptions);
use IO::Select;
use IO::Socket::INET;

my ($listen, $psql, $timeout) = ('127.0.0.1:9719', 'psql', 10);

GetOptions('listen=s' => \$listen, 'psql=s' => \$psql, 'timeout=i' => \$timeout)
  && @ARGV == 1
  || die "usage: $0 [--listen HOST:PORT] [--psql PATH] [--timeout SECONDS] DSN\n";
my ($dsn) = @ARGV;

my $server = IO::Socket::INET->new(LocalAddr => $listen, Proto => 'tcp', Listen => 8, ReuseAddr => 1)
  or die "could not listen on $listen: $!\n";
$SIG{PIPE} = 'IGNORE';
$SIG{TERM} = $SIG{INT} = sub { exit 0 };
$| = 1;
print 'listening on ', $server->sockhost, ':', $server->sockport, "\n";

while (1)
{
	my $client = $server->accept or next;
	eval { answer($client) };
	warn $@ if $@;
	close $client;
}

sub answer
{
	my ($client) = @_;
	my $head = read_head($client);

	return respond($client, '400 Bad Request', "not HTTP\n") unless $head =~ m{\A([A-Z]+) (\S+) HTTP/1\.[01]\r?\n};
	my ($method, $path) = ($1, $2);
	return respond($client, '405 Method Not Allowed', "GET only\n") if $method ne 'GET';
	return respond($client, '404 Not Found', "see /metrics\n") if $path !~ m{\A/metrics(?:\?|\z)};
	my ($text, $error) = ask_database();
	return respond($client, '503 Service Unavailable', $error) if defined $error;
	return respond($client, '200 OK', $text);
}

# Up to the empty line; a client that says nothing has two seconds.
sub read_head
{
	my ($client) = @_;
	my $select = IO::Select->new($client);
	my $head = '';

	while ($head !~ /\r?\n\r?\n/ && length($head) < 16384)
	{
		$select->can_read(2) && sysread($client, $head, 4096, length $head) or last;
	}
	return $head;
}

sub ask_database
{
	my $text = '';
	local $ENV{PGOPTIONS} = join ' ', grep { defined } $ENV{PGOPTIONS}, "-c statement_timeout=${timeout}s";
	local $ENV{PGCONNECT_TIMEOUT} = $timeout;
	local $ENV{PGCLIENTENCODING} = 'UTF8';
	my $pid = open(my $out, '-|', $psql, '-XAtqw', '-v', 'ON_ERROR_STOP=1', '-d', $dsn, '-c', 'SELECT pgtrickle.metrics()')
	  or return (undef, "could not run $psql: $!\n");
	my $select = IO::Select->new($out);
	my $until = time + $timeout + 1;

	while (1)
	{
		my $left = $until - time;
		if ($left <= 0 || !$select->can_read($left))
		{
			kill 'KILL', $pid;
			close $out;
			return (undef, "the database did not answer within $timeout s\n");
		}
		last unless sysread($out, $text, 65536, length $text);
	}
	# What went wrong stands in this program's own stderr, not on the page.
	close $out or return (undef, "psql failed\n");
	# psql ends the value with a line feed of its own.
	$text =~ s/\n\n\z/\n/;
	return $text;
}

sub respond
{
	my ($client, $status, $body) = @_;
	my $type = $status =~ /^200/ ? 'text/plain; version=0.0.4; charset=utf-8' : 'text/plain; charset=utf-8';

	print {$client} "HTTP/1.1 $status\r\nContent-Type: $type\r\nContent-Length: " . length($body)
	  . "\r\nConnection: close\r\n\r\n$body";
	return;
}
