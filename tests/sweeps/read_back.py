"""What a run of ``beta_ablation`` left behind, for tests to compare."""

from collections.abc import Callable
from pathlib import Path

from trainables.journal import read

Sweep = Callable[..., int]
InEpoch = Callable[[int, Callable[[], None]], None]
Numbers = dict[str, dict[int, dict[str, float]]]


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
