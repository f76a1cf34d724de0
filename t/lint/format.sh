#!/bin/bash
# format.sh [--write]: does every C file look as .clang-format says? With --write: make
# it so. One version of clang-format, because two versions disagree.
#
#   PGT_FORMAT_CHECK=warn    only say so (exit status 0)
set -uo pipefail
cd "$(dirname "$0")/../.."

pinned=14
clang_format=$(command -v clang-format-$pinned || true)
if [ -z "$clang_format" ]; then
	echo "clang-format-$pinned is not here, so the format is not checked"
	exit 0
fi

mapfile -d '' files < <(find include worker decoder examples t -name '*.[ch]' -print0 2>/dev/null | sort -z)
[ ${#files[@]} -gt 0 ] || exit 0

if [ "${1:-}" = --write ]; then
	"$clang_format" -i "${files[@]}"
	exit
fi

bad=()
for file in "${files[@]}"; do
	"$clang_format" "$file" | cmp -s - "$file" || bad+=("$file")
done
[ ${#bad[@]} -eq 0 ] && exit 0
printf '%s: not formatted as .clang-format says (make format)\n' "${bad[@]}"
[ "${PGT_FORMAT_CHECK:-error}" = warn ]
