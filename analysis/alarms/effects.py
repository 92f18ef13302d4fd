"""How much of a metric is the configuration's, and how much is the noise of a seed."""

import math
from collections.abc import Hashable, Iterable
from typing import NamedTuple

import numpy as np
from scipy.special import fdtrc

from analysis.effects import level
from analysis.objectives import Objective, metric_of
from analysis.results import Group

Cell = tuple[Hashable, Hashable, float]
"""Row, column and value."""


class Fit(NamedTuple):
    """Values as the sum of their row, their column and a rest."""

    range: float
    """The distance between the largest and the smallest of the columns' effects."""
    squares: float
    """The sum of the squared rests."""
    freedom: int
    """Degrees of freedom of the rests."""
    p: float
    """Of the F test that all columns are alike; NaN where nothing tells the noise."""

    @property
    def sd(self) -> float:
        """The standard deviation of the rest; NaN where nothing tells it."""
        return math.sqrt(self.squares / self.freedom) if self.freedom > 0 else math.nan


def additive_fit(cells: Iterable[Cell]) -> Fit:
    """The least squares fit; rows may be many, columns few. Values that are not finite are left out."""
    kept = [cell for cell in cells if math.isfinite(cell[2])]
    if not kept:
        return Fit(0.0, 0.0, 0, math.nan)
    rows, columns = (list(dict.fromkeys(cell[axis] for cell in kept)) for axis in (0, 1))
    places = {row: place for place, row in enumerate(rows)}
    row_N = np.array([places[cell[0]] for cell in kept], dtype=np.int_)
    counts_R = np.bincount(row_N)
    marks_NC = np.array([[float(cell[1] == column) for column in columns] for cell in kept])
    both_N = np.column_stack([marks_NC, [cell[2] for cell in kept]])
    sums_R = np.zeros((len(rows), both_N.shape[1]))
    np.add.at(sums_R, row_N, both_N)
    within_N = both_N - (sums_R / counts_R[:, None])[row_N]
    effects_C, _, rank, _ = np.linalg.lstsq(within_N[:, :-1], within_N[:, -1], rcond=None)
    explained_N = within_N[:, :-1] @ effects_C
    squares, of_columns = float(((within_N[:, -1] - explained_N) ** 2).sum()), float((explained_N**2).sum())
    freedom = len(kept) - len(rows) - int(rank)
    p = math.nan
    if rank and freedom > 0 and squares > 0:
        p = float(fdtrc(rank, freedom, of_columns / rank / (squares / freedom)))
    return Fit(float(np.ptp(effects_C)) if rank else 0.0, squares, freedom, p)


def seed_noise(groups: Iterable[Group], column: str) -> Fit:
    """What another seed does to a configuration, beside what it does to all of them, which share their seeds.

    Pooled over the groups; ``sd`` is of ``level``, NaN where none has several seeds. Bad configurations spread more
    than good ones, so hand over those that are compared.
    """
    return additive_fit(
        (group.label, seed, level(column, value)) for group in groups for seed, value in group.by_seed(column).items()
    )


def mean_level(group: Group, objective: Objective) -> float:
    """The mean of ``level`` over the seeds that count, its sign such that less is better; NaN of none."""
    levels = [level(objective.column, value) for value in group.by_seed(objective.column).values()]
    return objective.signed(sum(levels) / len(levels)) if levels else math.nan


def as_text(column: str, difference: float) -> str:
    """A difference of ``level``: in per cent where that is a logarithm."""
    return f"{100 * math.expm1(difference):.2g} %" if metric_of(column).ratio else f"{difference:.2g}"
