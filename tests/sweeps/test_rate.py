"""``--rate learned``: a prior at the end of each trial, in a grid and as an objective; runs from before it."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from read_back import Sweep, folder, metrics, without_mlflow

from sweeps.cli import command
from sweeps.pareto import Pareto, spec
from trainables.journal import Journal, JournalReader, RunRecord, read
from trainables.runs import JOURNAL

NEW = ("bits_uniform", "bits_unigram")


def learned(run: RunRecord) -> dict[str, list[int]]:
    """The epochs of each trial that have a learned rate."""
    return {key: [e for e, told in t.epochs.items() if "bits_learned" in told] for key, t in run.trials.items()}


@pytest.mark.slow
def test_a_grid_has_learned_rates_and_an_extended_one_new_ones(out: Path, sweep: Sweep) -> None:
    assert sweep("--name", "learned", "--rate", "learned", "--seeds", "1") == 0
    run = folder(out, "learned")
    before = metrics(run)
    assert list(learned(read(run / JOURNAL)).values()) == [[2], [2]]
    assert "learned prior" in (run / "tables" / "rates.tex").read_text()
    assert 'id="learned-rate"' in (run / "report.html").read_text()

    assert sweep("--resume", "learned", "--epochs", "3") == 0
    assert list(learned(read(run / JOURNAL)).values()) == [[2, 3], [2, 3]]
    assert all(metrics(run)[key][epoch] == told for key, trial in before.items() for epoch, told in trial.items())
    table = pq.read_table(run / "results.parquet").to_pylist()
    assert [row["epoch"] for row in table if row["bits_learned"] is None] == [1, 1]


@pytest.fixture
def pareto(images: Path, out: Path) -> Callable[..., int]:
    """A search for MSE and the learned rate, of real trials in this process; its exit code."""

    def go(*words: str) -> int:
        small = ["--data", str(images), "--epochs", "2", "--codebook-sizes", "8", "16", "--trials", "4", "--seeds", "2"]
        small += ["--batch-size", "32", "--set", "channels=8", "hidden_channels=8", "residual_channels=4", "dim=4"]
        small += ["--objectives", "mse", "bits_learned", "--early-stopping", "none", "--rate", "learned"]
        shared = ["--out", str(out), "--address", "inline"]
        with without_mlflow():
            return command(
                "pareto", ("sweeps.pareto",), Pareto, spec, [*([] if "--resume" in words else small), *shared, *words]
            )

    return go


@pytest.mark.slow
def test_a_search_for_the_learned_rate_finds_its_front_and_resumes(pareto: Callable[..., int], out: Path) -> None:
    """Screened by one seed, then more of them; longer trials are drawn and chosen by their own ends again."""
    assert pareto("--name", "by-rate") == 0
    run = out / "pareto" / "by-rate"
    record = read(run / JOURNAL)
    assert {trial.status for trial in record.trials.values()} == {"completed"}
    assert all(epochs == [2] for epochs in learned(record).values())
    assert {trial.config["seed"] for trial in record.trials.values()} == {0, 1}, "the finalists were chosen by it"
    assert (run / "exports" / "best_bits_learned.toml").is_file()

    assert pareto("--resume", "by-rate", "--trials", "5") == 0
    assert pareto("--resume", "by-rate", "--epochs", "1", "--trials", "6") == 0, "where the others have none"


def test_a_run_keeps_its_rate(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("--name", "kept-rate", "--seeds", "1", "--epochs", "1") == 0
    capsys.readouterr()
    assert sweep("--resume", "kept-rate", "--rate", "learned") == 2
    assert "--rate learned: run kept-rate has unigram, and a run keeps what" in capsys.readouterr().err


def test_a_run_from_before_there_were_such_rates_goes_on(out: Path, sweep: Sweep) -> None:
    """Its flags say nothing of a rate, and its epochs have the entropy alone."""
    assert sweep("--name", "whole-rates", "--seeds", "1", "--epochs", "2") == 0
    assert sweep("--name", "older", "--seeds", "1", "--epochs", "1") == 0
    path = folder(out, "older") / JOURNAL
    events = list(JournalReader(path).new())
    path.unlink()
    journal = Journal(path)
    for event in events:
        if event["event"] == "epoch":
            event["metrics"] = {name: value for name, value in event["metrics"].items() if name not in NEW}
        if event["event"] == "sweep":
            del event["toml"]["flags"]["rate"]
        journal.write(**event)
    journal.close()
    assert sweep("--resume", "older", "--epochs", "2") == 0
    older, whole = metrics(path.parent), metrics(folder(out, "whole-rates"))
    assert older.keys() == whole.keys()
    for key, epochs in whole.items():
        assert older[key][1] == {name: value for name, value in epochs[1].items() if name not in NEW}
        assert older[key][2] == epochs[2]
