# `make demo` and `make test` set up everything they need in .venv; they want Python 3.11 to 3.13 and make, nothing else.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint pytest docs format lock clean

demo: $(READY)
	$(BIN)/vidkit demo

test: lint pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32
	$(BIN)/lint-imports

# The report is tested in a real browser; on Debian it is installed where it is missing and we may.
pytest: $(READY)
	command -v chromium >/dev/null || (apt-get update -q && apt-get install -q -y chromium)
	# one file's tests stay in one process, which computes with one thread, as there are few cores; in the order that
	# tests/conftest.py gives them, the longest first, or one process would be idle in the end
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not alone' --numprocesses 2 --dist loadfile --no-loadscope-reorder
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m alone

docs: $(READY)
	$(BIN)/python docs/api.py build/docs

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Debian splits venv from Python; where it is missing and we may, it is installed.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || (apt-get update -q && apt-get install -q -y python3-venv)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

# Write constraints.txt anew from what pip resolves today (torch stays at the version pinned there).
lock:
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)" --editable '.[dev]'
	.lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > .lock/constraints.txt
	mv .lock/constraints.txt constraints.txt && rm -rf .lock

clean:
	rm -rf $(VENV) build dist *.egg-info
