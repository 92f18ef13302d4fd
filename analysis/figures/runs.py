"""The fronts of several runs on one plot: a colour and a marker a run."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import fronts
from analysis.figures import style
from analysis.figures.front import axis_label, staircase
from analysis.layout import counted, shortened
from analysis.run_comparison import Run, objectives_of
from analysis.stats import Estimate

_MARKERS = "osD^v"
_SIZES = (11.0, 7.5, 6.5, 5.5, 4.5)
"""In points; the first is the largest, so that runs with the same numbers can all be seen."""
_MARKS = "Large: a run's front, bars ± 1 sd over seeds; small: its other configurations; dashed: what the front covers."
_ONE_SEED = "{}: one seed a configuration, an order and no claim."


def fronts_of_runs(runs: Sequence[Run]) -> Figure:
    """Each run's configurations, by their means, and its own front."""
    first, second = objectives_of(runs)
    directions = (second.direction, first.direction)
    figure = style.figure(7.4, 5.8)
    axes = figure.subplots()
    looks = dict(zip((run.letter for run in runs), zip(style.APART, _MARKERS, _SIZES, strict=False), strict=False))
    on_front = {
        run.letter: _draw(axes, run, (second.column, first.column), directions, *looks[run.letter]) for run in runs
    }
    axes.margins(0.12)
    for run in runs:
        staircase(axes, on_front[run.letter], directions, color=looks[run.letter][0], **_line(looks[run.letter][2]))
    style.finish(axes, axis_label(second, 85), axis_label(first, 60))
    single = ", ".join(run.letter for run in runs if not run.results.several)
    apart = [f"{run.letter} is on another scale: {run.obstacle}." for run in runs if run.obstacle]
    below = " ".join([_MARKS, *([_ONE_SEED.format(single)] if single else []), *apart])
    epochs = sorted({run.results.epoch for run in runs})
    after = f"after epoch {' and '.join(map(str, epochs))}"
    data = ", ".join(dict.fromkeys(run.results.data for run in runs))
    style.titles(axes, f"{first.name[0].upper()}{first.name[1:]} against {second.name}: {data}, {after}", below)
    handles = [
        Line2D([], [], color=colour, marker=marker, mec="white", label=_label(run), **_line(size))
        for run, (colour, marker, size) in zip(runs, looks.values(), strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=1, **style.LEGEND)
    return figure


def _line(size: float) -> dict[str, Any]:
    return {"ls": (0, (4, 3)), "lw": size / 5}


def _draw(
    axes: Axes, run: Run, columns: tuple[str, str], directions: fronts.Directions, colour: str, marker: str, size: float
) -> list[fronts.Point]:
    """Draw the marks of one run; the means on its front."""
    by_seed = [list(points.values()) for group in run.results.groups if (points := group.points(*columns))]
    estimates = [[Estimate.of(values) for values in zip(*places, strict=True)] for places in by_seed]
    means = [(x.mean, y.mean) for x, y in estimates]
    chosen = fronts.front(means, directions)
    others = np.array([mean for i, mean in enumerate(means) if i not in chosen]).reshape(-1, 2)
    axes.scatter(others[:, 0], others[:, 1], s=14, color=colour, marker=marker, alpha=0.45, linewidths=0, zorder=3)
    place = np.array([means[i] for i in chosen]).reshape(-1, 2)
    # of one seed NaN, which draws no bar
    spread = np.array([[one.sd for one in estimates[i]] for i in chosen], dtype=float).reshape(-1, 2)
    axes.errorbar(
        place[:, 0], place[:, 1], xerr=spread[:, 0], yerr=spread[:, 1], zorder=4,
        fmt=marker, ms=size, mec="white", mew=0.8, color=colour, elinewidth=1.1, capsize=2,
    )  # fmt: skip
    return [means[i] for i in chosen]


def _label(run: Run) -> str:
    number = counted(len(run.results.estimated), "configuration")
    return style.plain(f"{run.letter}: {shortened(run.name, 60)}, {number}, {run.results.seeds}")
