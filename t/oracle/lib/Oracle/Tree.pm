# Oracle::Tree: a query tree as SQL, and smaller trees for the shrinker.
#
#   select  { k, recursive, with => [{name, names, how, q}], from, where => [e], group => [e],
#             having => [e], window => [{name, e}], distinct, distinct_on => e,
#             cols => [{as, e}], sort => [e], tail }
#   setop   { k, op, arms => [query] }          raw  { k, sql, cols }
#   from    table { name, alias, only }  sub { q, alias, lateral }  cte { name, alias }
#           func { e, names, ordinality, alias }  values { rows => [[e]], names, alias, lateral }
#           join { type, l, r, on => [e], natural, using }   raw { sql }
#   e       { f => 'format with {}', a => [e or query], filter => e }
package Oracle::Tree;

use strict;
use warnings;

use Exporter 'import';
use Storable qw(dclone);

use Oracle::Types;
use Oracle::Schema;

our @EXPORT = qw(query_sql query_columns smaller_queries);

sub query_sql
{
	my ($query) = @_;

	return $query->{sql} if $query->{k} eq 'raw';
	return join(" $query->{op} ", map { '(' . query_sql($_) . ')' } @{ $query->{arms} })
	  if $query->{k} eq 'setop';
	my $sql = '';

	$sql .= 'WITH ' . ($query->{recursive} ? 'RECURSIVE ' : '') . join(', ', map { with_sql($_) } @{ $query->{with} }) . ' '
	  if @{ $query->{with} || [] };
	$sql .= 'SELECT ';
	$sql .= 'DISTINCT ' if $query->{distinct};
	$sql .= 'DISTINCT ON (' . expression_sql($query->{distinct_on}) . ') ' if $query->{distinct_on};
	$sql .= join(', ', map { expression_sql($_->{e}) . " AS $_->{as}" } @{ $query->{cols} });
	$sql .= ' FROM ' . from_sql($query->{from}) if $query->{from};
	$sql .= ' WHERE ' . conjunction($query->{where}) if @{ $query->{where} || [] };
	$sql .= ' GROUP BY ' . join(', ', map { expression_sql($_) } @{ $query->{group} })
	  if @{ $query->{group} || [] };
	$sql .= ' HAVING ' . conjunction($query->{having}) if @{ $query->{having} || [] };
	$sql .= ' WINDOW ' . join(', ', map { "$_->{name} AS (" . expression_sql($_->{e}) . ')' } @{ $query->{window} })
	  if @{ $query->{window} || [] };
	$sql .= ' ORDER BY ' . join(', ', map { expression_sql($_) } @{ $query->{sort} }) if @{ $query->{sort} || [] };
	$sql .= " $query->{tail}" if $query->{tail};
	$sql .= ' ORDER BY 1' if $query->{order};
	return $sql;
}

sub with_sql
{
	my ($with) = @_;
	return $with->{name}
	  . ($with->{names} ? '(' . join(', ', @{ $with->{names} }) . ')' : '') . ' AS '
	  . ($with->{how} || '') . '(' . query_sql($with->{q}) . ')';
}

sub conjunction
{
	my ($list) = @_;
	return join(' AND ', map { expression_sql($_) } @$list);
}

sub expression_sql
{
	my ($e) = @_;
	return query_sql($e) if $e->{k};
	my @args = map { expression_sql($_) } @{ $e->{a} };
	my $sql = $e->{f} =~ s/\{\}/shift @args/ger;

	$sql .= ' FILTER (WHERE ' . expression_sql($e->{filter}) . ')' if $e->{filter};
	return $sql;
}

sub from_sql
{
	my ($from) = @_;
	my $k = $from->{k};

	return $from->{sql} if $k eq 'raw';
	return ($from->{only} ? 'ONLY ' : '') . table_name($from->{name}) . " AS $from->{alias}" if $k eq 'table';
	return "$from->{name} AS $from->{alias}" if $k eq 'cte';
	return ($from->{lateral} ? 'LATERAL ' : '') . '(' . query_sql($from->{q}) . ") AS $from->{alias}" if $k eq 'sub';
	my $names = $from->{names} ? "$from->{alias}(" . join(', ', @{ $from->{names} }) . ')' : '';
	return expression_sql($from->{e}) . ($from->{ordinality} ? ' WITH ORDINALITY' : '') . " AS $names" if $k eq 'func';
	return ($from->{lateral} ? 'LATERAL ' : '') . '(VALUES '
	  . join(', ', map { '(' . join(', ', map { expression_sql($_) } @$_) . ')' } @{ $from->{rows} }) . ") AS $names"
	  if $k eq 'values';
	my $right = from_sql($from->{r});
	my $sql = from_sql($from->{l}) . ($from->{natural} ? ' NATURAL' : '') . " $from->{type} "
	  . ($from->{r}{k} eq 'join' ? "($right)" : $right);
	return $sql if $from->{type} eq 'CROSS JOIN';
	return $sql if $from->{natural};
	return "$sql USING ($from->{using})" if $from->{using};
	return $sql . ' ON ' . (@{ $from->{on} } ? conjunction($from->{on}) : 'true');
}

# Output columns: { as, type, st, ap }.
sub query_columns
{
	my ($query) = @_;

	if ($query->{k} eq 'setop')
	{
		my @arms = map { [ query_columns($_) ] } @{ $query->{arms} };
		return map {
			my $i = $_;
			+{ %{ $arms[0][$i] },
				st => (grep { !$_->[$i] || !$_->[$i]{st} } @arms)
				  || ($query->{op} ne 'UNION ALL' && !is_exact($arms[0][$i]{type})) ? 0 : 1,
				ap => (grep { $_->[$i] && $_->[$i]{ap} } @arms) ? 1 : 0
			}
		} 0 .. $#{ $arms[0] };
	}
	return map {
		+{ as => $_->{as}, type => $_->{e}{type}, st => $_->{e}{st}, ap => $_->{e}{ap} }
	} @{ $query->{cols} };
}

# --- smaller ones ----------------------------------------------------------------------

# Trees with one thing less, the largest cuts first. Many are not valid SQL; the caller
# finds out.
sub smaller_queries
{
	my ($query) = @_;
	my @edits;

	collect($query, [], \@edits);
	return map {
		my ($path, $edit) = @$_;
		my $holder = { q => dclone($query) };
		my $at = \$holder->{q};
		$at = ref $$at eq 'HASH' ? \$$at->{$_} : \$$at->[$_] for @$path;
		$$at = $edit->($$at);
		$holder->{q};
	} sort { @{ $a->[0] } <=> @{ $b->[0] } } @edits;
}

sub collect
{
	my ($node, $path, $edits) = @_;

	if (ref $node eq 'ARRAY')
	{
		collect($node->[$_], [ @$path, $_ ], $edits) for 0 .. $#$node;
		return;
	}
	return unless ref $node eq 'HASH';
	for my $list (grep { ref $node->{$_} eq 'ARRAY' } qw(with where having on group cols arms sort))
	{
		my $least = $list =~ /^(?:cols|arms)$/ ? 2 : 1;
		next if @{ $node->{$list} } < $least;
		for my $i (0 .. $#{ $node->{$list} })
		{
			push @$edits, [ [ @$path, $list ], sub { my @l = @{ $_[0] }; splice(@l, $i, 1); [@l] } ];
		}
	}
	for my $flag (grep { $node->{$_} } qw(distinct distinct_on tail order filter natural using lateral only ordinality))
	{
		push @$edits, [ $path, sub { my %n = %{ $_[0] }; delete $n{$flag}; \%n } ];
	}
	for my $child (grep { ref $node->{$_} eq 'HASH' } qw(l r))
	{
		push @$edits, [ $path, sub { $_[0]{$child} } ];
	}
	push @$edits, [ $path, sub { { %{ $_[0] }, type => 'JOIN' } } ]
	  if defined $node->{k} && $node->{k} eq 'join' && $node->{type} =~ /LEFT|RIGHT|FULL/;
	push @$edits, [ $path, sub { $_[0]{arms}[0] } ], [ $path, sub { $_[0]{arms}[1] } ]
	  if $node->{arms} && @{ $node->{arms} } > 1;
	push @$edits, [ $path, sub { +{ f => 'true', a => [], type => 'bool', st => 1, ap => 0 } } ]
	  if $node->{sublink} && $node->{type} eq 'bool';
	if (defined $node->{f})
	{
		for my $i (grep { !$node->{a}[$_]{k} && @{ $node->{a} } > 0 && !$node->{aggregate} } 0 .. $#{ $node->{a} })
		{
			push @$edits, [ $path, sub { $_[0]{a}[$i] } ]
			  if $node->{a}[$i]{type} eq $node->{type} || $node->{type} eq 'bool';
		}
	}
	collect($node->{$_}, [ @$path, $_ ], $edits)
	  for grep { ref $node->{$_} && $_ ne 'source' } sort keys %$node;
}

1;
