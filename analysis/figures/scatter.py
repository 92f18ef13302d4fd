"""Configurations as points: every seed, the means with their spread, and the border of the front."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from analysis.figures import style
from analysis.fronts import Directions, Point
from analysis.results import Group, Results
from analysis.stats import Estimate

MARKS = "Small: a seed. Large: the mean, bars ± 1 sd over seeds."
_FRONT: dict[str, Any] = {"color": "0.35", "lw": 1, "ls": (0, (4, 3))}


@dataclass(frozen=True)
class Marker:
    """One configuration in a plot."""

    group: Group
    seeds: tuple[Point, ...]
    """x and y of each seed, in data coordinates."""
    x: Estimate
    """The horizontal axis, over seeds."""
    y: Estimate
    """The vertical axis, over seeds."""
    colour: str

    @property
    def mean(self) -> Point:
        """The place of its large mark."""
        return self.x.mean, self.y.mean


def markers_of(results: Results, points: Callable[[Group], dict[int, Point]]) -> list[Marker]:
    """The markers of those groups that have points: x and y by seed."""
    markers = []
    for group, colour in zip(results.groups, style.estimator_colours(results.groups), strict=True):
        if seeds := tuple(points(group).values()):
            x, y = map(Estimate.of, zip(*seeds, strict=True))
            markers.append(Marker(group, seeds, x, y, colour))
    return markers


def draw(axes: Axes, markers: Sequence[Marker]) -> None:
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
    axes.margins(0.12)


def staircase(axes: Axes, front: Sequence[Point], directions: Directions) -> None:
    """The border of the region that the front dominates, in the axes as they stand, whose limits are kept.

    ``directions`` are those of the horizontal and the vertical axis.
    """
    if not front:
        return
    left, right, bottom, top = *axes.get_xlim(), *axes.get_ylim()
    across, up = directions
    start, end = (right if across == "min" else left), (top if up == "min" else bottom)
    corners = sorted(set(front), reverse=across == "min")
    steps = [(start, corners[0][1])]
    for (x, y), (_, after) in zip(corners, [*corners[1:], (0, end)], strict=True):
        steps += [(x, y), (x, after)]
    axes.plot(*zip(*steps, strict=True), zorder=2, **_FRONT)
    axes.set(xlim=(left, right), ylim=(bottom, top))


def write_numbers(axes: Axes, markers: Sequence[Marker], named: Sequence[Group]) -> None:
    """Write beside the means of the named groups their numbers in the legend."""
    numbers = {group.label: str(number) for number, group in enumerate(named, 1)}
    for one in markers:
        if number := numbers.get(one.group.label):
            axes.annotate(
                number, one.mean, (4, 4), textcoords="offset points", color=one.colour, size=9, weight="bold",
                zorder=6, path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )  # fmt: skip


def legend(figure: Figure, markers: Sequence[Marker], named: Sequence[Group], more: Sequence[Artist] = ()) -> None:
    """Below the axes: the front's line, the named groups by number, the estimators if a group has no name."""
    dots = {f"{number}: {group.label}": group for number, group in enumerate(named, 1)}
    coloured = {style.plain(name): one.colour for name, g in dots.items() for one in markers if one.group is g}
    if len(named) < len(markers) and len({one.group.estimator for one in markers}) > 1:
        coloured |= {style.plain(one.group.estimator): one.colour for one in markers}
    handles = [Line2D([], [], label="front of the means", **_FRONT), *more]
    handles += [Line2D([], [], marker="o", ls="", color=colour, label=name) for name, colour in coloured.items()]
    columns = int(16 * figure.get_figwidth()) // (8 + max(len(str(handle.get_label())) for handle in handles))
    figure.legend(handles=handles, loc="outside lower left", ncols=max(columns, 1), fontsize=8, frameon=False)
