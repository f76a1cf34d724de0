#!/bin/bash
# run.sh: make bench-replay. Compiles the policy with the traces and prints the table.
set -euo pipefail
cd "$(dirname "$0")/../../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${CC:-gcc}" -std=gnu99 -O2 -Wall -Wextra -Iinclude t/bench/replay/replay.c worker/policy/forecast.c -lm -o "$folder/replay"
"$folder/replay"
