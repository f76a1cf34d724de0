#!/bin/bash
# prove.sh [TEST...]: the tests of this checkout, all under one prove, whose summary is
# the last thing printed. Runs inside sandbox.sh. Without arguments: t/*.pl.
#
#   PGT_PROVE_FLAGS   more flags for prove, for example -v
set -euo pipefail
cd "$(dirname "$0")/../.."

export TESTDATADIR=$PWD/tmp_check
export TESTLOGDIR=$TESTDATADIR/log
export PG_TEST_TIMEOUT_DEFAULT=${PG_TEST_TIMEOUT_DEFAULT:-180}
export LC_MESSAGES=C
unset PGTZ PGDATESTYLE PGCLIENTENCODING
rm -rf "$TESTDATADIR"
mkdir -p "$TESTLOGDIR"

tests=("$@")
[ ${#tests[@]} -gt 0 ] || tests=(t/[0-9]*.pl)

exec prove --timer -I t/lib ${PGT_PROVE_FLAGS:-} "${tests[@]}"
