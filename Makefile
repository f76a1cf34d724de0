# pg_trickle: this file only delegates. worker/, decoder/ and sql/ are each a PGXS
# project of their own; tests, demo and tools are scripts under t/ and examples/.
#
#   make                build the two libraries and the extension's SQL
#   make install        install them into the server of PG_CONFIG (DESTDIR works)
#   make check          everything CI runs, on a private copy of the server
#   make demo           a shop, four stream tables, a writer, and what comes out
#   make help           the other targets
#
# Variables: PG_CONFIG (which server), DESTDIR, TESTS (which t/*.pl), SECONDS and SEED (oracle, soak),
# BENCH, TPCH, MEMORY, CORPUS, ORACLE, SOAK (options of these, such as BENCH='--only join'),
# VERSIONS and COMPILERS of check-all, ASSERTS (folder of oracle-asserts' server), PGT_CC (the compiler),
# PGT_CPPFLAGS and PGT_CFLAGS (added to its flags).

PG_CONFIG ?= pg_config
SECONDS ?= 60
TESTS ?=
ASSERTS ?= /var/tmp/pg_trickle-asserts-$(shell $(PG_CONFIG) --version 2>/dev/null | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
PGT_FORMAT_CHECK ?= error

export PG_CONFIG PGT_CC PGT_CPPFLAGS PGT_CFLAGS PGT_FORMAT_CHECK

PARTS := $(patsubst %/Makefile,%,$(wildcard worker/Makefile decoder/Makefile sql/Makefile))
SANDBOX = t/lib/sandbox.sh
OTHERS = @t/lib/chroot.sh others

all: $(PARTS)

# One command line on a bare machine must be enough for whoever only builds, too.
have-server:
	@$(PG_CONFIG) --pgxs >/dev/null 2>&1 && test -f "$$($(PG_CONFIG) --pgxs)" || { \
	  echo "make: no PostgreSQL server development files behind PG_CONFIG=$(PG_CONFIG)" >&2; \
	  echo "make: run 'make deps' (Debian), or name the server's pg_config: make PG_CONFIG=/path/to/pg_config" >&2; \
	  exit 1; }

$(PARTS): have-server
	$(MAKE) -C $@ all

install uninstall: have-server
	@for part in $(PARTS); do $(MAKE) -C $$part $@ || exit 1; done

# Against a running server that has the extension installed (PGHOST, PGPORT, PGUSER).
installcheck: have-server
	t/lib/installcheck.sh

# The program that takes stream tables to Kafka; no part of the extension.
forwarder:
	$(MAKE) -C examples/kafka-forwarder

deps:
	t/lib/deps.sh $(DEPS)

check:
	$(MAKE) --no-print-directory deps DEPS=java
	$(if $(TESTS),$(if $(filter t/7%,$(TESTS)),$(OTHERS)),$(OTHERS))
	$(SANDBOX) --test-points -- t/lib/prove.sh $(TESTS)

# Versions that this machine does not have come from Debian's other releases, in chroots.
VERSIONS ?= 15 17 18
COMPILERS ?= gcc clang
check-all:
	t/lib/check_all.sh "$(VERSIONS)" "$(COMPILERS)" $(TESTS)

lint:
	$(MAKE) --no-print-directory deps
	t/lint/run.sh

format: DEPS = format
format: deps
	t/lint/format.sh --write

coverage: DEPS = coverage
coverage: deps
	$(SANDBOX) --test-points --coverage -- t/lib/coverage.sh $(TESTS)

oracle: deps
	$(SANDBOX) --test-points -- t/oracle/run.sh $(SECONDS) $(if $(SEED),--seed $(SEED)) $(ORACLE)

# The same with the compiler's checks for undefined behaviour; the first finding ends the server.
oracle-ubsan: PGT_CFLAGS += -g -fsanitize=undefined -fno-sanitize-recover=undefined
oracle-ubsan: oracle

# The same on a server with assertions, built once into the folder ASSERTS.
oracle-asserts: DEPS = asserts
oracle-asserts: deps
	t/lib/asserts.sh $(ASSERTS)
	$(MAKE) --no-print-directory oracle PG_CONFIG=$(ASSERTS)/bin/pg_config

# Random histories with DDL, read by the decoder with random options; FUZZ=--valgrind: under valgrind.
fuzz-decoder: DEPS = $(if $(findstring valgrind,$(FUZZ)),valgrind)
fuzz-decoder: deps
	$(SANDBOX) --test-points -- perl t/fuzz/decoder.pl --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(FUZZ)

fuzz-decoder-ubsan: PGT_CFLAGS += -g -fsanitize=undefined -fno-sanitize-recover=undefined
fuzz-decoder-ubsan: fuzz-decoder

corpus: deps
	$(SANDBOX) --test-points -- t/corpus/run.sh $(CORPUS)

# Minutes to hours: writers, DDL, kill -9 and terminate storms, see t/soak/README.md.
soak: deps
	$(SANDBOX) --test-points -- t/soak/run.sh $(SECONDS) $(if $(SEED),--seed $(SEED)) $(SOAK)

# Forwarders, broker, server and workers killed at random; a short run is in make check.
chaos-forwarder: DEPS = java
chaos-forwarder: deps
	PGT_CHAOS_SECONDS=$(SECONDS) $(SANDBOX) --test-points -- t/lib/prove.sh t/405_forwarder_chaos.pl

check-forwarder-valgrind: DEPS = valgrind
check-forwarder-valgrind: deps
	PGT_VALGRIND=1 $(SANDBOX) --test-points -- t/lib/prove.sh t/400_forwarder.pl t/402_forwarder_exactly_once.pl

bench: deps
	$(SANDBOX) -- t/bench/run.sh $(BENCH)

bench-tpch: deps
	$(SANDBOX) -- perl t/bench/tpch/tpch.pl $(TPCH)

bench-sched: deps
	$(SANDBOX) -- perl t/bench/sched.pl $(SCHED)

bench-replay:
	@t/bench/replay/run.sh

bench-sla: deps
	$(SANDBOX) -- perl t/bench/sla.pl $(SLA)

# Peers come from packages; one that is missing is left out.
bench-decoder: DEPS = decoders
bench-decoder: deps
	$(SANDBOX) -- perl t/bench/decoder/decoder.pl $(DECODER)

bench-forwarder: DEPS = java
bench-forwarder: deps
	$(SANDBOX) -- perl t/bench/forwarder.pl $(FORWARDER)

bench-memory: deps
	$(SANDBOX) -- perl t/bench/memory.pl $(MEMORY)

demo: deps
	$(SANDBOX) -- examples/demo/demo.sh

demo-kafka: DEPS = java
demo-kafka: deps
	$(SANDBOX) -- perl t/lib/with_kafka.pl examples/demo/demo.sh

demo-keep: deps
	$(SANDBOX) -- examples/demo/demo.sh --keep

check-version-sync:
	t/lint/version_sync.sh

clean:
	@if test -f "$$($(PG_CONFIG) --pgxs 2>/dev/null)"; then \
	  for part in $(PARTS); do $(MAKE) -C $$part $@ || exit 1; done; fi
	$(MAKE) -C examples/kafka-forwarder clean
	rm -rf coverage tmp_check tmp_install t/unit/bin
	$(SANDBOX) --remove

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile
	@echo
	@echo 'Further targets:'
	@echo '  make deps                 install the Debian packages that are missing'
	@echo '  make forwarder            build examples/kafka-forwarder'
	@echo '  make installcheck         regress and isolation tests against a running server'
	@echo '  make check-all            the same on each PostgreSQL of VERSIONS="15 17 18", compilers warning of nothing'
	@echo '  make lint                 layers, exported symbols, headers, format, version'
	@echo '  make format               clang-format, in place'
	@echo '  make coverage             check with gcov, report in coverage/'
	@echo '  make oracle SECONDS=600   random queries and transactions against the truth; SEED=n: one case'
	@echo '  make oracle-ubsan         the same, built with -fsanitize=undefined'
	@echo '  make oracle-asserts       the same on a PostgreSQL with assertions, which it builds once into ASSERTS'
	@echo '  make fuzz-decoder         random histories with DDL, decoded with random options; FUZZ=--valgrind'
	@echo '  make fuzz-decoder-ubsan   the same, built with -fsanitize=undefined'
	@echo '  make corpus               the queries of the server'"'"'s own tests as stream tables'
	@echo '  make soak SECONDS=3600    writers, DDL, kill -9 and terminate storms, compared at each frontier'
	@echo '  make check-forwarder-valgrind   the forwarder'"'"'s tests with it under valgrind'
	@echo '  make chaos-forwarder SECONDS=600   kill -9 of forwarders, broker, server and workers under load'
	@echo '  make bench                the figures that the documentation states'
	@echo '  make bench-tpch           TPC-H at scale 1: 22 queries recomputed and refreshed'
	@echo '  make bench-sched          from commits to readers: many stream tables, chains, workers, crashes'
	@echo '  make bench-replay         regret of AUTO on replayed traces; no server needed'
	@echo '  make bench-sla            SLAs met when the workers have 0.8, 1.0 and 1.2 of their time to do'
	@echo '  make bench-decoder        what output plugins cost a walsender, ours and others'
	@echo '  make bench-forwarder      rows a second into Kafka, delays, memory'
	@echo '  make bench-memory         millions of changed rows, thousands of refreshes: private memory'
	@echo '  make demo-kafka           the demo, into an Apache Kafka from Maven Central'
	@echo '  make demo-keep            the demo, leaving its server running'
	@echo '  make check-version-sync   every place that names the version agrees'
	@echo '  make clean'

.PHONY: all $(PARTS) have-server install uninstall installcheck forwarder deps check check-all lint format coverage \
	oracle oracle-ubsan oracle-asserts fuzz-decoder fuzz-decoder-ubsan corpus soak check-forwarder-valgrind chaos-forwarder bench bench-tpch bench-sched bench-replay bench-sla bench-decoder bench-forwarder bench-memory demo demo-kafka demo-keep check-version-sync clean help
