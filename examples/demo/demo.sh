#!/bin/bash
# demo.sh [--keep]: a shop, four stream tables, a writer, and what comes out, also into Kafka.
#
# Runs inside t/lib/sandbox.sh ("make demo"): not as root, with the private server
# installation first in PATH. Starts a throw-away server there, reachable only through a
# socket in a folder of its own, and removes it at the end; --keep leaves it running.
#
# Exit status 0: every stream table equalled its query at the end, the decoder's rows alone
# led from the first state of region_sales to its last, and its topic held its last.
#
#   PGT_DEMO_BROKERS   a Kafka to forward into ("make demo-kafka" has one); default: librdkafka's mock brokers
#   PGT_DEMO_SECONDS   how long the writer writes (20)
set -euo pipefail

cd "$(dirname "$0")"
here=$PWD
box=${PGT_SANDBOX:?is set by t/lib/sandbox.sh; run "make demo"}/demo
seconds=${PGT_DEMO_SECONDS:-20}
keep=
[ "${1:-}" = --keep ] && keep=1

data=$box/data
log=$box/server.log
stream=$box/decoder.jsonl
socket=$box
[ ${#socket} -le 80 ] || socket=$(mktemp -d /tmp/pg_trickle-demo.XXXXXX)
port=5432
slot=demo
forwarder=$here/../kafka-forwarder
writer_pid=
receiver_pid=
forwarder_pid=

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
	bold='' dim='' green='' red='' plain=''
fi

export PGHOST=$socket PGPORT=$port PGUSER=demo PGDATABASE=shop PGOPTIONS='-c client_min_messages=warning'

title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
line() { printf '   %s\n' "$*"; }
sql() { psql -XqAt -v ON_ERROR_STOP=1 "$@"; }
fail() {
	printf '%sdemo failed: %s%s\n' "$red" "$*" "$plain" >&2
	[ ! -s "$log" ] || { echo "the server's log ($log) ends with:" >&2; tail -n 15 "$log" >&2; }
	exit 1
}
seconds_since() { awk -v a="$1" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }'; }

stop_server() {
	[ -f "$data/postmaster.pid" ] || return 0
	pg_ctl -D "$data" -m fast -w stop >/dev/null 2>&1 || pg_ctl -D "$data" -m immediate -w stop >/dev/null 2>&1 || true
}

finish() {
	local status=$?
	trap - EXIT INT TERM
	for pid in $writer_pid $receiver_pid $forwarder_pid; do kill "$pid" 2>/dev/null || true; done
	if [ -n "$keep" ] && [ $status = 0 ]; then
		title "The server is still running"
		line "psql -h $socket -p $port -U demo shop"
		line "stop it with: $(command -v pg_ctl) -D $data stop     ('make clean' does, too)"
		[ "$(id -un)" = "$(stat -c %U "$data")" ] && line "as the user $(id -un) (or root, for psql)"
	else
		stop_server
		if [ $status = 0 ]; then rm -rf "$data" "$stream"; fi
		[ "$socket" = "$box" ] || rm -rf "$socket"
	fi
	exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- the server ------------------------------------------------------------------------

start_server() {
	mkdir -p "$box"
	chmod 0700 "$box"
	stop_server				# what an earlier "make demo-keep" left
	rm -rf "$data" "$stream"

	initdb -D "$data" -U demo --auth=trust --no-sync --encoding=UTF8 --locale=C >"$log" 2>&1 || fail "initdb"
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$socket'"
		echo "port = $port"
		echo "shared_preload_libraries = 'pg_trickle'"
		echo "wal_level = logical"
		echo "max_worker_processes = 16"
		echo "shared_buffers = 256MB"
		# Servers before August 2026 do not start with a setting they do not know.
		if postgres --describe-config | cut -f 1 | grep -cx output_plugin_libraries >/dev/null; then
			echo "output_plugin_libraries = 'pgoutput, pg_trickle_decoder'"
		fi
	} >>"$data/postgresql.conf"
	pg_ctl -D "$data" -l "$log" -w start >/dev/null || fail "the server did not start"
	PGDATABASE=postgres sql -c 'CREATE DATABASE shop'
	sql -c 'CREATE EXTENSION pg_trickle'
}

# --- what happens -----------------------------------------------------------------------

make_shop() {
	sql -f shop.sql >/dev/null
	line "$(sql -c "SELECT format('%s customers, %s orders, %s order lines',
		(SELECT count(*) FROM shop.customers), (SELECT count(*) FROM shop.orders), (SELECT count(*) FROM shop.items))")"
}

make_stream_tables() {
	local started
	started=$(date +%s.%N)
	sql -f stream_tables.sql >/dev/null
	psql -X -v ON_ERROR_STOP=1 -P footer=off -P border=1 <<-'SQL' | sed 's/^/   /'
		SELECT s.pgt_relid::regclass AS "stream table", s.refresh_mode AS "mode", s.schedule,
		       to_char(h.rows_inserted, '999,990') AS "rows", to_char(h.duration_ms, '99,990') AS "filled in, ms"
		FROM pgtrickle.pgt_stream_tables s LEFT JOIN pgtrickle.pgt_refresh_history h ON h.pgt_id = s.pgt_id AND h.initiated_by = 'INITIAL'
		ORDER BY s.pgt_id
	SQL
	line "created in $(seconds_since "$started") s; from now on they keep themselves fresh, once a second"
}

start_receiver() {
	pg_recvlogical -d shop --slot "$slot" --create-slot -P pg_trickle_decoder || fail "could not create the slot"
	sql -c "CREATE SCHEMA demo; CREATE TABLE demo.before AS TABLE shop.region_sales"
	pg_recvlogical -d shop --slot "$slot" --start --no-loop -F 1 -s 1 -f "$stream" \
		-o format=json -o envelope=compact 2>>"$box/receiver.log" &
	receiver_pid=$!
	line "pg_recvlogical --slot $slot --start -o format=json -o envelope=compact"
}

# With the rows that are there first; then whatever changes.
start_forwarder() {
	local kind='Apache Kafka'
	brokers=${PGT_DEMO_BROKERS:-}
	make -s -C "$forwarder" all tests >>"$box/forwarder.log" 2>&1 || fail "the forwarder cannot be built, see $box/forwarder.log"
	if [ -z "$brokers" ]; then
		kind='mock brokers'
		coproc MOCKD { exec "$forwarder/tests/mockd" 1; }
		read -r brokers <&"${MOCKD[0]}" || fail "no mock brokers"
	fi
	"$forwarder/pg-trickle-forwarder" --set "source.conninfo=host=$socket port=$port user=demo dbname=shop" --set source.slot=kafka --set source.create_slot=on \
		--set topics.prefix=demo --set forwarder.delivery=exactly_once --set "kafka.bootstrap.servers=$brokers" >"$box/forwarder.log" 2>&1 &
	forwarder_pid=$!
	for _ in $(seq 600); do
		grep -q 'streaming from slot' "$box/forwarder.log" && break
		kill -0 "$forwarder_pid" 2>/dev/null || { cat "$box/forwarder.log" >&2; fail "the forwarder"; }
		sleep 0.1
	done
	line "pg-trickle-forwarder, exactly once, into $kind at $brokers"
}

start_writer() {
	(cd writer && exec pgbench -n -c 4 -j 1 -T "$seconds" -R 200 \
		-f order.sql@60 -f change.sql@30 -f cancel.sql@9 -f move.sql@1) >"$box/writer.log" 2>&1 &
	writer_pid=$!
}

# On a terminal one frame over the other; else one every five seconds.
watch_it() {
	local before started frame lines=0 elapsed decoded
	before=$(sql -c "SELECT jsonb_object_agg(region, revenue) FROM demo.before")
	started=$(date +%s)
	while kill -0 "$writer_pid" 2>/dev/null; do
		elapsed=$(($(date +%s) - started))
		if [ -t 1 ] || [ $((elapsed % 5)) = 0 ]; then
			frame=$(psql -Xq -v ON_ERROR_STOP=1 -v before="$before" -f frame.sql) || fail "could not read the stream tables"
			decoded=$(tail -n 50 "$stream" 2>/dev/null | { grep '"op":"[cud]"' || true; } | tail -n 1 | cut -c -110)
			frame="   ${bold}${elapsed} s of $seconds${plain}"$'\n'"$(sed 's/^/   /' <<<"$frame")"$'\n'"   ${dim}${decoded:-}${plain}"
			[ ! -t 1 ] || [ "$lines" = 0 ] || printf '\e[%dA\e[J' "$lines"
			printf '%s\n' "$frame"
			lines=$(wc -l <<<"$frame")
		fi
		sleep 1
	done
	wait "$writer_pid" || { cat "$box/writer.log" >&2; fail "the writer"; }
	writer_pid=
	line "writer: $(sed -n 's/^number of transactions actually processed: //p' "$box/writer.log") transactions," \
		"$(sed -n 's/^latency average = \(.*\) ms.*/\1/p' "$box/writer.log" | head -n 1) ms each, capture included"
}

# How many rows differ, per stream table; the query and the table are read in one snapshot.
differences() {
	psql -XqAt -v ON_ERROR_STOP=1 <<-'SQL'
		SELECT format('SELECT %L, count(*) FROM ((TABLE %s EXCEPT ALL (%s)) UNION ALL ((%3$s) EXCEPT ALL TABLE %2$s)) AS d',
			pgt_relid::regclass, pgt_relid::regclass, regexp_replace(defining_query, ';\s*$', ''))
		FROM pgtrickle.pgt_stream_tables ORDER BY pgt_id
		\gexec
	SQL
}

wait_until_fresh() {
	local deadline=$(($(date +%s) + 60)) found
	while found=$(differences) || fail "could not compare"; do
		grep -qv '|0$' <<<"$found" || return 0
		[ "$(date +%s)" -lt "$deadline" ] || return 0	# the check below says what differs
		sleep 0.2
	done
}

compare_costs() {
	local table query cost
	printf '   %s%-22s %12s %12s %14s%s\n' "$bold" "stream table" "refresh" "recompute" "" "$plain"
	while IFS='|' read -r table typical; do
		query=$(sql -c "SELECT regexp_replace(defining_query, ';\s*$', '') FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = '$table'::regclass")
		cost=$(for _ in 1 2 3; do
			sql -c "EXPLAIN (ANALYZE, TIMING OFF, SUMMARY ON) $query" | sed -n 's/^Execution Time: \(.*\) ms/\1/p'
		done | sort -n | sed -n 2p)
		awk -v t="$table" -v r="$typical" -v c="$cost" 'BEGIN {
			if (r == "") printf "   %-22s %12s %9.1f ms\n", t, "none", c;
			else printf "   %-22s %9.1f ms %9.1f ms %12s\n", t, r, c, (c > r) ? sprintf("%.0f times", c / r) : "" }'
	done < <(sql -c "SELECT s.pgt_relid::regclass, percentile_cont(0.5) WITHIN GROUP (ORDER BY h.duration_ms)
		FROM pgtrickle.pgt_stream_tables s LEFT JOIN pgtrickle.pgt_refresh_history h
			ON h.pgt_id = s.pgt_id AND h.initiated_by = 'SCHEDULER' AND h.status = 'COMPLETED'
		GROUP BY s.pgt_id, s.pgt_relid ORDER BY s.pgt_id")
	line "${dim}refresh: median of what the scheduler did; recompute: EXPLAIN ANALYZE of the query, nothing written${plain}"
}

# Everything up to here must have reached the receiver before it is stopped. Refreshes
# commit asynchronously; the commit of CREATE TABLE puts what they wrote on disk.
stop_receiver() {
	local target
	sql -c "CREATE TABLE demo.stream (n bigint GENERATED ALWAYS AS IDENTITY, line jsonb)"
	target=$(sql -c "SELECT pg_current_wal_flush_lsn()")
	for _ in $(seq 300); do
		kill -0 "$receiver_pid" 2>/dev/null || { cat "$box/receiver.log" >&2; fail "pg_recvlogical ended by itself"; }
		[ "$(sql -c "SELECT confirmed_flush_lsn >= '$target' FROM pg_replication_slots WHERE slot_name = '$slot'")" = t ] && break
		sleep 0.1
	done
	kill -INT "$receiver_pid"
	wait "$receiver_pid" 2>/dev/null || true
	receiver_pid=
	sql -c "\\copy demo.stream (line) FROM '$stream' WITH (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')" ||
		fail "the decoder's lines are not JSON"
}

# All of the topic into a table; a key stays in its partition.
stop_forwarder() {
	local target
	target=$(sql -c "SELECT pg_current_wal_flush_lsn()")
	for _ in $(seq 300); do
		[ "$(sql -c "SELECT confirmed_flush_lsn >= '$target' FROM pg_replication_slots WHERE slot_name = 'kafka'")" = t ] && break
		sleep 0.1
	done
	kill -TERM "$forwarder_pid"
	wait "$forwarder_pid" || { cat "$box/forwarder.log" >&2; fail "the forwarder"; }
	forwarder_pid=
	kcat -b "$brokers" -C -t demo.shop.region_sales -o beginning -e -q -f '%p\t%o\t%k\t%s\n' >"$box/topic.tsv" || fail "kcat"
	sql -c "CREATE TABLE demo.topic (partition int, place bigint, key jsonb, value jsonb)"
	sql -c "\\copy demo.topic FROM '$box/topic.tsv' WITH (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\t')" || fail "the topic holds what is not JSON"
	psql -X -v ON_ERROR_STOP=1 -P footer=off -P border=1 <<-'SQL' | sed 's/^/   /'
		SELECT 'demo.shop.region_sales' AS topic, count(*) FILTER (WHERE value ->> 'op' = 'r') AS "at first", count(*) FILTER (WHERE value ->> 'op' <> 'r') AS "after it",
			count(DISTINCT key) AS keys, count(DISTINCT partition) AS partitions FROM demo.topic
	SQL
}

show_stream() {
	psql -X -v ON_ERROR_STOP=1 -P footer=off -P border=1 <<-'SQL' | sed 's/^/   /'
		SELECT line ->> 't' AS "relation", count(*) FILTER (WHERE line ->> 'op' = 'c') AS inserts,
		       count(*) FILTER (WHERE line ->> 'op' = 'u') AS updates, count(*) FILTER (WHERE line ->> 'op' = 'd') AS deletes
		FROM demo.stream WHERE line ->> 'op' IN ('c', 'u', 'd') GROUP BY 1 ORDER BY 1
	SQL
	grep '"op":"u","t":"shop.region_sales"' "$stream" | tail -n 2 | cut -c -150 | sed "s/^/   $dim/; s/\$/$plain/" || true
}

check() {
	local bad=0 table rows found
	found=$(differences) || fail "could not compare"
	while IFS='|' read -r table rows; do
		if [ "$rows" = 0 ]; then
			line "${green}equal${plain}     $table and its query"
		else
			line "${red}DIFFERENT${plain} $table and its query: $rows rows"
			bad=1
		fi
	done <<<"$found"
	[ "$(wc -l <<<"$found")" = 4 ] || { line "${red}there are not four stream tables${plain}"; bad=1; }

	# The rows that came out of the decoder, applied to the state before.
	rows=$(sql -c "
		CREATE TABLE demo.rebuilt AS
		WITH last AS (
			SELECT DISTINCT ON (coalesce(line -> 'a', line -> 'b') ->> 'region')
				coalesce(line -> 'a', line -> 'b') ->> 'region' AS region, line ->> 'op' AS op, line -> 'a' AS a
			FROM demo.stream WHERE line ->> 't' = 'shop.region_sales' AND line ->> 'op' IN ('c', 'u', 'd')
			ORDER BY 1, n DESC)
		SELECT * FROM demo.before WHERE region NOT IN (SELECT region FROM last)
		UNION ALL
		SELECT (jsonb_populate_record(NULL::shop.region_sales, a)).* FROM last WHERE op <> 'd';
		SELECT count(*) FROM ((TABLE demo.rebuilt EXCEPT ALL TABLE shop.region_sales)
			UNION ALL (TABLE shop.region_sales EXCEPT ALL TABLE demo.rebuilt)) AS d")
	if [ "$rows" = 0 ]; then
		line "${green}equal${plain}     shop.region_sales and its first state + the decoder's rows"
	else
		line "${red}DIFFERENT${plain} shop.region_sales and its first state + the decoder's rows: $rows rows"
		bad=1
	fi
	# What compaction would leave of the topic.
	rows=$(sql -c "
		CREATE TABLE demo.compacted AS
		SELECT r.* FROM (SELECT DISTINCT ON (key) value FROM demo.topic ORDER BY key, place DESC) l,
			jsonb_populate_record(NULL::shop.region_sales, l.value -> 'after') r WHERE l.value -> 'after' <> 'null';
		SELECT count(*) FROM ((TABLE demo.compacted EXCEPT ALL TABLE shop.region_sales)
			UNION ALL (TABLE shop.region_sales EXCEPT ALL TABLE demo.compacted)) AS d")
	if [ "$rows" = 0 ]; then
		line "${green}equal${plain}     shop.region_sales and its topic"
	else
		line "${red}DIFFERENT${plain} shop.region_sales and its topic: $rows rows"
		bad=1
	fi
	[ "$(sql -c 'SELECT count(*) > 0 FROM ((TABLE demo.before EXCEPT TABLE shop.region_sales)) AS d')" = t ] ||
		{ line "${red}region_sales never changed${plain}"; bad=1; }
	return $bad
}

[ "$(id -u)" != 0 ] || fail "a server does not run as root; use \"make demo\""

title "pg_trickle: tables defined by a query that keep themselves up to date"
started=$(date +%s.%N)
start_server
line "$(postgres --version | sed 's/^postgres (PostgreSQL)/PostgreSQL/') with pg_trickle $(sql -c "SELECT extversion FROM pg_extension WHERE extname = 'pg_trickle'") in $box (started in $(seconds_since "$started") s)"

title "A shop"
make_shop

title "Four stream tables"
make_stream_tables

title "The rows that change, on their way out"
start_receiver

title "And into Kafka"
start_forwarder

title "Somebody writes"
start_writer
watch_it

title "What a refresh costs, and what recomputing would cost"
wait_until_fresh
compare_costs

title "What the decoder sent"
stop_receiver
show_stream

title "What Kafka has"
stop_forwarder

title "Is it all true?"
check || fail "a stream table is not what its query says"
line "in $(seconds_since "$started") s altogether"
