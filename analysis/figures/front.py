"""The objectives against each other: every seed, the means with their spread, the front of the means and its band."""

import textwrap

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.figures import labels, style
from analysis.figures.scatter import Spot, draw, legend_handles, name, staircase
from analysis.objectives import DEFAULT, Objective
from analysis.results import Results
from analysis.tradeoff import front_words
from analysis.uncertainty import band

_UP = {DEFAULT[0]: "MSE on [-1, 1], whole test set (← better)"}
_ACROSS = {DEFAULT[1]: "perplexity, whole test set (more codes in use →)"}
_BAND = "0.35"


def front(results: Results) -> Figure | None:
    """The Pareto plot, by default MSE over perplexity; none if no trial has completed."""
    if not results.groups:
        return None
    figure = Figure(figsize=(7.4, 5.4), dpi=style.DPI, layout="constrained")
    axes = figure.subplots()
    spots = _spots(results)
    draw(axes, spots.values())
    axes.margins(0.12)
    on_front = [spots[group.label] for group in results.front]
    up, across = results.directions
    steps = staircase(axes, [spot.mean for spot in on_front], across, up)
    filled = _band(axes, results)
    _words(axes, results, [*legend_handles(list(spots.values())), *filled])
    named = spots.values() if len(spots) <= style.MOST else on_front[: style.MOST]
    texts = [(name(spot.group, results), *spot.mean, spot.colour) for spot in named]
    labels.place(axes, texts, [*(place for spot in spots.values() for place in spot.inked), *steps])
    return figure


def _spots(results: Results) -> dict[str, Spot]:
    up, across = results.columns
    colours = zip(results.groups, style.estimator_colours(results.groups), strict=True)
    return {g.label: Spot(g, tuple(g.points(across, up).values()), colour) for g, colour in colours}


def _words(axes: Axes, results: Results, handles: list[Artist]) -> None:
    """Axes, title and legend."""
    up, across = results.objectives
    below = textwrap.wrap(_ACROSS.get(across, _axis(across)), 85)
    style.bare(axes)
    axes.set_xlabel("\n".join(below), size=9)
    axes.set_ylabel(textwrap.fill(_UP.get(up, _axis(up)), 60), size=9)
    pair = f"{up.name[0].upper()}{up.name[1:]} against {across.name}"
    banded = any(isinstance(handle, Patch) for handle in handles)
    style.titles(axes, f"{pair}: {style.data(results)}, {_when(results)}", _below(results, banded))
    place = (0, -0.07 - 0.04 * len(below))
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=place, ncols=4, fontsize=8, frameon=False)


def _axis(objective: Objective) -> str:
    return f"{objective.measured} ({'less' if objective.direction == 'min' else 'more'} is better)"


def _when(results: Results) -> str:
    return f"after epoch {results.epoch}, {results.seeds}"


def _below(results: Results, banded: bool) -> str:
    marks = style.spread(results, "Small: a seed. Large: the mean, bars ± 1 sd over seeds.")
    by = " Band: the front of the true means, by the configurations with several seeds." if banded else ""
    few = len(results.groups) <= style.MOST
    return f"{marks}{by} {front_words(results, listed=few)}{'' if few else ' Only the front is named.'}"


def _band(axes: Axes, results: Results) -> list[Patch]:
    """Fill where the front of the true means may run; returns its entry in the legend, if there is a band."""
    several = [group.points(*results.columns) for group in results.groups if len(group.seeds) > 1]
    if len(several) < 2:
        return []
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    made = band(several, np.linspace(bottom, top, 300).tolist(), results.directions)
    low, high = (np.clip(end, left, right) for end in (made.low, made.high))
    axes.fill_betweenx(made.at, low, high, color=_BAND, alpha=0.13, linewidth=0, zorder=1)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    return [Patch(color=_BAND, alpha=0.13, linewidth=0, label="95 % band of the front")]
