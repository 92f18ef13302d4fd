"""MSE and perplexity by epoch: a line a configuration, and a band of one standard deviation over its seeds."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import style
from analysis.objectives import DEFAULT
from analysis.results import Group, Results
from analysis.stats import Estimate


def curves(results: Results) -> Figure | None:
    """The learning curves of the featured configurations; none if no trial has completed."""
    if not results.groups:
        return None
    featured = results.featured()
    looks = list(zip(style.shades(featured), style.dashes(featured), strict=True))
    figure = style.figure(9.6, 4.3, 3.6)
    left, right = style.panels(figure, 2)
    for axes, objective in zip((left, right), DEFAULT, strict=True):
        for group, look in zip(featured, looks, strict=True):
            _line(axes, group, objective.column, *look)
        style.finish(axes, "epoch", objective.metric.label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    several = "Lines: means over the seeds that count; bands: ± 1 sd."
    screened = [group for group in featured if not group.trials]
    alone = f" In parentheses: seed {results.screening} alone, which screened." if screened else ""
    spread = style.spread(results, several) + alone
    style.titles(left, f"By epoch: {results.data}, {results.seeds}", spread)
    rest = len(results.groups) - len(featured)
    title = f"{rest} more are not drawn" if rest else None
    style.legend(figure, left.lines, title, beside=True)
    return figure


def _line(axes: Axes, group: Group, metric: str, colour: str, dash: str) -> None:
    shown = group if group.trials else group.screening or group
    estimates = {epoch: Estimate.of(values) for epoch, values in _by_epoch(shown, metric).items()}
    epochs = list(estimates)
    means = np.array([estimate.mean for estimate in estimates.values()])
    spread = np.array([estimate.sd or 0.0 for estimate in estimates.values()])
    marker = "o" if len(epochs) == 1 else ""
    label = style.plain(group.label if group.trials else f"({group.label})")
    axes.plot(epochs, means, color=colour, ls=dash, lw=1.6, marker=marker, ms=4, zorder=3, label=label)
    axes.fill_between(epochs, means - spread, means + spread, color=colour, alpha=0.15, linewidth=0)


def _by_epoch(group: Group, metric: str) -> dict[int, list[float]]:
    """The metric of each trial, after each epoch that all of them reported."""
    trials = [{epoch: report[metric] for epoch, report in t.epochs.items() if metric in report} for t in group.trials]
    return {epoch: [trial[epoch] for trial in trials] for epoch in sorted(set.intersection(*map(set, trials)))}
