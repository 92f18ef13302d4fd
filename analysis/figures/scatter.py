"""Configurations as points: every seed, the means with their spread, and the line that a front draws."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.estimates import Estimate
from analysis.figures import style
from analysis.fronts import Direction
from analysis.groups import Group, described
from analysis.results import Results

Floats = NDArray[np.float64]
Place = tuple[float, float]
"""x and y, in data coordinates."""


@dataclass(frozen=True)
class Spot:
    """One configuration in a plot."""

    group: Group
    seeds: tuple[Place, ...]
    colour: str

    @cached_property
    def x(self) -> Estimate:
        """Across, over seeds."""
        return Estimate.of([x for x, _ in self.seeds])

    @cached_property
    def y(self) -> Estimate:
        """Up, over seeds."""
        return Estimate.of([y for _, y in self.seeds])

    @property
    def mean(self) -> Place:
        """Where its large mark is."""
        return self.x.mean, self.y.mean

    @property
    def inked(self) -> list[Place]:
        """Places that carry ink: seeds, the mean, and a few along its bars."""
        (x, y), dx, dy = self.mean, self.x.sd, self.y.sd
        if dx is None or dy is None:
            return list(self.seeds)
        along = np.linspace(-1, 1, 21)
        return [*self.seeds, *((x + t * dx, y) for t in along), *((x, y + t * dy) for t in along)]


def draw(axes: Axes, spots: Iterable[Spot]) -> None:
    """Small marks for the seeds, a large one for each mean, bars of one standard deviation."""
    by_colour: dict[str, list[Spot]] = {}
    for spot in spots:
        by_colour.setdefault(spot.colour, []).append(spot)
    for colour, some in by_colour.items():  # a call a spot would take a second for 50
        seeds = np.array([place for spot in some for place in spot.seeds])
        axes.scatter(seeds[:, 0], seeds[:, 1], s=11, color=colour, alpha=0.55, linewidths=0, zorder=3)
        (x, dx), (y, dy) = _bars([spot.x for spot in some]), _bars([spot.y for spot in some])
        axes.errorbar(
            x, y, xerr=dx, yerr=dy,
            fmt="o", ms=6.5, mec="white", mew=0.8, color=colour, elinewidth=1.1, capsize=2, zorder=4,
        )  # fmt: skip


def _bars(estimates: Sequence[Estimate]) -> tuple[Floats, Floats]:
    """Means and standard deviations; NaN, which draws no bar, for one seed."""
    spreads = [np.nan if estimate.sd is None else estimate.sd for estimate in estimates]
    return np.array([estimate.mean for estimate in estimates]), np.array(spreads)


def staircase(axes: Axes, front: Sequence[Place], across: Direction, up: Direction) -> list[Place]:
    """The border of what the front dominates, in the axes as they stand. Returns places along it."""
    left, right, bottom, top = *axes.get_xlim(), *axes.get_ylim()
    start, end = (right if across == "min" else left), (top if up == "min" else bottom)
    corners = sorted(set(front), reverse=across == "min")
    steps = [(start, corners[0][1])]
    for (x, y), (_, after) in zip(corners, [*corners[1:], (0, end)], strict=True):
        steps += [(x, y), (x, after)]
    axes.plot(*zip(*steps, strict=True), color="0.35", lw=1, ls=(0, (4, 3)), zorder=2)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    along = np.linspace(0, 1, 40)
    return [(a + t * (c - a), b + t * (d - b)) for (a, b), (c, d) in pairwise(steps) for t in along]


def legend_handles(spots: Sequence[Spot]) -> list[Line2D]:
    """The front's line, and the estimators if there are several."""
    handles = [Line2D([], [], color="0.35", lw=1, ls=(0, (4, 3)), label="front of the means")]
    by_estimator = {style.estimator(spot.group): spot.colour for spot in spots}
    if len(by_estimator) > 1:
        named = {style.plain(name): colour for name, colour in by_estimator.items()}
        handles += [Line2D([], [], marker="o", ls="", color=c, label=name) for name, c in named.items()]
    return handles


def name(group: Group, results: Results, *told: str) -> str:
    """The group's label without the fields that the picture tells: ``told``, and by its colours the estimator."""
    if len({style.estimator(other) for other in results.groups}) > 1:
        told = (*told, "estimator")
    rest = [field for field in results.swept if field not in told]
    return (described(group.config, rest) if told else "") or group.label
