# `make run` and `make test` need Python 3.11 to 3.13 and Java 17 to 25, nothing else.
SHELL := /bin/bash
.DEFAULT_GOAL := help
IS_FIT := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
# The first Python that runs and fits; a name on PATH may be a stub that doesn't.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
  $$name -c '$(IS_FIT)' 2>/dev/null && { command -v $$name; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## Make the environment: packages at their locked versions, and Delta's jars

$(READY): requirements.lock pyproject.toml lib/gmv/lake/delta-jars.xml
	@command -v java >/dev/null || test -x "$$JAVA_HOME/bin/java" || { \
	  echo "Java is missing. Install version 17 to 25: apt install openjdk-17-jre-headless, brew install openjdk@21, or conda install openjdk=21."; exit 1; }
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(IS_FIT)' || { \
	  echo "Python 3.11 to 3.13 is needed; name one by: make PYTHON=/path/to/python setup"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing packages (once, a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@$(BIN)/gmv doctor --fix --lake $(VENV)/no-lake > $(VENV)/doctor.txt || { cat $(VENV)/doctor.txt; exit 1; }
	@touch $@

run: $(READY) ## Run the pipeline on what is in data_lake/landing, through all four notebooks
	@$(BIN)/gmv run

example: $(READY) ## Make an example whose numbers change: eight deliveries, a run on each morning
	@$(BIN)/python -m gmv.run.example

test: $(READY) ## Run every test: rules, notebooks under nbval, README's commands
	@$(BIN)/python -m pytest tests
	@$(BIN)/python -m pytest --nbval-lax notebooks

lint: $(READY) ## Check style, format and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

lab: $(READY) ## Open Jupyter
	@$(BIN)/jupyter lab notebooks

notebooks: $(READY) ## Execute the committed notebooks anew, on the sample and a lake of their own
	@$(BIN)/python -m gmv.run.committed

bench: $(READY) ## Time the pipeline beside plain PySpark, pandas, Polars and DuckDB (minutes)
	@$(BIN)/python benchmarks/run.py

lock: $(READY) ## Resolve the dependencies anew into requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --group dev pyproject.toml -o requirements.lock

clean: ## Remove the environment and everything the pipeline wrote; the landing folder stays
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build lib/*.egg-info
	@find data_lake -mindepth 1 -maxdepth 1 ! -name landing -exec rm -rf {} +
	@find runs -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +

.PHONY: help setup run example test lint lab notebooks bench lock clean
