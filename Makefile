# Everyday commands. `make run` and `make test` need Python 3.11 or newer and a C compiler, nothing else.

PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,\
	$(if $(shell $(p) -c 'import sys; print(int(sys.version_info >= (3, 11)))' 2>/dev/null | grep 1),$(p))))
VENV ?= .venv
BIN := $(VENV)/bin
# Programs and libraries built for the tests live outside the tree and survive `make clean`.
export ANTQUIC_CACHE ?= $(HOME)/.cache/antquic-server
# liboqs is used where it is found; an installation of your own wins over the one `make liboqs` builds.
ifneq ($(or $(OQS_INSTALL_PATH),$(wildcard $(ANTQUIC_CACHE)/liboqs)),)
export OQS_INSTALL_PATH := $(or $(OQS_INSTALL_PATH),$(ANTQUIC_CACHE)/liboqs)
endif
# Options for the node (make run ARGS="--echo") and for pytest (make test PYTEST_ARGS="-k frames").
ARGS ?=
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: run test check lint fmt docs bench peers liboqs clean help

run: $(VENV)/.installed ## install into .venv and start a node with the defaults; ARGS are passed on
	@exec $(BIN)/antquic-server serve $(ARGS)

test: $(VENV)/.installed-test ## run the test suite; PYTEST_ARGS are passed on
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint ## everything that gates a change: lint, types, import rules, tests with branch coverage
	@rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest $(PYTEST_ARGS)
	@$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

lint: $(VENV)/.installed-test ## style, format, types and import rules only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(VENV)/.installed-test ## format and sort imports
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/.installed ## renew what in docs/ is made from the code
	$(BIN)/antquic-server config reference --write docs/configuration.md

bench: $(VENV)/.installed-test ## run every benchmark, or what ARGS say (make bench ARGS="all --quick")
	$(BIN)/antquic-server bench $(if $(strip $(ARGS)),$(ARGS),all)

peers: ## build real ant-quic peers for the tests (needs cargo and cmake; minutes)
	@scripts/build-peers.sh

liboqs: ## build liboqs, the fast post-quantum provider (needs cargo and cmake)
	@scripts/build-liboqs.sh

clean: ## remove the environment and everything generated in the tree
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer on PATH; set PYTHON=/path/to/python3" >&2; exit 3; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 3; }

# Stamps, so that a second run starts at once. The package is installed in place: edits take effect without it.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.installed
