# Soak::Check: are stream tables what their queries gave at the frontiers they report?
package Soak::Check;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT_OK = qw(differences stream_tables);

# All that are populated: rows of the catalog, those first that others read.
sub stream_tables
{
	my ($dbh) = @_;
	return $dbh->selectall_arrayref(q{
		SELECT pgt_name AS name, original_query AS query, frontier, status FROM pgtrickle.pgt_stream_tables
		WHERE is_populated AND frontier IS NOT NULL ORDER BY pgt_id}, { Slice => {} });
}

# Rows that a stream table has too much or misses, each as text. The base tables are as they were
# at the frontier; so are the stream tables it reads, computed from their queries. To be asked in
# one snapshot with stream_tables().
sub differences
{
	my ($dbh, $all, $table) = @_;
	my $at = $dbh->quote($table->{frontier}) . '::pg_snapshot';
	my @with = map { "$_ AS MATERIALIZED (SELECT * FROM ${_}_at($at))" } qw(customer orders small);

	for my $other (@$all)
	{
		last if $other->{name} eq $table->{name};
		push @with, "$other->{name} AS ($other->{query})";
	}
	return $dbh->selectcol_arrayref('WITH ' . join(', ', @with) . qq{,
		want AS MATERIALIZED ($table->{query}), have AS MATERIALIZED (SELECT * FROM public.$table->{name})
		SELECT '+ ' || d::text FROM (TABLE have EXCEPT ALL TABLE want) d
		UNION ALL SELECT '- ' || d::text FROM (TABLE want EXCEPT ALL TABLE have) d LIMIT 20});
}

1;
