# Everything a person types. Each target says what it does while it does it.
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3))
BIN := .venv/bin

.PHONY: help demo up down test check bench lock clean

help:
	@echo "make demo    from one spec file to a live endpoint, on this machine"
	@echo "make up      start the platform          make down   stop it"
	@echo "make test    all tests                   make check  lint, types, import contracts"
	@echo "make bench   the benchmarks, with the references beside us"

demo: .venv/installed
	@$(BIN)/tracklayer demo

up down: .venv/installed
	@$(BIN)/tracklayer $@

test: .venv/installed-dev
	@echo "Running the tests"
	@$(BIN)/python -m pytest $(TESTS)

check: .venv/installed-dev
	@echo "Format";           $(BIN)/ruff format --check --quiet .
	@echo "Lint";             $(BIN)/ruff check --quiet .
	@echo "Types";            $(BIN)/mypy
	@echo "Import contracts"; $(BIN)/lint-imports --no-cache | tail -n 12

bench: .venv/installed-dev
	@$(BIN)/python -m bench $(BENCH)

# The two locks: no addresses, so that everybody installs from the index they are set up with.
lock: .venv/installed
	@$(BIN)/uv pip compile --quiet --no-header --no-annotate --python-version 3.11 pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --no-header --no-annotate --python-version 3.11 pyproject.toml --extra dev --extra openvino -c requirements.lock -o requirements-dev.lock

clean:
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/installed: requirements.lock pyproject.toml install.sh
	@PYTHON="$(PYTHON)" ./install.sh requirements.lock
	@touch $@

.venv/installed-dev: requirements-dev.lock .venv/installed
	@PYTHON="$(PYTHON)" ./install.sh requirements-dev.lock
	@touch $@
