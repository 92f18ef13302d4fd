"""Configurations as points: every seed, the means with their spread, and the border of the front."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures import labels, style
from analysis.fronts import Directions, Point
from analysis.results import Group, Results, described
from analysis.stats import Estimate

MARKS = "Small: a seed. Large: the mean, bars ± 1 sd over seeds."
_FRONT: dict[str, Any] = {"color": "0.35", "lw": 1, "ls": (0, (4, 3))}


@dataclass(frozen=True)
class Marker:
    """One configuration in a plot."""

    group: Group
    seeds: tuple[Point, ...]
    """x and y of each seed, in data coordinates."""
    colour: str

    @cached_property
    def x(self) -> Estimate:
        """The horizontal axis, over seeds."""
        return Estimate.of([x for x, _ in self.seeds])

    @cached_property
    def y(self) -> Estimate:
        """The vertical axis, over seeds."""
        return Estimate.of([y for _, y in self.seeds])

    @property
    def mean(self) -> Point:
        """The place of its large mark."""
        return self.x.mean, self.y.mean

    @property
    def ink(self) -> list[Point]:
        """Places that carry ink: seeds, the mean, and a few along its bars."""
        (x, y), dx, dy = self.mean, self.x.sd, self.y.sd
        if dx is None or dy is None:
            return list(self.seeds)
        along = np.linspace(-1, 1, 21)
        return [*self.seeds, *((x + t * dx, y) for t in along), *((x, y + t * dy) for t in along)]


def markers_of(results: Results, points: Callable[[Group], dict[int, Point]]) -> list[Marker]:
    """The markers of those groups that have points: x and y by seed."""
    coloured = zip(results.groups, style.estimator_colours(results.groups), strict=True)
    markers = [Marker(group, tuple(points(group).values()), colour) for group, colour in coloured]
    return [marker for marker in markers if marker.seeds]


def draw(axes: Axes, markers: Sequence[Marker], margin: float) -> None:
    """Small marks for the seeds, a large one for each mean, bars of one standard deviation."""
    for colour in dict.fromkeys(marker.colour for marker in markers):  # a call a marker would take a second for 50
        same = [marker for marker in markers if marker.colour == colour]
        seeds = np.array([place for marker in same for place in marker.seeds])
        axes.scatter(seeds[:, 0], seeds[:, 1], s=11, color=colour, alpha=0.55, linewidths=0, zorder=3)
        x, y = [marker.x for marker in same], [marker.y for marker in same]
        dx, dy = ([math.nan if e.sd is None else e.sd for e in axis] for axis in (x, y))  # NaN draws no bar
        axes.errorbar(
            [estimate.mean for estimate in x], [estimate.mean for estimate in y], xerr=dx, yerr=dy, zorder=4,
            fmt="o", ms=6.5, mec="white", mew=0.8, color=colour, elinewidth=1.1, capsize=2,
        )  # fmt: skip
    axes.margins(margin)


def staircase(axes: Axes, front: Sequence[Point], directions: Directions) -> list[Point]:
    """The border of the region that the front dominates, in the axes as they stand. Returns places along it.

    ``directions`` are those of the horizontal and the vertical axis.
    """
    if not front:
        return []
    left, right, bottom, top = *axes.get_xlim(), *axes.get_ylim()
    across, up = directions
    start, end = (right if across == "min" else left), (top if up == "min" else bottom)
    corners = sorted(set(front), reverse=across == "min")
    steps = [(start, corners[0][1])]
    for (x, y), (_, after) in zip(corners, [*corners[1:], (0, end)], strict=True):
        steps += [(x, y), (x, after)]
    axes.plot(*zip(*steps, strict=True), zorder=2, **_FRONT)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    along = np.linspace(0, 1, 40)
    return [(a + t * (c - a), b + t * (d - b)) for (a, b), (c, d) in pairwise(steps) for t in along]


def legend_handles(markers: Iterable[Marker]) -> list[Artist]:
    """The front's line, and the estimators if there are several."""
    handles: list[Artist] = [Line2D([], [], label="front of the means", **_FRONT)]
    colours = {style.plain(marker.group.estimator): marker.colour for marker in markers}
    if len(colours) > 1:
        handles += [Line2D([], [], marker="o", ls="", color=c, label=name) for name, c in colours.items()]
    return handles


def write_names(
    axes: Axes, results: Results, named: Sequence[Marker], obstacles: Iterable[Point], known: str = ""
) -> None:
    """Write the labels of some markers, clear of the obstacles, without the fields that the picture shows.

    Those are ``known``, and by its colours the estimator. Call it last: it measures texts.
    """
    fields = {known, "estimator"} if len({group.estimator for group in results.groups}) > 1 else {known}
    rest = [field for field in results.swept if field not in fields]
    texts = [(described(one.group.config, rest) or one.group.label, *one.mean, one.colour) for one in named]
    labels.place(axes, texts, obstacles)
