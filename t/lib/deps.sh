#!/bin/bash
# deps.sh [format] [coverage] [asserts] [decoders] [java] [valgrind] [servers]: install the Debian packages that building,
# testing and the demo need and that are missing. Says what it does; does nothing when all is there.
#
# Nothing here starts a server: Debian would make and start a cluster "main" with the
# server package, so that is switched off first. An existing cluster is left alone.
#
# PostgreSQL: the version that PG_CONFIG names; else the one of this Debian release.
set -euo pipefail

pg_config=${PG_CONFIG:-pg_config}
say() { printf '%s\n' "== $*" >&2; }

if ! command -v dpkg-query >/dev/null 2>&1; then
	# Another system: check for what we use, install nothing.
	missing=
	for tool in gcc perl "$pg_config"; do
		command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
	done
	perl -MIPC::Run -e1 2>/dev/null || missing="$missing IPC::Run(perl)"
	perl -MDBD::Pg -e1 2>/dev/null || missing="$missing DBD::Pg(perl)"
	perl -MJSON::Validator -e1 2>/dev/null || missing="$missing JSON::Validator(perl)"
	[ -z "$missing" ] && exit 0
	say "this is not a Debian system, and these are missing:$missing"
	exit 1
fi

installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Major version: of the server that PG_CONFIG belongs to, if it is one.
major=
if pgxs=$("$pg_config" --pgxs 2>/dev/null) && [ -f "$pgxs" ]; then
	major=$("$pg_config" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
elif [ "$pg_config" != pg_config ]; then
	say "PG_CONFIG=$pg_config: no server development files there"
	exit 1
fi
if [ -z "$major" ]; then
	major=$({ ls -v /usr/lib/postgresql 2>/dev/null || true; } | tail -n 1)
fi
if [ -z "$major" ] && [ -r /etc/os-release ]; then
	case $(. /etc/os-release; echo "${VERSION_ID:-}") in
		12) major=15 ;;
		13) major=17 ;;
		*) major=15 ;;
	esac
fi

want=(gcc libc6-dev make perl util-linux libpq-dev librdkafka-dev libinih-dev libmicrohttpd-dev kcat pkg-config libipc-run-perl
	libdbd-pg-perl libjson-validator-perl libjson-xs-perl)
# A server that does not come from Debian needs none of Debian's.
case $("$pg_config" --bindir 2>/dev/null || true) in
	/usr/lib/postgresql/* | /usr/bin | '') want+=("postgresql-$major" "postgresql-server-dev-$major") ;;
esac
case $(. /etc/os-release 2>/dev/null; echo "${VERSION_ID:-}") in
	12) want+=(clang-format-14) ;;
	*) case " $* " in *' format '*) want+=(clang-format) ;; esac ;;
esac
case " $* " in *' valgrind '*) want+=(valgrind) ;; esac
case " $* " in *' coverage '*) want+=(lcov) ;; esac
# A JDK and Maven for the tests with Java programs, whichever the machine has.
case " $* " in
	*' java '*)
		command -v javac >/dev/null 2>&1 || want+=(default-jdk-headless)
		command -v mvn >/dev/null 2>&1 || want+=(maven)
		;;
esac
case " $* " in *' asserts '*) want+=(libicu-dev bison flex) ;; esac

case " $* " in *' servers '*) want+=(debootstrap) ;; esac
case " $* " in *' decoders '*) want+=("postgresql-$major-wal2json" "postgresql-$major-decoderbufs") ;; esac

missing=()
for package in "${want[@]}"; do
	installed "$package" || missing+=("$package")
done

# Minor versions of August 2026 close holes and decide which output plugins may run; an
# older one is brought up to date, and used as it is where there is no newer one.
declare -A minimum=([15]=15.19 [16]=16.15 [17]=17.11 [18]=18.6)
old=()
for package in "postgresql-$major" "postgresql-server-dev-$major"; do
	installed "$package" || continue
	have=$(dpkg-query -W -f '${Version}' "$package")
	if dpkg --compare-versions "$have" lt "${minimum[$major]:-0}"; then old+=("$package"); fi
done

if [ ${#missing[@]} -eq 0 ] && [ ${#old[@]} -eq 0 ]; then
	exit 0
fi

[ ${#old[@]} -eq 0 ] || say "these are of an old minor version: ${old[*]}"
[ ${#missing[@]} -eq 0 ] || say "these Debian packages are missing: ${missing[*]}"
if [ "$(id -u)" != 0 ]; then
	if sudo -n true 2>/dev/null; then
		sudo=(sudo -n env DEBIAN_FRONTEND=noninteractive)
	else
		say "run as root: apt-get update && apt-get install ${missing[*]} ${old[*]}"
		[ ${#missing[@]} -eq 0 ] && exit 0
		exit 1
	fi
else
	sudo=(env DEBIAN_FRONTEND=noninteractive)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
	say "apt-get $*"
	"${sudo[@]}" apt-get -y -q -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@" </dev/null >"$log" 2>&1 || {
		tail -n 30 "$log" >&2
		say "apt-get $1 failed"
		[ ${#missing[@]} -eq 0 ] && exit 0
		exit 1
	}
}

apt update

# The server package makes no cluster of its own if it is told so before.
conf=/etc/postgresql-common/createcluster.conf
if ! installed "postgresql-$major" && [ ! -e "$conf" ]; then
	say "telling postgresql-common not to make a cluster: $conf"
	"${sudo[@]}" mkdir -p /etc/postgresql-common
	"${sudo[@]}" sh -c "echo 'create_main_cluster = false' > $conf"
fi

# Installing a package that is there takes its newer version, if there is one. A running
# cluster is restarted by that, as by any other upgrade of the server.
apt install --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}" "${old[@]}"
say "installed"
