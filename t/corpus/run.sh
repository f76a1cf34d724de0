#!/bin/bash
# run.sh [OPTION...]: make corpus. Runs inside t/lib/sandbox.sh; the options are those of
# corpus.pl. Fetches the tests of PostgreSQL once, into the sandbox's folder: from Debian's
# source package, the server's own version if the archive still has it.
set -euo pipefail
cd "$(dirname "$0")/../.."

major=$("${PG_CONFIG:-pg_config}" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
folder=${PGT_SANDBOX:?run make corpus}/corpus-$major

fetch() {
	local lists=$folder/apt uri suites tarball
	local options=(-o "Dir::Etc::SourceList=$lists/list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$lists/lists"
		-o "Dir::Cache=$lists/cache" -o "APT::Sandbox::User=$(id -un)")

	mkdir -p "$lists/lists/partial" "$lists/cache"
	# The archives that packages come from here, for sources.
	apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		sort -u | while read -r uri suites tarball; do
			echo "deb-src $uri $suites $tarball"
		done >"$lists/list"
	apt-get "${options[@]}" -qq update
	apt-cache "${options[@]}" showsrc "postgresql-$major" | sed -n 's/^Version: //p' | sort -Vr | uniq |
		while read -r version; do
			(cd "$lists" && apt-get "${options[@]}" -qq source --download-only "postgresql-$major=$version") && break
		done
	tarball=$(ls -v "$lists"/postgresql-*.orig.tar.* | tail -n 1)
	mkdir -p "$folder/part"
	tar -C "$folder/part" --strip-components=4 --wildcards -xf "$tarball" '*/src/test/regress/*'
	mv "$folder/part" "$folder/regress"
}

[ -d "$folder/regress" ] || fetch
exec perl t/corpus/corpus.pl --source "$folder/regress" "$@"
