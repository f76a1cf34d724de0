# PgtMaven.pm: Java libraries for tests, from Maven Central, kept outside of the tree.
#
#   my $jars = maven_jars('t/debezium');     # the folder of a pom.xml
#   plan skip_all => $jars->{missing} if $jars->{missing};
#   system 'java', '-cp', $jars->{classpath}, ...
#
# Folder: PGT_CACHE, else /var/tmp/pg_trickle-USER-cache. What the pom.xml asks for is fetched once,
# with checksums compared, and again when the file changes. There is nothing to skip but where Maven
# Central is out of reach, or there is no JDK or Maven; and in CI (variable CI) not even then.
package PgtMaven;

use strict;
use warnings;

use Cwd qw(abs_path);
use Digest::SHA;
use Exporter 'import';
use Fcntl qw(:flock);
use File::Basename qw(basename);
use File::Path qw(make_path remove_tree);

our @EXPORT = qw(maven_jars);

my $out_of_reach = qr/Unknown host|UnknownHostException|Connection refused|Connection timed out|connect timed out|Network is unreachable|No route to host|Temporary failure in name resolution|Connection reset|status: 50[234]/i;

sub cache_folder
{
	my $folder = $ENV{PGT_CACHE} || '/var/tmp/pg_trickle-' . getpwuid($<) . '-cache';

	make_path($folder, { mode => 0755 });
	# Whoever else could have made it could have put anything into it.
	die "$folder belongs to somebody else\n" if (stat $folder)[4] != $<;
	return $folder;
}

sub missing
{
	my ($why) = @_;
	die "$why\n" if $ENV{CI};
	return { missing => $why };
}

sub maven_jars
{
	my ($project) = @_;
	my $pom = abs_path("$project/pom.xml");

	for my $program ('java', 'javac', 'mvn')
	{
		return missing("no $program") if !grep { -x "$_/$program" } split /:/, $ENV{PATH};
	}
	my $cache = cache_folder();
	my $jars = "$cache/" . basename($project) . '-' . substr(Digest::SHA->new(256)->addfile($pom)->hexdigest, 0, 12);

	open my $lock, '>>', "$cache/.lock" or die "could not open $cache/.lock: $!";
	flock $lock, LOCK_EX or die "could not lock $cache/.lock: $!";
	if (!-d $jars)
	{
		remove_tree("$jars.new");
		my $said = `mvn -B -C -f '$pom' -Dmaven.repo.local='$cache/repository' org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies -DincludeScope=runtime -DoutputDirectory='$jars.new' 2>&1`;
		if ($?)
		{
			return missing('Maven Central is out of reach') if $said =~ $out_of_reach;
			die "mvn could not fetch what $pom asks for:\n$said";
		}
		rename "$jars.new", $jars or die "could not rename $jars.new: $!";
	}
	close $lock;
	return { classpath => "$jars/*" };
}

1;
