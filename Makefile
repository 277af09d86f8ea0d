# make demo   set up, then the main job: do balanced brackets teach a tiny model to look things up?
# make test   set up, then every test
# make check  set up, then what CI runs first: format, lint, types, the fast tests
# make bench  set up, then measure speeds
# make bench-gpu  set up, then speed and exactness on a GPU: two parts of ten minutes (docs/benchmarks.md)
# make counts  set up, then count kernels, bytes and host waits of a training step; needs no GPU
# make results  set up, then every laptop recipe: the tables of docs/results/; about six hours on two cores
# make docs   make docs/tasks.md from the task registry
# make site   the documentation as a site: build/site, with strict links
# make fuzz   damaged input for every way in: INPUTS=100000 for each, SEED=0 (docs/guarantees.md)
# make lock   build/lock.txt: what setup would install here, each file by its hash
# make sbom   build/sbom.json: what .venv holds, as CycloneDX
# make audit  known vulnerabilities of the pinned packages

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := .venv-tools
SITE := .venv-site
.DEFAULT_GOAL := help
# Images of containers set this. Without compiled files, each process that tests start compiles the package again.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help setup demo results test check style bench bench-gpu counts docs site fuzz lock sbom audit clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(READY)

# The stamp is written last: an installation that was interrupted is taken up again.
$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): two to four minutes, mostly downloads; later runs skip this."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,report]'
	@touch $@

demo: $(READY)
	@echo "The demo takes seven to eight minutes on two cores. Stopped, 'make demo' goes on where it was."
	@$(BIN)/proctool run recipes/demo.yaml

results: $(READY)
	@echo "Every laptop recipe with its seeds: about six hours on two cores. Stopped, 'make results' goes on where it was."
	@mkdir -p docs/results
	@for name in $(basename $(notdir $(wildcard recipes/laptop/*.yaml))); do \
	    $(BIN)/proctool run recipes/laptop/$$name.yaml || exit; \
	    $(BIN)/proctool report runs/$$name --format markdown > docs/results/$$name.md || exit; \
	done

check: $(READY)
	@echo "Format, lint, types and the fast tests: about two minutes on two cores."
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -n 2 -m 'not slow'

test: $(READY)
	@echo "Every test: under ten minutes on two cores."
	@$(BIN)/python -m pytest -n 2

style: $(READY)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY)
	@echo "Tokens/s of every task, one core and two workers; then training steps. About five minutes on an idle machine."
	@mkdir -p build
	@$(BIN)/python -m benchmarks.tasks --json build/tasks.json
	@$(BIN)/python -m benchmarks.training --steps 14

# Each part ends within ten minutes; on a cluster they can be two jobs: benchmarks.gpu first, then second.
bench-gpu: $(READY)
	@$(BIN)/python -m benchmarks.gpu first second $(if $(TINY),--tiny) --out $(or $(OUT),build/gpu)

counts: $(READY)
	@$(BIN)/python -m benchmarks.counts

docs: $(READY)
	@test -f build/tasks.json || $(MAKE) bench
	@$(BIN)/python -m proctool.procedural.gallery --speeds build/tasks.json > docs/tasks.md

$(SITE)/.ready:
	@$(PYTHON) -m venv $(SITE)
	@$(SITE)/bin/python -m pip install --quiet --disable-pip-version-check 'mkdocs-material>=9.6,<10' 'mkdocstrings[python]>=1.0,<2'
	@touch $@

site: $(SITE)/.ready
	@NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --quiet --strict
	@echo "build/site/index.html"

INPUTS ?= 100000
SEED ?= 0

fuzz: $(READY)
	@echo "$(INPUTS) damaged inputs for every surface: 100000 take about an hour on an idle core."
	@$(BIN)/python -m tests.fuzz --inputs $(INPUTS) --seed $(SEED)

# Tools that look at .venv from outside, so that they are no part of what they describe.
$(TOOLS)/.ready:
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom pip-audit
	@touch $@

sbom: $(READY) $(TOOLS)/.ready
	@mkdir -p build
	@$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o build/sbom.json $(BIN)/python
	@echo "build/sbom.json"

lock: $(READY)
	@$(BIN)/python .ci/lock

audit: $(TOOLS)/.ready
	@$(TOOLS)/bin/python .ci/audit

clean:
	rm -rf $(VENV) $(TOOLS) $(SITE) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
