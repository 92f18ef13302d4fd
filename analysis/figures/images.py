"""Test images and each configuration's reconstructions of them, in rows."""

import numpy as np
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.results import Images, Results, seed_of
from vqcore.metrics import psnr


def images(results: Results) -> Figure | None:
    """First the originals, then a row a configuration (its lowest seed that has images); none if there are none."""
    rows = results.pictures.rows
    if not rows:
        return None
    strips = [("original", rows[0][2][0])]
    for group, trial, (_, reconstructed) in rows:
        mse = trial.epochs[trial.last_epoch].get("mse", np.nan)
        strips.append((f"{group.label}\nMSE {mse:.4f} · {psnr(mse):.1f} dB", reconstructed))
    seeds = {seed_of(trial) for _, trial, _ in rows}
    which = f"seed {seeds.pop()}" if len(seeds) == 1 else "the lowest seed of each"
    epochs = {trial.last_epoch for _, trial, _ in rows}
    when = f"after epoch {epochs.pop()}" if len(epochs) == 1 else "each after its last epoch"
    title = f"Test images and reconstructions: {style.data(results)}, {when}, {which}"
    some = f" {len(rows)} of {len(results.groups)} configurations." if len(rows) < len(results.groups) else ""
    return _sheet(
        strips, title, f"MSE on [-1, 1] and PSNR: that seed's, on the whole test set, not on these images.{some}"
    )


def _sheet(rows: list[tuple[str, Images]], title: str, below: str) -> Figure:
    """Rows of images, each with its label to the left; laid out in inches, since an image's aspect is fixed."""
    strips = [(label, _strip(pictures)) for label, pictures in rows]
    longest = max(len(line) for label, _ in strips for line in label.split("\n"))
    left, head, row, gap = 0.2 + 0.066 * longest, 0.6, 0.8, 0.05
    tall, wide, _ = strips[0][1].shape
    across = row * wide / tall
    width, height = max(left + across + 0.1, 7.2), head + len(strips) * (row + gap) + 0.05
    figure = Figure(figsize=(width, height), dpi=style.DPI)
    for index, (label, strip) in enumerate(strips):
        bottom = height - head - (index + 1) * (row + gap) + gap
        axes = figure.add_axes((left / width, bottom / height, across / width, row / height))
        axes.imshow(strip, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        place = ((left - 0.1) / width, (bottom + row / 2) / height)
        figure.text(*place, label, ha="right", va="center", size=8, linespacing=1.4, parse_math=False)
    figure.text(0.1 / width, 1 - 0.12 / height, title, size=10.5, weight="bold", va="top", parse_math=False)
    figure.text(0.1 / width, 1 - 0.36 / height, below, size=8, color="0.35", va="top", parse_math=False)
    return figure


def _strip(pictures: Images) -> Images:
    """The images side by side, on white."""
    gap = max(1, pictures.shape[2] // 16)
    spaced = np.pad(pictures, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return np.concatenate(spaced, axis=1)[:, :-gap]
