# Tpch.pm: TPC-H data, its 22 queries as stream tables, changes, and the comparison.
#
#   my $tpch = Tpch->new($dbh, scale => 0.01);      # a database with the extension
#   $tpch->load;
#   $tpch->create($_) for 1 .. 22;                  # q1 .. q22
#   $tpch->change($cycle);                          # one cycle's changes, as its number says
#   $tpch->refresh($_);                             # seconds
#   my $what = $tpch->difference($_);               # undef, or what is wrong
package Tpch;

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Time::HiRes qw(time);

my $folder = dirname(dirname(abs_path(__FILE__)));

sub new
{
	my ($class, $dbh, %opt) = @_;
	my $scale = $opt{scale};
	my $self = bless { dbh => $dbh, scale => $scale }, $class;

	$self->{sizes} = {
		suppliers => int(10_000 * $scale),
		parts => int(200_000 * $scale),
		customers => int(150_000 * $scale),
		orders => int(1_500_000 * $scale),
		clerks => int(1_000 * $scale) || 1,
		q11 => sprintf('%.10g', 0.0001 / $scale) };
	$self->{last_order} = $self->{sizes}{orders};
	$self->{queries} = { $self->read_file('queries.sql') =~ /^-- Q(\d+)\n(.*?)(?=^-- Q\d+\n|\z)/gms };
	s/\s+\z// for values %{ $self->{queries} };
	return $self;
}

# The text of a file with the sizes filled in.
sub read_file
{
	my ($self, $name) = @_;

	open my $file, '<', "$folder/$name" or die "$name: $!";
	local $/;
	return <$file> =~ s/\{\{(\w+)\}\}/$self->{sizes}{$1}/gr;
}

sub query { return $_[0]{queries}{ $_[1] } }

sub run
{
	my ($self, $sql) = @_;
	local $SIG{__WARN__} = sub { };
	return $self->{dbh}->do($sql);
}

sub load
{
	my ($self) = @_;

	$self->run($self->read_file($_)) for qw(schema.sql data.sql keys.sql);
	$self->run('VACUUM ANALYZE');
}

# Creates qN, DIFFERENTIAL or in the given mode. Returns undef, or why it cannot be
# maintained incrementally.
sub create
{
	my ($self, $n, $mode) = @_;
	my $create = "SELECT pgtrickle.create_stream_table('q$n', \$q\$$self->{queries}{$n}\$q\$, schedule => '1h',";

	$mode ||= 'DIFFERENTIAL';
	return undef if eval { $self->run("$create refresh_mode => '$mode')"); 1 };
	my $why = $@;
	$self->run("$create refresh_mode => 'AUTO')");
	$why =~ s/^DBD::Pg::db do failed: //;
	return join ' ', map { s/^\s+|\s+$//gr } grep { !/^LINE|^\s*\^/ } split /\n/, $why =~ s/ at \S+ line \d+\.$//mr;
}

# Seconds.
sub refresh
{
	my ($self, $n, $mode) = @_;
	my $start = time();

	$self->run("SELECT pgtrickle.refresh_stream_table('q$n'" . ($mode ? ", '$mode'" : '') . ')');
	return time() - $start;
}

# What the last refresh that did something was: action, reason, changed rows.
sub last_refresh
{
	my ($self, $n) = @_;

	return @{ $self->{dbh}->selectrow_arrayref(
		"SELECT action, coalesce(refresh_reason, ''), rows_in FROM pgtrickle.pgt_refresh_history"
		  . " WHERE pgt_id = (SELECT pgt_id FROM pgtrickle.pgt_definitions WHERE pgt_relid = 'q$n'::regclass)"
		  . ' ORDER BY refresh_id DESC LIMIT 1') };
}

# undef if qN has the rows of its query, by image and as a multiset, and says something.
sub difference
{
	my ($self, $n) = @_;
	my $image = 'count(*), sum(hashtextextended(record_send(r)::text, 0)), count(*) FILTER (WHERE r IS NOT NULL)';
	my ($query, $table) = map { $self->{dbh}->selectrow_arrayref("SELECT $image FROM ($_) AS r") }
	  ($self->{queries}{$n}, "SELECT * FROM q$n");

	return 'the result is empty' if !$query->[2];
	return undef if $query->[0] == $table->[0] && $query->[1] eq ($table->[1] // '');
	return "the query has $query->[0] rows, the stream table $table->[0]:\n" . join("\n",
		map { join ' ', @$_ } @{ $self->{dbh}->selectall_arrayref(
			"(SELECT '+', r::text FROM q$n AS r EXCEPT ALL SELECT '+', r::text FROM ($self->{queries}{$n}) AS r)"
			  . " UNION ALL (SELECT '-', r::text FROM ($self->{queries}{$n}) AS r EXCEPT ALL"
			  . " SELECT '-', r::text FROM q$n AS r) LIMIT 10") });
}

# --- changes -----------------------------------------------------------------------------

# Rows of a table, by a hash that the salt chooses; fast even where the table is large.
sub some
{
	my ($self, $table, $key, $count, $salt) = @_;

	return "SELECT $key FROM $table ORDER BY hashint8extended($key, $salt) LIMIT $count";
}

# The refresh functions of the specification.
sub rf1
{
	my ($self, $count) = @_;
	my ($first, $last) = ($self->{last_order} + 1, $self->{last_order} + $count);

	$self->{last_order} = $last;
	return ("INSERT INTO lineitem SELECT * FROM tpch_lineitem($first, $last)",
		"INSERT INTO orders SELECT * FROM tpch_orders($first, $last)");
}

sub rf2
{
	my ($self, $count, $salt) = @_;
	my $some = $self->some('orders', 'o_orderkey', $count, $salt);

	return ("CREATE TEMP TABLE rf2 AS $some",
		'DELETE FROM lineitem WHERE l_orderkey IN (TABLE rf2)',
		'DELETE FROM orders WHERE o_orderkey IN (TABLE rf2)', 'DROP TABLE rf2');
}

# Every kind of change: name => statements for a salt and a number of rows. Each leaves every
# result with rows: single attributes of planted parts stay, names are exchanged, not lost.
sub kinds
{
	my ($self) = @_;
	my ($suppliers, $parts, $customers) = @{ $self->{sizes} }{qw(suppliers parts customers)};
	my $plain = 'p_partkey % (' . int($parts / 10) . ') >= 8';
	my $lines = sub {
		my ($salt, $n) = @_;
		return "SELECT l_orderkey, l_linenumber FROM lineitem"
		  . " WHERE l_orderkey IN (" . $self->some('orders', 'o_orderkey', $n, $salt) . ') AND l_linenumber <= 2';
	};
	my $some_parts = sub { "p_partkey IN (" . $self->some("(SELECT * FROM part WHERE $plain) AS part", 'p_partkey', $_[1], $_[0]) . ')' };
	my $some_of = sub {
		my ($table, $key) = @_;
		return sub { "$key IN (" . $self->some($table, $key, $_[1], $_[0]) . ')' };
	};
	my $some_orders = $some_of->('orders', 'o_orderkey');
	my $some_customers = $some_of->('customer', 'c_custkey');
	my $some_suppliers = $some_of->('supplier', 's_suppkey');
	my $two = sub { my ($table, $key, $salt) = @_; return $self->some($table, $key, 2, $salt) };

	return (
		rf1 => sub { $self->rf1(2 * $_[1]) },
		rf2 => sub { $self->rf2($_[1], $_[0]) },
		# join keys
		o_custkey => sub { "UPDATE orders SET o_custkey = 1 + tpch_pick(o_orderkey, $_[0], $customers) WHERE " . $some_orders->(@_) },
		l_partkey => sub { "UPDATE lineitem SET (l_partkey, l_suppkey) = (SELECT p, tpch_supplier_of(p, 1) FROM (SELECT 1 + tpch_pick(l_orderkey, $_[0], $parts)) AS n(p)) WHERE (l_orderkey, l_linenumber) IN (" . $lines->(@_) . ')' },
		l_suppkey => sub { "UPDATE lineitem SET l_suppkey = 1 + tpch_pick(l_orderkey, $_[0], $suppliers) WHERE (l_orderkey, l_linenumber) IN (" . $lines->(@_) . ')' },
		l_orderkey => sub { # lines move to another order
			"UPDATE lineitem SET l_orderkey = (SELECT min(o_orderkey) FROM orders WHERE o_orderkey > l_orderkey + 5),"
			  . " l_linenumber = l_linenumber + (SELECT max(l_linenumber) + 1 FROM lineitem)"
			  . ' WHERE l_orderkey < ' . ($self->{last_order} - 100) . ' AND (l_orderkey, l_linenumber) IN (' . $lines->(@_) . ')' },
		o_orderkey => sub { # a key moves with its lines
			my $shift = 10_000_000 * (1 + $_[0] % 97);
			my $who = 'SELECT o_orderkey AS k FROM orders WHERE o_orderkey < 10000000 AND ' . $some_orders->($_[0], 2);
			("CREATE TEMP TABLE moved AS $who", "UPDATE orders SET o_orderkey = o_orderkey + $shift WHERE o_orderkey IN (TABLE moved) AND NOT EXISTS (SELECT FROM orders AS o WHERE o.o_orderkey = orders.o_orderkey + $shift)",
				"UPDATE lineitem SET l_orderkey = l_orderkey + $shift WHERE l_orderkey IN (SELECT k FROM moved WHERE k NOT IN (SELECT o_orderkey FROM orders))", 'DROP TABLE moved') },
		s_nationkey => sub { 'UPDATE supplier SET s_nationkey = (s_nationkey + 1) % 25 WHERE s_suppkey > 50 AND ' . $some_suppliers->($_[0], 1) },
		s_exchange => sub { "UPDATE supplier AS s SET s_nationkey = o.s_nationkey, s_phone = o.s_phone FROM supplier AS o WHERE s.s_suppkey <> o.s_suppkey AND s.s_suppkey IN (" . $two->('supplier', 's_suppkey', $_[0]) . ') AND o.s_suppkey IN (' . $two->('supplier', 's_suppkey', $_[0]) . ')' },
		c_nationkey => sub { "UPDATE customer SET c_nationkey = tpch_pick(c_custkey, $_[0], 25), c_phone = tpch_phone(tpch_pick(c_custkey, $_[0], 25), c_custkey) WHERE " . $some_customers->(@_) },
		n_regionkey => sub { my $a = $_[0] % 25; my $b = ($_[0] + 7) % 25; "UPDATE nation AS n SET n_regionkey = o.n_regionkey FROM nation AS o WHERE n.n_nationkey IN ($a, $b) AND o.n_nationkey IN ($a, $b) AND n.n_nationkey <> o.n_nationkey" },
		ps_key => sub { # a part gets another supplier
			"UPDATE partsupp SET ps_suppkey = s FROM (SELECT ps_partkey AS p, min(ps_suppkey) AS f, 1 + tpch_pick(ps_partkey, $_[0], $suppliers) AS s FROM partsupp WHERE ps_partkey IN (" . $self->some('part', 'p_partkey', $_[1], $_[0]) . ') GROUP BY 1) AS x'
			  . ' WHERE ps_partkey = p AND ps_suppkey = f AND NOT EXISTS (SELECT FROM partsupp AS o WHERE o.ps_partkey = p AND o.ps_suppkey = s)' },
		ps_delete => sub { 'DELETE FROM partsupp WHERE (ps_partkey, ps_suppkey) IN (SELECT ps_partkey, max(ps_suppkey) FROM partsupp WHERE ps_partkey IN (' . $self->some('part', 'p_partkey', 1, $_[0]) . ') GROUP BY 1 HAVING count(*) > 2)' },
		ps_insert => sub { "INSERT INTO partsupp SELECT p_partkey, 1 + tpch_pick(p_partkey, $_[0], $suppliers), 100, 50.00, 'new' FROM part WHERE p_partkey IN (" . $self->some('part', 'p_partkey', 2, $_[0]) . ') ON CONFLICT DO NOTHING' },
		# other attributes
		ps_cost => sub { "UPDATE partsupp SET ps_supplycost = 1 + tpch_pick(ps_suppkey, $_[0], 99900) / 100.0, ps_availqty = 1 + tpch_pick(ps_suppkey, $_[0], 9998) WHERE ps_partkey IN (" . $self->some('part', 'p_partkey', $_[1], $_[0]) . ')' },
		c_mktsegment => sub { "UPDATE customer SET c_mktsegment = tpch_of('{AUTOMOBILE,BUILDING,FURNITURE,HOUSEHOLD,MACHINERY}', c_custkey, $_[0]) WHERE " . $some_customers->(@_) },
		c_acctbal => sub { "UPDATE customer SET c_acctbal = tpch_pick(c_custkey, $_[0], 1099999) / 100.0 - 999.99, c_name = c_name || '*' WHERE length(c_name) < 22 AND " . $some_customers->(@_) },
		p_brand => sub { "UPDATE part SET p_brand = 'Brand#' || 11 + 10 * tpch_pick(p_partkey, $_[0], 5) + tpch_pick(p_partkey, $_[0] + 1, 5) WHERE " . $some_parts->(@_) },
		p_type => sub { "UPDATE part SET p_type = (SELECT o.p_type FROM part AS o WHERE o.p_partkey = 1 + tpch_pick(part.p_partkey, $_[0], $parts)) WHERE " . $some_parts->(@_) },
		p_size => sub { "UPDATE part SET p_size = 1 + tpch_pick(p_partkey, $_[0], 50) WHERE " . $some_parts->(@_) },
		p_name => sub { "UPDATE part SET p_name = (SELECT o.p_name FROM part AS o WHERE o.p_partkey = 1 + tpch_pick(part.p_partkey, $_[0], $parts)) WHERE " . $some_parts->(@_) },
		p_exchange => sub { "UPDATE part AS p SET p_name = o.p_name, p_brand = o.p_brand, p_type = o.p_type, p_size = o.p_size, p_container = o.p_container, p_mfgr = o.p_mfgr FROM part AS o WHERE p.p_partkey <> o.p_partkey AND p.p_partkey IN (" . $two->('part', 'p_partkey', $_[0]) . ') AND o.p_partkey IN (' . $two->('part', 'p_partkey', $_[0]) . ')' },
		s_acctbal => sub { "UPDATE supplier SET s_acctbal = tpch_pick(s_suppkey, $_[0], 1099999) / 100.0 - 999.99, s_address = s_address || '*' WHERE length(s_address) < 30 AND " . $some_suppliers->($_[0], 1) },
		s_comment => sub { "UPDATE supplier SET s_comment = CASE WHEN s_comment LIKE '%Customer%Complaints%' THEN 'none' ELSE 'Customer Complaints' END WHERE " . $some_suppliers->($_[0], 1) },
		n_name => sub { my $a = $_[0] % 25; my $b = ($_[0] + 3) % 25; "UPDATE nation AS n SET n_name = o.n_name FROM nation AS o WHERE n.n_nationkey IN ($a, $b) AND o.n_nationkey IN ($a, $b) AND n.n_nationkey <> o.n_nationkey" },
		r_name => sub { my $a = $_[0] % 5; my $b = ($_[0] + 1) % 5; "UPDATE region AS n SET r_name = o.r_name FROM region AS o WHERE n.r_regionkey IN ($a, $b) AND o.r_regionkey IN ($a, $b) AND n.r_regionkey <> o.r_regionkey" },
		o_orderdate => sub { "UPDATE orders SET o_orderdate = o_orderdate + 100, o_orderpriority = tpch_of('{1-URGENT,2-HIGH,3-MEDIUM,4-NOT SPECIFIED,5-LOW}', o_orderkey, $_[0]) WHERE o_orderdate < date '1998-01-01' AND " . $some_orders->(@_) },
		o_comment => sub { "UPDATE orders SET o_comment = CASE WHEN o_comment LIKE '%special%requests%' THEN 'plain' ELSE 'special requests' END, o_totalprice = o_totalprice + 1, o_orderstatus = CASE o_orderstatus WHEN 'F' THEN 'P' ELSE 'F' END WHERE " . $some_orders->(@_) },
		l_quantity => sub { "UPDATE lineitem SET l_quantity = 1 + tpch_pick(l_orderkey, $_[0], 50), l_discount = tpch_pick(l_orderkey, $_[0], 11) / 100.0 WHERE (l_orderkey, l_linenumber) IN (" . $lines->(@_) . ')' },
		l_dates => sub { "UPDATE lineitem SET l_shipdate = l_shipdate + 30, l_receiptdate = l_receiptdate + 30, l_returnflag = CASE l_returnflag WHEN 'R' THEN 'A' ELSE 'R' END, l_shipmode = tpch_of('{REG AIR,AIR,RAIL,SHIP,TRUCK,MAIL,FOB}', l_orderkey, $_[0]) WHERE l_shipdate < date '1998-06-01' AND (l_orderkey, l_linenumber) IN (" . $lines->(@_) . ')' },
	);
}

# The changes of a cycle, in one transaction: one kind alone, a handful, or everything.
# Returns the names of the kinds.
sub change
{
	my ($self, $cycle) = @_;
	my %kinds = $self->kinds;
	my @names = sort keys %kinds;
	my @chosen =
	    $cycle % 10 == 0 ? @names
	  : $cycle % 3 == 0 ? ($names[ $cycle / 3 % @names ])
	  :                   ('rf1', 'rf2', map { $names[ ($cycle * 7 + $_ * 11) % @names ] } 1 .. 3 + $cycle % 4);
	my $rows = $cycle % 3 == 0 ? 1 : 1 + $cycle % 4;
	my %seen;

	@chosen = grep { !$seen{$_}++ } @chosen;
	$self->run('BEGIN');
	for my $name (@chosen)
	{
		$self->run($_) for $kinds{$name}->($cycle * 100 + 1, $rows);
	}
	$self->run('COMMIT');
	return @chosen;
}

# A fraction of the data: a third each of the orders inserted, deleted and updated, with their
# lines; and, unless only these are wanted, the same fraction of the rows of part, partsupp,
# customer and supplier updated. Returns the number of changed rows of lineitem.
sub change_fraction
{
	my ($self, $fraction, $salt, $all) = @_;
	my $orders = int($self->{sizes}{orders} * $fraction / 3) || 1;
	my %count = map { $_ => int($self->{sizes}{"${_}s"} * $fraction) || 1 } qw(part customer supplier);
	my $some = sub { my ($table, $key, $n) = @_; return $self->some($table, $key, $n, $salt + 1) };

	$self->run('BEGIN');
	$self->run($_) for $self->rf1($orders), $self->rf2($orders, $salt);
	$self->run("CREATE TEMP TABLE updated AS " . $some->('orders', 'o_orderkey', $orders));
	$self->run('ANALYZE updated');
	my $lines = $self->run('UPDATE lineitem SET l_quantity = l_quantity % 50 + 1, l_discount = 0.10 - l_discount, l_receiptdate = l_receiptdate + 1 WHERE l_orderkey IN (TABLE updated)');
	$self->run("UPDATE orders SET o_totalprice = o_totalprice + 1, o_orderpriority = tpch_of('{1-URGENT,2-HIGH,3-MEDIUM,4-NOT SPECIFIED,5-LOW}', o_orderkey, $salt), o_orderdate = o_orderdate + 1 WHERE o_orderkey IN (TABLE updated)");
	$self->run('DROP TABLE updated');
	if ($all)
	{
		$self->run("UPDATE part SET p_size = p_size % 50 + 1, p_type = (SELECT o.p_type FROM part AS o WHERE o.p_partkey = 1 + tpch_pick(part.p_partkey, $salt, $self->{sizes}{parts})) WHERE p_partkey IN (" . $some->('part', 'p_partkey', $count{part}) . ')');
		$self->run('UPDATE partsupp SET ps_supplycost = ps_supplycost + 1, ps_availqty = ps_availqty + 1 WHERE ps_partkey IN (' . $some->('part', 'p_partkey', $count{part}) . ')');
		$self->run("UPDATE customer SET c_acctbal = c_acctbal + 1, c_mktsegment = tpch_of('{AUTOMOBILE,BUILDING,FURNITURE,HOUSEHOLD,MACHINERY}', c_custkey, $salt) WHERE c_custkey IN (" . $some->('customer', 'c_custkey', $count{customer}) . ')');
		$self->run('UPDATE supplier SET s_acctbal = s_acctbal + 1, s_nationkey = (s_nationkey + 1) % 25 WHERE s_suppkey IN (' . $some->('supplier', 's_suppkey', $count{supplier}) . ')');
	}
	$self->run('COMMIT');
	return $lines * 3;
}

1;
