#!/bin/bash
# chroot.sh make VERSION                  a Debian that has PostgreSQL VERSION, with all that the tests need
# chroot.sh have VERSION                  is it there, and may we use it?
# chroot.sh run VERSION COMMAND [ARG...]  the command in it, in this checkout
# chroot.sh others                        makes those that t/700_other_servers.pl runs in, if it can
# chroot.sh remove                        all of them
#
# The packages of another Debian release would replace this machine's libc, so other
# versions of PostgreSQL live in folders of their own, made once (a minute, 1.5 GB each).
# They are mounted together in a mount namespace, which goes with the command: there is
# nothing to unmount.
#
# root makes them. Anybody may run in them where the kernel lets users have namespaces.
#
#   PGT_CHROOTS      where                      (default: /var/tmp/pg_trickle-chroots)
#   DEBIAN_MIRROR    where packages come from   (default: http://deb.debian.org/debian)
set -euo pipefail

here=$(cd "$(dirname "$0")/../.." && pwd -P)
chroots=${PGT_CHROOTS:-/var/tmp/pg_trickle-chroots}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
path=/usr/sbin:/usr/bin:/sbin:/bin
say() { printf '%s\n' "== $*" >&2; }
fail() { printf '%s\n' "chroot.sh: $*" >&2; exit 1; }

# The Debian release that came with this version.
declare -A release=([15]=bookworm [17]=trixie [18]=sid)

# in_chroot COMMAND [ARGUMENT...]: with /proc, /dev and this checkout, where it is outside, too.
# Whoever is not root keeps the name, so that files belong to the same user within and without.
in_chroot() {
	local namespaces=(--mount --ipc --propagation private) keep=()
	if [ "$(id -u)" != 0 ]; then
		namespaces+=(--user --map-current-user --keep-caps)
		keep=(setpriv --ambient-caps=-all --inh-caps=-all)
	fi
	unshare "${namespaces[@]}" bash -c '
		set -e
		root=$1 here=$2 me=$3
		shift 3
		mount --rbind /proc "$root/proc"
		mount --rbind /dev "$root/dev"
		mount -t tmpfs -o mode=755 none "$root/mnt"
		mkdir -p "$root/mnt$here"
		mount --bind "$here" "$root/mnt$here"
		if [ -n "$me" ]; then
			{ grep -v "^${me%%:*}:" "$root/etc/passwd"; echo "$me"; } >"$root/mnt/passwd"
			mount --bind "$root/mnt/passwd" "$root/etc/passwd"
		fi
		exec chroot "$root" "$@"' \
		in_chroot "$root" "$here" "$([ "$(id -u)" = 0 ] || getent passwd "$(id -un)")" \
		"${keep[@]}" env -i "PATH=$path" HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
		"${passed_on[@]}" sh -c 'cd "$1" && shift && exec "$@"' sh "/mnt$here" "$@"
}

# What a test run may be told by environment.
passed_on=()
for name in PGT_PROVE_FLAGS PGT_PARALLEL_WORKERS PG_TEST_EXTRA PG_TEST_TIMEOUT_DEFAULT; do
	[ -z "${!name+set}" ] || passed_on+=("$name=${!name}")
done

make_chroot() {
	local new=$root.new log=$root.log
	if [ "$(id -u)" != 0 ]; then
		[ -e "$root" ] || fail "only root can make $root"
		return 0
	fi
	in_namespace || fail "mount namespaces are not allowed here"
	mkdir -p "$chroots"
	exec 9>>"$root.lock"
	flock 9
	if [ ! -e "$root" ]; then
		[ "$(df --output=avail -B 1M "$chroots" | tail -n 1)" -gt 4000 ] || fail "less than 4 GB left in $chroots"
		say "making a Debian $suite with PostgreSQL $version in $root"
		rm -rf --one-file-system "$new"
		timeout "$patience" debootstrap --variant=minbase --include=make,ca-certificates "$suite" "$new" "$mirror" >"$log" 2>&1 ||
			{ tail -n 5 "$log" >&2; fail "debootstrap could not make $new ($log)"; }
		# No server starts, no cluster is made.
		printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d"
		chmod +x "$new/usr/sbin/policy-rc.d"
		mkdir -p "$new/etc/postgresql-common"
		echo 'create_main_cluster = false' >"$new/etc/postgresql-common/createcluster.conf"
		# A mirror may be a few weeks behind; what it has is signed all the same.
		echo 'Acquire::Check-Valid-Until "false";' >"$new/etc/apt/apt.conf.d/50mirror"
		root=$new in_chroot timeout "$patience" apt-get -y -q -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io \
			install --no-install-recommends "postgresql-$version" "postgresql-server-dev-$version" </dev/null >>"$log" 2>&1 ||
			{ tail -n 5 "$log" >&2; fail "could not install PostgreSQL $version in $new ($log)"; }
		mv "$new" "$root"
	fi
	# What tests need may be more than it was when it was made.
	in_chroot env PG_CONFIG="$bindir/pg_config" t/lib/deps.sh 9>&- || fail "packages are missing in $root"
	rm -f "$root"/var/cache/apt/archives/*.deb
}

# May we do here what in_chroot does?
in_namespace() {
	local user=()
	[ "$(id -u)" = 0 ] || user=(--user --map-current-user --keep-caps)
	unshare --mount --ipc "${user[@]}" mount -t tmpfs none /mnt 2>/dev/null
}

choose_version() {
	version=${1:-}
	suite=${release[${version:-0}]:-}
	[ -n "$suite" ] || fail "no Debian release with PostgreSQL '$version' is known (${!release[*]} are)"
	root=$chroots/$version
	bindir=/usr/lib/postgresql/$version/bin
}

# Seconds for debootstrap, and again for packages.
patience=900
action=${1:-}
[ $# -eq 0 ] || shift
case $action in make | have | run) choose_version "$@"; shift ;; esac

case $action in
	make)
		[ "$(id -u)" != 0 ] || "$here/t/lib/deps.sh" servers
		make_chroot
		;;
	others)
		# The tests that need them say so if they are not there; a slow mirror must not stop all others.
		patience=150
		[ "$(id -u)" = 0 ] && in_namespace && "$here/t/lib/deps.sh" servers || exit 0
		own=$("${PG_CONFIG:-pg_config}" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
		for other in 17 18; do
			[ "$other" = "$own" ] || { choose_version "$other"; make_chroot || true; } &
		done
		wait
		;;
	have)
		[ -x "$root$bindir/pg_config" ] || fail "$root is not there (as root: t/lib/chroot.sh make $version)"
		in_namespace || fail "the kernel does not allow $(id -un) namespaces of its own"
		;;
	run)
		[ -x "$root$bindir/pg_config" ] || fail "$root is not there (as root: t/lib/chroot.sh make $version)"
		in_chroot env PG_CONFIG="$bindir/pg_config" "$@"
		;;
	remove)
		for version in "${!release[@]}"; do
			rm -rf --one-file-system "${chroots:?}/$version" "$chroots/$version".{new,log,lock}
		done
		[ ! -d "$chroots" ] || rmdir --ignore-fail-on-non-empty "$chroots"
		;;
	*) sed -n '2,/^$/{/^#/!q;s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
