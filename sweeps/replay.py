"""Any scheduler over recorded curves, on a simulated clock with simulated slots: in seconds, without training or Ray.

It answers "would this early stopping have kept the front, and what would it have cost?" before a sweep is begun, and
is how schedulers are tested and chosen.
"""

import heapq
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from analysis.results import load
from sweeps.engine.slices import Slice
from trainables.data import DataSet
from trainables.journal import RunRecord
from trainables.trial import TrialJob
from vqcore.config import FIELDS, ConfigError, Scalar, TrialConfig

Metrics = Mapping[str, float]

_NOWHERE = DataSet("replay", "0" * 16, "nowhere", 0, 0, 0)


@dataclass(frozen=True)
class Curve:
    """A trial that was trained to its budget: what each of its epochs reported."""

    key: str
    config: Mapping[str, Scalar]
    """Flat."""
    epochs: tuple[Metrics, ...]
    """Metrics after epoch 1, 2, ..."""

    @property
    def final(self) -> Metrics:
        """After the last epoch."""
        return self.epochs[-1]

    def job(self, number: int) -> TrialJob:
        """As the engine hands it out."""
        config = TrialConfig.from_flat({**self.config, "epochs": len(self.epochs)})
        return TrialJob(self.key, number, config, _NOWHERE, Path("nowhere"))


class Scheduler(Protocol):
    """Who gets a free slot: ``sweeps.engine.slices.Slices``, or a peer in its clothes."""

    def next(self) -> Slice | None:
        """The next slice; None while there is none."""

    def returned(self, key: str, epoch: int, ended: bool, metrics: Metrics) -> object:
        """A slice is over."""


@dataclass(frozen=True)
class Step:
    """A slice of a replay that is over."""

    time: float
    """Simulated seconds since the start."""
    spent: int
    """Epochs trained by all trials until then."""
    key: str
    epoch: int
    """Of the trial."""
    complete: bool
    """Whether the trial reached its budget."""


def replay(curves: Iterable[Curve], scheduler: Scheduler, slots: int) -> list[Step]:
    """Run ``scheduler`` over ``curves`` until it hands out nothing more; the slices in the order they ended.

    An epoch takes the ``seconds`` that it recorded, or 1. ``scheduler`` knows the curves' jobs already.
    """
    known = {curve.key: curve for curve in curves}
    reached = dict.fromkeys(known, 0)
    busy: list[tuple[float, int, Slice]] = []
    steps: list[Step] = []
    now, spent, begun = 0.0, 0, 0
    while True:
        while len(busy) < slots and (piece := scheduler.next()) is not None:
            key, begun = piece.job.key, begun + 1
            work = known[key].epochs[reached[key] : piece.until]
            heapq.heappush(busy, (now + sum(epoch.get("seconds", 1.0) for epoch in work), begun, piece))
        if not busy:
            return steps
        now, _, piece = heapq.heappop(busy)
        key, curve = piece.job.key, known[piece.job.key]
        spent += piece.until - reached[key]
        reached[key] = piece.until
        complete = piece.until == len(curve.epochs)
        scheduler.returned(key, piece.until, complete, curve.epochs[piece.until - 1])
        steps.append(Step(now, spent, key, piece.until, complete))


def shuffled(curves: Sequence[Curve], seed: int) -> list[tuple[Curve, TrialJob]]:
    """The curves as jobs, in an order drawn with ``seed``."""
    order = random.Random(seed).sample(list(curves), len(curves))
    return [(curve, curve.job(number)) for number, curve in enumerate(order)]


def recorded(path: Path) -> tuple[Curve, ...]:
    """The complete curves of a run's folder, or of its ``results.parquet``. ``ConfigError`` if there are none."""
    curves = _of_parquet(path) if path.is_file() else _of_run(load(path).record)
    longest = max((len(curve.epochs) for curve in curves), default=0)
    complete = tuple(curve for curve in curves if len(curve.epochs) == longest)
    if not complete:
        raise ConfigError([f"{path}: holds no trial that was trained to its budget; record a grid first"])
    return complete


def _of_run(run: RunRecord) -> list[Curve]:
    trials = [trial for trial in run.trials.values() if trial.status == "completed"]
    return [Curve(t.key, t.config, tuple(t.epochs[e] for e in sorted(t.epochs))) for t in trials]


def _of_parquet(path: Path) -> list[Curve]:
    import pyarrow.parquet as pq

    curves: dict[str, Curve] = {}
    for row in sorted(pq.read_table(path).to_pylist(), key=lambda row: (row["trial"], row["epoch"])):
        config = {name: row[name] for name in FIELDS if name in row and name != "epochs"}
        metrics = {name: value for name, value in row.items() if isinstance(value, float) and name not in FIELDS}
        before = curves.get(row["trial"], Curve(row["trial"], config, ()))
        curves[row["trial"]] = replace(before, epochs=(*before.epochs, metrics))
    return list(curves.values())
