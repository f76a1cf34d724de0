#!/bin/bash
# check_all.sh "VERSION..." "COMPILER..." [TEST...]: builds with each compiler for each version of
# PostgreSQL, where a warning is an error, and runs the tests with what the first one made. A
# version other than PG_CONFIG's runs in a chroot (chroot.sh). All run even if one fails; what
# each came to is told at the end.
set -uo pipefail
cd "$(dirname "$0")/../.."

versions=$1
compilers=$2
shift 2
say() { printf '%s\n' "== $*"; }
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES DESTDIR PGT_CC PGT_CFLAGS

log=$(mktemp)
trap 'rm -f "$log"' EXIT
results=()
status=0

# The clang of a server is the one it was built with; Debian brings it along.
# shellcheck disable=SC2016
build='case $1 in
	clang) cc=$(sed -n "s/^CLANG *= *//p" "$(dirname "$("${PG_CONFIG:-pg_config}" --pgxs)")/../Makefile.global")
		flags="-Wno-unknown-warning-option -Wno-ignored-attributes -Wno-ignored-optimization-argument" ;;
	*) cc=$1 flags= ;;
esac
shift
PGT_CC=$cc PGT_CFLAGS="-Werror $flags" exec t/lib/sandbox.sh --test-points -- "$@"'

# here VERSION COMMAND...: where that version is.
here() {
	local version=$1
	shift
	if [ "$version" = "$own" ]; then "$@"; else t/lib/chroot.sh run "$version" "$@"; fi
}

own=$("${PG_CONFIG:-pg_config}" --version 2>/dev/null | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
for version in $versions; do
	if [ "$version" = "$own" ]; then t/lib/deps.sh; else t/lib/chroot.sh make "$version"; fi || {
		results+=("PostgreSQL $version: could not be had")
		status=1
		continue
	}
	first=
	for compiler in $compilers; do
		say "PostgreSQL $version, $compiler"
		# Not a pipe's exit status, but that of the tests.
		if [ -z "$first" ]; then
			first=$compiler
			here "$version" sh -c "$build" sh "$compiler" t/lib/prove.sh "$@" 2>&1 | tee "$log"
			result=${PIPESTATUS[0]}
			told=$(grep -E '^(Files=|Result:)' "$log" | cut -d, -f1-2 | paste -sd' ')
			told=${told:-could not be built}
		else
			here "$version" sh -c "$build" sh "$compiler" true
			result=$?
			told=$([ $result = 0 ] && echo 'builds' || echo 'could not be built')
		fi
		results+=("PostgreSQL $version, $compiler: $told")
		[ "$result" = 0 ] || status=1
	done
done
echo
say 'in all:'
printf '   %s\n' "${results[@]}"
exit $status
