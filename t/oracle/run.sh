#!/bin/bash
# run.sh SECONDS [OPTION...]: make oracle. Runs inside t/lib/sandbox.sh; the options are
# those of oracle.pl.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec perl t/oracle/oracle.pl --seconds "${1:-60}" "${@:2}"
