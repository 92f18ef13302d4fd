# make demo, make check, make test, make ui: each sets up .venv first, once. demo and ui install the main job's packages
# alone; check and test those of the tests too.
PYTHON ?= python3
RUNS ?= runs
PORT ?= 5000
BIN := .venv/bin
# one worker more than CI has cores: many tests wait for a process
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# hundreds of processes are started, and each would compile this project anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo lint check test ui clean

demo: export RUNS_FOLDER := $(RUNS)
demo: .venv/installed
	$(BIN)/python -m sweeps.beta_ablation --betas 0.1 0.5 2 --seeds 2 --epochs 2 --batch-size 32 --learning-rate 1e-3 \
		--decay 0.9 --precision fp32 --out "$$RUNS_FOLDER"

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint
	$(PYTEST) -m "not service and not slow"

# in one run, since each first imports everything in every process, and short files fill what long ones leave
test: lint
	$(PYTEST)

# through the shell's variables, since a path may hold spaces and quotes
ui: export RUNS_FOLDER := $(RUNS)
ui: .venv/installed
	$(BIN)/python -m trainables.mlflow_sender "$$RUNS_FOLDER" --ui --port $(PORT)

# pip runs again only when what is to be installed has changed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable
# pip compiles on one core; not the packages' own tests, and what fails are files that they ship for other Pythons
COMPILE := $(BIN)/python -m compileall -q -j 0 -x /tests/ .venv/lib > /dev/null || true

define INSTALL
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; make PYTHON=python3.12")'
$(PYTHON) -m venv .venv
$(PIP) '.[$(1)]'
$(COMPILE)
touch .venv/installed $@
endef

.venv/installed: pyproject.toml
	$(call INSTALL,codec)

# dev has all of codec: pip looks for what fits together once
.venv/tested: pyproject.toml
	$(call INSTALL,dev)

clean:
	rm -rf .venv
