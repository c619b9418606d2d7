# Two commands do everything on a fresh machine with Python 3.10 or newer:
#   make demo   installs the project into .venv and trains on real data
#   make test   installs what the tests need, too, and runs lint, types, import directions and every test
# Each installs once; it installs again only when pyproject.toml has changed.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test check lint types imports unit soak format fuzz bench kernels-report sanitize clean

demo: .venv/.base
	$(BIN)/gpumlp train digits --hidden 64,32 --epochs 60 --standardise --seed 0

test: check unit

check: lint types imports

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev
	$(BIN)/mypy

imports: .venv/.dev
	$(BIN)/lint-imports

# One BLAS thread a worker, since the workers already fill the cores.
unit: .venv/.dev
	OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

# The tests that take minutes: trainings that are killed dozens of times, and one of 200,000 steps that leaves no trace.
soak: .venv/.dev
	OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -m soak --soak

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Damaged data sets and models by the thousand, five minutes by hypothesis and five by atheris, under limits of memory and
# time. make fuzz ARGS="--kinds t.csv"
fuzz: .venv/.fuzz
	$(BIN)/python tests/fuzz/run.py --seconds 300 $(ARGS)

# What the real NVRTC makes of the kernels; no GPU is needed. make kernels-report ARGS="--arch 75,90 --kernel update"
kernels-report: .venv/.dev
	$(BIN)/python tests/kernels/report.py $(ARGS)

# All suites of gpumlp bench, about twenty minutes with the peers. make bench ARGS="--quick --out build"
bench: .venv/.dev
	$(BIN)/gpumlp bench $(ARGS)

# Trains under NVIDIA's compute-sanitizer; needs a GPU and the CUDA toolkit. make sanitize ARGS="racecheck"
sanitize: .venv/.dev
	$(BIN)/python tests/kernels/sanitize.py $(ARGS)

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "gpumlp needs Python 3.10 or newer, this is " + sys.version)'
	$(PYTHON) -m venv .venv

.venv/.base: pyproject.toml | .venv/bin/python
	$(PIP) --editable .
	touch $@

.venv/.dev: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[test,dev,plot,test-cuda]'
	touch .venv/.base $@

.venv/.fuzz: .venv/.dev
	$(PIP) --editable '.[fuzz]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
