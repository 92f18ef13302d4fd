"""Any scheduler over recorded curves, on a simulated clock with simulated slots: in seconds, without training or Ray.

It answers "would this early stopping have kept the front, and what would it have cost?", and is how schedulers are
tested and chosen.

python -m sweeps.replay NAME --objectives mse perplexity
"""

import heapq
import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

from tyro.conf import OmitArgPrefixes, Positional

from analysis.objectives import Objective, objectives
from trainables.commands import run_command
from trainables.runs import find_run
from vqcore.config import FIELDS, ConfigError, Scalar, TrialConfig

if TYPE_CHECKING:  # torch takes seconds to import, which --help need not wait for
    from trainables.trial import TrialJob

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

    def job(self, number: int) -> "TrialJob":
        """As the engine hands it out."""
        from trainables.data import DataSet
        from trainables.trial import TrialJob

        config = TrialConfig.from_flat({**self.config, "epochs": len(self.epochs)})
        return TrialJob(self.key, number, config, DataSet("replay", "0" * 16, "nowhere", 0, 0, 0), "nowhere")


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


def shuffled(curves: Sequence[Curve], seed: int) -> list[tuple[Curve, "TrialJob"]]:
    """The curves as jobs, in an order drawn with ``seed``."""
    order = random.Random(seed).sample(list(curves), len(curves))
    return [(curve, curve.job(number)) for number, curve in enumerate(order)]


@dataclass(frozen=True)
class Replay:
    """Print what early stopping would have kept of a run that trained every trial in full, and at what cost."""

    run: Positional[str] = "latest"
    """A run's name, its folder, a results.parquet, or latest."""
    out: Path = Path("runs")
    """The folder that holds the runs."""
    objectives: tuple[str, str] = ("mse", "perplexity")
    """Two columns of the results, as in the sweep's own flag."""
    grace: int | None = None
    """As in the sweep's own flag."""
    reduction: float | None = None
    """As in the sweep's own flag."""
    slots: int = 4
    """Trials at once."""
    shuffles: int = 20
    """Orders of the trials that are replayed; medians count."""


def findings(options: Replay) -> Iterator[str]:
    """What early stopping would have kept, a sentence a line. ``ConfigError`` if there is nothing to replay."""
    from analysis.fronts import front, hypervolume
    from sweeps.engine.queue import TrialQueue
    from sweeps.engine.scheduler import SuccessiveHalving, automatic

    path = Path(options.run)
    curves = recorded(path if path.is_file() else find_run(options.run, options.out) / "results.parquet")
    aims, epochs = objectives(options.objectives), len(curves[0].epochs)
    changes: dict[str, Any] = {"grace_period": options.grace, "reduction_factor": options.reduction}
    changes = {name: value for name, value in changes.items() if value is not None}
    rule = replace(automatic(aims, epochs, known=True), **changes)
    points = {curve.key: _point(curve, aims) for curve in curves}
    worst = (max(x for x, _ in points.values()), max(y for _, y in points.values()))
    best = {curves[i].key for i in front(list(points.values()))}
    spent, times, areas, kept = [], [], [], []
    for seed in range(options.shuffles):
        queue = TrialQueue(options.slots, SuccessiveHalving(rule, epochs))
        queue.add((job, 0) for _, job in shuffled(curves, seed))
        steps = replay(curves, queue)
        completed = {step.key for step in steps if step.complete}
        spent.append(steps[-1].spent)
        times.append(steps[-1].time)
        areas.append(hypervolume([points[key] for key in completed], worst))
        kept.append(len(best & completed))
    seconds = sum(epoch.get("seconds", 1.0) for curve in curves for epoch in curve.epochs) / options.slots
    area = hypervolume(list(points.values()), worst) or 1.0
    yield f"{len(curves)} trials of {epochs} epochs, {options.slots} at once, {options.shuffles} orders; medians:"
    yield f"{median(spent) / (len(curves) * epochs):.0%} of the epochs, {median(times) / seconds:.0%} of the time"
    yield f"{median(kept):g} of the {len(best)} on the front of {' and '.join(options.objectives)} kept"
    yield f"{median(areas) / area:.1%} of the hypervolume up to the worst trial"


def _point(curve: Curve, aims: Sequence[Objective]) -> tuple[float, float]:
    first, second = aims
    return first.minimised(curve.final), second.minimised(curve.final)


def recorded(path: Path) -> tuple[Curve, ...]:
    """The complete curves of a run's ``results.parquet``. ``ConfigError`` if there are none."""
    import pyarrow.parquet as pq

    if not path.exists():
        raise ConfigError([f"{path}: no such file; make it with `python -m analysis.report` on its run"])
    curves: dict[str, Curve] = {}
    for row in sorted(pq.read_table(path).to_pylist(), key=lambda row: (row["trial"], row["epoch"])):
        config = {name: row[name] for name in FIELDS if name in row and name != "epochs"}
        metrics = {name: value for name, value in row.items() if isinstance(value, float) and name not in FIELDS}
        before = curves.get(row["trial"], Curve(row["trial"], config, ()))
        curves[row["trial"]] = replace(before, epochs=(*before.epochs, metrics))
    longest = max((len(curve.epochs) for curve in curves.values()), default=0)
    complete = tuple(curve for curve in curves.values() if len(curve.epochs) == longest)
    if not complete:
        raise ConfigError([f"{path}: holds no trial that was trained to its budget; record a grid first"])
    return complete


def main(options: OmitArgPrefixes[Replay]) -> None:
    """Print the findings."""
    print(*findings(options), sep="\n")


if __name__ == "__main__":
    run_command(main)
