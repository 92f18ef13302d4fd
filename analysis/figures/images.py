"""Test images and what each configuration makes of them, in rows."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from analysis.figures import style
from analysis.groups import Group, psnr, seed_of
from analysis.results import Results
from trainables.journal import TrialRecord

Images = NDArray[np.uint8]


def images(results: Results) -> Figure | None:
    """First the originals, then a row a configuration (its lowest seed that has images); none if there are none."""
    rows = [row for group in results.featured(style.MOST) if (row := _row(results, group))]
    if not rows:
        return None
    originals = rows[0][2][0]
    count = len(rows) + 1
    sides = originals.shape[2] * originals.shape[0] / originals.shape[1]
    height = 0.82 * (8 / sides if sides > 8 else 1)
    layout = ConstrainedLayoutEngine(h_pad=0.015, hspace=0.0)
    figure = Figure(figsize=(8.4, height * count + 0.75), dpi=style.DPI, layout=layout)
    axes = np.atleast_1d(figure.subplots(count))
    _strip(axes[0], originals, "original")
    for place, (group, trial, (_, reconstructed)) in zip(axes[1:], rows, strict=True):
        mse = trial.epochs[trial.last_epoch].get("mse", np.nan)
        _strip(place, reconstructed, f"{group.label}\nMSE {mse:.4f} · {psnr(mse):.1f} dB")
    seeds = {seed_of(trial) for _, trial, _ in rows}
    which = f"seed {seeds.pop()}" if len(seeds) == 1 else "the lowest seed of each"
    style.titles(
        axes[0],
        f"Test images and reconstructions: {style.subject(results).rsplit(',', 1)[0]}, {which}",
        "MSE on [-1, 1] and PSNR of that seed on the whole test set, not of these images alone.",
    )
    return figure


def _row(results: Results, group: Group) -> tuple[Group, TrialRecord, Images] | None:
    for trial in group.trials:
        pair = _read(results.folder / "trials" / trial.key / "reconstructions.npy")
        if pair is not None:
            return group, trial, pair
    return None


def _read(path: Path) -> Images | None:
    """The (2, n, H, W, 3) originals and reconstructions; none if the file is absent or was cut off."""
    try:
        pair: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = pair.ndim == 5 and pair.shape[0] == 2 and pair.shape[4] == 3 and pair.dtype == np.uint8 and pair.size > 0
    return pair if whole else None


def _strip(axes: Axes, pictures: Images, label: str) -> None:
    gap = max(1, pictures.shape[2] // 16)
    spaced = np.pad(pictures, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    axes.imshow(np.concatenate(spaced, axis=1)[:, :-gap], interpolation="nearest")
    axes.set_axis_off()
    axes.text(-0.015, 0.5, label, transform=axes.transAxes, ha="right", va="center", size=8, parse_math=False)
