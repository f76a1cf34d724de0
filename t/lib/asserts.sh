#!/bin/bash
# asserts.sh FOLDER: a PostgreSQL with assertions, of the major version of PG_CONFIG, built
# once from Debian's source package and installed into FOLDER (a few minutes, 200 MB).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd -P)
folder=$1
# PostgreSQL makes its headers only where make is the outermost one.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES DESTDIR
say() { printf '%s\n' "== $*" >&2; }

[ ! -x "$folder/bin/pg_config" ] || exit 0
major=$("${PG_CONFIG:-pg_config}" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
say "building PostgreSQL $major with --enable-cassert for $folder, in $build"
tarball=$("$here/source.sh" "$build" "$major")
mkdir "$build/src"
tar -C "$build/src" --strip-components=1 -xf "$tarball"
cd "$build/src"
./configure -q --prefix="$folder" --enable-cassert --enable-debug --with-icu --without-readline --without-zlib \
	CFLAGS='-O1 -g' >&2
# A server that is half installed would be taken for a whole one.
make -s -j2 >&2
for part in src contrib/btree_gist; do
	make -s -C "$part" install DESTDIR="$build/inst" >&2
done
mkdir -p "$folder"
cp -a "$build/inst$folder/." "$folder"
