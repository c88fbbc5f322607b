PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: run test test-slow lint docs bench clean

run: .venv/cli.stamp
	$(BIN)/acclimate run source bn tent palm --stream digits:continual

test: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal

test-slow: .venv/dev.stamp
	$(BIN)/python -m pytest -m slow

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

docs: .venv/dev.stamp
	$(BIN)/python docs/make_methods.py
	$(BIN)/python docs/make_openapi.py

bench: .venv/dev.stamp
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.corruptions

clean:
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("acclimate needs Python 3.11 or newer, found " + sys.version.split()[0] + ". Call make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv

.venv/cli.stamp: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[cli]'
	touch $@

.venv/dev.stamp: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	touch $@ .venv/cli.stamp
