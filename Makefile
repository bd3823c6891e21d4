# make demo is all that a bare clone needs: it builds its own environment and brings a broker.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
IMAGE  ?=
BIN    := .venv/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
STAMP  := .venv/.ready
# What a user of a bare clone needs; the tests need much more.
RUNS   := .venv/.runs
# Debian keeps servers where ordinary users do not look.
export PATH := $(PATH):/usr/sbin:/usr/local/sbin
# Tests start thousands of processes. Without stored bytecode each compiles all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

# Tests of one file share processes and results, so one process of pytest runs them all. The
# longest files are in the folders that come first, so that none of them is alone at the end.
SPREAD    := --dist loadfile --no-loadscope-reorder
# Tests that only compute run in one process for each core.
PROCESSES ?= $(shell nproc 2>/dev/null || echo 2)
# Tests with real processes. Each has a broker and three devices; more at a time make them late.
WAITING   := 2
# A test with real processes may be late on a machine that others use, too. It gets two more tries,
# and the summary names it with its traceback: a test that needs the chance again and again is a
# fault.
AGAIN     := --reruns 2 --rerun-show-tracebacks -rR
# Tests with brokers and processes of their own.
REAL      := tests/browser tests/integration

.PHONY: help demo quick unit test proof fleets mutations arm chaos soak fuzz brokers lint bench bench-quick
.PHONY: clean broker broker-or-wheel node chromium proxy debootstrap vendor peers

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

demo: $(RUNS) broker-or-wheel ## start broker, gateway and three devices here; IMAGE=photo.jpg for your own photo, STAY=1 for the page
	$(BIN)/fog-gateway demo $(if $(STAY),--stay) $(if $(IMAGE),"$(IMAGE)")

quick: lint ## check formatting, rules and types, run the fast unit tests (1 minute)
	$(BIN)/pytest -n $(PROCESSES) $(SPREAD) -m "not slow" tests/unit

unit: $(STAMP) ## run all unit tests (2 minutes)
	$(BIN)/pytest -n $(PROCESSES) $(SPREAD) tests/unit

test: $(STAMP) broker node chromium proxy ## run the tests of all features (10 minutes); make proof runs those of faults
	$(BIN)/pytest -n $(PROCESSES) $(SPREAD) -m "not proof" tests/property tests/unit
	$(BIN)/pytest -n $(WAITING) $(SPREAD) $(AGAIN) -m "not serial and not proof" $(REAL)
	$(BIN)/pytest $(AGAIN) -m "serial and not proof" $(REAL)

proof: fleets mutations arm broker node peers debootstrap ## run the tests of faults, the long ones, a third of fuzz, soak and chaos; judge the speed (an hour)
	$(BIN)/pytest -n $(WAITING) $(SPREAD) $(AGAIN) -m "proof and not serial" tests
	$(BIN)/pytest $(AGAIN) -m "proof and serial" tests
	$(BIN)/python -m tests.fuzz --messages 30000 --images 3000
	$(BIN)/python -m tests.soak --jobs 3000
	$(BIN)/python -m tests.chaos --seeds 3
	$(BIN)/python benchmarks/table.py --check

fleets: $(STAMP) ## simulate 10 000 random fleets with faults; each must end whole and in time
	$(BIN)/python -m tests.fleets

mutations: $(STAMP) ## plant bugs in copies of the scheduler, one each; its property test must find all
	$(BIN)/python -m tests.mutations

arm: $(STAMP) broker ## compare with an emulated Debian for arm64: rounding, tiles, joining, real jobs (5 minutes, 150 MB)
	$(BIN)/python -m tests.arm

chaos: $(STAMP) broker ## cause 240 faults among real processes; chaos/ gets a report and timelines
	$(BIN)/python -m tests.chaos

soak: $(STAMP) broker ## do 10 000 small jobs; soak/ gets memory, files and threads as a plot, and latencies
	$(BIN)/python -m tests.soak

fuzz: $(STAMP) broker ## send 100 000 hostile messages and read 10 000 damaged image files
	$(BIN)/python -m tests.fuzz

brokers: $(STAMP) broker ## try six trials on brokers that others wrote, and write docs/brokers.md (40 minutes); ONLY=nats
	$(BIN)/python -m tests.brokers $(addprefix --only ,$(ONLY))

lint: $(STAMP) ## check formatting, rules and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP) broker peers ## run the benchmarks; each prints its table
	@set -e; for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench; done

bench-quick: $(STAMP) broker peers ## measure the speed beside bare MQTT and other libraries (3 minutes)
	$(BIN)/python benchmarks/table.py --quick

clean: ## remove what was built here; results and configuration stay
	rm -rf .venv .arm .containers .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Both are made once, and again when the packages change.
$(RUNS): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: fogmqtt needs Python 3.11 or newer; name one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "make: this Python cannot make environments: apt install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e '.[join,web,embedded]' || $(PIP) -e '.[join,web]'  # no broker wheel for every machine
	touch $@

$(STAMP): $(RUNS)
	$(PIP) -e '.[dev]'
	touch $@

# What the benchmarks compare with. They say which of it is missing, and leave that out.
peers: .venv/.peers

.venv/.peers: $(STAMP)
	$(PIP) -e '.[bench]' && touch $@ || echo "make: the packages of the extra bench cannot be had"

broker:
	@command -v mosquitto >/dev/null && command -v mosquitto_pub >/dev/null || $(get_mosquitto) \
	  || { echo "make: the tests need Mosquitto: apt install mosquitto mosquitto-clients" >&2; exit 1; }

# For the modules of the page, and for the device in JavaScript.
node:
	@command -v node >/dev/null && command -v npm >/dev/null || $(get_node) \
	  || { echo "make: the tests of the page need Node: apt install nodejs npm" >&2; exit 1; }

# For the tests of the page. Any Chromium will do; without a font it shows no letters.
chromium:
	@command -v chromium >/dev/null || $(get_chromium) \
	  || { echo "make: the tests of the page need Chromium: apt install chromium" >&2; exit 1; }

# For the container files, which are built in folders; only root can change into them.
debootstrap:
	@command -v debootstrap >/dev/null || $(get_debootstrap) \
	  || { echo "make: the container files are tried with debootstrap: apt install debootstrap" >&2; exit 1; }

# For the tests of the page behind a proxy.
proxy:
	@test -x /usr/sbin/nginx || command -v nginx >/dev/null || $(get_nginx) \
	  || { echo "make: the tests of the proxy need nginx: apt install nginx-light" >&2; exit 1; }

vendor: node ## fetch the page's libraries again, as .ci/vendor names them
	.ci/vendor

broker-or-wheel:
	@command -v mosquitto >/dev/null || $(get_mosquitto) \
	  || echo "make: no Mosquitto here; the demo starts the broker from the embedded package"

# Tries once and says so. A service that cannot start, as in a container, is no failure: what
# counts is that the program is there.
define get_mosquitto
{ echo "make: installing Mosquitto"; $(call apt_install,mosquitto mosquitto-clients); \
  command -v mosquitto >/dev/null; }
endef

define get_chromium
{ echo "make: installing Chromium"; $(call apt_install,chromium fonts-dejavu-core); \
  command -v chromium >/dev/null; }
endef

define get_nginx
{ echo "make: installing nginx"; $(call apt_install,nginx-light); test -x /usr/sbin/nginx; }
endef

define get_node
{ echo "make: installing Node"; $(call apt_install,nodejs npm); command -v npm >/dev/null; }
endef

define get_debootstrap
{ echo "make: installing debootstrap"; $(call apt_install,debootstrap); command -v debootstrap >/dev/null; }
endef

apt_install = { root=; test "$$(id -u)" = 0 || root="sudo -n"; \
  if command -v apt-get >/dev/null && $$root true 2>/dev/null; then \
    $$root apt-get update -qq || true; \
    $$root env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends $(1) >/dev/null || true; \
  fi; }
