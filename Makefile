# Everything here makes its own environment in .venv first; nothing is installed outside the folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo demo-docker test lint types check bench servers faults soak clean

help: ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

$(READY): pyproject.toml
	@echo "making the environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(f"meshkit needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}; try: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]' --group dev
	@touch $@

demo: $(READY) ## run the examples: 5 processes, real traffic, one killed, nothing lost
	@$(BIN)/python examples/demo $(ARGS)

demo-docker: $(READY) ## the same in containers, on a Consul cluster that loses its leader
	@$(BIN)/python examples/docker/demo $(ARGS)

# Most tests wait for servers, so several run at once; those that share a cluster run in turn.
# What fails is run up to twice more, on a machine that may be busy with other things, and shown.
test: $(READY) servers ## run all tests, JOBS=3 at once
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --reruns 2 --reruns-delay 3 -rR $(ARGS)

servers: ## fetch the real registry servers that tests start, into .cache
	@scripts/fetch-servers || [ -z "$$TEST_REQUIRE_SERVERS" ]

lint: $(READY) ## check style, formatting and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(READY) ## check types
	@$(BIN)/mypy
	@cd examples/demo && ../../$(BIN)/mypy --config-file ../../pyproject.toml *.py
	@cd examples/docker/demo && ../../../$(BIN)/mypy --config-file ../../../pyproject.toml *.py ../*.py
	@cd benchmarks && MYPYPATH=services:../examples/users:.. ../$(BIN)/mypy --config-file ../pyproject.toml *.py failover/*.py services/*.py

check: lint types test ## all of the above

# Each is kept in .cache/benchmarks: ARGS="chain --write" repeats one and writes the whole page anew.
bench: $(READY) servers ## measure against plain FastAPI, uvicorn and a hand-written registration
	@$(BIN)/python benchmarks/run.py $(ARGS)

faults: $(READY) servers ## run every fault on every engine, and write docs/faults.md (20 minutes)
	@TEST_CHURN_SECONDS=120 TEST_FAULTS_PAGE=docs/faults.md $(BIN)/python -m pytest tests/faults -n 0 $(ARGS)

soak: $(READY) servers ## ten minutes of calls through random faults: all answered, nothing leaks
	@SOAK_SECONDS=$${SOAK_SECONDS:-600} $(BIN)/python -m pytest tests/soak -n 0 -s $(ARGS)

clean: ## remove the environment and all caches
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
