"""Encoder outputs, the codebook and the codes in use, in one projection (Huh et al. 2023: their P, C and Q)."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.projection import pca, tsne
from analysis.results import Results


def projection(results: Results) -> Figure | None:
    """By t-SNE and by PCA, of the last snapshot that has a codebook; none if no trial has one."""
    found = results.shown
    last = next((one for one in reversed(found.snapshots) if one.codebook is not None), None)
    if last is None or last.codebook is None:
        return None
    rows = np.concatenate([last.embeddings, last.codebook])
    projections = [made for made in (tsne(rows, results.folder / "figures"), pca(rows)) if made is not None]
    if not projections:
        return None
    figure = style.figure(9.6, 5.2, 0.2 + 2.3 * len(projections))
    for axes, made in zip(style.panels(figure, len(projections)), projections, strict=True):
        outputs, codes = np.split(made.points, [len(last.embeddings)])
        axes.plot(*outputs.T, **_OUTPUTS, rasterized=True)
        style.codes(axes, codes, last.counts > 0)
        style.square(axes, made.points)
        axes.set_title(made.method.partition(":")[0], size=style.small() + 1, loc="left")
    methods = "; ".join(made.method for made in projections)
    title = f"Encoder outputs and codes, {style.at(last)}: {results.data}{style.of(found)}"
    style.heading(figure, title, f"{methods}. Fitted to outputs and codes together.")
    sampled = f"encoder outputs: {len(last.embeddings):,} test positions"
    handle = Line2D([], [], **{**_OUTPUTS, "ms": 4}, label=sampled)
    style.legend(figure, [handle, *style.code_handles(last.counts)])
    return figure


_OUTPUTS: dict[str, Any] = {"color": style.DATA, "marker": "o", "ls": "", "ms": 1.6, "mew": 0, "zorder": 1}
