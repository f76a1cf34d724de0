#!/bin/bash
# coverage.sh [TEST...]: run the tests in a build made for gcov, then make coverage/:
# summary.txt with the lines covered per file, html/ when lcov is installed. Runs inside
# sandbox.sh --coverage, which copies coverage/ into the checkout.
#
# Backends write their counters when they exit; those that a test kills with -9 do not,
# so the figures err on the low side.
set -euo pipefail
cd "$(dirname "$0")/../.."

find . -name '*.gcda' -delete
rm -rf coverage
mkdir -p coverage

status=0
t/lib/prove.sh "$@" || status=$?

for part in worker decoder; do
	[ -d "$part" ] || continue
	# Objects were compiled with their part's folder as the current one.
	(cd "$part" && find . -name '*.gcda' -print0 | xargs -0 -r -n 1 gcov -r -n 2>/dev/null) |
		awk -v part="$part" '
			/^File / { gsub(/[\x27]/, "", $2); file = $2 }
			/^Lines executed:/ && file != "" {
				split($2, f, ":"); sub(/%/, "", f[2])
				if (file !~ /^\.\.\// || part == "worker") printf "%7.2f %6d  %s/%s\n", f[2], $4, part, file
				file = "" }'
done | sort -k3 -u >coverage/summary.txt
awk '{ lines += $2; covered += $1 * $2 / 100 } END {
	if (lines) printf "%7.2f %6d  %s\n", 100 * covered / lines, lines, "all" }' coverage/summary.txt >>coverage/summary.txt

if command -v lcov >/dev/null 2>&1; then
	lcov -q --capture --directory worker --directory decoder --no-external --base-directory . \
		--output-file coverage/lcov.info 2>coverage/lcov.log &&
		genhtml -q coverage/lcov.info --output-directory coverage/html >>coverage/lcov.log 2>&1 ||
		echo "lcov made no report, see coverage/lcov.log" >&2
fi
cat coverage/summary.txt
exit $status
