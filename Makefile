# make demo: the main job.  make test: the tests.  Both set up .venv on a fresh machine.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
DEMO ?= +workload=beam

.PHONY: demo test test-further lint format bench baseline gallery measure clean

demo: $(VENV)/loops
	$(BIN)/python -m harness $(DEMO)

test: $(VENV)/ready
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m "not further"

# What make test leaves out: more cases of claims that it checks once, as of kernels of further shapes.
test-further: $(VENV)/ready
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m further

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Benchmarks measure; they assert nothing about time.  Compare: make bench BENCH='--benchmark-compare'
bench: $(VENV)/ready
	$(BIN)/python -m pytest -q -o addopts= --benchmark-only --benchmark-autosave $(BENCH) tests

# Rewrites results/baselines from a run of the suite, and prints what changed.
baseline: $(VENV)/ready
	rm -rf build/suite
	$(BIN)/python -m harness +experiment=ci hydra.sweep.dir=build/suite
	$(BIN)/python -m harness.compare.baseline build/suite results/baselines

# Needs Chromium: runs three comparisons and takes pictures of their reports.
gallery: $(VENV)/ready
	$(BIN)/python -m docs.gallery.make

# Needs a GPU: all that wants one, in ten minutes, with records; see docs/gpu.md.
# Without one: make measure MEASURE='device=cpu quick=true'
measure: $(VENV)/ready
	$(BIN)/python -m harness.measure $(MEASURE)

# Modules are compiled when they are first imported, which most of the 15,000 never are.  What is
# compiled is kept, also where the environment says not to: or each process would compile torch anew.
unexport PYTHONDONTWRITEBYTECODE
$(VENV)/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt torch
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e '.[test]'
	@touch $@

# The demo's loops, one for each family of allocators, compiled two at a time: a minute, once.
LOOPS := paged virtual contiguous_max
$(VENV)/loops: $(VENV)/ready $(wildcard harness/engine/compiled/*.py allocators/rules/*.py) harness/cost/flat.py
	@rm -rf build/loops
	@printf '%s\n' $(LOOPS) | xargs -P 2 -I NAME $(BIN)/python -m harness +workload=beam \
		workload.num_requests=3 allocator='[NAME]' engine.compiled=on report=none \
		hydra.run.dir=build/loops/NAME >/dev/null
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
