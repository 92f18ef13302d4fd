"""What each code alone decodes to: the codes that are used, by how often, then those that are not."""

import math

import numpy as np
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.results import Images, Results


def patches(results: Results) -> Figure | None:
    """Of the last snapshot that has patches; none if no trial has one."""
    found = results.shown
    last = next((one for one in reversed(found.snapshots) if one.patches is not None), None)
    if last is None or last.patches is None:
        return None
    order = np.argsort(-last.counts, kind="stable")
    used = int((last.counts > 0).sum())
    kinds = {"used, the most often first": order[:used], "not used on the test set": order[used:]}
    kinds = {f"{len(codes):,} codes {words}": codes for words, codes in kinds.items() if len(codes)}
    wide = 2.4 if not style.narrow() else 1.3  # times as wide as high, if all were used
    columns = min(len(order), math.ceil(math.sqrt(wide * len(order))))
    rows = [math.ceil(len(codes) / columns) for codes in kinds.values()]
    width = 9.6 if not style.narrow() else style.COLUMN
    height = (width - 0.2) / columns * sum(rows) + 0.25 * len(kinds)
    figure = style.figure(width, height + 0.5, height)
    panels = figure.subplots(len(kinds), 1, squeeze=False, height_ratios=rows).flat
    for axes, (label, codes) in zip(panels, kinds.items(), strict=True):
        axes.imshow(_mosaic(last.patches[codes], columns), interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(label, loc="left", size=style.small(), pad=3)
    title = f"Each code decoded, {style.at(last)}: {results.data}{style.of(found)}"
    style.heading(figure, title, "The middle of an image that is made of that code alone, as large as a code's share.")
    return figure


def _mosaic(tiles: Images, columns: int) -> Images:
    """The tiles in rows of so many, on a grey that no white or black tile is lost in, a quarter of a tile apart."""
    side = tiles.shape[1]
    gap = max(1, side // 4)
    rows = math.ceil(len(tiles) / columns)
    grey = np.full((rows * columns, side + gap, tiles.shape[2] + gap, 3), 200, np.uint8)
    grey[: len(tiles), :side, : tiles.shape[2]] = tiles
    grid = grey.reshape(rows, columns, *grey.shape[1:]).swapaxes(1, 2)
    return grid.reshape(rows * grey.shape[1], columns * grey.shape[2], 3)[:-gap, :-gap]
