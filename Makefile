# Needs only make and Python 3.11 or newer: the environment is made in .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help quickstart reproduce test test-core test-all mutations check format docs bench clean

help:  ## list the targets
	@grep -hE '^[.a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "%-12s %s\n", $$1, $$2}'

quickstart: $(STAMP)  ## the whole pipeline on a tiny model: warm start, GRPO++, SFT, pairs, DPO (about 13 minutes)
	$(BIN)/python -m dermiq.quickstart

# STUDY=small is the headline alone; DATA is the folder that holds ham10000/
STUDY ?= full
DATA ?= data
PUBLISH = $(if $(filter full,$(STUDY)),docs/study,runs/study/$(STUDY)/study)

reproduce: $(STAMP)  ## the study of docs/study.md (3 hours; STUDY=small: 20 minutes), resumable
	$(BIN)/python -m study --scale $(STUDY) --data $(DATA) --publish $(PUBLISH)

# The tests beside the sources of these packages; a new one there is among them
CORE = tests/objectives tests/policy tests/rewards tests/metrics tests/kg

test-core: $(STAMP)  ## run the fast tests of objectives, policy, rewards, metrics and graph (under 2 minutes)
	$(BIN)/python -m pytest $(CORE) -m "not slow" --numprocesses=2 --dist=loadfile --no-loadscope-reorder

test: $(STAMP)  ## run the fast tests (about 6 minutes)
	$(BIN)/python -m pytest -m "not slow" --numprocesses=2 --dist=loadfile --no-loadscope-reorder

test-all: $(STAMP)  ## run every test (about 25 minutes)
	$(BIN)/python -m pytest

mutations: $(STAMP)  ## break lines of the training code one at a time: a test notices each
	$(BIN)/python tests/mutation_check.py

check: $(STAMP)  ## lint, format, types and layers (about 1 minute)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## rewrite the sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)  ## build the documentation into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "To read it at http://127.0.0.1:8000: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

bench: $(STAMP)  ## GRPO, SFT and DPO against TRL, and where a step goes; with plots (about 45 minutes)
	$(BIN)/python benchmarks/versus_trl.py --suite cpu
	$(BIN)/python benchmarks/sft_step.py --out benchmarks/results/sft_step_cpu.json
	$(BIN)/python benchmarks/dpo_step.py --out benchmarks/results/dpo_step_cpu.json
	$(BIN)/python benchmarks/worth.py --out benchmarks/results/worth.json
	$(BIN)/python benchmarks/profile_step.py --out benchmarks/results/profile_step.json
	$(BIN)/python benchmarks/plot.py benchmarks/results/versus_trl_cpu.json --out docs/images

clean:  ## remove the environment and the tools' caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.venv: $(STAMP)  ## make the environment with the pinned versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "DermIQ needs Python 3.11 or newer, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make $(or $(MAKECMDGOALS),test) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
