#!/bin/bash
# sandbox.sh [--test-points] [--coverage] -- COMMAND [ARGUMENT...]
# sandbox.sh --remove
#
# Runs a command where the tests and the demo may do as they please: in a copy of this
# checkout, built and installed into a private copy of the server installation, as a
# user that is not root (initdb refuses root). Nothing outside that folder is touched,
# and the checkout itself need not be readable by that user.
#
# The folder stays for the next run, which then copies and compiles only what changed.
#
#   PG_CONFIG   the server to copy                  (default: pg_config of the PATH)
#   PGT_USER    who runs everything if root calls   (default: postgres, made if missing)
#   PGT_SANDBOX the folder                          (default: under /var/tmp)
#   PGT_CC      the compiler, in a folder apart     (default: the server's)
#
# The command finds: the server's programs first in PATH, PG_CONFIG, PG_REGRESS,
# PG_ISOLATION_REGRESS, PGT_SANDBOX, PGT_TEST_POINTS, PGT_COVERAGE, HOME inside the folder.
set -euo pipefail

here=$(cd "$(dirname "$0")/../.." && pwd -P)
kind=plain
test_points=
coverage=
remove=

while [ $# -gt 0 ]; do
	case $1 in
		--test-points) test_points=1; kind=points ;;
		--coverage) coverage=1; kind=coverage ;;
		--remove) remove=1 ;;
		--) shift; break ;;
		*) echo "sandbox.sh: unknown option $1" >&2; exit 2 ;;
	esac
	shift
done

say() { printf '%s\n' "== $*" >&2; }

# --- who ---------------------------------------------------------------------------

if [ "$(id -u)" = 0 ]; then
	user=${PGT_USER:-postgres}
	if ! id -u "$user" >/dev/null 2>&1; then
		[ -n "$remove" ] || { say "making the user $user, since servers do not run as root"
			useradd --system --no-create-home --shell /bin/sh "$user"; }
	fi
	as_user() { runuser -u "$user" -- "$@"; }
else
	user=$(id -un)
	as_user() { "$@"; }
fi

# --- where -------------------------------------------------------------------------

root=${PGT_SANDBOX:-/var/tmp/pg_trickle-$user-$(printf '%s' "$here" | cksum | cut -d' ' -f1)}
if [ -n "$remove" ]; then
	# Only what carries our mark, so that a mistyped PGT_SANDBOX costs nothing.
	[ -e "$root/.pg_trickle-sandbox" ] || exit 0
	cd "$root"
	for pid_file in "$root"/*/demo/data/postmaster.pid; do
		[ -e "$pid_file" ] || continue
		say "stopping the server that make demo-keep left"
		as_user "$(find "$root" -path '*/inst/*' -name pg_ctl | head -n 1)" \
			-D "$(dirname "$pid_file")" -m fast -w stop >&2 || true
	done
	cd /
	rm -rf -- "$root"
	exit 0
fi

if [ -e "$root" ]; then
	[ "$(stat -c %U "$root")" = "$user" ] ||
		{ echo "sandbox.sh: $root exists and does not belong to $user" >&2; exit 1; }
else
	if [ "$(id -u)" = 0 ]; then
		install -d -m 0755 -o "$user" "$root"
	else
		mkdir -m 0755 "$root"
	fi
fi
as_user touch "$root/.pg_trickle-sandbox"

box=$root/$kind${PGT_CC:+-${PGT_CC##*/}}
src=$box/src
inst=$box/inst
as_user mkdir -p "$src" "$inst" "$box/home"
exec </dev/null
cd "$root"

# One run at a time per folder; a second one waits.
exec 9>>"$box.lock"
flock -n 9 || { say "waiting for another run in $box"; flock 9; }

# --- the checkout ------------------------------------------------------------------

# Copied by root, written by the user. Files that the checkout no longer has go, what
# the compiler made stays.
not_source=(--exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' --exclude='*.gcda'
	--exclude='*.gcno' --exclude=./tmp_check --exclude=./tmp_install --exclude=./coverage
	--exclude='./sql/pg_trickle--*.sql' --exclude=./t/unit/bin)
tar -C "$here" "${not_source[@]}" -cf - . | as_user tar -C "$src" --no-same-owner -xf -
comm -13 \
	<(tar -C "$here" "${not_source[@]}" -cf - . | tar -tf - | sort) \
	<(as_user tar -C "$src" "${not_source[@]}" -cf - . | tar -tf - | sort) |
	{ grep -v '/$' || true; } | (cd "$src" && as_user xargs -r -d '\n' rm -f --)

# --- the server installation ----------------------------------------------------------

pg_config=${PG_CONFIG:-pg_config}
bindir=$("$pg_config" --bindir)
pkglibdir=$("$pg_config" --pkglibdir)
sharedir=$("$pg_config" --sharedir)
# Packages that came or went since change the folder of libraries.
version="$("$pg_config" --version) of $(stat -c %Y "$pkglibdir")"

# PostgreSQL finds its files relative to its executable, so the copy keeps the layout.
if [ "$(cat "$inst/.version" 2>/dev/null)" != "$version $bindir" ]; then
	say "copying $version to $inst"
	as_user rm -rf "$inst"
	as_user mkdir -p "$inst"
	for dir in "$bindir" "$pkglibdir" "$sharedir"; do
		as_user mkdir -p "$inst$dir"
		tar -C "$dir" --exclude=./bitcode -cf - . |
			as_user tar -C "$inst$dir" --no-same-owner -xf -
	done
	# Headers are only read; a link is enough for the copied pg_config to find them.
	include=$("$pg_config" --includedir-server)
	as_user mkdir -p "$inst$(dirname "$include")"
	as_user ln -s "$include" "$inst$include"
	as_user sh -c 'echo "$1" > "$2"' sh "$version $bindir" "$inst/.version"
fi

cppflags=${PGT_CPPFLAGS:-}
cflags=${PGT_CFLAGS:-}
[ -z "$test_points" ] || cppflags="-DPGT_TEST_POINTS $cppflags"
[ -z "$coverage" ] || cflags="--coverage -O0 $cflags"

# Objects made with other flags are of no use.
flags="$version|$cppflags|$cflags"
if [ "$(cat "$box/.flags" 2>/dev/null)" != "$flags" ]; then
	as_user find "$src" \( -name '*.o' -o -name '*.so' -o -name '*.gc??' \) -delete
	as_user sh -c 'printf %s "$1" > "$2"' sh "$flags" "$box/.flags"
fi

# What the calling make exported is for the calling make.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES DESTDIR

say "building in $src"
build=(make -s -C "$src" -j2 "PG_CONFIG=$bindir/pg_config" "PGT_CPPFLAGS=$cppflags" "PGT_CFLAGS=$cflags" ${PGT_CC:+"CC=$PGT_CC"})
as_user "${build[@]}" all >&2 9>&-
as_user "${build[@]}" -j1 install "DESTDIR=$inst" >&2 9>&-

# --- the command -----------------------------------------------------------------------

pgxs_test=$(dirname "$(dirname "$("$pg_config" --pgxs)")")/test
cd "$src"
status=0
# A bare machine has no locale, and without one initdb makes databases of SQL_ASCII.
as_user env -u LC_ALL -u LC_CTYPE -u PGHOST -u PGPORT -u PGUSER -u PGDATABASE -u PGDATA -u PGSERVICE -u PGOPTIONS LANG=C.UTF-8 \
	"PATH=$inst$bindir:$PATH" "HOME=$box/home" \
	"PG_CONFIG=$inst$bindir/pg_config" \
	"PG_REGRESS=$pgxs_test/regress/pg_regress" \
	"PG_ISOLATION_REGRESS=$pgxs_test/isolation/pg_isolation_regress" \
	"PGT_SANDBOX=$box" "PGT_TEST_POINTS=$test_points" "PGT_COVERAGE=$coverage" \
	"PGT_FORMAT_CHECK=${PGT_FORMAT_CHECK:-error}" \
	"$@" 9>&- || status=$?

if [ -d "$src/coverage" ] && [ -n "$coverage" ]; then
	rm -rf "$here/coverage"
	cp -r --no-preserve=ownership "$src/coverage" "$here/coverage"
fi
exit $status
