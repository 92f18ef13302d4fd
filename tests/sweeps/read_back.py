"""Small sweeps of ``beta_ablation``, and what they left behind, for tests to compare."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trainables.journal import read
from trainables.tracking import Tracker

TINY = ("channels=8", "hidden_channels=16", "residual_channels=4")
SMALL = ("--codebook-size", "16", "--batch-size", "32", "--epochs", "2", "--seeds", "2", "--set", *TINY)

Sweep = Callable[..., int]
Driver = Callable[[str], "subprocess.Popen[str]"]
InEpoch = Callable[[int, Callable[[], None]], None]
Numbers = dict[str, dict[int, dict[str, float]]]


@contextmanager
def without_mlflow() -> Iterator[None]:
    """Sweeps in this process tell MLflow nothing: its client takes seconds to import, in a process for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "start", lambda tracker: None)
        yield


def folder(out: Path, name: str) -> Path:
    return out / "beta_ablation" / name


def metrics(run: Path) -> Numbers:
    """Every epoch's metrics of every trial, but for the time it took."""
    return {
        key: {epoch: {n: v for n, v in m.items() if n != "seconds"} for epoch, m in trial.epochs.items()}
        for key, trial in read(run / "journal.jsonl").trials.items()
    }


def ctrl_c() -> None:
    raise KeyboardInterrupt
