"""MSE against what an image costs in bits: under an ideal entropy coder, and with codes of fixed length."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import fronts
from analysis.figures import labels, style
from analysis.figures.scatter import Place, Spot, draw, legend_handles, name, staircase
from analysis.rates import RATES
from analysis.results import Results

_NAMED = 6
"""So many names fit one panel."""


def rate(results: Results) -> Figure | None:
    """Both rates side by side with their fronts; none if fewer than two configurations are compared."""
    if len(results.groups) < 2:
        return None
    figure = Figure(figsize=(9.6, 4.9), dpi=style.DPI, layout="constrained")
    panels = list(zip(figure.subplots(1, 2, sharey=True), _spots(results), strict=True))
    for axes, spots in panels:
        draw(axes, spots)
        axes.margins(0.14)
        style.bare(axes)
    steps = [_front(axes, spots) for axes, spots in panels]
    (left, spots), (right, _) = panels
    left.set_xlabel("bits an image, ideal entropy coder (← better)", size=9)
    right.set_xlabel("bits an image, fixed length: log2 K a code (← better)", size=9)
    left.set_ylabel("MSE on [-1, 1], whole test set (← better)", size=9)
    few = f"Named: the front, where it has at most {_NAMED}."
    when = f"{style.data(results)}, after epoch {results.epoch}, {results.seeds}"
    below = style.spread(results, "Small: a seed. Large: the mean, bars ± 1 sd over seeds.")
    style.titles(left, f"MSE against rate: {when}", f"{below} {few}")
    figure.legend(handles=legend_handles(spots), loc="outside lower left", ncols=6, fontsize=8, frameon=False)
    for (axes, spots), line, told in zip(panels, steps, ((), ("codebook_size",)), strict=True):
        chosen = [spots[i] for i in fronts.front([spot.mean for spot in spots])]
        if len(chosen) <= _NAMED:
            texts = [(name(spot.group, results, *told), *spot.mean, spot.colour) for spot in chosen]
            labels.place(axes, texts, [*(place for spot in spots for place in spot.inked), *line])
    return figure


def _spots(results: Results) -> list[list[Spot]]:
    colours = style.estimator_colours(results.groups)
    coloured = list(zip(results.groups, colours, strict=True))
    known = [[(g, tuple(places(g, results).values()), c) for g, c in coloured] for places in RATES.values()]
    return [[Spot(*spot) for spot in spots if spot[1]] for spots in known]


def _front(axes: Axes, spots: list[Spot]) -> list[Place]:
    means = [spot.mean for spot in spots]
    return staircase(axes, [means[i] for i in fronts.front(means)], "min", "min") if spots else []
