"""MSE and perplexity by epoch: a line a configuration, and a band of one standard deviation over its seeds."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import style
from analysis.objectives import DEFAULT
from analysis.results import Group, Results
from analysis.stats import Estimate


def curves(results: Results) -> Figure | None:
    """The learning curves of all compared trials; none if no trial has completed."""
    if not results.groups:
        return None
    featured = results.featured(style.MOST)
    looks = zip(style.shades(featured), style.dashes(featured), strict=True)
    look = dict(zip((group.label for group in featured), looks, strict=True))
    figure = Figure(figsize=(9.6, 4.3), dpi=style.DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, objective in zip((left, right), DEFAULT, strict=True):
        _in_grey(axes, [group for group in results.groups if group.label not in look], objective.column)
        for group in featured:
            _line(axes, group, objective.column, *look[group.label])
        style.finish(axes, "epoch", objective.metric.label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    style.titles(
        left,
        f"By epoch: {style.data(results)}, {results.seeds}",
        style.spread(results, "Lines: means over seeds; bands: ± 1 sd."),
    )
    rest = len(results.groups) - len(featured)
    handles, names = left.get_legend_handles_labels()
    title = f"and {rest} more in grey" if rest else None
    figure.legend(handles, names, loc="outside right center", fontsize=8, frameon=False, title=title, title_fontsize=8)
    return figure


def _line(axes: Axes, group: Group, metric: str, colour: str, dash: str) -> None:
    estimates = {epoch: Estimate.of(values) for epoch, values in _by_epoch(group, metric).items()}
    epochs = list(estimates)
    means = np.array([estimate.mean for estimate in estimates.values()])
    spread = np.array([estimate.sd or 0.0 for estimate in estimates.values()])
    marker = "o" if len(epochs) == 1 else ""
    label = style.plain(group.label)
    axes.plot(epochs, means, color=colour, ls=dash, lw=1.6, marker=marker, ms=4, zorder=3, label=label)
    axes.fill_between(epochs, means - spread, means + spread, color=colour, alpha=0.15, linewidth=0)


def _in_grey(axes: Axes, groups: Sequence[Group], metric: str) -> None:
    """The means of groups that have no name in the picture; one call for all, since one a line would take seconds."""
    epochs, means = list[float](), list[float]()
    for group in groups:
        by_epoch = _by_epoch(group, metric)
        epochs += [*by_epoch, math.nan]  # which parts the lines
        means += [*map(fmean, by_epoch.values()), math.nan]
    if epochs:
        axes.plot(epochs, means, color="0.8", lw=1.6, marker=".", ms=2, zorder=1)


def _by_epoch(group: Group, metric: str) -> dict[int, list[float]]:
    """The metric of each trial, after each epoch that all of them reported."""
    trials = [{epoch: report[metric] for epoch, report in t.epochs.items() if metric in report} for t in group.trials]
    return {epoch: [trial[epoch] for trial in trials] for epoch in sorted(set.intersection(*map(set, trials)))}
