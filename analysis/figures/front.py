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
from analysis.figures.scatter import MARKS, draw, legend_handles, markers_of, staircase, write_names
from analysis.findings import front_sentence
from analysis.objectives import DEFAULT, Objective
from analysis.results import RATES, Results

_UP = {DEFAULT[0]: "MSE on [-1, 1], whole test set (← better)"}
_ACROSS = {DEFAULT[1]: "perplexity, whole test set (more codes in use →)"}
_BAND: dict[str, Any] = {"color": "0.35", "alpha": 0.13, "linewidth": 0}
_NAMED = 6
"""The most names that fit a panel of rates."""


def front(results: Results) -> Figure | None:
    """The Pareto plot, by default MSE over perplexity; none if no trial has completed."""
    if not results.groups:
        return None
    figure = Figure(figsize=(7.4, 5.4), dpi=style.DPI, layout="constrained")
    axes = figure.subplots()
    (first, second), (up, across) = results.objectives, results.columns
    markers = markers_of(results, lambda group: group.points(across, up))
    draw(axes, markers, 0.12)
    on_front = [marker for group in results.front for marker in markers if marker.group is group]
    steps = staircase(axes, [marker.mean for marker in on_front], (second.direction, first.direction))
    filled = _band(axes, results)
    below = textwrap.wrap(_ACROSS.get(second, _axis(second)), 85)
    style.finish(axes, "\n".join(below), textwrap.fill(_UP.get(first, _axis(first)), 60))
    pair = f"{first.name[0].upper()}{first.name[1:]} against {second.name}"
    title = f"{pair}: {style.data(results)}, after epoch {results.epoch}, {results.seeds}"
    style.titles(axes, title, _caption(results, bool(filled)))
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.07 - 0.04 * len(below))}
    axes.legend(handles=[*legend_handles(markers), *filled], ncols=4, fontsize=8, frameon=False, **place)
    named = markers if len(markers) <= style.MOST else on_front[: style.MOST]
    write_names(axes, results, named, [*(place for marker in markers for place in marker.ink), *steps])
    return figure


def _axis(objective: Objective) -> str:
    return f"{objective.metric.label} ({'less' if objective.direction == 'min' else 'more'} is better)"


def _caption(results: Results, banded: bool) -> str:
    by = " Band: the front of the true means, by the configurations with several seeds." if banded else ""
    few = len(results.groups) <= style.MOST
    rest = "" if few else " Only the front is named."
    return f"{style.spread(results, MARKS)}{by} {front_sentence(results, listed=few)}{rest}"


def _band(axes: Axes, results: Results) -> list[Patch]:
    """Fill the band of the front of the true means; returns its entry in the legend, if there is a band."""
    several = [group.points(*results.columns) for group in results.groups if len(group.seeds) > 1]
    if len(several) < 2:
        return []
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    band = fronts.band(several, np.linspace(bottom, top, 300).tolist(), results.directions)
    low, high = (np.clip(end, left, right) for end in (band.low, band.high))
    axes.fill_betweenx(band.at, low, high, zorder=1, **_BAND)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    return [Patch(label="95 % band of the front", **_BAND)]


def rate(results: Results) -> Figure | None:
    """MSE against both rates of an image with their fronts; none if fewer than two configurations are compared."""
    if len(results.groups) < 2:
        return None
    figure = Figure(figsize=(9.6, 4.9), dpi=style.DPI, layout="constrained")
    markers_by_rate = [markers_of(results, partial(points, results)) for points in RATES.values()]
    panels = list(zip(figure.subplots(1, 2, sharey=True), markers_by_rate, strict=True))
    for axes, markers in panels:
        draw(axes, markers, 0.14)
    fronts_of = [fronts.front([marker.mean for marker in markers]) for _, markers in panels]
    steps = [
        staircase(axes, [markers[i].mean for i in chosen], ("min", "min"))
        for (axes, markers), chosen in zip(panels, fronts_of, strict=True)
    ]
    (left, _), (right, markers) = panels
    style.finish(left, "bits an image, ideal entropy coder (← better)", "MSE on [-1, 1], whole test set (← better)")
    style.finish(right, "bits an image, fixed length: log2 K a code (← better)", "")
    when = f"{style.data(results)}, after epoch {results.epoch}, {results.seeds}"
    few = f"Named: the front, where it has at most {_NAMED}."
    style.titles(left, f"MSE against rate: {when}", f"{style.spread(results, MARKS)} {few}")
    figure.legend(handles=legend_handles(panels[0][1]), loc="outside lower left", ncols=6, fontsize=8, frameon=False)
    for (axes, markers), line, chosen, known in zip(panels, steps, fronts_of, ("", "codebook_size"), strict=True):
        if len(chosen) <= _NAMED:
            ink = [place for marker in markers for place in marker.ink]
            write_names(axes, results, [markers[i] for i in chosen], [*ink, *line], known)
    return figure
