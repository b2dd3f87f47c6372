# One command each: demo, test, check, bench. Each sets up what it needs in .venv; nothing but Python 3.11+ and make is required.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
WORKERS ?= auto

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check format bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "dovetail needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

# pytorchcv asks for torchvision, which has no CPU build to go with the pinned torch and breaks transformers' imports; the modules
# that the tests import do without it.
$(VENV)/.dev: $(VENV)/.base
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps pytorchcv
	touch $@

setup: $(VENV)/.dev ## create .venv with everything a developer needs

demo: $(VENV)/.base ## train a small network on handwritten digits, search it, show the results
	$(BIN)/dovetail train examples/demo.toml
	$(BIN)/dovetail search examples/demo.toml --out runs/demo/search
	@echo "Look at it again with: $(BIN)/dovetail show runs/demo/search"

test: $(VENV)/.dev ## run the tests that are fast
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" --doctest-modules src tests

test-slow: $(VENV)/.dev ## run the tests that take longer
	$(BIN)/python -m pytest -n $(WORKERS) -m slow tests

check: $(VENV)/.dev ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## let ruff format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## measure what is claimed, beside its baseline
	$(BIN)/python -m benchmarks

clean: ## remove the environment and what the tools leave behind
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
