# Works on a fresh machine with Python 3.11 or newer, git and make: everything goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-long lint chaos clean

demo: $(VENV)/installed
	$(BIN)/tenfold news demo --out demo/news
	$(BIN)/tenfold fpcb run --panels 1000 --out demo/fpcb
	$(BIN)/tenfold fpcb report demo/fpcb/data

test: $(VENV)/installed-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The slowest: mixed clusters in network namespaces, whole runs on S3, a real Prometheus.
test-long: $(VENV)/installed-tests
	$(BIN)/python -m pytest -m long

# 200 faults, and what came of them; stopped with Ctrl-C, it goes on where it was.
chaos: $(VENV)/installed-tests
	$(BIN)/python tests/chaos --kills 200 --seed 0 --out chaos-results

lint: $(VENV)/installed-tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[fpcb]'
	touch $@

$(VENV)/installed-tests: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[test,lint,korean,fpcb,mlx]'
	touch $@

clean:
	rm -rf $(VENV) build demo runs chaos-results *.egg-info
