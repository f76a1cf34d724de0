# Oracle::Language: the constructs beyond joins and plain groups: subqueries in expressions,
# LATERAL, functions in FROM, VALUES, windows, DISTINCT ON, top-k, set operations, grouping
# sets, recursion, whole rows. Oracle::Query decides where they stand.
#
# Only what PostgreSQL itself determines may be compared. What depends on an order of rows
# (row_number, LIMIT, DISTINCT ON) orders by every column that the query reads, and these
# columns are of types whose equal values look the same: equal rows may then change places.
#
# Each query has a budget of constructs from here and perhaps one that it is made for
# (afford), so that most stay small and none is rare.
package Oracle::Language;

use strict;
use warnings;

use Exporter 'import';

use Oracle::Random;
use Oracle::Types;
use Oracle::Tree;

our @EXPORT = qw(start_language afford subquery_predicate scalar_subquery join_lateral odd_leaf
  fill_window window_over_group fill_distinct_on add_limit limit_group grouping_sets
  make_setop make_recursive row_columns set_returning_column tag_subqueries);

my ($budget, $focus);

sub start_language
{
	$budget = pick_weighted(0 => 25, 1 => 42, 2 => 23, 3 => 10);
	$budget = 1 if $budget > 1 && is_wide();
	$focus = pick(qw(predicate predicate predicate scalar scalar lateral lateral odd shape shape shape sets sets setop setop recursive row rows_column group_window));
}

# Is a construct of this kind made here? It is by this chance, and often if it is the focus.
sub afford
{
	my ($kind, $probability) = @_;

	return 0 if $budget <= 0 || !chance($kind eq $focus ? 0.45 : $probability);
	$budget--;
	return 1;
}

# Oracle::Query uses this module; its functions are there when these run.
sub expression { return Oracle::Query::expression(@_) }
sub predicate { return Oracle::Query::predicate(@_) }
sub value_of { return Oracle::Query::value_of(@_) }
sub usable { return Oracle::Query::usable(@_) }
sub make_leaf { return Oracle::Query::make_leaf(@_) }
sub literal_text { return Oracle::Query::literal_text(@_) }
sub next_alias { return Oracle::Query::next_alias() }
sub tag { Oracle::Query::tag($_[0]) }

sub select_from
{
	my ($from, @cols) = @_;
	my $n = 0;
	return {
		k => 'select', from => $from, where => [], with => [], having => [],
		cols => [ map { +{ as => 'c' . ++$n, e => $_ } } @cols ]
	};
}

# Columns that another query may name: those of relations, not expressions.
sub columns_of
{
	my ($scope) = @_;
	return grep { !@{ $_->{a} } && $_->{f} =~ /^a\d+\.(?:\w+|".*")\z/ && !$_->{ap} } @$scope;
}

# Values that tell rows apart exactly and have an order.
sub exact_columns
{
	my ($scope) = @_;
	return grep { is_exact($_->{type}) && is_key($_->{type}) && $_->{st} } columns_of($scope);
}

sub some_of
{
	my ($low, $high, @from) = @_;
	return pick_some(between($low, $high), @from);
}

sub in_any_order
{
	my @list = @_;
	for my $i (reverse 1 .. $#list)
	{
		my $j = int(rand($i + 1));
		@list[ $i, $j ] = @list[ $j, $i ];
	}
	return @list;
}

# --- subqueries in expressions ---------------------------------------------------------

# Pairs of an outer and an inner column of one type.
sub pairs
{
	my ($outer, $inner) = @_;
	return Oracle::Query::joinable([ columns_of($outer) ], [ columns_of($inner) ]);
}

sub correlation
{
	my ($outer, $inner) = @_;
	my @pairs = pairs($outer, $inner);

	return () unless @pairs;
	my $pair = pick(@pairs);
	my $op = pick_weighted('=' => 80, '<' => 6, '<>' => 4, '>=' => 4, 'IS NOT DISTINCT FROM' => 6);
	tag($op eq '=' ? 'correlated by =' : 'correlated otherwise');
	return expression('bool', "{} $op {}", $pair->[1], $pair->[0]);
}

# FROM and WHERE of a subquery that may see the scope $outer.
sub inner_query
{
	my ($outer, $correlated) = @_;
	my ($from, $scope) = make_leaf(0);

	if (chance(0.15) && !is_wide())
	{
		my ($right, $right_scope) = make_leaf(0);
		($from, $scope) = Oracle::Query::make_join($from, $scope, $right, $right_scope);
		tag('join in a subquery');
	}
	my $query = select_from($from);
	push @{ $query->{where} }, correlation($outer, $scope) if $outer && chance($correlated);
	push @{ $query->{where} }, correlation($outer, $scope) if $outer && chance(0.1);
	push @{ $query->{where} }, predicate($scope, 0) if chance(0.3);
	return ($query, $scope);
}

sub set_columns
{
	my ($query, @cols) = @_;
	my $n = 0;
	$query->{cols} = [ map { +{ as => 'c' . ++$n, e => $_ } } @cols ];
	return $query;
}

sub sublink
{
	my ($type, $format, @args) = @_;
	my $made = expression($type, $format, grep { !$_->{k} } @args);
	return { %$made, a => \@args, sublink => 1 };
}

# undef if nothing fits.
sub subquery_predicate
{
	my ($scope) = @_;
	my $kind = pick_weighted(exists => 35, in => 22, not_in => 12, rows => 8, any => 12, scalar => 11);

	if ($kind eq 'exists')
	{
		my ($query, $inner) = inner_query($scope, 0.85);
		my $not = chance(0.45) ? 'NOT ' : '';
		if (chance(0.15))
		{
			set_columns($query, expression('int8', 'count(*)'));
			my @keys = columns_of($inner);
			@keys = grep { is_key($_->{type}) } @keys;
			$query->{group} = [ pick(@keys) ] if @keys;
			$query->{having} = [ expression('bool', 'count(*) > ' . between(0, 2)) ];
			tag('EXISTS over a group');
		}
		tag($not ? 'NOT EXISTS' : 'EXISTS');
		return sublink('bool', "(${not}EXISTS ({}))", $query);
	}
	my ($query, $inner) = inner_query($scope, $kind eq 'scalar' ? 0.5 : 0.3);
	return scalar_comparison($scope, $query, $inner) if $kind eq 'scalar';
	my @pairs = pairs($scope, $inner);
	return undef unless @pairs;
	if ($kind eq 'rows')
	{
		my @two = (pick(@pairs), pick(@pairs));
		my $not = chance(0.4) ? 'NOT ' : '';
		set_columns($query, map { $_->[1] } @two);
		tag("${not}IN of several columns");
		return sublink('bool', "(({}, {}) ${not}IN ({}))", (map { $_->[0] } @two), $query);
	}
	my $pair = pick(@pairs);
	set_columns($query, $pair->[1]);
	if (chance(0.12))
	{
		my ($other, $other_scope) = inner_query(undef, 0);
		my @same = usable($other_scope, $pair->[1]{type});
		if (@same)
		{
			set_columns($other, pick(@same));
			$query = { k => 'setop', op => pick('UNION', 'UNION ALL', 'EXCEPT'), arms => [ $query, $other ] };
			tag('set operation in a subquery');
		}
	}
	if ($kind eq 'any')
	{
		my $op = pick('=', '<>', '<', '<=', '>', '>=');
		my $all = pick('ANY', 'ALL');
		tag("$all subquery");
		return sublink('bool', "({} $op $all ({}))", $pair->[0], $query);
	}
	my $not = $kind eq 'not_in' ? 'NOT ' : '';
	tag("${not}IN subquery");
	return sublink('bool', "({} ${not}IN ({}))", $pair->[0], $query);
}

sub scalar_comparison
{
	my ($scope, $query, $inner) = @_;
	my @ints = usable($scope, 'int4');
	my @inner_ints = usable($inner, 'int4');

	return undef unless @ints && @inner_ints;
	set_columns($query, expression('int4', pick('max', 'min') . '({})', pick(@inner_ints)));
	tag('comparison with a scalar subquery');
	return sublink('bool', '({} ' . pick('=', '<', '>=', '<>', 'IS DISTINCT FROM') . ' ({}))', pick(@ints), $query);
}

# A subquery as a value of the type, or undef.
sub scalar_subquery
{
	my ($scope, $type) = @_;
	my ($query, $inner) = inner_query($scope, 0.75);
	my @cols = grep { $_->{type} eq $type && $_->{st} } exact_columns($inner);

	if ($type eq 'int8')
	{
		set_columns($query, expression('int8', 'count(*)'));
	}
	elsif ($type eq 'intarray' && chance(0.8))
	{
		my @ints = usable($inner, 'int4', 1);
		return undef unless @ints;
		my $int = pick(@ints);
		set_columns($query, $int);
		$query->{sort} = [ expression('int4', '{}', $int) ];
		tag('ARRAY subquery');
		return sublink($type, 'ARRAY({})', $query);
	}
	elsif ($type eq 'numeric')
	{
		my @ints = usable($inner, 'int4');
		return undef unless @ints;
		set_columns($query, expression('numeric', pick('sum({})::numeric', 'avg({})'), pick(@ints)));
	}
	elsif (!@cols)
	{
		return undef;
	}
	elsif (key_lookup($scope, $query, $inner, $type))
	{
		tag('scalar subquery by key');
	}
	elsif ($type ne 'bool' && $type ne 'pair' && $type ne 'mood' && $type ne 'intarray' && chance(0.6))
	{
		set_columns($query, expression($type, pick('max', 'min') . '({})', pick(@cols)));
	}
	else
	{
		my $col = pick(@cols);
		set_columns($query, $col);
		$query->{sort} = [ expression($type, '{}' . pick('', ' DESC', ' NULLS FIRST'), $col) ];
		$query->{tail} = 'LIMIT 1' . pick('', '', ' OFFSET 1');
		tag('scalar subquery with LIMIT');
	}
	tag('scalar subquery');
	return sublink($type, '({})', $query);
}

# WHERE id = outer column, without LIMIT: one row at most as long as the key holds.
sub key_lookup
{
	my ($scope, $query, $inner, $type) = @_;
	my $from = $query->{from};

	return 0 unless $from->{k} eq 'table' && $from->{source}{primary} && "@{ $from->{source}{primary} }" eq 'id' && chance(0.7);
	my ($id) = grep { defined $_->{column} && $_->{column} eq 'id' && $_->{type} eq 'int4' } @$inner;
	my @outer = usable([ columns_of($scope) ], 'int4');
	my @cols = grep { $_->{type} eq $type && $_->{st} } @$inner;
	return 0 unless $id && @outer && @cols;
	$query->{where} = [ expression('bool', '{} = {}', $id, pick(@outer)) ];
	set_columns($query, pick(@cols));
	return 1;
}

# Where subqueries stand, for the statistics.
sub tag_subqueries
{
	my ($node, $place) = @_;

	if (ref $node eq 'ARRAY')
	{
		tag_subqueries($_, $place) for @$node;
		return;
	}
	return unless ref $node eq 'HASH';
	tag("subquery in $place") if $node->{sublink} && $place;
	$place = 'CASE' if defined $node->{f} && $node->{f} =~ /CASE/;
	$place = 'OR' if defined $node->{f} && $node->{f} =~ / OR / && $place !~ /CASE/;
	my %place = (
		where => 'WHERE', having => 'HAVING', on => 'ON', cols => 'the select list', filter => 'FILTER',
		group => 'GROUP BY');
	for my $key (grep { ref $node->{$_} && $_ ne 'source' } sort keys %$node)
	{
		tag_subqueries($node->{$key}, $place{$key} || $place);
	}
}

# --- LATERAL, functions, VALUES ----------------------------------------------------------

# ($from, $scope) with one more item at the right.
sub join_lateral
{
	my ($left, $scope) = @_;
	my ($right, $right_scope) = chance(0.5) ? lateral_subquery($scope) : lateral_function($scope);

	return ($left, $scope) unless $right;
	my $join = { k => 'join', type => pick('CROSS JOIN', 'JOIN', 'LEFT JOIN', 'LEFT JOIN'), l => $left, r => $right, on => [] };
	my $all = [ @$scope, @$right_scope ];
	push @{ $join->{on} }, predicate($all, 0) if $join->{type} ne 'CROSS JOIN' && chance(0.3);
	return ($join, $all);
}

sub lateral_subquery
{
	my ($scope) = @_;
	my ($query, $inner) = inner_query($scope, 0.9);
	my $kind = pick_weighted(rows => 40, aggregate => 35, first => 25);
	my @exact = exact_columns($inner);
	my $alias = next_alias();

	$kind = 'rows' if $kind eq 'first' && !@exact;
	tag('LATERAL subquery');
	if ($kind eq 'aggregate')
	{
		tag('LATERAL aggregate');
		set_columns($query, map { Oracle::Query::aggregate($inner) } 1 .. between(1, 2));
	}
	elsif ($kind eq 'first')
	{
		my @cols = some_of(1, 2, @exact);
		tag('LATERAL top-k');
		set_columns($query, @cols);
		$query->{sort} = [ sort_list(@cols) ];
		$query->{tail} = 'LIMIT ' . between(1, 2);
	}
	else
	{
		tag('LATERAL join');
		my @cols = some_of(1, 2, @$inner);
		@cols = (expression('int4', '1')) unless @cols;
		my @outer = usable($scope, 'int4');
		push @cols, expression('int4', '({} + 1)', pick(@outer)) if @outer && chance(0.3);
		set_columns($query, @cols);
	}
	return ({ k => 'sub', lateral => 1, q => $query, alias => $alias }, Oracle::Query::scope_of_query($alias, $query));
}

# Functions of columns: [tag, format, argument type, result types].
my @FUNCTIONS = (
	[ 'generate_series', 'generate_series(1, least({}, 3))', 'int4', 'int4' ],
	[ 'generate_series', 'generate_series({}, {} + 1)', 'int4', 'int4' ],
	[ 'unnest', 'unnest({})', 'intarray', 'int4' ],
	[ 'unnest', 'unnest(ARRAY[{}, 1, NULL])', 'int4', 'int4' ],
	[ 'jsonb function', q{jsonb_array_elements_text(CASE WHEN jsonb_typeof({}) = 'array' THEN {} ELSE '[1, 2]' END)}, 'jsonb', 'text' ],
	[ 'jsonb function', q{jsonb_each(CASE WHEN jsonb_typeof({}) = 'object' THEN {} ELSE '{ }' END)}, 'jsonb', 'text', 'jsonb' ],
	[ 'jsonb function', q{jsonb_path_query({}, '$.*')}, 'jsonb', 'jsonb' ],
	[ 'function of the user', 'o.upto({})', 'int4', 'int4' ],
	[ 'function of the user', 'o.halves({})', 'int4', 'int4', 'text' ],
	[ 'function of one row', 'o.twice({})', 'int4', 'int4' ],
	[ 'regexp_split_to_table', q{regexp_split_to_table({}, '')}, 'text', 'text' ],
	[ 'ROWS FROM', 'ROWS FROM (generate_series(1, least({}, 3)), unnest(ARRAY[{}, 7]))', 'int4', 'int4', 'int4' ],
	[ 'ROWS FROM', 'ROWS FROM (o.upto({}), o.halves({}))', 'int4', 'int4', 'int4', 'text' ],);

# A function of columns of the scope, or of constants without one.
sub lateral_function
{
	my ($scope) = @_;
	my $alias = next_alias();

	return values_leaf($scope) if chance(0.12);
	for (1 .. 6)
	{
		my ($tag, $format, $in, @out) = @{ pick(@FUNCTIONS) };
		my @columns = $scope ? usable($scope, $in, 1) : ();
		my $slots = () = $format =~ /\{\}/g;
		next if $scope && !@columns;
		my $arg = $scope ? pick(@columns) : expression($in, literal_text($in));
		my $e = expression($out[0], $format, ($arg) x $slots);
		my $ordinality = chance(0.2) ? 1 : 0;
		push @out, 'int8' if $ordinality;
		my @names = map { "c$_" } 1 .. @out;
		tag($scope ? "LATERAL $tag" : "$tag in FROM");
		tag('WITH ORDINALITY') if $ordinality;
		return ({ k => 'func', e => $e, alias => $alias, names => \@names, ordinality => $ordinality },
			[ map { +{ type => $out[$_], f => "$alias.$names[$_]", a => [], st => 1, ap => 0 } } 0 .. $#out ]);
	}
	return $scope ? () : values_leaf(undef);
}

sub values_leaf
{
	my ($scope) = @_;
	my $alias = next_alias();
	my @ints = $scope ? usable($scope, 'int4', 1) : ();
	my @rows = map {
		[ @ints && chance(0.5) ? pick(@ints) : expression('int4', literal_text('int4')), expression('text', literal_text('text')) ]
	} 1 .. between(1, 3);

	tag(@ints ? 'LATERAL VALUES' : 'VALUES');
	return ({ k => 'values', rows => \@rows, alias => $alias, names => [ 'c1', 'c2' ], lateral => @ints ? 1 : 0 },
		[ map { +{ type => $_->[0], f => "$alias.$_->[1]", a => [], st => 1, ap => 0 } } [ int4 => 'c1' ], [ text => 'c2' ] ]);
}

# An item of FROM that is no relation.
sub odd_leaf
{
	return chance(0.5) ? values_leaf(undef) : lateral_function(undef);
}

# A function in the select list that returns several rows.
sub set_returning_column
{
	my ($scope) = @_;
	for (1 .. 4)
	{
		my ($format, $in, $out) = @{
			pick([ 'unnest({})', 'intarray', 'int4' ], [ 'generate_series(1, least({}, 3))', 'int4', 'int4' ],
				[ 'o.upto({})', 'int4', 'int4' ], [ 'unnest(ARRAY[{}, 5])', 'int4', 'int4' ],
				[ '(o.twice({}) + generate_series(1, 2))', 'int4', 'int4' ]) };
		my @columns = usable($scope, $in, 1);
		next unless @columns;
		tag('function with rows in the select list');
		return expression($out, $format, pick(@columns));
	}
	return ();
}

# --- windows -----------------------------------------------------------------------------

sub direction { return pick('', '', ' DESC', ' NULLS FIRST', ' DESC NULLS LAST') }

sub sort_list
{
	return map { expression($_->{type}, '{}' . direction(), $_) } @_;
}

sub window_text
{
	my ($partition, $order, $frame) = @_;
	my @parts;

	push @parts, 'PARTITION BY ' . join(', ', ('{}') x @$partition) if @$partition;
	push @parts, 'ORDER BY ' . join(', ', map { '{}' . direction() } @$order) if @$order;
	push @parts, $frame if $frame;
	return join(' ', @parts);
}

# [format, result type, argument type or undef]
my @PEERS = (
	[ 'rank()', 'int8' ], [ 'dense_rank()', 'int8' ], [ 'percent_rank()', 'float8' ], [ 'cume_dist()', 'float8' ],
	[ 'count(*)', 'int8' ], [ 'sum({})', 'int8', 'int4' ], [ 'max({})', 'int4', 'int4' ], [ 'count({})', 'int8', 'text' ],
	[ 'avg({})', 'numeric', 'int4' ], [ 'sum({}) FILTER (WHERE {} > 1)', 'int8', 'int4' ], [ 'bool_or({})', 'bool', 'bool' ],
	[ 'o.moving_total({})', 'int4', 'int4' ]);
my @PLACES = (
	[ 'row_number()', 'int8' ], [ 'row_number()', 'int8' ], [ 'ntile(3)', 'int4' ], [ 'lag({})', 'int4', 'int4' ], [ 'lead({}, 2, 9)', 'int4', 'int4' ],
	[ 'first_value({})', 'int4', 'int4' ], [ 'last_value({})', 'text', 'text' ], [ 'nth_value({}, 2)', 'int4', 'int4' ],
	[ 'sum({})', 'int8', 'int4' ], [ 'array_agg({})', 'intarray', 'int4' ], [ 'lag({})', 'text', 'text' ]);

# SELECT columns, window functions FROM ...; true if it could be made.
sub fill_window
{
	my ($query, $scope) = @_;
	my @exact = exact_columns($scope);
	return 0 unless @exact;
	my @cols = some_of(1, 4, @exact);
	my $total = chance(0.5);
	my @made;

	# One order for all: rows that are equal take places in it, and others in another.
	my @partition = chance(0.6) ? some_of(1, 2, @cols) : ();
	my @order = in_any_order(@cols);
	my $window = window_text(\@partition, \@order, '');

	for (1 .. pick_weighted(1 => 6, 2 => 3, 3 => 1))
	{
		my $e = $total ? place_function($window, [ @partition, @order ], @cols) : peer_function($scope, @cols);
		push @made, $e if $e;
	}
	return 0 unless @made;
	tag('several windows') if @made > 1;
	if (chance(0.2) && $made[0]{type} =~ /^int[48]\z/)
	{
		tag('window in an expression');
		$made[0] = expression($made[0]{type}, pick('coalesce({} + 1, 0)', '(- {})', '({} % 2)'), $made[0]);
	}
	if (chance(0.12))
	{
		# The window by its name.
		my ($function, $window) = $made[0]{f} =~ /^(.*\)) OVER \((.*)\)\z/;
		my $name = 'w';
		if (defined $window && $function !~ /\{\}/)
		{
			tag('named window');
			$query->{window} = [ { name => $name, e => { %{ $made[0] }, f => $window } } ];
			$made[0] = { %{ $made[0] }, f => "$function OVER $name", a => [] };
		}
	}
	$query->{cols} = [ @cols, @made ];
	return 1;
}

# Rank and aggregates over peers: the order of rows that tie does not matter.
sub peer_function
{
	my ($scope, @cols) = @_;
	my ($format, $type, $in) = @{ pick(@PEERS) };
	my @keys = grep { is_key($_->{type}) } columns_of($scope);
	my @partition = chance(0.65) ? some_of(1, 2, @keys) : ();
	my @order = $format =~ /rank|cume/ || chance(0.5) ? some_of(1, 2, @keys) : ();
	my $frame = '';
	my @args;

	if (defined $in)
	{
		my @inputs = usable($scope, $in, 1);
		return undef unless @inputs;
		my $slots = () = $format =~ /\{\}/g;
		@args = (pick(@inputs)) x $slots;
	}
	if (@order && $format !~ /rank|cume/ && chance(0.4))
	{
		$frame = pick(
			'RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING', 'GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING',
			'RANGE UNBOUNDED PRECEDING EXCLUDE TIES', 'GROUPS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING EXCLUDE GROUP',
			@order == 1 && $order[0]{type} eq 'int4' ? 'RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING' : 'RANGE UNBOUNDED PRECEDING');
		tag('window frame');
	}
	tag(@partition ? 'window with PARTITION BY' : 'window without PARTITION BY');
	tag("window $1") if $format =~ /^(?:o\.)?(\w+)/;
	# A row's peers are found with =, so the result is determined.
	return { %{ expression($type, "$format OVER (" . window_text(\@partition, \@order, $frame) . ')', @args, @partition, @order) }, st => 1 };
}

# What depends on the order of rows: by all columns that the query shows.
sub place_function
{
	my ($window, $by, @cols) = @_;
	my ($format, $type, $in) = @{ pick(@PLACES) };
	my $frame = '';
	my @args;

	if (defined $in)
	{
		my @inputs = grep { $_->{type} eq $in } @cols;
		return undef unless @inputs;
		@args = (pick(@inputs));
	}
	if ($format =~ /^(?:sum|array_agg|first|last|nth)/ && chance(0.6))
	{
		$frame = ' ' . pick('ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING', 'ROWS UNBOUNDED PRECEDING',
			'ROWS BETWEEN 1 FOLLOWING AND 2 FOLLOWING', 'ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE CURRENT ROW');
		tag('window frame');
	}
	tag($window =~ /^PARTITION/ ? 'window with PARTITION BY' : 'window without PARTITION BY');
	tag("window $1") if $format =~ /^(\w+)/;
	return expression($type, "$format OVER ($window$frame)", @args, @$by);
}

sub window_over_group
{
	my ($keys) = @_;
	my $count = expression('int8', 'count(*)');
	my @by = grep { $_->{st} && is_exact($_->{type}) && !@{ $_->{a} } } @$keys;

	tag('window over aggregates');
	return pick(
		sub { expression('int8', 'rank() OVER (ORDER BY {} DESC)', $count) },
		sub { expression('numeric', 'sum({}) OVER ()', $count) },
		sub { @by ? expression('int8', 'max({}) OVER (PARTITION BY {})', $count, pick(@by)) : expression('int8', 'dense_rank() OVER (ORDER BY {})', $count) })->();
}

# --- DISTINCT ON, top-k --------------------------------------------------------------------

sub fill_distinct_on
{
	my ($query, $scope) = @_;
	my @cols = some_of(2, 4, exact_columns($scope));

	return 0 unless @cols;
	my @order = in_any_order(@cols);
	my $n = @order > 2 && chance(0.3) ? 2 : 1;
	$query->{distinct_on} = expression('int4', join(', ', ('{}') x $n), @order[ 0 .. $n - 1 ]);
	$query->{sort} = [ sort_list(@order) ];
	$query->{cols} = @cols > 1 && chance(0.3) ? [ @cols[ 1 .. $#cols ] ] : \@cols;
	tag('DISTINCT ON');
	return 1;
}

# ORDER BY all columns LIMIT, or by some WITH TIES.
sub add_limit
{
	my ($query, $scope) = @_;
	my @cols = some_of(1, 4, exact_columns($scope));

	return 0 unless @cols;
	my $offset = chance(0.35) ? ' OFFSET ' . between(0, 3) : '';
	my @order = in_any_order(@cols);
	if (chance(0.35))
	{
		tag('top-k WITH TIES');
		# OFFSET may part rows that tie, LIMIT WITH TIES does not.
		@order = @order[ 0 .. between(0, $#order) ] unless $offset;
		$query->{tail} = "$offset FETCH FIRST " . between(1, 4) . ' ROWS WITH TIES';
	}
	else
	{
		tag('top-k');
		$query->{tail} = pick_weighted('LIMIT ' . between(1, 6) . $offset => 9, 'LIMIT 0' => 0.3, 'OFFSET 2' => 1);
	}
	if ($query->{tail} =~ /^LIMIT [1-6]/ && chance(0.25))
	{
		tag('LIMIT of a subquery');
		my $question = '(SELECT count(*) % 7 FROM ' . Oracle::Query::any_source() . ')';
		$query->{tail} = chance(0.5) ? "LIMIT $question" : "LIMIT $question + 1$offset";
		$query->{tail} = "OFFSET $question" if chance(0.2);
	}
	tag('OFFSET') if $query->{tail} =~ /OFFSET/;
	$query->{sort} = [ sort_list(@order) ];
	$query->{cols} = \@cols;
	return 1;
}

# Top-k of groups, if every column shown has an exact order.
sub limit_group
{
	my ($query) = @_;

	return if grep { !$_->{st} || $_->{ap} || !is_key($_->{type}) || !is_exact($_->{type}) } @{ $query->{cols} };
	tag('top-k of groups');
	my $n = 0;
	$query->{sort} = [ map { $n++; expression($_->{type}, "$n" . direction()) } @{ $query->{cols} } ];
	@{ $query->{sort} } = reverse @{ $query->{sort} };
	$query->{tail} = 'LIMIT ' . between(1, 4);
}

# --- grouping sets, set operations, recursion ------------------------------------------------

# GROUP BY of keys as sets; returns a GROUPING column or none.
sub grouping_sets
{
	my ($query, @keys) = @_;
	my $all = join(', ', ('{}') x @keys);
	my @kinds = ([ 'ROLLUP', "ROLLUP ($all)", @keys ], [ 'CUBE', "CUBE ($all)", @keys ],
		[ 'GROUPING SETS', "GROUPING SETS (($all), ({}), ())", @keys, $keys[0] ],
		[ 'GROUPING SETS', "GROUPING SETS (($all), (), ())", @keys ]);

	push @kinds, [ 'key and ROLLUP', '{}, ROLLUP ({})', @keys[ 0, 1 ] ], [ 'GROUPING SETS', 'GROUPING SETS ({}, {})', @keys[ 0, 1 ] ] if @keys == 2;
	my ($tag, $format, @args) = @{ pick(@kinds) };
	tag($tag);
	$query->{group} = [ expression('int4', $format, @args) ];
	return () if chance(0.4);
	tag('GROUPING()');
	return expression('int4', "GROUPING($all)", @keys);
}

sub make_setop
{
	my ($depth, $types) = @_;
	my $op = afford('setop', 0.4) ? pick('UNION', 'UNION', 'INTERSECT', 'INTERSECT ALL', 'EXCEPT', 'EXCEPT', 'EXCEPT ALL') : 'UNION ALL';
	my $below = $depth > 0 ? $depth - 1 : 0;

	$types ||= [ map { pick_weighted(int4 => 6, text => 3, numeric => 2, bool => 1, int8 => 1) } 1 .. between(1, 3) ];
	tag($op);
	my @arms = map { $depth > 0 && chance(0.12) ? make_setop($depth - 1, $types) : Oracle::Query::make_select($below, $types) }
	  1 .. ($op eq 'UNION ALL' ? pick(2, 2, 3) : 2);
	tag('nested set operation') if grep { $_->{k} eq 'setop' } @arms;
	return { k => 'setop', op => $op, arms => \@arms };
}

# WITH RECURSIVE r AS (base UNION [ALL] step) SELECT ... FROM r
sub make_recursive
{
	my ($from, $scope) = make_leaf(0);
	my ($next, $next_scope) = make_leaf(0);
	my ($base) = usable($scope, 'int4', 1);
	my ($key, $value) = usable($next_scope, 'int4', 1);
	return undef unless $base && $key;
	$value ||= $key;
	my $name = 'r' . substr(next_alias(), 1);
	my $alias = next_alias();
	my $op = chance(0.7) ? 'UNION ALL' : 'UNION';
	my $first = select_from($from, $base, expression('int4', '0'));
	push @{ $first->{where} }, expression('bool', '{} ' . pick('< 2', '= 1', 'IS NOT NULL'), $base);
	my @seen = map { +{ type => 'int4', f => "$alias.c$_", a => [], st => 1, ap => 0 } } 1, 2;
	my $step = select_from(
		{   k => 'join', type => 'JOIN', l => { k => 'cte', name => $name, alias => $alias }, r => $next,
			on => [ expression('bool', '{} = {}', $key, $seen[0]) ]
		},
		$value,
		expression('int4', '({} + 1)', $seen[1]));
	push @{ $step->{where} }, expression('bool', '({} < ' . between(1, 2) . ')', $seen[1]);
	push @{ $step->{where} }, expression('bool', '({} < {})', $key, $value) if $value->{f} ne $key->{f} && chance(0.6);
	my $entry = { name => $name, names => [ 'c1', 'c2' ], q => { k => 'setop', op => $op, arms => [ $first, $step ] }, used => 0 };
	tag("recursive $op");
	local $Oracle::Query::few = $Oracle::Query::few + 1;	# recursion multiplies rows enough
	my $query = Oracle::Query::make_select(0, undef, [$entry]);
	unshift @{ $query->{with} }, $entry;
	$query->{recursive} = 1;
	return $query;
}

# --- rows ------------------------------------------------------------------------------------

# Columns made of a whole row of the first item of FROM.
sub row_columns
{
	my ($query, $scope) = @_;
	my $from = $query->{from};

	return () unless $from->{k} =~ /^(?:table|sub|cte)\z/;
	my $alias = $from->{alias};
	tag('whole row');
	if ($from->{k} ne 'table')
	{
		my ($first) = grep { $_->{f} eq "$alias.c1" } @$scope;
		return { %$first, f => "($alias).c1" } if $first && chance(0.4);
	}
	return pick(
		sub { expression('bool', "($alias IS NULL)") },
		sub { expression('bool', "($alias IS NOT NULL)") },
		sub { expression('bool', "($alias IS DISTINCT FROM NULL)") })->()
	  if $from->{k} ne 'table' || chance(0.4) || grep { !$_->{st} || $_->{ap} } @$scope;
	return expression('row', $alias);
}

1;
