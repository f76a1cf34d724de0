# Corpus::Script: a file for psql as a list of statements, and the queries within these.
package Corpus::Script;

use strict;
use warnings;

# A list of { sql, line, data }; data: the lines after COPY ... FROM stdin. What psql alone
# understands (\d, \if, variables) is left out: a statement that needs it fails, as it may.
sub statements
{
	my ($text) = @_;
	my @statements;
	my ($sql, $start, $depth, $atomic) = ('', 0, 0, 0);
	my $flush = sub {
		my ($end) = @_;

		if ($sql =~ /\S/)
		{
			my $statement = { sql => trim($sql), line => 1 + (substr($text, 0, $start) =~ tr/\n//) };

			if ($sql =~ /^\s*copy\b.*\bfrom\s+stdin/is && $text =~ /\G[^\n]*\n/gc && $text =~ /\G(.*?)^\\\.\n/gcms)
			{
				$statement->{data} = $1;
			}
			push @statements, $statement if length $statement->{sql};
		}
		($sql, $depth, $atomic) = ('', 0, 0);
	};

	pos($text) = 0;
	while (pos($text) < length $text)
	{
		$start = pos($text) if $sql !~ /\S/;
		if ($text =~ /\G--[^\n]*/gc) { }
		elsif ($text =~ m{\G/\*}gc) { skip_comment(\$text); $sql .= ' '; }
		elsif ($text =~ /\G([eE]'(?:[^'\\]|\\.|'')*')/gcs
			|| $text =~ /\G('(?:[^']|'')*')/gc
			|| $text =~ /\G("(?:[^"]|"")*")/gc
			|| $text =~ /\G(\$(\w*)\$.*?\$\2\$)/gcs)
		{
			$sql .= $1;
		}
		elsif ($text =~ /\G\\;/gc) { $flush->(); }
		elsif ($text =~ /\G\\[^\n]*/gc) { $flush->() if $sql =~ /\S/; }
		elsif ($text =~ /\G;/gc)
		{
			if ($depth > 0 || $atomic) { $sql .= ';'; }
			else { $flush->(); }
		}
		elsif ($text =~ /\G([A-Za-z_]\w*)/gc)
		{
			my $word = $1;

			$sql .= $word;
			$atomic = 1 if uc $word eq 'ATOMIC' && $sql =~ /begin\s+atomic\z/i;
			$atomic++ if $atomic && uc $word eq 'CASE';
			$atomic-- if $atomic && uc $word eq 'END';
		}
		elsif ($text =~ /\G([(\[])/gc) { $sql .= $1; $depth++; }
		elsif ($text =~ /\G([)\]])/gc) { $sql .= $1; $depth-- if $depth > 0; }
		else { $text =~ /\G(.)/gcs; $sql .= $1; }
	}
	$flush->();
	return @statements;
}

# Comments nest.
sub skip_comment
{
	my ($text) = @_;
	my $depth = 1;

	while ($depth > 0 && $$text =~ m{\G.*?(/\*|\*/)}gcs)
	{
		$depth += $1 eq '/*' ? 1 : -1;
	}
}

sub trim { return $_[0] =~ s/^\s+|\s+\z//gr }

# The query that a statement runs, explains, or defines something by; undef if there is none.
sub query_of
{
	my ($sql) = @_;

	$sql =~ s/^explain\s*(?:\([^)]*\))?\s*(?:(?:analyze|verbose)\s+)*//i;
	$sql =~ s/^declare\s+\S+\s+.*?\bfor\s+(?=select|with|values|table)//is;
	$sql =~ s/^create\s+(?:or\s+replace\s+)?(?:temp\s+|temporary\s+|unlogged\s+|recursive\s+)*
		(?:view|table|materialized\s+view)\s+\S+\s*(?:\([^)]*\)\s*)?(?:with\s*\([^)]*\)\s*)?as\s+//isx;
	$sql =~ s/\s+with\s+(?:no\s+)?(?:data|(?:local\s+|cascaded\s+)?check\s+option)\z//i;
	return $sql =~ /^\(*\s*(?:select|with|values|table)\b/i ? $sql : undef;
}

1;
