# make demo, make test, make ui: each sets up .venv first, once.
PYTHON ?= python3
RUNS ?= runs
PORT ?= 5000
BIN := .venv/bin

# hundreds of processes are started, and each would compile this project anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test ui clean

demo: .venv/installed
	$(BIN)/python -m sweeps.beta_ablation --epochs 2 --batch-size 8 --learning-rate 1e-3 --decay 0.9 --out $(RUNS)

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# through the shell's variables, since a path may hold spaces and quotes
ui: export RUNS_FOLDER := $(RUNS)
ui: .venv/installed
	$(BIN)/python -m trainables.mlflow_sender "$$RUNS_FOLDER" --ui --port $(PORT)

# pip runs again only when what is to be installed has changed
.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	# pip compiles on one core; what is left are files that packages ship for other Pythons
	$(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null || true
	touch $@

clean:
	rm -rf .venv
