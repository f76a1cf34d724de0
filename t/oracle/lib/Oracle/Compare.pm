# Oracle::Compare: does a stream table equal its query, in the snapshot of one statement?
#
# Rows are compared as multisets, each by SQL's equality of its columns and by the image of
# those whose image the data determine (1.0 is not 1.00). Floats that depend on the order
# of summation are compared after rounding. The first row of the result has the number of
# rows that there should be; every further one is a difference.
package Oracle::Compare;

use strict;
use warnings;

use Exporter 'import';

use Oracle::Types;
use Oracle::Schema;
use Oracle::Tree;

our @EXPORT = qw(compare_sql);

sub compare_sql
{
	my ($stream) = @_;
	my $tree = $stream->{current} || $stream->{q};
	my @columns = query_columns($tree);
	my (@equal, @image);

	for my $column (@columns)
	{
		my $name = "t.$column->{as}";
		push @equal, $column->{ap} ? rounded($name) : is_key($column->{type}) ? $name : "$name\::text";
		push @image, $name if $column->{st} && !$column->{ap};
	}
	my $list = join(', ', map { "$equal[$_] AS e$_" } 0 .. $#equal);
	$list .= @image ? ', record_send(ROW(' . join(', ', @image) . ')) AS image' : '';
	my $table = table_name($stream->{name});
	my $query = query_sql($tree);
	my $shown = 'ROW(' . join(', ', map { "d.e$_" } 0 .. $#equal) . ')::text'
	  . (@image ? q{ || ' image ' || right(encode(d.image, 'hex'), 400)} : '');

	return "WITH have AS MATERIALIZED (SELECT $list FROM ONLY $table AS t),"
	  . " want AS MATERIALIZED (SELECT $list FROM ($query) AS t)"
	  . " SELECT 'rows' AS what, count(*)::text FROM want UNION ALL SELECT 'too much', $shown FROM (TABLE have EXCEPT ALL TABLE want) AS d"
	  . " UNION ALL SELECT 'missing', $shown FROM (TABLE want EXCEPT ALL TABLE have) AS d LIMIT 9";
}

# Eight digits; differences around zero do not count.
sub rounded
{
	my ($name) = @_;
	return "(CASE WHEN $name\::text IN ('NaN', 'Infinity', '-Infinity') THEN $name\::text"
	  . " WHEN abs($name) < 1e-6 THEN '0' ELSE to_char($name * 1.00000012345678, '9.9999999EEEE') END)";
}

1;
