#!/bin/bash
# run.sh SECONDS [OPTION...]: make soak. Runs inside t/lib/sandbox.sh; the options are those of
# soak.pl.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec perl t/soak/soak.pl --seconds "${1:-180}" "${@:2}"
