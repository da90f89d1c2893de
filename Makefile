# Every target explains itself: `make help`. The two that a newcomer needs are `up` and `test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
N ?= 4
.PHONY: help up test check cover bounds gen lint type lock bench compiled fuzz docs clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# pip, not a faster installer: it is on every Debian, and it reads the mirrors a company has set in pip.conf.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "The venv module is missing: apt-get install python3-venv"; exit 1; }

.venv/.up: requirements/all.lock pyproject.toml | $(BIN)/python
	@echo "Installing what the platform needs into .venv (once) ..."
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements/all.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: requirements/dev.lock .venv/.up
	@echo "Installing what the tests need into .venv (once) ..."
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.lock
	@touch $@

up: .venv/.up ## Set up, then run OpenBao, server, sidecar and a demo; says what is where
	@exec $(BIN)/connectors up --demo

test: .venv/.dev ## Set up what the tests need, then run them all, 4 at a time (ARGS="tests/vault/test_vault.py -x" N=0)
	@$(if $(COVER),$(BIN)/coverage erase && $(BIN)/coverage run,$(BIN)/python) -m pytest -n $(N) --dist loadfile $(ARGS)

check: lint type cover ## All that CI runs

cover: ## Run the tests under coverage, child processes too, and hold the lower bounds
	@$(MAKE) --no-print-directory test COVER=1
	@$(MAKE) --no-print-directory bounds

bounds: .venv/.dev
	@$(BIN)/python scripts/cover.py

lint: .venv/.dev ## ruff, import-linter, buf, drift of generated code
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python scripts/gen.py --check  # also lays out the google.api files that buf reads
	@$(BIN)/buf lint && $(BIN)/buf format -d --exit-code proto

type: .venv/.dev ## mypy, strict
	@$(BIN)/mypy

gen: .venv/.dev ## Write the stubs under connectors_grpc/gen from proto/
	@$(BIN)/python scripts/gen.py

bench: .venv/.dev ## The sidecar beside haproxy, nginx, Envoy and others (ARGS="--quick"); about 15 minutes
	@$(BIN)/python -m bench.sidecar $(ARGS)

compiled: .venv/.dev ## Build with the sidecar's hot path compiled by mypyc, and run its tests on that; needs a C compiler
	@$(BIN)/python -m bench.compiled --test

fuzz: .venv/.dev ## Fuzz the sidecar's engine, guided by coverage, for FOR=120 seconds
	@$(BIN)/python -m bench.fuzz $(or $(FOR),120)

docs: .venv/.dev ## Write the generated pages under docs/ from the code
	@$(BIN)/python scripts/docs.py

lock: .venv/.dev ## Resolve requirements/*.lock anew (needs uv on the PATH)
	@uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 --extra all pyproject.toml requirements/build.in -o requirements/all.lock
	@uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 -c requirements/all.lock pyproject.toml -o requirements/sidecar.lock
	@uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 --extra cli --extra server -c requirements/all.lock pyproject.toml -o requirements/server.lock
	@uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 --extra all --group dev -c requirements/all.lock pyproject.toml requirements/build.in -o requirements/dev.lock

clean: ## Remove the environment and caches; the state directory stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
