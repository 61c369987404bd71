# GNU make. `make help` lists the targets.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PYTEST = $(BIN)/python -m pytest
# Tests at a time. Those that must run alone do so: tests/turns.py. PYTEST_ARGS="-n 0" runs one after the other.
# More workers than CPUs: most tests wait for other programs.
PARALLEL = -n $(shell n=$$(nproc); echo $$((n < 4 ? n + 1 : 4)))
SHELL_SCRIPTS = tools/*.sh tests/vm/*.sh tests/packages/*.sh packaging/deb/*.p* .ci/run
C_SOURCES = $(wildcard bpf/*.[ch] bench/*.[ch] lab/generator/*.[ch] lab/*.c)
MAN_PAGES = $(wildcard man/*.[0-9])

# Where `make install` puts things. A package sets PREFIX=/usr and DESTDIR.
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
DOCDIR ?= $(DATADIR)/doc/netobs
ZSHDIR ?= $(DATADIR)/zsh/site-functions
UNITDIR ?= $(PREFIX)/lib/systemd/system
INSTALL ?= install
# The interpreter of the installed command: it must have the modules that netobs imports.
INSTALL_PYTHON ?= /usr/bin/python3

INSTALL_ENVIRONMENT = DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)' BINDIR='$(BINDIR)' \
	LIBDIR='$(LIBDIR)' DATADIR='$(DATADIR)' MANDIR='$(MANDIR)' DOCDIR='$(DOCDIR)' ZSHDIR='$(ZSHDIR)' \
	UNITDIR='$(UNITDIR)' INSTALL='$(INSTALL)' INSTALL_PYTHON='$(INSTALL_PYTHON)'

# Stamps: what was installed into the virtual environment, and from which pyproject.toml.
INSTALLED = $(VENV)/.installed
DEV = $(VENV)/.dev
BENCH = $(VENV)/.bench
# Decoders made by others, for the tests: in an environment of their own, since they ask for newer Pythons than netobs.
INTEROP = build/interop
NODE_DECODERS = node-netflowv9@0.2.16

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help run test interop interop-if-possible test-matrix test-vm test-packages replay build check bpf lint lint-python lint-c lint-shell lint-man type bench
.PHONY: install install-data deb rpm clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

run: ## build, then measure this host and print its flows (root; RUN_SECONDS=N ends after N seconds)
	@sh tools/install-tools.sh build
	@$(MAKE) --no-print-directory build
	@sh tools/run.sh $(BIN)/netobs

test: ## linters, types, every test with real kernel and collectors (root; PYTEST_ARGS="-k NAME": only these tests)
	@sh tools/install-tools.sh test
	@$(MAKE) --no-print-directory build $(DEV)
	@$(MAKE) --no-print-directory -j 3 -O $(if $(PYTEST_ARGS),,lint type) interop-if-possible
	@[ "$$(id -u)" = 0 ] || echo "make test: without root the kernel and e2e tests are skipped; sudo make test runs all"
	$(PYTEST) $(PARALLEL) --durations=30 $(PYTEST_ARGS)

interop: $(INTEROP)/.python $(INTEROP)/.node ## decoders from PyPI and npm that tests compare with, into build/interop

interop-if-possible: ## the same; without them their tests are skipped
	@$(MAKE) --no-print-directory interop || echo "make test: some decoders are not installed: their tests are skipped"

test-matrix: ## unit tests and a few others on each Python, oldest and newest modules; MATRIX_ARGS="3.9 oldest" selects
	@sh tools/install-tools.sh matrix
	@$(MAKE) --no-print-directory build $(DEV)
	$(BIN)/python -m tests.matrix $(MATRIX_ARGS)

test-vm: ## what depends on the kernel, in Debian's 5.10, 6.1, 6.12, two rt, emulated; PYTEST_ARGS="-k rt" selects
	@sh tools/install-tools.sh vm
	@$(MAKE) --no-print-directory build $(DEV)
	$(PYTEST) tests/vm -m vm $(PYTEST_ARGS)

test-packages: ## build, lint and install the deb and the rpm, the deb in booted containers (root; slow)
	@sh tools/install-tools.sh packages
	@$(MAKE) --no-print-directory build $(DEV)
	$(PYTEST) tests/packages -m packages $(PYTEST_ARGS)

replay: ## capture files through the daemon, its flows against an independent reckoning (root; PCAP=FILE or FOLDER)
	@[ -n '$(PCAP)' ] || { echo 'make replay: name a capture file or a folder: make replay PCAP=PATH' >&2; exit 2; }
	@sh tools/install-tools.sh build
	@$(MAKE) --no-print-directory build $(DEV)
	@$(BIN)/python -m lab.replay $(REPLAY_ARGS) '$(PCAP)'

build: $(INSTALLED) bpf ## make .venv/bin/netobs and the BPF object

check: lint type bpf ## the fast part: formats, linters, types, unit tests
	$(PYTEST) tests/unit $(PARALLEL) $(PYTEST_ARGS)

bpf: ## compile bpf/ to netobs/bpf/*.bpf.o
	@$(MAKE) --silent --no-print-directory -C bpf

lint: lint-python lint-c lint-shell lint-man ## formats and linters

lint-python: $(DEV) ## ruff
	$(BIN)/ruff format --check
	$(BIN)/ruff check

lint-c: ## clang-format on the C sources
	clang-format --dry-run -Werror $(C_SOURCES)

lint-shell: ## shellcheck on the scripts
	shellcheck $(SHELL_SCRIPTS)

# Without a preprocessor, and as wide as a terminal, whoever calls it. man says what is wrong, and ends well all the same.
lint-man: ## mandoc and man on the manual pages
	mandoc -T lint -W warning $(MAN_PAGES)
	@for page in $(MAN_PAGES); do \
		! LC_ALL=C.UTF-8 MANROFFSEQ= MANWIDTH=80 man --warnings -E UTF-8 -Tutf8 -l $$page 2>&1 >/dev/null | grep . || exit 1; \
	done

type: $(DEV) ## mypy --strict on netobs/, lab/, tests/, bench/
	$(BIN)/mypy

bench: build $(DEV) $(BENCH) ## measure cost, throughput, memory, overload (root; BENCH_ARGS="--quick kernel", --help)
	$(BIN)/python -m bench $(BENCH_ARGS)

install: bpf ## install to DESTDIR and PREFIX (docs/installing.md lists the other variables)
	@$(INSTALL_ENVIRONMENT) sh tools/install.sh

install-data: ## install all but the Python package and the command: what a distribution adds to the wheel
	@$(INSTALL_ENVIRONMENT) sh tools/install.sh data

deb: ## the Debian package, into dist/
	@sh tools/package.sh deb

rpm: ## the RPM package and its source package, into dist/ (on Debian: see packaging/rpm/macros.debian)
	@sh tools/package.sh rpm

clean: ## remove all that make made, .venv too
	@$(MAKE) --no-print-directory -C bpf clean
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find netobs lab tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml netobs/__init__.py
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found: run tools/install-tools.sh build" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' || { \
		echo "make: $(PYTHON) is older than 3.9: name another with PYTHON=" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(DEV): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

$(INTEROP)/.python: lab/decoders/requirements.txt
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/python -m pip install --quiet --requirement $<
	@touch $@

# No lock file: it would name the registry's addresses.
$(INTEROP)/.node: Makefile
	@mkdir -p $(INTEROP)
	npm install --prefix $(INTEROP) --no-save --no-package-lock --no-audit --no-fund --silent $(NODE_DECODERS)
	@touch $@

$(BENCH): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@
