# Everything runs in .venv, which is made at the first use. PYTHON=python3.12 make demo picks another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= demo
KILLS ?= 1000
CASES ?= 100000
# Records of the soaks; remove them to begin anew.
SOAK ?= runs/soak
# The demo fails where the judge says no; VERDICT= only reports what it says.
VERDICT ?= --exit-code

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow soak soak-kills soak-fuzz bench docs lint audit sbom clean-demo
# Tools that look at an environment from outside, in one of their own.
AUDIT := .venv-audit
AUDIT_STAMP := $(AUDIT)/.installed

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

soak: soak-kills soak-fuzz  ## a thousand kills, and a hundred thousand inputs: hours; the same command continues

soak-kills: $(STAMP)  ## kills a thousand runs at random and goes on with them; KILLS=60 for fewer
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak/kills.py --kills $(KILLS) --record $(SOAK)/kills.json

soak-fuzz: $(STAMP)  ## throws a hundred thousand new inputs at the command line; CASES=2000 for a first impression
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak/inputs.py --cases $(CASES) --record $(SOAK)/inputs.json

bench: $(STAMP)  ## memory and speed, in paired ratios; BENCH=--short for a first impression
	$(BIN)/python -m performance $(BENCH)

# The variable turns off mkdocs-material's notice about the future of mkdocs, which is no warning about these pages.
docs: $(STAMP)  ## builds the documentation into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html"

$(AUDIT_STAMP):
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet 'pip-audit>=2.7' 'cyclonedx-bom>=5.1'
	touch $@

# Strict: a package index without the service of known vulnerabilities fails, and does not look like a clean result.
audit: $(STAMP) $(AUDIT_STAMP)  ## known vulnerabilities of the installed packages; needs the network
	$(AUDIT)/bin/pip-audit --strict --skip-editable --path "$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')"

sbom: $(STAMP) $(AUDIT_STAMP)  ## sbom.cdx.json (CycloneDX) and licences.md of all installed packages
	$(AUDIT)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --mc-type library --of JSON -o sbom.cdx.json
	$(BIN)/python .ci/licences.py sbom.cdx.json > licences.md

lint: $(STAMP)  ## ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
