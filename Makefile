# `make run` and `make test` need Python 3.11 to 3.13, nothing else: the packages bring Java where there is none.
SHELL := /bin/bash
.DEFAULT_GOAL := help
IS_FIT := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
# The first Python that runs and fits; a name on PATH may be a stub that doesn't.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
  $$name -c '$(IS_FIT)' 2>/dev/null && { command -v $$name; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ORCHESTRATORS := airflow dagster prefect

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make the environment: packages at their locked versions, and Delta's jars

$(READY): requirements.lock pyproject.toml lib/gmv/lake/delta-jars.xml
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
	@$(BIN)/python -m pytest tests -rs --numprocesses 2 --dist loadfile --no-loadscope-reorder
	@$(BIN)/python -m pytest --nbval-lax notebooks

crash-test: $(READY) ## Kill a run at every commit, in every way; the next one must finish it; three rounds (hours)
	@$(BIN)/python tests/crash_matrix.py --times 3 --write

lint: $(READY) ## Check style, format and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

lab: $(READY) ## Open Jupyter
	@$(BIN)/jupyter lab notebooks

notebooks: $(READY) ## Execute the committed notebooks anew, on the sample and a lake of their own
	@$(BIN)/python -m gmv.run.committed

# --- Orchestrators: each has an environment of its own, since their packages exclude each other ---

airflow: $(READY) orchestration/airflow/.venv/.ready ## Start a local Airflow with the daily schedule on
	@orchestration/airflow/start

dagster: $(READY) orchestration/dagster/.venv/.ready ## Start a local Dagster with the daily schedule on
	@orchestration/dagster/start

prefect: $(READY) orchestration/prefect/.venv/.ready ## Start a local Prefect with the daily schedule on
	@orchestration/prefect/start

orchestration/%/.venv/.ready: orchestration/%/requirements.txt
	@echo "Installing $* (once) ..."
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python orchestration/$*/.venv
	@$(BIN)/uv pip sync --quiet --require-hashes --python orchestration/$*/.venv $<
	@touch $@

orchestration-setup: $(READY) $(patsubst %,orchestration/%/.venv/.ready,$(ORCHESTRATORS)) ## Make the orchestrators' environments, for the tests

orchestration-test: orchestration-setup ## Test each orchestrator with its daemons, real ticks, backfills and a kill (minutes)
	@$(BIN)/python -m pytest tests/test_airflow.py tests/test_dagster.py tests/test_prefect.py tests/daemons.py

bench: $(READY) ## Time the pipeline beside plain PySpark, pandas, Polars and DuckDB (minutes)
	@$(BIN)/python benchmarks/run.py

bench-full: $(READY) ## The same with up to 20 million purchases (an hour, 40 GB of disk)
	@$(BIN)/python benchmarks/run.py --name full --purchases 200000 --purchases 2000000 --purchases 20000000

bench-year: $(READY) ## The same with histories of 36 days and one year, as many purchases on each day (a quarter of an hour)
	@$(BIN)/python benchmarks/run.py --name year --steady --purchases 200000 --purchases 2000000

bench-years: $(READY) ## The same, and ten years (an hour)
	@$(BIN)/python benchmarks/run.py --name years --steady --purchases 200000 --purchases 2000000 --purchases 20000000

identities: $(READY) ## Verify the whole lake after a first load and daily increments, generated (minutes)
	@$(BIN)/python benchmarks/identities.py --purchases 200000 --increments 3 --per-day 2000

anomalies: $(READY) ## Measure how often anomaly checks see planted faults, and how often they cry wolf (seconds)
	@$(BIN)/python benchmarks/anomalies.py

fuzz: $(READY) ## Try 10,000 files that were changed at random, and two dozen lakes of them (minutes)
	@FUZZ_FILES=10000 FUZZ_LAKES=24 $(BIN)/python -m pytest --timeout=7200 tests/test_fuzz.py

setup-s3: $(VENV)/.ready-s3 ## Add what a lake in S3 needs: packages, and Spark's jars for S3

$(VENV)/.ready-s3: $(READY) requirements-s3.lock lib/gmv/lake/s3-jars.xml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-s3.lock
	@$(BIN)/gmv doctor --fix-s3 --lake $(VENV)/no-lake > $(VENV)/doctor.txt || { cat $(VENV)/doctor.txt; exit 1; }
	@touch $@

gateway: $(BIN)/versitygw ## Build the S3 server that the tests use (needs Go)

$(BIN)/versitygw: | $(READY)
	@command -v go >/dev/null || { echo "Go is missing, so the S3 server for tests can't be built: see https://go.dev/doc/install."; exit 1; }
	@GOBIN="$(abspath $(BIN))" go install github.com/versity/versitygw/cmd/versitygw@v1.8.0

S3_TESTS := tests/test_s3.py tests/test_s3_runs.py tests/test_engines.py tests/test_export.py tests/test_location.py
RULE_TESTS := tests/test_pipeline.py tests/test_corpus.py tests/test_runs.py tests/test_retraction.py \
  tests/test_properties.py tests/test_stateful.py

s3-test: setup-s3 gateway ## Test runs on a real S3 server: rules, kills, two writers, each failure of a store (half an hour)
	@GMV_CLOUD_TESTS=s3 $(BIN)/python -m pytest -rs $(S3_TESTS)
	@TEST_LAKES_IN=s3 $(BIN)/python -m pytest -rs $(RULE_TESTS)

cluster-test: setup-s3 gateway ## Test runs on a Spark cluster of a master and two workers, their lake in S3 (minutes)
	@GMV_CLOUD_TESTS=cluster $(BIN)/python -m pytest -rs tests/test_cluster.py

sql: $(READY) ## Generate the analysts' SQL in sql/ anew
	@$(BIN)/python -m gmv.warehouse

backtest: $(READY) ## Measure how often the report's intervals of further change hold (a minute)
	@$(BIN)/python benchmarks/finality.py

lock: $(READY) ## Resolve the dependencies anew into requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --group dev pyproject.toml -o requirements.lock
	@cp requirements.lock requirements-s3.lock  # the same versions, but where S3's packages need others
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --group dev --extra s3 \
	  pyproject.toml -o requirements-s3.lock
	@for name in $(ORCHESTRATORS); do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-header orchestration/$$name/requirements.in -o orchestration/$$name/requirements.txt; done

clean: ## Remove the environment and everything the pipeline wrote; the landing folder stays
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build lib/*.egg-info
	@rm -rf orchestration/*/.venv orchestration/*/home
	@find data_lake -mindepth 1 -maxdepth 1 ! -name landing -exec rm -rf {} +
	@find runs -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +

.PHONY: $(shell grep -ohE '^[a-z0-9-]+:' $(firstword $(MAKEFILE_LIST)) | tr -d ':')
