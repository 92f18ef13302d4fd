"""python -m benchmarks.stopping_cost: is a report's estimate of what early stopping cost right?

Freeze-thaw search is replayed to its own end over every recorded grid, whose stopped trials were trained on all the
same: what they would have added is known, and held against what the report says it would be at most, with 95 %.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes

from analysis.stopping import estimated_cost, gain
from benchmarks.curves import Curve, Metrics, replay, shuffled
from benchmarks.early_stopping_contenders import Ours
from benchmarks.early_stopping_grids import QUESTIONS, RECORDED, Part, Question, recorded_grids
from benchmarks.record import circumstances, write
from trainables.commands import run_command
from vqcore.config import Scalar


@dataclass(frozen=True)
class StoppingCostBenchmark:
    """Hold the estimates of what early stopping cost against what it did cost."""

    orders: int = 30
    """Orders in which the trials come."""
    slots: int = 4
    """Trials that train at once."""
    out: Path = Path("benchmarks/results/stopping_cost.json")
    """The JSON file to write."""


@dataclass(frozen=True)
class Reported:
    """A trial as the journal has it."""

    config: dict[str, Scalar]
    epochs: dict[int, Metrics]

    @classmethod
    def of(cls, curve: Curve, epoch: int) -> "Reported":
        """The first epochs of a curve."""
        return cls(dict(curve.config), dict(enumerate(curve.epochs[:epoch], start=1)))


def estimated(part: Part, question: Question, order: int, slots: int) -> tuple[float, float] | None:
    """What stopping cost in one replay, and what it is said to have cost at most; None where nothing is said."""
    curves, aims = part.curves, question.objectives
    steps = replay(curves.values(), Ours(question, spends=False)(shuffled(list(curves.values()), order), slots))
    reached = {step.key: step.epoch for step in steps}
    epochs = len(next(iter(curves.values())).epochs)
    through, stopped = ([key for key, epoch in reached.items() if (epoch == epochs) is full] for full in (True, False))
    cost = estimated_cost(
        aims,
        [Reported.of(curves[key], epochs) for key in through],
        [Reported.of(curves[key], reached[key]) for key in stopped],
        epochs,
    )
    if cost is None:
        return None
    found, added = (
        np.array([[aim.minimised(curves[key].final) for aim in aims] for key in keys]) for keys in (through, stopped)
    )
    return gain(aims, found, added), cost.most


def main(benchmark: OmitArgPrefixes[StoppingCostBenchmark]) -> None:
    """Hold the estimates of what early stopping cost against what it did cost."""
    facts = circumstances(asdict(benchmark))
    table = Table("question", "grid", "replays", "right", "true cost", "at most")
    found, rights = {}, []
    for name, question in QUESTIONS.items():
        for grid in recorded_grids(RECORDED):
            told = [estimated(grid.part(order), question, order, benchmark.slots) for order in range(benchmark.orders)]
            costs = [one for one in told if one is not None]
            right = [true <= most + 1e-9 for true, most in costs]
            rights += right
            figures = {"right": fmean(right), "true": fmean(c[0] for c in costs), "most": fmean(c[1] for c in costs)}
            found[f"{name}, {grid.name}"] = {"replays": len(costs), **figures}
            table.add_row(name, grid.name, str(len(costs)), *(f"{figure:.1%}" for figure in figures.values()))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"right in {fmean(rights):.1%} of {len(rights)} replays")
    write(benchmark.out, {"found": found, "right": fmean(rights), **facts})


if __name__ == "__main__":
    run_command(main)
