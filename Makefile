# make app     install and run the dashboard on the bundled sample
# make test    install, lint, check types and imports, and run the tests
# make test-integrations  run the tests that need PostgreSQL, Ray or training tools (Lightning, timm, …),
#              and the slowest other tests
# make fuzz    feed random files to the readers, for SECONDS (60) per format
# make bench   measure speed and memory against baselines (ARGS="uniform digests": these tables only;
#              ARGS="peers recipes": comparison with other tools, in a separate environment)
# make results run every recipe on the sample and update the tables of recipes in the README
# make sample  recreate the bundled sample
# make lint | format | clean

PYTHON ?= python3
ARGS ?=
SECONDS ?= 60
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers

# Waiting threads sleep instead of spinning, so that small networks stay fast on a busy machine.
export OMP_WAIT_POLICY ?= passive

# pip does not compile modules (--no-compile). The first import does, and it must be able to write the
# bytecode, or every process would compile torch again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: app test pytest test-integrations lint format fuzz bench results sample clean

app: $(VENV)/app.installed
	$(BIN)/python -m soupcore.cli $(ARGS)

# One process more than cores (see tests/conftest.py), with one thread each, because the tests are
# several times slower with more threads than cores.
PYTEST := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --no-loadscope-reorder
test test-integrations: export OMP_NUM_THREADS ?= 1

# mypy has one thread and the browser mostly waits, so lint runs beside the tests.
test: $(VENV)/test.installed
	$(BIN)/python -m tests.browser.chromium
	@$(MAKE) --no-print-directory --jobs=2 lint pytest

pytest:
	$(PYTEST) -m "not integration"

test-integrations: $(VENV)/integrations.installed
	$(BIN)/python -m tests.browser.chromium
	$(BIN)/python -m tests.postgres
	$(PYTEST) -m integration

lint: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/test.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(VENV)/fuzz.installed
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

bench: $(VENV)/test.installed $(if $(filter peers recipes,$(ARGS)),$(PEERS)/peers.installed)
	$(if $(filter pages reruns,$(ARGS)),$(BIN)/python -m tests.browser.chromium)
	$(BIN)/python -m tests.benchmarks $(ARGS)

results: $(VENV)/app.installed
	$(BIN)/python -m sample_data.results

sample: $(VENV)/test.installed
	$(BIN)/python -m sample_data.make_digits

clean:
	rm -rf $(VENV) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz .import_linter_cache

$(VENV)/app.installed: requirements.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --requirement requirements.txt
	@touch $@

$(VENV)/test.installed: tests/requirements.txt $(VENV)/app.installed
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --requirement tests/requirements.txt
	@touch $@

$(VENV)/integrations.installed: tests/requirements-integrations.txt tests/requirements-alone.txt \
  $(VENV)/test.installed
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check \
	  --requirement tests/requirements-integrations.txt
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --no-deps \
	  --requirement tests/requirements-alone.txt
	@touch $@

$(VENV)/fuzz.installed: tests/fuzz/requirements.txt $(VENV)/test.installed
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --requirement tests/fuzz/requirements.txt
	@touch $@

$(PEERS)/peers.installed: tests/benchmarks/requirements.txt | $(BIN)/pip
	$(BIN)/python -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check \
	  --requirement tests/benchmarks/requirements.txt
	@touch $@

# Debian packages venv separately from Python. It is installed if it is missing and we are root.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Stockpot needs Python 3.11 or newer. Name one: make $(MAKECMDGOALS) PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq python3-venv; } || { \
	  echo 'Python lacks its venv module. On Debian: sudo apt install python3-venv'; exit 1; }
	$(PYTHON) -m venv $(VENV)
