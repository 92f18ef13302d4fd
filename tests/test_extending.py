"""The tasks of docs/extending.md, each done once."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from analysis.figures import FIGURES, style, write_figures
from analysis.objectives import METRICS, Metric, objectives
from analysis.parquet import write_parquet
from analysis.results import Results, load
from analysis.tables import rates_table
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
    table = rates_table(results)
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
