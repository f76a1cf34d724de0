# PgtDocs.pm: runs what the documentation shows, and compares it with what it says.
#
# A document is Markdown. Its fenced blocks ```sql are run in their order, in one session of
# psql, in a database of its own. A fenced block ```text that follows a ```sql block is what
# psql prints for it, errors included; a line "..." stands for any lines, and "..." at the
# end of a line for what follows in it. A block that has none must run without an error. Comments in front of a block say what is special:
#
#   <!-- test: skip REASON -->   it is not run
#   <!-- test: until QUERY -->   first wait until the query returns true
#   <!-- test: similar -->       numbers and the widths of columns may differ
package PgtDocs;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run ();
use Test::More;

use PgTrickle ();

our @EXPORT = qw(read_document document_blocks run_document document_section section_of table_rows);

my $mark = '=== block';

sub read_document
{
	my ($path) = @_;
	open my $file, '<:encoding(UTF-8)', $path or die "$path: $!";
	local $/;
	return scalar <$file>;
}

# The ```sql blocks: { line, sql, expected (undef: none), skip, until, similar }.
sub document_blocks
{
	my ($text) = @_;
	my @blocks;
	my ($fence, $body, %directives, $number, $start);

	for my $line (split /\n/, $text)
	{
		$number++;
		if (defined $fence)
		{
			if ($line !~ /^```\s*$/) { $body .= "$line\n"; next; }
			if ($fence eq 'sql')
			{
				push @blocks, { line => $start, sql => $body, %directives };
				%directives = ();
			}
			elsif ($fence eq 'text' && @blocks)
			{
				die "line $start: two results for one block\n" if defined $blocks[-1]{expected};
				$blocks[-1]{expected} = $body;
			}
			undef $fence;
		}
		elsif ($line =~ /^```(\w*)\s*$/) { ($fence, $body, $start) = ($1, '', $number); }
		elsif ($line =~ /^<!-- test: (skip|until|similar)\b\s*(.*?)\s*-->$/)
		{
			$directives{$1} = $2 eq '' ? 1 : $2;
		}
		elsif ($line =~ /^<!--\s*test\b/) { die "line $number: not understood: $line\n"; }
	}
	die "line $start: block without end\n" if defined $fence;
	return @blocks;
}

sub wait_statement
{
	my ($query) = @_;
	my $tries = 20 * $PostgreSQL::Test::Utils::timeout_default;

	return "DO \$pgt_wait\$ BEGIN FOR i IN 1..$tries LOOP\n"
	  . "PERFORM pg_catalog.pg_stat_clear_snapshot(); IF ($query) THEN RETURN; END IF;\n"
	  . "PERFORM pg_catalog.pg_sleep(0.05); END LOOP;\n"
	  . "RAISE EXCEPTION 'timed out waiting for: %', \$pgt_text\$$query\$pgt_text\$; END \$pgt_wait\$;\n";
}

# What psql prints for each block. Errors and results come through one pipe, in their order.
sub run_blocks
{
	my ($node, $dbname, $setup, @blocks) = @_;
	my $script = "$setup\n";
	my ($out, @outputs) = ('');

	for my $i (0 .. $#blocks)
	{
		$script .= wait_statement($blocks[$i]{until}) if $blocks[$i]{until};
		$script .= "\\warn $mark $i\n$blocks[$i]{sql}\\warn $mark end\n";
	}
	utf8::encode($script);
	local $ENV{PGCLIENTENCODING} = 'UTF8';
	IPC::Run::run(
		[ 'psql', '-X', '-q', '-d', $node->connstr($dbname), '-v', 'ON_ERROR_STOP=0' ],
		'<', \$script, '>&', \$out);
	utf8::decode($out);
	while ($out =~ /^\Q$mark\E (\d+)\n(.*?)^\Q$mark\E end$/msg) { $outputs[$1] = $2; }
	if ($out =~ /\A(.*?)^\Q$mark\E/ms and $1 =~ /ERROR/) { show("setup of $dbname: $1"); }
	for my $waited ($out =~ /^\Q$mark\E end\n(.*?)^\Q$mark\E \d/msg) { show($waited) if $waited =~ /ERROR/; }
	return @outputs;
}

sub clean
{
	my ($text, $similar) = @_;

	$text =~ s/[ \t]+$//mg;
	$text =~ s/\n{2,}/\n/g;
	$text =~ s/\A\n+|\n+\z//g;
	if ($similar)
	{
		$text =~ s/\d+/0/g;
		$text =~ s/-{2,}/-/g;
		$text =~ s/[ \t]+/ /g;
		$text =~ s/^ | $//mg;
	}
	return $text;
}

sub matches
{
	my ($expected, $got) = @_;
	my $pattern = '';

	for my $line (split /\n/, $expected)
	{
		if ($line eq '...') { $pattern .= '(?:.*\n)*?'; }
		elsif ($line =~ /^(.*)\.\.\.$/) { $pattern .= quotemeta($1) . '.*\n'; }
		else { $pattern .= quotemeta($line) . '\n'; }
	}

	return "$got\n" =~ /\A$pattern\z/;
}

sub show
{
	my ($text) = @_;
	utf8::encode($text);
	diag($text);
}

# Tests: one for each block.
sub run_document
{
	my ($node, $path, %opt) = @_;
	my @blocks = document_blocks(read_document($path));
	my ($dbname) = $path =~ m{([^/]+)\.md\z};
	my @outputs;

	$dbname = "docs_$dbname";
	$node->safe_psql('postgres', "CREATE DATABASE \"$dbname\"");
	$node->safe_psql($dbname, 'CREATE EXTENSION pg_trickle');
	@outputs = run_blocks($node, $dbname, $opt{setup} // '', map { $_->{skip} ? () : $_ } @blocks);
	for my $block (@blocks)
	{
		my $name = "$path, line $block->{line}";
		my $output;

		if ($block->{skip})
		{
			note("$name is not run: $block->{skip}");
			ok($block->{skip} =~ /\w+ \w+/, "$name has a reason not to be run");
			next;
		}
		$output = shift @outputs;
		if (!defined $output) { fail("$name did not run to its end"); next; }
		if (!defined $block->{expected})
		{
			unlike($output, qr/^(?:ERROR|FATAL|WARNING|PANIC):|^\\|^invalid command/m, "$name runs");
			next;
		}
		my ($expected, $got) = map { clean($_, $block->{similar}) } $block->{expected}, $output;
		ok(matches($expected, $got), "$name prints what it shows")
		  or show("it prints:\n$output\nit shows:\n$block->{expected}");
	}
	return $dbname;
}

# The text under a heading, up to the next one of its rank or above.
sub section_of
{
	my ($text, $heading) = @_;
	my ($rank) = $text =~ /^(#+) \Q$heading\E\s*$/m or return undef;
	my $deeper = '#{1,' . length($rank) . '}';

	return $text =~ /^$rank \Q$heading\E\s*\n(.*?)(?=^$deeper |\z)/ms ? $1 : undef;
}

# The rows of the Markdown tables of a text, each a list of cells; head and rule left out.
sub table_rows
{
	my ($text) = @_;
	my @rows;

	for my $table ($text =~ /((?:^\|.*\n)+)/mg)
	{
		my @lines = split /\n/, $table;

		for my $line (@lines[ 2 .. $#lines ])
		{
			$line =~ s/^\|\s*|\s*\|\s*$//g;
			push @rows, [ map { s/\\\|/|/gr } split /\s*(?<!\\)\|\s*/, $line, -1 ];
		}
	}
	return @rows;
}

1;
