# make demo is all that a bare clone needs: it builds its own environment and brings a broker.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
IMAGE  ?=
BIN    := .venv/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
STAMP  := .venv/.ready
# Debian keeps servers where ordinary users do not look.
export PATH := $(PATH):/usr/sbin:/usr/local/sbin

# Tests of one file share processes and results, so one process of pytest runs them all. The long
# files are in the folders that come first.
SPREAD    := --dist loadfile --no-loadscope-reorder
# Tests that only compute run in one process for each core.
PROCESSES ?= $(shell nproc 2>/dev/null || echo 2)
# A test with real processes may be late on a machine that others use, too. It gets a second chance,
# and the summary names it: a test that needs the chance again and again is a fault.
AGAIN     := --reruns 1 -rR
# Tests with brokers and processes of their own.
REAL      := $(wildcard tests/chaos tests/integration tests/browser)

.PHONY: help demo quick unit test proof fleets mutations chaos soak fuzz lint bench bench-quick clean
.PHONY: broker broker-or-wheel peers

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

demo: $(STAMP) broker-or-wheel ## start broker, gateway and three devices here; IMAGE=photo.jpg for your own photo
	$(BIN)/fog-gateway demo $(if $(IMAGE),"$(IMAGE)")

quick: lint unit ## check formatting, rules and types, run the unit tests (1 minute)

unit: $(STAMP) ## run the unit tests
	$(BIN)/pytest -n $(PROCESSES) $(SPREAD) tests/unit

test: $(STAMP) broker ## run all tests but those of make proof (10 minutes)
	$(BIN)/pytest -n $(PROCESSES) $(SPREAD) -m "not proof" tests/property tests/unit
	$(BIN)/pytest -n 2 $(SPREAD) $(AGAIN) -m "not serial and not proof" $(REAL)
	$(BIN)/pytest $(AGAIN) -m "serial and not proof" $(REAL)

proof: fleets mutations broker peers ## run the long tests, half of fuzz, soak and chaos, and judge the speed (20 minutes)
	$(BIN)/pytest $(AGAIN) -m proof tests
	$(BIN)/python -m tests.fuzz --messages 50000 --images 5000
	$(BIN)/python -m tests.soak --jobs 5000
	$(BIN)/python -m tests.chaos --seeds 5
	$(BIN)/python benchmarks/table.py --check

fleets: $(STAMP) ## simulate 10 000 random fleets with faults; each must end whole and in time
	$(BIN)/python -m tests.fleets

mutations: $(STAMP) ## plant bugs in copies of the scheduler, one each; its property test must find all
	$(BIN)/python -m tests.mutations

chaos: $(STAMP) broker ## cause 240 faults among real processes; chaos/ gets a report and timelines
	$(BIN)/python -m tests.chaos

soak: $(STAMP) broker ## do 10 000 small jobs; soak/ gets memory, files and threads as a plot, and latencies
	$(BIN)/python -m tests.soak

fuzz: $(STAMP) broker ## send 100 000 hostile messages and read 10 000 damaged image files
	$(BIN)/python -m tests.fuzz

lint: $(STAMP) ## check formatting, rules and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP) broker peers ## run the benchmarks; each prints its table
	@set -e; for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench; done

bench-quick: $(STAMP) broker peers ## measure the speed beside bare MQTT and other libraries (3 minutes)
	$(BIN)/python benchmarks/table.py --quick

clean: ## remove what was built here; results and configuration stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made once, and again when the packages change.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: fogmqtt needs Python 3.11 or newer; name one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "make: this Python cannot make environments: apt install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e '.[dev,embedded]' || $(PIP) -e '.[dev]'  # no broker wheel for every machine
	touch $@

# What the benchmarks compare with. They say which of it is missing, and leave that out.
peers: .venv/.peers

.venv/.peers: $(STAMP)
	$(PIP) -e '.[bench]' && touch $@ || echo "make: the packages of the extra bench cannot be had"

broker:
	@command -v mosquitto >/dev/null && command -v mosquitto_pub >/dev/null || $(get_mosquitto) \
	  || { echo "make: the tests need Mosquitto: apt install mosquitto mosquitto-clients" >&2; exit 1; }

broker-or-wheel:
	@command -v mosquitto >/dev/null || $(get_mosquitto) \
	  || echo "make: no Mosquitto here; the demo starts the broker from the embedded package"

# Tries once and says so. A service that cannot start, as in a container, is no failure: what
# counts is that the program is there.
define get_mosquitto
{ root=; test "$$(id -u)" = 0 || root="sudo -n"; \
  if command -v apt-get >/dev/null && $$root true 2>/dev/null; then \
    echo "make: installing Mosquitto"; \
    $$root apt-get update -qq || true; \
    $$root env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends mosquitto mosquitto-clients >/dev/null || true; \
  fi; \
  command -v mosquitto >/dev/null; }
endef
