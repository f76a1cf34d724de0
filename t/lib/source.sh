#!/bin/bash
# source.sh FOLDER MAJOR: PostgreSQL's source, as Debian's source package has it, into FOLDER
# (*.orig.tar.*); prints the file's name. The server's own version if the archive still has
# it, else one before. Needs no rights: its own lists and cache, in FOLDER.
set -euo pipefail

folder=$1
major=$2
options=(-o "Dir::Etc::SourceList=$folder/list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$folder/lists"
	-o "Dir::Cache=$folder/cache" -o "APT::Sandbox::User=$(id -un)")

mkdir -p "$folder/lists/partial" "$folder/cache"
# The archives that packages come from here, for sources.
apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
	sort -u | while read -r uri suites component; do
		echo "deb-src $uri $suites $component"
	done >"$folder/list"
apt-get "${options[@]}" -qq update >&2
apt-cache "${options[@]}" showsrc "postgresql-$major" | sed -n 's/^Version: //p' | sort -Vr | uniq |
	while read -r version; do
		(cd "$folder" && apt-get "${options[@]}" -qq source --download-only "postgresql-$major=$version" >&2) && break
	done
ls -v "$folder"/postgresql-*.orig.tar.* | tail -n 1
