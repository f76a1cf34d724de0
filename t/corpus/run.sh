#!/bin/bash
# run.sh [OPTION...]: make corpus. Runs inside t/lib/sandbox.sh; the options are those of
# corpus.pl. Fetches the tests of PostgreSQL once, into the sandbox's folder: from Debian's
# source package, the server's own version if the archive still has it.
set -euo pipefail
cd "$(dirname "$0")/../.."

major=$("${PG_CONFIG:-pg_config}" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
folder=${PGT_SANDBOX:?run make corpus}/corpus-$major

fetch() {
	local tarball

	tarball=$(t/lib/source.sh "$folder/apt" "$major")
	mkdir -p "$folder/part"
	tar -C "$folder/part" --strip-components=4 --wildcards -xf "$tarball" '*/src/test/regress/*'
	mv "$folder/part" "$folder/regress"
}

[ -d "$folder/regress" ] || fetch
exec perl t/corpus/corpus.pl --source "$folder/regress" "$@"
