# Oracle::Runner: runs a case and compares after every refresh. One process drives all
# sessions, one statement at a time, so nothing commits between a refresh and its
# comparison, and the snapshot of the comparison is the frontier's.
package Oracle::Runner;

use strict;
use warnings;

use DBI;
use Time::HiRes qw(time sleep);

use Oracle::Types;
use Oracle::Schema;
use Oracle::Tree;
use Oracle::Case;
use Oracle::Alter;
use Oracle::Compare;
use Oracle::Storm;

our @ISA = ('Oracle::Storm');
my $SESSIONS = 4;

# States in which a statement merely had to give way to another session.
my %GAVE_WAY = map { $_ => 1 } qw(55P03 40P01 57014 40001);

sub new
{
	my ($class, %opt) = @_;
	my $self = bless { %opt, session => {}, stats => {} }, $class;
	return $self;
}

# --- connections -----------------------------------------------------------------------

sub connect_session
{
	my ($self, $s) = @_;
	my $dbh;

	for (1 .. 600)
	{
		$dbh = DBI->connect(
			"dbi:Pg:dbname=$self->{dbname};host=$self->{host};port=$self->{port}",
			$self->{user}, '',
			{   RaiseError => 0, PrintError => 0, PrintWarn => 0, AutoCommit => 1,
				pg_server_prepare => 0, pg_enable_utf8 => 0
			});
		last if $dbh;
		sleep(0.05);		# a server that is starting again after a crash
	}
	die "could not connect: $DBI::errstr\n" unless $dbh;
	$self->{session}{$s} = $dbh;
	return $dbh;
}

sub session
{
	my ($self, $s) = @_;
	return $self->{session}{$s} || $self->connect_session($s);
}

# True, or false with the error in $self->{sqlstate} and {message}.
sub run_sql
{
	my ($self, $s, $sql) = @_;
	my $dbh = $self->session($s);

	local $SIG{__WARN__} = sub { };
	$self->trace("$s: $sql") if $self->{verbose};
	return 1 if defined $dbh->do($sql);
	$self->note_error($s);
	return 0;
}

sub note_error
{
	my ($self, $s) = @_;
	my $dbh = $self->session($s);

	$self->{sqlstate} = $dbh->state || '00000';
	$self->{message} = $dbh->errstr || '';
	$self->{message} =~ s/\s+\z//;
	$self->trace("   $self->{sqlstate} $self->{message}") if $self->{verbose};
	die { kind => 'crash', key => 'crash', detail => $self->{message} }
	  if $self->{sqlstate} =~ /^(?:57P0[1-3]|08)/ || !$dbh->ping;
}

sub rows
{
	my ($self, $s, $sql) = @_;
	local $SIG{__WARN__} = sub { };
	my $rows = $self->session($s)->selectall_arrayref($sql);

	$self->trace("$s: $sql") if $self->{verbose} && $self->{verbose} > 1;
	$self->note_error($s) unless $rows;
	return $rows;
}

sub sql_value
{
	my ($self, $s, $sql) = @_;
	my $rows = $self->rows($s, $sql);
	return $rows && @$rows ? $rows->[0][0] : undef;
}

sub in_transaction
{
	my ($self, $s) = @_;
	return $self->session($s)->ping == 3 || $self->session($s)->ping == 4;
}

sub trace { print STDERR "$_[1]\n" }

sub count { my ($self, $what, @path) = @_; $self->{stats}{$what}{ join(' ', @path) }++ }

# --- a case ----------------------------------------------------------------------------

# undef if all is well, else { kind, key, detail, step, stream }.
sub run_case
{
	my ($self, $case, %opt) = @_;
	my $failure;

	$self->{case} = $case;
	$self->{technique} = $opt{technique} || '';
	$self->{quiet} = $opt{quiet};
	$self->{iso} = {};
	my $stats = $self->{stats};
	$self->{stats} = {} if $opt{quiet};
	eval {
		$self->prepare_sessions;
		$self->set_up;
		$self->run_steps;
		$self->finish;
		1;
	} or do {
		$failure = $@;
		$failure = { kind => 'tester', key => 'tester', detail => "$failure" } unless ref $failure;
		$failure->{step} = $self->{step} unless defined $failure->{step};
		$failure->{technique} = $self->{technique};
	};
	my $left = eval { $self->clean_up };
	if (!defined $left)
	{
		# Sessions are gone or something cannot be dropped: begin with a new database.
		my $error = ref $@ ? $@->{detail} : $@;
		eval { $self->new_database };
		$left = "the schema could not be dropped: $error";
	}
	$failure ||= { kind => 'cleanup', key => 'cleanup', detail => $left } if $left ne '';
	$self->{stats} = $stats;
	return $failure;
}

sub new_database
{
	my ($self) = @_;

	$_->disconnect for values %{ $self->{session} };
	$self->{session} = {};
	my $dbh = do { local $self->{dbname} = 'postgres'; $self->connect_session('admin') };
	for (1 .. 100)
	{
		$dbh->do("ROLLBACK PREPARED '$_->[0]'") for @{ $dbh->selectall_arrayref('SELECT gid FROM pg_prepared_xacts') || [] };
		last if $dbh->do("DROP DATABASE IF EXISTS $self->{dbname} WITH (FORCE)");
		sleep(0.05);
	}
	$dbh->do('CREATE ROLE tester');
	$dbh->do('GRANT SET ON PARAMETER session_replication_role TO tester');
	$dbh->do("CREATE DATABASE $self->{dbname}") or die "CREATE DATABASE: " . $dbh->errstr;
	$dbh->disconnect;
	delete $self->{session}{admin};
	$dbh = $self->connect_session('admin');
	if ($self->{fake})
	{
		$dbh->do($self->{fake}) or die 'fake: ' . $dbh->errstr;
	}
	else
	{
		$dbh->do('CREATE EXTENSION pg_trickle') or die 'CREATE EXTENSION: ' . $dbh->errstr;
	}
}

sub prepare_sessions
{
	my ($self) = @_;

	for my $s (1 .. $SESSIONS)
	{
		$self->run_sql($s, 'DISCARD ALL') or die $self->{message};
		$self->run_sql($s, $_)
		  for 'SET client_min_messages = error', 'SET lock_timeout = 40', 'SET statement_timeout = 20000',
		  @{ $self->{case}{settings}{$s} || [] };
		if (!$self->{fake})
		{
			$self->run_sql($s, 'LOAD \'pg_trickle\'');
			$self->run_sql($s, "SET pg_trickle.force_technique = '$self->{technique}'") or die $self->{message};
			$self->run_sql($s, 'SET pg_trickle.max_stage_rows = 0') if $self->{technique} eq '2kr';
			$self->run_sql($s, 'SET pg_trickle.verify = on');
			# Tables this small are always cheaper in full.
			my $ratio = defined $self->{case}{ratio} ? $self->{case}{ratio} : 1;
			$self->run_sql($s, "SET pg_trickle.differential_max_change_ratio = $ratio");
		}
		$self->run_sql($s, 'SET SESSION AUTHORIZATION tester') if $self->{case}{role};
	}
	$self->run_sql('admin', $_)
	  for 'RESET SESSION AUTHORIZATION', 'SET client_min_messages = error', 'SET lock_timeout = 10000', 'GRANT CREATE ON DATABASE oracle TO tester',
	  $self->{case}{role} ? 'SET SESSION AUTHORIZATION tester' : ();
	$self->{step} = 'setup';
}

sub set_up
{
	my ($self) = @_;
	my $case = $self->{case};

	for my $sql (setup_sql($case))
	{
		$self->run_sql('admin', $sql)
		  or die { kind => 'invalid', key => 'invalid', detail => "$self->{message}\n$sql" };
	}
	delete @$_{qw(current rejected taken)} for @{ $case->{streams} };
	$self->create_stream(1, $_) for grep { !$_->{late} } @{ $case->{streams} };
}

# Does PostgreSQL take the query at all, and in a time that leaves room for others?
sub takes_query
{
	my ($self, $stream, $tree) = @_;
	my $query = query_sql($tree);

	$self->run_sql('admin', 'SET statement_timeout = 300');
	my $taken = $self->run_sql('admin', "SELECT * FROM ($query) AS q");
	my ($state, $message) = ($self->{sqlstate}, $self->{message});
	$self->run_sql('admin', 'SET statement_timeout = 0');
	return 1 if $taken;
	# Not while another session changes a table that it reads.
	return 0 if $state eq '55P03';
	if ($state =~ /^(?:42P01|42703)$/)
	{
		$self->count('queries that read what is not there', $state);
		return 0;
	}
	$self->count('queries that PostgreSQL rejects', $state);
	$self->trace("rejected: $message\n  $query") if $self->{explain_rejected};
	$stream->{rejected} = $message;
	return 0;
}

sub exists_in
{
	my ($self, $s, $name) = @_;
	my $relation = table_name($name) =~ s/'/''/gr;
	return $self->sql_value($s, "SELECT to_regclass('$relation') IS NOT NULL");
}

sub create_stream
{
	my ($self, $s, $stream) = @_;

	return 0 if $stream->{rejected} || $self->reads_reshaped(current_query($stream));
	return 0 unless $self->takes_query($stream, current_query($stream));
	my $ok = $self->run_sql($s, stream_sql($stream));
	if (!$ok && $self->{sqlstate} eq '0A000' && $stream->{mode} eq 'DIFFERENTIAL')
	{
		$self->count('not maintained', $1) if $self->{message} =~ /Reason: (.*?)\.?\n/;
		$ok = $self->in_transaction($s) ? undef : $self->run_sql($s, stream_sql($stream, 'AUTO'));
		return $self->abort($s) unless defined $ok;
	}
	if (!$ok && $self->{sqlstate} eq '42P10' && $self->{message} =~ /position -?\d+ is not in select list/)
	{
		# PostgreSQL prints a constant key like -(0) as a column number, in its own views, too.
		$self->count('queries that PostgreSQL rejects', 'as it prints them');
		$stream->{rejected} = $self->{message};
		$self->abort($s);
		return 0;
	}
	if (!$ok)
	{
		my $state = $self->{sqlstate};
		my $isolated = $self->{iso}{$s} && $self->in_transaction($s);
		die {
			kind => 'create', key => "create $state", stream => $stream->{name},
			detail => "$self->{message}\n" . stream_sql($stream)
		} unless $GAVE_WAY{$state} || $isolated || $state =~ /^(?:42P07|42710|23505|42P01|25P02|25001)$/;
		$self->count('creations', "gave way $state");
		$self->abort($s);
		return 0;
	}
	$self->count('creations', $self->in_transaction($s) ? 'in a transaction' : 'alone');
	$self->note_mode($s, $stream);
	$self->check($s, $stream->{name}, 'creation');
	return 1;
}

sub create_step
{
	my ($self, $step) = @_;
	my $stream = $self->stream($step->{st});

	return if !$stream || $self->exists_in($step->{s}, $step->{st});
	$self->create_stream($step->{s}, $stream);
}

sub drop_step
{
	my ($self, $step) = @_;

	return unless $self->stream($step->{st}) && $self->exists_in($step->{s}, $step->{st});
	my $name = table_name($step->{st}) =~ s/'/''/gr;
	my $cascade = $step->{cascade} ? ', cascade => true' : '';
	$self->write($step->{s}, "SELECT pgtrickle.drop_stream_table('$name'$cascade)");
}

sub reads_reshaped
{
	my ($self, $tree) = @_;
	my $query = query_sql($tree);
	return scalar grep { is_reshaped($_) && index($query, table_name($_->{name})) >= 0 } @{ $self->{case}{streams} };
}

# Another query for a stream table, between transactions.
sub alter_step
{
	my ($self, $step) = @_;
	my ($s, $stream) = ($step->{s}, $self->stream($step->{st}));

	return if !$stream || $self->in_transaction($s) || !$self->exists_in($s, $step->{st});
	my $tree = $stream->{current} ? $stream->{q} : $step->{q};
	return if $self->reads_reshaped($tree) || !$self->takes_query({}, $tree);
	my $name = table_name($step->{st}) =~ s/'/''/gr;
	my $query = query_sql($tree) =~ s/'/''/gr;
	my $cascade = $step->{cascade} ? ', cascade => true' : '';
	my $sql = "SELECT pgtrickle.alter_stream_table('$name', query => '$query', refresh_mode => 'AUTO'$cascade)";
	my @all = map { $_->{name} } @{ $self->{case}{streams} };
	my @there = grep { $self->exists_in($s, $_) } @all;
	my $columns = $self->columns_of($s, $step->{st});

	return $self->alter_failed($s, $step, $sql) unless $self->run_sql($s, $sql);
	my @lost = grep { !$self->exists_in($s, $_) } @there;
	my $same = index($self->columns_of($s, $step->{st}), $columns) == 0;
	$stream->{current} = $stream->{current} ? undef : $tree;
	$self->count('creations', 'altered' . ($cascade && ', cascade') . (!@lost ? '' : ', readers lost'));
	die { kind => 'alter', key => 'alter lost', stream => $step->{st}, detail => "lost: @lost\n$sql" }
	  if @lost && ($same || !$cascade);
	$self->check($s, $step->{st}, 'alteration');
}

sub alter_failed
{
	my ($self, $s, $step, $sql) = @_;
	my ($state, $message) = ($self->{sqlstate}, $self->{message});

	$self->count('creations', "alteration failed $state");
	# Readers that rely on the key are refreshed, too; their queries may fail on the new rows.
	# An index of the user may not be able to hold these.
	return if $state =~ /^2[12]/ && grep { index(query_sql(current_query($_)), table_name($step->{st})) >= 0 } @{ $self->{case}{streams} };
	die { kind => 'alter', key => "alter $state", stream => $step->{st}, detail => "$message\n$sql" }
	  unless $GAVE_WAY{$state} || $state =~ /^(?:2BP01|54000)$/ || $message =~ /does not fit the columns/;
}

# Names and types of its columns, each with an end, so that one list can begin another.
sub columns_of
{
	my ($self, $s, $name) = @_;
	my $relation = table_name($name) =~ s/'/''/gr;

	return $self->sql_value($s, "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod) || ' ' || attcollation || ';', '' ORDER BY attnum)"
		  . " FROM pg_attribute WHERE attrelid = to_regclass('$relation') AND attnum > 0 AND NOT attisdropped");
}

# How it will be maintained, for the statistics.
sub note_mode
{
	my ($self, $s, $stream) = @_;
	my $name = table_name($stream->{name}) =~ s/'/''/gr;
	my $sth = $self->session($s)->prepare("SELECT * FROM pgtrickle.explain_refresh_mode('$name')");
	my $row = $sth && $sth->execute ? $sth->fetchrow_hashref : undef;
	my ($key) = $row ? grep { /effective/ } sort keys %$row : ();
	my $mode = $key ? $row->{$key} : 'unknown';

	$self->count('stream tables', $mode);
	if ($self->{technique} eq '2kr')
	{
		my $stages = $self->rows($s, "SELECT substring(value, '(?:not )?stored: [^(;]*') FROM pgtrickle.explain_st('$name')"
			  . " WHERE property LIKE 'stage%' AND value ~ 'stored: '");
		$self->count('stages', $_->[0]) for @{ $stages || [] };
	}
	for my $tag (@{ $stream->{tags} })
	{
		$self->{tags}{$tag} = 1 unless $self->{quiet};
		$self->count('constructs', $tag);
		$self->count('constructs incremental', $tag) if $mode =~ /DIFF/;
	}
}

# --- steps -----------------------------------------------------------------------------

sub run_steps
{
	my ($self) = @_;
	my $steps = $self->{case}{steps};

	for my $n (0 .. $#$steps)
	{
		$self->{step} = $n;
		$self->run_step($steps->[$n]);
	}
	$self->{step} = 'end';
}

sub run_step
{
	my ($self, $step) = @_;
	my $k = $step->{k};

	return $self->refresh($step->{s}, $step->{st}, $step->{unchecked}) if $k eq 'refresh';
	return $self->create_step($step) if $k eq 'create';
	return $self->drop_step($step) if $k eq 'drop';
	return $self->alter_step($step) if $k eq 'alter';
	return $self->refresh_waiting($step) if $k eq 'wait';
	return $self->storm($step) if $k eq 'storm';
	return $self->crash_step($step) if $k eq 'crash';
	return $self->copy($step) if $k eq 'copy';
	my $sql = $k eq 'insert' ? insert_step_sql($self->{case}, $step) : $step->{sql};
	$self->write($step->{s}, $sql) if defined $sql;
}

sub write
{
	my ($self, $s, $sql) = @_;

	# The fake reads its own table with the transaction's snapshot.
	$sql = 'BEGIN' if $self->{fake} && $sql =~ /^BEGIN/;
	if (!$self->in_transaction($s))
	{
		$self->{iso}{$s} = $sql =~ /^BEGIN ISOLATION/ ? 1 : 0;
	}
	my ($verb) = $sql =~ /^(\w+)/;
	if ($self->run_sql($s, $sql))
	{
		$self->count('statements', $verb);
		return 1;
	}
	$self->count('statements failed', $verb, $self->{sqlstate});
	$self->count('internal errors in writers', $self->{message}) if $self->{sqlstate} =~ /^XX/;
	die { kind => 'write', key => "write $self->{sqlstate}", detail => "$self->{message}\n$sql" }
	  if $self->{sqlstate} =~ /^(?:XX|42|0A)/ && $self->{message} !~ /already exists|cannot alter|cannot drop|cannot attach|is not a partition|is already a partition|referenced by|pending trigger|ON CONFLICT|ON UPDATE|TRUNCATE|truncate|foreign key|prepared transaction|PREPARE|does not exist|no default operator class/;
	$self->abort($s);
	return 0;
}

# After an error nothing of the transaction can go on.
sub abort
{
	my ($self, $s) = @_;
	$self->run_sql($s, 'ROLLBACK') if $self->in_transaction($s);
}

sub copy
{
	my ($self, $step) = @_;
	my ($table) = grep { $_->{name} eq $step->{t} } @{ $self->{case}{tables} };
	return unless $table && @{ $step->{rows} };
	my %have = map { $_->{name} => 1 } @{ $table->{cols} };
	my @at = grep { $have{ $step->{names}[$_] } } 0 .. $#{ $step->{names} };
	my $dbh = $self->session($step->{s});
	my $sql = 'COPY ' . table_name($step->{target}) . ' (' . join(', ', map { quote_name($step->{names}[$_]) } @at) . ') FROM STDIN';

	$self->run_sql($step->{s}, $sql) or return $self->abort($step->{s});
	for my $row (@{ $step->{rows} })
	{
		$dbh->pg_putcopydata(join("\t", map { copy_text($row->[$_]) } @at) . "\n");
	}
	if (!$dbh->pg_putcopyend)
	{
		$self->note_error($step->{s});
		$self->count('statements failed', 'COPY', $self->{sqlstate});
		return $self->abort($step->{s});
	}
	$self->count('statements', 'COPY');
}

sub copy_text
{
	my ($raw) = @_;
	return '\N' unless defined $raw;
	$raw =~ s/\\/\\\\/g;
	return $raw;
}

sub refresh_sql
{
	my ($name) = @_;
	return "SELECT pgtrickle.refresh_stream_table('" . (table_name($name) =~ s/'/''/gr) . "')";
}

sub stream
{
	my ($self, $name) = @_;
	my ($stream) = grep { $_->{name} eq $name } @{ $self->{case}{streams} };
	return $stream;
}

sub refresh
{
	my ($self, $s, $name, $unchecked) = @_;

	return unless $self->stream($name) && $self->exists_in($s, $name);
	return if $unchecked && $self->{fake};
	my $before = $self->last_refresh($s, $name);
	my $ok = $self->run_sql($s, refresh_sql($name));
	return $self->refresh_failed($s, $name) unless $ok;
	$self->note_refresh($s, $name, $before);
	$self->check($s, $name, 'refresh') unless $unchecked;
	return 1;
}

sub last_refresh
{
	my ($self, $s, $name) = @_;
	return 0 if $self->{fake};
	my $relation = table_name($name) =~ s/'/''/gr;
	my $dbh = $self->session($s);
	# For statistics only; NULLs where there is none yet.
	my $rows = $dbh->selectall_arrayref("SELECT coalesce(refresh_id, 0), coalesce(action, ''), rows_inserted + rows_updated + rows_deleted, refresh_reason"
		  . " FROM pgtrickle.get_refresh_history('$relation', 1)");
	return $rows && @$rows ? $rows->[0] : [ 0, '' ];
}

sub note_refresh
{
	my ($self, $s, $name, $before) = @_;
	return $self->count('refreshes', 'all') if $self->{fake};
	my $after = $self->last_refresh($s, $name);
	my $action = $after->[0] != $before->[0] ? $after->[1] : 'NO_DATA';
	my $stream = $self->stream($name);

	for my $tag ($action eq 'NO_DATA' || $stream->{current} ? () : @{ $stream->{tags} })
	{
		$self->count('construct refreshes', $tag);
		$self->count('construct refreshes incremental', $tag) if $action =~ /DIFF/;
	}

	$self->count('refreshes', $action);
	$self->count('rows written by refreshes', $action, $after->[2] ? 'some' : 'none')
	  if $action ne 'NO_DATA';
	$self->count('reasons of refreshes', $action, $after->[3])
	  if $action ne 'NO_DATA' && defined $after->[3] && $after->[3] ne '';
	$self->count('refreshes in a transaction', $action) if $self->in_transaction($s);
}

# Was it the refresh, or would the query itself have failed?
sub refresh_failed
{
	my ($self, $s, $name) = @_;
	my ($state, $message) = ($self->{sqlstate}, $self->{message});
	my $isolated = $self->{iso}{$s} && $self->in_transaction($s);

	if ($GAVE_WAY{$state} || ($state eq '55000' && $isolated) || $state eq '25P02')
	{
		$self->count('refreshes', "gave way $state");
		$self->abort($s);
		return 0;
	}
	my $plain = $state =~ /^2[12]/ ? $self->query_error($s, $name) : undef;
	$self->abort($s);
	if ($state eq '54000' && grep { defined $_->{sql} && $_->{sql} =~ /^CREATE INDEX ON / } @{ $self->{case}{steps} })
	{
		# An index of the user cannot hold what the query has now.
		$self->count('refreshes', "index of the user $state");
		return 0;
	}
	if ($state eq '42P01' && !$self->exists_in($s, $name))
	{
		# Another session dropped it meanwhile.
		$self->count('refreshes', "gave way $state");
		return 0;
	}
	if (defined $plain && $plain eq $state)
	{
		$self->count('refreshes', "query fails $state");
		return 0;
	}
	die { kind => 'refresh', key => "refresh $state " . substr($message =~ s/\d+|"[^"]*"/?/gr, 0, 60), stream => $name, detail => $message };
}

sub query_error
{
	my ($self, $s, $name) = @_;
	$self->abort($s);
	return undef if $self->run_sql($s, 'SELECT * FROM (' . query_sql(current_query($self->stream($name))) . ') AS q');
	return $self->{sqlstate};
}

sub check
{
	my ($self, $s, $name, $when) = @_;
	my $stream = $self->stream($name);
	my $rows = $self->rows($s, compare_sql($stream));

	if (!$rows)
	{
		# The query itself may fail now (overflow, division); then nothing can be said.
		my ($state, $message) = ($self->{sqlstate}, $self->{message});
		$self->abort($s);
		return $self->count('comparisons', "not possible $state") if $state =~ /^2[12]/ || $GAVE_WAY{$state};
		die { kind => 'tester', key => "tester $state", stream => $name, detail => "$message\n" . compare_sql($stream) };
	}
	$self->count('comparisons', $when);
	$self->count('rows compared', rows_class((shift @$rows)->[1]));
	return unless @$rows;
	die {
		kind => 'difference', key => 'difference', stream => $name,
		detail => "$name after $when:\n" . join("\n", map { "  $_->[0] $_->[1]" } @$rows)
	};
}

sub rows_class
{
	my ($n) = @_;
	return $n == 0 ? 'none' : $n < 10 ? '1 to 9' : $n < 100 ? '10 to 99' : '100 and more';
}

# --- the end ---------------------------------------------------------------------------

sub end_transactions
{
	my ($self) = @_;

	for my $s (1 .. $SESSIONS)
	{
		next unless $self->in_transaction($s);
		$self->run_sql($s, 'COMMIT');
		$self->abort($s);
	}
	for my $row (@{ $self->rows('admin', 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database()') })
	{
		$self->run_sql('admin', "COMMIT PREPARED '$row->[0]'");
	}
}

sub finish
{
	my ($self) = @_;
	$self->end_transactions;
	$self->check_all('end');
	$self->check_quiet;
}

sub check_all
{
	my ($self, $when) = @_;
	my @names;

	$self->run_sql(1, 'SET lock_timeout = 5000');
	for my $stream (@{ $self->{case}{streams} })
	{
		push @names, $stream->{name}
		  if $self->exists_in(1, $stream->{name}) || $self->create_stream(1, $stream);
	}
	my @done = grep { $self->refresh(1, $_) } @names;
	# Nobody moves any more, so the earlier ones are still right. What could not be refreshed
	# (the query fails, or takes too long) is as it was, and so is what reads it.
	$self->run_sql(1, 'SET lock_timeout = 40');
	return $self->count('comparisons', "none after $when") if @done < @names;
	$self->check(1, $_, $when) for @names;
}

# A refresh with nothing new writes nothing and takes no transaction id.
sub check_quiet
{
	my ($self) = @_;

	return if $self->{fake};
	for my $stream (grep { $self->exists_in('admin', $_->{name}) } @{ $self->{case}{streams} })
	{
		my $name = $stream->{name};
		my $table = table_name($name);
		my $rows = "SELECT coalesce(md5(string_agg(ctid::text || xmin::text, ',' ORDER BY ctid)), '') FROM $table";
		my $before = $self->sql_value('admin', $rows);

		$self->run_sql(1, 'BEGIN');
		my $ok = $self->run_sql(1, refresh_sql($name));
		next if !$ok && !$self->refresh_failed(1, $name);
		my $xid = $self->sql_value(1, 'SELECT pg_current_xact_id_if_assigned()');
		# A query with STABLE functions is computed again each time.
		my $reason = $self->last_refresh(1, $name)->[3] || '';
		$self->run_sql(1, 'COMMIT');
		$xid = undef if $reason =~ /without any change/;
		$self->count('refreshes with nothing to do', $xid ? 'with transaction id' : 'without transaction id');
		die { kind => 'quiet', key => 'quiet', stream => $name, detail => "$name: a refresh without any change wrote" }
		  if $xid || $self->sql_value('admin', $rows) ne $before;
	}
}

# '' or what is left behind.
sub clean_up
{
	my ($self) = @_;

	for my $s (keys %{ $self->{session} })
	{
		# A statement may still be running after a failure in a storm.
		local $SIG{__WARN__} = sub { };
		my $dbh = $self->{session}{$s};
		if ($dbh->{pg_async_status})
		{
			$dbh->pg_cancel;
		}
		$self->abort($s);
	}
	$self->run_sql('admin', 'RESET SESSION AUTHORIZATION');
	for my $row (@{ $self->rows('admin', 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database()') })
	{
		$self->run_sql('admin', "ROLLBACK PREPARED '$row->[0]'");
	}
	return '' if !$self->sql_value('admin', "SELECT to_regnamespace('o') IS NOT NULL");
	$self->run_sql('admin', 'DROP SCHEMA o CASCADE') or die { detail => $self->{message} };
	return '' if $self->{fake};
	my $left = $self->sql_value(
		'admin', q{
SELECT string_agg(what, ', ') FROM (
	SELECT 'definition ' || pgt_id FROM pgtrickle.pgt_definitions
	UNION ALL SELECT 'source ' || source_id FROM pgtrickle.pgt_sources
	UNION ALL SELECT 'frontier ' || pgt_id FROM pgtrickle.pgt_frontiers
	UNION ALL SELECT 'dependency of ' || pgt_id FROM pgtrickle.pgt_dependencies
	UNION ALL SELECT 'relation ' || oid::regclass FROM pg_class
		WHERE relnamespace IN ('pgtrickle_changes'::regnamespace, 'pgtrickle_state'::regnamespace)
		AND relkind IN ('r', 'v', 'S')) AS l(what)});
	return '' unless defined $left;
	$self->new_database;
	return "left behind after DROP SCHEMA CASCADE: $left";
}

1;
