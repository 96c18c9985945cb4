# `make demo` and `make test` do everything on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test test-slow peers lint format bench wheel-test clean

demo: $(VENV)/.installed
	$(BIN)/pellucid demo --output runs/demo

test: $(VENV)/.installed-dev peers lint
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.installed-dev peers
	$(PYTEST) -m "slow or not slow"

# Debian's programs that some tests need; where they can't be had, those tests are skipped
peers:
	@sh tools/debian_packages.sh orthanc orthanc-dicomweb dcmtk dicom3tools openssl || true
	@sh tools/debian_packages.sh chromium || true

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench_import.py
	$(BIN)/python benchmarks/bench_cam.py
	$(BIN)/python benchmarks/bench_engine.py
	$(BIN)/python benchmarks/bench_perturbation.py
	$(BIN)/python benchmarks/bench_gradient.py
	$(BIN)/python benchmarks/bench_volume.py
	$(BIN)/python benchmarks/bench_precision.py
	$(BIN)/python benchmarks/bench_road.py
	$(BIN)/python benchmarks/bench_metrics.py
	$(BIN)/python benchmarks/bench_dicom.py

wheel-test: $(VENV)/.installed-dev
	PYTHON=$(PYTHON) BUILD=$(BIN)/python sh tools/wheel_test.sh

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,parity]'
	touch $@

clean:
	rm -rf $(VENV) build dist runs
