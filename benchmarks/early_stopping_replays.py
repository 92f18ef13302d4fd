"""Replays of every contender over every grid, on all cores, and what each found.

A replay has no limit of epochs, so that it is read at every share of them: found is what was complete by then.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from benchmarks.curves import replay, shuffled
from benchmarks.early_stopping_contenders import Build, Ours, contenders
from benchmarks.early_stopping_grids import QUESTIONS, Grid, Question

SHARES = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
"""Of the grid's epochs."""
CHANCES = (0.02, 0.05, 0.1, 0.2)
"""Of freeze-thaw search, to see it at its own end."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What a replay found."""

    spent: float
    """Share of the epochs at its end."""
    left: Mapping[str, Sequence[float]]
    """By figure: at each of ``SHARES``, and at the end."""


@dataclass(frozen=True)
class Task:
    """A contender on a grid, in all orders."""

    grid: Grid
    build: Build
    orders: int
    slots: int

    def run(self) -> list[Outcome]:
        """One outcome an order."""
        return [self._replayed(order) for order in range(self.orders)]

    def _replayed(self, order: int) -> Outcome:
        part = self.grid.part(order)
        curves = list(part.curves.values())
        steps = replay(curves, self.build(shuffled(curves, order), self.slots))
        found = [
            [step.key for step in steps if step.complete and step.spent <= share * part.epochs] for share in SHARES
        ]
        found.append([step.key for step in steps if step.complete])
        figures = [question.figure for question in QUESTIONS.values()]
        return Outcome(
            steps[-1].spent / part.epochs, {figure: [part.left(figure, keys) for keys in found] for figure in figures}
        )


def in_processes(tasks: Sequence[Task]) -> list[list[Outcome]]:
    """What each task found. On all cores, so that a process needs one thread of linear algebra."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:  # they read it when they import numpy
        return list(pool.map(Task.run, tasks))


class Replays:
    """All outcomes, by grid and contender."""

    def __init__(self, grids: Iterable[Grid], orders: int, slots: int) -> None:
        builds: dict[Build, None] = {}
        for question in QUESTIONS.values():
            builds |= {Ours(question, chance, spends=False): None for chance in CHANCES}
            for settings in contenders(question).values():
                builds |= dict.fromkeys(settings.values())
        longest_first = sorted(grids, key=lambda grid: -grid.parts[0].epochs)
        tasks = [Task(grid, build, orders, slots) for grid in longest_first for build in builds]
        self._found = {
            (task.grid.name, task.build): outcomes for task, outcomes in zip(tasks, in_processes(tasks), strict=True)
        }

    def left(self, grid: str, build: Build, question: Question) -> Floats:
        """What is left in each order, at each of ``SHARES``."""
        return np.array([one.left[question.figure][:-1] for one in self._found[grid, build]])

    def own_end(self, grid: str, build: Build, question: Question) -> dict[str, float]:
        """The share of the epochs at its end, and what is left there: means over the orders."""
        outcomes = self._found[grid, build]
        left = fmean(one.left[question.figure][-1] for one in outcomes)
        return {"epochs": fmean(one.spent for one in outcomes), "left": left}
