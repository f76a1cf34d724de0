#!/bin/bash
# run.sh: every check of t/lint, one after the other; all run even if one fails.
# Under prove the same checks are the tests of t/000_lint.pl.
set -uo pipefail
cd "$(dirname "$0")/../.."

status=0
for check in layers.pl headers.sh text.pl symbols.sh version_sync.sh format.sh; do
	echo "== $check"
	t/lint/$check || status=1
done
[ $status = 0 ] && echo "lint: all well"
exit $status
