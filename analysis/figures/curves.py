"""MSE and perplexity by epoch: a line a configuration, and a band of one standard deviation over its seeds."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.estimates import Estimate
from analysis.figures import style
from analysis.groups import Group
from analysis.results import Results


def curves(results: Results) -> Figure | None:
    """The learning curves of all compared trials; none if no trial has completed."""
    if not results.groups:
        return None
    featured = results.featured(style.MOST)
    looks = zip(style.shades(featured), style.dashes(featured), strict=True)
    look = dict(zip((group.label for group in featured), looks, strict=True))
    figure = Figure(figsize=(9.6, 4.3), dpi=style.DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, metric, name in (
        (left, "mse", "MSE on [-1, 1], whole test set"),
        (right, "perplexity", "perplexity, whole test set"),
    ):
        for group in results.groups:
            colour, dash = look.get(group.label, ("0.8", "-"))
            _line(axes, group, metric, colour, dash, group.label if group.label in look else "")
        style.bare(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch", size=9)
        axes.set_ylabel(name, size=9)
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


def _line(axes: Axes, group: Group, metric: str, colour: str, dash: str, label: str) -> None:
    shared = set.intersection(*({e for e, m in trial.epochs.items() if metric in m} for trial in group.trials))
    epochs = sorted(shared)
    estimates = [Estimate.of([trial.epochs[epoch][metric] for trial in group.trials]) for epoch in epochs]
    means = np.array([estimate.mean for estimate in estimates])
    spread = np.array([estimate.sd or 0.0 for estimate in estimates])
    kind = {"color": colour, "ls": dash, "lw": 1.6, "marker": "o" if len(epochs) == 1 else "", "ms": 4}
    axes.plot(epochs, means, label=style.plain(label) or "_", zorder=3 if label else 1, **kind)  # type: ignore[arg-type]
    if label:
        axes.fill_between(epochs, means - spread, means + spread, color=colour, alpha=0.15, linewidth=0)
