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
use Oracle::Language;

our @EXPORT = qw(make_query make_query_like make_query_of make_view_query);

our $few = 0;		# joins of few items only
our %tags;		# constructs used by the query being made
my $alias;
my $sources;	# what a leaf can be: [{ name, cols, key, kind }]

sub start_query
{
	my ($relations) = @_;

	%tags = ();
	$alias = 0;
	$sources = $relations;
	start_language();
}

sub make_query
{
	my ($relations, %opt) = @_;

	start_query($relations);
	my $query;
	$query = make_recursive() if !is_wide() && afford('recursive', 0.04);
	$query ||= chance(0.18) ? make_setop(2) : make_select(2);
	tag_subqueries($query, '');
	my ($first) = query_columns($query);
	$query->{order} = 1 if chance(0.04) && !$query->{tail} && !$query->{sort} && is_key($first->{type});
	return ($query, [ sort keys %tags ]);
}

# Another query with the columns of one, for ALTER.
sub make_query_like
{
	my ($relations, $query) = @_;

	# A row of nothing has no type that a table could store.
	return make_query_of($relations, map { $_->{type} eq 'row' ? 'int4' : $_->{type} } query_columns($query));
}

# A query with columns of these types.
sub make_query_of
{
	my ($relations, @types) = @_;

	start_query($relations);
	return make_select(1, \@types);
}

sub make_view_query
{
	my ($relations) = @_;

	start_query($relations);
	return chance(0.2) ? make_setop(0) : make_select(0);
}

sub tag { $tags{ $_[0] } = 1 }
sub next_alias { return 'a' . ++$alias }

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

# The name of something that a query may read.
sub any_source { return table_name(pick(@$sources)->{name}) }

sub make_leaf
{
	my ($depth, $with) = @_;
	return odd_leaf() if afford('odd', 0.015);
	my $name = 'a' . ++$alias;

	if ($depth > 0 && chance(0.22))
	{
		my $query = chance(0.2) ? make_setop($depth - 1) : make_select($depth - 1, undef, $with);
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
	my $only = $source->{kind} eq 'inherited' && chance(0.25) ? 1 : 0;
	$tags{'FROM ONLY'} = 1 if $only;
	return ({ k => 'table', name => $source->{name}, alias => $name, source => $source, only => $only }, \@scope);
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
			$e{st} = 0 if $query->{op} ne 'UNION ALL' && !is_exact($e{type});
			+{ as => $arms[0][$i]{as}, e => \%e }
		} 0 .. $#{ $arms[0] }
	];
}

sub make_from
{
	my ($depth, $with) = @_;
	my $n = is_wide() ? pick_weighted(1 => 30, 2 => 50, 3 => 10) : pick_weighted(1 => 35, 2 => 40, 3 => 20, 4 => 5);
	$n = 2 if $few && $n > 2;
	my ($from, $scope) = make_leaf($depth, $with);
	my ($first, $same) = ($from, 1);

	for (2 .. $n)
	{
		if (afford('lateral', 0.06))
		{
			($from, $scope) = join_lateral($from, $scope);
			next;
		}
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
	($from, $scope) = join_lateral($from, $scope) if afford('lateral', 0.05);
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
	merge_columns($join, $left_scope, $right_scope) if $type =~ /^(?:LEFT |FULL )?JOIN\z/ && chance(0.08);
	$tags{ lc $type } = 1;
	return ($join, [ @$left_scope, @$right_scope ]);
}

# USING and NATURAL instead of ON, where both sides have columns of one name and type.
sub merge_columns
{
	my ($join, $left_scope, $right_scope) = @_;
	my ($left, $right) = @$join{qw(l r)};
	return unless defined $left->{alias} && defined $right->{alias};
	my %type = map { $_->{f} =~ /^\w+\.(.+)\z/ ? ($1 => $_->{type}) : () } @$left_scope;
	my @both = grep { $_->{f} =~ /^\w+\.(.+)\z/ && defined $type{$1} && $1 ne 'gone' && $1 ne 'late' } @$right_scope;
	my @same = grep { $_->{f} =~ /^\w+\.(.+)\z/ && $type{$1} eq $_->{type} && is_key($_->{type}) && !$_->{ap} } @both;
	return unless @same && !grep { $_->{ap} } @$left_scope;

	# Names of tables, and of stream tables by another query, may get columns later, which a natural join would take.
	if (@same == @both && !grep { $_->{k} eq 'table' && $_->{source}{kind} ne 'view' } $left, $right)
	{
		$tags{'NATURAL JOIN'} = 1;
		$join->{natural} = 1;
		return;
	}
	my ($name) = pick(@same)->{f} =~ /^\w+\.(.+)\z/;
	$tags{'JOIN USING'} = 1;
	$join->{using} = $name;
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
	if ($type ne 'FULL JOIN' && chance(0.09))
	{
		my $kind = pick('distinct', 'distinct', 'range', 'or');
		if ($kind eq 'distinct')
		{
			$tags{'IS NOT DISTINCT FROM join'} = 1;
			return expression('bool', '{} IS NOT DISTINCT FROM {}', $left, $right);
		}
		if ($left->{type} eq 'int4' && !is_wide())
		{
			$tags{"$kind join"} = 1;
			return expression('bool', pick('{} < {}', '{} BETWEEN {} AND {} + 1'), $left, $right, $right) if $kind eq 'range';
			return expression('bool', '({} = {} OR {} = {} + 2)', $left, $right, $left, $right);
		}
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

	if ($depth > 0 && afford('scalar', 0.04))
	{
		my $made = scalar_subquery($scope, $type);
		return $made if $made;
	}
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
	if ($type eq 'int4' || $type eq 'text')
	{
		my @pairs = usable($scope, 'pair');
		if (@pairs && chance(0.5))
		{
			$tags{'field of a composite'} = 1;
			return expression($type, $type eq 'int4' ? '({}).i' : '({}).t', pick(@pairs));
		}
	}
	if ($type eq 'text' && chance(0.2))
	{
		$tags{'function of any type'} = 1;
		return expression('text', q{to_char({}, 'FM9000')}, $again->('int4', 1)) if chance(0.2);
		return expression('text', pick(q{to_jsonb({})::text}, q{to_json(ARRAY[{}])::text}, q{concat('<', {})}),
			$again->(pick('int4', 'text', 'bool'), 1)) if chance(0.4);
		return expression('text', pick(q{jsonb_build_object('k', {}, 'v', {})::text}, q{format('%s %L', {}, {})}, q{row_to_json(ROW({}, {}))::text}, q{concat_ws('-', {}, {})}, q{ROW({}, {})::text}),
			$again->('int4', 1), $again->(pick('int4', 'text'), 1)) if chance(0.8);
		return expression('text', q{to_jsonb({})::text}, $again->('date', 1));
	}
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

	if (afford('predicate', $depth > 0 ? 0.12 : 0.06))
	{
		my $made = subquery_predicate($scope);
		return $made if $made;
	}
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
	[ 1, 'text', 'text', q{jsonb_agg({} ORDER BY {})::text}, 'image' ],
	[ 3, 'int4', 'int8', 'count(DISTINCT {})' ],
	[ 1, 'text', 'int8', 'count(DISTINCT {})' ],
	[ 1, 'ndtext', 'int8', 'count(DISTINCT {})' ],
	[ 1, 'int4', 'int8', 'sum(DISTINCT {})' ],
	[ 2, 'int4', 'int4', 'o.total({})' ],
	[ 2, 'int4', 'int4', 'o.moving_total({})' ],
	[ 1, 'int4', 'float8', 'percentile_cont(0.5) WITHIN GROUP (ORDER BY {})', 'ap' ],
	[ 1, 'int4', 'int4', 'mode() WITHIN GROUP (ORDER BY {})' ],
	[ 1, 'int4', 'int4', 'bit_or({})' ],
	[ 1, 'int4', 'int4', 'percentile_disc(0.5) WITHIN GROUP (ORDER BY {})' ],
	[ 1, 'text', 'text', 'mode() WITHIN GROUP (ORDER BY {})' ],
	[ 1, 'int4', 'int8', 'rank(2) WITHIN GROUP (ORDER BY {})' ],
	[ 1, 'text', 'text', q{string_agg(DISTINCT {}, ',' ORDER BY {})}, 'image' ],
	[ 1, 'int4', 'intarray', 'array_agg(DISTINCT {} ORDER BY {})' ],
	[ 1, 'int4', 'numeric', 'avg(DISTINCT {})' ],
	[ 1, 'int4', 'int8', 'count(DISTINCT ({}, {} % 2))' ],
	[ 1, 'int4', 'int8', 'regr_count({}, {})' ],
	[ 1, 'int4', 'jsonb', 'jsonb_agg({} ORDER BY {})' ],
	[ 1, 'date', 'date', 'max({})' ],
	[ 1, 'money2', 'money2', 'min({})' ],
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

# signature: types that the columns must have (arms of a set operation); visible: CTEs of
# the query around.
sub make_select
{
	my ($depth, $signature, $visible) = @_;
	my $query = { k => 'select', where => [], with => [], having => [] };

	if ($depth > 1 && chance(0.13))
	{
		# A later one may read the earlier ones.
		for (1 .. between(1, 2))
		{
			my $name = 'w' . ++$alias;
			push @{ $query->{with} },
			  { name => $name, q => make_select(0, undef, [ @{ $query->{with} } ]), used => 0,
				how => pick_weighted('' => 6, 'MATERIALIZED ' => 1, 'NOT MATERIALIZED ' => 1) };
		}
	}
	my ($from, $scope) = make_from($depth, [ @{ $visible || [] }, @{ $query->{with} } ]);
	my $shape = pick_weighted(plain => 42, group => 38, one => 8, distinct => 12);
	my $odd = !$signature && afford('shape', 0.14) ? pick(qw(window window distinct_on top_k)) : '';

	$query->{from} = $from;
	for my $i (0 .. 1)
	{
		push @{ $query->{where} }, predicate($scope, 1) if chance($i ? 0.08 : 0.35);
	}
	$tags{WHERE} = 1 if @{ $query->{where} };
	$shape = 'plain' if $signature && $shape eq 'group' && chance(0.5);
	if ( $odd eq 'window' && fill_window($query, $scope)
		|| $odd eq 'distinct_on' && fill_distinct_on($query, $scope)
		|| $odd eq 'top_k' && add_limit($query, $scope))
	{
		# The columns are made.
	}
	elsif ($shape eq 'group')
	{
		fill_group($query, $scope, $signature);
		limit_group($query) if !$signature && afford('shape', 0.05);
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
	nested_group($query);
}

sub nested_group
{
	my ($query) = @_;
	my $from = $query->{from};
	$tags{'aggregate over aggregate'} = 1
	  if ($query->{group} || $query->{one}) && $from && $from->{k} eq 'sub' && ($from->{q}{group} || $from->{q}{one});
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
		push @cols, value_of($scope, pick(qw(int4 int4 int8 numeric text bool intarray)), 2) if chance(0.4);
		push @cols, row_columns($query, $scope) if $shape eq 'plain' && afford('row', 0.02);
		push @cols, set_returning_column($scope) if $shape eq 'plain' && afford('rows_column', 0.04);
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
		my $sets = !grep({ @{ $_->{a} } } @keys) && afford('sets', 0.1);
		if (@cols > 1 && chance(0.12))
		{
			$tags{'GROUP BY key not shown'} = 1;
			shift @cols;
		}
		push @cols, map { aggregate($scope) } 1 .. between(0, 3);
		push @cols, combined($scope) if chance(0.15);
		if ($sets)
		{
			push @cols, grouping_sets($query, @keys);
		}
		else
		{
			push @cols, dependent_column($query, $scope, \@keys);
			push @cols, window_over_group(\@keys) if afford('group_window', 0.05);
		}
	}
	$query->{group} ||= \@keys;
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

1;
