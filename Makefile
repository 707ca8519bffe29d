# make demo | test | test-examples | test-slow | test-ecosystem | lint | bench | docs | clean       (one virtual environment, .venv, made on first use)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-examples test-slow test-ecosystem lint format bench docs clean
.DEFAULT_GOAL := help

help:
	@sed -n '1s/^# //p' Makefile

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.base
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-examples: $(VENV)/.dev
	$(BIN)/python -m pytest -m examples -n 2 tests/test_examples.py

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

test-ecosystem: $(VENV)/.base
	$(BIN)/python tests/ecosystem/run.py $(CLIENTS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.run $(if $(PAIRS),--pairs $(PAIRS))
	$(BIN)/python -m benchmarks.cluster

docs: $(VENV)/.dev
	$(BIN)/pip install -q 'mkdocs-material>=9.5' 'mkdocstrings[python]>=0.27'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .venv-bench .venv-6.2.0 .cache build site
