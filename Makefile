# `make train` and `make test` need nothing before them; a bare `make` rebuilds what changed, also after a new header.
PYTHON ?= python3
ENV ?= CartPole-v1
ALGO ?=
ARGS ?=
# Another index for torch alone: PyTorch's own with the build for CPUs (make setup TORCH_INDEX=cpu), or any by its url.
TORCH_INDEX ?=
INDEX := $(if $(filter cpu,$(TORCH_INDEX)),https://download.pytorch.org/whl/cpu,$(TORCH_INDEX))

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# A module is compiled when it is first imported; most are never.
INSTALL := $(PIP) install -qq --no-compile
BUILDERS := .venv/.builders
TOOLS := .venv/.tools
BOX2D := .venv/.box2d
BUILT := .venv/.built
DOCS := .venv/.docs
NATIVE := $(shell find native)
SOURCES := $(filter %.hpp %.cpp,$(NATIVE))
FAST := not slow and not gpu and not peers and not mutation
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# Compiled once, not in every process of the tests, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
ifndef SIDE_BY_SIDE
.NOTPARALLEL:
endif
.PHONY: FORCE ready help build setup train test test-all mutations sanitize check format tidy bench bench-peers docs docs-tools clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile | awk -F': ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

build: ready ## build what changed

setup: ready ## virtual environment, pinned dependencies, native build
	@echo "Ready: $(BIN)/shoal"

# The native core is built while what it does not need is installed.
ready: $(BUILDERS)
	@$(MAKE) --no-print-directory -s $(if $(findstring -j,$(MAKEFLAGS)),,-j2) SIDE_BY_SIDE=1 $(TOOLS) $(BUILT)

$(BUILDERS): constraints.txt pyproject.toml scripts/requirements.py
	@$(PYTHON) scripts/check_machine.py
	@test -x $(BIN)/python || { echo "Making .venv"; $(PYTHON) -m venv .venv; }
	@echo "Installing the tools of the build"
	@$(BIN)/python scripts/requirements.py build > .venv/requirements-build.txt
	@$(INSTALL) -c constraints.txt -r .venv/requirements-build.txt
	@touch $@

$(TOOLS): $(BUILDERS) $(if $(TORCH_INDEX),FORCE)
	@echo "Installing dependencies (constraints.txt): about a gigabyte, mostly torch"
ifneq ($(INDEX),)
	@$(INSTALL) --force-reinstall --no-deps --index-url '$(INDEX)' -c constraints.txt torch
	@$(INSTALL) -c constraints.txt torch
else ifeq ($(shell uname -s),Linux)
	@$(PIP) show -qq torch || echo "PyPI's torch for Linux brings gigabytes of CUDA; without a GPU: make setup TORCH_INDEX=cpu"
endif
	@$(BIN)/python scripts/requirements.py > .venv/requirements.txt
	@$(INSTALL) -c constraints.txt -r .venv/requirements.txt
	@touch $@

FORCE:

$(BOX2D): $(BUILDERS) scripts/box2d.py
	@$(BIN)/python scripts/box2d.py .venv
	@touch $@

$(BUILT): $(BUILDERS) $(BOX2D) CMakeLists.txt pyproject.toml $(NATIVE)
	@echo "Building the native core (about a minute on two free cores)"
	@jobs=$${CMAKE_BUILD_PARALLEL_LEVEL:-$$($(PYTHON) scripts/check_machine.py --jobs)}; test -n "$$jobs" || exit 1; \
	CMAKE_BUILD_PARALLEL_LEVEL=$$jobs $(PIP) install -q --no-build-isolation --no-deps -e .
	@touch $@

train: ready ## train ENV (CartPole-v1) with ALGO; ARGS go to `shoal train`
	@$(BIN)/shoal train $(ENV) $(if $(ALGO),--algo $(ALGO)) $(ARGS)

test: ready ## the tests, without the slow ones, in a process a core; ARGS go to pytest
	@$(BIN)/python -m pytest -q -m '$(FAST)' -n logical --maxprocesses 4 --dist worksteal $(ARGS)

test-all: ready ## the slow tests too, and those that need a GPU if there is one
	@$(MAKE) -s docs-tools || echo "The test of the site's pages is skipped"
	@$(BIN)/python -m pytest -q -m 'not peers' $(ARGS)

mutations: ready ## put defects in, one at a time: a test must fail on each
	@$(BIN)/python -m pytest -q -m mutation -n logical --maxprocesses 2 --dist loadgroup tests/test_mutations.py $(ARGS)

sanitize: ready ## native tests and a fuzz of every binding under sanitizers (slow); ARGS=--short: a minute
	@$(BIN)/python scripts/sanitize.py $(ARGS)

check: ready ## format, lint, types, import order, generated files
	@failed=0; types=$$(mktemp); \
	step() { \
	  printf '  %-13s ' "$$1"; shift; \
	  if output=$$("$$@" 2>&1); then echo ok; else failed=1; echo FAILED; printf '%s\n' "$$output"; fi; \
	}; \
	$(BIN)/pyright > "$$types" 2>&1 & pyright=$$!; \
	step 'ruff format' $(BIN)/ruff format --check --quiet .; \
	step 'ruff' $(BIN)/ruff check --quiet .; \
	step 'clang-format' $(BIN)/clang-format --dry-run -Werror $(SOURCES); \
	step 'import order' $(BIN)/lint-imports; \
	step 'stub' $(BIN)/python scripts/stub.py --check; \
	step 'keywords' $(BIN)/python scripts/keywords.py --check; \
	step 'README table' $(BIN)/python scripts/readme_table.py --check; \
	step 'settings page' $(BIN)/python docs/settings.py --check; \
	step 'presets page' $(BIN)/python docs/presets.py --check; \
	step 'proto' $(BIN)/python scripts/proto.py --check; \
	wait $$pyright; found=$$?; \
	step 'pyright' sh -c 'test "$$1" = 0 || { cat "$$2"; exit 1; }' - $$found "$$types"; \
	rm -f "$$types"; exit $$failed

format: ready ## repair what `check` finds and a tool can repair
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .
	@$(BIN)/clang-format -i $(SOURCES)
	@$(BIN)/python scripts/stub.py
	@$(BIN)/python scripts/keywords.py
	@$(BIN)/python scripts/readme_table.py
	@$(BIN)/python docs/settings.py
	@$(BIN)/python scripts/proto.py

tidy: ready ## clang-tidy on the native core (slow)
	@$(BIN)/clang-tidy --quiet -p build $(filter-out native/bind/extension.cpp,$(filter %.cpp,$(SOURCES)))

bench: ready ## steps per second against this machine's own limit
	@$(BIN)/python -m benchmarks $(ARGS)

bench-peers: ready ## the same beside other libraries, each in a virtual environment of its own
	@$(BIN)/python benchmarks/peers/setup_peers.py
	@$(BIN)/python -m benchmarks --peers $(ARGS)

$(DOCS): constraints.txt pyproject.toml scripts/requirements.py
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11, 5) and "The tools of the site need Python 3.11.5")'
	@$(BIN)/python scripts/requirements.py docs > .venv/requirements-docs.txt
	@$(INSTALL) -c constraints.txt -r .venv/requirements-docs.txt
	@touch $@

docs-tools: ready $(DOCS) ## what the site is built with, which `setup` leaves out (Python 3.11.5 or newer)

docs: ready $(DOCS) ## build the site into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

clean: ## remove what was built; the virtual environment and runs/ stay
	rm -rf build dist site $(BUILT) .pytest_cache .ruff_cache .import_linter_cache
	find src tests benchmarks scripts -name __pycache__ -prune -exec rm -rf {} +
