#!/bin/bash
# version_sync.sh: the version stands in sql/pg_trickle.control; everything else that
# names it agrees. Checks META.json, CHANGELOG.md, the documentation, the built library
# and SQL, and that the upgrade scripts form a chain that ends at this version.
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

# The upgrade scripts: each starts where another ended or at a first release.
for script in sql/upgrade/pg_trickle--*--*.sql; do
	[ -e "$script" ] || continue
	to=$(basename "$script" .sql | sed 's/.*--//')
	[ "$to" = "$version" ] || [ -e "$(echo sql/upgrade/pg_trickle--"$to"--*.sql)" ] ||
		complain "$script: ends at $to, from where nothing leads to $version"
done

if [ -e worker/pg_trickle.so ]; then
	strings=$(LC_ALL=C grep -aoE '[0-9]+\.[0-9]+\.[0-9]+' worker/pg_trickle.so | sort -u)
	grep -qxF "$version" <<<"$strings" || complain "worker/pg_trickle.so was not built as $version"
fi
exit $status
