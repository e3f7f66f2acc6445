# Everything runs from a virtual environment in .venv that these rules make themselves: Python >= 3.11, pip and make
# are all that a machine needs. `make PYTHON=python3.12 sweep` picks another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PINS := cluster/constraints.txt
NAME ?= quick
CPU_THREADS := OMP_NUM_THREADS=1
PROCESSES ?= 2

.DEFAULT_GOAL := help
.PHONY: help install sweep ui test test-slow check docs mutants bench clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## set up .venv with the package, its tested versions and the development tools

$(STAMP): pyproject.toml $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "dpsweep needs Python >= 3.11; $(PYTHON) is older: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing dpsweep and what it needs into $(VENV): about 160 packages, 2.2 GB on disk, three to ten minutes (once)"
	$(BIN)/python -m pip install --quiet -c $(PINS) --editable '.[dev]'
	@touch $(STAMP)

sweep: $(STAMP) ## set everything up and run the quick sweep (NAME=quick; five minutes on two cores)
	$(BIN)/dpsweep run quick --name $(NAME)

ui: $(STAMP) ## MLflow's pages over the sweeps in ./sweep_results, on this machine alone
	$(BIN)/dpsweep ui

test: $(STAMP) ## set everything up and run the tests (PROCESSES=2 at once; 0 for a debugger)
	$(CPU_THREADS) $(BIN)/python -m pytest -n $(PROCESSES) -m "not slow and not gpu"

test-slow: $(STAMP) ## the tests that take minutes each (TESTS=tests/e2e for some of them)
	$(CPU_THREADS) $(BIN)/python -m pytest -m "slow" --timeout 1800 $(TESTS)

check: $(STAMP) ## ruff, mypy --strict (tests and benchmarks too), import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP) ## build the documentation into ./site; every warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

mutants: $(STAMP) ## break the project on purpose, patch by patch; table under benchmarks/results/mutants
	$(CPU_THREADS) $(BIN)/python tests/mutants/mutant_kit.py

bench: $(STAMP) ## measure the speed levers; results under benchmarks/results
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(CPU_THREADS) $(BIN)/python $$script || exit 1; done

clean: ## remove .venv and tool caches; sweeps and data stay
	rm -rf $(VENV) build site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
