"""Tuning curves, the best after n trials: a line and an interval an estimator, a panel an objective."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from analysis.estimators import EstimatorComparison, estimator_comparison
from analysis.figures import style
from analysis.objectives import Objective
from analysis.results import Results

_LINES = ("-", "--", "-.")
"""Not dotted: the means are dots."""


def tuning(results: Results) -> Figure | None:
    """The tuning curves; none unless there are two tuned estimators (``estimator_comparison``)."""
    made = estimator_comparison(results)
    if made is None:
        return None
    figure = style.figure(9.6, 4.3, 3.8)
    colours = dict(zip((g.estimator for g in results.groups), style.estimator_colours(results.groups), strict=True))
    panels = style.panels(figure, 2)
    for axes, objective in zip(panels, results.objectives, strict=True):
        _panel(axes, made, objective, colours)
    style.titles(
        panels[0],
        f"Best after n trials: {results.data}, after epoch {results.epoch}, seed {made.seed}",
        "Lines: the median over random orders of the trials; bands: its 95 % interval, where so many trials tell it; "
        f"dots: the mean. A trial stopped early or failed was tried, and is worse than all. {made.sampler_note}",
    )
    handles, _ = panels[0].get_legend_handles_labels()
    style.legend(figure, handles)
    return figure


def _panel(axes: Axes, made: EstimatorComparison, objective: Objective, colours: dict[str, str]) -> None:
    for one, dash in zip(made.tuned, _LINES * len(made.tuned), strict=False):
        curve = one.curve(objective)
        trials = np.arange(1, len(curve.median) + 1)
        median, low, high = (
            np.where(np.isfinite(line), line, np.nan) for line in (curve.median, curve.low, curve.high)
        )
        label, colour = f"{style.plain(one.name)}: {len(one.tried)} trials, {one.epochs:,} epochs", colours[one.name]
        axes.plot(trials, median, color=colour, ls=dash, lw=1.6, label=label)
        axes.plot(trials, curve.expected, color=colour, ls="", marker=".", ms=2.5, alpha=0.7)
        axes.fill_between(trials, low, high, color=colour, alpha=0.13, linewidth=0)
    style.finish(axes, "trials n", textwrap.fill(objective.metric.label, 45))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
