#!/bin/sh
# setup.sh: for a machine that has not even make. Installs git and make, then everything
# else the project needs ("make deps"). Debian; as root, or with sudo.
set -eu
cd "$(dirname "$0")"

missing=
command -v make >/dev/null 2>&1 || missing="$missing make"
command -v git >/dev/null 2>&1 || missing="$missing git"

if [ -n "$missing" ]; then
	command -v apt-get >/dev/null 2>&1 || { echo "setup.sh: please install:$missing" >&2; exit 1; }
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	echo "== installing$missing" >&2
	$sudo apt-get update -q >/dev/null </dev/null
	# shellcheck disable=SC2086
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
		ca-certificates $missing >/dev/null </dev/null
fi

make deps
echo "== ready: 'make demo' shows it, 'make check' tests it" >&2
