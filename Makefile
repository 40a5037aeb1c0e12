# Everything a clone needs; `make` alone lists the targets. Needs Python 3.11+, its venv module, and
# g++. Each target first makes .venv, with the pinned packages and the compiled kernels.
#
#   make env PYTHON=python3.12       another interpreter
#   make env TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
#   make env HVAE_CUDA=0             options of the build; setup.py lists them

PYTHON ?= python3
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
# A process for each core; a file's tests share their fixtures, and so stay together.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install -q --no-build-isolation --no-deps -e .
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
BUILT := $(VENV)/.built
# Folders too: their time changes when a file comes or goes.
BUILD_INPUTS := setup.py build_backend.py pyproject.toml $(shell find csrc)
CXX_FILES = $(shell find csrc tests/cpp -name '*.h' -o -name '*.cpp' -o -name '*.cu' 2>/dev/null)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env quickstart test test-all lint format bench gpu-check clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(BUILT) ## .venv with the pinned packages and the compiled kernels

$(CREATED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "hvae needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)." \
	    "Name another: make env PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch first and alone: hvae compiles against the one installed, and nothing may replace it.
$(INSTALLED): requirements-dev.txt | $(CREATED)
	$(PIP) install $(TORCH)
	$(PIP) install -q -r requirements-dev.txt
	@touch $@

$(BUILT): $(INSTALLED) $(BUILD_INPUTS)
	$(INSTALL)
	@touch $@

quickstart: env ## Train and refine on the embedded images, 7 minutes at most; results in runs/fashion-mini/
	$(BIN)/hvae train configs/fashion_mini.yaml
	$(BIN)/hvae refine runs/fashion-mini

test: env ## The test suite, without a GPU and within 10 minutes; TESTS="..." for a part of it
	$(PYTEST) -m "not slow and not gpu" $(TESTS)

test-all: env ## The test suite with soaks, sweeps and builds, within 60 minutes
	$(BIN)/python -m pytest -m "not gpu"  # one process: the largest step alone takes 23 GiB

lint: env ## ruff, mypy and clang-format, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: env ## ruff and clang-format, in place
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

bench: env ## Benchmark the kernels on this machine
	$(BIN)/hvae bench kernels

# GPU machines are often offline: an interpreter that is named is used as it is, without .venv.
#   make gpu-check PYTHON=python3 WHEELS=folder    wheels of packages that it lacks
gpu-check: $(if $(filter file,$(origin PYTHON)),env) ## Build, test and measure on a GPU machine
	@PYTHON="$(if $(filter file,$(origin PYTHON)),$(BIN)/python,$(PYTHON))" \
	  benchmarks/gpu_check.sh $(if $(WHEELS),--wheels "$(abspath $(WHEELS))")

clean: ## Remove what was built; the next make builds it again (rm -r .venv removes the rest)
	rm -rf build dist hvae.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f hvae/*.so hvae/_build.json $(BUILT)
	find hvae tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
