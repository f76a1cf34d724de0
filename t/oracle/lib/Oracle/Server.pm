# Oracle::Server: a server of its own, in a folder that disappears. No scheduler: only the
# tester refreshes, so that a seed is the same run every time.
package Oracle::Server;

use strict;
use warnings;

use Cwd qw(getcwd);
use File::Path qw(make_path remove_tree);
use File::Temp qw(tempdir);

sub start
{
	my ($class, %opt) = @_;
	my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
	chomp(my $bin = `$pg_config --bindir`);
	my $dir = tempdir('pgt-oracle-XXXXXX', TMPDIR => 1);
	my $self = bless { bin => $bin, dir => $dir, host => $dir, port => 5432, preload => $opt{preload} }, $class;

	$self->command('initdb', '-D', "$dir/data", qw(-A trust -N -E UTF8 --locale=C -U postgres));
	open my $conf, '>>', "$dir/data/postgresql.conf" or die "postgresql.conf: $!";
	print $conf <<"CONF";
listen_addresses = ''
unix_socket_directories = '$dir'
fsync = off
full_page_writes = off
wal_level = logical
max_prepared_transactions = 20
jit = off
deadlock_timeout = 100ms
shared_buffers = 64MB
autovacuum_naptime = 5s
log_error_verbosity = verbose
CONF
	print $conf "shared_preload_libraries = 'pg_trickle'\n" if $opt{preload};
	# Servers since 15.19 refuse other plugins; older ones do not know the setting.
	print $conf "output_plugin_libraries = '$opt{plugins}'\n"
	  if defined $opt{plugins} && `$bin/postgres --describe-config` =~ /^output_plugin_libraries\t/m;
	print $conf $opt{settings} if defined $opt{settings};
	close $conf;
	$self->command('pg_ctl', '-D', "$dir/data", '-l', "$dir/log", '-w', 'start');
	$self->{running} = $$;
	return $self;
}

# What the power does: no checkpoint, no farewell.
sub restart_immediately
{
	my ($self) = @_;

	$self->command('pg_ctl', '-D', "$self->{dir}/data", '-m', 'immediate', '-w', 'stop');
	$self->command('pg_ctl', '-D', "$self->{dir}/data", '-l', "$self->{dir}/log", '-w', 'start');
}

sub command
{
	my ($self, $program, @args) = @_;
	my $out = "$self->{dir}/$program.out";
	my $pid = fork();

	die "fork: $!" unless defined $pid;
	if (!$pid)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', $out;
		open STDERR, '>&', \*STDOUT;
		exec "$self->{bin}/$program", @args;
		exit 127;
	}
	waitpid($pid, 0);
	return 1 if $? == 0;
	open my $file, '<', $out;
	local $/;
	die "$program failed:\n" . <$file>;
}

sub log_tail
{
	my ($self, $lines) = @_;
	open my $file, '<', "$self->{dir}/log" or return '';
	my @log = <$file>;
	splice(@log, 0, @log - $lines) if @log > $lines;
	return join('', @log);
}

sub keep { $_[0]{kept} = 1 }

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@);

	return unless $self->{running} && $self->{running} == $$;
	eval { $self->command('pg_ctl', '-D', "$self->{dir}/data", '-m', 'immediate', '-w', 'stop') };
	remove_tree($self->{dir}) unless $self->{kept};
}

1;
