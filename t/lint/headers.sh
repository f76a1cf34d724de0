#!/bin/bash
# headers.sh: each header compiles alone, after postgres.h, so that nobody depends on the
# order of includes. pgt_wire.h and pgt_test.h are plain C99 and compile without it.
set -uo pipefail
cd "$(dirname "$0")/../.."

include=$("${PG_CONFIG:-pg_config}" --includedir-server)
flags=(-Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
	-Wno-unused-function -Werror -fsyntax-only -x c -Iinclude -D_GNU_SOURCE)
status=0

for header in include/*.h worker/*/*.h worker/*/*/*.h decoder/*.h t/unit/*.h; do
	[ -e "$header" ] || continue
	case $header in
		include/pgt_wire.h | t/unit/pgt_test.h)
			text='' own=(-std=c99 -pedantic -Wno-variadic-macros) ;;
		*)
			text='#include "postgres.h"' own=(-std=gnu99 "-I$(dirname "$header")" "-I$include")
			case $header in worker/*) own+=("-I$(echo "$header" | cut -d/ -f1,2)") ;; esac ;;
	esac
	printf '%s\n#include "%s"\n' "$text" "$PWD/$header" |
		gcc "${flags[@]}" "${own[@]}" - ||
		{ echo "$header: does not compile alone"; status=1; }
done
exit $status
