# Corpus::Probe: one query as a materialized view and as a stream table; what differs?
package Corpus::Probe;

use strict;
use warnings;

# Kinds of outcome, in the order of the report. The last ones are bugs.
our @KINDS = qw(unusable incremental full refused undetermined
  unclear different stale error slow crash);
our @BUGS = qw(unclear different stale error slow crash);

# Planner settings under which the query is asked again when rows differ: one that does not
# agree with itself proves nothing.
my @OTHER_PLANS = (
	[qw(enable_hashagg enable_hashjoin enable_sort)],
	[qw(enable_seqscan enable_mergejoin)],
	[qw(enable_nestloop enable_indexscan enable_bitmapscan enable_indexonlyscan)]);

sub new
{
	my ($class, %opt) = @_;
	return bless {%opt}, $class;
}

sub run
{
	my ($self, $dbh, $query) = @_;

	$self->{dbh} = $dbh;
	my $outcome = eval { $self->probe($query) };
	return $outcome if $outcome;
	return { kind => 'crash', message => $@ } unless $dbh->ping;
	# Only the comparison is not tried: it raises what the query raises, or takes too long.
	return { kind => ($dbh->state || '') eq '57014' ? 'slow' : 'error', message => $self->message };
}

sub message { return $_[0]->{dbh}->errstr // $@ }

# Runs statements after a savepoint; false, with the savepoint rolled back, if one fails.
sub try
{
	my ($self, @sql) = @_;
	my $dbh = $self->{dbh};

	$dbh->do('SAVEPOINT corpus_try');
	for my $sql (@sql)
	{
		next if eval { $dbh->do($sql); 1 };
		die "lost\n" unless $dbh->ping;
		@$self{qw(failure state)} = ($self->message, $dbh->state);
		$self->{position} = $dbh->pg_error_field('statement_position') // $dbh->pg_error_field('internal_position');
		$self->{detail} = $dbh->pg_error_field('message_detail');
		$self->{primary} = $dbh->pg_error_field('message_primary');
		$dbh->do('ROLLBACK TO SAVEPOINT corpus_try');
		return 0;
	}
	return 1;
}

sub quoted { return $_[0]->{dbh}->quote($_[1]) }

# The same with columns of different names that a table can have.
sub with_other_names
{
	my ($self, $query) = @_;
	my $dbh = $self->{dbh};
	my ($low, $high) = (0, 64);

	$query =~ s/^\s*(table\s+\S+)\z/SELECT * FROM ($1) AS corpus_q/i;
	while ($low < $high)
	{
		my $middle = int(($low + $high + 1) / 2);
		my $names = join ', ', map { "c$_" } 1 .. $middle;

		if ($self->try("CREATE VIEW corpus.v ($names) AS $query"))
		{
			$dbh->do('ROLLBACK TO SAVEPOINT corpus_try');
			$low = $middle;
		}
		elsif ($self->{primary} =~ /more column names than columns/) { $high = $middle - 1; }
		elsif ($self->{state} eq '42701') { $low = $middle; }
		else { return $query; }
	}
	my $names = join ', ', map { "c$_" } 1 .. $low;
	return "SELECT * FROM ($query) AS corpus_q ($names)";
}

sub probe
{
	my ($self, $query) = @_;
	my $dbh = $self->{dbh};
	my ($path) = $dbh->selectrow_array("SELECT setting FROM pg_settings WHERE name = 'search_path'");

	$path = "''" if $path eq '';
	if (!$self->try("CREATE MATERIALIZED VIEW corpus.m AS $query WITH NO DATA"))
	{
		return { kind => 'unusable', message => $self->{primary} } unless $self->{state} eq '42701';
		$query = $self->with_other_names($query);
		$self->try("CREATE MATERIALIZED VIEW corpus.m AS $query WITH NO DATA")
		  or return { kind => 'unusable', message => $self->{primary} };
	}
	# As later servers do, and as stream tables are filled.
	# Some values can be stored, but not shown: array[]::oidvector.
	$self->try('SET LOCAL search_path = pg_catalog, pg_temp', 'REFRESH MATERIALIZED VIEW corpus.m',
		'SELECT count(x::text) FROM corpus.m AS x', "SET LOCAL search_path = $path")
	  or return { kind => 'unusable', message => $self->{primary} };
	$dbh->do("CREATE VIEW corpus.v AS $query");
	return { kind => 'unusable', message => 'the extension is not visible' }
	  unless $self->try('SELECT pgtrickle.validate_query(' . $self->quoted('SELECT 1') . ')');
	if (!$self->try('SELECT pgtrickle.create_stream_table(' . join(', ', $self->quoted('corpus.s'), $self->quoted($query), $self->quoted('1h')) . ')'))
	{
		return { kind => 'slow', query => $query, message => $self->{failure} } if $self->{state} eq '57014';
		# Rights, isolation levels and open cursors are not about a place in the query.
		my $placed = $self->{position} || $self->{state} !~ /^(?:0A|22|42[67P])/;
		my $clear = $self->{state} !~ /^XX/ && $placed && ($self->{detail} || $self->{failure} =~ /HINT:/);
		return { kind => $clear ? 'refused' : 'unclear', query => $query, message => $self->{failure}, position => $self->{position} };
	}
	$dbh->do('SET LOCAL search_path = pg_catalog, pg_temp');
	my ($reason) = $dbh->selectrow_array("SELECT full_reason FROM pgtrickle.pgt_definitions WHERE pgt_relid = 'corpus.s'::regclass");
	my $difference = $self->difference;
	my $result = { kind => defined $reason ? 'full' : 'incremental', query => $query, message => $reason // '' };

	return $self->judge({ %$result, kind => 'different' }, $difference) if $difference;
	return $self->change_and_refresh($result);
}

sub difference
{
	my ($self) = @_;
	my $dbh = $self->{dbh};
	my $rows = $dbh->selectcol_arrayref(<<'SQL');
SELECT what || x FROM (
	(SELECT 'too much: ' AS what, x::text COLLATE "C" AS x FROM corpus.s AS x EXCEPT ALL SELECT 'too much: ', x::text COLLATE "C" FROM corpus.v AS x)
	UNION ALL
	(SELECT 'missing: ', x::text COLLATE "C" FROM corpus.v AS x EXCEPT ALL SELECT 'missing: ', x::text COLLATE "C" FROM corpus.s AS x)) AS d
LIMIT 6
SQL
	return join "\n", @$rows;
}

# Does the query agree with itself under other plans, and does it have the same rows again?
sub judge
{
	my ($self, $result, $difference) = @_;
	my $dbh = $self->{dbh};
	my $rows = 'SELECT count(*), sum(hashtextextended(x::text COLLATE "C", 0)::numeric) FROM corpus.v AS x';
	my $expected = join ' ', map { $_ // 'NULL' } $dbh->selectrow_array($rows);

	$result->{message} .= "\n$difference";
	my $counts = $dbh->selectall_arrayref('SELECT count(*) FROM corpus.s UNION SELECT count(*) FROM corpus.v');
	return { %$result, kind => 'undetermined' }
	  if @$counts == 1 && $result->{query} =~ /\blimit\b|\bdistinct\s+on\b/i && $result->{query} !~ /order\s+by/i;
	return { %$result, kind => 'undetermined' } if $result->{query} =~ /agg\w*\s*\(/i && $result->{query} !~ /order\s+by/i && $self->only_order_differs;
	# The rows of a frame without ORDER BY have no first and no last.
	return { %$result, kind => 'undetermined' }
	  if $result->{query} =~ /_value\w*\s*\([^()]*\)\s*over\s*\((?:\s*partition\s+by\s+\w+)?\s*\)/i;
	return { %$result, kind => 'undetermined' } if $self->only_ties_differ;
	for my $settings (@OTHER_PLANS)
	{
		$dbh->do('SAVEPOINT corpus_plan');
		$dbh->do("SET LOCAL $_ = off") for @$settings;
		my $other = join ' ', map { $_ // 'NULL' } $dbh->selectrow_array($rows);
		$dbh->do('ROLLBACK TO SAVEPOINT corpus_plan');
		return { %$result, kind => 'undetermined' } if $other ne $expected;
	}
	return $result;
}

# The order in which an aggregate takes its rows shows in its value, and nothing determines it.
sub only_order_differs
{
	my ($self) = @_;
	my ($s, $v) = map {
		join "\n", sort map { join '', sort split //, $_ }
		  @{ $self->{dbh}->selectcol_arrayref("SELECT x::text FROM corpus.$_ AS x") }
	} qw(s v);

	return $s eq $v;
}

# Which of the rows that tie with the last one a LIMIT takes.
sub only_ties_differ
{
	my ($self) = @_;
	my ($query) = $self->{dbh}->selectrow_array(q{SELECT pg_get_viewdef('corpus.v'::regclass)});

	# The file's own search_path is not in force any more.
	return 0 unless $query =~ s/\bLIMIT\s+(\d+)\s*;\z/FETCH FIRST $1 ROWS WITH TIES/;
	return 0 unless $self->try("CREATE VIEW corpus.ties AS $query");
	my ($beyond) = $self->{dbh}->selectrow_array('SELECT count(*) FROM (SELECT x::text COLLATE "C" FROM corpus.s AS x EXCEPT ALL SELECT x::text COLLATE "C" FROM corpus.ties AS x) AS d');
	my $counts = $self->{dbh}->selectall_arrayref('SELECT count(*) FROM corpus.s UNION SELECT count(*) FROM corpus.v');
	return $beyond == 0 && @$counts == 1;
}

# The tables that the query reads, with views expanded.
sub sources
{
	my ($self) = @_;
	my $dbh = $self->{dbh};
	my ($row_security) = $dbh->selectrow_array('SHOW row_security');

	# The catalog has policies, and a file may have switched them off.
	$dbh->do('SET LOCAL row_security = on');
	my $sources = $dbh->selectcol_arrayref(<<'SQL');
SELECT DISTINCT s.source_relid::regclass::text FROM pgtrickle.pgt_dependencies AS s
WHERE s.pgt_id = (SELECT pgt_id FROM pgtrickle.pgt_definitions WHERE pgt_relid = 'corpus.s'::regclass)
	AND s.source_relid >= 16384
	AND (SELECT relkind FROM pg_class WHERE oid = s.source_relid) IN ('r', 'p') ORDER BY 1
SQL
	$dbh->do("SET LOCAL row_security = $row_security");
	return @$sources;
}

sub change
{
	my ($self, $table, $round) = @_;
	my $dbh = $self->{dbh};
	my $some = sub { "(tableoid, ctid) IN (SELECT tableoid, ctid FROM $table AS x WHERE abs(hashtext(x::text COLLATE \"C\")) % 7 = ($_[0] + $round) % 7 LIMIT 4)" };

	$self->try("INSERT INTO $table SELECT * FROM $table AS x WHERE " . $some->(1));
	$self->try("DELETE FROM $table WHERE " . $some->(2));
	my $columns = $dbh->selectall_arrayref(<<SQL);
SELECT quote_ident(attname), CASE typcategory WHEN 'N' THEN quote_ident(attname) || ' + 1' WHEN 'S' THEN quote_ident(attname) || ' || ''x''' ELSE 'NULL' END
FROM pg_attribute JOIN pg_type AS t ON t.oid = atttypid
WHERE attrelid = '$table'::regclass AND attnum > 0 AND NOT attisdropped
SQL
	for my $column (@$columns)
	{
		$self->try("UPDATE $table SET $column->[0] = $column->[1] WHERE " . $some->(3 + $round));
	}
}

sub change_and_refresh
{
	my ($self, $result) = @_;
	my $dbh = $self->{dbh};
	my @sources = $self->sources;

	for my $round (1 .. $self->{rounds})
	{
		$self->change($_, $round) for @sources;
		# Errors of the query itself over the changed rows are not ours.
		return { %$result, after => 'changes raise an error' } unless $self->try('SELECT count(x) FROM corpus.v AS x');
		my $mode = $result->{kind} eq 'incremental' ? ", 'DIFFERENTIAL'" : '';
		if (!$self->try("SELECT pgtrickle.refresh_stream_table('corpus.s'$mode)"))
		{
			return { %$result, kind => $self->{state} eq '57014' ? 'slow' : 'error', message => $self->{failure} };
		}
		my $difference = $self->difference;
		return $self->judge({ %$result, kind => 'stale' }, $difference) if $difference;
	}
	return $result;
}

1;
