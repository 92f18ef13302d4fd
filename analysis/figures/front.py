"""Configurations as points: the objectives against each other, and MSE against each rate of an image."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from analysis import fronts
from analysis.figures import style
from analysis.findings import front_sentence
from analysis.fronts import Directions, Point
from analysis.objectives import Objective
from analysis.rates import entropy_coded, fixed_length, has_learned, learned
from analysis.results import MOST, Group, Results
from analysis.stats import Estimate

_MARKS = "Small: a seed. Large: the mean, bars ± 1 sd over seeds."
_SCREENED = "Rings: seed {}, which chose what got more seeds, and is in no mean."
_FRONT: dict[str, Any] = {"color": "0.35", "lw": 1, "ls": (0, (4, 3))}
_BAND: dict[str, Any] = {"color": "0.35", "alpha": 0.13, "linewidth": 0}


@dataclass(frozen=True)
class _Marker:
    """One configuration in a plot."""

    group: Group
    seeds: tuple[Point, ...]
    """x and y of each seed."""
    x: Estimate
    y: Estimate
    colour: str

    @property
    def mean(self) -> Point:
        """The place of its large mark."""
        return self.x.mean, self.y.mean


def front(results: Results) -> Figure | None:
    """The Pareto plot, by default MSE over perplexity; none if no trial has completed."""
    if not results.groups:
        return None
    figure = style.figure(7.4, 5.8, 2.4)
    axes = figure.subplots()
    (first, second), (up, across) = results.objectives, results.columns
    markers = _markers(results, lambda group: group.points(across, up))
    _draw(axes, markers)
    _draw_screened(axes, results, lambda group: group.points(across, up))
    on_front = [marker.mean for marker in markers if marker.group in results.front]
    staircase(axes, on_front, (second.direction, first.direction), **_FRONT)
    filled = _band(axes, results)
    style.finish(axes, axis_label(second, 85), axis_label(first, 60))
    title = f"{first.name[0].upper()}{first.name[1:]} against {second.name}: {results.compared}"
    by = " Band: the front of the true means, by the configurations with several seeds." if filled else ""
    few = len(markers) <= MOST
    sentence = front_sentence(results, listed=few) + ("" if few else " Only the front is named.")
    style.titles(axes, title, f"{_marks(results)}{by} {sentence}")
    named = [marker.group for marker in markers] if few else results.front[:MOST]
    _write_numbers(axes, markers, named)
    _legend(figure, markers, named, filled)
    return figure


def rate(results: Results) -> Figure | None:
    """MSE against the rates of an image with their fronts, the learned one where priors were trained; none if fewer
    than two configurations are compared."""
    if len(results.groups) < 2:
        return None
    kinds = [(entropy_coded, "ideal entropy coder"), (fixed_length, "fixed length: log2 K a code")]
    kinds += [(learned, "learned prior")] if has_learned(results) else []
    figure = style.figure(4.8 * len(kinds), 5.2, 2.1 * len(kinds))
    left, *others = style.panels(figure, len(kinds), sharey=True)
    panels = [(axes, _markers(results, points)) for axes, (points, _) in zip((left, *others), kinds, strict=True)]
    for (axes, markers), (points, _) in zip(panels, kinds, strict=True):
        _draw(axes, markers)
        _draw_screened(axes, results, points)
    named: list[Group] = []
    for axes, markers in panels:  # once all marks have set the axis that the panels share
        on_front = [markers[i] for i in fronts.front([marker.mean for marker in markers])]
        staircase(axes, [marker.mean for marker in on_front], ("min", "min"), **_FRONT)
        named += [marker.group for marker in on_front if marker.group not in named]
    del named[MOST:]
    for axes, markers in panels:
        _write_numbers(axes, markers, named)
    up = "MSE on [-1, 1], whole test set (←\u00a0better)"
    for (axes, _), (_, code) in zip(panels, kinds, strict=True):
        style.finish(axes, f"bits an image, {code} (←\u00a0better)", up if axes is left or style.narrow() else "")
    style.titles(left, f"MSE against rate: {results.compared}", f"{_marks(results)} Named: the fronts.")
    _legend(figure, panels[0][1], named)
    return figure


def _marks(results: Results) -> str:
    """What the marks are."""
    screened = "" if results.screening is None else f" {_SCREENED.format(results.screening)}"
    return style.spread(results, _MARKS) + screened


def _markers(results: Results, points: Callable[[Group], dict[int, Point]]) -> list[_Marker]:
    """The markers of those groups that have points: x and y by seed."""
    markers = []
    for group, colour in zip(results.groups, style.estimator_colours(results.groups), strict=True):
        if seeds := tuple(points(group).values()):
            x, y = map(Estimate.of, zip(*seeds, strict=True))
            markers.append(_Marker(group, seeds, x, y, colour))
    return markers


def _draw(axes: Axes, markers: Sequence[_Marker]) -> None:
    """Small marks for the seeds, a large one for each mean, bars of one standard deviation."""
    for colour in dict.fromkeys(marker.colour for marker in markers):  # a call a marker would take a second for 50
        same = [marker for marker in markers if marker.colour == colour]
        seeds = np.array([place for marker in same for place in marker.seeds])
        dots: dict[str, Any] = {"s": 6 if style.narrow() else 11, "alpha": 0.55, "linewidths": 0, "zorder": 3}
        axes.scatter(seeds[:, 0], seeds[:, 1], color=colour, **dots)
        means = np.array([marker.mean for marker in same])
        # of one seed NaN, which draws no bar
        spread = np.array([(marker.x.sd, marker.y.sd) for marker in same], dtype=float)
        axes.errorbar(
            means[:, 0], means[:, 1], xerr=spread[:, 0], yerr=spread[:, 1], zorder=4,
            fmt="o", ms=4.5 if style.narrow() else 6.5, mec="white", mew=0.8, color=colour, elinewidth=1.1, capsize=2,
        )  # fmt: skip
    axes.margins(0.12)


def _draw_screened(axes: Axes, results: Results, points: Callable[[Group], dict[int, Point]]) -> None:
    """Rings for what the screening seed gave each configuration of a search."""
    colours = zip(results.groups, style.estimator_colours(results.groups), strict=True)
    rings = [(place, colour) for g, colour in colours if g.screening for place in points(g.screening).values()]
    if rings:
        places = np.array([place for place, _ in rings])
        look: dict[str, Any] = {"s": 14, "facecolors": "none", "linewidths": 0.7, "alpha": 0.6, "zorder": 2.5}
        axes.scatter(places[:, 0], places[:, 1], edgecolors=[colour for _, colour in rings], **look)


def staircase(axes: Axes, front: Sequence[Point], directions: Directions, **look: Any) -> None:
    """The border of the region that the front dominates, in the axes as they stand, whose limits are kept.

    ``directions`` are those of the horizontal and the vertical axis; ``look`` is the line's.
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
    axes.plot(*zip(*steps, strict=True), zorder=2, **look)
    axes.set(xlim=(left, right), ylim=(bottom, top))


def _band(axes: Axes, results: Results) -> list[Patch]:
    """Fill the band of the front of the true means; returns its entry in the legend, if there is a band."""
    several = [group.points(*results.columns) for group in results.several]
    if len(several) < 2:
        return []
    at = np.linspace(*axes.get_ylim(), 300).tolist()
    low, high = (np.clip(end, *axes.get_xlim()) for end in fronts.band(several, at, results.directions))
    axes.fill_betweenx(at, low, high, zorder=1, **_BAND)
    return [Patch(label="95 % band of the front", **_BAND)]


def axis_label(objective: Objective, width: int) -> str:
    """The metric with its unit and its set of images, which way is better, in lines of ``width`` letters."""
    better = "less" if objective.direction == "min" else "more"
    return textwrap.fill(f"{objective.metric.label} ({better} is better)", width)


def _write_numbers(axes: Axes, markers: Sequence[_Marker], named: Sequence[Group]) -> None:
    """Write beside the means of the named groups their numbers in the legend."""
    look: dict[str, Any] = {"size": style.small() + 1, "weight": "bold", "zorder": 6}
    look["path_effects"] = [withStroke(linewidth=2.5, foreground="white")]
    for one in markers:
        if one.group in named:
            number = str(named.index(one.group) + 1)
            axes.annotate(number, one.mean, (4, 4), textcoords="offset points", color=one.colour, **look)


def _legend(figure: Figure, markers: Sequence[_Marker], named: Sequence[Group], more: Sequence[Artist] = ()) -> None:
    """Below the axes: the front's line, the named groups by number, the estimators if a group has no name."""
    colours = {one.group.label: one.colour for one in markers}
    dots = {f"{i}: {group.label}": colours[group.label] for i, group in enumerate(named, 1) if group.label in colours}
    if len(named) < len(markers) and len({one.group.estimator for one in markers}) > 1:
        dots |= {one.group.estimator: one.colour for one in markers}
    front = "front of the means" if any(len(one.seeds) > 1 for one in markers) else "front by one seed: an order"
    handles = [Line2D([], [], label=front, **_FRONT), *more]
    handles += [
        Line2D([], [], marker="o", ls="", color=colour, label=style.plain(name)) for name, colour in dots.items()
    ]
    style.legend(figure, handles)
