# Everything a new machine needs: Python 3.11 or newer, and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check types format docs bench clean

# Bytecode of what is used is kept when it is first used, whatever the shell says: a command then starts in half the time.
export PYTHONDONTWRITEBYTECODE =

# One virtual environment with every version pinned. The stamp is written last, so a broken install is made again. Most of
# what is installed is never used: compiling all of it would take half the time.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)

demo: $(READY)  ## the whole job on a made-up scene: train, map, explain, report
	$(BIN)/landweave demo demo

test: $(READY)  ## the test suite, one process a core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

# Tests wait for processes of theirs now and then; types are checked meanwhile.
check: $(READY)  ## what CI does: format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --jobs 2 --output-sync types test

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

format: $(READY)  ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)  ## the reference of the job file, from the fields themselves
	$(BIN)/python -m workflows.jobtext docs/job.md

bench: $(READY)  ## speed and memory, as ratios taken in one run
	$(BIN)/python benchmarks/table.py

clean:
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
