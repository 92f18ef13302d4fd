"""Any scheduler over recorded curves, on a simulated clock with simulated slots: in seconds, without training or Ray.

It answers "would this early stopping have kept the front, and what would it have cost?", and is how schedulers are
tested and chosen (``python -m benchmarks.early_stopping``).
"""

import heapq
import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Protocol

import pyarrow.parquet as pq

from trainables.data import DataSet
from trainables.job import TrialJob
from vqcore.config import FIELDS, ConfigError, Scalar, TrialConfig

Metrics = Mapping[str, float]


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


class Scheduler(Protocol):
    """A ``sweeps.engine.queue.TrialQueue``, or an adapter of a peer's scheduler."""

    def next(self) -> str | None:
        """The key of the trial that gets the next slot; None while no slot is free, or no trial may have it."""

    def begin(self, key: str) -> object:
        """Give it the slot."""

    def on_result(self, key: str, epoch: int, metrics: Metrics) -> bool:
        """Whether the trial keeps its slot after this epoch."""

    def ended(self, key: str) -> None:
        """Take note that a trial has had its last epoch."""


@dataclass(frozen=True)
class Step:
    """The moment of a replay at which a trial gave up its slot."""

    time: float
    """Simulated seconds since the start."""
    spent: int
    """Epochs trained by all trials until then."""
    key: str
    epoch: int
    """Of the trial."""
    complete: bool
    """Whether the trial has had its last epoch."""


def replay(curves: Iterable[Curve], scheduler: Scheduler) -> list[Step]:
    """Run ``scheduler`` over ``curves`` until it gives no slot any more; in the order of the simulated clock.

    An epoch takes the ``seconds`` that it recorded, or 1. ``scheduler`` has the curves' jobs already.
    """
    epochs = {curve.key: curve.epochs for curve in curves}
    reached = dict.fromkeys(epochs, 0)
    running: list[tuple[float, int, str]] = []
    steps: list[Step] = []
    now, spent, order = 0.0, 0, itertools.count()

    def train(key: str) -> None:
        heapq.heappush(running, (now + epochs[key][reached[key]].get("seconds", 1.0), next(order), key))

    while True:
        while (following := scheduler.next()) is not None:
            scheduler.begin(following)
            train(following)
        if not running:
            return steps
        now, _, key = heapq.heappop(running)
        spent, reached[key] = spent + 1, reached[key] + 1
        complete = reached[key] == len(epochs[key])
        goes_on = scheduler.on_result(key, reached[key], epochs[key][reached[key] - 1])
        if complete:
            scheduler.ended(key)
        if goes_on and not complete:
            train(key)
        else:
            steps.append(Step(now, spent, key, reached[key], complete))


def shuffled(curves: Sequence[Curve], seed: int) -> list[TrialJob]:
    """The jobs of the curves, as the engine hands them out, in an order drawn with ``seed``."""
    data = DataSet("replay", "0" * 16, "nowhere", 0, 0, 0)
    jobs = []
    for number, curve in enumerate(random.Random(seed).sample(curves, len(curves))):
        config = TrialConfig.from_flat({**curve.config, "epochs": len(curve.epochs)})
        jobs.append(TrialJob(curve.key, number, config, data, "nowhere"))
    return jobs


def recorded(path: Path) -> tuple[Curve, ...]:
    """The complete curves of a run's ``results.parquet``. ``ConfigError`` if there are none."""
    if not path.exists():
        raise ConfigError([f"{path}: no such file; make it with `python -m analysis.report` on its run"])
    rows = sorted(pq.read_table(path).to_pylist(), key=itemgetter("trial", "epoch"))
    curves = []
    for key, group in itertools.groupby(rows, itemgetter("trial")):
        epochs = list(group)
        config = {name: epochs[0][name] for name in FIELDS if name in epochs[0] and name != "epochs"}
        metrics = [{n: v for n, v in row.items() if isinstance(v, float) and n not in FIELDS} for row in epochs]
        curves.append(Curve(key, config, tuple(metrics)))
    longest = max((len(curve.epochs) for curve in curves), default=0)
    if not longest:
        raise ConfigError([f"{path}: holds no trial that was trained to its budget; record a grid first"])
    return tuple(curve for curve in curves if len(curve.epochs) == longest)
