"""Test images and each configuration's reconstructions of them, in rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.results import Images, Results
from vqcore.psnr import psnr


def images(results: Results) -> Figure | None:
    """First the originals, then a row a configuration (its lowest seed that has images); none if there are none."""
    rows = results.pictures.rows
    if not rows:
        return None
    strips = [("original", rows[0][2][0])]
    for group, trial, (_, reconstructed) in rows:
        mse = trial.epochs[trial.last_epoch].get("mse", np.nan)
        strips.append((f"{group.label}\nMSE {mse:.4f} · {psnr(mse):.1f} dB", reconstructed))
    title = f"Test images and reconstructions: {results.data}, the lowest seed of each, after its last epoch"
    some = f" {len(rows)} of {len(results.groups)} configurations." if len(rows) < len(results.groups) else ""
    below = f"MSE on [-1, 1] and PSNR: that seed's, on the whole test set, not on these images.{some}"
    return in_rows(strips, title, below)


def in_rows(strips: Sequence[tuple[str, Images]], title: str, below: str) -> Figure:
    """A row of pictures, (n, H, W, 3), for each label: to its left, and in a paper's column above it."""
    narrow = style.narrow()
    labels = [_on_one_line(label) if narrow else label for label, _ in strips]
    lines = sum(label.count("\n") + 1 for label in labels)
    figure = style.figure(9.6, 0.6 + 0.85 * len(strips), 0.43 * len(strips) + 0.125 * lines)
    panels = figure.subplots(len(strips), 1, squeeze=False).flat
    look: dict[str, Any] = {"size": style.small(), "parse_math": False}
    for axes, label, (_, pictures) in zip(panels, labels, strips, strict=True):
        axes.imshow(_strip(pictures), interpolation="nearest")
        axes.set_axis_off()
        if narrow:
            axes.set_title(label, loc="left", pad=2, **look)
        else:
            place: dict[str, Any] = {"ha": "right", "va": "center", "transform": axes.transAxes}
            axes.text(-0.01, 0.5, label, linespacing=1.4, **place, **look)
    style.heading(figure, title, below)
    return figure


def _on_one_line(label: str) -> str:
    """A label in a paper's column, whose second line is not broken."""
    name, *quality = label.split("\n")
    return style.fitting(" · ".join([name, *(words.replace(" ", "\u00a0") for words in quality)]), 56)


def _strip(pictures: Images) -> Images:
    """The images side by side, on white."""
    gap = max(1, pictures.shape[2] // 16)
    spaced = np.pad(pictures, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return np.concatenate(spaced, axis=1)[:, :-gap]
