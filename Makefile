# make demo         train and evaluate a small detector on generated images
# make test         the test suite, without the tests marked slow
# make test-slow    the tests marked slow
# make test-extras  tests of optional packages (openvino, nncf, tritonclient, tidecv, lvis), of a browser
#                   (chromium) and of fresh environments
# make test-gpu     the tests that need a CUDA device; without one they are skipped
# make lint         ruff, mypy, and the contract of which room may import which
# make release      build wheel and source distribution, and test the wheel (tools/release.sh)
# make docs         the documentation, in site/
# make docs-test    what the documentation's pages say: their commands, their links
# make setup        only the environment
# make clean        remove the environment and the caches
#
# Each makes the virtual environment .venv first if it is missing or out of date. Variables:
#   PYTHON=python3.12          the Python to make it with (3.10 or newer)
#   TORCH="torch==2.4.1 ..."   the PyTorch and torchvision to install in it

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
TORCH ?= torch torchvision
PYTEST_FLAGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# One thread for each test process: more only get into each other's way. Bytecode is kept, whatever
# the environment says: tests start hundreds of processes, each of which would compile the package.
TEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest $(PYTEST_FLAGS)
# Tests beside abandoned packages that are right: they ask for more than is installed in `test`.
ORACLES := tests/analysis/test_error_types.py tests/evaluation/test_federated.py

.PHONY: help demo test test-slow test-extras test-gpu lint docs docs-test release setup clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^$$/,$$d'

demo: $(STAMP)
	@$(BIN)/python tools/run_demo.py

test: $(STAMP)
	@$(TEST) -n 2 -m "not slow" $(if $(CI),--require-golden)

test-slow: $(STAMP)
	@$(TEST) -n 2 -m "slow and not extra" --timeout 1200

test-extras: $(STAMP)
	@$(BIN)/python -m pip install --quiet openvino nncf playwright "tritonclient[grpc]"
	@$(BIN)/python -m pip install --quiet --no-deps tidecv==1.0.1 lvis==0.5.3
	@$(TEST) -m extra --timeout 1200
	@$(TEST) -rs $(ORACLES)

test-gpu: $(STAMP)
	@$(TEST) -m gpu -rs --timeout 1200

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "The documentation is in site/: open site/index.html."

docs-test: $(STAMP)
	@$(TEST) tests/docs --timeout 1200

release:
	@tools/release.sh

setup: $(STAMP)
	@echo "The environment in $(VENV) is ready."

$(STAMP): pyproject.toml setup.py $(wildcard projects/vfnet_yolof/installer/*.py)
	@PYTHON="$(PYTHON)" tools/make_venv.sh "$(VENV)" $(TORCH)
	@touch $@

clean:
	rm -rf $(VENV) build site .pytest_cache .ruff_cache .mypy_cache
