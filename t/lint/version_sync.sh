#!/bin/bash
# version_sync.sh: the version stands in sql/pg_trickle.control; everything else that
# names it agrees. Checks META.json, CHANGELOG.md, the documentation, the built library
# and SQL, that nothing in the C sources names a version, and that from every former
# release, whose installation script is kept, upgrade scripts lead to this version.
set -uo pipefail
cd "$(dirname "$0")/../.."

status=0
complain() { echo "$*"; status=1; }

version=$(sed -n "s/^default_version = '\(.*\)'/\1/p" sql/pg_trickle.control)
[ -n "$version" ] || { echo "sql/pg_trickle.control has no default_version"; exit 1; }

perl -MJSON::PP -e '
	local $/; my ($path, $version) = @ARGV; my $bad = 0;
	open my $f, "<", $path or die "could not open $path\n";
	my $meta = decode_json(<$f>);
	my $check = sub { my ($what, $have) = @_;
		$have = "" unless defined $have;
		if ($have ne $version) { print "$path: $what is $have, not $version\n"; $bad = 1 } };
	$check->("version", $meta->{version});
	$check->("provides.$_.version", $meta->{provides}{$_}{version}) for sort keys %{$meta->{provides}};
	exit $bad;' META.json "$version" || status=1

first=$(sed -n 's/^## \[\{0,1\}\([0-9][0-9.]*\)\]\{0,1\}.*/\1/p' CHANGELOG.md | head -n 1)
[ "$first" = "$version" ] || complain "CHANGELOG.md: the newest release is '$first', not $version"

# Documentation names the version of the SQL script and of itself, if it does.
others=$(grep -rnoE 'pg_trickle--[0-9]+\.[0-9]+\.[0-9]+\.sql|pg_trickle [0-9]+\.[0-9]+\.[0-9]+' README.md docs |
	grep -vF -e "pg_trickle--$version.sql" -e "pg_trickle $version")
[ -z "$others" ] || complain "another version than $version: $others"

statuses=$(grep -nE '^[0-9]+\.[0-9]+\.[0-9]+' README.md | grep -v ":$version")
[ -z "$statuses" ] || complain "README.md: the status names another version than $version: $statuses"
release=$(grep -noE 'Of release [0-9.]+[0-9]' docs/*.md | grep -v "Of release $version")
[ -z "$release" ] || complain "another version than $version: $release"

# The macro comes from the control file; nothing else in C may know a version.
literal=$(grep -rnE '"[^"]*\<0\.2[0-9]\.[0-9]' --include='*.[ch]' worker decoder include)
[ -z "$literal" ] || complain "use PGT_VERSION: $literal"

# From a version to this one by upgrade scripts; they go one release forward.
leads_here() {
	local at=$1 script steps=0
	while [ "$at" != "$version" ]; do
		script=$(ls sql/upgrade/pg_trickle--"$at"--*.sql 2>/dev/null | head -n 1)
		[ -n "$script" ] && [ $((steps += 1)) -lt 100 ] || return 1
		at=$(basename "$script" .sql | sed 's/.*--//')
	done
}

# Every release of the change log but the newest.
for former in $(sed -n 's/^## \[\{0,1\}\([0-9][0-9.]*\)\]\{0,1\}.*/\1/p' CHANGELOG.md | tail -n +2); do
	[ -e "sql/releases/pg_trickle--$former.sql" ] || complain "sql/releases does not have the script of $former"
	leads_here "$former" || complain "sql/upgrade does not lead from $former to $version"
done
for script in sql/releases/*.sql sql/upgrade/*.sql; do
	[ -e "$script" ] || continue
	case $(basename "$script" .sql) in
		"pg_trickle--$version") complain "$script: the script of this version is made of sql/schema" ;;
		pg_trickle--*--*) leads_here "$(basename "$script" .sql | sed 's/.*--//')" || complain "$script does not lead to $version" ;;
		pg_trickle--*) grep -q "^## \[\{0,1\}$(basename "$script" .sql | sed 's/.*--//')" CHANGELOG.md || complain "$script: CHANGELOG.md has no such release" ;;
		*) complain "$script is no script of a version" ;;
	esac
done

if [ -e worker/pg_trickle.so ]; then
	strings=$(LC_ALL=C grep -aoE '[0-9]+\.[0-9]+\.[0-9]+' worker/pg_trickle.so | sort -u)
	grep -qxF "$version" <<<"$strings" || complain "worker/pg_trickle.so was not built as $version"
fi
exit $status
