# What monitoring sees: metrics() by the rules of Prometheus' text format, with hostile names; that
# its numbers are those of the catalog; who sees what; the page that examples/monitoring/serve.pl
# makes of it; that the dashboard asks for nothing that is not there; and diamond_groups().
use strict;
use warnings;

use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use Test::More;

use PgTrickle;

my $node = PgTrickle->new_node('monitoring', settings => "pg_trickle.scheduler_interval_ms = '1s'\npg_trickle.max_parallel_workers = 2\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

# --- a strict reader of the format -----------------------------------------------------------------

# { name => { type, help, series => { labels as text => [ { label => value }, number ] } } }; dies at
# the first line that the format does not allow.
sub parse_metrics
{
	my ($text) = @_;
	my (%family, $current);
	my $name = qr/[a-zA-Z_:][a-zA-Z0-9_:]*/;
	my $number = qr/(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|NaN|[+-]Inf)/;

	die "does not end with a line feed\n" unless $text =~ /\n\z/;
	die "carriage return\n" if $text =~ /\r/;
	for my $line (split /\n/, $text)
	{
		if ($line =~ /\A# HELP ($name) (.*)\z/)
		{
			die "HELP of $1 twice, or not in one piece\n" if $family{$1};
			die "HELP of $1 with a bad escape\n" if $2 =~ /\\(?![\\n])/;
			$current = $1;
			$family{$1} = { help => $2, series => {} };
		}
		elsif ($line =~ /\A# TYPE ($name) (counter|gauge|histogram|summary|untyped)\z/)
		{
			die "TYPE of $1 does not follow its HELP\n" if !defined $current || $current ne $1 || defined $family{$1}{type} || %{ $family{$1}{series} };
			$family{$1}{type} = $2;
		}
		elsif ($line =~ /\A($name)(?:\{(.*)\})? ($number)\z/)
		{
			my ($metric, $inside, $value) = ($1, $2, $3);
			die "$metric is not among its family\n" if !defined $current || $metric ne $current || !defined $family{$metric}{type};
			my %labels = parse_labels(defined $inside ? $inside : '');
			my $key = join ',', map { "$_=" . $labels{$_} } sort keys %labels;
			die "series twice: $metric $key\n" if $family{$metric}{series}{$key};
			die "$metric ends with _total and is no counter\n" if ($metric =~ /_total\z/) != ($family{$metric}{type} eq 'counter');
			die "counter $metric is $value\n" if $family{$metric}{type} eq 'counter' && $value =~ /\A-|NaN/;
			$family{$metric}{series}{$key} = [ \%labels, $value ];
		}
		else { die "no line of the format: $line\n" }
	}
	$_->{series} && %{ $_->{series} } || die "a family without series\n" for values %family;
	return \%family;
}

sub parse_labels
{
	my ($text) = @_;
	my %labels;

	while ($text ne '')
	{
		$text =~ s/\A([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,|\z)// or die "labels: $text\n";
		my ($label, $value, $comma) = ($1, $2, $3);
		die "label $label twice\n" if exists $labels{$label};
		die "comma at the end\n" if $comma ne '' && $text eq '';
		$value =~ s/\\(.)/$1 eq 'n' ? "\n" : $1/ge;
		$labels{$label} = $value;
	}
	return %labels;
}

sub value_of
{
	my ($metrics, $metric, %want) = @_;
	my @found = grep {
		my $labels = $_->[0];
		!grep { !defined $labels->{$_} || $labels->{$_} ne $want{$_} } keys %want
	} values %{ $metrics->{$metric}{series} };

	return @found == 1 ? $found[0][1] : 'not one but ' . @found;
}

# The reader itself refuses what is wrong.
for my $case ([ "a 1\n", 'without TYPE' ], [ "# HELP a x\n# TYPE a gauge\na 1", 'no line feed' ], [ "# HELP a x\n# TYPE a gauge\na{b=\"1\",b=\"2\"} 1\n", 'label twice' ],
	[ "# HELP a x\n# TYPE a gauge\na{b=\"\"\"} 1\n", 'quote' ], [ "# HELP a x\n# TYPE a gauge\na 1\na 2\n", 'series twice' ], [ "# HELP a x\n# TYPE a gauge\na one\n", 'no number' ],
	[ "# HELP a x\n# TYPE a gauge\na{b=\"\\x\"} 1\n", 'escape' ], [ "# HELP a x\n# TYPE a gauge\na 1\n# HELP b x\n# TYPE b gauge\nb 1\na{c=\"1\"} 1\n", 'family in two pieces' ])
{
	ok(!eval { parse_metrics($case->[0]); 1 }, "the test's reader refuses: $case->[1]");
}

sub metrics_as
{
	my ($role) = @_;
	return parse_metrics(sql("SET ROLE $role; SELECT pgtrickle.metrics()") . "\n");
}

# --- without any stream table --------------------------------------------------------------------

my $superuser = sql('SELECT current_user');
my $empty = metrics_as($superuser);
ok($empty->{pg_trickle_info}, 'metrics of a database without stream tables');
is(value_of($empty, 'pg_trickle_info', version => sql('SELECT pgtrickle.version()')), 1, 'the version is told');

# --- hostile names -------------------------------------------------------------------------------

my @hostile = ('plain', 'with "quotes"', 'back\\slash', "line\nfeed", 'ends\\', '{a="b"} 1', 'ünïcødé ☃', "it's", '\\n', '# HELP x', 'a,b', ' ');
my %quoted = map { $_ => '"' . s/"/""/gr . '"' } @hostile;

sql(q{CREATE TABLE src (id int PRIMARY KEY, v int); INSERT INTO src SELECT i, i FROM generate_series(1, 50) i;
	CREATE ROLE nobody; CREATE ROLE monitor; GRANT pg_monitor TO monitor; CREATE ROLE owner; GRANT SELECT ON src TO owner;
	CREATE SCHEMA "sch""ema\\"; GRANT USAGE, CREATE ON SCHEMA "sch""ema\\" TO owner;});
for my $name (@hostile)
{
	my $literal = q{'"sch""ema\\".} . ($quoted{$name} =~ s/'/''/gr) . "'";
	sql("SELECT pgtrickle.create_stream_table($literal, 'SELECT v % 3 AS k, count(*) AS n FROM src GROUP BY v % 3', '100ms')");
}
sql(q{SELECT pgtrickle.create_stream_table('public.fails', 'SELECT id, 1 / (v - 7) AS q FROM src WHERE v > 7', '100ms');
	BEGIN; SELECT pgtrickle.create_stream_table('public.empty', 'SELECT id FROM src', '1h', initialize => false); SELECT pgtrickle.pause_stream_table('public.empty'); COMMIT;
	SET ROLE owner; SELECT pgtrickle.create_stream_table('"sch""ema\\".owned', 'SELECT id FROM src', '100ms');});

my $metrics = metrics_as($superuser);
my %series = map { $_->[0]{name} => $_->[1] } values %{ $metrics->{pg_trickle_populated}{series} };
is(join('|', sort keys %series), join('|', sort @hostile, 'fails', 'empty', 'owned'), 'every name comes through');
is($series{empty}, 0, 'one is not filled');
is(join('|', map { $_->[0]{schema} } values %{ $metrics->{pg_trickle_populated}{series} }) =~ /sch"ema\\/ ? 'there' : 'missing', 'there', 'the schema comes through');
is(join(' ', sort grep { !$metrics->{$_}{type} || $metrics->{$_}{help} eq '' } keys %$metrics), '', 'each has a type and a help text');
is(sql('SELECT count(*) FROM pgtrickle.metric_samples'), (eval { my $n = 0; $n += keys %{ $_->{series} } for values %$metrics; $n }), 'metric_samples has a row per series');

# --- the numbers ---------------------------------------------------------------------------------

sql('UPDATE src SET v = v + 1');
ok(wait_for_fresh($node, 'public.fails'), 'refreshed');
sql('UPDATE src SET v = 7 WHERE id = 3; UPDATE src SET v = 8 WHERE id = 4');
wait_until($node, q{SELECT pending_rows = 0 FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'plain'});
sql(q{SELECT pgtrickle.pause_stream_table('public.fails')});
sql('UPDATE src SET v = v + 1 WHERE id > 40');
wait_until($node, q{SELECT pending_rows = 0 FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'plain'});
my $later = metrics_as($superuser);
my $refreshes = sql(q{SELECT differential_count || ' ' || full_count || ' ' || total_rows_in || ' ' || total_rows_updated FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'plain'});
is(join(' ', value_of($later, 'pg_trickle_refreshes_total', name => 'plain', action => 'DIFFERENTIAL'), value_of($later, 'pg_trickle_refreshes_total', name => 'plain', action => 'FULL'),
	value_of($later, 'pg_trickle_rows_in_total', name => 'plain'), value_of($later, 'pg_trickle_rows_written_total', name => 'plain', change => 'updated')), $refreshes, 'counters are those of the catalog');
cmp_ok(value_of($later, 'pg_trickle_pending_rows', name => 'fails'), '>', 0, 'pending rows of a paused one');
cmp_ok(value_of($later, 'pg_trickle_staleness_seconds', name => 'fails'), '>', 0, 'its staleness');
is(value_of($later, 'pg_trickle_stream_table_status', name => 'fails', status => 'SUSPENDED'), 1, 'its status');
is(value_of($later, 'pg_trickle_stream_table_status', name => 'fails', status => 'ACTIVE'), 0, 'and no other');
cmp_ok(value_of($later, 'pg_trickle_change_buffer_bytes', name => 'src'), '>', 0, 'its source keeps a buffer');
is(value_of($later, 'pg_trickle_scheduler_running'), 1, 'the scheduler runs');
is(value_of($later, 'pg_trickle_workers_max'), 2, 'the limit of workers');
for my $metric (sort grep { $metrics->{$_}{type} eq 'counter' } keys %$metrics)
{
	my @fewer = grep { $later->{$metric}{series}{$_}[1] < $metrics->{$metric}{series}{$_}[1] } keys %{ $metrics->{$metric}{series} };
	is("@fewer", '', "$metric never falls");
}

# --- who sees what -------------------------------------------------------------------------------

is(join(' ', sort grep { /populated|buffer/ } keys %{ metrics_as('nobody') }), '', 'PUBLIC sees no stream table');
ok(metrics_as('nobody')->{pg_trickle_scheduler_running}, 'but that the scheduler runs');
is(join('|', map { $_->[0]{name} } values %{ metrics_as('owner')->{pg_trickle_populated}{series} }), 'owned', 'an owner sees his own');
is(scalar keys %{ metrics_as('monitor')->{pg_trickle_populated}{series} }, scalar keys %series, 'pg_monitor sees all');
is(sql('SET ROLE nobody; SELECT count(*) FROM pgtrickle.diamond_groups()'), 0, 'PUBLIC sees no diamond');

# --- served --------------------------------------------------------------------------------------

my $out = '';
my $server = IPC::Run::start([ 'examples/monitoring/serve.pl', '--listen', '127.0.0.1:0', '--timeout', 5, $node->connstr('postgres') ], '>', \$out, '2>', \my $server_log);
my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;
$server->pump_nb, select(undef, undef, undef, 0.05) while $out !~ /listening on (\S+)\n/ && time() < $deadline;
my ($address) = $out =~ /listening on (\S+)\n/;
ok($address, 'serve.pl listens');
my $http = HTTP::Tiny->new(timeout => 30);
my $answer = $http->get("http://$address/metrics");
is($answer->{status}, 200, 'GET /metrics');
like($answer->{headers}{'content-type'}, qr{^text/plain; version=0\.0\.4}, 'in the format of Prometheus');
my $page = $answer->{content};
utf8::decode($page);
my $served = eval { parse_metrics($page) };
ok($served, 'which holds') or diag($@);
is(join(' ', sort keys %$served), join(' ', sort keys %$later), 'with all metrics');
is($http->get("http://$address/")->{status}, 404, 'nothing else is served');
is($http->post("http://$address/metrics")->{status}, 405, 'nor any other method');
is($http->get("http://$address/metrics")->{status}, 200, 'and it goes on');
$node->stop;
is($http->get("http://$address/metrics")->{status}, 503, 'a server that is down is an error, not an empty page');
$node->start;
is($http->get("http://$address/metrics")->{status}, 200, 'which ends when it is back');
$server->signal('TERM');
$server->finish;

# --- dashboard and alerts ------------------------------------------------------------------------

my $dashboard = eval { decode_json(PostgreSQL::Test::Utils::slurp_file('examples/monitoring/grafana-dashboard.json')) };
ok($dashboard, 'the dashboard is JSON') or diag($@);
my @expressions = map { $_->{expr} } map { @{ $_->{targets} } } @{ $dashboard->{panels} };
cmp_ok(scalar @expressions, '>', 15, 'with ' . @expressions . ' expressions');
my $alerts = join "\n", PostgreSQL::Test::Utils::slurp_file('examples/monitoring/prometheus.yml') =~ /expr: (.*)/g;
my %used;
for my $expression (@expressions, split(/\n/, $alerts), map { ref $_->{query} ? $_->{query}{query} : () } @{ $dashboard->{templating}{list} })
{
	my @metrics = $expression =~ /\b(pg_trickle_\w+)/g;
	ok(@metrics && !(grep { !$later->{$_} } @metrics), "every metric is there: $expression");
	$used{$_} = 1 for @metrics;
	for my $labels ($expression =~ /\b(pg_trickle_\w+\{[^}]*\})/g)
	{
		my ($metric, $inside) = $labels =~ /(\w+)\{(.*)\}/;
		my %known = map { %{ $_->[0] } } values %{ $later->{$metric}{series} };
		is(join(' ', grep { !exists $known{$_} } $inside =~ /(\w+)=~?"/g), '', '... with its labels');
	}
	my %known = map { map { %{ $_->[0] } } values %{ $later->{$_}{series} } } @metrics;
	is(join(' ', grep { !exists $known{$_} } map { split /, */ } $expression =~ /\bby \(([^)]*)\)/g), '', '... and groups by them');
}
is(join(' ', grep { !$used{$_} } sort keys %$later), '', 'no metric is left out of the dashboard');
my %ids = map { $_->{id} => 1 } @{ $dashboard->{panels} };
is(scalar keys %ids, scalar @{ $dashboard->{panels} }, 'panels have ids of their own');

# --- diamond_groups ------------------------------------------------------------------------------

sql(q{SELECT pgtrickle.create_stream_table('l', 'SELECT id, v FROM src'); SELECT pgtrickle.create_stream_table('r', 'SELECT id, -v AS w FROM src');
	SELECT pgtrickle.create_stream_table('meet', 'SELECT id, v, w FROM l JOIN r USING (id)', '1m', diamond_consistency => 'atomic');
	SELECT pgtrickle.create_stream_table('after_it', 'SELECT count(*) AS n FROM meet');
	SELECT pgtrickle.create_stream_table('l2', 'SELECT id, v FROM src WHERE id < 9'); SELECT pgtrickle.create_stream_table('meet2', 'SELECT l2.id, s.v FROM l2 JOIN src s USING (id)', diamond_consistency => 'none');});
is(sql(q{SELECT string_agg(concat_ws(' ', group_id, member_schema, member_name, is_convergence, diamond_consistency, schedule), ', ' ORDER BY group_id, member_name) FROM pgtrickle.diamond_groups()}),
	'1 public l f aligned calculated, 1 public meet t atomic 1m, 1 public r f aligned calculated, 2 public l2 f aligned calculated, 2 public meet2 t none calculated', 'diamonds, each with where it meets');
is(sql(q{GRANT SELECT ON l TO nobody; SET ROLE nobody; SELECT string_agg(member_name, ' ') FROM pgtrickle.diamond_groups()}), 'l', 'of them, those that one may read');

# --- progress ------------------------------------------------------------------------------------

SKIP:
{
	skip 'needs the test points', 15 if !has_test_points();
	my $wait_for_progress = sub {
		my ($phase) = @_;
		return wait_until($node, qq{SELECT EXISTS (SELECT FROM pgtrickle.progress WHERE phase = '$phase' AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 7366516 AND NOT granted))});
	};
	my $hold = sub {
		my ($point) = @_;
		my $holder = session($node);
		$holder->query_safe("SELECT pg_advisory_lock(7366516, hashtext('$point') & 2147483647)");
		return $holder;
	};
	my $row = q{SELECT concat_ws(' ', pgt_schema, pgt_name, initiated_by, phase, statement, rows_computed, percent_computed BETWEEN 1 AND 99.9 AND rows_expected BETWEEN 9000 AND 11000, phase_since >= started_at) FROM pgtrickle.progress};

	sql('CREATE TABLE many (id int PRIMARY KEY, v int); INSERT INTO many SELECT i, i FROM generate_series(1, 10000) i; ANALYZE many; GRANT SELECT ON many TO owner;');
	is(sql('SELECT count(*) FROM pgtrickle.progress'), 0, 'nothing computes everything now');

	# The initial fill: nobody else has the table in his catalog yet.
	my $holder = $hold->('progress-computing');
	my $creator = session($node);
	$creator->query_safe("SET pg_trickle.test_points = 'progress-computing=wait, progress-writing=wait'; SET ROLE owner; SET search_path = \"sch\"\"ema\\\"");
	$creator->query_until(qr/started/, "\\echo started\nSELECT pgtrickle.create_stream_table('large', 'SELECT id, v + 1 AS w FROM public.many', '1h');\n");
	$wait_for_progress->('computing rows');
	my $initial = 'sch"ema\\ large INITIAL computing rows 1 1024 t t';
	is(sql($row), $initial, 'an initial fill is shown with the rows so far');
	is(sql("SET ROLE owner; $row"), $initial, 'to its owner');
	is(sql("SET ROLE monitor; $row"), $initial, 'to pg_monitor');
	is(sql("SET ROLE nobody; SELECT count(*) FROM pgtrickle.progress"), 0, 'to nobody else');
	my $writing = $hold->('progress-writing');
	$holder->quit;
	$wait_for_progress->('writing rows');
	is(sql(q{SELECT concat_ws(' ', phase, statement, rows_computed, percent_computed) FROM pgtrickle.progress}), 'writing rows 1 10000 100', 'and then that it writes them');
	$writing->quit;
	$creator->quit;
	is(sql('SELECT count(*) FROM pgtrickle.progress'), 0, 'gone at the end');
	is(sql(q{SELECT count(*) FROM "sch""ema\\".large}), 10000, 'and all rows are there');

	# FULL by hand, cancelled; an incremental refresh says nothing.
	$holder = $hold->('progress-computing');
	my $refresher = session($node);
	my $pid = $refresher->query_safe('SELECT pg_backend_pid()');
	$refresher->query_safe("SET pg_trickle.test_points = 'progress-computing=wait'");
	$refresher->query_until(qr/started/, "\\echo started\n" . q{SELECT pgtrickle.refresh_stream_table('"sch""ema\\".large', 'FULL');} . "\n");
	$wait_for_progress->('computing rows');
	is(sql(q{SELECT pid || ' ' || initiated_by FROM pgtrickle.progress}), "$pid MANUAL", 'a FULL refresh is shown');
	sql("SELECT pg_cancel_backend($pid)");
	wait_until($node, 'SELECT count(*) = 0 FROM pgtrickle.progress');
	pass('and gone when it is cancelled');
	$refresher->query_until(qr/started/, "\\echo started\n" . q{SELECT pgtrickle.refresh_stream_table('"sch""ema\\".large', 'FULL');} . "\n");
	$wait_for_progress->('computing rows');
	sql("SELECT pg_terminate_backend($pid)");
	wait_until($node, 'SELECT count(*) = 0 FROM pgtrickle.progress');
	pass('and when its process is terminated');
	eval { $refresher->quit };
	$holder->quit;
	is(sql(q{SET pg_trickle.test_points = 'progress-computing=error, progress-writing=error'; UPDATE many SET v = v + 1 WHERE id < 3000;
		SELECT pgtrickle.alter_stream_table('"sch""ema\\".large', refresh_mode => 'DIFFERENTIAL'); SELECT pgtrickle.refresh_stream_table('"sch""ema\\".large');
		SELECT count(*) FROM "sch""ema\\".large l JOIN many m USING (id) WHERE l.w <> m.v + 1}) =~ /(\d+)\z/ ? $1 : '', 0, 'incremental refreshes do not count');

	# By a worker of the scheduler, with a stage: two statements.
	$holder = $hold->('progress-writing');
	$node->append_conf('postgresql.conf', "pg_trickle.test_points = 'progress-writing=wait'\n");
	$node->reload;
	sql(q{SELECT pgtrickle.create_stream_table('public.staged', 'SELECT n, count(*) AS c FROM (SELECT v % 1000 AS k, count(*) AS n FROM many GROUP BY v % 1000) s GROUP BY n', '1s', initialize => false)});
	# It waits for a lock for a short time only, then gives up and comes back.
	ok(wait_until($node, q{SELECT EXISTS (SELECT FROM pgtrickle.progress WHERE (pgt_name, initiated_by, phase, statement, rows_computed) = ('staged', 'SCHEDULER', 'writing rows', 1, 1000)
		AND pid IN (SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_trickle%'))}), 'a refresh of the scheduler, at the first of its statements');
	$holder->quit;
	ok(wait_for_fresh($node, 'public.staged'), 'it goes on');
	wait_until($node, 'SELECT count(*) = 0 FROM pgtrickle.progress');
	pass('and ends');
}

$node->stop;
done_testing();
