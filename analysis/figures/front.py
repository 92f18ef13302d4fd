"""MSE against perplexity: every seed, the means with their spread, and the front of the means."""

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import labels, style
from analysis.findings import front_words
from analysis.groups import Group, described
from analysis.results import Results


def front(results: Results) -> Figure | None:
    """The Pareto plot; none if no trial has completed."""
    if not results.groups:
        return None
    figure = Figure(figsize=(7.4, 5.4), dpi=style.DPI, layout="constrained")
    axes = figure.subplots()
    colours = dict(zip((g.label for g in results.groups), style.estimator_colours(results.groups), strict=True))
    for group in results.groups:
        _draw(axes, group, colours[group.label])
    axes.margins(0.12)
    steps = _staircase(axes, results)
    style.bare(axes)
    axes.set_xlabel("perplexity, whole test set (more codes in use →)", size=9)
    axes.set_ylabel("MSE on [-1, 1], whole test set (← better)", size=9)
    style.titles(axes, f"MSE against perplexity: {style.data(results)}, {_when(results)}", _below(results))
    several = _legend(axes, results, colours)
    named = results.groups if len(results.groups) <= style.MOST else results.front[: style.MOST]
    names = [_name(group, results) if several else group.label for group in named]
    spots = [(group.mean("perplexity"), group.mean("mse"), colours[group.label]) for group in named]
    inked = [place for group in results.groups for place in _inked(group)]
    labels.place(axes, [(name, *spot) for name, spot in zip(names, spots, strict=True)], [*inked, *steps])
    return figure


def _when(results: Results) -> str:
    return f"after epoch {results.epoch}, {results.seeds}"


def _below(results: Results) -> str:
    marks = style.spread(results, "Small: a seed. Large: the mean, bars ± 1 sd over seeds.")
    some = " Only the front is named." if len(results.groups) > style.MOST else ""
    return f"{marks} {front_words(results)}{some}"


def _name(group: Group, results: Results) -> str:
    """The label without the estimator, which the colour tells."""
    rest = [name for name in results.swept if name != "estimator"]
    return described(group.config, rest) or group.label


def _draw(axes: Axes, group: Group, colour: str) -> None:
    perplexity, mse = group.estimate("perplexity"), group.estimate("mse")
    assert perplexity is not None
    assert mse is not None
    seeds = list(group.by_seed("perplexity").values()), list(group.by_seed("mse").values())
    axes.scatter(seeds[0], seeds[1], s=11, color=colour, alpha=0.55, linewidths=0, zorder=3)
    axes.errorbar(
        perplexity.mean, mse.mean, xerr=perplexity.sd, yerr=mse.sd,
        fmt="o", ms=6.5, mec="white", mew=0.8, color=colour, elinewidth=1.1, capsize=2, zorder=4,
    )  # fmt: skip


def _staircase(axes: Axes, results: Results) -> list[tuple[float, float]]:
    """The border of what the front dominates: the lowest MSE at each perplexity or more. Returns places along it."""
    left, right, bottom, top = *axes.get_xlim(), *axes.get_ylim()
    corners = sorted((group.mean("perplexity"), group.mean("mse")) for group in results.front)
    steps = [(left, corners[0][1])]
    for (x, y), (_, after) in zip(corners, [*corners[1:], (0, top)], strict=True):
        steps += [(x, y), (x, after)]
    axes.plot(*zip(*steps, strict=True), color="0.35", lw=1, ls=(0, (4, 3)), zorder=2)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    along = np.linspace(0, 1, 40)
    return [(a + t * (c - a), b + t * (d - b)) for (a, b), (c, d) in pairwise(steps) for t in along]


def _legend(axes: Axes, results: Results, colours: dict[str, str]) -> bool:
    """Name the line, and the estimators if there are several; returns whether there are."""
    handles = [Line2D([], [], color="0.35", lw=1, ls=(0, (4, 3)), label="front of the means")]
    by_estimator = {style.estimator(group): colours[group.label] for group in results.groups}
    if len(by_estimator) > 1:
        handles += [Line2D([], [], marker="o", ls="", color=c, label=name) for name, c in by_estimator.items()]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.11), ncols=6, fontsize=8, frameon=False)
    return len(by_estimator) > 1


def _inked(group: Group) -> list[tuple[float, float]]:
    """Places that carry ink: seeds, the mean, and a few along its bars."""
    seeds = list(zip(group.by_seed("perplexity").values(), group.by_seed("mse").values(), strict=True))
    x, y = group.estimate("perplexity"), group.estimate("mse")
    if x is None or y is None or x.sd is None or y.sd is None:
        return seeds
    along = np.linspace(-1, 1, 21)
    return [*seeds, *((x.mean + t * x.sd, y.mean) for t in along), *((x.mean, y.mean + t * y.sd) for t in along)]
