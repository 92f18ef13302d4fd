"""The tasks of docs/extending.md, each done once."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from analysis.figures import FIGURES, style, write_figures
from analysis.objectives import METRICS, Metric, objectives
from analysis.parquet import write_parquet
from analysis.results import Results, load
from analysis.tables import losses_table
from trainables.journal import Journal
from vqcore.config import TrialConfig


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of one trial that reported a metric besides the usual ones."""
    journal = Journal(tmp_path / "journal.jsonl")
    config = TrialConfig().flat()
    journal.write("sweep", sweep="pareto", name="run", id="1", swept=["estimator"], trials=1)
    journal.write("start", trial="0123456789ab", number=0, config=config)
    metrics = {"mse": 0.5, "perplexity": 20.0, "usage": 0.5, "lpips": 0.25, "train_lpips": 0.2}
    journal.write("epoch", trial="0123456789ab", epoch=1, metrics=metrics)
    journal.write("end", trial="0123456789ab", epoch=1, status="completed", reason="")
    journal.close()
    return tmp_path


def test_a_metric(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "lpips", Metric("lpips", "LPIPS", "perceptual distance to the original", "min"))
    (objective,) = objectives(["lpips"])
    assert (objective.best, objective.metric.label) == (
        "lowest LPIPS",
        "LPIPS: perceptual distance to the original, whole test set",
    )
    results = load(run)
    table = losses_table(results)
    assert dict(zip(table.columns, table.rows[0], strict=True))["LPIPS"] == "0.2500"
    units = json.loads(pq.read_schema(write_parquet(results)).metadata[b"units"])
    assert units["train_lpips"] == "perceptual distance to the original; training set, during the epoch"


def test_a_figure(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(results: Results) -> Figure | None:
        figure = Figure()
        axes = figure.subplots()
        axes.bar([group.label for group in results.groups], [group.mean("usage") for group in results.groups])
        style.finish(axes, "", "usage, whole test set")
        return figure

    monkeypatch.setitem(FIGURES, "usage", usage)
    assert run / "figures" / "usage.png" in write_figures(load(run))


def test_a_sweep_of_ones_own(tmp_path: Path) -> None:
    """The script of the page, as it stands there."""
    root = Path(__file__).parents[1]
    page = (root / "docs" / "extending.md").read_text(encoding="utf-8")
    script = re.search(r"```python\n(# my_sweep\.py.*?)```", page, re.DOTALL)
    assert script is not None
    (tmp_path / "my_sweep.py").write_text(script[1])
    words = (
        "my_sweep.py --betas 0.1 1 --address inline --epochs 1 --trials 1 --name own --tracking-uri http://127.0.0.1:9"
    )
    small = "--codebook-size 8 --batch-size 512 --set channels=4 hidden_channels=8 residual_channels=4 dim=4"
    variables = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, *words.split(), *small.split()], cwd=tmp_path, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trials = load(tmp_path / "runs" / "my_sweep" / "own").record.trials.values()
    assert sorted(str(trial.config["estimator"]) for trial in trials) == ["rotation", "ste"]


def test_a_stopping_rule() -> None:
    """The rule of the page, as it stands there, over the recorded grid: it finishes few trials, of low MSE."""
    root = Path(__file__).parents[1]
    page = (root / "docs" / "extending.md").read_text(encoding="utf-8")
    snippet = re.search(r"```python\n(   from pathlib.*?)```", page, re.DOTALL)
    assert snippet is not None
    made: dict[str, Any] = {}
    exec(textwrap.dedent(snippet[1]).replace('"benchmarks/', f'"{root}/benchmarks/'), made)
    curves, finished = made["curves"], made["finished"]
    assert made["steps"][-1].spent < 0.35 * sum(len(curve.epochs) for curve in curves)
    best = min(curve.final["mse"] for curve in curves)
    assert min(curve.final["mse"] for curve in curves if curve.key in finished) < 1.02 * best
