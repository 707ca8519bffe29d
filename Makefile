# make demo | test | test-examples | test-slow | test-oldest | test-newest | test-ecosystem | lint | bench | docs | lock | clean       (one virtual environment, .venv, made on first use)
PYTHON ?= python3
OLDEST ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install -q --only-binary :all:
LOCKED := -c constraints/locked.txt
TORCH ?= $(shell sed -n '/^torch==/p' constraints.txt)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-examples test-slow test-oldest test-newest test-ecosystem lint format bench docs lock clean
.DEFAULT_GOAL := help

help:
	@sed -n '1s/^# //p' Makefile

$(VENV)/.base: pyproject.toml $(wildcard constraints/*.txt)
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(LOCKED) setuptools
	$(PIP) $(LOCKED) --no-build-isolation -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) $(LOCKED) --no-build-isolation -e '.[dev]'
	@touch $@

demo: $(VENV)/.base
	$(PY) examples/demo.py

test: $(VENV)/.dev
	$(PY) -m pytest -n 2 --dist loadfile

test-examples: $(VENV)/.dev
	$(PY) -m pytest -m examples -n 2 tests/test_examples.py

test-slow: $(VENV)/.dev
	$(PY) -m pytest -m slow

test-oldest:
	$(MAKE) test PYTHON=$(OLDEST) VENV=.venv-oldest LOCKED='-c constraints/oldest.txt'

test-newest:
	rm -f .venv-newest/.base
	$(MAKE) test VENV=.venv-newest LOCKED='--upgrade --upgrade-strategy eager $(TORCH)'

test-ecosystem: $(VENV)/.base
	$(PY) tests/ecosystem/run.py $(CLIENTS)

lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(VENV)/.dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(VENV)/.dev
	$(PY) -m benchmarks.run $(if $(PAIRS),--pairs $(PAIRS))
	$(PY) -m benchmarks.cluster

docs: $(VENV)/.dev
	$(PIP) $(LOCKED) --no-build-isolation -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

COMPILE := -m uv pip compile -q pyproject.toml --extra demo --extra dev --extra docs --only-binary :all: --no-annotate \
	--no-emit-package sentence-transformers --custom-compile-command 'make lock' --python-version 3.11 --upgrade

lock: $(VENV)/.base
	$(PIP) uv
	$(PY) $(COMPILE) --universal -c constraints.txt -o constraints/locked.txt
	$(PY) $(COMPILE) --python-platform x86_64-manylinux_2_34 --resolution lowest-direct -o constraints/oldest.txt

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .venv-bench .venv-6.2.0 .cache build site
