# `make demo` and `make test` do all their own set-up; everything else builds on the same environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out/demo
RAW ?=
PROFILE ?= mini

SETUP_INPUTS := pyproject.toml constraints.txt requirements-nodeps.txt scripts/setup.sh
SETUP_DONE := $(VENV)/.setup-done

BLENDER_DONE := .venv-blender.setup-done

.PHONY: setup blender demo test coverage test-fast lint bench gpu-check up clean

$(SETUP_DONE): $(SETUP_INPUTS)
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash scripts/setup.sh
	@touch $@

$(BLENDER_DONE): requirements-blender.txt scripts/setup_blender.sh
	@PYTHON="$(PYTHON)" bash scripts/setup_blender.sh
	@touch $@

setup: $(SETUP_DONE)

blender: $(BLENDER_DONE)

demo: setup
	$(BIN)/dwm demo --out "$(OUT)" --profile "$(PROFILE)" $(if $(RAW),--raw "$(RAW)")

test: setup blender
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

coverage: setup blender
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term

test-fast: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks.run_all

gpu-check: setup
	$(BIN)/python -m benchmarks.gpu_check

up: setup
	$(BIN)/dwm up --foreground

clean:
	rm -rf $(VENV) .venv-blender* out .mypy_cache .ruff_cache .pytest_cache .hypothesis
