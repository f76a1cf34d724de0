# Several lines in one message, and the envelope that has nothing but rows.
use strict;
use warnings;

use JSON::PP;
use Test::More;

use PgTrickle;
use PgtDecoder;

my $node = decoder_node('batches');

sub sql { return $node->safe_psql('postgres', $_[0]) }

sql(q{
	CREATE TABLE st (id int PRIMARY KEY, note text);
	ALTER TABLE st REPLICA IDENTITY FULL;
	CREATE TABLE keyed (a int, b int, v text, PRIMARY KEY (a, b));
	CREATE TABLE bare (v text);
	ALTER TABLE bare REPLICA IDENTITY FULL;
	CREATE TABLE other (x int)});
create_slot($node, 's');

# Each message of the slot, which may be several lines.
sub messages
{
	my (%options) = @_;
	my $text = sql('SELECT encode(convert_to(data, $$UTF8$$), $$hex$$) FROM (' . PgtDecoder::slot_query('pg_logical_slot_peek_changes', 's', %options) . ') q');
	return map { pack 'H*', $_ } split /\n/, $text;
}

sub lines_of { return join '', map { "$_\n" } @_ }

# --- the same lines -------------------------------------------------------------------------

sql('BEGIN; ' . open_refresh('public.st', id => 1) . "INSERT INTO st SELECT i, repeat('x', i % 50) || E'\\n' FROM generate_series(1, 500) i;"
	  . close_refresh('public.st', id => 1, ins => 500) . "COMMIT;
	INSERT INTO other VALUES (1);
	INSERT INTO keyed VALUES (1, 1, 'ä'); SELECT pg_logical_emit_message(false, 'app', 'not in a transaction');
	BEGIN; UPDATE keyed SET v = 'b'; SELECT pg_logical_emit_message(true, 'app', 'in one'); UPDATE keyed SET b = 2; COMMIT;
	TRUNCATE keyed;");
my %asked = (tables => 'public.keyed', messages => 'app', include_schema => 'on');

for my $envelope (qw(compact debezium))
{
	my @single = messages(%asked, envelope => $envelope);

	for my $bytes (1, 100, 4096, 1000000)
	{
		my @batched = messages(%asked, envelope => $envelope, batch_bytes => $bytes);
		my $text = lines_of(@batched) =~ s/"batch_bytes":"$bytes"/"batch_bytes":"0"/r;

		is($text, lines_of(@single), "$envelope, batches of $bytes bytes: the same lines");
		is(scalar @batched, scalar @single, "$envelope: in as many messages") if $bytes == 1;
		cmp_ok(scalar @batched, '<', @single / 7, "$envelope: in fewer messages") if $bytes >= 4096;
		is(scalar(grep { length $_ > $bytes + 1000 } @batched), 0, "$envelope: none of them much larger than asked for");
		is(scalar(grep { /"op":"commit".*\n.*"op":"begin"/ } @batched), 0, "$envelope: none with two transactions");
	}
}
my @positions = split /\n/, sql(q{SELECT string_agg(DISTINCT lsn::text, ' ') FROM pg_logical_slot_peek_changes('s', NULL, NULL, 'tables', 'public.keyed', 'batch_bytes', '1000000') WHERE data LIKE '%"op":"commit"%'});
is(sql(q{SELECT count(*) FROM pg_logical_slot_peek_changes('s', NULL, NULL, 'tables', 'public.keyed', 'batch_bytes', '1000000') m,
	LATERAL (SELECT (regexp_match(data, '"op":"commit".*"end_lsn":"([0-9A-F/]+)"'))[1]::pg_lsn AS e) c WHERE c.e IS NOT NULL AND c.e <> m.lsn}), 0,
	'a message with a commit has the position behind it');

# --- large rows -----------------------------------------------------------------------------

sql("INSERT INTO keyed SELECT 5, i, repeat('y', 20000 * i) FROM generate_series(1, 5) i");
is(lines_of(messages(tables => 'public.keyed', batch_bytes => 30000)) =~ s/"batch_bytes":"30000"/"batch_bytes":"0"/r, lines_of(messages(tables => 'public.keyed')), 'rows that are larger than a batch');
for my $bytes (0, 30000)
{
	my @rows = grep { ref $_ eq 'HASH' && $_->{op} eq 'c' && $_->{k}{a} == 5 } map { event($_) } map { split /\n/ } messages(tables => 'public.keyed', batch_bytes => $bytes, max_message_bytes => 50000, oversize => 'omit');

	is(join(',', map { ($_->{oversize} // ['-'])->[0] } @rows), '-,-,v,v,v', "batch_bytes $bytes: what is too large for max_message_bytes is left out of its own row only");
}
like(error_of($node, PgtDecoder::slot_query('pg_logical_slot_peek_changes', 's', tables => 'public.keyed', batch_bytes => 30000, max_message_bytes => 50000)), qr/54000.*at most 50000 bytes/s, 'or an error');

# --- rows alone -----------------------------------------------------------------------------

sql('DELETE FROM keyed');
take_slot($node, 's');
sql("BEGIN; INSERT INTO keyed VALUES (1, 1, 'a'), (1, 2, 'b'); UPDATE keyed SET v = 'c' WHERE b = 1; UPDATE keyed SET b = 3 WHERE b = 2; DELETE FROM keyed WHERE b = 1;
	INSERT INTO bare VALUES ('p'), (NULL); UPDATE bare SET v = 'q' WHERE v = 'p'; DELETE FROM bare WHERE v IS NULL; SELECT pg_logical_emit_message(true, 'app', 'x'); COMMIT;
	SELECT pg_logical_emit_message(false, 'pg_trickle.hb', '1'); TRUNCATE bare; BEGIN; " . open_refresh('public.st', id => 2) . "UPDATE st SET note = 'n' WHERE id = 1; DELETE FROM st WHERE id = 2; " . close_refresh('public.st', id => 2, upd => 1, del => 1) . 'COMMIT');
my $want = <<'W';
{"a":1,"b":1,"v":"a"}
{"a":1,"b":2,"v":"b"}
{"a":1,"b":1,"v":"c"}
[{"a":1,"b":2}]
{"a":1,"b":3,"v":"b"}
[{"a":1,"b":1}]
{"v":"p"}
{"v":null}
[{"v":"p"}]
{"v":"q"}
[{"v":null}]
[]
{"id":1,"note":"n"}
[{"id":2}]
W
for my $bytes (0, 65536)
{
	is(lines_of(messages(envelope => 'row', tables => 'public.keyed, public.bare', messages => '*', batch_bytes => $bytes)), $want, "envelope row, batch_bytes $bytes: objects that are, arrays of what is gone");
}
is(lines_of(messages(envelope => 'row')), qq({"id":1,"note":"n"}\n[{"id":2}]\n), 'of stream tables alone');
sql('ALTER TABLE keyed REPLICA IDENTITY FULL; ALTER TABLE other REPLICA IDENTITY NOTHING');
take_slot($node, 's');
sql("INSERT INTO keyed VALUES (7, 7, 'v'); UPDATE keyed SET v = 'w' WHERE a = 7; UPDATE keyed SET a = 8 WHERE a = 7; DELETE FROM other");
is(lines_of(messages(envelope => 'row', tables => 'public.keyed, public.other')), <<'W', 'a key that stays and one that does not, with the whole old row known');
{"a":7,"b":7,"v":"v"}
{"a":7,"b":7,"v":"w"}
[{"a":7,"b":7}]
{"a":8,"b":7,"v":"w"}
[null]
W

# --- bad values -----------------------------------------------------------------------------

like(error_of($node, PgtDecoder::slot_query('pg_logical_slot_peek_changes', 's', batch_bytes => $_)), qr/22023.*"batch_bytes".*an integer from 0 to 16777216/s, "batch_bytes $_") for '-1', '16777217', '1kB', '';
done_testing();
