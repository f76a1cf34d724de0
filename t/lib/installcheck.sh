#!/bin/bash
# installcheck.sh: regress and isolation tests against a running server that has the
# extension installed. The server is the one of PGHOST, PGPORT, PGUSER.
set -euo pipefail
cd "$(dirname "$0")/../.."

pg_config=${PG_CONFIG:-pg_config}
pgxs_test=$(dirname "$(dirname "$("$pg_config" --pgxs)")")/test
bindir=$("$pg_config" --bindir)
out=$PWD/tmp_check/installcheck
mkdir -p "$out/regress" "$out/isolation"
status=0

run() {
	local program=$1 dir=$2 kind=$3 ext=$4 names=()
	shift 4
	for file in "$dir/$kind"/*."$ext"; do
		[ -e "$file" ] && names+=("$(basename "$file" ".$ext")")
	done
	[ ${#names[@]} -gt 0 ] || return 0
	[ -e "$dir/schedule" ] && names=(--schedule="$dir/schedule")
	"$program" --inputdir="$dir" --outputdir="$out/$(basename "$dir")" --bindir="$bindir" \
		--load-extension=pg_trickle --dbname="contrib_$(basename "$dir")_pg_trickle" "${names[@]}" || status=1
}
run "$pgxs_test/regress/pg_regress" t/regress sql sql
run "$pgxs_test/isolation/pg_isolation_regress" t/isolation specs spec
exit $status
