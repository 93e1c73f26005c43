# One virtual environment, made once and again whenever what it is made from changes.
PYTHON ?= $(or $(shell command -v python3.11),python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA ?=

.PHONY: install test test-full lint types doctest wheel demo bench golden clean

install: $(STAMP)

# torch first and pinned: left to itself, pip would bring the newest build with several GB of CUDA packages.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

# Two processes with a thread each: two threads in each would wait for one another most of the time.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-full: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "slow or not slow"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

doctest: $(STAMP)
	$(BIN)/python -m pytest -q --doctest-modules monai_deepfixcx

# The wheel must work where only its own requirements are installed.
wheel: $(STAMP)
	rm -rf build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel .
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	build/wheel/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build/wheel/*.whl
	cd build/wheel && venv/bin/deepfixcx doctor && venv/bin/deepfixcx --help > /dev/null

demo: $(STAMP)
	$(BIN)/deepfixcx demo $(if $(DATA),--data "$(DATA)")

# README's and docs' figures, about two hours on 2 cores. Run it on a quiet machine.
bench: $(STAMP)
	$(BIN)/python -W ignore -m benchmarks.training_speed
	$(BIN)/python -W ignore -m benchmarks.accuracy_nih
	$(BIN)/python -W ignore -m benchmarks.accuracy_phantom
	$(BIN)/python -W ignore -m benchmarks.encode_speed
	$(BIN)/python -W ignore -m benchmarks.encode_gpu
	$(BIN)/python -W ignore -m benchmarks.end_to_end
	$(BIN)/python -W ignore -m benchmarks.scaling
	$(BIN)/python -W ignore -m benchmarks.attribution_speed
	$(BIN)/python -W ignore -m benchmarks.attack_speed
	$(BIN)/python -W ignore -m benchmarks.attacks_nih
	$(BIN)/python -W ignore -m benchmarks.private_training
	$(BIN)/python -m benchmarks.tables

golden: $(STAMP)
	$(BIN)/python -m tests.make_golden

clean:
	rm -rf $(VENV) build dist demo-out demo-out-private *.egg-info
