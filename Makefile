# make demo   environment, then the main job on the bundled digits: 3 minutes after installation
# make test   environment, then the tests: at most 12 minutes in all on 2 cores
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN = $(VENV)/bin
# Tests that run with every shape and type checked at every call; the rest run without.
CHECKED = tests/autoencoders tests/data tests/objectives tests/test_couplings.py \
  tests/test_fields.py tests/test_solvers.py tests/test_times.py tests/runs/test_run.py

# Each test computes on one thread, so two run at a time, files in the order given.
BOTH = -n 2 --dist loadfile --no-loadscope-reorder

# Files whose examples are drawn by Hypothesis: the slow tests draw others than the fast ones.
DRAWN = $(shell grep -l "^from hypothesis" -r tests --include=test_*.py)

.PHONY: help demo test test-slow numbers lint bench pictures docs dist clean

help:
	@grep -E '^# make' Makefile | sed 's/^# //'
	@echo "make test-slow   many kills, long laws: at most an hour"
	@echo "make numbers     repeats each measured number of docs/numbers.toml: two hours"
	@echo "make bench       speed beside the alternatives"
	@echo "make pictures    screenshots of the reports of RUNS=..., with Chromium"
	@echo "make dist        wheel and sdist in dist, checked; the wheel is installed and run"
	@echo "make docs        the documentation site in build/site: a minute"

# The stamps make a second call start at once; a changed list of packages installs again.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@echo "== creating the environment $(VENV) (about a minute) =="
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "== adding what the tests need =="
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev,ot,track,autoencoders,data]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@echo "== adding what the documentation needs =="
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[docs]'
	@touch $@

$(VENV)/.installed-dist: $(VENV)/.installed
	@echo "== adding what the distribution needs =="
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dist]'
	@touch $@

demo: $(VENV)/.installed
	@echo "== training on the bundled digits, sampling, evaluating (budget: 3 minutes on 2 cores) =="
	$(BIN)/monge demo

test: $(VENV)/.installed-dev
	@echo "== tests (budget: 12 minutes on 2 cores, installation included) =="
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright --pythonpath $(BIN)/python && $(BIN)/lint-imports
	PYTHONPATH=tests $(BIN)/python -m pytest $(BOTH) -m "not slow" -k "not blind_network" \
	  --durations=15 --jaxtyping-packages=monge,shape_checks.check $(CHECKED)
	$(BIN)/python -m pytest $(BOTH) -m "not slow" --durations=20 \
	  $(patsubst %,--ignore=%,$(filter-out tests/objectives,$(CHECKED))) tests src

test-slow: $(VENV)/.installed-dev
	@echo "== slow tests (budget: an hour on 2 cores) =="
	HYPOTHESIS_PROFILE=default $(BIN)/python -m pytest -n 2 --dist load -m slow --durations=20
	HYPOTHESIS_PROFILE=default $(BIN)/python -m pytest -n 2 --dist load -m "not slow" $(DRAWN)

numbers: $(VENV)/.installed-dev
	@echo "== every number of docs/numbers.toml, measured again (budget: an hour on 2 cores, two with MONGE_DATA) =="
	$(BIN)/python docs/measure.py

bench: $(VENV)/.installed-dev
	@echo "== benchmarks (budget: 20 minutes on 2 cores) =="
	$(BIN)/python -m benchmarks

# Of the runs in RUNS; needs Chromium. PICTURES names the folder.
RUNS ?= $(wildcard runs/*/)
PICTURES ?= build/pictures
pictures: $(VENV)/.installed
	@echo "== screenshots of reports at 1400, 1024 and 420 pixels, and dark =="
	$(BIN)/python docs/pictures.py $(RUNS) --out $(PICTURES)

docs: $(VENV)/.installed-docs
	@echo "== the documentation site, strict: a broken link or reference fails =="
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs build/site
	@echo "open build/site/index.html"

# DEMO=--demo also runs the whole demo from the wheel.
dist: $(VENV)/.installed-dist
	@echo "== wheel and sdist, checked, and run in a new environment without a checkout =="
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	CONSTRAINTS=$(CONSTRAINTS) $(BIN)/python tests/check_dist.py dist $(DEMO)

clean:
	rm -rf $(VENV) .venv-ci .pytest_cache .ruff_cache .hypothesis build
