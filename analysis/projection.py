"""Codes and encoder outputs in two dimensions: principal components, and t-SNE (van der Maaten & Hinton 2008).

What is to be compared goes into one projection, since two projections have no axis in common.
"""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from analysis.layout import write_file
from trainables.commands import Terminal

Floats = NDArray[np.float64]

PERPLEXITY, LEARNING_RATE, ITERATIONS = 30.0, 200.0, 1000
"""The paper's."""


class Projection(NamedTuple):
    """Points in the plane."""

    points: Floats
    """(N, 2); NaN of a row that is not finite."""
    method: str
    """How they came about, for a caption."""


def pca(rows: Floats) -> Projection | None:
    """``rows`` (N, D) on their first two principal components; none where all that are finite are equal.

    The sign of a component is that of its largest weight, so that equal rows give equal pictures.
    """
    finite = _varying(rows)
    if finite is None:
        return None
    centred = rows[finite] - rows[finite].mean(0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    axes = (axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None])[:2]
    points = np.full((len(rows), 2), np.nan)
    points[finite] = 0  # of rows with one dimension the second component is nothing
    points[finite, : len(axes)] = centred @ axes.T
    share = (spread[:2] ** 2).sum() / (spread**2).sum()
    return Projection(points, f"PCA: two components, {share:.0%} of the variance")


def tsne(rows: Floats, folder: Path) -> Projection | None:
    """The t-SNE of ``rows`` (N, D), fitted once and kept in ``folder``; none of fewer than 4 rows, or of equal ones.

    The paper's settings, from the principal components on, so that equal rows give equal pictures. With fewer than 91
    rows the perplexity is what they allow, a third of their number. Minutes for thousands: the terminal tells.
    """
    finite = _varying(rows)
    if finite is None or finite.sum() < 4:
        return None
    start = pca(rows)
    assert start is not None
    few = np.ascontiguousarray(rows[finite], dtype=np.float32)
    perplexity = min(PERPLEXITY, (len(few) - 1) / 3)
    settings = f"{few.shape} {perplexity} {LEARNING_RATE} {ITERATIONS}"
    digest = hashlib.sha256(settings.encode() + few.tobytes()).hexdigest()[:16]
    path = folder / f"tsne-{digest}.npy"
    fitted = _kept(path, len(few))
    if fitted is None:
        fitted = _fit(few, start.points[finite], perplexity)
        content = BytesIO()
        np.save(content, fitted)
        write_file(path, content.getvalue())
    points = np.full((len(rows), 2), np.nan)
    points[finite] = fitted
    words = f"perplexity {perplexity:g}" if perplexity == PERPLEXITY else f"perplexity {perplexity:.1f}: few points"
    return Projection(points, f"t-SNE: {words}, learning rate {LEARNING_RATE:g}, {ITERATIONS:,} iterations")


def _varying(rows: Floats) -> NDArray[np.bool_] | None:
    """Which rows are finite; none if these are all equal, or none are."""
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(rows), axis=1)
    few = rows[finite]
    return finite if len(few) and (few != few[0]).any() else None


def _fit(rows: NDArray[np.float32], start: Floats, perplexity: float) -> NDArray[np.float32]:
    from sklearn.manifold import TSNE  # seconds, and only here

    model = TSNE(
        perplexity=perplexity,
        learning_rate=LEARNING_RATE,
        max_iter=ITERATIONS,
        init=(start / start[:, 0].std() * 1e-4).astype(np.float32),  # as scikit-learn's own init="pca"
        random_state=0,
    )
    what = f"t-SNE of {len(rows):,} points of {rows.shape[1]} dimensions, {ITERATIONS:,} iterations"
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    # scikit-learn tells nobody how far it is
    with Progress(*columns, console=Terminal(), transient=True) as progress:
        progress.add_task(what, total=None)
        points: NDArray[np.float32] = model.fit_transform(rows)
    return points


def _kept(path: Path, count: int) -> NDArray[np.float32] | None:
    """The points of an earlier fit; none if there are none, or others."""
    try:
        points: NDArray[np.float32] = np.load(path)
    except Exception:  # there is none, or it is damaged: numpy's headers can be wrong in many ways
        return None
    return points if points.shape == (count, 2) and points.dtype == np.float32 else None
