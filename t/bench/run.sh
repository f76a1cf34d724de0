#!/bin/bash
# run.sh [OPTION...]: make bench. Runs inside t/lib/sandbox.sh; see README.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec perl t/bench/bench.pl "$@"
