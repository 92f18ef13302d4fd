"""How a codebook came about: all its codes after chosen epochs, in one projection (the paper's figures 6 to 8)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.projection import Floats, pca, tsne
from analysis.results import Results
from analysis.snapshots import Snapshot, thinned

MOST_PANELS = 6


def evolution(results: Results) -> Figure | None:
    """A panel an epoch; none unless a codebook moved between two snapshots.

    One projection is fitted to the codes of all panels, so that a code that stands still stays where it is.
    """
    found = results.shown
    kept = [one for one in found.snapshots if one.codebook is not None]
    chosen = thinned(kept, MOST_PANELS)
    codebooks = [one.codebook for one in chosen if one.codebook is not None]
    if all(np.array_equal(codes, codebooks[0], equal_nan=True) for codes in codebooks):
        return None
    rows = np.concatenate(codebooks)
    projections = [made for made in (tsne(rows, results.folder / "figures"), pca(rows)) if made is not None]
    if not projections:
        return None
    side = min(3.0, 9.2 / len(chosen))
    figure = style.figure(0.4 + side * len(chosen), 1 + side * len(projections), 0.4 + 1.35 * len(chosen))
    shape = (len(chosen), len(projections)) if style.narrow() else (len(projections), len(chosen))
    panels = figure.subplots(*shape, squeeze=False)
    for number, projection in enumerate(projections):
        places = np.split(projection.points, len(chosen))
        mine: list[Axes] = list(panels[:, number] if style.narrow() else panels[number])
        for index, axes in enumerate(mine):
            _panel(axes, places[: index + 1], chosen[index])
            style.square(axes, projection.points)
        _name(mine, chosen, projection.method.partition(":")[0], first=number == 0)
    methods = "; ".join(made.method for made in projections)
    title = f"The codebook by epoch: {results.data}{style.of(found)}"
    some = f" {len(chosen)} of {len(kept)} snapshots." if len(chosen) < len(kept) else ""
    below = f"One projection of all {len(rows):,} places of {len(codebooks[0]):,} codes. {methods}.{some}"
    style.heading(figure, title, below)
    style.legend(figure, [*style.code_handles(), Line2D([], [], **_PATH, label="its way since the panel before")])
    return figure


_PATH: dict[str, Any] = {"color": style.USED, "lw": 0.5, "alpha": 0.35}


def _panel(axes: Axes, places: Sequence[Floats], snapshot: Snapshot) -> None:
    """The codes where they are now, the used ones with their way from the panel before."""
    now, used = places[-1], snapshot.counts > 0
    if len(places) > 1:
        axes.add_collection(LineCollection(list(np.stack([places[-2], now], axis=1)[used]), zorder=2, **_PATH))
    style.codes(axes, now, used)


def _name(panels: Sequence[Axes], chosen: Sequence[Snapshot], method: str, first: bool) -> None:
    """Epochs along one side, the method along the other."""
    for axes, one in zip(panels, chosen, strict=True):
        if first:
            label = f"{style.at(one)}\n{(one.counts > 0).sum():,} of {len(one.counts):,} used"
            axes.set_ylabel(label, size=style.small()) if style.narrow() else axes.set_title(label, size=style.small())
    panels[0].set_title(method, size=style.small()) if style.narrow() else panels[0].set_ylabel(method, size=9)
