# make quickstart | check | test | proofs | results | docs.  TORCH_INDEX=URL names another index for torch.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
TORCH_FROM = $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

# Python keeps what it has compiled, also where a shell forbids that: every process would compile all files again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: quickstart check types quick format test proofs results tables docs clean

quickstart: $(VENV)/run
	$(BIN)/metarep quickstart

check: $(VENV)/dev
	$(BIN)/ruff format --check src tests benchmarks examples tools hatch_build.py
	$(BIN)/ruff check src tests benchmarks examples tools hatch_build.py
	$(MAKE) --jobs=2 types quick

# Beside each other, because the type checker uses one core.
types:
	$(BIN)/pyright --pythonpath $(BIN)/python

quick:
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not slow and not proof"

format: $(VENV)/dev
	$(BIN)/ruff format src tests benchmarks examples tools hatch_build.py
	$(BIN)/ruff check --fix src tests benchmarks examples tools hatch_build.py

test: $(VENV)/test
	$(BIN)/pytest -n 2 --dist worksteal --jaxtyping-packages=metarep,typechecker.check -m "not proof"

proofs: $(VENV)/dev
	$(BIN)/pytest -m proof -rs

# The rows of results/*.csv, from nothing: all recipes, which take a day on two cores, or make results ROW=protonet-omniglot.
# Timings: python benchmarks/NAME.py --out FILE.
ROW ?= $(notdir $(basename $(wildcard src/metarep/experiments/recipes/*.toml)))

results: $(VENV)/run
	for recipe in $(ROW); do $(BIN)/metarep reproduce $$recipe || exit 1; done

# The tables of the README and the docs, from results/*.csv.
tables: $(VENV)/run
	$(BIN)/python -m tools.tables.fill README.md README.zh-CN.md docs/*.md docs/methods/*.md docs/zh/*.md
	$(BIN)/python -m tools.rooms

# The site, in build/site; open build/site/index.html. A broken link or an undocumented public name fails.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# Torch goes first and on its own, so that its index is asked for nothing else.
$(VENV)/torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH_FROM) $$(grep '^torch==' constraints.txt)
	touch $@

$(VENV)/run: $(VENV)/torch pyproject.toml hatch_build.py $(wildcard src/metarep/fast/c/*.[ch])
	$(PIP) --editable .
	touch $@

$(VENV)/test: $(VENV)/run
	$(PIP) --editable '.[test]'
	touch $@

$(VENV)/dev: $(VENV)/test
	$(PIP) --editable '.[dev]'
	touch $@

$(VENV)/docs: $(VENV)/run
	$(PIP) --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) dist build
