# Oracle::Query: random queries as trees, which Oracle::Tree writes as SQL and cuts.
#
# A column of a scope and an expression carry a type and three flags:
#
#   st    the image is determined by the data: not so for a group key 1.0/1.00, whose
#         representative is arbitrary in PostgreSQL, too. Such values are compared with =
#         only, and not fed to what tells images apart.
#   ap    a float that depends on the order of summation: compared with a tolerance, not
#         computed with any further
#   nest  an expression (hash) of Oracle::Tree: { f => 'format with {}', a => [...] }
package Oracle::Query;

use strict;
use warnings;

use Exporter 'import';

use Oracle::Random;
use Oracle::Types;
use Oracle::Schema;
use Oracle::Tree;

our @EXPORT = qw(make_query make_query_like make_view_query);

my %tags;		# constructs used by the query being made
my $alias;
my $sources;	# what a leaf can be: [{ name, cols, key, kind }]

sub make_query
{
	my ($relations, %opt) = @_;

	%tags = ();
	$alias = 0;
	$sources = $relations;
	my $query =
	    chance(0.07) ? make_full_only()
	  : chance(0.12) ? make_union(2)
	  :                make_select(2);
	my ($first) = query_columns($query);
	$query->{order} = 1 if chance(0.04) && !$query->{tail} && is_key($first->{type});
	return ($query, [ sort keys %tags ]);
}

# Another query with the columns of one, for ALTER.
sub make_query_like
{
	my ($relations, $query) = @_;

	%tags = ();
	$alias = 0;
	$sources = $relations;
	return make_select(1, [ map { $_->{type} } query_columns($query) ]);
}

sub make_view_query
{
	my ($relations) = @_;
	my ($query) = do {
		%tags = ();
		$alias = 0;
		$sources = $relations;
		chance(0.2) ? make_union(0) : make_select(0);
	};
	return $query;
}

sub expression
{
	my ($type, $format, @args) = @_;
	my $st = 1;
	my $ap = 0;

	for my $arg (@args)
	{
		$st = 0 unless $arg->{st};
		$ap = 1 if $arg->{ap};
	}
	return { type => $type, f => $format, a => \@args, st => $st, ap => $ap };
}

# --- FROM ----------------------------------------------------------------------------

sub make_leaf
{
	my ($depth, $with) = @_;
	my $name = 'a' . ++$alias;

	if ($depth > 0 && chance(0.22))
	{
		my $query = chance(0.2) ? make_union($depth - 1) : make_select($depth - 1);
		$tags{'subquery in FROM'} = 1;
		return ({ k => 'sub', q => $query, alias => $name }, scope_of_query($name, $query));
	}
	if ($with && @$with && chance(0.6))
	{
		my $cte = pick(@$with);
		$tags{ $cte->{used}++ ? 'CTE used twice' : 'CTE' } = 1;
		return ({ k => 'cte', name => $cte->{name}, alias => $name },
			scope_of_query($name, $cte->{q}));
	}
	my $source = pick(@$sources);
	my @scope = map {
		+{ type => $_->{type},
			f => "$name." . quote_name($_->{name}),
			a => [],
			st => defined $_->{st} ? $_->{st} : 1,
			ap => $_->{ap} || 0,
			column => $_->{name}
		}
	} @{ $source->{cols} };

	$tags{"from $source->{kind}"} = 1 if $source->{kind} ne 'plain';
	return ({ k => 'table', name => $source->{name}, alias => $name, source => $source }, \@scope);
}

sub scope_of_query
{
	my ($name, $query) = @_;
	return [
		map { +{ type => $_->{e}{type}, f => "$name.$_->{as}", a => [], st => $_->{e}{st}, ap => $_->{e}{ap} } }
		  @{ output_of($query) }
	];
}

# Columns of a query: of the first arm, with flags of all arms.
sub output_of
{
	my ($query) = @_;
	return $query->{cols} if $query->{k} eq 'select';
	my @arms = map { output_of($_) } @{ $query->{arms} };

	return [
		map {
			my $i = $_;
			my %e = %{ $arms[0][$i]{e} };
			$e{st} = 0 if grep { !$_->[$i]{e}{st} } @arms;
			$e{ap} = 1 if grep { $_->[$i]{e}{ap} } @arms;
			+{ as => $arms[0][$i]{as}, e => \%e }
		} 0 .. $#{ $arms[0] }
	];
}

sub make_from
{
	my ($depth, $with) = @_;
	my $n = is_wide() ? pick_weighted(1 => 30, 2 => 50, 3 => 10) : pick_weighted(1 => 35, 2 => 40, 3 => 20, 4 => 5);
	my ($from, $scope) = make_leaf($depth, $with);
	my ($first, $same) = ($from, 1);

	for (2 .. $n)
	{
		my ($right, $right_scope) = make_leaf($depth, $with);

		$tags{'self join'} = 1
		  if $right->{k} eq 'table' && $first->{k} eq 'table' && $right->{name} eq $first->{name};
		# Now and then the right side is a join of its own: a LEFT JOIN (b JOIN c).
		if (chance(0.12))
		{
			my ($other, $other_scope) = make_leaf($depth, $with);
			($right, $right_scope) = make_join($right, $right_scope, $other, $other_scope);
			$tags{'nested join'} = 1;
		}
		($from, $scope) = make_join($from, $scope, $right, $right_scope);
	}
	return ($from, $scope);
}

sub make_join
{
	my ($left, $left_scope, $right, $right_scope) = @_;
	my $type = pick_weighted(JOIN => 50, 'LEFT JOIN' => 22, 'RIGHT JOIN' => 7, 'FULL JOIN' => 12, 'CROSS JOIN' => 5);
	my $join = { k => 'join', type => $type, l => $left, r => $right, on => [] };

	# Cross joins only of plain tables: their size is the product.
	if ($type eq 'CROSS JOIN' && (is_wide() || $left->{k} ne 'table' || $right->{k} ne 'table'))
	{
		$type = $join->{type} = 'JOIN';
	}
	if ($type ne 'CROSS JOIN')
	{
		my @pairs = joinable($left_scope, $right_scope);

		if (!@pairs)
		{
			$join->{type} = $type = $type eq 'FULL JOIN' ? 'LEFT JOIN' : $type;
			push @{ $join->{on} }, predicate([ @$left_scope, @$right_scope ], 1);
		}
		else
		{
			my $pair = pick(@pairs);
			push @{ $join->{on} }, equality(@$pair, $type);
			push @{ $join->{on} }, equality(@{ pick(@pairs) }, $type) if chance(0.25);
		}
		if ($type ne 'FULL JOIN' && chance(0.2))
		{
			$tags{'ON with more than equality'} = 1;
			push @{ $join->{on} }, predicate([ @$left_scope, @$right_scope ], 1);
		}
	}
	$tags{ lc $type } = 1;
	return ($join, [ @$left_scope, @$right_scope ]);
}

# Pairs of columns of one type; the integers twice, they match more often.
sub joinable
{
	my ($left, $right) = @_;
	my @pairs;

	for my $l (@$left)
	{
		for my $r (@$right)
		{
			next if $l->{type} ne $r->{type} || !is_key($l->{type}) || $l->{ap} || $r->{ap};
			push @pairs, ([ $l, $r ]) x ($l->{type} eq 'int4' ? 5 : 1);
		}
	}
	return @pairs;
}

sub equality
{
	my ($left, $right, $type) = @_;

	if ($left->{type} eq 'int4' && chance(0.1))
	{
		$tags{'expression join key'} = 1;
		return expression('bool', '{} = {} + 1', $left, $right);
	}
	if ($left->{type} eq 'int4' && $type eq 'JOIN' && chance(0.06))
	{
		return expression('bool', pick('{} < {}', '{} IS NOT DISTINCT FROM {}'), $left, $right);
	}
	return expression('bool', '{} = {}', $left, $right);
}

# --- expressions ---------------------------------------------------------------------

# Columns of the scope that may be computed with.
sub usable
{
	my ($scope, $type, $stable) = @_;
	return grep { $_->{type} eq $type && !$_->{ap} && (!$stable || $_->{st}) } @$scope;
}

sub value_of
{
	my ($scope, $type, $depth, $stable) = @_;
	my @columns = usable($scope, $type, $stable);

	if ($depth > 0 && chance(0.3))
	{
		my $made = operation($scope, $type, $depth - 1, $stable);
		return $made if $made;
	}
	return pick(@columns) if @columns && chance(0.92);
	return expression($type, literal_text($type));
}

# Literals stand in a format, so they must not contain its marker.
sub literal_text
{
	my ($type) = @_;
	return literal($type) =~ s/\{\}/{ }/gr;
}

sub operation
{
	my ($scope, $type, $depth, $stable) = @_;
	my $again = sub { value_of($scope, $_[0], $depth, defined $_[1] ? $_[1] : $stable) };

	if (chance(0.15))
	{
		$tags{'CASE'} = 1;
		return expression($type, 'CASE WHEN {} THEN {} ELSE {} END',
			predicate($scope, $depth), $again->($type), $again->($type));
	}
	return expression($type, 'coalesce({}, {})', $again->($type), $again->($type)) if chance(0.15);
	return expression('int4', pick('({} + {})', '({} - {})'), $again->('int4'), $again->('int4'))
	  if $type eq 'int4' && chance(0.6);
	return expression('int4', pick('o.twice({})', '(- {})', '({} % 3)'), $again->('int4')) if $type eq 'int4' && chance(0.5);
	return expression('int4', 'length({})', $again->('text', 1)) if $type eq 'int4';
	return expression('int8', '({})::int8', $again->('int4')) if $type eq 'int8';
	return expression('numeric', pick('({} + {})', '({} * {})'), $again->('numeric'), $again->('numeric'))
	  if $type eq 'numeric' && chance(0.6);
	return expression('numeric', '({})::numeric', $again->('int4')) if $type eq 'numeric';
	return expression('text', '({} || {})', $again->('text', 1), $again->('text', 1))
	  if $type eq 'text' && chance(0.5);
	return expression('text', pick('lower({})', 'substr({}, 1, 1)'), $again->('text', 1)) if $type eq 'text' && chance(0.6);
	return expression('text', '({})::text', $again->('int4', 1)) if $type eq 'text';
	return predicate($scope, $depth) if $type eq 'bool';
	return expression('date', q{({} AT TIME ZONE 'UTC')::date}, $again->('timestamptz'))
	  if $type eq 'date';
	return undef;
}

sub predicate
{
	my ($scope, $depth) = @_;

	if ($depth > 0 && chance(0.25))
	{
		return expression('bool', pick('({} AND {})', '({} OR {})', '({} OR {})', '({} OR {})'),
			predicate($scope, $depth - 1), predicate($scope, $depth - 1));
	}
	return expression('bool', '(NOT {})', predicate($scope, $depth - 1)) if $depth > 0 && chance(0.1);
	my @columns = grep { !$_->{ap} && is_key($_->{type}) } @$scope;

	return expression('bool', pick('true', 'false', 'NULL::boolean')) unless @columns;
	my $column = pick(@columns);
	my $type = $column->{type};

	return expression('bool', pick('({} IS NULL)', '({} IS NOT NULL)', '({} IS NOT NULL)'), pick(@$scope)) if chance(0.12);
	return $column if $type eq 'bool' && chance(0.6);
	return expression('bool', "{} LIKE 'a%'", $column) if $type eq 'text' && chance(0.2);
	return expression('bool', pick('{} IN (1, 2, 3)', '{} NOT IN (0, NULL)', '{} NOT IN (0, 7)', '{} BETWEEN 1 AND 3', '{} = ANY (ARRAY[1, 4])'), $column)
	  if $type eq 'int4' && chance(0.3);
	my $other = chance(0.35) ? value_of($scope, $type, $depth > 0 ? 1 : 0) : expression($type, literal_text($type));
	$other = expression($type, literal_text($type)) if $other->{f} eq $column->{f};
	return expression('bool', '({} ' . pick('=', '<>', '<>', '<', '<=', '<=', '>', '>=', '>=') . ' {})', $column, $other)
	  if $type ne 'jsonb' || chance(0.5);
	return expression('bool', '({} = {})', $column, $other);
}

# --- aggregates ----------------------------------------------------------------------

# [weight, input type, result type, format, flags]; image = the input must be stable.
my @AGGREGATES = (
	[ 12, undef, 'int8', 'count(*)' ],
	[ 5, 'any', 'int8', 'count({})' ],
	[ 9, 'int4', 'int8', 'sum({})' ],
	[ 3, 'int8', 'numeric', 'sum({})' ],
	[ 6, 'numeric', 'numeric', 'sum({})' ],
	[ 3, 'money2', 'numeric', 'sum({})' ],
	[ 3, 'int4', 'numeric', 'avg({})' ],
	[ 3, 'numeric', 'numeric', 'avg({})' ],
	[ 1, 'interval', 'interval', 'sum({})' ],
	[ 1, 'interval', 'interval', 'avg({})' ],
	[ 2, 'float8', 'float8', 'sum({})', 'ap' ],
	[ 2, 'float8', 'float8', 'avg({})', 'ap' ],
	[ 1, 'float8', 'float8', 'stddev({})', 'ap' ],
	[ 2, 'int4', 'numeric', 'stddev({})' ],
	[ 2, 'int4', 'numeric', 'var_pop({})' ],
	[ 1, 'numeric', 'numeric', 'stddev_pop({})' ],
	[ 5, 'int4', 'int4', 'max({})' ],
	[ 5, 'int4', 'int4', 'min({})' ],
	[ 2, 'numeric', 'numeric', 'max({})', 'unstable' ],
	[ 2, 'text', 'text', 'min({})' ],
	[ 1, 'ndtext', 'ndtext', 'max({})', 'unstable' ],
	[ 1, 'timestamptz', 'timestamptz', 'max({})' ],
	[ 1, 'float8', 'float8', 'min({})', 'unstable' ],
	[ 3, 'bool', 'bool', 'bool_and({})' ],
	[ 2, 'bool', 'bool', 'bool_or({})' ],
	[ 3, 'text', 'text', q{string_agg({}, ',' ORDER BY {})}, 'image' ],
	[ 3, 'int4', 'intarray', 'array_agg({} ORDER BY {})' ],
	[ 1, 'int4', 'json', 'json_agg({} ORDER BY {} DESC)' ],
	[ 3, 'int4', 'int8', 'count(DISTINCT {})' ],
	[ 1, 'text', 'int8', 'count(DISTINCT {})' ],
	[ 1, 'ndtext', 'int8', 'count(DISTINCT {})' ],
	[ 1, 'int4', 'int8', 'sum(DISTINCT {})' ],
	[ 2, 'int4', 'int4', 'o.total({})' ],
	[ 2, 'int4', 'int4', 'o.moving_total({})' ],
	[ 1, 'int4', 'float8', 'percentile_cont(0.5) WITHIN GROUP (ORDER BY {})', 'ap' ],
	[ 1, 'int4', 'int4', 'mode() WITHIN GROUP (ORDER BY {})' ],
	[ 1, 'int4', 'int4', 'bit_or({})' ],
	[ 1, 'int4', 'numeric', 'sum(CASE WHEN {} > 1 THEN {} ELSE 0 END)::numeric' ],);

sub aggregate
{
	my ($scope, $want) = @_;
	my @choice = grep { !defined $want || $_->[2] eq $want } @AGGREGATES;

	for (1 .. 8)
	{
		last unless @choice;
		my $index = pick_weighted(map { $_ => $choice[$_][0] } 0 .. $#choice);
		my ($weight, $in, $out, $format, $flag) = @{ $choice[$index] };
		$flag ||= '';
		my $made = aggregate_call($scope, $in, $out, $format, $flag);
		return $made if $made;
	}
	return defined $want ? expression($want, literal_text($want)) : aggregate_call($scope, undef, 'int8', 'count(*)', '');
}

sub aggregate_call
{
	my ($scope, $in, $out, $format, $flag) = @_;
	my @args;

	if (defined $in && $in eq 'any')
	{
		my @columns = grep { !$_->{ap} } @$scope;
		return undef unless @columns;
		@args = (pick(@columns));
	}
	elsif (defined $in)
	{
		my $image = $flag eq 'image';
		return undef unless usable($scope, $in, $image) || ($in eq 'int4' && chance(0.5));
		my $arg = value_of($scope, $in, 1, $image);
		my $slots = () = $format =~ /\{\}/g;
		@args = ($arg) x $slots;
	}
	my ($name) = $format =~ /^([\w.]+)/;
	my $tag = $format =~ /DISTINCT/ ? "$name(DISTINCT)" : $format =~ /CASE/ ? 'sum(CASE)' : $name;
	$tag .= '(float)' if defined $in && $in eq 'float8';
	$tags{$tag} = 1;
	my $made = expression($out, $format, @args);
	$made->{aggregate} = 1;
	$made->{ap} = 1 if $flag eq 'ap';
	$made->{st} = 0 if $flag eq 'unstable';
	$made->{st} = 1 if $format =~ /^count/ || (@args && $made->{st} == 0 && $format =~ /^bool_/);
	if (chance(0.15) && $format !~ /::/)
	{
		$tags{'FILTER'} = 1;
		$made = { %$made, filter => predicate($scope, 1) };
	}
	return $made;
}

# --- SELECT --------------------------------------------------------------------------

# signature: types that the columns must have (arms of a set operation).
sub make_select
{
	my ($depth, $signature) = @_;
	my $query = { k => 'select', where => [], with => [], having => [] };

	if ($depth > 1 && chance(0.13))
	{
		push @{ $query->{with} }, map { +{ name => 'w' . ++$alias, q => make_select(0), used => 0 } } 1 .. between(1, 2);
	}
	my ($from, $scope) = make_from($depth, $query->{with});
	my $shape = pick_weighted(plain => 42, group => 38, one => 8, distinct => 12);

	$query->{from} = $from;
	for my $i (0 .. 1)
	{
		push @{ $query->{where} }, predicate($scope, 1) if chance($i ? 0.08 : 0.35);
	}
	$tags{WHERE} = 1 if @{ $query->{where} };
	$shape = 'plain' if $signature && $shape eq 'group' && chance(0.5);
	if ($shape eq 'group')
	{
		fill_group($query, $scope, $signature);
	}
	elsif ($shape eq 'one')
	{
		$tags{'aggregate without GROUP BY'} = 1;
		$query->{cols} =
		  $signature
		  ? [ map { aggregate($scope, $_) } @$signature ]
		  : [ map { aggregate($scope) } 1 .. between(1, 3) ];
		$query->{one} = 1;
		add_having($query, $scope) if chance(0.15);
	}
	else
	{
		fill_plain($query, $scope, $shape, $signature);
	}
	name_columns($query);
	return $query;
}

sub name_columns
{
	my ($query) = @_;
	my $n = 0;
	$query->{cols} = [ map { +{ as => 'c' . ++$n, e => $_ } } @{ $query->{cols} } ];
}

sub fill_plain
{
	my ($query, $scope, $shape, $signature) = @_;
	my @cols;

	if ($signature)
	{
		@cols = map { value_of($scope, $_, 1) } @$signature;
		$shape = 'plain' if grep { !is_key($_) } @$signature;
	}
	else
	{
		my @from = grep { $shape ne 'distinct' || (is_key($_->{type}) && !$_->{ap}) } @$scope;
		@cols = pick_some(between(1, 4), @from);
		@cols = (expression('int4', '1')) unless @cols;
		push @cols, value_of($scope, pick(qw(int4 int4 numeric text bool)), 2) if chance(0.4);
	}
	if ($shape eq 'distinct' && !grep { !is_key($_->{type}) || $_->{ap} } @cols)
	{
		$tags{'DISTINCT'} = 1;
		$query->{distinct} = 1;
		# Which of the equal rows is shown is arbitrary.
		@cols = map { is_exact($_->{type}) ? $_ : { %$_, st => 0 } } @cols;
	}
	$query->{cols} = \@cols;
}

sub fill_group
{
	my ($query, $scope, $signature) = @_;
	my @columns = grep { is_key($_->{type}) && !$_->{ap} } @$scope;
	my @keys = pick_some(pick_weighted(1 => 6, 2 => 3, 3 => 1), @columns);
	my @cols;

	@keys = (expression('int4', '1')) unless @keys;
	if (chance(0.2))
	{
		$tags{'GROUP BY expression'} = 1;
		$keys[0] = value_of($scope, pick(qw(int4 text bool)), 2);
	}
	# A constant in GROUP BY is a position; no key is a constant.
	@keys = map { @{ $_->{a} } || $_->{f} =~ /^a\d+\./ ? $_ : expression($_->{type}, "coalesce($_->{f}, NULL)") } @keys;
	$tags{'GROUP BY'} = 1;
	my @shown = map { is_exact($_->{type}) ? $_ : { %$_, st => 0 } } @keys;

	if ($signature)
	{
		for my $type (@$signature)
		{
			my ($key) = grep { $_->{type} eq $type } @shown;
			push @cols, $key && chance(0.6) ? $key : aggregate($scope, $type);
		}
	}
	else
	{
		@cols = @shown;
		if (@cols > 1 && chance(0.12))
		{
			$tags{'GROUP BY key not shown'} = 1;
			shift @cols;
		}
		push @cols, map { aggregate($scope) } 1 .. between(0, 3);
		push @cols, combined($scope) if chance(0.15);
		push @cols, dependent_column($query, $scope, \@keys);
	}
	$query->{group} = \@keys;
	$query->{cols} = \@cols;
	add_having($query, $scope) if chance(0.22);
}

# Expressions over aggregates.
sub combined
{
	my ($scope) = @_;
	$tags{'expression over aggregates'} = 1;
	return expression('int8', '({} + {})', aggregate_call($scope, undef, 'int8', 'count(*)', ''),
		aggregate_call($scope, undef, 'int8', 'count(*)', '')) if chance(0.3);
	my $sum = aggregate($scope, 'numeric');
	return expression('numeric', 'coalesce({}, 0.0)', $sum);
}

# A column that the primary key in GROUP BY determines.
sub dependent_column
{
	my ($query, $scope, $keys) = @_;
	my $from = $query->{from};

	return () unless $from->{k} eq 'table' && $from->{source}{primary};
	my @primary = @{ $from->{source}{primary} };
	for my $name (@primary)
	{
		return () unless grep { defined $_->{column} && $_->{column} eq $name } @$keys;
	}
	my ($column) = grep { !is_key($_->{type}) || chance(0.3) } @$scope;
	return () unless $column;
	$tags{'column determined by the primary key'} = 1;
	return $column;
}

sub add_having
{
	my ($query, $scope) = @_;
	$tags{HAVING} = 1;
	my $aggregate = chance(0.5)
	  ? aggregate_call($scope, undef, 'int8', 'count(*)', '')
	  : aggregate_call($scope, 'int4', 'int8', 'sum({})', '');

	$aggregate ||= aggregate_call($scope, undef, 'int8', 'count(*)', '');
	push @{ $query->{having} },
	  expression('bool', '{} ' . pick('> 0', '> 1', '> 2', '< 3', '< 5', '= 1', 'IS NOT NULL'), $aggregate);
}

sub make_union
{
	my ($depth) = @_;
	my @types = map { pick_weighted(int4 => 6, text => 3, numeric => 2, bool => 1, int8 => 1) } 1 .. between(1, 3);

	$tags{'UNION ALL'} = 1;
	return {
		k => 'setop',
		op => 'UNION ALL',
		arms => [ map { make_select($depth > 0 ? $depth - 1 : 0, \@types) } 1 .. pick(2, 2, 3) ]
	};
}

# --- what is not maintained incrementally in this release, but must be right -----------

sub make_full_only
{
	my $kind = pick(
		qw(window topk setop exists notin scalar rollup distinct_on lateral values recursive));
	my ($from, $scope) = make_leaf(0);
	my @ints = usable($scope, 'int4', 1);
	my $int = @ints ? pick(@ints) : expression('int4', '1');
	my $other = pick(@$sources);
	my ($column) = map { quote_name($_->{name}) } grep { $_->{type} eq 'int4' && !$_->{ap} } @{ $other->{cols} };
	my $other_name = table_name($other->{name});
	my $query =
	  { k => 'select', from => $from, where => [], with => [], having => [], cols => [$int] };

	$column = '1' unless defined $column;
	$tags{"other: $kind"} = 1;
	if ($kind eq 'window')
	{
		push @{ $query->{cols} }, expression('int8', 'rank() OVER (PARTITION BY {} ORDER BY {} DESC)', $int, $int);
	}
	elsif ($kind eq 'topk')
	{
		$query->{tail} = 'ORDER BY 1 DESC NULLS LAST LIMIT 3';
	}
	elsif ($kind eq 'setop')
	{
		name_columns($query);
		my ($from2, $scope2) = make_leaf(0);
		my @ints2 = usable($scope2, 'int4', 1);
		my $second = {
			k => 'select', from => $from2, where => [], with => [], having => [],
			cols => [ @ints2 ? pick(@ints2) : expression('int4', '2') ]
		};
		name_columns($second);
		return {
			k => 'setop',
			op => pick('UNION', 'EXCEPT', 'EXCEPT ALL', 'INTERSECT', 'INTERSECT ALL'),
			arms => [ $query, $second ]
		};
	}
	elsif ($kind eq 'exists')
	{
		push @{ $query->{where} },
		  expression('bool', pick('', 'NOT ') . "EXISTS (SELECT FROM $other_name AS e WHERE e.$column = {})", $int)
		  if $column ne '1';
	}
	elsif ($kind eq 'notin')
	{
		push @{ $query->{where} }, expression('bool', '{} ' . pick('IN', 'NOT IN') . " (SELECT $column FROM $other_name)", $int);
	}
	elsif ($kind eq 'scalar')
	{
		push @{ $query->{cols} }, expression('int8', "(SELECT count(*) FROM $other_name AS e WHERE e.$column = {})", $int)
		  if $column ne '1';
	}
	elsif ($kind eq 'rollup')
	{
		push @{ $query->{cols} }, expression('int8', 'count(*)');
		$query->{group} = [ expression('int4', pick('ROLLUP ({})', 'CUBE ({})'), $int) ];
	}
	elsif ($kind eq 'distinct_on')
	{
		$query->{distinct_on} = $int;
		$query->{tail} = 'ORDER BY 1';
	}
	elsif ($kind eq 'lateral')
	{
		$query->{from} = {
			k => 'join', type => 'CROSS JOIN', l => $from, on => [],
			r => { k => 'raw', sql => chance(0.5) ? 'generate_series(1, 2) AS s(i)' : "LATERAL (SELECT $int->{f} AS i LIMIT 1) AS s" }
		};
		push @{ $query->{cols} }, expression('int4', 's.i');
	}
	elsif ($kind eq 'values')
	{
		$query->{from} = {
			k => 'join', type => pick('JOIN', 'LEFT JOIN'), l => $from,
			r => { k => 'raw', sql => q{(VALUES (1, 'one'), (2, 'two'), (NULL, 'none')) AS v(i, t)} },
			on => [ expression('bool', '{} = v.i', $int) ]
		};
		push @{ $query->{cols} }, expression('text', 'v.t');
	}
	else
	{
		my $n = $column ne '1' ? "$column" : '1';
		$query = {
			k => 'raw',
			sql => "WITH RECURSIVE r(i) AS (SELECT $n FROM $other_name WHERE $n < 3 UNION SELECT i + 1 FROM r WHERE i < 4) SELECT i AS c1 FROM r",
			cols => [ expression('int4', '1') ]
		};
	}
	name_columns($query);
	return $query;
}

1;
