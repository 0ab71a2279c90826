# `make demo` and `make test` set everything up and do everything; nothing else has to be typed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# cpu, auto, cu126, …: uv's choice of PyTorch builds, for those who reach its index; empty takes the registry's ordinary build
TORCH_BACKEND ?=
# how many processes share the tests; `pytest` itself runs them one after another
WORKERS ?= 2

.PHONY: help setup demo test lint lock clean

help:
	@echo "make demo   set up, then run the main job end to end on a generated cohort (under 5 minutes)"
	@echo "make test   set up, then check style and types and run every test (under 15 minutes on 2 cores; WORKERS=8 for 8)"
	@echo "make setup  set up $(VENV) only"
	@echo "make lock   resolve requirements.lock anew"
	@echo "make clean  remove $(VENV), the demo and caches"

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is " + v)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
ifeq ($(TORCH_BACKEND),)
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
else
	$(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend $(TORCH_BACKEND) --no-verify-hashes --constraint requirements.lock --extra dev --extra ray --requirement pyproject.toml
endif
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/radtransfer demo

test: setup lint
	sh tests/system-packages.sh
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: setup
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --extra dev --extra ray --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) demo-workspace build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
