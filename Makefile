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

# one worker: 1 ms a request, where several take 44; no job processes: 8 x 226 MB; points in bulk (docs/tracking.md)
ui: .venv/installed
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --host 127.0.0.1 --port $(PORT) --workers 1 --app-name vqsweep \
		--backend-store-uri sqlite:///$(abspath $(RUNS))/mlflow.db --artifacts-destination $(abspath $(RUNS))/mlartifacts

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
