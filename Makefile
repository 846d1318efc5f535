# `make` prints the targets. A machine needs Python 3.11, git and make; everything else is brought
# here by pip, into .venv; what the tests need from Debian is installed by tests/servers/install.

PYTHON ?= python3.11
VENV ?= .venv
CONFIG ?= serve_config.yaml
PYTEST_ARGS ?=
# Processes that share the unit tests out; `WORKERS=0` for a debugger.
WORKERS ?= 2

# Tests are named after the abuse cases (a1 to a22) and bad inputs (b1 to b10) that they try.
NUMBERED := $(shell seq -f 'test_a%g_' 1 22; seq -f 'test_b%g_' 1 10)
ABUSE := test_access or test_limits $(addprefix or ,$(NUMBERED))

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PIP_INSTALL := $(PIP) install --quiet -c constraints.txt
SOURCES := pyproject.toml constraints.txt configs/models.yaml Makefile
PROTO := deployments/ingress/proto/dify.proto
STUBS := $(PROTO:.proto=_pb2.py)
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
# The commands below import our packages from this folder, installed or not.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install install-dev stubs serve test fmt lint typecheck test-unit test-integration \
	test-e2e test-chaos test-faults test-security servers bench clean

help: ## Print the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) $(STUBS) ## Create .venv with everything that serving needs, models included

# Torch first and from the index this machine is set up for: where that has CPU builds, it is one.
# DeepSpeed compiles nothing at install time, but its build reads the installed torch.
$(INSTALLED): $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; set PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV)"
	@$(PIP) install --quiet 'pip>=25.1'
	@$(PIP_INSTALL) setuptools wheel grpcio-tools
	@$(PIP_INSTALL) torch
	@$(PIP_INSTALL) --no-build-isolation -e '.[tuning]'
	@$(BIN)/python -m cluster.embedded requirements | xargs $(PIP) install --quiet --no-deps
	@$(BIN)/python -m cluster.embedded verify
	@touch $@

# The modules that Python reads messages with, from the one description of them.
stubs: $(STUBS) ## Compile dify.proto

$(STUBS): $(PROTO) | $(INSTALLED)
	@$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. $(PROTO)

install-dev: $(INSTALLED_DEV) $(STUBS) ## Also install what the tests need

$(INSTALLED_DEV): $(INSTALLED)
	@echo "installing the test tools into $(VENV)"
	@$(PIP_INSTALL) --group dev
	@touch $@

serve: install ## Install, then run the cluster until Ctrl-C (CONFIG=serve_config.yaml)
	@exec $(BIN)/ragserve up $(CONFIG)

test: install-dev lint typecheck test-unit test-integration test-chaos test-e2e ## Install and run every check

fmt: install-dev ## Format the code and fix what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: install-dev ## Check format, lint rules and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

typecheck: install-dev ## Check types
	$(BIN)/mypy

servers: ## Install what the tests need besides Python, where missing
	@tests/servers/install

test-unit: install-dev servers ## Tests without a cluster
	$(BIN)/pytest tests/unit -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

test-integration: install-dev servers ## Tests on a real local Ray with fake engines
	$(BIN)/pytest tests/integration $(PYTEST_ARGS)

test-e2e: install-dev ## Tests of the default application over HTTP, with the real models
	$(BIN)/pytest tests/e2e $(PYTEST_ARGS)

test-chaos: install-dev servers ## Tests that kill processes while requests run
	$(BIN)/pytest tests/chaos $(PYTEST_ARGS)

test-faults: install-dev servers ## Every crash point, power loss, kill and damage (80 minutes)
	RAGSERVE_TEST_FAULTS=all $(BIN)/pytest tests/unit/stores/test_faults_*.py tests/chaos/test_store_*.py tests/chaos/test_task_kills.py $(PYTEST_ARGS)

test-security: install-dev servers ## Abuse cases and bad inputs, with ten times the generated requests (half an hour)
	RAGSERVE_TEST_SECURITY=all $(BIN)/pytest tests/unit tests/integration -k '$(ABUSE)' $(PYTEST_ARGS)

bench: install-dev ## Measure against the limits of this machine
	@for script in $$(grep -l '^if __name__' tests/bench/*.py); do \
		name=$$(basename "$$script" .py); echo "== $$name"; \
		$(BIN)/python -m "tests.bench.$$name" || exit 1; done

clean: ## Remove .venv and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
