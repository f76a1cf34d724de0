# Soak::Writers: what sessions do: ordinary transactions, and DDL and settings.
package Soak::Writers;

use strict;
use warnings;

use Exporter 'import';
use Time::HiRes qw(sleep);

our @EXPORT_OK = qw(@WRITES @DDL);

sub any { return $_[ rand @_ ] }
sub number { return 1 + int rand $_[0] }

# One statement that changes something.
sub change
{
	my ($order, $customer, $amount) = (number(700), number(60), int rand 100);

	return any(
		"INSERT INTO orders (id, customer, amount, state) VALUES ($order, $customer, $amount, " . int(rand 3) . ') ON CONFLICT DO NOTHING',
		"UPDATE orders SET amount = $amount WHERE id = $order",
		"UPDATE orders SET state = (state + 1) % 3 WHERE id = $order",
		"UPDATE orders SET customer = $customer WHERE id BETWEEN $order AND $order + 5",
		"DELETE FROM orders WHERE id = $order",
		"UPDATE customer SET region = $amount % 7 WHERE id = $customer",
		"UPDATE customer SET name = name || 'x' WHERE id = $customer AND length(name) < 20",
		"INSERT INTO small (k, v) VALUES ($amount % 5, " . any('NULL', $amount % 9) . ')',
		"INSERT INTO small (k, v) SELECT $amount % 5, i FROM generate_series(1, 3) i",
		"UPDATE small SET v = v + 1 WHERE k = $amount % 5 AND v < 9",
		"DELETE FROM small WHERE v = $amount % 9");
}

sub in_transaction
{
	my ($dbh, $work) = @_;

	$dbh->begin_work;
	$work->();
	rand() < 0.9 ? $dbh->commit : $dbh->rollback;
	return;
}

sub one_change { my ($self, $dbh) = @_; $dbh->do(change()); return }

sub several_changes
{
	my ($self, $dbh) = @_;
	in_transaction($dbh, sub { $dbh->do(change()) for 1 .. number(6) });
	return;
}

sub savepoints
{
	my ($self, $dbh) = @_;
	in_transaction(
		$dbh,
		sub {
			for my $n (1 .. number(4))
			{
				$dbh->do("SAVEPOINT s$n");
				$dbh->do(change());
				$dbh->do("ROLLBACK TO SAVEPOINT s$n") if rand() < 0.3;
				$dbh->do("RELEASE SAVEPOINT s$n") if rand() < 0.3;
			}
		});
	return;
}

# More than a process can announce, so that snapshots say "overflowed".
sub many_subtransactions
{
	my ($self, $dbh) = @_;
	in_transaction(
		$dbh,
		sub {
			$dbh->do('DO $$ BEGIN FOR n IN 1..80 LOOP BEGIN UPDATE public.orders SET amount = (amount + n) % 100 WHERE id = n; '
				  . 'EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$');
			sleep(rand(0.3));
		});
	return;
}

# Idle in a transaction, while others commit.
sub slow_writer
{
	my ($self, $dbh) = @_;
	in_transaction($dbh, sub { $dbh->do(change()); sleep(rand(3)); $dbh->do(change()) if rand() < 0.5 });
	return;
}

# A prepared one is ended later: by anybody, or at the end of the round.
sub prepare
{
	my ($self, $dbh) = @_;
	my ($waiting) = $dbh->selectrow_array('SELECT count(*) FROM pg_prepared_xacts');

	return if $waiting >= 5;
	$dbh->do('BEGIN');
	$dbh->do(change());
	my $gid = "g$$." . number(1_000_000_000);
	$dbh->do("PREPARE TRANSACTION '$gid'");
	return;
}

sub end_prepared
{
	my ($self, $dbh) = @_;
	my ($gid) = $dbh->selectrow_array('SELECT gid FROM pg_prepared_xacts ORDER BY random() LIMIT 1');

	return unless defined $gid;
	eval { $dbh->do((rand() < 0.7 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid'"); 1 } and return;
	# Somebody else was faster.
	die $@ unless $dbh->state eq '42704' || $dbh->state eq '55000';
	return;
}

sub truncate_small
{
	my ($self, $dbh) = @_;
	in_transaction(
		$dbh,
		sub {
			$dbh->do(change()) if rand() < 0.3;
			$dbh->do('TRUNCATE small');
			$dbh->do('INSERT INTO small (k, v) SELECT i % 5, i % 9 FROM generate_series(1, 20) i') if rand() < 0.8;
		});
	return;
}

sub burst
{
	my ($self, $dbh) = @_;
	$dbh->do('UPDATE orders SET amount = (amount + 1) % 100 WHERE id % 3 = ' . int(rand 3));
	return;
}

our @WRITES = (
	([ 'change', \&one_change ]) x 6,
	([ 'changes', \&several_changes ]) x 4,
	([ 'savepoints', \&savepoints ]) x 3,
	[ 'more than 64 subtransactions', \&many_subtransactions ],
	[ 'idle in transaction', \&slow_writer ],
	[ 'PREPARE TRANSACTION', \&prepare ],
	([ 'COMMIT or ROLLBACK PREPARED', \&end_prepared ]) x 2,
	[ 'burst', \&burst ]);

# --- DDL and settings ----------------------------------------------------------------------

sub add_column
{
	my ($self, $dbh) = @_;
	$dbh->do(
		any('ALTER TABLE orders ADD COLUMN IF NOT EXISTS extra int DEFAULT ' . number(9),
			'ALTER TABLE orders DROP COLUMN IF EXISTS extra',
			'ALTER TABLE customer ADD COLUMN IF NOT EXISTS extra text',
			'ALTER TABLE customer DROP COLUMN IF EXISTS extra'));
	return;
}

sub index_or_not
{
	my ($self, $dbh) = @_;
	$dbh->do(any('CREATE INDEX IF NOT EXISTS by_amount ON orders (amount)', 'DROP INDEX IF EXISTS by_amount',
			'CREATE INDEX IF NOT EXISTS by_customer ON orders (customer)', 'DROP INDEX IF EXISTS by_customer'));
	return;
}

sub vacuum { my ($self, $dbh) = @_; $dbh->do('VACUUM ' . any('', '(ANALYZE) ') . any(qw(orders customer small))); return }

sub create_and_drop
{
	my ($self, $dbh) = @_;
	my ($there) = $dbh->selectrow_array(q{SELECT to_regclass('public.s_now_and_then') IS NOT NULL});
	my $call = $there ? q{drop_stream_table('s_now_and_then')}
	  : q{create_stream_table('s_now_and_then', 'SELECT o.state, c.region, sum(o.amount) AS amount FROM orders o JOIN customer c ON c.id = o.customer GROUP BY 1, 2', schedule => '100ms')};
	$dbh->do("SELECT pgtrickle.$call");
	return;
}

sub alter
{
	my ($self, $dbh) = @_;
	my $query = any('SELECT state, count(*) AS n FROM orders GROUP BY state',
		'SELECT customer % 5 AS state, count(*) AS n FROM orders WHERE amount > 20 GROUP BY 1');
	$dbh->do("SELECT pgtrickle.alter_stream_table('s_altered', query => \$q\$$query\$q\$)");
	return;
}

sub pause_and_resume
{
	my ($self, $dbh) = @_;
	my $name = any(qw(s_region s_open s_most s_top s_without));
	$dbh->do("SELECT pgtrickle.pause_stream_table('$name')");
	sleep(rand(1));
	$dbh->do("SELECT pgtrickle.resume_stream_table('$name')");
	return;
}

sub refresh
{
	my ($self, $dbh) = @_;
	my $name = any(qw(s_region s_regions s_meet s_whole s_top s_without s_kinds s_full s_altered));
	$dbh->do("SELECT pgtrickle.refresh_stream_table('$name'" . any('', q{, mode => 'FULL'}) . ')');
	return;
}

sub settings
{
	my ($self, $dbh) = @_;
	$dbh->do('ALTER SYSTEM SET pg_trickle.' . any(
			'max_parallel_workers = ' . any(0, 1, 2, 4), 'max_parallel_workers = 4', 'max_parallel_workers = 0',
			'enabled = ' . any('off', 'on', 'on'), "scheduler_interval_ms = '" . any('1s', '10s') . q{'},
			'prediction_min_samples = ' . any(0, 5), 'differential_max_change_ratio = ' . any(0.01, 0.15, 1)));
	$dbh->do('SELECT pg_reload_conf()');
	return;
}

sub drop_extension_and_not
{
	my ($self, $dbh) = @_;
	$dbh->begin_work;
	$dbh->do('DROP EXTENSION pg_trickle CASCADE');
	sleep(rand(0.5));
	$dbh->rollback;
	return;
}

our @DDL = (
	([ 'ALTER TABLE', \&add_column ]) x 2,
	[ 'CREATE and DROP INDEX', \&index_or_not ],
	[ 'VACUUM', \&vacuum ],
	([ 'TRUNCATE', \&truncate_small ]) x 2,
	([ 'create and drop a stream table', \&create_and_drop ]) x 2,
	[ 'alter_stream_table', \&alter ],
	[ 'pause and resume', \&pause_and_resume ],
	([ 'refresh by hand', \&refresh ]) x 2,
	([ 'ALTER SYSTEM', \&settings ]) x 2,
	[ 'DROP EXTENSION, rolled back', \&drop_extension_and_not ]);

1;
