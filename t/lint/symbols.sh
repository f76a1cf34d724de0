#!/bin/bash
# symbols.sh: what the libraries export begins with their prefix. Every other global name
# would be visible to, and could collide with, any other library in the backend.
set -uo pipefail
cd "$(dirname "$0")/../.."

status=0
check() {
	local library=$1 allowed=$2 strangers
	[ -e "$library" ] || { echo "$library is not built, so not checked"; return; }
	strangers=$(nm -D --defined-only "$library" | awk '{print $NF}' | grep -vE "$allowed" |
		grep -vE '^(_init|_fini|__gcov_|mangle_path|__bss_start|_edata|_end)')
	[ -z "$strangers" ] || { echo "$library exports names without its prefix:" $strangers; status=1; }
}
check worker/pg_trickle.so '^(pgt_|Pg_magic_func$|_PG_|pg_finfo_pgt_)'
check decoder/pg_trickle_decoder.so '^(pgtd_|Pg_magic_func$|_PG_|pg_finfo_pgtd_)'
exit $status
