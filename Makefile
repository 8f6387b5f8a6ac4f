# Everything runs in .venv, which is made at the first use. PYTHON=python3.12 make demo picks another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= demo
KILLS ?= 1000
# The demo fails where the judge says no; VERDICT= only reports what it says.
VERDICT ?= --exit-code

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow soak bench docs lint clean-demo

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## creates .venv and installs the project into it

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[natural,dev]'
	touch $@

demo: $(STAMP) clean-demo  ## inverts a playground prompt and "volcano"; fails if the judge says no
	$(BIN)/refcore invert "a red circle left of a blue square" --preset playground --seed 0 --out $(OUT)/playground
	$(BIN)/refcore invert volcano --preset natural --seed 0 --out $(OUT)/natural
	@echo "pictures: $(OUT)/playground/image_0.png $(OUT)/natural/image_0.png"
	@echo "open in a browser: $(OUT)/playground/report.html $(OUT)/natural/report.html"
	@$(BIN)/refcore judge $(VERDICT) $(OUT)/playground/image_0.png "a red circle left of a blue square"

# A run never writes over another one, so the demo's own folders make room first.
clean-demo:
	@rm -rf $(OUT)/playground $(OUT)/natural

test: $(STAMP)  ## the fast tests
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(STAMP)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

soak: $(STAMP)  ## kills a thousand runs at random and goes on with them; KILLS=60 for fewer
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak/kills.py --kills $(KILLS)

bench: $(STAMP)  ## memory and speed, in paired ratios; BENCH=--short for a first impression
	$(BIN)/python -m performance $(BENCH)

# The variable turns off mkdocs-material's notice about the future of mkdocs, which is no warning about these pages.
docs: $(STAMP)  ## builds the documentation into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html"

lint: $(STAMP)  ## ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
