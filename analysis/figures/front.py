"""The objectives against each other, and MSE against both rates of an image: points, fronts of the means, a band."""

import textwrap
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis import fronts
from analysis.figures import style
from analysis.figures.scatter import MARKS, draw, legend, markers_of, staircase, write_numbers
from analysis.findings import front_sentence
from analysis.objectives import Objective
from analysis.results import RATES, Results

_BAND: dict[str, Any] = {"color": "0.35", "alpha": 0.13, "linewidth": 0}


def front(results: Results) -> Figure | None:
    """The Pareto plot, by default MSE over perplexity; none if no trial has completed."""
    if not results.groups:
        return None
    figure = Figure(figsize=(7.4, 5.8), dpi=style.DPI, layout="constrained")
    axes = figure.subplots()
    (first, second), (up, across) = results.objectives, results.columns
    markers = markers_of(results, lambda group: group.points(across, up))
    draw(axes, markers)
    on_front = [marker.mean for marker in markers if marker.group in results.front]
    staircase(axes, on_front, (second.direction, first.direction))
    filled = _band(axes, results)
    style.finish(axes, _axis(second, 85), _axis(first, 60))
    pair = f"{first.name[0].upper()}{first.name[1:]} against {second.name}"
    title = f"{pair}: {style.data(results)}, after epoch {results.epoch}, {results.seeds}"
    by = " Band: the front of the true means, by the configurations with several seeds." if filled else ""
    few = len(results.groups) <= style.MOST
    sentence = front_sentence(results, listed=few) + ("" if few else " Only the front is named.")
    style.titles(axes, title, f"{style.spread(results, MARKS)}{by} {sentence}")
    named = results.groups if few else results.front[: style.MOST]
    write_numbers(axes, markers, named)
    legend(figure, markers, named, filled)
    return figure


def _axis(objective: Objective, width: int) -> str:
    better = "less" if objective.direction == "min" else "more"
    return textwrap.fill(f"{objective.metric.label} ({better} is better)", width)


def _band(axes: Axes, results: Results) -> list[Patch]:
    """Fill the band of the front of the true means; returns its entry in the legend, if there is a band."""
    several = [group.points(*results.columns) for group in results.groups if len(group.seeds) > 1]
    if len(several) < 2:
        return []
    at = np.linspace(*axes.get_ylim(), 300).tolist()
    low, high = (np.clip(end, *axes.get_xlim()) for end in fronts.band(several, at, results.directions))
    axes.fill_betweenx(at, low, high, zorder=1, **_BAND)
    return [Patch(label="95 % band of the front", **_BAND)]


def rate(results: Results) -> Figure | None:
    """MSE against both rates of an image with their fronts; none if fewer than two configurations are compared."""
    if len(results.groups) < 2:
        return None
    figure = Figure(figsize=(9.6, 5.2), dpi=style.DPI, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    markers_by_rate = [markers_of(results, partial(points, results)) for points in RATES.values()]
    named = []
    for axes, markers in zip(panels, markers_by_rate, strict=True):
        draw(axes, markers)
    for axes, markers in zip(panels, markers_by_rate, strict=True):
        on_front = [markers[i] for i in fronts.front([marker.mean for marker in markers])]
        staircase(axes, [marker.mean for marker in on_front], ("min", "min"))
        named += [marker.group for marker in on_front if marker.group not in named]
    for axes, markers in zip(panels, markers_by_rate, strict=True):
        write_numbers(axes, markers, named[: style.MOST])
    left, right = panels
    style.finish(left, "bits an image, ideal entropy coder (← better)", "MSE on [-1, 1], whole test set (← better)")
    style.finish(right, "bits an image, fixed length: log2 K a code (← better)", "")
    when = f"{style.data(results)}, after epoch {results.epoch}, {results.seeds}"
    style.titles(left, f"MSE against rate: {when}", f"{style.spread(results, MARKS)} Named: the fronts.")
    legend(figure, markers_by_rate[0], named[: style.MOST])
    return figure
